//! `millstream-sim`: the real master, workers and sinks on simulated hosts, repeatable from a seed.
//!
//! Run by `make sim` and by the tests of this crate. Each seed draws a job, its input and what fails, runs in a child process with
//! virtual time and seeded chance, and ends healed and compared with what the input says. Exit code 1 if a seed failed; each
//! failure comes with the command that repeats it.

mod blocked;
mod entropy;
mod expected;
mod faults;
mod frames;
mod hosts;
mod links;
mod matrix;
#[cfg(feature = "mutants")]
mod mutants;
mod outside;
mod people;
mod pool;
mod process;
mod quota;
mod report;
mod scenario;
mod simulation;
mod state;
mod surroundings;
mod trace;
mod workload;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::pool::Work;
use self::report::Report;
use self::simulation::Outcome;

/// Seeds that once found something; they are run before all others.
const FOUND: &str = include_str!("../found.txt");

#[derive(Parser)]
#[command(
    name = "millstream-sim",
    about = "Deterministic simulation of a cluster"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// How many seeds to run, beside those that once found something.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Seeds at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs one seed again.
    Replay {
        /// The seed.
        seed: u64,
        /// Print every event.
        #[arg(long)]
        dump: bool,
        /// Print what the processes log, as RUST_LOG says.
        #[arg(long)]
        logs: bool,
        /// With this mistake planted.
        #[cfg(feature = "mutants")]
        #[arg(long)]
        mutant: Option<String>,
    },
    /// Breaks the protocol off at each of its steps.
    Matrix {
        /// Only these cases.
        cases: Vec<usize>,
        /// Print every event.
        #[arg(long)]
        dump: bool,
        /// Cases at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Blocks a sink for hours of virtual time.
    Blocked {
        /// How many.
        #[arg(long, default_value_t = 3)]
        hours: u32,
        /// Print every event.
        #[arg(long)]
        dump: bool,
    },
    /// Plants known mistakes one by one, and tells how soon each is found.
    #[cfg(feature = "mutants")]
    Mutants {
        /// Only these; all if none is named.
        names: Vec<String>,
        /// Most seeds that a mistake may survive.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Seeds at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Runs seeds twice, the second time in the other order: the traces must be equal.
    Twice {
        /// How many seeds to run.
        #[arg(long, default_value_t = 50)]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Seeds at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    process::fix_addresses()?;
    let arguments = Arguments::parse();
    simulation::warm_up();
    let succeeded = match arguments.verb {
        None => run(arguments.first_seed, arguments.seeds, arguments.jobs)?,
        Some(Verb::Replay {
            seed,
            dump,
            logs,
            #[cfg(feature = "mutants")]
            mutant,
        }) => {
            #[cfg(feature = "mutants")]
            if let Some(name) = mutant {
                millstream_common::mutant::plant(Some(mutants::named(&name)?));
            }
            replay(seed, dump, logs)?
        }
        Some(Verb::Matrix { cases, dump, jobs }) => matrix(&cases, dump, jobs)?,
        Some(Verb::Blocked { hours, dump }) => alone(Work::Blocked(hours), dump)?,
        #[cfg(feature = "mutants")]
        Some(Verb::Mutants {
            names,
            seeds,
            first_seed,
            jobs,
        }) => mutants::run(&names, seeds, first_seed, jobs)?,
        Some(Verb::Twice {
            seeds,
            first_seed,
            jobs,
        }) => twice(first_seed, seeds, jobs)?,
    };
    Ok(ExitCode::from(u8::from(!succeeded)))
}

/// The seeds of `found.txt`: one a line, then what it found.
fn found() -> impl Iterator<Item = u64> {
    let lines = FOUND.lines().map(str::trim);
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

fn run(first_seed: u64, seed_count: u64, jobs: usize) -> anyhow::Result<bool> {
    let seeds = found().chain(first_seed..first_seed + seed_count);
    tell_all(seeds.map(Work::Seed), jobs)
}

fn tell_all(works: impl Iterator<Item = Work>, jobs: usize) -> anyhow::Result<bool> {
    let mut report = Report::begin();
    pool::run(works, jobs, |work, outcome| {
        report.add(work, &outcome);
        ControlFlow::Continue(())
    })?;
    println!("{report}");
    Ok(report.has_succeeded())
}

/// All cases of the step matrix, or those named.
fn matrix(numbers: &[usize], is_dumped: bool, jobs: usize) -> anyhow::Result<bool> {
    let is_chosen = |case: &matrix::Case| numbers.is_empty() || numbers.contains(&case.number);
    let cases = matrix::cases().into_iter().filter(is_chosen);
    let works = cases.map(Work::Case);
    if !is_dumped {
        return tell_all(works, jobs);
    }
    let mut report = Report::begin();
    for work in works {
        report.add(work, &pool::replay(work, is_dumped)?);
    }
    println!("{report}");
    Ok(report.has_succeeded())
}

fn replay(seed: u64, is_dumped: bool, logs: bool) -> anyhow::Result<bool> {
    if logs {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
    alone(Work::Seed(seed), is_dumped)
}

fn alone(work: Work, is_dumped: bool) -> anyhow::Result<bool> {
    let outcome = pool::replay(work, is_dumped)?;
    let mut report = Report::begin();
    report.add(work, &outcome);
    println!("{report}");
    if !outcome.note.is_empty() {
        println!("{}", outcome.note);
    }
    Ok(report.has_succeeded())
}

fn twice(first_seed: u64, seed_count: u64, jobs: usize) -> anyhow::Result<bool> {
    let seeds = first_seed..first_seed + seed_count;
    let mut runs: BTreeMap<u64, Vec<Outcome>> = BTreeMap::new();
    let order = seeds.clone().chain(seeds.rev());
    pool::run(order.map(Work::Seed), jobs, |work, outcome| {
        if let Work::Seed(seed) = work {
            runs.entry(seed).or_default().push(outcome);
        }
        ControlFlow::Continue(())
    })?;
    let trace = |run: &Outcome| (run.hash, run.event_count);
    runs.retain(|_, runs| trace(&runs[0]) != trace(&runs[1]) || runs[0].event_count == 0);
    for (seed, runs) in &runs {
        for run in runs {
            // One that was ended, by its time or a signal, has no trace.
            let end = run.failure.as_deref().unwrap_or("sound");
            println!(
                "seed {seed}: hash {:016x} of {} events; {end}",
                run.hash, run.event_count
            );
        }
    }
    let unequal: Vec<&u64> = runs.keys().collect();
    println!(
        "{seed_count} seeds twice, the second time in the other order: {} unequal {unequal:?}",
        unequal.len()
    );
    Ok(unequal.is_empty())
}
