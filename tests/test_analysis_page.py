"""The report in a real browser, without network: on a phone, on paper, and its legends."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from fixtures_analysis import Recorder, final

from analysis.__main__ import main

LONG = "resnet18_food11_" + "x" * 70  # no place to break it
A4_PX = 688  # of 210 mm, less the margins that the page's style sheet sets, at 96 px an inch
TOO_WIDE = """() => [...document.querySelectorAll("body, body *")].filter(e => !e.closest("svg, .modebar-container")
  && (innerWidth > 500 || !e.closest(".wide")) && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.tagName + "." + e.className + " " + Math.round(e.getBoundingClientRect().right))"""


@pytest.fixture(scope="module")
def chromium():
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser and not os.environ.get("CI"):
        pytest.skip("no Chromium here; the continuous integration has one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-sandbox"]
        running = playwright.chromium.launch(executable_path=browser, args=options)
        yield running
        running.close()


def arm(folder: Path, tuner: str, repeats: int, trials: int = 6) -> list[str]:
    found = []
    for k in range(repeats):
        arguments = {"optimize_mode": "maximize", "population_size": 3} if tuner == "Evolution" else {"seed": k}
        recorder = Recorder(
            folder, f"{tuner.lower()[:4]}{k:04d}", experimentName=f"{LONG}{tuner}{k}",
            tuner={"name": tuner, "classArgs": arguments | {"optimize_mode": "maximize"}},
        )  # fmt: skip
        for sequence in range(trials):
            accuracy = 0.5 + (sequence * 7 + k) % 6 / 20
            epochs = ({"default": accuracy - 0.1}, {"default": accuracy})
            recorder.trial(sequence, final(accuracy), *epochs, lr=0.01 + 0.01 * sequence, layer={"_name": LONG})
        recorder.trial(trials, None, state="FAILED", lr=0.5)
        found.append(str(recorder.folder))
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> str:
    """Address of a report of two arms, of one experiment each."""
    folder = tmp_path_factory.mktemp("pair")
    assert main(["compare", *arm(folder, "Random", 1), *arm(folder, "Evolution", 1), "--out", str(folder)]) == 0
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def repeats(tmp_path_factory) -> str:
    """Address of a report of two arms, of four experiments each."""
    folder = tmp_path_factory.mktemp("repeats")
    assert main(["compare", *arm(folder, "Random", 4), *arm(folder, "Evolution", 4), "--out", str(folder)]) == 0
    return (folder / "report.html").as_uri()


def opened(chromium, address: str, width: int, scheme: str = "dark"):
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page.goto(address)
    until(page, "document.querySelectorAll('.figure .main-svg').length > 0")
    return page


def until(page, expression: str, seconds: float = 20) -> None:
    """Playwright's own waiting evaluates texts in the page, which the page's content security policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


@pytest.mark.parametrize("width", [360, 390])
@pytest.mark.parametrize("which", ["pair", "repeats"])
def test_nothing_is_wider_than_a_phone(chromium, which, width, request):
    page = opened(chromium, request.getfixturevalue(which), width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(TOO_WIDE) == []
    page.close()


@pytest.mark.parametrize("which", ["pair", "repeats"])
def test_nothing_is_wider_than_a4_and_paper_is_white(chromium, which, request):
    page = opened(chromium, request.getfixturevalue(which), 1280)
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": A4_PX, "height": 1000})
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(page, "document.querySelector('.main-svg').getBoundingClientRect().width == 680")
    assert page.evaluate("document.documentElement.scrollWidth") == A4_PX
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill") == "rgb(34, 38, 43)"
    page.close()


def test_figures_fit_the_paper_while_printing_and_the_screen_again_after_it(chromium, pair):
    page = opened(chromium, pair, 1280)
    width = "document.querySelector('.figure').getBoundingClientRect().width"
    drawn = "[...document.querySelectorAll('.main-svg')].map(e => Math.round(e.getBoundingClientRect().width))"
    before = page.evaluate(width)
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.widths = {drawn} }})")
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert set(page.evaluate("window.widths")) == {680}
    until(page, f"{drawn}.every(w => w == Math.round({width}))")
    assert page.evaluate(width) == before > 680
    page.close()


def test_a_legend_names_each_arm_once_and_toggles_all_its_repeats(chromium, repeats):
    page = opened(chromium, repeats, 1280)
    legends = page.evaluate("""[...document.querySelectorAll(".js-plotly-plot")].map(figure => figure._fullData
      .filter(trace => trace.showlegend && trace.legendgroup).map(trace => trace.legendgroup).sort())""")
    assert len(legends) >= 5
    assert all(found in ([], ["Evolution", "Random"]) for found in legends) and legends.count([]) <= 2
    page.locator("#figure1 .legendtoggle").first.click()
    state = """() => ["Random", "Evolution"].map(arm => [...new Set(document.getElementById("figure1").data
      .filter(trace => trace.legendgroup == arm).map(trace => trace.visible || true))])"""
    until(page, f"JSON.stringify(({state})()) == '[[\"legendonly\"],[true]]'")
    page.close()
