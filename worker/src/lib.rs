//! The data plane: what a worker process runs. Modules stand in the order of a row's path.

pub mod config;
pub mod consume;
pub mod decode;
pub mod exchange;
pub mod operator;
pub mod ship;
pub mod snapshot;

pub use config::WorkerConfig;
