//! Storage in a bucket, through object_store: `s3://bucket/prefix` and its like.
//!
//! Create-only is `PutMode::Create` (If-None-Match). Credentials and endpoint come from the
//! process's `AWS_*` variables. object_store retries what it knows to be safe; a bucket that is not there is `NoBucket`, anything
//! else `Unavailable`, and the caller reads back before it tries again. A create that is refused because another of the same key is under way
//! (409) proves nothing, for that one may fail: the key counts as taken only where something is there.

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Error, Pieces, Store};

/// Where machines of Amazon's learn their credentials.
const INSTANCE_METADATA: &str = "169.254.169.254";

/// Objects under one prefix of a bucket.
pub struct ObjectStore {
    url: String,
    inner: Box<dyn object_store::ObjectStore>,
    prefix: Path,
}

impl ObjectStore {
    /// Opens the bucket and prefix that `url` names.
    pub fn open(url: &str) -> Result<Self, Error> {
        let refused = |cause: String| Error::Url {
            url: url.to_owned(),
            cause,
        };
        let parsed = url::Url::parse(url).map_err(|error| refused(error.to_string()))?;
        let (inner, prefix) = object_store::parse_url_opts(&parsed, settings())
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self {
            url: url.to_owned(),
            inner,
            prefix,
        })
    }

    fn path(&self, key: &str) -> Path {
        let parts = key.split('/').filter(|part| !part.is_empty());
        Path::from_iter(
            self.prefix
                .parts()
                .map(|part| part.as_ref().to_owned())
                .chain(parts.map(str::to_owned)),
        )
    }

    async fn put_with(&self, key: &str, value: PutPayload, mode: PutMode) -> Result<(), Error> {
        let options = PutOptions::from(mode);
        let path = self.path(key);
        match self.inner.put_opts(&path, value, options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => Err(self.refused(key, &path).await),
            Err(error) => Err(self.in_bucket(key, error)),
        }
    }

    /// Of a call that needs no object to be there: what it lacks is the bucket.
    fn in_bucket(&self, key: &str, error: object_store::Error) -> Error {
        let cause = crate::error::chain(&error);
        // A list says so in its text only; where credentials are looked for, 404 means something else.
        let of_list =
            cause.contains("performing list request") && cause.contains("status code: 404");
        let is_missing = matches!(error, object_store::Error::NotFound { .. }) || of_list;
        match is_missing && !cause.contains(INSTANCE_METADATA) {
            true => Error::NoBucket {
                url: self.url.clone(),
            },
            false => translate(key, error),
        }
    }

    /// Why a create was refused. The library says the same of a key that is taken and of one that another request is about to take.
    async fn refused(&self, key: &str, path: &Path) -> Error {
        match self.inner.head(path).await {
            Ok(_) => Error::Exists {
                key: key.to_owned(),
            },
            Err(object_store::Error::NotFound { .. }) => Error::Unavailable {
                key: key.to_owned(),
                cause: "another create of this key is under way".to_owned(),
            },
            Err(error) => translate(key, error),
        }
    }
}

/// What the process's variables say about buckets.
pub(super) fn settings() -> impl Iterator<Item = (String, String)> {
    std::env::vars()
        .filter(|(name, _)| name.starts_with("AWS_"))
        .map(|(name, value)| (name.to_lowercase(), value))
}

fn translate(key: &str, error: object_store::Error) -> Error {
    let cause = crate::error::chain(&error);
    // Where no variable says who asks, the library asks the host that would know on a machine of Amazon's.
    let cause = match cause.contains(INSTANCE_METADATA) {
        true => format!(
            "nothing says who asks: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL where it is not Amazon's ({cause})"
        ),
        false => cause,
    };
    Error::Unavailable {
        key: key.to_owned(),
        cause,
    }
}

#[async_trait]
impl Store for ObjectStore {
    async fn create(&self, key: &str, value: Bytes) -> Result<(), Error> {
        self.put_with(key, value.into(), PutMode::Create).await
    }

    async fn create_pieces(&self, key: &str, value: &Pieces) -> Result<(), Error> {
        let payload = PutPayload::from_iter(value.iter().cloned());
        self.put_with(key, payload, PutMode::Create).await
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), Error> {
        self.put_with(key, value.into(), PutMode::Overwrite).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let read = async { self.inner.get(&self.path(key)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(translate(key, error)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let sized = self.list_sized(prefix).await?;
        Ok(sized.into_iter().map(|(key, _)| key).collect())
    }

    async fn list_sized(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let folder = self.path(prefix);
        let found: Vec<ObjectMeta> = self
            .inner
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|error| self.in_bucket(prefix, error))?;
        let mut sized: Vec<(String, u64)> = found
            .iter()
            .filter_map(|meta| {
                let parts = meta.location.prefix_match(&self.prefix)?;
                let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
                Some((parts.join("/"), meta.size))
            })
            .collect();
        sized.sort();
        Ok(sized)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.inner.delete(&self.path(key)).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(translate(key, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3Builder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    /// A bucket that answers every write with `put` and every look with `head`; both are status lines.
    #[allow(clippy::disallowed_methods, reason = "the server is the test's own")]
    async fn bucket(put: &'static str, head: &'static str) -> (ObjectStore, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 64 << 10];
                let count = stream.read(&mut request).await.unwrap_or(0);
                let status = match request[..count].starts_with(b"PUT") {
                    true => put,
                    false => head,
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: 0\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\netag: \"1\"\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let inner = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_endpoint(format!("http://{address}"))
            .with_allow_http(true)
            .with_region("here")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .build();
        let store = ObjectStore {
            url: "s3://bucket".to_owned(),
            inner: Box::new(inner.expect("a client")),
            prefix: Path::default(),
        };
        (store, server)
    }

    #[tokio::test]
    async fn a_create_refused_for_another_that_is_under_way_is_to_be_tried_again() {
        let (store, _server) = bucket("409 Conflict", "404 Not Found").await;
        let refused = store.create("log/1", Bytes::from_static(b"one")).await;
        assert!(
            matches!(refused, Err(Error::Unavailable { .. })),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_bucket_that_is_not_there_is_named_with_the_way_to_make_it() {
        let (store, _server) = bucket("404 Not Found", "404 Not Found").await;
        let written = store.put("log/1", Bytes::from_static(b"one")).await;
        let listed = store.list("log").await.map(drop);
        for refused in [written, listed] {
            let told = refused.expect_err("there is no bucket").to_string();
            assert!(
                told.contains("s3://bucket") && told.contains("--create-bucket"),
                "{told}"
            );
        }
        assert_eq!(store.get("log/1").await.expect("nothing is there"), None);
    }

    #[tokio::test]
    async fn a_create_refused_for_what_is_there_says_so() {
        for status in ["409 Conflict", "412 Precondition Failed"] {
            let (store, _server) = bucket(status, "200 OK").await;
            let refused = store.create("log/1", Bytes::from_static(b"one")).await;
            assert!(
                matches!(refused, Err(Error::Exists { .. })),
                "{status}: {refused:?}"
            );
        }
    }
}
