"""The seeded tuners against NNI's own: the same algorithms step by step, and alive where NNI's die."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter

import numpy as np
import pytest
import yaml
from conftest import ROOT
from nni.algorithms.hpo import evolution_tuner
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.utils import json2parameter, json2space, split_index

sys.path.append(str(ROOT / "experiments" / "tuners"))  # as NNI's dispatcher does

import first_trials
from seeded_evolution import Individual, SeededEvolution
from seeded_tpe import SeededTpe

REPORT = json.loads((ROOT / "search_spaces/report.json").read_text())
WIDE = {
    "a": {"_type": "uniform", "_value": [0.0, 1.0]},
    "b": {"_type": "loguniform", "_value": [0.0001, 0.1]},
    "c": {"_type": "quniform", "_value": [2, 9, 2]},
    "d": {"_type": "randint", "_value": [0, 7]},
    "e": {"_type": "lognormal", "_value": [0, 1]},
    "f": {"_type": "choice", "_value": [{"_name": "p", "x": {"_type": "qnormal", "_value": [0, 1, 0.5]}}, {"_name": "q"}]},
    "g": {"_type": "choice", "_value": ["one", "two", 3]},
}  # fmt: skip
SPACES = pytest.mark.parametrize("space", [REPORT, WIDE], ids=["report", "wide"])
DEFAULTS = {"batch_size": 32, "lr": 0.001, "momentum": 0.9}


def evolution(space, *, mode="maximize", **arguments):
    tuner = SeededEvolution(mode, **{"population_size": 5, "seed": 0} | arguments)
    tuner.update_search_space(space)
    return tuner


def tpe(space, *, mode="maximize", startup=5, **arguments):
    tuner = SeededTpe(mode, **{"seed": 0, "tpe_args": {"n_startup_jobs": startup}} | arguments)
    tuner.update_search_space(space)
    return tuner


def value_of(parameters) -> float:
    """A result that depends on the parameters alone, in 0..1."""
    return random.Random(json.dumps(parameters, sort_keys=True, default=float)).random()


def run(tuner, trials, start=0):
    """`trials` trials one after another; their parameters."""
    proposals = []
    for number in range(start, start + trials):
        proposals += tuner.generate_multiple_parameters([number], st_callback=None)
        tuner.receive_trial_result(number, proposals[-1], value_of(proposals[-1]))
        tuner.trial_end(number, True)
    return proposals


class OneSource:
    """Python's `random`, as NNI's Evolution calls it, on the tuner's own generator."""

    def __init__(self, state):
        self.shuffle = state.shuffle
        self.randint = lambda low, high: state.randint(low, high + 1)


def nnis_evolution(space, seed, monkeypatch, mode="maximize"):
    """NNI's class, untouched but for where its random numbers come from."""
    tuner = evolution_tuner.EvolutionTuner(mode, population_size=5)
    tuner.update_search_space(space)
    tuner.random_state, tuner.population = np.random.RandomState(seed), []
    for _ in range(5):
        tuner._random_generate_individual()
    monkeypatch.setattr(evolution_tuner, "random", OneSource(tuner.random_state))
    return tuner


@SPACES
@pytest.mark.parametrize("mode", ["maximize", "minimize"])
@pytest.mark.parametrize("seed", range(6))
def test_evolution_is_nnis_step_by_step(space, mode, seed, monkeypatch):
    """Trials end in a random order and a quarter of them fails, three at a time."""
    ours, theirs = evolution(space, mode=mode, seed=seed), nnis_evolution(space, seed, monkeypatch, mode)
    dice, out = random.Random(seed), []
    for number in range(80):
        proposals = [t.generate_multiple_parameters([number], st_callback=None)[0] for t in (ours, theirs)]
        assert proposals[0] == proposals[1]
        out.append((number, proposals[0]))
        while len(out) == 3 or (out and dice.random() < 0.4):
            ended, parameters = out.pop(dice.randrange(len(out)))
            succeeded = dice.random() < 0.75
            for tuner in (ours, theirs):
                if succeeded:
                    tuner.receive_trial_result(ended, parameters, {"default": value_of(parameters)})
                tuner.trial_end(ended, succeeded)
        ours._draw_successors()  # NNI's are drawn at once
        ranked = [[(split_index(i.config), i.result) for i in tuner.population] for tuner in (ours, theirs)]
        assert ranked[0] == ranked[1]


@SPACES
@pytest.mark.parametrize("mode", ["maximize", "minimize"])
def test_tpe_is_nnis(space, mode):
    theirs = TpeTuner(mode, seed=7, tpe_args={"n_startup_jobs": 5})
    theirs.update_search_space(space)
    assert run(tpe(space, mode=mode, seed=7), 25) == run(theirs, 25)


@SPACES
@pytest.mark.parametrize("make", [evolution, tpe])
def test_same_seed_same_proposals_and_nothing_global_is_touched(make, space):
    before = (random.getstate(), np.random.get_state()[1].tolist())
    once = run(make(space, seed=3), 20)
    assert run(make(space, seed=3), 20) == once
    assert run(make(space, seed=4), 20) != once
    assert run(make(space, seed=None), 5) != run(make(space, seed=None), 5)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@SPACES
def test_a_shared_design_is_the_same_for_both_and_is_nnis_random_tuner(space):
    sampler = RandomTuner(seed=11)
    sampler.update_search_space(space)
    draws = [sampler.generate_parameters() for _ in range(4)]
    one, two = (run(make(space, initial=4, initial_seed=11), 9) for make in (evolution, tpe))
    assert one[:4] == two[:4] == draws and one[4:] != two[4:]
    assert run(tpe(space, initial=4, initial_seed=12), 4) != draws


def test_the_known_good_trial_comes_first_and_counts_as_start_up(monkeypatch):
    one, two = (make(REPORT, first=[DEFAULTS], initial=4) for make in (evolution, tpe))
    assert run(one, 5)[0] == run(two, 5)[0] == DEFAULTS
    assert len(one.population) == 5 and all(individual.result is not None for individual in one.population)
    assert len(two._history[("lr",)]) == 5
    guided = []
    monkeypatch.setattr("nni.algorithms.hpo.tpe_tuner.suggest_normal", lambda *_: guided.append(1) or 0.05)
    run(two, 1, start=5)
    assert guided  # the sixth is TPE's own
    child = run(one, 1, start=5)[0]
    assert min(sum(child[k] != split_index(i.config)[k] for k in child) for i in one.population) <= 1


@pytest.mark.parametrize("name", ["tpe_seeded.yml", "evolution_seeded.yml"])
def test_the_files_first_trial_is_the_trials_defaults_and_the_design_is_shared(name):
    from trial.hyperparameters import Hyperparameters

    arguments = yaml.safe_load((ROOT / "experiments" / name).read_text())["tuner"]["classArgs"]
    defaults = Hyperparameters()
    assert arguments["first"] == [{key: getattr(defaults, key) for key in REPORT}]
    assert (arguments["initial"], arguments["initial_seed"]) == (4, 0)
    assert arguments.get("population_size", arguments.get("tpe_args", {}).get("n_startup_jobs")) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": [{**DEFAULTS, "batch_size": 48}]}, "first: batch_size: 48 is outside the search space, choice [8, 16"),
        ({"first": [{**DEFAULTS, "lr": 0.5}]}, "first: lr: 0.5 is outside the search space, uniform [0.0001, 0.1]"),
        ({"first": [{**DEFAULTS, "lr": "1e-3"}]}, "first: lr: '1e-3' is not a finite number"),
        ({"first": [{"batch_size": 32, "lr": 0.001}]}, "first: no value for momentum"),
        ({"first": [{**DEFAULTS, "gamma": 0.1}]}, "first: gamma is not searched"),
        ({"first": DEFAULTS}, "first should be a list of trials"),
        ({"initial": -1}, "initial should be a whole number from 0, found -1"),
        ({"initial": "5"}, "initial should be a whole number from 0, found '5'"),
        ({"seed": 0.5}, "seed should be a whole number from 0, found 0.5"),
        ({"initial_seed": True}, "initial_seed should be a whole number"),
        ({"initial_seed": None}, "initial_seed should be a whole number"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [evolution, tpe])
def test_a_wrong_argument_is_one_line(make, arguments, message):
    with pytest.raises(ValueError) as error:
        make(REPORT, **arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_design_that_cannot_be_held_is_refused():
    with pytest.raises(ValueError, match="population_size: 5 has no room for 6 first trials"):
        evolution(REPORT, initial=6)
    with pytest.raises(ValueError, match="population_size should be a whole number from 1, found 0"):
        evolution(REPORT, population_size=0)
    small = {"d": {"_type": "randint", "_value": [0, 3]}}
    with pytest.raises(ValueError, match="initial: 4 trials, but the search space has fewer"):
        tpe(small, initial=4)


@SPACES
def test_placing_is_the_inverse_of_nnis_split_index(space):
    state = np.random.RandomState(0)
    for _ in range(200):
        config = json2parameter(space, dict.fromkeys(json2space(space), True), state)
        assert first_trials.place(space, json.loads(json.dumps(split_index(config), default=float))) == config


def resumed(make, space, tried, running=(), **arguments):
    """A tuner that NNI resumes: the finished trials imported, the cut-off ones known to the dispatcher alone."""
    tuner = make(space, **arguments)
    tuner.import_data([{"parameter": p, "value": value_of(p), "trialJobId": "x"} for p in tried])
    callback = Dispatcher(dict(enumerate(running))).callback
    return tuner, lambda n: tuner.generate_multiple_parameters([n], st_callback=callback)[0]


class Dispatcher:
    """The part of NNI's dispatcher that a tuner can see; test_tuners_nni runs the real one."""

    def __init__(self, recovered):
        self.recovered_trial_params = recovered

    def callback(self, number, parameters):
        raise AssertionError("no tuner here sends trials by itself")


@pytest.mark.parametrize("make", [evolution, tpe])
@pytest.mark.parametrize("finished", range(5))
@pytest.mark.parametrize("cut_off", [0, 1])
def test_a_design_goes_on_where_it_stopped(make, finished, cut_off):
    arguments = {"first": [DEFAULTS], "initial": 4}
    whole = run(make(REPORT, **arguments), 5)
    _, ask = resumed(make, REPORT, whole[:finished], whole[finished : finished + cut_off], **arguments)
    assert [ask(n) for n in range(20, 25 - finished - cut_off)] == whole[finished + cut_off :]


@pytest.mark.parametrize("make", [evolution, tpe])
def test_a_failed_trial_of_the_design_does_not_come_again_when_a_later_one_was_tried(make):
    whole = run(make(REPORT, initial=5), 5)
    _, ask = resumed(make, REPORT, [whole[0], whole[2]], initial=5)
    assert [ask(3), ask(4)] == whole[3:]


def test_evolution_rebuilds_its_population_and_mutates_it():
    tried = run(evolution(REPORT), 12)
    tuner, ask = resumed(evolution, REPORT, tried[:11], tried[11:])
    child = ask(20)
    members = [split_index(i.config) for i in tuner.population]
    assert len(members) == 3 and all(
        member in tried[:11] for member in members
    )  # 4 with a cut-off trial, one lost to the child
    assert tuner.rerun == tried[11:]
    assert min(sum(child[k] != member[k] for k in child) for member in members) <= 1
    tuner.import_data([{"parameter": tried[11], "value": {"default": 0.5}}])
    assert tuner.rerun == [] and tried[11] in [split_index(i.config) for i in tuner.population]
    tuner.receive_trial_result(20, child, 0.5)
    assert len(tuner.population) == 5


def test_tpe_knows_its_trials_after_a_resume_and_draws_no_trial_twice():
    tried = run(tpe(REPORT), 3)
    repeat = run(TpeTuner("maximize", seed=0), 0) or TpeTuner("maximize", seed=0)
    repeat.update_search_space(REPORT)
    repeat.import_data([{"parameter": p, "value": value_of(p)} for p in tried])
    assert repeat.generate_parameters(9) == tried[0]  # NNI's own repeats its first trial
    tuner, ask = resumed(tpe, REPORT, tried)
    assert ask(9) not in tried and len(tuner._history[("lr",)]) == 3
    assert tuner.liar.lie() == -max(map(value_of, tried))


def test_the_population_after_a_resume_is_like_the_one_without():
    """1,500 runs of 12 trials: the mean of the population, and of its worst, differ by less than 4 standard errors."""
    space, rows = {f"x{i}": WIDE["a"] for i in range(3)}, {"whole": [], "resumed": []}
    for seed in range(1500):
        tuner = evolution(space, seed=seed)
        tried = run(tuner, 12)
        again, ask = resumed(evolution, space, tried, seed=seed + 10_000)
        again._settle([])
        for name, one in (("whole", tuner), ("resumed", again)):
            results = [individual.result for individual in one.population]
            assert len(results) == 5
            rows[name].append((np.mean(results), np.min(results), np.max(results)))
    whole, other = np.array(rows["whole"]), np.array(rows["resumed"])
    errors = np.sqrt(whole.var(axis=0) / 1500 + other.var(axis=0) / 1500)
    assert np.all(np.abs(whole.mean(axis=0) - other.mean(axis=0)) < 4 * errors)


BAD = [float("nan"), float("inf"), "0.5", None, [0.5], {"loss": 1.0}, {"default": "x"}, {"default": None}, 10**400]


@pytest.mark.parametrize("value", BAD, ids=str)
@pytest.mark.parametrize("make", [evolution, tpe])
def test_a_bad_result_is_a_trial_without_one(make, value):
    tuner = make(REPORT)
    for number in range(12):
        parameters = tuner.generate_multiple_parameters([number], st_callback=None)[0]
        tuner.receive_trial_result(number, parameters, value)
        tuner.trial_end(number, True)
    assert run(tuner, 3, start=12)
    assert isinstance(tuner, SeededTpe) or sum(i.result is not None for i in tuner.population) == 3
    assert isinstance(tuner, SeededEvolution) or len(tuner._history[("lr",)]) == 3


@pytest.mark.parametrize("make", [evolution, tpe])
def test_of_two_results_the_first_counts_and_a_result_may_follow_its_end(make):
    tuner = make(REPORT)
    first, second = tuner.generate_multiple_parameters([0, 1], st_callback=None)
    tuner.receive_trial_result(0, first, 0.25)
    tuner.receive_trial_result(0, first, 0.75)
    tuner.trial_end(0, False)  # a result, then exit code 1: the result stands, as with NNI's TPE
    tuner.trial_end(1, True)
    tuner.receive_trial_result(1, second, 0.5)
    if make is evolution:
        assert Counter(i.result for i in tuner.population) == {None: 3, 0.25: 1, 0.5: 1}
    else:
        assert [-record.loss for record in tuner._history[("lr",)]] == [0.25, 0.5]


@SPACES
@pytest.mark.parametrize("make", [evolution, tpe])
@pytest.mark.parametrize("seed", range(25))
def test_no_order_of_events_kills_a_tuner(make, space, seed):
    """Proposals, results good and bad, ends, unknown ids, imports of all kinds, a new space: in any order."""
    dice = random.Random(f"{seed}")
    size, most, proposed = dice.choice([1, 2, 5]), 0, {}
    arguments = {"population_size": size} if make is evolution else {"startup": max(2, size)}
    tuner = make(space, seed=seed, initial=min(size, 2), **arguments)
    for number in range(150):
        event, known = dice.random(), dice.choice([*proposed, None, 999])
        if event < 0.4:
            proposed[number] = tuner.generate_multiple_parameters([number], st_callback=None)[0]
        elif event < 0.65:
            tuner.receive_trial_result(known, proposed.get(known), dice.choice([0.5, dice.random(), *BAD]))
        elif event < 0.9:
            tuner.trial_end(known, dice.random() < 0.6)
        elif event < 0.98:
            parameters = dice.choice([proposed.get(known), {}, None, DEFAULTS, {**DEFAULTS, "batch_size": 7}])
            tuner.import_data([{"parameter": parameters, "value": dice.choice([dice.random(), *BAD])}, {}])
        elif make is evolution:
            tuner.update_search_space({**space})
        if make is evolution:
            most = max(most, len(tuner.running))
            assert len(tuner.population) <= max(size, most + 1)
    assert tuner.generate_multiple_parameters([1000], st_callback=None)


def test_more_trials_at_once_than_the_population_holds():
    tuner = evolution(REPORT, population_size=2)
    assert len(tuner.generate_multiple_parameters([0, 1, 2, 3], st_callback=None)) == 4
    theirs = evolution_tuner.EvolutionTuner("maximize", population_size=2)
    theirs.update_search_space(REPORT)
    with pytest.raises(RuntimeError, match="population is empty"):
        theirs.generate_multiple_parameters([0, 1, 2, 3], st_callback=None)


def test_results_of_a_search_space_that_has_changed_are_left():
    tuner = evolution(REPORT)
    old = tuner.generate_multiple_parameters([0], st_callback=None)[0]
    tuner.update_search_space(WIDE)
    tuner.receive_trial_result(0, old, 0.5)
    tuner.trial_end(0, True)
    assert set(run(tuner, 8, start=1)[-1]) == set(WIDE)
    assert all(isinstance(individual, Individual) for individual in tuner.population)


def test_the_script_of_the_logs_figure_on_shared_trials_runs(capsys):
    from benchmarks import shared_design

    shared_design.shared_design(runs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("%") for line in lines] == [0, 0, *[2] * len(shared_design.DESIGNS), 0] and "n = 2" in lines[-1]
