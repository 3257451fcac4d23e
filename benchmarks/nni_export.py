"""Times `nnictl experiment export`, which needs NNI's manager: it is started to view the experiment, and stopped again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from .experiment import START


def nni_export(home: Path, experiment: Path, port: int, repeats: int) -> list[float] | str:
    """Seconds of each run, or why there are none. `experiment` lies in `home`/nni-experiments."""
    (experiment / "log").mkdir(exist_ok=True)
    entry = {"id": experiment.name, "port": port, "startTime": START, "endTime": START + 1, "status": "STOPPED"}
    entry |= {"platform": "local", "experimentName": experiment.name, "tag": [], "pid": 0, "webuiUrl": []}
    entry |= {"logDir": str(experiment.parent), "prefixUrl": None}
    (experiment.parent / ".experiment").write_text(json.dumps({experiment.name: entry}), encoding="utf-8")
    out, words = home / "nni.csv", ["experiment", "export", experiment.name, "-t", "csv", "--intermediate", "-f"]
    try:
        viewed = _nnictl(home, "view", experiment.name, "-p", str(port))
        if viewed.returncode != 0:
            return f"NNI cannot show the experiment: {(viewed.stdout + viewed.stderr).strip()[-200:]}"
        seconds = []
        for _ in range(repeats):
            out.unlink(missing_ok=True)
            begin = time.monotonic()
            done = _nnictl(home, *words, str(out))
            if not out.is_file():
                return f"NNI wrote nothing: {(done.stdout + done.stderr).strip()[-200:]}"
            seconds.append(time.monotonic() - begin)
        return seconds
    except subprocess.TimeoutExpired as error:
        return f"no answer in {error.timeout:.0f} s"
    finally:
        _nnictl(home, "stop", experiment.name)


def _nnictl(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "HOME": str(home), "PATH": path, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(["nnictl", *words], env=env, capture_output=True, text=True, timeout=120, check=False)
