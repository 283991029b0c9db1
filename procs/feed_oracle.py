"""Oracle feed: Chainlink BTC/USD spot and TWAP-60, which settles the markets, from the venue's relay (RTDS).

Writes: the `md.oracle` ring (every print, and the print of each 300 s boundary) and the `oracle` seqlock (newest prints and the boundaries).
Reads: nothing but its own seqlock at start, so that a restart within a window keeps the strike. Can go wrong: the relay stalls while
connected (the watchdog on the age of data connects anew); a boundary's own second is missing (see mmbot.venues.polymarket.rtds).
"""

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.venues.numbers import BadValue
from mmbot.venues.polymarket import rtds
from procs.ws_client import Plan, WsClient
from shm_layout import seqlock

DATA_TIMEOUT_S = 5.0            # prints come each second; holes of some seconds are usual, then a new connection does no harm


class OracleFeed:
    """The relay on a connection, with its prints in shared memory."""

    def __init__(self, actor: Actor):
        self.actor = actor
        self._ring, self._state = actor.ring_writers["md.oracle"], actor.seqlock_writers["oracle"]
        self.recover()
        self.client = WsClient(actor, Plan(actor.cfg.venue.rtds_url, lambda now_ns: [rtds.SUBSCRIBE], self.on_text, ping_s=5,
                                           data_timeout_s=DATA_TIMEOUT_S))

    def recover(self) -> None:
        """Take over what an earlier incarnation knew."""
        state = self._state
        if seqlock.read(state.mem, 0, state.words) <= 0:
            state.words[:] = 0
        rtds.forget_future(state.rec[0], self.actor.clock.now_ns() // 1_000_000)
        state.write()

    def on_text(self, payload: memoryview, t_recv_ns: int) -> None:
        try:
            p = rtds.decode(payload)
        except BadValue as e:
            self.actor.bad_input("oracle_frame", str(e))
            return
        if p is None:
            return
        state = self._state.rec[0]
        rtds.fill(self._ring.rec[0], p, t_recv_ns)
        self._publish(t_recv_ns)
        boundary = rtds.note(state, p, t_recv_ns)
        self._state.write()
        if boundary >= 0:
            row = state["boundary"][boundary]
            self._ring.rec[0] = row
            self._publish(t_recv_ns)
            self.actor.log.info("boundary {} print {}.{:018d} trusted {}", int(row["t_obs_ms"]) // rtds.BOUNDARY_MS * 300,
                                int(row["px_units"]), int(row["px_frac_e18"]), int(row["trusted"]))

    def _publish(self, t_recv_ns: int) -> None:
        now = mono_ns()
        self._ring.rec[0]["t_pub_ns"] = now
        self._ring.publish()
        self.actor.ring_bells("md.oracle")
        self.actor.vitals.event("records")


async def main(actor: Actor) -> None:
    await OracleFeed(actor).client.run()


if __name__ == "__main__":
    run_async("feed_oracle", main)
