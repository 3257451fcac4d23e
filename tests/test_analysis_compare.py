"""A comparison of experiments: single ones, repeats and several arms; its numbers, verdicts and what may be said."""

from __future__ import annotations

import json

import pytest
from fixtures_analysis import Recorder, final, search

from analysis.__main__ import main
from analysis.reading.locate import AnalysisError
from analysis.reading.reader import load_experiment
from analysis.reading.values import strict_json
from analysis.stats import best_of_n
from analysis.stats.compare import compare, group


@pytest.fixture(autouse=True)
def nni_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def arm(tmp_path, experiment_id, finals, tuner="TPE", arguments=None, **config):
    """An experiment of one trial a final result; None is a trial that failed."""
    config.setdefault("experimentName", experiment_id)
    arguments = {"optimize_mode": "maximize"} | (arguments or {})
    recorder = Recorder(tmp_path, experiment_id, tuner={"name": tuner, "classArgs": arguments}, **config)
    for sequence, value in enumerate(finals):
        recorder.trial(sequence, value, state="FAILED" if value is None else "SUCCEEDED")
    return load_experiment(recorder.folder)


def test_two_arms_in_start_up_show_no_difference(tmp_path):
    first = arm(tmp_path, "tpe", [final(0.80 + 0.005 * k) for k in range(14)] + [None])
    second = arm(tmp_path, "evo", [final(0.78 + 0.01 * k) for k in range(15)], "Evolution", {"population_size": 100})
    summary = compare(first, second)
    a, b = summary["experiments"]
    assert a["trials"] == {"succeeded": 14, "failed": 1, "cancelled": 0, "running": 0, "pruned": 0}
    assert (a["chosen_by_tuner"], b["chosen_by_tuner"]) == (0, 0)
    assert (a["tuner"], b["tuner"], a["state"], b["state"]) == ("TPE", "Evolution", "DONE", "DONE")
    assert (a["best"]["val_accuracy"], a["best"]["trial_id"]) == (pytest.approx(0.865), "t0013")
    assert a["best"]["evaluation"] == pytest.approx({"top1": 0.845, "top3": 0.915, "macro": 0.835, "n": 400})
    assert a["best"]["params"] == {"lr": pytest.approx(0.14), "momentum": 0.9}
    assert (a["trial_seconds"], a["wall_seconds"]) == (120.0, 148.0)
    found = summary["comparison"]
    assert found["difference"] == pytest.approx(0.92 - 0.865)
    assert (found["interval"], found["p_value"], found["verdict"]) == (None, None, "no_difference_shown")
    assert found["null_band"]["n_first"] == found["null_band"]["n_second"] == 15
    for text in ("only sampled at random", "0 of 15 trials of tpe", "chance", "5.5 points above", "all 30 trials"):
        assert text in found["statement"]


def test_once_a_tuner_chooses_one_run_each_is_not_enough(tmp_path):
    finals = [final(0.5 + 0.01 * k) for k in range(15)]
    first = arm(tmp_path, "tpe", finals, arguments={"tpe_args": {"n_startup_jobs": 5}})
    second = arm(tmp_path, "evo", finals, "Evolution", {"population_size": 5})
    summary = compare(first, second)
    assert [found["chosen_by_tuner"] for found in summary["experiments"]] == [10, 10]
    found = summary["comparison"]
    assert (found["verdict"], found["repeats_needed"], found["difference"]) == ("not_estimable", 4, 0.0)
    assert "at least 4 experiments of each" in found["statement"] and "0.029" in found["statement"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"searchSpace": {"lr": {"_type": "uniform", "_value": [0.1, 1.0]}}}, "search spaces differ"),
        ({"trialCommand": "python -m trial --set epochs=1"}, "different commands"),
        ({"arguments": {"optimize_mode": "minimize"}}, "optimize_mode differs (maximize and minimize)"),
        ({"finals": [None, None]}, "none of the 2 trials of second ended with a result"),
    ],
)
def test_arms_that_cannot_be_compared_say_why(tmp_path, changes, reason):
    first = arm(tmp_path, "first", [0.5, 0.6])
    second = arm(tmp_path, "second", **{"finals": [0.5, 0.7]} | changes)
    found = compare(first, second)["comparison"]
    assert (found["verdict"], found["difference"], found["null_band"]) == ("not_comparable", None, None)
    assert reason in found["statement"]


def test_plain_numbers_of_other_scripts(tmp_path):
    """No accuracy is claimed where no number of images is known."""
    first = arm(tmp_path, "first", [12.5, 20.0], "Random")
    second = arm(tmp_path, "second", [11.0, 13.0], "Random")
    summary = compare(first, second)
    assert summary["experiments"][0]["best"]["evaluation"] is None
    assert summary["experiments"][0]["best"]["validation_interval"] is None
    assert summary["comparison"]["difference"] == -7.0
    assert "7 below" in summary["comparison"]["statement"] and "%, " not in summary["comparison"]["statement"]


def test_a_running_trial_is_no_failure_and_an_experiment_is_not_its_own_rival(tmp_path):
    first = arm(tmp_path, "first", [0.5, 0.6])
    with pytest.raises(AnalysisError, match="named twice"):
        compare(first, load_experiment(tmp_path / "first"))


def test_summary_is_strict_json(tmp_path):
    first = arm(tmp_path, "first", [0.5, float("nan")])
    second = arm(tmp_path, "second", [0.5, 0.7])
    summary = compare(first, second)
    summary["experiments"][0]["best"]["params"]["lr"] = float("inf")
    text = strict_json(summary)

    def refuse(name):
        raise AssertionError(name)

    assert json.loads(text, parse_constant=refuse)["experiments"][0]["best"]["params"]["lr"] is None


def experiment(tmp_path, name, best, tuner="TPE", **arguments):
    """Three trials that end at `best`; TPE with one start-up trial, Evolution with a population of one."""
    return load_experiment(search(tmp_path, name, best, tuner, arguments=arguments))


def repeats(tmp_path, first, second):
    return [experiment(tmp_path, f"tpe{k}", best, seed=k) for k, best in enumerate(first)] + [
        experiment(tmp_path, f"evo{k}", best, "Evolution") for k, best in enumerate(second)
    ]


def test_repeats_are_grouped_by_tuner_and_arguments_but_not_by_seed(tmp_path):
    found = group(repeats(tmp_path, (0.8, 0.81), (0.7,)))
    assert [(arm.name, arm.bests) for arm in found] == [("TPE", [0.8, 0.81]), ("evo0", [0.7])]


def test_two_experiments_are_two_arms_even_of_one_configuration(tmp_path):
    found = group([experiment(tmp_path, "a", 0.8), experiment(tmp_path, "b", 0.9)])
    assert [arm.name for arm in found] == ["a", "b"]


def test_group_overrides_and_its_mistakes_are_told(tmp_path):
    experiments = repeats(tmp_path, (0.8, 0.81, 0.82), ())
    found = group(experiments, ["old=tpe0,tpe2"])
    assert [(arm.name, len(arm.experiments)) for arm in found] == [("old", 2), ("tpe1", 1)]
    for named, message in (
        ([], "are one arm"),
        (["old"], "not of the form NAME=ID,ID"),
        (["old=nothere"], "'nothere' is not compared here"),
        (["old=tpe0", "new=tpe0"], "in two groups"),
    ):
        with pytest.raises(AnalysisError, match=message):
            group(experiments, named)


def test_four_repeats_show_a_difference(tmp_path):
    summary = compare(*repeats(tmp_path, (0.80, 0.81, 0.82, 0.83), (0.90, 0.91, 0.92, 0.93)))
    found = summary["comparison"]
    assert (found["verdict"], found["difference"]) == ("difference_shown", pytest.approx(0.1))
    assert found["p_value"] == pytest.approx(2 / 70)
    assert found["interval"][0] < 0.1 < found["interval"][1]
    assert (found["probability_of_improvement"], found["repeats"]) == (1.0, [4, 4])
    assert found["headline"] == (
        "A difference is shown: Evolution's best trials have higher validation accuracy than TPE's, and the same networks have "
        "higher evaluation accuracy."
    )
    assert found["statement"] == " ".join([found["headline"], *found["details"]])
    assert [arm["experiments"] for arm in summary["arms"]] == [
        [f"{arm}{k}" for k in range(4)] for arm in ("tpe", "evo")
    ]
    assert (summary["arms"][0]["mean"], summary["arms"][0]["trials"]) == (pytest.approx(0.815), 12)


def test_four_repeats_that_overlap_show_none(tmp_path):
    found = compare(*repeats(tmp_path, (0.80, 0.82, 0.84, 0.86), (0.81, 0.83, 0.85, 0.87)))["comparison"]
    assert found["verdict"] == "no_difference_shown"
    assert found["interval"][0] < 0 < found["interval"][1]


def test_three_repeats_cannot_be_estimated_however_far_apart(tmp_path):
    found = compare(*repeats(tmp_path, (0.5, 0.51, 0.52), (0.9, 0.91, 0.92)))["comparison"]
    assert (found["verdict"], found["interval"], found["p_value"]) == ("not_estimable", None, None)
    assert found["repeats_needed"] == 4 and "from 4 experiments of each on it can (p = 0.029)" in found["statement"]


def test_a_difference_between_random_draws_is_never_claimed(tmp_path):
    experiments = [
        load_experiment(search(tmp_path, f"{name}{k}", best + k / 1000, name, arguments=start_up))
        for name, best, start_up in (("Random", 0.8, {}), ("TPE", 0.9, {"tpe_args": {"n_startup_jobs": 20}}))
        for k in range(4)
    ]
    found = compare(*experiments)["comparison"]
    assert found["p_value"] < 0.05 and found["verdict"] == "no_difference_shown"
    assert "due to chance" in found["details"][0] and found["equivalence"] is None


def random_arm(tmp_path, n):
    return [experiment(tmp_path, f"r{k}", 0.7 + k / 100, "Random") for k in range(n)]


def test_three_arms_are_compared_in_pairs_and_p_pays_for_it(tmp_path):
    experiments = repeats(tmp_path, (0.80, 0.81, 0.82, 0.83), (0.90, 0.91, 0.92, 0.93))
    summary = compare(*experiments, *random_arm(tmp_path, 4))
    assert [pair["arms"] for pair in summary["comparisons"]] == [
        ["TPE", "Evolution"],
        ["TPE", "Random"],
        ["Evolution", "Random"],
    ]
    assert [pair["smallest_p"] for pair in summary["comparisons"]] == pytest.approx([6 / 70] * 3)
    assert (summary["comparison"]["verdict"], summary["comparison"]["repeats_needed"]) == ("not_estimable", 5)
    assert "that all 3 pairs of arms share" in summary["comparison"]["statement"]


def test_five_repeats_of_three_arms_are_enough(tmp_path):
    experiments = repeats(tmp_path, [0.80 + k / 100 for k in range(5)], [0.90 + k / 100 for k in range(5)])
    found = compare(*experiments, *random_arm(tmp_path, 5))["comparison"]
    assert found["verdict"] == "difference_shown" and found["headline"].startswith(
        "A difference in validation accuracy is shown"
    )


def test_the_page_and_the_terminal_of_repeats(tmp_path, capsys):
    experiments = repeats(tmp_path, (0.80, 0.81, 0.82, 0.83), (0.90, 0.91, 0.92, 0.93))
    folders = [str(e.folder) for e in experiments]
    assert main(["compare", *folders, "--group", "old=tpe0,tpe1,tpe2,tpe3", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "verdict: difference_shown" in printed and "81.5 %" in printed and "Evolution less old" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    for text in ("Arm against arm", "difference shown", "old against Evolution", "the tuner chose 16 of the trials"):
        assert text in page
    assert main(["compare", folders[0], "--out", str(tmp_path / "out")]) == 1
    assert "two or more experiments" in capsys.readouterr().err


def test_optimism_needs_a_number_of_images(tmp_path):
    summary = compare(experiment(tmp_path, "a", 0.8), experiment(tmp_path, "b", 0.9, "Evolution"))
    assert summary["experiments"][0]["optimism"]["n_images"] == 200
    plain = Recorder(tmp_path, "plain")
    for sequence in range(3):
        plain.trial(sequence, 0.5 + sequence / 10)
    assert best_of_n.optimism_of(load_experiment(plain.folder)) is None
