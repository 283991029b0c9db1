"""The exchange as a process: stands alone, stops in order, and comes back after SIGKILL with its clock and money."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

from exchange_world import free_base_port

from mmbot.sim import accounts

IN_GROUP = """
import asyncio, json, pathlib, sys
from mmbot import config
from mmbot.sim import server
asyncio.run(server.run(config.load(sim__base_port=int(sys.argv[1])), asyncio.Event(), lambda about: print(json.dumps(about), flush=True),
                       pathlib.Path(sys.argv[2])))
"""


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def start(source, *args):
    """(process, what it printed when ready)."""
    child = subprocess.Popen([sys.executable, "-c", source, *map(str, args)], stdout=subprocess.PIPE, preexec_fn=die_with_parent,
                             env=os.environ | {"MMBOT_CONFIG": ""})
    return child, json.loads(child.stdout.readline())


def get(about, path):
    with urllib.request.urlopen(about["clob_url"] + path, timeout=5) as answer:
        return json.load(answer)


def test_alone_it_prints_all_a_client_needs_and_stops_on_sigint(tmp_path):
    env = os.environ | {"MMBOT_RUN__DIR": str(tmp_path), "MMBOT_RUN__NAME": f"t{os.getpid()}", "MMBOT_SIM__BASE_PORT": str(free_base_port())}
    child = subprocess.Popen([sys.executable, "-m", "mmbot.cli.main", "sim", "--json"], stdout=subprocess.PIPE, preexec_fn=die_with_parent, env=env)
    try:
        about = json.loads(child.stdout.readline())
        assert about["private_key"] == accounts.PAPER_KEY and about["api_secret"] and about["market_ws_url"].endswith("/ws/market")
        markets = get(about, "/sim/books")["markets"]
        assert sum(m["bid_e4"] > 0 and m["ask_e4"] > m["bid_e4"] for m in markets) >= 2, "books stand before the first client comes"
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()


def test_a_killed_exchange_continues_the_tapes_clock(tmp_path):
    port = free_base_port()
    child, about = start(IN_GROUP, port, tmp_path)
    clock, before = get(about, "/sim/clock"), get(about, "/sim/books")["now_ms"]
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(0.2)
    child, about = start(IN_GROUP, port, tmp_path)
    try:
        assert get(about, "/sim/clock") == clock and get(about, "/sim/books")["now_ms"] > before
    finally:
        child.kill()
        child.wait()


def test_a_new_group_starts_the_tape_anew(tmp_path):
    child, about = start(IN_GROUP, free_base_port(), tmp_path)
    try:
        clock = get(about, "/sim/clock")
        state = json.loads((tmp_path / "sim_clock.json").read_text())
        assert state["mono0_ns"] == clock["mono0_ns"]
    finally:
        child.kill()
        child.wait()
    (tmp_path / "sim_clock.json").write_text(json.dumps(state | {"group": "another"}))
    child, about = start(IN_GROUP, free_base_port(), tmp_path)
    try:
        assert get(about, "/sim/clock")["mono0_ns"] > clock["mono0_ns"]
    finally:
        child.kill()
        child.wait()
