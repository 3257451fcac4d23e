"""Where memory does not suffice for a step, a GPU's images make room; then it is computed in parts.

The batch size stays what it was. A step that failed is repeated whole, with the same images and crops, from the state
before it. The gradients of the parts add up to the batch's own (each is weighted by its share of the images), but
batch normalisation sees only its part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from trial.device import give_back_freed_memory
from trial.errors import TrialError

T = TypeVar("T")

# How torch words it where it raises a plain RuntimeError.
HOST_MESSAGES = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "Cannot allocate memory",
    "could not create a memory object",
    "could not create a primitive",
)
GPU_MESSAGES = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA out of memory",
    "CUDA error: out of memory",  # of pinned host memory too
)
# Want of memory only where there is little: else a fault of the driver, or of what the libraries were built for.
AMBIGUOUS_MESSAGES = (
    "unable to find an engine",  # cuDNN: of those that fit, none (pytorch issue 108645)
    "CUBLAS_STATUS_NOT_INITIALIZED",  # its handle's own workspace did not fit
)
LITTLE = 0.25  # of the GPU's memory; a search for the fastest convolution may want gigabytes


class AtOnce:
    """How many images are computed at once; halved for good where memory does not suffice.

    give_back: frees memory that nothing depends on, such as that of images on a GPU; False where there is none left. It comes
    first: smaller parts change what batch normalisation sees, and so the result.
    """

    def __init__(self, images: int, least: int = 1, give_back: Callable[[], bool] = lambda: False) -> None:
        self.images, self.least, self.give_back = images, min(least, images), give_back

    def run(self, work: Callable[[int], T], undo: Callable[[], None]) -> T:
        """The result of work(images), repeated where that ran out of memory: with as many as long as something can be given
        back, then with fewer. `undo` is called before each repetition. Raises TrialError where the least does not fit."""
        while True:
            try:
                return work(self.images)
            except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
                if not is_out_of_memory(error):
                    raise
                reason = (str(error).strip() or "MemoryError").splitlines()[0]
            # Outside of the handler: until here the error holds on to the failed step's tensors.
            undo()
            gave_back = self.give_back()
            give_back_freed_memory()
            if gave_back:
                print(f"out of memory ({reason}): images leave the GPU, and are read from the cache from here on")
                continue
            if self.images <= self.least:
                raise TrialError(
                    f"out of memory with {self.images} image(s) at once ({reason}); choose a smaller image_px or arch, "
                    "or end what else uses the memory"
                )
            self.images = max(self.least, self.images // 2)
            print(f"out of memory ({reason}): {self.images} images at once from here on")


def is_out_of_memory(error: BaseException) -> bool:
    """Of the GPU or of the host; any other error is not cured by smaller parts. Raises TrialError for one that says nothing
    of memory, of which there is enough."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if any(text in str(error) for text in AMBIGUOUS_MESSAGES):
        free, total = free_gpu_memory()
        if free > LITTLE * total:
            raise TrialError(
                f"{str(error).strip().splitlines()[0]}, with {free >> 20} of {total >> 20} MiB of the GPU free: not for want "
                "of memory; try --precision fp32, or another build of torch (python -m experiments doctor)"
            ) from error
        return True
    return any(text in str(error) for text in (*HOST_MESSAGES, *GPU_MESSAGES))


def free_gpu_memory() -> tuple[int, int]:
    """Bytes that a step could still have, those that torch keeps for reuse among them; and all of the GPU's."""
    free, total = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated(), total


def split_planned(planned: tuple[Tensor, Tensor], at_once: int, least: int) -> list[tuple[Tensor, Tensor]]:
    """Rows (B,) and draw (5, B) in parts as equal as they can be, of at most `at_once` and at least `least` images."""
    rows, draw = planned
    parts = max(1, min(-(-len(rows) // at_once), len(rows) // least))
    return list(zip(rows.tensor_split(parts), draw.tensor_split(parts, dim=1)))


def least_images(image_px: int) -> int:
    """A ResNet shrinks its input 32 times; of a single value a channel there is no variance to normalise by."""
    return 1 if image_px > 32 else 2


class Buffers:
    """Batch normalisation's running statistics: a forward pass changes them, so a failed step has to put them back."""

    def __init__(self, model: nn.Module) -> None:
        of_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            of_type.setdefault(buffer.dtype, []).append(buffer)
        self._pairs = [(own, [torch.empty_like(buffer) for buffer in own]) for own in of_type.values()]

    @torch.no_grad()
    def keep(self) -> None:
        for own, kept in self._pairs:
            torch._foreach_copy_(kept, own)  # one kernel; a copy a buffer would be sixty launches a step

    @torch.no_grad()
    def restore(self) -> None:
        for own, kept in self._pairs:
            torch._foreach_copy_(own, kept)
