"""The repairs without an experiment: do they fit, when are they active, what is a usable final result."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import PATIENCE_S, ROOT
from fixtures_analysis import Recorder, final

from analysis.reading.reader import load_experiment
from experiments import check
from experiments.nni import NNICTL, find_port
from experiments.repairs import (
    INSTALL,
    NAME_OF_LINE,
    PRELOAD,
    SWITCH,
    install,
    is_installed,
    missing_repairs,
    with_repairs,
)
from experiments.repairs import start as nni_start

NNI_NODE = Path(importlib.util.find_spec("nni_node").submodule_search_locations[0])


def node(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(NNI_NODE / "node"), *words], capture_output=True, text=True, check=False, **options)


@pytest.fixture
def copy_of_nni(tmp_path) -> Path:
    """NNI's manager without what is not repaired."""
    folder = tmp_path / "nni_node"
    shutil.copytree(NNI_NODE, folder, ignore=shutil.ignore_patterns("node_modules", "static", "node"))
    return folder


def test_the_repairs_fit_this_nni():
    assert missing_repairs() == []


def test_another_version_is_refused_in_one_line(copy_of_nni):
    assert node(str(PRELOAD), str(copy_of_nni)).returncode == 0
    (copy_of_nni / "package.json").write_text('{"version": "3.0.1"}')
    done = node(str(PRELOAD), str(copy_of_nni))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "this is 3.0.1" in done.stderr


def test_a_manager_that_cannot_be_repaired_does_not_start(copy_of_nni):
    """Also with only one text changed: half repaired would look safe and be open."""
    file = copy_of_nni / "rest_server/index.js"
    file.write_text(file.read_text().replace("app.listen(this.port)", "app.listen(this.port, undefined)"))
    words = [str(copy_of_nni / "main.js"), "--mode", "local"]
    done = node(*words, env=with_repairs(os.environ), cwd=copy_of_nni)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "expected once" in done.stderr and f"{SWITCH}=off" in done.stderr


def test_other_platforms_are_refused(copy_of_nni):
    words = [str(copy_of_nni / "main.js"), "--mode", "kubeflow"]
    done = node(*words, env=with_repairs(os.environ), cwd=copy_of_nni)
    assert done.returncode == 1 and "this is kubeflow" in done.stderr


def test_node_options_of_a_person_stay_and_are_not_doubled():
    once = with_repairs({"NODE_OPTIONS": "--no-warnings", "HOME": "/x"})
    assert once["NODE_OPTIONS"] == f'--no-warnings --require "{PRELOAD}"' and once["HOME"] == "/x"
    assert with_repairs(once) == once
    assert with_repairs({SWITCH: "off"}) == {SWITCH: "off"}


def test_other_programs_of_node_are_left_alone(tmp_path):
    (tmp_path / "main.js").write_text("console.log(process.env.NODE_OPTIONS)")
    done = node(str(tmp_path / "main.js"), env=with_repairs(os.environ))
    assert done.returncode == 0 and str(PRELOAD) in done.stdout and done.stderr == ""


def test_whether_a_bare_nnictl_is_repaired_is_told(tmp_path, monkeypatch):
    assert not is_installed(tmp_path)
    file = install(tmp_path)
    assert is_installed(tmp_path) and file.read_text().count("\n") == 1
    file.write_text(file.read_text().replace("repairs/__init__.py", "repairs.py"))  # where an earlier release had it
    assert not is_installed(tmp_path)
    monkeypatch.setattr(check, "is_installed", lambda: False)
    (finding,) = check.repair_findings()
    assert (finding.level, finding.key, finding.next) == ("warning", "repairs.not_in_nnictl", INSTALL)
    monkeypatch.setenv(SWITCH, "off")
    assert [(f.level, f.key) for f in check.repair_findings()] == [("warning", "repairs.missing")]


def test_an_older_hook_that_names_a_file_that_is_gone_does_no_harm(tmp_path):
    line = install(tmp_path).read_text().replace("repairs/__init__.py", "repairs.py")
    (tmp_path / "run.py").write_text(f"import sys\nsys.orig_argv = ['python', 'nnictl']\n{line}print('ran')\n")
    done = subprocess.run([sys.executable, tmp_path / "run.py"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("ran\n", "")


@pytest.mark.parametrize(("there", "off", "expected"), [(1, "", 0), (1, "off", 1), (0, "", 1)])
def test_all_gpus_may_be_asked_for_while_the_repairs_are_on(there, off, expected, monkeypatch):
    monkeypatch.setattr(check, "count_gpus", lambda: there)
    monkeypatch.setenv(SWITCH, off)
    assert len(check._gpu_findings({"trialGpuNumber": 1, "trialConcurrency": 1}, {})) == expected


SCHEDULER = """
const path = require('path');
const { repairedFiles, loadRepaired } = require(process.env.PRELOAD);
const [folder, count, requested, repaired] = JSON.parse(process.env.CASE);
if (repaired) loadRepaired(repairedFiles(folder));
require(path.join(folder, 'node_modules/app-module-path')).addPath(folder);
global.nni = {};
require(path.join(folder, 'common/globals'));
Object.assign(global.nni, { args: { logLevel: 'critical' } });
const { TaskScheduler, UnitTestHelpers } = require(path.join(folder, 'common/trial_keeper/task_scheduler/scheduler.js'));
const gpus = [...Array(count).keys()].map(index => ({ index }));
UnitTestHelpers.mockGpuInfo({ gpuNumber: count, gpus, processes: [] });
const scheduler = new TaskScheduler();
const ask = async name => (await scheduler.schedule('e', name, requested, {}))?.CUDA_VISIBLE_DEVICES ?? null;
scheduler.init().then(async () => {
    const answers = [await ask('first'), await ask('second')];
    await scheduler.release('e', 'first');
    console.log(JSON.stringify([...answers, await ask('third')]));
});
"""


@pytest.mark.parametrize(
    ("count", "requested", "repaired", "expected"),
    [
        (1, 1, False, [None, None, None]),
        (1, 1, True, ["0", None, "0"]),
        (4, 4, False, [None, None, None]),
        (4, 4, True, ["0,1,2,3", None, "0,1,2,3"]),
        (2, 1, True, ["0", "1", "0"]),
        (1, 2, True, [None, None, None]),
        (1, 0.5, True, ["0", "0", "0"]),
    ],
)
def test_nnis_own_scheduler_gives_all_gpus_once_repaired(count, requested, repaired, expected):
    """NNI's scheduler with its own means of drawing a machine."""
    case = json.dumps([str(NNI_NODE), count, requested, repaired])
    done = node("-e", SCHEDULER, env={**os.environ, "PRELOAD": str(PRELOAD), "CASE": case})
    assert json.loads(done.stdout) == expected, done.stderr


USABLE = ["0.5", "3", "true", '{"default": 1, "loss": NaN}', '{"__ndarray__": 0.5, "dtype": "float64"}', "-1e-9"]
UNUSABLE = ["NaN", "-Infinity", '"0.5"', "null", "[0.5]", "{}", '{"default": "0.5"}', '{"default": NaN}',
            '{"__ndarray__": [0.5, 0.6]}', '{"__nni_obj__": "gASV"}', '{"default": null}']  # fmt: skip


def test_a_final_result_is_usable_where_a_tuner_can_compare_it():
    file = json.dumps(str(PRELOAD.parent / "trial_end.js"))
    report = "t.judge(id, JSON.stringify({type: 'FINAL', value}), console)"
    script = (
        f"const t = require({file}); console.log(JSON.stringify({json.dumps(USABLE + UNUSABLE)}.map((value, id) => "
        f"{{ {report}; const trial = {{ id, status: 'SUCCEEDED' }}; t.settle(trial, 0); return trial; }})))"
    )
    trials = json.loads(node("-e", script).stdout)
    assert [trial["status"] for trial in trials] == ["SUCCEEDED"] * len(USABLE) + ["FAILED"] * len(UNUSABLE)
    assert all("message" in trial for trial in trials[len(USABLE) :])


def test_a_tuner_hears_of_a_result_right_before_its_trials_end_and_never_of_a_persons_trial():
    file = json.dumps(str(PRELOAD.parent / "trial_end.js"))
    script = f"""
        const t = require({file});
        const metric = JSON.stringify({{ type: 'FINAL', value: '0.5' }});
        const end = (id, event) => JSON.stringify({{ trial_job_id: id, event, hyper_params: id === 'persons'
            ? '{{"parameter_id": null}}' : '{{"parameter_id": 7}}' }});
        const heard = (id, event) => {{
            t.judge(id, metric, console);
            return [...t.commands('ME', metric), ...t.commands('EN', end(id, event))].map(({{ type }}) => type);
        }};
        console.log(JSON.stringify([heard('a', 'SUCCEEDED'), heard('b', 'FAILED'), heard('persons', 'FAILED')]));
    """
    assert json.loads(node("-e", script).stdout) == [["ME", "EN"], ["EN"], []]


PRUNED = """
const t = require(FILE);
const ended = (id, final, exitCode) => {
    t.judge(id, JSON.stringify({ type: 'PERIODICAL', value: '0.25' }), console);
    if (final) t.judge(id, JSON.stringify({ type: 'FINAL', value: final }), console);
    t.pruned.add(id); t.cancelled.add(id);
    const trial = { id, status: 'SUCCEEDED' };
    t.settle(trial, exitCode);
    const end = JSON.stringify({ trial_job_id: id, event: trial.status, hyper_params: '{"parameter_id": 7}' });
    const sent = t.commands('EN', end).map(({ type, content }) =>
        type === 'ME' ? JSON.parse(JSON.parse(content).value) : JSON.parse(content).event);
    return [trial.status, ...sent];
};
console.log(JSON.stringify([
    ended('ours', '{"default": 0.5, "interrupted": 1}', 0),
    ended('whole', '{"default": 0.5, "interrupted": 0}', 0),
    ended('foreign', null, null),
    ended('failed', null, 1),
]));
"""


def test_a_trial_that_the_assessor_stops_is_early_stopped_and_its_tuner_gets_what_it_reached():
    """Its own result so far, or else its last intermediate one; its end is then one with a result, which NNI's Evolution needs."""
    done = node("-e", PRUNED.replace("FILE", json.dumps(str(PRELOAD.parent / "trial_end.js"))))
    ours = {"default": 0.5, "interrupted": 1}
    assert json.loads(done.stdout) == [
        ["EARLY_STOPPED", ours, "SUCCEEDED"],
        ["SUCCEEDED", {"default": 0.5, "interrupted": 0}, "SUCCEEDED"],
        ["EARLY_STOPPED", {"default": 0.25, "interrupted": 1}, "SUCCEEDED"],
        ["FAILED", "FAILED"],
    ], done.stderr


def nnictl(home: Path, *words: str) -> subprocess.CompletedProcess:
    env = with_repairs({**os.environ, "HOME": str(home)})
    return subprocess.run(
        [*NNICTL, *words], env=env, cwd=home, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def registered(home: Path, working: Path, status: str = "STOPPED", **config) -> Recorder:
    """A stopped experiment of NNI 3 in a working directory of its own, known to the registry of that home."""
    recorder = Recorder(working, **config)
    recorder.trial(0, final(0.8))
    (recorder.folder / "log").mkdir()
    (recorder.folder / "log" / "nnictl_stderr.log").write_text("")
    entry = {"id": "exp00001", "status": status, "pid": 2**22 + 1, "port": 8080, "startTime": 1, "logDir": str(working)}
    (home / "nni-experiments").mkdir(parents=True, exist_ok=True)
    (home / "nni-experiments" / ".experiment").write_text(json.dumps({"exp00001": entry}))
    return recorder


def test_an_experiment_is_saved_with_its_code_and_loaded_elsewhere(tmp_path):
    """NNI 3.0: KeyError: 'trial' in both, and FileNotFoundError where the working directory is not its home's."""
    code, there, here = (tmp_path / name for name in ("code", "there", "here"))
    for folder in (code / ".venv", here / "new_code", here / "new_work"):
        folder.mkdir(parents=True)
    (code / "trial.py").write_text("1")
    (code / ".venv" / "huge").write_text("x" * 1000)
    service = {"platform": "local", "trialCodeDirectory": str(code)}
    registered(there, tmp_path / "work", trialCodeDirectory=str(code), trainingService=service)
    saved = nnictl(there, "experiment", "save", "exp00001", "--saveCodeDir", "--path", str(tmp_path / "out"))
    assert saved.returncode == 0 and "Traceback" not in saved.stderr, saved.stderr
    archive = tmp_path / "out" / "nni_experiment_exp00001.zip"
    names = zipfile.ZipFile(archive).namelist()
    assert {"code/trial.py", "experiment/db/nni.sqlite"} <= set(names) and not any(".venv" in name for name in names)
    loaded = nnictl(here, "experiment", "load", "--path", str(archive), "--codeDir", "new_code", "--logDir", "new_work")
    assert loaded.returncode == 0 and "Traceback" not in loaded.stderr, loaded.stderr
    assert (here / "new_code" / "trial.py").is_file()
    config = load_experiment(here / "new_work" / "exp00001").config
    assert config["trialCodeDirectory"] == config["trainingService"]["trialCodeDirectory"] == str(here / "new_code")
    assert config["experimentWorkingDirectory"] == str(here / "new_work")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resume", "nobody"), "nobody is not in NNI's registry"),
        (("view", "exp00001"), "trial_code_directory"),
        (("create", "--config", "wrong.yml"), "does not have field(s) foo"),
    ],
)
def test_what_nnictl_refuses_is_one_line(words, message, tmp_path):
    service = {"platform": "local", "trialCodeDirectory": str(tmp_path / "gone")}
    registered(
        tmp_path, tmp_path / "nni-experiments", trialCodeDirectory=str(tmp_path / "gone"), trainingService=service
    )
    (tmp_path / "wrong.yml").write_text("foo: 1\n")
    done = nnictl(tmp_path, *words)
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


API = """
import os, sys
from experiments.repairs import with_repairs
os.environ.update(with_repairs(os.environ))
from nni.experiment import Experiment
experiment = Experiment("local")
experiment.config.trial_command, experiment.config.trial_code_directory = "python -V", "."
experiment.config.search_space, experiment.config.trial_concurrency = {}, 1
experiment.config.tuner.name, experiment.config.assessor = "Random", None
try:
    experiment.start(int(sys.argv[1]))
except RuntimeError as error:
    print(type(error).__name__, error)
"""


def test_a_manager_that_never_answers_is_ended_and_anothers_answer_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(nni_start, "START_S", 1.5)
    (tmp_path / "api/v1/nni").mkdir(parents=True)
    (tmp_path / "api/v1/nni/check-status").write_text('{"status": "INITIALIZED"}')
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert nni_start._ask(port, None, "/check-status") == {"status": "INITIALIZED"}
        args = SimpleNamespace(port=port, url_prefix=None, experiments_directory=str(tmp_path), experiment_id="x")
        start = nni_start.Start(args, subprocess.Popen(["sleep", "60"], start_new_session=True))
        with pytest.raises(nni_start.NotStarted, match=r"has not answered within 2 s .* and was ended, without a word"):
            start.wait()
        start.end()
        server.shutdown()
    assert start.process.returncode == -9


def test_nnis_python_api_starts_a_manager_in_the_same_way(tmp_path):
    (tmp_path / "dies.js").write_text("throw new Error('no stove')")
    env = {**os.environ, "HOME": str(tmp_path), "NODE_OPTIONS": f"--require {tmp_path / 'dies.js'}"}
    command = [sys.executable, "-c", API, str(find_port(18790))]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "StartError NNI's manager ended while it started (exit code 1)" in done.stdout, done.stdout + done.stderr
    assert "Create experiment failed" not in done.stdout


def test_a_python_that_is_not_nnictl_is_not_touched_and_plain_nni_stays_plain(tmp_path):
    install(tmp_path)
    line = (tmp_path / NAME_OF_LINE).read_text()
    look = "print(any(type(finder).__name__ == 'Importer' for finder in sys.meta_path))"
    for words, off, expected in [((), "", False), (("nnictl",), "", True), (("nnictl",), "off", False)]:
        (tmp_path / "run.py").write_text(f"import sys\nsys.orig_argv = ['python', *{list(words)!r}]\n{line}{look}\n")
        env = {**os.environ, SWITCH: off}
        done = subprocess.run(
            [sys.executable, tmp_path / "run.py"], env=env, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == str(expected), done.stderr
