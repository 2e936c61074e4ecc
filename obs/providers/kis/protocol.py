"""Facts of the KIS Open API, each with its source.

"portal": the field and code tables of the KIS Developers portal, with the provider's samples
(github.com/koreainvestment/open-trading-api, state of July 2026), read 2026-10. "notice": a portal notice by date.
"observed": seen on the wire or measured by users, not documented.
"""

from __future__ import annotations

from typing import Final

# Source: portal, WebSocket samples. The bare root works too (observed).
WS_PATH: Final = "/tryitout"
# Source: portal, hosts: only the paper server listens there.
PAPER_WS_PORT: Final = 31000

PAPER_REST_PORT: Final = 29443

# Source: portal, Approval and tokenP.
APPROVAL_PATH: Final = "/oauth2/Approval"
TOKEN_PATH: Final = "/oauth2/tokenP"
# Source: portal. The same secret is `secretkey` for the one and `appsecret` for the other.
APPROVAL_SECRET_FIELD: Final = "secretkey"
TOKEN_SECRET_FIELD: Final = "appsecret"

# Source: observed (user reports), error_code of both calls: wrong key, wrong secret.
REJECTED_CODES: Final = frozenset({"EGW00103", "EGW00105"})
# Source: notice of 2026-04: one Approval a second. Observed: one tokenP a minute.
APPROVAL_SPACING_S: Final = 1.0
TOKEN_SPACING_S: Final = 60.0

# REST data calls: name -> tr_id, below REST_ROOT. Source: portal, domestic stocks, quotations.
REST_ROOT: Final = "/uapi/domestic-stock/v1/quotations/"
REST_TR_IDS: Final = {
    "intstock-multprice": "FHKST11300006",
    "inquire-time-itemchartprice": "FHKST03010200",
    "chk-holiday": "CTCA0903R",
}
# Source: portal, FID_COND_MRKT_DIV_CODE. NXT (NX) trades a part of the issues, and no file says which: it has no universe here.
REST_MARKETS: Final = {"krx": "J", "unified": "UN"}
# Source: portal: issues of one intstock-multprice.
QUOTE_SYMBOLS: Final = 30
# Source: notice of 2026-04-20: 18 calls a second per app key, 1 on the paper server (600 ms tripped it, 1100 ms did not: observed).
CALLS_PER_S: Final = 15.0
CALLS_PER_S_PAPER: Final = 0.9
# Source: ours: two files a day.
MASTERS_PER_S: Final = 1.0
# Source: portal, the samples' address; the folder of the master files.
MASTER_URL: Final = "https://new.real.download.dws.co.kr/common/master"
# Source: observed, msg_cd of an answer: calls came too fast (not a ban: a second later they are served); the token is dead.
CODE_TOO_FAST: Final = frozenset({"EGW00201", "EGW00215"})
TOO_FAST_WAIT_S: Final = 1.0
CODE_TOKEN_DEAD: Final = frozenset({"EGW00121", "EGW00123"})  # invalid, expired

# Source: portal notices and a measured refusal of the 42nd (2026-08-17): 41 over all channels and markets of an app key.
REGISTRATIONS: Final = 41
# Source: provider's sample: pauses between registrations, real and paper account.
REGISTER_SPACING_S: Final = 0.05
REGISTER_SPACING_PAPER_S: Final = 0.5
# Source: notice of 2026-02-24: loops of connecting get the key blocked; with one Approval a second, never faster than that.
CONNECT_SPACING_S: Final = 1.0
# Source: observed: a dropped path can stay open without a close; nothing at all (PINGPONG counts) for 90 s is a dead one.
MUTE_S: Final = 90.0
# Source: ours. The answer to a registration comes within a second (observed).
CONFIRM_S: Final = 10.0
# Source: observed: the server keeps the slot of a dropped connection for a while.
IN_USE_BACKOFF_S: Final = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)

# Source: portal tables of every channel; comments of some samples that say "0" for the second are stale.
TR_REGISTER: Final = "1"
TR_UNREGISTER: Final = "2"
CUSTTYPE_PERSON: Final = "P"
# Source: portal: text without a body, sent back as it is (observed to work).
PINGPONG: Final = "PINGPONG"

# Source: portal and observed (a capture each): msg_cd of an answer to a registration, and what follows from it.
CODE_REGISTERED: Final = frozenset({"OPSP0000", "OPSP0002"})  # SUBSCRIBE SUCCESS, ALREADY IN SUBSCRIBE
CODE_UNREGISTERED: Final = frozenset({"OPSP0001", "OPSP0003"})  # UNSUBSCRIBE SUCCESS, UNSUBSCRIBE ERROR (not found)
CODE_RETRY: Final = "OPSP0007"  # SUBSCRIBE INTERNAL ERROR
CODE_LIMIT: Final = "OPSP0008"  # MAX SUBSCRIBE OVER
CODE_BAD_APPROVAL: Final = "OPSP0011"  # invalid approval : NOT FOUND
CODE_BAD_TR: Final = "OPSP8991"  # invalid tr_id (single source)
CODE_IN_USE: Final = "OPSP8996"  # ALREADY IN USE appkey; header tr_id "(null)", then the server closes

# Channels: (market, venue) -> generic channel -> tr_id.
# Source: portal, domestic and overseas real-time lists.
TR_IDS: Final = {
    ("kr_stocks", "krx"): {"trade": "H0STCNT0", "book": "H0STASP0"},
    ("kr_stocks", "nxt"): {"trade": "H0NXCNT0", "book": "H0NXASP0"},
    ("kr_stocks", "unified"): {"trade": "H0UNCNT0", "book": "H0UNASP0"},
    ("us_stocks", "us"): {"trade": "HDFSCNT0"},
}

# Data messages: `<flag>|<tr_id>|<count>|<records joined with the same ^>`.
# Source: portal. Flag 1 (AES) belongs to order notices; quotes never were encrypted.
FLAG_PLAIN: Final = b"0"
FLAG_ENCRYPTED: Final = b"1"

# Least number of fields of a record. Source: portal tables; the wire has had more (H0STCNT0 46, 47 since 2026-09-14;
# H0STASP0 62, 63 on 2026-09-22; observed), so the width is computed from each message.
MIN_TRADE: Final = 46
MIN_BOOK: Final = 59
MIN_US_TRADE: Final = 26

# H0STCNT0, H0UNCNT0, H0NXCNT0: places of fields. Source: portal H0STCNT0; 46 is observed since 2026-09-14.
T_SYMBOL: Final = 0
T_TIME: Final = 1  # STCK_CNTG_HOUR, HHMMSS KST
T_PRICE: Final = 2
T_SIGN: Final = 3  # PRDY_VRSS_SIGN: 1, 2 up; 3 flat; 4, 5 down
T_CHANGE: Final = 4  # PRDY_VRSS, against the previous close; carries a minus when falling (observed)
T_ASK: Final = 10  # ask before bid
T_BID: Final = 11
T_SIZE: Final = 12  # CNTG_VOL, shares
T_ACC_VOLUME: Final = 13  # ACML_VOL, shares of the day
T_SIDE: Final = 21  # CCLD_DVSN: 1 buy, 5 sell, 3 pre-open
T_DATE: Final = 33  # BSOP_DATE
T_PHASE: Final = 34  # NEW_MKOP_CLS_CODE
T_HALT: Final = 35  # TRHT_YN
T_ASK_SIZE: Final = 36
T_BID_SIZE: Final = 37
T_HOUR: Final = 43  # HOUR_CLS_CODE: A, B, C, D are expected prices, not trades
T_MARKET: Final = 46  # MARKET_CLS_CODE: 1 pre-market, 2 regular, 3 after-market, 5 closing

# H0STASP0, H0UNASP0, H0NXASP0. Source: portal H0STASP0; later fields differ by channel and are not read.
B_TIME: Final = 1
B_HOUR: Final = 2
B_ASK: Final = 3
B_BID: Final = 13
B_ASK_SIZE: Final = 23
B_BID_SIZE: Final = 33
B_EXPECTED: Final = 47  # ANTC_CNPR, 0 outside auctions
B_EXPECTED_CHANGE: Final = 50  # expected price - previous close; so minus the previous close while 47 is 0 (observed)
B_EXPECTED_SIGN: Final = 51
B_EXPECTED_RATE: Final = 52  # %, with two decimals (observed)
B_ACC_VOLUME: Final = 53

# HDFSCNT0. Source: portal, with RSYM in front as on the wire (observed; the provider's sample list omits it).
U_KEY: Final = 0  # RSYM, the registration key
U_SYMBOL: Final = 1
U_DAY: Final = 3  # TYMD, local business date
U_DATE: Final = 6  # KYMD, KST
U_TIME: Final = 7  # KHMS, KST
U_LAST: Final = 11
U_SIGN: Final = 12
U_BID: Final = 15
U_ASK: Final = 16
U_BID_SIZE: Final = 17
U_ASK_SIZE: Final = 18
U_SIZE: Final = 19
U_ACC_VOLUME: Final = 20
U_PHASE: Final = 25  # MTYP. Source: observed: 1 pre-market, 2 regular, 3 post; the portal says 1 regular, 2 pre
