"""One self-contained page: opens from disk without network, on a phone and on paper, light and dark."""

from __future__ import annotations

import itertools
import re
from datetime import datetime, timezone
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from .document import Document

_CODE = re.compile(r"`([^`]+)`")


def render(document: Document) -> str:
    """The whole page. Autoescape is on; figures are data, never markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"inline": _inline, "script_json": _script_json, "kind": lambda block: type(block).__name__}
    return environment.get_template("page.html.j2").render(
        document=document,
        next_number=itertools.count(1).__next__,
        plotly_js=get_plotlyjs(),
        now=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _inline(text: str) -> Markup:
    """Escaped; no line ends between a number and its percent sign."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text)).replace(" %", "\u00a0%")))


def _script_json(figure: go.Figure) -> Markup:
    """JSON for a <script> element: `<` as an escape, so that no text can close the element."""
    return Markup(figure.to_json().replace("<", "\\u003c"))
