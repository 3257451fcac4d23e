"""The precision of a trial is the faster one: of those the processor has, by measuring, not by its flags alone."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from trial import device
from trial.device import choose_compute
from trial.model import build_model


@pytest.mark.parametrize("flags, speedup, chosen", [(True, 1.9, "bf16"), (True, 0.5, "fp32"), (False, 1.9, "fp32")])
def test_bfloat16_is_chosen_where_it_is_there_and_faster(monkeypatch, flags, speedup, chosen):
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: flags)
    monkeypatch.setattr(device, "cpu_bf16_speedup", lambda: speedup)
    compute = choose_compute("cpu", "auto", 1)
    assert compute.name == f"CPU, 1 threads, {chosen}"
    assert (f"{speedup} times as fast" in compute.why) == flags
    assert choose_compute("cpu", "fp32", 1).autocast_dtype is None
    assert choose_compute("cpu", "bf16", 1).autocast_dtype == torch.bfloat16


def test_measuring_leaves_the_threads_as_they_are():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert device.cpu_bf16_speedup.__wrapped__(rounds=1) > 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not device.cpu_has_bf16(), reason="this processor has no bfloat16 instructions to choose")
def test_the_choice_is_right_for_a_whole_training_step():
    """In one thread's own time, so that a busy machine changes nothing; a third slower would be a wrong choice."""
    chosen = choose_compute("cpu", "auto", 1)
    other = replace(chosen, precision="fp32" if chosen.autocast_dtype else "bf16")
    model = chosen.place(build_model("resnet18", "none", 11, 0))
    images = torch.randn(4, 3, 64, 64).to(memory_format=torch.channels_last)

    def seconds(compute) -> float:
        started = time.thread_time()
        with compute.autocast():
            loss = F.cross_entropy(model(images).float(), torch.zeros(4, dtype=torch.int64))
        loss.backward()
        return time.thread_time() - started

    best = [min(times) for times in zip(*((seconds(chosen), seconds(other)) for _ in range(4)), strict=True)]
    assert best[0] < 1.33 * best[1]
