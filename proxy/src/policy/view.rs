//! A request as its policies see it: references into what the steps before have found out.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};
use segue_policy_host::{Claims, Headers, Kind, RequestView};
use segue_signing::Verified;
use serde_json::Value;
use url::form_urlencoded;

use crate::client::Country;
use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::route::{Line, ObjectKind, Target};
use crate::ticket;

/// A request's headers, looked up as they are asked for.
pub(super) struct Fields<'h>(pub(super) &'h HeaderMap);

/// The claims of the ticket that was accepted, if any.
pub(super) struct Shown<'t>(pub(super) Option<&'t Verified>);

/// Up to so many headers a walk over them costs less than the map's look-up by a text, which parses and hashes it first.
const FEW: usize = 16;

impl Headers for Fields<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        if self.0.len() <= FEW {
            joined(self.0.iter().filter(|(key, _)| key.as_str() == name).map(|(_, value)| value))
        } else {
            joined(self.0.get_all(name).iter())
        }
    }
}

/// The values of one header as one (RFC 9110, section 5.3), without those that are no text.
fn joined<'h>(values: impl Iterator<Item = &'h HeaderValue>) -> Option<Cow<'h, str>> {
    let mut values = values.filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let all = [first, second].into_iter().chain(values);
    Some(Cow::Owned(all.collect::<Vec<_>>().join(", ")))
}

impl Claims for Shown<'_> {
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        let Verified { claims, kid, sid, .. } = self.0?;
        let text = |claim: &'_ Option<String>| claim.as_deref().map(|claim| Cow::Owned(claim.to_owned()));
        let number = |claim: Option<i64>| claim.map(|number| Cow::Owned(itoa::Buffer::new().format(number).to_owned()));
        match name {
            "sub" => claims.sub.as_deref().map(Cow::Borrowed),
            "sid" => Some(Cow::Borrowed(sid)),
            "kid" => Some(Cow::Borrowed(kid)),
            "path" => Some(Cow::Borrowed(&claims.path)),
            "lim" => text(&claims.lim),
            "ip" => text(&claims.ip),
            "exp" => number(Some(claims.exp)),
            "nbf" => number(claims.nbf),
            "iat" => number(claims.iat),
            _ => None,
        }
    }

    fn context(&self, pointer: &str) -> Option<Cow<'_, str>> {
        let ctx = self.0?.claims.ctx.as_ref()?;
        let Some(tokens) = pointer.strip_prefix('/') else {
            // RFC 6901, section 5: the empty pointer is the whole document.
            return if pointer.is_empty() { serde_json::to_string(ctx).ok().map(Cow::Owned) } else { None };
        };
        let mut tokens = tokens.split('/').map(unescaped);
        let mut value = ctx.get(&*tokens.next()?)?;
        for token in tokens {
            value = match value {
                Value::Object(map) => map.get(&*token)?,
                Value::Array(list) => list.get(index(&token)?)?,
                _ => return None,
            };
        }
        Some(match value {
            Value::String(text) => Cow::Borrowed(text),
            other => Cow::Owned(other.to_string()),
        })
    }
}

/// RFC 6901, section 3.
fn unescaped(token: &str) -> Cow<'_, str> {
    if token.contains('~') { Cow::Owned(token.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(token) }
}

/// RFC 6901, section 4: no sign, no leading zero.
fn index(token: &str) -> Option<usize> {
    let leads = token.len() > 1 && token.starts_with('0');
    if leads || !token.bytes().all(|byte| byte.is_ascii_digit()) { None } else { token.parse().ok() }
}

/// An object's kind in the contract's words.
fn kind(kind: ObjectKind) -> Kind {
    match kind {
        ObjectKind::Master => Kind::Master,
        ObjectKind::Playlist => Kind::Playlist,
        ObjectKind::Init => Kind::Init,
        ObjectKind::Segment => Kind::Segment,
        ObjectKind::Key => Kind::Key,
        ObjectKind::Other => Kind::Other,
    }
}

/// The host of the request, in lower case.
pub(super) fn host<'l>(line: &Line<'l>) -> Cow<'l, str> {
    let is_lower = !line.host.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_lower { Cow::Borrowed(line.host) } else { Cow::Owned(line.host.to_ascii_lowercase()) }
}

/// The query without what carries tickets; `foreign` names the parameters of somebody else's.
pub(super) fn query<'l>(line: &Line<'l>, foreign: &[String]) -> Option<Cow<'l, str>> {
    let query = line.query?;
    let is_carrier = |pair: &str| {
        let (name, _) = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
        ticket::is_carrier(&name) || foreign.iter().any(|parameter| *parameter == name)
    };
    if !query.split('&').any(is_carrier) {
        return Some(Cow::Borrowed(query));
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_carrier(pair)).collect();
    (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
}

/// The parts of a view that have to be made, so that the view can borrow them.
pub(super) struct Parts<'v> {
    pub(super) host: Cow<'v, str>,
    pub(super) query: Option<Cow<'v, str>>,
    pub(super) country: Option<Country>,
    pub(super) fields: Fields<'v>,
    pub(super) shown: Shown<'v>,
}

impl Parts<'_> {
    /// The view of an access policy. `session`: by whom a canary's share goes.
    pub(super) fn view<'v>(
        &'v self,
        shared: &'v Shared,
        asked: Asked<'v>,
        target: &'v Target,
        exchange: &Exchange,
        session: &'v str,
    ) -> RequestView<'v> {
        let media = exchange.placed.flatten();
        RequestView {
            method: asked.method.as_str(),
            host: &self.host,
            path: target.path.as_str(),
            query: self.query.as_deref(),
            track: target.track(),
            file: target.file(),
            kind: kind(target.kind),
            pos_ms: media.map(|media| media.pos_ms),
            media_ms: media.and_then(|media| u32::try_from(media.media_ms).ok()),
            address: exchange.client,
            country: self.country.as_ref().map(Country::as_str),
            edge: &shared.config.name,
            now_ms: exchange.started_ms,
            session,
            headers: &self.fields,
            claims: &self.shown,
        }
    }

    /// The view of a ticket scheme: path and query as they stand in the request line.
    pub(super) fn raw<'v>(
        &'v self,
        shared: &'v Shared,
        asked: Asked<'v>,
        line: &Line<'v>,
        target: Option<&'v Target>,
        exchange: &Exchange,
    ) -> RequestView<'v> {
        RequestView {
            method: asked.method.as_str(),
            host: &self.host,
            path: line.path,
            query: line.query,
            track: target.map_or("", Target::track),
            file: target.map_or("", Target::file),
            kind: kind(target.map_or_else(|| ObjectKind::of(line.path), |target| target.kind)),
            pos_ms: None,
            media_ms: None,
            address: exchange.client,
            country: self.country.as_ref().map(Country::as_str),
            edge: &shared.config.name,
            now_ms: exchange.started_ms,
            session: "",
            headers: &self.fields,
            claims: &(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use segue_signing::Claims as Said;

    use super::*;

    #[test]
    fn claims_and_context_are_read_as_the_contract_says() {
        let ctx = serde_json::json!({ "plan": { "tier": "gold", "a/b~c": [true, 7] }, "n": null });
        let said = Said {
            sub: Some("u".to_owned()),
            nbf: Some(5),
            ctx: ctx.as_object().cloned(),
            ..Said::new("/hls/t/", 1_900_000_000)
        };
        let verified = Verified::from_foreign(said, "k1".to_owned(), "s-1".to_owned()).unwrap();
        let shown = Shown(Some(&verified));
        for (name, value) in [
            ("sub", Some("u")),
            ("sid", Some("s-1")),
            ("kid", Some("k1")),
            ("path", Some("/hls/t/")),
            ("exp", Some("1900000000")),
            ("nbf", Some("5")),
            ("iat", None),
            ("lim", None),
            ("ctx", None),
        ] {
            assert_eq!(shown.claim(name).as_deref(), value, "{name}");
        }
        for (pointer, value) in [
            ("/plan/tier", Some("gold")),
            ("/plan/a~1b~0c/1", Some("7")),
            ("/plan/a~1b~0c/01", None),
            ("/plan/a~1b~0c", Some("[true,7]")),
            ("/n", Some("null")),
            ("/plan/tier/x", None),
            ("plan", None),
            ("/", None),
        ] {
            assert_eq!(shown.context(pointer).as_deref(), value, "{pointer}");
        }
        assert!(shown.context("").unwrap().contains("\"gold\""));
        assert_eq!(Shown(None).claim("sid"), None);
    }

    #[test]
    fn headers_of_one_name_are_joined_however_many_others_there_are() {
        let mut map = HeaderMap::new();
        for (name, value) in [("x-a", "1"), ("origin", "https://a"), ("x-a", "2"), ("x-b", "\u{e9}"), ("x-a", "3")] {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map.append("x-c", HeaderValue::from_bytes(b"\xff").unwrap());
        for more in 0..=FEW {
            let fields = Fields(&map);
            let got = |name| fields.get(name).map(Cow::into_owned);
            let all = (got("x-a").unwrap(), got("origin").unwrap(), got("x-b").unwrap(), got("x-c"), got("x-d"));
            let expected = ("1, 2, 3".to_owned(), "https://a".to_owned(), "\u{e9}".to_owned(), None, None);
            assert_eq!(all, expected, "beside {more} others");
            map.append(http::HeaderName::try_from(format!("x-more-{more}")).unwrap(), HeaderValue::from_static("y"));
        }
        assert!(map.len() > FEW, "both ways were taken");
    }

    #[test]
    fn what_carries_tickets_is_taken_out_of_the_query() {
        let line = |query| Line { path: "/", path_ticket: None, query, host: "" };
        let shown = |query| super::query(&line(Some(query)), &["md5".to_owned()]).map(Cow::into_owned);
        assert_eq!(shown("a=1&CMCD=x"), Some("a=1&CMCD=x".to_owned()));
        assert_eq!(shown("a=1&tick%65t=x&md5=y&b"), Some("a=1&b".to_owned()));
        assert_eq!(shown("ticket=x"), None);
        assert_eq!(query(&line(None), &[]), None);
    }
}
