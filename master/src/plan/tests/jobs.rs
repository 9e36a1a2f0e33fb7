//! The jobs under `jobs/` are what users start from: each of them plans, without a warning.

use super::*;

#[test]
fn every_job_of_the_repository_plans_without_a_warning() {
    let variables = Variables(&[("KAFKA_BROKERS", "localhost:9092"), ("POSTGRES_URL", "x")]);
    let mut count = 0;
    for folder in ["../jobs", "../jobs/generate"] {
        for entry in std::fs::read_dir(folder).expect("the folder of jobs") {
            let path = entry.expect("a job").path();
            let name = path.display().to_string();
            if !name.ends_with(".sql") || name.ends_with(".ddl.sql") {
                continue;
            }
            let sql = std::fs::read_to_string(&path).expect("read the job");
            match plan_job(&sql, &variables) {
                Ok(planned) => {
                    assert_expressions_survive(&planned.plan);
                    let warnings = render(&planned.warnings, &name, &sql);
                    assert!(planned.warnings.is_empty(), "{warnings}");
                }
                Err(problems) => panic!("{}", render(&problems, &name, &sql)),
            }
            count += 1;
        }
    }
    assert_eq!(count, 10);
}

#[test]
fn page_views_is_explained_as_a_dedup_and_a_windowed_count() {
    let planned = plan(include_str!("../../../../jobs/page_views.sql"));
    let explained = explain(&planned);
    assert_eq!(explained, include_str!("page_views.explain"), "{explained}");
}

#[test]
fn a_plan_survives_the_log() {
    let planned = plan(include_str!("../../../../jobs/page_views.sql"));
    let text = serde_json::to_string(&planned.plan).expect("serialise");
    let back: JobPlan = serde_json::from_str(&text).expect("deserialise");
    assert_eq!(back, planned.plan);
}
