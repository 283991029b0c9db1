"""Binance feed: best bid and ask and aggregate trades of BTCUSDT.

Writes: the `md.binance` ring. Reads: nothing. Can go wrong: see mmbot.venues.binance; a connection without data for some seconds, one that the
venue announces to close and one near the age at which the venue cuts it are replaced, the new one first.
"""

from mmbot.actor import Actor, run_async
from mmbot.venues import binance
from mmbot.venues.numbers import BadValue
from mmbot.venues.spot import Publisher
from procs.ws_client import Plan, WsClient

DATA_TIMEOUT_S = 5.0


class BinanceFeed:
    """The streams on a connection, with their records in shared memory."""

    def __init__(self, actor: Actor, connect=None):
        self.actor, self.out = actor, Publisher(actor, "md.binance")
        self.stream = binance.Stream(self.out.rec)
        self.client = WsClient(actor, Plan(
            actor.cfg.venue.binance_ws_url + binance.PATH, self.on_connect, self.on_text, on_tick=self.on_tick, data_timeout_s=DATA_TIMEOUT_S,
            alert_s=DATA_TIMEOUT_S, life_s=binance.LIFE_S, overlap=True), connect)

    def on_connect(self, now_ns: int) -> list[bytes]:
        self.stream.restart()
        return []

    def on_text(self, payload: memoryview, t_recv_ns: int) -> None:
        try:
            if self.stream.on_frame(payload, t_recv_ns, self.actor.clock.at(t_recv_ns)):
                self.out.put()
        except BadValue as e:
            self.actor.bad_input("binance_frame", str(e))

    def on_tick(self, now_ns: int) -> None:
        self.out.count(self.stream)
        if self.stream.closing:
            self.stream.closing = False
            self.client.restart("the venue closes this connection")


async def main(actor: Actor, connect=None) -> None:
    await BinanceFeed(actor, connect).client.run()


if __name__ == "__main__":
    run_async("feed_binance", main)
