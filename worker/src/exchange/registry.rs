//! The incoming remote edges of a worker: pipelines register them, `flight_server.rs` claims them for peers that dial.
//!
//! One a worker. Pipelines of one job start on several workers at the same moment, so a peer may dial before its edge is
//! registered: it waits, for a bounded time. Keeps INV-4: an edge of an older generation than the newest one ever
//! registered here is refused at once, and each edge is claimed once.
//! Failure: a `ClaimError` that says what the peer did wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use millstream_common::ids::{Generation, JobName};
use tokio::sync::watch;

use super::message::{Deliver, EdgeId, OnLost};
use super::wire::ExchangeHello;

/// How long a peer that dials early waits for its edge. Longer than a deployment takes to reach all workers.
pub const REGISTER_WAIT: Duration = Duration::from_secs(10);

/// An edge that ends in this worker and begins in another.
pub struct IncomingEdge {
    /// Which one.
    pub edge: EdgeId,
    /// Of every batch on it.
    pub schema: SchemaRef,
    /// The most that may be on its way or unfolded.
    pub budget_bytes: u32,
    /// The receiving task's mailbox.
    pub deliver: Deliver,
}

/// A generation that cannot be registered, because a newer one was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("register edges of job {job}: generation {generation} is stale, {newest} was registered")]
pub struct StaleGeneration {
    /// The job.
    pub job: JobName,
    /// What was to be registered.
    pub generation: Generation,
    /// The newest so far.
    pub newest: Generation,
}

/// The registered edges of all pipelines of a worker.
pub struct EdgeRegistry {
    jobs: Mutex<BTreeMap<JobName, JobEdges>>,
    /// Told of each registration.
    registered: watch::Sender<()>,
    wait: Duration,
}

/// The edges of a job's newest generation here; nothing is left of older ones but that they are older.
struct JobEdges {
    newest: Generation,
    /// `None` once the registration was dropped.
    open: Option<OpenEdges>,
}

struct OpenEdges {
    /// `None` once claimed.
    edges: BTreeMap<EdgeId, Option<IncomingEdge>>,
    on_lost: OnLost,
    /// Ends when the registration is dropped.
    alive: watch::Receiver<()>,
}

/// Keeps a generation's edges open; dropping it ends their streams without reporting a loss.
pub struct RegisteredEdges {
    registry: Arc<EdgeRegistry>,
    job: JobName,
    generation: Generation,
    /// Dropped with the registration, which is what the streams wait for.
    _alive: watch::Sender<()>,
}

/// An edge handed to the stream that serves it.
pub(super) struct ClaimedEdge {
    pub(super) incoming: IncomingEdge,
    pub(super) on_lost: OnLost,
    /// `changed` fails when the registration is gone.
    pub(super) alive: watch::Receiver<()>,
}

/// Why a peer does not get an edge.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClaimError {
    #[error("generation {generation} of job {job} is stale or has ended here")]
    Stale {
        job: JobName,
        generation: Generation,
    },
    #[error("edge {edge} does not end here")]
    Unknown { edge: EdgeId },
    #[error("edge {edge} was dialled already")]
    Taken { edge: EdgeId },
    #[error("edge {edge} has another schema here")]
    Schema { edge: EdgeId },
    #[error("generation {generation} of job {job} was not started here within {seconds} s")]
    NotStarted {
        job: JobName,
        generation: Generation,
        seconds: u64,
    },
}

impl EdgeRegistry {
    /// Without edges. `wait` is how long early peers wait: [`REGISTER_WAIT`].
    pub fn new(wait: Duration) -> Arc<Self> {
        Arc::new(Self {
            jobs: Mutex::default(),
            registered: watch::Sender::new(()),
            wait,
        })
    }

    /// Opens the incoming edges of a pipeline, before or after their peers dial. `on_lost` is called once for
    /// each edge whose peer goes away before its stop barrier.
    ///
    /// # Errors
    /// [`StaleGeneration`] if this generation or a newer one was registered before.
    pub fn register(
        self: &Arc<Self>,
        job: &JobName,
        generation: Generation,
        edges: Vec<IncomingEdge>,
        on_lost: OnLost,
    ) -> Result<RegisteredEdges, StaleGeneration> {
        let (alive_sender, alive) = watch::channel(());
        let slots = edges.into_iter().map(|edge| (edge.edge, Some(edge)));
        let open = OpenEdges {
            edges: slots.collect(),
            on_lost,
            alive,
        };
        let mut jobs = self.lock();
        if let Some(known) = jobs.get(job)
            && known.newest >= generation
        {
            return Err(StaleGeneration {
                job: job.clone(),
                generation,
                newest: known.newest,
            });
        }
        let newest = JobEdges {
            newest: generation,
            open: Some(open),
        };
        jobs.insert(job.clone(), newest);
        drop(jobs);
        self.registered.send_replace(());
        Ok(RegisteredEdges {
            registry: self.clone(),
            job: job.clone(),
            generation,
            _alive: alive_sender,
        })
    }

    /// The edge that `hello` asks for; waits for its registration.
    pub(super) async fn claim(&self, hello: &ExchangeHello) -> Result<ClaimedEdge, ClaimError> {
        let claimed = tokio::time::timeout(self.wait, async {
            let mut registered = self.registered.subscribe();
            loop {
                if let Some(claimed) = self.try_claim(hello) {
                    return claimed;
                }
                let sender_lives = registered.changed().await;
                sender_lives.expect("the registry owns the sender");
            }
        });
        claimed.await.unwrap_or_else(|_| {
            Err(ClaimError::NotStarted {
                job: hello.job.clone(),
                generation: hello.generation,
                seconds: self.wait.as_secs(),
            })
        })
    }

    /// `None` while the generation is still to come.
    fn try_claim(&self, hello: &ExchangeHello) -> Option<Result<ClaimedEdge, ClaimError>> {
        let mut jobs = self.lock();
        let job = jobs.get_mut(&hello.job)?;
        if job.newest < hello.generation {
            return None;
        }
        Some(job.claim(hello))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobName, JobEdges>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobEdges {
    fn claim(&mut self, hello: &ExchangeHello) -> Result<ClaimedEdge, ClaimError> {
        let edge = hello.edge;
        let open = match &mut self.open {
            Some(open) if self.newest == hello.generation => open,
            _ => {
                return Err(ClaimError::Stale {
                    job: hello.job.clone(),
                    generation: hello.generation,
                });
            }
        };
        let slot = open
            .edges
            .get_mut(&edge)
            .ok_or(ClaimError::Unknown { edge })?;
        if let Some(incoming) = slot
            && incoming.schema != hello.schema.0
        {
            return Err(ClaimError::Schema { edge });
        }
        let incoming = slot.take().ok_or(ClaimError::Taken { edge })?;
        Ok(ClaimedEdge {
            incoming,
            on_lost: open.on_lost.clone(),
            alive: open.alive.clone(),
        })
    }
}

impl Drop for RegisteredEdges {
    fn drop(&mut self) {
        let mut jobs = self.registry.lock();
        if let Some(job) = jobs.get_mut(&self.job)
            && job.newest == self.generation
        {
            job.open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use millstream_common::ids::WorkerId;
    use millstream_common::plan::PlanSchema;

    use super::*;
    use crate::exchange::testing::{edge, numbers};

    fn registry() -> Arc<EdgeRegistry> {
        EdgeRegistry::new(Duration::from_secs(60))
    }

    fn register(
        registry: &Arc<EdgeRegistry>,
        generation: u64,
    ) -> Result<RegisteredEdges, StaleGeneration> {
        let incoming = IncomingEdge {
            edge: edge(0, 0),
            schema: numbers([]).schema(),
            budget_bytes: 1,
            deliver: Arc::new(|_, _| Ok(())),
        };
        let job = JobName::from("clicks");
        let generation = Generation(generation);
        registry.register(&job, generation, vec![incoming], Arc::new(|_| ()))
    }

    fn hello(generation: u64) -> ExchangeHello {
        ExchangeHello {
            job: JobName::from("clicks"),
            generation: Generation(generation),
            edge: edge(0, 0),
            worker: WorkerId::from("peer"),
            schema: PlanSchema(numbers([]).schema()),
        }
    }

    fn stale(generation: u64) -> ClaimError {
        ClaimError::Stale {
            job: JobName::from("clicks"),
            generation: Generation(generation),
        }
    }

    #[tokio::test]
    async fn a_peer_that_dials_early_waits_for_the_registration() {
        let registry = registry();
        let asked = hello(4);
        let mut claim = Box::pin(registry.claim(&asked));
        assert!(claim.as_mut().now_or_never().is_none());
        let _older = register(&registry, 3).expect("first");
        assert!(claim.as_mut().now_or_never().is_none());
        let _registered = register(&registry, 4).expect("newest");
        assert!(claim.await.is_ok());
    }

    #[tokio::test]
    async fn waiting_for_a_registration_ends() {
        let registry = EdgeRegistry::new(Duration::ZERO);
        let refused = registry.claim(&hello(4)).await.err();
        assert!(matches!(refused, Some(ClaimError::NotStarted { .. })));
    }

    #[tokio::test]
    async fn a_stale_generation_is_refused_at_once() {
        let registry = registry();
        let _registered = register(&registry, 4).expect("newest");
        assert_eq!(registry.claim(&hello(3)).await.err(), Some(stale(3)));
        assert!(register(&registry, 3).is_err());
        assert!(register(&registry, 4).is_err());
    }

    #[tokio::test]
    async fn a_generation_that_ended_here_is_refused() {
        let registry = registry();
        let mut claimed = {
            let _registered = register(&registry, 4).expect("newest");
            registry.claim(&hello(4)).await.expect("open")
        };
        assert!(claimed.alive.changed().await.is_err());
        assert_eq!(registry.claim(&hello(4)).await.err(), Some(stale(4)));
    }

    #[tokio::test]
    async fn dropping_an_older_registration_leaves_the_newer_one() {
        let registry = registry();
        let older = register(&registry, 3).expect("first");
        let _newer = register(&registry, 4).expect("newest");
        drop(older);
        assert!(registry.claim(&hello(4)).await.is_ok());
    }

    #[tokio::test]
    async fn an_edge_is_claimed_once_and_with_its_schema() {
        let registry = registry();
        let _registered = register(&registry, 4).expect("newest");
        let mut other = hello(4);
        other.schema = PlanSchema::from_fields(vec![]);
        let refused = registry.claim(&other).await.err();
        assert_eq!(refused, Some(ClaimError::Schema { edge: edge(0, 0) }));
        assert!(registry.claim(&hello(4)).await.is_ok());
        let refused = registry.claim(&hello(4)).await.err();
        assert_eq!(refused, Some(ClaimError::Taken { edge: edge(0, 0) }));
        let mut other = hello(4);
        other.edge = edge(0, 1);
        let refused = registry.claim(&other).await.err();
        assert_eq!(refused, Some(ClaimError::Unknown { edge: edge(0, 1) }));
    }
}
