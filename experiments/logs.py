"""What the logs of NNI's manager and its trials say: why it ended, what it is busy with, what a known message means."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import NamedTuple

from analysis.reading.logs import failure_reason, last_lines, lines_since
from analysis.reading.records import PRUNED, Trial

CLEANING = "Stopping experiment, cleaning up"
BY_HAND = ("SIGTERM", "SIGINT", "SIGBREAK", "REST request")
_STAMP = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] ")
_FAULT = re.compile(r"\] (ERROR|CRITICAL|FATAL) \([^)]*\) *(.*)")
# What a cause is known by, in whichever line of a message and its stack it is.
_NAMED = re.compile(r"\bE(CONN\w+|ADDRINUSE|NOSPC|DQUOT|ACCES|MFILE|HOSTUNREACH|TIMEDOUT|NOTFOUND|NOENT)\b|SQLITE_\w+")
PREPARING_S = 3600.0  # longer without a line, an installation or upload hangs
# (begins, ends): of the first there are more while NNI prepares its tuner or its workers.
_PREPARING = [
    (r"\(NNIManager\) Setup tuner", r"Add event listeners"),
    (r"Starting remote training service", r"Remote training service started"),
    (r"Initializing SSH worker", r"Worker .* initialized|Failed to recover worker|cannot be used"),
    (r"Upload directory|Installing nni|pip install", r"\) Uploading |failed to upload|Installed nni|version mismatch"),
    (r"\) Uploading ", r"Upload success|failed to upload|the upload of .* failed|is lost"),
]


def session_lines(folder: Path, start: float) -> list[str]:
    """The end of the manager's log, of the session that began at `start` (seconds since 1970)."""
    return last_session(lines_since(last_lines(folder / "log" / "nnimanager.log"), start))


def last_session(lines: list[str]) -> list[str]:
    """The lines of the last manager of the log: of a copied experiment the registry knows no start."""
    starts = [number for number, line in enumerate(lines) if line.endswith("(main) Start NNI manager")]
    return lines[starts[-1] :] if starts else lines


def without_headings(lines: list[str]) -> list[str]:
    """What the last manager itself wrote into one of its output files: nnictl begins each session there with a heading."""
    starts = [number for number, line in enumerate(lines) if re.match(r"Experiment \S+ start:", line)]
    return [line for line in lines[starts[-1] + 1 if starts else 0 :] if not re.match(r"-{20}", line)]


def was_stopped_by_hand(lines: list[str]) -> bool:
    """By launch or watch, nnictl stop, or the web page; not where the manager shut down by itself."""
    if _shutdown_reason(lines) is not None:
        return not ended_itself(lines)
    return any(CLEANING in line for line in lines)


def ended_itself(lines: list[str]) -> bool:
    """Whether the manager began its own end, for a fault."""
    return _shutdown_reason(lines) not in (None, *BY_HAND)


def faults(lines: list[str]) -> list[str]:
    """What the manager logged as errors before it cleaned up, one line each. The line that begins a shutdown is written at
    once and may be before the error that is its cause."""
    end = next((n for n, line in enumerate(lines) if CLEANING in line), len(lines))
    messages = []
    for number, line in enumerate(lines[: end + 1]):
        if fault := _FAULT.search(line):
            rest = lines[number + 1 :]
            more = rest[: next((n for n, after in enumerate(rest) if _STAMP.match(after)), len(rest))]
            named = next((line for line in more if _NAMED.search(line)), "") if not _NAMED.search(line) else ""
            messages.append(" ".join((fault[2] or next(iter(more), ""), named)).strip()[:300])
    return list(dict.fromkeys(messages))


def why_manager_ended(folder: Path, lines: list[str]) -> str:
    """One line from its log or, of a crash, its error output; "" where it was stopped with no error before, or says
    nothing."""
    errors = faults(lines)
    worst = next((error for error in reversed(errors) if _NAMED.search(error)), (errors or [""])[-1])
    if ended_itself(lines):
        return ": ".join(filter(None, (_shutdown_reason(lines), worst)))
    if worst:
        return worst
    if was_stopped_by_hand(lines):
        return ""
    output = without_headings(last_lines(folder / "log" / "nnictl_stderr.log"))
    return next((line[:300] for line in output if re.match(r"\w*Error\b|FATAL ERROR|The repairs of NNI", line)), "")


def is_preparing(lines: list[str]) -> bool:
    """Whether NNI waits for its tuner to connect, installs itself on remote workers, or uploads the trial's folder to them:
    no trial can run meanwhile."""
    begun = [line for line in lines for begins, _ in _PREPARING if re.search(begins, line)]
    stamp = _STAMP.match(begun[-1]) if begun else None
    if stamp is None or time.time() - time.mktime(time.strptime(stamp[0], "[%Y-%m-%d %H:%M:%S] ")) > PREPARING_S:
        return False
    return any(_count(begins, lines) > _count(ends, lines) for begins, ends in _PREPARING)


def waits_for_machines(lines: list[str]) -> bool:
    """Whether a remote machine is not there that may come (back) within PREPARING_S; the manager tries it every 10 s."""
    last = {
        host: line for line in lines for host in re.findall(r"\) (\S+) (?:is lost|cannot be used|has joined)\b", line)
    }
    away = [stamp[0] for line in last.values() if " has joined" not in line and (stamp := _STAMP.match(line))]
    return any(time.time() - time.mktime(time.strptime(stamp, "[%Y-%m-%d %H:%M:%S] ")) < PREPARING_S for stamp in away)


def workers_gpus(lines: list[str]) -> int:
    """GPUs of the remote machine that has most of them, as the machines said when they joined."""
    return max((int(count) for line in lines for count in re.findall(r"has joined with (\d+) GPUs", line)), default=0)


def is_queued(lines: list[str]) -> bool:
    """Whether the manager's last line about the start of a trial is that it has not happened."""
    pattern = r"submitTrialJob: form|(Created|Failed to create) trial|Trial \d+ waits:"
    starts = [line for line in lines if re.search(pattern, line)]
    return bool(starts) and "Created trial" not in starts[-1]


def _count(pattern: str, lines: list[str]) -> int:
    return sum(bool(re.search(pattern, line)) for line in lines)


def _shutdown_reason(lines: list[str]) -> str | None:
    """NNI's word for why the manager ended itself, "" where the line itself is the error; None where it did not."""
    for line in lines:
        if "CRITICAL (ShutdownManager)" in line:
            return ""
        if "Initiate shutdown: " in line:
            return line.partition("Initiate shutdown: ")[2].strip()
    return None


def failure_kind(trial: Trial, assessed: bool = False) -> str | None:
    """Equal for failures of one kind: the reason without its numbers. None for a trial that did its work, or was
    ended by a person or by the assessor."""
    if trial.state == "SUCCEEDED":
        return "no result" if trial.final is None else None
    if trial.state == PRUNED:
        return None
    if trial.state == "USER_CANCELED" and (trial.cancel_asked or assessed):
        return None
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", f"{trial.state} {failure_reason(trial)}")


def why_no_result(trial: Trial) -> str:
    """One line."""
    return "it ended well and reported no final result" if trial.state == "SUCCEEDED" else failure_reason(trial)


def log_of(trial: Trial) -> str:
    """The log that holds a trial's last lines, as an absolute path; "" where it left none."""
    for name in ("trial.stderr", "trial.log", "trial.stdout"):
        if trial.folder and (trial.folder / name).is_file() and (trial.folder / name).stat().st_size:
            return str(trial.folder / name)
    return ""


_CHECK = "python -m experiments check FILE"


class _KnownMessage(NamedTuple):
    """key: that of a finding about it. cause: what the message comes from. next: what to do; `{id}` is the experiment's."""

    key: str
    pattern: str
    cause: str
    next: str


# Each is _KnownMessage's fields; the first that matches counts.
_KNOWN = [
    ("tuner.not_connected", r"Tuner did not connect in \d+ seconds",
     "the tuner ended before it reached NNI's manager (a wrong name or argument, an import), or the machine was too "
     "busy to start it in time; the reason is in the tuner's log",
     f"{_CHECK}; where it finds nothing: python -m experiments resume {{id}}"),
    ("space.bounds", r"high - low < 0|math domain error|high <= 0|Upper bound must be larger|Lower bound must be positive|"
     r"no attribute '\w*(uniform|normal|choice|randint)|unifrom",
     "the search space has reversed, empty or, for a logarithmic range, non-positive bounds, or a misspelt _type",
     f"correct the search space; {_CHECK} names the entry"),
    ("tuner.arguments", r"__init__\(\) got an unexpected keyword|is not a valid OptimizeMode|Builtin name is not found",
     "NNI has no tuner of this name, or it does not take these classArgs",
     f"correct the tuner's entry; {_CHECK} tries it"),
    ("tuner.package_missing", r"Optuna is not installed",
     "the tuner is one of Optuna's samplers, and Optuna is not in this environment",
     "python -m pip install -r experiments/tuners/requirements.txt; then: python -m experiments resume {id}"),
    ("tuner.unknown_trial", r"\bKeyError: '?\d+'?$|not in running_trials",
     "NNI 3.0's tuner met a result of a trial that it had already forgotten: a trial that reported two final results, "
     "failed after its final result, or was given another trial's hyperparameters",
     "report exactly one final result, last, and end with exit code 0; then: python -m experiments resume {id}"),
    ("tuner.population_empty", r"population is empty",
     "NNI's Evolution loses an individual with each trial that ends without a result, and has none left",
     "let every trial report a final result; start anew"),
    ("trial.result_not_a_number", r"Incorrect final result",
     "a trial reported a final result that is no number and has no numeric `default`",
     "report a finite number, or a dict with a finite number as `default`"),
    ("command.not_found", r"command not found|No such file or directory.*(python|bash)|can't open file",
     "trialCommand starts a program that is not there",
     f"correct trialCommand or activate the environment; {_CHECK}"),
    ("trial.module_missing", r"No module named",
     "the trial's Python lacks a module, or runs in another folder than meant (trialCodeDirectory)",
     "install it in this environment, or correct trialCodeDirectory"),
    ("gpu.out_of_memory", r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
     "the GPU's memory was too small for this batch size and image size, or is shared with another program",
     "lower the batch sizes in the search space or image_px; look at nvidia-smi"),
    ("memory.used_up", r"MemoryError|Cannot allocate memory|DefaultCPUAllocator: (can't|not enough)",
     "the machine's memory was used up",
     "lower the batch sizes, or run fewer experiments at once"),
    ("remote.host_key", r"its host key is (not in|another one)",
     "a machine's SSH host key is not the one in ~/.ssh/known_hosts, or there is none",
     "the line names the commands; then: python -m experiments resume {id}"),
    ("remote.packages", r"has (no NNI|NNI \S+, expected|no torch)",
     "a machine's Python lacks a package that trials need",
     "install requirements.txt there and name its bin folder as pythonPath; then: python -m experiments resume {id}"),
    ("remote.lost", r"its machine was lost \d+ times",
     "the trial's machine went away each time that it ran there: power, network, or memory used up",
     "look at that machine's own log (journalctl -b -1); then remove it from machineList, or repair it"),
    ("remote.unreachable", r"connect ECONNREFUSED|EHOSTUNREACH|ENOTFOUND|connect ETIMEDOUT|waiting for handshake|authentication methods failed",
     "NNI's manager could not reach or log in to another machine: a worker's host, port, sshd, user or key",
     "correct trainingService.machineList (try: ssh -p PORT USER@HOST); then: python -m experiments resume {id}"),
    ("database.damaged", r"SQLITE_(CORRUPT|NOTADB)|malformed",
     "NNI's database of this experiment is damaged",
     "start anew: python -m experiments launch FILE"),
    ("folder.not_writable", r"SQLITE_(CANTOPEN|READONLY|IOERR)|EACCES",
     "NNI's manager cannot write to the experiment's folder",
     "correct its owner or mount (look with: python -m experiments doctor); then: python -m experiments resume {id}"),
    ("disk.full", r"No space left on device|ENOSPC|SQLITE_FULL|EDQUOT|Disk quota exceeded",
     "the disk is full",
     "free space (each trial keeps its weights), then: python -m experiments resume {id}"),
    ("port.taken", r"Address already in use|EADDRINUSE|[Pp]ort \d+ is not idle",
     "another program has the port",
     "nnictl stop --all ends old experiments; launch and resume choose a free port by themselves"),
    ("manager.too_many_files", r"Too many open files|EMFILE",
     "NNI's manager opened too many files: an empty trialCommand is retried without end",
     _CHECK),
    ("database.locked", r"SQLITE_BUSY|database is locked",
     "another program kept NNI's database locked for more than a second",
     "read it with python -m analysis, which never does; then: python -m experiments resume {id}"),
    ("gpu.wrong_build", r"no kernel image is available|NVIDIA driver on your system is too old|not compiled with CUDA",
     "this PyTorch cannot compute on the GPU that is here: it is built for other cards or a newer driver, or for the CPU",
     "python -m experiments doctor says which build to install"),
    ("gpu.no_driver", r"NVML|libnvidia-ml",
     "NNI finds no NVIDIA driver, and trialGpuNumber asks for a GPU",
     "remove trialGpuNumber; python -m experiments doctor"),
    ("gpu.too_many_requested", r"Only have \d+ GPUs, requesting",
     "NNI 3.0 cannot place this trialGpuNumber on the GPUs that are here",
     f"remove trialGpuNumber; {_CHECK}"),
    ("gpu.not_placeable", r"none can be started \(trialGpuNumber",
     "a trial asks for more GPUs than NNI sees here, or for ones that other programs use",
     f"remove trialGpuNumber; {_CHECK}; python -m experiments doctor shows what NNI sees"),
    ("file.reuse_mode", r"singletons\.has",
     "reuseMode is broken in NNI 3.0",
     "remove reuseMode from trainingService"),
    ("trial.no_manager", r"ConnectionRefusedError|Connection refused|Max retries exceeded|Connection aborted|RemoteDisconnected",
     "the trial could not reach NNI's manager: it had ended",
     "python -m experiments resume {id} runs the trial again"),
    ("trial.parameters_requested_twice", r"No parameters available|AssertionError.*(parameter|next)|Please call `get_next_parameter",
     "the trial reported before it requested its hyperparameters, or requested them twice",
     "call nni.get_next_parameter() once, first"),
    ("trial.interrupted", r"KeyboardInterrupt",
     "it was interrupted: by NNI's time limit, NNI's stop, or Ctrl-C",
     "python -m experiments resume {id}"),
]  # fmt: skip


def explain(text: str) -> _KnownMessage | None:
    """The first known message in `text`; None where none is known."""
    return next((_KnownMessage(*row) for row in _KNOWN if re.search(row[1], text)), None)
