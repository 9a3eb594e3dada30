//! What a policy may use up: every bound of the host in one place, with the reason for its default.

use std::path::PathBuf;
use std::time::Duration;

/// How seldom the clock that ends calls ticks, and how often: what a call may take is fine enough, and each tick takes the processor
/// from a request for a dozen microseconds.
const TICK_MAX: Duration = Duration::from_millis(10);
const TICK_MIN: Duration = Duration::from_millis(1);
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
    /// How long one call may run on a processor; a loop that has one to itself ends after twice that and a tick of the clock at most, so three
    /// times that by default. Ten thousand times what a simple rule takes; short enough that a loop harms few. Waiting for a processor does not
    /// count.
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

impl Bounds {
    /// How often the clock ticks that ends calls.
    pub(crate) fn tick(&self) -> Duration {
        self.call.clamp(TICK_MIN, TICK_MAX)
    }

    /// Ticks that `time` is given: one more than it has, since the tick that runs is already partly over.
    pub(crate) fn ticks(&self, time: Duration) -> u64 {
        u64::try_from(time.as_micros().div_ceil(self.tick().as_micros())).unwrap_or(u64::MAX / 2) + 1
    }
}
