"""The report's viewer in a real browser; skipped where there is none."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from carvana.report.report import write_report
from carvana.runs.folder import read_metrics

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
    pytest.mark.slow,
]
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    """The report of the tiny run."""
    paths, folder = trained
    run = shutil.copytree(folder, tmp_path_factory.mktemp("viewer") / "run")
    return write_report(run, paths)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield opened
        opened.close()


@pytest.fixture
def page(report, browser):
    """The report, opened; at the end, what the console said and what was fetched is checked."""
    said, fetched = [], []
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: fetched.append(request.url))
    opened.goto(report.as_uri())
    opened.wait_for_function("document.querySelector('.viewer').dataset.drawn")
    yield opened
    assert said == []
    assert [url for url in fetched if not url.startswith("data:")] == [report.as_uri()]
    opened.close()


def pixels(page):
    """Return the canvas: (height, width, 3) uint8."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    url = page.evaluate("document.querySelector('canvas').toDataURL()")
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    )


def scale(page):
    return page.evaluate("+document.querySelector('.viewer').dataset.scale")


def slide(page, to):
    page.locator(".slide input").fill(str(to))


def test_the_slider_goes_from_truth_to_prediction(page):
    page.locator("[data-do=errors]").uncheck()
    slide(page, 100)
    truth = pixels(page)
    slide(page, 0)
    prediction = pixels(page)
    changed = (truth != prediction).any(axis=-1)
    assert 0 < changed.mean() < 0.5
    page.locator("[data-do=errors]").check()
    coloured = (pixels(page) != prediction).any(axis=-1)
    assert (coloured == changed).mean() > 0.99  # the errors are where the masks differ
    slide(page, 50)
    half = (pixels(page) != prediction).any(axis=-1)
    assert half[:, : half.shape[1] // 2].sum() > 0


def test_zoom_shows_single_pixels_along_the_edge(page):
    whole = scale(page)
    page.locator("[data-do=next]").click()
    pixels(page)
    assert scale(page) >= max(8, whole)
    canvas = page.locator("canvas")
    canvas.focus()
    for _ in range(5):
        page.keyboard.press("+")
    slide(page, 0)
    shown = pixels(page).astype(int)
    assert scale(page) == 32
    # Blocks of 32 pixels: colours change across their borders alone, where there is a grid.
    inside = np.abs(np.diff(shown[200], axis=0)).sum(axis=-1) > 0
    changes = np.flatnonzero(inside)
    assert len(changes) > 5
    assert len({change % 32 for change in changes}) <= 4
    canvas.focus()
    before = shown
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert (pixels(page) != before).any()
    page.keyboard.press("0")
    pixels(page)
    assert scale(page) == pytest.approx(whole)


def test_photographs_are_chosen_and_dragged(page):
    names = page.locator(".strip .name").all_text_contents()
    assert len(names) == 8
    page.locator("[data-picture]").nth(2).click()
    page.wait_for_function(f"document.querySelector('.viewer').dataset.drawn === '{names[2]}'")
    assert page.locator("output").text_content().startswith(names[2])
    assert page.locator("[aria-pressed=true]").count() == 2  # in both rows
    page.locator("canvas").dblclick(position={"x": 300, "y": 200})
    before = pixels(page)
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 400, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 250)
    page.mouse.up()
    after = pixels(page)
    slack = np.abs(before[60:400, 420:500].astype(int) - after[10:350, 320:400]).mean()
    assert slack < 1  # the photograph moved with the mouse


def test_it_fits_a_phone_and_prints(page):
    page.set_viewport_size({"width": 360, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.emulate_media(media="print")
    assert not page.locator(".controls").is_visible()
    assert page.locator("canvas").is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_dark_and_light_differ(page, report):
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]
    dice = read_metrics(report.parent)["full_resolution_dice"]
    assert f"{dice:.4f}" in page.locator(".facts").text_content()
