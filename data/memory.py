"""Memory that a process frees and needs again at once: kept, or given back to the system. Of glibc's allocator alone."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let the process keep the memory that it frees; it stays within what it needed at its highest.

    glibc returns large blocks to the system at once. A training step frees all its activations, and a decoder its photo, so
    that the next one would fault them in again, page by page: a twentieth to a tenth of a step's time. Other C
    libraries are left as they are, and so is a process whose address space is limited (ulimit -v): what it keeps could not
    be used for anything else.
    """
    if any(
        resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    ):
        return
    _mallopt(M_MMAP_MAX, 0)
    _mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Return free memory to the system, and large blocks as soon as they are freed from here on."""
    _mallopt(M_MMAP_MAX, 65_536)  # glibc's own choice
    _mallopt(M_TRIM_THRESHOLD, 128 * 1024)
    trim()


def trim() -> None:
    """Return free memory to the system once."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _mallopt(option: int, value: int) -> None:
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(option, value)
