//! Sigstore bundles, versions 0.1 to 0.3: bytes and trust in, [`Verified`] claim out.
//!
//! Everything that a bundle must prove is checked here (T-14, T-17): its shape, what it is about, the signature, every
//! log entry by its own log, every timestamp by its own authority. The path of a certificate to its authority and what
//! the logs of certificates say is left to sigstore-verify, which then also repeats the rest as a second opinion.
//!
//! That library asks the clock: it passes over keys and authorities that have not begun, and refuses signing times that
//! are still to come. So the clock can turn an acceptance into a refusal, never the reverse (T-19).

mod attachment;
pub(in crate::verify) mod key;
mod log;
mod statement;
mod wire;

use serde_json::{Value as Json, json};
use sigstore_verify::types::{self, Sha256Hash, SignatureBytes, TimestampToken};
use sigstore_verify::{CertificateError, Error, TimestampError, TransparencyLogError, VerificationPolicy};
use x509_cert::der::{Decode, Encode};

use crate::diagnostic::clip;
use crate::digest::{Algorithm, Digest, hex, unhex};
use crate::nonempty::NonEmpty;

use super::hearsay::UntrustedLogEntry;
use super::protojson::encode;
use super::trust::KeyMaterial;
use super::trusted_root::{Authority, TrustedRoot};
use super::{Payload, Rejection, SIGNATURE_BYTES, Timestamp, UntrustedSigstore, Verified};
use key::Key;

pub use statement::NamedSubject;
pub use wire::{BUNDLE_BYTES, LOG_ENTRIES, TIMESTAMPS};

use log::{Signed, Verifier, What};
use statement::{PAYLOAD_TYPE, Statement};
use wire::{Bundle, Content, Kind, Material, Version};

/// Who may have signed.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Holders of certificates by the authorities of a trusted root.
    Certificates {
        /// The trusted root.
        root: &'a TrustedRoot,
        /// What follows from what the root does not list.
        lacking: Lacking,
    },
    /// Holders of these keys.
    Keys {
        /// The keys; all must be usable (rule C-3).
        keys: &'a [&'a KeyMaterial],
        /// If given, a log entry by one of its logs is demanded.
        root: Option<&'a TrustedRoot>,
    },
}

/// Whether proofs may be missing that nobody in the trusted root could give (T-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// No: a root without logs of one kind verifies nothing.
    Refused,
    /// Yes: the requirement names this root itself. A proven time is demanded all the same.
    Waived,
}

/// What was signed.
#[derive(Clone, Copy, Debug)]
pub enum Artifact<'a> {
    /// All of it.
    Bytes(&'a [u8]),
    /// Its SHA-256.
    Sha256(&'a Digest),
}

/// What a verified bundle says, who says it, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleClaim {
    /// What it is about.
    pub subject: Subject,
    /// Who signed.
    pub signer: BundleSigner,
    /// Proven times of the signature, possibly none if a key signed. A certificate was good at each.
    pub times: Vec<Timestamp>,
    /// Proven log entries; none if no log was asked for.
    pub log_entries: Vec<LogEntry>,
}

/// How a bundle names the artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Not at all: its bytes are signed.
    Message,
    /// By its digest, and perhaps by name.
    Statement {
        /// What is said about it.
        predicate_type: String,
        /// All subjects with its digest. Several with different names name none (T-16).
        subjects: NonEmpty<NamedSubject>,
    },
}

/// The key behind a verified bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleSigner {
    /// The holder of a certificate.
    Certificate {
        /// The leaf in DER. Its names have been judged by nobody yet.
        der: Vec<u8>,
        /// SHA-256 of its SubjectPublicKeyInfo.
        spki: Digest,
    },
    /// The holder of one of the keys.
    PublicKey {
        /// SHA-256 of its SubjectPublicKeyInfo.
        spki: Digest,
    },
}

/// A proven log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The name of the log.
    pub log: String,
    /// The index in it, unless nobody signed that.
    pub index: Option<u64>,
}

/// Verifies a bundle as a signature on an image (design decision 5): version 0.3, predicate type of cosign's signatures
/// or, only if `message_signature`, a signature over the manifest itself (T-17).
///
/// A bundle never makes another digest than the given one count (T-11).
pub fn verify_manifest(
    bundle: &[u8],
    manifest: &[u8],
    digest: &Digest,
    trust: Trust<'_>,
    message_signature: bool,
) -> Result<Verified<BundleClaim>, Rejection> {
    let found = Digest::compute(digest.algorithm(), manifest);
    if found != *digest {
        return Err(Rejection::DigestMismatch { wanted: digest.clone(), found });
    }
    let bundle = Bundle::parse(bundle)?;
    if bundle.version < Version::V03 {
        return Err(Rejection::BundleUnsupported { what: "a version before 0.3".to_owned() });
    }
    let sha256 = match found.algorithm() {
        Algorithm::Sha256 => found,
        Algorithm::Sha384 | Algorithm::Sha512 => Digest::sha256(manifest),
    };
    let artifact = Known { sha256, bytes: Some(manifest) };
    let subject = bundle.content.subject(&artifact)?;
    match &subject {
        ReadSubject::Message if !message_signature => {
            return Err(Rejection::NotASignature { what: "message signature".to_owned() });
        }
        ReadSubject::Message => {}
        ReadSubject::Statement(statement) => statement.check_sign()?,
    }
    verify(&bundle, subject, &artifact, trust)
}

/// Verifies an attachment of cosign 2 with a certificate, by a trusted root; what it says of which image is returned.
///
/// The payload is hashed as the key does, which for keys of P-384 is not what the reference does (rule C-4).
pub fn verify_attachment(
    layer: &UntrustedSigstore,
    root: &TrustedRoot,
    lacking: Lacking,
) -> Result<(Verified<BundleClaim>, Payload), Rejection> {
    if layer.payload.len() > SIGNATURE_BYTES {
        return Err(Rejection::MalformedSignature { detail: "the payload is larger than 4 MiB" });
    }
    let bundle = attachment::bundle(layer)?;
    let trust = Trust::Certificates { root, lacking };
    let claim = verify_blob(&bundle, Artifact::Bytes(&layer.payload), trust)?;
    Ok((claim, Payload::parse_cosign(&layer.payload)?))
}

/// Verifies a bundle about any artifact: a message signature, or any in-toto statement.
pub fn verify_blob(
    bundle: &[u8],
    artifact: Artifact<'_>,
    trust: Trust<'_>,
) -> Result<Verified<BundleClaim>, Rejection> {
    let bundle = Bundle::parse(bundle)?;
    let artifact = match artifact {
        Artifact::Bytes(bytes) => Known { sha256: Digest::sha256(bytes), bytes: Some(bytes) },
        Artifact::Sha256(digest) if digest.algorithm() == Algorithm::Sha256 => {
            Known { sha256: digest.clone(), bytes: None }
        }
        Artifact::Sha256(_) => return Err(unsupported("an artifact of which only another digest is known")),
    };
    let subject = bundle.content.subject(&artifact)?;
    verify(&bundle, subject, &artifact, trust)
}

/// What a bundle says of itself: nothing about it has been verified.
pub(in crate::verify) struct Unverified {
    /// The certificate in DER.
    pub(in crate::verify) leaf: Option<Vec<u8>>,
    /// The payload of its envelope.
    pub(in crate::verify) statement: Option<Vec<u8>>,
    pub(in crate::verify) entries: Vec<UntrustedLogEntry>,
}

/// Reads a bundle, if it has the shape of one.
pub(in crate::verify) fn unverified(bundle: &[u8]) -> Option<Unverified> {
    let Bundle { material, entries, content, .. } = Bundle::parse(bundle).ok()?;
    let leaf = match material {
        Material::Certificate(der) => Some(der),
        Material::PublicKey => None,
    };
    let statement = match content {
        Content::Dsse { payload, .. } => Some(payload),
        Content::Message { .. } => None,
    };
    let entry = |entry: wire::Entry| UntrustedLogEntry {
        log_id: clip(&hex(&entry.log_id)),
        index: entry.log_index,
        time: entry.integrated_time.map(Timestamp),
    };
    Some(Unverified { leaf, statement, entries: entries.into_iter().map(entry).collect() })
}

/// Whether a bundle names its signer by a certificate, and not by a key.
pub fn has_certificate(bundle: &[u8]) -> Result<bool, Rejection> {
    match Bundle::parse(bundle)?.material {
        Material::Certificate(_) => Ok(true),
        Material::PublicKey => Ok(false),
    }
}

/// The log entry in an annotation of cosign 2, as it says.
pub(in crate::verify) fn unverified_entry(set: &str) -> Option<UntrustedLogEntry> {
    attachment::unverified_entry(set)
}

/// What is known of the artifact.
struct Known<'a> {
    sha256: Digest,
    bytes: Option<&'a [u8]>,
}

/// What the content of a bundle turned out to be about.
enum ReadSubject {
    Message,
    Statement(Statement),
}

impl Content {
    /// The bundle says that it is about the artifact. Whether that is signed is asked later.
    fn subject(&self, artifact: &Known<'_>) -> Result<ReadSubject, Rejection> {
        match self {
            Self::Dsse { payload_type, payload, .. } if payload_type == PAYLOAD_TYPE => {
                Statement::parse(payload, &artifact.sha256).map(ReadSubject::Statement)
            }
            Self::Dsse { payload_type, .. } => Err(Rejection::NotASignature { what: clip(payload_type) }),
            Self::Message { digest: None, .. } => Ok(ReadSubject::Message),
            Self::Message { digest: Some((algorithm, value)), .. } => {
                let found = match artifact.bytes {
                    Some(bytes) => Digest::compute(*algorithm, bytes),
                    None if *algorithm == Algorithm::Sha256 => artifact.sha256.clone(),
                    None => return Err(unsupported("another hash than SHA-256, where only that is known")),
                };
                if hex(value) == found.hex() {
                    Ok(ReadSubject::Message)
                } else {
                    Err(Rejection::BundleSubject { wanted: artifact.sha256.clone() })
                }
            }
        }
    }
}

fn verify(
    bundle: &Bundle,
    subject: ReadSubject,
    artifact: &Known<'_>,
    trust: Trust<'_>,
) -> Result<Verified<BundleClaim>, Rejection> {
    let pae = match &bundle.content {
        Content::Dsse { payload_type, payload, .. } => pre_authentication_encoding(payload_type, payload),
        Content::Message { .. } => Vec::new(),
    };
    let what = match &bundle.content {
        Content::Dsse { payload_type, payload, .. } => What::Envelope { payload_type, payload, pae: &pae },
        Content::Message { .. } => What::Artifact { sha256: artifact.sha256.clone(), bytes: artifact.bytes },
    };
    let signature = bundle.content.signature();
    let (signer, times, log_entries) = match (trust, &bundle.material) {
        (Trust::Certificates { root, lacking }, Material::Certificate(leaf)) => {
            let key = key_of_certificate(leaf)?;
            check_signature(&key, &what, signature)?;
            let signed = Signed { what, signature, verifier: Verifier::Certificate(leaf) };
            let waived = lacking == Lacking::Waived;
            let proven = if waived && !root.has_logs() {
                Proven { times: timestamps(bundle, root)?, log_entries: Vec::new() }
            } else {
                prove(bundle, root, &signed)?
            };
            if proven.times.is_empty() {
                return Err(Rejection::TimestampMissing);
            }
            check_certificate(bundle, leaf, artifact, root, waived, &proven.times)?;
            let signer = BundleSigner::Certificate { der: leaf.clone(), spki: key.spki().clone() };
            (signer, proven.times, proven.log_entries)
        }
        (Trust::Keys { keys, root }, Material::PublicKey) => {
            let key = signing_key(keys, &what, signature)?;
            let signed = Signed { what, signature, verifier: Verifier::PublicKey(key.der()) };
            let proven = match root {
                Some(root) => prove(bundle, root, &signed)?,
                None => Proven { times: Vec::new(), log_entries: Vec::new() },
            };
            (BundleSigner::PublicKey { spki: key.spki().clone() }, proven.times, proven.log_entries)
        }
        (Trust::Certificates { .. }, Material::PublicKey) => {
            return Err(Rejection::BundleSigner { wanted_certificate: true });
        }
        (Trust::Keys { .. }, Material::Certificate(_)) => {
            return Err(Rejection::BundleSigner { wanted_certificate: false });
        }
    };
    let subject = match subject {
        ReadSubject::Message => Subject::Message,
        ReadSubject::Statement(Statement { predicate_type, subjects, .. }) => {
            Subject::Statement { predicate_type, subjects }
        }
    };
    let times = times.into_iter().map(Timestamp).collect();
    Ok(Verified::assert(BundleClaim { subject, signer, times, log_entries }))
}

/// DSSE, protocol.md, "Signature Definition".
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn key_of_certificate(der: &[u8]) -> Result<Key, Rejection> {
    let bad = |detail: &str| Rejection::BundleCertificate { detail: detail.to_owned() };
    let certificate = x509_cert::Certificate::from_der(der).map_err(|_| bad("it is malformed"))?;
    let spki =
        certificate.tbs_certificate.subject_public_key_info.to_der().map_err(|_| bad("it is malformed"))?;
    Key::from_spki(&spki).ok_or_else(|| bad("its key cannot be used"))
}

/// Which of the keys signed; the first, if several are the same.
fn signing_key(keys: &[&KeyMaterial], what: &What<'_>, signature: &[u8]) -> Result<Key, Rejection> {
    let mut usable = Vec::with_capacity(keys.len());
    for material in keys {
        let invalid = |detail| Rejection::KeyFileInvalid { source: material.source().to_owned(), detail };
        let key = material.public_key().map_err(|error| invalid(error.detail()))?;
        usable.push(Key::from_public_key(key).ok_or_else(|| invalid("its algorithm cannot be used"))?);
    }
    let mut last = Rejection::BundleSignature;
    for key in usable {
        match check_signature(&key, what, signature) {
            Ok(()) => return Ok(key),
            // That one key could not be tried says more than that the others did not sign.
            Err(rejection @ Rejection::BundleUnsupported { .. }) => last = rejection,
            Err(_) => {}
        }
    }
    Err(last)
}

fn check_signature(key: &Key, what: &What<'_>, signature: &[u8]) -> Result<(), Rejection> {
    let good = match what {
        What::Envelope { pae, .. } => key.verifies(pae, signature),
        What::Artifact { bytes: Some(bytes), .. } => key.verifies(bytes, signature),
        What::Artifact { sha256, bytes: None } => {
            let value = unhex(sha256.hex());
            key.verifies_sha256(&value, signature)
                .ok_or_else(|| unsupported("a key that signs no SHA-256, where only that is known"))?
        }
    };
    if good { Ok(()) } else { Err(Rejection::BundleSignature) }
}

/// What logs and timestamp authorities prove.
struct Proven {
    times: Vec<i64>,
    log_entries: Vec<LogEntry>,
}

/// Every log entry is proven by its own log and is about this signature, and there is at least one (T-14).
fn prove(bundle: &Bundle, root: &TrustedRoot, signed: &Signed<'_>) -> Result<Proven, Rejection> {
    if bundle.entries.is_empty() {
        return Err(Rejection::LogEntryMissing);
    }
    let mut log_entries = Vec::with_capacity(bundle.entries.len());
    let mut times = Vec::new();
    let mut without_time = Vec::new();
    for entry in &bundle.entries {
        let unknown = || log::invalid(entry, "the trusted root does not list its log");
        let log = root.log(&entry.log_id).ok_or_else(unknown)?;
        log::check_body(entry, signed)?;
        let proof = entry.proof.as_ref().and_then(|proof| Some((proof, proof.checkpoint.as_deref()?)));
        match (entry.kind, bundle.version, &entry.set, proof) {
            (Kind::HashedrekordV002, _, Some(_), _) => {
                return Err(log::invalid(entry, "Rekor v2 promises nothing, but it holds a promise"));
            }
            (Kind::HashedrekordV002, _, None, None) | (_, Version::V02 | Version::V03, _, None) => {
                return Err(log::invalid(entry, "it has no inclusion proof with a checkpoint"));
            }
            (_, Version::V01, None, _) => {
                return Err(log::invalid(entry, "it has no signed entry timestamp"));
            }
            (
                Kind::DsseV001 | Kind::HashedrekordV001 | Kind::HashedrekordV002 | Kind::IntotoV002,
                Version::V01 | Version::V02 | Version::V03,
                _,
                _,
            ) => {}
        }
        if let Some((proof, checkpoint)) = proof {
            log::check_proof(log, entry, proof, checkpoint)?;
        }
        match &entry.set {
            Some(set) => {
                let time = log::check_set(log, entry, set)?;
                log::check_key_time(log, entry, &[time])?;
                times.push(time);
            }
            None => without_time.push((log, entry)),
        }
        log_entries.push(LogEntry { log: log.origin.clone(), index: entry.signed_index() });
    }
    times.extend(timestamps(bundle, root)?);
    // A proof tells no time, so the key must have been in use at all that are known.
    without_time.into_iter().try_for_each(|(log, entry)| log::check_key_time(log, entry, &times))?;
    Ok(Proven { times, log_entries })
}

/// The times of all timestamps, each by an authority of the root, no two by the same.
///
/// Where the root lists no authority, nobody can say anything about them, and they count for nothing.
fn timestamps(bundle: &Bundle, root: &TrustedRoot) -> Result<Vec<i64>, Rejection> {
    let mut times = Vec::new();
    let mut used = Vec::new();
    if !root.has_timestamp_authorities() {
        return Ok(times);
    }
    let signature = SignatureBytes::new(bundle.content.signature().to_vec());
    for token in &bundle.timestamps {
        let token = TimestampToken::new(token.clone());
        let mut detail = "no authority of the trusted root made it".to_owned();
        let mut found = None;
        for (index, authority) in root.timestamp_authorities.iter().enumerate() {
            match sigstore_verify::tsa::verify_timestamp_for_authority(&token, &signature, authority) {
                Ok(time) => {
                    found = Some((index, time.as_second()));
                    break;
                }
                Err(error) => detail = clip(&error.to_string()),
            }
        }
        let (index, time) = found.ok_or(Rejection::TimestampInvalid { detail })?;
        if used.contains(&index) {
            let detail = "its authority made another for the same signature".to_owned();
            return Err(Rejection::TimestampInvalid { detail });
        }
        used.push(index);
        times.push(time);
    }
    Ok(times)
}

/// The certificate leads to an authority that was in use at every proven time, all certificates on the way were valid
/// then, and a log of certificates vouches for it.
fn check_certificate(
    bundle: &Bundle,
    leaf: &[u8],
    artifact: &Known<'_>,
    root: &TrustedRoot,
    waived: bool,
    times: &[i64],
) -> Result<(), Rejection> {
    let mut policy = VerificationPolicy::any_identity();
    if !root.has_ct_logs() {
        if !waived {
            let detail = "the trusted root lists no log of certificates".to_owned();
            return Err(Rejection::SctInvalid { detail });
        }
        policy = policy.skip_sct();
    }
    if !root.has_logs() {
        policy = policy.skip_tlog_unsafe();
    }
    let mut last = Rejection::BundleCertificate {
        detail: "the trusted root lists no authority that was in use at the time of signing".to_owned(),
    };
    for authority in &root.authorities {
        if !times.iter().all(|time| authority.window.holds(*time)) {
            continue;
        }
        match second_opinion(bundle, leaf, artifact, root, authority, &policy) {
            Ok(()) => return Ok(()),
            Err(rejection) => last = rejection,
        }
    }
    Err(last)
}

/// What sigstore-verify says, which gets a bundle rebuilt from what was understood here, so that there is nothing that
/// the two could understand differently.
fn second_opinion(
    bundle: &Bundle,
    leaf: &[u8],
    artifact: &Known<'_>,
    root: &TrustedRoot,
    authority: &Authority,
    policy: &VerificationPolicy,
) -> Result<(), Rejection> {
    let rebuilt = types::Bundle::from_json(&rebuild(bundle, leaf, root, authority).to_string())
        .map_err(|error| Rejection::BundleMalformed { detail: clip(&error.to_string()) })?;
    let result = match artifact.bytes {
        Some(bytes) => authority.verifier.verify(bytes, &rebuilt, policy),
        None => {
            let value = Sha256Hash::from_hex(artifact.sha256.hex())
                .map_err(|error| Rejection::BundleMalformed { detail: clip(&error.to_string()) })?;
            authority.verifier.verify(value, &rebuilt, policy)
        }
    };
    let result = result.map_err(|error| rejection(error, &artifact.sha256))?;
    // What was asked for must have been done.
    if result.certificate_verified()
        && (result.sct_verified() || !root.has_ct_logs())
        && (result.tlog_verified() || !root.has_logs())
    {
        Ok(())
    } else {
        Err(Rejection::BundleCertificate { detail: "it was not verified".to_owned() })
    }
}

fn rebuild(bundle: &Bundle, leaf: &[u8], root: &TrustedRoot, authority: &Authority) -> Json {
    let media_type = match bundle.version {
        Version::V01 => "application/vnd.dev.sigstore.bundle+json;version=0.1",
        Version::V02 | Version::V03 => "application/vnd.dev.sigstore.bundle+json;version=0.2",
    };
    let chain: Vec<Json> = std::iter::once(leaf)
        .chain(authority.intermediates.iter().map(Vec::as_slice))
        .map(|der| json!({ "rawBytes": encode(der) }))
        .collect();
    let entries: Vec<Json> =
        if root.has_logs() { bundle.entries.iter().map(rebuild_entry).collect() } else { Vec::new() };
    let timestamps: Vec<Json> = if root.has_timestamp_authorities() {
        bundle.timestamps.iter().map(|token| json!({ "signedTimestamp": encode(token) })).collect()
    } else {
        Vec::new()
    };
    let material = json!({
        "x509CertificateChain": { "certificates": chain },
        "tlogEntries": entries,
        "timestampVerificationData": { "rfc3161Timestamps": timestamps },
    });
    match &bundle.content {
        Content::Dsse { payload_type, payload, signature } => json!({
            "mediaType": media_type,
            "verificationMaterial": material,
            "dsseEnvelope": {
                "payloadType": payload_type,
                "payload": encode(payload),
                "signatures": [{ "sig": encode(signature), "keyid": "" }],
            },
        }),
        Content::Message { signature, .. } => json!({
            "mediaType": media_type,
            "verificationMaterial": material,
            "messageSignature": { "signature": encode(signature) },
        }),
    }
}

fn rebuild_entry(entry: &wire::Entry) -> Json {
    let (kind, version) = entry.kind.names();
    let mut rebuilt = json!({
        "logIndex": entry.log_index.to_string(),
        "logId": { "keyId": encode(&entry.log_id) },
        "kindVersion": { "kind": kind, "version": version },
        "canonicalizedBody": encode(&entry.body),
    });
    let Some(members) = rebuilt.as_object_mut() else { return rebuilt };
    // A time counts only with what proves it.
    if let (Some(set), Some(time)) = (&entry.set, entry.integrated_time) {
        members.insert("integratedTime".to_owned(), json!(time.to_string()));
        members.insert("inclusionPromise".to_owned(), json!({ "signedEntryTimestamp": encode(set) }));
    }
    if let Some((proof, checkpoint)) = entry.proof.as_ref().and_then(|p| Some((p, p.checkpoint.as_ref()?))) {
        let hashes: Vec<String> = proof.hashes.iter().map(|hash| encode(hash)).collect();
        // Rekor v2 may leave this out, and the library takes it from the checkpoint then, but wants something here.
        let root_hash = if proof.root_hash.is_empty() { vec![0; 32] } else { proof.root_hash.clone() };
        let proof = json!({
            "logIndex": proof.log_index.to_string(),
            "rootHash": encode(&root_hash),
            "treeSize": proof.tree_size.to_string(),
            "hashes": hashes,
            "checkpoint": { "envelope": checkpoint },
        });
        members.insert("inclusionProof".to_owned(), proof);
    }
    rebuilt
}

/// An error of sigstore-verify in our words.
fn rejection(error: Error, artifact: &Digest) -> Rejection {
    let detail = clip(&error.to_string());
    match error {
        Error::Certificate(CertificateError::Sct(detail)) | Error::InvalidTrustRoot(detail) => {
            Rejection::SctInvalid { detail: clip(&detail) }
        }
        Error::SignatureInvalid(_) => Rejection::BundleSignature,
        Error::ArtifactMismatch(_) => Rejection::BundleSubject { wanted: artifact.clone() },
        Error::Timestamp(TimestampError::NoVerifiedTimestamp(_)) => Rejection::TimestampMissing,
        Error::Timestamp(_) => Rejection::TimestampInvalid { detail },
        Error::TransparencyLog(TransparencyLogError::IntegratedTime(detail)) => {
            Rejection::BundleCertificate { detail: clip(&detail) }
        }
        Error::TransparencyLog(_) => Rejection::LogEntryInvalid { detail },
        Error::InvalidBundle(_) | Error::Types(_) | Error::Bundle(_) => Rejection::BundleMalformed { detail },
        Error::UnsupportedBundle(what) | Error::UnsupportedArtifact(what) => {
            Rejection::BundleUnsupported { what: clip(&what) }
        }
        Error::Crypto(_) => Rejection::BundleUnsupported { what: detail },
        Error::Certificate(_)
        | Error::IdentityMismatch { .. }
        | Error::IssuerMismatch { .. }
        | Error::TrustRoot(_)
        | Error::TrustedCertificate(_)
        | Error::ArtifactRead(_)
        | _ => Rejection::BundleCertificate { detail },
    }
}

fn unsupported(what: &str) -> Rejection {
    Rejection::BundleUnsupported { what: what.to_owned() }
}
