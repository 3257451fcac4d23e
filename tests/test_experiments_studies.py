"""What a study plans, and what it refuses before anything is started."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import ROOT
from fixtures_study import part_of, plan_in, recorded
from nni.algorithms.hpo.batch_tuner import BatchTuner

from analysis.reading.replication import Part, StudyPlan, read_plan
from analysis.reports.study import TITLES, study_page
from experiments.__main__ import main, parse
from experiments.check import check
from experiments.replicate import batch_settings
from experiments.studies import STUDIES, StudyRequest, study_experiment, study_parts
from trial.hyperparameters import Hyperparameters
from trial.model import build_model

pytestmark = pytest.mark.usefixtures("trial_in_forks")


def parts(name: str, **values: Any) -> list[Part]:
    """As the command plans them."""
    return study_parts(StudyRequest(name, values.pop("seeds", 2), values.pop("fields", {}), **values))


def refused(words: list[str], capsys: Any) -> str:
    """What `study` prints when it refuses."""
    assert main(["study", *words]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_a_grid_over_one_field_of_the_trial(name, tiny_cache):
    given = {"cache": str(tiny_cache), "image_px": "32"}
    for part in parts(name, fields=given, demo=True):
        assert set(part.space) == {"seed", part.field} and part.field not in part.fields
        Hyperparameters().merged({part.field: part.values[0], "seed": 1})
        experiment = study_experiment(part, part.cells)
        seeds = 1 if part.name == "teacher" else 2
        assert experiment.config["maxTrialNumber"] == len(part.cells) == seeds * len(part.values)
        assert "searchSpaceFile" not in experiment.config and experiment.config["tuner"]["name"] == "Batch"


def test_nnis_batch_hands_out_the_cells_of_the_plan_in_its_order():
    (part,) = parts("step_size", seeds=3)
    tuner = BatchTuner()
    tuner.update_search_space(batch_settings(part, part.cells, "2h")["searchSpace"])
    assert [tuner.generate_parameters(number) for number in range(len(part.cells))] == part.cells


def test_a_study_has_a_name_of_its_own_and_a_page():
    assert set(STUDIES) == set(TITLES)
    assert {file.stem.removeprefix("study_") for file in (ROOT / "search_spaces").glob("study_*.json")} == {
        *STUDIES,
        "distill_teacher",
    }
    (one,), (other,) = parts("balance"), parts("balance")
    assert one.experiment != other.experiment and replace(one, experiment="") == replace(other, experiment="")


def test_what_is_set_wins_over_the_demo_and_that_over_the_study():
    (part,) = parts("early_stopping", fields={"epochs": "3"}, demo=True)
    assert (part.fields["lr"], part.fields["epochs"], part.fields["weights"]) == ("0.01", "3", "none")
    assert "patience" not in part.fields
    (part,) = parts("step_size")
    assert part.fields == {"lr": "0.01", "patience": "0"}


def test_a_weights_file_stands_in_for_imagenet(tmp_path):
    (searched,) = parts("pretrained", weights=str(tmp_path / "w.pth"))
    assert searched.values == ["none", str(tmp_path / "w.pth")] and "weights" not in searched.fields
    (fixed,) = parts("balance", weights=str(tmp_path / "w.pth"))
    assert fixed.fields["weights"] == str(tmp_path / "w.pth")


def test_distillation_trains_its_teacher_first_or_takes_the_one_named():
    teacher, student = parts("distill")
    assert (teacher.name, teacher.values, student.values) == ("teacher", ["resnet50"], [0, 0.5])
    assert teacher.fields == student.fields
    (student,) = parts("distill", fields={"teacher": "/somewhere/best.pt"})
    assert student.fields["teacher"] == "/somewhere/best.pt"
    teacher, student = parts("distill", demo=True)
    assert (teacher.fields["epochs"], student.fields["epochs"]) == ("30", "10")


def test_a_weights_file_is_the_students_and_another_the_teachers(tmp_path):
    own, theirs = str(tmp_path / "resnet18.pth"), str(tmp_path / "resnet50.pth")
    teacher, student = parts("distill", weights=own)
    assert student.fields["weights"] == own and "weights" not in teacher.fields  # ImageNet's, the trial's default
    teacher, student = parts("distill", weights=own, teacher_weights=theirs)
    assert (teacher.fields["weights"], student.fields["weights"]) == (theirs, own)
    teacher, student = parts("distill", teacher_weights=theirs, fields={"weights": "none"})
    assert (teacher.fields["weights"], student.fields["weights"]) == (theirs, "none")
    for part in parts("distill", teacher_weights=theirs, demo=True):
        assert part.fields["weights"] == "none"


def test_a_sound_study_passes_the_check(tiny_cache):
    (part,) = parts("learning_rate", fields={"cache": str(tiny_cache), "image_px": "32", "weights": "none"})
    assert [finding.text for finding in check(study_experiment(part, part.cells)) if finding.level == "error"] == []


def test_missing_weights_and_searched_fields_are_refused_early(tiny_cache, tmp_path, capsys):
    small = ["--cache", str(tiny_cache), "--set", "image_px=32", "--out", str(tmp_path / "out")]
    error = refused(["pretrained", *small, "--weights", str(tmp_path / "none.pth")], capsys)
    assert "none.pth" in error and "no such file" in error and "nothing was started" in error
    first = ["early_stopping", "pretrained", *small, "--set", "epochs=1"]  # the first would be sound by itself
    weights = ["--weights", str(tmp_path / "none.pth")]
    error = refused([*first, *weights, "--demo"], capsys)
    assert "none.pth" in error and "nothing was started; name a weights file with --weights FILE" in error
    assert "study_early_stopping" not in error and error.count("\n") == 2
    error = refused(["early_stopping", *small, "--set", "weights=none", "--set", "patience=3"], capsys)
    assert "patience: searched by the search space and fixed by --set" in error
    assert not (tmp_path / "out").exists()


def test_imagenets_weights_that_cannot_be_had_stop_all_studies_before_the_first(
    tiny_cache, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing listens
    words = ["early_stopping", "pretrained", "--demo", "--cache", str(tiny_cache), "--out", str(tmp_path / "out")]
    error = refused(words, capsys)
    assert "neither in" in error and error.strip().endswith("with --weights FILE (make studies WEIGHTS=FILE)")
    assert not (tmp_path / "out").exists()


def test_weights_that_no_study_takes_are_refused(tmp_path, capsys):
    words = ["early_stopping", "balance", "--demo", "--weights", "w.pth", "--out", str(tmp_path / "out")]
    error = refused(words, capsys)
    assert "--weights w.pth: nothing here starts from ImageNet's weights" in error and error.count("\n") == 1
    searched, fixed = (
        parts("pretrained", weights="w.pth", demo=True)[0],
        parts("balance", weights="w.pth", demo=True)[0],
    )
    assert searched.values[1].endswith("/w.pth") and fixed.fields["weights"] == "none"


def test_make_studies_checks_all_at_once_and_ends_with_the_report():
    output = subprocess.run(
        ["make", "-n", "studies", "WEIGHTS=w.pth"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    commands = [line.split("python -m ")[1] for line in output.splitlines() if "python -m " in line]
    (run,) = [shlex.split(command)[1:] for command in commands if command.startswith("experiments study")]
    options = parse(run)
    assert set(options.names) == set(STUDIES) and options.demo and options.weights == "w.pth"
    assert commands[-1] == "analysis report --keep docs/studies" and "analysis study" in commands[-2]


def test_a_folder_with_another_study_is_refused(tmp_path, capsys):
    plan_in(tmp_path, "step_size", part_of("step_size", 3))
    out = ["--out", str(tmp_path)]
    error = refused(["step_size", "--seeds", "2", *out], capsys)
    assert f"{tmp_path} holds the study step_size with 3 seeds instead of 2 seeds" in error
    assert "and no patience instead of patience=0; repeat that" in error and error.count("\n") == 1
    error = refused(["balance", *out], capsys)
    assert f"{tmp_path} holds the study step_size instead of balance; repeat that" in error
    assert len(read_plan(tmp_path, StudyPlan).main.seeds) == 3


def test_what_differs_from_the_folders_plan_is_named_in_each_part(tmp_path, capsys):
    plan_in(tmp_path, "distill", *parts("distill", demo=True, fields={"lr": "0.01"}))
    words = ["distill", "--seeds", "2", "--demo", "--out", str(tmp_path)]
    error = refused([*words, "--set", "lr=0.01", "--set", "epochs=10"], capsys)
    assert "distill with epochs=30 instead of epochs=10 (teachers); repeat that" in error
    error = refused([*words, "--set", "lr=0.02"], capsys)
    assert "distill with lr=0.01 instead of lr=0.02; repeat that" in error  # once for both parts
    error = refused([*words, "--set", "lr=0.01", "--set", "teacher=/best.pt"], capsys)
    assert "distill with no teacher instead of teacher=/best.pt; repeat that" in error
    plan_in(tmp_path / "b", "pretrained", *parts("pretrained", weights="/a.pth"))
    error = refused(["pretrained", "--seeds", "2", "--weights", "/b.pth", "--out", str(tmp_path / "b")], capsys)
    assert "with weights=none, /a.pth instead of weights=none, /b.pth; repeat that" in error


@pytest.mark.parametrize("seeds", ["1", "21", "two"])
def test_a_number_of_seeds_without_a_spread_is_refused(seeds, capsys):
    with pytest.raises(SystemExit):
        main(["study", "balance", "--seeds", seeds])
    assert "--seeds" in capsys.readouterr().err


def test_the_spaces_are_the_reports():
    values = {
        name: next(iter(json.loads((ROOT / f"search_spaces/study_{name}.json").read_text()).values()))["_value"]
        for name in STUDIES
    }
    assert values["early_stopping"] == [0, 5] and values["pretrained"] == ["none", "imagenet"]
    assert values["learning_rate"] == [0.01, 0.005, 0.0025] and values["step_size"] == [7, 1, 5, 14]


def test_what_teachers_and_students_start_from_is_checked_before_hours_of_teaching(
    tiny_cache, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nothing listens
    files = {}
    for arch in ("resnet18", "resnet50"):
        files[arch] = str(tmp_path / f"{arch}.pth")
        torch.save(build_model(arch, "none", 11, seed=0).state_dict(), files[arch])
    words = ["distill", "--cache", str(tiny_cache), "--set", "image_px=32", "--out", str(tmp_path / "out")]
    hint = "nothing was started; name a ResNet50's state dict with --teacher-weights FILE"
    error = refused([*words, "--weights", files["resnet18"]], capsys)
    assert "resnet50" in error and "neither in" in error and hint in error
    error = refused([*words, "--set", f"weights={files['resnet18']}"], capsys)
    assert "does not fit" in error and hint in error
    given = ["--teacher-weights", files["resnet50"]]
    error = refused([*words, *given, "--weights", files["resnet50"]], capsys)
    assert "does not fit" in error and "study_distill_teacher" not in error
    assert not (tmp_path / "out").exists()

    monkeypatch.setattr("experiments.studies.run_part", lambda part, settings: 3)
    assert main(["study", *words, *given, "--weights", files["resnet18"]]) == 3
    assert read_plan(tmp_path / "out", StudyPlan).teacher.fields["weights"] == files["resnet50"]


@pytest.mark.parametrize(
    "words",
    [["balance"], ["distill", "--demo"], ["distill", "--set", "teacher=best.pt"]],
)
def test_teacher_weights_that_no_teacher_takes_are_refused(words, tmp_path, capsys):
    error = refused([*words, "--teacher-weights", "w.pth", "--out", str(tmp_path / "out")], capsys)
    assert "--teacher-weights w.pth: no teacher here starts from it" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


TEACHERS = {0: 0.7, 1: 0.9, 2: 0.8}  # validation accuracy by seed


@pytest.fixture
def teaching(tmp_path, monkeypatch, capsys):
    """Runs a distillation whose three teachers have ended; returns exit code, what was printed and the students' part (None
    where it came to none). `cut` are seeds of teachers that the time limit ended, `lost` those whose best.pt is gone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = []
    monkeypatch.setattr("experiments.studies.run_part", lambda part, settings: ran.append(part) or 0)

    def run(cut=(), lost=()):
        plan = plan_in(tmp_path / "out", "distill", *parts("distill", seeds=3))
        ended = {seed: {"curve": [0.5, best], "right": (9,) * 5} for seed, best in TEACHERS.items()}
        recorder = recorded(tmp_path, plan.teacher, lambda value, seed: ended[seed] | {"interrupted": int(seed in cut)})
        for seed in TEACHERS:
            name = "best-2.pt" if seed in cut else "best.pt"
            if seed not in lost:
                (recorder.output(f"t{seed:04d}") / name).touch()
        code = main(["study", "distill", "--seeds", "3", "--out", str(tmp_path / "out")])
        return code, capsys.readouterr().err, next((part for part in ran if part.name == "main"), None)

    return run


@pytest.mark.parametrize(
    "cut, lost, seed, why",
    [
        ([], [], 1, None),
        ([1], [], 2, "seed 2 is the teacher (validation 80.0 %), as better ones cannot be: seed 1 (90.0 %, cut short)"),
        ([1], [2], 0, "seed 1 (90.0 %, cut short), seed 2 (80.0 %, no best.pt in "),
        ([0], [], 1, None),
    ],
)
def test_the_best_teacher_that_ended_with_its_weights_teaches(teaching, tmp_path, cut, lost, seed, why):
    code, errors, students = teaching(cut, lost)
    assert code == 0, errors
    assert students.fields["teacher"].endswith(f"/t{seed:04d}/best.pt")
    assert (why in errors and errors.count("\n") == 3) if why else "is the teacher" not in errors

    recorded(tmp_path, students, lambda value, seed: {"curve": [0.4, 0.5], "right": (5,) * 5})
    page = study_page("distill", tmp_path / "out")[0]
    left = 3 - len({*cut, *lost})
    assert page["teacher"]["validation"] == TEACHERS[seed] and page["teacher"]["of"] == left
    words = {3: "the best on validation of 3, ", 1: "the only one of 3 that ended with a best.pt, "}
    assert words.get(left, f"the best on validation of the {left} of 3 that ended with a best.pt, ") in page["can"]


def test_a_study_without_a_teacher_that_ended_is_refused(teaching):
    code, errors, students = teaching(cut=[0, 1, 2])
    assert code == 1 and students is None and errors.count("\n") == 2
    assert "none of its 3 trainings ended with a best.pt, so that there is no teacher; name one with --set" in errors
