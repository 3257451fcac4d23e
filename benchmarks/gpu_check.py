"""make gpu-check: the benchmarks and a short real search on this machine's GPU, appended to docs/log.md."""

from __future__ import annotations

import datetime
import subprocess
import sys
import warnings

import torch

from benchmarks import __main__ as benchmarks
from benchmarks.epoch import bench_of, settings
from benchmarks.measure import ROOT, cache_of, sample_photos
from benchmarks.table import Figure, Report, machine
from trial import TrialError
from trial.device import Compute, choose_compute

LOG = ROOT / "docs" / "log.md"
HEAD = "stays.\n"  # of the log's introduction; entries follow, newest first


def main(parts: list[str]) -> int:
    """parts: of the benchmarks, all where none is named."""
    try:
        compute = choose_compute("cuda", "auto", 0)
    except TrialError as error:
        print(f"error: torch {torch.__version__} cannot be measured on a GPU here: {error}", file=sys.stderr)
        return 1
    report = Report()
    _count_waits(report, compute)
    if code := benchmarks.main([*parts, "--device", "cuda"], report):
        return code
    search = [sys.executable, "-m", "experiments", "launch", "experiments/random.yml", "--max-trials", "3", "--demo"]
    done = subprocess.run(search, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    result = done.stdout.strip() or f"a search of 3 trials ended with exit code {done.returncode}"
    append_entry(machine(compute), report.figures, result)  # what was measured is kept whatever became of the search
    print(f"{result}\n{LOG}: entry added")
    return done.returncode


def _count_waits(report: Report, compute: Compute) -> None:
    """How often the host waits for the GPU within an epoch: only where its result is read, four numbers."""
    bench = bench_of(cache_of(sample_photos()), compute, settings(224, 128), steps=20)
    bench.train_epoch()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bench.train_epoch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in caught)
    report.add("waits for the GPU in an epoch", [float(waits)], "", "<= 4")


def append_entry(about: dict[str, str], figures: list[Figure], search: str) -> None:
    """Below the log's introduction, where the newest entry is."""
    facts = ", ".join(f"{key} {value}" for key, value in about.items())
    lines = "\n".join(map(str, figures))
    title = f"## {datetime.date.today()}: gpu-check on {torch.cuda.get_device_name()}"
    head, _, rest = LOG.read_text("utf-8").partition(HEAD)
    LOG.write_text(f"{head}{HEAD}\n{title}\n\n{facts}.\n\n```text\n{lines}\n{search}\n```\n{rest}", "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
