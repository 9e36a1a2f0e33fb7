//! Whether the folder of a files source is there, and that of a files sink can be.
//!
//! Called by [`super::RealProbe`] only; looks in blocking work.

use std::path::{Path, PathBuf};

use millstream_common::blocking::{self, BlockingRef};
use millstream_common::error::Kind;
use millstream_common::file_pattern::without_scheme;
use millstream_common::plan::connector::{FilesSinkSpec, FilesSourceSpec};
use millstream_common::secret;
use millstream_sinks::files::folder_of;
use millstream_sinks::sink::SinkError;

use crate::enumerate::files::missing_folder;
use crate::plan::check::{Folder, OutputFolder, ProbeError};

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

/// Looks only: the folder is made by the worker that delivers.
pub(super) async fn output(
    blocking: &BlockingRef,
    spec: &FilesSinkSpec,
) -> Result<OutputFolder, ProbeError> {
    let path = folder_of(&spec.path).map_err(|error| ProbeError {
        kind: error.kind(),
        what: format!("look for folder {}", spec.path),
        cause: match error {
            SinkError::Refused { cause, .. } => cause,
            other => other.to_string(),
        },
        is_advised: true,
    })?;
    let looked = blocking::run(blocking, move || blocking_file(Path::new(&path))).await;
    match looked {
        Ok(None) => Ok(OutputFolder::Possible),
        Ok(Some(file)) => Ok(OutputFolder::Blocked(file.display().to_string())),
        Err(panicked) => Err(ProbeError {
            kind: Kind::Internal,
            what: format!("look for folder {}", spec.path),
            cause: panicked.to_string(),
            is_advised: false,
        }),
    }
}

/// The part of `path` that is there and no folder.
fn blocking_file(path: &Path) -> Option<PathBuf> {
    let nearest = path
        .ancestors()
        .find(|part| part.symlink_metadata().is_ok())?;
    (!nearest.is_dir()).then(|| nearest.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_common::blocking::ThreadPool;
    use millstream_common::plan::connector::{Compression, FileFormat};
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

    async fn look_for_output(path: String) -> Result<OutputFolder, String> {
        let spec = FilesSinkSpec {
            path,
            format: FileFormat::Csv,
            partition_by: Vec::new(),
            roll_interval_ms: 60_000,
            roll_bytes: 1 << 20,
        };
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let looked = output(&blocking, &spec).await;
        looked.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_folder_to_write_is_there_or_can_be_made_or_something_stands_in_its_place() {
        let there = TempDir::new().expect("a folder");
        let path = there.path().display();
        for possible in [format!("{path}"), format!("file://{path}/out/deep/")] {
            let found = look_for_output(possible).await;
            assert_eq!(found, Ok(OutputFolder::Possible));
        }
        let file = format!("{path}/file");
        std::fs::write(&file, "x").expect("a file");
        for blocked in [file.clone(), format!("{file}/out")] {
            let found = look_for_output(blocked).await;
            assert_eq!(found, Ok(OutputFolder::Blocked(file.clone())));
        }
        assert_eq!(
            look_for_output("out".to_owned()).await,
            Ok(OutputFolder::Possible)
        );
    }

    #[tokio::test]
    async fn a_path_that_no_sink_could_open_is_refused_before() {
        let unset = look_for_output("${MILLSTREAM_TEST_NO_SUCH_FOLDER}".to_owned()).await;
        let unset = unset.expect_err("nobody set it");
        assert!(
            unset.contains("MILLSTREAM_TEST_NO_SUCH_FOLDER is not set"),
            "{unset}"
        );
        let remote = look_for_output("s3://bucket/out".to_owned()).await;
        let remote = remote.expect_err("not written to yet");
        assert!(remote.contains("local file system"), "{remote}");
    }
}
