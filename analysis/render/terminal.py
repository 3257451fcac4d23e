"""Text on a terminal: documents, and names out of a database that must not drive it."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

from prettytable import PrettyTable

from ..reading.values import strict_json
from .document import Block, Details, Document, Figure, Heading, Items, Row, Statement, Table, Text

UNLIMITED = 10_000  # columns, where the output is no terminal: one record per line, for grep
_TURNS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # turn the writing direction
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")  # ECMA-48: CSI and OSC sequences
_LABEL = 22
_NARROWEST = 20


def clean(text: str) -> str:
    """One line without control characters: an experiment's name must neither move the cursor nor forge a line."""
    characters = (" " if character in "\n\r\t\u2028\u2029" else character for character in _ESCAPES.sub("", text))
    return "".join(c for c in characters if unicodedata.category(c) not in ("Cc", "Cs") and c not in _TURNS)


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


def render(document: Document) -> str:
    """The whole document without its figures."""
    parts = [clean(document.title)] if document.title else []
    if document.statement:
        parts.append(f"verdict: {document.statement.verdict}\n{clean(document.statement.text)}")
    if document.notes:
        parts.append("\n".join(f"note: {clean(note)}" for note in document.notes))
    return "\n\n".join([*parts, *([_blocks(document.blocks)] if document.blocks else [])])


def _blocks(blocks: Sequence[Block]) -> str:
    """Blank lines between blocks, none below a heading and above a caption."""
    text, after_heading = "", True
    for block in blocks:
        is_caption = isinstance(block, Text) and block.caption
        if part := _block(block):
            text += ("\n" if after_heading or is_caption else "\n\n") + part
            after_heading = isinstance(block, Heading)
    return text.removeprefix("\n")


def _block(block: Block) -> str:
    match block:
        case Heading() | Text() | Statement():
            return clean(block.text)
        case Items():
            return "\n".join([*filter(None, [clean(block.label)]), *(f"- {clean(item)}" for item in block.items)])
        case Table():
            return _table(block)
        case Figure():
            return ""
        case Details():
            return f"{clean(block.summary)}\n{_blocks(block.blocks)}"
    raise TypeError(f"{type(block).__name__} is no block of a document")


def _table(table: Table) -> str:
    """Facts are as wide as the terminal and wrap in each cell; of records the last cell alone wraps, where a terminal ends."""
    if table.has_labels:
        head = [Row(table.corner, table.columns)] if any(table.columns) else []
        return _aligned(_wrapped_facts([*head, *table.rows], len(table.columns)))
    lines = [[clean(cell) for cell in cells] for cells in [table.columns, *(row.cells for row in table.rows)]]
    return _aligned(_wrapped_last(lines))


def _wrapped_facts(rows: Sequence[Row], count: int) -> list[list[str]]:
    room = shutil.get_terminal_size((100, 24)).columns
    width = max(_NARROWEST, (room - _LABEL) // max(count, 1) - 2)
    whole = count == 1  # then a path stays in one piece
    wrap = textwrap.TextWrapper(width, break_on_hyphens=not whole, break_long_words=not whole)
    return [[textwrap.fill(clean(row.label), _LABEL), *(wrap.fill(clean(cell)) for cell in row.cells)] for row in rows]


def _wrapped_last(lines: list[list[str]]) -> list[list[str]]:
    room = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else UNLIMITED
    used = sum(max(map(len, column)) + 2 for column in list(zip(*lines))[:-1])
    return [[*line[:-1], textwrap.fill(line[-1], max(_NARROWEST, room - used))] for line in lines]


def _aligned(lines: list[list[str]]) -> str:
    """Columns two blanks apart, as wide as a terminal draws their characters."""
    table = PrettyTable(border=False, header=False, align="l", left_padding_width=0, right_padding_width=1)
    table.add_rows(lines)
    return "\n".join(line[1:].rstrip() for line in table.get_string().split("\n"))  # each begins with a blank
