//! Bunny token authentication: in the query (`?token=…&expires=…`) or in the path (`/bcdn_token=…&expires=…/…`), which
//! relative URIs of a playlist inherit.
//!
//! Configuration: `key`, the name of the pull zone's token key; `algorithm = "hs256"` (the default: HMAC-SHA256, tokens that start with
//! `HS256-`) or `"sha256"` (the older digest with the key in front); `place = "path"` (the default) or `"query"` for tokens
//! that are made here. `grant.scope` becomes `token_path`; `grant.address` locks to an address; `grant.options`
//! may hold `token_countries`, `token_countries_blocked`, `limit` and `token_ignore_params`.

use std::collections::BTreeMap;

use segue_policy::scheme::{Claims, Grant, Moment, Refusal, Scheme, claims, crypto, no_key, no_secret, request};
use segue_policy::text::{base64url, escape, pairs, split_url, unescape};

const IN_PATH: &str = "/bcdn_token=";
const OPTIONS: [&str; 4] = ["limit", "token_countries", "token_countries_blocked", "token_ignore_params"];

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Bunny {
    key: String,
    #[serde(default)]
    algorithm: Algorithm,
    #[serde(default)]
    place: Place,
}

#[derive(serde::Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    #[default]
    Hs256,
    Sha256,
}

#[derive(serde::Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Place {
    #[default]
    Path,
    Query,
}

impl Bunny {
    /// What the token of this path, end and address is. Parameters are signed as they mean, not as they are escaped.
    fn token(
        &self,
        path: &str,
        expires: &str,
        parameters: &BTreeMap<String, String>,
        address: &str,
    ) -> Result<String, crypto::KeyError> {
        let signed: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text = format!("{path}{expires}{}{address}", signed.join("&"));
        Ok(match self.algorithm {
            Algorithm::Hs256 => {
                format!("HS256-{}", base64url(&crypto::hmac(crypto::Hash::Sha256, &self.key, text.as_bytes())?))
            }
            Algorithm::Sha256 => {
                base64url(&crypto::digest_keyed(crypto::Hash::Sha256, &self.key, b"", text.as_bytes())?)
            }
        })
    }

    /// Whether the token holds, bound to the client's address or to none.
    fn holds(
        &self,
        given: &str,
        path: &str,
        expires: &str,
        parameters: &BTreeMap<String, String>,
    ) -> Result<bool, Refusal> {
        for address in [String::new(), request::address().unwrap_or_default()] {
            let expected = self.token(path, expires, parameters, &address).map_err(no_key)?;
            if crypto::equal(given.as_bytes(), expected.as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Parameters by name, decoded; `None` where one is there twice or broken.
fn read(query: &str) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    for (name, value) in pairs(query) {
        if parameters.insert(unescape(name)?, unescape(value)?).is_some() {
            return None;
        }
    }
    Some(parameters)
}

fn lists(countries: &str, country: Option<&str>) -> bool {
    country.is_some_and(|country| countries.split(',').any(|listed| listed.trim() == country))
}

impl Scheme for Bunny {
    fn verify(&self, moment: &Moment) -> Result<Claims, Refusal> {
        let raw = request::path();
        let query = request::query().unwrap_or_default();
        let in_path = raw.strip_prefix(IN_PATH).map(|rest| {
            let end = rest.find('/').unwrap_or(rest.len());
            (format!("token={}", &rest[..end]), rest[end..].to_owned())
        });
        let (text, path) = in_path.clone().unwrap_or_else(|| (query, raw));
        let mut parameters = read(&text).ok_or(Refusal::Malformed)?;
        let Some(given) = parameters.remove("token") else { return Err(Refusal::Absent) };
        let expires = parameters.remove("expires").ok_or(Refusal::Malformed)?;
        let end: u64 = expires.parse().map_err(|_| Refusal::Malformed)?;
        if parameters.get("token_ignore_params").is_some_and(|value| value == "true") {
            parameters.retain(|name, _| matches!(name.as_str(), "token_ignore_params" | "token_path"));
        }
        let prefix = parameters.get("token_path").cloned();
        if !self.holds(&given, prefix.as_ref().unwrap_or(&path), &expires, &parameters)? {
            // In the path, a directory may have been signed for all that lies under it.
            return Err(Refusal::SignatureInvalid);
        }
        if end < moment.now_ms / 1000 {
            return Err(Refusal::Expired);
        }
        let plain = unescape(&path).ok_or(Refusal::Malformed)?;
        if prefix.as_ref().is_some_and(|prefix| !plain.starts_with(prefix.as_str())) {
            return Err(Refusal::OutOfScope);
        }
        let country = request::country();
        let kept_out = match (parameters.get("token_countries"), parameters.get("token_countries_blocked")) {
            (Some(allowed), _) if !lists(allowed, country.as_deref()) => true,
            (_, Some(blocked)) => lists(blocked, country.as_deref()),
            _ => false,
        };
        if kept_out {
            return Err(Refusal::CountryMismatch);
        }
        let scope = prefix.filter(|prefix| prefix.ends_with('/')).unwrap_or_else(|| plain.clone());
        let mut claims = claims(&scope, end + 1, &["token", "expires", "token_path"]);
        claims.parameters.extend(OPTIONS.map(str::to_owned));
        claims.path = in_path.map(|_| plain);
        Ok(claims)
    }

    fn sign(&self, grant: &Grant) -> Result<String, String> {
        let (origin, path, query) = split_url(&grant.url).ok_or("the URL is not absolute")?;
        let mut parameters = read(query.unwrap_or_default()).ok_or("a query parameter is there twice, or broken")?;
        for (name, value) in &grant.options {
            if !OPTIONS.contains(&name.as_str()) {
                return Err(format!("the option {name:?} is none of {OPTIONS:?}"));
            }
            parameters.insert(name.clone(), value.clone());
        }
        if parameters.get("token_ignore_params").is_some_and(|value| value == "true") {
            parameters.retain(|name, _| name == "token_ignore_params");
        }
        if let Some(scope) = &grant.scope {
            parameters.insert("token_path".to_owned(), scope.clone());
        }
        let expires = grant.expires.to_string();
        let signed = grant.scope.as_deref().unwrap_or(path);
        let token = self
            .token(signed, &expires, &parameters, grant.address.as_deref().unwrap_or_default())
            .map_err(no_secret)?;
        let tail: String = parameters.iter().map(|(name, value)| format!("&{name}={}", escape(value))).collect();
        Ok(match self.place {
            Place::Path => format!("{origin}{IN_PATH}{token}{tail}&expires={expires}{path}"),
            Place::Query => format!("{origin}{path}?token={token}{tail}&expires={expires}"),
        })
    }
}

segue_policy::scheme!(Bunny);
segue_policy::vectors!("../vectors.json");
