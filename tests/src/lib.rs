//! What the tests of the whole product share: real services, processes to kill, clicks that go wrong,
//! and an independent count of what must come out.
//!
//! Used by the end-to-end tests in `tests/e2e`. No product crate depends on this one.

pub mod activity;
pub mod activity_oracle;
pub mod cluster;
pub mod collector;
pub mod database;
pub mod figures;
pub mod generator;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod quiet;
pub mod scrape;
pub mod services;
pub mod small_disk;
pub mod topic;
pub mod wait;
