//! Rows that a sink refuses: no run is applied without them before the log names them, and then by whoever delivers.

use millstream_common::ids::Epoch;
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::report::RefusedRows;
use millstream_sinks::sink_actor::SinkMessage;

use crate::script::{SINK, Script, Started, Told, committed, lock, start};
use crate::unavailable;

fn naming(parent: u64, epoch: u64, refused: RefusedRows) -> CommittedEpoch {
    CommittedEpoch {
        refused: vec![refused],
        ..committed(parent, epoch)
    }
}

async fn refused_of(sink: &mut Started) -> RefusedRows {
    match sink.next().await {
        Told::Refused(refused) => refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_run_with_refused_rows_is_applied_when_the_log_names_them_and_not_before() {
    let script = Script {
        refuses: [vec![1]].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1), committed(1, 2)], 2).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    let refused = refused_of(&mut sink).await;
    assert_eq!(refused.rows, [(Epoch(1), vec![1])].into());
    sink.send(SinkMessage::EpochCommitted(committed(2, 3)));
    assert_eq!(refused_of(&mut sink).await, refused, "said again");
    assert_eq!(lock(&sink.script).runs, []);
    sink.send(SinkMessage::EpochCommitted(naming(3, 4, refused)));
    assert_eq!(sink.next().await, Told::Advanced(2));
    assert_eq!(sink.next().await, Told::Advanced(4));
    assert_eq!(lock(&sink.script).rows, 7);
}

#[tokio::test]
async fn a_retry_that_refuses_another_row_adds_it_to_those_of_the_first() {
    let script = Script {
        refuses: [vec![0], vec![0]].into(),
        apply_errors: [unavailable()].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    let first = refused_of(&mut sink).await;
    assert_eq!(first.rows, [(Epoch(1), vec![0])].into());
    sink.send(SinkMessage::EpochCommitted(naming(1, 2, first)));
    assert!(matches!(sink.next().await, Told::Troubled(..)));
    let second = refused_of(&mut sink).await;
    let other_row = [(Epoch(1), vec![1])].into();
    assert_eq!(second.rows, other_row, "the first is left out already");
    sink.send(SinkMessage::EpochCommitted(naming(2, 3, second)));
    assert_eq!(sink.next().await, Told::Advanced(2));
    assert_eq!(sink.next().await, Told::Advanced(3));
    assert_eq!(
        lock(&sink.script).rows,
        4,
        "two rows of epoch 1 are left out"
    );
}

#[tokio::test]
async fn the_next_deliverer_leaves_out_what_the_log_names() {
    let refused = RefusedRows {
        sink: SINK,
        attempt: "a".to_owned(),
        rows: [(Epoch(1), vec![0, 1])].into(),
    };
    let undelivered = vec![committed(0, 1), naming(1, 2, refused)];
    let mut sink = start(Script::default(), undelivered, 2).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    assert_eq!(sink.next().await, Told::Advanced(2));
    assert_eq!(lock(&sink.script).rows, 2);
}
