"""The table: one writer per segment, readers of what exists, and a placement for any number of CPUs."""

from pathlib import Path

import pytest

from mmbot import config, topology
from mmbot.ops.instance import Instance
from mmbot.ops.view import View
from mmbot.topology import BY_NAME, PROCESSES, RINGS, SEQLOCKS, placement
from shm_layout.records import MARKET_SLOTS

ROOT = Path(__file__).resolve().parents[2]


def test_every_segment_has_exactly_one_writer():
    writers = [s for p in PROCESSES for s in p.writes] + list(topology.OPERATOR)
    assert sorted(writers) == sorted([*RINGS, *SEQLOCKS])
    assert {s for p in PROCESSES for s in p.reads} <= set(writers)


def test_nobody_reads_what_it_writes():
    assert not [p.name for p in PROCESSES if set(p.reads) & set(p.writes)]


def test_the_core_knows_what_the_executor_rests():
    assert topology.writer_of("own") == "executor" and "own" in BY_NAME["core"].reads and SEQLOCKS["own"].count == MARKET_SLOTS


def test_bells_ring_readers_that_listen():
    for segment, names in topology.BELLS.items():
        for name in names:
            assert segment in BY_NAME[name].reads and BY_NAME[name].wait == "doorbell"


def test_early_bells_are_rung_by_the_feeds_of_the_core_for_who_waits_for_it():
    for segment, names in topology.EARLY_BELLS.items():
        assert segment in BY_NAME["core"].reads
        assert set(names) == set(topology.BELLS["targets"])


def test_a_feed_that_is_switched_off_is_left_out():
    off = config.load(feeds__coinbase=False)
    names = {p.name for p in topology.processes("paper", off)}
    assert "feed_coinbase" not in names and "feed_bybit" in names
    assert len(topology.processes("paper")) == len(names) + 1 and BY_NAME["feed_coinbase"].optional and not BY_NAME["feed_oracle"].optional
    environment = Instance(off).environment("python")
    assert (environment["MMBOT_AUTOSTART_FEED_COINBASE"], environment["MMBOT_AUTOSTART_FEED_BYBIT"], environment["MMBOT_AUTOSTART_SIM"]) == (
        "false", "true", "true")
    assert "feed_coinbase" not in {row.name for row in View(off).rows}, "and nobody calls it dead"


def test_ring_depths_are_powers_of_two():
    assert all(spec.depth & (spec.depth - 1) == 0 for spec in RINGS.values())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 64])
def test_placement(n):
    cpus = frozenset(range(n))
    places = {p.name: placement(p, cpus) for p in PROCESSES}
    assert all(place.cpus and place.cpus <= cpus for place in places.values())
    if n == 1:
        assert not [p for p in places.values() if p.wait == "spin"]
        return
    hot = places["core"].cpus
    assert len(hot) == 1 and places["core"].wait == "spin"
    assert not [name for name, place in places.items() if name != "core" and place.cpus & hot], "the core's CPU is its own"
    if n >= 4:
        alone = [places[name].cpus for name in ("core", "executor", "feed_market")]
        assert all(len(c) == 1 for c in alone) and len(frozenset().union(*alone)) == 3
        others = frozenset().union(*(place.cpus for name, place in places.items() if name not in ("core", "executor", "feed_market")))
        assert not others & frozenset().union(*alone)


def test_top_level_is_as_fixed():
    expected = {"pyproject.toml", "mmbot", "procs", "shm_layout", "tests", "supervisor.conf", "Makefile", "README.md", "docs", "bench", ".ci"}
    assert expected <= {p.name for p in ROOT.iterdir()}


def test_a_process_of_one_strategy_runs_only_with_it():
    assert "programme" not in {p.name for p in topology.processes("paper")} and BY_NAME["programme"].optional
    for strategy, runs in (({"strategy": "tiered"}, False), ({"strategy": "programme"}, True), ({"for_5m": {"strategy": "programme"}}, True)):
        cfg = config.load(strategy=strategy)
        assert ("programme" in {p.name for p in topology.processes("live", cfg)}) is runs
        assert Instance(cfg).environment("python")["MMBOT_AUTOSTART_PROGRAMME"] == str(runs).lower()


def test_files_for_other_programs_need_a_directory(tmp_path):
    assert "output" not in {p.name for p in topology.processes("live")} and BY_NAME["output"].optional and not BY_NAME["output"].writes
    for directory, runs in ((None, False), (str(tmp_path), True)):
        cfg = config.load(output={"dir": directory} if directory else {})
        assert ("output" in {p.name for p in topology.processes("live", cfg)}) is runs
        assert Instance(cfg).environment("python")["MMBOT_AUTOSTART_OUTPUT"] == str(runs).lower()


def test_default_settings_start_what_runs_by_default():
    assert [p.name for p in topology.processes("paper", config.load("paper"))] == [p.name for p in topology.processes("paper")]


def test_a_process_may_load_its_settings_in_the_environment_it_gets(monkeypatch):
    for name, value in Instance(config.load("paper")).environment("python").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MMBOT_CONFIG")
    assert len([p for p in PROCESSES if p.optional]) > 3 and config.load("paper").profile == "paper", "no MMBOT_AUTOSTART_ variable is unknown"
