//! Akamai EdgeAuth 2.0 tokens: `exp=…~acl=…~hmac=…`, in a query parameter or in a cookie.
//!
//! Configuration: `key`, the name of the secret (Akamai gives it in hex: write `hex:…` in the edge's `[policies.keys]`);
//! `name = "__token__"` of parameter and cookie; `algorithm = "sha256"` (or `sha1`, `md5`); `salt`; `escape_early = false`.
//! `grant.options`: `payload` goes into `data=`; it comes back as `context`'s `data`. With `grant.scope` an ACL token `scope*` is made, without
//! it a URL token. ACLs are paths with `*` and `?`, several with `!` between them.

use segue_policy::scheme::{Claims, Grant, Moment, Refusal, Scheme, claims, crypto, no_key, no_secret, request};
use segue_policy::serde_json::json;
use segue_policy::text::{fits, hex, once, split_url, unescape};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeAuth {
    key: String,
    #[serde(default = "name")]
    name: String,
    #[serde(default)]
    algorithm: Algorithm,
    salt: Option<String>,
    #[serde(default)]
    escape_early: bool,
}

#[derive(serde::Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    #[default]
    Sha256,
    Sha1,
    Md5,
}

fn name() -> String {
    "__token__".to_owned()
}

/// The fields of a token, in the order in which they are written.
#[derive(Default)]
struct Token<'t> {
    ip: Option<&'t str>,
    st: Option<&'t str>,
    exp: Option<&'t str>,
    acl: Option<&'t str>,
    id: Option<&'t str>,
    data: Option<&'t str>,
    hmac: Option<&'t str>,
}

impl<'t> Token<'t> {
    fn read(text: &'t str) -> Option<Self> {
        let mut token = Self::default();
        for field in text.split('~') {
            let (name, value) = field.split_once('=')?;
            let place = match name {
                "ip" => &mut token.ip,
                "st" => &mut token.st,
                "exp" => &mut token.exp,
                "acl" => &mut token.acl,
                "id" => &mut token.id,
                "data" => &mut token.data,
                "hmac" => &mut token.hmac,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        Some(token)
    }
}

impl EdgeAuth {
    /// HMAC over the token's fields and, for a URL token, the path.
    fn mac(&self, fields: &str, path: Option<&str>) -> Result<String, crypto::KeyError> {
        let mut source = fields.to_owned();
        if let Some(path) = path {
            source += &format!("~url={}", self.escaped(path));
        }
        if let Some(salt) = &self.salt {
            source += &format!("~salt={salt}");
        }
        let hash = match self.algorithm {
            Algorithm::Sha256 => crypto::Hash::Sha256,
            Algorithm::Sha1 => crypto::Hash::Sha1,
            Algorithm::Md5 => crypto::Hash::Md5,
        };
        crypto::hmac(hash, &self.key, source.as_bytes()).map(|mac| hex(&mac))
    }

    /// As form encoding (a space is `+`), with escapes in small letters.
    fn escaped(&self, text: &str) -> String {
        if !self.escape_early {
            return text.to_owned();
        }
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
        let letter = |byte: u8| match byte {
            b' ' => "+".to_owned(),
            _ if plain(&byte) => (byte as char).to_string(),
            _ => format!("%{byte:02x}"),
        };
        text.bytes().map(letter).collect()
    }

    fn told(&self) -> Result<Option<String>, Refusal> {
        let query = request::query().unwrap_or_default();
        if let Some(token) = once(&query, &self.name).map_err(|()| Refusal::Malformed)? {
            // Escaped early: the escapes are part of what was signed. Else they are some player's own.
            let text = if self.escape_early { Some(token.to_owned()) } else { unescape(token) };
            return text.map(Some).ok_or(Refusal::Malformed);
        }
        let cookies = request::header("cookie").unwrap_or_default();
        let named = |cookie: &str| cookie.trim().strip_prefix(&self.name)?.strip_prefix('=').map(str::to_owned);
        Ok(cookies.split([';', ',']).find_map(named))
    }
}

impl Scheme for EdgeAuth {
    fn verify(&self, moment: &Moment) -> Result<Claims, Refusal> {
        let Some(text) = self.told()? else { return Err(Refusal::Absent) };
        let token = Token::read(&text).ok_or(Refusal::Malformed)?;
        let (fields, given) = text.rsplit_once("~hmac=").ok_or(Refusal::Malformed)?;
        let path = request::path();
        let url = token.acl.is_none().then_some(path.as_str());
        let expected = self.mac(fields, url).map_err(no_key)?;
        if !crypto::equal(given.as_bytes(), expected.as_bytes()) {
            return Err(Refusal::SignatureInvalid);
        }
        let now = moment.now_ms / 1000;
        let number = |text: Option<&str>| text.map(str::parse::<u64>).transpose().map_err(|_| Refusal::Malformed);
        let end = number(token.exp)?.ok_or(Refusal::Malformed)?;
        let start = number(token.st)?;
        if now > end {
            return Err(Refusal::Expired);
        }
        if start.is_some_and(|start| now < start) {
            return Err(Refusal::NotYetValid);
        }
        let address = token.ip.map(|ip| unescape(ip).ok_or(Refusal::Malformed)).transpose()?;
        if address.is_some() && address != request::address() {
            return Err(Refusal::AddressMismatch);
        }
        // An ACL is a pattern and a scope a prefix: what was asked for now is what was proved now.
        if let Some(acl) = token.acl {
            let acl = if self.escape_early { unescape(acl).ok_or(Refusal::Malformed)? } else { acl.to_owned() };
            if !acl.split('!').any(|pattern| fits(pattern, &path)) {
                return Err(Refusal::OutOfScope);
            }
        }
        let mut claims = claims(&unescape(&path).ok_or(Refusal::Malformed)?, end + 1, &[&self.name]);
        claims.not_before = start;
        claims.session = token.id.map(str::to_owned);
        claims.context = token.data.map(|data| json!({ "data": data }).to_string());
        Ok(claims)
    }

    fn sign(&self, grant: &Grant) -> Result<String, String> {
        let (origin, path, query) = split_url(&grant.url).ok_or("the URL is not absolute")?;
        let mut fields = Vec::new();
        let mut put = |name: &str, value: Option<String>| fields.extend(value.map(|value| format!("{name}={value}")));
        put("ip", grant.address.as_deref().map(|ip| self.escaped(ip)));
        put("st", grant.not_before.map(|start| start.to_string()));
        put("exp", Some(grant.expires.to_string()));
        put("acl", grant.scope.as_ref().map(|scope| format!("{scope}*")));
        put("id", grant.session.as_deref().map(|id| self.escaped(id)));
        let payload = grant.options.iter().find(|(name, _)| name == "payload");
        put("data", payload.map(|(_, data)| self.escaped(data)));
        let fields = fields.join("~");
        let mac = self.mac(&fields, grant.scope.is_none().then_some(path)).map_err(no_secret)?;
        let before = query.map(|query| format!("{query}&")).unwrap_or_default();
        Ok(format!("{origin}{path}?{before}{}={fields}~hmac={mac}", self.name))
    }
}

segue_policy::scheme!(EdgeAuth);
segue_policy::vectors!("../vectors.json");
