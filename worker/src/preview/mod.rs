//! Preview: rows of running tasks, copied aside for whoever looks at a relation, without anybody on the path waiting for it.
//!
//! Beside the path: a task offers each batch of its head to the tap of its stage ([`tap`]), which looks at one flag where nobody reads.
//! A reader is a call of Flight's DoGet: its ticket opens taps of a pipeline on the [`board`], which put batches, not copies of rows,
//! into a bounded [`basket`]; what makes the relation's rows of them runs in the call ([`reading`]), so that the task never pays for it.
//! Keeps INV-9: a basket that is full drops what is oldest, and counts it. Failure: a reader's call ends; the pipeline is never touched.

pub(crate) mod basket;
pub mod board;
pub(crate) mod reading;
pub mod tap;
#[cfg(test)]
mod tests;
