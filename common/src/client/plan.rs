//! The call that asks for the SQL of a job and its plan.
//!
//! Failure: that of every call of the client.

use millstream_proto::v1;

use super::{ControlClient, Error, READ_DEADLINE, timed};
use crate::control::PlanView;
use crate::ids::JobName;

impl ControlClient {
    /// The SQL of a job and what it was planned to.
    pub async fn plan(&self, name: &JobName) -> Result<PlanView, Error> {
        let request = v1::GetPlanRequest {
            name: name.0.clone(),
        };
        let mut client = self.client.clone();
        let answer = client.get_plan(timed(request, READ_DEADLINE));
        let answer = self.within("get plan", READ_DEADLINE, answer).await?;
        Ok(answer.into())
    }
}
