//! Requests that are overtaken: whoever asked has given up or died, and they come about in the midst of what others ask for.
//!
//! Kept by the world; filled by services whose calls fail late, and when a host dies with requests on their way. Time alone would
//! seldom let a late commit fall between two steps of the deliverer that takes over: a straggler waits for its moment. Pure.

use super::Effect;

/// Most later requests that overtake one: as many as a deliverer makes when it takes a sink over.
pub(crate) const BEHIND_MAX: u32 = 6;

/// Requests that will come about late.
#[derive(Default)]
pub(crate) struct Stragglers {
    waiting: Vec<Straggler>,
}

struct Straggler {
    service: &'static str,
    /// So many requests to the same service come before it, but for the last, which comes right behind it.
    behind: u32,
    effect: Effect,
}

impl Stragglers {
    /// `effect` comes about right before the request that is the `behind`-th one from now on to the same service.
    pub(crate) fn add(&mut self, service: &'static str, behind: u32, effect: Effect) {
        self.waiting.push(Straggler {
            service,
            behind,
            effect,
        });
    }

    /// A request to `service` is about to come about: what comes right before it.
    pub(crate) fn due_before(&mut self, service: &'static str) -> Vec<Effect> {
        let of_service = self.waiting.iter_mut();
        for straggler in of_service.filter(|straggler| straggler.service == service) {
            straggler.behind = straggler.behind.saturating_sub(1);
        }
        let is_due = |straggler: &mut Straggler| straggler.behind == 0;
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
        stragglers.add("kafka", 2, Box::new(|_| {}));
        assert!(stragglers.due_before("storage").is_empty());
        assert!(stragglers.due_before("kafka").is_empty());
        assert!(stragglers.due_before("storage").is_empty());
        assert_eq!(stragglers.due_before("kafka").len(), 1);
        assert!(stragglers.due_before("kafka").is_empty(), "once");
    }
}
