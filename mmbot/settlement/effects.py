"""What a transaction did to our wallet: dollars and shares that came or went, read from the logs of its receipt.

Owns: arithmetic on receipts. Pure. Called by the settler, which believes no status: a transaction that redeems at the wrong contract succeeds and
pays nothing. Our trades move dollars and shares all the time, so a difference of balances proves nothing about one transaction; its logs do.
Can go wrong: a receipt that cannot be read (ValueError).
Source: ERC-20 Transfer, ERC-1155 TransferSingle and TransferBatch.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sha3 import keccak_256

from shm_layout.records import SK_MERGE, UP


def _topic(signature: bytes) -> str:
    return "0x" + keccak_256(signature).hexdigest()


TRANSFER = _topic(b"Transfer(address,address,uint256)")
SINGLE = _topic(b"TransferSingle(address,address,address,uint256,uint256)")
BATCH = _topic(b"TransferBatch(address,address,address,uint256[],uint256[])")


class Effect(NamedTuple):
    """``ok``: the receipt's status; dollars and shares (Up, Down) that came to the wallet, 1e-6, negative when they went."""
    ok: bool
    cash_u6: int
    shares_u6: tuple[int, int]


def topic_of(address: str) -> str:
    """An address as it stands in a log's topics."""
    return "0x" + address.removeprefix("0x").lower().rjust(64, "0")


def _words(data: str) -> list[int]:
    digits = data.removeprefix("0x")
    return [int(digits[i:i + 64], 16) for i in range(0, len(digits), 64)]


def _moved(log: dict) -> list[tuple[int, int]]:
    """(token, amount) of a log of the share contract."""
    words = _words(log["data"])
    if log["topics"][0] == SINGLE:
        return [(words[0], words[1])]
    ids, values = words[0] // 32, words[1] // 32
    n = words[ids]
    return list(zip(words[ids + 1:ids + 1 + n], words[values + 1:values + 1 + n], strict=True))


def effect_of(receipt: dict, wallet: str, collateral: str, tokens_at: str, tokens: Sequence[int]) -> Effect:
    """What a receipt says about ``wallet``: ``collateral`` the dollars' contract, ``tokens_at`` that of the shares, ``tokens`` (Up, Down) ids."""
    mine, cash, shares = topic_of(wallet), 0, [0, 0]
    try:
        for log in receipt["logs"]:
            topics, at = [t.lower() for t in log["topics"]], log["address"].lower()
            if at == collateral.lower() and topics[0] == TRANSFER:
                value = _words(log["data"])[0]
                cash += value * ((topics[2] == mine) - (topics[1] == mine))
            elif at == tokens_at.lower() and topics[0] in (SINGLE, BATCH):
                for token, amount in _moved(log):
                    if token in tokens:
                        shares[tokens.index(token)] += amount * ((topics[3] == mine) - (topics[2] == mine))
        return Effect(receipt["status"] in ("0x1", 1), cash, tuple(shares))
    except (KeyError, IndexError, TypeError, AttributeError) as e:
        raise ValueError(f"a receipt that cannot be read: {e!r}") from None


def judge(effect: Effect, kind: int, outcome: int, up_u6: int, down_u6: int, payout_u6: int) -> tuple[str, int]:
    """(what is wrong, "" when nothing is; dollars paid) of an operation that was to take these shares for this payout.

    A redemption takes whatever is there at that moment, so trades that settled late may make it larger: it must pay what its winning shares say.
    """
    if not effect.ok:
        return "reverted", 0
    gone = (-effect.shares_u6[0], -effect.shares_u6[1])
    if not effect.cash_u6 and payout_u6:
        return "paid_nothing", 0
    if kind == SK_MERGE:
        good = effect.cash_u6 == payout_u6 and gone == (up_u6, down_u6)
    else:
        won = gone[UP] if outcome == UP else gone[1 - UP]
        good = effect.cash_u6 == won >= payout_u6
    return ("" if good else "paid_wrong"), effect.cash_u6
