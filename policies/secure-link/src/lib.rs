//! nginx `secure_link` (module `ngx_http_secure_link_module`, the form with `secure_link_md5`): a link with an MD5 and an end.
//!
//! Configuration: `key`, the name of the secret; `expression`, what nginx has in `secure_link_md5`, with `$secret` once in the
//! secret's place. Variables: `$secure_link_expires`, `$uri` (decoded, as nginx has it), `$remote_addr`, `$host`. The default is that of nginx's manual,
//! `"$secure_link_expires$uri$remote_addr $secret"`. `md5 = "md5"` and `expires = "expires"` name the parameters.
//!
//! With `prefix = true` the link opens all beside it too: `$uri` then stands for the path up to and with the last `/`, an
//! expression that nginx's users write with `map` or `location`. `grant.scope` asks for the same.

use segue_policy::scheme::{Claims, Grant, Moment, Refusal, Scheme, claims, crypto, no_key, no_secret, request};
use segue_policy::text::{base64url, from_base64url, once, split_url, unescape};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SecureLink {
    key: String,
    #[serde(default = "expression")]
    expression: String,
    #[serde(default = "md5")]
    md5: String,
    #[serde(default = "expires")]
    expires: String,
    #[serde(default)]
    prefix: bool,
}

fn expression() -> String {
    "$secure_link_expires$uri$remote_addr $secret".to_owned()
}

fn md5() -> String {
    "md5".to_owned()
}

fn expires() -> String {
    "expires".to_owned()
}

impl SecureLink {
    /// MD5 of the expression, with its variables filled in.
    fn digest(&self, uri: &str, host: &str, address: &str, expires: &str) -> Result<Vec<u8>, crypto::KeyError> {
        let fill = |text: &str| {
            // The longer name first; and each value at once, so that none is searched for variables.
            let mut out = String::new();
            let mut rest = text;
            while let Some(at) = rest.find('$') {
                out.push_str(&rest[..at]);
                rest = &rest[at..];
                let variables =
                    [("$secure_link_expires", expires), ("$uri", uri), ("$remote_addr", address), ("$host", host)];
                let (name, value) =
                    variables.into_iter().find(|(name, _)| rest.starts_with(name)).unwrap_or(("$", "$"));
                out.push_str(value);
                rest = &rest[name.len()..];
            }
            out + rest
        };
        let (before, after) = self.expression.split_once("$secret").unwrap_or((&self.expression, ""));
        crypto::digest_keyed(crypto::Hash::Md5, &self.key, fill(before).as_bytes(), fill(after).as_bytes())
    }

    fn uri<'p>(&self, path: &'p str) -> &'p str {
        if self.prefix { &path[..=path.rfind('/').unwrap_or(0)] } else { path }
    }
}

impl Scheme for SecureLink {
    fn prepare(self) -> Result<Self, String> {
        if self.expression.matches("$secret").count() != 1 {
            return Err("`expression` needs $secret exactly once, where nginx's has the secret".to_owned());
        }
        Ok(self)
    }

    fn verify(&self, moment: &Moment) -> Result<Claims, Refusal> {
        let query = request::query().unwrap_or_default();
        let read = |name: &str| once(&query, name).map_err(|()| Refusal::Malformed);
        let Some(given) = read(&self.md5)? else { return Err(Refusal::Absent) };
        let text = read(&self.expires)?.ok_or(Refusal::Malformed)?;
        let end: u64 = text.parse().map_err(|_| Refusal::Malformed)?;
        let given = from_base64url(given).filter(|given| given.len() == 16).ok_or(Refusal::Malformed)?;
        let path = unescape(&request::path()).ok_or(Refusal::Malformed)?;
        let uri = self.uri(&path);
        let address = request::address().unwrap_or_default();
        let expected = self.digest(uri, &request::host(), &address, text).map_err(no_key)?;
        if !crypto::equal(&given, &expected) {
            return Err(Refusal::SignatureInvalid);
        }
        // nginx: `expires < now` is over.
        if end < moment.now_ms / 1000 {
            return Err(Refusal::Expired);
        }
        Ok(claims(uri, end + 1, &[&self.md5, &self.expires]))
    }

    fn sign(&self, grant: &Grant) -> Result<String, String> {
        let (origin, path, query) = split_url(&grant.url).ok_or("the URL is not absolute")?;
        let decoded = unescape(path).ok_or("the URL's path has a broken escape")?;
        let uri = self.uri(&decoded);
        if grant.scope.as_ref().is_some_and(|scope| scope != uri) {
            return Err(format!(
                "this configuration signs {uri}, and not {}",
                grant.scope.as_deref().unwrap_or_default()
            ));
        }
        if self.expression.contains("$remote_addr") && grant.address.is_none() {
            return Err("the expression holds $remote_addr: the grant needs the client's address".to_owned());
        }
        let host = origin.split_once("://").map_or("", |(_, host)| host).split(':').next().unwrap_or_default();
        let address = grant.address.clone().unwrap_or_default();
        let end = grant.expires.to_string();
        let digest = self.digest(uri, &host.to_ascii_lowercase(), &address, &end).map_err(no_secret)?;
        let before = query.map(|query| format!("{query}&")).unwrap_or_default();
        Ok(format!("{origin}{path}?{before}{}={}&{}={end}", self.md5, base64url(&digest), self.expires))
    }
}

segue_policy::scheme!(SecureLink);
segue_policy::vectors!("../vectors.json");
