"""Surfaces: really trained ones in tiny, what a kill leaves, and which files are refused."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from conftest import ROOT
from fixtures_surface import AXES, LAB, made_surface

from benchmarks import surface_command
from benchmarks.surface import FOLDER, SurfaceError, plan, read_surface

TINY = {"batch_size": [16, 32], "lr": [0.01]}
FIXED = {"weights": "none", "image_px": 16, "epochs": 2}


def tiny_plan(cache):
    from benchmarks.surface_build import Plan

    return Plan("tiny", FIXED, cache, TINY)


def test_the_labs_grid_is_trained_evenly():
    jobs = plan(LAB)
    assert len(jobs) == 325 * 2 + 26 * 3
    assert Counter(seed for _, seed in jobs) == {0: 325, 1: 325, 2: 26, 3: 26, 4: 26}
    assert len({(*point.values(), seed) for point, seed in jobs}) == len(jobs)
    early = jobs[:52]  # enough for a first replay: both seeds of 26 cells all over the grid
    assert Counter(seed for _, seed in early) == {0: 26, 1: 26}
    more = [point for point, seed in jobs if seed == 4]
    assert [point for point, seed in early if seed] == more
    assert Counter(point["lr"] for point in more) == dict.fromkeys(LAB["lr"], 2)
    assert len({(point["batch_size"], point["momentum"]) for point in more}) == 25
    for name, values in LAB.items():  # a fifth of the next round has every value of every axis
        assert {point[name] for point, _ in jobs[52:112]} == set(values)


def test_a_surface_is_read_as_it_was_written(tmp_path):
    surface = made_surface()
    surface.write(tmp_path / "made.json.gz")
    again = read_surface(str(tmp_path / "made.json.gz"))
    assert again == surface
    again.write(tmp_path / "again.json.gz")
    assert (tmp_path / "again.json.gz").read_bytes() == (tmp_path / "made.json.gz").read_bytes()


def edited(path, change):
    content = json.loads(gzip.decompress(path.read_bytes()))
    change(content)
    path.write_bytes(gzip.compress(json.dumps(content).encode()))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json.gz")), ids=lambda path: path.name)
def test_the_surfaces_of_the_repository_are_whole_files_of_the_labs_grid(path):
    surface = read_surface(str(path))
    assert path.name == f"{surface.name}.json.gz" and path.stat().st_size < 2_000_000
    assert surface.about["axes"] == LAB and len(surface.trainings) == sum(a["trainings"] for a in surface.attempts)
    assert not any("+changes" in attempt["revision"] for attempt in surface.attempts)


FAULTS = {
    "another format": (lambda c: c["about"].update(format=0), "format 0, this version reads format 1"),
    "no machine": (lambda c: c["about"].pop("machine"), "damaged (no machine)"),
    "a training twice": (lambda c: c["trainings"].append(c["trainings"][0]), "given twice"),
    "a cell outside": (lambda c: c["trainings"][3]["point"].update(lr=7), "training 3 is no cell"),
    "more right than images": (lambda c: c["trainings"][2]["correct"].__setitem__(0, 1001), "1000 validation images"),
    "evaluation": (lambda c: c["trainings"][2].update(evaluation_correct=501), "500 evaluation images"),
    "epochs without seconds": (lambda c: c["trainings"][1]["processor_s"].pop(), "different lengths"),
    "negative seconds": (lambda c: c["trainings"][1]["wall_s"].__setitem__(0, -1), "negative"),
    "a text": (lambda c: c["trainings"][1].update(correct="many"), "damaged"),
    "a list instead": (lambda c: c.update(trainings=[[1]]), "damaged"),
    "no axes": (lambda c: c["about"].update(axes=[]), "damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_surface_loads_nothing(tmp_path, fault):
    path = tmp_path / "made.json.gz"
    made_surface().write(path)
    change, message = FAULTS[fault]
    edited(path, change)
    with pytest.raises(SurfaceError) as error:
        read_surface(str(path))
    assert message in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-40], lambda b: b[:200] + b"x" + b[201:], lambda b: b"{}", lambda b: b""]
)
def test_broken_bytes_load_nothing(tmp_path, damage):
    path = tmp_path / "made.json.gz"
    made_surface().write(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SurfaceError, match="damaged"):
        read_surface(str(path))


def test_a_name_without_a_surface_is_told_what_there_is(capsys):
    assert surface_command.main(["show", "nowhere"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "build it with: python -m benchmarks surface build nowhere" in message


def test_show_and_check_count_what_is_missing(tmp_path, capsys):
    whole, part = tmp_path / "whole.json.gz", tmp_path / "part.json.gz"
    made_surface().write(whole)
    made_surface(trainings=30).write(part)
    total = len(plan(AXES))
    assert surface_command.main(["check", str(whole)]) == 0
    assert surface_command.main(["check", str(part)]) == 1
    assert (
        f"30 of {total} trainings: 18 of 24 cells, 12 of them with 2 seeds or more; {total - 30} are missing"
        in capsys.readouterr().out
    )
    assert surface_command.main(["show", str(whole)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "24 of them with 2 seeds or more" in shown and "made up" in shown
    assert "1.06 s" in shown and "2.12 s" in shown  # an epoch in batches of 128: processor, wall


def test_build_needs_photos_and_leaves_the_grid_alone(capsys):
    assert surface_command.main(["build", "mine"]) == 1
    assert "give --cache DIR or --demo" in capsys.readouterr().err
    assert surface_command.main(["build", "mine", "--demo", "--workers", "0"]) == 1
    assert "--workers 0: expected" in capsys.readouterr().err
    assert surface_command.main(["build", "mine", "--demo", "--set", "lr=0.1"]) == 1
    assert "the surface varies it" in capsys.readouterr().err
    assert surface_command.main(["build", "mine", "--demo", "--set", "speed=9"]) == 1
    assert "no such hyperparameter" in capsys.readouterr().err


def test_records_survive_a_torn_line_and_refuse_another_machine(tmp_path):
    from benchmarks.surface_build import Records

    surface, path = made_surface(), tmp_path / "records.jsonl"
    records = Records(path, surface.about)
    for training in surface.trainings[:3]:
        records.add(training)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"point":{"batch_size":8,')
    again = Records(path, surface.about).surface
    assert again.trainings == surface.trainings[:3]
    assert [attempt["trainings"] for attempt in again.attempts] == [3, 0]
    assert path.read_bytes().startswith(whole) and path.read_bytes().endswith(b"}\n")
    path.write_bytes(whole.replace(b'"seed":0', b'"seed"', 1))
    with pytest.raises(SurfaceError, match="line 3 is damaged"):
        Records(path, surface.about)
    path.write_bytes(whole)
    for key, value in (("machine", {"processor": "another"}), ("versions", {"torch": "9"}), ("precision", "bf16")):
        with pytest.raises(SurfaceError, match=f"measured with another {key}"):
            Records(path, {**surface.about, key: value})


@pytest.mark.slow
def test_a_killed_build_continues_and_repeats_to_the_image(tiny_cache, tmp_path):
    """Two real cells, ten trainings of two epochs."""
    from benchmarks.surface_build import build, retrain

    out, folder = tmp_path / "tiny.json.gz", tmp_path / "records"
    records = folder / "records.jsonl"
    script = (
        "from pathlib import Path; from benchmarks.surface_build import Plan, build\n"
        f"if __name__ == '__main__': build(Plan('tiny', {FIXED}, Path({str(tiny_cache)!r}), {TINY}), "
        f"Path({str(out)!r}), 2, Path({str(folder)!r}))\n"
    )
    (tmp_path / "run.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if records.exists() and records.read_bytes().count(b"\n") >= 4:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with records.open("ab") as file:
        file.write(b'{"point":{"batch')
    before = [line for line in records.read_bytes().split(b"\n") if line.startswith(b'{"point"')][:-1]
    assert len(before) >= 2

    surface = build(tiny_plan(tiny_cache), out, 1, folder)
    assert sorted(t.key for t in surface.trainings) == sorted(
        (size, 0.01, seed) for size in (16, 32) for seed in range(5)
    )
    assert [line for line in records.read_bytes().split(b"\n") if line in before] == before
    assert sum(attempt["trainings"] for attempt in surface.attempts) == 10
    assert read_surface(str(out)) == surface
    for training in surface.trainings:
        assert len(training.correct) == 2 and training.stopped_by == "epochs" and min(training.processor_s) > 0
        assert training.kept_correct == max(training.correct) == training.correct[training.best_epoch - 1]

    recorded, again = retrain(tiny_plan(tiny_cache), surface, 1, seed=0)[0]
    assert (recorded.correct, recorded.evaluation_correct) == (again.correct, again.evaluation_correct)
    with pytest.raises(SurfaceError, match="its hyperparameters is"):
        retrain(replace(tiny_plan(tiny_cache), fixed={**FIXED, "epochs": 3}), surface, 1, seed=0)


@pytest.mark.slow
def test_a_divergence_is_recorded(tiny_cache):
    from benchmarks.surface_build import Plan, train
    from data.cache import open_cache
    from trial.device import choose_compute

    target = Plan(
        "wild", {**FIXED, "momentum": 0.99, "weight_decay": 1.0}, tiny_cache, {"batch_size": [2], "lr": [10.0]}
    )
    training = train(target, open_cache(tiny_cache), choose_compute("cpu", "fp32", 1), {"batch_size": 2, "lr": 10.0}, 0)
    assert training.stopped_by == "diverged" and len(training.correct) < 2
    assert training.other_s["unfinished"][1] > 0 and 0 <= training.kept_correct <= 22


@pytest.mark.slow
def test_a_training_is_a_trials_to_the_image(tiny_cache, tmp_path):
    from benchmarks.surface_build import train
    from data.cache import open_cache
    from trial.device import choose_compute
    from trial.run import Settings, run_trial

    target, point, cache, epochs = tiny_plan(tiny_cache), {"batch_size": 16, "lr": 0.01}, open_cache(tiny_cache), []
    training = train(target, cache, choose_compute("cpu", "fp32", 1), point, seed=3)
    settings = Settings(tmp_path / "trial", "cpu", "fp32", threads=1)
    final = run_trial(target.hyperparameters(point, 3), cache, settings, epochs.append)
    assert training.correct == [round(22 * epoch["default"]) for epoch in epochs]
    assert training.kept_correct == round(22 * final["default"]) and training.best_epoch == final["best_epoch"]
    assert training.evaluation_correct == round(22 * final["evaluation_top1"])
