//! Why a ticket or a signed URL did not open a path.
//!
//! One small word per cause, the same in the answer, in the metric and in the denial record. None is a
//! hint at the right signature: every wrong signature gives the same word, however close it came.

/// Why a request was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.message())]
pub enum Refusal {
    /// No ticket and no signed URL where one is needed.
    TicketMissing,
    /// Two carriers of one kind that disagree, or a parameter given twice.
    TicketAmbiguous,
    /// Not a compact JWS with a header that can be read (RFC 7515 section 7.1), or a URL signature that is not one.
    TicketMalformed,
    /// Longer than [`MAX_TICKET_BYTES`](crate::MAX_TICKET_BYTES).
    TicketTooLong,
    /// `alg` is not HS256.
    AlgorithmRefused,
    /// The header asks for an extension by `crit` (RFC 7515 section 4.1.11); none is understood.
    CriticalHeaderRefused,
    /// The keyring has no key of this `kid`, or none was named.
    KeyUnknown,
    /// The key's `not_before` is yet to come.
    KeyNotYetValid,
    /// The key's `retire_at` is past.
    KeyRetired,
    /// The signature is not this key's over these bytes.
    SignatureInvalid,
    /// The signature holds, but the claims lack something, or hold something of the wrong form.
    ClaimsInvalid,
    /// `exp` is past.
    Expired,
    /// `nbf` is yet to come.
    NotYetValid,
    /// The path is outside the scope.
    OutOfScope,
    /// The client's address is not the one in `ip`, or is not known.
    AddressMismatch,
    /// The ticket is for clients in other countries; tickets of ours know none, those of other schemes may.
    CountryMismatch,
    /// Revoked by session, listener, track or time of issue.
    Revoked,
    /// `renew_until` is past, or the ticket has none.
    NotRenewable,
}

impl Refusal {
    /// Every refusal there is, so that metrics can be set up before the first one happens.
    pub const ALL: [Self; 18] = [
        Self::TicketMissing,
        Self::TicketAmbiguous,
        Self::TicketMalformed,
        Self::TicketTooLong,
        Self::AlgorithmRefused,
        Self::CriticalHeaderRefused,
        Self::KeyUnknown,
        Self::KeyNotYetValid,
        Self::KeyRetired,
        Self::SignatureInvalid,
        Self::ClaimsInvalid,
        Self::Expired,
        Self::NotYetValid,
        Self::OutOfScope,
        Self::AddressMismatch,
        Self::CountryMismatch,
        Self::Revoked,
        Self::NotRenewable,
    ];

    /// The reason word: `error` in the answer, `reason` in metric and denial.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TicketMissing => "ticket-missing",
            Self::TicketAmbiguous => "ticket-ambiguous",
            Self::TicketMalformed => "ticket-malformed",
            Self::TicketTooLong => "ticket-too-long",
            Self::AlgorithmRefused => "algorithm-refused",
            Self::CriticalHeaderRefused => "critical-header-refused",
            Self::KeyUnknown => "key-unknown",
            Self::KeyNotYetValid => "key-not-yet-valid",
            Self::KeyRetired => "key-retired",
            Self::SignatureInvalid => "signature-invalid",
            Self::ClaimsInvalid => "claims-invalid",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::OutOfScope => "out-of-scope",
            Self::AddressMismatch => "address-mismatch",
            Self::CountryMismatch => "country-mismatch",
            Self::Revoked => "revoked",
            Self::NotRenewable => "not-renewable",
        }
    }

    /// The same word as [`Refusal::reason`], under the name that the other errors use.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.reason()
    }

    /// The HTTP status: 400 where the request contradicts itself, 401 where nothing valid was shown (a
    /// fresh ticket would help), 403 where a proven ticket is not for this.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::TicketAmbiguous => 400,
            Self::OutOfScope | Self::AddressMismatch | Self::CountryMismatch | Self::Revoked | Self::NotRenewable => {
                403
            }
            _ => 401,
        }
    }

    /// A text that is safe to show to a client.
    #[must_use]
    pub const fn message(&self) -> &'static str {
        match self {
            Self::TicketMissing => "This path needs a ticket or a signed URL.",
            Self::TicketAmbiguous => "The request carries tickets or signature parameters that contradict each other.",
            Self::TicketMalformed => "The ticket is not a compact JWS, or the URL signature is malformed.",
            Self::TicketTooLong => "The ticket is longer than 2048 bytes.",
            Self::AlgorithmRefused => "The ticket is not signed with HS256.",
            Self::CriticalHeaderRefused => "The ticket asks for a critical header extension; none is supported.",
            Self::KeyUnknown => "The ticket names no key that is known here.",
            Self::KeyNotYetValid => "The key that signed this is not in use yet.",
            Self::KeyRetired => "The key that signed this is retired.",
            Self::SignatureInvalid => "The signature does not hold.",
            Self::ClaimsInvalid => "The ticket is signed, but its claims are incomplete or malformed.",
            Self::Expired => "The ticket or URL has expired.",
            Self::NotYetValid => "The ticket is not valid yet.",
            Self::OutOfScope => "The ticket is for another path.",
            Self::AddressMismatch => "The ticket is for another client address.",
            Self::CountryMismatch => "The ticket is for another country.",
            Self::Revoked => "The ticket has been revoked.",
            Self::NotRenewable => "The ticket can not be renewed any more.",
        }
    }
}

#[cfg(test)]
mod tests;
