//! The simulation in the ordinary tests: a few dozen seeds, those that once found something, the step matrix, and that a seed
//! repeats itself.
//!
//! Runs the simulator's own program, because a seed needs a process with one thread, which a test has not.

use std::process::Command;

fn simulate(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_millstream-sim"))
        .args(arguments)
        .output()
        .expect("start the simulator");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
}

#[test]
fn no_seed_breaks_an_invariant_or_loses_doubles_or_delays_a_row() {
    simulate(&["--seeds", "50", "--first-seed", "1"]);
}

#[test]
fn the_protocol_may_be_broken_off_before_in_and_after_each_of_its_steps() {
    simulate(&["matrix"]);
}

#[test]
fn a_seed_leaves_the_same_trace_whenever_it_runs() {
    simulate(&["twice", "--seeds", "20", "--first-seed", "501"]);
}
