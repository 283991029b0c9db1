"""The exchange's faults: a catalogue by name, schedules in TOML, started and stopped live.

Owns: nothing itself; the public face of `catalogue` (what there is), `running` (what is on), `plans` (what happens to a request).
"""

from mmbot.sim.faults.catalogue import CATALOGUE, FaultSpec
from mmbot.sim.faults.plans import Answer, RequestPlan
from mmbot.sim.faults.running import NO_FAULTS, Fault, Faults, load_schedule

__all__ = ["CATALOGUE", "NO_FAULTS", "Answer", "Fault", "FaultSpec", "Faults", "RequestPlan", "load_schedule"]
