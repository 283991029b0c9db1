"""Binance feed: best bid and ask and aggregate trades of BTCUSDT.

Writes: the `md.binance` ring. Reads: nothing. Can go wrong: see mmbot.venues.binance; a connection without data for some seconds is made
anew (the venue cuts each after a day anyway).
"""

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.venues import binance
from mmbot.venues.numbers import BadValue
from procs.ws_client import Plan, WsClient

DATA_TIMEOUT_S = 5.0


class BinanceFeed:
    """The streams on a connection, with their records in shared memory."""

    def __init__(self, actor: Actor):
        self.actor = actor
        self._ring = actor.ring_writers["md.binance"]
        self._cells = memoryview(self._ring.words)
        self._t_pub = self._ring.rec.dtype.fields["t_pub_ns"][1] // 8
        self.stream = binance.Stream(self._ring.rec)
        self._seen = {"frames_late": 0, "gaps": 0, "unknown": 0}
        self.client = WsClient(actor, Plan(actor.cfg.venue.binance_ws_url + binance.PATH, self.on_connect, self.on_text,
                                           on_tick=self.on_tick, data_timeout_s=DATA_TIMEOUT_S))

    def on_connect(self, now_ns: int) -> list[bytes]:
        self.stream.restart()
        return []

    def on_text(self, payload: memoryview, t_recv_ns: int) -> None:
        try:
            if self.stream.on_frame(payload, t_recv_ns):
                self._cells[self._t_pub] = mono_ns()
                self._ring.publish()
                self.actor.ring_bells("md.binance")
        except BadValue as e:
            self.actor.bad_input("binance_frame", str(e))

    def on_tick(self, now_ns: int) -> None:
        totals = {"frames_late": self.stream.late, "gaps": self.stream.gaps, "unknown": self.stream.other}
        for name, total in totals.items():
            if total != self._seen[name]:
                self.actor.vitals.event(name, total - self._seen[name])
                self._seen[name] = total


async def main(actor: Actor) -> None:
    await BinanceFeed(actor).client.run()


if __name__ == "__main__":
    run_async("feed_binance", main)
