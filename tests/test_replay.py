"""Replays: the tuners' own proposals, answers whose truth is known, regret recomputed by other code, and bad input."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import yaml
from conftest import ROOT
from fixtures_surface import EPOCHS, LAB, made_accuracy, made_surface
from nni.algorithms.hpo.tpe_tuner import TpeTuner

from benchmarks import replay_report
from benchmarks.answers import Answers
from benchmarks.replay import Arm, Budget, ReplayError, _Nni, read_arm, replay, variants
from benchmarks.replay_numbers import WITHIN, Curves, band, better, from_when, ratio
from benchmarks.surface import SurfaceError
from experiments.config import Experiment

SPACE = json.loads((ROOT / "search_spaces" / "report.json").read_text())


@pytest.fixture(scope="module")
def answers() -> Answers:
    return Answers(made_surface(LAB))


@pytest.fixture(scope="module")
def exact() -> Answers:
    """Without noise."""
    return Answers(made_surface(LAB, noise=0))


def arm_of(tuner, name="arm", assessor=None, concurrency=1, space=SPACE) -> Arm:
    config = {"tuner": tuner, "assessor": assessor, "searchSpace": space, "trialConcurrency": concurrency}
    return Arm(name, Experiment(ROOT / "experiments" / "arm.yml", config), concurrency)


def tpe(**arguments) -> dict:
    return {"name": "TPE", "classArgs": {"optimize_mode": "maximize", **arguments}}


def point(lr, batch_size=32, momentum=0.5):
    return {"batch_size": batch_size, "momentum": momentum, "lr": lr}


# -- answers -------------------------------------------------------------------------------------------------------------


def test_between_two_learning_rates_the_truth_is_interpolated_on_the_log_scale(exact):
    low, high = LAB["lr"][4], LAB["lr"][5]
    rng = np.random.default_rng(0)
    truth = {lr: exact.answer(point(lr), rng).truth for lr in (low, math.sqrt(low * high), high)}
    assert truth[math.sqrt(low * high)] == pytest.approx((truth[low] + truth[high]) / 2)
    quarter = exact.answer(point(low**0.75 * high**0.25), rng).truth
    assert quarter == pytest.approx(0.75 * truth[low] + 0.25 * truth[high])


def test_answers_scatter_around_the_truth_as_the_seeds_do():
    surface = made_surface(LAB, noise=0.02)
    answers, rng = Answers(surface), np.random.default_rng(1)
    cell = point(LAB["lr"][6], 16, 0.7)  # of whatever number of seeds
    own = [t.kept_correct / 1000 for t in surface.trainings if t.point == cell]
    truth = answers.answer(cell, rng).truth
    finals = np.array([answers.answer(cell, rng).final for _ in range(4000)])
    assert finals.mean() == pytest.approx(truth, abs=0.002) and truth == pytest.approx(np.mean(own), abs=0.03)
    assert finals.std() == pytest.approx(np.std(own, ddof=1), rel=0.1, abs=0.002)


def test_the_truth_is_nearer_to_the_real_one_than_the_cells_means_are():
    """The best of 325 noisy means is a lucky one; smoothed, most of that is gone."""
    surface, rng = made_surface(LAB, noise=0.03), np.random.default_rng(0)
    answers, groups = Answers(surface), {}
    for training in surface.trainings:
        groups.setdefault(tuple(training.point.values()), []).append(training)
    real = {key: made_accuracy(group[0].point) * (1 - 0.5**EPOCHS) for key, group in groups.items()}
    raw = {key: np.mean([t.kept_correct for t in group]) / 1000 for key, group in groups.items()}
    smooth = {key: answers.answer(group[0].point, rng).truth for key, group in groups.items()}
    errors = [math.dist(list(each.values()), list(real.values())) for each in (raw, smooth)]
    assert answers.smoothing > 0 and errors[1] < 0.8 * errors[0]
    assert answers.best - max(real.values()) < 0.7 * (max(raw.values()) - max(real.values()))
    assert Answers(made_surface(LAB, noise=0)).smoothing == 0


def test_a_curve_is_a_recorded_one_moved_as_a_whole(exact):
    answer = exact.answer(point(LAB["lr"][6]), np.random.default_rng(0))
    recorded = next(t for t in exact.surface.trainings if t.point == point(LAB["lr"][6]))
    assert answer.curve == pytest.approx([count / 1000 for count in recorded.correct])
    assert answer.final == max(answer.curve) and len(answer.curve) == EPOCHS
    assert (answer.epoch_s, answer.before_s, answer.after_s) == (1.25, 3.6 + 0.25, 0.125)


def test_the_halves_share_no_seed_and_a_single_seed_borrows_the_others_spread():
    surface = made_surface(LAB, noise=0.02)
    halves = [Answers(surface, half) for half in ("first", "second")]
    assert [{t.seed for t in half.trainings} for half in halves] == [{0, 2, 4}, {1, 3}]
    single = next(
        t.point for t in surface.trainings if t.seed == 1 and sum(u.point == t.point for u in surface.trainings) == 2
    )
    finals = [halves[0].answer(single, np.random.default_rng(k)).final for k in range(2000)]
    assert np.std(finals) == pytest.approx(0.02, rel=0.35)


def test_cells_without_a_training_are_interpolated_and_counted():
    surface = made_surface(LAB, noise=0)
    part = made_surface(LAB, noise=0)
    missing = point(LAB["lr"][6])
    part.trainings[:] = [t for t in part.trainings if t.point != missing]
    answers = Answers(part)
    assert answers.filled == 1 and Answers(surface).filled == 0
    rng = np.random.default_rng(0)
    assert answers.answer(missing, rng).truth == pytest.approx(Answers(surface).answer(missing, rng).truth, abs=0.03)


def test_too_little_is_refused():
    with pytest.raises(SurfaceError, match="10 of 728 trainings.*too few to replay"):
        Answers(made_surface(LAB, trainings=10))


# -- searches ------------------------------------------------------------------------------------------------------------


def test_nnis_tpe_proposes_in_a_replay_what_it_proposes_alone(exact):
    """The same class, the same requests, results and ends: the same 25 points, of which the last five are chosen."""
    trace_points = []
    arm = arm_of(tpe())
    run = _Nni(arm, exact, Budget(25), seed=3, noise=np.random.default_rng(0))
    own_start = run._start
    run._start = lambda number, parameters: (trace_points.append(parameters), own_start(number, parameters))
    run.run()
    alone, expected = TpeTuner("maximize", 3), []
    alone.update_search_space(SPACE)
    for number in range(25):
        parameters = alone.generate_parameters(number)
        expected.append(parameters)
        alone.receive_trial_result(number, parameters, exact.answer(parameters, np.random.default_rng(0)).final)
        alone.trial_end(number, True)
    assert trace_points == expected


def test_a_seed_repeats_a_search_also_of_nnis_evolution(answers):
    evolution = arm_of({"name": "Evolution", "classArgs": {"optimize_mode": "maximize", "population_size": 4}})
    first, second = (replay(evolution, answers, Budget(12), 3) for _ in range(2))
    random.seed(99)
    assert first.traces == second.traces == replay(evolution, answers, Budget(12), 3).traces
    assert first.traces[0] != first.traces[1]
    assert not first.failures


def test_regret_by_trials_is_that_of_other_code(answers):
    replayed = replay(arm_of(tpe()), answers, Budget(15), 40)
    curves = Curves(replayed, answers)
    rng = np.random.default_rng(0)
    top = max(answers.answer(training.point, rng).truth for training in answers.surface.trainings)
    for row, trace in enumerate(replayed.traces):
        for k in (1, 7, 15):
            best = max(range(k), key=lambda i: (trace.measured[i], -i))
            assert curves.regret[row, k - 1] == pytest.approx(top - trace.truth[best])
            assert curves.best[row, k - 1] == trace.measured[best]
    trials, seconds = curves.reached()
    for row, trace in enumerate(replayed.traces):
        inside = [k for k in range(15) if curves.regret[row, k] <= WITHIN]
        assert trials[row] == (inside[0] + 1 if inside else math.inf)
        assert seconds[row] == (trace.ended_s[inside[0]] if inside else math.inf)
    half_way = float(np.median(curves.ended_s[:, 7]))
    expected = [
        curves.regret[row, sum(e <= half_way for e in trace.ended_s) - 1] for row, trace in enumerate(replayed.traces)
    ]
    assert curves.at(half_way).tolist() == expected
    assert np.isinf(curves.at(0.5)).all()


def test_seconds_are_start_epochs_and_evaluation(exact):
    trace = replay(arm_of(tpe()), exact, Budget(1), 1).traces[0]
    size = next(
        iter({s for s in LAB["batch_size"] if trace.ended_s[0] == pytest.approx(3.85 + 6 * (1 + 8 / s) + 0.125)})
    )
    assert size in LAB["batch_size"] and trace.epochs == [6]


def test_four_at_once_take_a_quarter_of_the_time_and_know_less(answers):
    guided = tpe(tpe_args={"n_startup_jobs": 5})
    one, four = (replay(arm_of(guided, concurrency=n), answers, Budget(16), 20) for n in (1, 4))
    last = [np.median([trace.ended_s[-1] for trace in each.traces]) for each in (one, four)]
    assert 3 < last[0] / last[1] < 4.2
    assert all(trace.ended_s == sorted(trace.ended_s) for trace in four.traces)


def test_an_assessor_cuts_recorded_curves_and_a_pruned_trial_is_not_evaluated(exact):
    asha = {"className": "asha.Asha", "codeDirectory": str(ROOT / "experiments" / "tuners"),
            "classArgs": {"optimize_mode": "maximize", "min_epochs": 2, "reduction_factor": 3}}  # fmt: skip
    plain, pruned = (replay(arm_of(tpe(), assessor=a), exact, Budget(15), 10) for a in (None, asha))
    for whole, cut in zip(plain.traces, pruned.traces):
        assert set(cut.epochs) == {2, 6} and all(p for e, p in zip(cut.epochs, cut.pruned) if e == 2)  # 6 is a rung too
        assert cut.ended_s[-1] < whole.ended_s[-1]
        assert cut.truth == whole.truth  # 15 random trials, whatever they report
        assert max(w for w, p in zip(cut.measured, cut.pruned) if not p) >= max(
            [0, *(w for w, p in zip(cut.measured, cut.pruned) if p)]
        )
    median = {"name": "Medianstop", "classArgs": {"optimize_mode": "maximize", "start_step": 2}}
    assert any(any(trace.pruned) for trace in replay(arm_of(tpe(), assessor=median), exact, Budget(15), 5).traces)


def test_hours_end_a_search(exact):
    budget = Budget(None, 0.05)
    trace = replay(arm_of(tpe()), exact, budget, 1).traces[0]
    assert 180 - 25 < trace.ended_s[-1] <= 180 and len(trace.measured) > 9


def test_our_own_tuners_and_the_files_of_the_repository_are_replayed(answers):
    for name in ("tpe", "evolution", "random", "tpe_guided", "evolution_guided", "tpe_seeded", "evolution_seeded"):
        arm = read_arm(ROOT / "experiments" / f"{name}.yml", answers)
        traces = replay(arm, answers, Budget(15), 2).traces
        assert [len(trace.measured) for trace in traces] == [15, 15]
        assert traces[0].truth != traces[1].truth


def test_variants_change_one_argument_each(answers):
    names = [variant.name for variant in variants(read_arm(ROOT / "experiments" / "tpe.yml", answers))]
    assert names == [f"tpe, start-up trials {n}" for n in (3, 5, 10, 20)] + [f"tpe, {n} at once" for n in (1, 2, 4)]
    evolution = variants(read_arm(ROOT / "experiments" / "evolution.yml", answers))
    assert [v.tuner["classArgs"]["population_size"] for v in evolution] == [5, 10, 20, 100, 100, 100, 100]
    assert [v.concurrency for v in evolution] == [1, 1, 1, 1, 1, 2, 4]


# -- numbers -------------------------------------------------------------------------------------------------------------


def test_bands_ratios_and_who_is_better():
    assert band(np.array([1.0, 2.0, 3.0, np.inf, np.inf])) == {
        "median": 3.0,
        "p10": 1.0,
        "p90": None,
        "n": 5,
        "finite": 3,
    }
    assert band(np.array([1.0, np.inf, np.inf]))["median"] is None
    first, second = np.array([3.0, 4.0, np.inf]), np.array([1.0, 2.0, np.inf])
    assert better(first, second)["probability"] == pytest.approx(6.5 / 9)  # infinite: none yet, a tie among themselves
    assert better(first, first)["probability"] == 0.5
    assert ratio(np.full(9, 2.0), np.full(9, 4.0)) == {"ratio": 0.5, "low": 0.5, "high": 0.5}
    assert ratio(np.full(9, np.inf), np.full(9, 4.0))["ratio"] is None


def test_a_budget_counts_only_from_where_the_arm_stays_ahead():
    worse, equal, ahead = np.full(50, 3.0), np.full(50, 2.0), np.full(50, 1.0)
    reference = np.full(50, 2.0)
    samples = [(1, reference, ahead), (2, reference, equal), (3, reference, ahead), (4, reference, ahead)]
    assert from_when(samples) == 3
    assert from_when([*samples, (5, reference, worse)]) is None


# -- bad input, and the command ------------------------------------------------------------------------------------------


class _Raises(TpeTuner):
    def generate_parameters(self, parameter_id, **kwargs):
        if parameter_id == 4 and self._seeded == 2:
            raise RuntimeError("no idea left")
        return super().generate_parameters(parameter_id, **kwargs)

    def __init__(self, optimize_mode, seed=None):
        super().__init__(optimize_mode, seed)
        self._seeded = seed


def test_a_tuner_that_raises_is_reported_with_its_seed(exact, monkeypatch):
    monkeypatch.setattr("benchmarks.replay.make_algorithm", lambda algorithm, kind: _Raises("maximize"))
    replayed = replay(arm_of(tpe()), exact, Budget(6), 5)
    assert replayed.failures == [(2, "RuntimeError: no idea left")] and len(replayed.traces) == 4
    with pytest.raises(ReplayError, match="every repeat failed, the first with seed 2: RuntimeError: no idea left"):
        replay(arm_of(tpe()), exact, Budget(6), 1, first_seed=2)


def written(tmp_path, space, **changes):
    content = yaml.safe_load((ROOT / "experiments" / "tpe.yml").read_text()) | changes
    del content["searchSpaceFile"]
    path = tmp_path / "mine.yml"
    path.write_text(yaml.safe_dump({**content, "searchSpace": space, "trialCodeDirectory": str(ROOT)}))
    return path


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {**SPACE, "weight_decay": {"_type": "uniform", "_value": [0, 1]}},
            "searches batch_size, lr, momentum, weight_decay",
        ),
        (
            {**SPACE, "momentum": {"_type": "choice", "_value": [0.1, 0.95]}},
            "momentum choice [0.1, 0.95] is not within",
        ),
        ({**SPACE, "lr": {"_type": "loguniform", "_value": [1e-5, 0.1]}}, "lr loguniform [1e-05, 0.1] is not within"),
        ({**SPACE, "momentum": {"_type": "uniform", "_value": [0.1, 0.9]}}, "momentum uniform"),
    ],
)
def test_a_space_that_was_not_measured_is_refused_by_name(tmp_path, answers, space, message):
    with pytest.raises(SurfaceError) as error:
        read_arm(written(tmp_path, space), answers)
    assert message in str(error.value) and "surface made" in str(error.value) and "mine.yml" in str(error.value)


def test_a_tuner_that_cannot_be_made_is_refused(tmp_path, answers):
    path = written(tmp_path, SPACE, tuner=tpe(speed=9))
    with pytest.raises(ReplayError, match="mine.yml: its tuner or assessor cannot be made"):
        read_arm(path, answers)


def test_the_command_writes_numbers_and_a_page_that_say_simulated(tmp_path, capsys):
    surface = tmp_path / "made.json.gz"
    made_surface(LAB).write(surface)
    words = ["--surface", str(surface), "--repeats", "30", "--out", str(tmp_path / "out"), "--sensitivity"]
    words += ["--file", str(ROOT / "experiments" / "tpe.yml"), "--file", str(ROOT / "experiments" / "evolution.yml")]
    assert replay_report.main([*words, "--trials", "6"]) == 0
    text, page = capsys.readouterr().out, (tmp_path / "out" / "replay.html").read_text("utf-8")
    numbers = json.loads((tmp_path / "out" / "replay.json").read_text("utf-8"))
    assert numbers["simulated"] is True and [arm["name"] for arm in numbers["arms"]] == ["tpe", "evolution", "random"]
    assert all(len(arm["by_trials"]) == 6 and arm["repeats"] == 30 for arm in numbers["arms"])
    medians = [entry["regret"]["median"] for entry in numbers["arms"][0]["by_trials"]]
    assert medians[0] > medians[-1] >= 0
    matrix = numbers["better"]
    assert matrix["tpe"]["random"]["probability"] + matrix["random"]["tpe"]["probability"] == pytest.approx(1)
    assert numbers["arms"][0]["against_first"]["regret"]["ratio"] == 1
    assert len(numbers["sensitivity"]) == 7 + 7 + 3
    for heading in ("After 6 trials (simulated)", "Regret by time (simulated)", "trials at once (simulated)"):
        assert heading in text and heading in page
    assert "from simulated searches." in page and "own database" not in page
    assert text.count("note: Simulated: no trial was run") == 1 and "Simulated: no trial was run" in page


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    assert replay_report.main(["--surface", str(tmp_path / "none.json.gz")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    for words in (["--trials", "3", "--hours", "1"], ["--repeats", "0"], ["--hours", "-1"], ["--start-up-s", "-2"]):
        with pytest.raises(SystemExit):
            replay_report.parse(["--surface", "sample", *words])
