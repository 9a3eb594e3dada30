//! Plays from an hour on, but for those with a plan. Make a rule of your own of it.
//!
//! Configuration: `from_hour = 18`, the hour (UTC) from which everybody may listen.

use segue_policy::access::{Access, Fields, Moment, Verdict, deny};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    from_hour: u64,
}

impl Access for Policy {
    /// What the rule wants to be given with each request, in this order.
    const FIELDS: &[&str] = &["context:/plan"];

    fn prepare(self) -> Result<Self, String> {
        if self.from_hour < 24 { Ok(self) } else { Err(format!("`from_hour` is 0 to 23, not {}", self.from_hour)) }
    }

    fn authorize(&self, moment: &Moment, fields: &Fields) -> Verdict {
        let hour = moment.now_ms / 3_600_000 % 24;
        if fields.get(0).is_some() || hour >= self.from_hour { Verdict::Abstain } else { deny(403, "too-early") }
    }
}

segue_policy::access!(Policy);
segue_policy::vectors!("../vectors.json");
