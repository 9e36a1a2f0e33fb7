//! Why nothing comes out of a job, in words: the answer that the command line, the API and the dashboard share.
//!
//! Asked by `watermarks.rs`. Pure: a function of the plan and of what people see of the job.

use millstream_common::control::{JobState, JobView, SinkView, SourceWatermarkView, StageView};
use millstream_common::plan::{JobPlan, Port};
use millstream_common::text;
use millstream_common::time::EventTime;

/// What keeps rows from coming out, the nearest cause first; nothing where nothing does.
pub(super) fn why(plan: &JobPlan, job: &JobView, sources: &[SourceWatermarkView]) -> Vec<String> {
    let mut why = Vec::new();
    match (job.state, &job.cause) {
        (JobState::Stopped, _) => {
            why.push("the job is stopped: it goes on when it is submitted again".to_owned())
        }
        (JobState::Finished, _) => why.push("the job is finished: its input has ended".to_owned()),
        (state, Some(cause)) => why.push(format!("the job is {state}: {cause}")),
        (_, None) => {}
    }
    if !job.state.is_over() {
        why.extend(why_of_rows(job, sources));
        why.extend(why_of_stages(plan, job));
        for (source, planned) in sources.iter().zip(&plan.sources) {
            why.extend(why_of_source(source, planned.idle_timeout_ms));
        }
    }
    why.extend(job.sinks.iter().filter_map(|sink| why_of_sink(job, sink)));
    why
}

/// Rows are counted once their epoch is in the log: before the first one nobody knows how many were read.
fn why_of_rows(job: &JobView, sources: &[SourceWatermarkView]) -> Option<String> {
    if job.rows_read == 0 {
        let are_empty = job.state == JobState::Running && sources.iter().all(is_read_to_its_end);
        return Some(match job.lag_records {
            _ if are_empty => "no row has been read: the sources hold none yet".to_owned(),
            Some(lag) if lag > 0 => format!(
                "no epoch with rows is committed yet, and {} records wait",
                text::count(lag)
            ),
            Some(_) | None => "no epoch with rows is committed yet".to_owned(),
        });
    }
    let dropped: u64 = job.sources.iter().map(|source| source.rows_dropped).sum();
    if job.rows_rejected + dropped < job.rows_read {
        return None;
    }
    let letters = format!("`millstream dead-letters {}` shows why", job.name);
    let [read, dropped_count] = [job.rows_read, dropped].map(text::count);
    Some(match (job.rows_rejected, dropped) {
        (_, 0) => format!("all {read} rows that were read are dead letters: {letters}"),
        (0, _) => format!("all {read} rows that were read were dropped (on_violation = 'drop')"),
        (_, _) => format!(
            "all {read} rows that were read were refused: {dropped_count} were dropped (on_violation = 'drop'), \
             the others are dead letters: {letters}"
        ),
    })
}

/// It is known that none of its splits holds a record that nobody has read.
fn is_read_to_its_end(source: &SourceWatermarkView) -> bool {
    let mut splits = source.splits.iter();
    !source.splits.is_empty() && splits.all(|split| split.lag_records == Some(0))
}

/// A stage that lets nothing pass.
fn why_of_stages(plan: &JobPlan, job: &JobView) -> Vec<String> {
    let stages = plan.stages.iter().zip(&job.stages);
    let mut why = Vec::new();
    for (planned, stage) in stages {
        let name = &stage.name;
        if stage.received > 0 && stage.duplicates == stage.received {
            let rows = text::count(stage.received);
            why.push(format!(
                "all {rows} rows that came to {name} had come before"
            ));
        }
        for (branch, passed) in planned.branches.iter().zip(&stage.branches) {
            let waits = branch.port == Port::Final && stage.folded > 0 && passed.given == 0;
            if waits {
                why.push(format!(
                    "no window of {} has closed yet: the groups of {} rows wait until the watermark passes their end",
                    passed.to,
                    text::count(stage.folded)
                ));
            }
        }
        why.extend(why_of_branches(stage));
    }
    why
}

fn why_of_branches(stage: &StageView) -> impl Iterator<Item = String> {
    let stuck = stage
        .branches
        .iter()
        .filter(|branch| branch.given > 0 && branch.sent == 0);
    stuck.map(|branch| {
        let what = if branch.filtered == branch.given {
            "were filtered out"
        } else if branch.late == branch.given {
            "were late"
        } else if branch.failed == branch.given {
            "are dead letters, for an expression failed on them"
        } else {
            "were filtered out, late, or dead letters"
        };
        let given = text::count(branch.given);
        format!(
            "all {given} rows on the way from {} to {} {what}",
            stage.name, branch.to
        )
    })
}

fn why_of_sink(job: &JobView, sink: &SinkView) -> Option<String> {
    let name = &sink.name;
    let waiting = match sink.lag_rows {
        0 => String::new(),
        rows => {
            let age = sink
                .lag_age_ms
                .map(|age| format!(" for {}", text::duration(age)));
            format!(
                ", and {} rows wait{}",
                text::count(rows),
                age.unwrap_or_default()
            )
        }
    };
    match (&sink.cause, sink.paused) {
        (_, true) => Some(format!(
            "sink {name} is paused{waiting}: `millstream sink resume {} {name}`",
            job.name
        )),
        (Some(cause), false) => Some(format!("sink {name} does not take rows{waiting}: {cause}")),
        (None, false) => None,
    }
}

/// Windows over a source wait for its watermark; this says for whom the watermark waits.
fn why_of_source(source: &SourceWatermarkView, timeout_ms: Option<u64>) -> Option<String> {
    if !source.keeps_time {
        return None;
    }
    let name = &source.name;
    let Some(holder) = source.held_by.as_ref().and_then(|held_by| {
        let mut splits = source.splits.iter();
        splits.find(|split| split.split == *held_by)
    }) else {
        let are_idle = !source.splits.is_empty() && source.splits.iter().all(|split| split.is_idle);
        let watermark = shown(source.watermark);
        return are_idle.then(|| {
            format!(
                "every split of source {name} is idle: its watermark stays at {watermark} until a row comes"
            )
        });
    };
    let until = match timeout_ms {
        Some(timeout_ms) => format!(
            "it counts as idle {} s after its last row, once it is read to its end",
            timeout_ms / 1_000
        ),
        None => "it never counts as idle, for idle_timeout is 'never'".to_owned(),
    };
    let split = match &holder.worker {
        Some(worker) => format!("{} (on {worker})", holder.split),
        None => holder.split.to_string(),
    };
    if holder.watermark.is_none() {
        return Some(format!(
            "no row of split {split} of source {name} has come yet, and nobody's window closes before: {until}"
        ));
    }
    let silence = match holder.silent_ms {
        Some(silent_ms) => format!("its last row came {} s ago", silent_ms / 1_000),
        None => "no row of it has come for as long as this master knows".to_owned(),
    };
    Some(format!(
        "windows over source {name} that end after {} wait for split {split}: {silence}; {until}",
        shown(source.watermark)
    ))
}

fn shown(watermark: Option<EventTime>) -> String {
    match watermark {
        None => "nothing".to_owned(),
        time => text::watermark(time),
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::control::{BranchView, SplitWatermarkView};

    use super::*;
    use crate::dashboard::tests::scene;

    fn split(name: &str, watermark: Option<i64>) -> SplitWatermarkView {
        SplitWatermarkView {
            split: name.into(),
            is_idle: false,
            watermark: watermark.map(EventTime),
            position: 0,
            lag_records: Some(0),
            worker: None,
            silent_ms: Some(12_000),
            idle_ms: None,
        }
    }

    fn source(splits: Vec<SplitWatermarkView>) -> SourceWatermarkView {
        SourceWatermarkView {
            name: "clicks".to_owned(),
            connector: "kafka".to_owned(),
            keeps_time: true,
            watermark: Some(EventTime(0)),
            delay_ms: Some(5),
            held_by: splits.first().map(|split| split.split.clone()),
            splits,
            splits_ended: 0,
            lag_records: Some(0),
        }
    }

    #[test]
    fn the_split_that_holds_time_back_is_named_with_what_will_change_that() {
        let quiet = why_of_source(&source(vec![split("clicks-3", Some(0))]), Some(30_000));
        let quiet = quiet.expect("windows wait");
        for part in ["clicks-3", "12 s ago", "idle 30 s after"] {
            assert!(quiet.contains(part), "{quiet}");
        }
        let empty = why_of_source(&source(vec![split("clicks-3", None)]), None);
        let empty = empty.expect("windows wait");
        assert!(empty.contains("'never'"), "{empty}");
        let untimed = SourceWatermarkView {
            keeps_time: false,
            ..source(Vec::new())
        };
        assert_eq!(why_of_source(&untimed, None), None);
    }

    fn job(
        state: JobState,
        lag_records: Option<u64>,
        [read, rejected, dropped]: [u64; 3],
    ) -> JobView {
        let mut job = scene::job("clicks");
        (job.state, job.lag_records) = (state, lag_records);
        (job.rows_read, job.rows_rejected) = (read, rejected);
        job.sources[0].rows_dropped = dropped;
        job
    }

    #[test]
    fn sources_are_said_to_be_empty_only_where_that_is_known() {
        let read = [source(vec![split("clicks-0", None)])];
        let unread = [source(vec![SplitWatermarkView {
            lag_records: None,
            ..split("part.csv", None)
        }])];
        let why = |state, lag, sources: &[SourceWatermarkView]| {
            why_of_rows(&job(state, lag, [0; 3]), sources).expect("a cause")
        };
        let empty = "no row has been read: the sources hold none yet";
        let unknown = "no epoch with rows is committed yet";
        assert_eq!(why(JobState::Running, Some(0), &read), empty);
        assert_eq!(why(JobState::Running, None, &unread), unknown);
        assert_eq!(why(JobState::Running, None, &[source(Vec::new())]), unknown);
        assert_eq!(why(JobState::Waiting, Some(0), &read), unknown);
        let waiting = why(JobState::Running, Some(1_200), &unread);
        assert_eq!(waiting, format!("{unknown}, and 1,200 records wait"));
    }

    #[test]
    fn rows_that_were_all_dropped_are_spoken_of() {
        let why = |counts| why_of_rows(&job(JobState::Running, Some(0), counts), &[]);
        assert_eq!(why([10, 4, 5]), None);
        let dropped = why([10, 0, 10]).expect("a cause");
        assert_eq!(
            dropped,
            "all 10 rows that were read were dropped (on_violation = 'drop')"
        );
        let both = why([10, 4, 6]).expect("a cause");
        for part in ["6 were dropped", "dead-letters clicks"] {
            assert!(both.contains(part), "{both}");
        }
    }

    fn stage(branch: BranchView) -> StageView {
        StageView {
            name: "clicks".to_owned(),
            branches: vec![branch],
            ..StageView::default()
        }
    }

    #[test]
    fn a_filter_that_lets_nothing_pass_is_named_and_one_that_lets_a_row_pass_is_not() {
        let branch = |filtered, sent| BranchView {
            to: "views".to_owned(),
            given: 1_200,
            filtered,
            sent,
            ..BranchView::default()
        };
        let why: Vec<String> = why_of_branches(&stage(branch(1_200, 0))).collect();
        assert_eq!(
            why,
            ["all 1,200 rows on the way from clicks to views were filtered out"]
        );
        assert_eq!(why_of_branches(&stage(branch(1_199, 1))).count(), 0);
        assert_eq!(why_of_branches(&stage(BranchView::default())).count(), 0);
    }
}
