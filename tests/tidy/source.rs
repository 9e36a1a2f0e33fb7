//! The files of the workspace as rules see them: text with a path, and what of it is code.
//!
//! Used by every rule. Failure: a file that cannot be read panics, which fails the test.

use std::path::{Path, PathBuf};

/// A file of the workspace.
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            text: text.into(),
        }
    }

    /// Only compiled for tests.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let mut parts = self.path.split('/');
        let in_folder = parts.any(|part| part == "tests" || part == "testing");
        in_folder || name == "tests.rs" || name == "testing.rs"
    }

    /// The lines without the test module at the end, with their numbers.
    pub(crate) fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_module = |pair: &[&str]| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        };
        let end = lines.windows(2).position(is_module).unwrap_or(lines.len());
        lines
            .into_iter()
            .take(end)
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    pub(crate) fn says(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// The part of a line that is no comment. A `//` inside a string hides what follows it, which no rule here minds.
pub(crate) fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

pub(crate) fn holds_word(text: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace is above").to_owned()
}

pub(crate) fn workspace() -> Vec<Source> {
    let mut files = Vec::new();
    for member in [
        "proto", "common", "master", "worker", "sinks", "cli", "tests",
    ] {
        collect(&root().join(member), &mut files);
    }
    assert!(files.len() > 200, "only {} files were found", files.len());
    files
}

fn collect(folder: &Path, files: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let relative = path.strip_prefix(root()).expect("below the root");
            let text = std::fs::read_to_string(&path).expect("a file of text");
            files.push(Source::new(
                &relative.to_string_lossy().replace('\\', "/"),
                text,
            ));
        }
    }
}

pub(crate) fn assert_holds(rule: impl Fn(&Source) -> Vec<String>) {
    let found: Vec<String> = workspace().iter().flat_map(rule).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

pub(crate) fn assert_finds(
    rule: impl Fn(&Source) -> Vec<String>,
    path: &str,
    text: &str,
    lines: &[usize],
) {
    let expected: Vec<String> = lines.iter().map(|line| format!("{path}:{line}:")).collect();
    let found = rule(&Source::new(path, text));
    let matches = found
        .iter()
        .zip(&expected)
        .all(|(found, place)| found.starts_with(place));
    assert!(matches && found.len() == lines.len(), "{found:?}");
}
