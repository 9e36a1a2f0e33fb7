-- The first minute of Millstream: clicks from Kafka to views per url and minute, as files that a
-- person can open. `millstream demo` runs it against a broker and clicks of its own.

SET checkpoint_interval = '1 second';

CREATE SOURCE clicks (
  eventid TEXT NOT NULL,
  userid TEXT,
  url TEXT NOT NULL,
  "timestamp" TIMESTAMP NOT NULL,
  action TEXT NOT NULL CHECK (action IN ('view', 'click', 'purchase')),
  WATERMARK FOR "timestamp" AS "timestamp" - INTERVAL '1 minute'
) WITH (
  connector = 'kafka',
  brokers = '${KAFKA_BROKERS:-localhost:9092}',
  topic = 'clicks',
  format = 'json',
  start = 'earliest'
);

-- A click that arrives twice counts once.
CREATE VIEW unique_clicks AS SELECT DISTINCT ON (eventid) * FROM clicks;

CREATE VIEW page_views AS
  SELECT window_start, window_end, url, count(*) AS views
  FROM TUMBLE(unique_clicks, "timestamp", INTERVAL '1 minute')
  WHERE action = 'view'
  GROUP BY window_start, window_end, url;

CREATE SINK page_views_files FROM page_views WITH (
  connector = 'files',
  path = '${DEMO_OUTPUT:-demo-output}/page_views',
  format = 'csv',
  roll_interval = '1 second'
);

-- Whatever cannot be counted, with the reason: malformed, null, out of range, late.
CREATE SINK rejected_files FROM clicks.dead_letters WITH (
  connector = 'files',
  path = '${DEMO_OUTPUT:-demo-output}/rejected',
  format = 'json',
  roll_interval = '1 second'
);
