//! The ticket schemes against those whose schemes they are: the libraries `akamai-edgeauth`, botocore and `@eyevinn/cat`, and
//! nginx, live. Ours are made equal to theirs byte for byte; where that cannot be (ECDSA, nginx) they judge ours. Theirs
//! are accepted here, and with one letter changed refused.
//!
//! The libraries are installed under `target/originals`, in the versions that `policies/originals` names. What is missing fails
//! the test: a scheme that was held against nothing is not proved.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/built.rs"]
mod support;

use std::borrow::Cow;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use segue_policy_host::{
    ForeignClaims, ForeignRefusal, Grant, Headers, HostConfig, Key, Policy, PolicyHost, RequestView, Services,
    TicketScheme,
};
use serde_json::{Value, json};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../originals");
const RSA: &str = include_str!("keys/rsa.pem");
const P256: &str = include_str!("keys/p256.pem");

fn run(what: &str, command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}:\n{out}\n{err}");
}

/// A folder under `target/originals` that holds what `made` installs into it, once for each text of `wanted`.
fn installed(name: &str, wanted: &str, made: impl FnOnce(&Path)) -> PathBuf {
    let folder = support::target().join("originals").join(name);
    std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
    // Each test is a process: one installs, the others wait.
    let turn = std::fs::File::create(folder.with_extension("lock")).unwrap();
    turn.lock().unwrap();
    let stamp = folder.join(".installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|known| known == wanted) {
        return folder;
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    made(&folder);
    std::fs::write(&stamp, wanted).unwrap();
    folder
}

/// One of the two scripts, which answers a line for a line.
struct Original {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Original {
    fn python() -> Self {
        let wanted = std::fs::read_to_string(format!("{SOURCES}/requirements.txt")).unwrap();
        let folder = installed("python", &wanted, |folder| {
            run("python3 -m venv (on Debian: python3-venv)", Command::new("python3").args(["-m", "venv"]).arg(folder));
            let mut pip = Command::new(folder.join("bin/pip"));
            pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]);
            run("pip install", pip.arg(format!("{SOURCES}/requirements.txt")));
        });
        Self::start(Command::new(folder.join("bin/python")).arg(format!("{SOURCES}/originals.py")))
    }

    fn node() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("{SOURCES}/{name}")).unwrap();
        let names = ["package.json", "package-lock.json", ".npmrc"];
        let folder = installed("node", &names.map(read).concat(), |folder| {
            for name in names {
                std::fs::copy(format!("{SOURCES}/{name}"), folder.join(name)).unwrap();
            }
            // What it would compile is there to be quicker, and no more.
            let mut npm = Command::new("npm");
            run("npm ci", npm.args(["ci", "--ignore-scripts", "--omit=optional"]).current_dir(folder));
        });
        // A module is looked for beside the script that wants it.
        std::fs::copy(format!("{SOURCES}/cat.mjs"), folder.join("cat.mjs")).unwrap();
        Self::start(Command::new("node").arg(folder.join("cat.mjs")))
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?} to {question}"))
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        // It ends with its input; what became of it no longer matters.
        drop(self.child.stdin.take());
        _ = self.child.wait();
    }
}

/// One scheme under one configuration.
struct Ours {
    name: &'static str,
    config: Value,
    keys: Value,
    scheme: TicketScheme,
}

impl Ours {
    fn new(policy: &Policy, name: &'static str, config: Value, keys: Value) -> Self {
        let key = |text: &str| match text.strip_prefix("hex:") {
            _ if text.contains("-----BEGIN") => Key::pem(text).unwrap(),
            Some(hex) => Key::secret(
                (0..hex.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                    .collect::<Vec<_>>(),
            )
            .unwrap(),
            None => Key::secret(text.as_bytes()).unwrap(),
        };
        let named = keys.as_object().unwrap().iter().map(|(name, text)| (name.clone(), key(text.as_str().unwrap())));
        let services = Services { keys: named.collect(), signer: true, ..Services::default() };
        let scheme = TicketScheme::new(policy.clone(), name, &config, Arc::new(services)).unwrap();
        Self { name, config, keys, scheme }
    }

    fn sign(&self, grant: &Grant) -> String {
        self.scheme.sign(grant).unwrap().unwrap_or_else(|error| panic!("{}: {error} for {grant:?}", self.name))
    }

    fn question(&self, verb: &str, grant: &Grant) -> Value {
        json!({ "do": verb, "scheme": self.name, "config": self.config, "keys": self.keys, "grant": grant })
    }

    fn theirs(&self, original: &mut Original, grant: &Grant) -> String {
        original.ask(&self.question("make", grant))["url"].as_str().expect("a URL").to_owned()
    }

    fn judged(&self, original: &mut Original, grant: &Grant, url: &str) {
        let mut question = self.question("judge", grant);
        question["url"] = url.into();
        assert_eq!(original.ask(&question), json!({ "accepted": true, "altered": false }), "{url}");
    }

    fn verify(&self, url: &str, address: Option<&str>, headers: &dyn Headers) -> Result<ForeignClaims, ForeignRefusal> {
        let (host, rest) = url.split_once("://").unwrap().1.split_once('/').unwrap();
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let path = format!("/{path}");
        let view = RequestView {
            host,
            query,
            now_ms: now() * 1000,
            address: address.map(|address| address.parse().unwrap()),
            country: Some("DE"),
            headers,
            ..RequestView::of(&path)
        };
        self.scheme.verify(&view).unwrap()
    }

    /// Accepted as it is; refused with any letter of its last value changed, and on another path.
    fn accepts(&self, url: &str, grant: &Grant) {
        let address = grant.address.as_deref().map(|address| address.split('/').next().unwrap());
        let claims =
            self.verify(url, address, &()).unwrap_or_else(|refusal| panic!("{}: {refusal:?} for {url}", self.name));
        assert!((grant.expires..=grant.expires + 1).contains(&claims.expires), "{claims:?}");
        assert!(self.verify(&url.replacen(".com/", ".com/x/", 1), address, &()).is_err(), "another path: {url}");
        let last = url.rfind(['=', '_']).unwrap() + 2;
        let other = if url.as_bytes()[last] == b'A' { "B" } else { "A" };
        let altered = format!("{}{other}{}", &url[..last], &url[last + 1..]);
        assert!(self.verify(&altered, address, &()).is_err(), "another letter: {altered}");
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn compiled(name: &str) -> Policy {
    let bytes = std::fs::read(support::built(&[]).join(format!("{name}.wasm"))).unwrap();
    PolicyHost::new(HostConfig::default()).unwrap().compile(&bytes).unwrap()
}

/// What an application may ask for, in as many ways as the schemes have in common.
fn grants() -> Vec<Grant> {
    let expires = now() + 3600;
    let of = |url: &str| Grant { url: format!("https://media.example.com{url}"), expires, ..Grant::default() };
    let path = "/hls/t-1/master.m3u8";
    vec![
        of(path),
        of("/hls/a_b~c-d.e/v1/0001.m4s?size=large&v=1"),
        Grant { expires: expires + 86_400 * 365 * 5, ..of("/x") },
        Grant { scope: Some("/hls/t-1/".to_owned()), ..of(path) },
        Grant { scope: Some("/hls/t-1/".to_owned()), not_before: Some(now() - 60), ..of("/hls/t-1/master.m3u8?a=b") },
        Grant { address: Some("192.0.2.7".to_owned()), scope: Some("/hls/".to_owned()), ..of(path) },
    ]
}

#[test]
fn akamai_edgeauth() {
    let (policy, mut original) = (compiled("edgeauth"), Original::python());
    let keys = json!({ "akamai": "hex:52a152a152a152a152a152a152a152a152a152a152a1" });
    let configs = [
        json!({ "key": "akamai" }),
        json!({ "key": "akamai", "algorithm": "sha1", "salt": "grains", "name": "hdnts" }),
        json!({ "key": "akamai", "algorithm": "md5", "escape_early": true }),
    ];
    for config in configs {
        let ours = Ours::new(&policy, "edgeauth", config, keys.clone());
        for mut grant in grants() {
            for session in [None, Some("s-1".to_owned())] {
                grant.options = session.iter().map(|_| ("payload".to_owned(), "plan=gold".to_owned())).collect();
                grant.session = session;
                let theirs = ours.theirs(&mut original, &grant);
                assert_eq!(ours.sign(&grant), theirs);
                ours.accepts(&theirs, &grant);
            }
        }
    }
}

/// What CloudFront's cookies hold is what its URLs hold.
struct Cookies(String);

impl Headers for Cookies {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "cookie").then_some(Cow::Borrowed(&self.0))
    }
}

fn in_cookies(url: &str) -> (String, Cookies) {
    let (plain, query) = url.split_once('?').unwrap();
    let ours = ["Expires=", "Policy=", "Signature=", "Key-Pair-Id=", "Hash-Algorithm="];
    let (ticket, rest): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| ours.iter().any(|name| pair.starts_with(name)));
    let cookies: Vec<String> = ticket.iter().map(|pair| format!("CloudFront-{pair}")).collect();
    let rest = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    (format!("{plain}{rest}"), Cookies(cookies.join("; ")))
}

#[test]
fn cloudfront_by_botocore() {
    let (policy, mut original) = (compiled("cloudfront"), Original::python());
    for (key, ecdsa) in [(RSA, false), (P256, true)] {
        for sha256 in [false, true] {
            let config = json!({ "keys": { "K2JCJMDEHXQW5F": "k" }, "key_pair": "K2JCJMDEHXQW5F", "ecdsa": ecdsa, "sha256": sha256 });
            let ours = Ours::new(&policy, "cloudfront", config, json!({ "k": key }));
            for grant in grants() {
                let (own, theirs) = (ours.sign(&grant), ours.theirs(&mut original, &grant));
                if ecdsa {
                    ours.judged(&mut original, &grant, &own);
                } else {
                    assert_eq!(own, theirs);
                }
                // The key pair's name comes last, and the signature before it.
                let address = grant.address.as_deref();
                for url in [&own, &theirs] {
                    ours.verify(url, address, &()).unwrap();
                    let (plain, cookies) = in_cookies(url);
                    ours.verify(&plain, address, &cookies).unwrap();
                    assert!(ours.verify(&plain.replace(".com/", ".com/x/"), address, &cookies).is_err());
                    assert!(ours.verify(&url.replace("Signature=", "Signature=A"), address, &()).is_err());
                    assert!(ours.verify(&url.replace(".com/", ".com/x/"), address, &()).is_err());
                }
            }
        }
    }
}

#[test]
fn secure_link_by_nginx() {
    assert!(
        Command::new("nginx").arg("-v").output().is_ok(),
        "no nginx, which judges: on Debian `apt-get install nginx`"
    );
    let (policy, mut original) = (compiled("secure-link"), Original::python());
    let configs = [
        json!({ "key": "nginx" }),
        json!({ "key": "nginx", "expression": "$secret$uri$secure_link_expires", "md5": "st", "expires": "e" }),
        json!({ "key": "nginx", "expression": "$host$secure_link_expires$uri $secret" }),
        json!({ "key": "nginx", "expression": "$secure_link_expires$uri $secret", "prefix": true }),
    ];
    for config in configs {
        let ours = Ours::new(&policy, "secure-link", config.clone(), json!({ "nginx": "a secret of nginx" }));
        for mut grant in grants() {
            // nginx is asked from here.
            grant.address = Some("127.0.0.1".to_owned());
            grant.scope = None;
            let url = ours.sign(&grant);
            ours.judged(&mut original, &grant, &url);
            ours.verify(&url, Some("127.0.0.1"), &()).unwrap();
            assert!(ours.verify(&url.replace(".com/", ".com/x/"), Some("127.0.0.1"), &()).is_err());
        }
    }
}

#[test]
fn common_access_tokens_by_eyevinn() {
    let (policy, mut original) = (compiled("cat"), Original::node());
    let keys = json!({ "cat": "hex:403697de87af64611c1d32a05dab0fe1fcb715a86ab435f1ec99192d79569388" });
    for parameter in ["CAT", "cat"] {
        let config = json!({ "keys": { "key-2026": "cat" }, "kid": "key-2026", "audience": ["edge", "tv"], "issuers": ["app"], "parameter": parameter });
        let ours = Ours::new(&policy, "cat", config, keys.clone());
        let options = [
            vec![],
            vec![("sub", "u-1"), ("iss", "app"), ("aud", "edge"), ("catm", "GET,HEAD")],
            vec![("aud", "web,tv"), ("catgeoiso3166", "AT,DE"), ("host", "exact")],
        ];
        for mut grant in grants() {
            for options in &options {
                grant.options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                for (session, address) in
                    [(None, None), (Some("s-1"), Some("192.0.2.0/24")), (None, Some("2001:db8::7"))]
                {
                    grant.session = session.map(str::to_owned);
                    grant.address = address.map(str::to_owned);
                    let (own, theirs) = (ours.sign(&grant), ours.theirs(&mut original, &grant));
                    assert_eq!(own, theirs);
                    ours.judged(&mut original, &grant, &own);
                    let claims =
                        ours.verify(&theirs, address.map(|address| address.split('/').next().unwrap()), &()).unwrap();
                    assert_eq!(claims.session.as_deref(), session);
                    assert_eq!(claims.expires, grant.expires);
                    assert!(ours.verify(&theirs.replace(".com/", ".com/x/"), Some("192.0.2.7"), &()).is_err());
                }
            }
        }
    }
}
