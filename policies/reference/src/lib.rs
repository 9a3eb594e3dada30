//! The rule that the cost of a policy is measured with: it looks at the country, three headers, two claims and one
//! value of `ctx` for each request, and keeps no verdict between them.
//!
//! Configuration: `countries`, those that are let in; `tiers`, those that are.

use segue_policy::access::{Access, Allowance, Fields, Moment, Verdict, deny};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    countries: Vec<String>,
    tiers: Vec<String>,
}

impl Access for Reference {
    const FIELDS: &[&str] =
        &["country", "header:user-agent", "header:referer", "header:origin", "claim:sub", "claim:sid", "context:/tier"];

    fn authorize(&self, _: &Moment, fields: &Fields) -> Verdict {
        let [country, agent, referer, origin, sub, sid, tier] = fields.all();
        if !country.is_some_and(|country| self.countries.iter().any(|known| known == country)) {
            return deny(451, "country");
        }
        if agent.is_none_or(|agent| agent.starts_with("curl/")) {
            return deny(403, "device");
        }
        if let (Some(referer), Some(origin)) = (referer, origin)
            && !referer.starts_with(origin)
        {
            return deny(403, "origin");
        }
        if sub.is_none() || sid.is_none() || !tier.is_some_and(|tier| self.tiers.iter().any(|known| known == tier)) {
            return deny(402, "subscription");
        }
        Verdict::Allow(Allowance { limits: Vec::new(), streams: None, tags: Vec::new() })
    }
}

segue_policy::access!(Reference);
segue_policy::vectors!("../vectors.json");
