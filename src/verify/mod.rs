//! Cryptography and payloads: bytes, keys and a time in; [`Verified`] or [`Rejection`] out.
//!
//! Nothing here knows policy.json, opens a file, or asks the time.

pub mod bundle;
mod canonical;
mod certificate;
mod facts;
mod fulcio;
pub mod hearsay;
pub mod identity;
pub mod key;
mod names;
pub mod openpgp;
mod path;
pub mod payload;
mod pem;
mod pki;
mod protojson;
mod rekor;
#[cfg(test)]
mod samples;
pub mod sigstore;
pub mod trust;
pub mod trusted_root;
pub mod tuf;

use std::collections::BTreeMap;
use std::fmt;

use crate::diagnostic::{Code, escape};
use crate::digest::Digest;
use crate::json::{self, Limits};

use identity::{Extension, Malformed, Part};
use trusted_root::TrustedRootError;

pub use payload::Payload;

/// Largest signature blob or payload: 4 MiB, as the reference allows over HTTP (rules K-6, A-5).
pub const SIGNATURE_BYTES: usize = 4 << 20;

/// How much a payload or stored signature may say: 64 levels (design decision 6), and so many values that the tree
/// takes at most some 10 MiB (T-28). Real ones nest three levels and have ten values.
pub const PAYLOAD: Limits = Limits { depth: 64, values: 100_000 };

/// Most annotations of one signature: 128 (T-28). cosign writes at most six.
pub const ANNOTATIONS: usize = 128;

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.div_euclid(86_400);
        let second = self.0.rem_euclid(86_400);
        // Days to a date of the proleptic Gregorian calendar, in years that begin in March.
        let shifted = days.saturating_add(719_468);
        let era = shifted.div_euclid(146_097);
        let day = shifted.rem_euclid(146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day_of_year + 2) / 153;
        let (date, month) =
            (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
        let year = year + era.saturating_mul(400) + i64::from(month <= 2);
        let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{date:02}T{h:02}:{m:02}:{s:02}Z")
    }
}

/// A signature as a store gave it: nothing about it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UntrustedSignature {
    /// An OpenPGP message around a simple-signing payload.
    SimpleSigning(Vec<u8>),
    /// A payload with annotations, as cosign stores it.
    Sigstore(UntrustedSigstore),
    /// A Sigstore bundle, as cosign 3 stores it.
    Bundle(Vec<u8>),
}

/// A layer of a sigstore attachment manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntrustedSigstore {
    /// Media type of the layer.
    pub mime_type: String,
    /// The layer.
    pub payload: Vec<u8>,
    /// The layer's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Why a stored blob is no signature of any format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedBlob {
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// The name between the NUL and the line end is not known.
    #[error("it begins with NUL but names no known signature format")]
    Format,
    /// The sigstore-json body is not what it must be.
    #[error("its sigstore-json body is malformed")]
    Json,
    /// The first byte begins no OpenPGP message.
    #[error("its first byte begins no binary OpenPGP message")]
    NotOpenPgp,
}

impl UntrustedSignature {
    /// Reads a stored blob (rules B-1 to B-4).
    pub fn from_blob(blob: &[u8]) -> Result<Self, MalformedBlob> {
        match blob.first() {
            None => Err(MalformedBlob::Empty),
            Some(0) => Self::from_framed(blob.get(1..).unwrap_or_default()),
            // Rule B-3, which lists 0x3D where 0x93 was meant.
            Some(0x88..=0x8b | 0x90..=0x92 | 0xa0..=0xa3 | 0xc2 | 0xc4 | 0xc8 | 0x3d) => {
                Ok(Self::SimpleSigning(blob.to_vec()))
            }
            Some(_) => Err(MalformedBlob::NotOpenPgp),
        }
    }

    /// `format\nbody`, with the leading NUL taken off.
    fn from_framed(rest: &[u8]) -> Result<Self, MalformedBlob> {
        let end = rest.iter().position(|b| *b == b'\n').ok_or(MalformedBlob::Format)?;
        let (name, body) = rest.split_at(end);
        let body = body.get(1..).unwrap_or_default();
        match name {
            b"simple-signing" => Ok(Self::SimpleSigning(body.to_vec())),
            b"sigstore-json" => Self::from_sigstore_json(body),
            _ => Err(MalformedBlob::Format),
        }
    }

    /// Rule B-4, as Go's decoder reads it: names in any case, the last member wins, unknown ones are ignored, and null
    /// is nothing.
    fn from_sigstore_json(body: &[u8]) -> Result<Self, MalformedBlob> {
        let value = json::parse(body, PAYLOAD).map_err(|_| MalformedBlob::Json)?;
        let mut signature =
            UntrustedSigstore { mime_type: String::new(), payload: Vec::new(), annotations: BTreeMap::new() };
        let members = if value.is_null() { &[] } else { value.members().ok_or(MalformedBlob::Json)? };
        for member in members {
            let (key, value) = (&member.key, &member.value);
            if json::folds(key, "mimeType") && !value.is_null() {
                value.text().ok_or(MalformedBlob::Json)?.clone_into(&mut signature.mime_type);
            } else if json::folds(key, "payload") {
                signature.payload = value.bytes().ok_or(MalformedBlob::Json)?;
            } else if json::folds(key, "annotations") && value.is_null() {
                signature.annotations.clear();
            } else if json::folds(key, "annotations") {
                for entry in value.members().ok_or(MalformedBlob::Json)? {
                    let text = if entry.value.is_null() {
                        ""
                    } else {
                        entry.value.text().ok_or(MalformedBlob::Json)?
                    };
                    signature.annotations.insert(entry.key.clone().into_owned(), text.to_owned());
                }
                if signature.annotations.len() > ANNOTATIONS {
                    return Err(MalformedBlob::Json);
                }
            }
        }
        Ok(Self::Sigstore(signature))
    }
}

/// A value whose signature has been verified; only this module and those below it can make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Asserts that everything about `value` has been verified.
    pub(in crate::verify) fn assert(value: T) -> Self {
        Self(value)
    }

    /// The value.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// What a verified signature says, and who says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The signed statement. It may be about another image.
    pub payload: Payload,
    /// Who signed.
    pub signer: Signer,
    /// When, as the signer says, if the format tells.
    pub time: Option<Timestamp>,
}

/// The key behind a verified signature, or the name that a certificate gives its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The holder of a certificate.
    Certificate {
        /// SHA-256 of its key's SubjectPublicKeyInfo.
        spki: Digest,
        /// Who vouches for the name: the OIDC issuer that Fulcio recorded, or the name of the authority.
        issuer: String,
        /// The name in it that the policy asks for.
        subject: String,
    },
    /// An OpenPGP certificate.
    OpenPgp {
        /// Fingerprint of the primary key, upper-case hexadecimal.
        fingerprint: String,
    },
    /// A bare public key.
    PublicKey {
        /// SHA-256 of its SubjectPublicKeyInfo.
        spki: Digest,
    },
}

/// Why a signature, or an image, does not satisfy a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The manifest does not have an annotation as the requirement wants it (T-16).
    AnnotationMismatch {
        /// The annotation.
        name: String,
        /// The value that the requirement wants.
        wanted: String,
        /// The value in the manifest, if there is one.
        found: Option<String>,
    },
    /// No signature was found, and registries.d keeps attachments from being looked for.
    AttachmentsDisabled,
    /// The signature does not verify.
    BadSignature,
    /// The certificate of a Sigstore bundle is not one to trust at the time of signing.
    BundleCertificate {
        /// What is wrong with it.
        detail: String,
    },
    /// A Sigstore bundle is not what its format demands.
    BundleMalformed {
        /// What is wrong with it.
        detail: String,
    },
    /// The signature in a Sigstore bundle does not verify.
    BundleSignature,
    /// A Sigstore bundle is signed with a key where a certificate is wanted, or the reverse.
    BundleSigner {
        /// Whether a certificate is wanted.
        wanted_certificate: bool,
    },
    /// A Sigstore bundle is about something else.
    BundleSubject {
        /// The SHA-256 of what was to be verified.
        wanted: Digest,
    },
    /// A Sigstore bundle uses something that does not count here.
    BundleUnsupported {
        /// What it uses.
        what: String,
    },
    /// The manifest is not the one that was signed, or asked for.
    DigestMismatch {
        /// The digest that was signed or asked for.
        wanted: Digest,
        /// The digest of the manifest.
        found: Digest,
    },
    /// The certificate says nothing about something that the requirement wants to know.
    IdentityExtensionMissing {
        /// What it lacks.
        extension: Extension,
        /// What the policy wants it to be, in words.
        wanted: String,
    },
    /// The workflow that signed is a reusable one, and another repository called it (T-12).
    IdentityForeignCaller {
        /// The repository that called it, if the certificate says.
        caller: Option<String>,
        /// The workflow.
        workflow: String,
    },
    /// The repository is right, and it let a workflow of another one sign.
    IdentityForeignWorkflow {
        /// The repository.
        repository: String,
        /// The workflow.
        workflow: String,
    },
    /// The certificate contradicts itself.
    IdentityInconsistent {
        /// What it says.
        one: (Extension, String),
        /// What that does not agree with, in words.
        other: String,
    },
    /// The certificate does not say clearly whose it is.
    IdentityMalformed(Malformed),
    /// The signature names another image.
    IdentityMismatch {
        /// The name that was signed.
        signed: String,
        /// What the policy wants, in words.
        wanted: String,
    },
    /// The signature names no image, and the policy wants a name (T-16).
    IdentityNotSigned {
        /// What the policy wants, in words.
        wanted: String,
    },
    /// The signing key has expired.
    KeyExpired {
        /// Fingerprint or key ID.
        key: String,
    },
    /// What the policy gives as a key is none.
    KeyFileInvalid {
        /// The file, or the member that holds the key.
        source: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The signing key has been revoked.
    KeyRevoked {
        /// Fingerprint or key ID.
        key: String,
    },
    /// The policy does not accept the signing key.
    KeyUnknown {
        /// Fingerprint or key ID, if the signature names one.
        key: Option<String>,
    },
    /// The key may not sign.
    KeyUnusable {
        /// Fingerprint or key ID.
        key: String,
        /// Why not.
        detail: &'static str,
    },
    /// A log entry does not prove what it should.
    LogEntryInvalid {
        /// What is wrong with it.
        detail: String,
    },
    /// A log entry is about another signature.
    LogEntryMismatch {
        /// Its index.
        index: u64,
        /// What differs.
        what: &'static str,
    },
    /// No log entry, where one is demanded.
    LogEntryMissing,
    /// The signed payload is not what its format demands.
    MalformedPayload {
        /// What is wrong with it.
        detail: String,
    },
    /// The signature is not what its format demands.
    MalformedSignature {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The manifest can be read in more than one way, or it has no digest, because its embedded signatures cannot be
    /// read (rule E-22).
    ManifestInvalid,
    /// What is signed says something about the image, but is not a signature on it.
    NotASignature {
        /// What it is: a type of predicate or payload.
        what: String,
    },
    /// A `reject` requirement.
    RejectedByPolicy,
    /// The log of certificates does not vouch for the certificate.
    SctInvalid {
        /// What is wrong.
        detail: String,
    },
    /// The signature has expired.
    SignatureExpired,
    /// The signature itself does not have an annotation as it is wanted.
    SignedAnnotationMismatch {
        /// The annotation.
        name: String,
        /// The value that is wanted.
        wanted: String,
        /// The value in the signature, if there is one.
        found: Option<String>,
    },
    /// The policy accepts the image without a signature, and the caller asked for one.
    SignatureRequired,
    /// The certificate is for another signer than the policy wants.
    SignerMismatch {
        /// In what they differ.
        part: Part,
        /// What the policy wants, in words.
        wanted: String,
        /// What the certificate says.
        found: String,
    },
    /// A timestamp does not prove a time.
    TimestampInvalid {
        /// What is wrong with it.
        detail: String,
    },
    /// No proven time, where one is demanded.
    TimestampMissing,
    /// The trusted root that the policy names cannot be used.
    TrustedRootInvalid {
        /// The file, or the member that holds it.
        source: String,
        /// What is wrong with it.
        error: TrustedRootError,
    },
    /// The trusted root is older than the policy allows.
    TrustedRootStale {
        /// Where it is from.
        source: String,
        /// Until when it was known to be current, if that is known.
        current_until: Option<Timestamp>,
    },
    /// The signing certificate was not valid when it counts.
    SigningCertificateExpired {
        /// When that is.
        time: Timestamp,
        /// Valid from then on.
        not_before: Timestamp,
        /// Valid until then.
        not_after: Timestamp,
    },
    /// The signing certificate, or one that came with it, cannot be read.
    SigningCertificateInvalid {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The requirement wants a certificate, and the signature has none.
    SigningCertificateMissing,
    /// The signing certificate does not lead to an authority of the requirement, or not for this purpose.
    SigningCertificateUntrusted {
        /// Why not.
        detail: &'static str,
    },
    /// No signature that this requirement could use.
    Unsigned {
        /// Signatures of another format that were passed over.
        other_format: usize,
        /// Sigstore attachments that are no signatures.
        other_type: usize,
    },
    /// This version cannot check what the requirement asks for.
    Unsupported {
        /// What it asks for.
        what: &'static str,
    },
    /// The algorithm is too weak.
    WeakAlgorithm {
        /// Its name.
        algorithm: String,
    },
}

impl Rejection {
    /// The stable name of the cause.
    pub fn code(&self) -> Code {
        match self {
            Self::AnnotationMismatch { .. } => Code::AnnotationMismatch,
            Self::AttachmentsDisabled => Code::AttachmentsDisabled,
            Self::BadSignature => Code::BadSignature,
            Self::BundleCertificate { .. } => Code::BundleCertificate,
            Self::BundleMalformed { .. } => Code::BundleMalformed,
            Self::BundleSignature => Code::BundleSignature,
            Self::BundleSigner { .. } => Code::BundleSigner,
            Self::BundleSubject { .. } => Code::BundleSubject,
            Self::BundleUnsupported { .. } => Code::BundleUnsupported,
            Self::DigestMismatch { .. } => Code::DigestMismatch,
            Self::IdentityExtensionMissing { .. } => Code::IdentityExtensionMissing,
            Self::IdentityForeignCaller { .. } => Code::IdentityForeignCaller,
            Self::IdentityForeignWorkflow { .. } => Code::IdentityForeignWorkflow,
            Self::IdentityInconsistent { .. } => Code::IdentityInconsistent,
            Self::IdentityMalformed(_) => Code::IdentityMalformed,
            Self::IdentityMismatch { .. } => Code::IdentityMismatch,
            Self::IdentityNotSigned { .. } => Code::IdentityNotSigned,
            Self::KeyExpired { .. } => Code::KeyExpired,
            Self::KeyFileInvalid { .. } => Code::KeyFileInvalid,
            Self::KeyRevoked { .. } => Code::KeyRevoked,
            Self::KeyUnknown { .. } => Code::KeyUnknown,
            Self::KeyUnusable { .. } => Code::KeyUnusable,
            Self::LogEntryInvalid { .. } => Code::LogEntryInvalid,
            Self::LogEntryMismatch { .. } => Code::LogEntryMismatch,
            Self::LogEntryMissing => Code::LogEntryMissing,
            Self::MalformedPayload { .. } => Code::MalformedPayload,
            Self::MalformedSignature { .. } => Code::MalformedSignature,
            Self::ManifestInvalid => Code::ManifestInvalid,
            Self::NotASignature { .. } => Code::NotASignature,
            Self::RejectedByPolicy => Code::RejectedByPolicy,
            Self::SctInvalid { .. } => Code::SctInvalid,
            Self::SignatureExpired => Code::SignatureExpired,
            Self::SignedAnnotationMismatch { .. } => Code::SignedAnnotationMismatch,
            Self::SignatureRequired => Code::SignatureRequired,
            Self::SignerMismatch { part, .. } => part.code(),
            Self::TimestampInvalid { .. } => Code::TimestampInvalid,
            Self::TimestampMissing => Code::TimestampMissing,
            Self::TrustedRootInvalid { error, .. } => error.code(),
            Self::TrustedRootStale { .. } => Code::TrustedRootStale,
            Self::SigningCertificateExpired { .. } => Code::SigningCertificateExpired,
            Self::SigningCertificateInvalid { .. } => Code::SigningCertificateInvalid,
            Self::SigningCertificateMissing => Code::SigningCertificateMissing,
            Self::SigningCertificateUntrusted { .. } => Code::SigningCertificateUntrusted,
            Self::Unsigned { .. } => Code::Unsigned,
            Self::Unsupported { .. } => Code::Unsupported,
            Self::WeakAlgorithm { .. } => Code::WeakAlgorithm,
        }
    }

    /// How close the signature came: of several rejections the one with the highest rank is the headline.
    pub fn rank(&self) -> u8 {
        match self {
            Self::RejectedByPolicy | Self::Unsupported { .. } => 9,
            Self::AnnotationMismatch { .. } | Self::DigestMismatch { .. } | Self::ManifestInvalid => 8,
            Self::IdentityMismatch { .. }
            | Self::IdentityNotSigned { .. }
            | Self::SignedAnnotationMismatch { .. } => 7,
            Self::BundleCertificate { .. }
            | Self::IdentityExtensionMissing { .. }
            | Self::IdentityForeignCaller { .. }
            | Self::IdentityForeignWorkflow { .. }
            | Self::IdentityInconsistent { .. }
            | Self::KeyExpired { .. }
            | Self::KeyRevoked { .. }
            | Self::LogEntryMismatch { .. }
            | Self::SctInvalid { .. }
            | Self::SignatureExpired
            | Self::SignerMismatch { .. }
            | Self::SigningCertificateExpired { .. }
            | Self::TimestampInvalid { .. }
            | Self::TimestampMissing => 6,
            Self::WeakAlgorithm { .. } | Self::KeyUnusable { .. } => 5,
            Self::IdentityMalformed(_) | Self::MalformedPayload { .. } => 4,
            Self::KeyFileInvalid { .. } | Self::TrustedRootInvalid { .. } | Self::TrustedRootStale { .. } => {
                4
            }
            Self::BadSignature
            | Self::BundleSignature
            | Self::BundleSubject { .. }
            | Self::LogEntryInvalid { .. } => 3,
            Self::BundleSigner { .. }
            | Self::KeyUnknown { .. }
            | Self::SigningCertificateUntrusted { .. } => 2,
            Self::BundleMalformed { .. }
            | Self::BundleUnsupported { .. }
            | Self::LogEntryMissing
            | Self::MalformedSignature { .. }
            | Self::NotASignature { .. }
            | Self::SigningCertificateInvalid { .. }
            | Self::SigningCertificateMissing => 1,
            Self::AttachmentsDisabled | Self::SignatureRequired | Self::Unsigned { .. } => 0,
        }
    }

    /// What the administrator can do about it, if there is something to say.
    pub fn help(&self) -> &'static str {
        match self {
            Self::AnnotationMismatch { .. } => {
                "this is another image of the same publisher, or another version; use the one that the policy means, or change \"manifestAnnotations\""
            }
            Self::AttachmentsDisabled => {
                "set \"use-sigstore-attachments: true\" for this registry in a file under registries.d, or sign into a lookaside store"
            }
            Self::BadSignature => {
                "the signature was made with another key, or was altered; check that the policy has the publisher's present key"
            }
            Self::BundleCertificate { .. } => {
                "check that the trusted root is that of the Sigstore instance which the publisher uses, and is up to date; and check the clock of this host"
            }
            Self::BundleMalformed { .. } => "the bundle cannot be used; ask the publisher to sign again",
            Self::BundleSignature => {
                "the bundle was made with another key, or was altered; check that the policy has the publisher's present key"
            }
            Self::BundleSigner { wanted_certificate: true } => {
                "the publisher signs with a key: set \"keyPath\", or give --key, instead of an identity"
            }
            Self::BundleSigner { wanted_certificate: false } => {
                "the publisher signs with an identity: set that instead of a key"
            }
            Self::BundleSubject { .. } => {
                "the bundle was made for something else; ask the publisher for the right one"
            }
            Self::BundleUnsupported { .. } => {
                "ask the publisher to sign with a present cosign, which writes version 0.3 of the bundle"
            }
            Self::DigestMismatch { .. } => {
                "the image is not the one that was signed; do not use it, and ask its publisher"
            }
            Self::IdentityExtensionMissing { .. } => {
                "ask the publisher to sign again with a present version of cosign, or leave out the member or option that asks for this; for certificates before 2023 use their exact subject"
            }
            Self::IdentityForeignCaller { .. } => {
                "a reusable workflow signs for whoever calls it; do not use the image, or name the repository that may call it: \"subject\" of \"keyless\", \"sourceRepositoryURI\" of \"fulcio\", or --certificate-github-workflow-repository"
            }
            Self::IdentityForeignWorkflow { .. } => {
                "if the repository is meant to sign through that workflow, set \"allowReusableWorkflow\": true"
            }
            Self::IdentityInconsistent { .. } | Self::IdentityMalformed(_) => {
                "the certificate was not made as Fulcio makes them; do not use the image, and ask its publisher"
            }
            Self::IdentityMismatch { .. } => {
                "the signature is for another image; if the publisher signs under that name, set \"signedIdentity\" in the policy"
            }
            Self::IdentityNotSigned { .. } => {
                "set \"signedIdentity\": {\"type\": \"matchRepositoryOrUnnamed\"} to accept it by its digest alone, which lets every image of this signer pass for this one"
            }
            Self::KeyExpired { .. } => {
                "ask the publisher for the key with a later expiry, or for signatures by a new key"
            }
            Self::KeyFileInvalid { .. } => {
                "replace the key with the publisher's public key in the form the requirement wants"
            }
            Self::KeyRevoked { .. } => "the publisher has withdrawn this key; install the new one",
            Self::KeyUnknown { .. } => {
                "if you trust that key, add it to the requirement; otherwise do not use the image"
            }
            Self::KeyUnusable { .. } => "ask the publisher for a signature by a key that may sign",
            Self::LogEntryInvalid { .. } => {
                "if the publisher uses another log, or the log has a new key, correct \"rekorPublicKey...\" or the trusted root in the policy; otherwise do not use the image"
            }
            Self::LogEntryMismatch { .. } => {
                "the log entry was taken from another signature; do not use the image, and ask its publisher"
            }
            Self::LogEntryMissing => {
                "ask the publisher to sign with an upload to the log; with public keys \"rekorPublicKey...\" may be dropped from the policy if that is not wanted"
            }
            Self::MalformedPayload { .. } | Self::MalformedSignature { .. } => {
                "the signature cannot be used; ask the publisher to sign again"
            }
            Self::ManifestInvalid => {
                "the image is damaged, or made to mislead; do not use it, and ask its publisher"
            }
            Self::NotASignature { .. } => {
                "an attestation is no signature; ask the publisher to sign the image, too"
            }
            Self::RejectedByPolicy => {
                "if the image is wanted, change what its scope requires, or give it a scope of its own; \"vouchd explain\" tells which applies"
            }
            Self::SctInvalid { .. } => {
                "check that the trusted root is that of the Sigstore instance which the publisher uses, and is up to date"
            }
            Self::SignatureExpired => "ask the publisher for a fresh signature",
            Self::SignedAnnotationMismatch { .. } => {
                "use an image that was signed with this annotation, or correct --annotations"
            }
            Self::SignatureRequired => {
                "the policy accepts this image unsigned; add a scope with signedBy or sigstoreSigned, or drop --require-signature"
            }
            Self::SignerMismatch { .. } => {
                "if you trust that signer, change the requirement to it; otherwise do not use the image"
            }
            Self::TimestampInvalid { .. } => {
                "check that the trusted root lists the timestamp authority which the publisher uses"
            }
            Self::TimestampMissing => "ask the publisher to sign with a timestamp authority",
            Self::TrustedRootInvalid { error, .. } => error.help(),
            Self::TrustedRootStale { .. } => trusted_root::ADVICE,
            Self::SigningCertificateExpired { .. } => {
                "ask the publisher to sign again; if the certificate is valid today, check the clock"
            }
            Self::SigningCertificateInvalid { .. } | Self::SigningCertificateMissing => {
                "the signature cannot be used for this requirement; ask the publisher to sign again with a certificate"
            }
            Self::SigningCertificateUntrusted { .. } => {
                "check that the requirement has the publisher's authority, and the certificates between if they do not come with the signature"
            }
            Self::Unsigned { .. } => {
                "check that the publisher signs this image, and where; \"vouchd explain\" shows where signatures are looked for"
            }
            Self::Unsupported { .. } => "see \"Limitations\" in the README",
            Self::WeakAlgorithm { .. } => {
                "ask the publisher for a signature with SHA-256 or better, and RSA of 2048 bits or more"
            }
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnnotationMismatch { name, wanted, found } => {
                let (name, wanted) = (escape(name), escape(wanted));
                match found {
                    Some(found) => write!(f, "the annotation \"{name}\" is \"{}\", and the policy wants \"{wanted}\"", escape(found)),
                    None => write!(f, "the manifest has no annotation \"{name}\", and the policy wants \"{wanted}\""),
                }
            }
            Self::AttachmentsDisabled => f.write_str(
                "a signature is required, none was found, and registries.d does not enable sigstore attachments for this registry",
            ),
            Self::BadSignature => f.write_str("the signature does not verify with any key of the requirement"),
            Self::BundleCertificate { detail } => {
                write!(f, "the certificate in the bundle cannot be trusted: {}", escape(detail))
            }
            Self::BundleMalformed { detail } => write!(f, "the bundle is malformed: {}", escape(detail)),
            Self::BundleSignature => f.write_str("the signature in the bundle does not verify"),
            Self::BundleSigner { wanted_certificate: true } => {
                f.write_str("the bundle is signed with a key, not with a certificate")
            }
            Self::BundleSigner { wanted_certificate: false } => {
                f.write_str("the bundle is signed with a certificate, not with a key")
            }
            Self::BundleSubject { wanted } => write!(f, "the bundle is not about {wanted}"),
            Self::BundleUnsupported { what } => write!(f, "the bundle uses {}, which does not count here", escape(what)),
            Self::DigestMismatch { wanted, found } => {
                write!(f, "digest mismatch: {wanted} was wanted, the manifest is {found}")
            }
            Self::IdentityExtensionMissing { extension, wanted } => {
                write!(f, "the certificate has no {extension}, and the policy wants {}", escape(wanted))
            }
            Self::IdentityForeignCaller { caller: Some(caller), workflow } => write!(
                f,
                "the workflow \"{}\" was called by \"{}\", to which it does not belong, and the policy does not name that repository",
                escape(workflow),
                escape(caller)
            ),
            Self::IdentityForeignCaller { caller: None, workflow } => write!(
                f,
                "the certificate does not say which repository called the workflow \"{}\", and the policy wants that of the workflow",
                escape(workflow)
            ),
            Self::IdentityForeignWorkflow { repository, workflow } => write!(
                f,
                "\"{}\" had its image signed by \"{}\", and the policy wants a workflow of the same repository",
                escape(repository),
                escape(workflow)
            ),
            Self::IdentityInconsistent { one: (extension, value), other } => write!(
                f,
                "the certificate contradicts itself: {extension} is \"{}\", which does not agree with {}",
                escape(value),
                escape(other)
            ),
            Self::IdentityMalformed(detail) => write!(f, "the certificate does not say clearly whose it is: {detail}"),
            Self::IdentityMismatch { signed, wanted } => {
                write!(f, "the signature is for \"{}\", and the policy wants {}", escape(signed), escape(wanted))
            }
            Self::IdentityNotSigned { wanted } => {
                write!(f, "the signature names no image, and the policy wants {}", escape(wanted))
            }
            Self::KeyExpired { key } => write!(f, "the signing key {} has expired", escape(key)),
            Self::KeyFileInvalid { source, detail } => write!(f, "{} cannot be used: {detail}", escape(source)),
            Self::KeyRevoked { key } => write!(f, "the signing key {} has been revoked", escape(key)),
            Self::KeyUnknown { key: Some(key) } => {
                write!(f, "signed by the key {}, which the policy does not accept", escape(key))
            }
            Self::KeyUnknown { key: None } => f.write_str("signed by a key that the policy does not accept"),
            Self::KeyUnusable { key, detail } => write!(f, "the key {} cannot be used: {detail}", escape(key)),
            Self::LogEntryInvalid { detail } => {
                write!(f, "the proof that the signature was logged does not hold: {}", escape(detail))
            }
            Self::LogEntryMismatch { index, what } => {
                write!(f, "the log entry {index} is about another signature: the {what} is another")
            }
            Self::LogEntryMissing => {
                f.write_str("there must be proof that the signature was logged, and it has none")
            }
            Self::MalformedPayload { detail } => write!(f, "the signed payload is malformed: {}", escape(detail)),
            Self::MalformedSignature { detail } => write!(f, "the signature is malformed: {detail}"),
            Self::ManifestInvalid => f.write_str("the manifest can be read in more than one way, or its embedded signatures are malformed"),
            Self::NotASignature { what } => write!(f, "this is no signature, but \"{}\"", escape(what)),
            Self::RejectedByPolicy => f.write_str("the policy rejects this image"),
            Self::SctInvalid { detail } => {
                write!(f, "no log of certificates vouches for the certificate: {}", escape(detail))
            }
            Self::SignatureExpired => f.write_str("the signature has expired"),
            Self::SignatureRequired => {
                f.write_str("the policy accepts the image, but no signature was required and verified")
            }
            Self::SignedAnnotationMismatch { name, wanted, found } => {
                let (name, wanted) = (escape(name), escape(wanted));
                match found {
                    Some(found) => write!(f, "the signature has the annotation \"{name}\" with the value \"{}\", and \"{wanted}\" is wanted", escape(found)),
                    None => write!(f, "the signature has no annotation \"{name}\", and the value \"{wanted}\" is wanted"),
                }
            }
            Self::SignerMismatch { part, wanted, found } => write!(
                f,
                "the certificate's {} is \"{}\", and the policy wants {}",
                part.name(),
                escape(found),
                escape(wanted)
            ),
            Self::TimestampInvalid { detail } => write!(f, "a timestamp proves no time: {}", escape(detail)),
            Self::TimestampMissing => f.write_str("nothing proves when the signature was made"),
            Self::TrustedRootInvalid { source, error } => {
                write!(f, "the trusted root in {} cannot be used: {}", escape(source), escape(&error.detail))
            }
            Self::TrustedRootStale { source, current_until: Some(time) } => write!(
                f,
                "the trusted root in \"{}\" was last known to be current at {time}, which is longer ago than the policy accepts",
                escape(source)
            ),
            Self::TrustedRootStale { source, current_until: None } => {
                write!(
                    f,
                    "how old the trusted root in \"{}\" is cannot be told, as its file has no date or one that is still to come, and the policy asks for it",
                    escape(source)
                )
            }
            Self::SigningCertificateExpired { time, not_before, not_after } => write!(
                f,
                "the certificate was valid from {not_before} to {not_after}, and must be at {time}"
            ),
            Self::SigningCertificateInvalid { detail } => {
                write!(f, "the certificate of the signature cannot be read: {detail}")
            }
            Self::SigningCertificateMissing => f.write_str("the signature must come with a certificate, and has none"),
            Self::SigningCertificateUntrusted { detail } => {
                write!(f, "the certificate of the signature is not trusted: {detail}")
            }
            Self::Unsigned { other_format, other_type } => {
                f.write_str("a signature is required, and the image has none")?;
                match (other_format, other_type) {
                    (0, 0) => Ok(()),
                    (format, 0) => write!(f, " of this kind, but {format} of the other"),
                    (0, other) => write!(f, ", but {other} attachments that are no signatures"),
                    (format, other) => write!(
                        f,
                        " of this kind, but {format} of the other, and {other} attachments that are no signatures"
                    ),
                }
            }
            Self::Unsupported { what } => write!(f, "this version cannot check {what}"),
            Self::WeakAlgorithm { algorithm } => {
                write!(f, "the signature uses {}, which is too weak", escape(algorithm))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_795_132_800, "2026-11-20T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), text);
        }
    }

    #[test]
    fn only_signature_packets_are_unframed_blobs() {
        let accepted: Vec<u8> =
            (1..=255).filter(|b| UntrustedSignature::from_blob(&[*b, 0, 0]).is_ok()).collect();
        assert_eq!(
            accepted,
            [0x3d, 0x88, 0x89, 0x8a, 0x8b, 0x90, 0x91, 0x92, 0xa0, 0xa1, 0xa2, 0xa3, 0xc2, 0xc4, 0xc8]
        );
    }

    #[test]
    fn framed_blobs_name_their_format() {
        let parse = |blob: &[u8]| UntrustedSignature::from_blob(blob);
        assert_eq!(parse(b""), Err(MalformedBlob::Empty));
        assert_eq!(parse(b"\0simple-signing"), Err(MalformedBlob::Format));
        assert_eq!(parse(b"\0other\nx"), Err(MalformedBlob::Format));
        assert_eq!(parse(b"\0simple-signing\n-x"), Ok(UntrustedSignature::SimpleSigning(b"-x".to_vec())));
        for malformed in [
            "[]",
            "",
            "{",
            r#"{"payload":"*"}"#,
            r#"{"payload":[256]}"#,
            r#"{"mimeType":1}"#,
            r#"{"annotations":[]}"#,
        ] {
            let blob = format!("\0sigstore-json\n{malformed}");
            assert_eq!(parse(blob.as_bytes()), Err(MalformedBlob::Json), "{malformed}");
        }
        let sigstore = |body: &str| match parse(format!("\0sigstore-json\n{body}").as_bytes()) {
            Ok(UntrustedSignature::Sigstore(signature)) => (
                signature.mime_type,
                signature.payload,
                signature.annotations.into_iter().collect::<Vec<_>>(),
            ),
            other => panic!("{body}: {other:?}"),
        };
        let nothing = (String::new(), Vec::new(), Vec::new());
        for empty in [
            "null",
            "{}",
            r#"{"mimeType":null,"payload":null,"annotations":null}"#,
            r#"{"annotations":{"a":"b"},"Annotations":null}"#,
        ] {
            assert_eq!(sigstore(empty), nothing, "{empty}");
        }
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let last = r#"{"mimeType":"m","MIMETYPE":"n","payload":"eA==","Payload":[121],"annotations":{"a":"b","c":null},"Annotations":{"a":"d"}}"#;
        assert_eq!(sigstore(last), ("n".to_owned(), b"y".to_vec(), vec![pair("a", "d"), pair("c", "")]));
        let body = b"\0sigstore-json\n{\"mimeType\":\"m\",\"payload\":\"eA==\",\"annotations\":{\"a\":\"b\"},\"x\":1}";
        assert_eq!(
            parse(body),
            Ok(UntrustedSignature::Sigstore(UntrustedSigstore {
                mime_type: "m".into(),
                payload: b"x".to_vec(),
                annotations: [("a".to_owned(), "b".to_owned())].into(),
            }))
        );
    }
}
