"""What `analysis.load` hands to a notebook: an experiment whose trials and epochs are DataFrames."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pandas as pd

from .records import Experiment
from .tables import epochs_table, trials_table


class LoadedExperiment:
    """`trials` and `epochs` are tables; every other attribute (`id`, `name`, `tuner`, `state`, `best`,
    `counts`, `chosen`, ...) is that of the record, which is `record` itself."""

    def __init__(self, record: Experiment) -> None:
        self.record = record

    @cached_property
    def trials(self) -> pd.DataFrame:
        return trials_table(self.record)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        return epochs_table(self.record)

    def __getattr__(self, name: str) -> Any:
        if name == "record":  # not set yet, while unpickling
            raise AttributeError(name)
        return getattr(self.record, name)

    def __repr__(self) -> str:
        n = len(self.record.trials)
        return f"<experiment {self.id} {self.name!r}: {self.tuner}, {self.state}, {n} trials>"
