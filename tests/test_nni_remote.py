"""Searches over machines that are reached through SSH: two servers on loopback, real NNI."""

from __future__ import annotations

import pytest
from fixtures_nni import EVOLUTION, TPE
from fixtures_remote import RemoteRun, machines, needs_sshd

from experiments.repairs import with_repairs

pytestmark = [pytest.mark.nni, needs_sshd]


@pytest.fixture(scope="module")
def env(tmp_path_factory, nni_env) -> dict[str, str]:
    return with_repairs({**nni_env, "FOOD11_TRIAL_WAITS_S": "60"})


def config(ours, **changes) -> dict:
    service = {"platform": "remote", "machineList": [machine.entry() for machine in ours]}
    return {"trialConcurrency": 4, "maxTrialNumber": 8, "trainingService": service, **changes}


def test_each_record_of_two_machines_is_right_and_all_files_come_back(env, tmp_path):
    from pathlib import Path

    with machines(tmp_path / "machines", Path(env["HOME"])) as ours:
        run = RemoteRun(tmp_path / "run", env, config(ours, tuner=TPE))
        try:
            run.wait(lambda: run.status == "DONE")
        finally:
            print(run.log("nnimanager")[-6000:])
        assert run.recorded() == run.received() and len(run.received()) == 8
        run.call("stop", run.id)
