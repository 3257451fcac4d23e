"""What a trial leaves behind in its folder, each file readable without this project.

hyperparameters.json   what was received and what was used, written before anything else
epochs.jsonl           a line an epoch, as it ends
tensorboard/           the same curves as event files
best.pt                weights of the best epoch, with the class names and the hyperparameters
result.json            scores of the kept weights on both splits, per class, and how the training went

While it runs, and where it was interrupted, checkpoint.py's files take the place of best.pt.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.names import padded, printable
from trial.errors import TrialError
from trial.hyperparameters import Hyperparameters


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write strict JSON so that a reader sees the old file or the new one, never half of one."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(
        path, text.encode("utf-8", "backslashreplace")
    )  # a name that is no text: JSON has the same escapes


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Raises TrialError where the folder cannot be written. One trial a folder: `lock_folder` sees to it."""
    partial = path.with_name(f".{path.name}.partial")  # always the same: what a killed trial left is written over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def write_over(path: Path, content: bytes | memoryview) -> None:
    """Over what the file holds. It is torn where the process is killed meanwhile: for files whose reader can tell.

    Raises TrialError where the folder cannot be written; the file is then gone.
    """
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
            file.write(content)
            file.truncate()
    except OSError as error:
        path.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> TrialError:
    return TrialError(
        f"{path}: cannot be written ({error.strerror or error}); free space there or choose another --output"
    )


def write_hyperparameters(folder: Path, received: dict, used: Hyperparameters) -> None:
    """received: as NNI sent it; used: after defaults and flags."""
    write_json(folder / "hyperparameters.json", {"received": received, "effective": asdict(used)})


def write_weights(path: Path, state: dict, classes: tuple[str, ...], used: Hyperparameters) -> None:
    """{"model": state dict, "classes": names by output, "hyperparameters": ...}; loads with weights_only=True."""
    import torch  # not above: the hyperparameters are written before torch is imported

    buffer = io.BytesIO()
    state = {name: value.cpu() for name, value in state.items()}
    torch.save({"model": state, "classes": list(classes), "hyperparameters": asdict(used)}, buffer)
    write_atomically(path, buffer.getbuffer())


def per_class_table(classes: tuple[str, ...], per_class: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """[{id, class, correct, total}] in class order."""
    return [
        {"id": class_id, "class": name, "correct": right, "total": total}
        for class_id, (name, (right, total)) in enumerate(zip(classes, per_class))
    ]


def report_lines(score: Any, classes: tuple[str, ...], title: str = "Test set") -> str:
    """The evaluation in the lab report's form, with class names."""
    right, n = round(score.top1 * score.n), score.n
    right3 = round(score.top3 * n)
    lines = [f"{title}: Top1 Accuracy: {right}/{n} ({right / n:.0%}), Top3 Accuracy: {right3}/{n} ({right3 / n:.0%})"]
    for class_id, (name, (hits, total)) in enumerate(zip(classes, score.per_class)):
        lines.append(
            f"class {class_id:<2} {padded(printable(name), 18)}: {hits}/{total} {f'{hits / total:.0%}' if total else '-'}"
        )
    return "\n".join(lines)
