"""From a tree to a whole cache, or to one clear line and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import PATIENCE_S, ROOT
from fixtures_data import (
    SPLITS,
    class_folders,
    decode_in_process,
    food11_files,
    noise_jpeg,
    photo,
    run_data,
    two_dishes,
    write_tree,
    write_zip,
)

from data import DataError, food11
from data import cache as cache_module
from data import prepare as preparation
from data import source as source_module
from data.__main__ import parse
from data.cache import open_cache, rebuild_command
from data.decode import decode_image
from data.prepare import Settings, prepare
from data.sample import GENERATOR, write_sample

PX = 16
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    decode_in_process(monkeypatch)
    monkeypatch.setattr(preparation, "CHUNK", 5)  # several tasks a split, the last one short


@pytest.fixture
def dishes(tmp_path):
    return write_tree(tmp_path / "photos", two_dishes())


def make(source, cache, **settings):
    return prepare(source, cache, Settings(PX, **settings))


def load(cache, split):
    """{class id: (N, PX, PX, 3) uint8}, the files of a class in the order of their names."""
    images, labels = np.load(cache / f"{split}.images.npy"), np.load(cache / f"{split}.labels.npy")
    return {class_id: images[labels == class_id] for class_id in np.unique(labels)}


def refusal(source, cache, **settings) -> str:
    """The one line of a preparation that is refused. Nothing beside its source has appeared or changed then."""
    before = {path: path.stat().st_mtime_ns for path in cache.parent.rglob("*") if path.exists()}
    with pytest.raises(DataError) as error:
        make(source, cache, **settings)
    assert "\n" not in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in cache.parent.rglob("*") if path.exists()} == before
    return str(error.value)


@pytest.mark.parametrize("layout", ["flat", "named", "numbered"])
@pytest.mark.parametrize("packed", ["folder", "zip"])
def test_every_layout_gives_a_cache_of_the_same_pixels_and_labels(tmp_path, layout, packed):
    files = food11_files(layout, "top/", each=2)
    write = write_tree if packed == "folder" else write_zip
    manifest = make(write(tmp_path / "source", files), tmp_path / "cache")
    assert manifest["counts"] == dict.fromkeys(preparation.SPLITS, [2] * 11)
    assert manifest["classes"] == list(food11.CLASSES) and manifest["is_food11"]
    for split in preparation.SPLITS:
        cached = load(tmp_path / "cache", split)
        for class_id in range(11):
            wanted = [decode_image(photo(split, class_id, i), PX) for i in range(2)]
            np.testing.assert_array_equal(cached[class_id], wanted)


@pytest.mark.parametrize("chosen, trained", [("auto", 3), ("training", 2), ("skewed_training", 3)])
def test_the_skewed_split_trains_where_there_is_one_unless_told_otherwise(tmp_path, chosen, trained):
    files = food11_files("numbered", each=2)
    files |= food11_files("numbered", each=3, splits=("skewed_training",))
    manifest = make(write_tree(tmp_path / "s", files), tmp_path / "cache", train_split=chosen)
    assert manifest["counts"]["training"] == [trained] * 11
    assert manifest["train_split"] == ("training" if trained == 2 else "skewed_training")
    assert manifest["counts"]["validation"] == [2] * 11


@pytest.mark.parametrize("layout", ["flat", "named"])
def test_skew_lab_is_derived_from_the_full_split(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(food11, "SKEWED", (6, 2, 6, 4, 3, 6, 2, 1, 3, 6, 1))
    files = food11_files(layout, each=6, splits=("training",)) | food11_files(layout)
    files |= food11_files(layout, splits=("skewed_training",))
    manifest = make(write_tree(tmp_path / "s", files), tmp_path / "cache", skew="lab")
    assert manifest["counts"]["training"] == list(food11.SKEWED) and manifest["counts"]["evaluation"] == [1] * 11
    assert (manifest["skew"], manifest["train_split"]) == ("lab", "training")
    drawn = [decode_image(photo("training", 1, i), PX) for i in (0, 5)]  # by the hash of 0.jpg to 5.jpg
    np.testing.assert_array_equal(load(tmp_path / "cache", "training")[1], drawn)


@pytest.mark.parametrize(
    "splits, settings, words",
    [
        (
            ("training", "validation"),
            {},
            "no images for evaluation; found training (11), validation (11). Put a folder",
        ),
        (("validation", "evaluation"), {}, "no images for training; found evaluation (11), validation (11)"),
        (("training", "validation", "evaluation"), {"train_split": "skewed_training"}, "no images for skewed_training"),
        (("skewed_training", "validation", "evaluation"), {"skew": "lab"}, "no images for training; found"),
        (("training", "validation", "evaluation"), {"skew": "lab"}, "keeps 994 training images of class 0 (Bread)"),
        (
            ("skewed_training", "validation", "evaluation"),
            {"skew": "lab", "train_split": "skewed_training"},
            "--skew lab needs Food-11's full training split, found skewed_training of 11 classes",
        ),
    ],
)
def test_a_split_that_is_not_there_is_refused(tmp_path, splits, settings, words):
    source = write_tree(tmp_path / "s", food11_files("flat", splits=splits))
    assert words in refusal(source, tmp_path / "cache", **settings)


def test_what_is_missing_is_said_with_what_was_found_and_a_command_that_works(tmp_path):
    files = class_folders("pho", "rice", each=4, top="my photos/train/")
    files |= class_folders("pho", "rice", each=2, top="my photos/test/")
    source = write_tree(tmp_path / "s", files | {"my photos/unlabeled/1.jpg": noise_jpeg(1)})
    line = refusal(source, tmp_path / "cache")
    assert "no images for validation; found evaluation (4), training (8); unused my photos/unlabeled (1)" in line
    words = shlex.split(line.partition("divide the photos of one: ")[2])
    assert words[4] == str(source / "my photos/train")
    assert run_data(*words[3:], "--cache", tmp_path / "cache", "--image-px", PX) == 0
    assert open_cache(tmp_path / "cache").manifest["counts"]["training"] == [2, 2]


def test_a_tree_without_splits_is_divided_by_the_command_that_its_refusal_names(tmp_path, capsys):
    source = write_tree(tmp_path / "my photos", class_folders("面条", "pho", each=10) | {"labels.csv": b"x"})
    cache = tmp_path / "cache"
    assert run_data("prepare", source, "--cache", cache, "--image-px", PX, "--skip-unreadable") == 1
    line = capsys.readouterr().err
    assert "no folder named training, validation or evaluation; found 20 images of 2 classes (pho, 面条)" in line
    words = shlex.split(line.partition("Divide them with: ")[2])
    assert words[-5:] == ["--split", "70,15,15", "--split-seed", "0", "--skip-unreadable"] and run_data(*words[3:]) == 0
    assert "left out, files that are no photos: 1 (labels.csv)\n" in capsys.readouterr().out
    manifest = open_cache(cache).manifest
    assert (manifest["split"], manifest["split_seed"], manifest["image_px"]) == ("70,15,15", 0, PX)
    assert manifest["counts"] == {"training": [6, 6], "validation": [2, 2], "evaluation": [2, 2]}
    assert run_data(*words[3:]) == 0 and "up to date" in capsys.readouterr().out
    first = load(cache, "training")
    assert run_data(*shlex.split(rebuild_command(cache, manifest | {"split_seed": 1}))[3:]) == 0
    assert "wrote" in capsys.readouterr().out
    assert any((load(cache, "training")[c] != first[c]).any() for c in (0, 1))


@pytest.mark.parametrize(
    "files, settings, words",
    [
        (two_dishes(), {"split": "70,15,15"}, "several splits: evaluation (4), training (4), validation (4). Remove"),
        (class_folders("a", "b"), {"split": "70,15,15", "skew": "lab"}, "--split makes a training split of its own"),
        (class_folders("a"), {"split": "70,15,15"}, "only one class, a; name the folder that holds the class folders"),
        (class_folders("a", "b", each=2), {"split": "70,15,15"}, "found only 2 of a, 2 of b"),
        ({"1.jpg": noise_jpeg(1)}, {"split": "70,15,15"}, "neither class folders nor Food-11's class number"),
        (
            {"classes.txt": b"x", ".x": b"x"},
            {},
            "holds no photos; left out, hidden or system files and folders: 1 (.x); left",
        ),
        ({}, {}, "holds no photos; it is empty"),
    ],
)
def test_what_cannot_be_divided_is_refused(tmp_path, files, settings, words):
    (tmp_path / "s").mkdir()
    assert words in refusal(write_tree(tmp_path / "s", files), tmp_path / "cache", **settings)


def test_a_single_split_may_be_divided_in_a_zip_too(tmp_path):
    zipped = write_zip(tmp_path / "train.zip", class_folders("a", "b", each=10, top="x/train/"))
    assert f"one: python -m data prepare {zipped} --split 70,15,15" in refusal(zipped, tmp_path / "cache")
    assert make(zipped, tmp_path / "cache", split="70,15,15")["counts"]["training"] == [6, 6]
    folder = write_tree(tmp_path / "s", class_folders("a", "b", each=10))
    make(folder, tmp_path / "other", split="70,15,15")
    for split in SPLITS:  # the same photos
        np.testing.assert_array_equal(load(tmp_path / "cache", split)[1], load(tmp_path / "other", split)[1])


def test_another_division_of_the_same_photos_is_another_set_of_photos(tmp_path):
    source = write_tree(tmp_path / "s", class_folders("a", "b"))
    caches = []
    for i, seed in enumerate((0, 0, 1)):
        make(source, tmp_path / f"c{i}", split="70,15,15", split_seed=seed)
        caches.append(open_cache(tmp_path / f"c{i}"))
    assert caches[0].photos == caches[1].photos != caches[2].photos
    assert caches[0].manifest["source_digest"] == caches[2].manifest["source_digest"]
    assert (
        caches[0].manifest["photos_digest"]
        == caches[1].manifest["photos_digest"]
        != caches[2].manifest["photos_digest"]
    )


def test_photos_are_the_same_by_content_whatever_their_names_and_times(tmp_path):
    splits = ("training", "validation", "evaluation")
    trees = [class_folders("a", "b", each=3, top=f"{split}/") for split in splits]
    source = write_tree(tmp_path / "s", trees[0] | trees[1] | trees[2])
    copy = shutil.copytree(source, tmp_path / "copy")
    photos = sorted(copy.rglob("*.jpg"))
    os.utime(photos[0], (1, 1))
    photos[1].rename(photos[1].with_stem("zz_renamed"))
    other = shutil.copytree(source, tmp_path / "other")
    sorted(other.rglob("*.jpg"))[0].write_bytes(photo("whole", "c", 99))
    manifests = []
    for i, folder in enumerate((source, copy, other)):
        make(folder, tmp_path / f"c{i}")
        manifests.append(open_cache(tmp_path / f"c{i}").manifest)
    digests = [manifest["photos_digest"] for manifest in manifests]
    assert digests[0] == digests[1] != digests[2]
    assert manifests[0]["source_digest"] != manifests[1]["source_digest"]


def test_flat_numbers_without_splits_are_divided(tmp_path):
    files = {f"{class_id}_{i}.jpg": photo("whole", class_id, i) for class_id in range(11) for i in range(4)}
    manifest = make(write_tree(tmp_path / "s", files), tmp_path / "cache", split="50,25,25")
    assert manifest["is_food11"] and manifest["counts"] == {
        "training": [2] * 11,
        "validation": [1] * 11,
        "evaluation": [1] * 11,
    }


def test_what_was_merged_left_out_or_not_used_is_said_once_and_makes_nothing_again(dishes, tmp_path):
    decomposed = {
        f"training/{unicodedata.normalize('NFD', 'phở')}/9.jpg": noise_jpeg(9),
        "validation/phở/9.jpg": noise_jpeg(8),
    }
    write_tree(
        dishes, decomposed | {"validation/PHO/9.jpg": noise_jpeg(7), "meta/1.jpg": noise_jpeg(6), "Thumbs.db": b"x"}
    )
    manifest = make(dishes, tmp_path / "cache")
    assert manifest["classes"] == ["bibimbap", "pho", "phở"] and manifest["counts"]["validation"] == [2, 3, 1]
    assert manifest["notes"] == [
        "left out, hidden or system files and folders: 1 (Thumbs.db)",
        "not used, as they belong to no split: meta (1)",
        "one class, pho, for the folders 'pho', 'PHO'",
        "one class, phở, for the folders 'pho\\u031b\\u0309', 'ph\\u1edf'",
    ]
    write_tree(dishes, {"training/.DS_Store": b"x"})
    again = make(dishes, tmp_path / "cache")
    assert again["reused"] and "2 (Thumbs.db, training/.DS_Store)" in again["notes"][0]


def test_the_training_split_that_does_not_train_is_named(tmp_path):
    files = food11_files("numbered", splits=(*SPLITS, "skewed_training"))
    manifest = make(write_tree(tmp_path / "s", files), tmp_path / "cache")
    assert manifest["notes"] == ["not used, as skewed_training trains: training (11)"]


@pytest.mark.parametrize(
    "text", ["70,15", "70,15,15,0", "60,15,15", "0.7,0.2,0.2", "100,0,0", "a,b,c", "130,-15,-15", "nan,1,1"]
)
def test_percentages_that_do_not_add_up_are_refused(text, capsys):
    with pytest.raises(SystemExit) as stop:
        run_data("prepare", "photos", "--split", text)
    assert stop.value.code == 2 and "that add up to 100, such as 70,15,15" in capsys.readouterr().err


def test_the_percentages_may_be_fractions_and_a_seed_alone_is_refused(capsys):
    for text in ("70,15,15", "0.7,0.15,0.15", "70%, 15%, 15%"):
        assert parse(["prepare", "photos", "--split", text]).split == "70,15,15"
    with pytest.raises(SystemExit):
        parse(["prepare", "photos", "--split-seed", "1"])
    assert "--split-seed belongs to --split" in capsys.readouterr().err


def test_skew_lab_is_for_food11_alone(dishes, tmp_path):
    assert "found training of 2 classes (bibimbap, pho" in refusal(dishes, tmp_path / "cache", skew="lab")


def test_a_class_that_training_lacks_is_refused(dishes, tmp_path):
    write_tree(dishes, {"validation/ramen/1.jpg": noise_jpeg(1)})
    assert "validation has images of ramen, but training has none" in refusal(dishes, tmp_path / "cache")


BROKEN = {
    "training/pho/cut.jpg": noise_jpeg(1)[:-200],
    "training/pho/empty.jpg": b"",
    "training/bibimbap/notes.jpg": b"two eggs",
    "validation/cover.jpg": noise_jpeg(2),  # a stray: beside the class folders
}


@pytest.fixture
def broken(dishes):
    write_tree(dishes, BROKEN)
    (dishes / "evaluation/pho/gone.jpg").symlink_to("nowhere.jpg")
    return dishes


REASONS = {
    "evaluation/pho/gone.jpg": "No such file",
    "training/bibimbap/notes.jpg": "not an image",
    "training/pho/cut.jpg": "truncated",
    "training/pho/empty.jpg": "not an image",
    "validation/cover.jpg": "no class",
}


def test_unreadable_files_are_all_named_in_one_line_and_nothing_is_left(broken, tmp_path):
    line = refusal(broken, tmp_path / "cache")
    assert line.startswith("5 photos cannot be decoded: ") and "--skip-unreadable" in line
    for path, reason in REASONS.items():
        assert reason in line.partition(f"{path} (")[2].partition("; ")[0], path


def test_unreadable_files_are_skipped_and_recorded_on_request(broken, tmp_path):
    manifest = make(broken, tmp_path / "cache", skip_unreadable=True)
    assert manifest["skipped"] == sorted(REASONS)
    assert manifest["counts"] == dict.fromkeys(preparation.SPLITS, [2, 2])
    written = json.loads((tmp_path / "cache/manifest.json").read_text())
    assert written["skipped"] == sorted(written["why_skipped"]) == sorted(REASONS)
    assert all(words in written["why_skipped"][path] for path, words in REASONS.items())
    make(write_tree(tmp_path / "whole", two_dishes()), tmp_path / "clean")
    for split in preparation.SPLITS:
        with_gaps, clean = load(tmp_path / "cache", split), load(tmp_path / "clean", split)
        assert with_gaps.keys() == clean.keys() == {0, 1}
        for class_id in clean:
            np.testing.assert_array_equal(with_gaps[class_id], clean[class_id])
    assert not list((tmp_path / "cache").glob("*.kept"))


def test_a_bad_checksum_in_a_zip_is_an_unreadable_file(tmp_path):
    raw = bytearray(write_zip(tmp_path / "s.zip", two_dishes()).read_bytes())
    raw[raw.index(b"training/pho/1.jpg") + 100] ^= 1
    (tmp_path / "s.zip").write_bytes(raw)
    line = refusal(tmp_path / "s.zip", tmp_path / "cache")
    assert line.startswith("1 photo cannot be decoded: training/pho/1.jpg (Bad CRC-32")
    assert make(tmp_path / "s.zip", tmp_path / "cache", skip_unreadable=True)["skipped"] == ["training/pho/1.jpg"]


@pytest.mark.parametrize("write", [write_tree, write_zip])
def test_a_file_too_large_for_a_photo_is_not_read_into_memory(tmp_path, monkeypatch, write):
    monkeypatch.setattr(source_module, "MAX_FILE_BYTES", 50_000)
    source = write(tmp_path / "s", two_dishes() | {"training/pho/film.jpg": noise_jpeg(1) + bytes(2_000_000)})
    line = refusal(source, tmp_path / "cache")
    assert line.startswith("1 photo cannot be decoded: training/pho/film.jpg (not a photo: 2 MB)")


def test_a_split_without_one_readable_file_is_refused_even_then(dishes, tmp_path):
    for path in dishes.glob("evaluation/*/*.jpg"):
        path.write_bytes(b"")
    line = refusal(dishes, tmp_path / "cache", skip_unreadable=True)
    assert "none of the 4 files of evaluation could be read" in line


def test_a_long_list_of_unreadable_files_is_cut(dishes, tmp_path):
    write_tree(dishes, {f"training/pho/x{i:02}.jpg": b"" for i in range(23)})
    line = refusal(dishes, tmp_path / "cache")
    assert line.startswith("23 photos cannot be decoded") and "x19.jpg" in line and "x20.jpg" not in line
    assert "; and 3 more. Fix or remove them" in line


def test_a_cache_of_drawings_says_so_and_one_of_photos_does_not(dishes, tmp_path):
    counts = dict.fromkeys(("training", "validation", "evaluation"), (1,) * 11)
    write_sample(tmp_path / "drawn", seed=3, image_px=PX, counts=counts)
    files = {f"all/{p.relative_to(tmp_path / 'drawn')}": p.read_bytes() for p in (tmp_path / "drawn").rglob("*.*")}
    packed = write_zip(tmp_path / "drawn.zip", files)
    for source in (tmp_path / "drawn", packed):
        manifest = make(source, tmp_path / f"cache_{source.name}")
        assert manifest["generated"] == {"generator": GENERATOR, "seed": 3}
        assert make(source, tmp_path / f"cache_{source.name}")["reused"]
    assert "generated" not in make(dishes, tmp_path / "photos_cache")
    (dishes / "sample.json").write_text("[]")
    assert "generated" not in make(dishes, tmp_path / "again", skip_unreadable=True)


def test_a_cache_of_drawings_that_does_not_say_so_is_read_and_made_again(tmp_path):
    counts = dict.fromkeys(("training", "validation", "evaluation"), (1,) * 11)
    write_sample(tmp_path / "drawn", image_px=PX, counts=counts)
    manifest = make(tmp_path / "drawn", tmp_path / "cache")
    older = {key: value for key, value in manifest.items() if key not in ("generated", "reused")}
    (tmp_path / "cache/manifest.json").write_text(json.dumps(older))
    assert open_cache(tmp_path / "cache").manifest == older
    again = make(tmp_path / "drawn", tmp_path / "cache")
    assert not again["reused"] and again["generated"] and again["source_digest"] == manifest["source_digest"]


def test_an_earlier_cache_outlives_a_failed_preparation(dishes, tmp_path):
    manifest = make(dishes, tmp_path / "cache")
    write_tree(dishes, BROKEN)
    assert "4 photos cannot be decoded" in refusal(dishes, tmp_path / "cache")
    assert json.loads((tmp_path / "cache/manifest.json").read_text())["source_digest"] == manifest["source_digest"]


def test_an_up_to_date_cache_is_left_alone(dishes, tmp_path, monkeypatch):
    assert not make(dishes, tmp_path / "cache")["reused"]
    monkeypatch.setattr(preparation, "ProcessPoolExecutor", None)  # decoding now would fail
    assert make(dishes, tmp_path / "cache")["reused"]


def touched(dishes, tmp_path):
    for i, path in enumerate(sorted(dishes.rglob("*.jpg"))):
        os.utime(path, ns=(i, i))
    return dishes


def moved(dishes, tmp_path):
    return dishes.rename(tmp_path / "moved")


def copied_elsewhere(dishes, tmp_path):
    return Path(shutil.copytree(dishes, tmp_path / "copied", copy_function=shutil.copyfile))


def packed(dishes, tmp_path):
    return write_zip(tmp_path / "packed.zip", two_dishes())


def with_a_note(dishes, tmp_path):
    return write_tree(dishes, {"README.txt": b"where they come from"})


@pytest.mark.parametrize("change", [touched, moved, copied_elsewhere, packed, with_a_note])
def test_a_cache_of_the_same_photos_is_up_to_date_wherever_they_are(dishes, tmp_path, monkeypatch, capsys, change):
    manifest = make(dishes, tmp_path / "cache")
    source = change(dishes, tmp_path)
    monkeypatch.setattr(preparation, "ProcessPoolExecutor", None)  # decoding now would fail
    again = make(source, tmp_path / "cache")
    assert again.pop("notes", []) == (
        ["left out, files that are no photos: 1 (README.txt)"] if change is with_a_note else []
    )
    assert again == {**manifest, "source": str(source), "reused": True}
    monkeypatch.setattr(cache_module, "compare", None)  # what has been looked at is not looked at again
    assert open_cache(tmp_path / "cache").manifest["source"] == str(source)
    assert capsys.readouterr() == ("", "")


def test_an_earlier_cache_whose_skipped_files_have_no_reasons_is_read(dishes, tmp_path, capsys):
    write_tree(dishes, {"training/pho/empty.jpg": b""})
    make(dishes, tmp_path / "cache", skip_unreadable=True)
    manifest = json.loads((tmp_path / "cache/manifest.json").read_text())
    del manifest["why_skipped"]
    (tmp_path / "cache/manifest.json").write_text(json.dumps(manifest))
    words = ["prepare", dishes, "--cache", tmp_path / "cache", "--image-px", PX, "--skip-unreadable"]
    assert run_data(*words) == 0
    assert "\nskipped 1 that cannot be decoded: training/pho/empty.jpg\nup to date" in capsys.readouterr().out


def test_a_photo_that_was_skipped_for_want_of_a_package_is_decoded_once_it_is_there(dishes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)  # as where it is not installed
    write_tree(dishes, {"training/pho/new.jpg": b"\xff\x0a" + bytes(9)})
    manifest = make(dishes, tmp_path / "cache", skip_unreadable=True)
    reason = "JPEG XL photo: pip install pillow-jxl-plugin, or save it as JPEG"
    assert manifest["why_skipped"] == {"training/pho/new.jpg": reason}
    assert make(dishes, tmp_path / "cache", skip_unreadable=True)["reused"]
    monkeypatch.setitem(sys.modules, "pillow_jxl", ModuleType("pillow_jxl"))
    assert not make(dishes, tmp_path / "cache", skip_unreadable=True)["reused"]


def test_photos_in_two_splits_are_counted_and_named(dishes, tmp_path, capsys):
    """A photo that is twice in one split, or cannot be read, is none of them."""
    for copy in ("evaluation/pho/again.jpg", "evaluation/bibimbap/7.jpg", "training/pho/twice.jpg"):
        shutil.copyfile(dishes / "training/pho/0.jpg", dishes / copy)
    shutil.copyfile(dishes / "training/pho/1.jpg", dishes / "evaluation/pho/other.jpg")
    shutil.copyfile(dishes / "validation/pho/1.jpg", dishes / "training/pho/from validation.jpg")
    write_tree(dishes, {"training/pho/x.jpg": b"broken", "validation/pho/x.jpg": b"broken"})
    words = ["prepare", dishes, "--cache", tmp_path / "cache", "--image-px", PX, "--skip-unreadable"]
    lines = [
        "warning: 1 photo is in both training and validation, which makes the validation accuracy too optimistic: "
        "training/pho/from validation.jpg = validation/pho/1.jpg",
        "warning: 2 photos are in both training and evaluation, which makes the evaluation accuracy too optimistic: "
        "training/pho/0.jpg = evaluation/bibimbap/7.jpg, training/pho/1.jpg = evaluation/pho/other.jpg",
    ]
    for command in (words, words, ["show", tmp_path / "cache"]):
        assert run_data(*command) == 0
        assert capsys.readouterr().err.splitlines() == lines
    counted = open_cache(tmp_path / "cache").manifest["photos_in_two_splits"]
    assert counted == {"training/validation": 1, "training/evaluation": 2}


def test_photos_of_their_own_are_in_no_two_splits(dishes, tmp_path, capsys):
    shutil.copyfile(dishes / "training/pho/0.jpg", dishes / "training/pho/twice.jpg")
    assert "photos_in_two_splits" not in make(dishes, tmp_path / "cache")
    write_sample(tmp_path / "drawn", image_px=PX, counts=dict.fromkeys(preparation.SPLITS, (5,) * 11))
    assert "photos_in_two_splits" not in make(tmp_path / "drawn", tmp_path / "drawn_cache")
    assert run_data("show", tmp_path / "drawn_cache") == 0
    assert capsys.readouterr().err == ""


def change_photo(dishes, cache):
    (dishes / "training/pho/0.jpg").write_bytes(noise_jpeg(99))


def cut_array(dishes, cache):
    os.truncate(cache / "training.images.npy", 200)


@pytest.mark.parametrize("change", [change_photo, cut_array])
def test_a_stale_or_damaged_cache_is_made_again(dishes, tmp_path, change):
    make(dishes, tmp_path / "cache")
    change(dishes, tmp_path / "cache")
    assert not make(dishes, tmp_path / "cache")["reused"]
    wanted = decode_image((dishes / "training/pho/0.jpg").read_bytes(), PX)
    np.testing.assert_array_equal(load(tmp_path / "cache", "training")[1][0], wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "photos"]


def test_other_settings_make_the_cache_again(dishes, tmp_path):
    make(dishes, tmp_path / "cache")
    assert not prepare(dishes, tmp_path / "cache", Settings(8))["reused"]
    assert np.load(tmp_path / "cache/validation.images.npy").shape == (4, 8, 8, 3)


def test_a_cache_with_gaps_is_not_up_to_date_for_one_who_wants_none(dishes, tmp_path):
    write_tree(dishes, {"training/pho/empty.jpg": b""})
    make(dishes, tmp_path / "cache", skip_unreadable=True)
    assert make(dishes, tmp_path / "cache", skip_unreadable=True)["reused"]
    assert "1 photo cannot be decoded: training/pho/empty.jpg" in refusal(dishes, tmp_path / "cache")


@pytest.mark.parametrize(
    "files, words",
    [
        ({"thesis.doc": b"years of work"}, "exists and is not a cache; name another folder with --cache"),
        ({"manifest.json": b'{"name": "a web page"}', "index.html": b"<p>"}, "manifest.json is not a cache's"),
        ({"manifest.json": b"[]", "index.html": b"<p>"}, "manifest.json is not a cache's"),
        ({"manifest.json": b"{cut"}, "unreadable manifest.json"),
        ({"manifest.json": b"\xff\xfe"}, "unreadable manifest.json"),
    ],
)
def test_a_folder_of_something_else_is_never_replaced(dishes, tmp_path, files, words):
    write_tree(tmp_path / "mine", files)
    assert words in refusal(dishes, tmp_path / "mine")
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == files


def test_a_cache_needs_a_place_of_its_own(dishes, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    assert "exists and is not a cache" in refusal(dishes, tmp_path / "file")
    assert "exists and is not a cache" in refusal(dishes, dishes)
    assert "is inside the photos' folder" in refusal(dishes, dishes / "cache")


def test_a_cache_may_be_a_link_to_a_bigger_disk(dishes, tmp_path):
    (tmp_path / "big/disk").mkdir(parents=True)
    (tmp_path / "cache").symlink_to("big/disk")
    make(dishes, tmp_path / "cache")
    prepare(dishes, tmp_path / "cache", Settings(8))
    assert (tmp_path / "cache").is_symlink()
    assert [path.name for path in (tmp_path / "big").iterdir()] == ["disk"]
    assert np.load(tmp_path / "big/disk/training.images.npy").shape == (4, 8, 8, 3)


def test_a_full_disk_is_one_line(dishes, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(preparation.np, "save", full)
    assert "could not write the cache ([Errno 28] No space left on device)" in refusal(dishes, tmp_path / "cache")


def test_a_place_that_cannot_be_made_is_one_line(dishes, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    line = refusal(dishes, tmp_path / "file/cache")
    assert "could not write the cache" in line and "choose another --cache" in line


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_kept(dishes, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, living = (tmp_path / f".cache.partial-{pid}-x" for pid in (ended.pid, os.getppid()))
    dead.mkdir()
    living.mkdir()
    make(dishes, tmp_path / "cache")
    assert not dead.exists() and living.exists()


def test_what_a_kill_while_the_old_cache_is_removed_leaves_is_known_to_the_next(dishes, tmp_path, monkeypatch):
    make(dishes, tmp_path / "cache")
    monkeypatch.setattr(preparation.shutil, "rmtree", lambda *_, **__: None)
    prepare(dishes, tmp_path / "cache", Settings(8))
    monkeypatch.undo()
    (left,) = (path for path in tmp_path.iterdir() if path.name not in ("cache", "photos"))
    assert left.name.startswith(f".cache.partial-{os.getpid()}-") and (left / "manifest.json").exists()


def test_the_command_says_what_it_did(dishes, tmp_path, capsys):
    write_tree(dishes, {"training/pho/empty.jpg": b""})
    words = ["prepare", dishes, "--cache", tmp_path / "cache", "--image-px", PX]
    assert run_data(*words) == 1
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.startswith("error: 1 photo cannot be decoded: training/pho/empty.jpg")
        and err.count("\n") == 1
    )
    assert run_data(*words, "--skip-unreadable") == 0
    table, skipped, wrote = capsys.readouterr().out.rstrip().rsplit("\n", 2)
    assert table.splitlines()[0].split() == ["id", "class", "training", "validation", "evaluation"]
    assert skipped == "skipped 1 that cannot be decoded: training/pho/empty.jpg (not an image: empty file)"
    assert wrote == f"wrote: {tmp_path / 'cache'} (16 px)"
    assert run_data(*words, "--skip-unreadable") == 0
    assert capsys.readouterr().out.endswith(f"up to date: {tmp_path / 'cache'} (16 px)\n")


@pytest.mark.parametrize("lab, hinted", [((1,) * 11, True), ((2,) * 11, False)])
def test_the_command_offers_the_labs_skew_where_it_can_be_derived(tmp_path, capsys, monkeypatch, lab, hinted):
    monkeypatch.setattr(food11, "SKEWED", lab)
    source = write_tree(tmp_path / "s", food11_files("flat"))
    words = ["prepare", source, "--cache", tmp_path / "cache", "--image-px", PX]
    assert run_data(*words) == 0
    assert ("--skew lab derives it" in capsys.readouterr().out) == hinted
    if hinted:
        assert run_data(*words, "--skew", "lab") == 0
        assert "--skew lab" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--image-px", "0"], ["--image-px", "x"], ["--skew", "mine"], ["--image", "64"]])
def test_a_wrong_flag_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        run_data("prepare", "photos", *words)
    assert stop.value.code == 2 and "error: " in capsys.readouterr().err


def command_line(*words, encoding: str = "utf-8", **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "data", *map(str, words)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        capture_output=True,
        encoding=encoding,
        timeout=PATIENCE_S,
    )


def test_a_user_error_is_one_line_and_exit_code_1(tmp_path):
    run = command_line("prepare", tmp_path / "nowhere", "--cache", tmp_path / "cache")
    assert (run.returncode, run.stdout) == (1, "")
    assert (
        run.stderr.startswith(f"error: {tmp_path / 'nowhere'}: no such folder or zip") and run.stderr.count("\n") == 1
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse file names that are not text")
def test_the_real_command_decodes_in_its_workers_even_photos_whose_names_are_not_text(dishes, tmp_path):
    os.rename(dishes / "training/pho/0.jpg", os.fsencode(dishes / "training/pho") + b"/caf\xe9.jpg")
    Path(os.fsdecode(os.fsencode(dishes / "training/pho") + b"/th\xe9.jpg")).write_bytes(b"")
    run = command_line("prepare", dishes, "--cache", tmp_path / "cache", "--image-px", PX, "--skip-unreadable")
    assert (run.returncode, run.stderr) == (0, "")
    assert "skipped 1 that cannot be decoded: training/pho/th\\udce9.jpg" in run.stdout
    make(dishes, tmp_path / "in_process", skip_unreadable=True)
    for split in preparation.SPLITS:
        for part in ("images", "labels"):
            name = f"{split}.{part}.npy"
            assert (tmp_path / "cache" / name).read_bytes() == (tmp_path / "in_process" / name).read_bytes()


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "locale, text",
    [
        (ASCII, "caf\\xe9 \\u9762\\u6761"),
        ({"PYTHONIOENCODING": "ascii"}, "caf\\xe9 \\u9762\\u6761"),
        ({"PYTHONIOENCODING": "latin-1"}, "café \\u9762\\u6761"),
    ],
)
def test_names_are_shown_in_every_locale(tmp_path, locale, text):
    files = {f"{split}/café 面条/1.jpg": noise_jpeg(1, i) for i, split in enumerate(SPLITS)}
    files["training/面/1.jpg"] = noise_jpeg(2)
    write_tree(tmp_path / "s", files | {"training/面/2.jpg": b""})
    encoding = "latin-1" if "latin-1" in locale.values() else "utf-8"
    words = [
        ["prepare", tmp_path / "s", "--skip-unreadable", "--cache", tmp_path / "c", "--image-px", PX],
        ["show", tmp_path / "c"],
    ]
    for command in words:
        done = command_line(*command, **locale, encoding=encoding)
        assert (done.returncode, done.stderr) == (0, "") and f" 0  {text} " in done.stdout
    assert open_cache(tmp_path / "c").classes == ("café 面条", "面")


def test_a_disk_that_is_full_while_photos_are_written_is_an_error_of_the_disk_not_of_a_photo(tmp_path):
    """The limit stands in for the disk: the file's own length is made before, as a disk gives room only when written."""
    code = (
        "import resource, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from data import decode\n"
        "folder = Path(sys.argv[1])\n"
        "Image.new('RGB', (64, 64)).save(folder / 'a.png')\n"
        "made = np.lib.format.open_memmap(folder / 'x.npy', mode='w+', dtype=np.uint8, shape=(2, 64, 64, 3))\n"
        "target = decode.Rows(folder / 'x.npy', made.offset, 64)\n"
        "decode._reader = decode.Reader(folder, False)\n"
        "print(decode.decode_rows(target, 0, ['a.png', 'b.png']))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))\n"
        "try:\n    decode.decode_rows(target, 1, ['a.png'])\n"
        "except OSError as error:\n    print(type(error).__name__, error.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    decoded, refused = done.stdout.splitlines()
    assert decoded.startswith("Decoded(photos=2, failed={'b.png':") and "No such file" in decoded
    assert refused == f"OSError {errno.EFBIG}"
