//! Who may come to what a process listens at: nobody from outside, unless a person says so.
//!
//! Used by `master` and `worker` before they listen. Without TLS nothing that they serve asks who calls, so an address that strangers
//! can reach is refused unless the network itself keeps them out, which only a person can know.

use anyhow::bail;
use clap::Args;
use clap::builder::FalseyValueParser;
use millstream_common::address;

use crate::protection::TlsArguments;

#[derive(Args)]
pub(crate) struct Exposure {
    /// Listen beyond this host although whoever gets there may do everything: only where the network keeps strangers out.
    #[arg(long, env = "MILLSTREAM_INSECURE_LISTEN", value_parser = FalseyValueParser::new())]
    insecure_listen: bool,
}

impl Exposure {
    /// Refuses an unprotected address that strangers may reach, or warns of it where a person wants it. `what` is a verb: "submit jobs".
    pub(crate) fn allow(&self, tls: &TlsArguments, listen: &str, what: &str) -> anyhow::Result<()> {
        if tls.is_on() || address::is_loopback(listen) {
            return Ok(());
        }
        if !self.insecure_listen {
            bail!(
                "refusing to listen at {listen}: whoever reaches it could {what}, unencrypted and without being asked who they are. \
                 Listen on 127.0.0.1, protect it with --tls-ca and what goes with it, or, where the network keeps strangers out, \
                 set MILLSTREAM_INSECURE_LISTEN=1"
            );
        }
        tracing::warn!(
            %listen,
            "INSECURE: listening beyond this host without TLS and tokens; whoever reaches it can {what}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_let_in_only_on_demand() {
        let closed = Exposure {
            insecure_listen: false,
        };
        let (off, on) = (TlsArguments::default(), TlsArguments::trusting("ca.pem"));
        closed.allow(&off, "127.0.0.1:7070", "submit jobs").unwrap();
        closed.allow(&on, "0.0.0.0:7070", "submit jobs").unwrap();
        let refused = closed
            .allow(&off, "0.0.0.0:7070", "submit jobs")
            .unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("0.0.0.0:7070") && text.contains("MILLSTREAM_INSECURE_LISTEN=1"));
        let open = Exposure {
            insecure_listen: true,
        };
        open.allow(&off, "0.0.0.0:7070", "submit jobs").unwrap();
    }
}
