//! The whole product against real Kafka and real Postgres: processes are killed, and every result is
//! compared with a count that does not use our code.
//!
//! `make test` runs these tests; each has topics and a database of its own. Those that kill services
//! start their own.

mod catch_up;
mod check;
mod clicks;
mod control_api;
mod dead_letters;
mod jobs;
mod master_crash;
mod run;
mod services_down;
mod worker_crash;
