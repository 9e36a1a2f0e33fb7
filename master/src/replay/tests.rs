//! What the log comes to: lives, assignments, savepoints and plans that follow each other.

use millstream_common::control::SinkCommand;
use millstream_common::ids::{Epoch, SinkIndex};
use millstream_common::log::entry::{AssignEntry, EpochEntry};
use millstream_common::log::savepoint::{CarriedEntry, SavepointEntry};
use millstream_common::plan::{JobPlan, JobSettings, LetterRetention};

use super::*;

const SINKLESS: JobPlan = JobPlan {
    settings: JobSettings {
        checkpoint_interval_ms: 1,
        restart_budget: 1,
        restart_window_ms: 1,
        dead_letters: LetterRetention::DEFAULT,
        segment_retention_ms: None,
    },
    sources: Vec::new(),
    stages: Vec::new(),
    outputs: Vec::new(),
    sinks: Vec::new(),
};

fn job(incarnation: Incarnation) -> Entry {
    Entry::Job(Box::new(JobEntry {
        job: "clicks".into(),
        incarnation,
        sql: String::new(),
        plan: SINKLESS,
        submitted_at_us: 0,
        submission: None,
    }))
}

fn assign(incarnation: Incarnation) -> Entry {
    Entry::Assign(Box::new(AssignEntry {
        job: "clicks".into(),
        incarnation,
        restore_from: Epoch(0),
        assignment: Assignment::default(),
        placement: None,
    }))
}

fn epoch(incarnation: Incarnation, number: u64, generation: u64) -> Entry {
    let life = (&"clicks".into(), incarnation);
    let entry = EpochEntry::empty(
        life,
        Epoch(number - 1),
        Epoch(number),
        Generation(generation),
    );
    Entry::Epoch(Box::new(entry))
}

fn replayed(entries: &[Entry]) -> ReplayedJob {
    let numbered = entries
        .iter()
        .enumerate()
        .map(|(index, entry)| (Seq(index as u64 + 1), entry));
    let mut jobs = replay(numbered).expect("a chain");
    jobs.remove(&JobName::from("clicks")).expect("the job")
}

#[test]
fn an_epoch_of_an_older_assignment_does_not_count() {
    let life = Incarnation::fresh();
    let entries = [
        job(life),
        assign(life),
        epoch(life, 1, 2),
        assign(life),
        epoch(life, 2, 2),
        epoch(life, 2, 4),
    ];
    let job = replayed(&entries);
    assert_eq!(job.progress.epoch, Epoch(2));
    assert_eq!(job.generation, Generation(4));
}

#[test]
fn a_new_life_forgets_the_old_ones_epochs() {
    let (old, new) = (Incarnation::fresh(), Incarnation::fresh());
    let entries = [
        job(old),
        assign(old),
        epoch(old, 1, 2),
        job(new),
        epoch(old, 2, 2),
    ];
    let job = replayed(&entries);
    assert_eq!(job.entry.incarnation, new);
    assert_eq!(job.progress.epoch, Epoch(0));
}

#[test]
fn a_resumed_job_has_not_ended() {
    let life = Incarnation::fresh();
    let ended = Entry::Ended {
        job: "clicks".into(),
        incarnation: life,
        end: JobEnd::Stopped,
    };
    assert_eq!(
        replayed(&[job(life), ended.clone()]).end,
        Some(JobEnd::Stopped)
    );
    let resumed = Entry::Resumed {
        job: "clicks".into(),
        incarnation: life,
    };
    assert_eq!(replayed(&[job(life), ended, resumed]).end, None);
}

#[test]
fn a_pause_of_a_sink_holds_over_a_stop_and_in_a_boundary_until_it_is_resumed_or_the_life_ends() {
    let life = Incarnation::fresh();
    let sink = SinkIndex(1);
    let commanded = |command| Entry::SinkCommanded {
        job: "clicks".into(),
        incarnation: life,
        sink,
        command,
        by_quota: false,
    };
    let ended = Entry::Ended {
        job: "clicks".into(),
        incarnation: life,
        end: JobEnd::Stopped,
    };
    let resumed = Entry::Resumed {
        job: "clicks".into(),
        incarnation: life,
    };
    let paused = [job(life), commanded(SinkCommand::Pause), ended, resumed];
    let replayed_job = replayed(&paused);
    let folded = serde_json::to_vec(&replayed_job).expect("plain data");
    let folded: ReplayedJob = serde_json::from_slice(&folded).expect("plain data");
    for found in [replayed_job, folded] {
        assert_eq!(found.progress.paused_sinks, [sink].into());
    }
    for end in [commanded(SinkCommand::Resume), job(Incarnation::fresh())] {
        let entries = paused.iter().cloned().chain([end]).collect::<Vec<_>>();
        assert!(replayed(&entries).progress.paused_sinks.is_empty());
    }
}

#[test]
fn only_the_newest_assignment_of_a_job_that_has_not_ended_may_go_on() {
    let life = Incarnation::fresh();
    let ended = Entry::Ended {
        job: "clicks".into(),
        incarnation: life,
        end: JobEnd::Stopped,
    };
    let resumed = Entry::Resumed {
        job: "clicks".into(),
        incarnation: life,
    };
    let lasting = replayed(&[job(life), assign(life), assign(life)]).lasting();
    let lasting = lasting.expect("an assignment");
    assert_eq!(
        (lasting.incarnation, lasting.generation),
        (life, Generation(3))
    );
    let over = replayed(&[job(life), assign(life), ended, resumed]);
    assert!(over.lasting().is_none());
}

#[test]
fn a_savepoint_is_of_its_epoch_whatever_comes_behind_and_outlives_its_life() {
    let life = Incarnation::fresh();
    let kept = |number, name: &str| {
        Entry::Savepoint(SavepointEntry {
            job: "clicks".into(),
            incarnation: life,
            epoch: Epoch(number),
            name: name.to_owned(),
            made_at_us: 5,
        })
    };
    let mut entries = vec![
        job(life),
        assign(life),
        epoch(life, 1, 2),
        kept(1, "first"),
        epoch(life, 2, 2),
        kept(1, "not of the newest"),
        kept(2, "first"),
    ];
    let savepoints = replayed(&entries).savepoints;
    assert_eq!(savepoints.keys().collect::<Vec<_>>(), ["first"]);
    assert_eq!(savepoints["first"].progress.epoch, Epoch(1));
    entries.push(job(Incarnation::fresh()));
    assert_eq!(replayed(&entries).savepoints, savepoints);
    entries.push(Entry::SavepointDropped {
        job: "clicks".into(),
        name: "first".to_owned(),
    });
    assert!(replayed(&entries).savepoints.is_empty());
}

#[test]
fn a_job_that_goes_on_under_another_plan_begins_with_what_was_carried_and_no_older_assignment() {
    let life = Incarnation::fresh();
    let progress = JobProgress {
        epoch: Epoch(1),
        ..JobProgress::default()
    };
    let Entry::Job(other) = job(life) else {
        panic!("a job");
    };
    let carried = Entry::Carried(Box::new(CarriedEntry {
        job: JobEntry {
            sql: "other".to_owned(),
            ..*other
        },
        progress,
    }));
    let entries = [
        job(life),
        assign(life),
        epoch(life, 1, 2),
        carried,
        epoch(life, 2, 2),
        assign(life),
        epoch(life, 2, 6),
    ];
    let before = replayed(&entries[..5]);
    assert_eq!(before.progress.epoch, Epoch(1), "of an assignment before");
    assert!(before.assignment.is_none());
    let after = replayed(&entries);
    assert_eq!(
        (after.progress.epoch, after.entry.sql.as_str()),
        (Epoch(2), "other")
    );
}
