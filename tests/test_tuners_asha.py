"""The assessor by successive halving: against Optuna's pruner on the same histories, by hand, and over a resume."""

from __future__ import annotations

import json
import random
import sys

import optuna
import pytest
from conftest import ROOT
from nni.assessor import AssessResult

sys.path.append(str(ROOT / "experiments" / "tuners"))  # as NNI's dispatcher does

from asha import RECORD, Asha


def ends(assessor, histories) -> dict[str, int]:
    """{trial: epoch after which it was ended}, of trials that run one after another."""
    ended = {}
    for trial, history in histories.items():
        for epoch in range(1, len(history) + 1):
            if assessor.assess_trial(trial, history[:epoch]) is AssessResult.Bad:
                ended[trial] = epoch
                break
    return ended


def curves(seed, trials=40, epochs=18):
    """Best so far of each epoch, as Optuna's pruner has to be given it: it compares the last value, ours the best."""
    dice = random.Random(seed)
    rows = {}
    for trial in range(trials):
        top, values = dice.random(), []
        for epoch in range(epochs):
            value = top * (1 - 0.5 ** (epoch + 1)) + dice.gauss(0, 0.05)
            values.append(max([value, *values]))
        rows[f"t{trial}"] = values
    return rows


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
@pytest.mark.parametrize(("least", "factor"), [(1, 3), (2, 3), (1, 2), (3, 4)])
@pytest.mark.parametrize("seed", range(5))
def test_it_ends_the_trials_that_optunas_pruner_ends(mode, least, factor, seed):
    sign = 1 if mode == "maximize" else -1
    histories = {trial: [sign * value for value in values] for trial, values in curves(seed).items()}
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=factor)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=mode, pruner=pruner)
    expected = {}
    for name, history in histories.items():
        trial = study.ask()
        for epoch, value in enumerate(history, start=1):
            trial.report(value, epoch)
            if trial.should_prune():
                expected[name] = epoch
                break
        study.tell(trial, state=optuna.trial.TrialState.COMPLETE, values=history[-1])
    assert ends(Asha(mode, least, factor, min_trials=1), histories) == expected
    assert len(expected) > 10


def test_by_hand_the_best_third_goes_on_at_each_rung():
    """Of three to five trials at the first rung one continues, of six two: e is the second of five, f the second of six."""
    assessor = Asha("maximize")
    histories = {"a": [0.1], "b": [0.2], "c": [0.3], "d": [0.4], "e": [0.35], "f": [0.39]}
    assert ends(assessor, histories) == {"e": 1}
    assert assessor.assess_trial("d", [0.4, 0.2, 0.41]) is AssessResult.Good  # alone at the second rung


def test_a_trial_is_judged_by_its_best_epoch_so_far():
    assessor = Asha("maximize", min_epochs=2, reduction_factor=2)
    assert ends(assessor, {"a": [0.5, 0.1], "b": [0.4, 0.45], "c": [0.1, 0.6]}) == {"b": 2}


def test_it_ends_none_before_enough_trials_have_reached_a_rung():
    falling = {f"t{n}": [1 - n / 100] for n in range(9)}
    assert ends(Asha("maximize", min_trials=5), falling) == {f"t{n}": 1 for n in range(4, 9)}
    assert ends(Asha("maximize"), falling) == {f"t{n}": 1 for n in range(2, 9)}


def test_results_as_dicts_and_without_a_finite_number():
    assessor = Asha("maximize", min_trials=2)
    assert ends(assessor, {"a": [{"default": 0.5, "loss": 1}], "b": [float("nan")], "c": [{"loss": 2}]}) == {
        "b": 1,
        "c": 1,
    }


def test_an_ended_trial_that_still_reports_stays_ended_and_reaches_no_further_rung():
    assessor = Asha("maximize", min_trials=1)
    ends(assessor, {"a": [0.5], "b": [0.4]})
    assert assessor.assess_trial("b", [0.4, 0.9, 0.9]) is AssessResult.Bad
    assert assessor.assess_trial("a", [0.5, 0.5, 0.5]) is AssessResult.Good


def test_a_resumed_experiment_knows_its_rungs(tmp_path, monkeypatch):
    """NNI sends an assessor no earlier results: its own record has them, whatever the last line looks like."""
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    histories = curves(7)
    whole = ends(Asha("maximize"), histories)
    (tmp_path / RECORD).unlink()
    first = dict(list(histories.items())[:20])
    ended = ends(Asha("maximize"), first)
    lines = [json.loads(line) for line in (tmp_path / RECORD).read_text().splitlines()]
    assert {line["trial"]: line["epoch"] for line in lines if line["is_pruned"]} == ended
    with (tmp_path / RECORD).open("a") as file:
        file.write('{"trial": "t20", "ru')
    again = Asha("maximize")
    again.load_checkpoint()
    assert ended | ends(again, {trial: row for trial, row in histories.items() if trial not in first}) == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_epochs": 0}, "min_epochs should be a whole number from 1, found 0"),
        ({"reduction_factor": 1}, "reduction_factor should be a whole number from 2, found 1"),
        ({"reduction_factor": 2.5}, "reduction_factor should be a whole number from 2"),
        ({"min_trials": True}, "min_trials should be a whole number from 1"),
        ({"optimize_mode": "up"}, "'up' is not a valid OptimizeMode"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, message):
    with pytest.raises(ValueError) as error:
        Asha(**{"optimize_mode": "maximize"} | arguments)
    assert str(error.value).startswith(message)
