//! The master playlist, from what was really encoded (RFC 8216, 4.3.4.2).
//!
//! BANDWIDTH is the largest bit rate of any run of segments that lasts between half and one and a half target
//! durations; AVERAGE-BANDWIDTH is all bits over all seconds.

use std::fmt::Write as _;

use crate::encode::SEGMENT;
use crate::playlist::SegmentFile;
use crate::queue::RenditionReport;

/// How far above what is known a rendition of which only the beginning is known is said to go.
const MARGIN: f64 = 1.1;

/// BANDWIDTH and AVERAGE-BANDWIDTH of these segments.
pub(crate) fn peak_and_average(segments: &[SegmentFile]) -> (u64, u64) {
    let parts: Vec<(u64, f64)> = segments.iter().map(|segment| (segment.bytes, segment.seconds)).collect();
    (peak(&parts, f64::from(SEGMENT)), average(&parts))
}

/// The master over growing playlists, beside the renditions' folders: each with its rate so far and the rate that its
/// encoder was asked for. Nobody knows a peak that is still to come; what is said is a little above both.
pub(crate) fn early(renditions: &[(RenditionReport, u64)]) -> String {
    let mut text = HEAD.to_owned();
    for (RenditionReport { name, bandwidth, codecs, .. }, asked) in renditions {
        let bandwidth = ((*bandwidth).max(*asked) as f64 * MARGIN) as u64;
        let _ = writeln!(text, "#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},CODECS=\"{codecs}\"\n{name}/live.m3u8");
    }
    text
}

const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n";

/// The text of the alias `hls/<track>/master.m3u8`: URIs lead into the version's folder.
pub(crate) fn master(version: &str, renditions: &[RenditionReport]) -> String {
    let (pictures, sounds): (Vec<_>, Vec<_>) = renditions.iter().partition(|rendition| rendition.resolution.is_some());
    if !pictures.is_empty() && !sounds.is_empty() {
        return film(version, &pictures, &sounds);
    }
    let mut text = HEAD.to_owned();
    for rendition in renditions {
        let RenditionReport { name, bandwidth, average_bandwidth, codecs, .. } = rendition;
        let _ = writeln!(
            text,
            "#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},AVERAGE-BANDWIDTH={average_bandwidth},CODECS=\"{codecs}\"\n{version}/{name}/index.m3u8"
        );
    }
    text
}

/// A film's: each rung of the picture is a variant with a group of one rung of the sound, the better the picture the
/// better the sound, and its rates are those of both together.
fn film(version: &str, pictures: &[&RenditionReport], sounds: &[&RenditionReport]) -> String {
    // Sound that every player of H.264 decodes comes before any other.
    let aac: Vec<_> = sounds.iter().copied().filter(|sound| sound.codecs.starts_with("mp4a")).collect();
    let sounds = if aac.is_empty() { sounds } else { &aac };
    let with = |n: usize| sounds.get(((n + 1) * sounds.len()).div_ceil(pictures.len()) - 1);
    let pairs: Vec<_> = pictures.iter().enumerate().filter_map(|(n, picture)| Some((*picture, *with(n)?))).collect();
    let mut text = HEAD.to_owned();
    let mut named: Vec<&str> = Vec::new();
    for (_, sound) in &pairs {
        if !named.contains(&sound.name.as_str()) {
            named.push(&sound.name);
            let name = &sound.name;
            let _ = writeln!(
                text,
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{name}\",NAME=\"Sound\",DEFAULT=YES,AUTOSELECT=YES,URI=\"{version}/{name}/index.m3u8\""
            );
        }
    }
    for (picture, sound) in pairs {
        let (resolution, rate) = (picture.resolution.as_deref().unwrap_or_default(), picture.frame_rate.unwrap_or(0.0));
        let _ = writeln!(
            text,
            "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{},{}\",RESOLUTION={resolution},FRAME-RATE={rate:.3},AUDIO=\"{}\"\n{version}/{}/index.m3u8",
            picture.bandwidth + sound.bandwidth,
            picture.average_bandwidth + sound.average_bandwidth,
            picture.codecs,
            sound.codecs,
            sound.name,
            picture.name
        );
    }
    text
}

fn rate(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (bytes as f64 * 8.0 / seconds).ceil() as u64 } else { 0 }
}

fn average(parts: &[(u64, f64)]) -> u64 {
    rate(parts.iter().map(|part| part.0).sum(), parts.iter().map(|part| part.1).sum())
}

fn peak(parts: &[(u64, f64)], target: f64) -> u64 {
    let (least, most) = (target * 0.5, target * 1.5);
    let mut peak = None;
    for start in 0..parts.len() {
        let (mut bytes, mut seconds) = (0, 0.0);
        for (size, length) in &parts[start..] {
            bytes += size;
            seconds += length;
            if seconds > most {
                break;
            }
            if seconds >= least {
                peak = peak.max(Some(rate(bytes, seconds)));
            }
        }
    }
    // A track shorter than half a target duration has no such run.
    peak.unwrap_or_else(|| average(parts)).max(average(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_last_segment_does_not_make_the_peak() {
        // 0.1 s with its own headers would be 160 kbit/s alone.
        let parts = [(60_000, 6.0), (75_000, 6.0), (2_000, 0.1)];
        assert_eq!(peak(&parts, 6.0), rate(77_000, 6.1));
        assert_eq!(average(&parts), rate(137_000, 12.1));
    }

    #[test]
    fn a_track_shorter_than_a_segment_has_its_own_rate() {
        assert_eq!(peak(&[(1_000, 1.0)], 6.0), 8_000);
    }

    fn sound(name: &str, bandwidth: u64) -> RenditionReport {
        RenditionReport {
            name: name.to_owned(),
            bandwidth,
            average_bandwidth: bandwidth - 1,
            codecs: "mp4a.40.2".to_owned(),
            gain_db: None,
            resolution: None,
            frame_rate: None,
        }
    }

    #[test]
    fn the_master_leads_into_the_version() {
        let text = master("0123456789abcdef-7", &[sound("a64", 70_000), sound("a128", 140_000)]);
        assert_eq!(
            text,
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXT-X-STREAM-INF:BANDWIDTH=70000,AVERAGE-BANDWIDTH=69999,CODECS=\"mp4a.40.2\"\n0123456789abcdef-7/a64/index.m3u8\n\
             #EXT-X-STREAM-INF:BANDWIDTH=140000,AVERAGE-BANDWIDTH=139999,CODECS=\"mp4a.40.2\"\n0123456789abcdef-7/a128/index.m3u8\n"
        );
    }

    #[test]
    fn a_films_master_pairs_pictures_with_sounds() {
        let picture = |name: &str, bandwidth, size: &str| RenditionReport {
            codecs: "avc1.64001f".to_owned(),
            resolution: Some(size.to_owned()),
            frame_rate: Some(29.97),
            ..sound(name, bandwidth)
        };
        let all =
            [sound("a64", 70), sound("a128", 140), picture("v360", 800, "640x360"), picture("v720", 2500, "1280x720")];
        let text = master("v-1", &all);
        assert_eq!(
            text,
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a64\",NAME=\"Sound\",DEFAULT=YES,AUTOSELECT=YES,URI=\"v-1/a64/index.m3u8\"\n\
             #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a128\",NAME=\"Sound\",DEFAULT=YES,AUTOSELECT=YES,URI=\"v-1/a128/index.m3u8\"\n\
             #EXT-X-STREAM-INF:BANDWIDTH=870,AVERAGE-BANDWIDTH=868,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=640x360,FRAME-RATE=29.970,AUDIO=\"a64\"\nv-1/v360/index.m3u8\n\
             #EXT-X-STREAM-INF:BANDWIDTH=2640,AVERAGE-BANDWIDTH=2638,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO=\"a128\"\nv-1/v720/index.m3u8\n"
        );
        let one = master("v-1", &[sound("a64", 70), sound("a256", 270), picture("v360", 800, "640x360")]);
        assert!(one.contains("AUDIO=\"a256\"") && !one.contains("a64"), "the best sound with the only picture: {one}");
    }
}
