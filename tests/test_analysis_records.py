"""The trials are rebuilt from NNI's rows by hand-worked cases of what NNI 3.0 really writes."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures_analysis import SCHEMA, START, Recorder, final

from analysis.reading import locate
from analysis.reading.locate import AnalysisError
from analysis.reading.reader import load_experiment


@pytest.fixture(autouse=True)
def nni_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "nni-experiments").mkdir(parents=True)
    return tmp_path / "home" / "nni-experiments"


def one(recorder, trial):
    return next(found for found in load_experiment(recorder.folder).trials if found.trial_id == trial)


def test_the_fixture_has_nni_s_own_schema():
    source = Path(importlib.util.find_spec("nni_node").origin).parent / "core" / "sqlDatabase.js"
    assert SCHEMA.strip() in source.read_text(encoding="utf-8")


def test_a_plain_trial(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, final(0.8), {"default": 0.5, "lr": 0.1}, {"default": 0.8, "lr": 0.1}, lr=0.1)
    experiment = load_experiment(recorder.folder)
    trial = experiment.trials[0]
    assert (trial.trial_id, trial.sequence, trial.state) == ("t0000", 0, "SUCCEEDED")
    assert (trial.start, trial.end, trial.duration_s) == (START, START + 8000, 8.0)
    assert (trial.parameters, trial.parameters_source, trial.parameters_mismatch) == (
        {"lr": 0.1},
        "metric",
        False,
    )
    assert [result.value["default"] for result in trial.intermediates] == [0.5, 0.8]
    assert (trial.score, experiment.best) == (0.8, trial)
    assert experiment.counts == {"succeeded": 1, "failed": 0, "cancelled": 0, "running": 0, "pruned": 0}
    assert (experiment.trial_seconds, experiment.wall_seconds, experiment.state) == (8.0, 8.0, "STOPPED")


def test_space_around_a_result_does_not_matter(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, 0.5)
    with sqlite3.connect(recorder.database) as connection:
        connection.execute("update MetricData set data = ?", (' "{\\n \\"default\\": 0.25} " ',))
    connection.close()
    assert one(recorder, "t0000").final == {"default": 0.25}


def test_the_newest_profile_counts(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.config["maxTrialNumber"] = 1
    recorder.profile(revision=3)
    recorder.config["maxTrialNumber"] = 99
    recorder.profile(revision=2)  # written later, but older
    recorder.trial(0, 0.5)
    experiment = load_experiment(recorder.folder)
    assert (experiment.max_trials, experiment.state) == (1, "DONE")


def test_results_out_of_order_are_sorted_by_position(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.run(0, "a", 0, 0)
    recorder.metric(5, "a", 0, 0.9)
    for position in (2, 0, 1):
        recorder.metric(4, "a", 0, position / 10, position)
    recorder.event(6, "a", "SUCCEEDED", 0)
    trial = one(recorder, "a")
    assert [result.value for result in trial.intermediates] == [0.0, 0.1, 0.2]
    assert trial.score == 0.9


def test_swapped_parameters_follow_the_metric(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.run(0.0, "a", 0, 0, lr=0.1)
    recorder.run(0.1, "b", 1, 1, lr=0.2)
    recorder.metric(3, "a", 1, 0.7)
    recorder.metric(3, "b", 0, 0.6)
    for name in "ab":
        recorder.event(4, name, "SUCCEEDED")
    a, b = one(recorder, "a"), one(recorder, "b")
    assert (a.parameters, a.recorded, a.parameters_mismatch) == ({"lr": 0.2}, {"lr": 0.1}, True)
    assert (b.parameters, b.parameters_mismatch) == ({"lr": 0.1}, True)
    assert (a.proposed_for, b.proposed_for) == ("b", "a")
    assert "2 of 2 trials ran with other parameters" in load_experiment(recorder.folder).warnings[0]


def test_an_id_that_repeats_after_a_resume_is_the_latest_before_the_metric(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.run(0, "a", 1, 1, lr=0.1)
    recorder.metric(5, "a", 1, 0.5)
    recorder.event(6, "a", "SUCCEEDED", 1)
    recorder.run(100, "b", 1, 1, lr=0.3)
    recorder.metric(105, "b", 1, 0.6)
    recorder.event(106, "b", "SUCCEEDED", 1)
    a, b = one(recorder, "a"), one(recorder, "b")
    assert (a.parameters["lr"], b.parameters["lr"]) == (0.1, 0.3)
    assert not a.parameters_mismatch and not b.parameters_mismatch
    assert (a.session, b.session) == (0, 1)
    assert load_experiment(recorder.folder).wall_seconds == 12.0  # the pause of 94 s is left out


def test_a_trial_without_results_keeps_the_event_s_parameters_and_says_so(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, None, state="FAILED", lr=0.1)
    trial = one(recorder, "t0000")
    assert (trial.parameters, trial.parameters_source) == ({"lr": 0.1}, "event")


def test_the_trial_s_own_file_confirms_or_corrects(tmp_path):
    recorder = Recorder(tmp_path)
    for sequence in (0, 1):
        recorder.trial(sequence, None if sequence else 0.5, state="FAILED" if sequence else "SUCCEEDED", lr=0.1)
    told = {"parameter_id": 0, "received": {"lr": 0.1}, "effective": {"lr": 0.1, "epochs": 5}}
    (recorder.output("t0000") / "hyperparameters.json").write_text(json.dumps(told))
    (recorder.output("t0001") / "hyperparameters.json").write_text(json.dumps({"received": {"lr": 0.7}}))
    first, second = one(recorder, "t0000"), one(recorder, "t0001")
    assert (first.parameters_source, first.effective["epochs"]) == ("metric", 5)
    assert (second.parameters, second.parameters_source, second.parameters_mismatch) == (
        {"lr": 0.7},
        "file",
        True,
    )


def test_a_rerun_trial_keeps_only_its_last_attempt(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.run(0, "a", 0, 0, lr=0.1)
    recorder.metric(1, "a", 0, 0.1, 0)
    recorder.metric(2, "a", 0, 0.2, 1)
    recorder.event(50, "a", "ADD_RESUMED")
    recorder.run(60, "a", 0, 0, lr=0.1)
    recorder.metric(61, "a", 0, 0.6, 0)
    recorder.metric(69, "a", 0, 0.65)
    recorder.event(70, "a", "SUCCEEDED", 0)
    trial = one(recorder, "a")
    assert [result.value for result in trial.intermediates] == [0.6]
    assert (trial.attempts, trial.duration_s, trial.proposed, trial.start) == (2, 10.0, START, START + 60_000)
    assert (trial.session, trial.last_session) == (0, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, "good", {"loss": 1.0}, None, [1.0]])
def test_results_that_are_no_number_stay_in_the_denominator_only(tmp_path, value):
    recorder = Recorder(tmp_path)
    recorder.trial(0, 0.4)
    recorder.run(20, "odd", 1, 1)
    recorder.metric(25, "odd", 1, value)
    recorder.event(26, "odd", "SUCCEEDED", 1)
    experiment = load_experiment(recorder.folder)
    assert experiment.trials[1].score is None
    assert "not ranked" in experiment.trials[1].warnings[0]
    assert (experiment.best.score, experiment.counts["succeeded"]) == (0.4, 2)


@pytest.mark.parametrize("state", ["FAILED", "USER_CANCELED"])
def test_the_result_of_a_trial_that_then_failed_is_kept_but_not_ranked(tmp_path, state):
    recorder = Recorder(tmp_path)
    recorder.trial(0, 0.9, state=state)
    recorder.trial(1, 0.5)
    experiment = load_experiment(recorder.folder)
    assert (experiment.trials[0].final, experiment.trials[0].score) == (0.9, None)
    assert (experiment.best.trial_id, experiment.best.score) == ("t0001", 0.5)


def test_the_first_of_two_final_results_counts(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, 0.3)
    recorder.metric(7.5, "t0000", 0, 0.8)
    assert one(recorder, "t0000").score == 0.3


def test_serialised_objects_are_reported_and_never_executed(tmp_path):
    marker = tmp_path / "executed"
    payload = {"__symbol__": "path:os.mkdir", "__nni_args__": [str(marker)]}
    recorder = Recorder(tmp_path)
    recorder.trial(0, {"default": 0.5, "extra": payload}, {"__nni_obj__": "gASVAA=="}, lr={"__nni_type__": "x"})
    trial = one(recorder, "t0000")
    assert trial.score == 0.5
    assert trial.final["extra"] == "<serialised object __symbol__>"
    assert trial.parameters["lr"] == "<serialised object __nni_type__>"
    assert sum("serialised object" in text for text in trial.warnings) == 3
    assert not marker.exists()


def test_states_ends_and_a_cancel_by_a_person(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.run(0, "a", 0, 0)
    recorder.event(4, "a", "USER_CANCELED", 0)
    recorder.event(5, "a", "USER_TO_CANCEL")
    recorder.run(10, "b", 1, 1)
    recorder.event(20, "c", "WAITING", 2, parameter_id=2, parameters={"lr": 0.1})
    experiment = load_experiment(recorder.folder)
    a, b, c = experiment.trials
    assert (a.state, a.end, b.state, b.end, c.start) == ("USER_CANCELED", START + 4000, "RUNNING", None, None)
    assert experiment.counts == {"succeeded": 0, "failed": 0, "cancelled": 1, "running": 2, "pruned": 0}


def test_minimise_is_tpe_s_default(tmp_path):
    recorder = Recorder(tmp_path, tuner={"name": "TPE"})
    for sequence, loss in enumerate((3.0, 1.0, 2.0)):
        recorder.trial(sequence, loss)
    experiment = load_experiment(recorder.folder)
    assert (experiment.optimise_mode, experiment.best.score) == ("minimize", 1.0)


def test_find_by_id_folder_and_file(nni_home, tmp_path):
    known = Recorder(nni_home, "inhome01")
    elsewhere = Recorder(tmp_path / "other", "away0001")
    entry = {"id": "away0001", "logDir": str(tmp_path / "other"), "status": "RUNNING", "pid": 2**22 + 1}
    (nni_home / ".experiment").write_text(json.dumps({"away0001": entry}))
    assert locate.source("inhome01").folder == known.folder
    assert locate.source("away0001").folder == elsewhere.folder
    assert (
        locate.source(elsewhere.folder) == locate.source(elsewhere.database) == (elsewhere.folder, elsewhere.database)
    )
    loose = tmp_path / "nni.sqlite"
    shutil.copy(known.database, loose)
    assert load_experiment(loose).id == "inhome01"
    with pytest.raises(AnalysisError, match="no experiment 'nothere1'.*away0001, inhome01"):
        locate.source("nothere1")


def test_running_means_that_the_manager_lives(nni_home):
    recorder = Recorder(nni_home, "alive001")
    recorder.run(0, "a", 0, 0)
    command = [
        sys.executable,
        "-c",
        "import time; time.sleep(60)",
        "nni_node/main.js",
        "--experiment-id",
        "alive001",
    ]
    manager = subprocess.Popen(command)
    try:
        entry = {"id": "alive001", "logDir": str(nni_home), "status": "RUNNING", "pid": manager.pid}
        (nni_home / ".experiment").write_text(json.dumps({"alive001": entry}))
        assert load_experiment("alive001").state == "RUNNING"
        assert not locate.is_running(entry | {"id": "other001"})  # the pid was given to another process
        copy = shutil.copytree(recorder.folder, nni_home / "copy")
        assert load_experiment(copy).state == "STOPPED"
    finally:
        manager.kill()
        manager.wait()
    assert load_experiment("alive001").state == "STOPPED"  # the registry still says RUNNING


def test_errors_are_one_line(tmp_path):
    (tmp_path / "nni.sqlite").write_text("not a database, but long enough to be looked at as one" * 50)
    with pytest.raises(AnalysisError, match="not a readable NNI database") as error:
        load_experiment(tmp_path / "nni.sqlite")
    assert "\n" not in str(error.value)


def test_a_damaged_schema_whose_name_is_no_text_is_one_line(tmp_path):
    """SQLite quotes the name in its message, which Python then cannot decode."""
    database = tmp_path / "nni.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE broken_name (a)")
    connection.close()
    database.write_bytes(
        database.read_bytes().replace(b"broken_name (a)", b"broken_name (((").replace(b"broken", b"\xffroken")
    )
    with pytest.raises(AnalysisError, match="not a readable NNI database"):
        load_experiment(database)


def test_row_ids_that_do_not_rise_end_the_reading(tmp_path):
    """Leaf pages of a damaged table in each other's place: the same rows would come again for ever."""
    from analysis.reading import database

    recorder = Recorder(tmp_path)
    with sqlite3.connect(recorder.database) as connection:
        rows = [(START, f"t{n}", "0", "PERIODICAL", 0, '"0.5"') for n in range(4 * database.CHUNK_ROWS)]
        connection.executemany("insert into MetricData values (?,?,?,?,?,?)", rows)
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    raw = recorder.database.read_bytes()
    pages = [raw[start : start + size] for start in range(0, len(raw), size)]
    leaves = [number for number, page in enumerate(pages) if number and page[0] == 0x0D and b"PERIODICAL" in page]
    first, last = leaves[0], leaves[-1]
    pages[first], pages[last] = pages[last], pages[first]
    recorder.database.write_bytes(b"".join(pages))
    with database._open(recorder.database) as reader, pytest.raises(sqlite3.DatabaseError, match="out of order"):
        for seen, _ in enumerate(database._chunks(reader, "MetricData", "timestamp")):
            assert seen < 20 * database.CHUNK_ROWS


def test_reading_takes_no_long_lock_and_changes_nothing(tmp_path):
    """A writer that waits no time at all succeeds while the reader is between two chunks."""
    from analysis.reading import database

    recorder = Recorder(tmp_path)
    with sqlite3.connect(recorder.database) as connection:
        rows = [(START, f"t{n}", "0", "PERIODICAL", 0, '"0.5"') for n in range(5 * database.CHUNK_ROWS)]
        connection.executemany("insert into MetricData values (?,?,?,?,?,?)", rows)
    connection.close()
    writer = sqlite3.connect(recorder.database, timeout=0)
    seen = 0
    with database._open(recorder.database) as reader:
        for _ in database._chunks(reader, "MetricData", "timestamp"):
            seen += 1
            if seen % database.CHUNK_ROWS == 1 and seen < 3 * database.CHUNK_ROWS:
                writer.execute("insert into MetricData values (0,'x','0','FINAL',0,'\"1\"')")
                writer.commit()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("delete from MetricData")
    writer.close()
    assert seen == 5 * database.CHUNK_ROWS + 3


def test_a_journal_left_by_a_killed_manager_is_read_from_a_copy(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, 0.5)
    code = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('pragma cache_size=1'); c.execute('begin');"
        "rows = [(str(n), 'x' * 4000) for n in range(2000)];"
        "c.executemany('insert into MetricData values (0,?,0,0,0,?)', rows);"
        "c.execute('update TrialJobEvent set event=\"LOST\"'); print('ready', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, recorder.database], stdout=subprocess.PIPE)
    writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    journal = recorder.database.with_name("nni.sqlite-journal")
    before = (recorder.database.read_bytes(), journal.read_bytes())
    assert len(before[1]) > 0
    started = time.monotonic()
    assert load_experiment(recorder.folder).trials[0].state == "SUCCEEDED"
    assert time.monotonic() - started < 5
    assert (recorder.database.read_bytes(), journal.read_bytes()) == before


def test_proposals_are_dated_by_nni_s_queue(tmp_path):
    """Two at a time: two are asked for at the start and one at each end, also after a resume, when the trial
    that was cut off goes first. The hand-worked times are those of a real experiment, rounded."""
    recorder = Recorder(tmp_path, trialConcurrency=2)
    recorder.run(1, "a", 0, 0)
    recorder.run(1, "b", 1, 1)
    recorder.event(7, "a", "SUCCEEDED")
    recorder.event(9, "b", "SUCCEEDED")
    recorder.run(10, "c", 2, 2)
    recorder.run(10, "d", 3, 3)
    recorder.event(30, "c", "ADD_RESUMED")
    recorder.event(30, "d", "ADD_RESUMED")
    recorder.run(36, "c", 2, 2)
    recorder.run(36, "d", 3, 3)
    recorder.event(42, "c", "FAILED")
    recorder.run(43, "e", 4, 4)
    recorder.event(44, "d", "SUCCEEDED")
    recorder.run(45, "f", 5, 5)
    recorder.event(50, "e", "SUCCEEDED")
    recorder.run(51, "g", 6, 6)
    trials = load_experiment(recorder.folder).trials
    assert [(trial.proposed - START) // 1000 for trial in trials] == [1, 1, 7, 9, 30, 30, 42]
