//! SQL logic tests: what a job's SQL means, said by input records and expected rows.
//!
//! Each file of `cases/` is a job with its input. It is run twice, on a master and a worker of this process
//! and a Kafka-protocol broker beside them: straight through, and with the worker killed at a seeded moment and
//! another one with another number of slots going on. Both runs must give the rows the file expects.
//! `database.rs` says what can stand in a file. `MILLSTREAM_TEST_SEED` chooses other moments.

mod broker;
mod cluster;
mod database;
mod rows;
mod script;

use std::path::{Path, PathBuf};

use database::Database;
use script::Fault;

/// Chosen moments are the same in every run unless the environment says otherwise.
const SEED_DEFAULT: u64 = 7;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/cases")
}

fn seed() -> u64 {
    let given = std::env::var("MILLSTREAM_TEST_SEED").ok();
    given.map_or(SEED_DEFAULT, |text| {
        text.parse().expect("MILLSTREAM_TEST_SEED is a number")
    })
}

/// A moment of its own for each case: files of one length would else all be hit at the same place.
fn seed_of(name: &str) -> u64 {
    let letters = name.bytes().map(u64::from);
    letters.fold(seed(), |mixed, letter| {
        (mixed ^ letter).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Runs the case.
async fn run(name: &str, fault: Fault) {
    let mut runner = sqllogictest::Runner::new(|| Database::start(fault));
    runner.with_column_validator(sqllogictest::strict_column_validator);
    let file = cases().join(format!("{name}.slt"));
    let outcome = runner.run_file_async(&file).await;
    runner.shutdown_async().await;
    if let Err(error) = outcome {
        panic!("{name}.slt, {fault:?}: {error}");
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        const LISTED: &[&str] = &[$(stringify!($name)),*];
        $(
            mod $name {
                use super::{Fault, run, seed_of};

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn straight() {
                    run(stringify!($name), Fault::None).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn killed_and_restored() {
                    let seed = seed_of(stringify!($name));
                    run(stringify!($name), Fault::KillWorker { seed }).await;
                }
            }
        )*
    };
}

cases! {
    aggregates,
    bounded,
    changes,
    computed_columns,
    csv_files,
    cte,
    dead_letters,
    distinct_on,
    having,
    include_metadata,
    refused,
    scalar,
    tumble_count,
    union_all,
    unwindowed,
    view_dead_letters,
    windows,
}

#[test]
fn every_file_is_run() {
    let mut found: Vec<String> = std::fs::read_dir(cases())
        .expect("the folder of cases")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "slt"))
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    found.sort();
    let mut listed = LISTED.to_vec();
    listed.sort_unstable();
    assert_eq!(found, listed);
}
