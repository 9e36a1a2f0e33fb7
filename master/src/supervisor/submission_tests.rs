//! Submissions that are said again, because their answers were lost, under the supervisor.

use std::sync::Arc;

use millstream_common::control::ControlError;
use millstream_common::log::{self, Entry};
use millstream_common::store::StoreRef;
use ractor::{ActorRef, call};

use super::submission::{Started, Submission, Unchanged};
use super::supervisor_actor::SupervisorMessage;
use crate::testing::{Answers, MemoryStore, memory, plan, soon, supervise};

const SQL: &str = "\
    CREATE SOURCE numbers (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = '10');\
    CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole');";
const OTHER_SQL: &str = "\
    CREATE SOURCE numbers (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = '20');\
    CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole');";

async fn submit(
    supervisor: &ActorRef<SupervisorMessage>,
    sql: &str,
    fresh: bool,
    id: &str,
) -> Result<Started, ControlError> {
    let submission = Box::new(Submission {
        trace: Default::default(),
        job: "clicks".into(),
        sql: sql.to_owned(),
        plan: plan(sql),
        fresh,
        from: None,
        id: Some(id.to_owned()),
    });
    let submitted = soon(async {
        call!(supervisor, |reply| SupervisorMessage::Submit {
            submission,
            reply
        })
    });
    submitted.await.expect("call")
}

/// How often the log begins a job.
async fn begun_count(store: &Arc<MemoryStore>) -> usize {
    let store: StoreRef = store.clone();
    let objects = log::read_all(&store).await.expect("read");
    let entries = objects.iter().flat_map(|(_, object)| &object.entries);
    let begun = entries.filter(|entry| matches!(entry, Entry::Job(_)));
    begun.count()
}

fn is_refused(submitted: &Result<Started, ControlError>) -> bool {
    matches!(submitted, Err(ControlError::AlreadyRunning { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_is_said_again_while_its_entry_is_on_its_way_begins_one_life() {
    let store = memory();
    let supervisor = supervise(&store, Vec::new()).await;
    store.answer(Answers::AllBut("log/"));
    let release = async {
        // Behind the questions: the actor takes one message after the other.
        call!(supervisor, SupervisorMessage::AllWorkers).expect("call");
        store.answer(Answers::All);
    };
    let (first, again, alike, other, ()) = tokio::join!(
        submit(&supervisor, SQL, true, "one"),
        submit(&supervisor, SQL, true, "one"),
        submit(&supervisor, SQL, false, "two"),
        submit(&supervisor, OTHER_SQL, false, "three"),
        release,
    );
    let first = first.expect("it begins").actor.get_id();
    assert_eq!(again.expect("the same").actor.get_id(), first);
    assert_eq!(alike.expect("no other job").actor.get_id(), first);
    assert!(is_refused(&other), "{other:?}");
    assert_eq!(begun_count(&store).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_runs_as_it_is_submitted_again_is_left_alone_and_other_sql_is_refused() {
    let store = memory();
    let supervisor = supervise(&store, Vec::new()).await;
    let first = submit(&supervisor, SQL, false, "one").await.expect("new");
    assert_eq!(first.unchanged, Unchanged::No);
    let again = submit(&supervisor, SQL, false, "two").await.expect("same");
    assert_eq!(again.unchanged, Unchanged::Alike);
    assert_eq!(again.actor.get_id(), first.actor.get_id());
    let retry = submit(&supervisor, SQL, true, "one").await.expect("same");
    assert_eq!(retry.unchanged, Unchanged::Retry);
    let fresh = submit(&supervisor, SQL, true, "three").await;
    assert!(is_refused(&fresh), "a new life was asked for: {fresh:?}");
    let other = submit(&supervisor, OTHER_SQL, false, "four").await;
    assert!(is_refused(&other), "{other:?}");
    assert_eq!(begun_count(&store).await, 1);
}
