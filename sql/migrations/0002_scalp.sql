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
