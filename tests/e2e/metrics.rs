//! `/metrics`, `/readyz` and `/healthz` of a cluster at work, as a scraper sees them.
//!
//! Goal: every metric of the catalogue is there on some process, and those that count rows say what was sent.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_common::metrics::Kind;
use millstream_common::metrics::catalogue::METRICS;
use millstream_tests::cluster::Cluster;
use millstream_tests::collector::Collector;
use millstream_tests::expressions::expressions;
use millstream_tests::generator::Record;
use millstream_tests::scrape::{self, Samples};
use millstream_tests::wait;

use crate::clicks::{Clicks, PARTITION_COUNT};

const EVENT_COUNT: usize = 5_000;
const BROKEN_EVERY: usize = 100;
const DEADLINE: Duration = Duration::from_secs(60);

/// Two stages, a refusal of each kind that a source and a sink can make, and a watermark.
const JOB: &str = "
SET checkpoint_interval = '200 ms';
CREATE SOURCE events (id BIGINT NOT NULL, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at - INTERVAL '5 seconds')
  WITH (connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${CLICKS_TOPIC}', format = 'json');
CREATE VIEW firsts AS SELECT DISTINCT ON (id) * FROM events;
CREATE SINK kept FROM firsts WITH (connector = 'postgres', url = '${POSTGRES_URL}', table = 'kept', quota_bytes = '1 GiB');
CREATE SINK nowhere FROM firsts WITH (connector = 'blackhole');
";

const TABLE: &str = "CREATE TABLE kept (id BIGINT NOT NULL CHECK (id <> 7), at TIMESTAMP NOT NULL)";

fn records() -> Vec<Record> {
    let ids = 0..EVENT_COUNT;
    let events = ids.map(|id| Record {
        partition: (id % PARTITION_COUNT as usize) as i32,
        payload: Some(match id % BROKEN_EVERY {
            99 => "{".to_owned(),
            _ => format!(
                "{{\"id\": {id}, \"at\": \"2026-01-01T00:00:{:02}\"}}",
                id * 60 / EVENT_COUNT
            ),
        }),
    });
    events.collect()
}

async fn scraped(addresses: &[String]) -> anyhow::Result<Vec<Samples>> {
    let mut all = Vec::new();
    for address in addresses {
        all.push(scrape::metrics(address).await?);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_there_and_those_of_rows_say_what_was_sent() -> anyhow::Result<()> {
    let clicks = Clicks::shared("metrics").await?;
    clicks.database.execute(TABLE).await?;
    let collector = Collector::start().await?;
    let mut environment = clicks.environment();
    environment.extend(collector.environment("grpc"));
    environment.push(("MILLSTREAM_RETENTION_INTERVAL", "200ms".to_owned()));
    let cluster = Cluster::start(environment, 2).await?;
    cluster.submit("events", JOB).await?;
    clicks.topic.send(&records()).await?;
    let is_done = |job: &JobView| {
        let held = |sink: &millstream_common::control::SinkView| sink.lag_epochs == 0;
        job.rows_read >= EVENT_COUNT as u64
            && job.sinks.iter().all(held)
            && job.sinks.iter().any(|sink| sink.rows_refused == 1)
            && job.storage.is_some()
    };
    cluster
        .wait_for_job("events", "all is delivered", is_done)
        .await?;
    let addresses = cluster.http_addresses()?;
    wait::until("counters are told", DEADLINE, || async {
        let all = scraped(&addresses)
            .await
            .map_err(|error| format!("{error:#}"))?;
        agree(&all).map_err(|error| format!("{error:#}"))
    })
    .await
    .with_context(|| cluster.logs())?;
    let all = scraped(&addresses).await?;
    let names: BTreeSet<&str> = all.iter().flat_map(Samples::names).collect();
    let missing = METRICS.iter().filter(|metric| {
        let suffix = if metric.kind == Kind::Histogram {
            "_count"
        } else {
            ""
        };
        let name = format!("{}{suffix}", metric.exposed());
        !names.contains(name.as_str()) && !OF_ITS_OWN_TIME.contains(&metric.name)
    });
    let missing: Vec<&str> = missing.map(|metric| metric.name).collect();
    ensure!(missing.is_empty(), "not told by anybody: {missing:?}");
    for each in expressions()? {
        each.check(|name| labels_of(&all, name))?;
    }
    for address in &addresses {
        for path in ["/healthz", "/readyz"] {
            let answer = scrape::get(address, path).await?;
            ensure!(
                answer.head.starts_with("HTTP/1.1 200"),
                "{path}: {answer:?}"
            );
        }
    }
    cluster.stop("events", StopMode::Stop).await.map(drop)
}

/// The labels of a metric as it was scraped.
fn labels_of(all: &[Samples], name: &str) -> Option<BTreeSet<String>> {
    if OF_ITS_OWN_TIME.contains(&name) {
        return Some(BTreeSet::from(["job".to_owned()]));
    }
    let mut labels = all.iter().filter_map(|samples| samples.labels(name));
    labels.next()
}

/// Told only once something has happened that this test does not make happen.
const OF_ITS_OWN_TIME: [&str; 1] = ["millstream_job_last_recovery_seconds"];

fn agree(all: &[Samples]) -> anyhow::Result<()> {
    let (master, workers) = all.split_first().context("a master")?;
    let broken = (EVENT_COUNT / BROKEN_EVERY) as f64;
    let good = EVENT_COUNT as f64 - broken;
    let job = ("job", "events");
    let source = ("source", "events");
    for (name, label, expected) in [
        (
            "millstream_source_rows_total",
            ("outcome", "accepted"),
            good,
        ),
        (
            "millstream_source_rows_total",
            ("outcome", "rejected"),
            broken,
        ),
        (
            "millstream_rejected_rows_total",
            ("code", "malformed"),
            broken,
        ),
        (
            "millstream_rejected_rows_total",
            ("code", "sink_rejected"),
            1.0,
        ),
        (
            "millstream_sink_delivered_rows_total",
            ("sink", "nowhere"),
            good,
        ),
        ("millstream_source_lag_records", source, 0.0),
        ("millstream_job_unaccounted_rows", job, 0.0),
        ("millstream_job_state", ("state", "running"), 1.0),
        ("millstream_sink_troubled", ("sink", "kept"), 0.0),
    ] {
        let found = master.value(name, &[job, label])?;
        ensure!(
            found == expected,
            "{name}{label:?} is {found} and not {expected}"
        );
    }
    for name in [
        "millstream_epochs_total",
        "millstream_state_bytes",
        "millstream_source_read_bytes_total",
    ] {
        ensure!(master.value(name, &[job])? > 0.0, "{name} is zero");
    }
    let delay = master.value("millstream_source_watermark_delay_seconds", &[job])?;
    ensure!(delay > 0.0, "the watermark is {delay} s behind");
    let mut read = 0.0;
    for worker in workers {
        read += worker.value("millstream_worker_read_rows_total", &[job])?;
        ensure!(worker.value("millstream_worker_attached", &[])? == 1.0);
    }
    ensure!(read == EVENT_COUNT as f64, "the workers have read {read}");
    Ok(())
}
