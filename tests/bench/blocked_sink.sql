-- The blocked-sink bench: each click goes to a table that is cut off for a while, and to a sink that must not notice.

SET checkpoint_interval = '1 second';

CREATE SOURCE clicks (
  eventid TEXT NOT NULL,
  userid TEXT,
  url TEXT NOT NULL,
  "timestamp" TIMESTAMP NOT NULL,
  action TEXT NOT NULL
) WITH (
  connector = 'kafka',
  brokers = '${KAFKA_BROKERS:-localhost:9092}',
  topic = '${CLICKS_TOPIC}',
  format = 'json',
  start = 'earliest'
);

CREATE SINK clicks_postgres FROM clicks WITH (
  connector = 'postgres',
  url = '${POSTGRES_URL}',
  table = 'bench_clicks'
);

CREATE SINK clicks_elsewhere FROM clicks WITH (connector = 'blackhole');
