//! A [`ControlError`] as a gRPC status: a code and a text for every client, and details in the form
//! of `google.rpc.Status` from which ours gets the same error back.
//!
//! Problems of a submission come twice: as our own message with places as numbers, and as `google.rpc.BadRequest`, which clients
//! know that have never seen our contract. Details travel in a header, and headers are bounded on both sides: a long list of problems
//! is cut and the last one says how many are missing.

use std::collections::BTreeMap;

use millstream_proto::v1;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb::bad_request::FieldViolation;
use tonic_types::pb::{BadRequest, Status as RichStatus};

use crate::control::ControlError;
use crate::problem::Problem;

/// All headers together stay below the 8 KiB that generic clients take, also after base64: this for our own list of problems ...
const PROBLEMS_BYTES_MAX: usize = 3 << 10;
/// ... and this for the list that every client knows.
const VIOLATIONS_BYTES_MAX: usize = 1 << 10;
/// The text is a header too, stands in the details again, and is three times as long where it is not ASCII.
const TEXT_BYTES_MAX: usize = 500;
/// Who makes the reasons below; the `domain` of every `ErrorInfo`.
const DOMAIN: &str = "millstream";
const ERROR_INFO_URL: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const BAD_REQUEST_URL: &str = "type.googleapis.com/google.rpc.BadRequest";
const SUBMIT_PROBLEMS_URL: &str = "type.googleapis.com/millstream.v1.SubmitProblems";

const INVALID: &str = "INVALID";
const ALREADY_RUNNING: &str = "ALREADY_RUNNING";
const PLAN_CHANGED: &str = "PLAN_CHANGED";
const NOT_RUNNING: &str = "NOT_RUNNING";
const NOT_FOUND: &str = "NOT_FOUND";
const UNAVAILABLE: &str = "UNAVAILABLE";
const INTERNAL: &str = "INTERNAL";

/// `google.rpc.ErrorInfo`: a reason and its fields, in an order of their own that is the same in every process.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// The status that carries `error`.
pub fn to_status(error: &ControlError) -> Status {
    to_status_about(error, "")
}

/// The status that carries the `error` of a submission, whose text the user knows as `file`.
pub fn to_status_about(error: &ControlError, file: &str) -> Status {
    let info = |reason: &str, fields: &[(&str, Option<&str>)]| {
        let metadata = fields
            .iter()
            .filter_map(|(key, value)| Some(((*key).to_owned(), cut((*value)?))))
            .collect();
        let info = ErrorInfo {
            reason: reason.to_owned(),
            domain: DOMAIN.to_owned(),
            metadata,
        };
        any(ERROR_INFO_URL, &info)
    };
    if let ControlError::Problems(problems) = error {
        let details = vec![submit_problems(problems, file), bad_request(problems, file)];
        return rich(Code::InvalidArgument, &text_of(error, file), details);
    }
    let (code, detail) = match error {
        // Told above.
        ControlError::Problems(_) => (Code::InvalidArgument, Any::default()),
        ControlError::Invalid(text) => (
            Code::InvalidArgument,
            info(INVALID, &[("text", Some(text))]),
        ),
        ControlError::AlreadyRunning { name } => (
            Code::AlreadyExists,
            info(ALREADY_RUNNING, &[("name", Some(name))]),
        ),
        ControlError::PlanChanged { name, difference } => (
            Code::FailedPrecondition,
            info(
                PLAN_CHANGED,
                &[("name", Some(name)), ("difference", Some(difference))],
            ),
        ),
        ControlError::NotRunning { name, state } => (
            Code::FailedPrecondition,
            info(NOT_RUNNING, &[("name", Some(name)), ("state", Some(state))]),
        ),
        ControlError::NotFound { name, nearest } => (
            Code::NotFound,
            info(
                NOT_FOUND,
                &[("name", Some(name)), ("nearest", nearest.as_deref())],
            ),
        ),
        ControlError::Unavailable { cause, active } => (
            Code::Unavailable,
            info(
                UNAVAILABLE,
                &[("cause", Some(cause)), ("active", active.as_deref())],
            ),
        ),
        ControlError::Internal(text) => (Code::Internal, info(INTERNAL, &[("text", Some(text))])),
    };
    rich(code, &text_of(error, file), vec![detail])
}

fn rich(code: Code, text: &str, details: Vec<Any>) -> Status {
    let message = cut(text);
    let rich = RichStatus {
        code: code as i32,
        message: message.clone(),
        details,
    };
    Status::with_details(code, message, rich.encode_to_vec().into())
}

/// The error that a master's status carries; `None` for a status that is not from a master's
/// control service, such as those of the transport.
pub fn from_status(status: &Status) -> Option<ControlError> {
    let rich = RichStatus::decode(status.details()).ok()?;
    rich.details.iter().find_map(|detail| {
        if detail.type_url == SUBMIT_PROBLEMS_URL {
            let refused = v1::SubmitProblems::decode(detail.value.as_slice()).ok()?;
            let problems = refused.problems.into_iter().map(Problem::from).collect();
            return Some(ControlError::Problems(problems));
        }
        let is_info = detail.type_url == ERROR_INFO_URL;
        let info = is_info.then(|| ErrorInfo::decode(detail.value.as_slice()).ok())??;
        (info.domain == DOMAIN).then(|| from_info(info))?
    })
}

/// What went wrong with a call, for people: a master's refusal, or the innermost cause, which is the one a person can act on; the layers
/// above it only say "transport error".
pub fn in_plain_words(status: &Status) -> String {
    if let Some(refusal) = from_status(status) {
        return refusal.to_string();
    }
    let mut innermost: Option<&dyn std::error::Error> = std::error::Error::source(status);
    while let Some(cause) = innermost.and_then(std::error::Error::source) {
        innermost = Some(cause);
    }
    match (innermost, status.message()) {
        (Some(cause), _) => cause.to_string(),
        (None, "") => status.code().description().to_lowercase(),
        (None, message) => message.to_owned(),
    }
}

fn from_info(mut info: ErrorInfo) -> Option<ControlError> {
    let mut metadata = std::mem::take(&mut info.metadata);
    let mut optional = |key: &str| metadata.remove(key);
    let field = |value: Option<String>| value.unwrap_or_default();
    Some(match info.reason.as_str() {
        INVALID => ControlError::Invalid(field(optional("text"))),
        ALREADY_RUNNING => ControlError::AlreadyRunning {
            name: field(optional("name")),
        },
        PLAN_CHANGED => ControlError::PlanChanged {
            name: field(optional("name")),
            difference: field(optional("difference")),
        },
        NOT_RUNNING => ControlError::NotRunning {
            name: field(optional("name")),
            state: field(optional("state")),
        },
        NOT_FOUND => ControlError::NotFound {
            name: field(optional("name")),
            nearest: optional("nearest"),
        },
        UNAVAILABLE => ControlError::Unavailable {
            cause: field(optional("cause")),
            active: optional("active"),
        },
        INTERNAL => ControlError::Internal(field(optional("text"))),
        _ => return None,
    })
}

/// The text for clients that do not read details: problems are spelled out.
fn text_of(error: &ControlError, file: &str) -> String {
    let ControlError::Problems(problems) = error else {
        return error.to_string();
    };
    let spelled: Vec<String> = problems
        .iter()
        .map(|problem| spelled(problem, file))
        .collect();
    format!("{error}: {}", spelled.join("; "))
}

/// `job.sql:3:7: unknown column`, or without the file where it has no name.
fn spelled(problem: &Problem, file: &str) -> String {
    let message = &problem.message;
    match (file, problem.line) {
        ("", 0) => message.clone(),
        (file, 0) => format!("{file}: {message}"),
        ("", line) => format!("line {line}, column {}: {message}", problem.column),
        (file, line) => format!("{file}:{line}:{}: {message}", problem.column),
    }
}

fn submit_problems(problems: &[Problem], file: &str) -> Any {
    let mut refused = v1::SubmitProblems {
        problems: Vec::new(),
        file: cut(file),
    };
    let mut size = 0;
    for (index, problem) in problems.iter().enumerate() {
        let message = v1::Problem::from(problem);
        size += message.encoded_len();
        if size > PROBLEMS_BYTES_MAX {
            refused.problems.push(v1::Problem {
                message: format!("and {} more", problems.len() - index),
                ..Default::default()
            });
            break;
        }
        refused.problems.push(message);
    }
    any(SUBMIT_PROBLEMS_URL, &refused)
}

fn bad_request(problems: &[Problem], file: &str) -> Any {
    let mut refused = BadRequest::default();
    let mut size = 0;
    for problem in problems {
        let hint = problem.hint.as_ref();
        let hint = hint.map_or_else(String::new, |hint| format!(" ({hint})"));
        let violation = FieldViolation {
            field: "sql".to_owned(),
            description: cut(&format!("{}{hint}", spelled(problem, file))),
            ..FieldViolation::default()
        };
        size += violation.encoded_len();
        // The first is told however long it is.
        if size > VIOLATIONS_BYTES_MAX && !refused.field_violations.is_empty() {
            break;
        }
        refused.field_violations.push(violation);
    }
    any(BAD_REQUEST_URL, &refused)
}

fn any(type_url: &str, message: &impl Message) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: message.encode_to_vec(),
    }
}

fn cut(text: &str) -> String {
    match text.floor_char_boundary(TEXT_BYTES_MAX) {
        end if end < text.len() => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

/// Nobody writes four billion lines.
fn narrow(place: u64) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

impl From<&Problem> for v1::Problem {
    fn from(problem: &Problem) -> Self {
        Self {
            line: narrow(problem.line),
            column: narrow(problem.column),
            length: narrow(problem.length),
            message: cut(&problem.message),
            hint: cut(problem.hint.as_deref().unwrap_or_default()),
        }
    }
}

impl From<v1::Problem> for Problem {
    fn from(problem: v1::Problem) -> Self {
        Self {
            line: problem.line.into(),
            column: problem.column.into(),
            length: problem.length.into(),
            message: problem.message,
            hint: Some(problem.hint).filter(|hint| !hint.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(message: &str) -> Problem {
        Problem {
            line: 3,
            column: 7,
            length: 4,
            message: message.to_owned(),
            hint: None,
        }
    }

    #[test]
    fn a_failed_call_is_told_without_the_words_of_the_transport() {
        let standby = ControlError::Unavailable {
            cause: "it stands by".to_owned(),
            active: Some("one:7070".to_owned()),
        };
        assert_eq!(
            in_plain_words(&to_status(&standby)),
            "the master cannot act now: it stands by; the active master is at one:7070"
        );
        let refused = std::io::Error::other("connect to one:7070: connection refused");
        let broken = Status::from_error(Box::new(refused));
        assert_eq!(
            in_plain_words(&broken),
            "connect to one:7070: connection refused"
        );
        assert_eq!(in_plain_words(&Status::internal("no Hello")), "no Hello");
        let bare = Status::new(Code::Unavailable, "");
        assert_eq!(
            in_plain_words(&bare),
            "the service is currently unavailable"
        );
    }

    #[test]
    fn every_error_comes_back_from_its_status_as_it_was() {
        let name = || "clicks".to_owned();
        let errors = [
            ControlError::Problems(vec![
                problem("unknown column"),
                Problem {
                    hint: Some("did you mean url?".to_owned()),
                    ..problem("unknown function")
                },
            ]),
            ControlError::Invalid("no name".to_owned()),
            ControlError::AlreadyRunning { name: name() },
            ControlError::PlanChanged {
                name: name(),
                difference: "view page_views groups by other columns".to_owned(),
            },
            ControlError::NotRunning {
                name: name(),
                state: "stopped".to_owned(),
            },
            ControlError::NotFound {
                name: name(),
                nearest: Some("click".to_owned()),
            },
            ControlError::NotFound {
                name: name(),
                nearest: None,
            },
            ControlError::Unavailable {
                cause: "a standby".to_owned(),
                active: Some("master-2:7070".to_owned()),
            },
            ControlError::Internal("two parents".to_owned()),
        ];
        for error in errors {
            assert_eq!(from_status(&to_status(&error)), Some(error));
        }
    }

    #[test]
    fn a_status_of_the_transport_is_no_error_of_a_master() {
        assert_eq!(
            from_status(&Status::unavailable("connection refused")),
            None
        );
    }

    #[test]
    fn a_long_list_of_problems_fits_into_a_header_and_says_what_is_missing() {
        let problems: Vec<Problem> = (0..500).map(|_| problem(&"x".repeat(100))).collect();
        let status = to_status(&ControlError::Problems(problems));
        let bytes = status.details().len() + status.message().len();
        assert!(bytes * 4 / 3 < 8 << 10, "{bytes} bytes");
        let Some(ControlError::Problems(kept)) = from_status(&status) else {
            panic!("no problems in {status:?}");
        };
        let last = kept.last().expect("some are kept");
        assert_eq!(last.message, format!("and {} more", 500 - (kept.len() - 1)));
    }

    #[test]
    fn a_client_that_does_not_know_our_contract_reads_file_line_and_column() {
        let problems = vec![Problem {
            hint: Some("did you mean url?".to_owned()),
            ..problem("unknown column urk")
        }];
        let status = to_status_about(&ControlError::Problems(problems), "jobs/clicks.sql");
        let rich = RichStatus::decode(status.details()).unwrap();
        let known = rich
            .details
            .iter()
            .find(|detail| detail.type_url == BAD_REQUEST_URL);
        let known = BadRequest::decode(known.unwrap().value.as_slice()).unwrap();
        let [violation] = known.field_violations.as_slice() else {
            panic!("{known:?}");
        };
        assert_eq!(violation.field, "sql");
        assert_eq!(
            violation.description,
            "jobs/clicks.sql:3:7: unknown column urk (did you mean url?)"
        );
    }

    #[test]
    fn a_client_that_reads_no_details_still_sees_the_places() {
        let status = to_status(&ControlError::Problems(vec![problem("unknown column")]));
        assert_eq!(
            status.message(),
            "1 problem: line 3, column 7: unknown column"
        );
    }
}
