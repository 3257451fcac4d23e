"""python -m trial --describe: what a check needs to know before a night is spent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data.cache import open_cache
from data.errors import DataError
from trial.errors import TrialError
from trial.hyperparameters import Hyperparameters, describe_fields

# What decides which files a trial reads, and which of them fit together.
NEEDS_FILES = ("arch", "weights", "image_px", "teacher")


def describe(
    given: dict[str, Any], searched: dict[str, list], cache_folder: Path, compute_on: tuple[str, str] = ("auto", "auto")
) -> dict[str, Any]:
    """The fields, the GPU, what is wrong or missing, and what is to be known, a line each.

    given: by flags; searched: {field: [values]} of a search space, all values of a choice or both bounds of a range;
    compute_on: device and precision.
    Opens cache, weights and teacher for real, so that weights are downloaded, read and fitted once up front.
    """
    from trial.device import choose_compute  # torch is imported only now: mistakes in flags show at once
    from trial.gpu import describe_gpus

    gpu, notes = describe_gpus(compute_on[0]), []
    problems = [gpu["problem"]] if gpu["problem"] else []
    if not problems:
        problems += _refusals(lambda: choose_compute(*compute_on, threads=0))
    for values in _combinations(searched):
        problems += _problems({**given, **values}, cache_folder, notes)
    problems, notes = ([*dict.fromkeys(lines)] for lines in (problems, notes))
    return {"fields": describe_fields(), "given": given, "gpu": gpu, "problems": problems, "notes": notes}


def _combinations(searched: dict[str, list]) -> Iterator[dict[str, Any]]:
    """All that the search space may choose of files; one empty choice where it chooses none."""
    names = [name for name in NEEDS_FILES if searched.get(name)]
    weight = {"distill_weight": max(searched["distill_weight"])} if searched.get("distill_weight") else {}
    for values in itertools.product(*(searched[name] for name in names)):
        yield {**weight, **dict(zip(names, values))}


def _problems(values: dict[str, Any], cache_folder: Path, notes: list[str]) -> list[str]:
    """notes: takes what was done to a weights file."""
    try:
        h = Hyperparameters().merged(values)
    except TrialError as error:
        return [str(error)]
    from trial.batches import require_a_batch
    from trial.model import build_model
    from trial.teacher import open_teacher

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


def _refusals(*looks: Callable[[], object]) -> list[str]:
    """What each of them refuses."""
    problems = []
    for look in looks:
        try:
            look()
        except TrialError as error:
            problems.append(str(error))
    return problems
