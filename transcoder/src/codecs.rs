//! What the written files say: the CODECS value out of an init section.
//!
//! Sources: ISO/IEC 14496-12 (boxes), 14496-15 (`avc1`), 14496-14 (`mp4a`, `esds`), 14496-1 (descriptors), 14496-3 (AudioSpecificConfig),
//! RFC 6381 (the string).
//!
//! Invariants: every offset is checked; a file that is not understood is an error, never a guess.

/// `mp4a.40.2` and its kin, from the bytes of an init segment.
pub(crate) fn codecs(init: &[u8]) -> Result<String, &'static str> {
    let mut at = init;
    for name in [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"] {
        at = child(at, name).ok_or("the init segment has no sample description")?;
    }
    // Version, flags and count come before the entries; an audio entry has 28 bytes of fields before its boxes.
    let entries = at.get(8..).ok_or("the sample description is empty")?;
    // The registered names of the two (their mappings for ISO BMFF; RFC 6381 has no more for them).
    for (name, codec) in [(b"Opus", "Opus"), (b"fLaC", "fLaC")] {
        if child(entries, name).is_some() {
            return Ok(codec.to_owned());
        }
    }
    if let Some(entry) = child(entries, b"avc1") {
        // A video entry has 78 bytes of fields before its boxes (14496-12, 12.1.3); profile, constraints and level stand
        // behind the version of the configuration (14496-15, 5.3.3.1).
        let config = child(entry.get(78..).ok_or("the sample entry is too short")?, b"avcC");
        let config = config.and_then(|config| config.get(1..4)).ok_or("no avcC in the sample entry")?;
        return Ok(format!("avc1.{:02x}{:02x}{:02x}", config[0], config[1], config[2]));
    }
    let entry = child(entries, b"mp4a").ok_or("the sample entry is none of avc1, mp4a, Opus and fLaC")?;
    let esds =
        child(entry.get(28..).ok_or("the sample entry is too short")?, b"esds").ok_or("no esds in the sample entry")?;
    let (object_type, config) =
        decoder(esds.get(4..).ok_or("the esds is too short")?).ok_or("the esds is not understood")?;
    if object_type != 0x40 {
        return Ok(format!("mp4a.{object_type:02x}"));
    }
    let first = *config.first().ok_or("no AudioSpecificConfig")?;
    let audio_object_type = match first >> 3 {
        31 => 32 + ((first & 7) << 3 | config.get(1).ok_or("the AudioSpecificConfig is too short")? >> 5),
        other => other,
    };
    Ok(format!("mp4a.40.{audio_object_type}"))
}

/// Whether a media segment is a chain of boxes that fills its file to the last byte, with samples in it.
#[cfg(test)]
pub(crate) fn is_whole_segment(mut boxes: &[u8]) -> bool {
    let (mut index, mut samples) = (false, false);
    while let Some((head, _)) = boxes.split_first_chunk::<8>() {
        let size = usize::try_from(u32::from_be_bytes([head[0], head[1], head[2], head[3]])).unwrap_or(0);
        let Some(rest) = boxes.get(size..).filter(|_| size >= 8) else { return false };
        index |= &head[4..] == b"moof";
        samples |= &head[4..] == b"mdat" && size > 8;
        boxes = rest;
    }
    boxes.is_empty() && index && samples
}

/// The content of the first box of that name.
fn child<'b>(mut boxes: &'b [u8], name: &[u8; 4]) -> Option<&'b [u8]> {
    while boxes.len() >= 8 {
        let size = usize::try_from(u32::from_be_bytes(boxes[..4].try_into().ok()?)).ok()?;
        let whole = boxes.get(..size).filter(|whole| whole.len() >= 8)?;
        if &whole[4..8] == name {
            return whole.get(8..);
        }
        boxes = &boxes[size..];
    }
    None
}

/// Object type indication and AudioSpecificConfig out of an ES descriptor.
fn decoder(descriptors: &[u8]) -> Option<(u8, &[u8])> {
    let es = descriptor(descriptors, 3)?;
    let flags = *es.get(2)?;
    let mut skip = 3;
    if flags & 0x80 != 0 {
        skip += 2;
    }
    if flags & 0x40 != 0 {
        skip += 1 + usize::from(*es.get(skip)?);
    }
    if flags & 0x20 != 0 {
        skip += 2;
    }
    let config = descriptor(es.get(skip..)?, 4)?;
    Some((*config.first()?, descriptor(config.get(13..)?, 5).unwrap_or_default()))
}

/// The content of a descriptor with an expandable size.
fn descriptor(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    if *bytes.first()? != tag {
        return None;
    }
    let mut size = 0usize;
    for (n, byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        size = size << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return bytes.get(n + 2..n + 2 + size);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(content.len() + 8).expect("size").to_be_bytes().to_vec();
        bytes.extend(name);
        bytes.extend(content);
        bytes
    }

    fn init(object_type: u8, config: &[u8]) -> Vec<u8> {
        let specific = [&[5, u8::try_from(config.len()).expect("len")], config].concat();
        let mut decoder = vec![object_type];
        decoder.extend([0; 12]);
        decoder.extend(specific);
        let decoder = [&[4, 0x80, 0x80, 0x80, u8::try_from(decoder.len()).expect("len")][..], &decoder].concat();
        let es = [&[0, 1, 0][..], &decoder].concat();
        let es = [&[3, u8::try_from(es.len()).expect("len")][..], &es].concat();
        let esds = boxed(b"esds", &[&[0; 4][..], &es].concat());
        let mut content = boxed(b"mp4a", &[&[0; 28][..], &esds].concat());
        content = [&[0, 0, 0, 0, 0, 0, 0, 1][..], &content].concat();
        for name in [b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"] {
            content = boxed(name, &content);
        }
        [boxed(b"ftyp", b"iso5"), content].concat()
    }

    #[test]
    fn the_string_follows_the_bytes() {
        assert_eq!(codecs(&init(0x40, &[0x12, 0x10])).as_deref(), Ok("mp4a.40.2"));
        assert_eq!(codecs(&init(0x40, &[0x2b, 0x92])).as_deref(), Ok("mp4a.40.5"));
        assert_eq!(codecs(&init(0x40, &[0xf9, 0x40])).as_deref(), Ok("mp4a.40.42"));
        assert_eq!(codecs(&init(0x6b, &[])).as_deref(), Ok("mp4a.6b"));
    }

    #[test]
    fn a_picture_says_its_profile_and_level() {
        let entry = boxed(b"avc1", &[&[0; 78][..], &boxed(b"avcC", &[1, 0x64, 0, 0x1f, 0xff])].concat());
        let mut content = [&[0, 0, 0, 0, 0, 0, 0, 1][..], &entry].concat();
        for name in [b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"] {
            content = boxed(name, &content);
        }
        assert_eq!(codecs(&content).as_deref(), Ok("avc1.64001f"));
        for end in 0..content.len() - 1 {
            assert!(codecs(&content[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_segment_that_lacks_a_byte_is_not_whole() {
        let whole = [boxed(b"styp", b"msdh"), boxed(b"moof", b"x"), boxed(b"mdat", b"abc")].concat();
        assert!(is_whole_segment(&whole));
        for end in 0..whole.len() {
            assert!(!is_whole_segment(&whole[..end]), "{end}");
        }
    }

    #[test]
    fn no_cut_makes_a_panic_or_a_guess() {
        let whole = init(0x40, &[0x12, 0x10]);
        for end in 0..whole.len() {
            assert!(codecs(&whole[..end]).is_err(), "{end}");
        }
    }
}
