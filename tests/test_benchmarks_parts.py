"""Each part of the benchmark measures what it says, at the smallest size: figures from real trainings and processes."""

from __future__ import annotations

import torch

from benchmarks import accuracy, memory, pipeline
from benchmarks.measure import Report
from data.cache import open_cache
from trial.device import Compute

FP32 = Compute(torch.device("cpu"), None, "CPU, fp32")
BF16 = Compute(torch.device("cpu"), torch.bfloat16, "CPU, bf16")


def test_a_pipeline_is_measured(tiny_cache):
    efficiency, beside = pipeline.measure(open_cache(tiny_cache), FP32, image_px=32, batch_size=32, rounds=2)
    assert len(efficiency) == len(beside) == 2
    # Wide: another process beside this one may slow one of the two alternating halves many times over.
    assert all(0.01 < value < 100 for value in efficiency) and all(0 < value < 100 for value in beside)


def test_the_memory_of_a_trial_does_not_grow_over_50_epochs(tiny_cache):
    report = Report()
    memory.measure(report, open_cache(tiny_cache), image_px=16, batch=32, epochs=50)
    peak, growth = report.figures
    assert 0.5 < peak.value < 1.5
    assert growth.note == "epochs 25 to 50" and growth.value < 0.5  # MiB an epoch; the weights alone are 43


def test_precisions_are_compared_seed_by_seed(tiny_cache, monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "SEEDS", 2)
    monkeypatch.setattr(accuracy, "IMAGE_PX", 16)
    report = Report()
    accuracy.run(report, open_cache(tiny_cache), BF16)
    (figure,) = report.figures
    assert figure.n == 2 and "95 % interval" in figure.note and "22 validation images" in figure.note
    accuracy.run(report, open_cache(tiny_cache), FP32)
    assert len(report.figures) == 1 and "float32 was chosen" in capsys.readouterr().out
