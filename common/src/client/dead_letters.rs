//! The calls that list dead letters and send rows again.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use millstream_proto::v1;
use tonic::Request;

use super::{ControlClient, Error, READ_DEADLINE};
use crate::control::{LetterPage, LetterQuery, ReplayRequest, Replayed};
use crate::grpc;
use crate::ids::JobName;

/// The master reads what is kept, which may lie in a far storage, and appends to the log.
const REPLAY_DEADLINE: Duration = Duration::from_secs(120);

impl ControlClient {
    /// The dead letters that are kept, newest first, part by part; the last part has the totals.
    pub async fn dead_letters(
        &self,
        name: &JobName,
        query: LetterQuery,
    ) -> Result<BoxStream<'static, Result<LetterPage, Error>>, Error> {
        let request = v1::ListDeadLettersRequest {
            name: name.0.clone(),
            filter: Some(query.filter.into()),
            limit: query.limit,
        };
        let mut client = self.client.clone();
        let answer = client.list_dead_letters(Request::new(request));
        let parts = self
            .within("list dead letters", READ_DEADLINE, answer)
            .await?;
        let asker = self.clone();
        let pages = parts.map(move |part| match part {
            Ok(part) => Ok(LetterPage::from(part)),
            Err(status) => Err(asker.failure("list dead letters", status)),
        });
        Ok(pages.boxed())
    }

    /// Sends rows through the job again. The same call made again, because its answer was lost, has no effect.
    pub async fn replay(&self, name: &JobName, request: ReplayRequest) -> Result<Replayed, Error> {
        let messages = grpc::replay_requests(name, request);
        let mut client = self.client.clone();
        let answer = client.replay_dead_letters(Request::new(stream::iter(messages)));
        let answer = self.within("replay dead letters", REPLAY_DEADLINE, answer);
        Ok(answer.await?.into())
    }
}
