"""Studies: the numbers recomputed by hand, the sentences, the page, and what is refused."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import replace

import numpy as np
import pytest
from fixtures_study import TRAINING, part_of, plan_in, recorded

from analysis.__main__ import main
from analysis.reading.replication import StudyPlan, read_plan
from analysis.stats.paired import paired
from analysis.study.arms import arms_of, epoch_95
from analysis.study.classes import class_rows, permutation_p, rare_gain_most
from analysis.study.command import study
from analysis.study.reported import reported


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


FULL = {seed: [0.2, 0.5 + 0.01 * seed, 0.6 + 0.02 * seed, 0.6, 0.55, 0.58] for seed in range(4)}


def early(value, seed):
    """Patience 5 stops after epoch 4 + seed % 2; the best epoch is the third."""
    curve = FULL[seed] if value == 0 else FULL[seed][: 4 + seed % 2]
    return {"curve": curve, "right": (9, 5, 8, 7, 3 + (seed % 2 if value else 0))}


def test_early_stopping_is_told_by_hand_made_trainings(home):
    part = part_of("early_stopping", 4)
    plan_in(home / "out", "early_stopping", part)
    recorded(home, part, early)
    result, page = study("early_stopping", home / "out")

    none, stopped = result["arms"]
    assert (none["name"], stopped["name"]) == ("no early stopping", "patience 5")
    assert none["epochs_run"]["mean"] == 6 and none["epochs_run"]["sd"] == 0
    assert stopped["epochs_run"]["mean"] == 4.5 and stopped["n"] == 4 and stopped["planned"] == 4
    assert stopped["validation"]["by_seed"] == {str(seed): max(FULL[seed]) for seed in range(4)}

    rows = {row["measure"]: row for row in result["differences"]}
    by_hand = paired([-2, -1, -2, -1])
    assert (rows["epochs_run"]["mean"], rows["epochs_run"]["low"], rows["epochs_run"]["high"]) == (
        -1.5,
        by_hand.low,
        by_hand.high,
    )
    assert rows["duration_s"]["mean"] == -3.0
    assert rows["evaluation_top1"]["by_seed"] == pytest.approx({"0": 0, "1": 0.02, "2": 0, "3": 0.02})
    assert rows["validation"]["mean"] == 0 and rows["validation"]["low"] is None
    assert result["prefixes"] == [
        {
            "arm": "patience 5",
            "pairs": 4,
            "equal": 4,
            "largest_difference": 0.0,
            "saved_epochs": {"0": 2, "1": 1, "2": 2, "3": 1},
            "same_weights": 4,
        }
    ]
    assert result["headline"] == "No difference in evaluation top-1 accuracy is shown."
    low, high = paired([4, 2, 4, 2])[3:5]
    assert (
        "Patience 5 stopped earlier in 4 of 4 pairs, saving 2, 1, 2, 1 epochs (mean 1.5) and 3.0 s "
        f"(+{low:.1f} to +{high:.1f} s; p = " in result["can"]
    )
    assert "the same weights were kept in 4 of 4 pairs, whose accuracies are therefore equal" in result["can"]
    assert "stays open" in result["cannot"] and "300 training, 50 validation, 50 evaluation images" in result["cannot"]
    assert json.loads((home / "out/study.json").read_text())["arms"] == json.loads(json.dumps(result["arms"]))
    text = page.read_text()
    assert (
        "2934/3347 87.7 %" in text
        and "21.0 (n = 1)" in text
        and "<b>No difference in evaluation top-1 accuracy" in text
    )


def test_photos_in_two_splits_are_a_warning_of_the_study(home):
    part = part_of("early_stopping", 2)
    plan_in(home / "out", "early_stopping", part)
    recorded(home, part, lambda value, seed: early(value, seed) | {"photos_in_two_splits": {"training/evaluation": 12}})
    _, page = study("early_stopping", home / "out")
    assert (
        "<li>12 photos are in both training and evaluation: the evaluation accuracy is too optimistic</li>"
        in page.read_text()
    )


def test_a_stopped_training_that_is_no_beginning_is_told(home):
    part = part_of("early_stopping", 2)

    def other(value, seed):
        found = early(value, seed)
        return found if value == 0 or seed == 0 else {**found, "curve": [0.2, 0.4, 0.62, 0.5]}

    plan_in(home / "out", "early_stopping", part)
    recorded(home, part, other)
    result = study("early_stopping", home / "out")[0]
    (row,) = result["prefixes"]
    assert (row["pairs"], row["equal"]) == (2, 1) and row["largest_difference"] == pytest.approx(0.11)
    assert row["same_weights"] == 1  # the other kept the third epoch too, of another training
    assert "Only 1 of 2 stopped trainings (patience 5) are the beginning of the full one" in result["can"]
    assert "differ by more than the stopping: −2.0 epochs in each of 2 pairs and −4.0 s in each of 2" in result["can"]
    assert "the same weights were kept in 1 of 2 pairs" in result["can"]


def test_curves_are_means_and_ranges_as_far_as_all_were_trained(home):
    part = part_of("early_stopping", 4)
    plan_in(home / "out", "early_stopping", part)
    recorded(home, part, early)
    curves = {(c["arm"], c["metric"]): c for c in study("early_stopping", home / "out")[0]["curves"]}
    stopped = curves["patience 5", "default"]
    assert stopped["epoch"] == [1, 2, 3, 4] and stopped["n"] == 4
    column = [FULL[seed][2] for seed in range(4)]
    assert (stopped["mean"][2], stopped["low"][2], stopped["high"][2]) == (
        statistics.fmean(column),
        min(column),
        max(column),
    )
    assert len(curves["no early stopping", "train_accuracy"]["epoch"]) == 6


def pretrained(value, seed):
    """The rarer the class, the more it gains."""
    right = (8 + seed % 2, 2, 6, 4, 1) if value == "none" else (8, 7, 7, 7, 8)
    return {"curve": [0.3, 0.5, 0.52] if value == "none" else [0.5, 0.79, 0.8], "right": right}


def test_pretrained_tells_the_classes_and_whether_the_rare_gain_most(home):
    part = part_of("pretrained", 3)
    plan_in(home / "out", "pretrained", part)
    recorded(home, part, pretrained)
    result, page = study("pretrained", home / "out")
    rows = result["classes"][0]["rows"]
    assert [(row["class"], row["training"]) for row in rows][:2] == [("Fried food", 20), ("Dairy product", 40)]
    assert rows[0]["reference"] == {"correct": 3, "total": 30} and rows[0]["arm"] == {"correct": 24, "total": 30}
    assert rows[0]["gain"] == pytest.approx(0.7)
    rank = result["classes"][0]["rank"]
    assert rank["rho"] == pytest.approx(-1) and rank["holds"]
    assert rank["p"] == pytest.approx(2 / 120)  # two of the orders of five classes
    assert result["headline"] == "Pretrained is better in top-1 accuracy than from scratch on the evaluation split."
    assert "he rare classes gain most (Spearman's rank correlation of training images and gain −1.00" in result["can"]
    assert [arm["epoch_95"]["mean"] for arm in result["arms"]] == [2, 2]
    assert (
        "first reached at epoch 2.0 ± 0.0 (n = 3) from scratch and 2.0 ± 0.0 (n = 3) pretrained, 0.0 ep"
        in result["can"]
    )
    assert "the report saw both converge at about epoch 10, by eye" in result["can"]
    text = page.read_text()
    assert re.search(r"class 4 Fried food</th><td[^>]*>20</td><td[^>]*>3/30 10 %</td><td[^>]*>24/30 80 %</td>", text)
    assert "+46.0 points" in text  # the report's class 4: from 126 of 287 to 258


def test_rare_classes_that_do_not_gain_most_are_not_said_to(home):
    part = part_of("pretrained", 2)

    def flat(value, seed):
        return {"curve": [0.5, 0.6], "right": (5, 5, 5, 5, 5) if value == "none" else (9, 6, 7, 5, 6)}

    recorded(home, part, flat)
    arms = arms_of(part)
    rank = rare_gain_most(class_rows(*arms))
    assert rank["n"] == len(TRAINING) and rank["rho"] > 0 and not rank["holds"]
    assert rare_gain_most(class_rows(*arms)[:3]) is None


def test_the_p_of_many_classes_is_near_that_of_the_t_approximation():
    from scipy import stats

    draw = np.random.default_rng(4)
    images = np.arange(11.0)
    gains = stats.rankdata(-images + draw.normal(0, 4, 11))
    expected = stats.spearmanr(images, gains).pvalue
    assert permutation_p(images - images.mean(), gains) == pytest.approx(expected, abs=0.01) and 0.001 < expected < 0.2


def test_a_failed_training_leaves_its_pair_out_and_is_told(home):
    part = part_of("learning_rate", 3)

    def result(value, seed):
        if (value, seed) == (0.005, 1):
            return None
        return {"curve": [0.4, 0.6 + value], "right": (9, 8, 8, 8, 8 + seed % 2)}

    plan_in(home / "out", "learning_rate", part)
    recorded(home, part, result)
    told, page = study("learning_rate", home / "out")
    assert [(arm["name"], arm["n"]) for arm in told["arms"]] == [("lr 0.01", 3), ("lr 0.005", 2), ("lr 0.0025", 3)]
    rows = [row for row in told["differences"] if row["measure"] == "validation"]
    assert [(row["arm"], row["n"], row["level"]) for row in rows] == [("lr 0.005", 2, 0.975), ("lr 0.0025", 3, 0.975)]
    assert [row["state"] for row in told["trainings"]].count("failed") == 1
    assert "it wrote nothing" in page.read_text()


def test_a_training_that_was_cut_short_is_left_out_and_told(home):
    part = part_of("early_stopping", 3)
    plan_in(home / "out", "early_stopping", part)
    recorded(home, part, lambda value, seed: early(value, seed) | {"interrupted": int((value, seed) == (0, 2))})
    told, page = study("early_stopping", home / "out")
    assert [arm["n"] for arm in told["arms"]] == [2, 3] and {row["n"] for row in told["differences"]} == {2}
    assert page.read_text().count("cut short, and left out") == 1


def test_the_teacher_is_an_arm_without_a_difference(home):
    main_part, teacher = part_of("distill", 3), part_of("distill_teacher", 3, "teacher")
    plan_in(home / "out", "distill", teacher, main_part)
    recorded(home, main_part, lambda value, seed: {"curve": [0.5, 0.6 + 0.1 * value + 0.01 * seed], "right": (8,) * 5})
    recorded(home, teacher, lambda value, seed: {"curve": [0.6, 0.8], "right": (9,) * 5})
    result, page = study("distill", home / "out")
    assert [arm["name"] for arm in result["arms"]] == ["student alone", "distilled (weight 0.5)", "teacher (resnet50)"]
    assert {row["arm"] for row in result["differences"]} == {"distilled (weight 0.5)"}
    assert len(result["experiments"]) == 2 and "above 95 % by epoch 20" in page.read_text()
    assert (
        "One teacher, the best on validation of 3, taught all seeds, so that the intervals know no other teacher: it has "
        "90.0 % of the evaluation images right (validation 80.0 %) where the student alone has 80.0 ± 0.0 %"
        in result["can"]
    )
    assert "no better than its student" not in result["can"]
    assert "distilled (weight 0.5) 3, teacher (resnet50) 3)" in page.read_text()


def test_a_teacher_that_is_no_better_than_its_student_is_told_as_such(home):
    main_part, teacher = part_of("distill", 2), part_of("distill_teacher", 1, "teacher")
    plan_in(home / "out", "distill", teacher, main_part)
    recorded(home, main_part, lambda value, seed: {"curve": [0.5, 0.7 + 0.01 * seed], "right": (8,) * 5})
    recorded(home, teacher, lambda value, seed: {"curve": [0.3, 0.4], "right": (4,) * 5})
    result = study("distill", home / "out")[0]
    assert "the only one trained, taught all seeds" in result["can"]
    assert "no better than its student, and what a better one would do is not answered" in result["can"]
    assert result["headline"].endswith("accuracy is shown; the teacher is no better than its student.")


def test_the_epoch_of_95_percent_is_the_first_that_reaches_it(home):
    part = part_of("pretrained", 2)
    recorded(home, part, lambda value, seed: {"curve": [0.1, 0.94, 0.95, 0.5, 1.0], "right": (5,) * 5})
    assert epoch_95(arms_of(part)[0].trainings[0].trial) == 3


def test_names_are_escaped_on_the_page(home):
    part = part_of("pretrained", 2)
    space = json.loads(json.dumps(part.space).replace('"imagenet"', '"<script>alert(1)</script>.pth"'))
    part = replace(part, space=space)
    plan_in(home / "out", "pretrained", part)
    recorded(home, part, pretrained)
    assert "<script>alert" not in study("pretrained", home / "out")[1].read_text()


def test_what_is_not_there_is_refused_in_one_line(home, capsys):
    for words, said in (
        (["study", "sleep"], "no study 'sleep'; the studies are early_stopping, pretrained"),
        (["study", "balance", "--out", str(home)], "no study there; run it first: python -m experiments study balance"),
    ):
        assert main(words) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    part = part_of("balance", 2)
    plan_in(home, "balance", part)
    assert main(["study", "balance", "--out", str(home)]) == 1
    assert "no training has a result yet" in capsys.readouterr().err
    (home / "plan.json").write_text("{")
    assert main(["study", "balance", "--out", str(home)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_a_plan_comes_back_as_it_was_written(tmp_path):
    plan = plan_in(tmp_path, "step_size", part_of("step_size", 3))
    assert read_plan(tmp_path, StudyPlan) == plan
    assert plan.main.cells[:2] == [{"seed": 0, "step_size": 7}, {"seed": 0, "step_size": 1}]


@pytest.mark.parametrize("name", ["early_stopping", "pretrained", "learning_rate", "step_size"])
def test_the_reports_numbers_are_for_arms_that_the_studies_have(name):
    part, arms = part_of(name, 2), reported(name)["arms"]
    assert set(arms) == {f"{value:g}" if not isinstance(value, str) else value for value in part.values}
    for arm in arms.values():
        if "per_class" in arm:  # the report's own sums
            assert [sum(column) for column in zip(*arm["per_class"])] == arm["evaluation_top1"]
