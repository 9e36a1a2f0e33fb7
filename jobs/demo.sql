-- The job of `millstream demo`: clicks from Kafka, counted per minute and action, in files that a person can open.
--
-- The demo starts its own broker and writes clicks into it, some of them twice. Counts of a minute are written once,
-- when the minute is over; records that are no clicks are in the folder beside them, with the reason.

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
  brokers = '${KAFKA_BROKERS}',
  topic = '${DEMO_TOPIC:-clicks}',
  format = 'json',
  start = 'earliest'
);

CREATE VIEW unique_clicks AS
SELECT DISTINCT ON (eventid) * FROM clicks;

CREATE VIEW clicks_per_minute AS
SELECT window_start, window_end, action, count(*) AS clicks
FROM TUMBLE(unique_clicks, "timestamp", INTERVAL '1 minute')
GROUP BY window_start, window_end, action;

CREATE SINK clicks_per_minute_files FROM clicks_per_minute WITH (
  connector = 'files',
  path = '${DEMO_OUTPUT:-demo-output}/clicks_per_minute',
  format = 'csv',
  roll_interval = '1 second',
  emit = 'final'
);

CREATE SINK clicks_rejected_files FROM clicks.dead_letters WITH (
  connector = 'files',
  path = '${DEMO_OUTPUT:-demo-output}/clicks_rejected',
  format = 'json',
  roll_interval = '1 second'
);
