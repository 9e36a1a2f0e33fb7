//! Who reigns: several masters on one storage, of which one is active and the others stand by.
//!
//! [`office`] goes from standing by to reigning and back; [`trail`] is the log as far as it has been read, [`heartbeat`] the
//! sign of life of the active master, [`watch`] the decision that there is none any more, [`role`] what the gRPC services see of
//! it, [`cluster_name`] keeps the masters of another cluster away. Only the log decides (INV-4): all the rest
//! only makes two masters at a time rare.

pub mod cluster_name;
pub mod heartbeat;
pub mod office;
mod reigning;
pub mod role;
#[cfg(test)]
mod tests;
pub mod trail;
pub mod watch;
