"""Every layout that people have gives the same labels; what is not understood is refused in one line."""

from __future__ import annotations

import hashlib
import random
import tracemalloc

import pytest
from fixtures_data import food11_files, two_dishes, write_tree, write_zip

from data import food11
from data.errors import DataError
from data.layouts import read_layout
from data.names import Photos
from data.skew import skew_like_the_lab
from data.source import Reader, open_source

EXPECTED = {
    (path.split("/")[0], int(path.split("/")[1].split("_")[0]), raw) for path, raw in food11_files("flat").items()
}


@pytest.mark.parametrize("packed", ["folder", "zip"])
@pytest.mark.parametrize("top", ["", "food-11/", "download/Food11/"])
@pytest.mark.parametrize("layout", ["flat", "named", "numbered"])
def test_every_food11_layout_gives_the_same_pictures_the_same_labels(tmp_path, layout, top, packed):
    files = food11_files(layout, top)
    path = write_tree(tmp_path / "s", files) if packed == "folder" else write_zip(tmp_path / "s.zip", files)
    source = open_source(path)
    found, reader = read_layout(source.files, str(path)), Reader(path, source.is_zip)
    labelled = {(split, c, reader.read(file)) for split, pairs in found.files.items() for file, c in pairs}
    assert labelled == EXPECTED and len(EXPECTED) == 33
    assert (found.kind, found.is_food11, found.classes, found.strays) == (layout, True, food11.CLASSES, [])


def test_class_numbers_are_ordered_as_numbers_not_as_text():
    numbered = read_layout(food11_files("numbered"), "food")
    assert dict(numbered.files["training"])["training/10/0.jpg"] == 10
    assert dict(numbered.files["training"])["training/2/0.jpg"] == 2
    others = read_layout([f"training/{n}/a.jpg" for n in (10, 9, 1, 100)], "photos")
    assert others.classes == ("1", "9", "10", "100") and not others.is_food11
    assert dict(others.files["training"])["training/100/a.jpg"] == 3


def test_any_folder_a_class_tree_takes_its_classes_from_the_folders():
    layout = read_layout(two_dishes(), "dishes")
    assert (layout.kind, layout.is_food11, layout.classes) == ("folders", False, ("bibimbap", "pho"))
    assert layout.files["validation"] == [
        ("validation/bibimbap/0.jpg", 0),
        ("validation/bibimbap/1.jpg", 0),
        ("validation/pho/0.jpg", 1),
        ("validation/pho/1.jpg", 1),
    ]


def test_a_class_that_only_one_split_has_is_counted_in_all():
    layout = read_layout(["training/b/1.jpg", "training/c/1.jpg", "validation/a/1.jpg"], "photos")
    assert layout.classes == ("a", "b", "c") and layout.files["training"][0] == ("training/b/1.jpg", 1)


@pytest.mark.parametrize(
    "folder, split",
    [
        ("train", "training"),
        ("Training", "training"),
        ("val", "validation"),
        ("valid", "validation"),
        ("test", "evaluation"),
        ("EVAL", "evaluation"),
        ("skewed training", "skewed_training"),
    ],
)
def test_other_names_of_the_splits(folder, split):
    assert read_layout([f"{folder}/pho/1.jpg"], "photos").files == {split: [(f"{folder}/pho/1.jpg", 0)]}


@pytest.mark.parametrize(
    "junk",
    ["training/.DS_Store", "training/pho/Thumbs.db", "training/desktop.ini", "__MACOSX/training/pho/._1.jpg"]
    + ["training/.ipynb_checkpoints/1.jpg", "README.md", "labels/classes.txt"],
)
def test_junk_is_no_photo_no_class_and_no_stray(junk):
    clean = two_dishes()
    assert read_layout([*clean, junk], "photos") == read_layout(clean, "photos")


@pytest.mark.parametrize("class_id, name", list(enumerate(food11.CLASSES)))
def test_class_folders_are_known_by_name_whatever_the_spelling(class_id, name):
    for folder in (food11.folder_name(name), name.lower(), name.upper().replace(" ", "_"), name.replace("/", " ")):
        assert food11.class_id_of(folder) == class_id
    assert food11.class_id_of(name + "s") is None


def test_files_without_a_class_are_strays():
    flat = read_layout(["training/3_1.jpg", "training/11_1.jpg", "training/cover.jpg", "training/4_.jpg"], "food")
    assert flat.files == {"training": [("training/3_1.jpg", 3)]}
    assert flat.strays == ["training/11_1.jpg", "training/4_.jpg", "training/cover.jpg"]
    folders = read_layout(["training/pho/1.jpg", "training/notes.txt"], "photos")
    assert folders.strays == ["training/notes.txt"] and folders.classes == ("pho",)


@pytest.mark.parametrize(
    "paths, words",
    [
        (["bread/1.jpg", "rice/2.jpg"], ["no folder named training, validation or evaluation"]),
        ([], ["no folder named training, validation or evaluation"]),
        (["train/a/1.jpg", "training/a/1.jpg"], ["two folders for the training split", "'train'", "'training'"]),
        (["x/val/a/1.jpg", "y/val/a/1.jpg"], ["two folders for the validation split", "'x/val'", "'y/val'"]),
        (["training/Rice/1.jpg", "training/rice/1.jpg"], ["two folders name the same Food-11 class", "Rice, rice"]),
        (["training/photo1.jpg", "training/photo2.jpg"], ["names like 3_17.jpg", "'photo1.jpg'"]),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(paths, words):
    with pytest.raises(DataError) as error:
        read_layout(paths, "my photos")
    message = str(error.value)
    assert message.startswith("my photos: ") and "\n" not in message
    assert not [word for word in words if word not in message]


def full_training(path_of) -> list[tuple[str, int]]:
    return [(path_of(c, i), c) for c, n in enumerate(food11.TRAINING) for i in range(n)]


FULL = {
    "flat": full_training(lambda c, i: f"training/{c}_{i}.jpg"),
    "named": full_training(lambda c, i: f"training/{food11.folder_name(food11.CLASSES[c])}/{i}.jpg"),
    "numbered": full_training(lambda c, i: f"food11re/training/{c}/{i}.jpg"),
}


def choice(kept: list[tuple[str, int]]) -> set[tuple[int, str]]:
    """{(class id, name without the flat layout's class number)}"""
    return {(class_id, path.split("/")[-1].removeprefix(f"{class_id}_")) for path, class_id in kept}


def test_official_counts_add_up_and_the_skewed_split_is_part_of_the_full_one():
    totals = {split: sum(counts) for split, counts in food11.OFFICIAL.items()}
    assert totals == {"training": 9866, "skewed_training": 7310, "validation": 3430, "evaluation": 3347}
    assert all(len(counts) == len(food11.CLASSES) == 11 for counts in food11.OFFICIAL.values())
    assert all(skewed <= full for skewed, full in zip(food11.SKEWED, food11.TRAINING))


def test_skew_keeps_the_labs_counts_from_what_is_there():
    kept = skew_like_the_lab(FULL["flat"])
    assert [sum(c == class_id for _, c in kept) for class_id in range(11)] == list(food11.SKEWED)
    assert len(set(kept)) == 7310 and set(kept) < set(FULL["flat"])


def test_skew_chooses_the_same_files_in_every_layout_and_order():
    flat = skew_like_the_lab(FULL["flat"])
    for layout in ("named", "numbered"):
        assert choice(skew_like_the_lab(FULL[layout])) == choice(flat)
    shuffled = random.Random(0).sample(FULL["flat"], len(FULL["flat"]))
    assert skew_like_the_lab(shuffled) == flat


def test_skew_chooses_what_it_has_always_chosen():
    """Two people's accuracies compare only if both trained on the same 7310 photos."""
    names = "\n".join(path for path, _ in skew_like_the_lab(FULL["flat"]))
    assert (
        hashlib.sha256(names.encode()).hexdigest() == "3a01ecce4e6af0995a5ea58048d13e550c72631bfbc11471259a7c9e6a4ff8f9"
    )
    first_35 = {(10, f"{i}.jpg") for i in range(35)}
    assert not first_35 <= choice(skew_like_the_lab(FULL["flat"]))  # a draw, not the head of the list


def test_skew_refuses_a_split_that_is_not_the_full_one():
    short = [pair for pair in FULL["flat"] if pair[1] != 6] + [(f"training/6_{i}.jpg", 6) for i in range(131)]
    with pytest.raises(DataError, match=r"keeps 132 training images of class 6 \(Noodles/Pasta\), found 131; expected"):
        skew_like_the_lab(short)


def test_a_source_that_is_neither_folder_nor_zip_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder or zip; expected the photos' folder or zip file"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "cut.zip").write_bytes(write_zip(tmp_path / "s.zip", two_dishes()).read_bytes()[:-30])
    with pytest.raises(DataError, match="cut.zip: not a folder and not a readable zip .*; download it again"):
        open_source(tmp_path / "cut.zip")


def test_an_encrypted_zip_is_refused(tmp_path):
    raw = bytearray(write_zip(tmp_path / "s.zip", {"training/pho/1.jpg": b"secret"}).read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1  # the flag of an encrypted entry, in the central directory
    (tmp_path / "s.zip").write_bytes(raw)
    with pytest.raises(DataError, match="the zip is encrypted; unpack it"):
        open_source(tmp_path / "s.zip")


def test_a_folder_is_listed_in_the_order_of_whole_paths_and_its_digest_is_of_names_sizes_and_times(tmp_path):
    names = ["a/1.jpg", "a-b/2.jpg", "a.c/3.jpg", "a0.jpg", "a!.jpg", "a/b/4.jpg", "a/b-c.jpg", ".hidden/5.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "a" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "round").symlink_to("round")  # leads to itself
    (tmp_path / "linked").symlink_to(tmp_path / "a.c")
    stamps = {name: f"{(s := (tmp_path / name).stat()).st_size} {s.st_mtime_ns}" for name in [*names, "linked/3.jpg"]}
    stamps |= {"a/gone.jpg": "unreadable", "round": "unreadable"}
    source = open_source(tmp_path)
    assert list(source.files) == sorted(stamps)
    kept = [name for name in sorted(stamps) if name != ".hidden/5.jpg"]
    assert source.digest == hashlib.sha256("".join(f"{n}\0{stamps[n]}\n" for n in kept).encode()).hexdigest()


def test_names_are_a_list_in_little_memory():
    names = [f"training/Noodles-Pasta/{i}-\udcff-ü.jpg" for i in range(10_000)]
    tracemalloc.start()
    found = Photos((name, i % 11) for i, name in enumerate(names))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert found == [(name, i % 11) for i, name in enumerate(names)]
    assert held < 70 * len(names)  # 38 of the path, 16 of its end and class, what the arrays grew ahead
    assert (found[-1], found[9:3:-2]) == ((names[-1], 9999 % 11), [(names[i], i) for i in (9, 7, 5)])
    assert "training/Noodles-Pasta/7-\udcff-ü.jpg" in found.paths
    with pytest.raises(IndexError):
        found[10_000]
