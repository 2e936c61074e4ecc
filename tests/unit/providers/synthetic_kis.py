"""KIS messages of our own making, in the venue's form, with the rows they must become."""

from __future__ import annotations

from typing import Any

from inputs import row

SYMBOLS = ["005930", "0193T0", "Q500001"]
US_SYMBOLS = ["NAS:AAPL", "NYS:BRK.B", "BAQ:AAPL"]
NS = 10**9
# 2026-07-14 09:30:05 KST = 00:30:05 UTC
EVENT_NS = 1_783_989_005 * NS


def trade_fields(symbol: str = "005930", **changed: str) -> list[str]:
    """Return the 46 fields of a H0STCNT0 record; f12="7" sets field 12."""
    text = (
        "093005 71500 2 500 0.70 71320.15 71100 71900 70800 71600 71500 37 1204311 85890123450 4100 5200 1100 112.40 500123 600321 1 0.54 "
        "35.20 090012 2 400 091500 5 -400 090301 2 700 20260714 20 N 812 3301 120345 98012 0.02 1100000 109.48 0 - 71000"
    )
    fields = [symbol, *("" if field == "-" else field for field in text.split())]
    assert len(fields) == 46
    for name, value in changed.items():
        fields[int(name[1:])] = value
    return fields


def trade_row(symbol: str = "005930", place: int = 1, **known: Any) -> dict[str, Any]:
    """Return the row of `trade_fields()`."""
    usual: dict[str, Any] = {
        "event_ns": EVENT_NS, "side": "buy", "phase": "regular", "quoted": True, "price": 71500.0, "size": 37.0, "bid_price": 71500.0,
        "ask_price": 71600.0, "bid_size": 3301.0, "ask_size": 812.0, "acc_volume": 1204311.0, "base_price": 71000.0, "acc_day": 20260714,
    }  # fmt: skip
    return row("trade", symbol, place, **(usual | known))


def book_fields(symbol: str = "005930", width: int = 62, **changed: str) -> list[str]:
    """Return the fields of a H0STASP0 record."""
    asks = [str(71600 + 100 * level) for level in range(10)]
    bids = [str(71500 - 100 * level) for level in range(10)]
    sizes = [str(101 + level) for level in range(20)]
    fields = [symbol, "093006", "0", *asks, *bids, *sizes, "1055", "1155", "0", "0", "0", "0", "0", "-71000", "5", "-100.00", "1204400"]
    fields += ["12", "-7", "0", "0", "0", "71550", "0", "0", "2", "9", "9"][: width - 54]
    assert len(fields) == width
    for name, value in changed.items():
        fields[int(name[1:])] = value
    return fields


def book_row(symbol: str = "005930", place: int = 1, **known: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "event_ns": EVENT_NS + NS, "phase": "regular", "bid_price": 71500.0, "ask_price": 71600.0, "bid_size": 111.0, "ask_size": 101.0,
        "acc_volume": 1204400.0, "base_price": 71000.0, "acc_day": 20260714,
    }  # fmt: skip
    return row("quote", symbol, place, **(usual | known))


def us_fields(key: str = "DNASAAPL", **changed: str) -> list[str]:
    """Return the 26 fields of a HDFSCNT0 record: 2026-07-13 20:30:05 in New York is 2026-07-14 09:30:05 in Seoul."""
    text = (
        "4 20260713 20260713 203005 20260714 093005 210.1000 212.3456 209.5000 211.2345 5 1.0500 -0.49 211.2300 211.2400 15 22 101 3474974 "
        "123704911.25 903260 416269 46.09 3"
    )
    fields = [key, key[4:], *text.split()]
    assert len(fields) == 26
    for name, value in changed.items():
        fields[int(name[1:])] = value
    return fields


def us_row(symbol: str = "AAPL", place: int = 1, **known: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "event_ns": EVENT_NS, "phase": "after_market", "quoted": True, "price": 211.2345, "size": 101.0, "bid_price": 211.23,
        "ask_price": 211.24, "bid_size": 15.0, "ask_size": 22.0, "acc_volume": 3474974.0, "acc_day": 20260713,
    }  # fmt: skip
    return row("trade", symbol, place, **(usual | known))


def message(tr_id: str, *records: list[str], count: int | None = None, flag: str = "0") -> bytes:
    """Return records joined as the venue joins them."""
    return f"{flag}|{tr_id}|{len(records) if count is None else count:03d}|{'^'.join('^'.join(record) for record in records)}".encode()


# name -> (payload, rows). All of kr_stocks; the tr_ids of nxt and unified have the same layout.
FRAMES = {
    "synthetic_trade_01": (message("H0STCNT0", trade_fields()), [trade_row()]),
    "synthetic_trade_three_records": (
        message("H0STCNT0", trade_fields(), trade_fields("0193T0", f12="38", f13="9"), trade_fields("Q500001", f21="5")),
        [trade_row(), trade_row("0193T0", 2, size=38.0, acc_volume=9.0), trade_row("Q500001", 3, side="sell")],
    ),
    "synthetic_trade_width_47": (
        message("H0STCNT0", [*trade_fields(), "3"], [*trade_fields(f12="1"), "2"]),
        [trade_row(phase="after_market"), trade_row(size=1.0)],
    ),
    "synthetic_trade_width_50": (message("H0UNCNT0", [*trade_fields(), "2", "x", "", "7"]), [trade_row()]),
    "synthetic_trade_nxt": (message("H0NXCNT0", trade_fields(), trade_fields()), [trade_row(), trade_row()]),
    "synthetic_trade_falling": (
        message("H0STCNT0", trade_fields(f3="5", f4="-1500", f21="3")),
        [trade_row(side="", base_price=73000.0)],
    ),
    "synthetic_trade_falling_without_sign": (message("H0STCNT0", trade_fields(f3="5", f4="1500")), [trade_row(base_price=73000.0)]),
    "synthetic_trade_empty_sides": (
        message("H0STCNT0", trade_fields(f10="0", f11="", f36="0", f37="")),
        [trade_row(bid_price=float("nan"), ask_price=float("nan"), bid_size=float("nan"), ask_size=float("nan"))],
    ),
    "synthetic_trade_no_values": (
        message("H0STCNT0", trade_fields(f2="0", f4="", f12="", f13="", f33="")),
        [trade_row(price=float("nan"), base_price=float("nan"), size=float("nan"), acc_volume=float("nan"), event_ns=0, acc_day=0)],
    ),
    "synthetic_trade_expected": (
        message("H0STCNT0", trade_fields(f43="B", f34="10")),
        [trade_row(phase="pre_open", ignore="expected")],
    ),
    "synthetic_trade_stranger": (
        message("H0STCNT0", trade_fields(), trade_fields("000660", f43="C")),
        [trade_row(), trade_row("000660", 0, ignore="unknown_symbol", phase="expected")],
    ),
    "synthetic_trade_fraction": (message("H0STCNT0", trade_fields(f2="71550.5")), [trade_row(price=71550.5, base_price=71050.5)]),
    "synthetic_book_59": (message("H0STASP0", book_fields(width=59)), [book_row()]),
    "synthetic_book_62": (message("H0STASP0", book_fields(), book_fields("0193T0")), [book_row(), book_row("0193T0", 2)]),
    "synthetic_book_unified_65": (message("H0UNASP0", book_fields(width=65)), [book_row()]),
    "synthetic_book_nxt_65": (message("H0NXASP0", book_fields(width=65)), [book_row()]),
    "synthetic_book_one_sided": (
        message("H0STASP0", book_fields(f3="0", f23="0")),
        [book_row(ask_price=float("nan"), ask_size=float("nan"))],
    ),
    "synthetic_book_auction_crossed": (
        message("H0STASP0", book_fields(f2="A", f3="71000", f47="71200", f50="200", f51="2")),
        [book_row(phase="closing", ask_price=71000.0, base_price=float("nan"))],
    ),
}
US_FRAMES = {
    "synthetic_us_trade": (message("HDFSCNT0", us_fields()), [us_row()]),
    "synthetic_us_trade_three": (
        message("HDFSCNT0", us_fields(), us_fields("DNYSBRK.B", f25="1"), us_fields("RBAQAAPL", f15="0.0000", f25="2")),
        [us_row(), us_row("BRK.B", 2, phase="pre_market"), us_row(place=3, phase="regular", bid_price=float("nan"), bid_size=float("nan"))],
    ),
    "synthetic_us_trade_stranger": (message("HDFSCNT0", us_fields("DNASMSFT")), [us_row("MSFT", 0, ignore="unknown_symbol")]),
}

ACK = b'{"header":{"tr_id":"%s","tr_key":"%s","encrypt":"N"},"body":{"rt_cd":"%s","msg_cd":"%s","msg1":"%s"}}'


def answer(code: str, text: str, rt_cd: str = "1", tr_id: str = "H0STCNT0", key: str = "005930") -> bytes:
    return ACK % (tr_id.encode(), key.encode(), rt_cd.encode(), code.encode(), text.encode())


CONTROL_FRAMES = {
    "synthetic_ping": b'{"header":{"tr_id":"PINGPONG","datetime":"20260714093000"}}',
    "synthetic_ack": answer("OPSP0000", "SUBSCRIBE SUCCESS", "0"),
    "synthetic_limit": answer("OPSP0008", "MAX SUBSCRIBE OVER"),
    "synthetic_in_use": answer("OPSP8996", "ALREADY IN USE appkey", "9", "(null)", ""),
}
