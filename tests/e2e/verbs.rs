//! The life of a job by the verbs that people type: submitted and watched, looked at, drained; their JSON is what programs read.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_tests::cluster::Cluster;
use millstream_tests::process::{Process, Start, run_to_end};
use millstream_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

/// Counts of what is made up: no service is needed.
fn job(output: &Path) -> String {
    format!(
        "SET checkpoint_interval = '200 ms';
         CREATE SOURCE made (n BIGINT NOT NULL, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 second')
           WITH (connector = 'datagen', rows_per_second = 500, \"fields.at.step\" = '100 ms');
         CREATE VIEW counts AS
           SELECT window_start, window_end, count(*) AS row_count
           FROM TUMBLE(made, at, INTERVAL '10 seconds') GROUP BY window_start, window_end;
         CREATE SINK files FROM counts
           WITH (connector = 'files', path = '{}', format = 'json', roll_interval = '1 second');",
        output.display()
    )
}

/// The verbs of one master.
struct Verbs<'a> {
    cluster: &'a Cluster,
}

impl Verbs<'_> {
    /// What a verb prints; it has to end well.
    async fn said(&self, verb: &[&str]) -> anyhow::Result<String> {
        let (code, stdout, stderr) = self.ended(verb).await?;
        ensure!(
            code == 0,
            "{verb:?}: {code}: {stderr}{}",
            self.cluster.logs()
        );
        Ok(stdout)
    }

    async fn ended(&self, verb: &[&str]) -> anyhow::Result<(i32, String, String)> {
        let master = ("MILLSTREAM_MASTER", self.cluster.address.as_str());
        run_to_end(verb, &[master]).await
    }

    /// What a verb prints for programs.
    async fn json(&self, verb: &[&str]) -> anyhow::Result<Value> {
        let text = self.said(&[verb, &["--json"]].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("{verb:?}: {text}"))
    }

    /// The only job, once `holds` is true of it.
    async fn job_once(&self, what: &str, holds: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        wait::until(what, DEADLINE, || async {
            let jobs = self
                .json(&["jobs"])
                .await
                .map_err(|error| format!("{error:#}"))?;
            match jobs.as_array().map(Vec::as_slice) {
                Some([job]) if holds(job) => Ok(job.clone()),
                _ => Err(jobs.to_string()),
            }
        })
        .await
    }
}

/// The rows counted in all files of the folder.
fn counted(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            for line in std::fs::read_to_string(&path)?.lines() {
                let group: Value = serde_json::from_str(line)?;
                sum += group["row_count"].as_u64().context("a count")?;
            }
        }
    }
    Ok(sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_submitted_watched_looked_at_and_drained_by_its_verbs() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let output = folder.path().join("output");
    let file = folder.path().join("counts.sql");
    std::fs::write(&file, job(&output))?;
    let cluster = Cluster::start(Vec::new(), 2).await?;
    let verbs = Verbs { cluster: &cluster };
    let submit = [
        "submit",
        &file.display().to_string(),
        "--name",
        "made",
        "--watch",
    ];
    let mut watching = Process::start(Start {
        name: "watch",
        arguments: submit.map(str::to_owned).to_vec(),
        environment: vec![("MILLSTREAM_MASTER", cluster.address.clone())],
        folder: folder.path(),
    })?;
    ensure!(watching.first_line().await? == "made begins");
    let moves =
        |job: &Value| job["epoch"].as_u64() > Some(2) && job["rows_read"].as_u64() > Some(0);
    let seen = verbs.job_once("the job reads and commits", moves).await?;
    ensure!(
        seen["name"] == "made" && seen["state"] == "running",
        "{seen}"
    );

    look(&verbs).await?;
    let explained = verbs
        .said(&["explain", &file.display().to_string()])
        .await?;
    let plan = verbs.said(&["job", "made", "--plan"]).await?;
    ensure!(plan == explained, "{plan}\nand not\n{explained}");
    let sql = verbs.said(&["job", "made", "--sql"]).await?;
    ensure!(sql.trim_end() == job(&output).trim_end(), "{sql}");

    let stopped = verbs.said(&["stop", "made", "--drain"]).await?;
    let end = "made finished after epoch ";
    ensure!(
        stopped.starts_with(end) && stopped.contains("delivered to every sink"),
        "{stopped}"
    );
    ensure!(
        watching.ended().await?.success(),
        "{}",
        watching.last_lines()
    );
    ensure!(watching.said().contains(end), "{}", watching.said());
    let is_finished = |job: &Value| job["state"] == "finished";
    let finished = verbs.job_once("the job is finished", is_finished).await?;
    let read = finished["rows_read"].as_u64();
    ensure!(read == Some(counted(&output)?), "{finished}");
    Ok(())
}

/// Every reading verb, while the job runs.
async fn look(verbs: &Verbs<'_>) -> anyhow::Result<()> {
    let job = verbs.json(&["job", "made"]).await?;
    let names = (&job["sources"][0]["name"], &job["sinks"][0]["name"]);
    ensure!(names.0 == "made" && names.1 == "files", "{job}");
    let workers = verbs.json(&["workers"]).await?;
    let workers = workers.as_array().context("an array")?;
    let is_at_work = workers.iter().any(|worker| worker["jobs"][0] == "made");
    ensure!(workers.len() == 2 && is_at_work, "{workers:?}");
    let listed = verbs.json(&["checkpoints", "made", "--limit", "2"]).await?;
    let epochs = listed["checkpoints"].as_array().context("an array")?;
    ensure!(
        epochs.len() == 2 && epochs[0]["parent"] == epochs[1]["epoch"],
        "{listed}"
    );
    let sinks = verbs.json(&["sinks", "made"]).await?;
    ensure!(sinks[0]["connector"] == "files", "{sinks}");
    let plan = verbs.json(&["job", "made", "--plan"]).await?;
    ensure!(plan["stages"][0]["name"] == "made", "{plan}");
    for (verb, shown) in [
        (vec!["jobs"], "made"),
        (vec!["job", "made"], "made"),
        (vec!["workers"], "worker-1"),
        (vec!["checkpoints", "made"], "GENERATION"),
        (vec!["sinks", "made"], "files"),
    ] {
        let text = verbs.said(&verb).await?;
        ensure!(text.contains(shown), "{verb:?}: {text}");
    }
    let (code, _, refused) = verbs.ended(&["job", "mad"]).await?;
    ensure!(code == 1 && refused.contains("made"), "{code}: {refused}");
    let (code, _, refused) = verbs.ended(&["jobs", "--jason"]).await?;
    ensure!(code == 2, "{code}: {refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_tell_programs_of_every_epoch_and_of_the_rows_each_sink_has_taken()
-> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("numbers.sql");
    let sql = "CREATE SOURCE made (n BIGINT NOT NULL) WITH (connector = 'datagen', rows = 1000);
               CREATE SINK nowhere FROM made WITH (connector = 'blackhole');";
    std::fs::write(&file, sql)?;
    let (file, storage) = (
        file.display().to_string(),
        folder.path().display().to_string(),
    );
    let run = ["run", &file, "--storage", &storage];
    let (code, _, quiet) = run_to_end(&run, &[]).await?;
    ensure!(code == 0 && !quiet.contains("epoch committed"), "{quiet}");
    let verbose = [
        "--fresh",
        "--log",
        "millstream=debug",
        "--log-format",
        "json",
    ];
    let (code, _, said) = run_to_end(&[&run[..], &verbose].concat(), &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    let told: Vec<Value> = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let rows_of = |message: &str, field: &str| -> u64 {
        let lines = told.iter().filter(|line| line["message"] == message);
        let named = lines.filter(|line| line["job"] == "numbers" && !line["epoch"].is_null());
        named.filter_map(|line| line[field].as_u64()).sum()
    };
    let read = rows_of("epoch committed", "read");
    let delivered = rows_of("delivered up to this epoch", "rows");
    ensure!(
        (read, delivered) == (1_000, 1_000),
        "{read} read, {delivered} delivered: {said}"
    );
    Ok(())
}
