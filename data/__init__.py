"""From photos on disk to a cache of uint8 arrays, made once. Imports nothing else of this project.

`source` lists a folder or one of the `archives`, `layouts` finds its splits and classes, `splits` decides which photos each
split of the cache gets, `decode` (with `formats`) makes squares of them, and `prepare` puts these into a `cache`, whose photos
`contents` knows by their bytes. `show` prints counts and draws a contact sheet; `sample` draws a generated Food-11. This file has
what they share: the error, and how names are printed.
"""

from __future__ import annotations

import sys
import unicodedata

_JOINERS = "\u200c\u200d"  # without a shape too, but part of Persian and Indic words and of emoji


class DataError(Exception):
    """The one error that the data commands show a person, a line without traceback: what was found, what was expected, and
    the next command."""


# -- names as a terminal shows them: any character printable, columns counted ---------------------------------------------


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
