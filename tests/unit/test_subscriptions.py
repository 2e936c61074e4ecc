"""Subscriptions of one connection: from wanted to confirmed or refused, and anew after a reconnect."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from obs.roles.subscriptions import Pair, Standing, Subscriptions

S = 10**9
A, B, C = ("trade", "005930"), ("trade", "000660"), ("book", "005930")
CONFIRM = 5 * S
WANTED, ASKED, CONFIRMED, REFUSED, FAILED = Standing
Step = Callable[[Subscriptions], object]


def subscriptions_of(*pairs: Pair) -> Subscriptions:
    made = Subscriptions()
    made.want(pairs)
    return made


def asked(at_s: float) -> Step:
    return lambda some: some.asked([A], int(at_s * S))


def confirmed(some: Subscriptions) -> object:
    return some.confirmed(A)


def refused(retry: bool = True) -> Step:
    return lambda some: some.refused(A, "OPSP0002", retry)


def overdue(at_s: float) -> Step:
    return lambda some: some.overdue(int(at_s * S), CONFIRM)


def again(some: Subscriptions) -> object:
    return some.reconnected()


@pytest.mark.parametrize(
    ("steps", "standing"),
    [
        ([], WANTED),
        ([asked(1)], ASKED),
        ([asked(1), confirmed], CONFIRMED),
        ([confirmed], CONFIRMED),  # data can come before the answer
        ([asked(1), refused()], REFUSED),
        ([asked(1), refused(), asked(2)], ASKED),
        ([asked(1), refused(), asked(2), confirmed], CONFIRMED),
        ([asked(1), confirmed, asked(2)], CONFIRMED),  # asking for all again takes nothing back
        ([asked(1), confirmed, refused()], REFUSED),  # the venue may change its mind
        ([asked(1), overdue(5.9)], ASKED),
        ([asked(1), overdue(6.1)], ASKED),
        ([asked(1), asked(7), asked(13), overdue(18)], ASKED),
        ([asked(1), asked(7), asked(13), overdue(18.1)], FAILED),
        ([asked(1), asked(7), asked(13), overdue(18.1), confirmed], CONFIRMED),
        ([asked(1), asked(7), asked(13), overdue(18.1), asked(80)], ASKED),
        *[([asked(1), then, again], WANTED) for then in (confirmed, refused(), refused(False), overdue(99))],
    ],
)
def test_standings(steps: list[Step], standing: Standing) -> None:
    some = subscriptions_of(A)
    for step in steps:
        step(some)
    assert some.of(standing) == [A]


def test_a_confirmation_is_news_once() -> None:
    some = subscriptions_of(A)
    assert some.confirmed(A)
    assert not some.confirmed(A)
    some.reconnected()
    assert some.confirmed(A)


def test_answers_for_what_nobody_wanted_change_nothing() -> None:
    some = subscriptions_of(A)
    stranger = ("trade", "999999")
    assert not some.confirmed(stranger)
    some.refused(stranger, "x", True)
    some.asked([stranger], S)
    assert list(some.pairs) == [A]


def test_wanting_again_keeps_the_standing() -> None:
    some = subscriptions_of(A)
    some.confirmed(A)
    some.want([A, B])
    assert some.of(CONFIRMED) == [A]
    assert some.of(WANTED) == [B]


def test_asked_for_again_what_is_not_answered_and_nothing_else() -> None:
    some = subscriptions_of(A, B, C)
    some.asked([A, B, C], S)
    some.confirmed(A)
    some.refused(C, "x", True)
    assert some.overdue(S + CONFIRM, CONFIRM) == []
    assert some.overdue(S + CONFIRM + 1, CONFIRM) == [B]


def test_refused_and_failed_pairs_are_tried_later_unless_it_is_final() -> None:
    some = subscriptions_of(A, B, C)
    some.asked([A, B, C], S)
    some.refused(A, "busy", retry=True)
    some.refused(B, "no right", retry=False)
    for at in (10, 20):
        some.asked([C], at * S)
    some.overdue(100 * S, CONFIRM)
    assert some.of(FAILED) == [C]
    assert some.to_retry(61 * S, 60 * S) == []
    assert some.to_retry(61 * S + 1, 60 * S) == [A]
    assert some.to_retry(80 * S + 1, 60 * S) == [A, C]


def test_a_failed_pair_that_is_asked_for_again_fails_again_and_is_tried_again_for_ever() -> None:
    some = subscriptions_of(A)
    now = 0
    for _ in range(50):
        now += 61 * S
        some.asked([A], now)
        some.overdue(now + CONFIRM + 1, CONFIRM)
    assert some.to_retry(now + 61 * S, 60 * S) == [A]


def test_settled_once_each_pair_has_its_answer() -> None:
    some = subscriptions_of(A, B, C)
    assert not some.settled()
    some.asked([A, B, C], S)
    some.confirmed(A)
    some.refused(B, "limit", True)
    assert not some.settled()
    some.confirmed(C)
    assert some.settled()
    some.reconnected()
    assert not some.settled()
    assert Subscriptions().settled()


def test_silent_symbols_are_those_that_some_channel_lacks() -> None:
    some = subscriptions_of(A, B, C)
    some.confirmed(A)
    some.confirmed(B)
    assert some.silent_symbols() == {}
    some.refused(C, "OPSP0008", True)
    assert some.silent_symbols() == {"005930": "OPSP0008"}
    for at in (1, 10, 20):
        some.asked([C], at * S)
    some.overdue(99 * S, CONFIRM)
    assert some.silent_symbols() == {"005930": "no answer"}
    some.reconnected()
    assert some.silent_symbols() == {}


def test_who_got_no_answer_from_a_silent_venue_is_asked_for_anew_when_it_speaks() -> None:
    some = Subscriptions()
    some.want([A, B])
    for ask_s in (1, 12, 23):
        some.asked(some.due(ask_s * S, 10 * S, 60 * S), ask_s * S)
    assert some.due(40 * S, 10 * S, 60 * S) == []
    assert [one.standing for one in some.pairs.values()] == [FAILED, FAILED]
    assert some.confirmed(A)
    some.ask_anew()
    assert not some.settled()
    assert some.due(50 * S, 10 * S, 60 * S) == [B]
    for ask_s in (50, 61, 72):
        some.asked(some.due(ask_s * S, 10 * S, 60 * S), ask_s * S)
    assert some.due(83 * S, 10 * S, 60 * S) == []
    assert some.settled()
    assert some.silent_symbols() == {B[1]: "no answer"}
