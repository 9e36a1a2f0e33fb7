//! The short way into a column: values of the kinds that it is made for, whose type is decided once for a run of rows.
//!
//! Called by `columns.rs`, which appends what is left here the general way. Each of these conversions is one that the general way
//! tries first too, so that the result is the same (a property test compares them). Failure: none; a run ends at a value of another
//! kind, at one that does not convert, and at a NULL that is not allowed.

use arrow::array::{BooleanBuilder, PrimitiveBuilder};
use arrow::datatypes::ArrowPrimitiveType;

use super::builder::Builder;
use super::columns::Block;
use super::convert::{number, time};
use super::texts::Texts;
use super::token::{Token, TokenKind};

/// Values that are appended together, which costs about as much as one alone.
const RUN_VALUES: usize = 32;

/// The values of one column in the rows of a block.
#[derive(Clone, Copy)]
struct Values<'a> {
    block: &'a Block<'a>,
    token_index: usize,
    first_row: usize,
}

impl<'a> Values<'a> {
    #[inline]
    fn iter(self) -> impl Iterator<Item = (Token, &'a [u8])> {
        let Block {
            texts,
            tokens,
            width,
            ..
        } = *self.block;
        let tokens = tokens[self.first_row * width..].chunks_exact(width);
        let tokens = tokens.map(move |row| row[self.token_index]);
        tokens.zip(texts[self.first_row..].iter().copied())
    }
}

impl Builder {
    /// Appends the values of the rows from `first_row` on as long as they are what is expected; how many were.
    pub(super) fn append_expected(
        &mut self,
        block: &Block<'_>,
        token_index: usize,
        first_row: usize,
        nullable: bool,
    ) -> usize {
        let values = Values {
            block,
            token_index,
            first_row,
        };
        match self {
            Self::Boolean(builder) => fill_booleans(builder, values, nullable),
            Self::Int16(builder) => fill_numbers(builder, values, nullable, |text| {
                number::whole(text)?.try_into().ok()
            }),
            Self::Int32(builder) => fill_numbers(builder, values, nullable, |text| {
                number::whole(text)?.try_into().ok()
            }),
            Self::Int64(builder) => fill_numbers(builder, values, nullable, number::whole),
            Self::Float32(builder) => fill_numbers(builder, values, nullable, number::real),
            Self::Float64(builder) => fill_numbers(builder, values, nullable, number::double),
            Self::Decimal(builder, precision, scale) => {
                let (precision, scale) = (*precision, *scale);
                fill_numbers(builder, values, nullable, |text| {
                    number::scaled(text, precision, scale)
                })
            }
            Self::Text(texts) => fill_texts(texts, values, nullable),
            Self::Json(texts) => fill_json(texts, values, nullable),
            Self::Date(builder) => fill(builder, values, nullable, is_text, time::days),
            Self::Timestamp(builder, _) => fill(builder, values, nullable, is_text, time::instant),
            Self::Bytes(..) | Self::Time(_) => 0,
        }
    }
}

fn is_text(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::String | TokenKind::Field)
}

/// A number, or a text that may be one.
fn is_number(kind: TokenKind) -> bool {
    kind == TokenKind::Number || is_text(kind)
}

fn is_null(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Missing | TokenKind::Null)
}

#[inline]
fn fill_numbers<T: ArrowPrimitiveType>(
    builder: &mut PrimitiveBuilder<T>,
    values: Values<'_>,
    nullable: bool,
    read: impl Fn(&[u8]) -> Option<T::Native>,
) -> usize {
    fill(builder, values, nullable, is_number, read)
}

#[inline]
fn fill<T: ArrowPrimitiveType>(
    builder: &mut PrimitiveBuilder<T>,
    values: Values<'_>,
    nullable: bool,
    is_expected: impl Fn(TokenKind) -> bool,
    read: impl Fn(&[u8]) -> Option<T::Native>,
) -> usize {
    let mut count = 0;
    let mut run = [T::Native::default(); RUN_VALUES];
    let mut run_length = 0;
    for (token, text) in values.iter() {
        if is_expected(token.kind)
            && let Some(value) = read(token.inside(text))
        {
            if run_length == RUN_VALUES {
                builder.append_slice(&run);
                run_length = 0;
            }
            run[run_length] = value;
            run_length += 1;
        } else if nullable && is_null(token.kind) {
            builder.append_slice(&run[..run_length]);
            run_length = 0;
            builder.append_null();
        } else {
            break;
        }
        count += 1;
    }
    builder.append_slice(&run[..run_length]);
    count
}

fn fill_booleans(builder: &mut BooleanBuilder, values: Values<'_>, nullable: bool) -> usize {
    let mut count = 0;
    for (token, _) in values.iter() {
        match token.kind {
            TokenKind::True => builder.append_value(true),
            TokenKind::False => builder.append_value(false),
            TokenKind::Missing | TokenKind::Null if nullable => builder.append_null(),
            _ => break,
        }
        count += 1;
    }
    count
}

fn fill_texts(texts: &mut Texts, values: Values<'_>, nullable: bool) -> usize {
    let mut count = 0;
    for (token, text) in values.iter() {
        // Nearly always; asked first, because a jump by kind is predicted less well.
        if is_number(token.kind) {
            texts.push_part(text, token.start as usize, token.end as usize);
        } else if token.kind == TokenKind::Escaped {
            texts.push_escaped(token.inside(text));
        } else if nullable && is_null(token.kind) {
            texts.push_null();
        } else {
            break;
        }
        count += 1;
    }
    count
}

fn fill_json(texts: &mut Texts, values: Values<'_>, nullable: bool) -> usize {
    let mut count = 0;
    for (token, text) in values.iter() {
        match token.kind {
            TokenKind::Missing | TokenKind::Null if nullable => texts.push_null(),
            TokenKind::Missing | TokenKind::Null | TokenKind::Field => break,
            _ => {
                let written = token.written(text);
                texts.push_part(written, 0, written.len());
            }
        }
        count += 1;
    }
    count
}
