//! The control plane: plans jobs, assigns splits, commits epochs. Sees no row.

pub mod config;
pub mod service;

pub use config::MasterConfig;
