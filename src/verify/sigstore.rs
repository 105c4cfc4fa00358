//! sigstoreSigned: a payload and its annotations → [`Verified`] claim (rules C-1 to C-13).

use std::sync::Arc;

use crate::json;

use super::certificate::{self, Certificate};
use super::fulcio::{self, Identity};
use super::key::{KeyError, PublicKey};
use super::pki;
use super::rekor::Entry;
use super::trust::KeyMaterial;
use super::{Claim, Payload, Rejection, SIGNATURE_BYTES, Signer, Timestamp, UntrustedSigstore, Verified};

pub use super::pki::Subject;

/// The media type of a cosign signature layer (rule C-1).
pub const SIGNATURE_MIME_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Whose signatures count, with what is trusted to tell. Nothing is taken from anywhere else (T-15).
#[derive(Clone, Debug)]
pub enum Trust<'p> {
    /// A certificate by Fulcio, valid when a log took the signature.
    Fulcio {
        /// Certificates of the authority.
        authorities: Arc<KeyMaterial>,
        /// Keys of logs, any of which will do.
        logs: Vec<Arc<KeyMaterial>>,
        /// The OIDC issuer.
        issuer: &'p str,
        /// The e-mail address.
        email: &'p str,
    },
    /// Public keys, any of which will do.
    Keys {
        /// The keys.
        keys: Vec<Arc<KeyMaterial>>,
    },
    /// The same, and a log must have taken the signature.
    LoggedKeys {
        /// The keys.
        keys: Vec<Arc<KeyMaterial>>,
        /// Keys of logs, any of which will do.
        logs: Vec<Arc<KeyMaterial>>,
    },
    /// A certificate by an authority of one's own, valid now.
    Pki {
        /// Certificates of the authority.
        authorities: Arc<KeyMaterial>,
        /// Certificates between, besides those that come with the signature.
        intermediates: Option<Arc<KeyMaterial>>,
        /// Who must have signed.
        subject: Subject<'p>,
    },
}

/// Verifies one signature layer. All that is trusted must be usable, whatever the signature is (rules C-3, C-6, C-10).
pub fn verify(
    signature: &UntrustedSigstore,
    trust: &Trust<'_>,
    now: Timestamp,
) -> Result<Verified<Claim>, Rejection> {
    let certified: PublicKey;
    let (keys, names, time) = match trust {
        Trust::Fulcio { authorities, logs, issuer, email } => {
            let authorities = certificates(authorities, KeyMaterial::authorities)?;
            let logs = usable(logs, KeyMaterial::log_key)?;
            let layer = Layer::of(signature)?;
            let entry = layer.entry(&logs)?;
            let identity = Identity { issuer, email };
            let leaf = fulcio::verify(&entry, layer.certificate()?, layer.chain(), authorities, identity)?;
            certified = key_of(&leaf)?;
            let names = ((*issuer).to_owned(), (*email).to_owned());
            (vec![&certified], Some(names), Some(entry.get().time))
        }
        Trust::Keys { keys } => (usable(keys, KeyMaterial::public_key)?, None, None),
        Trust::LoggedKeys { keys, logs } => {
            let keys = usable(keys, KeyMaterial::public_key)?;
            let logs = usable(logs, KeyMaterial::log_key)?;
            let entry = Layer::of(signature)?.entry(&logs)?;
            // The entry names one key, and only that one is tried (rule C-6).
            let key = keys.into_iter().find(|key| entry.get().is_of(key.spki())).ok_or_else(|| {
                let detail = "it is for a key that the policy does not accept".to_owned();
                Rejection::LogEntryInvalid { detail }
            })?;
            (vec![key], None, None)
        }
        Trust::Pki { authorities, intermediates, subject } => {
            let authorities = certificates(authorities, KeyMaterial::authorities)?;
            let between = match intermediates {
                Some(material) => certificates(material, KeyMaterial::intermediates)?,
                None => &[],
            };
            let layer = Layer::of(signature)?;
            let leaf = pki::verify(layer.certificate()?, layer.chain(), authorities, between, *subject, now)?;
            certified = key_of(&leaf)?;
            (vec![&certified], Some((leaf.issuer_name(), subject.words())), None)
        }
    };
    let layer = Layer::of(signature)?;
    let key = keys.into_iter().find(|key| key.verifies(layer.payload, &layer.signature));
    let spki = key.ok_or(Rejection::BadSignature)?.id().clone();
    let signer = match names {
        Some((issuer, subject)) => Signer::Certificate { spki, issuer, subject },
        None => Signer::PublicKey { spki },
    };
    let payload = Payload::parse_cosign(layer.payload)?;
    Ok(Verified::assert(Claim { payload, signer, time }))
}

/// A signature layer with its signature decoded (rule C-2).
struct Layer<'s> {
    payload: &'s [u8],
    signature: Vec<u8>,
    source: &'s UntrustedSigstore,
}

impl<'s> Layer<'s> {
    fn of(source: &'s UntrustedSigstore) -> Result<Self, Rejection> {
        let malformed = |detail| Rejection::MalformedSignature { detail };
        if source.payload.len() > SIGNATURE_BYTES {
            return Err(malformed("the payload is larger than 4 MiB"));
        }
        let encoded = source
            .annotations
            .get(SIGNATURE_ANNOTATION)
            .ok_or(malformed("the layer has no signature annotation"))?;
        let signature =
            json::decode_base64(encoded).ok_or(malformed("the signature annotation is not base64"))?;
        Ok(Self { payload: &source.payload, signature, source })
    }

    /// What a log has signed for, which must be this signature of this payload (rule C-24).
    fn entry(&self, logs: &[&PublicKey]) -> Result<Verified<Entry>, Rejection> {
        let set = self.source.annotations.get(BUNDLE_ANNOTATION).ok_or(Rejection::LogEntryMissing)?;
        let entry = Verified::of_set(set, logs)?;
        entry.get().check(&self.signature, self.payload)?;
        Ok(entry)
    }

    fn certificate(&self) -> Result<&'s str, Rejection> {
        let found = self.source.annotations.get(CERTIFICATE_ANNOTATION);
        found.map(String::as_str).ok_or(Rejection::SigningCertificateMissing)
    }

    fn chain(&self) -> Option<&'s String> {
        self.source.annotations.get(CHAIN_ANNOTATION)
    }
}

/// Every key, or why one of them cannot be used (rule C-3).
fn usable<'k>(
    materials: &'k [Arc<KeyMaterial>],
    read: impl Fn(&'k KeyMaterial) -> Result<&'k PublicKey, KeyError>,
) -> Result<Vec<&'k PublicKey>, Rejection> {
    let one = |material: &'k Arc<KeyMaterial>| {
        read(material).map_err(|error| Rejection::KeyFileInvalid {
            source: material.source().to_owned(),
            detail: error.detail(),
        })
    };
    materials.iter().map(one).collect()
}

fn certificates<'k>(
    material: &'k KeyMaterial,
    read: impl Fn(&'k KeyMaterial) -> Result<&'k [Certificate], certificate::Error>,
) -> Result<&'k [Certificate], Rejection> {
    read(material).map_err(|error| Rejection::KeyFileInvalid {
        source: material.source().to_owned(),
        detail: error.detail(),
    })
}

fn key_of(certificate: &Certificate) -> Result<PublicKey, Rejection> {
    let detail = "its key is of an algorithm that is not known";
    certificate.key.clone().ok_or(Rejection::SigningCertificateInvalid { detail })
}

/// Rule C-2.
const BUNDLE_ANNOTATION: &str = "dev.sigstore.cosign/bundle";
/// Rule C-2.
const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
/// Rule C-2.
const CHAIN_ANNOTATION: &str = "dev.sigstore.cosign/chain";
/// Rule C-2.
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
