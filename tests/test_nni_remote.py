"""Searches over machines that are reached through SSH: two servers on loopback, real NNI."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
from pathlib import Path

import psutil
import pytest
from fixtures_nni import EVOLUTION
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
    run.wait(lambda: run.status == "DONE")
    run.call("stop", run.id)
    run.assert_whole(8)
    homes = [entry["home"] for entry in run.files("env.json").values()]
    assert sorted(homes.count(str(machine.home)) for machine in ours) == [4, 4]
    assert {entry["node"] for entry in run.files("env.json").values()} == {""}
    eventually(lambda: not ours[0].keepers() and not ours[1].keepers(), 30)


def test_machines_that_are_down_join_and_lost_ones_come_back_with_their_trials(env, ours, tmp_path):
    """One is down at the start; then a connection is reset; then the other one loses its power while trials run."""
    first, second = ours
    second.power_off()
    run = RemoteRun(
        tmp_path / "run", env, ours, epochs=12, epoch_s=1, tuner=EVOLUTION | {"classArgs": {"population_size": 5}}
    )

    def logged(text: str, times: int = 1) -> None:
        eventually(lambda: run.log("nnimanager").count(text) >= times)

    logged(f"{first.host} has joined")
    assert f"{second.host} cannot be used: connect ECONNREFUSED" in run.log("nnimanager")
    second.boot()
    logged(f"{second.host} has joined")
    logged("on worker 2", 2)
    second.drop_connections()
    logged("runs again on remote-worker2", 2)
    started = run.log("nnimanager").count("on worker 1")
    logged("on worker 1", started + 1)
    first.power_off()
    logged(f"{first.host} is lost")
    first.boot()
    logged("runs again on remote-worker1")
    run.wait(lambda: run.status == "DONE")
    run.call("stop", run.id)
    run.assert_whole(8)
    attempts = [len({attempt for attempt, _ in epochs}) for epochs in run.files("epochs.json").values()]
    assert max(attempts) >= 2  # continued after its last epoch: no epoch twice
    assert all([epoch for _, epoch in epochs] == list(range(1, 13)) for epochs in run.files("epochs.json").values())


def test_a_killed_manager_is_resumed_at_once_on_the_same_port(env, ours, tmp_path):
    run = RemoteRun(tmp_path / "run", env, ours, epochs=5, epoch_s=1, maxTrialNumber=6)
    eventually(lambda: run.log("nnimanager").count("Trial parameter") == 4)
    earlier = {keeper.pid for machine in ours for keeper in machine.keepers()}
    run.manager().kill()
    done = run.call("resume", run.id, "--port", str(run.port))
    assert done.returncode == 0, done.stdout + done.stderr
    run.wait(lambda: run.status == "DONE")
    assert not earlier & {keeper.pid for machine in ours for keeper in machine.keepers()}
    run.call("stop", run.id)
    run.assert_whole(6)
