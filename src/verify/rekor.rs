//! [`Entry`]: what a transparency log has signed for, its signed entry timestamp (rules C-20 to C-25).

use crate::digest::Digest;
use crate::json::{self, Data, Value};

use super::key::PublicKey;
use super::payload::exact_members;
use super::{PAYLOAD, Rejection, SIGNATURE_BYTES, Timestamp, Verified, canonical, pem};

/// An entry of type hashedrekord: this key or certificate made this signature of this payload by that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::verify) struct Entry {
    /// The SubjectPublicKeyInfo or the certificate, as DER.
    verifier: Vec<u8>,
    signature: Vec<u8>,
    payload: Digest,
    /// When the log took it.
    pub time: Timestamp,
}

impl Verified<Entry> {
    /// Reads a `bundle` annotation that any of the logs has signed (rules C-20 to C-25).
    ///
    /// The signature is over the canonical text, and only that is read further, so that nothing which the log has
    /// not signed can decide.
    pub(in crate::verify) fn of_set(annotation: &str, logs: &[&PublicKey]) -> Result<Self, Rejection> {
        if annotation.len() > SIGNATURE_BYTES {
            return Err(invalid("it is larger than 4 MiB"));
        }
        let set = json::parse(annotation.as_bytes(), PAYLOAD)
            .map_err(|e| invalid(format!("it is not JSON: {e}")))?;
        let [timestamp, payload] =
            exact_members(&set, ["SignedEntryTimestamp", "Payload"], "it").map_err(invalid)?;
        let timestamp = timestamp.bytes().ok_or_else(|| invalid("\"SignedEntryTimestamp\" is not base64"))?;
        let canonical = canonical::text(payload).map_err(|e| invalid(e.to_string()))?;
        if !logs.iter().any(|log| log.is_ecdsa() && log.verifies(canonical.as_bytes(), &timestamp)) {
            return Err(invalid("no log of the requirement has signed it"));
        }
        Entry::parse(&canonical).map(Self::assert).map_err(invalid)
    }
}

impl Entry {
    /// Whether the entry is about the key or certificate with that DER.
    pub(in crate::verify) fn is_of(&self, verifier: &[u8]) -> bool {
        self.verifier == verifier
    }

    /// The logged signature and payload must be these (rule C-24).
    pub(in crate::verify) fn check(&self, signature: &[u8], payload: &[u8]) -> Result<(), Rejection> {
        if self.signature != signature {
            return Err(invalid("it is for another signature"));
        }
        if !self.payload.matches(payload) {
            return Err(invalid("it is for another payload"));
        }
        Ok(())
    }

    /// Rule C-22: exactly these members, each of its type.
    fn parse(payload: &str) -> Result<Self, String> {
        let payload = json::parse(payload.as_bytes(), PAYLOAD).map_err(|e| e.to_string())?;
        let [body, time, index, log] =
            exact_members(&payload, ["body", "integratedTime", "logIndex", "logID"], "\"Payload\"")?;
        let body = body.bytes().ok_or("\"body\" is not base64")?;
        let time = Timestamp(integer(time).ok_or("\"integratedTime\" is not an integer")?);
        integer(index).ok_or("\"logIndex\" is not an integer")?;
        if log.text().is_none() && !log.is_null() {
            return Err("\"logID\" is not a string".to_owned());
        }
        Self::parse_body(&body, time)
    }

    /// Rules C-23 and C-24.
    fn parse_body(body: &[u8], time: Timestamp) -> Result<Self, String> {
        let body = json::parse(body, PAYLOAD).map_err(|e| format!("its body is not JSON: {e}"))?;
        if text(&body, "kind")? != "hashedrekord" || text(&body, "apiVersion")? != "0.0.1" {
            return Err("it is not a hashedrekord of version 0.0.1".to_owned());
        }
        let spec = member(&body, "spec")?;
        let signature = member(spec, "signature")?;
        let key = member(signature, "publicKey")?;
        let hash = member(member(spec, "data")?, "hash")?;
        if text(hash, "algorithm")? != "sha256" {
            return Err("its hash is not SHA-256".to_owned());
        }
        let hex = text(hash, "value")?.to_ascii_lowercase();
        let payload = Digest::parse(&format!("sha256:{hex}")).ok_or("its hash is not one of SHA-256")?;
        let pem = member(key, "content")?.bytes().ok_or("its key is not base64")?;
        let verifier = only_block(&pem).ok_or("its key is not exactly one PEM block")?;
        let signature = member(signature, "content")?.bytes().ok_or("its signature is not base64")?;
        Ok(Self { verifier, signature, payload, time })
    }
}

/// The DER of a PEM block that nothing follows; label and headers do not count (rule C-24).
pub(in crate::verify) fn only_block(bytes: &[u8]) -> Option<Vec<u8>> {
    pem::first_block(bytes).filter(|block| block.rest.is_empty()).map(|block| block.contents)
}

/// A 64-bit integer as the canonical text writes it; null is 0, as Go reads it (rule C-22).
fn integer(value: &Value<'_>) -> Option<i64> {
    match &value.data {
        Data::Null => Some(0),
        Data::Number(written) => written.parse().ok(),
        Data::Bool(_) | Data::String(_) | Data::Array(_) | Data::Object(_) => None,
    }
}

/// A member by its name in any case (rule C-23). One that is there twice is refused: readers would differ.
fn member<'v, 'a>(value: &'v Value<'a>, name: &str) -> Result<&'v Value<'a>, String> {
    let mut found = value.members().unwrap_or_default().iter().filter(|m| json::folds(&m.key, name));
    match (found.next(), found.next()) {
        (Some(member), None) if !member.value.is_null() => Ok(&member.value),
        (Some(_), Some(_)) => Err(format!("its body has \"{name}\" twice")),
        (Some(_), None) | (None, _) => Err(format!("its body has no \"{name}\"")),
    }
}

fn text<'v>(value: &'v Value<'_>, name: &str) -> Result<&'v str, String> {
    member(value, name)?.text().ok_or_else(|| format!("\"{name}\" of its body is not a string"))
}

fn invalid(detail: impl Into<String>) -> Rejection {
    Rejection::LogEntryInvalid { detail: detail.into() }
}
