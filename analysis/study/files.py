"""The study.json of a study, read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..reading.locate import AnalysisError
from ..reading.values import load_json

RESULT = "study.json"


def read_result(folder: Path, study: str) -> dict[str, Any] | None:
    """The study's study.json, None where there is none yet. Raises AnalysisError for one of another study, or no JSON."""
    file = folder / RESULT
    try:
        result = load_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise AnalysisError(f"{file} cannot be read ({error}); python -m analysis study {study} writes it") from None
    found = result.get("study") if isinstance(result, dict) else None
    if found != study:
        raise AnalysisError(
            f"{file}: expected the study {study}, found {found}; python -m analysis study {study} writes it"
        )
    return result


Made = TypeVar("Made")


def from_file(make: Callable[..., Made], file: object, *content: Any) -> Made:
    """`make(*content)`. Raises AnalysisError where that is not as this version writes `file`: a key or a table is missing."""
    try:
        return make(*content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise AnalysisError(
            f"{file}: not as this version writes it ({type(error).__name__}: {error}); write it again with "
            "python -m analysis study or compare"
        ) from None
