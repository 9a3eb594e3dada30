//! What is uploaded: forms around files, and which of the two is bad.

use anyhow::Context;

use crate::form::{form, kind};
use crate::soak::random::Random;
use crate::swaps::Version;

/// Bytes of a file that is made of nothing but chance.
const CHANCE_MAX: u64 = 4096;

/// One upload.
pub(super) struct Body {
    pub(super) sort: &'static str,
    /// Its `Content-Type`.
    pub(super) kind: String,
    pub(super) bytes: Vec<u8>,
    /// The connection ends before the body does.
    pub(super) breaks_off: bool,
}

/// Uploads without end.
pub(super) struct Bodies {
    random: Random,
    /// Modules that are taken, or refused for what they do alone.
    seeds: Vec<Vec<u8>>,
}

/// A policy that is taken, as a form.
pub(super) fn good() -> anyhow::Result<(String, Vec<u8>)> {
    Ok((kind(), form(&[("component", &Version::V1.module()?)])))
}

/// A module of the world `access`, whose functions are these and which has this beside them.
fn module(configure: &str, authorize: &str, beside: &str) -> anyhow::Result<Vec<u8>> {
    let text = format!(
        r#"(module (memory (export "memory") 4)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
            (func $configure (export "configure") (param i32 i32) (result i32) {configure})
            (func (export "authorize") (param i64 i32 i32 i64 i32 i32 i32 i32) (result i32) {authorize})
            (data (i32.const 128) "\02") {beside})"#
    );
    wat::parse_str(&text).with_context(|| text.chars().take(300).collect::<String>())
}

impl Bodies {
    pub(super) fn new(random: Random) -> anyhow::Result<Self> {
        let mut seeds = Vec::new();
        for version in Version::ALL {
            seeds.push(version.module()?);
        }
        let (fine, abstains) = ("(i32.const 64)", "(i32.const 128)");
        for configure in [
            "(unreachable)",
            "(loop (br 0)) (unreachable)",
            "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)",
            "(call $configure (local.get 0) (local.get 1))",
            "(i32.const -4)",
            "(i32.store (i32.const 260) (i32.const 300)) (i32.store (i32.const 264) (i32.const -1)) (i32.const 256)",
            "(i32.store8 (i32.const 256) (i32.const 1)) (i32.store (i32.const 264) (i32.const 100000)) (i32.const 256)",
            "(i32.div_s (i32.const 1) (i32.const 0))",
            "(memory.fill (i32.const 0) (i32.const 255) (i32.const 262144)) (i32.const 64)",
        ] {
            seeds.push(module(configure, abstains, "")?);
        }
        let deep = format!("{} {} i32.const 128", "block ".repeat(20_000), "end ".repeat(20_000));
        let locals = format!("(local {}) (i32.const 128)", "i64 ".repeat(40_000));
        let wide = "(drop (i32.add (local.get 1) (i32.const 7)))".repeat(20_000) + abstains;
        for authorize in [&deep, &locals, &wide] {
            seeds.push(module(fine, authorize, "")?);
        }
        for beside in [
            "(func $begin (loop (br 0))) (start $begin)".to_owned(),
            "(table 10000000 funcref)".to_owned(),
            "(table 90000 funcref)".to_owned(),
            format!("(func {})", "(nop)".repeat(100)).repeat(3_000),
            "(global (mut i64) (i64.const 0))".repeat(5_000),
            "(data (i32.const 1000) \"abc\")".repeat(20_000),
            format!("(data (i32.const 0) \"{}\")", "x".repeat(200_000)),
            "(import \"segue:policy/request@0.1.0\" \"method\" (func (param i32)))".to_owned(),
        ] {
            let (imports, beside) =
                if beside.starts_with("(import") { (beside, String::new()) } else { (String::new(), beside) };
            let made = if imports.is_empty() {
                module(fine, abstains, &beside)?
            } else {
                wat::parse_str(format!(
                    "(module {imports} (func (export \"configure\")) (func (export \"authorize\")))"
                ))?
            };
            seeds.push(made);
        }
        // More memory than there is.
        seeds.push(wat::parse_str(
            r#"(module (memory (export "memory") 65536) (func (export "configure")) (func (export "authorize")))"#,
        )?);
        let nested = "(component ".repeat(60) + &")".repeat(60);
        seeds.push(wat::parse_str(nested)?);
        Ok(Self { random, seeds })
    }

    /// Once in a while.
    pub(super) fn is_rarely(&mut self) -> bool {
        self.random.per_mille(50)
    }

    pub(super) fn next(&mut self) -> anyhow::Result<Body> {
        let place = self.random.place(self.seeds.len());
        let seed = self.seeds.get(place).cloned().unwrap_or_default();
        let (sort, file) = match self.random.below(20) {
            0 => ("as made", seed),
            1 => ("chance", self.chance()),
            2 => ("header", [&b"\0asm\x01\0\0\0"[..], &self.chance()].concat()),
            3 => ("component header", [&b"\0asm\x0d\0\x01\0"[..], &self.chance()].concat()),
            4 => ("vectors", self.with_vectors(seed)),
            5 => return Ok(self.bad_form(&seed)),
            _ => ("mutated", self.mutated(seed)),
        };
        let breaks_off = self.random.per_mille(20);
        let mut fields: Vec<(&str, Vec<u8>)> = vec![("component", file)];
        if self.random.per_mille(100) {
            fields.push(("config", self.config()));
        }
        let fields: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        Ok(Body { sort, kind: kind(), bytes: form(&fields), breaks_off })
    }

    fn chance(&mut self) -> Vec<u8> {
        (0..self.random.below(CHANCE_MAX)).map(|_| self.byte()).collect()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.random.below(256)).unwrap_or(0)
    }

    /// Some edits anywhere: bits, bytes that mean much in this format, pieces that go, come twice or come from another seed.
    fn mutated(&mut self, mut file: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.random.below(12) {
            if file.is_empty() {
                break;
            }
            // Most of it after the header, since a header has few secrets.
            let at = self.random.place(file.len()).max(8.min(file.len() - 1));
            let end = (at + 1 + self.random.place(64)).min(file.len());
            match self.random.below(7) {
                0 => file[at] ^= 1 << self.random.below(8),
                1 => file[at] = [0, 1, 0x0b, 0x40, 0x7f, 0x80, 0xff][self.random.place(7)],
                2 => file[at] = self.byte(),
                3 => _ = file.drain(at..end),
                4 => {
                    let piece = file[at..end].to_vec();
                    file.splice(at..at, piece);
                }
                5 => {
                    let other = self.random.place(self.seeds.len());
                    let piece = self.seeds.get(other).map_or(&[][..], |seed| {
                        let from = at.min(seed.len());
                        &seed[from..(from + 64).min(seed.len())]
                    });
                    file.splice(at..at, piece.to_vec());
                }
                // A number in LEB128 as large as it gets.
                _ => _ = file.splice(at..end.min(at + 1), [0xff, 0xff, 0xff, 0xff, 0x0f]),
            }
        }
        if self.random.per_mille(30) {
            let keep = self.random.place(file.len().max(1));
            file.truncate(keep);
        }
        file
    }

    /// A section of vectors behind a module, whole or not.
    fn with_vectors(&mut self, file: Vec<u8>) -> Vec<u8> {
        let name = "segue:vectors";
        let texts = [
            "{\"vectors\":[]}",
            "{\"vectors\":[{\"name\":\"a\",\"config\":{},\"request\":{\"path\":\"/hls/t/a\"},\"expect\":{\"verdict\":\"abstain\"}}]}",
            "{\"vectors\":[{\"name\":\"a\",\"expect\":{\"verdict\":\"deny\",\"status\":403,\"reason\":\"x\"}}]}",
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
            "{\"vectors\":7}",
        ];
        let mut text = texts[self.random.place(texts.len())].as_bytes().to_vec();
        if self.random.per_mille(300) {
            text = self.mutated(text);
        }
        let mut section = leb(name.len());
        section.extend_from_slice(name.as_bytes());
        section.extend(text);
        [file, vec![0], leb(section.len()), section].concat()
    }

    fn config(&mut self) -> Vec<u8> {
        match self.random.below(6) {
            0 => b"{}".to_vec(),
            1 => b"null".to_vec(),
            2 => "[".repeat(100_000).into_bytes(),
            3 => format!("{{\"a\":\"{}\"}}", "x".repeat(2_000_000)).into_bytes(),
            4 => b"{\"a\":1e999}".to_vec(),
            _ => self.chance(),
        }
    }

    /// What is no form of an upload.
    fn bad_form(&mut self, file: &[u8]) -> Body {
        let whole = form(&[("component", file)]);
        let plain = |bytes: Vec<u8>| (kind(), bytes);
        let chance = self.chance();
        let (kind, bytes) = match self.random.below(12) {
            0 => ("multipart/form-data".to_owned(), whole),
            1 => ("multipart/form-data; boundary=another".to_owned(), whole),
            2 => ("application/json".to_owned(), b"{}".to_vec()),
            3 => plain(form(&[("config", b"{}")])),
            4 => plain(form(&[("component", file), ("component", file)])),
            5 => plain(form(&[("component", file), ("order", b"many")])),
            6 => plain(form(&[("component", file), ("version", b"../../etc")])),
            7 => plain(form(&[("component", file), ("on_failure", b"perhaps")])),
            8 => plain(form(&[("component", file), ("note", "x".repeat(100_000).as_bytes())])),
            9 => plain(form(&[("nobody-knows", &chance)])),
            10 => plain(form(&[(&"n".repeat(100_000), b"x")])),
            _ => plain(self.mutated(whole)),
        };
        Body { sort: "bad form", kind, bytes, breaks_off: false }
    }
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
