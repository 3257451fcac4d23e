"""NNI's own dispatcher with NNI's tuners, which die or forget, and with the seeded ones, which do not.

The dispatcher is NNI's (`nni/runtime/msg_dispatcher.py`); only the socket to the manager is not there: commands are
handed over as the manager sends them (`nni_node/core/nnimanager.js`), and what it would send back is kept.
"""

from __future__ import annotations

import json
import logging
import sys
import time

import pytest
from conftest import ROOT
from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.runtime import msg_dispatcher
from nni.runtime.tuner_command_channel import CommandType

sys.path.append(str(ROOT / "experiments" / "tuners"))  # as NNI's dispatcher does

from seeded_evolution import SeededEvolution
from seeded_tpe import SeededTpe

SPACE = json.loads((ROOT / "search_spaces/report.json").read_text())
CONTINUOUS = {name: {"_type": "uniform", "_value": [0, 1]} for name in "abc"}  # no value comes twice by chance
POPULATION = {"population_size": 4}
STARTUP = {"tpe_args": {"n_startup_jobs": 4}}


class Session:
    """One life of the dispatcher: until the manager dies or the tuner does."""

    def __init__(self, tuner, monkeypatch, space=SPACE):
        monkeypatch.setattr(msg_dispatcher, "_next_parameter_id", 0)
        monkeypatch.setattr(msg_dispatcher, "_trial_params", {})
        self.dispatcher = msg_dispatcher.MsgDispatcher("ws://_unittest_dispatcher_", tuner)
        self.dispatcher.send = lambda command, data: self.sent.append(json.loads(data)) if data else None
        self.sent: list[dict] = []
        self.dispatcher.handle_initialize(space)

    def resume(self, finished, cut_off=()):
        """As `resumeExperiment` does: results first, then the trials that run again."""
        self.dispatcher.handle_import_data(
            [{"parameter": p, "value": json.dumps(v), "trialJobId": "x"} for p, v in finished]
        )
        self.dispatcher.handle_add_customized_trial([{"parameter_id": n, "parameters": p} for n, p in cut_off])

    def propose(self):
        self.dispatcher.handle_request_trial_jobs(1)
        return self.sent[-1]["parameter_id"], self.sent[-1]["parameters"]

    def report(self, number, value):
        data = {"parameter_id": number, "trial_job_id": f"t{number}", "type": "FINAL", "value": json.dumps(value)}
        self.dispatcher.handle_report_metric_data(data)

    def end(self, number, state="SUCCEEDED"):
        data = {"trial_job_id": f"t{number}", "event": state, "hyper_params": json.dumps({"parameter_id": number})}
        self.dispatcher.handle_trial_end(data)

    def trial(self, value=0.5):
        number, parameters = self.propose()
        self.report(number, value)
        self.end(number)
        return parameters, value


def result_then_exit_1(session):
    number, _ = session.propose()
    session.report(number, 0.5)
    session.end(number, "FAILED")


def no_results(session):
    for _ in range(5):
        session.end(session.propose()[0])


def two_results(session):
    number, _ = session.propose()
    session.report(number, 0.5)
    session.report(number, 0.6)


def result_of_a_wrong_type(session):
    session.report(session.propose()[0], {"accuracy": 0.5})


def end_overtakes_result(session):
    number, _ = session.propose()
    session.end(number)
    session.report(number, 0.5)


def failed_trial_of_a_person(session):
    session.end(None, "FAILED")


def more_at_once_than_the_population(session):
    for _ in range(5):
        session.propose()


def resume_with_a_persons_trial_outside_the_space(session):
    session.resume([({"batch_size": 24, "lr": 0.01, "momentum": 0.9}, 0.5)])


EVOLUTION = (lambda: EvolutionTuner(**POPULATION), lambda: SeededEvolution("maximize", seed=0, **POPULATION))
TPE = (lambda: TpeTuner("maximize", 0, **STARTUP), lambda: SeededTpe("maximize", 0, **STARTUP))


@pytest.mark.parametrize(
    ("tuners", "fault", "death"),
    [
        (EVOLUTION, result_then_exit_1, KeyError),
        (EVOLUTION, no_results, RuntimeError),
        (EVOLUTION, two_results, RuntimeError),
        (EVOLUTION, result_of_a_wrong_type, RuntimeError),
        (EVOLUTION, failed_trial_of_a_person, KeyError),
        (EVOLUTION, more_at_once_than_the_population, RuntimeError),
        (TPE, two_results, KeyError),
        (TPE, result_of_a_wrong_type, RuntimeError),
        (TPE, end_overtakes_result, KeyError),
        (TPE, resume_with_a_persons_trial_outside_the_space, ValueError),
    ],
)
def test_what_kills_nnis_tuner_does_not_kill_the_seeded_one(tuners, fault, death, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "nni.algorithms.hpo.evolution_tuner")  # it formats None with %d
    nnis, seeded = tuners
    with pytest.raises(death):
        fault(Session(nnis(), monkeypatch))
    session = Session(seeded(), monkeypatch)
    fault(session)
    session.trial()
    assert set(session.propose()[1]) == set(SPACE)


def near(child, parents) -> bool:
    return min(sum(child[name] != parent[name] for name in child) for parent in parents) <= 1


def test_nnis_evolution_forgets_on_a_resume_and_the_seeded_one_does_not(monkeypatch):
    mutated = []
    for make in EVOLUTION:
        first = Session(make(), monkeypatch, CONTINUOUS)
        finished = [first.trial(value / 10) for value in range(6)]
        cut_off = first.propose()
        second = Session(make(), monkeypatch, CONTINUOUS)
        second.resume(finished, [cut_off])
        number, child = second.propose()
        assert number == cut_off[0] + 1  # ids go on behind the trial that runs again
        mutated.append(near(child, [parameters for parameters, _ in finished]))
        second.report(cut_off[0], 0.9)  # NNI makes imported data of it
        second.end(cut_off[0])
    assert mutated == [False, True]
    assert max(individual.result for individual in second.dispatcher.tuner.population) == 0.9


def test_after_a_clean_stop_ids_start_again_and_results_still_find_their_trial(monkeypatch):
    for make in (EVOLUTION[1], TPE[1]):
        first = Session(make(), monkeypatch)
        finished = [first.trial(value / 10) for value in range(6)]
        second = Session(make(), monkeypatch)
        second.resume(finished)
        assert second.propose()[0] == 1
        second.report(1, 0.95)
        second.end(1)
        tuner = second.dispatcher.tuner
        if make is EVOLUTION[1]:
            assert max(individual.result for individual in tuner.population) == 0.95
        else:
            assert [-record.loss for record in tuner._history[("lr",)]] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.95]


def test_nnis_seeded_tpe_repeats_its_first_trials_after_a_resume_and_ours_does_not(monkeypatch):
    repeated = []
    for make in TPE:
        first = Session(make(), monkeypatch)
        finished = [first.trial() for _ in range(3)]
        second = Session(make(), monkeypatch)
        second.resume(finished)
        repeated.append(second.propose()[1] == finished[0][0])
    assert repeated == [True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nnis_tuners_take_what_is_no_number_for_a_result_and_the_seeded_ones_do_not(value, monkeypatch):
    learnt = []
    for make in (*EVOLUTION, *TPE):
        session = Session(make(), monkeypatch)
        session.trial(value)
        tuner = session.dispatcher.tuner
        if make in EVOLUTION:
            learnt.append(any(individual.result is not None for individual in tuner.population))
        else:
            learnt.append(bool(tuner._history[("lr",)]))
    assert learnt == [True, False, True, False]


def test_nnis_evolution_takes_no_seed():
    with pytest.raises(TypeError, match="unexpected keyword argument 'seed'"):
        EvolutionTuner(seed=0)


def threaded(make, monkeypatch, trials=25) -> list[dict]:
    """Proposals where NNI's two threads take the commands: every third trial fails, and the next is asked for at once."""
    session = Session(make(), monkeypatch, CONTINUOUS)
    dispatcher = session.dispatcher
    dispatcher.default_worker.start()
    dispatcher.assessor_worker.start()
    dispatcher.enqueue_command(CommandType.RequestTrialJobs, 1)
    for number in range(trials):
        deadline = time.monotonic() + 10
        while len(session.sent) == number:
            assert time.monotonic() < deadline and not dispatcher.worker_exceptions
            time.sleep(0.001)
        name, failed = f"t{number}", number % 3 == 2
        if not failed:
            report = {"parameter_id": number, "trial_job_id": name, "type": "FINAL", "value": "0.5"}
            dispatcher.enqueue_command(CommandType.ReportMetricData, report)
        end = {"event": "FAILED" if failed else "SUCCEEDED", "hyper_params": json.dumps({"parameter_id": number})}
        dispatcher.enqueue_command(CommandType.TrialEnd, {"trial_job_id": name, **end})
        dispatcher.enqueue_command(CommandType.RequestTrialJobs, 1)
    dispatcher.stopping = True
    for queue, worker in (
        (dispatcher.default_command_queue, dispatcher.default_worker),
        (dispatcher.assessor_command_queue, dispatcher.assessor_worker),
    ):
        queue.put((CommandType.Ping, None))  # else it looks at `stopping` only after 3 s
        worker.join()
    return [sent["parameters"] for sent in session.sent[:trials]]


@pytest.mark.parametrize("make", [EVOLUTION[1], TPE[1]], ids=["evolution", "tpe"])
def test_two_threads_do_not_change_what_a_seed_proposes(make, monkeypatch):
    tuner = make()
    tuner.update_search_space(CONTINUOUS)
    expected = []
    for number in range(25):
        expected += tuner.generate_multiple_parameters([number], st_callback=None)
        if number % 3 != 2:
            tuner.receive_trial_result(number, expected[-1], 0.5)
        tuner.trial_end(number, number % 3 != 2)
    for _ in range(3):
        assert threaded(make, monkeypatch) == expected
