//! [`Certificate`]: an X.509 certificate that is exactly DER, read as Go's crypto/x509 does or more strictly; RFC 5280.

use std::collections::BTreeSet;

use x509_cert::certificate::{Certificate as Syntax, Version};
use x509_cert::der::asn1::{Any, BitStringRef, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Header, Reader, SliceReader, Tag, Tagged};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::DistributionPointName;
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies,
    CrlDistributionPoints, ExtendedKeyUsage, InhibitAnyPolicy, KeyUsage, NameConstraints, PolicyConstraints,
    PolicyMappings, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::Timestamp;
use super::key::{self, PublicKey};
use super::names::{Constraints, Names};
use super::pem;

/// A certificate. Nothing about it has been checked but its form.
#[derive(Debug)]
pub(in crate::verify) struct Certificate {
    der: Vec<u8>,
    syntax: Syntax,
    signed: Vec<u8>,
    signature_algorithm: Option<SignatureAlgorithm>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    spki: Vec<u8>,
    /// None if it is of an algorithm that nobody here can use.
    pub key: Option<PublicKey>,
    /// Valid from then on, RFC 5280, 4.1.2.5.
    pub not_before: Timestamp,
    /// Valid until then and then.
    pub not_after: Timestamp,
    /// What its extensions say.
    pub extensions: Extensions,
}

/// What the extensions say that decide about a path; RFC 5280, 4.2.1.
#[derive(Debug, Default)]
pub(in crate::verify) struct Extensions {
    authority_key: Vec<u8>,
    subject_key: Vec<u8>,
    basic: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    purposes: Vec<ObjectIdentifier>,
    /// The subject alternative names; none if the extension is absent.
    pub names: Option<Names>,
    /// The name constraints.
    pub constraints: Option<Constraints>,
    /// Critical extensions that nobody here understands.
    pub unknown: Vec<ObjectIdentifier>,
    /// Whether it demands or maps policies, which are not evaluated.
    pub restricts_policies: bool,
}

/// A signature on a certificate with a hash that is still good; others are never verified (rule C-33).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum SignatureAlgorithm {
    /// RFC 5758, 3.2.
    Ecdsa(Hash),
    /// RFC 8410, 3.
    Ed25519,
    /// RFC 4055, 5.
    RsaPkcs1(Hash),
    /// RFC 4055, 3.1.
    RsaPss(Hash),
}

/// A hash in a [`SignatureAlgorithm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum Hash {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

/// Why there are no certificates where some should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum Error {
    /// One cannot be read, and why.
    Malformed(&'static str),
    /// There is none that can be read.
    None,
    /// There is something that is no PEM block.
    NotPem,
    /// There are more than may be.
    TooMany,
}

impl Error {
    /// What is wrong, to follow the name of the source.
    pub(in crate::verify) fn detail(self) -> &'static str {
        match self {
            Self::Malformed(detail) => detail,
            Self::None => {
                "it holds no certificate that can be read, as a PEM block that begins with \"-----BEGIN CERTIFICATE-----\""
            }
            Self::NotPem => "there is something in it that is not a PEM block with a certificate",
            Self::TooMany => "it holds too many certificates",
        }
    }
}

/// The authorities of a bundle: blocks that are labelled as certificates and have no headers. Those that cannot be
/// read are passed over, but one must be left (rule C-30).
pub(in crate::verify) fn authorities(bundle: &[u8]) -> Result<Vec<Certificate>, Error> {
    let mut found = Vec::new();
    let blocks = pem::blocks(bundle).filter(|block| block.label == b"CERTIFICATE" && !block.has_headers);
    for (n, block) in blocks.enumerate() {
        if n >= BUNDLE {
            return Err(Error::TooMany);
        }
        found.extend(Certificate::from_der(&block.contents).ok());
    }
    if found.is_empty() { Err(Error::None) } else { Ok(found) }
}

/// The certificates of a text of at most `limit` PEM blocks with any labels, all of which must be readable
/// (rules C-31, C-32, C-40).
pub(in crate::verify) fn all(bytes: &[u8], limit: usize) -> Result<Vec<Certificate>, Error> {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.trim().as_bytes();
    let mut found = Vec::new();
    while !rest.is_empty() {
        if found.len() >= limit {
            return Err(Error::TooMany);
        }
        let block = pem::first_block(rest).ok_or(Error::NotPem)?;
        found.push(Certificate::from_der(&block.contents).map_err(Error::Malformed)?);
        rest = block.rest;
    }
    Ok(found)
}

impl Certificate {
    /// Reads a certificate. What is not exactly DER is refused, so that every part can be had by encoding it again.
    pub(in crate::verify) fn from_der(der: &[u8]) -> Result<Self, &'static str> {
        if der.len() > CERTIFICATE_BYTES {
            return Err("a certificate is larger than 16 KiB");
        }
        let malformed = |_| "a certificate is not exactly DER";
        let syntax = Syntax::from_der(der).map_err(malformed)?;
        if syntax.to_der().map_err(malformed)? != der || !has_plain_oids(der) {
            return Err("a certificate is not exactly DER");
        }
        let tbs = &syntax.tbs_certificate;
        check_form(&syntax)?;
        let spki = tbs.subject_public_key_info.to_der().map_err(malformed)?;
        let extensions = Extensions::of(tbs.extensions.as_deref().unwrap_or_default())?;
        let time =
            |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).map(Timestamp);
        Ok(Self {
            signed: tbs.to_der().map_err(malformed)?,
            signature_algorithm: signature_algorithm(&tbs.signature),
            issuer: tbs.issuer.to_der().map_err(malformed)?,
            subject: tbs.subject.to_der().map_err(malformed)?,
            key: key::of_certificate(tbs.subject_public_key_info.algorithm.oid, &spki)
                .map_err(|_| "the key of a certificate cannot be used")?,
            not_before: time(tbs.validity.not_before).map_err(|_| "a time is too late")?,
            not_after: time(tbs.validity.not_after).map_err(|_| "a time is too late")?,
            der: der.to_vec(),
            spki,
            extensions,
            syntax,
        })
    }

    /// The whole certificate.
    pub(in crate::verify) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The issuer's name as RFC 4514 writes it. Escape before printing.
    pub(in crate::verify) fn issuer_name(&self) -> String {
        self.syntax.tbs_certificate.issuer.to_string()
    }

    /// The value of an extension.
    pub(in crate::verify) fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.syntax.tbs_certificate.extensions.as_deref().unwrap_or_default();
        extensions.iter().find(|e| e.extn_id == oid).map(|e| e.extn_value.as_bytes())
    }

    /// Whether `now` lies in its validity, both ends included (rule C-33).
    pub(in crate::verify) fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether `authority` bears the name of its issuer, byte for byte.
    pub(in crate::verify) fn names_as_issuer(&self, authority: &Self) -> bool {
        self.issuer == authority.subject
    }

    /// How well the key identifiers agree, 0 if best; it decides only what is tried first.
    pub(in crate::verify) fn distance(&self, authority: &Self) -> u8 {
        let (wanted, found) = (&self.extensions.authority_key, &authority.extensions.subject_key);
        match (wanted.is_empty(), found.is_empty()) {
            _ if wanted == found => 0,
            (true, _) | (_, true) => 1,
            (false, false) => 2,
        }
    }

    /// Whether `authority` has signed it.
    pub(in crate::verify) fn is_signed_by(&self, authority: &Self) -> bool {
        let signature = self.syntax.signature.as_bytes();
        match (&authority.key, self.signature_algorithm, signature) {
            (Some(key), Some(algorithm), Some(signature)) => key.signed(algorithm, &self.signed, signature),
            (None, _, _) | (_, None, _) | (_, _, None) => false,
        }
    }

    /// Whether it is the same subject with the same key and names, so that a path would go in a circle.
    pub(in crate::verify) fn repeats(&self, other: &Self) -> bool {
        let same = self.subject == other.subject && self.spki == other.spki;
        same && self.extension(SUBJECT_ALT_NAME) == other.extension(SUBJECT_ALT_NAME)
    }

    /// Whether its key may sign certificates; RFC 5280, 4.2.1.3 and 4.2.1.9. Before version 3 nothing could say so.
    pub(in crate::verify) fn may_sign_certificates(&self) -> bool {
        let is_v3 = self.syntax.tbs_certificate.version == Version::V3;
        let usage = self.extensions.key_usage;
        self.extensions.basic.as_ref().map_or(!is_v3, |basic| basic.ca)
            && usage.is_none_or(|usage| usage.0.is_empty() || usage.key_cert_sign())
    }

    /// Whether it says that it is an authority.
    pub(in crate::verify) fn is_authority(&self) -> bool {
        self.extensions.basic.as_ref().is_some_and(|basic| basic.ca)
    }

    /// Whether `count` certificates may stand between it and the last one; RFC 5280, 4.2.1.9.
    pub(in crate::verify) fn allows_below(&self, count: usize) -> bool {
        let limit = self.extensions.basic.as_ref().and_then(|basic| basic.path_len_constraint);
        limit.is_none_or(|limit| count <= usize::from(limit))
    }

    /// Whether it may be used to sign code, or says nothing of purposes; RFC 5280, 4.2.1.12.
    pub(in crate::verify) fn is_for_code_signing(&self) -> bool {
        let purposes = &self.extensions.purposes;
        purposes.is_empty() || purposes.iter().any(|purpose| matches!(*purpose, CODE_SIGNING | ANY_PURPOSE))
    }
}

/// What RFC 5280 demands of a certificate and its syntax does not show.
fn check_form(syntax: &Syntax) -> Result<(), &'static str> {
    let tbs = &syntax.tbs_certificate;
    if syntax.signature_algorithm != tbs.signature {
        return Err("a certificate names two signature algorithms");
    }
    if tbs.serial_number.as_bytes().first().is_none_or(|byte| *byte >= 0x80) {
        return Err("a certificate has a negative serial number");
    }
    if tbs.subject_public_key_info.subject_public_key.as_bytes().is_none()
        || syntax.signature.as_bytes().is_none()
    {
        return Err("a certificate has a key or signature that is not whole bytes");
    }
    let has_ids = tbs.issuer_unique_id.is_some() || tbs.subject_unique_id.is_some();
    let too_new = match tbs.version {
        Version::V1 => has_ids || tbs.extensions.is_some(),
        Version::V2 => tbs.extensions.is_some(),
        Version::V3 => false,
    };
    if too_new {
        return Err("a certificate has parts that its version does not have");
    }
    if !is_text(&tbs.issuer) || !is_text(&tbs.subject) {
        return Err("a certificate has a name that is no text");
    }
    Ok(())
}

/// Whether every part of a name is a string of a known kind; RFC 5280, 4.1.2.4.
fn is_text(name: &Name) -> bool {
    let is_string = |value: &Any| {
        let (bytes, is) = (value.value(), |tag| value.tag() == tag);
        // Go also takes `*` and `&`, which authorities use.
        let is_printable = |b: &u8| b.is_ascii_alphanumeric() || b" '()+,-./:=?*&".contains(b);
        is(Tag::TeletexString)
            || is(Tag::Utf8String) && std::str::from_utf8(bytes).is_ok()
            || is(Tag::Ia5String) && bytes.is_ascii()
            || is(Tag::PrintableString) && bytes.iter().all(is_printable)
            || is(Tag::NumericString) && bytes.iter().all(|b| b.is_ascii_digit() || *b == b' ')
    };
    name.0.iter().flat_map(|part| part.0.iter()).all(|attribute| is_string(&attribute.value))
}

impl Extensions {
    fn of(extensions: &[Extension]) -> Result<Self, &'static str> {
        let mut seen = BTreeSet::new();
        let mut found = Self::default();
        for extension in extensions {
            if !seen.insert(extension.extn_id) {
                return Err("a certificate has an extension twice");
            }
            let understood = found.read(extension)?;
            if extension.critical && !understood {
                found.unknown.push(extension.extn_id);
            }
        }
        Ok(found)
    }

    /// Takes one extension; whether it was understood.
    fn read(&mut self, extension: &Extension) -> Result<bool, &'static str> {
        let value = extension.extn_value.as_bytes();
        match extension.extn_id {
            SUBJECT_KEY => {
                never_critical(extension)?;
                self.subject_key = decode::<SubjectKeyIdentifier>(value)?.0.as_bytes().to_vec();
            }
            AUTHORITY_KEY => {
                never_critical(extension)?;
                let key = decode::<AuthorityKeyIdentifier>(value)?.key_identifier;
                self.authority_key = key.map(|key| key.as_bytes().to_vec()).unwrap_or_default();
            }
            KEY_USAGE => {
                // DER wants the unused bits to be 0, X.690, 11.2.1, and the library does not look.
                let bits = decode::<BitStringRef<'_>>(value)?;
                let unused = !u8::MAX.checked_shl(u32::from(bits.unused_bits())).unwrap_or_default();
                if bits.raw_bytes().last().is_some_and(|byte| byte & unused != 0) {
                    return Err(MALFORMED);
                }
                self.key_usage = Some(decode(value)?);
            }
            BASIC_CONSTRAINTS => self.basic = Some(decode(value)?),
            EXTENDED_KEY_USAGE => self.purposes = decode::<ExtendedKeyUsage>(value)?.0,
            SUBJECT_ALT_NAME => {
                let names = Names::of(&decode::<SubjectAltName>(value)?)?;
                let understood = !names.is_empty();
                self.names = Some(names);
                return Ok(understood);
            }
            NAME_CONSTRAINTS => {
                let constraints = Constraints::of(&decode::<NameConstraints>(value)?)?;
                let understood = !constraints.has_other_forms;
                self.constraints = Some(constraints);
                return Ok(understood);
            }
            // What these say changes nothing, but what cannot be read is refused, as in the reference.
            CERTIFICATE_POLICIES => {
                let policies = decode::<CertificatePolicies>(value)?.0;
                let distinct: BTreeSet<_> = policies.iter().map(|p| p.policy_identifier).collect();
                if distinct.len() != policies.len() {
                    return Err(MALFORMED);
                }
            }
            INHIBIT_ANY_POLICY => drop(decode::<InhibitAnyPolicy>(value)?),
            REVOCATION_LISTS => {
                let points = decode::<CrlDistributionPoints>(value)?.0;
                let relative = |point: &DistributionPoint| {
                    matches!(
                        point.distribution_point,
                        Some(DistributionPointName::NameRelativeToCRLIssuer(_))
                    )
                };
                if points.iter().any(relative) {
                    return Err(MALFORMED);
                }
            }
            AUTHORITY_INFORMATION => {
                never_critical(extension)?;
                drop(decode::<AuthorityInfoAccessSyntax>(value)?);
            }
            POLICY_CONSTRAINTS => {
                decode::<PolicyConstraints>(value)?;
                self.restricts_policies = true;
            }
            POLICY_MAPPINGS => {
                decode::<PolicyMappings>(value)?;
                self.restricts_policies = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn decode<'a, T: Decode<'a>>(value: &'a [u8]) -> Result<T, &'static str> {
    if !has_plain_oids(value) {
        return Err(MALFORMED);
    }
    T::from_der(value).map_err(|_| MALFORMED)
}

/// Whether every object identifier has arcs that Go's crypto/x509 reads: in the shortest form, and below 2^31.
///
/// The library below takes longer forms for other identifiers, so that an extension could hide.
fn has_plain_oids(der: &[u8]) -> bool {
    let mut left = vec![der];
    while let Some(values) = left.pop() {
        let Ok(mut reader) = SliceReader::new(values) else { return false };
        while !reader.is_finished() {
            let Ok(value) = Header::decode(&mut reader)
                .and_then(|header| reader.read_slice(header.length).map(|value| (header.tag, value)))
            else {
                return false;
            };
            match value {
                (Tag::ObjectIdentifier, arcs)
                    if !arcs.split_inclusive(|b| b & 0x80 == 0).all(is_plain_arc) =>
                {
                    return false;
                }
                (tag, value) if tag.is_constructed() && !value.is_empty() => left.push(value),
                _ => {}
            }
        }
    }
    true
}

/// RFC 5280 leaves the size open; Go's crypto/x509 takes 31 bits.
fn is_plain_arc(arc: &[u8]) -> bool {
    let number = arc.iter().try_fold(0_u64, |number, byte| {
        number.checked_mul(128).map(|high| high | u64::from(byte & 0x7f)).filter(|number| *number < 1 << 31)
    });
    let is_whole = arc.last().is_some_and(|byte| byte & 0x80 == 0);
    arc.first() != Some(&0x80) && is_whole && number.is_some()
}

/// RFC 5280, 4.2.1.1, 4.2.1.2 and 4.2.2.1.
fn never_critical(extension: &Extension) -> Result<(), &'static str> {
    if extension.critical { Err("a certificate has a critical extension that never is") } else { Ok(()) }
}

/// The algorithm of a certificate's signature, if it is one that may be used.
fn signature_algorithm(identifier: &AlgorithmIdentifierOwned) -> Option<SignatureAlgorithm> {
    Some(match identifier.oid {
        ECDSA_SHA256 => SignatureAlgorithm::Ecdsa(Hash::Sha256),
        ECDSA_SHA384 => SignatureAlgorithm::Ecdsa(Hash::Sha384),
        ECDSA_SHA512 => SignatureAlgorithm::Ecdsa(Hash::Sha512),
        key::ED25519 if identifier.parameters.is_none() => SignatureAlgorithm::Ed25519,
        RSA_SHA256 => SignatureAlgorithm::RsaPkcs1(Hash::Sha256),
        RSA_SHA384 => SignatureAlgorithm::RsaPkcs1(Hash::Sha384),
        RSA_SHA512 => SignatureAlgorithm::RsaPkcs1(Hash::Sha512),
        RSA_PSS => SignatureAlgorithm::RsaPss(pss_hash(identifier)?),
        _ => return None,
    })
}

/// The hash of RSASSA-PSS with the parameters that everybody writes: the same hash for the mask, a salt of its length;
/// RFC 4055, 3.1 and 6.
fn pss_hash(identifier: &AlgorithmIdentifierOwned) -> Option<Hash> {
    let parameters = identifier.parameters.as_ref()?.to_der().ok()?;
    [(Hash::Sha256, 1, 32), (Hash::Sha384, 2, 48), (Hash::Sha512, 3, 64)].into_iter().find_map(
        |(hash, oid, salt)| {
            // SEQUENCE of [0] hash, [1] MGF1 with the hash, [2] salt; the hashes with NULL parameters.
            let sha2 = [0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, oid, 5, 0];
            let mgf1 = [0x30, 26, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
            let tail = [0xa2, 3, 2, 1, salt];
            let wanted = [&[0x30, 52, 0xa0, 15][..], &sha2, &[0xa1, 28], &mgf1, &sha2, &tail].concat();
            (wanted == parameters).then_some(hash)
        },
    )
}

const MALFORMED: &str = "an extension of a certificate is malformed";

/// Most bytes of a certificate. Those of Fulcio have less than 1 KiB, and of authorities seldom more than 4 KiB.
const CERTIFICATE_BYTES: usize = super::identity::CERTIFICATE_BYTES;

/// Most certificates in a bundle of authorities or intermediates. Hosts trust some 150 for the web.
pub(in crate::verify) const BUNDLE: usize = 1_024;

/// Most certificates in the annotation of a signature. cosign writes two or three.
pub(in crate::verify) const CHAIN: usize = 64;

/// RFC 5280, 4.2.1.12.
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
/// RFC 5280, 4.2.2.1.
const AUTHORITY_INFORMATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1");
/// RFC 5280, 4.2.1.1.
const AUTHORITY_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
/// RFC 5280, 4.2.1.9.
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
/// RFC 5280, 4.2.1.4.
const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
/// RFC 5280, 4.2.1.12.
const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
/// RFC 5758, 3.2.
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// RFC 5758, 3.2.
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
/// RFC 5758, 3.2.
const ECDSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
/// RFC 5280, 4.2.1.12.
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
/// RFC 5280, 4.2.1.14.
const INHIBIT_ANY_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.54");
/// RFC 5280, 4.2.1.3.
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
/// RFC 5280, 4.2.1.10.
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
/// RFC 5280, 4.2.1.11.
const POLICY_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.36");
/// RFC 5280, 4.2.1.5.
const POLICY_MAPPINGS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.33");
/// RFC 5280, 4.2.1.13.
const REVOCATION_LISTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
/// RFC 4055, 3.1.
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// RFC 4055, 5.
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
/// RFC 4055, 5.
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
/// RFC 4055, 5.
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
/// RFC 5280, 4.2.1.6.
pub(in crate::verify) const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// RFC 5280, 4.2.1.2.
const SUBJECT_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");

#[cfg(test)]
mod tests {
    use x509_cert::der::Decode;
    use x509_cert::spki::AlgorithmIdentifierOwned;

    use super::{
        BUNDLE, CERTIFICATE_BYTES, Certificate, Error, Hash, all, authorities, has_plain_oids, pss_hash,
    };
    use crate::verify::samples::{Issued, MIDDLE, authority, email, extension, pem, signer};

    /// The certificate with the first `from` replaced by `to`.
    fn patched(der: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = der.windows(from.len()).position(|w| w == from).unwrap();
        [&der[..at], to, &der[at + from.len()..]].concat()
    }

    fn sample() -> Issued {
        let mut params = signer(&[email("a@b.example")]);
        params.serial_number = Some(5_u64.into());
        params.custom_extensions.push(extension(&[1, 2, 3, 4], false, b"\x05\x00"));
        params.custom_extensions.push(extension(&[1, 2, 3, 5], false, b"\x05\x00"));
        Issued::new(params, None)
    }

    // Rules C-31, C-33, C-34: one form, and nothing twice.
    #[test]
    fn a_certificate_is_exactly_der() {
        let der = sample().der;
        let certificate = Certificate::from_der(&der).unwrap();
        assert!(certificate.is_valid_at(MIDDLE) && certificate.is_signed_by(&certificate));
        assert_eq!(certificate.issuer_name(), "CN=signer");
        let rows: [(&str, &[u8], &[u8]); 10] = [
            ("version 2 with extensions", b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"),
            ("version 4", b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03"),
            ("a negative serial number", b"\x02\x01\x05", b"\x02\x01\x85"),
            ("an extension twice", b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04"),
            ("two algorithms", b"\x2a\x86\x48\xce\x3d\x04\x03\x02", b"\x2a\x86\x48\xce\x3d\x04\x03\x03"),
            ("unused bits", b"\x03\x02\x07\x80", b"\x03\x02\x07\x81"),
            ("a truth that is not 255", b"\x01\x01\xff", b"\x01\x01\x01"),
            ("a name that is no text", b"\x0c\x06signer", b"\x04\x06signer"),
            ("a name that is not UTF-8", b"\x0c\x06signer", b"\x0c\x06sign\xffr"),
            ("an e-mail address that is not ASCII", b"a@b.example", b"a@b.ex\xffmple"),
        ];
        for (what, from, to) in rows {
            assert!(Certificate::from_der(&patched(&der, from, to)).is_err(), "{what}");
        }
        assert!(Certificate::from_der(&[&der[..], &[0]].concat()).is_err(), "trailing");
        assert!(Certificate::from_der(&[]).is_err());
        // Longer forms of 2.5.29.17 and arcs beyond 31 bits, which others refuse or read as something else.
        for oid in [
            &b"\x06\x04\x55\x80\x1d\x11"[..],
            b"\x06\x03\x80\x55\x1d",
            b"\x06\x06\x2a\x88\x80\x80\x80\x00",
            b"\x06\x02\x55\x9d",
        ] {
            assert!(!has_plain_oids(oid), "{oid:02x?}");
            let nested = [&[0x30, u8::try_from(oid.len()).unwrap()][..], oid].concat();
            assert!(!has_plain_oids(&nested), "{nested:02x?}");
        }
        assert!(has_plain_oids(b"\x30\x0d\x06\x03\x55\x1d\x11\x06\x06\x2a\x87\xff\xff\xff\x7f"));
        let long = vec![0; CERTIFICATE_BYTES + 1];
        assert_eq!(Certificate::from_der(&long).err(), Some("a certificate is larger than 16 KiB"));
    }

    // Rule C-33: what was never meant to be critical, and values that are none.
    #[test]
    fn known_extensions_are_well_formed() {
        for (oid, critical, value, wanted) in [
            (&[2, 5, 29, 14][..], true, &b"\x04\x01\x01"[..], false),
            (&[2, 5, 29, 14], false, b"\x04\x01\x01", true),
            (&[2, 5, 29, 14], false, b"\x04\x01\x01\x00", false),
            (&[2, 5, 29, 35], true, b"\x30\x00", false),
            (&[2, 5, 29, 35], false, b"\x30\x00", true),
            (&[2, 5, 29, 19], false, b"\x30\x00", true),
            (&[2, 5, 29, 19], false, b"\x30\x06\x01\x01\xff\x02\x01\xff", false),
            (&[2, 5, 29, 32], true, b"\x30\x00", true),
            (
                &[2, 5, 29, 32],
                false,
                b"\x30\x0e\x30\x05\x06\x03\x2a\x03\x04\x30\x05\x06\x03\x2a\x03\x04",
                false,
            ),
            (&[2, 5, 29, 31], true, b"\x30\x02\x30\x00", true),
            (&[2, 5, 29, 31], false, b"\x05\x00", false),
            (&[2, 5, 29, 31], false, b"\x30\x09\x30\x07\xa0\x05\xa0\x03\x86\x01\x61", true),
            (
                &[2, 5, 29, 31],
                false,
                b"\x30\x12\x30\x10\xa0\x0e\xa1\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03\x61\x62\x63",
                false,
            ),
            (&[2, 5, 29, 54], true, b"\x02\x01\x00", true),
            (&[2, 5, 29, 54], false, b"\x05\x00", false),
            (&[2, 5, 29, 36], true, b"\x30\x03\x80\x01\x00", true),
            (&[2, 5, 29, 36], false, b"\x30\x03\x80\x01\xff", false),
            (&[2, 5, 29, 33], false, b"\x05\x00", false),
            (&[2, 5, 29, 15], false, b"\x03\x02\x07\x80", true),
            (&[2, 5, 29, 15], false, b"\x03\x02\x07\x81", false),
            (&[2, 5, 29, 37], false, b"\x05\x00", false),
            (&[2, 5, 29, 30], false, b"\x30\x00", false),
            (&[1, 3, 6, 1, 5, 5, 7, 1, 1], true, b"\x30\x00", false),
            (&[1, 3, 6, 1, 5, 5, 7, 1, 1], false, b"\x05\x00", false),
        ] {
            let mut params = signer(&[]);
            (params.key_usages, params.extended_key_usages) = (Vec::new(), Vec::new());
            params.custom_extensions.push(extension(oid, critical, value));
            let issued = Issued::new(params, None);
            assert_eq!(Certificate::from_der(&issued.der).is_ok(), wanted, "{oid:?} {critical} {value:02x?}");
        }
    }

    // Rule C-33: hostile bytes are refused or read, and nothing else.
    #[test]
    fn damage_never_panics() {
        let mut params = authority("root");
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::Rfc822Name("b.example".to_owned())],
            excluded_subtrees: Vec::new(),
        });
        params.subject_alt_names = vec![email("a@b.example"), crate::verify::samples::uri("https://a/")];
        let der = Issued::new(params, None).der;
        for at in 0..der.len() {
            assert!(Certificate::from_der(&der[..at]).is_err());
            for byte in [0, 1, 0x7f, 0x80, 0xff, der[at] ^ 1, der[at] ^ 0x20] {
                let mut damaged = der.clone();
                damaged[at] = byte;
                if let Ok(certificate) = Certificate::from_der(&damaged) {
                    let _ = (certificate.issuer_name(), certificate.is_signed_by(&certificate));
                }
            }
        }
    }

    // Rule C-30.
    #[test]
    fn a_bundle_is_what_can_be_read_of_it() {
        let (one, two) = (sample(), Issued::new(authority("root"), None));
        let (first, second) = (one.pem(), two.pem());
        let headers = second.replacen("-----\n", "-----\nA: b\n\n", 1);
        let broken = pem("CERTIFICATE", &one.der[1..]);
        for (what, bundle, wanted) in [
            ("two", format!("{first}{second}"), Ok(2)),
            ("text around", format!("# root\n{first}# more\n{second}x"), Ok(2)),
            ("one that cannot be read", format!("{broken}{second}"), Ok(1)),
            ("only such", broken.clone(), Err(Error::None)),
            ("another label", first.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), Err(Error::None)),
            ("another label, and one", format!("{}{second}", first.replace("CERTIFICATE", "X")), Ok(1)),
            ("headers", headers, Err(Error::None)),
            ("DER", String::from_utf8_lossy(&one.der).into_owned(), Err(Error::None)),
            ("nothing", String::new(), Err(Error::None)),
            ("many", pem("CERTIFICATE", b"x").repeat(BUNDLE) + &first, Err(Error::TooMany)),
        ] {
            assert_eq!(authorities(bundle.as_bytes()).map(|all| all.len()), wanted, "{what}");
        }
    }

    // Rules C-31, C-32, C-40.
    #[test]
    fn a_chain_is_read_as_a_whole() {
        let (one, two) = (sample(), Issued::new(authority("root"), None));
        let (first, second) = (one.pem(), two.pem());
        let broken = pem("CERTIFICATE", &one.der[1..]);
        for (what, text, wanted) in [
            ("nothing", String::new(), Some(0)),
            ("blanks", " \n\u{a0}".to_owned(), Some(0)),
            ("two", format!("{first}{second}"), Some(2)),
            ("other labels", format!("{first}{second}").replace("CERTIFICATE", "X"), Some(2)),
            ("blanks around", format!(" \t{first}\n\n"), Some(1)),
            ("text before", format!("x\n{first}"), Some(1)),
            ("text after", format!("{first}x"), None),
            ("one that cannot be read", format!("{first}{broken}"), None),
            ("three", first.repeat(3), None),
        ] {
            assert_eq!(all(text.as_bytes(), 2).ok().map(|all| all.len()), wanted, "{what}");
        }
    }

    // Rule C-33: RFC 4055, 3.1, with the hash, the mask's hash and the salt that all others have, and other values.
    #[test]
    fn pss_is_read_in_its_usual_forms() {
        let identifier = |hash: u8, mask: u8, salt: u8| {
            let sha2 = |n: u8| [0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, n, 5, 0];
            let mgf1 = [0x30, 26, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
            let parameters = [
                &[0x30, 52, 0xa0, 15][..],
                &sha2(hash),
                &[0xa1, 28],
                &mgf1,
                &sha2(mask),
                &[0xa2, 3, 2, 1, salt],
            ];
            let oid = [0x30, 65, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
            AlgorithmIdentifierOwned::from_der(&[&oid[..], &parameters.concat()].concat()).unwrap()
        };
        for (hash, mask, salt, wanted) in [
            (1, 1, 32, Some(Hash::Sha256)),
            (2, 2, 48, Some(Hash::Sha384)),
            (3, 3, 64, Some(Hash::Sha512)),
            (1, 2, 32, None),
            (1, 1, 20, None),
            (4, 4, 28, None),
        ] {
            assert_eq!(pss_hash(&identifier(hash, mask, salt)), wanted, "{hash} {mask} {salt}");
        }
    }
}
