//! Step one: what is asked for. Host and path lead to a route, a track, a file and its kind.
//!
//! Invariants: the path is decoded once, into its canonical form, and everything later (ticket scope, cache key,
//! origin key) speaks of that form; a ticket in the path is taken off before. Nothing is allocated but the path.
//!
//! On failure: a path that is not canonical, or that no route matches, is a refusal.

use std::ops::Range;

use segue_signing::CanonicalPath;

use crate::config::{PlaylistMode, RouteConfig};
use crate::exchange::Asked;
use crate::refusal::Refusal;

/// The first path segment of the path carrier: `/p/<ticket>/hls/…`.
const PATH_CARRIER: &str = "/p/";

/// What an object is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ObjectKind {
    /// A track's alias: a playlist that stands directly under the track.
    Master,
    /// A playlist deeper down.
    Playlist,
    /// The initialisation section of fragmented MP4 (RFC 8216, section 4.3.2.5).
    Init,
    /// A media segment.
    Segment,
    /// A decryption key.
    Key,
    /// Anything else: artwork, waveform, captions.
    Other,
}

/// What the transcoder calls a growing playlist, and the master over those, to which renditions are added.
const GROWING: [&str; 2] = ["live.m3u8", "early.m3u8"];

impl ObjectKind {
    pub(crate) fn of(file: &str) -> Self {
        let name = file.rsplit('/').next().unwrap_or(file);
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension {
            "m3u8" if file.contains('/') => Self::Playlist,
            "m3u8" => Self::Master,
            "mp4" if name.starts_with("init") => Self::Init,
            "m4s" | "mp4" | "cmfa" | "cmfv" | "m4a" | "m4v" | "ts" | "aac" | "mp3" | "ac3" | "ec3" => Self::Segment,
            "key" => Self::Key,
            _ => Self::Other,
        }
    }

    /// Whether its delivery is a fact.
    pub(crate) fn is_media(self) -> bool {
        matches!(self, Self::Init | Self::Segment)
    }
}

/// `Content-Type` by name, for origins that say nothing better than `application/octet-stream`.
/// Playlists: RFC 8216, section 4; `audio/mp4` for fragments: RFC 4337 and the CMAF registration.
pub(crate) fn content_type(file: &str) -> &'static str {
    match file.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "m3u8" => "application/vnd.apple.mpegurl",
        "m4s" | "mp4" | "cmfa" | "m4a" => "audio/mp4",
        "m4v" | "cmfv" => "video/mp4",
        "ts" => "video/mp2t",
        "aac" => "audio/aac",
        "mp3" => "audio/mpeg",
        "vtt" => "text/vtt",
        "json" => "application/json",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        _ => "application/octet-stream",
    }
}

/// A path pattern with one `{track}` in it, or a prefix template of the same form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    before: String,
    after: String,
}

impl Pattern {
    /// Reads `/hls/{track}/` and its like.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (before, after) = text
            .split_once("{track}")
            .ok_or_else(|| format!("{text:?} names no track; write for example \"/hls/{{track}}/\""))?;
        if !before.starts_with('/') || !before.ends_with('/') || !after.starts_with('/') || !after.ends_with('/') {
            return Err(format!(
                "{text:?}: {{track}} must be a whole segment, and the pattern must start and end with /"
            ));
        }
        if after.contains('{') || before.contains("//") || after.contains("//") {
            return Err(format!("{text:?} holds a second placeholder or an empty segment"));
        }
        if before.starts_with(PATH_CARRIER) {
            return Err(format!("{text:?}: what follows {PATH_CARRIER} is a ticket; choose another first segment"));
        }
        Ok(Self { before: before.to_owned(), after: after.to_owned() })
    }

    /// Where track and file stand in `path`.
    fn find(&self, path: &str) -> Option<(Range<usize>, usize)> {
        let rest = path.strip_prefix(self.before.as_str())?;
        let length = rest.find('/')?;
        let start = self.before.len();
        let file = start + length + self.after.len();
        let fits = length > 0 && rest.get(length..)?.starts_with(self.after.as_str()) && path.len() > file;
        fits.then_some((start..start + length, file))
    }
}

/// A configured route.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its place in the configuration; part of cache keys.
    pub(crate) index: u16,
    /// The place of its origin among the edge's origins.
    pub(crate) origin: usize,
    pub(crate) playlist: PlaylistMode,
    host: Option<String>,
    pattern: Pattern,
    prefix: Option<String>,
}

impl Route {
    /// Builds one; `origin` is the place of its origin, `playlist` the mode where the route names none.
    ///
    /// # Errors
    /// A sentence about the pattern.
    pub(crate) fn new(index: u16, origin: usize, config: &RouteConfig, playlist: PlaylistMode) -> Result<Self, String> {
        let pattern = Pattern::parse(&config.path)?;
        let host = config.host.as_ref().map(|host| host.to_ascii_lowercase());
        let prefix = config.prefix.as_ref().map(|prefix| prefix.trim_start_matches('/').to_owned());
        Ok(Self { index, origin, playlist: config.playlist.unwrap_or(playlist), host, pattern, prefix })
    }

    /// The origin's key for `path` (decoded, no leading slash), without the origin's own prefix.
    pub(crate) fn key(&self, path: &str, track: &str, file: &str) -> String {
        match &self.prefix {
            Some(prefix) => format!("{}{file}", prefix.replace("{track}", track)),
            None => path.trim_start_matches('/').to_owned(),
        }
    }

    /// What stands under `key` at the origin: the way back of [`Route::key`]. `place` is the route's own.
    pub(crate) fn target_of(&self, place: usize, key: &str) -> Option<Target> {
        let path = match &self.prefix {
            Some(prefix) => {
                let (before, after) = prefix.split_once("{track}")?;
                let rest = key.strip_prefix(before)?;
                let (track, _) = rest.split_once('/')?;
                let file = rest.get(track.len()..)?.strip_prefix(after)?;
                format!("{}{track}{}{file}", self.pattern.before, self.pattern.after)
            }
            None => format!("/{key}"),
        };
        let path = CanonicalPath::parse(&path).ok()?;
        let (track, file) = self.pattern.find(path.as_str())?;
        let kind = ObjectKind::of(path.as_str().get(file..)?);
        Some(Target { route: place, path, kind, track, file })
    }
}

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Target {
    /// The route's place.
    pub(crate) route: usize,
    /// The canonical path, without a ticket.
    pub(crate) path: CanonicalPath,
    pub(crate) kind: ObjectKind,
    track: Range<usize>,
    file: usize,
}

impl Target {
    pub(crate) fn track(&self) -> &str {
        self.path.as_str().get(self.track.clone()).unwrap_or_default()
    }

    /// Everything after the track.
    pub(crate) fn file(&self) -> &str {
        self.path.as_str().get(self.file..).unwrap_or_default()
    }

    /// The path up to and with the slash in front of the file.
    pub(crate) fn track_root(&self) -> &str {
        self.path.as_str().get(..self.file).unwrap_or_default()
    }

    /// The version folder, where the object stands in one: `<16 hex digits>-<fence>`.
    pub(crate) fn version(&self) -> Option<&str> {
        let (folder, _) = self.file().split_once('/')?;
        let (hash, fence) = folder.split_once('-')?;
        let is_version = hash.len() == 16
            && hash.bytes().all(|b| b.is_ascii_hexdigit())
            && !fence.is_empty()
            && fence.bytes().all(|b| b.is_ascii_alphanumeric());
        is_version.then_some(folder)
    }

    /// Whether its bytes never change: what stands in a version folder, but for the playlists that grow while their track
    /// is encoded.
    pub(crate) fn is_immutable(&self) -> bool {
        self.version().is_some() && !self.is_growing()
    }

    /// A playlist of a track that is still encoded: by the names that are written more than once, in whatever folder.
    pub(crate) fn is_growing(&self) -> bool {
        self.kind == ObjectKind::Playlist && self.file().rsplit('/').next().is_some_and(|name| GROWING.contains(&name))
    }

    /// The file inside its version, or inside its track.
    pub(crate) fn file_in_version(&self) -> &str {
        match self.version() {
            Some(version) => self.file().get(version.len() + 1..).unwrap_or_default(),
            None => self.file(),
        }
    }

    /// The same route and track, another path.
    pub(crate) fn sibling(&self, path: CanonicalPath) -> Option<Self> {
        if !path.as_str().starts_with(self.track_root()) || path.as_str().len() <= self.file {
            return None;
        }
        let kind = ObjectKind::of(path.as_str().get(self.file..)?);
        Some(Self { route: self.route, path, kind, track: self.track.clone(), file: self.file })
    }
}

/// What the request line and the `Host` header say, before any of it is believed.
pub(crate) struct Line<'h> {
    /// The path without its ticket, still encoded.
    pub(crate) path: &'h str,
    /// The ticket of the path carrier, as it stands.
    pub(crate) path_ticket: Option<&'h str>,
    /// The query, as it stands.
    pub(crate) query: Option<&'h str>,
    /// Without the port, as it was written.
    pub(crate) host: &'h str,
}

/// Takes the request line apart.
pub(crate) fn line<'h>(asked: impl Into<Asked<'h>>) -> Line<'h> {
    let asked = asked.into();
    let path = asked.path;
    // A ticket with nothing behind it is taken off all the same: what remains is written into records.
    let (path_ticket, path) = match path.strip_prefix(PATH_CARRIER) {
        // A ticket is some hundreds of bytes: worth the wide search.
        Some(rest) => match memchr::memchr(b'/', rest.as_bytes()).map(|end| rest.split_at(end)) {
            Some((ticket, path)) => (Some(ticket), path),
            None => (Some(rest), "/"),
        },
        None => (None, path),
    };
    let host = asked.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or(asked.authority).unwrap_or_default();
    let host = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |h| h.0);
    Line { path, path_ticket, query: asked.query, host }
}

/// Finds the route. Where the object is in no route at all, the ticket is not looked at either.
///
/// # Errors
/// [`Refusal::Path`] and [`Refusal::NoRoute`].
pub(crate) fn resolve(routes: &[Route], line: &Line<'_>) -> Result<Target, Refusal> {
    let _step = tracing::trace_span!("route").entered();
    find(routes, CanonicalPath::parse(line.path)?, line.host)
}

/// The same of a path that is decoded.
///
/// # Errors
/// [`Refusal::NoRoute`].
pub(crate) fn find(routes: &[Route], path: CanonicalPath, host: &str) -> Result<Target, Refusal> {
    // An encoded or a second carrier: what follows may be a ticket, which must not become the name of an object.
    if path.as_str().starts_with(PATH_CARRIER) {
        return Err(Refusal::NoRoute);
    }
    for (place, route) in routes.iter().enumerate() {
        if route.host.as_ref().is_some_and(|known| !known.eq_ignore_ascii_case(host)) {
            continue;
        }
        if let Some((track, file)) = route.pattern.find(path.as_str()) {
            let kind = ObjectKind::of(path.as_str().get(file..).unwrap_or_default());
            return Ok(Target { route: place, path, kind, track, file });
        }
    }
    Err(Refusal::NoRoute)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pingora_http::RequestHeader;

    use super::*;

    fn routes(all: &[(Option<&str>, &str, Option<&str>)]) -> Vec<Route> {
        let config = |(host, path, prefix): &(Option<&str>, &str, Option<&str>)| RouteConfig {
            host: host.map(str::to_owned),
            path: (*path).to_owned(),
            origin: "default".to_owned(),
            prefix: prefix.map(str::to_owned),
            playlist: None,
        };
        all.iter()
            .zip(0..)
            .map(|(route, index)| Route::new(index, 0, &config(route), PlaylistMode::Path).unwrap())
            .collect()
    }

    fn request(host: &'static str, target: &str) -> RequestHeader {
        let mut header = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        header.insert_header("Host", host).unwrap();
        header
    }

    #[test]
    fn the_contracts_layout_is_taken_apart() {
        let routes = routes(&[(None, "/hls/{track}/", None)]);
        let header = request("e", "/p/t.t.t/hls/abc/0123456789abcdef-7/a128/seg-00001.m4s?x=1");
        let line = line(&header);
        assert_eq!((line.path_ticket, line.query), (Some("t.t.t"), Some("x=1")));
        let target = resolve(&routes, &line).unwrap();
        assert_eq!((target.track(), target.kind), ("abc", ObjectKind::Segment));
        assert_eq!((target.version(), target.file_in_version()), (Some("0123456789abcdef-7"), "a128/seg-00001.m4s"));
        assert_eq!(target.track_root(), "/hls/abc/");
    }

    #[test]
    fn a_ticket_with_nothing_behind_it_never_becomes_a_path() {
        let header = request("e", "/p/secret%zz");
        assert_eq!((line(&header).path_ticket, line(&header).path), (Some("secret%zz"), "/"));
    }

    #[test]
    fn hosts_and_prefixes_choose_the_key() {
        let routes =
            routes(&[(Some("Music.example"), "/{track}/", Some("audio/{track}/hls/")), (None, "/hls/{track}/", None)]);
        let header = request("music.EXAMPLE:8443", "/t1/a/b.ts");
        let target = resolve(&routes, &line(&header)).unwrap();
        assert_eq!(
            routes[target.route].key(target.path.as_str(), target.track(), target.file()),
            "audio/t1/hls/a/b.ts"
        );
        let header = request("other", "/hls/t1/b.ts");
        let target = resolve(&routes, &line(&header)).unwrap();
        assert_eq!(routes[target.route].key(target.path.as_str(), target.track(), target.file()), "hls/t1/b.ts");
        for carrier in ["/%70/t.t.t/a.ts", "/p/x/p/t.t.t/a.ts"] {
            assert!(resolve(&routes, &line(&request("music.example", carrier))).is_err(), "{carrier}");
        }
        for nowhere in ["/hls/t1/", "/hls/t1", "/hls//b.ts", "/"] {
            assert!(resolve(&routes, &line(&request("other", nowhere))).is_err(), "{nowhere}");
        }
    }

    #[test]
    fn kinds_go_by_name() {
        for (file, kind) in [
            ("master.m3u8", ObjectKind::Master),
            ("v-1/a/index.m3u8", ObjectKind::Playlist),
            ("a/init.mp4", ObjectKind::Init),
            ("a/init-0.mp4", ObjectKind::Init),
            ("a/seg.m4s", ObjectKind::Segment),
            ("a/movie.mp4", ObjectKind::Segment),
            ("k.key", ObjectKind::Key),
            ("waveform.json", ObjectKind::Other),
            ("noextension", ObjectKind::Other),
        ] {
            assert_eq!(ObjectKind::of(file), kind, "{file}");
        }
    }

    #[test]
    fn all_of_a_version_is_immutable_but_its_growing_playlists() {
        let routes = [Route::new(0, 0, &RouteConfig::contract(), PlaylistMode::Path).unwrap()];
        for (file, immutable, growing) in [
            ("0123456789abcdef-7/a64/seg-00001.m4s", true, false),
            ("0123456789abcdef-7/a64/index.m3u8", true, false),
            ("0123456789abcdef-7/early.m3u8", false, true),
            ("early.m3u8", false, false),
            ("0123456789abcdef-7/a64/live.m3u8", false, true),
            ("0123456789abcdef-7/a64/olive.m3u8", true, false),
            ("master.m3u8", false, false),
        ] {
            let header = request("h", &format!("/hls/t/{file}"));
            let target = resolve(&routes, &line(&header)).unwrap();
            assert_eq!((target.is_immutable(), target.is_growing()), (immutable, growing), "{file}");
        }
    }

    #[test]
    fn patterns_that_match_nothing_sensible_are_refused() {
        for wrong in [
            "/hls/",
            "hls/{track}/",
            "/hls/{track}",
            "/hls/x{track}/",
            "/a//{track}/",
            "/{track}/{track}/",
            "/p/{track}/",
        ] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
