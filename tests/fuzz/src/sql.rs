//! A job. It is planned, or refused with problems that have a place in it; a plan is the same after it was written and read.

use millstream_common::plan::JobPlan;
use millstream_common::secret::Lookup;
use millstream_master::plan::plan_job;

/// Some variables are set.
struct Variables;

impl Lookup for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        name.starts_with('K').then(|| "localhost:9092".to_owned())
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("{path} is not there"))
    }
}

pub(crate) fn feed(data: &[u8]) {
    let Ok(sql) = std::str::from_utf8(data) else {
        return;
    };
    match plan_job(sql, &Variables) {
        Ok(planned) => {
            let written = serde_json::to_string(&planned.plan).expect("a plan is plain data");
            let read: JobPlan = serde_json::from_str(&written).expect("what was written");
            let again = serde_json::to_string(&read).expect("a plan is plain data");
            assert_eq!(written, again, "a plan is the same after it was read");
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a problem");
            let last = sql.split('\n').count() as u64;
            for problem in problems {
                assert!(
                    problem.line <= last,
                    "line {} of {last}: {problem:?}",
                    problem.line
                );
                assert!(!problem.message.is_empty(), "a problem says what is wrong");
            }
        }
    }
}
