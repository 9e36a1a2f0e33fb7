-- Made-up user activity as CSV, a file every few seconds: what jobs/user_activity.sql reads from its hot folder.
--
--   ROWS=10000 ROWS_PER_SECOND=100 USER_ACTIVITY_FOLDER=data/input millstream run jobs/generate/activity.sql
--
-- Only a purchase has a price.

SET checkpoint_interval = '1 second';

CREATE SOURCE made_activity (
  event_id TEXT NOT NULL,
  user_id INTEGER NOT NULL,
  event_type TEXT NOT NULL,
  product_id INTEGER NOT NULL,
  amount NUMERIC(10, 2) NOT NULL,
  event_time TIMESTAMP NOT NULL
) WITH (
  connector = 'datagen',
  rows = '${ROWS:-10000}',
  rows_per_second = '${ROWS_PER_SECOND:-100}',
  seed = '${SEED:-1}',
  "fields.event_id.template" = 'a{n:08}',
  "fields.user_id.min" = 1,
  "fields.user_id.max" = 1000,
  "fields.event_type.values" = 'view,purchase',
  "fields.event_type.skew" = 2,
  "fields.product_id.min" = 1,
  "fields.product_id.max" = 50,
  "fields.amount.min" = 1,
  "fields.amount.max" = 500,
  "fields.event_time.start" = '${START:-2026-01-17T10:00:00Z}',
  "fields.event_time.step" = '10 ms'
);

CREATE VIEW activity AS
SELECT
  event_id,
  user_id,
  event_type,
  product_id,
  CASE WHEN event_type = 'purchase' THEN amount ELSE 0 END AS price,
  event_time
FROM made_activity;

CREATE SINK activity_csv FROM activity WITH (
  connector = 'files',
  path = '${USER_ACTIVITY_FOLDER:-data/input}',
  format = 'csv',
  roll_interval = '5 seconds'
);
