"""How the repairs of NNI get into NNI's manager, its launcher and nnictl, and what keeps them out.

NNI's manager is a Node.js program that honours NODE_OPTIONS (manager_js/). `launch` sets it; for a bare `nnictl` a line in
the environment's site-packages does, written by `python -m experiments.repairs` (part of `make .venv/ready`). The manager is
started by Python, which nnictl.py repairs wherever this file has been run or imported.
Only the standard library is imported here: that line runs this file each time nnictl starts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Mapping
from pathlib import Path

THIS_FILE = Path(__file__).resolve()
PRELOAD = THIS_FILE.parent / "manager_js" / "preload.js"
SWITCH = "FOOD11_NNI_REPAIRS"  # "off": plain NNI
NAME_OF_LINE = "food11_repairs.pth"
AS_NNICTL = "food11_repairs_for_nnictl"
INSTALL = "python -m experiments.repairs"


def are_off() -> bool:
    """Whether the person wants plain NNI."""
    return os.environ.get(SWITCH) == "off"


def with_repairs(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy of an environment in which NNI's manager starts repaired. A person's own NODE_OPTIONS stay.

    Before NNI's Python API: os.environ.update(with_repairs(os.environ)); its start then waits as nnictl's does.
    """
    options = environment.get("NODE_OPTIONS", "")
    ours = f"--require {json.dumps(str(PRELOAD), ensure_ascii=False)}"  # Node reads quotes and backslashes as JSON has them
    if environment.get(SWITCH) == "off" or ours in options:
        return dict(environment)
    return {**environment, "NODE_OPTIONS": f"{options} {ours}".strip()}


def missing_repairs() -> list[str]:
    """Why an experiment would run without the repairs, or not start with them: a line per reason, [] where all is well.

    Asks the real thing: the preload itself checks that each repair fits NNI's files (about 0.1 s).
    """
    if are_off():
        return [f"{SWITCH}=off: NNI runs as it is, open to the network and with its faults"]
    if not PRELOAD.is_file():
        return [f"{PRELOAD} is missing; restore it with: git checkout experiments"]
    spec = importlib.util.find_spec("nni_node")
    if spec is None or not spec.submodule_search_locations:
        return [f"NNI is not installed in {sys.executable}; install it with: make .venv/ready"]
    folder = Path(spec.submodule_search_locations[0])
    done = subprocess.run(
        [str(folder / "node"), str(PRELOAD), str(folder)], capture_output=True, text=True, timeout=30, check=False
    )
    return [] if done.returncode == 0 else [done.stderr.strip().split("\n")[-1] or "NNI's Node.js does not run here"]


def is_installed(site_packages: Path | None = None) -> bool:
    """Whether a bare `nnictl` of this Python runs the repairs of this folder, where it is now."""
    try:
        return _file(site_packages).read_text("utf-8") == _line()
    except OSError:
        return False


def install(site_packages: Path | None = None) -> Path:
    """Let each `nnictl` of this Python start its managers repaired. Returns the file written."""
    _file(site_packages).write_text(_line(), "utf-8")
    return _file(site_packages)


def _file(site_packages: Path | None) -> Path:
    return (site_packages or Path(sysconfig.get_paths()["purelib"])) / NAME_OF_LINE


def _line() -> str:
    """Runs at each start of Python, so it looks at three words only; a folder that has moved is no error."""
    this = json.dumps(str(THIS_FILE))
    return (
        "import os, sys; any(word.endswith('nnictl') for word in sys.orig_argv[:3]) and "
        f"os.path.isfile({this}) and __import__('runpy').run_path({this}, run_name='{AS_NNICTL}')\n"
    )


if __name__ == AS_NNICTL:
    warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # nnictl imports it
    os.environ.update(with_repairs(os.environ))
if not are_off():
    runpy.run_path(str(THIS_FILE.with_name("nnictl.py")))["install"]()
