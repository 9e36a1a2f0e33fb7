//! What a process says over HTTP, and its metrics as samples.
//!
//! Called by the end-to-end tests. The parser is a strict reading of OpenMetrics text, so that what it takes any scraper takes: a
//! sample belongs to the family whose `# TYPE` came last, families come once, and `# EOF` ends the text.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use millstream_common::http;
use millstream_common::net::TcpNet;

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// `HTTP/1.1 200 OK` and the headers.
    pub head: String,
    /// The rest.
    pub body: String,
}

/// GET of a path.
pub async fn get(address: &str, path: &str) -> anyhow::Result<Answer> {
    let text = http::ask(&TcpNet, address, &format!("GET {path}"), "").await?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer")?;
    Ok(Answer {
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// The samples of `/metrics`.
pub async fn metrics(address: &str) -> anyhow::Result<Samples> {
    let answer = get(address, "/metrics").await?;
    ensure!(
        answer.head.starts_with("HTTP/1.1 200")
            && answer
                .head
                .contains("application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.head
    );
    parse(&answer.body)
}

/// The samples of one scrape.
#[derive(Debug, Default)]
pub struct Samples {
    samples: Vec<Sample>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// With its suffix.
    pub name: String,
    /// By name.
    pub labels: BTreeMap<String, String>,
    /// The number.
    pub value: f64,
}

impl Samples {
    /// The one sample of this name and these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        let mut found = self.samples.iter().filter(|sample| {
            let has = |(label, value): &(&str, &str)| {
                sample.labels.get(*label).map(String::as_str) == Some(*value)
            };
            sample.name == name && labels.iter().all(has)
        });
        let first = found
            .next()
            .with_context(|| format!("no {name}{labels:?}"))?;
        ensure!(found.next().is_none(), "{name}{labels:?} is there twice");
        Ok(first.value)
    }

    /// The names of the labels of a metric, if it is there.
    pub fn labels(&self, name: &str) -> Option<BTreeSet<String>> {
        let mut named = self.samples.iter().filter(|sample| sample.name == name);
        let labels = named.next()?.labels.keys();
        Some(labels.cloned().collect())
    }

    /// All names.
    pub fn names(&self) -> BTreeSet<&str> {
        self.samples
            .iter()
            .map(|sample| sample.name.as_str())
            .collect()
    }
}

/// Reads OpenMetrics text.
pub fn parse(text: &str) -> anyhow::Result<Samples> {
    let body = text.strip_suffix("# EOF\n").context("# EOF at the end")?;
    let mut parsed = Samples::default();
    let mut family: Option<(String, String)> = None;
    let mut families = BTreeSet::new();
    for line in body.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').context("a name and a type")?;
            ensure!(families.insert(name.to_owned()), "{name} comes twice");
            family = Some((name.to_owned(), kind.to_owned()));
        } else if !line.starts_with("# HELP ") && !line.starts_with("# UNIT ") {
            let sample = sample(line).with_context(|| format!("read {line:?}"))?;
            let (name, kind) = family.as_ref().context("a sample before any # TYPE")?;
            let suffix = sample.name.strip_prefix(name.as_str());
            let is_right = match kind.as_str() {
                "gauge" => suffix == Some(""),
                "counter" => suffix == Some("_total"),
                "info" => suffix == Some("_info"),
                "histogram" => matches!(suffix, Some("_sum" | "_count" | "_bucket")),
                other => bail!("no type is called {other}"),
            };
            ensure!(is_right, "{} stands in family {name}", sample.name);
            parsed.samples.push(sample);
        }
    }
    Ok(parsed)
}

fn sample(line: &str) -> anyhow::Result<Sample> {
    let (series, value) = line.rsplit_once(' ').context("a series and a value")?;
    let (name, labels) = match series.split_once('{') {
        None => (series, BTreeMap::new()),
        Some((name, rest)) => {
            let inside = rest.strip_suffix('}').context("} behind the labels")?;
            (name, labels(inside)?)
        }
    };
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    ensure!(is_name(name) && labels.keys().all(|label| is_name(label)));
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse()?,
    })
}

/// `a="x",b="y"`; quotes, backslashes and ends of lines are escaped.
fn labels(mut text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").context("=\" behind a label")?;
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let end = loop {
            match letters.next().context("\" behind a value")? {
                (index, '"') => break index,
                (_, '\\') => match letters.next().context("an escaped letter")?.1 {
                    'n' => value.push('\n'),
                    letter @ ('"' | '\\') => value.push(letter),
                    other => bail!("\\{other} is no escape"),
                },
                (_, letter) => value.push(letter),
            }
        };
        ensure!(labels.insert(name.to_owned(), value).is_none(), "{name}");
        text = rest[end + 1..].trim_start_matches(',');
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_a_scraper_would_refuse_is_refused() {
        let good = "# TYPE a counter\n# HELP a x\na_total{b=\"c\\\"d\"} 1.0\n# EOF\n";
        let parsed = parse(good).expect("good");
        assert_eq!(parsed.value("a_total", &[("b", "c\"d")]).expect("one"), 1.0);
        for bad in [
            "# TYPE a counter\na_total 1.0\n",
            "a_total 1.0\n# EOF\n",
            "# TYPE a counter\na 1.0\n# EOF\n",
            "# TYPE a gauge\na{b=c} 1.0\n# EOF\n",
            "# TYPE a gauge\n# TYPE a gauge\n# EOF\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
