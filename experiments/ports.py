"""A port for NNI's web page."""

from __future__ import annotations

import os
import socket

from experiments.errors import ExperimentError

FIRST = int(os.environ.get("FOOD11_FIRST_PORT", 8080))  # 8080 is NNI's own default


def is_free(port: int) -> bool:
    """Whether a server could listen there now, on all addresses as NNI does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def find_port(first: int = FIRST) -> int:
    """The first free port from `first` on. Raises ExperimentError after a hundred taken ones."""
    for port in range(first, first + 100):
        if is_free(port):
            return port
    raise ExperimentError(f"no free port from {first} to {first + 99}; stop old experiments with: nnictl stop --all")
