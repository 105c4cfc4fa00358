//! [`Hearsay`]: what a signature says of itself before anybody has verified it.
//!
//! It is for people who look for the reason of a refusal. It holds texts of anybody's making, and nothing that judges
//! takes it.

use crate::diagnostic::clip;
use crate::json::{self, Value};

use super::identity::SigningIdentity;
use super::sigstore::{BUNDLE_ANNOTATION, CERTIFICATE_ANNOTATION};
use super::{PAYLOAD, Payload, Timestamp, UntrustedSignature, UntrustedSigstore, bundle, fulcio, openpgp};

/// What a signature says of itself; what cannot be read is left out. Untrusted: escape before printing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hearsay {
    /// What the certificate says of its holder.
    pub holder: Option<SigningIdentity>,
    /// The OpenPGP keys that it names, as fingerprints or key IDs.
    pub keys: Vec<String>,
    /// The names of images, or of subjects of a statement.
    pub names: Vec<String>,
    /// The digests that it is about.
    pub digests: Vec<String>,
    /// What kind of statement it is.
    pub predicate_type: Option<String>,
    /// When it was made.
    pub times: Vec<Timestamp>,
    /// Where it was logged.
    pub log_entries: Vec<UntrustedLogEntry>,
}

/// A log entry that nobody has proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntrustedLogEntry {
    /// The ID of the log, in hexadecimal.
    pub log_id: String,
    /// The index in it.
    pub index: u64,
    /// When the log took it.
    pub time: Option<Timestamp>,
}

impl Hearsay {
    /// Reads what can be read.
    pub fn of(signature: &UntrustedSignature) -> Self {
        match signature {
            UntrustedSignature::Bundle(bytes) => Self::of_bundle(bytes),
            UntrustedSignature::SimpleSigning(blob) => Self::of_message(blob),
            UntrustedSignature::Sigstore(layer) => Self::of_layer(layer),
        }
    }

    fn of_bundle(bytes: &[u8]) -> Self {
        let Some(read) = bundle::unverified(bytes) else { return Self::default() };
        let mut hearsay = read.statement.map(|payload| Self::of_statement(&payload)).unwrap_or_default();
        hearsay.holder = read.leaf.and_then(|der| SigningIdentity::from_certificate(&der).ok());
        hearsay.add_entries(read.entries);
        hearsay
    }

    fn of_message(blob: &[u8]) -> Self {
        let Ok(read) = openpgp::unverified(blob) else { return Self::default() };
        let payload = Payload::parse_simple_signing(&read.content).ok();
        Self { keys: vec![clip(&read.issuer)], times: vec![read.created], ..Self::of_payload(payload) }
    }

    fn of_layer(layer: &UntrustedSigstore) -> Self {
        let mut hearsay = if layer.mime_type == DSSE {
            envelope(&layer.payload).map(|payload| Self::of_statement(&payload)).unwrap_or_default()
        } else {
            Self::of_payload(Payload::parse_cosign(&layer.payload).ok())
        };
        let annotation = |name: &str| layer.annotations.get(name).filter(|text| !text.is_empty());
        if let Some(certificate) = annotation(CERTIFICATE_ANNOTATION) {
            let leaf = fulcio::leaf(certificate).ok();
            hearsay.holder = leaf.and_then(|leaf| SigningIdentity::from_certificate(leaf.der()).ok());
        }
        let entry = annotation(BUNDLE_ANNOTATION).and_then(|set| bundle::unverified_entry(set));
        hearsay.add_entries(entry.into_iter().collect());
        hearsay
    }

    fn of_payload(payload: Option<Payload>) -> Self {
        let Some(Payload { docker_reference, manifest_digest, .. }) = payload else { return Self::default() };
        let (names, digests) = (vec![clip(&docker_reference)], vec![manifest_digest.to_string()]);
        Self { names, digests, ..Self::default() }
    }

    /// The statement in an envelope, read as far as it can be.
    fn of_statement(payload: &[u8]) -> Self {
        let mut hearsay = Self::default();
        let Ok(statement) = json::parse(payload, PAYLOAD) else { return hearsay };
        hearsay.predicate_type = text(&statement, "predicateType").map(clip);
        let subjects = statement.member("subject").ok().flatten().and_then(Value::elements);
        for subject in subjects.unwrap_or_default().iter().take(SUBJECTS) {
            hearsay.names.extend(text(subject, "name").map(clip));
            let digest = subject.member("digest").ok().flatten().and_then(|all| text(all, "sha256"));
            hearsay.digests.extend(digest.map(|hex| format!("sha256:{}", clip(hex))));
        }
        hearsay
    }

    fn add_entries(&mut self, entries: Vec<UntrustedLogEntry>) {
        self.times.extend(entries.iter().filter_map(|entry| entry.time));
        self.log_entries.extend(entries);
    }
}

/// The payload of a DSSE envelope.
fn envelope(bytes: &[u8]) -> Option<Vec<u8>> {
    let envelope = json::parse(bytes, PAYLOAD).ok()?;
    json::decode_base64(text(&envelope, "payload")?)
}

fn text<'v>(value: &'v Value<'_>, name: &str) -> Option<&'v str> {
    value.member(name).ok().flatten().and_then(Value::text)
}

/// The media type of an attestation that cosign 2 attached; seeds-and-formats, section 1.2.
pub const DSSE: &str = "application/vnd.dsse.envelope.v1+json";

/// Most subjects of a statement that are told. Those of images have one.
const SUBJECTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// T-28: whatever comes, what is told of it is short.
    #[test]
    fn what_is_told_is_bounded_and_nothing_panics() {
        let long = "x".repeat(100_000);
        let subjects = format!(r#"{{"name":"{long}","digest":{{"sha256":"{long}"}}}},"#).repeat(40);
        let statement =
            format!(r#"{{"predicateType":"{long}","subject":[{}]}}"#, subjects.trim_end_matches(','));
        let hearsay = Hearsay::of_statement(statement.as_bytes());
        assert_eq!((hearsay.names.len(), hearsay.digests.len()), (SUBJECTS, SUBJECTS));
        let texts = hearsay.names.iter().chain(&hearsay.digests).chain(&hearsay.predicate_type);
        assert!(texts.into_iter().all(|text| text.chars().count() < 300));
        for bytes in
            [&b""[..], b"\xff\xfe", b"{", b"[]", b"{}", br#"{"payload":1}"#, br#"{"payload":"e30="}"#]
        {
            let layer = |mime_type: &str| {
                let annotations = [CERTIFICATE_ANNOTATION, BUNDLE_ANNOTATION]
                    .map(|name| (name.to_owned(), String::from_utf8_lossy(bytes).into_owned()));
                UntrustedSignature::Sigstore(UntrustedSigstore {
                    mime_type: mime_type.to_owned(),
                    payload: bytes.to_vec(),
                    annotations: annotations.into(),
                })
            };
            let (bundle, message) = (bytes.to_vec(), bytes.to_vec());
            for signature in [
                UntrustedSignature::Bundle(bundle),
                UntrustedSignature::SimpleSigning(message),
                layer(DSSE),
                layer(""),
            ] {
                assert_eq!(Hearsay::of(&signature), Hearsay::default(), "{signature:?}");
            }
        }
    }
}
