//! `jobs/user_activity.sql`: CSV files in a hot folder become checked, deduplicated rows, while workers and the
//! job itself end and begin again. Each file is read once, and only when it is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_common::time::EventTime;
use millstream_tests::activity::{Activity, CsvFile};
use millstream_tests::activity_oracle::{ActivityOracle, Event, Refused};
use millstream_tests::cluster::Cluster;
use millstream_tests::database::Database;
use millstream_tests::services::Services;
use millstream_tests::wait;
use tempfile::TempDir;

use crate::clicks::{equal, job};

const NAME: &str = "activity";
const SEED: u64 = 61;
/// When the first file was written: long ago, so that it counts as closed at once.
const FIRST_CHANGE: Duration = Duration::from_secs(1_700_000_000);
const DEADLINE: Duration = Duration::from_secs(60);

/// The hot folder.
struct Folder {
    folder: TempDir,
    /// Files put there so far.
    put: u64,
}

impl Folder {
    /// Writes a file under a name that marks it as unfinished, then renames it.
    fn put(&mut self, file: &CsvFile) -> anyhow::Result<()> {
        let beginning = self.begin(file, file.text.len(), ".")?;
        self.close(&beginning, file)
    }

    /// Writes the first `length` bytes of a file under an unfinished name.
    fn begin(&self, file: &CsvFile, length: usize, prefix: &str) -> anyhow::Result<PathBuf> {
        let path = self
            .folder
            .path()
            .join(format!("{prefix}{}.tmp", file.name));
        std::fs::write(&path, &file.text[..length])?;
        Ok(path)
    }

    /// Gives the file its time and its name, one second after the file before.
    fn close(&mut self, beginning: &Path, file: &CsvFile) -> anyhow::Result<()> {
        std::fs::write(beginning, &file.text)?;
        let mut written = beginning.to_owned();
        if file.name.ends_with(".gz") {
            // Leaves NAME.gz in place of NAME.
            let packed = Command::new("gzip").arg("-n").arg(beginning).status();
            ensure!(packed.context("run gzip")?.success(), "gzip failed");
            written = beginning.with_added_extension("gz");
            let hidden = self.folder.path().join(format!(".{}", file.name));
            std::fs::rename(&written, &hidden)?;
            written = hidden;
        }
        self.put += 1;
        let changed = UNIX_EPOCH + FIRST_CHANGE + Duration::from_secs(self.put);
        File::options()
            .write(true)
            .open(&written)?
            .set_modified(changed)?;
        std::fs::rename(&written, self.folder.path().join(&file.name))?;
        Ok(())
    }

    /// As a dead letter names the file.
    fn origin(&self, file: &CsvFile) -> String {
        format!("file://{}", self.folder.path().join(&file.name).display())
    }

    fn take_wave(&self, oracle: &mut ActivityOracle, files: &[CsvFile]) {
        oracle.take_wave(files.iter().map(|file| (self.origin(file), &file.text[..])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_hot_folder_is_read_once_and_each_row_is_stored_or_refused_with_its_reason()
-> anyhow::Result<()> {
    let database = Database::create(&Services::shared()?.postgres, "user_activity").await?;
    database.execute(&job("user_activity.ddl.sql")?).await?;
    let mut folder = Folder {
        folder: TempDir::new()?,
        put: 0,
    };
    let sql = job("user_activity.sql")?;
    let often = "max_files_per_epoch = 1,\n  discovery_interval = '200 ms'";
    let quick = sql.replace("max_files_per_epoch = 1", often);
    ensure!(quick != sql, "the job has no max_files_per_epoch");
    let environment = vec![
        ("POSTGRES_URL", database.url.clone()),
        (
            "USER_ACTIVITY_FOLDER",
            folder.folder.path().display().to_string(),
        ),
    ];
    let mut cluster = Cluster::start(environment, 2).await?;
    let mut activity = Activity::new(SEED);
    let mut oracle = ActivityOracle::default();

    // Files that are there before the job.
    let first = activity.wave();
    for file in &first {
        folder.put(file)?;
    }
    folder.take_wave(&mut oracle, &first);
    cluster.submit(NAME, &quick).await?;
    wait_until_equal(&cluster, &database, &oracle, folder.put).await?;

    // Files that come while it runs and while a worker dies; two are not finished yet.
    let second = activity.wave();
    let mut third = activity.wave();
    let unfinished = third.remove(0);
    let hidden = third.remove(0);
    let half = unfinished.text.len() / 2;
    let beginning = folder.begin(&unfinished, half, "")?;
    let hidden_beginning = folder.begin(&hidden, hidden.text.len(), "_")?;
    let known = folder.put;
    for file in &second {
        folder.put(file)?;
    }
    folder.take_wave(&mut oracle, &second);
    let is_reading = |job: &JobView| u64::from(job.sources[0].splits) > known;
    cluster
        .wait_for_job(NAME, "a new file is claimed", is_reading)
        .await?;
    cluster.kill_worker(0).await?;
    wait_until_equal(&cluster, &database, &oracle, folder.put).await?;

    // The rest comes while the job is stopped; then it goes on.
    cluster.stop(NAME, StopMode::Stop).await?;
    folder.close(&beginning, &unfinished)?;
    folder.close(&hidden_beginning, &hidden)?;
    for file in &third {
        folder.put(file)?;
    }
    third.extend([unfinished, hidden]);
    folder.take_wave(&mut oracle, &third);
    cluster.submit(NAME, &quick).await?;
    wait_until_equal(&cluster, &database, &oracle, folder.put).await?;
    cluster.stop(NAME, StopMode::Stop).await?;
    differences(&database, &oracle).await?;
    ensure_schema(&database).await?;
    Ok(())
}

/// Waits until the job has ended its files and the tables hold what they must.
async fn wait_until_equal(
    cluster: &Cluster,
    database: &Database,
    oracle: &ActivityOracle,
    file_count: u64,
) -> anyhow::Result<()> {
    let watermark = oracle.watermark_us.map(EventTime);
    let is_read = |job: &JobView| {
        let source = &job.sources[0];
        u64::from(source.splits_ended) == file_count && source.watermark == watermark
    };
    let what = format!("{file_count} files are read, watermark {watermark:?}");
    cluster.wait_for_job(NAME, &what, is_read).await?;
    wait::until("tables hold what they must", DEADLINE, || async {
        let differences = differences(database, oracle).await;
        differences.map_err(|error| format!("{error:#}"))
    })
    .await
    .with_context(|| cluster.logs())
}

async fn differences(database: &Database, oracle: &ActivityOracle) -> anyhow::Result<()> {
    let rows = database
        .query(
            "SELECT event_id, user_id, event_type, product_id, price::text, \
             to_char(event_time, 'YYYY-MM-DD HH24:MI:SS.MS') FROM user_activity",
        )
        .await?;
    let events: BTreeMap<String, Event> = rows
        .iter()
        .map(|row| {
            let event = (row.get(1), row.get(2), row.get(3), row.get(4), row.get(5));
            (row.get(0), event)
        })
        .collect();
    equal(&oracle.events, &events).context("user_activity")?;
    let rows = database
        .query(
            "SELECT origin, position, code, reason, payload, source, payload_bytes IS NULL \
             FROM user_activity_errors",
        )
        .await?;
    let mut refused = BTreeMap::new();
    for row in rows {
        let key: (String, i64) = (row.get(0), row.get(1));
        ensure!(
            row.get::<_, String>(5) == "activity",
            "another source at {key:?}"
        );
        let found = Found {
            code: row.get(2),
            reason: row.get(3),
            payload: row.get(4),
            is_text: row.get(6),
        };
        let expected = oracle.refused.get(&key);
        let told = match expected {
            Some(expected) if found.is(expected) => "as it must be".to_owned(),
            _ => format!("expected {expected:?}, found {found:?}"),
        };
        let twice = refused.insert(key.clone(), told);
        ensure!(twice.is_none(), "user_activity_errors has {key:?} twice");
    }
    let keys = oracle.refused.keys();
    let expected = keys.map(|key| (key.clone(), "as it must be".to_owned()));
    equal(&expected.collect(), &refused).context("user_activity_errors")
}

/// A dead letter in the table.
#[derive(Debug)]
struct Found {
    code: String,
    reason: String,
    payload: Option<String>,
    /// The payload is the record as it stands in the file.
    is_text: bool,
}

impl Found {
    fn is(&self, expected: &Refused) -> bool {
        let is_payload = match &expected.payload {
            Some(_) => self.is_text && self.payload == expected.payload,
            None => self.payload.is_some(),
        };
        self.code == expected.code && self.reason.contains(expected.about) && is_payload
    }
}

/// The table is as the DDL file made it: the job has added nothing and taken nothing away.
async fn ensure_schema(database: &Database) -> anyhow::Result<()> {
    let rows = database
        .query("SELECT indexname::text FROM pg_indexes WHERE tablename LIKE 'user_activity%'")
        .await?;
    let indexes: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let expected = [
        "user_activity_errors_code",
        "user_activity_errors_received_at",
        "user_activity_event_time",
        "user_activity_pkey",
        "user_activity_user_id",
    ];
    ensure!(indexes.iter().eq(expected), "indexes {indexes:?}");
    let rows = database
        .query("SELECT count(*) FROM pg_constraint WHERE conrelid = 'user_activity'::regclass AND contype = 'c'")
        .await?;
    let checks: i64 = rows[0].get(0);
    ensure!(checks == 2, "{checks} check constraints");
    Ok(())
}
