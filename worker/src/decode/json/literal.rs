//! Literals: the bytes between two values of a record (`,"url": `), and whether they stand somewhere again.
//!
//! Owned by `layout.rs`. Most are as long as one or two words, so that two loads compare them without a loop, where comparing
//! slices would be a call. Pure.

use super::scan::skip_blanks;

/// Bytes in a word.
const WORD: usize = 8;

/// What came between two values.
#[derive(Debug)]
pub(super) struct Literal {
    bytes: Box<[u8]>,
    /// The first two words, as far as the literal goes.
    begin: [u64; 2],
    /// The bits of the two that are the literal's.
    masks: [u64; 2],
    /// The column that the key fills; [`Self::NO_COLUMN`] for a field that no column reads.
    column: usize,
    /// It leads up to the first value of a record, with the opening brace.
    opens: bool,
}

impl Literal {
    /// No row has a token with this number.
    const NO_COLUMN: usize = usize::MAX;

    pub(super) fn new(bytes: &[u8], column: Option<usize>) -> Self {
        let words = |bytes: &[u8]| {
            let fold = |word: u64, byte: &u8| word << 8 | u64::from(*byte);
            let word = |index| {
                bytes
                    .iter()
                    .skip(index * WORD)
                    .take(WORD)
                    .rev()
                    .fold(0, fold)
            };
            [word(0), word(1)]
        };
        Self {
            bytes: bytes.into(),
            begin: words(bytes),
            masks: words(&vec![u8::MAX; bytes.len()]),
            column: column.unwrap_or(Self::NO_COLUMN),
            opens: bytes.get(skip_blanks(bytes, 0)) == Some(&b'{'),
        }
    }

    #[inline]
    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    /// The number of the token that the key fills: beyond all of them where no column reads it.
    #[inline]
    pub(super) fn token_index(&self) -> usize {
        self.column
    }

    /// The column that the key fills.
    pub(super) fn column(&self) -> Option<usize> {
        (self.column != Self::NO_COLUMN).then_some(self.column)
    }

    /// Whether it stands at `at`, which is 0 where a record begins: what opens a record stands nowhere else.
    #[inline]
    pub(super) fn stands_at(&self, bytes: &[u8], at: usize) -> bool {
        if self.opens != (at == 0) {
            return false;
        }
        let rest = bytes.get(at..);
        let Some(chunk) = rest.and_then(|rest| rest.first_chunk::<{ 2 * WORD }>()) else {
            return self.stands_near_end(bytes, at);
        };
        let ([first, second], []) = chunk.as_chunks::<WORD>() else {
            return false;
        };
        let differing = |index: usize, word: &[u8; WORD]| {
            (u64::from_le_bytes(*word) ^ self.begin[index]) & self.masks[index]
        };
        differing(0, first) | differing(1, second) == 0
            && (self.bytes.len() <= 2 * WORD || bytes[at..].starts_with(&self.bytes))
    }

    /// The same where fewer than two words are left.
    #[inline(never)]
    fn stands_near_end(&self, bytes: &[u8], at: usize) -> bool {
        bytes.get(at..).unwrap_or_default().starts_with(&self.bytes)
    }
}
