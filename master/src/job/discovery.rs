//! Looks for splits: one enumerator a source, asked again and again.
//!
//! Called by `lifecycle.rs` and by `job_actor.rs` with what an enumerator found, which [`claims`](super::claims) take. Failure: a look that
//! fails is made again after [`DISCOVERY_RETRY`]; why it failed is logged when it is new, and shown as the job's cause until one succeeds.

use std::time::Duration;

use millstream_common::error::Failure;
use millstream_common::ids::SourceIndex;
use millstream_common::plan::SourceSpec;
use tracing::{info, warn};

use super::enumerator_actor::{Discovery, EnumeratorMessage};
use super::job_actor::{Due, JobState};
use super::lifecycle::Handled;

/// Before a look at a source that could not be looked at is made again.
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);

impl JobState {
    pub(super) fn discover_all(&mut self) -> Handled {
        for index in 0..self.enumerators.len() {
            self.discover(SourceIndex(index as u32))?;
        }
        Ok(())
    }

    pub(super) fn discover(&mut self, source: SourceIndex) -> Handled {
        self.enumerators[source.index()].cast(EnumeratorMessage::Discover)?;
        Ok(())
    }

    pub(super) fn discovered(
        &mut self,
        source: SourceIndex,
        result: Result<Discovery, Failure>,
    ) -> Handled {
        if self.is_over() {
            return Ok(());
        }
        match result {
            Ok(discovery) => {
                if self.observed.discovery_troubles.remove(&source).is_some() {
                    let name = &self.entry.plan.sources[source.index()].name;
                    info!(job = %self.entry.job, source = %name, "splits can be looked for again");
                }
                self.looked[source.index()] = true;
                self.exhausted[source.index()] = discovery.exhausted;
                self.claims.add(source, discovery.found, &self.progress);
                if !discovery.exhausted {
                    self.remind(self.discovery_interval(source), Due::Discovery(source));
                }
                self.give_new_splits()?;
                self.advance()
            }
            Err(failure) => {
                self.not_discovered(source, &failure);
                self.remind(DISCOVERY_RETRY, Due::Discovery(source));
                Ok(())
            }
        }
    }

    /// What is tried again and again and is not new is no news.
    fn not_discovered(&mut self, source: SourceIndex, failure: &Failure) {
        let troubles = &mut self.observed.discovery_troubles;
        let trouble = failure.to_string();
        if troubles.get(&source) != Some(&trouble) {
            warn!(job = %self.entry.job, %failure, "look for splits; trying on");
            troubles.insert(source, trouble);
        }
    }

    pub(super) fn discovery_interval(&self, source: SourceIndex) -> Duration {
        let interval_ms = match &self.entry.plan.sources[source.index()].spec {
            SourceSpec::Kafka(kafka) => kafka.discovery_interval_ms,
            SourceSpec::Files(files) => files.discovery_interval_ms,
            SourceSpec::Datagen(_) => 60_000,
        };
        Duration::from_millis(interval_ms)
    }
}
