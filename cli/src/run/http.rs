//! What `run --http` serves: the dashboard of its master, and the figures of master and worker as of the one process that they are.
//!
//! Called by `run`. The job's own network never leaves the process; this is the one door to it, and nothing can be changed through it.
//! Failure: an address that is taken or wrong ends `run` before anything has begun.

use anyhow::Context;
use millstream_common::http;
use millstream_common::net::{Listener, Net, TcpNet};
use tokio::task::JoinSet;

use crate::process::{Master, Worker};

/// Listens for browsers and scrapers.
pub(super) async fn listen(address: &str) -> anyhow::Result<Listener> {
    let listener = TcpNet.listen_for_pages(address).await;
    listener.context("choose another address with --http")
}

/// Serves until the tasks are dropped.
pub(super) fn serve(listener: Listener, master: &Master, worker: &Worker) -> JoinSet<()> {
    let probes = http::together(master.probes(), worker.probes());
    let router = http::router(probes).merge(master.pages());
    let mut tasks = JoinSet::new();
    tasks.spawn(http::serve(listener, router));
    tasks
}
