SET checkpoint_interval = '1 second';
CREATE SOURCE clicks (
  eventid TEXT NOT NULL, userid TEXT, url TEXT NOT NULL,
  "timestamp" TIMESTAMP NOT NULL,
  action TEXT NOT NULL CHECK (action IN ('view', 'click', 'purchase')),
  WATERMARK FOR "timestamp" AS "timestamp" - INTERVAL '5 minutes'
) WITH (connector = 'kafka', brokers = '${KAFKA_BROKERS:-localhost:9092}',
        topic = 'clicks_topic', format = 'json', start = 'earliest');
CREATE VIEW unique_clicks AS SELECT DISTINCT ON (eventid) * FROM clicks;
CREATE VIEW page_views AS
  SELECT window_start, window_end, url, count(*) AS views
  FROM TUMBLE(unique_clicks, "timestamp", INTERVAL '1 minute')
  WHERE action = 'view' GROUP BY window_start, window_end, url;
CREATE SINK page_views_postgres FROM page_views
  WITH (connector = 'postgres', url = '${KEY}', table = 'fact_page_views',
        primary_key = 'window_start,url', emit = 'changes');
CREATE SINK clicks_rejected FROM clicks.dead_letters WITH (connector = 'blackhole');
