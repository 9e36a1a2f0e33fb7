//! Runs the checker and says what it found.
//!
//! Used by `main.rs` and the tests. A run without a mistake visits every state; a run with one stops when
//! the property fails that the mistake breaks, and keeps the way there.

use std::time::Duration;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::mistake::Mistake;
use crate::model::{Action, Bounds, KAFKA, Protocol, Rules};

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    /// Different states.
    pub states: usize,
    /// Steps tried.
    pub steps: usize,
    /// The longest way to a state.
    pub depth: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Each property, in order.
    pub properties: Vec<Finding>,
}

/// What a run found about a property.
#[derive(Debug)]
pub struct Finding {
    /// The property.
    pub name: &'static str,
    /// It holds in every state, or was seen in one that it has to be seen in.
    pub is_kept: bool,
    /// It is a sight, not an invariant.
    pub must_be_seen: bool,
    /// For a property that fails: the steps there.
    pub steps: Vec<Action>,
}

impl Outcome {
    /// Every property is kept.
    pub fn is_sound(&self) -> bool {
        self.properties.iter().all(|finding| finding.is_kept)
    }

    /// The first property that fails.
    pub fn failure(&self) -> Option<&Finding> {
        self.properties.iter().find(|finding| !finding.is_kept)
    }

    /// The finding about the property of that name, if it fails.
    pub fn failure_of(&self, name: &str) -> Option<&Finding> {
        let mut failed = self.properties.iter().filter(|finding| !finding.is_kept);
        failed.find(|finding| finding.name == name)
    }
}

/// Visits every state within `bounds`. A failure is looked for again without mirror images, whose steps would change names.
pub fn check(bounds: Bounds, threads: usize) -> Outcome {
    let run = |masters_alike: bool| {
        let rules = Rules {
            bounds,
            mistake: None,
            masters_alike,
        };
        let checker = Protocol::new(rules).checker().threads(threads);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures);
        measured(|| checker.spawn_bfs().join())
    };
    let outcome = run(true);
    match outcome.failure() {
        Some(_) => run(false),
        None => outcome,
    }
}

/// Looks for a short run in which `mistake` breaks what it should.
pub fn find(mistake: Mistake) -> Outcome {
    let rules = Rules {
        bounds: Bounds {
            lag: 2,
            sinks: KAFKA,
        },
        mistake: Some(mistake),
        masters_alike: false,
    };
    let wanted = HasDiscoveries::AnyOf([mistake.breaks()].into());
    let checker = Protocol::new(rules).checker().finish_when(wanted);
    measured(|| checker.spawn_bfs().join())
}

#[allow(
    clippy::disallowed_methods,
    reason = "the time of the run is shown to people"
)]
fn measured<C: Checker<Protocol>>(run: impl FnOnce() -> C) -> Outcome {
    let begun = std::time::Instant::now();
    let checker = run();
    let elapsed = begun.elapsed();
    let mut discoveries = checker.discoveries();
    let properties = checker.model().properties().into_iter().map(|property| {
        let found = discoveries.remove(property.name);
        let is_kept = match property.expectation {
            Expectation::Always | Expectation::Eventually => found.is_none(),
            Expectation::Sometimes => found.is_some(),
        };
        let steps = match (is_kept, found) {
            (false, Some(path)) => path.into_actions(),
            _ => Vec::new(),
        };
        Finding {
            name: property.name,
            is_kept,
            must_be_seen: property.expectation == Expectation::Sometimes,
            steps,
        }
    });
    Outcome {
        properties: properties.collect(),
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        elapsed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BOTH, POSTGRES};

    #[test]
    fn every_property_is_kept_whatever_dies() {
        for (lag, sinks) in [(2, POSTGRES), (2, KAFKA)] {
            let outcome = check(Bounds { lag, sinks }, 2);
            assert!(outcome.is_sound(), "{:?}", outcome.failure());
            assert!(outcome.states > 10_000, "{} states", outcome.states);
        }
    }

    #[test]
    fn both_sinks_together_keep_every_property_while_none_lags() {
        let outcome = check(
            Bounds {
                lag: 1,
                sinks: BOTH,
            },
            2,
        );
        assert!(outcome.is_sound(), "{:?}", outcome.failure());
    }

    #[test]
    fn every_planted_mistake_is_found() {
        for mistake in Mistake::ALL {
            let outcome = find(mistake);
            let found = outcome.failure_of(mistake.breaks());
            assert!(
                found.is_some_and(|finding| !finding.steps.is_empty()),
                "{} is not found in {} states",
                mistake.name(),
                outcome.states
            );
        }
    }
}
