//! A client of librdkafka, whose calls block: each runs where that is allowed, and so does its end.
//!
//! Used by `producer.rs` and `reader.rs`. Owns the client. A call whose caller goes away runs to its end, then the client is
//! dropped there. Failure: a call that panics is [`ClusterError::Unavailable`], and the client is gone.

use millstream_common::blocking::{self, BlockingRef};

use super::cluster::ClusterError;

/// A client on which one call runs at a time.
pub(super) struct Offloaded<T: Send + 'static> {
    /// `None` while a call runs, and after one that panicked.
    client: Option<T>,
    blocking: BlockingRef,
}

impl<T: Send + 'static> Offloaded<T> {
    /// What `make` makes.
    pub(super) async fn make(
        blocking: &BlockingRef,
        make: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
    ) -> Result<Self, ClusterError> {
        Ok(Self {
            client: Some(run(blocking, make).await?),
            blocking: blocking.clone(),
        })
    }

    /// Calls the client.
    pub(super) async fn call<R: Send + 'static>(
        &mut self,
        call: impl FnOnce(&T) -> Result<R, ClusterError> + Send + 'static,
    ) -> Result<R, ClusterError> {
        let client = self.client.take();
        let client = client
            .ok_or_else(|| ClusterError::Unavailable("an earlier call did not end".to_owned()))?;
        let work = move || {
            let result = call(&client);
            Ok((client, result))
        };
        let (client, result) = run(&self.blocking, work).await?;
        self.client = Some(client);
        result
    }
}

impl<T: Send + 'static> Drop for Offloaded<T> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let end = Box::new(move || drop(client));
            self.blocking.start_thread("kafka-close".to_owned(), end);
        }
    }
}

/// Runs `work` where it may block.
pub(super) async fn run<R: Send + 'static>(
    blocking: &BlockingRef,
    work: impl FnOnce() -> Result<R, ClusterError> + Send + 'static,
) -> Result<R, ClusterError> {
    let done = blocking::run(blocking, work).await;
    done.unwrap_or_else(|panicked| Err(ClusterError::Unavailable(panicked.to_string())))
}
