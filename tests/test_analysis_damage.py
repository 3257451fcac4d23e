"""Databases that NNI cannot have written: each command ends with what it can say or with one clear line."""

from __future__ import annotations

import json
import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fixtures_analysis import Recorder, final

from analysis.__main__ import main
from analysis.reading.locate import AnalysisError
from analysis.reading.reader import load_experiment
from analysis.reading.values import read_metric

ODD = [None, True, -1, 10**400, float("nan"), float("inf"), "", "x", "\ud800", "\x1b[2J", [], [1], {}, {"default": "x"},
       {"__nni_type__": "x"}, "a" * 5000]  # fmt: skip
CELLS = [None, "", "x", -1, 1.5, b"\xff\xfe", 2**62, "null", "[]"]
COLUMNS = {
    "ExperimentProfile": ["params", "params", "id", "startTime", "revision"],
    "TrialJobEvent": ["data", "data", "timestamp", "trialJobId", "event", "logPath", "sequenceId"],
    "MetricData": ["data", "data", "timestamp", "trialJobId", "parameterId", "type", "sequence"],
}


@pytest.fixture(autouse=True)
def nni_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def example(folder: Path, name: str = "exp00001") -> Recorder:
    recorder = Recorder(folder, name)
    for sequence, accuracy in enumerate((0.6, 0.8, 0.7)):
        recorder.trial(
            sequence, final(accuracy), {"default": accuracy / 2}, {"default": accuracy}, lr=0.01, layer={"_name": "a"}
        )
    recorder.trial(3, None, state="FAILED")
    return recorder


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("[1]", "params = [1], expected an object"),
        ("null", "the profile in its database is empty"),
        ('"text"', "params = 'text', expected an object"),
        ('{"maxTrialNumber": "15"}', "maxTrialNumber = '15', expected a whole number"),
        ('{"trialConcurrency": true}', "trialConcurrency = True, expected a whole number"),
        ('{"tuner": "TPE"}', "tuner = 'TPE', expected an object"),
        ('{"tuner": {"name": ["TPE"]}}', "tuner.name = ['TPE'], expected a text"),
        ('{"tuner": {"name": "TPE", "classArgs": 3}}', "tuner.classArgs = 3, expected an object"),
        (
            '{"tuner": {"name": "TPE", "classArgs": {"tpe_args": {"n_startup_jobs": "5"}}}}',
            "tuner.classArgs.tpe_args.n_startup_jobs = '5', expected a number",
        ),
        (
            '{"tuner": {"name": "Evolution", "classArgs": {"population_size": NaN}}}',
            "tuner.classArgs.population_size = nan, expected a number",
        ),
        (
            '{"tuner": {"className": "seeded_tpe.SeededTpe", "classArgs": {"first": {"lr": 1}}}}',
            "tuner.classArgs.first = {'lr': 1}, expected a list",
        ),
        (
            '{"tuner": {"className": "seeded_evolution.SeededEvolution", "classArgs": {"initial": "5"}}}',
            "tuner.classArgs.initial = '5', expected a number",
        ),
        ("[" * 100_000, "the profile in its database is not JSON"),
    ],
)
def test_a_profile_of_another_form_ends_with_one_line(params, message, tmp_path, capsys):
    recorder = example(tmp_path)
    recorder._write("update ExperimentProfile set params = ?", (params,))
    for command in (["show"], ["best"], ["export", "--out", str(tmp_path / "t.csv")]):
        assert main([*command, str(recorder.folder)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: experiment exp00001: ") and message in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("TrialJobEvent", "timestamp", "noon"),
        ("TrialJobEvent", "timestamp", 2**62),
        ("TrialJobEvent", "event", None),
        ("TrialJobEvent", "sequenceId", "first"),
        ("MetricData", "timestamp", None),
        ("MetricData", "data", b"\xff"),
    ],
)
def test_a_row_of_another_form_is_named(table, column, value, tmp_path):
    recorder = example(tmp_path)
    recorder._write(f"update {table} set {column} = ? where rowid = 2", (value,))
    with pytest.raises(AnalysisError, match=f"{table} has a row that NNI cannot have written"):
        load_experiment(recorder.folder)


def test_half_a_character_and_a_whole_number_without_end():
    assert read_metric('"{\\"a\\": \\"x\\\\ud800\\", \\"b\\": \\"\\\\ud83d\\\\udc4d\\"}"')[0] == {
        "a": "x\ufffd",
        "b": "\U0001f44d",
    }
    assert read_metric('"1' + "0" * 400 + '"')[0] == float("inf")
    assert read_metric('"123456789012345678"')[0] == 123456789012345678


def mutate(value, rng):
    """The same JSON value with one part of it, at any depth, replaced by an odd one."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        places = list(value) if isinstance(value, dict) else range(len(value))
        place, copy = rng.choice(list(places)), value.copy()
        copy[place] = mutate(value[place], rng)
        return copy
    return rng.choice(ODD)


def damage(database: Path, rng: random.Random) -> None:
    table = rng.choice(list(COLUMNS))
    column = rng.choice(COLUMNS[table])
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(f"select rowid, {column} from {table}").fetchall()
        for rowid, old in rng.sample(rows, min(len(rows), rng.choice((1, 3, 100)))):
            new = rng.choice(CELLS)
            if column in ("params", "data") and old:
                inner = json.loads(old)
                twice = isinstance(inner, str)
                new = json.dumps(mutate(json.loads(inner) if twice else inner, rng))
                new = json.dumps(new) if twice else new
            connection.execute(f"update {table} set {column} = ? where rowid = ?", (new, rowid))
        connection.commit()


@pytest.mark.parametrize("seed", range(40))
def test_no_damage_ends_in_a_traceback_or_drives_the_terminal(seed, tmp_path, capsys):
    rng, out = random.Random(seed), tmp_path / "out"
    recorder, other = example(tmp_path / "nni-experiments"), example(tmp_path / "nni-experiments", "exp00002")
    for _ in range(rng.choice((1, 1, 3))):
        damage(recorder.database, rng)
    folder = str(recorder.folder)
    commands = [
        ["list"],
        ["list", "--format", "json"],
        ["show", folder],
        ["best", folder],
        ["best", folder, "--format", "json"],
    ]
    commands.append(
        [
            "export",
            folder,
            "--format",
            rng.choice(("csv", "json", "parquet")),
            "--out",
            str(out / "t"),
            "--epochs",
            str(out / "e"),
        ]
    )
    commands.append(["compare", folder, str(other.folder), "--out", str(out)])
    for command in commands:
        code, said = main(command), capsys.readouterr()
        assert code == 0 or (code == 1 and re.fullmatch(r"error: [^\n]+\n", said.err)), (command, said.err)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", said.out + said.err), command
