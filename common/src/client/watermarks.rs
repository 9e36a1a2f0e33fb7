//! The call that asks how far time has come in a job.
//!
//! Failure: that of every call of the client.

use millstream_proto::v1;

use super::{ControlClient, Error, READ_DEADLINE, timed};
use crate::control::WatermarksView;
use crate::ids::JobName;

impl ControlClient {
    /// The watermarks of a job, and what holds them back.
    pub async fn watermarks(&self, name: &JobName) -> Result<WatermarksView, Error> {
        let request = v1::GetWatermarksRequest {
            name: name.0.clone(),
        };
        let mut client = self.client.clone();
        let answer = client.get_watermarks(timed(request, READ_DEADLINE));
        let answer = self.within("get watermarks", READ_DEADLINE, answer).await?;
        Ok(answer.try_into()?)
    }
}
