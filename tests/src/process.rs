//! One `millstream` process of a test.
//!
//! Called by the tests and by `cluster`. Owns the child, which is killed when this is dropped, and
//! keeps what it says in a file. Failure: a child that ends or hangs is an error that ends with the
//! last lines it wrote.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// A debug build on a busy machine needs its time.
const DEADLINE: Duration = Duration::from_secs(60);
const LOG_LINES_SHOWN: usize = 25;

/// The binary that is tested. Cargo puts it beside other programs, which is above the folder of the test binaries, and
/// builds it with them because its own crate has integration tests.
pub fn binary() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    let folder = program.parent().context("find its folder")?;
    let folder = match folder.ends_with("deps") {
        true => folder.parent().context("find target folder")?,
        false => folder,
    };
    let binary = folder.join("millstream");
    if !binary.try_exists().context("look for millstream")? {
        bail!(
            "{} is missing: run the tests with `make test`, or build it with `cargo build --workspace`",
            binary.display()
        );
    }
    Ok(binary)
}

/// What is started, and where.
pub struct Start<'a> {
    /// For messages and the name of the log.
    pub name: &'a str,
    /// Verb and options.
    pub arguments: Vec<String>,
    /// Added to this process's environment.
    pub environment: Vec<(&'a str, String)>,
    /// Working folder, which also gets the log.
    pub folder: &'a Path,
}

/// A running child.
pub struct Process {
    name: String,
    child: Child,
    /// Kept open: to wait for a child would close it, and that asks some children to end.
    _stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Process {
    /// Starts the child. A log from an earlier start of the same name is added to.
    pub fn start(start: Start<'_>) -> anyhow::Result<Self> {
        let log = start.folder.join(format!("{}.log", start.name));
        let mut child = Command::new(binary()?)
            .args(&start.arguments)
            .envs(start.environment)
            .current_dir(start.folder)
            // The child of a test that is killed ends at the end of its stdin.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(append(&log)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", start.name))?;
        Ok(Self {
            name: start.name.to_owned(),
            _stdin: child.stdin.take(),
            child,
            log,
        })
    }

    /// The first line on its stdout.
    pub async fn first_line(&mut self) -> anyhow::Result<String> {
        let stdout = self.child.stdout.take().context("stdout is read once")?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = tokio::time::timeout(DEADLINE, reader.read_line(&mut line)).await;
        read.with_context(|| format!("wait for {}", self.name))??;
        if line.is_empty() {
            bail!("{} did not start:\n{}", self.name, self.last_lines());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Everything on its stdout, until it is closed.
    pub async fn output(&mut self) -> anyhow::Result<String> {
        let mut stdout = self.child.stdout.take().context("stdout is read once")?;
        let mut text = String::new();
        let read = tokio::time::timeout(DEADLINE, stdout.read_to_string(&mut text)).await;
        read.with_context(|| format!("wait for {}", self.name))??;
        Ok(text)
    }

    /// SIGKILL, and waits for its end.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let killed = self.child.kill().await;
        killed.with_context(|| format!("kill {}", self.name))
    }

    /// SIGINT, as Ctrl-C in a terminal.
    pub async fn interrupt(&self) -> anyhow::Result<()> {
        self.signal("INT").await
    }

    /// SIGTERM, as a service manager ends a process.
    pub async fn terminate(&self) -> anyhow::Result<()> {
        self.signal("TERM").await
    }

    /// SIGSTOP: it stands still, and its sockets stay open.
    pub async fn pause(&self) -> anyhow::Result<()> {
        self.signal("STOP").await
    }

    /// SIGCONT: it goes on as if nothing had been.
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.signal("CONT").await
    }

    async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.child.id();
        let id = id.with_context(|| format!("{} ended:\n{}", self.name, self.last_lines()))?;
        let sent = Command::new("kill")
            .args(["-s", signal, &id.to_string()])
            .status();
        anyhow::ensure!(sent.await?.success(), "send SIG{signal} to {}", self.name);
        Ok(())
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let status =
            ended.with_context(|| format!("{} did not end:\n{}", self.name, self.last_lines()))?;
        status.context("wait for a child")
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("look at a child")? {
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.last_lines()),
            None => Ok(()),
        }
    }

    /// The end of what it said.
    pub fn last_lines(&self) -> String {
        let text = self.said();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// All that it and processes of its name before it said on stderr.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn append(log: &Path) -> anyhow::Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(log);
    opened.with_context(|| format!("open {}", log.display()))
}

/// Runs the binary to its end, and returns its exit code, stdout and stderr.
pub async fn run_to_end(
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<(i32, String, String)> {
    let output = Command::new(binary()?)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await;
    let output = output.with_context(|| format!("millstream {arguments:?} did not end"))??;
    let code = output.status.code().context("it was killed")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((code, text(&output.stdout), text(&output.stderr)))
}
