"""supervisor.conf against the topology: the same processes, the same order, the same modules, nothing more, nothing less."""

import configparser
import dataclasses
from pathlib import Path

import pytest
from supervisor.datatypes import dict_of_key_value_pairs

from mmbot import deaths, topology
from mmbot.ops import instance

ROOT = Path(__file__).parents[2]
CONF = ROOT / "supervisor.conf"
#: who gets which secrets of the account; everybody else gets none
RELAYER = {"RELAYER_KEY", "BUILDER_KEY", "BUILDER_SECRET", "BUILDER_PASSPHRASE"}
SECRETS = {"executor": {"PRIVATE_KEY", "API_KEY", "API_SECRET", "API_PASSPHRASE"}, "settler": {"PRIVATE_KEY", *RELAYER}, "guardian": {"API_KEY", "API_SECRET", "API_PASSPHRASE"},
           "feed_user": {"API_KEY", "API_SECRET", "API_PASSPHRASE"}, "feed_oracle": {"API_KEY", "API_SECRET", "API_PASSPHRASE"}}
#: what every program must say, whatever its name
COMMON = {"autorestart": "unexpected", "exitcodes": str(deaths.STAYS_DOWN), "stopsignal": "TERM", "killasgroup": "true", "redirect_stderr": "true"}


def parse(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",), strict=True)
    parser.read_string(text)
    return parser


def differences(conf: configparser.RawConfigParser, rows=topology.PROCESSES) -> list[str]:
    """Every way in which a supervisor configuration disagrees with topology rows; empty when they agree."""
    programs = {s.removeprefix("program:"): dict(conf[s]) for s in conf.sections() if s.startswith("program:")}
    names = [row.name for row in rows]
    bad = [f"{n}: in supervisor.conf, not in the topology" for n in programs if n not in names]
    for row in rows:
        program = programs.get(row.name)
        if program is None:
            bad.append(f"{row.name}: in the topology, not in supervisor.conf")
            continue
        want = COMMON | {
            "command": f"%(ENV_MMBOT_PYTHON)s -m procs.{row.name}",
            "priority": str(row.priority),
            "autostart": f"%(ENV_MMBOT_AUTOSTART_{row.name.upper()})s" if row.optional else "true",
            "stdout_logfile": f"%(ENV_MMBOT_RUN_DIR)s/log/{row.name}.log",
        }
        bad += [f"{row.name}.{k}: {program.get(k)!r}, should be {v!r}" for k, v in want.items() if program.get(k) != v]
        bad += [f"{row.name}.{k} is not set" for k in ("startsecs", "startretries", "stopwaitsecs", "stdout_logfile_maxbytes",
                                                       "stdout_logfile_backups") if k not in program]
    return bad


def test_conf_agrees_with_topology():
    assert differences(parse(CONF.read_text())) == []


def test_every_program_has_a_module():
    missing = [p.name for p in topology.PROCESSES if not (ROOT / "procs" / f"{p.name}.py").exists()]
    assert missing == []


@pytest.mark.parametrize("change, says", [
    (lambda t: t.replace("[program:core]", "[program:kore]"), "kore: in supervisor.conf, not in the topology"),
    (lambda t: t.replace("-m procs.executor", "-m procs.exec"), "executor.command"),
    (lambda t: t.replace("priority=60", "priority=61"), "guardian.priority"),
    (lambda t: t.replace("autostart=%(ENV_MMBOT_AUTOSTART_SIM)s", "autostart=true"), "sim.autostart"),
    (lambda t: t.replace("stopsignal=TERM", "stopsignal=KILL", 1), "sim.stopsignal"),
    (lambda t: t.replace("stopwaitsecs=10\n", ""), "executor.stopwaitsecs is not set"),
])
def test_a_disagreement_is_found(change, says):
    changed = change(CONF.read_text())
    assert changed != CONF.read_text()
    assert any(says in line for line in differences(parse(changed)))


def test_a_new_topology_row_is_found():
    rows = (*topology.PROCESSES, dataclasses.replace(topology.BY_NAME["core"], name="recorder"))
    assert differences(parse(CONF.read_text()), rows) == ["recorder: in the topology, not in supervisor.conf"]


def test_socket_is_private():
    conf = parse(CONF.read_text())
    assert conf["unix_http_server"]["chmod"] == "0600"
    assert not conf.has_section("inet_http_server")


@pytest.mark.parametrize("row", topology.PROCESSES, ids=lambda row: row.name)
def test_each_process_gets_only_the_secrets_it_needs(row):
    text = parse(CONF.read_text())[f"program:{row.name}"].get("environment", "")
    taken = {k.removeprefix("MMBOT_ACCOUNT__") for k, v in dict_of_key_value_pairs(text).items() if v == ""}
    assert (SECRETS["executor"] | RELAYER) - taken == SECRETS.get(row.name, set())
    assert {n.upper() for n in instance.SECRETS} - {"KEYSTORE_PASSPHRASE"} == SECRETS["executor"] | RELAYER, "and there are no others"
