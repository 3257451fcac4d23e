"""Rules of the project that are kept by machine: who imports whom, what the README promises, which files agree."""

from __future__ import annotations

import ast
import importlib.machinery
import re
import shlex
import subprocess
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


README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Every command in the README's shell blocks, continuation lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("command", [line for line in commands() if "python -m" in line])
def test_the_readmes_commands_are_ones_that_the_parsers_take(command):
    from analysis.__main__ import _parser as analysis_parser
    from data.__main__ import parse as data_parse
    from experiments.__main__ import parse as experiments_parse
    from trial.__main__ import parse as trial_parse

    words = shlex.split(command.split("python -m ", 1)[1])
    package, arguments = words[0], words[1:]
    parse = {
        "data": data_parse,
        "experiments": experiments_parse,
        "trial": trial_parse,
        "analysis": lambda words: analysis_parser().parse_args(words),
    }[package]
    assert parse(arguments) is not None


def test_the_readmes_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert {"demo", "test"} <= named <= targets


def test_the_readmes_tree_is_the_real_one():
    block = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    named, folder, whole = set(), "", set()
    for line in block.splitlines():
        name = line.split("  ")[0].strip() if not line.startswith("  ") else line.strip().split("  ")[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            named.add(name.rstrip("/"))
        else:
            named.add(folder + name.rstrip("/"))
            whole |= {folder + name} if name.endswith("/") else set()
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    top = {path.split("/")[0] for path in tracked} - {".ci", ".gitignore"}
    assert {name for name in named if "/" not in name} == top
    for package in OURS:
        files = {path for path in tracked if path.startswith(package + "/") and not path.endswith("__init__.py")}
        for part in whole:  # a folder that is named as one
            files = {part.rstrip("/") if path.startswith(part) else path for path in files}
        assert {name for name in named if name.startswith(package + "/")} == files


def test_every_requirement_has_a_reason():
    for file in ("requirements.txt", "tests/requirements.txt"):
        assert all(re.match(r"^\S+ +# \S+", line) for line in (ROOT / file).read_text().splitlines())
