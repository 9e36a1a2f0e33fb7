//! Dead letters that nobody reads are kept up to a bound, and the verb shows them.

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_tests::cluster::Cluster;
use millstream_tests::process::run_to_end;
use serde_json::Value;

const NAME: &str = "numbers";

/// One of ten rows breaks the rule.
const JOB: &str = "
SET checkpoint_interval = '100 milliseconds';
SET dead_letter_retention = '1 day, 40 KiB';
CREATE SOURCE numbers (n BIGINT NOT NULL, CONSTRAINT no_threes CHECK (n % 10 <> 3))
  WITH (connector = 'datagen', rows_per_second = '500', \"fields.n.kind\" = 'sequence');
CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole');
";

const BYTES_MAX: u64 = 40 << 10;

async fn dead_letters(
    cluster: &Cluster,
    arguments: &[&str],
) -> anyhow::Result<(i32, String, String)> {
    let arguments = [&["dead-letters"], arguments].concat();
    run_to_end(&arguments, &[("MILLSTREAM_MASTER", &cluster.address)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_without_a_sink_are_listed_and_take_no_more_room_than_they_may()
-> anyhow::Result<()> {
    let environment = vec![
        ("MILLSTREAM_SEGMENT_RETENTION", "200ms".to_owned()),
        ("MILLSTREAM_RETENTION_INTERVAL", "200ms".to_owned()),
    ];
    let mut cluster = Cluster::start(environment, 1).await?;
    cluster.submit(NAME, JOB).await?;
    let dropped = |job: &JobView| job.storage.map_or(0, |used| used.dead_letters_dropped);
    let job = cluster
        .wait_for_job(NAME, "letters are dropped", |job| dropped(job) > 200)
        .await?;
    let used = job.storage.context("the use of storage is told")?;
    ensure!(used.dead_letter_bytes <= BYTES_MAX, "{used:?}");
    ensure!(
        cluster.master_said().contains("over dead_letter_retention"),
        "no warning"
    );

    listed_by_the_verb(&cluster).await?;

    // The next master knows what was dropped, and a job that has ended has its letters still.
    let before = dropped(&job);
    cluster.kill_master().await?;
    cluster
        .wait_for_job(NAME, "the next master counts on", |job| {
            dropped(job) > before
        })
        .await?;
    cluster.stop(NAME, StopMode::Stop).await?;
    let (_, counts, _) = dead_letters(&cluster, &[NAME, NAME, "--count"]).await?;
    ensure!(counts.contains("check_violation"), "{counts}");
    let sent = ["--replay", "--again"];
    let (code, _, refused) = dead_letters(&cluster, &[&[NAME, NAME], &sent[..]].concat()).await?;
    ensure!(code == 1 && refused.contains("does not run"), "{refused}");
    Ok(())
}

/// Whole, in part, counted, and not at all.
async fn listed_by_the_verb(cluster: &Cluster) -> anyhow::Result<()> {
    let (code, table, left_out) = dead_letters(cluster, &[NAME, NAME, "--limit", "3"]).await?;
    ensure!(code == 0 && table.lines().count() == 4, "{table}{left_out}");
    let line = table.lines().nth(1).context("a letter")?;
    for part in ["datagen-0", "check_violation", "no_threes", "3}"] {
        ensure!(line.contains(part), "{part} in {line}");
    }
    ensure!(
        left_out.contains("the newest 3") && left_out.contains("dropped"),
        "{left_out}"
    );

    let (_, counts, _) = dead_letters(cluster, &[NAME]).await?;
    ensure!(
        counts.contains("numbers.dead_letters  check_violation"),
        "{counts}"
    );
    let json = ["--code", "check_violation", "--since", "1h", "--json"];
    let (_, json, _) = dead_letters(cluster, &[&[NAME, NAME], &json[..]].concat()).await?;
    let letters: Value = serde_json::from_str(&json)?;
    let letter = letters.get(0).with_context(|| json.clone())?;
    ensure!(
        letter["source"] == "numbers" && letter["origin"] == "datagen-0",
        "{letter}"
    );
    let payload: Value = serde_json::from_str(letter["payload"].as_str().context("text")?)?;
    ensure!(
        payload["n"].as_i64().is_some_and(|n| n % 10 == 3),
        "{payload}"
    );
    let (_, none, _) = dead_letters(cluster, &[NAME, NAME, "--code", "late", "--json"]).await?;
    ensure!(none.trim() == "[]", "{none}");
    let (code, _, refused) = dead_letters(cluster, &[NAME, "number"]).await?;
    ensure!(
        code == 1 && refused.contains("did you mean numbers?"),
        "{refused}"
    );
    Ok(())
}
