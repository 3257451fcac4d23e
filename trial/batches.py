"""Batches are tensors: uint8 to the device, then cropped, flipped and normalised there, whole batches at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# The statistics that torchvision's ImageNet weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Random resized crop: between half and all of the area. torchvision's default of 8 % suits 90 epochs on a million
# images; on 1,200 photos and 5 epochs it was no better (48.6 % against 50.1 %, n = 3 seeds: docs/log.md).
CROP_SCALE = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


def store_px(image_px: int) -> int:
    """Side of the stored square for a network that sees `image_px`: the usual 256 for 224."""
    return round(image_px * 256 / 224)


def to_uint8_batch(images: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows of (N, S, S, 3) uint8 -> (B, 3, S, S) uint8 on the device, channels last in memory."""
    return torch.from_numpy(images[rows]).to(device, non_blocking=True).permute(0, 3, 1, 2)


def training_batches(
    images: np.ndarray, labels: Tensor, batch_size: int, image_px: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in a new order, randomly cropped and flipped. `generator` decides all of it.

    images: (N, S, S, 3) uint8; labels: (N,) int64 on the device.
    Yields (B, 3, image_px, image_px) float32 normalised and (B,) int64. The batches are as equal as they can be, B at
    most batch_size: a last batch of two or three images would throw batch normalisation's statistics far off.
    """
    order = torch.randperm(len(images), generator=generator)
    for rows in order.tensor_split(math.ceil(len(images) / batch_size)):
        rows = rows.sort().values  # the memory map is read forward
        yield augment(to_uint8_batch(images, rows.numpy(), labels.device), image_px, generator), labels[rows]


def evaluation_batches(
    images: np.ndarray, labels: Tensor, image_px: int, batch_size: int = 64
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in order, its middle cut out: the same pixels every time."""
    for start in range(0, len(images), batch_size):
        rows = np.arange(start, min(start + batch_size, len(images)))
        yield (
            normalize(crop_center(to_uint8_batch(images, rows, labels.device), image_px)),
            labels[start : start + batch_size],
        )


def augment(batch: Tensor, image_px: int, generator: torch.Generator) -> Tensor:
    """Random resized crop and horizontal flip. (B, 3, S, S) uint8 -> (B, 3, image_px, image_px) float32 normalised."""
    return normalize(crop_and_flip(batch, image_px, generator))


def normalize(batch: Tensor) -> Tensor:
    """0..255 to the scale that the pretrained weights expect, channels last in memory."""
    mean = torch.tensor(MEAN, device=batch.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD, device=batch.device).view(1, 3, 1, 1) * 255
    return ((batch.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def crop_center(batch: Tensor, image_px: int) -> Tensor:
    """The middle square. (B, 3, S, S) -> (B, 3, image_px, image_px), S >= image_px."""
    margin = (batch.shape[-1] - image_px) // 2
    return batch[..., margin : margin + image_px, margin : margin + image_px]


def crop_and_flip(batch: Tensor, image_px: int, generator: torch.Generator) -> Tensor:
    """Each image its own random box (area CROP_SCALE, aspect CROP_RATIO), scaled to image_px, half of them mirrored.

    One bilinear sampling for crop, scaling and mirror. The stored squares are at most 8/7 of image_px, so that the
    scaling is never by more than that: no antialiasing is needed.
    """
    n = len(batch)
    draw = torch.rand(5, n, generator=generator)  # area, aspect, x, y, mirror; drawn on the CPU: the same on any device
    area = CROP_SCALE[0] + draw[0] * (CROP_SCALE[1] - CROP_SCALE[0])
    log_ratio = torch.tensor(CROP_RATIO).log()
    ratio = torch.exp(log_ratio[0] + draw[1] * (log_ratio[1] - log_ratio[0]))
    width = (area * ratio).sqrt().clamp(max=1.0)  # as a fraction of the stored side
    height = (area / ratio).sqrt().clamp(max=1.0)
    theta = torch.zeros(n, 2, 3)  # affine grid coordinates run from -1 to 1
    theta[:, 0, 0] = width * torch.where(draw[4] < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (draw[2] * 2 - 1) * (1 - width)
    theta[:, 1, 2] = (draw[3] * 2 - 1) * (1 - height)
    grid = F.affine_grid(theta.to(batch.device), [n, 3, image_px, image_px], align_corners=False)
    pixels = batch.float().contiguous(memory_format=torch.channels_last)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
