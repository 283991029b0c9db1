"""Many seeds on all CPUs: ``python -m tests.dst.campaign --hours 1000``. One seed again, with its history: ``--seed 17 --show``.

Prints per seed what is broken, with the command that shows it again, and at the end: seeds, hours, fills, faults by name, violations, CPU time.
Exit status 1 if anything is broken.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOURS_PER_SEED = 1.0
MUTANT_S, MUTANT_SEEDS = 240.0, 3
SHOWN = 3                   # violations of one kind that are told in full


def commit() -> str:
    """The commit the code stands at, with a + when files were changed since."""
    run = lambda *a: subprocess.run(["git", *a], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return run("rev-parse", "--short", "HEAD") + ("+" if run("status", "--porcelain", "--untracked-files=no") else "")


def reproduce(seed: int, hours: float, mutant: str = "") -> str:
    """The command that runs one seed again."""
    return f"python -m tests.dst.campaign --seed {seed} --hours {hours:g}" + (f" --mutant {mutant}" if mutant else "") + " --show"


def _work(job):
    from tests.dst import mutants
    from tests.dst.scenario import run_seed
    seed, hours, mutant, history = job
    if mutant:
        spoiled = mutants.MUTANTS[mutant]
        return run_seed(seed, hours * 3600, chaos=False, mutant=spoiled.spoil, arrange=spoiled.arrange, history=history, **spoiled.overrides)
    return run_seed(seed, hours * 3600, history=history)


def tell(violation, seed: int, hours: float, mutant: str = "") -> str:
    """A violation with everything that is needed to look at it again."""
    history = "\n".join(f"    {line}" for line in violation.events)
    return (f"seed {seed} commit {commit()} at {violation.t_s:.6f} s: {violation.name}: {violation.text}\n  last events:\n{history}\n"
            f"  again: {reproduce(seed, hours, mutant)}")


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--hours", type=float, default=1000.0, help="virtual hours in all; with --seed, of that seed")
    ask.add_argument("--per-seed", type=float, default=HOURS_PER_SEED, help="virtual hours of each seed")
    ask.add_argument("--first", type=int, default=1, help="first seed")
    ask.add_argument("--workers", type=int, default=os.cpu_count())
    ask.add_argument("--seed", type=int, help="run this seed only")
    ask.add_argument("--mutant", default="", help="run with a spoiled piece of code (tests/dst/mutants.py)")
    ask.add_argument("--show", action="store_true", help="print the whole history of the seed")
    ask.add_argument("--mutants", action="store_true", help="run every mutant until it is caught, and the sound code through the same rounds")
    opt = ask.parse_args()
    if opt.seed is not None:
        return one(opt)
    if opt.mutants:
        return all_mutants(opt)
    return many(opt)


def one(opt) -> int:
    """One seed in this process."""
    result = _work((opt.seed, opt.hours, opt.mutant, opt.show))
    for violation in result.violations:
        print(tell(violation, opt.seed, opt.hours, opt.mutant))
    if opt.show:
        print("\n".join(result.history))
        print(result.counts, result.faults, result.reports, result.halts, sep="\n")
    print(f"seed {opt.seed}: {result.hours:.2f} h, {result.cpu_s:.1f} CPU s, digest {result.digest[:16]}, {len(result.violations)} violations")
    return 1 if result.violations else 0


def _catch(name: str):
    """(name, seeds needed or 0, first violation, violations of the sound code in the same round)."""
    from tests.dst.mutants import MUTANTS
    from tests.dst.scenario import run_seed
    mutant = MUTANTS[name]
    run = lambda seed, spoil: run_seed(seed, MUTANT_S, chaos=False, mutant=spoil, arrange=mutant.arrange, **mutant.overrides)
    sound = run(1, None).violations
    for seed in range(1, MUTANT_SEEDS + 1):
        if found := run(seed, mutant.spoil).violations:
            return name, seed, found[0], sound
    return name, 0, None, sound


def all_mutants(opt) -> int:
    """Every mutant must be caught by an invariant it is known to break, and only because it is spoiled."""
    from tests.dst.mutants import MUTANTS
    bad = 0
    with multiprocessing.get_context("spawn").Pool(opt.workers) as pool:
        for name, seeds, violation, sound in pool.imap(_catch, MUTANTS):
            caught = seeds > 0 and violation.name in MUTANTS[name].breaks
            bad += not caught or bool(sound)
            how = f"caught by {violation.name} at {violation.t_s:.1f} s of seed {seeds}" if seeds else f"NOT CAUGHT in {MUTANT_SEEDS} seeds"
            print(f"{name:24} {how}{'' if caught or not seeds else ' (another invariant than expected)'}; "
                  f"sound code: {'survives' if not sound else 'BROKEN ' + sound[0].name}", flush=True)
    print(f"{len(MUTANTS)} mutants, {bad} not as they should be")
    return 1 if bad else 0


def many(opt) -> int:
    """All seeds, on worker processes."""
    n = max(1, round(opt.hours / opt.per_seed))
    jobs = [(opt.first + i, opt.per_seed, opt.mutant, False) for i in range(n)]
    total, faults, names = Counter(), Counter(), Counter()
    hours = cpu_s = 0.0
    begin = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(opt.workers, maxtasksperchild=25) as pool:
        for i, result in enumerate(pool.imap_unordered(_work, jobs), 1):
            hours, cpu_s = hours + result.hours, cpu_s + result.cpu_s
            total.update(result.counts)
            faults.update(result.faults)
            names.update(v.name for v in result.violations)
            for violation in result.violations[:1]:
                if names[violation.name] > SHOWN:
                    print(f"seed {result.seed}: {violation.name} at {violation.t_s:.3f} s; again: {reproduce(result.seed, opt.per_seed, opt.mutant)}")
                    continue
                print(tell(violation, result.seed, opt.per_seed, opt.mutant), flush=True)
            if i % 10 == 0 or i == n:
                print(f"[{time.monotonic() - begin:6.0f} s] {i} seeds, {hours:.0f} h, {total['trade MATCHED']:,} fills, "
                      f"{sum(faults.values()):,} faults, {sum(names.values())} violations", file=sys.stderr, flush=True)
    print(f"commit {commit()}: {n} seeds ({opt.first} to {opt.first + n - 1}), {hours:.1f} simulated hours, {total['PLACEMENT']:,} orders, "
          f"{total['trade MATCHED']:,} fills, {total['trade FAILED']:,} of them failed at settlement")
    print(f"faults: {sum(faults.values()):,}: " + ", ".join(f"{name} {count}" for name, count in sorted(faults.items())))
    print(f"violations: {sum(names.values())} {dict(names) if names else ''}")
    print(f"CPU {cpu_s:.0f} s ({cpu_s / max(hours, 1e-9):.2f} s per simulated hour), wall {time.monotonic() - begin:.0f} s on {opt.workers} workers")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
