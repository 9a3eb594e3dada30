//! A mutex without poison.
//!
//! What stands behind these locks is whole at every point where a panic could leave it (one insert, one removal), and
//! a panic in one request must not refuse all later ones.

use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(StdMutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(StdMutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
