//! Bytes from the kernel as JSON text, without loss.
//!
//! Paths, arguments and names are bytes. Valid UTF-8 stays as it is. Each byte that is not part of valid UTF-8
//! is written `\xNN` (two lower-case hex digits). So that the way back is unambiguous, a backslash that stands
//! before `x` and two hex digits in the original is itself written `\x5c`; every other backslash stays alone.

use std::fmt::Write as _;

/// Lossless text of `bytes`.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.contains("\\x")
    {
        return text.to_owned();
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        push_valid(&mut out, chunk.valid());
        for byte in chunk.invalid() {
            push_hex(&mut out, *byte);
        }
    }
    out
}

/// The bytes that [`escape`] was given.
#[must_use]
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if let Some((byte, after)) = hex_escape(rest) {
            out.push(byte);
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

fn push_valid(out: &mut String, valid: &str) {
    for (at, character) in valid.char_indices() {
        match valid.as_bytes().get(at..) {
            Some(rest) if character == '\\' && hex_escape(rest).is_some() => push_hex(out, b'\\'),
            _ => out.push(character),
        }
    }
}

fn push_hex(out: &mut String, byte: u8) {
    // Writing into a String cannot fail.
    write!(out, "\\x{byte:02x}").ok();
}

/// `\xNN` at the start of `bytes`: its value and what follows.
fn hex_escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let ([b'\\', b'x', high, low], rest) = bytes.split_first_chunk::<4>()? else { return None };
    let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some((digit(*high)? << 4 | digit(*low)?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_and_plain_backslashes_stay() {
        assert_eq!(escape("grep '\\.rs' é".as_bytes()), "grep '\\.rs' é");
        assert_eq!(escape(b"a\xff/b"), "a\\xff/b");
        assert_eq!(escape(b"\\x41"), "\\x5cx41");
        assert_eq!(escape(b"\\xzz"), "\\xzz");
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'f')], 0..64)) {
            prop_assert_eq!(unescape(&escape(&bytes)), bytes);
        }
    }
}
