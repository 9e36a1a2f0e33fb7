//! The command line: one verb a file, errors on stderr with the next step, exit codes 0, 1 and 2.
//!
//! Owns the tokio runtime and the logs of the process. Every verb but `run`, `demo` and the two services
//! is a call of the control API. Failure: whatever a verb returns is printed here, once.

mod allocator;
mod arguments;
mod beginning;
mod certificates;
mod check;
mod checkpoints;
mod dead_letters;
mod demo;
mod drain;
mod explain;
mod exposure;
mod follow;
mod healthcheck;
mod interrupts;
mod job;
mod jobs;
mod logs;
mod master;
mod output;
mod parameters;
mod preview;
mod process;
mod progress;
mod protection;
mod reading;
mod retention;
mod run;
mod savepoint;
mod secret_file;
mod share;
mod sink;
mod sinks;
mod spill;
mod stop;
mod submit;
mod table;
mod token;
mod watermarks;
mod worker;
mod workers;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

/// SQL pipelines over Kafka and files, delivered exactly once.
#[derive(Parser)]
#[command(name = "millstream", version, propagate_version = true)]
struct Arguments {
    /// What to log, as RUST_LOG says it: `info`, `millstream=debug,warn`.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How to log: lines for people, or a JSON object a line.
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: logs::Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a job in this process: master, worker and job; Ctrl-C stops, the same command goes on.
    Run(run::Arguments),
    /// See it work: a broker, clicks, two workers, one of them killed, and the result checked.
    Demo(demo::Arguments),
    /// Report all problems of a job at once; start nothing.
    Check(check::Arguments),
    /// Print the stages of a job; start nothing.
    Explain(explain::Arguments),
    /// Serve as a master: plan jobs, commit their epochs.
    Master(master::Arguments),
    /// Serve as a worker: run what the master assigns.
    Worker(worker::Arguments),
    /// Plan, check and start a job on the cluster.
    Submit(submit::Arguments),
    /// List the jobs.
    Jobs(jobs::Arguments),
    /// Show one job with its sources and sinks.
    Job(job::Arguments),
    /// Stop a job so that it can go on, or drain it to its end.
    Stop(stop::Arguments),
    /// List the workers that have joined, or drain one.
    Workers(workers::Arguments),
    /// Show how far time has come in a job, who holds it back, and why nothing comes out.
    Watermarks(watermarks::Arguments),
    /// Show the rows of a source, view or sink of a job as they flow.
    Preview(preview::Arguments),
    /// Show how far behind each sink of a job is.
    Sinks(sinks::Arguments),
    /// Pause or resume a sink of a job.
    Sink(sink::Arguments),
    /// Keep an epoch of a job by name, or drop one that was kept.
    Savepoint(savepoint::Arguments),
    /// List the newest epochs of a job, and its savepoints.
    Checkpoints(checkpoints::Arguments),
    /// List the rows a job refused, or send them through it again.
    DeadLetters(dead_letters::Arguments),
    /// Make an authority and certificates for a cluster.
    Certificates(certificates::Arguments),
    /// Make a token for a caller of the control API.
    Token(token::Arguments),
    /// Ask a master whether it serves or stands by, or a worker whether it has joined; for containers.
    Healthcheck(healthcheck::Arguments),
}

/// What still blocks a thread after this, such as a read of stdin, is left behind.
const END_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    allocator::tune();
    let arguments = Arguments::parse();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("start the runtime")),
    };
    let code = runtime.block_on(perform_logged(arguments));
    runtime.shutdown_timeout(END_TIMEOUT);
    code
}

async fn perform_logged(arguments: Arguments) -> ExitCode {
    let services = matches!(arguments.verb, Verb::Master(_) | Verb::Worker(_));
    let filter = match (arguments.log, services) {
        (Some(filter), _) => filter,
        (None, true) => logs::SERVICE_FILTER.to_owned(),
        (None, false) => logs::QUIET_FILTER.to_owned(),
    };
    let done = match logs::start(&filter, arguments.log_format) {
        Ok(()) => Box::pin(perform(arguments.verb)).await,
        Err(error) => Err(error),
    };
    done.unwrap_or_else(|error| fail(&error))
}

async fn perform(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Run(arguments) => run::run(arguments).await,
        Verb::Demo(arguments) => demo::run(arguments).await,
        Verb::Check(arguments) => check::run(arguments).await,
        Verb::Explain(arguments) => explain::run(arguments).await,
        Verb::Master(arguments) => master::run(arguments).await,
        Verb::Worker(arguments) => worker::run(arguments).await,
        Verb::Submit(arguments) => submit::run(arguments).await,
        Verb::Jobs(arguments) => jobs::run(arguments).await,
        Verb::Job(arguments) => job::run(arguments).await,
        Verb::Stop(arguments) => stop::run(arguments).await,
        Verb::Workers(arguments) => workers::run(arguments).await,
        Verb::Watermarks(arguments) => watermarks::run(arguments).await,
        Verb::Preview(arguments) => preview::run(arguments).await,
        Verb::Sinks(arguments) => sinks::run(arguments).await,
        Verb::Sink(arguments) => sink::run(arguments).await,
        Verb::Savepoint(arguments) => savepoint::run(arguments).await,
        Verb::Checkpoints(arguments) => checkpoints::run(arguments).await,
        Verb::DeadLetters(arguments) => dead_letters::run(arguments).await,
        Verb::Certificates(arguments) => certificates::run(arguments),
        Verb::Token(arguments) => token::run(arguments),
        Verb::Healthcheck(arguments) => healthcheck::run(arguments).await,
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Whoever reads our output has seen enough: `millstream jobs | head -1`.
    let is_closed_pipe = error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if is_closed_pipe {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", millstream_common::error::chain(error.as_ref()));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_of_all_verbs_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_malformed_parameter_is_a_usage_error() {
        let parsed = Arguments::try_parse_from(["millstream", "check", "a.sql", "--set", "day"]);
        let error = parsed.err().expect("no value is given");
        assert_eq!(error.exit_code(), 2);
    }
}
