"""The network: a torchvision ResNet, its weights loaded from torchvision or a file, with a new head."""

from __future__ import annotations

import http.client
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models

from data.cache import Cache
from trial import TrialError
from trial.weights import ENDINGS, few, kind_of, load_path, state_of, with_article

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
            _load_backbone(model, _read_weights(path, source, log), arch, source)
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


def _read_weights(path: Path, source: str, log: Callable[[str], None]) -> dict[str, Tensor]:
    """The state dict of a file. source: begins the message of the TrialError."""
    values, notes = state_of(load_path(path, source), source)
    if notes:
        log(f"{path.name}: {'; '.join(notes)}")
    return values


def _load_backbone(model: nn.Module, state: dict[str, Tensor], arch: str, source: str) -> None:
    """Load everything but the head. Raises TrialError."""
    backbone = {name: value for name, value in state.items() if not name.startswith("fc.")}
    head = {name: value for name, value in model.state_dict().items() if name.startswith("fc.")}
    load_all(model, {**backbone, **head}, arch, source)


def load_all(model: nn.Module, given: dict[str, Tensor], arch: str, source: str) -> None:
    """Load every weight. Raises TrialError naming the keys that are missing, left over, misshapen or not finite."""
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in given]
    problems += [f"unknown {name}" for name in given if name not in own]
    problems += [problem for name in own if name in given and (problem := _misfit(name, given[name], own[name]))]
    if problems:
        raise TrialError(f"{source} ({arch}) does not fit: {few(problems, 4, '; ')}. {_advice(given, arch)}")
    if bad := [name for name, value in given.items() if not torch.isfinite(value).all()]:
        raise TrialError(f"{source}: it holds weights that are not finite ({few(bad)}): of a training that failed")
    model.load_state_dict(given)


def _misfit(name: str, value: Tensor, expected: Tensor) -> str:
    if value.is_meta or value.layout is not torch.strided:
        return f"{name} is no dense tensor"
    if value.shape != expected.shape:
        return f"{name} is {tuple(value.shape)}, expected {tuple(expected.shape)}"
    if expected.is_floating_point() and not value.is_floating_point():
        return f"{name} is {value.dtype}, expected {expected.dtype}"
    return ""


def _advice(given: dict[str, Tensor], arch: str) -> str:
    """Which network it is, judged by names and blocks, and what to do."""
    kind = kind_of(given)
    first = f"Its first names: {few([name for name in given if not name.startswith('fc.')])}"
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
