use super::*;

fn denial() -> types::Denial {
    types::Denial { status: 403, reason: "country".to_owned(), redirect: None, headers: Vec::new() }
}

fn judged(denial: types::Denial) -> Result<Verdict, Failure> {
    types::Verdict::Deny(denial).try_into()
}

#[test]
fn redirects_go_to_paths_or_whole_urls_only() {
    let to = |target: &str| judged(types::Denial { status: 302, redirect: Some(target.to_owned()), ..denial() });
    assert!(to("/blocked.m3u8").is_ok());
    assert!(to("https://example.com/why?c=DE").is_ok());
    for target in [
        "",
        "blocked",
        "//evil.example/",
        "javascript:alert(1)",
        "/a b",
        "/a\r\nx: y",
        &format!("/{}", "a".repeat(3000)),
    ] {
        assert!(to(target).is_err(), "{target}");
    }
    let without = judged(types::Denial { redirect: Some("/".to_owned()), ..denial() });
    assert!(without.is_err(), "403 does not redirect");
}

#[test]
fn an_allowance_is_held_to_its_bounds() {
    let limit = |key: &str| types::Limit { class: "free".to_owned(), key: key.to_owned() };
    let allow = |limits, streams, tags| -> Result<Verdict, Failure> {
        types::Verdict::Allow(types::Allowance { limits, streams, tags }).try_into()
    };
    assert!(allow(vec![limit("a")], Some(limit("b")), vec!["plan:free".to_owned()]).is_ok());
    assert!(allow(vec![limit("a"); 5], None, Vec::new()).is_err());
    assert!(allow(vec![limit("")], None, Vec::new()).is_err());
    assert!(allow(Vec::new(), Some(limit(&"k".repeat(257))), Vec::new()).is_err());
    assert!(allow(Vec::new(), None, vec!["a b".to_owned()]).is_err());
    assert!(allow(Vec::new(), None, vec!["t".to_owned(); 9]).is_err());
}

#[test]
fn a_reason_is_one_word() {
    for reason in ["", "Country", "two words", "a_b", &"a".repeat(65)] {
        assert!(judged(types::Denial { reason: reason.to_owned(), ..denial() }).is_err(), "{reason}");
    }
    assert!(judged(denial()).is_ok());
}
