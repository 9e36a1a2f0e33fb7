//! A sink is sent back: what it was delivered before is delivered again, once, whoever dies meanwhile, and nothing else notices.

use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, SinkView, StopMode};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use millstream_tests::oracle::RejectedCounts;
use millstream_tests::process::run_to_end;
use millstream_tests::wait;

use crate::clicks::{Clicks, PARTITION_COUNT, equal, job};

const NAME: &str = "clicks";
const UPSERTS: &str = "page_views_postgres";
const APPENDS: &str = "clicks_rejected";
const DEADLINE: Duration = Duration::from_secs(90);

struct Rewound {
    clicks: Clicks,
    cluster: Cluster,
}

impl Rewound {
    async fn start(test: &str, settings: &str) -> anyhow::Result<Self> {
        let clicks = Clicks::shared(test).await?;
        let mut environment = clicks.environment();
        environment.push(("MILLSTREAM_RETENTION_INTERVAL", "200ms".to_owned()));
        let cluster = Cluster::start(environment, 1).await?;
        let sql = format!("{settings}{}", job("page_views.sql")?);
        cluster.submit(NAME, &sql).await?;
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
async fn what_is_not_kept_any_more_is_refused_with_the_oldest_epoch_there_is() -> anyhow::Result<()>
{
    let settings = "SET segment_retention = '1 second';\n";
    let rewound = Rewound::start("sink_rewind_kept", settings).await?;
    let mut generator = generator::Clicks::new(82, PARTITION_COUNT, 40);
    rewound.send(&mut generator, 5_000).await?;
    let is_forgotten = |job: &JobView| job.sinks.iter().all(|sink| sink.retained_from.0 > 0);
    let what = "epochs are forgotten";
    let job = rewound
        .cluster
        .wait_for_job(NAME, what, is_forgotten)
        .await?;
    let oldest = job.sinks[0].retained_from;
    let (code, said) = rewound.rewind(UPSERTS, &["--to", "0"]).await?;
    let told = said
        .split("to go back to is ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let told: u64 = told
        .and_then(|number| number.parse().ok())
        .with_context(|| said.clone())?;
    ensure!(code == 1 && told >= oldest.0, "{said}");
    let segments = rewound.cluster.storage().join("segments");
    let kept = wait::until("segments are gone", DEADLINE, || async {
        match files(&segments) {
            // Those of the last epochs, of which no later one says that they are held.
            0..=3 => Ok(()),
            count => Err(format!("{count} are left")),
        }
    });
    kept.await?;
    rewound.send(&mut generator, 2_000).await?;
    rewound.cluster.stop(NAME, StopMode::Stop).await?;
    Ok(())
}

/// How many segments of outputs that only sinks read are below `folder`: those of dead letters stay for seven days.
fn files(folder: &std::path::Path) -> usize {
    let below =
        |folder: &std::path::Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let outputs = below(folder).flat_map(|life| below(&life.path()).collect::<Vec<_>>());
    let views = outputs.filter(|output| output.file_name() == "0");
    views.map(|output| below(&output.path()).count()).sum()
}
