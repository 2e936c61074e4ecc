-- What the system knows of itself: applied migrations, sessions, watermarks, anomaly days; and the instruments.

CREATE TABLE migration_log (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sessions (
    session_id text COLLATE "C" PRIMARY KEY,
    provider text COLLATE "C" NOT NULL,
    host text,
    boot_id text,
    epoch bigint,
    code_version text,
    config_hash text,
    started_at timestamptz,
    started_ns bigint,
    ended_at timestamptz,
    ended_ns bigint,
    host_death boolean,
    rings jsonb,
    final_seqs jsonb
);
CREATE INDEX sessions_provider ON sessions (provider, started_ns);

-- source_type 'ring': last_seq is the last sequence of (session_id, ring) that is stored or gap-covered, -1 none.
-- source_type 'gaps': last_seq is the byte offset reached in last_processed_file; session_id and ring are ''.
CREATE TABLE etl_watermark (
    source_type text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    ring text COLLATE "C" NOT NULL,
    holder text,
    last_seq bigint NOT NULL,
    last_processed_ts timestamptz,
    last_processed_file text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_type, provider, session_id, ring)
);

CREATE TABLE anomaly_days (
    provider text COLLATE "C" NOT NULL,
    market text COLLATE "C" NOT NULL,
    day date NOT NULL,
    reason text COLLATE "C" NOT NULL,
    detail jsonb,
    marked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, market, day, reason)
);

CREATE TABLE instruments (
    market text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    venue text COLLATE "C",
    name text,
    kind text,
    currency text,
    tick_size numeric(20,8),
    size_increment numeric(28,8),
    halted boolean,
    listed_on date,
    delisted_on date,
    schema_version text NOT NULL DEFAULT '1.0',
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (market, symbol)
);
-- Scalp records and gaps: the columns are the keys of the JSONL lines, with schema_version and receive_time.

-- Trap: a venue's time may have a resolution of one second, so (session_id, symbol, event_time) is not unique. A record
-- is named by (session_id, ring, seq); every row here is of the ring "tick".
CREATE TABLE scalp_ticks (
    ts timestamptz NOT NULL,
    event_time timestamptz,
    symbol text COLLATE "C" NOT NULL,
    bid_price numeric(20,8),
    ask_price numeric(20,8),
    bid_size numeric(28,8),
    ask_size numeric(28,8),
    last_price numeric(20,8),
    volume numeric(28,8),
    session_id text COLLATE "C" NOT NULL,
    mitigation_level smallint NOT NULL,
    quality_flag text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    market text COLLATE "C",
    venue text COLLATE "C",
    side text COLLATE "C",
    open numeric(20,8),
    high numeric(20,8),
    low numeric(20,8),
    trades bigint NOT NULL,
    quotes bigint NOT NULL,
    acc_volume numeric(28,8),
    venue_seq bigint,
    phase text COLLATE "C",
    flags text[] NOT NULL,
    ts_ns bigint NOT NULL,
    event_ns bigint,
    recv_ns bigint,
    schema_version text COLLATE "C" NOT NULL,
    receive_time timestamptz
) PARTITION BY RANGE (ts);

CREATE UNIQUE INDEX scalp_ticks_identity ON scalp_ticks (session_id, seq, ts);
CREATE INDEX scalp_ticks_symbol_ts ON scalp_ticks (symbol, ts);
CREATE INDEX scalp_ticks_event_time ON scalp_ticks USING brin (event_time);
-- Minutes of all symbols (bars, audit) are ranges of ts, in which the rows lie on disk.
CREATE INDEX scalp_ticks_ts ON scalp_ticks USING brin (ts) WITH (pages_per_range = 32, autosummarize = on);

-- Make the partition of one UTC day if it is missing; true if it was made.
-- Why not CREATE TABLE … PARTITION OF: it locks out every reader of scalp_ticks, ATTACH does not. Why not to_regclass: it
-- may answer from a cache that is older than the lock.
CREATE FUNCTION ensure_scalp_ticks_day(p_day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition_name text := 'scalp_ticks_' || to_char(p_day, 'YYYYMMDD');
BEGIN
    IF EXISTS (SELECT FROM pg_class JOIN pg_inherits ON inhrelid = oid
        WHERE inhparent = 'scalp_ticks'::regclass AND relname = partition_name) THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(7305440117325);  -- the migration lock, see migration_lock in queries.sql
    IF EXISTS (SELECT FROM pg_class JOIN pg_inherits ON inhrelid = oid
        WHERE inhparent = 'scalp_ticks'::regclass AND relname = partition_name) THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE scalp_ticks INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name);
    EXECUTE format(
        'ALTER TABLE scalp_ticks ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        partition_name,
        to_char(p_day, 'YYYY-MM-DD') || ' 00:00:00+00',
        to_char(p_day + 1, 'YYYY-MM-DD') || ' 00:00:00+00'
    );
    RETURN true;
END $$;

-- The columns of a gap line; what else the line holds is in `more`. Nothing here can refuse a gap line: it is evidence.
CREATE TABLE scalp_gaps (
    gap_start_ts timestamptz,
    gap_end_ts timestamptz,
    gap_seconds numeric,
    scope text,
    reason text,
    session_id text COLLATE "C",
    provider text COLLATE "C",
    symbol text COLLATE "C",
    ring text COLLATE "C",
    sink text COLLATE "C",
    first_seq bigint,
    last_seq bigint,
    lost bigint,
    severity text,
    acc_volume_before numeric,
    acc_volume_after numeric,
    inside jsonb,
    event_ring text COLLATE "C",
    event_seq bigint,
    gap_start_ns bigint,
    gap_end_ns bigint,
    more jsonb,
    schema_version text NOT NULL DEFAULT '1.0'
);

-- The key of a gap line: its own place where it was lost before the rings, else the place of what a sink lost.
CREATE UNIQUE INDEX scalp_gaps_by_event ON scalp_gaps (session_id, event_ring, event_seq) NULLS NOT DISTINCT WHERE sink IS NULL;
CREATE UNIQUE INDEX scalp_gaps_by_sink ON scalp_gaps (session_id, ring, sink, first_seq) NULLS NOT DISTINCT WHERE sink IS NOT NULL;
CREATE INDEX scalp_gaps_provider_start ON scalp_gaps (provider, gap_start_ts);
-- One-minute bars, filled from the records' own trade fields.

-- `minute` is the start M of (M, M + 60 s]. Open, high, low and close are null in a minute without trades.
CREATE TABLE scalp_1m_bars (
    provider text COLLATE "C" NOT NULL,
    market text COLLATE "C",
    venue text COLLATE "C",
    symbol text COLLATE "C" NOT NULL,
    minute timestamptz NOT NULL,
    open numeric(20,8),
    high numeric(20,8),
    low numeric(20,8),
    close numeric(20,8),
    volume numeric(38,8),
    trades bigint NOT NULL,
    quotes bigint NOT NULL,
    records bigint NOT NULL,
    coverage_ratio numeric(7,6),
    mitigation_level smallint NOT NULL,
    quality_flag text COLLATE "C" NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    event_time timestamptz,
    receive_time timestamptz,
    schema_version text COLLATE "C" NOT NULL DEFAULT '1.0',
    PRIMARY KEY (provider, symbol, minute)
);
CREATE INDEX scalp_1m_bars_symbol ON scalp_1m_bars (symbol, minute);

-- Fill the bars of every minute M with p_from <= M < p_to (both are moved out to whole minutes); returns the bars written.
-- Idempotent. Call it only for minutes whose records are all still there: it overwrites with what it finds.
--
-- ts is truncated to microseconds and a minute ends with its last nanosecond, so ts only finds the rows and ts_ns places
-- them. Session ids of a provider sort by time, so (session_id, seq) is the order in which the records were made.
-- A record at mitigation level 0, 1, 2 stands for 1, 2, 4 of the 120 half seconds of a minute.
CREATE FUNCTION fill_scalp_1m_bars(p_provider text, p_from timestamptz, p_to timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    origin constant timestamptz := 'epoch';
    first_ts timestamptz := date_bin('1 minute', p_from, origin);
    last_ts timestamptz := date_bin('1 minute', p_to + interval '59.999999 seconds', origin);
    first_ns bigint := (extract(epoch FROM first_ts) * 1000000000)::bigint;
    last_ns bigint := (extract(epoch FROM last_ts) * 1000000000)::bigint;
    written bigint;
BEGIN
    -- Two fills of one provider take turns, so that an older snapshot never overwrites a newer bar.
    PERFORM pg_advisory_xact_lock(hashtextextended('fill_scalp_1m_bars ' || p_provider, 0));
    INSERT INTO scalp_1m_bars (
        provider, market, venue, symbol, minute, open, high, low, close, volume, trades, quotes, records, coverage_ratio,
        mitigation_level, quality_flag, session_id, event_time, receive_time, schema_version
    )
    SELECT
        p_provider,
        max(market),
        max(venue),
        symbol,
        origin + ((ts_ns - 1) / 60000000000) * interval '1 minute' AS minute,
        (array_agg(open ORDER BY session_id, seq) FILTER (WHERE trades > 0 AND open IS NOT NULL))[1],
        max(high) FILTER (WHERE trades > 0),
        min(low) FILTER (WHERE trades > 0),
        (array_agg(last_price ORDER BY session_id DESC, seq DESC) FILTER (WHERE trades > 0 AND last_price IS NOT NULL))[1],
        coalesce(sum(volume), 0),
        sum(trades),
        sum(quotes),
        count(*),
        CASE WHEN bool_and(kind = 'sample')
            THEN least(1, sum(CASE mitigation_level WHEN 1 THEN 2 WHEN 2 THEN 4 ELSE 1 END) / 120.0) END,
        max(mitigation_level),
        CASE max(CASE quality_flag WHEN 'gap' THEN 2 WHEN 'degraded' THEN 1 ELSE 0 END)
            WHEN 2 THEN 'gap' WHEN 1 THEN 'degraded' ELSE 'normal' END,
        max(session_id),
        max(event_time),
        max(receive_time),
        max(schema_version)
    FROM scalp_ticks
    WHERE provider = p_provider AND ts >= first_ts AND ts <= last_ts AND ts_ns > first_ns AND ts_ns <= last_ns
    GROUP BY symbol, (ts_ns - 1) / 60000000000
    ORDER BY symbol, (ts_ns - 1) / 60000000000
    ON CONFLICT (provider, symbol, minute) DO UPDATE SET
        market = excluded.market,
        venue = excluded.venue,
        open = excluded.open,
        high = excluded.high,
        low = excluded.low,
        close = excluded.close,
        volume = excluded.volume,
        trades = excluded.trades,
        quotes = excluded.quotes,
        records = excluded.records,
        coverage_ratio = excluded.coverage_ratio,
        mitigation_level = excluded.mitigation_level,
        quality_flag = excluded.quality_flag,
        session_id = excluded.session_id,
        event_time = excluded.event_time,
        receive_time = excluded.receive_time,
        schema_version = excluded.schema_version;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END $$;

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
