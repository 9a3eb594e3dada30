//! `[webhooks]`: where deliveries may go.

use std::net::IpAddr;

use ipnet::IpNet;
use segue_config::Section;

/// Which receivers are allowed.
#[derive(Clone, Debug, Default)]
pub struct WebhooksConfig {
    /// Private addresses that receivers may have, which by default are public and speak TLS: whoever adds a webhook must not reach what
    /// only this machine can.
    pub allow: Vec<IpNet>,
}

impl WebhooksConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let blocks: Vec<String> = section.or("allow", Vec::new());
        let block = |text: &String| {
            let read = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            if read.is_none() {
                let what = "is not an address or a block of addresses; write for example \"10.1.0.0/16\"";
                section.problem("allow", format!("{text:?} {what}"));
            }
            read
        };
        Self { allow: blocks.iter().filter_map(block).collect() }
    }
}
