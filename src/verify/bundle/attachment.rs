//! Attachments of cosign 2 with a certificate, as the bundle of version 0.1 that says the same.
//!
//! Nothing is believed here: what is put together is read and verified as any other bundle.

use serde_json::{Value as Json, json};

use crate::digest::{Digest, hex, is_lower_hex, unhex};
use crate::json::{self, Value};
use crate::verify::hearsay::UntrustedLogEntry;
use crate::verify::payload::exact_members;
use crate::verify::protojson::{decode, encode};
use crate::verify::sigstore::{BUNDLE_ANNOTATION, CERTIFICATE_ANNOTATION, SIGNATURE_ANNOTATION};
use crate::verify::{PAYLOAD, Rejection, Timestamp, UntrustedSigstore, fulcio};

/// The bundle; seeds-and-formats, section 1.1, "Generation A".
pub(super) fn bundle(layer: &UntrustedSigstore) -> Result<Vec<u8>, Rejection> {
    // An empty one is none, as for cosign.
    let annotation =
        |name: &str| layer.annotations.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let signature =
        annotation(SIGNATURE_ANNOTATION).ok_or_else(|| malformed("the layer has no signature annotation"))?;
    let certificate = annotation(CERTIFICATE_ANNOTATION).ok_or(Rejection::SigningCertificateMissing)?;
    let leaf = fulcio::leaf(certificate)?;
    let entries = match annotation(BUNDLE_ANNOTATION) {
        Some(set) => vec![entry(set).ok_or_else(|| malformed("the bundle annotation is malformed"))?],
        None => Vec::new(),
    };
    let tokens = match annotation(TIMESTAMP_ANNOTATION) {
        Some(token) => {
            let token = timestamp(token).ok_or_else(|| malformed("the timestamp annotation is malformed"))?;
            vec![json!({ "signedTimestamp": token })]
        }
        None => Vec::new(),
    };
    let digest = unhex(Digest::sha256(&layer.payload).hex());
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "verificationMaterial": {
            "x509CertificateChain": { "certificates": [{ "rawBytes": encode(leaf.der()) }] },
            "tlogEntries": entries,
            "timestampVerificationData": { "rfc3161Timestamps": tokens },
        },
        "messageSignature": {
            "messageDigest": { "algorithm": "SHA2_256", "digest": encode(&digest) },
            "signature": signature,
        },
    });
    Ok(bundle.to_string().into_bytes())
}

/// The log entry in an annotation of `SignedEntryTimestamp` and `Payload`.
fn entry(set: &str) -> Option<Json> {
    let root = json::parse(set.as_bytes(), PAYLOAD).ok()?;
    let [promise, payload] = exact_members(&root, ["SignedEntryTimestamp", "Payload"], "").ok()?;
    let [body, time, index, id] =
        exact_members(payload, ["body", "integratedTime", "logIndex", "logID"], "").ok()?;
    let id = id.text().filter(|id| is_lower_hex(id) && id.len() == 64)?;
    Some(json!({
        "logIndex": number(index)?,
        "logId": { "keyId": encode(&unhex(id)) },
        "kindVersion": { "kind": "hashedrekord", "version": "0.0.1" },
        "integratedTime": number(time)?,
        "inclusionPromise": { "signedEntryTimestamp": promise.text()? },
        "canonicalizedBody": body.text()?,
    }))
}

/// The same as it says, proven or not.
pub(super) fn unverified_entry(set: &str) -> Option<UntrustedLogEntry> {
    let entry = entry(set)?;
    let text = |name: &str| entry.get(name)?.as_str();
    let log_id = decode(entry.get("logId")?.get("keyId")?.as_str()?)?;
    let (index, time) = (text("logIndex")?.parse().ok()?, text("integratedTime")?.parse().ok()?);
    Some(UntrustedLogEntry { log_id: hex(&log_id), index, time: Some(Timestamp(time)) })
}

fn timestamp(text: &str) -> Option<String> {
    let root = json::parse(text.as_bytes(), PAYLOAD).ok()?;
    let [token] = exact_members(&root, ["SignedRFC3161Timestamp"], "").ok()?;
    Some(token.text()?.to_owned())
}

/// A whole number that is not negative, as protobuf writes it.
fn number(value: &Value<'_>) -> Option<String> {
    match &value.data {
        json::Data::Number(number) => number.parse::<u64>().ok().map(|number| number.to_string()),
        json::Data::Array(_)
        | json::Data::Bool(_)
        | json::Data::Null
        | json::Data::Object(_)
        | json::Data::String(_) => None,
    }
}

fn malformed(detail: &'static str) -> Rejection {
    Rejection::MalformedSignature { detail }
}

/// Seeds-and-formats, section 1.1; the reference does not know it.
const TIMESTAMP_ANNOTATION: &str = "dev.sigstore.cosign/rfc3161timestamp";
