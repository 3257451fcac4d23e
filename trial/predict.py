"""python -m trial predict: the classes of photos that were never prepared, with calibrated probabilities."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from data import DataError, padded, printable
from data.cache import Split
from data.decode import decode_image
from data.source import ARCHIVE, Reader, open_source, unpack
from trial import TrialError
from trial.batches import MicroBatch, store_px
from trial.device import Compute, choose_compute
from trial.evaluate import EVALUATION_BATCH, scored_batches
from trial.model import TrainedModel, read_trained

_TOP = 3  # classes that are named per photo


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of a photo, the first first; `classes` and `probabilities` are of one length, at most 3."""

    photo: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


class _Photo(NamedTuple):
    name: str
    square: np.ndarray | None  # (S, S, 3) uint8; None where it cannot be decoded
    why: str = ""


@dataclass
class Predictor:
    """A trained network and how its outputs become probabilities."""

    trained: TrainedModel
    model: nn.Module
    compute: Compute
    temperature: float | None  # None: not calibrated

    def predict(
        self, photos: Sequence[tuple[str, np.ndarray]], micro_batch: MicroBatch | None = None
    ) -> list[Prediction]:
        """photos: names and squares (S, S, 3) uint8 of `store_px` pixels, cropped to their middle as in every evaluation."""
        names, squares = zip(*photos)
        split = Split(np.stack(squares), np.zeros(len(squares), np.int64))
        h, classes = self.trained.hyperparameters, self.trained.classes
        predictions = []
        for logits, _ in scored_batches(self.model, split, h.image_px, self.compute, micro_batch):
            best = (logits / (self.temperature or 1.0)).softmax(1).topk(min(_TOP, len(classes)), dim=1)
            for values, labels in zip(best.values.tolist(), best.indices.tolist()):
                name = names[len(predictions)]
                predictions.append(Prediction(name, tuple(classes[label] for label in labels), tuple(values)))
        return predictions


def open_predictor(weights: Path, device: str = "auto", precision: str = "auto", threads: int = 0) -> Predictor:
    """The network of a trial's best.pt; its temperature from the result.json beside it. Raises TrialError."""
    trained = read_trained(weights)
    compute = choose_compute(device, precision, threads)
    return Predictor(trained, compute.place(trained.build()), compute, temperature_beside(weights, trained))


def result_beside(weights: Path, trained: TrainedModel) -> dict[str, Any] | None:
    """The result.json of the same training, where it is beside the weights."""
    try:
        result = json.loads((weights.parent / "result.json").read_text("utf-8"))
        return result if result["hyperparameters"] == asdict(trained.hyperparameters) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def temperature_beside(weights: Path, trained: TrainedModel) -> float | None:
    """None where no result.json is beside the weights, or it was written without calibration."""
    calibration = (result_beside(weights, trained) or {}).get("calibration")
    return float(calibration["temperature"]) if calibration else None


def predict_paths(predictor: Predictor, paths: Sequence[str], form: str) -> int:
    """Print the predictions of the photos there in `form`: "table", "csv" or "json" (a line per photo).

    paths: photos, folders and archives; "-" for a list of such, a line each, on standard input. What cannot be decoded is
    named on standard error and skipped. Returns the number of such files. Raises DataError and TrialError where there is no
    photo, or a path cannot be read at all.
    """
    if predictor.temperature is None:
        print(
            "note: no calibration beside the weights (result.json); probabilities are the network's own",
            file=sys.stderr,
        )
    names = chain.from_iterable(_lines() if path == "-" else [path] for path in paths)
    micro_batch = MicroBatch(EVALUATION_BATCH[predictor.compute.device.type])
    photos = _read_photos(names, store_px(predictor.trained.hyperparameters.image_px))
    printer, skipped, predicted = _PRINTERS[form](), 0, 0
    next(printer)
    while batch := list(islice(photos, micro_batch.images)):
        for photo in batch:
            if photo.square is None:
                skipped += 1
                print(f"error: {printable(photo.name)}: {photo.why}; skipped", file=sys.stderr)
        if decoded := [(photo.name, photo.square) for photo in batch if photo.square is not None]:
            for prediction in predictor.predict(decoded, micro_batch):
                printer.send(prediction)
            predicted += len(decoded)
    if not predicted and not skipped:
        raise TrialError(f"{', '.join(paths)}: no photos there; name photos, folders or archives of them")
    return skipped


def _lines() -> Iterator[str]:
    return (line.rstrip("\n") for line in sys.stdin if line.strip())


def _read_photos(paths: Iterator[str], square_px: int) -> Iterator[_Photo]:
    for path in map(Path, paths):
        if path.is_dir() or (path.is_file() and ARCHIVE.search(path.name)):
            with tempfile.TemporaryDirectory() as folder:
                source = unpack(open_source(path), Path(folder))
                reader = Reader(source.where, source.is_zip)
                for name in source.files:
                    yield _decode(f"{path}/{name}", partial(reader.read, name), square_px)
        elif path.exists():
            yield _decode(str(path), path.read_bytes, square_px)
        else:
            raise DataError(f"{path}: no such file or folder; expected photos, folders or archives of them")


def _decode(name: str, read: Any, square_px: int) -> _Photo:
    """As the cache's photos are decoded."""
    try:
        return _Photo(name, decode_image(read(), square_px))
    except Exception as error:  # noqa: BLE001  Pillow's decoders raise many types
        return _Photo(name, None, str(error).split("\n")[0] or type(error).__name__)


# -- printing: generators that are sent predictions -------------------------------------------------------------------------


def _print_table() -> Iterator[None]:
    while True:
        prediction = yield
        shares = zip(prediction.classes, prediction.probabilities)
        named = "  ".join(padded(f"{printable(name)} {share:.1%}", 22) for name, share in shares)
        print(f"{padded(printable(prediction.photo), 40)}  {named.rstrip()}")


def _print_csv() -> Iterator[None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["photo", *(f"{what}_{rank}" for rank in range(1, _TOP + 1) for what in ("class", "probability"))])
    while True:
        prediction = yield
        pairs = zip(prediction.classes, (f"{share:.6f}" for share in prediction.probabilities))
        writer.writerow([prediction.photo, *chain.from_iterable(pairs)])


def _print_json() -> Iterator[None]:
    while True:
        prediction = yield
        classes = [
            {"class": name, "probability": share} for name, share in zip(prediction.classes, prediction.probabilities)
        ]
        print(json.dumps({"photo": prediction.photo, "classes": classes}, ensure_ascii=False))


_PRINTERS = {"table": _print_table, "csv": _print_csv, "json": _print_json}
