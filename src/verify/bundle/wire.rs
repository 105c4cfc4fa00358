//! [`Bundle`]: the wire format, protobuf-specs `sigstore_bundle.proto`, versions 0.1 to 0.3.

use std::collections::BTreeSet;

use crate::diagnostic::clip;
use crate::digest::Algorithm;
use crate::json::{self, Value};
use crate::verify::identity::CERTIFICATE_BYTES;
use crate::verify::protojson::{Message, check_unique};
use crate::verify::{PAYLOAD, Rejection};

/// Largest bundle: 4 MiB (design, limits). Real ones take 4 to 20 KiB.
pub const BUNDLE_BYTES: usize = 4 << 20;

/// Most log entries of one bundle: 32 (design, limits), as sigstore-go.
pub const LOG_ENTRIES: usize = 32;

/// Most timestamps of one bundle: 32 (design, limits), as sigstore-go.
pub const TIMESTAMPS: usize = 32;

/// Largest timestamp: 16 KiB; those with a chain of certificates take six. Reading one takes time by the square of its
/// length (T-28).
const TOKEN_BYTES: usize = 16 << 10;

/// Most certificates of one bundle; real chains have three.
const CERTIFICATES: usize = 8;

/// Most hashes of one inclusion proof: a tree of 2^63 leaves needs no more.
const PROOF_HASHES: usize = 64;

/// A bundle of the right shape: nothing about it has been verified.
#[derive(Clone, Debug)]
pub(super) struct Bundle {
    pub(super) version: Version,
    pub(super) material: Material,
    pub(super) entries: Vec<Entry>,
    pub(super) timestamps: Vec<Vec<u8>>,
    pub(super) content: Content,
}

/// The version that the media type names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V01,
    V02,
    V03,
}

/// How the bundle names its signer.
#[derive(Clone, Debug)]
pub(super) enum Material {
    /// The leaf.
    Certificate(Vec<u8>),
    /// A key that the verifier has.
    ///
    /// The hint in it could only choose among configured keys; all of them are tried instead.
    PublicKey,
}

/// An entry of a transparency log.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) log_id: Vec<u8>,
    pub(super) log_index: u64,
    pub(super) kind: Kind,
    /// Proven only by `set`.
    pub(super) integrated_time: Option<i64>,
    /// The signed entry timestamp.
    pub(super) set: Option<Vec<u8>>,
    pub(super) proof: Option<Proof>,
    /// The canonicalized body.
    pub(super) body: Vec<u8>,
}

impl Entry {
    /// The index in the log, where it is proven: by the entry's timestamp, or in Rekor v2 by the place in the tree.
    pub(super) fn signed_index(&self) -> Option<u64> {
        let is_signed = self.set.is_some() || self.kind == Kind::HashedrekordV002;
        is_signed.then_some(self.log_index)
    }
}

/// What an entry is: the kinds that Rekor v1 and v2 have for signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    DsseV001,
    HashedrekordV001,
    HashedrekordV002,
    IntotoV002,
}

impl Kind {
    /// The values of `kind` and `version`, which are also `kind` and `apiVersion` of the body.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::DsseV001 => ("dsse", "0.0.1"),
            Self::HashedrekordV001 => ("hashedrekord", "0.0.1"),
            Self::HashedrekordV002 => ("hashedrekord", "0.0.2"),
            Self::IntotoV002 => ("intoto", "0.0.2"),
        }
    }
}

/// A proof that an entry is in the log.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) log_index: u64,
    pub(super) tree_size: u64,
    pub(super) root_hash: Vec<u8>,
    pub(super) hashes: Vec<Vec<u8>>,
    /// A signed note, without which nothing is proven.
    pub(super) checkpoint: Option<String>,
}

/// What is signed.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Dsse { payload_type: String, payload: Vec<u8>, signature: Vec<u8> },
    Message { digest: Option<(Algorithm, Vec<u8>)>, signature: Vec<u8> },
}

impl Content {
    pub(super) fn signature(&self) -> &[u8] {
        match self {
            Self::Dsse { signature, .. } | Self::Message { signature, .. } => signature,
        }
    }
}

impl Bundle {
    /// Reads a bundle; the limits come before anything else (T-28).
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        if bytes.len() > BUNDLE_BYTES {
            return Err(malformed("it is larger than 4 MiB"));
        }
        let value = json::parse(bytes, PAYLOAD).map_err(|e| malformed(e.reason))?;
        check_unique(&value).map_err(malformed)?;
        let known = ["mediaType", "verificationMaterial", "messageSignature", "dsseEnvelope"];
        let message = Message::closed("the bundle", &value, &known).map_err(malformed)?;
        let media_type = message.required_text("mediaType").map_err(malformed)?;
        let version = version(media_type).ok_or_else(|| Rejection::BundleUnsupported {
            what: format!("the media type \"{}\"", clip(media_type)),
        })?;
        let content = content(message)?;
        let value = message.required("verificationMaterial").map_err(malformed)?;
        let known =
            ["certificate", "publicKey", "x509CertificateChain", "tlogEntries", "timestampVerificationData"];
        let message = Message::closed("\"verificationMaterial\"", value, &known).map_err(malformed)?;
        let material = material(message, version).map_err(malformed)?;
        let entries = entries(message)?;
        let timestamps = timestamps(message).map_err(malformed)?;
        Ok(Self { version, material, entries, timestamps, content })
    }
}

fn malformed(detail: impl Into<String>) -> Rejection {
    Rejection::BundleMalformed { detail: detail.into() }
}

fn version(media_type: &str) -> Option<Version> {
    match media_type {
        "application/vnd.dev.sigstore.bundle+json;version=0.1"
        | "application/vnd.dev.sigstore.bundle.v0.1+json" => Some(Version::V01),
        "application/vnd.dev.sigstore.bundle+json;version=0.2"
        | "application/vnd.dev.sigstore.bundle.v0.2+json" => Some(Version::V02),
        "application/vnd.dev.sigstore.bundle+json;version=0.3"
        | "application/vnd.dev.sigstore.bundle.v0.3+json" => Some(Version::V03),
        _ => None,
    }
}

fn content(bundle: Message<'_, '_>) -> Result<Content, Rejection> {
    match (bundle.get("messageSignature"), bundle.get("dsseEnvelope")) {
        (Some(value), None) => message_signature(value),
        (None, Some(value)) => envelope(value).map_err(malformed),
        (Some(_), Some(_)) | (None, None) => {
            Err(malformed("it holds not exactly one of \"messageSignature\" and \"dsseEnvelope\""))
        }
    }
}

fn message_signature(value: &Value<'_>) -> Result<Content, Rejection> {
    let message =
        Message::closed("\"messageSignature\"", value, &["messageDigest", "signature"]).map_err(malformed)?;
    let signature = message.required_bytes("signature").map_err(malformed)?;
    let Some(value) = message.get("messageDigest") else {
        return Ok(Content::Message { digest: None, signature });
    };
    let message = Message::closed("\"messageDigest\"", value, &["algorithm", "digest"]).map_err(malformed)?;
    let algorithm = match message.required_text("algorithm").map_err(malformed)? {
        "SHA2_256" => Algorithm::Sha256,
        "SHA2_384" => Algorithm::Sha384,
        "SHA2_512" => Algorithm::Sha512,
        other => {
            return Err(Rejection::BundleUnsupported {
                what: format!("the hash algorithm \"{}\"", clip(other)),
            });
        }
    };
    let digest = message.required_bytes("digest").map_err(malformed)?;
    Ok(Content::Message { digest: Some((algorithm, digest)), signature })
}

/// Exactly one signature; `keyid` proves nothing and is not read.
fn envelope(value: &Value<'_>) -> Result<Content, String> {
    let message = Message::closed("\"dsseEnvelope\"", value, &["payload", "payloadType", "signatures"])?;
    let [signature] = message.list("signatures")? else {
        return Err("the envelope does not hold exactly one signature".to_owned());
    };
    let signature = Message::closed("the signature", signature, &["sig", "keyid"])?;
    signature.text("keyid")?;
    Ok(Content::Dsse {
        payload_type: message.required_text("payloadType")?.to_owned(),
        payload: message.required_bytes("payload")?,
        signature: signature.required_bytes("sig")?,
    })
}

/// Before version 0.3 a chain, since then one certificate.
fn material(message: Message<'_, '_>, version: Version) -> Result<Material, String> {
    let given = ["certificate", "publicKey", "x509CertificateChain"].map(|key| message.get(key));
    match given {
        [None, Some(value), None] => {
            Message::closed("\"publicKey\"", value, &["hint"])?.text("hint")?;
            Ok(Material::PublicKey)
        }
        [Some(value), None, None] if version == Version::V03 => certificate(value).map(Material::Certificate),
        [None, None, Some(value)] if version != Version::V03 => chain(value).map(Material::Certificate),
        [Some(_), None, None] | [None, None, Some(_)] => {
            Err("its version wants the certificate in another member".to_owned())
        }
        _ => Err("it holds not exactly one certificate, chain or public key".to_owned()),
    }
}

/// The leaf. What follows it is not needed: intermediates stand in the trusted root. A root does not belong here.
fn chain(value: &Value<'_>) -> Result<Vec<u8>, String> {
    let message = Message::closed("\"x509CertificateChain\"", value, &["certificates"])?;
    let list = message.list("certificates")?;
    if list.len() > CERTIFICATES {
        return Err("it holds too many certificates".to_owned());
    }
    let mut certificates = list.iter().map(certificate).collect::<Result<Vec<_>, _>>()?.into_iter();
    let leaf = certificates.next().ok_or("its certificate chain is empty")?;
    if certificates.any(|der| is_self_issued(&der)) {
        return Err("its certificate chain holds a root, or what is no certificate".to_owned());
    }
    Ok(leaf)
}

fn certificate(value: &Value<'_>) -> Result<Vec<u8>, String> {
    let der = Message::closed("the certificate", value, &["rawBytes"])?.required_bytes("rawBytes")?;
    if der.len() > CERTIFICATE_BYTES {
        Err("a certificate is larger than 16 KiB".to_owned())
    } else {
        Ok(der)
    }
}

fn is_self_issued(der: &[u8]) -> bool {
    use x509_cert::der::Decode;
    x509_cert::Certificate::from_der(der)
        .map_or(true, |certificate| certificate.tbs_certificate.issuer == certificate.tbs_certificate.subject)
}

fn entries(material: Message<'_, '_>) -> Result<Vec<Entry>, Rejection> {
    let list = material.list("tlogEntries").map_err(malformed)?;
    if list.len() > LOG_ENTRIES {
        return Err(malformed("it holds more than 32 log entries"));
    }
    let entries = list.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    // An index may be unsigned, a body never is.
    let places: BTreeSet<_> = entries.iter().map(|entry| (&entry.log_id, entry.log_index)).collect();
    let bodies: BTreeSet<_> = entries.iter().map(|entry| (&entry.log_id, &entry.body)).collect();
    if places.len() < entries.len() || bodies.len() < entries.len() {
        return Err(malformed("it holds a log entry twice"));
    }
    Ok(entries)
}

fn entry(value: &Value<'_>) -> Result<Entry, Rejection> {
    let known = [
        "logIndex",
        "logId",
        "kindVersion",
        "integratedTime",
        "inclusionPromise",
        "inclusionProof",
        "canonicalizedBody",
    ];
    let message = Message::closed("a log entry", value, &known).map_err(malformed)?;
    let kind = message.required("kindVersion").map_err(malformed)?;
    let kind = Message::closed("\"kindVersion\"", kind, &["kind", "version"]).map_err(malformed)?;
    let names =
        (kind.required_text("kind").map_err(malformed)?, kind.required_text("version").map_err(malformed)?);
    let kind = [Kind::DsseV001, Kind::HashedrekordV001, Kind::HashedrekordV002, Kind::IntotoV002]
        .into_iter()
        .find(|kind| kind.names() == names)
        .ok_or_else(|| Rejection::BundleUnsupported {
            what: format!("log entries of kind \"{}\", version \"{}\"", clip(names.0), clip(names.1)),
        })?;
    rest_of_entry(message, kind).map_err(malformed)
}

fn rest_of_entry(message: Message<'_, '_>, kind: Kind) -> Result<Entry, String> {
    let id = Message::closed("\"logId\"", message.required("logId")?, &["keyId"])?;
    let set = message
        .get("inclusionPromise")
        .map(|value| {
            Message::closed("\"inclusionPromise\"", value, &["signedEntryTimestamp"])?
                .required_bytes("signedEntryTimestamp")
        })
        .transpose()?;
    // In ProtoJSON 0 and absence are the same.
    let seconds = i64::try_from(message.number("integratedTime")?).unwrap_or(i64::MAX);
    Ok(Entry {
        log_id: id.required_bytes("keyId")?,
        log_index: message.number("logIndex")?,
        kind,
        integrated_time: Some(seconds).filter(|seconds| *seconds != 0),
        set,
        proof: message.get("inclusionProof").map(proof).transpose()?,
        body: message.required_bytes("canonicalizedBody")?,
    })
}

fn proof(value: &Value<'_>) -> Result<Proof, String> {
    let known = ["logIndex", "rootHash", "treeSize", "hashes", "checkpoint"];
    let message = Message::closed("\"inclusionProof\"", value, &known)?;
    let checkpoint = message
        .get("checkpoint")
        .map(|value| Message::closed("\"checkpoint\"", value, &["envelope"])?.text("envelope"))
        .transpose()?
        .flatten();
    let hashes = message.list("hashes")?;
    if hashes.len() > PROOF_HASHES {
        return Err("an inclusion proof holds too many hashes".to_owned());
    }
    let hashes = hashes
        .iter()
        .map(|hash| hash.text().and_then(crate::verify::protojson::decode).filter(|hash| hash.len() == 32))
        .collect::<Option<Vec<_>>>()
        .ok_or("a hash of an inclusion proof is not 32 bytes in base64")?;
    Ok(Proof {
        log_index: message.number("logIndex")?,
        tree_size: message.number("treeSize")?,
        root_hash: message.bytes("rootHash")?.unwrap_or_default(),
        hashes,
        checkpoint: checkpoint.filter(|text| !text.is_empty()).map(str::to_owned),
    })
}

fn timestamps(material: Message<'_, '_>) -> Result<Vec<Vec<u8>>, String> {
    let Some(value) = material.get("timestampVerificationData") else { return Ok(Vec::new()) };
    let message = Message::closed("\"timestampVerificationData\"", value, &["rfc3161Timestamps"])?;
    let list = message.list("rfc3161Timestamps")?;
    if list.len() > TIMESTAMPS {
        return Err("it holds more than 32 timestamps".to_owned());
    }
    list.iter()
        .map(|value| {
            let message = Message::closed("a timestamp", value, &["signedTimestamp"])?;
            let token = message.required_bytes("signedTimestamp")?;
            if token.len() > TOKEN_BYTES {
                Err("a timestamp is larger than 16 KiB".to_owned())
            } else {
                Ok(token)
            }
        })
        .collect()
}
