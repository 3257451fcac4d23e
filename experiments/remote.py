"""Checks of an experiment whose trials run on other machines, before NNI connects to them: its file, its upload, and each
machine itself, asked over SSH all at once. What NNI's manager does with machines: experiments/repairs/manager_js."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from experiments.config import OUR_TRIAL, Experiment, parse_flags, requested_gpus
from experiments.findings import Finding, has_error

FILES_MAX, MIB_MAX = 2000, 300  # NNI's own limits of an upload, which it meets after it has prepared every machine
SECRETS = ("password", "sshPassphrase")
LOGIN_S, ASK_S = 10, 60  # for the connection; for the whole answer
CLOCK_S = 60  # that a machine's clock may differ
SAME_CACHE = (
    "format",
    "image_px",
    "train_split",
    "skew",
    "classes",
    "counts",
)  # keys of its manifest, beside the photos' digest
INSTALL = "install requirements.txt there, and name the bin folder of that environment as pythonPath"
# NNI's walk over the folder with its own package for .nniignore. Prints {entry of the folder: [files, bytes]}.
_COUNT = """
const fs = require('fs'), path = require('path');
const [packages, root] = process.argv.slice(1);
const file = path.join(root, '.nniignore');
const ignored = require(path.join(packages, 'ignore'))();
if (fs.existsSync(file)) ignored.add(fs.readFileSync(file, 'utf8'));
const counts = {};
function walk(folder) {
    for (const entry of fs.readdirSync(path.join(root, folder))) {
        const name = path.join(folder, entry), stats = fs.lstatSync(path.join(root, name));
        if (ignored.ignores(name + (stats.isDirectory() ? path.sep : ''))) continue;
        if (stats.isDirectory()) { walk(name); continue; }
        const count = counts[name.split(path.sep)[0]] ??= [0, 0];
        count[0] += 1;
        count[1] += stats.size;
    }
}
walk('');
console.log(JSON.stringify(counts));
"""


# Run by each machine's own Python, without a file there.
_ASK = """
import importlib.metadata as metadata, json, os, shutil, subprocess, sys, time
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
def gpus():
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(command, stdout=subprocess.PIPE, timeout=20, check=True).stdout.decode().split(chr(10))[:-1]
    except (OSError, subprocess.SubprocessError):
        return []
manifest = None
if sys.argv[1]:
    try:
        with open(os.path.join(os.path.expanduser(sys.argv[1]), "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
    except (OSError, ValueError):
        pass
memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
print(json.dumps({"python": ".".join(sys.version.split()[0].split(".")[:2]), "executable": sys.executable, "nni": version("nni"),
    "torch": version("torch"), "manifest": manifest, "gpus": gpus(), "free_mib": shutil.disk_usage(os.path.expanduser("~")).free // 2**20,
    "memory_mib": memory, "clock": time.time()}))
"""


def remote_findings(experiment: Experiment, disk_mib: int) -> list[Finding]:
    """Of the file, its upload and each machine; [] for a local experiment. disk_mib: what all its trials write, MiB."""
    config = experiment.config
    service = config.get("trainingService") or {}
    if not isinstance(service, dict) or service.get("platform") != "remote":
        return []
    findings = file_findings(config)
    return findings if has_error(findings) else findings + machine_findings(experiment, disk_mib)


def file_findings(config: dict[str, Any]) -> list[Finding]:
    """Of trainingService.machineList and of what is uploaded to its machines, without asking them."""
    machines = config["trainingService"].get("machineList") or []
    findings = [finding for number, machine in enumerate(machines) for finding in _entry_findings(number, machine)]
    return [*findings, _upload(Path(config["trialCodeDirectory"]), len(machines))]


def _entry_findings(number: int, machine: dict[str, Any]) -> list[Finding]:
    host, port = machine["host"], machine.get("port", 22)
    findings = []
    for key in SECRETS:
        if machine.get(key) is not None:
            text = (
                f"machineList: {key} of {host}: NNI stores it readable and shows it on its page; remove the key, use "
                "sshKeyFile, and for a key with a passphrase ssh-add"
            )
            findings.append(Finding("error", "remote.secret", text, path=("machineList", number, key)))
    name = host if port == 22 else f"[{host}]:{port}"
    known = [Path.home() / ".ssh" / "known_hosts", Path("/etc/ssh/ssh_known_hosts")]
    commands = [["ssh-keygen", "-F", name, "-f", str(file)] for file in known if file.exists()]
    if not any(subprocess.run(command, capture_output=True, check=False).returncode == 0 for command in commands):
        text = f"machineList: the host key of {host} is not in ~/.ssh/known_hosts, and no trial would be sent there"
        scan = f"ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts, and compare it with the machine's own"
        findings.append(Finding("error", "remote.host_key", text, scan, path=("machineList", number)))
    return findings


def _upload(folder: Path, machines: int) -> Finding:
    counts = upload_counts(folder)
    files, mib = sum(count for count, _ in counts.values()), sum(size for _, size in counts.values()) / 2**20
    size = f"{files} files, {mib:.1f} MiB"
    if files <= FILES_MAX and mib <= MIB_MAX:
        text = f"upload: {size} of {folder} to each of {machines} machines"
        return Finding("note", "remote.upload", text, path=("trialCodeDirectory",))
    largest = sorted(counts, key=lambda name: counts[name][files <= FILES_MAX], reverse=True)[:3]
    parts = ", ".join(f"{name} ({counts[name][0]} files, {counts[name][1] / 2**20:.1f} MiB)" for name in largest)
    text = f"trialCodeDirectory: {size} in {folder}; NNI uploads at most {FILES_MAX} files and {MIB_MAX} MiB. The largest: {parts}"
    step = f"name what trials do not need in {folder / '.nniignore'} (written as a .gitignore)"
    return Finding("error", "remote.upload", text, step, path=("trialCodeDirectory",))


def upload_counts(folder: Path) -> dict[str, tuple[int, int]]:
    """Entry of the folder -> (files, bytes) that NNI would upload of it."""
    node = Path(importlib.util.find_spec("nni_node").submodule_search_locations[0])
    command = [str(node / "node"), "-e", _COUNT, str(node / "node_modules"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return {name: (files, size) for name, (files, size) in json.loads(done.stdout).items()}


# -- the machines themselves -------------------------------------------------------------------------------------------------


def machine_findings(experiment: Experiment, disk_mib: int) -> list[Finding]:
    """What each machine answers. One that cannot be reached is an error only where all cannot: the others start without."""
    machines = experiment.config["trainingService"]["machineList"]
    cache = _cache_of(experiment)
    if experiment.is_ours and not (cache or "").startswith(("/", "~")):
        text = "trialCommand: on other machines there is no data/cache; name the cache's folder there, the same on all"
        return [Finding("error", "remote.cache_flag", f"{text}: --cache /FOLDER", path=("trialCommand",))]
    with ThreadPoolExecutor(max_workers=32) as pool:
        answers = list(pool.map(lambda machine: ask(machine, cache or ""), machines))
    reached = [answer for answer in answers if isinstance(answer, dict)]
    findings = []
    for number, (machine, answer) in enumerate(zip(machines, answers)):
        if isinstance(answer, Finding):
            level = "warning" if reached and answer.key == "remote.unreachable" else "error"
            of_machine = [Finding(level, answer.key, answer.text, answer.next)]
        else:
            of_machine = _answer_findings(experiment, machine["host"], answer, disk_mib // len(machines))
        findings += [Finding(f.level, f.key, f.text, f.next, ("machineList", number)) for f in of_machine]
    return findings + _gpu_findings(experiment, reached)


def _cache_of(experiment: Experiment) -> str | None:
    return parse_flags(experiment.trial_words[len(OUR_TRIAL) :], "trial").get("cache") if experiment.is_ours else None


def ask(machine: dict[str, Any], cache: str) -> dict[str, Any] | Finding:
    """A machine's answer to _ASK, with `clock_off_s`, its clock's lead over this one; an error where there is none."""
    folder = machine.get("pythonPath")
    names = [f"{folder}/python", f"{folder}/python3"] if folder else ["python", "python3"]
    python = " || ".join(f"command -v {shlex.quote(name)}" for name in names)
    missing = f"{{ echo no Python: {names[0]} >&2; exit 127; }}"
    script = f'P=$({python}) || {missing}; exec "$P" - {shlex.quote(cache)}'
    login = login_command(machine)
    before = time.time()
    try:
        done = subprocess.run(
            [*login, f"sh -c {shlex.quote(script)}"],
            input=_ASK,
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _unreachable(machine, f"no answer within {ASK_S} s")
    if done.returncode == 0:
        answer = json.loads(done.stdout.strip().split("\n")[-1])
        now = time.time()
        return {**answer, "clock_off_s": answer["clock"] - (before + now) / 2, "latency_s": now - before}
    return _refusal(machine, done)


def login_command(machine: dict[str, Any]) -> list[str]:
    """ssh as NNI logs in: this key or its agent, known host keys only, no question, no configuration of the user's."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": LOGIN_S,
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": Path.home() / ".ssh" / "known_hosts",
        "IdentitiesOnly": "yes",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    key = ["-i", machine["sshKeyFile"]] if machine.get("sshKeyFile") else []
    return [
        "ssh",
        "-F",
        "/dev/null",
        *words,
        *key,
        "-p",
        str(machine.get("port", 22)),
        f"{machine['user']}@{machine['host']}",
    ]


def _refusal(machine: dict[str, Any], done: subprocess.CompletedProcess) -> Finding:
    host, port = machine["host"], machine.get("port", 22)
    reason = (done.stderr.strip().split("\n") or [""])[-1]
    name = host if port == 22 else f"[{host}]:{port}"
    if "HOST IDENTIFICATION HAS CHANGED" in done.stderr:
        text = f"{host}: its host key is another one than in ~/.ssh/known_hosts: another machine, or one installed anew"
        step = f"where that is meant: ssh-keygen -R '{name}' && ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts"
        return Finding("error", "remote.host_key", text, step)
    if "Permission denied" in done.stderr:
        text = f"{host}: refuses the key {machine.get('sshKeyFile')} for {machine['user']} ({reason})"
        return Finding(
            "error",
            "remote.login",
            text,
            f"ssh-copy-id -p {port} -i {machine.get('sshKeyFile')} {machine['user']}@{host}",
        )
    if done.returncode == 255:
        return _unreachable(machine, reason)
    return Finding("error", "remote.python", f"{host}: its Python does not run ({reason}); {INSTALL}")


def _unreachable(machine: dict[str, Any], reason: str) -> Finding:
    text = f"{machine['host']}: cannot be reached: {reason}"
    return Finding(
        "error", "remote.unreachable", text, shlex.join(login_command(machine)[:1] + login_command(machine)[-3:])
    )


def _answer_findings(experiment: Experiment, host: str, answer: dict[str, Any], disk_mib: int) -> list[Finding]:
    findings = _package_findings(experiment, host, answer)
    if experiment.is_ours:
        findings += _cache_findings(experiment, host, answer["manifest"])
    if answer["free_mib"] < disk_mib:
        text = f"{host}: {answer['free_mib']} MiB free in its home, about {disk_mib} needed for its trials' weights"
        findings.append(
            Finding("error", "remote.disk", text, "free space there (earlier trials are in ~/nni-experiments)")
        )
    off_s = answer["clock_off_s"]
    if abs(off_s) > CLOCK_S + answer["latency_s"]:
        text = f"{host}: its clock is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} this machine's"
        findings.append(Finding("warning", "remote.clock", text, "timedatectl set-ntp true"))
    if not has_error(findings):
        torch = f", torch {answer['torch']}" if answer["torch"] else ""
        gpus = (
            f"{len(answer['gpus'])} GPUs{' (' + ', '.join(sorted(set(answer['gpus']))) + ')' if answer['gpus'] else ''}"
        )
        size = f"{answer['free_mib'] / 1024:.0f} GiB of disk, {answer['memory_mib'] / 1024:.0f} GiB of memory free"
        text = f"{host}: Python {answer['python']}, NNI {answer['nni']}{torch}, {gpus}, {size}"
        findings.append(Finding("note", "remote.machine", text))
    return findings


def _package_findings(experiment: Experiment, host: str, answer: dict[str, Any]) -> list[Finding]:
    where = f"{host}: {answer['executable']} (Python {answer['python']})"
    if not (answer["nni"] or "").startswith("3.0"):
        there = f"NNI {answer['nni']}, expected 3.0" if answer["nni"] else "no NNI"
        return [Finding("error", "remote.packages", f"{where} has {there}; {INSTALL}")]
    if not experiment.is_ours:
        return []
    if not answer["torch"]:
        return [Finding("error", "remote.packages", f"{where} has no torch; {INSTALL}")]
    here = {"Python": ".".join(platform.python_version_tuple()[:2]), "torch": importlib.metadata.version("torch")}
    there = {"Python": answer["python"], "torch": answer["torch"]}
    other = [name for name in here if here[name].partition("+")[0] != there[name].partition("+")[0]]
    text = ", ".join(f"{name} {there[name]} (here {here[name]})" for name in other)
    step = f"results of machines with different versions may differ; {INSTALL}"
    return [Finding("warning", "remote.versions", f"{host}: {text}", step)] if other else []


def _cache_findings(experiment: Experiment, host: str, manifest: dict[str, Any] | None) -> list[Finding]:
    cache = _cache_of(experiment) or ""
    copy = f"rsync -a {cache.rstrip('/')}/ to that machine (docs/guide/machines.md)"
    if manifest is None:
        return [Finding("error", "remote.cache", f"{host}: there is no cache at {cache}", copy)]
    try:
        here = json.loads((Path(cache).expanduser() / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []  # that it is not here, or not whole, is the trial's own finding
    by_content = (
        "photos_digest" in here and "photos_digest" in manifest
    )  # of caches of earlier versions names and times decide
    digest = "photos_digest" if by_content else "source_digest"
    other = [key for key in (*SAME_CACHE, digest) if here.get(key) != manifest.get(key)]
    text = f"{host}: the cache at {cache} is another one than here: {', '.join(other)} differ"
    return [Finding("error", "remote.cache", text, copy)] if other else []


def _gpu_findings(experiment: Experiment, answers: list[dict[str, Any]]) -> list[Finding]:
    requested = requested_gpus(experiment.config)
    most = max((len(answer["gpus"]) for answer in answers), default=0)
    if answers and requested > most:
        text = f"trialGpuNumber: {requested}, but no machine has more than {most} GPUs; remove the key"
        return [Finding("error", "gpu.too_many_requested", text, path=("trialGpuNumber",))]
    concurrency, machines = (
        experiment.config["trialConcurrency"],
        len(experiment.config["trainingService"]["machineList"]),
    )
    if not requested and (most > 1 or (most and concurrency > machines)):
        text = (
            f"trialConcurrency: {concurrency} on {machines} machines with up to {most} GPUs, and no trialGpuNumber: a machine's "
            "trials all compute on its first GPU; write trialGpuNumber: 1"
        )
        return [Finding("warning", "gpu.not_shared", text, path=("trialConcurrency",))]
    kinds = sorted({name for answer in answers for name in answer["gpus"]})
    if len(kinds) > 1:
        text = f"machineList: GPUs of {len(kinds)} kinds ({', '.join(kinds)}): trials' durations are not comparable"
        return [Finding("warning", "remote.gpu_kinds", text, path=("machineList",))]
    return []
