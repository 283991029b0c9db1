"""Bybit feed: best bid and ask, trades and ticker of BTCUSDT.

Writes: the `md.bybit` ring. Reads: nothing. Can go wrong: see mmbot.venues.bybit; after a hole in the book's updates it is subscribed anew, and
when that brings no snapshot, or nothing comes at all, the connection is made anew.
"""

from mmbot.actor import Actor, run_async
from mmbot.venues import bybit
from mmbot.venues.numbers import BadValue
from mmbot.venues.spot import Publisher
from procs.ws_client import Plan, WsClient

DATA_TIMEOUT_S = 5.0
SNAPSHOT_NS = 5_000_000_000


class BybitFeed:
    """The topics on a connection, with their records in shared memory."""

    def __init__(self, actor: Actor, connect=None):
        self.actor, self.out = actor, Publisher(actor, "md.bybit")
        self.stream = bybit.Stream(self.out.rec, self.out.put)
        self._asked_ns = 0
        self.client = WsClient(actor, Plan(
            actor.cfg.venue.bybit_ws_url, self.on_connect, self.on_text, on_tick=self.on_tick, ping_s=bybit.PING_S, ping=bybit.PING,
            data_timeout_s=DATA_TIMEOUT_S, alert_s=DATA_TIMEOUT_S, overlap=True), connect)

    def on_connect(self, now_ns: int) -> list[bytes]:
        self.stream.restart()
        self._asked_ns = now_ns
        self.actor.vitals.event("subscribes")
        return bybit.subscribe(bybit.T_BOOK, bybit.T_TRADE, bybit.T_TICKER)

    def on_text(self, payload: memoryview, t_recv_ns: int) -> None:
        try:
            self.stream.on_frame(payload, t_recv_ns, self.actor.clock.at(t_recv_ns))
        except BadValue as e:
            self.actor.bad_input("bybit_frame", str(e))
        except bybit.Lost as e:
            self.actor.warn("bybit_gap", f"{e}: subscribing anew")
            self._asked_ns = t_recv_ns
            self.actor.vitals.event("subscribes")
            for message in bybit.again():
                self.client.send(message)

    def on_tick(self, now_ns: int) -> None:
        self.out.count(self.stream)
        if not self.stream.ready and now_ns - self._asked_ns > SNAPSHOT_NS:
            self._asked_ns = now_ns
            self.client.restart("no snapshot of the book")


async def main(actor: Actor, connect=None) -> None:
    await BybitFeed(actor, connect).client.run()


if __name__ == "__main__":
    run_async("feed_bybit", main)
