"""Batches are tensors: uint8 to the device, then cropped, flipped and normalised there, whole batches at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data.cache import Cache
from trial.errors import TrialError
from trial.images import GpuImages, read_rows, sent

# The statistics that torchvision's ImageNet weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Random resized crop: between half and all of the area. torchvision's default of 8 % suits 90 epochs on a million
# images; on 1,200 photos and 5 epochs it was no better (48.6 % against 50.1 %, n = 3 seeds: docs/log.md).
CROP_SCALE = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)

AT_ONCE = 32  # images that a CPU prepares at once: what lies between two steps of it stays in the processor's caches


def store_px(image_px: int) -> int:
    """Side of the stored square for a network that sees `image_px`: the usual 256 for 224."""
    return round(image_px * 256 / 224)


def to_uint8_batch(images: np.ndarray | GpuImages, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows of (N, S, S, 3) uint8 -> (B, 3, S, S) uint8 on the device, channels last in memory. Raises DataError."""
    if isinstance(images, GpuImages):
        return images.take(rows)
    return sent(read_rows(images, rows), device).permute(0, 3, 1, 2)


def plan_epoch(
    n: int, batch_size: int, generator: torch.Generator, weights: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in a new order; with `weights` (N,), n draws with replacement in proportion to them.

    `generator` decides all that is random in an epoch, and decides it here, so that a step can be repeated.

    Yields rows (B,) int64 and what `crop_and_flip` needs, (5, B) float32. The batches are as equal as they can be, so of
    two sizes at most, B at most batch_size: a last batch of two or three images would throw batch normalisation's
    statistics far off.
    """
    if weights is None:
        order = torch.randperm(n, generator=generator)
    else:
        order = torch.multinomial(weights, n, replacement=True, generator=generator)
    for rows in order.tensor_split(batches_per_epoch(n, batch_size)):
        rows = rows.sort().values  # the memory map is read forward
        yield rows, torch.rand(5, len(rows), generator=generator)  # on the CPU: the same on any device


def require_a_batch(cache: Cache) -> None:
    """Raises TrialError where there is a single image to train on."""
    n = sum(cache.manifest["counts"]["training"])
    if n < 2:
        raise TrialError(f"{cache.directory}: {n} training image; batch normalisation needs two. Prepare more photos")


def batches_per_epoch(n: int, batch_size: int) -> int:
    """None is of one image, which has no variance: an odd number in pairs begins with a batch of three."""
    return max(1, min(math.ceil(n / batch_size), n // 2))


def balancing_weights(labels: np.ndarray) -> Tensor:
    """(N,) int64 -> (N,) float64: each class that has images is as likely to be drawn as any other."""
    return torch.from_numpy(1.0 / np.bincount(labels)[labels])


def training_batch(
    images: np.ndarray | GpuImages, labels: Tensor, planned: tuple[Tensor, Tensor], image_px: int
) -> tuple[Tensor, Tensor]:
    """A planned batch, or some of its images, cropped and flipped at random.

    images: (N, S, S, 3) uint8; labels: (N,) int64 on the device; planned: rows (B,), draw (5, B).
    Returns (B, 3, image_px, image_px) float32 normalised and (B,) int64.
    """
    rows, draw = planned

    def part(images_of: slice) -> Tensor:
        return crop_and_flip(
            to_uint8_batch(images, rows[images_of].numpy(), labels.device), image_px, draw[:, images_of]
        )

    batch = normalized(part, len(rows), image_px, labels.device)
    return batch, labels[sent(rows, labels.device)]


def evaluation_batch(
    images: np.ndarray | GpuImages, labels: Tensor, rows: slice, image_px: int, size: int = 0
) -> tuple[Tensor, Tensor]:
    """Some images in order, the middle of each cut out: the same pixels every time. Shapes as in `training_batch`.

    size: of the batch of images at least; the last one is repeated, and has no label."""
    numbers = np.minimum(np.arange(rows.start, max(rows.stop, rows.start + size)), rows.stop - 1)

    def part(images_of: slice) -> Tensor:
        return crop_center(to_uint8_batch(images, numbers[images_of], labels.device), image_px).float()

    return normalized(part, len(numbers), image_px, labels.device), labels[rows]


def normalized(part: Callable[[slice], Tensor], n: int, image_px: int, device: torch.device) -> Tensor:
    """The n images that `part` makes, (B, 3, S, S) float32 of 0..255 each, on the scale that the pretrained weights
    expect: (n, 3, S, S), channels last in memory."""
    mean, std = _statistics(device)
    batch = torch.empty((n, 3, image_px, image_px), device=device, memory_format=torch.channels_last)
    at_once = AT_ONCE if device.type == "cpu" else n
    for start in range(0, n, at_once):
        images_of = slice(start, min(start + at_once, n))
        batch[images_of] = part(images_of).sub_(mean).div_(std)
    return batch


@lru_cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD of 0..255, (1, 3, 1, 1), made once a device: copying numbers to a GPU waits for it."""
    return tuple(torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))


def crop_center(batch: Tensor, image_px: int) -> Tensor:
    """The middle square. (B, 3, S, S) -> (B, 3, image_px, image_px), S >= image_px."""
    margin = (batch.shape[-1] - image_px) // 2
    return batch[..., margin : margin + image_px, margin : margin + image_px]


def crop_and_flip(batch: Tensor, image_px: int, draw: Tensor) -> Tensor:
    """Each image its own random box (area CROP_SCALE, aspect CROP_RATIO), scaled to image_px, half of them mirrored.

    batch: (B, 3, S, S); draw: (5, B) uniform in 0..1, deciding area, aspect, x, y and mirror.

    One bilinear sampling for crop, scaling and mirror. The stored squares are at most 8/7 of image_px, so that the
    scaling is never by more than that: no antialiasing is needed.
    """
    n = len(batch)
    area = CROP_SCALE[0] + draw[0] * (CROP_SCALE[1] - CROP_SCALE[0])
    log_ratio = torch.tensor(CROP_RATIO).log()
    ratio = torch.exp(log_ratio[0] + draw[1] * (log_ratio[1] - log_ratio[0]))
    width = (area * ratio).sqrt().clamp(max=1.0)  # as a fraction of the stored side
    height = (area / ratio).sqrt().clamp(max=1.0)
    # Grid coordinates are of pixel centres and run from -1 to 1 over the stored square. The boxes are upright: x depends
    # on the column alone and y on the row, so that no matrix is multiplied at every pixel as F.affine_grid does.
    centres = (torch.arange(image_px) * 2 + 1) / image_px - 1  # (S,)
    mirrored = torch.where(draw[4] < 0.5, -1.0, 1.0)
    x = (width * mirrored)[:, None] * centres + ((draw[2] * 2 - 1) * (1 - width))[:, None]  # (B, S)
    y = height[:, None] * centres + ((draw[3] * 2 - 1) * (1 - height))[:, None]
    x, y = sent(torch.stack((x, y)), batch.device)
    shape = (n, image_px, image_px)
    grid = torch.stack((x[:, None, :].expand(shape), y[:, :, None].expand(shape)), dim=3)  # (B, S, S, 2)
    return F.grid_sample(batch.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
