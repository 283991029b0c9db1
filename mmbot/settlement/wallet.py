"""The wallet that settles: calls, signatures and submits through the pinned official client, and the chain's own word about them.

Owns: the client's context (signer, relayer, node), which contract is called for which market, and what an answer means. An EOA
(account.signature_type 0) signs transactions that the node takes; proxy wallet, safe and deposit wallet sign for the relayer.
Always through the collateral adapter (v1) or the router (v2): the conditional tokens' own redeemPositions succeeds and pays nothing.
Who calls: the settler. Can go wrong: `NoAnswer` (it may have been sent), `Busy` (not now), `Spent` (its nonce is used up), `Refused` (never).
Only identical bytes are ever sent again, so that nothing can happen twice.

The client is loaded when it is first needed: it takes a second and a hundred megabytes. Its modules have no public names for most of this; the
version is pinned. Source: venue protocol, settlement: calls, routes, relayer.
"""

import asyncio
import dataclasses
import re
from typing import NamedTuple

import msgspec

from mmbot.config import Settings
from mmbot.errors import UserError
from mmbot.execution.credentials import WALLETS, Credentials
from mmbot.execution.signing import EOA
from mmbot.settlement.effects import TRANSFER, topic_of
from mmbot.settlement.journal import Held, Op
from shm_layout.records import SK_MERGE

WALLET_TYPES = ("EOA", "POLY_PROXY", "GNOSIS_SAFE", "DEPOSIT_WALLET")
_NONCE = re.compile(r"nonce\s+(\d+)\s+does not match on-chain nonce\s+(\d+)", re.IGNORECASE)
_BUSY = re.compile(r"wallet busy|active action|in-flight action|replacement transaction underpriced", re.IGNORECASE)
_KNOWN = re.compile(r"already known|already imported|known transaction", re.IGNORECASE)
_LOW = re.compile(r"nonce too low", re.IGNORECASE)
_REVERT = re.compile(r"revert", re.IGNORECASE)
_BLOCKS_BACK = 100              # a node may be some blocks behind the one we asked


class WalletError(Exception):
    """Something between us and the chain."""


class NoAnswer(WalletError):
    """No answer, or one that means nothing: it may have been sent."""


class Busy(WalletError):
    """The wallet has an action under way, or we ask too often: not taken, later perhaps."""


class Spent(WalletError):
    """The nonce has been used up: by this very operation, or by another one."""


class Refused(WalletError):
    """Not taken, and never will be."""


class Signed(NamedTuple):
    """What is sent: ``body`` as text, its nonce, its deadline (0: none), the newest block, the hash if it is known before (an EOA's)."""
    body: str
    nonce: int
    deadline_s: int
    block: int
    tx: str


class Seen(NamedTuple):
    """What became of something sent. state: "waits", "mined", "final", "failed" or "unknown"."""
    state: str
    tx: str = ""
    text: str = ""


class Wallet:
    """The account's wallet. ``funder`` holds shares and dollars. Call `open` first. Errors of all calls: WalletError."""

    def __init__(self, cfg: Settings, who: Credentials):
        self.cfg, self.who, self.funder = cfg, who, who.funder
        self.by_relayer = who.signature_type != EOA
        self._ctx = None

    # ---- the client --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Load and set up the client, once. Errors: UserError (settings)."""
        if self._ctx is None:
            await asyncio.to_thread(_load)
            self._ctx = self._context()

    def _context(self):
        from eth_account import Account
        from polymarket._internal.actions.relayer.auth import make_relayer_header_resolver
        from polymarket._internal.context import AsyncSecureClientContext
        from polymarket._internal.environment import PRODUCTION_CONFIG, create_environment
        from polymarket._internal.eoa.rpc import JsonRpcClient
        from polymarket._internal.wallet import try_classify_wallet_type
        from polymarket.clients._transport import AsyncTransport
        from polymarket.models.clob import ApiKeyCreds

        venue, kind = self.cfg.venue, WALLET_TYPES[self.who.signature_type]
        found = try_classify_wallet_type(signer=self.who.address, wallet=self.funder, config=PRODUCTION_CONFIG.wallet_derivation)
        if found not in (None, kind):
            raise UserError(f"account.funder {self.funder} is the key's {found.lower()}, not a {WALLETS[self.who.signature_type]}: set account.signature_type")
        api_key = self._api_key()
        config = dataclasses.replace(PRODUCTION_CONFIG, chain_id=venue.chain_id, relayer_url=venue.relayer_url or "http://127.0.0.1:9", rpc_url=venue.rpc_url)
        relayer = AsyncTransport(base_url=config.relayer_url, header_resolver=make_relayer_header_resolver(api_key) if api_key else None)
        rpc = AsyncTransport(base_url=venue.rpc_url)
        return AsyncSecureClientContext(
            environment=create_environment(name="mmbot", config=config), gamma=rpc, data=rpc, rfq=rpc, clob=rpc, perps=rpc, secure_clob=rpc,
            signer=Account.from_key(self.who.private_key), credentials=ApiKeyCreds(key="", secret="", passphrase=""), wallet=self.funder,
            wallet_type=kind, signer_type="OWNER" if found or self.who.signature_type != 3 else "SESSION_KEY", relayer=relayer, combos=relayer,
            builder_gateway=relayer, api_key=api_key, rpc=JsonRpcClient(rpc), order_metadata=None)

    def _api_key(self):
        """How we show the relayer who we are. Errors: UserError."""
        from polymarket.auth import BuilderApiKey, RelayerApiKey

        account = self.cfg.account
        relayer, *builder = (getattr(account, n).get_secret_value() for n in ("relayer_key", "builder_key", "builder_secret", "builder_passphrase"))
        if not self.by_relayer:
            return None
        if not self.cfg.venue.relayer_url:
            raise UserError(f"venue.relayer_url is not set: a {WALLETS[self.who.signature_type]} settles through the relayer")
        if relayer or (self.cfg.profile == "paper" and not all(builder)):
            return RelayerApiKey(key=relayer or "paper", address=self.who.address)
        if not all(builder):
            raise UserError(f"a {WALLETS[self.who.signature_type]} settles through the relayer, which wants a key: set MMBOT_ACCOUNT__RELAYER_KEY, or "
                            "MMBOT_ACCOUNT__BUILDER_KEY, _BUILDER_SECRET and _BUILDER_PASSPHRASE")
        return BuilderApiKey(key=builder[0], secret=builder[1], passphrase=builder[2])

    async def close(self) -> None:
        """Close connections."""
        if self._ctx is not None:
            await self._ctx.relayer.close()
            await self._ctx.rpc.close()
            self._ctx = None

    # ---- contracts ---------------------------------------------------------------------------------------------------

    @property
    def collateral(self) -> str:
        """The dollars' contract."""
        return self._ctx.environment_config.collateral_token

    def tokens_at(self, held: Held) -> str:
        """The contract that holds a window's shares."""
        config = self._ctx.environment_config
        return config.position_manager if held.version == 2 else config.conditional_tokens

    def operator(self, held: Held) -> str:
        """The contract that is called for a window, which must be allowed to move our shares."""
        config = self._ctx.environment_config
        if held.version == 2:
            return config.protocol_v2_router
        return config.neg_risk_collateral_adapter if held.neg_risk else config.collateral_adapter

    def _calls(self, held: Held, op: Op) -> list:
        from polymarket._internal.actions.relayer import calls

        target = self.operator(held)
        if held.version == 2:
            if op.kind == SK_MERGE:
                return [calls.router_merge_call(router=target, condition_id=held.condition, amount=op.up_u6)]
            size = (op.up_u6, op.down_u6)[op.outcome]
            return [calls.router_redeem_call(router=target, condition_id=held.condition, outcome_index=op.outcome, amount=size)]
        if op.kind == SK_MERGE:
            return [calls.ctf_merge_positions_call(target=target, collateral=self.collateral, condition_id=held.condition, amount=op.up_u6)]
        return [calls.ctf_redeem_positions_call(ctf=target, collateral=self.collateral, condition_id=held.condition)]

    # ---- the chain's word ----------------------------------------------------------------------------------------------

    async def _asked(self, question):
        """The answer of a question that changes nothing."""
        from polymarket.errors import PolymarketError

        try:
            return await question
        except (PolymarketError, OSError) as e:
            raise NoAnswer(_text(e)) from None

    async def balances_u6(self, held: Held) -> tuple[int, int]:
        """Shares (Up, Down) that the chain shows."""
        from polymarket._internal.actions.relayer import calls

        call = calls.erc1155_balance_of_batch_call(token_address=self.tokens_at(held), owners=[self.funder] * 2, token_ids=list(held.tokens))
        data = await self._asked(self._ctx.rpc.eth_call(to=call.to, data=call.data))
        try:
            up, down = calls.decode_erc1155_balance_of_batch_result(data)
        except Exception as e:          # the client's decoder lets through what its libraries raise
            raise NoAnswer(f"balances that cannot be read: {e}") from None
        return up, down

    async def approved(self, held: Held) -> bool:
        """May the contract that we call move our shares?"""
        from polymarket._internal.actions.relayer import calls

        call = calls.erc1155_is_approved_for_all_call(token_address=self.tokens_at(held), owner=self.funder, operator=self.operator(held))
        return int(await self._asked(self._ctx.rpc.eth_call(to=call.to, data=call.data)), 16) != 0

    async def block(self) -> int:
        """Number of the newest block."""
        return int(await self._asked(self._ctx.rpc._call("eth_blockNumber", [])), 16)

    async def now_s(self) -> int:
        """The chain's time."""
        return await self._asked(self._ctx.rpc.eth_get_latest_block_timestamp())

    async def receipt(self, tx: str) -> dict | None:
        """Receipt of a transaction, None while there is none."""
        return await self._asked(self._ctx.rpc.eth_get_transaction_receipt(tx))

    async def payments(self, since_block: int) -> list[str]:
        """Hashes of transactions that paid dollars to the wallet since a block, oldest first."""
        asked = {"fromBlock": hex(max(since_block - _BLOCKS_BACK, 0)), "toBlock": "latest", "address": self.collateral,
                 "topics": [TRANSFER, None, topic_of(self.funder)]}
        logs = await self._asked(self._ctx.rpc._call("eth_getLogs", [asked]))
        return list(dict.fromkeys(log["transactionHash"] for log in logs))

    async def nonce(self) -> int:
        """The wallet's next nonce, as the chain has it."""
        from polymarket._internal.actions.relayer.nonce import fetch_execute_params, fetch_relay_payload
        from polymarket.models.clob.relayer import RelayerTransactionType as Kind

        ctx = self._ctx
        if not self.by_relayer:
            return await self._asked(ctx.rpc.eth_get_transaction_count(self.funder, "latest"))
        ask, kind = {"POLY_PROXY": (fetch_relay_payload, Kind.PROXY), "GNOSIS_SAFE": (fetch_execute_params, Kind.SAFE),
                     "DEPOSIT_WALLET": (fetch_execute_params, Kind.WALLET)}[ctx.wallet_type]
        return int((await self._asked(ask(ctx.relayer, address=ctx.signer.address, type=kind))).nonce)

    # ---- sending -------------------------------------------------------------------------------------------------------

    async def sign(self, held: Held, op: Op) -> Signed:
        """Sign an operation; nothing is sent. Errors: NoAnswer (nothing is lost by it), Refused (it would revert)."""
        block, calls = await self.block(), self._calls(held, op)
        if not self.by_relayer:
            return await self._sign_own(calls[0], block)
        from polymarket._internal.actions.relayer.gasless import build_signed_payload_for_wallet_type
        from polymarket.errors import PolymarketError

        try:
            payload = await build_signed_payload_for_wallet_type(self._ctx, calls=calls, metadata=f"mmbot {op.number}")
        except (PolymarketError, OSError) as e:
            raise NoAnswer(_text(e)) from None
        deadline = int(payload.get("depositWalletParams", {}).get("deadline", 0))
        return Signed(msgspec.json.encode(payload).decode(), int(payload["nonce"]), deadline, block, "")

    async def _sign_own(self, call, block: int) -> Signed:
        from polymarket._internal.eoa.rpc import JsonRpcCallError
        from polymarket.errors import PolymarketError

        rpc, signer = self._ctx.rpc, self._ctx.signer
        try:
            await rpc.verify_chain_id(self.cfg.venue.chain_id)
            nonce = await rpc.eth_get_transaction_count(signer.address, "latest")
            terms = {"from": signer.address, "to": str(call.to), "value": "0x0", "data": call.data}
            gas, price = await rpc.eth_estimate_gas(terms), await rpc.eth_gas_price()
        except JsonRpcCallError as e:
            raise (Refused if _REVERT.search(str(e)) else NoAnswer)(_text(e)) from None
        except (PolymarketError, OSError) as e:
            raise NoAnswer(_text(e)) from None
        signed = signer.sign_transaction({"to": str(call.to), "value": 0, "data": call.data, "gas": gas, "gasPrice": price, "nonce": nonce,
                                          "chainId": self.cfg.venue.chain_id})
        return Signed("0x" + signed.raw_transaction.hex().removeprefix("0x"), nonce, 0, block, "0x" + signed.hash.hex().removeprefix("0x"))

    async def submit(self, op: Op) -> tuple[str, str]:
        """Send what was signed, or send the same bytes again; (relayer's id, hash), "" for what is not known yet."""
        from polymarket._internal.eoa.rpc import JsonRpcCallError
        from polymarket.errors import PolymarketError, RateLimitError, RequestRejectedError

        try:
            if not self.by_relayer:
                return "", await self._ctx.rpc.eth_send_raw_transaction(op.body)
            return await self._submit_relayed(op)
        except RateLimitError as e:
            raise Busy(_text(e)) from None
        except JsonRpcCallError as e:
            if _KNOWN.search(str(e)):
                return "", op.tx
            raise _kind_of(str(e), rejected=True)(_text(e)) from None
        except RequestRejectedError as e:
            raise _kind_of(str(e), rejected=400 <= e.status < 500)(_text(e)) from None
        except (PolymarketError, OSError) as e:
            raise NoAnswer(_text(e)) from None

    async def _submit_relayed(self, op: Op) -> tuple[str, str]:
        from polymarket._internal.actions.relayer.submit import submit_gasless

        answer = await submit_gasless(self._ctx.relayer, payload=msgspec.json.decode(op.body))
        return answer.transaction_id, answer.transaction_hash or ""

    async def look(self, op: Op) -> Seen:
        """What became of an operation that was taken."""
        if not self.by_relayer:
            receipt = await self.receipt(op.tx)
            if receipt is not None:
                deep = await self.block() - int(receipt["blockNumber"], 16)
                return Seen("final" if deep >= self.cfg.settlement.confirmations else "mined", op.tx)
            return Seen("waits" if await self.nonce() <= op.nonce else "unknown", op.tx)
        from polymarket._internal.actions.relayer.poll import fetch_gasless_transaction
        from polymarket.errors import PolymarketError, RequestRejectedError

        try:
            tx = await fetch_gasless_transaction(self._ctx.relayer, transaction_id=op.relayer_id)
        except RequestRejectedError as e:
            if e.status == 404:
                return Seen("unknown", text=_text(e))
            raise NoAnswer(_text(e)) from None
        except (PolymarketError, OSError) as e:
            raise NoAnswer(_text(e)) from None
        state = {"STATE_MINED": "mined", "STATE_CONFIRMED": "final", "STATE_FAILED": "failed", "STATE_INVALID": "failed"}.get(str(tx.state), "waits")
        return Seen(state, tx.transaction_hash or "", tx.error_msg or "")


def _kind_of(text: str, rejected: bool) -> type[WalletError]:
    """What a refusal means."""
    if found := _NONCE.search(text):
        return Spent if int(found[1]) < int(found[2]) else Busy
    if _LOW.search(text):
        return Spent
    if _BUSY.search(text):
        return Busy
    return Refused if rejected else NoAnswer


def _text(e: Exception) -> str:
    return (str(e) or type(e).__name__)[:200]


def _load() -> None:
    """Import the client, off the event loop."""
    import eth_account  # noqa: F401
    import polymarket  # noqa: F401
    from polymarket._internal.actions.relayer import gasless  # noqa: F401
