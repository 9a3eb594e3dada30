//! What can go wrong with a policy: at upload ([`Refused`]) and in a call ([`Failure`]), each with a reason word of its own.

/// Why a file does not become a policy. Uploading the same bytes again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Over the bound, and not looked at.
    #[error("the file has {size} bytes; at most {bound} are accepted")]
    TooLarge {
        /// Bytes that came.
        size: usize,
        /// Bytes that may come.
        bound: usize,
    },
    /// Neither a component nor a core module.
    #[error("not WebAssembly: the file does not start with its magic number")]
    NotWasm,
    /// It starts like WebAssembly and is none, or uses an extension that is not enabled.
    #[error("not valid WebAssembly: {0}")]
    Invalid(String),
    /// It wants something that the host does not give.
    #[error(
        "imports {0:?}, which the host does not give; a policy may import segue:policy/{{request, tools, crypto, …}} and \
         nothing else (WASI is what a toolchain adds when the program prints, reads the time or draws random numbers)"
    )]
    Import(String),
    /// It was built against another version of the contract.
    #[error("imports {0:?}, but this host speaks segue:policy version 0.1.0; build it against that")]
    Version(String),
    /// The functions of no world are all there.
    #[error("exports no {missing:?}; the world {world} needs it")]
    Export {
        /// The world that it is nearest to.
        world: &'static str,
        /// What it lacks.
        missing: &'static str,
    },
    /// All names are there, but a type differs, or it needs more tables or memories than are given.
    #[error("does not fit the contract: {0}")]
    Contract(String),
    /// The host itself could not: a thread died, the disk is full.
    #[error("could not be compiled here: {0}")]
    Host(String),
}

impl Refused {
    /// The reason word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::NotWasm => "not-wasm",
            Self::Invalid(_) => "invalid",
            Self::Import(_) => "forbidden-import",
            Self::Version(_) => "other-version",
            Self::Export { .. } => "missing-export",
            Self::Contract(_) => "contract-mismatch",
            Self::Host(_) => "host",
        }
    }
}

/// Why a call gave no answer. The policy's fail mode decides what then becomes of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It ended itself: a panic, a division by zero, an access outside of its memory.
    #[error("trap: {0}")]
    Trap(String),
    /// It used up its time.
    #[error("ran longer than it may")]
    Timeout,
    /// It trapped after it was refused more memory.
    #[error("wanted more memory than it may have")]
    OutOfMemory,
    /// Recursion to the end of the stack.
    #[error("used up its stack")]
    StackExhausted,
    /// It answered, but not what the contract allows.
    #[error("answered what the contract does not allow: {0}")]
    BadOutput(String),
    /// `configure` said no, in its own words.
    #[error("does not accept its configuration: {0}")]
    Configuration(String),
    /// Not run at all: it failed too often just now.
    #[error("rests, after it failed too often in a row")]
    Resting,
}

impl Failure {
    /// Every reason word there is, so that metrics can be set up before the first one happens.
    pub const KINDS: [&'static str; 7] =
        ["trap", "timeout", "out-of-memory", "stack-exhausted", "bad-output", "configuration", "resting"];

    /// The reason word: the label of the metric.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Timeout => "timeout",
            Self::OutOfMemory => "out-of-memory",
            Self::StackExhausted => "stack-exhausted",
            Self::BadOutput(_) => "bad-output",
            Self::Configuration(_) => "configuration",
            Self::Resting => "resting",
        }
    }

    /// Names what ended a call. `starved`: the call had been refused memory before.
    pub(crate) fn of(error: &wasmtime::Error, starved: bool) -> Self {
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::Interrupt) => Self::Timeout,
            Some(wasmtime::Trap::StackOverflow) => Self::StackExhausted,
            _ if starved => Self::OutOfMemory,
            Some(trap) => Self::Trap(trap.to_string()),
            // Not the program's own doing: an answer that could not be read (too long, no UTF-8, a pointer to nowhere).
            None => Self::BadOutput(error.root_cause().to_string()),
        }
    }
}
