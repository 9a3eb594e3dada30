//! What a file really is, by its first bytes; and what its name says it is.
//!
//! Purpose: ffprobe answers "invalid data" to a text file, a picture and a renamed archive alike. A person wants to
//! read which of them it was.
//!
//! Invariants: reads at most the given head; decides nothing about files that it does not know ([`Content::Unknown`]),
//! those are for ffprobe.

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Text of some kind: prose, a playlist, HTML, SVG.
    Text(&'static str),
    /// A picture, by name.
    Image(&'static str),
    /// Some other known thing that holds no media: an archive, a document, a program.
    Other(&'static str),
    /// Everything else: ffprobe decides.
    Unknown,
}

/// How much of a file [`content`] wants to see.
pub(crate) const HEAD: usize = 4096;

const MAGIC: [(&[u8], Content); 24] = [
    (b"\x89PNG\r\n\x1a\n", Content::Image("a PNG picture")),
    (b"\xff\xd8\xff", Content::Image("a JPEG picture")),
    (b"GIF87a", Content::Image("a GIF picture")),
    (b"GIF89a", Content::Image("a GIF picture")),
    (b"II*\0", Content::Image("a TIFF picture")),
    (b"MM\0*", Content::Image("a TIFF picture")),
    (b"8BPS", Content::Image("a Photoshop picture")),
    (b"\0\0\x01\0", Content::Image("an icon")),
    (b"\0\0\0\x0cJXL ", Content::Image("a JPEG XL picture")),
    (b"qoif", Content::Image("a QOI picture")),
    (b"%PDF-", Content::Other("a PDF document")),
    (b"%!PS", Content::Other("a PostScript document")),
    (b"PK\x03\x04", Content::Other("a ZIP archive or an office document")),
    (b"PK\x05\x06", Content::Other("a ZIP archive")),
    (b"Rar!\x1a\x07", Content::Other("a RAR archive")),
    (b"7z\xbc\xaf\x27\x1c", Content::Other("a 7-Zip archive")),
    (b"\x1f\x8b", Content::Other("a gzip archive")),
    (b"BZh", Content::Other("a bzip2 archive")),
    (b"\xfd7zXZ\0", Content::Other("an xz archive")),
    (b"\x28\xb5\x2f\xfd", Content::Other("a Zstandard archive")),
    (b"\x7fELF", Content::Other("a program")),
    (b"MZ\x90\0", Content::Other("a Windows program")),
    (b"SQLite format 3\0", Content::Other("a database")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Content::Other("an office document")),
];

/// What the first bytes of a file say that it is.
pub(crate) fn content(head: &[u8]) -> Content {
    if let Some((_, content)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return *content;
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Content::Image("a WebP picture");
    }
    if head.get(4..8) == Some(b"ftyp") && matches!(head.get(8..12), Some(b"avif" | b"heic" | b"heix" | b"mif1")) {
        return Content::Image("a HEIF or AVIF picture");
    }
    if head.starts_with(b"BM") && head.get(6..10) == Some(&[0; 4]) {
        return Content::Image("a BMP picture");
    }
    text(head)
}

fn text(head: &[u8]) -> Content {
    let wide = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
    if wide && head.len() >= 4 {
        // MPEG audio may begin with FF FE too; text has a NUL or a high byte in every other place.
        let zeroes = head.iter().filter(|byte| **byte == 0).count();
        if zeroes * 3 > head.len() {
            return Content::Text("a text file");
        }
    }
    let body = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let readable = match std::str::from_utf8(body) {
        Ok(text) => text,
        // A character that is cut by the end of the head is no fault of the text.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return latin(body),
    };
    if readable.is_empty()
        || readable.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\x0c' | '\x1b'))
    {
        return Content::Unknown;
    }
    let start = readable.trim_start().to_ascii_lowercase();
    // These two begin with letters alone and are media: AMR's magic, and the first bytes of a very short other file.
    if start.starts_with("#!amr") {
        return Content::Unknown;
    }
    Content::Text(if start.starts_with("#extm3u") || start.starts_with("[playlist]") || start.starts_with("ffconcat") {
        "a playlist, which names media but holds none"
    } else if start.starts_with("<!doctype html") || start.starts_with("<html") {
        "a web page"
    } else if start.starts_with("<svg") || start.contains("<svg ") {
        "an SVG drawing"
    } else if start.starts_with("<?xml") || start.starts_with('<') {
        "an XML or HTML text"
    } else {
        "a text file"
    })
}

/// Eight-bit text: printable or high bytes, with most of it plain letters.
fn latin(body: &[u8]) -> Content {
    let control = body.iter().any(|byte| *byte < 0x20 && !b"\n\r\t\x0c\x1b".contains(byte) || *byte == 0x7f);
    let plain = body.iter().filter(|byte| (0x20..0x7f).contains(*byte) || b"\n\r\t".contains(byte)).count();
    if !control && plain * 10 > body.len() * 7 { Content::Text("a text file") } else { Content::Unknown }
}

/// A family of file names that goes with one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// The demuxers whose files carry the extension.
    Media(&'static [&'static str]),
    /// An extension of something that is no audio or video.
    NotMedia,
}

/// What the extension of `filename` promises; `None` when there is none or nobody knows it.
pub(crate) fn promised(filename: &str) -> Option<(String, Family)> {
    let name = filename.rsplit(['/', '\\']).next()?;
    let (stem, extension) = name.rsplit_once('.')?;
    if stem.is_empty() {
        return None;
    }
    let extension = extension.to_ascii_lowercase();
    let family = match extension.as_str() {
        "mp3" | "mp2" | "mp1" | "mpga" => Family::Media(&["mp3"]),
        "flac" => Family::Media(&["flac"]),
        "ogg" | "oga" | "ogx" | "opus" | "spx" | "ogv" => Family::Media(&["ogg"]),
        "wav" | "wave" | "bwf" | "rf64" => Family::Media(&["wav", "w64"]),
        "w64" => Family::Media(&["w64"]),
        "aif" | "aiff" | "aifc" => Family::Media(&["aiff"]),
        "m4a" | "m4b" | "m4p" | "mp4" | "m4v" | "mov" | "qt" | "3gp" | "3g2" => Family::Media(&["mov"]),
        "aac" | "adts" => Family::Media(&["aac"]),
        "mka" | "mkv" | "webm" | "weba" => Family::Media(&["matroska", "webm"]),
        "wma" | "asf" | "wmv" => Family::Media(&["asf"]),
        "caf" => Family::Media(&["caf"]),
        "au" | "snd" => Family::Media(&["au"]),
        "ape" => Family::Media(&["ape"]),
        "wv" => Family::Media(&["wv"]),
        "tta" => Family::Media(&["tta"]),
        "mpc" => Family::Media(&["mpc", "mpc8"]),
        "ac3" => Family::Media(&["ac3"]),
        "eac3" | "ec3" => Family::Media(&["eac3"]),
        "amr" => Family::Media(&["amr"]),
        "avi" => Family::Media(&["avi"]),
        "flv" => Family::Media(&["flv"]),
        "txt" | "md" | "csv" | "json" | "xml" | "html" | "htm" | "pdf" | "doc" | "docx" | "zip" | "gz" | "rar"
        | "7z" | "png" | "jpg" | "jpeg" | "gif" | "webp" | "bmp" | "tif" | "tiff" | "svg" | "exe" | "m3u" | "m3u8"
        | "pls" | "lrc" | "srt" => Family::NotMedia,
        _ => return None,
    };
    Some((extension, family))
}

/// The container of a demuxer name such as `mov,mp4,m4a,3gp,3g2,mj2`, in words, with its usual extension.
pub(crate) fn container(demuxer: &str) -> (&'static str, &'static str) {
    let has = |name: &str| demuxer.split(',').any(|part| part == name);
    match () {
        () if has("mp3") => ("an MP3 file", "mp3"),
        () if has("flac") => ("a FLAC file", "flac"),
        () if has("ogg") => ("an Ogg file", "ogg"),
        () if has("wav") => ("a WAV file", "wav"),
        () if has("w64") => ("a Wave64 file", "w64"),
        () if has("aiff") => ("an AIFF file", "aiff"),
        () if has("mov") => ("an MP4 or QuickTime file", "m4a"),
        () if has("aac") => ("a raw AAC file", "aac"),
        () if has("matroska") || has("webm") => ("a Matroska or WebM file", "mka"),
        () if has("asf") => ("a Windows Media file", "wma"),
        () if has("caf") => ("a Core Audio file", "caf"),
        () if has("au") => ("a Sun audio file", "au"),
        () if has("avi") => ("an AVI video", "avi"),
        () if has("ac3") => ("an AC-3 file", "ac3"),
        () if has("amr") => ("an AMR file", "amr"),
        () if has("wv") => ("a WavPack file", "wv"),
        () if has("ape") => ("a Monkey's Audio file", "ape"),
        () => ("another kind of media file", "mka"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_media_is_named() {
        assert_eq!(content(b"Dear diary,\ntoday nothing happened.\n"), Content::Text("a text file"));
        assert!(matches!(content("Gr\u{fc}\u{df}e".as_bytes()), Content::Text(_)));
        assert!(matches!(content(b"Gr\xfc\xdfe aus M\xfcnchen, and so on and on"), Content::Text(_)));
        assert!(matches!(content(b"#EXTM3U\nfile:///etc/passwd\n"), Content::Text(what) if what.contains("playlist")));
        assert!(matches!(content(b"<!DOCTYPE html><p>"), Content::Text("a web page")));
        assert!(matches!(content(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), Content::Image(_)));
        assert!(matches!(content(b"PK\x03\x04abc"), Content::Other(_)));
    }

    #[test]
    fn media_is_left_to_ffprobe() {
        for head in [
            &b"ID3\x03\0\0\0\0\0\x0f"[..],
            b"\xff\xfb\x90\x64\0\0\0",
            b"fLaC\0\0\0\x22",
            b"OggS\0\x02\0\0",
            b"RIFF\x24\0\0\0WAVE",
            b"#!AMR\n<",
        ] {
            assert_eq!(content(head), Content::Unknown, "{head:?}");
        }
    }

    #[test]
    fn names_promise_what_people_expect() {
        assert!(matches!(promised("a/b/song.MP3"), Some((e, Family::Media(["mp3"]))) if e == "mp3"));
        assert!(matches!(promised("cover.png"), Some((_, Family::NotMedia))));
        assert_eq!(promised("song"), None);
        assert_eq!(promised("song.v2"), None);
        assert_eq!(promised(".mp3"), None);
    }
}
