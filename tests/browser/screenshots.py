"""Take the screenshots of the README: `PYTHONPATH=. python tests/browser/screenshots.py [--minutes 5]`, from a demo with two gaps.

    ops/screenshots/dashboard.png   the live page
    ops/screenshots/day.png         the page of a day: what is missing of which symbol, and why

Small: 256 colours, which is nearly all that the pages have. The demo lies in a folder of its own and goes with it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

from browsing import CHROMIUM, FLAGS, TOKEN, Demo, settled
from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER: Final = Path(__file__).resolve().parents[2] / "ops" / "screenshots"
LARGEST: Final = 150_000  # bytes


def shoot(page: Page, name: str, height: int) -> None:
    """Write one picture of the top of a page."""
    path = FOLDER / f"{name}.png"
    page.set_viewport_size({"width": 1440, "height": height})
    page.wait_for_timeout(1500)  # the charts draw themselves anew
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")
    assert path.stat().st_size < LARGEST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the demo runs before the pictures")
    minutes = parser.parse_args().minutes
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="obs-screenshots-") as folder, sync_playwright() as playwright:
        demo = Demo(Path(folder))
        try:
            demo.run()
            begun = time.monotonic()
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
            page = chromium.new_page(viewport={"width": 1440, "height": 900}, locale="en-GB", timezone_id="Asia/Seoul")
            page.goto(f"{demo.url}/login")
            page.fill("#token", TOKEN)
            page.press("#token", "Enter")
            settled(page)
            page.wait_for_timeout(minutes * 12_000)
            demo.do("upbit", "mute", s=35)
            page.wait_for_timeout(minutes * 12_000)
            demo.do("kis", "drop")
            page.wait_for_timeout(max(0.0, minutes * 60 - (time.monotonic() - begun)) * 1000)
            shoot(page, "dashboard", 1220)
            page.get_by_test_id("gapmap-upbit").get_by_role("link").click()
            page.wait_for_selector("[data-testid=day-upbit] canvas")
            shoot(page, "day", 1000)
            chromium.close()
            assert demo.supervisor is not None
            demo.supervisor.stop()
        finally:
            demo.close()


if __name__ == "__main__":
    main()
