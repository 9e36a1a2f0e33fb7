//! What a file system or a format refuses, sorted by who has to act.
//!
//! Used by `mod.rs` for all blocking work. A full disk, a lost mount or a timeout may pass by themselves: the run is
//! tried again. A folder that may not be written, a file where a folder should be, a column that the format cannot
//! hold stay as they are until a person acts: the sink says so, and is looked at again at its own pace. Pure.

use std::io::{self, ErrorKind};

use arrow::error::ArrowError;

use crate::sink::SinkError;

/// Sorts `error`; `what` says what was being done, with the folder.
pub(super) fn classify(what: String, error: &ArrowError) -> SinkError {
    match error {
        ArrowError::IoError(_, cause) => match next_step(cause) {
            Some(step) => SinkError::refused(what, format!("{cause}: {step}")),
            None => SinkError::unavailable(what, cause),
        },
        ArrowError::ExternalError(_) | ArrowError::MemoryError(_) => {
            SinkError::unavailable(what, error)
        }
        _ => SinkError::refused(
            what,
            format!("{error}: cast the column in a view, or choose another format"),
        ),
    }
}

/// What a person can do where time does not help.
fn next_step(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            Some("let this process's user write there, or name another folder in path")
        }
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::AlreadyExists => Some(
            "a file stands where a folder has to be: move it away, or name another folder in path",
        ),
        ErrorKind::ReadOnlyFilesystem => {
            Some("mount the file system for writing, or name another folder in path")
        }
        ErrorKind::InvalidFilename => Some("shorten path, or leave a column out of partition_by"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::error::Kind;

    use super::*;

    #[test]
    fn what_time_does_not_mend_waits_for_a_person() {
        let kind = |error: ArrowError| classify("write files".to_owned(), &error).kind();
        let io = |kind: ErrorKind| ArrowError::from(io::Error::from(kind));
        assert_eq!(kind(io(ErrorKind::PermissionDenied)), Kind::User);
        assert_eq!(kind(io(ErrorKind::NotADirectory)), Kind::User);
        assert_eq!(kind(io(ErrorKind::StorageFull)), Kind::External);
        assert_eq!(kind(io(ErrorKind::TimedOut)), Kind::External);
        let unfit = ArrowError::NotYetImplemented("a type".to_owned());
        assert_eq!(kind(unfit), Kind::User);
    }
}
