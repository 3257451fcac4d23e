"""list, show and best: what a person reads in the terminal, on finished, odd and broken experiments."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from fixtures_analysis import START, Recorder, final
from golden import golden

from analysis.__main__ import main
from analysis.reading.reader import load_experiment
from analysis.render.document import Document, Row, Table
from analysis.render.terminal import clean, render, safe_json
from analysis.reports.experiment import best_facts, overview

EVIL = "\x1b]0;owned\x07\x1b[31mred\x1b[0m\r\nforged \u202egpj\x9b2J\x7f"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """NNI's folder of experiments, of this test alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "nni-experiments"
    folder.mkdir(parents=True)
    return folder


def register(place: Path, *recorders: Recorder, **changes) -> None:
    """Writes NNI's registry; the manager of every entry is gone."""
    entries = {
        recorder.id: {
            "id": recorder.id,
            "experimentName": "x",
            "status": "STOPPED",
            "pid": 2**22 + 1,
            "startTime": START,
        }
        | {"logDir": str(recorder.folder.parent)}
        | changes
        for recorder in recorders
    }
    (place / ".experiment").write_text(json.dumps(entries))


def output(capsys, *words: str, code: int = 0) -> str:
    assert main([str(word) for word in words]) == code
    printed = capsys.readouterr()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", printed.out + printed.err)
    return printed.err if code else printed.out


def test_clean_leaves_a_harmless_line():
    assert clean(EVIL) == "red  forged gpj2J"
    assert clean("Grüße 食 👍 \ud800") == "Grüße 食 👍 "


def test_a_table_counts_wide_characters_as_two_columns():
    table = Table(("a", "b"), (Row("", ("食", "x")), Row("", ("abc", "y"))))
    assert render(Document("", None, (), (table,))).split("\n") == ["a    b", "食   x", "abc  y"]


def test_safe_json_can_drive_no_terminal_and_reads_back_the_same():
    text = safe_json({"name": EVIL, "mean": float("nan")})
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert json.loads(text) == {"name": EVIL, "mean": None}


def test_list_has_experiments_here_elsewhere_and_unregistered_newest_first(place, tmp_path, capsys):
    here, away = Recorder(place, "here0001", experimentName=EVIL), Recorder(tmp_path / "away", "away0001")
    forgotten = Recorder(tmp_path / "away", "lost0001", tuner={"name": "Random"})
    here.trial(0, final(0.75))
    here.trial(1, None, state="FAILED")
    here.trial(2, None, state="USER_CANCELED")
    away._write("update ExperimentProfile set startTime = startTime + 86400000")
    register(place, here, away)
    lines = output(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines] == ["Id", "away0001", "here0001", "lost0001"]
    assert "1/2/3" in lines[2] and "75.0 % (n = 200)  t0000 (no. 0)  2023-11-14 22:13" in lines[2]
    facts = json.loads(output(capsys, "list", "--format", "json"))
    assert facts[1]["name"] == EVIL and facts[1]["trials"]["cancelled"] == 1 and facts[1]["best"] == 0.75
    assert facts[2]["folder"] == str(forgotten.folder)


@pytest.mark.parametrize(
    "registry", [None, "", '{"half": {"id"', "[1]", '{"here0001": 3}', '{"here0001": {"logDir": 5}}']
)
def test_list_does_without_a_registry(place, registry, capsys):
    Recorder(place, "here0001").trial(0, 0.5)
    if registry is not None:
        (place / ".experiment").write_text(registry)
        os.utime(place / ".experiment", (1, 1))
    assert "here0001" in output(capsys, "list")


def test_list_gives_a_damaged_experiment_a_row_with_its_fault(place, capsys):
    good, text, gone, odd = (Recorder(place, name) for name in ("good0001", "text0001", "gone0001", "odd00001"))
    good.trial(0, 0.5)
    text.database.write_text("no database")
    odd._write("update ExperimentProfile set params = '[1, 2]'")
    register(place, good, text, gone, odd)
    shutil.rmtree(gone.folder)
    rows = {row["id"]: row for row in json.loads(output(capsys, "list", "--format", "json"))}
    assert rows["good0001"]["fault"] is None
    assert "not a readable NNI database" in rows["text0001"]["fault"]
    assert "no db/nni.sqlite" in rows["gone0001"]["fault"]
    assert "params = [1, 2], expected an object" in rows["odd00001"]["fault"]
    lines = output(capsys, "list").splitlines()
    assert sum(line.startswith("- ") for line in lines) == 3 and len(lines) == 9


def test_an_entry_that_says_running_without_its_manager_is_called_crashed(place, capsys):
    recorder = Recorder(place, "dead0001")
    recorder.trial(0, 0.5)
    register(place, recorder, status="RUNNING")
    for command in (("list",), ("show", "dead0001")):
        text = re.sub(r"\s+", " ", output(capsys, *command))
        assert re.search(r"crashed.*NNI still says RUNNING, but its manager \(process 4194305\) is gone", text)
    register(place, recorder)
    assert "crashed" not in output(capsys, "list") and "stopped" in output(capsys, "list")


def test_list_of_another_home_or_of_none(place, tmp_path, capsys):
    Recorder(tmp_path / "other" / "nni-experiments", "other001")
    for folder in ("other", "other/nni-experiments"):
        assert "other001" in output(capsys, "list", "--home", tmp_path / folder)
    assert output(capsys, "list").startswith(f"no experiment in {place}")
    assert output(capsys, "list", "--format", "json") == "[]\n"
    assert "no such folder" in output(capsys, "list", "--home", tmp_path / "nothing", code=1)


def test_a_list_reads_no_intermediate_results(place):
    recorder = Recorder(place, "long0001")
    for sequence in range(3):
        recorder.trial(sequence, 0.5, 0.1, 0.2, 0.3)
    light, full = (load_experiment(recorder.folder, finals_only=only) for only in (True, False))
    assert [len(trial.intermediates) for trial in light.trials] == [0, 0, 0]
    assert [trial.score for trial in light.trials] == [trial.score for trial in full.trials] == [0.5] * 3
    assert overview(place)[0]["trials"]["all"] == 3


def test_show_has_start_up_choices_failures_and_notes(place, capsys):
    arguments = {"optimize_mode": "maximize", "tpe_args": {"n_startup_jobs": 2}}
    recorder = Recorder(place, "show0001", experimentName=EVIL, tuner={"name": "TPE", "classArgs": arguments})
    recorder.trial(0, final(0.6), {"default": 0.5}, {"default": 0.6}, lr=0.001, note=EVIL)
    recorder.trial(1, final(0.7), {"default": 0.7}, lr=0.002)
    recorder.trial(2, final(0.65), {"default": 0.65}, lr=0.003)
    recorder.trial(3, None, state="FAILED", lr=0.004)
    (recorder.output("t0003") / "trial.stderr").write_text(f"Traceback\nMemoryError: too much {EVIL}\n")
    text = output(capsys, "show", "show0001")
    assert "red  forged gpj2J (show0001)" in text and "Best so far: 60.0 % at no. 0, 70.0 % at no. 1" in text
    rows = [line.split() for line in text.splitlines() if re.match(r"\d\*? +t000", line)]
    assert [row[0] for row in rows] == ["0", "1*", "2", "3"]
    assert ["start-up" in row for row in rows] == [True, True, False, False]
    assert rows[1][2:7] == ["succeeded", "70.0", "%", "1", "8.0"] and "value: validation accuracy of n = 200" in text
    assert "1 of 4 trials  failed: forged gpj2J" in text  # the log's last line
    assert "lr uniform 0.0001 to 0.1; momentum choice 0.1, 0.9" in text
    assert "note: 1 of 4 trials reported nothing" in text
    assert re.search(r"Chosen by the tuner +2 of 4 trials", text) and "the first 2 at random" in " ".join(text.split())


def test_show_of_thousands_leaves_out_and_says_so(place, capsys):
    recorder = Recorder(place, "many0001", tuner={"name": "Random"}, maxTrialNumber=60)
    for sequence in range(60):
        recorder.trial(sequence, sequence / 100, x=sequence)
    text = output(capsys, "show", "many0001")
    assert "The best 10 of 60 trials" in text and "50 of 60 trials are left out; --all shows them" in text
    assert sum("start-up" in line for line in text.splitlines()) == 20
    every = output(capsys, "show", "many0001", "--all")
    assert sum("start-up" in line for line in every.splitlines()) == 60 and "left out" not in every


def test_show_minimises_where_the_tuner_does_and_stars_a_loss(place, capsys):
    recorder = Recorder(
        place, "loss0001", tuner={"name": "TPE"}, searchSpace={"layer": {"_type": "choice", "_value": [{"_name": "a"}]}}
    )
    for sequence, loss in enumerate((3.0, 1.0, 2.0)):
        recorder.trial(sequence, loss, layer={"_name": "conv", "k": 3})
    text = output(capsys, "show", "loss0001")
    assert "TPE {}, minimize" in text and "3 at no. 0, 1 at no. 1" in text
    assert re.search(r"1\* +t0001 +succeeded +1 .*layer {_name conv, k 3}", text)
    assert 'layer choice {"_name": "a"}' in text


def test_show_of_a_trial_cut_off_and_of_no_trial(place, capsys):
    recorder = Recorder(place, "cut00001")
    assert "no trial has a result yet" in output(capsys, "show", "cut00001")
    recorder.run(0, "a", 0, 0, lr=0.1)
    recorder.metric(1, "a", 0, 0.4, 0)
    assert re.search(r"cut off +0\.4 so far +1 +–", output(capsys, "show", "cut00001"))


def test_output_that_is_read_only_in_part_is_no_error(place, tmp_path):
    recorder = Recorder(place, "many0001", maxTrialNumber=None)
    for sequence in range(200):
        recorder.trial(sequence, 0.5, text="x" * 500)
    command = f"{sys.executable} -m analysis show many0001 --all | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "example (many0001)\n" and done.stderr == ""


def test_a_terminal_without_the_characters_shows_the_rest(place):
    Recorder(place, "uni00001", experimentName="Grüße").trial(0, None, state="FAILED")
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for command in ("list", "show uni00001"):
        words = [sys.executable, "-m", "analysis", *command.split()]
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, check=True)
        assert rb"Gr\xfc\xdfe" in done.stdout and done.stderr == b""


EFFECTIVE = {
    "batch_size": 16, "lr": 0.0076494986591157445, "momentum": 0.3, "weight_decay": 0.0, "step_size": 4, "gamma": 0.1,
    "epochs": 6, "patience": 5, "image_px": 32, "seed": 3, "arch": "resnet18", "weights": "my weights.pth",
    "teacher": "a teacher.pt", "temperature": 2.0, "distill_weight": 0.5, "balance": "softmax",
}  # fmt: skip


@pytest.fixture
def ours(place, tmp_path) -> Recorder:
    """An experiment of `python -m trial` whose best is its second trial, with a blank and a quote in its paths."""
    code = tmp_path / "the code"
    recorder = Recorder(
        place, "ours0001", trialCodeDirectory=str(code),
        trialCommand="python -m trial --weights 'my weights.pth' --cache old --threads 2 --precision=fp32 --epochs 6",
    )  # fmt: skip
    for sequence, accuracy in enumerate((0.6, 0.8, 0.7)):
        name = recorder.trial(sequence, final(accuracy), {"default": accuracy}, batch_size=16, lr=EFFECTIVE["lr"])
        folder = recorder.output(name)
        received = {"batch_size": 16, "lr": EFFECTIVE["lr"]}
        (folder / "hyperparameters.json").write_text(json.dumps({"received": received, "effective": EFFECTIVE}))
        (folder / "result.json").write_text(json.dumps({"cache": str(tmp_path / "it's a cache")}))
    (recorder.output("t0001") / "best.pt").write_bytes(b"weights")
    return recorder


def test_best_names_a_command_that_trains_the_same_again(ours, tmp_path):
    from trial.__main__ import parse
    from trial.hyperparameters import Hyperparameters

    words = shlex.split(best_facts(load_experiment("ours0001"))["retrain"])
    assert words[:3] == ["python", "-m", "trial"]
    args, given = parse(words[3:])
    files = {name: str(tmp_path / "the code" / EFFECTIVE[name]) for name in ("weights", "teacher")}
    assert given == EFFECTIVE | files
    assert set(given) == set(Hyperparameters.__dataclass_fields__)
    assert (args.cache, args.threads, args.precision) == (tmp_path / "it's a cache", 2, "fp32")


def test_best_of_an_experiment_without_its_trials_files_still_has_a_command(ours, tmp_path):
    from trial.__main__ import parse

    shutil.rmtree(ours.folder / "environments")
    facts = best_facts(load_experiment("ours0001"))
    args, given = parse(shlex.split(facts["retrain"])[3:])
    weights = str(tmp_path / "the code" / "my weights.pth")
    assert given == {"batch_size": 16, "lr": EFFECTIVE["lr"], "weights": weights, "epochs": 6}
    assert (args.cache, facts["weights"], facts["evaluate"]) == (tmp_path / "the code" / "old", None, None)


def test_best_names_the_weights_and_a_command_that_evaluates_them(ours, tmp_path, capsys):
    from trial.__main__ import parse

    facts = best_facts(load_experiment("ours0001"))
    weights = ours.output("t0001") / "best.pt"
    args, given = parse(shlex.split(facts["evaluate"])[3:])
    assert (args.evaluate, args.split, args.cache, given) == (weights, "evaluation", tmp_path / "it's a cache", {})
    assert facts["weights"] == str(weights)
    weights.unlink()
    text = output(capsys, "best", "ours0001")
    assert f"none: no best.pt in {weights.parent}" in text and "--evaluate" not in text and "Retrain it" in text


def test_best_predicts_photos_with_the_weights_that_it_finds(ours, tmp_path, capsys, monkeypatch):
    from trial.__main__ import parse

    monkeypatch.chdir(tmp_path)
    weights = ours.output("t0001") / "best.pt"
    words = shlex.split(output(capsys, "best", "ours0001", "--predict", "my photos", "b.zip"))
    args, _ = parse(words[3:])
    assert words[:3] == ["python", "-m", "trial"] and (args.command, args.weights_file) == ("predict", weights)
    assert args.paths == [str(tmp_path / "my photos"), str(tmp_path / "b.zip")]
    weights.unlink()
    assert main(["best", "ours0001", "--predict", "b.zip"]) == 1
    assert "no best.pt" in capsys.readouterr().err


def test_best_gives_each_figure_its_n_and_spread(ours, capsys):
    facts = json.loads(output(capsys, "best", "ours0001", "--format", "json"))
    assert (facts["trial_id"], facts["sequence"], facts["score"], facts["validation_n"]) == ("t0001", 1, 0.8, 200)
    assert facts["score_se"] == pytest.approx((0.8 * 0.2 / 200) ** 0.5)
    assert facts["evaluation"]["top1_se"] == pytest.approx((0.78 * 0.22 / 400) ** 0.5)
    text = re.sub(r"\s+", " ", output(capsys, "best", "ours0001"))
    assert "80.0 % (n = 200 images; binomial standard error of one such accuracy 2.8 points)" in text
    assert (
        "top-1 78.0 % (95 % 73.7 to 81.8 %), top-3 85.0 %, macro 77.0 % (n = 400 images); not used for the choice"
        in text
    )


def test_best_of_another_script_is_its_command_and_parameters(place, capsys):
    recorder = Recorder(place, "else0001", trialCommand="python mnist.py --data d", tuner={"name": "TPE"})
    for sequence, loss in enumerate((2.0, 0.5)):
        recorder.trial(sequence, loss, layer={"_name": "conv", "k": sequence})
    text = output(capsys, "best", "else0001")
    assert "python mnist.py --data d" in text and '{"layer": {"_name": "conv", "k": 1}}' in text
    assert "0.5 (lowest of 2 trials; n and spread not reported)" in text and "python -m trial" not in text


def test_best_says_that_nni_shows_another_trials_parameters(place, capsys):
    recorder = Recorder(place, "swap0001")
    for sequence, name in enumerate("ab"):
        recorder.run(sequence, name, sequence, sequence, lr=0.1 + sequence)
    for name, swapped in (("a", 1), ("b", 0)):
        recorder.metric(5, name, swapped, 0.5 + swapped / 10)
        recorder.event(6, name, "SUCCEEDED")
    text = re.sub(r"\s+", " ", output(capsys, "best", "swap0001"))
    assert (
        "Trial a (no. 0)" in text and "lr 1.1" in text and "another trial's parameters here; these are the true" in text
    )


def test_the_words_of_show_and_best_of_the_recorded_pair(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    folder = ROOT / "analysis" / "recorded" / "tpe"
    golden("experiment.txt", "\n".join(output(capsys, command, folder) for command in ("show", "best")))


def test_confirm_names_the_command_that_it_is_now(capsys):
    assert "python -m experiments confirm abc --top 3" in output(capsys, "confirm", "abc", "--top", "3", code=1)


def test_best_without_a_result_is_one_line(place, capsys):
    Recorder(place, "fail0001").trial(0, None, state="FAILED")
    line = output(capsys, "best", "fail0001", code=1)
    assert line.startswith("error: no trial of fail0001 has ended with a result (1 failed)") and line.count("\n") == 1
