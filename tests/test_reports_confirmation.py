"""The result of a confirmation: the numbers by hand, the verdicts, the page and its files."""

from __future__ import annotations

import csv
import json
import re

import pytest
from fixtures_confirm import SCORES, confirming, plan_of, search, train
from golden import golden
from scipy import stats

from analysis.reading.reader import load_experiment
from analysis.reading.replication import cells_of
from analysis.render import markdown, terminal
from analysis.reports.confirmation import (
    accuracy_rows,
    confirmation_document,
    confirmation_result,
    confirmation_summary,
    difference_rows,
    write_confirmation,
)

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
    expected = stats.ttest_rel([0.84, 0.85, 0.83], [0.70, 0.72, 0.68])
    interval = expected.confidence_interval(0.975)
    for pairs in (second["less_default"], result["evaluation"]):
        assert pairs["mean"] == pytest.approx(0.14) and pairs["left_out"] == 0
        assert (pairs["low"], pairs["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
        assert pairs["p_t"] == pytest.approx(expected.pvalue) and pairs["p_flip"] == 0.25
    assert result["evaluation"]["p_t_adjusted"] == pytest.approx(2 * expected.pvalue)
    other = stats.ttest_rel([0.80, 0.82, 0.81], [0.70, 0.72, 0.68]).pvalue
    smaller, larger = sorted([expected.pvalue, other])
    by_holm = {smaller: 2 * smaller, larger: max(2 * smaller, larger)}
    assert second["less_default"]["p_t_adjusted"] == pytest.approx(by_holm[expected.pvalue])
    assert first["less_default"]["p_t_adjusted"] == pytest.approx(by_holm[other])
    optimism = second["optimism"][0]
    half = stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert optimism["realised"] == pytest.approx(0.8 - 0.84)
    assert optimism["interval"] == pytest.approx([-0.04 - half, -0.04 + half])
    assert optimism["expected"] is None and first["optimism"][0]["expected"] > 0


@pytest.mark.parametrize(
    ("shifts", "verdict", "better"),
    [
        ((0.10, -0.10, 0.01), "no_difference_shown", None),
        ((-0.10, -0.11, -0.12), "difference_shown", "The default"),
        ((0.10, 0.11, 0.12), "difference_shown", "The tuned configuration"),
        ((0.05, 0.05, 0.05), "no_difference_shown", None),
    ],
)
def test_the_verdicts(nni, shifts, verdict, better):
    """Equal differences have no t interval: the sign-flip test, which 3 pairs leave at p = 0.25, decides."""
    plan = plan_of(search(nni, "search01", (0.9, 0.02)), top=1)
    recorder = confirming(nni, plan)
    default = {("default", seed): 0.7 for seed in (1, 2, 3)}
    train(recorder, plan, default | {("rank 1", seed): 0.7 + shift for seed, shift in zip((1, 2, 3), shifts)})
    result = result_of(plan, recorder)
    assert result["verdict"] == verdict and (better is None or result["headline"].startswith(better))
    assert result["statement"] == " ".join([result["headline"], *result["details"]])
    assert any("default's mean validation" in text for text in result["details"]) == (sum(shifts) <= 0)


def test_a_large_but_uncertain_difference_has_the_seeds_that_would_show_it(plan, nni):
    recorder = confirming(nni, plan)
    near = dict(zip((1, 2, 3), (0.65, 0.76, 0.66)))
    train(recorder, plan, SCORES | {("default", seed): value for seed, value in near.items()})
    result = result_of(plan, recorder)
    pairs = result["evaluation"]
    assert result["verdict"] == "no_difference_shown" and pairs["low"] < 0 < pairs["alone"][0]
    assert f"about {pairs['seeds_needed']} seeds" in result["statement"] and "--top 1" in result["statement"]


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
    assert lines[1].interval is None  # three pairs bound no mean
    rows, searched = accuracy_rows(result)
    assert [row.label for row in rows] == ["rank 1", "rank 2", "default"]
    assert searched == [("rank 1", 0.9), ("rank 2", 0.8)]
    assert list(rows[0].by_seed.values()) == [0.80, 0.82, 0.81]
