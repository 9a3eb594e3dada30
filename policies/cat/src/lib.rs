//! Common Access Tokens (CTA-5007): a CBOR Web Token (RFC 8392) in a COSE_Mac0 (RFC 9052) with HMAC-SHA256, base64url.
//!
//! Configuration: `keys = { key-2026 = "cat" }`, from the token's `kid` to the name of the secret in the edge's `[policies.keys]`; `kid`, the one
//! that signs; `issuers` and `audience`, lists (a token with `aud` is refused where no audience of it is listed; `iss` is looked at where
//! `issuers` is there). `base = "https://media.example.com"` is what clients connect to (without it: `https://` and the request's
//! host). `parameter = "CAT"` in the query; `place = "query"` (the default) or `"path"` for tokens that are made here: `/CAT=…/hls/…`, which relative
//! URIs inherit. A request is looked through in this order: header `CTA-Common-Access-Token`, cookie of that name, path, query.
//!
//! Held: `exp` (needed), `nbf`, `aud`, `iss`, `catv`, `catu` (exact, prefix, suffix, contains, SHA-256), `catm`, `cath`, `catnip` (addresses and networks),
//! `catgeoiso3166` (whole countries). Told to the edge: `sub` as the listener, `cti` as the session. Let be, since they only say what else
//! to answer: `iat`, `catif`, `catifdata`, `catr`. Whatever else a token asks for cannot be held here, and refuses it: `catreplay` other than
//! 0, `catpor`, `catalpn`, `cattpk`, `cnf`, `catdpop`, coordinates, regular expressions, and claims that nobody has heard of.
//!
//! `grant.scope` becomes a prefix of the path, without it the URL's own path is the only one; `grant.address` becomes `catnip`, `grant.session` `cti`.
//! `grant.options`: `sub`; `iss`; `aud`, `catm` and `catgeoiso3166`, with commas; `host = "exact"` binds to the URL's host.

mod cbor;
mod claims;
mod uri;

use std::collections::BTreeMap;

use segue_policy::scheme::{Claims, Grant, Moment, Refusal, Scheme, crypto, no_key, no_secret, request};
use segue_policy::text::{base64url, from_base64url, once, split_url, unescape};

use crate::cbor::Value;

const CARRIER: &str = "cta-common-access-token";

/// Tags of a CWT (RFC 8392, section 6) and of COSE_Mac0 (RFC 9052, section 2).
const CWT: u64 = 61;
const MAC0: u64 = 17;
/// Header parameters (RFC 9052, section 3.1) and HMAC 256/256 (RFC 9053, section 3.1).
const ALG: i64 = 1;
const CONTENT_TYPE: i64 = 3;
const KID: i64 = 4;
const HS256: i64 = 5;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Cat {
    keys: BTreeMap<String, String>,
    kid: Option<String>,
    #[serde(default)]
    issuers: Vec<String>,
    #[serde(default)]
    audience: Vec<String>,
    base: Option<String>,
    #[serde(default = "parameter")]
    parameter: String,
    #[serde(default)]
    place: Place,
}

#[derive(serde::Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Place {
    #[default]
    Query,
    Path,
}

fn parameter() -> String {
    "CAT".to_owned()
}

/// A token as a request carries it.
struct Shown {
    token: String,
    /// The path without it, as it stands in the request line.
    path: String,
    in_path: bool,
}

impl Cat {
    fn shown(&self) -> Result<Option<Shown>, Refusal> {
        let path = request::path();
        let query = request::query().unwrap_or_default();
        let shown = |token: &str| Some(Shown { token: token.to_owned(), path: path.clone(), in_path: false });
        if let Some(token) = request::header(CARRIER) {
            return Ok(shown(&token));
        }
        let cookies = request::header("cookie").unwrap_or_default();
        let named = |cookie: &str| {
            let (name, value) = cookie.trim().split_once('=')?;
            name.eq_ignore_ascii_case(CARRIER).then(|| value.to_owned())
        };
        let mut named = cookies.split([';', ',']).filter_map(named);
        if let Some(token) = named.next() {
            // Two cookies of one name: which one counts?
            return if named.next().is_some() { Err(Refusal::Malformed) } else { Ok(shown(&token)) };
        }
        let in_path = path
            .strip_prefix(&format!("/{}=", self.parameter))
            .and_then(|rest| rest.find('/').map(|end| rest.split_at(end)));
        if let Some((token, rest)) = in_path {
            return Ok(Some(Shown { token: token.to_owned(), path: rest.to_owned(), in_path: true }));
        }
        Ok(once(&query, &self.parameter).map_err(|()| Refusal::Malformed)?.and_then(shown))
    }

    /// The claims of a token whose MAC holds.
    fn opened(&self, token: &str) -> Result<Value, Refusal> {
        // Four letters hold three bytes.
        if token.len() > cbor::BYTES * 4 / 3 {
            return Err(Refusal::Malformed);
        }
        let bytes = from_base64url(token.trim_end_matches('=')).ok_or(Refusal::Malformed)?;
        let message = match Value::read(&bytes).ok_or(Refusal::Malformed)? {
            Value::Tag(CWT, message) => *message,
            message => message,
        };
        let Value::Tag(MAC0, message) = message else { return Err(Refusal::Malformed) };
        let Some([protected, unprotected, payload, mac]) = message.array() else { return Err(Refusal::Malformed) };
        let (Some(head), Some(body), Some(mac)) = (protected.bytes(), payload.bytes(), mac.bytes()) else {
            return Err(Refusal::Malformed);
        };
        let key = self.key(&Value::read(head).ok_or(Refusal::Malformed)?, unprotected)?;
        let expected = crypto::hmac(crypto::Hash::Sha256, key, &to_be_macced(head, body)).map_err(no_key)?;
        if !crypto::equal(mac, &expected) {
            return Err(Refusal::SignatureInvalid);
        }
        Value::read(body).filter(|claims| claims.map().is_some()).ok_or(Refusal::Malformed)
    }

    /// The key that the headers name. The algorithm is one, and is covered by the MAC; a header that must be understood is not.
    fn key(&self, protected: &Value, unprotected: &Value) -> Result<&str, Refusal> {
        let known = [ALG, CONTENT_TYPE, KID];
        let labels = protected.map().ok_or(Refusal::Malformed)?;
        let all_known = labels.iter().all(|(label, _)| label.integer().is_some_and(|label| known.contains(&label)));
        if !all_known || protected.get(ALG).and_then(Value::integer) != Some(HS256) || unprotected.map().is_none() {
            return Err(Refusal::Malformed);
        }
        let kid = match (protected.get(KID), unprotected.get(KID)) {
            (Some(kid), None) | (None, Some(kid)) => {
                kid.text().or_else(|| str::from_utf8(kid.bytes()?).ok()).ok_or(Refusal::Malformed)?
            }
            (Some(_), Some(_)) => return Err(Refusal::Malformed),
            // Without a name it can only be the one that there is.
            (None, None) => match self.keys.values().collect::<Vec<_>>().as_slice() {
                [only] => return Ok(only),
                _ => return Err(Refusal::KeyUnknown),
            },
        };
        self.keys.get(kid).map(String::as_str).ok_or(Refusal::KeyUnknown)
    }
}

/// MAC_structure (RFC 9052, section 6.3).
fn to_be_macced(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    Value::Array(vec!["MAC0".into(), bytes(protected), bytes(&[]), bytes(payload)]).written()
}

impl Scheme for Cat {
    fn prepare(self) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match &self.kid {
            _ if self.keys.is_empty() => Err("`keys` is empty: no token could hold".to_owned()),
            Some(kid) if !self.keys.contains_key(kid) => Err(format!("`kid` {kid:?} is not among `keys`")),
            _ if self.parameter.is_empty() || !self.parameter.bytes().all(plain) => {
                Err(format!("`parameter` {:?} is no name; letters, digits and - _ . are allowed", self.parameter))
            }
            _ if self.base.as_ref().is_some_and(|base| split_url(&format!("{base}/")).is_none()) => {
                Err("`base` is no origin such as \"https://media.example.com\"".to_owned())
            }
            _ => Ok(self),
        }
    }

    fn verify(&self, moment: &Moment) -> Result<Claims, Refusal> {
        let Some(shown) = self.shown()? else { return Err(Refusal::Absent) };
        let token = self.opened(&shown.token)?;
        let claims::Held { expires, not_before } = claims::hold(&token, self, &shown.path, moment)?;
        let plain = unescape(&shown.path).ok_or(Refusal::Malformed)?;
        Ok(Claims {
            scope: plain.clone(),
            expires,
            not_before,
            session: token.get(claims::CTI).and_then(Value::bytes).map(claims::session),
            listener: token.get(claims::SUB).and_then(Value::text).map(str::to_owned),
            context: None,
            path: shown.in_path.then_some(plain),
            parameters: vec![self.parameter.clone()],
        })
    }

    fn sign(&self, grant: &Grant) -> Result<String, String> {
        let (origin, path, query) = split_url(&grant.url).ok_or("the URL is not absolute")?;
        let kid = self.kid.as_ref().ok_or("the configuration names no `kid` that signs")?;
        let key = self.keys.get(kid).ok_or("the configuration names no such key")?;
        let payload = claims::of(grant, origin, path)?.written();
        let protected = Value::Map(vec![(ALG.into(), HS256.into())]).written();
        let mac = crypto::hmac(crypto::Hash::Sha256, key, &to_be_macced(&protected, &payload)).map_err(no_secret)?;
        let message = Value::Array(vec![
            Value::Bytes(protected),
            Value::Map(vec![(KID.into(), Value::Bytes(kid.clone().into_bytes()))]),
            Value::Bytes(payload),
            Value::Bytes(mac),
        ]);
        let token = Value::Tag(CWT, Box::new(Value::Tag(MAC0, Box::new(message)))).written();
        if token.len() > cbor::BYTES {
            return Err(format!("the token has {} bytes; at most {} are accepted", token.len(), cbor::BYTES));
        }
        let token = base64url(&token);
        let name = &self.parameter;
        Ok(match self.place {
            Place::Path => {
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                format!("{origin}/{name}={token}{path}{query}")
            }
            Place::Query => {
                let before = query.map(|query| format!("{query}&")).unwrap_or_default();
                format!("{origin}{path}?{before}{name}={token}")
            }
        })
    }
}

segue_policy::scheme!(Cat);
segue_policy::vectors!("../vectors.json");
