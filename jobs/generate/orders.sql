-- Made-up orders as CSV, of the users and products that the jobs beside this one make.
--
--   ROWS=10000 SEED=1 ORDERS_FOLDER=data/raw/orders millstream run jobs/generate/orders.sql

CREATE SOURCE orders (
  order_id BIGINT NOT NULL,
  user_id INTEGER NOT NULL,
  product_id INTEGER NOT NULL,
  quantity INTEGER NOT NULL,
  ordered_at TIMESTAMP NOT NULL
) WITH (
  connector = 'datagen',
  rows = '${ROWS:-10000}',
  seed = '${SEED:-1}',
  "fields.order_id.kind" = 'sequence',
  "fields.user_id.min" = 1,
  "fields.user_id.max" = '${USERS:-1000}',
  "fields.product_id.min" = 1,
  "fields.product_id.max" = '${PRODUCTS:-50}',
  "fields.quantity.min" = 1,
  "fields.quantity.max" = 5,
  "fields.ordered_at.start" = '${START:-2026-01-17T00:00:00Z}',
  "fields.ordered_at.step" = '8 seconds'
);

CREATE SINK orders_csv FROM orders WITH (
  connector = 'files',
  path = '${ORDERS_FOLDER:-data/raw/orders}',
  format = 'csv'
);
