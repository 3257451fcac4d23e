"""Images that do not fit into a GPU's memory: the next batch is read while the GPU is busy with this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor

from data.cache import require_whole

Planned = tuple[Tensor, Tensor]


@contextmanager
def read_ahead(
    images: np.ndarray | Tensor, plan: Iterable[Planned], device: torch.device
) -> Iterator[tuple[np.ndarray | Tensor | Prefetched, Iterable[Planned]]]:
    """Images and plan of an epoch; both as they are on a CPU, whose cores are all at work, and where the images already
    lie on the GPU."""
    if device.type != "cuda" or isinstance(images, Tensor):
        yield images, plan
        return
    prefetched = Prefetched(images)
    try:
        yield prefetched, prefetched.ahead(plan)
    finally:
        prefetched.close()


class Prefetched:
    """(N, S, S, 3) uint8 mapped from the cache, for a GPU. Made for one epoch; `close` it."""

    def __init__(self, images: np.ndarray, pinned: bool = True) -> None:
        self.images, self.pinned = images, pinned
        self._reader = ThreadPoolExecutor(1)
        self._current: tuple[np.ndarray, Future[Tensor]]  # rows of the batch at hand, and its images

    def ahead(self, plan: Iterable[Planned]) -> Iterator[Planned]:
        """The same batches; when one is asked for, the reading of the next has begun."""
        begun = ((planned, self._read_later(planned)) for planned in plan)
        for (planned, self._current), _ in pairwise(chain(begun, [None])):
            yield planned

    def take(self, rows: np.ndarray) -> Tensor:
        """(B, S, S, 3) uint8 in host memory; rows (B,) of the batch at hand, or of a part of it. Raises DataError."""
        announced, batch = self._current
        if np.array_equal(rows, announced):
            return batch.result()
        return read_rows(self.images, rows)

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)

    def _read_later(self, planned: Planned) -> tuple[np.ndarray, Future[Tensor]]:
        rows = planned[0].numpy()
        return rows, self._reader.submit(self._read, rows)

    def _read(self, rows: np.ndarray) -> Tensor:
        batch = read_rows(self.images, rows)
        return batch.pin_memory() if self.pinned else batch


def read_rows(images: np.ndarray, rows: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 in host memory. Raises DataError."""
    require_whole(images)
    return torch.from_numpy(images[rows])
