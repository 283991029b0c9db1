"""Binance frames around the simulated spot: bookTicker, aggTrade and trade of BTCUSDT, as the real streams send them.

Owns: update and trade ids, the micro-structure around the spot path (DERIVED prices, GENERATED sizes and timing). Read by the
exchange's Binance server through `mmbot.sim.tape`. Binance shows the spot of the moment; Chainlink relays it more than a second
later, so this feed leads. bookTicker has no time stamp; ids are consecutive.
"""

import numpy as np

CYCLE = 4096
QUOTES_PER_S, TRADES_PER_S = 50.0, 10.0
STREAM_QUOTE, STREAM_AGG, STREAM_TRADE = "btcusdt@bookTicker", "btcusdt@aggTrade", "btcusdt@trade"
BASIS = 1.0            # BTCUSDT over BTC/USD; one dollar is one USDT here
TRADE_DELAY_MS = 1     # event time after trade time
# quantities at the best and of trades, BTC: quantiles of a recorded session
QTY_SHARE = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
QTY_QUOTE = (0.00001, 0.0001, 0.14, 1.1, 2.9, 5.0, 11.0)
QTY_TRADE = (0.00001, 0.00009, 0.0001, 0.0007, 0.014, 0.1, 2.0)


class Binance:
    """The three streams, due frame by due frame."""

    def __init__(self, path, seed: int, start_ms: int, speed: float):
        """``path``: `oracle.SpotPath`. Rates are per second of real time: at N times the speed frames are N times rarer on the tape's clock."""
        rng = np.random.default_rng([seed, 0xB1])
        self._path = path
        self._late_ms = 500.0 * speed
        self._gap_ms = ((0.5 + rng.random(CYCLE)) * 1000.0 * speed / QUOTES_PER_S).tolist()
        self._qty = [f"{v:.8f}" for v in np.interp(rng.random(CYCLE), QTY_SHARE, QTY_QUOTE).round(5)]
        self._amount = [f"{max(v, 0.00001):.8f}" for v in np.interp(rng.random(CYCLE), QTY_SHARE, QTY_TRADE).round(5)]
        self._parts = rng.choice([1, 1, 1, 2, 3], CYCLE).tolist()
        self._traded = (rng.random(CYCLE) < TRADES_PER_S / QUOTES_PER_S).tolist()
        self._sell = (rng.random(CYCLE) < 0.5).tolist()
        self._due_ms = float(start_ms)
        self._i = 0
        self._update, self._agg, self._trade = 77_000_000_000, 3_600_000_000, 5_100_000_000
        self._bid = 0

    def frames(self, now_ms: int) -> list[tuple[str, bytes]]:
        """(stream, raw JSON) of everything due by ``now_ms``, oldest first. After a pause it goes on from now (no burst)."""
        out: list[tuple[str, bytes]] = []
        if self._due_ms < now_ms - self._late_ms:
            self._due_ms = float(now_ms)
        while self._due_ms <= now_ms:
            i = self._i = (self._i + 1) % CYCLE
            cents = int(self._path.at(self._due_ms) * BASIS * 100)
            if self._bid == 0 or abs(cents - self._bid) > 1:
                self._bid = cents
            self._update += 1 + self._parts[i]
            out.append((STREAM_QUOTE, self._quote(i)))
            if self._traded[i]:
                self._trades(i, int(self._due_ms), out)
            self._due_ms += self._gap_ms[i]
        return out

    def _quote(self, i: int) -> bytes:
        bid = self._bid
        return (f'{{"u":{self._update},"s":"BTCUSDT","b":"{bid / 100:.8f}","B":"{self._qty[i]}",'
                f'"a":"{(bid + 1) / 100:.8f}","A":"{self._qty[(i * 7 + 3) % CYCLE]}"}}').encode()

    def _trades(self, i: int, t_ms: int, out: list) -> None:
        """One aggressor: its single trades, then their sum as aggTrade. ``m`` true: the buyer was the maker (a sell)."""
        sell, parts = self._sell[i], self._parts[i]
        px = f"{(self._bid if sell else self._bid + 1) / 100:.8f}"
        maker = "true" if sell else "false"
        first, total = self._trade, 0
        stamp = f'"E":{t_ms + TRADE_DELAY_MS},"s":"BTCUSDT"'
        for part in range(parts):
            amount = self._amount[(i + part) % CYCLE]
            total += round(float(amount) * 1e8)
            out.append((STREAM_TRADE, (f'{{"e":"trade",{stamp},"t":{self._trade},"p":"{px}","q":"{amount}",'
                                       f'"T":{t_ms},"m":{maker},"M":true}}').encode()))
            self._trade += 1
        out.append((STREAM_AGG, (f'{{"e":"aggTrade",{stamp},"a":{self._agg},"p":"{px}","q":"{total / 1e8:.8f}",'
                                 f'"f":{first},"l":{self._trade - 1},"T":{t_ms},"m":{maker},"M":true}}').encode()))
        self._agg += 1
