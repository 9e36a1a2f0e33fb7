//! A sink that is held to a quota, and blocked for longer than that allows; drawn from the seed.
//!
//! Used by `simulation/mod.rs`: some seeds have one. What the job does then is checked by `outside/pace.rs`; a suspended sink is resumed by
//! the person of `people.rs`. Pure but for the chance handed in.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::outside::disk;
use crate::scenario::{Action, Scenario};
use crate::workload::sink_at;

/// Of the seeds.
const SHARE: f64 = 0.35;
const POLICIES: [&str; 4] = ["warn", "backpressure", "backpressure", "suspend"];

/// The quota of one sink.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) sink: &'static str,
    /// As they stand behind its other options.
    pub(crate) options: String,
}

/// A quota for the sink at one of `targets`, which is locked in `scenario` for a while.
pub(crate) fn draw(
    chance: &mut SmallRng,
    targets: &[&'static str],
    scenario: &mut Scenario,
) -> Option<Limit> {
    if !chance.random_bool(SHARE) {
        return None;
    }
    let target = targets.choose(chance).copied()?;
    let policy = POLICIES.choose(chance)?;
    let millis = |chance: &mut SmallRng, from, to| chance.random_range::<u64, _>(from..to);
    let bound = match chance.random_bool(0.5) {
        // A files sink gathers rows: it is always behind by some.
        _ if target == disk::NAME => {
            let age = millis(chance, 2_000, 5_000);
            format!("quota_age = '{age} milliseconds'")
        }
        true => format!("quota_age = '{} milliseconds'", millis(chance, 500, 4_000)),
        false => format!("quota_bytes = '{}'", chance.random_range(2_000..30_000)),
    };
    let at = Duration::from_millis(millis(chance, 500, 7_000));
    let until = at + Duration::from_millis(millis(chance, 3_000, 9_000));
    scenario.actions.push((at, Action::Lock(target, until)));
    scenario.actions.sort_by_key(|(at, _)| *at);
    // Some are resumed while they cannot take anything yet.
    scenario.resumed_from = at + Duration::from_millis(millis(chance, 0, 12_000));
    Some(Limit {
        sink: sink_at(target),
        options: format!(", {bound}, on_quota = '{policy}'"),
    })
}
