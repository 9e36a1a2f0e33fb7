//! A [`ControlError`] as a gRPC status: a code and a text for every client, and details in the form
//! of `google.rpc.Status` from which ours gets the same error back.
//!
//! Details travel in a header, and headers are bounded on both sides: a long list of problems is cut
//! and the last one says how many are missing.

use std::collections::BTreeMap;

use millstream_proto::v1;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use crate::control::ControlError;
use crate::problem::Problem;

/// Below the 16 KiB that HTTP/2 clients accept as headers by default, also after base64.
const DETAILS_BYTES_MAX: usize = 8 << 10;
/// The text is a header too, and three times as long where it is not ASCII.
const TEXT_BYTES_MAX: usize = 1000;
/// Who makes the reasons below; the `domain` of every `ErrorInfo`.
const DOMAIN: &str = "millstream";
const ERROR_INFO_URL: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const SUBMIT_PROBLEMS_URL: &str = "type.googleapis.com/millstream.v1.SubmitProblems";

const INVALID: &str = "INVALID";
const ALREADY_RUNNING: &str = "ALREADY_RUNNING";
const PLAN_CHANGED: &str = "PLAN_CHANGED";
const NOT_RUNNING: &str = "NOT_RUNNING";
const NOT_FOUND: &str = "NOT_FOUND";
const UNAVAILABLE: &str = "UNAVAILABLE";
const INTERNAL: &str = "INTERNAL";

/// `google.rpc.Status`, as generic clients decode it.
#[derive(Clone, PartialEq, Message)]
struct RichStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.ErrorInfo`: a reason and its fields.
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
    let (code, detail) = match error {
        ControlError::Problems(problems) => (Code::InvalidArgument, submit_problems(problems)),
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
    let message = cut(&text_of(error));
    let rich = RichStatus {
        code: code as i32,
        message: message.clone(),
        details: vec![detail],
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
fn text_of(error: &ControlError) -> String {
    let ControlError::Problems(problems) = error else {
        return error.to_string();
    };
    let spelled: Vec<String> = problems
        .iter()
        .map(|problem| match problem.line {
            0 => problem.message.clone(),
            line => format!(
                "line {line}, column {}: {}",
                problem.column, problem.message
            ),
        })
        .collect();
    format!("{error}: {}", spelled.join("; "))
}

fn submit_problems(problems: &[Problem]) -> Any {
    let mut refused = v1::SubmitProblems::default();
    let mut size = 0;
    for (index, problem) in problems.iter().enumerate() {
        let message = v1::Problem::from(problem);
        size += message.encoded_len();
        if size > DETAILS_BYTES_MAX {
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
        assert!(bytes < 11 << 10, "{bytes} bytes");
        let Some(ControlError::Problems(kept)) = from_status(&status) else {
            panic!("no problems in {status:?}");
        };
        let last = kept.last().expect("some are kept");
        assert_eq!(last.message, format!("and {} more", 500 - (kept.len() - 1)));
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
