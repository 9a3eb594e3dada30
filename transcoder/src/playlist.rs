//! Reading the media playlists that ffmpeg wrote (RFC 8216), to hold them against what was promised.

/// One segment line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    pub(crate) uri: String,
    /// Seconds, as written.
    pub(crate) seconds: f64,
}

/// A finished media playlist.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MediaPlaylist {
    pub(crate) segments: Vec<Segment>,
    pub(crate) target: u64,
    pub(crate) map: String,
}

impl MediaPlaylist {
    /// Parses a playlist of type VOD with one init section; says what is missing otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        if lines.next() != Some("#EXTM3U") {
            return Err("no #EXTM3U".to_owned());
        }
        let (mut segments, mut target, mut map, mut ended, mut seconds) = (Vec::new(), None, None, false, None);
        for line in lines {
            if let Some(value) = line.strip_prefix("#EXTINF:") {
                let value = value.split(',').next().unwrap_or_default();
                seconds = Some(value.parse::<f64>().map_err(|_| format!("EXTINF {value:?}"))?);
            } else if let Some(value) = line.strip_prefix("#EXT-X-TARGETDURATION:") {
                target = value.parse().ok();
            } else if let Some(value) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
                map = value.split('"').next().map(str::to_owned);
            } else if line == "#EXT-X-ENDLIST" {
                ended = true;
            } else if !line.starts_with('#') {
                let seconds = seconds.take().ok_or_else(|| format!("{line:?} has no EXTINF"))?;
                segments.push(Segment { uri: plain(line)?, seconds });
            }
        }
        let playlist = Self {
            segments,
            target: target.ok_or("no EXT-X-TARGETDURATION")?,
            map: plain(&map.ok_or("no EXT-X-MAP")?)?,
        };
        if !ended {
            return Err("no EXT-X-ENDLIST".to_owned());
        }
        if playlist.segments.is_empty() {
            return Err("no segments".to_owned());
        }
        // RFC 8216, 4.3.3.1: rounded to the nearest second, no segment is longer than the target.
        if let Some(segment) = playlist.segments.iter().find(|segment| segment.seconds.round() > playlist.target as f64)
        {
            return Err(format!("{} is longer than the target duration", segment.uri));
        }
        Ok(playlist)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.segments.iter().map(|segment| segment.seconds).sum()
    }
}

/// A name in the same folder: anything else would escape a ticket's path or name an object that nobody uploads.
fn plain(uri: &str) -> Result<String, String> {
    let fine = !uri.is_empty()
        && uri.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !uri.starts_with('.');
    if fine { Ok(uri.to_owned()) } else { Err(format!("{uri:?} is no plain name")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:6.013968,\nseg-00000.m4s\n#EXTINF:1.5,\nseg-00001.m4s\n#EXT-X-ENDLIST\n";

    #[test]
    fn what_ffmpeg_writes_is_read() {
        let playlist = MediaPlaylist::parse(GOOD).expect("parse");
        assert_eq!((playlist.segments.len(), playlist.target, playlist.map.as_str()), (2, 6, "init.mp4"));
        assert!((playlist.seconds() - 7.513968).abs() < 1e-9);
    }

    #[test]
    fn what_must_not_be_published_is_refused() {
        for (from, to) in [
            ("#EXT-X-ENDLIST\n", ""),
            ("seg-00001.m4s", "/seg-00001.m4s"),
            ("seg-00001.m4s", "http://x/seg"),
            ("TARGETDURATION:6", "TARGETDURATION:5"),
            ("init.mp4", "../init.mp4"),
            ("#EXTINF:1.5,\n", ""),
        ] {
            assert!(MediaPlaylist::parse(&GOOD.replacen(from, to, 1)).is_err(), "{from} -> {to}");
        }
    }
}
