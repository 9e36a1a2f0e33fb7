//! Many seeds side by side, each in a child of its own.
//!
//! Called by `main.rs`; the parent has one thread and no runtime. Failure: a seed that failed is an outcome like any other; only a
//! machine that cannot fork is an error.

use crate::process;
use crate::simulation::{self, Outcome};

/// Runs `seeds` in this order, `jobs` at a time; `on_end` hears of each as it ends.
pub(crate) fn run(
    seeds: impl Iterator<Item = u64>,
    jobs: usize,
    mut on_end: impl FnMut(u64, Outcome),
) -> anyhow::Result<()> {
    let mut seeds = seeds.peekable();
    let mut children = Vec::new();
    let mut running = Vec::new();
    loop {
        while running.len() < jobs.max(1)
            && let Some(seed) = seeds.next()
        {
            children.push(process::fork(move || answer(seed, false))?);
            running.push(seed);
        }
        if running.is_empty() {
            return Ok(());
        }
        let (place, result) = process::wait(&mut children)?;
        let seed = running.swap_remove(place);
        on_end(seed, outcome(result));
    }
}

/// Runs one seed in a child and prints its trace as it grows.
pub(crate) fn replay(seed: u64, is_dumped: bool) -> anyhow::Result<Outcome> {
    let mut children = vec![process::fork(move || answer(seed, is_dumped))?];
    let (_, result) = process::wait(&mut children)?;
    Ok(outcome(result))
}

fn answer(seed: u64, is_dumped: bool) -> Vec<u8> {
    serde_json::to_vec(&simulation::run(seed, is_dumped)).expect("an outcome is plain data")
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
