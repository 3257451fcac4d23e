"""Reads NNI experiments from disk, offline, and says honestly what two of them show.

`load(id_or_path)` gives an experiment with `.trials` and `.epochs` as pandas DataFrames. Nothing heavy is
imported before it is needed, so that `analysis.reading.startup` stays cheap for a check before a launch.

`reading` makes records of what NNI left, `stats` says what they show, `terminal` and `page` show it to a person, `export`
hands it to others. `confirm` trains again, `study` reads studies, `lab` writes docs/report.md from them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .reading.frames import LoadedExperiment


def load(id_or_path: str | os.PathLike[str]) -> LoadedExperiment:
    """Reads the experiment of this id, folder or nni.sqlite file. Raises `analysis.reading.locate.AnalysisError`."""
    from .reading.frames import LoadedExperiment
    from .reading.reader import load_experiment

    return LoadedExperiment(load_experiment(id_or_path))
