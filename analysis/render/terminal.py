"""Text on a terminal: tables, and names out of a database that must not drive it."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
import textwrap
import unicodedata
from typing import Any

from ..reading.values import strict_json

UNLIMITED = 10_000  # columns, where the output is no terminal: one line a row, for grep
_TURNS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # turn the writing direction
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")  # ECMA-48: CSI and OSC sequences
_WRAPPED_LEAST = 24


def clean(text: str) -> str:
    """One line without control characters: an experiment's name must neither move the cursor nor forge a line."""
    kept = (" " if character in "\n\r\t\u2028\u2029" else character for character in _ESCAPES.sub("", text))
    return "".join(c for c in kept if unicodedata.category(c) not in ("Cc", "Cs") and c not in _TURNS)


def show_any_name() -> None:
    """A terminal that has no character for a name still shows the rest."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str = "") -> None:
    """Prints, each line cleaned."""
    print("\n".join(clean(line) for line in text.split("\n")))


def safe_json(value: Any) -> str:
    """Indented strict JSON; characters that could drive a terminal as escapes, all others readable."""
    text = strict_json(value, indent=2)
    return "".join(c if c == "\n" or clean(c) == c else f"\\u{ord(c):04x}" for c in text)


def columns(rows: list[tuple[str, list[str]]]) -> str:
    """A label, and a cell an experiment or arm; as wide as the terminal, long cells go on in the next line."""
    room, first = shutil.get_terminal_size((100, 24)).columns, 22
    width = max(20, (room - first) // len(rows[0][1]) - 2)
    lines = []
    for label, cells in rows:
        whole = len(cells) == 1  # then a path stays in one piece
        wrap = textwrap.TextWrapper(width, break_on_hyphens=not whole, break_long_words=not whole)
        wrapped = [textwrap.wrap(clean(label), first), *(wrap.wrap(clean(cell)) for cell in cells)]
        for parts in itertools.zip_longest(*wrapped, fillvalue=""):
            padded = [_padded(part, size) for part, size in zip(parts, [first] + [width] * len(cells), strict=True)]
            lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def grid(heads: list[str], rows: list[list[str]]) -> str:
    """A line a row, each column as wide as its longest cell; the last one goes on below where the terminal ends."""
    cells = [[clean(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(map(_width, column)) for column in zip(*cells)][:-1]
    indent = sum(widths) + 2 * len(widths)
    room = _room()
    lines = []
    for row in cells:
        start = "  ".join(_padded(cell, width) for cell, width in zip(row, widths))
        last = textwrap.wrap(row[-1], max(_WRAPPED_LEAST, room - indent)) or [""]
        lines.append(f"{start}  {last[0]}".rstrip())
        lines += [" " * indent + more for more in last[1:]]
    return "\n".join(lines)


def indented(text: str) -> str:
    """A remark below a row."""
    return textwrap.fill(clean(text), max(_WRAPPED_LEAST, _room()), initial_indent="    ", subsequent_indent="    ")


def _room() -> int:
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else UNLIMITED


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - _width(text))


def _width(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )
