"""Searches simulated on a surface: the tuners of experiment files, asked and given results as NNI does it, without trials.

Tuners and assessors are the classes that NNI would run, in this process. `_Nni` sends them what NNI's manager and dispatcher
send, in their order. Nothing here was run: every output says "simulated".
"""

from __future__ import annotations

import heapq
import inspect
import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from nni.assessor import AssessResult
from tqdm import tqdm

from benchmarks.answers import Answer, Answers
from experiments.algorithms import make_algorithm
from experiments.config import Experiment, Overrides, read_experiment
from experiments.findings import ExperimentError

_MOST_TRIALS = 10_000  # of a search by hours


@dataclass(frozen=True)
class Arm:
    """An experiment file, as it is replayed. `changes` are to its tuner's classArgs."""

    name: str
    experiment: Experiment
    concurrency: int
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def tuner(self) -> dict[str, Any]:
        tuner = self.experiment.config["tuner"]
        return {**tuner, "classArgs": {**(tuner.get("classArgs") or {}), **self.changes}}

    @cached_property
    def _makers(self) -> list[Callable[[int], Any] | None]:
        """Of the tuner and the assessor, each checked as NNI checks it. Raises whatever the classes do."""
        arguments = self.tuner["classArgs"]
        tuner = type(make_algorithm(self.tuner, "tuners"))
        seeds = {"seed", "initial_seed"} & inspect.signature(tuner).parameters.keys()
        assessor = self.experiment.config.get("assessor")
        kind = type(make_algorithm(assessor, "assessors")) if assessor else None
        return [
            lambda seed: tuner(**{**arguments, **dict.fromkeys(seeds, seed)}),
            (lambda seed: kind(**(assessor.get("classArgs") or {}))) if kind else None,
        ]

    def make(self, seed: int) -> tuple[Any, Any]:
        """A new tuner, of that seed, and a new assessor or None. `initial_seed` is varied too: repeats share no trials."""
        tuner, assessor = self._makers
        with _seeded(seed):
            made = tuner(seed)
            made.update_search_space(self.experiment.config["searchSpace"])
        return made, assessor and assessor(seed)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """NNI's Evolution draws from two generators that nobody can seed: its own RandomState() and Python's."""
    random.seed(seed)
    numpy = SimpleNamespace(random=SimpleNamespace(RandomState=lambda: np.random.RandomState(seed)))
    with mock.patch("nni.algorithms.hpo.evolution_tuner.np", numpy):
        yield


@dataclass(frozen=True)
class Budget:
    trials: int | None = 15
    hours: float | None = None

    @property
    def most(self) -> int:
        return self.trials or _MOST_TRIALS

    @property
    def seconds(self) -> float:
        return math.inf if self.hours is None else 3600 * self.hours


@dataclass(frozen=True)
class Trace:
    """The trials of one simulated search in the order in which they ended; an entry per trial."""

    seed: int
    measured: list[float]  # validation accuracy that the trial reported last
    truth: list[float]  # its expectation at that point
    evaluation: list[float]
    ended_s: list[float]
    epochs: list[int]
    pruned: list[bool]


class ReplayError(Exception):
    """A tuner or an assessor failed, with the seed that repeats it."""


@dataclass
class _Running:
    number: int
    parameters: dict[str, Any]
    answer: Answer
    started_s: float
    epoch: int = 0


class _Nni:
    """NNI's manager and dispatcher for one search: what they send to tuner and assessor, in their order."""

    def __init__(self, arm: Arm, answers: Answers, budget: Budget, seed: int, noise: np.random.Generator) -> None:
        self._arm, self._answers, self._budget, self._noise = arm, answers, budget, noise
        self._tuner, self._assessor = arm.make(seed)
        self._now, self._asked, self._order = 0.0, 0, 0
        self._events: list[tuple[float, int, _Running]] = []
        self.trace = Trace(seed, [], [], [], [], [], [])

    def run(self) -> Trace:
        self._ask(min(self._arm.concurrency, self._budget.most))
        while self._events and len(self.trace.measured) < self._budget.most:
            self._now, _, trial = heapq.heappop(self._events)
            if self._now > self._budget.seconds:
                break
            self._advance(trial)
        return self.trace

    def send_trial(self, number: int, parameters: dict[str, Any]) -> None:
        """NNI's callback, for tuners that send a trial later than it was requested."""
        self._start(number, parameters)

    def _ask(self, count: int) -> None:
        numbers = list(range(self._asked, self._asked + count))
        self._asked += count
        for number, parameters in zip(
            numbers, self._tuner.generate_multiple_parameters(numbers, st_callback=self.send_trial)
        ):
            self._start(number, parameters)

    def _start(self, number: int, parameters: dict[str, Any]) -> None:
        trial = _Running(number, parameters, self._answers.answer(parameters, self._noise), self._now)
        if self._assessor and trial.answer.curve:
            self._push(self._now + trial.answer.before_s + trial.answer.epoch_s, trial)
        else:
            trial.epoch = len(trial.answer.curve)
            self._push(self._now + self._whole_s(trial.answer), trial)

    @staticmethod
    def _whole_s(answer: Answer) -> float:
        return answer.before_s + len(answer.curve) * answer.epoch_s + answer.after_s

    def _push(self, at: float, trial: _Running) -> None:
        self._order += 1
        heapq.heappush(self._events, (at, self._order, trial))

    def _advance(self, trial: _Running) -> None:
        """The end of the trial, or of an epoch that an assessor judges."""
        answer = trial.answer
        if trial.epoch >= len(answer.curve):
            self._end(trial, answer.final, is_pruned=False)
            return
        trial.epoch += 1
        history = [{"default": accuracy} for accuracy in answer.curve[: trial.epoch]]
        judged = self._assessor.assess_trial(f"trial{trial.number}", history)
        if judged is AssessResult.Bad or judged is False:
            self._end(trial, max(answer.curve[: trial.epoch]), is_pruned=True)
        else:
            is_last = trial.epoch == len(answer.curve)
            self._push(self._now + (answer.after_s if is_last else answer.epoch_s), trial)

    def _end(self, trial: _Running, value: float, is_pruned: bool) -> None:
        answer, trace = trial.answer, self.trace
        trace.measured.append(value)
        trace.truth.append(answer.truth)
        trace.evaluation.append(answer.evaluation)
        trace.ended_s.append(self._now)
        trace.epochs.append(trial.epoch)
        trace.pruned.append(is_pruned)
        final = {"default": value, "epochs_run": trial.epoch, "interrupted": int(is_pruned)}
        self._tuner.receive_trial_result(trial.number, trial.parameters, final)
        if self._assessor and answer.curve:
            self._assessor.trial_end(f"trial{trial.number}", True)
        self._tuner.trial_end(trial.number, True)
        if self._asked < self._budget.most:
            self._ask(1)


@dataclass(frozen=True)
class Replayed:
    """All repeats of an arm; `failures` are (seed, what the tuner or assessor raised)."""

    arm: Arm
    traces: list[Trace]
    failures: list[tuple[int, str]]


def replay(arm: Arm, answers: Answers, budget: Budget, repeats: int, first_seed: int = 0) -> Replayed:
    """The searches of seeds first_seed, first_seed + 1, ... Raises ReplayError where none of them ends.

    The noise of the trainings is drawn from the arm's name too: arms are independent samples.
    """
    traces, failures, own = [], [], list(arm.name.encode())
    seeds = range(first_seed, first_seed + repeats)
    for seed in tqdm(seeds, desc=arm.name, unit=" searches", leave=False, disable=None):
        try:
            traces.append(_Nni(arm, answers, budget, seed, np.random.default_rng([seed, *own])).run())
        except Exception as error:  # noqa: BLE001  a tuner may raise anything
            failures.append((seed, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"))
    if not traces:
        seed, reason = failures[0]
        raise ReplayError(f"{arm.name}: every repeat failed, the first with seed {seed}: {reason}")
    return Replayed(arm, traces, failures)


def read_arm(file: Path, answers: Answers, concurrency: int | None = None) -> Arm:
    """Raises ExperimentError or SurfaceError where the file is none, or searches what the surface does not have."""
    experiment = read_experiment(file, Overrides())
    if not experiment.config.get("tuner"):
        raise ExperimentError(f"{file}: names no tuner; expected one, as in experiments/tpe.yml")
    answers.check_space(experiment.config["searchSpace"], file)
    arm = Arm(file.stem, experiment, concurrency or experiment.config["trialConcurrency"])
    try:
        arm.make(0)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReplayError(f"{file}: its tuner or assessor cannot be made: {reason}") from error
    return arm


def variants(arm: Arm) -> list[Arm]:
    """The arm with other numbers of start-up trials, of its population, and of trials at once."""
    arguments, name = arm.tuner["classArgs"], arm.experiment.tuner[0].lower()
    changed = []
    if "tpe" in name:
        other = arguments.get("tpe_args") or {}
        changed = [("start-up trials", n, {"tpe_args": {**other, "n_startup_jobs": n}}) for n in (3, 5, 10, 20)]
    elif "evolution" in name:
        changed = [("population", n, {"population_size": n}) for n in (5, 10, 20, 100)]
    elif "initial" in arguments:
        changed = [("initial", n, {"initial": n}) for n in (2, 4, 6, 9)]
    arms = [replace(arm, name=f"{arm.name}, {what} {n}", changes={**arm.changes, **c}) for what, n, c in changed]
    return arms + [replace(arm, name=f"{arm.name}, {n} at once", concurrency=n) for n in (1, 2, 4)]


def quiet() -> None:
    """NNI and the tuners log each tuner that is made."""
    logging.disable(logging.WARNING)
