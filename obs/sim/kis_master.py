"""The stock master files of KIS for a universe: zip files that each hold one .mst, cp949, a record of fixed width per line.

Source: KIS Open API sheet, section 10: KOSPI 288 bytes, KOSDAQ 282 bytes without the newline, and the offsets below. Numbers are
zero-padded, blank is unknown; the name is 40 bytes of cp949. Assumed: the file of a day is there from midnight KST on.
"""

from __future__ import annotations

import io
import zipfile
from typing import Final

from obs.sim.hours import number_of
from obs.sim.listing import ETF, ETN, KOSDAQ, KOSPI, PREFERRED, SPAC
from obs.sim.universe import Universe

PATHS: Final = {"/common/master/kospi_code.mst.zip": KOSPI, "/common/master/kosdaq_code.mst.zip": KOSDAQ}
WIDTHS: Final = {KOSPI: 288, KOSDAQ: 282}
_NAMES: Final = {KOSPI: "kospi_code.mst", KOSDAQ: "kosdaq_code.mst"}
# field -> (first byte in KOSPI, in KOSDAQ, length); -1: the board does not have it
_FIELDS: Final = {
    "group": (61, 61, 2), "size_class": (63, 63, 1), "sector": (64, 64, 12), "low_current": (77, 77, 1), "kospi200": (79, -1, 1),
    "kospi100": (80, -1, 1), "kospi50": (81, -1, 1), "etp": (83, 79, 1), "spac": (90, 85, 1), "short_over": (93, 88, 1),
    "alert": (-1, 91, 1), "kosdaq150": (-1, 96, 1), "base_price": (102, 97, 9), "lot": (111, 106, 5), "after_lot": (116, 111, 5),
    "halted": (121, 116, 1), "liquidation": (122, 117, 1), "administrative": (123, 118, 1), "alarm": (124, 119, 2),
    "risk_notice": (126, 121, 1), "unfaithful": (127, 122, 1), "back_door": (128, 123, 1), "ex_rights": (129, 124, 2),
    "par_change": (131, 126, 2), "increase": (133, 128, 2), "margin": (135, 130, 3), "credit": (138, 133, 1), "credit_days": (139, 134, 3),
    "volume": (142, 137, 12), "par": (154, 149, 12), "listed_on": (166, 161, 8), "shares": (174, 169, 15), "capital": (189, 184, 21),
    "fiscal_month": (210, 205, 2), "ipo_price": (212, 207, 7), "preferred": (219, 214, 1), "short_hot": (220, 215, 1),
    "abnormal": (221, 216, 1), "krx300": (222, 217, 1), "kospi_issue": (223, -1, 1), "accounts": (224, 218, 41),
    "accounts_on": (265, 259, 8), "capitalisation": (273, 267, 9), "group_code": (282, 276, 3), "last_flags": (285, 279, 3),
}  # fmt: skip
_GROUPS: Final = {ETF: "EF", ETN: "EN"}
_ETP: Final = {ETF: "1", ETN: "3"}


def master_zip(universe: Universe, board: int, day: int) -> bytes:
    """Return the zip file of a board for a venue's day."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo(_NAMES[board]), master(universe, board, day))
    return out.getvalue()


def master(universe: Universe, board: int, day: int) -> bytes:
    """Return the .mst file: every issue of the board, by code. The one of a day holds its base prices and the volumes of the day before."""
    listing = universe.listing
    prices, volumes = universe.previous_close(day), universe.previous_day(day)[0]
    traded_on = number_of(universe.hours.open_before(day))
    rows = sorted((code, row) for code, row in universe.row_of.items() if listing.board[row] == board)
    return b"".join(_record(universe, row, board, int(prices[row]), int(volumes[row]), traded_on) for _, row in rows)


def _record(universe: Universe, row: int, board: int, price: int, volume: int, traded_on: int) -> bytes:
    listing = universe.listing
    code, kind, shares = listing.codes[row], listing.kinds[row], int(listing.shares[row])
    fields = {
        "group": _GROUPS.get(kind, "ST"), "size_class": str(1 + row % 3), "sector": f"{10 + row % 20:04d}{row % 9 * 10:04d}0000",
        "low_current": "N", "kospi200": "0", "kospi100": "N", "kospi50": "N", "etp": _ETP.get(kind, "0" if board == KOSPI else " "),
        "spac": "Y" if kind == SPAC else "N", "short_over": "0", "alert": "N", "kosdaq150": "N", "base_price": f"{price:09d}",
        "lot": "00001", "after_lot": "00001", "halted": _flag(listing.halted[row]), "liquidation": _flag(listing.liquidation[row]),
        "administrative": _flag(listing.administrative[row]), "alarm": "00", "risk_notice": "N", "unfaithful": "N", "back_door": "N",
        "ex_rights": "00", "par_change": "00", "increase": "00", "margin": "100", "credit": "N", "credit_days": "090",
        "volume": f"{volume:012d}", "par": f"{500:012d}", "listed_on": "20050103", "shares": f"{shares // 1000:015d}",
        "capital": f"{shares * 500:021d}", "fiscal_month": "12", "ipo_price": " " * 7, "preferred": "1" if kind == PREFERRED else "0",
        "short_hot": "N", "abnormal": "N", "krx300": "N", "kospi_issue": "Y",
        "accounts": f"{1000 + row:09d}{100:09d}{80:09d}{0:05d}{60:09d}",
        "accounts_on": f"{traded_on // 10_000 - 1}1231", "capitalisation": f"{shares * price // 10**8 % 10**9:09d}", "group_code": "   ",
        "last_flags": "NNN",
    }  # fmt: skip
    record = bytearray(b"N" * WIDTHS[board])
    record[0:9] = code.encode().ljust(9)
    record[9:21] = f"KR7{code}00{row % 10}"[:12].ljust(12).encode()
    record[21:61] = listing.names[row].encode("cp949")[:40].ljust(40)
    for name, (kospi, kosdaq, length) in _FIELDS.items():
        at = kospi if board == KOSPI else kosdaq
        text = fields[name].encode()
        if at >= 0:
            if len(text) != length:
                raise ValueError(f"{name} of {code} has {len(text)} bytes, not {length}: {text!r}")
            record[at : at + length] = text
    return bytes(record) + b"\n"


def _flag(holds: object) -> str:
    return "Y" if holds else "N"
