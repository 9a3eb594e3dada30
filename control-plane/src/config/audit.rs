//! `[audit]`: how long it is known who changed what.

use segue_config::Section;

/// What is kept of the audit.
#[derive(Clone, Copy, Debug)]
pub struct AuditConfig {
    /// Records go after so many days.
    pub days: u32,
    /// Records of each sort: changes by administrators, other changes, tickets, refusals. The oldest of a sort go first. A record has
    /// some 500 bytes.
    pub rows: u32,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { days: 400, rows: 200_000 }
    }
}

impl AuditConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let positive = |key: &str, default: u32| {
            let count = section.or(key, default);
            if count == 0 {
                section.problem(key, "must be at least 1");
            }
            count
        };
        Self { days: positive("days", default.days), rows: positive("rows", default.rows) }
    }
}
