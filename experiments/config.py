"""An experiment file as NNI itself reads it, with the launcher's changes applied: never a second set of files."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from nni.experiment.config import ExperimentConfig
from nni.experiment.config.utils import unset_base_path

from experiments.errors import ExperimentError
from experiments.lines import duplicate, place_of_refusal, plain, resolved, shown

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
        return [
            part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", absolute(name, value))
        ]


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
        except ValueError:  # unbalanced quotes: check says so
            return []

    @property
    def is_ours(self) -> bool:
        """Whether it runs this project's trial, whose fields and needs can be asked for."""
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


def read_experiment(file: Path, overrides: Overrides) -> Experiment:
    """Read with NNI's own loader and schema, then apply the overrides. Raises ExperimentError in one line."""
    raw = read_yaml(file)
    for key, value in raw.items():
        if plain(key) == "searchspacefile" and isinstance(value, str):
            _refuse_duplicates(shown(resolved(file, value)))
    if "trainingServicePlatform" in raw:
        raise ExperimentError(
            f"{file}: written for NNI 1 (trainingServicePlatform); expected the keys of NNI 3, as in experiments/tpe.yml"
        )
    try:
        config = ExperimentConfig.load(file)
        if overrides.max_trials is not None:
            config.max_trial_number = overrides.max_trials
        if overrides.demo:
            for key, value in DEMO_DURATIONS.items():
                setattr(config, key, value)
        flags = overrides.trial_flags()
        if flags:
            words = shlex.split(config.trial_command or "")
            if words[: len(OUR_TRIAL)] != OUR_TRIAL:
                raise ExperimentError(
                    f"{file}: --set, --cache and --demo speak to `python -m trial`, this file runs {config.trial_command!r}"
                )
            config.trial_command = shlex.join([*words, *flags])
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


def read_yaml(file: Path) -> dict[str, Any]:
    """The file as it stands. Raises ExperimentError in one line, also for a key that is given twice."""
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


def _refuse_duplicates(file: Path) -> None:
    """NNI and YAML take the last one without a word."""
    if twice := duplicate(file):
        raise ExperimentError(f"{twice}; NNI would silently take the last one: remove the other")


def absolute(name: str, value: str) -> str:
    """Trials run in the repository's root: a path on the command line means the person's own folder."""
    if name in ("cache", "output", "teacher") or (name == "weights" and value not in ("imagenet", "none")):
        return str(Path(value).expanduser().resolve())
    return value


def is_local(config: dict) -> bool:
    """Whether its trials run on this machine."""
    service = config.get("trainingService") or {}
    return isinstance(service, dict) and service.get("platform", "local") == "local"


def asked_gpus(config: dict) -> int:
    """GPUs that one trial asks for."""
    return config.get("trialGpuNumber") or (config.get("trainingService") or {}).get("trialGpuNumber") or 0
