//! The master's gRPC server: control API, worker link, reflection and health on one listener.
//!
//! Every call passes `access` first. Started by the master with a listener of whatever network it was given. Owns the connections.
//! Failure: an error of the server itself ends [`serve`]; errors of calls are their statuses.

pub mod access;
mod backend;
mod control;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use millstream_common::control::ControlError;
use millstream_common::ids::JobName;
use millstream_common::net::{CLIENT_PATIENCE, KEEPALIVE_INTERVAL, Listener};
use millstream_proto::v1;
use millstream_proto::v1::control_server::ControlServer;
use millstream_proto::v1::worker_link_server::{WorkerLink, WorkerLinkServer};
use tonic::transport::Server;

use access::AccessLayer;
pub use backend::ControlBackend;
pub use control::ControlService;

/// Resolves when the master goes down; shared by the server and the streams it serves.
pub type Shutdown = Shared<BoxFuture<'static, ()>>;

/// A SQL file and little more.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Plans, assignments and reports of thousands of splits.
const LINK_FRAME_BYTES_MAX: usize = 64 << 20;
/// After the shutdown signal, calls under way have this long to end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// A job's name becomes part of storage keys and metrics.
const NAME_CHARS_MAX: usize = 64;

/// A name that a job can have.
pub(crate) fn job_name(name: String) -> Result<JobName, ControlError> {
    let of_good_length = (1..=NAME_CHARS_MAX).contains(&name.len());
    let of_good_characters = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if of_good_length && of_good_characters {
        return Ok(JobName(name));
    }
    Err(ControlError::Invalid(format!(
        "a job's name is 1 to {NAME_CHARS_MAX} letters, digits, '-' and '_', not {name:?}; \
         choose one with --name"
    )))
}

/// What can go wrong with the server itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The contracts cannot be described: a defect of the build.
    #[error("describe the api: {0}")]
    Describe(#[from] tonic_reflection::server::Error),
    /// The server ended.
    #[error("serve grpc: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until `shutdown` resolves, then lets calls end for a moment. Links of workers are long
/// calls: whoever implements `link` ends them at the same signal, or they are cut after the grace.
pub async fn serve<L: WorkerLink>(
    listener: Listener,
    backend: Arc<dyn ControlBackend>,
    link: L,
    access: AccessLayer,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let shutdown: Shutdown = shutdown.boxed().shared();
    let control = ControlServer::new(ControlService::new(backend, shutdown.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let link = WorkerLinkServer::new(link)
        .max_decoding_message_size(LINK_FRAME_BYTES_MAX)
        .max_encoding_message_size(LINK_FRAME_BYTES_MAX);
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // What errors carry is made of these: whoever asks can read it.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = describe().build_v1()?;
    // Many generic clients ask in the words of before only.
    let early_reflection = describe().build_v1alpha()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_serving::<ControlServer<ControlService>>()
        .await;
    reporter.set_serving::<WorkerLinkServer<L>>().await;
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(CLIENT_PATIENCE))
        .layer(access)
        .add_service(control)
        .add_service(link)
        .add_service(reflection)
        .add_service(early_reflection)
        .add_service(health)
        .serve_with_incoming_shutdown(listener.incoming, shutdown.clone());
    let patience = async {
        shutdown.await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        ended = server => Ok(ended?),
        () = patience => Ok(()),
    }
}
