//! One try of one delivery.

use std::error::Error as _;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use reqwest::{Client, redirect};

use super::address::{self, Guard};
use crate::store::webhooks::{DeliveryRow, WebhookRow};

/// What a secret begins with; behind it stands its base64.
pub(crate) const SECRET_MARK: &str = "whsec_";

/// A receiver answers within this: long enough to store what it got, too short to do its work.
const WITHIN: Duration = Duration::from_secs(15);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Connections that wait to be used again, by receiver.
const IDLE: usize = 2;

/// What came of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Answered with 2xx.
    Delivered(u16),
    /// The receiver says that it is gone for good (410).
    Gone,
    /// Everything else, which a later try may change.
    Failed { status: Option<u16>, reason: String },
}

/// Sends deliveries: over TLS to public addresses, and in the clear to allowed ones.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    allow: Vec<IpNet>,
    public: Client,
    inner: Client,
}

impl Sender {
    pub(super) fn new(allow: &[IpNet]) -> Result<Self, reqwest::Error> {
        let client = |guard: Guard| {
            Client::builder()
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_WITHIN)
                .timeout(WITHIN)
                .pool_max_idle_per_host(IDLE)
                // A proxy would resolve names by itself, past the guard.
                .no_proxy()
                .dns_resolver(guard)
                .user_agent(concat!("segue/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        Ok(Self {
            allow: allow.to_vec(),
            public: client(Guard::new(allow, true))?,
            inner: client(Guard::new(allow, false))?,
        })
    }

    /// Sends once. `now_s`: seconds since the epoch, by which a receiver tells an old delivery from a new one.
    pub(super) async fn send(&self, webhook: &WebhookRow, row: &DeliveryRow, now_s: i64) -> Came {
        // Looked at anew each time: what is allowed may have changed, and addresses in a URL are not resolved.
        let url = match address::check(&webhook.url, &self.allow) {
            Ok(url) => url,
            Err(refused) => return Came::Failed { status: None, reason: refused.to_string() },
        };
        let Some(signature) = sign(&webhook.secret, &row.id, now_s, &row.body) else {
            return Came::Failed { status: None, reason: "the webhook's secret cannot be read".to_owned() };
        };
        let client = if url.scheme() == "https" { &self.public } else { &self.inner };
        let request = client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &row.id)
            .header("webhook-timestamp", now_s)
            .header("webhook-signature", signature)
            .body(row.body.clone());
        // The answer's head says it all; its body is never read, however long it is.
        match request.send().await.map(|response| response.status()) {
            Ok(status) if status.is_success() => Came::Delivered(status.as_u16()),
            Ok(status) if status.as_u16() == 410 => Came::Gone,
            Ok(status) if status.is_redirection() => {
                let reason = "it was answered with a redirect, which is not followed".to_owned();
                Came::Failed { status: Some(status.as_u16()), reason }
            }
            Ok(status) => {
                Came::Failed { status: Some(status.as_u16()), reason: format!("it was answered with {status}") }
            }
            Err(error) => Came::Failed { status: None, reason: why(&error) },
        }
    }
}

/// What went wrong, without the URL, which may hold a secret.
fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", WITHIN.as_secs());
    }
    let mut cause = error.source();
    let mut text = "no connection".to_owned();
    while let Some(next) = cause {
        text = next.to_string();
        cause = next.source();
    }
    text
}

/// `v1,` and the base64 of the HMAC-SHA256 over id, time and body. `None`: the secret is none.
fn sign(secret: &str, id: &str, now_s: i64, body: &str) -> Option<String> {
    let bytes = STANDARD.decode(secret.strip_prefix(SECRET_MARK)?).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    let tag = hmac::sign(&key, format!("{id}.{now_s}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(tag)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // Standard Webhooks 1.0.0, the vector of its reference libraries (libraries/*/test: "test_sign_function").
        let signed = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(sign("no-mark", "m", 1, ""), None);
    }
}
