//! The way to the rows: one call of Flight's DoGet at each worker, all at once, and their messages as they come.
//!
//! Called by the desk. Each worker answers with an Arrow schema, then rows with marks beside them; they are passed on as Arrow streams
//! that each stand alone. Failure: a worker that cannot be asked refuses the preview, one that ends ends it; both may be gone a moment
//! later, so the client is told to ask again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::utils::flight_data_to_arrow_batch;
use arrow_flight::{FlightData, Ticket as FlightTicket};
use futures::future::try_join_all;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use millstream_common::control::{ControlError, PreviewRows};
use millstream_common::error::chain;
use millstream_common::ids::WorkerId;
use millstream_common::net::{NetRef, channel};
use millstream_common::preview::{Marks, Ticket};
use millstream_common::{grpc, ipc};
use tonic::{Code, Status, Streaming};

/// A worker has this long to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The largest message that is taken from a worker; it cuts them far below.
const MESSAGE_BYTES_MAX: usize = 12 << 20;

/// The rows of a preview.
type Rows = BoxStream<'static, Result<PreviewRows, ControlError>>;

/// Rows of all workers as they come; the first error is the last item.
pub(super) async fn open(
    net: &NetRef,
    workers: &BTreeMap<WorkerId, String>,
    ticket: &Ticket,
) -> Result<Rows, ControlError> {
    let ticket = serde_json::to_vec(ticket)
        .map_err(|error| ControlError::Internal(format!("write ticket: {error}")))?;
    let asked = workers
        .iter()
        .map(|(worker, address)| ask(net, worker, address, ticket.clone()));
    let streams = try_join_all(asked).await?;
    let rows = stream::select_all(streams);
    // The others are of no use once one has ended: the job is placed anew.
    let until_first_error = rows.scan(false, |has_failed, rows| {
        let item = (!*has_failed).then_some(rows);
        *has_failed |= item.as_ref().is_none_or(Result::is_err);
        std::future::ready(item)
    });
    Ok(until_first_error.boxed())
}

async fn ask(
    net: &NetRef,
    worker: &WorkerId,
    address: &str,
    ticket: Vec<u8>,
) -> Result<Rows, ControlError> {
    let gone = |cause: &str| unavailable(worker, cause);
    let channel = channel(net, address).map_err(|error| gone(&chain(&error)))?;
    let mut client = FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let opened = async {
        let answer = client.do_get(FlightTicket::new(ticket)).await?;
        let mut messages = answer.into_inner();
        let first = messages.message().await?;
        Ok::<_, Status>((first, messages))
    };
    let opened = tokio::time::timeout(ANSWER_WAIT, opened).await;
    let opened = opened.map_err(|_| gone("no answer to a preview"))?;
    let (first, messages) = opened.map_err(|status| refused(worker, &status))?;
    let first = first.ok_or_else(|| gone("its tasks have ended"))?;
    let schema = Schema::try_from(&first).map_err(|error| broken(worker, &error))?;
    Ok(answered(worker.clone(), SchemaRef::new(schema), messages))
}

/// What a worker says of its rows, and that it has ended.
fn answered(worker: WorkerId, schema: SchemaRef, messages: Streaming<FlightData>) -> Rows {
    let ended = unavailable(&worker, "its tasks have ended");
    let from = worker.clone();
    let messages = messages.map_err(move |status| refused(&from, &status));
    let rows = messages.map(move |data| rows_of(&worker, &schema, &data?));
    rows.chain(stream::once(async { Err(ended) })).boxed()
}

fn rows_of(
    worker: &WorkerId,
    schema: &SchemaRef,
    data: &FlightData,
) -> Result<PreviewRows, ControlError> {
    let marks: Marks =
        serde_json::from_slice(&data.app_metadata).map_err(|error| broken(worker, &error))?;
    let arrow_stream = match data.data_header.is_empty() {
        true => Vec::new(),
        false => {
            let batch = flight_data_to_arrow_batch(data, schema.clone(), &HashMap::new());
            let batch = batch.map_err(|error| broken(worker, &error))?;
            let encoded = ipc::encode("preview", schema, &[batch]);
            let encoded = encoded.map_err(|error| broken(worker, &error))?;
            encoded.bytes.to_vec()
        }
    };
    Ok(PreviewRows {
        worker: worker.clone(),
        arrow_stream,
        skipped_rows: marks.skipped_rows,
    })
}

fn unavailable(worker: &WorkerId, cause: &str) -> ControlError {
    ControlError::Unavailable {
        cause: format!("worker {worker}: {cause}"),
        active: None,
    }
}

fn broken(worker: &WorkerId, error: &dyn std::error::Error) -> ControlError {
    ControlError::Internal(format!("preview at worker {worker}: {}", chain(error)))
}

/// A worker that takes no such ticket is a defect; everything else is a matter of time.
fn refused(worker: &WorkerId, status: &Status) -> ControlError {
    let cause = grpc::in_plain_words(status);
    match status.code() {
        Code::InvalidArgument | Code::Internal => {
            ControlError::Internal(format!("preview at worker {worker}: {cause}"))
        }
        _ => unavailable(worker, &cause),
    }
}
