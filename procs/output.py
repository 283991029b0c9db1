"""Process `output`: keeps mm_quotes.json and mm_status.json up to date for other programs. Wiring only; the documents are `mmbot.recommendations`.

Writes: the two files in `output.dir`, each `output.interval_ms`. Reads: `targets`, `markets`, `account`, `guard`. Runs only when `output.dir` is set.
Can go wrong: a file cannot be written (said, tried again next time; its timestamp stands still meanwhile); the core is silent (its targets pass their
deadlines: "no quotes"). Whichever way this process ends that leaves it a word, the last version has no quotes; killed outright, the files keep their timestamp.
"""

import asyncio
from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.recommendations import QUOTES_FILE, STATUS_FILE, prepare, quotes_file, status_document, write
from mmbot.venues.polymarket.gamma import DURATIONS
from shm_layout import records as r


class Output:
    """The two files of one group."""

    def __init__(self, actor: Actor):
        self.actor, self.dir, self.duration_s = actor, actor.cfg.output.path, DURATIONS[actor.cfg.markets.durations[0]]
        if self.dir is None:
            raise UserError("output.dir is not set: there is nowhere to write to")
        prepare(self.dir)

    def _latest(self, name: str, index: int = 0):
        """Private copy of a latest value, None while it was never written."""
        reader = self.actor.seqlock_readers[name]
        return reader.rec[0].copy() if reader.read(index) > 0 else None

    def write(self, stopped: bool = False) -> None:
        """Both files as of now; ``stopped``: without quotes, because nobody will write the next version."""
        found = () if stopped else (self._latest("targets", slot) for slot in range(r.MARKET_SLOTS))
        targets = [t for t in found if t is not None]
        wall_s, now_ns = self.actor.clock.now_s(), mono_ns()
        status = status_document(targets, self._latest("markets"), self._latest("account"), self._latest("guard"), self.duration_s, wall_s, now_ns,
                                 self.actor.cfg.execution.dry_run)
        if stopped:
            status |= {"quoting": False, "why_not": "output is stopped"}
        try:
            write(self.dir / QUOTES_FILE, quotes_file(targets, self.duration_s, wall_s, now_ns, "stopped" if stopped else "no_target"))
            write(self.dir / STATUS_FILE, status)
        except OSError as e:
            self.actor.error("unwritten", str(e))


async def main(actor: Actor) -> None:
    """Write until the actor stops."""
    output = Output(actor)
    try:
        while not actor.stopping:
            output.write()
            try:
                await asyncio.wait_for(actor.stopped.wait(), actor.cfg.output.interval_ms / 1000)
            except TimeoutError:
                pass
    finally:
        output.write(stopped=True)


if __name__ == "__main__":
    run_async("output", main)
