-- The windows of jobs/page_views.sql in LaminarDB's words; `run` puts in what stands in braces. Its sinks cannot throw rows away: both passes write
-- their counts to the topic, a row for every dozen of clicks, and the same one twice. What is read ahead is sized as was fastest here.

CREATE SOURCE clicks (
  eventid VARCHAR,
  userid VARCHAR,
  url VARCHAR,
  "timestamp" TIMESTAMP,
  action VARCHAR,
  WATERMARK FOR "timestamp" AS "timestamp" - INTERVAL '5' MINUTE
) FROM KAFKA (
  'bootstrap.servers' = '{brokers}',
  'topic' = '{topic}',
  'group.id' = '{group}',
  'startup.mode' = 'earliest',
  'max.poll.records' = '50000',
  'reader.channel.capacity' = '65536'
) FORMAT JSON;

CREATE STREAM page_views AS
SELECT tumble("timestamp", INTERVAL '1' MINUTE) AS window_start, url AS url, COUNT(*) AS views
FROM clicks
WHERE action = 'view'
GROUP BY tumble("timestamp", INTERVAL '1' MINUTE), url
EMIT ON WINDOW CLOSE;

CREATE SINK answers FROM page_views INTO KAFKA (
  'bootstrap.servers' = '{brokers}',
  'topic' = '{answers}'
) FORMAT JSON;
