"""Memory that does not suffice: the step is repeated in parts, and is the same step."""

from __future__ import annotations

import copy
import json
import platform
import re

import pytest
import torch
from fixtures_trial import run_code, small_network
from torch import nn

from data.cache import open_cache
from trial import TrialError
from trial.batches import MicroBatch, PlannedBatch, split_planned
from trial.device import choose_compute
from trial.evaluate import evaluate
from trial.hyperparameters import Hyperparameters
from trial.run import Settings, run_trial
from trial.state import start_training
from trial.train import train_epoch, train_step

CPU = choose_compute("cpu", "fp32", 1)
H = Hyperparameters().merged({"weights": "none", "image_px": 36, "batch_size": 16, "lr": 0.05, "weight_decay": 0.01})


@pytest.fixture(scope="module")
def split(tiny_cache):
    return open_cache(tiny_cache).split("training")


def plain_net() -> nn.Module:
    """No batch normalisation: here the parts have to add up to the batch."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 11)]
    return nn.Sequential(*body)


def limit(monkeypatch, model: nn.Module, images: int) -> list[int]:
    """The model fails as torch does where memory is short, above so many images at once; returns the sizes it saw."""
    forward, seen = model.forward, []

    def short_of_memory(batch):
        logits = forward(batch)  # the running statistics have moved by then
        seen.append(len(batch))
        if len(batch) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return logits

    monkeypatch.setattr(model, "forward", short_of_memory)
    return seen


def epoch(model: nn.Module, split, at_once: int | None = None):
    t = start_training(model, H)
    t.train_micro_batch.images = at_once or t.train_micro_batch.images
    score = train_epoch(t, split, torch.from_numpy(split.labels), H, CPU)
    return t, score


@pytest.mark.parametrize("at_once", [8, 5, 1])
def test_parts_give_the_weights_of_the_whole_batch(split, at_once):
    whole, parts = plain_net(), plain_net()
    (_, one), (_, other) = epoch(whole, split), epoch(parts, split, at_once)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert other.n == one.n == 66 and other.loss == pytest.approx(one.loss, rel=1e-5)
    assert (other.top1, other.per_class) == (one.top1, one.per_class)


def test_a_failed_step_leaves_no_trace(split, monkeypatch):
    """Batch normalisation, momentum and random draws: as if the smaller size had been chosen from the start."""
    model = small_network(11)
    chosen, forced = copy.deepcopy(model), model
    seen = limit(monkeypatch, forced, 4)
    (t, score), (expected, expected_score) = epoch(forced, split), epoch(chosen, split, 4)
    assert seen[:3] == [14, 7, 4] and max(seen[2:]) == 4 and t.train_micro_batch.images == 4
    assert score == expected_score
    assert all(torch.equal(v, chosen.state_dict()[k]) for k, v in forced.state_dict().items())
    assert torch.equal(t.generator.get_state(), expected.generator.get_state())


def test_a_failure_in_a_later_part_leaves_no_trace_either(split, monkeypatch):
    model = small_network(11)
    expected = copy.deepcopy(model)
    calls, forward = [], model.forward

    def fails_once(batch):
        calls.append(len(batch))
        if len(calls) == 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
        return forward(batch)

    monkeypatch.setattr(model, "forward", fails_once)
    t, _ = epoch(model, split, 8)
    assert calls[:3] == [7, 7, 4] and t.train_micro_batch.images == 4
    epoch(expected, split, 4)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())


def test_evaluation_in_parts_counts_every_image(split, monkeypatch):
    model = plain_net()
    expected = evaluate(model, split, 36, CPU)
    seen, at_once = limit(monkeypatch, model, 20), MicroBatch(64)
    score = evaluate(model, split, 36, CPU, at_once)
    assert seen == [64, 32, 16, 16, 16, 16, 2] and at_once.images == 16
    assert (score.n, score.per_class) == (expected.n, expected.per_class) and score.loss == pytest.approx(expected.loss)


def test_memory_is_freed_before_a_part_is_made_smaller():
    sizes, splits = [], iter([True, True])
    at_once = MicroBatch(8, free_memory=lambda: next(splits, False))

    def work(images):
        sizes.append(images)
        if len(sizes) < 5:
            raise MemoryError
        return "done"

    assert at_once.run(work, undo=lambda: None) == "done"
    assert sizes == [8, 8, 8, 4, 2]


def test_less_than_one_image_is_a_clear_error(split, monkeypatch):
    model = plain_net()
    limit(monkeypatch, model, 0)
    with pytest.raises(TrialError, match=r"out of memory with 1 image\(s\) at once \(CUDA out of memory.*image_px"):
        epoch(model, split)


def test_another_error_is_not_taken_for_want_of_memory(split):
    with pytest.raises(RuntimeError, match="shape|size"):
        epoch(nn.Linear(3, 11), split)


def test_a_part_of_tiny_images_is_never_a_single_one():
    planned = PlannedBatch(torch.arange(7), torch.rand(5, 7))
    assert [len(rows) for rows, _ in split_planned(planned, most=2, least=2)] == [3, 2, 2]
    assert [len(rows) for rows, _ in split_planned(planned, most=2, least=1)] == [2, 2, 2, 1]


def test_the_record_says_so_and_a_continued_trial_keeps_to_it(tiny_cache, tmp_path, monkeypatch, capsys):
    from trial import run, train

    sizes, step = [], train_step

    def short_of_memory(*words):
        sizes.append(words[-1])
        if words[-1] > 8:
            raise MemoryError
        return step(*words)

    monkeypatch.setattr(train, "train_step", short_of_memory)
    monkeypatch.setattr(run, "build_model", lambda arch, weights, classes, seed, image_px: small_network(classes))
    h = H.merged({"epochs": 2, "patience": 0})

    def cut(metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(h, open_cache(tiny_cache), Settings(tmp_path, "cpu", "fp32", 1), cut)
    run_trial(h, open_cache(tiny_cache), Settings(tmp_path, "cpu", "fp32", 1), lambda metrics: None)
    assert sizes == [16] + [8] * 10  # five steps an epoch; the continued one does not try 16 again
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["micro_batch"]["images"], result["micro_batch"]["batch_size"]) == (8, 16)
    assert "batch normalisation saw a part at a time" in result["micro_batch"]["note"]
    output = capsys.readouterr().out
    assert "out of memory (MemoryError): 8 images at once from here on" in output
    assert "micro-batches of 8 images for batches of 16" in output


# A batch of 512 images of 224 px takes 294 MiB: this process gets 280. The network needs next to nothing and none of oneDNN, which crashes in one run of a few where memory ends
# within its own work (docs/log.md): what has to be seen here is torch's real allocator at a real limit.
SHORT = """
import resource, torch
from torch import nn
from trial import train
from trial.state import start_training
from trial.device import choose_compute
from trial.hyperparameters import Hyperparameters
import numpy as np
from data.cache import Split
h = Hyperparameters().merged({"weights": "none", "image_px": 224, "batch_size": 512, "lr": 0.01})
resource.setrlimit(resource.RLIMIT_AS, (2**40, -1))  # that there is a limit is known from the start, its size follows
compute = choose_compute("cpu", "fp32", 1)
network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 11))
t = start_training(compute.place(network), h)
images = np.random.default_rng(0).integers(0, 255, (512, 256, 256, 3), dtype=np.uint8)
split = Split(images, np.arange(512) % 11)
used = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + MORE, used + MORE))
score = train.train_epoch(t, split, torch.from_numpy(split.labels), h, compute)
print("trained on", score.n, "at once", t.train_micro_batch.images)
"""


@pytest.mark.slow
def test_an_address_space_that_is_really_too_small():
    code = SHORT.replace("MORE", str(280 * 2**20))
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    assert "256 images at once from here on" in done.stdout
    assert 1 < int(re.search(r"trained on 512 at once (\d+)", done.stdout)[1]) < 512


# Page faults of five steps, after ten that let the allocator find its places.
FAULTS = """
import resource, torch
from torch.nn import functional as F
from data import memory
from trial import device
from trial.state import start_training
from trial.hyperparameters import Hyperparameters
from trial.model import build_model
KEEP or setattr(memory, "keep_freed_memory", lambda: None)
compute = device.choose_compute("cpu", "fp32", 1)
t = start_training(compute.place(build_model("resnet18", "none", 11, 0)), Hyperparameters(lr=0.001))
images, labels = torch.rand(8, 3, 48, 48), torch.arange(8)
for step in range(15):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    loss = F.cross_entropy(t.model(images), labels)
    t.optimizer.zero_grad()
    loss.backward()
    t.optimizer.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_what_a_step_frees_stays_with_the_process_for_the_next():
    def faults(keep: bool) -> int:
        return int(run_code(FAULTS.replace("KEEP", str(keep))).stdout)

    assert faults(keep=True) < faults(keep=False) / 4
