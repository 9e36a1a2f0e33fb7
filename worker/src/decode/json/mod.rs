//! JSON records: the walk over an object's fields, and the escapes of its strings.
//!
//! Called by `decoder.rs` for each record. serde_json says what is well formed; the walk agrees with it on
//! every input (a property test compares them), but builds nothing: it only notes where values stand.

pub(super) mod escape;
pub(super) mod layout;
pub(super) mod literal;
pub(super) mod marks;
pub(super) mod scan;
pub(super) mod text_end;
pub(super) mod walk;

#[cfg(test)]
mod tests;
