"""fit: what it recommends from made-up measurements, what it writes, and one real measurement in tiny."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT, run_module

from experiments.fit import Device, Measured, choose, write

CPU = Device("CPU, 2 threads", 2, 1000.0)


def measured(n, rate, memory_mib=100.0):
    return Measured(n, max(1, 2 // n), (1.0,), rate, memory_mib)


@pytest.mark.parametrize(
    ("rows", "n"),
    [
        ([measured(1, 10), measured(2, 19), measured(3, 20)], 2),  # within 5 % of the most
        ([measured(1, 10), measured(2, 18), measured(3, 20)], 3),
        ([measured(1, 10), measured(2, 9)], 1),
        ([measured(1, 10), measured(2, 20, 950.0)], 1),  # too near to all of the memory
    ],
)
def test_the_fewest_at_once_that_come_near_the_most_trials_per_hour(rows, n):
    assert choose(rows, CPU).n == n


def test_it_writes_the_two_keys_and_leaves_comments_and_the_rest(tmp_path):
    file = tmp_path / "a.yml"
    before = (ROOT / "experiments/tpe.yml").read_text()
    file.write_text(before)
    write(file, measured(2, 10))
    after = file.read_text()
    assert "trialConcurrency: 2 # plain NNI" in after and "trialCommand: python -m trial --threads 1\n" in after
    write(file, measured(1, 10))
    assert file.read_text() == before


def test_one_and_two_trials_are_trained_and_nothing_is_written(tiny_cache, tmp_path):
    file = tmp_path / "a.yml"
    text = (ROOT / "experiments/tpe.yml").read_text().replace("..", str(ROOT))
    file.write_text(text)
    flags = ["--set", "image_px=16", "--set", "weights=none", "--set", "device=cpu", "--cache", str(tiny_cache)]
    done = run_module("experiments", "fit", str(file), "--at-once", "1", "2", "--epochs", "2", *flags)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"\| +(\d) +\| +(\d+) +\| +([\d.]+) \(.*n = (\d)\) +\| +([\d.]+) ", done.stdout)
    assert [(row[0], row[3]) for row in rows] == [("1", "1"), ("2", "2")]  # an epoch after the first, of each trial
    assert all(float(row[4]) > 0 for row in rows) and re.search(r"set trialConcurrency: [12]", done.stdout)
    assert file.read_text() == text


def test_a_trial_that_is_not_ours_is_refused(tmp_path):
    file = tmp_path / "a.yml"
    text = (ROOT / "experiments/tpe.yml").read_text().replace("..", str(ROOT))
    file.write_text(text.replace("python -m trial", "python trial.py"))
    done = run_module("experiments", "fit", str(file))
    assert done.returncode == 1 and "fit measures `python -m trial` on this machine" in done.stderr
    assert "Traceback" not in done.stderr
