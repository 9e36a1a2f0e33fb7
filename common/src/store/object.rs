//! Storage in a bucket, through object_store: `s3://bucket/prefix` and its like.
//!
//! Create-only is `PutMode::Create` (If-None-Match). Credentials and endpoint come from the
//! process's `AWS_*` variables. object_store retries what it knows to be safe; anything else is
//! `Unavailable`, and the caller reads back before it tries again.

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Error, Pieces, Store};

/// Objects under one prefix of a bucket.
pub struct ObjectStore {
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
        Ok(Self { inner, prefix })
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
        let put = self.inner.put_opts(&path, value, options).await;
        put.map(drop).map_err(|error| translate(key, error))
    }
}

/// What the process's variables say about buckets.
pub(super) fn settings() -> impl Iterator<Item = (String, String)> {
    std::env::vars()
        .filter(|(name, _)| name.starts_with("AWS_"))
        .map(|(name, value)| (name.to_lowercase(), value))
}

fn translate(key: &str, error: object_store::Error) -> Error {
    match error {
        object_store::Error::AlreadyExists { .. } => Error::Exists {
            key: key.to_owned(),
        },
        error => Error::Unavailable {
            key: key.to_owned(),
            cause: crate::error::chain(&error),
        },
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
            .map_err(|error| translate(prefix, error))?;
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
