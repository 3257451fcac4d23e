"""No command and no flag that users have is lost: tests/golden/commands.json has them as they were on 2026-11-28."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parent / "golden" / "commands.json"


def flags_of(command: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Every --flag that `python -m COMMAND --help` names."""
    package, *words = command.split()
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"{package}.__main__").main([*words, "--help"])
    assert ended.value.code == 0
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out)))


@pytest.mark.parametrize("command", json.loads(GOLDEN.read_text()))
def test_the_command_still_has_its_flags(command, capsys):
    lost = set(json.loads(GOLDEN.read_text())[command]) - set(flags_of(command, capsys))
    assert not lost, f"python -m {command} lost {sorted(lost)}"
