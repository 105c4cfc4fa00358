//! sigstoreSigned with public keys: a payload and its annotation → [`Verified`] claim (rules C-1 to C-13).

use crate::json;

use super::trust::KeyMaterial;
use super::{Claim, Payload, Rejection, SIGNATURE_BYTES, Signer, UntrustedSigstore, Verified};

/// The media type of a cosign signature layer (rule C-1).
pub const SIGNATURE_MIME_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The annotation that holds the signature in base64 (rule C-2).
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// Verifies one signature layer with any of `keys`; all of them must be usable (rules C-3, C-5, C-10).
pub fn verify(signature: &UntrustedSigstore, keys: &[&KeyMaterial]) -> Result<Verified<Claim>, Rejection> {
    let mut usable = Vec::with_capacity(keys.len());
    for material in keys {
        usable.push(material.public_key().map_err(|error| Rejection::KeyFileInvalid {
            source: material.source().to_owned(),
            detail: error.detail(),
        })?);
    }
    if signature.payload.len() > SIGNATURE_BYTES {
        return Err(Rejection::MalformedSignature { detail: "the payload is larger than 4 MiB" });
    }
    let encoded = signature
        .annotations
        .get(SIGNATURE_ANNOTATION)
        .ok_or(Rejection::MalformedSignature { detail: "the layer has no signature annotation" })?;
    let raw = json::decode_base64(encoded)
        .ok_or(Rejection::MalformedSignature { detail: "the signature annotation is not base64" })?;
    let key = usable
        .into_iter()
        .find(|key| key.verifies(&signature.payload, &raw))
        .ok_or(Rejection::BadSignature)?;
    let payload = Payload::parse_cosign(&signature.payload)?;
    Ok(Verified::assert(Claim { payload, signer: Signer::PublicKey { spki: key.id().clone() }, time: None }))
}
