//! The tables of all pages: each scrolls within the page, is reached by the keyboard, and has a name for those who hear it. Pure.

use maud::{Markup, html};

/// A table around its rows.
pub(super) struct Table<'a> {
    region: Region<'a>,
    caption: &'a str,
    columns: Vec<Column>,
    class: Option<&'a str>,
    is_tall: bool,
}

/// What the region that scrolls is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Region<'a> {
    /// As the heading of that id.
    Heading(&'a str),
    /// So.
    Name(&'a str),
}

/// A column by its head.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    /// Words, from the left.
    Text(&'static str),
    /// Figures, to the right.
    Number(&'static str),
}

impl<'a> Table<'a> {
    /// With a caption that only those hear who do not see the table.
    pub(super) fn new(
        region: Region<'a>,
        caption: &'a str,
        columns: impl IntoIterator<Item = Column>,
    ) -> Self {
        Self {
            region,
            caption,
            columns: columns.into_iter().collect(),
            class: None,
            is_tall: false,
        }
    }

    /// Of a style of its own.
    pub(super) fn class(self, class: &'a str) -> Self {
        Self {
            class: Some(class),
            ..self
        }
    }

    /// Scrolls downwards too: it has many rows, and something comes behind it.
    pub(super) fn tall(self) -> Self {
        Self {
            is_tall: true,
            ..self
        }
    }

    /// The table, with these in its body.
    pub(super) fn around(&self, rows: Markup) -> Markup {
        let (heading, name) = match self.region {
            Region::Heading(id) => (Some(id), None),
            Region::Name(name) => (None, Some(name)),
        };
        html! {
            div.scroll.tall[self.is_tall] tabindex="0" role="region" aria-labelledby=[heading] aria-label=[name] {
                table class=[self.class] {
                    caption.hidden { (self.caption) }
                    thead { tr { @for column in &self.columns { (column.head()) } } }
                    tbody { (rows) }
                }
            }
        }
    }
}

impl Column {
    fn head(self) -> Markup {
        match self {
            Self::Text(name) => html! { th scope="col" { (name) } },
            Self::Number(name) => html! { th.number scope="col" { (name) } },
        }
    }
}
