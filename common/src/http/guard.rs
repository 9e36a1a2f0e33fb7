//! Who may see what a process serves over HTTP: asked before every request, whatever it asks for.
//!
//! [`guarded`] puts a [`Guard`] around all routes of a router; what is decided is not decided here. A browser shows a token as the
//! password that it asks its user for, everybody else as `Bearer`.
//! Failure: who is refused gets a status and words, and nothing of what was asked for.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};

use crate::net::Peer;

/// What a browser makes a question for a name and a password of.
const CHALLENGE: &str = "Basic realm=\"millstream\", Bearer realm=\"millstream\"";

/// What is known of a request before it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// What it is to do.
    pub method: &'a Method,
    /// To what.
    pub path: &'a str,
    /// Where it comes from.
    pub peer: Option<&'a Peer>,
    /// The token that it shows.
    pub token: Option<&'a str>,
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It shows no token that holds.
    Token(String),
    /// It shows no certificate that holds.
    Certificate(String),
    /// What it shows does not allow this.
    Role(String),
}

/// Decides who may see what.
pub trait Guard: Send + Sync + 'static {
    /// Lets a request through, or says why not.
    fn admit(&self, asking: &Asking<'_>) -> Result<(), Refused>;
}

/// A shared guard.
pub type GuardRef = Arc<dyn Guard>;

/// Asks `guard` before anything of `router` is reached, also what is not there.
pub fn guarded(router: Router, guard: GuardRef) -> Router {
    router.layer(middleware::from_fn_with_state(guard, ask))
}

async fn ask(State(guard): State<GuardRef>, request: Request, next: Next) -> Response {
    let token = token(request.headers());
    let admitted = guard.admit(&Asking {
        method: request.method(),
        path: request.uri().path(),
        peer: request.extensions().get(),
        token: token.as_deref(),
    });
    match admitted {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Token(why) => {
                let challenge = [(WWW_AUTHENTICATE, CHALLENGE)];
                (StatusCode::UNAUTHORIZED, challenge, format!("{why}\n")).into_response()
            }
            Self::Certificate(why) | Self::Role(why) => {
                (StatusCode::FORBIDDEN, format!("{why}\n")).into_response()
            }
        }
    }
}

fn token(headers: &HeaderMap) -> Option<String> {
    let shown = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, shown) = shown.split_once(' ')?;
    let shown = shown.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(shown.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(shown).ok()?).ok()?;
    let (_, password) = decoded.split_once(':')?;
    Some(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_as_bearer_or_as_the_password_that_a_browser_asks_for() {
        for (shown, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc", Some("abc")),
            ("Basic bWU6YWJj", Some("abc")),
            ("basic OmE6Yg==", Some("a:b")),
            ("Basic !", None),
            ("Digest abc", None),
            ("abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, shown.parse().expect("a value"));
            assert_eq!(token(&headers).as_deref(), expected, "{shown}");
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }
}
