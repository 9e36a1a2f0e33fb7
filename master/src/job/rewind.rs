//! Sinks that a person sends back to an earlier epoch, and epochs that are kept for that no longer.
//!
//! Called by `job_actor.rs`. What lies behind the epoch is delivered again: to a sink that writes rows by key this changes nothing in the
//! end, and readers see older values until it has caught up; to one that appends every row comes twice, so that has to be said. A
//! SinkRewound entry is appended; the next assignment is what makes it happen (`common::log::rewind`): a barrier ends the running generation,
//! so no row is read twice and the other sinks see nothing of it. Rows that were refused stay dead letters. While an entry is on its way
//! nothing is forgotten. Failure: an epoch that is not kept any more is refused with the oldest that is; so is a sink that does not hold it yet.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::control::{ControlError, RewindTerms, SinkView};
use millstream_common::error::chain;
use millstream_common::ids::{Epoch, Seq, SinkIndex};
use millstream_common::log::Entry;
use millstream_common::log::backlog;
use millstream_common::log::entry::JobEnd;
use millstream_common::log::rewind::SinkRewind;
use millstream_common::mutant::{self, Mutant};
use millstream_common::plan::SinkSpec;
use millstream_common::task::caught;
use ractor::RpcReplyPort;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::job_actor::{JobMessage, JobState, Phase};
use super::lifecycle::Handled;
use super::recorded::Recorded;
use crate::retention::Looked;

/// Sinks that are being sent back.
#[derive(Debug, Default)]
pub(super) struct Rewinds {
    /// Whose epoch is looked for, or whose entry is on its way into the log.
    under_way: BTreeSet<SinkIndex>,
    /// Looks into stored parts; they end with the actor.
    looks: JoinSet<()>,
}

/// Who waits.
type Reply = RpcReplyPort<Result<SinkView, ControlError>>;

/// What a look for an epoch came to.
pub struct FoundRewind {
    sink: SinkIndex,
    to: Result<Epoch, ControlError>,
    reply: Reply,
}

impl JobState {
    pub(super) fn rewind_sink(&mut self, name: &str, terms: RewindTerms, reply: Reply) -> Handled {
        let checked = self.running_sink(name).and_then(|sink| {
            let to = self.check_rewind(sink, terms)?;
            Ok((sink, to))
        });
        let (sink, to) = match checked {
            Ok(checked) => checked,
            Err(refused) => return self.answer(reply, |_| Err(refused)),
        };
        self.rewinds.under_way.insert(sink);
        match self.member(to) {
            Some(to) => self.rewind_found(FoundRewind {
                sink,
                to: Ok(to),
                reply,
            }),
            None => self.look_for(sink, to, reply),
        }
    }

    /// The epoch that is asked for, if the sink can go back to it.
    fn check_rewind(&self, sink: SinkIndex, terms: RewindTerms) -> Result<Epoch, ControlError> {
        let (job, plan) = (&self.entry.job, &self.entry.plan.sinks[sink.index()]);
        let (name, marker) = (&plan.name, self.progress.marker(sink));
        let oldest = self.progress.oldest_of(plan.output);
        // What came before it began it never was to have, unless somebody says so.
        let start = self.progress.sink_starts.get(&sink).copied();
        let to = terms.to.unwrap_or(oldest.max(start.unwrap_or_default()));
        let is_under_way =
            self.is_rewind_under_way(sink) || self.progress.is_going_back(sink, self.generation);
        let refused = if self.stop.is_some() || matches!(self.phase, Phase::Reattaching { .. }) {
            format!("job {job} is stopping or being taken over: try again once it runs")
        } else if is_under_way {
            format!("sink {name} is being sent back already: try again in a moment")
        } else if to < oldest && !mutant::is(Mutant::RewindPastForgotten) {
            format!(
                "sink {name} cannot go back to epoch {to}: the segments behind it are not kept any more, or of other columns; the oldest \
                 epoch there is to go back to is {oldest} (SET segment_retention says how long they are kept). A place that holds less than \
                 that has to be emptied and begun with --fresh"
            )
        } else if to >= marker {
            format!(
                "sink {name} holds everything up to epoch {marker}: there is nothing to deliver again behind epoch {to}"
            )
        } else if let Some(what) = appends(&plan.spec).filter(|_| !terms.may_duplicate) {
            format!(
                "sink {name} {what}: the rows behind epoch {to} would be there twice; take them out yourself while it is paused \
                 (`millstream sink pause {job} {name}`) and say --allow-duplicates, or leave it where it is"
            )
        } else {
            return Ok(to);
        };
        Err(ControlError::Invalid(refused))
    }

    /// The newest epoch of the chain up to `to`, unless that is in storage.
    fn member(&self, to: Epoch) -> Option<Epoch> {
        let stored = self.progress.backlog.last().map(|part| part.last);
        let behind = self.progress.recent.iter().map(|kept| kept.epoch);
        let base = stored.unwrap_or(self.progress.retained_from);
        let mut parts = self.progress.backlog.iter();
        if stored.is_some_and(|stored| to < stored) {
            return parts.any(|part| part.parent == to).then_some(to);
        }
        Some(
            behind
                .take_while(|epoch| *epoch <= to)
                .last()
                .unwrap_or(base),
        )
    }

    /// Reads the part of the backlog around `to`: which epochs there were is known to it only.
    fn look_for(&mut self, sink: SinkIndex, to: Epoch, reply: Reply) -> Handled {
        while self.rewinds.looks.try_join_next().is_some() {}
        let mut parts = self.progress.backlog.iter();
        let part = parts.find(|part| to < part.last).cloned();
        let (store, myself) = (self.store.clone(), self.myself.clone());
        let oldest = self.progress.retained_from;
        self.rewinds.looks.spawn(async move {
            let loaded = caught(async {
                let Some(part) = part else {
                    return Ok(oldest);
                };
                let epochs = backlog::load(&store, &part).await?;
                let before = epochs.iter().map(|epoch| epoch.epoch);
                let newest = before.take_while(|epoch| *epoch <= to).last();
                Ok::<_, backlog::Error>(newest.unwrap_or(part.parent).max(oldest))
            });
            let to = match loaded.await {
                Ok(Ok(to)) => Ok(to),
                Ok(Err(error)) => Err(unavailable(&chain(&error))),
                Err(panicked) => Err(unavailable(&panicked.to_string())),
            };
            // The actor outlives its tasks: they are in its state.
            let found = FoundRewind { sink, to, reply };
            let _ = myself.cast(JobMessage::RewindFound(Box::new(found)));
        });
        Ok(())
    }

    pub(super) fn rewind_found(&mut self, found: FoundRewind) -> Handled {
        let FoundRewind { sink, to, reply } = found;
        let to = match to {
            Ok(to) if !self.is_over() => to,
            Ok(_) => {
                let refused = ControlError::Invalid(format!("job {} has ended", self.entry.job));
                return self.refuse_rewind(sink, reply, refused);
            }
            Err(refused) => return self.refuse_rewind(sink, reply, refused),
        };
        if mutant::is(Mutant::RewindUnrecorded) {
            let at = Seq(self.generation.0);
            return self.sink_rewound(sink, to, at, reply);
        }
        let entry = Entry::SinkRewound {
            job: self.entry.job.clone(),
            incarnation: self.entry.incarnation,
            sink,
            to,
        };
        self.append(entry, Recorded::SinkRewound { sink, to, reply })
    }

    /// It is in the log: the next assignment sends it back.
    pub(super) fn sink_rewound(
        &mut self,
        sink: SinkIndex,
        to: Epoch,
        at: Seq,
        reply: Reply,
    ) -> Handled {
        let plan = self.entry.plan.sinks[sink.index()].clone();
        if !self.progress.rewind_sink(sink, to, at) {
            let refused = ControlError::Invalid(format!(
                "the segments behind epoch {to} went meanwhile; the oldest epoch there is is {}",
                self.progress.retained_from
            ));
            return self.refuse_rewind(sink, reply, refused);
        }
        self.rewinds.under_way.remove(&sink);
        info!(job = %self.entry.job, sink = plan.name, %to, "sink is sent back");
        self.observed.sink_causes.remove(&sink);
        self.answer(reply, |state| Ok(state.sink_view(sink, &plan)))?;
        match self.phase {
            Phase::Running => self.barrier_due(),
            Phase::Delivering(JobEnd::Finished) => self.place_anew(),
            // The assignment that follows, or the end, finds it in the log.
            _ => Ok(()),
        }
    }

    /// Whether an entry that sends some sink back is on its way into the log, or about to be: the job may not end before.
    pub(super) fn has_rewind_under_way(&self) -> bool {
        !self.rewinds.under_way.is_empty()
    }

    /// A sink stays where it is; what waited for it goes on.
    fn refuse_rewind(&mut self, sink: SinkIndex, reply: Reply, refused: ControlError) -> Handled {
        self.rewinds.under_way.remove(&sink);
        self.answer(reply, |_| Err(refused))?;
        self.check_delivered()
    }

    /// Whether an entry that sends the sink back is on its way into the log, or about to be.
    pub(super) fn is_rewind_under_way(&self, sink: SinkIndex) -> bool {
        self.rewinds.under_way.contains(&sink)
    }

    /// Sinks that are to move their markers back, as far as is known.
    pub(super) fn open_rewinds(&self) -> BTreeMap<SinkIndex, SinkRewind> {
        let sinks = self.progress.sink_rewinds.keys();
        let open = sinks.filter_map(|sink| Some((*sink, self.progress.open_rewind(*sink)?)));
        open.collect()
    }

    /// The collector has looked: what every sink has held for long enough is kept no longer.
    pub(super) fn looked(&mut self, looked: Looked) -> Handled {
        self.observed.storage = Some(looked.used);
        let crowded = self.progress.crowded();
        let through = self.progress.forgettable(looked.forgettable.max(crowded));
        let is_own = looked.life == self.entry.incarnation;
        let is_news = through > self.progress.retained_from;
        if is_own && matches!(self.phase, Phase::Ended(_)) {
            // The supervisor says it to the log.
            self.progress.forget(looked.forgettable);
            return Ok(());
        }
        if !is_own || !is_news || self.is_over() || self.has_rewind_under_way() {
            return Ok(());
        }
        if crowded > looked.forgettable {
            warn!(
                job = %self.entry.job, %through,
                "too many rows were refused by sinks: epochs are forgotten before segment_retention is over"
            );
        }
        // At once: nothing that is said behind the entry may need them.
        self.progress.forget(through);
        let entry = Entry::Forgotten {
            job: self.entry.job.clone(),
            incarnation: self.entry.incarnation,
            through,
        };
        self.append(entry, Recorded::Forgotten)
    }
}

fn unavailable(cause: &str) -> ControlError {
    ControlError::Unavailable {
        cause: format!("look for the epoch: {cause}"),
        active: None,
    }
}

/// What a sink does with rows that it is given again, unless it writes them by key.
fn appends(spec: &SinkSpec) -> Option<&'static str> {
    match spec {
        SinkSpec::Postgres(postgres) if !postgres.primary_key.is_empty() => None,
        SinkSpec::Postgres(_) => Some("appends rows to its table"),
        SinkSpec::Kafka(_) => Some("appends records to its topic"),
        SinkSpec::Files(_) => Some("writes each run into files of its own"),
        SinkSpec::Console(_) => Some("prints each row"),
        SinkSpec::Blackhole => None,
    }
}
