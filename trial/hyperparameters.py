"""The hyperparameters of a training: default, unit and legal range of each field.

Every key of a search space is a field of `Hyperparameters`, every field is a flag of `python -m trial`. Defaults are those of
the lab: batch 32, lr 0.001, momentum 0.9, StepLR by 0.1 every 7 epochs, 25 epochs at most, patience 5.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from trial import TrialError

ARCHITECTURES = ("resnet18", "resnet50")
_BALANCES = ("none", "sampler", "softmax")


def _number(default: float, low: float, high: float, text: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "help": text})


@dataclass(frozen=True)
class Hyperparameters:
    batch_size: int = _number(32, 2, 4096, "images per step; batch normalisation needs two")
    lr: float = _number(0.001, 1e-8, 10.0, "learning rate of SGD at the first epoch")
    momentum: float = _number(0.9, 0.0, 0.9999, "momentum of SGD")
    weight_decay: float = _number(0.0, 0.0, 1.0, "L2 penalty of SGD")
    step_size: int = _number(7, 1, 10_000, "epochs between two decays of the learning rate")
    gamma: float = _number(0.1, 1e-6, 1.0, "factor of each decay")
    epochs: int = _number(25, 1, 10_000, "epochs at most")
    patience: int = _number(5, 0, 10_000, "epochs without a better validation accuracy before stopping; 0: never stop")
    image_px: int = _number(224, 16, 1024, "side of the square that the network sees, in pixels")
    seed: int = _number(0, 0, 2**31 - 1, "of the new head, the order of the images and their augmentation")
    arch: str = field(default="resnet18", metadata={"choices": ARCHITECTURES, "help": "network"})
    weights: str = field(
        default="imagenet",
        metadata={"help": "imagenet (torchvision's), none (from scratch) or a state-dict file with torchvision's keys"},
    )
    teacher: str = field(default="", metadata={"help": "weights file of a trained network to learn from; empty: none"})
    temperature: float = _number(4.0, 0.1, 100.0, "softens the outputs of teacher and student before they are compared")
    distill_weight: float = _number(
        0.0, 0.0, 1.0, "share of the teacher in the loss, the rest is the labels'; 0: no teacher"
    )
    balance: str = field(
        default="none",
        metadata={
            "choices": _BALANCES,
            "help": "against classes of unequal size: sampler (each as likely to be drawn), softmax (balanced softmax) or none",
        },
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            _check(spec, getattr(self, spec.name))

    def merged(self, values: dict[str, Any]) -> Hyperparameters:
        """These, with `values` in their place. Raises TrialError for an unknown key or an illegal value."""
        if not isinstance(values, dict):
            raise TrialError(f"hyperparameters should be a mapping of names to values, found {values!r}")
        specs = {spec.name: spec for spec in fields(self)}
        if unknown := sorted(set(values) - set(specs)):
            raise TrialError(
                f"unknown hyperparameter {', '.join(map(repr, unknown))}; this trial knows {', '.join(specs)}. "
                "Correct the search space or the flag."
            )
        return replace(self, **{name: _convert(specs[name], value) for name, value in values.items()})


def describe_fields() -> dict[str, dict[str, Any]]:
    """{name: {type, default, help, and low/high or choices}}, ready for JSON: what `check` compares a search space with."""
    return {
        spec.name: {"type": spec.type, "default": spec.default, **spec.metadata} for spec in fields(Hyperparameters)
    }


def _convert(spec: Any, value: Any) -> Any:
    """An int where a whole float is given for an int field, and a float for an int; nothing else is converted."""
    if isinstance(value, bool) or spec.default is MISSING:
        return value
    if spec.type == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    return float(value) if spec.type == "float" and isinstance(value, int) else value


def _check(spec: Any, value: Any) -> None:
    kind = {"int": int, "float": (int, float), "str": str}[spec.type]
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TrialError(
            f"{spec.name} = {value!r} is {type(value).__name__}; expected {spec.type} ({spec.metadata['help']})"
        )
    choices = spec.metadata.get("choices")
    if choices and value not in choices:
        raise TrialError(f"{spec.name} = {value!r}; expected one of {', '.join(choices)}")
    if "low" in spec.metadata:
        low, high = spec.metadata["low"], spec.metadata["high"]
        if not (math.isfinite(value) and low <= value <= high):
            raise TrialError(f"{spec.name} = {value!r}; expected {low:g} to {high:g} ({spec.metadata['help']})")
