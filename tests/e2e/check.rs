//! `millstream check` on jobs that are broken: every problem at once, with its place.

use millstream_tests::process::run_to_end;

use crate::clicks::job;

async fn check(sql: &str) -> (i32, String, String) {
    let folder = tempfile::TempDir::new().expect("folder");
    let file = folder.path().join("broken.sql");
    std::fs::write(&file, sql).expect("write");
    let environment = [
        ("KAFKA_BROKERS", "127.0.0.1:1"),
        (
            "POSTGRES_URL",
            "postgres://nobody:secret-password@127.0.0.1:1/none",
        ),
    ];
    run_to_end(&["check", &file.display().to_string()], &environment)
        .await
        .expect("run millstream check")
}

/// Where `text` stands in the SQL, as an error names it.
fn place(sql: &str, text: &str) -> String {
    let at = sql.find(text).expect("the text stands in the SQL");
    let line = sql[..at].matches('\n').count() + 1;
    let column = at - sql[..at].rfind('\n').map_or(0, |newline| newline + 1) + 1;
    format!("broken.sql:{line}:{column}")
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_all_problems_with_file_line_column_and_nearest_name() {
    let sql = job("page_views.sql")
        .unwrap()
        .replace("topic = ", "topik = ")
        .replace("WHERE action = 'view'", "WHERE actoin = 'view'")
        .replace("create = 'if_missing'\n", "creat = 'if_missing'\n");
    let (code, stdout, stderr) = check(&sql).await;
    let said = format!("{stdout}{stderr}");
    assert_eq!(code, 1, "{said}");
    for (wrong, right) in [
        ("topik", "topic"),
        ("actoin", "action"),
        ("creat =", "create"),
    ] {
        assert!(said.contains(&place(&sql, wrong)), "{wrong}: {said}");
        assert!(said.contains(right), "{right}: {said}");
    }
    assert!(said.contains('^'), "{said}");
    assert!(!said.contains("secret-password"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_a_statement_it_does_not_know_by_name_and_place() {
    let sql = format!("{}\nDROP TABLE clicks;\n", job("page_views.sql").unwrap());
    let (code, stdout, stderr) = check(&sql).await;
    let said = format!("{stdout}{stderr}");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&place(&sql, "DROP TABLE")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_a_window_over_a_source_without_a_watermark_and_shows_the_line_to_add() {
    let whole = job("page_views.sql").unwrap();
    let sql = whole.replace(
        ",\n  WATERMARK FOR \"timestamp\" AS \"timestamp\" - INTERVAL '5 minutes'",
        "",
    );
    assert_ne!(sql, whole);
    let (code, stdout, stderr) = check(&sql).await;
    let said = format!("{stdout}{stderr}");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("WATERMARK FOR"), "{said}");
    assert!(said.contains("broken.sql:"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_an_error_that_names_it() {
    let (code, _, stderr) = run_to_end(&["check", "no/such.sql"], &[]).await.unwrap();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("no/such.sql"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_refused_leaves_nothing_behind() {
    let folder = tempfile::TempDir::new().expect("folder");
    let file = folder.path().join("broken.sql");
    std::fs::write(&file, "CREATE VIEW v AS SELECT n FROM nowhere;").expect("write");
    let storage = folder.path().join("storage/broken");
    let [file, storage_given] = [&file, &storage].map(|path| path.display().to_string());
    let run = ["run", &file, "--storage", &storage_given];
    let (code, _, stderr) = run_to_end(&run, &[]).await.expect("run millstream run");
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("unknown relation nowhere"), "{stderr}");
    assert!(std::fs::metadata(folder.path().join("storage")).is_err());
}
