//! The control plane of Millstream: it plans jobs, assigns splits, commits epochs and supervises. It sees no row.

pub mod plan;
