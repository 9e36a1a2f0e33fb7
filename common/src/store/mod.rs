//! Storage as the rest of Millstream sees it: keys to immutable bytes, created only if absent.
//!
//! The log, state parts and segments go through [`Store`]; nothing else is durable. Two real kinds:
//! [`FileStore`] (`file://`, fsynced) and [`ObjectStore`] (`s3://` and whatever else object_store
//! opens); a simulator brings its own. Failure: [`Error`] says whether the effect is known.

mod bucket;
mod file;
mod object;
mod pieces;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use bucket::create_bucket;
pub use file::FileStore;
pub use object::ObjectStore;
pub use pieces::{PieceGatherer, Pieces};

use crate::blocking::BlockingRef;
use crate::error::Kind;

/// What a call to storage can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is taken; read it to learn by whom.
    #[error("{key} exists already")]
    Exists {
        /// The key that was to be created.
        key: String,
    },
    /// Whether the call had its effect is unknown: it may have failed before or after.
    #[error("storage unavailable at {key}: {cause}")]
    Unavailable {
        /// The key of the call.
        key: String,
        /// What the storage says.
        cause: String,
    },
    /// The bucket is not there, or not any more.
    #[error(
        "there is no bucket for {url}: make it, let `millstream master --create-bucket` make it, or correct the name or AWS_ENDPOINT_URL"
    )]
    NoBucket {
        /// The URL as given.
        url: String,
    },
    /// Of several creators of one key more than one got it: two masters could both win an epoch.
    #[error(
        "storage {url} is not safe: it lets several writers create one key (If-None-Match is ignored); use \
         a folder, or an S3 server that honours conditional writes"
    )]
    Unsafe {
        /// The URL as given.
        url: String,
    },
    /// The URL names no storage that can be opened.
    #[error("open storage {url}: {cause}; write file:///path or s3://bucket/prefix")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl Error {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Exists { .. } => Kind::Internal,
            Self::Unavailable { .. } | Self::NoBucket { .. } => Kind::External,
            Self::Url { .. } | Self::Unsafe { .. } => Kind::User,
        }
    }
}

/// Keys to immutable bytes. Keys are relative paths of `[A-Za-z0-9._=-]` segments joined by `/`.
///
/// # Contract
/// `create` is durable when it returns `Ok`, and of several creators of one key exactly one gets
/// `Ok`. A reader sees a key whole or not at all.
#[async_trait]
pub trait Store: Send + Sync {
    /// Creates `key`; [`Error::Exists`] if it is there, whoever made it.
    async fn create(&self, key: &str, value: Bytes) -> Result<(), Error>;
    /// The same, of bytes in pieces. A store that need not join them does not.
    async fn create_pieces(&self, key: &str, value: &Pieces) -> Result<(), Error> {
        self.create(key, value.whole()).await
    }
    /// Creates or replaces `key`. Only for advisory objects that nothing refers to.
    async fn put(&self, key: &str, value: Bytes) -> Result<(), Error>;
    /// The bytes of `key`, or `None` if it is not there.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, Error>;
    /// The keys that begin with `prefix` (a folder, ending in `/`), in order.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error>;
    /// The keys that begin with `prefix`, in order, each with its size in bytes. A store that can tell sizes without reading
    /// does.
    async fn list_sized(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let mut sized = Vec::new();
        for key in self.list(prefix).await? {
            if let Some(value) = self.get(&key).await? {
                sized.push((key, value.len() as u64));
            }
        }
        Ok(sized)
    }
    /// Removes `key`; absent is fine.
    async fn delete(&self, key: &str) -> Result<(), Error>;
}

/// A shared storage.
pub type StoreRef = Arc<dyn Store>;

/// Opens the storage behind `url` and checks that create-only holds on it.
pub async fn open(url: &str, blocking: BlockingRef) -> Result<StoreRef, Error> {
    let store: StoreRef = match url.strip_prefix("file://") {
        Some(path) => Arc::new(FileStore::open(path, blocking).await?),
        None => Arc::new(ObjectStore::open(url)?),
    };
    self_test(&store, url).await?;
    Ok(store)
}

/// Creators of one key at the same moment.
const SELF_TEST_CREATORS: usize = 4;

/// Creates one key several times, at the same moment and again afterwards: one may get it, else two masters could both win an
/// epoch.
async fn self_test(store: &StoreRef, url: &str) -> Result<(), Error> {
    let key = format!("selftest/{}", crate::ids::nonce());
    let create = || store.create(&key, Bytes::from_static(b"mine"));
    let mut results = futures::future::join_all((0..SELF_TEST_CREATORS).map(|_| create())).await;
    results.push(create().await);
    let created_count = results.iter().filter(|result| result.is_ok()).count();
    store.delete(&key).await?;
    if created_count > 1 {
        return Err(Error::Unsafe {
            url: url.to_owned(),
        });
    }
    let unknown = results.into_iter().find_map(|result| match result {
        Ok(()) | Err(Error::Exists { .. }) => None,
        Err(error) => Some(error),
    });
    // One that may have been refused only for being too much at once proves nothing against the storage.
    match (created_count, unknown) {
        (0, Some(error)) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::blocking::ThreadPool;

    /// Takes every create for a put, as servers without conditional writes do.
    struct Overwrites(FileStore);

    #[async_trait]
    impl Store for Overwrites {
        async fn create(&self, key: &str, value: Bytes) -> Result<(), Error> {
            self.0.put(key, value).await
        }

        async fn put(&self, key: &str, value: Bytes) -> Result<(), Error> {
            self.0.put(key, value).await
        }

        async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
            self.0.get(key).await
        }

        async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
            self.0.list(prefix).await
        }

        async fn delete(&self, key: &str) -> Result<(), Error> {
            self.0.delete(key).await
        }
    }

    #[tokio::test]
    async fn a_storage_that_overwrites_what_is_to_be_created_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().to_string_lossy().into_owned();
        let url = format!("file://{path}");
        let blocking: BlockingRef = Arc::new(ThreadPool);
        open(&url, blocking.clone())
            .await
            .expect("a folder is safe");
        let files = FileStore::open(&path, blocking).await.expect("open");
        let store: StoreRef = Arc::new(Overwrites(files));
        let refused = self_test(&store, "s3://bucket").await;
        assert!(matches!(refused, Err(Error::Unsafe { .. })), "{refused:?}");
        assert!(store.list("selftest/").await.expect("list").is_empty());
    }
}
