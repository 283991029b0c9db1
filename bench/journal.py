"""What writing ahead adds to the send path: the journal's append of a POST's lines, while its thread forces earlier ones to the disk.

    python bench/journal.py [--rounds 5000] [--dir DIR]

A round is what one POST does: build the lines of 1 or 4 orders, append them, then have them forced (`kick`), and a pause of a few ms as between two
decisions. Wall time of the first two, which stand before the POST. The alternatives: nothing at all (building the lines), and forcing before the POST,
as a journal has to that promises more than ours (`order_journal` says why ours does not). Prints figures, asserts nothing. Which disk it is decides the last
column, so give --dir of the run directory.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmbot.execution.order_journal import OrderJournal, sent_lines  # noqa: E402

QUANTILES = (0.5, 0.99, 0.999)
PAUSE_S = 0.003


def orders(n: int, i: int) -> list[tuple[str, tuple]]:
    """What `sent_lines` takes, of ``n`` orders."""
    return [(f"0x{i * 8 + k:064x}", (k % 2, k // 2, 0, 0, 5000 - 100 * k, 20_000_000)) for k in range(n)]


def round_ns(journal: OrderJournal | None, n: int, i: int, force: bool) -> int:
    """Wall time of the part of one POST that stands before the request."""
    batch = orders(n, i)
    start = time.perf_counter_ns()
    lines = sent_lines(1775028600015, 1775028600000 + i, batch)
    if journal is not None:
        journal.append(lines)
        if force:
            journal.sync()
    took = time.perf_counter_ns() - start
    if journal is not None and not force:
        journal.kick()
    return took


def measure(journal: OrderJournal | None, n: int, rounds: int, force: bool) -> list[int]:
    """Times of ``rounds`` rounds, the first tenth left out."""
    times = []
    for i in range(rounds + rounds // 10):
        times.append(round_ns(journal, n, i, force))
        time.sleep(PAUSE_S)
    return sorted(times[rounds // 10:])


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--rounds", type=int, default=5000)
    ask.add_argument("--dir", type=Path, help="where the journal lies (default: the temporary directory)")
    opt = ask.parse_args()
    print("| orders a POST | before the POST | " + " | ".join(f"p{100 * q:g} us" for q in QUANTILES) + " |")
    print("| --- | --- |" + " --- |" * len(QUANTILES), flush=True)
    for n in (1, 4):
        for name, kept, force in (("lines built, not kept", False, False), ("appended (mmbot)", True, False), ("appended and forced", True, True)):
            with tempfile.TemporaryDirectory(dir=opt.dir, prefix="mmj") as folder:
                journal = OrderJournal(Path(folder) / "orders.log", sync_thread=not force) if kept else None
                times = measure(journal, n, opt.rounds if not force else max(opt.rounds // 5, 100), force)
                if journal is not None:
                    journal.close()
            print(f"| {n} | {name} | " + " | ".join(f"{times[min(int(q * len(times)), len(times) - 1)] / 1000:.1f}" for q in QUANTILES) + " |", flush=True)


if __name__ == "__main__":
    main()
