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
