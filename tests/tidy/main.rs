//! The structure of the workspace, kept by tests: sizes, words, and who may use what.
//!
//! Reads every `.rs` file and manifest as text. A rule is a function from a file to what is wrong with it; each has a test
//! that it holds for the workspace, and that it can fail.

mod layers;
mod sizes;
mod source;
mod words;
