"""Once a day, ask the venue for its own calendar, and say where it disagrees with ours. Ours stays: an operator decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from obs.clock import NS
from obs.errors import ObsError
from obs.market.calendar import ALWAYS, Calendar
from obs.providers.base import Auth, Call
from obs.roles.notes import Notes
from obs.roles.polling import Polling
from obs.roles.universes import date_of

_LOOK_S: Final = 60.0
_AGAIN_S: Final = 3600.0  # after a failure
_CALL_S: Final = 60.0
_NOTE: Final = "holidays_day"


def disagreements(told: Mapping[int, bool], calendar: Calendar, market: str, venue: str) -> list[tuple[int, bool]]:
    """Return (day, what the venue says) of each day on which it says otherwise than our dated sessions; standing hours are no opinion."""
    wrong = []
    for day, opens in sorted(told.items()):
        dated = (market, venue) in calendar.sessions and calendar.first_day <= day <= calendar.last_day
        if dated and (calendar.session(market, venue, date_of(day)) is not None) != opens:
            wrong.append((day, opens))
    return wrong


async def keep_checking(polling: Polling, notes: Notes) -> None:
    """Compare once a day, as soon as there is a token; ends by being cancelled, or at once for a venue that has no calendar."""
    asking, config, pace = polling.asking, polling.config, polling.pace
    if config.market in ALWAYS or not asking.provider.rest.needs_token:
        return
    next_ns = 0
    while True:
        day = polling.calendar().trading_day(config.market, config.venue, pace.wall_ns())
        if notes.get(_NOTE) != day and asking.is_ready() and pace.mono_ns() >= next_ns:
            next_ns = pace.mono_ns() + int(_AGAIN_S * NS)
            await _check(polling, notes, day)
        await pace.sleep(_LOOK_S)


async def _check(polling: Polling, notes: Notes, day: int) -> None:
    asking, config = polling.asking, polling.config
    provider = asking.provider
    if provider.holiday_call(day, asking.auth()) is None:
        return

    def make(auth: Auth | None) -> Call:
        call = provider.holiday_call(day, auth)
        assert call is not None
        return call

    try:
        told = await asking.ask(make, provider.parse_holidays, polling.pace.mono_ns() + int(_CALL_S * NS), attempts=1)
    except ObsError as error:
        polling.log.warning("holidays_failed", text=str(error), again_s=_AGAIN_S)
        return
    await notes.put(_NOTE, day)
    wrong = disagreements(told, polling.calendar(), config.market, config.venue)
    for one, opens in wrong:
        polling.emit("warning", {"what": "calendar_disagreement", "day": one, "venue_opens": opens, "calendar_opens": not opens})
    polling.log.info("holidays_checked", days=len(told), disagreements=[one for one, _ in wrong])
