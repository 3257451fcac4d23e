"""python -m trial --describe: the checks made before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data import DataError
from data.cache import open_cache
from trial import TrialError
from trial.batches import require_a_batch
from trial.device import choose_compute
from trial.gpu import describe_gpus
from trial.hyperparameters import Hyperparameters, describe_fields
from trial.model import build_model
from trial.teacher import open_teacher

# What decides which files a trial reads, and which of them fit together.
_NEEDS_FILES = ("arch", "weights", "image_px", "teacher")


def describe(
    given: dict[str, Any],
    searched: dict[str, list],
    cache_folder: Path,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """{fields, given, gpu, problems, notes}: the hyperparameters, the GPU, what is wrong or missing, and what was done to
    weights files, a line each.

    given: by flags; searched: {field: [values]} of a search space, all values of a choice or both bounds of a range.
    Opens cache, weights and teacher for real, so that weights are downloaded, read and fitted once before the experiment.
    """
    gpu, notes = describe_gpus(device), []
    problems = [gpu["problem"]] if gpu["problem"] else []
    if not problems:
        problems += _refusals(lambda: choose_compute(device, precision, threads=0))
    for values in _combinations(searched):
        problems += _problems({**given, **values}, cache_folder, notes)
    problems, notes = ([*dict.fromkeys(lines)] for lines in (problems, notes))
    return {"fields": describe_fields(), "given": given, "gpu": gpu, "problems": problems, "notes": notes}


def _combinations(searched: dict[str, list]) -> Iterator[dict[str, Any]]:
    """All combinations of files that the search space may choose; one empty choice where it chooses none."""
    names = [name for name in _NEEDS_FILES if searched.get(name)]
    weight = {"distill_weight": max(searched["distill_weight"])} if searched.get("distill_weight") else {}
    for values in itertools.product(*(searched[name] for name in names)):
        yield {**weight, **dict(zip(names, values))}


def _problems(values: dict[str, Any], cache_folder: Path, notes: list[str]) -> list[str]:
    """notes: a line is appended where a weights file was no plain state dict."""
    try:
        h = Hyperparameters().merged(values)
    except TrialError as error:
        return [str(error)]
    problems, cache = [], None
    try:
        cache = open_cache(cache_folder, h.image_px)
    except DataError as error:
        problems.append(str(error))
    classes = len(cache.classes) if cache else 1  # the head is not what is checked
    return problems + _refusals(
        lambda: cache and require_a_batch(cache),
        lambda: build_model(h.arch, h.weights, classes, h.seed, notes.append),
        lambda: open_teacher(h, cache),
    )


def _refusals(*checks: Callable[[], object]) -> list[str]:
    """The errors that they raise."""
    problems = []
    for check in checks:
        try:
            check()
        except TrialError as error:
            problems.append(str(error))
    return problems
