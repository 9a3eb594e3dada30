//! CloudFront signed URLs and cookies, with a canned or a custom policy; RSA or ECDSA, SHA-1 (theirs) or SHA-256.
//!
//! Configuration: `keys = { K2JCJMDEHXQW5F = "cloudfront" }`, from `Key-Pair-Id` to the name of the key in the edge's `[policies.keys]` (public
//! there, private where URLs are made); `key_pair` is the one that signs; `ecdsa = true` for P-256 keys; `sha256 = true` writes
//! `Hash-Algorithm=SHA256` and signs so; `base = "https://d111.cloudfront.net"` is the origin that resources are signed for (without it: `https://` and the
//! request's host).
//!
//! `grant.scope`, `not_before` or `address` make a custom policy, else it is a canned one.

use std::collections::BTreeMap;

use segue_policy::scheme::{
    Claims, Grant, Moment, Refusal, Scheme, claims, crypto, no_key, no_secret, request, signing,
};
use segue_policy::serde_json::{self, Value};
use segue_policy::text::{base64, fits, from_base64, once, pairs, split_url, unescape};

const PARAMETERS: [&str; 5] = ["Expires", "Policy", "Signature", "Key-Pair-Id", "Hash-Algorithm"];

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudFront {
    keys: BTreeMap<String, String>,
    key_pair: Option<String>,
    #[serde(default)]
    ecdsa: bool,
    #[serde(default)]
    sha256: bool,
    base: Option<String>,
}

/// Base64 as CloudFront writes it in URLs.
fn encode(bytes: &[u8]) -> String {
    base64(bytes).replace('+', "-").replace('=', "_").replace('/', "~")
}

fn decode(text: &str) -> Option<Vec<u8>> {
    from_base64(&text.replace('-', "+").replace('_', "=").replace('~', "/"))
}

fn canned(resource: &str, expires: u64) -> String {
    format!(
        r#"{{"Statement":[{{"Resource":"{resource}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{expires}}}}}}}]}}"#
    )
}

/// What a request shows.
struct Shown {
    expires: Option<String>,
    policy: Option<String>,
    signature: String,
    key_pair: String,
    sha256: bool,
    in_cookies: bool,
}

/// From the query, or from the cookies `CloudFront-…`.
fn shown() -> Result<Option<Shown>, Refusal> {
    let query = request::query().unwrap_or_default();
    let cookies = request::header("cookie").unwrap_or_default();
    let in_cookies = once(&query, "Signature").map_err(|()| Refusal::Malformed)?.is_none();
    let read = |name: &str| -> Result<Option<String>, Refusal> {
        if !in_cookies {
            return once(&query, name).map(|value| value.map(str::to_owned)).map_err(|()| Refusal::Malformed);
        }
        let named = |cookie: &str| {
            cookie.trim().strip_prefix("CloudFront-")?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
        };
        Ok(cookies.split([';', ',']).find_map(named))
    };
    let Some(signature) = read("Signature")? else { return Ok(None) };
    let key_pair = read("Key-Pair-Id")?.ok_or(Refusal::Malformed)?;
    let sha256 = match read("Hash-Algorithm")?.as_deref() {
        None | Some("SHA1") => false,
        Some("SHA256") => true,
        Some(_) => return Err(Refusal::Malformed),
    };
    Ok(Some(Shown { expires: read("Expires")?, policy: read("Policy")?, signature, key_pair, sha256, in_cookies }))
}

impl CloudFront {
    fn algorithm(&self, sha256: bool) -> crypto::Algorithm {
        match (self.ecdsa, sha256) {
            (false, false) => crypto::Algorithm::RsaSha1,
            (false, true) => crypto::Algorithm::RsaSha256,
            (true, false) => crypto::Algorithm::P256Sha1,
            (true, true) => crypto::Algorithm::P256Sha256,
        }
    }

    /// The URL that was asked for, as it was signed: without what carries the signature.
    fn resource(&self, in_cookies: bool) -> String {
        let base = self.base.clone().unwrap_or_else(|| format!("https://{}", request::host()));
        let query = request::query().unwrap_or_default();
        let is_ours = |name: &str| !in_cookies && PARAMETERS.contains(&name);
        let rest: Vec<&str> = query.split('&').filter(|pair| !pairs(pair).any(|(name, _)| is_ours(name))).collect();
        let rest = rest.join("&");
        base + &request::path() + if rest.is_empty() { "" } else { "?" } + &rest
    }
}

/// The conditions of a policy.
struct Conditions {
    resource: Option<String>,
    until: u64,
    from: Option<u64>,
    network: Option<String>,
}

impl Conditions {
    fn read(policy: &[u8]) -> Option<Self> {
        let policy: Value = serde_json::from_slice(policy).ok()?;
        let statements = policy.get("Statement")?.as_array()?;
        // CloudFront accepts one statement, and no condition but these.
        let [statement] = statements.as_slice() else { return None };
        let conditions = statement.get("Condition")?.as_object()?;
        let known = ["DateLessThan", "DateGreaterThan", "IpAddress"];
        if conditions.keys().any(|name| !known.contains(&name.as_str())) {
            return None;
        }
        let time = |name: &str| conditions.get(name).map(|time| time.get("AWS:EpochTime").and_then(Value::as_u64));
        let network = conditions.get("IpAddress").map(|ip| ip.get("AWS:SourceIp").and_then(Value::as_str));
        let resource = statement.get("Resource").map(|resource| resource.as_str().map(str::to_owned));
        Some(Self {
            resource: resource.map_or(Some(None), |resource| resource.map(Some))?,
            until: time("DateLessThan")??,
            from: time("DateGreaterThan").map_or(Some(None), |time| time.map(Some))?,
            network: network.map_or(Some(None), |network| network.map(|network| Some(network.to_owned())))?,
        })
    }
}

fn in_network(network: &str, address: &str) -> Option<bool> {
    let (base, length) = network.split_once('/').unwrap_or((network, "32"));
    let length: u32 = length.parse().ok().filter(|&length| length <= 32)?;
    let base: std::net::Ipv4Addr = base.parse().ok()?;
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    Some(base.to_bits() & mask == address.to_bits() & mask)
}

impl Scheme for CloudFront {
    fn prepare(self) -> Result<Self, String> {
        match &self.key_pair {
            _ if self.keys.is_empty() => Err("`keys` is empty: no signature could hold".to_owned()),
            Some(pair) if !self.keys.contains_key(pair) => Err(format!("`key_pair` {pair:?} is not among `keys`")),
            _ => Ok(self),
        }
    }

    fn verify(&self, moment: &Moment) -> Result<Claims, Refusal> {
        let Some(shown) = shown()? else { return Err(Refusal::Absent) };
        let key = self.keys.get(&shown.key_pair).ok_or(Refusal::KeyUnknown)?;
        let url = self.resource(shown.in_cookies);
        let policy = match (&shown.policy, &shown.expires) {
            (Some(policy), None) => decode(policy).ok_or(Refusal::Malformed)?,
            (None, Some(expires)) => canned(&url, expires.parse().map_err(|_| Refusal::Malformed)?).into_bytes(),
            _ => return Err(Refusal::Malformed),
        };
        let signature = decode(&shown.signature).ok_or(Refusal::Malformed)?;
        if !crypto::verify(self.algorithm(shown.sha256), key, &policy, &signature).map_err(no_key)? {
            return Err(Refusal::SignatureInvalid);
        }
        let conditions = Conditions::read(&policy).ok_or(Refusal::Malformed)?;
        let now = moment.now_ms / 1000;
        if now >= conditions.until {
            return Err(Refusal::Expired);
        }
        if conditions.from.is_some_and(|from| now <= from) {
            return Err(Refusal::NotYetValid);
        }
        if conditions.resource.as_ref().is_some_and(|resource| !fits(resource, &url)) {
            return Err(Refusal::OutOfScope);
        }
        let address = request::address().unwrap_or_default();
        match conditions.network.as_deref().map(|network| in_network(network, &address)) {
            None | Some(Some(true)) => {}
            Some(_) => return Err(Refusal::AddressMismatch),
        }
        let path = unescape(&request::path()).ok_or(Refusal::Malformed)?;
        let mut claims = claims(&path, conditions.until, if shown.in_cookies { &[] } else { &PARAMETERS });
        claims.not_before = conditions.from;
        Ok(claims)
    }

    fn sign(&self, grant: &Grant) -> Result<String, String> {
        let pair =
            self.key_pair.as_ref().ok_or("`key_pair` in the configuration says which key signs; it is not there")?;
        let key = self.keys.get(pair).ok_or("`key_pair` is not among `keys`")?;
        let (origin, _, query) = split_url(&grant.url).ok_or("the URL is not absolute")?;
        let custom = grant.scope.is_some() || grant.not_before.is_some() || grant.address.is_some();
        let policy = if custom { custom_policy(origin, grant) } else { canned(&grant.url, grant.expires) };
        let signature = signing::sign(self.algorithm(self.sha256), key, policy.as_bytes()).map_err(no_secret)?;
        let mut parameters = vec![if custom {
            format!("Policy={}", encode(policy.as_bytes()))
        } else {
            format!("Expires={}", grant.expires)
        }];
        parameters.push(format!("Signature={}", encode(&signature)));
        parameters.push(format!("Key-Pair-Id={pair}"));
        if self.sha256 {
            parameters.push("Hash-Algorithm=SHA256".to_owned());
        }
        Ok(format!("{}{}{}", grant.url, if query.is_some() { '&' } else { '?' }, parameters.join("&")))
    }
}

/// In the order in which Amazon's libraries write it.
fn custom_policy(origin: &str, grant: &Grant) -> String {
    let resource = grant.scope.as_ref().map_or_else(|| grant.url.clone(), |scope| format!("{origin}{scope}*"));
    let text = |value: &str| Value::from(value).to_string();
    let mut conditions = format!(r#""DateLessThan":{{"AWS:EpochTime":{}}}"#, grant.expires);
    if let Some(address) = &grant.address {
        let network = if address.contains('/') { address.clone() } else { format!("{address}/32") };
        conditions += &format!(r#","IpAddress":{{"AWS:SourceIp":{}}}"#, text(&network));
    }
    if let Some(from) = grant.not_before {
        conditions += &format!(r#","DateGreaterThan":{{"AWS:EpochTime":{from}}}"#);
    }
    format!(r#"{{"Statement":[{{"Resource":{},"Condition":{{{conditions}}}}}]}}"#, text(&resource))
}

segue_policy::scheme!(CloudFront);
segue_policy::vectors!("../vectors.json");
