"""The core: records in, desired quotes out, in one compiled function without I/O, clock or allocation.

Owns: STATE (everything the core remembers) and TARGET per slot. `step` runs the same live, in replay and in a backtest: only the
source of records and the sink of targets differ. `burst` is the live source: it spins over the rings and seqlocks of shared
memory, hands each record to `step` and publishes what changed.
Writes: segments `targets` and `decisions`, through the burst. Reads: rings md.market, md.oracle, md.binance, md.coinbase, md.bybit; seqlocks
markets, account, own, guard, programme, and book and oracle when it attaches.
Can go wrong: any input can be missing, late, repeated or absurd; each such case ends in a gate (`risk.gates`), never in an
exception. The core may be killed at any instant: a target past its deadline means "no quotes" to the executor, and `attach` rebuilds
the state from what the others keep in memory.

How one step goes: the input updates its part of STATE; then for each window it touches, `_decide` asks the gates, prices the
window, builds the ladder and compares it with the target that stands. Mid, spread and the post-only limit are those of the others'
book: our own orders are taken out first (`books.others`), or the fair value would refer to our own quotes.
"""

from mmbot.core.burst import BUDGET_NS, RING_BELL, WORK, Core
from mmbot.core.decide import find_strike
from mmbot.core.kernel import step
from mmbot.core.state import DECISION_SHIFT, QUOTES_SHIFT, SLOT_MASK, STATE, WRITE_SHIFT

__all__ = ["BUDGET_NS", "DECISION_SHIFT", "QUOTES_SHIFT", "RING_BELL", "SLOT_MASK", "STATE", "WORK", "WRITE_SHIFT", "Core", "find_strike", "step"]
