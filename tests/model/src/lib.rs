//! The protocol as a model that is checked exhaustively: every order of steps, crashes and lost answers.
//!
//! Two masters, two workers, two sinks and the log. Run by `make model` and, a little smaller, by `cargo test`. The code that the model
//! stands for is named at the head of each file; the invariants are those that the code names.

pub mod check;
mod healed;
mod master;
pub mod mistake;
pub mod model;
mod normal;
pub mod state;
mod worker;
