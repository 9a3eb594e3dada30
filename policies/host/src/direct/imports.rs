//! The host's functions as a core module imports them. What they do is [`State`]'s; here is only how it is asked and answered.
//!
//! Invariant: each looks at the policy's memory before it does anything, and so begins only while there is a `Guest`.

use wasmtime::{Caller, Engine, Linker, Result, bail};

use super::lift::Lift;
use super::lower::{lower, put};
use crate::contract::crypto::{Algorithm, Hash, Host as _, KeyError};
use crate::contract::request::Host as Request;
use crate::contract::tools::{Host as _, Level};
use crate::contract::{PACKAGE, VERSION};
use crate::state::State;

type Policy<'c> = Caller<'c, State>;
/// What does the work of a function: one that answers a text, one that may have none, one that is asked for it by name.
type Text = fn(&mut State) -> String;
type Maybe = fn(&mut State) -> Option<String>;
type Asked = fn(&mut State, String) -> Option<String>;

const TEXTS: [(&str, Text); 6] = [
    ("method", Request::method),
    ("host", Request::host),
    ("path", Request::path),
    ("track", Request::track),
    ("file", Request::file),
    ("edge", Request::edge),
];
const OPTIONS: [(&str, Maybe); 3] =
    [("query", Request::query), ("address", Request::address), ("country", Request::country)];
const ASKED: [(&str, Asked); 3] =
    [("header", Request::header), ("claim", Request::claim), ("context", Request::context)];

/// Cases of the contract's enums, in its order.
const LEVELS: [Level; 4] = [Level::Debug, Level::Info, Level::Warn, Level::Error];
const HASHES: [Hash; 3] = [Hash::Md5, Hash::Sha1, Hash::Sha256];
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RsaSha1, Algorithm::RsaSha256, Algorithm::P256Sha1, Algorithm::P256Sha256, Algorithm::P384Sha384];

/// Everything that a policy of the world `access` may import.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let module = |interface: &str| format!("{PACKAGE}{interface}@{VERSION}");
    requests(&mut linker, &module("request"))?;
    tools(&mut linker, &module("tools"))?;
    hashes(&mut linker, &module("crypto"))?;
    signatures(&mut linker, &module("crypto"))?;
    Ok(linker)
}

fn requests(linker: &mut Linker<State>, module: &str) -> Result<()> {
    for (name, read) in TEXTS {
        linker.func_wrap(module, name, move |mut policy: Policy<'_>, out: u32| {
            Lift::of(&policy)?.holds(out, 8, 4)?;
            let text = read(policy.data_mut());
            give(&mut policy, out, text.as_bytes())
        })?;
    }
    for (name, read) in OPTIONS {
        linker.func_wrap(module, name, move |mut policy: Policy<'_>, out: u32| {
            Lift::of(&policy)?.holds(out, 12, 4)?;
            let text = read(policy.data_mut());
            give_option(&mut policy, out, text)
        })?;
    }
    for (name, read) in ASKED {
        linker.func_wrap(module, name, move |mut policy: Policy<'_>, name: u32, length: u32, out: u32| {
            let mut lift = Lift::of(&policy)?;
            lift.holds(out, 12, 4)?;
            let name = lift.text(name, length)?.to_owned();
            let text = read(policy.data_mut(), name);
            give_option(&mut policy, out, text)
        })?;
    }
    Ok(())
}

fn tools(linker: &mut Linker<State>, module: &str) -> Result<()> {
    linker.func_wrap(module, "log", |mut policy: Policy<'_>, level: u32, text: u32, length: u32| -> Result<()> {
        let text = Lift::of(&policy)?.text(text, length)?.to_owned();
        policy.data_mut().log(case(&LEVELS, level)?, text);
        Ok(())
    })?;
    linker.func_wrap(
        module,
        "lookup",
        |mut policy: Policy<'_>, table: u32, table_length: u32, key: u32, key_length: u32, out: u32| {
            let mut lift = Lift::of(&policy)?;
            lift.holds(out, 12, 4)?;
            let (table, key) = (lift.text(table, table_length)?.to_owned(), lift.text(key, key_length)?.to_owned());
            let value = policy.data_mut().lookup(table, key);
            give_option(&mut policy, out, value)
        },
    )?;
    Ok(())
}

fn hashes(linker: &mut Linker<State>, module: &str) -> Result<()> {
    linker.func_wrap(module, "digest", |mut policy: Policy<'_>, hash: u32, data: u32, length: u32, out: u32| {
        let mut lift = Lift::of(&policy)?;
        lift.holds(out, 8, 4)?;
        let data = lift.bytes(data, length)?.to_vec();
        let digest = policy.data_mut().digest(case(&HASHES, hash)?, data);
        give(&mut policy, out, &digest)
    })?;
    linker.func_wrap(
        module,
        "digest-keyed",
        |mut policy: Policy<'_>,
         hash: u32,
         key: u32,
         key_length: u32,
         before: u32,
         before_length: u32,
         after: u32,
         after_length: u32,
         out: u32| {
            let mut lift = Lift::of(&policy)?;
            lift.holds(out, 12, 4)?;
            let key = lift.text(key, key_length)?.to_owned();
            let before = lift.bytes(before, before_length)?.to_vec();
            let after = lift.bytes(after, after_length)?.to_vec();
            let digest = policy.data_mut().digest_keyed(case(&HASHES, hash)?, key, before, after);
            give_result(&mut policy, out, digest)
        },
    )?;
    linker.func_wrap(
        module,
        "hmac",
        |mut policy: Policy<'_>, hash: u32, key: u32, key_length: u32, data: u32, length: u32, out: u32| {
            let mut lift = Lift::of(&policy)?;
            lift.holds(out, 12, 4)?;
            let (key, data) = (lift.text(key, key_length)?.to_owned(), lift.bytes(data, length)?.to_vec());
            let mac = policy.data_mut().hmac(case(&HASHES, hash)?, key, data);
            give_result(&mut policy, out, mac)
        },
    )?;
    Ok(())
}

fn signatures(linker: &mut Linker<State>, module: &str) -> Result<()> {
    linker.func_wrap(
        module,
        "verify",
        |mut policy: Policy<'_>,
         algorithm: u32,
         key: u32,
         key_length: u32,
         data: u32,
         length: u32,
         signature: u32,
         signature_length: u32,
         out: u32| {
            let mut lift = Lift::of(&policy)?;
            lift.holds(out, 2, 1)?;
            let key = lift.text(key, key_length)?.to_owned();
            let data = lift.bytes(data, length)?.to_vec();
            let signature = lift.bytes(signature, signature_length)?.to_vec();
            let answer = policy.data_mut().verify(case(&ALGORITHMS, algorithm)?, key, data, signature);
            put(&mut policy, out, &answer.map_or_else(|error| [1, error as u8], |holds| [0, holds.into()]))
        },
    )?;
    linker.func_wrap(
        module,
        "equal",
        |mut policy: Policy<'_>, a: u32, a_length: u32, b: u32, b_length: u32| -> Result<u32> {
            let mut lift = Lift::of(&policy)?;
            let (a, b) = (lift.bytes(a, a_length)?.to_vec(), lift.bytes(b, b_length)?.to_vec());
            Ok(policy.data_mut().equal(a, b).into())
        },
    )?;
    Ok(())
}

fn case<T: Copy>(cases: &[T], number: u32) -> Result<T> {
    match cases.get(number as usize) {
        Some(case) => Ok(*case),
        None => bail!("a case {number} of an enum that has {}", cases.len()),
    }
}

/// A `string` or `list<u8>`.
fn give(policy: &mut Policy<'_>, out: u32, bytes: &[u8]) -> Result<()> {
    let (at, length) = lower(&mut *policy, bytes)?;
    let [a, b, c, d] = at.to_le_bytes();
    let [e, f, g, h] = length.to_le_bytes();
    put(policy, out, &[a, b, c, d, e, f, g, h])
}

/// An `option<string>`.
fn give_option(policy: &mut Policy<'_>, out: u32, text: Option<String>) -> Result<()> {
    put(&mut *policy, out, &[text.is_some().into()])?;
    text.map_or(Ok(()), |text| give(policy, out + 4, text.as_bytes()))
}

/// A `result<list<u8>, key-error>`.
fn give_result(policy: &mut Policy<'_>, out: u32, bytes: Result<Vec<u8>, KeyError>) -> Result<()> {
    put(&mut *policy, out, &[bytes.is_err().into()])?;
    match bytes {
        Ok(bytes) => give(policy, out + 4, &bytes),
        Err(error) => put(policy, out + 4, &[error as u8]),
    }
}
