"""python -m trial export: a trained network as ONNX, TorchScript or safetensors, compared with torch, and its model card."""

from __future__ import annotations

import copy
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from data import DataError, printable
from data.cache import open_cache
from trial import TrialError
from trial.batches import MEAN, STD, evaluation_batch, store_px
from trial.files import write_over
from trial.model import TrainedModel, read_trained
from trial.predict import result_beside, temperature_beside

ENDINGS = {"onnx": ".onnx", "torchscript": ".ts.pt", "safetensors": ".safetensors"}
_MOST_DIFFERENCE = 1e-4  # of a logit or a probability
_CHECKED = 8  # images
_TOOLS = "pip install -r requirements-tools.txt"


@dataclass(frozen=True)
class Form:
    """What the exported network does besides: take pixels of 0..255, give calibrated probabilities."""

    normalise: bool = False
    softmax: bool = False

    @property
    def takes(self) -> str:
        scale = "RGB of 0..255" if self.normalise else f"RGB of 0..1, less {MEAN}, divided by {STD}"
        return f"images (N, 3, S, S) float32, {scale}"

    @property
    def gives(self) -> str:
        return f"{'probabilities' if self.softmax else 'logits'} (N, classes) float32"


class _Exported(nn.Module):
    """The network as it is exported."""

    def __init__(self, model: nn.Module, form: Form, temperature: float) -> None:
        super().__init__()
        self.model, self.form, self.temperature = model, form, temperature
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        if self.form.normalise:
            images = (images - self.mean) / self.std
        logits = self.model(images)
        return (logits / self.temperature).softmax(1) if self.form.softmax else logits


def export_file(weights: Path, kind: str, form: Form, out: Path | None, cache_folder: Path) -> None:
    """Write the network of a best.pt as `kind` and its model card beside, and print both and the difference from torch.

    out: beside the weights where it is None. The file is compared on validation images of the cache, where the cache has the
    network's classes, else on random ones. Raises TrialError; the file is then removed where it differs.
    """
    trained = read_trained(weights)
    temperature = temperature_beside(weights, trained)
    if kind == "safetensors" and (form.normalise or form.softmax):
        raise TrialError("--format safetensors holds weights alone: remove --normalise and --softmax, or choose onnx")
    model = _Exported(trained.build(), form, temperature or 1.0).eval()
    out = out or weights.with_name(f"model{ENDINGS[kind]}")
    images, which = _images(trained, form, cache_folder)
    run = _WRITERS[kind](model, images, out, _metadata(trained, form, temperature))
    with torch.inference_mode():
        difference = float((run(images) - model(images)).abs().max())
    if not difference <= _MOST_DIFFERENCE:
        out.unlink(missing_ok=True)
        raise TrialError(
            f"{out}: differs from torch by {difference:.2g} on {which}, more than {_MOST_DIFFERENCE:g}; removed"
        )
    card = out.with_name(out.name + ".md")
    write_over(card, _model_card(trained, form, weights, out).encode())
    print(f"{out}: {form.takes} to {form.gives}; differs from torch by at most {difference:.2g} on {which}")
    print(f"{card}: model card")


def _images(trained: TrainedModel, form: Form, cache_folder: Path) -> tuple[Tensor, str]:
    """(N, 3, S, S) float32 as the exported network takes them, and what they are."""
    px = trained.hyperparameters.image_px
    with suppress(DataError, TrialError):
        cache = open_cache(cache_folder, px)
        split = cache.split("validation", store_px(px))
        n = min(_CHECKED, len(split.labels))
        images, _ = evaluation_batch(split.images, torch.from_numpy(split.labels), slice(0, n), px)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return (images * std + mean) * 255 if form.normalise else images, f"{n} validation images of {cache.directory}"
    images = torch.rand((_CHECKED, 3, px, px), generator=torch.Generator().manual_seed(0))
    return images * 255 if form.normalise else images, f"{_CHECKED} random images (no cache in {cache_folder})"


def _metadata(trained: TrainedModel, form: Form, temperature: float | None) -> dict[str, str]:
    h = trained.hyperparameters
    lists = {"classes": list(trained.classes), "mean": MEAN, "std": STD}
    facts = {"arch": h.arch, "image_px": str(h.image_px), "input": form.takes, "output": form.gives}
    return {**{name: json.dumps(value) for name, value in lists.items()}, **facts, "temperature": str(temperature)}


# -- writers: each returns how the file is run ------------------------------------------------------------------------------


def _write_onnx(model: nn.Module, images: Tensor, out: Path, metadata: dict[str, str]) -> Callable[[Tensor], Tensor]:
    onnx, runtime, _ = (_require(name, "onnx") for name in ("onnx", "onnxruntime", "onnxscript"))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch", min=1)
        names = {"input_names": ["images"], "output_names": ["scores"]}
        program = torch.onnx.export(
            model, (images[:2],), **names, dynamo=True, dynamic_shapes={"images": {0: batch}}, verbose=False
        )
    content = program.model_proto
    onnx.helper.set_model_props(content, metadata)
    write_over(out, content.SerializeToString())
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])


def _write_torchscript(
    model: nn.Module, images: Tensor, out: Path, metadata: dict[str, str]
) -> Callable[[Tensor], Tensor]:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, images[:2])
        torch.jit.save(traced, buffer, _extra_files={"metadata.json": json.dumps(metadata).encode()})
        write_over(out, buffer.getbuffer())
        return torch.jit.load(str(out))


def _write_safetensors(
    model: nn.Module, images: Tensor, out: Path, metadata: dict[str, str]
) -> Callable[[Tensor], Tensor]:
    state = {name: value.contiguous() for name, value in model.model.state_dict().items()}
    write_over(out, safetensors.torch.save(state, metadata))
    loaded = copy.deepcopy(model)
    loaded.model.load_state_dict(safetensors.torch.load_file(str(out)))
    return loaded


_WRITERS = {"onnx": _write_onnx, "torchscript": _write_torchscript, "safetensors": _write_safetensors}


def _require(module: str, kind: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TrialError(f"--format {kind} needs {module}, which is not installed: {_TOOLS}") from error


# -- the model card ----------------------------------------------------------------------------------------------------------


def _model_card(trained: TrainedModel, form: Form, weights: Path, out: Path) -> str:
    """Markdown. What only result.json has is left out where it is not beside the weights."""
    h, result = trained.hyperparameters, result_beside(weights, trained)
    lines = [
        f"# {out.name}",
        f"{h.arch} for {len(trained.classes)} classes, from {form.takes} with S = {h.image_px}, to {form.gives}. Photos are scaled by "
        f"their shorter side to {store_px(h.image_px)} px and cropped to the middle {h.image_px}.",
        "## Classes, in the order of the outputs",
        ", ".join(printable(name) for name in trained.classes),
    ]
    if result:
        lines += _result_lines(result)
    else:
        lines += ["No result.json of this training is beside its weights: data and accuracy are unknown."]
    values = "\n".join(f"| {name} | {printable(str(value))} |" for name, value in vars(h).items())
    lines += ["## Hyperparameters", f"| field | value |\n|---|---|\n{values}"]
    lines += ["## Licence", "Unknown: neither the weights nor the photos name one."]
    return "\n\n".join(lines) + "\n"


def _result_lines(result: dict[str, Any]) -> list[str]:
    counts = {"training": result["training"]["n"], "validation": result["validation"]["n"]}
    evaluation, calibration = result["evaluation"], result.get("calibration")
    if evaluation:
        counts["evaluation"] = evaluation["n"]
    kind = "generated drawings, no photos" if result.get("generated") else "photos"
    images = ", ".join(f"{n} {name}" for name, n in counts.items())
    chosen = (
        f"The weights of epoch {result['best_epoch']} of {result['epochs_run']}, which has the highest validation accuracy: "
        f"{_share(result['validation']['top1'], counts['validation'])}. An accuracy that something was chosen by is biased upwards."
    )
    lines = ["## Data", f"{kind} ({images}); digest {result['source_digest']}", "## How it was chosen", chosen]
    if calibration:
        lines.append(
            f"Temperature {calibration['temperature']:.3f}, fitted to the validation split: expected calibration error "
            f"{calibration['ece_before']:.1%} before, {calibration['ece_after']:.1%} after (n = {calibration['n']}, the same images)."
        )
    if not evaluation:
        return [*lines, "The evaluation split was not scored: the trial was interrupted."]
    total = _share(evaluation["top1"], evaluation["n"])
    rows = "\n".join(
        f"| {printable(row['class'])} | {_share(row['correct'] / row['total'], row['total']) if row['total'] else 'no images'} |"
        for row in evaluation["per_class"]
    )
    return [*lines, "## Accuracy on the evaluation split", f"{total}; it took no part in any choice of the trial.",
            f"| class | accuracy, Wilson's 95 % interval |\n|---|---|\n{rows}"]  # fmt: skip


def _share(share: float, n: int) -> str:
    """`80.0 % (73.9 to 85.0 %, n = 200)`, with Wilson's 95 % interval."""
    from scipy.stats import binomtest

    interval = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return f"{100 * share:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f} %, n = {n})"
