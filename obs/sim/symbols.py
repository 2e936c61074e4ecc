"""The instruments that the simulated venues list: codes and names as the venues have them, prices of our own.

A KIS symbol that is not listed here can be registered all the same (the venue acknowledges any code); an Upbit pair that is
not listed is unknown, and Upbit says nothing about those. A folder of recordings adds the pairs in its market lists.
"""

from __future__ import annotations

from typing import Final

# code -> (name, price in won)
KRX: Final[dict[str, tuple[str, int]]] = {
    "005930": ("삼성전자", 71_500), "000660": ("SK하이닉스", 198_500), "373220": ("LG에너지솔루션", 352_000),
    "207940": ("삼성바이오로직스", 1_024_000), "005380": ("현대차", 214_500), "000270": ("기아", 99_800),
    "068270": ("셀트리온", 176_300), "105560": ("KB금융", 111_200), "055550": ("신한지주", 67_400),
    "035420": ("NAVER", 231_000), "012330": ("현대모비스", 296_500), "028260": ("삼성물산", 168_200),
    "005490": ("POSCO홀딩스", 301_500), "051910": ("LG화학", 268_000), "006400": ("삼성SDI", 204_500),
    "035720": ("카카오", 58_900), "012450": ("한화에어로스페이스", 912_000), "329180": ("HD현대중공업", 421_500),
    "086790": ("하나금융지주", 86_100), "138040": ("메리츠금융지주", 113_900), "000810": ("삼성화재", 439_500),
    "032830": ("삼성생명", 128_400), "015760": ("한국전력", 38_250), "033780": ("KT&G", 133_700),
    "009540": ("HD한국조선해양", 367_000), "010130": ("고려아연", 801_000), "066570": ("LG전자", 76_900),
    "034020": ("두산에너빌리티", 62_300), "011200": ("HMM", 23_450), "096770": ("SK이노베이션", 104_600),
    "003550": ("LG", 78_200), "017670": ("SK텔레콤", 55_700), "030200": ("KT", 52_100), "247540": ("에코프로비엠", 112_300),
    "086520": ("에코프로", 51_800), "196170": ("알테오젠", 447_500), "005935": ("삼성전자우", 58_200),
    "069500": ("KODEX 200", 43_120), "122630": ("KODEX 레버리지", 30_515), "114800": ("KODEX 인버스", 3_105),
    "252670": ("KODEX 200선물인버스2X", 1_212), "0193T0": ("SIM 상장지수", 10_120), "33637K": ("SIM 우선주", 17_930),
    "Q500001": ("SIM ETN", 9_870), "025560": ("미래산업", 1_942), "004020": ("현대제철", 33_900), "024110": ("기업은행", 19_870),
    "316140": ("우리금융지주", 24_300), "352820": ("하이브", 273_500), "259960": ("크래프톤", 322_000),
    "042700": ("한미반도체", 96_400), "010950": ("S-Oil", 61_700), "009150": ("삼성전기", 158_900), "018260": ("삼성에스디에스", 167_800),
    "090430": ("아모레퍼시픽", 124_100), "161390": ("한국타이어앤테크놀로지", 41_350), "011170": ("롯데케미칼", 66_800),
    "036570": ("엔씨소프트", 198_100), "251270": ("넷마블", 57_300), "003670": ("포스코퓨처엠", 139_200),
}  # fmt: skip

# base currency -> price in won; every one is listed against KRW, the first BTC_COUNT of them against BTC and USDT as well
CRYPTO: Final[dict[str, float]] = {
    "BTC": 106_700_000, "ETH": 3_742_000, "XRP": 2_046, "SOL": 178_900, "DOGE": 214.3, "ADA": 702, "TRX": 381, "AVAX": 24_310,
    "LINK": 19_450, "DOT": 5_330, "BCH": 571_500, "NEAR": 3_412, "APT": 6_705, "ATOM": 5_918, "ETC": 24_930, "XLM": 389.4,
    "HBAR": 251.1, "ALGO": 263.5, "SAND": 371.2, "MANA": 389.9, "AXS": 3_214, "FLOW": 512.3, "CHZ": 56.12, "NEO": 8_215,
    "QTUM": 2_918, "STX": 912.4, "IMX": 731.5, "AAVE": 352_800, "SUI": 4_322, "SEI": 271.9, "ARB": 512.8, "BLUR": 112.4,
    "MINA": 219.7, "GRT": 129.3, "ZRX": 318.2, "BAT": 214.6, "KNC": 451.8, "ICX": 159.4, "IOTA": 264.1, "WAVES": 1_512,
    "1INCH": 318.9, "SHIB": 0.01712, "PEPE": 0.01391, "BONK": 0.02514, "XTZ": 951, "EOS": 812, "ARK": 612.4, "STPT": 78.31,
    "LSK": 712, "STEEM": 212.5, "POWR": 251.3, "ARDR": 98.21, "STORJ": 341.2, "CVC": 131.4, "GAS": 4_512, "ONT": 241.8,
    "ZIL": 17.41, "LAMB": 3.212, "MARO": 41.2, "PAXG": 4_712_000, "AQT": 1_012, "ITAM": 51.3, "FCT2": 61.2, "ELF": 298.4,
    "THETA": 1_092, "TFUEL": 58.91, "ENJ": 91.2, "HUNT": 412.3, "PLA": 212.9, "AUCTION": 14_210, "TON": 4_512, "JUP": 612.8,
    "PYTH": 198.7, "ONDO": 1_213, "PENDLE": 6_412, "RENDER": 5_312, "INJ": 17_812, "MATIC": 312.1, "UNI": 11_240, "ZETA": 298.5,
}  # fmt: skip
BTC_COUNT: Final = 16

# symbol -> price in dollars
US: Final[dict[str, float]] = {
    "AAPL": 228.5, "MSFT": 421.3, "NVDA": 134.2, "GOOGL": 174.9, "AMZN": 201.7, "META": 566.1, "TSLA": 251.4, "SPY": 571.8,
    "QQQ": 488.2, "IBM": 221.9, "BAC": 39.6, "AIG": 74.1, "BKNG": 4_212.5, "AMD": 158.2, "INTC": 22.4,
}  # fmt: skip


def crypto_pairs() -> dict[str, float]:
    """Return every listed Upbit pair with its price in the quote currency."""
    won = CRYPTO
    pairs = {f"KRW-{base}": price for base, price in won.items()}
    for base in list(won)[:BTC_COUNT]:
        if base != "BTC":
            pairs[f"BTC-{base}"] = round(won[base] / won["BTC"], 8)
        pairs[f"USDT-{base}"] = round(won[base] / 1_400, 4)
    return pairs
