-- The tables that jobs/user_activity.sql writes. Apply once, before the job:
--
--   psql "$POSTGRES_URL" -f jobs/user_activity.ddl.sql

CREATE TABLE IF NOT EXISTS user_activity (
  event_id TEXT PRIMARY KEY,
  user_id INTEGER NOT NULL,
  event_type TEXT NOT NULL CHECK (event_type IN ('view', 'purchase')),
  product_id INTEGER NOT NULL,
  price NUMERIC(10, 2) NOT NULL CHECK (price >= 0),
  event_time TIMESTAMP NOT NULL
);

CREATE INDEX IF NOT EXISTS user_activity_event_time ON user_activity (event_time);
CREATE INDEX IF NOT EXISTS user_activity_user_id ON user_activity (user_id);

-- One row for each record that broke a rule.
CREATE TABLE IF NOT EXISTS user_activity_errors (
  source TEXT NOT NULL,
  origin TEXT NOT NULL,
  position BIGINT NOT NULL,
  payload TEXT,
  payload_bytes BYTEA,
  code TEXT NOT NULL,
  reason TEXT NOT NULL,
  event_time TIMESTAMP,
  received_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX IF NOT EXISTS user_activity_errors_received_at ON user_activity_errors (received_at);
CREATE INDEX IF NOT EXISTS user_activity_errors_code ON user_activity_errors (code);
