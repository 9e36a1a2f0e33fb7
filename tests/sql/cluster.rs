//! A master and a worker in this process, and one job from its submission to its end.
//!
//! Used by `database.rs`, once for each job. Everything stands on an in-memory network and a temporary folder. The worker that dies
//! is aborted where it stands, like a killed process; the master learns of it from the closed link.
//! Failure: an error that says what was waited for and how the job stood.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use millstream_common::blocking::{BlockingRef, ThreadPool};
use millstream_common::client::ControlClient;
use millstream_common::control::{JobState, JobView, StopMode, SubmitRequest};
use millstream_common::ids::{JobName, WorkerId};
use millstream_common::net::{MemoryNet, NetRef};
use millstream_common::store::{self, StoreRef};
use millstream_common::time::{ClockRef, SystemClock};
use millstream_master::Master;
use millstream_master::config::MasterConfig;
use millstream_master::retention::Retention;
use millstream_master::service::access::Access;
use millstream_worker::Worker;
use millstream_worker::config::{RealStores, WorkerConfig};
use millstream_worker::operator::spill::Spill;

use crate::broker::Broker;
use crate::script::{Fault, Step};

/// The first worker's slots, and those of the one that goes on after it.
const SLOTS: [u32; 2] = [2, 3];
/// Far more than any step takes on a machine that is busy with other tests.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// A job that is to be run.
pub(crate) struct Job<'a> {
    pub(crate) sql: &'a str,
    pub(crate) steps: &'a [Step],
    /// Where the folders of its files are.
    pub(crate) input: &'a Path,
    /// It ends by itself, so all its records must be there before it begins.
    pub(crate) bounded: bool,
}

impl Job<'_> {
    async fn give(&self, step: &Step, broker: &Broker) -> anyhow::Result<()> {
        let Some(name) = &step.file else {
            return broker.send(step).await;
        };
        let folder = self.input.join(&step.topic);
        let (written, finished) = (folder.join(format!(".{name}")), folder.join(name));
        let lines = step.records.iter().flatten();
        let bytes: Vec<u8> = lines.flat_map(|line| [line, &b"\n"[..]].concat()).collect();
        std::fs::create_dir_all(&folder)?;
        std::fs::write(&written, bytes)?;
        Ok(std::fs::rename(written, finished)?)
    }
}

pub(crate) struct Cluster {
    net: NetRef,
    blocking: BlockingRef,
    clock: ClockRef,
    pub(crate) store: StoreRef,
    master: Master,
    worker: Option<Worker>,
    client: ControlClient,
    name: JobName,
}

impl Cluster {
    pub(crate) async fn start(storage: &Path) -> anyhow::Result<Self> {
        let net: NetRef = Arc::new(MemoryNet::default());
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let clock: ClockRef = Arc::new(SystemClock::new());
        let storage_url = format!("file://{}", storage.display());
        let store = store::open(&storage_url, blocking.clone()).await?;
        let master = Master::start(MasterConfig {
            net: net.clone(),
            workers_net: net.clone(),
            access: Access::Open,
            store: store.clone(),
            storage_url,
            clock: clock.clone(),
            blocking: blocking.clone(),
            connectors: Arc::new(millstream_master::RealConnectors {
                blocking: blocking.clone(),
                clock: clock.clone(),
            }),
            listen: "master:0".to_owned(),
            http_listen: None,
            tracer: std::sync::Arc::new(millstream_common::trace::NoTracer),
            name: "test".to_owned(),
            host: "test".to_owned(),
            retention: Retention::default(),
        })
        .await?;
        let worker = start_worker(&net, &blocking, &clock, master.address(), 0).await?;
        let client = ControlClient::connect(net.clone(), master.address()).await?;
        Ok(Self {
            net,
            blocking,
            clock,
            store,
            master,
            worker: Some(worker),
            client,
            name: JobName("case".to_owned()),
        })
    }

    /// Runs the job to its end.
    pub(crate) async fn run(
        &mut self,
        job: &Job<'_>,
        broker: &Broker,
        fault: Fault,
    ) -> anyhow::Result<()> {
        if job.bounded {
            for step in job.steps {
                job.give(step, broker).await?;
            }
        }
        let request = SubmitRequest {
            name: self.name.clone(),
            sql: job.sql.to_owned(),
            file: "case.sql".to_owned(),
            fresh: false,
            from: None,
            id: None,
        };
        self.client.submit(request).await?;
        if job.bounded {
            if let Some(moment) = fault.moment(job.steps.len()) {
                self.replace_worker(moment.overlap).await?;
            }
            self.wait("the job to finish", |job| job.state.is_over())
                .await?;
            return Ok(());
        }
        let moment = fault.moment(job.steps.len());
        let mut sent = 0;
        for (index, step) in job.steps.iter().enumerate() {
            job.give(step, broker).await?;
            sent += step.records.len() as u64;
            let hit = moment.filter(|moment| moment.step == index);
            if let Some(moment) = hit.filter(|moment| moment.in_flight) {
                self.replace_worker(moment.overlap).await?;
            }
            self.wait("the step to be committed", |job| job.rows_read >= sent)
                .await?;
            if let Some(moment) = hit.filter(|moment| !moment.in_flight) {
                self.replace_worker(moment.overlap).await?;
            }
        }
        self.client.stop(&self.name, StopMode::Drain).await?;
        self.wait("the job to drain", |job| job.state.is_over())
            .await?;
        Ok(())
    }

    /// Kills the worker; another one, with another name and number of slots, goes on. Where they overlap, the
    /// job may just be moving to both when one of them dies.
    async fn replace_worker(&mut self, overlap: bool) -> anyhow::Result<()> {
        let before = self.client.job(&self.name).await?.generation;
        let killed = self.worker.take().context("no worker is left to kill")?;
        if overlap {
            self.worker = Some(self.next_worker().await?);
            killed.shutdown().await;
        } else {
            killed.shutdown().await;
            self.worker = Some(self.next_worker().await?);
        }
        // A bounded job may have been faster than the kill.
        let went_on = |job: &JobView| job.generation > before || job.state.is_over();
        self.wait("the other worker to go on", went_on).await?;
        Ok(())
    }

    async fn next_worker(&self) -> anyhow::Result<Worker> {
        let (net, blocking, clock) = (&self.net, &self.blocking, &self.clock);
        start_worker(net, blocking, clock, self.master.address(), 1).await
    }

    /// The first view of the job for which `reached` is true.
    async fn wait(
        &self,
        what: &str,
        reached: impl Fn(&JobView) -> bool,
    ) -> anyhow::Result<JobView> {
        let mut last = None;
        let watched = async {
            let mut views = self.client.watch(&self.name).await?;
            while let Some(view) = views.next().await {
                let view = view?;
                if view.state == JobState::Failed {
                    bail!("the job failed: {}", view.cause.unwrap_or_default());
                }
                if reached(&view) {
                    return Ok(view);
                }
                last = Some(view);
            }
            bail!("the job ended while a test waited for {what}: {last:?}")
        };
        let waited = tokio::time::timeout(WAIT_LIMIT, watched).await;
        waited.with_context(|| format!("waited too long for {what}: {last:?}"))?
    }

    pub(crate) async fn shutdown(self) {
        if let Some(worker) = self.worker {
            worker.shutdown().await;
        }
        self.master.shutdown().await;
    }
}

async fn start_worker(
    net: &NetRef,
    blocking: &BlockingRef,
    clock: &ClockRef,
    master: &str,
    index: usize,
) -> anyhow::Result<Worker> {
    let stores = RealStores {
        blocking: blocking.clone(),
    };
    let config = WorkerConfig {
        spill: Spill::without_limit(),
        net: net.clone(),
        exchange_net: net.clone(),
        stores: Arc::new(stores),
        connectors: Arc::new(millstream_worker::RealConnectors),
        clock: clock.clone(),
        blocking: blocking.clone(),
        master: master.to_owned(),
        slots: SLOTS[index],
        flight_listen: "worker:0".to_owned(),
        http: None,
        tracer: std::sync::Arc::new(millstream_common::trace::NoTracer),
        advertise: None,
        name: WorkerId::from(format!("worker-{index}").as_str()),
    };
    Ok(Worker::start(config).await?)
}
