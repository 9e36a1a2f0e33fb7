//! `millstream workers drain`: a worker gets no more tasks, and what it has moves to others.
//!
//! Waits until it is idle, as a person has to who wants to end it. Failure: a worker that does not come free in time is told with what it has.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use millstream_common::client::ControlClient;
use millstream_common::control::{WorkerState, WorkerView};
use millstream_common::ids::WorkerId;
use millstream_common::time::SystemClock;

use crate::arguments::{Form, MasterAddress};
use crate::output;
use crate::progress::Progress;

/// Tasks move within two seconds unless something is in their way.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// What moves within these needs no progress.
const QUICK_LOOKS: u32 = 5;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    master: MasterAddress,
    #[command(flatten)]
    form: Form,
    /// The worker's name.
    id: String,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.master.connect().await?;
    let id = WorkerId(arguments.id);
    let begun = client.drain_worker(&id).await?;
    let mut progress = Progress::new(Arc::new(SystemClock::new()));
    let waiting = drained(&client, begun.clone(), &mut progress);
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    progress.finish();
    let (worker, is_alone) = waited.unwrap_or(Ok((begun, false)))?;
    match arguments.form.json {
        true => output::print_json(&worker)?,
        false => output::print(&told(&worker, is_alone))?,
    }
    Ok(match worker.state {
        WorkerState::Drained => ExitCode::SUCCESS,
        WorkerState::Active | WorkerState::Draining => ExitCode::FAILURE,
    })
}

/// The worker once it is idle, and whether no other takes tasks.
async fn drained(
    client: &ControlClient,
    mut worker: WorkerView,
    progress: &mut Progress,
) -> anyhow::Result<(WorkerView, bool)> {
    let mut looks = 0;
    loop {
        let workers = client.workers().await?;
        let is_alone = workers
            .iter()
            .all(|other| other.state != WorkerState::Active);
        match workers.into_iter().find(|known| known.id == worker.id) {
            Some(known) => worker = known,
            // It was told to end meanwhile, and has ended.
            None => worker.state = WorkerState::Drained,
        }
        if worker.state == WorkerState::Drained {
            return Ok((worker, is_alone));
        }
        looks += 1;
        if looks > QUICK_LOOKS {
            progress.tell(in_a_line(&worker));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// `alpha draining | 6 tasks of clicks, views have not moved yet`.
fn in_a_line(worker: &WorkerView) -> String {
    let jobs: Vec<&str> = worker.jobs.iter().map(|job| job.as_str()).collect();
    format!(
        "{} {} | {} tasks of {} have not moved yet",
        worker.id,
        worker.state,
        worker.tasks,
        jobs.join(", ")
    )
}

fn told(worker: &WorkerView, is_alone: bool) -> String {
    let id = &worker.id;
    if worker.state != WorkerState::Drained {
        return format!(
            "{id} is still {}: its tasks have not moved in {} s; look at its jobs with `millstream jobs`\n",
            worker.state,
            PATIENCE.as_secs()
        );
    }
    let others = match is_alone {
        true => "; no other worker takes tasks: jobs wait for one",
        false => "",
    };
    format!("{id} is drained{others}; end it with SIGTERM, or start it again to give it tasks\n")
}
