"""Where an epoch goes: how much of it the model itself takes, how near its step is to what the device can do, its parts.

    efficiency = (N / training rate + M / validation rate) / seconds of the epoch

The rates are the model's alone: forward, loss, backward, update (or forward and loss) on one resident batch, in images/s.
The epoch is the trial's own: N training images read, augmented, moved, trained on and counted, M validated at once.
A shared machine's speed changes by tenths within seconds: on a CPU each step of the epoch is therefore followed by one of
the model alone, timed apart. A GPU does not wait after each step, so that there whole rounds take turns. What a step does
beside its model is timed by itself too.

python -m benchmarks.epoch (make profile) prints the parts of one epoch, and torch's operators.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import alternate, cache_of, ratios, sample_photos, seconds_of, wait_for
from benchmarks.table import Report, machine
from data.cache import Cache, Split
from trial import evaluate, train
from trial.batches import (
    Buffers,
    MicroBatch,
    evaluation_batch,
    place_images,
    plan_epoch,
    store_px,
    to_device,
    training_batch,
)
from trial.device import Compute, choose_compute
from trial.evaluate import EVALUATION_BATCH, Counter
from trial.hyperparameters import Hyperparameters
from trial.model import build_model
from trial.state import TrainState, start_training

SIZES = (64, 96, 224)
BATCHES = (8, 32, 128)
LEAST_STEPS = 4  # per round
GPU_STEPS, GPU_IMAGES = 400, 12_800  # at most, per round

MATRIX_SIDES = {"cpu": 2048, "cuda": 8192}
PEAK_CALLS = {"cpu": 1, "cuda": 20}  # per round
PEAK_PX, PEAK_BATCH = 224, {"cpu": 32, "cuda": 128}


@dataclass(frozen=True)
class _Bench:
    """A training whose epochs are measured. Nothing is learned: a network that fits one batch would slow down in
    denormals."""

    state: TrainState
    train: Split
    val: Split
    labels: Tensor  # of train, on the device
    h: Hyperparameters
    compute: Compute

    @property
    def steps(self) -> int:
        return len(self.labels) // self.h.batch_size

    def run_epoch(self) -> None:
        """As `fit` does it."""
        self.train_epoch()
        self.validate()

    def train_epoch(self) -> None:
        train.train_epoch(self.state, self.train, self.labels, self.h, self.compute)

    def validate(self) -> None:
        evaluate.evaluate(self.state.model, self.val, self.h.image_px, self.compute, self.state.evaluation_micro_batch)


def bench_of(cache: Cache, compute: Compute, h: Hyperparameters, steps: int) -> _Bench:
    """steps: per epoch."""
    train = _first(cache.split("training", store_px(h.image_px)), steps * h.batch_size, compute)
    val = _first(cache.split("validation", store_px(h.image_px)), EVALUATION_BATCH[compute.device.type], compute)
    model = compute.place(build_model(h.arch, h.weights, len(cache.classes), h.seed))
    state = start_training(model, h, None, compute.precision)
    return _Bench(state, train, val, torch.from_numpy(train.labels).to(compute.device), h, compute)


def settings(image_px: int, batch_size: int) -> Hyperparameters:
    return Hyperparameters(batch_size=batch_size, image_px=image_px, lr=1e-8, weights="none")


def _first(split: Split, n: int, compute: Compute) -> Split:
    """n of its images, mapped from the cache; where it has fewer, all of them over and over, in memory."""
    if n <= len(split.labels):
        return resident(Split(split.images[:n], split.labels[:n]), compute)
    rows = np.arange(n) % len(split.labels)
    return resident(Split(split.images[rows], split.labels[rows]), compute)


def resident(split: Split, compute: Compute) -> Split:
    """On a GPU with its images in its memory where they take at most half of what is free."""
    placed = to_device(split, compute.device)
    if placed is not split:
        place_images([placed.images], torch.cuda.mem_get_info()[0] // 2)
    return placed


def steps_per_round(h: Hyperparameters, kind: str) -> int:
    """Enough for two seconds and more on two cores, or on a GPU that takes 8 ms to launch a step; several in any case:
    one disturbed step would be a round's figure."""
    if kind == "cuda":
        return max(LEAST_STEPS, min(GPU_STEPS, GPU_IMAGES // h.batch_size))
    return max(LEAST_STEPS, round(64 * (224 / h.image_px) ** 1.4) // h.batch_size)


def pipeline(report: Report, cache: Cache, compute: Compute, rounds: int) -> None:
    for image_px in SIZES:
        for batch_size in BATCHES:
            measure(report, cache, compute, settings(image_px, batch_size), rounds)


def measure(report: Report, cache: Cache, compute: Compute, h: Hyperparameters, rounds: int) -> None:
    """The three figures of one image size and batch size."""
    kind, shape = compute.device.type, f"{h.image_px} px, batch {h.batch_size}"
    bench = bench_of(cache, compute, h, steps_per_round(h, kind))
    seconds = (_whole_rounds if kind == "cuda" else _step_by_step)(bench, rounds)
    alone = [a + b for a, b in zip(seconds["training"], seconds["validation"], strict=True)]
    report.add(f"pipeline efficiency, {shape}", ratios(alone, seconds["epoch"]), "", ">= 0.97")
    shares = [100 * share for share in ratios(seconds["beside"], seconds["training"])]
    report.add(f"a step beside its model, {shape}", shares, "%")
    rates = [len(bench.labels) / each for each in seconds["training"]]
    report.add(f"the model alone, {shape}", rates, "images/s")


def _step_by_step(bench: _Bench, rounds: int) -> dict[str, list[float]]:
    """Within each epoch, a step of the trial and a step of the model alone take turns. The first round is not counted."""
    values: dict[str, list[float]] = {name: [] for name in ("training", "validation", "epoch", "beside")}
    step, score = _model_alone(bench)
    bench.state.train_micro_batch = training = _InTurns(bench.state.train_micro_batch, step)
    bench.state.evaluation_micro_batch = validation = _InTurns(bench.state.evaluation_micro_batch, score)
    for number in range(rounds + 1):
        training.seconds = validation.seconds = 0.0
        epoch = seconds_of(bench.run_epoch, bench.compute) - training.seconds - validation.seconds
        beside = seconds_of(lambda: _beside_model(bench), bench.compute)
        if number:
            for name, value in zip(values, (training.seconds, validation.seconds, epoch, beside), strict=True):
                values[name].append(value)
    return values


class _InTurns(MicroBatch):
    """The trial's own work, and after each piece of it another, whose seconds are added up."""

    def __init__(self, own: MicroBatch, other: Callable[[], None]) -> None:
        super().__init__(own.images, own.smallest)
        self.other, self.seconds = other, 0.0

    def run(self, work, undo):
        result = super().run(work, undo)
        started = time.perf_counter()
        self.other()
        self.seconds += time.perf_counter() - started
        return result


def _whole_rounds(bench: _Bench, rounds: int) -> dict[str, list[float]]:
    """As many steps of the model alone as an epoch has, and whole epochs, take turns."""
    step, score = _model_alone(bench)

    def steps() -> None:
        bench.state.model.train()
        for _ in range(bench.steps):
            step()

    def validation() -> None:
        bench.state.model.eval()
        with torch.inference_mode():
            score()

    work = {
        "training": steps,
        "validation": validation,
        "epoch": bench.run_epoch,
        "beside": lambda: _beside_model(bench),
    }
    ways = {name: lambda each=each: seconds_of(each, bench.compute) for name, each in work.items()}
    return alternate(ways, rounds)


def _model_alone(bench: _Bench) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step, and the scoring of a batch, of the model alone on a resident batch of the epoch's size."""
    planned = next(plan_epoch(len(bench.labels), bench.h.batch_size, torch.Generator()))
    images, labels = training_batch(bench.train.images, bench.labels, planned, bench.h.image_px)
    val_labels = torch.from_numpy(bench.val.labels).to(bench.compute.device)
    rows = slice(0, min(len(val_labels), bench.state.evaluation_micro_batch.images))
    val_images, val_labels = evaluation_batch(bench.val.images, val_labels, rows, bench.h.image_px)
    state, compute = bench.state, bench.compute

    def step() -> None:
        """Forward, loss, backward, update: (B, 3, S, S) float32, (B,) int64, on the device."""
        with compute.autocast():
            loss = F.cross_entropy(state.model(images).float(), labels)
        state.optimizer.zero_grad()
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()

    def score() -> None:
        with compute.autocast():
            logits = state.model(val_images).float()
        F.cross_entropy(logits, val_labels)

    return step, score


def _beside_model(bench: _Bench) -> None:
    """All that the training steps of an epoch do but forward, loss, backward and update."""
    counter, buffers = Counter(int(bench.train.labels.max()) + 1, bench.labels.device), Buffers(bench.state.model)
    for planned in plan_epoch(len(bench.labels), bench.h.batch_size, bench.state.generator):
        buffers.keep()
        images, labels = training_batch(bench.train.images, bench.labels, planned, bench.h.image_px)
        counter.add(images[:, 0, 0], labels, images[0, 0, 0, 0])
    counter.score()


def peak(report: Report, cache: Cache, compute: Compute, rounds: int) -> None:
    """A step's rate of operations over that of one large matrix product of the type that it computes in.

    A convolution that is counted as multiplications may take fewer (Winograd's), and batch normalisation, pooling and the
    update count for nothing: the share is a guide, not an efficiency."""
    kind = compute.device.type
    side, batch = MATRIX_SIDES[kind], PEAK_BATCH[kind]
    dtype = compute.autocast_dtype or torch.float32
    a, b = (torch.randn(side, side, device=compute.device, dtype=dtype) for _ in range(2))
    step, _ = _model_alone(bench_of(cache, compute, settings(PEAK_PX, batch), steps=1))
    with FlopCounterMode(display=False) as counter:
        step()

    calls = PEAK_CALLS[kind]
    ways = {
        "matrix": lambda: seconds_of(lambda: a @ b, compute, 10 * calls),
        "step": lambda: seconds_of(step, compute, calls),
    }
    seconds = alternate(ways, rounds)
    matrix_rates = [2 * side**3 / each / 1e9 for each in seconds["matrix"]]
    step_rates = [counter.get_total_flops() / each / 1e9 for each in seconds["step"]]
    report.add("matrix product", matrix_rates, "GFLOP/s", note=f"{compute.precision}, {side} x {side}")
    report.add(f"training step, {PEAK_PX} px", step_rates, "GFLOP/s", note=f"batch {batch}")
    report.add("training step / matrix product", ratios(step_rates, matrix_rates), "")


def parts_of(bench: _Bench) -> dict[str, tuple[object, str]]:
    """Which function of which object is which part."""
    return {
        "batches": (train, "training_batch"),
        "forward": (bench.state.model, "forward"),
        "backward": (torch.Tensor, "backward"),
        "update": (bench.state.optimizer, "step"),
        "counting": (evaluate.Counter, "add"),
        "kept for a repetition": (Buffers, "keep"),
    }


@contextmanager
def _timed_parts(bench: _Bench) -> Iterator[dict[str, float]]:
    """Seconds of each part, added up while this lasts; on a GPU the host waits after each, so that its parts are true and
    their sum is more than an undisturbed epoch."""
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable) -> Callable:
        def call(*arguments, **options):
            started = time.perf_counter()
            result = function(*arguments, **options)
            wait_for(bench.compute)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
            return result

        return call

    with ExitStack() as patches:
        for name, (owner, function) in parts_of(bench).items():
            patches.enter_context(patch.object(owner, function, timed(name, getattr(owner, function))))
        yield seconds


def epoch_parts(bench: _Bench) -> dict[str, float]:
    """Seconds of an epoch's parts, the rest among them."""
    with _timed_parts(bench) as seconds:
        training = seconds_of(bench.train_epoch, bench.compute)
    rest = training - sum(seconds.values())
    return {**seconds, "rest of the training": rest, "validation": seconds_of(bench.validate, bench.compute)}


def operators(bench: _Bench, rows: int) -> str:
    """torch's table of an epoch's operators, those that take most first."""
    on_gpu = bench.compute.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        bench.run_epoch()
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return recorded.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=48)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.epoch", description=__doc__, allow_abbrev=False)
    parser.add_argument("--image-px", type=int, default=96, metavar="N")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", choices=("auto", "fp32", "tf32", "bf16", "fp16"), default="auto")
    parser.add_argument("--operators", type=int, default=12, metavar="N", help="how many are listed")
    args = parser.parse_args(arguments)
    compute = choose_compute(args.device, args.precision, 0)
    h = settings(args.image_px, args.batch_size)
    bench = bench_of(cache_of(sample_photos()), compute, h, steps_per_round(h, compute.device.type))
    epoch_parts(bench)  # warms up
    seconds = epoch_parts(bench)
    whole = sum(seconds.values())
    print("  ".join(f"{key}: {value}" for key, value in machine(compute).items()))
    print(f"one epoch (n = 1) of {len(bench.labels)} training and {len(bench.val.labels)} validation images, "
          f"{args.image_px} px, batch {args.batch_size}: {whole:.2f} s")  # fmt: skip
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {name:<24} {value:8.3f} s  {value / whole:6.1%}")
    print(operators(bench, args.operators))
    return 0


if __name__ == "__main__":
    sys.exit(main())
