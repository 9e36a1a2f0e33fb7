//! What every sink with a durable marker must do when the log says that it is to go back; beside `conformance.rs`.
//!
//! Used by the tests of each such sink, on the same subjects. Failure: a rule that is broken panics with its text.

use millstream_common::ids::{Epoch, Seq};
use millstream_common::log::rewind::SinkRewind;

use crate::conformance::{Change, Subject, apply, deliverer, fence};
use crate::sink::{Deliverer, Sink, SinkError};

/// A deliverer that the log tells to go back to `to`, by the entry at `at`.
fn sent_back(token: u64, to: u64, at: u64) -> Deliverer {
    Deliverer {
        rewind: Some(SinkRewind {
            to: Epoch(to),
            at: Seq(at),
        }),
        ..deliverer(token)
    }
}

async fn put(sink: &mut dyn Sink, guard: u64, id: i64) -> Result<(), SinkError> {
    let rows: &[&[Change]] = &[&[Change::Put(id, "a")]];
    apply(sink, guard, guard + 1, rows).await.map(drop)
}

/// Runs the rules on a subject that has none of its sink's rows.
pub async fn check<S: Subject>(fresh: impl AsyncFn() -> S) {
    let subject = &fresh().await;
    goes_back_once(subject).await;
    never_goes_forward(subject).await;
}

async fn goes_back_once<S: Subject>(subject: &S) {
    const RULE: &str = "a sink goes back once, whoever delivers, and never for an older deliverer";
    let mut old = subject.sink(deliverer(3));
    assert_eq!(fence(&mut *old).await, Epoch(0), "{RULE}");
    for epoch in 0..4 {
        put(&mut *old, epoch, epoch as i64).await.expect(RULE);
    }
    let mut next = subject.sink(sent_back(8, 2, 7));
    assert_eq!(fence(&mut *next).await, Epoch(2), "{RULE}");
    put(&mut *old, 4, 99).await.expect_err(RULE);
    put(&mut *next, 2, 2).await.expect(RULE);
    // Its loss: whoever comes next was told the same, or only of what the sink says.
    let mut again = subject.sink(sent_back(9, 2, 7));
    assert_eq!(fence(&mut *again).await, Epoch(3), "{RULE}");
    let mut untold = subject.sink(deliverer(10));
    assert_eq!(fence(&mut *untold).await, Epoch(3), "{RULE}");
    put(&mut *untold, 3, 3).await.expect(RULE);
    put(&mut *untold, 4, 4).await.expect(RULE);
    let held = subject.sink(sent_back(11, 2, 7)).fence().await;
    assert_eq!(held.expect(RULE).marker, Some(Epoch(5)), "{RULE}");
    let mut found = subject.read().await;
    found.sort();
    let rows: Vec<i64> = found.into_iter().map(|(id, _)| id).collect();
    let wanted: &[i64] = match subject.is_keyed() {
        true => &[0, 1, 2, 3, 4],
        false => &[0, 1, 2, 2, 3, 3, 4],
    };
    assert_eq!(rows, wanted, "{RULE}");
    let mut later = subject.sink(sent_back(13, 0, 12));
    assert_eq!(fence(&mut *later).await, Epoch(0), "{RULE}: a second time");
    put(&mut *later, 0, 0).await.expect(RULE);
    let mut late = subject.sink(sent_back(12, 2, 7));
    assert!(
        matches!(late.fence().await, Err(SinkError::Fenced { .. })),
        "{RULE}"
    );
}

/// Behind [`goes_back_once`], which leaves the sink with one epoch.
async fn never_goes_forward<S: Subject>(subject: &S) {
    const RULE: &str =
        "a sink that holds less than the epoch it is sent back to says what it holds";
    let mut restored = subject.sink(sent_back(14, 5, 13));
    assert_eq!(fence(&mut *restored).await, Epoch(1), "{RULE}");
    put(&mut *restored, 5, 5).await.expect_err(RULE);
    let mut next = subject.sink(sent_back(15, 5, 13));
    assert_eq!(fence(&mut *next).await, Epoch(1), "{RULE}");
    put(&mut *next, 1, 1).await.expect(RULE);
    let mut lost = subject.sink(Deliverer {
        sink: "lost".to_owned(),
        ..sent_back(16, 5, 15)
    });
    assert_eq!(
        fence(&mut *lost).await,
        Epoch(0),
        "{RULE}: it has no marker"
    );
}
