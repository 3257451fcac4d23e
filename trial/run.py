"""One whole trial, without NNI: from hyperparameters and settings to a folder of results and the final metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data.cache import Cache, Split
from trial import checkpoint, outputs
from trial.batches import require_a_batch, store_px
from trial.checkpoint_files import checkpoints, keep_best, remove
from trial.device import Compute, choose_compute
from trial.epoch_log import EpochLog, epoch_line, metrics_of_epoch
from trial.errors import TrialError
from trial.fit import Fitted, Training, fit, memory_beside_a_step, start_training
from trial.hyperparameters import Hyperparameters
from trial.images import place_images, to_device
from trial.interrupts import Progress
from trial.metrics import Score
from trial.model import build_model
from trial.result import final_metrics, loss_scaling_note, micro_batch_note, write_result
from trial.revision import code_revision
from trial.scoring import evaluate
from trial.teacher import Teacher, open_teacher

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Settings:
    """Where and how a trial runs; none of it is meant to change what it learns."""

    output: Path
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    may_replace: bool = False  # an interrupted training with other hyperparameters, in the same folder


@dataclass
class Run:
    """What does not change from epoch to epoch, and where it is written down."""

    h: Hyperparameters
    cache: Cache
    folder: Path
    compute: Compute
    splits: dict[str, Split]
    progress: Progress
    started: float = field(default_factory=time.monotonic)  # earlier attempts' seconds taken off
    teacher: Teacher | None = None
    attempts: list[dict] = field(default_factory=list)
    log: EpochLog | None = None
    host_copy: checkpoint.HostCopy = field(default_factory=checkpoint.HostCopy)
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))  # of a GPU's epochs
    writing: Future | None = None  # the last epoch's

    def seconds(self) -> float:
        return time.monotonic() - self.started


def run_trial(
    h: Hyperparameters, cache: Cache, settings: Settings, report: Report, progress: Progress | None = None
) -> dict[str, float]:
    """Train, keep the best epoch, score it on the evaluation split once, and write everything down.

    An interrupted training with the same output goes on after its last epoch. report: called once an epoch with
    {"default": validation accuracy, ...}, for the epochs of earlier attempts too. Returns the final metrics, whose
    "default" is the validation accuracy of the weights kept. Raises TrialError.
    """
    compute = choose_compute(settings.device, settings.precision, settings.threads)
    require_a_batch(cache)
    names = ("training", "validation", "evaluation")  # opened now: a mapped file stays readable when it is removed
    splits = {name: to_device(cache.split(name, store_px(h.image_px)), compute.device) for name in names}
    teacher = open_teacher(h, cache)
    if teacher and h.distill_weight:
        compute.place(teacher.model)
    run = Run(h, cache, settings.output, compute, splits, progress or Progress(), teacher=teacher)
    print(f"{h.arch} ({h.weights}) on {compute.name}: {len(splits['training'].labels)} training images at "
          f"{h.image_px} px, {len(splits['validation'].labels)} validation, {len(cache.classes)} classes"
          f"{'; ' if compute.why else ''}{compute.why}")  # fmt: skip
    print("".join(f"{note}\n" for note in teacher.notes) if teacher else "", end="")
    t = _start_or_continue(run, settings.may_replace)
    with run.progress.lock:
        run.progress.end_early = _ending(run, t) if t.epochs else None
        for line in run.log.lines:
            report(metrics_of_epoch(line))
    if compute.device.type == "cuda":
        _place_images(run, t)
    try:
        fitted = fit(t, (splits["training"], splits["validation"]), h, compute, lambda t: _on_epoch(run, t, report))
        _settle(run)
    finally:  # whatever ended the training: the epoch that is being written is kept and reported
        run.writer.shutdown()
    return _finish(run, t, fitted)


def _place_images(run: Run, t: Training) -> None:
    """On the GPU as many splits as its memory takes beside a training step; where it runs short, the last used come first
    off it."""
    images = [run.splits[name].images for name in ("training", "validation", "evaluation")]
    tried_out = (run.splits["training"], run.splits["validation"])
    taken = place_images(images, memory_beside_a_step(t, tried_out, run.h, run.compute))
    resident = sum(each.resident is not None for each in images)
    print(f"images on the GPU: {resident} of {len(images)} splits, {taken / 2**20:.0f} MiB; the others are read ahead")

    def give_back() -> bool:
        return any(each.give_back() for each in reversed(images))

    t.train_at_once.give_back = t.evaluate_at_once.give_back = give_back


def _start_or_continue(run: Run, may_replace: bool) -> Training:
    def begin() -> Training:
        model = run.compute.place(build_model(run.h.arch, run.h.weights, classes, run.h.seed))
        return start_training(model, run.h, run.teacher, run.compute.precision)

    classes, lines = len(run.cache.classes), []
    t = begin()
    if checkpoints(run.folder):
        found = checkpoint.load(run.folder, t, (run.h, run.cache, run.compute))
        if isinstance(found, str):
            if found.startswith(checkpoint.OTHER) and not may_replace:
                raise TrialError(f"{run.folder}: {found}; give the same again, or choose another --output")
            print(f"{found}; the training starts anew")
            t = begin()
        else:
            lines, facts = found
            run.started -= facts["seconds"]
            run.attempts = facts["attempts"]
            print(f"continued after epoch {len(t.epochs)}")
    if not lines:
        remove(run.folder, also=("best.pt", "result.json"))
    attempt = {"after_epoch": len(t.epochs), "revision": code_revision(), "compute": run.compute.name}
    run.attempts = [*run.attempts, attempt]
    run.log = EpochLog(run.folder, lines)
    return t


def _on_epoch(run: Run, t: Training, report: Report) -> None:
    """Write the epoch down and report it. On a GPU a thread does so while the next epoch is trained; what goes wrong there is
    raised by the next call."""
    _settle(run)
    m, seconds = t.epochs[-1], run.seconds()
    print(
        f"epoch {m.epoch:>3}/{run.h.epochs}  lr {m.lr:.6f}  training loss {m.train_loss:.4f} "
        f"acc {m.train_accuracy:.4f}  validation loss {m.val_loss:.4f} acc {m.val_accuracy:.4f}  {seconds:.1f} s"
    )
    state = checkpoint.state_of(t, (run.h, run.cache, run.compute))
    epoch = (epoch_line(asdict(m), seconds), _ending(run, t), report)
    if run.compute.device.type == "cuda":
        state = run.host_copy.take(state)
        run.writing = run.writer.submit(_write_down, run, state, epoch, wait=run.host_copy.wait)
    else:
        _write_down(run, state, epoch)


def _settle(run: Run) -> None:
    """Wait until the epoch before is written down and reported. Raises what that raised."""
    writing, run.writing = run.writing, None
    if writing:
        writing.result()


def _write_down(run: Run, state: dict, epoch: tuple, wait: Callable[[], None] = lambda: None) -> None:
    """Checkpoint first: an epoch that anyone has heard of is never trained again. epoch: its line, what ends the trial after
    it, and the report."""
    line, ending, report = epoch
    wait()
    with run.progress.lock:
        facts = {"seconds": line["seconds"], "attempts": run.attempts}
        checkpoint.save(run.folder, state, (run.h, run.cache, run.compute), [*run.log.lines, line], facts)
        run.progress.end_early = ending
        run.log.add(line)
        report(metrics_of_epoch(line))


def _ending(run: Run, t: Training) -> Callable[[str], dict[str, float]]:
    """What is to be done where the trial has to end after the epochs so far; `t` may be in the midst of another."""
    epochs, best_epoch, validation = list(t.epochs), t.best_epoch, t.best_validation

    def end_early(reason: str) -> dict[str, float]:
        fitted = Fitted(epochs, best_epoch, reason, validation)
        final = _final(run, fitted, validation, None)
        with suppress(TrialError):  # on a full disk the result is reported all the same
            write_result(run.folder, (run.h, run.cache), (fitted, validation, None, final), t, run.attempts)
        return final

    return end_early


def _final(run: Run, fitted: Fitted, validation: Score, evaluation: Score | None) -> dict[str, float]:
    return {**final_metrics(fitted, validation, evaluation), "duration_s": round(run.seconds(), 3)}


def _finish(run: Run, t: Training, fitted: Fitted) -> dict[str, float]:
    """Evaluate once, write the results, and leave nothing to be continued."""
    h, splits = run.h, run.splits
    validation = fitted.validation or evaluate(
        t.model, splits["validation"], h.image_px, run.compute, t.evaluate_at_once
    )
    evaluation = evaluate(t.model, splits["evaluation"], h.image_px, run.compute, t.evaluate_at_once)
    final = _final(run, fitted, validation, evaluation)
    with run.progress.lock:
        if not fitted.best_epoch:
            outputs.write_weights(run.folder / "best.pt", t.model.state_dict(), run.cache.classes, h)
        write_result(run.folder, (h, run.cache), (fitted, validation, evaluation, final), t, run.attempts)
        keep_best(run.folder, fitted.best_epoch)
        run.progress.end_early = lambda reason: final  # a signal from here on comes too late
    print(outputs.report_lines(evaluation, run.cache.classes))
    if note := micro_batch_note(t, h):
        print(f"micro-batches of {note['images']} images for batches of {note['batch_size']}: {note['note']}")
    if note := loss_scaling_note(t):
        print(f"float16: {note['skipped_steps']} steps skipped; {note['note']}")
    print(f"best epoch {fitted.best_epoch} of {len(fitted.epochs)}, stopped by {fitted.stopped_by}: validation "
          f"accuracy {validation.top1:.4f}, macro {validation.macro:.4f} (n = {validation.n})")  # fmt: skip
    return final
