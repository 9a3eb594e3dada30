//! Five versions of one policy, written by hand so that each is small, and told apart by what it does.
//!
//! The three that are sound let segments pass, with a tag of their own, and refuse every other kind of object, with a reason and a header
//! of their own. One traps at each call; one goes on until its time is over. What a request got so names the version that judged it.

use anyhow::Context;

/// The policy's name.
pub(super) const POLICY: &str = "rule";
/// The response header of a sound version's refusal.
pub(super) const HEADER: &str = "x-rule-version";

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// Sound.
    V1,
    /// Sound.
    V2,
    /// Sound.
    V3,
    /// Traps at each call.
    Trap,
    /// Never comes back.
    Loop,
}

impl Version {
    pub(crate) const ALL: [Self; 5] = [Self::V1, Self::V2, Self::V3, Self::Trap, Self::Loop];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3 => "v3",
            Self::Trap => "trap",
            Self::Loop => "loop",
        }
    }

    /// Whether it answers at all.
    pub(super) const fn is_sound(self) -> bool {
        matches!(self, Self::V1 | Self::V2 | Self::V3)
    }

    /// The sound version of this name.
    pub(super) fn sound(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.is_sound() && version.name() == name)
    }

    /// The file that is uploaded: a core module, as a compiler makes it (policies/wit says what its words mean).
    pub(crate) fn module(self) -> anyhow::Result<Vec<u8>> {
        let authorize = match self {
            Self::Trap => "(unreachable)",
            Self::Loop => "(loop (br 0)) (unreachable)",
            // The second word is the object's kind; 3 is a segment.
            _ => "(if (result i32) (i32.eq (local.get 1) (i32.const 3)) (then (i32.const 256)) (else (i32.const 320)))",
        };
        let name = self.name();
        let word = |number: usize| {
            u32::try_from(number).unwrap_or_default().to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat()
        };
        let words = |numbers: &[usize]| numbers.iter().copied().map(word).collect::<String>();
        // `allow`: no limits, no streams, one tag. `deny`: a status, a reason, no redirect, one header.
        let allow = words(&[0, 0, 0, 0, 0, 0, 0, 0, 512, 1]);
        let deny = words(&[1, 451, 600, name.len(), 0, 0, 0, 528, 1]);
        let (tag, header) = (words(&[600, name.len()]), words(&[616, HEADER.len(), 600, name.len()]));
        let text = format!(
            r#"(module
                (memory (export "memory") 2)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
                (func (export "configure") (param i32 i32) (result i32) (i32.const 64))
                (func (export "authorize") (param i64 i32 i32 i64 i32 i32 i32 i32) (result i32) {authorize})
                (data (i32.const 256) "{allow}") (data (i32.const 320) "{deny}")
                (data (i32.const 512) "{tag}") (data (i32.const 528) "{header}")
                (data (i32.const 600) "{name}") (data (i32.const 616) "{HEADER}"))"#
        );
        wat::parse_str(text).with_context(|| format!("the version {name}"))
    }
}
