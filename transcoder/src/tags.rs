//! Title, artist and album, as the file gives them.
//!
//! Invariants: tags are a stranger's text: control characters and direction overrides are taken out, the length is
//! bounded, and nothing is ever interpreted. There is always a title, from the file's name if need be.

use serde_json::Value;

/// Characters of one tag that are kept: longer than any title that a page can show.
const LONGEST: usize = 200;

/// What a listener sees of a track.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) title: String,
    pub(crate) artist: Option<String>,
    pub(crate) album: Option<String>,
}

impl Tags {
    /// Reads ffprobe's tag objects: the container's, then the stream's (Ogg keeps them there).
    pub(crate) fn read(container: &Value, stream: &Value, filename: &str) -> Self {
        let find = |names: &[&str]| {
            names.iter().find_map(|name| {
                [container, stream].into_iter().filter_map(Value::as_object).find_map(|tags| {
                    let (_, value) = tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                    clean(value.as_str()?)
                })
            })
        };
        Self {
            title: find(&["title"]).unwrap_or_else(|| named_after(filename)),
            artist: find(&["artist", "album_artist", "author", "performer"]),
            album: find(&["album"]),
        }
    }
}

fn clean(text: &str) -> Option<String> {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fffd}')
    };
    let spaced: String =
        text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !hidden(*c)).collect();
    let words = spaced.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let kept: String = words.chars().take(LONGEST).collect();
    let kept = kept.trim().to_owned();
    (!kept.is_empty()).then_some(kept)
}

fn named_after(filename: &str) -> String {
    let name = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    clean(&stem.replace('_', " ")).unwrap_or_else(|| "Untitled".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tags_are_found_in_any_case_and_either_place() {
        let tags = Tags::read(&json!({"TITLE": " A\u{202e}\n song "}), &json!({"Artist": "B"}), "x.mp3");
        assert_eq!(tags, Tags { title: "A song".into(), artist: Some("B".into()), album: None });
    }

    #[test]
    fn the_file_name_stands_in_for_a_title() {
        let title = |name: &str| Tags::read(&Value::Null, &Value::Null, name).title;
        assert_eq!(title("machine_wars.mp3"), "machine wars");
        assert_eq!(title("dir/a.b.flac"), "a.b");
        assert_eq!(title(""), "Untitled");
        assert_eq!(title(&"x".repeat(500)).len(), LONGEST);
    }
}
