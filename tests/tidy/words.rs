//! What stands in a file: a header that says its role, nothing unfinished, no error left unhandled, no unsafe code but where it is listed.

use crate::source::{Source, assert_finds, assert_holds, code, holds_word};

/// Shorter headers say nothing.
const HEADER_CHARS_MIN: usize = 24;

/// Unsafe code: a setting of the allocator, batches of librdkafka without a copy and the consumer they are measured against, 16 bytes of a
/// record looked at together, and what makes a simulation repeat itself.
const UNSAFE: &[&str] = &[
    "cli/src/allocator.rs",
    "worker/src/consume/kafka/batch_queue.rs",
    "worker/src/decode/json/marks.rs",
    "tests/bench/throughput/raw_consumer.rs",
    "tests/sim/src/entropy.rs",
    "tests/sim/src/process.rs",
];

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
