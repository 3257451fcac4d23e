"""`python -m trial` alone, as a person runs it."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import run_module
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture(scope="module")
def alone(tiny_cache, tmp_path_factory):
    """A finished trial of two epochs: (its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("alone")
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
    done = run_module("trial", "--cache", str(tiny_cache), "--output", str(folder), *words)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_log_has_a_readable_line_an_epoch_and_the_reports_table(alone):
    _, said = alone
    assert said.count("validation loss") == 2 and "epoch   1/2  lr 0.010000" in said
    assert "Test set: Top1 Accuracy: " in said and "/22 (" in said and "class 10 Vegetable/Fruit" in said


def test_the_folder_holds_what_is_promised(alone):
    folder, _ = alone
    used = json.loads((folder / "hyperparameters.json").read_text())
    assert used["received"] == {} and used["effective"]["lr"] == 0.01 and used["effective"]["momentum"] == 0.9
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    result = json.loads((folder / "result.json").read_text())
    best = epochs[result["best_epoch"] - 1]
    assert result["validation"] == {"accuracy": best["val_accuracy"], "n": 22}
    rows = result["evaluation"]["per_class"]
    assert sum(row["correct"] for row in rows) / 22 == result["evaluation"]["top1"]
    assert [row["total"] for row in rows] == [2] * 11 and rows[6]["class"] == "Noodles/Pasta"


def test_a_finished_training_is_not_written_over(alone, tiny_cache):
    folder, _ = alone
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir() if file.suffix}
    done = run_module("trial", "--cache", str(tiny_cache), "--output", str(folder), "--image-px", "32")
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
    done = run_module("trial", "--cache", str(tiny_cache), "--output", str(tmp_path), *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cache", "/nowhere", "--weights", "none"], "no cache there"),
        (["--image-px", "224", "--weights", "none"], "the cache holds 40 px images, 224 px were asked for"),
        (["--lr", "-1"], "lr = -1.0; expected 1e-08 to 10"),
        (["--image-px", "32", "--weights", "missing.pth"], "no such file"),
        (["--image-px", "32", "--weights", "none", "--device", "cuda:7"], "sees no GPU"),
    ],
)
def test_a_persons_mistake_is_one_line_and_exit_code_1(words, message, tiny_cache, tmp_path):
    if "cuda:7" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = run_module("trial", "--cache", str(tiny_cache), "--output", str(tmp_path), *words)
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_describe_names_the_fields_and_everything_that_is_missing(tmp_path):
    words = ["--cache", str(tmp_path), "--weights", "missing.pth", "--epochs", "3", "--describe"]
    described = json.loads(run_module("trial", *words).stdout)
    assert described["given"] == {"weights": "missing.pth", "epochs": 3}
    assert {"lr", "momentum", "weights"} <= set(described["fields"])
    assert len(described["problems"]) == 2
