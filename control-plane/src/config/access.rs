//! `[access]`: how much a token and an address may ask for.

use std::net::IpAddr;

use ipnet::IpNet;
use segue_config::Section;

/// How the API is guarded.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// Requests a second of one token at each control plane, at a steady pace.
    pub rate: u32,
    /// Requests of one token at once. The default is as many edges as may report: they share a token, and all ask when
    /// something changed.
    pub burst: u32,
    /// Tokens that are not known, tried from one address in a minute; an IPv6 address counts with its /64.
    pub failures: u32,
    /// Balancers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self { rate: 1000, burst: 10_000, failures: 30, trusted_proxies: Vec::new() }
    }
}

impl AccessConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let positive = |key: &str, default: u32| {
            let count = section.or(key, default);
            if count == 0 {
                section.problem(key, "must be at least 1");
            }
            count
        };
        let blocks: Vec<String> = section.or("trusted_proxies", Vec::new());
        let block = |text: &String| {
            let read = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            if read.is_none() {
                let what = "is not an address or a block of addresses; write for example \"10.0.0.0/8\"";
                section.problem("trusted_proxies", format!("{text:?} {what}"));
            }
            read
        };
        Self {
            rate: positive("rate", default.rate),
            burst: positive("burst", default.burst),
            failures: positive("failures", default.failures),
            trusted_proxies: blocks.iter().filter_map(block).collect(),
        }
    }
}
