//! How long each worker process may be silent before it counts as lost.
//!
//! Pure; owned by the registry. A machine with more to do than it can wakes a process too seldom for the ordinary silence, and every loss
//! rewinds the jobs of all: so a process that comes back after having been lost for its silence is given twice the time, again and
//! again up to [`SILENCE_MAX_STARVED`], and from its return on all others are given as much, up to [`SILENCE_MAX_OTHERS`]: what
//! starves one of them starves its neighbours next. One that has died does not come back, and its successor is another process; its end closes its
//! connections, so that a crash is noticed as soon as ever. Bounded: after a calm period a process is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

/// A worker silent for this long is lost: three heartbeats.
pub const SILENCE_MAX: Duration = Duration::from_millis(900);
/// The longest silence that a starved process is given.
pub const SILENCE_MAX_STARVED: Duration = Duration::from_secs(10);
/// The longest silence that all others are given then: one that hangs by itself has to be noticed.
pub const SILENCE_MAX_OTHERS: Duration = Duration::from_secs(3);
/// A process that was not lost for this long is like any other again.
const CALM: Duration = Duration::from_secs(60);

/// The processes that were lost for their silence lately.
#[derive(Debug, Default)]
pub struct Patience {
    starved: BTreeMap<String, Starved>,
}

#[derive(Debug)]
struct Starved {
    silence_max: Duration,
    /// Monotonic.
    lost_at: Duration,
    /// It lives: it was lost wrongly.
    is_back: bool,
}

impl Patience {
    /// How long `process` may be silent, at monotonic time `now`.
    pub fn silence_max(&self, process: &str, now: Duration) -> Duration {
        let mut silence_max = SILENCE_MAX;
        for (lost, starved) in &self.starved {
            let is_calm = now.saturating_sub(starved.lost_at) >= CALM;
            let given = match (is_calm, lost == process, starved.is_back) {
                (false, true, _) => starved.silence_max,
                (false, false, true) => starved.silence_max.min(SILENCE_MAX_OTHERS),
                _ => SILENCE_MAX,
            };
            silence_max = silence_max.max(given);
        }
        silence_max
    }

    /// `process` is lost for its silence; should it come back, it may be silent for twice as long.
    pub fn lost(&mut self, process: &str, now: Duration) {
        let silence_max = (self.silence_max(process, now) * 2).min(SILENCE_MAX_STARVED);
        self.starved
            .retain(|_, starved| now.saturating_sub(starved.lost_at) < CALM);
        let starved = Starved {
            silence_max,
            lost_at: now,
            is_back: false,
        };
        self.starved.insert(process.to_owned(), starved);
    }

    /// `process` has joined; if it was lost for its silence, that was wrong.
    pub fn joined(&mut self, process: &str) {
        if let Some(starved) = self.starved.get_mut(process) {
            starved.is_back = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_doubles_with_each_loss_up_to_a_bound() {
        let mut patience = Patience::default();
        let mut given = Vec::new();
        for second in 0..5 {
            let now = Duration::from_secs(second);
            patience.lost("starved", now);
            given.push(patience.silence_max("starved", now).as_millis());
        }
        assert_eq!(given, [1_800, 3_600, 7_200, 10_000, 10_000]);
    }

    #[test]
    fn who_comes_back_from_silence_shows_that_the_others_need_the_time_too() {
        let mut patience = Patience::default();
        patience.lost("silent", Duration::ZERO);
        assert_eq!(patience.silence_max("other", Duration::ZERO), SILENCE_MAX);
        patience.joined("silent");
        patience.joined("new");
        let given = patience.silence_max("other", Duration::ZERO);
        assert_eq!(given, SILENCE_MAX * 2);
        patience.lost("silent", Duration::ZERO);
        patience.joined("silent");
        let given = patience.silence_max("other", Duration::ZERO);
        assert_eq!(given, SILENCE_MAX_OTHERS);
        assert_eq!(patience.silence_max("other", CALM), SILENCE_MAX);
    }

    #[test]
    fn after_a_calm_period_a_process_is_like_any_other_again() {
        let mut patience = Patience::default();
        patience.lost("starved", Duration::ZERO);
        let before = patience.silence_max("starved", CALM - Duration::from_millis(1));
        assert_eq!(before, SILENCE_MAX * 2);
        assert_eq!(patience.silence_max("starved", CALM), SILENCE_MAX);
        patience.lost("another", CALM);
        assert_eq!(patience.starved.len(), 1, "what is calm is forgotten");
    }
}
