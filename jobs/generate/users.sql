-- Made-up users as CSV: the same seed gives the same users.
--
--   ROWS=1000 SEED=1 USERS_FOLDER=data/raw/users millstream run jobs/generate/users.sql

CREATE SOURCE users (
  user_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  email TEXT NOT NULL,
  country TEXT,
  signed_up_on DATE NOT NULL
) WITH (
  connector = 'datagen',
  rows = '${ROWS:-1000}',
  seed = '${SEED:-1}',
  "fields.user_id.kind" = 'sequence',
  "fields.name.template" = 'User {n:05}',
  "fields.email.template" = 'user{n}@example.com',
  "fields.country.values" = 'DE,FR,US,JO,JP,BR',
  "fields.country.skew" = 0.8,
  "fields.country.null_rate" = 0.02,
  "fields.signed_up_on.kind" = 'uniform',
  "fields.signed_up_on.min" = '2024-01-01',
  "fields.signed_up_on.max" = '2026-01-01'
);

CREATE SINK users_csv FROM users WITH (
  connector = 'files',
  path = '${USERS_FOLDER:-data/raw/users}',
  format = 'csv'
);
