//! Submissions that outlast a lost answer, as people expect of a client: it is tried again, and takes effect once.
//!
//! Part of the client. On a starved machine a connection may be given up although both ends live, and a master may end while it writes the
//! entry: whether the job was taken is not known then. Each try bears the same id, and a job that runs as it is submitted is left as it is,
//! so trying again is safe, at whichever master reigns by then. Failure: what no try settles says so, and what to do.

use std::time::Duration;

use super::{ControlClient, Error, SUBMIT_DEADLINE, timed};
use crate::control::{ControlError, SubmitRequest, Submitted};
use crate::ids;

/// For how long a submission whose first try settled nothing is tried again: a takeover takes seconds.
const RETRY_PATIENCE: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

impl ControlClient {
    /// Plans, checks and starts a job; one that runs already as it is submitted is left as it is.
    pub async fn submit(&self, request: SubmitRequest) -> Result<Submitted, Error> {
        let name = request.name.clone();
        let request = SubmitRequest {
            id: Some(request.id.unwrap_or_else(ids::nonce)),
            ..request
        };
        let mut unsettled = match self.try_submit(&request).await {
            Err(error) if is_unsettled(&error) => error,
            settled => return settled,
        };
        let retries = async {
            loop {
                tokio::time::sleep(RETRY_INTERVAL).await;
                let tried = match self.reconnect().await {
                    Ok(client) => client.try_submit(&request).await,
                    Err(error) => Err(error),
                };
                match tried {
                    Err(error) if is_unsettled(&error) => unsettled = error,
                    settled => return settled,
                }
            }
        };
        match tokio::time::timeout(RETRY_PATIENCE, retries).await {
            Ok(settled) => settled,
            Err(_) => Err(Error::Unsettled {
                name: name.0,
                cause: unsettled.to_string(),
            }),
        }
    }

    async fn try_submit(&self, request: &SubmitRequest) -> Result<Submitted, Error> {
        let mut client = self.client.clone();
        let answer = client.submit_job(timed(request.clone().into(), SUBMIT_DEADLINE));
        let response = self.within("submit job", SUBMIT_DEADLINE, answer).await?;
        Ok(response.try_into()?)
    }
}

/// Whether the job may have been taken, or a master may take it later.
fn is_unsettled(error: &Error) -> bool {
    match error {
        Error::TimedOut { .. }
        | Error::Broken { .. }
        | Error::Vacant { .. }
        | Error::Unreachable { .. }
        | Error::Refused(ControlError::Unavailable { .. }) => true,
        Error::Refused(_)
        | Error::Denied { .. }
        | Error::Malformed(_)
        | Error::Unsettled { .. } => false,
    }
}
