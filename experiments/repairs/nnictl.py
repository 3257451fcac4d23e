"""NNI's launcher and nnictl, repaired in their own process, as manager_js/ repairs the manager in its.

The package's __init__.py runs this file wherever NNI may be started, before NNI is imported: standard library only. NNI's
modules are changed as they are loaded, and act only while NODE_OPTIONS repairs the manager as well.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import json
import os
import re
import runpy
import shutil
import sqlite3
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

NOT_SAVED = (".git", ".venv", "__pycache__")  # of the trial's folder, by nnictl experiment save: made again elsewhere

_HERE = Path(__file__).resolve()
_start = runpy.run_path(str(_HERE.with_name("start.py")))
is_active, one_line = _start["is_active"], _start["one_line"]


def _in_one_line(command, next_step):
    """A command of nnictl that fails in one line with the reason; with --debug as NNI does."""

    @functools.wraps(command)
    def run(args):
        if not is_active() or getattr(args, "debug", False):
            return command(args)
        try:
            return command(args)
        except KeyboardInterrupt:
            print("interrupted; a manager that was still starting has been ended", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            print(f"error: {_reason(error)}; {next_step(args)}", file=sys.stderr)
            raise SystemExit(1) from error

    return run


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error} on record"
    if busy := re.search(r"Port (\d+) is not idle", str(error)):
        return f"port {busy[1]} is not idle: another program has it, perhaps an earlier experiment (nnictl experiment list)"
    if isinstance(error, (AttributeError, TypeError)) and "NoneType" in str(error):
        return "the experiment file or record is empty"
    if isinstance(error, sqlite3.Error):
        return f"the experiment's database cannot be read ({error})"
    return one_line(error) or type(error).__name__


def _repair_nnictl_launcher(module) -> None:
    def create_step(args):
        return f"once fixed: nnictl create --config {args.config} --port PORT (or: python -m experiments launch {args.config})"

    def config_of(exp_id, exp_dir=None):
        if exp_dir is None and is_active():
            _refuse_unless_stopped(exp_id)
        return plain_config(exp_id, exp_dir)

    plain_config = module.get_stopped_experiment_config_json
    module.get_stopped_experiment_config_json = config_of
    module.create_experiment = _in_one_line(module.create_experiment, create_step)
    for verb in ("resume", "view"):
        step = functools.partial("{1}: nnictl {0} {2.id} --port PORT".format, verb, "once fixed")
        setattr(module, f"{verb}_experiment", _in_one_line(getattr(module, f"{verb}_experiment"), step))


def _refuse_unless_stopped(experiment_id: str) -> None:
    from nni.tools.nnictl.config_utils import Experiments
    from nni.tools.nnictl.nnictl_utils import update_experiment

    update_experiment()
    entry = Experiments().get_all_experiments().get(experiment_id)
    if entry is None:
        raise RuntimeError(f"{experiment_id} is not in NNI's registry (nnictl experiment list --all)")
    if entry["status"] != "STOPPED":
        more = f"nnictl stop {experiment_id} ends it"
        if entry["status"] != "VIEWED":
            more += f"; nnictl update trialnum {experiment_id} --value N adds trials"
        raise RuntimeError(
            f"{experiment_id} is {entry['status']}, its manager runs on port {entry.get('port')} ({more})"
        )


def _repair_archive(utils) -> None:
    """`nnictl experiment save` and `load`: NNI 3.0 asks its own configuration for keys of NNI 1 (KeyError: 'trial').

    utils: NNI's module nni.tools.nnictl.nnictl_utils.
    """
    if not is_active():
        return
    plain = SimpleNamespace(**vars(utils))

    def save(args):
        plain.update_experiment()  # a dead manager's experiment counts as running until some command looks
        entry = plain.Experiments().get_all_experiments().get(args.id) or {}
        # NNI looks for its logs in its home, wherever the experiment is.
        with _repaired(utils, plain, NNI_HOME_DIR=entry.get("logDir") or plain.NNI_HOME_DIR):
            plain.save_experiment(args)

    def load(args):
        args.logDir = args.logDir and os.path.abspath(os.path.expanduser(args.logDir))
        with _repaired(utils, plain):
            plain.load_experiment(args)
        with zipfile.ZipFile(os.path.expanduser(args.path)) as archive:
            experiment_id = json.loads(archive.read("nnictl/.experiment"))["id"]
        folder = Path(plain.Experiments().get_all_experiments()[experiment_id]["logDir"])
        code = Path(os.path.expanduser(args.codeDir)).absolute()
        _record_folders(folder / experiment_id / "db" / "nni.sqlite", folder, code)

    step = "look with: nnictl experiment {} --help".format
    utils.save_experiment = _in_one_line(save, lambda args: step("save"))
    utils.load_experiment = _in_one_line(load, lambda args: step("load"))


@contextlib.contextmanager
def _repaired(utils, plain, **changes):
    """NNI's module with the keys that it asks for, and without what is made again elsewhere in an archive's code."""

    class Config(plain.Config):
        def get_config(self):
            config = super().get_config()
            return {"trial": {"codeDir": config.get("trialCodeDirectory")}, **config}

    def copytree(source, target, **options):
        ignored = {"ignore": shutil.ignore_patterns(*NOT_SAVED)} if Path(target).name == "code" else {}
        return shutil.copytree(source, target, **options, **ignored)

    vars(utils).update(changes, Config=Config, shutil=SimpleNamespace(**{**vars(shutil), "copytree": copytree}))
    try:
        yield
    finally:
        vars(utils).update({name: getattr(plain, name) for name in ("Config", "shutil", *changes)})


def _record_folders(database: Path, folder: Path, code: Path) -> None:
    """Name the new folders in the experiment's own record, which resume reads."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for row, text in connection.execute("SELECT rowid, params FROM ExperimentProfile").fetchall():
            params = json.loads(text)
            params |= {"experimentWorkingDirectory": str(folder), "trialCodeDirectory": str(code)}
            if isinstance(params.get("trainingService"), dict):
                params["trainingService"]["trialCodeDirectory"] = str(code)
            connection.execute("UPDATE ExperimentProfile SET params = ? WHERE rowid = ?", (json.dumps(params), row))


REPAIRS = {
    "nni.experiment.launcher": _start["repair"],
    "nni.tools.nnictl.launcher": _repair_nnictl_launcher,
    "nni.tools.nnictl.nnictl_utils": _repair_archive,
}


class Importer(importlib.abc.MetaPathFinder):
    """Repairs the modules above once they are loaded; another NNI, in which something is not there, stays as it is."""

    def find_spec(self, name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name in REPAIRS else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_repair(module):
            load(module)
            repair(module)

        spec.loader.exec_module = load_and_repair
        return spec


def repair(module) -> None:
    if not hasattr(module, "food11_is_repaired"):
        with contextlib.suppress(AttributeError):
            REPAIRS[module.__name__](module)
        module.food11_is_repaired = True


def install() -> None:
    """Once a process; modules that are there already are repaired at once."""
    if not any(type(finder).__name__ == Importer.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Importer())
    for name in REPAIRS.keys() & sys.modules.keys():
        repair(sys.modules[name])
