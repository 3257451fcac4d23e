"""Exported networks: run by the other library alone, equal to torch on real images, with names and a model card."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from data.cache import open_cache
from trial import TrialError, export
from trial.__main__ import main
from trial.batches import evaluation_batch
from trial.export import Form, export_file
from trial.files import write_weights
from trial.hyperparameters import Hyperparameters
from trial.model import build_model, read_trained

H = Hyperparameters(arch="mobilenet_v3_small", weights="none", image_px=32)
SCORE = {"top1": 0.5, "top3": 0.8, "macro": 0.5, "n": 22}


@pytest.fixture(scope="module")
def trained(tiny_cache, tmp_path_factory) -> Path:
    """A best.pt and what the card reads of its result.json; the network itself need not have learned anything."""
    folder, classes = tmp_path_factory.mktemp("trained"), open_cache(tiny_cache, 32).classes
    write_weights(folder / "best.pt", build_model(H.arch, "none", 11, 0, 32).state_dict(), classes, H)
    per_class = [{"id": i, "class": name, "correct": 1, "total": 2} for i, name in enumerate(classes)]
    result = {
        "hyperparameters": vars(H),
        "training": {"n": 66},
        "validation": SCORE,
        "evaluation": {**SCORE, "per_class": per_class},
        "calibration": {"temperature": 2.0, "n": 22, "ece_before": 0.3, "ece_after": 0.1, "split": "validation"},
        "generated": {"seed": 0},
        "best_epoch": 2,
        "epochs_run": 3,
        "source_digest": "abc",
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder / "best.pt"


@pytest.fixture(scope="module")
def images(tiny_cache) -> torch.Tensor:
    """(5, 3, 32, 32), normalised."""
    split = open_cache(tiny_cache, 32).split("evaluation", 37)
    return evaluation_batch(split.images, torch.from_numpy(split.labels), slice(0, 5), 32)[0]


def pixels(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (export.MEAN, export.STD))
    return (images * std + mean) * 255


def logits_of(trained: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return read_trained(trained).build()(images)


def test_onnx_needs_onnxruntime_alone(trained, images, tiny_cache, tmp_path, capsys):
    """Normalisation and calibrated softmax inside; other batches than the one that it was traced with."""
    runtime = pytest.importorskip("onnxruntime")
    words = [
        "export",
        str(trained),
        "--format",
        "onnx",
        "--normalise",
        "--softmax",
        "--output",
        str(tmp_path / "m.onnx"),
    ]
    assert main([*words, "--cache", str(tiny_cache)]) == 0
    assert "differs from torch by at most" in (out := capsys.readouterr().out) and "8 validation images" in out
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    expected = (logits_of(trained, images) / 2.0).softmax(1)
    for n in (1, 5):
        scores = torch.from_numpy(session.run(None, {"images": pixels(images)[:n].numpy()})[0])
        assert scores.shape == (n, 11) and (scores - expected[:n]).abs().max() < 1e-4
    names = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    assert names == list(read_trained(trained).classes)


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
def test_torchscript_takes_any_batch_and_has_the_names(trained, images, tmp_path, capsys):
    export_file(trained, "torchscript", Form(), tmp_path / "m.pt", tmp_path / "no cache")
    assert "8 random images" in capsys.readouterr().out
    extra = {"metadata.json": ""}
    loaded = torch.jit.load(str(tmp_path / "m.pt"), _extra_files=extra)
    assert torch.allclose(loaded(images), logits_of(trained, images), atol=1e-5)
    assert len(json.loads(json.loads(extra["metadata.json"])["classes"])) == 11


def test_safetensors_hold_torchvisions_names_and_the_classes(trained, tmp_path):
    export_file(trained, "safetensors", Form(), tmp_path / "m.safetensors", tmp_path)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert set(file.keys()) == set(read_trained(trained).state)
        assert json.loads(file.metadata()["classes"])[0] == "Bread" and file.metadata()["arch"] == H.arch
    assert build_model(H.arch, str(tmp_path / "m.safetensors"), 3, 0, 32).features[0][0].weight.shape[1] == 3


def test_the_card_has_counts_intervals_and_what_is_not_known(trained, tmp_path):
    export_file(trained, "safetensors", Form(), tmp_path / "m.safetensors", tmp_path)
    card = (tmp_path / "m.safetensors.md").read_text()
    assert "generated drawings, no photos (66 training, 22 validation, 22 evaluation)" in card
    assert "epoch 2 of 3" in card and "50.0 % (30.7 to 69.3 %, n = 22)" in card and "biased upwards" in card
    assert "| Bread | 50.0 % (9.5 to 90.5 %, n = 2) |" in card and "| lr | 0.001 |" in card
    assert "Temperature 2.000" in card and "Unknown: neither the weights nor the photos name one." in card


def test_a_card_without_result_says_so(trained, tmp_path):
    (tmp_path / "best.pt").write_bytes(trained.read_bytes())
    export_file(tmp_path / "best.pt", "safetensors", Form(), None, tmp_path)
    assert "data and accuracy are unknown" in (tmp_path / "model.safetensors.md").read_text()


def test_a_file_that_differs_is_removed(trained, tmp_path, monkeypatch):
    def write(model, images, out, metadata):
        out.write_text("wrong")
        return lambda batch: model(batch) + 2e-4

    monkeypatch.setitem(export._WRITERS, "onnx", write)
    with pytest.raises(TrialError, match="differs from torch by 0.0002 on 8 random images.*more than 0.0001; removed"):
        export_file(trained, "onnx", Form(), tmp_path / "m.onnx", tmp_path)
    assert not (tmp_path / "m.onnx").exists() and not (tmp_path / "m.onnx.md").exists()


@pytest.mark.parametrize("module", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_library_is_one_line_with_the_command(module, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["export", str(trained), "--format", "onnx", "--output", str(tmp_path / "m.onnx")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"needs {module}" in error and "pip install -r requirements-tools.txt" in error


def test_bad_input_is_one_line(trained, tmp_path, capsys):
    (tmp_path / "text.pt").write_text("no model")
    assert main(["export", str(tmp_path / "text.pt"), "--format", "safetensors"]) == 1
    assert "not a state-dict file" in capsys.readouterr().err
    assert main(["export", str(trained), "--format", "safetensors", "--softmax"]) == 1
    assert "remove --normalise and --softmax" in capsys.readouterr().err
    assert main(["export", str(trained), "--format", "safetensors", "--output", str(tmp_path / "no" / "m")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
