"""Golden files keep the wording of a page: `UPDATE_GOLDEN=1 pytest tests/test_X.py` writes them anew; read the difference then."""

from __future__ import annotations

import os
import re
from pathlib import Path

FOLDER = Path(__file__).with_name("golden")
ROOT = FOLDER.parent.parent


def golden(name: str, text: str) -> None:
    """Asserts that `text` is the content of tests/golden/NAME, but for the repository's folder and the date of a page."""
    text = re.sub(r"Written \d{4}-\d\d-\d\d \d\d:\d\d UTC", "Written DATE", text).replace(str(ROOT), "ROOT")
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no {path}; UPDATE_GOLDEN=1 writes it"
    assert text == path.read_text(encoding="utf-8"), f"{path} has other words; if they are meant: UPDATE_GOLDEN=1"
