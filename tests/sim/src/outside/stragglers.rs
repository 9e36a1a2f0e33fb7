//! Requests that are overtaken: whoever asked has given up or died, and they come about in the midst of what others ask for.
//!
//! Kept by the world; filled by services whose calls fail late, and when a host dies with requests on their way. Time alone would
//! seldom let a late commit fall between two steps of the deliverer that takes over: a straggler waits for its moment. Pure.

use rand::Rng;
use rand::rngs::SmallRng;

use super::Effect;

/// Most later requests that overtake one: as many as a deliverer makes when it takes a sink over.
const BEHIND_MAX: u32 = 6;

/// How late a request comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Right before the later request of this number to the same service.
    Requests(u32),
    /// Right before somebody fences those who came before: the last moment at which it can.
    Successor,
}

impl Behind {
    /// Any.
    pub(crate) fn draw(chance: &mut SmallRng) -> Self {
        match chance.random_bool(0.5) {
            true => Self::Successor,
            false => Self::Requests(chance.random_range(1..=BEHIND_MAX)),
        }
    }
}

/// Requests that will come about late.
#[derive(Default)]
pub(crate) struct Stragglers {
    waiting: Vec<Straggler>,
}

struct Straggler {
    service: &'static str,
    behind: Behind,
    effect: Effect,
}

impl Stragglers {
    /// `effect`, of a request to `service`, comes about so late.
    pub(crate) fn add(&mut self, service: &'static str, behind: Behind, effect: Effect) {
        self.waiting.push(Straggler {
            service,
            behind,
            effect,
        });
    }

    /// A request to `service` is about to come about, which `fences` those before: what comes right before it.
    pub(crate) fn due_before(&mut self, service: &'static str, fences: bool) -> Vec<Effect> {
        let is_due = |straggler: &mut Straggler| {
            if straggler.service != service {
                return false;
            }
            match &mut straggler.behind {
                Behind::Successor => fences,
                Behind::Requests(count) => {
                    *count = count.saturating_sub(1);
                    *count == 0
                }
            }
        };
        let due = self.waiting.extract_if(.., is_due);
        due.map(|straggler| straggler.effect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straggler_comes_right_before_a_later_request_to_its_own_service() {
        let mut stragglers = Stragglers::default();
        stragglers.add("kafka", Behind::Requests(2), Box::new(|_| {}));
        assert!(stragglers.due_before("storage", false).is_empty());
        assert!(stragglers.due_before("kafka", true).is_empty());
        assert!(stragglers.due_before("storage", false).is_empty());
        assert_eq!(stragglers.due_before("kafka", false).len(), 1);
        assert!(stragglers.due_before("kafka", false).is_empty(), "once");
    }

    #[test]
    fn a_straggler_may_wait_for_whoever_fences_its_sender() {
        let mut stragglers = Stragglers::default();
        stragglers.add("kafka", Behind::Successor, Box::new(|_| {}));
        assert!(stragglers.due_before("kafka", false).is_empty());
        assert!(stragglers.due_before("storage", true).is_empty());
        assert_eq!(stragglers.due_before("kafka", true).len(), 1);
    }
}
