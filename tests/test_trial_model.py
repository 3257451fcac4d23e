"""Weights: from the files that people have, in the shape they were published in; refused by what they are and hold."""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import os
import pickle
import re
import tarfile
import urllib.error
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_trial import run_trial_command
from safetensors.torch import save as to_safetensors
from torch import nn
from torchvision import models

from trial import TrialError
from trial.model import build_model


def published(arch: str, classes: int = 1000, dtype: torch.dtype = torch.float32) -> collections.OrderedDict:
    """resnet18-f37072fd.pth and resnet50-0676ba61.pth: Parameters, statistics before weight and bias, no counters."""
    torch.manual_seed(6)
    own = getattr(models, arch)(num_classes=classes).state_dict()
    names, order = list(own), ("running_mean", "running_var", "weight", "bias")
    state = collections.OrderedDict()
    for name in names:
        start = name.rpartition(".")[0]
        if start + ".running_var" not in own:
            state[name] = nn.Parameter(own[name].to(dtype))
        elif name.endswith(".weight"):
            values = [own[f"{start}.{part}"].to(dtype) for part in order]
            values = [*values[:2], *map(nn.Parameter, values[2:])]
            state.update({f"{start}.{part}": value for part, value in zip(order, values, strict=True)})
    return state


def write(content, path: Path, legacy: bool = False) -> str:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return str(path)


@pytest.mark.parametrize(
    ("arch", "entries", "legacy", "dtype"),
    [
        ("resnet18", 102, True, torch.float32),
        ("resnet18", 102, False, torch.float32),
        ("resnet18", 102, True, torch.float16),
        ("resnet18", 102, False, torch.float16),
        ("resnet50", 267, True, torch.float32),
        ("resnet50", 267, False, torch.float16),
    ],
)
def test_the_published_files_load_as_torch_loads_them(arch, entries, legacy, dtype, tmp_path, capsys):
    file = published(arch, dtype=dtype)
    assert len(file) == entries and list(file)[1:5] == [
        f"bn1.{name}" for name in ("running_mean", "running_var", "weight", "bias")
    ]
    loaded = build_model(arch, write(file, tmp_path / "w.pth", legacy), 11, 0).state_dict()
    assert all(torch.equal(loaded[name], value.float()) for name, value in file.items() if not name.startswith("fc."))
    assert {value.item() for name, value in loaded.items() if name.endswith("num_batches_tracked")} == {0}
    assert loaded["fc.weight"].shape[0] == 11 and capsys.readouterr().out == ""


def test_the_second_generation_of_weights_has_counters_and_loads(tmp_path):
    file = models.resnet50(num_classes=1000).state_dict()  # resnet50-11ad3fa6.pth
    file["bn1.num_batches_tracked"].fill_(7)
    assert len(file) == 320
    model = build_model("resnet50", write(file, tmp_path / "w.pth"), 11, 0)
    assert model.bn1.num_batches_tracked == 7


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(5)
    return models.resnet18(num_classes=7).state_dict()


def save(state, path: Path) -> str:
    torch.save(state, path)
    return str(path)


def test_a_float16_file_with_another_head_loads_and_the_head_is_new(state, tmp_path):
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    model = build_model("resnet18", save(half, tmp_path / "half.pth"), classes=11, seed=0)
    loaded = model.state_dict()
    assert loaded["fc.weight"].shape == (11, 512) and loaded["conv1.weight"].dtype == torch.float32
    torch.testing.assert_close(loaded["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"], atol=1e-3, rtol=1e-3)


def test_a_head_of_the_same_shape_is_new_too(state, tmp_path):
    model = build_model("resnet18", save(state, tmp_path / "same.pth"), classes=7, seed=0)
    assert not torch.equal(model.fc.weight, state["fc.weight"])


def test_the_seed_decides_the_head_and_touches_no_global_generator(state, tmp_path):
    file = save(state, tmp_path / "w.pth")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = (build_model("resnet18", file, 7, seed).fc.weight for seed in (0, 0, 3))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), "missing layer1.0.conv1.weight"),
        (lambda s: s.update({"module.conv1.weight": torch.zeros(1)}), "unknown module.conv1.weight"),
        (
            lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            "conv1.weight is (64, 1, 7, 7), expected (64, 3, 7, 7)",
        ),
    ],
)
def test_what_does_not_fit_is_named(state, tmp_path, change, message):
    changed = dict(state)
    change(changed)
    with pytest.raises(TrialError) as error:
        build_model("resnet18", save(changed, tmp_path / "w.pth"), 7, 0)
    assert message in str(error.value) and "\n" not in str(error.value)


def prefixed(prefix: str, state) -> dict:
    return {prefix + name: value for name, value in state.items()}


FORMS = {
    "DataParallel": (lambda s: prefixed("module.", s), "the prefix module. taken off the names"),
    "torch.compile": (lambda s: prefixed("_orig_mod.", s), ""),
    "compiled in DataParallel": (lambda s: prefixed("module._orig_mod.model.", s), "the prefix module.model. taken off"),
    "compiled blocks": (lambda s: {name.replace("layer2.", "layer2._orig_mod."): value for name, value in s.items()}, ""),
    "a backbone": (lambda s: prefixed("backbone.", s), "the prefix backbone. taken off"),
    "an encoder without head": (lambda s: {f"encoder.{n}": v for n, v in s.items() if n[:3] != "fc."}, "the prefix encoder. taken"),
    "torchvision's reference": (lambda s: {"model": s, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=0.1)}, "taken from its model"),
    "PyTorch's ImageNet example": (lambda s: {"epoch": 9, "arch": "resnet18", "state_dict": prefixed("module.", s), "best_acc1": torch.tensor(69.7)}, "taken from its state_dict; the prefix module. taken off"),
    "model_state_dict": (lambda s: {"epoch": 3, "model_state_dict": s, "loss": 0.5}, "taken from its model_state_dict"),
    "timm": (lambda s: {"arch": "resnet18", "state_dict": s, "state_dict_ema": {n: v * 0 for n, v in s.items()}}, "taken from its state_dict"),
    "an average": (lambda s: {"n_averaged": torch.tensor(3), **prefixed("module.", s)}, "n_averaged left out"),
    "MoCo": (lambda s: {"state_dict": {**prefixed("module.encoder_q.", s), **prefixed("module.encoder_k.", s), "module.queue": torch.ones(2)}}, "the prefix module.encoder_q. taken off"),
    "Lightning": (lambda s: {"epoch": 1, "global_step": 9, "pytorch-lightning_version": "2.5.0", "state_dict": {**prefixed("model.", s), "criterion.weight": torch.ones(7)}, "loops": {}, "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "best_model_path": "a.ckpt"}}, "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []}], "hyper_parameters": {"lr": 0.1}}, "taken from its state_dict; the prefix model. taken off the names; criterion.weight left out"),
    "NumPy's scalars": (lambda s: {"state_dict": s, "best_acc": np.float64(0.5), "rng": np.arange(3)}, "taken from its state_dict"),
    "halved counters": (lambda s: {n: (torch.full_like(v, 99999) if n.endswith("tracked") else v).half() for n, v in s.items()}, ""),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_wrapped_and_prefixed_weights_are_found_and_the_log_says_how(form, state, tmp_path, capsys):
    change, note = FORMS[form]
    loaded = build_model("resnet18", write(change(state), tmp_path / "w.pth"), 7, 0).state_dict()
    torch.testing.assert_close(loaded["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"], atol=1e-3, rtol=1e-3)
    assert note in (out := capsys.readouterr().out) and out.startswith("w.pth: " if note else "")


def test_numpys_scalars_of_before_numpy_2_are_read_too(state, tmp_path):
    write({"state_dict": state, "best_acc": np.float64(0.5)}, tmp_path / "w.pth", legacy=True)
    old = (tmp_path / "w.pth").read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "old.pth").write_bytes(old)
    assert torch.equal(build_model("resnet18", str(tmp_path / "old.pth"), 7, 0).conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("name", ["timm.safetensors", "renamed.pth"])
def test_safetensors_are_known_by_content(name, state, tmp_path):
    (tmp_path / name).write_bytes(to_safetensors({key: value.contiguous() for key, value in state.items()}))
    assert torch.equal(build_model("resnet18", str(tmp_path / name), 7, 0).bn1.weight, state["bn1.weight"])


@pytest.mark.parametrize(
    ("state_of", "arch", "message"),
    [
        (lambda: published("resnet50", 7), "resnet18", r"unknown .*Check arch: these are a resnet50's weights \(--arch resnet50; in an experiment --set arch=resnet50\)"),
        (lambda: published("resnet18", 7), "resnet50", r"missing layer1.0.conv3.weight.* more. Check arch: these are a resnet18's weights"),
        (lambda: models.resnet34().state_dict(), "resnet18", r"Check arch: these are a resnet34's weights \(--arch resnet34"),
        (lambda: models.resnext50_32x4d().state_dict(), "resnet50", "Check arch: these are a resnext50_32x4d's weights"),
        (lambda: models.squeezenet1_1().state_dict(), "resnet18", "missing conv1.weight.*Its first names: features.0.weight, features.0.bias"),
        (lambda: models.mobilenet_v3_small().state_dict(), "resnet18", "Check arch: these are a mobilenet_v3_small's weights"),
        (lambda: {"model.class_token": torch.ones(2), "model.encoder.pos_embedding": torch.ones(2)}, "resnet18", "a vision transformer, it seems.* first names: class_token, encoder.pos_embedding"),
        (lambda: {**prefixed("a.", published("resnet18", 7)), **prefixed("b.", published("resnet18", 7))}, "resnet18", r"it holds several networks \(a., b.\)"),
        (lambda: {"student": published("resnet18", 7), "other": published("resnet18", 7)}, "resnet18", r"it holds several networks \(student, other\)"),
        (lambda: {**published("resnet18", 7), "conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int8)}, "resnet18", "conv1.weight is torch.int8, expected torch.float32.* It has a resnet18's blocks"),
        (lambda: {**published("resnet18", 7), "bn1.weight": torch.full((64,), float("nan"))}, "resnet18", r"it holds weights that are not finite \(bn1.weight\)"),
        (lambda: {**published("resnet18", 7), "bn1.running_var": torch.full((64,), float("inf"))}, "resnet18", r"not finite \(bn1.running_var\)"),
        (lambda: {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []}, "resnet18", "found an optimizer's state alone"),
        (lambda: {"epoch": 3, "optimizer": {}}, "resnet18", "found 'epoch', 'optimizer' without tensors"),
    ],
)  # fmt: skip
def test_other_networks_are_told_by_what_is_inside(state_of, arch, message, tmp_path):
    with pytest.raises(TrialError) as error:
        build_model(arch, write(state_of(), tmp_path / "w.pth"), 7, 0)
    assert re.search(message, str(error.value)) and "\n" not in str(error.value)


def archive(kind: str) -> bytes:
    """A tar, tar.gz or zip with a weights file in it."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("best/w.pth", b"x")
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as file:
            file.addfile(tarfile.TarInfo("best/w.pth"))
    return buffer.getvalue()


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated; the files are there all the same
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), buffer)
    return buffer.getvalue()


OLD = {"_use_new_zipfile_serialization": False}
TENSORS = {"conv1.weight": torch.ones(64, 3, 7, 7)}
KINDS = {
    "a web page ('Drive - Virus scan')": lambda: b"\n<!DOCTYPE html>\n<html><head><title>Drive - \x1bVirus\nscan</title>" + b"x" * 9000,
    "a web page saved in place": lambda: "<html lang='fr'><body>accès refusé".encode("latin-1"),
    "a web page ('Sign in') saved in place of the file: download it again, by the address of the file itself (it is compressed with gzip)": lambda: gzip.compress(b"<html><title>Sign in</title>"),
    "a JSON text in place of weights, it begins with {\"error\": \"Not Found\"}": lambda: b'{"error": "Not Found"}',
    "an XML text in place of weights": lambda: b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
    "a Git LFS pointer in place of the file": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46830571\n",
    "a text, no weights; it begins with 404": lambda: b"404: Not Found",
    "an empty file": lambda: b"",
    "cut short or damaged (5,000 bytes)": lambda: bytes(5000),
    "cut short or damaged (30,000 bytes)": lambda: saved(TENSORS)[:30000],
    "cut short or damaged (20,000 bytes)": lambda: saved(TENSORS, **OLD)[:20000],
    "cut short or damaged (150 bytes)": lambda: saved(TENSORS, **OLD)[:150],
    "cut short or damaged (10,000 bytes)": lambda: to_safetensors(TENSORS)[:10000],
    "a TorchScript archive": torchscript,
    "a whole model was pickled (torch.nn.modules.linear.Linear)": lambda: saved(nn.Linear(2, 2)),
    "a whole model was pickled (torch.nn.": lambda: saved(nn.Sequential(nn.Linear(2, 2)), **OLD),
    "it holds a pickled torch.optim.lr_scheduler.StepLR beside": lambda: saved({"state_dict": TENSORS, "s": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), 1)}),
    "it holds pickled code (print)": lambda: saved({"state_dict": TENSORS, "x": Payload()}),
    "pickled with a newer protocol": lambda: saved(TENSORS, pickle_protocol=4),
    "pickled by Python itself": lambda: pickle.dumps({"conv1.weight": np.ones(3)}),
    "an ONNX model": lambda: b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + bytes(range(256)) * 4,
    "an HDF5 file": lambda: b"\x89HDF\r\n\x1a\n" + bytes(90),
    "a tar archive: unpack it (tar xf) and name best/w.pth": lambda: archive("w"),
    "compressed with gzip: unpack it (tar xzf)": lambda: archive("w:gz"),
    "a zip archive: unpack it (unzip) and name best/w.pth": lambda: archive("zip"),
}  # fmt: skip


@pytest.mark.parametrize("words", KINDS)
def test_what_is_no_file_of_weights_is_named_by_its_kind_in_our_words(words, tmp_path, capsys):
    (tmp_path / "w.pth").write_bytes(KINDS[words]())
    with pytest.raises(TrialError) as error:
        build_model("resnet18", str(tmp_path / "w.pth"), 7, 0)
    text = str(error.value)
    assert words in text and text.startswith(
        f"weights = '{tmp_path / 'w.pth'}': not a state-dict file that loads safely: "
    )
    assert text.isprintable() and "weights_only" not in text and "add_safe_globals" not in text
    assert "executed" not in capsys.readouterr().out


def test_a_folder_and_a_file_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    (tmp_path / "a.pth").touch()
    with pytest.raises(TrialError, match="a folder; name the file in it, such as a.pth"):
        build_model("resnet18", str(tmp_path), 7, 0)

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(TrialError, match=r"a.pth': cannot be read \(Permission denied\)"):
        build_model("resnet18", str(tmp_path / "a.pth"), 7, 0)


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", [Payload(), {"model": 3}, [1, 2]])
def test_a_file_that_is_no_state_dict_is_refused_and_never_executed(content, tmp_path, capsys):
    with pytest.raises(TrialError):
        build_model("resnet18", save(content, tmp_path / "w.pth"), 7, 0)
    assert "executed" not in capsys.readouterr().out


def test_a_missing_file_names_the_choices():
    with pytest.raises(TrialError, match="no such file; expected imagenet, imagenet_v2, none or a state-dict file"):
        build_model("resnet18", "nowhere.pth", 7, 0)


def test_imagenet_weights_come_from_torchvisions_cache(state, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    save(state, tmp_path / "hub/checkpoints/resnet18-f37072fd.pth")
    assert torch.equal(build_model("resnet18", "imagenet", 7, 0).conv1.weight, state["conv1.weight"])


def test_imagenet_weights_that_cannot_be_had_say_where_to_put_them(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(TrialError) as error:
        build_model("resnet18", "imagenet", 7, 0)
    for part in ("resnet18-f37072fd.pth", str(tmp_path / "hub/checkpoints"), "weights=none", "weights=FILE"):
        assert part in str(error.value)


def test_a_web_page_in_torchvisions_cache_is_named_with_its_path_and_how_to_remove_it(tmp_path, tiny_cache):
    """As `check`, a trial and --evaluate meet it."""
    file = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.write_text("<!DOCTYPE html><title>Blocked</title>")
    environment = {**os.environ, "TORCH_HOME": str(tmp_path)}
    expected = f"weights = 'imagenet': {file}: not a state-dict file that loads safely: a web page ('Blocked')"
    words = ["--cache", str(tiny_cache), "--image-px", "32"]
    (problem,) = json.loads(run_trial_command(*words, "--describe", env=environment).stdout)["problems"]
    assert problem.startswith(expected) and problem.endswith(f"Remove it, and it is downloaded anew: rm {file}")
    done = run_trial_command(*words[:2], "--evaluate", str(file))
    assert done.returncode == 1 and "a web page ('Blocked')" in done.stderr and done.stderr.count("\n") == 1
