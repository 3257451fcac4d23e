"""What `check` refuses before anything runs, by the keys of its findings."""

from __future__ import annotations

import json
import os
import socket
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, run_module
from test_trial_model import published

from experiments import check as checks
from experiments import launch as launching
from experiments.check import check, describe_trial
from experiments.config import Overrides, parse_set, read_experiment
from experiments.findings import ExperimentError, Finding, by_severity, format_finding
from experiments.nni import find_port, is_free
from experiments.space import discrete_size, space_findings
from trial.hyperparameters import describe_fields

pytestmark = pytest.mark.usefixtures("trial_in_forks")

GOOD = {"lr": {"_type": "uniform", "_value": [0.0001, 0.1]}}


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"lr": {"_type": "uniform", "_value": [0.1, 0.0001]}}, "bounds_reversed"),
        ({"lr": {"_type": "uniform", "_value": [0.1, 0.1]}}, "bounds_reversed"),
        ({"lr": {"_type": "unifrom", "_value": [0, 1]}}, "unknown_type"),
        ({"lr": {"_type": "loguniform", "_value": [0, 1]}}, "log_of_zero"),
        ({"lr": {"_type": "uniform", "_value": ["1e-4", 0.1]}}, "not_finite"),
        ({"lr": {"_type": "uniform", "_value": [0.1]}}, "value_count"),
        ({"lr": {"_type": "uniform", "_value": [0.0, float("inf")]}}, "not_finite"),
        ({"lr": {"_type": "quniform", "_value": [0.1, 1, 0]}}, "step"),
        ({"lr": {"_type": "normal", "_value": [0.1, 0]}}, "sigma"),
        ({"seed": {"_type": "randint", "_value": [0, 1.5]}}, "randint_fraction"),
        ({"lr": {"_type": "choice", "_value": []}}, "no_options"),
        ({"lr": {"_type": "choice", "_value": ["1e-4", 0.1]}}, "number_as_text"),
        ({"lr": {"_type": "choice", "_value": 0.1}}, "value_form"),
        ({"lr": 0.1}, "entry_form"),
        ({"lr": {"_type": "uniform", "_value": [-1, 0.1]}}, "value_out_of_range"),
        ({"learning_rate": GOOD["lr"]}, "unknown_field"),
        ({"batch_size": {"_type": "uniform", "_value": [8, 128]}}, "fraction_for_whole"),
        ({"batch_size": {"_type": "choice", "_value": [8, 0]}}, "value_out_of_range"),
        ({"batch_size": {"_type": "choice", "_value": [8, "many"]}}, "value_type"),
        ({"arch": {"_type": "choice", "_value": ["resnet18", "vgg"]}}, "value_unknown"),
        ({"weights": {"_type": "uniform", "_value": [0, 1]}}, "number_for_text"),
        ({"lr": {"_type": "choice", "_value": [{"x": 1}]}}, "no_name"),
    ],
)
def test_a_faulty_space_is_one_line_that_names_the_entry(entry, key):
    (finding,) = space_findings(entry, describe_fields(), 15)
    name = next(iter(entry))
    assert (finding.level, finding.key) == ("error", f"space.{key}")
    assert finding.text.startswith(f"{name}: ") and finding.path[:2] == ("searchSpace", name)


def test_reversed_bounds_are_given_in_their_order():
    (finding,) = space_findings({"lr": {"_type": "uniform", "_value": [0.1, 0.0001]}}, describe_fields(), 15)
    assert "[0.0001, 0.1]" in finding.text


def test_an_empty_space_and_one_too_small_for_the_trials():
    assert [finding.key for finding in space_findings({}, None, 15)] == ["space.empty"]
    small = {"lr": {"_type": "choice", "_value": [0.1, 0.2]}, "seed": {"_type": "randint", "_value": [0, 4]}}
    assert discrete_size(small) == 8
    assert [finding.key for finding in space_findings(small, describe_fields(), 15)] == ["space.too_small"]
    assert space_findings(small, describe_fields(), 8) == []
    assert discrete_size(small | GOOD) is None


def test_foreign_trials_may_search_what_they_like():
    space = {"layers": {"_type": "randint", "_value": [1, 9]}, "rate": {"_type": "qloguniform", "_value": [1, 100, 2]}}
    assert space_findings(space, None, 5) == []


def test_findings_are_sorted_and_printed_with_their_next_step():
    note, error = Finding("note", "a", "x"), Finding("error", "b", "y\nit means: z", "make demo")
    assert by_severity([note, error]) == [error, note]
    assert format_finding(error, "f.yml:3") == "error: f.yml:3: y\n    it means: z\n    next: make demo"


def findings(file, cache, *pairs, **more):
    fields = parse_set([f"cache={cache}", "weights=none", "image_px=32", "threads=1", *pairs])
    return check(read_experiment(file, Overrides(fields, **more)))


def test_the_disk_that_the_trials_need_is_that_of_their_largest_network(tiny_cache, monkeypatch):
    name = ROOT / "experiments" / "tpe.yml"
    monkeypatch.setattr("experiments.check.shutil.disk_usage", lambda _: SimpleNamespace(free=400 * 2**20))
    assert keys(findings(name, tiny_cache, max_trials=2)) == []
    fields = parse_set([f"cache={tiny_cache}", "weights=none", "image_px=32"])
    searched = read_experiment(name, Overrides(fields, max_trials=2))
    searched.config["searchSpace"] = {"arch": {"_type": "choice", "_value": ["resnet18", "resnet50"]}}
    for found in (findings(name, tiny_cache, "arch=resnet50", max_trials=2), check(searched)):
        assert keys(found) == ["disk.too_small"] and "400 MiB free, about 600 needed" in errors(found)[0]


def keys(found, level="error"):
    return [finding.key for finding in found if finding.level == level]


def errors(found):
    return [finding.text for finding in found if finding.level == "error"]


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("tpe", "0 of 15 trials are chosen by the tuner: TPE samples the first 20 at random"),
        ("evolution", "0 of 15 trials are chosen by the tuner: Evolution samples the first 100 at random"),
        ("tpe_guided", "10 of 15 trials are chosen by the tuner: TPE samples the first 5 at random"),
        ("evolution_guided", "10 of 15 trials are chosen by the tuner: Evolution samples the first 5 at random"),
        (
            "tpe_seeded",
            "10 of 15 trials are chosen by the tuner: TPE (seeded) samples the first 5 at random, except 1 given",
        ),
        (
            "evolution_seeded",
            "10 of 15 trials are chosen by the tuner: Evolution (seeded) samples the first 5 at random, except 1 given",
        ),
        ("random", "0 of 15 trials are chosen by the tuner: Random never learns"),
    ],
)
def test_our_experiments_are_sound_and_say_what_the_tuner_chooses(name, note, tiny_cache):
    found = findings(ROOT / f"experiments/{name}.yml", tiny_cache)
    assert errors(found) == [] and note in [finding.text for finding in found if finding.level == "note"]


def test_a_missing_cache_and_missing_weights_are_found(tmp_path):
    file = ROOT / "experiments/tpe.yml"
    found = errors(check(read_experiment(file, Overrides({"cache": str(tmp_path), "weights": "gone.pth"}))))
    assert len(found) == 2 and "no cache there" in found[0] and "gone.pth" in found[1]


def test_a_missing_teacher_is_found_whether_fixed_or_searched(tiny_cache, tmp_path, monkeypatch):
    file = ROOT / "experiments/tpe.yml"
    monkeypatch.chdir(tmp_path)  # a relative path on the command line is the person's own
    found = errors(findings(file, tiny_cache, "teacher=gone.pt"))
    assert len(found) == 1 and f"trial: teacher = '{tmp_path / 'gone.pt'}': cannot be read" in found[0]
    space = {
        "teacher": {"_type": "choice", "_value": ["gone.pt"]},
        "distill_weight": {"_type": "uniform", "_value": [0, 1]},
    }
    (tmp_path / "space.json").write_text(json.dumps(space))
    search = edited(tmp_path, (str(ROOT / "search_spaces/report.json"), "space.json"))
    found = errors(findings(search, tiny_cache))
    assert len(found) == 1 and "trial: teacher = 'gone.pt': cannot be read" in found[0]


def test_a_field_both_searched_and_fixed_is_refused(tiny_cache):
    found = findings(ROOT / "experiments/tpe.yml", tiny_cache, "lr=0.1")
    assert keys(found) == ["trial.searched_and_fixed"] and "lr" in found[0].text


def test_an_unknown_field_is_refused_with_the_way_to_the_known_ones(tiny_cache):
    found = errors(findings(ROOT / "experiments/tpe.yml", tiny_cache, "epoch=3"))
    assert "unrecognized arguments: --epoch" in found[0] and "python -m trial --help" in found[0]


def edited(tmp_path, *changes, source="tpe"):
    """An experiment file with texts replaced, in another folder."""
    text = (ROOT / f"experiments/{source}.yml").read_text().replace("../search_spaces", str(ROOT / "search_spaces"))
    text = text.replace("trialCodeDirectory: ..", f"trialCodeDirectory: {ROOT}")
    text = text.replace("codeDirectory: tuners", f"codeDirectory: {ROOT}/experiments/tuners")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "edited.yml").write_text(text)
    return tmp_path / "edited.yml"


@pytest.mark.parametrize(
    ("change", "key", "path"),
    [
        (("name: TPE", "name: TPEE"), "tuner.arguments", ("tuner",)),
        (("optimize_mode: maximize", "optimize_mode: maximise"), "tuner.arguments", ("tuner", "classArgs", "optimize_mode")),
        (("optimize_mode: maximize", "population_size: 5"), "tuner.arguments", ("tuner", "classArgs", "population_size")),
        (("platform: local", "platform: local\n  trialGpuNumber: 64\n  useActiveGpu: true"), "gpu.too_many_requested", ("trialGpuNumber",)),
    ],
)  # fmt: skip
def test_what_nni_would_find_out_too_late_is_found(change, key, path, tiny_cache, tmp_path):
    (error,) = [f for f in findings(edited(tmp_path, change), tiny_cache) if f.level == "error"]
    assert (error.key, error.path) == (key, path)


def test_a_gpu_that_torch_cannot_use_stops_a_launch_unless_the_cpu_is_wanted(
    old_driver, tiny_cache, tmp_path, monkeypatch
):
    for name in ("LD_LIBRARY_PATH", "STUB_DRIVER"):
        monkeypatch.setenv(name, old_driver[name])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    file = ROOT / "experiments/tpe.yml"
    (error,) = errors(findings(file, tiny_cache, "seed=1"))
    assert "trial: device = 'auto': an NVIDIA GPU is here, but its driver (CUDA 12.2)" in error and "whl/cu126" in error
    assert errors(findings(file, tiny_cache, "seed=1", "device=cpu")) == []
    hidden = edited(tmp_path, ("platform: local", "platform: local\n  trialGpuNumber: 0"))
    assert errors(findings(hidden, tiny_cache, "seed=1")) == []


@pytest.mark.parametrize(
    ("config", "gpu", "key"),
    [
        ({"trialConcurrency": 2}, {"device": "cuda", "names": ["T4", "T4"]}, "gpu.not_shared"),
        ({"trialConcurrency": 4}, {"device": "cuda:1", "names": ["T4", "T4"]}, "gpu.not_shared"),
        ({"trialConcurrency": 2, "trialGpuNumber": 1}, {"device": "cuda", "names": ["T4", "T4"]}, None),
        ({"trialConcurrency": 2, "trialGpuNumber": 1}, {"device": "cuda:1", "names": ["T4", "T4"]}, "gpu.number_not_shown"),
        ({"trialConcurrency": 1}, {"device": "cuda", "names": ["T4", "T4"]}, None),
        ({"trialConcurrency": 2}, {"device": "cuda", "names": ["T4"]}, None),
        ({"trialConcurrency": 2}, {"device": "cpu", "names": ["T4", "T4"]}, None),
        ({"trialConcurrency": 2}, {}, None),
    ],
)  # fmt: skip
def test_trials_at_once_on_several_gpus_are_warned_of_or_refused(config, gpu, key, monkeypatch):
    monkeypatch.setattr(checks, "count_gpus", lambda: 2)
    assert [finding.key for finding in checks._gpu_findings(config, gpu)] == ([key] if key else [])


@pytest.mark.parametrize(
    ("device", "pairs", "threads"),
    [("cpu", {}, "1"), ("cuda", {}, None), ("cpu", {"threads": "3"}, "3"), (None, {}, None)],
)
def test_experiments_at_once_share_the_cores_where_their_trials_compute_on_them(
    device, pairs, threads, monkeypatch, capsys
):
    monkeypatch.setattr(launching, "gpu_of_trial", lambda _: {"device": device, "names": ["T4", "T4"]})
    monkeypatch.setattr(launching.os, "cpu_count", lambda: 2)
    files = [ROOT / "experiments/tpe.yml", ROOT / "experiments/evolution.yml"]
    assert launching.share_devices(Overrides(pairs), files).fields.get("threads") == threads
    assert ("2 GPUs, and no trialGpuNumber: all compute on one" in capsys.readouterr().err) == (device == "cuda")


def test_a_trial_that_does_not_answer_is_one_line(tiny_cache, monkeypatch):
    monkeypatch.setattr(checks, "DESCRIBE_S", 0.01)
    (error,) = errors(findings(ROOT / "experiments/tpe.yml", tiny_cache, "seed=77"))
    assert "has not answered within" in error and "--set weights=FILE" in error and "\n" not in error


def test_what_a_weights_file_is_reaches_the_check(tiny_cache, tmp_path):
    weights = {f"module.{name}": value for name, value in published("resnet18").items()}
    torch.save({"state_dict": weights}, tmp_path / "w.pth")
    found = findings(ROOT / "experiments/tpe.yml", tiny_cache, f"weights={tmp_path / 'w.pth'}", "arch=resnet50")
    (error,) = errors(found)
    assert error.startswith(f"trial: weights = '{tmp_path / 'w.pth'}' (resnet50) does not fit: missing layer1.0.conv3")
    assert "these are a resnet18's weights (--arch resnet18; in an experiment --set arch=resnet18)" in error
    note = "trial: w.pth: taken from its state_dict; the prefix module. taken off the names"
    assert note in [finding.text for finding in found if finding.level == "note"]


@pytest.mark.parametrize(
    ("source", "change", "key", "message"),
    [
        ("evolution_seeded", ("population_size", "populatoin_size"), "tuner.arguments", "unexpected keyword argument 'populatoin_size'"),
        ("evolution_seeded", ("population_size: 5", "population_size: 4"), "tuner.arguments", "population_size: 4 has no room for 5 first trials"),
        ("evolution_seeded", ("population_size: 5", "population_size: five"), "tuner.arguments", "population_size should be a whole number from 1, found 'five'"),
        ("evolution_seeded", ("trialConcurrency: 1", "trialConcurrency: 6"), "tuner.population", "population_size 5 is below trialConcurrency 6"),
        ("evolution_guided", ("trialConcurrency: 1", "trialConcurrency: 6"), "tuner.population", "tuner Evolution: population_size 5 is below"),
        ("evolution_seeded", ("maxTrialNumber: 15", "maxTrialNumber: 4"), "tuner.too_few_trials", "1 first and 4 initial trials"),
        ("tpe_seeded", ("maxTrialNumber: 15", "maxTrialNumber: 4"), "tuner.too_few_trials", "1 first and 4 initial trials"),
        ("tpe_seeded", ("batch_size: 32", "batch_size: 48"), "tuner.arguments", "first: batch_size: 48 is outside the search space, choice [8, 16, 32, 64, 128]"),
        ("tpe_seeded", ("lr: 0.001", "lr: 1e-3"), "tuner.arguments", "first: lr: '1e-3' is not a finite number"),
        ("tpe_seeded", ("initial: 4", "initial: many"), "tuner.arguments", "initial should be a whole number from 0, found 'many'"),
        ("tpe_seeded", ("seed: 0 #", "seed: zero #"), "tuner.arguments", "seed should be a whole number from 0, found 'zero'"),
        ("tpe_seeded", ("optimize_mode: maximize", "optimize_mode: maximise"), "tuner.arguments", "'maximise' is not a valid OptimizeMode"),
        ("tpe_seeded", ("seeded_tpe.SeededTpe", "seeded_tpe.SeededTPE"), "tuner.arguments", "has no attribute 'SeededTPE'"),
        ("tpe_guided", ("n_startup_jobs: 5", "n_startup_jobs: 1"), "tuner.arguments", "tuner TPE: "),
    ],
)  # fmt: skip
def test_the_tuners_arguments_are_tried_out(source, change, key, message, tiny_cache, tmp_path):
    found = findings(edited(tmp_path, change, source=source), tiny_cache)
    assert keys(found) == [key] and message in errors(found)[0]


def test_a_tuner_of_other_people_is_not_run(tiny_cache, tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')")
    change = (
        "seeded_tpe.SeededTpe\n  codeDirectory: " + f"{ROOT}/experiments/tuners",
        f"mine.Tuner\n  codeDirectory: {tmp_path}",
    )
    found = findings(edited(tmp_path, change, source="tpe_seeded"), tiny_cache)
    assert keys(found) == [] and "tuner.custom" in keys(found, "note")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("maxTrialNumber", "maxTrialNum"), "NNI refuses it"),
        (("trialCommand: python -m trial", ""), "NNI refuses it"),
        (("platform: local", "platform: moon"), "NNI refuses it"),
        (("experimentName", "trainingServicePlatform: local\nexperimentName"), "written for NNI 1"),
        (("tuner:", "tuner: {"), "not YAML"),
    ],
)
def test_a_file_that_nni_cannot_read_is_one_line(change, message, tmp_path):
    with pytest.raises(ExperimentError) as error:
        read_experiment(edited(tmp_path, change), Overrides())
    assert message in str(error.value) and "\n" not in str(error.value)
    read_experiment(ROOT / "experiments/tpe.yml", Overrides())  # the next file is not refused with it


def test_limits_that_are_missing_are_warned_of(tiny_cache, tmp_path, monkeypatch):
    file = edited(tmp_path, ("maxTrialDuration: 2h", ""), ("trialConcurrency: 1", "trialConcurrency: 4"))
    warned = keys(findings(file, tiny_cache), "warning")
    assert "limit.not_set" in warned and "records.mixed" not in warned
    monkeypatch.setenv("FOOD11_NNI_REPAIRS", "off")
    assert {"limit.not_set", "records.mixed", "repairs.missing"} <= set(keys(findings(file, tiny_cache), "warning"))


def test_set_reaches_the_trial_as_flags_with_absolute_paths(tiny_cache, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    fields = parse_set(["weights=w.pth", "image_px=96"])
    experiment = read_experiment(ROOT / "experiments/tpe.yml", Overrides(fields, max_trials=3))
    assert experiment.trial_words[3:] == ["--weights", str(tmp_path / "w.pth"), "--image-px", "96"]
    assert experiment.config["maxTrialNumber"] == 3
    assert experiment.config["trainingService"]["trialCommand"] == experiment.config["trialCommand"]


def test_the_demo_is_the_same_file_at_another_scale():
    plain = read_experiment(ROOT / "experiments/tpe.yml", Overrides()).config
    demo = read_experiment(ROOT / "experiments/tpe.yml", Overrides({"epochs": "2"}, demo=True)).config
    changed = {key for key in plain if plain[key] != demo[key]}
    assert changed == {"trialCommand", "maxTrialDuration", "maxExperimentDuration", "trainingService"}
    assert "--epochs 2 " in demo["trialCommand"] + " " and "--epochs 6" not in demo["trialCommand"]


def test_describe_is_what_the_trial_says_of_itself(tiny_cache):
    fields = parse_set([f"cache={tiny_cache}", "weights=none", "image_px=32", "threads=1"])
    described = describe_trial(read_experiment(ROOT / "experiments/tpe.yml", Overrides(fields)))
    assert described["fields"] == json.loads(json.dumps(describe_fields())) and described["problems"] == []


def test_a_taken_port_is_passed_over():
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port) and find_port(port) > port


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere.yml"], "nowhere.yml: cannot be read"),
        (["check", "experiments/tpe.yml", "--set", "lr"], "expected FIELD=VALUE"),
        (["launch", "nowhere.yml"], "nothing was started"),
        (["watch", "nobody"], "nobody: not in NNI's registry"),
        (["watch"], "no experiment is running"),
    ],
)
def test_a_persons_mistake_is_one_line_and_exit_code_1(words, message, tmp_path):
    done = run_module("experiments", *words, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
