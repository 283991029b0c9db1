"""The operator's routes: start and stop faults of a running exchange, and see what there is and what is on.

Owns: POST and DELETE /sim/fault, GET /sim/faults, on the CLOB port (loopback only, as all of the exchange). Who calls: `mmbot sim fault`,
tests. What can go wrong: a wrong name or parameter, 400 with the nearest valid one.

    POST   /sim/fault   {"name": "freeze_market", "for_s": 8, "params": {"links": "one"}}     -> {"id": 1, "for_s": 8}
    DELETE /sim/fault   {"name": "freeze_market"} or {"id": 1} or {"all": true}               -> {"stopped": [1]}
    GET    /sim/faults                                                                        -> {"catalogue", "running", "log", "now_ms"}
"""

from collections.abc import Callable

import msgspec

from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.sim.faults.catalogue import CATALOGUE
from mmbot.sim.faults.running import Faults
from mmbot.sim.http import ApiError, Request


def routes(faults: Faults) -> dict[tuple[str, str], Callable]:
    """(method, path) -> handler."""
    def start(r: Request) -> dict:
        asked = r.json(dict)
        name, for_s = asked.pop("name", ""), asked.pop("for_s", None)
        inner = asked.pop("params", {})
        if not isinstance(inner, dict):
            raise ApiError(400, "params must be an object")
        id_ = _or_400(lambda: faults.start(str(name), _now_ms(), for_s, **asked | inner))
        return {"id": id_, "for_s": faults.lasts_s(id_)}

    def stop(r: Request) -> dict:
        asked = r.json(dict)
        wanted = "all" if asked.get("all") is True else asked.get("id", asked.get("name"))
        if not isinstance(wanted, str | int) or isinstance(wanted, bool):
            raise ApiError(400, "say which fault to stop: name, id, or all")
        return {"stopped": _or_400(lambda: faults.stop(wanted, _now_ms()))}

    return {("POST", "/sim/fault"): start, ("DELETE", "/sim/fault"): stop, ("GET", "/sim/faults"): lambda r: about(faults)}


def _now_ms() -> float:
    return mono_ns() / 1e6


def _or_400(act: Callable):
    try:
        return act()
    except UserError as e:
        raise ApiError(400, str(e)) from None


def about(faults: Faults) -> dict:
    """Catalogue, running faults and log, for JSON; times are monotonic ms."""
    return {"catalogue": [msgspec.to_builtins(spec) for spec in CATALOGUE.values()], "running": [f.about() for f in faults.running()],
            "log": [{"t_ms": t, "name": name, "event": event, "params": params} for t, name, event, params in faults.log()],
            "now_ms": _now_ms()}
