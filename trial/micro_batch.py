"""Where memory does not suffice for a step, a GPU's images make room; then it is computed in micro-batches.

The batch size stays what it was. A step that failed is repeated whole, with the same images and crops, from the state
before it. The gradients of the parts add up to the batch's own (each is weighted by its share of the images), but
batch normalisation sees only its part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from trial import TrialError
from trial.batches import PlannedBatch
from trial.device import give_back_freed_memory

T = TypeVar("T")

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


def smallest_micro_batch(image_px: int) -> int:
    """A ResNet shrinks its input 32 times; a single value per channel has no variance to normalise by."""
    return 1 if image_px > 32 else 2


class Buffers:
    """Batch normalisation's running statistics: a forward pass changes them, so a failed step has to put them back."""

    def __init__(self, model: nn.Module) -> None:
        of_type: dict[torch.dtype, list[torch.Tensor]] = {}
        for buffer in model.buffers():
            of_type.setdefault(buffer.dtype, []).append(buffer)
        self._pairs = [(own, [torch.empty_like(buffer) for buffer in own]) for own in of_type.values()]

    @torch.no_grad()
    def keep(self) -> None:
        for own, kept in self._pairs:
            torch._foreach_copy_(kept, own)  # one kernel; a copy per buffer would be sixty launches per step

    @torch.no_grad()
    def restore(self) -> None:
        for own, kept in self._pairs:
            torch._foreach_copy_(own, kept)
