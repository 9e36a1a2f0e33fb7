//! `make model`: checks the protocol exhaustively, then that each planted mistake is found, and prints both.
//!
//! Exit code 1 if a property fails or a mistake is not found. `--mistake NAME` prints a short run that shows it, `--lag N` checks
//! both sinks with another bound.

use std::process::ExitCode;

use millstream_model::check::{Finding, Outcome, check, find};
use millstream_model::mistake::Mistake;
use millstream_model::model::{BOTH, Bounds, KAFKA, POSTGRES};

const THREADS: usize = 2;
/// Sinks do not know of each other, so each is also taken alone, further behind.
const PASSES: [(&str, Bounds); 3] = [
    ("both sinks", bounds(2, BOTH)),
    (
        "a sink that checks its marker (Postgres)",
        bounds(3, POSTGRES),
    ),
    (
        "a sink that checks its fence only (Kafka)",
        bounds(3, KAFKA),
    ),
];

const fn bounds(lag: u8, sinks: u8) -> Bounds {
    Bounds { lag, sinks }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => prove(),
        ["--mistake", name] => match Mistake::named(name) {
            Some(mistake) => show(mistake),
            None => refuse(&format!("no mistake is named {name}")),
        },
        ["--lag", lag] => match lag.parse() {
            Ok(lag @ 1..=8) => verdict(pass("both sinks", bounds(lag, BOTH))),
            _ => refuse("--lag takes a number from 1 to 8"),
        },
        _ => refuse("unknown option"),
    }
}

fn refuse(wrong: &str) -> ExitCode {
    let names = Mistake::ALL.map(Mistake::name).join(", ");
    eprintln!("{wrong}\nusage: millstream-model [--lag N | --mistake NAME]\nmistakes: {names}");
    ExitCode::from(2)
}

fn verdict(is_sound: bool) -> ExitCode {
    match is_sound {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn prove() -> ExitCode {
    println!("2 masters, 2 workers, any number of crashes, losses, reigns and epochs");
    let mut is_sound = true;
    for (name, bounds) in PASSES {
        is_sound &= pass(name, bounds);
    }
    verdict(find_all() && is_sound)
}

fn pass(name: &str, bounds: Bounds) -> bool {
    let outcome = check(bounds, THREADS);
    println!(
        "\n{name}, up to {} epochs behind: {} states, {} steps, depth {}, {:.1} s",
        bounds.lag,
        outcome.states,
        outcome.steps,
        outcome.depth,
        outcome.elapsed.as_secs_f64()
    );
    print_properties(&outcome);
    outcome.is_sound()
}

fn print_properties(outcome: &Outcome) {
    for finding in &outcome.properties {
        let verdict = match (finding.is_kept, finding.must_be_seen) {
            (true, false) => "holds",
            (false, false) => "FAILS",
            (true, true) => "seen",
            (false, true) => "NEVER SEEN",
        };
        println!("  {verdict:<6} {}", finding.name);
        print_steps(finding);
    }
}

fn print_steps(finding: &Finding) {
    for (index, step) in finding.steps.iter().enumerate() {
        println!("    {:>3}. {step:?}", index + 1);
    }
}

/// Prints the table of planted mistakes; whether all were found.
fn find_all() -> bool {
    println!(
        "\n{:<26} {:<42} {:>5} {:>7} {:>7}",
        "planted mistake", "found by", "steps", "states", "seconds"
    );
    let mut all_found = true;
    for mistake in Mistake::ALL {
        let outcome = find(mistake);
        let finding = outcome.failure_of(mistake.breaks());
        all_found &= finding.is_some();
        println!(
            "{:<26} {:<42} {:>5} {:>7} {:>7.1}",
            mistake.name(),
            finding.map_or("NOT FOUND", |finding| finding.name),
            finding.map_or(0, |finding| finding.steps.len()),
            outcome.states,
            outcome.elapsed.as_secs_f64()
        );
    }
    all_found
}

fn show(mistake: Mistake) -> ExitCode {
    let outcome = find(mistake);
    match outcome.failure_of(mistake.breaks()) {
        Some(finding) => {
            println!("{} breaks: {}", mistake.name(), finding.name);
            print_steps(finding);
            ExitCode::SUCCESS
        }
        None => {
            println!("{} is not found", mistake.name());
            ExitCode::FAILURE
        }
    }
}
