-- User activity from a hot folder: CSV files are read once each as they arrive, checked, deduplicated and stored.
--
--   psql "$POSTGRES_URL" -f jobs/user_activity.ddl.sql
--   POSTGRES_URL='postgres://me@localhost/shop' USER_ACTIVITY_FOLDER=data/input millstream run jobs/user_activity.sql
--
-- Write a file under a name that begins with a point, then rename it: only closed files are read. An event that comes
-- twice within five minutes is stored once. A row that breaks a rule below is in user_activity_errors with the reason.

SET checkpoint_interval = '1 second';

CREATE SOURCE activity (
  event_id TEXT NOT NULL,
  user_id INTEGER NOT NULL,
  event_type TEXT NOT NULL,
  product_id INTEGER NOT NULL,
  price NUMERIC(10, 2) NOT NULL,
  event_time TIMESTAMP NOT NULL,
  CONSTRAINT known_event_type CHECK (event_type IN ('view', 'purchase')),
  CONSTRAINT price_not_negative CHECK (price >= 0),
  CONSTRAINT price_only_for_purchases CHECK (price = 0 OR event_type = 'purchase'),
  WATERMARK FOR event_time AS event_time - INTERVAL '5 minutes'
) WITH (
  connector = 'files',
  path = '${USER_ACTIVITY_FOLDER:-data/input}',
  format = 'csv',
  header = true,
  max_files_per_epoch = 1
);

CREATE VIEW user_activity AS
SELECT DISTINCT ON (event_id) * FROM activity;

CREATE SINK user_activity_postgres FROM user_activity WITH (
  connector = 'postgres',
  url = '${POSTGRES_URL}',
  table = 'user_activity',
  primary_key = 'event_id',
  on_conflict = 'ignore'
);

CREATE SINK user_activity_rejected FROM activity.dead_letters WITH (
  connector = 'postgres',
  url = '${POSTGRES_URL}',
  table = 'user_activity_errors'
);
