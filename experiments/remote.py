"""Checks of an experiment whose trials run on other machines, made here before NNI connects to any of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

from experiments.findings import Finding

FILES_MAX, MIB_MAX = 2000, 300  # NNI's own limits of an upload, which it meets after it has prepared every machine
SECRETS = ("password", "sshPassphrase")
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


def remote_findings(config: dict[str, Any]) -> list[Finding]:
    """Of trainingService.machineList and of what is uploaded to its machines; [] for a local experiment."""
    service = config.get("trainingService") or {}
    if not isinstance(service, dict) or service.get("platform") != "remote":
        return []
    machines = service.get("machineList") or []
    findings = [finding for number, machine in enumerate(machines) for finding in _machine_findings(number, machine)]
    return [*findings, _upload(Path(config["trialCodeDirectory"]), len(machines))]


def _machine_findings(number: int, machine: dict[str, Any]) -> list[Finding]:
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
