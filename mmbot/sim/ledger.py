"""What the exchange must not forget when its process dies: API keys, wallets, trades, payouts and mined transactions, as JSON lines in the run directory.

Owns: `sim_ledger.jsonl`. A line is written (to the kernel, not to the disk) before the trade it tells of is told to anybody, so a killed
exchange comes back with the same money, shares and trades. Resting orders do not survive, as after an engine restart.
Who writes: the hub (trades), the REST side (keys, wallets), the engine's listener (payouts), the chain. Who reads: the next process, once.
What can go wrong: a torn last line (ignored); a full disk (OSError ends the exchange).
"""

import os
from pathlib import Path

import msgspec

from mmbot.sim.auth import Keys
from mmbot.sim.chain import Chain, Tx
from mmbot.sim.engine import RECORDED_ADDRESS, Exchange, Leg, Market, MarketSpec, Order, Trade

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder().decode


class Ledger:
    """Append-only record of one run; `recover` plays it back into an empty exchange."""

    def __init__(self, path: Path, exchange: Exchange, keys: Keys, wallets: dict[str, str], funders: dict[tuple[str, int], str], chain: Chain,
                 keep: bool):
        """``keep`` False starts an empty ledger. ``wallets`` and ``funders`` are the REST side's tables, filled by `recover`, as is the ``chain``."""
        self.exchange, self.keys, self.wallets, self.funders, self.chain = exchange, keys, wallets, funders, chain
        self.path = path
        self._specs: set[str] = set()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if keep else os.O_TRUNC)
        self._fd = os.open(path, flags, 0o600)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _write(self, *record) -> None:
        os.write(self._fd, _encode(record) + b"\n")

    def key(self, address: str, nonce: int) -> None:
        """An API key was created or derived."""
        self._write("key", address, nonce)

    def wallet(self, funder: str, eoa: str, signature_type: int) -> None:
        """A funder address was used by an EOA for the first time."""
        self._write("wallet", funder, eoa, signature_type)

    def paid(self, market: Market) -> None:
        """A market's shares were turned into dollars."""
        if market.condition_id in self._specs:
            self._write("paid", market.condition_id, market.outcome)

    def trade(self, trade: Trade) -> None:
        """A trade reached a status."""
        if trade.status != "MATCHED":
            self._write("status", trade.id, trade.status, trade.last_ms)
            return
        spec = trade.market.spec
        if spec.condition_id not in self._specs:
            self._specs.add(spec.condition_id)
            self._write("market", spec)
        self._write("trade", {
            "id": trade.id, "market": spec.condition_id, "taker": _order(trade.taker), "taker_id": trade.taker_id,
            "taker_owner": trade.taker_owner, "taker_address": trade.taker_address, "outcome": trade.outcome, "side": trade.side,
            "size_u6": trade.size_u6, "px_e4": trade.px_e4, "cash_u6": trade.cash_u6, "fee_u6": trade.fee_u6, "match_ms": trade.match_ms,
            "tx": trade.tx, "bucket": trade.bucket,
            "legs": [[_order(g.order), g.order_id, g.owner, g.address, g.outcome, g.side, g.px_e4, g.size_u6, g.cash_u6] for g in trade.legs],
        })

    def mined(self, tx: Tx, done: list) -> None:
        """A transaction was mined; ``done``: what it did, [condition, kind, shares, payout] each."""
        self._write("tx", tx, done)

    def recover(self, now_ms: int) -> int:
        """Play the ledger back into the exchange; returns the number of trades."""
        records = []
        for line in self.path.read_bytes().splitlines():
            try:
                records.append(_decode(line))
            except msgspec.MsgspecError:
                continue
        status = {r[1]: (r[2], r[3]) for r in records if r[0] == "status"}
        trades = 0
        for kind, *rest in records:
            if kind == "key":
                self.keys.create(*rest)
                self.exchange.account(rest[0])
            elif kind == "wallet":
                funder, eoa, signature_type = rest
                self.wallets[funder.lower()] = eoa
                self.funders[eoa, signature_type] = funder
            elif kind == "market":
                spec = msgspec.convert(rest[0], MarketSpec)
                self._specs.add(spec.condition_id)
                self.exchange.add_market(spec, now_ms)
            elif kind == "trade":
                self._restore(rest[0], status, now_ms)
                trades += 1
            elif kind == "paid":
                market = self.exchange.market(rest[0])
                market.accepting, market.closed, market.outcome = False, True, rest[1]
                self.exchange.pay_out(market, now_ms)
            elif kind == "tx":
                self.chain.restore(msgspec.convert(rest[0], Tx), rest[1])
        return trades

    def _restore(self, r: dict, status: dict, now_ms: int) -> None:
        trade, market = Trade(), self.exchange.market(r["market"])
        trade.market, trade.seq = market, -1
        for name in ("id", "taker_id", "taker_owner", "taker_address", "outcome", "side", "size_u6", "px_e4", "cash_u6", "fee_u6", "match_ms",
                     "tx", "bucket"):
            setattr(trade, name, r[name])
        trade.status, trade.last_ms = status.get(trade.id, ("MATCHED", trade.match_ms))
        trade.account = self._account(trade.taker_address)
        trade.taker = self._order(r["taker"], trade, market)
        trade.legs = []
        for order, order_id, owner, address, outcome, side, px_e4, size_u6, cash_u6 in r["legs"]:
            trade.legs.append(Leg(self._order(order, trade, market), order_id, owner, address, outcome, side, px_e4, size_u6, cash_u6,
                                  self._account(address)))
        self.exchange.restore(trade, now_ms)

    def _account(self, address: str):
        return self.exchange.recorded if address == RECORDED_ADDRESS else self.exchange.account(address)

    def _order(self, facts: list | None, trade: Trade, market: Market) -> Order | None:
        """An order of the earlier life, known by its trades; it rests no more."""
        if facts is None:
            return None
        id_, address, owner, outcome, side, px_e4, size_u6, matched_u6, order_type, created_ms, maker_u6 = facts
        order = self.exchange.orders.get(id_)
        if order is None:
            order = Order(id_, self._account(address), owner, market, outcome, side, px_e4, size_u6)
            order.order_type, order.created_ms, order.maker_u6 = order_type, created_ms, maker_u6
            self.exchange.orders[id_] = order
        order.matched_u6 = max(order.matched_u6, matched_u6)
        order.left_u6 = size_u6 - order.matched_u6
        order.status = "CANCELED" if order.left_u6 else "MATCHED"
        if trade.id not in order.trades:
            order.trades.append(trade.id)
        return order


def _order(order: Order | None) -> list | None:
    if order is None:
        return None
    return [order.id, order.account.address, order.owner, order.outcome, order.side, order.px_e4, order.size_u6, order.matched_u6,
            order.order_type, order.created_ms, order.maker_u6]
