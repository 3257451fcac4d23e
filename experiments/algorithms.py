"""The tuner and the assessor of an experiment file, made as NNI makes them: a wrong name or argument otherwise ends the tuner's
process after a start that looks well, and a missing package too."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from experiments.config import ROOT, Experiment
from experiments.findings import Finding, KeyPath
from experiments.repairs import are_off

_OUR_FOLDER = ROOT / "experiments" / "tuners"


def tuner_findings(experiment: Experiment) -> list[Finding]:
    """Faults of a tuner's arguments."""
    tuner = experiment.config.get("tuner") or {}
    if _is_foreign(tuner):
        text = f"{experiment.tuner[0]}: a custom tuner, not tried out here"
        return [Finding("note", "tuner.custom", text, path=("tuner",))]
    return _number_findings(experiment) or _try_tuner(tuner, experiment.config["searchSpace"])


def _is_foreign(algorithm: dict[str, Any]) -> bool:
    """Other people's code is not run here."""
    return not algorithm.get("name") and Path(algorithm.get("codeDirectory") or ".").resolve() != _OUR_FOLDER


def assessor_findings(experiment: Experiment, described: dict | None) -> list[Finding]:
    """Faults of an assessor, and what its pruned trials become. described: our trial's description of itself."""
    assessor: dict[str, Any] = experiment.config.get("assessor") or {}
    if not assessor:
        return []
    path: KeyPath = ("assessor",)
    counted = [Finding(*_counted(), path=path)]
    if _is_foreign(assessor):
        text = f"{assessor.get('className')}: a custom assessor, not tried out here"
        return [Finding("note", "assessor.custom", text, path=path), *counted]
    arguments = assessor.get("classArgs") or {}
    mode = arguments.get("optimize_mode", "maximize")
    if mode not in ("maximize", "minimize"):  # NNI's only logs a line, and stops the wrong trials
        text = f"assessor: optimize_mode {mode!r}: expected maximize or minimize"
        return [Finding("error", "assessor.arguments", text, path=(*path, "classArgs", "optimize_mode"))]
    tuners_mode = experiment.tuner[1].get("optimize_mode", mode)
    if tuners_mode != mode:
        text = f"assessor: optimize_mode {mode}, but the tuner's is {tuners_mode}: it would stop the best trials"
        return [Finding("error", "assessor.other_mode", text, path=(*path, "classArgs", "optimize_mode"))]
    try:
        make_algorithm(assessor, "assessors")
    except Exception as error:  # noqa: BLE001  each assessor refuses in its own way
        return [_refusal("assessor", assessor, error)]
    space = experiment.config.get("searchSpace") or {}
    return [*([] if "epochs" in space else _epoch_findings(assessor, described)), *counted]


def _counted() -> tuple[str, str, str]:
    """Level, key and text."""
    if are_off():
        lost = "NNI records the trials that it stops as USER_CANCELED without a result"
        return "warning", "assessor.counts", f"assessor: {lost}; they count to maxTrialNumber"
    kept = "trials that it ends early are shown as pruned and keep the result of their best epoch so far"
    return "note", "assessor.counts", f"assessor: {kept}; they count to maxTrialNumber"


def _epoch_findings(assessor: dict[str, Any], described: dict | None) -> list[Finding]:
    """Whether it comes to a judgement before a trial's last epoch, where that is known."""
    fields, given = ((described or {}).get(key) or {} for key in ("fields", "given"))
    epochs = given.get("epochs", (fields.get("epochs") or {}).get("default"))
    name, arguments = assessor.get("name") or assessor["className"], assessor.get("classArgs") or {}
    key, default = {"medianstop": ("start_step", 0), "curvefitting": ("start_step", 6)}.get(
        name.lower(), ("min_epochs", 1)
    )
    first = arguments.get(key, default)
    if epochs is None or not isinstance(first, int) or first < int(epochs):
        return []
    text = f"assessor {name}: its first judgement is after epoch {first}, and a trial has {epochs}: it ends none early"
    return [Finding("warning", "assessor.too_late", f"{text}; lower {key}", path=("assessor", "classArgs", key))]


def _number_findings(experiment: Experiment) -> list[Finding]:
    """What no tuner can know: how many trials there will be, and how many at once."""
    name, args = experiment.tuner
    concurrency = experiment.config["trialConcurrency"]
    limit = experiment.config.get("maxTrialNumber")
    first, initial = args.get("first") or [], args.get("initial") or 0
    if limit and isinstance(first, list) and isinstance(initial, int) and len(first) + initial > limit:
        text = (
            f"tuner {name}: {len(first)} first and {initial} initial trials, but maxTrialNumber is {limit}; "
            f"set it to {len(first) + initial} or more, or lower initial"
        )
        return [Finding("error", "tuner.too_few_trials", text, path=("maxTrialNumber",))]
    size = args.get("population_size", 32)
    if "evolution" in name.lower() and isinstance(size, int) and size < concurrency:
        text = (
            f"tuner {name}: population_size {size} is below trialConcurrency {concurrency}: it would run out of "
            f"individuals; set population_size to {concurrency} or more"
        )
        return [Finding("error", "tuner.population", text, path=("tuner", "classArgs", "population_size"))]
    return []


def make_algorithm(algorithm: dict[str, Any], kind: str) -> Any:
    """kind: "tuners" or "assessors". Raises whatever the class does, or NNI for a name that it does not know."""
    logging.getLogger("nni").setLevel(logging.CRITICAL)  # what stops a tuner it also raises
    from nni.tools.package_utils.tuner_factory import create_builtin_class_instance, create_customized_class_instance

    if algorithm.get("name"):
        return create_builtin_class_instance(algorithm["name"], algorithm.get("classArgs") or {}, kind)
    return create_customized_class_instance(algorithm)


def _try_tuner(tuner: dict[str, Any], space: dict[str, Any]) -> list[Finding]:
    """Make the tuner and let it propose and learn, as NNI's dispatcher does."""
    try:
        instance = make_algorithm(tuner, "tuners")
        instance.update_search_space(space)
        for number in range(3):  # with results: TPE of one start-up trial, for example, dies at its second
            for parameters in instance.generate_multiple_parameters([number], st_callback=lambda *_: None):
                instance.receive_trial_result(number, parameters, 0.5)
                instance.trial_end(number, True)
    except Exception as error:  # noqa: BLE001  each tuner refuses in its own way
        return [_refusal("tuner", tuner, error)]
    return []


def _refusal(what: str, algorithm: dict[str, Any], error: Exception) -> Finding:
    name, arguments = algorithm.get("name") or algorithm["className"], algorithm.get("classArgs") or {}
    reason = str(error).split("\n")[0] or type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return Finding("error", f"{what}.package_missing", f"{what} {name}: {reason}", path=(what,))
    text = f"{what} {name}: NNI cannot use it with these classArgs: {reason}"
    return Finding("error", f"{what}.arguments", text, path=_argument_path((what,), arguments, str(error)))


def _argument_path(path: KeyPath, arguments: dict[str, Any], message: str) -> KeyPath:
    """The path to the argument whose name or value an error quotes, as in "'maximise' is not a valid OptimizeMode"."""
    quoted = set(re.findall(r"'([^']*)'", message))
    name = next((name for name, value in arguments.items() if {name, str(value)} & quoted), None)
    return (*path, "classArgs", name) if name else path
