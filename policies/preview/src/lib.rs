//! Lets everybody hear the first seconds of a track, and subscribers the rest.
//!
//! Configuration: `seconds = 30`; `subscription = "context:/plan"` (the default) is the field that subscribers' tickets
//! have; `values = ["gold"]` are the values that count, any but an empty one, `false` and `null` where there are none;
//! `redirect` sends elsewhere instead of a 402. A segment is let through whole where it starts before the end of the preview.
//!
//! Where in the track a segment is, the edge knows once it has seen the media playlist. What it does not know yet is
//! refused to those without a subscription (`unplaced = "allow"` lets it through).

use segue_policy::access::{Access, Allowance, Denial, Fields, Kind, Moment, Verdict, deny};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Preview {
    seconds: u64,
    #[serde(default = "plan")]
    subscription: String,
    #[serde(default)]
    values: Vec<String>,
    redirect: Option<String>,
    #[serde(default)]
    unplaced: Unplaced,
}

#[derive(serde::Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Unplaced {
    #[default]
    Deny,
    Allow,
}

fn plan() -> String {
    "context:/plan".to_owned()
}

impl Preview {
    fn subscribes(&self, plan: Option<&str>) -> bool {
        match plan {
            None | Some("" | "false" | "null") => false,
            Some(plan) => self.values.is_empty() || self.values.iter().any(|value| value == plan),
        }
    }
}

impl Access for Preview {
    const FIELDS: &[&str] = &[];

    fn fields(&self) -> Vec<String> {
        vec![self.subscription.clone()]
    }

    fn authorize(&self, moment: &Moment, fields: &Fields) -> Verdict {
        // Playlists, keys and initialisation sections are needed for the preview too.
        if moment.kind != Kind::Segment || self.subscribes(fields.get(0)) {
            return Verdict::Abstain;
        }
        let hears = match moment.pos_ms {
            Some(start) => start < self.seconds.saturating_mul(1000),
            None => self.unplaced == Unplaced::Allow,
        };
        if hears {
            return Verdict::Allow(Allowance { limits: Vec::new(), streams: None, tags: vec!["preview".to_owned()] });
        }
        match &self.redirect {
            None => deny(402, "preview-over"),
            Some(target) => Verdict::Deny(Denial {
                status: 302,
                reason: "preview-over".to_owned(),
                redirect: Some(target.clone()),
                headers: Vec::new(),
            }),
        }
    }
}

segue_policy::access!(Preview);
segue_policy::vectors!("../vectors.json");
