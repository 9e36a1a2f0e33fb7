//! How a job's position is stored, and what is made of one that was stored before epochs were retained.
//!
//! Read with boundaries, savepoints and Carried entries. Until then a job kept the epochs that some sink lacked, under another name, and
//! the segments of all others went at once: so the oldest epoch that is kept says how far every sink was, and how far back one can be
//! sent. Pure. Failure: that of the decoder.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::JobProgress;
use crate::ids::Epoch;

/// Stands for the epochs that are forgotten where nothing says which.
const UNSAID: Epoch = Epoch(u64::MAX);

pub(super) fn unsaid() -> Epoch {
    UNSAID
}

impl Serialize for JobProgress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for JobProgress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut progress = Self::deserialize(deserializer)?;
        if progress.retained_from == UNSAID {
            let stored = progress.backlog.first().map(|part| part.parent);
            let oldest = stored.or(progress.recent.first().map(|kept| kept.parent));
            progress.retained_from = oldest.unwrap_or(progress.epoch);
            progress.delivered = progress.retained_from;
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a job at epoch 9, in front of the epochs that are kept.
    const OF_BEFORE: &str = r#""epoch":9,"splits":{},"watermarks":{"0":3},"acted_watermarks":{"0":2},"parts":{},"counters":{},"flows":{},
        "shipped":{"1":40},"refused":{},"sink_markers":{"0":7,"1":9},"drained":false"#;
    const PART: &str =
        r#"{"path":"backlog/a","checksum":1,"parent":4,"last":7,"epoch_count":3,"outputs":{}}"#;

    fn read(kept: &str) -> JobProgress {
        serde_json::from_str(&format!("{{{OF_BEFORE},{kept}}}")).expect("a log of before")
    }

    fn kept(progress: &JobProgress) -> (u64, u64, usize) {
        let (from, held) = (progress.retained_from.0, progress.delivered.0);
        (from, held, progress.recent.len())
    }

    #[test]
    fn a_log_of_before_epochs_were_retained_is_read_and_keeps_what_it_kept() {
        let recent = r#""undelivered":[{"epoch":8,"parent":7,"segments":[],"last":false},{"epoch":9,"parent":8,"segments":[],"last":false}]"#;
        let lagging = read(recent);
        assert_eq!(kept(&lagging), (7, 7, 2));
        assert_eq!(
            (lagging.marker(crate::ids::SinkIndex(0)).0, lagging.epoch.0),
            (7, 9)
        );
        let far = read(&format!(r#""backlog":[{PART}],{recent}"#));
        assert_eq!(kept(&far), (4, 4, 2));
        assert_eq!(kept(&read(r#""undelivered":[]"#)), (9, 9, 0));
    }

    #[test]
    fn what_is_written_now_is_read_as_it_was() {
        let mut progress = read(r#""undelivered":[]"#);
        progress.retained_from = Epoch(0);
        progress.delivered = Epoch(5);
        let written = serde_json::to_string(&progress).expect("JSON");
        let again: JobProgress = serde_json::from_str(&written).expect("JSON");
        assert_eq!(again, progress);
    }
}
