//! Just enough of RFC 8216 to know which segments a playlist names, when they play, and which playlists a master names.
//!
//! Invariants: never panics, whatever the text; a URI that leads to another host or is not canonical is passed over.

use segue_signing::CanonicalPath;
use url::Url;

use super::Media;

/// The segments of a media playlist at `path`, each with its place.
pub(crate) fn segments(path: &str, text: &str) -> Vec<(CanonicalPath, Media)> {
    let Some(base) = base(path) else { return Vec::new() };
    let mut segments = Vec::new();
    let (mut at_us, mut length_us) = (0_u64, None);
    let (mut sequence, mut ended) = (0_u64, false);
    for line in text.lines().map(str::trim) {
        if let Some(value) = line.strip_prefix("#EXTINF:") {
            length_us = microseconds(value.split(',').next().unwrap_or_default());
        } else if let Some(value) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
            sequence = value.parse().unwrap_or(0);
        } else if line == "#EXT-X-ENDLIST" {
            ended = true;
        } else if !line.is_empty() && !line.starts_with('#') {
            let Some(length) = length_us.take() else { continue };
            let end = at_us.saturating_add(length);
            if let Some(segment) = resolve(&base, line) {
                segments.push((segment, Media { pos_ms: milliseconds(at_us), media_ms: milliseconds(length) }));
            }
            at_us = end;
        }
    }
    if sequence > 0 && !ended { Vec::new() } else { segments }
}

/// What a player asks for first of a media playlist at `path`: its init segment, the first key, and where the playlist has ended
/// `count` segments from its start (in one that goes on, players begin at its end). URIs with a query are passed over:
/// it may be a part of the object's name, and it may be a ticket.
pub(crate) fn opening(path: &str, text: &str, count: usize) -> Vec<CanonicalPath> {
    let Some(base) = base(path) else { return Vec::new() };
    let of = |tag: &str| {
        let attributes = text.lines().map(str::trim).find_map(|line| line.strip_prefix(tag))?;
        attributes.split_once("URI=\"")?.1.split('"').next()
    };
    // A key of another format than the default one is for a player's own licence system, and nothing of ours.
    let before = [of("#EXT-X-MAP:"), of("#EXT-X-KEY:METHOD=AES-128,")].into_iter().flatten();
    let count = count + before.clone().count();
    let mut found: Vec<CanonicalPath> = Vec::new();
    let mut uris = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let has_ended = text.lines().any(|line| line.trim() == "#EXT-X-ENDLIST");
    let first = std::iter::from_fn(|| if has_ended { uris.next() } else { None });
    for uri in before.chain(first) {
        let path = if uri.contains('?') { None } else { resolve(&base, uri) };
        found.extend(path.filter(|path| !found.contains(path)));
        if found.len() >= count {
            break;
        }
    }
    found
}

/// The media playlists that a master playlist at `path` names: variants and renditions.
pub(crate) fn renditions(path: &str, text: &str) -> Vec<CanonicalPath> {
    let Some(base) = base(path) else { return Vec::new() };
    let mut found = Vec::new();
    let mut variant = false;
    for line in text.lines().map(str::trim) {
        let uri = if line.starts_with("#EXT-X-STREAM-INF:") {
            variant = true;
            None
        } else if line.starts_with("#EXT-X-MEDIA:") {
            line.split_once("URI=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(uri, _)| uri)
        } else if !line.is_empty() && !line.starts_with('#') {
            std::mem::take(&mut variant).then_some(line)
        } else {
            None
        };
        if let Some(path) = uri.and_then(|uri| resolve(&base, uri))
            && !found.contains(&path)
        {
            found.push(path);
        }
    }
    found
}

fn base(path: &str) -> Option<Url> {
    let path = CanonicalPath::from_decoded(path).ok()?;
    Url::parse(&format!("http://playlist.invalid{}", path.encoded())).ok()
}

/// A URI of a playlist, resolved as RFC 3986, section 5 says.
fn resolve(base: &Url, uri: &str) -> Option<CanonicalPath> {
    let url = base.join(uri).ok()?;
    (url.origin() == base.origin()).then(|| CanonicalPath::parse(url.path()).ok()).flatten()
}

/// Decimal seconds (RFC 8216, section 4.2) in microseconds; digits beyond the sixth are dropped.
fn microseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let padded = format!("{:0<6}", fraction.get(..6).unwrap_or(fraction));
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(padded.parse().ok()?)
}

fn milliseconds(microseconds: u64) -> u64 {
    microseconds.saturating_add(500) / 1000
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn positions_are_sums_that_do_not_drift() {
        let mut text = "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n".to_owned();
        for n in 0..1000 {
            text.push_str(&format!("#EXTINF:5.994333,\nseg-{n:05}.m4s\n"));
        }
        let segments = segments("/hls/t/v/a128/index.m3u8", &text);
        let (path, media) = segments.last().unwrap();
        assert_eq!(path.as_str(), "/hls/t/v/a128/seg-00999.m4s");
        assert_eq!(*media, Media { pos_ms: 5_988_339, media_ms: 5_994 });
    }

    #[test]
    fn a_sliding_window_has_no_positions() {
        let text = "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:6,\na.ts\n";
        assert!(segments("/hls/t/index.m3u8", text).is_empty());
        assert_eq!(segments("/hls/t/index.m3u8", &format!("{text}#EXT-X-ENDLIST\n")).len(), 1);
    }

    #[test]
    fn uris_are_resolved_and_foreign_ones_passed_over() {
        let text =
            "#EXTM3U\n#EXTINF:6,\n../b/s%20p.ts?x=1\n#EXTINF:2.5,\nhttps://elsewhere.example/x.ts\n#EXTINF:1,\nc.ts\n";
        let found = segments("/hls/t/a/index.m3u8", text);
        let names: Vec<_> = found.iter().map(|(path, media)| (path.as_str(), media.pos_ms)).collect();
        assert_eq!(names, [("/hls/t/b/s p.ts", 0), ("/hls/t/a/c.ts", 8_500)]);
    }

    #[test]
    fn a_master_names_variants_and_renditions_once() {
        let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",URI=\"v/a64/index.m3u8\"\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv/a64/index.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nv/a128/index.m3u8\nstray.m3u8\n";
        let found = renditions("/hls/t/master.m3u8", text);
        let names: Vec<_> = found.iter().map(CanonicalPath::as_str).collect();
        assert_eq!(names, ["/hls/t/v/a64/index.m3u8", "/hls/t/v/a128/index.m3u8"]);
    }

    #[test]
    fn nonsense_is_passed_over() {
        let text = "#EXTINF:-3,\na\n#EXTINF:99999999999999999999,\nb\n#EXTINF:,\nc\n#EXTINF:1e3,\nd\n";
        let found = segments("/hls/t/index.m3u8", text);
        assert!(found.iter().all(|(path, _)| path.as_str().ends_with("/c")), "{found:?}");
    }
}
