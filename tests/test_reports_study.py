"""Studies: the numbers recomputed by hand, the statement, the page, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from dataclasses import replace

import numpy as np
import pytest
from fixtures_study import CLASSES, SETTINGS, TRAINING, part_of, plan_in, recorded
from golden import golden
from scipy.stats import rankdata, spearmanr

from analysis.__main__ import main
from analysis.reading.replication import known_ids, load_readable
from analysis.render import markdown
from analysis.reports.lab_numbers import lab_gains, lab_numbers, same_classes
from analysis.reports.study import class_blocks, study_document, study_page
from analysis.reports.study_classes import class_rows, permutation_p, rare_gain_most
from analysis.reports.study_result import arms_of, epoch_95
from analysis.stats.blocked import contrasts
from analysis.stats.paired import paired
from data.food11 import CLASSES as FOOD11
from data.food11 import SKEWED

SHOWN, NOT_SHOWN = "difference_shown", "no_difference_shown"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def studied(home):
    """Makes a study of these trainings and returns study.json's content and the page's text."""

    def make(name, seeds, result, teacher=None, teachers=None):
        shutil.rmtree(home / "nni-experiments", ignore_errors=True)
        part = part_of(name, seeds)
        parts = [part]
        if teacher is not None:
            parts.insert(0, part_of("distill_teacher", teachers or seeds, "teacher"))
            recorded(home, parts[0], teacher)
        plan_in(home / "out", name, *parts)
        recorded(home, part, result)
        content, page = study_page(name, home / "out")
        return content, page.read_text()

    return make


def records_of(part):
    return load_readable(known_ids(part))


FULL = {seed: [0.2, 0.5 + 0.01 * seed, 0.6 + 0.02 * seed, 0.6, 0.55, 0.58] for seed in range(4)}


def early(value, seed):
    """Patience 5 stops after epoch 4 + seed % 2; the best epoch is the third."""
    curve = FULL[seed] if value == 0 else FULL[seed][: 4 + seed % 2]
    return {"curve": curve, "right": (9, 5, 8, 7, 3 + (seed % 2 if value else 0))}


def test_early_stopping_by_hand_made_trainings(studied, home):
    result, page = studied("early_stopping", 4, early)
    none, stopped = result["arms"]
    assert (none["name"], stopped["name"]) == ("no early stopping", "patience 5")
    assert none["epochs_run"]["mean"] == 6 and none["epochs_run"]["sd"] == 0
    assert stopped["epochs_run"]["mean"] == 4.5 and stopped["n"] == 4 and stopped["planned"] == 4
    assert stopped["validation"]["by_seed"] == {str(seed): max(FULL[seed]) for seed in range(4)}
    rows = {row["measure"]: row for row in result["differences"]}
    by_hand, epochs = paired([-2, -1, -2, -1]), rows["epochs_run"]
    assert (epochs["mean"], epochs["low"], epochs["high"]) == (-1.5, by_hand.low, by_hand.high)
    assert rows["duration_s"]["mean"] == -3.0
    assert rows["evaluation_top1"]["by_seed"] == pytest.approx({"0": 0, "1": 0.02, "2": 0, "3": 0.02})
    assert rows["validation"]["mean"] == 0 and rows["validation"]["low"] is None
    (prefix,) = result["prefixes"]
    assert (prefix["pairs"], prefix["equal"], prefix["same_weights"]) == (4, 4, 4)
    assert prefix["largest_difference"] == 0 and prefix["saved_epochs"] == {"0": 2, "1": 1, "2": 2, "3": 1}
    assert result["verdict"] == NOT_SHOWN
    low, high = paired([4, 2, 4, 2])[3:5]
    assert f"2, 1, 2, 1 epochs (mean 1.5); time saved: +3.0 s (+{low:.1f} to +{high:.1f} s; p = " in result["can"]
    assert "300 training, 50 validation, 50 evaluation images and 4 seeds" in result["cannot"]
    assert json.loads((home / "out/study.json").read_text())["arms"] == json.loads(json.dumps(result["arms"]))
    assert "2934 / 3347 (87.7\u00a0%)" in page and "21.0 (n = 1)" in page and f"<b>{result['headline']}</b>" in page


def test_photos_in_two_splits_are_a_warning_of_the_study(studied):
    _, page = studied(
        "early_stopping", 2, lambda *cell: early(*cell) | {"photos_in_two_splits": {"training/evaluation": 12}}
    )
    assert "<li>12 photos are in both training and evaluation" in page


def test_a_stopped_training_that_is_no_beginning_of_the_full_one(studied):
    def other(value, seed):
        result = early(value, seed)
        return result if value == 0 or seed == 0 else {**result, "curve": [0.2, 0.4, 0.62, 0.5]}

    result, _ = studied("early_stopping", 2, other)
    (row,) = result["prefixes"]
    assert (row["pairs"], row["equal"]) == (2, 1) and row["largest_difference"] == pytest.approx(0.11)
    assert row["same_weights"] == 1  # the other kept the third epoch too, of another training
    assert "Only 1 of 2 stopped trainings" in result["can"] and "kept in 1 of 2 pairs" in result["can"]
    assert "−2.0 epochs in each of 2 pairs and −4.0 s in each of 2 pairs" in result["can"]


def stopped(value, seed):
    """Another curve than the full one's from the first epoch on, as on a GPU; shorter by 1, 2, 3 ... epochs."""
    return {"curve": [0.2, *[0.5] * 9] if value == 0 else [0.21, *[0.5] * (8 - seed)], "right": (8, 8, 8, 8, 8)}


def test_epochs_and_seconds_are_judged_each_on_its_own_where_prefixes_do_not_hold(studied):
    result, _ = studied("early_stopping", 4, stopped)
    assert "Only 0 of 4 stopped trainings" in result["can"] and "epochs run shorter, −2.5 epochs (" in result["can"]
    assert "seconds shorter, −5.0 s (" in result["can"] and "saved" not in result["can"]
    result, _ = studied("early_stopping", 2, lambda value, seed: stopped(value, 3 * seed))
    assert "epochs run not shown to differ, −2.5 epochs (" in result["can"]


def test_curves_are_means_and_ranges_as_far_as_all_were_trained(studied):
    curves = {(c["arm"], c["metric"]): c for c in studied("early_stopping", 4, early)[0]["curves"]}
    short = curves["patience 5", "default"]
    assert short["epoch"] == [1, 2, 3, 4] and short["n"] == 4
    column = [FULL[seed][2] for seed in range(4)]
    assert (short["mean"][2], short["low"][2], short["high"][2]) == (statistics.fmean(column), min(column), max(column))
    assert len(curves["no early stopping", "train_accuracy"]["epoch"]) == 6


def pretrained(value, seed):
    """The rarer the class, the more it gains."""
    right = (8 + seed % 2, 2, 6, 4, 1) if value == "none" else (8, 7, 7, 7, 8)
    return {"curve": [0.3, 0.5, 0.52] if value == "none" else [0.5, 0.79, 0.8], "right": right}


def test_pretrained_has_the_classes_and_whether_the_rare_gain_most(studied):
    result, page = studied("pretrained", 4, pretrained)
    rows = result["classes"][0]["rows"]
    assert [(row["class"], row["training"]) for row in rows][:2] == [("Fried food", 20), ("Dairy product", 40)]
    assert rows[0]["reference"] == {"correct": 4, "total": 40} and rows[0]["arm"] == {"correct": 32, "total": 40}
    assert rows[0]["gain"] == pytest.approx(0.7)
    rank = result["classes"][0]["rank"]
    assert rank["rho"] == pytest.approx(-1) and rank["holds"]
    assert rank["p"] == pytest.approx(2 / 120)  # two of the orders of five classes
    assert result["verdict"] == SHOWN and "higher top-1 accuracy" in result["headline"]
    assert "gain −1.00, p = 0.017, n = 5 classes" in result["can"]
    assert [arm["epoch_95"]["mean"] for arm in result["arms"]] == [2, 2]
    assert "epoch 2.0 ± 0.0 (n = 4) from scratch and 2.0 ± 0.0 (n = 4) pretrained: 0.0 ep" in result["can"]
    assert "at about epoch 10, by eye" in result["can"]
    cells = r"<td[^>]*>20</td><td[^>]*>4 / 40 \(10\s%\)</td><td[^>]*>32 / 40 \(80\s%\)</td>"
    assert re.search(rf"class 4 Fried food</th>{cells}", page)
    assert "+46.0 points" in page  # the lab report's class 4: from 126 of 287 to 258


def test_rare_classes_that_do_not_gain_most(home):
    part = part_of("pretrained", 2)
    gains = (9, 6, 7, 5, 6)
    recorded(home, part, lambda value, seed: {"curve": [0.5, 0.6], "right": (5,) * 5 if value == "none" else gains})
    arms = arms_of(part, records_of(part))
    rank = rare_gain_most(class_rows(*arms))
    assert rank["n"] == len(TRAINING) and rank["rho"] > 0 and not rank["holds"]
    assert rare_gain_most(class_rows(*arms)[:3]) is None


def test_the_p_of_many_classes_is_near_that_of_the_t_approximation():
    rng = np.random.default_rng(4)
    images = np.arange(11.0)
    gains = rankdata(-images + rng.normal(0, 4, 11))
    expected = spearmanr(images, gains).pvalue
    assert permutation_p(images - images.mean(), gains) == pytest.approx(expected, abs=0.01) and 0.001 < expected < 0.2


def test_the_lab_reports_rank_is_computed_from_its_two_tables():
    numbers = lab_numbers("pretrained")
    assert (tuple(numbers["class_names"]), tuple(numbers["training_images"])) == (FOOD11, SKEWED)
    rank = rare_gain_most(lab_gains(numbers, "none", "imagenet"))
    assert rank["n"] == 11 and rank["rho"] == pytest.approx(-0.87, abs=0.01) and rank["p"] < 0.005
    assert same_classes(numbers, [{"id": 6, "class": "noodles_pasta"}])
    assert not same_classes(numbers, [{"id": 0, "class": "apple_pie"}, {"id": 1, "class": "Dairy product"}])


def test_the_lab_reports_gains_are_beside_its_own_classes_alone(studied):
    def few_room(value, seed):
        return {"curve": [0.3, 0.5], "right": (10, 2, 6, 4, 1 + seed % 2) if value == "none" else (10, 7, 7, 7, 8)}

    result, page = studied("pretrained", 2, few_room)
    assert result["reported_rank"]["rho"] == pytest.approx(-0.87, abs=0.01) and "give −0.87 (" in result["can"]
    assert "1 of 5 classes have 95 % or more from scratch" in result["can"] and "Gain in the lab report" in page
    assert class_blocks(result)[1].columns[-1] == "Gain in the lab report"
    other = json.loads(json.dumps(result))
    for row in other["classes"][0]["rows"]:
        row["class"] = f"dish {row['id']}"
    assert class_blocks(other)[1].columns[-1] == "Gain"


def balance(value, seed):
    """The sampler gains in macro accuracy alone, and balanced softmax in nothing."""
    sampled = value == "sampler"
    macro = {"none": 0.6, "sampler": 0.8, "softmax": 0.6 + 0.05 * (seed % 2)}[value] + 0.002 * seed * sampled
    right = {"none": (9, 8, 8, 7, 1), "sampler": (9 - seed % 2, 8, 8, 7, 3), "softmax": (9, 8, 8, 7, seed % 2)}[value]
    return {"curve": [0.5, 0.6], "right": right, "macro": macro}


def test_balance_has_two_measures_and_its_intervals_are_over_all_comparisons(studied):
    result, page = studied("balance", 4, balance)
    assert result["judged"] == ["evaluation_top1", "evaluation_macro"]
    assert result["headline"].startswith("Class-weighted sampling has higher ")
    assert "macro accuracy" in result["headline"] and "softmax" not in result["headline"]
    rows = [row for row in result["differences"] if row["measure"] in result["judged"]]
    for measure in result["judged"]:  # two measures share the level
        plain, *others = [{int(k): v for k, v in arm[measure]["by_seed"].items()} for arm in result["arms"]]
        own = [row for row in rows if row["measure"] == measure]
        by_hand = contrasts(plain, others, families=2)
        assert [row["p_adjusted"] for row in own] == pytest.approx([contrast.p_adjusted for contrast in by_hand])
        assert [(row["low"], row["high"]) for row in own] == [(contrast.low, contrast.high) for contrast in by_hand]
    assert {row["level"] for row in result["differences"] if row["measure"] == "validation"} == {0.975}
    assert "over all 4 comparisons" in result["can"]
    assert result["arms"][0]["train_accuracy"]["n"] == 4
    assert not [row for row in result["differences"] if row["measure"] == "train_accuracy"]
    assert page.count("Training, same epoch</th>") == 1  # among the arms, not among the differences
    assert all(entry["rank"] for entry in result["classes"])
    assert page.count("(Spearman") == 4  # in the statement, below the tables


def test_where_macro_is_top1_one_of_them_is_judged(studied):
    result, _ = studied("balance", 4, lambda value, seed: {"curve": [0.5], "right": (8, 8, 8, 8, 7 + seed % 2)})
    assert result["judged"] == ["evaluation_top1"] and {row["level"] for row in result["differences"]} == {0.975}
    assert "Macro accuracy equals top-1 accuracy here" in result["can"]
    assert result["verdict"] == NOT_SHOWN and "macro" not in result["headline"]


def test_a_failed_training_leaves_its_pair_out_and_is_listed(studied):
    def result(value, seed):
        if (value, seed) == (0.005, 1):
            return None
        return {"curve": [0.4, 0.6 + value], "right": (9, 8, 8, 8, 8 + seed % 2)}

    content, page = studied("learning_rate", 3, result)
    assert [(arm["name"], arm["n"]) for arm in content["arms"]] == [("lr 0.01", 3), ("lr 0.005", 2), ("lr 0.0025", 3)]
    rows = [row for row in content["differences"] if row["measure"] == "validation"]
    assert [(row["arm"], row["n"], row["level"]) for row in rows] == [("lr 0.005", 2, 0.975), ("lr 0.0025", 3, 0.975)]
    assert [row["state"] for row in content["trainings"]].count("failed") == 1
    assert "it wrote nothing" in page


def test_a_training_that_was_cut_short_is_left_out_and_listed(studied):
    content, page = studied(
        "early_stopping", 3, lambda value, seed: early(value, seed) | {"interrupted": int((value, seed) == (0, 2))}
    )
    assert [arm["n"] for arm in content["arms"]] == [2, 3] and {row["n"] for row in content["differences"]} == {2}
    assert page.count("cut short, and left out") == 1


def test_diverged_trainings_are_counted_and_kept(studied):
    def result(value, seed):
        short = (value, seed) == (0.005, 1)
        return {"curve": [0.4] if short else [0.4, 0.6], "right": (9, 8, 8, 8, 8), "diverged": int(short)}

    content, page = studied("learning_rate", 3, result)
    assert [arm["diverged"] for arm in content["arms"]] == [0, 1, 0] and content["arms"][1]["validation"]["n"] == 3
    assert "3 of 3, 1 diverged" in page and "1 of 3 trainings of lr 0.005 diverged" in content["can"]


def test_the_teacher_is_an_arm_without_a_difference(studied):
    result, page = studied(
        "distill",
        3,
        lambda value, seed: {"curve": [0.5, 0.6 + 0.1 * value + 0.01 * seed], "right": (8,) * 5},
        lambda value, seed: {"curve": [0.6, 0.8], "right": (9,) * 5},
    )
    assert [arm["name"] for arm in result["arms"]] == ["student alone", "distilled (weight 0.5)", "teacher (resnet50)"]
    assert {row["arm"] for row in result["differences"]} == {"distilled (weight 0.5)"}
    assert len(result["experiments"]) == 2 and "above 95\u00a0% by epoch 20" in page
    assert (result["teacher"]["of"], result["teacher"]["planned"]) == (3, 3)
    assert "90.0 % (validation 80.0 %), that of the student alone 80.0 ± 0.0 %" in result["can"]
    assert "no better" not in result["can"] + result["headline"]
    assert "distilled (weight 0.5) 3, teacher (resnet50) 3)" in page


def test_a_teacher_that_is_no_better_than_its_student(studied):
    result, _ = studied(
        "distill",
        4,
        lambda value, seed: {"curve": [0.5, 0.7 + 0.01 * seed], "right": (8,) * 5},
        lambda value, seed: {"curve": [0.3, 0.4], "right": (4,) * 5},
        teachers=1,
    )
    assert "the only one trained" in result["can"] and "no better than its student" in result["can"]
    assert result["verdict"] == NOT_SHOWN and "no better than its student" in result["headline"]


FILE = {"arch": "resnet50", "sha256": "ab" * 32, "image_px": 32, "asked": True}


def distilled(teacher):
    def result(value, seed):
        right = (8, 8, 8, 8, 8) if value == 0 else (9, 9, 9, 8 + seed % 2, 9)
        return {"curve": [0.5, 0.6 + 0.2 * value + 0.02 * seed * value], "right": right, "teacher": teacher}

    return result


def test_a_teacher_given_by_file_is_known_from_what_its_students_recorded(studied):
    own = {"validation": {"top1": 0.7}, "evaluation": {"top1": 0.75, "n": 50}, "same_photos": True}
    result, _ = studied("distill", 4, distilled(FILE | own))
    assert "a resnet50 given by file" in result["can"] and "75.0 % (validation 70.0 %)" in result["can"]
    assert result["verdict"] == SHOWN and "no better than its student" in result["headline"]
    assert (result["teacher"]["of"], result["teacher"]["files"]) == (None, 1)


@pytest.mark.parametrize(
    "own, words",
    [
        ({"validation": {"top1": 0.7}, "evaluation": {"top1": 0.75}, "same_photos": False}, "on other photos"),
        ({"validation": None, "evaluation": None, "same_photos": None}, "neither its accuracy nor whether it saw"),
    ],
)
def test_a_teacher_that_may_know_the_evaluation_images(studied, own, words):
    result, _ = studied("distill", 3, distilled(FILE | own))
    assert words in result["can"] and "no better" not in result["can"] + result["headline"]


def test_the_students_teacher_is_named_and_not_the_mean_of_the_teachers(studied):
    own = {"validation": {"top1": 0.9}, "evaluation": {"top1": 0.92}, "same_photos": True}
    result, _ = studied(
        "distill", 3, distilled(FILE | own), lambda value, seed: {"curve": [0.5 + 0.2 * seed], "right": (4 + seed,) * 5}
    )
    assert result["teacher"]["evaluation_top1"] == 0.92 and result["teacher"]["of"] == 3
    assert "the best on validation of 3" in result["can"] and "92.0 % (validation 90.0 %)" in result["can"]


def test_the_kind_of_gain_is_known_by_three_splits(studied):
    result, _ = studied("distill", 4, distilled(FILE | {"evaluation": {"top1": 0.95}, "validation": {"top1": 0.9}}))
    assert "by split: training +11.5 points (" in result["can"] and ", evaluation +9.0 points (" in result["can"]
    assert "A gain on training, validation and evaluation is shown." in result["can"]

    def overfitted(value, seed):  # better where it was trained and chosen, not on the images that steered nothing
        right = (8, 8, 8, 8, 8 + (seed % 2) * (1 if value else -1))
        return distilled(None)(value, seed) | {"right": right}

    result, _ = studied("distill", 4, overfitted)
    assert "A gain on training and validation is shown, not on evaluation images." in result["can"]
    assert result["teacher"] is None and "teacher" not in result["can"]


def test_few_pairs_and_what_they_cannot_show(studied):
    def result(value, seed):
        return {"curve": [0.5, 0.6], "right": (8, 8, 8, 8, 8 if value == "none" else 7 + seed % 3)}

    content, _ = studied("pretrained", 3, result)
    assert content["few"] == {"n": 3, "p": 0.25} and "below p = 0.25" in content["cannot"]
    content, _ = studied("pretrained", 6, result)
    assert content["few"] is None and "sign-flip" not in content["cannot"]


def test_a_headline_begins_with_no_bare_field(studied):
    def result(value, seed):
        return {"curve": [0.5, 0.6], "right": (8, 8, 8, 8, 8) if value != 1 else (4, 4, 4, 4, 4 + seed % 2)}

    content, _ = studied("step_size", 4, result)
    assert content["headline"].startswith("A step_size of 1 has lower top-1 accuracy than a step_size of 7")
    assert content["never_decays"] == [] and "never decays" not in content["can"]  # 25 epochs


def test_the_epochs_decide_which_decay_never_comes(studied, monkeypatch):
    monkeypatch.setitem(SETTINGS, "epochs", 7)
    content, _ = studied("step_size", 2, lambda value, seed: {"curve": [0.5], "right": (8, 8, 8, 8, 8)})
    assert content["never_decays"] == ["step_size 7", "step_size 14"]
    assert "In these 7 epochs" in content["can"] and "step_size 7 and step_size 14: one and" in content["can"]


def test_the_epoch_of_95_percent_is_the_first_that_reaches_it(home):
    part = part_of("pretrained", 2)
    recorded(home, part, lambda value, seed: {"curve": [0.1, 0.94, 0.95, 0.5, 1.0], "right": (5,) * 5})
    assert epoch_95(records_of(part)[0].trials[0]) == 3


def test_the_wording(studied):
    """A whole page, and the statements of the others."""
    result, _ = studied("early_stopping", 4, early)
    texts = [markdown.render(study_document(result))]
    for name, trainings in (
        ("pretrained", pretrained),
        ("balance", balance),
        ("step_size", lambda value, seed: {"curve": [0.5], "right": (8, 8, 8, 8, 8 - seed * (value == 1))}),
        ("distill", distilled(FILE | {"evaluation": {"top1": 0.95}, "validation": {"top1": 0.9}})),
    ):
        result, _ = studied(name, 3, trainings)
        texts.append(
            "\n".join([f"{name}: {result['verdict']}", *(result[key] for key in ("headline", "can", "cannot"))])
        )
    golden("study.txt", "\n\n".join(texts) + "\n")


def test_names_are_escaped_on_the_page(home):
    part = part_of("pretrained", 2)
    space = json.loads(json.dumps(part.space).replace('"imagenet"', '"<script>alert(1)</script>.pth"'))
    part = replace(part, space=space)
    plan_in(home / "out", "pretrained", part)
    recorded(home, part, pretrained)
    assert "<script>alert" not in study_page("pretrained", home / "out")[1].read_text()


def test_what_is_not_there_is_refused_in_one_line(home, capsys):
    for words, message in (
        (["study", "sleep"], "no study 'sleep'; the studies are early_stopping, pretrained"),
        (["study", "balance", "--out", str(home)], "no study there; run it first: python -m experiments study balance"),
    ):
        assert main(words) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    part = part_of("balance", 2)
    plan_in(home, "balance", part)
    assert main(["study", "balance", "--out", str(home)]) == 1
    assert "no training has a result yet" in capsys.readouterr().err
    (home / "plan.json").write_text("{")
    assert main(["study", "balance", "--out", str(home)]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["early_stopping", "pretrained", "learning_rate", "step_size"])
def test_the_lab_reports_numbers_are_of_arms_that_the_studies_have(name):
    part, arms = part_of(name, 2), lab_numbers(name)["arms"]
    assert set(arms) == {f"{value:g}" if not isinstance(value, str) else value for value in part.values}
    for arm in arms.values():
        if "per_class" in arm:  # the lab report's own sums
            assert [sum(column) for column in zip(*arm["per_class"])] == arm["evaluation_top1"]


NEW = ("verdict", "judged", "few", "never_decays", "teacher", "reported_rank")


def test_an_older_study_json_still_gives_its_page(studied, home):
    studied("pretrained", 2, pretrained)
    shutil.rmtree(home / "nni-experiments")
    file = home / "out/study.json"
    old = {key: value for key, value in json.loads(file.read_text()).items() if key not in NEW}
    for entry in old["classes"]:
        del entry["rank"], entry["full"]
    for arm in old["arms"]:
        del arm["diverged"]
    file.write_text(json.dumps(old))
    content, page = study_page("pretrained", home / "out")
    assert content["headline"] in page.read_text() and f"class 4 {CLASSES[4]}" in page.read_text()
