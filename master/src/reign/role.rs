//! What the gRPC services of a master know of its role: the active one's actors, or where the active one is.
//!
//! Set by the office, read by each call. One that stands by answers every call with `Unavailable` and the active one's address, so that
//! clients and workers go there. Cannot fail.

use millstream_common::control::ControlError;
use millstream_common::ids::Term;
use ractor::ActorRef;
use tokio::sync::watch;

use crate::letters::clerk_actor::Clerk;
use crate::supervisor::supervisor_actor::SupervisorMessage;

/// What a master is at the moment.
#[derive(Clone, Debug)]
pub enum Role {
    /// Another reigns.
    Standby {
        /// Where, as far as its heartbeat has been seen.
        active: Option<String>,
        /// Where its HTTP server is, as far as it has one and its heartbeat has been seen.
        dashboard: Option<String>,
    },
    /// This one reigns.
    Active(Active),
}

/// The active master.
#[derive(Clone, Debug)]
pub struct Active {
    /// Its reign.
    pub term: Term,
    /// Its root actor.
    pub supervisor: ActorRef<SupervisorMessage>,
    /// Sends dead letters through jobs again.
    pub clerk: Clerk,
}

/// Where a master's role can be looked up.
#[derive(Clone, Debug)]
pub struct Roles(pub watch::Receiver<Role>);

impl Roles {
    /// Where the dashboard of the active master is, if another one reigns.
    pub fn dashboard_of_active(&self) -> Option<String> {
        match &*self.0.borrow() {
            Role::Active(_) => None,
            Role::Standby { dashboard, .. } => dashboard.clone(),
        }
    }

    /// The actors, if this master reigns now.
    pub fn active(&self) -> Result<Active, ControlError> {
        match &*self.0.borrow() {
            Role::Active(active) => Ok(active.clone()),
            Role::Standby { active, .. } => Err(ControlError::Unavailable {
                cause: "it stands by".to_owned(),
                active: active.clone(),
            }),
        }
    }
}
