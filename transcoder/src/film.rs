//! The picture of a film before it is decoded: is there one, how is it shown, and which renditions does it get.
//!
//! Invariants: a still picture is artwork, never a film; size and rate are judged before anything is decoded; no
//! rendition is larger than the picture as it is shown; sides are even; all renditions have the same rate.

use serde_json::Value;

use crate::config::Video;
use crate::ladder::{Coding, Rung};
use crate::reject::{Failure, Reason};

/// Codecs whose streams are as often one picture as a film.
const STILLS: [&str; 9] = ["mjpeg", "png", "bmp", "gif", "webp", "tiff", "jpeg2000", "ljpeg", "mjpegb"];
/// Rates of renditions, as numerator and denominator. A source between two of them gets the higher one: no picture of it
/// is lost.
const RATES: [(u32, u32); 12] = [
    (10, 1),
    (12, 1),
    (15, 1),
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (48, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
];
/// Pixels by which a decoder's own picture may be longer on a side than the one that it shows.
const EDGE: u64 = 128;
/// What a source that does not say its rate gets.
const USUAL: f64 = 25.0;
/// Pictures per second of a source beyond which it is no film but a way to keep a decoder busy.
const RATE_MAX: f64 = 300.0;
/// Seconds from one key picture to the next: where a player can begin when it seeks. A segment is a multiple of it.
const KEY: u32 = 2;
/// The least rate of a rendition.
const LEAST: u64 = 100_000;

/// A film's picture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Film {
    /// Index of its stream.
    pub(crate) stream: u32,
    /// Upright, in square pixels; never larger than what is decoded.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Of one decoded picture, and what more of it is refused by the decoder: blocks at its edges count there.
    pub(crate) pixels: u64,
    /// Pictures per second of every rendition.
    pub(crate) rate: (u32, u32),
    /// Seconds by which the sound begins after the container does.
    pub(crate) delay: f64,
}

/// One rendition's picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) rate: (u32, u32),
    pub(crate) preset: &'static str,
}

impl Picture {
    /// Ticks per second of its track, and of one picture: whole numbers, so that lengths add up.
    pub(crate) fn ticks(self) -> (u32, u32) {
        let (numerator, denominator) = self.rate;
        if numerator < 1000 { (numerator * 1000, denominator * 1000) } else { (numerator, denominator) }
    }

    /// Options of the encoder, and of what it gives through the pipe: fragments of [`KEY`] seconds, each of which begins
    /// with a key picture that nothing refers across. The time of every such picture follows from the rate alone, so
    /// that all renditions have them at the same times; a change of scene makes none.
    pub(crate) fn coder(self, bit_rate: u64) -> Vec<String> {
        let (rate, most, buffer) = (bit_rate.to_string(), (bit_rate * 3 / 2).to_string(), (bit_rate * 2).to_string());
        let (key, ticks) = (format!("expr:gte(t,n_forced*{KEY})"), self.ticks().0.to_string());
        #[rustfmt::skip]
        let words = [
            "-c:v", "libx264", "-preset", self.preset, "-profile:v", "high", "-b:v", &rate, "-maxrate", &most,
            "-bufsize", &buffer, "-sc_threshold", "0", "-g", "100000", "-keyint_min", "1", "-force_key_frames", &key,
            // So many threads on every machine: their number is in the bytes.
            "-x264-params", "open-gop=0:threads=2", "-video_track_timescale", &ticks, "-f", "mp4", "-movflags",
            "+cmaf+empty_moov+default_base_moof+frag_keyframe+negative_cts_offsets+skip_trailer",
        ];
        words.map(str::to_owned).to_vec()
    }

    pub(crate) fn per_second(self) -> f64 {
        f64::from(self.rate.0) / f64::from(self.rate.1)
    }
}

/// Whether a stream that ffprobe calls video is a cover or another still.
pub(crate) fn is_still(stream: &Value) -> bool {
    let marked = |name: &str| stream["disposition"][name] == 1;
    if marked("attached_pic") || marked("still_image") || marked("timed_thumbnails") {
        return true;
    }
    let one = stream["nb_frames"] == "1" || ratio(&stream["avg_frame_rate"]).is_none();
    one && stream["codec_name"].as_str().is_some_and(|codec| STILLS.contains(&codec))
}

/// The film among the streams of ffprobe's answer, if there is one; refused where it is larger than is taken.
pub(crate) fn film(config: &Video, answer: &Value, streams: &[Value], audio: &Value) -> Result<Option<Film>, Failure> {
    if !config.enabled {
        return Ok(None);
    }
    let known = |stream: &&Value| !matches!(stream["codec_name"].as_str(), None | Some("unknown" | "none"));
    let is_film = |stream: &&Value| stream["codec_type"] == "video" && !is_still(stream);
    let Some(stream) = streams.iter().filter(is_film).find(known) else { return Ok(None) };
    let side = |name: &str| stream[name].as_u64().filter(|side| (2..=u64::from(u16::MAX)).contains(side));
    let (Some(index), Some(width), Some(height)) = (stream["index"].as_u64(), side("width"), side("height")) else {
        return Ok(None);
    };
    if width * height > config.max_pixels {
        let message = format!(
            "The picture of the film is {width}x{height}; at most {} million pixels are taken. Make it smaller and upload it again.",
            (config.max_pixels as f64 / 1e5).round() / 10.0
        );
        return Err(Failure::new(Reason::VideoTooLarge, message));
    }
    let rate = ratio(&stream["avg_frame_rate"]).or_else(|| ratio(&stream["r_frame_rate"])).unwrap_or(USUAL);
    if rate > RATE_MAX {
        let message = format!("The film has {rate:.0} pictures per second; at most {RATE_MAX} are taken.");
        return Err(Failure::new(Reason::VideoTooLarge, message));
    }
    let seconds = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let delay = seconds(&audio["start_time"]) - seconds(&answer["format"]["start_time"]);
    let (upright, tall) = shown(stream, width as f64, height as f64);
    Ok(Some(Film {
        stream: u32::try_from(index).unwrap_or(0),
        width: even(upright),
        height: even(tall),
        pixels: (width + EDGE) * (height + EDGE),
        rate: usual(rate, config.max_frame_rate),
        delay: if delay.is_finite() { delay.clamp(-3600.0, 3600.0) } else { 0.0 },
    }))
}

/// `30000/1001`; `None` for nothing or nonsense.
fn ratio(value: &Value) -> Option<f64> {
    let (numerator, denominator) = value.as_str()?.split_once(['/', ':'])?;
    let ratio = numerator.parse::<f64>().ok()? / denominator.parse::<f64>().ok()?;
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// The size as it is shown: pixels that are not square make the longer side shorter, and a turned picture is turned back.
fn shown(stream: &Value, width: f64, height: f64) -> (f64, f64) {
    let shape = ratio(&stream["sample_aspect_ratio"]).unwrap_or(1.0).clamp(0.1, 10.0);
    let (width, height) = if shape <= 1.0 { (width * shape, height) } else { (width, height / shape) };
    let turned = stream["side_data_list"].as_array().into_iter().flatten().any(|data| {
        data["rotation"].as_f64().is_some_and(|degrees| ((degrees / 90.0).round() as i64).rem_euclid(2) == 1)
    });
    if turned { (height, width) } else { (width, height) }
}

/// The even number at or below: H.264 halves the sides for colour.
fn even(side: f64) -> u32 {
    ((side / 2.0 + 1e-6).floor() as u32 * 2).max(2)
}

fn usual(rate: f64, most: u32) -> (u32, u32) {
    let value = |(numerator, denominator): &(u32, u32)| f64::from(*numerator) / f64::from(*denominator);
    let mut taken = RATES.iter().filter(|candidate| value(candidate) <= f64::from(most) + 1e-9);
    // A thousandth below counts as reached: containers round.
    let enough = taken.clone().find(|candidate| value(candidate) >= rate * 0.9985);
    enough.or_else(|| taken.next_back()).copied().unwrap_or((10, 1))
}

/// The renditions of a film: every rung that is not larger than it, or one of its own size where all are.
pub(crate) fn rungs(config: &Video, film: &Film) -> Vec<Rung> {
    let short = film.width.min(film.height);
    let rung = |height: u32, bit_rate: u64| {
        let scaled = |side: u32| even(f64::from(side) * f64::from(height) / f64::from(short));
        let (width, tall) = (scaled(film.width).min(film.width), scaled(film.height).min(film.height));
        let picture = Picture { width, height: tall, rate: film.rate, preset: config.preset };
        Rung { name: format!("v{height}"), coding: Coding::Avc(picture), bit_rate }
    };
    let fitting = config.ladder.iter().filter(|wanted| wanted.height <= short);
    let mut rungs: Vec<Rung> = fitting.map(|wanted| rung(wanted.height, wanted.bit_rate)).collect();
    if let Some(lowest) = config.ladder.first().filter(|_| rungs.is_empty()) {
        let part = f64::from(short) / f64::from(lowest.height);
        rungs.push(rung(
            short,
            ((lowest.bit_rate as f64 * part * part) as u64).clamp(LEAST.min(lowest.bit_rate), lowest.bit_rate),
        ));
    }
    rungs
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stream(width: u32, height: u32, more: &Value) -> Value {
        let mut stream = json!({"index": 1, "codec_type": "video", "codec_name": "h264", "width": width,
            "height": height, "avg_frame_rate": "25/1"});
        for (key, value) in more.as_object().expect("object") {
            stream[key] = value.clone();
        }
        stream
    }

    fn found(stream: Value) -> Result<Option<Film>, Failure> {
        film(&Video::default(), &json!({"format": {"start_time": "1.0"}}), &[stream], &json!({"start_time": "1.25"}))
    }

    fn sizes(film: &Film) -> Vec<(String, u32, u32)> {
        let size = |rung: Rung| match rung.coding {
            Coding::Avc(picture) => (rung.name, picture.width, picture.height),
            _ => panic!("a picture"),
        };
        rungs(&Video::default(), film).into_iter().map(size).collect()
    }

    #[test]
    fn a_still_is_no_film() {
        for still in [
            json!({"disposition": {"attached_pic": 1}}),
            json!({"codec_name": "mjpeg", "nb_frames": "1"}),
            json!({"codec_name": "png", "avg_frame_rate": "0/0"}),
        ] {
            assert_eq!(found(stream(640, 480, &still)), Ok(None), "{still}");
        }
        assert!(found(stream(640, 480, &json!({"codec_name": "mjpeg"}))).expect("taken").is_some(), "a camera's film");
    }

    #[test]
    fn sizes_are_even_upright_and_never_above_the_source() {
        let of = |width, height, more: Value| found(stream(width, height, &more)).expect("taken").expect("a film");
        let wide = of(1921, 1081, json!({}));
        assert_eq!((wide.width, wide.height, wide.delay), (1920, 1080, 0.25));
        assert_eq!(sizes(&wide), [("v360".into(), 640, 360), ("v720".into(), 1280, 720), ("v1080".into(), 1920, 1080)]);
        let upright = of(1280, 720, json!({"side_data_list": [{"rotation": -90}]}));
        assert_eq!(sizes(&upright), [("v360".into(), 360, 640), ("v720".into(), 720, 1280)]);
        let squeezed = of(720, 576, json!({"sample_aspect_ratio": "64:45"}));
        assert_eq!((squeezed.width, squeezed.height), (720, 404), "no side grows");
        assert_eq!(sizes(&of(161, 91, json!({}))), [("v90".into(), 160, 90)]);
    }

    #[test]
    fn rates_are_usual_ones_and_not_above_the_limit() {
        let rate =
            |text: &str| found(stream(64, 64, &json!({"avg_frame_rate": text}))).map(|film| film.map(|f| f.rate));
        assert_eq!(rate("30000/1001"), Ok(Some((30_000, 1001))));
        assert_eq!(rate("2997/100"), Ok(Some((30_000, 1001))), "what a container rounded");
        assert_eq!(rate("139/5"), Ok(Some((30_000, 1001))), "a phone's film of 27.8");
        assert_eq!(rate("120/1"), Ok(Some((60, 1))));
        assert_eq!(rate("1/5"), Ok(Some((10, 1))));
        assert_eq!(rate("0/0"), Ok(Some((25, 1))));
        assert_eq!(rate("90000/1").expect_err("refused").reason, Reason::VideoTooLarge);
        assert_eq!(found(stream(8000, 8000, &json!({}))).expect_err("refused").reason, Reason::VideoTooLarge);
    }
}
