//! Whether the folder of a files source is there.
//!
//! Called by [`super::RealProbe`] only; looks in blocking work.

use millstream_common::blocking::{self, BlockingRef};
use millstream_common::error::Kind;
use millstream_common::file_pattern::without_scheme;
use millstream_common::plan::connector::FilesSourceSpec;
use millstream_common::secret;

use crate::enumerate::files::missing_folder;
use crate::plan::check::{Folder, ProbeError};

pub(super) async fn folder(
    blocking: &BlockingRef,
    spec: &FilesSourceSpec,
) -> Result<Folder, ProbeError> {
    let failed = |kind, cause| ProbeError {
        kind,
        what: format!("look for folder {}", spec.path),
        cause,
        // A reference that does not resolve says what to set.
        is_advised: kind == Kind::User,
    };
    let path =
        secret::resolve(&spec.path).map_err(|error| failed(Kind::User, error.to_string()))?;
    let path = without_scheme(path.expose()).to_owned();
    let looked = blocking::run(blocking, move || missing_folder(&path)).await;
    match looked {
        Ok(None) => Ok(Folder::There),
        Ok(Some(missing)) => Ok(Folder::Missing(missing.display().to_string())),
        Err(panicked) => Err(failed(Kind::Internal, panicked.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_common::blocking::ThreadPool;
    use millstream_common::plan::connector::Compression;
    use tempfile::TempDir;

    use super::*;

    async fn look(path: String) -> Folder {
        let spec = FilesSourceSpec {
            path,
            watch: true,
            settle_ms: 2_000,
            discovery_interval_ms: 1_000,
            files_per_epoch_max: None,
            compression: Compression::Auto,
        };
        let blocking: BlockingRef = Arc::new(ThreadPool);
        folder(&blocking, &spec).await.expect("an answer")
    }

    #[tokio::test]
    async fn of_a_glob_the_folder_in_front_of_it_has_to_be_there() {
        let there = TempDir::new().expect("a folder");
        let path = there.path().display();
        assert_eq!(look(format!("file://{path}")).await, Folder::There);
        assert_eq!(look(format!("{path}/*.csv")).await, Folder::There);
        let missing = Folder::Missing(format!("{path}/in"));
        assert_eq!(look(format!("{path}/in/*/*.csv")).await, missing);
        assert_eq!(look(format!("{path}/in")).await, missing);
    }
}
