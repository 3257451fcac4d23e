"""A training's state after its last epoch, so that an interrupted trial goes on and does not start again."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.cache import Cache
from trial.checkpoint_files import best_file, checkpoint_file, checkpoints
from trial.device import Compute
from trial.fit import EpochMetrics, Training, best_epoch, overwrite
from trial.hyperparameters import Hyperparameters
from trial.metrics import Score
from trial.outputs import write_over, write_weights
from trial.teacher import Teacher

FORMAT = 4  # raised when a training's state or its meaning changes: older checkpoints are then not continued


Owner = tuple[Hyperparameters, Cache, Compute]
OTHER = "the checkpoint is of another training"


def identity(owner: Owner, teacher: Teacher | None) -> dict[str, Any]:
    """What has to be the same for a training to go on as if it had never stopped. A teacher may lie elsewhere by then."""
    h, cache, compute = owner
    return {
        **asdict(h),
        "teacher": teacher and f"sha256 {teacher.digest[:12]}",
        "photos": cache.photos,
        "cache_px": cache.manifest["image_px"],
        "images": str(cache.manifest["counts"]),
        "device": compute.device.type,
        "precision": compute.precision,
    }


def state_of(t: Training, owner: Owner) -> dict[str, Any]:
    """All that `load` needs of a training after an epoch; its tensors are the training's own, which changes them."""
    is_best = t.best_epoch == len(t.epochs)
    return {
        "format": FORMAT,
        "of": identity(owner, t.teacher),
        "best_weights": t.best_weights if is_best else None,  # else an earlier epoch's file has them
        "model": None if is_best else t.model.state_dict(),
        "optimizer": t.optimizer.state_dict(),
        "skipped_steps": getattr(t.optimizer, "skipped", None),
        "scaler": t.scaler.state_dict(),
        "schedule": t.schedule.state_dict(),
        "generator": t.generator.get_state(),
        "best_epoch": t.best_epoch,
        "best_before": best_epoch(t.epochs[:-1]),  # of the checkpoint before, which is still there
        "best_validation": asdict(t.best_validation),
        "at_once": (t.train_at_once.images, t.evaluate_at_once.images),
    }


def save(folder: Path, state: dict[str, Any], owner: Owner, lines: list[dict], facts: dict[str, Any]) -> None:
    """After an epoch. state: `state_of`, its tensors in host memory; lines: the epochs as epochs.jsonl has them; facts: plain
    values to be found again by `load`.

    Raises TrialError where the folder cannot be written; the checkpoint before is then still whole.
    """
    best_weights = state.pop("best_weights")
    named = [best_file(folder, state[epoch]) for epoch in ("best_epoch", "best_before")]
    if best_weights is not None:
        write_weights(named[0], best_weights, owner[1].classes, owner[0])
    buffer = io.BytesIO()  # torch's own writing to a file ends in a C++ error where the disk is full
    torch.save({**state, "lines": lines, "facts": facts}, buffer)
    write_over(checkpoint_file(folder, len(lines)), buffer.getbuffer())
    for old in folder.glob("best-*.pt"):
        if old not in named:
            old.unlink()


class HostCopy:
    """A GPU's tensors in pinned host memory, so that they can be written down while the training goes on."""

    def __init__(self) -> None:
        self._buffers: list[
            Tensor
        ] = []  # in the order of their use: each epoch's state has the same shapes in the same order
        self._copied: torch.cuda.Event | None = None

    def take(self, content: Any) -> Any:
        """`content` (dicts, lists, tuples) with every tensor of a GPU as it is at this point of the GPU's work.

        The copies are queued and not waited for: `wait` before they are read, and read them before they are taken again."""
        unused = iter(self._buffers[:])
        self._buffers.clear()
        copied = self._copy(content, unused)
        self._copied = torch.cuda.Event()
        self._copied.record()
        return copied

    def wait(self) -> None:
        self._copied.synchronize()

    def _copy(self, content: Any, unused: Iterator[Tensor]) -> Any:
        if isinstance(content, dict):
            return {name: self._copy(value, unused) for name, value in content.items()}
        if isinstance(content, (list, tuple)):
            return type(content)(self._copy(value, unused) for value in content)
        if not isinstance(content, Tensor) or content.device.type != "cuda":
            return content
        self._buffers.append(_pinned_like(content, next(unused, None)))
        return self._buffers[-1].copy_(content.detach(), non_blocking=True)


def _pinned_like(tensor: Tensor, buffer: Tensor | None) -> Tensor:
    """`buffer` where it fits; else a new one, in pageable memory where no other is to be had."""
    wanted = (tensor.size(), tensor.stride(), tensor.dtype)
    if buffer is not None and (buffer.size(), buffer.stride(), buffer.dtype) == wanted:
        return buffer
    size, stride, dtype = wanted
    new = torch.empty_strided(size, stride, dtype=dtype)
    try:
        return new.pin_memory()
    except RuntimeError:  # the system allows no more of it
        return new


def load(folder: Path, t: Training, owner: Owner) -> tuple[list[dict], dict[str, Any]] | str:
    """Put `t` where the newest whole checkpoint was; returns its lines and facts. Else why not, in words; `t` is then of
    no use. There is one in the folder, or two. Raises nothing: whatever a damaged file does is a reason.
    """
    reasons = []
    for file in checkpoints(folder):
        found = _load(file, t, owner)
        if not isinstance(found, str):
            print("".join(f"{reason}; the one before it is whole\n" for reason in reasons), end="")
            return found
        reasons.append(found)
    return reasons[0]


def _load(file: Path, t: Training, owner: Owner) -> tuple[list[dict], dict[str, Any]] | str:
    try:
        state = _read(file)
        if state["format"] != FORMAT:
            return f"{file.name} has format {state['format']}, this version continues format {FORMAT}"
        if state["of"] != (here := identity(owner, t.teacher)):
            return f"{OTHER}: {_difference(state['of'], here)}"
        best = _read(best_file(file.parent, state["best_epoch"]))["model"]
        epochs = [
            EpochMetrics(**{name: line[name] for name in EpochMetrics.__annotations__}) for line in state["lines"]
        ]
        _apply(t, state, best)
    except Exception as error:  # noqa: BLE001 a damaged file raises what it likes: pickle's, zip's, torch's errors
        reason = (str(error).strip().splitlines() or [""])[0]
        return f"{file.name} cannot be read ({type(error).__name__}: {reason[:80]})"
    t.epochs[:] = epochs
    return state["lines"], state["facts"]


def _read(file: Path) -> Any:
    """Raises anything. The sums that torch.save puts into its zip file are not compared by torch.load."""
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{file.name} is damaged in {damaged}")
    return torch.load(file, map_location="cpu", weights_only=True)


def _apply(t: Training, state: dict[str, Any], best: dict[str, torch.Tensor]) -> None:
    t.model.load_state_dict(state["model"] or best)
    t.optimizer.load_state_dict(state["optimizer"])
    if state["skipped_steps"] is not None:
        t.optimizer.skipped.copy_(state["skipped_steps"])
    t.scaler.load_state_dict(state["scaler"])
    t.schedule.load_state_dict(state["schedule"])
    t.generator.set_state(state["generator"])
    overwrite(t.best_weights, best)
    t.best_epoch, t.best_validation = state["best_epoch"], Score(**state["best_validation"])
    t.train_at_once.images, t.evaluate_at_once.images = state["at_once"]


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    names = [name for name in expected if found.get(name) != expected[name]]
    return ", ".join(f"{name} {found.get(name)!r} there, {expected[name]!r} here" for name in names[:3])
