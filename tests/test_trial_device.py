"""Where a trial computes: on a GPU that torch can use, never silently beside one; in the precision measured as faster."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import run_module
from torch.nn import functional as F

from trial import TrialError, device, gpu
from trial.device import choose_compute
from trial.gpu import Card, Driver, carries, find_gpus, resolve_device
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
        assert device.cpu_bf16_speedup.__wrapped__() > 0
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


WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # of torch 2.14.1 for CUDA 13.0
CU126 = "python -m pip install torch==2.14.1+cu126 torchvision==0.29.1+cu126 --index-url https://download.pytorch.org/whl/cu126"
ON_CPU = "train on the CPU: --device cpu (in an experiment --set device=cpu)"


@pytest.fixture
def wheel(monkeypatch):
    """torch as its wheel for CUDA 13.0 is, on a machine whose cards and driver are given."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: WHEEL)

    def on(*cards: tuple[str, tuple[int, int]], driver: Driver | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cards))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: cards[index][0])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=0: cards[index][1])
        monkeypatch.setattr(gpu, "find_driver", lambda: driver)

    return on


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((6, 1), WHEEL, False),
        ((7, 0), WHEEL, False),
        ((7, 5), WHEEL, True),
        ((8, 9), WHEEL, True),  # sm_86 runs on 8.9
        ((8, 0), ["sm_86"], False),
        ((12, 1), WHEEL, True),
        ((13, 0), WHEEL, False),
        ((13, 0), [*WHEEL, "compute_120"], True),  # PTX is compiled for newer cards
        ((6, 1), ["sm_50", "sm_60"], True),
        (None, WHEEL, True),
        ((9, 0), ["gfx90a"], True),  # ROCm's are not compared
    ],
)
def test_a_card_runs_code_of_its_major_version_and_older_ptx(capability, architectures, runs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: architectures)
    assert carries(capability) == runs


@pytest.mark.parametrize(("name", "capability"), [("GTX 1070", (6, 1)), ("P100", (6, 0)), ("V100", (7, 0))])
def test_a_card_without_code_in_the_wheel_is_refused_with_the_build_that_has_it(name, capability, wheel):
    wheel((name, capability), driver=Driver("580.65", (13, 0), ()))
    for wanted in ("auto", "cuda", "cuda:0"):
        with pytest.raises(TrialError) as refused:
            choose_compute(wanted, "auto", 1)
        parts = [
            f"{name} (compute capability {capability[0]}.{capability[1]})",
            "CUDA 13.0",
            "sm_75, sm_80",
            CU126,
            ON_CPU,
        ]
        assert all(part in str(refused.value) for part in parts) and "\n" not in str(refused.value)
    assert choose_compute("cpu", "fp32", 1).device.type == "cpu"


def test_the_first_usable_of_several_cards_is_taken_and_a_missing_one_named(wheel):
    wheel(("GTX 1070", (6, 1)), ("RTX 3090", (8, 6)), ("RTX 3060", (8, 6)))
    assert find_gpus().names == {1: "RTX 3090", 2: "RTX 3060"}
    assert (resolve_device("auto"), resolve_device("cuda:2"), resolve_device("cpu")) == ("cuda:1", "cuda:2", "cpu")
    for wanted in ("cuda:0", "cuda:7"):
        with pytest.raises(TrialError, match=rf"{wanted}': torch can use 2 GPU\(s\) here: cuda:1 \(RTX 3090\), cuda:2"):
            resolve_device(wanted)
    wheel(("RTX 5090", (12, 0)))
    assert resolve_device("auto") == resolve_device("cuda") == "cuda"


@pytest.mark.parametrize("wanted", ["xpu", "mps", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:0,1", "cpu:0", ""])
def test_a_device_of_another_name_is_one_line(wanted):
    with pytest.raises(TrialError, match="expected auto, cpu, cuda or cuda:N"):
        choose_compute(wanted, "auto", 1)


@pytest.mark.parametrize(
    ("driver", "built_for", "parts"),
    [
        (Driver("535.104", (12, 2), (Card(0, "A100", (8, 0)),)), "13.0", ["A100 is here", "driver 535.104 (CUDA 12.2) is too old", "(CUDA 13.0)", "driver 580 or newer. Install that driver, or the build", CU126]),
        (Driver("535.104", (12, 2), (Card(0, "P100", (6, 0)),)), "13.0", ["needs driver 580 or newer and has no code for P100", ". Install the build", CU126]),
        (Driver("570.1", (12, 8), (Card(0, "RTX 5090", (12, 0)),)), "13.0", ["Install that driver, or", "torch==2.9.1+cu128", "whl/cu128"]),
        (Driver("470.2", (11, 4), (Card(0, "V100", (7, 0)),)), "13.0", ["torch==2.7.1+cu118", "whl/cu118"]),
        (Driver("440.1", (10, 2), (Card(0, "T4", (7, 5)),)), "12.6", ["needs driver 525 or newer. Install that driver; no build of torch from 2.6 on"]),
        (Driver("580.65", (13, 0), (Card(0, "T4", (7, 5)),)), None, ["T4 is here, but torch", "is built without CUDA. Install the build", "torch==2.14.1+cu130"]),
        (Driver("535.104", (12, 2), (Card(0, "GTX 1070", (6, 1)),)), None, ["is built without CUDA", CU126]),
        (Driver("550.1", None, (Card(0, "NVIDIA card", None),)), "13.0", ["with driver 550.1", "libcuda.so.1 is not", "--gpus all"]),
        (Driver("580.65", (13, 0), (Card(0, "T4", (7, 5)),)), "13.0", ["driver 580.65 (CUDA 13.0), but torch", "(Error 804: forward compatibility was attempted)", "nvidia-smi"]),
    ],
)  # fmt: skip
def test_a_gpu_that_is_there_and_not_usable_is_an_error_with_its_cures(driver, built_for, parts, wheel, monkeypatch):
    def init():
        raise RuntimeError("Unexpected error. Did you run? Error 804: forward compatibility was attempted\nmore")

    wheel(driver=driver)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(TrialError) as refused:
        resolve_device("auto")
    assert all(part in str(refused.value) for part in [*parts, ON_CPU]), str(refused.value)
    assert "\n" not in str(refused.value) and resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("visible", ["", " ", "-1", "-1,0", "none", "NoDevFiles"])
def test_gpus_hidden_on_purpose_are_not_missed(visible, wheel, monkeypatch):
    wheel(driver=Driver("535.104", (12, 2), (Card(0, "A100", (8, 0)),)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_gpus().state == "none" and resolve_device("auto") == "cpu"
    with pytest.raises(TrialError, match=r"device = 'cuda', but torch .* sees no GPU \(CUDA_VISIBLE_DEVICES = "):
        resolve_device("cuda")


def test_a_number_that_no_gpu_has_in_the_environment_is_named(wheel, monkeypatch):
    def init():
        raise RuntimeError("No CUDA GPUs are available")

    wheel(driver=Driver("580.65", (13, 0), (Card(0, "A100", (8, 0)),)))
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(
        TrialError, match=r"CUDA_VISIBLE_DEVICES = '7' names none of the 1 GPU\(s\) here: correct or unset"
    ):
        resolve_device("auto")


def test_rocm_and_a_machine_without_a_driver_have_none(wheel, monkeypatch):
    wheel(driver=None)
    assert find_gpus().state == "none" and resolve_device("auto") == "cpu"
    monkeypatch.setattr(torch.version, "hip", "6.3")
    monkeypatch.setattr(gpu, "find_driver", lambda: pytest.fail("NVIDIA's driver is nothing to ROCm"))
    assert find_gpus().state == "none"
    wheel(("MI300X", (9, 4)))
    assert find_gpus().names == {0: "MI300X"}


def test_cards_and_driver_are_read_without_torch(monkeypatch, tmp_path):
    kernel = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build\nGCC version: 12.2.0\n"
    (tmp_path / "version").write_text(kernel)
    monkeypatch.setattr(gpu, "PROC", tmp_path)
    monkeypatch.setattr(gpu, "_read_libcuda", lambda: (None, gpu.NO_DEVICE))
    monkeypatch.setattr(gpu, "_read_nvml", lambda: (None, ()))
    assert gpu.find_driver() is None  # a module without a card
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    assert gpu.find_driver() == ("535.104.05", None, (Card(0, "NVIDIA card", None),))
    monkeypatch.undo()
    nvml = SimpleNamespace(
        NVMLError=KeyError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: b"GTX 1070",  # bytes before version 11.515 of the library
        nvmlDeviceGetCudaComputeCapability=lambda handle: [6, 1],
        nvmlSystemGetDriverVersion=lambda: b"535.104",
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert gpu.find_driver()[::2] == ("535.104", (Card(0, "GTX 1070", (6, 1)),))


@pytest.mark.slow
def test_a_driver_that_is_too_old_ends_a_trial_in_a_line_and_device_cpu_trains(old_driver, tiny_cache, tmp_path):
    words = ["--cache", str(tiny_cache), "--weights", "none", "--image-px", "32", "--epochs", "1", "--threads", "1"]
    done = run_module("trial", *words, "--output", str(tmp_path / "auto"), env=old_driver)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    for part in (
        "device = 'auto': an NVIDIA GPU is here, but its driver (CUDA 12.2) is too old",
        "driver 580 or newer",
        CU126,
    ):
        assert part in done.stderr
    done = run_module("trial", *words, "--output", str(tmp_path / "cpu"), "--device", "cpu", env=old_driver)
    assert (done.returncode, done.stderr) == (0, "")
    hidden = json.loads(run_module("trial", "--gpu", env={**old_driver, "CUDA_VISIBLE_DEVICES": ""}).stdout)
    assert (hidden["state"], hidden["device"], hidden["problem"]) == ("none", "cpu", None)
