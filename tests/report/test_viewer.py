"""The report's viewer in a real browser; skipped where there is none."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from carvana.report.report import write_report

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    """The report of the tiny run."""
    paths, folder = trained
    run = shutil.copytree(folder, tmp_path_factory.mktemp("viewer") / "run")
    return write_report(run, paths)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
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
    assert {url.partition("#")[0] for url in fetched if not url.startswith("data:")} == {
        report.as_uri()
    }
    opened.close()


def pixels(page):
    """Return the canvas: (height, width, 3) uint8."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    url = page.evaluate("document.querySelector('canvas').toDataURL()")
    data = io.BytesIO(base64.b64decode(url.partition(",")[2]))
    return np.asarray(Image.open(data).convert("RGB"))


def scale(page):
    return page.evaluate("+document.querySelector('.viewer').dataset.scale")


def show(page, left, right):
    page.locator("select.left").select_option(left)
    page.locator("select.right").select_option(right)
    return pixels(page)


def drag(page, start, end):
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end)
    page.mouse.up()


def test_four_views_by_buttons_and_by_keys(page):
    seen = {}
    for number, name in enumerate(("photograph", "truth", "prediction", "errors"), 1):
        page.locator(f"[data-view]:has-text('{name}')").click()
        seen[name] = pixels(page).astype(int)
        page.locator("[data-view]").first.click()
        page.keyboard.press(str(number))
        np.testing.assert_array_equal(pixels(page), seen[name])
        assert page.locator("[data-view][aria-pressed=true]").text_content().startswith(name)
    assert not page.locator(".divider").is_visible()
    wrong = (seen["truth"] != seen["prediction"]).any(axis=-1)
    assert 0 < wrong.mean() < 0.5
    coloured = (seen["errors"] != seen["photograph"]).any(axis=-1)
    assert (coloured == wrong).mean() > 0.99
    assert len(np.unique(seen["errors"][coloured], axis=0)) > 100  # the photograph shines through


def test_the_divider_shows_on_each_side_what_its_name_says(page):
    truth, prediction = (show(page, name, name) for name in ("truth", "prediction"))
    half = show(page, "truth", "prediction")
    middle = half.shape[1] // 2
    np.testing.assert_array_equal(half[:, : middle - 2], truth[:, : middle - 2])
    np.testing.assert_array_equal(half[:, middle + 2 :], prediction[:, middle + 2 :])
    page.locator(".divider").hover()
    box = page.locator(".divider").bounding_box()
    drag(page, (box["x"] + box["width"] / 2, box["y"] + 100), (-100, box["y"] + 100))
    np.testing.assert_array_equal(pixels(page), prediction)
    page.locator(".divider").focus()
    page.keyboard.press("End")
    np.testing.assert_array_equal(pixels(page), truth)


def test_next_error_fits_each_region_the_largest_first(page):
    found = page.evaluate("JSON.parse(document.querySelector('.pictures').textContent)")
    regions = found[0]["regions"]
    for number, (_, _, width, height, area) in enumerate(regions, 1):
        page.locator("[data-do=next]").click()
        shown = pixels(page)
        said = page.locator("output").text_content()
        assert f" {number} of {len(regions)}: {area} pixels." in said
        assert max(width, height) * scale(page) < max(shown.shape) or width > 75
        assert (np.ptp(shown.astype(int), axis=-1) > 60).any()  # errors are shown, in colour
    areas = [area for *_, area in regions]
    assert areas == sorted(areas, reverse=True)


def test_zoom_shows_single_pixels_and_only_then_offers_to_drag(page):
    whole = scale(page)
    canvas = page.locator("canvas")
    cursor = "getComputedStyle(document.querySelector('canvas')).cursor"
    assert page.evaluate(cursor) == "auto"
    show(page, "prediction", "prediction")
    canvas.focus()
    for _ in range(5):
        page.keyboard.press("+")
    shown = pixels(page).astype(int)
    assert page.evaluate(cursor) == "grab"
    assert scale(page) == 32
    # Blocks of 32 pixels: colours change across their borders alone, where there is a grid.
    changes = np.flatnonzero(np.abs(np.diff(shown[200], axis=0)).sum(axis=-1))
    assert len(changes) > 5
    assert len({change % 32 for change in changes}) <= 4
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert (pixels(page) != shown).any()
    page.keyboard.press("0")
    pixels(page)
    assert scale(page) == pytest.approx(whole)


def test_photographs_are_chosen_and_dragged(page):
    names = page.locator(".strip .name").all_text_contents()
    assert len(names) == 4
    page.locator("[data-picture]").nth(2).click()
    page.wait_for_function(f"document.querySelector('.viewer').dataset.drawn === '{names[2]}'")
    assert page.locator("output").text_content().startswith(names[2])
    assert page.locator(".strip [aria-pressed=true]").count() == 1
    show(page, "photograph", "photograph")
    page.locator("canvas").dblclick(position={"x": 300, "y": 200})
    before = pixels(page)
    box = page.locator("canvas").bounding_box()
    drag(page, (box["x"] + 400, box["y"] + 300), (box["x"] + 300, box["y"] + 250))
    after = pixels(page)
    slack = np.abs(before[60:400, 420:500].astype(int) - after[10:350, 320:400]).mean()
    assert slack < 1  # the photograph moved with the mouse


def test_it_fits_a_phone_prints_and_is_dark_where_the_system_is(page):
    page.set_viewport_size({"width": 360, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    colours = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2
    page.emulate_media(media="print")
    assert not page.locator(".controls").is_visible()
    assert page.locator("canvas").is_visible()


def test_a_link_into_the_report_lands_on_its_section(page, report):
    page.goto(f"{report.as_uri()}#errors")
    top = "Math.abs(document.querySelector('#errors').getBoundingClientRect().top)"
    page.wait_for_function(f"{top} < 2")  # scrolling is smooth
