"""Who may ask the monitor: tokens, cookies, Host headers, and how long a wrong token waits."""

from __future__ import annotations

import pytest

from obs.clock import NS
from obs.monitor.access import COOKIE_DAYS, HEADERS, Access, Patience

NOW = 1_795_000_000 * NS
TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize(
    ("header", "standing"),
    [
        (None, "none"), (f"Bearer {TOKEN}", "good"), (f"bearer  {TOKEN} ", "good"), (f"Basic {TOKEN}", "wrong"), (TOKEN, "wrong"),
        ("Bearer", "wrong"), ("Bearer x", "wrong"), (f"Bearer {TOKEN}x", "wrong"), (f"Bearer {TOKEN[:-1]}", "wrong"),
        ("Bearer 한글", "wrong"), ("Bearer \udc80", "wrong"),
    ],
)  # fmt: skip
def test_a_token_in_the_header(header: str | None, standing: str) -> None:
    assert Access(TOKEN, "0.0.0.0").standing(header, None, NOW) == standing


def test_without_a_token_everybody_on_this_host_may_ask_and_with_an_empty_one_nobody() -> None:
    assert Access(None, "127.0.0.1").standing(None, None, NOW) == "good"
    nobody = Access("", "0.0.0.0")
    assert [nobody.standing(header, None, NOW) for header in (None, "Bearer ", "Bearer")] == ["none", "wrong", "wrong"]
    assert nobody.standing(None, nobody.cookie(NOW), NOW) == "none"


def test_a_cookie_stands_for_the_token_until_it_is_old() -> None:
    access, other = Access(TOKEN, "0.0.0.0"), Access(TOKEN + "2", "0.0.0.0")
    cookie = access.cookie(NOW)
    assert TOKEN not in cookie
    day = 86_400 * NS
    for after, standing in ((0, "good"), (COOKIE_DAYS * day, "good"), ((COOKIE_DAYS + 1) * day, "none"), (-day, "none")):
        assert access.standing(None, cookie, NOW + after) == standing, after
    assert other.standing(None, cookie, NOW) == "none", "the token has changed"
    issued, _, signature = cookie.partition(".")
    changed = f"{int(issued) + 1}.{signature}"
    for wrong in ("", ".", signature, changed, f"{issued}.{'0' * 64}", f"{cookie}0", f"{issued}.{signature.upper()}"):
        assert access.standing(None, wrong, NOW) == "none", wrong
    assert access.standing("Bearer wrong", cookie, NOW) == "wrong", "a token that is shown is judged"


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:8000", True), ("localhost", True), ("LOCALHOST:8000", True), ("[::1]:8000", True), ("127.9.9.9", True), (None, True),
        ("obs.lan:8000", True), ("evil.example:8000", False), ("127.0.0.1.evil.example", False), ("localhost.evil.example", False),
        ("", False), ("127.0.0.1:8000@evil", False), ("192.168.0.7", False),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_where_there_is_no_token(host: str | None, good: bool) -> None:
    assert Access(None, "obs.lan").is_host_good(host) is good
    assert Access(TOKEN, "0.0.0.0").is_host_good(host)


def test_a_wrong_token_waits_longer_each_time_and_each_address_by_itself() -> None:
    patience = Patience()
    assert [patience.wait_s("a", NOW) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert patience.wait_s("b", NOW) == 0.5
    assert patience.wait_s("a", NOW + 601 * NS) == 0.5
    patience.wait_s("a", NOW + 601 * NS)
    patience.forgive("a")
    assert patience.wait_s("a", NOW + 602 * NS) == 0.5
    for number in range(5000):
        patience.wait_s(str(number), NOW)
    assert len(patience._wrong) <= 1024


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert not [part for part in policy.values() if "unsafe" in part or "http" in part or "*" in part]
