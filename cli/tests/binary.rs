//! The binary as it is started by people and by the tests of `tests/e2e`.
//!
//! Cargo builds the binary of a crate for `cargo test` only where the crate has a test like this one:
//! the end-to-end tests, which start the binary from another crate, rely on it.

use std::process::Command;

#[test]
fn help_lists_the_verbs() {
    let output = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .arg("--help")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for verb in [
        "run", "check", "explain", "master", "worker", "submit", "stop",
    ] {
        assert!(text.contains(&format!("\n  {verb} ")), "{verb}: {text}");
    }
    assert!(output.status.success());
}
