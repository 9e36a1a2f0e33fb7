//! Which traces are kept, as `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say it.
//!
//! Every trace here is a root of its own, so a sampler that looks at parents is what it is for roots. Pure.

use super::TraceId;

/// Keeps a share of the traces; the same ones in every process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sampler {
    /// A trace whose lower bits are below this is kept.
    below: u64,
}

/// The bits that decide, as in the SDKs: a share of 1 keeps all.
const BITS: u32 = 63;

impl Sampler {
    /// The sampler of that name; an unknown one is an error in words.
    pub(super) fn named(name: Option<&str>, argument: Option<&str>) -> Result<Self, String> {
        let share = match name.unwrap_or("parentbased_always_on") {
            "always_on" | "parentbased_always_on" => 1.0,
            "always_off" | "parentbased_always_off" => 0.0,
            "traceidratio" | "parentbased_traceidratio" => match argument {
                None => 1.0,
                Some(text) => share(text)?,
            },
            other => return Err(format!("OTEL_TRACES_SAMPLER={other} is not known")),
        };
        Ok(Self {
            below: (share * (1_u64 << BITS) as f64) as u64,
        })
    }

    /// Whether the trace is kept.
    pub(super) fn keeps(self, trace: TraceId) -> bool {
        (trace.0 as u64) >> 1 < self.below
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG={text} is not between 0 and 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_traces_is_kept_and_the_ends_keep_all_or_none() {
        let kept = |name, argument| {
            let sampler = Sampler::named(Some(name), argument).expect("known");
            let ids = (0..1_000_u128).map(|id| TraceId(id << 54));
            ids.filter(|id| sampler.keeps(*id)).count()
        };
        assert_eq!(kept("always_on", None), 1_000);
        assert_eq!(kept("parentbased_always_off", None), 0);
        assert_eq!(kept("traceidratio", Some("0.25")), 256);
        assert_eq!(kept("parentbased_traceidratio", None), 1_000);
    }

    #[test]
    fn what_is_not_known_is_said() {
        assert!(Sampler::named(Some("often"), None).is_err());
        assert!(Sampler::named(Some("traceidratio"), Some("2")).is_err());
        assert!(Sampler::named(None, None).is_ok());
    }
}
