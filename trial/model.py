"""A network with a new head, its weights loaded from torchvision or a file; a trained one from its best.pt; and the teacher, a
trained network that is compared with the cache and evaluated without gradients."""

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

from data.cache import Cache
from trial import TrialError
from trial.hyperparameters import ARCHITECTURES, Hyperparameters
from trial.loss import require_teacher
from trial.networks import (
    GENERATIONS,
    arch_by_size,
    build_network,
    fit_published,
    head_of,
    imagenet_url,
)
from trial.weights import ENDINGS, few, kind_of, load_file, load_path, state_of, with_article


def build_model(
    arch: str, weights: str, classes: int, seed: int, image_px: int = 224, log: Callable[[str], None] = print
) -> nn.Module:
    """A network with `classes` outputs: logits (B, C) from (B, 3, image_px, image_px).

    weights: "imagenet", "imagenet_v2", "none" or a file. The head is always new. The seed decides the head and, with "none",
    all of it. log: called with a line where the file was no plain state dict. Raises TrialError where the weights cannot be
    found, read or fitted, and for an image_px that the network cannot take.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(arch, classes, image_px)
    if path := _find_weights(arch, weights):
        source = f"weights = {weights!r}: {path}" if weights in GENERATIONS else f"weights = {weights!r}"
        try:
            state, notes = state_of(load_path(path, source), source)
            if notes:
                log(f"{path.name}: {'; '.join(notes)}")
            _load_backbone(model, fit_published(state, arch, image_px), arch, source)
        except TrialError as error:
            again = (
                f". Remove it, and it is downloaded anew: rm {shlex.quote(str(path))}" if weights in GENERATIONS else ""
            )
            raise TrialError(f"{error}{again}") from error
    return model


def _find_weights(arch: str, weights: str) -> Path | None:
    """The file that `weights` names, downloaded where it is missing; None for "none". Raises TrialError."""
    if weights == "none":
        return None
    if weights not in GENERATIONS:
        path = Path(weights).expanduser()
        if path.is_dir():
            raise TrialError(f"weights = {weights!r}: a folder; name the file in it{_examples(path)}")
        if not path.is_file():
            raise TrialError(
                f"weights = {weights!r}: no such file; expected imagenet, imagenet_v2, none or a state-dict file with "
                "torchvision's key names"
            )
        return path
    url = imagenet_url(arch, weights)
    target = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = target.stem.rsplit("-", 1)[1]  # torchvision's file names end in the start of their SHA-256
            torch.hub.download_url_to_file(url, str(target), hash_prefix=digest, progress=False)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise TrialError(
                f"weights = {weights!r}: {target.name} is neither in {target.parent} nor downloadable ({error}). Put "
                "the file there by hand, or choose weights=none (from scratch) or weights=FILE (a state dict)"
            ) from error
    return target


def _examples(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.suffix in ENDINGS)
    return f", such as {few(names)}" if names else ""


def _load_backbone(model: nn.Module, state: dict[str, Tensor], arch: str, source: str) -> None:
    """Load everything but the head. Raises TrialError."""
    head = f"{head_of(model)}."
    backbone = {name: value for name, value in state.items() if not name.startswith(head)}
    own = {name: value for name, value in model.state_dict().items() if name.startswith(head)}
    _load_all(model, {**backbone, **own}, arch, source, state)


def _load_all(
    model: nn.Module, weights: dict[str, Tensor], arch: str, source: str, file: dict[str, Tensor] | None = None
) -> None:
    """Load every weight. file: what it held, where that is not `weights`, so that its network is recognised.

    Raises TrialError naming the keys that are missing, left over, misshapen or not finite."""
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in weights]
    problems += [f"unknown {name}" for name in weights if name not in own]
    problems += [problem for name in own if name in weights and (problem := _misfit(name, weights[name], own[name]))]
    if problems:
        raise TrialError(f"{source} ({arch}) does not fit: {few(problems, 4, '; ')}. {_advice(file or weights, arch)}")
    if bad := [name for name, value in weights.items() if not torch.isfinite(value).all()]:
        raise TrialError(f"{source}: it holds weights that are not finite ({few(bad)}): of a training that failed")
    own.update(weights)  # of the state dict, which has the versions that some layers of MNASNet read
    model.load_state_dict(own)


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
    kind = _network_of(weights)
    first = f"Its first names: {few([name for name in weights if not name.startswith('fc.')])}"
    if kind in ARCHITECTURES and kind != arch:
        return f"Check arch: these are a {kind}'s weights (--arch {kind}; in an experiment --set arch={kind}). {first}"
    if kind == arch:
        return f"It has a {kind}'s blocks, but not all of torchvision's names, shapes and types. {first}"
    what = f"It holds {with_article(kind)}, it seems, and a" if kind else "A"
    return f"{what} {arch}'s state dict with torchvision's names is needed. {first}"


def _network_of(state: dict[str, Tensor]) -> str:
    """torchvision's name where the weights are of one of its networks; else what they are in words, "" if unknown."""
    kind = kind_of(state)
    return kind if kind in ARCHITECTURES else arch_by_size(state) or kind


def match_classes(classes: Sequence[str], cache: Cache, source: str, advice: str) -> list[int]:
    """For each label of the cache, the index of the output of that name. Raises TrialError."""
    missing, unknown = sorted(set(cache.classes) - set(classes)), sorted(set(classes) - set(cache.classes))
    if missing or unknown or len(classes) != len(cache.classes):
        raise TrialError(
            f"{source} knows {len(classes)} classes and {cache.directory} holds {len(cache.classes)}: only in the "
            f"weights {few(unknown)}; only in the cache {few(missing)}. {advice}"
        )
    return [classes.index(name) for name in cache.classes]


# -- a trained network ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedModel:
    """The content of a best.pt: state dict, class names by output, and what it was trained with."""

    state: dict[str, Tensor]
    classes: tuple[str, ...]
    hyperparameters: Hyperparameters
    source: str  # begins messages

    def build(self, order: Sequence[int] | None = None) -> nn.Module:
        """Logits (B, C) in evaluation mode; order: which of `classes` each output is, theirs where it is None.

        Raises TrialError where the weights do not fit."""
        h = self.hyperparameters
        model = build_model(h.arch, "none", len(self.classes), h.seed, h.image_px)
        try:
            _load_all(model, self.state, h.arch, self.source)
        except TrialError as error:
            raise TrialError(f"{error}. Expected a trial's best.pt") from error
        if order is not None:
            for part in model.get_submodule(head_of(model)).parameters():
                part.data = part.data[order]
        return model.eval()


def read_trained(path: Path) -> TrainedModel:
    """Raises TrialError for a file that no trial wrote."""
    if not path.is_file():
        raise TrialError(f"{path}: no such file; expected the best.pt of a trial's folder")
    content = load_path(path, str(path))
    content = content if isinstance(content, dict) else {}
    _, classes = _metadata_of(content)
    if not (classes and isinstance(content.get("model"), dict) and "hyperparameters" in content):
        raise TrialError(
            f"{path}: not a trial's best.pt (expected model, classes and hyperparameters, found "
            f"{', '.join(map(str, list(content)[:4])) or 'something else'}); a bare state dict goes to --weights"
        )
    state = state_of(content, str(path)).values
    return TrainedModel(state, tuple(classes), Hyperparameters().merged(content["hyperparameters"]), str(path))


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
    model = _build_teacher(arch, state, names, h.image_px, cache, source)
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
    kind = _network_of(state)
    if kind and kind not in ARCHITECTURES:
        raise TrialError(
            f"{source}: it holds {with_article(kind)}; expected one of torchvision's classifiers. {_TRAIN_ONE}"
        )
    return kind or ("resnet50" if "layer1.0.conv3.weight" in state else "resnet18")


def _build_teacher(
    arch: str, state: dict[str, Tensor], names: list[str] | None, image_px: int, cache: Cache, source: str
) -> nn.Module:
    """Its outputs in the order of the cache's classes. names: of its outputs, None where the file has none."""
    try:
        if arch not in ARCHITECTURES:
            raise TrialError(f"{source}: arch {arch!r}; expected one of torchvision's classifiers")
        with torch.random.fork_rng(devices=[]):  # its random initial weights are replaced below
            model = build_network(arch, len(cache.classes), image_px)
        state = _head_in_order(fit_published(state, arch, image_px), head_of(model), names, cache, source)
        _load_all(model, state, arch, source)
    except TrialError as error:
        raise TrialError(f"{error}. {_TRAIN_ONE}") from error
    return model.eval().requires_grad_(False)


def _head_in_order(
    state: dict[str, Tensor], head: str, names: list[str] | None, cache: Cache, source: str
) -> dict[str, Tensor]:
    """The head's rows in the order of the cache's classes."""
    parts = {name: value for name, value in state.items() if name.startswith(f"{head}.") and value.dim()}
    if f"{head}.weight" not in parts:
        raise TrialError(f"{source}: it has no head ({head}.weight)")
    order = match_classes(names, cache, source, _TRAIN_ONE) if names else list(range(len(cache.classes)))
    if wrong := next((len(value) for value in parts.values() if len(value) != len(order)), None):
        raise TrialError(f"{source}: {wrong} outputs for the {len(order)} classes of {cache.directory}")
    return {**state, **{name: value[order] for name, value in parts.items()}}


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
