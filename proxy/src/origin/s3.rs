//! SigV4 for S3: AWS Signature Version 4, with S3's own rules (the path is encoded once and never normalised).
//!
//! Invariants: the signature covers method, path, query, host and every `x-amz-` header; the payload is declared
//! unsigned, so that bodies stream. The secret is in no log.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use pingora_http::RequestHeader;

use crate::config::{OriginConfig, OriginKind};
use crate::refusal::Refusal;

/// Asks for the checksums that are kept with an object. Like every `x-amz-` header it has to be signed.
pub(super) const CHECKSUM_MODE: &str = "x-amz-checksum-mode";

/// See the module.
pub(super) struct Signer {
    credentials: Credentials,
    region: String,
    scheme: &'static str,
    authority: String,
    settings: SigningSettings,
}

impl Signer {
    /// `None` for an origin that is not S3.
    pub(super) fn new(config: &OriginConfig, authority: &str) -> Option<Self> {
        let OriginKind::S3 { region, access_key, secret_key, .. } = &config.kind else { return None };
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        Some(Self {
            credentials: Credentials::new(access_key.expose(), secret_key.expose(), None, None, "segue"),
            region: region.clone(),
            scheme: if config.endpoint.tls { "https" } else { "http" },
            authority: authority.to_owned(),
            settings,
        })
    }

    /// Adds the signature's headers, replacing those of an earlier attempt.
    pub(super) fn sign(&self, request: &mut RequestHeader) -> Result<(), Refusal> {
        let failed = |what: String| {
            tracing::error!(error = what, "a request to S3 could not be signed");
            Refusal::Internal
        };
        for name in ["authorization", "x-amz-date", "x-amz-content-sha256"] {
            request.remove_header(name);
        }
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(SystemTime::now())
            .settings(self.settings.clone())
            .build()
            .map_err(|error| failed(error.to_string()))?
            .into();
        let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let url = format!("{}://{}{target}", self.scheme, self.authority);
        let mode = request.headers.get(CHECKSUM_MODE).and_then(|value| value.to_str().ok());
        let headers = [("host", Some(self.authority.as_str())), (CHECKSUM_MODE, mode)];
        let headers = headers.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let signable = SignableRequest::new(request.method.as_str(), url, headers, SignableBody::UnsignedPayload)
            .map_err(|error| failed(error.to_string()))?;
        let (instructions, _) = sign(signable, &params).map_err(|error| failed(error.to_string()))?.into_parts();
        for (name, value) in instructions.headers() {
            request.insert_header(name.to_owned(), value).map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }
}
