//! Who may see what over HTTP, on masters and on workers: the same tokens and certificates as for calls.
//!
//! Asked by `common::http` before every request. That a process lives and can work is told to everybody; looking at anything else takes
//! who may look at jobs, and what would change something is closed to all but admins until somebody decides.

use millstream_common::http::{Asking, Guard, Refused};
use millstream_common::net::Peer;
use tonic::Code;
use tonic::codegen::http::Method;

use super::{Access, AccessLayer, Caller, Need, Role};

fn need(method: &Method, path: &str) -> Need {
    match (method, path) {
        (_, "/healthz" | "/readyz") => Need::Nothing,
        (&Method::GET | &Method::HEAD, _) => Need::Role(Role::Read),
        _ => Need::Role(Role::Admin),
    }
}

impl Guard for AccessLayer {
    fn admit(&self, asking: &Asking<'_>) -> Result<(), Refused> {
        let certificate = |peer: &'_ Peer| peer.certificate.clone();
        let certificate = asking.peer.and_then(certificate);
        let caller = Caller {
            certificate: certificate.as_ref(),
            token: asking.token,
        };
        let Err(status) = self.decide(need(asking.method, asking.path), caller) else {
            return Ok(());
        };
        let why = status.message().to_owned();
        tracing::info!(path = asking.path, cause = why, "request refused");
        Err(match (status.code(), &self.access) {
            (Code::PermissionDenied, _) => Refused::Role(why),
            (_, Access::Certificates) => Refused::Certificate(why),
            _ => Refused::Token(why),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SharedTokens, Tokens, hash};
    use super::*;

    fn admit(guard: &AccessLayer, method: Method, path: &str, token: Option<&str>) -> String {
        let admitted = guard.admit(&Asking {
            method: &method,
            path,
            peer: None,
            token,
        });
        match admitted {
            Ok(()) => "let through".to_owned(),
            Err(Refused::Token(_)) => "a token".to_owned(),
            Err(Refused::Certificate(_)) => "a certificate".to_owned(),
            Err(Refused::Role(_)) => "a role".to_owned(),
        }
    }

    #[test]
    fn strangers_learn_that_a_process_lives_readers_look_and_nobody_changes_anything() {
        let shared = SharedTokens::default();
        let line = format!("r read {}\na admin {}", hash("r"), hash("a"));
        shared.replace(Tokens::read(&line).expect("it reads"));
        let open = AccessLayer::open();
        let tokens = AccessLayer {
            access: Access::Tokens(shared),
            ..open.clone()
        };
        let certificates = AccessLayer {
            access: Access::Certificates,
            ..open.clone()
        };
        for (guard, method, path, token, expected) in [
            (&open, Method::GET, "/metrics", None, "let through"),
            (&tokens, Method::GET, "/healthz", None, "let through"),
            (&tokens, Method::GET, "/readyz", None, "let through"),
            (&tokens, Method::GET, "/metrics", None, "a token"),
            (&tokens, Method::GET, "/metrics", Some("x"), "a token"),
            (&tokens, Method::GET, "/metrics", Some("r"), "let through"),
            (&tokens, Method::GET, "/", Some("r"), "let through"),
            (&tokens, Method::POST, "/", Some("r"), "a role"),
            (&tokens, Method::POST, "/", Some("a"), "let through"),
            (
                &certificates,
                Method::GET,
                "/metrics",
                Some("r"),
                "a certificate",
            ),
            (&certificates, Method::GET, "/healthz", None, "let through"),
        ] {
            let found = admit(guard, method.clone(), path, token);
            assert_eq!(found, expected, "{method} {path} {token:?}");
        }
    }
}
