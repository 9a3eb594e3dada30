//! How many connections each address has.
//!
//! Invariants: an address that has none takes no memory; a place is given back when it is dropped. The lock is held for
//! one look-up, at the beginning and at the end of a connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::household;
use crate::lock::Mutex;

/// The addresses that are connected.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// How many connections one address may have.
    most: usize,
    present: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place among those of its address.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    household: IpAddr,
}

impl Crowd {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, present: Mutex::default() }
    }

    /// A place for one more connection of `address`; `None` where it has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let household = household(address);
        let mut present = self.present.lock();
        let count = present.entry(household).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(present);
        Some(Place { crowd: Arc::clone(self), household })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut present = self.crowd.present.lock();
        if let Some(count) = present.get_mut(&self.household) {
            *count -= 1;
            if *count == 0 {
                present.remove(&self.household);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_has_as_many_places_as_it_may_and_gets_them_back() {
        let crowd = Arc::new(Crowd::new(2));
        let [one, neighbour, other] = ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|ip| ip.parse().unwrap());
        let first = crowd.enter(one).unwrap();
        let _second = crowd.enter(neighbour).unwrap();
        assert!(crowd.enter(one).is_none());
        drop(crowd.enter(other).unwrap());
        drop(first);
        assert!(crowd.enter(one).is_some());
        assert_eq!(crowd.present.lock().len(), 1, "who is gone takes no memory");
    }
}
