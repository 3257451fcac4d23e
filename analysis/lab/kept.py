"""Studies kept in the repository: the study.json of each, without the folders of the machine, so that a clone has them."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Any

from ..reading.replication import PLAN, write_text
from ..reading.values import strict_json
from ..study.files import RESULT, read_result
from ..study.words import TITLES

_FOLDERS = re.compile(r"(?<![\w/.:~])/(?:[^\s'\":;,/]+/)+")  # of an absolute path within a text


def keep(studies: Path, target: Path) -> None:
    """Copies the study.json of each study below `studies` to `target`/NAME. Raises AnalysisError."""
    for name in TITLES:
        result = read_result(studies / name, name)
        if result is not None:
            write_text(target / name / RESULT, strict_json(without_folders(result), indent=1) + "\n")


def are_kept(studies: Path) -> bool:
    """Whether they are copies alone: none of them was begun there."""
    return not any((studies / name / PLAN).exists() for name in TITLES)


def without_folders(value: Any) -> Any:
    """The same with the last part of each absolute path in its place."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    return PurePath(value).name if PurePath(value).is_absolute() else _FOLDERS.sub("", value)
