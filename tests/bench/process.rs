//! The `millstream` processes of the bench, and what the kernel says of them and of others.
//!
//! Called by every part. Owns the children: they are killed when dropped. Their stderr goes to a file, shown when one
//! ends by itself. Failure: a child that does not say in time what is waited for.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A development build on a busy machine needs a few seconds.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const LOG_LINES_SHOWN: usize = 10;
/// The kernel counts time in these, on every Linux there is.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) peak_rss_bytes: u64,
}

/// A child.
pub(crate) struct Process {
    child: Child,
    id: u32,
    log: PathBuf,
    usage: Usage,
}

impl Process {
    /// Starts `millstream` with `arguments`, in `folder`, with more variables in its environment. Whether it tells of itself is not left
    /// to the environment of the bench.
    pub(crate) fn start(
        folder: &Path,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let log_file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new(binary()?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let id = child.id().context("the child runs")?;
        Ok(Self {
            child,
            id,
            log,
            usage: Usage::default(),
        })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The first line that it prints.
    pub(crate) async fn first_line(&mut self) -> anyhow::Result<String> {
        let stdout = self.child.stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = tokio::time::timeout(START_TIMEOUT, reader.read_line(&mut line)).await;
        read.context("wait for the first line of a child")??;
        if line.is_empty() {
            bail!("a child did not start:\n{}", self.last_lines());
        }
        Ok(line.trim_end().to_owned())
    }

    /// What it has used so far; what was seen last, once it has ended.
    pub(crate) fn usage(&mut self) -> Usage {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id)).unwrap_or_default();
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap_or_default();
        if let Some(cpu) = cpu_of(&stat) {
            self.usage.cpu = cpu;
        }
        if let Some(bytes) = peak_rss_of(&status) {
            self.usage.peak_rss_bytes = bytes;
        }
        self.usage
    }

    /// Bytes of memory that it has now.
    pub(crate) fn rss_bytes(&self) -> u64 {
        rss_bytes_of(self.id)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("look at a child")
    }

    /// Kills it with SIGKILL.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("kill a child")
    }

    /// All that it has written to stderr.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of that, for messages.
    pub(crate) fn last_lines(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    cpu_of(&stat).unwrap_or_default()
}

/// Memory that this process has now, in bytes.
pub(crate) fn own_rss() -> u64 {
    rss_bytes_of(std::process::id())
}

/// The most memory that this process has had, in bytes.
pub(crate) fn own_peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    peak_rss_of(&status).unwrap_or_default()
}

/// What the kernel says of any process of this machine.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) parent: u32,
    pub(crate) cpu: Duration,
}

/// All processes that there are, by number.
pub(crate) fn all() -> BTreeMap<u32, Seen> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let seen = entries.filter_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let parent = fields.split_whitespace().nth(1)?.parse().ok()?;
        let cpu = cpu_of(&stat)?;
        Some((id, Seen { parent, cpu }))
    });
    seen.collect()
}

/// Bytes of memory that a process has now; none, if it has ended.
pub(crate) fn rss_bytes_of(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"));
    kib_of(&status.unwrap_or_default(), "VmRSS:").unwrap_or_default() * 1024
}

/// `millstream` of the same build: it stands beside this binary.
fn binary() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("find this binary")?;
    Ok(here.with_file_name("millstream"))
}

/// User and system time; they stand behind the name, which may hold blanks and brackets.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = user + system;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

fn peak_rss_of(status: &str) -> Option<u64> {
    Some(kib_of(status, "VmHWM:")? * 1024)
}

fn kib_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
