//! The gRPC side of the worker link: turns frames into messages to the supervisor, and back.
//!
//! Served by `service`; one call a worker. Owns nothing but the two directions of the stream. Failure: a frame that does not decode,
//! or the end of the stream, ends the session; the supervisor is told and the worker dials again.

use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_common::ids::{Term, WorkerId};
use millstream_common::link::{FrameError, ToMaster, ToWorker, WorkerHello};
use millstream_proto::v1;
use millstream_proto::v1::worker_link_server::WorkerLink;
use ractor::{ActorRef, call};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::supervisor_actor::SupervisorMessage;

/// Frames to one worker that wait to be sent: a few epochs of a thousand jobs.
const FRAMES_WAITING_MAX: usize = 4_096;

/// The service.
pub struct LinkService {
    /// Who is told of everything.
    pub supervisor: ActorRef<SupervisorMessage>,
    /// This master's reign.
    pub term: Term,
    /// What workers are to open.
    pub storage_url: String,
}

#[tonic::async_trait]
impl WorkerLink for LinkService {
    type AttachStream = BoxStream<'static, Result<v1::MasterFrame, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::WorkerFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut frames = request.into_inner();
        let first = frames
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("no Hello"))?;
        let ToMaster::Hello(hello) = ToMaster::try_from(first).map_err(refuse)? else {
            return Err(Status::invalid_argument("the first frame must be Hello"));
        };
        let (sender, receiver) = mpsc::channel(FRAMES_WAITING_MAX);
        let welcome = ToWorker::Welcome {
            term: self.term,
            storage_url: self.storage_url.clone(),
        };
        let session = self.join(hello.clone(), sender, welcome).await?;
        let incoming = listen(self.supervisor.clone(), hello.worker, session, frames);
        let outgoing = tell(receiver);
        // Both directions live in the answer's stream: when the peer goes, both are dropped.
        let merged = futures::stream::select(outgoing, incoming);
        Ok(Response::new(merged.boxed()))
    }
}

impl LinkService {
    async fn join(
        &self,
        hello: WorkerHello,
        frames: mpsc::Sender<ToWorker>,
        welcome: ToWorker,
    ) -> Result<u64, Status> {
        frames
            .try_send(welcome)
            .map_err(|error| Status::internal(error.to_string()))?;
        call!(self.supervisor, |reply| SupervisorMessage::Joined {
            hello,
            frames,
            reply
        })
        .map_err(|error| Status::unavailable(format!("the master is ending: {error}")))
    }
}

/// Tells the supervisor that a session is over, however it ends.
struct Session {
    supervisor: ActorRef<SupervisorMessage>,
    worker: WorkerId,
    session: u64,
}

impl Drop for Session {
    fn drop(&mut self) {
        // A supervisor that is gone needs no telling.
        let _ = self.supervisor.cast(SupervisorMessage::Left {
            worker: self.worker.clone(),
            session: self.session,
        });
    }
}

/// The frames to a worker, and an error behind the last: a worker that counts as lost, or joined again, is no longer
/// heard in this session. It may be alive and only have been slow, so it is told to dial anew.
fn tell(frames: mpsc::Receiver<ToWorker>) -> BoxStream<'static, Result<v1::MasterFrame, Status>> {
    let frames =
        ReceiverStream::new(frames).map(|frame| v1::MasterFrame::try_from(frame).map_err(refuse));
    let over = Status::aborted("the master ended this session: it ends, or counted this worker as lost");
    frames.chain(futures::stream::iter([Err(over)])).boxed()
}

/// Hands the worker's frames to the supervisor as they come. Yields nothing but the error that ends it.
fn listen(
    supervisor: ActorRef<SupervisorMessage>,
    worker: WorkerId,
    session: u64,
    frames: Streaming<v1::WorkerFrame>,
) -> BoxStream<'static, Result<v1::MasterFrame, Status>> {
    let session = Session {
        supervisor,
        worker,
        session,
    };
    let stream = futures::stream::unfold(Some((frames, session)), |state| async {
        let (mut frames, session) = state?;
        loop {
            let frame = match frames.message().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Some((Err(Status::ok("the worker has left")), None)),
                Err(status) => return Some((Err(status), None)),
            };
            let frame = match ToMaster::try_from(frame) {
                Ok(frame) => frame,
                Err(error) => return Some((Err(refuse(error)), None)),
            };
            let told = session.supervisor.cast(SupervisorMessage::Frame {
                worker: session.worker.clone(),
                session: session.session,
                frame: Box::new(frame),
            });
            if told.is_err() {
                return Some((Err(Status::unavailable("the master is ending")), None));
            }
        }
    });
    stream.boxed()
}

fn refuse(error: FrameError) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_is_given_up_is_told_so() {
        let (sender, receiver) = mpsc::channel(1);
        let mut frames = tell(receiver);
        let welcome = ToWorker::Welcome {
            term: Term(1),
            storage_url: "file:///x".to_owned(),
        };
        sender.try_send(welcome).expect("room");
        assert!(matches!(frames.next().await, Some(Ok(_))));
        // What the registry does with a silent worker.
        drop(sender);
        assert!(matches!(frames.next().await, Some(Err(_))));
        assert!(frames.next().await.is_none());
    }
}
