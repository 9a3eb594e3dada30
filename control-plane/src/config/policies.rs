//! `[policies]`: whose policies are taken, and the keys that ticket schemes sign with.

use segue_config::{Secret, Section};
use segue_policy_host::Key;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::policies::signers::Signer;

/// What the registry of policies is told.
#[derive(Clone, Debug, Default)]
pub struct PoliciesConfig {
    /// Those of whom one must have signed a policy (`[policies.signers]`). None: anybody with a token of the scope `admin` may upload one.
    pub signers: Vec<Signer>,
    /// Keys by name, for ticket schemes that sign here (`[policies.keys]`).
    pub keys: Vec<(String, Key)>,
}

impl PoliciesConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let signers = section.section("signers").free_form();
        let signer = |name: String| {
            let text: Secret = signers.require(&name)?;
            Signer::parse(&name, text.expose()).map_err(|error| signers.problem(&name, error.to_string())).ok()
        };
        let keys = section.section("keys").free_form();
        let key = |name: String| {
            let text: Secret = keys.require(&name)?;
            match key(text.expose()) {
                Ok(key) => Some((name, key)),
                Err(problem) => {
                    keys.problem(&name, problem);
                    None
                }
            }
        };
        Self {
            signers: signers.names().into_iter().filter_map(signer).collect(),
            keys: keys.names().into_iter().filter_map(key).collect(),
        }
    }
}

/// PEM, or a secret: `hex:` and `base64:` decode, all else is taken as it stands. Schemes of others have secrets of any length.
fn key(text: &str) -> Result<Key, String> {
    let text = text.trim();
    if text.contains("-----BEGIN") {
        return Key::pem(text).map_err(|error| error.to_string());
    }
    let bytes = if let Some(hex) = text.strip_prefix("hex:") {
        let pair = |at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        (0..hex.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>().ok_or("not hexadecimal after \"hex:\"")?
    } else if let Some(encoded) = text.strip_prefix("base64:") {
        STANDARD.decode(encoded).map_err(|_| "not base64 after \"base64:\"")?
    } else {
        text.as_bytes().to_vec()
    };
    Key::secret(bytes).map_err(|error| error.to_string())
}
