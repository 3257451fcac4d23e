"""A trained network that a student learns from: its file read, compared with the cache, and evaluated without gradients."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from data.cache import Cache
from trial import TrialError
from trial.hyperparameters import ARCHITECTURES, Hyperparameters
from trial.loss import require_teacher
from trial.model import load_all, match_classes
from trial.weights import kind_of, load_file, state_of, with_article

_TRAIN_ONE = "Train one on this cache (python -m trial --arch resnet50) and name its best.pt"


@dataclass(frozen=True)
class Teacher:
    """A network that is never trained: in inference mode, without gradients, outputs in the order of the cache's classes."""

    model: nn.Module
    digest: str  # SHA-256 of its file
    facts: dict[str, Any] = field(default_factory=dict)  # for result.json: JSON's types
    notes: tuple[str, ...] = ()  # for the log

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float32 as the student sees them -> logits (B, C) float32, in the precision set around it."""
        return self.model(images).float()


def open_teacher(h: Hyperparameters, cache: Cache | None) -> Teacher | None:
    """The teacher that `h` names, None where it names none; one of weight 0 has to fit too, for its figures.

    The file is best.pt of a trial, or a state dict with a head for this cache's classes, taken to be in their order.
    cache: None where there is none to compare it with; it is then only read, and None returned. Raises TrialError where
    the file does not exist, does not load safely, does not fit, or knows other classes.
    """
    require_teacher(h, h.teacher)
    if not h.teacher:
        return None
    path, source = Path(h.teacher).expanduser(), f"teacher = {h.teacher!r}"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TrialError(f"{source}: cannot be read ({error.strerror}). {_TRAIN_ONE}") from error
    content = load_file(io.BytesIO(raw), path.name, source)
    state, reading = state_of(content, source)
    if cache is None:
        return None
    trained, names = _metadata_of(content)
    arch = trained.get("arch") or _arch_of(state, source)
    state = _head_in_order(state, names, cache, source)
    model = _build(arch, state, len(cache.classes), source)
    digest = hashlib.sha256(raw).hexdigest()
    facts = {"file": str(path.resolve()), "sha256": digest, "arch": arch, "image_px": trained.get("image_px")}
    facts |= {"asked": h.distill_weight > 0, "trained_with": trained or None, **_own_result(path, trained, cache)}
    notes = (*_notes(h, facts, names, cache), *(f"teacher: {note}" for note in reading))
    return Teacher(model, digest, facts, notes)


def _metadata_of(content: dict[str, Any]) -> tuple[dict[str, Any], list[str] | None]:
    """Hyperparameters and class names of a best.pt; ({}, None) for a bare state dict."""
    trained, names = content.get("hyperparameters"), content.get("classes")
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return trained if isinstance(trained, dict) else {}, names if named and names else None


def _arch_of(state: dict[str, Tensor], source: str) -> str:
    """Raises TrialError for a network that this trial cannot build, where it is known; otherwise loading its weights finds out."""
    kind = kind_of(state)
    if kind and kind not in ARCHITECTURES:
        raise TrialError(
            f"{source}: it holds {with_article(kind)}; this version knows {', '.join(ARCHITECTURES)}. {_TRAIN_ONE}"
        )
    return kind or ("resnet50" if "layer1.0.conv3.weight" in state else "resnet18")


def _head_in_order(state: dict[str, Tensor], names: list[str] | None, cache: Cache, source: str) -> dict[str, Tensor]:
    """The head's rows in the order of the cache's classes. names: of its outputs, None where the file has none."""
    head = [state.get(name) for name in ("fc.weight", "fc.bias")]
    if not all(part is not None and part.dim() for part in head):
        raise TrialError(f"{source}: it has no head (fc.weight, fc.bias). {_TRAIN_ONE}")
    order = match_classes(names, cache, source, _TRAIN_ONE) if names else list(range(len(cache.classes)))
    if any(len(part) != len(order) for part in head):
        raise TrialError(
            f"{source}: {len(head[1])} outputs for the {len(order)} classes of {cache.directory}. {_TRAIN_ONE}"
        )
    return {**state, "fc.weight": head[0][order], "fc.bias": head[1][order]}


def _build(arch: str, state: dict[str, Tensor], classes: int, source: str) -> nn.Module:
    if arch not in ARCHITECTURES:
        raise TrialError(f"{source}: arch {arch!r}; this version knows {', '.join(ARCHITECTURES)}")
    with torch.random.fork_rng(devices=[]):  # its random initial weights are replaced below
        model = getattr(models, arch)(num_classes=classes)
    try:
        load_all(model, state, arch, source)
    except TrialError as error:
        raise TrialError(f"{error}. {_TRAIN_ONE}") from error
    return model.eval().requires_grad_(False)


def _own_result(path: Path, trained: dict[str, Any], cache: Cache) -> dict[str, Any]:
    """The teacher's own scores, where the result.json of the same training is beside its file; else None."""
    nothing = {"validation": None, "evaluation": None, "same_photos": None}
    try:
        result = json.loads((path.parent / "result.json").read_text("utf-8"))
        if not trained or result["hyperparameters"] != trained:
            return nothing
        scores = {name: result[name] and _without_table(result[name]) for name in ("validation", "evaluation")}
        return {**scores, "same_photos": result["source_digest"] == cache.photos}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return nothing


def _without_table(score: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in score.items() if name != "per_class"}


def _notes(h: Hyperparameters, facts: dict[str, Any], names: list[str] | None, cache: Cache) -> list[str]:
    own = facts["evaluation"]
    reached = f", {own['top1']:.4f} of {own['n']} evaluation images right" if own else ""
    notes = [f"teacher {facts['arch']} {facts['file']} (sha256 {facts['sha256'][:12]}){reached}"]
    if not h.distill_weight:
        notes.append("it is not used: distill_weight = 0")
    if names is None:
        notes.append("no class names in it: its outputs are taken in the order of the cache's classes")
    elif tuple(names) != cache.classes:
        notes.append("its classes are in another order: its outputs are put into the cache's")
    if facts["image_px"] not in (None, h.image_px):
        notes.append(f"it was trained at {facts['image_px']} px, and is used at {h.image_px} px")
    trained_balance = (facts["trained_with"] or {}).get("balance", "none")
    if names is not None and trained_balance != h.balance and h.distill_weight:
        notes.append(
            f"it was trained with balance {trained_balance}, the student with {h.balance}: it teaches its own class frequencies"
        )
    if facts["same_photos"] is False:
        notes.append("it was trained on other photos: they may hold images of this evaluation split")
    return notes
