"""Food-11 (Singla, Yuan and Ebrahimi 2016): class names and counts, in the order of its own class numbers.

The evaluation counts are confirmed by the lab report's tables; the training and skewed counts by two public course
repositories. Only the total of the validation counts is certain (3430), so nothing refuses a set because of them.
"""

from __future__ import annotations

import re

CLASSES: tuple[str, ...] = (
    "Bread",
    "Dairy product",
    "Dessert",
    "Egg",
    "Fried food",
    "Meat",
    "Noodles/Pasta",
    "Rice",
    "Seafood",
    "Soup",
    "Vegetable/Fruit",
)

# Images per class, indexed by class id.
TRAINING = (994, 429, 1500, 986, 848, 1325, 440, 280, 855, 1500, 709)
VALIDATION = (362, 144, 500, 327, 326, 449, 147, 96, 347, 500, 232)
EVALUATION = (368, 148, 500, 335, 287, 432, 147, 96, 303, 500, 231)
SKEWED = (994, 128, 1500, 591, 508, 1325, 132, 84, 513, 1500, 35)

OFFICIAL = {
    "training": TRAINING,
    "skewed_training": SKEWED,
    "validation": VALIDATION,
    "evaluation": EVALUATION,
}


def folder_name(class_name: str) -> str:
    """The class as a folder on disk: a slash cannot be part of a folder's name."""
    return class_name.replace("/", "-")


def _key(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


_BY_KEY = {_key(name): class_id for class_id, name in enumerate(CLASSES)}


def class_id_of(folder: str) -> int | None:
    """Food-11's number of a class folder's name (case, spaces, `-`, `_` and `/` aside), or None."""
    return _BY_KEY.get(_key(folder))
