//! The control plane's API as the command uses it.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::ControlArgs;
use crate::demo::DemoState;

/// Longest wait for an answer of the control plane; uploads and event streams set their own bounds.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A control plane, and the token to speak to it with.
pub(crate) struct Control {
    base: String,
    token: String,
    http: reqwest::Client,
}

impl Control {
    /// Finds the control plane: by flags or variables, else in the folder of a running demo.
    pub(crate) fn find(args: &ControlArgs) -> anyhow::Result<Self> {
        // A token goes only where it came from: never the demo's to another host, nor another's to the demo.
        let (base, token) = match (&args.control, &args.token) {
            (Some(base), Some(token)) => (base.clone(), token.clone()),
            (None, None) => {
                let state = DemoState::load(&args.dir).with_context(|| {
                    format!(
                        "no control plane: set --control and --token (or SEGUE_CONTROL and SEGUE_TOKEN), \
                         or name the folder of a running `segue demo` with --dir (looked in {})",
                        args.dir.display()
                    )
                })?;
                (state.control, state.token)
            }
            (Some(base), None) => match DemoState::load(&args.dir) {
                Ok(state) if state.control == base.trim_end_matches('/') => (state.control, state.token),
                _ => bail!("no token for {base}: set --token or SEGUE_TOKEN"),
            },
            (None, Some(_)) => bail!("a token, but no control plane to use it with: set --control or SEGUE_CONTROL"),
        };
        let base = base.trim_end_matches('/').to_owned();
        let http = client_for(&base)?;
        Ok(Self { base, token, http })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, None).await
    }

    /// All rows of a list that comes in pages; `name` is the list's field.
    pub(crate) async fn pages(&self, path: &str, name: &str) -> anyhow::Result<Vec<Value>> {
        let (mut rows, mut after) = (Vec::new(), String::new());
        loop {
            let mut page: Value = self.get(&format!("{path}{after}")).await?;
            if let Some(Value::Array(some)) = page.get_mut(name).map(Value::take) {
                rows.extend(some);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) => after = format!("{}after={next}", if path.contains('?') { '&' } else { '?' }),
                None => return Ok(rows),
            }
        }
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// Posts bytes that may be long on their way.
    pub(crate) async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: &str,
        body: Vec<u8>,
        within: Duration,
    ) -> anyhow::Result<T> {
        let request = self.request(Method::POST, path).timeout(within).header("content-type", kind).body(body);
        self.read(path, self.send(request).await?).await
    }

    /// A call whose answer has no body.
    pub(crate) async fn post_for_nothing(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        self.send(self.request(Method::POST, path).timeout(ANSWER_WITHIN).json(body)).await.map(drop)
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, path).timeout(ANSWER_WITHIN)).await.map(drop)
    }

    /// A deletion that answers with what is left.
    pub(crate) async fn delete_for<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::DELETE, path, None).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<T> {
        let mut request = self.request(method, path).timeout(ANSWER_WITHIN);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.read(path, self.send(request).await?).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, response: reqwest::Response) -> anyhow::Result<T> {
        response
            .json()
            .await
            .with_context(|| format!("{} answered with something that is not the JSON of {path}", self.base))
    }

    /// Opens a stream of server-sent events.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        self.send(self.request(Method::GET, path)).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let response = request.send().await.map_err(|error| {
            let why = if error.is_connect() { "nothing answers there; is it running?" } else { "no answer" };
            anyhow::anyhow!("{}: {why} ({})", self.base, root_cause(&error))
        })?;
        refuse(response).await
    }
}

/// A client for one address. A proxy of the environment is not asked for what runs on this machine.
pub(crate) fn client_for(address: &str) -> anyhow::Result<reqwest::Client> {
    let url = url::Url::parse(address).with_context(|| format!("{address:?} is not a URL"))?;
    let here = match url.host() {
        Some(url::Host::Ipv4(host)) => host.is_loopback(),
        Some(url::Host::Ipv6(host)) => host.is_loopback(),
        Some(url::Host::Domain(host)) => host == "localhost",
        None => bail!("{address:?} names no host"),
    };
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_WITHIN);
    Ok(if here { builder.no_proxy() } else { builder }.build()?)
}

/// What a server said when it refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The reason word.
    pub(crate) word: String,
    /// The reason for people.
    pub(crate) message: String,
    status: u16,
}

impl Refused {
    /// Whether the same call may succeed a moment later (RFC 9110, section 15.6.4).
    pub(crate) fn may_pass(&self) -> bool {
        self.status == 503
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, status {})", self.message, self.word, self.status)
    }
}

impl std::error::Error for Refused {}

/// Turns a refusal into an error with the server's own words.
pub(crate) async fn refuse(response: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    // Other servers (an object store) refuse in other words than JSON: the status then has to do.
    let body: Value = response.json().await.unwrap_or_default();
    let text = |key: &str, otherwise: &str| body.get(key).and_then(Value::as_str).unwrap_or(otherwise).to_owned();
    let (word, message) = (text("error", "no-reason-given"), text("message", "the server refused"));
    Err(Refused { word, message, status: status.as_u16() }.into())
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
