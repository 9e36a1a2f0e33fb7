-- a comment
CREATE SOURCE a (n BIGINT CHECK (n > 0), t TIMESTAMP AS to_timestamp_micros(n), CONSTRAINT even CHECK (n % 2 = 0))
  WITH (connector = 'files', path = 'in/*.csv', format = 'csv', watch = false, on_violation = 'drop');
CREATE VIEW b AS WITH c AS (SELECT n, upper(CAST(n AS TEXT)) || 'x' AS u FROM a) SELECT * FROM c WHERE n BETWEEN 1 AND 10 UNION ALL SELECT n, NULL FROM a;
CREATE SINK d FROM b WITH (connector = 'files', path = 'out', format = 'json', roll_interval = '1 minute');
