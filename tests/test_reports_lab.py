"""docs/report.md: written from the folders of finished studies and compare's summary, the lab report's numbers beside ours."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
from conftest import ROOT
from fixtures_analysis import Recorder, final
from fixtures_study import part_of, plan_in, recorded
from golden import golden

from analysis.__main__ import main
from analysis.render.document import Document, Row, Statement, Table, Text
from analysis.render.formats import pairs_text
from analysis.render.markdown import code, render, text
from analysis.reports.lab_numbers import Setting, by_value, settings_of, settings_sentence
from analysis.reports.lab_report import _one_family, _Section
from analysis.reports.study import study_page
from analysis.stats.blocked import detectable
from analysis.stats.statement import DIFFERENCE, NO_DIFFERENCE


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def early(value, seed):
    curve = [0.2, 0.5 + 0.01 * seed, 0.6, 0.6, 0.55, 0.58]
    return {"curve": curve if value == 0 else curve[: 4 + seed % 2], "right": (9, 5, 8, 7, 3 + (seed if value else 0))}


def run_early_stopping(home, seeds=3):
    part, folder = part_of("early_stopping", seeds), home / "runs/studies/early_stopping"
    plan_in(folder, "early_stopping", part)
    recorded(home / "home", part, early)
    return study_page("early_stopping", folder)[0], folder


def report(*words) -> str:
    assert main(["report", *map(str, words)]) == 0
    with open("docs/report.md", encoding="utf-8") as file:
        return file.read()


def rows(page: str, label: str) -> list[list[str]]:
    """The cells of the table rows with this label."""
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return [cells[1:] for cells in lines if cells[0] == label]


def section(page: str, begin: str, end: str) -> str:
    return page.split(begin)[1].split(end)[0]


def test_the_lab_reports_numbers_are_beside_ours_with_n_spread_and_interval(home):
    result, _ = run_early_stopping(home)
    part = section(report(), "## (a)", "## (b)")
    assert rows(part, "Validation, best epoch: lab report") == [
        ["86.1 % (n = 1)", "85.3 % (n = 1)"],
        ["−0.8 points (n = 1, no interval)"],
    ]
    assert rows(part, "Seconds: lab report")[1] == ["−613.0 s (n = 1, no interval)"]
    assert rows(part, "Epochs run")[0] == ["6.0 ± 0.0 (n = 3)", "4.3 ± 0.6 (n = 3)"]
    row = next(row for row in result["differences"] if row["measure"] == "evaluation_top1")
    assert rows(part, "Evaluation, top-1")[1] == [f"+2.0 points ({pairs_text(row)}: three pairs bound no mean)"]
    assert result["headline"] in part and text(result["can"]) in part and text(result["cannot"]) in part
    assert "in 3 of 3 pairs (patience 5)" in part and "The lab report counts epochs from 0" in part


def test_the_page_names_what_differs_and_no_folder_of_the_machine(home):
    run_early_stopping(home)
    page = report()
    top = section(page, "## What differs from the lab report", "## Where")
    assert rows(top, "Data")[0][1:] == [
        "tiny_photos (early stopping); generated drawings, no photos (sample_cache) (tuners)",
        "yes",
    ]
    assert rows(top, "Images: training / validation / evaluation")[0] == [
        "7310 / 3430 / 3347",
        "300 / 50 / 50 (early stopping); – / 228 / 222 (tuners)",
        "yes",
    ]
    assert rows(top, "Classes")[0][1] == "5 (early stopping); 11 (tuners)" and "GTX 1070" in top
    assert rows(top, "Learning rate")[0][1] == "0.01 (early stopping); searched (tuners)"
    sentence = "Not as in the lab report: data, classes, images, weights at the start, side of an image, machine."
    assert sentence in section(page, "## (a)", "## (b)")
    origin = rows(section(page, "## Where the numbers come from", "## (a)"), "early stopping")
    assert origin[0][0] == "CPU, 1 threads, fp32" and origin[0][3] == "0123456789"
    assert "/home/" not in page and str(home) not in page


def test_drawings_are_named_where_the_records_have_them(home):
    run_early_stopping(home)
    before = report()
    assert "drawings" not in section(before, "## (a)", "## (b)")
    assert "Trained on drawings, not photos: tuners." in before, "the recorded pair is known by its cache"
    part, folder = part_of("balance", 2), home / "runs/studies/balance"
    plan_in(folder, "balance", part)
    note = {"generator": 1, "seed": 0}
    recorded(home / "home", part, lambda value, seed: early(0, seed) | {"generated": note})
    result, written = study_page("balance", folder)
    page = report()
    assert "Trained on drawings, not photos: tuners, balance." in page
    assert rows(page, "Classes of unequal size: sampling and balanced softmax")[0][-1].endswith("generated drawings")
    assert "generated drawings, no photos (tiny_photos) (balance)" in rows(page, "Data")[0][1]
    assert "300 training, 50 validation, 50 evaluation generated drawings" in result["cannot"]
    assert "evaluation generated drawings" in written.read_text()


def test_patience_and_momentum_are_there_where_they_are_recorded(home):
    run_early_stopping(home)
    page = report()
    assert rows(page, "Patience, epochs; 0: none")[0][1] == "varied: 0, 5 (early stopping); 5 (tuners)"
    assert rows(page, "Momentum")[0][:2] == ["– (early stopping); searched (tuners)"] * 2
    assert rows(page, "Machine, and precision")[0][0] == "GTX 1070"


def test_what_the_answer_would_take_on_food11_is_beside_it(home):
    run_early_stopping(home)
    part = section(report(), "## (a)", "## (b)")
    assert "2 arms of 5 seeds are 10 trainings of 25 epochs: about 6 hours at the lab report's 38 minutes each" in part
    assert f"they show a true difference of {detectable(5) / 2:.1f} points in 80 % of cases" in part


@pytest.mark.parametrize(("p", "shown"), [(0.03, False), (0.005, True)])
def test_the_answers_are_one_family(p, shown):
    """Of six answers, of which one alone shows a difference."""
    alone = Statement(DIFFERENCE, "Pretrained has higher top-1 accuracy.", ("By much.",))
    section = _Section([Text("a claim"), alone], alone, p, "5 seeds per arm", "photos", {}, {}, [])
    others = {str(n): replace(section, answer=Statement(NO_DIFFERENCE, "None."), blocks=[], p=0.5) for n in range(5)}
    found = _one_family({"pretrained": section, **others, "tuners": replace(section, p=None)})
    together = found["pretrained"]
    assert together.family_p == pytest.approx(6 * p) and together.blocks == [Text("a claim"), together.answer]
    assert together.answer.verdict == (DIFFERENCE if shown else NO_DIFFERENCE)
    assert together.answer.headline.startswith("Pretrained" if shown else "No difference is shown once the 6 answers")
    assert (
        f"p = {6 * p:.3g} over the 6 answers of this page (Holm)" in together.answer.text
        and "By much." in together.answer.text
    )
    assert found["tuners"].family_p is None and found["tuners"].answer == alone


def test_studies_that_were_not_run_have_their_command(home, capsys):
    run_early_stopping(home)
    plan_in(home / "runs/studies/balance", "balance", part_of("balance", 2))
    page = report()
    error = capsys.readouterr().err
    assert "pretrained, learning_rate, step_size, distill, balance" in error and "early_stopping" not in error
    assert "Not run. Start it with `python -m experiments study step_size`; then `python -m analysis study" in page
    assert "with `--weights FILE` where" in section(page, "### Pretrained", "### Learning rate")
    assert "Begun, without a result yet; continue with `python -m experiments study balance`" in page
    assert rows(page, "Learning rate")[0] == ["not run", "–", "–", "–"]


def test_the_page_is_written_from_what_the_files_have(home):
    """Another number in study.json is another number on the page, and NNI's records are not asked."""
    _, folder = run_early_stopping(home)
    shutil.rmtree(home / "home")
    before = report()
    content = json.loads((folder / "study.json").read_text())
    content["arms"][1]["validation"]["mean"] = 0.4321
    (folder / "study.json").write_text(json.dumps(content))
    after = report()
    assert rows(before, "Validation, best epoch")[0][1].startswith("60.0")
    assert rows(after, "Validation, best epoch")[0][1].startswith("43.2")


def test_a_failed_training_is_named(home):
    part, folder = part_of("learning_rate", 2), home / "runs/studies/learning_rate"
    plan_in(folder, "learning_rate", part)
    recorded(home / "home", part, lambda value, seed: None if (value, seed) == (0.005, 1) else early(0, seed))
    study_page("learning_rate", folder)
    part = section(report(), "### Learning rate", "### Epochs between")
    assert "Of 6 trainings 1 failed, left out of all numbers. What failed or was cut short is not repeated;" in part
    assert "`python -m experiments study learning_rate --out runs/studies/learning_rate_again` trains" in part
    assert "continues with" not in part
    assert rows(part, "Trainings with a result") == [["2 of 2", "1 of 2", "2 of 2"]]
    assert rows(part, "Evaluation, top-1: lab report")[0] == [
        "2934 / 3347 (87.7 %)",
        "2990 / 3347 (89.3 %)",
        "2978 / 3347 (89.0 %)",
    ]


def test_what_is_missing_continues_and_what_was_cut_short_is_named(home):
    """Of the seeds 0 to 3 the last was not trained, and one training of the first met a time limit."""
    folder, begun = home / "runs/studies/early_stopping", part_of("early_stopping", 3)
    plan_in(folder, "early_stopping", part_of("early_stopping", 4))
    recorded(
        home / "home", begun, lambda value, seed: early(value, seed) | {"interrupted": int((value, seed) == (5, 0))}
    )
    study_page("early_stopping", folder)
    part = section(report(), "## (a)", "## (b)")
    assert "Of 8 trainings 2 missing, 1 cut short, left out of all numbers." in part
    assert "`python -m experiments study early_stopping` continues with what is missing. What failed" in part
    assert rows(part, "Trainings with a result") == [["3 of 4", "2 of 4"]]


def test_what_the_accuracies_are_of(home):
    _, folder = run_early_stopping(home)
    for words in (report(), (folder / "report.html").read_text()):
        assert "of the weights of the best validation epoch" in words and "while the weights were changing" in words
    assert "--out earlysto.csv --epochs earlysto_epochs.csv" in (folder / "report.html").read_text()


def test_classes_the_control_and_the_teacher_are_there(home):
    for name, others in (("pretrained", ()), ("balance", ()), ("distill", ("distill_teacher",))):
        parts = [part_of(name, 2), *(part_of(other, 2, "teacher") for other in others)]
        plan_in(home / "runs/studies" / name, name, *parts)
        for part in parts:
            recorded(home / "home", part, lambda value, seed: early(0, seed))
        study_page(name, home / "runs/studies" / name)
    page = report()
    assert rows(section(page, "### Pretrained", "### Learning"), "class 1 Dairy product")[0][-1] == "+75.0 points"
    balance = page.split("## Beyond the lab report")[1]
    assert len(rows(balance, "class 1 Dairy product")) == 2 and "Evaluation, macro" in balance
    distill = section(page, "## (c)", "## (d)")
    assert "| student alone | distilled (weight 0.5) | teacher (resnet50) |" in distill
    assert rows(distill, "Accuracy read off a curve: lab report")[0][1:] == ["above 95 % by epoch 20", "–"]
    assert rows(distill, "Loss read off a curve: lab report")[0] == ["0.5", "below 0.2", "–"]
    assert rows(distill, "Validation loss, best epoch")[0] == ["0.400 ± 0.000 (n = 2)"] * 3
    assert not rows(distill, "Training loss, same epoch") and not rows(balance, "Training loss, same epoch")
    assert rows(section(page, "### Pretrained", "### Learning"), "Training loss, same epoch")[0][0].startswith(
        "0.900 ±"
    )
    assert "does not say whether the training without a teacher shares part (c)'s lr" in distill


def test_every_table_has_as_many_cells_in_each_row(home):
    run_early_stopping(home)
    for block in report().split("\n\n"):
        if block.startswith("| "):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_answers_that_rest_on_the_same_trainings_are_named(home):
    for name, seeds in (("learning_rate", 3), ("step_size", 4), ("balance", 3)):
        part, folder = part_of(name, seeds), home / "runs/studies" / name
        plan_in(folder, name, part)
        recorded(home / "home", part, lambda value, seed: early(0, seed))
        study_page(name, folder)
    answers = section(report(), "## Answers", "## What")
    expected = "Not independent: lr 0.01 (learning rate), step_size 7 (step size) and plain (balance) are trainings"
    assert (
        f"{text(expected)} with the same settings, photos and seeds (0, 1, 2)." in answers
        and answers.count("Not indep") == 1
    )
    file = home / "runs/studies/balance/study.json"
    other = json.loads(file.read_text())
    other["provenance"]["source_digest"] = "another"
    file.write_text(json.dumps(other))
    assert f"{text('lr 0.01 (learning rate) and step_size 7 (step size) are')}" in report()
    file = home / "runs/studies/step_size/study.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seeds": [7, 8]}))
    assert "Not independent" not in report()


def test_the_page_in_docs_is_that_of_the_results_kept_there(tmp_path, monkeypatch):
    """`make report` writes both."""
    monkeypatch.chdir(ROOT)
    assert main(["report", "--studies", "docs/studies", "--out", str(tmp_path / "report.md")]) == 0
    assert (tmp_path / "report.md").read_text() == (ROOT / "docs/report.md").read_text()
    kept = "".join(file.read_text() for file in (ROOT / "docs/studies").rglob("*.json"))
    assert not re.search(r"(?<![\w/.:~])/\w+/", kept + (ROOT / "docs/report.md").read_text())


def test_kept_results_name_no_folder_of_the_machine_and_their_page_nothing_that_a_clone_lacks(home):
    _, folder = run_early_stopping(home)
    file = folder / "study.json"
    content = json.loads(file.read_text())
    content["fields"]["cache"] = "/home/some one/photos cache"
    content["trainings"][0]["reason"] = "OSError: '/home/someone/photos/x.npy' is gone, 3/4 read"
    file.write_text(json.dumps(content))
    page = report("--keep", "docs/studies")
    kept = (home / "docs/studies/early_stopping/study.json").read_text()
    assert '"cache": "photos cache"' in kept and "OSError: 'x.npy' is gone, 3/4 read" in kept and "/home" not in kept
    assert page == report("--studies", "docs/studies")
    assert "report.html" not in page and "docs/studies" not in page
    assert "study early_stopping` and then `python -m analysis study early_stopping` write" in page
    assert "`python -m experiments study balance`; then" in page
    assert "`runs/studies/early_stopping/report.html`" in report()


def test_the_tuners_are_those_of_the_summary_named_or_of_the_recorded_pair(home):
    run_early_stopping(home)
    part = section(report(), "## (d)", "## Beyond")
    assert (
        "**No difference in validation accuracy can be shown.** Both tuners only sampled at random" in part
        and "the recorded pair" in part
    )
    assert rows(part, "resnet18_food11_evolution")[0][:3] == ["Evolution", "15 of 15", "0"]
    folders = [str(ROOT / "analysis/recorded" / arm) for arm in ("tpe", "evolution")]
    assert main(["compare", *folders, "--out", "pair"]) == 0
    again = section(report("--pair", "pair"), "## (d)", "## Beyond")
    assert again.replace("`pair/summary.json`", "") == re.sub(r"the recorded pair.*own(?=\.)", "", part)
    summary = json.loads((home / "pair/summary.json").read_text())
    summary["experiments"][0]["best"]["val_accuracy"] = 0.4321
    (home / "pair/summary.json").write_text(json.dumps(summary))
    assert rows(report("--pair", "pair"), "resnet18_food11_tpe")[0][3].startswith("43.2 %")


def test_repeats_of_the_tuners_have_a_mean_and_a_spread(home):
    folders = []
    for number, (tuner, best) in enumerate((("TPE", 0.6), ("TPE", 0.64), ("Evolution", 0.5), ("Evolution", 0.5))):
        arguments = {"name": tuner, "classArgs": {"optimize_mode": "maximize"}}
        recorder = Recorder(home, f"exp0000{number}", tuner=arguments, experimentName=f"odd|name {number}")
        for sequence in range(3):
            recorder.trial(sequence, final(best - 0.1 * sequence))
        folders.append(str(recorder.folder))
    assert main(["compare", *folders, "--out", "pair"]) == 0
    part = section(report("--pair", "pair"), "## (d)", "## Beyond")
    assert rows(part, "TPE") == [["62.0 ± 2.8 % (n = 2)"]] and "odd\\|name 0" in part
    assert "3 + 3 + 3 + 3 trials" in report("--pair", "pair")


def test_without_a_study_there_is_no_lab_report_but_of_a_pair(home, capsys):
    assert main(["report", "--out", "report.md"]) == 1
    error = capsys.readouterr().err
    assert "runs/studies: no study with a result there" in error and "make studies" in error
    assert error.count("\n") == 1 and not (home / "report.md").exists()


def test_what_cannot_be_read_is_refused_in_one_line_and_the_page_stays(home, capsys):
    _, folder = run_early_stopping(home)
    before = report()
    kept = (folder / "study.json").read_text()
    whole = json.loads(kept)

    def refused(message, *words):
        capsys.readouterr()
        assert main(["report", *words]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert (home / "docs/report.md").read_text() == before

    refused("nowhere: no study with a result there, one of early_stopping", "--studies", "nowhere")
    refused("pair/summary.json: no such file; expected what compare writes", "--pair", "pair")
    for content, message in (
        ("{", "cannot be read"),
        ("[]", "expected the study early_stopping, found None"),
        (kept.replace('"early_stopping"', '"balance"', 1), "expected the study early_stopping, found balance"),
        (json.dumps({key: value for key, value in whole.items() if key != "arms"}), "KeyError: 'arms'"),
        (json.dumps(whole | {"differences": [1]}), "TypeError"),
    ):
        (folder / "study.json").write_text(content)
        refused(message)
    (folder / "study.json").write_text(kept)
    (home / "pair").mkdir()
    (home / "pair/summary.json").write_text('{"comparison": null}')
    refused("pair/summary.json`: not as this version writes it", "--pair", "pair")


def test_a_folder_from_elsewhere_gives_its_page_again(home, capsys):
    result, folder = run_early_stopping(home)
    page = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    shutil.rmtree(home / "home")
    assert main(["study", "early_stopping"]) == 0
    output = capsys.readouterr()
    assert "not known here: the page is made from" in output.err and result["headline"] in output.out
    assert (folder / "report.html").read_text() == page
    (folder / "study.json").write_text('{"study": "early_stopping"}')
    assert main(["study", "early_stopping"]) == 1
    assert "not as this version writes it" in capsys.readouterr().err


def test_food_11_itself_is_not_called_other_data():
    provenance = {"cache": "my_cache", "classes": list("abcdefghijk"), "images": [7310, 3430, 3347]}
    provenance |= {"compute": "GTX 1070"}
    provenance["hyperparameters"] = {
        "weights": "imagenet",
        "image_px": 224,
        "epochs": 25,
        "lr": 0.01,
        "step_size": 7,
        "gamma": 0.1,
    }
    settings = settings_of("early_stopping", provenance, {"patience": [0, 5]})
    assert not any(setting.differs for setting in settings.values())
    assert settings_sentence(settings) == "Data, weights and settings are those of the lab report."
    other = settings_of("early_stopping", provenance | {"images": [9866, 3430, 3347]}, {"patience": [0, 5]})
    assert [key for key, setting in other.items() if setting.differs] == ["cache", "images"]
    file = settings_of("pretrained", provenance, {"weights": ["none", "/somewhere/w.pth"]})["weights"]
    assert file == Setting("varied: none, imagenet", "varied: none, w.pth", True)
    unknown = settings_sentence(settings_of("pretrained", {"compute": "GTX 1070"}, {"weights": ["none", "imagenet"]}))
    assert unknown == (
        "Not recorded: data, classes, images, side of an image, epochs at most, learning rate, epochs between two decays, "
        "factor of a decay."
    )


def test_text_means_nothing_to_markdown():
    assert text("a|b *c* <i> _d_ e_f `g`\n# h") == r"a\|b \*c\* \<i\> \_d\_ e_f \`g\` \# h"
    assert code("a`b") == "`a'b`"
    table = Table(("x|y",), (Row("a", ("b",)),))
    assert render(Document("", None, (), (table,))) == "|  | x\\|y |\n| --- | --- |\n| a | b |\n"


def test_settings_are_grouped_by_value():
    assert by_value({"one": "a", "two_three": "a"}) == "a"
    assert by_value({"one": "a", "two_three": None}) == "a (one); – (two three)"


def test_the_wording(home):
    run_early_stopping(home)
    golden("lab_report.txt", report())
