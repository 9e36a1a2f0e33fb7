//! The structure of the workspace, kept by a test: headers, sizes, words, and who may use what.
//!
//! Reads every `.rs` file and manifest as text. A rule is a function from a file to what is wrong with it; each has a test
//! that it holds for the workspace, and one that it can fail. A limit that some file breaks is not raised: the file is named
//! with its size (`LONGER`), and can only shrink.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
/// Functions that were longer when the limit was set, by name. They may shrink, and then leave the list.
const LONGER_FUNCTIONS: &[(&str, usize)] = &[("apply", 76), ("draw_fault", 82)];
/// Shorter headers say nothing.
const HEADER_CHARS_MIN: usize = 24;

/// The path of a row: the folders of the worker, which sort in this order.
const PATH: &[&str] = &[
    "consume", "decode", "exchange", "operator", "ship", "snapshot",
];

/// Unsafe code: batches of librdkafka without a copy, and the consumer it is measured against.
const UNSAFE: &[&str] = &[
    "worker/src/consume/kafka/batch_queue.rs",
    "tests/bench/raw_consumer.rs",
    "tests/sim/src/entropy.rs",
    "tests/sim/src/process.rs",
];

/// A crate that only some files may name, and where.
const USES: &[(&str, &[&str])] = &[
    (
        "rdkafka",
        &[
            "master/src/enumerate/",
            "master/src/probe/",
            "worker/src/consume/kafka/",
            "sinks/src/kafka/",
            "sinks/tests/",
            "cli/src/demo/",
            "cli/src/logs.rs",
            "tests/",
        ],
    ),
    (
        "tokio_postgres",
        &[
            "sinks/src/postgres/",
            "sinks/tests/",
            "master/src/probe/",
            "tests/",
        ],
    ),
    ("sqlparser", &["master/src/plan/", "tests/tidy.rs"]),
    ("object_store", &["common/src/store/", "tests/"]),
    ("csv_core", &["worker/src/decode/csv/"]),
    (
        "millstream_proto",
        &[
            "proto/",
            "common/src/client/",
            "common/src/grpc/",
            "common/src/link/",
            "master/src/service/",
            "master/src/cluster/link.rs",
            "worker/src/link.rs",
            "cli/src/run/tests.rs",
            "worker/tests/link/main.rs",
            "tests/",
        ],
    ),
    ("millstream_master", &["master/", "cli/", "tests/"]),
    ("millstream_worker", &["worker/", "cli/", "tests/"]),
    (
        "millstream_sinks",
        &["sinks/", "worker/", "master/src/probe/", "tests/"],
    ),
];

/// The crates of the workspace that each manifest may name.
const MANIFESTS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("common", &["millstream-proto"]),
    (
        "master",
        &["millstream-common", "millstream-proto", "millstream-sinks"],
    ),
    ("sinks", &["millstream-common"]),
    (
        "worker",
        &["millstream-common", "millstream-proto", "millstream-sinks"],
    ),
    (
        "cli",
        &[
            "millstream-common",
            "millstream-master",
            "millstream-proto",
            "millstream-worker",
        ],
    ),
];

/// A file of the workspace.
struct Source {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            text: text.into(),
        }
    }

    /// Only compiled for tests.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let mut parts = self.path.split('/');
        let in_folder = parts.any(|part| part == "tests" || part == "testing");
        in_folder || name == "tests.rs" || name == "testing.rs"
    }

    /// The lines without the test module at the end, with their numbers.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
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

    fn says(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// The part of a line that is no comment. A `//` inside a string hides what follows it, which no rule here minds.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn holds_word(text: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// A file opens with what it is for.
fn header(file: &Source) -> Vec<String> {
    let lines = file.text.lines().map_while(|line| line.strip_prefix("//!"));
    let letters: usize = lines.map(|line| line.trim().chars().count()).sum();
    match letters < HEADER_CHARS_MIN {
        true => vec![file.says(
            1,
            "open it with a //! header that says its role and how it fails",
        )],
        false => Vec::new(),
    }
}

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
        let known = LONGER_FUNCTIONS.iter().find(|(known, _)| *known == name);
        let limit = known.map_or(FUNCTION_LINES_MAX, |(_, limit)| *limit);
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

/// What is not finished is not in the tree. The words are in pieces, so that this file passes.
fn unfinished(file: &Source) -> Vec<String> {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("dbg", "!("),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
    ];
    let mut found = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let words = words.iter().filter(|word| line.contains(**word));
        found.extend(words.map(|word| file.says(index + 1, &format!("{word} is not finished"))));
    }
    found
}

/// Outside of tests an error is handled, or `expect` says why there is none.
fn unwraps(file: &Source) -> Vec<String> {
    if file.is_test() {
        return Vec::new();
    }
    let lines = file.production();
    let lines = lines.filter(|(_, line)| code(line).contains(concat!(".unwrap", "()")));
    lines
        .map(|(number, _)| file.says(number, "unwrap outside of tests"))
        .collect()
}

fn unsafe_code(file: &Source) -> Vec<String> {
    if UNSAFE.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let word = concat!("un", "safe");
    let lines = file.text.lines().enumerate();
    let lines = lines.filter(|(_, line)| holds_word(code(line), word));
    let what = format!("{word} code stands only in the files that are listed for it");
    lines
        .map(|(index, _)| file.says(index + 1, &what))
        .collect()
}

/// The crate is named by path or by `use`; a word inside a string does not count.
fn uses(file: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (name, places) in USES {
        if places.iter().any(|place| file.path.starts_with(place)) {
            continue;
        }
        let path = format!("{name}::");
        for (index, line) in file.text.lines().enumerate() {
            let code = code(line);
            if code
                .match_indices(&path)
                .any(|(start, _)| is_path_start(&code[..start]))
            {
                let what = format!("{name} is used only in {}", places.join(", "));
                found.push(file.says(index + 1, &what));
            }
        }
    }
    found
}

/// A name that begins here is a crate's or a module's, not the end of a longer one.
fn is_path_start(before: &str) -> bool {
    !before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == '"')
}

/// A manifest names no crate of the workspace that it may not depend on.
fn dependencies(member: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = MANIFESTS.iter().find(|(name, _)| *name == member) else {
        return Vec::new();
    };
    let names = manifest
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next());
    let ours: BTreeSet<&str> = names
        .filter(|name| name.starts_with("millstream-"))
        .collect();
    let wrong = ours.into_iter().filter(|name| !allowed.contains(name));
    wrong
        .map(|name| format!("{member} must not depend on {name}"))
        .collect()
}

/// `lib.rs` declares the path's folders, in their order.
fn path_order(lib: &str) -> Vec<String> {
    let declared: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|module| PATH.contains(module))
        .collect();
    match declared == PATH {
        true => Vec::new(),
        false => vec![format!(
            "the path is {PATH:?}, but lib.rs declares {declared:?}"
        )],
    }
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace is above").to_owned()
}

fn workspace() -> Vec<Source> {
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

fn assert_holds(rule: impl Fn(&Source) -> Vec<String>) {
    let found: Vec<String> = workspace().iter().flat_map(rule).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn assert_finds(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str, lines: &[usize]) {
    let expected: Vec<String> = lines.iter().map(|line| format!("{path}:{line}:")).collect();
    let found = rule(&Source::new(path, text));
    let matches = found
        .iter()
        .zip(&expected)
        .all(|(found, place)| found.starts_with(place));
    assert!(matches && found.len() == lines.len(), "{found:?}");
}

#[test]
fn every_file_opens_with_its_role() {
    assert_holds(header);
    assert_finds(header, "common/src/x.rs", "use std::fmt;\n", &[1]);
    assert_finds(
        header,
        "common/src/x.rs",
        "//! Short.\n\n//! What comes later is no header.\n",
        &[1],
    );
    assert_finds(
        header,
        "common/src/x.rs",
        "//! What a row becomes. Pure.\n",
        &[],
    );
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
    let files = workspace();
    for (name, _) in LONGER_FUNCTIONS {
        // Under another name it is found.
        let renamed = |file: &Source| file.text.replace(&format!("fn {name}("), "fn longer(");
        let found = |file: &Source| function_length(&Source::new(&file.path, renamed(file)));
        let is_longer = |found: &String| found.contains(": longer has ");
        let mut all = files.iter().flat_map(found);
        assert!(
            all.any(|found| is_longer(&found)),
            "{name} is no longer longer"
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

#[test]
fn nothing_is_left_unfinished() {
    assert_holds(unfinished);
    for word in [
        "TO-DO",
        "FIX-ME",
        "dbg-!(x)",
        "todo-!()",
        "unimplemented-!()",
        "#[-ignore]",
    ] {
        let text = format!("fn x() {{\n    {}\n}}\n", word.replace('-', ""));
        assert_finds(unfinished, "worker/src/x.rs", &text, &[2]);
    }
}

#[test]
fn errors_are_handled_outside_of_tests() {
    assert_holds(unwraps);
    let call = ["let x = y.unwrap", "();\n"].concat();
    assert_finds(unwraps, "worker/src/x.rs", &call, &[1]);
    assert_finds(unwraps, "worker/src/x/tests.rs", &call, &[]);
    let tested = format!("use y;\n#[cfg(test)]\nmod tests {{\n{call}}}\n");
    assert_finds(unwraps, "worker/src/x.rs", &tested, &[]);
    assert_finds(unwraps, "worker/src/x.rs", &format!("// {call}"), &[]);
}

#[test]
fn unsafe_code_stands_only_where_it_is_listed() {
    assert_holds(unsafe_code);
    let block = ["un", "safe { x() }\n"].concat();
    assert_finds(unsafe_code, "worker/src/x.rs", &block, &[1]);
    assert_finds(unsafe_code, UNSAFE[0], &block, &[]);
    assert_finds(
        unsafe_code,
        "worker/src/x.rs",
        "#![deny(unsafe_code)]\n",
        &[],
    );
}

#[test]
fn dependencies_point_one_way() {
    for (member, _) in MANIFESTS {
        let manifest = root().join(member).join("Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).expect("a manifest");
        assert_eq!(dependencies(member, &manifest), Vec::<String>::new());
    }
    let wrong = dependencies(
        "master",
        "[dependencies]\nmillstream-worker.workspace = true\n",
    );
    assert_eq!(wrong, ["master must not depend on millstream-worker"]);
    let wrong = dependencies("sinks", "millstream-worker = { workspace = true }\n");
    assert_eq!(wrong, ["sinks must not depend on millstream-worker"]);
}

#[test]
fn clients_and_wire_types_stay_in_their_places() {
    assert_holds(uses);
    let kafka = "//! rdkafka::x\nuse rdkafka::ClientConfig;\n";
    assert_finds(uses, "master/src/job/x.rs", kafka, &[2]);
    assert_finds(uses, "worker/src/consume/kafka/x.rs", kafka, &[]);
    let planner = "use datafusion::sql::sqlparser::ast::Expr;\n";
    assert_finds(uses, "worker/src/decode/x.rs", planner, &[1]);
    assert_finds(uses, "master/src/plan/x.rs", planner, &[]);
    let wire = "fn x(frame: millstream_proto::v1::Hello) {}\n";
    assert_finds(uses, "worker/src/pipeline/x.rs", wire, &[1]);
    assert_finds(uses, "worker/src/link.rs", wire, &[]);
    assert_finds(
        uses,
        "sinks/src/x.rs",
        "use millstream_worker::ship;\n",
        &[1],
    );
    assert_finds(uses, "sinks/src/x.rs", "use my_rdkafka::x;\n", &[]);
}

#[test]
fn the_tree_shows_the_path_of_a_row() {
    let source = root().join("worker/src");
    for stage in PATH {
        assert!(source.join(stage).is_dir(), "worker/src/{stage} is missing");
    }
    assert!(
        PATH.is_sorted(),
        "folders sort by name, and so must the path"
    );
    let lib = std::fs::read_to_string(source.join("lib.rs")).expect("the worker's lib.rs");
    assert_eq!(path_order(&lib), Vec::<String>::new());
    assert_eq!(path_order("pub mod decode;\npub mod consume;\n").len(), 1);
}
