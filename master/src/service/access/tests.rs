//! The rules of who may call what.

use std::collections::BTreeMap;

use millstream_proto::v1;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;

use super::*;

const SUBMIT: &str = "/millstream.v1.Control/SubmitJob";
const LIST: &str = "/millstream.v1.Control/ListJobs";
const ATTACH: &str = "/millstream.v1.WorkerLink/Attach";

fn noon() -> DateTime<Utc> {
    "2026-06-01T12:00:00Z".parse().expect("a time")
}

/// One token for each role, named as its role, that ends at `expires`.
fn tokens(expires: &str) -> Access {
    let lines = Role::ALL.map(|(name, _)| format!("{name} {name} {} {expires}", hash(name)));
    let shared = SharedTokens::default();
    shared.replace(Tokens::read(&lines.join("\n")).expect("they read"));
    Access::Tokens(shared)
}

fn with(access: &Access, path: &str, authorization: Option<&str>) -> Result<Principal, Status> {
    let caller = Caller {
        certificate: None,
        token: authorization.and_then(layer::bearer),
    };
    decide(access, need(path), caller, noon())
}

#[test]
fn each_call_of_the_contract_needs_what_is_decided_for_it() {
    let decided: BTreeMap<&str, Need> = [
        (Role::Read, "GetJob GetPlan ListJobs WatchJob GetWatermarks ListWorkers ListSavepoints ListCheckpoints ListDeadLetters PreviewRelation"),
        (Role::Submit, "SubmitJob StopJob CreateSavepoint DropSavepoint PauseSink ResumeSink RewindSink ReplayDeadLetters"),
        (Role::Admin, "DrainWorker"),
    ]
    .into_iter()
    .flat_map(|(role, methods)| methods.split(' ').map(move |name| (name, Need::Role(role))))
    .chain([("Attach", Need::Worker)])
    .collect();
    let described = FileDescriptorSet::decode(v1::DESCRIPTORS).expect("descriptors");
    let services = described.file.iter().flat_map(|file| &file.service);
    let mut count = 0;
    for service in services.filter(|service| ["Control", "WorkerLink"].contains(&service.name())) {
        for method in &service.method {
            let path = format!("/millstream.v1.{}/{}", service.name(), method.name());
            assert_eq!(Some(&need(&path)), decided.get(method.name()), "{path}");
            count += 1;
        }
    }
    assert_eq!(count, decided.len());
}

#[test]
fn what_nobody_has_decided_on_is_closed_to_all_but_admins() {
    for path in [
        "/millstream.v1.Control/Explode",
        "/other.Service/Call",
        "",
        "/",
    ] {
        assert_eq!(need(path), Need::Role(Role::Admin), "{path}");
    }
}

#[test]
fn a_role_may_do_what_those_below_it_may() {
    let access = tokens("2027-01-01T00:00:00Z");
    for (role, may_submit) in [("read", false), ("submit", true), ("admin", true)] {
        let shown = format!("Bearer {role}");
        let listed = with(&access, LIST, Some(&shown)).expect("all may look");
        assert_eq!(listed, Principal::Token(role.to_owned()));
        let submitted = with(&access, SUBMIT, Some(&shown));
        assert_eq!(submitted.is_ok(), may_submit, "{role}");
        if let Err(status) = submitted {
            assert_eq!(status.code(), Code::PermissionDenied);
            let told = "token \"read\" may only read: this needs role submit";
            assert_eq!(status.message(), told);
        }
    }
}

#[test]
fn a_token_that_is_missing_unknown_or_expired_lets_nobody_in() {
    let access = tokens("2027-01-01T00:00:00Z");
    let expired = tokens("2026-06-01T12:00:00Z");
    for (access, shown, told) in [
        (&access, None, "no token is shown"),
        (&access, Some("admin"), "no token is shown"),
        (&access, Some("Basic admin"), "no token is shown"),
        (&access, Some("Bearer other"), "the token is not known here"),
        (&access, Some("Bearer "), "the token is not known here"),
        (
            &expired,
            Some("bearer admin"),
            "token \"admin\" has expired at 2026-06-01 12:00:00 UTC",
        ),
    ] {
        let status = with(access, LIST, shown).expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{shown:?}");
        assert!(status.message().starts_with(told), "{status}");
    }
}

#[test]
fn health_is_told_to_everybody_and_everything_else_to_nobody_without_proof() {
    let access = tokens("2027-01-01T00:00:00Z");
    for closed in [&access, &Access::Certificates] {
        with(closed, "/grpc.health.v1.Health/Check", None).expect("open");
        for path in [
            LIST,
            SUBMIT,
            ATTACH,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            let status = with(closed, path, None).expect_err("refused");
            assert_eq!(status.code(), Code::Unauthenticated, "{path}");
        }
    }
}

#[test]
fn no_token_makes_a_worker_and_without_protection_anybody_is_one() {
    let access = tokens("2027-01-01T00:00:00Z");
    let status = with(&access, ATTACH, Some("Bearer admin")).expect_err("refused");
    assert!(status.message().contains(WORKER_NAME), "{status}");
    assert_eq!(
        with(&Access::Open, ATTACH, None).expect("open"),
        Principal::Anyone
    );
}

#[test]
fn a_line_that_does_not_read_refuses_the_file_with_its_number() {
    let hash = hash("x");
    let fine = format!("# who may\n\nalice read {hash} # until she leaves\n");
    let tokens = Tokens::read(&fine).expect("it reads");
    let alice = tokens.find("x").expect("she is there");
    assert_eq!(
        (alice.name.as_str(), alice.role, alice.expires),
        ("alice", Role::Read, None)
    );
    for (line, told) in [
        ("bob".to_owned(), "it has 1 words"),
        (format!("bob root {hash}"), "\"root\" is no role"),
        ("bob read sha256:12".to_owned(), "the hash is not sha256:"),
        (
            format!("bob read {hash} tomorrow"),
            "\"tomorrow\" is no time",
        ),
        (
            format!("bob admin {hash}"),
            "the hash is that of \"alice\" above",
        ),
    ] {
        let error = Tokens::read(&format!("{fine}{line}")).expect_err("refused");
        assert_eq!(error.line, 4, "{line}");
        assert!(error.cause.starts_with(told), "{error}");
    }
}

#[test]
fn a_token_stands_in_the_file_as_it_is_printed() {
    let token = Token {
        name: "ci".to_owned(),
        role: Role::Submit,
        expires: Some(noon()),
    };
    let read = Tokens::read(&token.line(&hash("secret"))).expect("it reads");
    assert_eq!(read.find("secret"), Some(&token));
    assert_eq!(read.find("Secret"), None);
}
