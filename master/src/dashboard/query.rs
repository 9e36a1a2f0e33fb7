//! What the address of a page asks for: a filter, a page of a long list. Whatever it says, there is an answer. Pure.

use url::form_urlencoded;

/// Names and values behind the `?` of an address; empty ones are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let pairs = pairs.filter(|(_, value)| !value.is_empty());
        Self(
            pairs
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        let found = pairs.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Counted from 1.
    pub(super) fn page(&self) -> usize {
        let asked = self.get("page").and_then(|page| page.parse().ok());
        asked.unwrap_or(1).max(1)
    }

    /// The same address with one value set, or taken out; another filter begins with its first page.
    pub(super) fn with(&self, name: &str, value: Option<&str>) -> String {
        let kept = self
            .0
            .iter()
            .filter(|(known, _)| known != name && known != "page");
        let mut query = form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
        query.extend_pairs(kept);
        if let Some(value) = value {
            query.append_pair(name, value);
        }
        query.finish()
    }

    /// The same address at another page.
    pub(super) fn at_page(&self, page: usize) -> String {
        self.with("page", Some(&page.to_string()))
    }
}

/// One page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paging {
    /// Counted from 1; a page behind the last one is the last one.
    pub(super) page: usize,
    /// How many there are; at least 1.
    pub(super) pages: usize,
    /// Entries before this page.
    pub(super) skipped: usize,
    /// Entries of a page.
    pub(super) size: usize,
}

impl Paging {
    pub(super) fn of(query: &Query, count: usize, size: usize) -> Self {
        let pages = count.div_ceil(size).max(1);
        let page = query.page().min(pages);
        Self {
            page,
            pages,
            skipped: (page - 1) * size,
            size,
        }
    }
}

/// A text as one part of a path.
pub(super) fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                segment.push(byte.into())
            }
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_keeps_the_others_and_begins_with_the_first_page() {
        let query = Query::parse(Some("state=failed&q=&page=7"));
        assert_eq!(query.page(), 7);
        assert_eq!(query.get("q"), None, "empty is none");
        assert_eq!(query.with("q", Some("a b&c")), "?state=failed&q=a+b%26c");
        assert_eq!(query.with("state", None), "?");
        assert_eq!(query.at_page(8), "?state=failed&page=8");
    }

    #[test]
    fn a_page_that_is_not_there_is_the_nearest_that_is() {
        let paging = |page: &str, count| Paging::of(&Query::parse(Some(page)), count, 100);
        assert_eq!((paging("page=0", 5).page, paging("page=-", 5).page), (1, 1));
        let last = paging("page=99999", 250);
        assert_eq!((last.page, last.pages, last.skipped), (3, 3, 200));
        assert_eq!(paging("", 0).pages, 1);
    }

    #[test]
    fn a_name_is_one_segment_of_a_path_whatever_its_characters() {
        assert_eq!(path_segment("clicks-1_a"), "clicks-1_a");
        assert_eq!(path_segment("a/b?<é>"), "a%2Fb%3F%3C%C3%A9%3E");
    }
}
