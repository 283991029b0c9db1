"""The chain of the exchange: transactions that merge or redeem shares of its accounts, their receipts, and a JSON-RPC port for them.

Owns: transactions and nonces. A transaction is mined `sim.settle_ms` after it came in and confirmed as much later; what it does to shares and
dollars it does when it is mined, all its calls or none. Every wallet has one at a time. Blocks come every two seconds of the tape.
Who calls: the relayer (`mmbot.sim.relayer`, wallets that are contracts), the JSON-RPC route (a key's own address). Who reads: clients, by receipt,
logs and balances; the ledger remembers what was mined. What can go wrong: bad transactions, answered as a node does. A call of the conditional
tokens' own redeemPositions succeeds and pays nothing, as it does with this collateral on the real chain.

Source: venue protocol, contracts; the ABI is that of the conditional tokens (v1, through an adapter) and of the protocol's router (v2).
"""

from collections.abc import Callable

import msgspec

from mmbot.sim.auth import address_word, keccak
from mmbot.sim.engine import Exchange, Market
from mmbot.sim.http import ApiError, Request
from shm_layout.records import UP

COLLATERAL = "0xC011a7E12a19f7B1f670d46F03B03f3342E82DFB"
TOKENS_V1, TOKENS_V2 = "0x4D97DCd97eC945f40cF65F87097ACe5EA0476045", "0x006F54F7f9A22e0000CC2AB60031000000ae9fEF"
ADAPTER, NEG_RISK_ADAPTER = "0xAdA100Db00Ca00073811820692005400218FcE1f", "0xadA2005600Dec949baf300f4C6120000bDB6eAab"
ROUTER = "0x12121212006e4CD160D18e3f00711DA5c3372600"
ZERO = "0x" + "00" * 20
BLOCK_MS, FIRST_BLOCK = 2_000, 70_000_000
GAS, GAS_PRICE = 200_000, 30_000_000_000
MAX_LOGS = 10_000
REVERTED = "execution reverted"
CHAIN_ID_FIELD = 35             # of v in a transaction signed for one chain: v = 35 + 2 * chain + parity


def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


_CTF_ARGS = ("address", "bytes32", "bytes32", "uint256[]")
MERGE = _selector("mergePositions(address,bytes32,bytes32,uint256[],uint256)")
REDEEM = _selector("redeemPositions(address,bytes32,bytes32,uint256[])")
MERGE_V2, REDEEM_V2 = _selector("merge(bytes31,uint256)"), _selector("redeem(bytes31,uint256,uint256)")
BALANCE, BALANCE_OF_ID = _selector("balanceOf(address)"), _selector("balanceOf(address,uint256)")
BALANCES, APPROVED = _selector("balanceOfBatch(address[],uint256[])"), _selector("isApprovedForAll(address,address)")
TRANSFER = "0x" + keccak(b"Transfer(address,address,uint256)").hex()
TRANSFER_SINGLE = "0x" + keccak(b"TransferSingle(address,address,address,uint256,uint256)").hex()


class Reverted(Exception):
    """A call that the contracts refuse."""


class Call(msgspec.Struct):
    """One call of a transaction."""
    target: str
    data: bytes


class Tx(msgspec.Struct):
    """A transaction and what became of it: state NEW, EXECUTED, MINED, CONFIRMED or FAILED (a relayer's words). ``burnt``: shares by token."""
    hash: str
    wallet: str
    nonce: int
    nonce_key: str
    calls: list[Call]
    relayer_id: str = ""
    state: str = "NEW"
    block: int = 0
    error: str = ""
    logs: list[dict] = []


def _word_of(address: str) -> str:
    return "0x" + address_word(address).hex()


class Chain:
    """``routes`` of the JSON-RPC port. ``mined``: told of each transaction when it is mined (condition, sizes, payout of each of its calls)."""

    def __init__(self, exchange: Exchange, chain_id: int):
        self.exchange, self.chain_id = exchange, chain_id
        self.txs: dict[str, Tx] = {}
        self.nonces: dict[str, int] = {}
        self.busy: dict[str, Tx] = {}
        self.on_mined: Callable[[Tx, list], None] = lambda tx, done: None
        self.routes = {("POST", "/rpc"): self._rpc, ("POST", "/rpc/"): self._rpc}

    # ---- transactions ----

    def block(self, now_ms: int) -> int:
        """Number of the newest block."""
        return FIRST_BLOCK + now_ms // BLOCK_MS

    def submit(self, tx: Tx, now_ms: int) -> None:
        """Take a transaction in; it is mined later."""
        self.txs[tx.hash] = self.busy[tx.wallet.lower()] = tx
        self.exchange._at(now_ms + self.exchange.settle_ms, self._mine, tx)

    def _mine(self, tx: Tx, now_ms: int) -> None:
        hooks = self.exchange.hooks
        how, wait_ms = hooks.settling(now_ms) if hooks is not None else ("", 0.0)
        if wait_ms > 0:
            self.exchange._at(now_ms + wait_ms, self._mine, tx)
            return
        try:
            if how == "revert":
                raise Reverted(REVERTED)
            plans = [self._plan(tx.wallet, call, how == "nothing") for call in tx.calls]
            self._affordable(tx.wallet, plans)
        except Reverted as e:
            tx.error, plans = str(e), []
        tx.block = self.block(now_ms)
        tx.state = "FAILED" if tx.error else "MINED"
        done = [self._carry_out(tx, *plan, now_ms) for plan in plans]
        if not tx.error or not tx.relayer_id:           # a contract wallet that reverts keeps its nonce, a key's transaction used it up
            self.nonces[tx.nonce_key] = tx.nonce + 1
        self.on_mined(tx, done)
        self.exchange._at(now_ms + self.exchange.settle_ms, self._confirm, tx)

    def _confirm(self, tx: Tx, now_ms: int) -> None:
        tx.state = tx.state if tx.error else "CONFIRMED"
        self.busy.pop(tx.wallet.lower(), None)

    def restore(self, tx: Tx, done: list) -> None:
        """What an earlier life of this exchange has mined."""
        account = self.exchange.account(tx.wallet)
        for condition_id, kind, sizes, payout in done:
            market = self.exchange.market(condition_id)
            if kind == "merge":
                self.exchange.merge(account, market, sizes[UP], 0)
            elif payout or kind == "redeem":
                self.exchange.redeem(account, market, tuple(sizes))
        self.txs[tx.hash] = tx
        tx.state = "FAILED" if tx.error else "CONFIRMED"
        if not tx.error or not tx.relayer_id:
            self.nonces[tx.nonce_key] = tx.nonce + 1

    # ---- what calls mean ----

    def check(self, wallet: str, calls: list[Call]) -> None:
        """Would they run now? Errors: Reverted."""
        self._affordable(wallet, [self._plan(wallet, call, False) for call in calls])

    def _market(self, condition: bytes, version: str) -> Market:
        for market in self.exchange.markets.values():
            if market.spec.version == version and bytes.fromhex(market.condition_id[2:])[:len(condition)] == condition:
                return market
        raise Reverted(f"{REVERTED}: condition not prepared yet")

    def _plan(self, wallet: str, call: Call, nothing: bool) -> tuple[Market, str, tuple[int, int], str, bool]:
        """(market, merge or redeem, shares of both tokens, contract called, pays nothing). Errors: Reverted."""
        from eth_abi import decode      # loads slowly, and many a session never settles

        target, selector, body = call.target.lower(), call.data[:4], call.data[4:]
        try:
            if target == ROUTER.lower() and selector == MERGE_V2:
                condition, size = decode(["bytes31", "uint256"], body)
                return self._market(condition, "v2"), "merge", (size, size), ROUTER, nothing
            if target == ROUTER.lower() and selector == REDEEM_V2:
                condition, outcome, size = decode(["bytes31", "uint256", "uint256"], body)
                return self._market(condition, "v2"), "redeem", (size, 0) if outcome == UP else (0, size), ROUTER, nothing
            if selector == MERGE and target in (ADAPTER.lower(), NEG_RISK_ADAPTER.lower()):
                _, _, condition, _, size = decode([*_CTF_ARGS, "uint256"], body)
                return self._market(condition, "v1"), "merge", (size, size), call.target, nothing
            if selector == REDEEM and target in (ADAPTER.lower(), NEG_RISK_ADAPTER.lower(), TOKENS_V1.lower()):
                condition = decode(list(_CTF_ARGS), body)[2]
                market, account = self._market(condition, "v1"), self.exchange.account(wallet)
                sizes = tuple(max(self.exchange.settled_u6(account, t), 0) for t in market.tokens)
                wrong = target == TOKENS_V1.lower()         # its positions are of another collateral: nothing is there, and nothing is said
                return market, "redeem", (0, 0) if wrong else sizes, call.target, nothing
        except ValueError as e:
            raise Reverted(f"{REVERTED}: {e}") from None
        raise Reverted(f"{REVERTED}: no such function")

    def _affordable(self, wallet: str, plans: list) -> None:
        account, used = self.exchange.account(wallet), {}
        for market, kind, sizes, target, _ in plans:
            if (target != ROUTER) and market.spec.neg_risk != (target.lower() == NEG_RISK_ADAPTER.lower()):
                raise Reverted(f"{REVERTED}: condition of another adapter")
            if kind == "redeem" and not market.paid:
                raise Reverted(f"{REVERTED}: result for condition not received yet")
            for token, size in zip(market.tokens, sizes, strict=True):
                used[token] = used.get(token, 0) + size
                if used[token] > self.exchange.settled_u6(account, token):
                    raise Reverted(f"{REVERTED}: SafeMath: subtraction overflow")

    def _carry_out(self, tx: Tx, market: Market, kind: str, sizes: tuple[int, int], target: str, nothing: bool, now_ms: int) -> list:
        account, tokens = self.exchange.account(tx.wallet), TOKENS_V2 if market.spec.version == "v2" else TOKENS_V1
        payout = 0 if nothing else sizes[UP] if kind == "merge" else sizes[market.outcome]
        if nothing:
            sizes = (0, 0)
        elif kind == "merge":
            self.exchange.merge(account, market, sizes[UP], now_ms)
        else:
            self.exchange.redeem(account, market, sizes)
        for token, size in zip(market.tokens, sizes, strict=True):
            if size:
                self._log(tx, tokens, [TRANSFER_SINGLE, _word_of(target), _word_of(tx.wallet), _word_of(target)], int(token), size)
        if payout:
            self._log(tx, COLLATERAL, [TRANSFER, _word_of(ZERO), _word_of(tx.wallet)], payout)
        return [market.condition_id, kind, list(sizes), payout]

    @staticmethod
    def _log(tx: Tx, address: str, topics: list[str], *words: int) -> None:
        tx.logs = [*tx.logs, {"address": address, "topics": topics, "data": "0x" + "".join(f"{w:064x}" for w in words), "logIndex": hex(len(tx.logs)),
                              "transactionHash": tx.hash, "blockNumber": hex(tx.block)}]

    # ---- JSON-RPC ----

    def _rpc(self, r: Request):
        """One request, or several in a list."""
        asked = r.json(object)
        return [self._one(a) for a in asked] if isinstance(asked, list) else self._one(asked)

    def _one(self, asked: dict) -> dict:
        try:
            method = getattr(self, "_" + str(asked["method"]).replace("eth_", "rpc_"), None)
            if method is None:
                return _failed(asked, -32601, f"the method {asked['method']} does not exist/is not available")
            return {"jsonrpc": "2.0", "id": asked.get("id"), "result": method(*asked.get("params", []))}
        except Reverted as e:
            return _failed(asked, 3, str(e))
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            if not isinstance(asked, dict):
                raise ApiError(400, "invalid request") from None
            return _failed(asked, -32602, f"invalid argument: {e}")

    def _now_ms(self) -> int:
        return self.exchange.clock.now_ns() // 1_000_000

    def _rpc_chainId(self) -> str:
        return hex(self.chain_id)

    def _rpc_blockNumber(self) -> str:
        return hex(self.block(self._now_ms()))

    def _rpc_gasPrice(self) -> str:
        return hex(GAS_PRICE)

    def _rpc_getBlockByNumber(self, _which, _full=False) -> dict:
        return {"number": self._rpc_blockNumber(), "timestamp": hex(self._now_ms() // 1000)}

    def _rpc_getTransactionCount(self, address: str, which: str = "latest") -> str:
        pending = self.busy.get(address.lower())
        waiting = which == "pending" and pending is not None and not pending.relayer_id and pending.state == "NEW"
        return hex(self.nonces.get(address.lower(), 0) + waiting)

    def _rpc_estimateGas(self, tx: dict, *_) -> str:
        self.check(tx["from"], [Call(tx["to"], bytes.fromhex(tx["data"][2:]))])
        return hex(GAS)

    def _rpc_getTransactionReceipt(self, tx_hash: str) -> dict | None:
        tx = self.txs.get(tx_hash)
        if tx is None or not tx.block:
            return None
        return {"transactionHash": tx.hash, "status": "0x0" if tx.error else "0x1", "blockNumber": hex(tx.block), "gasUsed": hex(GAS), "logs": tx.logs}

    def _rpc_getLogs(self, asked: dict) -> list[dict]:
        first, topics = int(asked["fromBlock"], 16), asked.get("topics", [])
        address = asked["address"].lower()
        rows = [log for tx in self.txs.values() if tx.block >= first for log in tx.logs if log["address"].lower() == address and all(
            want is None or (i < len(log["topics"]) and log["topics"][i] in (want if isinstance(want, list) else [want]))
            for i, want in enumerate(topics))]
        if len(rows) > MAX_LOGS:
            raise ValueError("query returned more than 10000 results")
        return rows

    def _rpc_call(self, call: dict, *_) -> str:
        from eth_abi import decode, encode

        data, target = bytes.fromhex(call["data"][2:]), call["to"].lower()
        selector, body = data[:4], data[4:]
        if selector == BALANCE and target == COLLATERAL.lower():
            return "0x" + encode(["uint256"], [max(self.exchange.account(decode(["address"], body)[0]).cash_u6, 0)]).hex()
        if selector == BALANCES and target in (TOKENS_V1.lower(), TOKENS_V2.lower()):
            owners, ids = decode(["address[]", "uint256[]"], body)
            return "0x" + encode(["uint256[]"], [[self._holds(o, i) for o, i in zip(owners, ids, strict=True)]]).hex()
        if selector == BALANCE_OF_ID and target in (TOKENS_V1.lower(), TOKENS_V2.lower()):
            return "0x" + encode(["uint256"], [self._holds(*decode(["address", "uint256"], body))]).hex()
        if selector == APPROVED:
            return "0x" + encode(["bool"], [True]).hex()
        raise Reverted(REVERTED)

    def _holds(self, owner: str, token: int) -> int:
        return max(self.exchange.settled_u6(self.exchange.account(owner), str(token)), 0)

    def _rpc_sendRawTransaction(self, raw_hex: str) -> str:
        """A transaction signed by a key for its own address."""
        import rlp
        from eth_account import Account

        raw = bytes.fromhex(raw_hex.removeprefix("0x"))
        tx_hash = "0x" + keccak(raw).hex()
        sender = Account.recover_transaction(raw)
        fields = rlp.decode(raw)
        nonce, v = int.from_bytes(fields[0], "big"), int.from_bytes(fields[6], "big")
        if (v - CHAIN_ID_FIELD) // 2 != self.chain_id:
            raise ValueError("invalid chain id for signer")
        if tx_hash in self.txs:
            raise ValueError("already known")
        have = self.nonces.get(sender.lower(), 0)
        if nonce < have:
            raise ValueError(f"nonce too low: next nonce {have}, tx nonce {nonce}")
        if nonce > have or sender.lower() in self.busy and not self.busy[sender.lower()].block:
            raise ValueError("replacement transaction underpriced")
        call = Call("0x" + fields[3].hex(), fields[5])
        self.submit(Tx(tx_hash, sender, nonce, sender.lower(), [call]), self._now_ms())
        return tx_hash


def _failed(asked: dict, code: int, text: str) -> dict:
    return {"jsonrpc": "2.0", "id": asked.get("id"), "error": {"code": code, "message": text}}
