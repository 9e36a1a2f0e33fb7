//! The bytes of one object, in pieces: what is to be stored is not copied into one piece of memory first.
//!
//! Made by `ipc.rs`, taken by [`Store::create_pieces`](super::Store::create_pieces). Pieces that are small are gathered. Pure; cannot
//! fail.

use std::mem::take;

use bytes::Bytes;

/// A piece below this is copied to its neighbours: a call of its own would cost more.
const OWN_PIECE_FROM_BYTES: usize = 16 << 10;

/// Bytes in order. Equal if the bytes are, wherever they are parted.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    pieces: Vec<Bytes>,
    byte_count: usize,
}

impl Pieces {
    /// How many bytes they are.
    pub fn len(&self) -> usize {
        self.byte_count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.byte_count == 0
    }

    /// The pieces, in order; none is empty.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// All of them as one; copies unless it is one piece.
    pub fn whole(&self) -> Bytes {
        match &self.pieces[..] {
            [piece] => piece.clone(),
            _ => Bytes::from(self.to_vec()),
        }
    }

    /// A copy.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.byte_count);
        for piece in &self.pieces {
            bytes.extend_from_slice(piece);
        }
        bytes
    }
}

impl From<Bytes> for Pieces {
    fn from(piece: Bytes) -> Self {
        let mut pieces = PieceGatherer::default();
        pieces.push(piece);
        pieces.finish()
    }
}

impl PartialEq<[u8]> for Pieces {
    fn eq(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let are_alike = self.pieces.iter().all(|piece| {
            let stripped = rest.strip_prefix(&piece[..]);
            rest = stripped.unwrap_or(rest);
            stripped.is_some()
        });
        are_alike && rest.is_empty()
    }
}

/// Takes what an encoder hands out, one after another.
#[derive(Debug, Default)]
pub struct PieceGatherer {
    pieces: Pieces,
    small: Vec<u8>,
}

impl PieceGatherer {
    /// The next bytes; kept as they are if they are many.
    pub fn add<B: AsRef<[u8]> + Send + 'static>(&mut self, bytes: B) {
        if bytes.as_ref().len() < OWN_PIECE_FROM_BYTES {
            self.small.extend_from_slice(bytes.as_ref());
            return;
        }
        self.close();
        self.push(Bytes::from_owner(bytes));
    }

    /// Nothing follows.
    pub fn finish(mut self) -> Pieces {
        self.close();
        self.pieces
    }

    fn close(&mut self) {
        let small = take(&mut self.small);
        self.push(Bytes::from(small));
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.byte_count += piece.len();
            self.pieces.pieces.push(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_small_is_gathered_and_what_is_large_is_not_copied() {
        let large = vec![7_u8; OWN_PIECE_FROM_BYTES];
        let place = large.as_ptr();
        let mut gatherer = PieceGatherer::default();
        gatherer.add(vec![1_u8]);
        gatherer.add(vec![2_u8, 3]);
        gatherer.add(large);
        gatherer.add(vec![]);
        gatherer.add(vec![4_u8]);
        let pieces = gatherer.finish();
        let lengths: Vec<usize> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [3, OWN_PIECE_FROM_BYTES, 1]);
        let kept = pieces.iter().nth(1).expect("the large one");
        assert_eq!(kept.as_ptr(), place);
        assert_eq!(pieces.len(), OWN_PIECE_FROM_BYTES + 4);
        let whole = pieces.whole();
        assert_eq!((whole[0], whole[3], whole[whole.len() - 1]), (1, 7, 4));
    }

    #[test]
    fn pieces_are_equal_to_their_bytes_and_to_no_others() {
        let mut gatherer = PieceGatherer::default();
        gatherer.add(vec![1_u8]);
        gatherer.add(vec![7_u8; OWN_PIECE_FROM_BYTES]);
        let pieces = gatherer.finish();
        let mut bytes = pieces.to_vec();
        assert!(pieces == bytes[..]);
        assert!(pieces != bytes[..bytes.len() - 1]);
        bytes.push(7);
        assert!(pieces != bytes[..]);
        bytes.pop();
        bytes[5] = 8;
        assert!(pieces != bytes[..]);
    }
}
