//! Latency: from the moment a record is due at its producer to the moment a polling reader sees its row.
//!
//! Called by `main.rs`. A producer sends at a steady pace to a job without state (`latency.sql`); a reader asks Postgres again and again how
//! far each lane has come. A lane is a partition, and its records are numbered, so one answer tells of all rows that have become visible since
//! the last. What counts is when a record was due, not when it was sent: whatever holds the producer up is waited for by every record behind
//! it. Failure: rows that never come.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use millstream_common::time::{Clock, SystemClock};
use tokio_postgres::{Client, NoTls};

use crate::process::Process;
use crate::topic::{self, PARTITION_COUNT, Sender};
use crate::{Services, report};

const JOB: &str = include_str!("latency.sql");
/// In the job.
const INTERVAL: &str = "'1 second'";
const TOPIC: &str = "bench_ticks";
const LANES: usize = PARTITION_COUNT as usize;
/// The producer sends what has become due this often.
const PACE: Duration = Duration::from_millis(2);
/// Between two questions of the reader: what it adds to the latency.
const READ_INTERVAL: Duration = Duration::from_millis(5);
/// How long the first row and, at the end, the last one may take.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_ROW_INTERVAL: Duration = Duration::from_millis(100);
const TABLE: &str = "\
    DROP TABLE IF EXISTS bench_ticks; \
    CREATE TABLE bench_ticks (lane integer NOT NULL, number bigint NOT NULL, \
                              sent_us bigint NOT NULL, PRIMARY KEY (lane, number))";
const SEEN: &str = "\
    SELECT coalesce((SELECT max(number) FROM bench_ticks WHERE lane = lanes), -1) \
    FROM generate_series(0, $1::int - 1) AS lanes ORDER BY lanes";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Records a second.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Between two epochs, in milliseconds.
    #[arg(long, default_value_t = 200)]
    checkpoint_ms: u64,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds at the beginning that do not count: the broker compiles itself meanwhile.
    #[arg(long, default_value_t = 30)]
    warmup: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            rate: 50_000,
            checkpoint_ms: 200,
            seconds: 60,
            warmup: 30,
        }
    }
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(
        arguments.warmup < arguments.seconds,
        "a warm-up of {} of {} s leaves nothing to be counted: take --seconds of more, or --warmup of less",
        arguments.warmup,
        arguments.seconds
    );
    topic::make(&services.kafka, TOPIC).await?;
    let (client, connection) = tokio_postgres::connect(&services.postgres, NoTls)
        .await
        .context("connect to Postgres")?;
    tokio::select! {
        ended = connection => ended.context("connection to Postgres"),
        measured = measure(services, arguments, &client) => measured,
    }
}

async fn measure(
    services: &Services,
    arguments: &Arguments,
    client: &Client,
) -> anyhow::Result<()> {
    client
        .batch_execute(TABLE)
        .await
        .context("make table bench_ticks")?;
    let folder = tempfile::tempdir().context("make a folder for the job")?;
    let interval = format!("'{} ms'", arguments.checkpoint_ms);
    let job = JOB.replace(INTERVAL, &interval);
    std::fs::write(folder.path().join("latency.sql"), job).context("write the job")?;
    let variables = [
        ("KAFKA_BROKERS", services.kafka.as_str()),
        ("POSTGRES_URL", services.postgres.as_str()),
        ("BENCH_TOPIC", TOPIC),
    ];
    let arguments_of_run = ["run", "latency.sql", "--storage", "storage"];
    let mut process = Process::start(folder.path(), "run", &arguments_of_run, &variables)?;
    let sender = Sender::new(&services.kafka, TOPIC)?;
    let clock = SystemClock::new();
    send(&sender, 0, clock.unix_micros())?;
    first_row(&mut process, &clock, client).await?;
    let schedule = Schedule {
        began: clock.monotonic(),
        began_us: clock.unix_micros(),
        rate: arguments.rate,
        total: arguments.rate * arguments.seconds,
        clock,
    };
    let ends = schedule.began + Duration::from_secs(arguments.seconds) + PATIENCE;
    let counted_from_us = schedule.began_us + arguments.warmup as i64 * 1_000_000;
    let watched = tokio::try_join!(
        schedule.send_all(&sender),
        schedule.watch(client, counted_from_us, ends)
    );
    match watched {
        Ok(((), latencies)) => print(arguments, latencies),
        Err(error) => bail!("{error:#}:\n{}", process.last_lines()),
    }
    Ok(())
}

/// Record number `index` of all; they go to the lanes in turns.
fn send(sender: &Sender, index: u64, due_us: i64) -> anyhow::Result<()> {
    let (lane, number) = (index as usize % LANES, index as usize / LANES);
    let payload = format!(r#"{{"lane":{lane},"number":{number},"sent_us":{due_us}}}"#);
    sender.send(lane as i32, &payload)
}

/// Starting the job is not what is measured: waits until a first row has come through.
async fn first_row(
    process: &mut Process,
    clock: &SystemClock,
    client: &Client,
) -> anyhow::Result<()> {
    let deadline = clock.monotonic() + PATIENCE;
    while seen(client).await?[0] < 0 {
        if let Some(status) = process.ended()? {
            bail!("the job ended ({status}):\n{}", process.last_lines());
        }
        if clock.monotonic() > deadline {
            bail!("the first row did not come:\n{}", process.last_lines());
        }
        tokio::time::sleep(FIRST_ROW_INTERVAL).await;
    }
    Ok(())
}

/// When each record is due, from number 1 on: record 0 has shown that the job runs.
struct Schedule {
    clock: SystemClock,
    /// Monotonic.
    began: Duration,
    /// The same moment, since 1970.
    began_us: i64,
    rate: u64,
    total: u64,
}

impl Schedule {
    fn due_us(&self, index: u64) -> i64 {
        self.began_us + (index * 1_000_000 / self.rate) as i64
    }

    /// Sends every record as soon as it is due.
    async fn send_all(&self, sender: &Sender) -> anyhow::Result<()> {
        let mut pace = tokio::time::interval(PACE);
        let mut sent = 0;
        while sent < self.total {
            pace.tick().await;
            let elapsed = self.clock.monotonic().saturating_sub(self.began);
            let due = (elapsed.as_secs_f64() * self.rate as f64) as u64;
            while sent < due.min(self.total) {
                sent += 1;
                send(sender, sent, self.due_us(sent))?;
            }
        }
        Ok(())
    }

    /// Looks until every row is there; how long each took that was due from `counted_from_us` on.
    async fn watch(
        &self,
        client: &Client,
        counted_from_us: i64,
        ends: Duration,
    ) -> anyhow::Result<Vec<Duration>> {
        let mut latencies = Vec::with_capacity(self.total as usize);
        let mut looks = tokio::time::interval(READ_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first row of the first lane is there.
        let mut reached = [0, -1, -1, -1];
        let mut seen_count = 0;
        while seen_count < self.total {
            looks.tick().await;
            let now_reached = seen(client).await?;
            let now_us = self.clock.unix_micros();
            for (lane, (reached, now_reached)) in reached.iter_mut().zip(now_reached).enumerate() {
                for number in *reached + 1..=now_reached {
                    let due_us = self.due_us(number as u64 * LANES as u64 + lane as u64);
                    seen_count += 1;
                    if due_us >= counted_from_us {
                        let waited_us = u64::try_from(now_us - due_us).unwrap_or(0);
                        latencies.push(Duration::from_micros(waited_us));
                    }
                }
                *reached = now_reached;
            }
            if self.clock.monotonic() > ends {
                bail!("rows are missing");
            }
        }
        Ok(latencies)
    }
}

/// The last number of each lane that is visible; -1 before the first.
async fn seen(client: &Client) -> anyhow::Result<Vec<i64>> {
    let rows = client.query(SEEN, &[&PARTITION_COUNT]).await;
    let rows = rows.context("look into bench_ticks")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn print(arguments: &Arguments, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let share = |share| report::millis(report::percentile(&latencies, share));
    let rows = [
        report::row("rows counted", report::count(latencies.len() as u64)),
        report::row("p50", share(0.5)),
        report::row("p99", share(0.99)),
        report::row("max", share(1.0)),
    ];
    let title = format!(
        "due at the producer to visible in Postgres, {} rows/s, an epoch each {} ms",
        report::count(arguments.rate),
        arguments.checkpoint_ms
    );
    report::table(&title, &rows);
}
