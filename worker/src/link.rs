//! The worker's end of the link: dials a master, says Hello, carries frames both ways, dials again.
//!
//! Run as one task of the worker's supervisor actor, which says the Hello of each dial, gets every frame as a message and answers
//! through the sender that comes with [`SupervisorMessage::Attached`]. Sends a heartbeat every 300 ms. Failure: the end of the
//! stream, a broken frame or silence is told as `Detached`; the next dial follows after a short pause. All masters are dialled at
//! once, for one that hangs must not hide the one that reigns now.

use std::error::Error;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use millstream_common::address;
use millstream_common::error::chain;
use millstream_common::grpc;
use millstream_common::link::{ToMaster, ToWorker, WorkerHello};
use millstream_common::net::{NetRef, channel};
use millstream_proto::v1;
use millstream_proto::v1::worker_link_client::WorkerLinkClient;
use ractor::{ActorRef, call};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use crate::supervisor_actor::SupervisorMessage;

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(300);
/// Between two dials.
const REDIAL_DELAY: Duration = Duration::from_millis(200);
/// The longest pause after the worker has let go of a master: each joining makes jobs count on it.
const REJOIN_DELAY_MAX: Duration = Duration::from_secs(5);
/// A master that does not answer Hello for this long is not there.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(3);
/// A master that the worker has let go of is dialled again when each of the others has had its chance.
const SHUN_DELAY: Duration = WELCOME_TIMEOUT;
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
    /// Who says Hello and gets the frames.
    pub(crate) supervisor: ActorRef<SupervisorMessage>,
}

/// Keeps a link open until its actor is gone.
pub(crate) async fn keep_link(config: LinkConfig) {
    let mut delay = REDIAL_DELAY;
    let mut shunned = None;
    // Without an actor there is nobody to say Hello.
    while let Some((address, (sender, frames))) = dial_all(&config, shunned).await {
        info!(%address, "attached to the master");
        let end = carry(&config, sender, frames).await;
        // A worker that is ending detaches by itself.
        if config.supervisor.cast(SupervisorMessage::Detached).is_err() {
            return;
        }
        warn!(%address, cause = %end, "detached from the master");
        (delay, shunned) = match end {
            LinkEnd::LetGo => ((delay * 2).min(REJOIN_DELAY_MAX), Some(address)),
            LinkEnd::Lost(_) => (REDIAL_DELAY, None),
        };
        tokio::time::sleep(delay).await;
    }
}

/// Dials every address again and again; the first that says Welcome is taken, `shunned` only if it still is the first after
/// a while: one that has lost its reign without knowing answers as fast as the one that reigns now. `None`: the worker has
/// ended.
async fn dial_all<'a>(
    config: &'a LinkConfig,
    shunned: Option<&'a str>,
) -> Option<(&'a str, Attached)> {
    let addresses = config.addresses.iter();
    let dials = addresses.map(|address| {
        let has_others = config.addresses.len() > 1;
        let is_shunned = has_others && shunned == Some(address);
        let delay = if is_shunned {
            SHUN_DELAY
        } else {
            Duration::ZERO
        };
        dial(config, address, delay)
    });
    let mut dials: FuturesUnordered<_> = dials.collect();
    dials.next().await.flatten()
}

async fn dial<'a>(
    config: &LinkConfig,
    address: &'a str,
    delay: Duration,
) -> Option<(&'a str, Attached)> {
    tokio::time::sleep(delay).await;
    let mut is_known = false;
    loop {
        // What the worker holds is asked anew for each dial, behind all frames of the last link.
        let hello = call!(config.supervisor, SupervisorMessage::Hello).ok()?;
        let hello = reachable(&config.net, address, hello).await;
        match attach(config, address, hello).await {
            Ok(attached) => return Some((address, attached)),
            Err(cause) if is_known => debug!(%address, %cause, "attach to the master"),
            Err(cause) => {
                is_known = true;
                warn!(%address, %cause, "cannot attach to the master; trying on");
            }
        }
        tokio::time::sleep(REDIAL_DELAY).await;
    }
}

/// A worker that listens everywhere is reached by others where this master sees it.
async fn reachable(net: &NetRef, master: &str, hello: WorkerHello) -> WorkerHello {
    if !address::listens_everywhere(&hello.flight_address) {
        return hello;
    }
    match net.local_host(master).await {
        Some(host) => WorkerHello {
            flight_address: address::at_host(&hello.flight_address, &host),
            ..hello
        },
        None => hello,
    }
}

type Attached = (mpsc::Sender<ToMaster>, Streaming<v1::MasterFrame>);

async fn attach(
    config: &LinkConfig,
    address: &str,
    hello: WorkerHello,
) -> Result<Attached, String> {
    let channel = channel(&config.net, address).map_err(|error| chain(&error))?;
    let mut client = WorkerLinkClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING_MAX);
    sender
        .try_send(ToMaster::Hello(hello))
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
        Ok(Err(status)) => Err(in_words(&status, config.net.is_encrypted())),
        Err(_) => Err("no answer to Hello".to_owned()),
    }
}

/// Why a master could not be attached to. One that is reached and does not speak gRPC may speak TLS, which its answer does not say.
fn in_words(status: &Status, is_encrypted: bool) -> String {
    let cause = grpc::in_plain_words(status);
    let is_of_transport = status.source().is_some() && !cause.starts_with("connect to ");
    match is_of_transport && !is_encrypted {
        true => format!("{cause}; where the master speaks TLS, name its authority with --tls-ca"),
        false => cause,
    }
}

/// Why a link has ended.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    /// The supervisor has dropped the sender it was given.
    #[error("the worker has let go of the master")]
    LetGo,
    /// The stream has ended, or cannot be used.
    #[error("{0}")]
    Lost(String),
}

/// Carries frames until the stream ends or the supervisor lets go of it; returns why it did.
///
/// From Welcome on the supervisor's sender is the only one: when it is dropped, the stream to the master ends, so that
/// a worker which does not hear the master any more is no member that jobs count on.
async fn carry(
    config: &LinkConfig,
    sender: mpsc::Sender<ToMaster>,
    mut frames: Streaming<v1::MasterFrame>,
) -> LinkEnd {
    let lost = |cause: &str| LinkEnd::Lost(cause.to_owned());
    let held = sender.downgrade();
    let mut unwelcomed = Some(sender);
    let mut heartbeat = tokio::time::interval(HEARTBEAT_INTERVAL);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {
                let Some(sender) = held.upgrade() else {
                    return LinkEnd::LetGo;
                };
                if let Err(error) = sender.try_send(ToMaster::Heartbeat) {
                    return LinkEnd::Lost(format!("send heartbeat: {error}"));
                }
            }
            frame = frames.message() => {
                let frame = match frame.map(|frame| frame.map(ToWorker::try_from)) {
                    Ok(Some(Ok(frame))) => frame,
                    Ok(Some(Err(error))) => return LinkEnd::Lost(error.to_string()),
                    Ok(None) => return lost("the master closed the link"),
                    Err(status) => return lost(&grpc::in_plain_words(&status)),
                };
                let message = match frame {
                    ToWorker::Welcome { term, storage_url } => match unwelcomed.take() {
                        Some(frames) => SupervisorMessage::Attached { frames, term, storage_url },
                        None => return lost("the master said Welcome twice"),
                    },
                    frame => SupervisorMessage::Frame(Box::new(frame)),
                };
                if config.supervisor.cast(message).is_err() {
                    return lost("the worker is ending");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_what_breaks_below_grpc_on_an_open_network_may_be_tls() {
        let broken = |text: &str| Status::from_error(Box::new(io::Error::other(text)));
        let (frame, refused) = ("frame with invalid size", "connect to master:7070: refused");
        assert!(in_words(&broken(frame), false).ends_with("--tls-ca"));
        assert_eq!(in_words(&broken(frame), true), frame);
        assert_eq!(in_words(&broken(refused), false), refused);
        let told = Status::unavailable("this master stands by");
        assert_eq!(in_words(&told, false), "this master stands by");
    }
}
