"""A teacher's file: read whatever its form, its outputs put in order, refused by name where it does not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from fixtures_trial import run_trial_command, small_in_place
from test_trial_interrupted import Cut, curve, cut_after, hyperparameters, settings
from test_trial_model import OLD, published

from data.cache import open_cache
from data.food11 import CLASSES
from experiments.space import searched_values
from trial import TrialError
from trial.checkpoint import refuse_others
from trial.files import write_hyperparameters, write_weights
from trial.hyperparameters import Hyperparameters
from trial.model import build_model, open_teacher
from trial.run import describe, run_trial


@pytest.fixture
def small_students(monkeypatch) -> None:
    """Of the trainings in this process; teachers are what their files say."""
    monkeypatch.setattr("trial.run.build_model", small_in_place)


@pytest.fixture(scope="module")
def cache(tiny_cache):
    return open_cache(tiny_cache)


@pytest.fixture(scope="module")
def school(cache, tmp_path_factory) -> Path:
    """A ResNet50 of one tiny epoch: the folder of its trial."""
    folder = tmp_path_factory.mktemp("school")
    h = hyperparameters(arch="resnet50", epochs=1, image_px=32, batch_size=16)
    final = run_trial(h, cache, settings(folder), lambda metrics: None)
    assert final["epochs_run"] == 1 and 0 < final["train_accuracy"] < 1
    return folder


def student(teacher: Path | str, **values) -> Hyperparameters:
    return hyperparameters(teacher=str(teacher), distill_weight=0.5, **values)


@pytest.mark.slow
def test_a_trials_best_weights_teach(school, cache):
    teacher = open_teacher(student(school / "best.pt"), cache)
    saved = torch.load(school / "best.pt", weights_only=True)["model"]
    assert all(torch.equal(value, saved[name]) for name, value in teacher.model.state_dict().items())
    assert not teacher.model.training and len(teacher.model.layer3) == 6  # a ResNet50
    facts, result = teacher.facts, json.loads((school / "result.json").read_text())
    assert (facts["arch"], facts["image_px"], facts["same_photos"], facts["asked"]) == ("resnet50", 32, True, True)
    assert facts["evaluation"] == {name: result["evaluation"][name] for name in ("top1", "top3", "macro", "n")}
    assert facts["trained_with"] == result["hyperparameters"]
    assert "it was trained at 32 px, and is used at 36 px" in teacher.notes


def test_a_result_of_another_training_is_not_taken_for_the_teachers(school, cache, tmp_path):
    shutil.copy(school / "best.pt", tmp_path / "best.pt")
    result = json.loads((school / "result.json").read_text())
    result["hyperparameters"]["seed"] += 1
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert open_teacher(student(tmp_path / "best.pt"), cache).facts["evaluation"] is None


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "mobilenet_v3_small"])
def test_a_bare_state_dict_tells_its_architecture_and_no_class_names(arch, cache, tmp_path):
    model = build_model(arch, "none", 11, 0).eval()
    torch.save({name: value.half() for name, value in model.state_dict().items()}, tmp_path / "bare.pth")
    teacher = open_teacher(student(tmp_path / "bare.pth"), cache)
    assert teacher.facts["arch"] == arch and teacher.facts["trained_with"] is None
    assert "no class names in it: its outputs are taken in the order of the cache's classes" in teacher.notes


@pytest.mark.parametrize(
    ("arch", "entries", "dtype"), [("resnet18", 102, torch.float32), ("resnet50", 267, torch.float16)]
)
def test_a_file_of_the_published_shape_teaches(arch, entries, dtype, cache, tmp_path):
    file = published(arch, 11, dtype)
    assert len(file) == entries
    torch.save({"state_dict": {f"module.{name}": value for name, value in file.items()}}, tmp_path / "w.pth", **OLD)
    teacher = open_teacher(student(tmp_path / "w.pth"), cache)
    assert torch.equal(teacher.model.layer4[0].bn1.running_var, file["layer4.0.bn1.running_var"].float())
    assert teacher.facts["arch"] == arch and teacher.model.bn1.num_batches_tracked == 0
    assert "teacher: taken from its state_dict" in teacher.notes
    assert "teacher: the prefix module. taken off the names" in teacher.notes


def save(path: Path, cache, classes=None, **changed) -> Path:
    """A teacher of these classes, some weights or hyperparameters changed."""
    names = list(classes or cache.classes)
    model = build_model("resnet18", "none", len(names), 0)
    weights = {name: value for name, value in changed.items() if "." in name}
    h = {**asdict(hyperparameters()), **{name: value for name, value in changed.items() if "." not in name}}
    state = {**model.state_dict(), **weights}
    torch.save({"model": state, "classes": names, "hyperparameters": h}, path)
    return path


def test_another_order_of_the_classes_is_put_right(cache, tmp_path):
    images = torch.randn(4, 3, 36, 36, generator=torch.Generator().manual_seed(0))
    expected = open_teacher(student(save(tmp_path / "a.pt", cache)), cache)(images)
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    head = {name: value[order] for name, value in saved["model"].items() if name.startswith("fc.")}
    turned = {**saved, "model": {**saved["model"], **head}, "classes": [saved["classes"][i] for i in order]}
    torch.save(turned, tmp_path / "b.pt")
    teacher = open_teacher(student(tmp_path / "b.pt"), cache)
    torch.testing.assert_close(teacher(images), expected)
    assert any("another order" in note for note in teacher.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "vgg"}, "arch 'vgg'; expected one of torchvision's classifiers"),
        ({"arch": "resnet50"}, "(resnet50) does not fit: missing layer1.0.conv3.weight"),
        ({"fc.bias": torch.full((11,), float("nan"))}, "it holds weights that are not finite (fc.bias)"),
        ({"fc.weight": torch.zeros(11, 5)}, "fc.weight is (11, 5), expected (11, 512)"),
        ({"fc.bias": torch.zeros(5)}, "5 outputs for the 11 classes of"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(change, message, cache, tmp_path):
    file = save(tmp_path / "t.pt", cache, **change)
    with pytest.raises(TrialError) as error:
        open_teacher(student(file), cache)
    assert message in str(error.value) and f"teacher = '{file}'" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (lambda known: ("pho", *known[1:]), "only in the weights pho; only in the cache Bread."),
        (lambda known: known[:-2], f"only in the weights none; only in the cache {CLASSES[9]}, {CLASSES[10]}."),
        (
            lambda known: tuple("abcdefghijk"),
            "knows 11 classes and {}: only in the weights a, b, c and 8 more; only in the cache",
        ),
    ],
)
def test_other_classes_are_refused_naming_them(names, message, cache, tmp_path):
    file = save(tmp_path / "t.pt", cache, names(cache.classes))
    with pytest.raises(TrialError) as error:
        open_teacher(student(file), cache)
    assert message.format(f"{cache.directory} holds 11") in str(error.value) and "\n" not in str(error.value)


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: build_model("resnet18", "none", 1000, 0).state_dict(), "1000 outputs for the 11 classes of"),
        (lambda: {"conv1.weight": torch.zeros(1)}, "it has no head (fc.weight)"),
        (lambda: [1, 2], "expected a state dict"),
        (Payload, "not a state-dict file that loads safely: it holds pickled code (print)"),
        (
            lambda: {"cls_token": torch.ones(2), "blocks.0.norm.weight": torch.ones(2)},
            "it holds a vision transformer; expected one of torchvision's classifiers. Train",
        ),
        (lambda: {"features.0.weight": torch.ones(2)}, "it holds a VGG or AlexNet; expected one of torchvision's"),
    ],
)
def test_a_file_that_is_no_teacher_is_refused_and_never_executed(content, message, cache, tmp_path, capsys):
    torch.save(content(), tmp_path / "t.pt")
    with pytest.raises(TrialError) as error:
        open_teacher(student(tmp_path / "t.pt"), cache)
    assert message in str(error.value) and "executed" not in capsys.readouterr().out


def test_describe_finds_a_teacher_that_is_not_there_or_searched(school, tiny_cache, tmp_path):
    given = {"weights": "none", "image_px": 36}
    problems = describe({**given, "distill_weight": 0.5}, {}, tiny_cache)["problems"]
    assert len(problems) == 1 and "distill_weight = 0.5 without a teacher" in problems[0]
    problems = describe({**given, "teacher": "gone.pt"}, {"distill_weight": [0, 0.5]}, tiny_cache)["problems"]
    assert len(problems) == 1 and "teacher = 'gone.pt': cannot be read (No such file or directory)" in problems[0]
    searched = {"teacher": [str(school / "best.pt"), "gone.pt"], "distill_weight": [0.1, 0.9]}
    assert len(describe(given, searched, tiny_cache)["problems"]) == 1
    del searched["teacher"][1]
    assert describe(given, searched, tiny_cache)["problems"] == []
    assert len(describe({**given, "teacher": "gone.pt"}, {}, tmp_path)["problems"]) == 2  # no cache there either


def test_the_check_hands_over_what_the_search_space_may_choose():
    space = {
        "teacher": {"_type": "choice", "_value": ["a.pt", "b.pt"]},
        "distill_weight": {"_type": "quniform", "_value": [0, 0.9, 0.1]},
        "lr": {"_type": "lognormal", "_value": [0, 1]},
        "arch": {"_type": "choice", "_value": []},
        "nested": {"_type": "choice", "_value": [{"_name": "x"}]},
    }
    assert searched_values(space) == {"teacher": ["a.pt", "b.pt"], "distill_weight": [0, 0.9]}
    assert searched_values({}) == searched_values(None) == {}


@pytest.mark.slow
def test_a_distilled_trial_goes_on_bit_for_bit_with_the_same_teacher_only(
    school, small_students, cache, tmp_path, capsys
):
    teacher, h = tmp_path / "teacher.pt", student(tmp_path / "teacher.pt", epochs=3, balance="sampler")
    shutil.copy(school / "best.pt", teacher)
    run_trial(h, cache, settings(tmp_path / "whole"), lambda metrics: None)
    cut = tmp_path / "cut"
    with pytest.raises(Cut):
        run_trial(h, cache, settings(cut), cut_after(2))
    state = torch.load(teacher, weights_only=True)
    torch.save({**state, "model": {**state["model"], "fc.bias": state["model"]["fc.bias"] + 1}}, teacher)
    with pytest.raises(TrialError, match=r"another training: teacher 'sha256 \w{12}' there, 'sha256 \w{12}' here"):
        run_trial(h, cache, settings(cut), lambda metrics: None)
    moved = replace(h, teacher=str(school / "best.pt"))  # the same file at another place
    write_hyperparameters(cut, {}, h)
    refuse_others(cut, moved)
    with pytest.raises(TrialError, match="holds an interrupted training with distill_weight = 0.5"):
        refuse_others(cut, replace(moved, distill_weight=0.6))
    run_trial(moved, cache, settings(cut), lambda metrics: None)
    assert "continued after epoch 2" in capsys.readouterr().out
    assert curve(cut) == curve(tmp_path / "whole")
    one, other = (json.loads((folder / "result.json").read_text()) for folder in (cut, tmp_path / "whole"))
    for name in ("training", "validation", "evaluation"):
        assert one[name] == other[name], name
    assert one["teacher"]["sha256"] == other["teacher"]["sha256"]


@pytest.mark.slow
def test_the_command_distils_and_its_record_answers_for_all_three_splits(school, tiny_cache, tmp_path):
    words = ["--cache", str(tiny_cache), "--output", str(tmp_path), "--weights", "none", "--image-px", "32"]
    words += ["--epochs", "1", "--threads", "1", "--teacher", str(school / "best.pt"), "--distill-weight", "0.5"]
    done = run_trial_command(*words)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert f"teacher resnet50 {school / 'best.pt'} (sha256 {result['teacher']['sha256'][:12]})" in done.stdout
    assert f"{result['teacher']['evaluation']['top1']:.4f} of 22 evaluation images right" in done.stdout
    epoch = json.loads((tmp_path / "epochs.jsonl").read_text())
    assert (result["training"]["accuracy"], result["training"]["n"]) == (epoch["train_accuracy"], 66)
    for split, n in (("validation", 22), ("evaluation", 22)):
        rows = result[split]["per_class"]
        assert result[split]["macro"] == pytest.approx(sum(row["correct"] / row["total"] for row in rows) / 11)
        assert sum(row["correct"] for row in rows) / n == result[split]["top1"]
    assert result["validation"]["macro"] == epoch["val_macro"] == result["final"]["val_macro"]
    assert [row["total"] for row in result["training"]["per_class"]] == [6] * 11


def test_the_control_arm_notes_that_its_teacher_is_not_used(school, small_students, cache, tmp_path, capsys):
    h = hyperparameters(teacher=str(school / "best.pt"), epochs=1)
    run_trial(h, cache, settings(tmp_path), lambda metrics: None)
    assert "it is not used: distill_weight = 0" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text())["teacher"]["asked"] is False


def test_a_teacher_of_another_balance_is_told(cache, tmp_path):
    write_weights(
        tmp_path / "t.pt", build_model("resnet18", "none", 11, 0).state_dict(), cache.classes, hyperparameters()
    )
    notes = open_teacher(student(tmp_path / "t.pt", balance="softmax"), cache).notes
    assert any("trained with balance none, the student with softmax" in note for note in notes)
