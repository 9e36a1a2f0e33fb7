-- Page views per url and minute: JSON clicks from Kafka, counted once each, kept up to date in Postgres.
--
--   KAFKA_BROKERS=localhost:9092 POSTGRES_URL='postgres://me@localhost/shop' millstream run jobs/page_views.sql
--
-- A click that comes twice (the same eventid) counts once; one that is more than five minutes late, or breaks a rule
-- below, goes to the table click_errors with the reason. Counts of open minutes are updated at every epoch.

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

CREATE VIEW unique_clicks AS
SELECT DISTINCT ON (eventid) * FROM clicks;

CREATE VIEW page_views AS
SELECT window_start, window_end, url, count(*) AS views
FROM TUMBLE(unique_clicks, "timestamp", INTERVAL '1 minute')
WHERE action = 'view'
GROUP BY window_start, window_end, url;

CREATE SINK page_views_postgres FROM page_views WITH (
  connector = 'postgres',
  url = '${POSTGRES_URL}',
  table = 'fact_page_views',
  create = 'if_missing',
  primary_key = 'window_start,url',
  emit = 'changes'
);

CREATE SINK clicks_rejected FROM clicks.dead_letters WITH (
  connector = 'postgres',
  url = '${POSTGRES_URL}',
  table = 'click_errors',
  create = 'if_missing'
);
