"""The notebooks hold no outputs and run from top to bottom, on the recorded pair and on a half-broken experiment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from conftest import PATIENCE_S, ROOT
from fixtures_analysis import Recorder, final

NAMES = ("one_experiment", "tpe_vs_evolution")
_RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
NotebookClient(book, timeout=300, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(book, sys.argv[3])
"""


def run(name: str, start: Path, out: Path, **variables: str) -> nbformat.NotebookNode:
    """Runs the notebook as Jupyter does, started in the folder `start`, without a network; with its outputs."""
    dead = "http://127.0.0.1:9"
    env = {
        **os.environ,
        "OUT": str(out),
        "HTTP_PROXY": dead,
        "HTTPS_PROXY": dead,
        "IPYTHONDIR": str(out / "ipython"),
        **variables,
    }
    out.mkdir(parents=True, exist_ok=True)
    words = [str(ROOT / "analysis" / f"{name}.ipynb"), str(start), str(out / "done.ipynb")]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *words], env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(out / "done.ipynb", 4)


def printed(book: nbformat.NotebookNode) -> str:
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def drawn(book: nbformat.NotebookNode) -> list[dict]:
    """The figures, as Jupyter gets them."""
    mime = "application/vnd.plotly.v1+json"
    return [o.data[mime] for c in book.cells for o in c.get("outputs", []) if mime in o.get("data", {})]


@pytest.mark.parametrize("name", NAMES)
def test_no_outputs_are_stored(name):
    path = ROOT / "analysis" / f"{name}.ipynb"
    book = nbformat.read(path, 4)
    nbformat.validate(book)
    assert path.stat().st_size < 20_000
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert max(len(cell.source.splitlines()) for cell in code) <= 13
    assert sum(cell.cell_type == "markdown" for cell in book.cells) >= 8
    imported = {line for cell in code for line in cell.source.splitlines() if re.match("(import|from) analysis", line)}
    assert imported == {"import analysis"}, "notebooks use the public functions alone"


@pytest.mark.slow
def test_one_experiment_from_the_notebooks_folder(tmp_path):
    book = run("one_experiment", ROOT / "analysis", tmp_path)
    text = printed(book)
    assert "<experiment s2rvjeu5 'resnet18_food11_tpe': TPE, DONE, 15 trials>" in text
    assert "0 of 15 trials" in text and "Noodles/Pasta" in text
    assert len(drawn(book)) == 4
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 15
    assert len(pd.read_csv(tmp_path / "epochs.csv")) == 90


def test_the_pair_from_the_repositorys_root(tmp_path):
    book = run("tpe_vs_evolution", ROOT, tmp_path)
    text = printed(book)
    assert "no_difference_shown" in text and "Selection bias, about" in text and "0 of 15 trials" in text
    assert len(drawn(book)) == 5
    assert (tmp_path / "report.html").is_file()
    assert {len(pd.read_csv(tmp_path / f"{name}.csv")) for name in ("s2rvjeu5", "v036zipn")} == {15}


@pytest.mark.slow
def test_experiments_of_ones_own_with_little_in_them(tmp_path):
    own = Recorder(tmp_path, "own00001", searchSpace={"kind": {"_type": "choice", "_value": ["a", "b"]}})
    own.trial(0, None, state="FAILED", kind="a")
    own.trial(1, float("nan"), kind="b")
    text = printed(run("one_experiment", ROOT, tmp_path / "one", EXPERIMENT=str(own.folder)))
    assert "exit code other than 0" in text
    repeats = [own.folder]
    for number in range(2, 10):
        tuner = {"name": "TPE" if number % 2 else "Random", "classArgs": {"optimize_mode": "maximize"}}
        repeat = Recorder(tmp_path, f"own0000{number}", maxTrialNumber=3, tuner=tuner)
        for trial in range(3):
            repeat.trial(trial, final(0.5 + 0.01 * number + 0.1 * trial), lr=0.001 * number + 0.0001 * trial)
        repeats.append(repeat.folder)
    names = ",".join(map(str, repeats[1:]))
    text = printed(run("tpe_vs_evolution", ROOT, tmp_path / "pair", EXPERIMENTS=names))
    assert "no_difference_shown" in text and "Difference of means" in text
