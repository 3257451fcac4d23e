"""Pages from templates, as long as confirm and study have their own."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs


def render_page(name: str, details: str, **values: Any) -> str:
    """A page from a template of this folder, each of which goes into frame.html.j2; every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(__file__).parent.with_name("render")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name).render(
        **values,
        details=details.replace(" %", "\u00a0%"),
        plotly_js=get_plotlyjs(),
        now=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def script_json(figure: Any) -> str:
    """JSON for a <script> element: `<` as an escape, so that no text can close the element; "" without a figure."""
    return "" if figure is None else figure.to_json().replace("<", "\\u003c")
