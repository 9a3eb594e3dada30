//! How segments are encrypted (`[transcode.encryption]`), and the keys that hide their keys (`[wrapping_keys]`).

use std::sync::Arc;

use segue_config::{Secret, Section};
use segue_signing::{SigningSecret, WrappingKey, WrappingKeys};

/// Encryption of whole segments with AES-128 in CBC mode (RFC 8216, section 4.3.2.4).
#[derive(Debug, Clone)]
pub struct Encryption {
    /// Segments of a rendition under one key, after which the next key begins. Default 50: five minutes.
    pub rotate_segments: usize,
    /// All wrapping keys that are known here.
    pub keys: Arc<WrappingKeys>,
    /// The id of the one that wraps.
    pub wrapping_key: String,
}

const ROTATE_SEGMENTS: usize = 50;
/// More segments than the longest track has.
const ROTATE_MOST: usize = 1_000_000;

impl Encryption {
    /// Reads both sections; `None` where nothing is to be encrypted.
    pub(super) fn read(section: &Section<'_>, wrapping: &Section<'_>) -> Option<Self> {
        let method = section.or("method", "none".to_owned());
        let rotate_segments = section.or("rotate_segments", ROTATE_SEGMENTS);
        let chosen: Option<String> = section.get("wrapping_key");
        let wrapping = wrapping.clone().free_form();
        let named: Vec<WrappingKey> = wrapping.names().iter().filter_map(|id| read_key(&wrapping, id)).collect();
        let keys =
            WrappingKeys::new(&named).map_err(|error| wrapping.problem("", error.to_string())).unwrap_or_default();
        match method.as_str() {
            "none" => return None,
            "aes-128" => {}
            _ => section.problem("method", "must be \"aes-128\" or \"none\""),
        }
        if !(1..=ROTATE_MOST).contains(&rotate_segments) {
            section.problem("rotate_segments", format!("must be between 1 and {ROTATE_MOST} segments"));
        }
        let wrapping_key = match (chosen, named.as_slice()) {
            (Some(id), _) if !named.iter().any(|key| key.id == id) => {
                section.problem("wrapping_key", format!("there is no {id:?} in [wrapping_keys]"));
                id
            }
            (Some(id), _) => id,
            (None, [only]) => only.id.clone(),
            (None, []) => {
                // A name without a usable secret has its own problem already.
                if wrapping.names().is_empty() {
                    let example = "w1 = \"env:SEGUE_WRAP_W1\" (`openssl rand -hex 32`, written as hex:…)";
                    wrapping.problem(
                        "",
                        format!("is empty, and content keys must not lie open in the bucket; for example {example}"),
                    );
                }
                String::new()
            }
            (None, _) => {
                section.problem("wrapping_key", "missing; [wrapping_keys] has several: say which one wraps");
                String::new()
            }
        };
        Some(Self { rotate_segments, keys: Arc::new(keys), wrapping_key })
    }

    /// What the name of a version depends on.
    pub(crate) fn settings(&self) -> String {
        format!("aes-128 rotate {} wrapped by {}", self.rotate_segments, self.wrapping_key)
    }
}

fn read_key(section: &Section<'_>, id: &str) -> Option<WrappingKey> {
    let secret: Secret = section.get(id)?;
    let secret = SigningSecret::parse(secret.expose()).map_err(|error| section.problem(id, error.to_string())).ok()?;
    Some(WrappingKey { id: id.to_owned(), secret })
}

#[cfg(test)]
mod tests {
    use segue_config::Document;

    use super::*;

    const SECRET: &str = "a wrapping secret that is long enough";

    fn read(text: &str) -> (Option<Encryption>, String) {
        let doc = Document::parse(text, "segue.toml", &|_| None).expect("toml");
        let root = doc.root();
        let read = Encryption::read(&root.section("transcode").section("encryption"), &root.section("wrapping_keys"));
        (read, doc.finish().err().map(|problems| problems.to_string()).unwrap_or_default())
    }

    #[test]
    fn nothing_is_encrypted_unless_it_is_asked_for() {
        assert!(matches!(read(""), (None, problems) if problems.is_empty()));
        assert!(matches!(read(&format!("[wrapping_keys]\nw1='{SECRET}'\n")), (None, problems) if problems.is_empty()));
    }

    #[test]
    fn the_only_key_wraps_and_one_of_several_is_named() {
        let one = format!("[transcode.encryption]\nmethod='aes-128'\n[wrapping_keys]\nw1='{SECRET}'\n");
        let (encryption, problems) = read(&one);
        let encryption = encryption.expect("encrypted");
        assert_eq!((problems.as_str(), encryption.wrapping_key.as_str(), encryption.rotate_segments), ("", "w1", 50));
        let (_, problems) = read(&format!("{one}w2='{SECRET}'\n"));
        assert!(problems.contains("transcode.encryption.wrapping_key: missing"), "{problems}");
        let (encryption, problems) = read(&format!(
            "[transcode.encryption]\nmethod='aes-128'\nwrapping_key='w2'\n[wrapping_keys]\nw1='{SECRET}'\nw2='{SECRET}'\n"
        ));
        assert_eq!((problems.as_str(), encryption.expect("encrypted").wrapping_key.as_str()), ("", "w2"));
    }

    #[test]
    fn every_mistake_is_told() {
        let (_, problems) = read(
            "[transcode.encryption]\nmethod='sample-aes'\nrotate_segments=0\nwrapping_key='w9'\n[wrapping_keys]\nw1='short'\n'w 2'='x'\n",
        );
        for part in ["encryption.method", "encryption.rotate_segments", "no \"w9\"", "wrapping_keys.w1: "] {
            assert!(problems.contains(part), "{part:?} is not in\n{problems}");
        }
        let (_, problems) = read("[transcode.encryption]\nmethod='aes-128'\n");
        assert!(problems.contains("wrapping_keys: is empty"), "{problems}");
    }
}
