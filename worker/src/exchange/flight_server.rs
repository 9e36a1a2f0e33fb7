//! The receiving end of remote edges: Flight's DoExchange, one call an edge. Beside it DoGet, by which masters look at rows ([`crate::preview`]).
//!
//! Dialled by `flight_client.rs` of other workers. Each edge is read at once and delivered into the mailbox of its task,
//! whether that task keeps up or not: what may be on the way is bounded by the edge's credits, so a blocked edge
//! never fills the connection that it shares with others. Credits go back on the answer stream, as the task drops its
//! permits. The session is driven by its answer stream: no task of its own.
//! Keeps INV-9, against peers that send without credit too.
//! Failure: an edge that ends before its stop barrier is reported as lost, once, and is not taken up again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use millstream_common::error::chain;
use millstream_common::ids::WorkerId;
use millstream_common::net::tls::WORKER_NAME;
use millstream_common::net::{KEEPALIVE_INTERVAL, Listener, Peer};
use millstream_common::preview;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming, async_trait};
use tonic_health::pb::health_server::{Health, HealthServer};

use super::credit::{CreditPermit, CreditReturns};
use super::message::{BarrierKind, EdgeBatch, OwnedRows, PeerLost, StreamMessage};
use super::registry::{ClaimError, ClaimedEdge, EdgeRegistry};
use super::wire::{self, Answer, Frame, MESSAGE_BYTES_MAX};
use crate::preview::board::{OpenError, TapBoard};

/// How long a peer that has dialled may take to say which edge it wants.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// Edges between two workers share a connection; more than this many are a mistake.
const EDGES_PER_CONNECTION_MAX: u32 = 1 << 16;
/// HTTP/2's defaults of 64 KiB would send a 1 MiB batch in many round trips.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Serves `flight`, and the worker's health beside it, on `listener` until `shutdown`; streams that are open then end with their registrations.
///
/// # Errors
/// Where the listener cannot be served.
pub async fn serve(
    listener: Listener,
    flight: FlightServiceServer<FlightEndpoint>,
    health: HealthServer<impl Health>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_INTERVAL))
        .max_concurrent_streams(EDGES_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(flight)
        .add_service(health)
        .serve_with_incoming_shutdown(listener.incoming, shutdown)
        .await
}

/// The Flight service of a worker with these edges and taps.
pub fn service(
    registry: Arc<EdgeRegistry>,
    taps: Arc<TapBoard>,
) -> FlightServiceServer<FlightEndpoint> {
    FlightServiceServer::new(FlightEndpoint { registry, taps })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// Flight as this worker speaks it: DoExchange for edges, DoGet for previews.
pub struct FlightEndpoint {
    registry: Arc<EdgeRegistry>,
    taps: Arc<TapBoard>,
}

impl FlightEndpoint {
    async fn open(&self, mut inbound: Streaming<FlightData>) -> Result<Session, Status> {
        let first = tokio::time::timeout(HELLO_WAIT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no first message"))??
            .ok_or_else(|| Status::invalid_argument("no first message"))?;
        let hello =
            wire::read_hello(&first).map_err(|error| Status::invalid_argument(chain(&error)))?;
        let claimed = self.registry.claim(&hello).await.map_err(refusal)?;
        Ok(Session {
            claimed,
            peer: hello.worker,
            inbound,
            returns: Arc::default(),
            unreturned_bytes: 0,
            stopped: false,
            end: None,
        })
    }
}

fn refusal(error: ClaimError) -> Status {
    let text = error.to_string();
    match error {
        ClaimError::Stale { .. } => Status::failed_precondition(text),
        ClaimError::Unknown { .. } => Status::not_found(text),
        ClaimError::Taken { .. } => Status::already_exists(text),
        ClaimError::Schema { .. } => Status::invalid_argument(text),
        ClaimError::NotStarted { .. } => Status::unavailable(text),
    }
}

fn no_preview(error: &OpenError) -> Status {
    let text = chain(error);
    match error {
        OpenError::NotHere { .. } => Status::aborted(text),
        OpenError::TooMany => Status::resource_exhausted(text),
        OpenError::Malformed(_) | OpenError::Unknown { .. } | OpenError::Build(_) => {
            Status::invalid_argument(text)
        }
    }
}

/// Masters may look at rows, but only workers send any. Who shows no certificate stands in a network that asks for none.
fn only_workers<T>(request: &Request<T>) -> Result<(), Status> {
    let peer = request.extensions().get::<Peer>();
    let certificate = peer.and_then(|peer| peer.certificate.as_ref());
    match certificate.is_none_or(|certificate| certificate.bears(WORKER_NAME)) {
        true => Ok(()),
        false => Err(Status::permission_denied("only workers send rows")),
    }
}

/// One open edge.
struct Session {
    claimed: ClaimedEdge,
    peer: WorkerId,
    inbound: Streaming<FlightData>,
    returns: Arc<CreditReturns>,
    /// Credit that came with batches and was not sent back yet; at most the edge's budget.
    unreturned_bytes: u64,
    /// The stop barrier was delivered: the peer may go.
    stopped: bool,
    end: Option<End>,
}

/// How a session ended.
enum End {
    /// After the stop barrier, or because this worker's pipeline is gone.
    Orderly,
    Lost(String),
}

impl Session {
    /// The answers, which drive the session: it delivers what comes in while it waits for credit to return.
    fn answers(self) -> BoxStream<'static, Result<FlightData, Status>> {
        let budget_bytes = self.claimed.incoming.budget_bytes;
        let accepted = stream::once(async move { Ok(Answer::Accepted { budget_bytes }) });
        let credits = stream::unfold(self, |mut session| async move {
            let answer = session.next().await?;
            Some((answer, session))
        });
        let encode = |answer| async move {
            wire::write_answer(answer).map_err(|error| Status::internal(chain(&error)))
        };
        accepted.chain(credits).and_then(encode).boxed()
    }

    async fn next(&mut self) -> Option<Result<Answer, Status>> {
        while self.end.is_none() {
            tokio::select! {
                biased;
                _ = self.claimed.alive.changed() => {
                    self.end = Some(End::Orderly);
                    return Some(Err(Status::aborted("the generation has ended here")));
                }
                bytes = self.returns.take() => {
                    self.unreturned_bytes -= bytes;
                    let bytes = u32::try_from(bytes).expect("no more returns than the budget");
                    return Some(Ok(Answer::Credit { bytes }));
                }
                received = self.inbound.message() => match received {
                    Ok(Some(data)) => {
                        if let Err(refused) = self.receive(&data) {
                            return Some(Err(refused));
                        }
                    }
                    Ok(None) if self.stopped => self.end = Some(End::Orderly),
                    Ok(None) => return Some(Err(self.lose("it ended before its stop barrier"))),
                    Err(status) => return Some(Err(self.lose(status.message()))),
                },
            }
        }
        None
    }

    fn receive(&mut self, data: &FlightData) -> Result<(), Status> {
        if self.stopped {
            return Err(self.lose("it sent a message behind its stop barrier"));
        }
        let message = match self.read(data) {
            Ok(message) => message,
            Err(cause) => return Err(self.lose(&cause)),
        };
        if let StreamMessage::Barrier(barrier) = &message {
            self.stopped = barrier.kind == BarrierKind::Stop;
        }
        let incoming = &self.claimed.incoming;
        if (incoming.deliver)(incoming.edge, message).is_err() {
            self.end = Some(End::Orderly);
            return Err(Status::aborted("the receiving task is gone"));
        }
        Ok(())
    }

    fn read(&mut self, data: &FlightData) -> Result<StreamMessage, String> {
        let incoming = &self.claimed.incoming;
        let credit_bytes = match wire::read_frame(data).map_err(|error| chain(&error))? {
            Frame::Barrier(barrier) => return Ok(StreamMessage::Barrier(barrier)),
            Frame::Batch { credit_bytes } => credit_bytes,
        };
        let batch = wire::read_batch(data, &incoming.schema).map_err(|error| chain(&error))?;
        let unreturned_bytes = self.unreturned_bytes + u64::from(credit_bytes);
        if credit_bytes == 0 || unreturned_bytes > u64::from(incoming.budget_bytes) {
            return Err("it sent a batch without credit".to_owned());
        }
        self.unreturned_bytes = unreturned_bytes;
        let permit = CreditPermit::remote(credit_bytes, self.returns.clone());
        let rows = OwnedRows::whole(batch);
        Ok(StreamMessage::Batch(EdgeBatch { rows, permit }))
    }

    fn lose(&mut self, cause: &str) -> Status {
        self.end = Some(End::Lost(cause.to_owned()));
        Status::aborted(cause)
    }
}

/// A connection that breaks drops the answer stream without asking it again, so the loss is reported here.
impl Drop for Session {
    fn drop(&mut self) {
        let cause = match self.end.take() {
            Some(End::Orderly) => return,
            Some(End::Lost(cause)) => cause,
            None if self.claimed.alive.has_changed().is_err() => return,
            None => "the connection broke".to_owned(),
        };
        (self.claimed.on_lost)(PeerLost {
            edge: self.claimed.incoming.edge,
            peer: self.peer.clone(),
            cause,
        });
    }
}

fn unserved<T>(method: &str) -> Result<Response<T>, Status> {
    let text = format!("{method} is not served by a worker");
    Err(Status::unimplemented(text))
}

#[async_trait]
impl FlightService for FlightEndpoint {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        only_workers(&request)?;
        let session = self.open(request.into_inner()).await?;
        Ok(Response::new(session.answers()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        unserved("Handshake")
    }

    async fn list_flights(
        &self,
        _: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        unserved("ListFlights")
    }

    async fn get_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        unserved("GetFlightInfo")
    }

    async fn poll_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        unserved("PollFlightInfo")
    }

    async fn get_schema(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        unserved("GetSchema")
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let ticket = serde_json::from_slice::<preview::Ticket>(&request.into_inner().ticket)
            .map_err(|error| Status::invalid_argument(format!("read ticket: {error}")))?;
        let reading = self
            .taps
            .open(&ticket)
            .map_err(|error| no_preview(&error))?;
        Ok(Response::new(reading.messages()))
    }

    async fn do_put(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        unserved("DoPut")
    }

    async fn do_action(
        &self,
        _: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        unserved("DoAction")
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        unserved("ListActions")
    }
}
