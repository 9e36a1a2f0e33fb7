//! Who may call what: decided for every call before its service sees it, by its path alone.
//!
//! `service` puts [`AccessLayer`] around all services, and it guards what masters and workers serve over HTTP (`http.rs`); the command
//! line chooses the [`Access`]. Owns nothing but the tokens in force.
//! What is not named here needs the highest role: a new call is closed until somebody decides.
//! Failure: a refused call is answered `Unauthenticated` or `PermissionDenied` with what to do, and never reaches its service.

mod http;
mod layer;
#[cfg(test)]
mod tests;
mod token;

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use millstream_common::net::tls::{Certificate, WORKER_NAME};
use tonic::Status;

pub use layer::AccessLayer;
pub use token::{Token, TokenError, Tokens, hash};

/// What a caller may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at jobs, workers, sinks, epochs, rows and dead letters.
    Read,
    /// Start, stop and change jobs.
    Submit,
    /// Change the cluster.
    Admin,
}

impl Role {
    /// As it stands in a tokens file.
    pub const ALL: [(&'static str, Role); 3] = [
        ("read", Role::Read),
        ("submit", Role::Submit),
        ("admin", Role::Admin),
    ];

    /// Of the name in a tokens file.
    pub fn of(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, role)| *role)
    }

    /// Its name in a tokens file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }
}

/// How callers are told apart.
#[derive(Clone)]
pub enum Access {
    /// Whoever reaches the port may do everything.
    Open,
    /// Whoever shows a certificate of the cluster's authority may do everything; who joins must show a worker's.
    Certificates,
    /// Whoever shows a token may do what its role allows; who joins must show a worker's certificate.
    Tokens(SharedTokens),
}

/// Tokens that may be replaced while calls are answered.
#[derive(Clone, Default)]
pub struct SharedTokens(Arc<RwLock<Arc<Tokens>>>);

impl SharedTokens {
    /// From now on only these hold.
    pub fn replace(&self, tokens: Tokens) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
    }

    fn in_force(&self) -> Arc<Tokens> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It tells nothing.
    Nothing,
    /// It carries rows and commands of the cluster itself.
    Worker,
    Role(Role),
}

const CONTROL: &str = "/millstream.v1.Control/";

/// What the call at `path` (`/package.Service/Method`) needs.
fn need(path: &str) -> Need {
    if path.starts_with("/grpc.health.v1.Health/") {
        return Need::Nothing;
    }
    if path.starts_with("/millstream.v1.WorkerLink/") {
        return Need::Worker;
    }
    if path.starts_with("/grpc.reflection.") {
        return Need::Role(Role::Read);
    }
    let role = match path.strip_prefix(CONTROL).unwrap_or_default() {
        "GetJob" | "GetPlan" | "ListJobs" | "WatchJob" | "GetWatermarks" | "ListWorkers"
        | "ListSavepoints" | "ListCheckpoints" | "ListDeadLetters" | "PreviewRelation" => {
            Role::Read
        }
        "SubmitJob" | "StopJob" | "CreateSavepoint" | "DropSavepoint" | "PauseSink"
        | "ResumeSink" | "RewindSink" | "ReplayDeadLetters" => Role::Submit,
        _ => Role::Admin,
    };
    Need::Role(role)
}

/// What a caller shows.
#[derive(Clone, Copy, Default)]
struct Caller<'a> {
    certificate: Option<&'a Certificate>,
    token: Option<&'a str>,
}

/// Lets a call through, as whom, or says why not.
fn decide(
    access: &Access,
    need: Need,
    caller: Caller<'_>,
    now: DateTime<Utc>,
) -> Result<Principal, Status> {
    match (need, access) {
        (_, Access::Open) | (Need::Nothing, _) => Ok(Principal::Anyone),
        (Need::Worker, _) => worker(caller),
        (Need::Role(_), Access::Certificates) => match caller.certificate {
            Some(_) => Ok(Principal::Certificate),
            None => Err(Status::unauthenticated(
                "no certificate is shown: name one of the cluster's authority with --tls-cert and --tls-key",
            )),
        },
        (Need::Role(role), Access::Tokens(tokens)) => {
            token_holder(&tokens.in_force(), role, caller, now)
        }
    }
}

/// As whom a call is let through.
#[derive(Debug, PartialEq, Eq)]
enum Principal {
    Anyone,
    Worker,
    Certificate,
    /// The name of its token.
    Token(String),
}

fn worker(caller: Caller<'_>) -> Result<Principal, Status> {
    let is_worker = |certificate: &Certificate| certificate.bears(WORKER_NAME);
    match caller.certificate.is_some_and(is_worker) {
        true => Ok(Principal::Worker),
        false => Err(Status::unauthenticated(format!(
            "who joins must show a worker's certificate, made out to {WORKER_NAME}: name it with --tls-cert and \
             --tls-key; `millstream certificates` makes one"
        ))),
    }
}

fn token_holder(
    tokens: &Tokens,
    needed: Role,
    caller: Caller<'_>,
    now: DateTime<Utc>,
) -> Result<Principal, Status> {
    let shown = caller.token.ok_or_else(|| {
        Status::unauthenticated(
            "no token is shown: name its file with --token-file or MILLSTREAM_TOKEN_FILE; `millstream token` makes one",
        )
    })?;
    let token = tokens.find(shown).ok_or_else(|| {
        Status::unauthenticated("the token is not known here: it may have been taken back")
    })?;
    if let Some(expires) = token.expires.filter(|expires| *expires <= now) {
        let expired = expires.format("%F %T UTC");
        return Err(Status::unauthenticated(format!(
            "token {:?} has expired at {expired}: ask for another",
            token.name
        )));
    }
    if token.role < needed {
        return Err(Status::permission_denied(format!(
            "token {:?} may only {}: this needs role {}",
            token.name,
            token.role.name(),
            needed.name()
        )));
    }
    Ok(Principal::Token(token.name.clone()))
}
