"""A generated Food-11: drawn dishes in Food-11's folders and proportions, to try things without the photos.

Accuracies on it say nothing about Food-11 itself. The same seed gives the same bytes with the same versions
of Pillow and NumPy, which `sample.json` records.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFilter

from data import DataError
from data.food11 import CLASSES, EVALUATION, SKEWED, VALIDATION, folder_name
from data.sample.dishes import DISHES, TAU, Pen, blob, box, draw_round, oval, scatter
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
        content = json.loads(Reader(source.where, source.is_zip).read(note))
        return {key: int(content[key]) for key in ("generator", "seed")}
    except (OSError, BadZipFile, ValueError, KeyError, TypeError):
        return None


def _is_taken(directory: Path, note: dict) -> bool:
    """True for the complete sample of `note`, False for a place to write to; DataError for foreign content.

    A sample that is incomplete, or drawn with other settings or by an older version, is drawn again.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    try:
        content = json.loads((directory / NOTE).read_text(encoding="utf-8"))
        same = all(content.get(key) == value for key, value in note.items())
        content["generator"]
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


# -- one picture: a dish of a class, on a plate, on a table, photographed; and how hard that makes it ----------------------

_SUPERSAMPLE = 2

_TABLES = (
    (150, 108, 72),
    (96, 66, 46),
    (206, 190, 168),
    (92, 110, 118),
    (176, 84, 74),
    (120, 140, 104),
    (52, 50, 54),
)
_PLATES = ((240, 238, 232), (226, 214, 190), (168, 190, 206), (70, 76, 88), (188, 138, 88), (214, 150, 130))


@dataclass(frozen=True)
class Difficulty:
    """What makes the pictures hard; each knob at 0 (or a range of one value) is off.

    These defaults are easy: a ResNet18 from scratch learns them from 670 pictures in six epochs if its
    hyperparameters are good (docs/log.md has the figures).
    """

    clutter: float = 0.0  # probability of a smaller dish of another class at the edge
    garnish: float = 0.0  # probability of a round and crumbs beside the dish, whatever its class
    busy: float = 0.1  # probability of a patterned table, and of a coloured plate
    colour_jitter: float = 0.02  # sd of a dish's log gain: lighter or darker, warmer or colder
    cast: float = 0.02  # sd of the lamp's log gain towards warm or cold
    exposure: float = 0.05  # sd of the log gain of the light
    gradient: float = 0.1  # the most that the light falls off across the picture
    scale: tuple[float, float] = (0.85, 0.95)  # radius of the dish, of half the picture
    shift: float = 0.03  # the most that the dish is off the middle, of half the picture
    turn: float = 0.05  # sd of the dish's angle, radians
    blur_px: float = 0.3  # the largest blur radius, at 96 px
    noise_sigma: float = 3.0  # the largest sd of the sensor's noise, of 255
    jpeg_quality: tuple[int, int] = (60, 92)


DIFFICULTY = Difficulty()


def draw_dish(
    class_id: int, rng: np.random.Generator, image_px: int, difficulty: Difficulty = DIFFICULTY
) -> Image.Image:
    """An RGB picture (image_px, image_px) of one dish on a table. Everything random comes from `rng`."""
    side = _SUPERSAMPLE * image_px
    picture = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(picture, "RGBA")  # this mode blends translucent colours
    whole = Pen(draw, rng, np.eye(2) * side / 2, np.full(2, side / 2), (1.0, 1.0, 1.0))
    _draw_table(whole, difficulty.busy)
    turn = rng.uniform(0, TAU)
    x, y = rng.uniform(-difficulty.shift, difficulty.shift, 2)
    radius = rng.uniform(*difficulty.scale)
    if rng.random() < difficulty.clutter:
        other = (class_id + rng.integers(1, len(CLASSES))) % len(CLASSES)
        place = whole.at(x, y).at(1.15 * np.cos(turn), 1.15 * np.sin(turn), rng.uniform(0.28, 0.42))
        _draw_plate(place, difficulty.busy)
        _serve(place, int(other), difficulty)
    place = whole.at(x, y, radius)
    _draw_plate(place, difficulty.busy)
    if rng.random() < difficulty.garnish:
        _draw_garnish(place)
    _serve(place, class_id, difficulty)
    return _photograph(picture.resize((image_px, image_px), Image.Resampling.BOX), rng, difficulty)


def _serve(place: Pen, class_id: int, difficulty: Difficulty) -> None:
    """Draw the class's dish with a colour of its own, turned and squeezed a little."""
    rng = place.rng
    tint = _colour_gain(rng, difficulty.colour_jitter, 0.7 * difficulty.colour_jitter)
    angle = rng.normal(0, difficulty.turn)
    squeeze = np.diag([1.0, rng.uniform(0.78, 1.0)])  # seen at a slant
    pen = place.at(0, 0, 1, angle)
    DISHES[class_id](Pen(pen.draw, rng, squeeze @ pen.basis, pen.origin, tuple(tint.tolist())))


def _colour_gain(rng: np.random.Generator, brightness: float, warmth: float) -> np.ndarray:
    """(3,) gains: an equal one, one that trades blue for red, and a little of green for both."""
    equal, warm, green = rng.normal(0, (brightness, warmth, 0.3 * warmth))
    return np.exp(equal + warm * np.array([0.8, 0.0, -1.0]) + green * np.array([-0.5, 1.0, -0.5]))


def _draw_table(pen: Pen, busy: float) -> None:
    """Plain, planks, checked cloth or speckled stone, the same for every class."""
    rng = pen.rng
    colour = _TABLES[rng.integers(len(_TABLES))]
    turned = pen.at(0, 0, 1, rng.uniform(0, TAU))
    pen.shape(box(-1, -1, 1, 1), colour)
    kind = rng.integers(1, 4) if rng.random() < busy else 0
    if kind == 1:
        for y in np.arange(-1.5, 1.5, 0.34):
            turned.shape(box(-1.5, y, 1.5, y + 0.32), colour, rng.uniform(0.85, 1.15))
            for grain in rng.uniform(y, y + 0.3, 3):
                turned.line([[-1.5, grain], [1.5, grain + 0.05]], colour, 0.015, 0.8)
    elif kind == 2:
        for start in np.arange(-1.5, 1.5, 0.5):
            turned.shape(box(-1.5, start, 1.5, start + 0.25), (255, 255, 255), 1, 70)
            turned.shape(box(start, -1.5, start + 0.25, 1.5), (255, 255, 255), 1, 70)
    elif kind == 3:
        for spot in rng.uniform(-1, 1, (80, 2)):
            pen.shape(oval(rng.uniform(0.01, 0.05), 0.02, 7) + spot, colour, rng.choice([0.75, 1.25]))


def _draw_plate(pen: Pen, busy: float) -> None:
    """A round plate, a deep bowl, a board, or nothing."""
    rng = pen.rng
    colour = _PLATES[rng.integers(1, len(_PLATES)) if rng.random() < busy else 0]
    kind = rng.integers(5)
    if kind <= 1:
        pen.piece(oval(1.35, points=48), colour, 0.05)
        pen.shape(oval(1.06, points=40), colour, 0.9)
        pen.shape(oval(1.02, points=40) + [0.02, 0.03], colour, 1.02)
    elif kind == 2:
        pen.piece(oval(1.25, points=48), colour, 0.1)
        pen.shape(oval(1.12, points=40), colour, 0.55)
        pen.shape(oval(1.05, points=40) + [0.04, 0.05], colour, 0.75)
    elif kind == 3:
        board = pen.at(0, 0, 1, rng.uniform(0, TAU))
        board.piece(box(-1.45, -1.1, 1.45, 1.1), colour, 0.05)
        for y in rng.uniform(-1, 1, 5):
            board.line([[-1.4, y], [1.4, y + 0.05]], colour, 0.02, 0.8)


def _draw_garnish(pen: Pen) -> None:
    """A slice of tomato, orange or cucumber at the plate's edge, and crumbs: hints at the wrong class."""
    rng = pen.rng
    turn = rng.uniform(0, TAU)
    draw_round(pen.at(np.cos(turn), np.sin(turn), 0.22), int(rng.integers(3)))
    for spot in scatter(rng, 8, 1.2, 1.2):
        pen.shape(blob(rng, 0.04, 0.03, 0.2) + spot, (150, 100, 60), rng.uniform(0.6, 1.4))


def _photograph(picture: Image.Image, rng: np.random.Generator, difficulty: Difficulty) -> Image.Image:
    """Lamp, lens and sensor: colour cast, exposure, light that falls off, blur and noise."""
    side = picture.width
    blur_px = rng.uniform(0, difficulty.blur_px) * side / 96
    light = np.asarray(picture.filter(ImageFilter.GaussianBlur(blur_px)), dtype=np.float32)  # (S, S, 3)
    angle = rng.uniform(0, TAU)
    across = np.linspace(-1, 1, side, dtype=np.float32)
    fall_off = 0.5 * (1 + across[:, None] * np.sin(angle) + across[None, :] * np.cos(angle))
    light = light * (1 - rng.uniform(0, difficulty.gradient) * fall_off)[:, :, None]
    light = light * _colour_gain(rng, difficulty.exposure, difficulty.cast)
    light = light + rng.normal(0, rng.uniform(0, difficulty.noise_sigma), light.shape)
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))
