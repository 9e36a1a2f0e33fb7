//! A sink that is cut off: what the other sink and the worker's memory see of it, and how fast it catches up.
//!
//! Called by `main.rs`. A master and a worker run `blocked_sink.sql` at a steady rate; Postgres is reached through a proxy, which
//! refuses every connection for a while. A client looks at the job again and again: at the other sink's lag in epochs and at the worker's
//! resident memory, before and meanwhile. Then the proxy carries again while clicks go on coming, until the sink is behind by no more than it
//! was before. Failure: a sink that does not catch up.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use millstream_common::control::{JobState, JobView, SinkView};
use millstream_common::time::Clock;
use millstream_tests::proxy::{Proxy, Trouble};
use tokio_postgres::NoTls;

use crate::cluster::{Cluster, Load, PATIENCE};
use crate::{Services, report, topic};

const JOB: &str = include_str!("blocked_sink.sql");
const NAME: &str = "bench_blocked_sink";
const TOPIC: &str = "bench_blocked_sink";
const WORKER_NAMES: [&str; 1] = ["worker-a"];
const BLOCKED: &str = "clicks_postgres";
const OTHER: &str = "clicks_elsewhere";
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const TABLE: &str = "\
    DROP TABLE IF EXISTS bench_clicks; \
    CREATE TABLE bench_clicks (eventid text NOT NULL, userid text, url text NOT NULL, \
                               \"timestamp\" timestamp NOT NULL, action text NOT NULL)";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Clicks a second.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// For how long Postgres is cut off, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds at the beginning that do not count, and then as many that do, before it is cut off.
    #[arg(long, default_value_t = 15)]
    before: u64,
    /// Of the clicks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            rate: 5_000,
            seconds: 60,
            before: 15,
            seed: 1,
        }
    }
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    topic::make(&services.kafka, TOPIC).await?;
    make_table(services).await?;
    let proxy = Proxy::open().await?;
    let (url, server) = through(&services.postgres, &proxy)?;
    proxy.carry_to(&server);
    let folder = tempfile::tempdir().context("make a folder for the cluster")?;
    let variables = vec![
        ("KAFKA_BROKERS", services.kafka.clone()),
        ("POSTGRES_URL", url),
        ("CLICKS_TOPIC", TOPIC.to_owned()),
    ];
    let cluster = Cluster::start(folder.path(), NAME, &WORKER_NAMES, variables).await?;
    cluster.submit(JOB.to_owned()).await?;
    let mut load = Load::new(services, TOPIC, (arguments.rate, arguments.seed))?;
    let measured = tokio::select! {
        measured = measure(&cluster, &proxy, arguments) => measured?,
        stopped = load.send() => return stopped,
    };
    print(arguments, &measured);
    Ok(())
}

/// What was seen.
struct Measured {
    before: Watched,
    during: Watched,
    /// Rows that the sink lacked when it was let go on.
    lacked: u64,
    caught_up: CaughtUp,
}

/// How a sink caught up, from the moment at which Postgres was there again.
struct CaughtUp {
    /// Rows that it took until then, those that came meanwhile among them.
    taken: u64,
    /// Until it had taken the first of them: the pause before its next try, of at most ten seconds, and one run.
    begun: Duration,
    /// Until it lacked no more than before.
    took: Duration,
}

/// What was seen over a while.
#[derive(Default)]
struct Watched {
    /// Of the other sink, in epochs; ascending.
    lags: Vec<u64>,
    /// Of the worker, in bytes; ascending.
    resident: Vec<u64>,
}

impl Watched {
    /// Looks for so long.
    async fn over(cluster: &Cluster, seconds: u64) -> anyhow::Result<Self> {
        let ends = cluster.clock.monotonic() + Duration::from_secs(seconds);
        let mut watched = Self::default();
        while cluster.clock.monotonic() < ends {
            let job = cluster.job().await?;
            watched.lags.push(sink(&job, OTHER)?.lag_epochs);
            watched.resident.push(cluster.workers[0].rss_bytes());
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        watched.lags.sort_unstable();
        watched.resident.sort_unstable();
        Ok(watched)
    }

    fn p99_lag(&self) -> u64 {
        let place = self.lags.len().saturating_sub(1) * 99 / 100;
        self.lags.get(place).copied().unwrap_or_default()
    }

    fn median_resident(&self) -> u64 {
        let place = self.resident.len() / 2;
        self.resident.get(place).copied().unwrap_or_default()
    }

    fn most_resident(&self) -> u64 {
        self.resident.last().copied().unwrap_or_default()
    }
}

async fn measure(
    cluster: &Cluster,
    proxy: &Proxy,
    arguments: &Arguments,
) -> anyhow::Result<Measured> {
    let is_going = |job: &JobView| {
        let delivers = |sink: &SinkView| sink.rows_delivered > 0;
        job.state == JobState::Running && job.sinks.iter().all(delivers)
    };
    cluster
        .wait(is_going)
        .await
        .context("wait for rows in both sinks")?;
    Watched::over(cluster, arguments.before).await?;
    let before = Watched::over(cluster, arguments.before).await?;
    proxy.make(Trouble::Cut);
    let during = Watched::over(cluster, arguments.seconds).await?;
    let blocked = sink(&cluster.job().await?, BLOCKED)?;
    if blocked.lag_rows < arguments.rate {
        bail!("the sink was not cut off: {blocked:?}");
    }
    proxy.make(Trouble::None);
    Ok(Measured {
        before,
        during,
        lacked: blocked.lag_rows,
        caught_up: catch_up(cluster, &blocked, arguments).await?,
    })
}

async fn catch_up(
    cluster: &Cluster,
    blocked: &SinkView,
    arguments: &Arguments,
) -> anyhow::Result<CaughtUp> {
    let since = cluster.clock.monotonic();
    let deadline = since + PATIENCE + Duration::from_secs(arguments.seconds);
    let mut begun = None;
    loop {
        let now = sink(&cluster.job().await?, BLOCKED)?;
        let took = cluster.clock.monotonic().saturating_sub(since);
        if now.marker > blocked.marker {
            begun.get_or_insert(took);
        }
        // An epoch waits at any moment, as before.
        if now.lag_epochs <= 2 {
            return Ok(CaughtUp {
                taken: now.rows_delivered - blocked.rows_delivered,
                begun: begun.unwrap_or(took),
                took,
            });
        }
        cluster
            .look_again(deadline, "the sink has caught up")
            .await?;
    }
}

fn sink(job: &JobView, name: &str) -> anyhow::Result<SinkView> {
    let found = job.sinks.iter().find(|sink| sink.name == name);
    found.cloned().with_context(|| format!("no sink {name}"))
}

async fn make_table(services: &Services) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(&services.postgres, NoTls)
        .await
        .context("connect to Postgres")?;
    tokio::select! {
        ended = connection => ended.context("connection to Postgres"),
        made = client.batch_execute(TABLE) => made.context("make table bench_clicks"),
    }
}

/// The URL of Postgres with the proxy in the place of the server, and the server.
fn through(url: &str, proxy: &Proxy) -> anyhow::Result<(String, String)> {
    let authority = url.split("://").nth(1).unwrap_or(url);
    let authority = authority.split(['/', '?']).next().unwrap_or(authority);
    let server = authority.rsplit('@').next().unwrap_or(authority);
    if !server.contains(':') {
        bail!("POSTGRES_URL names no port: {server}");
    }
    Ok((url.replacen(server, &proxy.address(), 1), server.to_owned()))
}

fn print(arguments: &Arguments, measured: &Measured) {
    let Measured {
        before,
        during,
        caught_up,
        ..
    } = measured;
    let growth = |of: fn(&Watched) -> u64| {
        let (base, now) = (of(before).max(1) as f64, of(during) as f64);
        format!("{:+.1} %", (now / base - 1.0) * 100.0)
    };
    let rate = report::rate(caught_up.taken, caught_up.took) / arguments.rate as f64;
    let rows = [
        report::row("other sink's lag before, p99", epochs(before)),
        report::row("other sink's lag meanwhile, p99", epochs(during)),
        report::row(
            "worker's memory before, median",
            report::mebibytes(before.median_resident()),
        ),
        report::row("memory meanwhile, median", growth(Watched::median_resident)),
        report::row("memory meanwhile, most", growth(Watched::most_resident)),
        report::row("rows that waited", report::count(measured.lacked)),
        report::row(
            "took the first, from its return, in",
            report::millis(caught_up.begun),
        ),
        report::row("had caught up in", report::millis(caught_up.took)),
        report::row("catch-up rate", format!("{rate:.1} x the input")),
    ];
    let title = format!(
        "Postgres cut off for {} s, {} clicks/s, an epoch a second",
        arguments.seconds,
        report::count(arguments.rate)
    );
    report::table(&title, &rows);
}

fn epochs(watched: &Watched) -> String {
    format!("{} epochs", watched.p99_lag())
}
