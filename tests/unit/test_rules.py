"""The rules of the house, checked on the source itself: who imports whom, who reads clocks, who touches memory and sockets."""

import ast
import subprocess
from pathlib import Path

import pytest
from pyflakes import checker, messages

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shm_layout", "mmbot", "procs")
SOURCES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
PURE = ("mmbot/signals", "mmbot/quoting", "mmbot/risk", "mmbot/books", "mmbot/core")
CLOCK_NAMES = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time",
               "process_time_ns", "clock_gettime", "clock_gettime_ns"}
MAX_FUNCTION_LINES = 70


def rel(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """Dotted names a file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{rel(path)}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def clock_reads(path: Path) -> list[str]:
    """Calls or references that read a clock: time.x, `from time import x`, datetime.now and friends."""
    bad = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "time" and node.attr in CLOCK_NAMES:
                bad.append(f"{rel(path)}:{node.lineno} time.{node.attr}")
            if node.value.id in ("datetime", "date") and node.attr in ("now", "utcnow", "today"):
                bad.append(f"{rel(path)}:{node.lineno} {node.value.id}.{node.attr}")
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            bad += [f"{rel(path)}:{node.lineno} from time import {a.name}" for a in node.names if a.name in CLOCK_NAMES]
    return bad


def under(path: Path, *places: str) -> bool:
    return any(rel(path) == p or rel(path).startswith(p.rstrip("/") + "/") for p in places)


def names_imported(path: Path, *modules: str) -> set[str]:
    return {i for i in imports(path) if any(i == m or i.startswith(m + ".") for m in modules)}


@pytest.mark.parametrize("path", SOURCES, ids=rel)
def test_imports_point_one_way(path):
    forbidden = {"shm_layout": ("mmbot", "procs"), "mmbot": ("procs",), "procs": ()}[rel(path).split("/")[0]]
    assert not names_imported(path, *forbidden)
    if rel(path).startswith("procs/"):
        assert not {i for i in names_imported(path, "procs") if i.split(".")[1:2] != ["ws_client"]}, "processes do not import each other"


@pytest.mark.parametrize("path", [p for p in SOURCES if under(p, *PURE)], ids=rel)
def test_pure_code_imports_only_arithmetic(path):
    allowed = ("math", "numpy", "numba", "shm_layout.records", "mmbot.signals", "mmbot.quoting", "mmbot.risk", "mmbot.books")
    kernel = under(path, "mmbot/core")      # kernels of the core use the ring's atomics; its burst reads rings and is handed a clock function
    if kernel:
        allowed += ("mmbot.core", *(("mmbot.clock",) if rel(path) == "mmbot/core/burst.py" else ()))
    stray = {i for i in imports(path) if not any(i == a or i.startswith(a + ".") for a in (*allowed, "shm_layout"))}
    assert not stray
    if not kernel:
        assert not {i for i in names_imported(path, "shm_layout") if not i.startswith(("shm_layout.records",)) and i != "shm_layout"}


@pytest.mark.parametrize("path", [p for p in SOURCES if rel(p) != "mmbot/clock.py"], ids=rel)
def test_only_clock_reads_a_clock(path):
    assert not clock_reads(path)


@pytest.mark.parametrize("path", [p for p in SOURCES if not under(p, "shm_layout")], ids=rel)
def test_only_shm_layout_touches_raw_memory(path):
    assert not names_imported(path, "mmap", "posix_ipc", "multiprocessing")
    assert "load_acquire_at" not in path.read_text(), "addresses stay where the memory is mapped"
    text = path.read_text()
    assert "pack_into" not in text and "/dev/shm" not in text.replace('"/dev/shm"', "" if under(path, "mmbot/ops", "mmbot/cli") else '"/dev/shm"')


@pytest.mark.parametrize("path", SOURCES, ids=rel)
def test_no_pickle_no_fork_no_blind_except(path):
    assert not names_imported(path, "pickle", "multiprocessing.shared_memory")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr != "fork", f"{rel(path)}:{node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{rel(path)}:{node.lineno}: a bare except"
            only_pass = all(isinstance(s, ast.Pass) for s in node.body)
            broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            assert not (broad and only_pass), f"{rel(path)}:{node.lineno}: swallows everything"


@pytest.mark.parametrize("path", [p for p in SOURCES if not under(p, "procs", "mmbot/sim")], ids=rel)
def test_sockets_only_in_procs_and_sim(path):
    http_client = under(p := path, "mmbot/execution/http1.py", "mmbot/execution/rest.py")
    clock_sync = rel(p) == "mmbot/clock.py"
    local_control = under(p, "mmbot/ops", "mmbot/cli")
    stray = names_imported(path, "socket", "picows", "aiohttp", "websockets", "httpx", "urllib.request", "requests")
    assert not stray or http_client or clock_sync or local_control, stray


@pytest.mark.parametrize("path", SOURCES, ids=rel)
def test_every_module_says_what_it_is(path):
    doc = ast.get_docstring(tree(path)) or ""
    assert len(doc) > 20 or not path.read_text().strip(), f"{rel(path)} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=rel)
def test_functions_fit_on_a_screen(path):
    long = [f"{rel(path)}:{n.lineno} {n.name} has {n.end_lineno - n.lineno + 1} lines" for n in ast.walk(tree(path))
            if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and n.end_lineno - n.lineno + 1 > MAX_FUNCTION_LINES]
    assert not long


def test_every_name_is_defined_and_every_import_used():
    """pyflakes, where it is not told otherwise (noqa) on the line itself."""
    wrong = []
    for path in (*SOURCES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("bench/*.py")):
        if "node_modules" in path.parts:
            continue
        lines = path.read_text().splitlines()
        found = checker.Checker(ast.parse(path.read_text()), rel(path)).messages
        wrong += [str(m) for m in found if isinstance(m, (messages.UndefinedName, messages.UndefinedLocal, messages.UnusedImport, messages.UnusedVariable))
                  and "noqa" not in lines[m.lineno - 1]]
    assert not wrong


def test_servers_bind_to_loopback():
    for path in SOURCES:
        assert "0.0.0.0" not in path.read_text(), rel(path)


def test_no_machine_paths_or_unfinished_marks():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    marks = ("/wor" + "k/", "/roo" + "t/", "TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")
    bad = []
    for name in files:
        if name.endswith((".py", ".md", ".toml", ".conf", "Makefile", "run")) and (ROOT / name).exists():
            text = (ROOT / name).read_text()
            bad += [f"{name}: {m}" for m in marks if m in text]
    assert not bad


class TestTheRulesThemselves:
    """Each rule must fail when it is broken: the checkers see the sins they look for."""

    def test_an_undefined_name_is_seen(self):
        found = checker.Checker(ast.parse("def f(x):\n    return x + TIERS[0]")).messages
        assert [type(m) for m in found] == [messages.UndefinedName]

    @pytest.mark.parametrize("sin", ["import time\nx = time.time()", "from time import monotonic_ns", "import datetime\ndatetime.now()",
                                     "import time\nf = time.perf_counter_ns"])
    def test_clock_sins_are_seen(self, sin):
        assert _clock_reads_of(sin, ROOT / "mmbot" / "_sin.py")

    def test_a_clean_file_is_clean(self):
        assert not _clock_reads_of("import time\ntime.sleep(1)", ROOT / "mmbot" / "_clean.py")


def _clock_reads_of(text: str, path: Path) -> list[str]:
    """`clock_reads` on text instead of a file."""
    class Fake:
        def read_text(self):
            return text

        def relative_to(self, _root):
            return path.relative_to(ROOT)
    return clock_reads(Fake())
