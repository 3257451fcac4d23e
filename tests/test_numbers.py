"""Every number that the commands write stays what it is: the recorded pair, the kept studies and four made databases.

`PYTHONPATH=. python tests/test_numbers.py` records them anew in tests/golden/numbers.json; do it only where a number is meant to change,
and say in CHANGELOG.md which and why. The words of the pages are no part of this.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fixtures_analysis import Recorder, final
from fixtures_confirm import confirming, plan_of, search, train
from fixtures_study import part_of, plan_in, recorded

from analysis.__main__ import main as analysis
from analysis.reading.replication import write_plan
from experiments.__main__ import main as experiments

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "numbers.json"
WORDS_KEPT = ("verdict", "chosen", "state", "reference")
CURVES = {seed: [0.2, 0.5 + 0.01 * seed, 0.6 + 0.02 * seed, 0.6, 0.55, 0.58] for seed in range(4)}


def confirm(*words: str) -> int:
    return experiments(["confirm", *words])


def recorded_pair(home: Path) -> dict[str, Any]:
    pair = [str(ROOT / "analysis" / "recorded" / name) for name in ("tpe", "evolution")]
    compared = comparison(home, *pair)
    for name in ("csv", "json", "parquet"):
        tables = [home / f"trials.{name}", home / f"epochs.{name}"]
        run("export", pair[0], "--format", name, "--out", tables[0], "--epochs", tables[1])
        compared |= {table.name: columns_of(table) for table in tables}
    run("export", pair[1], "--format", "optuna", "--out", home / "optuna.db")
    return compared | {"optuna": optuna_columns(home / "optuna.db")} | listed(*pair)


def repeats(home: Path) -> dict[str, Any]:
    """Four of TPE that mostly chose for itself against four of Evolution, and two of random search."""
    arms = {
        "TPE": ({"tpe_args": {"n_startup_jobs": 1}}, (0.91, 0.92, 0.935, 0.94)),
        "Evolution": ({"population_size": 1}, (0.85, 0.86, 0.9, 0.875)),
        "Random": ({}, (0.8, 0.83)),
    }
    folders = []
    for tuner, (arguments, bests) in arms.items():
        for k, best in enumerate(bests):
            class_args = {"optimize_mode": "maximize", "seed": len(folders)} | arguments
            folders.append(
                made(home, f"{tuner[:3].lower()}{k:05d}", class_args, tuner, best - 0.1, best, None, best - 0.05)
            )
    return comparison(home, *folders)


def random_trials(home: Path) -> dict[str, Any]:
    """Two experiments of random draws: the null band, best of k, importance, early stopping."""
    folders = []
    for k, shift in enumerate((0.0, 0.03)):
        scores = [0.6 + shift + 0.3 * math.sin(7.0 * n + k) ** 2 for n in range(20)]
        folders.append(made(home, f"rnd{k:05d}", {"optimize_mode": "maximize"}, "Random", *scores))
    return comparison(home, *folders)


def seeded(home: Path) -> dict[str, Any]:
    """A shared initial design, one experiment of each."""
    names = ("seeded_tpe.SeededTpe", "seeded_evolution.SeededEvolution")
    class_args = {"optimize_mode": "maximize", "first": [{"lr": 0.03, "momentum": 0.9}], "initial": 5}
    folders = []
    for k, name in enumerate(names):
        recorder = Recorder(home, f"see{k:05d}", tuner={"className": name, "classArgs": class_args})
        for n in range(8):
            recorder.trial(n, final(0.7 + 0.02 * ((5 * n + k) % 7)), lr=0.01 * (n + 1), momentum=0.9)
        folders.append(str(recorder.folder))
    return comparison(home, *folders)


def confirmation(home: Path) -> dict[str, Any]:
    nni = home / "nni-experiments"
    nni.mkdir()
    plan = plan_of(search(nni, "search01", (0.8, 0.01), (0.9, 0.02), (0.7, 0.03)), seeds=4)
    folder = home / "confirmed"
    write_plan(folder, plan)
    scores = {("rank 1", s): 0.8 + 0.01 * s for s in (1, 2, 3, 4)}
    scores |= {("rank 2", s): 0.83 + 0.005 * s * s for s in (1, 2, 3, 4)} | {("rank 1", 4): None}
    scores |= {("default", s): 0.74 - 0.01 * (s % 3) for s in (1, 2, 3, 4)}
    train(confirming(nni, plan), plan, scores)
    assert confirm("search01", "--top", "2", "--seeds", "4", "--out", str(folder)) == 0
    return written(folder)


def confirmation_in_stages(home: Path) -> dict[str, Any]:
    nni = home / "nni-experiments"
    nni.mkdir()
    plan = plan_of(search(nni, "search01", (0.8, 0.01), (0.9, 0.02)), seeds=5, screen=3)
    first, last = plan.screening, plan.final("rank 2")
    write_plan(home / "confirmed", plan)
    scores = {("rank 1", s): 0.8 + 0.01 * s for s in first.seeds} | {("rank 1", 2): None}
    train(confirming(nni, first), first, scores | {("rank 2", s): 0.79 + 0.005 * s for s in first.seeds})
    scores = {("rank 2", s): 0.82 + 0.003 * (s % 4) for s in last.seeds} | {("rank 2", 6): None}
    train(confirming(nni, last, "conf0002"), last, scores | {("default", s): 0.75 + 0.002 * s for s in last.seeds})
    assert confirm("search01", "--out", str(home / "confirmed")) == 0
    return written(home / "confirmed")


def early_stopping(home: Path) -> dict[str, Any]:
    return studied(home, "early_stopping", lambda value, seed: trained(CURVES[seed][: 4 + seed % 2 if value else 6], 3))


def balance(home: Path) -> dict[str, Any]:
    rare = {"none": 0, "sampler": 2, "softmax": 4}
    return studied(home, "balance", lambda value, seed: trained(CURVES[seed], rare[value] + seed % 2))


def lab_report(home: Path) -> dict[str, Any]:
    """docs/report.md of the kept studies and the recorded pair: the numbers of its tables."""
    shutil.copytree(ROOT / "docs" / "studies", home / "studies")
    run("report", "--studies", home / "studies", "--out", home / "report.md")
    cells = [line for line in (home / "report.md").read_text().split("\n") if line.startswith("|")]
    return {"tables": sorted(numbers_in(" ".join(cells)))}


SCENARIOS: dict[str, Callable[[Path], dict[str, Any]]] = {
    scenario.__name__: scenario
    for scenario in (
        recorded_pair,
        repeats,
        random_trials,
        seeded,
        confirmation,
        confirmation_in_stages,
        early_stopping,
        balance,
        lab_report,
    )
}


def made(home: Path, name: str, arguments: dict[str, Any], tuner: str, *scores: float | None) -> str:
    recorder = Recorder(home, name, tuner={"name": tuner, "classArgs": arguments}, experimentName=name)
    for n, score in enumerate(scores):
        lr, epochs = (
            0.001 + 0.004 * ((3 * n) % 11) + 1e-6 * int(name[3:]) + 1e-7 * ord(name[0]),
            [score and score - 0.2 + 0.05 * e for e in range(4)],
        )
        result = None if score is None else final(score)
        parameters = {"lr": lr, "momentum": (0.1, 0.9)[n % 2]}
        trial = recorder.trial(
            n, result, *(epochs if score else ()), state="SUCCEEDED" if score else "FAILED", **parameters
        )
        kept = {"received": parameters, "effective": {**parameters, "epochs": 5 + n % 2, "seed": n}}
        (recorder.output(trial) / "hyperparameters.json").write_text(json.dumps(kept))
    return str(recorder.folder)


def trained(curve: list[float], rare: int) -> dict[str, Any]:
    return {"curve": curve, "right": (9, 5, 8, 7, rare)}


def studied(home: Path, name: str, result: Callable[[Any, int], dict[str, Any]]) -> dict[str, Any]:
    part = part_of(name, 4)
    plan_in(home / "out", name, part)
    recorded(home, part, result)
    run("study", name, "--out", home / "out")
    return written(home / "out")


def comparison(home: Path, *folders: str) -> dict[str, Any]:
    run("compare", *folders, "--out", home / "compared")
    return written(home / "compared")


def written(folder: Path) -> dict[str, Any]:
    """Of each file that a command wrote, its numbers."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json" and path.name not in ("plan.json", "experiments.json"):
            found[path.name] = flat(json.loads(path.read_text()))
        elif path.suffix == ".csv":
            found[path.name] = columns_of(path)
        elif path.suffix == ".html":
            page = path.read_text().replace(str(folder.parent), "")
            cells = re.findall(r"<td[^>]*>(.*?)</td>", page, re.S)
            found[path.name] = sorted(numbers_in(unescape(re.sub(r"<[^>]+>", " ", " ".join(cells)))))
    return found


def listed(*pair: str) -> dict[str, Any]:
    return {name: flat(json.loads(run("best", name_of, "--format", "json"))) for name, name_of in zip("ab", pair)}


def run(*words: Any) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert analysis(list(map(str, words))) == 0
    return out.getvalue()


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """{path: number, truth value or None} of a JSON document, and the words that are an answer."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {k: v for n, inner in enumerate(value) for k, v in flat(inner, f"{path}/{n}").items()}
    kept = not isinstance(value, str) or path.rsplit("/", 1)[-1] in WORDS_KEPT
    return {path: value} if kept else {}


def columns_of(path: Path) -> dict[str, list[float]]:
    """{column: how many numbers, their sum} of a table, whatever its format."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    elif path.suffix == ".json":
        rows = json.loads(path.read_text())
    else:
        import pandas

        rows = pandas.read_parquet(path).to_dict("records")
    return {name: sums(row[name] for row in rows) for name in rows[0] if not name.endswith(("_at", "time"))}


def optuna_columns(path: Path) -> dict[str, list[float]]:
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    (study,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    rows = [{"value": t.value, "epochs": len(t.intermediate_values), **t.params} for t in trials]
    rows = [row | {"curve": sum(t.intermediate_values.values())} for row, t in zip(rows, trials)]
    return {name: sums(row.get(name) for row in rows) for name in rows[0]}


def sums(values: Any) -> list[float]:
    numbers = [number for number in map(number_of, values) if number is not None]
    return [len(numbers), math.fsum(numbers)]


def number_of(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])", text.replace("\u2009", ""))]


def in_home(scenario: Callable[[Path], dict[str, Any]], home: Path) -> dict[str, Any]:
    """The scenario's numbers as JSON holds them, in a home of its own."""
    before = os.environ.get("HOME"), os.getcwd()
    os.environ["HOME"] = str(home)
    os.chdir(home)
    try:
        return json.loads(json.dumps(scenario(home)))
    finally:
        os.environ["HOME"] = before[0] or ""
        os.chdir(before[1])


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_numbers_stay(name, tmp_path):
    found, known = in_home(SCENARIOS[name], tmp_path), json.loads(GOLDEN.read_text())[name]
    assert found.keys() == known.keys()
    for file, numbers in known.items():
        if isinstance(numbers, dict):
            lost = {key for key in numbers if key not in found[file]}
            assert not lost, f"{file} lacks {sorted(lost)}"
            for key, number in numbers.items():
                assert found[file][key] == close(number), f"{file} {key}"
        else:
            assert found[file] == pytest.approx(numbers), file


def close(value: Any) -> Any:
    """Libraries may sum in another order than we did."""
    is_number = isinstance(value, (int, float, list)) and not isinstance(value, bool)
    return pytest.approx(value, rel=1e-9, abs=1e-12) if is_number and value != [] else value


def record() -> None:
    numbers = {}
    for name, scenario in SCENARIOS.items():
        with tempfile.TemporaryDirectory() as home:
            numbers[name] = in_home(scenario, Path(home))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(numbers, indent=0, sort_keys=True) + "\n")
    print(f"{GOLDEN}: {sum(len(files) for files in numbers.values())} files")


if __name__ == "__main__":
    record()
