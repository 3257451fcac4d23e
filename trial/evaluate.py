"""python -m trial --evaluate FILE: what a best.pt scores on a split. Trains nothing and leaves no files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from data.cache import open_cache
from trial.batches import store_px
from trial.device import choose_compute
from trial.errors import TrialError
from trial.hyperparameters import Hyperparameters
from trial.metrics import Score
from trial.model import build_model, match_classes
from trial.outputs import report_lines
from trial.scoring import evaluate
from trial.state_dict import state_of
from trial.weights_file import load_path

TITLES = {"evaluation": "Test set", "validation": "Validation set"}


@dataclass(frozen=True)
class Trained:
    """The content of a best.pt: state dict, class names by output, and what it was trained with."""

    state: dict[str, Tensor]
    classes: tuple[str, ...]
    hyperparameters: Hyperparameters


def evaluate_file(weights: Path, cache_folder: Path, split: str, compute_on: tuple[str, str, int]) -> Score:
    """Score the weights on the "evaluation" or "validation" split and print it as a trial does.

    compute_on: device, precision and threads. Raises TrialError or DataError for what does not fit together.
    """
    trained = read_trained(weights)
    h = trained.hyperparameters
    cache = open_cache(cache_folder, h.image_px)
    advice = "Name the cache it was trained on with --cache"
    outputs = match_classes(trained.classes, cache, str(weights), advice)
    compute = choose_compute(*compute_on)
    model = build_model(h.arch, "none", len(outputs), h.seed)
    state = {name: value[outputs] if name.startswith("fc.") else value for name, value in trained.state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise TrialError(
            f"{weights}: its weights do not fit {h.arch} ({reason}); expected a trial's best.pt"
        ) from error
    images = cache.split(split, store_px(h.image_px))
    score = evaluate(compute.place(model), images, h.image_px, compute)
    print(f"{weights}: {h.arch} at {h.image_px} px on {compute.name}; {split} split of {cache.directory}, "
          f"{score.n} images")  # fmt: skip
    print(report_lines(score, cache.classes, TITLES[split]))
    return score


def read_trained(path: Path) -> Trained:
    """Raises TrialError for a file that no trial wrote."""
    if not path.is_file():
        raise TrialError(f"--evaluate {path}: no such file; expected the best.pt of a trial's folder")
    content = load_path(path, str(path))
    content = content if isinstance(content, dict) else {}
    classes = content.get("classes")
    named = isinstance(classes, list) and bool(classes) and all(isinstance(name, str) for name in classes)
    if not (named and isinstance(content.get("model"), dict) and "hyperparameters" in content):
        raise TrialError(
            f"{path}: not a trial's best.pt (expected model, classes and hyperparameters, found "
            f"{', '.join(map(str, list(content)[:4])) or 'something else'}); a bare state dict goes to --weights"
        )
    state = state_of(content, str(path)).values
    if any(name.startswith("fc.") and len(value) != len(classes) for name, value in state.items()):
        raise TrialError(f"{path}: its head has another number of outputs than its {len(classes)} class names")
    return Trained(state, tuple(classes), Hyperparameters().merged(content["hyperparameters"]))
