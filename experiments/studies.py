"""The studies: parts (a) to (c) of the report, and the imbalance that it leaves alone."""

from __future__ import annotations

# What each study fixes: the settings of the report's part, where they are not the trial's defaults.
STUDIES: dict[str, dict[str, str]] = {
    "early_stopping": {"lr": "0.01"},
    "pretrained": {"lr": "0.01", "patience": "0"},
    "learning_rate": {"patience": "0"},
    "step_size": {"lr": "0.01", "patience": "0"},
    "distill": {"patience": "0"},
    "balance": {"lr": "0.01", "patience": "0"},
}


def demo_fields(study: str, teaches: bool = False) -> dict[str, str]:
    """The demo's scale: the generated sample from scratch on two CPU cores. Learning from scratch at the lr of fine-tuning
    would take too long; early stopping keeps the report's 25 epochs, as fewer leave nothing to be saved; a ResNet50 from
    scratch is no teacher after ten."""
    epochs = "25" if study == "early_stopping" else "10"
    longer = {"epochs": "30", "step_size": "15"} if teaches else {}
    return {"weights": "none", "image_px": "32", "epochs": epochs, "lr": "0.01"} | longer
