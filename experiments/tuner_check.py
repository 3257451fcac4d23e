"""Faults of a tuner's arguments. NNI itself tells them to a log, after a start that looks well."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from experiments.config import ROOT, Experiment

OUR_TUNERS = ROOT / "experiments" / "tuners"


def tuner_problems(experiment: Experiment) -> list[str] | None:
    """One line for each fault; None for a custom tuner that is not this project's: its code is not run here."""
    tuner = experiment.config.get("tuner") or {}
    if not tuner.get("name") and not _is_ours(tuner):
        return None
    return _number_problems(experiment) or _trial_run(tuner, experiment.config["searchSpace"])


def _is_ours(tuner: dict[str, Any]) -> bool:
    return bool(tuner.get("className")) and Path(tuner["codeDirectory"]).resolve() == OUR_TUNERS


def _number_problems(experiment: Experiment) -> list[str]:
    """What no tuner can know: how many trials there will be, and how many at once."""
    name, args = experiment.tuner
    concurrency = experiment.config["trialConcurrency"]
    limit = experiment.config.get("maxTrialNumber")
    first, initial = args.get("first") or [], args.get("initial") or 0
    if limit and isinstance(first, list) and isinstance(initial, int) and len(first) + initial > limit:
        return [
            f"tuner {name}: {len(first)} first and {initial} initial trials, but maxTrialNumber is {limit}; "
            f"set it to {len(first) + initial} or more, or lower initial"
        ]
    size = args.get("population_size", 32)
    if "evolution" in name.lower() and isinstance(size, int) and size < concurrency:
        return [
            f"tuner {name}: population_size {size} is below trialConcurrency {concurrency}: it would run out of "
            f"individuals; set population_size to {concurrency} or more"
        ]
    return []


def _trial_run(tuner: dict[str, Any], space: dict[str, Any]) -> list[str]:
    """Make the tuner and let it propose and learn, as NNI's dispatcher does."""
    logging.getLogger("nni").setLevel(logging.CRITICAL)  # what stops a tuner it also raises
    from nni.tools.package_utils.tuner_factory import create_builtin_class_instance, create_customized_class_instance

    try:
        if tuner.get("name"):
            instance = create_builtin_class_instance(tuner["name"], tuner.get("classArgs") or {}, "tuners")
        else:
            instance = create_customized_class_instance(tuner)
        instance.update_search_space(space)
        for number in range(3):  # with results: TPE of one start-up trial, for example, dies at its second
            for parameters in instance.generate_multiple_parameters([number], st_callback=lambda *_: None):
                instance.receive_trial_result(number, parameters, 0.5)
                instance.trial_end(number, True)
    except Exception as error:  # noqa: BLE001  each tuner refuses in its own way
        reason = str(error).split("\n")[0] or type(error).__name__
        name = tuner.get("name") or tuner["className"]
        return [f"tuner {name}: NNI cannot use it with these classArgs: {reason}"]
    return []
