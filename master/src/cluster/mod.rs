//! The cluster: which workers have joined, and the stream that each of them keeps open.

pub mod leaving;
pub mod link;
pub mod patience;
pub mod registry;
