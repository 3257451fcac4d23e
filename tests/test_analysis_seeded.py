"""What `analysis` knows of the seeded tuners: whose choice a trial was, which trials two arms share, what then holds."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import ROOT
from fixtures_analysis import Recorder

from analysis.reading.reader import load_experiment
from analysis.reading.startup import Design, chosen, design, explain, label, shared_trials, startup_trials
from analysis.reports.series import origins, startup_end
from analysis.stats.best_of_n import pooled_startup
from analysis.stats.compare import compare, configuration, group
from analysis.stats.importance import _random as random_trials

sys.path.append(str(ROOT / "experiments" / "tuners"))  # as NNI's dispatcher does

from seeded_evolution import SeededEvolution
from seeded_tpe import SeededTpe

TPE, EVOLUTION = "seeded_tpe.SeededTpe", "seeded_evolution.SeededEvolution"
SPACE = {"lr": {"_type": "uniform", "_value": [0.0, 1.0]}, "momentum": {"_type": "choice", "_value": [0.1, 0.5, 0.9]}}
FIRST = {"lr": 0.5, "momentum": 0.9}


@pytest.mark.parametrize(
    ("tuner", "arguments", "first", "words"),
    [
        (TPE, {}, 20, "0 of 15 trials are chosen by the tuner: TPE (seeded) samples the first 20 at random"),
        (TPE, {"tpe_args": {"n_startup_jobs": 3}, "initial": 6}, 6, "9 of 15 trials are chosen by the tuner: TPE (seeded) samples the first 6 at random"),
        (TPE, {"tpe_args": {"n_startup_jobs": 5}, "first": [FIRST]}, 5, "10 of 15 trials are chosen by the tuner: TPE (seeded) samples the first 5 at random, except 1 given"),
        (EVOLUTION, {"population_size": 5, "first": [FIRST], "initial": 4}, 5, "10 of 15 trials are chosen by the tuner: Evolution (seeded) samples the first 5 at random, except 1 given"),
        (EVOLUTION, {}, 32, "0 of 15 trials are chosen by the tuner: Evolution (seeded) samples the first 32 at random"),
    ],
)  # fmt: skip
def test_start_up(tuner, arguments, first, words):
    assert startup_trials(tuner, arguments) == first
    assert explain(tuner, arguments, 15) == words


def test_labels_and_tuners_of_other_people():
    assert (label(TPE), label(EVOLUTION)) == ("TPE (seeded)", "Evolution (seeded)")
    assert label("other.SeededTpe") == "other.SeededTpe" and startup_trials("other.SeededTpe", {}) is None
    assert design("TPE", {"first": [FIRST], "initial": 3}) == Design([], 0, 0)  # NNI's own takes neither


def test_the_class_names_are_the_real_ones():
    assert f"{SeededTpe.__module__}.{SeededTpe.__qualname__}" == TPE
    assert f"{SeededEvolution.__module__}.{SeededEvolution.__qualname__}" == EVOLUTION


def test_shared_trials_are_those_that_both_tuners_propose():
    one, other = Design([FIRST], 4, 0), Design([FIRST], 6, 0)
    assert shared_trials(one, other) == 5 and shared_trials(one, Design([FIRST], 4, 1)) == 1
    assert (
        shared_trials(Design([], 4, 0), Design([FIRST], 4, 1)) == 0 == shared_trials(Design([], 0, 0), Design([], 0, 0))
    )


@dataclass
class Run:
    """A trial as `chosen` reads it, with what the real tuner did (`guided`)."""

    parameters: dict[str, Any]
    proposed: int
    session: int
    last_session: int
    guided: bool
    end: int | None = None
    result_time: int | None = None
    final: Any = None
    state: str = "RUNNING"
    customised: bool = False


class Manager:
    """NNI's order of calls, with trials that fail, end without a result or with a useless one, and crashes."""

    def __init__(self, make, acts: list[str], seed: int):
        self.make, self.acts, self.dice = make, acts, random.Random(seed)
        self.runs: list[Run] = []
        self.clock = self.session = 0
        self.tuner, self.recovered_trial_params = make(), {}
        self.tuner.update_search_space(SPACE)

    def callback(self, number, parameters):
        raise AssertionError("not used")

    def step(self) -> None:
        self.clock += 1
        running = [number for number, run in enumerate(self.runs) if run.end is None]
        if self.dice.random() < 0.06:
            self.crash(running)
        elif len(running) < 2:
            self.propose()
        else:
            self.end(self.dice.choice(running))

    def propose(self) -> None:
        self.acts.clear()
        number = len(self.runs)
        parameters = self.tuner.generate_multiple_parameters([number], st_callback=self.callback)[0]
        self.runs.append(Run(parameters, self.clock, self.session, self.session, bool(self.acts)))

    def end(self, number: int) -> None:
        run, fate = self.runs[number], self.dice.choice(["good"] * 5 + ["failed", "nothing", "nan"])
        run.end, run.state = self.clock, "FAILED" if fate == "failed" else "SUCCEEDED"
        rerun = run.session != self.session
        if fate in ("good", "nan"):
            run.result_time, run.final = self.clock, self.dice.random() if fate == "good" else float("nan")
            if rerun:
                self.tuner.import_data([{"parameter": run.parameters, "value": run.final}])
            else:
                self.tuner.receive_trial_result(number, run.parameters, run.final)
        if not rerun:
            self.tuner.trial_end(number, run.state == "SUCCEEDED")

    def crash(self, running: list[int]) -> None:
        self.session += 1
        for number in running:
            self.runs[number].last_session = self.session
        done = [run for run in self.runs if run.state == "SUCCEEDED" and run.result_time is not None]
        self.tuner = self.make()
        self.tuner.update_search_space(SPACE)
        self.tuner.import_data([{"parameter": run.parameters, "value": run.final} for run in done])
        self.recovered_trial_params = {number: self.runs[number].parameters for number in running}
        for _ in range(2):  # NNI asks at once, before the trials that run again have ended
            self.propose()


def played(make, acts, seed, steps=70) -> list[Run]:
    manager = Manager(make, acts, seed)
    for _ in range(steps):
        manager.step()
    assert any(run.guided for run in manager.runs) and not all(run.guided for run in manager.runs)
    return manager.runs


@pytest.mark.parametrize("seed", range(30))
def test_seeded_tpe_flags_equal_the_real_tuner(seed, monkeypatch):
    acts: list[str] = []
    from nni.algorithms.hpo import tpe_tuner

    original = tpe_tuner.suggest_normal
    monkeypatch.setattr(tpe_tuner, "suggest_normal", lambda *a: acts.append("model") or original(*a))
    arguments = {"seed": seed, "tpe_args": {"n_startup_jobs": 5}, "first": [FIRST], "initial": seed % 7}
    runs = played(lambda: SeededTpe("maximize", **arguments), acts, seed)
    assert chosen(TPE, arguments, runs) == [run.guided for run in runs]


@pytest.mark.parametrize("seed", range(30))
def test_seeded_evolution_flags_equal_the_real_tuner(seed, monkeypatch):
    acts: list[str] = []
    original = SeededEvolution._mutate
    monkeypatch.setattr(SeededEvolution, "_mutate", lambda *a: acts.append("mutate") or original(*a))
    arguments = {"seed": seed, "population_size": 8, "first": [FIRST], "initial": seed % 8}
    runs = played(lambda: SeededEvolution("maximize", **arguments), acts, seed)
    assert chosen(EVOLUTION, arguments, runs) == [run.guided for run in runs]


def seeded(tmp_path, experiment_id, tuner=TPE, trials=7, **arguments):
    """An experiment of the pair, its first trial given; scores rise with the trials."""
    size = {"tpe_args": {"n_startup_jobs": 5}} if tuner == TPE else {"population_size": 5}
    arguments = (
        {"optimize_mode": "maximize", "seed": 0, "first": [FIRST], "initial": 4, "initial_seed": 0} | size | arguments
    )
    config = {"className": tuner, "codeDirectory": "/somewhere", "classArgs": arguments}
    recorder = Recorder(tmp_path, experiment_id, tuner=config, experimentName=experiment_id)
    for sequence in range(trials):
        sampled = 0.01 * sequence + 1e-4 * arguments["initial_seed"] + (1e-6 * arguments["seed"] if sequence > 4 else 0)
        recorder.trial(sequence, 0.1 * sequence, **(FIRST if sequence == 0 else {"lr": sampled, "momentum": 0.1}))
    return load_experiment(recorder.folder)


def test_a_given_trial_is_not_random(tmp_path):
    one, other = seeded(tmp_path, "one"), seeded(tmp_path, "two", EVOLUTION, trials=5)
    assert origins(one) == ["given", *["random"] * 4, "tuner", "tuner"]
    assert startup_end(one) == 4.5
    assert random_trials(one, one.trials) == list(one.trials[1:5])
    short = seeded(tmp_path, "short", trials=5)
    assert pooled_startup([short, other]) == (
        [],
        "first trials are set by the experiment files, so not all are sampled independently at random",
    )


def test_repeats_of_other_seeds_are_one_arm(tmp_path):
    tpe = [seeded(tmp_path, f"t{n}", seed=n, initial_seed=n) for n in range(2)]
    evolution = [seeded(tmp_path, f"e{n}", EVOLUTION, seed=n, initial_seed=n) for n in range(2)]
    arms = group([*tpe, *evolution])
    assert [arm.name for arm in arms] == ["TPE (seeded)", "Evolution (seeded)"]
    assert configuration(tpe[0]) == configuration(tpe[1]) != configuration(seeded(tmp_path, "t9", initial=3))


def notes(*experiments) -> list[str]:
    return compare(*experiments)["comparison"]["notes"]


def test_a_shared_design_is_noted_with_what_still_holds(tmp_path):
    tpe = [seeded(tmp_path, f"t{n}", seed=n) for n in range(4)]
    evolution = [seeded(tmp_path, f"e{n}", EVOLUTION, seed=n) for n in range(4)]
    assert "share their first 5 trials by design" in notes(tpe[0], evolution[0])[0]
    assert "the band permutes shared trials too" in notes(tpe[0], evolution[0])[0]
    assert "the test holds, for these first trials alone" in notes(*tpe, *evolution)[0]
    blocks = [
        [seeded(tmp_path, f"{name[-3:]}{n}", name, seed=n, initial_seed=n) for n in range(2)]
        for name in (TPE, EVOLUTION)
    ]
    paired = compare(*blocks[0], *blocks[1])["comparison"]
    assert "begin with the same trials (5 by design), so they are compared in pairs" in paired["notes"][0]
    assert (paired["paired"], paired["repeats_needed"]) == (True, 6)
    other = [seeded(tmp_path, f"o{n}", EVOLUTION, seed=n, initial_seed=7) for n in range(4)]
    apart = compare(*tpe, *other)["comparison"]
    assert apart["verdict"] == "not_comparable" and "a lucky start can pass for a better tuner" in apart["statement"]
    alone = seeded(tmp_path, "apart", EVOLUTION, first=[], initial_seed=7)
    assert not any("by design" in note or "lucky" in note for note in notes(tpe[0], alone))
    smaller = seeded(tmp_path, "smaller", tpe_args={"n_startup_jobs": 6})
    assert "share their first 5 trials by design" in notes(tpe[0], smaller)[0]
