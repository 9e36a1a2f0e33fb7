//! Ctrl-C and SIGTERM as a stream: both ask for the same orderly end.

use anyhow::Context;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of what an interrupt ended, as shells know it.
pub(crate) const INTERRUPTED: u8 = 130;

/// One item for each Ctrl-C or SIGTERM; never ends. From now on neither ends the process by itself.
pub(crate) fn listen() -> anyhow::Result<BoxStream<'static, ()>> {
    let control_c = signal(SignalKind::interrupt()).context("listen to Ctrl-C")?;
    let terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let signals = stream::unfold(
        (control_c, terminate),
        |(mut control_c, mut terminate)| async {
            tokio::select! {
                _ = control_c.recv() => {}
                _ = terminate.recv() => {}
            }
            Some(((), (control_c, terminate)))
        },
    );
    Ok(signals.boxed())
}

/// Waits for an orderly end, but not after another interrupt: then the process ends at once.
pub(crate) async fn unless_again(
    interrupts: &mut BoxStream<'static, ()>,
    end: impl Future<Output = ()>,
) {
    tokio::select! {
        () = end => {}
        _ = interrupts.next() => std::process::exit(INTERRUPTED.into()),
    }
}
