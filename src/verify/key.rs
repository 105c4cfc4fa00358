//! [`PublicKey`]: the key of a signer, of a log or of a certificate (rules C-3, C-4).

use std::sync::Arc;

use ::sigstore::crypto::{CosignVerificationKey, Signature};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, EcdsaVerificationAlgorithm,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_cert::der::asn1::{AnyRef, BitString, Null, ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::spki::{AlgorithmIdentifier, SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};

use crate::digest::Digest;

use super::certificate::{Hash, SignatureAlgorithm};
use super::facts::Facts;
use super::pem;

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
    /// A key that is not for ECDSA, where only those are taken.
    NotEcdsa,
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
            Self::NotEcdsa => "the key of a log must be one for ECDSA",
            Self::Spki => "its PEM block does not hold a public key",
        }
    }
}

/// A public key that sigstoreSigned can name.
#[derive(Clone, Debug)]
pub struct PublicKey {
    kind: Kind,
    verifier: Verifier,
    spki: Vec<u8>,
    id: Digest,
    /// Shared among clones.
    facts: Arc<Facts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ed25519,
    P256,
    P384,
    P521,
    Rsa,
}

/// Attachments are always hashed with SHA-256, whatever the curve (rule C-4), but the sigstore crate
/// pairs the larger curves with longer hashes; those two go to the library below it.
#[derive(Clone, Debug)]
enum Verifier {
    Cosign(CosignVerificationKey),
    Curve(&'static EcdsaVerificationAlgorithm),
}

impl PublicKey {
    /// Reads the first PEM block; whatever follows it is ignored (rule C-3).
    pub fn from_pem(bytes: &[u8]) -> Result<Self, KeyError> {
        let block = pem::first_block(bytes).ok_or(KeyError::NoPem)?;
        match block.label {
            b"PUBLIC KEY" => Self::from_spki(&block.contents),
            b"RSA PUBLIC KEY" => Self::from_spki(&wrap_rsa(&block.contents)?),
            _ => Err(KeyError::Kind),
        }
    }

    /// Reads a DER SubjectPublicKeyInfo, RFC 5280, 4.1.2.7, and nothing that Go's crypto/x509 refuses:
    /// a key that does not load refuses the image even if another would have matched (rule C-3).
    pub(in crate::verify) fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::Spki)?;
        let key = info.subject_public_key.as_bytes().ok_or(KeyError::Spki)?;
        let parameters = info.algorithm.parameters;
        let (kind, well_formed, algorithm, verifier): (_, bool, &'static dyn VerificationAlgorithm, _) =
            match info.algorithm.oid {
                RSA => (
                    Kind::Rsa,
                    parameters == Some(AnyRef::from(Null)) && is_rsa_key(key),
                    &RSA_PKCS1_2048_8192_SHA256,
                    Verifier::Cosign(CosignVerificationKey::RSA_PKCS1_SHA256(der.to_vec())),
                ),
                ED25519 => (
                    Kind::Ed25519,
                    parameters.is_none() && key.len() == 32,
                    &signature::ED25519,
                    Verifier::Cosign(CosignVerificationKey::ED25519(der.to_vec())),
                ),
                EC => match info.algorithm.parameters_oid().map_err(|_| KeyError::Spki)? {
                    P256 => (
                        Kind::P256,
                        is_uncompressed(key, 32),
                        &ECDSA_P256_SHA256_ASN1,
                        Verifier::Cosign(CosignVerificationKey::ECDSA_P256_SHA256_ASN1(der.to_vec())),
                    ),
                    P384 => (
                        Kind::P384,
                        is_uncompressed(key, 48),
                        &ECDSA_P384_SHA256_ASN1,
                        Verifier::Curve(&ECDSA_P384_SHA256_ASN1),
                    ),
                    P521 => (
                        Kind::P521,
                        is_uncompressed(key, 66),
                        &ECDSA_P521_SHA256_ASN1,
                        Verifier::Curve(&ECDSA_P521_SHA256_ASN1),
                    ),
                    _ => return Err(KeyError::Algorithm),
                },
                _ => return Err(KeyError::Algorithm),
            };
        // The library below finds, among others, that a point is not on its curve.
        if !well_formed || ParsedPublicKey::new(algorithm, der).is_err() {
            return Err(KeyError::Spki);
        }
        Ok(Self { kind, verifier, spki: der.to_vec(), id: Digest::sha256(der), facts: Arc::default() })
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn id(&self) -> &Digest {
        &self.id
    }

    /// The SubjectPublicKeyInfo.
    pub(in crate::verify) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// What it has been found to have signed.
    pub(in crate::verify) fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// Whether it is a key for ECDSA, as those of logs must be (rule C-3).
    pub(in crate::verify) fn is_ecdsa(&self) -> bool {
        match self.kind {
            Kind::P256 | Kind::P384 | Kind::P521 => true,
            Kind::Ed25519 | Kind::Rsa => false,
        }
    }

    /// Whether `signature` is this key's over the SHA-256 of `payload`, or with Ed25519 over `payload` (rule C-4).
    pub(in crate::verify) fn verifies(&self, payload: &[u8], signature: &[u8]) -> bool {
        let verify = || match &self.verifier {
            Verifier::Cosign(key) => key.verify_signature(Signature::Raw(signature), payload).is_ok(),
            Verifier::Curve(algorithm) => {
                UnparsedPublicKey::new(*algorithm, &self.spki).verify(payload, signature).is_ok()
            }
        };
        self.facts.established([b"a message by rule C-4", &self.spki, payload], signature, verify)
    }
}

impl PublicKey {
    /// Whether `signature` is this key's by that algorithm over the signed part of a certificate (rule C-33).
    pub(in crate::verify) fn signed(
        &self,
        algorithm: SignatureAlgorithm,
        certificate: &[u8],
        signature: &[u8],
    ) -> bool {
        let name = format!("a certificate by {algorithm:?}");
        let algorithm: &'static dyn VerificationAlgorithm = match (self.kind, algorithm) {
            (Kind::Ed25519, SignatureAlgorithm::Ed25519) => &signature::ED25519,
            (Kind::P256, SignatureAlgorithm::Ecdsa(Hash::Sha256)) => &signature::ECDSA_P256_SHA256_ASN1,
            (Kind::P256, SignatureAlgorithm::Ecdsa(Hash::Sha384)) => &signature::ECDSA_P256_SHA384_ASN1,
            (Kind::P256, SignatureAlgorithm::Ecdsa(Hash::Sha512)) => &signature::ECDSA_P256_SHA512_ASN1,
            (Kind::P384, SignatureAlgorithm::Ecdsa(Hash::Sha256)) => &signature::ECDSA_P384_SHA256_ASN1,
            (Kind::P384, SignatureAlgorithm::Ecdsa(Hash::Sha384)) => &signature::ECDSA_P384_SHA384_ASN1,
            (Kind::P384, SignatureAlgorithm::Ecdsa(Hash::Sha512)) => &signature::ECDSA_P384_SHA512_ASN1,
            (Kind::P521, SignatureAlgorithm::Ecdsa(Hash::Sha256)) => &signature::ECDSA_P521_SHA256_ASN1,
            (Kind::P521, SignatureAlgorithm::Ecdsa(Hash::Sha384)) => &signature::ECDSA_P521_SHA384_ASN1,
            (Kind::P521, SignatureAlgorithm::Ecdsa(Hash::Sha512)) => &signature::ECDSA_P521_SHA512_ASN1,
            (Kind::Rsa, SignatureAlgorithm::RsaPkcs1(Hash::Sha256)) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Kind::Rsa, SignatureAlgorithm::RsaPkcs1(Hash::Sha384)) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, SignatureAlgorithm::RsaPkcs1(Hash::Sha512)) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (Kind::Rsa, SignatureAlgorithm::RsaPss(Hash::Sha256)) => &signature::RSA_PSS_2048_8192_SHA256,
            (Kind::Rsa, SignatureAlgorithm::RsaPss(Hash::Sha384)) => &signature::RSA_PSS_2048_8192_SHA384,
            (Kind::Rsa, SignatureAlgorithm::RsaPss(Hash::Sha512)) => &signature::RSA_PSS_2048_8192_SHA512,
            (Kind::Ed25519, _) | (Kind::P256 | Kind::P384 | Kind::P521, _) | (Kind::Rsa, _) => return false,
        };
        let verify = || UnparsedPublicKey::new(algorithm, &self.spki).verify(certificate, signature).is_ok();
        self.facts.established([name.as_bytes(), &self.spki, certificate], signature, verify)
    }
}

/// The key of a certificate; none if it is of an algorithm that the reference does not know either.
pub(in crate::verify) fn of_certificate(
    algorithm: ObjectIdentifier,
    spki: &[u8],
) -> Result<Option<PublicKey>, KeyError> {
    match algorithm {
        EC | ED25519 | RSA => PublicKey::from_spki(spki).map(Some),
        DSA | X25519 => Err(KeyError::Algorithm),
        _ => Ok(None),
    }
}

/// Whether `key` is an uncompressed point of two coordinates of `length` bytes; SEC 1, 2.3.3.
fn is_uncompressed(key: &[u8], length: usize) -> bool {
    matches!(key, [4, point @ ..] if point.len() == 2 * length)
}

/// Whether `key` is a PKCS#1 RSAPublicKey, RFC 8017, appendix A.1.1, with an exponent that Go can use.
fn is_rsa_key(key: &[u8]) -> bool {
    let Ok(mut reader) = SliceReader::new(key) else { return false };
    let exponent = reader.sequence(|fields| {
        fields.decode::<UintRef<'_>>()?;
        fields.decode::<u32>()
    });
    reader.is_finished() && exponent.is_ok_and(|exponent| i32::try_from(exponent).is_ok())
}

/// A PKCS#1 RSAPublicKey as a SubjectPublicKeyInfo; RFC 8017, appendix A.1.1, and RFC 3279, 2.3.1.
fn wrap_rsa(der: &[u8]) -> Result<Vec<u8>, KeyError> {
    let algorithm = AlgorithmIdentifier { oid: RSA, parameters: Some(AnyRef::from(Null)) };
    BitString::from_bytes(der)
        .and_then(|subject_public_key| SubjectPublicKeyInfo { algorithm, subject_public_key }.to_der())
        .map_err(|_| KeyError::Spki)
}

/// RFC 3279, 2.3.2.
const DSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10040.4.1");
/// RFC 3279, 2.3.5.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 8410, 3.
pub(in crate::verify) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 5480, 2.1.1.1.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 5480, 2.1.1.1.
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// RFC 5480, 2.1.1.1.
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
/// RFC 3279, 2.3.1.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 8410, 3.
const X25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");

#[cfg(test)]
mod tests {
    use x509_cert::der::Decode;
    use x509_cert::der::asn1::{Any, BitString};

    use super::{AlgorithmIdentifier, EC, ED25519, Encode, KeyError, P256, P384, PublicKey, RSA};
    use super::{AnyRef, Null, ObjectIdentifier, SubjectPublicKeyInfo};

    /// The generator of P-256; SEC 2, 2.4.2.
    const POINT: [u8; 65] = *b"\x04\
        \x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\
        \x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96\
        \x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\
        \x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5";

    fn load(oid: ObjectIdentifier, parameters: Option<Any>, key: &[u8]) -> Result<PublicKey, KeyError> {
        let subject_public_key = BitString::from_bytes(key).unwrap();
        let algorithm = AlgorithmIdentifier { oid, parameters };
        PublicKey::from_spki(&SubjectPublicKeyInfo { algorithm, subject_public_key }.to_der().unwrap())
    }

    fn null() -> Option<Any> {
        Some(Any::from(AnyRef::from(Null)))
    }

    /// A PKCS#1 key with a modulus of 2048 bits.
    fn rsa(exponent: &[u8]) -> Vec<u8> {
        let integer = [&[2, u8::try_from(exponent.len()).unwrap()], exponent].concat();
        let modulus = [&[0x02, 0x82, 0x01, 0x01, 0x00][..], &[0xff; 256]].concat();
        let length = u16::try_from(modulus.len() + integer.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82][..], &length, &modulus, &integer].concat()
    }

    #[test]
    fn an_ec_key_is_an_uncompressed_point_on_its_curve() {
        let load = |curve: ObjectIdentifier, key: &[u8]| load(EC, Some(Any::from(curve)), key).is_ok();
        let with = |at: usize, byte: u8| {
            let mut point = POINT;
            point[at] = byte;
            point
        };
        assert!(load(P256, &POINT));
        assert!(!load(P384, &POINT), "another curve");
        assert!(!load(P256, &with(64, 0xf4)), "not on the curve");
        assert!(!load(P256, &with(0, 7)), "hybrid");
        assert!(!load(P256, &with(0, 3)), "compressed but too long");
        assert!(!load(P256, &with(0, 3)[..33]), "compressed");
        assert!(!load(P256, &POINT[..64]), "too short");
        assert!(!load(P256, &[&POINT[..], &[0]].concat()), "too long");
        assert!(!load(P256, &[0]), "infinity");
        assert!(!load(P256, &[]), "empty");
    }

    #[test]
    fn parameters_are_what_the_algorithm_wants() {
        let key = rsa(&[1, 0, 1]);
        let filled = Any::from_der(&[0x04, 0x01, 0x00]).unwrap();
        assert!(load(RSA, null(), &key).is_ok());
        assert!(load(RSA, None, &key).is_err());
        assert!(load(RSA, Some(filled), &key).is_err());
        assert!(load(RSA, Some(Any::from(P256)), &key).is_err());
        assert!(load(ED25519, None, &POINT[1..33]).is_ok());
        assert!(load(ED25519, null(), &POINT[1..33]).is_err());
        assert!(load(ED25519, None, &POINT[1..34]).is_err());
        assert!(load(EC, None, &POINT).is_err());
        assert!(load(EC, null(), &POINT).is_err());
    }

    #[test]
    fn an_rsa_exponent_is_odd_and_fits_31_bits() {
        for (exponent, ok) in [
            (&[3][..], true),
            (&[1, 0, 1], true),
            (&[0x7f, 0xff, 0xff, 0xff], true),
            (&[0, 0x80, 0, 0, 1], false),
            (&[1, 0, 0, 0, 1], false),
            (&[1], false),
            (&[2], false),
            (&[0xff], false),
            (&[0, 3], false),
        ] {
            assert_eq!(load(RSA, null(), &rsa(exponent)).is_ok(), ok, "{exponent:?}");
        }
    }

    #[test]
    fn nothing_follows_a_key() {
        let key = rsa(&[1, 0, 1]);
        assert!(load(RSA, null(), &[&key[..], &[0]].concat()).is_err());
        let algorithm = AlgorithmIdentifier { oid: ED25519, parameters: None::<Any> };
        let subject_public_key = BitString::from_bytes(&POINT[1..33]).unwrap();
        let mut der = SubjectPublicKeyInfo { algorithm, subject_public_key }.to_der().unwrap();
        assert!(PublicKey::from_spki(&der).is_ok());
        der.push(0);
        assert!(PublicKey::from_spki(&der).is_err());
    }
}
