//! What a policy costs: compile, first instance, a reused call and a whole chain, in CPU time of this thread.
//!
//!     cargo run --release -p segue-policy-host --example call_cost -- target/policies/country.wasm '{"allow":["DE"]}'

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use segue_policy_host::vectors::context;
use segue_policy_host::{
    AccessPolicy, Attached, Bounds, Chain, Claims, FailMode, Headers, HostConfig, Kind, PolicyHost, RequestView,
    Services,
};
use serde_json::{Map, Value, json};

struct Told(Map<String, Value>);

impl Headers for Told {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "user-agent" => Some(
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120 Safari/537.36"
                    .into(),
            ),
            "referer" => Some("https://app.example.com/listen/123".into()),
            "origin" => Some("https://app.example.com".into()),
            _ => None,
        }
    }
}

impl Claims for Told {
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "sub" => Some("u-123456789".into()),
            "sid" => Some("s-abcdef0123456789".into()),
            _ => None,
        }
    }

    fn context(&self, pointer: &str) -> Option<Cow<'_, str>> {
        context(&self.0, pointer)
    }
}

/// Nanoseconds that this thread has been on a processor: on a shared machine, time on the wall says nothing.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn each(name: &str, rounds: u64, mut call: impl FnMut()) {
    for _ in 0..3 {
        let before = cpu_ns();
        (0..rounds).for_each(|_| call());
        println!("{name:<12} {:>9.0} ns", (cpu_ns() - before) as f64 / rounds as f64);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let bytes = std::fs::read(arguments.next().expect("a .wasm file")).expect("readable");
    let config: Value = serde_json::from_str(&arguments.next().unwrap_or("{}".into())).expect("JSON");
    let host = PolicyHost::new(HostConfig { cache: None, bounds: Bounds::default() }).unwrap();
    let started = Instant::now();
    let policy = host.compile(&bytes).unwrap();
    println!("{:<12} {:>9.1} ms for {} bytes", "compile", started.elapsed().as_secs_f64() * 1e3, bytes.len());

    let Value::Object(ctx) = json!({ "tier": "gold", "plan": { "until": 7 } }) else { unreachable!() };
    let told = Told(ctx);
    let view = RequestView {
        kind: Kind::Segment,
        country: Some("DE"),
        session: "s-abcdef0123456789",
        address: Some("192.0.2.7".parse().unwrap()),
        headers: &told,
        claims: &told,
        ..RequestView::of("/hls/t/v/audio/0001.m4s")
    };
    let services = Arc::new(Services::default());
    let ready =
        || AccessPolicy::new(policy.clone(), "tried@1", &config, Arc::clone(&services), FailMode::Closed).unwrap();
    each("instance", 500, || drop(ready()));
    let one = Arc::new(ready());
    each("call", 300_000, || drop(one.authorize(&view)));
    let chain = Chain::new(vec![Attached::active("tried", one)]);
    each("chain of one", 300_000, || drop(chain.authorize(&view)));
    println!("{:?}", chain.authorize(&view).verdict);
}
