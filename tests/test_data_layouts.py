"""Every layout that people have gives the same labels; what is not understood is refused in one line."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import unicodedata

import pytest
from fixtures_data import class_folders, food11_files, two_dishes, write_tree, write_zip

from data import DataError, food11
from data.layouts import read_layout
from data.source import Reader, open_source
from data.splits import divide, skew_like_the_lab

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
    result, reader = read_layout(source.files, str(path)), Reader(path, source.is_zip)
    labelled = {(split, c, reader.read(file)) for split, pairs in result.files.items() for file, c in pairs}
    assert labelled == EXPECTED and len(EXPECTED) == 33
    assert (result.kind, result.is_food11, result.classes, result.strays) == (layout, True, food11.CLASSES, [])


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


SPLIT_NAMES = {
    "training": ["train", "Training", "TRAIN_SET", "training-images", "traindata", "train set"],
    "validation": ["val", "valid", "Validation", "dev", "val_set", "validation images"],
    "evaluation": ["test", "testing", "EVAL", "test_set", "Testset", "hold_out"],
    "skewed_training": ["skewed training", "Skewed-Train"],
}


@pytest.mark.parametrize("folder, split", [(name, split) for split, names in SPLIT_NAMES.items() for name in names])
def test_other_names_of_the_splits(folder, split):
    assert read_layout([f"{folder}/pho/1.jpg"], "photos").files == {split: [(f"{folder}/pho/1.jpg", 0)]}


@pytest.mark.parametrize(
    "splits",
    [("test/training", "test/validation"), ("a/train/train", "a/val/val"), ("train_set/train_set", "val_set/val_set")],
)
def test_folders_around_the_splits_and_split_folders_twice_are_looked_through(splits):
    training, validation = splits
    layout = read_layout([f"{training}/pho/1.jpg", f"{training}/rice/1.jpg", f"{validation}/pho/1.jpg"], "photos")
    assert layout.classes == ("pho", "rice") and layout.strays == []
    assert layout.files == {
        "training": [(f"{training}/pho/1.jpg", 0), (f"{training}/rice/1.jpg", 1)],
        "validation": [(f"{validation}/pho/1.jpg", 0)],
    }


def test_split_folders_may_have_words_in_common():
    paths = [f"{top}/{dish}/1.jpg" for top in ("x/seg_train/seg_train", "x/seg_test/seg_test") for dish in ("a", "b")]
    layout = read_layout([*paths, "x/seg_pred/1.jpg"], "photos")
    assert (layout.classes, list(layout.files), layout.unused) == (
        ("a", "b"),
        ["evaluation", "training"],
        {"x/seg_pred": 1},
    )
    stations = ["train_station/1.jpg", "test_tube/1.jpg", "valid passport/1.jpg"]  # classes
    assert list(read_layout(stations, "photos").files) == ["whole"]


def test_eval_beside_test_is_the_validation_split():
    layout = read_layout(["train/a/1.jpg", "eval/a/1.jpg", "test/a/1.jpg"], "photos")
    assert layout.files["validation"] == [("eval/a/1.jpg", 0)] and layout.files["evaluation"] == [("test/a/1.jpg", 0)]
    for other in ("val", "testing"):
        with pytest.raises(DataError, match="two folders for the evaluation split, 'eval' and 'test"):
            read_layout(["train/a/1.jpg", "eval/a/1.jpg", "test/a/1.jpg", f"{other}/a/1.jpg"], "photos")


def test_what_belongs_to_no_split_is_counted_by_folder():
    paths = [f"food/{path}" for path in two_dishes()]
    layout = read_layout(
        [*paths, "food/meta/a/1.jpg", "food/meta/2.jpg", "food/unlabeled/1.jpg", "food/cover.jpg"], "x"
    )
    assert layout.unused == {"food/cover.jpg": 1, "food/meta": 2, "food/unlabeled": 1}
    assert layout.files == read_layout(paths, "x").files and layout.strays == []


@pytest.mark.parametrize("top", ["", "photos/", "photos/images/"])
def test_a_tree_of_class_folders_without_splits_is_one_whole(top):
    files = class_folders("train", "bus", "car", each=2, top=top)  # a train is no split here
    layout = read_layout([*files, f"{top}bus/more/9.jpg"], "vehicles")
    assert (layout.classes, list(layout.files), layout.unused) == (("bus", "car", "train"), ["whole"], {})
    assert len(layout.files["whole"]) == 7 and layout.depth == top.count("/") + 1


def test_a_folder_called_train_that_has_class_folders_is_a_split_whatever_is_beside_it():
    layout = read_layout(["train/a/1.jpg", "b/1.jpg", "c/1.jpg"], "photos")
    assert list(layout.files) == ["training"] and layout.unused == {"b": 1, "c": 1}


CAFE = ("café", unicodedata.normalize("NFD", "café"), "CAFÉ", "café ", "ca\u200bfé", "ｃａｆé")


@pytest.mark.parametrize("twin", CAFE[1:])
def test_folders_that_a_person_takes_for_the_same_class_are_one(twin):
    layout = read_layout(["train/café/1.jpg", "train/café/2.jpg", "train/pho/1.jpg", f"val/{twin}/1.jpg"], "photos")
    assert layout.classes == ("café", "pho") and layout.files["validation"] == [(f"val/{twin}/1.jpg", 0)]
    assert layout.merged == [["café", twin]]
    beside = read_layout([*(f"train/{name}/1.jpg" for name in ("café", twin)), "val/pho/1.jpg"], "photos")
    assert [class_id for _, class_id in beside.files["training"]] == [0, 0] and len(beside.classes) == 2


def test_food11s_folders_are_one_class_in_two_spellings():
    layout = read_layout(["training/Rice/1.jpg", "training/rice/2.jpg", "validation/Noodles-Pasta/1.jpg"], "food")
    assert layout.is_food11 and layout.files["training"] == [("training/Rice/1.jpg", 7), ("training/rice/2.jpg", 7)]
    assert layout.merged == [["Rice", "rice"]]


def test_names_that_are_different_classes_stay_so():
    names = ["A", "A-", "1-2", "12", "soup", "soup鱼", "面条", "麺"]
    assert len(read_layout([f"train/{name}/1.jpg" for name in names], "photos").classes) == len(names)


@pytest.mark.parametrize(
    "folder, name",
    [("a\nb", "a\\nb"), ("\u202eabc", "\\u202eabc"), ("th\udce9", "th\\udce9"), ("\x1b[31m", "\\x1b[31m"), (" x ", "x")]
    + [
        ("=1+1", "=1+1"),
        ("<script>", "<script>"),
        (" ", "' '"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("x" * 255, "x" * 255),
    ],
)
def test_the_name_of_a_class_can_be_shown_and_written_anywhere(folder, name):
    (class_name,) = read_layout([f"train/{folder}/1.jpg"], "photos").classes
    assert class_name == name and class_name.encode("utf-8") and len(class_name.splitlines()) == 1


JUNK = [
    ".DS_Store",
    "pho/Thumbs.db",
    "desktop.ini",
    ".ipynb_checkpoints/1.jpg",
    "lost+found/1.jpg",
    ".Trash-1000/1.jpg",
]
JUNK += [
    "$RECYCLE.BIN/1.jpg",
    "System Volume Information/1.jpg",
    "@eaDir/1.jpg",
    "pho/._1.jpg",
    "pho/Icon\r",
    "ehthumbs.db",
]


@pytest.mark.parametrize("packed", ["folder", "zip"])
def test_hidden_and_system_files_are_left_out_wherever_they_are_and_named(tmp_path, packed):
    files = two_dishes() | {f"{top}{junk}": b"x" for top in ("", "training/") for junk in JUNK} | {"__MACOSX/._t": b"x"}
    path = write_tree(tmp_path / ".s", files) if packed == "folder" else write_zip(tmp_path / "s.zip", files)
    source = open_source(path)
    assert list(source.files) == sorted(two_dishes()) and not len(source.others)
    whole = [junk.rpartition("/")[0] + "/" if junk.endswith("/1.jpg") else junk for junk in JUNK]
    assert sorted(source.hidden) == sorted(
        [f"{top}{junk}" for top in ("", "training/") for junk in whole] + ["__MACOSX/"]
    )
    clean = (
        write_tree(tmp_path / "c", two_dishes()) if packed == "folder" else write_zip(tmp_path / "c.zip", two_dishes())
    )
    for file in clean.rglob("*.jpg"):
        os.utime(file, ns=(1, (path / file.relative_to(clean)).stat().st_mtime_ns))
    assert source.digest == open_source(clean).digest


def test_files_that_are_no_photos_are_left_out_by_their_ending_and_others_are_not(tmp_path):
    others = [
        "classes.txt",
        "training/labels.CSV",
        "training/pho/notes.md",
        "training/pho/clip.MOV",
        "README",
        "meta/LICENSE",
    ]
    photos = [
        "training/pho/1",
        "training/pho/2.jpg_large",
        "training/pho/3.HEIC",
        "training/pho/4.jfif",
        "training/pho/r.dng",
    ]
    source = open_source(write_tree(tmp_path, dict.fromkeys([*others, *photos], b"x")))
    assert (sorted(source.others), list(source.files)) == (sorted(others), sorted(photos))


def test_a_folder_that_cannot_be_listed_is_an_error_by_name(tmp_path, monkeypatch):
    """As root every folder can be; so that the system's refusal is played."""
    write_tree(tmp_path, two_dishes() | {"lost+found/x": b"", "training/.cache/x": b""})
    listing, refused = os.scandir, ["lost+found", ".cache"]

    def scandir(folder):
        if folder.rpartition("/")[2] in refused:
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return listing(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(open_source(tmp_path).hidden) == ["lost+found/", "training/.cache/"]
    refused.append("pho")
    with pytest.raises(DataError, match=r"evaluation/pho: this folder cannot be listed \(Permission denied\); make it"):
        open_source(tmp_path)


@pytest.mark.parametrize("target", ["..", "../..", ".", "/", "../../../outside/back"])
def test_a_link_that_leads_back_up_is_refused_by_name(tmp_path, target):
    source = write_tree(tmp_path / "s", two_dishes())
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/back").symlink_to(source / "training")
    (source / "training/pho/loop").symlink_to(target)
    with pytest.raises(DataError, match=r"/training/pho/loop: a link that leads back up to /.*; remove it"):
        open_source(source)


def test_links_round_two_corners_are_refused_and_links_elsewhere_followed(tmp_path):
    source = write_tree(tmp_path / "s", two_dishes())
    write_tree(tmp_path / "else", {"1.jpg": b"x"})
    for split in ("training", "validation"):
        (source / split / "linked").symlink_to(tmp_path / "else")
    assert [name for name in open_source(source).files if "linked" in name] == [
        "training/linked/1.jpg",
        "validation/linked/1.jpg",
    ]
    (source / "training/pho/v").symlink_to("../../validation")
    (source / "validation/pho/t").symlink_to("../../training")
    with pytest.raises(DataError, match="a link that leads back up"):
        open_source(source)


def test_a_pipe_among_the_photos_is_not_waited_for(tmp_path):
    os.mkfifo(write_tree(tmp_path, two_dishes()) / "training/pho/pipe.jpg")
    assert list(open_source(tmp_path).files) == sorted(two_dishes())


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
        (["1.jpg", "2.jpg"], ["neither class folders nor Food-11's class number", "'1.jpg' and 1 more"]),
        (["train/a/1.jpg", "training/a/1.jpg"], ["two folders for the training split", "'train'", "'training'"]),
        (["x/val/a/1.jpg", "y/val/a/1.jpg"], ["two folders for the validation split", "'x/val'", "'y/val'"]),
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
    kept = [name for name in sorted(stamps) if name != ".hidden/5.jpg"]
    assert list(source.files) == kept and list(source.hidden) == [".hidden/"]
    assert source.digest == hashlib.sha256("".join(f"{n}\0{stamps[n]}\n" for n in kept).encode()).hexdigest()


def divided(paths, percentages="70,15,15", seed=0) -> dict[str, set[str]]:
    """{split: paths}"""
    parts = divide(read_layout(paths, "photos"), percentages, seed)
    assert sum(map(len, parts.values())) == len({path for part in parts.values() for path, _ in part})
    return {split: {path for path, _ in part} for split, part in parts.items()}


def counts(parts: dict[str, set[str]], dish: str) -> list[int]:
    return [sum(f"{dish}/" in path for path in part) for part in parts.values()]


def test_each_class_is_divided_in_the_same_proportions_and_has_one_photo_at_least_in_each_split():
    paths = [*class_folders("pho", each=100), *class_folders("rice", each=20), *class_folders("面条", each=3)]
    parts = divided(paths)
    assert [counts(parts, dish) for dish in ("pho", "rice", "面条")] == [[70, 15, 15], [14, 3, 3], [1, 1, 1]]
    assert counts(divided(paths, "2,49,49"), "面条") == [1, 1, 1]
    assert counts(divided(class_folders("a", "b", each=10), "1,49.5,49.5"), "a") == [1, 4, 5]


def test_the_division_is_of_the_seed_and_the_names_alone():
    paths = list(class_folders("café", "pho", each=30))
    parts = divided(paths)
    assert divided(random.Random(0).sample(paths, len(paths))) == parts
    assert divided(paths, seed=1) != parts and divided(paths, seed=1) == divided(paths, seed=1)
    moved = {f"top/{unicodedata.normalize('NFD', path)}" for path in parts["training"]}
    assert divided([f"top/{unicodedata.normalize('NFD', path)}" for path in paths])["training"] == moved


def test_the_division_is_what_it_has_always_been():
    """Two people's accuracies compare only if both trained on the same photos."""
    assert sorted(divided(class_folders("pho", "rice", each=10))["evaluation"]) == [
        "pho/5.jpg",
        "pho/6.jpg",
        "rice/5.jpg",
        "rice/6.jpg",
    ]


def test_one_more_photo_moves_at_most_one_other_into_each_split():
    paths = list(class_folders("pho", "rice", each=40))
    before, after = divided(paths), divided([*paths, "pho/new.jpg"])
    assert all(len((after[split] - before[split]) - {"pho/new.jpg"}) <= 1 for split in before)
    assert all({path for path in after[split] if "rice/" in path} <= before[split] for split in before)


def test_classes_too_small_to_be_divided_are_named():
    with pytest.raises(DataError, match="found only 2 of pho, 1 of rice; add photos or remove these folders"):
        divided([*class_folders("pho", each=2), *class_folders("rice", each=1), *class_folders("soup", each=3)])
