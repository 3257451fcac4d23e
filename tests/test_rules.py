"""Rules of the project that are kept by machine: who imports whom, which files agree."""

from __future__ import annotations

import ast
import importlib.machinery
import re
import sys

import pytest
import yaml
from conftest import ROOT

OURS = {"data", "trial", "experiments", "analysis"}
ALLOWED = {"data": set(), "trial": {"data"}, "analysis": set(), "experiments": {"analysis"}}
FORBIDDEN = {"analysis": {"torch", "torchvision", "nni"}, "data": {"torch", "torchvision", "nni"}}


def imports(file) -> set[str]:
    """Top-level names that a file imports, anywhere in it; relative imports are its own package."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(OURS))
def test_packages_import_only_what_they_may(package):
    for file in (ROOT / package).rglob("*.py"):
        names = imports(file)
        assert names & OURS - {package} <= ALLOWED[package], file
        assert not names & FORBIDDEN.get(package, set()), file


STARTS_OR_WRITES = re.compile(r"os\.(exec|fork|popen|posix_spawn|spawn|system)\w*|yaml\.(safe_)?dump(_all)?")


def test_the_analysis_starts_no_process_and_writes_no_experiment_file():
    """It is offline: what trains is `experiments`."""
    for file in (ROOT / "analysis").rglob("*.py"):
        assert not imports(file) & {"subprocess", "multiprocessing"}, file
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        assert not list(filter(STARTS_OR_WRITES.fullmatch, calls)), file


def test_the_tuners_shadow_no_module_and_import_nothing_of_ours():
    """NNI's dispatcher puts their folder on its import path."""
    files = list((ROOT / "experiments" / "tuners").glob("*.py"))
    names = {file.stem for file in files}
    assert {"seeded_tpe", "seeded_evolution", "optuna_search", "asha"} <= names
    assert not any(importlib.machinery.PathFinder.find_spec(name, _outside_paths()) for name in names)
    assert all(not imports(file) & (OURS | {"torch"}) for file in files)


def _outside_paths() -> list[str]:
    return [path for path in sys.path if not path.endswith("tuners")]


def test_one_file_of_the_trial_knows_nni():
    assert [file.name for file in (ROOT / "trial").glob("*.py") if "nni" in imports(file)] == ["__main__.py"]


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / "experiments" / name).read_text())


def test_the_experiments_are_identical_but_for_name_and_tuner():
    elsewhere = {"remote.yml", "gpus.yml"}
    files = sorted({file.name for file in (ROOT / "experiments").glob("*.yml")} - elsewhere)
    assert {"tpe.yml", "evolution.yml", "tpe_guided.yml", "evolution_guided.yml", "random.yml"} <= set(files)
    bodies = [
        {key: value for key, value in read(name).items() if key not in ("experimentName", "tuner")} for name in files
    ]
    for body in bodies:  # repeats of the seeded ones vary the training's seed too
        body["trialCommand"] = body["trialCommand"].removesuffix(" --seed 0")
    study = files.index("study.yml")  # its space and number of trials come from the study
    bodies[study] |= {name: bodies[0][name] for name in ("searchSpaceFile", "maxTrialNumber")}
    del bodies[study]["searchSpace"]
    recommended = files.index("recommended.yml")  # has an assessor, and lr on the log scale
    assert bodies[recommended].pop("assessor")["className"] == "asha.Asha"
    assert bodies[recommended]["searchSpaceFile"] == "../search_spaces/log_scale.json"
    bodies[recommended]["searchSpaceFile"] = bodies[0]["searchSpaceFile"]
    assert all(body == bodies[0] for body in bodies)
    assert len({read(name)["experimentName"] for name in files}) == len(files)


@pytest.mark.parametrize(
    ("name", "more"), [("remote.yml", {"nniManagerIp", "trialCommand"}), ("gpus.yml", set())], ids=["remote", "gpus"]
)
def test_the_experiments_on_more_gpus_are_the_reports_tpe(name, more):
    tpe, other = read("tpe.yml"), read(name)
    own = {"experimentName", "trialConcurrency", "trialGpuNumber", "trainingService"} | more
    assert {key for key in tpe.keys() | other.keys() if tpe.get(key) != other.get(key)} == own
    machines = other["trainingService"].get("machineList", [])
    assert not any({"password", "sshPassphrase"} & machine.keys() for machine in machines)


def test_the_pair_is_the_reports():
    tpe, evolution = read("tpe.yml"), read("evolution.yml")
    assert tpe["tuner"] == {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}}
    assert evolution["tuner"]["classArgs"] == {"optimize_mode": "maximize", "population_size": 100}
    assert (tpe["maxTrialNumber"], tpe["maxExperimentDuration"], tpe["trialConcurrency"]) == (15, "12h", 1)


def test_files_that_start_nni_are_named_so():
    """By that name they are given to one process, in which they run one after the other."""
    files = (ROOT / "tests").glob("test_*.py")
    assert {
        file.name
        for file in files
        if re.search(r"^pytestmark = .*mark\.nni\b|^@pytest\.mark\.nni\b", file.read_text(), re.M)
    } == {file.name for file in (ROOT / "tests").glob("test_*nni*.py")}


def test_every_requirement_has_a_reason():
    optional = ("requirements-tools.txt", "experiments/tuners/requirements.txt")
    for file in ("requirements.txt", "tests/requirements.txt", *optional):
        assert all(re.match(r"^\S+ +# \S+", line) for line in (ROOT / file).read_text().splitlines())
