"""`python -m trial` alone, as a person runs it; and the hyperparameters that it accepts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE_S, ROOT, run_module
from fixtures_data import SPLITS, noise_jpeg, write_tree
from fixtures_trial import run_trial_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.prepare import Settings, prepare
from data.sample import GENERATOR
from experiments.space import space_findings
from trial import TrialError
from trial.__main__ import parse
from trial.hyperparameters import Hyperparameters, describe_fields


@pytest.fixture(scope="module")
def alone(tiny_cache, tmp_path_factory):
    """A finished trial of two epochs: (its folder, what it printed). Its cache has three photos in two splits."""
    folder, cache = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("shared") / "cache"
    manifest = Path(shutil.copytree(tiny_cache, cache)) / "manifest.json"
    shared = {"photos_in_two_splits": {"training/evaluation": 3}}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | shared))
    words = [
        "--weights",
        "none",
        "--image-px",
        "32",
        "--epochs",
        "2",
        "--lr",
        "0.01",
        "--batch-size",
        "16",
        "--threads",
        "1",
    ]
    done = run_module("trial", "--cache", str(cache), "--output", str(folder), *words)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_log_has_a_readable_line_an_epoch_and_the_reports_table(alone):
    _, said = alone
    assert said.count("validation loss") == 2 and "epoch   1/2  lr 0.010000" in said
    assert "Test set: Top1 Accuracy: " in said and "/22 (" in said and "class 10 Vegetable/Fruit" in said


@pytest.mark.parametrize(
    ("locale", "table"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"class 1  \\u9762\\u6761 "),
        ({"PYTHONIOENCODING": "latin-1"}, b"class 2  \\udce9\xe9\\n "),
    ],
)
def test_no_name_of_a_class_loses_its_table_after_the_training(locale, table, tmp_path):
    """The last class is one that an earlier version's cache may hold: a byte that is no text, and a new line."""
    files = {
        f"{split}/{dish}/{i}.jpg": noise_jpeg(i)
        for split in SPLITS
        for dish in ("<b>", "面条", "ramen")
        for i in (1, 2)
    }
    prepare(write_tree(tmp_path / "s", files), tmp_path / "cache", Settings(32))
    manifest = json.loads((tmp_path / "cache/manifest.json").read_text())
    manifest["classes"] = ["<b>", "面条", "\udce9é\n"]
    (tmp_path / "cache/manifest.json").write_text(json.dumps(manifest))
    words = [
        "--cache",
        "cache",
        "--output",
        "out",
        "--weights",
        "none",
        "--image-px",
        "32",
        "--epochs",
        "1",
        "--threads",
        "1",
    ]
    places = [str(tmp_path / word) if word in ("cache", "out") else word for word in words]
    environment = {**os.environ, "PYTHONUTF8": "1", **locale}
    command = [sys.executable, "-m", "trial"]
    done = subprocess.run([*command, *places], cwd=ROOT, env=environment, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0 and table in done.stdout, done.stderr
    assert [
        row["class"] for row in json.loads((tmp_path / "out/result.json").read_text("utf-8"))["evaluation"]["per_class"]
    ] == (manifest["classes"])


def test_nnis_log_takes_every_name_too(tmp_path, monkeypatch):
    """NNI opens a trial's log in the locale's encoding and puts its own stream in stdout's place."""
    from nni.runtime.log import _LogFileWrapper

    from data import show_any_name

    with open(tmp_path / "trial.log", "a", encoding="ascii") as log:
        monkeypatch.setattr(sys, "stdout", _LogFileWrapper(log))
        show_any_name()
        print("class 0  面条 \udce9")
        monkeypatch.undo()
    assert (tmp_path / "trial.log").read_text("ascii").endswith("PRINT class 0  \\u9762\\u6761 \\udce9\n")


def test_the_folder_holds_what_is_promised(alone):
    folder, _ = alone
    used = json.loads((folder / "hyperparameters.json").read_text())
    assert used["received"] == {} and used["effective"]["lr"] == 0.01 and used["effective"]["momentum"] == 0.9
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    result = json.loads((folder / "result.json").read_text())
    best = epochs[result["best_epoch"] - 1]
    assert result["generated"] == {"generator": GENERATOR, "seed": 0}  # drawings and no photos
    assert result["photos_in_two_splits"] == {"training/evaluation": 3}
    assert result["validation"]["accuracy"] == best["val_accuracy"] and result["validation"]["n"] == 22
    rows = result["evaluation"]["per_class"]
    assert sum(row["correct"] for row in rows) / 22 == result["evaluation"]["top1"]
    assert [row["total"] for row in rows] == [2] * 11 and rows[6]["class"] == "Noodles/Pasta"


def test_a_finished_training_is_not_written_over(alone, tiny_cache):
    folder, _ = alone
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir() if file.suffix}
    done = run_trial_command("--cache", str(tiny_cache), "--output", str(folder), "--image-px", "32")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "holds a finished training; choose another --output" in done.stderr
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir() if file.suffix} == before


def test_tensorboard_reads_the_events(alone):
    folder, _ = alone
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    shown = [event.value for event in events.Scalars("val/accuracy")]
    assert shown == pytest.approx([epoch["val_accuracy"] for epoch in epochs])


def test_the_weights_start_another_trial(alone, tiny_cache, tmp_path):
    folder, _ = alone
    assert "fc.weight" in torch.load(folder / "best.pt", weights_only=True)["model"]
    words = ["--weights", str(folder / "best.pt"), "--image-px", "32", "--epochs", "1", "--threads", "1"]
    done = run_trial_command("--cache", str(tiny_cache), "--output", str(tmp_path), *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cache", "/nowhere", "--weights", "none"], "no cache there"),
        (["--image-px", "224", "--weights", "none"], "the cache holds 40 px images, 224 px are needed"),
        (["--lr", "-1"], "lr = -1.0; expected 1e-08 to 10"),
        (["--image-px", "32", "--weights", "missing.pth"], "no such file"),
        (["--image-px", "32", "--weights", "none", "--device", "cuda:7"], "sees no GPU"),
    ],
)
def test_a_persons_mistake_is_one_line_and_exit_code_1(words, message, tiny_cache, tmp_path):
    if "cuda:7" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = run_trial_command("--cache", str(tiny_cache), "--output", str(tmp_path), *words)
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_describe_names_the_fields_and_everything_that_is_missing(tmp_path):
    words = ["--cache", str(tmp_path), "--weights", "missing.pth", "--epochs", "3", "--describe"]
    described = json.loads(run_trial_command(*words).stdout)
    assert described["given"] == {"weights": "missing.pth", "epochs": 3}
    assert {"lr", "momentum", "weights"} <= set(described["fields"])
    assert len(described["problems"]) == 2


def test_evaluate_scores_the_weights_as_the_trial_did_and_leaves_no_files(alone, tiny_cache):
    folder, said = alone
    before = sorted(path for path in folder.rglob("*"))
    words = ["--evaluate", str(folder / "best.pt"), "--cache", str(tiny_cache), "--threads", "1"]
    done = run_trial_command(*words)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("Test set") :]
    assert table in said and table.count("\n") == 12
    on_validation = run_trial_command(*words, "--split", "validation").stdout
    accuracy = json.loads((folder / "result.json").read_text())["validation"]["accuracy"]
    assert f"Validation set: Top1 Accuracy: {round(accuracy * 22)}/22 (" in on_validation
    assert sorted(path for path in folder.rglob("*")) == before


def test_evaluate_goes_by_the_names_of_the_classes(alone, tiny_cache, tmp_path, capsys):
    from data.cache import open_cache
    from trial.evaluate import evaluate_file

    folder, _ = alone
    saved = torch.load(folder / "best.pt", weights_only=True)
    expected = evaluate_file(folder / "best.pt", tiny_cache, "evaluation", "cpu", "fp32", 1)
    for name in ("fc.weight", "fc.bias"):
        saved["model"][name] = saved["model"][name].flip(0)
    saved["classes"].reverse()
    torch.save(saved, tmp_path / "turned.pt")
    turned = evaluate_file(tmp_path / "turned.pt", tiny_cache, "evaluation", "cpu", "fp32", 1)
    assert turned.per_class == expected.per_class and turned.n == 22
    assert "class 10 Vegetable/Fruit" in capsys.readouterr().out
    assert saved["classes"] == list(open_cache(tiny_cache).classes)[::-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved["classes"].__setitem__(0, "Pizza"), "only in the weights Pizza; only in the cache Bread"),
        (lambda saved: saved["classes"].pop(), "knows 10 classes"),
        (lambda saved: saved.pop("classes"), "not a trial's best.pt (expected model, classes and hyperparameters"),
        (
            lambda saved: saved["hyperparameters"].update(arch="vgg"),
            "arch = 'vgg'; expected one of 80 names, such as vgg",
        ),
        (
            lambda saved: saved["hyperparameters"].update(arch="resnet50"),
            "(resnet50) does not fit: missing layer1.0.conv3.weight",
        ),
    ],
)
def test_evaluate_refuses_what_does_not_fit(change, message, alone, tiny_cache, tmp_path):
    from trial import TrialError
    from trial.evaluate import evaluate_file

    saved = torch.load(alone[0] / "best.pt", weights_only=True)
    change(saved)
    torch.save(saved, tmp_path / "changed.pt")
    with pytest.raises(TrialError) as refused:
        evaluate_file(tmp_path / "changed.pt", tiny_cache, "evaluation", "cpu", "fp32", 1)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--evaluate", "nothing.pt"], 1, "nothing.pt: no such file"),
        (["--evaluate", "README.md"], 1, "README.md: not a state-dict file that loads safely"),
        (["--evaluate", "nothing.pt", "--lr", "0.1"], 2, "the weights file decides; remove lr"),
        (["--split", "validation"], 2, "--split belongs to --evaluate"),
    ],
)
def test_evaluate_mistakes_are_said_in_a_line(words, code, message, tiny_cache):
    done = run_trial_command("--cache", str(tiny_cache), *words)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr


# -- hyperparameters ---------------------------------------------------------------------------------------------------


def test_defaults_are_the_reports():
    h = Hyperparameters()
    assert (h.batch_size, h.lr, h.momentum) == (32, 0.001, 0.9)
    assert (h.step_size, h.gamma, h.epochs, h.patience) == (7, 0.1, 25, 5)
    assert (h.arch, h.weights, h.image_px) == ("resnet18", "imagenet", 224)


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").iterdir()), ids=lambda file: file.name)
def test_every_search_space_is_sound_and_its_keys_are_fields(file):
    space = json.loads(file.read_text())
    trials = 1 if file.name.startswith("study_") else 15  # a study sets the number to its grid's
    assert space_findings(space, describe_fields(), max_trials=trials) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 0.1}, "unknown hyperparameter 'learning_rate'; this trial knows batch_size, lr"),
        ({"lr": "1e-4"}, "lr = '1e-4' is str; expected float"),
        ({"lr": float("nan")}, "lr = nan; expected 1e-08 to 10"),
        ({"lr": 0}, "lr = 0.0; expected 1e-08 to 10"),
        ({"batch_size": 8.5}, "batch_size = 8.5 is float; expected int"),
        ({"batch_size": True}, "batch_size = True is bool; expected int"),
        ({"batch_size": 1}, "batch_size = 1; expected 2 to 4096"),
        ({"momentum": 1.0}, "momentum = 1.0; expected 0 to 0.9999"),
        ({"arch": "vgg"}, "arch = 'vgg'; expected one of 80 names, such as vgg"),
        ({"weights": None}, "weights = None is NoneType; expected str"),
        ([("lr", 0.1)], "should be a mapping"),
    ],
)
def test_an_unknown_or_illegal_value_is_one_clear_line(values, message):
    with pytest.raises(TrialError) as error:
        Hyperparameters().merged(values)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_whole_floats_fit_int_fields_and_ints_fit_float_fields():
    h = Hyperparameters().merged({"batch_size": 16.0, "lr": 1})
    assert (h.batch_size, type(h.batch_size), h.lr, type(h.lr)) == (16, int, 1.0, float)


def test_every_field_is_a_flag():
    words = [f"--{field.name.replace('_', '-')}={field.default}" for field in fields(Hyperparameters)]
    _, given = parse(words)
    assert Hyperparameters().merged(given) == Hyperparameters() and len(given) == len(words)


def test_a_misspelt_flag_is_refused(capsys):
    with pytest.raises(SystemExit) as error:
        parse(["--learning-rate", "0.1"])
    assert error.value.code == 2 and "unrecognized arguments" in capsys.readouterr().err
