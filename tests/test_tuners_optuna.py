"""The tuner around Optuna's samplers and the Sobol design, in process: seeds, resumes, failures, pruned trials."""

from __future__ import annotations

import json
import math
import random
import sys

import nni
import numpy as np
import pytest
from conftest import ROOT
from scipy.stats import qmc
from test_tuners import BAD, DEFAULTS, REPORT, WIDE, Dispatcher, evolution, run, tpe, value_of

sys.path.append(str(ROOT / "experiments" / "tuners"))  # as NNI's dispatcher does

import first_trials
from optuna.trial import TrialState
from optuna_search import OptunaSearch

LOG = json.loads((ROOT / "search_spaces/log_scale.json").read_text())
SPACES = pytest.mark.parametrize("space", [LOG, WIDE], ids=["log", "wide"])
SAMPLERS = pytest.mark.parametrize("sampler", ["tpe", "gp"])


def search(space, *, mode="maximize", **arguments):
    tuner = OptunaSearch(mode, **{"seed": 0, "initial": 4} | arguments)
    tuner.update_search_space(space)
    return tuner


def states(tuner) -> list[TrialState]:
    return [trial.state for trial in tuner.study.trials]


def test_the_log_space_is_the_reports_but_for_the_scale_of_lr():
    assert REPORT | {"lr": {"_type": "loguniform", "_value": REPORT["lr"]["_value"]}} == LOG


@SPACES
@SAMPLERS
def test_same_seed_same_proposals_all_in_the_space(space, sampler):
    n = 6 if sampler == "gp" else 20
    once = run(search(space, sampler=sampler, seed=3), n)
    assert run(search(space, sampler=sampler, seed=3), n) == once
    assert run(search(space, sampler=sampler, seed=4), n)[4:] != once[4:]
    for parameters in once:
        first_trials.place(space, parameters)


@SAMPLERS
def test_a_resumed_experiment_proposes_what_the_whole_one_would_have(sampler):
    whole = run(search(LOG, sampler=sampler), 8)
    for done in (2, 6):
        tuner = search(LOG, sampler=sampler)
        tuner.import_data([{"parameter": p, "value": value_of(p)} for p in whole[:done]])
        callback = Dispatcher({}).callback
        again = []
        for number in range(done, 8):
            again += tuner.generate_multiple_parameters([number], st_callback=callback)
            tuner.receive_trial_result(number, again[-1], value_of(again[-1]))
        assert again == whole[done:]


def test_a_trial_that_runs_again_after_a_resume_is_known_as_running_and_then_by_its_result():
    whole = run(search(LOG), 6)
    tuner = search(LOG)
    tuner.import_data([{"parameter": p, "value": 0.5} for p in whole[:5]])
    tuner.generate_multiple_parameters([6], st_callback=Dispatcher({5: whole[5]}).callback)
    assert states(tuner) == [TrialState.COMPLETE] * 5 + [TrialState.RUNNING] * 2
    tuner.import_data([{"parameter": whole[5], "value": {"default": 0.7}}])
    assert states(tuner) == [TrialState.COMPLETE] * 6 + [TrialState.RUNNING] and tuner.study.best_value == 0.7


def test_it_finds_the_optimum_that_random_search_does_not():
    """On a bowl over lr and momentum, over 20 seeds: the median of its best of 15 is far closer than random search's."""

    def bowl(parameters):
        return -((math.log10(parameters["lr"]) + 2.2) ** 2) - (parameters["momentum"] - 0.7) ** 2

    def best_of(make, seed):
        tuner, values = make(seed), []
        for number in range(15):
            parameters = tuner.generate_multiple_parameters([number], st_callback=None)[0]
            values.append(bowl(parameters))
            tuner.receive_trial_result(number, parameters, values[-1])
        return max(values)

    def random_search(seed):
        tuner = first_trials.RandomTuner(seed=seed)
        tuner.update_search_space(LOG)
        return tuner

    ours = np.median([best_of(lambda seed: search(LOG, seed=seed, initial_seed=seed), seed) for seed in range(20)])
    theirs = np.median([best_of(random_search, seed) for seed in range(20)])
    assert ours > theirs / 2  # both are negative: at most half of the distance


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
def test_the_mode_is_optunas_direction(mode):
    tuner = search(LOG, mode=mode)
    run(tuner, 6)
    values = [trial.value for trial in tuner.study.trials]
    assert tuner.study.best_value == (max if mode == "maximize" else min)(values)


def test_failed_and_pruned_trials_are_told_as_such():
    tuner = search(LOG)
    for number, (value, success) in enumerate(
        [(0.5, True), (None, False), ({"default": 0.3, "interrupted": 1, "epochs_run": 2}, True), (float("nan"), True)]
    ):
        parameters = tuner.generate_multiple_parameters([number], st_callback=None)[0]
        if value is not None:
            tuner.receive_trial_result(number, parameters, value)
        tuner.trial_end(number, success)
    assert states(tuner) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL]
    assert tuner.study.trials[2].intermediate_values == {2: 0.3} and tuner.study.best_value == 0.5


def test_a_gaussian_process_learns_from_a_pruned_trial_what_it_reached():
    """Optuna's GPSampler reads complete trials alone."""
    tuner = search(LOG, sampler="gp")
    parameters = tuner.generate_multiple_parameters([0], st_callback=None)[0]
    tuner.receive_trial_result(0, parameters, {"default": 0.3, "interrupted": 1, "epochs_run": 2})
    assert states(tuner) == [TrialState.COMPLETE] and tuner.study.best_value == 0.3


@SPACES
@pytest.mark.parametrize("seed", range(8))
def test_no_order_of_events_kills_it(space, seed):
    dice, proposed = random.Random(seed), {}
    tuner = search(space, seed=seed, first=[] if space is WIDE else [DEFAULTS])
    for number in range(80):
        event, known = dice.random(), dice.choice([*proposed, None, 999])
        if event < 0.4:
            proposed[number] = tuner.generate_multiple_parameters([number], st_callback=None)[0]
        elif event < 0.65:
            tuner.receive_trial_result(known, proposed.get(known), dice.choice([0.5, dice.random(), *BAD]))
        elif event < 0.9:
            tuner.trial_end(known, dice.random() < 0.6)
        else:
            parameters = dice.choice([proposed.get(known), {}, None, DEFAULTS, {**DEFAULTS, "batch_size": 7}])
            tuner.import_data([{"parameter": parameters, "value": dice.choice([dice.random(), *BAD])}, {}])
    assert tuner.generate_multiple_parameters([1000], st_callback=None)


def test_a_result_after_its_end_counts():
    tuner = search(LOG)
    parameters = tuner.generate_multiple_parameters([0], st_callback=None)[0]
    tuner.trial_end(0, True)
    tuner.receive_trial_result(0, parameters, 0.5)
    assert states(tuner) == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_discrete_space_is_tried_without_repeats_and_then_ends():
    space = {"a": {"_type": "choice", "_value": ["x", "y", "z"]}, "b": {"_type": "randint", "_value": [0, 4]}}
    tuner = search(space)
    points = {json.dumps(parameters) for parameters in run(tuner, 12)}
    assert len(points) == 12
    with pytest.raises(nni.NoMoreTrialError):
        tuner.generate_parameters(12)


@pytest.mark.parametrize("make", [evolution, tpe, search])
def test_a_sobol_design_is_the_same_for_every_tuner_and_fills_each_axis_evenly(make):
    """Of 8 Sobol points each eighth of an axis holds one; that of SciPy's own points of this seed."""
    design = {"initial": 8, "initial_seed": 5, "initial_design": "sobol", "first": [DEFAULTS]}
    sizes = {"population_size": 9} if make is evolution else {}
    first, *points = run(make(LOG, **design, **sizes), 9)
    lr = [(math.log10(point["lr"]) + 4) / 3 for point in points]
    assert first == DEFAULTS and sorted(int(8 * unit) for unit in lr) == list(range(8))
    expected = qmc.Sobol(3, scramble=True, seed=np.random.default_rng(5)).random_base2(3)
    assert lr == pytest.approx(expected[:, 1])
    assert [point["batch_size"] for point in points] == [[8, 16, 32, 64, 128][int(5 * unit)] for unit in expected[:, 0]]


def test_a_design_has_no_point_twice_and_is_refused_where_the_space_has_too_few():
    small = {"d": {"_type": "randint", "_value": [0, 3]}}
    assert sorted(point["d"] for point in run(search(small, initial=3), 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="initial: 4 trials, but the search space has fewer"):
        search(small)
    assert all(first_trials.place(WIDE, point) for point in run(search(WIDE, initial=16), 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "cma"}, "sampler should be tpe or gp, found 'cma'"),
        ({"initial_design": "grid"}, "initial_design should be random or sobol, found 'grid'"),
        ({"seed": -1}, "seed should be a whole number from 0, found -1"),
        ({"first": [{**DEFAULTS, "lr": 0.5}]}, "first: lr: 0.5 is outside the search space"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, message):
    with pytest.raises(ValueError) as error:
        search(LOG, **arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_without_optuna_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "optuna_search")
    with pytest.raises(ModuleNotFoundError, match="pip install -r experiments/tuners/requirements.txt"):
        __import__("optuna_search")
    assert (ROOT / "experiments/tuners/requirements.txt").is_file()
