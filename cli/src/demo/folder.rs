//! The folder that the demo's results land in: made new each time, and never one that holds anything
//! else.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Says that a demo made the folder, so that the next one may replace it.
const MARK: &str = ".millstream-demo";

/// Makes `folder` anew and returns its absolute path.
pub(super) fn prepare(folder: &Path) -> anyhow::Result<PathBuf> {
    let folder =
        std::path::absolute(folder).with_context(|| format!("find folder {}", folder.display()))?;
    let shown = folder.display();
    match std::fs::symlink_metadata(folder.join(MARK)) {
        Ok(_) => std::fs::remove_dir_all(&folder)
            .with_context(|| format!("remove the results of the last demo in {shown}"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("look at {shown}")),
    }
    if let Err(error) = std::fs::create_dir_all(&folder) {
        return Err(error).with_context(|| format!("create {shown}"));
    }
    let mut entries = std::fs::read_dir(&folder).with_context(|| format!("list {shown}"))?;
    if entries.next().is_some() {
        bail!("{shown} holds something that no demo made; name another folder with --output");
    }
    std::fs::write(folder.join(MARK), "").with_context(|| format!("write into {shown}"))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_of_a_demo_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let folder = prepare(&parent.path().join("demo")).unwrap();
        std::fs::write(folder.join("old.csv"), "x").unwrap();
        prepare(&folder).unwrap();
        assert!(!folder.join("old.csv").try_exists().unwrap());

        let own = parent.path().join("thesis");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("thesis.tex"), "x").unwrap();
        let error = prepare(&own).unwrap_err().to_string();
        assert!(error.contains("--output"), "{error}");
        assert!(own.join("thesis.tex").try_exists().unwrap());
    }
}
