use super::*;

struct Told;

impl Headers for Told {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "referer" => Some("https://app.example/".into()),
            "cookie" | "authorization" => Some("secret".into()),
            _ => None,
        }
    }
}

impl Claims for Told {
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "sub").then_some("a\u{1f}b\0c\nd".into())
    }

    fn context(&self, pointer: &str) -> Option<Cow<'_, str>> {
        (pointer == "/plan/tier").then_some("gold".into())
    }
}

fn written(names: &[&str]) -> String {
    let fields: Vec<Field> = names.iter().map(|name| Field::parse(name).unwrap()).collect();
    let address = Some("::ffff:192.0.2.7".parse().unwrap());
    let request = RequestView { headers: &Told, claims: &Told, address, ..RequestView::of("/hls/t/a.m4s") };
    let mut out = "left over".to_owned();
    write_fields(&fields, &request, &mut out);
    out
}

#[test]
fn fields_come_in_the_order_asked_for_and_absent_ones_are_told_from_empty_ones() {
    let names = ["path", "country", "header:Referer", "track", "address", "context:/plan/tier"];
    assert_eq!(written(&names), "/hls/t/a.m4s\u{1f}\0\u{1f}https://app.example/\u{1f}\u{1f}192.0.2.7\u{1f}gold");
    assert_eq!(written(&[]), "");
}

#[test]
fn a_value_cannot_pretend_to_be_two() {
    assert_eq!(written(&["claim:sub", "method"]), "a\u{fffd}b\u{fffd}c\nd\u{1f}GET");
}

#[test]
fn headers_that_carry_tickets_are_not_given_by_any_spelling() {
    assert_eq!(written(&["header:cookie", "header:COOKIE", "header:Authorization"]), "\0\u{1f}\0\u{1f}\0");
    let request = RequestView { headers: &Told, ..RequestView::of("/") };
    assert_eq!(request.header("Cookie", false), None);
    assert_eq!(request.header("Cookie", true).as_deref(), Some("secret"));
}

#[test]
fn a_field_that_there_is_not_is_none() {
    for name in ["", "Path", "header", "body", "key:k1"] {
        assert_eq!(Field::parse(name), None, "{name}");
    }
}
