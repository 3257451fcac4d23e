"""May these experiments be compared, and by which test? Arms, obstacles (each with what to change), shared trials, notes.

A test takes repeats for independent. They are not where they share tuner seeds or random first trials: then a lucky
start is counted once for each repeat, and passes for a better tuner (docs/log.md has the rates).
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from ..reading import startup
from ..reading.records import ENDED, Experiment, arm_names, best_result, shared_photos
from ..render.formats import listed

CONTINUOUS = ("uniform", "loguniform", "normal", "lognormal")
FEWEST_FOR_COPIES = 5
"""Trials from which equal proposals in a search space without continuous hyperparameters are no coincidence."""
SAME_STREAM = ("tpe", "random")  # with one seed NNI's TPE and Random sample the same first trials
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
NEAR_LIMIT = 0.95  # of maxExperimentDuration: from there on the time ended an experiment


class Arm(NamedTuple):
    """One configuration and its repeats, in the order in which they were named."""

    name: str
    experiments: tuple[Experiment, ...]

    @property
    def bests(self) -> list[float | None]:
        """The best score of each experiment; None where it has no result."""
        return [None if e.best is None else e.best.score for e in self.experiments]

    @property
    def maximises(self) -> bool:
        return self.experiments[0].optimise_mode == "maximize"


@dataclass(frozen=True)
class Sharing:
    """Random trials that experiments of two arms have in common: `common` of them all; `pairs`, (place in the first arm, place
    in the second), share more than that; `fault` says why no test holds, "" where one does."""

    common: int = 0
    pairs: tuple[tuple[int, int], ...] = ()
    fault: str = ""


def obstacles_between(first: Arm, second: Arm, has_handicap: bool = False) -> list[str]:
    """Reasons why a difference of the bests says nothing about the tuners. `has_handicap`: unequal budgets are none."""
    arms, experiments = (first, second), [*first.experiments, *second.experiments]
    budgets = "" if has_handicap else budget_difference(first, second)
    if budgets:
        budgets += "; resume the shorter ones, or compare with a stated handicap: --handicap"
    reasons = [*_settings(experiments), *_data(experiments), *_results(arms), *_copies(experiments), budgets]
    reasons += [*(_repeated_proposals(arm) for arm in arms), _trial_seeds(arms)]
    if not any(reasons):
        reasons.append(sharing(first, second).fault)
    return list(filter(None, reasons))


def _settings(experiments: list[Experiment]) -> list[str]:
    reasons, first = [], experiments[0]
    if any(other.config.get("searchSpace") != first.config.get("searchSpace") for other in experiments):
        reasons.append("their search spaces differ")
    modes = list(dict.fromkeys(experiment.optimise_mode for experiment in experiments))
    if len(modes) > 1:
        reasons.append(f"their optimize_mode differs ({' and '.join(modes)})")
    commands = dict.fromkeys(tuple(_command(experiment)) for experiment in experiments)
    if len(commands) > 1:
        reasons.append(f"their trials run different commands ({' / '.join(' '.join(words) for words in commands)})")
    return reasons


def _command(experiment: Experiment) -> list[str]:
    """The trial command's words without the trial's seed, which repeats may vary."""
    words = shlex.split(str(experiment.config.get("trialCommand", "")), posix=False)
    return [
        word for before, word in zip(["", *words], words) if before != "--seed" and word.partition("=")[0] != "--seed"
    ]


def _data(experiments: list[Experiment]) -> list[str]:
    """By what the best trials recorded: other photos, another size of them, other numbers of images."""
    results = [best_result(experiment.best) for experiment in experiments]
    reasons = []
    by_content = all(result.get("photos_digest") for result in results)
    key = "photos_digest" if by_content else "source_digest"  # the latter changes with the files' names and times, too
    digests = _different(str(result.get(key) or "")[:12] for result in results)
    if len(digests) > 1:
        reasons.append(f"they used other photos (digests {listed(digests)}); run all of them on one cache")
    sizes = _different(result.get("cache_px") for result in results)
    if len(sizes) > 1:
        reasons.append(f"their caches store photos of other sizes ({listed(sizes)} px); run all of them on one cache")
    for split in ("validation", "evaluation"):
        numbers = _different(n for experiment in experiments for n in _images(experiment, f"{split}_n"))
        if len(numbers) > 1:
            reasons.append(
                f"they have other numbers of {split} images ({listed(numbers)}); run all of them on one cache"
            )
    return reasons


def _different(values: Any) -> list[str]:
    """As texts, each once; what was not recorded is left out."""
    return list(dict.fromkeys(str(value) for value in values if value))


def _images(experiment: Experiment, key: str) -> list[int]:
    finals = (trial.final for trial in experiment.trials if isinstance(trial.final, dict))
    return [int(final[key]) for final in finals if isinstance(final.get(key), (int, float))]


def _results(arms: Sequence[Arm]) -> list[str]:
    """An arm needs a result, and what still runs may yet have one; a repeat that ended without one is ranked last."""
    reasons = []
    for arm in arms:
        for experiment, name in zip(arm.experiments, arm_names(list(arm.experiments)), strict=True):
            if experiment.best is None and experiment.state == "RUNNING" and len(arm.experiments) > 1:
                reasons.append(f"{name} is still running and has no result yet")
            elif experiment.best is None and len(arm.experiments) == 1:
                reasons.append(f"none of the {len(experiment.trials)} trials of {name} ended with a result")
        if len(arm.experiments) > 1 and all(best is None for best in arm.bests):
            reasons.append(f"none of the {len(arm.experiments)} experiments of {arm.name} has a result")
    return reasons


def _copies(experiments: list[Experiment]) -> list[str]:
    counts = Counter(experiment.id for experiment in experiments)
    return [
        f"experiment {name} is here {n} times, as a copy; name each experiment once"
        for name, n in counts.items()
        if n > 1
    ]


def ended(experiment: Experiment) -> int:
    """Trials that have ended, failed ones too: the budget that was used."""
    return sum(trial.state in ENDED for trial in experiment.trials)


def budget_difference(first: Arm, second: Arm) -> str:
    """How the arms' numbers of trials per experiment differ, "" where they do not, or where one time limit ended all of those
    that have fewer. Experiments without a result, which are ranked last, are left out."""
    arms = (first, second)
    kept = [[e for e in arm.experiments if e.best is not None] for arm in arms]
    counts = [sorted(map(ended, experiments)) for experiments in kept]
    if not all(counts):
        return ""
    most = max(map(max, counts))
    short = [e for experiments in kept for e in experiments if ended(e) < most]
    if not short or counts[0] == counts[1] or _ended_by_time(short, [*kept[0], *kept[1]]):
        return ""
    parts = [f"{_span(numbers)} per experiment of {arm.name}" for arm, numbers in zip(arms, counts)]
    running = ", and not all of them have ended" if any(e.state == "RUNNING" for e in short) else ""
    return f"their budgets differ ({listed(parts)}{running})"


def _ended_by_time(short: list[Experiment], experiments: list[Experiment]) -> bool:
    """Whether all had the same time limit and those with fewer trials used it up: hours are then the budget, and are equal."""
    limits = {_seconds(experiment.config.get("maxExperimentDuration")) for experiment in experiments}
    (limit,) = limits if len(limits) == 1 else (None,)
    return limit is not None and all(experiment.wall_seconds >= NEAR_LIMIT * limit for experiment in short)


def _span(counts: list[int]) -> str:
    low, high = counts[0], counts[-1]
    return f"{low} trial{'s' * (low != 1)}" if low == high else f"{low} to {high} trials"


def _seconds(duration: Any) -> float | None:
    """Of NNI's durations, such as 12h or a number of seconds."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([smhd]?)\s*", str(duration))
    return float(match[1]) * SECONDS[match[2] or "s"] if match else None


def _repeated_proposals(arm: Arm) -> str:
    """Repeats of one arm that had to propose the same trials, or did."""
    names = arm_names(list(arm.experiments))
    for (one, name), (other, other_name) in combinations(zip(arm.experiments, names), 2):
        seed, pair = one.class_args.get("seed"), f"{name} and {other_name}"
        if seed is not None and seed == other.class_args.get("seed"):
            return f"repeats of {arm.name} have the same tuner seed ({pair}: {seed}); run each with a seed of its own"
        parameters = [[trial.parameters for trial in e.trials] for e in (one, other)]
        is_listed = startup.startup_trials(one.tuner, one.class_args) == 0  # these tuners walk one list in every repeat
        equal = bool(parameters[0]) and parameters[0] == parameters[1] and not is_listed
        if equal and (_is_continuous(one) or len(parameters[0]) >= FEWEST_FOR_COPIES):
            return f"repeats of {arm.name} ran the same trials ({pair}); run each with a tuner seed of its own"
        scores = [[trial.score for trial in e.trials] for e in (one, other)]
        if parameters[0] == parameters[1] and scores[0] == scores[1] and len(scores[0]) >= FEWEST_FOR_COPIES:
            return f"{pair} have the same trials with the same results; run each with a trial seed of its own"
    return ""


def _is_continuous(experiment: Experiment) -> bool:
    """Whether two independent random trials of this search space never are equal."""
    space = experiment.config.get("searchSpace")
    specs = space.values() if isinstance(space, dict) else ()
    return any(isinstance(spec, dict) and spec.get("_type") in CONTINUOUS for spec in specs)


def _trial_seeds(arms: Sequence[Arm]) -> str:
    """The trial's own seed may be one for all or another in each repeat, not one per arm."""
    seeds = [[trial_seed(experiment) for experiment in arm.experiments] for arm in arms]
    if None in (*seeds[0], *seeds[1]) or sorted(seeds[0]) == sorted(seeds[1]):
        return ""
    if all(len(set(own)) == len(own) for own in seeds):
        return ""
    parts = [f"{listed(sorted({str(seed) for seed in own}))} in {arm.name}" for arm, own in zip(arms, seeds)]
    return f"their trials' seeds differ by arm ({'; '.join(parts)}); give repeat k of each arm the same --seed of the trial"


def trial_seed(experiment: Experiment) -> int | None:
    """The seed that all trials trained with, None where it is not recorded or varies within the experiment."""
    seeds = {trial.effective.get("seed") for trial in experiment.trials if trial.effective}
    (seed,) = seeds if len(seeds) == 1 else (None,)
    return seed if isinstance(seed, int) else None


def sharing(first: Arm, second: Arm) -> Sharing:
    """Which random trials the experiments share. One test holds where all share the same ones (the bests are exchangeable
    given these), another where experiment k of each arm share theirs with each other alone. Where repeats of one arm share
    what the other arm has not, none does."""
    experiments = [*first.experiments, *second.experiments]
    if len(experiments) == 2:
        return Sharing(_shared_random(*map(_Start.of, experiments)))
    starts, n_first = [_Start.of(experiment) for experiment in experiments], len(first.experiments)
    shared = {(i, j): _shared_random(starts[i], starts[j]) for i, j in combinations(range(len(starts)), 2)}
    common = min(shared.values())
    excess = [places for places, n in shared.items() if n > common]
    within = [places for places in excess if (places[0] < n_first) == (places[1] < n_first)]
    if within:
        names = arm_names(experiments)
        pair, n = listed([names[place] for place in within[0]]), shared[within[0]]
        return Sharing(
            common,
            fault=f"repeats of one arm begin with the same random trials ({pair}: {n}), so that a lucky start can pass for a "
            "better tuner; give each repeat an initial_seed of its own, the same in both arms, or all one",
        )
    used = Counter(place for places in excess for place in places)
    if excess and (len(used) < len(experiments) or max(used.values()) > 1):
        return Sharing(
            common,
            fault="some experiments of one arm begin with the random trials of some of the other, so that neither the test of "
            "independent experiments nor that of pairs holds; give each experiment a tuner seed of its own, and repeat k of each arm the same "
            "initial_seed or all experiments one",
        )
    return Sharing(common, tuple((i, j - n_first) for i, j in excess))


class _Start(NamedTuple):
    """What makes two experiments begin alike: the design, the tuner's seed and start-up, the trials sampled at random."""

    design: startup.Design
    stream: tuple[Any, int]  # seed, or None; number of trials sampled with it
    random: frozenset[str]

    @classmethod
    def of(cls, experiment: Experiment) -> _Start:
        seed = experiment.class_args.get("seed") if startup.key_of(experiment.tuner) in SAME_STREAM else None
        first = startup.startup_trials(experiment.tuner, experiment.class_args)
        sampled = 0 if first is None else int(min(first, len(experiment.trials)))
        random = random_trials(experiment) if _is_continuous(experiment) else []
        return cls(experiment.design, (seed, sampled), frozenset(json.dumps(p, sort_keys=True) for p in random))


def random_trials(experiment: Experiment) -> list[dict[str, Any]]:
    """Hyperparameters that were sampled at random: not chosen by the tuner, given by the file or added by a person. Of a tuner
    that is not known here, all that might be."""
    chosen = experiment.chosen or [False] * len(experiment.trials)
    return [
        trial.parameters
        for trial, is_chosen in zip(experiment.trials, chosen, strict=True)
        if trial.parameters and not (is_chosen or trial.customised or experiment.was_given(trial))
    ]


def _shared_random(one: _Start, other: _Start) -> int:
    """By the experiment files, or by what was really proposed: no two continuous samples are equal by coincidence."""
    declared = (
        min(one.design.random, other.design.random) if startup.same_random_trials(one.design, other.design) else 0
    )
    stream = (
        min(one.stream[1], other.stream[1]) if one.stream[0] is not None and one.stream[0] == other.stream[0] else 0
    )
    return max(declared, stream, len(one.random & other.random))


def sharing_notes(first: Arm, second: Arm, shared: Sharing) -> list[str]:
    """What still holds where experiments begin with the same trials."""
    experiments = [*first.experiments, *second.experiments]
    designed = min(startup.shared_trials(a.design, b.design) for a, b in combinations(experiments, 2))
    n = max(designed, shared.common)
    if shared.pairs:
        starts = [(first.experiments[i].design, second.experiments[j].design) for i, j in shared.pairs]
        by_design = max(startup.shared_trials(*pair) for pair in starts)
        which = f"the same trials ({by_design} by design)" if by_design else "the same random trials"
        return [f"experiment k of each arm begin with {which}, so they are compared in pairs"]
    if not n:
        return []
    trials = "trial" if n == 1 else f"{n} trials"
    share = f"the arms share their first {trials} by design and are not independent: "
    if len(experiments) == 2:
        return [f"{share}the band permutes shared trials too and is rather too wide"]
    return [f"{share}the test holds, for {'this first trial' if n == 1 else 'these first trials'} alone"]


def seed_notes(first: Arm, second: Arm) -> list[str]:
    """Weaker ties of repeats: the trial's own seed."""
    seeds = {trial_seed(experiment) for arm in (first, second) for experiment in arm.experiments}
    if len(first.experiments) + len(second.experiments) == 2 or len(seeds) > 1 or None in seeds:
        return []
    return [
        f"every trial trains with seed {seeds.pop()}: the repeats vary in what the tuners propose, and the result is for this one "
        "seed of the training; vary it too, the same in repeat k of each arm"
    ]


def notes_between(experiments: list[Experiment]) -> list[str]:
    """Circumstances that a reader should know beside the verdict."""
    notes = []
    for arm, name in zip(experiments, arm_names(experiments), strict=True):
        if arm.state == "RUNNING":
            notes.append(f"{name} is still running: its figures are preliminary")
        if arm.chosen is None:
            notes.append(f"how many trials of {name} the tuner chose is not known: {arm.tuner} is not known here")
        if arm.state == "STOPPED":
            limit = f" of {arm.max_trials}" if arm.max_trials else ""
            notes.append(f"{name} stopped after {ended(arm)}{limit} trials had ended")
        if any(trial.last_session for trial in arm.trials):
            notes.append(f"{name} was resumed: {_after_resume(arm.tuner)}")
    notes += dict.fromkeys(note for arm in experiments for note in shared_photos(best_result(arm.best)))
    concurrency = list(dict.fromkeys(str(arm.config.get("trialConcurrency")) for arm in experiments))
    if len(concurrency) > 1:
        notes.append(f"{listed(concurrency)} trials at a time: wall-clock times do not compare")
    return notes


def _after_resume(tuner: str) -> str:
    """What the tuner remembers then (NNI 3.0's `import_data` of each, and `experiments/tuners`)."""
    if startup.key_of(tuner) in startup.SEEDED:
        return "its tuner continues from the earlier results"
    return "TPE gets the earlier results again, Evolution starts anew"


def luck(first: Arm, second: Arm) -> str:
    """Where no tuner chose a trial: what a difference can then come from; "" where one did or that is not known."""
    experiments = [*first.experiments, *second.experiments]
    if any(experiment.chosen is None or any(experiment.chosen) for experiment in experiments):
        return ""
    if any(trial.customised for experiment in experiments for trial in experiment.trials):
        return "people"
    given = [experiment.design.given for experiment in experiments]
    return "chance" if all(own == given[0] for own in given) else "given"
