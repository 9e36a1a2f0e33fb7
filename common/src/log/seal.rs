//! A checksum in front of what the log and its boundaries hold: a bit that flips in JSON may well leave JSON.
//!
//! Used for each log object and boundary, written and read. The text behind the first line stays readable for people. Keeps
//! INV-8. Failure: bytes that were cut or changed are refused with the cause.

use bytes::Bytes;

use crate::mutant::{self, Mutant};

/// `body` behind a line with its CRC-32C.
pub(super) fn seal(body: &[u8]) -> Bytes {
    let mut sealed = format!("{:08x}\n", crc32c::crc32c(body)).into_bytes();
    sealed.extend_from_slice(body);
    Bytes::from(sealed)
}

/// What was sealed.
pub(super) fn unseal(sealed: &Bytes) -> Result<Bytes, String> {
    let length = sealed.iter().position(|byte| *byte == b'\n');
    let length = length.ok_or("it has no checksum")?;
    let body = sealed.slice(length + 1..);
    let found = format!("{:08x}", crc32c::crc32c(&body));
    match sealed[..length] == *found.as_bytes() || mutant::is(Mutant::SkipLogChecksum) {
        true => Ok(body),
        false => Err(format!(
            "its checksum is not {found}: it was cut or changed"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_cut_or_flipped_is_refused() {
        let sealed = seal(b"{\"term\":7}");
        assert_eq!(unseal(&sealed), Ok(Bytes::from_static(b"{\"term\":7}")));
        for place in 0..sealed.len() {
            assert!(unseal(&sealed.slice(..place)).is_err(), "cut at {place}");
            let mut flipped = sealed.to_vec();
            flipped[place] ^= 1;
            assert!(unseal(&Bytes::from(flipped)).is_err(), "flipped at {place}");
        }
    }
}
