//! Which country an address is in, by a MaxMind database (`[client] country`).
//!
//! Invariants: a look-up waits for nothing; each thread remembers the addresses that it met last, in a table of fixed size.
//!
//! On failure: an address that the database does not know, or has no two-letter code for, is in no country. A file that cannot be used is
//! an error at start; later the last good one goes on.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use maxminddb::{Reader, path};

/// Bytes of a database. Those of countries have 10 MB, those of cities 60; it is held in memory.
const FILE_MAX: u64 = 512 << 20;
/// Addresses that a thread remembers: some 40 KiB. Players come again and again.
const REMEMBERED: usize = 1024;

/// An ISO 3166-1 alpha-2 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Country([u8; 2]);

/// A database.
pub(crate) struct Countries {
    reader: Reader<Vec<u8>>,
    /// Tells this one's answers from those of the one before.
    number: u64,
}

/// An answer: the database's number, the address, and what it said.
type Known = (u64, u128, Option<Country>);

thread_local! {
    static MET: RefCell<Box<[Known]>> = RefCell::new(vec![(0, 0, None); REMEMBERED].into_boxed_slice());
}

impl Country {
    fn parse(text: &str) -> Option<Self> {
        let code: [u8; 2] = text.as_bytes().try_into().ok()?;
        code.iter().all(u8::is_ascii_uppercase).then_some(Self(code))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Countries {
    /// Reads a database.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| failed(&error))?;
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(failed(&format!("more than the {FILE_MAX} bytes that are read")));
        }
        let reader = Reader::from_source(bytes)
            .map_err(|error| failed(&format!("not a MaxMind database (.mmdb) that can be read: {error}")))?;
        Ok(Self { reader, number: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// The country of an address.
    pub(crate) fn of(&self, address: IpAddr) -> Option<Country> {
        let address = address.to_canonical();
        let bits = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        MET.with_borrow_mut(|met| {
            // Multiplied, so that neighbours do not share a place.
            let folded = (bits ^ (bits >> 64)) as u64;
            let place = (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % REMEMBERED;
            let Some(known) = met.get_mut(place) else { return self.look(address) };
            if (known.0, known.1) != (self.number, bits) {
                *known = (self.number, bits, self.look(address));
            }
            known.2
        })
    }

    fn look(&self, address: IpAddr) -> Option<Country> {
        let found = self.reader.lookup(address).ok()?;
        let code: Option<&str> = found.decode_path(&path!["country", "iso_code"]).ok()?;
        Country::parse(code?)
    }
}

impl std::fmt::Debug for Countries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Countries").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
