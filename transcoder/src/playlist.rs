//! Media playlists (RFC 8216) of renditions: growing, ended, and whole.
//!
//! Invariants: every name in them is one of ours, relative to the playlist; a growing playlist only ever gets longer; no
//! segment is longer than the target duration, rounded (4.3.3.1).

use std::fmt::Write as _;

use crate::encode::SEGMENT;
use crate::encrypt::Lock;
use crate::source::hex;

/// One file of a rendition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// How it is encrypted, where it is.
    pub(crate) lock: Option<Lock>,
}

/// What a playlist says about its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// More will follow.
    Growing,
    /// It grew, and this is all of it.
    Ended,
    /// It was whole from the start.
    Whole,
}

/// The text, with `prefix` before every name.
pub(crate) fn media(state: State, prefix: &str, init: &str, segments: &[SegmentFile]) -> String {
    let kind = if state == State::Whole { "VOD" } else { "EVENT" };
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{SEGMENT}\n#EXT-X-MEDIA-SEQUENCE:0\n\
         #EXT-X-PLAYLIST-TYPE:{kind}\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"{prefix}{init}\"\n"
    );
    for segment in segments {
        // The init section stands before the first of these, so that none of them speaks of it (4.3.2.5).
        if let Some(Lock { key, iv }) = &segment.lock {
            let _ = writeln!(text, "#EXT-X-KEY:METHOD=AES-128,URI=\"{prefix}{key}\",IV=0x{}", hex(iv));
        }
        let _ = write!(text, "#EXTINF:{:.6},\n{prefix}{}\n", segment.seconds, segment.name);
    }
    if state != State::Growing {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}

/// How many segments a playlist of ours names, and whether it has ended.
pub(crate) fn read(text: &str) -> (usize, bool) {
    let segments = text.lines().filter(|line| line.starts_with("#EXTINF:")).count();
    (segments, text.lines().any(|line| line == "#EXT-X-ENDLIST"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(count: usize) -> Vec<SegmentFile> {
        (0..count)
            .map(|n| SegmentFile { name: format!("seg-{n:05}.m4s"), bytes: 1, seconds: 6.013_968, lock: None })
            .collect()
    }

    #[test]
    fn a_growing_playlist_is_the_beginning_of_the_ended_one() {
        let growing = media(State::Growing, "", "init.mp4", &segments(2));
        let ended = media(State::Ended, "", "init.mp4", &segments(3));
        assert!(ended.starts_with(&growing), "{growing}\n{ended}");
        assert_eq!((read(&growing), read(&ended)), ((2, false), (3, true)));
        assert!(media(State::Whole, "", "init.mp4", &segments(1)).contains("#EXT-X-PLAYLIST-TYPE:VOD\n"));
    }

    #[test]
    fn each_segment_says_how_it_is_locked_and_the_init_section_is_open() {
        let mut segments = segments(2);
        for (n, segment) in segments.iter_mut().enumerate() {
            segment.lock = Some(Lock { key: format!("key-{n:05}.key"), iv: [n as u8; 16] });
        }
        let text = media(State::Whole, "../v-2/", "init.mp4", &segments);
        let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("#EXT-X-MAP")).collect();
        assert_eq!(
            lines[..4],
            [
                "#EXT-X-MAP:URI=\"../v-2/init.mp4\"",
                "#EXT-X-KEY:METHOD=AES-128,URI=\"../v-2/key-00000.key\",IV=0x00000000000000000000000000000000",
                "#EXTINF:6.013968,",
                "../v-2/seg-00000.m4s"
            ]
        );
        assert_eq!(
            lines[4],
            "#EXT-X-KEY:METHOD=AES-128,URI=\"../v-2/key-00001.key\",IV=0x01010101010101010101010101010101"
        );
        assert_eq!(read(&text), (2, true));
    }

    #[test]
    fn a_playlist_for_another_folder_leads_there_with_every_name() {
        let text = media(State::Growing, "../../v-2/a64/", "init.mp4", &segments(1));
        assert!(
            text.contains("URI=\"../../v-2/a64/init.mp4\"") && text.contains("\n../../v-2/a64/seg-00000.m4s\n"),
            "{text}"
        );
    }
}
