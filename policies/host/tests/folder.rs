//! A folder of policies: what is loaded, what is kept when something breaks, what is not done twice.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};

use segue_policy_host::{Folder, Loaded, RequestView, Services, Trial, Verdict};
use support::{ABSTAIN, FINE, HOST, OWN, denial, handwritten};

static SERVICES: LazyLock<Arc<Services>> = LazyLock::new(Arc::default);

fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    // In its place at once, as who changes a watched folder should.
    let fresh = folder.join("fresh");
    std::fs::write(&fresh, bytes).unwrap();
    std::fs::rename(fresh, folder.join(name)).unwrap();
}

fn denies(status: u16) -> Vec<u8> {
    handwritten(FINE, OWN, &denial(status, 2, None))
}

fn load(folder: &mut Folder) -> Loaded {
    folder.load(&HOST, &SERVICES).unwrap().expect("something changed")
}

fn status(loaded: &Loaded) -> Option<u16> {
    match loaded.chain.authorize(&RequestView::of("/")).verdict {
        Verdict::Deny(denial) => Some(denial.status),
        Verdict::Allow(_) | Verdict::Abstain => None,
    }
}

#[test]
fn policies_are_asked_in_order_and_what_breaks_keeps_its_last_good_version() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path();
    put(path, "b.wasm", denies(451));
    put(path, "b.toml", "version = \"1\"\n");
    put(path, "a.wasm", denies(410));
    put(path, "a.toml", "order = 5\n");
    let mut folder = Folder::new(path.to_owned());
    let first = load(&mut folder);
    assert_eq!(first.problems, []);
    assert_eq!(status(&first), Some(451), "0 comes before 5");
    assert!(folder.load(&HOST, &SERVICES).unwrap().is_none(), "nothing changed");

    put(path, "b.wasm", b"half a file");
    let second = load(&mut folder);
    assert_eq!(status(&second), Some(451), "the last good one decides");
    assert_eq!(second.problems[0].policy, "b");
    assert_eq!(second.problems[0].kept.as_deref(), Some("b@1"));
    assert!(second.problems[0].text.contains("b.wasm") && second.problems[0].text.contains("not WebAssembly"));

    put(path, "b.wasm", denies(403));
    let third = load(&mut folder);
    assert_eq!((status(&third), third.problems), (Some(403), Vec::new()));

    put(path, "b.toml", "mode = \"off\"\n");
    assert_eq!(status(&load(&mut folder)), Some(410));
    std::fs::remove_file(path.join("a.toml")).unwrap();
    assert_eq!(status(&load(&mut folder)), None);
}

#[test]
fn what_did_not_change_keeps_its_instances() {
    let home = tempfile::tempdir().unwrap();
    put(home.path(), "a.wasm", handwritten(FINE, ABSTAIN, ""));
    put(home.path(), "a.toml", "");
    let mut folder = Folder::new(home.path().to_owned());
    let first = load(&mut folder);
    put(home.path(), "b.wasm", denies(451));
    put(home.path(), "b.toml", "[candidate]\nfile = \"a.wasm\"\nmode = \"canary\"\npercent = 12.5\n");
    let second = load(&mut folder);
    let of = |loaded: &Loaded| Arc::clone(loaded.chain.places()[0].active.as_ref().unwrap());
    assert!(Arc::ptr_eq(&of(&first), &of(&second)));
    assert_eq!(of(&second).counters().instances.load(Relaxed), 1);
    let (_, trial) = second.chain.places()[1].candidate.as_ref().unwrap();
    assert_eq!(*trial, Trial::Canary(1250));
}

#[test]
fn with_other_services_policies_are_configured_anew() {
    let home = tempfile::tempdir().unwrap();
    put(home.path(), "a.wasm", handwritten(FINE, ABSTAIN, ""));
    put(home.path(), "a.toml", "");
    let mut folder = Folder::new(home.path().to_owned());
    let of = |loaded: Loaded| Arc::clone(loaded.chain.places()[0].active.as_ref().unwrap());
    let first = of(load(&mut folder));
    let other = Arc::new(Services::default());
    let second = of(folder.load(&HOST, &other).unwrap().expect("the services changed"));
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(folder.load(&HOST, &other).unwrap().is_none());
}

#[test]
fn a_problem_says_which_file_and_what() {
    let home = tempfile::tempdir().unwrap();
    let cases = [
        ("mode = \"sometimes\"", "a.toml"),
        ("", "a.wasm is not there"),
        ("file = \"good.wasm\"\n[candidate]\nfile = \"good.wasm\"\nmode = \"canary\"\n", "percent"),
        ("file = \"good.wasm\"\n[candidate]\nfile = \"bad.wasm\"\nmode = \"shadow\"\n", "bad.wasm: not WebAssembly"),
    ];
    put(home.path(), "good.wasm", handwritten(FINE, ABSTAIN, ""));
    put(home.path(), "bad.wasm", "text");
    for (manifest, expected) in cases {
        put(home.path(), "a.toml", manifest);
        let mut folder = Folder::new(home.path().to_owned());
        let loaded = load(&mut folder);
        assert!(loaded.problems[0].text.contains(expected), "{expected:?} in {:?}", loaded.problems[0].text);
        assert_eq!(loaded.problems[0].kept, None);
        assert!(loaded.chain.is_empty());
    }
    assert!(Folder::new(home.path().join("nowhere")).load(&HOST, &SERVICES).is_err());
}
