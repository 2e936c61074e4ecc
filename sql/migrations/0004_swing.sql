-- The true 10-minute bars and the universe they are taken of: the columns are the keys of the JSONL lines and of the universe file.

-- A record is named by (session_id, ring, seq); every row here is of the ring "swing". A bar may come twice, from a snapshot (high
-- and low unknown) and then from a candle. Some 200,000 rows a day: no partitions.
CREATE TABLE swing_bars_10m (
    ts timestamptz NOT NULL,
    bar_time timestamptz,
    symbol text COLLATE "C" NOT NULL,
    open numeric(20,8),
    high numeric(20,8),
    low numeric(20,8),
    close numeric(20,8),
    volume numeric(28,8),
    bid_price numeric(20,8),
    ask_price numeric(20,8),
    bar_source text COLLATE "C" NOT NULL,
    day_open numeric(20,8),
    day_high numeric(20,8),
    day_low numeric(20,8),
    acc_volume numeric(28,8),
    session_id text COLLATE "C" NOT NULL,
    mitigation_level smallint NOT NULL,
    quality_flag text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    provider text COLLATE "C" NOT NULL,
    market text COLLATE "C",
    venue text COLLATE "C",
    ts_ns bigint NOT NULL,
    bar_ns bigint,
    recv_ns bigint,
    schema_version text COLLATE "C" NOT NULL,
    receive_time timestamptz
);
CREATE UNIQUE INDEX swing_bars_10m_identity ON swing_bars_10m (session_id, seq);
CREATE INDEX swing_bars_10m_symbol_bar ON swing_bars_10m (symbol, bar_time);
CREATE INDEX swing_bars_10m_ts ON swing_bars_10m USING brin (ts);

-- Who is watched on one day, in the order of traded value (rank 1 is the largest); `made_ns` tells one building of a day from another,
-- `stale_since` the day that the list was really built for, where that is another one.
CREATE TABLE market_universe (
    market text COLLATE "C" NOT NULL,
    date date NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    rank integer NOT NULL,
    name text,
    previous_close numeric(20,8),
    traded_value numeric(28,8),
    source text COLLATE "C" NOT NULL,
    stale_since date,
    made_ns bigint NOT NULL,
    schema_version text COLLATE "C" NOT NULL DEFAULT '1.0',
    PRIMARY KEY (market, date, symbol)
);
