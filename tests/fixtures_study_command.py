"""What `python -m experiments study` plans, and what it says when it refuses."""

from __future__ import annotations

from typing import Any

from analysis.reading.replication import Part
from experiments.__main__ import main
from experiments.study import Asked, _parts


def parts(name: str, **values: Any) -> list[Part]:
    """As the command plans them."""
    return _parts(Asked(name, values.pop("seeds", 2), values.pop("fields", {}), **values))


def refused(words: list[str], capsys: Any) -> str:
    """What `study` says when it refuses."""
    assert main(["study", *words]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error
