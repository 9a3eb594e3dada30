//! One household, one stream: names the streams class, and whom it counts; the edge does the counting.
//!
//! Configuration: `class = "household"`, a `[streams.household]` of the edge's; `by = "context:/household"` (the default) is
//! the field that names the household, `claim:sub` counts listeners. Without that field: `missing = "allow"` (the default) or
//! `"deny"`.

use segue_policy::access::{Access, Allowance, Fields, Kind, Limit, Moment, Verdict, deny};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Household {
    class: String,
    #[serde(default = "household")]
    by: String,
    #[serde(default)]
    missing: Missing,
}

#[derive(serde::Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Missing {
    #[default]
    Allow,
    Deny,
}

fn household() -> String {
    "context:/household".to_owned()
}

impl Access for Household {
    const FIELDS: &[&str] = &[];

    fn prepare(self) -> Result<Self, String> {
        // What the host would refuse of each answer, it refuses here once.
        let fits = (1..=64).contains(&self.class.len()) && self.class.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(self) } else { Err("`class` is the name of a [streams.…]: 1 to 64 letters".to_owned()) }
    }

    fn fields(&self) -> Vec<String> {
        vec![self.by.clone()]
    }

    fn authorize(&self, moment: &Moment, fields: &Fields) -> Verdict {
        if moment.kind != Kind::Segment {
            return Verdict::Abstain;
        }
        match fields.get(0).filter(|key| !key.is_empty()) {
            Some(key) => {
                let streams = Some(Limit { class: self.class.clone(), key: key.to_owned() });
                Verdict::Allow(Allowance { limits: Vec::new(), streams, tags: Vec::new() })
            }
            None if self.missing == Missing::Deny => deny(403, "household"),
            None => Verdict::Abstain,
        }
    }
}

segue_policy::access!(Household);
segue_policy::vectors!("../vectors.json");
