//! The data plane: what a worker process runs. Modules stand in the order of a row's path.

pub mod consume;
pub mod decode;
pub mod exchange;
pub mod operator;
pub mod ship;
pub mod snapshot;

// No step of its own: runs behind `decode` and `operator`, in front of what their rows go to.
pub mod transform;
