"""The REST side of KIS: masters, quotes of 30 issues a call, minute bars, the venue's calendar. Calls to make, and answers read.

Every number is a text. What is no number is not known; what is no JSON object of the call's shape is a DecodeError.

| call | limiter group | note |
|---|---|---|
| masters of KOSPI and KOSDAQ | master | another host, without login |
| intstock-multprice | rest | no time in it; prices of 0 until the first trade |
| inquire-time-itemchartprice | rest | 30 one-minute rows backwards; a row is named after the minute's begin |
| chk-holiday | rest | asked once a day |
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np
import orjson

from obs.clock import NS
from obs.errors import ConnectionLost, DecodeError, RateLimited, TokenExpired
from obs.providers.base import Auth, Call, ProviderOptions, Request, figure
from obs.providers.kis import protocol as p
from obs.providers.kis.master import BOARDS, parse_master
from obs.record.instruments import Instrument
from obs.record.quotes import BAR_S, Candle, unknown_quotes

GROUP: Final = "rest"
MASTER_GROUP: Final = "master"
_KST: Final = timedelta(hours=9)  # Source: Korea has had no daylight saving since 1988
_MINUTE: Final = timedelta(minutes=1)
_MAX_MASTER_BYTES: Final = 32 << 20  # Source: ours: all issues of a board are below 1 MiB
_ZIP: Final = b"PK\x03\x04"

# QUOTE field <- field of intstock-multprice. Source: portal. A figure that must be above 0 to be known comes first.
_PRICES: Final = (
    ("price", "inter2_prpr"), ("day_open", "inter2_oprc"), ("day_high", "inter2_hgpr"), ("day_low", "inter2_lwpr"),
    ("bid_price", "inter2_bidp"), ("ask_price", "inter2_askp"), ("base_price", "inter2_sdpr"),
)  # fmt: skip
_SUMS: Final = (("acc_volume", "acml_vol"), ("acc_value", "acml_tr_pbmn"))


def universe_calls(master_url: str) -> list[Call]:
    """Return the calls for the master files, in the order of BOARDS."""
    root = master_url.rstrip("/")
    return [Call(Request("GET", f"{root}/{board}_code.mst.zip", (), b""), MASTER_GROUP) for board in BOARDS]


def parse_universe(bodies: Sequence[bytes]) -> list[Instrument]:
    """Return every issue of both boards. Raises DecodeError if any file is not whole."""
    found: list[Instrument] = []
    for board, body in zip(BOARDS, bodies, strict=True):
        found += parse_master(_unzip(body, board), board)
    return found


def _unzip(body: bytes, board: str) -> bytes:
    """Return the one .mst file of a zip; its checksum is verified by reading it to its end."""
    import zipfile  # once a day, and in no feed

    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".mst")]
            if len(members) != 1 or members[0].file_size > _MAX_MASTER_BYTES:
                raise DecodeError("master zip does not hold one master file", board=board, members=len(members))
            return archive.read(members[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DecodeError("master zip does not read", board=board, length=len(body), cause=type(error).__name__) from None


def quote_calls(options: ProviderOptions, symbols: Sequence[str], auth: Auth, at_once: int) -> list[Call]:
    """Return calls of up to `at_once` symbols each."""
    market = p.REST_MARKETS[options.venue]
    calls = []
    for start in range(0, len(symbols), at_once):
        part = tuple(symbols[start : start + at_once])
        query: dict[str, str] = {}
        for number, symbol in enumerate(part, 1):
            query |= {f"FID_COND_MRKT_DIV_CODE_{number}": market, f"FID_INPUT_ISCD_{number}": symbol}
        calls.append(_call(options, "intstock-multprice", query, auth, part))
    return calls


def parse_quotes(body: bytes, symbols: Sequence[str]) -> np.ndarray:
    """Return the QUOTE rows of an answer of intstock-multprice. A row that does not read is left out; its neighbours are not."""
    output = _object(body, "intstock-multprice").get("output")
    rows = [output] if isinstance(output, dict) else output  # Source: the portal's table says object, the wire has an array
    if not isinstance(rows, list):
        raise DecodeError("answer has no rows", call="intstock-multprice")
    wanted, quotes, count = set(symbols), unknown_quotes(len(rows)), 0
    for row in rows:
        symbol = row.get("inter_shrn_iscd") if isinstance(row, dict) else None
        if not isinstance(symbol, str) or symbol not in wanted:
            continue
        quotes[count]["symbol"] = symbol.encode()
        for name, field in _PRICES:
            quotes[count][name] = figure(row.get(field), positive=True)
        for name, field in _SUMS:
            quotes[count][name] = figure(row.get(field))
        count += 1
    return quotes[:count]


def candle_call(options: ProviderOptions, symbol: str, bar_ns: int, auth: Auth) -> Call:
    """Return the call for the 30 minutes that end with the last one of the bar."""
    last = _local(bar_ns) + timedelta(seconds=BAR_S) - _MINUTE
    query = {
        "FID_COND_MRKT_DIV_CODE": p.REST_MARKETS[options.venue], "FID_INPUT_ISCD": symbol, "FID_INPUT_HOUR_1": f"{last:%H%M%S}",
        "FID_PW_DATA_INCU_YN": "Y", "FID_ETC_CLS_CODE": "",
    }  # fmt: skip
    return _call(options, "inquire-time-itemchartprice", query, auth, (symbol,))


def parse_candle(body: bytes, bar_ns: int) -> Candle | None:
    """Return the bar made of its minutes.

    A minute without a trade may have no row, or one with the volume of the minute before it (observed): such a row shows itself by a
    cumulative value that has not moved.
    """
    rows = _object(body, "inquire-time-itemchartprice").get("output2")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DecodeError("answer has no minutes", call="inquire-time-itemchartprice")
    begin = _local(bar_ns)
    day = f"{begin:%Y%m%d}"
    inside = {f"{begin + _MINUTE * number:%H%M}" for number in range(BAR_S // 60)}
    mine = ((str(row.get("stck_cntg_hour")), row) for row in rows if row.get("stck_bsop_date") == day)
    minutes = sorted(mine, key=lambda pair: pair[0])
    traded, value_before = [], float("nan")
    for hour, row in minutes:
        value = figure(row.get("acml_tr_pbmn"))
        volume = figure(row.get("cntg_vol"))
        if hour[:4] in inside and volume > 0 and value != value_before:
            names = ("stck_oprc", "stck_hgpr", "stck_lwpr", "stck_prpr")
            opened, high, low, close = (figure(row.get(name), positive=True) for name in names)
            if not low <= min(opened, close) <= max(opened, close) <= high:  # NaN compares with nothing
                raise DecodeError("a traded minute lacks a price", call="inquire-time-itemchartprice", minute=hour)
            traded.append((opened, high, low, close, volume))
        value_before = value
    if not traded:
        return None
    opens, highs, lows, closes, volumes = zip(*traded, strict=True)
    return Candle(bar_ns, opens[0], max(highs), min(lows), closes[-1], sum(volumes))


def holiday_call(options: ProviderOptions, day: int, auth: Auth) -> Call:
    return _call(options, "chk-holiday", {"BASS_DT": str(day), "CTX_AREA_NK": "", "CTX_AREA_FK": ""}, auth, ())


def parse_holidays(body: bytes) -> dict[int, bool]:
    """Return the days of one page, from the day asked for on."""
    rows = _object(body, "chk-holiday").get("output")
    try:
        if isinstance(rows, list) and rows:
            return {int(row["bass_dt"]): {"Y": True, "N": False}[row["opnd_yn"]] for row in rows}
    except (KeyError, TypeError, ValueError):
        pass
    raise DecodeError("answer has no days", call="chk-holiday")


def judge(status: int, headers: Mapping[str, str], body: bytes) -> float:
    """See obs.providers.base.Rest. Source: portal and observed: business errors come with 500 and JSON, sometimes with 200."""
    if status == 200 and body.startswith(_ZIP):
        return 0.0
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        if status == 429:
            raise RateLimited("venue counts too many calls", status=status, wait_s=p.TOO_FAST_WAIT_S)
        raise ConnectionLost("answer is not a JSON object", reason="api_error", status=status, length=len(body))
    code = str(answer.get("msg_cd") or answer.get("error_code") or "")[:32]
    if code in p.CODE_TOO_FAST or status == 429:
        raise RateLimited("venue counts too many calls", code=code, status=status, wait_s=p.TOO_FAST_WAIT_S)
    if code in p.CODE_TOKEN_DEAD:
        raise TokenExpired("venue does not accept the token", code=code, status=status)
    if answer.get("rt_cd") != "0":
        raise ConnectionLost("venue refused the call", reason="api_error", code=code, status=status)
    return 0.0


def _call(options: ProviderOptions, name: str, query: Mapping[str, str], auth: Auth, symbols: tuple[str, ...]) -> Call:
    headers = (
        ("content-type", "application/json; charset=utf-8"), ("authorization", f"Bearer {auth.token}"), ("appkey", auth.credential.key),
        ("appsecret", auth.credential.secret), ("tr_id", p.REST_TR_IDS[name]), ("tr_cont", ""), ("custtype", p.CUSTTYPE_PERSON),
    )  # fmt: skip
    url = f"{options.rest_url.rstrip('/')}{p.REST_ROOT}{name}?{urlencode(query)}"
    return Call(Request("GET", url, headers, b""), GROUP, symbols)


def _object(body: bytes, call: str) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise DecodeError("answer is not a JSON object", call=call, length=len(body))
    return answer


def _local(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // NS, UTC) + _KST


