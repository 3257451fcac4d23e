"""What `python -m experiments study` plans, and what it says when it refuses."""

from __future__ import annotations

from typing import Any

from analysis.reading.replication import Part
from experiments.__main__ import main
from experiments.studies import StudyRequest, study_parts


def parts(name: str, **values: Any) -> list[Part]:
    """As the command plans them."""
    return study_parts(StudyRequest(name, values.pop("seeds", 2), values.pop("fields", {}), **values))


def refused(words: list[str], capsys: Any) -> str:
    """What `study` says when it refuses."""
    assert main(["study", *words]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error
