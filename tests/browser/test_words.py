"""Both dictionaries say the same things, and every word that a page asks for is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

from obs.lifecycle import days
from obs.market.calendar import ALWAYS
from obs.monitor.health import REASONS, TEXTS
from obs.record.events import GAP_REASONS
from obs.record.schema import MARKETS, QUALITIES, VENUES
from obs.select.triggers import TRIGGERS
from obs.shm.counters import WAITING
from obs.supervisor.child import ROLES

WEB: Final = Path(__file__).resolve().parents[2] / "obs" / "monitor" / "web"
WORDS: Final = {path.stem: json.loads(path.read_text()) for path in sorted((WEB / "assets" / "lang").glob("*.json"))}
SOURCES: Final = [*sorted(WEB.glob("*.html")), *sorted((WEB / "assets").glob("*.js"))]
# Closed lists of the program: each of their names is said in words.
NAMED: Final = {
    "reason": REASONS, "do": REASONS, "gap": GAP_REASONS, "market": MARKETS[1:], "venue": VENUES[1:], "quality": QUALITIES,
    "trigger": TRIGGERS, "anomaly": days.REASONS, "severity": ("brief", "minor", "major", "critical"), "sink": ("archive", "database"),
    "mitigation": ("0", "1", "2"), "ring": ("tick", "event", "poll_event", "swing", "quarantine"),
    "says": tuple(TEXTS), "session": ("ended", "host_death", "open"), "waiting": tuple(filter(None, WAITING)), "role": ROLES,
    "standing": ("wanted", "asked", "confirmed", "refused", "failed", "leaving"),
}  # fmt: skip


def code(path: Path) -> str:
    return re.sub(r"(?m)^ *//.*$", "", path.read_text())


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", text))


def test_every_language_has_the_same_keys_and_values_to_fill_in() -> None:
    assert set(WORDS) == {"en", "ko"}
    assert set(WORDS["en"]) == set(WORDS["ko"])
    for key, text in WORDS["en"].items():
        assert text.strip()
        assert WORDS["ko"][key].strip()
        assert placeholders(text) == placeholders(WORDS["ko"][key]), key


def test_the_pages_say_of_health_what_the_program_says() -> None:
    assert {key: WORDS["en"][f"says.{key}"] for key in TEXTS} == dict(TEXTS)


@pytest.mark.parametrize("path", sorted(WEB.glob("*.html")), ids=lambda path: path.name)
def test_without_scripts_a_page_speaks_both_languages(path: Path) -> None:
    for text in re.findall(r"(?s)<noscript>(.*?)</noscript>", path.read_text()):
        plain, korean = re.split(r'lang="ko"', text)
        assert re.search("[a-z]{4}", plain)
        assert not re.search("[가-힣]", plain)
        assert re.search("[가-힣]{3}", korean)


def test_korean_is_korean() -> None:
    """A word that was forgotten stays English: what is the same in both must be a name."""
    same = {key for key, text in WORDS["en"].items() if WORDS["ko"][key] == text and re.search("[a-z]{3}", text)}
    assert same == {"page.title"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_key_that_is_asked_for_exists(path: Path) -> None:
    text = code(path)
    keys = set(re.findall(r"""\bt\(["'`]([a-z_]+\.[\w.]+)["'`]""", text)) | set(re.findall(r'data-i18n[a-z-]*="([^"]+)"', text))
    assert keys <= set(WORDS["en"]), sorted(keys - set(WORDS["en"]))


def test_every_name_of_the_program_has_a_word() -> None:
    wanted = {f"{name}.{one}" for name, of in NAMED.items() for one in of}
    assert wanted <= set(WORDS["en"]), sorted(wanted - set(WORDS["en"]))
    assert set(ALWAYS) <= set(MARKETS)


@pytest.mark.parametrize("path", sorted(WEB.glob("*.html")), ids=lambda path: path.name)
def test_pages_hold_nothing_that_the_content_policy_forbids(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)|<base|<iframe", text)
    assert set(re.findall(r"""(?:src|href|action)="([^"#]+)""", text)) <= {
        "/", "/health", "/metrics", "/login", "/logout", *("/" + str(one.relative_to(WEB)) for one in WEB.rglob("*") if one.is_file())
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted((WEB / "assets").glob("*.js")), ids=lambda path: path.name)
def test_scripts_put_data_in_as_text_alone(path: Path) -> None:
    """What comes from a venue or a log must never be read as HTML or as code."""
    text = code(path)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(\s*[\"'`]", text)
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg|HTTP \$", "", text)
