//! A worker that is leaving: who still counts on it.
//!
//! Pure; kept by the registry for each worker that has said, or was told, that it goes. Every job says when it does not count on the
//! worker any more; with the last one the worker is released. A job that begins later never counts on it. Failure: a worker that
//! dies before is lost like any other, and what counts on it is rewound.

use std::collections::BTreeSet;

use millstream_common::ids::JobName;

/// What is known of a worker's leaving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    vacated: BTreeSet<JobName>,
    is_released: bool,
}

impl Leaving {
    /// The job does not count on the worker any more, and never will again.
    pub fn vacated(&mut self, job: JobName) {
        self.vacated.insert(job);
    }

    /// Whether nothing counts on it.
    pub fn is_released(&self) -> bool {
        self.is_released
    }

    /// The worker asks again: it is to be told again.
    pub fn asked_again(&mut self) {
        self.is_released = false;
    }

    /// Releases the worker if none of `jobs` counts on it; true the first time.
    pub fn release<'a>(&mut self, mut jobs: impl Iterator<Item = &'a JobName>) -> bool {
        let is_due = !self.is_released && jobs.all(|job| self.vacated.contains(job));
        self.is_released |= is_due;
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_released_once_when_no_job_counts_on_it_any_more() {
        let jobs = ["clicks".into(), "orders".into()];
        let mut leaving = Leaving::default();
        assert!(!leaving.release(jobs.iter()));
        leaving.vacated("orders".into());
        assert!(!leaving.release(jobs.iter()));
        leaving.vacated("clicks".into());
        assert!(leaving.release(jobs.iter()));
        assert!(!leaving.release(jobs.iter()), "once");
        leaving.asked_again();
        assert!(leaving.release(jobs.iter()));
    }

    #[test]
    fn a_worker_of_a_cluster_without_jobs_is_released_at_once() {
        let mut leaving = Leaving::default();
        assert!(leaving.release(std::iter::empty()));
    }
}
