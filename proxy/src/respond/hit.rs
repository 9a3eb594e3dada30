//! A hit that leaves in one write: head and body are composed at once, without a header map.
//!
//! Invariants: status, conditions, ranges and header lines come from where [`super::send`] takes them; the lines that
//! are the same for every whole answer are written once and kept with the object. The fact is noted before the write
//! and settled once, by [`Hit::over`] or by its drop.
//!
//! On failure: what is not one part, or whose place in the track has to be asked for, is left to [`super::send`].

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, StatusCode};
use segue_events::CacheState;

use super::source::PART_MAX;
use super::{Plan, head, place, plan_for};
use crate::cache::{Found, MemFile, Object};
use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::fact::{Delivered, Delivery};
use crate::service::Looked;

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
const DATE_BYTES: usize = 29;

/// Parts of an object below this size are copied, also where the object has a file.
const FILE_MIN: usize = 16 * 1024;

thread_local! {
    /// The second of the last date, and the date.
    static DATE: Cell<(u64, [u8; DATE_BYTES])> = const { Cell::new((u64::MAX, [0; DATE_BYTES])) };
}

/// What the answer has to know of its connection.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// Whether it goes on after the answer.
    pub(crate) keep_alive: bool,
    /// Whether a file costs it less than bytes.
    pub(crate) sends_files: bool,
}

/// An answer whose head is written down and whose body is at hand.
pub(crate) struct Hit {
    pub(crate) body: Bytes,
    /// The same bytes as a part of a file, for connections that take those: the file and where the part begins.
    pub(crate) file: Option<(Arc<MemFile>, u64)>,
    status: u16,
    state: CacheState,
    fact: Delivery,
}

impl Hit {
    /// Composes the answer from what is in memory, its head into `out`. `None`: this is not for here.
    pub(crate) fn compose(
        shared: &Shared,
        exchange: &Exchange,
        asked: Asked<'_>,
        looked: &Looked,
        connection: Way,
        out: &mut Vec<u8>,
    ) -> Option<Self> {
        let Some(Ok(Found::Memory(object, state))) = &looked.fresh else { return None };
        let media = looked.place?;
        let length = object.body.len() as u64;
        let plan = plan_for(asked.method, asked.headers, &object.meta, length).ok()?;
        let window = plan.window.filter(|_| *asked.method != Method::HEAD);
        let body = match window {
            Some(window) => {
                let first = usize::try_from(window.first).ok()?;
                let end = first.checked_add(usize::try_from(window.length()).ok()?)?;
                (end - first <= PART_MAX && end <= object.body.len()).then(|| object.body.slice(first..end))?
            }
            None => Bytes::new(),
        };
        let _step = tracing::trace_span!("respond").entered();
        let first = window.map_or(0, |window| window.first);
        let file = (connection.sends_files && body.len() >= FILE_MIN).then(|| shared.memory.file(object)).flatten();
        let file = file.map(|file| (file, first));
        write_head(out, exchange, object, length, &plan, *state, connection.keep_alive);
        let range = plan.window.filter(|_| plan.status == StatusCode::PARTIAL_CONTENT);
        let delivered = Delivered {
            status: plan.status.as_u16(),
            bytes: body.len() as u64,
            range: range.map(|window| [window.first, window.last(), window.total]),
            state: *state,
            media: place(object, media),
            ttfb_ms: exchange.elapsed_ms(),
        };
        let fact = Delivery::note(shared, exchange, asked, delivered);
        Some(Self { body, file, status: delivered.status, state: *state, fact })
    }

    /// Settles the fact and counts the answer. `sent`: bytes of the body that the kernel took.
    pub(crate) fn over(self, shared: &Shared, complete: bool, sent: u64) {
        self.fact.settle(complete, sent);
        if complete {
            shared.metrics.served(self.status, self.state, sent);
        } else {
            shared.metrics.aborted.add(1);
            shared.metrics.bytes.add(sent);
        }
    }
}

fn write_head(
    out: &mut Vec<u8>,
    exchange: &Exchange,
    object: &Object,
    length: u64,
    plan: &Plan,
    state: CacheState,
    keep_alive: bool,
) {
    out.extend_from_slice(match plan.status {
        StatusCode::PARTIAL_CONTENT => b"HTTP/1.1 206 Partial Content\r\n".as_slice(),
        StatusCode::NOT_MODIFIED => b"HTTP/1.1 304 Not Modified\r\n",
        _ => b"HTTP/1.1 200 OK\r\n",
    });
    let lines = |out: &mut Vec<u8>| head::of_object(&object.meta, length, plan, state, None).header_to_h1_wire(out);
    if plan.status == StatusCode::OK && state == CacheState::HitMemory {
        out.extend_from_slice(object.head.get_or_init(|| {
            let mut kept = Vec::with_capacity(512);
            lines(&mut kept);
            kept.into_boxed_slice()
        }));
    } else {
        lines(out);
    }
    if state != CacheState::Miss {
        out.extend_from_slice(b"Age: ");
        out.extend_from_slice(itoa::Buffer::new().format(object.age(exchange.started)).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(&date(exchange.started_ms / 1000));
    let rest: &[u8] = if keep_alive { b"\r\nConnection: keep-alive\r\n\r\n" } else { b"\r\nConnection: close\r\n\r\n" };
    out.extend_from_slice(rest);
}

/// A second since the epoch, formatted once on each thread.
fn date(second: u64) -> [u8; DATE_BYTES] {
    let (known, text) = DATE.get();
    if known == second {
        return text;
    }
    let formatted = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    let mut text = [b' '; DATE_BYTES];
    for (place, byte) in text.iter_mut().zip(formatted.bytes()) {
        *place = byte;
    }
    DATE.set((second, text));
    text
}
