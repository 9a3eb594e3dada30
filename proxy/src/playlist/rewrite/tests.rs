#![allow(clippy::unwrap_used)]
use super::*;

const TICKET: &str = "aGVhZA.Ym9keQ.c2ln";

fn with(way: Way<'_>, chunks: &[&[u8]]) -> (Vec<u8>, Result<Summary, RewriteError>) {
    let mut out = Vec::new();
    let mut rewriter = Rewriter::new(way, Some("edge.example:8443"));
    for chunk in chunks {
        if let Err(error) = rewriter.push(chunk, &mut out) {
            return (out, Err(error));
        }
    }
    let end = rewriter.finish(&mut out);
    (out, end)
}

fn rewritten(way: Way<'_>, text: &str) -> String {
    let (out, end) = with(way, &[text.as_bytes()]);
    end.unwrap();
    String::from_utf8(out).unwrap()
}

fn rewrite(text: &str) -> String {
    rewritten(Way::Rewrite { ticket: TICKET, inherited: false }, text)
}

/// One URI line through [`Way::Rewrite`].
fn uri(text: &str) -> String {
    let whole = rewrite(&format!("#EXTM3U\n{text}\n"));
    whole.strip_prefix("#EXTM3U\n").unwrap().trim_end_matches('\n').to_owned()
}

#[test]
fn every_uri_attribute_gets_the_ticket_and_nothing_else_does() {
    let attributes = [
        "#EXT-X-MAP:URI=\"init.mp4\",BYTERANGE=\"1@0\"",
        "#EXT-X-KEY:METHOD=AES-128,URI=\"k.key\",IV=0x01",
        "#EXT-X-PART:DURATION=1,URI=\"p.m4s\"",
        "#EXT-X-MEDIA:TYPE=AUDIO,NAME=\"a, URI=\",URI=\"a/index.m3u8\"",
        "#EXT-X-SESSION-KEY:METHOD=AES-128,URI=\"k.key\"",
        "#EXT-X-SESSION-DATA:DATA-ID=\"x\",URI=\"d.json\"",
        "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p.m4s\"",
        "#EXT-X-RENDITION-REPORT:URI=\"../b/index.m3u8\",LAST-MSN=1",
        "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"i.m3u8\"",
        "#EXT-X-IMAGE-STREAM-INF:BANDWIDTH=1,URI=\"t.m3u8\"",
        "#EXT-X-CONTENT-STEERING:SERVER-URI=\"/steer\",PATHWAY-ID=\"A\"",
        "#EXT-X-DATERANGE:ID=\"x\",X-ASSET-URI=\"ad.m3u8\",X-COM=\"b\"",
        "#EXT-X-DATERANGE:ID=\"x\",X-ASSET-LIST=\"ads.json?a=1\"",
    ];
    let text = format!("#EXTM3U\n{}\n", attributes.join("\n"));
    let got = rewrite(&text);
    for (line, before) in got.lines().skip(1).zip(attributes) {
        let (start, uri) = line.split_once(&format!("ticket={TICKET}\"")).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(format!("{}\"{uri}", start.trim_end_matches(['?', '&'])), before);
    }
    let others = "#EXTM3U\n#EXTINF:6,URI=\"title.ts\"\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"URI\"\n#EXT-X-UNKNOWN:URI=\"a\"\n# URI=\"comment\"\n#EXT-X-MAPS:URI=\"a\"\n#EXT-X-MAP:XURI=\"a\",URI=bare\n";
    assert_eq!(rewrite(others), others);
}

#[test]
fn lists_are_read_as_players_read_them() {
    let got = rewrite(
        "#EXTM3U\n#EXT-X-KEY: METHOD=AES-128 , URI = \"k,1.key\" ,KEYFORMAT=\"x\"\n#EXT-X-MAP:URI=\"open.mp4\n#EXT-X-DATERANGE:X-ASSET-URI=\"a\",X-ASSET-LIST=\"b\"\n",
    );
    let t = TICKET;
    assert_eq!(
        got,
        format!(
            "#EXTM3U\n#EXT-X-KEY: METHOD=AES-128 , URI = \"k,1.key?ticket={t}\" ,KEYFORMAT=\"x\"\n#EXT-X-MAP:URI=\"open.mp4\n#EXT-X-DATERANGE:X-ASSET-URI=\"a?ticket={t}\",X-ASSET-LIST=\"b?ticket={t}\"\n"
        )
    );
}

#[test]
fn uris_of_ours_get_it_and_no_other_host_ever_does() {
    let t = TICKET;
    for (before, after) in [
        ("seg.ts", format!("seg.ts?ticket={t}")),
        ("  seg 1.ts \t", format!("  seg 1.ts?ticket={t} \t")),
        ("../b/seg.ts?a=1&b", format!("../b/seg.ts?a=1&b&ticket={t}")),
        ("seg.ts?", format!("seg.ts?ticket={t}")),
        ("seg.ts#t=1?x", format!("seg.ts?ticket={t}#t=1?x")),
        ("/hls/t/seg.ts", format!("/hls/t/seg.ts?ticket={t}")),
        ("?x=1", format!("?x=1&ticket={t}")),
        ("seg.ts?ticket=old&a=1", format!("seg.ts?a=1&ticket={t}")),
        ("seg.ts?%74icket=old&ticket", format!("seg.ts?ticket={t}")),
        ("https://edge.example:8443/a.ts", format!("https://edge.example:8443/a.ts?ticket={t}")),
        ("HTTP://EDGE.example:8443", format!("HTTP://EDGE.example:8443?ticket={t}")),
        ("//edge.example:8443/a.ts", format!("//edge.example:8443/a.ts?ticket={t}")),
    ] {
        assert_eq!(uri(before), after, "{before}");
    }
    for stays in [
        "https://elsewhere.example/a.ts",
        "https://edge.example/a.ts",
        "https://edge.example:8443@evil.example/a.ts",
        "https://edge.example:8443.evil.example/a.ts",
        "//evil.example/a.ts",
        "///evil.example/a.ts",
        "https:///evil.example/a.ts",
        "https:/evil.example/a.ts",
        "https:evil.example/a.ts",
        "\\\\evil.example/a.ts",
        "/\\evil.example/a.ts",
        "/\t/evil.example/a.ts",
        "data:video/mp4;base64,AAAA",
        "skd://key",
        "seg.ts?kid=k&exp=1&sig=s",
    ] {
        assert_eq!(uri(stays), stays);
    }
    let quoted = "#EXT-X-MAP:URI=\" //evil.example/init.mp4\"";
    assert_eq!(uri(quoted), quoted);
}

#[test]
fn default_ports_and_address_literals_are_one_host() {
    for (scheme, authority, host, same) in [
        ("https", "a", "a", true),
        ("https", "a:443", "a", true),
        ("https", "a", "A:443", true),
        ("http", "a:443", "a", false),
        ("http", "[::1]:80", "[::1]", true),
        ("http", "[::1]", "[::2]", false),
        ("https", "a:", "a", true),
        ("https", "a.", "a", false),
    ] {
        assert_eq!(uri::is_host(Some(scheme.as_bytes()), authority.as_bytes(), host.as_bytes()), same, "{authority}");
    }
}

#[test]
fn a_ticket_in_the_path_is_inherited_but_by_those_that_escape_it() {
    let text = "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n/hls/t/a.ts\nhttps://edge.example:8443/b.ts\nc.ts\nhttps://other.example/d.ts\n";
    let t = TICKET;
    assert_eq!(
        rewritten(Way::Rewrite { ticket: TICKET, inherited: true }, text),
        format!(
            "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n/hls/t/a.ts?ticket={t}\nhttps://edge.example:8443/b.ts?ticket={t}\nc.ts\nhttps://other.example/d.ts\n"
        )
    );
    let (same, summary) = with(Way::Path, &[text.as_bytes()]);
    assert_eq!(
        (same.as_slice(), summary.unwrap()),
        (text.as_bytes(), Summary { changed: 0, escapes: 3, by_host: true })
    );
}

#[test]
fn define_raises_the_version_and_stands_before_the_first_use() {
    assert_eq!(
        rewritten(
            Way::Define,
            "\u{feff}#EXTM3U\r\n#EXT-X-VERSION:7\r\n#EXT-X-TARGETDURATION:6\r\n#EXT-X-MAP:URI=\"init.mp4\"\r\n#EXTINF:6,\r\nseg.m4s?a=1"
        ),
        "\u{feff}#EXTM3U\r\n#EXT-X-VERSION:11\r\n#EXT-X-TARGETDURATION:6\r\n#EXT-X-DEFINE:QUERYPARAM=\"ticket\"\r\n#EXT-X-MAP:URI=\"init.mp4?ticket={$ticket}\"\r\n#EXTINF:6,\r\nseg.m4s?a=1&ticket={$ticket}"
    );
    assert_eq!(
        rewritten(Way::Define, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\na/index.m3u8\n#EXT-X-VERSION:6\n"),
        "#EXTM3U\n#EXT-X-VERSION:11\n#EXT-X-DEFINE:QUERYPARAM=\"ticket\"\n#EXT-X-STREAM-INF:BANDWIDTH=1\na/index.m3u8?ticket={$ticket}\n"
    );
    let later = "#EXTM3U\n#EXT-X-VERSION:12\na.ts\n";
    assert!(rewritten(Way::Define, later).contains("#EXT-X-VERSION:12\n"));
    // What it made it leaves as it is.
    let once = rewritten(Way::Define, "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\na.ts\n");
    assert_eq!(rewritten(Way::Define, &once), once);
}

#[test]
fn definitions_of_the_playlist_itself_are_respected() {
    let imported = "#EXTM3U\n#EXT-X-VERSION:11\n#EXT-X-DEFINE:IMPORT=\"ticket\"\n#EXTINF:1,\na.ts\n";
    assert_eq!(rewritten(Way::Define, imported), imported.replace("a.ts", "a.ts?ticket={$ticket}"));
    let late = "#EXTM3U\n#EXT-X-VERSION:11\n#EXTINF:1,\na.ts\n#EXT-X-DEFINE:QUERYPARAM=\"ticket\"\n";
    assert_eq!(rewritten(Way::Define, late).matches("#EXT-X-DEFINE").count(), 1);
    let own = "#EXTM3U\n#EXT-X-DEFINE:NAME=\"ticket\",VALUE=\"x\"\na.ts\n";
    assert_eq!(with(Way::Define, &[own.as_bytes()]).1, Err(RewriteError::NameTaken(2)));
    assert_eq!(rewrite(own), own.replace("a.ts", &format!("a.ts?ticket={TICKET}")));
    let version = "#EXTM3U\na.ts\n#EXT-X-VERSION:12\n";
    assert_eq!(with(Way::Define, &[version.as_bytes()]).1, Err(RewriteError::LateVersion(3)));
}

#[test]
fn variables_decide_where_a_uri_leads() {
    let define = "#EXTM3U\n#EXT-X-DEFINE:NAME=\"ours\",VALUE=\"https://edge.example:8443/x\"\n#EXT-X-DEFINE:NAME=\"evil\",VALUE=\"//evil.example\"\n#EXT-X-DEFINE:QUERYPARAM=\"q\"\n#EXT-X-DEFINE:NAME=\"query\",VALUE=\"a.ts?b=1\"\n#EXT-X-DEFINE:NAME=\"tail\",VALUE=\"#x\"\n";
    let t = TICKET;
    for (before, after) in [
        ("{$ours}/a.ts", format!("{{$ours}}/a.ts?ticket={t}")),
        ("dir/{$q}.ts", format!("dir/{{$q}}.ts?ticket={t}")),
        ("/{$ours}a.ts", format!("/{{$ours}}a.ts?ticket={t}")),
        ("{$query}", format!("{{$query}}&ticket={t}")),
        ("a{$.ts", format!("a{{$.ts?ticket={t}")),
        ("{$evil}/a.ts", "{$evil}/a.ts".to_owned()),
        ("/{$evil}/a.ts", "/{$evil}/a.ts".to_owned()),
        ("{$q}/a.ts", "{$q}/a.ts".to_owned()),
        ("/{$q}/a.ts", "/{$q}/a.ts".to_owned()),
        ("https://{$q}/a.ts", "https://{$q}/a.ts".to_owned()),
        ("{$undefined}", "{$undefined}".to_owned()),
        ("a.ts{$tail}", "a.ts{$tail}".to_owned()),
    ] {
        let got = rewrite(&format!("{define}{before}\n"));
        assert_eq!(got.strip_prefix(define), Some(format!("{after}\n").as_str()), "{before}");
    }
}

#[test]
fn what_is_no_playlist_or_too_long_is_an_error_for_good() {
    for (text, error) in [
        (b"".as_slice(), RewriteError::NotAPlaylist),
        (b"<html>\n", RewriteError::NotAPlaylist),
        (b"#EXTM3UX\n", RewriteError::NotAPlaylist),
    ] {
        assert_eq!(with(Way::Path, &[text]).1, Err(error));
    }
    let long = [b"#EXTM3U\n".as_slice(), &vec![b'a'; LINE_MAX]].concat();
    assert!(with(Way::Define, &[&long]).1.is_ok(), "the longest line");
    let (out, end) = with(Way::Define, &[&long, b"a"]);
    assert_eq!((out.as_slice(), end), (b"#EXTM3U\n".as_slice(), Err(RewriteError::LineTooLong(2))));
    let mut rewriter = Rewriter::new(Way::Define, None);
    let mut out = Vec::new();
    assert!(rewriter.push(b"no\n", &mut out).is_err());
    assert_eq!(rewriter.push(b"#EXTM3U\n", &mut out), Err(RewriteError::NotAPlaylist));
    assert_eq!(rewriter.finish(&mut out), Err(RewriteError::NotAPlaylist));
}

#[test]
fn a_flood_of_short_lines_ends_at_the_bound() {
    let ticket = "t".repeat(2048);
    let text = [b"#EXTM3U\n".to_vec(), b"a\n".repeat(OUTPUT_MAX / 2000)].concat();
    let (out, end) = with(Way::Rewrite { ticket: &ticket, inherited: false }, &[&text]);
    assert_eq!(end, Err(RewriteError::TooLarge));
    assert!(out.len() <= OUTPUT_MAX);
}

/// A small generator of playlists and of the ways to cut them (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn of<'a>(&mut self, parts: &[&'a str]) -> &'a str {
        parts[self.below(parts.len())]
    }

    fn playlist(&mut self) -> String {
        let mut text = self.of(&["#EXTM3U", "\u{feff}#EXTM3U", "#EXTM3U  "]).to_owned();
        for _ in 0..self.below(24) {
            text.push_str(self.of(&["\n", "\r\n", "\n\n", "\r\r\n"]));
            for _ in 0..=self.below(5) {
                text.push_str(self.of(&[
                    "#EXT-X-MAP:",
                    "#EXT-X-KEY:METHOD=AES-128,",
                    "#EXT-X-VERSION:7",
                    "#EXT-X-DEFINE:",
                    "#EXTINF:6,é",
                    "URI=\"",
                    "\"",
                    ",",
                    " ",
                    "NAME=\"b\"",
                    "VALUE=\"",
                    "QUERYPARAM=\"ticket\"",
                    "IMPORT=\"b\"",
                    "{$b}",
                    "{$ticket}",
                    "seg.ts",
                    "//evil.example/",
                    "https://edge.example:8443/",
                    "https:",
                    "/",
                    "\\",
                    "?",
                    "&",
                    "#",
                    "ticket=old",
                    "sig=1",
                    "data:,",
                    "..",
                    "%74",
                    "\u{0}",
                    "é",
                ]));
            }
        }
        text.push_str(self.of(&["", "\n"]));
        text
    }
}

const WAYS: [Way<'_>; 4] = [
    Way::Path,
    Way::Define,
    Way::Rewrite { ticket: TICKET, inherited: false },
    Way::Rewrite { ticket: TICKET, inherited: true },
];

#[test]
fn where_the_bytes_are_cut_changes_nothing() {
    let text = "\u{feff}#EXTM3U\r\n#EXT-X-VERSION:7\r\n#EXT-X-MAP:URI=\"init.mp4\"\r\n#EXTINF:6,ü\r\n/a.ts?x#y\r\n\r\nhttps://edge.example:8443/b.ts\n#EXT-X-KEY:URI=\"k\"";
    for way in WAYS {
        let whole = with(way, &[text.as_bytes()]);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let bytes = text.as_bytes();
                assert_eq!(
                    with(way, &[&bytes[..first], &bytes[first..second], &bytes[second..]]),
                    whole,
                    "{first} {second}"
                );
            }
        }
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(with(way, &single), whole);
    }
}

#[test]
fn random_playlists_at_random_cuts_keep_the_rules() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..4_000 {
        let text = random.playlist();
        let mut chunks = Vec::new();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(1 + random.below(rest.len().min(40)));
            chunks.push(chunk);
            rest = after;
        }
        for way in WAYS {
            let (out, end) = with(way, &[text.as_bytes()]);
            assert_eq!(with(way, &chunks), (out.clone(), end), "round {round}: {text:?}");
            if way == Way::Path {
                assert_eq!(out, text.as_bytes(), "{text:?}");
            }
            let Ok(summary) = end else { continue };
            let out = String::from_utf8(out).unwrap();
            if let Way::Rewrite { .. } = way {
                assert_eq!(out.lines().count(), text.lines().count(), "{text:?}");
                assert_eq!(out.matches(TICKET).count() as u64, summary.changed, "{text:?}");
                assert_eq!(rewritten(way, &out), out, "twice is once: {text:?}");
            }
            for line in out.lines().filter(|line| line.contains(TICKET)) {
                let uri = line.trim().trim_start_matches('\u{feff}');
                assert!(!uri.starts_with("//evil.example") && !uri.starts_with("https:evil"), "{uri:?} of {text:?}");
            }
        }
    }
}
