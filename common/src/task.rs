//! Side tasks of actors: a panic in one must reach its actor instead of vanishing with the task.
//!
//! Called by actors that keep a `JoinSet` and are told of a task's end by a message. Failure: the panic is a
//! [`Panicked`] in the message, which the actor returns as its own failure, so that its supervisor acts.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;

/// A side task panicked; its actor fails as if it had returned an error.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(pub String);

/// Runs `work` to its end; a panic is an error.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    // What the task had in its hands is dropped with it: nobody sees it half changed.
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.map_err(|panic| Panicked(text_of(panic.as_ref())))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_a_task_is_its_error_with_its_text() {
        assert_eq!(caught(async { 1 }).await.expect("no panic"), 1);
        let place = 7;
        let panicked = caught(async { assert!(place < 7, "place {place} is taken") }).await;
        let text = panicked.expect_err("it panics").to_string();
        assert_eq!(text, "panicked: place 7 is taken");
    }
}
