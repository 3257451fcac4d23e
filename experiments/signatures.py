"""What known messages mean: of NNI 3.0, of Python, of PyTorch and of the system, each with the next step."""

from __future__ import annotations

import re
from typing import NamedTuple


class Meaning(NamedTuple):
    """What a message comes from, and what to do about it. `{id}` stands for the experiment's id."""

    cause: str
    next: str


_CHECK = "python -m experiments check FILE"

# (pattern, cause, next step); the first that matches counts.
_KNOWN = [
    (
        r"Tuner did not connect in \d+ seconds",
        "the tuner ended before it reached NNI's manager (a wrong name or argument, an import), or the machine was too "
        "busy to start it in time; the reason is in the tuner's log",
        f"{_CHECK}; where it finds nothing: python -m experiments resume {{id}}",
    ),
    (
        r"high - low < 0|math domain error|high <= 0|Upper bound must be larger|Lower bound must be positive|"
        r"no attribute '\w*(uniform|normal|choice|randint)|unifrom",
        "the search space has reversed, empty or, for a logarithmic range, non-positive bounds, or a misspelt _type",
        f"correct the search space; {_CHECK} names the entry",
    ),
    (
        r"__init__\(\) got an unexpected keyword|is not a valid OptimizeMode|Builtin name is not found",
        "NNI has no tuner of this name, or it does not take these classArgs",
        f"correct the tuner's entry; {_CHECK} tries it",
    ),
    (
        r"\bKeyError: '?\d+'?$|not in running_trials",
        "NNI 3.0's tuner met a result of a trial that it had already forgotten: a trial that reported two final results, "
        "failed after its final result, or was given another trial's hyperparameters",
        "report exactly one final result, last, and end with exit code 0; then: python -m experiments resume {id}",
    ),
    (
        r"population is empty",
        "NNI's Evolution loses an individual with each trial that ends without a result, and has none left",
        "let every trial report a final result; start anew",
    ),
    (
        r"Incorrect final result",
        "a trial reported a final result that is no number and has no numeric `default`",
        "report a finite number, or a dict with a finite number as `default`",
    ),
    (
        r"command not found|No such file or directory.*(python|bash)|can't open file",
        "trialCommand starts a program that is not there",
        f"correct trialCommand or activate the environment; {_CHECK}",
    ),
    (
        r"No module named",
        "the trial's Python lacks a module, or runs in another folder than meant (trialCodeDirectory)",
        "install it in this environment, or correct trialCodeDirectory",
    ),
    (
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "the GPU's memory was too small for this batch size and image size, or is shared with another program",
        "lower the batch sizes in the search space or image_px; look at nvidia-smi",
    ),
    (
        r"MemoryError|Cannot allocate memory|DefaultCPUAllocator: (can't|not enough)",
        "the machine's memory was used up",
        "lower the batch sizes, or run fewer experiments at once",
    ),
    (
        r"connect ECONNREFUSED|EHOSTUNREACH|ENOTFOUND|connect ETIMEDOUT|waiting for handshake|authentication methods failed",
        "NNI's manager could not reach or log in to another machine: a worker's host, port, sshd, user or key",
        "correct trainingService.machineList (try: ssh -p PORT USER@HOST); then: python -m experiments resume {id}",
    ),
    (
        r"SQLITE_(CORRUPT|NOTADB)|malformed",
        "NNI's database of this experiment is damaged",
        "start anew: python -m experiments launch FILE",
    ),
    (
        r"SQLITE_(CANTOPEN|READONLY|IOERR)|EACCES",
        "NNI's manager cannot write to the experiment's folder",
        "mend its owner or mount (look with: python -m experiments doctor); then: python -m experiments resume {id}",
    ),
    (r"No space left on device|ENOSPC|SQLITE_FULL|EDQUOT|Disk quota exceeded", "the disk is full", "free space (each trial keeps its weights), then: python -m experiments resume {id}"),
    (
        r"Address already in use|EADDRINUSE|[Pp]ort \d+ is not idle",
        "another program has the port",
        "nnictl stop --all ends old experiments; launch and resume choose a free port by themselves",
    ),
    (r"Too many open files|EMFILE", "NNI's manager opened too many files: an empty trialCommand is retried without end", _CHECK),
    (
        r"SQLITE_BUSY|database is locked",
        "another program kept NNI's database locked for more than a second",
        "read it with python -m analysis, which never does; then: python -m experiments resume {id}",
    ),
    (
        r"no kernel image is available|NVIDIA driver on your system is too old|not compiled with CUDA",
        "this PyTorch cannot compute on the GPU that is here: it is built for other cards or a newer driver, or for the CPU",
        "python -m experiments doctor says which build to install",
    ),
    (r"NVML|libnvidia-ml", "NNI finds no NVIDIA driver, and trialGpuNumber asks for a GPU", "leave trialGpuNumber away; python -m experiments doctor"),
    (
        r"Only have \d+ GPUs, requesting",
        "NNI 3.0 cannot place this trialGpuNumber on the GPUs that are here",
        f"leave trialGpuNumber away; {_CHECK}",
    ),
    (
        r"none can be started \(trialGpuNumber",
        "a trial asks for more GPUs than NNI sees here, or for ones that other programs use",
        f"leave trialGpuNumber away; {_CHECK}; python -m experiments doctor shows what NNI sees",
    ),
    (r"singletons\.has", "reuseMode is broken in NNI 3.0", "take reuseMode out of trainingService"),
    (
        r"ConnectionRefusedError|Connection refused|Max retries exceeded|Connection aborted|RemoteDisconnected",
        "the trial could not reach NNI's manager: it had ended",
        "python -m experiments resume {id} runs the trial again",
    ),
    (r"No parameters available|AssertionError.*(parameter|next)|Please call `get_next_parameter", "the trial reported before, or asked twice for, its hyperparameters", "call nni.get_next_parameter() once, first"),
    (r"KeyboardInterrupt", "it was interrupted: by NNI's time limit, NNI's stop, or Ctrl-C", "python -m experiments resume {id}"),
]  # fmt: skip


def explain(text: str) -> Meaning | None:
    """The meaning of the first known message in `text`; None where none is known."""
    for pattern, cause, then in _KNOWN:
        if re.search(pattern, text):
            return Meaning(cause, then)
    return None
