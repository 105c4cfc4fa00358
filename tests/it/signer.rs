//! A small Sigstore: authority, logs of both generations, log of certificates, timestamp authority, and a signer that
//! uses them. Whatever it makes is JSON that a test may change before it is verified.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
    PublicKeyData, SanType, SerialNumber, SigningKey,
};
use serde_json::{Value, json};
use vouchd::digest::Digest;
use x509_cert::der::{Decode, Encode};

/// When everything is signed: 2026-01-01T00:05:00Z.
pub(crate) const SIGNED_AT: i64 = MIDNIGHT + 300;

/// 2026-01-01T00:00:00Z, when certificates begin; they last ten minutes.
pub(crate) const MIDNIGHT: i64 = 1_767_225_600;

/// The payload type of in-toto statements.
pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The predicate type of cosign's signatures.
pub(crate) const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// An instance of Sigstore.
pub(crate) struct Sigstore {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
    ct: KeyPair,
    pub(crate) rekor: Rekor,
    pub(crate) rekor_v2: Rekor,
    pub(crate) timestamps: TimestampAuthority,
}

/// A log.
pub(crate) struct Rekor {
    pub(crate) host: String,
    pub(crate) key: KeyPair,
    pub(crate) id: Vec<u8>,
    pub(crate) is_v2: bool,
}

/// An authority for RFC 3161 timestamps.
pub(crate) struct TimestampAuthority {
    root: CertifiedIssuer<'static, KeyPair>,
    key: KeyPair,
    leaf: Vec<u8>,
}

/// A certificate with its key, as Fulcio issues them.
pub(crate) struct Identity {
    pub(crate) key: KeyPair,
    pub(crate) der: Vec<u8>,
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) san: San,
    /// Number in the arc of Fulcio, and value. From 8 on it is written as a UTF8String.
    pub(crate) extensions: Vec<(u64, String)>,
    pub(crate) sct: bool,
    pub(crate) code_signing: bool,
    /// Seconds from 1970.
    pub(crate) begins: i64,
}

/// The subject's names.
#[derive(Clone, Debug)]
pub(crate) enum San {
    Email(&'static str),
    Uri(&'static str),
    Uris(&'static [&'static str]),
}

impl Default for Names {
    /// Somebody who signed in with a mail address.
    fn default() -> Self {
        let issuer = "https://issuer.example".to_owned();
        Self {
            san: San::Email("someone@example.com"),
            extensions: vec![(1, issuer.clone()), (8, issuer)],
            sct: true,
            code_signing: true,
            begins: MIDNIGHT,
        }
    }
}

/// What is signed.
pub(crate) enum Content<'a> {
    Dsse { payload_type: &'a str, payload: &'a [u8] },
    Message(&'a [u8]),
}

/// Who signs.
#[derive(Clone, Copy)]
pub(crate) enum Who<'a> {
    Identity(&'a Identity),
    Key(&'a KeyPair),
}

impl Who<'_> {
    fn key(&self) -> &KeyPair {
        match self {
            Self::Identity(identity) => &identity.key,
            Self::Key(key) => key,
        }
    }
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    CtLog,
    Intermediate,
    Rekor,
    RekorV2,
    Root,
    TimestampRoot,
    Timestamps,
}

impl Place {
    /// A new key as Sigstore's own: Ed25519 for a log of the second generation, else P-256.
    pub(crate) fn usual_key(self) -> KeyPair {
        match self {
            Self::RekorV2 => KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
            Self::CtLog
            | Self::Intermediate
            | Self::Rekor
            | Self::Root
            | Self::TimestampRoot
            | Self::Timestamps => KeyPair::generate().unwrap(),
        }
    }
}

/// The same key once more.
pub(crate) fn copy_of(key: &KeyPair) -> KeyPair {
    KeyPair::from_pem_and_sign_algo(&key.serialize_pem(), key.algorithm()).unwrap()
}

/// The names of a key's hash and of the key itself, in the formats that name them.
struct Algorithm {
    /// Of the hash, in protobuf-specs.
    hash: &'static str,
    hash_oid: &'static [u32],
    signature_oid: &'static [u32],
    /// RFC 5246, 7.4.1.4.1.
    tls: [u8; 2],
    /// In protobuf-specs; that of RSA has its length.
    details: &'static str,
    digest: &'static aws_lc_rs::digest::Algorithm,
}

impl Algorithm {
    fn of(key: &KeyPair) -> Self {
        use aws_lc_rs::digest::{SHA256, SHA384, SHA512};
        const SHA_256: &[u32] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];
        const SHA_384: &[u32] = &[2, 16, 840, 1, 101, 3, 4, 2, 2];
        const SHA_512: &[u32] = &[2, 16, 840, 1, 101, 3, 4, 2, 3];
        const ECDSA: [&[u32]; 3] =
            [&[1, 2, 840, 10045, 4, 3, 2], &[1, 2, 840, 10045, 4, 3, 3], &[1, 2, 840, 10045, 4, 3, 4]];
        let new = |hash, hash_oid, signature_oid, tls, details, digest| Self {
            hash,
            hash_oid,
            signature_oid,
            tls,
            details,
            digest,
        };
        let algorithm = key.algorithm();
        if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
            new("SHA2_256", SHA_256, ECDSA[0], [4, 3], "PKIX_ECDSA_P256_SHA_256", &SHA256)
        } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
            new("SHA2_384", SHA_384, ECDSA[1], [5, 3], "PKIX_ECDSA_P384_SHA_384", &SHA384)
        } else if algorithm == &rcgen::PKCS_ECDSA_P521_SHA512 {
            new("SHA2_512", SHA_512, ECDSA[2], [6, 3], "PKIX_ECDSA_P521_SHA_512", &SHA512)
        } else if algorithm == &rcgen::PKCS_ED25519 {
            new("SHA2_256", SHA_512, &[1, 3, 101, 112], [8, 7], "PKIX_ED25519", &SHA512)
        } else {
            let rsa = &[1, 2, 840, 113549, 1, 1, 11];
            new("SHA2_256", SHA_256, rsa, [4, 1], "PKIX_RSA_PKCS1V15_2048_SHA256", &SHA256)
        }
    }

    fn hash(&self, bytes: &[u8]) -> Vec<u8> {
        aws_lc_rs::digest::digest(self.digest, bytes).as_ref().to_vec()
    }
}

impl Sigstore {
    pub(crate) fn new() -> Self {
        Self::with(Place::usual_key, |_, _| {})
    }

    /// With keys for every place, and changes to the certificates of the authorities.
    pub(crate) fn with(
        key: impl Fn(Place) -> KeyPair,
        change: impl Fn(Place, &mut CertificateParams),
    ) -> Self {
        let mut params = authority("root");
        change(Place::Root, &mut params);
        let root = CertifiedIssuer::self_signed(params, key(Place::Root)).unwrap();
        // Fulcio does not start with an intermediate that is not for code.
        let mut params = authority("intermediate");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
        change(Place::Intermediate, &mut params);
        let intermediate = CertifiedIssuer::signed_by(params, key(Place::Intermediate), &root).unwrap();
        Self {
            root,
            intermediate,
            ct: key(Place::CtLog),
            rekor: Rekor::with("rekor.example", key(Place::Rekor), false),
            rekor_v2: Rekor::with("log2026-1.rekor.example", key(Place::RekorV2), true),
            timestamps: TimestampAuthority::with("timestamps", key, change),
        }
    }

    /// The certificate of the authority, and the key of the log of the first generation, as PEM.
    pub(crate) fn authority_and_log(&self) -> (String, String) {
        (self.root.pem() + &self.intermediate.pem(), self.rekor.key.public_key_pem())
    }

    /// The `trusted_root.json`.
    pub(crate) fn trusted_root(&self) -> Value {
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self.rekor.instance(), self.rekor_v2.instance()],
            "certificateAuthorities": [{
                "subject": { "organization": "example", "commonName": "root" },
                "uri": "https://fulcio.example",
                "certChain": chain(&[self.intermediate.der(), self.root.der()]),
                "validFor": { "start": "2025-01-01T00:00:00Z" },
            }],
            "ctlogs": [log_instance("ct.example", &self.ct, &sha256(&spki(&self.ct)))],
            "timestampAuthorities": [self.timestamps.instance()],
        })
    }

    /// Issues a certificate for a new key of P-256.
    pub(crate) fn identity(&self, names: &Names) -> Identity {
        self.identity_for(KeyPair::generate().unwrap(), names)
    }

    pub(crate) fn identity_for(&self, key: KeyPair, names: &Names) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(u64::try_from(names.begins).unwrap()));
        let begins = u64::try_from(names.begins).unwrap();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(begins);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(begins + 600);
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        if names.code_signing {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
        }
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        params.subject_alt_names = match names.san {
            San::Email(text) => vec![SanType::Rfc822Name(text.try_into().unwrap())],
            San::Uri(text) => vec![uri(text)],
            San::Uris(all) => all.iter().map(|text| uri(text)).collect(),
        };
        params.use_authority_key_identifier_extension = true;
        params.custom_extensions = names
            .extensions
            .iter()
            .map(|(number, value)| {
                let content =
                    if *number < 8 { value.as_bytes().to_vec() } else { tlv(0x0c, &[value.as_bytes()]) };
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, *number], content)
            })
            .collect();
        let precertificate = params.signed_by(&key, &self.intermediate).unwrap();
        if !names.sct {
            return Identity { key, der: precertificate.der().to_vec() };
        }
        let certificate = x509_cert::Certificate::from_der(precertificate.der()).unwrap();
        let tbs = certificate.tbs_certificate.to_der().unwrap();
        let sct = self.sct(&tbs, names.begins);
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2], tlv(0x04, &[&sct])));
        Identity { der: params.signed_by(&key, &self.intermediate).unwrap().der().to_vec(), key }
    }

    /// A list of one signed certificate timestamp; RFC 6962, 3.2 and 3.3.
    fn sct(&self, tbs: &[u8], seconds: i64) -> Vec<u8> {
        let milliseconds = (u64::try_from(seconds).unwrap() * 1_000).to_be_bytes();
        let issuer = sha256(&spki(self.intermediate.key()));
        let length = u32::try_from(tbs.len()).unwrap().to_be_bytes();
        let signed = [&[0, 0][..], &milliseconds, &[0, 1], &issuer, &length[1..], tbs, &[0, 0]].concat();
        let signature = self.ct.sign(&signed).unwrap();
        let id = sha256(&spki(&self.ct));
        let algorithm = Algorithm::of(&self.ct).tls;
        let sct = [&[0][..], &id, &milliseconds, &[0, 0], &algorithm, &counted(&signature)].concat();
        counted(&counted(&sct))
    }

    /// Signs, with an entry in Rekor v1 that has a promise and a proof, and no timestamp.
    pub(crate) fn sign(&self, content: &Content<'_>, who: Who<'_>) -> Value {
        let mut bundle = bundle(content, who);
        let entry = self.rekor.entry(content, who, &signature_of(&bundle));
        bundle["verificationMaterial"]["tlogEntries"] = json!([entry]);
        bundle
    }

    /// Signs, with an entry in Rekor v2 and a timestamp.
    pub(crate) fn sign_v2(&self, content: &Content<'_>, who: Who<'_>) -> Value {
        let mut bundle = bundle(content, who);
        let signature = signature_of(&bundle);
        bundle["verificationMaterial"]["tlogEntries"] =
            json!([self.rekor_v2.entry(content, who, &signature)]);
        self.timestamps.stamp(&mut bundle, SIGNED_AT);
        bundle
    }

    /// The annotations of a layer that holds the payload, as cosign 2 writes them.
    pub(crate) fn attach(&self, payload: &[u8], identity: &Identity) -> BTreeMap<String, String> {
        let bundle = self.sign(&Content::Message(payload), Who::Identity(identity));
        let entry = &bundle["verificationMaterial"]["tlogEntries"][0];
        let number = |name: &str| entry[name].as_str().unwrap().parse::<u64>().unwrap();
        let id = STANDARD.decode(entry["logId"]["keyId"].as_str().unwrap()).unwrap();
        let set = json!({
            "SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
            "Payload": {
                "body": entry["canonicalizedBody"],
                "integratedTime": number("integratedTime"),
                "logIndex": number("logIndex"),
                "logID": hex(&id),
            },
        });
        let certificate = base64(&identity.der);
        let certificate = format!("-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n");
        BTreeMap::from([
            ("dev.cosignproject.cosign/signature".to_owned(), base64(&signature_of(&bundle))),
            ("dev.sigstore.cosign/bundle".to_owned(), set.to_string()),
            ("dev.sigstore.cosign/certificate".to_owned(), certificate),
        ])
    }
}

/// The statement that cosign signs.
pub(crate) fn statement(digest: &Digest) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": digest.hex() } }],
        "predicateType": COSIGN_SIGN,
        "predicate": {},
    })
}

/// A bundle of version 0.3 without any proof.
pub(crate) fn bundle(content: &Content<'_>, who: Who<'_>) -> Value {
    let material = match who {
        Who::Identity(identity) => json!({ "certificate": { "rawBytes": base64(&identity.der) } }),
        Who::Key(key) => json!({ "publicKey": { "hint": base64(&sha256(&spki(key))) } }),
    };
    let mut bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": material,
    });
    let signature = who.key().sign(&signed_bytes(content)).unwrap();
    match content {
        Content::Dsse { payload_type, payload } => {
            bundle["dsseEnvelope"] = json!({
                "payloadType": payload_type,
                "payload": base64(payload),
                "signatures": [{ "sig": base64(&signature), "keyid": "" }],
            });
        }
        Content::Message(bytes) => {
            bundle["messageSignature"] = json!({
                "messageDigest": { "algorithm": "SHA2_256", "digest": base64(&sha256(bytes)) },
                "signature": base64(&signature),
            });
        }
    }
    bundle
}

/// The signature in a bundle.
pub(crate) fn signature_of(bundle: &Value) -> Vec<u8> {
    let text = bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str();
    let text = text.or_else(|| bundle["messageSignature"]["signature"].as_str());
    STANDARD.decode(text.unwrap()).unwrap()
}

fn signed_bytes(content: &Content<'_>) -> Vec<u8> {
    match content {
        Content::Dsse { payload_type, payload } => {
            let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
            [head.as_bytes(), payload].concat()
        }
        Content::Message(bytes) => bytes.to_vec(),
    }
}

impl Rekor {
    /// A log of the first generation, with a key of P-256.
    pub(crate) fn new(host: &str) -> Self {
        Self::with(host, Place::Rekor.usual_key(), false)
    }

    /// A log of the second generation, with a key of Ed25519.
    pub(crate) fn new_v2(host: &str) -> Self {
        Self::with(host, Place::RekorV2.usual_key(), true)
    }

    fn with(host: &str, key: KeyPair, is_v2: bool) -> Self {
        let id = if is_v2 && key.algorithm() == &rcgen::PKCS_ED25519 {
            // C2SP signed-note, "Signatures": the ID of an Ed25519 key.
            sha256(&[host.as_bytes(), &[b'\n', 1], key.public_key_raw()].concat())
        } else {
            sha256(&spki(&key))
        };
        Self { host: host.to_owned(), key, id, is_v2 }
    }

    /// The log in a trusted root.
    pub(crate) fn instance(&self) -> Value {
        log_instance(&self.host, &self.key, &self.id)
    }

    /// An entry for a signature.
    pub(crate) fn entry(&self, content: &Content<'_>, who: Who<'_>, signature: &[u8]) -> Value {
        if self.is_v2 {
            let body = hashedrekord_v2(content, who, signature).to_string();
            return self.prove("hashedrekord", "0.0.2", body.as_bytes());
        }
        let (kind, body) = match content {
            Content::Dsse { payload, .. } => ("dsse", dsse(payload, who, signature)),
            Content::Message(bytes) => ("hashedrekord", hashedrekord(bytes, who, signature)),
        };
        self.prove(kind, "0.0.1", body.to_string().as_bytes())
    }

    /// An entry with that body: the third leaf of a tree of five.
    pub(crate) fn prove(&self, kind: &str, version: &str, body: &[u8]) -> Value {
        let leaf = |bytes: &[u8]| sha256(&[&[0], bytes].concat());
        let node = |left: &[u8], right: &[u8]| sha256(&[&[1], left, right].concat());
        let [first, second, fourth, fifth] = [b"1", b"2", b"4", b"5"].map(|other| leaf(other));
        let left = node(&first, &second);
        let root = node(&node(&left, &node(&leaf(body), &fourth)), &fifth);
        // In Rekor v1 the index of the entry counts the leaves of all trees.
        let index = if self.is_v2 { 2 } else { 1_000_002 };
        let mut entry = json!({
            "logIndex": index.to_string(),
            "logId": { "keyId": base64(&self.id) },
            "kindVersion": { "kind": kind, "version": version },
            "inclusionProof": {
                "logIndex": "2",
                "rootHash": base64(&root),
                "treeSize": "5",
                "hashes": [base64(&fourth), base64(&left), base64(&fifth)],
                "checkpoint": { "envelope": self.checkpoint(5, &root) },
            },
            "canonicalizedBody": base64(body),
        });
        if !self.is_v2 {
            self.promise(&mut entry, SIGNED_AT);
        }
        entry
    }

    /// A checkpoint, a signed note.
    pub(crate) fn checkpoint(&self, size: u64, root: &[u8]) -> String {
        let tree = if self.is_v2 { "" } else { " - 42" };
        let text = format!("{}{tree}\n{size}\n{}\n", self.host, base64(root));
        let signature = self.key.sign(text.as_bytes()).unwrap();
        let line = [&self.id[..4], &signature].concat();
        format!("{text}\n\u{2014} {} {}\n", self.host, base64(&line))
    }

    /// Sets the time of an entry and the promise that proves it.
    pub(crate) fn promise(&self, entry: &mut Value, time: i64) {
        let id = Digest::parse(&format!("sha256:{}", hex(&self.id))).unwrap();
        let text = format!(
            r#"{{"body":"{}","integratedTime":{time},"logID":"{}","logIndex":{}}}"#,
            entry["canonicalizedBody"].as_str().unwrap(),
            id.hex(),
            entry["logIndex"].as_str().unwrap()
        );
        let signature = self.key.sign(text.as_bytes()).unwrap();
        entry["integratedTime"] = json!(time.to_string());
        entry["inclusionPromise"] = json!({ "signedEntryTimestamp": base64(&signature) });
    }
}

fn verifier_pem(who: Who<'_>) -> String {
    let (label, der) = match who {
        Who::Identity(identity) => ("CERTIFICATE", identity.der.clone()),
        Who::Key(key) => ("PUBLIC KEY", spki(key)),
    };
    base64(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64(&der)).as_bytes())
}

fn hashedrekord(artifact: &[u8], who: Who<'_>, signature: &[u8]) -> Value {
    json!({
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": { "hash": { "algorithm": "sha256", "value": hex(&sha256(artifact)) } },
            "signature": { "content": base64(signature), "publicKey": { "content": verifier_pem(who) } },
        },
    })
}

fn dsse(payload: &[u8], who: Who<'_>, signature: &[u8]) -> Value {
    json!({
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": { "algorithm": "sha256", "value": hex(&sha256(b"as it was sent")) },
            "payloadHash": { "algorithm": "sha256", "value": hex(&sha256(payload)) },
            "signatures": [{ "signature": base64(signature), "verifier": verifier_pem(who) }],
        },
    })
}

fn hashedrekord_v2(content: &Content<'_>, who: Who<'_>, signature: &[u8]) -> Value {
    let mut verifier = match who {
        Who::Identity(identity) => json!({ "x509Certificate": { "rawBytes": base64(&identity.der) } }),
        Who::Key(key) => json!({ "publicKey": { "rawBytes": base64(&spki(key)) } }),
    };
    let algorithm = Algorithm::of(who.key());
    verifier["keyDetails"] = json!(algorithm.details);
    let digest = match algorithm.hash {
        "SHA2_256" => sha256(&signed_bytes(content)),
        _ => algorithm.hash(&signed_bytes(content)),
    };
    json!({
        "apiVersion": "0.0.2",
        "kind": "hashedrekord",
        "spec": { "hashedRekordV002": {
            "data": { "algorithm": algorithm.hash, "digest": base64(&digest) },
            "signature": { "content": base64(signature), "verifier": verifier },
        } },
    })
}

impl TimestampAuthority {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, Place::usual_key, |_, _| {})
    }

    fn with(
        name: &str,
        key: impl Fn(Place) -> KeyPair,
        change: impl Fn(Place, &mut CertificateParams),
    ) -> Self {
        let mut params = authority(name);
        change(Place::TimestampRoot, &mut params);
        let root = CertifiedIssuer::self_signed(params, key(Place::TimestampRoot)).unwrap();
        let key = key(Place::Timestamps);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{name} leaf"));
        params.serial_number = Some(SerialNumber::from(7));
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2035, 1, 1);
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let usage = tlv(0x30, &[&oid(&[1, 3, 6, 1, 5, 5, 7, 3, 8])]);
        let mut usage = CustomExtension::from_oid_content(&[2, 5, 29, 37], usage);
        usage.set_criticality(true);
        params.custom_extensions = vec![usage];
        change(Place::Timestamps, &mut params);
        let leaf = params.signed_by(&key, &root).unwrap().der().to_vec();
        Self { root, key, leaf }
    }

    /// The authority in a trusted root.
    pub(crate) fn instance(&self) -> Value {
        json!({
            "subject": { "organization": "example", "commonName": "timestamps" },
            "uri": "https://timestamps.example",
            "certChain": chain(&[&self.leaf, self.root.der()]),
            "validFor": { "start": "2025-01-01T00:00:00Z" },
        })
    }

    /// Adds a timestamp to a bundle.
    pub(crate) fn stamp(&self, bundle: &mut Value, time: i64) {
        let token = json!({ "signedTimestamp": base64(&self.timestamp(&signature_of(bundle), time)) });
        let list = &mut bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"];
        match list.as_array_mut() {
            Some(list) => list.push(token),
            None => *list = json!([token]),
        }
    }

    /// A TimeStampResp; RFC 3161, 2.4.2, and RFC 5652, 5.
    pub(crate) fn timestamp(&self, signature: &[u8], time: i64) -> Vec<u8> {
        let sha2 = tlv(0x30, &[&oid(&[2, 16, 840, 1, 101, 3, 4, 2, 1])]);
        let tst_info_type = oid(&[1, 2, 840, 113549, 1, 9, 16, 1, 4]);
        let digits: String =
            vouchd::verify::Timestamp(time).to_string().chars().filter(char::is_ascii_digit).collect();
        let tst_info = tlv(
            0x30,
            &[
                &tlv(0x02, &[&[1]]),
                &oid(&[1, 3, 6, 1, 4, 1, 57264, 2]),
                &tlv(0x30, &[&sha2, &tlv(0x04, &[&sha256(signature)])]),
                &tlv(0x02, &[&[9]]),
                &tlv(0x18, &[digits.as_bytes(), b"Z"]),
            ],
        );
        let algorithm = Algorithm::of(&self.key);
        let hash = tlv(0x30, &[&oid(algorithm.hash_oid)]);
        let attributes = [
            tlv(0x30, &[&oid(&[1, 2, 840, 113549, 1, 9, 3]), &tlv(0x31, &[&tst_info_type])]),
            tlv(
                0x30,
                &[
                    &oid(&[1, 2, 840, 113549, 1, 9, 4]),
                    &tlv(0x31, &[&tlv(0x04, &[&algorithm.hash(&tst_info)])]),
                ],
            ),
        ];
        let signed = tlv(0x31, &[&attributes[0], &attributes[1]]);
        let leaf = x509_cert::Certificate::from_der(&self.leaf).unwrap().tbs_certificate;
        let signer = tlv(
            0x30,
            &[
                &tlv(0x02, &[&[1]]),
                &tlv(0x30, &[&leaf.issuer.to_der().unwrap(), &leaf.serial_number.to_der().unwrap()]),
                &hash,
                &tlv(0xa0, &[&attributes[0], &attributes[1]]),
                &tlv(0x30, &[&oid(algorithm.signature_oid)]),
                &tlv(0x04, &[&self.key.sign(&signed).unwrap()]),
            ],
        );
        let signed_data = tlv(
            0x30,
            &[
                &tlv(0x02, &[&[3]]),
                &tlv(0x31, &[&hash]),
                &tlv(0x30, &[&tst_info_type, &tlv(0xa0, &[&tlv(0x04, &[&tst_info])])]),
                &tlv(0x31, &[&signer]),
            ],
        );
        let content = tlv(0x30, &[&oid(&[1, 2, 840, 113549, 1, 7, 2]), &tlv(0xa0, &[&signed_data])]);
        tlv(0x30, &[&tlv(0x30, &[&tlv(0x02, &[&[0]])]), &content])
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2035, 1, 1);
    params
}

fn log_instance(host: &str, key: &KeyPair, id: &[u8]) -> Value {
    json!({
        "baseUrl": format!("https://{host}"),
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": base64(&spki(key)),
            "keyDetails": Algorithm::of(key).details,
            "validFor": { "start": "2025-01-01T00:00:00Z" },
        },
        "logId": { "keyId": base64(id) },
    })
}

fn chain(certificates: &[&[u8]]) -> Value {
    let certificates: Vec<Value> =
        certificates.iter().map(|der| json!({ "rawBytes": base64(der) })).collect();
    json!({ "certificates": certificates })
}

/// The SubjectPublicKeyInfo of a key.
pub(crate) fn spki(key: &KeyPair) -> Vec<u8> {
    key.subject_public_key_info()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two bytes of length, and the bytes; RFC 5246, 4.3.
fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// DER of tag, length and value.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    let head = match value.len() {
        ..=0x7f => vec![tag, length[1]],
        0x80..=0xff => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [head, value].concat()
}

fn oid(arcs: &[u32]) -> Vec<u8> {
    x509_cert::der::asn1::ObjectIdentifier::from_arcs(arcs.iter().copied()).unwrap().to_der().unwrap()
}
