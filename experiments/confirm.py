"""Retrain the best configurations of searches, and the default, with fresh seeds, and judge them: python -m experiments confirm.

In two stages: every configuration is trained with a few seeds, and the one with the best mean validation accuracy, and the
default, with further seeds that chose nothing and alone are judged. In one stage (`--screen 0`, or one configuration) all are
judged by the seeds that choose. The plan is fixed in the folder before the first training. Every run of the same command
continues from what NNI's databases hold. Only when all trainings have ended is any evaluation accuracy looked at, and the result
written: confirm.json, cells.csv and report.html. confirm.yml, with confirm_space.json, is the NNI experiment of the cells that
were missing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from analysis.reading.locate import registry
from analysis.reading.reader import load_experiment
from analysis.reading.records import Experiment as Record
from analysis.reading.records import Trial, validation_n
from analysis.reading.replication import (
    Cell,
    Configuration,
    ConfirmationPlan,
    confirmation_folder,
    key_of,
    read_plan,
    typed,
    write_plan,
    write_text,
)
from analysis.render.formats import seconds_text
from analysis.render.terminal import render
from analysis.reports.confirmation import confirmation_summary, write_confirmation
from analysis.reports.confirmation_result import confirmation_result, screening
from analysis.stats.equivalence import MARGIN
from analysis.stats.paired import MOST_PAIRS
from experiments.check import describe_trial
from experiments.config import OUR_TRIAL, Experiment, Overrides, flag_words, parse_flags, read_experiment
from experiments.findings import ExperimentError
from experiments.replicate import Status, batch_settings, checked, power_text, replicate, status_of
from experiments.watch import WatchSettings

DEFAULT = "default"
FILE, SPACE = "confirm.yml", "confirm_space.json"
_KEPT = ("trialCodeDirectory", "trialGpuNumber", "maxTrialDuration", "logLevel", "debug", "trainingService")


TOP, SEEDS, SCREEN = 3, 8, 3
"""Where the command names none: configurations per search, seeds that judge, seeds of the first stage."""


@dataclass(frozen=True)
class ConfirmRequest:
    """`ids` may be paths; `out` is None for runs/confirm-IDS; a size is None where the folder's plan or the default decides."""

    ids: list[str]
    out: Path | None = None
    launch: bool = True
    top: int | None = None
    seeds: int | None = None
    screen: int | None = None
    margin: float = MARGIN

    @property
    def sizes(self) -> dict[str, int]:
        """Those that the command names."""
        sizes = {"top": self.top, "seeds": self.seeds, "screen": self.screen}
        return {name: size for name, size in sizes.items() if size is not None}

    def command(self, plan: ConfirmationPlan) -> str:
        """That continues the plan."""
        sizes = {"top": plan.request["top"], "seeds": plan.request["seeds"], "screen": plan.request.get("screen", 0)}
        flags = " ".join(f"--{name} {size}" for name, size in sizes.items())
        margin = "" if self.margin == MARGIN else f" --margin {100 * self.margin:g}"
        out = f" --out {shlex.quote(str(self.out))}" if self.out else ""
        return f"python -m experiments confirm {shlex.join(self.ids)} {flags}{margin}{out}"


@dataclass(frozen=True)
class _Stage:
    """A grid and its cells, all trained unless `code` says what the command ends with."""

    plan: ConfirmationPlan
    cells: list[Cell]
    code: int | None


def confirm(request: ConfirmRequest) -> int:
    """Trains what is missing; when all has ended, prints the verdict and the table and writes the files. Returns the exit
    code. Raises ExperimentError or AnalysisError for what a person has to put right."""
    folder, plan = _folder_and_plan(request)
    _print(_size_text(plan), _power_text(plan), *(f"note: {note}" for note in plan.notes))
    command, screened, last = request.command(plan), None, plan
    if plan.screening:
        screened = _stage(request, command, folder, plan.screening)
        if screened.code is not None:
            return screened.code
        last = plan.final(_best_screened(screened))
        _print(
            f"first stage: {last.configurations[0].name} is the best of {len(plan.configurations) - 1} by validation accuracy"
        )
    judged = _stage(request, command, folder, last)
    if judged.code is not None:
        return judged.code
    result = confirmation_result(
        last, judged.cells, request.margin, screened and screening(plan.screening, screened.cells)
    )
    cells = [*(screened.cells if screened else ()), *judged.cells]
    page = write_confirmation(folder, result, cells, plan.settings)
    print(f"{render(confirmation_summary(result))}\n\nreport: {page}")
    return 0


def _stage(request: ConfirmRequest, command: str, folder: Path, plan: ConfirmationPlan) -> _Stage:
    """After training what is missing of it, unless the request is not to launch."""
    code = _train(folder, plan) if request.launch else 0
    status = status_of(plan, folder)
    if not status.missing:
        return _Stage(plan, status.cells, None)
    if not request.launch:
        print(_next_command(folder, plan, status))
        _print(f"{status.ended}; when all have, continue with: {command}")
        return _Stage(plan, status.cells, 0)
    where = f"experiment {status.alive[0]} is still running" if status.alive else "nothing is lost"
    _print(f"{status.ended}; {where}. Continue with the same command: {command}")
    return _Stage(plan, status.cells, code or 1)


def _best_screened(stage: _Stage) -> str:
    """The name of the configuration that goes on. Raises ExperimentError where no training of the stage has a result."""
    best = screening(stage.plan, stage.cells)["chosen"]
    if best is None:
        failed = next(cell for cell in stage.cells if cell.failure)
        raise ExperimentError(
            f"none of the {len(stage.cells)} trainings of the first stage has a result ({failed.failure}); see: "
            f"python -m experiments why {failed.experiment}"
        )
    return best


def _train(folder: Path, plan: ConfirmationPlan) -> int:
    """Until no training is missing. Returns the exit code."""

    def prepare(status: Status) -> Experiment:
        return checked(read_experiment(write_experiment(folder, plan, status.missing), Overrides()))

    try:
        with contextlib.redirect_stdout(sys.stderr):  # the command's output is the result alone
            return replicate(plan, prepare, WatchSettings(), folder)
    except KeyboardInterrupt:
        return 130


def _next_command(folder: Path, plan: ConfirmationPlan, status: Status) -> str:
    """That trains what is missing."""
    if status.alive:
        return f"python -m experiments watch {status.alive[0]}"
    file = write_experiment(folder, plan, status.missing)
    return f"python -m experiments launch {shlex.quote(str(file))}"


def _print(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def _folder_and_plan(request: ConfirmRequest) -> tuple[Path, ConfirmationPlan]:
    """The plan is made and written where there is none yet."""
    sizes = {"top": TOP, "seeds": SEEDS, "screen": SCREEN} | request.sizes
    if sizes["top"] < 1 or not 2 <= sizes["seeds"] <= MOST_PAIRS or not 0 <= sizes["screen"] <= MOST_PAIRS:
        raise ExperimentError(
            f"--top {sizes['top']} --seeds {sizes['seeds']} --screen {sizes['screen']}: expected a --top of 1 or more, 2 to "
            f"{MOST_PAIRS} --seeds (one seed has no spread), and a --screen of 0 to {MOST_PAIRS}"
        )
    searches = [load_experiment(name) for name in request.ids]
    ids = [search.id for search in searches]
    folder = (request.out or confirmation_folder(ids)).resolve()
    plan = read_plan(folder, ConfirmationPlan)
    if plan is None:
        plan = _new_plan(searches, {"experiments": ids, **sizes})
        write_plan(folder, plan)
    refuse_another(folder, plan, {"experiments": ids, **request.sizes})
    return folder, plan


def refuse_another(folder: Path, plan: ConfirmationPlan, request: dict[str, Any]) -> None:
    """Raises ExperimentError where the folder's plan is of another request; of sizes that the request leaves open it is not."""
    known = {"screen": 0} | plan.request  # one stage, where the plan knows of no other
    one_stage = len(plan.configurations) == 2  # a first stage would have nothing to choose
    if any(known[name] != value for name, value in request.items() if name != "screen" or not one_stage):
        arguments = "{} --top {top} --seeds {seeds} --screen {screen}".format(" ".join(known["experiments"]), **known)
        raise ExperimentError(
            f"{folder} holds the confirmation of {arguments}; repeat that, or name another folder with --out"
        )


def _new_plan(searches: list[Record], request: dict[str, Any]) -> ConfirmationPlan:
    for search in searches:
        if request["experiments"].count(search.id) > 1:
            raise ExperimentError(f"experiment {search.id} was named twice; name each search once")
        if search.state == "RUNNING":
            raise ExperimentError(
                f"experiment {search.id} is still running, its top may change; wait for it: python -m experiments watch "
                f"{search.id}"
            )
        if search.optimise_mode != "maximize":
            raise ExperimentError(
                f"experiment {search.id} minimised what its trials report; confirm expects an accuracy that was maximised"
            )
    flags = common_flags(searches)
    fields = [_trial_fields(search, flags) for search in searches][0]
    return plan_of(searches, request, flags, fields)


def plan_of(
    searches: Sequence[Record], request: dict[str, Any], flags: dict[str, str], fields: dict[str, dict[str, Any]]
) -> ConfirmationPlan:
    """`request` has experiments, top, seeds and, for two stages, screen; `flags` are those that all searches share, `fields`
    the trial's own. Where there is nothing to choose, there is one stage."""
    configurations, notes = choose_configurations(searches, request["top"], fields)
    screen = request.get("screen", 0) if len(configurations) > 2 else 0
    request = {name: value for name, value in request.items() if name != "screen"} | (
        {"screen": screen} if screen else {}
    )
    fixed = [int(flags_of(search).get("seed", fields["seed"]["default"])) for search in searches]
    seeds = fresh_seeds(searches, screen + request["seeds"], fixed)
    return ConfirmationPlan(
        request=request,
        configurations=tuple(configurations),
        seeds=tuple(seeds[screen:]),
        screen=tuple(seeds[:screen]),
        settings=settings_of(searches[0], flags),
        fields=fields,
        searches=tuple(_search_facts(search) for search in searches),
        notes=tuple(notes),
    )


def _size_text(plan: ConfirmationPlan) -> str:
    """How much there is to train, and about how long that takes."""
    tuned, seeds, first = len(plan.configurations) - 1, len(plan.seeds), plan.screening
    count = len(first.cells) + 2 * seeds if first else len(plan.cells)
    size = f"{count} trainings: {tuned + 1} configurations with {seeds} seeds"
    if first:
        size = (
            f"{count} trainings: {tuned} configurations with {len(plan.screen)} seeds, then the best of them and the default with "
            f"{seeds} others, which alone are judged"
        )
    medians = [search["median_trial_s"] for search in plan.searches if search["median_trial_s"]]
    if not medians:
        return size
    return f"{size}, about {seconds_text(count * sum(medians) / len(medians))} by the searches' median trial"


def _power_text(plan: ConfirmationPlan) -> str:
    """What the judged seeds can show."""
    return power_text(len(plan.seeds), 1 if plan.screen else len(plan.configurations) - 1)


def flags_of(search: Record) -> dict[str, str]:
    """{field: value} of the trial's command line. Raises ExperimentError for another trial, whose seed flag is not known."""
    command = str(search.config.get("trialCommand") or "")
    words = shlex.split(command)
    if words[: len(OUR_TRIAL)] != OUR_TRIAL:
        raise ExperimentError(
            f"experiment {search.id} runs {command!r}: confirm retrains by seed, which only `{' '.join(OUR_TRIAL)}` is known "
            "to take; retrain other scripts by hand"
        )
    return parse_flags(words[len(OUR_TRIAL) :], f"experiment {search.id}")


def common_flags(searches: Sequence[Record]) -> dict[str, str]:
    """The flags that all trials share; the seed and the threads, which no training depends on, aside."""
    flags = [flags_of(search) for search in searches]
    compared = [{name: own[name] for name in own if name not in ("seed", "threads")} for own in flags]
    for search, own in zip(searches, compared):
        differing = sorted(name for name in {*own, *compared[0]} if own.get(name) != compared[0].get(name))
        if differing:
            name = differing[0]
            raise ExperimentError(
                f"{searches[0].id} and {search.id} fixed {', '.join(differing)} differently "
                f"({name}: {compared[0].get(name, 'default')} and {own.get(name, 'default')}), so that their configurations "
                "are no rivals; confirm each by itself"
            )
    return {name: value for name, value in flags[0].items() if name != "seed"}


def _trial_fields(search: Record, flags: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The trial's fields, as it describes itself. Raises ExperimentError where it cannot run again: a missing cache."""
    folder = Path(str(search.config.get("trialCodeDirectory") or "."))
    if not (folder / "trial").is_dir():
        raise ExperimentError(
            f"experiment {search.id} ran the code in {folder}, which has no trial/ any more; put it back"
        )
    config = search.config | {"trialCodeDirectory": str(folder), "trialCommand": _command(flags)}
    described = describe_trial(Experiment(search.folder, config))
    if described["problems"]:
        raise ExperimentError(f"the trial of {search.id} cannot run again: {'; '.join(described['problems'])}")
    unknown = sorted(set(search.config.get("searchSpace") or {}) - set(described["fields"]))
    if unknown:
        raise ExperimentError(f"experiment {search.id} searched {', '.join(unknown)}, which its trial no longer knows")
    return described["fields"]


def _command(flags: dict[str, str]) -> str:
    return shlex.join([*OUR_TRIAL, *flag_words(flags)])


def settings_of(search: Record, flags: dict[str, str]) -> dict[str, Any]:
    """NNI's settings of a search that its confirmation shares; without its assessor, which would cut trainings short."""
    settings = {name: search.config[name] for name in _KEPT if search.config.get(name) is not None}
    settings["trialCommand"] = _command(flags)
    if "trainingService" in settings:  # NNI repeats both there, and refuses a file in which they differ
        repeated = {name: settings[name] for name in ("trialCommand", "trialCodeDirectory")}
        service = settings["trainingService"]
        settings["trainingService"] = service | {name: repeated[name] for name in repeated if name in service}
    if folder := registry().get(search.id, {}).get("logDir"):
        settings["experimentWorkingDirectory"] = folder
    return settings


def write_experiment(folder: Path, plan: ConfirmationPlan, cells: Sequence[dict[str, Any]]) -> Path:
    """confirm.yml and confirm_space.json for these cells; returns the former."""
    batch = batch_settings(plan, cells, plan.settings.get("maxTrialDuration"))
    write_text(folder / SPACE, json.dumps(batch.pop("searchSpace"), indent=1) + "\n")
    config = {"searchSpaceFile": SPACE, **plan.settings, "trialConcurrency": 1, **batch}
    write_text(folder / FILE, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return folder / FILE


def choose_configurations(
    searches: Sequence[Record], top: int, fields: dict[str, dict[str, Any]]
) -> tuple[list[Configuration], list[str]]:
    """The distinct configurations among the `top` of each search by validation accuracy, then the default; and notes.

    Trials without a result are never among them. `fields`: the trial's own, {name: {type, default, ...}}.
    """
    names = [name for search in searches for name in (search.config.get("searchSpace") or {}) if name != "seed"]
    default = typed({name: fields[name]["default"] for name in names}, fields)
    promises: dict[str, list[dict[str, Any]]] = {}
    notes: list[str] = []
    for search in searches:
        ranked = _ranked(search, default, fields)
        if len(ranked) < top:
            notes.append(f"--top {top}: {search.id} has only {len(ranked)} different configurations with a result")
        for rank, (key, trial) in enumerate(list(ranked.items())[:top], start=1):
            promise = {"experiment": search.id, "trial": trial.trial_id, "rank": rank, "val_accuracy": trial.score}
            promises.setdefault(key, []).append(promise)
    of_default = promises.pop(key_of(default), [])
    if of_default:
        notes.append("the default is itself among the top configurations: it is trained once")
    if not promises:
        raise ExperimentError("nothing to confirm: no search has a configuration with a result other than the default")
    if shared := sum(len(own) > 1 for own in promises.values()):
        notes.append(f"{shared} of the configurations were found by several searches: each is trained once")
    tuned = [Configuration(_name(own[0], searches), json.loads(key), tuple(own)) for key, own in promises.items()]
    return [*tuned, Configuration(DEFAULT, json.loads(key_of(default)), tuple(of_default))], notes


def _name(first: dict[str, Any], searches: Sequence[Record]) -> str:
    """The rank in the search that found it first, with that search's id where there are several."""
    rank = f"rank {first['rank']}"
    return f"{first['experiment']} {rank}" if len(searches) > 1 else rank


def _ranked(search: Record, default: dict[str, Any], fields: dict[str, dict[str, Any]]) -> dict[str, Trial]:
    """Configuration (as `key_of`) to its best trial, best first, the earlier among equals; only trials with a result."""
    scored = [trial for trial in search.trials if trial.score is not None]
    ranked: dict[str, Trial] = {}
    for trial in sorted(scored, key=lambda trial: -trial.score):
        values = {name: trial.parameters[name] for name in default if name in trial.parameters}
        ranked.setdefault(key_of(typed({**default, **values}, fields)), trial)
    return ranked


def fresh_seeds(searches: Sequence[Record], count: int, fixed: Sequence[int]) -> list[int]:
    """The smallest seeds above 0 that no trial used; `fixed`, one per search, is that of its trials that report none."""
    used = {trial.effective.get("seed", seed) for search, seed in zip(searches, fixed) for trial in search.trials}
    return list(itertools.islice((seed for seed in itertools.count(1) if seed not in used), count))


def _search_facts(search: Record) -> dict[str, Any]:
    """What is kept of a search, for the page."""
    images = [n for trial in search.trials if (n := validation_n(trial)) is not None]
    durations = [trial.duration_s for trial in search.trials if trial.score is not None and trial.duration_s]
    return {
        "id": search.id,
        "name": search.name,
        "trials": len(search.trials),
        "with_result": sum(trial.score is not None for trial in search.trials),
        "validation_n": images[0] if images else None,
        "median_trial_s": statistics.median(durations) if durations else None,
    }
