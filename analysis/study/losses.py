"""The losses of a study's arms, of the best validation epoch."""

from __future__ import annotations

from typing import Any

from .arms import LOSSES

OWN_LOSS = ("distill", "balance")
"""Studies whose arms minimise different losses: their training losses cannot be compared."""


def loss_rows(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """One row a loss that every arm tells, a cell an arm: mean ± standard deviation (n). Validation's is plain cross-entropy
    in every arm, training's what was minimised."""
    shown = [loss for loss in LOSSES if loss.key != "train_loss" or result["study"] not in OWN_LOSS]
    told = [loss for loss in shown if all(arm.get(loss.key, {}).get("n") for arm in result["arms"])]
    return [(loss.title, [_text(arm[loss.key]) for arm in result["arms"]]) for loss in told]


def _text(found: dict[str, Any]) -> str:
    spread = "" if found["sd"] is None else f" ± {found['sd']:.3f}"
    return f"{found['mean']:.3f}{spread} (n = {found['n']})"
