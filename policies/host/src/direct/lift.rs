//! What a policy hands over: read from its memory as records of the contract.
//!
//! Offsets are the canonical ABI's: a record's fields in order, each at a multiple of its own alignment; a string or list is its
//! pointer and its length; an option, result or variant is a byte, and its value at the next multiple of four.

use wasmtime::{Result, StoreContext, Trap, bail};

use crate::contract::types::{Allowance, Denial, Limit, Verdict};
use crate::state::State;

/// Reads what one call hands over, at most [`crate::Bounds::output`] bytes in all.
pub(super) struct Lift<'m> {
    memory: &'m [u8],
    left: usize,
}

impl<'m> Lift<'m> {
    /// Of the instance in `store`, unless it may not call the host at the time.
    pub(super) fn of(store: impl Into<StoreContext<'m, State>>) -> Result<Self> {
        let store = store.into();
        let state = store.data();
        let Some(guest) = &state.guest else { return Err(Trap::CannotLeaveComponent.into()) };
        Ok(Self { memory: guest.memory.data(store), left: state.output })
    }

    pub(super) fn bytes(&mut self, at: u32, length: u32) -> Result<&'m [u8]> {
        let Some(bytes) = self.memory.get(at as usize..).and_then(|rest| rest.get(..length as usize)) else {
            bail!("a text or list outside of the policy's memory");
        };
        self.spend(bytes.len())?;
        Ok(bytes)
    }

    pub(super) fn text(&mut self, at: u32, length: u32) -> Result<&'m str> {
        Ok(std::str::from_utf8(self.bytes(at, length)?)?)
    }

    /// Whether `size` bytes can be written at `at`, a multiple of `align`.
    pub(super) fn holds(&self, at: u32, size: usize, align: u32) -> Result<()> {
        match self.memory.get(at as usize..) {
            Some(rest) if rest.len() >= size && at.is_multiple_of(align) => Ok(()),
            _ => bail!("wants an answer outside of its memory, or across its words"),
        }
    }

    /// What `configure` answered.
    pub(super) fn configured(&mut self, at: u32) -> Result<Result<Vec<String>, String>> {
        let record: &[u8; 12] = self.record(at)?;
        Ok(match record[0] {
            0 => Ok(self.list(record, 4, |lift, item: &[u8; 8]| lift.string(item, 0))?),
            1 => Err(self.string(record, 4)?),
            _ => bail!("a result that is neither ok nor an error"),
        })
    }

    /// What `authorize` answered.
    pub(super) fn verdict(&mut self, at: u32) -> Result<Verdict> {
        let record: &[u8; 40] = self.record(at)?;
        Ok(match record[0] {
            0 => Verdict::Allow(Allowance {
                limits: self.list(record, 4, |lift, item: &[u8; 16]| lift.limit(item, 0))?,
                streams: self.option(record[12], |lift| lift.limit(record, 16))?,
                tags: self.list(record, 32, |lift, item: &[u8; 8]| lift.string(item, 0))?,
            }),
            1 => Verdict::Deny(Denial {
                status: u16::from_le_bytes([record[4], record[5]]),
                reason: self.string(record, 8)?,
                redirect: self.option(record[16], |lift| lift.string(record, 20))?,
                headers: self
                    .list(record, 28, |lift, item: &[u8; 16]| Ok((lift.string(item, 0)?, lift.string(item, 8)?)))?,
            }),
            2 => Verdict::Abstain,
            _ => bail!("a verdict that is neither allow, deny nor abstain"),
        })
    }

    fn limit<const SIZE: usize>(&mut self, record: &[u8; SIZE], at: usize) -> Result<Limit> {
        Ok(Limit { class: self.string(record, at)?, key: self.string(record, at + 8)? })
    }

    fn string<const SIZE: usize>(&mut self, record: &[u8; SIZE], at: usize) -> Result<String> {
        self.text(word(record, at), word(record, at + 4)).map(str::to_owned)
    }

    fn option<T>(&mut self, is: u8, value: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match is {
            0 => Ok(None),
            1 => value(self).map(Some),
            _ => bail!("an option that is neither there nor not"),
        }
    }

    fn list<T, const SIZE: usize, const ITEM: usize>(
        &mut self,
        record: &[u8; SIZE],
        at: usize,
        item: impl Fn(&mut Self, &'m [u8; ITEM]) -> Result<T>,
    ) -> Result<Vec<T>> {
        let (start, count) = (word(record, at), word(record, at + 4) as usize);
        let rest = self.memory.get(start as usize..);
        let Some(items) = rest.and_then(|rest| rest.get(..count.checked_mul(ITEM)?)) else {
            bail!("a list outside of the policy's memory");
        };
        if !start.is_multiple_of(4) {
            bail!("a list across the words of the policy's memory");
        }
        // Before anything is made of it: a list of empty texts costs the host more than the policy.
        self.spend(count.saturating_mul(size_of::<T>()))?;
        items.as_chunks().0.iter().map(|place| item(self, place)).collect()
    }

    fn record<const SIZE: usize>(&self, at: u32) -> Result<&'m [u8; SIZE]> {
        match self.memory.get(at as usize..).and_then(|rest| rest.first_chunk()) {
            Some(record) if at.is_multiple_of(4) => Ok(record),
            _ => bail!("an answer outside of the policy's memory, or across its words"),
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => bail!("an answer of more bytes than a call may hand over"),
        }
        Ok(())
    }
}

/// The number at an offset that the callers above name, each within its record.
fn word<const SIZE: usize>(record: &[u8; SIZE], at: usize) -> u32 {
    u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
}
