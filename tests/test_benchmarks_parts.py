"""Each part of the benchmark measures what it says, at the smallest size: figures from real trainings and processes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmarks import accuracy, against_plain, memory, peak, pipeline, preparation, profile_epoch, startup
from benchmarks.measure import Report
from benchmarks.setting import ROOT
from data.cache import open_cache
from data.prepare import Settings, prepare
from data.sample import write_sample
from trial import train
from trial.batches import training_batch
from trial.device import Compute
from trial.hyperparameters import Hyperparameters
from trial.model import build_model
from trial.state import start_training

FP32 = Compute(torch.device("cpu"), "fp32", "CPU, fp32")
SMALL = {"training": (8,) * 11, "validation": (2,) * 11, "evaluation": (1,) * 11}
BF16 = Compute(torch.device("cpu"), "bf16", "CPU, bf16")


def test_a_pipeline_is_measured(tiny_cache, monkeypatch):
    monkeypatch.setattr(pipeline, "steps_a_round", lambda *_: 2)
    efficiency, beside, rate = pipeline.measure(open_cache(tiny_cache), FP32, image_px=32, batch_size=32, rounds=2)
    assert len(efficiency) == len(beside) == len(rate) == 2
    # Wide: another process beside this one may slow one of the two alternating halves many times over.
    assert all(0.01 < value < 100 for value in efficiency) and all(0 < value < 100 for value in beside)


def test_an_epochs_parts_are_all_of_it(tiny_cache):
    bench = pipeline.prepare(open_cache(tiny_cache), FP32, image_px=32, batch_size=8, steps=2)
    seconds = profile_epoch.epoch_parts(bench)
    assert set(seconds) == {*profile_epoch.parts_of(bench), "rest of the training", "validation"}
    assert all(value > 0 for value in seconds.values())
    assert seconds["backward"] > seconds["counting"]
    assert "convolution" in profile_epoch.operators(bench, 3)
    assert train.training_batch is training_batch  # all is put back


def test_a_step_is_held_to_a_matrix_product(tiny_cache, monkeypatch):
    monkeypatch.setattr(peak, "IMAGE_PX", 32)
    monkeypatch.setattr(peak, "SIDES", {"cpu": 256})
    report = Report()
    peak.run(report, open_cache(tiny_cache), FP32, rounds=2)
    matrix, step, share = report.figures
    assert matrix.note == "fp32, 256 x 256" and share.n == 2
    assert 0.001 < share.value < 10 and step.value > 0


def test_the_memory_of_a_trial_does_not_grow_over_50_epochs(tiny_cache):
    report = Report()
    memory.measure(report, open_cache(tiny_cache), (16, 32), epochs=50)
    peak, growth = report.figures
    assert 0.5 < peak.value < 1.5
    assert growth.note == "epochs 25 to 50" and growth.value < 0.5  # MiB an epoch; the weights alone are 43


@pytest.mark.parametrize("compute", [FP32, BF16], ids=lambda compute: compute.name)
def test_the_fast_way_and_the_slow_one_are_compared_seed_by_seed(tiny_cache, monkeypatch, compute):
    monkeypatch.setattr(accuracy, "SEEDS", 2)
    monkeypatch.setattr(accuracy, "IMAGE_PX", 16)
    monkeypatch.setattr(accuracy, "EPOCHS", 2)
    report = Report()
    accuracy.run(report, open_cache(tiny_cache), compute)
    fast, slow, difference = report.figures
    assert fast.n == slow.n == difference.n == 2 and "22 validation images" in difference.note
    assert "95 % interval" in difference.note or "no spread: no interval" in difference.note  # of equal differences


def test_the_slow_way_learns_from_the_same_batches(tiny_cache):
    """In float32 the two differ by rounding alone: the first epoch's loss, before it has grown, is the same."""
    cache, h = open_cache(tiny_cache), Hyperparameters(image_px=16, epochs=1, weights="none", batch_size=32, lr=1e-4)
    fast = start_training(FP32.place(build_model(h.arch, h.weights, len(cache.classes), h.seed)), h)
    slow = accuracy.start_slowly(cache, FP32, h)
    assert slow.model.conv1.weight.is_contiguous() and not fast.model.conv1.weight.is_contiguous()
    for t in (fast, slow):
        accuracy.best_accuracy(t, cache, h, FP32)
    assert slow.history[0].train_loss == pytest.approx(fast.history[0].train_loss, rel=1e-3)


def test_both_ways_of_training_are_measured_on_the_same_photos(tmp_path, monkeypatch):
    write_sample(tmp_path / "photos", seed=0, image_px=48, counts=SMALL)
    prepare(tmp_path / "photos", tmp_path / "cache", Settings(image_px=40))
    monkeypatch.setattr(against_plain, "EPOCHS", {32: 2})
    monkeypatch.setattr(against_plain, "GOALS", {"cpu": {32: ">= 2"}})
    report = Report()
    against_plain.run(report, tmp_path / "photos", open_cache(tmp_path / "cache"), FP32, rounds=2)
    figures = {figure.name: figure for figure in report.figures}
    assert figures["plain epoch / ours, 32 px, batch 32"].n == 3  # seeds
    assert figures["plain epoch with 0 workers, 32 px"].value > 0
    difference = figures["accuracy, ours - plain"]
    assert difference.unit == "points" and "95 % interval" in difference.note or "no spread" in difference.note


def test_the_decoder_and_preparation_start_without_torch(tmp_path):
    for module in ("benchmarks.decoder", "data.__main__"):
        code = f"import sys, {module}; print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False", module
    write_sample(tmp_path, seed=0, image_px=48, counts=SMALL)
    assert preparation.command_seconds("benchmarks.decoder", tmp_path) > 0


def test_the_first_step_comes_after_the_imports(tiny_cache):
    report = Report()
    startup.run(report, open_cache(tiny_cache), "cpu", rounds=2, image_px=32)
    assert report.figures[0].name == "start-up / imports" and 0.3 < report.figures[0].value < 10
