//! The peers there are, and which of them are installed.
//!
//! Used by `mod.rs`. `tests/bench/peers/install` makes a folder for each peer and version, named after both; what is not finished has another name.
//! Failure: a peer that is asked for and not there.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// How to get them.
const HOW: &str = "`make install-peers` installs them";

/// An engine that the bench knows a job for.
pub(super) struct Kind {
    /// Of its folders, here and where it is installed.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Whether its answer lacks the windows that the watermark has not passed.
    pub(super) keeps_open_windows: bool,
    /// Whether its job also knows the query that leaves out clicks which come twice.
    pub(super) dedups: bool,
}

pub(super) static KINDS: [Kind; 4] = [
    Kind {
        name: "flink",
        title: "Flink SQL",
        keeps_open_windows: false,
        dedups: true,
    },
    Kind {
        name: "spark",
        title: "Spark Structured Streaming",
        keeps_open_windows: true,
        dedups: true,
    },
    Kind {
        name: "kafka_streams",
        title: "Kafka Streams",
        keeps_open_windows: false,
        dedups: true,
    },
    Kind {
        name: "laminardb",
        title: "LaminarDB",
        keeps_open_windows: true,
        dedups: false,
    },
];

/// One that is installed.
pub(super) struct Peer {
    pub(super) kind: &'static Kind,
    version: String,
    pub(super) home: PathBuf,
}

impl Peer {
    /// With its version.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.kind.title, self.version)
    }
}

/// Those that `wanted` asks for: `installed`, `all`, `none`, or names with commas. Says which ones are not installed.
pub(super) fn find(wanted: &str, folder: &Path) -> anyhow::Result<Vec<Peer>> {
    let kinds = wanted_kinds(wanted)?;
    let names = names_in(folder)?;
    let mut peers = Vec::new();
    let mut missing = Vec::new();
    for kind in kinds {
        match newest(kind.name, &names) {
            Some(version) => peers.push(Peer {
                kind,
                version: version.to_owned(),
                home: folder.join(format!("{}-{version}", kind.name)),
            }),
            None => missing.push(kind.name),
        }
    }
    let missing = missing.join(", ");
    if missing.is_empty() {
        return Ok(peers);
    }
    let folder = folder.display();
    if wanted != "installed" {
        bail!("not installed in {folder}: {missing}; {HOW}");
    }
    println!("peers that are not installed in {folder}, and so not run: {missing}; {HOW}");
    Ok(peers)
}

fn wanted_kinds(wanted: &str) -> anyhow::Result<Vec<&'static Kind>> {
    match wanted {
        "none" => Ok(Vec::new()),
        "installed" | "all" => Ok(KINDS.iter().collect()),
        names => names.split(',').map(kind_of).collect(),
    }
}

fn kind_of(name: &str) -> anyhow::Result<&'static Kind> {
    let kind = KINDS.iter().find(|kind| kind.name == name);
    kind.with_context(|| {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        format!(
            "no peer {name}; there are: {}, and installed, all, none",
            names.join(", ")
        )
    })
}

/// Nothing in a folder that is not there.
fn names_in(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !folder.try_exists().context("look for peers")? {
        return Ok(Vec::new());
    }
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        anyhow::Ok(entry?.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect()
}

/// The greatest version in names like `flink-2.2.1`; logs and unfinished folders end with a word.
fn newest<'a>(kind: &str, names: &'a [String]) -> Option<&'a str> {
    let versions = names.iter().filter_map(|name| {
        let version = name.strip_prefix(kind)?.strip_prefix('-')?;
        let numbers: Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
        Some((numbers.ok()?, version))
    });
    versions.max().map(|(_, version)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_version_is_found() {
        let names = [
            "flink-2.9.0",
            "flink-2.10.1",
            "flink-3.0.0.partial",
            "flink-3.0.0.log",
        ];
        let names = names.map(str::to_owned);
        assert_eq!(newest("flink", &names), Some("2.10.1"));
        assert_eq!(newest("spark", &names), None);
    }

    #[test]
    fn what_is_installed_is_found_and_what_is_asked_for_has_to_be() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("spark-4.2.0")).expect("a folder");
        let found = |wanted| {
            let peers = find(wanted, folder.path()).map_err(|error| error.to_string());
            peers.map(|peers| peers.iter().map(Peer::title).collect::<Vec<_>>())
        };
        let spark = Ok(vec!["Spark Structured Streaming 4.2.0".to_owned()]);
        assert_eq!(found("installed"), spark);
        assert_eq!(found("spark"), spark);
        assert_eq!(found("none"), Ok(Vec::new()));
        let failure = found("all").expect_err("three are missing");
        assert!(
            failure.contains("flink, kafka_streams, laminardb; `make install-peers`"),
            "{failure}"
        );
        let failure = found("spark,storm").expect_err("there is no job for it");
        assert!(failure.contains("no peer storm"), "{failure}");
        let nowhere = folder.path().join("nowhere");
        assert!(find("installed", &nowhere).is_ok_and(|peers| peers.is_empty()));
    }
}
