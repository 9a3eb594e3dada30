//! The Python that tests may use, with the packages of `testkit/python/`.

use std::path::Path;
use std::process::Command;

/// The interpreter of `target/venv`, which `make python` makes; `SEGUE_TEST_PYTHON` names another.
///
/// # Errors
/// Where there is none: a test must not be passed over in silence.
pub fn python() -> anyhow::Result<Command> {
    let given = std::env::var_os("SEGUE_TEST_PYTHON").map(Into::into);
    let made = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    let path = given.unwrap_or_else(made);
    anyhow::ensure!(path.is_file(), "there is no {}: run `make python`", path.display());
    Ok(Command::new(path))
}
