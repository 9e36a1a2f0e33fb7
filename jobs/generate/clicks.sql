-- Made-up clicks as JSON, one object a line: what a producer would send to Kafka.
--
--   ROWS=100000 SEED=1 CLICKS_FOLDER=data/clicks millstream run jobs/generate/clicks.sql
--   cat data/clicks/*.json | kafka-console-producer --topic clicks_topic --bootstrap-server localhost:9092

CREATE SOURCE made_clicks (
  eventid TEXT NOT NULL,
  userid TEXT,
  url TEXT NOT NULL,
  "timestamp" TIMESTAMP NOT NULL,
  action TEXT NOT NULL
) WITH (
  connector = 'datagen',
  rows = '${ROWS:-100000}',
  seed = '${SEED:-1}',
  "fields.eventid.template" = 'e{n:08}',
  "fields.userid.template" = 'u{uniform:1:1000}',
  "fields.userid.null_rate" = 0.05,
  "fields.url.template" = '/product/{uniform:1:50}',
  "fields.timestamp.start" = '${START:-2026-01-17T10:00:00Z}',
  "fields.timestamp.step" = '50 ms',
  "fields.action.values" = 'view,click,purchase',
  "fields.action.skew" = 1.2
);

CREATE SINK clicks_json FROM made_clicks WITH (
  connector = 'files',
  path = '${CLICKS_FOLDER:-data/clicks}',
  format = 'json'
);
