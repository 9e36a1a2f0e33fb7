//! Which faults there are, and which one comes next.
//!
//! Used by `injection.rs`. Pure: the choice follows from the random numbers alone.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use millstream_tests::proxy::Trouble;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::scene::WORKER_COUNT;

/// Longer than the failure detector waits (three heartbeats of 300 ms), and shorter.
const PAUSE_MS: std::ops::Range<u64> = 200..4_000;
const TROUBLE_MS: std::ops::Range<u64> = 500..4_000;
const DELAY_MS: std::ops::Range<u64> = 20..250;

/// A real service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Kafka,
    Postgres,
    Storage,
}

/// What a proxy stands in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The active master.
    Master,
    /// A worker, for the others.
    Worker(usize),
    Backend(Backend),
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillWorker(usize),
    KillTwoWorkers(usize, usize),
    PauseWorker(usize, Duration),
    /// SIGTERM, and another one of its name comes.
    ReplaceWorker(usize),
    KillMaster,
    KillStandby,
    PauseMaster(Duration),
    KillMasterAndWorker(usize),
    Restart(Backend),
    Link(Link, Trouble, Duration),
    /// Both directions stand still; then the connections are closed.
    HalfOpen(Link, Duration),
    /// Of the files sink.
    FullDisk(Duration),
}

impl Fault {
    /// The next one.
    pub(crate) fn choose(random: &mut StdRng) -> Self {
        let worker = random.random_range(0..WORKER_COUNT);
        match random.random_range(0..100) {
            0..28 => Self::KillWorker(worker),
            28..34 => Self::KillTwoWorkers(worker, (worker + 1) % WORKER_COUNT),
            34..42 => Self::PauseWorker(worker, millis(random, PAUSE_MS)),
            42..47 => Self::ReplaceWorker(worker),
            47..56 => Self::KillMaster,
            56..58 => Self::KillStandby,
            58..63 => Self::PauseMaster(millis(random, PAUSE_MS)),
            63..67 => Self::KillMasterAndWorker(worker),
            67..75 => Self::Restart(backend(random)),
            75..90 => {
                let trouble = trouble(random);
                Self::Link(link(random, worker), trouble, millis(random, TROUBLE_MS))
            }
            90..96 => Self::HalfOpen(link(random, worker), millis(random, TROUBLE_MS)),
            _ => Self::FullDisk(millis(random, TROUBLE_MS)),
        }
    }

    /// Whether a process gets a SIGKILL.
    pub(crate) fn is_kill(&self) -> bool {
        matches!(
            self,
            Self::KillWorker(_)
                | Self::KillTwoWorkers(..)
                | Self::KillMaster
                | Self::KillStandby
                | Self::KillMasterAndWorker(_)
        )
    }

    /// What the report counts it under.
    pub(crate) fn kind(&self) -> String {
        let kind = match self {
            Self::KillWorker(_) => "SIGKILL of a worker",
            Self::KillTwoWorkers(..) => "SIGKILL of two workers",
            Self::PauseWorker(..) => "SIGSTOP of a worker",
            Self::ReplaceWorker(_) => "SIGTERM of a worker",
            Self::KillMaster => "SIGKILL of the active master",
            Self::KillStandby => "SIGKILL of the standby",
            Self::PauseMaster(_) => "SIGSTOP of the active master",
            Self::KillMasterAndWorker(_) => "SIGKILL of master and worker",
            Self::Restart(backend) => return format!("SIGKILL of {backend}"),
            Self::Link(_, Trouble::Cut, _) => "connections cut",
            Self::Link(_, Trouble::Delay(_), _) => "connections delayed",
            Self::Link(..) => "one direction stands still",
            Self::HalfOpen(..) => "connections half open",
            Self::FullDisk(_) => "full disk of a sink",
        };
        kind.to_owned()
    }
}

/// A kind by its name, for the command line.
pub(crate) fn kind(name: &str) -> Result<String, String> {
    const DRAWS: usize = 10_000;
    let mut random = StdRng::seed_from_u64(0);
    let kinds: BTreeSet<String> = (0..DRAWS)
        .map(|_| Fault::choose(&mut random).kind())
        .collect();
    match kinds.contains(name) {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "one of: {}",
            kinds.into_iter().collect::<Vec<_>>().join(", ")
        )),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::KillWorker(worker)
            | Self::ReplaceWorker(worker)
            | Self::KillMasterAndWorker(worker) => write!(formatter, "{kind} ({worker})"),
            Self::KillTwoWorkers(one, other) => write!(formatter, "{kind} ({one}, {other})"),
            Self::PauseWorker(worker, pause) => {
                write!(formatter, "{kind} ({worker}) for {} ms", pause.as_millis())
            }
            Self::PauseMaster(time) | Self::FullDisk(time) => {
                write!(formatter, "{kind} for {} ms", time.as_millis())
            }
            Self::Link(link, trouble, time) => write!(
                formatter,
                "{kind} ({link}, {trouble:?}) for {} ms",
                time.as_millis()
            ),
            Self::HalfOpen(link, time) => {
                write!(formatter, "{kind} ({link}) for {} ms", time.as_millis())
            }
            Self::KillMaster | Self::KillStandby | Self::Restart(_) => formatter.write_str(&kind),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kafka => "Kafka",
            Self::Postgres => "Postgres",
            Self::Storage => "S3",
        })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => formatter.write_str("master"),
            Self::Worker(worker) => write!(formatter, "worker {worker}"),
            Self::Backend(backend) => backend.fmt(formatter),
        }
    }
}

fn millis(random: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}

fn backend(random: &mut StdRng) -> Backend {
    match random.random_range(0..3) {
        0 => Backend::Kafka,
        1 => Backend::Postgres,
        _ => Backend::Storage,
    }
}

fn link(random: &mut StdRng, worker: usize) -> Link {
    match random.random_range(0..5) {
        0 => Link::Master,
        1 => Link::Worker(worker),
        _ => Link::Backend(backend(random)),
    }
}

fn trouble(random: &mut StdRng) -> Trouble {
    let to_server = random.random();
    match random.random_range(0..3) {
        0 => Trouble::Cut,
        1 => Trouble::Delay(millis(random, DELAY_MS)),
        _ => Trouble::Hold {
            to_server,
            to_client: !to_server,
        },
    }
}
