//! What is learnt of a request: by the check of its token, by the reader of its body, and from its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use url::form_urlencoded;

use super::Subject;
use crate::auth::Caller;
use crate::store::audit::TEXT_MAX;

/// Characters of one value that a record tells.
const VALUE_MAX: usize = 200;

/// Shared by a request's layers. No await under the lock.
#[derive(Clone, Debug)]
pub(crate) struct Noted(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    tells: &'static [&'static str],
    caller: Option<Caller>,
    told: Map<String, Value>,
}

impl Noted {
    pub(super) fn new(subject: &Subject, query: &str) -> Self {
        let noted = Self(Arc::new(Mutex::new(Inner { tells: subject.tells, caller: None, told: Map::new() })));
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            noted.tell(&name, &Value::String(value.into_owned()));
        }
        noted
    }

    /// Whose token it is, whatever it allows.
    pub(crate) fn comes_from(&self, caller: &Caller) {
        self.inner().caller = Some(caller.clone());
    }

    /// The body of the request.
    pub(crate) fn hears(&self, body: &[u8]) {
        if self.inner().tells.is_empty() {
            return;
        }
        // What is no JSON is refused by whoever reads it for the route.
        if let Ok(Value::Object(fields)) = serde_json::from_slice(body) {
            fields.iter().for_each(|(name, value)| self.tell(name, value));
        }
    }

    /// What the answer says that the request did not.
    pub(super) fn answered(&self, answer: &Value) {
        let Value::Object(fields) = answer else { return };
        for (name, value) in fields {
            if !self.inner().told.contains_key(name) {
                self.tell(name, value);
            }
        }
    }

    fn tell(&self, name: &str, value: &Value) {
        let mut inner = self.inner();
        if inner.tells.contains(&name) && !value.is_null() {
            inner.told.insert(name.to_owned(), shortened(value));
        }
    }

    pub(super) fn caller(&self) -> Option<Caller> {
        self.inner().caller.clone()
    }

    /// The summary as JSON; `None`: there is nothing to tell.
    pub(super) fn summary(&self) -> Option<String> {
        let inner = self.inner();
        (!inner.told.is_empty()).then(|| Value::Object(inner.told.clone()).to_string())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one insertion: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shortened(value: &Value) -> Value {
    match value {
        Value::Bool(_) | Value::Number(_) | Value::Null => value.clone(),
        Value::String(text) => Value::String(cut(text, VALUE_MAX)),
        // Lists of words stay lists while they are short.
        other => {
            let text = other.to_string();
            if text.len() <= VALUE_MAX { other.clone() } else { Value::String(cut(&text, VALUE_MAX)) }
        }
    }
}

/// At most so many bytes, and a mark where something was cut.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// What a request is about: its path as far as it names something, without `/v1/`.
pub(super) fn resource(subject: &Subject, path: &str) -> String {
    let parts: Vec<&str> = subject.path.split('/').collect();
    let last = parts.iter().rposition(|part| part.starts_with('{'));
    let named = match last {
        Some(last) => path.split('/').take(last + 1).skip(2).collect::<Vec<_>>().join("/"),
        None => subject.makes.map_or_else(|| parts.get(2..).unwrap_or_default().join("/"), |(of, _)| of.to_owned()),
    };
    cut(&named, TEXT_MAX)
}

/// The same with the id of what was made.
pub(super) fn made(subject: &Subject, resource: &str, answer: &Value) -> Option<String> {
    let (_, pointer) = subject.makes?;
    let id = answer.pointer(pointer)?.as_str()?;
    Some(cut(&format!("{resource}/{id}"), TEXT_MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Method;
    use serde_json::json;

    use super::super::Recorded;
    use super::*;

    fn subject(path: &'static str, makes: Option<(&'static str, &'static str)>) -> Subject {
        let tells = &["name", "scopes", "force"];
        let recorded = Recorded::Changes;
        Subject { operation: "x", method: Method::POST, path, scope: None, recorded, tells, makes }
    }

    #[test]
    fn a_record_tells_the_fields_that_the_table_names_and_no_others() {
        let noted = Noted::new(&subject("/v1/x", None), "force=true&at=5");
        noted.hears(br#"{"name":"n","secret":"s3cret","scopes":["read"]}"#);
        noted.hears(b"no JSON");
        noted.answered(&json!({ "name": "other", "secret": "s3cret" }));
        let told: Value = serde_json::from_str(&noted.summary().unwrap()).unwrap();
        assert_eq!(told, json!({ "name": "n", "scopes": ["read"], "force": "true" }));
    }

    #[test]
    fn what_is_told_is_short() {
        let noted = Noted::new(&subject("/v1/x", None), "");
        noted.hears(json!({ "name": "ä".repeat(5000), "scopes": vec!["word"; 5000] }).to_string().as_bytes());
        assert!(noted.summary().unwrap().len() < 3 * VALUE_MAX, "{:?}", noted.summary());
        assert_eq!((cut("abcdef", 5), cut("abcde", 5), cut("ää…", 5)), ("ab…".into(), "abcde".into(), "ä…".into()));
    }

    #[test]
    fn a_resource_is_the_path_as_far_as_it_names_something() {
        let named = |path, makes, asked: &str| resource(&subject(path, makes), asked);
        assert_eq!(named("/v1/tracks/{track}/purge", None, "/v1/tracks/a/purge"), "tracks/a");
        assert_eq!(named("/v1/limits/classes/{name}", None, "/v1/limits/classes/b"), "limits/classes/b");
        assert_eq!(named("/v1/keys/rotate", Some(("keys", "/key/kid")), "/v1/keys/rotate"), "keys");
        assert_eq!(named("/v1/tracks", None, "/v1/tracks"), "tracks");
        assert!(named("/v1/t/{t}", None, &format!("/v1/t/{}", "x".repeat(5000))).len() <= TEXT_MAX);
        let made = made(&subject("/v1/keys", Some(("keys", "/key/kid"))), "keys", &json!({ "key": { "kid": "k" } }));
        assert_eq!(made.unwrap(), "keys/k");
    }
}
