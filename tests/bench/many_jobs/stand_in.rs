//! A worker that does no work: it speaks to the master as a real one does, and says that rows were read.
//!
//! Started by `mod.rs`. Owns a link and what the master has given it, by job. Failure: a link that ends, ends the stand-in with the cause.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use millstream_common::ids::{SinkIndex, SourceIndex, SplitId, StageIndex, TaskId, WorkerId};
use millstream_common::link::{
    BarrierCommand, Deploy, JobGeneration, ToMaster, ToWorker, WorkerHello,
};
use millstream_common::net::{self, NetRef, TcpNet};
use millstream_common::report::{PipelineReport, RowCounters, SplitProgress};
use millstream_proto::v1;
use millstream_proto::v1::worker_link_client::WorkerLinkClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(300);
const FRAMES_WAITING_MAX: usize = 16_384;
/// Rows that each split is said to have moved by, at each barrier.
const ROWS_OF_A_SPLIT: i64 = 10;

/// What it has of a job.
#[derive(Default)]
struct Share {
    splits: BTreeMap<SourceIndex, BTreeMap<SplitId, SplitProgress>>,
    sinks: Vec<SinkIndex>,
}

/// A stand-in for a worker.
pub(super) struct StandIn {
    worker: WorkerId,
    to_master: mpsc::Sender<v1::WorkerFrame>,
    from_master: Streaming<v1::MasterFrame>,
    shares: HashMap<JobGeneration, Share>,
}

impl StandIn {
    /// Joins the master at `address`.
    pub(super) async fn join(address: &str, name: &str) -> anyhow::Result<Self> {
        let net: NetRef = Arc::new(TcpNet);
        let channel = net::channel(&net, address).context("a channel to the master")?;
        let (to_master, frames) = mpsc::channel(FRAMES_WAITING_MAX);
        let worker = WorkerId(name.to_owned());
        let hello = WorkerHello {
            worker: worker.clone(),
            process: name.to_owned(),
            flight_address: "127.0.0.1:1".to_owned(),
            slots: 2,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            held: Vec::new(),
            is_leaving: false,
        };
        to_master.send(ToMaster::Hello(hello).try_into()?).await?;
        let frames = ReceiverStream::new(frames);
        let attached = WorkerLinkClient::new(channel).attach(frames).await;
        Ok(Self {
            worker,
            to_master,
            from_master: attached.context("attach to the master")?.into_inner(),
            shares: HashMap::new(),
        })
    }

    /// Answers until the link ends.
    pub(super) async fn serve(mut self) -> anyhow::Result<()> {
        let mut heartbeat = tokio::time::interval(HEARTBEAT_INTERVAL);
        loop {
            tokio::select! {
                _ = heartbeat.tick() => self.say(ToMaster::Heartbeat).await?,
                frame = self.from_master.message() => {
                    let Some(frame) = frame.context("read a frame of the master")? else {
                        bail!("the master let go of {}", self.worker);
                    };
                    self.answer(ToWorker::try_from(frame)?).await?;
                }
            }
        }
    }

    async fn say(&self, frame: ToMaster) -> anyhow::Result<()> {
        let said = self.to_master.send(frame.try_into()?).await;
        said.context("send a frame to the master")
    }

    async fn answer(&mut self, frame: ToWorker) -> anyhow::Result<()> {
        match frame {
            ToWorker::Deploy(deploy) => self.deploy(*deploy).await,
            ToWorker::Barrier(at, barrier) => self.report(at, &barrier).await,
            ToWorker::EpochCommitted { at, epoch, .. } => {
                let sinks = self.shares.get(&at).map(|share| share.sinks.clone());
                for sink in sinks.unwrap_or_default() {
                    let advanced = ToMaster::SinkAdvanced {
                        at: at.clone(),
                        sink,
                        marker: epoch.epoch,
                        dropped_count: 0,
                    };
                    self.say(advanced).await?;
                }
                Ok(())
            }
            ToWorker::Teardown(at) => {
                self.shares.remove(&at);
                self.say(ToMaster::TornDown(at, 0)).await
            }
            _ => Ok(()),
        }
    }

    async fn deploy(&mut self, deploy: Deploy) -> anyhow::Result<()> {
        let assignment = &deploy.assignment;
        let own_sinks = assignment.sinks.iter();
        let own_sinks = own_sinks.filter(|placement| placement.worker == self.worker);
        let mut share = Share {
            splits: BTreeMap::new(),
            sinks: own_sinks.map(|placement| placement.sink).collect(),
        };
        for split in deploy.restore.splits {
            // The first stages are the sources, in their order.
            let reader = TaskId {
                stage: StageIndex(split.start.source.0),
                index: split.task_index,
            };
            let mut tasks = assignment.tasks.iter();
            if tasks.any(|placement| placement.task == reader && placement.worker == self.worker) {
                let splits = share.splits.entry(split.start.source).or_default();
                splits.insert(split.start.split, split.start.progress);
            }
        }
        self.shares.insert(deploy.at.clone(), share);
        self.say(ToMaster::Deployed(deploy.at)).await
    }

    async fn report(&mut self, at: JobGeneration, barrier: &BarrierCommand) -> anyhow::Result<()> {
        let Some(share) = self.shares.get_mut(&at) else {
            return Ok(());
        };
        let mut counters = BTreeMap::new();
        for (source, splits) in &mut share.splits {
            for progress in splits.values_mut() {
                progress.position += ROWS_OF_A_SPLIT;
            }
            let rows = splits.len() as u64 * ROWS_OF_A_SPLIT as u64;
            let count = RowCounters {
                read: rows,
                accepted: rows,
                ..RowCounters::default()
            };
            counters.insert(*source, count);
        }
        let report = PipelineReport {
            epoch: barrier.epoch,
            worker: self.worker.clone(),
            splits: share.splits.clone(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            counters,
            flows: BTreeMap::new(),
            troubles: BTreeMap::new(),
            figures: Default::default(),
        };
        self.say(ToMaster::Snapshotted(at, Box::new(report))).await
    }
}
