"""NNI's own TPE with first trials of the experiment file's choosing, which a resume and a bad result leave unharmed.

Without `first` and `initial` a run proposes exactly what NNI's TPE of the same seed does
(`nni/algorithms/hpo/tpe_tuner.py` of NNI 3.0): the algorithm is its.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
from first_trials import (
    checked_first_trials,
    checked_seed,
    in_flight,
    make_design,
    place,
    resume_position,
    reward_of,
    wait_for_ends,
)
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.common.hpo_utils import OptimizeMode, format_parameters

_logger = logging.getLogger("nni.tuner.seeded_tpe")


class SeededTpe(TpeTuner):
    """`first`: trials to begin with; `initial`: trials after them, the same for every tuner of that `initial_seed` and
    `initial_design` (first_trials.make_design).

    Both count as start-up trials. NNI's TPE has two faults after a resume that are mended here: its generator starts
    again from the seed, so that it repeats its first random trials, and its liar has forgotten the best result.
    """

    def __init__(
        self,
        optimize_mode: str,
        seed: int | None = None,
        tpe_args: dict[str, Any] | None = None,
        first: list[dict[str, Any]] | tuple = (),
        initial: int = 0,
        initial_seed: int = 0,
        initial_design: str = "random",
    ) -> None:
        self._seed = checked_seed(seed)
        self._first_trials = checked_first_trials(first, initial, initial_seed, initial_design)
        super().__init__(optimize_mode, self._seed, tpe_args)
        self._design: list[dict[str, Any]] = []
        self._tried: list[dict[str, Any]] = []
        self._settled = False
        self._lock = threading.RLock()  # NNI's dispatcher reports results and ends from two threads

    def update_search_space(self, space: dict[str, Any]) -> None:
        if self.space is None:
            self._design = make_design(space, self._first_trials)
        self._json_space = space
        super().update_search_space(space)

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        wait_for_ends(kwargs)
        with self._lock:
            if not self._settled:
                self._settle(in_flight(kwargs))
            if not self._design:
                return super().generate_parameters(parameter_id, **kwargs)
            parameters = self._design.pop(0)
            formatted = format_parameters(parameters, self.space)
            self.dedup.add_history(formatted)
            self._params[parameter_id] = self._running_params[parameter_id] = formatted
            return parameters

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """The first finite result of a trial counts, also where its end has overtaken it; NNI's TPE dies of others."""
        with self._lock:
            reward = reward_of(value)
            if reward is None or parameter_id not in self._params:
                _logger.warning("trial of parameters %s: result %r is not used", parameter_id, value)
                return
            self._running_params[parameter_id] = self._params.pop(parameter_id)
            super().receive_trial_result(parameter_id, parameters, reward, **kwargs)

    def trial_end(self, parameter_id: int | None, success: bool, **kwargs: Any) -> None:
        with self._lock:
            super().trial_end(parameter_id, success, **kwargs)

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Earlier results, as NNI sends them on a resume; those without a finite number or outside the space are left."""
        with self._lock:
            results = []
            for trial in data:
                parameters, reward = trial.get("parameter"), reward_of(trial.get("value"))
                self._tried.append(parameters)
                try:
                    place(self._json_space, parameters)
                except ValueError as error:
                    _logger.warning("an imported result is not used: %s", error)
                    continue
                if reward is not None:
                    results.append({"parameter": parameters, "value": reward})
            super().import_data(results)
            if self.liar:
                for trial in results:
                    maximise = self.optimize_mode is OptimizeMode.Maximize
                    self.liar.update(-trial["value"] if maximise else trial["value"])

    def _settle(self, running: list[dict[str, Any]]) -> None:
        """Before the first proposal: continue where an earlier session stopped, with other draws."""
        self._settled = True
        history = self._tried + running
        if history:
            self._design = self._design[resume_position(self._design, history) :]
            self.rng = np.random.default_rng([self._seed, len(history)])
