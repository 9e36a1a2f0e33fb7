//! The bytes of a window that may end a field or a record, found sixty-four at a time.
//!
//! Walked by `plain.rs` from record to record. Marked are delimiters, quotes and line ends; what they mean there is for the caller to say.
//! Pure, in safe code that compilers make vector instructions of. Cannot fail.

/// Bytes looked at together: a word has a bit for each of them.
const BLOCK_BYTES: usize = 64;

/// A walk over the marked bytes of a window.
pub(super) struct Marks<'a> {
    window: &'a [u8],
    delimiter: u8,
    /// Where the block begins that is being walked.
    block: usize,
    /// Its marked bytes that were not passed yet, the lowest bit for the first byte.
    left: u64,
}

impl<'a> Marks<'a> {
    /// From the first byte of `window` on.
    pub(super) fn new(window: &'a [u8], delimiter: u8) -> Self {
        let mut marks = Self {
            window,
            delimiter,
            block: 0,
            left: 0,
        };
        marks.restart(0);
        marks
    }

    /// Goes on at `at`, which may not lie before a byte that was passed.
    #[inline]
    pub(super) fn seek(&mut self, at: usize) {
        if at - self.block >= BLOCK_BYTES {
            return self.restart(at);
        }
        self.left &= u64::MAX << (at - self.block);
    }

    /// Goes on at `at`, wherever the walk has come to.
    pub(super) fn restart(&mut self, at: usize) {
        self.block = at - at % BLOCK_BYTES;
        self.left = self.marked() & u64::MAX << (at % BLOCK_BYTES);
    }

    /// The next marked byte; `None` at the end of the window.
    #[inline]
    pub(super) fn next(&mut self) -> Option<usize> {
        while self.left == 0 {
            if self.window.len() - self.block <= BLOCK_BYTES {
                return None;
            }
            self.block += BLOCK_BYTES;
            self.left = self.marked();
        }
        let index = self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        Some(self.block + index)
    }

    /// The byte at `at`, which is marked.
    #[inline]
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.window[at]
    }

    /// The marked bytes of the block.
    #[inline]
    fn marked(&self) -> u64 {
        let rest = self.window.get(self.block..).unwrap_or_default();
        if let Some(block) = rest.first_chunk() {
            return marked(block, self.delimiter);
        }
        let mut block = [0; BLOCK_BYTES];
        block[..rest.len()].copy_from_slice(rest);
        // A delimiter of zero stands nowhere behind the end.
        marked(&block, self.delimiter) & ((1 << rest.len()) - 1)
    }
}

#[inline]
fn marked(block: &[u8; BLOCK_BYTES], delimiter: u8) -> u64 {
    /// Moves the lowest bits of eight bytes to the highest byte, the first byte's to its lowest bit.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut flags = [0_u8; BLOCK_BYTES];
    for (flag, byte) in flags.iter_mut().zip(block) {
        let is_end = *byte == delimiter || *byte == b'\n' || *byte == b'\r';
        *flag = u8::from(is_end | (*byte == b'"'));
    }
    let mut marked = 0;
    for (index, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
        let bits = u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56;
        marked |= bits << (8 * index);
    }
    marked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all_from(marks: &mut Marks<'_>) -> Vec<usize> {
        std::iter::from_fn(|| marks.next()).collect()
    }

    proptest! {
        #[test]
        fn what_ends_something_is_marked_and_nothing_else(
            window in prop::collection::vec(prop_oneof![4 => Just(b'a'), 1 => any::<u8>(), 2 => prop::sample::select(b"\n\r\",;\0".to_vec())], 0..300),
            delimiter in prop::sample::select(b",;\t\0".to_vec()),
            cuts in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let is_marked = |at: &usize| [delimiter, b'\n', b'\r', b'"'].contains(&window[*at]);
            let expected: Vec<usize> = (0..window.len()).filter(is_marked).collect();
            let mut marks = Marks::new(&window, delimiter);
            prop_assert_eq!(&all_from(&mut marks), &expected);
            let (one, other) = (cuts.0.index(window.len() + 1), cuts.1.index(window.len() + 1));
            let (one, other) = (one.min(other), one.max(other));
            let behind = |from: usize| expected.iter().copied().filter(move |at| *at >= from).collect::<Vec<_>>();
            marks.restart(one);
            marks.seek(other);
            prop_assert_eq!(all_from(&mut marks), behind(other));
            marks.restart(one);
            prop_assert_eq!(all_from(&mut marks), behind(one));
        }
    }
}
