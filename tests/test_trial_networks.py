"""Every classifier of torchvision as a trial trains it: two epochs of one of each family, the others by their construction."""

from __future__ import annotations

import json
from collections import OrderedDict
from contextlib import contextmanager

import pytest
import torch
from conftest import ROOT
from fixtures_trial import small_network
from torch import nn
from torchvision import models
from torchvision.models.regnet import BlockParams

from data.cache import open_cache
from trial import TrialError
from trial.evaluate import evaluate_file
from trial.hyperparameters import ARCHITECTURES, Hyperparameters
from trial.model import build_model, open_teacher
from trial.networks import arch_by_size, build_network, fit_published, head_of, smallest_px, weights_mib
from trial.run import Settings, describe, run_trial
from trial.weights import state_of


def train(cache_folder, folder, arch: str, image_px: int, **fields) -> tuple[Hyperparameters, list[dict]]:
    """Two epochs; the epochs that were reported."""
    h = Hyperparameters(
        **{"arch": arch, "image_px": image_px, "weights": "none", "epochs": 2, "batch_size": 66, **fields}
    )
    reports = []
    run_trial(h, open_cache(cache_folder, image_px), Settings(folder, "cpu", "fp32"), reports.append)
    return h, reports


def test_the_names_are_torchvisions():
    assert set(ARCHITECTURES) == set(models.list_models(module=models))


FAMILIES = {
    "mobilenet_v3_small": 16,
    "efficientnet_b0": 16,
    "convnext_tiny": 32,
    "regnet_y_400mf": 16,
    "shufflenet_v2_x0_5": 16,
    "vit_b_32": 32,
    "swin_t": 16,
}


LARGE = ("convnext_tiny", "vit_b_32", "swin_t")  # 28 to 88 million weights


@pytest.mark.parametrize(
    "arch", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in FAMILIES]
)
def test_one_of_each_family_trains_is_scored_again_and_teaches(arch, tiny_cache, tmp_path, capsys):
    """The smallest image that it takes. ResNet18's two epochs are everywhere else."""
    assert smallest_px(arch) == FAMILIES[arch]
    h, reports = train(tiny_cache, tmp_path, arch, FAMILIES[arch], lr=1e-4)
    assert len(reports) == 2
    result = json.loads((tmp_path / "result.json").read_text())
    again = evaluate_file(tmp_path / "best.pt", tiny_cache, "validation", "cpu", "fp32")
    assert again.top1 == result["validation"]["top1"] and again.n == 22
    student = Hyperparameters(teacher=str(tmp_path / "best.pt"), distill_weight=0.5, image_px=h.image_px)
    assert open_teacher(student, open_cache(tiny_cache, h.image_px)).facts["arch"] == arch


def test_what_a_network_drops_is_decided_by_the_seed(tiny_cache, tmp_path):
    """Whatever random numbers the process has drawn before."""
    first = train(tiny_cache, tmp_path / "a", "mobilenet_v3_small", 16)[1]
    torch.manual_seed(99)
    second = train(tiny_cache, tmp_path / "b", "mobilenet_v3_small", 16)[1]
    other = train(tiny_cache, tmp_path / "c", "mobilenet_v3_small", 16, seed=1)[1]
    assert first == second and first != other


@contextmanager
def on_meta(monkeypatch: pytest.MonkeyPatch):
    """Networks without memory; RegNet computes its widths with tensors, which need some."""
    widths = BlockParams.from_init_params.__func__

    def from_init_params(cls, *args, **options):
        with torch.device("cpu"):
            return widths(cls, *args, **options)

    with monkeypatch.context() as patch, torch.device("meta"):
        patch.setattr(BlockParams, "from_init_params", classmethod(from_init_params))
        yield


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_new_head_is_the_last_layer_and_the_network_is_known_by_its_size(arch, monkeypatch):
    with on_meta(monkeypatch):
        model = build_network(arch, 7, 224)
    head = model.get_submodule(head_of(model))
    assert head.weight.shape[0] == 7
    if arch != "inception_v3":  # torchvision counts its auxiliary head too
        assert arch_by_size(model.state_dict()) == arch
    mib = sum(value.numel() for value in model.state_dict().values()) * 4 / 2**20
    assert mib - 5 < weights_mib(arch) < mib * 1.15 + 20


@pytest.mark.parametrize(
    "arch", ["alexnet", "densenet121", "googlenet", "squeezenet1_1", "vgg11", "mnasnet0_5", "inception_v3"]
)
def test_the_other_families_take_their_smallest_image_and_refuse_a_smaller_one(arch, monkeypatch):
    px = smallest_px(arch)
    with on_meta(monkeypatch):
        model = build_network(arch, 7, px)
        assert model(torch.empty(2, 3, px, px)).shape == (2, 7)
    if px > 16:
        with pytest.raises(TrialError, match=f"image_px = {px - 1}: {arch} takes {px} and more"):
            build_network(arch, 7, px - 1)


@pytest.mark.parametrize(
    ("arch", "px", "message"),
    [
        ("vit_b_16", 100, "vit_b_16 takes multiples of 16; choose 96 or 112"),
        ("vit_b_32", 20, "vit_b_32 takes multiples of 32; choose 32"),
        ("maxvit_t", 96, "maxvit_t takes multiples of 224; choose 224"),
        ("inception_v3", 64, "inception_v3 takes 75 and more"),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused_before_the_experiment(arch, px, message, tiny_cache):
    problems = describe({"arch": arch, "image_px": px, "weights": "none"}, {}, tiny_cache, "cpu", "fp32")["problems"]
    assert any(message in problem for problem in problems)


def test_the_disk_of_the_largest_network_that_is_searched(tiny_cache):
    options = {"arch": ["mobilenet_v3_small", "resnet50"]}
    given = {"weights": "none", "image_px": 32}
    assert describe(given, options, tiny_cache, "cpu", "fp32")["weights_mib"] == weights_mib("resnet50") == 100
    assert describe(given, {}, tiny_cache, "cpu", "fp32")["weights_mib"] == weights_mib("resnet18") == 50


def test_the_search_space_of_backbones_names_networks():
    space = json.loads((ROOT / "search_spaces/backbones.json").read_text())
    assert set(space["arch"]["_value"]) <= set(ARCHITECTURES)


# -- published weights -----------------------------------------------------------------------------------------------------


def old_densenet(name: str) -> str:
    for layer in ("norm", "conv"):
        for number in "12":
            name = name.replace(f".{layer}{number}.", f".{layer}.{number}.") if "denselayer" in name else name
    return name


def old_vit(name: str) -> str:
    return name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")


@pytest.mark.parametrize(("name", "old"), [("densenet121", old_densenet), ("vit_b_32", old_vit)])
def test_torchvisions_older_names_are_todays(name, old, monkeypatch):
    """As in densenet121-a639ec97.pth and the files of the vision transformers."""
    with on_meta(monkeypatch):
        own = build_network(name, 1000, 224).state_dict()
    published = OrderedDict((old(key), value) for key, value in own.items() if "num_batches" not in key)
    assert sum(key not in own for key in published) > 40
    assert set(state_of(published, "w").values) == set(own)


@pytest.mark.parametrize("arch", ["shufflenet_v2_x0_5", "mnasnet0_5", "squeezenet1_1"])
def test_a_published_file_becomes_the_backbone(arch, tmp_path):
    torch.manual_seed(1)
    own = models.get_model(arch, num_classes=1000).state_dict()
    torch.save(OrderedDict((k, v) for k, v in own.items() if "num_batches" not in k), tmp_path / "w.pth")
    loaded = build_model(arch, str(tmp_path / "w.pth"), 5, 0)
    head = f"{head_of(loaded)}."
    values = loaded.state_dict()
    assert all(torch.equal(values[name], own[name]) for name in own if not name.startswith(head))
    assert values[f"{head}weight"].shape[0] == 5


def test_positions_of_a_vision_transformer_are_interpolated():
    """One for the class token, which stays, and one for each patch: 7 x 7 at 224 px, 3 x 3 at 96."""
    rows = torch.arange(7.0).repeat_interleave(7)
    state = {"encoder.pos_embedding": torch.cat((torch.tensor([99.0]), rows))[None, :, None].expand(1, 50, 4).clone()}
    fitted = fit_published(state, "vit_b_32", 96)["encoder.pos_embedding"]
    assert fitted.shape == (1, 10, 4) and fitted[0, 0, 0] == 99
    grid = fitted[0, 1:, 0].reshape(3, 3)
    assert torch.allclose(grid[:, 0], grid[:, 2]) and grid[0, 0] == 0 and abs(grid[1, 0] - 3) < 1e-5 and grid[2, 0] == 6


def test_auxiliary_heads_are_left_out():
    state = {"aux1.fc2.weight": torch.ones(1), "AuxLogits.fc.bias": torch.ones(1), "fc.bias": torch.ones(1)}
    assert set(fit_published(state, "googlenet", 224)) == {"fc.bias"}
    assert set(fit_published(state, "resnet18", 224)) == set(state)


@pytest.mark.parametrize(
    ("arch", "weights", "message"),
    [("resnet18", "imagenet_v2", "no second weights of resnet18; choose weights=imagenet"), ("vgg", "none", "vgg11")],
)
def test_weights_that_do_not_exist(arch, weights, message):
    with pytest.raises(TrialError, match=message):
        h = Hyperparameters(arch=arch, weights=weights)
        build_model(h.arch, h.weights, 3, 0)


def test_the_second_weights_are_downloaded_where_they_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    own = models.get_model("mobilenet_v2", num_classes=1000).state_dict()
    torch.save(own, tmp_path / "checkpoints" / "mobilenet_v2-7ebf99e0.pth")
    loaded = build_model("mobilenet_v2", "imagenet_v2", 3, 0).state_dict()
    assert torch.equal(loaded["features.0.0.weight"], own["features.0.0.weight"])


def test_other_networks_than_torchvisions_teach_not():
    assert arch_by_size(small_network().state_dict()) == "" == arch_by_size({"a": nn.Parameter(torch.ones(3))})
