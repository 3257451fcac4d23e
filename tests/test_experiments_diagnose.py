"""What `watch` concludes from one look at an experiment; the looks themselves are tested with real NNI."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fixtures_analysis import START, Recorder

from analysis.reading.logs import lines_since, tuner_death
from analysis.reading.reader import load_experiment
from experiments import logs
from experiments.diagnose import Limits, Snapshot, Verdict, judge
from experiments.logs import failure_kind, is_queued
from experiments.nni import OWNER, attach, find_port
from experiments.watch import ENDS, Outcome, Watcher, WatchSettings, _clean_up, last_sign

CALM = Snapshot(
    now=START / 1000 + 100, since=START / 1000, watched_s=100.0, status="RUNNING", errors=(), silent_s=0.0, gone_s=0.0,
    tunerless_s=0.0, tuner_death=None, idle_s=0.0, queued=False, waits_for_gpu=False, stopped_by_hand=False, record=None,
)  # fmt: skip


def look(**changes) -> Snapshot:
    return dataclasses.replace(CALM, **changes)


def state(limits: Limits | None = None, **changes) -> str | None:
    verdict = judge(look(**changes), limits or Limits())
    return verdict and verdict.state


def test_nothing_is_wrong_with_a_calm_experiment():
    assert state() is None
    assert state(idle_s=4.0, silent_s=30.0, tunerless_s=3.0) is None


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({"status": "STOPPED"}, "STOPPED", ""),
        ({"status": "ERROR", "errors": ("Tuner did not connect",)}, "ERROR", "did not connect"),
        ({"status": "ERROR", "errors": ("Tuner did not connect",), "tuner_death": "TypeError: seed"}, "DEAD", "TypeError"),
        ({"status": None, "gone_s": 6.0}, "LOST", "without being told"),
        ({"status": None, "gone_s": 6.0, "stopped_by_hand": True}, "STOPPED", "stopped by hand"),
        ({"status": None, "gone_s": 6.0, "stopped_by_hand": True, "cause": "SQLITE_FULL"}, "STOPPED", "SQLITE_FULL; then it was stopped"),
        ({"status": None, "gone_s": 6.0, "cause": "connect ECONNREFUSED"}, "LOST", "has ended by itself: connect ECONNREFUSED"),
        ({"status": None, "silent_s": 100.0}, "HUNG", "not answered for 100 s"),
        ({"tuner_death": "KeyError: 7"}, "DEAD", "KeyError: 7"),
        ({"tunerless_s": 6.0}, "DEAD", "without a word"),
        ({"idle_s": 100.0}, "DEAD", "proposed nothing for 100 s"),
        ({"status": "TUNER_NO_MORE_TRIAL", "idle_s": 6.0}, "EXHAUSTED", "no more points"),
        ({"queued": True, "idle_s": 200.0}, "STUCK", "none can be started"),
        ({"watched_s": 8 * 24 * 3600.0}, "TIMEOUT", "longer than its own limits"),
    ],
)  # fmt: skip
def test_each_way_to_end_has_its_word_and_its_reason(changes, expected, words):
    verdict = judge(look(**changes), Limits())
    assert verdict.state == expected and words in verdict.reason and "\n" not in verdict.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "NO_MORE_TRIAL", "tuner_death": "KeyError: 7", "tunerless_s": 60.0},  # it is not needed any more
        {"status": "INITIALIZED", "tunerless_s": 60.0},
        {"status": "TUNER_NO_MORE_TRIAL", "idle_s": 0.0},  # its last trial runs
        {"queued": True, "idle_s": 170.0},  # a busy machine starts its first trial slowly
        {"queued": True, "idle_s": 500.0, "waits_for_gpu": True},  # another program has the GPU
    ],
)
def test_what_looks_dead_and_is_not_goes_on(changes):
    assert state(**changes) is None


def recorded(tmp_path, *trials: tuple[str, str], **config):
    """An experiment of trials (state, last line of stderr), 10 s each."""
    written = Recorder(tmp_path, **config)
    for number, (ending, said) in enumerate(trials):
        trial = f"T{number:04}"
        written.run(10.0 * number, trial, number, number)
        if ending != "RUNNING":
            written.event(10.0 * number + 9, trial, ending, number)
        (written.output(trial) / "trial.stderr").write_text(f"Traceback\n{said}\n" if said else "")
    return load_experiment(written.folder)


def test_a_trial_for_which_there_is_no_gpu_is_not_waited_for(tmp_path):
    record = recorded(tmp_path, trialGpuNumber=2)
    assert state(record=record, queued=True, idle_s=25.0) == "STUCK"
    assert state(record=record, queued=True, idle_s=25.0, waits_for_gpu=True) is None
    assert state(record=recorded(tmp_path / "none"), queued=True, idle_s=25.0) is None


def test_three_equal_failures_in_a_row_end_it_and_numbers_make_no_difference(tmp_path):
    record = recorded(tmp_path, *(("FAILED", f"RuntimeError: {n}.5 MiB at 0x{n}f missing") for n in (1, 22, 333)))
    verdict = judge(look(record=record), Limits())
    assert verdict.state == "FAILING" and "the last 3 trials failed alike" in verdict.reason
    assert "333.5 MiB" in verdict.reason and verdict.log.endswith("T0002/trial.stderr")
    assert state(Limits(stop_after_failures=4), record=record) is None
    assert state(Limits(stop_after_failures=0), record=record) is None
    assert state(record=record, since=START / 1000 + 5) == "FAILING"
    assert state(record=record, since=START / 1000 + 15) is None  # seen before the resume


def test_other_failures_and_a_success_between_go_on(tmp_path):
    mixed = [("FAILED", "KeyError: 'a'"), ("FAILED", "ValueError: b"), ("FAILED", "KeyError: 'a'")]
    assert state(record=recorded(tmp_path / "mixed", *mixed)) is None
    assessed = recorded(tmp_path / "assessed", *[("USER_CANCELED", "")] * 3, assessor={"name": "Medianstop"})
    assert state(record=assessed) is None
    assert state(record=recorded(tmp_path / "killed", *[("USER_CANCELED", "")] * 3)) == "FAILING"
    assert failure_kind(recorded(tmp_path / "silent", ("SUCCEEDED", "")).trials[0]) == "no result"


def test_a_trial_without_a_sign_of_life_is_named(tmp_path):
    record = recorded(tmp_path, ("RUNNING", "loading"))
    signs = {"T0000": CALM.now - 1900}
    verdict = judge(look(record=record, signs=signs), Limits())
    assert verdict.state == "STALLED" and "trial T0000" in verdict.reason and "31.7 minutes" in verdict.reason
    assert state(Limits(stall_minutes=60), record=record, signs=signs) is None
    assert state(Limits(stall_minutes=0), record=record, signs=signs) is None


def test_slow_epochs_are_no_stall(tmp_path):
    written = Recorder(tmp_path)
    written.run(0.0, "T0000", 0, 0)
    for epoch in range(3):
        written.metric(600.0 * epoch, "T0000", 0, 0.1, epoch)
    record = load_experiment(written.folder)
    signs = {"T0000": CALM.now - 2400}
    assert state(record=record, signs=signs) is None  # five epochs of ten minutes
    assert state(record=record, signs={"T0000": CALM.now - 3100}) == "STALLED"


def test_the_last_sign_of_life_is_a_result_or_a_written_file(tmp_path):
    trial = recorded(tmp_path, ("RUNNING", "loading")).trials[0]
    deep = trial.folder / "tensorboard" / "events"
    deep.parent.mkdir()
    deep.touch()
    for path, seconds in ((trial.folder / "trial.stderr", 40), (deep, 70)):
        os.utime(path, (START / 1000 + seconds, START / 1000 + seconds))
    assert last_sign(trial) == START / 1000 + 70


def test_the_managers_log_tells_whether_a_trial_waits():
    submitted, created = "[t] INFO (NNIManager) submitTrialJob: form: {", "[t] INFO (LocalV3.local) Created trial A"
    assert not is_queued([]) and not is_queued([submitted, created])
    assert is_queued([created, submitted])
    assert is_queued([created, "[t] WARNING (LocalV3.local) Failed to create trial"])
    assert is_queued(
        [submitted, created, "[t] WARNING (V3) Trial 3 waits: no GPU is free for it, or no machine is there"]
    )


LOG = """[2026-11-24 03:00:00] ERROR (nni.runtime.msg_dispatcher_base/Thread-1 (command_queue_worker)) 7
Traceback (most recent call last):
  File "tpe_tuner.py", line 200, in trial_end
KeyError: 7
[2026-11-24 04:00:00] INFO (nni.runtime.msg_dispatcher_base/MainThread) Dispatcher started
[2026-11-24 04:00:01] ERROR (my_tuner/Thread-1) cannot plot: KeyError
"""


def test_the_tuners_death_is_that_of_this_session_and_other_errors_are_none(tmp_path):
    log = tmp_path / "log" / "dispatcher.log"
    log.parent.mkdir()
    log.write_text(LOG)
    second = time.mktime((2026, 11, 24, 4, 0, 0, 0, 0, -1))
    assert tuner_death(tmp_path) == "KeyError: 7"
    assert tuner_death(tmp_path, second + 0.7) is None
    assert lines_since(LOG.splitlines(), second)[0].endswith("Dispatcher started")
    assert lines_since(LOG.splitlines(), second + 9) == []


def test_what_the_manager_says_of_a_failure_goes_before_the_trials_last_line(tmp_path):
    from analysis.reading.logs import failure_reason

    trial = recorded(tmp_path, ("FAILED", "a warning at the end")).trials[0]
    said = {
        "the final result is not finite: NaN": "the final result is not finite: NaN",
        "exit code 3": "a warning at the end",
        "": "a warning at the end",
    }
    for message, expected in said.items():
        assert failure_reason(dataclasses.replace(trial, message=message)) == expected
    silent = dataclasses.replace(trial, message="exit code 3", folder=None)
    assert failure_reason(silent) == "exit code 3; it wrote nothing"


def stamped(seconds_ago: float, *texts: str) -> list[str]:
    clock = time.strftime("[%Y-%m-%d %H:%M:%S]", time.localtime(time.time() - seconds_ago))
    return [f"{clock} {text}" for text in texts]


BEGUN = [
    "INFO (RemoteV3.remote) Starting remote training service...",
    "INFO (Worker.remote-worker1) Initializing SSH worker 10.0.0.7",
    "INFO (Worker.remote-worker1) Installing nni and dependencies...",
]
INSTALLED = [
    "INFO (Worker.remote-worker1) Installed nni v3.0",
    "INFO (Worker.remote-worker1) Worker 10.0.0.7 initialized",
    "INFO (RemoteV3.remote) Remote training service started",
]
PACKING = ["INFO (RemoteV3.remote) Upload directory trial_code = /home/me/food"]
UPLOADING = ["INFO (Worker.remote-worker1) Uploading trial_code"]
UPLOADED = ["INFO (Worker.remote-worker1) Upload success"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], False),
        (["INFO (NNIManager) Setup tuner..."], True),  # it is loaded, for a minute on a busy machine
        (["INFO (NNIManager) Setup tuner...", "INFO (NNIManager) Add event listeners"], False),
        (BEGUN, True),
        (BEGUN + INSTALLED, False),
        (BEGUN + INSTALLED + PACKING, True),
        (BEGUN + INSTALLED + PACKING + UPLOADING, True),
        (BEGUN + INSTALLED + PACKING + UPLOADING + UPLOADED, False),
    ],
)
def test_while_nni_installs_or_uploads_the_experiment_waits(texts, expected):
    assert logs.is_preparing(stamped(60, *texts)) is expected
    assert not logs.is_preparing(stamped(7200, *texts))  # it hangs


def test_a_shutdown_of_the_managers_own_is_no_stop_by_hand():
    stop = "INFO (NNIManager) Stopping experiment, cleaning up ..."
    for reason, by_hand in [("SIGTERM", True), ("REST request", True), ("training service initialize failed", False)]:
        lines = stamped(0, f"INFO (ShutdownManager) Initiate shutdown: {reason}", stop)
        assert logs.was_stopped_by_hand(lines) is by_hand and logs.ended_itself(lines) is not by_hand
    assert logs.was_stopped_by_hand(stamped(0, stop)) and not logs.was_stopped_by_hand([])


class Answers(BaseHTTPRequestHandler):
    """What stands where a manager is expected."""

    reply = (404, b"Outside prefix")

    def do_GET(self):
        code, body = self.reply
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A recorded experiment that the registry says runs at the port of a server of ours, under /kitchen/."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody there
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = tmp_path / "nni-experiments"
    Recorder(folder).run(0.0, "T0000", 0, 0)
    port = server.server_address[1]
    entry = {
        "id": "exp00001",
        "status": "RUNNING",
        "port": port,
        "prefixUrl": "kitchen/",
        "logDir": str(folder),
        "startTime": 5,
    }
    (folder / ".experiment").write_text(json.dumps({"exp00001": entry}))
    for module in ("experiments.nni", "analysis.reading.locate"):
        monkeypatch.setattr(f"{module}.is_running", lambda entry: True)
    yield attach("exp00001")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ((200, b'{"status": "NO_MORE_TRIAL", "errors": []}'), "NO_MORE_TRIAL"),
        ((200, b"INITIALIZING"), "RUNNING"),  # the registry's word
        ((200, b"[]"), "RUNNING"),
        ((403, b"Refused"), "RUNNING"),
        ((404, b"Outside prefix"), "RUNNING"),
        ((500, b"{}"), "RUNNING"),
    ],
)
def test_any_answer_is_an_answer_and_the_prefix_is_the_registrys(reply, status, served, monkeypatch):
    monkeypatch.setattr(Answers, "reply", reply)
    assert served.url.endswith("/kitchen")
    watcher = Watcher(served, Limits(), 0)
    watcher._written = time.time()  # the manager writes nothing meanwhile
    watcher._seen["answer"] -= 500
    look = watcher.look()
    assert (look.status, look.silent_s < 1) == (status, True)


def test_a_manager_that_writes_is_not_dead_and_one_that_does_neither_hangs(served):
    silent = dataclasses.replace(served, port=find_port(18700))
    watcher = Watcher(silent, Limits(), 0)
    watcher._seen["answer"] -= 500
    assert watcher.look().silent_s < 1  # first seen
    watcher._seen["answer"] -= 500
    assert watcher.look().silent_s >= 500
    silent.folder.joinpath("log").mkdir()
    silent.folder.joinpath("log/nnimanager.log").touch()
    assert watcher.look().silent_s < 1


@pytest.mark.parametrize(
    ("state", "ours", "ends", "ended"),
    [
        ("HUNG", False, (), False),
        ("DONE", False, (), False),
        ("FAILING", False, ("FAILING",), True),  # --stop-after-failures was given
        ("STALLED", False, ("FAILING",), False),
        ("TIMEOUT", False, ENDS, True),  # --end
        ("HUNG", True, (), True),
        ("DONE", True, (), True),
    ],
)
def test_only_launchs_own_living_experiments_are_ended_unasked(state, ours, ends, ended, served, monkeypatch, capsys):
    acts = []
    for name in ("stop", "kill", "end_orphans"):
        monkeypatch.setattr(f"experiments.watch.{name}", lambda *_, name=name: acts.append(name) or "")
    if ours:
        (served.folder / OWNER).write_text("5")
    outcome = Outcome(Verdict(state, "x"), None, 0.0)
    _clean_up(served, outcome, WatchSettings(ends=frozenset(ends)))
    assert bool(acts) == ended
    assert ("left as it is, since launch did not start it" in capsys.readouterr().err) != ended


def test_a_session_that_somebody_else_resumed_is_not_ours(served):
    (served.folder / OWNER).write_text("4")
    assert not served.is_ours


def test_limits_that_are_given_may_end_what_launch_did_not_start():
    from experiments.__main__ import _watch_settings, parse

    found = {words: _watch_settings(parse(["watch", *words.split()])) for words in ("", "--stall-minutes 5", "--end")}
    assert [settings.ends for settings in found.values()] == [frozenset(), {"STALLED"}, ENDS]
    assert found[""].limits == Limits() and found["--stall-minutes 5"].limits.stall_minutes == 5
