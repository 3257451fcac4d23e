"""NNI's assessor by asynchronous successive halving (ASHA), Li et al. 2020, https://arxiv.org/abs/1810.05934.

Rungs are after min_epochs, min_epochs * reduction_factor, min_epochs * reduction_factor^2, ... epochs. A trial that reaches a
rung continues if its best epoch so far is among the best 1/reduction_factor of all that have reached that rung, and is stopped
otherwise. NNI can stop a trial, not pause it: this is the paper's rule without later promotions, as in Ray Tune and Optuna
(SuccessiveHalvingPruner), and a stopped trial does not come back when others turn out worse.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from first_trials import reward_of
from nni.assessor import Assessor, AssessResult
from nni.utils import OptimizeMode

_logger = logging.getLogger("nni.assessor.asha")
RECORD = "asha.jsonl"  # in the experiment's checkpoint folder: a Decision a line


@dataclass(frozen=True)
class Decision:
    """What happened to one trial at one rung. `best`: of its epochs so far; None where none was a finite number."""

    trial: str
    rung: int  # from 0
    epoch: int
    best: float | None
    n: int  # trials that had reached the rung, this one among them
    threshold: float | None  # the worst that continues; None where too few trials have reached the rung
    is_pruned: bool


class Asha(Assessor):
    """`min_trials`: so many must have reached a rung before it stops any; by default `reduction_factor`, as before that no
    trial is among the best 1/reduction_factor."""

    def __init__(
        self,
        optimize_mode: str,
        min_epochs: int = 1,
        reduction_factor: int = 3,
        min_trials: int | None = None,
    ) -> None:
        super().__init__()
        self._sign = -1 if OptimizeMode(optimize_mode) is OptimizeMode.Minimize else 1
        min_trials = reduction_factor if min_trials is None else min_trials
        for name, value, least in (
            ("min_epochs", min_epochs, 1),
            ("reduction_factor", reduction_factor, 2),
            ("min_trials", min_trials, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} should be a whole number from {least}, found {value!r}")
        self._min_epochs, self._factor, self._min_trials = min_epochs, reduction_factor, min_trials
        self._rungs: dict[int, dict[str, float | None]] = {}  # rung -> trial -> its best so far there
        self._pruned: set[str] = set()

    def assess_trial(self, trial_job_id: str, trial_history: list[Any]) -> AssessResult:
        rung = 0
        while (epoch := self._min_epochs * self._factor**rung) <= len(trial_history):
            if trial_job_id not in self._rungs.setdefault(rung, {}) and trial_job_id not in self._pruned:
                self._write(self._decide(trial_job_id, rung, epoch, trial_history[:epoch]))
            rung += 1
        return AssessResult.Bad if trial_job_id in self._pruned else AssessResult.Good

    def load_checkpoint(self) -> None:
        """NNI calls it on a resume: the rungs as an earlier session left them."""
        folder = self.get_checkpoint_path()
        if folder and (file := Path(folder, RECORD)).is_file():
            for line in file.read_text("utf-8").splitlines():
                try:
                    decision = Decision(**json.loads(line))
                except (ValueError, TypeError):  # the torn last line of a session that was killed
                    continue
                self._enter(decision)

    def _decide(self, trial: str, rung: int, epoch: int, history: list[Any]) -> Decision:
        results = [reward for reward in map(reward_of, history) if reward is not None]
        best = max(results, key=lambda result: self._sign * result, default=None)
        peers = [*self._rungs[rung].values(), best]
        threshold, is_pruned = None, False
        if len(peers) >= self._min_trials:
            ranked = sorted((self._rank(peer) for peer in peers), reverse=True)
            worst = ranked[max(1, len(ranked) // self._factor) - 1]
            threshold, is_pruned = self._sign * worst, best is None or self._rank(best) < worst
        threshold = None if threshold in (float("inf"), float("-inf")) else threshold
        decision = Decision(trial, rung, epoch, best, len(peers), threshold, is_pruned)
        self._enter(decision)
        return decision

    def _rank(self, result: float | None) -> float:
        return float("-inf") if result is None else self._sign * result

    def _enter(self, decision: Decision) -> None:
        self._rungs.setdefault(decision.rung, {})[decision.trial] = decision.best
        if decision.is_pruned:
            self._pruned.add(decision.trial)

    def _write(self, decision: Decision) -> None:
        _logger.info("%s", decision)
        if folder := self.get_checkpoint_path():
            with Path(folder, RECORD).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(decision)) + "\n")
