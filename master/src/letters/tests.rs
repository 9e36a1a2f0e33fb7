//! Dead letters in memory: what is listed of what the log names, and what is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BinaryArray, Int8Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use futures::TryStreamExt;
use millstream_common::control::{
    ControlError, LetterFilter, LetterPage, LetterQuery, ReplayRequest, Replayed, StopMode,
};
use millstream_common::dead_letter;
use millstream_common::ids::{Epoch, JobName, OutputIndex, Term};
use millstream_common::ipc;
use millstream_common::log::Entry;
use millstream_common::plan::{JobPlan, OP_COLUMN};
use millstream_common::report::Segment;
use millstream_common::store::{Store, StoreRef};
use millstream_common::time::Clock;
use ractor::{ActorRef, call};

use super::clerk_actor::Clerk;
use super::desk::Desk;
use super::resend::{self, Prepared, Stamp};
use crate::job::job_actor::JobMessage;
use crate::supervisor::supervisor_actor::SupervisorMessage;
use crate::testing::{
    Answers, ENDLESS, MemoryStore, ToldLog, clerk, memory, plan, soon, supervise_log,
};

const JOB: &str = "\
    CREATE SOURCE clicks (id BIGINT NOT NULL, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at) \
      WITH (connector = 'kafka', brokers = 'b:1', topic = 't', format = 'json');\
    CREATE SOURCE lines (id BIGINT NOT NULL) WITH (connector = 'files', path = '/nowhere', format = 'csv');\
    CREATE VIEW firsts AS SELECT DISTINCT ON (id) id, at FROM clicks;\
    CREATE SINK nowhere FROM firsts WITH (connector = 'blackhole');\
    CREATE SINK nobody FROM lines WITH (connector = 'blackhole');";

/// Position, code and payload of a letter; it was received at as many seconds as its position.
type Letter = (i64, &'static str, &'static [u8]);

/// Epochs are committed at 1970, and looked at then.
#[derive(Debug)]
struct StillClock;

impl Clock for StillClock {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_micros(&self) -> i64 {
        0
    }
}

struct Storage {
    memory: Arc<MemoryStore>,
    log: ToldLog,
    desk: Desk,
    plan: JobPlan,
}

impl Storage {
    async fn new() -> Self {
        Self::of(JOB).await
    }

    /// With a job of that SQL.
    async fn of(sql: &str) -> Self {
        let memory = memory();
        let store: StoreRef = memory.clone();
        Self {
            log: ToldLog::begin(store.clone(), "clicks", sql).await,
            desk: Desk::new(store, Arc::new(StillClock)),
            memory,
            plan: plan(sql),
        }
    }

    /// An epoch with letters of `owner`.
    async fn refuse(&mut self, owner: &str, letters: &[Letter]) {
        let mut entry = self.log.next_epoch();
        let relation = format!("{owner}.dead_letters");
        let mut outputs = self.plan.outputs.iter();
        let output = outputs.position(|output| output.relation == relation);
        let output = OutputIndex(output.expect("an output") as u32);
        let (life, epoch) = (self.log.life, entry.epoch);
        let path = format!("segments/{life}/{output}/{:012}-2-w-a.arrow", epoch.0);
        let batch = batch(owner, letters);
        let object = ipc::encode(&path, &batch.schema(), &[batch]).expect("encode");
        let created = ipc::create(&self.log.store, &path, &object).await;
        created.expect("create");
        entry.segments.push(Segment {
            output,
            path,
            bytes: object.bytes.len() as u64,
            checksum: object.checksum,
            row_count: letters.len() as u64,
        });
        self.log.commit(entry).await;
    }

    async fn list(&self, filter: LetterFilter, limit: u64) -> Result<LetterPage, ControlError> {
        let query = LetterQuery { filter, limit };
        let mut parts = self.desk.list(&name(), query).await?;
        let mut whole = LetterPage::default();
        while let Some(part) = parts.try_next().await? {
            whole.letters.extend(part.letters);
            whole.totals = part.totals;
        }
        Ok(whole)
    }

    async fn positions(&self, filter: LetterFilter, limit: u64) -> Vec<i64> {
        let page = self.list(filter, limit).await.expect("a listing");
        page.letters.iter().map(|letter| letter.position).collect()
    }

    async fn prepare(&self, request: ReplayRequest) -> Result<Prepared, ControlError> {
        let job = self.desk.job(&name()).await?;
        let stamp = Stamp {
            term: Term(1),
            now_us: 0,
        };
        resend::prepare(&self.log.store, &job, request, stamp).await
    }

    /// How many objects with rows to be sent there are.
    async fn stored(&self) -> usize {
        self.log.store.list("replays/").await.expect("list").len()
    }

    /// The clerk of a master that has read this log, and the supervisor with its jobs.
    async fn clerk(&self) -> (Clerk, ActorRef<SupervisorMessage>) {
        let supervisor = supervise_log(&self.memory).await;
        let clerk = clerk(self.log.store.clone(), Arc::new(StillClock), &supervisor).await;
        (clerk, supervisor)
    }

    /// Sends rows, and records them as a job's actor does; how many, and how many letters were left out.
    async fn send(&mut self, request: ReplayRequest) -> Result<(u64, u64), ControlError> {
        let prepared = self.prepare(request).await?;
        if let Some(entry) = prepared.entry {
            self.log.append(Entry::Replay(Box::new(entry))).await;
        }
        let skipped = prepared.replayed.skipped.iter().map(|skipped| skipped.rows);
        Ok((prepared.replayed.rows, skipped.sum()))
    }
}

fn name() -> JobName {
    "clicks".into()
}

fn batch(owner: &str, letters: &[Letter]) -> RecordBatch {
    let texts = |text: &dyn Fn(&Letter) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(letters.iter().map(text)))
    };
    let payload = |letter: &Letter| std::str::from_utf8(letter.2).ok();
    let times = letters.iter().map(|letter| letter.0 * 1_000_000);
    let times = || TimestampMicrosecondArray::from_iter_values(times.clone());
    let bytes = letters
        .iter()
        .map(|letter| payload(letter).is_none().then_some(letter.2));
    let columns: Vec<ArrayRef> = vec![
        texts(&|_| owner.to_owned()),
        texts(&|_| "t-0".to_owned()),
        Arc::new(Int64Array::from_iter_values(
            letters.iter().map(|letter| letter.0),
        )),
        texts(&|letter| payload(letter).unwrap_or("\\xFF").to_owned()),
        Arc::new(BinaryArray::from_iter(bytes)),
        texts(&|letter| letter.1.to_owned()),
        texts(&|_| "because".to_owned()),
        Arc::new(times()),
        Arc::new(times().with_timezone("UTC")),
        Arc::new(Int8Array::from_value(0, letters.len())),
    ];
    let schema = dead_letter::schema();
    let op = Arc::new(Field::new(OP_COLUMN, DataType::Int8, false));
    let fields = schema.fields().iter().cloned().chain([op]);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns).expect("letters")
}

fn of(owner: &str) -> LetterFilter {
    LetterFilter {
        owner: Some(owner.to_owned()),
        ..LetterFilter::default()
    }
}

fn request(owner: &str) -> ReplayRequest {
    ReplayRequest {
        filter: of(owner),
        ..ReplayRequest::default()
    }
}

const BAD: &[u8] = b"{\"id\":\"x\"}";

#[tokio::test]
async fn letters_are_listed_newest_first_by_relation_code_time_and_origin() {
    let mut storage = Storage::new().await;
    storage
        .refuse("clicks", &[(1, "late", BAD), (2, "malformed", b"\xff")])
        .await;
    storage.refuse("lines", &[(3, "columns", b"a,b")]).await;
    storage
        .refuse("clicks", &[(4, "late", BAD), (5, "late", BAD)])
        .await;
    assert_eq!(storage.positions(of("clicks"), 10).await, [5, 4, 2, 1]);
    assert_eq!(storage.positions(of("clicks"), 3).await, [5, 4, 2]);
    let late = LetterFilter {
        code: Some("late".to_owned()),
        since_us: Some(1_000_000),
        until_us: Some(5_000_000),
        ..LetterFilter::default()
    };
    assert_eq!(storage.positions(late, 10).await, [4, 1]);
    let elsewhere = LetterFilter {
        origin: Some("t-1".to_owned()),
        ..of("clicks")
    };
    assert!(storage.positions(elsewhere, 10).await.is_empty());
    let page = storage.list(of("clicks"), 10).await.expect("a listing");
    let broken = &page.letters[2];
    assert_eq!(broken.payload.as_deref(), Some("\\xFF"));
    assert_eq!(
        (broken.payload_bytes.as_deref(), broken.epoch),
        (Some(&b"\xff"[..]), Epoch(1))
    );
    let counted = storage
        .list(LetterFilter::default(), 0)
        .await
        .expect("a count");
    assert!(counted.letters.is_empty());
    let totals = counted.totals.expect("totals");
    let counts = totals
        .counts
        .iter()
        .map(|count| (count.owner.as_str(), count.code.as_str(), count.rows));
    let expected = [
        ("clicks", "late", 3),
        ("clicks", "malformed", 1),
        ("lines", "columns", 1),
    ];
    assert_eq!(counts.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn an_unknown_relation_or_job_is_named_with_the_nearest_and_a_damaged_segment_by_name() {
    let mut storage = Storage::new().await;
    let refused = storage.list(of("click"), 1).await.expect_err("unknown");
    assert!(
        refused.to_string().contains("did you mean clicks?"),
        "{refused}"
    );
    let query = LetterQuery {
        filter: of("clicks"),
        limit: 1,
    };
    let refused = storage
        .desk
        .list(&"click".into(), query)
        .await
        .err()
        .expect("unknown");
    assert!(
        matches!(
            refused,
            ControlError::NotFound {
                nearest: Some(_),
                ..
            }
        ),
        "{refused:?}"
    );
    storage.refuse("clicks", &[(1, "late", BAD)]).await;
    storage.refuse("clicks", &[(2, "late", BAD)]).await;
    let keys = storage.log.store.list("segments/").await.expect("list");
    // What the retention takes while somebody reads is passed over.
    storage.memory.delete(&keys[1]).await.expect("delete");
    assert_eq!(storage.positions(of("clicks"), 10).await, [1]);
    storage
        .memory
        .put(&keys[0], bytes::Bytes::from_static(b"no"))
        .await
        .expect("put");
    let refused = storage.list(of("clicks"), 10).await.expect_err("damaged");
    assert!(refused.to_string().contains(&keys[0]), "{refused}");
}

#[tokio::test]
async fn a_letter_is_sent_once_unless_it_is_asked_for_again() {
    let mut storage = Storage::new().await;
    storage
        .refuse(
            "clicks",
            &[(1, "type_mismatch", BAD), (2, "malformed", b"\xff")],
        )
        .await;
    assert_eq!(storage.send(request("clicks")).await, Ok((2, 0)));
    assert_eq!(storage.send(request("clicks")).await, Ok((0, 2)));
    storage.refuse("clicks", &[(3, "type_mismatch", BAD)]).await;
    assert_eq!(storage.send(request("clicks")).await, Ok((1, 2)));
    let again = ReplayRequest {
        again: true,
        ..request("clicks")
    };
    assert_eq!(storage.send(again.clone()).await, Ok((3, 0)));
    assert_eq!(storage.send(again).await, Ok((3, 0)));
    assert_eq!(storage.stored().await, 4);
}

#[tokio::test]
async fn a_master_that_died_before_the_entry_leaves_an_object_of_its_own_and_the_command_sends_the_rows()
 {
    let mut storage = Storage::new().await;
    storage.refuse("clicks", &[(1, "type_mismatch", BAD)]).await;
    let lost = storage.prepare(request("clicks")).await.expect("prepared");
    let sent = storage.prepare(request("clicks")).await.expect("prepared");
    let (lost, sent) = (lost.entry.expect("rows"), sent.entry.expect("rows"));
    assert_eq!(lost.split, sent.split);
    assert_ne!(lost.object.path, sent.object.path);
    assert_eq!(storage.stored().await, 2);
}

/// Asks for the letters of the endless job, with a client that waits no longer than a second.
async fn ask_for_a_second(clerk: &Clerk) -> Option<Result<Replayed, ControlError>> {
    let name = name();
    let asked = clerk.replay(&name, request("numbers"));
    let patience = Duration::from_secs(1);
    tokio::time::timeout(patience, asked).await.ok()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_leaves_the_turn_to_its_command_until_the_log_has_answered() {
    let mut storage = Storage::of(ENDLESS).await;
    storage.refuse("numbers", &[(1, "malformed", BAD)]).await;
    let (clerk, _supervisor) = storage.clerk().await;
    storage.memory.answer(Answers::AllBut("log/"));
    assert_eq!(ask_for_a_second(&clerk).await, None);
    assert_eq!(storage.stored().await, 1, "its entry is on its way");
    assert_eq!(ask_for_a_second(&clerk).await, None);
    assert_eq!(storage.stored().await, 1, "the second waits for its turn");
    storage.memory.answer(Answers::All);
    let third = soon(clerk.replay(&name(), request("numbers"))).await;
    let third = third.expect("an answer");
    assert_eq!((third.rows, third.skipped[0].rows), (0, 1), "sent before");
    let job = storage.desk.job(&name()).await.expect("a job");
    let sent: usize = job.progress.replays.values().map(BTreeMap::len).sum();
    assert_eq!(sent, 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_for_a_job_that_takes_no_rows() {
    let mut storage = Storage::of(ENDLESS).await;
    storage.refuse("numbers", &[(1, "malformed", BAD)]).await;
    let (clerk, supervisor) = storage.clerk().await;
    let job = call!(supervisor, |reply| SupervisorMessage::FindJob(
        name(),
        reply
    ));
    let job = job.expect("call").expect("the job");
    let mode = StopMode::Stop;
    let stopped = soon(async { call!(job, |reply| JobMessage::Stop { mode, reply }) }).await;
    stopped.expect("stopped");
    // The job is asked first: nobody waits for storage to take what is not sent.
    storage.memory.answer(Answers::AllBut("replays/"));
    let refused = soon(clerk.replay(&name(), request("numbers"))).await;
    let refused = refused.expect_err("nothing reads any more");
    assert!(
        matches!(refused, ControlError::NotRunning { .. }),
        "{refused}"
    );
    assert_eq!(storage.stored().await, 0);
}

#[tokio::test]
async fn what_cannot_be_sent_as_it_is_is_left_out_and_says_what_to_do() {
    let mut storage = Storage::new().await;
    let letters: [Letter; 4] = [
        (1, "late", BAD),
        (2, "too_long", b"{"),
        (3, "expression", b"{}"),
        (4, "type_mismatch", BAD),
    ];
    storage.refuse("clicks", &letters).await;
    assert_eq!(storage.send(request("clicks")).await, Ok((1, 3)));
    let now = ReplayRequest {
        event_time_now: true,
        ..request("clicks")
    };
    assert_eq!(storage.send(now).await, Ok((1, 3)));
    let failed = ReplayRequest {
        filter: LetterFilter {
            code: Some("expression".to_owned()),
            ..of("clicks")
        },
        ..ReplayRequest::default()
    };
    assert_eq!(storage.send(failed).await, Ok((1, 0)));
    for (wrong, hint) in [
        (request("firsts"), "is no source"),
        (request("lines"), "--file"),
        (ReplayRequest::default(), "name it"),
        (
            ReplayRequest {
                event_time_now: true,
                corrected: Some(vec![b"{}".to_vec()]),
                ..request("lines")
            },
            "no WATERMARK",
        ),
    ] {
        let refused = storage.send(wrong).await.expect_err(hint).to_string();
        assert!(refused.contains(hint), "{refused}");
    }
}

#[tokio::test]
async fn corrected_rows_are_sent_to_a_source_of_any_format_and_once() {
    let mut storage = Storage::new().await;
    let corrected = ReplayRequest {
        corrected: Some(vec![b"{\"id\":1}".to_vec(), b"{\"id\":2}".to_vec()]),
        ..request("lines")
    };
    let first = storage.prepare(corrected.clone()).await.expect("prepared");
    let first = first.entry.expect("rows");
    assert_eq!(
        (first.object.row_count, first.object.event_time_us),
        (2, None)
    );
    let split = first.split.to_string();
    storage.log.append(Entry::Replay(Box::new(first))).await;
    let second = storage.prepare(corrected).await.expect("prepared");
    assert!(second.entry.is_none(), "the log knows it");
    assert!(second.replayed.known && second.replayed.split == Some(split));
    assert_eq!(storage.stored().await, 1);
}
