use super::*;

#[test]
fn values_of_ctx_by_pointer() {
    let Value::Object(ctx) = json!({ "plan": "gold", "n": 7, "a": { "b": [true, { "c/d": "x" }] }, "e~f": null })
    else {
        return;
    };
    let of = |pointer: &str| context(&ctx, pointer).map(Cow::into_owned);
    assert_eq!(of("/plan").as_deref(), Some("gold"));
    assert_eq!(of("/n").as_deref(), Some("7"));
    assert_eq!(of("/a/b/0").as_deref(), Some("true"));
    assert_eq!(of("/a/b/1/c~1d").as_deref(), Some("x"));
    assert_eq!(of("/e~0f").as_deref(), Some("null"));
    assert_eq!(of("").as_deref(), Some(serde_json::to_string(&ctx).unwrap().as_str()));
    assert_eq!(of("plan"), None);
    assert_eq!(of("/b"), None);
}

#[test]
fn attached_vectors_are_found_again() {
    let module = b"\0asm\x01\0\0\0";
    let vectors = br#"{ "vectors": [ { "name": "one", "expect": { "verdict": "abstain" } } ] }"#;
    let long = [vectors.as_slice(), &[b' '; 300]].concat();
    let with = attach(module, &long).unwrap();
    assert_eq!(Vectors::inside(&with).unwrap().map(|vectors| vectors.len()), Some(1));
    assert!(Vectors::inside(module).unwrap().is_none());
    assert!(attach(module, b"{").is_err());
}

#[test]
fn a_verdict_is_compared_whole() {
    let denial = json!({ "verdict": "deny", "status": 403, "reason": "a" });
    let more = json!({ "verdict": "deny", "status": 403, "reason": "a", "headers": [["x", "y"]] });
    assert!(agrees(&denial, &denial));
    assert!(!agrees(&denial, &more));
    assert!(agrees(&json!({ "claims": { "scope": "/a" } }), &json!({ "claims": { "scope": "/a", "expires": 1 } })));
    assert!(!agrees(&json!({ "refused": "expired" }), &json!({ "refused": "malformed" })));
}
