"""The network: a torchvision ResNet, its weights loaded from torchvision or a file, with a new head."""

from __future__ import annotations

import urllib.error
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torchvision import models

from data.cache import Cache
from trial.errors import TrialError

# The sets that the report's generation of weights means: V1, of which ResNet18 has no other.
IMAGENET = {
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
}


def build_model(arch: str, weights: str, classes: int, seed: int) -> nn.Module:
    """A ResNet with `classes` outputs: logits (B, C) from (B, 3, S, S).

    weights: "imagenet", "none" or a file. The head is always new. The seed decides the head and, with "none", all of
    it. Raises TrialError where the weights cannot be found, read or fitted.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(models, arch)(num_classes=classes)
    if weights != "none":
        load_backbone(model, load_weights(find_weights(arch, weights)), weights)
    return model


def find_weights(arch: str, weights: str) -> Path | None:
    """The file that `weights` stands for, downloaded if need be; None for "none". Raises TrialError."""
    if weights == "none":
        return None
    if weights != "imagenet":
        if not Path(weights).is_file():
            raise TrialError(
                f"weights = {weights!r}: no such file; expected imagenet, none or a state-dict file with "
                "torchvision's key names"
            )
        return Path(weights)
    url = IMAGENET[arch].url
    target = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            digest = target.stem.rsplit("-", 1)[1]  # torchvision's file names end in the start of their SHA-256
            torch.hub.download_url_to_file(url, str(target), hash_prefix=digest, progress=False)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise TrialError(
                f"weights = 'imagenet': {target.name} is neither in {target.parent} nor downloadable ({error}). Put "
                "the file there by hand, or choose weights=none (from scratch) or weights=FILE (a state dict)"
            ) from error
    return target


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, in either form. Raises TrialError."""
    return state_of(load_file(path), path)


def state_of(content: Any, path: Path) -> dict[str, Tensor]:
    """A state dict of floating-point and integer tensors, as float32 where they are floats. Raises TrialError."""
    state = content
    if isinstance(state, dict) and isinstance(state.get("model"), dict):  # as this project writes best.pt
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TrialError(f"{path}: expected a state dict (names to tensors), found {type(state).__name__}")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def load_file(path: Path, raw: IO[bytes] | None = None) -> Any:
    """Whatever was saved, read without running any code of it. raw: its content, where that was read before. Raises
    TrialError."""
    try:
        return torch.load(raw or path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrialError(f"{path}: not a state-dict file that loads safely ({first})") from error


def load_backbone(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load everything but the head. Raises TrialError."""
    backbone = {name: value for name, value in state.items() if not name.startswith("fc.")}
    head = {name: value for name, value in model.state_dict().items() if name.startswith("fc.")}
    load_all(model, {**backbone, **head}, f"weights = {source!r}")


def load_all(model: nn.Module, given: dict[str, Tensor], source: str) -> None:
    """Load every weight. Raises TrialError naming the keys that are missing, left over or misshapen."""
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in given]
    problems += [f"unknown {name}" for name in given if name not in own]
    problems += [
        f"{name} is {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise TrialError(f"{source} does not fit: {'; '.join(problems[:4])}{more}. Check arch and the file")
    model.load_state_dict(given)


def match_classes(classes: Sequence[str], cache: Cache, source: str, advice: str) -> list[int]:
    """For each label of the cache the output of that name; another order is put right. Raises TrialError."""
    missing, unknown = sorted(set(cache.classes) - set(classes)), sorted(set(classes) - set(cache.classes))
    if missing or unknown or len(classes) != len(cache.classes):
        raise TrialError(
            f"{source} knows {len(classes)} classes and {cache.directory} holds {len(cache.classes)}: only in the "
            f"weights {_few(unknown)}; only in the cache {_few(missing)}. {advice}"
        )
    return [classes.index(name) for name in cache.classes]


def _few(names: list[str]) -> str:
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) or "none"
