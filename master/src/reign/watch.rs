//! Whether the active master is still there, as far as one that stands by can see.
//!
//! Pure; asked by the office after each look at the storage. Times are those of the looking master's own clock; no clocks of two
//! machines are compared. A wrong answer is safe, for the log fences: it costs a change of reign.

use std::time::Duration;

use millstream_common::ids::{Seq, Term};

use super::heartbeat::{Heartbeat, Place};

/// An active master is gone when nothing has changed for this long: three heartbeats.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// From one look to the next.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Looks without a change that it takes besides: storage that answers slowly shows old things.
const SAME_LOOKS_MIN: u32 = 4;

/// What one look shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The newest heartbeat.
    pub heartbeat: Option<Heartbeat>,
    /// The term of the newest log object.
    pub term: Term,
    /// The first free position of the log.
    pub end: Seq,
}

impl Sign {
    /// The reign that the log tells of has been laid down. A heartbeat below its term is from before it.
    fn is_resigned(&self) -> bool {
        let heartbeat = self.heartbeat.as_ref();
        heartbeat.is_some_and(|heartbeat| heartbeat.resigned && heartbeat.term >= self.term)
    }

    /// Whether anybody need not wait: nobody has ever reigned, or the last one has resigned.
    pub fn is_vacant(&self) -> bool {
        let is_first = self.term == Term(0) && self.heartbeat.is_none();
        is_first || self.is_resigned()
    }

    /// Whether a master that begins at `place` need not wait: nobody reigns, or the last one had this very address of
    /// this machine, which cannot be taken twice.
    pub fn is_vacant_for(&self, place: &Place) -> bool {
        let heartbeat = self.heartbeat.as_ref();
        let is_successor = heartbeat.is_some_and(|heartbeat| {
            let is_place = heartbeat.address == place.address && heartbeat.host == place.host;
            is_place && heartbeat.term >= self.term && is_one_place(&place.address)
        });
        self.is_vacant() || is_successor
    }
}

/// Every host has these addresses.
fn is_one_place(address: &str) -> bool {
    !address.starts_with("0.0.0.0:") && !address.starts_with("[::]:")
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody reigns.
    Reigned,
    /// Nobody does.
    Vacant,
}

/// The looks of one that stands by.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Option<Sign>,
    changed_at: Duration,
    same_looks: u32,
}

impl Watch {
    /// Takes what was seen at monotonic time `now`.
    pub fn look(&mut self, sign: Sign, now: Duration) -> Verdict {
        if sign.is_resigned() {
            return Verdict::Vacant;
        }
        if self.seen.as_ref() != Some(&sign) {
            self.seen = Some(sign);
            self.changed_at = now;
            self.same_looks = 0;
            return Verdict::Reigned;
        }
        self.same_looks += 1;
        let is_silent = now.saturating_sub(self.changed_at) >= SILENCE_MAX;
        match is_silent && self.same_looks >= SAME_LOOKS_MIN {
            true => Verdict::Vacant,
            false => Verdict::Reigned,
        }
    }

    /// Storage did not answer: nobody can be seen to live, and the time begins anew.
    pub fn blind(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: &str, host: &str) -> Place {
        Place {
            address: address.to_owned(),
            dashboard: None,
            host: host.to_owned(),
        }
    }

    fn sign(term: u64, counter: u64) -> Sign {
        let heartbeat = Heartbeat {
            counter,
            ..Heartbeat::new(Term(term), &place("one:7070", "a"), "one")
        };
        Sign {
            heartbeat: Some(heartbeat),
            term: Term(term),
            end: Seq(9),
        }
    }

    fn resigned(term: u64) -> Sign {
        let mut sign = sign(term, 1);
        if let Some(heartbeat) = &mut sign.heartbeat {
            heartbeat.resigned = true;
        }
        sign
    }

    /// Looks at `signs` one after another, every interval.
    fn verdicts(signs: impl IntoIterator<Item = Sign>) -> Vec<Verdict> {
        let mut watch = Watch::default();
        let timed = signs.into_iter().zip(0_u32..);
        timed
            .map(|(sign, index)| watch.look(sign, LOOK_INTERVAL * index))
            .collect()
    }

    #[test]
    fn a_master_whose_counter_stands_still_for_three_heartbeats_is_gone() {
        let seen = verdicts(vec![sign(1, 5); 7]);
        assert_eq!(seen[5], Verdict::Reigned, "after 1.25 s");
        assert_eq!(seen[6], Verdict::Vacant, "after 1.5 s");
    }

    #[test]
    fn any_new_counter_or_log_entry_is_a_sign_of_life() {
        let counting = (0..40).map(|look| sign(1, look / 5));
        assert!(!verdicts(counting).contains(&Verdict::Vacant));
        let writing = (0..40).map(|look| Sign {
            end: Seq(look / 5),
            ..sign(1, 0)
        });
        assert!(!verdicts(writing).contains(&Verdict::Vacant));
    }

    #[test]
    fn one_that_slept_itself_looks_again_before_it_judges() {
        let mut watch = Watch::default();
        watch.look(sign(1, 5), Duration::ZERO);
        let late = Duration::from_secs(60);
        assert_eq!(watch.look(sign(1, 6), late), Verdict::Reigned);
        assert_eq!(
            watch.look(sign(1, 6), late * 2),
            Verdict::Reigned,
            "one look is none"
        );
    }

    #[test]
    fn silence_of_the_storage_is_not_silence_of_the_master() {
        let mut watch = Watch::default();
        for index in 0..40 {
            assert_eq!(
                watch.look(sign(1, 5), LOOK_INTERVAL * index),
                Verdict::Reigned
            );
            watch.blind();
        }
    }

    #[test]
    fn who_has_resigned_is_not_waited_for_unless_somebody_reigns_since() {
        assert_eq!(verdicts([resigned(3)]), [Verdict::Vacant]);
        let since = Sign {
            term: Term(4),
            ..resigned(3)
        };
        assert_eq!(verdicts([since.clone()]), [Verdict::Reigned]);
        assert!(!since.is_vacant_for(&place("other:7070", "a")));
    }

    #[test]
    fn a_new_master_begins_at_once_on_new_storage_and_at_its_predecessors_address() {
        let empty = Sign {
            heartbeat: None,
            term: Term(0),
            end: Seq(1),
        };
        let one = place("one:7070", "a");
        assert!(empty.is_vacant_for(&one));
        assert!(sign(3, 5).is_vacant_for(&one));
        assert!(!sign(3, 5).is_vacant_for(&place("two:7070", "a")));
        let unheard = Sign {
            heartbeat: None,
            ..sign(3, 5)
        };
        assert!(!unheard.is_vacant_for(&one));
        let anywhere = place("0.0.0.0:7070", "a");
        let sign = Sign {
            heartbeat: Some(Heartbeat::new(Term(3), &anywhere, "one")),
            ..sign(3, 5)
        };
        assert!(!sign.is_vacant_for(&anywhere), "every host has it");
    }

    #[test]
    fn the_same_address_of_another_machine_is_another_master() {
        assert!(!sign(3, 5).is_vacant_for(&place("one:7070", "b")));
        let old = r#"{"term":3,"counter":5,"address":"one:7070","master":"one","resigned":false}"#;
        let unknown = Sign {
            heartbeat: Some(serde_json::from_str(old).expect("an older heartbeat")),
            ..sign(3, 5)
        };
        assert!(!unknown.is_vacant_for(&place("one:7070", "a")));
    }
}
