//! A writer whose pipeline is a channel, and whose storage waits until it may.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{RecordBatch, UInt8Array};
use arrow::error::ArrowError;
use async_trait::async_trait;
use bytes::Bytes;
use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{Generation, Incarnation, StageIndex, TaskId};
use millstream_common::store::{Error, Store};
use millstream_common::time::SystemClock;
use ractor::Actor;
use tokio::sync::Semaphore;

use super::*;
use crate::pipeline::told::Told;

/// Stores an object for each permit.
struct Gate {
    permits: Semaphore,
    stored: Mutex<Vec<String>>,
}

#[async_trait]
impl Store for Gate {
    async fn create(&self, key: &str, _: Bytes) -> Result<(), Error> {
        self.permits.acquire().await.expect("open").forget();
        self.stored.lock().expect("lock").push(key.to_owned());
        Ok(())
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), Error> {
        self.create(key, value).await
    }

    async fn get(&self, _: &str) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }

    async fn list(&self, _: &str) -> Result<Vec<String>, Error> {
        Ok(self.stored.lock().expect("lock").clone())
    }

    async fn delete(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }
}

async fn writer() -> (SnapshotWriter, Arc<Gate>, mpsc::Receiver<PipelineMessage>) {
    let gate = Arc::new(Gate {
        permits: Semaphore::new(0),
        stored: Mutex::default(),
    });
    let (sender, told) = mpsc::channel(10);
    let (pipeline, _) = Actor::spawn(None, Told(sender), ()).await.expect("spawn");
    let writer = SnapshotWriter::start(WriterConfig {
        name: "views.0".to_owned(),
        scope: PartScope {
            incarnation: Incarnation::fresh(),
            generation: Generation(1),
            operator: "views/aggregate/0".into(),
            task: TaskId {
                stage: StageIndex(1),
                index: 0,
            },
        },
        parts: Vec::new(),
        store: gate.clone(),
        blocking: Arc::new(ThreadPool),
        clock: Arc::new(SystemClock::new()),
        pipeline,
    });
    (writer, gate, told)
}

fn ended(epoch: u64, write: StateWrite) -> EndedEpoch {
    EndedEpoch {
        epoch: Epoch(epoch),
        write,
        forget: BTreeSet::new(),
        flow: StageFlow::default(),
        work: TaskWork::default(),
    }
}

fn delta(epoch: u64) -> EndedEpoch {
    let vnodes = Arc::new(UInt8Array::from(vec![epoch as u8]));
    let batch = RecordBatch::try_from_iter([("_vnode", vnodes as _)]).expect("batch");
    ended(epoch, StateWrite::Delta(batch.into()))
}

#[tokio::test(start_paused = true)]
async fn epochs_are_taken_while_a_part_is_stored_until_too_many_wait_and_reported_in_order() {
    let (writer, gate, mut told) = writer().await;
    writer.write(delta(1)).await.expect("it runs");
    writer.write(delta(2)).await.expect("it waits");
    let third = tokio::time::timeout(Duration::from_secs(1), writer.write(delta(3)));
    assert!(third.await.is_err(), "there is no room for it");
    assert!(told.try_recv().is_err(), "nothing is stored");
    for epoch in 1..=3_u64 {
        gate.permits.add_permits(1);
        let message = told.recv().await;
        let Some(PipelineMessage::Reported(TaskReport::Snapshotted {
            epoch: reported,
            parts,
            ..
        })) = message
        else {
            panic!("it is not reported");
        };
        assert_eq!(reported, Epoch(epoch));
        let paths: Vec<String> = parts.into_iter().map(|part| part.path).collect();
        assert_eq!(paths, *gate.stored.lock().expect("lock"));
        assert_eq!(paths.len() as u64, epoch);
        if epoch == 1 {
            writer.write(delta(3)).await.expect("there is room again");
        }
    }
}

#[tokio::test]
async fn a_part_that_cannot_be_made_ends_the_pipeline_and_nothing_later_is_written() {
    let (writer, gate, mut told) = writer().await;
    gate.permits.add_permits(10);
    let broken = || Err(ArrowError::ComputeError("no such column".to_owned()));
    let write = StateWrite::Delta(PartRows::later(1, broken));
    writer.write(ended(1, write)).await.expect("it runs");
    let Some(PipelineMessage::Failed(failure)) = told.recv().await else {
        panic!("it does not fail");
    };
    assert!(failure.cause.contains("no such column"), "{failure}");
    while writer.write(delta(2)).await.is_ok() {}
    assert!(gate.stored.lock().expect("lock").is_empty());
}
