//! The `Control` service: gRPC calls to questions to the master, answers to messages. No logic.
//!
//! Called by clients through `serve`. Owns nothing but the handle of the master. Failure: every
//! error of the master becomes a status with details in `common::grpc`.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_common::control::{ControlError, ReplayRequest, RewindTerms, SinkCommand};
use millstream_common::grpc;
use millstream_common::ids::{Epoch, JobName, WorkerId};
use millstream_proto::v1::{self, control_server};
use tonic::{Request, Response, Status, Streaming};

use super::{ControlBackend, Shutdown};
use crate::letters::resend;

/// Five snapshots a second, as the contract says.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Epochs listed where the client does not say how many.
const CHECKPOINTS_DEFAULT: usize = 20;
/// Epochs listed at most; the answer stays below what a client accepts.
const CHECKPOINTS_MAX: usize = 10_000;

/// Answers clients out of a [`ControlBackend`].
pub struct ControlService {
    backend: Arc<dyn ControlBackend>,
    shutdown: Shutdown,
}

impl ControlService {
    /// A service over `backend`; watches end with `shutdown`.
    pub fn new(backend: Arc<dyn ControlBackend>, shutdown: Shutdown) -> Self {
        Self { backend, shutdown }
    }
}

#[tonic::async_trait]
impl control_server::Control for ControlService {
    type WatchJobStream = BoxStream<'static, Result<v1::WatchJobResponse, Status>>;
    type PreviewRelationStream = BoxStream<'static, Result<v1::PreviewRelationResponse, Status>>;
    type ListDeadLettersStream = BoxStream<'static, Result<v1::ListDeadLettersResponse, Status>>;

    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        let mut request = request.into_inner();
        request.name = job_name(request.name)?.0;
        let file = request.file.clone();
        let submitted = self.backend.submit(request.into()).await;
        match submitted {
            Ok(submitted) => Ok(Response::new(submitted.into())),
            Err(error) => Err(grpc::to_status_about(&error, &file)),
        }
    }

    async fn stop_job(
        &self,
        request: Request<v1::StopJobRequest>,
    ) -> Result<Response<v1::StopJobResponse>, Status> {
        let request = request.into_inner();
        let mode = request.mode().into();
        let name = job_name(request.name)?;
        answer(self.backend.stop(&name, mode).await)
    }

    async fn pause_sink(
        &self,
        request: Request<v1::PauseSinkRequest>,
    ) -> Result<Response<v1::PauseSinkResponse>, Status> {
        let request = request.into_inner();
        let name = job_name(request.name)?;
        let command = SinkCommand::Pause;
        let sink = self.backend.command_sink(&name, &request.sink, command);
        answer(sink.await.map(|sink| v1::PauseSinkResponse {
            sink: Some(sink.into()),
        }))
    }

    async fn resume_sink(
        &self,
        request: Request<v1::ResumeSinkRequest>,
    ) -> Result<Response<v1::ResumeSinkResponse>, Status> {
        let request = request.into_inner();
        let name = job_name(request.name)?;
        let command = SinkCommand::Resume;
        let sink = self.backend.command_sink(&name, &request.sink, command);
        answer(sink.await.map(|sink| v1::ResumeSinkResponse {
            sink: Some(sink.into()),
        }))
    }

    async fn rewind_sink(
        &self,
        request: Request<v1::RewindSinkRequest>,
    ) -> Result<Response<v1::RewindSinkResponse>, Status> {
        let request = request.into_inner();
        let name = job_name(request.name)?;
        let terms = RewindTerms {
            to: request.to.map(Epoch),
            may_duplicate: request.may_duplicate,
        };
        let sink = self.backend.rewind_sink(&name, &request.sink, terms);
        answer(sink.await.map(|sink| v1::RewindSinkResponse {
            sink: Some(sink.into()),
        }))
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let name = job_name(request.into_inner().name)?;
        let job = self.backend.get(&name).await;
        answer(job.map(|job| v1::GetJobResponse {
            job: Some(job.into()),
        }))
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let jobs = self.backend.list().await;
        answer(jobs.map(|jobs| v1::ListJobsResponse {
            jobs: jobs.into_iter().map(v1::Job::from).collect(),
        }))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let name = job_name(request.into_inner().name)?;
        // A job that is not there is refused here and not in the stream.
        let first = self.backend.get(&name).await;
        let first = first.map_err(|error| grpc::to_status(&error))?;
        let watch = Watch {
            backend: self.backend.clone(),
            name,
            next: Next::Now(Box::new(first.into())),
        };
        let jobs = stream::unfold(watch, Watch::advance);
        Ok(Response::new(
            jobs.take_until(self.shutdown.clone()).boxed(),
        ))
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let workers = self.backend.workers().await;
        answer(workers.map(|workers| v1::ListWorkersResponse {
            workers: workers.into_iter().map(v1::Worker::from).collect(),
        }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let worker = WorkerId(request.into_inner().id);
        let drained = self.backend.drain_worker(&worker).await;
        answer(drained.map(|worker| v1::DrainWorkerResponse {
            worker: Some(worker.into()),
        }))
    }

    async fn get_watermarks(
        &self,
        request: Request<v1::GetWatermarksRequest>,
    ) -> Result<Response<v1::GetWatermarksResponse>, Status> {
        let name = job_name(request.into_inner().name)?;
        answer(self.backend.watermarks(&name).await)
    }

    async fn get_plan(
        &self,
        request: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        let name = job_name(request.into_inner().name)?;
        answer(self.backend.plan(&name).await)
    }

    async fn create_savepoint(
        &self,
        request: Request<v1::CreateSavepointRequest>,
    ) -> Result<Response<v1::CreateSavepointResponse>, Status> {
        let request = request.into_inner();
        let name = job_name(request.name)?;
        let savepoint = Some(request.savepoint).filter(|name| !name.is_empty());
        let created = self.backend.create_savepoint(&name, savepoint).await;
        answer(created.map(|savepoint| v1::CreateSavepointResponse {
            savepoint: Some(savepoint.into()),
        }))
    }

    async fn list_savepoints(
        &self,
        request: Request<v1::ListSavepointsRequest>,
    ) -> Result<Response<v1::ListSavepointsResponse>, Status> {
        let name = job_name(request.into_inner().name)?;
        let savepoints = self.backend.savepoints(&name).await;
        answer(savepoints.map(|savepoints| v1::ListSavepointsResponse {
            savepoints: savepoints.into_iter().map(v1::Savepoint::from).collect(),
        }))
    }

    async fn drop_savepoint(
        &self,
        request: Request<v1::DropSavepointRequest>,
    ) -> Result<Response<v1::DropSavepointResponse>, Status> {
        let request = request.into_inner();
        let name = job_name(request.name)?;
        let dropped = self.backend.drop_savepoint(&name, &request.savepoint).await;
        answer(dropped.map(|savepoint| v1::DropSavepointResponse {
            savepoint: Some(savepoint.into()),
        }))
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        let request = request.into_inner();
        let name = job_name(request.name)?;
        let limit = match request.limit {
            0 => CHECKPOINTS_DEFAULT,
            limit => (limit as usize).min(CHECKPOINTS_MAX),
        };
        let checkpoints = self.backend.checkpoints(&name, limit).await;
        answer(checkpoints.map(|checkpoints| v1::ListCheckpointsResponse {
            checkpoints: checkpoints.into_iter().map(v1::Checkpoint::from).collect(),
        }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<Self::ListDeadLettersStream>, Status> {
        let mut request = request.into_inner();
        let name = job_name(std::mem::take(&mut request.name))?;
        let listed = self.backend.dead_letters(&name, request.into()).await;
        let listed = listed.map_err(|error| grpc::to_status(&error))?;
        let parts = listed.map(|part| match part {
            Ok(part) => Ok(part.into()),
            Err(error) => Err(grpc::to_status(&error)),
        });
        Ok(Response::new(
            parts.take_until(self.shutdown.clone()).boxed(),
        ))
    }

    async fn preview_relation(
        &self,
        request: Request<v1::PreviewRelationRequest>,
    ) -> Result<Response<Self::PreviewRelationStream>, Status> {
        let request = request.into_inner();
        let name = job_name(request.name)?;
        let parts = self.backend.preview(&name, &request.relation).await;
        let parts = parts.map_err(|error| grpc::to_status(&error))?;
        let parts = parts.map(|part| match part {
            Ok(part) => Ok(part.into()),
            Err(error) => Err(grpc::to_status(&error)),
        });
        Ok(Response::new(
            parts.take_until(self.shutdown.clone()).boxed(),
        ))
    }

    async fn replay_dead_letters(
        &self,
        request: Request<Streaming<v1::ReplayDeadLettersRequest>>,
    ) -> Result<Response<v1::ReplayDeadLettersResponse>, Status> {
        let (name, request) = replay_request(request.into_inner()).await?;
        let name = job_name(name)?;
        answer(self.backend.replay(&name, request).await)
    }
}

/// One client's watch of one job: it polls, so that the master keeps no list of watchers.
struct Watch {
    backend: Arc<dyn ControlBackend>,
    name: JobName,
    next: Next,
}

enum Next {
    Now(Box<v1::Job>),
    Later,
    End,
}

impl Watch {
    async fn advance(mut self) -> Option<(Result<v1::WatchJobResponse, Status>, Self)> {
        let job = match std::mem::replace(&mut self.next, Next::Later) {
            Next::Now(job) => Ok(*job),
            Next::Later => {
                tokio::time::sleep(WATCH_INTERVAL).await;
                self.backend.get(&self.name).await.map(v1::Job::from)
            }
            Next::End => return None,
        };
        let is_last = match &job {
            Ok(job) => matches!(
                job.state(),
                v1::JobState::Stopped | v1::JobState::Finished | v1::JobState::Failed
            ),
            Err(_) => true,
        };
        if is_last {
            self.next = Next::End;
        }
        let response = job
            .map(|job| v1::WatchJobResponse { job: Some(job) })
            .map_err(|error| grpc::to_status(&error));
        Some((response, self))
    }
}

/// Gathers the rows of all messages, up to what one call may send.
async fn replay_request(
    mut messages: Streaming<v1::ReplayDeadLettersRequest>,
) -> Result<(String, ReplayRequest), Status> {
    let first = messages.message().await?.unwrap_or_default();
    let (name, mut request) = grpc::replay_request(first);
    let mut bytes = 0;
    while let Some(message) = messages.message().await? {
        bytes += message.rows.iter().map(Vec::len).sum::<usize>();
        if bytes > resend::BYTES_MAX {
            let text = format!(
                "more than {} MiB at once: send the rows in parts",
                resend::BYTES_MAX >> 20
            );
            return Err(grpc::to_status(&ControlError::Invalid(text)));
        }
        request
            .corrected
            .get_or_insert_default()
            .extend(message.rows);
    }
    Ok((name, request))
}

fn answer<A, M: From<A>>(result: Result<A, ControlError>) -> Result<Response<M>, Status> {
    match result {
        Ok(value) => Ok(Response::new(value.into())),
        Err(error) => Err(grpc::to_status(&error)),
    }
}

fn job_name(name: String) -> Result<JobName, Status> {
    super::job_name(name).map_err(|error| grpc::to_status(&error))
}
