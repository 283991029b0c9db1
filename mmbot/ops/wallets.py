"""Which wallets belong to a key: the addresses that the venue's factories give to its owner, worked out without asking anybody.

Owns: nothing; the derivation is the official client's. Used by the doctor (does account.funder belong to this key and signature type?) and by
`mmbot keys show-address`. Can go wrong: a wallet made by other means (session keys, an older factory) is not found, which proves nothing.
Source: venue protocol, signature types; contracts.
"""

from mmbot.execution.signing import DEPOSIT_WALLET, EOA

PROXY, SAFE = 1, 2
NAMES = {EOA: "key", PROXY: "proxy wallet", SAFE: "safe", DEPOSIT_WALLET: "deposit wallet"}
OLD_DEPOSIT = "deposit wallet (first kind)"


def wallets_of(address: str) -> dict[str, str]:
    """Kind of wallet -> its address, for the owner ``address`` (0x hex) on Polygon."""
    # loads slowly; the derivation has no public name in the client, whose version is pinned
    from polymarket._internal.environment import PRODUCTION_CONFIG
    from polymarket._internal import wallet

    config = PRODUCTION_CONFIG.wallet_derivation
    return {NAMES[PROXY]: wallet.derive_proxy_wallet_address(address, config), NAMES[SAFE]: wallet.derive_safe_wallet_address(address, config),
            NAMES[DEPOSIT_WALLET]: wallet.derive_beacon_deposit_wallet_address(address, config),
            OLD_DEPOSIT: wallet.derive_uups_deposit_wallet_address(address, config)}


def type_of(address: str, funder: str) -> int | None:
    """The signature type with which ``address`` trades for ``funder``; None when the funder is none of its known wallets."""
    if funder.lower() == address.lower():
        return EOA
    kinds = {where.lower(): name for name, where in wallets_of(address).items()}
    kind = kinds.get(funder.lower())
    return None if kind is None else {NAMES[PROXY]: PROXY, NAMES[SAFE]: SAFE}.get(kind, DEPOSIT_WALLET)
