"""The REST side of the simulated KIS that a collector needs: keys, tokens, limits, the 30-symbol quote, the volume rank.

With a universe the data, more calls of it, and the master files come from kis_listed.py.

Source: KIS Open API sheet, sections 2, 3 and 9. Errors come as HTTP 500 (403 for the issue limit) with a JSON body, as
there. Any appkey and secret are good, but an appkey that starts with `bad` is unknown (EGW00103), and so is a secret
that starts with `bad` (EGW00105). Assumed: the text of the key errors, and that a too early Approval is answered like a too early
token.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from obs.sim.kis_listed import TR_IDS, KisListed
from obs.sim.market import Symbol
from obs.sim.now import mono_s, second_s, wall_ns
from obs.sim.options import SimOptions
from obs.sim.symbols import KRX

if TYPE_CHECKING:
    from obs.sim.kis import KisExchange

_TOKEN_S: Final = 86_400
_SAME_TOKEN_S: Final = 6 * 3600
_APPROVAL_S: Final = 86_400
_MULTI: Final = 30
_RANK_ROWS: Final = 30
_QUOTATIONS: Final = "/uapi/domestic-stock/v1/quotations/"
_GOOD: Final = {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다."}
_TR_IDS: Final = {"intstock-multprice": "FHKST11300006", "volume-rank": "FHPST01710000"}


@dataclass(slots=True)
class _Token:
    text: str
    appkey: str
    issued_s: float
    expires_s: float


class KisAccounts:
    """Approval keys and tokens that were issued, and the spacing between issues. Monotonic seconds."""

    def __init__(self, options: SimOptions) -> None:
        self._options = options
        self._last_issue: dict[tuple[str, str], float] = {}
        self._serial = 0
        self.approvals: dict[str, tuple[str, float]] = {}  # approval key -> (appkey, expiry)
        self.tokens: dict[str, _Token] = {}

    def too_early(self, what: str, appkey: str, spacing_s: float) -> bool:
        """Return True if the last issue is too recent; else this one counts."""
        now = mono_s()
        last = self._last_issue.get((what, appkey))
        if last is not None and now - last < spacing_s:
            return True
        self._last_issue[what, appkey] = now
        return False

    def _text(self, what: str, appkey: str, length: int) -> str:
        self._serial += 1
        seed = f"{what}/{appkey}/{self._serial}/{self._options.seed}".encode()
        return hashlib.shake_256(seed).hexdigest(length)[:length]

    def approve(self, appkey: str) -> str:
        key = self._text("approval", appkey, 36)
        self.approvals[key] = (appkey, mono_s() + _APPROVAL_S)
        return key

    def appkey_of(self, approval_key: str) -> str | None:
        appkey, expires_s = self.approvals.get(approval_key, ("", 0.0))
        return appkey if expires_s > mono_s() else None

    def token(self, appkey: str) -> _Token:
        """Return the token of the last six hours, or a new one."""
        now = mono_s()
        for known in self.tokens.values():
            if known.appkey == appkey and now - known.issued_s < _SAME_TOKEN_S and known.expires_s > now:
                return known
        token = _Token(self._text("token", appkey, 340), appkey, now, now + _TOKEN_S)
        self.tokens[token.text] = token
        return token

    def expire_tokens(self) -> None:
        for token in self.tokens.values():
            token.expires_s = 0.0


class KisRest:
    """Answers REST requests from the accounts and the market of one exchange."""

    def __init__(self, exchange: KisExchange) -> None:
        self._exchange = exchange
        self._options = exchange.options
        self._calls: dict[str, list[float]] = {}  # by appkey: times of the last second
        self._refusals = 0
        self._made: KisListed | None = None

    @property
    def _listed(self) -> KisListed | None:
        """What answers from the universe, None without one."""
        if self._made is None and self._exchange.universe is not None:
            self._made = KisListed(self._exchange.universe)
        return self._made

    async def answer(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if self._listed is not None and request.method == "GET":
            file = self._listed.master(request.path, wall_ns())
            if file is not None:
                return web.Response(body=file, content_type="application/zip")
        limited = self._exchange.faults.find("rate_limit") is not None
        if request.path in ("/oauth2/tokenP", "/oauth2/Approval"):
            if request.method != "POST":
                return _json({"error_description": "Method Not Allowed", "error_code": "EGW00002"}, 405)
            return self._issue(request.path, body, limited)
        name = request.path.removeprefix(_QUOTATIONS)
        tr_id = (_TR_IDS if self._listed is None else TR_IDS).get(name)
        if tr_id is None or request.method != "GET":
            return _json({"rt_cd": "1", "msg_cd": "EGW00203", "msg1": "OPS라우팅 중 오류가 발생했습니다."}, 404)
        refused = self._refused(request, tr_id, limited)
        if refused is not None or self._listed is None:
            return refused or self._data(name, request)
        outputs, tr_cont = self._listed.answer(name, request.query, wall_ns())
        return _json(outputs | _GOOD, headers={"tr_id": tr_id, "tr_cont": tr_cont, "gt_uid": ""})

    def _issue(self, path: str, body: bytes, limited: bool) -> web.Response:
        """Issue a token or an approval key."""
        try:
            asked = json.loads(body)
            grant, appkey = str(asked["grant_type"]), str(asked["appkey"])
            # Source: kis.md 2.2: the field is secretkey for Approval and appsecret for tokenP.
            secret = str(asked["secretkey" if path.endswith("Approval") else "appsecret"])
        except (ValueError, KeyError, TypeError):
            return _json({"error_description": "유효하지 않은 요청입니다.", "error_code": "EGW00002"}, 403)
        if grant != "client_credentials" or not appkey or appkey.startswith("bad"):
            return _json({"error_description": "유효하지 않은 AppKey입니다.", "error_code": "EGW00103"}, 403)
        if not secret or secret.startswith("bad"):
            return _json({"error_description": "유효하지 않은 AppSecret입니다.", "error_code": "EGW00105"}, 403)
        accounts = self._exchange.accounts
        approval = path.endswith("Approval")
        spacing_s = self._options.approval_spacing_s if approval else self._options.token_spacing_s
        if limited or accounts.too_early(path, appkey, spacing_s):
            self._exchange.log.do("issue too early", path=path)
            per = "1초당 1회" if approval else "1분당 1회"
            return _json({"error_description": f"접근토큰 발급 잠시 후 다시 시도하세요({per})", "error_code": "EGW00133"}, 403)
        self._exchange.log.do("issue", path=path)
        if approval:
            return _json({"approval_key": accounts.approve(appkey)})
        token = accounts.token(appkey)
        left_s = int(token.expires_s - mono_s())
        expires = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(wall_ns() / 1e9 + left_s + 9 * 3600))
        return _json({"access_token": token.text, "access_token_token_expired": expires, "token_type": "Bearer", "expires_in": left_s})

    def _refused(self, request: web.BaseRequest, tr_id: str, limited: bool) -> web.Response | None:
        """Return the error answer of a data call, None if it is good."""
        token = self._exchange.accounts.tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if token is None:
            return _error("EGW00121", "유효하지 않은 token 입니다.")
        if token.expires_s <= mono_s():
            return _error("EGW00123", "기간이 만료된 token 입니다.")
        if request.headers.get("appkey") != token.appkey or not request.headers.get("appsecret"):
            return _error("EGW00103", "유효하지 않은 AppKey입니다.")
        if request.headers.get("tr_id") != tr_id:
            return _error("EGW00207", "헤더값의 tr_id가 올바르지 않습니다.")
        now, span_s = mono_s(), second_s()
        calls = self._calls[token.appkey] = [at for at in self._calls.get(token.appkey, []) if now - at < span_s]
        if limited or len(calls) >= self._options.rest_rate * span_s:
            self._refusals += 1
            if self._listed is not None and self._refusals % 5 == 0:  # Source: kis.md 3: HTTP 500 mostly, 200 at times
                return _error("EGW00201", "초당 거래건수를 초과하였습니다.", 200)
            return _error("EGW00201", "초당 거래건수를 초과하였습니다.")
        calls.append(now)
        return None

    def _data(self, name: str, request: web.BaseRequest) -> web.Response:
        if name == "intstock-multprice":
            wanted = [
                (request.query.get(f"FID_COND_MRKT_DIV_CODE_{n}", "J"), request.query[f"FID_INPUT_ISCD_{n}"])
                for n in range(1, _MULTI + 1)
                if request.query.get(f"FID_INPUT_ISCD_{n}")
            ]
            output = [_quote(self._symbol(market, code)) for market, code in wanted]
        else:
            ranked = sorted((self._symbol("J", code) for code in KRX), key=lambda symbol: -symbol.acc)
            output = [_rank(symbol, place) for place, symbol in enumerate(ranked[:_RANK_ROWS], 1)]
        return _json({"output": output} | _GOOD, headers={"tr_id": _TR_IDS[name], "tr_cont": "", "gt_uid": ""})

    def _symbol(self, market: str, code: str) -> Symbol:
        group = {"NX": "nxt", "UN": "unified"}.get(market, "krx")
        return self._exchange.symbol(group, code, KRX.get(code, ("", 0))[0])


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return web.Response(text=text, status=status, content_type="application/json", charset="utf-8", headers=headers)


def _error(code: str, text: str, status: int = 500) -> web.Response:
    return _json({"rt_cd": "1", "msg_cd": code, "msg1": text}, status)


def _sign(change: int) -> str:
    return "2" if change > 0 else "5" if change < 0 else "3"


def _quote(s: Symbol) -> dict[str, Any]:
    """Return one row of intstock-multprice."""
    change = s.price - s.prev_close
    rate = change / s.prev_close * 100 if s.prev_close else 0.0
    numbers = {
        "inter2_prpr": s.price, "inter2_oprc": s.open, "inter2_hgpr": s.high, "inter2_lwpr": s.low, "inter2_askp": s.ask,
        "inter2_bidp": s.bid, "seln_rsqn": s.ask_size, "shnu_rsqn": s.bid_size, "total_askp_rsqn": s.ask_size * 11,
        "total_bidp_rsqn": s.bid_size * 11, "acml_vol": s.acc, "acml_tr_pbmn": s.value, "inter2_prdy_clpr": s.prev_close,
        "inter2_sdpr": s.prev_close, "inter2_mxpr": s.prev_close * 13 // 10, "inter2_llam": s.prev_close * 7 // 10,
        "inter2_prdy_vrss": change, "intr_antc_cnpr": 0, "intr_antc_vol": 0,
    }  # fmt: skip
    row: dict[str, Any] = {"inter_shrn_iscd": s.code, "inter_kor_isnm": s.name, "prdy_vrss_sign": _sign(change)}
    row |= {name: str(value) for name, value in numbers.items()}
    row |= {"prdy_ctrt": f"{rate:.2f}", "hour_cls_code": "0", "mrkt_trtm_cls_name": "", "kospi_kosdaq_cls_name": "KOSPI"}
    return row


def _rank(s: Symbol, place: int) -> dict[str, Any]:
    """Return one row of volume-rank."""
    change = s.price - s.prev_close
    rate = change / s.prev_close * 100 if s.prev_close else 0.0
    values = {
        "hts_kor_isnm": s.name, "mksc_shrn_iscd": s.code, "data_rank": place, "stck_prpr": s.price, "prdy_vrss_sign": _sign(change),
        "prdy_vrss": change, "prdy_ctrt": f"{rate:.2f}", "acml_vol": s.acc, "prdy_vol": s.prev_volume, "lstn_stcn": 1_000_000_000,
        "avrg_vol": s.prev_volume, "vol_inrt": f"{s.acc / s.prev_volume * 100:.2f}", "acml_tr_pbmn": s.value,
    }  # fmt: skip
    return {name: str(value) for name, value in values.items()}
