//! The step matrix: every named step of the protocol, broken off before it, between its effect and the answer, and after it.
//!
//! A case is a calm simulation with a trap (`outside/trap.rs`): when the step is made for the n-th time, who made it is killed or
//! stands still, or its master is, or both at once; then all is healed and the oracle compares. A case whose step is
//! never reached is a failure. Generated from [`STEPS`]; pure.

use std::fmt;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::outside::trap::{Moment, Trap};
use crate::scenario::{Action, Scenario};

/// What has to happen before the step is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prelude {
    Nothing,
    WorkerLost,
    MasterLost,
}

/// Who is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// Who makes the step.
    Caller,
    /// The master that reigns.
    Master,
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

const PRELUDE_AT: Duration = Duration::from_secs(3);
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

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (role, step, count, prelude) in STEPS {
        let moments = [Moment::Before, Moment::Applied, Moment::Answered];
        let victims = [Victim::Caller, Victim::Master, Victim::Both];
        for victim in victims {
            // A master is its own master.
            if role == "master" && victim != Victim::Caller {
                continue;
            }
            let blows = moments.map(|moment| (moment, Blow::Kill)).into_iter();
            // What stands still goes on with its step later.
            let frozen = [(Moment::Before, Blow::Freeze), (Moment::Answered, Blow::Freeze)];
            let frozen = frozen.into_iter().filter(|_| victim != Victim::Both);
            for (moment, blow) in blows.chain(frozen) {
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
            Prelude::Nothing => Duration::ZERO,
            Prelude::WorkerLost | Prelude::MasterLost => PRELUDE_AT,
        };
        let stops = self.blow == Blow::Kill && self.victim != Victim::Master;
        Trap::new(self.step, self.count, self.moment, armed_at, stops)
    }

    /// All is calm but for what comes before the step.
    pub(crate) fn scenario(&self, reigning: &'static str) -> Scenario {
        let lost = match self.prelude {
            Prelude::Nothing => None,
            Prelude::WorkerLost => Some("worker-0"),
            Prelude::MasterLost => Some(reigning),
        };
        let actions = lost.into_iter().flat_map(|host| {
            [
                (PRELUDE_AT, Action::Kill(host)),
                (PRELUDE_AT + DOWN, Action::Start(host)),
            ]
        });
        Scenario::calm(actions.collect(), self.number.is_multiple_of(2))
    }

    /// What is done to `hosts`.
    pub(crate) fn blow(&self, hosts: &[&'static str], now: Duration) -> Vec<(Duration, Action)> {
        let one = |host: &&'static str| match self.blow {
            Blow::Kill => [
                (now, Action::Kill(host)),
                (now + DOWN, Action::Start(host)),
            ],
            Blow::Freeze => [
                (now, Action::Freeze(host, now + FROZEN)),
                (now + FROZEN, Action::Thaw(host)),
            ],
        };
        hosts.iter().flat_map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_broken_off_at_each_moment() {
        let cases = cases();
        for (_, step, count, prelude) in STEPS {
            for moment in [Moment::Before, Moment::Applied, Moment::Answered] {
                let found = cases.iter().any(|case| {
                    let at = (case.step, case.count, case.prelude, case.moment);
                    at == (step, count, prelude, moment) && case.blow == Blow::Kill
                });
                assert!(found, "{step} {moment:?}");
            }
        }
    }
}
