"""Teachers of a study: what they start from, which of them teaches, and what is refused before hours of training."""

from __future__ import annotations

import pytest
import torch
from fixtures_study import plan_in, recorded
from fixtures_study_command import parts, refused

from analysis.reading.replication import StudyPlan, read_plan
from analysis.reports.study import study
from experiments.__main__ import main
from trial.model import build_model


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

    monkeypatch.setattr("experiments.study._run", lambda part, watching: 3)
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
    """Runs a distillation whose three teachers have ended; returns exit code, what was said and the students' part (None
    where it came to none). `cut` are seeds of teachers that the time limit ended, `lost` those whose best.pt is gone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = []
    monkeypatch.setattr("experiments.study._run", lambda part, watching: ran.append(part) or 0)

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
        ([1], [], 2, "seed 2 teaches (validation 80.0 %), as better ones cannot: seed 1 (90.0 %, cut short)"),
        ([1], [2], 0, "seed 1 (90.0 %, cut short), seed 2 (80.0 %, no best.pt in "),
        ([0], [], 1, None),
    ],
)
def test_the_best_teacher_that_ended_with_its_weights_teaches(teaching, tmp_path, cut, lost, seed, why):
    code, said, students = teaching(cut, lost)
    assert code == 0, said
    assert students.fields["teacher"].endswith(f"/t{seed:04d}/best.pt")
    assert (why in said and said.count("\n") == 2) if why else "teaches" not in said

    recorded(tmp_path, students, lambda value, seed: {"curve": [0.4, 0.5], "right": (5,) * 5})
    page = study("distill", tmp_path / "out")[0]
    left = 3 - len({*cut, *lost})
    assert page["teacher"]["validation"] == TEACHERS[seed] and page["teacher"]["of"] == left
    words = {3: "the best on validation of 3, ", 1: "the only one of 3 that ended with a best.pt, "}
    assert words.get(left, f"the best on validation of the {left} of 3 that ended with a best.pt, ") in page["can"]


def test_a_study_without_a_teacher_that_ended_is_refused(teaching):
    code, said, students = teaching(cut=[0, 1, 2])
    assert code == 1 and students is None and said.count("\n") == 1
    assert "none of its 3 trainings ended with a best.pt, so that there is no teacher; name one with --set" in said
