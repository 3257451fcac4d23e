"""Experiments and trials as immutable records: the contract of everything else in `analysis`.

An accuracy (or any other score) is the number that the trial reported; times are milliseconds since 1970
as NNI writes them, durations seconds. `reader` fills them. How a training was made is in the trial's own result.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from . import startup
from .values import load_json, score

PRUNED = "EARLY_STOPPED"  # NNI's word for a trial that the assessor ended; it has the result of its best epoch so far
ENDED = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", PRUNED)


class Intermediate(NamedTuple):
    """One intermediate result: NNI's position (from 0), arrival (ms), the value as reported."""

    sequence: int
    time: int
    value: Any


@dataclass(frozen=True)
class Trial:
    """One training, rebuilt from the event and metric rows.

    `sequence` is NNI's trial number, which can repeat after `nnictl resume`; only `trial_id` is unique.
    `parameters` are those the trial really ran with, `recorded` those NNI shows for it; where they come
    from different proposals, `parameters_mismatch` is set. `parameters_source` is "metric" (by the
    parameter id of the trial's own results), "file" (the trial's hyperparameters.json) or "event" (only
    NNI's record; may be wrong).
    """

    trial_id: str
    sequence: int | None
    state: str  # NNI's word: WAITING, RUNNING, SUCCEEDED, FAILED, USER_CANCELED, EARLY_STOPPED, ...
    proposed: int  # ms, when of NNI's request to the tuner; before its start, as NNI keeps a queue
    start: int | None  # ms, last RUNNING event
    end: int | None  # ms, end of the last attempt; None while running or where the manager died first
    parameters: dict[str, Any]
    recorded: dict[str, Any]
    proposed_for: str  # trial id that the parameters were meant for; "" where not known
    parameters_source: str
    parameters_mismatch: bool
    effective: dict[str, Any]  # what the trial says it used, defaults and fixed settings included; may be empty
    intermediates: tuple[Intermediate, ...]  # of the last attempt, by position
    final: Any  # first final result, also of a failed trial; None where there is none
    result_time: int | None  # ms, arrival of `final`
    session: int  # of its proposal: 0, one more after each resume
    last_session: int  # in which it last ran: another one for a trial rerun after a crash
    attempts: int  # RUNNING events: 2 or more for a trial rerun after a crash
    customised: bool  # added by a person
    folder: Path | None  # its output folder on this machine
    warnings: tuple[str, ...]
    message: str = ""  # why NNI's manager calls it failed, where it says so
    cancel_asked: bool = False  # a person asked NNI to end it, on the web page or with nnictl

    @property
    def score(self) -> float | None:
        """The final number that may be ranked: finite, and of a trial that succeeded or was pruned. NNI hides final
        results of failed and cancelled trials, and the weights of such a trial cannot be trusted."""
        return score(self.final) if self.state in ("SUCCEEDED", PRUNED) else None

    @property
    def has_failed(self) -> bool:
        """Whether it ended, and neither succeeded nor was pruned: failed or cancelled."""
        return self.state in ENDED and self.state not in ("SUCCEEDED", PRUNED)

    @property
    def status(self) -> str:
        """The state in words; of a trial that the assessor ended, "pruned after epoch 2"."""
        if self.state != PRUNED:
            return self.state.lower().replace("_", " ")
        epochs = self.final.get("epochs_run") if isinstance(self.final, dict) else None
        return f"pruned after epoch {epochs if isinstance(epochs, int) else len(self.intermediates)}"

    @property
    def duration_s(self) -> float | None:
        return None if self.start is None or self.end is None else (self.end - self.start) / 1000


@dataclass(frozen=True)
class Experiment:
    """One run of one tuner. `config` is NNI's canonical copy of the experiment file."""

    id: str
    name: str
    state: str  # RUNNING: manager alive, trials to come; DONE: all maxTrialNumber ended; else STOPPED
    folder: Path
    config: dict[str, Any]
    started: int | None  # ms
    trials: tuple[Trial, ...]  # in the order in which they were proposed
    warnings: tuple[str, ...]

    @property
    def tuner(self) -> str:
        tuner = self.config.get("tuner") or self.config.get("advisor") or {}
        return str(tuner.get("name") or tuner.get("className") or "none")

    @property
    def class_args(self) -> dict[str, Any]:
        """The tuner's arguments."""
        return (self.config.get("tuner") or self.config.get("advisor") or {}).get("classArgs") or {}

    @property
    def optimise_mode(self) -> str:
        """ "maximize" or "minimize"; NNI's TPE minimises by default, all others maximise."""
        default = "minimize" if startup.label(self.tuner) == "TPE" else "maximize"
        return str(self.class_args.get("optimize_mode") or default)

    @property
    def max_trials(self) -> int | None:
        return self.config.get("maxTrialNumber")

    @cached_property
    def best(self) -> Trial | None:
        """The trial of the best score, the earliest among equals; None where no trial has a score."""
        scored = [trial for trial in self.trials if trial.score is not None]
        sign = 1 if self.optimise_mode == "maximize" else -1
        return max(scored, key=lambda trial: sign * trial.score, default=None)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Trials by state; the five numbers add up to all trials. "pruned" ones were ended by the assessor;
        "running" has no end on record: it runs, waits, or was cut off when the manager died."""
        names = {"SUCCEEDED": "succeeded", "FAILED": "failed", PRUNED: "pruned"}
        counts = dict.fromkeys(("succeeded", "failed", "cancelled", "running", "pruned"), 0)
        for trial in self.trials:
            counts[names.get(trial.state, "cancelled" if trial.state in ENDED else "running")] += 1
        return counts

    @cached_property
    def chosen(self) -> list[bool] | None:
        """For each trial whether the tuner chose the hyperparameters that it ran with.

        None where the tuner is not known."""
        flags = startup.chosen(self.tuner, self.class_args, self.trials)
        if flags is None:
            return None
        proposals = {trial.trial_id: flag for trial, flag in zip(self.trials, flags, strict=True)}
        return [proposals.get(trial.proposed_for, proposals[trial.trial_id]) for trial in self.trials]

    @property
    def design(self) -> startup.Design:
        """The first trials that the experiment file sets."""
        return startup.design(self.tuner, self.class_args)

    def was_given(self, trial: Trial) -> bool:
        """Whether the experiment file names these hyperparameters: neither sampled at random nor the tuner's choice."""
        return trial.parameters in self.design.given

    @property
    def trial_seconds(self) -> float:
        """Sum of the durations of all ended trials, failed ones too."""
        return round(sum(trial.duration_s or 0.0 for trial in self.trials), 3)

    @property
    def wall_seconds(self) -> float:
        """From the first trial's start to the last trial's end, pauses before a resume left out."""
        spans: dict[int, list[int]] = {}
        for trial in self.trials:
            begin = trial.start or trial.proposed
            spans.setdefault(trial.last_session, []).extend((begin, trial.end or begin))
        return round(sum(max(times) - min(times) for times in spans.values()) / 1000, 3)


def arm_names(experiments: list[Experiment]) -> list[str]:
    """A short name for each experiment, unlike all others: its name, or name and id, or its id."""
    names = [experiment.name or experiment.id for experiment in experiments]
    return [
        f"{name} ({experiment.id})" if names.count(name) > 1 else name
        for name, experiment in zip(names, experiments, strict=True)
    ]


def is_percent(experiments: list[Experiment]) -> bool:
    """Only a score that comes with the number of images behind it is known to be an accuracy."""
    bests = [experiment.best for experiment in experiments]
    return any(bests) and all(validation_n(best) is not None for best in bests if best)


def validation_n(trial: Trial) -> int | None:
    """Images behind the validation accuracy, where the trial reports it as `validation_n`."""
    n = trial.final.get("validation_n") if isinstance(trial.final, dict) else None
    plausible = isinstance(n, (int, float)) and 1 <= n < 2**53 and trial.score is not None and 0 <= trial.score <= 1
    return int(n) if plausible else None


MADE = (
    "compute",
    "versions",
    "revision",
    "source_digest",
    "generated",
    "photos_in_two_splits",
    "hyperparameters",
    "classes",
)
"""What is kept of a training's result.json: machine, versions, commit, digest of the photos, which generator made them (None
for photos, and where it is not recorded), how many photos two splits have in common, all that it used, classes."""


def best_result(best: Trial | None) -> dict[str, Any]:
    """The trial's result.json, an extra of our own trial: all else comes from the database; empty where there is none."""
    if best is None or best.folder is None:
        return {}
    try:
        result = load_json((best.folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def made_of(result: dict[str, Any]) -> dict[str, Any]:
    """What a training's result.json says about its making, None where it does not: MADE, `cache` (the folder's name), and
    `images`, the numbers of training, validation and evaluation images."""
    splits = [result.get(split) for split in ("training", "validation", "evaluation")]
    return {
        **{key: result.get(key) for key in MADE},
        "cache": PurePath(str(result["cache"])).name if result.get("cache") else None,
        "images": [split.get("n") if isinstance(split, dict) else None for split in splits],
    }


def shared_photos(result: dict[str, Any]) -> list[str]:
    """From a training's result.json: what its accuracies are worth where splits have photos in common."""
    counts = result.get("photos_in_two_splits")
    notes = []
    for pair, n in counts.items() if isinstance(counts, dict) else ():
        one, _, other = str(pair).partition("/")
        photos = "1 photo is" if n == 1 else f"{n} photos are"
        notes.append(f"{photos} in both {one} and {other}: the {other} accuracy is too optimistic")
    return notes
