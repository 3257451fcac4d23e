"""NNI repaired: real experiments, first with plain NNI where its fault shows quickly, then with the repairs."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fixtures_nni import EVOLUTION, Run, other_address

from experiments.repairs import SWITCH, with_repairs

pytestmark = pytest.mark.nni


@pytest.fixture(scope="module")
def plain_env(nni_env) -> dict[str, str]:
    return {**nni_env, SWITCH: "off"}


@pytest.fixture(scope="module")
def repaired_env(nni_env) -> dict[str, str]:
    return with_repairs(nni_env)


@pytest.fixture(scope="module")
def runs(plain_env, repaired_env, tmp_path_factory) -> dict[str, Run]:
    """Three experiments that run at once: plain and TPE four trials at a time, Evolution two at a time."""
    folder = tmp_path_factory.mktemp("repairs")
    modes = "early,good,twice,nan,text,none,exit1,big,again,side,infinite,killed"
    four = {"trialConcurrency": 4, "maxTrialNumber": 14}
    two = {"trialConcurrency": 2, "maxTrialNumber": 9, "tuner": EVOLUTION}
    runs = {
        "plain": Run(folder / "plain", plain_env, {**four, "maxTrialNumber": 8, "tuner": {"name": "Random"}}),
        "tpe": Run(folder / "tpe", {**repaired_env, "NNI_TEST_MODES": modes}, four),
        "evolution": Run(
            folder / "evolution", {**repaired_env, "NNI_TEST_MODES": "none,none,none,exit1,twice,text,nan"}, two
        ),
    }
