"""The configuration file: defaults, every kind of problem, all problems together, secrets, demo."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from obs.config import Config, config_hash, demo_config, demo_environ, load, read_secrets, require_start, start_problems
from obs.config.credentials import read_token
from obs.config.demo import KIS_SYMBOLS, UPBIT_SYMBOLS
from obs.config.options import TABLES, ProviderOptions
from obs.config.venues import SYMBOLS, TYPES
from obs.errors import ConfigError
from obs.providers.base import ProviderOptions as ProviderSection
from obs.providers.registry import PROVIDERS, make_provider
from obs.record.schema import MARKETS, SYMBOL_BYTES, VENUES


def written(folder: Path, text: str) -> Path:
    path = folder / "obs.toml"
    path.write_text(text)
    return path


def problems_of(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text), environ=environ, cwd=folder)
    return caught.value.problems


def test_defaults_are_those_of_the_specification(tmp_path: Path) -> None:
    config = load(environ={}, cwd=tmp_path)
    plain = dataclasses.asdict(config)
    expected: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "database": {"dsn": None},
        "http": {"host": "127.0.0.1", "port": 8000, "token_file": None},
        "archive": {"flush_s": 1.0, "segment_s": 300, "segment_bytes": 64 * 2**20, "zstd_level": 1},
        "loader": {"rows": 10_000, "flush_s": 1.0},
        "ring": {
            "dir": Path("/dev/shm"), "capacity": 131_072, "event_capacity": 8_192, "swing_capacity": 16_384,
            "quarantine_capacity": 1_024, "max_sessions": 3,
        },
        "quarantine": {"bytes_per_day": 64 * 2**20},
        "supervisor": {"heartbeat_s": 15.0, "sink_heartbeat_s": 120.0},
        "mitigation": {"enabled": True},
        "providers": (),
        "is_demo": False,
    }  # fmt: skip
    assert {name: plain[name] for name in expected} == expected
    assert plain["demo"]["source"] == "model"
    assert plain["demo"]["mode"] == "sample"


def test_provider_defaults_by_type(tmp_path: Path) -> None:
    config = load(written(tmp_path, '[providers.kis]\n[providers.up2]\ntype = "upbit"\nvenue = "sg"\n'), environ={}, cwd=tmp_path)
    kis, upbit = config.providers
    assert (kis.type, kis.market, kis.venue, kis.channels, kis.slots) == ("kis", "kr_stocks", "krx", ("trade",), 41)
    assert (kis.credentials, kis.mode, kis.hours, kis.enabled) == (("KIS",), "sample", "calendar", True)
    assert kis.ws_url.startswith("ws://ops.koreainvestment.com:21000")
    assert (upbit.type, upbit.market, upbit.venue, upbit.credentials) == ("upbit", "crypto", "sg", ())
    assert upbit.rest_url == "https://sg-api.upbit.com"


def test_a_full_file_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        data_dir = "somewhere/data"
        [database]
        dsn = "postgresql://localhost/obs"
        [http]
        port = 9000
        [archive]
        flush_s = 0.5
        segment_bytes = "1 MiB"
        [ring]
        dir = "/dev/shm"
        capacity = 1024
        [demo]
        source = "numbered"
        rate = 5000
        script = "faults.jsonl"
        [providers.kis]
        rest_url = "http://127.0.0.1:1234"
        ws_url = "ws://127.0.0.1:1234/tryitout"
        credentials = ["KIS", "KIS2"]
        symbols = ["005930", "0193T0", "Q500001"]
        channels = ["trade", "book"]
        mode = "tape"
        hours = "always"
        """,
    )
    config = load(path, environ={}, cwd=tmp_path)
    assert config.data_dir == tmp_path / "somewhere" / "data"
    assert config.archive.flush_s == 0.5
    assert config.archive.segment_bytes == 2**20
    assert (config.demo.rate, config.demo.script) == (5000.0, tmp_path / "faults.jsonl")
    kis = config.providers[0]
    assert kis.slots == 20  # two registrations for each symbol
    assert (kis.symbols, kis.mode, kis.hours) == (("005930", "0193T0", "Q500001"), "tape", "always")


KIS = '[providers.kis]\nsymbols = ["005930"]\n'
WRONG = [
    # text of the file, patterns of which each must match one problem
    ('zzz = "x"', [r"^obs\.toml: zzz: no such key; known here: .*archive"]),
    ('data_dri = "x"', [r"data_dri: no such key; did you mean data_dir\?"]),
    ("[archive]\nflush = 1", [r"archive\.flush: no such key; did you mean flush_s\?"]),
    ("[archive]\nflush_s = 'fast'", [r'^obs\.toml: archive\.flush_s = "fast": a number of seconds, 0\.05 to 60$']),
    ("[archive]\nflush_s = nan", [r"archive\.flush_s = NaN: a number"]),
    ("[archive]\nflush_s = true", [r"archive\.flush_s = true: a number"]),
    ("[archive]\nflush_s = 30\nsegment_s = 10", [r"archive\.flush_s = 30.0: at most archive\.segment_s = 10"]),
    ("[archive]\nsegment_s = 7", [r"archive\.segment_s = 7: a divisor of 86400"]),
    ("[archive]\nsegment_bytes = '64 MB'", [r'archive\.segment_bytes = "64 MB": a number of bytes']),
    ("[archive]\nzstd_level = 99", [r"archive\.zstd_level = 99: a whole number, 1 to 19"]),
    ("archive = 3", [r"archive = 3: a table, written \[archive\]"]),
    ("data_dir = 3", [r"data_dir = 3: a path"]),
    ("[ring]\ncapacity = 1000", [r"ring\.capacity = 1000: a power of two of records, .*, for example 1024"]),
    ("[loader]\nrows = 0", [r"loader\.rows = 0: a whole number of rows"]),
    ("[loader]\nrows = 1.5", [r"loader\.rows = 1\.5: a whole number"]),
    ("[http]\nhost = '0.0.0.0'", [r'http\.host = "0\.0\.0\.0": a loopback address .* unless http\.token_file is set']),
    ("[http]\nport = 70000", [r"http\.port = 70000: a whole number, 0 to 65535"]),
    ("[supervisor]\nheartbeat_s = 200", [r"supervisor\.sink_heartbeat_s = 120.0: at least supervisor\.heartbeat_s = 200"]),
    ("[demo]\nsource = 'real'", [r'demo\.source = "real": one of "numbered", "model", "recordings"']),
    ("[demo]\nrecordings = 'x'", [r"demo\.recordings: no such key"]),
    ("[providers]\nkis = 1", [r"providers\.kis = 1: a table"]),
    ("[providers.upbitt]", [r'providers\.upbitt\.type = "upbitt": one of kis, upbit; did you mean upbit\?']),
    ("[providers.mine]", [r'providers\.mine\.type = "mine": one of kis, upbit; the default is the name of the section']),
    ("[providers.Kis]\ntype = 'kis'", [r'providers = "Kis": a name of 1 to 24 small letters']),
    ("[providers.services]\ntype = 'upbit'", [r'providers = "services": .* not services']),
    (KIS + "market = 'crypto'", [r'providers\.kis\.market = "crypto": one of kr_stocks, us_stocks']),
    (KIS + "venue = 'us'", [r'providers\.kis\.venue = "us": one of krx, nxt, unified for market kr_stocks']),
    (KIS + "mode = 'fast'", [r'providers\.kis\.mode = "fast": one of "sample", "tape"']),
    (KIS + "hours = 'never'", [r'providers\.kis\.hours = "never": one of "calendar", "always"']),
    (KIS + "channels = ['ticker']", [r'providers\.kis\.channels = \["ticker"\]: at least one of trade, book']),
    (KIS + "channels = ['trade', 'trade']", [r"providers\.kis\.channels = .*each name once; 'trade' stands twice"]),
    (KIS + "slots = 42", [r"providers\.kis\.slots = 42: at most 41: 42 slots x 1 channels = 42 registrations"]),
    (KIS.replace("5930", "x") + "slots = 42", [r"slots = 42", r'symbols = \["00x"\]: each a KRX']),
    (KIS + "slots = 21\nchannels = ['trade', 'book']", [r"at most 20: 21 slots x 2 channels = 42 registrations, kis gives 41"]),
    (KIS + "credentials = []", [r'providers\.kis\.credentials = \[\]: at least one .*\["KIS"\] for KIS_APP_KEY and KIS_APP_SECRET']),
    (KIS + "credentials = ['kis']", [r"providers\.kis\.credentials = .*'kis' cannot stand in it"]),
    (KIS + "ws_url = 'http://x'", [r"providers\.kis\.ws_url = .*: a URL that starts with ws:// or wss://"]),
    (KIS + "rest_url = 'http://me:pw@x/'", [r"providers\.kis\.rest_url = .*without a user name or password"]),
    (KIS + "rest_url = 'http://x:99999/'", [r"providers\.kis\.rest_url = .*: a URL that starts with http://"]),
    (KIS + "sybmols = []", [r"providers\.kis\.sybmols: no such key; did you mean symbols\?"]),
    ("[providers.kis]\nsymbols = ['A005930', '5930']", [r'symbols = \["A005930", "5930"\]: each a KRX short code']),
    ("[providers.kis]\nsymbols = ['005930', '005930']", [r"symbols = .*: each name once; '005930' stands twice"]),
    ("[providers.kis]\nsymbols = '005930'", [r'symbols = "005930": a list of symbols']),
    ("[providers.upbit]\nsymbols = ['krw-btc']", [r'symbols = \["krw-btc"\]: each QUOTE-BASE in upper case']),
    ("[providers.upbit]\ncredentials = ['X']", [r'providers\.upbit\.credentials = \["X"\]: nothing: upbit needs none']),
    ("[providers.upbit]\nslots = 1\nsymbols = ['KRW-BTC', 'KRW-ETH']", [r'symbols = "2 symbols": at most 1: slots x credentials']),
    (
        KIS + "[providers.kis_b]\ntype = 'kis'\ncredentials = ['KIS']\n",
        [r'providers\.kis_b\.credentials = \["KIS"\]: a credential that no other section uses; KIS is that of providers\.kis'],
    ),
    (KIS + KIS, [r"providers.*(twice|overwrite|declare)"]),
    ("[ring", [r"^obs\.toml: Expected '\]' .*at end of document"]),
    # All problems of a file at once, from reading as from the checks between keys.
    (
        "zap = 1\n[ring]\ncapacity = 3\n[http]\nhost = '::'\n[providers.kis]\nslots = 100\nmode = 1\n[providers.nope]\n",
        [r"zap:", r"ring\.capacity = 3", r'http\.host = "::"', r"kis\.slots = 100", r"kis\.mode = 1", r"nope\.type"],
    ),
]


@pytest.mark.parametrize(("text", "patterns"), WRONG, ids=[f"{at:02}" for at in range(len(WRONG))])
def test_wrong_files_are_refused_with_every_problem(tmp_path: Path, text: str, patterns: list[str]) -> None:
    problems = problems_of(tmp_path, text)
    for pattern in patterns:
        assert any(re.search(pattern, problem, re.IGNORECASE) for problem in problems), (pattern, problems)
    assert len(problems) == len(patterns), problems


def test_the_error_lists_its_problems_and_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, "a = 1\nb = 2"), environ={}, cwd=tmp_path)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.problems == caught.value.problems
    assert str(again).count("\n") == 2
    assert again.exit_code == 2


@pytest.mark.parametrize("text", ["\xff\xfe", ""])
def test_a_file_that_is_missing_or_not_text_is_one_problem(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gone.toml"
    if text:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load(path, environ={}, cwd=tmp_path)
    assert len(caught.value.problems) == 1
    assert "gone.toml" in caught.value.problems[0]


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[http]\nport = 1")
    (tmp_path / "b.toml").write_text("[http]\nport = 2")
    assert load(environ={}, cwd=tmp_path).source == "defaults"
    (tmp_path / "obs.toml").write_text("[http]\nport = 3")
    assert load(environ={}, cwd=tmp_path).http.port == 3
    assert load(environ={"OBS_CONFIG": "b.toml"}, cwd=tmp_path).http.port == 2
    assert load("a.toml", environ={"OBS_CONFIG": "b.toml"}, cwd=tmp_path).http.port == 1
    with pytest.raises(ConfigError):
        load(environ={"OBS_CONFIG": "c.toml"}, cwd=tmp_path)


def test_the_data_directory(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    path = written(folder, "")
    assert load(path, environ={}, cwd=tmp_path, default_data="demo-data").data_dir == tmp_path / "demo-data"
    path.write_text('data_dir = "d"')
    assert load(path, environ={}, cwd=tmp_path).data_dir == folder / "d"  # a path in the file counts from the file
    assert load(path, environ={}, cwd=tmp_path, data="e").data_dir == tmp_path / "e"


def test_the_dsn_comes_from_the_environment_first_and_shows_no_password(tmp_path: Path) -> None:
    path = written(tmp_path, '[database]\ndsn = "postgresql://obs:hunter2secret@db/obs"')
    path.chmod(0o644)
    problems = problems_of(tmp_path, path.read_text())
    assert "hunter2secret" not in "".join(problems)
    assert "chmod 0600" in problems[0]
    path.chmod(0o600)
    config = load(path, environ={}, cwd=tmp_path)
    assert config.database.dsn == "postgresql://obs:hunter2secret@db/obs"
    other = load(path, environ={"OBS_DSN": "host=db password=hunter2secret dbname=obs"}, cwd=tmp_path)
    assert other.database.dsn == "host=db password=hunter2secret dbname=obs"
    for shown in (repr(config), str(config.database), repr(other), str(other.database)):
        assert "hunter2secret" not in shown
    assert str(config.database) == "postgresql://obs:***@db/obs"


def test_the_hash_tells_settings_apart_and_not_secrets(tmp_path: Path) -> None:
    first = load(environ={"OBS_DSN": "postgresql://u:aaaaaaa@h/d"}, cwd=tmp_path)
    second = load(environ={"OBS_DSN": "postgresql://u:bbbbbbb@h/d"}, cwd=tmp_path)
    third = load(environ={"OBS_DSN": "postgresql://u:bbbbbbb@h/e"}, cwd=tmp_path)
    assert config_hash(first) == config_hash(second) != config_hash(third)
    assert re.fullmatch("[0-9a-f]{16}", config_hash(first))


def test_the_configuration_crosses_to_a_child(tmp_path: Path) -> None:
    config = load(written(tmp_path, KIS), environ={}, cwd=tmp_path)
    assert pickle.loads(pickle.dumps(config)) == config


def kis_config(folder: Path, text: str = KIS) -> Config:
    return load(written(folder, text), environ={}, cwd=folder)


def test_secrets_come_from_the_environment(tmp_path: Path) -> None:
    provider = kis_config(tmp_path, KIS + 'credentials = ["KIS", "B"]').providers[0]
    names = {"KIS_APP_KEY": "key-one", "KIS_APP_SECRET": "secret-one", "B_APP_KEY": "key-two", "B_APP_SECRET": "secret-two"}
    found = read_secrets(provider, names)
    assert [(secret.name, secret.key, secret.secret) for secret in found] == [
        ("KIS", "key-one", "secret-one"),
        ("B", "key-two", "secret-two"),
    ]
    assert "one" not in repr(found)
    with pytest.raises(ConfigError) as caught:
        read_secrets(provider, {**names, "B_APP_KEY": " "} | {"KIS_APP_SECRET": ""})
    assert "KIS_APP_SECRET, B_APP_KEY not set in the environment" in caught.value.problems[0]
    assert "key-one" not in str(caught.value)


def test_one_key_under_two_names_is_refused(tmp_path: Path) -> None:
    """Each connection of it would throw the other out: in one section, in two, and from two places; never with the key's value."""
    keys = {f"{name}_APP_{what}": "sesame" + name * (what == "SECRET") for name in ("KIS", "B", "C") for what in ("KEY", "SECRET")}
    file = tmp_path / "keys.env"
    file.write_text("KIS_APP_KEY='sesame'\nKIS_APP_SECRET=x\n")
    file.chmod(0o600)
    other = '[providers.b]\ntype = "kis"\nsymbols = ["000660"]\n'
    for text, place in (
        ('credentials = ["KIS", "B"]', "providers.kis.credentials: B"),
        (other + 'credentials = ["B"]', "providers.b.credentials: B"),
        (other + 'credentials = ["KIS"]\nsecrets_file = "keys.env"', "providers.b.credentials: KIS"),
    ):
        config = kis_config(tmp_path, KIS + text + "\n")
        (problem,) = start_problems(config, keys)
        assert f"{place} has the same key as KIS of providers.kis.credentials: one key allows one connection" in problem
        assert "sesame" not in problem
        assert len(start_problems(config, keys, provider="kis")) == (len(config.providers) == 1), "the other does not run with it"
        if "secrets_file" not in text:
            assert start_problems(config, keys | {"B_APP_KEY": "another"}) == []
    three = kis_config(tmp_path, KIS + 'credentials = ["KIS", "B", "C"]\n')
    assert len(start_problems(three, keys)) == 2


def test_secrets_come_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.env"
    file.write_text("# mine\nexport KIS_APP_KEY=key-one\n\nKIS_APP_SECRET='a=b'\n")
    provider = kis_config(tmp_path, KIS + 'secrets_file = "keys.env"').providers[0]
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="mode 0640, must be 0600"):
        read_secrets(provider, {})
    file.chmod(0o600)
    (secret,) = read_secrets(provider, {"KIS_APP_KEY": "not this one"})
    assert (secret.key, secret.secret) == ("key-one", "a=b")
    file.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        read_secrets(provider, {})


def test_the_http_token_comes_from_a_private_file(tmp_path: Path) -> None:
    config = kis_config(tmp_path, '[http]\nhost = "0.0.0.0"\ntoken_file = "token"\n' + KIS)
    token = tmp_path / "token"
    keys = {"KIS_APP_KEY": "k", "KIS_APP_SECRET": "s"}
    assert "No such file" in start_problems(config, keys, services=True)[0]
    token.write_text("\n")
    token.chmod(0o644)
    assert "mode 0644, must be 0600" in start_problems(config, keys)[0]
    assert start_problems(config, keys, provider="kis") == []  # the monitor is another supervisor's
    token.chmod(0o600)
    assert "a file with a token in it" in start_problems(config, keys)[0]
    token.write_text("sesame\n")
    assert (read_token(config), start_problems(config, keys)) == ("sesame", [])
    assert read_token(kis_config(tmp_path)) is None


def test_what_only_a_start_needs(tmp_path: Path) -> None:
    config = kis_config(tmp_path, "[providers.kis]\n[providers.upbit]\nenabled = false\n[providers.u2]\ntype = 'upbit'\nvenue = 'sg'\n")
    problems = start_problems(config, {})
    assert len(problems) == 2, problems
    assert "KIS_APP_KEY, KIS_APP_SECRET not set" in problems[0]
    assert "providers.u2.symbols = []: list 1 to 41 symbols, they cannot be selected: its universe rule is in KRW" in problems[1]
    assert start_problems(config, {}, services=True) == []
    assert "is not enabled; enabled: kis, u2" in start_problems(config, {}, provider="upbit")[0]
    assert "no such section" in start_problems(config, {}, provider="kiss")[0]
    assert "none is enabled" in start_problems(load(environ={}, cwd=tmp_path / "x"), {})[0]
    with pytest.raises(ConfigError, match="cannot start"):
        require_start(config, {})
    good = kis_config(tmp_path)
    require_start(good, {"KIS_APP_KEY": "k", "KIS_APP_SECRET": "s"})


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ("[providers.kis]", ""), ("[providers.kis]\nvenue = 'unified'", ""), ("[providers.kis]\nvenue = 'nxt'", "which issues NXT trades"),
        ("[providers.kis]\nmarket = 'us_stocks'", "many US issues"), ("[providers.upbit]", ""), ("[providers.upbit]\nvenue = 'id'", "KRW"),
        ("[providers.kis]\nrest_url = 'https://openapivts.koreainvestment.com:29443'", "the paper server"),
        ("[providers.kis]\nrest_url = 'https://openapivts.koreainvestment.com:29443'\nsymbols = ['005930']", ""),
    ],
)  # fmt: skip
def test_where_symbols_are_selected_and_where_they_must_be_listed(tmp_path: Path, section: str, why: str) -> None:
    config = kis_config(tmp_path, section + "\n")
    problems = start_problems(config, {"KIS_APP_KEY": "k", "KIS_APP_SECRET": "s"})
    assert len(problems) == bool(why), problems
    assert all(why in problem and "they cannot be selected" in problem for problem in problems)


def test_settings_of_the_rest_side_reach_the_provider_alone(tmp_path: Path) -> None:
    config = kis_config(tmp_path, KIS + "calls_per_s = 3\nmaster_url = 'http://127.0.0.1:1/common/master/'\n[providers.upbit]\n")
    kis, upbit = config.providers
    assert kis.provider_options() == {"calls_per_s": 3.0, "master_url": "http://127.0.0.1:1/common/master"}
    assert upbit.provider_options() == {}
    assert (kis.selects, upbit.selects) == (False, True)


def test_the_demo_needs_nothing_and_replaces_the_providers(tmp_path: Path) -> None:
    base = kis_config(tmp_path, KIS + "[demo]\nmode = 'tape'\n[archive]\nflush_s = 0.5\n")
    config = demo_config(base, {"kis": 1111, "upbit": 2222})
    assert config.is_demo
    assert config.archive.flush_s == 0.5
    assert [provider.name for provider in config.planned()] == ["kis", "upbit"]
    assert all(provider.mode == "tape" and provider.hours == "always" for provider in config.planned())
    assert all("127.0.0.1:" in provider.rest_url + provider.ws_url for provider in config.planned())
    environ = demo_environ()
    require_start(config, environ)
    (secret,) = read_secrets(config.providers[0], environ)
    assert (len(secret.key), len(secret.secret)) == (36, 180)
    replayed = demo_config(base, {"kis": 1, "upbit": 2}, recordings=tmp_path)
    assert (replayed.demo.source, replayed.demo.recordings) == ("recordings", tmp_path)
    assert demo_environ() == environ


def test_demo_symbols_fill_the_slots_and_fit_their_markets() -> None:
    for symbols, market in ((KIS_SYMBOLS, "kr_stocks"), (UPBIT_SYMBOLS, "crypto")):
        assert len(set(symbols)) == 41
        assert all(re.fullmatch(SYMBOLS[market][0], symbol) and len(symbol) <= SYMBOL_BYTES for symbol in symbols)
    assert "Q500001" in KIS_SYMBOLS
    assert any(re.search("[A-Z]", symbol) for symbol in KIS_SYMBOLS if symbol != "Q500001")


def test_types_use_the_markets_and_venues_of_records() -> None:
    for kind in TYPES.values():
        for place in kind.places:
            assert place.market in MARKETS
            assert place.venue in VENUES
            assert place.market in SYMBOLS
            assert set(kind.channels) <= set(place.channels)


SPELLINGS = [
    "005930", "0193T0", "33637K", "Q500001", "A005930", "5930", "00593", "q500001", "AAPL", "NAS:AAPL", "NYS:IBM", "XXX:AAPL", "BRK.B",
    "aapl", "ABCDEFG", "KRW-BTC", "BTC-ETH", "USDT-1INCH", "krw-btc", "KRW_BTC", "KRW-", "KRW-BTC.1", "KRW-ABCDEFGHIJKLMNO",
]  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_the_file_accepts_what_the_provider_accepts(name: str) -> None:
    """Two rooms that must not import each other know these facts: they agree."""
    kind = TYPES[name]
    for place in kind.places:
        options = ProviderSection(name, place.market, place.venue, place.channels, kind.slots, place.rest_url, place.ws_url)
        provider = make_provider(name, options)
        assert provider.needs_credential == (kind.secret_names is not None)
        assert provider.limits.registrations == kind.registrations
        for text in SPELLINGS:
            try:
                accepted = bool(provider.slot_symbol(text))
            except ConfigError:
                accepted = False
            assert bool(re.fullmatch(SYMBOLS[place.market][0], text)) == accepted, (place, text)


def test_the_types_are_those_of_the_providers() -> None:
    assert set(TYPES) == set(PROVIDERS)


def test_every_key_has_a_kind_that_says_what_is_allowed() -> None:
    for options in (*TABLES.values(), ProviderOptions):
        for item in dataclasses.fields(options):
            if (options.__name__, item.name) != ("DemoOptions", "recordings"):
                assert item.metadata["kind"].allowed


def test_nothing_but_the_given_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "OBS_DSN", "postgresql://elsewhere/obs")
    assert load(environ={}, cwd=tmp_path).database.dsn is None
