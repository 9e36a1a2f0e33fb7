//! How soon the simulation finds each of the mistakes that are planted in the protocol.
//!
//! Run by `make mutants`, which alone builds with them. Each mistake is planted in every child for the ordinary seeds in their
//! order, until one of them fails. A mistake that survives them all says that the simulation is too weak.

use std::ops::ControlFlow;

use millstream_common::mutant::{self, Mutant};

use crate::pool::{self, Work};

/// How many characters of a failure a line of the table has room for.
const CAUGHT_CHARS_MAX: usize = 90;

/// The mistake of that name.
pub(crate) fn named(name: &str) -> anyhow::Result<Mutant> {
    let mut mutants = Mutant::ALL.iter();
    let found = mutants.find(|mutant| format!("{mutant:?}") == name);
    found
        .copied()
        .ok_or_else(|| anyhow::anyhow!("no mistake is called {name}"))
}

/// Tries all, or those named; whether each was found.
pub(crate) fn run(
    names: &[String],
    seeds: u64,
    first_seed: u64,
    jobs: usize,
) -> anyhow::Result<bool> {
    let chosen: Vec<Mutant> = match names {
        [] => Mutant::ALL.to_vec(),
        names => names
            .iter()
            .map(|name| named(name))
            .collect::<Result<_, _>>()?,
    };
    let mut survivors = Vec::new();
    println!("| mistake | what it is | seeds until caught | caught by |");
    println!("|---|---|---|---|");
    for mutant in &chosen {
        let (count, caught) = match first_failure(*mutant, seeds, first_seed, jobs)? {
            Some((seed, failure)) => ((seed - first_seed + 1).to_string(), short(&failure)),
            None => {
                survivors.push(mutant);
                (format!("survived {seeds}"), String::new())
            }
        };
        println!("| {mutant:?} | {} | {count} | {caught} |", mutant.mistake());
    }
    let caught_count = chosen.len() - survivors.len();
    println!(
        "{caught_count} mistakes caught, {} survived {survivors:?}",
        survivors.len()
    );
    Ok(survivors.is_empty())
}

fn first_failure(
    mutant: Mutant,
    seeds: u64,
    first_seed: u64,
    jobs: usize,
) -> anyhow::Result<Option<(u64, String)>> {
    mutant::plant(Some(mutant));
    let mut first: Option<(u64, String)> = None;
    let works = (first_seed..first_seed + seeds).map(Work::Seed);
    pool::run(works, jobs, |work, outcome| {
        if let (Work::Seed(seed), Some(failure)) = (work, outcome.failure)
            && first.as_ref().is_none_or(|(known, _)| seed < *known)
        {
            first = Some((seed, failure));
        }
        match first {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    })?;
    mutant::plant(None);
    Ok(first)
}

fn short(failure: &str) -> String {
    let line = failure.lines().next().unwrap_or_default();
    line.chars().take(CAUGHT_CHARS_MAX).collect()
}
