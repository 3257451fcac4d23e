"""Faults of NNI 3.0 and of a night, each provoked for real: real NNI, real kills. docs/faults.md names these tests."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
import pytest
from conftest import PATIENCE_S, ROOT, run_module

pytestmark = pytest.mark.nni

SCRIPTS = {
    "good.py": "p = nni.get_next_parameter(); nni.report_final_result(p['x']); time.sleep(1)",
    "held.py": "p = nni.get_next_parameter(); nni.report_intermediate_result(0.1); time.sleep(1)\n"
    "while os.path.exists('hold'): time.sleep(0.1)\n"
    "nni.report_final_result(p['x']); time.sleep(1)",
    "fails.py": "nni.get_next_parameter(); raise ValueError(f'no pan number {os.getpid()}')",
    "silent.py": "nni.get_next_parameter()",
    "hangs.py": "nni.get_next_parameter(); nni.report_intermediate_result(0.1); time.sleep(600)",
    "ticks.py": "nni.get_next_parameter()\nfor _ in range(600): time.sleep(1); print('tick', flush=True)",
}
UNIFORM = {"x": {"_type": "uniform", "_value": [0, 1]}}


@pytest.fixture(scope="module", autouse=True)
def home(nni_env):
    """This process starts NNI itself, past `check`, which refuses most of these experiments."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "PATH"):
            patch.setenv(name, nni_env[name])
        yield


def written(folder: Path, name: str, **changes) -> Path:
    """An experiment file and its trial scripts."""
    folder.mkdir(exist_ok=True)
    for script, text in SCRIPTS.items():
        (folder / script).write_text(f"import nni, os, time\n{text}\n")
    config = {
        "experimentName": name, "searchSpace": UNIFORM, "trialCodeDirectory": ".", "trialCommand": "python good.py",
        "trialConcurrency": 1, "maxTrialNumber": 100, "maxTrialDuration": "10m", "maxExperimentDuration": "1h",
        "tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}}, "trainingService": {"platform": "local"},
    }  # fmt: skip
    (folder / f"{name}.yml").write_text(json.dumps(config | changes))
    return folder / f"{name}.yml"


BAD = {
    "tunerless": {"trialCommand": "python ticks.py"},
    "reversed": {"searchSpace": {"x": {"_type": "uniform", "_value": [1, 0]}}},
    "arguments": {"tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximise"}}},
    "exhausted": {"searchSpace": {"x": {"_type": "choice", "_value": [1, 2]}}},
    "fails": {"trialCommand": "python fails.py"},
    "silent": {"trialCommand": "python silent.py"},
    "command": {"trialCommand": "pyhton good.py"},
    "hangs": {"trialCommand": "python hangs.py"},
    "orphan": {"trialCommand": "sleep 500; python good.py", "maxTrialNumber": 1, "maxTrialDuration": "5s"},
    "stuck": {"trialGpuNumber": 2, "trainingService": {"platform": "local", "useActiveGpu": True}},
}


# A machine that seems to have one GPU, for NNI's collector.
PYNVML = """
from types import SimpleNamespace as S
class NVMLError(Exception): pass
nvmlInit = nvmlShutdown = lambda: None
nvmlDeviceGetCount = lambda: 1
nvmlSystemGetDriverVersion = nvmlSystemGetCudaDriverVersion_v2 = lambda: 1
nvmlDeviceGetHandleByIndex = nvmlDeviceGetNumGpuCores = nvmlDeviceGetName = lambda *_: 1
nvmlDeviceGetMemoryInfo = lambda _: S(total=1, free=1)
nvmlDeviceGetUtilizationRates = lambda _: S(gpu=0, memory=0)
nvmlDeviceGetComputeRunningProcesses_v3 = nvmlDeviceGetGraphicsRunningProcesses_v3 = lambda _: []
"""


@pytest.fixture(scope="module")
def ended(home, tmp_path_factory) -> tuple[dict[str, tuple[str, str]], str, float]:
    """All of them at once, watched to their end: {name: (id, state)}, the messages, and when the watching began."""
    from experiments import nni
    from experiments.config import Overrides, read_experiment
    from experiments.diagnose import Limits
    from experiments.nni import start
    from experiments.watch import WatchSettings, watch_to_end

    folder = tmp_path_factory.mktemp("bad")
    (folder / "one_gpu").mkdir()
    (folder / "one_gpu" / "pynvml.py").write_text(PYNVML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "one_gpu"))
        managers = [start(read_experiment(written(folder, name, **more), Overrides())) for name, more in BAD.items()]
    for process in nni.tuner_processes(managers[0].folder):
        process.kill()
    started, out, err = time.time(), io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert watch_to_end(managers, WatchSettings(limits=Limits(stall_minutes=0.25))) == 1
    ids = {manager.name: (manager.id, manager.folder) for manager in managers}
    states = {line.split()[1]: (line.split()[2], line.split()[3]) for line in out.getvalue().splitlines()}
    assert states.keys() == ids.keys()
    assert not [
        p for trial_id, place in ids.values() for p in nni.trial_processes(trial_id, place) + nni.tuner_processes(place)
    ]
    return states, err.getvalue(), started


@pytest.mark.parametrize(
    ("name", "state", "message", "explained"),
    [
        ("reversed", "DEAD", "the tuner died: ValueError: high - low < 0", "reversed, empty or"),
        ("arguments", "DEAD", "'maximise' is not a valid OptimizeMode", "does not take these classArgs"),
        ("exhausted", "EXHAUSTED", "no more points", "complete as it is"),
        ("fails", "FAILING", "the last 3 trials failed alike", "ValueError: no pan number"),
        ("silent", "FAILING", "final result", " x FAILED"),
        ("command", "FAILING", "pyhton: command not found", "a program that is not there"),
        ("hangs", "STALLED", "has reported, logged and written nothing", "STALLED: trial"),
        ("orphan", "DONE", "no trial has a result", "NNI ended it at maxTrialDuration (5s)"),
        ("stuck", "STUCK", "none can be started (trialGpuNumber: 2)", "remove trialGpuNumber"),
        ("tunerless", "DEAD", "the tuner's process has ended without a word", "the tuner's process has ended without a word"),
    ],
)  # fmt: skip
def test_a_fault_ends_the_experiment_with_its_reason_and_why_explains_it(ended, name, state, message, explained):
    from experiments.why import why

    states, err, _ = ended
    experiment_id, actual = states[name]
    line = next(line for line in err.splitlines() if line.startswith(f"{actual}: {name} "))
    assert actual == state and message in line
    text = why(experiment_id)
    assert explained in text and text.startswith(f"{name} ({experiment_id}):") and "Nothing wrong found" not in text


def test_each_is_noticed_within_30_seconds_and_nothing_stays(ended):
    """From the fault: the start for what was wrong from the start, the end of the last trial for what trials did."""
    from analysis.reading.locate import home
    from analysis.reading.reader import load_experiment

    states, err, started = ended
    for name, (experiment_id, _) in states.items():
        record = load_experiment(experiment_id)
        log = (home() / experiment_id / "log/nnimanager.log").read_text()
        connected = [
            line[1:20] for line in log.splitlines() if "Add event listeners" in line
        ]  # before, no trial can be
        begun = [time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S")) for stamp in connected]
        last = max([started, *begun, *(trial.end / 1000 for trial in record.trials if trial.end)])
        noticed = json.loads((home() / experiment_id / "watch.jsonl").read_text())["time"]
        print(f"{name}: noticed after {noticed - last:.1f} s")
        assert noticed - last < 30, name
    assert "orphan: stopped what its manager had left running: its trials" in err  # the child of a compound command


def test_a_trial_that_was_cut_off_by_the_end_of_the_watching_is_explained_by_itself(ended):
    from experiments.why import why

    experiment_id, _ = ended[0]["hangs"]
    assert "cut off with its experiment; resume runs it again" in why(experiment_id, "0")
    assert "FAILED after" in why(ended[0]["fails"][0], "1")


def job_of(process: psutil.Process) -> str:
    """The trial that a process belongs to; "" for the tuner, and for one that has just ended."""
    try:
        return process.environ().get("NNI_TRIAL_JOB_ID", "")
    except psutil.Error:
        return ""


class Night:
    """One experiment that is killed again and again."""

    def __init__(self, folder: Path) -> None:
        self.file = written(folder, "night", trialCommand="python held.py", maxTrialNumber=5)
        self.hold = folder / "hold"
        self.id = ""

    def go(self, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "experiments", *words]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def running(self, ended: int) -> str:
        """Wait for a trial whose process runs after so many have ended; its id."""
        from analysis.reading.locate import AnalysisError, registry
        from analysis.reading.reader import load_experiment

        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.id = self.id or next((key for key, e in registry().items() if e["experimentName"] == "night"), "")
            try:
                trials = load_experiment(self.id).trials if self.id else ()
            except AnalysisError:
                trials = ()
            here = {job_of(process) for process in self.left()} if trials else set()
            now = [trial for trial in trials if trial.trial_id in here and trial.end is None and trial.intermediates]
            if now and sum(trial.end is not None for trial in trials) >= ended:
                return now[0].trial_id
            time.sleep(0.1)
        raise AssertionError(f"no running trial after {ended}")

    def resumed_but_not_restarted(self) -> None:
        """Wait until NNI has written that it will run the cut-off trial again."""
        from analysis.reading.locate import home

        uri = f"{(home() / self.id / 'db/nni.sqlite').as_uri()}?mode=ro"
        last, deadline = "", time.monotonic() + PATIENCE_S
        while last != "ADD_RESUMED":
            assert time.monotonic() < deadline
            with closing(sqlite3.connect(uri, uri=True)) as database:
                last = database.execute("select event from TrialJobEvent order by rowid desc limit 1").fetchall()[0][0]

    def manager(self) -> psutil.Process:
        from analysis.reading.locate import registry

        return psutil.Process(registry()[self.id]["pid"])

    def left(self) -> list[psutil.Process]:
        from analysis.reading.locate import home
        from experiments import nni

        place = home() / self.id
        return [*nni.trial_processes(self.id, place), *nni.tuner_processes(place)]


def test_no_kill_loses_a_finished_trial_or_counts_it_twice(home, tmp_path):
    from analysis.reading.reader import load_experiment

    night = Night(tmp_path / "night")
    launched = night.go("launch", str(night.file))
    night.running(ended=1)
    night.manager().kill()  # first the manager
    out, err = launched.communicate(timeout=PATIENCE_S)
    assert launched.returncode == 1 and f"{night.id} LOST" in out and "without being told to" in err
    assert night.left() == []
    assert "killed, or the machine restarted" in run_module("experiments", "why", night.id).stdout

    resumed = night.go("resume", night.id)
    night.resumed_but_not_restarted()
    resumed.kill()  # then the manager again, before it has started the cut-off trial
    resumed.communicate()
    night.manager().kill()

    resumed = night.go("resume", night.id)
    cut = night.running(ended=1)
    for process in night.left():  # then a trial
        if job_of(process) == cut:
            process.kill()
    night.running(ended=2)
    for process in night.left():  # then the tuner
        if not job_of(process):
            process.kill()
    out, err = resumed.communicate(timeout=PATIENCE_S)
    assert resumed.returncode == 1 and f"{night.id} DEAD" in out and "without a word" in err

    resumed = night.go("resume", night.id)
    night.hold.touch()
    night.running(ended=2)
    resumed.kill()  # then who watches and the manager: what a restart would end, and what it would leave
    resumed.communicate()
    night.manager().kill()
    assert night.left()
    before = {trial.trial_id: trial for trial in load_experiment(night.id).trials if trial.end is not None}
    done = night.go("resume", night.id, "--max-trials", "6")
    time.sleep(5)
    night.hold.unlink()
    out, err = done.communicate(timeout=PATIENCE_S)
    assert done.returncode == 0 and "stopped what an earlier session had left running: its trials" in err, err
    record = load_experiment(night.id)
    assert (len(record.trials), record.state) == (6, "DONE")
    assert record.counts["succeeded"] == 5 and record.counts["running"] == 0
    assert before == {t.trial_id: t for t in record.trials if t.trial_id in before}
    assert "a signal that NNI did not send" in run_module("experiments", "why", night.id, cut).stdout
    again = run_module("experiments", "resume", night.id)
    assert again.returncode == 1 and "all 6 trials have ended" in again.stderr


def test_doctor_runs_a_real_trial_in_under_a_minute_and_leaves_nothing(home, tmp_path):
    done = run_module("experiments", "doctor", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout
    assert "ok: trial: one trial through NNI in " in done.stdout
    assert not list(tmp_path.glob("nni-smoke-*"))
