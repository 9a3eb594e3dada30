//! What a policy in Rust is written with: the contract's types and functions, and a macro that exports a type as a policy.
//! The contract itself, with all that a policy may do, is `policies/wit/segue-policy.wit`.
//!
//! ```ignore
//! use segue_policy::access::{Access, Fields, Moment, Verdict, deny};
//!
//! #[derive(serde::Deserialize)]
//! struct Closed { country: String }
//!
//! impl Access for Closed {
//!     const FIELDS: &[&str] = &["country"];
//!
//!     fn authorize(&self, _: &Moment, fields: &Fields) -> Verdict {
//!         if fields.get(0) == Some(&self.country) { deny(451, "country") } else { Verdict::Abstain }
//!     }
//! }
//!
//! segue_policy::access!(Closed);
//! segue_policy::vectors!("../vectors.json");
//! ```

pub use serde_json;

/// Reads the operator's configuration.
pub fn read<T: serde::de::DeserializeOwned>(config: &str) -> Result<T, String> {
    serde_json::from_str(config).map_err(|error| error.to_string())
}

/// For policies that judge requests.
pub mod access {
    #[doc(hidden)]
    pub mod bindings {
        wit_bindgen::generate!({
            path: "../wit",
            world: "access",
            pub_export_macro: true,
            default_bindings_module: "segue_policy::access::bindings",
        });
    }

    pub use bindings::segue::policy::types::{Allowance, Denial, Kind, Limit, Moment, Verdict};
    pub use bindings::segue::policy::{crypto, request, tools};

    /// A rule. It is made from the operator's configuration, by `serde`.
    pub trait Access: Sized + serde::de::DeserializeOwned {
        /// The texts that `authorize` is given, as `configure` of the contract names them.
        const FIELDS: &[&str];

        /// Looks at the configuration once more, and prepares what each request would otherwise pay for.
        fn prepare(self) -> Result<Self, String> {
            Ok(self)
        }

        /// The fields where they depend on the configuration.
        fn fields(&self) -> Vec<String> {
            Self::FIELDS.iter().map(|&name| name.to_owned()).collect()
        }

        /// Judges a request.
        fn authorize(&self, moment: &Moment, fields: &Fields) -> Verdict;
    }

    /// The texts that were asked for.
    pub struct Fields<'a>(&'a str);

    impl<'a> Fields<'a> {
        #[doc(hidden)]
        pub fn new(text: &'a str) -> Self {
            Self(text)
        }

        /// The text at this place of the list; `None` where the request has none.
        pub fn get(&self, place: usize) -> Option<&'a str> {
            self.0.split('\u{1f}').nth(place).filter(|text| *text != "\0")
        }

        /// The first `N` texts at once, for rules that read many: `let [country, agent] = fields.all();`
        pub fn all<const N: usize>(&self) -> [Option<&'a str>; N] {
            let mut rest = Some(self.0);
            std::array::from_fn(|_| {
                let text = rest?;
                let end = separator(text.as_bytes());
                rest = text.get(end + 1..);
                text.get(..end).filter(|text| *text != "\0")
            })
        }
    }

    /// Where the first U+001F stands, or the end. Eight bytes at a time: `memchr` takes four on a machine of 32 bits, and longer to begin.
    #[inline(never)]
    fn separator(text: &[u8]) -> usize {
        const ONES: u64 = u64::MAX / 255;
        let words = text.chunks_exact(8);
        for (place, word) in words.enumerate() {
            let word = word.try_into().map_or(0, u64::from_le_bytes) ^ (ONES * 0x1f);
            // The lowest zero byte (Warren, Hacker's Delight, section 6-1).
            let found = word.wrapping_sub(ONES) & !word & (ONES << 7);
            if found != 0 {
                return place * 8 + (found.trailing_zeros() / 8) as usize;
            }
        }
        let from = text.len() / 8 * 8;
        text[from..].iter().position(|byte| *byte == 0x1f).map_or(text.len(), |place| from + place)
    }

    /// A no with a status and a reason word.
    pub fn deny(status: u16, reason: &str) -> Verdict {
        Verdict::Deny(Denial { status, reason: reason.to_owned(), redirect: None, headers: Vec::new() })
    }
}

/// For policies that know somebody else's tickets.
pub mod scheme {
    #[doc(hidden)]
    pub mod bindings {
        wit_bindgen::generate!({
            path: "../wit",
            world: "ticket-scheme",
            pub_export_macro: true,
            default_bindings_module: "segue_policy::scheme::bindings",
        });
    }

    pub use bindings::segue::policy::tickets::{Claims, Grant, Refusal};
    pub use bindings::segue::policy::types::Moment;
    pub use bindings::segue::policy::{crypto, request, signing, tools};

    /// A ticket scheme. It is made from the operator's configuration, by `serde`.
    pub trait Scheme: Sized + serde::de::DeserializeOwned {
        /// Looks at the configuration once more.
        fn prepare(self) -> Result<Self, String> {
            Ok(self)
        }

        /// Whether the request carries a ticket that holds.
        fn verify(&self, moment: &Moment) -> Result<Claims, Refusal>;

        /// Makes a URL that `verify` accepts.
        fn sign(&self, grant: &Grant) -> Result<String, String>;
    }

    /// What a `KeyError` of the host means for a request: the operator forgot a key.
    pub fn no_key(_: crypto::KeyError) -> Refusal {
        Refusal::KeyUnknown
    }

    /// And for somebody who asks for a ticket.
    pub fn no_secret(error: crypto::KeyError) -> String {
        format!("the key named in the configuration cannot be used: {error:?}")
    }

    /// Claims that open `scope` until `expires`, and say nothing else.
    pub fn claims(scope: &str, expires: u64, parameters: &[&str]) -> Claims {
        Claims {
            scope: scope.to_owned(),
            expires,
            not_before: None,
            session: None,
            listener: None,
            context: None,
            path: None,
            parameters: parameters.iter().map(|&name| name.to_owned()).collect(),
        }
    }
}

/// Texts as foreign schemes write them.
pub mod text;

/// Exports a type as a policy of the world `access`.
#[macro_export]
macro_rules! access {
    ($policy:ty) => {
        static POLICY: ::std::sync::OnceLock<$policy> = ::std::sync::OnceLock::new();
        struct Exported;
        impl $crate::access::bindings::Guest for Exported {
            fn configure(config: String) -> Result<Vec<String>, String> {
                use $crate::access::Access as _;
                let policy = $crate::read::<$policy>(&config)?.prepare()?;
                Ok(POLICY.get_or_init(|| policy).fields())
            }
            fn authorize(moment: $crate::access::Moment, fields: String) -> $crate::access::Verdict {
                use $crate::access::Access as _;
                match POLICY.get() {
                    Some(policy) => policy.authorize(&moment, &$crate::access::Fields::new(&fields)),
                    None => $crate::access::deny(500, "not-configured"),
                }
            }
        }
        $crate::access::bindings::export!(Exported with_types_in $crate::access::bindings);
    };
}

/// Exports a type as a policy of the world `ticket-scheme`.
#[macro_export]
macro_rules! scheme {
    ($scheme:ty) => {
        static SCHEME: ::std::sync::OnceLock<$scheme> = ::std::sync::OnceLock::new();
        struct Exported;
        impl $crate::scheme::bindings::Guest for Exported {
            fn configure(config: String) -> Result<(), String> {
                use $crate::scheme::Scheme as _;
                let scheme = $crate::read::<$scheme>(&config)?.prepare()?;
                SCHEME.get_or_init(|| scheme);
                Ok(())
            }
            fn verify(moment: $crate::scheme::Moment) -> Result<$crate::scheme::Claims, $crate::scheme::Refusal> {
                use $crate::scheme::Scheme as _;
                SCHEME.get().ok_or($crate::scheme::Refusal::KeyUnknown)?.verify(&moment)
            }
            fn sign(grant: $crate::scheme::Grant) -> Result<String, String> {
                use $crate::scheme::Scheme as _;
                SCHEME.get().ok_or("not configured")?.sign(&grant)
            }
        }
        $crate::scheme::bindings::export!(Exported with_types_in $crate::scheme::bindings);
    };
}

/// Puts test vectors into the policy, so that they travel with it: whoever checks an upload runs them.
#[macro_export]
macro_rules! vectors {
    ($path:literal) => {
        #[cfg(target_family = "wasm")]
        #[used]
        #[unsafe(link_section = "segue:vectors")]
        static VECTORS: [u8; include_bytes!($path).len()] = *include_bytes!($path);
    };
}
