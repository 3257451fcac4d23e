"""Weights: from a file or torchvision's cache, float16 too, and refused by key name where they do not fit."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch
from torchvision import models

from trial.errors import TrialError
from trial.model import build_model


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


def test_a_resnet18_file_does_not_fit_a_resnet50(state, tmp_path):
    with pytest.raises(TrialError, match="missing layer1.0.conv3.weight.* more. Check arch"):
        build_model("resnet50", save(state, tmp_path / "w.pth"), 7, 0)


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", [Payload(), {"model": 3}, [1, 2]])
def test_a_file_that_is_no_state_dict_is_refused_and_never_executed(content, tmp_path, capsys):
    with pytest.raises(TrialError):
        build_model("resnet18", save(content, tmp_path / "w.pth"), 7, 0)
    assert "executed" not in capsys.readouterr().out


def test_a_missing_file_names_the_choices():
    with pytest.raises(TrialError, match="no such file; expected imagenet, none or a state-dict file"):
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
