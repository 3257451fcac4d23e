"""The weights in what was loaded: unwrapped, their names as torchvision's; and which network they are of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trial.errors import TrialError

# Where training scripts keep the weights (a trial's best.pt: "model"); an average of them only where there is nothing else.
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights", "params")
AVERAGES = ("model_ema", "state_dict_ema", "ema", "ema_state_dict")

# Put into the names by torch.compile, FSDP and activation checkpointing, wherever a module was wrapped.
INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")

# One of several networks in a file (MoCo, BYOL, DINO) that follows another.
FOLLOWERS = re.compile(r"encoder_k|momentum|target|teacher|ema")

# Blocks of the four stages, and whether they are bottlenecks.
RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
OTHERS = (
    (r"embedder\.embedder\.convolution", "a ResNet with the names of Hugging Face's transformers"),
    (r"(cls_token|class_token|pos_embed|patch_embed)", "a vision transformer"),
    (r"(denseblock|denselayer)", "a DenseNet"),
    (r"features\.\d+\.(\d+|conv)\.", "a MobileNet, EfficientNet or ConvNeXt"),
    (r"(blocks|stages)\.\d+\.", "an EfficientNet or ConvNeXt with timm's names"),
    (r"features\.\d+\.squeeze\.", "a SqueezeNet"),
    (r"features\.\d+\.(weight|bias)$", "a VGG or AlexNet"),
    (r"(Mixed_|inception)", "an Inception network"),
    (r"^conv1\.0\.weight$", "a ResNet with a deeper stem (resnet18d, resnet50d)"),
)
_ANCHORS = ("layer1.0.conv1.weight", "conv1.weight")


class StateDict(NamedTuple):
    """Names as torchvision's, values float32 where they are floats; notes: what was done, for the log."""

    values: dict[str, Tensor]
    notes: list[str]


def state_of(content: Any, source: str) -> StateDict:
    """The one network's weights in whatever was loaded. Counters of batches, which files from before torch 0.4.1 lack, are 0.

    source: begins the message. Raises TrialError where there are no weights, or those of several networks.
    """
    where, state = _unwrap(content, source)
    values = {_without_inserted(name): value.detach() for name, value in state.items()}
    prefix = _prefix(values, source)
    others = [name for name in values if not name.startswith(prefix)]
    values = {
        name.removeprefix(prefix): _as_float32(value) for name, value in values.items() if name.startswith(prefix)
    }
    for name in [name for name in values if name.endswith("running_var")]:
        counter = name.removesuffix("running_var") + "num_batches_tracked"
        if counter not in values or values[counter].is_floating_point():  # some halve it with the rest, to infinity
            values[counter] = torch.tensor(0)
    ours = where == ["model"] and {"classes", "hyperparameters"} <= set(content)
    notes = [f"taken from its {'.'.join(where)}"] if where and not ours else []
    notes += [f"the prefix {prefix} taken off the names"] if prefix else []
    notes += [f"{few(others)} left out"] if others else []
    return StateDict(values, notes)


def _as_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _without_inserted(name: str) -> str:
    for part in INSERTED:
        name = name.replace(part, "")
    return name


def _unwrap(content: Any, source: str) -> tuple[list[str], dict[str, Tensor]]:
    """The keys that lead to a dict of tensors, and that; what else it holds is not of the network."""
    where = []
    while isinstance(content, dict):
        pairs = [(name, value) for name, value in content.items() if isinstance(name, str)]
        inner = [name for name, value in pairs if isinstance(value, dict) and _holds_tensors(value)]
        known = next((name for name in (*WRAPPERS, *AVERAGES) if name in inner), None)
        tensors = {name: value for name, value in pairs if isinstance(value, Tensor)}
        if tensors and known is None:
            return where, tensors
        if not inner:
            break
        where.append(known or _one_of(inner, source))
        content = content[where[-1]]
    raise TrialError(f"{source}: expected a state dict (names to tensors), found {_describe(content)}")


def _holds_tensors(content: dict) -> bool:
    """In it or in a wrapper in it; an optimizer's state counts its tensors by number."""
    return any(
        isinstance(name, str) and (isinstance(value, Tensor) or (isinstance(value, dict) and _holds_tensors(value)))
        for name, value in content.items()
    )


def _one_of(networks: list[str], source: str) -> str:
    """The only one, or the only one that follows no other. Raises TrialError."""
    leading = [name for name in networks if not FOLLOWERS.search(name)]
    if len(networks) == 1 or len(leading) == 1:
        return (leading or networks)[0]
    raise TrialError(
        f"{source}: it holds several networks ({few(networks)}): save the one that is meant to a file of its own"
    )


def _describe(content: Any) -> str:
    if not isinstance(content, dict):
        return type(content).__name__
    if {"state", "param_groups"} <= set(content):
        return "an optimizer's state alone"
    return f"{', '.join(map(repr, list(content)[:4]))} without tensors" if content else "an empty dict"


def _prefix(names: Iterable[str], source: str) -> str:
    """What stands before all names of the one ResNet in it, or else before all names."""
    last, first = _ANCHORS
    found = {name.removesuffix(last) for name in names if f".{name}".endswith(f".{last}")}
    found = {prefix for prefix in found if prefix + first in names}
    if found:
        return _one_of(sorted(found), source)
    shared = os.path.commonprefix(list(names)).rpartition(".")
    return "" if re.match(r"(conv|bn|layer|fc|features|blocks|stages)", shared[0] or "conv") else shared[0] + "."


def kind_of(state: dict[str, Tensor]) -> str:
    """The network that these are of, torchvision's name where it is a ResNet; "" where nothing is known."""
    if other := next((kind for pattern, kind in OTHERS if any(re.search(pattern, name) for name in state)), ""):
        return other
    if "layer1.0.conv1.weight" not in state:
        return ""
    stages = tuple(len({name.split(".")[1] for name in state if name.startswith(f"layer{i}.")}) for i in range(1, 5))
    kind = RESNETS.get((stages, "layer1.0.conv3.weight" in state), "a ResNet")
    if state["layer1.0.conv1.weight"].shape[0] != 64:
        return f"a wide or grouped {kind.removeprefix('a ')}"
    return kind


def named(kind: str) -> str:
    """With its article."""
    return kind if kind.startswith("a") else f"a {kind}"


def few(names: list[str], count: int = 3, between: str = ", ") -> str:
    """The first of them, and how many more there are; none of them drives a terminal."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    shown = between.join(names[:count]) + more
    return "".join(letter for letter in shown if letter.isprintable()) or "none"
