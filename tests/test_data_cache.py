"""The cache says what it is; what is not what was asked for is refused with the command that mends it."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fixtures_data import SPLITS, decode_in_process, food11_files, photo, run_data, two_dishes, write_tree, write_zip
from PIL import Image

from data import DataError, food11
from data import cache as cache_module
from data import contents as contents_module
from data.cache import FORMAT, open_cache
from data.decode import decode_image
from data.prepare import Settings, prepare
from data.show import COLUMNS, LABEL_PX, contact_sheet, counts_table
from data.source import open_source

PX = 16


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A folder with `photos` and the `cache` made of them by real worker processes."""
    root = tmp_path_factory.mktemp("example")
    prepare(write_tree(root / "photos", two_dishes()), root / "cache", Settings(PX))
    return root


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The same, made here and to be spoilt."""
    decode_in_process(monkeypatch)
    prepare(write_tree(tmp_path / "photos", two_dishes()), tmp_path / "cache", Settings(PX))
    return tmp_path


def fail(code):
    def failing(*_, **__):
        raise OSError(code, os.strerror(code))

    return failing


def test_a_cache_holds_uint8_squares_and_their_labels(example):
    cache = open_cache(example / "cache", image_px=PX)
    assert cache.classes == ("bibimbap", "pho")
    for name in SPLITS:
        split = cache.split(name)
        assert (split.images.dtype, split.images.shape) == (np.uint8, (4, PX, PX, 3))
        assert (split.labels.dtype, split.labels.tolist()) == (np.int64, [0, 0, 1, 1])
        wanted = [decode_image(photo(name, dish, i), PX) for dish in cache.classes for i in range(2)]
        np.testing.assert_array_equal(split.images, wanted)
        assert isinstance(split.images, np.memmap) and not split.images.flags.writeable


def test_the_manifest_says_what_the_cache_is(example):
    manifest = json.loads((example / "cache/manifest.json").read_text())
    digests, pillow = [manifest.pop("source_digest"), manifest.pop("photos_digest")], manifest.pop("pillow")
    assert [len(digest) for digest in digests] == [64, 64] and pillow == Image.__version__
    assert manifest == {
        "format": FORMAT,
        "image_px": PX,
        "train_split": "training",
        "skew": "none",
        "classes": ["bibimbap", "pho"],
        "is_food11": False,
        "layout": "folders",
        "source": str((example / "photos").resolve()),
        "skipped": [],
        "counts": {"training": [2, 2], "validation": [2, 2], "evaluation": [2, 2]},
    }


def test_a_cache_may_be_shared_with_other_people(example):
    open_cache(example / "cache").split("training", 7)
    private = [
        path.name for path in [example / "cache", *(example / "cache").rglob("*")] if not path.stat().st_mode & 0o004
    ]
    assert private == []


def other_format(own):
    edit_manifest(own, format=FORMAT - 1)


def edit_manifest(own, **changes):
    path = own / "cache/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def empty_labels(own):
    (own / "cache/validation.labels.npy").write_bytes(b"")


def cut_images(own):
    os.truncate(own / "cache/training.images.npy", 4 * PX * PX * 3)


def no_images(own):
    (own / "cache/evaluation.images.npy").unlink()


def fewer_images(own):
    np.save(own / "cache/training.images.npy", np.zeros((3, PX, PX, 3), np.uint8))


def not_an_array(own):
    (own / "cache/training.labels.npy").write_text("a text")


def added_photo(own):
    write_tree(own, {"photos/training/pho/new.jpg": photo("training", "pho", 9)})


def removed_photo(own):
    (own / "photos/training/pho/1.jpg").unlink()


def changed_photo(own):
    (own / "photos/evaluation/pho/0.jpg").write_bytes(photo("evaluation", "pho", 9))


def other_bytes(own):
    """Of the same length: only the time tells."""
    path = own / "photos/evaluation/pho/0.jpg"
    raw = path.read_bytes()
    path.write_bytes(raw[:300] + bytes([raw[300] ^ 1]) + raw[301:])
    os.utime(path, ns=(1, 1))


def changed_in_three_ways(own):
    added_photo(own)
    removed_photo(own)
    changed_photo(own)


SPOILT = [
    (other_format, f"the cache has format {FORMAT - 1}, this version reads format {FORMAT}"),
    (empty_labels, "validation.labels.npy should hold an array of shape (4,), found nothing readable"),
    (cut_images, "training.images.npy should hold an array of shape (4, 16, 16, 3), found nothing readable"),
    (no_images, "evaluation.images.npy should hold an array of shape (4, 16, 16, 3), found nothing readable"),
    (fewer_images, "training.images.npy should hold an array of shape (4, 16, 16, 3), found (3, 16, 16, 3)"),
    (not_an_array, "training.labels.npy should hold an array of shape (4,), found nothing readable"),
    (added_photo, "have changed since this cache was made (1 added: training/pho/new.jpg); make it again with"),
    (removed_photo, "have changed since this cache was made (1 removed: training/pho/1.jpg); make it again with"),
    (changed_photo, "have changed since this cache was made (1 changed: evaluation/pho/0.jpg); make it again with"),
    (other_bytes, "have changed since this cache was made (1 changed: evaluation/pho/0.jpg); make it again with"),
    (
        changed_in_three_ways,
        "(1 changed: evaluation/pho/0.jpg; 1 added: training/pho/new.jpg; 1 removed: training/pho/1.jpg); make it again",
    ),
]


def run_the_named_command(message: str) -> None:
    words = shlex.split(message.partition(" again with: ")[2])
    assert words[:3] == ["python", "-m", "data"]
    assert run_data(*words[3:]) == 0


@pytest.mark.parametrize("spoil, words", SPOILT)
def test_a_spoilt_cache_is_refused_with_the_command_that_mends_it(own, spoil, words):
    spoil(own)
    with pytest.raises(DataError) as error:
        open_cache(own / "cache")
    assert words in str(error.value) and "\n" not in str(error.value)
    run_the_named_command(str(error.value))
    assert open_cache(own / "cache").manifest["image_px"] == PX


def test_a_cache_of_too_small_images_is_refused_with_the_command_that_mends_it(own):
    with pytest.raises(DataError, match="holds 16 px images, 20 px are needed") as error:
        open_cache(own / "cache", image_px=20)
    run_the_named_command(str(error.value))
    assert open_cache(own / "cache", image_px=20).split("training").images.shape == (4, 20, 20, 3)


def test_the_command_that_mends_keeps_every_setting(tmp_path, monkeypatch):
    decode_in_process(monkeypatch)
    monkeypatch.setattr(food11, "SKEWED", (1,) * 11)
    files = food11_files("flat", each=2) | food11_files("flat", splits=("skewed_training",))
    source = write_tree(tmp_path / "my photos", files | {"training/cover.jpg": b""})
    manifest = prepare(source, tmp_path / "a cache", Settings(PX, "training", "lab", skip_unreadable=True))
    (tmp_path / "a cache/training.images.npy").unlink()
    with pytest.raises(DataError) as error:
        open_cache(tmp_path / "a cache")
    run_the_named_command(str(error.value))
    assert {**open_cache(tmp_path / "a cache").manifest, "reused": False} == manifest


@pytest.mark.parametrize("folder", ["nowhere", "photos", "photos/training/pho/0.jpg"])
def test_where_there_is_no_cache_the_command_that_makes_one_is_named(example, folder):
    with pytest.raises(DataError) as error:
        open_cache(example / folder)
    command = f"python -m data prepare SOURCE --cache {example / folder}"
    assert str(error.value) == f"{example / folder}: no cache there (no manifest.json); make one with: {command}"


@pytest.mark.parametrize("raw, words", [(b"{cut", "unreadable manifest.json"), (b"{}", "is not a cache's")])
def test_a_manifest_that_is_none_of_ours_is_refused(tmp_path, raw, words):
    (tmp_path / "manifest.json").write_bytes(raw)
    with pytest.raises(DataError, match=words):
        open_cache(tmp_path)


def folder_gone(own, monkeypatch):
    shutil.rmtree(own / "photos")


def folder_empty(own, monkeypatch):
    folder_gone(own, monkeypatch)
    (own / "photos").mkdir()


def mount_point(own, monkeypatch):
    folder_empty(own, monkeypatch)
    write_tree(own, {"photos/README.txt": b"mount the disk here", "photos/.hidden": b""})


def bare_mount_point(own, monkeypatch):
    folder_empty(own, monkeypatch)
    write_tree(own, {"photos/README": b"mount the disk here"})


def split_gone(own, monkeypatch):
    shutil.rmtree(own / "photos/evaluation")


def split_empty(own, monkeypatch):
    for path in (own / "photos/evaluation").rglob("*.jpg"):
        path.unlink()


def class_on_another_disk(own, monkeypatch):
    shutil.rmtree(own / "photos/training/pho")
    (own / "photos/training/pho").symlink_to("/nowhere/pho")


def no_folder_can_be_listed(own, monkeypatch):
    monkeypatch.setattr(os, "scandir", fail(errno.EIO))


def a_folder_that_cannot_be_listed(own, monkeypatch):
    scandir, denied = os.scandir, fail(errno.EACCES)
    monkeypatch.setattr(os, "scandir", lambda path: (denied if str(path).endswith("pho") else scandir)(path))


def stale_handle(own, monkeypatch):
    monkeypatch.setattr(cache_module, "open_source", fail(errno.ESTALE))


UNPLUGGED = [
    (folder_gone, "is not there"),
    (folder_empty, "has no photos"),
    (mount_point, "has no photos"),
    (bare_mount_point, "has no photos"),
    (split_gone, "has none of the photos of evaluation"),
    (split_empty, "has none of the photos of evaluation"),
    (class_on_another_disk, "cannot be read in part (training/pho, training/pho/0.jpg, training/pho/1.jpg)"),
    (no_folder_can_be_listed, ""),
    (a_folder_that_cannot_be_listed, "cannot be read"),
    (stale_handle, "cannot be read ([Errno 116] Stale file handle)"),
]


@pytest.mark.parametrize("unplug, words", UNPLUGGED)
def test_a_cache_is_enough_where_its_photos_cannot_be_looked_at(own, monkeypatch, capsys, unplug, words):
    unplug(own, monkeypatch)
    cache = open_cache(own / "cache")
    assert cache.split("evaluation").images.shape == (4, PX, PX, 3)
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {own / 'photos'} {words}") and warning.count("\n") == 1
    assert "prepare" not in warning


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04 half a download"])
def test_a_cache_of_a_zip_is_enough_where_the_zip_is_damaged(tmp_path, monkeypatch, capsys, raw):
    decode_in_process(monkeypatch)
    prepare(write_zip(tmp_path / "photos.zip", two_dishes()), tmp_path / "cache", Settings(PX))
    (tmp_path / "photos.zip").write_bytes(raw)
    assert open_cache(tmp_path / "cache").manifest["counts"]["training"] == [2, 2]
    assert f"warning: {tmp_path / 'photos.zip'} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("unplug", [folder_gone, folder_empty, mount_point])
@pytest.mark.parametrize("spoil", [other_format, no_images, empty_labels])
def test_nobody_is_advised_to_prepare_from_photos_that_are_not_there(own, monkeypatch, spoil, unplug):
    spoil(own)
    unplug(own, monkeypatch)
    with pytest.raises(DataError) as error:
        open_cache(own / "cache")
    assert f"; {own / 'photos'} " in str(error.value) and "restore its photos and make it again with" in str(
        error.value
    )
    assert f"prepare SOURCE --cache {own / 'cache'}" in str(error.value)


def touch_all(own):
    for i, path in enumerate(sorted((own / "photos").rglob("*.jpg"))):
        os.utime(path, ns=(i, i))


def copied(own):
    """cp -r, and the copy in the old one's place."""
    shutil.copytree(own / "photos", own / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(own / "photos")
    (own / "copy").rename(own / "photos")


@pytest.mark.parametrize("change", [touch_all, copied])
def test_other_times_alone_cost_one_look(own, monkeypatch, capsys, change):
    before = open_cache(own / "cache").manifest
    change(own)
    assert open_cache(own / "cache").manifest == before
    monkeypatch.setattr(cache_module, "compare", None)  # looking again would fail
    assert open_cache(own / "cache").manifest == before
    assert capsys.readouterr() == ("", "")


def test_only_what_has_another_time_is_read(own, monkeypatch):
    read, seen = contents_module.Reader.read, []
    monkeypatch.setattr(contents_module.Reader, "read", lambda reader, path: seen.append(path) or read(reader, path))
    touched = ["evaluation/pho/0.jpg", "training/pho/1.jpg"]
    for path in touched:
        os.utime(own / "photos" / path, ns=(1, 1))
    open_cache(own / "cache")
    open_cache(own / "cache")
    assert seen == touched


def test_a_photo_that_cannot_be_read_now_is_taken_as_it_was(own, monkeypatch, capsys):
    touch_all(own)
    read = contents_module.Reader.read
    monkeypatch.setattr(
        contents_module.Reader,
        "read",
        lambda reader, path: fail(errno.EIO)() if "pho/1" in path else read(reader, path),
    )
    open_cache(own / "cache")
    names = "evaluation/pho/1.jpg, training/pho/1.jpg, validation/pho/1.jpg"
    assert f"cannot be read in part ({names}); {own / 'cache'} is used as it was made" in capsys.readouterr().err
    changed_photo(own)
    with pytest.raises(DataError, match="1 changed: evaluation/pho/0.jpg"):
        open_cache(own / "cache")


def test_a_cache_that_cannot_be_written_is_used_all_the_same(own, monkeypatch, capsys):
    touch_all(own)
    monkeypatch.setattr(contents_module.tempfile, "mkstemp", fail(errno.EROFS))
    for _ in range(2):
        assert open_cache(own / "cache").manifest["counts"]["training"] == [2, 2]
    assert capsys.readouterr() == ("", "")


def test_trials_that_start_together_may_all_look_at_the_photos(own):
    touch_all(own)
    with ThreadPoolExecutor(4) as threads:
        caches = list(threads.map(lambda _: open_cache(own / "cache"), range(8)))
    assert all(cache.manifest == caches[0].manifest for cache in caches)
    assert not list((own / "cache").glob("*.partial"))
    assert contents_module.read_contents(own / "cache").source_digest == open_source(own / "photos").digest


def earlier(own):
    (own / "cache/photos.npz").unlink()


def damaged(own):
    os.truncate(own / "cache/photos.npz", 300)


@pytest.mark.parametrize("made_by", [earlier, damaged])
def test_a_cache_without_its_photos_digests_goes_by_their_times(own, capsys, made_by):
    made_by(own)
    assert open_cache(own / "cache").manifest["counts"]["training"] == [2, 2]
    touch_all(own)
    with pytest.raises(DataError, match=r"have changed since this cache was made; make it again with: python -m data"):
        open_cache(own / "cache")
    folder_empty(own, None)
    open_cache(own / "cache")
    assert "has no photos" in capsys.readouterr().err


def test_photos_that_were_not_used_may_change(tmp_path, monkeypatch):
    decode_in_process(monkeypatch)
    files = food11_files("flat", each=2) | food11_files("flat", splits=("skewed_training",))
    prepare(write_tree(tmp_path / "photos", files), tmp_path / "cache", Settings(PX))
    write_tree(tmp_path / "photos", {"training/3_1.jpg": b"another"})
    (tmp_path / "photos/training/4_1.jpg").unlink()
    open_cache(tmp_path / "cache")
    write_tree(tmp_path / "photos", {"skewed_training/3_0.jpg": b"another"})
    with pytest.raises(DataError, match="1 changed: skewed_training/3_0.jpg"):
        open_cache(tmp_path / "cache")


def test_a_skipped_photo_may_be_removed_but_not_mended(tmp_path, monkeypatch):
    decode_in_process(monkeypatch)
    source = write_tree(tmp_path / "photos", two_dishes() | {f"training/pho/x{i}.jpg": b"broken" for i in range(2)})
    prepare(source, tmp_path / "cache", Settings(PX, skip_unreadable=True))
    (source / "training/pho/x0.jpg").unlink()
    open_cache(tmp_path / "cache")
    (source / "training/pho/x1.jpg").write_bytes(photo("training", "pho", 9))
    with pytest.raises(DataError, match=r"\(1 changed: training/pho/x1.jpg\)"):
        open_cache(tmp_path / "cache")


def test_junk_beside_the_photos_does_not_spoil_a_cache(own):
    write_tree(own, {"photos/.DS_Store": b"x", "photos/training/pho/Thumbs.db": b"x"})
    assert open_cache(own / "cache").manifest["counts"]["training"] == [2, 2]


def scale(images: np.ndarray, px: int) -> list[np.ndarray]:
    return [np.asarray(Image.fromarray(image).resize((px, px), Image.Resampling.BICUBIC)) for image in images]


def test_smaller_images_are_made_once_and_kept(own, monkeypatch):
    cache = open_cache(own / "cache")
    first = cache.split("training", 6)
    assert (first.images.shape, first.images.dtype, first.labels.tolist()) == ((4, 6, 6, 3), np.uint8, [0, 0, 1, 1])
    np.testing.assert_array_equal(first.images, scale(cache.split("training").images, 6))
    assert os.listdir(own / "cache/scaled") == ["training.6.npy"]
    monkeypatch.setattr(cache_module, "_write_scaled", None)  # scaling again would fail
    np.testing.assert_array_equal(open_cache(own / "cache").split("training", 6).images, first.images)


def test_smaller_images_keep_their_order_in_however_many_parts_they_are_made(own, monkeypatch):
    monkeypatch.setattr(cache_module, "SCALED_AT_ONCE", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    images = np.random.default_rng(0).integers(0, 256, (11, PX, PX, 3), dtype=np.uint8)  # more than wait to be written
    scaled = cache_module._write_scaled(images, own / "cache/scaled/more.6.npy", 6)
    np.testing.assert_array_equal(scaled, scale(images, 6))


@pytest.mark.parametrize("store_px", [None, PX, PX + 1])
def test_images_are_never_scaled_up(own, store_px):
    assert open_cache(own / "cache").split("validation", store_px).images.shape == (4, PX, PX, 3)
    assert not (own / "cache/scaled").exists()


@pytest.mark.parametrize("where", ["mkdir", "mkstemp", "write_array_header_1_0"])
def test_where_smaller_images_cannot_be_kept_they_are_used_all_the_same(own, monkeypatch, where):
    """A read-only folder, without and with the folder `scaled`, and a full disk. (As root, no folder is read-only.)"""
    holder = {"mkdir": cache_module.Path, "mkstemp": contents_module.tempfile}.get(where, np.lib.format)
    monkeypatch.setattr(holder, where, fail(errno.EROFS if where.startswith("mk") else errno.ENOSPC))
    cache = open_cache(own / "cache")
    np.testing.assert_array_equal(cache.split("training", 6).images, scale(cache.split("training").images, 6))
    assert not list((own / "cache").glob("scaled/*"))


def test_trials_that_start_together_may_all_ask_for_smaller_images(own):
    with ThreadPoolExecutor(4) as threads:
        splits = list(threads.map(lambda _: open_cache(own / "cache").split("training", 6), range(8)))
    assert all((split.images == splits[0].images).all() for split in splits)
    assert os.listdir(own / "cache/scaled") == ["training.6.npy"]


def test_a_cache_made_again_keeps_no_smaller_images_of_the_old_one(own):
    open_cache(own / "cache").split("evaluation", 6)
    changed_photo(own)
    prepare(own / "photos", own / "cache", Settings(PX))
    cache = open_cache(own / "cache")
    np.testing.assert_array_equal(cache.split("evaluation", 6).images, scale(cache.split("evaluation").images, 6))


def test_counts_stand_beside_the_official_ones_where_the_classes_are_food11s():
    counts = {"training": list(range(11)), "validation": [5] * 11, "evaluation": [7] * 11}
    manifest = {"is_food11": True, "skew": "none", "train_split": "training", "counts": counts}
    manifest["classes"] = list(food11.CLASSES)
    rows = [line.split() for line in counts_table(manifest).splitlines()]
    assert " ".join(rows[0]) == "id class training of 9866 validation of 3430 evaluation of 3347"
    assert rows[1] == ["0", "Bread", "0", "994", "5", "362", "7", "368"]
    assert rows[11] == ["10", "Vegetable/Fruit", "10", "709", "5", "232", "7", "231"]
    assert rows[12] == ["total", "55", "9866", "55", "3430", "77", "3347"]
    for skewed in ({"skew": "lab"}, {"train_split": "skewed_training"}):
        rows = [line.split() for line in counts_table({**manifest, **skewed}).splitlines()]
        assert rows[0][2:5] == ["training", "of", "7310"] and rows[11][2:4] == ["10", "35"]


def test_counts_of_other_photos_stand_alone(example):
    assert counts_table(open_cache(example / "cache").manifest).splitlines() == [
        "id  class     training  validation  evaluation",
        " 0  bibimbap         2           2           2",
        " 1  pho              2           2           2",
        "    total            4           4           4",
    ]


def test_the_contact_sheet_shows_pictures_of_every_class_and_split(example):
    cache, tile = open_cache(example / "cache"), PX
    sheet = contact_sheet(cache, tile_px=tile)
    gap = tile // 6
    assert sheet.size == (LABEL_PX + 3 * (COLUMNS * tile + gap), 24 + 2 * (tile + 2))
    pixels = np.asarray(sheet)
    for s, name in enumerate(SPLITS):
        images = cache.split(name).images
        for i in range(4):  # two of each class, one class a row
            top, left = 24 + (i // 2) * (tile + 2), LABEL_PX + s * (COLUMNS * tile + gap) + (i % 2) * tile
            np.testing.assert_array_equal(pixels[top : top + tile, left : left + tile], images[i])
    assert (pixels[:, :LABEL_PX] < 128).any()  # the class names


def test_show_prints_the_counts_and_writes_the_sheet(own, capsys):
    assert run_data("show", own / "cache") == 0
    out = capsys.readouterr().out
    assert "bibimbap" in out and out.endswith(f"contact sheet: {own / 'cache/contact_sheet.png'}\n")
    with Image.open(own / "cache/contact_sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.size == contact_sheet(open_cache(own / "cache")).size
    assert run_data("show", own / "cache", "--out", own / "new/sheet.png") == 0
    assert (own / "new/sheet.png").read_bytes() == (own / "cache/contact_sheet.png").read_bytes()


@pytest.mark.parametrize("out", ["sheet.xyz", "photos/training/pho/0.jpg/sheet.png"])
def test_a_sheet_that_cannot_be_written_is_one_line(example, out, capsys):
    assert run_data("show", example / "cache", "--out", example / out) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {example / out}: could not write the contact sheet") and err.count("\n") == 1


def test_show_without_a_cache_is_one_line(tmp_path, capsys):
    assert run_data("show", tmp_path) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {tmp_path}: no cache there") and err.count("\n") == 1
