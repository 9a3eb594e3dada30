//! What the host hands over: laid into the policy's memory, at places that its own allocator names.

use wasmtime::{AsContextMut, Memory, Result, StoreContextMut, Trap, TypedFunc, bail};

use crate::state::State;

/// What the host reaches into an instance by.
pub(crate) struct Guest {
    pub(super) memory: Memory,
    pub(super) realloc: TypedFunc<(u32, u32, u32, u32), u32>,
}

/// Runs a function of the policy's that may call nothing of the host's (`may_leave` in the specification): for that time there
/// is no [`Guest`], without which none of those functions begins. After an error there is none for good; the instance
/// is not used again.
pub(super) fn alone<R>(
    mut store: StoreContextMut<'_, State>,
    run: impl FnOnce(&Guest, &mut StoreContextMut<'_, State>) -> Result<R>,
) -> Result<R> {
    let Some(guest) = store.data_mut().guest.take() else { return Err(Trap::CannotLeaveComponent.into()) };
    let answer = run(&guest, &mut store)?;
    store.data_mut().guest = Some(guest);
    Ok(answer)
}

/// A `string` or `list<u8>`: where it now lies, and its length.
pub(super) fn lower(mut store: impl AsContextMut<Data = State>, bytes: &[u8]) -> Result<(u32, u32)> {
    let length = u32::try_from(bytes.len())?;
    alone(store.as_context_mut(), |guest, store| {
        let at = guest.realloc.call(&mut *store, (0, 0, 1, length))?;
        let memory = guest.memory.data_mut(store);
        match memory.get_mut(at as usize..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(place) => place.copy_from_slice(bytes),
            None => bail!("cabi_realloc answered a place outside of the policy's memory"),
        }
        Ok((at, length))
    })
}

/// Writes an answer, or a part of one, where the policy wants it.
pub(super) fn put(mut store: impl AsContextMut<Data = State>, at: u32, bytes: &[u8]) -> Result<()> {
    let mut store = store.as_context_mut();
    let Some(memory) = store.data().guest.as_ref().map(|guest| guest.memory) else {
        return Err(Trap::CannotLeaveComponent.into());
    };
    match memory.data_mut(&mut store).get_mut(at as usize..).and_then(|rest| rest.get_mut(..bytes.len())) {
        Some(place) => place.copy_from_slice(bytes),
        None => bail!("wants an answer outside of its memory"),
    }
    Ok(())
}
