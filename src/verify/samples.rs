//! Certificates and log entries made for tests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SigningKey,
};

use super::Timestamp;
use super::certificate::Certificate;
use crate::digest::Digest;

/// Certificates are valid from then on: 2024-01-01T00:00:00Z.
pub(in crate::verify) const FIRST: Timestamp = Timestamp(1_704_067_200);
/// Within the validity.
pub(in crate::verify) const MIDDLE: Timestamp = Timestamp(1_720_000_000);
/// Certificates are valid until then: 2025-01-01T00:00:00Z.
pub(in crate::verify) const LAST: Timestamp = Timestamp(1_735_689_600);

/// A certificate with its key.
pub(in crate::verify) struct Issued {
    pub params: CertificateParams,
    pub key: KeyPair,
    pub der: Vec<u8>,
}

impl Issued {
    /// By `issuer`, or self-signed.
    pub(in crate::verify) fn new(params: CertificateParams, issuer: Option<&Self>) -> Self {
        Self::with_key(params, KeyPair::generate().unwrap(), issuer)
    }

    pub(in crate::verify) fn with_key(
        params: CertificateParams,
        key: KeyPair,
        issuer: Option<&Self>,
    ) -> Self {
        let certificate = match issuer {
            Some(issuer) => {
                params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)).unwrap()
            }
            None => params.self_signed(&key).unwrap(),
        };
        let der = certificate.der().to_vec();
        Self { params, key, der }
    }

    pub(in crate::verify) fn read(&self) -> Certificate {
        Certificate::from_der(&self.der).unwrap()
    }

    pub(in crate::verify) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }
}

pub(in crate::verify) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

pub(in crate::verify) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What an authority of that name has in its certificate.
pub(in crate::verify) fn authority(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What a signer has in its certificate.
pub(in crate::verify) fn signer(names: &[SanType]) -> CertificateParams {
    let mut params = named("signer");
    params.subject_alt_names = names.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

pub(in crate::verify) fn email(name: &str) -> SanType {
    SanType::Rfc822Name(name.try_into().unwrap())
}

pub(in crate::verify) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub(in crate::verify) fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

pub(in crate::verify) fn extension(oid: &[u64], critical: bool, value: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, value.to_vec());
    extension.set_criticality(critical);
    extension
}

/// The body of a log entry.
pub(in crate::verify) fn body(verifier: &str, signature: &[u8], payload: &[u8]) -> String {
    format!(
        r#"{{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{{"data":{{"hash":{{"algorithm":"sha256","value":"{}"}}}},"signature":{{"content":"{}","publicKey":{{"content":"{}"}}}}}}}}"#,
        Digest::sha256(payload).hex(),
        base64(signature),
        base64(verifier.as_bytes())
    )
}

/// The payload of a log entry with that body, in canonical form.
pub(in crate::verify) fn logged(body: &str, time: Timestamp) -> String {
    format!(
        r#"{{"body":"{}","integratedTime":{},"logID":"c0ffee","logIndex":7}}"#,
        base64(body.as_bytes()),
        time.0
    )
}

/// The `bundle` annotation for a payload whose canonical form is `canonical`.
pub(in crate::verify) fn set(log: &KeyPair, payload: &str, canonical: &str) -> String {
    let signature = base64(&log.sign(canonical.as_bytes()).unwrap());
    format!(r#"{{"SignedEntryTimestamp":"{signature}","Payload":{payload}}}"#)
}
