//! Every expression under `deploy/`: of alerts and of dashboards, and the metrics and labels that it names.
//!
//! Called by the end-to-end test of metrics, and tested here against the catalogue alone. The reader knows as much of the language as it
//! takes to find names; whether an expression is well formed `promtool` says, where it is at hand.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

/// An expression and the file that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// The file's name.
    pub file: String,
    /// As Prometheus reads it.
    pub text: String,
}

/// A metric that an expression asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// With its suffix.
    pub metric: String,
    /// The labels by which it is narrowed down.
    pub labels: BTreeSet<String>,
}

/// Words behind which labels stand in parentheses.
const GROUPINGS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// The rules for alerts.
pub fn rules_file() -> PathBuf {
    deploy().join("prometheus/rules/millstream.yml")
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// All of them.
pub fn expressions() -> anyhow::Result<Vec<Expression>> {
    let rules = std::fs::read_to_string(rules_file()).context("read the rules")?;
    let mut found = of_rules(&rules);
    for entry in std::fs::read_dir(deploy().join("grafana/dashboards"))? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        let board: Value = serde_json::from_str(&text).with_context(|| format!("{path:?}"))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        collect(&board, &name, &mut found);
    }
    Ok(found)
}

/// `expr: ...`, or folded over the lines below that stand further in.
fn of_rules(text: &str) -> Vec<Expression> {
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(first) = line.trim_start().strip_prefix("expr: ") else {
            continue;
        };
        let depth = |line: &str| line.len() - line.trim_start().len();
        let mut parts = vec![first];
        if first == ">-" {
            parts.clear();
            while let Some(more) = lines.next_if(|next| depth(next) > depth(line)) {
                parts.push(more.trim());
            }
        }
        found.push(Expression {
            file: "millstream.yml".to_owned(),
            text: parts.join(" "),
        });
    }
    found
}

/// Whatever is called `expr` in a dashboard, and the queries of its variables.
fn collect(value: &Value, file: &str, found: &mut Vec<Expression>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                match inner {
                    Value::String(text) if name == "expr" || name == "definition" => {
                        found.push(Expression {
                            file: file.to_owned(),
                            text: text.clone(),
                        });
                    }
                    inner => collect(inner, file, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, file, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Expression {
    /// The metrics that it asks for.
    pub fn asked(&self) -> Vec<Asked> {
        let words = words(&self.text);
        let mut asked = Vec::new();
        for (index, word) in words.iter().enumerate() {
            if word == "up" || word.starts_with("millstream_") {
                let braced = words.get(index + 1).is_some_and(|next| next == "{");
                let inside = words.iter().skip(index + 2).take_while(|word| *word != "}");
                let labels = inside.filter(|word| braced && is_name(word));
                asked.push(Asked {
                    metric: word.clone(),
                    labels: labels.cloned().collect(),
                });
            }
        }
        asked
    }

    /// The labels by which it groups or joins.
    pub fn grouped(&self) -> BTreeSet<String> {
        let words = words(&self.text);
        let mut labels = BTreeSet::new();
        for (index, word) in words.iter().enumerate() {
            let opens = words.get(index + 1).is_some_and(|next| next == "(");
            if GROUPINGS.contains(&word.as_str()) && opens {
                let inside = words.iter().skip(index + 2).take_while(|word| *word != ")");
                labels.extend(inside.filter(|word| is_name(word)).cloned());
            }
        }
        labels
    }

    /// Nothing but what `labels_of` knows is asked for.
    pub fn check(
        &self,
        labels_of: impl Fn(&str) -> Option<BTreeSet<String>>,
    ) -> anyhow::Result<()> {
        let Self { file, text } = self;
        let asked = self.asked();
        ensure!(!asked.is_empty(), "{file}: no metric in {text}");
        // Of the scrape itself.
        let mut all = BTreeSet::from(["instance".to_owned(), "le".to_owned()]);
        for each in asked {
            let metric = &each.metric;
            let known = match metric.as_str() {
                "up" => BTreeSet::from(["job".to_owned()]),
                _ => labels_of(metric).with_context(|| format!("{file}: no {metric}: {text}"))?,
            };
            for label in &each.labels {
                ensure!(
                    known.contains(label),
                    "{file}: {metric} has no {label}: {text}"
                );
            }
            all.extend(known);
        }
        for label in self.grouped() {
            ensure!(all.contains(&label), "{file}: nothing has {label}: {text}");
        }
        Ok(())
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
}

/// Names, numbers and signs; without what stands in quotes.
fn words(text: &str) -> Vec<String> {
    let is_inside = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut words: Vec<String> = Vec::new();
    let mut letters = text.chars();
    let mut goes_on = false;
    while let Some(letter) = letters.next() {
        if letter == '"' {
            // No quote stands within quotes here.
            letters.by_ref().find(|letter| *letter == '"');
            goes_on = false;
        } else if is_inside(letter) {
            match words.last_mut().filter(|_| goes_on) {
                Some(word) => word.push(letter),
                None => words.push(letter.to_string()),
            }
            goes_on = true;
        } else {
            if !letter.is_whitespace() {
                words.push(letter.to_string());
            }
            goes_on = false;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use millstream_common::metrics::Kind;
    use millstream_common::metrics::catalogue::METRICS;

    use super::*;

    fn expression(text: &str) -> Expression {
        Expression {
            file: "x".to_owned(),
            text: text.to_owned(),
        }
    }

    fn catalogue(name: &str) -> Option<BTreeSet<String>> {
        let suffixes = ["_bucket", "_sum", "_count"];
        let metric = METRICS.iter().find(|metric| match metric.kind {
            Kind::Histogram => suffixes
                .iter()
                .any(|suffix| name.strip_suffix(suffix) == Some(metric.name)),
            _ => metric.exposed() == name,
        });
        Some(metric?.labels.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        let found = expression(
            "sum by (job, le) (rate(millstream_a_total{job=\"up{x}\", code!~\"b|c\"}[5m])) > up",
        );
        let labels = BTreeSet::from(["code".to_owned(), "job".to_owned()]);
        let asked = found.asked();
        assert_eq!(
            (asked[0].metric.as_str(), &asked[0].labels),
            ("millstream_a_total", &labels)
        );
        assert_eq!((asked[1].metric.as_str(), asked.len()), ("up", 2));
        assert_eq!(found.grouped().len(), 2);
        let folded = "- expr: 1\n  expr: >-\n    a\n    + b\n  for: 1m\n";
        assert_eq!(
            of_rules(folded),
            [expression("a + b")].map(|found| Expression {
                file: "millstream.yml".to_owned(),
                ..found
            })
        );
    }

    #[test]
    fn what_is_not_exposed_is_found_out() {
        for wrong in [
            "millstream_nothing > 1",
            "sum(millstream_job_state{worker=\"a\"})",
            "sum by (split) (millstream_job_epoch)",
            "rate(millstream_epoch_duration_seconds[1m])",
            "vector(1)",
        ] {
            assert!(expression(wrong).check(catalogue).is_err(), "{wrong}");
        }
    }

    #[test]
    fn alerts_and_dashboards_ask_for_what_is_exposed_and_leave_nothing_out() {
        let all = expressions().expect("they read");
        let mut asked = BTreeSet::new();
        for each in &all {
            each.check(catalogue).expect("known");
            asked.extend(each.asked().into_iter().map(|asked| asked.metric));
        }
        // What can be scraped can be seen.
        let unseen = METRICS.iter().filter(|metric| {
            let name = metric.exposed();
            !asked.iter().any(|asked| asked.starts_with(&name))
        });
        let unseen: Vec<_> = unseen.map(|metric| metric.name).collect();
        assert_eq!(unseen, ["millstream_master_term", "millstream_sink_epoch"]);
    }

    #[test]
    fn rules_read_where_promtool_is_at_hand() {
        let checked = Command::new("promtool")
            .args(["check", "rules"])
            .arg(rules_file())
            .output();
        match checked {
            Ok(output) => assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => eprintln!("promtool: {error}; the rules were only read for names"),
        }
    }
}
