//! Lets in, or keeps out, by country.
//!
//! Configuration: `allow = ["DE", "AT"]` or `deny = ["KP"]`, not both; `unknown = "deny"` (the default) or `"allow"` for
//! addresses of no known country; `redirect = "/blocked.m3u8"` sends elsewhere instead of a 451 (RFC 7725).

use segue_policy::access::{Access, Denial, Fields, Moment, Verdict, deny};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Country {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    unknown: Unknown,
    redirect: Option<String>,
}

#[derive(serde::Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    #[default]
    Deny,
    Allow,
}

impl Access for Country {
    const FIELDS: &[&str] = &["country"];

    fn prepare(self) -> Result<Self, String> {
        if self.allow.is_empty() == self.deny.is_empty() {
            return Err("name countries under `allow` or under `deny`, and not under both".to_owned());
        }
        let is_code = |code: &&String| code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_uppercase());
        match self.allow.iter().chain(&self.deny).find(is_code) {
            Some(code) => Err(format!("{code:?} is no country; write ISO 3166-1 alpha-2 in capitals, such as \"DE\"")),
            None => Ok(self),
        }
    }

    fn authorize(&self, _: &Moment, fields: &Fields) -> Verdict {
        let welcome = match fields.get(0) {
            None => self.unknown == Unknown::Allow,
            Some(country) if self.allow.is_empty() => !self.deny.iter().any(|denied| denied == country),
            Some(country) => self.allow.iter().any(|allowed| allowed == country),
        };
        match &self.redirect {
            _ if welcome => Verdict::Abstain,
            None => deny(451, "country"),
            Some(target) => Verdict::Deny(Denial {
                status: 302,
                reason: "country".to_owned(),
                redirect: Some(target.clone()),
                headers: Vec::new(),
            }),
        }
    }
}

segue_policy::access!(Country);
segue_policy::vectors!("../vectors.json");
