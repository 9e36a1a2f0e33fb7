//! Why a master refuses what a client asks, with the next step in the text.
//!
//! Made by the master, mapped once to a gRPC status and back by `grpc::status`.

use crate::error::Kind;
use crate::problem::{self, Problem};

/// Why a master refuses a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The SQL, or what it refers to, is wrong; nothing was started.
    #[error("{}", problem::count(.0.len()))]
    Problems(Vec<Problem>),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A job of this name runs, with other SQL or another beginning.
    #[error(
        "job {name} is running, and not as it is submitted now; stop it first (`millstream stop {name}`) or submit under another name"
    )]
    AlreadyRunning {
        /// The name asked for.
        name: String,
    },
    /// A stopped job of this name has state that the new plan cannot take over.
    #[error(
        "the plan of job {name} has changed since it stopped: {difference}; go on with it from the last epoch \
         with --from-checkpoint latest, submit what it stopped with, or begin a new life with --fresh \
         (append sinks receive their rows again)"
    )]
    PlanChanged {
        /// The job's name.
        name: String,
        /// What differs.
        difference: String,
    },
    /// The job has ended already.
    #[error("job {name} does not run: it is {state}")]
    NotRunning {
        /// The job's name.
        name: String,
        /// The state it is in, as a word.
        state: String,
    },
    /// There is no job of this name.
    #[error("no job {name}{}; `millstream jobs` lists them", suggestion(.nearest))]
    NotFound {
        /// The name asked for.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
    },
    /// This master cannot act now; the same call may work later, or at another master.
    #[error("the master cannot act now: {cause}{}", elsewhere(.active))]
    Unavailable {
        /// What stands in the way.
        cause: String,
        /// The address of the master that is active, where that is known to be another.
        active: Option<String>,
    },
    /// A rule of ours is broken: a defect.
    #[error("defect: {0}")]
    Internal(String),
}

impl ControlError {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Problems(_)
            | Self::Invalid(_)
            | Self::AlreadyRunning { .. }
            | Self::PlanChanged { .. }
            | Self::NotRunning { .. }
            | Self::NotFound { .. } => Kind::User,
            Self::Unavailable { .. } => Kind::External,
            Self::Internal(_) => Kind::Internal,
        }
    }
}

fn suggestion(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!(", did you mean {name}?"),
        None => String::new(),
    }
}

fn elsewhere(active: &Option<String>) -> String {
    match active {
        Some(address) => format!("; the active master is at {address}"),
        None => String::new(),
    }
}
