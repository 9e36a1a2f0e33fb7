//! Templates of made-up text: `user_{n:05}`, `{uniform:1:6}`, `{hex:8}`.
//!
//! Pure. Parsed by the planner to refuse what is none, and by the generator, which writes it for each row. Failure: a
//! placeholder that is none, with what may stand there.

/// Digits that a number may be padded to, or random digits in one go.
const DIGITS_MAX: usize = 64;

/// A parsed template.
#[derive(Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Stands as it is.
    Text(String),
    /// The row's number, with zeros in front to this width.
    Number(usize),
    /// A whole number between these two, which may be either.
    Uniform(i64, i64),
    /// So many random digits of base 16.
    Hex(usize),
}

impl Template {
    /// The pieces of `template`; the error quotes what is none.
    pub fn parse(template: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(start) = rest.find('{') {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let inside = &rest[start + 1..];
            let end = inside
                .find('}')
                .ok_or_else(|| format!("template {template:?} lacks a closing brace"))?;
            let part = placeholder(&inside[..end]).ok_or_else(|| {
                format!(
                    "template {template:?} has {{{}}}: write {{n}}, {{n:05}}, {{uniform:1:6}} or {{hex:8}}",
                    &inside[..end]
                )
            })?;
            parts.push(part);
            rest = &inside[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// In order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }
}

fn placeholder(text: &str) -> Option<Part> {
    let mut words = text.split(':');
    let part = match (words.next()?, words.next(), words.next()) {
        ("n", None, None) => Part::Number(0),
        ("n", Some(width), None) => Part::Number(digits(width)?),
        ("hex", Some(count), None) => Part::Hex(digits(count)?),
        ("uniform", Some(min), Some(max)) => {
            let (min, max) = (min.parse().ok()?, max.parse().ok()?);
            (min <= max).then_some(Part::Uniform(min, max))?
        }
        _ => return None,
    };
    words.next().is_none().then_some(part)
}

fn digits(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| *count <= DIGITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_placeholder_says_what_may_stand_there() {
        for template in ["{m}", "{n:x}", "{uniform:2:1}", "{hex:8:8}", "{hex:999}"] {
            let refused = Template::parse(template).expect_err(template);
            assert!(refused.contains("{hex:8}"), "{refused}");
        }
        assert!(Template::parse("{n").is_err());
    }
}
