//! Attachments of cosign 2 with a certificate, as the bundle of version 0.1 that says the same.
//!
//! Nothing is believed here: what is put together is read and verified as any other bundle.

use serde_json::{Value as Json, json};

use crate::digest::{Digest, is_lower_hex};
use crate::json::{self, Value};
use crate::verify::protojson::encode;
use crate::verify::{PAYLOAD, Rejection, UntrustedSigstore, fulcio};

use super::unhex;

/// The bundle; seeds-and-formats, section 1.1, "Generation A".
pub(super) fn bundle(layer: &UntrustedSigstore) -> Result<Vec<u8>, Rejection> {
    // An empty one is none, as for cosign.
    let annotation =
        |name: &str| layer.annotations.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let signature =
        annotation(SIGNATURE).ok_or_else(|| malformed("the layer has no signature annotation"))?;
    let certificate = annotation(CERTIFICATE).ok_or(Rejection::SigningCertificateMissing)?;
    let leaf = fulcio::leaf(certificate)?;
    let entries = match annotation(BUNDLE) {
        Some(set) => vec![entry(set).ok_or_else(|| malformed("the bundle annotation is malformed"))?],
        None => Vec::new(),
    };
    let tokens = match annotation(TIMESTAMP) {
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
    let [promise, payload] = members(&root, ["SignedEntryTimestamp", "Payload"])?;
    let [body, time, index, id] = members(payload, ["body", "integratedTime", "logIndex", "logID"])?;
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

fn timestamp(text: &str) -> Option<String> {
    let root = json::parse(text.as_bytes(), PAYLOAD).ok()?;
    let [token] = members(&root, ["SignedRFC3161Timestamp"])?;
    Some(token.text()?.to_owned())
}

/// The members of these names, if there are no others and none is there twice.
fn members<'v, 'a, const N: usize>(value: &'v Value<'a>, names: [&str; N]) -> Option<[&'v Value<'a>; N]> {
    let members = value.members().filter(|members| members.len() == N)?;
    let find = |name: &str| members.iter().find(|member| member.key == name).map(|member| &member.value);
    let found: Vec<&Value<'_>> = names.iter().filter_map(|name| find(name)).collect();
    found.try_into().ok()
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

/// Rule C-2.
const BUNDLE: &str = "dev.sigstore.cosign/bundle";
/// Rule C-2.
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
/// Rule C-2.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Seeds-and-formats, section 1.1; the reference does not know it.
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";
