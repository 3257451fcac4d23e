"""NNI repaired: real experiments, first with plain NNI where its fault shows quickly, then with the repairs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from conftest import PATIENCE_S, new_port, run_module
from fixtures_nni import DEFAULTS, EVOLUTION, PYNVML, TRIAL, Run, other_address

from experiments.nni import NNICTL
from experiments.repairs import SWITCH, with_repairs

pytestmark = pytest.mark.nni


@pytest.fixture(scope="module")
def plain_env(nni_env) -> dict[str, str]:
    return {**nni_env, SWITCH: "off"}


@pytest.fixture(scope="module")
def repaired_env(nni_env) -> dict[str, str]:
    return with_repairs(nni_env)


@pytest.fixture(scope="module")
def runs(plain_env, repaired_env, tmp_path_factory) -> dict[str, Run]:
    """Three experiments that run at once: plain and TPE four trials at a time, Evolution two at a time."""
    folder = tmp_path_factory.mktemp("repairs")
    modes = "early,good,twice,nan,text,none,exit1,big,again,side,infinite,killed"
    four = {"trialConcurrency": 4, "maxTrialNumber": 14}
    two = {"trialConcurrency": 2, "maxTrialNumber": 9, "tuner": EVOLUTION}
    runs = {
        "plain": Run(folder / "plain", plain_env, {**four, "maxTrialNumber": 8, "tuner": {"name": "Random"}}),
        "tpe": Run(folder / "tpe", {**repaired_env, "NNI_TEST_MODES": modes}, four),
        "evolution": Run(
            folder / "evolution", {**repaired_env, "NNI_TEST_MODES": "none,none,none,exit1,twice,text,nan"}, two
        ),
    }
    for run in runs.values():
        run.wait(lambda run=run: run.status == "DONE")
    return runs


def test_each_repair_says_so_in_nnis_log(runs):
    lines = [line.split("(Repairs) ")[1] for line in runs["tpe"].log("nnimanager").splitlines() if "(Repairs)" in line]
    assert [line.split(":")[0] for line in lines] == ["start", "records", "network", "gpu", "trial end", "tensorboard"]
    assert "(Repairs)" not in runs["plain"].log("nnimanager")


def test_trials_get_the_parameters_that_nni_recorded_for_them(runs):
    """Four at a time, one of them dead before it asked: plain NNI hands out whatever is oldest."""
    wrong = {
        name: sum(received != run.recorded()[trial] for trial, received in run.received().items())
        for name, run in runs.items()
    }
    assert wrong["plain"] > 0 and len(runs["plain"].received()) == 8
    assert wrong["tpe"] == wrong["evolution"] == 0
    assert len(runs["tpe"].received()) == 13 and len(runs["evolution"].received()) == 9
    again = next(runs["tpe"].trials.glob("*/again.json"))
    assert json.loads(again.read_text()) == json.loads((again.parent / "parameters.json").read_text())


def test_a_trial_without_exactly_one_usable_result_has_failed_with_the_reason_in_its_record(runs):
    ends = runs["tpe"].ends()
    assert {number: reason for number, (state, reason) in ends.items() if state == "FAILED"} == {
        0: "exit code 1",
        2: "reported more than one final result: 0.1, then 0.2",
        3: "the final result is not finite: NaN",
        4: 'the final result is no number and no dict with a number as "default": "0.5"',
        5: "ended without a final result",
        6: "exit code 1",
        10: 'the final result is not finite: {"default": Infinity}',
        11: "ended by a signal that NNI did not send (kill -9, often for want of memory)",
    }
    assert {number for number, (state, _) in ends.items() if state == "SUCCEEDED"} == {1, 7, 8, 9, 12, 13}
    empty = [trial for trial in runs["tpe"].get("trial-jobs") if trial.get("message", "").startswith("ended without")]
    assert [trial["sequenceId"] for trial in empty] == [5]


def test_no_tuner_dies_of_its_trials(runs):
    assert {state for state, _ in runs["evolution"].ends().values()} == {"FAILED", "SUCCEEDED"}
    for name in ("tpe", "evolution"):
        assert "ERROR" not in runs[name].log("dispatcher") and runs[name].get("check-status")["errors"] == []


def test_plain_tuner_dies_of_a_second_final_result_while_nni_says_running(plain_env, tmp_path):
    run = Run(tmp_path, {**plain_env, "NNI_TEST_MODES": "twice"}, {})
    run.wait(lambda: "KeyError" in run.log("dispatcher"))
    assert run.get("check-status") == {"status": "RUNNING", "errors": []}
    run.call("stop", run.id)


def test_the_trial_inherits_nothing_of_the_repairs_but_that_they_are_there(runs):
    plain, repaired = (json.loads(next(runs[name].trials.glob("*/env.json")).read_text()) for name in ("plain", "tpe"))
    gpus, node = (os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "NODE_OPTIONS"))
    assert repaired == {"gpus": gpus, "node": node or "", "repaired": "1"}  # the trial need not wait after its result
    assert plain == {"gpus": gpus, "node": node, "repaired": None}


def test_the_tensorboard_button_opens_the_trials_own_folder(runs):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    run = runs["tpe"]
    trial = next(t["trialJobId"] for t in run.get("trial-jobs") if t["status"] == "SUCCEEDED")
    writer = EventFileWriter(str(run.trials / trial / "tensorboard"))
    writer.add_event(Event(step=1, summary=Summary(value=[Summary.Value(tag="crust", simple_value=0.5)])))
    writer.close()
    task = _post(run, "tensorboard", {"trials": trial})
    url = f"http://127.0.0.1:{task['port']}/data/plugin/scalars/tags"
    run.wait(lambda: "crust" in _reachable(url))
    assert not (run.folder / "trials").exists()  # where plain NNI looks, and makes an empty folder
    with pytest.raises(OSError):
        _text(url.replace("127.0.0.1", other_address()))
    with pytest.raises(urllib.error.HTTPError, match="400"):
        _post(run, "tensorboard", {"trials": "../../../x"})


def test_nnictl_and_its_resume_still_work(repaired_env, tmp_path):
    run = Run(tmp_path, {**repaired_env, "NNI_TEST_MODES": "good,long"}, {"maxTrialNumber": 2})
    assert run.id in run.call("experiment", "list").stdout
    run.wait(lambda: len(run.received()) == 2)
    long = next(trial["trialJobId"] for trial in run.get("trial-jobs") if trial["sequenceId"] == 1)
    assert run.call("trial", "kill", run.id, "--trial_id", long).returncode == 0
    run.wait(lambda: run.status == "DONE")
    assert run.ends()[1] == ("USER_CANCELED", "")
    assert run.call("update", "trialnum", run.id, "--value", "3").returncode == 0
    run.wait(lambda: 2 in run.ends() and run.status == "DONE")
    run.call("experiment", "export", run.id, "--type", "json", "--filename", str(tmp_path / "out.json"))
    assert len(json.loads((tmp_path / "out.json").read_text())) == 2
    assert "SUCCEEDED" in run.call("trial", "ls", run.id).stdout
    run.call("stop", run.id)
    assert run.call("view", run.id, "--port", str(run.port)).returncode == 0
    run.wait(lambda: run.status == "VIEWED")
    assert len(run.get("trial-jobs")) == 3
    run.call("stop", run.id)
    assert run.call("resume", run.id, "--port", str(run.port)).returncode == 0
    run.call("update", "trialnum", run.id, "--value", "5")
    run.wait(lambda: len(run.ends()) == 5 and run.status == "DONE")
    assert sorted(run.ends()) == [0, 1, 2, 3, 4]  # plain NNI numbers from 1 again
    ids = run.query("SELECT data FROM TrialJobEvent WHERE trialJobId != '' AND data != ''")
    assert len({json.loads(data)["parameter_id"] for (data,) in ids}) == 5
    assert run.recorded() == run.received()
    run.call("stop", run.id)


def _gpu_run(folder: Path, env: dict[str, str], gpus: int, **config) -> tuple[Run, Path]:
    """An experiment on a machine that seems to have one GPU, and the file in which each start of a collector is a line."""
    folder.mkdir(exist_ok=True)
    (folder / "pynvml.py").write_text(PYNVML)
    collectors = folder / "collectors.txt"
    collectors.touch()
    env = {**env, "PYTHONPATH": str(folder), "NNI_TEST_COLLECTORS": str(collectors)}
    service = {"platform": "local", "useActiveGpu": True}
    return Run(folder, env, {"trialGpuNumber": gpus, "trainingService": service, **config}), collectors


def test_one_gpu_of_one_runs_and_a_trial_that_waits_starts_no_storm(repaired_env, tmp_path):
    """Plain NNI is left out here: it would flood the machine. test_repairs.py asks its scheduler alone."""
    run, collectors = _gpu_run(tmp_path / "repaired", repaired_env, 1, trialConcurrency=2, maxTrialNumber=3)
    run.wait(lambda: run.status == "DONE")
    assert {state for state, _ in run.ends().values()} == {"SUCCEEDED"} and len(run.received()) == 3
    assert {json.loads(file.read_text())["gpus"] for file in run.trials.glob("*/env.json")} == {"0"}
    assert run.log("nnimanager").count("waits: no GPU is free") == 2  # trials 1 and 2, a line each
    assert len(collectors.read_text().splitlines()) < 12
    run.call("stop", run.id)


def test_more_gpus_than_there_are_wait_with_one_line(repaired_env, tmp_path):
    run, collectors = _gpu_run(tmp_path / "two", repaired_env, 2)
    run.wait(lambda: "waits:" in run.log("nnimanager"))
    before = len(collectors.read_text().splitlines())
    time.sleep(6)
    assert len(collectors.read_text().splitlines()) <= before + 1
    assert run.log("nnimanager").count("waits:") == 1 and run.status == "RUNNING"
    assert len(run.log("nnimanager").splitlines()) < 60
    assert run.call("stop", run.id).returncode == 0


def _text(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def _post(run: Run, path: str, body: dict) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{run.port}/api/v1/nni/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def _reachable(url: str) -> str:
    try:
        return _text(url)
    except OSError:
        return ""


LATE = """
import time
time.sleep(12)
from nni.algorithms.hpo.random_tuner import RandomTuner
class Late(RandomTuner):
    pass
"""


def test_a_tuner_that_starts_slowly_is_waited_for(plain_env, repaired_env, tmp_path):
    tuner = {"tuner": {"className": "late.Late", "codeDirectory": "."}, "maxTrialNumber": 1}
    runs = {}
    for name, env in (("plain", plain_env), ("repaired", repaired_env)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "late.py").write_text(LATE)
        runs[name] = Run(tmp_path / name, env, tuner, tuner_is_late=True)
    runs["repaired"].wait(lambda: runs["repaired"].status == "DONE")
    assert runs["plain"].status == "ERROR" and "did not connect in 10 seconds" in runs["plain"].log("nnimanager")
    for run in runs.values():
        run.call("stop", run.id)


# Required by Node.js before the preload: a manager of a busy machine, and one that dies.
SLOW = """if (/nni_node[\\\\/]main\\.js$/.test(process.argv[1] ?? ''))
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 8000);"""
DIES = "setTimeout(() => { throw new Error('no stove'); }, 500);"


def _prepared(folder: Path, env: dict[str, str], script: str) -> dict[str, str]:
    (folder / "trial.py").write_text(TRIAL)
    (folder / "experiment.yml").write_text(json.dumps({**DEFAULTS, "maxTrialNumber": 2}))
    (folder / "first.js").write_text(script)
    return {**env, "NODE_OPTIONS": f"--require {folder / 'first.js'} {env.get('NODE_OPTIONS', '')}"}


def _create(folder: Path, env: dict[str, str], port: int, *more: str) -> subprocess.Popen:
    words = [*NNICTL, "create", "--config", str(folder / "experiment.yml"), "--port", str(port), *more]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_manager_that_starts_slowly_is_waited_for_under_its_prefix_and_not_ended_by_watch(
    plain_env, nni_env, tmp_path
):
    """Plain nnictl gives it 3 s; and plain or not, an experiment under a prefix was called HUNG, and killed."""
    slow = _prepared(tmp_path, nni_env, SLOW)
    port = new_port()
    plain = _create(tmp_path, {**slow, SWITCH: "off"}, new_port())
    created = _create(tmp_path, slow, port, "--url_prefix", "/kitchen/")
    output, refused = (process.communicate(timeout=PATIENCE_S)[0] for process in (created, plain))
    assert plain.returncode == 1 and "Traceback" in refused and len(refused.splitlines()) > 30
    assert created.returncode == 0, output
    url = f"http://127.0.0.1:{port}/kitchen/"
    assert re.findall(r"http://[\d.]+:\S*", re.sub(r"\x1b\[\d+m", "", output)) == [url] and "<html" in _text(url)
    experiment_id = re.search(r"nnictl stop (\w+)", output)[1]
    watched = run_module("experiments", "watch", experiment_id, env=nni_env)
    assert watched.returncode == 0 and f"{experiment_id} DONE best" in watched.stdout, watched.stderr
    assert "left as it is, since launch did not start it" in watched.stderr and "<html" in _text(url)


def test_a_manager_that_does_not_start_is_one_line_at_once(nni_env, tmp_path):
    env, port = _prepared(tmp_path, nni_env, DIES), new_port()
    process = _create(tmp_path, env, port)
    lines = [line for line in process.communicate(timeout=PATIENCE_S)[0].splitlines() if "\x1b" not in line]
    assert process.returncode == 1 and len(lines) == 1
    assert lines[0].startswith("error: NNI's manager ended while it started (exit code 1): Error: no stove (logs: ")
    assert "nnictl create --config" in lines[0]


def _managers(port: int) -> list[psutil.Process]:
    words = {process: " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])}
    return [process for process, text in words.items() if "main.js" in text and f"--port {port} " in text]


def test_ctrl_c_while_a_manager_starts_leaves_none(nni_env, tmp_path):
    env, port = _prepared(tmp_path, nni_env, SLOW), new_port()
    process = _create(tmp_path, env, port)
    deadline = time.monotonic() + PATIENCE_S
    while not _managers(port) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _managers(port)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 130 and "has been ended" in output and "Traceback" not in output
    assert not _managers(port)
