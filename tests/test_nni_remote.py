"""Searches over machines that are reached through SSH: two servers on loopback, real NNI."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import time
from pathlib import Path

import psutil
import pytest
from fixtures_nni import PYNVML
from fixtures_remote import RemoteRun, eventually, machines, needs_sshd

from experiments.repairs import with_repairs

pytestmark = [pytest.mark.nni, needs_sshd]


@pytest.fixture
def env(nni_env) -> dict[str, str]:
    return with_repairs(nni_env)


@pytest.fixture
def ours(tmp_path, env):
    with machines(tmp_path / "machines", Path(env["HOME"])) as two:
        yield two


def answer(port: int, path: str, *headers: str) -> int:
    """The status code of a request to a port of loopback."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as channel:
        channel.sendall("\r\n".join([f"GET {path} HTTP/1.1", f"Host: localhost:{port}", *headers, "", ""]).encode())
        return int(channel.recv(100).split()[1])


def upgrade() -> list[str]:
    key = base64.b64encode(os.urandom(16)).decode()
    return ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]


def listeners(process: psutil.Process) -> set[str]:
    return {one.laddr.ip for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}


def test_each_record_of_two_machines_is_right_and_nobody_else_gets_in(env, ours, tmp_path):
    run = RemoteRun(tmp_path / "run", env, ours)
    eventually(lambda: run.log("nnimanager").count("has joined with 0 GPUs") == 2)
    keeper = ours[0].keepers()[0]
    config = json.loads(next(ours[0].home.glob("nni-experiments/*/*/*/*/launcher_config.json")).read_text())
    tunnel = int(config["managerCommandChannel"].split("/")[2].split(":")[1])
    channel = "/" + config["managerCommandChannel"].split("/", 3)[3]
    assert listeners(keeper) == {"127.0.0.1"}
    assert listeners(run.manager()) == {"127.0.0.1"}
    refused = [
        "/api/v1/nni/version",
        "/oview",
        "/tuner",
        "/platform/remote",
        "/platform/remote/1",
        channel[:-1],
        channel + "0",
    ]
    assert {path: answer(tunnel, path, *upgrade()) for path in refused} == dict.fromkeys(refused, 403)
    assert answer(tunnel, channel) == 403  # no websocket
    assert answer(run.port, channel, *upgrade()) == 403  # not through SSH
    assert stat.S_IMODE((run.folder / "db/nni.sqlite").stat().st_mode) == 0o600
    assert stat.S_IMODE(next(ours[0].home.glob("nni-experiments/*")).stat().st_mode) == 0o700
    assert channel.split("/")[-1] not in json.dumps(run.get("experiment"))
    trial = next(iter(run.recorded()))
    run.finish()
    run.assert_whole(8)
    assert (run.trial_folders()[trial] / "tensorboard/events").read_text() == "events"
    homes = [entry["home"] for entry in run.files("env.json").values()]
    assert sorted(homes.count(str(machine.home)) for machine in ours) == [4, 4]
    assert {entry["node"] for entry in run.files("env.json").values()} == {""}
    eventually(lambda: not ours[0].keepers() and not ours[1].keepers(), 30)


def test_machines_that_are_down_join_and_lost_ones_come_back_with_their_trials(env, ours, tmp_path):
    """One is down at the start; later its connection is reset, and the other one loses its power."""
    first, second = ours
    second.power_off()
    evolution = {"name": "Evolution", "classArgs": {"optimize_mode": "maximize", "population_size": 5}}
    run = RemoteRun(tmp_path / "run", env, ours, tuner=evolution, maxTrialNumber=6)
    run.await_log("on worker 1", 2)
    assert f"{second.host} cannot be used: connect ECONNREFUSED" in run.log("nnimanager")
    second.boot()
    run.await_log("on worker 2", 2)
    before = held_epochs(first, 2) | held_epochs(second, 2)
    second.drop_connections()
    first.power_off()
    run.await_log(f"{first.host} is lost")
    run.await_log(f"{second.host} is lost")
    first.boot()
    run.await_log("runs again on", 4)
    run.finish()
    run.assert_whole(6)
    epochs = run.files("epochs.json")
    # The four continued after their last epoch, none of which was trained again.
    assert before == dict.fromkeys(before, 2) and len(before) == 4
    assert {trial: epochs[trial] for trial in before} == dict.fromkeys(before, [[1, 1], [1, 2], [2, 3]])


def held_epochs(machine, trials: int) -> dict[str, int]:
    """Trial id -> epochs that it has written down on its machine, once as many trials wait there for their last one."""

    def epochs() -> dict[str, int]:
        files = machine.home.glob("nni-experiments/*/environments/*/trials/*/epochs.json")
        return {file.parent.name: len(json.loads(file.read_text())) for file in files}

    eventually(lambda: sorted(epochs().values())[-trials:] == [2] * trials)
    return epochs()


def test_a_killed_manager_is_resumed_at_once_on_the_same_port(env, ours, tmp_path):
    run = RemoteRun(tmp_path / "run", env, ours, maxTrialNumber=5)
    before = held_epochs(ours[0], 2) | held_epochs(ours[1], 2)
    earlier = {keeper.pid for machine in ours for keeper in machine.keepers()}
    run.manager().kill()
    done = run.call("resume", run.id, "--port", str(run.port))
    assert done.returncode == 0, done.stdout + done.stderr
    run.await_log("on worker", 8)
    assert not earlier & {keeper.pid for machine in ours for keeper in machine.keepers()}
    run.finish()
    run.assert_whole(5)
    epochs = run.files("epochs.json")
    assert {trial: epochs[trial] for trial in before} == dict.fromkeys(before, [[1, 1], [1, 2], [2, 3]])


def test_a_silent_machine_is_noticed_a_short_silence_loses_nothing_and_a_killed_keeper_is_replaced(env, ours, tmp_path):
    first, second = ours
    run = RemoteRun(tmp_path / "run", env, ours, maxTrialNumber=4)
    before = held_epochs(first, 2) | held_epochs(second, 2)
    first.freeze()
    time.sleep(12)
    first.thaw()
    second.freeze()
    since = time.monotonic()
    run.await_log(f"{second.host} is lost: it has answered nothing for 25 s")
    assert time.monotonic() - since < 40  # seconds; 25 to 30 where the manager gets its share of a busy machine
    assert f"{first.host} is lost" not in run.log("nnimanager")
    second.thaw()
    (keeper,) = first.keepers()
    trials = keeper.children(recursive=True)
    keeper.kill()  # its trials stay, and have nobody to report to
    run.await_log("runs again on remote-worker1", 2)
    assert trials and not any(process.is_running() for process in trials)
    run.await_log("runs again on remote-worker2", 2)
    run.finish()
    run.assert_whole(4)
    epochs = run.files("epochs.json")
    assert {trial: epochs[trial] for trial in before} == dict.fromkeys(before, [[1, 1], [1, 2], [2, 3]])


def test_the_only_gpu_of_each_machine_is_used(env, tmp_path):
    """NVML is simulated. Plain NNI never schedules the last GPU of a machine."""
    (tmp_path / "pynvml.py").write_text(PYNVML)
    with machines(tmp_path / "machines", Path(env["HOME"]), PYTHONPATH=str(tmp_path)) as ours:
        entries = [machine.entry(useActiveGpu=True) for machine in ours]
        service = {"platform": "remote", "trialGpuNumber": 1, "machineList": entries}
        run = RemoteRun(tmp_path / "run", env, ours, maxTrialNumber=4, trialConcurrency=3, trainingService=service)
        run.await_log("has joined with 1 GPUs", 2)
        run.await_log("Trial 2 waits: no GPU is free")
        run.finish()
        run.assert_whole(4)
    assert {entry["gpus"] for entry in run.files("env.json").values()} == {"0"}
