"""docs/report.md: the lab report's four parts and what it leaves alone, its numbers beside ours: python -m analysis report.

Written from each study's study.json and compare's summary.json: NNI's records need not be there any more. docs/studies keeps
those of the page in docs, so that a clone writes it again.
"""

from __future__ import annotations

from pathlib import Path

from ..reading.locate import AnalysisError
from ..reading.replication import PLAN, study_folder, write_text
from ..render.formats import NONE, optional, params_text
from ..render.markdown import code, plain_table, table, text
from ..study.files import RESULT, from_file, read_result
from ..study.reported import setting
from ..study.words import TITLES
from . import pair as lab_pair
from . import study as lab_study
from .kept import are_kept, keep
from .setting import Told, settings_rows
from .shared import sentences

PARTS = {
    "(a) Early stopping": ("early_stopping",),
    "(b) Pretrained weights, learning rate and its decay": ("pretrained", "learning_rate", "step_size"),
    "(c) Distillation": ("distill",),
    "(d) TPE against Evolution": ("tuners",),
    "Beyond the report: classes of unequal size": ("balance",),
}
QUESTIONS = {**TITLES, "tuners": "Which tuner finds the better hyperparameters?"}


def lab_report(studies: Path, pair: Path | None, out: Path, kept_in: Path | None = None) -> list[str]:
    """Writes the report; returns the names of the studies without a result. With `kept_in` the studies' results are copied
    there first, and the report is written from the copies. Raises AnalysisError."""
    if kept_in:
        keep(studies, kept_in)
        studies = kept_in
    results = {name: result for name in TITLES if (result := read_result(studies / name, name)) is not None}
    if not results and pair is None:
        raise AnalysisError(
            f"{studies}: no study with a result there, one of {', '.join(TITLES)}; start one: python -m experiments study "
            "early_stopping, or all of them small: make studies"
        )
    own = None if are_kept(studies) else studies
    told = {
        name: from_file(lab_study.told, studies / name / RESULT, result, own and own / name)
        for name, result in results.items()
    }
    summary, source = lab_pair.read_pair(pair, studies.parent / "demo")
    told["tuners"] = from_file(lab_pair.told, source, summary, source)
    untold = {name: _missing(name, own) for name in TITLES if name not in told}
    write_text(out, "\n\n".join(_blocks(told, untold, from_file(sentences, studies, results))) + "\n")
    return list(untold)


def _missing(name: str, own: Path | None) -> list[str]:
    folder = own / name if own else study_folder(name)
    return lab_study.missing(name, folder, own is not None and (folder / PLAN).exists())


def _blocks(told: dict[str, Told], untold: dict[str, list[str]], shared: list[str]) -> list[str]:
    """Everything in its order, a block a paragraph or table. `shared` says which answers rest on the same trainings."""
    blocks = _beginning(told, shared)
    for part, names in PARTS.items():
        blocks.append(f"## {part}")
        for name in names:
            if len(names) > 1:
                blocks.append(f"### {text(QUESTIONS[name])}")
            blocks += told[name].blocks if name in told else untold[name]
    return blocks


def _beginning(told: dict[str, Told], shared: list[str]) -> list[str]:
    """What this is, all answers in one table, what is not the report's, and where the numbers come from."""
    parts = {name: told[name] for names in PARTS.values() for name in names if name in told}
    return [
        "# The lab report's questions, asked again",
        "Lab 3-1 asks what early stopping, pretrained weights, the learning rate, distillation and NNI's tuners do, with one "
        "training an answer. Here each is a study of several seeds, the report's number beside ours. "
        f"{code('python -m analysis report')} wrote this page from {code('study.json')} of each study and from what "
        f"{code('compare')} says of the tuners: change nothing here by hand.",
        "## Answers",
        plain_table(["Question", "Answer", "n"], [_answer(name, told) for names in PARTS.values() for name in names]),
        *map(text, shared),
        "## What is not the report's",
        table(["", "The report", "Here"], settings_rows({name: part.settings for name, part in parts.items()})),
        f"Bold: not the report's, in at least one part; a dash: not told. {' '.join(map(text, setting()['notes']))} "
        "Where these differ, so do the numbers: beside each other they show the same question, not the same measurement.",
        *_drawings(parts),
        "## Where the numbers come from",
        plain_table(
            ["", "Machine", "Versions", "Commit of the code", "Digest of the photos", "NNI experiments"],
            [(_name(name), _origin(part)) for name, part in parts.items()],
        ),
        "Of the first training of each study with a result, and of the best trial of the first tuner's experiment.",
    ]


def _drawings(parts: dict[str, Told]) -> list[str]:
    names = [_name(name) for name, part in parts.items() if part.made.get("generated")]
    told = f"**Drawings, no photos**, were learned by {', '.join(names)}: a program drew them in Food-11's classes and proportions, "
    return [f"{told}so that these accuracies say nothing about Food-11 itself."] if names else []


def _answer(name: str, told: dict[str, Told]) -> tuple[str, list[str]]:
    return QUESTIONS[name], [told[name].headline, told[name].n] if name in told else ["not run", NONE]


def _name(part: str) -> str:
    return part.replace("_", " ")


def _origin(part: Told) -> list[str]:
    """Of the training that is described first."""
    made, versions = part.made, part.made.get("versions")
    shorts = [optional(made.get(key))[:10] for key in ("revision", "source_digest")]
    names = params_text(versions) if isinstance(versions, dict) else NONE
    return [optional(made.get("compute")), names, *shorts, ", ".join(part.experiments) or NONE]
