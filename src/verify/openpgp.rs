//! [`verify`]: one OpenPGP message, the keys of a `signedBy` requirement and a time in; the claim out.
//!
//! Sequoia reads packets, checks self-signatures and does the arithmetic. What a message may look like, and when a
//! key counts, is decided here, because it must be what gpgme decides, or stricter.

mod audit;

use std::borrow::Cow;
use std::iter;
use std::ptr;
use std::time::{Duration, SystemTime};

use sequoia_openpgp::cert::prelude::*;
use sequoia_openpgp::crypto::hash::Hash;
use sequoia_openpgp::crypto::mpi::PublicKey;
use sequoia_openpgp::packet::key::{PublicParts, UnspecifiedRole};
use sequoia_openpgp::packet::signature::subpacket::SubpacketTag;
use sequoia_openpgp::packet::{Key, OnePassSig, Packet, Signature, Tag};
use sequoia_openpgp::parse::buffered_reader::BufferedReader;
use sequoia_openpgp::parse::{Cookie, Dearmor, PacketParser, PacketParserBuilder, PacketParserResult, Parse};
use sequoia_openpgp::policy::{AsymmetricAlgorithm, HashAlgoSecurity, StandardPolicy};
use sequoia_openpgp::types::{
    CompressionAlgorithm, Curve, DataFormat, HashAlgorithm, KeyFlags, PublicKeyAlgorithm, SignatureType,
};
use sequoia_openpgp::{Fingerprint, KeyHandle, serialize};

use crate::json;

use super::facts::Facts;
use super::trust::KeyMaterial;
use super::{Claim, Payload, Rejection, SIGNATURE_BYTES, Signer, Timestamp, Verified};

pub use audit::Audit;

/// The OpenPGP certificates of one key file (rule G-8).
#[derive(Debug)]
pub struct Certificates {
    certs: Vec<Cert>,
    /// There were more than [`CERTIFICATES`]. None is kept: one left out could have held a revocation.
    too_many: bool,
    /// Whether one came with its secret part, which is not kept.
    have_secrets: bool,
    facts: Facts,
}

impl Certificates {
    /// Reads a binary keyring, or any number of armored blocks; what is neither holds no certificate (rule G-8).
    pub fn parse(bytes: &[u8]) -> Self {
        let (mut certs, mut have_secrets) = (Vec::new(), false);
        for ring in keyrings(bytes) {
            // A certificate that Sequoia cannot represent is skipped, as gpg does.
            let read = CertParser::from_iter(packets(&ring)).filter_map(Result::ok);
            let read = read.inspect(|cert| have_secrets |= cert.is_tsk());
            certs.extend(read.take(CERTIFICATES + 1).map(Cert::strip_secret_key_material));
            if certs.len() > CERTIFICATES {
                return Self { certs: Vec::new(), too_many: true, have_secrets, facts: Facts::default() };
            }
        }
        Self { certs, too_many: false, have_secrets, facts: Facts::default() }
    }

    /// Whether no signature can be verified with it.
    pub fn is_empty(&self) -> bool {
        self.certs.is_empty()
    }

    /// How many armored blocks `bytes` are, if they are no binary keyring: not all tools read more than the first
    /// (rule G-8).
    pub fn armored_blocks(bytes: &[u8]) -> usize {
        if is_binary(bytes) { 0 } else { keyrings(bytes).len() }
    }

    /// Fingerprints of the primary keys, upper-case hexadecimal.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.certs.iter().map(|cert| cert.fingerprint().to_hex())
    }
}

/// Verifies that `blob` is a message with exactly one signature, by one of `keys`, that is good at `now`.
///
/// Rules G-1 and G-3 to G-8. The payload is read only after everything else has been checked.
pub fn verify(blob: &[u8], keys: &[&KeyMaterial], now: Timestamp) -> Result<Verified<Claim>, Rejection> {
    let moment = moment(now)?;
    check_keys(keys)?;
    let (message, created, issuer) = read_message(blob)?;
    let cert = certificate(keys, &issuer)?;
    let key = signing_key(&cert, &issuer)?;
    check_algorithm(key.key())?;
    check_algorithm(primary(&cert))?;
    check_hash_size(key.key(), message.signature.hash_algo())?;
    let facts = keys.first().map(|material| &material.certificates().facts);
    check_signature(&message, key.key(), facts)?;

    check_signature_expiry(&message.signature, moment)?;
    let rules = rules(moment);
    check_revocation(&cert, &key, &rules)?;
    let key = bound_key(&key, &rules, moment)?;
    check_expiry(&key, moment)?;
    check_capability(&key)?;

    Ok(Verified::assert(Claim {
        payload: Payload::parse_simple_signing(&message.content)?,
        signer: Signer::OpenPgp { fingerprint: cert.fingerprint().to_hex() },
        time: Some(created),
    }))
}

/// A message of which everything may be said that needs no key, when it says that it was made, and the key it names.
fn read_message(blob: &[u8]) -> Result<(Message, Timestamp, KeyHandle), Rejection> {
    let message = Message::parse(blob)?;
    check_kind(&message.signature)?;
    check_hash(message.signature.hash_algo())?;
    check_critical(&message.signature)?;
    let created = creation(&message.signature)?;
    let issuer = issuer(&message.signature)?;
    Ok((message, created, issuer))
}

/// What a message says of itself: nothing about it has been verified.
pub(in crate::verify) struct Unverified {
    /// Fingerprint or key ID, upper-case hexadecimal.
    pub(in crate::verify) issuer: String,
    pub(in crate::verify) created: Timestamp,
    pub(in crate::verify) content: Vec<u8>,
}

/// Reads a message as [`verify`] does before it looks for a key.
pub(in crate::verify) fn unverified(blob: &[u8]) -> Result<Unverified, Rejection> {
    let (Message { content, .. }, created, issuer) = read_message(blob)?;
    Ok(Unverified { issuer: issuer.to_hex(), created, content })
}

/// The form of a message is good, whoever signed it.
pub fn check_form(blob: &[u8]) -> Result<(), Rejection> {
    unverified(blob).map(|_| ())
}

/// `now` as OpenPGP can say it: its times end in 2106.
fn moment(now: Timestamp) -> Result<SystemTime, Rejection> {
    u32::try_from(now.0)
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.into())))
        .ok_or(Rejection::Unsupported { what: "OpenPGP signatures before 1970 or after 2106" })
}

/// There must be a key.
///
/// Rule G-1: before the signature is looked at.
fn check_keys(keys: &[&KeyMaterial]) -> Result<(), Rejection> {
    let invalid = |source: &str, detail| Err(Rejection::KeyFileInvalid { source: source.to_owned(), detail });
    if let Some(key) = keys.iter().find(|key| key.certificates().too_many) {
        return invalid(key.source(), "it holds more than 1024 OpenPGP keys");
    }
    if keys.iter().all(|key| key.certificates().is_empty()) {
        return invalid(keys.first().map_or("signedBy", |key| key.source()), "it holds no OpenPGP key");
    }
    Ok(())
}

/// A signed message with its content, as it arrived.
struct Message {
    signature: Signature,
    content: Vec<u8>,
}

impl Message {
    /// Unwraps compression until a signature around one literal is found (rules G-4, G-5).
    ///
    /// Not done with Sequoia's `Verifier`: it keeps every packet of a compressed message, however many.
    fn parse(blob: &[u8]) -> Result<Self, Rejection> {
        if blob.len() > SIGNATURE_BYTES {
            return Err(malformed("it is larger than 4 MiB"));
        }
        let mut bytes = Cow::Borrowed(blob);
        let mut room = SIGNATURE_BYTES;
        for _ in 0..=COMPRESSIONS {
            let mut parts = parts(&bytes, room)?.into_iter();
            match (parts.next(), parts.next(), parts.next()) {
                (Some(Part::Compressed(inner)), None, None) => {
                    room = room.saturating_sub(inner.len());
                    bytes = Cow::Owned(inner);
                }
                (
                    Some(Part::OnePass(announced)),
                    Some(Part::Literal(content)),
                    Some(Part::Signature(signature)),
                ) => {
                    check_announcement(&announced, &signature)?;
                    return Ok(Self { signature, content });
                }
                (Some(Part::Signature(signature)), Some(Part::Literal(content)), None) => {
                    return Ok(Self { signature, content });
                }
                _ => return Err(malformed("it is not one OpenPGP signature together with what it signs")),
            }
        }
        Err(malformed("it is compressed more than 4 times"))
    }
}

/// A packet that a signed message may consist of.
enum Part {
    Compressed(Vec<u8>),
    Literal(Vec<u8>),
    OnePass(OnePassSig),
    Signature(Signature),
}

/// The packets in `bytes`, of which the largest permitted message has three. ASCII armor is none.
///
/// Sequoia is given each packet by itself, and only if all have their place: in a stream, after one that is damaged, it
/// looks for the next at every byte, which takes seconds. What is compressed may expand to `room` bytes.
fn parts(bytes: &[u8], room: usize) -> Result<Vec<Part>, Rejection> {
    const SHAPES: [&[Tag]; 3] = [
        &[Tag::CompressedData],
        &[Tag::OnePassSig, Tag::Literal, Tag::Signature],
        &[Tag::Signature, Tag::Literal],
    ];
    let (mut tags, mut packets, mut rest) = (Vec::new(), Vec::new(), bytes);
    while !rest.is_empty() {
        if packets.len() == 3 {
            return Err(malformed("it holds more than one signature with what it signs"));
        }
        let Split { tag, packet, rest: next } = split_packet(rest).ok_or(unreadable())?;
        if !matches!(tag, Tag::CompressedData | Tag::OnePassSig | Tag::Literal | Tag::Signature) {
            return Err(malformed("it holds a packet that has no place in a signed message"));
        }
        tags.push(tag);
        packets.push(packet);
        rest = next;
    }
    if !SHAPES.contains(&tags.as_slice()) {
        return Err(malformed("it is not one OpenPGP signature together with what it signs"));
    }
    packets.iter().map(|packet| read(packet, room)).collect()
}

/// Reads the one packet in `bytes`.
fn read(bytes: &[u8], room: usize) -> Result<Part, Rejection> {
    let parser = PacketParserBuilder::from_bytes(bytes)
        .and_then(|builder| builder.dearmor(Dearmor::Disabled).automatic_hashing(false).build());
    let Ok(PacketParserResult::Some(mut parser)) = parser else { return Err(unreadable()) };
    let body = if let Packet::CompressedData(data) = &parser.packet {
        let is_slow = data.algo() == CompressionAlgorithm::BZip2;
        body(&mut parser, if is_slow { room.min(BZIP2_BYTES) } else { room })?
    } else if let Packet::Literal(_) = &parser.packet {
        body(&mut parser, SIGNATURE_BYTES)?
    } else {
        Vec::new()
    };
    let (packet, _) = parser.next().map_err(|_| unreadable())?;
    part(packet, body)
}

/// The content of a container, uncompressed, if it is no larger than `limit`.
fn body(parser: &mut impl BufferedReader<Cookie>, limit: usize) -> Result<Vec<u8>, Rejection> {
    let body = parser.data(limit + 1).map_err(|_| malformed("its content is damaged"))?;
    if body.len() > limit {
        return Err(malformed("it expands to more than 4 MiB, or 256 KiB if compressed with bzip2"));
    }
    Ok(body.to_vec())
}

/// Everything but the four kinds is refused, encryption and keys among it.
fn part(packet: Packet, body: Vec<u8>) -> Result<Part, Rejection> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "Packet is non-exhaustive, and all others are refused"
    )]
    match packet {
        Packet::CompressedData(data) => match data.algo() {
            CompressionAlgorithm::Zip | CompressionAlgorithm::Zlib | CompressionAlgorithm::BZip2 => {
                Ok(Part::Compressed(body))
            }
            _ => Err(malformed("it is compressed by an unknown method")),
        },
        Packet::Literal(literal) => match literal.format() {
            DataFormat::Unknown(_) => Err(malformed("its content is of an unknown kind")),
            _ => Ok(Part::Literal(body)),
        },
        Packet::OnePassSig(announced) => Ok(Part::OnePass(announced)),
        Packet::Signature(signature) => Ok(Part::Signature(signature)),
        _ => Err(malformed("it holds a packet that has no place in a signed message")),
    }
}

/// A one-pass packet must announce the signature that follows, and no other.
///
/// RFC 9580, section 5.4. gpg computes the digest that is announced.
fn check_announcement(announced: &OnePassSig, signature: &Signature) -> Result<(), Rejection> {
    if announced.last()
        && announced.typ() == signature.typ()
        && announced.hash_algo() == signature.hash_algo()
        && announced.pk_algo() == signature.pk_algo()
    {
        return Ok(());
    }
    Err(malformed("its one-pass packet announces another signature"))
}

/// The signature must be over a document, in a version that gpg 2.2 knows.
///
/// RFC 9580, section 5.2.1; rule G-4 for versions 3 and 4.
fn check_kind(signature: &Signature) -> Result<(), Rejection> {
    if !matches!(signature.version(), 3 | 4) {
        return Err(malformed("it is of an unknown version"));
    }
    if !matches!(signature.typ(), SignatureType::Binary | SignatureType::Text) {
        return Err(malformed("it is not a signature of a document"));
    }
    Ok(())
}

/// The digest must be of the SHA-2 family: no MD5, SHA-1 or RIPEMD-160, and nothing that gpg 2.2 lacks.
///
/// Rule G-5.
fn check_hash(hash: HashAlgorithm) -> Result<(), Rejection> {
    use HashAlgorithm::{MD5, RipeMD, SHA1, SHA224, SHA256, SHA384, SHA512};
    if matches!(hash, SHA224 | SHA256 | SHA384 | SHA512) {
        Ok(())
    } else if matches!(hash, MD5 | SHA1 | RipeMD) {
        Err(Rejection::WeakAlgorithm { algorithm: hash.to_string() })
    } else {
        Err(malformed("it uses an unknown digest algorithm"))
    }
}

/// What is marked critical must be known here.
///
/// RFC 9580, section 5.2.3.7. The list is gpg's, less what has no meaning for documents.
fn check_critical(signature: &Signature) -> Result<(), Rejection> {
    use SubpacketTag::{
        Issuer, IssuerFingerprint, PolicyURI, PreferredKeyServer, SignatureCreationTime,
        SignatureExpirationTime,
    };
    let known = |tag| {
        matches!(
            tag,
            Issuer
                | IssuerFingerprint
                | PolicyURI
                | PreferredKeyServer
                | SignatureCreationTime
                | SignatureExpirationTime
        )
    };
    let mut subpackets = signature.hashed_area().iter().chain(signature.unhashed_area().iter());
    if subpackets.any(|subpacket| subpacket.critical() && !known(subpacket.tag())) {
        return Err(malformed("it has a critical subpacket that is not known here"));
    }
    Ok(())
}

/// When the signature says that it was made, under its own protection.
///
/// RFC 9580, section 5.2.3.11: it must say so.
fn creation(signature: &Signature) -> Result<Timestamp, Rejection> {
    signature
        .signature_creation_time()
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .and_then(|elapsed| i64::try_from(elapsed.as_secs()).ok())
        .map(Timestamp)
        .ok_or(malformed("it does not say when it was made"))
}

/// The one key that the signature names. It is only a hint: nothing protects it.
fn issuer(signature: &Signature) -> Result<KeyHandle, Rejection> {
    let named = signature.get_issuers();
    let first = named.first().ok_or(Rejection::KeyUnknown { key: None })?;
    if !named.iter().all(|other| first.aliases(other)) {
        return Err(malformed("it names more than one key"));
    }
    Ok(first.clone())
}

/// The certificate that `issuer` belongs to, as all sources together have it.
///
/// Copies are merged, as gpg does on import: an expiry or a revocation counts wherever it is. A key that belongs to
/// several certificates has no owner (rule G-6).
fn certificate<'a>(keys: &[&'a KeyMaterial], issuer: &KeyHandle) -> Result<Cow<'a, Cert>, Rejection> {
    let all = || keys.iter().flat_map(|key| &key.certificates().certs);
    let unknown = || Rejection::KeyUnknown { key: Some(issuer.to_hex()) };
    let owner = all().find(|cert| signing_key(cert, issuer).is_ok()).ok_or_else(unknown)?;
    let is_copy = |cert: &Cert| cert.fingerprint() == owner.fingerprint();
    if all().any(|cert| !is_copy(cert) && signing_key(cert, issuer).is_ok()) {
        return Err(unusable(issuer.to_hex(), "it belongs to more than one OpenPGP key"));
    }
    let mut copies = all().filter(|cert| is_copy(cert) && !ptr::eq(*cert, owner));
    copies.try_fold(Cow::Borrowed(owner), |merged, copy| {
        merged.into_owned().merge_public(copy.clone()).map(Cow::Owned).map_err(|_| unknown())
    })
}

/// The key of `cert` that `issuer` names: the primary key, or a subkey with a genuine binding.
fn signing_key<'a>(
    cert: &'a Cert,
    issuer: &KeyHandle,
) -> Result<ErasedKeyAmalgamation<'a, PublicParts>, Rejection> {
    cert.keys()
        .find(|key| {
            key.key().key_handle().aliases(issuer)
                && (key.primary() || key.self_signatures().next().is_some())
        })
        .ok_or_else(|| Rejection::KeyUnknown { key: Some(issuer.to_hex()) })
}

/// The algorithm must be one that gpg 2.2 and every backend know: RSA, DSA, ECDSA on a NIST curve, Ed25519.
///
/// Rule G-5; curves of Brainpool and secp256k1 are missing in the backend `crypto-rust`.
#[expect(deprecated, reason = "publishers still sign with keys of the deprecated kinds")]
fn check_algorithm(key: &Key<PublicParts, UnspecifiedRole>) -> Result<(), Rejection> {
    use PublicKeyAlgorithm::{DSA, ECDSA, EdDSA, RSAEncryptSign, RSASign};
    let weak = |name, bits| Err(Rejection::WeakAlgorithm { algorithm: format!("{name} with {bits} bits") });
    let curve = |curve: &Curve| matches!(curve, Curve::NistP256 | Curve::NistP384 | Curve::NistP521);
    match (key.pk_algo(), key.mpis()) {
        _ if key.version() != 4 => Err(unusable(key.fingerprint().to_hex(), "its version is not supported")),
        (RSAEncryptSign | RSASign, PublicKey::RSA { n, .. }) if n.bits() < 2048 => weak("RSA", n.bits()),
        (RSAEncryptSign | RSASign, PublicKey::RSA { .. }) => Ok(()),
        (DSA, PublicKey::DSA { p, .. }) if p.bits() < 2048 => weak("DSA", p.bits()),
        (DSA, PublicKey::DSA { .. }) | (EdDSA, PublicKey::EdDSA { curve: Curve::Ed25519, .. }) => Ok(()),
        (ECDSA, PublicKey::ECDSA { curve: on, .. }) if curve(on) => Ok(()),
        _ => Err(unusable(key.fingerprint().to_hex(), "its algorithm is not supported")),
    }
}

/// The digest must not be shorter than the group, except that 512 bits do for P-521.
///
/// RFC 9580, section 5.2.3.2, and gpg's `encode_md_value`.
fn check_hash_size(key: &Key<PublicParts, UnspecifiedRole>, hash: HashAlgorithm) -> Result<(), Rejection> {
    let group = if let PublicKey::DSA { q, .. } = key.mpis() {
        q.bits()
    } else if let PublicKey::ECDSA { curve, .. } = key.mpis() {
        curve.bits().unwrap_or(usize::MAX).min(512)
    } else {
        0
    };
    match hash.digest_size() {
        Ok(size) if size * 8 >= group => Ok(()),
        _ => Err(Rejection::WeakAlgorithm { algorithm: format!("{hash} with a key of {group} bits") }),
    }
}

/// The signature must be the key's, over the content as it is; gpg converts no line ends for text signatures either.
///
/// RFC 9580, section 5.2.4. `Signature::verify_message` is not used: it enters each good signature in a cache of the
/// process (sequoia 2.4.2, packet/signature/cache.rs) that has neither limit nor removal, so that whoever can replay
/// good signatures, of any image, would fill the daemon's memory (rule T-18). `Key::verify` is below that cache. The
/// self-signatures of key files still pass through it: 32 bytes each, as many as there are in all key files.
fn check_signature(
    message: &Message,
    key: &Key<PublicParts, UnspecifiedRole>,
    facts: Option<&Facts>,
) -> Result<(), Rejection> {
    let signature = &message.signature;
    let digest = || {
        let mut context = signature.hash_algo().context()?.for_signature(signature.version());
        context.update(&message.content);
        signature.hash(&mut context)?;
        context.into_digest()
    };
    let digest: Vec<u8> = digest().map_err(|_| Rejection::BadSignature)?;
    let verify = || key.verify(signature.mpis(), signature.hash_algo(), &digest).is_ok();
    let is_by_key = || {
        let parts =
            (serialize::MarshalInto::to_vec(key.mpis()), serialize::MarshalInto::to_vec(signature.mpis()));
        let (Some(facts), (Ok(key_bytes), Ok(signed))) = (facts, parts) else { return verify() };
        let algorithm = format!("OpenPGP {:?} {:?}", key.pk_algo(), signature.hash_algo());
        facts.established([algorithm.as_bytes(), &key_bytes, &digest], &signed, verify)
    };
    if signature.pk_algo() == key.pk_algo()
        && digest.starts_with(signature.digest_prefix())
        && signature.signature_creation_time() >= Some(key.creation_time())
        && is_by_key()
    {
        return Ok(());
    }
    Err(Rejection::BadSignature)
}

/// The signature must not have expired.
///
/// Rule G-5. One from the future is accepted, as gpgme does: early in a boot the clock of this host may be behind.
fn check_signature_expiry(signature: &Signature, now: SystemTime) -> Result<(), Rejection> {
    let made = signature.signature_creation_time().unwrap_or(now);
    if over(made, signature.signature_validity_period(), now) {
        Err(Rejection::SignatureExpired)
    } else {
        Ok(())
    }
}

/// Neither key may ever have been revoked, for whatever reason.
///
/// Rule G-5. As in gpg, and unlike in Sequoia, no later self-signature undoes a revocation. Stricter than gpg: one by a
/// designated revoker counts unverified, for that key need not be at hand; so does one that does not verify, for damage
/// to a key file must not bring a key back.
fn check_revocation(
    cert: &Cert,
    key: &ErasedKeyAmalgamation<'_, PublicParts>,
    rules: &StandardPolicy<'_>,
) -> Result<(), Rejection> {
    let revokers: Vec<&Fingerprint> =
        cert.revocation_keys(rules).map(|revoker| revoker.revoker().1).collect();
    let primary = ErasedKeyAmalgamation::from(cert.primary_key());
    let revokes =
        |bad: &Signature| matches!(bad.typ(), SignatureType::KeyRevocation | SignatureType::SubkeyRevocation);
    if cert.bad_signatures().any(revokes) {
        return Err(Rejection::KeyRevoked { key: cert.fingerprint().to_hex() });
    }
    for key in [&primary, key] {
        let designated = key.other_revocations().flat_map(|revocation| revocation.get_issuers());
        let mut designated =
            designated.filter(|issuer| revokers.iter().any(|revoker| revoker.aliases(issuer)));
        if key.self_revocations().next().is_some() || designated.next().is_some() {
            return Err(Rejection::KeyRevoked { key: key.key().fingerprint().to_hex() });
        }
    }
    Ok(())
}

/// What is asked of self-signatures, on top of their being genuine.
///
/// Old Red Hat keys have SHA-1 in theirs; to forge one takes a second preimage, not a collision. Algorithms of keys
/// are checked above, so that no built-in date changes verdicts.
fn rules(now: SystemTime) -> StandardPolicy<'static> {
    let mut rules = StandardPolicy::at(now);
    rules.accept_hash_property(HashAlgorithm::SHA1, HashAlgoSecurity::SecondPreImageResistance);
    for algorithm in
        [AsymmetricAlgorithm::DSA2048, AsymmetricAlgorithm::DSA3072, AsymmetricAlgorithm::DSA4096]
    {
        rules.accept_asymmetric_algo(algorithm);
    }
    rules
}

/// The key must be bound to its certificate now, and the certificate to a user ID.
///
/// Rule G-9: gpg imports no key without a genuine user ID.
fn bound_key<'a>(
    key: &ErasedKeyAmalgamation<'a, PublicParts>,
    rules: &'a StandardPolicy<'_>,
    now: SystemTime,
) -> Result<ValidErasedKeyAmalgamation<'a, PublicParts>, Rejection> {
    let name = |key: &Key<PublicParts, UnspecifiedRole>| key.fingerprint().to_hex();
    if primary(key.cert()).creation_time() > now {
        return Err(unusable(name(primary(key.cert())), "it was made in the future"));
    }
    let cert = key.cert().with_policy(rules, now);
    let cert = cert.map_err(|_| unusable(name(primary(key.cert())), "it has no valid self-signature"))?;
    if cert.userids().next().is_none() {
        return Err(unusable(name(primary(key.cert())), "it has no valid user ID"));
    }
    key.clone()
        .with_policy(rules, now)
        .map_err(|_| unusable(name(key.key()), "it is not bound to its primary key"))
}

/// Neither key may have expired, even if the signature is older.
///
/// Rule G-5. Where Sequoia and gpg read certificates differently, both must find them alive.
fn check_expiry(key: &ValidErasedKeyAmalgamation<'_, PublicParts>, now: SystemTime) -> Result<(), Rejection> {
    let expired = |key: &Key<PublicParts, UnspecifiedRole>| {
        Err(Rejection::KeyExpired { key: key.fingerprint().to_hex() })
    };
    let period = governing(key.cert(), lifetime);
    if key.valid_cert().alive().is_err() || over(primary(key.cert()).creation_time(), period, now) {
        return expired(primary(key.cert()));
    }
    let period = newest(key.self_signatures()).and_then(lifetime);
    if key.alive().is_err() || !key.primary() && over(key.key().creation_time(), period, now) {
        return expired(key.key());
    }
    Ok(())
}

/// The key must be for signing data. Only a primary key may leave that unsaid.
///
/// Rule G-7; RFC 9580, section 5.2.3.29. A subkey that says it has signed its binding itself, which Sequoia checks.
fn check_capability(key: &ValidErasedKeyAmalgamation<'_, PublicParts>) -> Result<(), Rejection> {
    let signing = |flags: KeyFlags| flags.for_signing();
    let able = if key.primary() {
        governing(key.cert(), |own| own.key_flags()).is_none_or(signing)
            && key.key_flags().is_none_or(signing)
    } else {
        newest(key.self_signatures()).and_then(|own| own.key_flags()).is_some_and(signing)
            && key.for_signing()
    };
    if !able {
        return Err(unusable(key.key().fingerprint().to_hex(), "it is not for signing"));
    }
    Ok(())
}

/// What the self-signatures on a primary key say of it, as gpg's `merge_selfsigs_main` finds it.
///
/// The newest signature on the key itself comes first, then the newest that says anything on a user ID in force.
fn governing<T>(cert: &Cert, says: impl Fn(&Signature) -> Option<T>) -> Option<T> {
    let direct = newest(cert.primary_key().self_signatures()).and_then(&says);
    direct.or_else(|| {
        let user_ids = cert.userids().filter_map(|id| {
            let signature = newest(id.self_signatures())?;
            let revoked =
                newest(id.self_revocations()).map(|revocation| revocation.signature_creation_time());
            let in_force = revoked.is_none_or(|revoked| revoked < signature.signature_creation_time());
            (in_force && says(signature).is_some()).then_some(signature)
        });
        newest(user_ids).and_then(&says)
    })
}

/// The signature made last.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.signature_creation_time())
}

/// How long a key lives. Zero means forever.
fn lifetime(signature: &Signature) -> Option<Duration> {
    signature.key_validity_period().filter(|period| !period.is_zero())
}

/// Whether a period is over. None, or a period of zero, never ends.
fn over(start: SystemTime, period: Option<Duration>, now: SystemTime) -> bool {
    period
        .filter(|period| !period.is_zero())
        .and_then(|period| start.checked_add(period))
        .is_some_and(|end| end <= now)
}

/// The primary key of a certificate.
fn primary(cert: &Cert) -> &Key<PublicParts, UnspecifiedRole> {
    cert.primary_key().key().role_as_unspecified()
}

fn malformed(detail: &'static str) -> Rejection {
    Rejection::MalformedSignature { detail }
}

fn unreadable() -> Rejection {
    malformed("it cannot be read as binary OpenPGP packets")
}

fn unusable(key: String, detail: &'static str) -> Rejection {
    Rejection::KeyUnusable { key, detail }
}

/// The binary keyrings in a key file: the file itself, or its armored blocks. None if a block is damaged: gpg then
/// imports nothing, or not all.
///
/// RFC 9580, section 6.2. A block begins at the start of a line, as for gpg; Sequoia's reader would also find one that
/// is commented out.
fn keyrings(bytes: &[u8]) -> Vec<Cow<'_, [u8]>> {
    if is_binary(bytes) {
        return vec![Cow::Borrowed(bytes)];
    }
    let mut rings = Vec::new();
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    while lines.by_ref().any(|line| ARMOR.contains(&line)) {
        let Some(ring) = dearmored(&mut lines) else { return Vec::new() };
        rings.push(Cow::Owned(ring));
    }
    rings
}

/// Whether a key file begins with a packet that gpg knows (its `is_armored`), and not with text.
fn is_binary(bytes: &[u8]) -> bool {
    let (first, second) = match bytes {
        [first, second, ..] => (*first, *second),
        [first] => (*first, 0),
        [] => return false,
    };
    let is_new = first & 0x40 != 0;
    let is_endless = if is_new { (224..255).contains(&second) } else { first & 3 == 3 };
    let tag = if is_new { first & 0x3f } else { (first >> 2) & 0xf };
    first & 0x80 != 0
        && match tag {
            8 | 9 | 11 | 16 | 18 | 61 | 63 => true,
            1..=7 | 10 | 12..=14 | 17 | 19 => !is_endless,
            _ => false,
        }
}

/// What an armored block holds, of which the first line has been read.
///
/// The checksum may be missing, or the last line, but not both; and where it is missing, padding must end the data, for
/// gpg 2.2 reads on into the last line. That it must be right is gpg's rule; RFC 9580, section 6.1, ignores it.
fn dearmored<'a>(lines: &mut impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let is_header = |line: &&[u8]| {
        let mut parts = line.splitn(2, |byte| *byte == b':').skip(1);
        parts.next().is_some_and(|value| matches!(value, [] | [b' ', ..]))
    };
    let mut lines = lines.map(<[u8]>::trim_ascii).skip_while(is_header);
    let mut text = String::new();
    let after = loop {
        let line = lines.next()?;
        if line.starts_with(END) {
            return None;
        }
        let (data, after) = line.split_at(line.iter().position(|byte| *byte == b'=').unwrap_or(line.len()));
        text.extend(data.iter().filter(|byte| !byte.is_ascii_whitespace()).map(|byte| char::from(*byte)));
        if !after.is_empty() {
            break after;
        }
    };
    text.extend(iter::repeat_n('=', text.len().wrapping_neg() % 4));
    let data = json::decode_base64(&text)?;

    // After the padding, if there is any, comes the checksum.
    let is_fill = |byte: &u8| *byte == b'=' || byte.is_ascii_whitespace();
    let is_done = |line: &[u8]| line.iter().all(is_fill);
    let after = if is_done(after) { lines.find(|line| !is_done(line))? } else { after };
    if after.starts_with(END) {
        return Some(data);
    }
    let begin = after.iter().position(|byte| !is_fill(byte))?;
    let sum = json::decode_base64(str::from_utf8(after.get(begin..begin + 4)?).ok()?)?;
    (sum == checksum(&data)).then_some(data)
}

/// The CRC-24 of an armored block (RFC 9580, section 6.1.1).
fn checksum(data: &[u8]) -> [u8; 3] {
    let sum = data.iter().fold(0x00b7_04ce_u32, |sum, byte| {
        (0..8).fold(sum ^ (u32::from(*byte) << 16), |sum, _| {
            let shifted = sum << 1;
            if shifted & 0x0100_0000 == 0 { shifted } else { shifted ^ 0x0186_4cfb }
        })
    });
    let [_, high, middle, low] = sum.to_be_bytes();
    [high, middle, low]
}

/// The packets of a keyring, up to whatever is none; the certificate that this cuts short is dropped, as gpg does.
///
/// As in [`parts`], Sequoia is given each packet by itself.
fn packets(ring: &[u8]) -> Vec<Packet> {
    let (mut packets, mut unknown, mut rest) = (Vec::new(), 0, ring);
    let is_known = |packet: &Packet| {
        matches!(
            packet,
            Packet::PublicKey(_)
                | Packet::PublicSubkey(_)
                | Packet::SecretKey(_)
                | Packet::SecretSubkey(_)
                | Packet::UserID(_)
                | Packet::UserAttribute(_)
                | Packet::Signature(_)
                | Packet::Trust(_)
        )
    };
    while let Some((packet, next)) = keyring_packet(rest) {
        unknown += usize::from(!is_known(&packet));
        if unknown > UNKNOWN_PACKETS {
            return Vec::new();
        }
        packets.push(packet);
        rest = next;
    }
    if !rest.is_empty() {
        let begin =
            packets.iter().rposition(|packet| matches!(packet.tag(), Tag::PublicKey | Tag::SecretKey));
        packets.truncate(begin.unwrap_or(0));
    }
    packets
}

/// The packet that a keyring begins with, and what follows it. The tags 0 and 63 stand for none, as does compression.
///
/// gpg stops at tag 63, and newer versions at compression, which Sequoia would undo without a limit here.
fn keyring_packet(ring: &[u8]) -> Option<(Packet, &[u8])> {
    let Split { tag, packet, rest } = split_packet(ring)?;
    if matches!(tag, Tag::Reserved | Tag::Private(63) | Tag::CompressedData) {
        return None;
    }
    let parser = PacketParserBuilder::from_bytes(&packet).and_then(|builder| {
        builder.dearmor(Dearmor::Disabled).automatic_hashing(false).buffer_unread_content().build()
    });
    let Ok(PacketParserResult::Some(mut parser)) = parser else { return None };
    if is_unreadable_revocation(&mut parser) {
        return None;
    }
    let (packet, _) = parser.next().ok()?;
    Some((packet, rest))
}

/// A packet whose length is sound, and what follows it.
struct Split<'a> {
    tag: Tag,
    /// With its header, which holds one length in place of partial ones.
    packet: Cow<'a, [u8]>,
    rest: &'a [u8],
}

/// The packet that `bytes` begins with. Only data may have partial lengths, or end where the bytes do.
///
/// RFC 9580, section 4.2.
fn split_packet(bytes: &[u8]) -> Option<Split<'_>> {
    let (&first, after) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return None;
    }
    let is_new = first & 0x40 != 0;
    let tag = Tag::from(if is_new { first & 0x3f } else { (first >> 2) & 0xf });
    let is_data = matches!(tag, Tag::CompressedData | Tag::SED | Tag::Literal | Tag::SEIP | Tag::AED);
    let (length, mut rest) = if is_new { new_length(after)? } else { old_length(first, after)? };
    let mut length = match length {
        Length::Whole(length) => {
            let (_, rest) = rest.split_at_checked(length)?;
            let (packet, _) = bytes.split_at_checked(bytes.len() - rest.len())?;
            return Some(Split { tag, packet: Cow::Borrowed(packet), rest });
        }
        Length::Rest if is_data => return Some(Split { tag, packet: Cow::Borrowed(bytes), rest: &[] }),
        Length::Part(length) if is_data && length >= 512 => length,
        Length::Rest | Length::Part(_) => return None,
    };
    let mut body = Vec::new();
    let mut is_last = false;
    loop {
        let (part, next) = rest.split_at_checked(length)?;
        body.extend_from_slice(part);
        if is_last {
            let mut packet = vec![first, 0xff];
            packet.extend(u32::try_from(body.len()).ok()?.to_be_bytes());
            packet.append(&mut body);
            return Some(Split { tag, packet: Cow::Owned(packet), rest: next });
        }
        let next = new_length(next)?;
        (length, is_last) = match next.0 {
            Length::Whole(length) => (length, true),
            Length::Part(length) => (length, false),
            Length::Rest => return None,
        };
        rest = next.1;
    }
}

/// How long a packet is, without its header.
enum Length {
    Whole(usize),
    /// There is another length after these bytes.
    Part(usize),
    /// All that follows belongs to it.
    Rest,
}

/// The length that `bytes` begins with, in the current format, and what follows it.
///
/// RFC 9580, section 4.2.1.
fn new_length(bytes: &[u8]) -> Option<(Length, &[u8])> {
    match bytes {
        [length @ 0..=191, rest @ ..] => Some((Length::Whole(usize::from(*length)), rest)),
        [high @ 192..=223, low, rest @ ..] => {
            Some((Length::Whole(((usize::from(*high) - 192) << 8) + usize::from(*low) + 192), rest))
        }
        [power @ 224..=254, rest @ ..] => Some((Length::Part(1 << (power & 0x1f)), rest)),
        [255, rest @ ..] => be_length(4, rest),
        _ => None,
    }
}

/// The same in the legacy format, of which the first byte says the size.
///
/// RFC 9580, section 4.2.2.
fn old_length(first: u8, bytes: &[u8]) -> Option<(Length, &[u8])> {
    match first & 3 {
        3 => Some((Length::Rest, bytes)),
        power => be_length(1 << power, bytes),
    }
}

/// A length of so many bytes, the most significant first.
fn be_length(size: usize, bytes: &[u8]) -> Option<(Length, &[u8])> {
    let (length, rest) = bytes.split_at_checked(size)?;
    let length = length.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
    Some((Length::Whole(length), rest))
}

/// Whether a packet is a revocation, of a key, of which only version and type can be read.
fn is_unreadable_revocation(parser: &mut PacketParser<'_>) -> bool {
    matches!(parser.packet, Packet::Unknown(_))
        && parser.packet.tag() == Tag::Signature
        && matches!(parser.data(2), Ok([4, 0x20 | 0x28, ..]))
}

/// Most certificates of one key file: 1024, more than any distribution has.
const CERTIFICATES: usize = 1024;

/// Deepest nesting of compression: 4, as deep as in any message of the reference's vectors. Signers use one.
const COMPRESSIONS: usize = 4;

/// Most packets of one keyring that belong to no key, or that Sequoia cannot represent: 1024. Each may cost an error,
/// with a backtrace.
const UNKNOWN_PACKETS: usize = 1024;

/// How the last line of an armored block begins.
const END: &[u8] = b"-----END PGP ";

/// Most bytes that bzip2 may expand to: 256 KiB. It is 30 times slower than the other methods, and no signer's default.
const BZIP2_BYTES: usize = 256 << 10;

/// How armored keys begin (RFC 9580, section 6.2.1).
const ARMOR: [&[u8]; 2] = [b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----BEGIN PGP PRIVATE KEY BLOCK-----"];

#[cfg(test)]
mod tests {
    use std::io::Write;

    use sequoia_openpgp::cert::CertRevocationBuilder;
    use sequoia_openpgp::packet::signature::SignatureBuilder;
    use sequoia_openpgp::packet::signature::subpacket::{NotationDataFlags, Subpacket, SubpacketValue};
    use sequoia_openpgp::serialize::SerializeInto;
    use sequoia_openpgp::serialize::stream::{
        Armorer, Compressor, LiteralWriter, Message as Writer, Signer as Maker,
    };
    use sequoia_openpgp::types::ReasonForRevocation;

    use super::*;

    /// 2026-11-20.
    const NOW: Timestamp = Timestamp(1_795_132_800);
    const YEAR: u64 = 365 * 86_400;

    fn ago(seconds: u64) -> SystemTime {
        moment(NOW).unwrap() - Duration::from_secs(seconds)
    }

    fn payload() -> String {
        format!(
            r#"{{"critical":{{"type":"atomic container signature","image":{{"docker-manifest-digest":"sha256:{}"}},"identity":{{"docker-reference":"example.com/a:1"}}}},"optional":{{}}}}"#,
            "0".repeat(64)
        )
    }

    /// An Ed25519 key of two years ago, with a signing subkey.
    fn new_cert() -> Cert {
        let builder =
            CertBuilder::new().set_creation_time(ago(2 * YEAR)).add_userid("a").add_signing_subkey();
        builder
            .set_primary_key_flags(KeyFlags::empty().set_certification().set_signing())
            .generate()
            .unwrap()
            .0
    }

    fn ring(cert: &Cert) -> KeyMaterial {
        KeyMaterial::new("ring".to_owned(), cert.to_vec().unwrap())
    }

    fn sign_with(cert: &Cert, subkey: bool, template: SignatureBuilder, bytes: &[u8]) -> Vec<u8> {
        let key = cert.keys().secret().find(|key| key.primary() != subkey).unwrap();
        let pair = key.key().clone().into_keypair().unwrap();
        let mut blob = Vec::new();
        let hash = template.hash_algo();
        let maker =
            Maker::with_template(Writer::new(&mut blob), pair, template).unwrap().hash_algo(hash).unwrap();
        let mut writer = LiteralWriter::new(maker.creation_time(ago(60)).build().unwrap()).build().unwrap();
        writer.write_all(bytes).unwrap();
        writer.finalize().unwrap();
        blob
    }

    fn sign(cert: &Cert, subkey: bool) -> Vec<u8> {
        sign_with(cert, subkey, SignatureBuilder::new(SignatureType::Binary), payload().as_bytes())
    }

    fn compress(bytes: &[u8]) -> Vec<u8> {
        let mut blob = Vec::new();
        let mut writer =
            Compressor::new(Writer::new(&mut blob)).algo(CompressionAlgorithm::Zlib).build().unwrap();
        writer.write_all(bytes).unwrap();
        writer.finalize().unwrap();
        blob
    }

    #[test]
    fn both_keys_of_a_certificate_sign_for_it() {
        let cert = new_cert();
        for subkey in [false, true] {
            let verified = verify(&sign(&cert, subkey), &[&ring(&cert)], NOW).unwrap();
            let fingerprint = cert.fingerprint().to_hex();
            assert_eq!(verified.get().signer, Signer::OpenPgp { fingerprint });
            assert_eq!(verified.get().time, Some(Timestamp(NOW.0 - 60)));
        }
    }

    #[test]
    fn messages_of_another_shape_are_malformed() {
        let cert = new_cert();
        let blob = sign(&cert, false);
        let mut armored = Vec::new();
        let mut writer = Armorer::new(Writer::new(&mut armored)).build().unwrap();
        writer.write_all(&blob).unwrap();
        writer.finalize().unwrap();
        let nested = (0..=COMPRESSIONS).fold(blob.clone(), |inner, _| compress(&inner));
        let bomb = compress(&compress(&vec![0; 64 << 20]));
        let signatures = compress(&blob.repeat(1000));
        for bytes in
            [vec![], armored, nested, bomb, signatures, vec![0xa3; SIGNATURE_BYTES + 1], blob.repeat(2)]
        {
            let verdict = verify(&bytes, &[&ring(&cert)], NOW);
            assert!(matches!(verdict, Err(Rejection::MalformedSignature { .. })), "{verdict:?}");
        }
        let nested = (0..COMPRESSIONS).fold(blob, |inner, _| compress(&inner));
        assert!(verify(&nested, &[&ring(&cert)], NOW).is_ok());
    }

    /// In a stream, Sequoia would look for a packet at each of these bytes.
    #[test]
    fn damaged_messages_are_not_searched() {
        let cert = new_cert();
        let mut blob = sign(&cert, false);
        let parts = parts(&blob, 0).unwrap().len();
        blob.truncate(15);
        blob.extend(b"\xcb\x06b\0\0\0\0\0y");
        blob.resize(2 << 20, 0xed);
        for bytes in [compress(&blob), blob] {
            let verdict = verify(&bytes, &[&ring(&cert)], NOW);
            assert!(matches!(verdict, Err(Rejection::MalformedSignature { .. })), "{verdict:?}");
        }
        assert_eq!(parts, 3);
    }

    /// 4 MiB in all layers together, and less for bzip2.
    #[test]
    fn expansion_is_limited() {
        let cert = new_cert();
        let check = |bytes: &[u8]| verify(bytes, &[&ring(&cert)], NOW);
        let long = |size| payload() + &" ".repeat(size);
        let template = || SignatureBuilder::new(SignatureType::Binary);
        let blob = sign_with(&cert, false, template(), long(3 << 20).as_bytes());
        // Stored, not compressed, so that every layer is as large.
        let store = |bytes: &[u8]| {
            let mut stored = vec![0xa3, 1];
            for chunk in bytes.chunks(0xffff) {
                let size = u16::try_from(chunk.len()).unwrap();
                stored.push(0);
                stored.extend(size.to_le_bytes());
                stored.extend((!size).to_le_bytes());
                stored.extend(chunk);
            }
            stored.extend([1, 0, 0, 0xff, 0xff]);
            stored
        };
        assert!(check(&store(&blob)).is_ok());
        assert!(check(&compress(&store(&sign(&cert, false)))).is_ok());
        assert!(matches!(check(&store(&store(&blob))), Err(Rejection::MalformedSignature { .. })));

        let bzip2 = |bytes: &[u8]| {
            let mut blob = Vec::new();
            let maker = Compressor::new(Writer::new(&mut blob)).algo(CompressionAlgorithm::BZip2);
            let mut writer = maker.build().unwrap();
            writer.write_all(bytes).unwrap();
            writer.finalize().unwrap();
            blob
        };
        assert!(check(&bzip2(&sign(&cert, false))).is_ok());
        let blob = sign_with(&cert, false, template(), long(BZIP2_BYTES).as_bytes());
        assert!(check(&blob).is_ok());
        assert!(matches!(check(&bzip2(&blob)), Err(Rejection::MalformedSignature { .. })));
    }

    #[test]
    fn every_kind_of_length_is_read() {
        let cert = new_cert();
        let long = payload() + &" ".repeat(900);
        let blob = sign_with(&cert, false, SignatureBuilder::new(SignatureType::Binary), long.as_bytes());
        let message = Message::parse(&blob).unwrap();
        let (announced, signature) = (&blob[..15], Packet::from(message.signature).to_vec().unwrap());
        let body = [b"b\0\0\0\0\0", message.content.as_slice()].concat();
        let size = u16::try_from(body.len()).unwrap().to_be_bytes();
        let high = u8::try_from((body.len() - 192) >> 8).unwrap() + 192;
        let low = u8::try_from((body.len() - 192) & 0xff).unwrap();
        let rest = u8::try_from(body.len() - 512 - 1 - 512).unwrap();
        let partial = [
            &[0xcb, 0xe9],
            &body[..512],
            &[0xe0],
            &body[512..513],
            &[0xe9],
            &body[513..1025],
            &[rest],
            &body[1025..],
        ];
        let literal = |header: &[u8]| [header, &body].concat();
        let literals = [
            literal(&[0xad, size[0], size[1]]),
            literal(&[0xae, 0, 0, size[0], size[1]]),
            literal(&[0xcb, high, low]),
            literal(&[0xcb, 0xff, 0, 0, size[0], size[1]]),
            partial.concat(),
        ];
        let check = |literal: &[u8]| verify(&[announced, literal, &signature].concat(), &[&ring(&cert)], NOW);
        for literal in &literals {
            assert!(check(literal).is_ok(), "{:?}", check(literal));
            assert!(matches!(check(&literal[1..]), Err(Rejection::MalformedSignature { .. })));
            let short = &literal[..literal.len() - 1];
            assert!(matches!(check(short), Err(Rejection::MalformedSignature { .. })));
        }
        let endless = literal(&[0xaf]);
        assert!(matches!(check(&endless), Err(Rejection::MalformedSignature { .. })));
        let endless = [[0xa3, 0].as_slice(), &blob].concat();
        assert!(matches!(verify(&endless, &[&ring(&cert)], NOW), Err(Rejection::MalformedSignature { .. })));
        let short = [&[0xcb, 0xe8], &body[..256], &[0xe9], &body[256..768], &[0xe9 - 1], &body[768..1024]];
        let last = [&[u8::try_from(body.len() - 1024).unwrap()], &body[1024..]].concat();
        let verdict = check(&[short.concat(), last].concat());
        assert!(matches!(verdict, Err(Rejection::MalformedSignature { .. })), "{verdict:?}");
    }

    #[test]
    fn damage_never_panics_nor_verifies() {
        let cert = new_cert();
        let (blob, keys) = (sign(&cert, true), cert.to_vec().unwrap());
        let genuine = verify(&blob, &[&ring(&cert)], NOW).unwrap();
        let mut state = 1_u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            usize::try_from(state >> 8).unwrap() % below
        };
        for _ in 0..300 {
            let (mut bytes, mut damaged) = (blob.clone(), keys.clone());
            for target in [&mut bytes, &mut damaged] {
                let at = random(target.len());
                target[at] ^= 1 << random(8);
                target.truncate(at + random(2 * blob.len()));
            }
            let noise: Vec<u8> = (0..random(100)).map(|_| u8::try_from(random(256)).unwrap()).collect();
            let damaged = KeyMaterial::new("damaged".to_owned(), damaged);
            for (bytes, keys) in
                [(&bytes, &ring(&cert)), (&bytes, &damaged), (&blob, &damaged), (&noise, &damaged)]
            {
                // Some bits are outside of what a signature protects: names of keys, file names.
                assert!(
                    verify(bytes, &[keys], NOW).is_err()
                        || verify(bytes, &[keys], NOW) == Ok(genuine.clone())
                );
            }
        }
    }

    #[test]
    fn key_files_without_keys_are_named() {
        let cert = new_cert();
        let empty = KeyMaterial::new("empty".to_owned(), Vec::new());
        let invalid =
            |source: &str, detail| Err(Rejection::KeyFileInvalid { source: source.to_owned(), detail });
        assert_eq!(verify(&[], &[&empty], NOW), invalid("empty", "it holds no OpenPGP key"));
        assert_eq!(verify(&[], &[], NOW), invalid("signedBy", "it holds no OpenPGP key"));
        assert!(verify(&sign(&cert, false), &[&empty, &ring(&cert)], NOW).is_ok());
        let many = KeyMaterial::new("many".to_owned(), cert.to_vec().unwrap().repeat(CERTIFICATES + 1));
        let verdict = verify(&sign(&cert, false), &[&ring(&cert), &many], NOW);
        assert_eq!(verdict, invalid("many", "it holds more than 1024 OpenPGP keys"));
    }

    /// An armored block without a checksum.
    fn unsummed(cert: &Cert) -> String {
        let text = String::from_utf8(cert.armored().to_vec().unwrap()).unwrap();
        text.lines().filter(|line| !line.starts_with('=')).flat_map(|line| [line, "\n"]).collect()
    }

    /// An armored block as gpg makes it, with a checksum.
    fn armor(cert: &Cert) -> String {
        let sum = base64_of(&checksum(&cert.to_vec().unwrap()));
        unsummed(cert).replace("-----END", &format!("={sum}\n-----END"))
    }

    fn base64_of(bytes: &[u8]) -> String {
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
    }

    fn count(file: impl AsRef<[u8]>) -> usize {
        Certificates::parse(file.as_ref()).certs.len()
    }

    #[test]
    fn armored_blocks_must_be_whole_and_in_force() {
        let (cert, other) = (new_cert(), new_cert());
        assert_eq!(count(armor(&cert) + "text\r\n" + &armor(&other).replace('\n', "\r\n")), 2);
        assert_eq!(count(armor(&cert) + &armor(&other).replace('\n', "\n# ")), 0);
        assert_eq!(count(armor(&cert).replace("-----BEGIN", "#-----BEGIN") + &armor(&other)), 1);
        assert_eq!(count(unsummed(&cert).replace("-----END", "#-----END")), 0);
        assert_eq!(count(armor(&cert).replace("PUBLIC KEY BLOCK", "MESSAGE")), 0);
        assert_eq!(count(armor(&cert).replace("\n\n", "\nComment: a\nVersion:\n\n")), 1);
        assert_eq!(count(armor(&cert).replace("\n\n", "\nComment: a\nVersion:\n")), 1);
        assert_eq!(count(armor(&cert).replace("\n\n", "\n\nComment: a\n")), 0);
        assert_eq!(count(armor(&cert).replace("\n\n", "\nComment:a\n\n")), 0);
    }

    #[test]
    fn blanks_in_armored_blocks_do_not_count() {
        let cert = new_cert();
        let text = unsummed(&cert);
        let (head, body) = text.split_once("\n\n").unwrap();
        let (body, end) = body.split_once("-----END").unwrap();
        let sum = base64_of(&checksum(&cert.to_vec().unwrap()));
        let spread: String = body.chars().flat_map(|c| [' ', c, '\t']).collect();
        assert_eq!(count(format!("{head}\n \t\n{spread}\n={sum}\n-----END{end}")), 1);
        // Without a checksum something must end the data.
        let bare = body.replace('=', "");
        assert_eq!(count(format!("{head}\n\n{bare}-----END{end}")), 0);
        assert_eq!(count(format!("{head}\n\n{bare}={sum}\n-----END{end}")), 1);
    }

    #[test]
    fn a_wrong_checksum_voids_the_key_file() {
        let (cert, other) = (new_cert(), new_cert());
        assert_eq!(checksum(b""), [0xb7, 0x04, 0xce]);
        assert_eq!(checksum(b"123456789"), [0x21, 0xcf, 0x02]);
        assert_eq!(count(armor(&cert) + &armor(&other)), 2);
        assert_eq!(count(armor(&cert).replace("-----END", "=AAAA\n-----END")), 1);
        for sum in ["=AAAA", "=AAA", "=A", "=AAA=", "=A\nAAA", "=\nAAAA", "=3D=AAAA"] {
            let wrong = unsummed(&cert).replace("-----END", &format!("{sum}\n-----END"));
            assert_eq!(count(&wrong), 0, "{sum}");
            assert_eq!(count(armor(&other) + &wrong), 0, "{sum}");
            assert_eq!(count(wrong + &armor(&other)), 0, "{sum}");
        }
    }

    #[test]
    fn a_checksum_may_stand_for_the_last_line() {
        let (cert, other) = (new_cert(), new_cert());
        let cut = |text: String| text.split_once("-----END").unwrap().0.to_owned();
        assert_eq!(count(cut(armor(&cert))), 1);
        assert_eq!(count(cut(armor(&cert)) + &armor(&other)), 2);
        assert_eq!(count(cut(unsummed(&cert))), 0);
        assert_eq!(count(cut(unsummed(&cert)) + &armor(&other)), 0);
    }

    #[test]
    fn text_before_armored_blocks_may_be_of_any_kind() {
        let cert = new_cert();
        for text in ["“c”\n", "\u{feff}\n", "\u{feff}# a\r\n", "# \u{e9}\n", "\n"] {
            assert_eq!(count(text.to_owned() + &armor(&cert)), 1, "{text}");
        }
        // These begin as binary keyrings do.
        assert_eq!(count("\u{e9}\n".to_owned() + &armor(&cert)), 0);
        assert_eq!(count([0x98]) + count([0xff]) + count([0xef, 0xbb, 0xbf]), 0);
    }

    #[test]
    fn keyrings_end_where_gpg_stops() {
        let (cert, other) = (new_cert(), new_cert());
        let both = |between: &[u8]| [&cert.to_vec().unwrap(), between, &other.to_vec().unwrap()].concat();
        assert_eq!(count(both(b"")), 2);
        // A marker, and a packet of an unknown kind.
        assert_eq!(count(both(b"\xca\x03PGP")), 2);
        assert_eq!(count(both(b"\xe8\x01a")), 2);
        for stop in [
            b"\xff\x01a".as_slice(),
            b"\xc0\x00",
            b"\xc8\x02\x01\x00",
            b"a",
            b"\xcd\xe9",
            b"\xb7",
            b"\xcd\xff",
        ] {
            assert_eq!(count(both(stop)), 0, "{stop:?}");
            assert_eq!(count([other.to_vec().unwrap(), both(stop)].concat()), 1, "{stop:?}");
        }
        assert_eq!(count(both(&b"\xe8\x01a".repeat(UNKNOWN_PACKETS + 1))), 0);
    }

    #[test]
    fn secret_keys_are_not_kept() {
        let cert = new_cert();
        let kept = Certificates::parse(&cert.as_tsk().to_vec().unwrap());
        assert!(cert.is_tsk() && !kept.certs[0].is_tsk());
        assert_eq!(kept.fingerprints().collect::<Vec<_>>(), [cert.fingerprint().to_hex()]);
    }

    #[test]
    fn every_revocation_counts_wherever_it_is() {
        let cert = new_cert();
        let mut pair = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
        let revocation = CertRevocationBuilder::new()
            .set_reason_for_revocation(ReasonForRevocation::KeyRetired, b"")
            .unwrap()
            .set_signature_creation_time(ago(YEAR))
            .unwrap()
            .build(&mut pair, &cert, None)
            .unwrap();
        let revoked = cert.clone().insert_packets(revocation).unwrap().0;
        let expected = Err(Rejection::KeyRevoked { key: cert.fingerprint().to_hex() });
        // Without the subkey, so that this copy alone would not be found.
        let primary = revoked.clone().retain_subkeys(|_| false);
        for copies in [[&cert, &revoked], [&revoked, &cert], [&primary, &cert], [&cert, &primary]] {
            let rings = copies.map(ring);
            assert_eq!(verify(&sign(&cert, true), &[&rings[0], &rings[1]], NOW), expected);
        }
        // A later self-signature does not undo it.
        let later = cert.userids().next().unwrap().userid().bind(
            &mut pair,
            &cert,
            SignatureBuilder::from(cert.userids().next().unwrap().self_signatures().next().unwrap().clone())
                .set_signature_creation_time(ago(1000))
                .unwrap(),
        );
        let renewed = revoked.insert_packets(later.unwrap()).unwrap().0;
        assert_eq!(verify(&sign(&cert, false), &[&ring(&renewed)], NOW), expected);
    }

    #[test]
    fn the_newest_self_signature_sets_the_expiry() {
        let cert = new_cert();
        let mut pair = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
        let old = cert.userids().next().unwrap().self_signatures().next().unwrap().clone();
        let second = sequoia_openpgp::packet::UserID::from("b");
        let template = SignatureBuilder::from(old).set_primary_userid(false).unwrap();
        let template = template.set_signature_creation_time(ago(YEAR)).unwrap();
        let template = template.set_key_validity_period(Duration::from_secs(YEAR)).unwrap();
        let binding = second.bind(&mut pair, &cert, template).unwrap();
        let expiring = cert.clone().insert_packets([Packet::from(second), binding.into()]).unwrap().0;
        let blob = sign(&cert, false);
        let expected = Err(Rejection::KeyExpired { key: cert.fingerprint().to_hex() });
        assert_eq!(verify(&blob, &[&ring(&expiring)], NOW), expected);
    }

    #[test]
    fn what_was_not_meant_is_refused() {
        let cert = new_cert();
        let text = payload();
        let check =
            |template| verify(&sign_with(&cert, false, template, text.as_bytes()), &[&ring(&cert)], NOW);
        let binary = || SignatureBuilder::new(SignatureType::Binary);
        assert!(check(binary()).is_ok());
        assert!(check(SignatureBuilder::new(SignatureType::Text)).is_ok());

        let sha1 = check(binary().set_hash_algo(HashAlgorithm::SHA1));
        assert_eq!(sha1, Err(Rejection::WeakAlgorithm { algorithm: "SHA1".to_owned() }));
        let standalone = check(SignatureBuilder::new(SignatureType::Standalone));
        assert!(matches!(standalone, Err(Rejection::MalformedSignature { .. })));
        let flags = NotationDataFlags::empty().set_human_readable();
        let notation = binary().add_notation("a@example.com", b"", flags.clone(), true).unwrap();
        assert!(matches!(check(notation), Err(Rejection::MalformedSignature { .. })));
        assert!(check(binary().add_notation("a@example.com", b"", flags, false).unwrap()).is_ok());
        let server = SubpacketValue::PreferredKeyServer(b"https://example.com".to_vec());
        let server = Subpacket::new(server, true).unwrap();
        assert!(
            check(binary().modify_hashed_area(|mut area| area.add(server).map(|()| area)).unwrap()).is_ok()
        );
        let expired = binary().set_signature_validity_period(Duration::from_secs(60)).unwrap();
        assert_eq!(check(expired), Err(Rejection::SignatureExpired));
        let other = binary().set_issuer("0123456789ABCDEF".parse().unwrap()).unwrap();
        assert!(matches!(check(other.clone()), Err(Rejection::KeyUnknown { key: Some(_) })));
        let both = other.set_issuer_fingerprint(cert.fingerprint()).unwrap();
        assert!(matches!(check(both), Err(Rejection::MalformedSignature { .. })));
    }

    #[test]
    fn time_is_what_the_caller_says() {
        let cert = new_cert();
        let (blob, keys) = (sign(&cert, false), ring(&cert));
        let at = |seconds| verify(&blob, &[&keys], Timestamp(seconds));
        assert!(at(NOW.0).is_ok() && at(NOW.0 - 360).is_ok());
        for seconds in [-1, 1 << 32, i64::MIN, i64::MAX] {
            assert!(matches!(at(seconds), Err(Rejection::Unsupported { .. })));
        }
    }

    #[test]
    fn self_signatures_may_have_sha_1() {
        let cert = new_cert();
        let mut pair = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
        let id = cert.userids().next().unwrap();
        let template = SignatureBuilder::from(id.self_signatures().next().unwrap().clone())
            .set_hash_algo(HashAlgorithm::SHA1)
            .set_signature_creation_time(ago(YEAR))
            .unwrap();
        let old = id.userid().bind(&mut pair, &cert, template).unwrap();
        let key = cert.primary_key().key().clone();
        let packets = [Packet::PublicKey(key.take_secret().0), id.userid().clone().into(), old.into()];
        let bare = Cert::from_packets(packets.into_iter()).unwrap();
        assert!(verify(&sign(&cert, false), &[&ring(&bare)], NOW).is_ok());
    }
}
