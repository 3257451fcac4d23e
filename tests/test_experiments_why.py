"""`why`, on recorded experiments: what it concludes from which evidence. Real ones: test_nni_faults.py."""

from __future__ import annotations

import json
import os

import pytest
from conftest import run_module
from fixtures_analysis import Recorder, final

from analysis.reading.reader import load_experiment
from experiments import logs
from experiments.findings import ExperimentError, Finding
from experiments.logs import explain
from experiments.why import experiment_findings, trial_findings, why

STAMP = "[2026-11-24 04:00:00]"


STOPPED = f"{STAMP} INFO (ShutdownManager) Initiate shutdown: SIGTERM\n{STAMP} INFO (NNIManager) Stopping experiment, cleaning up ..."
# As NNI's manager wrote them: a shutdown of its own, which cleans up as a stop by hand does.
REFUSED_WORKER = [
    "INFO (ShutdownManager) Initiate shutdown: training service initialize failed",
    f"{STAMP} ERROR (TrainingServiceCompat) Training srevice initialize failed: Error: connect ECONNREFUSED 127.0.0.1:2222",
    "    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1494:16) {\n  errno: -111,\n  code: 'ECONNREFUSED',\n}",
    f"{STAMP} INFO (NNIManager) Stopping experiment, cleaning up ...",
]
BUSY_PORT = [
    "CRITICAL (ShutdownManager) Critical error ocurred in module RestServer: Error: listen EADDRINUSE: address already in use :::8080",
    "    at Server.setupListenHandle [as _listen2] (node:net:1468:16)",
    f"{STAMP} INFO (NNIManager) Stopping experiment, cleaning up ...",
]


def logged(written: Recorder, name: str, *lines: str) -> None:
    log = written.folder / "log" / name
    log.parent.mkdir(exist_ok=True)
    log.write_text("\n".join(lines) + "\n")


def first(written: Recorder) -> Finding:
    """What is said first of the experiment."""
    return experiment_findings(load_experiment(written.folder))[0]


def first_of_trial(written: Recorder, number: int) -> Finding:
    record = load_experiment(written.folder)
    return trial_findings(record, record.trials[number])[0]


def test_a_sound_experiment_has_nothing_wrong(tmp_path):
    written = Recorder(tmp_path, maxTrialNumber=1)
    written.trial(0, final(0.8))
    text = why(str(written.folder))
    assert "DONE; 1 of 1 trials: 1 succeeded" in text and "Nothing wrong found." in text
    assert text.endswith("next: python -m analysis export exp00001 --format csv --out trials.csv")
    assert "Nothing wrong found" in why(str(written.folder), "t0000")


def test_a_killed_manager_left_no_word_and_a_stopped_one_did(tmp_path):
    written = Recorder(tmp_path)
    written.trial(0, final(0.8))
    written.run(10, "t0001", 1, 1)
    logged(written, "dispatcher.log", f"{STAMP} ERROR (nni.main/MainThread) x", "OSError: Connect call failed")
    text = why(str(written.folder))
    assert first(written).key == "manager.killed" and "1 cut off" in text
    assert text.endswith("next: python -m experiments resume exp00001")
    assert first_of_trial(written, 1).key == "trial.cut_off"
    logged(written, "nnimanager.log", f"{STAMP} INFO (NNIManager) Stopping experiment, cleaning up ...")
    assert (first(written).level, first(written).key) == ("note", "manager.stopped")


@pytest.mark.parametrize(
    ("log", "lines", "words", "key"),
    [
        ("dispatcher.log", ["ERROR (nni.runtime.msg_dispatcher_base/Thread-1) 7", "KeyError: 7"], "the tuner died: KeyError: 7", "tuner.unknown_trial"),
        ("dispatcher.log", ["ERROR (nni.runtime.msg_dispatcher_base/Thread-1) x", "OddError: x"], "the tuner died: OddError: x", "tuner.died"),
        ("nnimanager.log", ["ERROR (NNIManager) Error: tuner_command_channel: Tuner did not connect in 10 seconds."], "did not connect in 10 seconds", "tuner.not_connected"),
        ("nnimanager.log", ["ERROR (x) Error: listen EADDRINUSE: address already in use"], "EADDRINUSE", "port.taken"),
        ("nnimanager.log", ["INFO (NNIManager) Change NNIManager status from: RUNNING to: TUNER_NO_MORE_TRIAL"], "no more points", "space.exhausted"),
        ("nnimanager.log", REFUSED_WORKER, "training service initialize failed: Training srevice initialize failed: Error: connect ECONNREFUSED 127.0.0.1:2222", "remote.unreachable"),
        ("nnimanager.log", BUSY_PORT, "ended by itself: Critical error ocurred in module RestServer: Error: listen EADDRINUSE", "port.taken"),
        ("nnimanager.log", ["ERROR (SqlDB) Error: SQLITE_FULL: database or disk is full", STOPPED], "SQLITE_FULL", "disk.full"),
    ],
)  # fmt: skip
def test_the_end_of_an_experiment_is_found_in_its_logs(log, lines, words, key, tmp_path):
    written = Recorder(tmp_path)
    written.trial(0, final(0.8))
    logged(written, log, f"{STAMP} {lines[0]}", *lines[1:])
    assert first(written).key == key and words in first(written).text and first(written).next or key == "tuner.died"
    assert words in why(str(written.folder)) and "Nothing wrong found" not in why(str(written.folder))


def test_a_crash_is_told_from_the_error_output_of_its_own_session(tmp_path):
    written = Recorder(tmp_path)
    heading = ["-" * 80, "Experiment exp00001 start: 2026-11-24 03:00:00", "-" * 80]
    crash = ["Uncaught:", "Error: ENOSPC: no space left on device, write", "    at Object.writeSync (node:fs:928:3)"]
    logged(written, "nnictl_stderr.log", *heading, *crash)
    assert first(written).key == "disk.full" and "Error: ENOSPC" in first(written).text
    assert logs.why_manager_ended(written.folder, []) == crash[1]
    logged(written, "nnictl_stderr.log", *heading, *crash, *heading)
    assert first(written).key == "manager.killed"
    assert logs.why_manager_ended(written.folder, []) == ""


def test_a_tuner_that_did_not_connect_is_explained_by_its_own_log(tmp_path):
    written = Recorder(tmp_path)
    error = "ValueError: 'maximise' is not a valid OptimizeMode"
    logged(written, "nnimanager.log", f"{STAMP} ERROR (NNIManager) Error: x: Tuner did not connect in 10 seconds. See.")
    logged(written, "dispatcher.log", f"{STAMP} ERROR (nni.main/MainThread) x", error)
    assert first(written).key == "tuner.arguments" and f"The tuner's log: {error}" in first(written).text


def test_a_used_up_time_limit_is_said(tmp_path):
    written = Recorder(tmp_path, maxExperimentDuration="30s")  # the recorded 60 s are over it
    written.trial(0, final(0.8))
    assert first(written).key == "limit.used_up" and "(30s) was used up (60 s)" in first(written).text


def test_failures_are_grouped_by_kind_with_their_number_and_meaning(tmp_path):
    written = Recorder(tmp_path, maxTrialNumber=5)
    for number in range(3):
        output = written.output(written.trial(number, None, state="FAILED"))
        (output / "trial.stderr").write_text(f"torch.OutOfMemoryError: CUDA out of memory, {number} MiB\n")
    written.trial(3, None)
    written.trial(4, final(0.8))
    three, one, *_ = experiment_findings(load_experiment(written.folder))
    assert three.key == "gpu.out_of_memory"
    assert three.text.startswith("3 x FAILED (t0000, t0001, t0002): torch.OutOfMemoryError")
    assert one.key == "trial.no_result" and one.text.startswith("1 x SUCCEEDED (t0003): ")
    assert "one of them: python -m experiments why exp00001 t0000" in why(str(written.folder))
    alone = why(str(written.folder), "t0001")
    assert "FAILED after 8 s, exit code other than 0" in alone and "  | torch.OutOfMemoryError" in alone


@pytest.mark.parametrize(
    ("line", "more", "key"),
    [
        ("INFO (NNIManager) User cancelTrialJob: t0000", {}, "cancel.person"),
        ("INFO (NNIManager) Trial job t0000 has been canceled because it is over max trial duration.", {"maxTrialDuration": "5s"}, "cancel.duration"),
        ('INFO (NNIManager) cancelTrialJob: "t0000"', {}, "cancel.assessor"),
        ("INFO (NNIManager) nothing", {"maxTrialDuration": "7s"}, "cancel.duration"),
        ("INFO (NNIManager) nothing", {"maxTrialDuration": "1h"}, "cancel.signal"),
    ],
)  # fmt: skip
def test_who_cancelled_a_trial_is_told_apart(line, more, key, tmp_path):
    written = Recorder(tmp_path, **more)
    written.trial(0, None, state="USER_CANCELED")
    logged(written, "nnimanager.log", f"{STAMP} {line}")
    assert first_of_trial(written, 0).key == key
    assert key in [finding.key for finding in experiment_findings(load_experiment(written.folder))]


def test_a_pruned_trial_has_not_failed_and_why_says_which_rung_ended_it(tmp_path):
    written = Recorder(tmp_path, assessor={"className": "asha.Asha"}, maxTrialNumber=3)
    written.trial(0, final(0.8))
    written.trial(1, {"default": 0.3, "interrupted": 1, "epochs_run": 2}, 0.2, state="EARLY_STOPPED")
    written.trial(2, None, 0.2, state="EARLY_STOPPED")
    record = load_experiment(written.folder)
    assert record.counts == {"succeeded": 1, "failed": 0, "cancelled": 0, "running": 0, "pruned": 2}
    assert [trial.status for trial in record.trials] == ["succeeded", "pruned after epoch 2", "pruned after epoch 1"]
    assert [trial.score for trial in record.trials] == [0.8, 0.3, None] and record.best is record.trials[0]
    (written.folder / "checkpoint").mkdir()
    line = {"trial": "t0001", "rung": 0, "epoch": 2, "best": 0.3, "n": 3, "threshold": 0.5, "is_pruned": True}
    (written.folder / "checkpoint/asha.jsonl").write_text(json.dumps(line) + '\n{"trial": "t0')
    one, other = first_of_trial(written, 1), first_of_trial(written, 2)
    assert (one.level, one.key) == ("note", "trial.pruned") == (other.level, other.key)
    assert "at rung 0 (epoch 2) asha.Asha compared its best so far, 0.3, with 2 others; 0.5 was needed" in one.text
    assert other.text == "pruned after epoch 1 by asha.Asha."
    assert "1 succeeded, 2 pruned, 0 failed" in why(str(written.folder)) and "error" not in why(str(written.folder))


def test_the_best_trial_may_be_a_pruned_one(tmp_path):
    written = Recorder(tmp_path)
    written.trial(0, final(0.2))
    written.trial(1, {"default": 0.3, "interrupted": 1, "epochs_run": 2}, 0.2, state="EARLY_STOPPED")
    assert load_experiment(written.folder).best.trial_id == "t0001"


def test_a_trial_with_another_trials_hyperparameters_is_said(tmp_path):
    written = Recorder(tmp_path)
    written.run(0, "t0000", 0, 0, lr=0.1)
    written.run(0, "t0001", 1, 1, lr=0.2)
    written.metric(5, "t0000", 1, 0.5)
    written.event(6, "t0000", "SUCCEEDED", 0)
    text = why(str(written.folder), "t0000")
    assert first_of_trial(written, 0).key == "records.mixed"
    assert "ran with: {'lr': 0.2}" in text and "NNI shows for it: {'lr': 0.1}, which is another trial's set" in text


def test_what_the_watching_concluded_is_remembered(tmp_path):
    written = Recorder(tmp_path)
    written.run(0, "t0000", 0, 0)
    note = {"time": 2e9, "state": "STALLED", "reason": "trial t0000 has reported nothing"}
    (written.folder / "watch.jsonl").write_text(json.dumps(note) + "\n")
    assert first(written) == Finding("error", "verdict.stalled", "STALLED: trial t0000 has reported nothing")
    (written.folder / "watch.jsonl").write_text('["half a li')
    assert first(written).key == "manager.killed"


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ("ValueError: high - low < 0", "space.bounds"),
        ("TypeError: EvolutionTuner.__init__() got an unexpected keyword argument 'seed'", "tuner.arguments"),
        ("/bin/bash: line 1: pyhton: command not found", "command.not_found"),
        ("python: can't open file 'x.py': [Errno 2] No such file or directory", "command.not_found"),
        ("ModuleNotFoundError: No module named 'torch'", "trial.module_missing"),
        ("OSError: [Errno 28] No space left on device", "disk.full"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", "memory.used_up"),
        ("torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device", "gpu.wrong_build"),
        ("sqlite3.OperationalError: database is locked", "database.locked"),
        ("RuntimeError: ('Received parameter_id %s not in running_trials.', 0)", "tuner.unknown_trial"),
        ("KeyError: 'lr'", None),  # the trial's own
        ("ValueError: no pan in this kitchen", None),
    ],
)  # fmt: skip
def test_known_messages_have_a_meaning_and_others_none(message, key):
    known = explain(message)
    assert (known is None) if key is None else known.key == key and known.cause and known.next


@pytest.mark.parametrize(
    ("words", "message"), [(["nobody"], "no experiment 'nobody'"), (["x", "9"], "no experiment 'x'")]
)
def test_a_wrong_name_is_one_line(words, message, tmp_path):
    done = run_module("experiments", "why", *words, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_wrong_trial_is_one_line_with_the_known_ones(tmp_path):
    written = Recorder(tmp_path)
    written.trial(0, final(0.8))
    with pytest.raises(ExperimentError, match=r"zz: no trials of that name in exp00001; trials: t0000 \(no. 0\)"):
        why(str(written.folder), "zz")
