//! Makes the bucket that a storage URL names, for an object store that begins empty.
//!
//! Called by a master that is told to, before it opens its storage. object_store makes no buckets, but signs any request. Several
//! masters may do it at once: a bucket that is there already is fine. Failure: an object store that refuses is `Unavailable`
//! with what it says.

use std::time::Duration;

use object_store::ClientOptions;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpConnector, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::signer::Signer;
use tonic::codegen::http::{Method, Request, StatusCode};

use super::Error;
use super::object::settings;
use crate::error::chain;

/// How long the request may be on its way.
const SIGNATURE_LIFE: Duration = Duration::from_secs(60);
/// A bucket is there unless one is asked for elsewhere.
const REGION_DEFAULT: &str = "us-east-1";

/// Makes the bucket of `url` (`s3://bucket/prefix`) if it is not there; a folder needs none.
pub async fn create_bucket(url: &str) -> Result<(), Error> {
    if url.starts_with("file://") {
        return Ok(());
    }
    let refused = |cause: String| Error::Url {
        url: url.to_owned(),
        cause,
    };
    let builder = AmazonS3Builder::new().with_url(url);
    let builder = settings().fold(builder, |builder, (name, value)| {
        match name.parse::<AmazonS3ConfigKey>() {
            Ok(key) => builder.with_config(key, value),
            Err(_) => builder,
        }
    });
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let bucket = builder.build().map_err(|error| refused(chain(&error)))?;
    let unavailable = |cause: String| Error::Unavailable {
        key: url.to_owned(),
        cause: format!("make the bucket: {cause}"),
    };
    let root = Path::default();
    let signed = bucket.signed_url(Method::PUT, &root, SIGNATURE_LIFE);
    let signed = signed.await.map_err(|error| unavailable(chain(&error)))?;
    let request = Request::put(signed.as_str()).body(place(region.as_deref()));
    let request = request.map_err(|error| refused(chain(&error)))?;
    let options = ClientOptions::new().with_allow_http(signed.scheme() == "http");
    let client = ReqwestConnector::default().connect(&options);
    let client = client.map_err(|error| unavailable(chain(&error)))?;
    let answer = client.execute(request).await;
    let answer = answer.map_err(|error| unavailable(chain(&error)))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        // Somebody was first. If that was a stranger, opening the storage will tell.
        StatusCode::CONFLICT => Ok(()),
        status => {
            let body = answer.into_body().bytes().await.unwrap_or_default();
            let told = String::from_utf8_lossy(&body).trim().to_owned();
            Err(unavailable(format!("{status} {told}")))
        }
    }
}

/// What a request says about where the bucket is to be.
fn place(region: Option<&str>) -> HttpRequestBody {
    match region {
        None | Some(REGION_DEFAULT) => HttpRequestBody::empty(),
        Some(region) => format!(
            "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_needs_no_bucket_and_a_url_that_names_none_is_refused() {
        create_bucket("file:///nowhere")
            .await
            .expect("nothing to do");
        let refused = create_bucket("s3://").await;
        assert!(matches!(refused, Err(Error::Url { .. })), "{refused:?}");
    }

    #[test]
    fn a_bucket_elsewhere_is_asked_for_by_its_region() {
        assert!(place(None).is_empty() && place(Some("us-east-1")).is_empty());
        let body = place(Some("eu-central-1"));
        let text = body.as_bytes().expect("one piece");
        assert!(text.starts_with(b"<CreateBucketConfiguration><LocationConstraint>eu-central-1<"));
    }
}
