"""Who reaches NNI: this machine, a page of another origin, another machine (a network namespace). And who gets the repairs."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PATIENCE_S, ROOT
from fixtures_nni import Run, other_address

from experiments.repairs import SWITCH, with_repairs

pytestmark = pytest.mark.nni

HOST, OTHER = "10.231.77.1", "10.231.77.2"
# Sends a request from an address and prints the status code of the answer, or why there is none.
PROBE = """
import socket, sys
source, host, port, path, *headers = sys.argv[1:]
verb, path = path.split() if " " in path else ("GET", path)
if not any(header.startswith("Host:") for header in headers):
    headers.append(f"Host: {host}:{port}")
try:
    with socket.create_connection((host, int(port)), timeout=5, source_address=(source, 0)) as channel:
        channel.sendall("\\r\\n".join([f"{verb} {path} HTTP/1.1", *headers, "", ""]).encode())
        answer = channel.recv(100)
    print(int(answer.split()[1]) if answer else "closed")
except OSError as error:
    print(type(error).__name__)
"""
UPGRADE = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
]


@pytest.fixture(scope="module")
def other_machine():
    """A function that runs a command in a network namespace with the address OTHER; None where not allowed."""
    name = f"food11-{os.getpid()}"
    link = f"f{os.getpid()}"
    inside = ["ip", "netns", "exec", name]
    commands = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", f"{link}a", "type", "veth", "peer", "name", f"{link}b", "netns", name],
        ["ip", "address", "add", f"{HOST}/24", "dev", f"{link}a"],
        ["ip", "link", "set", f"{link}a", "up"],
        [*inside, "ip", "address", "add", f"{OTHER}/24", "dev", f"{link}b"],
        [*inside, "ip", "link", "set", f"{link}b", "up"],
    ]
    try:
        _remove_leftovers()
        allowed = shutil.which("ip") and all(
            subprocess.run(command, capture_output=True, check=False).returncode == 0 for command in commands
        )
        yield (lambda *words: [*inside, *words]) if allowed else None
    finally:
        if shutil.which("ip"):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _remove_leftovers() -> None:
    """Namespaces of killed runs: the address of their end would be taken for this run's."""
    names = (
        subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
        if shutil.which("ip")
        else ""
    )
    for name in re.findall(r"^food11-\d+", names, re.M):
        if not Path("/proc", name.removeprefix("food11-")).exists():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def probe(port: int, path: str, *headers: str, source: str = "127.0.0.1", host: str = "127.0.0.1", within=None) -> str:
    words = [sys.executable, "-c", PROBE, source, host, str(port), path, *headers]
    done = subprocess.run(
        within(*words) if within else words, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return done.stdout.strip() or done.stderr


def browser_tricks(run: Run) -> dict[str, str]:
    """What a page of another origin, and a file name with ../, get; the first trial must have ended."""
    trial = next(run.trials.iterdir())
    (trial / "out").symlink_to("/etc")
    base = "/api/v1/nni"
    up = "..%2F" * 4
    return {
        "rebinding": probe(run.port, f"{base}/version", "Host: evil.example", host="localhost"),
        "other origin": probe(run.port, f"{base}/version", "Origin: http://evil.example"),
        "post": probe(
            run.port,
            f"POST {base}/experiment/import-data",
            "Origin: http://evil.example",
            "Content-Type: text/plain",
            "Content-Length: 0",
        ),
        "websocket": probe(run.port, "/tuner", "Origin: http://evil.example", *UPGRADE),
        "image tag": probe(run.port, "/env/local-env/x", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"),
        "parent": probe(run.port, f"{base}/trial-file/{trial.name}/{up}db%2Fnni.sqlite"),
        "link": probe(run.port, f"{base}/trial-file/{trial.name}/out%2Fhostname"),
        "id": probe(run.port, f"{base}/trial-file/..%2F..%2F..%2Fdb/nni.sqlite"),
    }


def test_plain_nni_is_open_and_the_repaired_one_is_not(nni_env, other_machine, tmp_path):
    plain = Run(tmp_path / "plain", {**nni_env, SWITCH: "off"}, {"maxTrialNumber": 1})
    repaired = Run(tmp_path / "repaired", with_repairs(nni_env), {"maxTrialNumber": 1})
    for run in (plain, repaired):
        run.wait(lambda run=run: run.status == "DONE")
    own = other_address()  # where no namespace may be made: this machine by its outer address
    from_afar = (
        {"source": OTHER, "host": HOST, "within": other_machine} if other_machine else {"source": own, "host": own}
    )
    assert probe(plain.port, "/api/v1/nni/version", **from_afar) == "200"
    assert probe(repaired.port, "/api/v1/nni/version", **from_afar) == "ConnectionRefusedError"
    open_to_tricks = browser_tricks(plain)
    assert open_to_tricks.pop("websocket") == "101"
    assert open_to_tricks.pop("image tag") == "408"  # it would have taken a trial's parameters
    assert set(open_to_tricks.values()) == {"200"}
    closed = browser_tricks(repaired)
    assert {closed[name] for name in ("rebinding", "other origin", "post", "websocket", "image tag")} == {"403"}
    assert {closed[name] for name in ("parent", "link", "id")} == {"500"}
    page = [f"Origin: http://127.0.0.1:{repaired.port}", "Sec-Fetch-Site: same-origin"]
    trial = next(repaired.trials.iterdir()).name
    assert probe(repaired.port, f"/api/v1/nni/trial-file/{trial}/parameters.json", *page) == "200"
    assert probe(repaired.port, "/oview", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate") == "200"
    for run in (plain, repaired):
        run.call("stop", run.id)


def test_a_bare_nnictl_is_repaired_in_the_prepared_environment(nni_env, tmp_path):
    """A fresh environment, and this project in a folder with spaces: `python -m experiments.repairs` is all it takes."""
    environment, project = tmp_path / "environment", tmp_path / "my food project"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    shutil.copytree(ROOT / "experiments", project / "experiments")
    python = str(environment / "bin/python")
    packages = Path(next(environment.glob("lib/python*/site-packages")))
    (packages / "packages.pth").write_text(str(Path(pytest.__file__).parent.parent) + "\n")
    subprocess.run([python, "-m", "experiments.repairs"], cwd=project, check=True, capture_output=True)
    nnictl = (python, shutil.which("nnictl", path=nni_env["PATH"]))
    run = Run(tmp_path / "run", nni_env, {"maxTrialNumber": 1}, nnictl)
    assert run.log("nnimanager").count("(Repairs)") == 6
    assert str(project / "experiments/repairs/dispatcher.py") in _process_list()
    run.wait(lambda: run.status == "DONE")
    run.call("stop", run.id)
    show = [python, "-c", "import os; print(os.environ.get('NODE_OPTIONS'))"]
    assert subprocess.run(show, env=nni_env, capture_output=True, text=True, check=True).stdout == "None\n"
    project.rename(tmp_path / "moved")
    moved = subprocess.run([*nnictl, "--version"], env=nni_env, capture_output=True, text=True, check=False)
    assert moved.returncode == 0 and "Traceback" not in moved.stderr


def _process_list() -> str:
    time.sleep(1)
    words = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(words)


def test_the_probe_itself_sees_an_open_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert probe(port, "/") == "ConnectionRefusedError"
