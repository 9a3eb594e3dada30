//! Whether a body is the one that its origin stored: the checksums that S3 keeps with an object, and its ETag.
//!
//! Why: TCP and TLS guard the way, not the disks and proxies behind it. S3 tells its checksums to whoever asks
//! (`x-amz-checksum-mode: ENABLED`), which costs the request nothing; a CRC costs a fill about 0.1 ms per MB. An ETag is
//! an MD5 only for some objects, and MD5 costs ten times that, so it is looked at only where `[origin] verify_etag` says so.
//!
//! Invariants: what cannot be known (a composite checksum, an ETag of a multipart upload or under KMS) is no mismatch.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use http::header::{ETAG, HeaderMap};
use md5::Md5;
use pingora_http::ResponseHeader;
use sha2::{Digest as _, Sha256};

use crate::refusal::OriginFailure;

/// How S3 servers and what stands in front of them begin an error that comes in place of an object.
const ERROR_DOCUMENTS: [&[u8]; 2] = [b"<?xml", b"<Error"];

/// What a body turned out not to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Checksum,
    Etag,
    ErrorDocument,
}

impl Mismatch {
    /// For the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Checksum => "its checksum is another",
            Self::Etag => "its MD5 is not the ETag",
            Self::ErrorDocument => "it is an error document under status 200",
        }
    }

    pub(crate) fn failure(self) -> OriginFailure {
        match self {
            Self::Checksum | Self::Etag => OriginFailure::Broken,
            Self::ErrorDocument => OriginFailure::NotAnObject,
        }
    }
}

enum Sum {
    Crc(crc_fast::Digest, u64),
    Sha256(Sha256, Vec<u8>),
    Md5(Md5, String),
}

/// What a body is held against, piece by piece.
pub(crate) struct Checks {
    sums: Vec<Sum>,
    refuse_error_document: bool,
    begun: bool,
}

impl Checks {
    /// Nothing is known.
    pub(crate) fn none() -> Self {
        Self { sums: Vec::new(), refuse_error_document: false, begun: false }
    }

    /// What S3's head says: the strongest checksum beside the cheap ones is enough, so one is taken.
    pub(crate) fn of_s3(head: &ResponseHeader, verify_etag: bool) -> Self {
        let mut checks = Self::none();
        checks.sums.extend(declared(&head.headers));
        if verify_etag && let Some(md5) = plain_md5(&head.headers) {
            checks.sums.push(Sum::Md5(Md5::new(), md5));
        }
        checks
    }

    /// A body that begins like an error document is none of this object's.
    pub(crate) fn refuse_error_document(self) -> Self {
        Self { refuse_error_document: true, ..self }
    }

    /// # Errors
    /// What the body turned out to be.
    pub(crate) fn update(&mut self, piece: &[u8]) -> Result<(), Mismatch> {
        let first = !std::mem::replace(&mut self.begun, true);
        if first && self.refuse_error_document && ERROR_DOCUMENTS.iter().any(|document| piece.starts_with(document)) {
            return Err(Mismatch::ErrorDocument);
        }
        for sum in &mut self.sums {
            match sum {
                Sum::Crc(digest, _) => digest.update(piece),
                Sum::Sha256(digest, _) => digest.update(piece),
                Sum::Md5(digest, _) => digest.update(piece),
            }
        }
        Ok(())
    }

    /// # Errors
    /// The body is not the one that was stored.
    pub(crate) fn finish(self) -> Result<(), Mismatch> {
        for sum in self.sums {
            let (is_it, mismatch) = match sum {
                Sum::Crc(digest, wanted) => (digest.finalize() == wanted, Mismatch::Checksum),
                Sum::Sha256(digest, wanted) => (digest.finalize()[..] == wanted[..], Mismatch::Checksum),
                Sum::Md5(digest, wanted) => (hex(&digest.finalize()) == wanted, Mismatch::Etag),
            };
            if !is_it {
                return Err(mismatch);
            }
        }
        Ok(())
    }
}

/// The cheapest of the checksums over the whole object; one of its parts' checksums says nothing here.
fn declared(headers: &HeaderMap) -> Option<Sum> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("x-amz-checksum-type").is_some_and(|kind| kind.eq_ignore_ascii_case("COMPOSITE")) {
        return None;
    }
    // A composite one ends in the number of parts, which is no base64.
    let bytes = |name: &str| STANDARD.decode(text(name)?).ok();
    let number = |name: &str, width: usize| {
        let bytes = bytes(name).filter(|bytes| bytes.len() == width)?;
        Some(bytes.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)))
    };
    let crc = |name: &str, width: usize, algorithm: CrcAlgorithm| {
        Some(Sum::Crc(crc_fast::Digest::new(algorithm), number(name, width)?))
    };
    crc("x-amz-checksum-crc64nvme", 8, CrcAlgorithm::Crc64Nvme)
        .or_else(|| crc("x-amz-checksum-crc32c", 4, CrcAlgorithm::Crc32Iscsi))
        .or_else(|| crc("x-amz-checksum-crc32", 4, CrcAlgorithm::Crc32IsoHdlc))
        .or_else(|| {
            let wanted = bytes("x-amz-checksum-sha256").filter(|bytes| bytes.len() == 32)?;
            Some(Sum::Sha256(Sha256::new(), wanted))
        })
}

/// The ETag, where it is the body's MD5: one part, not under a key of KMS or of the customer's.
fn plain_md5(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let encrypted = text("x-amz-server-side-encryption").is_some_and(|how| how != "AES256")
        || text("x-amz-server-side-encryption-customer-algorithm").is_some();
    let tag = headers.get(ETAG)?.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?;
    let is_md5 = tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_md5 && !encrypted).then(|| tag.to_ascii_lowercase())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;

    use super::*;

    fn verdict(headers: &[(&'static str, &str)], body: &[u8]) -> Result<(), Mismatch> {
        let mut head = ResponseHeader::build(StatusCode::OK, None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        let mut checks = Checks::of_s3(&head, true).refuse_error_document();
        for piece in body.chunks(4) {
            checks.update(piece)?;
        }
        checks.finish()
    }

    /// The check values of "123456789" (catalogue of parametrised CRC algorithms; FIPS 180-4; RFC 1321).
    #[test]
    fn each_algorithm_knows_its_check_value() {
        for (name, value) in [
            ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
            ("x-amz-checksum-crc32c", "4waSgw=="),
            ("x-amz-checksum-crc32", "y/Q5Jg=="),
            ("x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
            ("etag", "\"25f9e794323b453885f5181f1b624d0b\""),
        ] {
            assert_eq!(verdict(&[(name, value)], b"123456789"), Ok(()), "{name}");
            assert!(verdict(&[(name, value)], b"123456780").is_err(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_known_is_no_mismatch() {
        let md5 = ("etag", "\"25f9e794323b453885f5181f1b624d0b\"");
        for headers in [
            &[("x-amz-checksum-crc32", "y/Q5Jg==-2")][..],
            &[("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-checksum-type", "COMPOSITE")],
            &[("etag", "\"25f9e794323b453885f5181f1b624d0b-2\"")],
            &[md5, ("x-amz-server-side-encryption", "aws:kms")],
            &[md5, ("x-amz-server-side-encryption-customer-algorithm", "AES256")],
        ] {
            assert_eq!(verdict(headers, b"something else"), Ok(()), "{headers:?}");
        }
        let mut checks = Checks::none().refuse_error_document();
        assert_eq!(checks.update(b"<?xml version=\"1.0\"?><Error/>"), Err(Mismatch::ErrorDocument));
    }
}
