"""How images get to a GPU: resident in its memory where that suffices, else read ahead of the step that needs them.

On a CPU none of this is at work: batches are read from the mapped cache as they are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor

from data.cache import Split, require_whole

COPIED_AT_ONCE = 1024  # images on their way to a GPU's memory

Planned = tuple[Tensor, Tensor]  # rows (B,) int64 and draw (5, B) float32 of a batch


class GpuImages:
    """(N, S, S, 3) uint8 of a split, mapped from the cache; `resident` while the GPU's memory holds them all."""

    def __init__(self, mapped: np.ndarray, device: torch.device) -> None:
        self.mapped, self.device = mapped, device
        self.resident: Tensor | None = None
        self._ahead: tuple[np.ndarray, Future[Tensor]] | None = None  # rows of the batch at hand, and its images

    def __len__(self) -> int:
        return len(self.mapped)

    def place(self) -> None:
        """Copy all of them to the GPU. Raises DataError and torch.OutOfMemoryError."""
        require_whole(self.mapped)
        resident = torch.empty(self.mapped.shape, dtype=torch.uint8, device=self.device)
        for start in range(0, len(self), COPIED_AT_ONCE):
            part = slice(start, start + COPIED_AT_ONCE)
            resident[part] = sent(torch.from_numpy(np.array(self.mapped[part])), self.device)
        self.resident = resident

    def give_back(self) -> bool:
        """Free the GPU's memory: from here on they are read from the cache. False where they were not resident."""
        was_resident, self.resident = self.resident is not None, None
        return was_resident

    def take(self, rows: np.ndarray) -> Tensor:
        """rows (B,) int64 -> (B, 3, S, S) uint8 on the GPU, channels last in memory. Raises DataError."""
        if self.resident is not None:
            batch = self.resident[sent(torch.from_numpy(rows), self.device)]
        elif self._ahead and np.array_equal(rows, self._ahead[0]):
            batch = sent(self._ahead[1].result(), self.device)
        else:
            batch = sent(read_rows(self.mapped, rows), self.device)
        return batch.permute(0, 3, 1, 2)

    @contextmanager
    def reading_ahead(self, plan: Iterable[Planned]) -> Iterator[Iterable[Planned]]:
        """The plan of an epoch; when a batch of it is asked for, the reading of the next one has begun."""
        if self.resident is not None:
            yield plan
            return
        reader = ThreadPoolExecutor(1)
        try:
            yield self._announce(plan, reader)
        finally:
            self._ahead = None
            reader.shutdown(cancel_futures=True)

    def _announce(self, plan: Iterable[Planned], reader: ThreadPoolExecutor) -> Iterator[Planned]:
        def begin(planned: Planned) -> tuple[np.ndarray, Future[Tensor]]:
            rows = planned[0].numpy()
            return rows, reader.submit(lambda: read_rows(self.mapped, rows).pin_memory())

        begun = ((planned, begin(planned)) for planned in plan)
        for (planned, self._ahead), _ in pairwise(chain(begun, [None])):
            yield planned


def to_device(split: Split, device: torch.device) -> Split:
    """On a GPU with its images as `GpuImages`, none of them there yet; on a CPU as it is."""
    return Split(GpuImages(split.images, device), split.labels) if device.type == "cuda" else split


def place_images(splits: Iterable[GpuImages], budget: int) -> int:
    """Those that fit into what is left of `budget` bytes, in this order. Returns the bytes taken."""
    left = budget
    for images in splits:
        if images.mapped.nbytes <= left:
            with suppress(torch.OutOfMemoryError):  # another program has taken it meanwhile
                images.place()
                left -= images.mapped.nbytes
    return budget - left


@contextmanager
def read_ahead(images: np.ndarray | GpuImages, plan: Iterable[Planned]) -> Iterator[Iterable[Planned]]:
    """The plan of an epoch, the images of its next batch being read meanwhile where that is of use: not on a CPU, whose
    cores are all at work."""
    if not isinstance(images, GpuImages):
        yield plan
        return
    with images.reading_ahead(plan) as announced:
        yield announced


def read_rows(images: np.ndarray, rows: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 in host memory. Raises DataError."""
    require_whole(images)
    return torch.from_numpy(images[rows])


def sent(values: Tensor, device: torch.device) -> Tensor:
    """On the device. From pageable memory the host would wait until the GPU has come to the copy."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
