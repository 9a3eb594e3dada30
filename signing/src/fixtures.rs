//! Keys, and tickets minted by other libraries with them, that the tests of this crate share.
#![allow(clippy::unwrap_used, reason = "a fixture that does not build fails the test")]

use crate::{Key, Keyring, SigningSecret};

pub(crate) const TEXT: &str = "correct horse battery staple, at full length";
pub(crate) const HEX: &str = "hex:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A time at which every ticket below is valid, and the time at which it expires.
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const EXP: i64 = 2_000_000_000;

/// PyJWT 2.15.1, `jwt.encode(claims, TEXT, algorithm="HS256", headers={"kid": "k1"})` with all claims of the contract.
pub(crate) const PYJWT_ALL_CLAIMS: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJleHAiOjIwMDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwLCJwYXRoIjoiL2hscy9hYWFhYmJiYmNjY2MvIiwic2lkIjoicy0xIiwic3ViIjoibGlzdGVuZXItNyIsImlwIjoiMTkyLjAuMi4wLzI0IiwibGltIjoiZnJlZSIsInJlbmV3X3VudGlsIjoyMDAwMDAzNjAwLCJjdHgiOnsicGxhbiI6ImdvbGQifX0.7X98lk5yl4NdSPAvDwrVKT8ZaZWZrUcxdkhd5xDvqkg";

/// PyJWT 2.15.1: as above, with `iss` and `aud` beside them and `ctx` = {"plan": "gold", "n": [1, 2]}.
pub(crate) const PYJWT_MORE_CLAIMS: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJleHAiOjIwMDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwLCJwYXRoIjoiL2hscy9hYWFhYmJiYmNjY2MvIiwic2lkIjoicy0xIiwic3ViIjoibGlzdGVuZXItNyIsImlwIjoiMTkyLjAuMi4wLzI0IiwibGltIjoiZnJlZSIsInJlbmV3X3VudGlsIjoyMDAwMDAzNjAwLCJjdHgiOnsicGxhbiI6ImdvbGQiLCJuIjpbMSwyXX0sImlzcyI6InNob3AiLCJhdWQiOiJlZGdlIn0.PzcM-16Isx7bK_nb_3ilPACsz0rlVYbmowxkyuG0a-Q";

/// PyJWT 2.15.1, key HEX as k2: exp 2000000000.75, nbf 1700000000.25, one whole path.
pub(crate) const PYJWT_FRACTIONS: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsyIiwidHlwIjoiSldUIn0.eyJleHAiOjIwMDAwMDAwMDAuNzUsIm5iZiI6MTcwMDAwMDAwMC4yNSwicGF0aCI6Ii9obHMvYWFhYWJiYmJjY2NjL21hc3Rlci5tM3U4In0.bjppQlnE8xHMMF1AIkYSpSRULDrQE18ZJVmbm4G1QtQ";

/// PyJWT 2.15.1, key TEXT as k1: the scope /hls/Füße 100%/, which PyJWT writes with \u escapes.
pub(crate) const PYJWT_UNICODE: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJleHAiOjIwMDAwMDAwMDAsInBhdGgiOiIvaGxzL0ZcdTAwZmNcdTAwZGZlIDEwMCUvIn0.EhHVWof0XOLZhiq88rrzpKY9FH6b__5zhp2dgaQ9yy0";

/// PyJWT 2.15.1, `algorithm="HS512"` with TEXT twice over as k1.
pub(crate) const PYJWT_HS512: &str = "eyJhbGciOiJIUzUxMiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJleHAiOjIwMDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwLCJwYXRoIjoiL2hscy9hYWFhYmJiYmNjY2MvIiwic2lkIjoicy0xIiwic3ViIjoibGlzdGVuZXItNyIsImlwIjoiMTkyLjAuMi4wLzI0IiwibGltIjoiZnJlZSIsInJlbmV3X3VudGlsIjoyMDAwMDAzNjAwLCJjdHgiOnsicGxhbiI6ImdvbGQiLCJuIjpbMSwyXX0sImlzcyI6InNob3AiLCJhdWQiOiJlZGdlIn0.RHQPQ06AKoxP2YoYS0tmzXyXvtVe1Qvk6yI22plx1QY4KBnHPEda88SGO29Yh3SNBIMI2vRtTGVRlXlwlcD8YA";

/// PyJWT 2.15.1, `algorithm="none"`, naming k1.
pub(crate) const PYJWT_NONE: &str = "eyJhbGciOiJub25lIiwia2lkIjoiazEiLCJ0eXAiOiJKV1QifQ.eyJleHAiOjIwMDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwLCJwYXRoIjoiL2hscy9hYWFhYmJiYmNjY2MvIiwic2lkIjoicy0xIiwic3ViIjoibGlzdGVuZXItNyIsImlwIjoiMTkyLjAuMi4wLzI0IiwibGltIjoiZnJlZSIsInJlbmV3X3VudGlsIjoyMDAwMDAzNjAwLCJjdHgiOnsicGxhbiI6ImdvbGQiLCJuIjpbMSwyXX0sImlzcyI6InNob3AiLCJhdWQiOiJlZGdlIn0.";

/// npm jose 6.2.17, `new SignJWT({path, sid})`, header {alg, kid: "k1"} without `typ`, key TEXT.
pub(crate) const JOSE_BARE: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIn0.eyJwYXRoIjoiL2hscy9hYWFhYmJiYmNjY2MvIiwic2lkIjoicy0yIiwiZXhwIjoyMDAwMDAwMDAwfQ.SAZXhqfYSUWHUCtT8qMnjBD7vSJ2kCxmPp8nBA_8phw";

/// npm jose 6.2.17, header {alg, kid: "k2", typ: "JWT"}, key HEX, with iat, nbf, sub and ctx.
pub(crate) const JOSE_TIMES: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsyIiwidHlwIjoiSldUIn0.eyJwYXRoIjoiL2hscy9hYWFhYmJiYmNjY2MvIiwic3ViIjoibGlzdGVuZXItNyIsImN0eCI6eyJwbGFuIjoiZ29sZCJ9LCJpYXQiOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoyMDAwMDAwMDAwfQ.HHMLj393wi2Clfunsm5OmfORxuWIeYu1a7elIUdXilM";

pub(crate) fn key(kid: &str, secret: &str) -> Key {
    Key { kid: kid.to_owned(), secret: SigningSecret::parse(secret).unwrap(), not_before: None, retire_at: None }
}

/// k1 with TEXT, k2 with HEX.
pub(crate) fn keyring() -> Keyring {
    Keyring::new(vec![key("k1", TEXT), key("k2", HEX)]).unwrap()
}
