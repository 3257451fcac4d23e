"""What the sentences of a study say, and do not say, of hand-made trainings."""

from __future__ import annotations

import json
import shutil

import pytest
from fixtures_study import CLASSES, SETTINGS, part_of, plan_in, recorded

from analysis.stats.paired import holm, paired
from analysis.study.classes import rare_gain_most
from analysis.study.command import study
from analysis.study.page import class_table
from analysis.study.reported import reported, reported_gains, same_classes
from data.food11 import CLASSES as FOOD11
from data.food11 import SKEWED


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Makes a study of these trainings and returns study.json's content and the page's text."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(name, seeds, result, teacher=None):
        shutil.rmtree(tmp_path / "nni-experiments", ignore_errors=True)
        part = part_of(name, seeds)
        parts = [part]
        if teacher is not None:
            parts.insert(0, part_of("distill_teacher", seeds, "teacher"))
            recorded(tmp_path, parts[0], teacher)
        plan_in(tmp_path / "out", name, *parts)
        recorded(tmp_path, part, result)
        found, page = study(name, tmp_path / "out")
        return found, page.read_text()

    return make


def stopped(value, seed):
    """Another curve than the full one's from the first epoch on, as on a GPU; shorter by 1, 2, 3 ... epochs."""
    return {"curve": [0.2, *[0.5] * 9] if value == 0 else [0.21, *[0.5] * (8 - seed)], "right": (8, 8, 8, 8, 8)}


def test_epochs_and_seconds_are_judged_each_on_its_own_where_prefixes_do_not_hold(told):
    result, _ = told("early_stopping", 4, lambda value, seed: stopped(value, seed))
    assert "Only 0 of 4 stopped trainings" in result["can"] and "epochs run shorter, −2.5 epochs (" in result["can"]
    assert "seconds shorter, −5.0 s (" in result["can"] and "saving" not in result["can"]
    result, _ = told("early_stopping", 2, lambda value, seed: stopped(value, 3 * seed))
    assert "epochs run not shown to differ, −2.5 epochs (" in result["can"]


def balance(value, seed):
    """The sampler gains in macro accuracy alone, and balanced softmax in nothing."""
    macro = {"none": 0.6, "sampler": 0.8, "softmax": 0.6 + 0.05 * (seed % 2)}[value] + 0.002 * seed * (
        value == "sampler"
    )
    right = {"none": (9, 8, 8, 7, 1), "sampler": (9 - seed % 2, 8, 8, 7, 3), "softmax": (9, 8, 8, 7, seed % 2)}[value]
    return {"curve": [0.5, 0.6], "right": right, "macro": macro}


def test_balance_names_the_measure_and_its_intervals_are_over_all_comparisons(told):
    result, page = told("balance", 4, balance)
    assert result["judged"] == ["evaluation_top1", "evaluation_macro"]
    assert result["headline"].startswith("Class-weighted sampling is better in ")
    assert "macro accuracy" in result["headline"] and "softmax" not in result["headline"]
    rows = [row for row in result["differences"] if row["measure"] in result["judged"]]
    assert {row["level"] for row in rows} == {1 - 0.05 / 4}  # two arms, two measures
    by_hand = [paired(list(row["by_seed"].values()), 4) for row in rows]
    p_values = [found.p_flip if found.p_t is None else found.p_t for found in by_hand]
    assert [row["p_adjusted"] for row in rows] == pytest.approx(holm(p_values))
    assert [(row["low"], row["high"]) for row in rows] == [(found.low, found.high) for found in by_hand]
    assert {row["level"] for row in result["differences"] if row["measure"] == "validation"} == {0.975}
    assert "over all 4 comparisons" in result["can"]
    assert result["arms"][0]["train_accuracy"]["n"] == 4
    assert not [row for row in result["differences"] if row["measure"] == "train_accuracy"]
    assert page.count("Training, same epoch</th>") == 1  # among the arms, not among the differences
    assert (
        all(entry["rank"] for entry in result["classes"]) and page.count("(Spearman") == 4
    )  # in the sentence, under the tables


def test_where_macro_is_top1_one_of_them_is_judged(told):
    result, _ = told("balance", 3, lambda value, seed: {"curve": [0.5], "right": (8, 8, 8, 8, 7 + seed % 2)})
    assert result["judged"] == ["evaluation_top1"] and {row["level"] for row in result["differences"]} == {0.975}
    assert "acro accuracy is top-1 accuracy here" in result["can"]
    assert result["headline"] == "No difference in evaluation top-1 accuracy is shown."


FILE = {"arch": "resnet50", "sha256": "ab" * 32, "image_px": 32, "asked": True}


def taught(teacher):
    def result(value, seed):
        right = (8, 8, 8, 8, 8) if value == 0 else (9, 9, 9, 8 + seed % 2, 9)
        return {"curve": [0.5, 0.6 + 0.2 * value + 0.02 * seed * value], "right": right, "teacher": teacher}

    return result


def test_a_teacher_given_by_file_is_told_from_what_its_students_recorded(told):
    own = {"validation": {"top1": 0.7}, "evaluation": {"top1": 0.75, "n": 50}, "same_photos": True}
    result, _ = told("distill", 3, taught(FILE | own))
    assert "ne teacher, a resnet50 given by file, taught all seeds" in result["can"]
    assert "75.0 % of the evaluation images right (validation 70.0 %)" in result["can"]
    assert result["headline"].endswith("on the evaluation split, taught by a teacher no better than itself.")
    assert (result["teacher"]["of"], result["teacher"]["files"]) == (None, 1)


@pytest.mark.parametrize(
    "own, said",
    [
        (
            {"validation": {"top1": 0.7}, "evaluation": {"top1": 0.75}, "same_photos": False},
            "it was trained on other photos or another split, which may hold images of this evaluation split",
        ),
        (
            {"validation": None, "evaluation": None, "same_photos": None},
            "neither its accuracy nor whether it saw images",
        ),
    ],
)
def test_a_teacher_that_may_know_the_evaluation_images_is_told(told, own, said):
    result, _ = told("distill", 3, taught(FILE | own))
    assert said in result["can"] and "no better" not in result["can"] + result["headline"]


def test_the_students_teacher_is_named_and_not_the_mean_of_the_teachers(told):
    own = {"validation": {"top1": 0.9}, "evaluation": {"top1": 0.92}, "same_photos": True}
    result, _ = told(
        "distill", 3, taught(FILE | own), lambda value, seed: {"curve": [0.5 + 0.2 * seed], "right": (4 + seed,) * 5}
    )
    assert result["teacher"]["evaluation_top1"] == 0.92 and result["teacher"]["of"] == 3
    assert "the best on validation of 3" in result["can"] and "92.0 % of the evaluation" in result["can"]


def test_the_kind_of_gain_is_told_by_three_splits(told):
    result, _ = told("distill", 4, taught(FILE | {"evaluation": {"top1": 0.95}, "validation": {"top1": 0.9}}))
    assert "by split: training +11.5 points (" in result["can"] and ", evaluation +9.0 points (" in result["can"]
    assert "a gain on training, validation and evaluation is shown (the report's 86 to 95 % are of" in result["can"]

    def seen(value, seed):  # better where it was trained and chosen, not on the images that steered nothing
        return taught(None)(value, seed) | {"right": (8, 8, 8, 8, 8 + (seed % 2) * (1 if value else -1))}

    result, _ = told("distill", 4, seen)
    assert "a gain on training and validation is shown, not on evaluation images" in result["can"]
    assert result["teacher"] is None and "one teacher" not in result["can"]


def test_the_reports_rank_is_computed_from_its_two_tables():
    part = reported("pretrained")
    assert (tuple(part["class_names"]), tuple(part["training_images"])) == (FOOD11, SKEWED)
    rank = rare_gain_most(reported_gains(part))
    assert rank["n"] == 11 and rank["rho"] == pytest.approx(-0.87, abs=0.01) and rank["p"] < 0.005
    assert same_classes(part, [{"id": 6, "class": "noodles_pasta"}])
    assert not same_classes(part, [{"id": 0, "class": "apple_pie"}, {"id": 1, "class": "Dairy product"}])


def pretrained(value, seed):
    return {"curve": [0.3, 0.5], "right": (10, 2, 6, 4, 1 + seed % 2) if value == "none" else (10, 7, 7, 7, 8)}


def test_the_reports_gains_stand_beside_its_own_classes_alone(told):
    result, page = told("pretrained", 2, pretrained)
    assert (
        result["reported_rank"]["rho"] == pytest.approx(-0.87, abs=0.01) and "report's own two tables" in result["can"]
    )
    assert "1 of 5 classes have 95 % or more from scratch already" in result["can"] and "Gain in the report" in page
    entry = json.loads(json.dumps(result["classes"][0]))
    for row in entry["rows"]:
        row["class"] = f"dish {row['id']}"
    assert class_table(result, entry)[1][-1] == "Gain" and class_table(result, result["classes"][0])[1][-1] != "Gain"


def test_few_pairs_are_told_with_what_they_cannot_show(told):
    def result(value, seed):
        return {"curve": [0.5, 0.6], "right": (8, 8, 8, 8, 8 if value == "none" else 7 + seed % 3)}

    found, _ = told("pretrained", 3, result)
    assert (
        found["few"] == {"n": 3, "p": 0.25}
        and "With 3 pairs the exact sign-flip test cannot go below p = 0.25" in (found["cannot"])
    )
    found, _ = told("pretrained", 6, result)
    assert found["few"] is None and "sign-flip" not in found["cannot"]


def test_diverged_trainings_are_counted_and_kept(told):
    def result(value, seed):
        short = (value, seed) == (0.005, 1)
        return {"curve": [0.4] if short else [0.4, 0.6], "right": (9, 8, 8, 8, 8), "diverged": int(short)}

    found, page = told("learning_rate", 3, result)
    assert [arm["diverged"] for arm in found["arms"]] == [0, 1, 0] and found["arms"][1]["validation"]["n"] == 3
    assert "3 of 3, 1 diverged" in page and "1 of 3 trainings of lr 0.005 diverged" in found["can"]


def test_a_sentence_begins_with_no_bare_field_and_a_decay_that_never_comes_is_told(told):
    def result(value, seed):
        return {"curve": [0.5, 0.6], "right": (8, 8, 8, 8, 8) if value != 1 else (4, 4, 4, 4, 4 + seed % 2)}

    found, _ = told("step_size", 4, result)
    assert found["headline"] == (
        "A step_size of 1 is worse in top-1 accuracy than a step_size of 7 on the evaluation split."
    )
    assert found["never_decays"] == [] and "never decays" not in found["can"]  # 25 epochs


def test_the_epochs_decide_which_decay_never_comes(told, monkeypatch):
    monkeypatch.setitem(SETTINGS, "epochs", 7)
    found, _ = told("step_size", 2, lambda value, seed: {"curve": [0.5], "right": (8, 8, 8, 8, 8)})
    assert found["never_decays"] == ["step_size 7", "step_size 14"]
    assert "n these 7 epochs the learning rate never decays under step_size 7 and step_size 14: one and" in found["can"]


NEW = ("judged", "few", "never_decays", "teacher", "reported_rank")


def test_an_older_study_json_still_gives_its_page(told, tmp_path):
    told("pretrained", 2, pretrained)
    shutil.rmtree(tmp_path / "nni-experiments")
    file = tmp_path / "out/study.json"
    old = {key: value for key, value in json.loads(file.read_text()).items() if key not in NEW}
    for entry in old["classes"]:
        del entry["rank"], entry["full"]
    for arm in old["arms"]:
        del arm["diverged"]
    file.write_text(json.dumps(old))
    found, page = study("pretrained", tmp_path / "out")
    assert found["headline"] in page.read_text() and f"class 4 {CLASSES[4]}" in page.read_text()
