//! One run of one peer: its job over the topic of clicks, measured, and its answer compared.
//!
//! Called by `mod.rs`. The job is the program `run` in the peer's folder of `tests/bench/peers`; what it is told and what it prints stands in
//! `peer.py` there. It runs the query twice, and only the second pass counts: rows/s from the first record to the last, as the peer itself tells
//! them; CPU time of all its processes from the line that begins that pass to the one that ends it. Memory is the most that they had at one time.
//! Owns a folder for its state, on this disk as ours is. Failure: a peer that fails, or is not done within its time.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdout, Command};

use super::answer::{self, Answer};
use super::installed::Peer;
use super::tree::Tree;
use crate::throughput::oracle::Expected;
use crate::throughput::queries::Query;
use crate::{Services, report, topic};

/// Where the jobs of the peers are.
const JOBS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/peers");
/// Two passes, the slowest of them at 20,000 rows a second.
const RUN_MAX: Duration = Duration::from_secs(600);
/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const LOG_LINES_SHOWN: usize = 10;

/// What the pass that counts took.
pub(in crate::throughput) struct Measured {
    pub(in crate::throughput) rows: u64,
    pub(in crate::throughput) elapsed: Duration,
    pub(in crate::throughput) cpu: Duration,
    pub(in crate::throughput) peak_rss_bytes: u64,
    /// Of the pass before it.
    pub(in crate::throughput) answer: Answer,
}

impl Measured {
    /// Rows a second.
    pub(in crate::throughput) fn rate(&self) -> f64 {
        report::rate(self.rows, self.elapsed)
    }

    /// Microseconds of CPU a row.
    pub(in crate::throughput) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.rows.max(1) as f64
    }
}

/// Runs it once over `clicks`.
pub(super) async fn run(
    services: &Services,
    peer: &Peer,
    query: &Query,
    (clicks, expected): (&str, &Expected),
) -> anyhow::Result<Measured> {
    let scratch = tempfile::tempdir().context("make a folder for a peer")?;
    let answers = format!("bench_answers_{}_{}", peer.kind.name, query.name);
    topic::make(&services.kafka, &answers).await?;
    let home = peer.home.canonicalize().context("find a peer's folder")?;
    let state = scratch.path().join("state");
    std::fs::create_dir(&state).context("make a folder for a peer")?;
    let mut command = Command::new(Path::new(JOBS).join(peer.kind.name).join("run"));
    command
        .current_dir(scratch.path())
        .args(["--query", query.name, "--brokers", &services.kafka])
        .args(["--topic", clicks, "--answers", &answers])
        .arg("--clicks")
        .arg(expected.read.to_string())
        .arg("--home")
        .arg(home)
        .arg("--scratch")
        .arg(&state);
    let log = scratch.path().join("log");
    let (mut tree, stdout) = Tree::start(&mut command, &log)?;
    let watched = tokio::time::timeout(RUN_MAX, watch(&mut tree, stdout)).await;
    let watched = watched.with_context(|| format!("not done within {} s", RUN_MAX.as_secs()));
    let (elapsed, cpu) = watched
        .and_then(|watched| watched)
        .with_context(|| last_lines(&log))?;
    let found = answer::read(&services.kafka, &answers)?;
    let right = expected.views_of(query);
    Ok(Measured {
        rows: expected.read,
        elapsed,
        cpu,
        peak_rss_bytes: tree.peak_rss_bytes(),
        answer: answer::compare(&found, right, peer.kind.keeps_open_windows),
    })
}

/// Follows it to its end; how long the pass that counts took, and its CPU time.
async fn watch(tree: &mut Tree, stdout: ChildStdout) -> anyhow::Result<(Duration, Duration)> {
    let mut lines = BufReader::new(stdout).lines();
    let mut pace = tokio::time::interval(LOOK_INTERVAL);
    let mut said = Said::default();
    loop {
        tokio::select! {
            line = lines.next_line() => match line.context("read what a peer prints")? {
                Some(line) => said.take(&line, tree.cpu())?,
                None => break,
            },
            _ = pace.tick() => tree.look(),
        }
    }
    let status = tree.ended().await?;
    ensure!(status.success(), "the peer ended with {status}");
    said.measured()
}

/// What a peer has said so far, with the CPU time it had used by then.
#[derive(Default)]
struct Said {
    began: Option<Duration>,
    ended: Option<(Duration, Duration)>,
}

impl Said {
    /// Takes a line; others than those that are agreed on are the peer's own.
    fn take(&mut self, line: &str, cpu: Duration) -> anyhow::Result<()> {
        if line == "began" {
            self.began = Some(cpu);
        }
        if let Some(seconds) = line.strip_prefix("ended ") {
            let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0.0);
            let elapsed = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let elapsed = elapsed.with_context(|| format!("read seconds from {line:?}"))?;
            self.ended = Some((elapsed, cpu));
        }
        Ok(())
    }

    fn measured(self) -> anyhow::Result<(Duration, Duration)> {
        let (Some(before), Some((elapsed, cpu))) = (self.began, self.ended) else {
            bail!("the peer ended without having said when it began and ended");
        };
        Ok((elapsed, cpu.saturating_sub(before)))
    }
}

/// The end of what it logged.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> anyhow::Result<(Duration, Duration)> {
        let mut said = Said::default();
        for (line, cpu) in lines.iter().zip([10, 14, 20]) {
            said.take(line, Duration::from_secs(cpu))?;
        }
        said.measured()
    }

    #[test]
    fn the_pass_that_counts_lies_between_two_lines() {
        let measured = said(&["a warning", "began", "ended 2.500"]);
        let (elapsed, cpu) = measured.expect("both were said");
        assert_eq!(elapsed, Duration::from_millis(2_500));
        assert_eq!(cpu, Duration::from_secs(6));
    }

    #[test]
    fn a_peer_that_does_not_say_both_has_measured_nothing() {
        assert!(said(&["began"]).is_err());
        assert!(said(&["ended 2.5"]).is_err());
        for line in [
            "ended soon",
            "ended 0",
            "ended -1",
            "ended NaN",
            "ended inf",
        ] {
            assert!(said(&["began", line]).is_err(), "{line}");
        }
    }
}
