"""The result of a confirmation: the numbers by hand, the verdicts, the page and its files."""

from __future__ import annotations

import csv
import json
import re
import statistics

import numpy as np
import pytest
from fixtures_confirm import SCORES, confirming, plan_of, search, train
from golden import golden
from scipy import stats

from analysis.reading.reader import load_experiment
from analysis.reading.replication import ConfirmationPlan, cells_of, read_plan, write_plan
from analysis.render import markdown, terminal
from analysis.reports.confirmation import (
    accuracy_rows,
    confirmation_document,
    confirmation_summary,
    difference_rows,
    write_confirmation,
)
from analysis.reports.confirmation_result import confirmation_result, screening
from analysis.stats.blocked import detectable

EVIL = "<script>alert(1)</script>"
pytestmark = pytest.mark.usefixtures("nni")


def cells(plan, *recorders):
    return cells_of(plan, [load_experiment(recorder.folder) for recorder in recorders])


def result_of(plan, *recorders):
    return confirmation_result(plan, cells(plan, *recorders))


def test_the_numbers_by_hand(plan, nni):
    recorder = confirming(nni, plan)
    train(recorder, plan, SCORES)
    result = result_of(plan, recorder)
    first, second, default = result["configurations"]
    assert first["validation"]["mean"] == pytest.approx(0.81) and first["validation"]["sd"] == pytest.approx(0.01)
    assert second["evaluation"]["mean"] == pytest.approx(0.82) and default["evaluation"]["images"] == 400
    assert result["chosen"] == "rank 2" and result["comparisons"] == 2
    assert result["verdict"] == "difference_shown"
    values = np.array([[0.70, 0.80, 0.84], [0.72, 0.82, 0.85], [0.68, 0.81, 0.83]])
    residuals = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    error = (np.sum(residuals**2) / 4 * 2 / 3) ** 0.5  # 3 configurations and 3 seeds leave 4 degrees of freedom
    half = 3.31 * error  # Dunnett's table of two arms and 4 degrees of freedom
    for pairs in (second["less_default"], result["evaluation"]):
        assert pairs["mean"] == pytest.approx(0.14) and pairs["left_out"] == 0 and pairs["df"] == 4 and pairs["pooled"]
        assert (pairs["low"], pairs["high"]) == pytest.approx((0.14 - half, 0.14 + half), abs=1e-4)
        assert pairs["p_t"] == pytest.approx(2 * stats.t.sf(0.14 / error, 4)) and pairs["p_flip"] == 0.25
        assert pairs["p_t"] < pairs["p_adjusted"] < 2 * pairs["p_t"]
    optimism = second["optimism"][0]
    half = stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert optimism["realised"] == pytest.approx(0.8 - 0.84)
    assert optimism["interval"] == pytest.approx([-0.04 - half, -0.04 + half])
    assert first["optimism"][0]["realised"] == pytest.approx(0.9 - 0.81)


def judged(nni, shifts, **failed):
    """The result of one tuned configuration that is so much better than the default with each seed; `failed` has the seeds
    whose training failed, by "tuned" and "default"."""
    plan = plan_of(search(nni, "search01", (0.9, 0.02)), top=1, seeds=len(shifts))
    recorder = confirming(nni, plan)
    scores = {("rank 1", seed): 0.7 + shift for seed, shift in enumerate(shifts, 1)}
    scores |= {("default", seed): 0.7 for seed in plan.seeds}
    scores |= {("rank 1", seed): None for seed in failed.get("tuned", ())}
    scores |= {("default", seed): None for seed in failed.get("default", ())}
    train(recorder, plan, scores)
    return result_of(plan, recorder)


@pytest.mark.parametrize(
    ("shifts", "verdict", "better"),
    [
        ((0.10, -0.10, 0.01, 0.02, -0.03), "no_difference_shown", None),
        ((-0.10, -0.11, -0.12, -0.11), "difference_shown", "The default"),
        ((0.10, 0.11, 0.12, 0.11), "difference_shown", "The tuned configuration"),
        ((0.05, 0.05, 0.05, 0.05), "no_difference_shown", None),
        ((0.10, 0.11, 0.12), "not_estimable", "Whether"),
        ((0.10, 0.11), "not_estimable", "Whether"),
    ],
)
def test_the_verdicts(nni, shifts, verdict, better):
    """Equal differences have no t interval: the sign-flip test, which 4 pairs leave at p = 0.125, decides. Fewer than 4 pairs
    claim nothing, as compare claims nothing from fewer than 4 experiments of each."""
    result = judged(nni, shifts)
    assert result["verdict"] == verdict and (better is None or result["headline"].startswith(better))
    assert result["statement"] == " ".join([result["headline"], *result["details"]])
    assert any("default's mean validation" in text for text in result["details"]) == (sum(shifts) <= 0)


@pytest.mark.parametrize(
    ("failed", "verdict"),
    [
        ({}, "difference_shown"),
        ({"tuned": (1, 4, 6)}, "no_difference_shown"),
        ({"tuned": (3,)}, "difference_shown"),
        ({"tuned": (3, 8)}, "no_difference_shown"),
        ({"default": (2,)}, "difference_shown"),
        ({"tuned": (5,), "default": (5,)}, "difference_shown"),
    ],
)
def test_failed_trainings_count_against_their_configuration(nni, failed, verdict):
    result = judged(nni, (0.02, 0.03, 0.01, 0.03, 0.02, 0.03, 0.02, 0.02), **failed)
    assert result["verdict"] == verdict
    lost = result["evaluation"]["with_failures"]
    assert (lost is None) == (not failed)
    if failed == {"tuned": (3,)}:
        assert lost["n"] == 8 and lost["mean"] == pytest.approx((0.02 * 4 + 0.03 * 3 - 0.03) / 8)
        assert "counted as a loss of its configuration" in result["statement"]


def test_a_difference_that_is_shown_to_be_small(nni):
    small = judged(nni, (0.001, -0.002, 0.001, 0.0, 0.002, -0.001))
    assert small["evaluation"]["equivalence"]["holds"] and "No difference greater than 1.0 points" in small["statement"]


def test_a_difference_that_is_neither_shown_nor_shown_to_be_small(nni):
    large = judged(nni, (0.03, -0.03, 0.02, -0.01, 0.03, 0.0))
    assert not large["evaluation"]["equivalence"]["holds"]
    assert "not enough data to say that the difference is below 1.0 points" in large["statement"]
    pairs = large["evaluation"]
    sd = statistics.stdev(pairs["by_seed"].values()) / 2**0.5
    assert pairs["detectable"] == pytest.approx(sd * detectable(6))


def test_the_first_stage_chooses_and_the_second_alone_is_judged(nni, tmp_path):
    plan = plan_of(search(nni, "search01", (0.9, 0.02), (0.8, 0.01)), seeds=4, screen=2)
    assert (plan.screen, plan.seeds) == ((1, 2), (3, 4, 5, 6)) and plan.request["screen"] == 2
    first, last = plan.screening, plan.final("rank 2")
    assert [c.name for c in first.configurations] == ["rank 1", "rank 2"] and first.experiment != last.experiment
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path, ConfirmationPlan) == plan
    chosen = confirming(nni, first, "conf0001")
    train(chosen, first, {("rank 1", 1): 0.9, ("rank 1", 2): None, ("rank 2", 1): 0.5, ("rank 2", 2): 0.6})
    screened = screening(first, cells(first, chosen))
    assert screened["chosen"] == "rank 2", "a failed training counts against its configuration"
    assert "evaluation" not in screened["configurations"][0] and screened["cells"]["failed"] == 1
    judge = confirming(nni, last, "conf0002")
    scores = {("default", seed): 0.7 + 0.001 * seed for seed in last.seeds}
    train(judge, last, scores | {("rank 2", seed): 0.8 for seed in last.seeds})
    trained = [*cells(first, chosen), *cells(last, judge)]
    result = confirmation_result(last, cells(last, judge), screened=screened)
    assert result["verdict"] == "difference_shown" and result["comparisons"] == 1 and result["evaluation"]["n"] == 4
    expected = stats.ttest_rel([0.8] * 4, [0.703, 0.704, 0.705, 0.706]).confidence_interval()
    assert (result["evaluation"]["low"], result["evaluation"]["high"]) == pytest.approx(tuple(expected))
    assert "chosen of 2 by its mean validation accuracy over 2 seeds; it is judged by 4 others" in result["statement"]
    page = write_confirmation(tmp_path, result, trained, plan.settings).read_text()
    assert "The first stage" in page and "rank 2 (goes on)" in page
    with (tmp_path / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["evaluation_top1"] == "" for row in rows] == [True] * 4 + [False] * 8


def test_failed_cells_are_counted_and_named_and_their_pairs_are_left_out(plan, nni):
    recorder = confirming(nni, plan)
    train(recorder, plan, SCORES | {("rank 2", 2): None, ("default", 3): None})
    output = recorder.output("t0004") / "trial.stderr"
    output.write_text("Traceback\nRuntimeError: no pan in this kitchen\n")
    result = result_of(plan, recorder)
    assert result["cells"] == {"succeeded": 7, "failed": 2, "missing": 0}
    _, second, default = result["configurations"]
    assert (second["n"], second["planned"], default["n"]) == (2, 3, 2)
    assert (second["less_default"]["n"], second["less_default"]["left_out"]) == (1, 2)
    assert result["chosen"] == "rank 1", "the better mean of fewer seeds is not chosen"
    assert (result["evaluation"]["n"], result["evaluation"]["left_out"]) == (2, 1)
    assert [(cell["configuration"], cell["seed"]) for cell in result["failed"]] == [("rank 2", 2), ("default", 3)]
    assert result["failed"][0]["reason"] == "RuntimeError: no pan in this kitchen"
    assert "2 of 9 cells failed (rank 2 seed 2, default seed 3)" in result["statement"]
    assert result["verdict"] == "not_estimable"


def test_one_pair_or_none_cannot_answer(plan, nni):
    recorder = confirming(nni, plan)
    alone = {("rank 1", 2), ("default", 2), ("rank 2", 1)}
    train(recorder, plan, {cell: score if cell in alone else None for cell, score in SCORES.items()})
    result = result_of(plan, recorder)
    assert (result["verdict"], result["chosen"], result["evaluation"]) == ("not_estimable", "rank 2", None)
    other = confirming(nni, plan, "conf0002")
    train(other, plan, dict.fromkeys(SCORES))
    nothing = result_of(plan, other)
    assert (nothing["verdict"], nothing["chosen"], nothing["evaluation"]) == ("not_estimable", None, None)
    assert "9 of 9 cells failed" in nothing["statement"]


def test_the_page_and_its_files(plan, nni, tmp_path):
    recorder = confirming(nni, plan)
    train(recorder, plan, SCORES)
    shared = {"photos_in_two_splits": {"training/evaluation": 12}}
    (recorder.output("t0000") / "result.json").write_text(json.dumps(shared))
    trained = cells(plan, recorder)
    result = confirmation_result(plan, trained)
    page = write_confirmation(tmp_path / "out", result, trained, plan.settings).read_text()
    written = json.loads((tmp_path / "out/confirm.json").read_text())
    assert written["verdict"] == "difference_shown" and written["experiments"] == ["conf0001"]
    with (tmp_path / "out/cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and rows[1]["configuration"] == "rank 2" and float(rows[1]["val_accuracy"]) == 0.84
    assert page.count('class="figure"') == 2 and f"<b>{result['headline']}</b>" in page
    assert "<li>12 photos are in both training and evaluation" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    golden("confirmation.txt", markdown.render(confirmation_document(result, trained, plan.settings)))
    summary = terminal.render(confirmation_summary(result))
    assert summary.startswith("verdict: difference_shown\n") and "rank 2 (chosen)" in summary
    assert "84.0 ± 1.0 % (n = 3)" in summary


def test_foreign_text_is_escaped_on_the_page(nni, tmp_path):
    plan = plan_of(search(nni, "search01", (0.9, 0.02), experimentName=EVIL), top=1)
    recorder = confirming(nni, plan)
    tuned = {("rank 1", seed): None if seed == 2 else 0.8 for seed in (1, 2, 3)}
    train(recorder, plan, tuned | {("default", seed): 0.7 for seed in (1, 2, 3)})
    (recorder.output("t0002") / "trial.stderr").write_text(f"Error: {EVIL}\n")
    trained = cells(plan, recorder)
    page = write_confirmation(tmp_path, confirmation_result(plan, trained), trained, plan.settings).read_text()
    assert EVIL not in page and page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2


def test_the_numbers_of_the_figures(plan, nni):
    recorder = confirming(nni, plan)
    train(recorder, plan, SCORES, evaluation=-0.05)
    result = result_of(plan, recorder)
    lines = difference_rows(result)
    assert [line.label for line in lines] == ["rank 1, validation", "rank 2, validation", "rank 2, evaluation"]
    assert lines[1].by_seed == pytest.approx({"1": 0.14, "2": 0.13, "3": 0.15})
    assert lines[1].interval[0] == result["configurations"][1]["less_default"]["low"]  # 4 degrees of freedom
    rows, searched = accuracy_rows(result)
    assert [row.label for row in rows] == ["rank 1", "rank 2", "default"]
    assert searched == [("rank 1", 0.9), ("rank 2", 0.8)]
    assert list(rows[0].by_seed.values()) == [0.80, 0.82, 0.81]
