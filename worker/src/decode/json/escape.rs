//! Escapes inside JSON strings.

/// Writes the string whose inside (between the quotes) is `source` to `target`, which is emptied first.
/// `source` has passed [`super::scan::string`]: its escapes are known to be right.
pub(in crate::decode) fn resolve(source: &str, target: &mut String) {
    target.clear();
    let mut rest = source;
    while let Some(index) = memchr::memchr(b'\\', rest.as_bytes()) {
        target.push_str(&rest[..index]);
        let (character, length) = character(&rest.as_bytes()[index + 1..]);
        target.push(character);
        rest = &rest[index + 1 + length..];
    }
    target.push_str(rest);
}

/// The same for bytes that are known to be UTF-8; how many it wrote to the beginning of `target`, which has room for as many as there are
/// and one character. What an escape stands for is never longer than the escape.
pub(in crate::decode) fn resolve_bytes(source: &[u8], target: &mut [u8]) -> usize {
    let mut rest = source;
    let mut written = 0;
    while let Some(index) = memchr::memchr(b'\\', rest) {
        target[written..written + index].copy_from_slice(&rest[..index]);
        written += index;
        let (character, length) = character(&rest[index + 1..]);
        written += character.encode_utf8(&mut target[written..]).len();
        rest = &rest[index + 1 + length..];
    }
    target[written..written + rest.len()].copy_from_slice(rest);
    written + rest.len()
}

/// The character that an escape (without its backslash) stands for, and the bytes it takes.
fn character(escape: &[u8]) -> (char, usize) {
    match escape.first() {
        Some(b'b') => ('\u{8}', 1),
        Some(b'f') => ('\u{c}', 1),
        Some(b'n') => ('\n', 1),
        Some(b'r') => ('\r', 1),
        Some(b't') => ('\t', 1),
        Some(b'u') => unicode(escape),
        Some(&other) => (char::from(other), 1),
        None => (char::REPLACEMENT_CHARACTER, 0),
    }
}

/// `uXXXX`, or `uXXXX\uXXXX` for a character outside the basic plane.
fn unicode(escape: &[u8]) -> (char, usize) {
    let first = hex(escape.get(1..5)).unwrap_or(0);
    if let Some(single) = char::from_u32(first) {
        return (single, 5);
    }
    let second = hex(escape.get(7..11)).unwrap_or(0);
    let code = 0x1_0000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
    (
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
        11,
    )
}

/// The number that four hexadecimal digits are.
pub(in crate::decode) fn hex(digits: Option<&[u8]>) -> Option<u32> {
    let mut number = 0;
    for &digit in digits? {
        number = number * 16 + char::from(digit).to_digit(16)?;
    }
    Some(number)
}
