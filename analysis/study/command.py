"""Reads a study's experiments and writes its page: python -m analysis study NAME."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..reading.locate import AnalysisError
from .arms import arms_of
from .files import RESULT, default_folder, experiments_of, from_file, named, read_plan, read_result
from .page import write_result
from .result import result_of
from .words import TITLES


def study(name: str, out: Path | None) -> tuple[dict[str, Any], Path]:
    """The content of study.json and the page's path. A folder that came from elsewhere, where NNI knows nothing of it, gives
    the page of its study.json. Raises AnalysisError for a study that was not begun."""
    if name not in TITLES:
        raise AnalysisError(f"no study {name!r}; the studies are {', '.join(TITLES)}")
    folder = out or default_folder(name)
    plan = read_plan(folder)
    where = f" --out {out}" if out else ""
    run = f"python -m experiments study {name}{where}"
    if plan is None or plan.study != name:
        found = "no study" if plan is None else f"the study {plan.study}"
        raise AnalysisError(f"{folder}: {found} there; run it first: {run}")
    main = arms_of(plan.main, experiments_of(plan.main))
    teacher = arms_of(plan.teacher, experiments_of(plan.teacher))[0] if plan.teacher else None
    if not any(arm.good for arm in main):
        kept = None if any(map(named, plan.parts)) else read_result(folder, name)
        if kept is not None:
            print(
                f"NNI's experiments of it are not known here: the page is made from {folder / RESULT}", file=sys.stderr
            )
            return kept, from_file(write_result, folder / RESULT, folder, kept)
        raise AnalysisError(f"{folder}: no training has a result yet; go on with: {run}")
    result = result_of(plan, main, teacher)
    return result, write_result(folder, result)


def print_study(name: str, out: Path | None) -> None:
    """The two sentences, the table and where the page is."""
    from ..render.document import Document, Row, Table
    from ..render.terminal import clean, render
    from .page import arm_rows

    result, page = study(name, out)
    missing = sum(row["state"] == "missing" for row in result["trainings"])
    if missing:
        print(f"{missing} of {len(result['trainings'])} trainings are missing: the same study command goes on\n")
    print("\n".join(clean(result[key]) for key in ("headline", "can", "cannot")) + "\n")
    rows = tuple(Row(label, tuple(cells)) for label, cells in arm_rows(result))
    print(render(Document("", None, (), (Table(tuple(arm["name"] for arm in result["arms"]), rows),))))
    print(f"\nreport: {page}")
