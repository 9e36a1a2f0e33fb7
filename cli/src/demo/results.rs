//! Reads what the demo's sinks have written, as anybody else would: CSV and JSON lines in a folder.
//!
//! Owns nothing: each look reads the folder again. Files whose names begin with `.` or `_` are not
//! results. Failure: a file that cannot be read or understood is an error with its path.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;

use super::oracle::{Position, Window, moment};

/// Folder of the counts, as `jobs/demo.sql` names it.
pub(super) const COUNTS: &str = "clicks_per_minute";
/// Folder of the dead letters.
pub(super) const REJECTED: &str = "clicks_rejected";

/// Every count found for a window: exactly one where all is well.
pub(super) type Counts = BTreeMap<Window, Vec<u64>>;
/// Every code found for a record.
pub(super) type Rejects = BTreeMap<Position, Vec<String>>;

/// The counts below `output`.
pub(super) fn counts(output: &Path) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for file in files(&output.join(COUNTS), "csv")? {
        let text = std::fs::read_to_string(&file);
        let text = text.with_context(|| format!("read {}", file.display()))?;
        read_counts(&text, &mut counts).with_context(|| format!("read {}", file.display()))?;
    }
    Ok(counts)
}

/// The dead letters below `output`.
pub(super) fn rejected(output: &Path) -> anyhow::Result<Rejects> {
    let mut rejects = Rejects::new();
    for file in files(&output.join(REJECTED), "json")? {
        let text = std::fs::read_to_string(&file);
        let text = text.with_context(|| format!("read {}", file.display()))?;
        read_rejects(&text, &mut rejects).with_context(|| format!("read {}", file.display()))?;
    }
    Ok(rejects)
}

fn read_counts(text: &str, counts: &mut Counts) -> anyhow::Result<()> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &str| {
        let found = header.iter().position(|column| *column == name);
        found.ok_or_else(|| anyhow!("the header lacks {name}"))
    };
    let (start, action, clicks) = (
        column("window_start")?,
        column("action")?,
        column("clicks")?,
    );
    for line in lines {
        // Neither times nor numbers nor actions hold commas or quotes.
        let fields: Vec<&str> = line.split(',').collect();
        if fields.len() != header.len() {
            bail!("{line:?} does not fit the header");
        }
        let minute = moment(fields[start]).with_context(|| format!("read time of {line:?}"))?;
        let clicks = fields[clicks]
            .parse()
            .with_context(|| format!("read clicks of {line:?}"))?;
        let window = (minute, fields[action].to_owned());
        counts.entry(window).or_default().push(clicks);
    }
    Ok(())
}

/// The columns of a dead letter that tell which record it was and what was wrong with it.
#[derive(Deserialize)]
struct DeadLetter {
    origin: String,
    position: u64,
    code: String,
}

fn read_rejects(text: &str, rejects: &mut Rejects) -> anyhow::Result<()> {
    for line in text.lines() {
        let letter: DeadLetter = serde_json::from_str(line)?;
        let partition = letter
            .origin
            .rsplit('-')
            .next()
            .and_then(|end| end.parse().ok());
        let partition = partition.with_context(|| format!("read origin of {line}"))?;
        let position = (partition, letter.position);
        rejects.entry(position).or_default().push(letter.code);
    }
    Ok(())
}

/// The files below `folder` that end in `.{ending}`; none where there is no folder yet.
fn files(folder: &Path, ending: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", folder.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let path = entry.path();
        let name = entry.file_name();
        let is_hidden = name.to_string_lossy().starts_with(['.', '_']);
        if !is_hidden
            && path
                .extension()
                .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_dead_letters_are_read_from_all_visible_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let header = "window_start,window_end,action,clicks\n";
        let row = "2026-05-01T10:00:00,2026-05-01T10:01:00,view,";
        write("clicks_per_minute/part-1.csv", &format!("{header}{row}3\n"));
        write("clicks_per_minute/part-2.csv", &format!("{header}{row}4\n"));
        write("clicks_per_minute/_half.csv", "nonsense");
        write(
            "clicks_rejected/part-1.json",
            "{\"source\":\"clicks\",\"origin\":\"clicks-3\",\"position\":9,\"code\":\"late\"}\n",
        );
        let counts = super::counts(folder.path()).unwrap();
        let window = (moment("2026-05-01T10:00:00").unwrap(), "view".to_owned());
        assert_eq!(counts, Counts::from([(window, vec![3, 4])]));
        let rejects = rejected(folder.path()).unwrap();
        assert_eq!(rejects, Rejects::from([((3, 9), vec!["late".to_owned()])]));
    }

    #[test]
    fn no_folder_is_no_result_and_a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(super::counts(folder.path()).unwrap().is_empty());
        std::fs::create_dir(folder.path().join(COUNTS)).unwrap();
        std::fs::write(
            folder.path().join("clicks_per_minute/a.csv"),
            "action,clicks\n",
        )
        .unwrap();
        let error = format!("{:#}", super::counts(folder.path()).unwrap_err());
        assert!(
            error.contains("a.csv") && error.contains("window_start"),
            "{error}"
        );
    }
}
