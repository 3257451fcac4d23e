"""How near a training step comes to what the device can do: its rate of operations over that of one large matrix product.

The product is of the type that the step computes in. A convolution that is counted as multiplications may take fewer
(Winograd's), and batch normalisation, pooling and the update count for nothing: the share is a guide, not an efficiency.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Report, alternate, ratios, wait_for
from benchmarks.pipeline import alone, prepare
from data.cache import Cache
from trial.device import Compute

SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices
CALLS = {"cpu": 1, "cuda": 20}  # a round
IMAGE_PX, BATCH = 224, {"cpu": 32, "cuda": 128}


def run(report: Report, cache: Cache, compute: Compute, rounds: int) -> None:
    kind = compute.device.type
    side, calls = SIDES[kind], CALLS[kind]
    dtype = compute.autocast_dtype or torch.float32
    a, b = (torch.randn(side, side, device=compute.device, dtype=dtype) for _ in range(2))
    step, _ = alone(prepare(cache, compute, IMAGE_PX, BATCH[kind], steps=1))
    with FlopCounterMode(display=False) as counter:
        step()
    ways = {
        "matrix": lambda: seconds(lambda: a @ b, 10 * calls, compute),
        "step": lambda: seconds(step, calls, compute),
    }
    taken = alternate(ways, rounds)
    matrix = [2 * side**3 / each / 1e9 for each in taken["matrix"]]
    reached = [counter.get_total_flops() / each / 1e9 for each in taken["step"]]
    report.add("matrix product", matrix, "GFLOP/s", note=f"{compute.precision}, {side} x {side}")
    report.add(f"training step, {IMAGE_PX} px", reached, "GFLOP/s", note=f"batch {BATCH[kind]}")
    report.add("training step / matrix product", ratios(reached, matrix), "")


def seconds(work: Callable[[], object], times: int, compute: Compute) -> float:
    """Of one call, over `times` calls; on a GPU after three others."""
    if compute.device.type == "cuda":
        for _ in range(3):
            work()
    wait_for(compute)
    started = time.perf_counter()
    for _ in range(times):
        work()
    wait_for(compute)
    return (time.perf_counter() - started) / times
