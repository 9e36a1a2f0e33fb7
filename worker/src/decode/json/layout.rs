//! Layout prediction: producers write the keys of a topic's records in the same order with the same spacing.
//!
//! Owned by `walk.rs`. Remembers the bytes between values (`,"url": `) as seen before; where the next bytes are
//! the same, which one comparison tells, the key need not be read. A layout is only a list of such literals, each
//! parsed properly once in the same grammatical place, so that a wrong guess costs time and never the result.
//! Memory is bounded by [`LITERALS_MAX`] and [`LITERAL_BYTES_MAX`].

/// How many literals are remembered: some dozens of keys, or a few orders of a dozen.
const LITERALS_MAX: usize = 128;

/// Longer keys are read each time.
const LITERAL_BYTES_MAX: usize = 256;

/// How far ahead of the expected key to look: over optional fields that a record lacks.
const LOOK_AHEAD: usize = 8;

/// Learning stops while more than one key in four is a surprise.
const SURPRISES_ALLOWED: u32 = 1_024;

/// What came between values, in order.
#[derive(Debug, Default)]
pub(super) struct Layout {
    literals: Vec<Literal>,
    /// The literal expected next.
    next: usize,
    surprises: u32,
}

#[derive(Debug)]
struct Literal {
    bytes: Box<[u8]>,
    /// The column that the key fills; `None` for a field that no column reads.
    column: Option<usize>,
    /// The first of a record, with its opening brace.
    opens: bool,
}

impl Literal {
    /// Whether `rest` begins with it, and with a value behind it: of two literals that differ in the blanks behind the colon one is
    /// the beginning of the other.
    #[inline]
    fn leads_up_to_a_value(&self, rest: &[u8]) -> bool {
        let Some(value) = rest.strip_prefix(&*self.bytes) else {
            return false;
        };
        !matches!(value.first(), Some(b' ' | b'\t' | b'\n' | b'\r'))
    }
}

/// A key known from its bytes alone.
pub(super) struct Predicted {
    pub(super) column: Option<usize>,
    /// How many bytes lead up to the value.
    pub(super) length: usize,
}

impl Layout {
    /// A record begins.
    #[inline]
    pub(super) fn restart(&mut self) {
        self.next = 0;
    }

    /// The key that `rest` begins with, if it is among the next ones; `opens` at the start of a record.
    #[inline]
    pub(super) fn predict(&mut self, rest: &[u8], opens: bool) -> Option<Predicted> {
        for (ahead, literal) in self
            .literals
            .iter()
            .skip(self.next)
            .take(LOOK_AHEAD)
            .enumerate()
        {
            if literal.opens == opens && literal.leads_up_to_a_value(rest) {
                self.next += ahead + 1;
                self.surprises = self.surprises.saturating_sub(1);
                return Some(Predicted {
                    column: literal.column,
                    length: literal.bytes.len(),
                });
            }
        }
        None
    }

    /// Remembers `bytes`, which led up to a value of `column`, as what comes next here.
    pub(super) fn learn(&mut self, bytes: &[u8], column: Option<usize>, opens: bool) {
        self.surprises = self.surprises.saturating_add(4);
        if self.surprises > SURPRISES_ALLOWED || bytes.len() > LITERAL_BYTES_MAX {
            self.surprises = self.surprises.min(2 * SURPRISES_ALLOWED);
            return;
        }
        if self.literals.len() >= LITERALS_MAX {
            self.literals.clear();
            self.next = 0;
        }
        let literal = Literal {
            bytes: bytes.into(),
            column,
            opens,
        };
        self.next = self.next.min(self.literals.len());
        self.literals.insert(self.next, literal);
        self.next += 1;
    }
}
