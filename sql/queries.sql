-- Named statements of obs/pg: "-- name: <name>" starts one, a semicolon at the end of a line ends it.
-- Parameters are psycopg's: %(name)s.

-- name: session_settings
-- A server learns of a vanished client in seconds, so that a lost connection never holds a watermark for long.
SET timezone = 'UTC'; SET synchronous_commit = on; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; SET client_connection_check_interval = '5s'; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '30s';

-- name: reader_settings
SET timezone = 'UTC'; SET default_transaction_read_only = on;

-- name: migration_lock
SELECT pg_advisory_xact_lock(7305440117325);

-- name: migration_log_exists
SELECT to_regclass('migration_log') IS NOT NULL;

-- name: migrations_applied
SELECT version, name, sha256 FROM migration_log ORDER BY version;

-- name: migration_applied
INSERT INTO migration_log (version, name, sha256) VALUES (%(version)s, %(name)s, %(sha256)s);

-- name: ensure_day
SELECT ensure_scalp_ticks_day(%(day)s);

-- name: watermark_create
INSERT INTO etl_watermark (source_type, provider, session_id, ring, holder, last_seq)
VALUES (%(source_type)s, %(provider)s, %(session_id)s, %(ring)s, %(holder)s, %(last_seq)s)
ON CONFLICT DO NOTHING;

-- name: watermark_take
UPDATE etl_watermark SET holder = %(holder)s, updated_at = now()
WHERE source_type = %(source_type)s AND provider = %(provider)s AND session_id = %(session_id)s AND ring = %(ring)s
RETURNING holder, last_seq, last_processed_file;

-- name: watermark_read
SELECT holder, last_seq, last_processed_file FROM etl_watermark
WHERE source_type = %(source_type)s AND provider = %(provider)s AND session_id = %(session_id)s AND ring = %(ring)s;

-- name: watermark_move
UPDATE etl_watermark SET
    last_seq = %(new_seq)s, last_processed_ts = %(ts)s, last_processed_file = %(new_file)s, updated_at = now()
WHERE source_type = %(source_type)s AND provider = %(provider)s AND session_id = %(session_id)s AND ring = %(ring)s
    AND holder = %(holder)s AND last_seq = %(old_seq)s AND last_processed_file IS NOT DISTINCT FROM %(old_file)s;

-- name: watermarks
SELECT source_type, provider, session_id, ring, holder, last_seq, last_processed_file FROM etl_watermark
WHERE provider = %(provider)s ORDER BY source_type, session_id, ring;

-- name: copy_scalp_ticks
COPY scalp_ticks (
    ts, event_time, symbol, bid_price, ask_price, bid_size, ask_size, last_price, volume, session_id, mitigation_level,
    quality_flag, seq, kind, provider, market, venue, side, open, high, low, trades, quotes, acc_volume, venue_seq, phase, flags,
    ts_ns, event_ns, recv_ns, schema_version, receive_time
) FROM STDIN (FORMAT BINARY);

-- name: stage_scalp_ticks
CREATE TEMP TABLE scalp_ticks_stage (LIKE scalp_ticks) ON COMMIT DROP;

-- name: unstage_scalp_ticks
DROP TABLE scalp_ticks_stage;

-- name: copy_scalp_ticks_stage
COPY scalp_ticks_stage (
    ts, event_time, symbol, bid_price, ask_price, bid_size, ask_size, last_price, volume, session_id, mitigation_level,
    quality_flag, seq, kind, provider, market, venue, side, open, high, low, trades, quotes, acc_volume, venue_seq, phase, flags,
    ts_ns, event_ns, recv_ns, schema_version, receive_time
) FROM STDIN (FORMAT BINARY);

-- name: take_scalp_ticks
INSERT INTO scalp_ticks SELECT * FROM scalp_ticks_stage ON CONFLICT DO NOTHING;

-- name: copy_swing_bars_10m
COPY swing_bars_10m (
    ts, bar_time, symbol, open, high, low, close, volume, bid_price, ask_price, bar_source, day_open, day_high, day_low,
    acc_volume, session_id, mitigation_level, quality_flag, seq, provider, market, venue, ts_ns, bar_ns, recv_ns, schema_version,
    receive_time
) FROM STDIN (FORMAT BINARY);

-- name: stage_swing_bars_10m
CREATE TEMP TABLE swing_bars_10m_stage (LIKE swing_bars_10m) ON COMMIT DROP;

-- name: unstage_swing_bars_10m
DROP TABLE swing_bars_10m_stage;

-- name: copy_swing_bars_10m_stage
COPY swing_bars_10m_stage (
    ts, bar_time, symbol, open, high, low, close, volume, bid_price, ask_price, bar_source, day_open, day_high, day_low,
    acc_volume, session_id, mitigation_level, quality_flag, seq, provider, market, venue, ts_ns, bar_ns, recv_ns, schema_version,
    receive_time
) FROM STDIN (FORMAT BINARY);

-- name: take_swing_bars_10m
INSERT INTO swing_bars_10m SELECT * FROM swing_bars_10m_stage ON CONFLICT DO NOTHING;

-- name: gap_insert
INSERT INTO scalp_gaps (
    gap_start_ts, gap_end_ts, gap_seconds, scope, reason, session_id, provider, symbol, ring, sink, first_seq, last_seq, lost,
    severity, acc_volume_before, acc_volume_after, inside, event_ring, event_seq, gap_start_ns, gap_end_ns, more
) VALUES (
    %(gap_start_ts)s, %(gap_end_ts)s, %(gap_seconds)s, %(scope)s, %(reason)s, %(session_id)s, %(provider)s, %(symbol)s, %(ring)s,
    %(sink)s, %(first_seq)s, %(last_seq)s, %(lost)s, %(severity)s, %(acc_volume_before)s, %(acc_volume_after)s, %(inside)s,
    %(event_ring)s, %(event_seq)s, %(gap_start_ns)s, %(gap_end_ns)s, %(more)s
) ON CONFLICT DO NOTHING;

-- name: session_upsert
INSERT INTO sessions (
    session_id, provider, host, boot_id, epoch, code_version, config_hash, started_at, started_ns, ended_at, ended_ns,
    host_death, rings, final_seqs
) VALUES (
    %(session_id)s, %(provider)s, %(host)s, %(boot_id)s, %(epoch)s, %(code_version)s, %(config_hash)s, %(started_at)s,
    %(started_ns)s, %(ended_at)s, %(ended_ns)s, %(host_death)s, %(rings)s, %(final_seqs)s
) ON CONFLICT (session_id) DO UPDATE SET
    host = coalesce(excluded.host, sessions.host),
    boot_id = coalesce(excluded.boot_id, sessions.boot_id),
    epoch = coalesce(excluded.epoch, sessions.epoch),
    code_version = coalesce(excluded.code_version, sessions.code_version),
    config_hash = coalesce(excluded.config_hash, sessions.config_hash),
    started_at = coalesce(excluded.started_at, sessions.started_at),
    started_ns = coalesce(excluded.started_ns, sessions.started_ns),
    ended_at = coalesce(excluded.ended_at, sessions.ended_at),
    ended_ns = coalesce(excluded.ended_ns, sessions.ended_ns),
    host_death = coalesce(excluded.host_death, sessions.host_death),
    rings = coalesce(excluded.rings, sessions.rings),
    final_seqs = coalesce(excluded.final_seqs, sessions.final_seqs);

-- name: fill_bars
SELECT fill_scalp_1m_bars(%(provider)s, %(from_ts)s, %(to_ts)s);

-- name: stream_ticks
-- Every column has one width, so that rows decode as one array; unknown numbers are NaN, 0 and -1 as in the ring.
-- A text that no list holds is 256 (a flag: bit 30), a code that no record has: it must not pass for unknown.
COPY (
    SELECT
        seq, ts_ns, coalesce(event_ns, 0), coalesce(recv_ns, 0), rpad(symbol, 20),
        CASE WHEN market IS NULL THEN 1 ELSE coalesce(array_position(%(markets)s, market), 256) END::int2,
        CASE WHEN venue IS NULL THEN 1 ELSE coalesce(array_position(%(venues)s, venue), 256) END::int2,
        CASE WHEN side IS NULL THEN 1 ELSE coalesce(array_position(%(sides)s, side), 256) END::int2,
        CASE WHEN phase IS NULL THEN 1 ELSE coalesce(array_position(%(phases)s, phase), 256) END::int2,
        CASE WHEN flags = '{}' THEN 0
            ELSE (SELECT coalesce(bit_or(1 << (coalesce(array_position(%(flags)s, name), 31) - 1)), 0) FROM unnest(flags) AS name) END,
        mitigation_level,
        CASE WHEN quality_flag IS NULL THEN 1 ELSE coalesce(array_position(%(qualities)s, quality_flag), 256) END::int2,
        CASE WHEN kind IS NULL THEN 1 ELSE coalesce(array_position(%(kinds)s, kind), 256) END::int2,
        coalesce(bid_price::float8, 'NaN'), coalesce(ask_price::float8, 'NaN'), coalesce(bid_size::float8, 'NaN'),
        coalesce(ask_size::float8, 'NaN'), coalesce(last_price::float8, 'NaN'), coalesce(volume::float8, 'NaN'),
        coalesce(open::float8, 'NaN'), coalesce(high::float8, 'NaN'), coalesce(low::float8, 'NaN'),
        coalesce(acc_volume::float8, 'NaN'), coalesce(venue_seq, -1), trades, quotes
    FROM scalp_ticks
    WHERE session_id = %(session_id)s AND seq BETWEEN %(first_seq)s AND %(last_seq)s
    ORDER BY seq, ts
) TO STDOUT (FORMAT BINARY);

-- name: stream_swings
-- As stream_ticks.
COPY (
    SELECT
        seq, ts_ns, coalesce(bar_ns, 0), coalesce(recv_ns, 0), rpad(symbol, 20),
        CASE WHEN market IS NULL THEN 1 ELSE coalesce(array_position(%(markets)s, market), 256) END::int2,
        CASE WHEN venue IS NULL THEN 1 ELSE coalesce(array_position(%(venues)s, venue), 256) END::int2,
        coalesce(array_position(%(bar_sources)s, bar_source), 256)::int2, mitigation_level,
        coalesce(array_position(%(qualities)s, quality_flag), 256)::int2,
        coalesce(open::float8, 'NaN'), coalesce(high::float8, 'NaN'), coalesce(low::float8, 'NaN'), coalesce(close::float8, 'NaN'),
        coalesce(volume::float8, 'NaN'), coalesce(day_open::float8, 'NaN'), coalesce(day_high::float8, 'NaN'),
        coalesce(day_low::float8, 'NaN'), coalesce(acc_volume::float8, 'NaN'), coalesce(bid_price::float8, 'NaN'),
        coalesce(ask_price::float8, 'NaN')
    FROM swing_bars_10m
    WHERE session_id = %(session_id)s AND seq BETWEEN %(first_seq)s AND %(last_seq)s
    ORDER BY seq, ts
) TO STDOUT (FORMAT BINARY);

-- name: count_by_minute
SELECT (ts_ns - 1) / 60000000000 * 60000000000 AS minute_ns, session_id, symbol, count(*), sum(trades)::int8, sum(quotes)::int8
FROM scalp_ticks
WHERE provider = %(provider)s AND ts >= %(from_ts)s AND ts <= %(to_ts)s AND ts_ns > %(from_ns)s AND ts_ns <= %(to_ns)s
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- name: sessions_stored
SELECT session_id, count(*), min(seq), max(seq), count(DISTINCT seq) FROM scalp_ticks WHERE provider = %(provider)s
GROUP BY session_id ORDER BY session_id;

-- name: swing_sessions_stored
SELECT session_id, count(*), min(seq), max(seq), count(DISTINCT seq) FROM swing_bars_10m WHERE provider = %(provider)s
GROUP BY session_id ORDER BY session_id;

-- name: duplicates
SELECT seq, count(*) FROM scalp_ticks WHERE session_id = %(session_id)s
GROUP BY seq HAVING count(*) > 1 ORDER BY seq LIMIT %(limit)s;

-- name: gaps
SELECT
    gap_start_ts, gap_end_ts, gap_seconds::float8 AS gap_seconds, scope, reason, session_id, provider, symbol, ring, sink, first_seq,
    last_seq, lost, severity, acc_volume_before::float8 AS acc_volume_before, acc_volume_after::float8 AS acc_volume_after, inside,
    event_ring, event_seq, gap_start_ns, gap_end_ns, more
FROM scalp_gaps WHERE provider = %(provider)s ORDER BY gap_start_ns, session_id, sink, first_seq, event_seq;

-- name: sessions
SELECT * FROM sessions WHERE provider = %(provider)s ORDER BY started_ns, session_id;

-- name: latest_ticks
SELECT * FROM scalp_ticks
WHERE provider = %(provider)s AND symbol = %(symbol)s ORDER BY ts DESC, seq DESC LIMIT %(limit)s;

-- name: ticks_in_range
SELECT * FROM scalp_ticks
WHERE provider = %(provider)s AND symbol = %(symbol)s AND ts > %(from_ts)s AND ts <= %(to_ts)s ORDER BY ts, seq LIMIT %(limit)s;

-- name: bars_1m
SELECT * FROM scalp_1m_bars
WHERE provider = %(provider)s AND symbol = %(symbol)s AND minute >= %(from_ts)s AND minute < %(to_ts)s ORDER BY minute;

-- name: has_bars
SELECT EXISTS (SELECT FROM scalp_1m_bars WHERE provider = %(provider)s AND symbol = %(symbol)s) AS found;

-- name: day_symbols
-- Bars lie by provider, symbol and minute: asked for each symbol in turn, a day costs its own bars and not those of all days.
WITH RECURSIVE known AS (
    (SELECT symbol FROM scalp_1m_bars WHERE provider = %(provider)s ORDER BY symbol LIMIT 1)
    UNION ALL
    SELECT (
        SELECT bar.symbol FROM scalp_1m_bars AS bar
        WHERE bar.provider = %(provider)s AND bar.symbol > known.symbol ORDER BY bar.symbol LIMIT 1
    )
    FROM known WHERE known.symbol IS NOT NULL
)
SELECT
    known.symbol, of_day.records, of_day.minutes, of_day.ratios
FROM known
CROSS JOIN LATERAL (
    SELECT
        sum(records)::bigint AS records,
        array_agg((extract(epoch FROM minute - %(from_ts)s) / 60)::integer ORDER BY minute) AS minutes,
        array_agg(coverage_ratio::float8 ORDER BY minute) AS ratios
    FROM scalp_1m_bars AS bar
    WHERE bar.provider = %(provider)s AND bar.symbol = known.symbol AND bar.minute >= %(from_ts)s AND bar.minute < %(to_ts)s
) AS of_day
WHERE known.symbol IS NOT NULL AND of_day.minutes IS NOT NULL
ORDER BY known.symbol;

-- name: count_gaps
SELECT reason, count(*) FROM scalp_gaps
WHERE provider = %(provider)s AND gap_end_ts >= %(from_ts)s AND gap_start_ts <= %(to_ts)s GROUP BY reason ORDER BY reason;

-- name: critical_gaps
SELECT * FROM scalp_gaps
WHERE provider = %(provider)s AND severity = 'critical' AND gap_end_ts >= %(from_ts)s AND gap_start_ts <= %(to_ts)s
ORDER BY gap_start_ts;

-- name: last_bar
SELECT max(minute) FROM scalp_1m_bars WHERE provider = %(provider)s AND minute >= %(since)s;

-- name: universe_lock
SELECT pg_advisory_xact_lock(hashtextextended('market_universe ' || %(market)s, 0));

-- name: universe_days
SELECT date, max(made_ns) FROM market_universe WHERE market = %(market)s GROUP BY date;

-- name: universe_made
SELECT max(made_ns) FROM market_universe WHERE market = %(market)s AND date = %(date)s;

-- name: universe_clear
DELETE FROM market_universe WHERE market = %(market)s AND date = %(date)s;

-- name: universe_insert
INSERT INTO market_universe (market, date, symbol, rank, name, previous_close, traded_value, source, stale_since, made_ns)
SELECT %(market)s, %(date)s, symbol, rank, name, previous_close, traded_value, %(source)s, %(stale_since)s, %(made_ns)s
FROM unnest(%(symbols)s::text[], %(names)s::text[], %(closes)s::float8[], %(values)s::float8[]) WITH ORDINALITY
    AS listed (symbol, name, previous_close, traded_value, rank);

-- name: anomaly_days
SELECT market, day, reason, detail FROM anomaly_days WHERE provider = %(provider)s ORDER BY day, reason;

-- name: anomaly_day_upsert
INSERT INTO anomaly_days (provider, market, day, reason, detail, marked_at)
VALUES (%(provider)s, %(market)s, %(day)s, %(reason)s, %(detail)s, %(marked_at)s)
ON CONFLICT (provider, market, day, reason) DO UPDATE SET detail = excluded.detail, marked_at = excluded.marked_at;

-- name: anomaly_day_delete
DELETE FROM anomaly_days WHERE provider = %(provider)s AND market = %(market)s AND day = %(day)s AND reason = %(reason)s;

-- name: late_minutes
-- Minutes whose bars do not hold all of their records, or are missing.
SELECT DISTINCT counted.minute
FROM (
    SELECT symbol, timestamptz 'epoch' + ((ts_ns - 1) / 60000000000) * interval '1 minute' AS minute, count(*) AS records
    FROM scalp_ticks
    WHERE provider = %(provider)s AND ts >= %(from_ts)s AND ts <= %(to_ts)s AND ts_ns > %(from_ns)s AND ts_ns <= %(to_ns)s
    GROUP BY 1, 2
) AS counted
LEFT JOIN scalp_1m_bars AS bar
    ON bar.provider = %(provider)s AND bar.symbol = counted.symbol AND bar.minute = counted.minute
WHERE bar.records IS DISTINCT FROM counted.records
ORDER BY 1;
