//! The pages: what is in them, that nothing of a user's becomes markup, how long they get, and the routes over an in-memory network.

mod answers;
mod pages;
mod routes;
pub(crate) mod scene;
