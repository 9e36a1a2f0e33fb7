//! Injects one fault after the other, and waits after each until every job has committed an epoch again and runs.
//!
//! A job has recovered with its own next epoch: a killed worker that comes back moves all jobs once more, which is no part of it.
//!
//! Called by `main.rs`. Failure: a cluster that does not come back within [`PATIENCE`] ends the run.

use std::time::Duration;

use anyhow::{Context, bail};
use millstream_common::blocking::{self, BlockingRef, ThreadPool};
use millstream_common::control::{JobState, JobView};
use millstream_common::ids::{Epoch, Generation};
use millstream_tests::proxy::Trouble;
use millstream_tests::wait;
use rand::Rng;
use rand::rngs::StdRng;
use std::sync::Arc;
use tokio::time::Instant;

use crate::fault::{Backend, Fault, Link};
use crate::jobs;
use crate::report::Recoveries;
use crate::scene::{Scene, WORKER_COUNT};

/// A debug build on two cores that everything else runs on too. What never comes back is found; nothing is said of how long it takes.
const PATIENCE: Duration = Duration::from_mins(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// Between a recovery and the next fault.
const QUIET_MS: std::ops::Range<u64> = 100..1_500;

/// Where a job stood.
#[derive(Clone, Copy)]
struct Before {
    generation: Generation,
    epoch: Epoch,
}

/// What was done.
struct Injected {
    /// Recovery counts from here: from a kill itself, or from the end of an outage.
    at: Instant,
    /// The other master, where it took over.
    takeover: Option<Takeover>,
}

impl Injected {
    fn at(at: Instant) -> Self {
        Self { at, takeover: None }
    }
}

/// The standby has taken over.
struct Takeover {
    /// From the fault until the standby was first seen to reign.
    took: Duration,
    /// The active one, where it was killed and not only paused.
    killed: Option<usize>,
}

/// Makes everything go wrong in turn.
pub(crate) struct Injector<'a> {
    scene: &'a mut Scene,
    random: StdRng,
    /// The only kind of fault, if one is wanted.
    only: Option<String>,
    blocking: BlockingRef,
}

impl<'a> Injector<'a> {
    pub(crate) fn new(scene: &'a mut Scene, random: StdRng, only: Option<String>) -> Self {
        Self {
            scene,
            random,
            only,
            blocking: Arc::new(ThreadPool),
        }
    }

    /// Until `end`.
    pub(crate) async fn run(
        mut self,
        end: Instant,
        recoveries: &mut Recoveries,
    ) -> anyhow::Result<()> {
        while Instant::now() < end {
            self.wait_for_members().await?;
            let quiet = self.random.random_range(QUIET_MS);
            tokio::time::sleep(Duration::from_millis(quiet)).await;
            let fault = self.choose();
            let before = self.stand().await?;
            println!("{fault}");
            let injected = self.inject(fault).await;
            let injected = injected.with_context(|| format!("inject {fault}"))?;
            // Of what a killed master may still have committed, the next one tells.
            let killed = injected
                .takeover
                .as_ref()
                .and_then(|takeover| takeover.killed);
            let (before, epochs) = match (killed, fault) {
                (Some(_), _) => (self.stand().await?, 1),
                (None, Fault::KillWorker(_)) => (before, 1),
                // The one under way at the fault may still have been committed by those that live.
                (None, _) => (before, 2),
            };
            let recovered = self.wait_for_recovery(before, epochs).await;
            let recovered = recovered.with_context(|| format!("recover from {fault}"))?;
            let took = recovered.map(|at| at.saturating_duration_since(injected.at));
            let jobs = jobs::NAMES.iter().zip(&took);
            let each = jobs.map(|(job, took)| format!("{job} {} ms", took.as_millis()));
            println!("  next epoch: {}", each.collect::<Vec<_>>().join(", "));
            recoveries.add(fault.kind(), fault.is_kill(), &took);
            if let Some(Takeover { took, .. }) = injected.takeover {
                println!("  the standby reigned after {} ms", took.as_millis());
                recoveries.add_takeover(fault.kind(), took);
            }
            if let Some(killed) = killed {
                self.scene.cluster.start_master_again(killed).await?;
            }
        }
        Ok(())
    }

    fn choose(&mut self) -> Fault {
        loop {
            let fault = Fault::choose(&mut self.random);
            let kind = fault.kind();
            if self.only.as_ref().is_none_or(|only| *only == kind) {
                return fault;
            }
        }
    }

    /// Does it, and takes it back where it ends by itself. A killed master is still down.
    async fn inject(&mut self, fault: Fault) -> anyhow::Result<Injected> {
        let begun = Instant::now();
        match fault {
            Fault::KillWorker(index) => {
                self.scene.cluster.kill_worker(index).await?;
                return Ok(Injected::at(begun));
            }
            Fault::KillTwoWorkers(one, other) => {
                self.scene.cluster.end_worker(one).await?;
                self.scene.cluster.kill_worker(other).await?;
                self.scene.cluster.start_worker_again(one)?;
                return Ok(Injected::at(begun));
            }
            Fault::KillMaster => return self.replace_master(None).await,
            Fault::KillMasterAndWorker(index) => return self.replace_master(Some(index)).await,
            Fault::KillStandby => {
                let standby = 1 - self.scene.cluster.active_master().await?;
                self.scene.cluster.end_master(standby).await?;
                self.scene.cluster.start_master_again(standby).await?;
                return Ok(Injected::at(begun));
            }
            Fault::PauseWorker(index, pause) => {
                self.scene.cluster.pause_worker(index).await?;
                tokio::time::sleep(pause).await;
                self.scene.cluster.resume_worker(index).await?;
            }
            Fault::PauseMaster(pause) => return self.pause_master(pause).await,
            Fault::ReplaceWorker(index) => {
                self.scene.cluster.terminate_worker(index).await?;
                self.scene.cluster.start_worker_again(index)?;
            }
            Fault::Restart(backend) => self.restart(backend).await?,
            Fault::Link(link, trouble, time) => self.trouble(link, trouble, time).await?,
            Fault::HalfOpen(link, time) => self.half_open(link, time).await?,
            Fault::FullDisk(time) => {
                self.scene.disk.fill()?;
                tokio::time::sleep(time).await;
                self.scene.disk.free()?;
            }
        }
        Ok(Injected::at(Instant::now()))
    }

    /// SIGKILL of the active master, and of a worker where one is named, which is started again once the standby reigns.
    async fn replace_master(&mut self, worker: Option<usize>) -> anyhow::Result<Injected> {
        let active = self.scene.cluster.active_master().await?;
        let begun = Instant::now();
        self.scene.cluster.end_master(active).await?;
        if let Some(worker) = worker {
            self.scene.cluster.end_worker(worker).await?;
        }
        self.standby_reigns(1 - active, PATIENCE).await?;
        let took = begun.elapsed();
        if let Some(worker) = worker {
            self.scene.cluster.start_worker_again(worker)?;
        }
        Ok(Injected {
            at: begun,
            takeover: Some(Takeover {
                took,
                killed: Some(active),
            }),
        })
    }

    /// SIGSTOP of the active master; a short one ends before the standby takes over.
    async fn pause_master(&mut self, pause: Duration) -> anyhow::Result<Injected> {
        let active = self.scene.cluster.active_master().await?;
        let begun = Instant::now();
        self.scene.cluster.pause_master(active).await?;
        let reigns = self.standby_reigns(1 - active, pause).await;
        let took = begun.elapsed();
        tokio::time::sleep_until(begun + pause).await;
        self.scene.cluster.resume_master(active).await?;
        Ok(Injected {
            at: Instant::now(),
            takeover: reigns.ok().map(|()| Takeover { took, killed: None }),
        })
    }

    async fn standby_reigns(&self, standby: usize, patience: Duration) -> anyhow::Result<()> {
        wait::until("the standby reigns", patience, || async {
            let reigns = self.scene.cluster.is_reigning(standby).await;
            match reigns {
                true => Ok(()),
                false => Err("nobody yet".to_owned()),
            }
        })
        .await
    }

    /// SIGKILL of a service, and its start on the same data.
    async fn restart(&self, backend: Backend) -> anyhow::Result<()> {
        let name = match backend {
            Backend::Kafka => "kafka",
            Backend::Postgres => "postgres",
            Backend::Storage => "s3",
        };
        let services = Arc::clone(&self.scene.services);
        let restarted = blocking::run(&self.blocking, move || {
            services.kill(name)?;
            services.restart(name)
        });
        restarted.await?
    }

    async fn trouble(&self, link: Link, trouble: Trouble, time: Duration) -> anyhow::Result<()> {
        let proxy = self.scene.proxy(link).await?;
        proxy.make(trouble);
        tokio::time::sleep(time).await;
        proxy.make(Trouble::None);
        Ok(())
    }

    async fn half_open(&self, link: Link, time: Duration) -> anyhow::Result<()> {
        let proxy = self.scene.proxy(link).await?;
        proxy.make(Trouble::Hold {
            to_server: true,
            to_client: true,
        });
        tokio::time::sleep(time).await;
        proxy.make(Trouble::Cut);
        // Whoever connects is let down once, so that the cut has come to all.
        tokio::time::sleep(LOOK_INTERVAL).await;
        proxy.make(Trouble::None);
        Ok(())
    }

    /// All jobs, once a master tells of them.
    async fn views(&self) -> anyhow::Result<[JobView; 3]> {
        wait::until("a master tells of the jobs", PATIENCE, || async {
            self.look().await.map_err(|error| format!("{error:#}"))
        })
        .await
    }

    /// Where all jobs stand.
    async fn stand(&self) -> anyhow::Result<[Before; 3]> {
        let views = self.views().await?;
        Ok(views.each_ref().map(|job| Before {
            generation: job.generation,
            epoch: job.epoch,
        }))
    }

    async fn look(&self) -> anyhow::Result<[JobView; 3]> {
        let client = self.scene.cluster.client().await?;
        let [clicks, actions, numbers] = jobs::NAMES.map(Into::into);
        Ok([
            client.job(&clicks).await?,
            client.job(&actions).await?,
            client.job(&numbers).await?,
        ])
    }

    /// Waits until all workers are members: the next fault then meets a whole cluster.
    async fn wait_for_members(&self) -> anyhow::Result<()> {
        wait::until("all workers are members", PATIENCE, || async {
            let client = self.scene.cluster.client().await;
            let client = client.map_err(|error| error.to_string())?;
            let workers = client.workers().await.map_err(|error| error.to_string())?;
            match workers.len() {
                WORKER_COUNT => Ok(()),
                count => Err(format!("there are {count}")),
            }
        })
        .await
    }

    /// Waits until every job has committed so many epochs, or one of a new generation, and runs; the moment of each job's epoch.
    async fn wait_for_recovery(
        &self,
        before: [Before; 3],
        epochs: u64,
    ) -> anyhow::Result<[Instant; 3]> {
        let mut recovered = [None; 3];
        let end = Instant::now() + PATIENCE;
        let mut last;
        loop {
            match tokio::time::timeout_at(end, self.look()).await {
                Ok(Ok(jobs)) => {
                    if let Some(job) = jobs.iter().find(|job| job.state == JobState::Failed) {
                        bail!("job {} failed: {:?}", job.name, job.cause);
                    }
                    let now = Instant::now();
                    for (index, (job, before)) in jobs.iter().zip(&before).enumerate() {
                        let is_new = job.generation > before.generation && job.epoch > before.epoch;
                        if is_new || job.epoch.0 >= before.epoch.0 + epochs {
                            recovered[index].get_or_insert(now);
                        }
                    }
                    let all_run = jobs.iter().all(|job| job.state == JobState::Running);
                    if let ([Some(one), Some(two), Some(three)], true) = (recovered, all_run) {
                        return Ok([one, two, three]);
                    }
                    last = format!("{jobs:#?}");
                }
                Ok(Err(error)) => last = format!("{error:#}"),
                Err(_) => last = "the last look did not end".to_owned(),
            }
            if Instant::now() > end {
                bail!("not within {} s; last state: {last}", PATIENCE.as_secs());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}
