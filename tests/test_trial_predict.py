"""Photos that were never prepared: the pixels that the trial saw, probabilities that are calibrated, broken files reported."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_module

from data.cache import open_cache
from trial import TrialError
from trial.__main__ import main, parse
from trial.batches import store_px
from trial.evaluate import calibrate, calibration_error, scored_batches
from trial.hyperparameters import Hyperparameters
from trial.predict import open_predictor
from trial.run import Settings, run_trial


@pytest.fixture(scope="module")
def trained(tiny_cache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    h = Hyperparameters(epochs=2, image_px=32, batch_size=16, weights="none", lr=0.01)
    run_trial(h, open_cache(tiny_cache, 32), Settings(folder, "cpu", "fp32"), lambda metrics: None)
    return folder


@pytest.fixture
def photos(tiny_cache) -> Path:
    return tiny_cache.parent / "photos" / "evaluation"


def predict(trained: Path, capsys, *words: str) -> tuple[int, str, str]:
    code = main(["predict", str(trained / "best.pt"), *map(str, words), "--device", "cpu", "--precision", "fp32"])
    output = capsys.readouterr()
    return code, output.out, output.err


# -- calibration -----------------------------------------------------------------------------------------------------------


def test_the_temperature_of_logits_that_are_too_sharp_is_found():
    """Labels sampled from softmax(z); the logits are then 2.5 times z."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    found = calibrate(logits * 2.5, labels)
    assert found.temperature == pytest.approx(2.5, rel=0.03) and found.n == 20_000
    assert found.ece_before > 0.08 and found.ece_after < 0.01


def test_the_temperature_has_the_least_cross_entropy():
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(60, 4, generator=generator), torch.randint(4, (60,), generator=generator)
    logits[range(60), labels] += 1.5
    best = calibrate(logits, labels).temperature
    losses = [torch.nn.functional.cross_entropy(logits / t, labels) for t in (best, best * 1.05, best / 1.05)]
    assert min(losses) == losses[0]


def test_a_network_that_is_always_right_has_the_sharpest_temperature_and_one_that_is_never_the_softest():
    logits = torch.eye(3).repeat(5, 1)
    assert calibrate(logits, logits.argmax(1)).temperature == pytest.approx(1 / 20, rel=1e-3)
    assert calibrate(logits, (logits.argmax(1) + 1) % 3).temperature == pytest.approx(20, rel=1e-3)


def test_the_expected_calibration_error_by_hand():
    """Two images at 0.9 of which one is right, and two at 0.6, both right: (2 * 0.4 + 2 * 0.4) / 4."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]], dtype=torch.double)
    assert calibration_error(probabilities, torch.tensor([0, 1, 0, 1])) == pytest.approx(0.4)


def test_the_result_has_the_calibration_of_the_weights_kept(trained, tiny_cache):
    written = json.loads((trained / "result.json").read_text())["calibration"]
    predictor, split = (
        open_predictor(trained / "best.pt", "cpu", "fp32"),
        open_cache(tiny_cache, 32).split("validation", 37),
    )
    batches = [*scored_batches(predictor.model, split, 32, predictor.compute)]
    logits, labels = (torch.cat(parts) for parts in zip(*batches))
    expected = calibrate(logits, labels)
    assert written == pytest.approx({**vars(expected), "split": written["split"]}) and written["n"] == 22
    assert predictor.temperature == written["temperature"] and written["split"] == "validation"


# -- predictions -----------------------------------------------------------------------------------------------------------


def test_the_network_sees_what_it_saw_in_the_evaluation(trained, tiny_cache):
    split = open_cache(tiny_cache, 32).split("evaluation", store_px(32))
    predictor = open_predictor(trained / "best.pt", "cpu", "fp32")
    squares = [(str(i), np.array(image)) for i, image in enumerate(split.images)]
    predictions = predictor.predict(squares)
    right = sum(p.classes[0] == predictor.trained.classes[label] for p, label in zip(predictions, split.labels))
    final = json.loads((trained / "result.json").read_text())["evaluation"]
    assert right / len(squares) == final["top1"]
    assert all(
        sorted(p.probabilities)[::-1] == list(p.probabilities) and sum(p.probabilities) <= 1.0001 for p in predictions
    )


def test_a_folder_a_zip_a_photo_and_a_list_give_the_same(trained, photos, tmp_path, capsys, monkeypatch):
    files = sorted(file for file in photos.rglob("*") if file.is_file())[:5]
    folder = tmp_path / "new photos"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        for number, file in enumerate(files):
            (folder / f"{number}{file.suffix}").write_bytes(file.read_bytes())
            archive.write(file, f"{number}{file.suffix}")
    names = sorted(folder.iterdir())
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{name}\n" for name in names)))
    outputs = []
    for words in ([folder], [tmp_path / "new.zip"], names, ["-"]):
        code, out, _ = predict(trained, capsys, *words, "--format", "json")
        lines = [json.loads(line) for line in out.splitlines()]
        assert code == 0 and len(lines) == 5
        outputs.append({Path(line["photo"]).name: line["classes"] for line in lines})
    assert all(output == outputs[0] for output in outputs)
    assert all(len(classes) == 3 for classes in outputs[0].values())


def test_table_and_csv_have_the_same_numbers(trained, photos, capsys):
    name = next(str(file) for file in sorted(photos.rglob("*")) if file.is_file())
    row = next(csv.DictReader(io.StringIO(predict(trained, capsys, name, "--format", "csv")[1])))
    assert list(row) == ["photo", *(f"{what}_{i}" for i in (1, 2, 3) for what in ("class", "probability"))]
    table = predict(trained, capsys, name)[1]
    assert table.startswith(name) and f"{row['class_1']} {float(row['probability_1']):.1%}" in table


def test_broken_photos_are_named_and_skipped(trained, photos, tmp_path, capsys):
    good = next(file for file in sorted(photos.rglob("*")) if file.is_file())
    (tmp_path / "good.jpg").write_bytes(good.read_bytes())
    (tmp_path / "torn.jpg").write_bytes(good.read_bytes()[:40])
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "notes.txt").write_text("no photo, and none by its name")
    code, out, err = predict(trained, capsys, tmp_path)
    assert code == 1 and out.count("\n") == 1 and "good.jpg" in out
    assert "torn.jpg: " in err and "text.jpg: " in err and "2 file(s) skipped" in err and "notes.txt" not in err


def test_a_temperature_softens_and_its_absence_is_said(trained, photos, tmp_path, capsys):
    (tmp_path / "best.pt").write_bytes((trained / "best.pt").read_bytes())
    name = next(str(file) for file in sorted(photos.rglob("*")) if file.is_file())
    assert "no calibration" in predict(tmp_path, capsys, name)[2]
    result = json.loads((trained / "result.json").read_text())
    shares = []
    for temperature in (0.5, 5.0):
        result["calibration"]["temperature"] = temperature
        (tmp_path / "result.json").write_text(json.dumps(result))
        code, out, err = predict(tmp_path, capsys, name, "--format", "json")
        shares.append(json.loads(out)["classes"][0]["probability"])
        assert "no calibration" not in err
    assert shares[0] > shares[1] > 1 / 11


@pytest.mark.parametrize(
    ("weights", "paths", "message"),
    [
        ("nowhere.pt", ["x.jpg"], "nowhere.pt: no such file; expected the best.pt of a trial's folder"),
        ("text.pt", ["x.jpg"], "not a state-dict file that loads safely: a text"),
        ("bare.pt", ["x.jpg"], "not a trial's best.pt"),
        ("best.pt", ["x.jpg"], "x.jpg: no such file or folder"),
        ("best.pt", ["empty"], "empty: no photos there"),
    ],
)
def test_bad_input_is_one_line(weights, paths, message, trained, tmp_path, capsys):
    (tmp_path / "best.pt").write_bytes((trained / "best.pt").read_bytes())
    (tmp_path / "text.pt").write_text("no model")
    torch.save({"fc.weight": torch.ones(2, 3)}, tmp_path / "bare.pt")
    (tmp_path / "empty").mkdir()
    code = main(["predict", str(tmp_path / weights), *(str(tmp_path / path) for path in paths), "--device", "cpu"])
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert code == 1 and len(error) == 1 and message in error[0]


def test_settings_count_on_both_sides_and_hyperparameters_on_none(capsys):
    args, _ = parse(["--device", "cpu", "predict", "best.pt", "x.jpg", "--threads", "2"])
    assert (args.device, args.threads, args.precision) == ("cpu", 2, "auto")
    with pytest.raises(SystemExit):
        parse(["--lr", "0.1", "predict", "best.pt", "x.jpg"])
    assert "predict takes only what is behind it" in capsys.readouterr().err


def test_from_a_shell(trained, photos):
    done = run_module("trial", "predict", str(trained / "best.pt"), str(photos), "--format", "csv", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + 22


def test_a_number_of_outputs_that_does_not_fit_its_names(trained, tmp_path):
    saved = torch.load(trained / "best.pt", weights_only=True)
    torch.save({**saved, "classes": saved["classes"][:-1]}, tmp_path / "best.pt")
    with pytest.raises(TrialError, match="does not fit: fc.weight is"):
        open_predictor(tmp_path / "best.pt", "cpu", "fp32")
