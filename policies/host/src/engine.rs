//! The engine under all policies of a process: compiles, keeps compiled code on disk, and ends calls that run too long.
//!
//! Invariants: one file is compiled at a time, on the thread that asks, which must not be one that answers requests; compiled
//! code comes from this process or from the cache folder, which must be writable by nobody else; no component is
//! linked against anything but the contract.
//!
//! On failure: a file that does not become a policy is [`Refused`]; what was compiled before is not touched.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, InstancePre, Module};

use crate::bounds::{Bounds, HostConfig};
use crate::check::{self, Checked, World};
use crate::contract::{access::AccessPre, scheme::TicketSchemePre};
use crate::direct;
use crate::failure::Refused;
use crate::policy::Policy;
use crate::state::State;

/// Loads policies. One for each process.
pub struct PolicyHost {
    engine: Engine,
    access: Linker<State>,
    direct: wasmtime::Linker<State>,
    scheme: Linker<State>,
    bounds: Arc<Bounds>,
    /// One compilation at a time: it takes a whole core, and requests need the others.
    compiling: Mutex<()>,
    ticker: Arc<Ticker>,
}

/// Why a host cannot start.
#[derive(Debug, thiserror::Error)]
#[error("the policy host cannot start: {0}; check that [policies] cache is a folder that can be written to")]
pub struct HostError(String);

impl PolicyHost {
    /// Starts a host.
    ///
    /// # Errors
    /// The cache folder cannot be used, or the machine lacks what WebAssembly needs.
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let failed = |error: wasmtime::Error| HostError(format!("{error:#}"));
        let engine = Engine::new(&engine_config(&config).map_err(failed)?).map_err(failed)?;
        let mut access = Linker::new(&engine);
        crate::contract::access::Access::add_to_linker::<_, HasSelf<State>>(&mut access, |state| state)
            .map_err(failed)?;
        let direct = direct::linker(&engine).map_err(failed)?;
        let mut scheme = Linker::new(&engine);
        crate::contract::scheme::TicketScheme::add_to_linker::<_, HasSelf<State>>(&mut scheme, |state| state)
            .map_err(failed)?;
        let ticker = Ticker::start(&engine, config.bounds.tick())
            .map_err(|error| HostError(format!("no thread for the clock: {error}")))?;
        let (bounds, compiling) = (Arc::new(config.bounds), Mutex::new(()));
        Ok(Self { engine, access, direct, scheme, bounds, compiling, ticker })
    }

    /// Looks at an uploaded file without compiling it: size, form, imports, world.
    ///
    /// # Errors
    /// [`Refused`], with what is wrong and what to do.
    pub fn check(&self, bytes: &[u8]) -> Result<Checked, Refused> {
        check::check(bytes, self.bounds.upload).map(|(checked, _)| checked)
    }

    /// Reads a file, but no more of it than may be uploaded.
    pub(crate) fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let bound = u64::try_from(self.bounds.upload).unwrap_or(u64::MAX).saturating_add(1);
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(bound).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Checks and compiles. Takes milliseconds to seconds of a core: call it where blocking harms nobody.
    ///
    /// # Errors
    /// [`Refused`], with what is wrong and what to do.
    pub fn compile(&self, bytes: &[u8]) -> Result<Policy, Refused> {
        let (checked, component) = check::check(bytes, self.bounds.upload)?;
        let code = match self.direct(&checked, bytes, &component) {
            Some(code) => code,
            None => self.component(&checked, &component)?,
        };
        Ok(Policy { checked, code, bounds: Arc::clone(&self.bounds), ticker: Arc::clone(&self.ticker) })
    }

    /// The module itself, where it can run without the component that was made of it. Whatever speaks against it, the component says.
    fn direct(&self, checked: &Checked, module: &[u8], component: &[u8]) -> Option<Code> {
        let is_plain = || checked.world == World::Access && direct::is_plain(module, component);
        if !check::contained(is_plain).unwrap_or(false) {
            return None;
        }
        let module = self.compiled(|| Module::new(&self.engine, module)).ok()?;
        self.direct.instantiate_pre(&module).ok().map(Code::Direct)
    }

    fn component(&self, checked: &Checked, component: &[u8]) -> Result<Code, Refused> {
        let component = self.compiled(|| Component::new(&self.engine, component))?;
        let mismatch = |error: wasmtime::Error| Refused::Contract(format!("{error:#}"));
        Ok(match checked.world {
            World::Access => Code::Access(
                AccessPre::new(self.access.instantiate_pre(&component).map_err(mismatch)?).map_err(mismatch)?,
            ),
            World::TicketScheme => Code::Scheme(
                TicketSchemePre::new(self.scheme.instantiate_pre(&component).map_err(mismatch)?).map_err(mismatch)?,
            ),
        })
    }

    fn compiled<C>(&self, compile: impl FnOnce() -> wasmtime::Result<C>) -> Result<C, Refused> {
        let _turn = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        check::contained(compile).map_err(Refused::Host)?.map_err(|error| Refused::Invalid(format!("{error:#}")))
    }
}

impl std::fmt::Debug for PolicyHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyHost").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

/// Compiled code, linked.
#[derive(Clone)]
pub(crate) enum Code {
    Access(AccessPre<State>),
    Direct(InstancePre<State>),
    Scheme(TicketSchemePre<State>),
}

fn engine_config(config: &HostConfig) -> wasmtime::Result<Config> {
    let mut engine = Config::new();
    engine.epoch_interruption(true).max_wasm_stack(config.bounds.stack);
    // Nothing of ours makes floats; an edge and a control plane of another make must still agree on a verdict.
    engine.cranelift_nan_canonicalization(true).relaxed_simd_deterministic(true);
    if let Some(folder) = &config.cache {
        std::fs::create_dir_all(folder)?;
        // wasmtime wants an absolute path.
        let folder = std::fs::canonicalize(folder)?;
        let mut cache = CacheConfig::new();
        cache.with_directory(folder);
        engine.cache(Some(Cache::new(cache)?));
    }
    Ok(engine)
}

/// The clock that ends calls: a thread that advances the engine's epoch.
pub(crate) struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Ticker {
    fn start(engine: &Engine, tick: Duration) -> std::io::Result<Arc<Self>> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (engine, stopped) = (engine.clone(), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("policy-clock".to_owned()).spawn(move || {
            let (flag, changed) = &*stopped;
            let mut over = flag.lock().unwrap_or_else(PoisonError::into_inner);
            while !*over {
                over = changed.wait_timeout(over, tick).map_or_else(|error| error.into_inner().0, |(over, _)| over);
                engine.increment_epoch();
            }
        })?;
        Ok(Arc::new(Self { stop, thread: Mutex::new(Some(thread)) }))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // A clock cannot panic; there is nothing to do about it here if it did.
            drop(thread.join());
        }
    }
}
