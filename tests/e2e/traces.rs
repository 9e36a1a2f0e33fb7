//! Traces of a cluster at work, read back from a collector: of a submission, of epochs, of a recovery, of a takeover.
//!
//! Goal: no trace has a gap, whatever process its spans come from and whichever way they take. Method: two jobs in a row, of which the
//! second reads what the first writes to Kafka; a worker is killed on the way, and the master while rows flow. Over HTTP a few rows.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_tests::cluster::Cluster;
use millstream_tests::collector::{Collected, Collector, number, whole};
use millstream_tests::generator;
use millstream_tests::services::Services;
use millstream_tests::topic::Topic;
use millstream_tests::wait;

use crate::clicks::{Clicks, PARTITION_COUNT};

const CLICKS: usize = 4_000;
const DEADLINE: Duration = Duration::from_secs(60);

const FIRST: &str = "
SET checkpoint_interval = '200 ms';
CREATE SOURCE clicks (eventid TEXT NOT NULL, url TEXT, \"timestamp\" TIMESTAMP NOT NULL,
    WATERMARK FOR \"timestamp\" AS \"timestamp\" - INTERVAL '5 minutes')
  WITH (connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${CLICKS_TOPIC}', format = 'json');
CREATE VIEW firsts AS SELECT DISTINCT ON (eventid) * FROM clicks;
CREATE SINK passed_on FROM firsts
  WITH (connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${OUT_TOPIC}', transaction_timeout = '10 s');
CREATE VIEW views AS
  SELECT window_start, window_end, url, count(*) AS views FROM TUMBLE(firsts, \"timestamp\", INTERVAL '1 minute')
  GROUP BY window_start, window_end, url;
CREATE SINK nowhere FROM views WITH (connector = 'blackhole', emit = 'changes');
";

const SECOND: &str = "
SET checkpoint_interval = '200 ms';
CREATE SOURCE passed (eventid TEXT NOT NULL)
  WITH (connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${OUT_TOPIC}', format = 'json');
CREATE SINK nowhere FROM passed WITH (connector = 'blackhole');
";

#[tokio::test(flavor = "multi_thread")]
async fn traces_of_a_submission_of_epochs_of_a_recovery_and_of_a_takeover_are_whole()
-> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let clicks = Clicks::shared("traces").await?;
    let out = Topic::create(&Services::shared()?.kafka, "traces_out", PARTITION_COUNT).await?;
    let mut environment = clicks.environment();
    environment.push(("OUT_TOPIC", out.name.clone()));
    environment.extend(collector.environment("grpc"));
    let mut cluster = Cluster::start(environment, 2).await?;
    cluster.submit("first", FIRST).await?;
    cluster.submit("second", SECOND).await?;
    let mut generator = generator::Clicks::new(5, PARTITION_COUNT, 50);
    clicks.topic.send(&generator.take(CLICKS)).await?;
    passed(&cluster, 1).await?;
    soon(&cluster, "an epoch", || epoch(&collector)).await?;
    soon(&cluster, "a submission", || submission(&collector)).await?;
    soon(&cluster, "a link", || link(&collector)).await?;
    // What a killed worker has not sent yet is lost: it has, by then.
    soon(&cluster, "every row", || all_whole(&collector, CLICKS)).await?;
    cluster.kill_worker(1).await?;
    clicks.topic.send(&generator.take(CLICKS)).await?;
    passed(&cluster, CLICKS as u64 + 1).await?;
    soon(&cluster, "a recovery", || recovery(&collector)).await?;
    let records = generator.take(CLICKS);
    let (sent, killed) = tokio::join!(clicks.topic.send_paced(&records, 2_000), async {
        let flows = |job: &JobView| job.rows_read > 2 * CLICKS as u64 + 500;
        let job = "first";
        cluster.wait_for_job(job, "rows come in", flows).await?;
        cluster.kill_master().await
    });
    sent?;
    killed?;
    passed(&cluster, 2 * CLICKS as u64 + 1).await?;
    soon(&cluster, "a takeover", || takeover(&collector)).await?;
    for job in ["first", "second"] {
        cluster.stop(job, StopMode::Stop).await?;
    }
    soon(&cluster, "every epoch", || {
        all_whole(&collector, 3 * CLICKS)
    })
    .await
}

const FEW: &str = "
CREATE SOURCE numbers (n BIGINT NOT NULL) WITH (connector = 'datagen', rows = 5000);
CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole');
";

#[tokio::test(flavor = "multi_thread")]
async fn spans_arrive_whole_over_http_as_well() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let cluster = Cluster::start(collector.environment("http/protobuf"), 1).await?;
    cluster.submit("few", FEW).await?;
    soon(&cluster, "all rows", || {
        let epochs = collector.called("epoch");
        let mut rows = 0;
        for trace in &epochs {
            let names = whole(trace)?;
            let root = of_job(trace, "few").context("whose is it")?;
            let read = number(root, "rows")?;
            let path = ["consume", "decode", "ship", "commit", "deliver"];
            match read {
                0 => {}
                _ => holds_all(&names, &path)?,
            }
            rows += read;
        }
        ensure!(rows == 5_000, "epochs of {rows} rows are told");
        Ok(())
    })
    .await
}

/// Waits until so many rows have come through both jobs.
async fn passed(cluster: &Cluster, rows: u64) -> anyhow::Result<()> {
    let is_through = |job: &JobView| {
        let current = job.sinks.iter().all(|sink| sink.lag_epochs == 0);
        job.rows_read >= rows && current && job.lag_records == Some(0)
    };
    cluster
        .wait_for_job("first", "rows come in", is_through)
        .await?;
    cluster
        .wait_for_job("second", "rows come out", is_through)
        .await?;
    Ok(())
}

async fn soon(
    cluster: &Cluster,
    what: &str,
    holds: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    wait::until(what, DEADLINE, || async {
        holds().map_err(|error| format!("{error:#}"))
    })
    .await
    .with_context(|| cluster.logs())
}

fn holds_all(names: &BTreeSet<&str>, wanted: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| !names.contains(*name))
        .collect();
    ensure!(missing.is_empty(), "{missing:?} missing in {names:?}");
    Ok(())
}

fn of_job<'a>(trace: &'a [Collected], job: &str) -> Option<&'a Collected> {
    let mut roots = trace.iter().filter(|span| span.parent.is_empty());
    roots.find(|root| root.attributes.get("job").map(String::as_str) == Some(job))
}

/// The largest epoch of the first job: every step of the path, from all three processes, with the rows that went through it.
fn epoch(collector: &Collector) -> anyhow::Result<()> {
    let epochs = collector.called("epoch");
    let rows = |trace: &&Vec<Collected>| {
        let root = of_job(trace, "first");
        root.and_then(|root| number(root, "rows").ok()).unwrap_or(0)
    };
    let trace = epochs.iter().max_by_key(rows).context("no epoch")?;
    let root = of_job(trace, "first").context("no epoch of the first job")?;
    let names = whole(trace)?;
    let path = [
        "consume", "decode", "exchange", "operator", "ship", "snapshot", "collect", "commit",
        "deliver",
    ];
    holds_all(&names, &path)?;
    let instances: BTreeSet<&str> = trace.iter().map(|span| span.instance.as_str()).collect();
    let all = BTreeSet::from(["master-0", "worker-0", "worker-1"]);
    ensure!(instances == all, "{instances:?}");
    let sum = |name: &str| {
        let spans = trace.iter().filter(|span| span.name == name);
        spans
            .map(|span| number(span, "rows"))
            .sum::<anyhow::Result<u64>>()
    };
    let read = number(root, "rows")?;
    for step in ["consume", "decode"] {
        let rows = sum(step)?;
        ensure!(rows == read, "{step} of {rows} rows, and not {read}");
    }
    // What is no click is a dead letter, and goes to no other task; a group is folded where its rows are, and once more where it goes.
    let (sent, taken) = (sum("exchange")?, sum("operator")?);
    ensure!(
        0 < sent && sent <= taken && sent <= 2 * read,
        "{sent} sent, {taken} taken"
    );
    let sinks = trace.iter().filter(|span| span.name == "deliver");
    let sinks: BTreeSet<_> = sinks.map(|span| span.attributes.get("sink")).collect();
    ensure!(sinks.len() == 2, "{sinks:?}");
    for span in trace.iter() {
        let of_rows: &[&str] = match span.name.as_str() {
            "collect" => &[],
            "epoch" | "consume" => &["rows", "bytes", "splits"],
            _ => &["rows", "bytes"],
        };
        for attribute in ["job", "generation", "epoch"].iter().chain(of_rows) {
            ensure!(
                span.attributes.contains_key(*attribute),
                "{attribute}: {span:?}"
            );
        }
    }
    Ok(())
}

fn submission(collector: &Collector) -> anyhow::Result<()> {
    let submissions = collector.called("submit");
    ensure!(submissions.len() == 2, "{} submissions", submissions.len());
    for trace in &submissions {
        let names = whole(trace)?;
        let steps = [
            "plan",
            "record",
            "assign",
            "deploy",
            "restore",
            "fence",
            "first_epoch",
        ];
        holds_all(&names, &steps)?;
        let restored = trace.iter().filter(|span| span.name == "restore").count();
        ensure!(restored == 2, "{restored} workers have restored");
    }
    Ok(())
}

/// Records of the first job say where they come from, and epochs of the second one say so too.
fn link(collector: &Collector) -> anyhow::Result<()> {
    let traces = collector.traces();
    let spans = traces.values().flatten();
    let consumed = spans.filter(|span| {
        span.name == "consume" && span.attributes.get("job").map(String::as_str) == Some("second")
    });
    let links: Vec<_> = consumed.flat_map(|span| &span.links).collect();
    ensure!(!links.is_empty(), "no link");
    for (trace, span) in links {
        let linked = traces.get(trace).context("the linked trace is not there")?;
        let linked = linked.iter().find(|other| other.span == *span);
        let linked = linked.context("the linked span is not there")?;
        ensure!(linked.name == "deliver", "{linked:?}");
    }
    Ok(())
}

fn recovery(collector: &Collector) -> anyhow::Result<()> {
    let recoveries = collector.called("recovery");
    ensure!(
        recoveries.len() >= 2,
        "{} recoveries of 2 jobs",
        recoveries.len()
    );
    let traces = collector.traces();
    for trace in &recoveries {
        let names = whole(trace)?;
        holds_all(
            &names,
            &["detect", "assign", "deploy", "restore", "first_epoch"],
        )?;
        for span in trace {
            let is_told = span.attributes.contains_key("generation");
            ensure!(is_told, "of which generation is {span:?}");
        }
        let first = trace.iter().find(|span| span.name == "first_epoch");
        if let Some(span) = first {
            let tells_an_epoch = span.attributes.contains_key("epoch");
            ensure!(span.links.len() == usize::from(tells_an_epoch), "{span:?}");
            for (linked, _) in &span.links {
                whole(traces.get(linked).context("the first epoch has no trace")?)?;
            }
        }
    }
    Ok(())
}

/// What the killed master had begun the next one ends, or places anew.
fn takeover(collector: &Collector) -> anyhow::Result<()> {
    let takeovers = collector.called("takeover");
    ensure!(
        takeovers.len() >= 2,
        "{} takeovers of 2 jobs",
        takeovers.len()
    );
    for trace in &takeovers {
        let names = whole(trace)?;
        holds_all(&names, &["first_epoch"])?;
        ensure!(
            names.contains("reattach") || names.contains("restore"),
            "{names:?}"
        );
    }
    Ok(())
}

/// Every span of every epoch has its root, also those before and after the kills, and says whose it is. The epochs of the first job
/// tell all rows that were read, and where they come from.
fn all_whole(collector: &Collector, rows: usize) -> anyhow::Result<()> {
    let traces = collector.traces();
    let mut told = 0;
    for trace in traces.values() {
        let names = whole(trace)?;
        for span in trace {
            ensure!(span.attributes.contains_key("job"), "whose is {span:?}");
        }
        let rows_of = |name: &str| {
            let mut spans = trace.iter().filter(|span| span.name == name);
            spans.next().map_or(Ok(0), |span| number(span, "rows"))
        };
        let read = rows_of("epoch")?;
        if read > 0 {
            holds_all(&names, &["consume", "decode"])?;
        }
        if rows_of("commit")? > 0 {
            holds_all(&names, &["ship"])?;
        }
        if of_job(trace, "first").is_some() {
            told += read;
        }
    }
    ensure!(
        told == rows as u64,
        "epochs of {told} rows are told, and not of {rows}"
    );
    Ok(())
}
