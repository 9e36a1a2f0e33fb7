//! Many simulations side by side, each in a child of its own.
//!
//! Called by `main.rs`; the parent has one thread and no runtime. Failure: a simulation that failed is an outcome like any other; only
//! a machine that cannot fork is an error.

use std::ops::ControlFlow;

use crate::matrix::Case;
use crate::process;
use crate::simulation::{self, Outcome};

/// What a child simulates.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// What a seed draws.
    Seed(u64),
    /// A case of the step matrix.
    Case(Case),
    /// A sink blocked for so many hours.
    Blocked(u32),
}

/// Runs `works` in this order, `jobs` at a time; `on_end` hears of each as it ends, and may let no more begin.
pub(crate) fn run(
    works: impl Iterator<Item = Work>,
    jobs: usize,
    mut on_end: impl FnMut(Work, Outcome) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let mut works = works.fuse();
    let mut children = Vec::new();
    let mut running = Vec::new();
    let mut goes_on = true;
    loop {
        while goes_on
            && running.len() < jobs.max(1)
            && let Some(work) = works.next()
        {
            let child = process::fork(seconds_max(work), move || answer(work, false));
            children.push(child?);
            running.push(work);
        }
        if running.is_empty() {
            return Ok(());
        }
        let (place, result) = process::wait(&mut children)?;
        let work = running.swap_remove(place);
        goes_on &= on_end(work, outcome(result)).is_continue();
    }
}

/// Runs one simulation in a child and prints its trace as it grows.
pub(crate) fn replay(work: Work, is_dumped: bool) -> anyhow::Result<Outcome> {
    let child = process::fork(seconds_max(work), move || answer(work, is_dumped));
    let mut children = vec![child?];
    let (_, result) = process::wait(&mut children)?;
    Ok(outcome(result))
}

/// Seconds of a core that it may take: far above the slowest, so that only a livelock meets it.
fn seconds_max(work: Work) -> u32 {
    match work {
        Work::Seed(_) | Work::Case(_) => 120,
        Work::Blocked(hours) => 1_800 * hours,
    }
}

fn answer(work: Work, is_dumped: bool) -> Vec<u8> {
    let outcome = match work {
        Work::Seed(seed) => simulation::run(seed, is_dumped),
        Work::Case(case) => simulation::run_case(case, is_dumped),
        Work::Blocked(hours) => simulation::run_blocked(hours, is_dumped),
    };
    serde_json::to_vec(&outcome).expect("an outcome is plain data")
}

fn outcome(result: Result<Vec<u8>, String>) -> Outcome {
    let text = match result {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(outcome) => return outcome,
            Err(error) => error.to_string(),
        },
        Err(text) => text,
    };
    Outcome {
        failure: Some(text),
        ..Outcome::default()
    }
}
