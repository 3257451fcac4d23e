"""One whole trial, without NNI: from hyperparameters and settings to a folder of results and the final metrics; and
--describe, the checks made before anything runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from data import DataError
from data.cache import Cache, Split, open_cache
from data.layouts import SPLITS
from trial import TrialError
from trial.batches import place_images, require_a_batch, store_px, to_device
from trial.checkpoint import CheckpointError, Checkpoints, OtherTrainingError, Resumed, checkpoints, keep_best, remove
from trial.device import Compute, HostCopy, choose_compute
from trial.evaluate import Calibration, Score, calibrate, evaluate, scored_batches
from trial.files import EpochLog, epoch_line, write_weights
from trial.gpu import describe_gpus
from trial.hyperparameters import ARCHITECTURES, Hyperparameters, describe_fields
from trial.interrupts import Progress
from trial.model import Teacher, build_model, open_teacher
from trial.networks import weights_mib
from trial.result import TrialResult, code_revision, loss_scaling_note, metrics_of_epoch, micro_batch_note
from trial.state import TrainState, start_training
from trial.train import FitResult, fit, memory_beside_a_step

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Settings:
    """Where and how a trial runs; none of it is meant to change the result."""

    output: Path
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    may_replace: bool = False  # an interrupted training with other hyperparameters, in the same folder


@dataclass
class _Run:
    """What does not change from epoch to epoch, and where it is written down."""

    h: Hyperparameters
    cache: Cache
    folder: Path
    compute: Compute
    splits: dict[str, Split]
    progress: Progress
    report: Report
    teacher: Teacher | None = None
    started: float = field(default_factory=time.monotonic)  # minus the seconds of earlier attempts
    attempts: list[dict] = field(default_factory=list)
    log: EpochLog | None = None
    host_copy: HostCopy = field(default_factory=HostCopy)
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))  # of a GPU's epochs
    writing: Future | None = None  # the last epoch's

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder, self.h, self.cache, self.compute, self.teacher and self.teacher.digest)

    def result(
        self,
        state: TrainState,
        fit_result: FitResult,
        evaluation: Score | None,
        calibration: Calibration | None = None,
    ) -> TrialResult:
        return TrialResult(
            h=self.h,
            cache=self.cache,
            fit=fit_result,
            validation=fit_result.validation or self.evaluate(state, "validation"),
            evaluation=evaluation,
            calibration=calibration,
            duration_s=self.seconds(),
            attempts=self.attempts,
            state=state,
        )

    def evaluate(self, state: TrainState, split: str) -> Score:
        return evaluate(state.model, self.splits[split], self.h.image_px, self.compute, state.evaluation_micro_batch)

    def calibrate(self, state: TrainState) -> Calibration:
        split, micro_batch = self.splits["validation"], state.evaluation_micro_batch
        batches = [*scored_batches(state.model, split, self.h.image_px, self.compute, micro_batch)]
        logits, labels = (torch.cat(parts).cpu() for parts in zip(*batches))
        return calibrate(logits, labels)


def run_trial(
    h: Hyperparameters, cache: Cache, settings: Settings, report: Report, progress: Progress | None = None
) -> dict[str, float]:
    """Train, keep the best epoch, score it on the evaluation split once, and write everything down.

    An interrupted training with the same output continues after its last epoch. report: called once per epoch with
    {"default": validation accuracy, ...}, for the epochs of earlier attempts too. Returns the final metrics, whose
    "default" is the validation accuracy of the weights kept. Raises TrialError.
    """
    compute = choose_compute(settings.device, settings.precision, settings.threads)
    require_a_batch(cache)
    # Opened now: a mapped file stays readable when it is removed.
    splits = {name: to_device(cache.split(name, store_px(h.image_px)), compute.device) for name in SPLITS}
    teacher = open_teacher(h, cache)
    if teacher and h.distill_weight:
        compute.place(teacher.model)
    run = _Run(h, cache, settings.output, compute, splits, progress or Progress(), report, teacher)
    print(f"{h.arch} ({h.weights}) on {compute.name}: {len(splits['training'].labels)} training images at "
          f"{h.image_px} px, {len(splits['validation'].labels)} validation, {len(cache.classes)} classes"
          f"{'; ' if compute.why else ''}{compute.why}")  # fmt: skip
    print("".join(f"{note}\n" for note in teacher.notes) if teacher else "", end="")
    state = _start_or_resume(run, settings.may_replace)
    with run.progress.lock:
        run.progress.end_early = _ending(run, state) if state.history else None
        for line in run.log.lines:
            report(metrics_of_epoch(line))
    if compute.device.type == "cuda":
        _place_images(run, state)
    try:
        fit_result = fit(
            state, splits["training"], splits["validation"], h, compute, lambda state: _on_epoch(run, state)
        )
        _settle(run)
    finally:  # whatever ended the training: the epoch that is being written is kept and reported
        run.writer.shutdown()
    return _finish(run, state, fit_result)


def _start_or_resume(run: _Run, may_replace: bool) -> TrainState:
    def start() -> TrainState:
        h = run.h
        model = build_model(h.arch, h.weights, len(run.cache.classes), h.seed, h.image_px)
        return start_training(run.compute.place(model), run.h, run.teacher, run.compute.precision)

    state, resumed = start(), Resumed([], 0.0, [])
    if checkpoints(run.folder):
        try:
            resumed = run.checkpoints().load(state)
            print(f"continued after epoch {len(state.history)}")
        except CheckpointError as error:
            if isinstance(error, OtherTrainingError) and not may_replace:
                raise TrialError(f"{run.folder}: {error}; give the same again, or choose another --output") from error
            print(f"{error}; the training starts anew")
            state = start()
    if not resumed.lines:
        remove(run.folder, also=("best.pt", "result.json"))
    run.started -= resumed.seconds
    attempt = {"after_epoch": len(state.history), "revision": code_revision(), "compute": run.compute.name}
    run.attempts = [*resumed.attempts, attempt]
    run.log = EpochLog(run.folder, resumed.lines)
    return state


def _place_images(run: _Run, state: TrainState) -> None:
    """On the GPU as many splits as its memory takes beside a training step; where it runs short, the last used are
    removed first."""
    images = [run.splits[name].images for name in SPLITS]
    budget = memory_beside_a_step(state, run.splits["training"], run.splits["validation"], run.h, run.compute)
    placed = place_images(images, budget)
    resident = sum(each.resident is not None for each in images)
    print(f"images on the GPU: {resident} of {len(images)} splits, {placed / 2**20:.0f} MiB; the others are read ahead")

    def free_memory() -> bool:
        return any(each.free() for each in reversed(images))

    state.train_micro_batch.free_memory = state.evaluation_micro_batch.free_memory = free_memory


def _on_epoch(run: _Run, state: TrainState) -> None:
    """Write the epoch down and report it. On a GPU a thread does so while the next epoch is trained; what goes wrong there is
    raised by the next call."""
    _settle(run)
    m, seconds = state.history[-1], run.seconds()
    print(
        f"epoch {m.epoch:>3}/{run.h.epochs}  lr {m.lr:.6f}  training loss {m.train_loss:.4f} "
        f"acc {m.train_accuracy:.4f}  validation loss {m.val_loss:.4f} acc {m.val_accuracy:.4f}  {seconds:.1f} s"
    )
    content, line, ending = state.state_dict(), epoch_line(asdict(m), seconds), _ending(run, state)
    if run.compute.device.type == "cuda":
        content = run.host_copy.take(content)
        run.writing = run.writer.submit(_write_down, run, content, line, ending, wait=run.host_copy.wait)
    else:
        _write_down(run, content, line, ending)


def _settle(run: _Run) -> None:
    """Wait until the epoch before is written down and reported. Raises what that raised."""
    writing, run.writing = run.writing, None
    if writing:
        writing.result()


def _write_down(
    run: _Run,
    content: dict[str, Any],
    line: dict[str, Any],
    ending: Callable[[str], dict[str, float]],
    wait: Callable[[], None] = lambda: None,
) -> None:
    """Checkpoint first: an epoch that has been reported is never trained again. content: the state's; wait: for its copies."""
    wait()
    with run.progress.lock:
        run.checkpoints().save(content, Resumed([*run.log.lines, line], line["seconds"], run.attempts))
        run.progress.end_early = ending
        run.log.add(line)
        run.report(metrics_of_epoch(line))


def _ending(run: _Run, state: TrainState) -> Callable[[str], dict[str, float]]:
    """A function that ends the trial with the epochs so far, while `state` may be in the middle of another."""
    history, best_epoch, validation = list(state.history), state.best_epoch, state.best_validation

    def end_early(reason: str) -> dict[str, float]:
        result = run.result(state, FitResult(history, best_epoch, reason, validation), evaluation=None)
        with suppress(TrialError):  # on a full disk the result is reported all the same
            result.write(run.folder)
        return result.final()

    return end_early


def _finish(run: _Run, state: TrainState, fit_result: FitResult) -> dict[str, float]:
    """Evaluate once, write the results, and leave nothing to be continued."""
    finite = all(value.isfinite().all() for value in state.model.state_dict().values())
    calibration = run.calibrate(state) if finite else None
    result = run.result(state, fit_result, run.evaluate(state, "evaluation"), calibration)
    validation, final = result.validation, result.final()
    with run.progress.lock:
        if not fit_result.best_epoch:
            write_weights(run.folder / "best.pt", state.model.state_dict(), run.cache.classes, run.h)
        result.write(run.folder)
        keep_best(run.folder, fit_result.best_epoch)
        run.progress.end_early = lambda reason: final  # a signal from here on comes too late
    print(result.evaluation.report(run.cache.classes))
    if note := micro_batch_note(state, run.h):
        print(f"micro-batches of {note['images']} images for batches of {note['batch_size']}: {note['note']}")
    if note := loss_scaling_note(state):
        print(f"float16: {note['skipped_steps']} steps skipped; {note['note']}")
    print(f"best epoch {fit_result.best_epoch} of {len(fit_result.history)}, stopped by {fit_result.stopped_by}: validation "
          f"accuracy {validation.top1:.4f}, macro {validation.macro:.4f} (n = {validation.n})")  # fmt: skip
    return final


# -- python -m trial --describe ----------------------------------------------------------------------------------------

# What decides which files a trial reads, and which of them fit together.
_NEEDS_FILES = ("arch", "weights", "image_px", "teacher")


def describe(
    flags: dict[str, Any],
    options: dict[str, list],
    cache_folder: Path,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """{fields, given, gpu, weights_mib, problems, notes}: the hyperparameters, the GPU, the disk that the largest network's
    weights take, what is wrong or missing, and what was done to weights files, a line each.

    flags: the hyperparameters given so; options: {field: [values]} of a search space, all values of a choice or both bounds of a range.
    Opens cache, weights and teacher for real, so that weights are downloaded, read and fitted once before the experiment.
    """
    gpu, notes = describe_gpus(device), []
    problems = [gpu["problem"]] if gpu["problem"] else []
    if not problems:
        problems += _refusals(lambda: choose_compute(device, precision, threads=0))
    for values in _combinations(options):
        problems += _problems({**flags, **values}, cache_folder, notes)
    problems, notes = ([*dict.fromkeys(lines)] for lines in (problems, notes))
    archs = options.get("arch") or [flags.get("arch", Hyperparameters.arch)]
    mib = max((weights_mib(arch) for arch in archs if arch in ARCHITECTURES), default=None)
    described = {"fields": describe_fields(), "given": flags, "gpu": gpu, "weights_mib": mib}
    return {**described, "problems": problems, "notes": notes}


def _combinations(options: dict[str, list]) -> Iterator[dict[str, Any]]:
    """All combinations of files that the search space may choose; one empty choice where it chooses none."""
    names = [name for name in _NEEDS_FILES if options.get(name)]
    weight = {"distill_weight": max(options["distill_weight"])} if options.get("distill_weight") else {}
    for values in itertools.product(*(options[name] for name in names)):
        yield {**weight, **dict(zip(names, values))}


def _problems(values: dict[str, Any], cache_folder: Path, notes: list[str]) -> list[str]:
    """notes: a line is appended where a weights file was no plain state dict."""
    try:
        h = Hyperparameters().merged(values)
    except TrialError as error:
        return [str(error)]
    problems, cache = [], None
    try:
        cache = open_cache(cache_folder, h.image_px)
    except DataError as error:
        problems.append(str(error))
    classes = len(cache.classes) if cache else 1  # the head is not what is checked
    return problems + _refusals(
        lambda: cache and require_a_batch(cache),
        lambda: build_model(h.arch, h.weights, classes, h.seed, h.image_px, notes.append),
        lambda: open_teacher(h, cache),
    )


def _refusals(*checks: Callable[[], object]) -> list[str]:
    """The errors that they raise."""
    problems = []
    for check in checks:
        try:
            check()
        except TrialError as error:
            problems.append(str(error))
    return problems
