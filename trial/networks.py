"""Which networks a trial can train: torchvision's classifiers, how each is built, and the images that it takes.

A network's head is its last linear or convolutional layer: `fc`, `classifier.N`, `head`, `heads.head`. Auxiliary heads, which
only help a training from scratch, are left out.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from trial import TrialError

# Which of torchvision's weights "imagenet" and "imagenet_v2" name, the first that a network has; vit_h_14 has only the second.
GENERATIONS = {"imagenet": ("IMAGENET1K_V1", "IMAGENET1K_SWAG_LINEAR_V1"), "imagenet_v2": ("IMAGENET1K_V2",)}

# Windows and patches divide the image; other networks take any size from a smallest one on.
_MULTIPLES = {"vit_b_16": 16, "vit_l_16": 16, "vit_b_32": 32, "vit_l_32": 32, "vit_h_14": 14, "maxvit_t": 224}


def build_network(arch: str, classes: int, image_px: int) -> nn.Module:
    """torchvision's network with random weights: logits (B, classes) from (B, 3, image_px, image_px).

    Raises TrialError for an image_px that it cannot take.
    """
    require_size(arch, image_px)
    options: dict[str, Any] = {}
    if arch.startswith("vit_"):
        options = {"image_size": image_px}  # one position is learned for each patch
    elif arch == "maxvit_t":
        options = {"input_size": (image_px, image_px)}
    elif arch in (
        "googlenet",
        "inception_v3",
    ):  # as torchvision loads their ImageNet weights, which came from TensorFlow
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    return models.get_model(arch, num_classes=classes, **options)


def require_size(arch: str, image_px: int) -> None:
    """Raises TrialError where the network cannot take images of that side."""
    if step := _MULTIPLES.get(arch):
        below, above = image_px // step * step, -(-image_px // step) * step
        if below != above:
            sizes = " or ".join(str(size) for size in (below, above) if size)
            raise TrialError(f"image_px = {image_px}: {arch} takes multiples of {step}; choose {sizes}")
        return
    smallest = smallest_px(arch)
    if image_px < smallest:
        raise TrialError(f"image_px = {image_px}: {arch} takes {smallest} and more; choose that or another arch")


def smallest_px(arch: str) -> int:
    """Side in pixels of the smallest image that the network takes."""
    if arch.startswith("swin_"):
        return 16  # torchvision says 224; smaller windows are padded
    return _MULTIPLES.get(arch) or max(16, *models.get_model_weights(arch).DEFAULT.meta["min_size"])


def imagenet_url(arch: str, generation: str) -> str:
    """The address of torchvision's weights. generation: a key of `GENERATIONS`. Raises TrialError where there are none."""
    published = models.get_model_weights(arch).__members__
    for name in GENERATIONS[generation]:
        if name in published:
            return published[name].url
    raise TrialError(f"weights = {generation!r}: torchvision has no second weights of {arch}; choose weights=imagenet")


def weights_mib(arch: str) -> int:
    """Disk that the network's weights take in float32, with 1000 classes and its event files, rounded up to tens."""
    return (models.get_model_weights(arch).DEFAULT.meta["num_params"] * 4 // 2**20 // 10 + 1) * 10


def head_of(model: nn.Module) -> str:
    """The name of the layer that gives the logits."""
    return [name for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))][-1]


def has_random_layers(model: nn.Module) -> bool:
    """Whether training draws random numbers within the network, in dropout or stochastic depth."""
    kinds = ("Dropout", "StochasticDepth")
    return any(type(layer).__name__ in kinds and layer.p > 0 for layer in model.modules())


# -- weights as they were published --------------------------------------------------------------------------------------


def fit_published(state: dict[str, Tensor], arch: str, image_px: int) -> dict[str, Tensor]:
    """Without auxiliary heads; a vision transformer's learned positions interpolated to the patches of image_px (bicubic, as in
    torchvision's `interpolate_embeddings`; Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.2)."""
    if arch in ("googlenet", "inception_v3"):
        return {name: value for name, value in state.items() if not name.startswith(("aux", "AuxLogits"))}
    positions = state.get("encoder.pos_embedding")
    if arch.startswith("vit_") and positions is not None and positions.dim() == 3:
        try:
            return dict(interpolate_embeddings(image_px, _MULTIPLES[arch], dict(state)))
        except ValueError:
            return state  # not of a square image: refused by its shape
    return state


def arch_by_size(state: dict[str, Tensor]) -> str:
    """The torchvision network of these weights by their number; "" where no one network has as many.

    The head is taken to be the last matrix with a bias, as torchvision writes it, and the images to be of the usual size.
    """
    ignored = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index", "relative_coords_table")
    weights = {
        name: value for name, value in state.items() if not name.endswith(ignored) and not name.startswith("aux")
    }
    names = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    head = next((name for name in reversed(names) if weights[f"{name}.weight"].dim() in (2, 4)), None)
    if head is None:
        return ""
    matrix = weights[f"{head}.weight"]
    per_class = matrix[0].numel() + (f"{head}.bias" in weights)
    count = sum(value.numel() for value in weights.values()) + (1000 - len(matrix)) * per_class
    found = [name for name in models.list_models(module=models) if count in _parameters(name)]
    return found[0] if len(found) == 1 else ""


def _parameters(arch: str) -> set[int]:
    """Of each of its published weights: a vision transformer for larger images has more positions."""
    return {weights.meta["num_params"] for weights in models.get_model_weights(arch)}
