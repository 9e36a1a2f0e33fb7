//! Work that blocks a thread, as something handed in: a thread pool in production, inline in a
//! simulation.
//!
//! Called by whatever must read files, compress or wait for a driver without async calls. Failure: a
//! closure that panics is reported as [`Panicked`], never swallowed.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;

/// The closure panicked; its caller fails as if it had returned an error.
#[derive(Debug, thiserror::Error)]
#[error("blocking work panicked: {0}")]
pub struct Panicked(pub String);

type Work = Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>;

/// Runs closures that may block.
#[async_trait]
pub trait Blocking: Send + Sync {
    /// Runs `work` to its end and hands back what it returned. Use [`run`] instead.
    async fn run_boxed(&self, work: Work) -> Result<Box<dyn Any + Send>, Panicked>;

    /// Starts a thread (or its stand-in) that lives as long as `work` runs; `work` must end when
    /// its channels close.
    fn start_thread(&self, name: String, work: Box<dyn FnOnce() + Send>);
}

/// A shared runner of blocking work.
pub type BlockingRef = Arc<dyn Blocking>;

/// Runs `work` where it may block and returns its result.
pub async fn run<T: Send + 'static>(
    blocking: &BlockingRef,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    let boxed: Work = Box::new(move || Box::new(work()));
    let result = blocking.run_boxed(boxed).await?;
    match result.downcast() {
        Ok(value) => Ok(*value),
        Err(_) => Err(Panicked("result of another type".to_owned())),
    }
}

/// tokio's pool of blocking threads.
#[derive(Debug, Default)]
pub struct ThreadPool;

#[async_trait]
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that starts blocking threads"
)]
impl Blocking for ThreadPool {
    async fn run_boxed(&self, work: Work) -> Result<Box<dyn Any + Send>, Panicked> {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Panicked(error.to_string()))
    }

    fn start_thread(&self, name: String, work: Box<dyn FnOnce() + Send>) {
        let started = std::thread::Builder::new().name(name.clone()).spawn(work);
        if let Err(error) = started {
            tracing::error!(thread = %name, %error, "start thread");
        }
    }
}
