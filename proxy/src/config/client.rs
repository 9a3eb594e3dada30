//! `[client]`: who may say who the client is.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use segue_config::{Section, Value};

use crate::client::Countries;

/// Where the client's address comes from. By default it is the peer's.
#[derive(Debug, Clone, Default)]
pub struct ClientConfig {
    /// Addresses and blocks of the balancers that are believed (`trusted_proxies`).
    pub trusted_proxies: Vec<IpNet>,
    /// Which header of theirs names the client (`header`).
    pub header: ForwardedHeader,
    /// Whether they begin each connection with a header of the PROXY protocol (`proxy_protocol`).
    pub proxy_protocol: ProxyProtocol,
    /// A MaxMind database that says which country an address is in (`country`), for policies. Followed as it changes.
    pub country: Option<PathBuf>,
}

/// A header that lists the hops of a request. One is read and never the other: a proxy that writes the one passes on
/// whatever a client put into the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, which nearly every balancer writes.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The PROXY protocol on connections from trusted proxies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None is expected.
    #[default]
    Off,
    /// Either version; one of them must come.
    Any,
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
}

impl ClientConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let blocks: Vec<Block> = match section.get::<Blocks>("trusted_proxies") {
            Some(Blocks(blocks)) => blocks,
            None => Vec::new(),
        };
        let config = Self {
            trusted_proxies: blocks.into_iter().map(|Block(block)| block).collect(),
            header: section.or("header", ForwardedHeader::default()),
            proxy_protocol: section.or("proxy_protocol", ProxyProtocol::default()),
            country: section.get("country"),
        };
        if let Some(Err(problem)) = config.country.as_deref().map(Countries::open) {
            section.problem("country", problem);
        }
        if config.proxy_protocol != ProxyProtocol::Off && config.trusted_proxies.is_empty() {
            section.problem(
                "proxy_protocol",
                "nobody may send it; list the balancers' addresses in `trusted_proxies`, for example [\"10.0.0.0/8\"]",
            );
        }
        config
    }
}

struct Block(IpNet);

struct Blocks(Vec<Block>);

impl Block {
    fn parse(text: &str) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        let block = text.parse().ok().or_else(address);
        block.map(|block: IpNet| Self(block.trunc())).ok_or_else(|| {
            format!("{text:?} is not an address or a block of addresses; write for example \"10.0.0.0/8\"")
        })
    }
}

impl Value for Blocks {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let texts = Vec::<String>::from_toml(value)?;
        texts.iter().map(|text| Block::parse(text)).collect::<Result<_, _>>().map(Self)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let texts = Vec::<String>::from_text(text)?;
        texts.iter().map(|text| Block::parse(text)).collect::<Result<_, _>>().map(Self)
    }
}

impl Value for ForwardedHeader {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let name = String::from_toml(value)?;
        match name.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err(format!("{name:?} is not read; \"x-forwarded-for\" and \"forwarded\" are")),
        }
    }
}

impl Value for ProxyProtocol {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match (value.as_bool(), value.as_str()) {
            (Some(false), _) | (_, Some("false")) => Ok(Self::Off),
            (Some(true), _) | (_, Some("true")) => Ok(Self::Any),
            (_, Some("v1")) => Ok(Self::V1),
            (_, Some("v2")) => Ok(Self::V2),
            _ => Err(format!("expected true, false, \"v1\" or \"v2\", found {value}")),
        }
    }
}
