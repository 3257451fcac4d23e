"""A GPU that is not there: tensors that say cuda:0, are in host memory and computed by the CPU's kernels.

    with PretendedGpu(memory=24 << 30) as gpu:
        run_trial(h, cache, Settings(folder, device="cuda"), report)
    gpu.launches, gpu.waits, gpu.copies, gpu.peak

What it finds: an operator that is given tensors of both devices (torch's own error is raised), a wait of the host for the
GPU, a copy from or to pageable memory, launches, shapes of convolutions, bytes that are alive, and what happens out of
memory. What it cannot find: a kernel that does not exist on a GPU, cuDNN's choices, numerical differences, times.

torch's FakeTensorMode runs a forward pass for a GPU that is not there, but its autograd engine refuses the backward one
("hasPrimaryContext expects a valid device index"). So C++ is told the truth (the CPU), and Python that it is cuda:0. It
needs private parts of torch: written for 2.14.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from contextlib import ExitStack, nullcontext
from unittest.mock import patch

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from trial import batches

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
BLOCK = 512  # bytes: torch's allocator rounds up to it
# Operators whose result the host needs before it can go on.
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.bincount.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
}
# Operators that compute nothing.
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "lift_fresh"}
NO_KERNEL |= {"_unsafe_view", "_local_scalar_dense", "resize_", "set_"}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
NOT_NUMPY = (
    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
)

_active: list[PretendedGpu] = []


class OnGpu(torch.Tensor):
    """Says that it is on cuda:0; `host` is the tensor that it really is."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor):
        self = torch.Tensor._make_subclass(cls, host.detach(), False)
        self.host = host
        return self

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self, **_):
        return f"OnGpu({self.host!r})"

    def get_device(self):
        return 0

    def to(self, *args, **kwargs):
        known = {name: kwargs[name] for name in ("device", "dtype", "non_blocking", "memory_format") if name in kwargs}
        device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **known)
        if device is None or device.type == "cuda":
            keep = {"memory_format": memory_format} if memory_format else {}
            return super().to(dtype=dtype or self.dtype, copy=kwargs.get("copy", False), **keep)
        return _active[-1].to_host(self).to(dtype=dtype or self.dtype)

    def cpu(self, *_, **__):
        return self.to("cpu")

    def cuda(self, *_, **__):
        return self

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *_, **__):
        raise TypeError(NOT_NUMPY)

    __array__ = numpy

    def pin_memory(self, *_):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _active[-1].dispatch(func, args, kwargs or {})


class Event:
    """torch.cuda.Event. Waiting for it is a wait of the thread that does so."""

    def record(self, *_):
        pass

    def synchronize(self):
        _active[-1].events += 1


class PretendedGpu:
    """memory: bytes in all; capability: (8, 0) and later compute in bfloat16."""

    def __init__(self, memory: int = 24 << 30, name: str = "Pretended GPU", capability: tuple[int, int] = (8, 0)):
        self.memory, self.name, self.capability = memory, name, capability
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()  # of the host, by their reason
        self.copies: Counter[tuple[str, str]] = Counter()  # ("to GPU" or "to host", "queued" or "pageable")
        self.convolved: Counter[tuple] = Counter()  # shapes of images that a network's first convolution saw
        self.alive = self.peak = self.reserved = self.events = 0
        self._sizes: dict[int, int] = {}  # of storages
        self._pinned: weakref.WeakSet = weakref.WeakSet()
        self._pinned_lock = threading.Lock()
        self._stack, self._operators = ExitStack(), _Operators(self)

    def reset(self) -> None:
        """Begin counting anew."""
        for counter in (self.launches, self.waits, self.copies, self.convolved):
            counter.clear()
        self.peak, self.events = self.alive, 0

    def to_host(self, tensor: OnGpu) -> torch.Tensor:
        self._copied("to host", is_queued=False)
        with _disable_current_modes():
            return tensor.host.detach().clone(memory_format=torch.preserve_format)

    # -- memory ----------------------------------------------------------------------------------------------------------
    def _wrap(self, value):
        if not isinstance(value, torch.Tensor) or isinstance(value, OnGpu):
            return value
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._allocate(key, -(-storage.nbytes() // BLOCK) * BLOCK)
            weakref.finalize(storage, self._freed, key)
        value._storage_object = storage  # lives as long as a tensor of it
        wrapped = OnGpu(value)
        wrapped._storage_object = storage
        return wrapped

    def _allocate(self, key: int, size: int) -> None:
        if self.alive + size > self.memory:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. (pretended)")
        self._sizes[key] = size
        self.alive += size
        self.peak, self.reserved = max(self.peak, self.alive), max(self.reserved, self.alive)

    def _freed(self, key: int) -> None:
        self.alive -= self._sizes.pop(key, 0)

    def empty_cache(self) -> None:
        self.reserved = self.alive

    # -- copies ----------------------------------------------------------------------------------------------------------
    def _copied(self, direction: str, is_queued: bool) -> None:
        self.copies[direction, "queued" if is_queued else "pageable"] += 1
        if not is_queued:
            self.waits[f"copy {direction}"] += 1

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        key = tensor.untyped_storage()._cdata
        with self._pinned_lock:  # the thread that reads ahead pins too
            return any(pinned.untyped_storage()._cdata == key for pinned in self._pinned)

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        if not self._is_pinned(tensor):
            with _disable_current_modes():
                tensor = tensor.detach().clone()
            with self._pinned_lock:
                self._pinned.add(tensor)
        return tensor

    # -- operators -------------------------------------------------------------------------------------------------------
    def dispatch(self, func, args, kwargs):
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        device = kwargs.get("device")
        makes_ours = device is not None and torch.device(device).type == "cuda"
        if (ours or device is not None) and func._can_decompose() and func is not aten.contiguous.default:
            with self._operators:  # in inference mode composite operators arrive whole
                decomposed = func.decompose(*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        if not ours and not makes_ours:
            return func(*args, **kwargs)
        if func is aten.copy_.default and not isinstance(args[0], OnGpu):
            return self._copy_to_host(*args, **kwargs)
        self._note_transfers(func, args, kwargs, tensors, ours)
        self._count(func, args)
        return self._compute(func, args, kwargs, ours, makes_ours)

    def _copy_to_host(self, target, source, non_blocking=False):
        self._copied("to host", non_blocking and self._is_pinned(target))
        with _disable_current_modes():
            return target.copy_(source.host)

    def _note_transfers(self, func, args, kwargs, tensors, ours) -> None:
        """Copies between the devices; torch's error for an operator that is given both."""
        if func is aten._to_copy.default and not ours:
            self._copied("to GPU", kwargs.get("non_blocking") and self._is_pinned(args[0]))
        elif func is aten.copy_.default and len(ours) == 1:
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            self._copied("to GPU", non_blocking and self._is_pinned(args[1]))
        elif func in INDEXING and isinstance(args[0], OnGpu):
            for index in args[1]:
                if isinstance(index, OnGpu) and index.dtype in (torch.bool, torch.uint8):
                    self.waits["boolean index"] += 1
                elif isinstance(index, torch.Tensor) and not isinstance(index, OnGpu):
                    self._copied("to GPU", is_queued=False)
        elif strangers := [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.dim()]:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({func}: {[tuple(tensor.shape) for tensor in strangers]})"
            )

    def _count(self, func, args) -> None:
        name = func.overloadpacket.__name__
        if func in WAITS:
            self.waits[name] += 1
        if name == "convolution" and args[0].shape[1] == 3:
            self.convolved[tuple(args[0].shape)] += 1
        if name not in NO_KERNEL and not _is_view(func):
            self.launches[name] += 1

    def _compute(self, func, args, kwargs, ours, makes_ours):
        wrappers = {id(tensor.host): tensor for tensor in ours}
        args, kwargs = pytree.tree_map(lambda leaf: leaf.host if isinstance(leaf, OnGpu) else leaf, (args, kwargs))
        if makes_ours:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        with _disable_current_modes():
            result = func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            return result
        return pytree.tree_map(
            lambda leaf: wrappers.get(id(leaf)) if id(leaf) in wrappers else self._wrap(leaf), result
        )

    # -- the rest of torch.cuda ------------------------------------------------------------------------------------------
    def __enter__(self):
        stack = self._stack
        torch._C._ensureCUDADeviceGuardSet()
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        overwrite = torch.__future__.set_overwrite_module_params_on_conversion  # Module.to makes new parameters
        stack.callback(overwrite, torch.__future__.get_overwrite_module_params_on_conversion())
        overwrite(True)
        for name, value in self._cuda().items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        autocast, save, group = torch.autocast, torch.save, torch.optim.Optimizer._group_tensors_by_device_and_dtype
        stack.enter_context(patch.object(torch, "autocast", lambda kind, **options: autocast("cpu", **options)))
        stack.enter_context(patch.object(torch.Tensor, "pin_memory", lambda tensor, *_: self._pin(tensor)))
        stack.enter_context(patch.object(torch, "save", lambda content, *rest: save(self._on_host(content), *rest)))
        # C++ groups an optimiser's tensors, and says cpu: a loss scale would be copied there.
        stack.enter_context(
            patch.object(
                torch.optim.Optimizer,
                "_group_tensors_by_device_and_dtype",
                staticmethod(
                    lambda *args, **options: {
                        (CUDA, dtype): tensors for (_, dtype), tensors in group(*args, **options).items()
                    }
                ),
            )
        )
        for flags, name in (
            (torch.backends.cudnn, "benchmark"),
            (torch.backends.cudnn, "allow_tf32"),
            (torch.backends.cuda.matmul, "allow_tf32"),
        ):
            stack.callback(setattr, flags, name, getattr(flags, name))  # what a trial sets is put back
        stack.callback(_statistics_of_no_device)
        _active.append(self)
        stack.callback(_active.pop)
        stack.enter_context(self._operators)
        return self

    def __exit__(self, *error):
        self._stack.close()

    def _cuda(self) -> dict:
        """What stands in for names of torch.cuda."""
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda *_: None,
            "device": lambda *_: nullcontext(),
            "get_device_name": lambda *_: self.name,
            "get_device_capability": lambda *_: self.capability,
            "get_arch_list": lambda: [
                "sm_50",
                "sm_60",
                "sm_70",
                "sm_75",
                "sm_80",
                "sm_86",
                "sm_90",
            ],  # as wheels for CUDA 12.6
            "is_bf16_supported": lambda *_, **__: self.capability >= (8, 0),
            "mem_get_info": lambda *_: (self.memory - self.reserved, self.memory),
            "memory_reserved": lambda *_: self.reserved,
            "memory_allocated": lambda *_: self.alive,
            "empty_cache": self.empty_cache,
            "synchronize": lambda *_: self.waits.update(["synchronize"]),
            "is_current_stream_capturing": lambda: False,
            "Event": Event,
        }

    def _on_host(self, content):
        return pytree.tree_map(lambda leaf: self.to_host(leaf) if isinstance(leaf, OnGpu) else leaf, content)


class _Operators(TorchDispatchMode):
    """Sees the operators that have no tensor of the GPU yet: copies to it, and what is made on it."""

    def __init__(self, gpu: PretendedGpu):
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self._gpu.dispatch(func, args, kwargs or {})


def _statistics_of_no_device() -> None:
    """The trial keeps them on the device that it first used: this one is no more."""
    batches._statistics.cache_clear()


def _is_view(func) -> bool:
    aliased = any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)
    return aliased and func is not aten.contiguous.default
