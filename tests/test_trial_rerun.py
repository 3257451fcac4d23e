"""A folder that holds an earlier attempt: one that still writes, one that ended, one with other hyperparameters."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from conftest import run_module

from trial.epoch_log import EpochLog, epoch_line
from trial.errors import TrialError
from trial.hyperparameters import Hyperparameters
from trial.outputs import write_hyperparameters, write_json
from trial.rerun import finished_result, lock_folder, refuse_others, report_again

H = Hyperparameters(lr=0.01)


def ended(folder, interrupted=0):
    """What a training of two epochs leaves that was killed between its result and its report to NNI."""
    log = EpochLog(folder, [])
    for epoch in (1, 2):
        metrics = {
            "train_loss": 2.0,
            "train_accuracy": 0.1,
            "val_loss": 2.0,
            "val_accuracy": epoch / 10,
            "val_macro": 0.1,
            "lr": 0.01,
        }
        log.add(epoch_line({"epoch": epoch, **metrics}, 1.0))
    final = {"default": 0.2, "interrupted": interrupted}
    write_json(folder / "result.json", {"hyperparameters": asdict(H), "best_epoch": 2, "final": final})
    (folder / "best-2.pt").write_bytes(b"weights")
    (folder / "checkpoint-odd.pt").write_bytes(b"state")


def test_a_training_that_nni_did_not_hear_the_end_of_is_reported_again(tmp_path):
    ended(tmp_path)
    seen = []
    assert report_again(tmp_path, finished_result(tmp_path, H), seen.append) == {"default": 0.2, "interrupted": 0}
    assert [(metrics["epoch"], metrics["default"]) for metrics in seen] == [(1, 0.1), (2, 0.2)]
    assert (tmp_path / "best.pt").read_bytes() == b"weights"
    assert not list(tmp_path.glob("best-*.pt")) and not (tmp_path / "checkpoint-odd.pt").exists()


def test_what_did_not_end_well_or_is_of_other_hyperparameters_is_not(tmp_path):
    assert finished_result(tmp_path, H) is None
    ended(tmp_path)
    assert finished_result(tmp_path, Hyperparameters(lr=0.02)) is None
    ended(tmp_path, interrupted=1)
    assert finished_result(tmp_path, H) is None
    (tmp_path / "result.json").write_text('{"hyperparameters": {')
    assert finished_result(tmp_path, H) is None


def test_an_interrupted_training_is_not_written_over_by_another(tmp_path):
    write_hyperparameters(tmp_path, {}, H)
    refuse_others(tmp_path, Hyperparameters(lr=0.02))  # nothing to lose yet
    (tmp_path / "checkpoint-odd.pt").write_bytes(b"state")
    refuse_others(tmp_path, H)
    with pytest.raises(TrialError, match=r"interrupted training with lr = 0.01; give the same again"):
        refuse_others(tmp_path, Hyperparameters(lr=0.02))


def test_two_trainings_do_not_write_to_one_folder(tmp_path, tiny_cache):
    lock_folder(tmp_path, wait_s=0)
    words = ["--cache", str(tiny_cache), "--weights", "none", "--image-px", "32", "--output", str(tmp_path)]
    done = run_module("trial", *words)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "another training writes there" in done.stderr and not (tmp_path / "hyperparameters.json").exists()
