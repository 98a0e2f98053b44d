"""Take the picture of a report's viewer: rendered cars of `make demo`, and the errors beside them.

.venv/bin/pip install playwright    # and a Chromium
.venv/bin/python docs/images/viewer.py runs/demo/report.html
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).with_name("viewer.jpg")
SIZE = (1020, 800)  # pixels: the picture, its buttons and the legend


def main() -> None:
    report = Path(sys.argv[1]).absolute()
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(report.as_uri())
        page.wait_for_function("document.querySelector('.viewer').dataset.drawn")
        page.locator("select.left").select_option(label="photograph")
        page.locator("select.right").select_option(label="errors")
        page.wait_for_timeout(500)
        shot = Image.open(io.BytesIO(page.locator(".viewer").screenshot())).convert("RGB")
        browser.close()
    shot.crop((0, 0, *SIZE)).save(OUT, quality=85, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
