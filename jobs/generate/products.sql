-- Made-up products as CSV: the same seed gives the same products.
--
--   ROWS=50 SEED=1 PRODUCTS_FOLDER=data/raw/products millstream run jobs/generate/products.sql

CREATE SOURCE products (
  product_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  category TEXT NOT NULL,
  price NUMERIC(10, 2) NOT NULL
) WITH (
  connector = 'datagen',
  rows = '${ROWS:-50}',
  seed = '${SEED:-1}',
  "fields.product_id.kind" = 'sequence',
  "fields.name.template" = 'Product {n:03}',
  "fields.category.values" = 'books,games,garden,kitchen,music,sports',
  "fields.price.min" = 1,
  "fields.price.max" = 500
);

CREATE SINK products_csv FROM products WITH (
  connector = 'files',
  path = '${PRODUCTS_FOLDER:-data/raw/products}',
  format = 'csv'
);
