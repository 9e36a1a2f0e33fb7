//! Preview: the rows of a relation of a running job, from the workers that have them to the client that asked.
//!
//! Called by the control API. [`relations`] finds the relation in the job, [`tapped_workers`] asks each worker for its rows. The master
//! passes them on, because clients reach masters and not workers; it keeps none, and looks at none. A preview is driven by its answer
//! stream, with no task of its own, and ends with the generation that it was asked of. Keeps INV-9: at most [`PREVIEWS_MAX`] at once.
//! Failure: a relation that cannot be shown is refused with those that can; a worker that goes ends the preview.

mod relations;
mod tapped_workers;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_common::control::{ControlError, PreviewColumn, PreviewHeader, PreviewPart};
use millstream_common::net::NetRef;
use millstream_common::preview::Ticket;
use tokio::sync::Semaphore;

use crate::job::placed::Placed;
use crate::plan::{PlannedJob, Tapped, types};

/// Previews at once, of all clients of this master.
const PREVIEWS_MAX: usize = 32;

/// The messages of a preview: its header, rows, and at the end why there are no more.
pub type Previewed = BoxStream<'static, Result<PreviewPart, ControlError>>;

/// Opens previews.
pub struct PreviewDesk {
    /// The way to workers.
    net: NetRef,
    open: Arc<Semaphore>,
}

impl PreviewDesk {
    /// With the way to workers.
    pub fn new(net: NetRef) -> Self {
        Self {
            net,
            open: Arc::new(Semaphore::new(PREVIEWS_MAX)),
        }
    }

    /// Shows `relation` of a job. `planned` is what its SQL is planned to now, if that can be said.
    pub async fn open(
        &self,
        placed: Placed,
        planned: Option<&PlannedJob>,
        relation: &str,
    ) -> Result<Previewed, ControlError> {
        let permit = self.open.clone().try_acquire_owned();
        let permit = permit.map_err(|_| ControlError::Unavailable {
            cause: format!("{PREVIEWS_MAX} previews are open at this master already"),
            active: None,
        })?;
        let (relation, tapped) = relations::find(&placed, planned, relation)?;
        let header = header(&placed, relation, &tapped);
        let ticket = Ticket {
            job: placed.job,
            generation: placed.generation,
            taps: tapped.taps,
        };
        let rows = tapped_workers::open(&self.net, &placed.workers, &ticket).await?;
        let rows = rows.map(move |rows| {
            // The place is free again when the stream is gone.
            let _held = &permit;
            rows.map(PreviewPart::Rows)
        });
        let header = stream::once(async { Ok(PreviewPart::Header(header)) });
        Ok(header.chain(rows).boxed())
    }
}

fn header(placed: &Placed, relation: String, tapped: &Tapped) -> PreviewHeader {
    let fields = tapped.taps.iter().take(1);
    let fields = fields.flat_map(|tap| tap.schema.0.fields());
    PreviewHeader {
        relation,
        generation: placed.generation,
        is_changelog: tapped.is_changelog,
        columns: fields
            .map(|field| PreviewColumn {
                name: field.name().clone(),
                sql_type: types::type_name(field.data_type()),
            })
            .collect(),
        left_out: tapped.left_out.clone(),
        workers: placed.workers.keys().cloned().collect(),
    }
}
