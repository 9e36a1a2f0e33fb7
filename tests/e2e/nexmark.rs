//! Queries 0, 1 and 2 of the Nexmark benchmark over its bids, in one process: each against the other's rows.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use millstream_tests::process::run_to_end;
use tempfile::TempDir;

const BIDS: usize = 30_000;
const QUERIES: &str = "
CREATE SOURCE bid (
  auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel TEXT, url TEXT,
  date_time TIMESTAMP NOT NULL, extra TEXT
) WITH (connector = 'datagen', rows = 30000, \"nexmark.table.type\" = 'bid');

CREATE VIEW query1 AS SELECT auction, bidder, 0.908 * price AS price, date_time FROM bid;
CREATE VIEW query2 AS SELECT auction, price FROM bid WHERE auction % 123 = 0;

CREATE SINK q0 FROM bid WITH (connector = 'files', path = '{folder}/q0', format = 'csv');
CREATE SINK q1 FROM query1 WITH (connector = 'files', path = '{folder}/q1', format = 'csv');
CREATE SINK q2 FROM query2 WITH (connector = 'files', path = '{folder}/q2', format = 'csv');
";

/// The fields of all rows of a sink, in the order of its files.
fn rows(folder: &Path, sink: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let mut paths = BTreeSet::new();
    for entry in std::fs::read_dir(folder.join(sink)).context("list the files of a sink")? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "csv") {
            paths.insert(path);
        }
    }
    let mut rows = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path)?;
        let lines = text.lines().skip(1);
        rows.extend(lines.map(|line| line.split(',').map(str::to_owned).collect()));
    }
    Ok(rows)
}

fn number(row: &[String], column: usize) -> anyhow::Result<f64> {
    let field = row.get(column).context("a field")?;
    field.parse().with_context(|| format!("read {field:?}"))
}

#[tokio::test]
async fn queries_0_1_and_2_of_nexmark_agree_on_its_bids() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let within = |name: &str| folder.path().join(name).display().to_string();
    let (file, storage) = (within("nexmark.sql"), within("storage"));
    std::fs::write(&file, QUERIES.replace("{folder}", &within("")))?;
    let (code, said, log) = run_to_end(&["run", &file, "--storage", &storage], &[]).await?;
    ensure!(code == 0, "{code}: {said}\n{log}");
    let (bids, in_euros) = (rows(folder.path(), "q0")?, rows(folder.path(), "q1")?);
    ensure!(bids.len() == BIDS, "{} bids", bids.len());
    let sum = |rows: &[Vec<String>]| -> anyhow::Result<f64> {
        rows.iter().map(|row| number(row, 2)).sum()
    };
    let (dollars, euros) = (sum(&bids)?, sum(&in_euros)?);
    ensure!(in_euros.len() == BIDS, "{} in euros", in_euros.len());
    let expected = dollars * 0.908;
    ensure!(
        (euros - expected).abs() < expected * 1e-9,
        "{euros}, not {expected}"
    );
    let mut chosen = Vec::new();
    for bid in &bids {
        if number(bid, 0)? % 123.0 == 0.0 {
            chosen.push(vec![bid[0].clone(), bid[2].clone()]);
        }
    }
    let mut found = rows(folder.path(), "q2")?;
    chosen.sort_unstable();
    found.sort_unstable();
    ensure!(
        !chosen.is_empty() && chosen.len() < BIDS / 20,
        "{}",
        chosen.len()
    );
    ensure!(
        found == chosen,
        "{} rows, not {}",
        found.len(),
        chosen.len()
    );
    Ok(())
}
