"""Start-up is counted as NNI's own tuner classes do it, not as their documentation says."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from dataclasses import dataclass

import pytest

from analysis.reading.startup import ALL, chosen, explain, startup_trials

SPACE = {
    "lr": {"_type": "uniform", "_value": [0.0, 1.0]},
    "momentum": {"_type": "choice", "_value": [0.1, 0.5, 0.9]},
}


@dataclass
class Run:
    """A trial as `chosen` reads it, with what the real tuner did (`guided`)."""

    proposed: int
    end: int | None = None
    result_time: int | None = None
    state: str = "RUNNING"
    session: int = 0
    last_session: int = 0
    customised: bool = False
    guided: bool = False
    final: float | None = None


@pytest.mark.parametrize(
    ("tuner", "arguments", "expected"),
    [
        ("TPE", {}, 20),
        ("tpe", {"tpe_args": {"n_startup_jobs": 5}}, 5),
        ("TPE", {"tpe_args": None}, 20),
        ("Evolution", None, 32),
        ("EVOLUTION", {"population_size": 100}, 100),
        ("Random", {}, ALL),
        ("GridSearch", {}, 0),
        ("BatchTuner", {}, 0),
        ("Anneal", {}, None),
        ("my_module.MyTuner", {"population_size": 3}, None),
    ],
)
def test_startup_trials(tuner, arguments, expected):
    assert startup_trials(tuner, arguments) == expected


def test_defaults_are_those_of_the_installed_nni():
    from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    assert startup_trials("TPE", {}) == TpeTuner().args.n_startup_jobs
    assert startup_trials("Evolution", {}) == EvolutionTuner().population_size


@pytest.mark.parametrize(
    ("tuner", "arguments", "trials", "expected"),
    [
        ("tpe", {}, 15, "0 of 15 trials are chosen by the tuner: TPE samples the first 20 at random"),
        ("TPE", {"tpe_args": {"n_startup_jobs": 5}}, 15,
         "10 of 15 trials are chosen by the tuner: TPE samples the first 5 at random"),
        ("Evolution", {"population_size": 100}, 15,
         "0 of 15 trials are chosen by the tuner: Evolution samples the first 100 at random"),
        ("Random", {}, 15, "0 of 15 trials are chosen by the tuner: Random never learns"),
    ],
)  # fmt: skip
def test_explain(tuner, arguments, trials, expected):
    assert explain(tuner, arguments, trials) == expected


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("liar", ["best", None])
def test_tpe_flags_equal_the_real_tuner(seed, liar, monkeypatch):
    from nni.algorithms.hpo import tpe_tuner

    guided = []
    for name in ("suggest_categorical", "suggest_normal"):
        original = getattr(tpe_tuner, name)
        monkeypatch.setattr(tpe_tuner, name, lambda *a, f=original: guided.append(1) or f(*a))
    arguments = {"tpe_args": {"n_startup_jobs": 6, "constant_liar_type": liar}, "seed": seed}
    tuner = tpe_tuner.TpeTuner("maximize", **arguments)
    tuner.update_search_space(SPACE)

    def propose(number):
        guided.clear()
        tuner.generate_parameters(number)
        return bool(guided)

    def end(number, succeeded):
        if succeeded:
            tuner.receive_trial_result(number, None, 0.5)
        tuner.trial_end(number, succeeded)

    runs = simulate(propose, end, random.Random(seed))
    assert chosen("TPE", arguments, runs) == [run.guided for run in runs]
    assert any(run.guided for run in runs)


@pytest.mark.parametrize("seed", range(12))
def test_evolution_flags_equal_the_real_tuner(seed):
    from nni.algorithms.hpo.evolution_tuner import EvolutionTuner

    tuner = EvolutionTuner("maximize", population_size=6)
    tuner.update_search_space(SPACE)

    def propose(number):
        guided = all(individual.result is not None for individual in tuner.population)
        tuner.generate_multiple_parameters([number], st_callback=None)
        return guided

    def end(number, succeeded):
        if succeeded:
            tuner.receive_trial_result(number, None, random.Random(number).random())
        tuner.trial_end(number, succeeded)

    runs = simulate(propose, end, random.Random(seed))
    assert chosen("Evolution", {"population_size": 6}, runs) == [run.guided for run in runs]
    assert any(run.guided for run in runs)


def simulate(propose, end, rng, total=24, concurrency=3):
    """Trials start and end in a random order; about a quarter fails."""
    runs, running, clock = [], [], 0
    while len(runs) < total:
        clock += 1
        if len(running) < concurrency and rng.random() < 0.5:
            runs.append(Run(proposed=clock, guided=propose(len(runs))))
            running.append(len(runs) - 1)
        elif running:
            number = running.pop(rng.randrange(len(running)))
            succeeded = rng.random() < 0.75
            end(number, succeeded)
            runs[number].end, runs[number].state = clock, "SUCCEEDED" if succeeded else "FAILED"
            runs[number].result_time = clock if succeeded else None
    return runs


def sequential(count, session=0, start=0):
    return [Run(start + n, start + n + 1, start + n + 1, "SUCCEEDED", session, session) for n in range(count)]


def test_a_resume_keeps_the_results_of_tpe_and_starts_evolution_anew():
    runs = sequential(4) + sequential(4, session=1, start=10)
    assert chosen("TPE", {"tpe_args": {"n_startup_jobs": 4}}, runs) == [False] * 4 + [True] * 4
    assert chosen("Evolution", {"population_size": 3}, runs) == [False] * 3 + [True] + [False] * 3 + [True]


def test_tpe_is_told_the_result_of_a_trial_rerun_after_a_crash_but_no_lie():
    from nni.algorithms.hpo import tpe_tuner

    runs = sequential(3) + sequential(4, session=1, start=10)
    runs[2].last_session, runs[2].end, runs[2].result_time = 1, 12, 12
    arguments = {"tpe_args": {"n_startup_jobs": 3}}
    assert chosen("TPE", arguments, runs) == [False] * 4 + [True] * 3
    runs[2].end = runs[2].result_time = 99
    assert chosen("TPE", arguments, runs) == [False] * 4 + [True] * 3
    runs[3].state, runs[3].result_time = "FAILED", None
    assert chosen("TPE", arguments, runs) == [False] * 5 + [True] * 2
    tuner = tpe_tuner.TpeTuner("maximize")  # the way by which such a result comes
    tuner.update_search_space(SPACE)
    tuner.import_data([{"parameter": {"lr": 0.5, "momentum": 0.5}, "value": 0.5}])
    assert len(tuner._history[("lr",)]) == 1


def test_trials_added_by_a_person_are_not_chosen_and_do_not_count():
    runs = sequential(5)
    runs[1].customised = runs[4].customised = True
    assert chosen("TPE", {"tpe_args": {"n_startup_jobs": 2}}, runs) == [False, False, False, True, False]
    assert chosen("Evolution", {"population_size": 2}, runs) == [False, False, False, True, False]


def test_random_grid_and_unknown_tuners():
    runs = sequential(3)
    assert chosen("Random", {}, runs) == [False] * 3
    assert chosen("GridSearch", {}, runs) == [True] * 3
    assert chosen("my.Tuner", {}, runs) is None
    assert startup_trials("random", {}) == math.inf


def test_importing_startup_stays_cheap():
    code = (
        "import sys, analysis, analysis.reading.startup, analysis.reading.locate;"
        "print({'pandas', 'plotly', 'numpy', 'nni'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
