//! Somebody's signed URLs: `?expires=…&sig=…`, where `sig` is hex of HMAC-SHA256 over the path, a line end and `expires`. Make of it the
//! scheme that your URLs are signed by.
//!
//! Configuration: `key`, the name of the secret in the edge's `[policies.keys]`.

use segue_policy::scheme::{Claims, Grant, Moment, Refusal, Scheme, claims, crypto, no_key, no_secret, request};
use segue_policy::text::{hex, once, split_url, unescape};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    key: String,
}

impl Policy {
    fn mac(&self, path: &str, expires: &str) -> Result<String, crypto::KeyError> {
        let signed = format!("{path}\n{expires}");
        crypto::hmac(crypto::Hash::Sha256, &self.key, signed.as_bytes()).map(|mac| hex(&mac))
    }
}

impl Scheme for Policy {
    /// Called on the edge, for a request that shows no ticket of Segue's own.
    fn verify(&self, moment: &Moment) -> Result<Claims, Refusal> {
        let query = request::query().unwrap_or_default();
        // A parameter that is there twice is refused: which one would count?
        let read = |name: &str| once(&query, name).map_err(|()| Refusal::Malformed);
        let Some(given) = read("sig")? else { return Err(Refusal::Absent) };
        let text = read("expires")?.ok_or(Refusal::Malformed)?;
        let path = request::path();
        let expected = self.mac(&path, text).map_err(no_key)?;
        if !crypto::equal(given.as_bytes(), expected.as_bytes()) {
            return Err(Refusal::SignatureInvalid);
        }
        let expires: u64 = text.parse().map_err(|_| Refusal::Malformed)?;
        if moment.now_ms / 1000 >= expires {
            return Err(Refusal::Expired);
        }
        // What was signed is the path as it stands in the request line; what is opened is the path that it means.
        let path = unescape(&path).ok_or(Refusal::Malformed)?;
        Ok(claims(&path, expires, &["sig", "expires"]))
    }

    /// Called in the control plane and the command: makes a URL that `verify` accepts.
    fn sign(&self, grant: &Grant) -> Result<String, String> {
        let (origin, path, query) = split_url(&grant.url).ok_or("the URL is not absolute")?;
        if grant.scope.is_some() {
            return Err("this scheme signs one path".to_owned());
        }
        let expires = grant.expires.to_string();
        let mac = self.mac(path, &expires).map_err(no_secret)?;
        let before = query.map(|query| format!("{query}&")).unwrap_or_default();
        Ok(format!("{origin}{path}?{before}expires={expires}&sig={mac}"))
    }
}

segue_policy::scheme!(Policy);
segue_policy::vectors!("../vectors.json");
