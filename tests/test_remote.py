"""Remote machines without an experiment: logins and host keys with a real SSH server, placement, and what check says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from fixtures_remote import machines, needs_sshd

from experiments import logs
from experiments import remote as experiments_remote
from experiments.config import Experiment
from experiments.remote import file_findings, machine_findings, remote_findings, upload_counts
from experiments.repairs import PRELOAD

NNI_NODE = Path(importlib.util.find_spec("nni_node").submodule_search_locations[0])
# What comes before each script: the repaired files of NNI, as the manager of a remote experiment loads them.
REPAIRED = """
const path = require('path');
const [folder, preload, given] = JSON.parse(process.env.CASE);
const { repairedFiles, loadRepaired } = require(preload);
loadRepaired(repairedFiles(folder));
require(path.join(folder, 'node_modules/app-module-path')).addPath(folder);
process.mainModule = { require: require('module').createRequire(path.join(folder, 'main.js')) };
global.nni = {};
require(path.join(folder, 'common/globals')); // before common/log, which it needs
Object.assign(global.nni, { args: { experimentId: 'exp', urlPrefix: '', logLevel: 'critical' } });
const repair = name => require(path.join(path.dirname(preload), name));
"""


def node(script: str, given: object, **env: str):
    """What the script prints, as JSON."""
    case = json.dumps([str(NNI_NODE), str(PRELOAD), given])
    done = subprocess.run(
        [str(NNI_NODE / "node"), "-e", REPAIRED + script],
        env={**os.environ, "CASE": case, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and done.stdout, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


LOGIN = """
const { Ssh } = require('training_service/remote_v3/ssh');
const ssh = new Ssh('1', given);
ssh.connect().then(async () => (await ssh.run('echo $HOME')), error => error.message).then(text => {
    console.log(JSON.stringify(text));
    process.exit();
});
"""


@needs_sshd
def test_a_login_checks_the_host_key_and_takes_keys_only(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with machines(tmp_path / "machines", home, count=1) as (machine,):
        known_hosts = home / ".ssh/known_hosts"
        assert node(LOGIN, machine.entry()) == str(machine.home)
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", known_hosts], capture_output=True, check=True)
        assert machine.host not in known_hosts.read_text()  # hashed names
        assert node(LOGIN, machine.entry()) == str(machine.home)
        known_hosts.write_text("@revoked " + machine.known_hosts())
        assert "its host key is another one than in ~/.ssh/known_hosts" in node(LOGIN, machine.entry())
        known_hosts.write_text("")
        scan = f"ssh-keyscan -p {machine.port} {machine.host} >> ~/.ssh/known_hosts"
        assert scan in node(LOGIN, machine.entry())
        known_hosts.write_text(machine.known_hosts())
        machine.power_off()
        assert "connect ECONNREFUSED" in node(LOGIN, machine.entry())
        machine.new_host_key()
        machine.boot()
        assert f"ssh-keygen -R '[{machine.host}]:{machine.port}'" in node(LOGIN, machine.entry())
        known_hosts.write_text(machine.known_hosts())
        other = tmp_path / "other"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
        assert f"it refuses {other} for" in node(LOGIN, machine.entry(sshKeyFile=str(other)))
        locked = tmp_path / "locked"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked], check=True)
        assert f"ssh-add {locked}" in node(LOGIN, machine.entry(sshKeyFile=str(locked), sshPassphrase="secret"))


PACKAGES = """
const { Ssh } = require('training_service/remote_v3/ssh');
const [machine, python, command] = given;
const ssh = new Ssh('1', machine);
const worker = { ssh, python, config: machine, log: { info() {} } };
ssh.connect().then(() => repair('ssh.js').requirePackages(worker, command)).then(() => 'good', error => error.message).then(text => {
    console.log(JSON.stringify(text));
    process.exit();
});
"""


@needs_sshd
def test_a_machine_without_nni_or_torch_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    subprocess.run(["python3", "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = tmp_path / "bare/bin/python"
    with machines(tmp_path / "machines", tmp_path, count=1) as (machine,):
        entry = machine.entry()
        assert node(PACKAGES, [entry, f"{entry['pythonPath']}/python", "python -m trial"]) == "good"
        assert "has no NNI; install requirements.txt there" in node(PACKAGES, [entry, str(bare), "python x.py"])
        packages = next(tmp_path.glob("bare/lib/python*/site-packages"))
        (packages / "nni").mkdir()
        info = packages / "nni-2.10.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nni\nVersion: 2.10\n")
        assert "has NNI 2.10, expected 3.0" in node(PACKAGES, [entry, str(bare), "python x.py"])
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nni\nVersion: 3.0\n")
        assert node(PACKAGES, [entry, str(bare), "python x.py"]) == "good"
        assert "has no torch" in node(PACKAGES, [entry, str(bare), "python -m trial --epochs 1"])


# A manager with two machines, concurrency 4, whose trials are given; a machine starts a trial unless it is named in `full`.
PLACEMENT = """
const { gpus, trials, present, full = [], script } = given;
const results = repair('results.js'), machines = repair('machines.js'), trialEnd = repair('trial_end.js');
const started = [];
const manager = { experimentProfile: { params: { trialConcurrency: 4 } }, trialJobs: new Map(), waitingTrials: [] };
process.mainModule.require = name => (name === 'common/ioc_shim' ? { IocShim: { get: () => manager } } : require(name));
const logger = { info() {}, warning() {} };
const trialJobs = Object.fromEntries(trials.map(([id, status, envId]) => [id, { id, status, envId, form: { sequenceId: 0 } }]));
const compat = {
    trialJobs, environments: present.map(id => ({ id })),
    config: { trialGpuNumber: gpus, machineList: [{ host: 'a' }, { host: 'b' }] },
    v3: { isStopping: false, createTrial: async (envId, command, code, sequence, id) => {
        started.push([id, envId]);
        return full.includes(envId) ? null : id;
    } },
};
const place = form => machines.place(compat, form, async ids => { started.push(['new', ...ids]); return null; }, logger);
eval(script)().then(more => { console.log(JSON.stringify([started, trialJobs, more ?? null])); process.exit(); });
"""
BOTH = ["remote-worker1", "remote-worker2"]
A, B = BOTH


def placement(script: str, trials: list, present: list = BOTH, **more):
    given = {"trials": trials, "present": present, "script": script, **more}
    return node(PLACEMENT, given, FOOD11_TRIAL_WAITS_S="0.3")


def test_the_least_loaded_machine_comes_first_and_none_gets_more_than_its_share():
    running = [["x", "RUNNING", A], ["y", "SUCCEEDED", A], ["z", "FAILED", B]]
    assert placement("async () => { await place({}) }", running)[0] == [["new", B, A]]
    running = [["x", "RUNNING", A], ["y", "WAITING", A]]
    assert placement("async () => { await place({}) }", running)[0] == [["new", B]]
    assert placement("async () => { await place({}) }", running, gpus=1)[0] == [["new", B, A]]
    assert placement("async () => { await place({}) }", running, present=[A])[0] == [["new"]]


def test_a_resumed_trial_waits_for_its_machine_and_starts_elsewhere_after_a_while():
    script = """async () => {
        const form = { envId: 'remote-worker2' };
        await place(form);
        const first = form.waitsForHome;
        await new Promise(resolve => setTimeout(resolve, 400));
        await place(form);
        return [first, form.waitsForHome];
    }"""
    started, _, waits = placement(script, [], present=[A])
    assert started == [["new"], ["new", A]] and waits == [True, False]
    assert placement(script, [], present=BOTH)[0][0] == ["new", B]


def test_a_lost_trial_returns_home_and_elsewhere_after_a_while_before_new_ones():
    script = """async () => {
        const code = machines.settleLost(compat, 'x', logger);
        compat.environments = [{ id: 'remote-worker1' }];
        await place({});
        await new Promise(resolve => setTimeout(resolve, 400));
        await place({});
        return code;
    }"""
    started, trials, code = placement(script, [["x", "RUNNING", B], ["y", "RUNNING", A]])
    assert code is None and trials["x"] == {"id": "x", "status": "WAITING", "envId": A, "form": {"sequenceId": 0}}
    assert started == [["new", A], ["x", A], ["new"]]  # then its share is used up


def test_a_trial_whose_result_is_there_is_not_run_again():
    script = """async () => {
        trialEnd.judge('x', JSON.stringify({ type: 'FINAL', value: '0.5' }), console);
        return [machines.settleLost(compat, 'x', logger), machines.settleLost(compat, 'done', logger)];
    }"""
    started, _, codes = placement(script, [["x", "RUNNING", B], ["done", "SUCCEEDED", B]])
    assert codes == [0, None] and started == []


def test_the_third_loss_is_a_failure_and_a_cancelled_one_is_not_run_again():
    script = """async () => {
        for (const _ of [1, 2, 3]) {
            machines.settleLost(compat, 'x', logger);
            await place({});
            compat.trialJobs.x.status === 'WAITING' && (compat.trialJobs.x.status = 'RUNNING');
        }
        machines.settleLost(compat, 'y', logger);
        trialEnd.cancelled.add('y');
        await place({});
    }"""
    started, trials, _ = placement(script, [["x", "RUNNING", A], ["y", "RUNNING", B]])
    assert (trials["x"]["status"], trials["x"]["message"]) == ("FAILED", "its machine was lost 3 times (a, a, a)")
    assert (
        trials["y"]["status"] == "USER_CANCELED" and [entry for entry in started if entry[0] == "x"] == [["x", A]] * 2
    )


def test_secrets_and_reuse_are_refused_by_the_manager_too():
    script = """
    const reasons = given.map(([name, file, trainingService]) => {
        try { repair(file)[name]({ trainingService }); return null; } catch (error) { return error.message; }
    });
    console.log(JSON.stringify(reasons));
    """
    machine = {"host": "10.0.0.1"}
    cases = [
        ["refuseSecrets", "machines.js", {"machineList": [machine | {"password": "x"}]}],
        ["refuseSecrets", "machines.js", {"machineList": [machine | {"sshPassphrase": "x"}]}],
        ["refuseSecrets", "machines.js", {"machineList": [machine]}],
        ["refuseReuse", "network.js", {"platform": "remote", "reuseMode": True}],
        ["refuseReuse", "network.js", [{"platform": "local"}]],
        ["refuseReuse", "network.js", {"platform": "local"}],
    ]
    reasons = node(script, cases)
    words = ["password of 10.0.0.1", "sshPassphrase of 10.0.0.1", None, "reuseMode is broken", "a list (hybrid)", None]
    assert all((reason is None) if word is None else word in reason for word, reason in zip(words, reasons)), reasons


def remote(folder: Path, *machines: dict) -> dict:
    return {"trialCodeDirectory": str(folder), "trainingService": {"platform": "remote", "machineList": list(machines)}}


def test_check_counts_the_upload_as_nni_does_and_names_the_largest(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    code = tmp_path / "code"
    (code / "photos").mkdir(parents=True)
    (code / "trial.py").write_text("x" * 10)
    for number in range(2001):
        (code / "photos" / str(number)).touch()
    assert upload_counts(code) == {"trial.py": (1, 10), "photos": (2001, 0)}
    (finding,) = file_findings(remote(code))
    assert (finding.level, finding.key) == ("error", "remote.upload") and "photos (2001 files, 0.0 MiB)" in finding.text
    (code / ".nniignore").write_text("/photos/\n")
    (finding,) = file_findings(remote(code))
    assert finding.level == "note" and "2 files, 0.0 MiB" in finding.text
    with (code / "weights.pt").open("wb") as file:
        file.truncate(301 * 2**20)
    (finding,) = file_findings(remote(code))
    assert finding.level == "error" and "301.0 MiB" in finding.text and "The largest: weights.pt" in finding.text
    assert remote_findings(Experiment(code, {"trainingService": {"platform": "local"}}), 0) == []


def test_check_refuses_secrets_and_unknown_host_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBc4dqSwnqYBxdNLp0c8nTtQpBp7zIX5jF7p5T5b1p9S"
    (tmp_path / ".ssh/known_hosts").write_text(f"10.0.0.1 {key}\n[10.0.0.2]:2222 {key}\n")
    known = [{"host": "10.0.0.1", "port": 22}, {"host": "10.0.0.2", "port": 2222, "password": "x"}]
    findings = file_findings(remote(tmp_path, *known, {"host": "10.0.0.3", "port": 22}))
    assert [(f.key, f.path) for f in findings if f.level == "error"] == [
        ("remote.secret", ("machineList", 1, "password")),
        ("remote.host_key", ("machineList", 2)),
    ]
    assert findings[1].next.startswith("ssh-keyscan -p 22 10.0.0.3 >> ~/.ssh/known_hosts")


@needs_sshd
def test_check_asks_each_machine_and_names_it_with_the_next_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "manifest.json").write_text(json.dumps({"image_px": 96, "source_digest": "a"}))

    def findings(*entries: dict, command: str = f"python -m trial --cache {cache}", disk_mib: int = 1, **more) -> list:
        config = {**remote(tmp_path, *entries), "trialCommand": command, "trialConcurrency": 1, **more}
        return [(f.level, f.key, f.text, f.next) for f in machine_findings(Experiment(tmp_path, config), disk_mib)]

    with machines(tmp_path / "machines", tmp_path) as (good, bad):
        ((level, key, text, _), other) = findings(good.entry(), bad.entry())
        assert (level, key, other[:2]) == ("note", "remote.machine", ("note", "remote.machine"))
        assert text.startswith(f"{good.host}: Python 3.") and "NNI 3.0, torch" in text and ", 0 GPUs, " in text
        assert findings(good.entry(), command="python -m trial")[0][1] == "remote.cache_flag"
        assert findings(good.entry(), trialGpuNumber=1)[-1][:2] == ("error", "gpu.too_many_requested")
        assert findings(good.entry(), disk_mib=10**9)[0][1] == "remote.disk"
        assert findings(good.entry(pythonPath="/nowhere"))[0][:2] == ("error", "remote.python")
        missing = findings(good.entry(), command="python -m trial --cache /nowhere")[0]
        assert missing[:2] == ("error", "remote.cache") and "there is no cache at /nowhere" in missing[2]
        (bad.home / "cache").mkdir()
        (bad.home / "cache/manifest.json").write_text(json.dumps({"image_px": 96, "source_digest": "b"}))
        differs = findings(bad.entry(), command="python -m trial --cache ~/cache")[0]
        assert differs[:2] == ("error", "remote.cache") and "source_digest differ" in differs[2]
        now = time.time
        with monkeypatch.context() as patch:
            patch.setattr(experiments_remote.time, "time", lambda: now() - 100)
            assert re.search(r"its clock is \d+ s ahead", findings(good.entry())[0][2])
        other = tmp_path / "other"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
        refused = findings(good.entry(), bad.entry(sshKeyFile=str(other)))[1]
        assert refused[:2] == ("error", "remote.login") and refused[3].startswith(f"ssh-copy-id -p {bad.port}")
        bad.power_off()
        assert [f[:2] for f in findings(good.entry(), bad.entry())] == [
            ("note", "remote.machine"),
            ("warning", "remote.unreachable"),
        ]
        assert findings(bad.entry())[0][:2] == ("error", "remote.unreachable")
        bad.new_host_key()
        bad.boot()
        changed = findings(bad.entry())[0]
        assert changed[:2] == ("error", "remote.host_key") and f"ssh-keygen -R '[{bad.host}]:{bad.port}'" in changed[3]


@pytest.mark.parametrize(
    ("gpus", "requested", "concurrency", "expected"),
    [
        ((["A"], ["A"]), 1, 2, []),
        ((["A"], ["A"]), 0, 2, []),
        ((["A"], ["A"]), 0, 3, ["gpu.not_shared"]),
        ((["A", "A"], []), 0, 2, ["gpu.not_shared"]),
        (([], []), 0, 4, []),
        ((["A", "A"], ["A"]), 2, 1, []),
        ((["A"], ["A"]), 2, 1, ["gpu.too_many_requested"]),
        ((["A"], ["B"]), 1, 2, ["remote.gpu_kinds"]),
    ],
)
def test_gpus_are_counted_on_the_workers(gpus, requested, concurrency, expected, tmp_path, monkeypatch):
    answers = iter(gpus)
    machine = {"python": "3.11", "executable": "python", "nni": "3.0", "torch": None, "manifest": None}
    machine |= {"free_mib": 10, "memory_mib": 10, "clock_off_s": 0, "latency_s": 0}
    monkeypatch.setattr(experiments_remote, "ask", lambda entry, cache: machine | {"gpus": next(answers)})
    config = remote(tmp_path, {"host": "a"}, {"host": "b"})
    config |= {"trialCommand": "python x.py", "trialGpuNumber": requested, "trialConcurrency": concurrency}
    keys = [finding.key for finding in machine_findings(Experiment(tmp_path, config), 1)]
    assert keys == ["remote.machine"] * 2 + expected


def stamped(seconds_ago: float, *texts: str) -> list[str]:
    clock = time.strftime("[%Y-%m-%d %H:%M:%S]", time.localtime(time.time() - seconds_ago))
    return [f"{clock} {text}" for text in texts]


def test_an_experiment_whose_machine_is_away_is_waited_for_and_its_workers_gpus_count():
    joined = [f"INFO (RemoteV3.remote) 10.0.0.{number} has joined with {number} GPUs" for number in (1, 4)]
    lost = "WARNING (RemoteV3.remote) 10.0.0.4 is lost: its SSH connection has ended"
    assert not logs.waits_for_machines(stamped(10, *joined))
    assert logs.waits_for_machines(stamped(10, *joined, lost))
    assert not logs.waits_for_machines(stamped(10, *joined, lost, joined[1]))
    assert not logs.waits_for_machines(stamped(7200, *joined, lost))
    assert logs.workers_gpus(stamped(10, *joined)) == 4 and logs.workers_gpus([]) == 0
