//! Lets in, or keeps out, by what a program says of itself in `User-Agent`: download tools, bots, old apps.
//!
//! Configuration: `deny = ["curl/", "bot"]` and `allow = ["Googlebot"]`, parts of the header in any case, `allow` first;
//! `empty = "deny"` (the default) or `"allow"` for requests without the header; `tag = true` puts `device:<word>` on facts, where
//! word is `phone`, `tv`, `browser`, `bot` or `other`.

use segue_policy::access::{Access, Allowance, Fields, Moment, Verdict, deny};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Devices {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    empty: Empty,
    #[serde(default)]
    tag: bool,
}

#[derive(serde::Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Empty {
    #[default]
    Deny,
    Allow,
}

/// In this order: televisions and bots also say Mozilla.
const CLASSES: [(&str, &[&str]); 4] = [
    ("bot", &["bot", "crawl", "spider", "slurp"]),
    ("tv", &["smart-tv", "smarttv", "appletv", "googletv", "android tv", "web0s", "tizen", "roku", "aft"]),
    ("phone", &["iphone", "ipad", "android", "mobile"]),
    ("browser", &["mozilla", "opera"]),
];

impl Access for Devices {
    const FIELDS: &[&str] = &["header:user-agent"];

    fn prepare(mut self) -> Result<Self, String> {
        if self.allow.iter().chain(&self.deny).any(String::is_empty) {
            return Err("an empty text in `allow` or `deny` fits every device".to_owned());
        }
        self.allow.iter_mut().chain(&mut self.deny).for_each(|part| part.make_ascii_lowercase());
        Ok(self)
    }

    fn authorize(&self, _: &Moment, fields: &Fields) -> Verdict {
        let agent = fields.get(0).unwrap_or_default().to_ascii_lowercase();
        let has = |parts: &[String]| parts.iter().any(|part| agent.contains(part));
        let kept_out = if agent.is_empty() { self.empty == Empty::Deny } else { has(&self.deny) && !has(&self.allow) };
        if kept_out {
            return deny(403, "device");
        }
        if !self.tag {
            return Verdict::Abstain;
        }
        let class = CLASSES.iter().find(|(_, parts)| parts.iter().any(|part| agent.contains(part)));
        let tags = vec![format!("device:{}", class.map_or("other", |(word, _)| word))];
        Verdict::Allow(Allowance { limits: Vec::new(), streams: None, tags })
    }
}

segue_policy::access!(Devices);
segue_policy::vectors!("../vectors.json");
