//! The sending end of remote edges: dials other workers and sends over Flight's DoExchange, one call an edge.
//!
//! Used by a pipeline while it is wired: [`ExchangeDialer::open_all`] gives an [`EdgeSender`] for each edge. The edges
//! to one worker share a connection. Batches wait for credit before they are encoded; a task in the pipeline's
//! `JoinSet` reads the credits that come back.
//! Failure: a dial that is refused or not answered in time is a [`DialError`]; an edge that breaks later is closed,
//! which ends waiting sends, and reported once as [`PeerLost`]. Nothing is resent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_flight::FlightData;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::future::{BoxFuture, try_join_all};
use futures::{StreamExt, stream};
use millstream_common::error::{Kind, chain};
use millstream_common::grpc;
use millstream_common::ids::{Generation, JobName, WorkerId};
use millstream_common::net::{Channel, NetRef, channel};
use millstream_common::plan::PlanSchema;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::credit::{CreditPermit, EdgeCredits};
use super::message::{BarrierKind, EdgeBarrier, EdgeId, OnLost, PeerLost};
use super::registry::REGISTER_WAIT;
use super::sender::{EdgeSender, SendError};
use super::wire::{self, Answer, BatchEncoder, ENCODED_BATCH_BYTES_MAX, ExchangeHello};
use millstream_common::task;

/// How long a dialled peer may take to accept an edge: its wait for the edge's registration, and the way there and back.
pub const ANSWER_WAIT: Duration = REGISTER_WAIT.saturating_add(Duration::from_secs(5));

/// Encoded messages between a sender and its connection. Two: one is being written while the next is encoded.
const WIRE_MESSAGES: usize = 2;

/// An edge that begins in this worker and ends in another.
pub struct OutgoingEdge {
    /// Which one.
    pub edge: EdgeId,
    /// The worker it ends in.
    pub peer: WorkerId,
    /// That worker's Flight address, `host:port`.
    pub address: String,
    /// Of every batch on it.
    pub schema: SchemaRef,
}

/// An edge that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("open edge {edge} to worker {peer} at {address}: {cause}")]
pub struct DialError {
    /// The edge.
    pub edge: EdgeId,
    /// The worker it ends in.
    pub peer: WorkerId,
    /// Where that worker was looked for.
    pub address: String,
    /// What went wrong.
    pub cause: String,
    /// Who has to act.
    pub kind: Kind,
}

/// Dials peers for one pipeline.
pub struct ExchangeDialer {
    /// The way out.
    pub net: NetRef,
    /// This worker, as peers name it in their errors.
    pub worker: WorkerId,
    /// The pipeline's job.
    pub job: JobName,
    /// The pipeline's generation.
    pub generation: Generation,
    /// How long a peer may take to accept an edge: [`ANSWER_WAIT`].
    pub answer_wait: Duration,
}

impl ExchangeDialer {
    /// Opens all edges side by side, in this order; returns once every peer has accepted. `tasks` get one task an
    /// edge that ends with it; `on_lost` is called once for each edge that breaks before its stop barrier was
    /// taken.
    ///
    /// # Errors
    /// The first edge that cannot be opened.
    pub async fn open_all(
        &self,
        edges: Vec<OutgoingEdge>,
        on_lost: &OnLost,
        tasks: &mut JoinSet<()>,
    ) -> Result<Vec<EdgeSender>, DialError> {
        let mut channels = BTreeMap::new();
        for outgoing in &edges {
            if !channels.contains_key(&outgoing.address) {
                let channel = channel(&self.net, &outgoing.address)
                    .map_err(|error| outgoing.error(Kind::Internal, chain(&error)))?;
                channels.insert(outgoing.address.clone(), channel);
            }
        }
        let opens = edges.into_iter().map(|outgoing| {
            let channel = channels[&outgoing.address].clone();
            self.open(outgoing, channel, on_lost.clone())
        });
        let mut senders = Vec::new();
        for (sender, credits_task) in try_join_all(opens).await? {
            tasks.spawn(credits_task);
            senders.push(sender);
        }
        Ok(senders)
    }

    async fn open(
        &self,
        outgoing: OutgoingEdge,
        channel: Channel,
        on_lost: OnLost,
    ) -> Result<(EdgeSender, BoxFuture<'static, ()>), DialError> {
        let (wire, answers, budget_bytes) =
            tokio::time::timeout(self.answer_wait, self.call(&outgoing, channel))
                .await
                .unwrap_or_else(|_| {
                    let seconds = self.answer_wait.as_secs();
                    let cause = format!("no answer within {seconds} s");
                    Err(outgoing.error(Kind::External, cause))
                })?;
        let credits = EdgeCredits::new(budget_bytes);
        let stopped = Arc::new(AtomicBool::new(false));
        let reader = CreditReader {
            edge: outgoing.edge,
            peer: outgoing.peer,
            answers,
            credits: credits.clone(),
            stopped: stopped.clone(),
            on_lost,
        };
        let outlet = RemoteOutlet {
            edge: outgoing.edge,
            schema: outgoing.schema,
            encoder: BatchEncoder::default(),
            wire: Some(wire),
            stopped,
        };
        let sender = EdgeSender::remote(outgoing.edge, credits, outlet);
        Ok((sender, Box::pin(reader.run())))
    }

    async fn call(
        &self,
        outgoing: &OutgoingEdge,
        channel: Channel,
    ) -> Result<(mpsc::Sender<FlightData>, Streaming<FlightData>, u32), DialError> {
        let hello = ExchangeHello {
            job: self.job.clone(),
            generation: self.generation,
            edge: outgoing.edge,
            worker: self.worker.clone(),
            schema: PlanSchema(outgoing.schema.clone()),
        };
        let hello = wire::write_hello(&hello)
            .map_err(|error| outgoing.error(Kind::Internal, chain(&error)))?;
        let (wire, messages) = mpsc::channel(WIRE_MESSAGES);
        let outbound = stream::once(async { hello }).chain(ReceiverStream::new(messages));
        let mut answers = FlightServiceClient::new(channel)
            .do_exchange(outbound)
            .await
            .map_err(|status| outgoing.refused(&status))?
            .into_inner();
        let first = answers.message().await;
        let first = first.map_err(|status| outgoing.refused(&status))?;
        match first.as_ref().map(wire::read_answer) {
            Some(Ok(Answer::Accepted { budget_bytes })) if budget_bytes > 0 => {
                Ok((wire, answers, budget_bytes))
            }
            _ => {
                let cause = "the peer does not answer as a worker does".to_owned();
                Err(outgoing.error(Kind::Internal, cause))
            }
        }
    }
}

impl OutgoingEdge {
    fn error(&self, kind: Kind, cause: String) -> DialError {
        DialError {
            edge: self.edge,
            peer: self.peer.clone(),
            address: self.address.clone(),
            cause,
            kind,
        }
    }

    /// Peers that are gone, late or of another generation are a matter of time; the rest are defects.
    fn refused(&self, status: &Status) -> DialError {
        let kind = match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists => Kind::Internal,
            _ => Kind::External,
        };
        self.error(kind, grpc::in_plain_words(status))
    }
}

/// Where an [`EdgeSender`] puts what goes to another worker.
pub(super) struct RemoteOutlet {
    edge: EdgeId,
    schema: SchemaRef,
    encoder: BatchEncoder,
    /// `None` behind the stop barrier: closing it tells the peer that this is all.
    wire: Option<mpsc::Sender<FlightData>>,
    /// Set when the stop barrier goes out.
    stopped: Arc<AtomicBool>,
}

impl RemoteOutlet {
    pub(super) async fn send_batch(
        &mut self,
        batch: &RecordBatch,
        permit: CreditPermit,
    ) -> Result<(), SendError> {
        if batch.schema_ref().fields() != self.schema.fields() {
            return Err(SendError::Schema {
                edge: self.edge,
                expected: self.schema.clone(),
                found: batch.schema(),
            });
        }
        let encoded = self.encoder.encode(batch, permit.bytes());
        let data = encoded.map_err(|error| self.broken(error))?;
        let bytes = data.data_header.len() + data.data_body.len();
        if bytes > ENCODED_BATCH_BYTES_MAX {
            return Err(SendError::TooLarge {
                edge: self.edge,
                bytes,
                bytes_max: ENCODED_BATCH_BYTES_MAX,
            });
        }
        self.put(data).await?;
        permit.into_wire();
        Ok(())
    }

    pub(super) async fn send_barrier(&mut self, barrier: &EdgeBarrier) -> Result<(), SendError> {
        let data = wire::write_barrier(barrier).map_err(|error| self.broken(error))?;
        let is_last = barrier.kind == BarrierKind::Stop;
        if is_last {
            self.stopped.store(true, Ordering::Release);
        }
        self.put(data).await?;
        if is_last {
            self.wire = None;
        }
        Ok(())
    }

    async fn put(&self, data: FlightData) -> Result<(), SendError> {
        let closed = SendError::Closed { edge: self.edge };
        match &self.wire {
            Some(wire) => wire.send(data).await.map_err(|_| closed),
            None => Err(closed),
        }
    }

    fn broken(&self, error: wire::WireError) -> SendError {
        SendError::Encode {
            edge: self.edge,
            cause: match error {
                wire::WireError::Batch(cause) => cause,
                other => ArrowError::ExternalError(Box::new(other)),
            },
        }
    }
}

/// Reads what a peer answers on one edge, until the edge ends.
struct CreditReader {
    edge: EdgeId,
    peer: WorkerId,
    answers: Streaming<FlightData>,
    credits: EdgeCredits,
    stopped: Arc<AtomicBool>,
    on_lost: OnLost,
}

impl CreditReader {
    async fn run(mut self) {
        let lost = match task::caught(self.read()).await {
            Ok(read) => read.err(),
            Err(panicked) => Some(panicked.to_string()),
        };
        self.credits.close();
        if let Some(cause) = lost {
            let (edge, peer) = (self.edge, self.peer);
            (self.on_lost)(PeerLost { edge, peer, cause });
        }
    }

    /// `Ok` once the peer has taken the stop barrier.
    async fn read(&mut self) -> Result<(), String> {
        loop {
            let Some(data) = self
                .answers
                .message()
                .await
                .map_err(|status| grpc::in_plain_words(&status))?
            else {
                return match self.stopped.load(Ordering::Acquire) {
                    true => Ok(()),
                    false => Err("it ended the edge before the stop barrier".to_owned()),
                };
            };
            match wire::read_answer(&data).map_err(|error| chain(&error))? {
                Answer::Credit { bytes } => self
                    .credits
                    .give_back(bytes)
                    .map_err(|error| error.to_string())?,
                Answer::Accepted { .. } => return Err("it accepted the edge twice".to_owned()),
            }
        }
    }
}
