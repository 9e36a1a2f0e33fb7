//! What sinks have been told, as the log folds it: by a person, or by the quota that they have used up.
//!
//! Called by whoever folds a job's entries, and by the master once an entry is recorded. A suspension is a pause that nobody asked for;
//! resuming it excuses the sink from its quota until the master has seen it catch up, and says so in turn. Pure.

use super::entry::JobProgress;
use crate::control::SinkCommand;
use crate::ids::SinkIndex;

impl JobProgress {
    /// Folds what a person, or its quota, has told a sink.
    pub fn command_sink(&mut self, sink: SinkIndex, command: SinkCommand, by_quota: bool) {
        match command {
            SinkCommand::Pause if by_quota => {
                // Of one that a person has paused meanwhile, the pause is the person's.
                if self.paused_sinks.insert(sink) {
                    self.suspended_sinks.insert(sink);
                }
                self.excused_sinks.remove(&sink);
            }
            SinkCommand::Pause => {
                self.paused_sinks.insert(sink);
                self.suspended_sinks.remove(&sink);
            }
            // It has caught up; of a pause that says nothing.
            SinkCommand::Resume if by_quota => {
                self.excused_sinks.remove(&sink);
            }
            SinkCommand::Resume => {
                self.paused_sinks.remove(&sink);
                if self.suspended_sinks.remove(&sink) {
                    self.excused_sinks.insert(sink);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINK: SinkIndex = SinkIndex(3);

    /// Whether it is paused, suspended, excused.
    fn after(told: &[(SinkCommand, bool)]) -> [bool; 3] {
        let mut progress = JobProgress::default();
        for (command, by_quota) in told {
            progress.command_sink(SINK, *command, *by_quota);
        }
        let sets = [
            progress.paused_sinks,
            progress.suspended_sinks,
            progress.excused_sinks,
        ];
        sets.map(|set| set.contains(&SINK))
    }

    #[test]
    fn a_suspension_is_a_pause_whose_end_excuses_the_sink_from_its_quota() {
        use SinkCommand::{Pause, Resume};
        let quota = (Pause, true);
        let (pause, resume) = ((Pause, false), (Resume, false));
        assert_eq!(after(&[quota]), [true, true, false]);
        assert_eq!(after(&[quota, resume]), [false, false, true]);
        assert_eq!(after(&[quota, resume, quota]), [true, true, false]);
        let caught_up = (Resume, true);
        assert_eq!(after(&[quota, resume, caught_up]), [false, false, false]);
        assert_eq!(after(&[pause, caught_up]), [true, false, false]);
        assert_eq!(after(&[pause, resume]), [false, false, false]);
        // A person's pause stays a person's, whoever came first.
        assert_eq!(after(&[pause, quota]), [true, false, false]);
        assert_eq!(after(&[quota, pause]), [true, false, false]);
    }
}
