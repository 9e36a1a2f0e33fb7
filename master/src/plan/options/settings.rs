//! `SET name = value`: settings of the job.

use millstream_common::plan::JobSettings;
use millstream_common::secret::Lookup;

use super::Options;
use crate::plan::parse::SetStatement;
use crate::plan::problem::{Place, Problem};

/// The settings of all `SET` statements, and what is wrong with them.
pub(in crate::plan) fn read_settings(
    statements: &[SetStatement],
    lookup: &dyn Lookup,
) -> (JobSettings, Vec<Problem>) {
    let clauses: Vec<_> = statements.iter().map(|set| set.option.clone()).collect();
    let mut options = Options::new("SET".to_owned(), Place::default(), &clauses, lookup);
    let default = JobSettings::default();
    let settings = JobSettings {
        checkpoint_interval_ms: options
            .positive_millis("checkpoint_interval", default.checkpoint_interval_ms),
        restart_budget: options
            .number("restart_budget", 0)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default.restart_budget),
        restart_window_ms: options.positive_millis("restart_window", default.restart_window_ms),
    };
    options.not_yet(
        "dead_letter_retention",
        "dead letters are kept as long as the storage",
    );
    let (_, problems) = options.finish();
    (settings, problems)
}
