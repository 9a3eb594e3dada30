//! Identifiers: random, lower-case base32, short enough to read aloud and safe in a path.

/// RFC 4648, section 6, in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Length of a track id: 60 random bits, so that a million tracks collide with a chance of about 4 in ten million
/// (and a collision is an error of the insert, never a mix of two tracks).
const TRACK_LEN: usize = 12;

/// The operating system has no randomness to give; nothing can be named or signed.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub(crate) struct NoRandomness(getrandom::Error);

impl From<getrandom::Error> for NoRandomness {
    fn from(error: getrandom::Error) -> Self {
        Self(error)
    }
}

/// A new track id: 12 characters.
pub(crate) fn track() -> Result<String, NoRandomness> {
    random_text(TRACK_LEN)
}

/// A new job, upload or session id: 16 characters, 80 bits.
pub(crate) fn other() -> Result<String, NoRandomness> {
    random_text(16)
}

/// The secret of a token: 52 characters, 260 bits.
pub(crate) fn secret() -> Result<String, NoRandomness> {
    random_text(52)
}

/// Whether `text` is spelled as what is made here, `len` characters long.
pub(crate) fn is_spelled(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// Whether `text` could be a track id; anything else is not found without asking the database.
pub(crate) fn is_track(text: &str) -> bool {
    is_spelled(text, TRACK_LEN)
}

fn random_text(len: usize) -> Result<String, NoRandomness> {
    let mut bytes = vec![0u8; len];
    getrandom::fill(&mut bytes)?;
    Ok(spell(&bytes))
}

/// One character for the low five bits of each byte.
pub(crate) fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_id_is_a_track_id_and_two_differ() {
        let (a, b) = (track().unwrap(), track().unwrap());
        assert!(is_track(&a) && is_track(&b), "{a} {b}");
        assert_ne!(a, b);
    }

    #[test]
    fn what_is_no_id_is_told_apart() {
        for wrong in ["", "abc", "ABCDEFGHIJKL", "abcdefghijk1", "abcdefghijklm", "../../../etc", "abcdefghij/l"] {
            assert!(!is_track(wrong), "{wrong}");
        }
    }
}
