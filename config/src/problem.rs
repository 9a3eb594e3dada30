//! What is wrong with a configuration, said so that it can be mended.

use std::fmt;

/// One mistake: where it stands and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or whatever the text came from.
    pub origin: String,
    /// The dotted path of the key, for example `origin.endpoint`; empty for the whole text.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.origin.as_str(), self.key.as_str()) {
            ("", "") => write!(f, "{}", self.message),
            (origin, "") => write!(f, "{origin}: {}", self.message),
            ("", key) => write!(f, "{key}: {}", self.message),
            (origin, key) => write!(f, "{origin}: {key}: {}", self.message),
        }
    }
}

/// Every mistake that was found, in the order of the file's readers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
