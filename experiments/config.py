"""An experiment file as NNI itself reads it, with the command line's changes applied, and the lines of its keys."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from experiments.findings import ExperimentError, KeyPath

if TYPE_CHECKING:
    from nni.experiment.config import ExperimentConfig

ROOT = Path(__file__).resolve().parent.parent
OUR_TRIAL = ["python", "-m", "trial"]

# The demo's scale: the generated sample from scratch on two CPU cores, 30 trials in a few minutes.
DEMO_FIELDS = {"weights": "none", "image_px": "32", "epochs": "6", "step_size": "4"}
DEMO_CACHE = ROOT / "data" / "sample_cache"
DEMO_DURATIONS = {"max_trial_duration": "5m", "max_experiment_duration": "40m"}


@dataclass(frozen=True)
class Overrides:
    """What the command line changes about an experiment file."""

    fields: dict[str, str] = field(default_factory=dict)  # the trial's fields and settings, as text
    max_trials: int | None = None
    demo: bool = False

    def trial_flags(self) -> list[str]:
        """`--set` as flags of the trial; what a person sets wins over the demo's scale."""
        cache = {"cache": str(DEMO_CACHE)} if self.demo else {}
        values = {**(DEMO_FIELDS if self.demo else {}), **cache, **self.fields}
        return flag_words({name: absolute(name, value) for name, value in values.items()})


@dataclass(frozen=True)
class Experiment:
    """An experiment ready to be checked or started. `config` is NNI's canonical JSON: absolute paths, space inlined."""

    file: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.config.get("experimentName") or self.file.stem

    @property
    def tuner(self) -> tuple[str, dict[str, Any]]:
        """Name (a custom tuner's class name) and class arguments."""
        tuner = self.config.get("tuner") or {}
        return tuner.get("name") or tuner.get("className") or "none", tuner.get("classArgs") or {}

    @property
    def trial_words(self) -> list[str]:
        try:
            return shlex.split(self.config["trialCommand"])
        except ValueError:  # unbalanced quotes: check reports it
            return []

    @property
    def is_ours(self) -> bool:
        """Whether it runs this project's trial, which describes its fields and needs on request."""
        return self.trial_words[: len(OUR_TRIAL)] == OUR_TRIAL


def parse_set(pairs: list[str]) -> dict[str, str]:
    """["epochs=5"] -> {"epochs": "5"}. Raises ExperimentError for anything else."""
    fields = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ExperimentError(f"--set {pair}: expected FIELD=VALUE, for example --set epochs=5")
        fields[name.strip().replace("-", "_")] = value.strip()
    return fields


def flag_words(fields: Mapping[str, str]) -> list[str]:
    """{"image_px": "32"} -> ["--image-px", "32"], as the trial takes them."""
    return [part for name, value in fields.items() for part in (f"--{name.replace('_', '-')}", value)]


def parse_flags(words: Sequence[str], owner: str) -> dict[str, str]:
    """["--image-px", "32"] or ["--image-px=32"] -> {"image_px": "32"}. Raises ExperimentError, which names their owner."""
    fields, rest = {}, iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            raise ExperimentError(f"{owner}: {word!r} in its trialCommand is not a flag of the trial")
        fields[name[2:].replace("-", "_")] = value if equals else next(rest, "")
    return fields


def read_experiment(file: Path, overrides: Overrides) -> Experiment:
    """Read with NNI's own loader and schema, then apply the overrides. Raises ExperimentError in one line."""
    from nni.experiment.config import ExperimentConfig
    from nni.experiment.config.utils import unset_base_path

    raw = read_yaml(file)
    if "trainingServicePlatform" in raw:
        raise ExperimentError(
            f"{file}: written for NNI 1 (trainingServicePlatform); expected the keys of NNI 3, as in experiments/tpe.yml"
        )
    for key, value in raw.items():
        if _plain(key) == "searchspacefile" and isinstance(value, str):
            _refuse_duplicates(_relative(_resolved(file, value)))
        if _plain(key) == "trainingservice" and isinstance(value, list):
            raise ExperimentError(
                f"{place(file, ('trainingService',))}: trainingService is a list (hybrid), which is broken in NNI 3.0; "
                "name one platform, local or remote"
            )
    try:
        config = ExperimentConfig.load(file)
        _apply(config, overrides, file)
        return Experiment(file, config.json())
    except ExperimentError:
        raise
    except json.JSONDecodeError as error:
        raise ExperimentError(f"{file}: the search space file is neither JSON nor YAML ({error})") from error
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ExperimentError(f"{place_of_refusal(file, reason)}: NNI refuses it: {reason}") from error
    finally:
        unset_base_path()  # a refused file leaves NNI's global set, and every later file would be refused with it


def _apply(config: ExperimentConfig, overrides: Overrides, file: Path) -> None:
    if overrides.max_trials is not None:
        config.max_trial_number = overrides.max_trials
    for key, value in DEMO_DURATIONS.items() if overrides.demo else ():
        setattr(config, key, value)
    if flags := overrides.trial_flags():
        words = shlex.split(config.trial_command or "")
        if words[: len(OUR_TRIAL)] != OUR_TRIAL:
            raise ExperimentError(
                f"{file}: --set, --cache and --demo are for `python -m trial`, this file runs {config.trial_command!r}"
            )
        config.trial_command = shlex.join([*words, *flags])


def read_yaml(file: Path) -> dict[str, Any]:
    """The file itself. Raises ExperimentError in one line, also for a key that is given twice."""
    try:
        raw = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise ExperimentError(
            f"{file}: cannot be read ({error.strerror}); expected an experiment file such as experiments/tpe.yml"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ExperimentError(f"{file}: expected a mapping of NNI's keys, found {type(raw).__name__}")
    _refuse_duplicates(file)
    return raw


def absolute(name: str, value: str) -> str:
    """Trials run in the repository's root: a path on the command line means the person's own folder."""
    if name in ("cache", "output", "teacher") or (name == "weights" and value not in ("imagenet", "none")):
        return str(Path(value).expanduser().resolve())
    return value


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there: they share a disk."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def is_local(config: dict) -> bool:
    """Whether its trials run on this machine."""
    service = config.get("trainingService") or {}
    return isinstance(service, dict) and service.get("platform", "local") == "local"


def requested_gpus(config: dict) -> int:
    """GPUs per trial."""
    return config.get("trialGpuNumber") or (config.get("trainingService") or {}).get("trialGpuNumber") or 0


def place(file: Path, path: KeyPath) -> str:
    """FILE:LINE of the deepest part of `path` that the file, or its search space's, has; FILE alone where it has none.

    Keys are compared as NNI does. A key of the training service is found at the top level and below trainingService.
    """
    root = _compose(file)
    if path and _plain(path[0]) == "searchspace" and _child(root, "searchspace") is None:
        reference = _child(root, "searchspacefile")
        inner = _resolved(file, reference.value.value) if reference else file
        if entry := _deepest(_compose(inner), path[1:]):
            return _at(_relative(inner), entry.start)
        return _at(file, reference.start) if reference else str(file)
    child = _deepest(root, path) or _deepest(root, ("trainingservice", *path), at_least=2)
    return _at(file, child.start) if child else str(file)


def place_of_refusal(file: Path, reason: str) -> str:
    """FILE:LINE of the first key of the file that NNI's own message names."""
    words = {_plain(word) for word in re.findall(r"\w+", reason)}
    root = _compose(file)
    keys = [key for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    return next((_at(file, key) for key in keys if _plain(key.value) in words), str(file))


@dataclass(frozen=True)
class _Child:
    """A part of a mapping or a list: where it starts, and what it holds."""

    start: yaml.Node
    value: yaml.Node


def _deepest(node: yaml.Node | None, path: KeyPath, at_least: int = 1) -> _Child | None:
    """The last child along `path` that is there; None where fewer than `at_least` parts are."""
    child, depth = None, 0
    for part in path:
        below = _child(node, part)
        if below is None:
            break
        child, node, depth = below, below.value, depth + 1
    return child if depth >= at_least else None


def _child(node: yaml.Node | None, part: str | int) -> _Child | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return _Child(node.value[part], node.value[part]) if part < len(node.value) else None
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((_Child(key, value) for key, value in pairs if _plain(key.value) == _plain(part)), None)


def _compose(file: Path, tab: str = "\t") -> yaml.Node | None:
    """JSON is YAML, but for its tabs: those files get no line, unless the tab is replaced by a space."""
    try:
        return yaml.compose(file.read_text("utf-8").replace("\t", tab), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _refuse_duplicates(file: Path) -> None:
    """Raises ExperimentError for a key that a mapping has twice: NNI and YAML silently take the last one."""
    root = _compose(file) or _compose(file, " ")
    if root is not None:
        _check_once(file, root, True, set())


def _check_once(file: Path, node: yaml.Node, is_nnis: bool, node_ids: set[int]) -> None:
    """is_nnis: its keys are NNI's own, which are compared without case and underscores. Merge keys (<<) may repeat."""
    if id(node) in node_ids:  # an alias
        return
    node_ids.add(id(node))
    for part in node.value if isinstance(node, yaml.SequenceNode) else ():
        _check_once(file, part, is_nnis, node_ids)
    first: dict[object, yaml.Node] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.tag != "tag:yaml.org,2002:merge":
            before = first.setdefault(_plain(key.value) if is_nnis else (key.tag, str(key.value)), key)
            if before is not key:
                same = "it" if before.value == key.value else f"{before.value}, which NNI takes for the same key,"
                raise ExperimentError(
                    f"{_at(file, key)}: {key.value} is given twice: line {before.start_mark.line + 1} has {same} too; "
                    "NNI would silently take the last one: remove the other"
                )
        _check_once(file, value, is_nnis and _plain(key.value) not in ("searchspace", "classargs"), node_ids)


def _at(file: Path, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def _resolved(file: Path, name: str) -> Path:
    """A file that an experiment file names, as NNI finds it."""
    return (file.parent / Path(name).expanduser()).resolve()


def _relative(file: Path) -> Path:
    """Relative to the current folder where it is below."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _plain(key: object) -> str:
    """A key as NNI compares its own."""
    return str(key).lower().replace("_", "")
