"""docs/faults.md: every row names tests that exist."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import ROOT

TEXT = (ROOT / "docs" / "faults.md").read_text("utf-8")
ROWS = [line.strip("|").split(" | ") for line in TEXT.splitlines() if line.startswith("| ")]
ROWS = [[cell.strip() for cell in row] for row in ROWS if row[0].strip() != "fault"]
TESTS = {
    file.name: {node.name for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}
    for file in (ROOT / "tests").glob("test_*.py")
}
NAMES = set().union(*TESTS.values())


def test_there_are_at_least_25_faults_and_none_twice():
    assert len(ROWS) >= 25
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[re.sub(r"\W+", "-", row[0])[:60] for row in ROWS])
def test_a_row_says_what_happens_and_names_tests_that_exist(row):
    """A test is named `file.py::name`, `name` alone, or `file.py` for all in it; "the same" are those of the row above."""
    assert len(row) == 4 and all(row), row
    named = re.findall(r"`(?:(test_\w+\.py)::)?(test_\w+)`", row[3])
    files = re.findall(r"`(test_\w+\.py)`", row[3])
    assert named or files or "the same" in row[3], row[3]
    assert set(files) <= TESTS.keys()
    for file, name in named:
        assert name in (TESTS.get(file, set()) if file else NAMES), f"{file or 'any file'}::{name}"
    assert row is not ROWS[0] or named
