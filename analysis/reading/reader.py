"""Reads one experiment from NNI's database, no server needed, finished or running."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import database, locate
from .records import ENDED, Experiment, Trial
from .replay import replay


def load_experiment(id_or_path: str | os.PathLike[str], finals_only: bool = False) -> Experiment:
    """Reads an experiment, finished or running, by id, folder or nni.sqlite file. Raises AnalysisError.

    With `finals_only` the trials have no intermediate results: much quicker, and enough for a list."""
    source = locate.source(id_or_path)
    with _no_collections():
        rows = database.read(source.database, finals_only)
        database.check_profile(rows.profile)
        trials, warnings = replay(rows, source.folder)
    profile, config = rows.profile, rows.profile["params"]
    return Experiment(
        id=str(profile["id"]),
        name=str(config.get("experimentName") or ""),
        state=_state(str(profile["id"]), source.folder, config.get("maxTrialNumber"), trials),
        folder=source.folder,
        config=config,
        started=profile["startTime"],
        trials=tuple(trials),
        warnings=tuple(warnings),
    )


@contextmanager
def _no_collections() -> Iterator[None]:
    """Python looks for cycles after every few hundred new objects, over and over; records have none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _state(experiment_id: str, folder: Path, max_trials: int | None, trials: list[Trial]) -> str:
    """A copy of a running experiment elsewhere does not run."""
    ended = sum(trial.state in ENDED for trial in trials)
    entry = locate.entry_of(experiment_id, folder)
    outstanding = ended < len(trials) or max_trials is None or ended < max_trials
    if entry and outstanding and entry.get("status") in locate.ACTIVE and locate.is_running(entry):
        return "RUNNING"
    return "DONE" if max_trials is not None and ended >= max_trials else "STOPPED"
