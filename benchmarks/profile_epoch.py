"""make profile: where one epoch of a trial goes, by part and by operator.

The parts are the trial's own functions, timed from outside; on a GPU the host waits after each, so that its parts are
true and their sum is more than an undisturbed epoch. The operators are torch's own profile of another epoch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import wait_for
from benchmarks.pipeline import Bench, prepare, run_epoch, steps_a_round
from benchmarks.setting import cache_of, machine, photos
from trial import evaluate, micro_batch, train
from trial.device import Compute, choose_compute


def parts_of(bench: Bench) -> dict[str, tuple[object, str]]:
    """Which function of which object is which part."""
    return {
        "batches": (train, "training_batch"),
        "forward": (bench.t.model, "forward"),
        "backward": (torch.Tensor, "backward"),
        "update": (bench.t.optimizer, "step"),
        "counting": (evaluate.Counter, "add"),
        "kept for a repetition": (micro_batch.Buffers, "keep"),
    }


@contextmanager
def timed_parts(bench: Bench) -> Iterator[dict[str, float]]:
    """Seconds of each part, added up while this lasts."""
    seconds: dict[str, float] = {}
    patches = []
    for name, (owner, function) in parts_of(bench).items():
        seconds[name] = 0.0
        patches.append(patch.object(owner, function, timed(getattr(owner, function), name, seconds, bench.compute)))
    try:
        for each in patches:
            each.start()
        yield seconds
    finally:
        for each in patches:
            each.stop()


def timed(function, name: str, seconds: dict[str, float], compute: Compute):
    def call(*arguments, **options):
        started = time.perf_counter()
        result = function(*arguments, **options)
        wait_for(compute)
        seconds[name] += time.perf_counter() - started
        return result

    return call


def epoch_parts(bench: Bench) -> dict[str, float]:
    """Seconds of an epoch's parts, the rest among them."""
    own = bench.t.train_micro_batch, bench.t.evaluation_micro_batch
    started = time.perf_counter()
    with timed_parts(bench) as seconds:
        train.train_epoch(bench.t, bench.train, bench.labels, bench.h, bench.compute)
    trained = time.perf_counter()
    evaluate.evaluate(bench.t.model, bench.val, bench.h.image_px, bench.compute, own[1])
    ended = time.perf_counter()
    rest = trained - started - sum(seconds.values())
    return {**seconds, "rest of the training": rest, "validation": ended - trained}


def operators(bench: Bench, rows: int) -> str:
    """torch's table of an epoch's operators, those that take most first."""
    on_gpu = bench.compute.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        run_epoch(bench, bench.t.train_micro_batch, bench.t.evaluation_micro_batch)
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return found.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=48)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.profile_epoch", description=__doc__, allow_abbrev=False)
    parser.add_argument("--image-px", type=int, default=96, metavar="N")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", choices=("auto", "fp32", "tf32", "bf16", "fp16"), default="auto")
    parser.add_argument("--operators", type=int, default=12, metavar="N", help="how many are shown")
    args = parser.parse_args(arguments)
    compute = choose_compute(args.device, args.precision, 0)
    steps = steps_a_round(args.image_px, args.batch_size, compute.device.type)
    bench = prepare(cache_of(photos(None)), compute, args.image_px, args.batch_size, steps)
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
