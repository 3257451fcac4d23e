"""A study's section of docs/report.md, from its study.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..reading.replication import study_folder
from ..render.formats import NONE
from ..render.markdown import code, plain_table, text
from ..study.arms import MEASURES, Measure
from ..study.page import Rows, arm_rows, class_table, compared, difference_table, reported_rows
from ..study.reported import reported, reported_arm
from ..study.words import signed_text
from .setting import Told, differing, settings_of


def again(name: str, folder: Path) -> str:
    """The command that writes the study's page."""
    return f"python -m analysis study {name}{where(name, folder)}"


def where(name: str, folder: Path) -> str:
    return "" if folder == study_folder(name) else f" --out {folder}"


def missing(name: str, folder: Path, begun: bool) -> list[str]:
    """What stands in place of a study without a result."""
    state = "Begun, without a result yet; go on with" if begun else "Not run. It is started by"
    weights = ", with `--weights FILE` where ImageNet's weights cannot be downloaded" if name == "pretrained" else ""
    run = code(f"python -m experiments study {name}{where(name, folder)}")
    return [_claim(name), f"**{state}** {run}{weights}; then {code(again(name, folder))} and this command again."]


def told(result: dict[str, Any], folder: Path | None) -> Told:
    """Of a study, from its study.json; `folder` has its page, and is None where only study.json was kept."""
    result = result | {"reported": reported(result["study"])}
    arms = [arm for arm in result["arms"] if not arm["name"].startswith("teacher ")]
    fewest = min(arm["n"] for arm in arms)
    found = settings_of(result["study"], result["provenance"], {result["field"]: [arm["value"] for arm in arms]})
    n = f"{fewest} seeds an arm"
    blocks = _blocks(result, folder, differing(found))
    return Told(blocks, result["headline"], n, found, result["provenance"], result["experiments"])


def _blocks(result: dict[str, Any], folder: Path | None, others: str) -> list[str]:
    """Claim, answer, what differs, tables, where more is. `others` says what is not the report's."""
    home = folder or study_folder(result["study"])
    blocks = [
        _claim(result["study"]),
        f"**{text(result['headline'])}** {text(result['can'])} {text(result['cannot'])}",
        others,
        *_lost(result, home),
        plain_table(["", *(arm["name"] for arm in result["arms"])], _measures(result)),
        _means(result["study"]),
    ]
    if compared(result):
        blocks += [
            plain_table([f"Less {result['reference']}, same seed", *compared(result)], _differences(result)),
            "Mean of the paired differences (t interval; p; n pairs). The intervals of a row hold together with 95 % (Bonferroni), p "
            "is Holm's. The answer above quotes the rows that it rests on; the others are further looks at the same trainings.",
        ]
    return [*blocks, *_prefixes(result), *_classes(result), *_rest(result, folder)]


def _means(name: str) -> str:
    drawn = "; with sampling, of the images drawn, so that arms cannot be compared by it" if name == "balance" else ""
    return (
        "Mean ± standard deviation over the seeds (n). Validation and evaluation are of the weights of the best validation epoch; "
        "the evaluation split was looked at once a training and steered nothing. Training accuracy is of that epoch's augmented "
        f"images, while the weights were changing{drawn}. Validation loss is plain cross-entropy, training loss what was minimised."
    )


def _claim(name: str) -> str:
    return f"The report: {text(reported(name)['claim'])}"


def _lost(result: dict[str, Any], folder: Path) -> list[str]:
    """Trainings that no mean has: missing, failed, cut short by a time limit or a full disk."""
    states = [_fate(row) for row in result["trainings"]]
    lost = {state: states.count(state) for state in ("missing", "failed", "cut short") if state in states}
    if not lost:
        return []
    run = f"python -m experiments study {result['study']}"
    told = [
        f"Of {len(states)} trainings {', '.join(f'{n} {state}' for state, n in lost.items())}, left out of all numbers."
    ]
    if "missing" in lost:
        told.append(f"{code(run + where(result['study'], folder))} goes on with what is missing.")
    if lost.keys() - {"missing"}:
        anew = code(f"{run} --out {folder}_again")
        told.append(f"What failed or was cut short is not repeated; {anew} trains the whole study anew.")
    return [" ".join(told)]


def _fate(row: dict[str, Any]) -> str:
    """The state of a training; one that was cut short has a reason although it succeeded."""
    return "cut short" if row["state"] == "succeeded" and row["reason"] else row["state"]


def _measures(result: dict[str, Any]) -> Rows:
    """One row a measure, the report's own number above ours."""
    theirs = dict(reported_rows(result))
    rows = []
    for label, cells in arm_rows(result):
        rows += [(f"{label}: report", theirs[f"{label}: report"])] if f"{label}: report" in theirs else []
        rows.append((label, cells))
    return rows + [(label, cells) for label, cells in theirs.items() if "read off a curve" in label]


def _differences(result: dict[str, Any]) -> Rows:
    """One row a measure, the difference of the report's single trainings above ours."""
    rows: Rows = []
    for measure, (label, cells) in zip(MEASURES, difference_table(result), strict=True):
        theirs = [_reported_difference(result, name, measure) for name in compared(result)]
        rows += [(f"{label}: report", theirs)] if set(theirs) != {NONE} else []
        rows += [(label, cells)] if set(cells) != {NONE} else []
    return rows


def _reported_difference(result: dict[str, Any], name: str, measure: Measure) -> str:
    values = {arm["name"]: arm["value"] for arm in result["arms"]}
    told = [reported_arm(result["reported"], values[arm]).get(measure.key) for arm in (name, result["reference"])]
    if None in told:
        return NONE
    own, reference = (value[0] / value[1] if isinstance(value, list) else value for value in told)
    return f"{signed_text(own - reference, measure)} (n = 1, no interval)"


def _prefixes(result: dict[str, Any]) -> list[str]:
    return [
        f"The stopped training is the beginning of the full one, to the last bit, in {row['equal']} of {row['pairs']} pairs "
        f"({text(row['arm'])})."
        for row in result["prefixes"]
    ]


def _classes(result: dict[str, Any]) -> list[str]:
    """A table for each arm, the largest gain first."""
    blocks = []
    for entry in result["classes"]:
        title, columns, rows = class_table(result, entry)
        added = "right of all evaluation images, added up over the seeds that both arms have; the largest gain first."
        blocks += [f"{text(title)}, {added}", plain_table(["Class", *columns], rows)]
    return blocks


def _rest(result: dict[str, Any], folder: Path | None) -> list[str]:
    notes = [f"- {text(note)}" for note in result["reported"]["notes"]]
    experiments = ", ".join(code(name) for name in result["experiments"]) or NONE
    page = code(str(folder / "report.html")) if folder else _made_by(result["study"])
    more = f"Curves with bands and every training: {page}. NNI experiments: {experiments}."
    return [*(["On the report's numbers:\n\n" + "\n".join(notes)] if notes else []), more]


def _made_by(name: str) -> str:
    commands = (f"python -m experiments study {name}", again(name, study_folder(name)))
    return f"the page that {' and then '.join(map(code, commands))} make"
