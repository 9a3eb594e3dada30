//! The claims of a token: what each asks for is held against the request, or refuses it.

use std::net::IpAddr;

use segue_policy::scheme::{Grant, Moment, Refusal, request, tools};
use segue_policy::text::{hex, pairs};

use crate::Cat;
use crate::cbor::Value;
use crate::uri::{self, Answer, Asked};

const ISS: i64 = 1;
pub const SUB: i64 = 2;
const AUD: i64 = 3;
const EXP: i64 = 4;
const NBF: i64 = 5;
const IAT: i64 = 6;
pub const CTI: i64 = 7;
const CATREPLAY: i64 = 308;
const CATV: i64 = 310;
const CATNIP: i64 = 311;
const CATU: i64 = 312;
const CATM: i64 = 313;
const CATH: i64 = 315;
const CATGEOISO3166: i64 = 316;
const CATIFDATA: i64 = 320;
const CATIF: i64 = 322;
const CATR: i64 = 323;

/// Tags of addresses (RFC 9164, section 3).
const IPV4: u64 = 52;
const IPV6: u64 = 54;

/// The times of a token that holds.
pub struct Held {
    pub expires: u64,
    pub not_before: Option<u64>,
}

/// Holds every claim against the request.
pub fn hold(token: &Value, config: &Cat, path: &str, moment: &Moment) -> Result<Held, Refusal> {
    // Times first: that a token is over is what its holder should hear.
    let expires = token.get(EXP).and_then(seconds).ok_or(Refusal::Malformed)?.ceil();
    let not_before = token.get(NBF).map(|time| seconds(time).ok_or(Refusal::Malformed)).transpose()?.map(f64::ceil);
    let now = (moment.now_ms / 1000) as f64;
    if now >= expires {
        return Err(Refusal::Expired);
    }
    if not_before.is_some_and(|start| now < start) {
        return Err(Refusal::NotYetValid);
    }
    for (label, claim) in token.map().unwrap_or_default() {
        let label = label.integer().ok_or(Refusal::Malformed)?;
        holds(label, claim, config, path)?;
    }
    Ok(Held { expires: expires as u64, not_before: not_before.map(|start| start as u64) })
}

/// A time of RFC 8392: a number of seconds, whole or not.
fn seconds(time: &Value) -> Option<f64> {
    let time = match time {
        Value::Integer(time) => *time as f64,
        Value::Float(time) => *time,
        _ => return None,
    };
    // Beyond 2^53 a float skips seconds, and no clock gets there.
    (0.0..9e15).contains(&time).then_some(time)
}

fn holds(label: i64, claim: &Value, config: &Cat, path: &str) -> Result<(), Refusal> {
    let refuse = |refusal| Err(refusal);
    match label {
        // Held before; or they say nothing about who may come in.
        EXP | NBF | IAT | CATIF | CATIFDATA | CATR => Ok(()),
        SUB => claim.text().map(drop).ok_or(Refusal::Malformed),
        CTI => claim.bytes().map(drop).ok_or(Refusal::Malformed),
        ISS => {
            let issuer = claim.text().ok_or(Refusal::Malformed)?;
            let known = config.issuers.is_empty() || config.issuers.iter().any(|known| known == issuer);
            if known { Ok(()) } else { refuse(Refusal::KeyUnknown) }
        }
        AUD => {
            let named = claim.text().map(|one| vec![one]).or_else(|| claim.texts()).ok_or(Refusal::Malformed)?;
            let ours = config.audience.iter().any(|own| named.contains(&own.as_str()));
            if ours { Ok(()) } else { refuse(Refusal::OutOfScope) }
        }
        CATV if claim.integer() == Some(1) => Ok(()),
        CATREPLAY if claim.integer() == Some(0) => Ok(()),
        CATNIP => {
            let networks = claim.array().ok_or(Refusal::Malformed)?;
            let address = request::address().and_then(|text| text.parse::<IpAddr>().ok());
            let inside = address.is_some_and(|address| networks.iter().any(|network| holds_address(network, address)));
            if inside { Ok(()) } else { refuse(Refusal::AddressMismatch) }
        }
        CATU => {
            let base = config.base.clone().unwrap_or_else(|| format!("https://{}", request::host()));
            let (scheme, host) = base.split_once("://").unwrap_or(("https", &base));
            let (host, port) = split_port(host);
            let query = request::query().unwrap_or_default();
            let rest: Vec<&str> =
                query.split('&').filter(|pair| !pairs(pair).any(|(name, _)| name == config.parameter)).collect();
            told(label, Asked { scheme, host, port, path, query: rest.join("&") }.fits(claim))
        }
        CATM => {
            let methods = claim.texts().ok_or(Refusal::Malformed)?;
            let method = request::method();
            if methods.contains(&method.as_str()) { Ok(()) } else { refuse(Refusal::OutOfScope) }
        }
        CATH => {
            let headers = claim.map().ok_or(Refusal::Malformed)?;
            let one = |(name, matches): &(Value, Value)| match name.text().map(request::header) {
                Some(Some(value)) => uri::fits(&value, matches),
                Some(None) => Answer::Differs,
                None => Answer::Unknown,
            };
            told(label, Answer::all(headers.iter().map(one)))
        }
        CATGEOISO3166 => {
            let listed = claim.texts().ok_or(Refusal::Malformed)?;
            // A part of a country (`US-CA`) is in nobody's answer here, so it lets nobody in.
            let inside =
                request::country().is_some_and(|country| listed.iter().any(|one| one.eq_ignore_ascii_case(&country)));
            if inside { Ok(()) } else { refuse(Refusal::CountryMismatch) }
        }
        _ => told(label, Answer::Unknown),
    }
}

fn told(label: i64, answer: Answer) -> Result<(), Refusal> {
    match answer {
        Answer::Fits => Ok(()),
        Answer::Differs => Err(Refusal::OutOfScope),
        Answer::Unknown => {
            // Its MAC holds, so whoever makes the tokens should know.
            tools::log(
                tools::Level::Warn,
                &format!("a token asks for what cannot be held here, and is refused: claim {label}"),
            );
            Err(Refusal::Malformed)
        }
    }
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    }
}

/// Whether `network`, an address or a prefix of one in its tag, holds `address`. Numbers of autonomous systems hold nobody:
/// which one an address belongs to is not known here.
fn holds_address(network: &Value, address: IpAddr) -> bool {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    };
    let (tag, address) = octets(address.to_canonical());
    let Value::Tag(family, network) = network else { return false };
    if *family != tag {
        return false;
    }
    match &**network {
        Value::Bytes(one) => *one == address,
        Value::Array(prefix) => {
            let [Value::Integer(length), Value::Bytes(start)] = prefix.as_slice() else { return false };
            let Ok(length) = usize::try_from(*length) else { return false };
            length <= address.len() * 8 && start.len() <= address.len() && same_bits(start, &address, length)
        }
        _ => false,
    }
}

/// Trailing zero bytes of a prefix may be left out (RFC 9164, section 3.1.2).
fn same_bits(start: &[u8], address: &[u8], length: usize) -> bool {
    (0..length).all(|bit| {
        let of = |bytes: &[u8]| bytes.get(bit / 8).copied().unwrap_or(0) >> (7 - bit % 8) & 1;
        of(start) == of(address)
    })
}

/// A token's name as text where it is one, else in hex.
pub fn session(cti: &[u8]) -> String {
    match str::from_utf8(cti) {
        Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => text.to_owned(),
        _ => hex(cti),
    }
}

/// The claims that a grant asks for, by label.
pub fn of(grant: &Grant, origin: &str, path: &str) -> Result<Value, String> {
    let mut claims: Vec<(i64, Value)> = vec![(EXP, number(grant.expires)?), (CATV, 1.into())];
    let texts = |list: &str| Value::Array(list.split(',').map(|one| one.trim().into()).collect());
    let exactly = |kind: i64, text: &str| Value::Map(vec![(kind.into(), text.into())]);
    let mut parts = vec![];
    for (name, value) in &grant.options {
        match (name.as_str(), value.as_str()) {
            ("sub", sub) => claims.push((SUB, sub.into())),
            ("iss", issuer) => claims.push((ISS, issuer.into())),
            ("aud", list) if !list.contains(',') => claims.push((AUD, list.into())),
            ("aud", list) => claims.push((AUD, texts(list))),
            ("catm", list) => claims.push((CATM, texts(list))),
            ("catgeoiso3166", list) => claims.push((CATGEOISO3166, texts(list))),
            ("host", "exact") => {
                let host = origin.split_once("://").map_or(origin, |(_, host)| host);
                parts.push((uri::HOST.into(), exactly(uri::EXACT, &split_port(host).0.to_ascii_lowercase())));
            }
            _ => {
                return Err(format!(
                    "the option {name:?} = {value:?} is none of sub, iss, aud, catm, catgeoiso3166, host = \"exact\""
                ));
            }
        }
    }
    parts.push((
        uri::PATH.into(),
        grant.scope.as_ref().map_or_else(|| exactly(uri::EXACT, path), |scope| exactly(uri::PREFIX, scope)),
    ));
    claims.push((CATU, Value::Map(parts)));
    if let Some(start) = grant.not_before {
        claims.push((NBF, number(start)?));
    }
    if let Some(session) = &grant.session {
        claims.push((CTI, Value::Bytes(session.clone().into_bytes())));
    }
    if let Some(address) = &grant.address {
        claims.push((CATNIP, Value::Array(vec![network(address)?])));
    }
    claims.sort_by_key(|(label, _)| *label);
    if claims.windows(2).any(|two| two[0].0 == two[1].0) {
        return Err("an option is there twice".to_owned());
    }
    Ok(Value::Map(claims.into_iter().map(|(label, claim)| (label.into(), claim)).collect()))
}

fn number(seconds: u64) -> Result<Value, String> {
    i64::try_from(seconds).map(Value::Integer).map_err(|_| format!("{seconds} is no time"))
}

fn network(text: &str) -> Result<Value, String> {
    let bad = || format!("{text:?} is neither an address nor a network such as \"192.0.2.0/24\"");
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let (tag, octets) = match address {
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    };
    let Some(length) = length else { return Ok(Value::Tag(tag, Box::new(Value::Bytes(octets)))) };
    let length = length.parse::<u8>().ok().filter(|&length| usize::from(length) <= octets.len() * 8).ok_or_else(bad)?;
    Ok(Value::Tag(tag, Box::new(Value::Array(vec![i64::from(length).into(), Value::Bytes(octets)]))))
}
