//! What the `path` option of a files source means: a folder, a glob or one file.
//!
//! Read by the master, which lists files, and by workers, which tell a file that is gone from a folder that is not on
//! their machine. Pure.

use std::path::{Component, Path, PathBuf};

/// What makes a path a glob.
pub const WILDCARDS: [char; 3] = ['*', '?', '['];

/// The path in a `path` option, whose references are resolved.
pub fn without_scheme(path: &str) -> &str {
    path.strip_prefix("file://").unwrap_or(path)
}

/// What has to be there before anything can be found: of a glob the folder in front of the first wildcard.
pub fn fixed_part(pattern: &str) -> PathBuf {
    let is_plain = |part: &Component<'_>| {
        let text = part.as_os_str().to_string_lossy();
        !text.contains(WILDCARDS)
    };
    Path::new(pattern)
        .components()
        .take_while(is_plain)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_part_of_a_glob_ends_before_its_first_wildcard() {
        let cases = [
            ("/in/2026-*/clicks.csv", "/in"),
            ("in/a?.csv", "in"),
            ("/in/day/[ab].csv", "/in/day"),
            ("/in/day", "/in/day"),
            ("*.csv", ""),
        ];
        for (pattern, fixed) in cases {
            assert_eq!(fixed_part(pattern), Path::new(fixed), "{pattern}");
        }
        assert_eq!(without_scheme("file:///in/*.csv"), "/in/*.csv");
    }
}
