-- jobs/page_views.sql for Flink: views by url and minute, with and without each eventid once.
--
-- Read by Client.java; `run` puts values in for the names with a dollar sign. Clicks that are no views go first, which spares Flink half of the
-- keys to remember and changes no count: a click that comes twice comes with the same action. Of the first of its eventid a row
-- is known for ten minutes of processing time, which is longer than a run takes.

CREATE TABLE clicks (
  eventid STRING,
  userid STRING,
  url STRING,
  `timestamp` TIMESTAMP(3),
  `action` STRING,
  WATERMARK FOR `timestamp` AS `timestamp` - INTERVAL '5' MINUTE
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '$brokers',
  'properties.group.id' = 'flink',
  'topic' = '$topic',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json',
  'json.ignore-parse-errors' = 'true',
  'json.timestamp-format.standard' = 'ISO-8601'
);

CREATE TABLE answers (
  window_start TIMESTAMP(3),
  url STRING,
  `views` BIGINT
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '$brokers',
  'properties.transaction.timeout.ms' = '600000',
  'topic' = '$answers',
  'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = '$answers'
);

CREATE TABLE nowhere (
  window_start TIMESTAMP(3),
  url STRING,
  `views` BIGINT
) WITH (
  'connector' = 'blackhole'
);

CREATE VIEW windows_views AS
SELECT * FROM clicks WHERE `action` = 'view';

CREATE VIEW dedup_views AS
SELECT * FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY eventid ORDER BY `timestamp` ASC) AS place FROM windows_views
) WHERE place = 1;

CREATE VIEW page_views AS
SELECT window_start, url, COUNT(*) AS `views`
FROM TABLE(TUMBLE(TABLE ${query}_views, DESCRIPTOR(`timestamp`), INTERVAL '1' MINUTES))
GROUP BY window_start, window_end, url;

INSERT INTO answers SELECT * FROM page_views;

INSERT INTO nowhere SELECT * FROM page_views;
