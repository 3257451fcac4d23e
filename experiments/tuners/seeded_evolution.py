"""NNI's Evolution with a seed and a memory, which a trial without a result cannot kill.

The algorithm is that of `nni/algorithms/hpo/evolution_tuner.py` (NNI 3.0), after Real et al. 2017
(https://arxiv.org/abs/1703.01041): hand out the unscored individuals of a random population; then shuffle, drop the worse
of the first two, and mutate one hyperparameter of the better; a failed trial makes room for a random individual. Restated,
because NNI's draws from two unseeded sources, forgets on a resume, and dies of results and ends that it does not expect.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
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
from nni.tuner import Tuner
from nni.utils import OptimizeMode, json2parameter, json2space, split_index

_logger = logging.getLogger("nni.tuner.seeded_evolution")
Parameters = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Individual:
    config: dict[str, Any] | None  # NNI's internal form, see first_trials.place; None: to be drawn
    result: float | None = None  # more is better; None until it has run


class SeededEvolution(Tuner):
    """`first`: known-good members of the population; `initial`: members after them, the same for every tuner of that
    `initial_seed` and `initial_design` (first_trials.make_design); the rest of the population is drawn from `seed`, as is everything else."""

    def __init__(
        self,
        optimize_mode: str,
        population_size: int = 32,
        seed: int | None = None,
        first: list[Parameters] | tuple = (),
        initial: int = 0,
        initial_seed: int = 0,
        initial_design: str = "random",
    ) -> None:
        super().__init__()
        self._sign = -1 if OptimizeMode(optimize_mode) is OptimizeMode.Minimize else 1
        self._seed = checked_seed(seed)
        self._first_trials = checked_first_trials(first, initial, initial_seed, initial_design)
        if isinstance(population_size, bool) or not isinstance(population_size, int) or population_size < 1:
            raise ValueError(f"population_size should be a whole number from 1, found {population_size!r}")
        if self._first_trials.size > population_size:
            raise ValueError(
                f"population_size: {population_size} has no room for {self._first_trials.size} first trials"
            )
        _logger.info("Using random seed %d", self._seed)
        self.population_size = population_size
        self.random = np.random.RandomState(self._seed)
        self.space: dict[str, Any] | None = None
        self.population: list[Individual] = []
        self.running: dict[int, Parameters] = {}  # parameter id -> proposed, neither result nor end so far
        self.ended: dict[int, Parameters] = {}  # ended without a result, which may still come: NNI has two threads
        self.vacant: dict[int, Individual] = {}  # the places of those whose random successors are not yet drawn
        self.rerun: list[Parameters] = []  # cut off in an earlier session; their results come as imported data
        self._known: list[tuple[Parameters, Any]] = []  # imported before the first proposal
        self._settled = False
        self._lock = threading.RLock()

    def update_search_space(self, space: dict[str, Any]) -> None:
        with self._lock:
            design = make_design(space, self._first_trials) if self.space is None else []
            self.space = space
            self.population = [Individual(place(space, parameters)) for parameters in design]
            self.vacant = {}
            self._fill(self.population_size)

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Parameters:
        wait_for_ends(kwargs)
        with self._lock:
            if not self._settled:
                self._settle(in_flight(kwargs))
            self._draw_successors()
            self.running[parameter_id] = split_index(self._next().config)
            return self.running[parameter_id]

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        with self._lock:
            waiting = self.running if parameter_id in self.running else self.ended
            scored = self._scored(waiting.get(parameter_id), value)
            if scored is None:
                _logger.warning("trial of parameters %s: result %r is not used", parameter_id, value)
                return
            del waiting[parameter_id]
            if parameter_id in self.vacant:
                self.population[self.population.index(self.vacant.pop(parameter_id))] = scored
                return
            if waiting is self.ended:  # a random individual is already in its place
                self._make_room()
            self.population.append(scored)

    def trial_end(self, parameter_id: int | None, success: bool, **kwargs: Any) -> None:
        """A trial that ends without a usable result, whatever its exit code, is replaced by a random individual.

        It is drawn with the next proposal: until then the result may come, and what the seed gives depends on neither.
        """
        with self._lock:
            if parameter_id in self.running:
                self.ended[parameter_id] = self.running.pop(parameter_id)
                self.vacant[parameter_id] = Individual(None)
                self.population.append(self.vacant[parameter_id])

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Earlier results: NNI sends them on a resume, later those of trials that it ran again, and a person's own."""
        with self._lock:
            for trial in data:
                result = (trial.get("parameter"), trial.get("value"))
                if self._settled:
                    self._learn(*result)
                else:
                    self._known.append(result)

    def _learn(self, parameters: Parameters, value: Any) -> None:
        scored, expected = self._scored(parameters, value), parameters in self.rerun
        if expected:
            self.rerun.remove(parameters)
            self.population.append(scored or self._random())
        elif scored is not None:
            self._make_room()
            self.population.append(scored)

    def _scored(self, parameters: Parameters | None, value: Any) -> Individual | None:
        reward = reward_of(value)
        try:
            return None if reward is None else Individual(place(self.space, parameters), self._sign * reward)
        except ValueError:  # unknown, added by a person outside the space, or the space has changed
            return None

    def _next(self) -> Individual:
        """NNI's `_generate_individual`. Where all are out, NNI's tuner dies; here a random one helps."""
        for position, individual in enumerate(self.population):
            if individual.result is None:
                return self.population.pop(position)
        if not self.population:
            return self._random()
        if len(self.population) > 1:
            self._drop_worse()
        return Individual(self._mutate(self.population[0].config))

    def _mutate(self, config: dict[str, Any]) -> dict[str, Any]:
        places = json2space(self.space, config)
        mutated = places[self.random.randint(len(places))]
        selection = {key: key == mutated for key in json2space(self.space)}
        return json2parameter(self.space, selection, self.random, config)

    def _random(self) -> Individual:
        return Individual(json2parameter(self.space, dict.fromkeys(json2space(self.space), True), self.random))

    def _draw_successors(self) -> None:
        for place_holder in self.vacant.values():
            self.population[self.population.index(place_holder)] = self._random()
        self.vacant = {}

    def _fill(self, size: int) -> None:
        while len(self.population) < size:
            self.population.append(self._random())

    def _settle(self, running: list[Parameters]) -> None:
        """Before the first proposal: rebuild what an earlier session left, from its results and the cut-off trials."""
        self._settled = True
        if not self._known and not running:
            return
        history = [parameters for parameters, _ in self._known] + running
        self.random = np.random.RandomState([self._seed, len(history)])  # else it would repeat its first draws
        initial = [split_index(individual.config) for individual in self.population]
        untried = self.population[resume_position(initial, history) :]
        self.population = []
        for scored in filter(None, (self._scored(*result) for result in self._known)):
            if len(self.population) >= self.population_size:
                self._make_room()
            self.population.append(scored)
        for parameters in running:
            if len(self.population) + len(self.rerun) >= self.population_size:
                self._make_room()
            self.rerun.append(parameters)
        vacant = max(0, self.population_size - len(self.population) - len(self.rerun))
        self.population += untried[:vacant]
        self._fill(self.population_size - len(self.rerun))
        _logger.info("population rebuilt from %d results, %d trials run again", len(self._known), len(running))

    def _make_room(self) -> None:
        """Drop an unscored individual, or else the worse of a random pair, as its proposal did."""
        self._draw_successors()
        unscored = [i for i, individual in enumerate(self.population) if individual.result is None]
        if unscored:
            del self.population[unscored[-1]]
        elif len(self.population) > 1:
            self._drop_worse()

    def _drop_worse(self) -> None:
        """Of a random pair; the better one is first in the population afterwards."""
        self.random.shuffle(self.population)
        del self.population[0 if self.population[0].result < self.population[1].result else 1]
