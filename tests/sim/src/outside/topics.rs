//! Kafka as a place to write to: the cluster in memory of the sinks' own tests, at the end of a way and under weather.
//!
//! The real sink runs over it. A request takes effect at its time even if its producer has died: a late end of a transaction is
//! for the coordinator to refuse. Failure: as the weather says, before or after the effect.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::executor::block_on;
use millstream_common::ids::{Epoch, Seq, Token};
use millstream_common::plan::connector::KafkaSinkSpec;
use millstream_sinks::kafka::{
    Cluster, ClusterError, CommittedReader, MemoryCluster, ProducerSettings, ReadRecords, Records,
    TopicShape, TransactionalProducer,
};
use serde::Deserialize;

use super::sent_back::Said;
use super::weather::Failure;
use super::{Outside, World};
use crate::outside::postgres::{Cell, Row};
use crate::trace::event;

/// For the weather, which knows tables.
pub(crate) const NAME: &str = "kafka";
const PROGRESS_TOPIC: &str = "__millstream_progress";
const PARTITION_COUNT: usize = 3;

/// Kafka as one host reaches it.
#[derive(Clone)]
pub(crate) struct SimulatedCluster {
    pub(crate) host: String,
    pub(crate) outside: Arc<Outside>,
}

fn lost(what: &str) -> ClusterError {
    ClusterError::Unavailable(format!("{what}: connection reset"))
}

impl SimulatedCluster {
    async fn call<T: Send + 'static>(
        &self,
        step: &'static str,
        effect: impl FnOnce(&MemoryCluster) -> Result<T, ClusterError> + Send + 'static,
    ) -> Result<T, ClusterError> {
        let fate = self.outside.fate(Some(NAME));
        let host = self.host.clone();
        let effect = move |world: &mut World| {
            let result = match fate.failure {
                Some(Failure::Before | Failure::Full) => Err(lost(step)),
                Some(Failure::Late(behind)) => {
                    let late = move |world: &mut World| {
                        let result = effect(&world.cluster);
                        world.has_topic_changed = true;
                        event!("late {step}: {:?}", result.err());
                    };
                    world.stragglers.add(NAME, behind, Box::new(late));
                    Err(lost(step))
                }
                None => effect(&world.cluster),
                Some(Failure::After | Failure::AfterExists) => {
                    effect(&world.cluster).and(Err(lost(step)))
                }
            };
            world.has_topic_changed = true;
            let outcome = result.as_ref().err();
            event!("{host} {step} kafka: {outcome:?}");
            result
        };
        let outside = &self.outside;
        outside.call(&self.host, step, fate.delay, effect).await
    }
}

#[async_trait]
impl Cluster for SimulatedCluster {
    async fn topics(
        &self,
        spec: &KafkaSinkSpec,
        names: &[&str],
    ) -> Result<Vec<Option<TopicShape>>, ClusterError> {
        let spec = spec.clone();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let ask = move |cluster: &MemoryCluster| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            block_on(cluster.topics(&spec, &names))
        };
        self.call("ask kafka", ask).await
    }

    async fn create_compacted(
        &self,
        spec: &KafkaSinkSpec,
        name: &str,
        partition_count: usize,
    ) -> Result<(), ClusterError> {
        let (spec, name) = (spec.clone(), name.to_owned());
        let create = move |cluster: &MemoryCluster| {
            // A topic that is there already is a success.
            match cluster.committed(&name).is_empty() {
                true => block_on(cluster.create_compacted(&spec, &name, partition_count)),
                false => Ok(()),
            }
        };
        self.call("create kafka", create).await
    }

    async fn reader(
        &self,
        spec: &KafkaSinkSpec,
        topic: &str,
        partition: i32,
    ) -> Result<Box<dyn CommittedReader>, ClusterError> {
        let (spec, topic) = (spec.clone(), topic.to_owned());
        let open =
            move |cluster: &MemoryCluster| block_on(cluster.reader(&spec, &topic, partition));
        let inner = self.call("open kafka", open).await?;
        Ok(Box::new(Reader {
            cluster: self.clone(),
            inner: Arc::new(Mutex::new(inner)),
        }))
    }

    async fn producer(
        &self,
        spec: &KafkaSinkSpec,
        settings: &ProducerSettings,
    ) -> Result<Box<dyn TransactionalProducer>, ClusterError> {
        let (spec, settings) = (spec.clone(), settings.clone());
        let start = move |cluster: &MemoryCluster| block_on(cluster.producer(&spec, &settings));
        let inner = self.call("fence kafka", start).await?;
        Ok(Box::new(Producer {
            cluster: self.clone(),
            inner: Arc::new(Mutex::new(inner)),
        }))
    }
}

/// Held by a request that is on its way.
type Shared<T> = Arc<Mutex<Box<T>>>;

struct Reader {
    cluster: SimulatedCluster,
    inner: Shared<dyn CommittedReader>,
}

#[async_trait]
impl CommittedReader for Reader {
    async fn next(&mut self) -> Result<ReadRecords, ClusterError> {
        let inner = self.inner.clone();
        let read = move |_: &MemoryCluster| block_on(locked(&inner).next());
        self.cluster.call("read kafka", read).await
    }
}

struct Producer {
    cluster: SimulatedCluster,
    inner: Shared<dyn TransactionalProducer>,
}

fn locked<T: ?Sized>(inner: &Shared<T>) -> std::sync::MutexGuard<'_, Box<T>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl TransactionalProducer for Producer {
    async fn begin(&mut self) -> Result<(), ClusterError> {
        let inner = self.inner.clone();
        let begin = move |_: &MemoryCluster| block_on(locked(&inner).begin());
        self.cluster.call("begin kafka", begin).await
    }

    async fn send(&mut self, records: Records) -> Result<Vec<usize>, ClusterError> {
        let inner = self.inner.clone();
        let send = move |_: &MemoryCluster| block_on(locked(&inner).send(records));
        self.cluster.call("send kafka", send).await
    }

    async fn commit(&mut self) -> Result<(), ClusterError> {
        let inner = self.inner.clone();
        let commit = move |_: &MemoryCluster| block_on(locked(&inner).commit());
        self.cluster.call("commit kafka", commit).await
    }

    async fn abort(&mut self) -> Result<(), ClusterError> {
        let inner = self.inner.clone();
        let abort = move |_: &MemoryCluster| block_on(locked(&inner).abort());
        self.cluster.call("abort kafka", abort).await
    }
}

/// A topic to write to.
pub(crate) fn create(cluster: &MemoryCluster, topic: &str) {
    let shape = TopicShape {
        partition_count: PARTITION_COUNT,
        message_bytes_max: None,
        cleanup_policy: None,
    };
    cluster.create_topic(topic, shape);
}

/// The rows that a reader of committed records finds.
pub(crate) fn rows(cluster: &MemoryCluster, topic: &str) -> Vec<Row> {
    let records = cluster.committed(topic).into_iter().flatten();
    let values = records.filter_map(|record| record.value);
    values.map(|value| row(&value)).collect()
}

/// A JSON object as a row.
pub(crate) fn row(value: &[u8]) -> Row {
    let object: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
    let fields = object.as_object().into_iter().flatten();
    let cells = fields.map(|(name, value)| {
        let cell = match value {
            serde_json::Value::Null => Cell::Null,
            serde_json::Value::Number(number) => Cell::Number(number.as_i64().unwrap_or_default()),
            other => Cell::Text(other.as_str().unwrap_or_default().to_owned()),
        };
        (name.clone(), cell)
    });
    cells.collect()
}

/// What the sink has said of itself, from the first.
pub(crate) fn said(cluster: &MemoryCluster) -> Vec<Said> {
    #[derive(Deserialize)]
    struct Key {
        kind: String,
        incarnation: String,
    }
    #[derive(Deserialize)]
    struct Marker {
        epoch: Epoch,
        token: Token,
        rewound: Seq,
    }
    let records = cluster.committed(PROGRESS_TOPIC).into_iter().flatten();
    let markers = records.filter_map(|record| {
        let key: Key = serde_json::from_slice(&record.key?).ok()?;
        let marker: Marker = serde_json::from_slice(&record.value?).ok()?;
        (key.kind == "marker").then_some(Said {
            incarnation: key.incarnation,
            epoch: marker.epoch,
            rewound: marker.rewound,
            token: marker.token,
        })
    });
    markers.collect()
}
