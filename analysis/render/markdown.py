"""Markdown as GitHub reads it: names out of a database are text and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .terminal import clean

_SPECIAL = re.compile(r"[\\`*{}\[\]<>|~&$#!]|(?<!\w)_|_(?!\w)")  # within a word an underscore is one


def text(words: object) -> str:
    """One line in which no character means anything to Markdown."""
    return _SPECIAL.sub(lambda found: "\\" + found[0], clean(str(words)))


def code(words: str) -> str:
    """One line in the type of a program; a backquote, which would end it, becomes an apostrophe."""
    return f"`{clean(words).replace('`', chr(39))}`"


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A row a label and its cells, all of them Markdown already: pass names through `text`."""
    lines = [[*head], ["---"] * len(head), *([label, *cells] for label, cells in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain_table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table whose labels and cells are plain text."""
    return table(
        [text(cell) for cell in head], [(text(label), [text(cell) for cell in cells]) for label, cells in rows]
    )
