"""Each part of the benchmark measures what it says, at the smallest size: figures from real trainings and processes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import ROOT
from fixtures_trial import small_network
from PIL import Image
from torch import nn

from benchmarks import epoch, overhead, training
from benchmarks.table import Report
from data.cache import open_cache
from data.prepare import Settings, prepare
from data.sample import write_sample
from trial import train
from trial.batches import training_batch
from trial.device import Compute
from trial.hyperparameters import Hyperparameters

FP32 = Compute(torch.device("cpu"), "fp32", "CPU, fp32")
SMALL = {"training": (8,) * 11, "validation": (2,) * 11, "evaluation": (1,) * 11}
BF16 = Compute(torch.device("cpu"), "bf16", "CPU, bf16")


def test_a_pipeline_is_measured(tiny_cache, monkeypatch):
    monkeypatch.setattr(epoch, "steps_per_round", lambda *_: 2)
    report = Report()
    epoch.measure(report, open_cache(tiny_cache), FP32, epoch.settings(32, 32), rounds=2)
    efficiency, beside, rate = report.figures
    assert efficiency.n == beside.n == rate.n == 2
    # Wide: another process beside this one may slow one of the two alternating halves many times over.
    assert 0.01 < efficiency.value < 100 and 0 < beside.value < 100 and rate.unit == "images/s"


@pytest.mark.slow
def test_an_epochs_parts_are_all_of_it(tiny_cache):
    bench = epoch.bench_of(open_cache(tiny_cache), FP32, epoch.settings(32, 8), steps=2)
    seconds = epoch.epoch_parts(bench)
    assert set(seconds) == {*epoch.parts_of(bench), "rest of the training", "validation"}
    assert all(value > 0 for value in seconds.values())
    assert seconds["backward"] > seconds["counting"]
    assert "convolution" in epoch.operators(bench, 3)
    assert train.training_batch is training_batch  # all is put back


@pytest.mark.slow
def test_a_step_is_compared_with_a_matrix_product(tiny_cache, monkeypatch):
    monkeypatch.setattr(epoch, "PEAK_PX", 32)
    monkeypatch.setattr(epoch, "MATRIX_SIDES", {"cpu": 256})
    report = Report()
    epoch.peak(report, open_cache(tiny_cache), FP32, rounds=2)
    matrix, step, share = report.figures
    assert matrix.note == "fp32, 256 x 256" and share.n == 2
    assert 0.001 < share.value < 10 and step.value > 0


@pytest.mark.slow
def test_the_memory_of_a_trial_does_not_grow_with_its_epochs(tiny_cache):
    report = Report()
    overhead.memory_of(report, open_cache(tiny_cache), (16, 32), epochs=10)
    peak, growth = report.figures
    assert 0.5 < peak.value < 1.5
    assert growth.note == "epochs 5 to 10" and growth.value < 5  # MiB per epoch; the weights alone are 43


@pytest.mark.parametrize("compute", [FP32, BF16], ids=lambda compute: compute.name)
def test_the_fast_way_and_the_slow_one_are_compared_seed_by_seed(tiny_cache, monkeypatch, compute):
    monkeypatch.setattr(training, "build_model", lambda _, __, classes, seed: small_network(classes, seed))
    monkeypatch.setattr(training, "ACCURACY_SEEDS", 2)
    monkeypatch.setattr(training, "ACCURACY_PX", 16)
    monkeypatch.setattr(training, "ACCURACY_EPOCHS", 2)
    report = Report()
    training.accuracy(report, open_cache(tiny_cache), compute)
    fast, slow, difference = report.figures
    assert fast.n == slow.n == difference.n == 2 and "22 validation images" in difference.note
    assert "95 % interval" in difference.note or "no spread: no interval" in difference.note  # of equal differences


@pytest.mark.slow
def test_the_slow_way_learns_from_the_same_batches(tiny_cache):
    """In float32 the two differ by rounding alone: the first epoch's loss, before it has grown, is the same."""
    cache, h = open_cache(tiny_cache), Hyperparameters(image_px=16, epochs=1, weights="none", batch_size=32, lr=1e-4)
    fast, slow = training.start_fast(cache, FP32, h), training.start_slowly(cache, FP32, h)
    assert slow.model.conv1.weight.is_contiguous() and not fast.model.conv1.weight.is_contiguous()
    for t in (fast, slow):
        training.best_accuracy(t, cache, h, FP32)
    assert slow.history[0].train_loss == pytest.approx(fast.history[0].train_loss, rel=1e-3)


@pytest.mark.slow
def test_both_ways_of_training_are_measured_on_the_same_photos(tmp_path, monkeypatch):
    write_sample(tmp_path / "photos", seed=0, image_px=48, counts=SMALL)
    prepare(tmp_path / "photos", tmp_path / "cache", Settings(image_px=40))
    monkeypatch.setattr(training, "EPOCHS", {32: 2})
    monkeypatch.setattr(training, "GOALS", {"cpu": {32: ">= 2"}})
    monkeypatch.setattr(training, "WORKERS", (0,))
    h, cache = Hyperparameters(image_px=32, epochs=1, weights="none"), open_cache(tmp_path / "cache")
    alone = training.Setup(tmp_path / "photos", cache, FP32).plain(h, 0)  # in its process
    monkeypatch.setattr(training, "ProcessPoolExecutor", lambda workers, _: ThreadPoolExecutor(workers))
    assert training.Setup(tmp_path / "photos", cache, FP32).plain(h, 0).val_accuracy == alone.val_accuracy
    report = Report()
    training.against_plain(report, tmp_path / "photos", cache, FP32, rounds=2)
    figures = {figure.name: figure for figure in report.figures}
    assert figures["plain epoch / ours, 32 px, batch 32"].n == 3  # seeds
    assert figures["plain epoch with 0 workers, 32 px"].value > 0
    difference = figures["accuracy, ours - plain"]
    assert difference.unit == "points" and "95 % interval" in difference.note or "no spread" in difference.note


def test_the_plain_way_learns_and_keeps_its_best_epoch(tmp_path):
    for split, n in (("training", 12), ("validation", 4)):
        for name, colour in (("dark", 20), ("light", 230)):
            for number in range(n):
                path = tmp_path / split / name / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (20, 24), (colour + number,) * 3).save(path)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    h = Hyperparameters(batch_size=4, lr=0.1, epochs=4, image_px=16)
    trained = training.train_plainly(model, tmp_path, h, torch.device("cpu"), workers=0)
    assert trained.val_accuracy == 1.0 and all(seconds > 0 for seconds in trained.seconds)


@pytest.mark.slow
def test_preparation_is_measured_beside_the_decoder(tmp_path):
    write_sample(tmp_path / "photos", seed=0, image_px=48, counts=SMALL)
    many = overhead.link(tmp_path / "photos", tmp_path / "many", 3)
    assert len(list(many.rglob("*.jpg"))) == 3 * len(list((tmp_path / "photos").rglob("*.jpg")))
    assert overhead.decode(many).seconds > 0
    seconds, peak = overhead.prepare(many)
    assert seconds > 0 and 2**20 < peak < 2**30


def test_preparation_starts_without_torch():
    code = "import sys, data.__main__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_the_first_step_comes_after_the_imports(tiny_cache, monkeypatch):
    monkeypatch.setattr(overhead, "alternate", lambda ways, _: {name: [way()] for name, way in ways.items()})
    report = Report()
    overhead.startup(report, open_cache(tiny_cache), "cpu", rounds=1, image_px=32)
    assert report.figures[0].name == "start-up / imports" and 0.3 < report.figures[0].value < 10
