-- The latency bench: each record goes to a row of Postgres, with the time at which it was due at its producer. The bench puts its own interval in.

SET checkpoint_interval = '1 second';

CREATE SOURCE ticks (
  lane INTEGER NOT NULL,
  number BIGINT NOT NULL,
  sent_us BIGINT NOT NULL
) WITH (
  connector = 'kafka',
  brokers = '${KAFKA_BROKERS:-localhost:9092}',
  topic = '${BENCH_TOPIC}',
  format = 'json',
  start = 'earliest'
);

CREATE VIEW seen_ticks AS SELECT lane, number, sent_us FROM ticks;

CREATE SINK ticks_postgres FROM seen_ticks WITH (
  connector = 'postgres',
  url = '${POSTGRES_URL}',
  table = 'bench_ticks'
);
