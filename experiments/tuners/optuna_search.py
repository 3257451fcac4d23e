"""NNI's tuner interface around Optuna's samplers: multivariate TPE, or a Gaussian process with expected improvement.

TPE: Falkner et al. 2018 (https://arxiv.org/abs/1807.01774), which models the hyperparameters jointly where NNI's TPE models
each alone. Gaussian process: https://optuna.readthedocs.io/en/stable/reference/samplers. The samplers are Optuna's own; what is
here is the translation: each entry of the search space is an axis from 0 to 1 on its own scale (first_trials.to_unit), and a
choice of numbers in order is a whole number, so that the sampler knows which options are neighbours.
"""

from __future__ import annotations

import logging
import threading
import warnings
from typing import Any

import numpy as np
from first_trials import (
    Parameters,
    checked_first_trials,
    checked_seed,
    from_unit,
    in_flight,
    make_design,
    place,
    resume_position,
    reward_of,
    to_unit,
    wait_for_ends,
)
from nni.common.hpo_utils import (
    Deduplicator,
    OptimizeMode,
    ParameterSpec,
    deformat_parameters,
    format_parameters,
    format_search_space,
)
from nni.tuner import Tuner

try:
    import optuna
    from optuna.trial import Trial, TrialState
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "optuna":
        raise
    raise ModuleNotFoundError(
        "Optuna is not installed here; install it with: python -m pip install -r experiments/tuners/requirements.txt",
        name="optuna",
    ) from None

_logger = logging.getLogger("nni.tuner.optuna_search")
SAMPLERS = ("tpe", "gp")


class OptunaSearch(Tuner):
    """`sampler`: "tpe" or "gp", which proposes after the first trials (first_trials.make_design): those of `first`, then
    `initial` ones.

    Each proposal has a generator of its own, of `seed` and the proposal's number, so that a resumed experiment proposes what
    the whole one would have. A trial that was ended early (`interrupted` in its result) is Optuna's PRUNED, one without a
    usable result FAIL.
    """

    def __init__(
        self,
        optimize_mode: str,
        sampler: str = "tpe",
        seed: int | None = None,
        first: list[Parameters] | tuple = (),
        initial: int = 5,
        initial_seed: int = 0,
        initial_design: str = "sobol",
    ) -> None:
        super().__init__()
        self._direction = f"{OptimizeMode(optimize_mode).value}"
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler should be {' or '.join(SAMPLERS)}, found {sampler!r}")
        self._sampler = sampler
        self._seed = checked_seed(seed)
        self._first_trials = checked_first_trials(first, initial, initial_seed, initial_design)
        _logger.info("Using random seed %d", self._seed)
        self._space: dict[str, Any] | None = None
        self._design: list[Parameters] = []
        self._known: list[tuple[Parameters, Any]] = []  # imported before the first proposal
        self._running: dict[int, Trial] = {}  # by parameter id
        self._ended: dict[int, Parameters] = {}  # ended without a result, which may still come: NNI has two threads
        self._rerun: list[tuple[Parameters, Trial]] = []  # cut off earlier; their results come as imported data
        self._tried = 0  # trials that NNI is known to have had
        self._settled = False
        self._lock = threading.RLock()  # NNI's dispatcher reports results and ends from two threads

    def update_search_space(self, space: dict[str, Any]) -> None:
        with self._lock:
            if self._space is None:
                self._design = make_design(space, self._first_trials)
            self._space, self._specs = space, format_search_space(space)
            self._without_repeats = Deduplicator(self._specs)
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self.study = optuna.create_study(direction=self._direction, sampler=optuna.samplers.RandomSampler(seed=0))

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Parameters:
        wait_for_ends(kwargs)
        with self._lock:
            if not self._settled:
                self._settle(in_flight(kwargs))
            number, self._tried = max(parameter_id, self._tried), self._tried + 1
            parameters = self._design.pop(0) if self._design else self._propose(number)
            self._running[parameter_id] = self._start(parameters)
            return parameters

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """The first usable result of a trial counts, also where its end has overtaken it."""
        with self._lock:
            if reward_of(value) is not None and parameter_id in self._running:
                self._tell(self._running.pop(parameter_id), value)
            elif reward_of(value) is not None and parameter_id in self._ended:
                self._tell(self._start(self._ended.pop(parameter_id)), value)
            else:
                _logger.warning("trial of parameters %s: result %r is not used", parameter_id, value)

    def trial_end(self, parameter_id: int | None, success: bool, **kwargs: Any) -> None:
        """A trial without a usable result has failed, whatever its exit code."""
        with self._lock:
            if parameter_id in self._running:
                trial = self._running.pop(parameter_id)
                self._ended[parameter_id] = trial.user_attrs["parameters"]
                self.study.tell(trial, state=TrialState.FAIL)

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Earlier results: NNI sends them on a resume, later those of trials that it ran again, and a person's own."""
        with self._lock:
            for entry in data:
                result = (entry.get("parameter"), entry.get("value"))
                if self._settled:
                    self._learn(*result)
                else:
                    self._known.append(result)

    def _settle(self, cut_off: list[Parameters]) -> None:
        """Before the first proposal: what an earlier session tried."""
        self._settled = True
        history = [parameters for parameters, _ in self._known] + cut_off
        self._design = self._design[resume_position(self._design, history) :]
        self._tried = len(history)
        for result in self._known:
            self._learn(*result)
        self._rerun = [(parameters, self._start(parameters)) for parameters in cut_off if self._is_point(parameters)]

    def _learn(self, parameters: Parameters, value: Any) -> None:
        """A result of no trial that this session proposed."""
        if reward_of(value) is None or not self._is_point(parameters):
            return
        again = next((entry for entry in self._rerun if entry[0] == parameters), None)
        if again is not None:
            self._rerun.remove(again)
        self._tell(again[1] if again else self._start(parameters), value)

    def _is_point(self, parameters: Any) -> bool:
        try:
            place(self._space, parameters)
        except ValueError as error:
            _logger.warning("an earlier trial is not used: %s", error)
            return False
        return True

    def _start(self, parameters: Parameters) -> Trial:
        """A running trial of these parameters."""
        formatted = format_parameters(parameters, self._specs)
        self._without_repeats.add_history(formatted)
        specs = {key: self._specs[key] for key in formatted}
        units = {key: n if specs[key].categorical else to_unit(specs[key], n) for key, n in formatted.items()}
        self.study.enqueue_trial({_name(specs[key]): unit for key, unit in units.items()})
        trial = self.study.ask()
        trial.set_user_attr("parameters", parameters)
        self._suggest(trial)
        return trial

    def _propose(self, number: int) -> Parameters:
        """The sampler's next point, or another where a discrete space has had that one. Raises NoMoreTrialError.

        Asked of a copy of the study: the point enters the study itself as the parameters say, which are all that a resumed
        experiment knows of it. Otherwise both would differ in a last digit, and a Gaussian process then in everything.
        """
        study = optuna.create_study(direction=self._direction, sampler=self._make_sampler(number))
        study.add_trials(self.study.get_trials(deepcopy=False))
        formatted = self._without_repeats(self._suggest(study.ask()))
        return deformat_parameters(formatted, self._specs)

    def _make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self._sampler == "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False)
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=1, multivariate=True, group=True, constant_liar=True
            )

    def _suggest(self, trial: Trial) -> dict[Any, Any]:
        """The trial's point in NNI's internal form; branches of a nested choice that are not taken are left out."""
        formatted: dict[Any, Any] = {}
        for key, spec in self._specs.items():
            if not spec.is_activated_in(formatted):
                continue
            if not spec.categorical:
                formatted[key] = from_unit(spec, trial.suggest_float(_name(spec), 0.0, 1.0))
            elif _is_ordered(spec):
                formatted[key] = trial.suggest_int(_name(spec), 0, spec.size - 1)
            else:
                formatted[key] = trial.suggest_categorical(_name(spec), range(spec.size))
        return formatted

    def _tell(self, trial: Trial, value: Any) -> None:
        """Optuna's Gaussian process uses complete trials alone: it gets a pruned one's best so far as its result, lest it
        propose that point again."""
        reward = reward_of(value)
        if isinstance(value, dict) and value.get("interrupted") and self._sampler != "gp":
            epochs = value.get("epochs_run")
            trial.report(reward, epochs if isinstance(epochs, int) and epochs >= 0 else 0)
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, reward)


def _name(spec: ParameterSpec) -> str:
    return "/".join(map(str, spec.key))


def _is_ordered(spec: ParameterSpec) -> bool:
    """Whether neighbouring options are alike: those of a randint, and of a choice of numbers in order."""
    options = spec.values
    if spec.type == "randint":
        return True
    numbers = all(isinstance(option, (int, float)) and not isinstance(option, bool) for option in options)
    return numbers and options in (sorted(options), sorted(options, reverse=True))
