//! What a policy may use up: every bound of the host in one place, with the reason for its default.

use std::path::PathBuf;
use std::time::Duration;

/// How often the clock that ends calls ticks. Each tick takes the processor from a request for some microseconds; a fifth of
/// what a call may take by default is fine enough.
pub(crate) const TICK: Duration = Duration::from_millis(2);
/// Lines that one call may log; the rest is dropped. A policy that logs each request would drown the edge's own log.
pub(crate) const LOG_LINES: u8 = 4;
/// Bytes of one such line.
pub(crate) const LOG_BYTES: usize = 512;
/// Texts that a policy may ask to be given with each call. More than any rule that we know reads.
pub(crate) const FIELDS: usize = 32;
/// Linear memories, tables and core instances of one policy: what `wit-component` makes of a Rust policy needs under ten.
pub(crate) const MEMORIES: usize = 4;
pub(crate) const TABLES: usize = 32;
pub(crate) const INSTANCES: usize = 64;

/// How a host is set up.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Where compiled policies are kept, so that a restart does not compile them again. `None`: nowhere.
    pub cache: Option<PathBuf>,
    /// The bounds of every policy.
    pub bounds: Bounds,
}

/// What one policy may use. The defaults fit policies in Rust, C and JavaScript.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Bytes of an uploaded file. JavaScript policies have 12 MB, since they bring their interpreter.
    pub upload: usize,
    /// How long one call may run on a processor; it ends after once to twice that. Ten thousand times what a simple rule
    /// takes; short enough that a loop harms few. Waiting for a processor does not count.
    pub call: Duration,
    /// How long instantiation and `configure` may run, and a scheme's `sign`; an interpreter starts here.
    pub configure: Duration,
    /// Bytes of linear memory of one instance.
    pub memory: usize,
    /// Elements of each table: function pointers, mostly.
    pub table_elements: usize,
    /// Bytes that one call may hand to the host, at once.
    pub output: usize,
    /// Bytes of stack that WebAssembly may use; well under the 2 MiB that a thread of the edge has.
    pub stack: usize,
    /// Calls after which an instance is replaced: whatever leaks, leaks only so far.
    pub calls: u32,
    /// Bytes of memory that an instance may have grown by, before it is replaced: garbage that nobody collects.
    pub growth: usize,
    /// Instances of one policy, so also the calls at a time: one for each thread that answers requests.
    pub instances: usize,
    /// Failures in a row after which a policy rests.
    pub failures: u32,
    /// How long it rests first; twice as long each time it fails again, at most 64 times as long.
    pub rest: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            upload: 32 << 20,
            call: Duration::from_millis(10),
            configure: Duration::from_secs(2),
            memory: 64 << 20,
            table_elements: 100_000,
            output: 64 << 10,
            stack: 512 << 10,
            calls: 100_000,
            growth: 8 << 20,
            instances: std::thread::available_parallelism().map_or(4, std::num::NonZeroUsize::get).max(4),
            failures: 5,
            rest: Duration::from_secs(1),
        }
    }
}
