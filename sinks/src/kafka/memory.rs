//! A Kafka cluster in memory with the semantics that exactly-once rests on: for tests and simulations.
//!
//! A transactional id has an epoch: a new producer raises it, aborts what the one before left open, and every later call of
//! that one is fenced, also a commit that was on its way. Readers see committed records up to the first open transaction.
//! Owns everything behind one lock. Failure: only the [`Fault`]s that a test asks for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use millstream_common::plan::connector::KafkaSinkSpec;

use super::cluster::{
    Cluster, ClusterError, CommittedReader, ProducerSettings, ReadRecord, ReadRecords, Records,
    TopicShape, TransactionalProducer,
};

/// What goes wrong with the next call that it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A commit never reaches the coordinator, and the caller hears nothing.
    CommitLost,
    /// A commit is carried out, and the caller hears nothing.
    CommitAnswerLost,
    /// A commit is under way until [`MemoryCluster::deliver_late`], and the caller hears nothing.
    CommitDelayed,
    /// Records do not get through.
    SendFails,
    /// No producer can be made.
    StartFails,
}

/// A committed record, as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryRecord {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// The cluster; clones are the same one.
#[derive(Clone, Default)]
pub struct MemoryCluster {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Topic>,
    coordinators: BTreeMap<String, Coordinator>,
    transactions: Vec<Outcome>,
    faults: VecDeque<Fault>,
    late: Vec<Commit>,
}

struct Topic {
    shape: TopicShape,
    partitions: Vec<Vec<(usize, MemoryRecord)>>,
}

/// Of one transactional id.
#[derive(Default)]
struct Coordinator {
    epoch: u64,
    open: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Open,
    Committed,
    Aborted,
}

/// A request to commit.
struct Commit {
    transactional_id: String,
    epoch: u64,
}

impl MemoryCluster {
    /// Makes a topic.
    pub fn create_topic(&self, name: &str, shape: TopicShape) {
        let partitions = vec![Vec::new(); shape.partition_count];
        let topic = Topic { shape, partitions };
        self.lock().topics.insert(name.to_owned(), topic);
    }

    /// The next call that it fits goes wrong; several are used up in order.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// Commits that were delayed reach the coordinator now.
    pub fn deliver_late(&self) {
        let mut state = self.lock();
        for commit in std::mem::take(&mut state.late) {
            // Whoever sent it has gone; what became of it shows in the log.
            let _ = state.end(&commit, Outcome::Committed);
        }
    }

    /// What a reader of committed records sees of the topic, by partition.
    pub fn committed(&self, topic: &str) -> Vec<Vec<MemoryRecord>> {
        let state = self.lock();
        let partitions = state.topics.get(topic).map(|topic| topic.partitions.len());
        let partitions = 0..partitions.unwrap_or_default();
        partitions
            .map(|partition| state.read(topic, partition, 0).0)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(what: &str) -> ClusterError {
    ClusterError::Unavailable(format!("{what}: no answer"))
}

impl State {
    fn take_fault(&mut self, fits: &[Fault]) -> Option<Fault> {
        let first = self.faults.front().copied()?;
        if !fits.contains(&first) {
            return None;
        }
        self.faults.pop_front()
    }

    /// Committed records from position `from`, and the position behind them.
    fn read(&self, topic: &str, partition: usize, from: usize) -> (Vec<MemoryRecord>, usize) {
        let mut records = Vec::new();
        let mut position = from;
        let stored = self.topics.get(topic);
        let stored = stored.and_then(|topic| topic.partitions.get(partition));
        for (transaction, record) in stored.into_iter().flatten().skip(from) {
            match self.transactions[*transaction] {
                Outcome::Open => break,
                Outcome::Committed => records.push(record.clone()),
                Outcome::Aborted => {}
            }
            position += 1;
        }
        (records, position)
    }

    fn coordinator(&mut self, commit: &Commit) -> Result<&mut Coordinator, ClusterError> {
        let coordinator = self.coordinators.get_mut(&commit.transactional_id);
        let current = coordinator.filter(|coordinator| coordinator.epoch == commit.epoch);
        current.ok_or(ClusterError::Fenced)
    }

    fn end(&mut self, commit: &Commit, outcome: Outcome) -> Result<(), ClusterError> {
        if let Some(open) = self.coordinator(commit)?.open.take() {
            self.transactions[open] = outcome;
        }
        Ok(())
    }

    fn append(&mut self, transaction: usize, records: &Records) -> Result<(), ClusterError> {
        let topic = self.topics.get_mut(&records.topic);
        let topic = topic.ok_or_else(|| unavailable("write to a topic that is not there"))?;
        for index in 0..records.count() {
            let key = records.keys.get(index);
            let count = topic.partitions.len();
            let partition = match (records.partition, key) {
                (Some(partition), _) => partition as usize,
                (None, Some(key)) => crc32c::crc32c(key) as usize % count,
                (None, None) => index % count,
            };
            let headers = records.headers.iter();
            let headers = headers
                .filter_map(|(name, values)| Some((name.clone(), values.get(index)?.to_vec())));
            let record = MemoryRecord {
                key: key.map(<[u8]>::to_vec),
                value: records.values.get(index).map(<[u8]>::to_vec),
                headers: headers.collect(),
            };
            topic.partitions[partition].push((transaction, record));
        }
        Ok(())
    }
}

#[async_trait]
impl Cluster for MemoryCluster {
    async fn topics(
        &self,
        _: &KafkaSinkSpec,
        names: &[&str],
    ) -> Result<Vec<Option<TopicShape>>, ClusterError> {
        let state = self.lock();
        let shape = |name: &&str| Some(state.topics.get(*name)?.shape.clone());
        Ok(names.iter().map(shape).collect())
    }

    async fn create_compacted(
        &self,
        _: &KafkaSinkSpec,
        name: &str,
        partition_count: usize,
    ) -> Result<(), ClusterError> {
        let shape = TopicShape {
            partition_count,
            message_bytes_max: None,
            cleanup_policy: Some("compact".to_owned()),
        };
        self.create_topic(name, shape);
        Ok(())
    }

    async fn reader(
        &self,
        _: &KafkaSinkSpec,
        topic: &str,
        partition: i32,
    ) -> Result<Box<dyn CommittedReader>, ClusterError> {
        Ok(Box::new(MemoryReader {
            cluster: self.clone(),
            topic: topic.to_owned(),
            partition: partition as usize,
            position: 0,
        }))
    }

    async fn producer(
        &self,
        _: &KafkaSinkSpec,
        settings: &ProducerSettings,
    ) -> Result<Box<dyn TransactionalProducer>, ClusterError> {
        let mut state = self.lock();
        if state.take_fault(&[Fault::StartFails]).is_some() {
            return Err(unavailable("start a producer"));
        }
        let transactional_id = settings.transactional_id.clone();
        let coordinator = state.coordinators.entry(transactional_id.clone());
        let coordinator = coordinator.or_default();
        coordinator.epoch += 1;
        let epoch = coordinator.epoch;
        if let Some(open) = coordinator.open.take() {
            state.transactions[open] = Outcome::Aborted;
        }
        Ok(Box::new(MemoryProducer {
            cluster: self.clone(),
            commit: Commit {
                transactional_id,
                epoch,
            },
            message_bytes_max: settings.message_bytes_max,
        }))
    }
}

struct MemoryReader {
    cluster: MemoryCluster,
    topic: String,
    partition: usize,
    position: usize,
}

#[async_trait]
impl CommittedReader for MemoryReader {
    async fn next(&mut self) -> Result<ReadRecords, ClusterError> {
        // Somebody may have to end a transaction first.
        tokio::task::yield_now().await;
        let state = self.cluster.lock();
        let (records, position) = state.read(&self.topic, self.partition, self.position);
        self.position = position;
        let records = records.into_iter().map(|record| ReadRecord {
            key: record.key.unwrap_or_default(),
            value: record.value,
        });
        Ok(ReadRecords {
            records: records.collect(),
            is_end: true,
        })
    }
}

struct MemoryProducer {
    cluster: MemoryCluster,
    commit: Commit,
    message_bytes_max: usize,
}

#[async_trait]
impl TransactionalProducer for MemoryProducer {
    async fn begin(&mut self) -> Result<(), ClusterError> {
        let mut state = self.cluster.lock();
        let transaction = state.transactions.len();
        state.coordinator(&self.commit)?.open = Some(transaction);
        state.transactions.push(Outcome::Open);
        Ok(())
    }

    async fn send(&mut self, records: Records) -> Result<Vec<usize>, ClusterError> {
        tokio::task::yield_now().await;
        let mut state = self.cluster.lock();
        if state.take_fault(&[Fault::SendFails]).is_some() {
            return Err(unavailable("deliver records"));
        }
        let open = state.coordinator(&self.commit)?.open;
        let transaction = open.ok_or_else(|| unavailable("write without a transaction"))?;
        let size = |index: &usize| records.values.get(*index).map_or(0, <[u8]>::len);
        let is_too_large = |index: &usize| size(index) > self.message_bytes_max;
        let too_large: Vec<usize> = (0..records.count()).filter(is_too_large).collect();
        state.append(transaction, &records.without(&too_large))?;
        Ok(too_large)
    }

    async fn commit(&mut self) -> Result<(), ClusterError> {
        tokio::task::yield_now().await;
        let mut state = self.cluster.lock();
        let commit = Commit {
            transactional_id: self.commit.transactional_id.clone(),
            epoch: self.commit.epoch,
        };
        let fits = [
            Fault::CommitLost,
            Fault::CommitAnswerLost,
            Fault::CommitDelayed,
        ];
        match state.take_fault(&fits) {
            None => return state.end(&commit, Outcome::Committed),
            Some(Fault::CommitAnswerLost) => state.end(&commit, Outcome::Committed)?,
            Some(Fault::CommitDelayed) => state.late.push(commit),
            Some(_) => {}
        }
        Err(unavailable("commit"))
    }

    async fn abort(&mut self) -> Result<(), ClusterError> {
        self.cluster.lock().end(&self.commit, Outcome::Aborted)
    }
}
