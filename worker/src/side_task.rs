//! Tasks beside an actor's own: uploads, loops that wait, streams. None may end without a word.
//!
//! Used by actors for whatever they put into a `JoinSet`. A panic in such a task is not seen by the supervision of its
//! actor; without a word of it the epoch would wait for ever. Failure: [`Panicked`] is told like any other.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;

/// The task panicked: a defect.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(crate) struct Panicked(String);

/// Runs `work` to its end or to its panic. What it borrows must not be used after a panic.
pub(crate) async fn guarded<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.map_err(|panic| Panicked(text_of(panic.as_ref())))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with a value that is no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_text() {
        let number = 7;
        for (panicked, text) in [
            (guarded(async { panic!("plain") }).await, "panicked: plain"),
            (
                guarded(async { panic!("number {number}") }).await,
                "panicked: number 7",
            ),
        ] {
            let panicked: Result<(), Panicked> = panicked;
            assert_eq!(
                panicked.map_err(|error| error.to_string()),
                Err(text.to_owned())
            );
        }
    }
}
