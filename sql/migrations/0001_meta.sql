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
