"""The generated sample: same seed, same bytes; the skew is kept; nobody's files are overwritten."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from data import DataError, sample
from data.food11 import CLASSES, EVALUATION, SKEWED, VALIDATION
from data.sample import COUNTS, DIFFICULTY, Difficulty, draw_dish, write_sample

ONE_EACH = {"training": (1,) * 11, "validation": (1,) * 11}


def read_all(directory):
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*.jpg")}


def pixels(class_id, seed, difficulty=DIFFICULTY):
    return np.asarray(draw_dish(class_id, np.random.default_rng([seed, class_id]), 32, difficulty))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sample") / "food"
    write_sample(directory, image_px=32, counts=ONE_EACH)
    return directory


def test_same_seed_gives_the_same_bytes(small, tmp_path):
    write_sample(tmp_path / "again", image_px=32, counts=ONE_EACH)
    assert read_all(tmp_path / "again") == read_all(small)


def test_another_seed_changes_every_picture(small, tmp_path):
    write_sample(tmp_path / "other", seed=1, image_px=32, counts=ONE_EACH)
    first, other = read_all(small), read_all(tmp_path / "other")
    assert first.keys() == other.keys()
    assert not [name for name in first if first[name] == other[name]]


def test_no_two_pictures_of_a_sample_are_alike(small):
    pictures = read_all(small)
    assert len(set(pictures.values())) == len(pictures) == 22


def test_a_picture_does_not_depend_on_how_many_there_are(small, tmp_path):
    write_sample(tmp_path / "more", image_px=32, counts={"validation": (2,) + (0,) * 9 + (1,)})
    more, first = read_all(tmp_path / "more"), read_all(small)
    shared = {"validation/Bread/0.jpg", "validation/Vegetable-Fruit/0.jpg"}
    assert more.keys() == shared | {"validation/Bread/1.jpg"}
    assert not [name for name in shared if more[name] != first[name]]


def test_folders_and_returned_counts(tmp_path):
    counts = {"training": (1, 2, 1, 1, 1, 1, 3, 1, 1, 1, 1), "evaluation": (1,) * 11}
    returned = write_sample(tmp_path / "food", image_px=20, counts=counts)
    assert returned["training"]["Noodles/Pasta"] == 3 and list(returned["evaluation"]) == list(CLASSES)
    noodles = (tmp_path / "food/training/Noodles-Pasta").iterdir()
    assert sorted(path.name for path in noodles) == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(list((tmp_path / "food/training/Dairy product").iterdir())) == 2
    with Image.open(tmp_path / "food/evaluation/Vegetable-Fruit/0.jpg") as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (20, 20))


@pytest.mark.parametrize("split, official", [("validation", VALIDATION), ("evaluation", EVALUATION)])
def test_counts_keep_the_official_proportions(split, official):
    counts, total = np.array(COUNTS[split]), sum(official)
    np.testing.assert_allclose(counts / counts.sum(), np.array(official) / total, atol=0.005)


def test_training_is_skewed_as_the_lab_has_it():
    counts = np.array(COUNTS["training"])
    assert list(np.argsort(counts, kind="stable")) == list(np.argsort(SKEWED, kind="stable"))
    assert counts.max() > 9 * counts.min() and 600 < counts.sum() < 700


def test_a_complete_sample_is_left_alone(small, capsys):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert write_sample(small, image_px=32, counts=ONE_EACH)["training"]["Rice"] == 1
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def refusal(directory, **arguments):
    before = read_all(directory) if directory.is_dir() else directory.read_bytes()
    with pytest.raises(DataError) as error:
        write_sample(directory, **{"image_px": 32, "counts": ONE_EACH, **arguments})
    assert "\n" not in str(error.value)
    assert (read_all(directory) if directory.is_dir() else directory.read_bytes()) == before
    return str(error.value)


def test_refuses_a_folder_of_something_else(tmp_path):
    (tmp_path / "mine.jpg").write_bytes(b"a holiday")
    assert "holds something else" in refusal(tmp_path)
    assert "holds something else" in refusal(tmp_path / "mine.jpg")
    (tmp_path / "sample.json").write_text("[]")
    assert "holds something else" in refusal(tmp_path)


def test_a_sample_of_another_seed_is_replaced(tmp_path):
    write_sample(tmp_path / "food", image_px=20, counts=ONE_EACH)
    before = read_all(tmp_path / "food")
    write_sample(tmp_path / "food", seed=7, image_px=20, counts=ONE_EACH)
    assert json.loads((tmp_path / "food/sample.json").read_text())["seed"] == 7
    assert not [name for name, raw in read_all(tmp_path / "food").items() if raw == before[name]]


def test_an_incomplete_sample_is_drawn_again(tmp_path):
    write_sample(tmp_path / "food", image_px=20, counts=ONE_EACH)
    before = read_all(tmp_path / "food")
    (tmp_path / "food/training/Soup/0.jpg").unlink()
    write_sample(tmp_path / "food", image_px=20, counts=ONE_EACH)
    assert read_all(tmp_path / "food") == before


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"image_px": 4}])
def test_refuses_numbers_that_mean_nothing(tmp_path, arguments):
    with pytest.raises(DataError, match="expected a seed from 0 and 16 pixels"):
        write_sample(tmp_path / "food", **arguments)


def test_writes_into_an_empty_folder_and_notes_what_it_is(tmp_path):
    write_sample(tmp_path, seed=3, image_px=20, counts=ONE_EACH)
    note = json.loads((tmp_path / "sample.json").read_text())
    assert (note["seed"], note["image_px"], note["generator"]) == (3, 20, sample.GENERATOR)
    assert note["counts"]["validation"]["Egg"] == 1 and {"pillow", "numpy", "difficulty"} <= note.keys()


def test_an_interrupted_sample_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "food", image_px=20, counts=ONE_EACH)
    assert list(tmp_path.iterdir()) == []


EXTREMES = {"scale": ((0.3, 0.3), (0.9, 0.9))}


@pytest.mark.parametrize("knob", [field.name for field in fields(Difficulty) if field.name != "jpeg_quality"])
def test_every_knob_of_the_difficulty_has_an_effect(knob):
    low, high = (replace(DIFFICULTY, **{knob: value}) for value in EXTREMES.get(knob, (0.0, 1.0)))
    assert any((pixels(class_id, 5, low) != pixels(class_id, 5, high)).any() for class_id in range(3))


def test_jpeg_quality_has_an_effect(small, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "DIFFICULTY", replace(DIFFICULTY, jpeg_quality=(5, 5)))
    write_sample(tmp_path / "coarse", image_px=32, counts=ONE_EACH)
    coarse, fine = read_all(tmp_path / "coarse"), read_all(small)
    assert all(len(coarse[name]) < len(fine[name]) for name in fine)


def class_variance_ratios(rows):
    """(3,) F statistics, a channel: how much more the classes' mean colours differ than chance makes them."""
    seeds = 24
    patches = np.array([[pixels(c, seed)[rows, rows].mean(axis=(0, 1)) for seed in range(seeds)] for c in range(11)])
    return patches.mean(axis=1).var(axis=0, ddof=1) * seeds / patches.var(axis=1, ddof=1).mean(axis=0)


def test_the_corner_does_not_tell_the_class_but_the_middle_does():
    exceeded_by_chance = 3.2  # F(10, 253): about once in 1500
    assert (class_variance_ratios(slice(0, 3)) < exceeded_by_chance).all()
    assert (class_variance_ratios(slice(12, 20)) > exceeded_by_chance).all()
