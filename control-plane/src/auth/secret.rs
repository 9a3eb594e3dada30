//! What a token looks like: `segue_<id>_<secret>`. The beginning lets scanners of repositories and logs find one that was
//! lost; the id says whose it is without saying the secret.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::ids::{self, NoRandomness};

/// What every token begins with.
const MARK: &str = "segue_";

/// Characters of an id (80 bits) and of a secret (260 bits).
const ID_LEN: usize = 16;
const SECRET_LEN: usize = 52;

/// Hex SHA-256 of a whole token. A secret of 260 random bits needs no slow hash: nobody can try them.
pub(crate) fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
pub(crate) fn is_same(stored: &str, hash: &str) -> bool {
    stored.as_bytes().ct_eq(hash.as_bytes()).into()
}

/// A new id.
pub(crate) fn new_id() -> Result<String, NoRandomness> {
    ids::other()
}

/// A new token with that id. It is shown once and never stored.
pub(crate) fn make(id: &str) -> Result<String, NoRandomness> {
    Ok(format!("{MARK}{id}_{}", ids::secret()?))
}

/// The id in a token; `None`: it is none that was made here.
pub(crate) fn id(token: &str) -> Option<&str> {
    let (id, secret) = token.strip_prefix(MARK)?.split_once('_')?;
    (ids::is_spelled(id, ID_LEN) && ids::is_spelled(secret, SECRET_LEN)).then_some(id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hash_is_sha256_in_hex() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_token_says_its_id_and_what_is_none_says_nothing() {
        let wanted = new_id().unwrap();
        let token = make(&wanted).unwrap();
        assert_eq!(id(&token), Some(wanted.as_str()));
        assert_ne!(make(&wanted).unwrap(), token);
        let (without, upper) = (token.replace(MARK, ""), token.to_uppercase());
        for wrong in
            ["", "segue_", "segue__", "segue_a_b", &without, &upper, &token[..token.len() - 1], &format!("{token}a")]
        {
            assert_eq!(id(wrong), None, "{wrong}");
        }
    }
}
