"""Train what is missing of configurations × seeds: of a confirmation, or of a part of a study.

Every run of the same command continues from what NNI's databases hold: it returns to an experiment that is running, or starts
one NNI experiment with the cells that are missing, until none is. NNI's Batch tuner hands out a list in its order, each entry
once, whatever an earlier experiment of the same grid had tried.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni.experiment.config.utils import parse_time

from analysis.reading.locate import is_running, registry
from analysis.reading.records import Experiment as Record
from analysis.reading.replication import Cell, Grid, cells_of, known_ids, load_readable
from analysis.stats.blocked import detectable
from experiments.check import check
from experiments.config import Experiment
from experiments.findings import LEVELS, ExperimentError, format_finding, has_error
from experiments.launch import watch_running
from experiments.nni import end_orphans, forget_dead, start
from experiments.watch import WatchSettings, print_interrupted, watch_to_end

DAY_S = 24 * 3600


@dataclass(frozen=True)
class Status:
    """The cells of a grid, with those of its NNI experiments that can be read, oldest first. `alive` are the ids of all whose
    manager is alive, also where it only keeps its page up; not one that a person looks at with `nnictl view`."""

    cells: list[Cell]
    records: list[Record]
    alive: list[str]

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The parameters of the cells that are to be trained."""
        return [{**c.configuration.parameters, "seed": c.seed} for c in self.cells if c.state == "missing"]

    @property
    def ended(self) -> str:
        return f"{len(self.cells) - len(self.missing)} of {len(self.cells)} trainings have ended"


def status_of(grid: Grid, folder: Path | None = None) -> Status:
    """By the experiments that NNI's registry or `folder` knows; those that cannot be read (deleted, or only just started) are
    printed."""
    ids = known_ids(grid, folder)
    records = load_readable(ids, lambda error: print(f"note: {error}", file=sys.stderr))
    entries = {i: entry for i, entry in registry().items() if i in ids and entry.get("status") != "VIEWED"}
    return Status(cells_of(grid, records), records, [i for i in ids if i in entries and is_running(entries[i])])


def replicate(
    grid: Grid, prepare: Callable[[Status], Experiment], settings: WatchSettings, folder: Path | None = None
) -> int:
    """Returns the exit code: 0 where no training is missing any more, 130 after Ctrl-C, which leaves the experiment running.

    `prepare` makes the checked experiment of the missing cells, `folder` is as `status_of` takes it. Raises ExperimentError."""
    now, watched = status_of(grid, folder), set()
    while True:
        to_watch = [experiment_id for experiment_id in now.alive if experiment_id not in watched]
        if not to_watch and not now.missing:
            return 0
        before = now
        code = watch_running(to_watch, settings) if to_watch else _start(prepare(now), now, settings)
        now = status_of(grid, folder)
        watched.update(now.alive)
        if code == 130:
            return code
        stuck = not to_watch and len(now.missing) >= len(before.missing)
        if now.missing and (code or stuck):
            return code or 1


def _start(experiment: Experiment, status: Status, settings: WatchSettings) -> int:
    """Start it and watch it to its end. Returns the exit code."""
    if status.records:
        print(f"{experiment.name}: {status.ended}; training the other {len(status.missing)}", file=sys.stderr)
    for record in status.records:
        if record.id not in status.alive and (ended := end_orphans(record.id, record.folder)):
            print(f"{record.name}: stopped what an earlier session had left running: {ended}", file=sys.stderr)
    forget_dead()
    try:
        return watch_to_end([start(experiment)], settings)
    except KeyboardInterrupt:
        print_interrupted([])
        return 130


def power_text(seeds: int, arms: int, families: int = 1) -> str:
    """Which difference `seeds` can show of `arms` beside the reference, for who is about to train them."""
    in_sd = detectable(seeds, arms, families)
    if in_sd is None:
        return f"{seeds} seeds can show no difference, however large: their spread is too uncertain; take 4 or more"
    return (
        f"{seeds} seeds show a true difference of {in_sd:.1f} points in 80 % of cases if accuracy varies by 1 point (SD) between "
        f"seeds, of {3 * in_sd:.1f} points if by 3; smaller ones are mostly missed"
    )


def checked(
    experiment: Experiment, levels: Sequence[str] = LEVELS, hint: Callable[[str], str] = lambda errors: ""
) -> Experiment:
    """The same experiment, after printing the findings of `check` of these levels.

    Raises ExperimentError where an error stops it, with the hint that belongs to the errors' text."""
    findings = check(experiment)
    for finding in findings:
        if finding.level in levels:
            print(format_finding(finding, experiment.name), file=sys.stderr)
    if has_error(findings):
        errors = "\n".join(finding.text for finding in findings if finding.level == "error")
        raise ExperimentError(f"{experiment.name}: nothing was started{hint(errors)}")
    return experiment


def batch_settings(grid: Grid, cells: Sequence[dict[str, Any]], trial_limit: str | int | None) -> dict[str, Any]:
    """NNI's settings for training these cells; `trial_limit` is the maxTrialDuration, a day where there is none."""
    limit_s = parse_time(trial_limit) if trial_limit else DAY_S
    return {
        "experimentName": grid.experiment,
        "searchSpace": {"combine_params": {"_type": "choice", "_value": list(cells)}},
        "maxTrialNumber": len(cells),
        "maxExperimentDuration": f"{len(cells) * limit_s}s",
        "tuner": {"name": "Batch"},
    }
