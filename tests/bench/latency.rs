//! Latency: from the timestamp a producer puts into a record to the moment a polling reader sees its row.
//!
//! Called by `main.rs`. A producer sends at a steady pace to a job without state (`latency.sql`, an epoch a second); a
//! reader asks Postgres again and again how far each lane has come. A lane is a partition, and its records are numbered,
//! so one answer tells of all rows that have become visible since the last. Failure: rows that never come.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use millstream_common::time::{Clock, SystemClock};
use tokio_postgres::{Client, NoTls};

use crate::process::Process;
use crate::topic::{self, PARTITION_COUNT, Sender};
use crate::{Services, report};

const JOB: &str = include_str!("latency.sql");
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
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// For how long.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds at the beginning that do not count.
    #[arg(long, default_value_t = 3)]
    warmup: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            rate: 10_000,
            seconds: 20,
            warmup: 3,
        }
    }
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
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
    std::fs::write(folder.path().join("latency.sql"), JOB).context("write the job")?;
    let variables = [
        ("KAFKA_BROKERS", services.kafka.as_str()),
        ("POSTGRES_URL", services.postgres.as_str()),
        ("BENCH_TOPIC", TOPIC),
    ];
    let arguments_of_run = ["run", "latency.sql", "--storage", "storage"];
    let mut process = Process::start(folder.path(), "run", &arguments_of_run, &variables)?;
    let mut ticks = Ticks::new(Sender::new(&services.kafka, TOPIC)?);
    first_row(&mut process, &mut ticks, client).await?;
    let latencies = observe(arguments, &mut process, &mut ticks, client).await?;
    print(arguments, latencies);
    Ok(())
}

/// Sends records and remembers when: the time is the one in the payload.
struct Ticks {
    clock: SystemClock,
    sender: Sender,
    next_lane: usize,
    /// Of each lane: when each of its records was sent, in microseconds since 1970.
    sent_us: [Vec<i64>; LANES],
}

impl Ticks {
    fn new(sender: Sender) -> Self {
        Self {
            clock: SystemClock::new(),
            sender,
            next_lane: 0,
            sent_us: Default::default(),
        }
    }

    fn send(&mut self) -> anyhow::Result<()> {
        let lane = self.next_lane;
        self.next_lane = (lane + 1) % LANES;
        let number = self.sent_us[lane].len();
        let sent_us = self.clock.unix_micros();
        let payload = format!(r#"{{"lane":{lane},"number":{number},"sent_us":{sent_us}}}"#);
        self.sent_us[lane].push(sent_us);
        self.sender.send(lane as i32, &payload)
    }
}

/// Starting the job is not what is measured: waits until a first row has come through.
async fn first_row(
    process: &mut Process,
    ticks: &mut Ticks,
    client: &Client,
) -> anyhow::Result<()> {
    let deadline = ticks.clock.monotonic() + PATIENCE;
    ticks.send()?;
    while seen(client).await?[0] < 0 {
        if let Some(status) = process.ended()? {
            bail!("the job ended ({status}):\n{}", process.last_lines());
        }
        if ticks.clock.monotonic() > deadline {
            bail!("the first row did not come:\n{}", process.last_lines());
        }
        tokio::time::sleep(FIRST_ROW_INTERVAL).await;
    }
    Ok(())
}

/// Sends for the whole time and looks meanwhile; then waits for the last row.
async fn observe(
    arguments: &Arguments,
    process: &mut Process,
    ticks: &mut Ticks,
    client: &Client,
) -> anyhow::Result<Vec<Duration>> {
    let began = ticks.clock.monotonic();
    let counted_from_us = ticks.clock.unix_micros() + arguments.warmup as i64 * 1_000_000;
    let total = arguments.rate * arguments.seconds;
    let ends = began + Duration::from_secs(arguments.seconds) + PATIENCE;
    let mut latencies = Vec::with_capacity(total as usize);
    let mut reached = seen(client).await?;
    let mut sent = 0;
    let mut pace = tokio::time::interval(PACE);
    let mut looks = tokio::time::interval(READ_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while sent < total || !is_all_seen(ticks, &reached) {
        tokio::select! {
            _ = pace.tick(), if sent < total => {
                let elapsed = ticks.clock.monotonic().saturating_sub(began);
                let due = (elapsed.as_secs_f64() * arguments.rate as f64) as u64;
                while sent < due.min(total) {
                    ticks.send()?;
                    sent += 1;
                }
            }
            // An answer takes milliseconds, in which the producer waits: it catches up at its next turn, and the time
            // in the payload is the time at which it does.
            _ = looks.tick() => {
                let now_reached = seen(client).await?;
                let now_us = ticks.clock.unix_micros();
                for lane in 0..LANES {
                    let new = (reached[lane] + 1) as usize..(now_reached[lane] + 1) as usize;
                    let sent_us = &ticks.sent_us[lane][new];
                    let counted = sent_us.iter().filter(|sent_us| **sent_us >= counted_from_us);
                    latencies.extend(counted.map(|sent_us| {
                        Duration::from_micros(u64::try_from(now_us - sent_us).unwrap_or(0))
                    }));
                }
                reached = now_reached;
            }
        }
        if ticks.clock.monotonic() > ends {
            bail!("rows are missing:\n{}", process.last_lines());
        }
    }
    Ok(latencies)
}

fn is_all_seen(ticks: &Ticks, reached: &[i64]) -> bool {
    let mut lanes = ticks.sent_us.iter().zip(reached);
    lanes.all(|(sent, reached)| sent.len() as i64 == reached + 1)
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
        "producer to visible in Postgres, {} rows/s, an epoch a second",
        report::count(arguments.rate)
    );
    report::table(&title, &rows);
}
