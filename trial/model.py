"""The networks: a torchvision ResNet, its weights loaded from torchvision or a file, with a new head; and its teacher, a trained
network whose file is read, compared with the cache, and evaluated without gradients."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import shlex
from collections.abc import Callable, Sequence
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
from trial.weights import ENDINGS, few, kind_of, load_file, load_path, state_of, with_article

# The first generation of torchvision's ImageNet weights, the only one that ResNet18 has.
_IMAGENET = {
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
}


def build_model(arch: str, weights: str, classes: int, seed: int, log: Callable[[str], None] = print) -> nn.Module:
    """A ResNet with `classes` outputs: logits (B, C) from (B, 3, S, S).

    weights: "imagenet", "none" or a file. The head is always new. The seed decides the head and, with "none", all of
    it. log: called with a line where the file was no plain state dict. Raises TrialError where the weights cannot be found,
    read or fitted.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(models, arch)(num_classes=classes)
    if path := _find_weights(arch, weights):
        source = f"weights = {weights!r}" if weights != "imagenet" else f"weights = 'imagenet': {path}"
        try:
            state, notes = state_of(load_path(path, source), source)
            if notes:
                log(f"{path.name}: {'; '.join(notes)}")
            _load_backbone(model, state, arch, source)
        except TrialError as error:
            again = (
                f". Remove it, and it is downloaded anew: rm {shlex.quote(str(path))}" if weights == "imagenet" else ""
            )
            raise TrialError(f"{error}{again}") from error
    return model


def _find_weights(arch: str, weights: str) -> Path | None:
    """The file that `weights` names, downloaded where it is missing; None for "none". Raises TrialError."""
    if weights == "none":
        return None
    if weights != "imagenet":
        path = Path(weights).expanduser()
        if path.is_dir():
            raise TrialError(f"weights = {weights!r}: a folder; name the file in it{_examples(path)}")
        if not path.is_file():
            raise TrialError(
                f"weights = {weights!r}: no such file; expected imagenet, none or a state-dict file with "
                "torchvision's key names"
            )
        return path
    url = _IMAGENET[arch].url
    target = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = target.stem.rsplit("-", 1)[1]  # torchvision's file names end in the start of their SHA-256
            torch.hub.download_url_to_file(url, str(target), hash_prefix=digest, progress=False)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise TrialError(
                f"weights = 'imagenet': {target.name} is neither in {target.parent} nor downloadable ({error}). Put "
                "the file there by hand, or choose weights=none (from scratch) or weights=FILE (a state dict)"
            ) from error
    return target


def _examples(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.suffix in ENDINGS)
    return f", such as {few(names)}" if names else ""


def _load_backbone(model: nn.Module, state: dict[str, Tensor], arch: str, source: str) -> None:
    """Load everything but the head. Raises TrialError."""
    backbone = {name: value for name, value in state.items() if not name.startswith("fc.")}
    head = {name: value for name, value in model.state_dict().items() if name.startswith("fc.")}
    _load_all(model, {**backbone, **head}, arch, source)


def _load_all(model: nn.Module, weights: dict[str, Tensor], arch: str, source: str) -> None:
    """Load every weight. Raises TrialError naming the keys that are missing, left over, misshapen or not finite."""
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in weights]
    problems += [f"unknown {name}" for name in weights if name not in own]
    problems += [problem for name in own if name in weights and (problem := _misfit(name, weights[name], own[name]))]
    if problems:
        raise TrialError(f"{source} ({arch}) does not fit: {few(problems, 4, '; ')}. {_advice(weights, arch)}")
    if bad := [name for name, value in weights.items() if not torch.isfinite(value).all()]:
        raise TrialError(f"{source}: it holds weights that are not finite ({few(bad)}): of a training that failed")
    model.load_state_dict(weights)


def _misfit(name: str, value: Tensor, expected: Tensor) -> str:
    if value.is_meta or value.layout is not torch.strided:
        return f"{name} is no dense tensor"
    if value.shape != expected.shape:
        return f"{name} is {tuple(value.shape)}, expected {tuple(expected.shape)}"
    if expected.is_floating_point() and not value.is_floating_point():
        return f"{name} is {value.dtype}, expected {expected.dtype}"
    return ""


def _advice(weights: dict[str, Tensor], arch: str) -> str:
    """Which network it is, judged by names and blocks, and what to do."""
    kind = kind_of(weights)
    first = f"Its first names: {few([name for name in weights if not name.startswith('fc.')])}"
    if kind in _IMAGENET and kind != arch:
        return f"Check arch: these are a {kind}'s weights (--arch {kind}; in an experiment --set arch={kind}). {first}"
    if kind == arch:
        return f"It has a {kind}'s blocks, but not all of torchvision's names, shapes and types. {first}"
    what = f"It holds {with_article(kind)}, it seems, and a" if kind else "A"
    return f"{what} {arch}'s state dict with torchvision's names is needed. {first}"


def match_classes(classes: Sequence[str], cache: Cache, source: str, advice: str) -> list[int]:
    """For each label of the cache, the index of the output of that name. Raises TrialError."""
    missing, unknown = sorted(set(cache.classes) - set(classes)), sorted(set(classes) - set(cache.classes))
    if missing or unknown or len(classes) != len(cache.classes):
        raise TrialError(
            f"{source} knows {len(classes)} classes and {cache.directory} holds {len(cache.classes)}: only in the "
            f"weights {few(unknown)}; only in the cache {few(missing)}. {advice}"
        )
    return [classes.index(name) for name in cache.classes]


# -- the teacher ---------------------------------------------------------------------------------------------------------

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
    settings, names = _metadata_of(content)
    arch = settings.get("arch") or _arch_of(state, source)
    state = _head_in_order(state, names, cache, source)
    model = _build_teacher(arch, state, len(cache.classes), source)
    digest = hashlib.sha256(raw).hexdigest()
    facts = {"file": str(path.resolve()), "sha256": digest, "arch": arch, "image_px": settings.get("image_px")}
    facts |= {"asked": h.distill_weight > 0, "trained_with": settings or None, **_own_result(path, settings, cache)}
    notes = (*_teacher_notes(h, facts, names, cache), *(f"teacher: {note}" for note in reading))
    return Teacher(model, digest, facts, notes)


def _metadata_of(content: dict[str, Any]) -> tuple[dict[str, Any], list[str] | None]:
    """Hyperparameters and class names of a best.pt; ({}, None) for a bare state dict."""
    settings, names = content.get("hyperparameters"), content.get("classes")
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return settings if isinstance(settings, dict) else {}, names if named and names else None


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


def _build_teacher(arch: str, state: dict[str, Tensor], classes: int, source: str) -> nn.Module:
    if arch not in ARCHITECTURES:
        raise TrialError(f"{source}: arch {arch!r}; this version knows {', '.join(ARCHITECTURES)}")
    with torch.random.fork_rng(devices=[]):  # its random initial weights are replaced below
        model = getattr(models, arch)(num_classes=classes)
    try:
        _load_all(model, state, arch, source)
    except TrialError as error:
        raise TrialError(f"{error}. {_TRAIN_ONE}") from error
    return model.eval().requires_grad_(False)


def _own_result(path: Path, settings: dict[str, Any], cache: Cache) -> dict[str, Any]:
    """The teacher's own scores, where the result.json of the same training is beside its file; else None."""
    nothing = {"validation": None, "evaluation": None, "same_photos": None}
    try:
        result = json.loads((path.parent / "result.json").read_text("utf-8"))
        if not settings or result["hyperparameters"] != settings:
            return nothing
        scores = {name: result[name] and {**result[name]} for name in ("validation", "evaluation")}
        for score in filter(None, scores.values()):
            score.pop("per_class", None)
        return {**scores, "same_photos": result["source_digest"] == cache.photos}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return nothing


def _teacher_notes(h: Hyperparameters, facts: dict[str, Any], names: list[str] | None, cache: Cache) -> list[str]:
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
