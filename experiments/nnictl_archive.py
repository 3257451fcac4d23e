"""`nnictl experiment save` and `load`, repaired: NNI 3.0 asks its own configuration for keys of NNI 1 (KeyError: 'trial').

Run by nnictl_repairs.py in nnictl's process: standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import zipfile
from pathlib import Path
from types import SimpleNamespace

LEFT_OUT = (".git", ".venv", "__pycache__")  # of the trial's folder: what is made again elsewhere


def repair(utils, in_one_line) -> None:
    """utils: NNI's module nni.tools.nnictl.nnictl_utils. in_one_line: what makes a command say its failure so."""
    plain = SimpleNamespace(**vars(utils))

    class Config(plain.Config):
        def get_config(self):
            config = super().get_config()
            return {"trial": {"codeDir": config.get("trialCodeDirectory")}, **config}

    def copytree(source, target, **options):
        inside = Path(target).name == "code"
        return shutil.copytree(
            source, target, **options, **({"ignore": shutil.ignore_patterns(*LEFT_OUT)} if inside else {})
        )

    @contextlib.contextmanager
    def repaired(**changes):
        vars(utils).update(changes, Config=Config, shutil=SimpleNamespace(**{**vars(shutil), "copytree": copytree}))
        try:
            yield
        finally:
            vars(utils).update({name: getattr(plain, name) for name in ("Config", "shutil", *changes)})

    def save(args):
        plain.update_experiment()  # a dead manager's experiment counts as running until some command looks
        entry = plain.Experiments().get_all_experiments().get(args.id) or {}
        # NNI looks for its logs in its home, wherever the experiment is.
        with repaired(NNI_HOME_DIR=entry.get("logDir") or plain.NNI_HOME_DIR):
            plain.save_experiment(args)

    def load(args):
        args.logDir = args.logDir and os.path.abspath(os.path.expanduser(args.logDir))
        with repaired():
            plain.load_experiment(args)
        with zipfile.ZipFile(os.path.expanduser(args.path)) as archive:
            experiment_id = json.loads(archive.read("nnictl/.experiment"))["id"]
        folder = Path(plain.Experiments().get_all_experiments()[experiment_id]["logDir"])
        _move(folder / experiment_id / "db" / "nni.sqlite", folder, Path(os.path.expanduser(args.codeDir)).absolute())

    step = "look with: nnictl experiment {} --help".format
    utils.save_experiment = in_one_line(save, lambda args: step("save"))
    utils.load_experiment = in_one_line(load, lambda args: step("load"))


def _move(database: Path, folder: Path, code: Path) -> None:
    """Name the new folders in the experiment's own record, which resume reads."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for row, text in connection.execute("SELECT rowid, params FROM ExperimentProfile").fetchall():
            params = json.loads(text)
            params |= {"experimentWorkingDirectory": str(folder), "trialCodeDirectory": str(code)}
            if isinstance(params.get("trainingService"), dict):
                params["trainingService"]["trialCodeDirectory"] = str(code)
            connection.execute("UPDATE ExperimentProfile SET params = ? WHERE rowid = ?", (json.dumps(params), row))
