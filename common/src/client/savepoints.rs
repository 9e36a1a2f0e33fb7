//! The calls that keep epochs by name, list and drop them.
//!
//! Failure: that of every call of the client; a name that is taken or unknown is refused by the master.

use millstream_proto::v1;

use super::{ControlClient, Error, READ_DEADLINE, STOP_DEADLINE, timed};
use crate::control::SavepointView;
use crate::ids::JobName;

impl ControlClient {
    /// Keeps the job's next epoch by name; without one it is named after the epoch.
    pub async fn create_savepoint(
        &self,
        name: &JobName,
        savepoint: Option<&str>,
    ) -> Result<SavepointView, Error> {
        let request = v1::CreateSavepointRequest {
            name: name.0.clone(),
            savepoint: savepoint.unwrap_or_default().to_owned(),
        };
        let mut client = self.client.clone();
        // It waits for the next epoch.
        let answer = client.create_savepoint(timed(request, STOP_DEADLINE));
        let answer = self
            .within("create savepoint", STOP_DEADLINE, answer)
            .await?;
        Ok(answer.savepoint.unwrap_or_default().into())
    }

    /// The savepoints of a job, oldest first.
    pub async fn savepoints(&self, name: &JobName) -> Result<Vec<SavepointView>, Error> {
        let request = v1::ListSavepointsRequest {
            name: name.0.clone(),
        };
        let mut client = self.client.clone();
        let answer = client.list_savepoints(timed(request, READ_DEADLINE));
        let answer = self
            .within("list savepoints", READ_DEADLINE, answer)
            .await?;
        Ok(answer.savepoints.into_iter().map(Into::into).collect())
    }

    /// Keeps a savepoint no longer; as it was.
    pub async fn drop_savepoint(
        &self,
        name: &JobName,
        savepoint: &str,
    ) -> Result<SavepointView, Error> {
        let request = v1::DropSavepointRequest {
            name: name.0.clone(),
            savepoint: savepoint.to_owned(),
        };
        let mut client = self.client.clone();
        let answer = client.drop_savepoint(timed(request, READ_DEADLINE));
        let answer = self.within("drop savepoint", READ_DEADLINE, answer).await?;
        Ok(answer.savepoint.unwrap_or_default().into())
    }
}
