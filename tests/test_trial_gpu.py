"""Trials on a GPU that is pretended: the CPU's numbers, few waits and launches, and what becomes of a full memory.

What only a real one can tell (kernels, times, cuDNN) is measured by `make gpu-check`.
"""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch
from fixtures_trial import small_network
from pretended_gpu import PretendedGpu
from torch import nn

from data.cache import Split, open_cache
from trial import TrialError, run, train
from trial.batches import GpuImages, is_out_of_memory, place_images, sent, to_device
from trial.checkpoint import checkpoints
from trial.device import HostCopy, choose_compute
from trial.evaluate import EVALUATION_BATCH
from trial.hyperparameters import Hyperparameters
from trial.model import Teacher, build_model
from trial.run import Settings, run_trial
from trial.state import GpuSGD, start_training

H = Hyperparameters().merged(
    {"weights": "none", "image_px": 36, "batch_size": 16, "lr": 0.02, "epochs": 3, "patience": 0}
)
MIB = 1 << 20


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(run, "build_model", lambda arch, weights, classes, seed, image_px: small_network(classes))


def trial(cache, folder, device="cpu", h=H, report=lambda metrics: None, precision="fp32"):
    return run_trial(h, open_cache(cache), Settings(folder, device, precision, 1), report)


def without_time(final: dict) -> dict:
    return {name: value for name, value in final.items() if name != "duration_s"}


@pytest.mark.slow
def test_a_resnet_gives_the_cpus_numbers(tiny_cache, tmp_path, monkeypatch):
    monkeypatch.setitem(EVALUATION_BATCH, "cuda", 32)
    h = H.merged({"epochs": 2})
    expected = trial(tiny_cache, tmp_path / "cpu", h=h)
    with PretendedGpu():
        found = trial(tiny_cache, tmp_path / "gpu", "cuda", h)
    assert without_time(found) == pytest.approx(without_time(expected), rel=1e-4)
    result = json.loads((tmp_path / "gpu" / "result.json").read_text())
    assert result["compute"] == "Pretended GPU, fp32" and result["loss_scaling"] is None
    weights = [torch.load(tmp_path / kind / "best.pt", weights_only=True)["model"] for kind in ("cpu", "gpu")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-5)


def test_a_trial_without_room_for_its_images_reads_ahead_to_the_same_numbers(
    tiny_cache, tmp_path, quick, monkeypatch, capsys
):
    expected = trial(tiny_cache, tmp_path / "cpu")
    monkeypatch.setattr(run, "memory_beside_a_step", lambda *_: 0)
    with PretendedGpu() as gpu:
        found = trial(tiny_cache, tmp_path / "gpu", "cuda")
    assert "0 of 3 splits" in capsys.readouterr().out
    assert without_time(found) == pytest.approx(without_time(expected), rel=1e-5)
    assert ("to GPU", "queued") in gpu.copies


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_trial_that_was_cut_short_goes_on_to_the_same_numbers(tiny_cache, tmp_path, quick, precision):
    def cut(metrics):
        if metrics["epoch"] == 2:
            raise TrialError("cut")

    with PretendedGpu(capability=(7, 5)):
        expected = trial(tiny_cache, tmp_path / "whole", "cuda", precision=precision)
        with pytest.raises(TrialError, match="cut"):
            trial(tiny_cache, tmp_path / "cut", "cuda", report=cut, precision=precision)
        assert checkpoints(tmp_path / "cut")
        found = trial(tiny_cache, tmp_path / "cut", "cuda", precision=precision)
    assert without_time(found) == without_time(expected)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "cut")]
    assert results[0]["loss_scaling"] == results[1]["loss_scaling"]
    assert results[1]["attempts"][1]["after_epoch"] == 2


@pytest.mark.parametrize("values", [{}, {"balance": "softmax"}, {"balance": "sampler"}, {"distill_weight": 0.5}])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("room", [1 << 30, 0])
def test_an_epoch_waits_for_its_results_alone(tiny_cache, tmp_path, quick, monkeypatch, values, precision, room):
    """The scores of both splits; and for balanced softmax the classes' counts, for float16 the loss scale."""
    monkeypatch.setattr(run, "memory_beside_a_step", lambda *_: room)
    monkeypatch.setattr(run, "open_teacher", lambda h, cache: values.get("distill_weight") and a_teacher())
    h = H.merged({**values, "teacher": "a.pt" if "distill_weight" in values else ""})
    seen = []

    with PretendedGpu(capability=(7, 5)) as gpu:
        on_epoch = run._on_epoch

        def between(*words):
            seen.append((dict(gpu.waits), dict(gpu.copies)))
            on_epoch(*words)
            gpu.reset()

        monkeypatch.setattr(run, "_on_epoch", between)
        trial(tiny_cache, tmp_path, "cuda", h, precision=precision)
    assert len(seen) == 3
    for waits, copies in seen[1:]:
        assert sum(waits.values()) <= 4 and waits["copy to host"] == 2
        assert ("to GPU", "pageable") not in copies


def a_teacher() -> Teacher:
    return Teacher(small_network().eval().requires_grad_(False), "0" * 64)


def test_what_is_written_is_copied_without_a_wait_before_the_next_epoch_and_reported_after(tiny_cache, tmp_path, quick):
    reports = []

    def report(metrics):
        files = checkpoints(tmp_path)
        lines = torch.load(files[0], weights_only=True)["lines"]
        reports.append((metrics["epoch"], lines[-1]["epoch"], threading.current_thread() is threading.main_thread()))

    with PretendedGpu() as gpu:
        trial(tiny_cache, tmp_path, "cuda", report=report)
    assert reports == [(1, 1, False), (2, 2, False), (3, 3, False)]  # checkpoint first, each in the writing thread
    assert gpu.events == 3  # which is what waits for the copies
    assert gpu.copies["to host", "queued"] > 3 * len(small_network().state_dict())


def test_an_epoch_that_cannot_be_written_ends_the_trial(tiny_cache, tmp_path, quick):
    def report(metrics):
        raise TrialError("NNI's manager does not answer")

    with PretendedGpu(), pytest.raises(TrialError, match="does not answer"):
        trial(tiny_cache, tmp_path, "cuda", report=report)


def test_the_copies_on_the_host_use_their_memory_again():
    with PretendedGpu():
        host, state = HostCopy(), {"a": [torch.ones(3, 4, device="cuda"), 5], "b": (torch.zeros(2),)}
        first = host.take(state)
        state["a"][0] += 1
        second = host.take(state)
    assert first["a"][0] is second["a"][0] and second["a"][0].is_cpu and second["a"][1] == 5
    assert second["a"][0].tolist() == torch.full((3, 4), 2.0).tolist()


@pytest.mark.parametrize("precision, at_most", [("fp32", 180), ("bf16", 225), ("fp16", 235)])
def test_launches_per_step(precision, at_most):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 41, 41, 3), dtype=np.uint8)
    with PretendedGpu() as gpu:
        compute = choose_compute("cuda", precision, 1)
        t = start_training(compute.place(build_model("resnet18", "none", 3, 0)), H, None, precision)
        launches = []
        for batch_size in (6, 3):
            split = to_device(Split(images, np.arange(6) % 3), compute.device)
            place_images([split.images], 1 << 30)
            gpu.reset()
            labels = sent(torch.from_numpy(split.labels), compute.device)
            train.train_epoch(t, split, labels, H.merged({"batch_size": batch_size}), compute)
            launches.append(gpu.launches.total())
    assert 100 < launches[1] - launches[0] <= at_most


def test_convolutions_see_two_shapes_in_training_and_one_elsewhere(tiny_cache, tmp_path, quick):
    """cuDNN looks for its fastest way once per shape."""
    with PretendedGpu() as gpu:
        trial(tiny_cache, tmp_path, "cuda")
    sizes = {shape[0] for shape in gpu.convolved}
    assert sizes == {13, 14, 256}  # 66 training images in 5 batches; 22 to validate and to evaluate


# -- memory --------------------------------------------------------------------------------------------------------------


def large_images() -> tuple[Split, Split]:
    """68 MiB to train on: 40 squares of 772 px."""
    images = np.random.default_rng(0).integers(0, 256, (40, 772, 772, 3), dtype=np.uint8)
    return Split(images, np.arange(40) % 3), Split(images[:4], np.arange(4) % 3)


def training_in(memory: int, place: bool | None):
    """An epoch of ResNet18 with these images. place: before all else, not at all, or (None) beside a step."""
    h = H.merged({"batch_size": 8, "epochs": 1})
    with PretendedGpu(memory):
        compute = choose_compute("cuda", "fp32", 1)
        splits = [to_device(split, compute.device) for split in large_images()]
        t = start_training(compute.place(build_model("resnet18", "none", 3, 0)), h)
        t.evaluation_micro_batch.images = 4
        budget = train.memory_beside_a_step(t, *splits, h, compute) if place is None else (1 << 30) * place
        place_images([splits[0].images], budget)
        resident = splits[0].images.resident is not None
        t.train_micro_batch.free_memory = splits[0].images.free
        fitted = train.fit(t, *splits, h, compute, lambda t: None)
    return resident, splits[0].images.resident is not None, t.train_micro_batch.images, fitted.history


def test_room_for_a_step_comes_before_images():
    """240 MiB, of which weights, best weights, gradients and momentum take 171: images of 68 leave no step its place."""
    mapped = training_in(240 * MIB, place=False)
    assert mapped[:3] == (False, False, 8)
    assert training_in(240 * MIB, place=None) == mapped
    assert training_in(400 * MIB, place=None) == (True, True, 8, mapped[3])


def test_out_of_memory_images_leave_first_and_the_batch_stays_whole(capsys):
    resident, resident_at_the_end, at_once, _ = training_in(290 * MIB, place=True)
    assert (resident, resident_at_the_end, at_once) == (True, False, 8)
    assert "images leave the GPU" in capsys.readouterr().out


def test_only_then_the_batch_is_split():
    assert training_in(230 * MIB, place=None)[:3] == (False, False, 4)


def test_a_message_that_may_mean_something_else_is_believed_where_memory_is_short():
    error = RuntimeError("GET was unable to find an engine to execute this computation")
    with PretendedGpu(memory=100 * MIB) as gpu:
        with pytest.raises(
            TrialError, match="100 of 100 MiB of the GPU free: not for want of memory; try --precision fp32"
        ):
            is_out_of_memory(error)
        kept = torch.empty(90 * MIB, dtype=torch.uint8, device="cuda")
        assert is_out_of_memory(error) and gpu.alive == kept.nbytes


def test_images_that_another_program_left_no_room_for_stay_mapped():
    with PretendedGpu(memory=MIB):
        images = GpuImages(np.zeros((20, 200, 200, 3), np.uint8), torch.device("cuda", 0))
        assert place_images([images], 1 << 30) == 0 and images.resident is None


# -- precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, capability, chosen",
    [
        ("NVIDIA A100", (8, 0), "bf16"),
        ("NVIDIA H100", (9, 0), "bf16"),
        ("Tesla T4", (7, 5), "fp16"),
        ("NVIDIA GeForce RTX 2080 Ti", (7, 5), "fp16"),
        ("Tesla V100", (7, 0), "fp16"),
        ("NVIDIA GeForce GTX 1660", (7, 5), "fp32"),
        ("NVIDIA GeForce GTX 1070", (6, 1), "fp32"),
    ],
)
def test_the_precision_is_the_cards_own(name, capability, chosen):
    with PretendedGpu(name=name, capability=capability):
        compute = choose_compute("cuda", "auto", 0)
        assert (compute.precision, compute.name) == (chosen, f"{name}, {chosen}")
        assert not torch.backends.cudnn.allow_tf32


def test_float32_is_float32_unless_tf32_is_named():
    with PretendedGpu():
        for precision in ("tf32", "fp32"):
            compute = choose_compute("cuda", precision, 0)
            flags = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
            assert flags == (precision == "tf32",) * 2 and compute.name.endswith(precision)
            assert compute.autocast_dtype is None


@pytest.mark.parametrize("precision, capability", [("bf16", (7, 5)), ("tf32", (7, 5))])
def test_a_precision_that_the_card_has_not_is_refused(precision, capability):
    with PretendedGpu(name="Tesla T4", capability=capability), pytest.raises(TrialError, match="Tesla T4 has no"):
        choose_compute("cuda", precision, 0)


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_a_cpu_has_neither(precision):
    with pytest.raises(TrialError, match=f"--precision {precision}: a CPU computes in fp32 and bf16"):
        choose_compute("cpu", precision, 0)


def test_a_skipped_step_leaves_weights_and_momentum_and_is_counted():
    """The first one too, before which torch's fused SGD has no momentum yet."""
    with PretendedGpu():
        layer = nn.Linear(4, 2).to("cuda")
        optimizer, scaler = GpuSGD(layer, 0.1, 0.9, 0.0), torch.amp.GradScaler("cuda", init_scale=8.0)
        before = [weight.detach().cpu() for weight in layer.parameters()]
        images = torch.ones(1, 4).to("cuda")
        for factor in (float("inf"), 1.0, 1.0):
            optimizer.zero_grad()
            scaler.scale(layer(images).sum() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
        after = [weight.detach().cpu() for weight in layer.parameters()]
        assert int(optimizer.skipped) == 1 and scaler.get_scale() == 4.0
    for old, new in zip(before, after, strict=True):  # the gradient is 1: steps of 0.1 and of 0.1 * 1.9
        torch.testing.assert_close(new, old - 0.1 * (1 + 1.9))


# -- batches of one image ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, image_px", [(17, 16), (3, 32), (5, 36)])
def test_no_batch_has_a_single_image(n, image_px):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, image_px + 2, image_px + 2, 3), dtype=np.uint8)
    splits = (Split(images, np.arange(n) % 3),) * 2
    h = H.merged({"batch_size": 2, "image_px": image_px, "epochs": 1})
    fitted = train.fit(
        start_training(build_model("resnet18", "none", 3, 0), h),
        *splits,
        h,
        choose_compute("cpu", "fp32", 1),
        len_of,
    )
    assert len(fitted.history) == 1


def len_of(t) -> None:
    assert t.train_micro_batch.images >= t.train_micro_batch.smallest
