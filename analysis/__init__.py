"""Reads NNI experiments from disk, offline, and says what they show: `load`, `compare`, `list_experiments`.

`reading` makes records of what NNI left, `stats` says what they show, `reports` puts that into documents, `render` turns
documents into HTML, terminal text or Markdown, `export` hands data to other tools. Nothing here starts a process. Heavy
imports are inside functions, so that `analysis.reading.startup` stays cheap for a check before a launch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from .experiment import Comparison, LoadedExperiment


def load(id_or_path: str | os.PathLike[str]) -> LoadedExperiment:
    """The experiment of this id, folder or nni.sqlite file. Raises `analysis.reading.locate.AnalysisError`."""
    from .experiment import loaded

    return loaded(id_or_path)


def compare(
    *experiments: LoadedExperiment | str | os.PathLike[str], group: Mapping[str, Sequence[str]] | None = None
) -> Comparison:
    """Two or more experiments compared; `group` names arms, {name: ids}, and the others are grouped by configuration.
    Raises `analysis.reading.locate.AnalysisError`."""
    from .experiment import Comparison, loaded

    return Comparison([loaded(experiment) for experiment in experiments], group)


def list_experiments(home: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """A row per experiment found in `home` (default: your own), newest first; `fault` says why one cannot be read."""
    import pandas as pd

    from .reports.experiment import overview

    return pd.DataFrame(overview(None if home is None else Path(home)))
