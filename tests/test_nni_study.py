"""A study with real NNI and real training: its manager killed in the midst, continued, and read."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from conftest import interrupted_at, run_module

from analysis.reading.reader import load_experiment

pytestmark = pytest.mark.nni


def own_entries(registry: Path, name: str) -> dict[str, dict]:
    """Of the experiments of this name: other tests share the home."""
    return {key: entry for key, entry in json.loads(registry.read_text()).items() if entry["experimentName"] == name}


def test_a_study_goes_on_after_a_kill_and_misses_no_training(nni_env, tiny_cache, tmp_path):
    out = tmp_path / "study"
    small = ["--set", "image_px=32", "--set", "weights=none", "--set", "epochs=1", "--set", "threads=1"]
    words = ["study", "early_stopping", "--seeds", "2", "--cache", str(tiny_cache), *small, "--out", str(out)]
    registry = Path(nni_env["HOME"]) / "nni-experiments" / ".experiment"

    code, lines = interrupted_at("1 of 4 trials", "experiments", *words, env=nni_env)
    assert code == 130, "".join(lines)
    assert "the same command continues" in lines[-1] and "Traceback" not in "".join(lines)

    name = json.loads((out / "plan.json").read_text())["parts"][0]["experiment"]
    entry = next(e for e in json.loads(registry.read_text()).values() if e["experimentName"] == name)
    manager = psutil.Process(entry["pid"])
    manager.kill()
    manager.wait(10)

    done = run_module("experiments", *words, env=nni_env)
    assert done.returncode == 0, done.stderr
    entries = own_entries(registry, name)
    assert len(entries) == 2
    trials = [trial for key in entries for trial in load_experiment(registry.parent / key).trials]
    ended = [(trial.effective["seed"], trial.effective["patience"]) for trial in trials if trial.score is not None]
    assert sorted(ended) == [(seed, patience) for seed in (0, 1) for patience in (0, 5)]  # none is trained twice

    again = run_module("experiments", *words, env=nni_env)
    assert again.returncode == 0 and own_entries(registry, name).keys() == entries.keys()

    page = run_module("analysis", "study", "early_stopping", "--out", str(out), env=nni_env)
    assert page.returncode == 0, page.stderr
    result = json.loads((out / "study.json").read_text())
    assert [arm["n"] for arm in result["arms"]] == [2, 2] and result["prefixes"][0]["equal"] == 2
    assert "66 training, 22 validation, 22 evaluation generated drawings" in " ".join(page.stdout.split())
