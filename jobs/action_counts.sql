-- Clicks per action and minute: JSON clicks from Kafka, one row in Postgres when a minute is over.
--
--   KAFKA_BROKERS=localhost:9092 POSTGRES_URL='postgres://me@localhost/shop' millstream run jobs/action_counts.sql
--
-- A minute is over when a click five minutes younger has been read: until then late clicks still count. Rows are only
-- appended, never changed. Clicks that break a rule are kept as dead letters of the source: a sink FROM
-- clicks.dead_letters would show them.

SET checkpoint_interval = '1 second';

CREATE SOURCE clicks (
  eventid TEXT NOT NULL,
  userid TEXT,
  url TEXT NOT NULL,
  "timestamp" TIMESTAMP NOT NULL,
  action TEXT NOT NULL CHECK (action IN ('view', 'click', 'purchase')),
  WATERMARK FOR "timestamp" AS "timestamp" - INTERVAL '5 minutes'
) WITH (
  connector = 'kafka',
  brokers = '${KAFKA_BROKERS:-localhost:9092}',
  topic = '${CLICKS_TOPIC:-clicks_topic}',
  format = 'json',
  start = 'earliest'
);

CREATE VIEW action_counts AS
SELECT window_start, window_end, action, count(*) AS actions
FROM TUMBLE(clicks, "timestamp", INTERVAL '1 minute')
GROUP BY window_start, window_end, action;

CREATE SINK action_counts_postgres FROM action_counts WITH (
  connector = 'postgres',
  url = '${POSTGRES_URL}',
  table = 'action_counts',
  create = 'if_missing',
  emit = 'final'
);
