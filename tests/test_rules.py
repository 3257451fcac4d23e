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
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(OURS))
def test_packages_import_only_what_they_may(package):
    for file in (ROOT / package).rglob("*.py"):
        found = imports(file)
        assert found & OURS - {package} <= ALLOWED[package], file
        assert not found & FORBIDDEN.get(package, set()), file


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
    assert {"seeded_tpe", "seeded_evolution"} <= names
    assert not any(importlib.machinery.PathFinder.find_spec(name, _outside_paths()) for name in names)
    assert all(not imports(file) & (OURS | {"torch"}) for file in files)


def _outside_paths() -> list[str]:
    return [path for path in sys.path if not path.endswith("tuners")]


def test_one_file_of_the_trial_knows_nni():
    assert [file.name for file in (ROOT / "trial").glob("*.py") if "nni" in imports(file)] == ["__main__.py"]


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / "experiments" / name).read_text())


def test_the_experiments_are_identical_but_for_name_and_tuner():
    files = sorted(file.name for file in (ROOT / "experiments").glob("*.yml"))
    assert {"tpe.yml", "evolution.yml", "tpe_guided.yml", "evolution_guided.yml", "random.yml"} <= set(files)
    bodies = [
        {key: value for key, value in read(name).items() if key not in ("experimentName", "tuner")} for name in files
    ]
    study = files.index("study.yml")  # its space and number of trials come from the study
    bodies[study] |= {name: bodies[0][name] for name in ("searchSpaceFile", "maxTrialNumber")}
    del bodies[study]["searchSpace"]
    assert all(body == bodies[0] for body in bodies)
    assert len({read(name)["experimentName"] for name in files}) == len(files)


def test_the_pair_is_the_reports():
    tpe, evolution = read("tpe.yml"), read("evolution.yml")
    assert tpe["tuner"] == {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}}
    assert evolution["tuner"]["classArgs"] == {"optimize_mode": "maximize", "population_size": 100}
    assert (tpe["maxTrialNumber"], tpe["maxExperimentDuration"], tpe["trialConcurrency"]) == (15, "12h", 1)


def test_every_requirement_has_a_reason():
    for file in ("requirements.txt", "requirements-tools.txt", "tests/requirements.txt"):
        assert all(re.match(r"^\S+ +# \S+", line) for line in (ROOT / file).read_text().splitlines())
