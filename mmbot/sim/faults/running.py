"""Which faults run: starting, stopping, schedules, and the plans for requests and frames.

Owns: the running faults and their log. Pure: time is an argument (monotonic ms), randomness comes from the seed and the number of the
start, so the same seed and the same calls give the same effects. Who calls: the operator's routes and the schedule (start, stop), the
HTTP ports and the sockets (on_request, on_frame), `world` (everything that touches the engine).
What can go wrong: an unknown name or parameter, `UserError` with the nearest valid one.

While nothing runs, ``http``, ``frames`` and ``prints`` are empty: that is the only thing the ports look at.
"""

import heapq
import random
import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from mmbot.errors import UserError
from mmbot.sim.faults import frames, prints, requests
from mmbot.sim.faults.catalogue import CATALOGUE, CHANNELS, CHOICES, FaultSpec
from mmbot.sim.faults.plans import RequestPlan

FOREVER_MS = 1 << 60
KEEP_LOG = 10_000
KEPT_KEYS = ("at_s", "name", "for_s")


def nearest(wrong: str, valid) -> str:
    """" did you mean ...?" and the choices, for an error text."""
    close = get_close_matches(wrong, list(valid), 1, 0.4)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(sorted(valid))}"


def spec_of(name: str) -> FaultSpec:
    """The catalogue entry. Errors: UserError with the nearest name."""
    spec = CATALOGUE.get(name)
    if spec is None:
        raise UserError(f"unknown fault {name!r}: {nearest(str(name), CATALOGUE)} (`mmbot sim faults` lists all)")
    return spec


def value_of(spec: FaultSpec, key: str, given):
    """A parameter's value in the type of its default; texts are read. Errors: UserError."""
    if key not in spec.params:
        has = f"{nearest(key, spec.params)}" if spec.params else "it has none"
        raise UserError(f"fault {spec.name} has no parameter {key!r}: {has}")
    default = spec.params[key]
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[type(default)]
    wrong = UserError(f"fault {spec.name}: {key} must be {wanted}, not {given!r}")
    if isinstance(default, bool):
        value = {"true": True, "false": False}.get(str(given).lower())
        if value is None:
            raise wrong
        return value
    if isinstance(default, str):
        if not isinstance(given, str):
            raise wrong
        return _choice(spec, key, given)
    try:
        value = type(default)(given) if not isinstance(given, bool) else None
    except (TypeError, ValueError):
        value = None
    if value is None or value != float(given) or not (value >= 0 or key == "offset_s") or (key in ("p", "keep", "share") and value > 1):
        raise wrong if value is None or value != float(given) else UserError(f"fault {spec.name}: {key} = {given} is out of range")
    return value


def _choice(spec: FaultSpec, key: str, given: str) -> str:
    valid = CHANNELS + ("all",) if key == "channels" else CHOICES.get(key)
    for part in given.split("+") if key == "channels" else [given]:
        if valid is not None and part not in valid:
            raise UserError(f"fault {spec.name}: {key} = {part!r} is not known: {nearest(part, valid)}")
    return given


class Fault:
    """One running fault."""

    def __init__(self, id_: int, spec: FaultSpec, params: dict, started_ms: float, until_ms: float, seed: int):
        self.id, self.spec, self.name, self.params = id_, spec, spec.name, params
        self.started_ms, self.until_ms = started_ms, until_ms
        self.rng = random.Random(f"{seed}:{id_}:{spec.name}")
        self.hits = 0
        self.memo: dict = {}                          # what an effect remembers
        self.cids: frozenset[str] | None = None       # condition ids inside its scope, None for all
        self.tokens: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())     # the Up and the Down tokens of these
        self.newest: dict[str, int] = {}              # per channel the newest socket when it started

    def __getattr__(self, key: str):
        """A parameter by its name."""
        try:
            return self.params[key]
        except KeyError:
            raise AttributeError(key) from None

    def strikes(self) -> bool:
        """Is this one hit? Counts ``n`` and draws ``p``."""
        params = self.params
        if (limit := params.get("n", 0)) and self.hits >= limit:
            return False
        p = params.get("p", 1.0)
        if p < 1.0 and self.rng.random() >= p:
            return False
        self.hits += 1
        return True

    def elapsed_s(self, now_ms: float) -> float:
        """Seconds since the start."""
        return (now_ms - self.started_ms) / 1000

    def covers_link(self, channel: str, link_no: int) -> bool:
        """Is this socket inside the fault's scope?"""
        links = self.params.get("links", "all")
        if links == "existing":
            return link_no <= self.newest.get(channel, 0)
        return links == "all" or self.memo.setdefault(("one", channel), link_no) == link_no

    def covers(self, condition_id: str) -> bool:
        """Is this market inside the fault's scope?"""
        return self.cids is None or condition_id in self.cids

    def about(self) -> dict:
        """For people and for JSON."""
        return {"id": self.id, "name": self.name, "started_ms": self.started_ms, "hits": self.hits, "params": self.params,
                "until_ms": None if self.until_ms >= FOREVER_MS else self.until_ms}


class Faults:
    """The running faults of one exchange."""

    def __init__(self, rng_seed: int):
        self.seed = rng_seed
        self.http: list[Fault] = []
        self.frames: dict[str, list[Fault]] = {}
        self.prints: list[Fault] = []
        self.batch: list[str] | None = None           # texts for the legs of the POST /orders that is being executed
        self.watch: Callable[[Fault, bool, float], None] = lambda fault, started, now_ms: None
        self.wall_s: Callable[[], float] = lambda: 0.0
        self._running: dict[int, Fault] = {}
        self._log: list[tuple[float, str, str, dict]] = []
        self._due: list[tuple[float, int, str, float | None, dict]] = []
        self._ends_ms: float = FOREVER_MS
        self._starts = 0
        self._newest: dict[str, int] = {}
        self.links: dict[str, dict[int, object]] = {channel: {} for channel in CHANNELS}

    # ---- life ----

    def start(self, name: str, now_ms: float, /, for_s: float | None = None, **params) -> int:
        """Start a fault; returns its id. The same name may run several times. Errors: UserError."""
        spec = spec_of(name)
        full = spec.params | {key: value_of(spec, key, value) for key, value in params.items()}
        for_s = self._duration(spec, full, for_s)
        self._starts += 1
        fault = Fault(self._starts, spec, full, now_ms, FOREVER_MS if for_s is None else now_ms + for_s * 1000, self.seed)
        fault.newest = dict(self._newest)
        self._running[fault.id] = fault
        self._sort()
        self._note(now_ms, fault, "start")
        self.watch(fault, True, now_ms)
        return fault.id

    @staticmethod
    def _duration(spec: FaultSpec, params: dict, for_s) -> float | None:
        if for_s is None:
            return params["down_s"] + params["post_only_s"] if spec.name == "restart_425" else spec.for_s
        if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s < 1e9:
            raise UserError(f"fault {spec.name}: for_s must be a number of seconds above 0, not {for_s!r}")
        return for_s

    def stop(self, name_or_id: str | int, now_ms: float) -> list[int]:
        """Stop a fault by id, all of a name, or "all"; returns the ids. Errors: UserError for a name that does not exist."""
        if isinstance(name_or_id, str) and name_or_id != "all":
            spec_of(name_or_id)
        gone = [f for f in self._running.values() if name_or_id in ("all", f.name, f.id)]
        if name_or_id == "all":
            self._due.clear()
        for fault in gone:
            self._end(fault, now_ms)
        return [fault.id for fault in gone]

    def _end(self, fault: Fault, now_ms: float) -> None:
        del self._running[fault.id]
        self._sort()
        self._note(now_ms, fault, "stop")
        self.watch(fault, False, now_ms)

    def _sort(self) -> None:
        """Who looks at what: lists by place, empty when nothing runs there."""
        running = list(self._running.values())
        self.http = [f for f in running if f.name in requests.EFFECTS]
        self.prints = [f for f in running if f.name in prints.EFFECTS]
        self.frames = {}
        for fault in running:
            if fault.name in frames.EFFECTS:
                for channel in frames.channels_of(fault):
                    self.frames.setdefault(channel, []).append(fault)
        self._ends_ms = min((f.until_ms for f in running), default=FOREVER_MS)

    def _note(self, now_ms: float, fault: Fault, event: str) -> None:
        self._log.append((now_ms, fault.name, event, fault.params))
        del self._log[:-KEEP_LOG]

    def schedule(self, entries: list[tuple[float, str, float | None, dict]], start_ms: float) -> None:
        """Faults to be started at times after ``start_ms`` (what `load_schedule` returns)."""
        for i, (at_s, name, for_s, params) in enumerate(entries):
            heapq.heappush(self._due, (start_ms + at_s * 1000, i, name, for_s, params))

    def tick(self, now_ms: float) -> None:
        """End what is over and start what is due."""
        if now_ms >= self._ends_ms:
            for fault in [f for f in self._running.values() if f.until_ms <= now_ms]:
                self._end(fault, fault.until_ms)
        while self._due and self._due[0][0] <= now_ms:
            due_ms, _, name, for_s, params = heapq.heappop(self._due)
            self.start(name, due_ms, for_s, **params)

    def next_ms(self) -> float:
        """When `tick` has something to do next, monotonic ms."""
        return min(self._ends_ms, self._due[0][0] if self._due else FOREVER_MS)

    # ---- looking ----

    def active(self, name: str) -> Fault | None:
        """The oldest running fault of a name."""
        return next((f for f in self._running.values() if f.name == name), None)

    def running(self) -> list[Fault]:
        """All running faults, oldest first."""
        return list(self._running.values())

    def lasts_s(self, id_: int) -> float | None:
        """How long a running fault lasts from its start to its end, None for until it is stopped. Errors: KeyError."""
        fault = self._running[id_]
        return None if fault.until_ms >= FOREVER_MS else (fault.until_ms - fault.started_ms) / 1000

    def log(self) -> list[tuple[float, str, str, dict]]:
        """(monotonic ms, name, "start" or "stop", parameters), oldest first."""
        return list(self._log)

    # ---- plans ----

    def join(self, channel: str) -> int:
        """A socket of a channel was opened: its number, from 1."""
        self._newest[channel] = self._newest.get(channel, 0) + 1
        return self._newest[channel]

    def opened(self, channel: str, number: int, link: object) -> None:
        """A socket is up; ``link`` has ``abort()`` and the attribute ``deaf``."""
        self.links.setdefault(channel, {})[number] = link

    def closed(self, channel: str, number: int) -> None:
        """A socket is down."""
        self.links.get(channel, {}).pop(number, None)

    def on_request(self, method: str, path: str, now_ms: float, body: bytes = b"", service: str = "clob") -> RequestPlan:
        """What happens to one request of a port ("clob" or "gamma")."""
        plan = RequestPlan()
        if path.startswith("/sim/"):                  # the operator's own routes are not the venue's
            return plan
        if path.startswith(("/relayer/", "/rpc")):    # they share the CLOB's port, but they are other houses
            service = "relayer"
        ask = requests.Ask(method, path, body, service, now_ms, self.wall_s())
        for fault in self.http:
            if now_ms < fault.until_ms:
                requests.EFFECTS[fault.name](fault, ask, plan)
        return plan

    def on_frame(self, channel: str, link_no: int, data: bytes, now_ms: float) -> list[tuple[float, bytes]]:
        """What a socket is sent instead of one frame: (seconds from now, bytes) each; [] when it is dropped."""
        pieces = [(0.0, data)]
        for fault in self.frames.get(channel, ()):
            if now_ms < fault.until_ms and fault.covers_link(channel, link_no):
                effect = frames.EFFECTS[fault.name]
                pieces = [(wait_s + more_s, out) for wait_s, piece in pieces for more_s, out in effect(fault, channel, piece)]
        return pieces

    def on_print(self, frame: bytes, now_ms: float) -> tuple[float, bytes] | None:
        """What becomes of a reference price before any stream relays it: (seconds from now, bytes), None when it is lost."""
        wait_s = 0.0
        for fault in self.prints:
            if now_ms < fault.until_ms:
                found = prints.EFFECTS[fault.name](fault, frame)
                if found is None:
                    return None
                wait_s, frame = wait_s + found[0], found[1]
        return wait_s, frame


def load_schedule(path: Path | str) -> list[tuple[float, str, float | None, dict]]:
    """(at_s, name, for_s, params) of each [[fault]] of a TOML file, checked. Errors: UserError naming file, entry and the fix."""
    try:
        document = tomllib.loads(Path(path).read_text())
    except OSError as e:
        raise UserError(f"fault schedule {path} cannot be read ({e.strerror}): give sim.faults the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"fault schedule {path} is not TOML: {e}") from None
    rows = document.get("fault", [])
    if set(document) - {"fault"} or not isinstance(rows, list):
        stray = ", ".join(sorted(set(document) - {"fault"})) or "fault"
        raise UserError(f"fault schedule {path}: {stray} is not expected; it holds [[fault]] tables with at_s and name")
    return [_entry(f"fault schedule {path}, entry {i}", row) for i, row in enumerate(rows, 1)]


def _entry(where: str, row) -> tuple[float, str, float | None, dict]:
    if not isinstance(row, dict) or "name" not in row:
        raise UserError(f"{where}: name is missing")
    at_s = row.get("at_s", 0)
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or at_s < 0:
        raise UserError(f"{where}: at_s must be seconds after the start of the exchange, not {at_s!r}")
    try:
        spec = spec_of(row["name"])
        params = {}
        for key, value in row.items():
            if key not in KEPT_KEYS:
                if key not in spec.params and (close := get_close_matches(key, KEPT_KEYS, 1)):
                    raise UserError(f"fault {spec.name} has no parameter {key!r}: did you mean {close[0]!r}?")
                params[key] = value_of(spec, key, value)
        Faults._duration(spec, spec.params | params, row.get("for_s"))
    except UserError as e:
        raise UserError(f"{where}: {e}") from None
    return at_s, spec.name, row.get("for_s"), params


NO_FAULTS = Faults(0)         # of a port or socket that nobody has given any
