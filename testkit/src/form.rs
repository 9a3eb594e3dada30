//! Forms as browsers send files (RFC 7578).

/// Between the fields. A line that no file has.
pub const MARK: &str = "a-line-that-no-file-has";

/// The `Content-Type` of [`form`].
#[must_use]
pub fn kind() -> String {
    format!("multipart/form-data; boundary={MARK}")
}

/// The body of a request with these fields.
#[must_use]
pub fn form(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.extend(format!("--{MARK}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").into_bytes());
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend(format!("--{MARK}--\r\n").into_bytes());
    bytes
}
