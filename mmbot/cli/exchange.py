"""`mmbot sim`: the exchange of paper mode alone, in the foreground, for any Polymarket client to be pointed at.

Owns: one child process and what is printed about it. Runs as an instance of its own (run name with "-sim"), so that it never touches the
memory of a group. The kernel tells the exchange when this process dies (mmbot/actor.py). Can go wrong: a port in use, a tape that cannot be read (UserError with the exchange's own words).
"""

import json
import os
import signal
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from mmbot import clock, config
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.ops.group import check_ports
from mmbot.ops.instance import Instance
from shm_layout.segment import Space

READY_S = 20.0
STOP_S = 5.0


def run(cfg: config.Settings, as_json: bool) -> None:
    """Start the exchange, print how to reach it, wait for Ctrl-C (or for it to end), stop it."""
    if cfg.profile != "paper":
        raise UserError("the exchange belongs to the paper profile: run `mmbot sim -c paper`")
    alone = cfg.model_copy(update={"run": cfg.run.model_copy(update={"name": f"{cfg.run.name[:20]}-sim"})})
    instance = Instance(alone)
    instance.prepare()
    lock = instance.lock()
    check_ports(alone)
    Space(alone.run.name).wipe()
    instance.forget_paper()
    instance.save_config()
    log = instance.log_dir / "sim.out"
    with open(log, "wb") as out:
        child = subprocess.Popen([sys.executable, "-m", "procs.sim"], env=instance.environment(sys.executable), stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=out, start_new_session=True)
    interrupted = _on_signals()
    try:
        _wait_ready(alone, child, log)
        about = describe(alone, child.pid)
        print(json.dumps(about), flush=True) if as_json else _show(about)
        while child.poll() is None and not interrupted:
            time.sleep(0.1)
    finally:
        _stop(child)
        Space(alone.run.name).wipe()
        os.close(lock)
    if not interrupted:
        raise UserError(f"the exchange ended by itself (exit code {child.returncode}): {_last_line(log)}")


def _on_signals() -> list[int]:
    """A list that fills with the first signal to stop."""
    seen: list[int] = []
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda number, _frame: seen.append(number))
    return seen


def _wait_ready(cfg: config.Settings, child: subprocess.Popen, log) -> None:
    deadline = clock.mono_ns() + int(READY_S * 1e9)
    while child.poll() is None and clock.mono_ns() < deadline:
        try:
            clock.sync(cfg.venue.clock_url, 0.2)
            return
        except UserError:
            continue
    raise UserError(f"the exchange did not start (exit code {child.poll()}): {_last_line(log)}")


def _last_line(log) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"nothing in {log}"


def _stop(child: subprocess.Popen) -> None:
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def describe(cfg: config.Settings, pid: int) -> dict:
    """Everything a client needs: URLs, chain id, and the funded test account, which is public and worthless outside."""
    account = credentials(cfg)
    urls = {k: getattr(cfg.venue, k) for k in ("clob_url", "gamma_url", "ws_url", "rtds_url", "binance_ws_url", "geoblock_url", "clock_url")}
    return {**urls, "market_ws_url": f"{cfg.venue.ws_url}/market", "user_ws_url": f"{cfg.venue.ws_url}/user", "chain_id": cfg.venue.chain_id,
            "tape": cfg.sim.tape, "speed": cfg.sim.speed, "pid": pid, "address": account.address, "private_key": "0x" + account.private_key.hex(),
            "api_key": account.api_key, "api_secret": account.api_secret, "api_passphrase": account.api_passphrase,
            "cash": cfg.sim.cash_u6 / 1e6}


def _show(about: dict) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in about.items():
        grid.add_row(key, str(value))
    console = Console()
    console.print("[bold]mmbot sim[/]: the exchange is up (Ctrl-C stops it). The account is a public test account with play money.")
    console.print(grid)
