//! The layer around the master's services that asks [`decide`] about every call.
//!
//! Put there by `service`. Owns nothing. Calls that change something are logged with who made them.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use chrono::{DateTime, Utc};
use futures::future::Either;
use millstream_common::net::Peer;
use millstream_common::time::{ClockRef, SystemClock};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::{Access, Caller, Need, Principal, Role, decide, need};

/// Puts [`Guarded`] around a service.
#[derive(Clone)]
pub struct AccessLayer {
    /// How callers are told apart.
    pub access: Access,
    /// Tells whether a token has expired.
    pub clock: ClockRef,
}

impl AccessLayer {
    /// Lets everybody do everything.
    pub fn open() -> Self {
        Self {
            access: Access::Open,
            clock: Arc::new(SystemClock::new()),
        }
    }

    pub(super) fn decide(&self, need: Need, caller: Caller<'_>) -> Result<Principal, Status> {
        // A clock beyond the calendar lets no token hold that ends.
        let now = DateTime::from_timestamp_micros(self.clock.unix_micros());
        let now = now.unwrap_or(DateTime::<Utc>::MAX_UTC);
        decide(&self.access, need, caller, now)
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service that is only reached by those who may.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    layer: AccessLayer,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let caller = Caller {
            certificate: peer.and_then(|peer| peer.certificate.as_ref()),
            token: authorization.and_then(bearer),
        };
        let path = request.uri().path();
        match self.layer.decide(need(path), caller) {
            Ok(principal) => {
                log(path, &principal);
                Either::Left(self.inner.call(request))
            }
            Err(status) => {
                let cause = status.message();
                tracing::info!(path, cause, "call refused");
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

/// Who changed what; looks are not worth a line.
fn log(path: &str, principal: &Principal) {
    let Principal::Token(token) = principal else {
        return;
    };
    if matches!(need(path), Need::Role(Role::Submit | Role::Admin)) {
        tracing::info!(path, token, "call allowed");
    }
}

/// The token in an `authorization` header; the scheme's case does not matter (RFC 9110).
pub(super) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}
