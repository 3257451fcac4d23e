"""make gpu-check: the benchmarks and a short real search on this machine's GPU, appended to docs/log.md."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as benchmarks
from benchmarks.measure import Figure, Report, alternate, line
from benchmarks.pipeline import bare_step, first
from benchmarks.setting import ROOT, cache_of, machine, photos
from trial.batches import plan_epoch, store_px, training_batch
from trial.device import Compute, choose_compute
from trial.fit import start_training, train_epoch
from trial.hyperparameters import Hyperparameters
from trial.model import build_model

MATRIX = 8192
LOG = ROOT / "docs" / "log.md"
HEAD = "stays.\n"  # of the log's introduction; entries follow, newest first


def main(parts: list[str]) -> int:
    """parts: of the benchmarks, all where none is named."""
    if not torch.cuda.is_available():
        print(
            f"error: torch {torch.__version__} sees no GPU; nvidia-smi tells whether the driver does", file=sys.stderr
        )
        return 1
    compute = choose_compute("cuda", "auto", 0)
    report = Report()
    check_no_waiting(report, compute)
    check_peak(report, compute)
    out = ROOT / "benchmarks" / "latest.json"
    if code := benchmarks.main([*parts, "--device", "cuda", "--out", str(out)], report):
        return code
    search = [sys.executable, "-m", "experiments", "launch", "experiments/random.yml", "--max-trials", "3", "--demo"]
    done = subprocess.run(search, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    found = done.stdout.strip() or f"a search of 3 trials ended with exit code {done.returncode}"
    append_entry(machine(compute), report.figures, found)  # what was measured is kept whatever became of the search
    print(f"{found}\n{LOG}: entry added")
    return done.returncode


def one_epoch(compute: Compute, batch_size: int = 128):
    """A function that trains one epoch at 224 px, and the images in it."""
    cache = cache_of(photos(None))
    h = Hyperparameters(batch_size=batch_size, weights="none", lr=1e-8)
    split = first(cache.split("training", store_px(h.image_px)), 10 * batch_size, compute)
    labels = torch.from_numpy(split.labels).to(compute.device)
    t = start_training(compute.place(build_model(h.arch, h.weights, len(cache.classes), h.seed)), h)
    return (lambda: train_epoch(t, split, labels, h, compute)), (t, split, labels, h)


def check_no_waiting(report: Report, compute: Compute) -> None:
    """How often the host waits for the GPU within an epoch: only where its result is read, four numbers."""
    import warnings

    epoch, _ = one_epoch(compute)
    epoch()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            epoch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in caught)
    report.add("waits for the GPU in an epoch", [float(waits)], "", "<= 4")


def check_peak(report: Report, compute: Compute, rounds: int = 5) -> None:
    """The share of the device's own matrix rate (bfloat16, measured here) that a training step reaches."""
    a, b = (torch.randn(MATRIX, MATRIX, device=compute.device, dtype=torch.bfloat16) for _ in range(2))
    _, (t, split, labels, h) = one_epoch(compute)
    images, targets = training_batch(
        split.images, labels, next(plan_epoch(len(labels), h.batch_size, t.generator)), 224
    )

    def step() -> None:
        bare_step(t, images, targets, compute)

    with FlopCounterMode(display=False) as counter:
        step()
    ways = {"matrix": lambda: seconds(lambda: a @ b, 20), "step": lambda: seconds(step, 20)}
    taken = alternate(ways, rounds)
    peak = [2 * MATRIX**3 / each for each in taken["matrix"]]
    reached = [counter.get_total_flops() / each for each in taken["step"]]
    name = torch.cuda.get_device_name(compute.device)
    report.add("matrix peak, bfloat16", [value / 1e12 for value in peak], "TFLOP/s", note=name)
    report.add("training step, 224 px", [value / 1e12 for value in reached], "TFLOP/s", note=f"batch {len(targets)}")
    report.add("training step / matrix peak", [a / b for a, b in zip(reached, peak, strict=True)], "")


def seconds(work, times: int) -> float:
    """Of one call, over `times` calls after three others."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / times


def append_entry(about: dict[str, str], figures: list[Figure], search: str) -> None:
    """Below the log's introduction, where the newest entry stands."""
    facts = ", ".join(f"{key} {value}" for key, value in about.items())
    lines = "\n".join(line(figure) for figure in figures)
    title = f"## {datetime.date.today()}: gpu-check on {torch.cuda.get_device_name()}"
    head, _, rest = LOG.read_text("utf-8").partition(HEAD)
    LOG.write_text(f"{head}{HEAD}\n{title}\n\n{facts}.\n\n```text\n{lines}\n{search}\n```\n{rest}", "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
