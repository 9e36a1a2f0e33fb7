//! The call that shows the rows of a relation as they flow.

use futures::stream::{BoxStream, StreamExt};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{ControlClient, Error, READ_DEADLINE};
use crate::control::{PreviewHeader, PreviewPart, PreviewRows};
use crate::grpc::Malformed;
use crate::ids::JobName;

impl ControlClient {
    /// What is shown, and its rows. They end with an error that may go away when the job is placed anew: then ask again.
    pub async fn preview(
        &self,
        name: &JobName,
        relation: &str,
    ) -> Result<
        (
            PreviewHeader,
            BoxStream<'static, Result<PreviewRows, Error>>,
        ),
        Error,
    > {
        const CALL: &str = "preview relation";
        let request = v1::PreviewRelationRequest {
            name: name.0.clone(),
            relation: relation.to_owned(),
        };
        let mut client = self.client.clone();
        let opened = async {
            let mut parts = client
                .preview_relation(Request::new(request))
                .await?
                .into_inner();
            let first = parts.message().await?;
            Ok::<_, Status>(Response::new((first, parts)))
        };
        let (first, parts) = self.within(CALL, READ_DEADLINE, opened).await?;
        let header = match first.map(PreviewPart::from) {
            Some(PreviewPart::Header(header)) => header,
            Some(PreviewPart::Rows(_)) | None => {
                return Err(Malformed("a preview that does not say what it shows").into());
            }
        };
        let asker = self.clone();
        let rows = parts.map(move |part| {
            let part = part.map_err(|status| asker.failure(CALL, status))?;
            match PreviewPart::from(part) {
                PreviewPart::Rows(rows) => Ok(rows),
                PreviewPart::Header(_) => Err(Malformed("a preview with two headers").into()),
            }
        });
        Ok((header, rows.boxed()))
    }
}
