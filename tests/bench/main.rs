//! `millstream-bench`: how fast records are decoded and repeats found, how fast the main job is, as a ratio to a raw consumer, how soon it is seen and back,
//! what more workers and partitions, many jobs, small jobs, idleness and tracing cost, and what a sink that is cut off does.
//!
//! Run by `make bench` on a release build, beside the `millstream` binary of the same build, against the
//! services in KAFKA_BROKERS and POSTGRES_URL. Prints tables and asserts nothing: a figure belongs to the
//! machine it was taken on. Each part has its sizes as options, so that it runs in a development build too.
//! Failure: a service or a job that does not get on within its time ends the bench with what it waited for.

mod blocked_sink;
mod clicks;
mod cluster;
mod decode;
mod dedup;
mod folder;
mod groups;
mod instructions;
mod latency;
mod many_jobs;
mod memory;
mod nexmark;
mod plot;
mod process;
mod recovery;
mod report;
mod restore;
mod small;
mod throughput;
mod topic;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// As in the product, whose code it measures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Millstream on this machine, against real services.
#[derive(Parser)]
#[command(name = "millstream-bench")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Rows a second of jobs/page_views.sql, as a ratio to raw consumption of the same topic.
    Throughput(throughput::Arguments),
    /// JSON to Arrow, as a ratio to arrow-json; needs no services.
    Decode(decode::Arguments),
    /// A folder of CSV files to Parquet, as a ratio to DataFusion alone; needs no services.
    Folder(folder::Arguments),
    /// Keys of a DISTINCT ON, as a ratio to a bare set of them; needs no services.
    Dedup(dedup::Arguments),
    /// Groups of an aggregate: their memory, and what an epoch costs beside them; needs no services.
    Groups(groups::Arguments),
    /// Instructions a row of the pure parts, compared with what they were; needs valgrind, no services.
    Instructions(instructions::Arguments),
    /// A part as it is run under the counter.
    #[command(hide = true)]
    Work(instructions::Work),
    /// Where the worker's CPU time goes while it runs a query: a flame graph.
    Profile(throughput::profile::Arguments),
    /// CPU a row on more workers, and out of more partitions.
    Growth(throughput::growth::Arguments),
    /// What a master costs that looks after a thousand jobs; its workers are stand-ins.
    ManyJobs(many_jobs::Arguments),
    /// Queries of the Nexmark benchmark, by row and core; needs no services.
    Nexmark(nexmark::Arguments),
    /// A job of ten rows from start to end, and a cluster without a job; needs no services.
    Small(small::Arguments),
    /// From the producer's timestamp to visible in Postgres, at a steady rate.
    Latency(latency::Arguments),
    /// From SIGKILL of a worker to the next committed epoch.
    Recovery(recovery::Arguments),
    /// The same with gigabytes of state, as a ratio to reading them; needs no services.
    Restore(restore::Arguments),
    /// What other sinks and memory see of a Postgres that is cut off, and how fast it catches up.
    BlockedSink(blocked_sink::Arguments),
    /// What tracing costs: with a collector, without one, and with one that is away.
    Tracing(throughput::tracing::Arguments),
    /// All of them, with the sizes they have by default.
    All,
}

/// The services that everything talks to.
struct Services {
    kafka: String,
    postgres: String,
}

impl Services {
    fn from_environment() -> anyhow::Result<Self> {
        let variable = |name: &'static str| {
            std::env::var(name).with_context(|| {
                format!("{name} is not set; `make bench` starts the services and sets it")
            })
        };
        Ok(Self {
            kafka: variable("KAFKA_BROKERS")?,
            postgres: variable("POSTGRES_URL")?,
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let part = Arguments::parse().part.unwrap_or(Part::All);
    let services = Services::from_environment;
    report::machine();
    match part {
        Part::Instructions(arguments) => instructions::run(&arguments),
        Part::Work(arguments) => instructions::work(&arguments),
        Part::Decode(arguments) => decode::run(&arguments),
        Part::Folder(arguments) => folder::run(&arguments).await,
        Part::Dedup(arguments) => dedup::run(&arguments),
        Part::Groups(arguments) => groups::run(&arguments),
        Part::Throughput(arguments) => throughput::run(&services()?, &arguments).await,
        Part::Profile(arguments) => throughput::profile::run(&services()?, &arguments).await,
        Part::Growth(arguments) => throughput::growth::run(&services()?, &arguments).await,
        Part::ManyJobs(arguments) => many_jobs::run(&services()?, &arguments).await,
        Part::Nexmark(arguments) => nexmark::run(&arguments).await,
        Part::Small(arguments) => small::run(&arguments).await,
        Part::Latency(arguments) => latency::run(&services()?, &arguments).await,
        Part::Recovery(arguments) => recovery::run(&services()?, &arguments).await,
        Part::Restore(arguments) => restore::run(&arguments).await,
        Part::BlockedSink(arguments) => blocked_sink::run(&services()?, &arguments).await,
        Part::Tracing(arguments) => throughput::tracing::run(&services()?, &arguments).await,
        Part::All => {
            let services = services()?;
            decode::run(&decode::Arguments::default())?;
            folder::run(&folder::Arguments::default()).await?;
            dedup::run(&dedup::Arguments::default())?;
            groups::run(&groups::Arguments::default())?;
            restore::run(&restore::Arguments::default()).await?;
            small::run(&small::Arguments::default()).await?;
            nexmark::run(&nexmark::Arguments::default()).await?;
            throughput::run(&services, &throughput::Arguments::default()).await?;
            throughput::growth::run(&services, &throughput::growth::Arguments::default()).await?;
            throughput::tracing::run(&services, &throughput::tracing::Arguments::default()).await?;
            many_jobs::run(&services, &many_jobs::Arguments::default()).await?;
            latency::run(&services, &latency::Arguments::default()).await?;
            recovery::run(&services, &recovery::Arguments::default()).await?;
            blocked_sink::run(&services, &blocked_sink::Arguments::default()).await
        }
    }
}
