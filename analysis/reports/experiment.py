"""One experiment, its best trial, or all on this machine, as documents for a terminal: python -m analysis list, show, best."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..reading import locate, startup
from ..reading.locate import AnalysisError
from ..reading.logs import tuner_errors
from ..reading.reader import load_experiment
from ..reading.records import ENDED, Experiment, Trial, best_result, is_percent, validation_n
from ..reading.values import score, strict_json
from ..render import formats
from ..render.document import Block, Document, Heading, Items, Row, Table, Text
from ..stats.best_of_n import optimism_of
from ..stats.comparable import notes_between
from ..stats.compare import evaluation
from ..stats.two_sample import wilson
from . import facts, series

SHORT = 40  # trials that are shown without --all; of more, so many of the best and of the last
EACH = 10
MOST_REASONS = 10
LIST_HEAD = ("Id", "Name", "Tuner", "State", "Ok/failed/all", "Best", "Of trial", "Started (UTC)")
TRIALS_HEAD = ("No.", "Id", "State", "Value", "Epochs", "Seconds", "Chosen by", "Hyperparameters")
LONGEST_NAME = 40


def list_document(place: Path | None) -> Document:
    """Every experiment in this home or `place`, newest first; below, what is wrong with any."""
    folder, rows = _experiments_folder(place), overview(place)
    if not rows:
        start = "start one with python -m experiments launch, or name its folder"
        return Document("", None, (), (Text(f"no experiment in {folder}: {start}"),))
    table = Table(LIST_HEAD, tuple(Row("", _list_cells(row)) for row in rows))
    remarks = tuple(f"{row['id']}: {remark}" for row in rows if (remark := row["fault"] or row["remark"]))
    return Document("", None, (), (table, *([Items(remarks)] if remarks else [])))


def overview(place: Path | None) -> list[dict[str, Any]]:
    """One dict per experiment of NNI's registry or on disk, newest first. `place`: a folder of experiments, or a home that has
    one; None is this home's. One that cannot be read has a `fault`, and of the other keys only what the registry knows."""
    folder = _experiments_folder(place)
    rows = [_overview(path, locate.registry(folder).get(path.name) or {}) for path in locate.folders(folder)]
    return sorted(rows, key=lambda row: row["started"] or "", reverse=True)


def _experiments_folder(place: Path | None) -> Path:
    if place is None:
        return locate.home()
    if not place.is_dir():
        raise AnalysisError(f"--home {place}: no such folder; name a folder of experiments, or a home that has one")
    inside = place / "nni-experiments"
    return inside if inside.is_dir() else place


def _overview(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    try:
        experiment = load_experiment(folder, finals_only=True)
    except (AnalysisError, OSError) as error:
        started = entry.get("startTime")
        return {
            "id": folder.name,
            "name": str(entry.get("experimentName") or ""),
            "state": "unreadable",
            "started": _iso(started) if isinstance(started, int) else None,
            "folder": str(folder),
            "fault": str(error),
        }
    state, remark = condition(experiment)
    best = experiment.best
    return {
        "id": experiment.id,
        "name": experiment.name,
        "tuner": startup.label(experiment.tuner),
        "state": state,
        "remark": remark,
        "trials": {**experiment.counts, "all": len(experiment.trials), "max": experiment.max_trials},
        "best": None if best is None else best.score,
        "best_trial": None if best is None else best.trial_id,
        "best_sequence": None if best is None else best.sequence,
        "validation_n": None if best is None else validation_n(best),
        "optimise_mode": experiment.optimise_mode,
        "started": None if experiment.started is None else _iso(experiment.started),
        "folder": str(experiment.folder),
        "fault": None,
    }


def condition(experiment: Experiment) -> tuple[str, str]:
    """("running", "done", "stopped" or "crashed", remark). Crashed: NNI's list says that its manager is at work, and that
    process is gone. The remark is "" where there is nothing to add.
    """
    entry = locate.entry_of(experiment.id, experiment.folder)
    state, remarks = experiment.state.lower(), []
    if entry and entry.get("status") in locate.ACTIVE and not locate.is_running(entry):
        state = "crashed" if state == "stopped" else state
        remarks.append(f"NNI still says {entry['status']}, but its manager (process {entry.get('pid')}) is gone")
    if state != "done":
        remarks += tuner_errors(experiment)
    return state, "; ".join(remarks)


def _list_cells(row: dict[str, Any]) -> tuple[str, ...]:
    started = formats.NONE if row["started"] is None else row["started"][:16].replace("T", " ")
    name = row["name"] if len(row["name"]) <= LONGEST_NAME else row["name"][: LONGEST_NAME - 1] + "…"
    if row["fault"]:
        return (row["id"], name, formats.NONE, row["state"], *[formats.NONE] * 3, started)
    trials, n = row["trials"], row["validation_n"]
    counts = f"{trials['succeeded']}/{trials['failed'] + trials['cancelled']}/{trials['all']}"
    value = formats.score_text(row["best"], n is not None) + (f" (n = {n})" if n else "")
    best = formats.NONE if row["best"] is None else f"{row['best_trial']} (no. {row['best_sequence']})"
    return (row["id"], name, row["tuner"], row["state"], counts, value, best, started)


def _iso(ms: int | float) -> str | None:
    """UTC; None for a time that no calendar has."""
    try:
        return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return None


def experiment_document(experiment: Experiment, every_trial: bool) -> Document:
    """One experiment: its state, best so far, trials, failures; `every_trial`: not only the best and the last of many."""
    blocks = [
        Table(("",), tuple(Row(label, (text,)) for label, text in _header(experiment).items())),
        Text(f"Best so far: {_improvements(experiment)}"),
        *_trials(experiment, every_trial),
        *_failures(experiment),
    ]
    title = f"{experiment.name or experiment.id} ({experiment.id})"
    return Document(title, None, tuple(_notes(experiment)), tuple(blocks))


def _header(experiment: Experiment) -> dict[str, str]:
    """What `compare` says of an experiment, with its own circumstances."""
    state, remark = condition(experiment)
    limit = f" of {experiment.max_trials}" if experiment.max_trials else ""
    ended = sum(trial.state in ENDED for trial in experiment.trials)
    ends = [trial.end for trial in experiment.trials if trial.end is not None]
    rows = facts.experiment_facts(experiment, is_percent([experiment]))
    rows["State"] = f"{state}, {ended}{limit} trials ended" + (f": {remark}" if remark else "")
    rows["Tuner"] += f" {json.dumps(experiment.class_args, ensure_ascii=False)}, {experiment.optimise_mode}"
    rows |= {
        "Start-up": startup.explain(experiment.tuner, experiment.class_args, experiment.max_trials),
        "Search space": _space(experiment.config.get("searchSpace") or {}),
        "Command": str(experiment.config.get("trialCommand") or formats.NONE),
        "Started": formats.date_text(experiment.started),
        "Last trial ended": formats.date_text(max(ends, default=None)),
        "Folder": str(experiment.folder),
    }
    return {label: text for label, text in rows.items() if text not in (formats.NONE, "not reported")}


def _space(space: dict[str, Any]) -> str:
    """`lr loguniform 0.0001 to 0.1; batch_size choice 16, 32`; nested choices as JSON."""
    parts = []
    for name, spec in space.items():
        kind, value = (spec.get("_type"), spec.get("_value")) if isinstance(spec, dict) else (None, spec)
        if kind == "choice" and isinstance(value, list):
            text = ", ".join(json.dumps(one, ensure_ascii=False) for one in value)
        elif isinstance(value, list) and len(value) == 2:
            text = " to ".join(map(str, value))
        else:
            text = json.dumps(value, ensure_ascii=False)
        parts.append(" ".join(filter(None, [name, kind, text])))
    return "; ".join(parts) or formats.NONE


def _improvements(experiment: Experiment) -> str:
    """Number and value of each trial that was better than all before; of many, the last ones."""
    _, bests = series.best_so_far(experiment)
    trials = experiment.trials[len(experiment.trials) - len(bests) :]
    steps = [(trial, best) for k, (trial, best) in enumerate(zip(trials, bests)) if k == 0 or best != bests[k - 1]]
    percent = is_percent([experiment])
    texts = [f"{formats.score_text(best, percent)} at no. {formats.optional(t.sequence)}" for t, best in steps[-EACH:]]
    return ("... " if len(steps) > EACH else "") + (", ".join(texts) or "no trial has a result yet")


def _trials(experiment: Experiment, every_trial: bool) -> list[Block]:
    trials, n = list(experiment.trials), len(experiment.trials)
    images = {validation_n(trial) for trial in trials if trial.score is not None}
    is_accuracy = len(images) == 1 and None not in images
    legend = "*: the best" + (f"; value: validation accuracy of n = {images.pop()} images" if is_accuracy else "")
    rows = {t.trial_id: _trial_row(experiment, t, o) for t, o in zip(trials, series.origins(experiment))}

    def table(title: str, part: list[Trial]) -> list[Block]:
        return [Heading(f"{title} ({legend})"), Table(TRIALS_HEAD, tuple(rows[trial.trial_id] for trial in part))]

    if every_trial or n <= SHORT:
        return table(f"All {n} trials, in the order in which they were proposed", trials)
    sign = -1 if experiment.optimise_mode == "maximize" else 1
    ranked = sorted((trial for trial in trials if trial.score is not None), key=lambda trial: sign * trial.score)
    best, last = ranked[:EACH], trials[-EACH:]
    left_out = n - len({trial.trial_id for trial in [*best, *last]})
    return [
        *table(f"The best {EACH} of {n} trials", best),
        *table(f"The last {EACH} of {n} trials", last),
        Text(f"{left_out} of {n} trials are left out; --all shows them"),
    ]


def _trial_row(experiment: Experiment, trial: Trial, origin: str) -> Row:
    percent, value = is_percent([experiment]), trial.score
    text, state = formats.score_text(value, percent), trial.status
    if trial.state not in ENDED:
        state = state if experiment.state == "RUNNING" else "cut off"
        last = score(trial.intermediates[-1].value) if trial.intermediates else None
        text = text if last is None else f"{formats.score_text(last, percent)} so far"
    is_best = trial is experiment.best
    cells = (
        formats.optional(trial.sequence) + ("*" if is_best else ""),
        trial.trial_id,
        state,
        text,
        str(len(trial.intermediates) or formats.NONE),
        formats.NONE if trial.duration_s is None else f"{trial.duration_s:.1f}",
        "a person" if trial.customised else "start-up" if origin == "random" else origin,
        formats.params_text(trial.parameters),
    )
    return Row("", cells, "best" if is_best else "")


def _failures(experiment: Experiment) -> list[Block]:
    rows = facts.failure_rows([experiment])
    if not rows:
        return []
    more = f"and {len(rows) - MOST_REASONS} more reasons" if len(rows) > MOST_REASONS else ""
    table = Table(("Trials", "Reason"), tuple(Row("", (row.cells[0], row.label)) for row in rows[:MOST_REASONS]))
    return [Heading("Failures, with the last line of each log"), table, *([Text(more)] if more else [])]


def _notes(experiment: Experiment) -> list[str]:
    """What a reader should know or distrust; remarks on single trials are counted."""
    notes = notes_between([experiment]) + list(experiment.warnings)
    counted = Counter(text for trial in experiment.trials for text in trial.warnings)
    n = len(experiment.trials)
    notes += [f"{count} of {n} trials: {text}" for text, count in counted.most_common(MOST_REASONS)]
    if len(counted) > MOST_REASONS:
        notes.append(f"and {len(counted) - MOST_REASONS} more kinds of remarks on single trials; compare lists them")
    return notes


_KEPT = ("device", "precision", "threads")  # settings of the experiment's command; the hyperparameters replace the rest
_NOT_TRAINING = (*_KEPT, "cache", "output", "describe", "gpu", "searched", "evaluate", "split")


def best_facts(experiment: Experiment) -> dict[str, Any]:
    """What `--format json` prints. `score` is the validation score that chose the trial, `score_se` its binomial standard
    error; `evaluation` was not used for the choice; `weights` is None where there is no best.pt. Raises AnalysisError where no
    trial has a result."""
    best = experiment.best
    if best is None:
        counts = ", ".join(f"{n} {state}" for state, n in experiment.counts.items() if n) or "none yet"
        raise AnalysisError(
            f"no trial of {experiment.id} has ended with a result ({counts}); see: python -m analysis show {experiment.id}"
        )
    n, accuracy, weights = validation_n(best), evaluation(best), _weights_file(best)
    bias = optimism_of(experiment)
    return {
        "experiment": experiment.id,
        "state": experiment.state,
        "trials": len(experiment.trials),
        "trial_id": best.trial_id,
        "sequence": best.sequence,
        "parameters": best.parameters,
        "parameters_source": best.parameters_source,
        "parameters_mismatch": best.parameters_mismatch,
        "effective": best.effective,
        "score": best.score,
        "optimise_mode": experiment.optimise_mode,
        "validation_n": n,
        "score_se": _binomial_se(best.score, n),
        "optimism": None if bias is None else bias.bias,
        "evaluation": None
        if accuracy is None
        else accuracy | {"top1_se": _binomial_se(accuracy["top1"], accuracy["n"])},
        "folder": None if best.folder is None else str(best.folder.resolve()),
        "weights": weights,
        "command": str(experiment.config.get("trialCommand") or ""),
        "retrain": _retrain_command(experiment, best),
        "evaluate": _evaluate_command(experiment, best, weights),
        "predict": _predict_command(experiment, weights),
    }


def _weights_file(trial: Trial) -> str | None:
    path = None if trial.folder is None else trial.folder / "best.pt"
    return str(path.resolve()) if path is not None and path.is_file() else None


def _binomial_se(share: float | None, n: int | None) -> float | None:
    """Standard error of a share of `n` images: sqrt(p (1 - p) / n)."""
    return math.sqrt(share * (1 - share) / n) if n and share is not None and 0 <= share <= 1 else None


def best_document(experiment: Experiment, best: dict[str, Any]) -> Document:
    """`best` is what `best_facts` says of the experiment."""
    rows = tuple(Row(label, (text,)) for label, text in _rows(best).items())
    missing = f"none: no best.pt in {best['folder'] or 'any folder on this machine'}"
    blocks: list[Block] = [Table(("",), rows), Heading("Weights"), Text(best["weights"] or missing)]
    predict = best["predict"] and f"{best['predict']} PHOTOS"
    commands = {"Retrain it": best["retrain"], "Evaluate it": best["evaluate"], "Predict with it": predict}
    for title, command in commands.items():
        blocks += [Heading(f"{title}, in the project's folder"), Text(command)] if command else []
    if not best["retrain"]:
        parameters = Text(strict_json(best["parameters"]))
        blocks += [Heading("To train it again: the experiment's command, with these parameters")]
        blocks += [Text(best["command"]), parameters]
    title = f"{experiment.name or experiment.id} ({experiment.id}): best of {best['trials']} trials"
    return Document(title, None, (), tuple(blocks))


def _rows(best: dict[str, Any]) -> dict[str, str]:
    percent = best["validation_n"] is not None
    rows = {
        "Trial": f"{best['trial_id']} (no. {best['sequence']})",
        "Hyperparameters": formats.params_text(best["effective"] or best["parameters"]),
        "Validation accuracy" if percent else "Best score": _score_text(best),
    }
    if best["state"] == "RUNNING":
        rows["Preliminary"] = "the experiment is still running"
    if best["parameters_source"] == "event":
        rows["Uncertain"] = "the parameters are NNI's record, which may be another trial's"
    if best["parameters_mismatch"]:
        text = "NNI's page and database have another trial's parameters here; these are the true ones"
        rows["Not as NNI shows"] = text
    if best["optimism"] is not None:
        bias = formats.difference_text(best["optimism"], True)
        rows["Selection bias"] = f"about {bias} too high, as the best of {best['trials']} trials"
    if best["evaluation"]:
        rows["Evaluation"] = f"{_evaluation_text(best['evaluation'])}; not used for the choice"
    return rows


def _score_text(best: dict[str, Any]) -> str:
    n, text = best["validation_n"], formats.score_text(best["score"], best["validation_n"] is not None)
    if n is None:
        mode = "highest" if best["optimise_mode"] == "maximize" else "lowest"
        return f"{text} ({mode} of {best['trials']} trials; n and spread not reported)"
    se = formats.difference_text(best["score_se"], True)
    return f"{text} (n = {n} images; binomial standard error of one such accuracy {se})"


def _evaluation_text(accuracy: dict[str, Any]) -> str:
    names = {"top1": "top-1", "top3": "top-3", "macro": "macro"}
    parts = [
        f"{name} {formats.score_text(accuracy[key], True)}" for key, name in names.items() if accuracy[key] is not None
    ]
    if accuracy["top1_se"] is not None:
        parts[0] += f" (95 % {formats.interval_text(wilson(accuracy['top1'], accuracy['n']))})"
    return ", ".join(parts) + (f" (n = {accuracy['n']} images)" if accuracy["n"] else "")


def _retrain_command(experiment: Experiment, trial: Trial) -> str | None:
    """`python -m trial` with every hyperparameter that the trial used, its cache, and the device, precision and threads of
    the experiment's command; quoted for a shell. Where the trial's own file is gone, the hyperparameters are those of the
    command and of the search, the rest is the trial's default. None for another trial script."""
    if not _is_ours(experiment):
        return None
    flags = _flags(experiment)
    fixed = {name.replace("-", "_"): value for name, value in flags.items() if name not in _NOT_TRAINING}
    words = []
    for name, value in (trial.effective or fixed | trial.parameters).items():
        if name in ("weights", "teacher") and value not in ("imagenet", "none", ""):
            value = _resolved(str(value), experiment)
        words += [f"--{name.replace('_', '-')}", str(value)]
    settings = [word for name in _KEPT if name in flags for word in (f"--{name}", flags[name])]
    return shlex.join(["python", "-m", "trial", *words, *_cache_flag(experiment, trial), *settings])


def _evaluate_command(experiment: Experiment, trial: Trial, weights: str | None) -> str | None:
    """The command that scores this best.pt on the evaluation split; None without one."""
    if weights is None or not _is_ours(experiment):
        return None
    return shlex.join(["python", "-m", "trial", "--evaluate", weights, *_cache_flag(experiment, trial)])


def _predict_command(experiment: Experiment, weights: str | None) -> str | None:
    """The command that names the classes of the photos behind it; None without a best.pt."""
    return shlex.join(["python", "-m", "trial", "predict", weights]) if weights and _is_ours(experiment) else None


def predict_command(best: dict[str, Any], paths: Sequence[Path]) -> str:
    """The command with these photos, from any folder. `best` is what `best_facts` says. Raises AnalysisError without weights."""
    if best["predict"] is None:
        where = best["folder"] or "any folder on this machine"
        raise AnalysisError(
            f"{best['experiment']}: its best trial has no best.pt of python -m trial in {where}; train it again"
        )
    return f"{best['predict']} {shlex.join(str(path.resolve()) for path in paths)}"


def _is_ours(experiment: Experiment) -> bool:
    command = _words(experiment)
    return ("-m", "trial") in zip(command, command[1:])


def _words(experiment: Experiment) -> list[str]:
    """The trial command as the shell splits it; none where its quotes are open."""
    try:
        return shlex.split(str(experiment.config.get("trialCommand") or ""))
    except ValueError:
        return []


def _flags(experiment: Experiment) -> dict[str, str]:
    """Flags of the trial command, `--name value` and `--name=value`."""
    command, flags = _words(experiment), {}
    for word, following in zip(command, [*command[1:], ""]):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            flags[name] = value if equals else following
    return flags


def _cache_flag(experiment: Experiment, trial: Trial) -> list[str]:
    """From the trial's result.json, or else the command; none: the trial's default."""
    cache = best_result(trial).get("cache") or _flags(experiment).get("cache")
    return ["--cache", _resolved(cache, experiment)] if isinstance(cache, str) else []


def _resolved(path: str, experiment: Experiment) -> str:
    """NNI runs a trial in the code directory, and what is relative there is not elsewhere."""
    return str(Path(experiment.config.get("trialCodeDirectory") or "", path))
