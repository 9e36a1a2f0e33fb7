//! Peers: other engines that run the same queries over clicks of the same kind, in turns with ours.
//!
//! Called by `throughput/mod.rs`, right behind our run of a query. Those that are installed are run (`installed.rs`), each over a topic of its own
//! that is shorter than ours: rates are compared, and the slowest is a hundred times as slow. Each run starts the engine anew, lets it answer the query
//! once and measures the second time (`run.rs`); its answer is compared with the oracle (`answer.rs`). Settings are in the folder of each peer's job,
//! `tests/bench/peers`: two threads, event time with a watermark five minutes behind, a checkpoint or commit every second, exactly once.
//! Failure: a peer that fails is told in its table and ends nothing; one that is asked for and not installed ends the bench.

pub(super) mod answer;
mod installed;
pub(super) mod run;
mod tree;

use std::path::PathBuf;

use clap::Args;

use self::installed::Peer;
use self::run::Measured;
use super::oracle::Expected;
use super::queries::Query;
use crate::Services;
use crate::topic::ClicksTopic;

#[derive(Args)]
pub(crate) struct Options {
    /// Other engines to run beside: `installed`, `all`, `none`, or names with commas.
    #[arg(long, default_value = "installed")]
    peers: String,
    /// Where they are installed.
    #[arg(long, env = "MILLSTREAM_PEERS", default_value = FOLDER)]
    peers_folder: PathBuf,
    /// Clicks in the topic that they read.
    #[arg(long, default_value_t = CLICKS)]
    peer_clicks: u64,
}

const FOLDER: &str = "target/peers";
const CLICKS: u64 = 2_000_000;

impl Default for Options {
    fn default() -> Self {
        let folder = std::env::var_os("MILLSTREAM_PEERS");
        Self {
            peers: "installed".to_owned(),
            peers_folder: folder.map_or_else(|| FOLDER.into(), PathBuf::from),
            peer_clicks: CLICKS,
        }
    }
}

/// The peers that are run, with what they read and what they have done so far.
pub(super) struct Beside {
    peers: Vec<Peer>,
    topic: String,
    expected: Expected,
    pub(super) series: Vec<Series>,
}

/// The runs of one peer and query.
pub(super) struct Series {
    peer: usize,
    /// Of the peer, with its version.
    pub(super) title: String,
    pub(super) query: &'static Query,
    pub(super) clicks: u64,
    /// Round by round; a run that failed, with the reason.
    pub(super) runs: Vec<Result<Measured, String>>,
}

impl Series {
    /// Those that did not fail, with the number of their round.
    pub(super) fn measured(&self) -> impl Iterator<Item = (usize, &Measured)> {
        let runs = self.runs.iter().enumerate();
        runs.filter_map(|(round, run)| Some((round, run.as_ref().ok()?)))
    }
}

impl Beside {
    /// Finds the peers, and fills their topic if there are any that have something to do.
    pub(super) async fn prepare(
        services: &Services,
        options: &Options,
        seed: u64,
        queries: &[&'static Query],
    ) -> anyhow::Result<Self> {
        let peers = installed::find(&options.peers, &options.peers_folder)?;
        let queries: Vec<_> = queries.iter().filter(|query| !query.fills_table).collect();
        let mut beside = Self {
            peers,
            topic: String::new(),
            expected: Expected::of(0, seed),
            series: Vec::new(),
        };
        for query in queries {
            let able = |(_, of): &(usize, &Peer)| of.kind.dedups || !query.dedups;
            let peers = beside.peers.iter().enumerate().filter(able);
            beside.series.extend(peers.map(|(peer, of)| Series {
                peer,
                title: of.title(),
                query,
                clicks: options.peer_clicks,
                runs: Vec::new(),
            }));
        }
        if !beside.series.is_empty() {
            let clicks = ClicksTopic::new(options.peer_clicks, seed);
            beside.topic = clicks.fill(&services.kafka).await?;
            beside.expected = Expected::of(options.peer_clicks, seed);
        }
        Ok(beside)
    }

    /// One run of each peer.
    pub(super) async fn round(&mut self, services: &Services, query: &Query) {
        let series = self.series.iter_mut();
        for series in series.filter(|series| series.query.name == query.name) {
            let peer = &self.peers[series.peer];
            let clicks = (self.topic.as_str(), &self.expected);
            let run = run::run(services, peer, query, clicks).await;
            series.runs.push(run.map_err(|error| format!("{error:#}")));
        }
    }
}
