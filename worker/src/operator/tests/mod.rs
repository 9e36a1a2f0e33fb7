//! The operators as a whole, in several tasks that are restored again and again, against plain models of what they mean.

mod aggregate;
mod cluster;
mod distinct;
mod partial;
