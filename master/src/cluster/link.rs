//! The gRPC side of the worker link: turns frames into messages to the supervisor, and back.
//!
//! Served by `service`; one call a worker. Owns nothing but the two directions of the stream. Failure: a frame that does not decode,
//! or the end of the stream, ends the session; the supervisor is told and the worker dials again.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_common::grpc;
use millstream_common::ids::WorkerId;
use millstream_common::link::{FrameError, ToMaster, ToWorker, WorkerHello};
use millstream_proto::v1;
use millstream_proto::v1::worker_link_server::WorkerLink;
use ractor::{ActorRef, call};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::registry;
use crate::reign::role::Roles;
use crate::supervisor::supervisor_actor::SupervisorMessage;

/// Frames to one worker that wait to be sent: a few epochs of a thousand jobs.
const FRAMES_WAITING_MAX: usize = 4_096;

/// The service.
pub struct LinkService {
    /// Who is told of everything, while this master reigns.
    pub roles: Roles,
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
        let active = self.roles.active();
        let active = active.map_err(|error| grpc::to_status(&error))?;
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
            term: active.term,
            storage_url: self.storage_url.clone(),
        };
        let session = join(&active.supervisor, hello.clone(), sender, welcome).await?;
        let incoming = listen(active.supervisor, hello.worker, session.number, frames);
        let over = stream::once(session.over).map(|reason| Err(over(reason.ok())));
        let outgoing = ReceiverStream::new(receiver)
            .map(|frame| v1::MasterFrame::try_from(frame).map_err(refuse));
        // Both directions live in the answer's stream: when the peer goes, or the registry gives the
        // session up, both are dropped, for a stream of answers ends with its first error.
        let merged = stream::select(stream::select(outgoing, incoming), over);
        Ok(Response::new(merged.boxed()))
    }
}

async fn join(
    supervisor: &ActorRef<SupervisorMessage>,
    hello: WorkerHello,
    frames: mpsc::Sender<ToWorker>,
    welcome: ToWorker,
) -> Result<registry::Session, Status> {
    frames
        .try_send(welcome)
        .map_err(|error| Status::internal(error.to_string()))?;
    call!(supervisor, |reply| SupervisorMessage::Joined {
        hello,
        frames,
        reply
    })
    .map_err(|error| Status::unavailable(format!("the master is ending: {error}")))?
    .map_err(|taken| Status::already_exists(taken.to_string()))
}

fn over(reason: Option<String>) -> Status {
    let reason = reason.unwrap_or_else(|| "the master's reign is over".to_owned());
    Status::unavailable(reason)
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
    let stream = stream::unfold(Some((frames, session)), |state| async {
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
