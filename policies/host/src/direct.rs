//! The direct path: an access policy that came as a core module, called without the component layer between.
//!
//! The component model's canonical ABI (CanonicalABI.md of its specification) says which core functions a world's functions
//! become and how their values lie in memory. A host of any contract has to look that up for each call; this one knows it.
//!
//! Invariants: only a module whose component does nothing else ([`plain`]) runs here, so a policy answers the same by both
//! paths; what it may not do ends a call with the same [`crate::Failure`] by both. What it hands over is read within its
//! memory and its budget, and is held against the contract before it is believed.

mod imports;
mod lift;
mod lower;
mod plain;

pub(crate) use imports::linker;
pub(crate) use lower::Guest;
pub(crate) use plain::is_plain;

use wasmtime::{AsContextMut, InstancePre, Result, Store, TypedFunc, bail};

use crate::contract::types::{Moment, Verdict};
use crate::state::State;
use lift::Lift;
use lower::{alone, lower};

/// `now`, `kind`, `pos` and `media` as options, and the fields.
type Authorize = (u64, u32, u32, u64, u32, u32, u32, u32);

/// The exported functions of one instance.
pub(crate) struct Direct {
    authorize: TypedFunc<Authorize, u32>,
    authorized: Option<TypedFunc<u32, ()>>,
    configure: TypedFunc<(u32, u32), u32>,
    configured: Option<TypedFunc<u32, ()>>,
}

impl Direct {
    /// A fresh instance, in the state that the component's would be in: its start function has run without the host's functions,
    /// `_initialize` with them.
    pub(crate) fn new(store: &mut Store<State>, code: &InstancePre<State>) -> Result<Self> {
        let instance = code.instantiate(&mut *store)?;
        let Some(memory) = instance.get_memory(&mut *store, "memory") else { bail!("exports no memory") };
        let realloc = instance.get_typed_func(&mut *store, "cabi_realloc")?;
        store.data_mut().guest = Some(Box::new(Guest { memory, realloc }));
        let mut after = |name| instance.get_func(&mut *store, name).map(|func| func.typed(&*store)).transpose();
        let direct = Self {
            authorized: after("cabi_post_authorize")?,
            configured: after("cabi_post_configure")?,
            authorize: instance.get_typed_func(&mut *store, "authorize")?,
            configure: instance.get_typed_func(&mut *store, "configure")?,
        };
        if let Some(initialize) = instance.get_func(&mut *store, "_initialize") {
            initialize.typed::<(), ()>(&*store)?.call(&mut *store, ())?;
        }
        Ok(direct)
    }

    pub(crate) fn configure(&self, store: &mut Store<State>, config: &str) -> Result<Result<Vec<String>, String>> {
        let config = lower(&mut *store, config.as_bytes())?;
        let at = self.configure.call(&mut *store, config)?;
        let answer = Lift::of(&*store)?.configured(at)?;
        done(store, self.configured.as_ref(), at)?;
        Ok(answer)
    }

    pub(crate) fn authorize(&self, store: &mut Store<State>, moment: Moment, fields: &str) -> Result<Verdict> {
        let (fields, length) = lower(&mut *store, fields.as_bytes())?;
        let (pos, media) = (moment.pos_ms, moment.media_ms);
        let at = self.authorize.call(
            &mut *store,
            (
                moment.now_ms,
                moment.kind as u32,
                pos.is_some().into(),
                pos.unwrap_or_default(),
                media.is_some().into(),
                media.unwrap_or_default(),
                fields,
                length,
            ),
        )?;
        let verdict = Lift::of(&*store)?.verdict(at)?;
        done(store, self.authorized.as_ref(), at)?;
        Ok(verdict)
    }
}

/// Lets the policy take back what its answer at `at` lay in.
fn done(store: &mut Store<State>, post: Option<&TypedFunc<u32, ()>>, at: u32) -> Result<()> {
    post.map_or(Ok(()), |post| alone(store.as_context_mut(), |_, store| post.call(store, at)))
}
