//! Lets in, or keeps out, by address.
//!
//! Configuration: `deny = ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]`, `allow` alike. An address in `allow` is let in
//! whatever `deny` says; where there is only `allow`, all others are kept out.

use std::net::IpAddr;

use segue_policy::access::{Access, Fields, Moment, Verdict, deny};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(skip)]
    allowed: Ranges,
    #[serde(skip)]
    denied: Ranges,
}

/// First and last address of each network, sorted and without overlap; IPv4 as IPv6 (`::ffff:…`).
#[derive(Default)]
struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    fn parse(networks: &[String]) -> Result<Self, String> {
        let mut ranges = networks.iter().map(|text| range(text)).collect::<Result<Vec<_>, _>>()?;
        ranges.sort_unstable();
        ranges.dedup_by(|next, before| {
            let overlaps = next.0 <= before.1;
            if overlaps {
                before.1 = before.1.max(next.1);
            }
            overlaps
        });
        Ok(Self(ranges))
    }

    fn hold(&self, address: u128) -> bool {
        let after = self.0.partition_point(|range| range.0 <= address);
        after > 0 && address <= self.0[after - 1].1
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn range(text: &str) -> Result<(u128, u128), String> {
    let bad = || format!("{text:?} is neither an address nor a network such as \"192.0.2.0/24\"");
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
    let length: u32 = length.map_or(Ok(bits), |length| length.parse().map_err(|_| bad()))?;
    let host = 1_u128.checked_shl(bits.checked_sub(length).ok_or_else(bad)?).map_or(u128::MAX, |size| size - 1);
    let first = number(address) & !host;
    Ok((first, first | host))
}

impl Access for Lists {
    const FIELDS: &[&str] = &["address"];

    fn prepare(mut self) -> Result<Self, String> {
        if self.allow.is_empty() && self.deny.is_empty() {
            return Err("name networks under `allow` or `deny`".to_owned());
        }
        self.allowed = Ranges::parse(&self.allow)?;
        self.denied = Ranges::parse(&self.deny)?;
        Ok(self)
    }

    fn authorize(&self, _: &Moment, fields: &Fields) -> Verdict {
        // An address that is not known is in no list.
        let address = fields.get(0).and_then(|text| text.parse().ok()).map(number);
        let holds = |ranges: &Ranges| address.is_some_and(|address| ranges.hold(address));
        let kept_out = if self.deny.is_empty() { true } else { address.is_none() || holds(&self.denied) };
        if kept_out && !holds(&self.allowed) { deny(403, "address") } else { Verdict::Abstain }
    }
}

segue_policy::access!(Lists);
segue_policy::vectors!("../vectors.json");
