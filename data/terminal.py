"""Names as a terminal shows them: any character printable, columns counted."""

from __future__ import annotations

import sys
import unicodedata

_JOINERS = "\u200c\u200d"  # without a shape too, but part of Persian and Indic words and of emoji


def printable(text: str) -> str:
    """One line: what has no shape, turns the direction of writing or is no text at all is escaped."""
    return "".join(c.encode("unicode_escape").decode() if _is_shapeless(c) else c for c in text)


def show_any_name() -> None:
    """From here on no name makes printing fail: what the terminal or the log has no character for is escaped."""
    for stream in (sys.stdout, sys.stderr):
        stream = getattr(stream, "file", stream)  # NNI's wrapper around a trial's log
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def columns_of(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )


def padded(text: str, columns: int) -> str:
    """`text` and spaces up to so many columns on a terminal."""
    return text + " " * (columns - columns_of(text))


def _is_shapeless(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs") and character not in _JOINERS
