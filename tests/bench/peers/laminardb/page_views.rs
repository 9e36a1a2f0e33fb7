//! LaminarDB, embedded: runs page_views.sql over a topic, then once more for the clock.
//!
//! Built by `peers/install`, started by `run`; prints what `peer.py` says. A checkpoint every second, at least once, which is less than the others
//! promise: for exactly once its Kafka sink asks for topics of its own. A window leaves when the watermark is past it, so that open ones are
//! not in the answer. A pass begins with the first click taken and ends with the last count; that all is done shows only in quiet seconds
//! behind it, whose CPU time is in the bench's figure. Owns folders for its state. Failure: an error of LaminarDB, or clicks that stop coming.

use std::error::Error;
use std::time::{Duration, Instant};

use laminar_core::streaming::StreamCheckpointConfig;
use laminar_db::{DeliveryGuarantee, LaminarDB};

/// How often its counters are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Some checkpoints: what it has taken by then has been counted and has left.
const QUIET: Duration = Duration::from_secs(3);
const STALLED: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut given = std::env::args().skip(1);
    let mut next = |name: &str| given.next().ok_or(format!("no {name}"));
    let clicks: u64 = next("number of clicks")?.parse()?;
    let first = (next("first folder")?, next("first pass's SQL")?);
    let second = (next("second folder")?, next("second pass's SQL")?);
    pass(&first, clicks).await?;
    println!("began");
    let elapsed = pass(&second, clicks).await?;
    println!("ended {:.3}", elapsed.as_secs_f64());
    Ok(())
}

/// One pass over the topic; how long it took.
async fn pass((folder, sql): &(String, String), clicks: u64) -> Result<Duration, Box<dyn Error>> {
    let checkpoints = StreamCheckpointConfig {
        interval_ms: Some(1_000),
        ..Default::default()
    };
    let db = LaminarDB::builder()
        .storage_dir(folder)
        .checkpoint(checkpoints)
        .delivery_guarantee(DeliveryGuarantee::AtLeastOnce)
        .build()
        .await?;
    for statement in sql.split(';').filter(|text| !text.trim().is_empty()) {
        db.execute(statement).await?;
    }
    db.start().await?;
    let (mut began, mut changed) = (None, Instant::now());
    let mut seen = (0, 0);
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let metrics = db.metrics();
        let now = (metrics.total_events_ingested, metrics.total_events_emitted);
        if now.0 > 0 && began.is_none() {
            began = Some(Instant::now());
        }
        if now != seen {
            (seen, changed) = (now, Instant::now());
        }
        if now.0 >= clicks && changed.elapsed() > QUIET {
            break;
        }
        if changed.elapsed() > STALLED {
            return Err(format!("it stands still at {} of {clicks} clicks", now.0).into());
        }
    }
    let elapsed = began.map_or(Duration::ZERO, |began| changed - began);
    db.shutdown().await?;
    Ok(elapsed)
}
