//! [`Key`]: a public key with the hash that belongs to it.

use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};

use crate::digest::Digest;

use crate::verify::facts::Facts;
use crate::verify::key::PublicKey;

/// A public key that verifies with its own hash: SHA-256 for P-256 and RSA, SHA-384 for P-384, SHA-512 for P-521, none
/// for Ed25519 (design decision 5).
#[derive(Clone, Debug)]
pub(in crate::verify) struct Key {
    parsed: ParsedPublicKey,
    takes_sha256: bool,
    der: Vec<u8>,
    spki: Digest,
    facts: Arc<Facts>,
}

impl Key {
    /// Reads a DER SubjectPublicKeyInfo, as strictly as a key of the policy is read (rule C-3).
    pub(in crate::verify) fn from_spki(der: &[u8]) -> Option<Self> {
        Self::from_public_key(&PublicKey::from_spki(der).ok()?)
    }

    /// The same key, whatever hash attachments want.
    pub(in crate::verify) fn from_public_key(key: &PublicKey) -> Option<Self> {
        let algorithms: [(&'static dyn VerificationAlgorithm, bool); 5] = [
            (&ECDSA_P256_SHA256_ASN1, true),
            (&ECDSA_P384_SHA384_ASN1, false),
            (&ECDSA_P521_SHA512_ASN1, false),
            (&RSA_PKCS1_2048_8192_SHA256, true),
            (&ED25519, false),
        ];
        algorithms.into_iter().find_map(|(algorithm, takes_sha256)| {
            let parsed = ParsedPublicKey::new(algorithm, key.spki()).ok()?;
            let (der, spki, facts) = (key.spki().to_vec(), key.id().clone(), Arc::clone(key.facts()));
            Some(Self { parsed, takes_sha256, der, spki, facts })
        })
    }

    /// Whether `signature` is over `message`.
    pub(in crate::verify) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verify = || self.parsed.verify_sig(message, signature).is_ok();
        self.facts.established([b"a message by a key's own hash", &self.der, message], signature, verify)
    }

    /// Whether `signature` is over the message of that SHA-256; unknown if the key has another hash.
    pub(in crate::verify) fn verifies_sha256(&self, sha256: &[u8], signature: &[u8]) -> Option<bool> {
        let hashed = digest::Digest::import_less_safe(sha256, &digest::SHA256).ok()?;
        let verify = || self.parsed.verify_digest_sig(&hashed, signature).is_ok();
        let operation = [b"a SHA-256 digest".as_slice(), &self.der, sha256];
        self.takes_sha256.then(|| self.facts.established(operation, signature, verify))
    }

    /// Its SubjectPublicKeyInfo.
    pub(in crate::verify) fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of its SubjectPublicKeyInfo.
    pub(in crate::verify) fn spki(&self) -> &Digest {
        &self.spki
    }
}
