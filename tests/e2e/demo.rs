//! `millstream demo`, and whether every job of the project passes `check` and `explain`.

use anyhow::{Context, ensure};
use futures::future::join_all;
use millstream_tests::process::run_to_end;
use millstream_tests::services::project_folder;
use tempfile::TempDir;

use crate::clicks::{Clicks, job};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_kills_a_worker_and_comes_to_the_right_counts() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let output = folder.path().join("output").display().to_string();
    let arguments = [
        "demo",
        "--seconds",
        "6",
        "--rate",
        "1000",
        "--output",
        &output,
    ];
    let (code, stdout, stderr) = run_to_end(&arguments, &[]).await?;
    let said = format!("{stdout}\n{stderr}");
    ensure!(code == 0, "{said}");
    for part in [
        "killed with SIGKILL",
        "taken over after",
        "verdict    equal",
    ] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_of_the_project_passes_check_and_is_explained() -> anyhow::Result<()> {
    let clicks = Clicks::shared("all_jobs").await?;
    clicks
        .database
        .execute(&job("user_activity.ddl.sql")?)
        .await?;
    let folder = TempDir::new()?;
    let folder = folder.path().display().to_string();
    let mut environment = clicks.environment();
    environment.push(("USER_ACTIVITY_FOLDER", folder));
    environment.push(("DEMO_TOPIC", clicks.topic.name.clone()));
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let jobs = project_folder().join("jobs");
    let mut files = Vec::new();
    for place in [jobs.clone(), jobs.join("generate")] {
        for entry in std::fs::read_dir(&place).context("list jobs")? {
            let file = entry?.path().display().to_string();
            if file.ends_with(".sql") && !file.ends_with(".ddl.sql") {
                files.push(file);
            }
        }
    }
    ensure!(files.len() >= 9, "{files:?}");
    let checks = files.iter().map(async |file| {
        for verb in ["check", "explain"] {
            let (code, stdout, stderr) = run_to_end(&[verb, file], &environment).await?;
            ensure!(code == 0, "{verb} {file}: {stdout}{stderr}");
            ensure!(
                verb == "check" || stdout.contains("sink "),
                "{file}: {stdout}"
            );
        }
        anyhow::Ok(())
    });
    for checked in join_all(checks).await {
        checked?;
    }
    Ok(())
}
