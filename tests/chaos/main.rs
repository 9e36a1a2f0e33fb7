//! `millstream-chaos`: two masters, three workers, real Kafka, Postgres and S3, several jobs at once, and everything dies in
//! turn, while readers look at what the sinks hold.
//!
//! Run by `make chaos MINUTES=n`. The order of the faults follows from the seed, their moments do not: processes are real.
//! Every fault is injected into a cluster that has recovered from the one before. Ends with a table of the faults and the time
//! each job took to recover from them, and with the comparison of every sink with an independent count. Exit code 1 if a row
//! is lost or doubled, a reader saw half an epoch, or the cluster did not come back; the logs of all processes are
//! shown then.

mod copies;
mod fault;
mod injection;
mod jobs;
mod moments;
mod numbers;
mod readers;
mod report;
mod scene;
mod verdict;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use millstream_tests::figures::count;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::injection::Injector;
use crate::report::Recoveries;
use crate::scene::Scene;

/// Kills, pauses and cuts off everything in turn, and compares what came out with what went in.
#[derive(Parser)]
#[command(name = "millstream-chaos")]
struct Arguments {
    /// For how long faults are injected.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Decides which faults come, in which order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clicks sent a second.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(20..=100_000))]
    rate: u64,
    /// Injects nothing but this kind of fault, called as in the table.
    #[arg(long, value_name = "KIND", value_parser = fault::kind)]
    only: Option<String>,
    /// Folder for the logs of all processes.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut scene = Scene::start().await?;
    println!(
        "seed {}, {} min: 2 masters, 3 workers, jobs {}, {} clicks a second",
        arguments.seed,
        arguments.minutes,
        jobs::NAMES.join(", "),
        arguments.rate
    );
    let mut recoveries = Recoveries::default();
    let went = run(&arguments, &mut scene, &mut recoveries).await;
    recoveries.print();
    let went = match went {
        Ok(()) => verdict::compare(&mut scene).await,
        Err(error) => Err(error),
    };
    if let Some(folder) = &arguments.logs {
        scene.cluster.save_logs(folder)?;
    }
    went.with_context(|| format!("seed {}\n{}", arguments.seed, scene.cluster.logs()))
}

/// Sends clicks, injects faults and reads the sinks, until the time is over and all clicks are sent.
async fn run(
    arguments: &Arguments,
    scene: &mut Scene,
    recoveries: &mut Recoveries,
) -> anyhow::Result<()> {
    let (over, is_over) = watch::channel(false);
    let looks = readers::Looks::default();
    let mut readers = readers::start(scene, looks.clone())?;
    let topic = scene.clicks.clone();
    let (seed, rate) = (arguments.seed, arguments.rate);
    let sending = jobs::send_clicks(&topic, seed, rate, is_over);
    let injecting = async {
        let end = Instant::now() + Duration::from_secs(60 * arguments.minutes);
        let random = StdRng::seed_from_u64(arguments.seed);
        let injector = Injector::new(scene, random, arguments.only.clone());
        let went = injector.run(end, recoveries).await;
        over.send_replace(true);
        went
    };
    tokio::select! {
        went = async { tokio::try_join!(sending, injecting) } => went.map(|(sent, ())| {
            println!("{} records of clicks sent", count(sent));
            for (topic, looks) in [("copies", &looks.copies), ("numbers", &looks.numbers)] {
                let looks = count(looks.load(Ordering::Relaxed));
                println!("{looks} looks at the {topic} between two transactions");
            }
        }),
        violation = readers::first_violation(&mut readers) => Err(violation),
    }
}
