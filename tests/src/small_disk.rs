//! A disk of a few megabytes that a test can fill up.
//!
//! A tmpfs in a mount namespace of its own, so that no rights are needed where users may have namespaces, and nothing is
//! left when the test ends: the namespace goes with the process that holds it, which ends with this one's
//! stdin. Failure: a kernel that allows neither says so.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const BALLAST: &str = "ballast";
const CHUNK: [u8; 4096] = [0; 4096];

/// A mounted disk.
pub struct SmallDisk {
    holder: Child,
    mount_point: TempDir,
}

impl SmallDisk {
    /// Mounts a disk of so many megabytes.
    pub async fn mount(megabytes: u32) -> anyhow::Result<Self> {
        let mount_point = TempDir::new().context("create mount point")?;
        let script =
            format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$0\" && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(mount_point.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("run unshare")?;
        let stdout = holder.stdout.take().context("take stdout of unshare")?;
        let mut line = String::new();
        let mut lines = BufReader::new(stdout);
        lines.read_line(&mut line).await.context("read its line")?;
        if line.trim_end() != "mounted" {
            bail!("unshare could not mount a tmpfs: this test needs user namespaces or root");
        }
        Ok(Self {
            holder,
            mount_point,
        })
    }

    /// The disk, as processes outside its namespace see it.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        let id = self.holder.id().context("the disk's holder has ended")?;
        let inside = self.mount_point.path().strip_prefix("/")?;
        Ok(Path::new("/proc")
            .join(id.to_string())
            .join("root")
            .join(inside))
    }

    /// Leaves no byte free.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = File::create(self.path()?.join(BALLAST)).context("create ballast")?;
        loop {
            match ballast.write_all(&CHUNK) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("write ballast"),
            }
        }
    }

    /// Takes away what [`Self::fill`] has written.
    pub fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.path()?.join(BALLAST)).context("remove ballast")
    }
}
