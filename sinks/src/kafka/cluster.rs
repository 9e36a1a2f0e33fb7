//! What the sink needs of Kafka, as something handed in: librdkafka in production, a cluster in memory in tests.
//!
//! Called by `mod.rs`; implemented by `client.rs` and `memory.rs`. Four things: what topics are like, one topic
//! that is created, a reader of what is committed, and a producer with transactions. Failure: a [`ClusterError`] says who
//! has to act; after any error of a producer its transaction is in doubt, and the producer is dropped.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_common::plan::connector::KafkaSinkSpec;

/// Why Kafka did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// A newer producer with the same transactional id has taken over.
    #[error(
        "another producer with the same transactional.id has taken over, or the transaction took longer than transaction_timeout"
    )]
    Fenced,
    /// A person has to act.
    #[error("{0}")]
    Refused(String),
    /// May pass by itself. Of a commit: nobody knows yet what became of it.
    #[error("{0}")]
    Unavailable(String),
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicShape {
    /// How many partitions it has.
    pub partition_count: usize,
    /// `max.message.bytes`; `None` where this user may not ask.
    pub message_bytes_max: Option<usize>,
    /// `cleanup.policy`; `None` where this user may not ask.
    pub cleanup_policy: Option<String>,
}

/// What makes a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// The same for every deliverer of one sink: a new producer fences those before it.
    pub transactional_id: String,
    /// Larger records are refused before they are sent.
    pub message_bytes_max: usize,
}

/// A committed record of the progress topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Some records, and whether they end where the partition ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadRecords {
    /// In the order of the partition.
    pub records: Vec<ReadRecord>,
    /// Nothing more is committed, as far as the broker knows now.
    pub is_end: bool,
}

/// A Kafka cluster. References in the spec are resolved by whoever implements this.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// What each of the topics is like; `None` for one that is not there. Creates nothing.
    async fn topics(
        &self,
        spec: &KafkaSinkSpec,
        names: &[&str],
    ) -> Result<Vec<Option<TopicShape>>, ClusterError>;
    /// Makes a compacted topic; one that is there already is a success.
    async fn create_compacted(
        &self,
        spec: &KafkaSinkSpec,
        name: &str,
        partition_count: usize,
    ) -> Result<(), ClusterError>;
    /// Reads a partition from its beginning, committed records only.
    async fn reader(
        &self,
        spec: &KafkaSinkSpec,
        topic: &str,
        partition: i32,
    ) -> Result<Box<dyn CommittedReader>, ClusterError>;
    /// Makes a producer that has fenced every older one of its transactional id and ended their transactions.
    async fn producer(
        &self,
        spec: &KafkaSinkSpec,
        settings: &ProducerSettings,
    ) -> Result<Box<dyn TransactionalProducer>, ClusterError>;
}

/// A shared cluster.
pub type ClusterRef = Arc<dyn Cluster>;

/// Reads committed records of one partition, in order.
#[async_trait]
pub trait CommittedReader: Send {
    /// The next records; none if there are none yet. Waits for less than a second.
    async fn next(&mut self) -> Result<ReadRecords, ClusterError>;
}

/// Produces records in transactions, one at a time.
#[async_trait]
pub trait TransactionalProducer: Send {
    /// Begins a transaction.
    async fn begin(&mut self) -> Result<(), ClusterError>;
    /// Hands records over, waiting while too much is under way. Returns the indexes of those that are
    /// too large, which were left out.
    async fn send(&mut self, records: Records) -> Result<Vec<usize>, ClusterError>;
    /// Waits until every record is there, and commits.
    async fn commit(&mut self) -> Result<(), ClusterError>;
    /// Gives the transaction up, so that readers need not wait for its end.
    async fn abort(&mut self) -> Result<(), ClusterError>;
}

/// Records of one topic, column by column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Where to.
    pub topic: String,
    /// `None`: by the partitioner.
    pub partition: Option<i32>,
    /// A key for each record.
    pub keys: Slices,
    /// A value for each record; `None` is a tombstone.
    pub values: Slices,
    /// A value for each record; a record for which it is `None` does not have the header.
    pub headers: Vec<(String, Slices)>,
}

impl Records {
    /// One record for a partition.
    pub fn one(topic: &str, partition: i32, key: &[u8], value: &[u8]) -> Self {
        let mut records = Self {
            topic: topic.to_owned(),
            partition: Some(partition),
            ..Self::default()
        };
        records.keys.push(Some(key));
        records.values.push(Some(value));
        records
    }

    /// Gives every record a header, unless the columns already give one of that name.
    pub fn add_header(&mut self, name: &str, value: &[u8]) {
        if self.headers.iter().any(|(known, _)| known == name) {
            return;
        }
        let mut values = Slices::default();
        (0..self.count()).for_each(|_| values.push(Some(value)));
        self.headers.push((name.to_owned(), values));
    }

    /// All but those at `indexes`.
    pub fn without(&self, indexes: &[usize]) -> Self {
        let kept = |slices: &Slices| {
            let mut kept = Slices::default();
            let indexes = (0..self.count()).filter(|index| !indexes.contains(index));
            indexes.for_each(|index| kept.push(slices.get(index)));
            kept
        };
        let headers = self.headers.iter();
        Self {
            topic: self.topic.clone(),
            partition: self.partition,
            keys: kept(&self.keys),
            values: kept(&self.values),
            headers: headers
                .map(|(name, values)| (name.clone(), kept(values)))
                .collect(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.values.ranges.len()
    }
}

/// Byte strings, some absent, in one piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slices {
    bytes: Vec<u8>,
    ranges: Vec<Option<Range<usize>>>,
}

impl Slices {
    /// The lines of `bytes`, which end with a newline each.
    pub fn of_lines(bytes: Vec<u8>) -> Self {
        let mut ranges = Vec::new();
        let mut start = 0;
        for (index, byte) in bytes.iter().enumerate() {
            if *byte == b'\n' {
                ranges.push(Some(start..index));
                start = index + 1;
            }
        }
        Self { bytes, ranges }
    }

    /// `count` times nothing.
    pub fn absent(count: usize) -> Self {
        Self {
            bytes: Vec::new(),
            ranges: vec![None; count],
        }
    }

    /// One more.
    pub fn push(&mut self, slice: Option<&[u8]>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(slice.unwrap_or_default());
        self.ranges.push(slice.map(|_| start..self.bytes.len()));
    }

    /// Takes one away; its place stays.
    pub fn clear(&mut self, index: usize) {
        self.ranges[index] = None;
    }

    /// The one at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let range = self.ranges.get(index)?.clone()?;
        Some(&self.bytes[range])
    }
}
