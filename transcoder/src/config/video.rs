//! What is made of films (`[transcode.video]`).

use segue_config::Section;

/// One rendition of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoRung {
    /// Pixels of the shorter side: 360 is 640x360 of a wide film and 360x640 of an upright one.
    pub height: u32,
    /// Bits per second.
    pub bit_rate: u64,
}

/// The H.264 ladder of films, and what a film may cost.
#[derive(Debug, Clone)]
pub struct Video {
    /// Whether films get a picture at all; otherwise their sound alone is taken. Default yes.
    pub enabled: bool,
    /// Renditions, rising. Default 360, 720 and 1080 lines.
    pub ladder: Vec<VideoRung>,
    /// Preset of x264: the quicker, the more bits for the same picture. Default `veryfast`.
    pub preset: &'static str,
    /// Pixels of one picture of the source; a film with more is refused. Default 3840 times 2160.
    pub max_pixels: u64,
    /// Pictures per second of the renditions; more are left out. Default 60.
    pub max_frame_rate: u32,
    /// How long one run may take, as a multiple of the film's length (plus 30 s). Default 20.
    pub time_limit_factor: f64,
}

impl Default for Video {
    fn default() -> Self {
        let ladder = [(360, 800_000), (720, 2_500_000), (1080, 5_000_000)];
        Self {
            enabled: true,
            ladder: ladder.map(|(height, bit_rate)| VideoRung { height, bit_rate }).to_vec(),
            preset: "veryfast",
            max_pixels: 3840 * 2160,
            max_frame_rate: 60,
            time_limit_factor: 20.0,
        }
    }
}

/// Rungs at most: more would be told apart by nobody, and each is a decode and an encode.
const RUNGS_MAX: usize = 6;
const PRESETS: [&str; 6] = ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"];

impl Video {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let ladder: Vec<VideoRung> = section
            .tables("ladder")
            .iter()
            .map(|rung| {
                let (height, kbit) = (rung.require("height").unwrap_or(360u32), rung.require("kbit").unwrap_or(800u64));
                if !(64..=2160).contains(&height) || height % 2 == 1 {
                    rung.problem("height", "must be an even number of pixels between 64 and 2160");
                }
                if !(50..=50_000).contains(&kbit) {
                    rung.problem("kbit", "must be between 50 and 50000 kbit/s");
                }
                VideoRung { height, bit_rate: kbit.saturating_mul(1000) }
            })
            .collect();
        let rises = |a: &VideoRung, b: &VideoRung| a.height < b.height && a.bit_rate < b.bit_rate;
        if ladder.len() > RUNGS_MAX || !ladder.is_sorted_by(rises) {
            section.problem("ladder", format!("must be at most {RUNGS_MAX} rungs, rising in both `height` and `kbit`"));
        }
        let asked = section.or("preset", default.preset.to_owned());
        let preset = PRESETS.into_iter().find(|preset| *preset == asked);
        if preset.is_none() {
            section.problem("preset", format!("must be one of {}", PRESETS.join(", ")));
        }
        let video = Self {
            enabled: section.or("enabled", default.enabled),
            ladder: if ladder.is_empty() { default.ladder } else { ladder },
            preset: preset.unwrap_or(default.preset),
            max_pixels: section.or("max_pixels", default.max_pixels),
            max_frame_rate: section.or("max_frame_rate", default.max_frame_rate),
            time_limit_factor: section.or("time_limit_factor", default.time_limit_factor),
        };
        if !(64 * 64..=8192 * 4320).contains(&video.max_pixels) {
            section.problem("max_pixels", "must be between 4096 and 35389440; leave it out for 3840 times 2160");
        }
        if !(10..=120).contains(&video.max_frame_rate) {
            section.problem("max_frame_rate", "must be between 10 and 120 pictures per second");
        }
        if !(video.time_limit_factor >= 0.1 && video.time_limit_factor <= 1000.0) {
            section.problem("time_limit_factor", "must be between 0.1 and 1000 times the film's length");
        }
        video
    }
}
