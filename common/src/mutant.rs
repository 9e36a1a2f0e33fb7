//! Known mistakes, planted on purpose to prove that the simulation finds them.
//!
//! Asked at the place of the protocol where each would be made; the simulator plants one in a process. Without the feature
//! `mutants`, which only `make mutants` turns on, every answer is a constant and nothing else of this is in a program. Cannot fail.

macro_rules! mutants {
    ($($(#[doc = $text:literal])+ $name:ident,)+) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $text])+ $name,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them, in the order of the protocol.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// What is done wrong, for people.
            pub fn mistake(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($text),+).trim(),)+
                }
            }
        }
    };
}

mutants! {
    /// A master reigns without a Fence entry of its term.
    SkipLogFence,
    /// Of two masters that fence the same term, both reign.
    IgnoreEqualTerm,
    /// A master writes on behind the Fence of a newer one.
    IgnoreNewerTerm,
    /// Another master's object in our place counts as ours.
    TakeOthersObject,
    /// A log object whose checksum differs is read.
    SkipLogChecksum,
    /// Sinks are told of an epoch before the log holds it.
    DeliverBeforeRecord,
    /// A job is placed while its last epoch is on its way into the log.
    AssignWhileCommitting,
    /// A report that comes after its generation was given up is committed.
    CommitAbandoned,
    /// A new assignment has the number of the one before.
    ReuseGeneration,
    /// Only the splits of a lost worker are rewound.
    RewindOnlyTheDead,
    /// The checkpoint of a stop has no positions.
    EmptyOffsetsAtStop,
    /// Positions are merged under the names of other splits.
    PositionsOfAnotherSplit,
    /// Of the state parts, those of one worker are recorded.
    PartsOfOneWorker,
    /// Epochs are forgotten when the fastest sink holds them.
    ForgetByFastestSink,
    /// A new master skips the epoch that was under way.
    SkipOpenEpoch,
    /// A worker does not repeat its report to a new master.
    ReportOnlyOnce,
    /// A split is given to a reader that has it.
    GiveSplitTwice,
    /// Splits are read on without their watermark.
    ForgetSplitWatermark,
    /// Rows behind a barrier are folded into the epoch before it.
    FoldBehindBarrier,
    /// A state part is reported and not stored.
    ReportUnstoredPart,
    /// The keys of an epoch are in no state part.
    LoseStateDelta,
    /// Keys are restored without the watermark they had seen.
    RestoreWithoutWatermark,
    /// Keys are restored as of a watermark they had not seen.
    RestoreAtNewestWatermark,
    /// Each task restores the keys of all.
    RestoreKeysOfOthers,
    /// An object whose checksum differs is used.
    SkipChecksum,
    /// An epoch without rows is acknowledged without its marker.
    AcknowledgeEmptyEpoch,
    /// A run whose fate is unknown counts as applied.
    TakeUnknownForApplied,
    /// A deliverer's token is not kept by the sink.
    ForgetToken,
    /// A sink's marker is read before older deliverers are fenced.
    ReadMarkerBeforeFence,
    /// Each deliverer has a transactional.id of its own.
    TransactionalIdOfDeliverer,
    /// The marker is written in a transaction of its own.
    MarkerInOwnTransaction,
    /// A sink leaves refused rows out before the log names them.
    CommitBeforeRefusals,
    /// Refused rows that the log names are named again.
    NameRefusalsTwice,
    /// A sink is sent back before the log says so.
    RewindUnrecorded,
    /// Markers of before a sink was sent back are believed.
    HearOldMarkers,
    /// A sink is sent back to where its segments are forgotten.
    RewindPastForgotten,
    /// A sink goes back and does not note that it did.
    ForgetRewind,
    /// A sink that is sent back counts as holding that epoch, whatever it held.
    RewindForward,
    /// Readers read on although a sink has used up its quota.
    ReadOverQuota,
    /// Readers that waited for a sink are not started again.
    LeaveReadersHeld,
    /// The next generation delivers to a suspended sink.
    DeliverToSuspended,
    /// A job whose entry is on its way is begun again when it is said again.
    BeginTwice,
    /// Log objects are collected that no boundary stands for.
    CollectWithoutBoundary,
    /// State parts are collected that the log refers to.
    CollectLiveState,
    /// State parts are collected that no epoch refers to yet.
    CollectUnpublished,
    /// Segments are collected that a sink still lacks.
    CollectUndelivered,
    /// Segments are collected before the log says that they are forgotten.
    CollectUnforgotten,
}

#[cfg(feature = "mutants")]
static PLANTED: std::sync::Mutex<Option<Mutant>> = std::sync::Mutex::new(None);

/// Whether this mistake is to be made.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}

/// Whether this mistake is to be made.
#[cfg(feature = "mutants")]
pub fn is(mutant: Mutant) -> bool {
    *PLANTED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        == Some(mutant)
}

/// From now on this process makes this mistake, or none.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    *PLANTED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner()) = mutant;
}
