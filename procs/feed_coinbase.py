"""Coinbase feed: best bid and ask and trades of BTC-USD, on a connection each.

Writes: the `md.coinbase` ring. Reads: nothing. Can go wrong: see mmbot.venues.coinbase; after a jump in the messages the channel is subscribed
anew, and when that brings no snapshot, or the heartbeats stop, the connection is made anew.
"""

import asyncio

from mmbot.actor import Actor, run_async
from mmbot.venues import coinbase
from mmbot.venues.numbers import BadValue
from mmbot.venues.spot import Publisher
from procs.ws_client import Plan, WsClient

DATA_TIMEOUT_S = 5.0            # the heartbeat comes each second
SNAPSHOT_NS = 5_000_000_000


class Channel:
    """One channel on its own connection."""

    def __init__(self, actor: Actor, out: Publisher, channel: str, connect=None):
        self.actor, self.out, self.channel = actor, out, channel
        self.stream = coinbase.Stream(out.rec, out.put)
        self._asked_ns = 0
        self.client = WsClient(actor, Plan(
            actor.cfg.venue.coinbase_ws_url, self.on_connect, self.on_text, on_tick=self.on_tick, data_timeout_s=DATA_TIMEOUT_S,
            alert_s=DATA_TIMEOUT_S, overlap=True, name=channel), connect)

    def on_connect(self, now_ns: int) -> list[bytes]:
        self.stream.restart()
        self._asked_ns = now_ns
        self.actor.vitals.event("subscribes")
        return coinbase.subscribe(self.channel)

    def on_text(self, payload: memoryview, t_recv_ns: int) -> None:
        try:
            self.stream.on_frame(payload, t_recv_ns, self.actor.clock.at(t_recv_ns))
        except BadValue as e:
            self.actor.bad_input("coinbase_frame", str(e))
        except coinbase.Lost as e:
            self.actor.warn("coinbase_gap", f"{self.channel}: {e}: subscribing anew")
            self._asked_ns = t_recv_ns
            self.actor.vitals.event("subscribes")
            for message in coinbase.again(self.channel):
                self.client.send(message)

    def on_tick(self, now_ns: int) -> None:
        self.out.count(self.stream)
        if self.channel == coinbase.BOOK and not self.stream.ready and now_ns - self._asked_ns > SNAPSHOT_NS:
            self._asked_ns = now_ns
            self.client.restart("no snapshot of the book")


async def main(actor: Actor, connect=None) -> None:
    out = Publisher(actor, "md.coinbase")
    await asyncio.gather(*(Channel(actor, out, name, connect).client.run() for name in (coinbase.BOOK, coinbase.TRADES)))


if __name__ == "__main__":
    run_async("feed_coinbase", main)
