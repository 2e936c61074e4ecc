"""What the REST side of the simulated KIS answers from a universe: quotes, minute candles, ranks, holidays, master files.

Source: KIS Open API sheet, sections 9 and 10. Assumed, because the sheet does not tell: a code that is not listed has no row in the
30-symbol quote, and no rows in the minute candles; a whole minute without a trade goes on showing the volume of the one before; a row
in the future has volume 0 (its price is the present one); the candles of `FID_PW_DATA_INCU_YN` Y go on in the trading day before; 25 days
are one page of holidays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from obs.sim.hours import MINUTE_MS, date_of, day_number, number_of
from obs.sim.kis_master import PATHS, master_zip
from obs.sim.listing import ETF, ETN, KOSPI, PREFERRED, SPAC
from obs.sim.universe import Universe

TR_IDS: Final = {
    "intstock-multprice": "FHKST11300006", "inquire-price": "FHKST01010100", "inquire-time-itemchartprice": "FHKST03010200",
    "volume-rank": "FHPST01710000", "chk-holiday": "CTCA0903R",
}  # fmt: skip
_MULTI: Final = 30
_CANDLES: Final = 30
_RANKS: Final = 30
_HOLIDAY_ROWS: Final = 25
# The ten flags of FID_TRGT_EXLS_CLS_CODE that a universe can tell. Source: kis.md 9, volume-rank
_ADMINISTRATIVE, _LIQUIDATION, _PREFERRED, _HALTED, _ETF, _ETN, _SPAC = 1, 2, 4, 5, 6, 7, 9

Answer = dict[str, Any]


class KisListed:
    """Answers from one universe; times are UTC nanoseconds of the venue's clock."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._masters: dict[tuple[int, int], bytes] = {}

    def master(self, path: str, now_ns: int) -> bytes | None:
        """Return the master file at a path, None if there is none."""
        board = PATHS.get(path)
        if board is None:
            return None
        day = self._universe.hours.day_of(now_ns // 10**6)
        if (board, day) not in self._masters:
            self._masters = {key: file for key, file in self._masters.items() if key[1] == day}
            self._masters[board, day] = master_zip(self._universe, board, day)
        return self._masters[board, day]

    def answer(self, name: str, query: Mapping[str, str], now_ns: int) -> tuple[Answer, str]:
        """Return the outputs of a call, and tr_cont."""
        ms = now_ns // 10**6
        match name:
            case "intstock-multprice":
                codes = [query.get(f"FID_INPUT_ISCD_{place}", "") for place in range(1, _MULTI + 1)]
                return {"output": self._quotes([code for code in codes if code], ms)}, ""
            case "inquire-price":
                return {"output": self._price(query.get("FID_INPUT_ISCD", ""), ms)}, ""
            case "inquire-time-itemchartprice":
                past = query.get("FID_PW_DATA_INCU_YN", "N") == "Y"
                return self._candles(query.get("FID_INPUT_ISCD", ""), query.get("FID_INPUT_HOUR_1", ""), past, ms), ""
            case "volume-rank":
                return {"output": self._ranks(query, ms)}, ""
            case _:
                return self._holidays(query.get("BASS_DT", ""), ms), "M"

    def _rows(self, codes: list[str], ms: int) -> np.ndarray:
        """Return the rows of the codes that the venue knows, in their order."""
        rows = np.array([row for row in (self._universe.row_of.get(code) for code in codes) if row is not None], np.int64)
        known: np.ndarray = rows[self._universe.listed(rows, ms)]
        return known

    def _quotes(self, codes: list[str], ms: int) -> list[Answer]:
        """Return rows of intstock-multprice."""
        universe, rows = self._universe, self._rows(codes, ms)
        state, day = universe.state(rows, ms), universe.hours.day_of(ms)
        at = np.full(len(rows), ms)
        base = universe.previous_close(day)[rows]
        price = np.where(state.price == 0, base, state.price)
        columns = (
            base, price, state.open, state.high, state.low, state.volume, state.value, *universe.quote(rows, at), *universe.depth(rows, at),
        )  # fmt: skip
        listing = universe.listing
        out = []
        for row, base_, last, first, high, low, volume, value, bid, ask, bid_size, ask_size in zip(
            rows.tolist(), *(column.tolist() for column in columns), strict=True
        ):
            change = last - base_
            out.append(
                {
                    "inter_shrn_iscd": listing.codes[row], "inter_kor_isnm": listing.names[row],
                    "kospi_kosdaq_cls_name": "KOSPI" if listing.board[row] == KOSPI else "KOSDAQ",
                    "mrkt_trtm_cls_name": "", "hour_cls_code": "0" if volume else "B", "inter2_prpr": str(last),
                    "inter2_prdy_vrss": str(change), "prdy_vrss_sign": _sign(change), "prdy_ctrt": f"{change / base_ * 100:.2f}",
                    "acml_vol": str(volume), "inter2_oprc": str(first), "inter2_hgpr": str(high), "inter2_lwpr": str(low),
                    "inter2_llam": str(base_ * 7 // 10), "inter2_mxpr": str(base_ * 13 // 10), "inter2_askp": str(ask),
                    "inter2_bidp": str(bid), "seln_rsqn": str(ask_size), "shnu_rsqn": str(bid_size), "total_askp_rsqn": str(ask_size * 11),
                    "total_bidp_rsqn": str(bid_size * 11), "acml_tr_pbmn": str(value), "inter2_prdy_clpr": str(base_),
                    "inter2_sdpr": str(base_),
                    "intr_antc_cnpr": "0", "intr_antc_cntg_vrss": "0", "intr_antc_vol": "0",
                }
            )  # fmt: skip
        return out

    def _price(self, code: str, ms: int) -> Answer:
        """Return the output of inquire-price; empty texts for a code that is not listed."""
        universe = self._universe
        found = self._quotes([code], ms)
        if not found:
            return dict.fromkeys(("stck_prpr", "stck_oprc", "stck_hgpr", "stck_lwpr", "acml_vol", "acml_tr_pbmn", "stck_sdpr"), "0")
        one, row = found[0], universe.row_of[code]
        listing, price = universe.listing, int(found[0]["inter2_prpr"])
        halted = bool(listing.halted[row])
        status = "58" if halted else "51" if listing.administrative[row] else "55"
        tick = int(universe.tick(np.array([row]), np.array([float(price)]))[0])
        return {
            "iscd_stat_cls_code": status, "stck_prpr": one["inter2_prpr"], "prdy_vrss": one["inter2_prdy_vrss"],
            "prdy_vrss_sign": one["prdy_vrss_sign"], "prdy_ctrt": one["prdy_ctrt"], "acml_tr_pbmn": one["acml_tr_pbmn"],
            "acml_vol": one["acml_vol"], "stck_oprc": one["inter2_oprc"], "stck_hgpr": one["inter2_hgpr"], "stck_lwpr": one["inter2_lwpr"],
            "stck_mxpr": one["inter2_mxpr"],
            "stck_llam": one["inter2_llam"], "stck_sdpr": one["inter2_sdpr"], "aspr_unit": str(tick), "lstn_stcn": str(listing.shares[row]),
            "hts_avls": str(int(listing.shares[row]) * price // 10**8), "stck_shrn_iscd": code, "temp_stop_yn": "N", "vi_cls_code": "N",
            "mrkt_warn_cls_code": "00", "sltr_yn": "Y" if listing.liquidation[row] else "N",
            "mang_issu_cls_code": "Y" if listing.administrative[row] else "N", "short_over_yn": "N", "invt_caful_yn": "N",
        }  # fmt: skip

    def _candles(self, code: str, hour: str, past: bool, ms: int) -> Answer:
        """Return the outputs of inquire-time-itemchartprice: 30 minutes backwards from `hour`, newest first."""
        universe, rows = self._universe, self._rows([code], ms)
        if not len(rows) or not (len(hour) == 6 and hour.isdigit()):
            return {"output1": {}, "output2": []}
        hours, row = universe.hours, int(rows[0])
        day = hours.day_of(ms)
        one = self._quotes([code], ms)[0]
        output1 = {
            "prdy_vrss": one["inter2_prdy_vrss"], "prdy_vrss_sign": one["prdy_vrss_sign"], "prdy_ctrt": one["prdy_ctrt"],
            "stck_prdy_clpr": one["inter2_prdy_clpr"], "acml_vol": one["acml_vol"], "acml_tr_pbmn": one["acml_tr_pbmn"],
            "hts_kor_isnm": one["inter_kor_isnm"], "stck_prpr": one["inter2_prpr"],
        }  # fmt: skip
        place = min(int(hour[:2]) * 60 + int(hour[2:4]), hours.last - 1) - hours.first if hours.is_open(day) else -1
        first = max(0, place - _CANDLES + 1)
        output2 = self._minutes(row, day, first, place + 1, ms, int(one["inter2_prpr"]))
        if past and len(output2) < _CANDLES:
            before = hours.open_before(day)
            minutes = hours.last - hours.first
            output2 += self._minutes(row, before, minutes - _CANDLES + len(output2), minutes, ms, 0)
        return {"output1": output1, "output2": output2}

    def _minutes(self, row: int, day: int, first: int, last: int, ms: int, price_now: int) -> list[Answer]:
        """Return the rows of minutes first .. last - 1 of a day's hours, newest first."""
        universe, hours = self._universe, self._universe.hours
        if last <= first:
            return []
        lead = min(first, _CANDLES)  # minutes more, for what a minute shows before its first trade
        found = universe.minutes(row, day, first - lead, last, ms)
        columns = [column.tolist() for column in (found.open, found.high, found.low, found.price, found.volume, found.value)]
        date, now = str(number_of(day)), ms // MINUTE_MS - hours.start_minute(day)
        known, shown, out = 0, 0, []
        for place, (opened, high, low, close, volume, value) in enumerate(zip(*columns, strict=True), first - lead):
            # Source: kis.md 9: until its first trade a minute shows the volume of the one before; the future has the present price.
            shown = volume if volume or place > now else shown
            if place >= first:
                minute = hours.first + place
                if not volume and (place > now or not known):
                    known = price_now if place > now else self._standing(row, day, place, ms)
                out.append(
                    {
                        "stck_bsop_date": date, "stck_cntg_hour": f"{minute // 60:02d}{minute % 60:02d}00",
                        "stck_prpr": str(close or known), "stck_oprc": str(opened or known), "stck_hgpr": str(high or known),
                        "stck_lwpr": str(low or known), "cntg_vol": str(shown), "acml_tr_pbmn": str(value),
                    }
                )  # fmt: skip
            known = close or known
        out.reverse()
        return out

    def _standing(self, row: int, day: int, place: int, ms: int) -> int:
        """Return the last price before a minute of a day's hours that has passed."""
        today = self._universe.day_at(ms)
        price = int(today.so_far(place).price[row]) if day == today.day else 0
        return price or int(self._universe.previous_close(day)[row])

    def _ranks(self, query: Mapping[str, str], ms: int) -> list[Answer]:
        """Return the 30 first of volume-rank."""
        universe, listing = self._universe, self._universe.listing
        rows = universe.rows[universe.listed(universe.rows, ms)]
        state = universe.state(rows, ms)
        day = universe.hours.day_of(ms)
        volume_before = np.maximum(1, universe.previous_day(day)[0][rows])
        shares = listing.shares[rows]
        by = {"0": state.volume, "1": state.volume / volume_before, "2": state.volume / shares, "3": state.value,
              "4": state.value / (shares * np.maximum(1, state.price))}  # fmt: skip
        kinds = np.array(listing.kinds)[rows]
        excluded = query.get("FID_TRGT_EXLS_CLS_CODE", "").ljust(10, "0")
        wanted = state.trades > 0
        for place, those in (
            (_ADMINISTRATIVE, listing.administrative[rows]), (_LIQUIDATION, listing.liquidation[rows]), (_PREFERRED, kinds == PREFERRED),
            (_HALTED, listing.halted[rows]), (_ETF, kinds == ETF), (_ETN, kinds == ETN), (_SPAC, kinds == SPAC),
        ):  # fmt: skip
            if excluded[place] == "1":
                wanted &= ~those
        division = query.get("FID_DIV_CLS_CODE", "0")
        if division in ("1", "2"):
            wanted &= (kinds == PREFERRED) == (division == "2")
        limits = (("FID_INPUT_PRICE_1", state.price, 1), ("FID_INPUT_PRICE_2", state.price, -1), ("FID_VOL_CNT", state.volume, 1))
        for name, figure, way in limits:
            if query.get(name, "").isdigit() and int(query[name]):
                wanted &= way * figure >= way * int(query[name])
        measure = by.get(query.get("FID_BLNG_CLS_CODE", "0"), state.volume)
        some = np.flatnonzero(wanted)
        some = some[np.argsort(-measure[some], kind="stable")][:_RANKS]
        base = universe.previous_close(day)[rows]
        out = []
        for rank, at in enumerate(some.tolist(), 1):
            price, volume, before = int(state.price[at]), int(state.volume[at]), int(volume_before[at])
            change = price - int(base[at])
            values = {
                "hts_kor_isnm": listing.names[rows[at]], "mksc_shrn_iscd": listing.codes[rows[at]], "data_rank": rank, "stck_prpr": price,
                "prdy_vrss_sign": _sign(change), "prdy_vrss": change, "prdy_ctrt": f"{change / base[at] * 100:.2f}", "acml_vol": volume,
                "prdy_vol": before, "lstn_stcn": shares[at], "avrg_vol": before, "n_befr_clpr_vrss_prpr_rate": "0.00",
                "vol_inrt": f"{min(9999.99, volume / before * 100):.2f}", "vol_tnrt": f"{volume / shares[at] * 100:.2f}",
                "acml_tr_pbmn": state.value[at],
            }  # fmt: skip
            out.append({name: str(value) for name, value in values.items()})
        return out

    def _holidays(self, text: str, ms: int) -> Answer:
        """Return the outputs of chk-holiday: consecutive days from BASS_DT on."""
        hours = self._universe.hours
        first = day_number(text)
        first = hours.day_of(ms) if first is None else first
        out = []
        for day in range(first, first + _HOLIDAY_ROWS):
            opened = "Y" if hours.is_open(day) else "N"
            out.append(
                {
                    "bass_dt": str(number_of(day)), "wday_dvsn_cd": f"{date_of(day).isoweekday() % 7 + 1:02d}", "bzdy_yn": opened,
                    "tr_day_yn": opened, "opnd_yn": opened, "sttl_day_yn": opened,
                }
            )  # fmt: skip
        return {"ctx_area_nk": f"{number_of(first + _HOLIDAY_ROWS):<20}", "ctx_area_fk": f"{number_of(first):<20}", "output": out}


def _sign(change: int) -> str:
    return "2" if change > 0 else "5" if change < 0 else "3"
