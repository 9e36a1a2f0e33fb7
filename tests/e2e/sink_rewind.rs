//! A sink is sent back: what it was delivered before is delivered again, once, whoever dies meanwhile, and nothing else notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::blocking::ThreadPool;
use millstream_common::control::{JobView, SinkView, StopMode};
use millstream_common::ids::Epoch;
use millstream_common::log::{self, Entry};
use millstream_common::store::{self, StoreRef};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use millstream_tests::oracle::{self, RejectedCounts};
use millstream_tests::process::run_to_end;
use millstream_tests::services::Services;
use millstream_tests::topic::Topic;
use millstream_tests::wait;

use crate::clicks::{Clicks, PARTITION_COUNT, equal, job};

const NAME: &str = "clicks";
const UPSERTS: &str = "page_views_postgres";
const APPENDS: &str = "clicks_rejected";
const RECORDS: &str = "copies";
const DEADLINE: Duration = Duration::from_secs(90);
const COPIES: &str = "
CREATE SINK copies FROM clicks WITH (
  connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${COPIES_TOPIC}', key = 'eventid',
  transaction_timeout = '10 s'
);";

struct Rewound {
    clicks: Clicks,
    cluster: Cluster,
}

impl Rewound {
    async fn start(test: &str, settings: &str) -> anyhow::Result<Self> {
        let clicks = Clicks::shared(test).await?;
        let environment = clicks.environment();
        let sql = format!("{settings}{}", job("page_views.sql")?);
        Self::submit(clicks, environment, &sql).await
    }

    async fn submit(
        clicks: Clicks,
        mut environment: Vec<(&'static str, String)>,
        sql: &str,
    ) -> anyhow::Result<Self> {
        environment.push(("MILLSTREAM_RETENTION_INTERVAL", "200ms".to_owned()));
        let cluster = Cluster::start(environment, 1).await?;
        cluster.submit(NAME, sql).await?;
        Ok(Self { clicks, cluster })
    }

    async fn send(&self, generator: &mut generator::Clicks, count: usize) -> anyhow::Result<()> {
        self.clicks.topic.send(&generator.take(count)).await?;
        self.wait_for_all().await
    }

    async fn wait_for_all(&self) -> anyhow::Result<()> {
        let oracle = self.clicks.oracle()?;
        let right = self.clicks.wait_for_page_views(&oracle).await;
        right.with_context(|| self.cluster.logs())
    }

    async fn storage(&self) -> anyhow::Result<StoreRef> {
        let url = format!("file://{}", self.cluster.storage().display());
        Ok(store::open(&url, Arc::new(ThreadPool)).await?)
    }

    /// The last epoch that is forgotten, and the segments up to it.
    async fn forgotten(&self, store: &StoreRef) -> anyhow::Result<(Epoch, Vec<String>)> {
        let client = self.cluster.client().await?;
        let job = client.job(&NAME.into()).await?;
        let oldest = job.sinks[0].retained_from;
        Ok((oldest, segments_up_to(store, oldest).await?))
    }

    /// `millstream sink rewind`: the exit code, and what was said.
    async fn rewind(&self, sink: &str, more: &[&str]) -> anyhow::Result<(i32, String)> {
        let mut arguments = vec!["sink", "rewind", NAME, sink, "--master"];
        arguments.push(&self.cluster.address);
        arguments.extend(more);
        let (code, shown, said) = run_to_end(&arguments, &[]).await?;
        Ok((code, format!("{shown}{said}")))
    }

    async fn wait_until_current(&self, name: &str) -> anyhow::Result<SinkView> {
        let of = |job: &JobView| job.sinks.iter().find(|sink| sink.name == name).cloned();
        let is_current = |job: &JobView| of(job).is_some_and(|sink| sink.lag_epochs == 0);
        let waited = self
            .cluster
            .wait_for_job(NAME, "the sink lacks nothing", is_current);
        of(&waited.await?).context("no such sink")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_upserts_writes_again_what_was_lost_and_one_that_appends_doubles_only_if_told()
-> anyhow::Result<()> {
    let mut rewound = Rewound::start("sink_rewind", "").await?;
    let mut generator = generator::Clicks::new(81, PARTITION_COUNT, 40);
    rewound.send(&mut generator, 5_000).await?;
    rewound.send(&mut generator, 5_000).await?;
    let before = rewound.wait_until_current(UPSERTS).await?;
    // Somebody has emptied the table.
    rewound
        .clicks
        .database
        .execute("DELETE FROM fact_page_views")
        .await?;
    let (code, said) = rewound.rewind(UPSERTS, &["--to", "0"]).await?;
    ensure!(code == 0 && said.contains(UPSERTS), "{said}");
    rewound.cluster.kill_worker(0).await?;
    rewound.wait_for_all().await?;
    rewound.wait_until_current(UPSERTS).await?;

    let (code, said) = rewound.rewind(APPENDS, &["--to", "0"]).await?;
    ensure!(code == 1 && said.contains("--allow-duplicates"), "{said}");
    let far = (before.marker.0 + 1_000).to_string();
    let (code, said) = rewound.rewind(UPSERTS, &["--to", &far]).await?;
    ensure!(
        code == 1 && said.contains("nothing to deliver again"),
        "{said}"
    );
    rewound
        .wait_for_all()
        .await
        .context("what was refused changed nothing")?;
    rewound.wait_until_current(APPENDS).await?;
    let held = rewound.clicks.database.rejected("click_errors").await?;
    let (code, said) = rewound
        .rewind(APPENDS, &["--to", "0", "--allow-duplicates"])
        .await?;
    ensure!(code == 0, "{said}");
    // Whether it has begun or not: it is in the log.
    rewound.cluster.kill_master().await?;
    rewound.cluster.kill_worker(0).await?;
    rewound.clicks.topic.send(&generator.take(3_000)).await?;
    let expected = twice(&rewound.clicks, &held)?;
    let database = &rewound.clicks.database;
    wait::until("each letter of before is there twice", DEADLINE, || async {
        let found = database.rejected("click_errors").await;
        let found = found.map_err(|error| error.to_string())?;
        equal(&expected, &found).map_err(|error| format!("{error:#}"))
    })
    .await
    .with_context(|| rewound.cluster.logs())?;
    let stopped = rewound.cluster.stop(NAME, StopMode::Stop).await?;
    ensure!(stopped.rows_unaccounted == 0, "{stopped:?}");
    let oracle = rewound.clicks.oracle()?;
    equal(&oracle.page_views, &database.page_views().await?).context("the other sink")
}

/// What the table is to hold: letters that it held when it was sent back twice, later ones once.
fn twice(clicks: &Clicks, held: &RejectedCounts) -> anyhow::Result<RejectedCounts> {
    let mut expected = clicks.oracle()?.rejected;
    for (letter, count) in &mut expected {
        if held.contains_key(letter) {
            *count *= 2;
        }
    }
    Ok(expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_sent_back_has_the_records_of_before_twice_and_those_behind_them_once()
-> anyhow::Result<()> {
    let test = "sink_rewind_kafka";
    let clicks = Clicks::shared(test).await?;
    let copies = Topic::create(&Services::shared()?.kafka, test, PARTITION_COUNT).await?;
    let mut environment = clicks.environment();
    environment.push(("COPIES_TOPIC", copies.name.clone()));
    let sql = format!("{}{COPIES}", job("page_views.sql")?);
    let mut rewound = Rewound::submit(clicks, environment, &sql).await?;
    let mut generator = generator::Clicks::new(83, PARTITION_COUNT, 40);
    rewound.send(&mut generator, 5_000).await?;
    rewound.wait_until_current(RECORDS).await?;
    let before = oracle::events(&rewound.clicks.topic.read_back()?);
    equal(&before, &oracle::events(&copies.committed()?)).context("each is copied once")?;

    let (code, said) = rewound.rewind(RECORDS, &["--to", "0"]).await?;
    ensure!(code == 1 && said.contains("--allow-duplicates"), "{said}");
    let (code, said) = rewound
        .rewind(RECORDS, &["--to", "0", "--allow-duplicates"])
        .await?;
    ensure!(code == 0, "{said}");
    // Whoever sends it back may be gone before, in the midst, or behind.
    rewound.cluster.kill_worker(0).await?;
    rewound.send(&mut generator, 3_000).await?;
    let mut expected = oracle::events(&rewound.clicks.topic.read_back()?);
    for (event, count) in &before {
        *expected.entry(event.clone()).or_default() += count;
    }
    let is_right = || {
        let found: BTreeMap<String, u64> = oracle::events(&copies.committed()?);
        equal(&expected, &found)
    };
    wait::until(
        "the records of before are there twice",
        DEADLINE,
        || async { is_right().map_err(|error| format!("{error:#}")) },
    )
    .await
    .with_context(|| rewound.cluster.logs())?;
    rewound.wait_until_current(RECORDS).await?;
    let stopped = rewound.cluster.stop(NAME, StopMode::Stop).await?;
    ensure!(stopped.rows_unaccounted == 0, "{stopped:?}");
    is_right().context("nothing came behind it")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_any_more_is_refused_with_the_oldest_epoch_there_is() -> anyhow::Result<()>
{
    let settings = "SET segment_retention = '1 second';\n";
    let rewound = Rewound::start("sink_rewind_kept", settings).await?;
    let mut generator = generator::Clicks::new(82, PARTITION_COUNT, 40);
    rewound.send(&mut generator, 5_000).await?;
    rewound.send(&mut generator, 2_000).await?;
    let store = rewound.storage().await?;
    let forgotten = wait::until("epochs with rows are forgotten", DEADLINE, || async {
        let found = rewound.forgotten(&store).await;
        let (oldest, paths) = found.map_err(|error| format!("{error:#}"))?;
        match paths.is_empty() {
            true => Err(format!("only up to {oldest}")),
            false => Ok((oldest, paths)),
        }
    });
    let (oldest, forgotten) = forgotten.await.with_context(|| rewound.cluster.logs())?;
    let (code, said) = rewound.rewind(UPSERTS, &["--to", "0"]).await?;
    let told = said
        .split("to go back to is ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let told: u64 = told
        .and_then(|number| number.parse().ok())
        .with_context(|| said.clone())?;
    ensure!(code == 1 && told >= oldest.0, "{said}");
    let kept = wait::until("segments are gone", DEADLINE, || async {
        let listed = store.list("segments/").await;
        let listed = listed.map_err(|error| error.to_string())?;
        match listed.iter().find(|path| forgotten.contains(path)) {
            None => Ok(()),
            Some(path) => Err(format!("{path} is left, and {oldest} is forgotten")),
        }
    });
    kept.await.with_context(|| rewound.cluster.logs())?;
    rewound.send(&mut generator, 2_000).await?;
    rewound.cluster.stop(NAME, StopMode::Stop).await?;
    Ok(())
}

/// The segments of epochs up to `last`, by the log, but for dead letters: those stay for seven days.
async fn segments_up_to(store: &StoreRef, last: Epoch) -> anyhow::Result<Vec<String>> {
    let objects = log::read_all(store).await?;
    let entries = objects.iter().flat_map(|(_, object)| &object.entries);
    let mut relations: Vec<&str> = Vec::new();
    let mut paths = Vec::new();
    for entry in entries {
        match entry {
            Entry::Job(job) => {
                let outputs = job.plan.outputs.iter();
                relations = outputs.map(|output| output.relation.as_str()).collect();
            }
            Entry::Epoch(epoch) if epoch.epoch <= last => {
                let segments = epoch.segments.iter();
                let of_views = segments.filter(|segment| {
                    !relations[segment.output.index()].ends_with(".dead_letters")
                });
                paths.extend(of_views.map(|segment| segment.path.clone()));
            }
            _ => {}
        }
    }
    Ok(paths)
}
