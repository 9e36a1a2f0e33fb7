//! The whole product against real Kafka, Postgres and S3: processes are killed, and every result is
//! compared with a count that does not use our code.
//!
//! `make test` runs these tests; each has topics and a database of its own. Those that kill services
//! start their own.

mod action_counts;
mod catch_up;
mod check;
mod check_outside;
mod clicks;
mod control_api;
mod dead_letters;
mod demo;
mod gap;
mod generate;
mod join_and_leave;
mod kafka_positions;
mod kafka_sink;
mod letters_kept;
mod master_crash;
mod metrics;
mod nexmark;
mod parquet_folder;
mod preview;
mod protection;
mod quotas;
mod refused_rows;
mod replay;
mod rescale;
mod retention;
mod run;
mod savepoint;
mod services_down;
mod sink_added;
mod sink_rewind;
mod sinks_apart;
mod standby;
mod storage_down;
mod traces;
mod user_activity;
mod verbs;
mod watermarks;
mod worker_crash;
