"""A real browser on a real demo: headless Chromium, and both simulated exchanges with 41 symbols each, behind a token.

The demo runs once per module. It is told to misbehave while tests look at other things, so they may come in any order: each waits for
what it needs. Every page is watched: an error in its console, a request to another host or a breach of the content policy fails its test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from browsing import CHROMIUM, FLAGS, MARKED, TOKEN, Demo, Watched, settled, watch
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

# What a page says of its health and of Upbit, whenever it says something else; and what the map of gaps shows of a loss that goes on.
_NOTE = """
window.said = new Set();
window.losing = [];
const of = [
  "#health h1", "#health .since", "[data-reason=mute]", "[data-testid=provider-upbit] .state", "[data-testid=slot-upbit-KRW-BTC]",
  "#count-symbols", "[data-testid=gapmap-upbit] tbody tr", "#count-gaps",
];
setInterval(async () => {
  const { getInstanceByDom } = await import("/assets/vendor/echarts/echarts.esm.min.js");
  const node = document.querySelector("[data-testid=gapmap-upbit] .chart");
  const options = (node && getInstanceByDom(node))?.getOption();
  const [value] = options?.series.find(({ id }) => id === "open")?.data ?? [];
  if (value) {
    window.losing.push([...value, options.tooltip[0].formatter({ seriesId: "open", value, dataIndex: 0 })]);
  }
}, 1000);
new MutationObserver(() => of.forEach((one) => window.said.add(document.querySelector(one)?.textContent)))
  .observe(document, { subtree: true, childList: true, characterData: true });
"""

# Tests that wait for something that takes its time: both providers well again, the end of a minute, the end of the silence.
_LATE = (
    "test_every_section_shows_what_the_program_says", "test_slots_can_be_looked_for", "test_a_record_is_on_the_screen_within_a_second",
    "test_a_mute_exchange_is_a_reason_and_then_a_gap", "test_a_day_and_a_symbol",
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the others go first, within their module: the order is random, but nobody has to wait for what passes meanwhile."""
    places = [place for place, item in enumerate(items) if item.path.name == "test_dashboard.py"]
    own = sorted((items[place] for place in places), key=lambda item: item.name in _LATE)
    for place, item in zip(places, own, strict=True):
        items[place] = item


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    made = Demo(tmp_path_factory.mktemp("browser"))
    try:
        made.run()
        made.obs("days", "mark", MARKED, "--reason", "power cut")
        yield made
        assert made.supervisor is not None
        made.supervisor.stop()
    finally:
        made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: ops/test-deps installs it")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS], env={**os.environ, "NO_PROXY": "127.0.0.1"})
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def logged_in(demo: Demo, browser: Browser) -> dict[str, Any]:
    """What a browser keeps once a person has logged in."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{demo.url}/login")
    page.fill("#token", TOKEN)
    page.press("#token", "Enter")
    page.wait_for_url(f"{demo.url}/")
    state = context.storage_state()
    context.close()
    return dict(state)


@dataclass
class Mute:
    """A live page that stood open while Upbit said nothing, and notes whatever it said of it."""

    page: Page
    done: Future[None]


@pytest.fixture(scope="module")
def mute(demo: Demo, browser: Browser, logged_in: dict[str, Any]) -> Iterator[Mute]:
    """Begins with the first test, since it takes half a minute, and goes on while the others run."""
    context = browser.new_context(storage_state=logged_in, viewport={"width": 1440, "height": 900}, locale="en-GB")
    page = context.new_page()
    page.add_init_script(_NOTE)
    page.goto(demo.url)
    expect(page.locator("#count-symbols")).to_have_text("82 of 82", timeout=90_000)
    with ThreadPoolExecutor(1) as pool:
        yield Mute(page, pool.submit(demo.be_mute, "upbit"))
    context.close()


@pytest.fixture
def open_page(demo: Demo, browser: Browser, logged_in: dict[str, Any]) -> Iterator[Callable[..., Watched]]:
    """Open a path in a context of its own, as somebody who has logged in; options are those of a playwright context."""
    contexts: list[BrowserContext] = []
    watched: list[Watched] = []

    def make(path: str = "/", **options: Any) -> Watched:
        usual = {"storage_state": logged_in, "viewport": {"width": 1440, "height": 900}, "locale": "en-GB"}
        context = browser.new_context(**usual | options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        one = watch(context, demo.url)
        watched.append(one)
        one.page.goto(demo.url + path)
        return one

    yield make
    try:
        for one in watched:
            one.judge(demo.url)
    finally:
        for context in contexts:
            context.close()


@pytest.fixture
def dashboard(open_page: Callable[..., Watched]) -> Page:
    """The live page with all that it shows first."""
    return settled(open_page().page)
