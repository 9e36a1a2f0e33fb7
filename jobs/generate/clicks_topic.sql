-- Clicks into a topic of Kafka at a steady pace, with what happens to clicks on the way: every tenth comes twice, one of a hundred
-- is of an action that nobody knows.
--
--   KAFKA_BROKERS=localhost:9092 CLICKS_PER_SECOND=1000 millstream run jobs/generate/clicks_topic.sql
--
-- Goes on until it is stopped, and then where it was. A thousand clicks are fifty seconds of event time.

SET checkpoint_interval = '500 ms';

CREATE SOURCE made_clicks (
  eventid TEXT NOT NULL,
  userid TEXT,
  url TEXT NOT NULL,
  "timestamp" TIMESTAMP NOT NULL,
  action TEXT NOT NULL
) WITH (
  connector = 'datagen',
  rows = '${ROWS:-1000000000}',
  rows_per_second = '${CLICKS_PER_SECOND:-1000}',
  seed = '${SEED:-1}',
  "fields.eventid.template" = 'e{n:010}',
  "fields.userid.template" = 'u{uniform:1:1000}',
  "fields.userid.null_rate" = 0.05,
  "fields.url.template" = '/product/{uniform:1:50}',
  "fields.timestamp.start" = '${START:-2026-01-17T10:00:00Z}',
  "fields.timestamp.step" = '50 ms',
  "fields.action.values" = 'view,click,purchase',
  "fields.action.skew" = 1.2
);

CREATE VIEW sent_clicks AS
SELECT eventid, userid, url, "timestamp", action FROM made_clicks
UNION ALL
SELECT eventid, userid, url, "timestamp", action FROM made_clicks WHERE eventid LIKE '%7'
UNION ALL
SELECT eventid || '-odd' AS eventid, userid, url, "timestamp", 'hover' AS action
FROM made_clicks WHERE eventid LIKE '%42';

CREATE SINK clicks_topic FROM sent_clicks WITH (
  connector = 'kafka',
  brokers = '${KAFKA_BROKERS:-localhost:9092}',
  topic = '${CLICKS_TOPIC:-clicks_topic}',
  format = 'json',
  key = 'url'
);
