//! sigstoreSigned with public keys: a payload and its annotation → [`Verified`] claim (rules C-1 to C-13).

use ::sigstore::crypto::{CosignVerificationKey, Signature};
use aws_lc_rs::signature::{
    ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, EcdsaVerificationAlgorithm, UnparsedPublicKey,
};
use x509_cert::der::asn1::{AnyRef, BitString, Null, ObjectIdentifier};
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::{AlgorithmIdentifier, SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};

use crate::digest::Digest;
use crate::json;

use super::trust::KeyMaterial;
use super::{Claim, Payload, Rejection, SIGNATURE_BYTES, Signer, UntrustedSigstore, Verified};

/// The media type of a cosign signature layer (rule C-1).
pub const SIGNATURE_MIME_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The annotation that holds the signature in base64 (rule C-2).
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// Why a key member or file of sigstoreSigned holds no usable public key (rules C-3, C-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// A key of an algorithm that cannot verify.
    Algorithm,
    /// A PEM block of another kind.
    Kind,
    /// No PEM block.
    NoPem,
    /// The block does not hold a SubjectPublicKeyInfo.
    Spki,
}

impl KeyError {
    /// What is wrong, to follow the name of the key.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Algorithm => "its algorithm is none of ECDSA on P-256, P-384 or P-521, RSA, and Ed25519",
            Self::Kind => {
                "its first PEM block is not a PUBLIC KEY; a certificate, private key or OpenPGP key cannot be used here"
            }
            Self::NoPem => "it holds no PEM block that begins with \"-----BEGIN PUBLIC KEY-----\"",
            Self::Spki => "its PEM block does not hold a public key",
        }
    }
}

/// A public key that sigstoreSigned can name.
#[derive(Clone, Debug)]
pub struct PublicKey {
    verifier: Verifier,
    spki: Digest,
}

/// Attachments are always hashed with SHA-256, whatever the curve (rule C-4), but the sigstore crate
/// pairs the larger curves with longer hashes; those two go to the library below it.
#[derive(Clone, Debug)]
enum Verifier {
    Cosign(CosignVerificationKey),
    Curve { algorithm: &'static EcdsaVerificationAlgorithm, spki: Vec<u8> },
}

impl PublicKey {
    /// Reads the first PEM block; whatever follows it is ignored (rule C-3).
    pub fn from_pem(bytes: &[u8]) -> Result<Self, KeyError> {
        let block = pem::parse(bytes).map_err(|_| KeyError::NoPem)?;
        match block.tag() {
            "PUBLIC KEY" => Self::from_spki(block.contents()),
            "RSA PUBLIC KEY" => Self::from_spki(&wrap_rsa(block.contents())?),
            _ => Err(KeyError::Kind),
        }
    }

    /// Reads a DER SubjectPublicKeyInfo; RFC 5280, 4.1.2.7.
    fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::Spki)?;
        let verifier = match info.algorithm.oid {
            RSA => Verifier::Cosign(CosignVerificationKey::RSA_PKCS1_SHA256(der.to_vec())),
            ED25519 => Verifier::Cosign(CosignVerificationKey::ED25519(der.to_vec())),
            EC => match info.algorithm.parameters_oid().map_err(|_| KeyError::Spki)? {
                P256 => Verifier::Cosign(CosignVerificationKey::ECDSA_P256_SHA256_ASN1(der.to_vec())),
                P384 => Verifier::Curve { algorithm: &ECDSA_P384_SHA256_ASN1, spki: der.to_vec() },
                P521 => Verifier::Curve { algorithm: &ECDSA_P521_SHA256_ASN1, spki: der.to_vec() },
                _ => return Err(KeyError::Algorithm),
            },
            _ => return Err(KeyError::Algorithm),
        };
        Ok(Self { verifier, spki: Digest::sha256(der) })
    }

    fn verifies(&self, payload: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Cosign(key) => key.verify_signature(Signature::Raw(signature), payload).is_ok(),
            Verifier::Curve { algorithm, spki } => {
                UnparsedPublicKey::new(*algorithm, spki).verify(payload, signature).is_ok()
            }
        }
    }
}

/// A PKCS#1 RSAPublicKey as a SubjectPublicKeyInfo; RFC 8017, appendix A.1.1, and RFC 3279, 2.3.1.
fn wrap_rsa(der: &[u8]) -> Result<Vec<u8>, KeyError> {
    let algorithm = AlgorithmIdentifier { oid: RSA, parameters: Some(AnyRef::from(Null)) };
    BitString::from_bytes(der)
        .and_then(|subject_public_key| SubjectPublicKeyInfo { algorithm, subject_public_key }.to_der())
        .map_err(|_| KeyError::Spki)
}

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
    Ok(Verified::assert(Claim { payload, signer: Signer::PublicKey { spki: key.spki.clone() }, time: None }))
}

/// RFC 3279, 2.3.5.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 8410, 3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 5480, 2.1.1.1.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 5480, 2.1.1.1.
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// RFC 5480, 2.1.1.1.
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
/// RFC 3279, 2.3.1.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
