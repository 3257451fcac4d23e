"""The hyperparameters of a training: default, unit and legal range of each field.

Every key of a search space is a field of `Hyperparameters`, every field is a flag of `python -m trial`. Defaults are those of
the lab: batch 32, lr 0.001, momentum 0.9, StepLR by 0.1 every 7 epochs, 25 epochs at most, patience 5.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from trial import TrialError

# torchvision's classifiers, by name: not read from it, as importing it takes longer than finding a mistake in a flag.
_NAMES = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf
regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf
regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50
resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13
vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 wide_resnet50_2
"""
ARCHITECTURES = tuple(_NAMES.split())
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
    arch: str = field(
        default="resnet18", metadata={"choices": ARCHITECTURES, "help": "network, of torchvision's classifiers"}
    )
    weights: str = field(
        default="imagenet",
        metadata={
            "help": "imagenet (torchvision's first weights), imagenet_v2 (its second), none (from scratch) or a state-dict file with "
            "torchvision's keys"
        },
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


def _nearest(value: str, choices: tuple[str, ...]) -> str:
    """All of a few choices; of many those that are most like the value."""
    if len(choices) <= 8:
        return ", ".join(choices)
    names = difflib.get_close_matches(value, choices, n=4, cutoff=0.4) or ["resnet18", "mobilenet_v3_small"]
    return f"{len(choices)} names, such as {', '.join(names)} (all of them: docs/reference.md)"


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
        raise TrialError(f"{spec.name} = {value!r}; expected one of {_nearest(value, choices)}")
    if "low" in spec.metadata:
        low, high = spec.metadata["low"], spec.metadata["high"]
        if not (math.isfinite(value) and low <= value <= high):
            raise TrialError(f"{spec.name} = {value!r}; expected {low:g} to {high:g} ({spec.metadata['help']})")
