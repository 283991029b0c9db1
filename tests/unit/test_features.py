"""docs/features.md is a contract: every row of the mission stands there once, and "done" names a module and a test that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = [f"C{i}" for i in range(1, 10)] + [f"S{i:03}" for i in range(1, 145)] + [f"B{i}" for i in range(1, 51)] + [f"I{i}" for i in range(1, 16)]
ROW = re.compile(r"^\| ([CSBI]\d+) \| (done|part|missing) \| (.*?) \| (.*?) \|$", re.M)


def rows() -> list[tuple[str, str, str, str]]:
    return ROW.findall((ROOT / "docs" / "features.md").read_text())


def check(row: tuple[str, str, str, str], root: Path = ROOT) -> str:
    """What is wrong with a row, or an empty string."""
    ident, status, module, test = row
    if status == "missing":
        return ""
    for place in module.split(", "):
        if not (root / place).exists():
            return f"{ident}: module {place} does not exist"
    if status == "part" and not test:
        return ""
    path, _, name = test.partition("::")
    if not (root / path).is_file():
        return f"{ident}: test file {path} does not exist"
    if not name:
        return f"{ident}: names no test function"
    names = {n.name for n in ast.walk(ast.parse((root / path).read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    wanted = name.split("::")[-1]
    return "" if wanted in names else f"{ident}: no test {wanted} in {path}"


def test_every_row_once_and_in_order():
    assert [r[0] for r in rows()] == EXPECTED


@pytest.mark.parametrize("row", rows(), ids=lambda r: r[0])
def test_row_is_true(row):
    assert not check(row)


def test_a_false_row_is_seen():
    assert check(("S001", "done", "mmbot/config.py", "tests/unit/test_features.py::test_that_is_not_there"))
    assert check(("S001", "done", "mmbot/nowhere.py", "tests/unit/test_features.py::test_row_is_true"))
    assert not check(("S001", "done", "mmbot/config.py", "tests/unit/test_features.py::test_row_is_true"))
