//! How long a file, its tests, a line and a function may be. A limit that something breaks is not raised: it is named with its size
//! (`LONGER`), and can only shrink.

use crate::source::{Source, assert_finds, assert_holds, code, root};

/// Lines of a file, its tests left out.
const LINES_MAX: usize = 500;
/// Files that were longer when the limit was set. They may shrink, and then leave the list.
const LONGER: &[(&str, usize)] = &[];
/// Lines of a test module inside the file that it tests; longer ones go to `tests.rs` beside.
const INLINE_TESTS_MAX: usize = 150;
/// rustfmt keeps code to 100; this is for comments.
const LINE_CHARS_MAX: usize = 160;
/// Lines of a function, its signature and its closing brace among them: it fits a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that were longer when the limit was set, by file and name. They may shrink, and then leave the list.
const LONGER_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// A file fits a few screens.
fn length(file: &Source) -> Vec<String> {
    if file.is_test() {
        return Vec::new();
    }
    let lines = file.production().count();
    let known = LONGER.iter().find(|(path, _)| *path == file.path);
    let limit = known.map_or(LINES_MAX, |(_, limit)| *limit);
    match lines > limit {
        true => vec![file.says(lines, &format!("longer than {limit} lines: divide it"))],
        false => Vec::new(),
    }
}

/// A file is read for what it does: long tests are beside it.
fn inline_tests(file: &Source) -> Vec<String> {
    if file.is_test() {
        return Vec::new();
    }
    let before = file.production().count();
    let lines = file.text.lines().count() - before;
    match lines > INLINE_TESTS_MAX {
        true => vec![file.says(
            before + 1,
            &format!("{lines} lines of tests, more than {INLINE_TESTS_MAX}: put them into tests.rs beside"),
        )],
        false => Vec::new(),
    }
}

fn line_length(file: &Source) -> Vec<String> {
    if file.is_test() {
        return Vec::new();
    }
    let long = file
        .production()
        .filter(|(_, line)| line.chars().count() > LINE_CHARS_MAX);
    let what = format!("longer than {LINE_CHARS_MAX} characters");
    long.map(|(number, _)| file.says(number, &what)).collect()
}

/// A function fits a screen, that of a test too. rustfmt puts its closing brace below its first letter.
fn function_length(file: &Source) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let ends_signature = |line: &&str| line.ends_with(['{', ';', '}']);
        let signature = lines[start..]
            .iter()
            .take_while(|line| !ends_signature(line));
        let opens = start + signature.count();
        if !lines.get(opens).is_some_and(|line| line.ends_with('{')) {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let is_end = |line: &&str| line.strip_prefix(indent) == Some("}");
        let length = lines[start..]
            .iter()
            .take_while(|line| !is_end(line))
            .count()
            + 1;
        let mut known = LONGER_FUNCTIONS.iter();
        let known = known.find(|(path, known, _)| *path == file.path && *known == name);
        let limit = known.map_or(FUNCTION_LINES_MAX, |(_, _, limit)| *limit);
        if length > limit {
            let what = format!("{name} has {length} lines, more than {limit}: divide it");
            found.push(file.says(start + 1, &what));
        }
    }
    found
}

/// The name of the function that begins in this line.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = code(line).split_once("fn ")?;
    let is_word = |word: &str| {
        let is_visible = ["pub", "crate", "extern"]
            .iter()
            .any(|start| word.starts_with(start));
        is_visible || ["const", "async", concat!("un", "safe"), "\"C\"", "super)"].contains(&word)
    };
    let end = after.find(['(', '<'])?;
    before
        .split_whitespace()
        .all(is_word)
        .then_some(&after[..end])
}

#[test]
fn files_and_lines_have_a_limit() {
    assert_holds(length);
    assert_holds(line_length);
    let long = "let x = 1;\n".repeat(LINES_MAX + 1);
    assert_finds(length, "common/src/x.rs", &long, &[LINES_MAX + 1]);
    assert_finds(length, "common/src/x/tests.rs", &long, &[]);
    let tested = format!("use y;\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_finds(length, "common/src/x.rs", &tested, &[]);
    let wide = format!("ok\n// {}\n", "x".repeat(LINE_CHARS_MAX));
    assert_finds(line_length, "common/src/x.rs", &wide, &[2]);
}

#[test]
fn functions_have_a_limit_in_tests_too() {
    assert_holds(function_length);
    let function = |lines: usize| {
        let body = "        x();\n".repeat(lines - 3);
        format!("impl X {{\n    pub(super) async fn y<A>(\n    ) {{\n{body}    }}\n}}\n")
    };
    let longest = function(FUNCTION_LINES_MAX);
    assert_finds(function_length, "common/src/x.rs", &longest, &[]);
    let longer = function(FUNCTION_LINES_MAX + 1);
    assert_finds(function_length, "common/src/x.rs", &longer, &[2]);
    assert_finds(function_length, "common/src/x/tests.rs", &longer, &[2]);
    let declared = format!("trait X {{\n    fn y();\n{}}}\n", "    // z\n".repeat(80));
    assert_finds(function_length, "common/src/x.rs", &declared, &[]);
}

#[test]
fn a_longer_function_stays_on_the_list_only_while_it_is_longer() {
    for (path, name, _) in LONGER_FUNCTIONS {
        let text = std::fs::read_to_string(root().join(path)).expect("a listed file");
        // In another file it is found.
        let found = function_length(&Source::new("common/src/x.rs", text));
        let what = format!(": {name} has ");
        let is_longer = |found: &String| found.contains(&what);
        assert!(
            found.iter().any(is_longer),
            "{path}: {name} is no longer longer"
        );
    }
}

#[test]
fn long_tests_are_beside_what_they_test() {
    assert_holds(inline_tests);
    let tests = |count| {
        format!(
            "use y;\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "let x = 1;\n".repeat(count)
        )
    };
    assert_finds(
        inline_tests,
        "common/src/x.rs",
        &tests(INLINE_TESTS_MAX - 3),
        &[],
    );
    assert_finds(
        inline_tests,
        "common/src/x.rs",
        &tests(INLINE_TESTS_MAX),
        &[2],
    );
    assert_finds(
        inline_tests,
        "common/src/x/tests.rs",
        &tests(INLINE_TESTS_MAX),
        &[],
    );
}

#[test]
fn a_longer_file_stays_on_the_list_only_while_it_is_longer() {
    for (path, limit) in LONGER {
        let text = std::fs::read_to_string(root().join(path)).expect("a listed file");
        let lines = Source::new(path, text).production().count();
        assert!(
            lines > LINES_MAX && lines <= *limit,
            "{path} has {lines} lines now"
        );
    }
}
