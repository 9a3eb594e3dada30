//! The request that a policy is being asked about, lent to the host functions for the time of one call.
//!
//! A store outlives every request, so it cannot hold a borrowed one; copying thirty texts for a rule that reads three
//! would cost more than the rule. So a reference is laid down for this thread before a call, and taken away after it.
//!
//! Invariant: what lies in `CURRENT` is valid as long as it lies there.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::NonNull;

use crate::request::RequestView;

thread_local! {
    static CURRENT: Cell<Option<NonNull<RequestView<'static>>>> = const { Cell::new(None) };
}

/// Puts back what lay there before, on return and on panic alike.
struct Return(Option<NonNull<RequestView<'static>>>);

impl Drop for Return {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Runs `call` with `request` as this thread's current one.
pub(crate) fn lend<R>(request: &RequestView<'_>, call: impl FnOnce() -> R) -> R {
    let lent = NonNull::from(request).cast::<RequestView<'static>>();
    let _return = Return(CURRENT.replace(Some(lent)));
    call()
}

/// Shows the current request to `read`; `None` outside of a call.
///
/// `read` is generic over the request's lifetime, so nothing borrowed from it can leave.
pub(crate) fn with<R>(read: impl for<'r> FnOnce(&'r RequestView<'r>) -> R) -> Option<R> {
    let lent = CURRENT.get()?;
    // SAFETY: `lend` laid the pointer down and holds the borrow that it was made from until `Return` takes it away;
    // `CURRENT` belongs to this thread, so we are inside that `lend`. Nothing ever has it mutably.
    let request: &RequestView<'_> = unsafe { lent.as_ref() };
    Some(read(request))
}
