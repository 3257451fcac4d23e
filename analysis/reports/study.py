"""The result of a study: read from NNI's experiments or its study.json, as a page, files and a terminal's text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import plotly.graph_objects as go

from ..reading.locate import AnalysisError
from ..reading.records import shared_photos
from ..reading.replication import StudyPlan, known_ids, load_readable, read_plan, study_folder, write_text
from ..reading.values import load_json, strict_json
from ..render import formats, html, terminal
from ..render.document import Block, Document, Figure, Heading, Statement, Table, Text
from ..stats.equivalence import MARGIN
from . import facts, figures
from .figures import COLOURS, HOVER, empty_figure, score_axis
from .lab_numbers import lab_arm, lab_gains, same_classes
from .study_result import BY_KEY, LOSSES, MEASURES, Measure, StudyArm, arms_of, study_result
from .study_statement import rank_sentence, study_statement

RESULT = "study.json"
TITLES = {
    "early_stopping": "Early stopping: what does it save, and what does it cost?",
    "pretrained": "Pretrained weights against training from scratch",
    "learning_rate": "Learning rate",
    "step_size": "Epochs between two decays of the learning rate",
    "distill": "Distillation: a ResNet50 teaches a ResNet18",
    "balance": "Classes of unequal size: sampling and balanced softmax",
}
FINE_POINTS = formats.Unit(" points", factor=100, digits=".2f")

Result = dict[str, Any]
Rows = list[tuple[str, list[str]]]
LabCells = dict[str, list[str]]  # {label of a row: the lab report's cells}
Value = TypeVar("Value")


def study_page(name: str, out: Path | None, margin: float = MARGIN) -> tuple[Result, Path]:
    """The content of study.json and the page's path. A folder that came from elsewhere, where NNI knows nothing of it, gives
    the page of its study.json. Raises AnalysisError for a study that was not begun."""
    if name not in TITLES:
        raise AnalysisError(f"no study {name!r}; the studies are {', '.join(TITLES)}")
    folder = out or study_folder(name)
    plan = read_plan(folder, StudyPlan)
    run = f"python -m experiments study {name}{f' --out {out}' if out else ''}"
    if plan is None or plan.study != name:
        content = "no study" if plan is None else f"the study {plan.study}"
        raise AnalysisError(f"{folder}: {content} there; run it first: {run}")
    arms = _arms(plan, "main")
    if any(arm.complete for arm in arms):
        teachers = _arms(plan, "teacher")
        result = study_result(plan, arms, teachers[0] if teachers else None, margin)
        statement = study_statement(result)
        result |= {"verdict": statement.verdict, "headline": statement.headline}
        result["can"], result["cannot"] = statement.details
        return result, write_study(folder, result)
    stored = None if any(map(known_ids, plan.parts)) else read_result(folder, name)
    if stored is None:
        raise AnalysisError(f"{folder}: no training has a result yet; continue with: {run}")
    print(f"NNI's experiments of it are not known here: the page is made from {folder / RESULT}", file=sys.stderr)
    return stored, from_file(write_study, folder / RESULT, folder, stored)


def _arms(plan: StudyPlan, name: str) -> list[StudyArm]:
    part = getattr(plan, name)
    return arms_of(part, load_readable(known_ids(part))) if part else []


def print_study(name: str, out: Path | None, margin: float = MARGIN) -> None:
    """The statement, the table of the arms and where the page is."""
    result, page = study_page(name, out, margin)
    missing = sum(row["state"] == "missing" for row in result["trainings"])
    if missing:
        print(f"{missing} of {len(result['trainings'])} trainings are missing: the same study command continues\n")
    print(terminal.render(Document("", statement_of_study(result), (), (arms_table(result),))))
    print(f"\nreport: {page}")


def read_result(folder: Path, name: str) -> Result | None:
    """The study's study.json, None where there is none yet. Raises AnalysisError for one of another study, or no JSON."""
    file = folder / RESULT
    try:
        result = load_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise AnalysisError(f"{file} cannot be read ({error}); python -m analysis study {name} writes it") from None
    content = result.get("study") if isinstance(result, dict) else None
    if content != name:
        raise AnalysisError(
            f"{file}: expected the study {name}, found {content}; python -m analysis study {name} writes it"
        )
    return result


def from_file(make: Callable[..., Value], file: object, *content: Any) -> Value:
    """`make(*content)`. Raises AnalysisError where that is not as this version writes `file`: a key or a table is missing."""
    try:
        return make(*content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise AnalysisError(
            f"{file}: not as this version writes it ({type(error).__name__}: {error}); write it again with "
            "python -m analysis study or compare"
        ) from None


def write_study(folder: Path, result: Result) -> Path:
    """Writes study.json and report.html; returns the page's path."""
    write_text(folder / RESULT, strict_json(result, indent=2) + "\n")
    write_text(folder / "report.html", html.render(study_document(result)))
    return folder / "report.html"


def statement_of_study(result: Result) -> Statement:
    """That of study.json; an older one has no verdict."""
    return Statement(result.get("verdict", "not recorded"), result["headline"], (result["can"], result["cannot"]))


def arms_table(result: Result, lab: LabCells | None = None) -> Table:
    """One row per measure, a cell per arm; `lab` as for `_with_lab`."""
    return facts.rows_table([arm["name"] for arm in result["arms"]], _with_lab(_arm_rows(result), lab or {}))


def _arm_rows(result: Result) -> Rows:
    rows: Rows = [("Trainings with a result", [_counts(arm) for arm in result["arms"]])]
    for measure in (*MEASURES, *_losses(result)):
        rows.append((measure.title, [formats.spread_text(arm[measure.key], measure.unit) for arm in result["arms"]]))
    return rows


def _counts(arm: dict[str, Any]) -> str:
    diverged = f", {arm['diverged']} diverged" if arm.get("diverged") else ""  # an older study.json does not have it
    return f"{arm['n']} of {arm['planned']}{diverged}"


def _losses(result: Result) -> list[Measure]:
    """Those that every arm has. The training losses of arms that minimise different ones cannot be compared."""
    comparable = [loss for loss in LOSSES if loss.key != "train_loss" or result["study"] not in ("distill", "balance")]
    return [loss for loss in comparable if all(arm.get(loss.key, {}).get("n") for arm in result["arms"])]


def _with_lab(rows: Rows, lab: LabCells) -> Rows:
    """Above each row the lab report's of the same label, where `lab` has one; its others at the end."""
    merged, labels = [], [label for label, _ in rows]
    for label, cells in rows:
        merged += [(f"{label}: lab report", lab[label])] if label in lab else []
        merged.append((label, cells))
    return merged + [(f"{label}: lab report", cells) for label, cells in lab.items() if label not in labels]


def arms_caption(result: Result) -> str:
    balance = result["study"] == "balance"
    sampling = "; with sampling, of the images sampled, so that arms cannot be compared by it" if balance else ""
    return (
        "Mean ± standard deviation over the seeds (n). Validation and evaluation are of the weights of the best validation "
        "epoch; the evaluation split was used once per training and steered nothing. Training accuracy is of that epoch's "
        f"augmented images, while the weights were changing{sampling}. Validation loss is plain cross-entropy, training loss what "
        "was minimised."
    )


def compared_arms(result: Result) -> list[str]:
    """Names of the arms that have a difference to the reference."""
    return list(dict.fromkeys(row["arm"] for row in result["differences"]))


def differences_table(result: Result, lab: LabCells | None = None) -> Table:
    """One row per measure, a cell per arm beside the reference; `lab` as for `_with_lab`."""
    by_name = {(row["measure"], row["arm"]): row for row in result["differences"]}
    names, rows = compared_arms(result), []
    for measure in MEASURES:
        pairs = [by_name.get((measure.key, name)) for name in names]
        cells = [formats.paired_text(row, row["p_adjusted"], measure.unit) if row else formats.NONE for row in pairs]
        rows += [(measure.title, cells)] if any(pairs) else []
    return facts.rows_table(names, _with_lab(rows, lab or {}), f"Minus {result['reference']}, same seed")


def differences_caption(result: Result) -> str:
    length = " and the length of the trainings" if result["study"] == "early_stopping" else ""
    return (
        "Mean of the paired differences (interval; p; n pairs). The intervals and p of a row hold together: one arm's by paired t, "
        "those of several by Dunnett's test, with the seeds as blocks and the residual of all arms unless one is far noisier. "
        f"The statement rests on evaluation accuracy{length}; the other rows are further comparisons of the same trainings."
    )


def class_blocks(result: Result, level: int = 2) -> list[Block]:
    """A heading, a table and a caption for each arm of the accuracy per class, the lab report's gain beside ours where it has
    these classes."""
    values = {arm["name"]: arm["value"] for arm in result["arms"]}
    reference, numbers, blocks = result["reference"], result["reported"], []
    for entry in result["classes"]:
        gains = lab_gains(numbers, values[reference], values[entry["arm"]])
        in_lab = bool(gains) and same_classes(numbers, entry["rows"])
        by_id = {row["id"]: row["gain"] for row in gains} if in_lab else None
        columns = ["Training images", reference, entry["arm"], "Gain", *(["Gain in the lab report"] if in_lab else [])]
        table = facts.rows_table(columns, [_class_row(row, by_id) for row in entry["rows"]], "Class")
        caption = "Correct of all evaluation images, summed over the seeds that both arms have; the largest gain first."
        rank = f" {rank_sentence(entry['rank'])}" if entry.get("rank") else ""  # an older study.json does not have it
        blocks += [Heading(f"Per class: {entry['arm']}", level), table, Text(caption + rank, caption=True)]
    return blocks


def _class_row(row: dict[str, Any], lab: dict[int, float] | None) -> tuple[str, list[str]]:
    """`lab` is {class id: gain}."""
    counts = [formats.share_text(row[arm]["correct"], row[arm]["total"], digits=0) for arm in ("reference", "arm")]
    cells = [formats.optional(row["training"]), *counts, formats.signed_text(row["gain"])]
    lab_cells = [] if lab is None else [formats.signed_text(lab.get(row["id"]))]
    return f"class {row['id']} {row['class']}", cells + lab_cells


def lab_cells(result: Result) -> LabCells:
    """{label: a cell per arm} of each number that the lab report has."""
    arms = [lab_arm(result["reported"], arm["value"]) for arm in result["arms"]]
    cells = {measure.title: [_lab_text(arm.get(measure.key), measure) for arm in arms] for measure in MEASURES}
    for key, label in (("curve", "Accuracy read off a curve"), ("curve_loss", "Loss read off a curve")):
        cells[label] = [arm.get(key, formats.NONE) for arm in arms]
    return {label: texts for label, texts in cells.items() if set(texts) != {formats.NONE}}


def _lab_text(value: Any, measure: Measure) -> str:
    if value is None:
        return formats.NONE
    return (
        formats.share_text(*value) if isinstance(value, list) else f"{formats.number_text(value, measure.unit)} (n = 1)"
    )


def study_document(result: Result) -> Document:
    """The page of study.json."""
    images, reference, notes = result["images"], result["reference"], " ".join(result["reported"]["notes"])
    blocks: list[Block] = [
        *facts.section("The arms", arms_table(result), arms_caption(result)),
        *facts.section(f"Paired differences to {reference}", differences_table(result), differences_caption(result)),
        *_figures(result),
        *_prefix_blocks(result),
        *class_blocks(result),
    ]
    if lab := lab_cells(result):
        ours = [(label, cells) for label, cells in _arm_rows(result) if label in lab]
        blocks += facts.section(
            "What the lab report has",
            facts.rows_table([arm["name"] for arm in result["arms"]], _with_lab(ours, lab)),
            f"Lab 3-1 report, {result['reported']['place']}: Food-11, a GTX 1070. {notes} Ours were trained on {images}: where data "
            "or weights differ, so do the numbers.",
        )
    exports = [f"`python -m analysis export {i} --out {i}.csv --epochs {i}_epochs.csv`" for i in result["experiments"]]
    trainings = facts.trainings_table("arm", [_record(result, row) for row in result["trainings"]])
    blocks += facts.section(
        "All trainings",
        trainings,
        f"Each number of these trainings, and with --epochs the curves: {'; '.join(exports)}.",
    )
    blocks += [Heading("Provenance"), _provenance(result)]
    notes_on_photos = tuple(shared_photos(result["provenance"]))
    return Document(TITLES[result["study"]], statement_of_study(result), notes_on_photos, tuple(blocks))


def _figures(result: Result) -> list[Block]:
    n = ", ".join(f"{band['arm']} {band['n']}" for band in result["curves"] if band["metric"] == "default")
    caption = f"Line: mean over the seeds (n: {n}), as far as all of them were trained. Band: lowest to highest seed."
    validation, training = (curves_figure(result["curves"], metric) for metric in ("default", "train_accuracy"))
    differences = figures.difference_figure(_difference_lines(result), "minus the reference")
    return [
        *facts.section("Validation accuracy by epoch", Figure(validation), caption),
        *facts.section("Training accuracy by epoch", Figure(training), caption),
        *facts.section(
            "Differences per seed", Figure(differences), "A dot per seed; the bar is the interval of the mean."
        ),
    ]


def _difference_lines(result: Result) -> list[figures.SeedRow]:
    """The differences of accuracies, one line per arm and split."""
    keys = ("validation", "evaluation_top1", "evaluation_macro")
    rows = [row for row in result["differences"] if row["measure"] in keys]
    return [figures.difference_row(f"{row['arm']}, {BY_KEY[row['measure']].title.lower()}", row) for row in rows]


def curves_figure(bands: list[dict[str, Any]], metric: str) -> go.Figure:
    """The mean of each arm, and a band from the lowest to the highest seed. Names are escaped: plotly reads HTML."""
    figure = empty_figure()
    for number, band in enumerate(band for band in bands if band["metric"] == metric):
        colour, name = COLOURS[number % len(COLOURS)], escape(band["arm"])
        figure.add_scatter(
            x=[*band["epoch"], *reversed(band["epoch"])],
            y=[*band["high"], *reversed(band["low"])],
            fill="toself",
            fillcolor=colour,
            opacity=0.18,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
        )
        figure.add_scatter(
            x=band["epoch"],
            y=band["mean"],
            mode="lines+markers",
            name=name,
            legendgroup=name,
            line={"color": colour, "width": 2.5},
            marker={"size": 5},
            customdata=[
                f"{name}, epoch {epoch}: {formats.number_text(mean)} ({formats.number_text(low)} to {formats.number_text(high)}, n = {band['n']})"
                for epoch, mean, low, high in zip(band["epoch"], band["mean"], band["low"], band["high"])
            ],
            hovertemplate=HOVER,
        )
    score_axis(figure, True)
    figure.update_yaxes(title_text={"default": "validation accuracy", "train_accuracy": "training accuracy"}[metric])
    figure.update_xaxes(title_text="epoch")
    return figure


def _prefix_blocks(result: Result) -> list[Block]:
    if not result["prefixes"]:
        return []
    rows = [
        (
            row["arm"],
            [str(row["pairs"]), str(row["equal"]), formats.number_text(row["largest_difference"], FINE_POINTS)],
        )
        for row in result["prefixes"]
    ]
    columns = ["Pairs of one seed", "Equal to the last bit", "Largest difference of validation accuracy"]
    return facts.section(
        "Is the stopped training the beginning of the full one?",
        facts.rows_table(columns, rows),
        "All metrics of each epoch that both have. On one CPU and a fixed number of threads they should be equal; where they are "
        "not, the difference between the arms contains more than the stopping.",
    )


def _record(result: Result, row: dict[str, Any]) -> dict[str, Any]:
    """A row of `trainings` with its numbers."""
    arm, seed = next(arm for arm in result["arms"] if arm["name"] == row["arm"]), str(row["seed"])
    keys = {"val_accuracy": "validation", **{key: key for key in ("evaluation_top1", "epochs_run", "duration_s")}}
    return row | {name: arm[key]["by_seed"].get(seed) for name, key in keys.items()}


def _provenance(result: Result) -> Table:
    provenance = result["provenance"]
    rows = {
        "Study": f"{result['study']}: {result['field']}, seeds {', '.join(map(str, result['seeds']))}",
        "NNI experiments": ", ".join(result["experiments"]) or formats.NONE,
        "Fixed": formats.params_text(result["fields"]),
        "A training's settings": formats.params_text(provenance["hyperparameters"] or {}),
        "Images": result["images"],
    }
    return facts.provenance_table(rows, provenance)
