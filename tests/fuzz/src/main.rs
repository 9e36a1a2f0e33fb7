//! `millstream-fuzz`: feeds one target, named by MILLSTREAM_FUZZ, with what libFuzzer makes up from what it has reached so far.
//!
//! Built and run by `make fuzz`, which has the crates of the project tell libFuzzer where they have been (`instrument`). The
//! arguments are libFuzzer's. Failure: the input that broke a rule is written beside, and belongs into `inputs`.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use millstream_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn named() -> Target {
    let name = std::env::var("MILLSTREAM_FUZZ").unwrap_or_default();
    let mut all = Target::ALL.into_iter();
    let found = all.find(|target| target.name() == name);
    found.unwrap_or_else(|| panic!("MILLSTREAM_FUZZ={name:?} is none of {:?}", Target::ALL))
}

fuzz_target!(|data: &[u8]| TARGET.get_or_init(named).feed(data));
