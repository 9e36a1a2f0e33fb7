//! `preview`: the rows of running tasks as they flow, without the job noticing who looks at them.
//!
//! Goal: what is shown is what was sent, wherever in the plan a relation's rows are; a reader that does not read costs the job nothing;
//! a preview outlives the tasks that it looks at. Each test begins to look before rows are sent, and waits for rows, not for time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_common::client::Error;
use millstream_common::control::{JobView, PreviewHeader, PreviewRows, StopMode};
use millstream_common::preview::rows::{self, Operation, PreviewRow};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator::Record;
use millstream_tests::process::{Process, Start, run_to_end};
use serde_json::Value;
use tempfile::TempDir;

use crate::clicks::{Clicks, PARTITION_COUNT};

const DEADLINE: Duration = Duration::from_secs(60);
const ROWS: u64 = 300;
/// More than a reader that does not read has room for.
const MANY_ROWS: u64 = 60_000;

/// `odd` is only a step of the source's stage.
const JOB: &str = "
SET checkpoint_interval = '200 ms';
CREATE SOURCE events (id BIGINT NOT NULL, kind TEXT NOT NULL)
  WITH (connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${CLICKS_TOPIC}', format = 'json');
CREATE VIEW odd AS SELECT id, upper(kind) AS kind FROM events WHERE id % 2 = 1;
CREATE VIEW kinds AS SELECT kind, count(*) AS events FROM odd GROUP BY kind;
CREATE SINK counts FROM kinds WITH (connector = 'blackhole', emit = 'changes');
";

/// Rows for ever.
const FLOWING: &str = "
SET checkpoint_interval = '200 ms';
CREATE SOURCE numbers (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = 500);
CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole');
";

/// A preview that has begun.
struct Preview {
    header: PreviewHeader,
    parts: BoxStream<'static, Result<PreviewRows, Error>>,
    /// Rows passed over so far.
    skipped: u64,
}

impl Preview {
    async fn open(cluster: &Cluster, relation: &str) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        let opened = client.preview(&"kinds".into(), relation).await;
        let (header, parts) = opened.with_context(|| cluster.logs())?;
        Ok(Self {
            header,
            parts,
            skipped: 0,
        })
    }

    /// The rows of the next message.
    async fn next(&mut self) -> anyhow::Result<Vec<PreviewRow>> {
        let part = tokio::time::timeout(DEADLINE, self.parts.next()).await;
        let part = part
            .context("wait for rows")?
            .context("the preview ended")??;
        self.skipped += part.skipped_rows;
        Ok(rows::read(&part.arrow_stream, self.header.is_changelog)?)
    }

    /// So many rows, as JSON.
    async fn objects(&mut self, count: u64) -> anyhow::Result<Vec<Value>> {
        let mut objects = Vec::new();
        while (objects.len() as u64) < count {
            for row in self.next().await? {
                objects.push(serde_json::from_str(&row.json)?);
            }
        }
        Ok(objects)
    }
}

fn record(id: u64) -> Record {
    let kind = ["view", "click", "purchase"][(id / 2 % 3) as usize];
    Record {
        partition: (id % PARTITION_COUNT as u64) as i32,
        payload: Some(format!("{{\"id\": {id}, \"kind\": \"{kind}\"}}")),
    }
}

async fn start(clicks: &Clicks) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("kinds", JOB).await?;
    cluster.wait_for_job("kinds", "it runs", |_| true).await?;
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_source_a_view_and_an_aggregate_are_seen_as_they_were_sent()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("preview_rows").await?;
    let cluster = start(&clicks).await?;
    let mut events = Preview::open(&cluster, "events").await?;
    let mut odd = Preview::open(&cluster, "odd").await?;
    let mut kinds = Preview::open(&cluster, "kinds").await?;
    let mut counts = Preview::open(&cluster, "counts").await?;
    let mut letters = Preview::open(&cluster, "events.dead_letters").await?;
    let mut records: Vec<Record> = (0..ROWS).map(record).collect();
    records.push(Record {
        partition: 0,
        payload: Some("no JSON".to_owned()),
    });
    clicks.topic.send(&records).await?;

    let seen = events.objects(ROWS).await?;
    let ids: BTreeSet<u64> = seen.iter().filter_map(|row| row["id"].as_u64()).collect();
    ensure!(
        ids == (0..ROWS).collect() && seen.len() as u64 == ROWS,
        "{seen:?}"
    );
    ensure!(!events.header.is_changelog, "{:?}", events.header);

    let seen = odd.objects(ROWS / 2).await?;
    let mut right = BTreeMap::new();
    for row in &seen {
        let id = row["id"].as_u64().context("an id")?;
        let kind = record(id).payload.unwrap_or_default();
        let shown = row["kind"].as_str().context("a kind")?;
        ensure!(id % 2 == 1 && kind.contains(&shown.to_lowercase()), "{row}");
        *right.entry(shown.to_owned()).or_insert(0) += 1;
    }
    for preview in [&mut kinds, &mut counts] {
        ensure!(preview.header.is_changelog, "{:?}", preview.header);
        let mut groups = BTreeMap::new();
        while groups != right {
            for row in preview.next().await? {
                ensure!(row.operation == Operation::Upsert, "{row:?}");
                groups.insert(row.cells[0].clone(), row.cells[1].parse::<i32>()?);
            }
        }
    }
    let letter = letters.objects(1).await?;
    ensure!(letter[0]["payload"] == "no JSON", "{letter:?}");
    refused(&cluster).await?;
    cluster.stop("kinds", StopMode::Stop).await.map(drop)
}

/// What is no relation comes back with those that are.
async fn refused(cluster: &Cluster) -> anyhow::Result<()> {
    for (job, relation, told) in [
        (
            "kinds",
            "event",
            "has no relation event, did you mean events?",
        ),
        ("kinds", "event", "these can be previewed: events, "),
        ("kind", "events", "no job kind, did you mean kinds?"),
    ] {
        let master = ("MILLSTREAM_MASTER", cluster.address.as_str());
        let (code, _, stderr) = run_to_end(&["preview", job, relation], &[master]).await?;
        ensure!(code == 1 && stderr.contains(told), "{code}: {stderr}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("preview_slow").await?;
    let cluster = start(&clicks).await?;
    let mut events = Preview::open(&cluster, "events").await?;
    let records: Vec<Record> = (0..MANY_ROWS).map(record).collect();
    clicks.topic.send(&records).await?;
    let is_read = |job: &JobView| job.rows_read == MANY_ROWS;
    cluster
        .wait_for_job("kinds", "all is read", is_read)
        .await?;
    let mut seen = 0;
    while seen + events.skipped < MANY_ROWS {
        seen += events.next().await?.len() as u64;
    }
    ensure!(
        seen + events.skipped == MANY_ROWS,
        "{seen} {}",
        events.skipped
    );
    ensure!(seen > 0 && events.skipped > 0, "{seen} {}", events.skipped);
    cluster.stop("kinds", StopMode::Stop).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_goes_on_when_a_worker_is_killed_and_says_so() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let mut cluster = Cluster::start(Vec::new(), 2).await?;
    cluster.submit("flowing", FLOWING).await?;
    cluster.wait_for_job("flowing", "it runs", |_| true).await?;
    let limit = 4_000;
    let mut preview = previewing(&cluster, folder.path(), limit)?;
    said(&preview, "numbers of job flowing, generation ").await?;
    let (shown, killed) = tokio::join!(preview.output(), cluster.kill_worker(0));
    killed?;
    let shown = shown?;
    ensure!(preview.ended().await?.success(), "{}", preview.last_lines());
    ensure!(shown.lines().count() == limit, "{}", shown.lines().count());
    for line in shown.lines() {
        let row: Value = serde_json::from_str(line)?;
        ensure!(row["n"].is_u64(), "{line}");
    }
    let told = preview.said();
    ensure!(told.contains("the job goes on as generation "), "{told}");
    ensure!(told.contains("4,000 rows"), "{told}");
    Ok(())
}

fn previewing(cluster: &Cluster, folder: &Path, limit: usize) -> anyhow::Result<Process> {
    let limit = limit.to_string();
    let arguments = ["preview", "flowing", "numbers", "--json", "--limit", &limit];
    Process::start(Start {
        name: "preview",
        arguments: arguments.map(str::to_owned).to_vec(),
        environment: vec![("MILLSTREAM_MASTER", cluster.address.clone())],
        folder,
    })
}

async fn said(process: &Process, text: &str) -> anyhow::Result<()> {
    millstream_tests::wait::until("it says so", DEADLINE, || async {
        match process.said() {
            said if said.contains(text) => Ok(()),
            said => Err(said),
        }
    })
    .await
}
