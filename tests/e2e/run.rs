//! `millstream run`: a job in one process, stopped and killed at the terminal.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_tests::database::Locked;
use millstream_tests::generator::{self, Record};
use millstream_tests::process::{Process, Start, run_to_end};
use millstream_tests::scrape;
use millstream_tests::services::project_folder;
use millstream_tests::wait;
use tempfile::TempDir;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

/// Exit code of a process that a second Ctrl-C ended at once.
const INTERRUPTED: i32 = 130;
const DEADLINE: Duration = Duration::from_secs(60);
const TABLE: &str = "fact_page_views";

fn run(clicks: &Clicks, folder: &Path) -> anyhow::Result<Process> {
    let file = project_folder().join("jobs/page_views.sql");
    run_file(clicks, folder, &file, &[])
}

fn run_file(clicks: &Clicks, folder: &Path, file: &Path, more: &[&str]) -> anyhow::Result<Process> {
    let mut arguments = vec!["run".to_owned(), file.display().to_string()];
    arguments.extend(more.iter().map(|&each| each.to_owned()));
    Process::start(Start {
        name: "run",
        arguments,
        environment: clicks.environment(),
        folder,
    })
}

/// Ends it in order, as a person at a terminal does.
async fn stop(mut process: Process) -> anyhow::Result<()> {
    process.interrupt().await?;
    let status = process.ended().await?;
    ensure!(status.success(), "{status}:\n{}", process.last_lines());
    Ok(())
}

/// Rows without end and without a service.
const ENDLESS: &str = "
SET checkpoint_interval = '200 ms';
CREATE SOURCE made (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = 500);
CREATE SINK nowhere FROM made WITH (connector = 'blackhole');
";

#[tokio::test(flavor = "multi_thread")]
async fn run_serves_its_dashboard_and_the_figures_of_both_roles_where_it_is_told_to()
-> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("numbers.sql");
    std::fs::write(&file, ENDLESS)?;
    let file = file.display().to_string();
    let process = Process::start(Start {
        name: "run",
        arguments: ["run", &file, "--http", "127.0.0.1:0"]
            .map(str::to_owned)
            .to_vec(),
        environment: Vec::new(),
        folder: folder.path(),
    })?;
    let job = ("job", "numbers");
    let address = wait::until("both roles count rows", DEADLINE, || async {
        let said = process.said();
        let mut addresses = said
            .lines()
            .filter_map(|line| line.strip_prefix("dashboard at http://"));
        let address = addresses.next().ok_or_else(|| said.clone())?.to_owned();
        let samples = scrape::metrics(&address).await;
        let samples = samples.map_err(|error| format!("{error:#}"))?;
        let epoch = samples.value("millstream_job_epoch", &[job]);
        let read = samples.value("millstream_worker_read_rows_total", &[job]);
        match (epoch, read) {
            (Ok(epoch), Ok(read)) if epoch > 0.0 && read > 0.0 => Ok(address),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let ready = scrape::get(&address, "/readyz").await?;
    ensure!(ready.head.starts_with("HTTP/1.1 200"), "{ready:?}");
    let page = scrape::get(&address, "/jobs/numbers").await?;
    let asks = page.body.contains("Why is nothing coming out?");
    ensure!(asks, "{page:?}");
    stop(process).await?;

    let arguments = ["run", &file, "--http", "0.0.0.0:0"];
    let (code, _, said) = run_to_end(&arguments, &[]).await?;
    ensure!(code == 1 && said.contains("refusing to listen"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn run_goes_on_with_other_sql_from_its_last_checkpoint_and_only_if_told_to()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("run_from_checkpoint").await?;
    let folder = TempDir::new()?;
    let file = folder.path().join("page_views.sql");
    let sql = job("page_views.sql")?;
    std::fs::write(&file, &sql)?;
    let mut generator = generator::Clicks::new(13, PARTITION_COUNT, 50);
    clicks.topic.send(&generator.take(10_000)).await?;
    let process = run_file(&clicks, folder.path(), &file, &[])?;
    let right = clicks.wait_for_page_views(&clicks.oracle()?).await;
    right.with_context(|| process.last_lines())?;
    stop(process).await?;

    std::fs::write(&file, sql.replace("'1 second'", "'2 seconds'"))?;
    let mut refused = run_file(&clicks, folder.path(), &file, &[])?;
    let status = refused.ended().await?;
    let said = refused.last_lines();
    ensure!(
        status.code() == Some(1) && said.contains("--from-checkpoint latest"),
        "{status}: {said}"
    );
    clicks.topic.send(&generator.take(10_000)).await?;
    let oracle = clicks.oracle()?;
    let more = ["--from-checkpoint", "latest"];
    let process = run_file(&clicks, folder.path(), &file, &more)?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| process.last_lines())?;
    stop(process).await?;
    clicks.differences(&oracle).await
}

#[tokio::test(flavor = "multi_thread")]
async fn page_views_of_run_are_exact_and_the_same_command_goes_on_after_ctrl_c()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("run_goes_on").await?;
    let folder = TempDir::new()?;
    let mut generator = generator::Clicks::new(11, PARTITION_COUNT, 50);
    for _ in 0..2 {
        clicks.topic.send(&generator.take(30_000)).await?;
        let oracle = clicks.oracle()?;
        let mut process = run(&clicks, folder.path())?;
        let right = clicks.wait_for_page_views(&oracle).await;
        right.with_context(|| process.last_lines())?;
        process.interrupt().await?;
        let status = process.ended().await?;
        ensure!(status.success(), "{status}:\n{}", process.last_lines());
        clicks.differences(&oracle).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_ends_at_once_and_the_next_start_loses_and_doubles_nothing()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("run_ends_at_once").await?;
    let folder = TempDir::new()?;
    let mut generator = generator::Clicks::new(12, PARTITION_COUNT, 20);
    clicks.topic.send(&generator.take(40_000)).await?;
    let records = generator.take(40_000);
    let mut process = run(&clicks, folder.path())?;
    wait::until("a first epoch is delivered", DEADLINE, || async {
        match clicks.database.page_views().await {
            Ok(views) if !views.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .with_context(|| process.last_lines())?;
    let locked = a_delivery_waits(&clicks, &records).await;
    let locked = locked.with_context(|| process.last_lines())?;
    // The orderly end cannot win the race against the second Ctrl-C: it waits for the delivery.
    process.interrupt().await?;
    said(&process, "Ctrl-C again ends at once", 1).await?;
    process.interrupt().await?;
    let status = process.ended().await?;
    let is_interrupted = status.code() == Some(INTERRUPTED);
    ensure!(is_interrupted, "{status}:\n{}", process.last_lines());
    drop(locked);
    let oracle = clicks.oracle()?;
    let mut process = run(&clicks, folder.path())?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| process.last_lines())?;
    // Before this a single Ctrl-C ends at once: there is no job of this process to stop yet.
    said(&process, "Ctrl-C stops it", 2).await?;
    process.interrupt().await?;
    ensure!(process.ended().await?.success(), "{}", process.last_lines());
    clicks.differences(&oracle).await
}

/// Sends clicks whose counts cannot be delivered until what comes back is dropped.
async fn a_delivery_waits(clicks: &Clicks, records: &[Record]) -> anyhow::Result<Locked> {
    let locked = clicks.database.lock(TABLE).await?;
    clicks.topic.send(records).await?;
    wait::until("a delivery waits for the table", DEADLINE, || async {
        match clicks.database.waits_for(TABLE).await {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    Ok(locked)
}

/// Waits until the processes of the test's name have said `text` so often.
async fn said(process: &Process, text: &str, count: usize) -> anyhow::Result<()> {
    wait::until(text, DEADLINE, || async {
        let said = process.said();
        (said.matches(text).count() == count)
            .then_some(())
            .ok_or(said)
    })
    .await
}
