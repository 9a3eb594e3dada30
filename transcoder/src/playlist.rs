//! Media playlists (RFC 8216) of renditions: growing, ended, and whole.
//!
//! Invariants: every name in them is one of ours, relative to the playlist; a growing playlist only ever gets longer; no
//! segment is longer than the target duration, rounded (4.3.3.1).

use std::fmt::Write as _;

use crate::encode::SEGMENT;

/// One file of a rendition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
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
        (0..count).map(|n| SegmentFile { name: format!("seg-{n:05}.m4s"), bytes: 1, seconds: 6.013_968 }).collect()
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
    fn a_playlist_for_another_folder_leads_there_with_every_name() {
        let text = media(State::Growing, "../../v-2/a64/", "init.mp4", &segments(1));
        assert!(
            text.contains("URI=\"../../v-2/a64/init.mp4\"") && text.contains("\n../../v-2/a64/seg-00000.m4s\n"),
            "{text}"
        );
    }
}
