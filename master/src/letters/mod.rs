//! Dead letters that are kept: which there are, what of them goes, how people read them and send them again.
//!
//! [`index`] knows them by what the log says, [`pages`] puts what is old of that into objects of its own, so that neither the
//! log nor a master grows with them; the collector ([`crate::retention`]) drops the oldest. [`listing`] reads them for a client,
//! [`resend`] makes of them rows that go through the job again, at the word of [`clerk_actor`]. Nothing here waits for a worker, and no
//! actor waits for this.

pub mod clerk_actor;
pub mod desk;
pub mod index;
pub mod listing;
pub mod pages;
pub mod resend;
mod rows;
#[cfg(test)]
mod tests;
