"""Figures: what a round is, when a goal is met, what is written; and that a log keeps its entries."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import gpu_check, table
from benchmarks.__main__ import parse
from benchmarks.measure import alternate, ratios
from benchmarks.table import Figure, Report, short


def test_ways_take_turns_and_the_first_round_does_not_count():
    calls = []
    ways = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in ("a", "b")}
    values = alternate(ways, rounds=3)
    assert calls == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert values == {"a": [3.0, 6.0, 7.0], "b": [4.0, 5.0, 8.0]}
    assert ratios(values["a"], values["b"]) == [0.75, 1.2, 0.875]


@pytest.mark.parametrize(
    ("goal", "value", "met"), [(">= 0.97", 0.97, True), (">= 2", 1.9, False), ("<= 1.25", 1.3, False), ("", 1.0, None)]
)
def test_a_goal_is_met_or_not(goal, value, met):
    figure = Figure("x", value, "", 3, (value, value), goal)
    assert figure.meets_goal is met
    assert ("NOT met" in str(figure)) == (met is False)


def test_a_report_keeps_median_n_and_spread(tmp_path, capsys):
    report = Report()
    report.add("speed", [3.0, 1.0, 2.0], "images/s", ">= 1", "noted")
    report.write(tmp_path / "latest.json", {"device": "CPU"})
    written = json.loads((tmp_path / "latest.json").read_text())
    assert written["speed"] == {
        "value": 2.0, "unit": "images/s", "n": 3, "spread": [1.0, 3.0], "goal": ">= 1", "note": "noted",
        "machine": {"device": "CPU"},
    }  # fmt: skip
    another = Report()
    another.add("size", [1.0, 2.0], "MiB")
    another.write(tmp_path / "latest.json", {"device": "GPU"})
    both = json.loads((tmp_path / "latest.json").read_text())
    assert both["speed"] == written["speed"] and both["size"]["machine"] == {"device": "GPU"}
    assert "(n = 3, 1 to 3)" in capsys.readouterr().out
    assert (short(1234.5), short(0.98765)) == ("1234", "0.988")


def test_parts_are_held_to_those_there_are():
    assert parse(["memory", "pipeline"]).parts == ["memory", "pipeline"]
    for words in (["speed"], ["--rounds", "1"]):
        with pytest.raises(SystemExit):
            parse(words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: make gpu-check is the test")
def test_without_a_gpu_gpu_check_is_one_line(capsys):
    assert gpu_check.main([]) == 1
    assert capsys.readouterr().err.startswith("error: torch")


def test_the_newest_entry_stands_first_and_the_others_stay(tmp_path, monkeypatch):
    log = tmp_path / "log.md"
    log.write_text(f"# Log\n\nNewest first; what did not help {gpu_check.HEAD}\n## older\n\ntext\n")
    monkeypatch.setattr(gpu_check, "LOG", log)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    gpu_check.append_entry({"torch": "2"}, [Figure("speed", 2.0, "images/s", 3, (1.0, 3.0))], "experiment x DONE")
    text = log.read_text()
    assert text.index("gpu-check on a card") < text.index("## older") and "torch 2." in text
    assert "n = 3" in text and "experiment x DONE" in text


def test_the_page_shows_what_was_measured(tmp_path, monkeypatch, capsys):
    report = Report()
    report.add("pipeline efficiency, 64 px, batch 8", [0.96, 0.9, 0.97], "", ">= 0.97")
    report.add("a step beside its model, 64 px, batch 8", [1.0, 2.0, 1.5], "%")
    report.add("the model alone, 64 px, batch 8", [100.0, 90.0], "images/s")
    report.add("peak of a trial, 96 px, batch 32", [1.1], "times", "<= 1.2", "a note")
    latest, page = tmp_path / "latest.json", tmp_path / "page.md"
    report.write(latest, {"device": "CPU, fp32", "torch": "2", "load": "1.0"})
    page.write_text(f"head\n{table.BEGIN}\nold\n{table.END}\ntail\n")
    monkeypatch.setattr(table, "LATEST", latest)
    monkeypatch.setattr(table, "PAGE", page)
    assert table.main() == 0
    text = page.read_text()
    assert text.startswith("head\n") and text.endswith("tail\n") and "old" not in text
    assert "Measured on CPU, fp32, torch 2. Median" in text
    assert "| 64 px | **0.96 (0.9 to 0.97), n = 3 missed**; 1.5 % (1 to 2), n = 3 |" in text
    assert "| 64 px | 95 images/s (90 to 100), n = 2 |" in text
    assert "| peak of a trial, 96 px, batch 32 | 1.1 times, n = 1 | at most 1.2: met | a note |" in text
    latest.write_text("[]")
    assert table.main() == 1 and "make bench" in capsys.readouterr().err
