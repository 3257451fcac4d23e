"""Which state of the code trained a network: the commit, and whether files differed from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def code_revision(root: Path = ROOT) -> str:
    """The commit's 40 hex digits, "+changes" behind them where a tracked file differs; "unknown" without git.

    A copy of the project unpacked inside somebody else's repository is "unknown" too: that commit is not ours.
    """
    try:
        top, commit = _git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != root.resolve():
            return "unknown"
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, ValueError, subprocess.SubprocessError):
        return "unknown"


def _git(root: Path, *words: str) -> str:
    """Without taking git's lock: trials run at once, and beside the person who commits."""
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
