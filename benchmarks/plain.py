"""The report's way of training, written plainly: what most tutorials do, and what the trial is measured against.

ImageFolder over JPEG files, a DataLoader with workers, Resize / RandomHorizontalFlip / ToTensor / Normalize, float32,
contiguous tensors, the accuracy read from the device at every batch, the best weights deep-copied in memory.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from trial.batches import MEAN, STD
from trial.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class PlainEpoch:
    seconds: float  # training and validation
    val_accuracy: float


def loaders(photos: Path, image_px: int, batch_size: int, workers: int) -> tuple[DataLoader, DataLoader]:
    """Training (the skewed split where there is one, as `data prepare` takes it) and validation."""
    training = "skewed_training" if (photos / "skewed_training").is_dir() else "training"
    resize = transforms.Resize((image_px, image_px))
    to_input = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    ways = {
        training: transforms.Compose([resize, transforms.RandomHorizontalFlip(), *to_input]),
        "validation": transforms.Compose([resize, *to_input]),
    }
    return tuple(
        DataLoader(
            datasets.ImageFolder(str(photos / split), way),
            batch_size,
            shuffle=split == training,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for split, way in ways.items()
    )


def train_plainly(
    model: nn.Module, photos: Path, h: Hyperparameters, device: torch.device, workers: int
) -> list[PlainEpoch]:
    """h.epochs epochs of SGD with StepLR; `model` ends with the weights of the best epoch."""
    torch.manual_seed(h.seed)
    train, val = loaders(photos, h.image_px, h.batch_size, workers)
    optimizer = torch.optim.SGD(model.parameters(), h.lr, h.momentum)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, h.step_size, h.gamma)
    best, best_weights, epochs = -math.inf, copy.deepcopy(model.state_dict()), []
    for _ in range(h.epochs):
        started = time.perf_counter()
        model.train()
        pass_over(model, train, device, optimizer)
        schedule.step()
        model.eval()
        with torch.no_grad():
            accuracy = pass_over(model, val, device)
        if accuracy > best:
            best, best_weights = accuracy, copy.deepcopy(model.state_dict())
        epochs.append(PlainEpoch(time.perf_counter() - started, accuracy))
    model.load_state_dict(best_weights)
    return epochs


def pass_over(model: nn.Module, loader: DataLoader, device: torch.device, optimizer=None) -> float:
    """One epoch; with an optimizer it trains. Returns the accuracy."""
    right = seen = 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        if optimizer:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return right / seen
