//! Mistakes that can be planted in the model: each is one line of the protocol left out.
//!
//! The checker must find every one of them, which shows that it would find a fault of ours.

use crate::model::{ONE_CHAIN, PREFIX, PROGRESS, RECORDED, STALE, TILED};

/// One planted mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// A new master writes no Fence entry.
    SkipFence,
    /// A new master replays the log that it read before its Fence entry stood in it.
    ReadLogBeforeFence,
    /// A master that finds another's object of its own term appends behind it.
    EqualTermWins,
    /// A master that is told "exists already" about its own object appends it again.
    DropNonce,
    /// The storage replaces an object that is there.
    OverwriteLog,
    /// A job is placed anew while its last epoch is on its way into the log.
    AssignWhileCommitting,
    /// A survivor of a lost worker keeps its state and positions.
    RewindOnlyTheDead,
    /// A master does not hear of a worker that is lost before it has deployed.
    DeafWhileDeploying,
    /// A sink reads the marker and does not fence.
    SkipSinkFence,
    /// A sink reads the marker and then fences.
    MarkerBeforeFence,
    /// A sink applies an epoch that its worker has reported, before it is in the log.
    DeliverBeforeRecord,
    /// A sink goes on after the epoch that its worker restored, and does not read the marker.
    TrustTheMastersCursor,
    /// A sink that hears nothing of its commit applies the epoch again.
    ApplyAgainUnasked,
    /// A deliverer cannot fence twice with its own token.
    FenceNeedsANewToken,
}

impl Mistake {
    /// All of them, in the order of the path.
    pub const ALL: [Self; 14] = [
        Self::SkipFence,
        Self::ReadLogBeforeFence,
        Self::EqualTermWins,
        Self::DropNonce,
        Self::OverwriteLog,
        Self::AssignWhileCommitting,
        Self::RewindOnlyTheDead,
        Self::DeafWhileDeploying,
        Self::SkipSinkFence,
        Self::MarkerBeforeFence,
        Self::DeliverBeforeRecord,
        Self::TrustTheMastersCursor,
        Self::ApplyAgainUnasked,
        Self::FenceNeedsANewToken,
    ];

    /// The property that it breaks.
    pub fn breaks(self) -> &'static str {
        match self {
            Self::SkipFence
            | Self::ReadLogBeforeFence
            | Self::EqualTermWins
            | Self::DropNonce
            | Self::OverwriteLog
            | Self::AssignWhileCommitting => ONE_CHAIN,
            Self::RewindOnlyTheDead => TILED,
            Self::SkipSinkFence => STALE,
            Self::DeliverBeforeRecord => RECORDED,
            Self::MarkerBeforeFence | Self::TrustTheMastersCursor | Self::ApplyAgainUnasked => {
                PREFIX
            }
            Self::DeafWhileDeploying | Self::FenceNeedsANewToken => PROGRESS,
        }
    }

    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::SkipFence => "skip-fence",
            Self::ReadLogBeforeFence => "read-log-before-fence",
            Self::EqualTermWins => "equal-term-wins",
            Self::DropNonce => "drop-nonce",
            Self::OverwriteLog => "overwrite-log",
            Self::AssignWhileCommitting => "assign-while-committing",
            Self::RewindOnlyTheDead => "rewind-only-the-dead",
            Self::DeafWhileDeploying => "deaf-while-deploying",
            Self::SkipSinkFence => "skip-sink-fence",
            Self::MarkerBeforeFence => "marker-before-fence",
            Self::DeliverBeforeRecord => "deliver-before-record",
            Self::TrustTheMastersCursor => "trust-the-masters-cursor",
            Self::ApplyAgainUnasked => "apply-again-unasked",
            Self::FenceNeedsANewToken => "fence-needs-a-new-token",
        }
    }

    /// The mistake of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mistake| mistake.name() == name)
    }
}
