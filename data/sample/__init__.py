"""A generated Food-11: drawn dishes in Food-11's folders and proportions, to try things without the photos.

Accuracies on it say nothing about Food-11 itself. The same seed gives the same bytes with the same versions
of Pillow and NumPy, which `sample.json` records.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

import numpy as np
import PIL

from data import DataError
from data.food11 import CLASSES, EVALUATION, SKEWED, VALIDATION, folder_name
from data.sample.scene import DIFFICULTY, draw_dish
from data.source import Reader, Source

GENERATOR = 1  # raise it whenever the same seed would draw other pictures
SPLITS = ("training", "validation", "evaluation")
NOTE = "sample.json"
_REMEDY = "run python -m data sample with a new folder"

# The lab's skew in small. Ten more pictures per class keep the rarest ones learnable; without them four classes of
# eleven cap the validation accuracy at about 82 %.
TRAINING_DIVISOR, TRAINING_MORE = 13, 10
_OTHER_DIVISOR = 15

COUNTS: dict[str, tuple[int, ...]] = {
    "training": tuple(round(count / TRAINING_DIVISOR) + TRAINING_MORE for count in SKEWED),
    "validation": tuple(round(count / _OTHER_DIVISOR) for count in VALIDATION),
    "evaluation": tuple(round(count / _OTHER_DIVISOR) for count in EVALUATION),
}


def write_sample(
    directory: Path, seed: int = 0, image_px: int = 96, counts: Mapping[str, Sequence[int]] = COUNTS
) -> dict[str, dict[str, int]]:
    """Write `training/Dairy product/17.jpg` and so on; returns the number of images per split and class name.

    `counts` holds eleven numbers per split, by class id. A complete sample of the same kind stays untouched.
    An incomplete or different sample is replaced. Raises DataError for a directory that holds anything else.
    """
    if seed < 0 or image_px < 16:
        raise DataError(f"found seed {seed} and image_px {image_px}, expected a seed from 0 and 16 pixels or more")
    directory = Path(directory).resolve()
    named = {split: dict(zip(CLASSES, map(int, counts[split]), strict=True)) for split in counts}
    note = {"generator": GENERATOR, "seed": seed, "image_px": image_px, "counts": named}
    note["difficulty"] = {knob: np.atleast_1d(value).tolist() for knob, value in asdict(DIFFICULTY).items()}
    if _is_taken(directory, note):
        print(f"{directory} already holds this sample, complete: nothing to do")
        return named
    part = directory.with_name(f".{directory.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        _write_images(part, seed, image_px, named)
        versions = {"pillow": PIL.__version__, "numpy": np.__version__}
        (part / NOTE).write_text(json.dumps(note | versions, indent=2) + "\n", encoding="utf-8")
        if directory.exists():
            shutil.rmtree(directory)  # empty or an old sample, as checked above
        part.rename(directory)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write the sample to {directory} ({reason}); {_REMEDY}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return named


def generated_by(source: Source) -> dict[str, int] | None:
    """{generator, seed} of the sample that `source` holds by its note; None for photos."""
    note = next((path for path in source.others if PurePosixPath(path).name == NOTE and path.count("/") < 2), None)
    if note is None:
        return None
    try:
        found = json.loads(Reader(source.where, source.is_zip).read(note))
        return {key: int(found[key]) for key in ("generator", "seed")}
    except (OSError, BadZipFile, ValueError, KeyError, TypeError):
        return None


def _is_taken(directory: Path, note: dict) -> bool:
    """True for the complete sample of `note`, False for a place to write to; DataError for foreign content.

    A sample that is incomplete, or drawn with other settings or by an older version, is drawn again.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    try:
        found = json.loads((directory / NOTE).read_text(encoding="utf-8"))
        same = all(found.get(key) == value for key, value in note.items())
        found["generator"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        expected = f"expected a new or empty folder, or a sample with its {NOTE}"
        raise DataError(f"{directory} holds something else, {expected}; {_REMEDY}") from None
    return same and all(path.is_file() for path, _ in _images(directory, note["counts"]))


def _images(directory: Path, named: dict[str, dict[str, int]]) -> Iterator[tuple[Path, tuple[int, int, int]]]:
    """Every path with its (split, class, image) numbers."""
    for split, classes in named.items():
        for class_id, (name, count) in enumerate(classes.items()):
            for index in range(count):
                path = directory / split / folder_name(name) / f"{index}.jpg"
                yield path, (SPLITS.index(split), class_id, index)


def _write_images(directory: Path, seed: int, image_px: int, named: dict[str, dict[str, int]]) -> None:
    for path, numbers in _images(directory, named):
        rng = np.random.default_rng([seed, *numbers])  # its own generator, so that order does not matter
        picture = draw_dish(numbers[1], rng, image_px)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=int(rng.integers(*DIFFICULTY.jpeg_quality, endpoint=True)))
