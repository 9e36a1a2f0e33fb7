//! The hosts of a simulation: real masters and real workers; the person with a client is in `people.rs`.
//!
//! Built by `simulation.rs`; each closure is what the machine runs when it starts. A process that ends by itself is started again, as
//! a service manager would. Failure: told in the trace; only the driver decides that a simulation failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use millstream_common::ids::WorkerId;
use millstream_common::net::NetRef;
use millstream_common::plan::SourcePlan;
use millstream_common::plan::connector::{
    FilesSinkSpec, FilesSourceSpec, KafkaTopicSpec, PostgresSinkSpec, SinkSpec,
};
use millstream_master::config::{self as master_config, MasterConfig};
use millstream_master::enumerate::{EnumerateError, Enumerator};
use millstream_master::plan::check::{
    ExternalProbe, Folder, KafkaTopics, OutputFolder, PostgresTable, ProbeError,
};
use millstream_master::retention::Retention;
use millstream_master::service::access::Access;
use millstream_master::{Candidacy, Entrance, Master, MasterError};
use millstream_sinks::factory::SinkSetup;
use millstream_sinks::files::FilesSink;
use millstream_sinks::kafka::KafkaSink;
use millstream_sinks::sink::{Sink, SinkError};
use millstream_worker::config::{self as worker_config, WorkerConfig};
use millstream_worker::consume::{ConsumeError, ReaderContext, SourceReader};
use millstream_worker::operator::spill::Spill;
use millstream_worker::operator::spill::budget::StateBudget;
use millstream_worker::operator::spill::memory::MemoryDisk;
use millstream_worker::{Worker, WorkerError};
use tokio::sync::Notify;

use crate::outside::Outside;
use crate::outside::disk::SimulatedDisk;
use crate::outside::kafka::{SimulatedEnumerator, SimulatedReader, Topic};
use crate::outside::postgres::SimulatedPostgres;
use crate::outside::store::SimulatedStore;
use crate::outside::topics::SimulatedCluster;
use crate::surroundings::{Inline, SimulatedClock, SimulatedNet};
use crate::trace::event;

/// The job's name.
pub(crate) const JOB: &str = "clicks";
pub(crate) const MASTER_ADDRESSES: &str = "master-0:7070,master-1:7070";
/// A service manager waits this long before it starts a process again.
const RESTART_DELAY: Duration = Duration::from_millis(300);

/// How long a worker that is told to leave may take to hand over what it has.
const LEAVE_PATIENCE: Duration = Duration::from_secs(8);

/// What a host is made from.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) outside: Arc<Outside>,
    pub(crate) topic: Arc<Topic>,
    /// What its collector keeps.
    pub(crate) retention: Retention,
    /// Microseconds by which its wall clock is ahead.
    pub(crate) ahead_us: Arc<AtomicI64>,
    /// How often a process was started on it.
    pub(crate) starts: Arc<AtomicU32>,
    /// Tells its worker to leave, as a service manager does.
    pub(crate) leaves: Arc<Notify>,
}

impl Host {
    pub(crate) fn net(&self) -> NetRef {
        Arc::new(SimulatedNet {
            host: self.name.to_owned(),
            outside: self.outside.clone(),
        })
    }

    fn clock(&self) -> Arc<SimulatedClock> {
        Arc::new(SimulatedClock {
            ahead_us: self.ahead_us.clone(),
        })
    }

    fn store(&self) -> SimulatedStore {
        SimulatedStore {
            host: self.name.to_owned(),
            outside: self.outside.clone(),
        }
    }

    /// Runs a master, again and again.
    pub(crate) async fn run_master(self) -> turmoil::Result {
        loop {
            event!("{} starts", self.name);
            let ended = self.master_life().await;
            event!("{} ended: {ended:?}", self.name);
            tokio::time::sleep(RESTART_DELAY).await;
        }
    }

    async fn master_life(&self) -> Result<(), MasterError> {
        let count = self.starts.fetch_add(1, Ordering::Relaxed);
        let config = MasterConfig {
            net: self.net(),
            workers_net: self.net(),
            access: Access::Open,
            store: Arc::new(self.store()),
            storage_url: "simulated://storage".to_owned(),
            clock: self.clock(),
            blocking: Arc::new(Inline),
            connectors: Arc::new(self.clone()),
            retention: self.retention,
            listen: format!("{}:7070", self.name),
            http_listen: None,
            tracer: std::sync::Arc::new(millstream_common::trace::NoTracer),
            name: format!("{}-{count}", self.name),
            host: self.name.to_owned(),
        };
        let candidacy = Candidacy {
            entrance: Entrance::WhenVacant,
            cluster: "simulated".to_owned(),
            advertise: None,
            http_advertise: None,
        };
        let mut master = Master::stand(config, candidacy).await?;
        let ended = master.finished().await;
        master.shutdown().await;
        ended
    }

    /// Runs a worker, again and again.
    pub(crate) async fn run_worker(
        self,
        slots: u32,
        keeps_name: bool,
        state_bytes: usize,
    ) -> turmoil::Result {
        loop {
            event!("{} starts", self.name);
            let ended = self.worker_life(slots, keeps_name, state_bytes).await;
            event!("{} ended: {ended:?}", self.name);
            tokio::time::sleep(RESTART_DELAY).await;
        }
    }

    async fn worker_life(
        &self,
        slots: u32,
        keeps_name: bool,
        state_bytes: usize,
    ) -> Result<(), WorkerError> {
        let count = self.starts.fetch_add(1, Ordering::Relaxed);
        let name = match keeps_name {
            true => self.name.to_owned(),
            false => format!("{}-{count}", self.name),
        };
        let spill = Spill {
            budget: StateBudget::new(state_bytes),
            disk: Arc::new(MemoryDisk),
        };
        let config = WorkerConfig {
            spill,
            net: self.net(),
            exchange_net: self.net(),
            stores: Arc::new(self.store()),
            connectors: Arc::new(self.clone()),
            clock: self.clock(),
            blocking: Arc::new(Inline),
            master: MASTER_ADDRESSES.to_owned(),
            slots,
            flight_listen: format!("{}:7080", self.name),
            http: None,
            tracer: std::sync::Arc::new(millstream_common::trace::NoTracer),
            advertise: None,
            name: WorkerId(name),
        };
        let mut worker = Worker::start(config).await?;
        let ended = tokio::select! {
            biased;
            ended = worker.finished() => Some(ended),
            () = self.leaves.notified() => None,
        };
        if ended.is_none() {
            let left = worker.leave(LEAVE_PATIENCE).await;
            event!("{} leaves: {left:?}", self.name);
        }
        worker.shutdown().await;
        ended.unwrap_or(Ok(()))
    }
}

impl master_config::Connectors for Host {
    fn enumerator(&self, _: &SourcePlan) -> Result<Box<dyn Enumerator>, EnumerateError> {
        Ok(Box::new(SimulatedEnumerator {
            topic: self.topic.clone(),
            outside: self.outside.clone(),
            host: self.name.to_owned(),
        }))
    }

    fn probe(&self) -> Arc<dyn ExternalProbe> {
        Arc::new(SimulatedProbe)
    }
}

impl worker_config::Connectors for Host {
    fn open_reader(
        &self,
        plan: &SourcePlan,
        context: ReaderContext,
    ) -> Result<Box<dyn SourceReader>, ConsumeError> {
        let (topic, outside) = (self.topic.clone(), self.outside.clone());
        let reader = SimulatedReader::new(self.name, topic, outside, plan, &context)?;
        Ok(Box::new(reader))
    }

    fn build_sink(&self, setup: &SinkSetup) -> Result<Box<dyn Sink>, SinkError> {
        let (host, outside) = (self.name.to_owned(), self.outside.clone());
        let deliverer = setup.deliverer.clone();
        match &setup.spec {
            SinkSpec::Postgres(spec) => Ok(Box::new(SimulatedPostgres {
                host,
                outside,
                spec: spec.clone(),
                deliverer,
            })),
            SinkSpec::Kafka(spec) => Ok(Box::new(KafkaSink::new(
                spec.clone(),
                deliverer,
                setup.schema.clone(),
                setup.on_violation,
                Arc::new(SimulatedCluster { host, outside }),
            )?)),
            SinkSpec::Files(spec) => Ok(Box::new(FilesSink::new(
                spec.clone(),
                deliverer,
                setup.schema.clone(),
                setup.on_violation,
                Arc::new(SimulatedDisk { host, outside }),
            )?)),
            SinkSpec::Console(_) | SinkSpec::Blackhole => {
                let cause = "only postgres, kafka and files are simulated";
                Err(SinkError::refused("build sink", cause))
            }
        }
    }
}

/// Everything that the job names is there.
struct SimulatedProbe;

#[async_trait]
impl ExternalProbe for SimulatedProbe {
    async fn kafka_topics(&self, spec: &KafkaTopicSpec) -> Result<KafkaTopics, ProbeError> {
        Ok(KafkaTopics {
            wanted: spec.topic.clone(),
            topics: vec![spec.topic.clone()],
        })
    }

    async fn postgres_table(&self, _: &PostgresSinkSpec) -> Result<PostgresTable, ProbeError> {
        Ok(PostgresTable::Missing {
            tables: Vec::new(),
            obstacle: None,
        })
    }

    async fn folder(&self, _: &FilesSourceSpec) -> Result<Folder, ProbeError> {
        Ok(Folder::There)
    }

    async fn output_folder(&self, _: &FilesSinkSpec) -> Result<OutputFolder, ProbeError> {
        Ok(OutputFolder::Possible)
    }

    fn resolves(&self, _: &str, _: &str) -> Result<(), ProbeError> {
        Ok(())
    }
}
