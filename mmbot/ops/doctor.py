"""The doctor: is this machine, this memory, this venue and this account fit to trade, and if not what is to be done.

Owns: the list of checks. Each is a function that yields findings and raises nothing that a sick machine could cause. Reads: /proc, /sys,
the file system, the venue (through `doctor_venue`). Writes: nothing.
"""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from mmbot import clock, config, topology
from mmbot.errors import UserError
from mmbot.execution.keyfiles import read_secret
from mmbot.execution.rate import TIERS
from mmbot.ops import warm
from mmbot.ops.doctor_venue import VENUE_S, account_findings, time_service, venue_findings
from mmbot.ops.finding import Finding
from mmbot.ops.group import PAPER_PORTS, conf_path, is_up, leftovers, paper_ports, port_holders
from mmbot.ops.instance import Instance
from mmbot.ops.memory import inspect
from mmbot.ops.view import View
from shm_layout.segment import DIRECTORY, Form
from shm_layout.vitals import page_form

CLOCK_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
#: clock sources that are read without a system call
FAST_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
SPINNER_PCT, SPINNER_SAMPLE_S = 60.0, 0.4


def examine(cfg: config.Settings) -> Iterator[Finding]:
    """All checks, in the order in which things depend on each other."""
    for check in (_python, _cpus, _clock, _memory, _limits, _kernels, _instance, _segments, _ports, _spinners, _key_files, _venue):
        yield from check(cfg)


def _python(_cfg) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok" if sys.version_info >= (3, 11) else "fail", "python", f"{version} at {sys.executable}",
                  "" if sys.version_info >= (3, 11) else "use Python 3.11 or newer")
    try:
        yield Finding("ok", "supervisor.conf", str(conf_path()))
    except UserError as e:
        yield Finding("fail", "supervisor.conf", str(e), "install with `pip install -e .` from the source tree")


def _cpus(cfg) -> Iterator[Finding]:
    cpus = sorted(os.sched_getaffinity(0))
    places: dict[tuple[int, ...], list[str]] = {}
    for row in topology.processes(cfg.profile, cfg):
        places.setdefault(tuple(sorted(topology.placement(row).cpus)), []).append(row.name)
    core = topology.placement(topology.BY_NAME["core"])
    text = "; ".join(f"CPU {','.join(map(str, where))}: {' '.join(names)}" for where, names in sorted(places.items()))
    yield Finding("ok" if len(cpus) > 1 else "warn", "cpus", f"core: {core.why}. {text}",
                  "" if len(cpus) > 1 else "with one CPU nothing spins and every hop costs a wake-up: give it two")


def _clock(_cfg) -> Iterator[Finding]:
    try:
        source = CLOCK_SOURCE.read_text().strip()
    except OSError:
        source = "unknown"
    fast = source in FAST_CLOCKS
    yield Finding("ok" if fast else "warn", "clock source", source,
                  "" if fast else "reading it may cost a system call: boot with clocksource=tsc if the CPU has an invariant TSC")


def _needed_bytes() -> int:
    forms = [Form.ring(s.record, s.depth) for s in topology.RINGS.values()]
    forms += [Form.seqlock(s.record, s.count) for s in topology.SEQLOCKS.values()]
    return sum(f.size for f in forms) + page_form().size * len(topology.PROCESSES)


def _memory(cfg) -> Iterator[Finding]:
    fs, need = os.statvfs(DIRECTORY), _needed_bytes()
    free = fs.f_bavail * fs.f_frsize
    enough = free > 2 * need or is_up(cfg)
    yield Finding("ok" if enough else "fail", str(DIRECTORY), f"{free / 1e6:,.0f} MB free, the segments take {need / 1e6:.1f} MB",
                  "" if enough else "`mmbot shm wipe`, or enlarge it: mount -o remount,size=256m (containers: --shm-size)")


def _limits(_cfg) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    need = _needed_bytes()
    enough = soft == resource.RLIM_INFINITY or soft >= need
    shown = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft / 1e6:.1f} MB"
    yield Finding("ok" if enough else "warn", "locked memory", f"limit {shown}, the segments take {need / 1e6:.1f} MB",
                  "" if enough else "raise it: ulimit -l unlimited, or LimitMEMLOCK= of the service")
    may_nice = os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] >= 25
    yield Finding("ok" if may_nice else "warn", "priority", "negative nice values are allowed" if may_nice else "executor and guardian run at nice 0",
                  "" if may_nice else "allow nice -5: CAP_SYS_NICE, or `nice -5` in /etc/security/limits.conf")


def _kernels(_cfg) -> Iterator[Finding]:
    warm_now = warm.MARKER.exists()
    yield Finding("ok" if warm_now else "warn", "kernels", f"{'compiled' if warm_now else 'not compiled yet'} in {warm.MARKER.parent}",
                  "" if warm_now else "`mmbot warm` compiles them, or the first start does")


def _instance(cfg) -> Iterator[Finding]:
    instance = Instance(cfg)
    try:
        instance.prepare()
    except UserError as e:
        yield Finding("fail", "run directory", str(e), "set run.dir")
        return
    pid = instance.holder()
    yield Finding("ok", "run directory", f"{instance.dir}, " + ("nothing runs" if pid is None else f"supervisord has pid {pid}"))
    if pid is None and (held := leftovers(cfg)):
        names = ", ".join(f"{n} (pid {p})" for n, p in held.items())
        yield Finding("fail", "leftovers", f"processes without a supervisor: {names}", "`mmbot down`")


def _segments(cfg) -> Iterator[Finding]:
    rows = inspect(cfg)
    bad = [row for row in rows if row.problem]
    for row in bad:
        yield Finding("fail", "segment", f"{row.name}: {row.problem}", "`mmbot down`, then `mmbot shm wipe`")
    if not bad:
        yield Finding("ok", "segments", f"{len(rows)} sound" if rows else "none yet, `mmbot up` makes them")


def _ports(cfg) -> Iterator[Finding]:
    if cfg.profile != "paper" or is_up(cfg):
        return
    ports = paper_ports(cfg)
    taken = port_holders(ports)
    for port, who in sorted(taken.items()):
        yield Finding("fail", "port", f"{port} is in use by {who}", "stop that, or choose another sim.base_port")
    if not taken:
        yield Finding("ok", "ports", f"{ports[0]} to {ports[-1]} are free ({PAPER_PORTS} for the exchange)")


def _spinners(cfg) -> Iterator[Finding]:
    """Processes that eat a CPU and do not belong to this group: they would share the core's CPU and spoil every figure."""
    ours = set(leftovers(cfg).values()) | {os.getpid()}
    watched = {}
    for p in psutil.process_iter():
        try:
            p.cpu_percent()
            watched[p.pid] = p
        except psutil.Error:
            continue
    time.sleep(SPINNER_SAMPLE_S)
    found = False
    for pid, p in watched.items():
        try:
            busy, command = p.cpu_percent(), " ".join(p.cmdline())[:70] or p.name()
        except psutil.Error:
            continue
        if busy > SPINNER_PCT and pid not in ours:
            found = True
            yield Finding("warn", "spinner", f"pid {pid} uses {busy:.0f} % of a CPU: {command}", f"kill {pid} if it is left over from a test or a crash")
    if not found:
        yield Finding("ok", "spinners", "nobody else keeps a CPU busy")


def _key_files(cfg) -> Iterator[Finding]:
    """Files that hold a key: may only we read them?"""
    for name in ("key_file", "keystore"):
        if (path := getattr(cfg.account, name)) is not None:
            try:
                read_secret(path, f"account.{name}")
                yield Finding("ok", f"account.{name}", f"{path}, ours alone")
            except UserError as e:
                yield Finding("fail", f"account.{name}", str(e), "do what the line says; the bot does not read the file as it is")


def rate_finding(account) -> Finding:
    """The rate tier that the venue has named to the executor, and what is left of it (``account``: ACCOUNT)."""
    tier = int(account["tier"])
    if not 0 <= tier < len(TIERS):
        return Finding("ok", "rate tier", "not said yet: the venue names it with the first order")
    return Finding("ok", "rate tier", f"{TIERS[tier].name}, {int(account['order_tokens'])} order and {int(account['cancel_tokens'])} cancel tokens")


def _venue(cfg) -> Iterator[Finding]:
    found, who = account_findings(cfg)
    yield from found
    yield time_service()
    if cfg.profile == "paper" and not (is_up(cfg) or port_holders([cfg.sim.base_port])):
        yield Finding("ok", "venue", "the exchange of paper mode runs while the group is up: start it to see more")
        return
    try:
        wall = clock.sync(cfg.venue.clock_url, VENUE_S)
    except UserError as e:
        yield Finding("fail", "venue", str(e), "`mmbot restart sim`")
        return
    yield from asyncio.run(venue_findings(cfg, who, wall))
    if is_up(cfg) and (account := View(cfg).latest("account")) is not None:
        yield rate_finding(account)
