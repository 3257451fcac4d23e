"""Batches are tensors: uint8 to the device, then cropped, flipped and normalised there, whole batches at a time.

On a CPU images are read from the mapped cache as they are needed. On a GPU they are resident in its memory where that
suffices, and otherwise read ahead of the step that needs them. Where memory is short, batches are computed in parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain, pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.cache import Cache, Split, require_whole
from trial import TrialError
from trial.device import give_back_freed_memory

T = TypeVar("T")

# The statistics that torchvision's ImageNet weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Random resized crop: between half and all of the area. torchvision's default of 8 % suits 90 epochs on a million
# images; on 1,200 photos and 5 epochs it was no better (48.6 % against 50.1 %, n = 3 seeds: docs/log.md).
CROP_SCALE = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)

AT_ONCE = (
    32  # images that a CPU prepares at once: so that they stay in the processor's caches from one operation to the next
)
_COPIED_AT_ONCE = 1024  # images on their way to a GPU's memory


class PlannedBatch(NamedTuple):
    """Which images a batch has, and all that is random about them."""

    rows: Tensor  # (B,) int64
    draw: Tensor  # (5, B) float32 uniform in 0..1: what `crop_and_flip` needs


def store_px(image_px: int) -> int:
    """Side of the stored square for a network that sees `image_px`: the usual 256 for 224."""
    return round(image_px * 256 / 224)


def _to_uint8_batch(images: np.ndarray | GpuImages, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows of (N, S, S, 3) uint8 -> (B, 3, S, S) uint8 on the device, channels last in memory. Raises DataError."""
    if isinstance(images, GpuImages):
        return images.take(rows)
    return sent(_read_rows(images, rows), device).permute(0, 3, 1, 2)


def plan_epoch(
    n: int, batch_size: int, generator: torch.Generator, weights: Tensor | None = None
) -> Iterator[PlannedBatch]:
    """Every image once, in a new order; with `weights` (N,), n draws with replacement in proportion to them.

    `generator` decides all that is random in an epoch, and decides it here, so that a step can be repeated.

    The batches are as equal as they can be, so of two sizes at most, B at most batch_size: a last batch of two or three
    images would throw batch normalisation's statistics far off.
    """
    if weights is None:
        order = torch.randperm(n, generator=generator)
    else:
        order = torch.multinomial(weights, n, replacement=True, generator=generator)
    for rows in order.tensor_split(batches_per_epoch(n, batch_size)):
        rows = rows.sort().values  # the memory map is read forward
        yield PlannedBatch(rows, torch.rand(5, len(rows), generator=generator))  # on the CPU: the same on any device


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
    images: np.ndarray | GpuImages, labels: Tensor, planned: PlannedBatch, image_px: int
) -> tuple[Tensor, Tensor]:
    """A planned batch, or some of its images, cropped and flipped at random.

    images: (N, S, S, 3) uint8; labels: (N,) int64 on the device.
    Returns (B, 3, image_px, image_px) float32 normalised and (B,) int64.
    """
    rows, draw = planned

    def part(images_of: slice) -> Tensor:
        return crop_and_flip(
            _to_uint8_batch(images, rows[images_of].numpy(), labels.device), image_px, draw[:, images_of]
        )

    batch = _normalized(part, len(rows), image_px, labels.device)
    return batch, labels[sent(rows, labels.device)]


def evaluation_batch(
    images: np.ndarray | GpuImages, labels: Tensor, rows: slice, image_px: int, fill_to: int = 0
) -> tuple[Tensor, Tensor]:
    """Some images in order, the middle of each cut out: the same pixels every time. Shapes as in `training_batch`.

    fill_to: the least number of images; the last one is repeated, and has no label."""
    numbers = np.minimum(np.arange(rows.start, max(rows.stop, rows.start + fill_to)), rows.stop - 1)

    def part(images_of: slice) -> Tensor:
        return _crop_center(_to_uint8_batch(images, numbers[images_of], labels.device), image_px).float()

    return _normalized(part, len(numbers), image_px, labels.device), labels[rows]


def _normalized(part: Callable[[slice], Tensor], n: int, image_px: int, device: torch.device) -> Tensor:
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
    """MEAN and STD of 0..255, (1, 3, 1, 1), made once per device: copying numbers to a GPU waits for it."""
    return tuple(torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))


def _crop_center(batch: Tensor, image_px: int) -> Tensor:
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


# -- images on a GPU -----------------------------------------------------------------------------------------------------


class GpuImages:
    """(N, S, S, 3) uint8 of a split, mapped from the cache; `resident` while the GPU's memory holds them all."""

    def __init__(self, mapped: np.ndarray, device: torch.device) -> None:
        self.mapped, self.device = mapped, device
        self.resident: Tensor | None = None
        self.announced: tuple[np.ndarray, Future[Tensor]] | None = (
            None  # rows of the batch that is read ahead, its images
        )

    def __len__(self) -> int:
        return len(self.mapped)

    def place(self) -> None:
        """Copy all of them to the GPU. Raises DataError and torch.OutOfMemoryError."""
        require_whole(self.mapped)
        resident = torch.empty(self.mapped.shape, dtype=torch.uint8, device=self.device)
        for start in range(0, len(self), _COPIED_AT_ONCE):
            part = slice(start, start + _COPIED_AT_ONCE)
            resident[part] = sent(torch.from_numpy(np.array(self.mapped[part])), self.device)
        self.resident = resident

    def free(self) -> bool:
        """Free the GPU's memory: from here on images are read from the cache. False where they were not resident."""
        was_resident, self.resident = self.resident is not None, None
        return was_resident

    def take(self, rows: np.ndarray) -> Tensor:
        """rows (B,) int64 -> (B, 3, S, S) uint8 on the GPU, channels last in memory. Raises DataError."""
        if self.resident is not None:
            batch = self.resident[sent(torch.from_numpy(rows), self.device)]
        elif self.announced and np.array_equal(rows, self.announced[0]):
            batch = sent(self.announced[1].result(), self.device)
        else:
            batch = sent(_read_rows(self.mapped, rows), self.device)
        return batch.permute(0, 3, 1, 2)

    def announce(self, plan: Iterable[PlannedBatch], reader: ThreadPoolExecutor) -> Iterator[PlannedBatch]:
        """The plan; when a batch is asked for, the reader has begun with the one after it."""

        def begin(planned: PlannedBatch) -> tuple[np.ndarray, Future[Tensor]]:
            rows = planned[0].numpy()
            return rows, reader.submit(lambda: _read_rows(self.mapped, rows).pin_memory())

        begun = ((planned, begin(planned)) for planned in plan)
        for (planned, self.announced), _ in pairwise(chain(begun, [None])):
            yield planned


@contextmanager
def read_ahead(images: np.ndarray | GpuImages, plan: Iterable[PlannedBatch]) -> Iterator[Iterable[PlannedBatch]]:
    """The plan of an epoch, the images of its next batch being read meanwhile where that is of use: not on a CPU, whose
    cores are all busy."""
    if not isinstance(images, GpuImages) or images.resident is not None:
        yield plan
        return
    reader = ThreadPoolExecutor(1)
    try:
        yield images.announce(plan, reader)
    finally:
        images.announced = None
        reader.shutdown(cancel_futures=True)


def to_device(split: Split, device: torch.device) -> Split:
    """On a GPU with its images as `GpuImages`, none of them there yet; on a CPU as it is."""
    return Split(GpuImages(split.images, device), split.labels) if device.type == "cuda" else split


def place_images(splits: Iterable[GpuImages], budget: int) -> int:
    """Place those that fit into what is left of `budget` bytes, in this order. Returns the bytes taken."""
    free = budget
    for images in splits:
        if images.mapped.nbytes <= free:
            with suppress(torch.OutOfMemoryError):  # another program has taken it meanwhile
                images.place()
                free -= images.mapped.nbytes
    return budget - free


def _read_rows(images: np.ndarray, rows: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 in host memory. Raises DataError."""
    require_whole(images)
    return torch.from_numpy(images[rows])


def sent(values: Tensor, device: torch.device) -> Tensor:
    """The values on the device. From pageable memory the host would wait until the GPU has done the copy."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


# -- micro-batches -------------------------------------------------------------------------------------------------------
# Where memory does not suffice for a step, a GPU's images make room; then it is computed in micro-batches. The batch size
# stays what it was. A step that failed is repeated whole, with the same images and crops, from the state before it. The
# gradients of the parts add up to the batch's own (each is weighted by its share of the images), but batch normalisation
# sees only its part.

# torch's messages where it raises a plain RuntimeError.
_HOST_MESSAGES = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "Cannot allocate memory",
    "could not create a memory object",
    "could not create a primitive",
)
_GPU_MESSAGES = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA out of memory",
    "CUDA error: out of memory",  # of pinned host memory too
)
# Too little memory only where little is free: otherwise a fault of the driver, or of what the libraries were built for.
_AMBIGUOUS_MESSAGES = (
    "unable to find an engine",  # cuDNN: of those that fit, none (pytorch issue 108645)
    "CUBLAS_STATUS_NOT_INITIALIZED",  # its handle's own workspace did not fit
)
_LITTLE = 0.25  # of the GPU's memory; a search for the fastest convolution may want gigabytes


class MicroBatch:
    """How many images are computed at once; halved for good where memory does not suffice.

    free_memory: frees memory that nothing depends on, such as that of images on a GPU; False where there is none left. It
    comes first: smaller parts change what batch normalisation sees, and so the result.
    """

    def __init__(self, images: int, smallest: int = 1, free_memory: Callable[[], bool] = lambda: False) -> None:
        self.images, self.smallest, self.free_memory = images, min(smallest, images), free_memory

    def run(self, work: Callable[[int], T], undo: Callable[[], None]) -> T:
        """The result of work(images), repeated where that ran out of memory: with as many as long as memory can be freed,
        then with fewer. `undo` is called before each repetition. Raises TrialError where the smallest does not fit."""
        while True:
            try:
                return work(self.images)
            except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
                if not is_out_of_memory(error):
                    raise
                reason = (str(error).strip() or "MemoryError").splitlines()[0]
            # Outside of the handler: until here the error keeps the failed step's tensors alive.
            undo()
            was_freed = self.free_memory()
            give_back_freed_memory()
            if was_freed:
                print(f"out of memory ({reason}): images leave the GPU, and are read from the cache from here on")
                continue
            if self.images <= self.smallest:
                raise TrialError(
                    f"out of memory with {self.images} image(s) at once ({reason}); choose a smaller image_px or arch, "
                    "or stop what else uses the memory"
                )
            self.images = max(self.smallest, self.images // 2)
            print(f"out of memory ({reason}): {self.images} images at once from here on")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's or the host's memory was too small; no other error is cured by smaller parts. Raises TrialError for
    one that may mean that, where enough is free."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if any(text in str(error) for text in _AMBIGUOUS_MESSAGES):
        free, total = _free_gpu_memory()
        if free > _LITTLE * total:
            raise TrialError(
                f"{str(error).strip().splitlines()[0]}, with {free >> 20} of {total >> 20} MiB of the GPU free: not for want "
                "of memory; try --precision fp32, or another build of torch (python -m experiments doctor)"
            ) from error
        return True
    return any(text in str(error) for text in (*_HOST_MESSAGES, *_GPU_MESSAGES))


def _free_gpu_memory() -> tuple[int, int]:
    """Bytes that a step could still have, including those that torch keeps for reuse; and all of the GPU's."""
    free, total = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated(), total


def split_planned(planned: PlannedBatch, most: int, least: int) -> list[PlannedBatch]:
    """The batch in parts as equal as they can be, of at most `most` and at least `least` images."""
    rows, draw = planned
    parts = max(1, min(-(-len(rows) // most), len(rows) // least))
    return [PlannedBatch(*part) for part in zip(rows.tensor_split(parts), draw.tensor_split(parts, dim=1))]


def smallest_micro_batch(arch: str, image_px: int) -> int:
    """A single value per channel has no variance to normalise by. A ResNet shrinks its input 32 times, others also cut edges."""
    return 1 if image_px > (32 if arch.startswith("resnet") else 128) else 2


class Buffers:
    """Batch normalisation's running statistics: a forward pass changes them, so a failed step has to put them back."""

    def __init__(self, model: nn.Module) -> None:
        of_type: dict[torch.dtype, list[torch.Tensor]] = {}
        for buffer in model.buffers():
            of_type.setdefault(buffer.dtype, []).append(buffer)
        self._pairs = [(own, [torch.empty_like(buffer) for buffer in own]) for own in of_type.values()]

    @torch.no_grad()
    def keep(self) -> None:
        for own, copies in self._pairs:
            torch._foreach_copy_(copies, own)  # one kernel; a copy per buffer would be sixty launches per step

    @torch.no_grad()
    def restore(self) -> None:
        for own, copies in self._pairs:
            torch._foreach_copy_(own, copies)
