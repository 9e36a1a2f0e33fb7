//! Whether a worker can work, told to whoever asks its Flight address by gRPC's health protocol.
//!
//! Asked by `millstream healthcheck --worker` and by whatever watches containers. The supervisor says when a master counts on the
//! worker; nothing here decides. Without a master the process is alive (the service without a name serves), but has not joined.

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The name to ask for.
pub const SERVICE: &str = "millstream.v1.Worker";

/// Passes on what the supervisor says; never ends.
pub(crate) async fn tell(reporter: HealthReporter, mut has_joined: watch::Receiver<bool>) {
    loop {
        let status = match *has_joined.borrow_and_update() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        reporter.set_service_status(SERVICE, status).await;
        if has_joined.changed().await.is_err() {
            // The supervisor is gone, and the worker is ending.
            return std::future::pending().await;
        }
    }
}
