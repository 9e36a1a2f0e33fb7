//! The worker's end of the link: dials a master, says Hello, carries frames both ways, dials again.
//!
//! Run as one task of the worker's supervisor actor, which gets every frame as a message and answers through the sender that comes
//! with [`SupervisorMessage::Attached`]. Sends a heartbeat every 300 ms. Failure: the end of the stream, a broken frame or
//! silence is told as `Detached`; the next dial follows after a short pause, at the next address of the list.

use std::time::Duration;

use millstream_common::error::chain;
use millstream_common::link::{ToMaster, ToWorker, WorkerHello};
use millstream_common::net::{NetRef, channel};
use millstream_proto::v1;
use millstream_proto::v1::worker_link_client::WorkerLinkClient;
use ractor::ActorRef;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{debug, info, warn};

use crate::supervisor_actor::SupervisorMessage;

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(300);
/// Between two dials.
const REDIAL_DELAY: Duration = Duration::from_millis(200);
/// A master that does not answer Hello for this long is not there.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(3);
/// Frames that wait to be sent; a barrier's reports of a thousand jobs.
const FRAMES_WAITING_MAX: usize = 4_096;
/// Largest frame taken: a Deploy with the state of ten thousand splits.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// What the link needs.
pub(crate) struct LinkConfig {
    /// The network.
    pub(crate) net: NetRef,
    /// The masters' addresses.
    pub(crate) addresses: Vec<String>,
    /// Who we are.
    pub(crate) hello: WorkerHello,
    /// Who gets the frames.
    pub(crate) supervisor: ActorRef<SupervisorMessage>,
}

/// Keeps a link open until its actor is gone.
pub(crate) async fn keep_link(config: LinkConfig) {
    let mut is_known_lost = false;
    for address in config.addresses.iter().cycle() {
        match attach(&config, address).await {
            Ok((sender, frames)) => {
                is_known_lost = false;
                info!(%address, "attached to the master");
                let cause = carry(&config, sender, frames).await;
                // A worker that is ending detaches by itself.
                if config.supervisor.cast(SupervisorMessage::Detached).is_err() {
                    return;
                }
                warn!(%address, %cause, "detached from the master");
            }
            Err(cause) if is_known_lost => debug!(%address, %cause, "attach to the master"),
            Err(cause) => {
                is_known_lost = true;
                warn!(%address, %cause, "cannot attach to the master; trying on");
            }
        }
        tokio::time::sleep(REDIAL_DELAY).await;
    }
}

type Attached = (mpsc::Sender<ToMaster>, Streaming<v1::MasterFrame>);

async fn attach(config: &LinkConfig, address: &str) -> Result<Attached, String> {
    let channel = channel(&config.net, address).map_err(|error| chain(&error))?;
    let mut client = WorkerLinkClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING_MAX);
    sender
        .try_send(ToMaster::Hello(config.hello.clone()))
        .map_err(|error| error.to_string())?;
    let outgoing =
        ReceiverStream::new(receiver).map_while(|frame| match v1::WorkerFrame::try_from(frame) {
            Ok(frame) => Some(frame),
            Err(error) => {
                warn!(%error, "encode link frame");
                None
            }
        });
    let call = tokio::time::timeout(WELCOME_TIMEOUT, client.attach(outgoing)).await;
    match call {
        Ok(Ok(response)) => Ok((sender, response.into_inner())),
        Ok(Err(status)) => Err(chain(&status)),
        Err(_) => Err("no answer to Hello".to_owned()),
    }
}

/// Carries frames until the stream ends; returns why it did.
async fn carry(
    config: &LinkConfig,
    sender: mpsc::Sender<ToMaster>,
    mut frames: Streaming<v1::MasterFrame>,
) -> String {
    let mut heartbeat = tokio::time::interval(HEARTBEAT_INTERVAL);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {
                if let Err(error) = sender.try_send(ToMaster::Heartbeat) {
                    return format!("send heartbeat: {error}");
                }
            }
            frame = frames.message() => {
                let frame = match frame {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return "the master closed the link".to_owned(),
                    Err(status) => return status.message().to_owned(),
                };
                match ToWorker::try_from(frame) {
                    Ok(frame) => {
                        let message = match frame {
                            ToWorker::Welcome { storage_url, .. } => SupervisorMessage::Attached {
                                frames: sender.clone(),
                                storage_url,
                            },
                            frame => SupervisorMessage::Frame(Box::new(frame)),
                        };
                        if config.supervisor.cast(message).is_err() {
                            return "the worker is ending".to_owned();
                        }
                    }
                    Err(error) => return error.to_string(),
                }
            }
        }
    }
}
