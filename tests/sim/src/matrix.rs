//! The step matrix: every named step of the protocol, broken off before it, between its effect and the answer, and after it.
//!
//! A case is a calm simulation with a trap (`outside/trap.rs`): when the step is made for the n-th time, who made it is killed or
//! stands still, or its master is, or both at once; then all is healed and the oracle compares. A case whose step is
//! never reached is a failure. Generated from [`STEPS`]; pure.

use std::fmt;
use std::time::Duration;

use millstream_master::retention::Retention;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::frames::is_frame;
use crate::outside::trap::{Moment, Trap};
use crate::people::Wish;
use crate::scenario::{Action, Manner, SAVEPOINT, Scenario};
use crate::simulation::TICK;

/// What has to happen before the step is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prelude {
    Nothing,
    WorkerLost,
    MasterLost,
    /// The collector keeps as little as there may be.
    Collects,
    /// Epochs are put away soon, and a table that is down lacks them.
    PutsAway,
    /// A table is paused, restored from a copy, sent back to it and resumed.
    SentBack,
    /// An epoch is kept by name, the job stopped and submitted again, the name dropped.
    Asked,
}

/// Who is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// Who makes the step.
    Caller,
    /// Whom it speaks to, or the master that reigns.
    Other,
    /// Both at once.
    Both,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The process ends and is started again.
    Kill,
    /// It stands still for longer than anybody waits for it.
    Freeze,
}

/// The steps: who makes them, their names, which of them is broken off, and what has to come before.
const STEPS: [(&str, &str, u32, Prelude); 30] = [
    ("master", "create log fence", 1, Prelude::Nothing),
    ("master", "create log fence", 1, Prelude::MasterLost),
    ("master", "create log job", 1, Prelude::Nothing),
    ("master", "create log assign", 1, Prelude::Nothing),
    ("master", "create log assign", 1, Prelude::WorkerLost),
    ("master", "create log epoch", 1, Prelude::Nothing),
    ("master", "create log epoch", 4, Prelude::Nothing),
    ("master", "create log epoch", 1, Prelude::WorkerLost),
    ("master", "create log epoch", 1, Prelude::MasterLost),
    ("master", "create log ended", 1, Prelude::Nothing),
    ("master", "put masters", 6, Prelude::Nothing),
    ("master", "get log", 4, Prelude::MasterLost),
    ("master", "find splits", 1, Prelude::Nothing),
    ("worker", "create segments", 1, Prelude::Nothing),
    ("worker", "create segments", 5, Prelude::Nothing),
    ("worker", "create state", 1, Prelude::Nothing),
    ("worker", "create state", 6, Prelude::Nothing),
    ("worker", "get state", 2, Prelude::WorkerLost),
    ("deliverer", "fence postgres", 1, Prelude::Nothing),
    ("deliverer", "fence postgres", 2, Prelude::WorkerLost),
    ("deliverer", "apply postgres", 1, Prelude::Nothing),
    ("deliverer", "apply postgres", 7, Prelude::Nothing),
    ("deliverer", "create kafka", 1, Prelude::Nothing),
    ("deliverer", "open kafka", 1, Prelude::WorkerLost),
    ("deliverer", "read kafka", 1, Prelude::WorkerLost),
    ("deliverer", "read kafka", 2, Prelude::WorkerLost),
    ("deliverer", "fence kafka", 1, Prelude::WorkerLost),
    ("deliverer", "begin kafka", 3, Prelude::Nothing),
    ("deliverer", "send kafka", 3, Prelude::Nothing),
    ("deliverer", "commit kafka", 3, Prelude::Nothing),
];

/// The steps of keeping storage bounded, and of what people ask for.
const ERRANDS: [(&str, &str, u32, Prelude); 18] = [
    ("master", "create boundary", 1, Prelude::Collects),
    ("master", "create boundary", 3, Prelude::Collects),
    ("master", "create log forgotten", 1, Prelude::Collects),
    ("master", "create log forgotten", 2, Prelude::Collects),
    ("master", "delete boundary", 1, Prelude::Collects),
    ("master", "delete log", 1, Prelude::Collects),
    ("master", "delete log", 4, Prelude::Collects),
    ("master", "delete state", 1, Prelude::Collects),
    ("master", "delete segments", 1, Prelude::Collects),
    ("master", "delete segments", 5, Prelude::Collects),
    ("master", "create backlog", 1, Prelude::PutsAway),
    ("master", "create log backlog", 1, Prelude::PutsAway),
    ("deliverer", "get backlog", 1, Prelude::PutsAway),
    ("master", "create log command", 1, Prelude::SentBack),
    ("master", "create log rewind", 1, Prelude::SentBack),
    ("master", "create log savepoint", 1, Prelude::Asked),
    ("master", "create log resumed", 1, Prelude::Asked),
    ("master", "create log savepoint dropped", 1, Prelude::Asked),
];

/// What masters and workers say to each other.
const FRAMES: [(&str, &str, u32, Prelude); 17] = [
    ("worker", "say hello", 1, Prelude::Nothing),
    ("worker", "say hello", 1, Prelude::MasterLost),
    ("worker", "say deployed", 1, Prelude::Nothing),
    ("worker", "say deployed", 1, Prelude::WorkerLost),
    ("worker", "say snapshotted", 1, Prelude::Nothing),
    ("worker", "say snapshotted", 8, Prelude::Nothing),
    ("worker", "say sink advanced", 9, Prelude::Nothing),
    ("worker", "say torn down", 1, Prelude::WorkerLost),
    ("master", "tell welcome", 1, Prelude::MasterLost),
    ("master", "tell deploy", 2, Prelude::Nothing),
    ("master", "tell deploy", 1, Prelude::WorkerLost),
    ("master", "tell start", 2, Prelude::Nothing),
    ("master", "tell barrier", 2, Prelude::Nothing),
    ("master", "tell epoch committed", 2, Prelude::Nothing),
    ("master", "tell epoch committed", 7, Prelude::Nothing),
    ("master", "tell teardown", 1, Prelude::WorkerLost),
    ("master", "tell resume", 1, Prelude::MasterLost),
];

const PRELUDE_AT: Duration = Duration::from_secs(3);
/// The first epochs are there.
const EARLY: Duration = Duration::from_millis(1_500);
/// More epochs have come by then than are kept in memory.
const PUT_AWAY_UNTIL: Duration = Duration::from_secs(5);
/// The table that is sent back.
const SENT_BACK: &str = "distinct_clicks";
/// A killed process is back after this.
const DOWN: Duration = Duration::from_millis(900);
/// Longer than the detector of lost workers and a master's missed heartbeats take.
const FROZEN: Duration = Duration::from_secs(5);

/// One case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Its place in the matrix.
    pub(crate) number: usize,
    role: &'static str,
    step: &'static str,
    count: u32,
    prelude: Prelude,
    moment: Moment,
    pub(crate) victim: Victim,
    pub(crate) blow: Blow,
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            role,
            step,
            count,
            prelude,
            moment,
            victim,
            blow,
        } = self;
        write!(
            formatter,
            "case {number}: {role}, {step} no. {count} ({prelude:?} before), {moment:?}: {blow:?} {victim:?}"
        )
    }
}

/// The steps of a files sink are calls of the file system: six of a fence, then those of runs.
const DISK_STEPS: u32 = 30;
const DISK_STEP: &str = "use disk";

/// All steps.
fn steps() -> impl Iterator<Item = (&'static str, &'static str, u32, Prelude)> {
    let disk = (1..=DISK_STEPS).map(|count| ("deliverer", DISK_STEP, count, Prelude::Nothing));
    let calls = STEPS.into_iter().chain(ERRANDS);
    calls.chain(disk).chain(FRAMES)
}

/// How a step is broken off. A master is its own master, and a call of the file system before the next is behind the last.
fn breaks(role: &str, step: &str) -> Vec<(Victim, Moment, Blow)> {
    let mut breaks = vec![
        (Victim::Caller, Moment::Applied, Blow::Kill),
        (Victim::Caller, Moment::Answered, Blow::Kill),
    ];
    if is_frame(step) {
        // Sent and heard are two moments: who is to hear it may be gone by then.
        return vec![
            (Victim::Caller, Moment::Before, Blow::Kill),
            (Victim::Caller, Moment::Answered, Blow::Kill),
            (Victim::Caller, Moment::Answered, Blow::Freeze),
            (Victim::Other, Moment::Answered, Blow::Kill),
            (Victim::Other, Moment::Answered, Blow::Freeze),
            (Victim::Both, Moment::Answered, Blow::Kill),
        ];
    }
    breaks.push((Victim::Caller, Moment::Answered, Blow::Freeze));
    if step != DISK_STEP {
        breaks.extend([
            (Victim::Caller, Moment::Before, Blow::Kill),
            (Victim::Caller, Moment::Before, Blow::Freeze),
        ]);
    }
    if role != "master" {
        breaks.extend([
            (Victim::Other, Moment::Applied, Blow::Kill),
            (Victim::Other, Moment::Applied, Blow::Freeze),
            (Victim::Both, Moment::Applied, Blow::Kill),
        ]);
    }
    breaks
}

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (role, step, count, prelude) in steps() {
        for (victim, moment, blow) in breaks(role, step) {
            cases.push(Case {
                number: cases.len(),
                role,
                step,
                count,
                prelude,
                moment,
                victim,
                blow,
            });
        }
    }
    cases
}

impl Case {
    /// Its chance: so that cases differ in their records, too.
    pub(crate) fn chance(&self) -> SmallRng {
        SmallRng::seed_from_u64(7_000 + self.number as u64 % 16)
    }

    /// The trap that it waits in.
    pub(crate) fn trap(&self) -> Trap {
        let armed_at = match self.prelude {
            Prelude::WorkerLost | Prelude::MasterLost => PRELUDE_AT,
            _ => Duration::ZERO,
        };
        let stops = self.blow == Blow::Kill && self.victim != Victim::Other;
        Trap::new(self.step, self.count, self.moment, armed_at, stops)
    }

    /// All is calm but for the step and what comes before.
    pub(crate) fn scenario(&self) -> Scenario {
        let calm = Scenario::calm(self.number.is_multiple_of(2));
        match self.prelude {
            Prelude::Nothing | Prelude::WorkerLost | Prelude::MasterLost => calm,
            Prelude::Collects => Scenario {
                retention: Retention {
                    interval: Duration::from_millis(400),
                    log: Duration::from_millis(1_500),
                    segments: Duration::from_millis(300),
                    checkpoints: 1,
                    objects_per_boundary: 2,
                    ..Retention::default()
                },
                ..calm
            },
            Prelude::PutsAway => Scenario {
                retention: Retention {
                    recent_weight_max: 12,
                    ..Retention::default()
                },
                actions: vec![(EARLY, Action::PostgresDown(PUT_AWAY_UNTIL))],
                ..calm
            },
            Prelude::SentBack => {
                let back = Action::SendBack(SENT_BACK, 0.5, Manner::Restored);
                calm.with(PRELUDE_AT, [back])
            }
            Prelude::Asked => {
                let wishes = [Wish::Keep(SAVEPOINT), Wish::Stop, Wish::Drop(SAVEPOINT)];
                calm.with(PRELUDE_AT, wishes.map(Action::Ask))
            }
        }
    }

    /// What comes before the step, once it is time; `reigning` is the master then.
    pub(crate) fn prelude(
        &self,
        reigning: Option<&'static str>,
        now: Duration,
    ) -> Vec<(Duration, Action)> {
        let is_time = (PRELUDE_AT..PRELUDE_AT + TICK).contains(&now);
        let lost = match self.prelude {
            Prelude::WorkerLost if is_time => Some("worker-0"),
            Prelude::MasterLost if is_time => reigning,
            _ => None,
        };
        lost.map_or_else(Vec::new, |host| killed(host, now).to_vec())
    }

    /// What is done to `hosts`.
    pub(crate) fn blow(&self, hosts: &[&'static str], now: Duration) -> Vec<(Duration, Action)> {
        let one = |host: &&'static str| match self.blow {
            Blow::Kill => killed(host, now),
            Blow::Freeze => [
                (now, Action::Freeze(host, now + FROZEN)),
                (now + FROZEN, Action::Thaw(host)),
            ],
        };
        hosts.iter().flat_map(one).collect()
    }
}

/// The process ends, and is back soon.
pub(crate) fn killed(host: &'static str, now: Duration) -> [(Duration, Action); 2] {
    [(now, Action::Kill(host)), (now + DOWN, Action::Start(host))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_broken_off_before_its_effect_before_its_answer_and_behind_it() {
        let cases = cases();
        for (_, step, count, prelude) in steps() {
            for moment in [Moment::Before, Moment::Applied, Moment::Answered] {
                let found = cases.iter().any(|case| {
                    let at = (case.step, case.count, case.prelude, case.moment);
                    at == (step, count, prelude, moment) && case.blow == Blow::Kill
                });
                let is_behind_another = step == DISK_STEP && moment == Moment::Before;
                let is_unanswered = is_frame(step) && moment == Moment::Applied;
                assert!(
                    found || is_behind_another || is_unanswered,
                    "{step} {moment:?}"
                );
            }
        }
    }
}
