//! What a decision costs, each figure beside the raw work that no implementation can avoid.
//!
//! `cargo bench`. Compare within one run only: the machine is the same for both.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a benchmark")]

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use divan::Bencher;
use sequoia_openpgp as openpgp;
use sequoia_openpgp::serialize::SerializeInto;
use serde::Deserialize;

use vouchd::digest::Digest;
use vouchd::engine;
use vouchd::evaluate::evidence::{Evidence, LocatedSignature, ManifestEvidence, Question, Subject};
use vouchd::evaluate::verdict::Decision;
use vouchd::evaluate::{Plan, plan};
use vouchd::manifest::Platform;
use vouchd::policy::Policy;
use vouchd::reference::{ImageReference, Named};
use vouchd::verify::trust::KeyMaterial;
use vouchd::verify::{UntrustedSignature, UntrustedSigstore};

#[path = "../tests/it/signer.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod signer;

fn main() {
    divan::main();
}

const SCOPES: &[usize] = &[10, 1_000, 10_000];
const IMAGE: &str = "registry.example/team-7/app:1.0";
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

/// A policy with `count` scopes of the kinds that fleets have.
fn policy(count: usize) -> String {
    let scope = |n: usize| {
        let requirement = match n % 3 {
            0 => {
                r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/etc/pki/containers/team.gpg","signedIdentity":{"type":"matchRepository"}}"#
            }
            1 => {
                r#"{"type":"sigstoreSigned","keyPath":"/etc/pki/containers/team.pub","signedIdentity":{"type":"matchRepoDigestOrExact"}}"#
            }
            _ => r#"{"type":"reject"}"#,
        };
        format!("      \"registry.example/team-{n}/app\": [\n        {requirement}\n      ]")
    };
    let scopes: Vec<String> = (0..count).map(scope).collect();
    format!(
        "{{\n  \"default\": [{{\"type\": \"reject\"}}],\n  \"transports\": {{\n    \"docker\": {{\n{}\n    }}\n  }}\n}}\n",
        scopes.join(",\n")
    )
}

/// The same document as serde_json reads it into types, without any check of its meaning.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only read")]
struct TypedPolicy {
    default: Vec<TypedRequirement>,
    transports: HashMap<String, HashMap<String, Vec<TypedRequirement>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code, reason = "only read")]
struct TypedRequirement {
    r#type: String,
    key_type: Option<String>,
    key_path: Option<String>,
    signed_identity: Option<TypedIdentity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only read")]
struct TypedIdentity {
    r#type: String,
}

#[divan::bench_group]
mod policy_parse {
    use super::*;

    #[divan::bench(args = SCOPES)]
    fn vouchd(bencher: Bencher<'_, '_>, count: usize) {
        let text = policy(count);
        bencher.bench(|| Policy::parse(black_box(text.as_bytes())).unwrap());
    }

    #[divan::bench(args = SCOPES)]
    fn raw_serde_json(bencher: Bencher<'_, '_>, count: usize) {
        let text = policy(count);
        bencher.bench(|| serde_json::from_slice::<TypedPolicy>(black_box(text.as_bytes())).unwrap());
    }
}

#[divan::bench_group]
mod lookup {
    use super::*;

    #[divan::bench(args = SCOPES)]
    fn vouchd(bencher: Bencher<'_, '_>, count: usize) {
        let policy = Policy::parse(policy(count).as_bytes()).unwrap();
        let image = image();
        bencher.bench(|| black_box(policy.lookup(black_box(&image)).span));
    }

    #[divan::bench(args = SCOPES)]
    fn raw_hash_map(bencher: Bencher<'_, '_>, count: usize) {
        let scopes: HashMap<String, usize> =
            (0..count).map(|n| (format!("registry.example/team-{n}/app"), n)).collect();
        bencher.bench(|| {
            scopes
                .get(black_box("registry.example/team-7/app:1.0"))
                .or_else(|| scopes.get(black_box("registry.example/team-7/app")))
                .copied()
        });
    }
}

#[divan::bench]
fn reference_parse(bencher: Bencher<'_, '_>) {
    bencher.bench(|| Named::parse(black_box(IMAGE)).unwrap());
}

fn image() -> ImageReference {
    ImageReference::docker(Named::parse(IMAGE).unwrap()).unwrap()
}

fn question() -> Question {
    Question { require_signature: true, subject: Subject::Either, platform: Platform::host() }
}

fn payload(kind: &str) -> String {
    let digest = Digest::sha256(MANIFEST);
    format!(
        r#"{{"critical":{{"type":"{kind}","image":{{"docker-manifest-digest":"{digest}"}},"identity":{{"docker-reference":"{IMAGE}"}}}},"optional":{{}}}}"#
    )
}

/// One image with one signature and one key file, ready to be judged.
struct Case {
    policy: Policy,
    image: ImageReference,
    question: Question,
    evidence: Evidence,
}

impl Case {
    fn new(requirement: &str, key: Vec<u8>, signature: UntrustedSignature) -> Self {
        let text = format!(r#"{{"default":[{requirement}]}}"#);
        let signature = LocatedSignature { location: "signature-1".to_owned(), signature };
        let manifest = ManifestEvidence {
            signatures: vec![signature],
            ..ManifestEvidence::new(MANIFEST.to_vec(), vouchd::manifest::OCI_MANIFEST.to_owned())
        };
        let key_files =
            BTreeMap::from([("/key".to_owned(), Arc::new(KeyMaterial::new("/key".to_owned(), key)))]);
        let case = Self {
            policy: Policy::parse(text.as_bytes()).unwrap(),
            image: image(),
            question: question(),
            evidence: Evidence { top_level: Some(manifest), key_files, ..Evidence::default() },
        };
        assert!(case.judge(), "the case must be one that is allowed");
        case
    }

    fn plan(&self) -> Plan<'_> {
        plan(&self.policy, &self.image, &self.question)
    }

    fn judge(&self) -> bool {
        self.judge_by(&self.evidence)
    }

    fn judge_by(&self, evidence: &Evidence) -> bool {
        matches!(self.plan().judge(evidence, engine::now()).decision, Decision::Allow(_))
    }

    /// The same evidence, with keys that have been read but have verified nothing yet.
    fn cold(&self) -> Evidence {
        let read = |(path, known): (&String, &Arc<KeyMaterial>)| {
            let material = KeyMaterial::new(path.clone(), known.bytes().to_vec());
            let _ = (material.certificates(), material.public_key(), material.trusted_root());
            (path.clone(), Arc::new(material))
        };
        let key_files = self.evidence.key_files.iter().map(read).collect();
        Evidence { key_files, ..self.evidence.clone() }
    }

    fn bench(&self, bencher: Bencher<'_, '_>) {
        bencher.with_inputs(|| self.cold()).bench_refs(|evidence| black_box(self).judge_by(evidence));
    }

    /// What was verified before is known (T-18).
    fn bench_again(&self, bencher: Bencher<'_, '_>) {
        bencher.bench(|| black_box(self).judge());
    }
}

#[divan::bench_group]
mod sigstore_signed_p256 {
    use super::*;

    fn signed() -> (Vec<u8>, Vec<u8>, String, Vec<u8>) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
        let payload = payload("cosign container image signature").into_bytes();
        let signature = pair.sign(&random, &payload).unwrap().as_ref().to_vec();
        let point = pair.public_key().as_ref().to_vec();
        // RFC 5480: the SubjectPublicKeyInfo of a point on P-256.
        let mut spki = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
            0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        spki.extend_from_slice(&point);
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&spki));
        (payload, signature, pem, spki)
    }

    #[divan::bench]
    fn vouchd(bencher: Bencher<'_, '_>) {
        case().bench(bencher);
    }

    #[divan::bench]
    fn vouchd_again(bencher: Bencher<'_, '_>) {
        case().bench_again(bencher);
    }

    fn case() -> Case {
        let (payload, signature, pem, _) = signed();
        let annotations =
            [("dev.cosignproject.cosign/signature".to_owned(), STANDARD.encode(signature))].into();
        let layer = UntrustedSigstore {
            mime_type: vouchd::verify::sigstore::SIGNATURE_MIME_TYPE.to_owned(),
            payload,
            annotations,
        };
        let requirement = r#"{"type":"sigstoreSigned","keyPath":"/key"}"#;
        Case::new(requirement, pem.into_bytes(), UntrustedSignature::Sigstore(layer))
    }

    #[divan::bench]
    fn raw_verification(bencher: Bencher<'_, '_>) {
        let (payload, signature, _, spki) = signed();
        bencher.bench(|| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, black_box(&spki))
                .verify(&payload, &signature)
                .unwrap();
        });
    }
}

#[divan::bench_group]
mod signed_by {
    use super::*;
    use openpgp::cert::prelude::*;
    use openpgp::packet::Signature;
    use openpgp::packet::signature::SignatureBuilder;
    use openpgp::serialize::stream::{LiteralWriter, Message, Signer};
    use openpgp::types::{HashAlgorithm, SignatureType};
    use std::io::Write;

    const SUITES: &[&str] = &["rsa4096", "ed25519"];

    fn cert(suite: &str) -> openpgp::Cert {
        let suite = match suite {
            "rsa4096" => CipherSuite::RSA4k,
            _ => CipherSuite::Cv25519,
        };
        let builder = CertBuilder::new().add_userid("bench").set_cipher_suite(suite);
        builder
            .set_primary_key_flags(openpgp::types::KeyFlags::empty().set_certification().set_signing())
            .generate()
            .unwrap()
            .0
    }

    #[divan::bench(args = SUITES, sample_count = 20)]
    fn vouchd(bencher: Bencher<'_, '_>, suite: &str) {
        case(suite).bench(bencher);
    }

    #[divan::bench(args = SUITES, sample_count = 20)]
    fn vouchd_again(bencher: Bencher<'_, '_>, suite: &str) {
        case(suite).bench_again(bencher);
    }

    fn case(suite: &str) -> Case {
        let cert = cert(suite);
        let pair = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
        let mut blob = Vec::new();
        let signer = Signer::new(Message::new(&mut blob), pair).unwrap().build().unwrap();
        let mut literal = LiteralWriter::new(signer).build().unwrap();
        literal.write_all(payload("atomic container signature").as_bytes()).unwrap();
        literal.finalize().unwrap();
        let requirement = r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/key"}"#;
        let key = SerializeInto::to_vec(&cert.strip_secret_key_material()).unwrap();
        Case::new(requirement, key, UntrustedSignature::SimpleSigning(blob))
    }

    /// One public-key operation of the same backend, without any cache.
    #[divan::bench(args = SUITES, sample_count = 20)]
    fn raw_verification(bencher: Bencher<'_, '_>, suite: &str) {
        let cert = cert(suite);
        let key = cert.primary_key().key().clone();
        let mut pair = key.clone().parts_into_secret().unwrap().into_keypair().unwrap();
        let signature: Signature = SignatureBuilder::new(SignatureType::Binary)
            .set_hash_algo(HashAlgorithm::SHA512)
            .sign_message(&mut pair, b"message")
            .unwrap();
        let digest = signature.computed_digest().unwrap().to_vec();
        let key = key.parts_into_public();
        bencher.bench(|| key.verify(signature.mpis(), HashAlgorithm::SHA512, black_box(&digest)).unwrap());
    }
}

/// What certificates and logs of Sigstore cost, beside as many verifications with P-256 as nobody can avoid.
#[divan::bench_group]
mod sigstore_certificates {
    use super::*;
    use rcgen::SigningKey;
    use signer::{Content, IN_TOTO, Names, Sigstore, Who, statement};

    /// How something is signed, and how many verifications that takes: the signature, two certificates, the log of
    /// certificates, and then entry, checkpoint or timestamp.
    const KINDS: &[(&str, usize)] =
        &[("attachment", 5), ("bundle-rekor-v1", 6), ("bundle-rekor-v2-tsa", 7), ("bundle-key", 1)];

    fn case(kind: &str) -> Case {
        let sigstore = Sigstore::new();
        let identity = sigstore.identity(&Names::default());
        let statement = statement(&Digest::sha256(MANIFEST)).to_string();
        let content = Content::Dsse { payload_type: IN_TOTO, payload: statement.as_bytes() };
        let (key, root) = (identity.key.public_key_pem(), sigstore.trusted_root().to_string());
        let bundle = |bundle: serde_json::Value| UntrustedSignature::Bundle(bundle.to_string().into_bytes());
        let who = Who::Identity(&identity);
        let (trusted, signature) = match kind {
            "attachment" => (root, UntrustedSignature::Sigstore(attachment(&sigstore, &identity))),
            "bundle-rekor-v1" => (root, bundle(sigstore.sign(&content, who))),
            "bundle-rekor-v2-tsa" => (root, bundle(sigstore.sign_v2(&content, who))),
            _ => (key, bundle(signer::bundle(&content, Who::Key(&identity.key)))),
        };
        let requirement = match kind {
            "bundle-key" => {
                r#"{"type":"sigstoreSigned","keyPath":"/key","signedIdentity":{"type":"matchRepositoryOrUnnamed"}}"#
            }
            _ => {
                r#"{"type":"sigstoreSigned","keyless":{"issuer":"https://issuer.example","subject":"someone@example.com"},"trustedRootPath":"/key"}"#
            }
        };
        Case::new(requirement, trusted.into_bytes(), signature)
    }

    /// As cosign 2 attaches it.
    fn attachment(sigstore: &Sigstore, identity: &signer::Identity) -> UntrustedSigstore {
        let payload = payload("cosign container image signature").into_bytes();
        UntrustedSigstore {
            mime_type: vouchd::verify::sigstore::SIGNATURE_MIME_TYPE.to_owned(),
            annotations: sigstore.attach(&payload, identity),
            payload,
        }
    }

    #[divan::bench(args = KINDS)]
    fn vouchd(bencher: Bencher<'_, '_>, (kind, _): &(&str, usize)) {
        case(kind).bench(bencher);
    }

    #[divan::bench(args = KINDS)]
    fn vouchd_again(bencher: Bencher<'_, '_>, (kind, _): &(&str, usize)) {
        case(kind).bench_again(bencher);
    }

    /// The library that does most of the arithmetic, with one authority and no policy.
    #[divan::bench(args = ["bundle-rekor-v1", "bundle-rekor-v2-tsa"])]
    fn library(bencher: Bencher<'_, '_>, kind: &str) {
        use sigstore_verify::{VerificationPolicy, Verifier, trust_root, types};
        let sigstore = Sigstore::new();
        let identity = sigstore.identity(&Names::default());
        let statement = statement(&Digest::sha256(MANIFEST)).to_string();
        let content = Content::Dsse { payload_type: IN_TOTO, payload: statement.as_bytes() };
        let who = Who::Identity(&identity);
        let bundle = match kind {
            "bundle-rekor-v1" => sigstore.sign(&content, who),
            _ => sigstore.sign_v2(&content, who),
        };
        let root = trust_root::TrustedRoot::from_json(&sigstore.trusted_root().to_string()).unwrap();
        let (verifier, bundle) = (Verifier::new(&root).unwrap(), bundle.to_string());
        let policy = VerificationPolicy::any_identity();
        bencher.bench(|| {
            let bundle = types::Bundle::from_json(black_box(&bundle)).unwrap();
            verifier.verify(MANIFEST, &bundle, &policy).unwrap()
        });
    }

    #[divan::bench(args = KINDS)]
    fn raw_verifications(bencher: Bencher<'_, '_>, (_, count): &(&str, usize)) {
        let key = rcgen::KeyPair::generate().unwrap();
        let signature = key.sign(MANIFEST).unwrap();
        bencher.bench(|| {
            for _ in 0..*count {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, black_box(key.public_key_raw()))
                    .verify(MANIFEST, &signature)
                    .unwrap();
            }
        });
    }
}
