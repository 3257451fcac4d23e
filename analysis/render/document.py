"""What a page says, before anyone decides how it looks: every page is data -> Document -> HTML, terminal or Markdown.

`analysis.reports` makes documents, `html`, `terminal` and `markdown` render them. All texts are plain, and each renderer escapes
them in its own way; only words between two backquotes are a command, a file or an id, set in the type of a program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Statement:
    """What can be concluded from a result. `verdict` is one of `analysis.stats.statement`; `headline` one sentence; `details` the
    sentences after it, in their order; `numbers` what they quote, as plain JSON values. Among blocks it is a paragraph of its
    own, the headline in bold."""

    verdict: str
    headline: str
    details: tuple[str, ...] = ()
    numbers: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """Headline and details as one paragraph."""
        return " ".join([self.headline, *self.details])


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; `caption` is the small print below a table or figure."""

    text: str
    caption: bool = False


@dataclass(frozen=True)
class Items:
    """A list; `label` is the line above it, `colour` that of the arm which it is about."""

    items: tuple[str, ...]
    label: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Row:
    """`label` heads the row; `mark` is "best" or "lost" to set it apart."""

    label: str
    cells: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """`columns` name the cells; `corner` names the labels. `colours` are those of the columns' arms, one per column.

    Rows with labels are facts, which may wrap; rows without any are records, one per line."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    corner: str = ""
    colours: tuple[str, ...] = ()

    @property
    def has_labels(self) -> bool:
        return any(row.label for row in self.rows)


@dataclass(frozen=True)
class Figure:
    """A Plotly figure; a terminal and Markdown leave it out."""

    figure: go.Figure


@dataclass(frozen=True)
class Details:
    """Blocks below a summary that a reader may open."""

    summary: str
    blocks: tuple[Block, ...]
    is_open: bool = False


Block = Statement | Heading | Text | Items | Table | Figure | Details


@dataclass(frozen=True)
class Document:
    """A whole page. `notes` are what a reader should know beside the statement, `source` is where its numbers are from."""

    title: str
    statement: Statement | None
    notes: tuple[str, ...]
    blocks: tuple[Block, ...]
    source: str = "NNI's own database, read-only"
