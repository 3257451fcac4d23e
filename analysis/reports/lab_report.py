"""docs/report.md: the lab report's questions, its numbers beside ours: python -m analysis report.

Written from each study's study.json and compare's summary.json: NNI's records need not be there any more. docs/studies keeps
those of the page in docs, so that a clone writes it again.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from ..reading.locate import AnalysisError
from ..reading.reader import load_experiment
from ..reading.replication import PLAN, study_folder, write_text
from ..reading.values import strict_json
from ..render import formats, markdown
from ..render.document import Block, Document, Heading, Items, Statement, Table, Text
from ..stats.blocked import LEVEL, detectable
from ..stats.compare import compare
from ..stats.paired import holm
from ..stats.statement import DIFFERENCE, NO_DIFFERENCE, statement_of
from . import study
from .facts import rows_table
from .lab_numbers import Setting, lab_arm, lab_numbers, lab_setting, settings_of, settings_sentence, settings_table
from .study_result import MEASURES, Measure, images_text

PARTS = {
    "(a) Early stopping": ("early_stopping",),
    "(b) Pretrained weights, learning rate and its decay": ("pretrained", "learning_rate", "step_size"),
    "(c) Distillation": ("distill",),
    "(d) TPE against Evolution": ("tuners",),
    "Beyond the lab report: classes of unequal size": ("balance",),
}
FOOD11_SEEDS = 5
DEMO_CACHE = "sample_cache"  # the folder's name
QUESTIONS = {**study.TITLES, "tuners": "Which tuner finds the better hyperparameters?"}
RECORDED = Path(__file__).parent.with_name("recorded")
_FOLDERS = re.compile(r"(?<![\w/.:~])/(?:[^\s'\":;,/]+/)+")  # of an absolute path within a text

Result = dict[str, Any]


@dataclass(frozen=True)
class _Section:
    """One question's blocks, its answer among them, and what the tables at the top have of it; `n` and `images` say of what, in
    words. `p` is that of the answer alone, None where there is no test; `family_p` is Holm's over all answers of the page."""

    blocks: list[Block]
    answer: Statement
    p: float | None
    n: str
    images: str
    settings: dict[str, Setting]
    provenance: dict[str, Any]  # as `made_of` has it
    experiments: list[str]
    family_p: float | None = None


def lab_report(studies: Path, pair: Path | None, out: Path, kept_in: Path | None = None) -> list[str]:
    """Writes the page; returns the names of the studies without a result. With `kept_in` the studies' results are copied
    there first, and the page is written from the copies. Raises AnalysisError."""
    if kept_in:
        keep(studies, kept_in)
        studies = kept_in
    results = {name: result for name in study.TITLES if (result := study.read_result(studies / name, name)) is not None}
    if not results and pair is None:
        raise AnalysisError(
            f"{studies}: no study with a result there, one of {', '.join(study.TITLES)}; start one: python -m experiments study "
            "early_stopping, or all of them small: make studies"
        )
    begun_here = any((studies / name / PLAN).exists() for name in study.TITLES)  # else they are copies alone
    folders = {name: studies / name if begun_here else None for name in study.TITLES}
    sections = {
        name: study.from_file(_study_section, studies / name / study.RESULT, result, folders[name])
        for name, result in results.items()
    }
    summary, source = _read_pair(pair, studies.parent / "demo")
    sections["tuners"] = study.from_file(_tuners_section, source, summary, source)
    sections = _one_family(sections)
    missing = {name: _missing(name, folders[name]) for name in study.TITLES if name not in sections}
    notes = study.from_file(_not_independent, studies, results)
    write_text(out, markdown.render(_document(sections, missing, notes)))
    return list(missing)


def _one_family(sections: dict[str, _Section]) -> dict[str, _Section]:
    """The same, with answers that hold together: six studies in which nothing differs would else show a difference somewhere
    in one page of four. A difference whose p after Holm is not below 5 % is not the answer."""
    tested = [name for name, section in sections.items() if section.p is not None]
    adjusted = dict(zip(tested, holm([sections[name].p for name in tested])))
    return {name: _among(section, adjusted.get(name), len(tested)) for name, section in sections.items()}


def _among(section: _Section, p: float | None, answers: int) -> _Section:
    answer, together = section.answer, f"p = {formats.p_text(p)} over the {answers} answers of this page (Holm)"
    if p is None or answer.verdict != DIFFERENCE:
        return replace(section, family_p=p)
    if p < LEVEL:
        changed = replace(answer, details=(*answer.details, f"The answer holds among the others: {together}."))
    else:
        alone = f"Taken alone: {answer.headline} ({together}.)"
        headline = f"No difference is shown once the {answers} answers of this page are counted together."
        changed = Statement(NO_DIFFERENCE, headline, (alone, *answer.details), answer.numbers)
    blocks = [changed if block is answer else block for block in section.blocks]
    return replace(section, blocks=blocks, answer=changed, family_p=p)


def keep(studies: Path, target: Path) -> None:
    """Copies the study.json of each study below `studies` to `target`/NAME. Raises AnalysisError."""
    for name in study.TITLES:
        result = study.read_result(studies / name, name)
        if result is not None:
            write_text(target / name / study.RESULT, strict_json(_without_folders(result), indent=1) + "\n")


def _without_folders(value: Any) -> Any:
    """The same with the last part of each absolute path in its place."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    return PurePath(value).name if PurePath(value).is_absolute() else _FOLDERS.sub("", value)


def _document(sections: dict[str, _Section], missing: dict[str, list[Block]], notes: Sequence[str]) -> Document:
    """`notes` say which answers rest on the same trainings."""
    blocks = _beginning(sections, notes)
    for part, names in PARTS.items():
        blocks.append(Heading(part))
        for name in names:
            if len(names) > 1:
                blocks.append(Heading(QUESTIONS[name], level=3))
            blocks += sections[name].blocks if name in sections else missing[name]
    return Document("The lab report's questions, asked again", None, (), tuple(blocks))


def _beginning(sections: dict[str, _Section], notes: Sequence[str]) -> list[Block]:
    """What this is, all answers in one table, what differs from the lab report, and where the numbers come from."""
    names = [name for names in PARTS.values() for name in names]
    parts = {name: sections[name] for name in names if name in sections}
    answers = [(QUESTIONS[name], _answer(sections.get(name))) for name in names]
    return [
        Text(
            "Lab 3-1 asks what early stopping, pretrained weights, the learning rate, distillation and NNI's tuners do, and the lab "
            "report answers each question with one training per arm. Here each is a study of several seeds, the lab report's "
            "number beside ours. `python -m analysis report` wrote this page from `study.json` of each study and from the "
            "`summary.json` that `compare` writes of the tuners: do not edit it by hand."
        ),
        Heading("Answers"),
        rows_table(["Answer", "p over all answers", "n", "Trained on"], answers, "Question"),
        Text(
            "The answers are one family: p is Holm's over all that rest on a test, and a difference is an answer where it is below "
            "0.05. A dash: too few seeds for a test, or one experiment of each tuner."
        ),
        *map(Text, notes),
        Heading("What differs from the lab report"),
        settings_table({name: part.settings for name, part in parts.items()}),
        Text(
            f"Differs: in at least one part; a dash: not recorded. {' '.join(lab_setting()['notes'])} Where settings differ, so do "
            "the numbers: side by side they answer the same question, but are not the same measurement."
        ),
        *_drawings(parts),
        Heading("Where the numbers come from"),
        _origins(parts),
        Text(
            "Of the first training of each study with a result, and of the best trial of the first tuner's experiment."
        ),
    ]


def _answer(section: _Section | None) -> list[str]:
    if section is None:
        return ["not run", *[formats.NONE] * 3]
    return [section.answer.headline, formats.p_text(section.family_p), section.n, section.images]


def _drawings(parts: dict[str, _Section]) -> list[Block]:
    names = [_words(name) for name, part in parts.items() if part.provenance.get("generated")]
    text = (
        f"Trained on drawings, not photos: {', '.join(names)}. A program drew them in Food-11's classes and proportions, so that "
        "these accuracies say nothing about Food-11 itself."
    )
    return [Text(text)] if names else []


def _origins(parts: dict[str, _Section]) -> Table:
    """Of the training that is described first."""
    rows = []
    for name, part in parts.items():
        facts, versions = part.provenance, part.provenance.get("versions")
        digests = [formats.optional(facts.get(key))[:10] for key in ("revision", "source_digest")]
        packages = formats.params_text(versions) if isinstance(versions, dict) else formats.NONE
        rows.append(
            (
                _words(name),
                [
                    formats.optional(facts.get("compute")),
                    packages,
                    *digests,
                    ", ".join(part.experiments) or formats.NONE,
                ],
            )
        )
    columns = ["Machine", "Versions", "Commit of the code", "Digest of the photos", "NNI experiments"]
    return rows_table(columns, rows, "Part")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _missing(name: str, folder: Path | None) -> list[Block]:
    """In the place of a study without a result."""
    has_plan = folder is not None and (folder / PLAN).exists()
    state = "Begun, without a result yet; continue with" if has_plan else "Not run. Start it with"
    weights = ", with `--weights FILE` where ImageNet's weights cannot be downloaded" if name == "pretrained" else ""
    run, write = (_command(package, name, folder) for package in ("experiments", "analysis"))
    return [_claim(name), Text(f"{state} {run}{weights}; then {write} and this command again.")]


def _command(package: str, name: str, folder: Path | None, out: str = "") -> str:
    """`experiments` trains a study, `analysis` writes its page."""
    out = out or ("" if folder in (None, study_folder(name)) else str(folder))
    return f"`python -m {package} study {name}{f' --out {out}' if out else ''}`"


def _claim(name: str) -> Text:
    return Text(f"The lab report: {lab_numbers(name)['claim']}")


def _study_section(result: Result, folder: Path | None) -> _Section:
    """Of a study, from its study.json; `folder` has its page, and is None where only study.json was kept."""
    name, provenance = result["study"], _with_drawings(result["provenance"])
    result = result | {"reported": lab_numbers(name), "provenance": provenance, "images": images_text(provenance)}
    arms = [arm for arm in result["arms"] if not arm["name"].startswith("teacher ")]
    settings = settings_of(name, result["provenance"], {result["field"]: [arm["value"] for arm in arms]})
    answer = study.statement_of_study(result)
    blocks: list[Block] = [
        _claim(name),
        answer,
        Text(f"Trained on {result['images']}. {_on_food11(result, len(arms))} {settings_sentence(settings)}"),
        *_left_out(result, folder),
        study.arms_table(result, study.lab_cells(result)),
        Text(study.arms_caption(result)),
    ]
    if study.compared_arms(result):
        blocks += [study.differences_table(result, _lab_differences(result)), Text(study.differences_caption(result))]
    for row in result["prefixes"]:
        equal = f"in {row['equal']} of {row['pairs']} pairs ({row['arm']})"
        blocks.append(Text(f"The stopped training is the beginning of the full one, to the last bit, {equal}."))
    blocks += [*study.class_blocks(result, level=4), *_rest(result, folder)]
    n = f"{min(arm['n'] for arm in arms)} seeds per arm"
    p = _study_p(result)
    return _Section(blocks, answer, p, n, result["images"], settings, result["provenance"], result["experiments"])


def _with_drawings(provenance: dict[str, Any]) -> dict[str, Any]:
    """The same, `generated` where the cache is the demo's: trainings before 2026-11-24 do not record it."""
    is_demo = provenance.get("generated") is None and provenance.get("cache") == DEMO_CACHE
    return provenance | {"generated": True} if is_demo else provenance


def _study_p(result: Result) -> float | None:
    """The smallest p of the differences that the answer rests on, each for all arms of the study together; None where none of
    them could show a difference."""
    rows = [row for row in result["differences"] if row["measure"] in result.get("judged", ("evaluation_top1",))]
    return min((row["p_adjusted"] for row in rows if row["df"] >= formats.FEWEST_FREEDOM), default=None)


def _on_food11(result: Result, arms: int) -> str:
    """What the same answer would take on Food-11 itself, by the lab report's own time of one training there."""
    setting, lab = lab_setting(), lab_numbers("early_stopping")["arms"]["0"]
    training, validation, evaluation = setting["images"]
    families = len(result.get("judged", ("evaluation_top1",)))
    in_sd = detectable(FOOD11_SEEDS, arms - 1, families)
    hours = arms * FOOD11_SEEDS * lab["duration_s"] / 3600
    teachers = f", and its teachers, {FOOD11_SEEDS} ResNet50" if result["study"] == "distill" else ""
    return (
        f"On Food-11 itself ({training:,} training, {validation:,} validation, {evaluation:,} evaluation images, 224 px) {arms} arms "
        f"of {FOOD11_SEEDS} seeds are {arms * FOOD11_SEEDS} trainings of {lab['epochs_run']} epochs{teachers}: about {hours:.0f} hours "
        f"at the lab report's {lab['duration_s'] / 60:.0f} minutes each on a {setting['compute']}. If accuracy varies there by 0.5 "
        f"points (SD) between seeds, they show a true difference of {in_sd / 2:.1f} points in 80 % of cases."
    )


def _left_out(result: Result, folder: Path | None) -> list[Block]:
    """Trainings that no mean includes: missing, failed, cut short by a time limit or a full disk."""
    name, folder = result["study"], folder or study_folder(result["study"])
    states = [
        "cut short" if row["state"] == "succeeded" and row["reason"] else row["state"] for row in result["trainings"]
    ]
    counts = {state: states.count(state) for state in ("missing", "failed", "cut short") if state in states}
    if not counts:
        return []
    numbers = ", ".join(f"{n} {state}" for state, n in counts.items())
    sentences = [f"Of {len(states)} trainings {numbers}, left out of all numbers."]
    if "missing" in counts:
        sentences.append(f"{_command('experiments', name, folder)} continues with what is missing.")
    if counts.keys() - {"missing"}:
        anew = _command("experiments", name, folder, out=f"{folder}_again")
        sentences.append(f"What failed or was cut short is not repeated; {anew} trains the whole study again.")
    return [Text(" ".join(sentences))]


def _lab_differences(result: Result) -> dict[str, list[str]]:
    """{label: a cell per arm beside the reference} of the lab report's single trainings."""
    names = study.compared_arms(result)
    cells = {measure.title: [_lab_difference(result, name, measure) for name in names] for measure in MEASURES}
    return {label: texts for label, texts in cells.items() if set(texts) != {formats.NONE}}


def _lab_difference(result: Result, name: str, measure: Measure) -> str:
    values = {arm["name"]: arm["value"] for arm in result["arms"]}
    numbers = [lab_arm(result["reported"], values[arm]).get(measure.key) for arm in (name, result["reference"])]
    if None in numbers:
        return formats.NONE
    own, reference = (number[0] / number[1] if isinstance(number, list) else number for number in numbers)
    return f"{formats.signed_text(own - reference, measure.unit)} (n = 1, no interval)"


def _rest(result: Result, folder: Path | None) -> list[Block]:
    name, notes = result["study"], tuple(result["reported"]["notes"])
    page = (
        f"`{folder / 'report.html'}`"
        if folder
        else (f"the page that {_command('experiments', name, None)} and then {_command('analysis', name, None)} write")
    )
    experiments = ", ".join(f"`{experiment}`" for experiment in result["experiments"]) or formats.NONE
    return [
        *([Items(notes, "On the lab report's numbers:")] if notes else []),
        Text(f"Curves with bands and every training: {page}. NNI experiments: {experiments}."),
    ]


def _read_pair(folder: Path | None, demo: Path) -> tuple[Result, str]:
    """The content of compare's summary.json, and where it is from: the file in `folder`; without a `folder` the one in `demo`,
    or else of the recorded pair. Raises AnalysisError."""
    file = (folder or demo) / "summary.json"
    try:
        return json.loads(file.read_text(encoding="utf-8")), f"`{file}`"
    except FileNotFoundError:
        if folder:
            write = f"python -m analysis compare ID ID --out {folder}"
            raise AnalysisError(f"{file}: no such file; expected what compare writes: {write}") from None
    except (OSError, ValueError) as error:
        raise AnalysisError(f"{file} cannot be read ({error}); write it again with compare") from None
    source = (
        "the recorded pair that comes with the project, on generated drawings; after `make demo` it is the demo's own"
    )
    return compare(*(load_experiment(RECORDED / arm) for arm in ("tpe", "evolution"))), source


def _tuners_section(summary: Result, source: str) -> _Section:
    """Part (d), from what `compare` says of the tuners' experiments. Settings and machine are those of the first experiment's
    best trial; where the experiments differ, compare's notes say so."""
    experiments, first, comparison = summary["experiments"], summary["experiments"][0], summary["comparison"]
    provenance, parameters = _with_drawings(first.get("made") or {}), (first["best"] or {}).get("params") or {}
    settings = settings_of("tuners", provenance, dict.fromkeys(parameters))
    statement, pairs = statement_of(comparison), summary.get("comparisons") or []
    blocks: list[Block] = [
        _claim("tuners"),
        statement,
        *(map(statement_of, pairs) if len(pairs) > 1 else ()),
        *([Items(tuple(comparison["notes"]))] if comparison["notes"] else []),
        Text(settings_sentence(settings)),
        _tuners_table(experiments),
        *_repeats_table(summary.get("arms") or []),
        Items(tuple(lab_numbers("tuners")["notes"]), "On the lab report's text:"),
        Text(f"Source: {source}."),
    ]
    n = f"{' + '.join(str(sum(experiment['trials'].values())) for experiment in experiments)} trials"
    ids = [experiment["id"] for experiment in experiments]
    p, images = comparison["p_value"], images_text(provenance)
    if len(pairs) > 1:  # each is of all pairs together
        p = min((pair["p_value"] for pair in pairs if pair["p_value"] is not None), default=None)
    return _Section(blocks, statement, p, n, images, settings, provenance, ids)


def _tuners_table(experiments: list[dict[str, Any]]) -> Table:
    rows = []
    for experiment in experiments:
        trials = experiment["trials"]
        counts = f"{trials['succeeded']} of {sum(trials.values())}"
        cells = [
            experiment["tuner"],
            counts,
            formats.optional(experiment["chosen_by_tuner"]),
            *_best(experiment["best"]),
        ]
        rows.append(
            (experiment["name"] or experiment["id"], [*cells, formats.seconds_text(experiment["wall_seconds"])])
        )
    columns = ["Tuner", "Trials with a result", "Chosen by the tuner", "Best on validation"]
    return rows_table([*columns, "Evaluation of its weights", "Wall clock"], rows, "Experiment")


def _best(best: dict[str, Any] | None) -> tuple[str, str]:
    """Validation and evaluation accuracy with their images. The first has no interval: it was chosen as the best."""
    if best is None:
        return formats.NONE, formats.NONE
    n, evaluation = best["validation_n"], best["evaluation"]
    validation = formats.score_text(best["val_accuracy"], n is not None)
    if n is not None:
        validation += f" (n = {n})"
    return (
        validation,
        formats.NONE
        if evaluation is None
        else f"{formats.number_text(evaluation['top1'])} (n = {formats.optional(evaluation['n'])})",
    )


def _repeats_table(arms: list[dict[str, Any]]) -> list[Block]:
    """The means over repeats, where there are any."""
    if all(len(arm["experiments"]) < 2 for arm in arms):
        return []
    rows = [(arm["name"], [formats.spread_text(arm | {"n": len(arm["bests"])})]) for arm in arms]
    return [rows_table(["Best on validation, over its experiments"], rows, "Arm")]


def _not_independent(results: dict[str, Result]) -> list[str]:
    """A sentence for each set of settings that several studies trained on the same photos under the same seeds; `results` has
    the content of each study's study.json."""
    arms_of_settings: dict[frozenset, list[tuple[str, list[int]]]] = defaultdict(list)
    for name, result in results.items():
        for arm in result["arms"]:
            settings = _all_settings(result, arm)
            if settings and not arm["name"].startswith("teacher "):
                arms_of_settings[settings].append((f"{arm['name']} ({_words(name)})", result["seeds"]))
    sentences = []
    for arms in arms_of_settings.values():
        counts = Counter(seed for _, seeds in arms for seed in seeds)
        common = sorted(seed for seed, count in counts.items() if count > 1)
        members = [arm for arm, seeds in arms if set(seeds) & set(common)]
        if members:
            sentences.append(
                f"Not independent: {formats.listed(members)} are trainings with the same settings, photos and seeds "
                f"({', '.join(map(str, common))}). All comparisons with them share the same random variation."
            )
    return sentences


def _all_settings(result: Result, arm: dict[str, Any]) -> frozenset:
    """All that decides a training but its seed: the fields that a training of the study used, with the arm's own value. A
    teacher without weight changes nothing. Empty where it is not recorded."""
    provenance = result["provenance"]
    if not provenance.get("hyperparameters"):
        return frozenset()
    used = provenance["hyperparameters"] | {result["field"]: arm["value"], "photos": provenance.get("source_digest")}
    idle = ("seed", *(() if used.get("distill_weight") else ("teacher", "temperature")))
    return frozenset((key, value) for key, value in used.items() if key not in idle)
