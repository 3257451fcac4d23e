"""What known messages mean: of NNI 3.0, of Python, of PyTorch and of the system, each with the next step."""

from __future__ import annotations

import re
from typing import NamedTuple

_CHECK = "python -m experiments check FILE"


class KnownMessage(NamedTuple):
    """key: that of a finding about it. cause: what the message comes from. next: what to do; `{id}` is the experiment's."""

    key: str
    pattern: str
    cause: str
    next: str


# The first that matches counts.
_KNOWN = [
    KnownMessage(
        "tuner.not_connected",
        r"Tuner did not connect in \d+ seconds",
        "the tuner ended before it reached NNI's manager (a wrong name or argument, an import), or the machine was too "
        "busy to start it in time; the reason is in the tuner's log",
        f"{_CHECK}; where it finds nothing: python -m experiments resume {{id}}",
    ),
    KnownMessage(
        "space.bounds",
        r"high - low < 0|math domain error|high <= 0|Upper bound must be larger|Lower bound must be positive|"
        r"no attribute '\w*(uniform|normal|choice|randint)|unifrom",
        "the search space has reversed, empty or, for a logarithmic range, non-positive bounds, or a misspelt _type",
        f"correct the search space; {_CHECK} names the entry",
    ),
    KnownMessage(
        "tuner.arguments",
        r"__init__\(\) got an unexpected keyword|is not a valid OptimizeMode|Builtin name is not found",
        "NNI has no tuner of this name, or it does not take these classArgs",
        f"correct the tuner's entry; {_CHECK} tries it",
    ),
    KnownMessage(
        "tuner.unknown_trial",
        r"\bKeyError: '?\d+'?$|not in running_trials",
        "NNI 3.0's tuner met a result of a trial that it had already forgotten: a trial that reported two final results, "
        "failed after its final result, or was given another trial's hyperparameters",
        "report exactly one final result, last, and end with exit code 0; then: python -m experiments resume {id}",
    ),
    KnownMessage(
        "tuner.population_empty",
        r"population is empty",
        "NNI's Evolution loses an individual with each trial that ends without a result, and has none left",
        "let every trial report a final result; start anew",
    ),
    KnownMessage(
        "trial.result_not_a_number",
        r"Incorrect final result",
        "a trial reported a final result that is no number and has no numeric `default`",
        "report a finite number, or a dict with a finite number as `default`",
    ),
    KnownMessage(
        "command.not_found",
        r"command not found|No such file or directory.*(python|bash)|can't open file",
        "trialCommand starts a program that is not there",
        f"correct trialCommand or activate the environment; {_CHECK}",
    ),
    KnownMessage(
        "trial.module_missing",
        r"No module named",
        "the trial's Python lacks a module, or runs in another folder than meant (trialCodeDirectory)",
        "install it in this environment, or correct trialCodeDirectory",
    ),
    KnownMessage(
        "gpu.out_of_memory",
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "the GPU's memory was too small for this batch size and image size, or is shared with another program",
        "lower the batch sizes in the search space or image_px; look at nvidia-smi",
    ),
    KnownMessage(
        "memory.used_up",
        r"MemoryError|Cannot allocate memory|DefaultCPUAllocator: (can't|not enough)",
        "the machine's memory was used up",
        "lower the batch sizes, or run fewer experiments at once",
    ),
    KnownMessage(
        "remote.unreachable",
        r"connect ECONNREFUSED|EHOSTUNREACH|ENOTFOUND|connect ETIMEDOUT|waiting for handshake|authentication methods failed",
        "NNI's manager could not reach or log in to another machine: a worker's host, port, sshd, user or key",
        "correct trainingService.machineList (try: ssh -p PORT USER@HOST); then: python -m experiments resume {id}",
    ),
    KnownMessage(
        "database.damaged",
        r"SQLITE_(CORRUPT|NOTADB)|malformed",
        "NNI's database of this experiment is damaged",
        "start anew: python -m experiments launch FILE",
    ),
    KnownMessage(
        "folder.not_writable",
        r"SQLITE_(CANTOPEN|READONLY|IOERR)|EACCES",
        "NNI's manager cannot write to the experiment's folder",
        "correct its owner or mount (look with: python -m experiments doctor); then: python -m experiments resume {id}",
    ),
    KnownMessage(
        "disk.full",
        r"No space left on device|ENOSPC|SQLITE_FULL|EDQUOT|Disk quota exceeded",
        "the disk is full",
        "free space (each trial keeps its weights), then: python -m experiments resume {id}",
    ),
    KnownMessage(
        "port.taken",
        r"Address already in use|EADDRINUSE|[Pp]ort \d+ is not idle",
        "another program has the port",
        "nnictl stop --all ends old experiments; launch and resume choose a free port by themselves",
    ),
    KnownMessage(
        "manager.too_many_files",
        r"Too many open files|EMFILE",
        "NNI's manager opened too many files: an empty trialCommand is retried without end",
        _CHECK,
    ),
    KnownMessage(
        "database.locked",
        r"SQLITE_BUSY|database is locked",
        "another program kept NNI's database locked for more than a second",
        "read it with python -m analysis, which never does; then: python -m experiments resume {id}",
    ),
    KnownMessage(
        "gpu.wrong_build",
        r"no kernel image is available|NVIDIA driver on your system is too old|not compiled with CUDA",
        "this PyTorch cannot compute on the GPU that is here: it is built for other cards or a newer driver, or for the CPU",
        "python -m experiments doctor says which build to install",
    ),
    KnownMessage(
        "gpu.no_driver",
        r"NVML|libnvidia-ml",
        "NNI finds no NVIDIA driver, and trialGpuNumber asks for a GPU",
        "remove trialGpuNumber; python -m experiments doctor",
    ),
    KnownMessage(
        "gpu.too_many_requested",
        r"Only have \d+ GPUs, requesting",
        "NNI 3.0 cannot place this trialGpuNumber on the GPUs that are here",
        f"remove trialGpuNumber; {_CHECK}",
    ),
    KnownMessage(
        "gpu.not_placeable",
        r"none can be started \(trialGpuNumber",
        "a trial asks for more GPUs than NNI sees here, or for ones that other programs use",
        f"remove trialGpuNumber; {_CHECK}; python -m experiments doctor shows what NNI sees",
    ),
    KnownMessage(
        "file.reuse_mode",
        r"singletons\.has",
        "reuseMode is broken in NNI 3.0",
        "remove reuseMode from trainingService",
    ),
    KnownMessage(
        "trial.no_manager",
        r"ConnectionRefusedError|Connection refused|Max retries exceeded|Connection aborted|RemoteDisconnected",
        "the trial could not reach NNI's manager: it had ended",
        "python -m experiments resume {id} runs the trial again",
    ),
    KnownMessage(
        "trial.parameters_requested_twice",
        r"No parameters available|AssertionError.*(parameter|next)|Please call `get_next_parameter",
        "the trial reported before it requested its hyperparameters, or requested them twice",
        "call nni.get_next_parameter() once, first",
    ),
    KnownMessage(
        "trial.interrupted",
        r"KeyboardInterrupt",
        "it was interrupted: by NNI's time limit, NNI's stop, or Ctrl-C",
        "python -m experiments resume {id}",
    ),
]


def explain(text: str) -> KnownMessage | None:
    """The first known message in `text`; None where none is known."""
    return next((known for known in _KNOWN if re.search(known.pattern, text)), None)
