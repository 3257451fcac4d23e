"""Which hyperparameters a trial really ran with, and how that is known.

NNI 3.0 keeps one queue of parameters per experiment, and whichever trial asks first gets the oldest entry,
so the event row of a trial may show another trial's parameters. The parameter id in the trial's own
metrics is right, and so is the hyperparameters.json that our trial writes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .rows import Event, Metric
from .values import Unreadable, load_json, read_event


class Proposal(NamedTuple):
    """A parameter set as NNI recorded it, with its id (text) and the time of its event row (ms)."""

    time: int
    trial_id: str  # the trial that it was meant for
    parameter_id: str
    parameters: dict[str, Any]
    customised: bool
    kinds: list[str]  # serialised objects that were in it


def proposals_of(own: list[Event]) -> list[Proposal]:
    found = []
    for event in own:
        if not event.data or not event.data.strip():
            continue
        try:
            data, kinds = read_event(event.data)
        except Unreadable:
            continue
        if isinstance(data, dict) and isinstance(data.get("parameters"), dict):
            by_hand = data.get("parameter_source") == "customized"
            found.append(
                Proposal(
                    event.time,
                    event.trial_id,
                    str(data.get("parameter_id")),
                    data["parameters"],
                    by_hand,
                    kinds,
                )
            )
    return found


def by_parameter_id(proposals: Iterable[list[Proposal]]) -> dict[str, list[Proposal]]:
    index: dict[str, list[Proposal]] = defaultdict(list)
    for proposal in sorted((item for own in proposals for item in own), key=lambda item: item.time):
        index[proposal.parameter_id].append(proposal)
    return index


def parameter_fields(
    metrics: list[Metric],
    proposals: tuple[list[Proposal], dict[str, list[Proposal]]],
    folder: Path | None,
    warnings: list[str],
) -> dict[str, Any]:
    """The fields of Trial that say which hyperparameters it ran with, and how that is known."""
    own, by_id = proposals
    recorded = own[-1] if own else Proposal(0, "", "", {}, False, [])
    actual, source = recorded, "event"
    if metrics and metrics[-1].parameter_id is not None:
        actual, source = _resolve(metrics[-1], by_id, warnings) or recorded, "metric"
    elif metrics and recorded.parameter_id == "None":
        source = "metric"  # added by a person: NNI gives such a set no id, and the metric shows none
    if len({metric.parameter_id for metric in metrics}) > 1:
        warnings.append("its results name several parameter ids; the last counts")
    warnings.extend(f"parameters carry a serialised object ({kind}): not read" for kind in actual.kinds)
    parameters, told = actual.parameters, _told(folder, warnings)
    mismatch = actual.parameter_id != recorded.parameter_id
    received = told.get("received")
    if isinstance(received, dict) and received != parameters:
        if source == "metric":
            warnings.append("hyperparameters.json differs from the set its results name; the file counts")
        parameters, source, mismatch = received, "file", received != recorded.parameters
    if mismatch:
        warnings.append("ran with other parameters than NNI shows for it")
    effective = told.get("effective")
    return {
        "parameters": parameters,
        "recorded": recorded.parameters,
        "proposed_for": actual.trial_id,
        "parameters_source": source,
        "parameters_mismatch": mismatch,
        "parameters_confirmed": isinstance(received, dict) and received == actual.parameters,
        "effective": effective if isinstance(effective, dict) else {},
        "customised": recorded.customised,
    }


def _resolve(metric: Metric, by_id: dict[str, list[Proposal]], warnings: list[str]) -> Proposal | None:
    """The latest proposal of that id not later than the metric: ids start again after a resume."""
    found = by_id.get(str(metric.parameter_id), [])
    if not found:
        warnings.append(f"its results name parameter id {metric.parameter_id}, which is not in the database")
        return None
    return found[max(0, bisect_right([proposal.time for proposal in found], metric.time) - 1)]


def _told(folder: Path | None, warnings: list[str]) -> dict[str, Any]:
    """What the trial itself wrote about its parameters: `received` from NNI, and `effective`."""
    try:
        told = load_json((folder / "hyperparameters.json").read_text(encoding="utf-8")) if folder else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        warnings.append(f"hyperparameters.json cannot be read ({type(error).__name__})")
        return {}
    return told if isinstance(told, dict) else {}
