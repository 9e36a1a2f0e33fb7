//! The wire contracts, generated from `millstream/v1/*.proto`; nothing else lives here.
//!
//! `control` is what clients ask of a master, `link` what master and workers say to each other.
//! Generated types stop at `service/`, `link.rs` and clients; the rest of the code has its own words.

/// Version 1 of the contracts.
#[allow(
    missing_docs,
    clippy::all,
    clippy::unwrap_used,
    reason = "generated from the protos, which hold the docs"
)]
pub mod v1 {
    tonic::include_proto!("millstream.v1");

    /// The contracts as a descriptor set, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/millstream.bin"));
}
