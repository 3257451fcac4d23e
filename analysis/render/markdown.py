"""Markdown as GitHub reads it: names out of a database are text and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .document import Block, Details, Document, Figure, Heading, Items, Statement, Table, Text
from .terminal import clean

_SPECIAL = re.compile(r"[\\`*{}\[\]<>|~&$#!]|(?<!\w)_|_(?!\w)")  # within a word an underscore is one
_CODE = re.compile(r"`([^`]+)`")


def render(document: Document) -> str:
    """The whole page."""
    parts = [f"# {text(document.title)}"] if document.title else []
    parts += [_statement(document.statement)] if document.statement else []
    parts += [_items(document.notes)] if document.notes else []
    return "\n\n".join([*parts, *_blocks(document.blocks)]) + "\n"


def text(words: object) -> str:
    """One line in which no character means anything to Markdown."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], clean(str(words)))


def code(words: str) -> str:
    """One line in the type of a program; a backquote, which would end it, becomes an apostrophe."""
    return f"`{clean(words).replace('`', chr(39))}`"


def inline(words: str, in_table: bool = False) -> str:
    """One line of text with its backquoted words as code."""
    parts = _CODE.split(words)  # text and code in turn
    if in_table:  # there a bar ends the cell within code, too
        parts = [part.replace("|", r"\|") if k % 2 else part for k, part in enumerate(parts)]
    return "".join(code(part) if k % 2 else text(part) for k, part in enumerate(parts))


def _blocks(blocks: Sequence[Block]) -> list[str]:
    return [part for block in blocks for part in _block(block) if part]


def _block(block: Block) -> list[str]:
    match block:
        case Statement():
            return [_statement(block)]
        case Heading():
            return [f"{'#' * block.level} {inline(block.text)}"]
        case Text():
            return [inline(block.text)]
        case Items():
            return [inline(block.label), _items(block.items)]
        case Table():
            return [_table(block)]
        case Figure():
            return []
        case Details():
            return [f"**{inline(block.summary)}**", *_blocks(block.blocks)]
    raise TypeError(f"{type(block).__name__} is no block of a document")


def _statement(statement: Statement) -> str:
    return f"**{inline(statement.headline)}** {' '.join(map(inline, statement.details))}".rstrip()


def _items(items: Sequence[str]) -> str:
    return "\n".join(f"- {inline(item)}" for item in items)


def _table(block: Table) -> str:
    """The best row is bold."""
    lines = [[block.corner, *block.columns], *([row.label, *row.cells] for row in block.rows)]
    cells = [[inline(cell, in_table=True) for cell in line] for line in lines]
    for row, line in zip(block.rows, cells[1:]):
        if row.mark == "best":
            line[:] = [cell and f"**{cell}**" for cell in line]
    if not block.has_labels:
        cells = [line[1:] for line in cells]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
