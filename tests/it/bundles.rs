//! Sigstore bundles: the conformance suite, and bundles of our own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use rcgen::{KeyPair, RsaKeySize, SigningKey};
use serde_json::{Value, json};
use vouchd::digest::{Algorithm, Digest};
use vouchd::verify::bundle::{
    Artifact, BundleClaim, BundleSigner, LOG_ENTRIES, Lacking, Subject, TIMESTAMPS, Trust, verify_blob,
    verify_manifest,
};
use vouchd::verify::trust::KeyMaterial;
use vouchd::verify::trusted_root::{HostRoot, TrustedRoot};
use vouchd::verify::{Timestamp, Verified};

use crate::signer::{
    self, Content, IN_TOTO, Identity, MIDNIGHT, Names, Rekor, SIGNED_AT, San, Sigstore, TimestampAuthority,
    Who,
};
use crate::support;

/// The conformance suite, which stands beside the checkout if at all.
fn conformance() -> Option<PathBuf> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures/sigstore-conformance/bundle-verify");
    if path.is_dir() {
        return Some(path);
    }
    support::skip_without(&path);
    None
}

/// What a test does to a document.
type Change = Box<dyn Fn(&mut Value)>;

/// Each case that must be refused, and the code of the reason that its description states.
const REFUSED: [(&str, &str); 49] = [
    ("bundle-empty-certificate-chain", "bundle-malformed"),
    // The log is the first thing of another instance that is looked up.
    ("bundle-from-wrong-instance", "log-entry-invalid"),
    ("bundle-invalid-base64-signature", "bundle-malformed"),
    ("bundle-malformed-json", "bundle-malformed"),
    ("bundle-negative-log-index", "bundle-malformed"),
    ("bundle-unknown-version", "bundle-unsupported"),
    ("bundle-with-root-cert", "bundle-malformed"),
    ("checkpoint-bad-keyhint", "log-entry-invalid"),
    ("checkpoint-wrong-roothash", "log-entry-invalid"),
    ("dsse-invalid-sig", "bundle-signature"),
    ("dsse-mismatch-envelope", "log-entry-mismatch"),
    ("dsse-mismatch-sig", "log-entry-mismatch"),
    ("inclusion-proof-corrupted-hash", "log-entry-invalid"),
    ("incorrect-public-key", "log-entry-mismatch"),
    ("integrated-time-in-future", "bundle-certificate"),
    ("intoto-expired-certificate", "bundle-certificate"),
    ("intoto-log-entry-mismatch", "log-entry-mismatch"),
    ("intoto-missing-inclusion-proof", "log-entry-invalid"),
    ("intoto-set-outside-signing-cert-validity", "bundle-certificate"),
    ("intoto-tsa-timestamp-outside-cert-validity", "bundle-certificate"),
    ("invalid-checkpoint-signature", "log-entry-invalid"),
    ("invalid-ct-key", "sct-invalid"),
    ("invalid-inclusion-proof", "log-entry-invalid"),
    ("managed-key-no-key", "bundle-signer"),
    // What the case gives as a key is not on the curve.
    ("managed-key-wrong-key", "key-file-invalid"),
    ("message-digest-mismatch", "bundle-subject"),
    ("rekor2-checkpoint-missing-log-signature", "log-entry-invalid"),
    ("rekor2-checkpoint-missing-origin", "log-entry-invalid"),
    ("rekor2-checkpoint-missing-root-hash", "log-entry-invalid"),
    ("rekor2-checkpoint-missing-size", "log-entry-invalid"),
    ("rekor2-checkpoint-no-matching-signature", "log-entry-invalid"),
    ("rekor2-dsse-invalid-sig", "bundle-signature"),
    ("rekor2-dsse-mismatch-envelope", "log-entry-mismatch"),
    ("rekor2-dsse-mismatch-sig", "log-entry-mismatch"),
    ("rekor2-no-inclusion-proof", "log-entry-invalid"),
    ("rekor2-no-timestamp", "timestamp-missing"),
    ("rekor2-timestamp-outside-trust-root-tsa-validity", "timestamp-invalid"),
    ("rekor2-timestamp-outside-tsa-cert-validity", "timestamp-invalid"),
    ("rekor2-timestamp-payload-mismatch", "timestamp-invalid"),
    ("rekor2-timestamp-untrusted-tsa-with-embedded-cert", "timestamp-invalid"),
    ("rekor2-timestamp-untrusted-tsa-without-embedded-cert", "timestamp-invalid"),
    ("rekor2-timestamp-with-incorrect-time", "bundle-certificate"),
    ("set-invalid-signature", "log-entry-invalid"),
    ("signature-mismatch", "bundle-signature"),
    ("trust-root-tlog-missing-validity-start", "trusted-root-invalid"),
    ("wrong-hashedrekord-artifact", "log-entry-mismatch"),
    ("wrong-hashedrekord-cert-and-sig", "log-entry-mismatch"),
    ("wrong-hashedrekord-entry", "log-entry-mismatch"),
    ("wrong-material", "bundle-subject"),
];

/// What the suite asks of a client, but for the identity: the claim, or the code of the refusal.
fn judge(case: &Path, digest_only: bool) -> Result<BundleClaim, String> {
    let read = |name: &str| fs::read(case.join(name)).ok();
    let beside = |name: &str| fs::read(case.parent().unwrap().parent().unwrap().join(name)).unwrap();
    let artifact = read("artifact").unwrap_or_else(|| beside("a.txt"));
    let bundle = read("bundle.sigstore.json").unwrap();
    let own_root = read("trusted_root.json").map(|json| TrustedRoot::parse(&json));
    let own_root = own_root.transpose().map_err(|error| error.code().to_string())?;
    let built_in = HostRoot::built_in().unwrap();
    let root = own_root.as_ref().unwrap_or(&built_in.root);
    let key = read("key.pub").map(|pem| KeyMaterial::new("key.pub".to_owned(), pem));
    let keys: Vec<&KeyMaterial> = key.iter().collect();
    let trust = if keys.is_empty() {
        Trust::Certificates { root, lacking: Lacking::Refused }
    } else {
        Trust::Keys { keys: &keys, root: Some(root) }
    };
    let digest = Digest::sha256(&artifact);
    let artifact = if digest_only { Artifact::Sha256(&digest) } else { Artifact::Bytes(&artifact) };
    code(verify_blob(&bundle, artifact, trust))
}

fn code(judged: Result<Verified<BundleClaim>, vouchd::verify::Rejection>) -> Result<BundleClaim, String> {
    match judged {
        Ok(verified) => Ok(verified.get().clone()),
        Err(rejection) => {
            // What is printed must never fail, whatever it quotes.
            assert!(!rejection.to_string().is_empty() && !rejection.help().is_empty());
            Err(rejection.code().to_string())
        }
    }
}

// Rules T-14, C-3.
#[test]
fn the_conformance_suite_is_judged_as_it_says() {
    let Some(directory) = conformance() else { return };
    let refused: BTreeMap<&str, &str> = REFUSED.into();
    let (mut accepted, mut rejected) = (0, 0);
    for entry in fs::read_dir(&directory).unwrap() {
        let case = entry.unwrap().path();
        if !case.is_dir() {
            continue;
        }
        let name = case.file_name().unwrap().to_str().unwrap();
        for digest_only in [false, true] {
            let judged = judge(&case, digest_only);
            match name.strip_suffix("_fail") {
                Some(name) => {
                    assert_eq!(judged.unwrap_err(), refused[name], "{name}");
                    rejected += 1;
                }
                None => {
                    let claim = judged.unwrap_or_else(|code| panic!("{name}: {code}"));
                    assert!(!claim.times.is_empty() && claim.log_entries.len() == 1, "{name}: {claim:?}");
                    accepted += 1;
                }
            }
        }
    }
    assert_eq!((accepted, rejected), (42, 98));
}

#[test]
fn the_embedded_trusted_root_can_be_used() {
    let root = HostRoot::built_in().unwrap().root;
    assert!(
        root.has_logs() && root.has_ct_logs() && root.has_authorities() && root.has_timestamp_authorities()
    );
}

/// An image, a Sigstore, and somebody who signs.
struct World {
    sigstore: Sigstore,
    identity: Identity,
    manifest: Vec<u8>,
    digest: Digest,
    payload: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let sigstore = Sigstore::new();
        let identity = sigstore.identity(&Names::default());
        let manifest = br#"{"schemaVersion":2}"#.to_vec();
        let digest = Digest::sha256(&manifest);
        let payload = signer::statement(&digest).to_string().into_bytes();
        Self { sigstore, identity, manifest, digest, payload }
    }

    fn root(&self) -> TrustedRoot {
        TrustedRoot::parse(self.sigstore.trusted_root().to_string().as_bytes()).unwrap()
    }

    fn who(&self) -> Who<'_> {
        Who::Identity(&self.identity)
    }

    fn statement(&self) -> Content<'_> {
        Content::Dsse { payload_type: IN_TOTO, payload: &self.payload }
    }

    fn message(&self) -> Content<'_> {
        Content::Message(&self.manifest)
    }

    fn good(&self) -> Value {
        self.sigstore.sign(&self.statement(), self.who())
    }

    fn good_v2(&self) -> Value {
        self.sigstore.sign_v2(&self.statement(), self.who())
    }

    fn image_text(&self, bundle: &[u8], root: &TrustedRoot) -> Result<BundleClaim, String> {
        let trust = Trust::Certificates { root, lacking: Lacking::Refused };
        code(verify_manifest(bundle, &self.manifest, &self.digest, trust, false))
    }

    fn image(&self, bundle: &Value, root: &TrustedRoot) -> Result<BundleClaim, String> {
        self.image_text(bundle.to_string().as_bytes(), root)
    }
}

#[test]
fn a_signature_on_an_image_is_verified() {
    let world = World::new();
    let root = world.root();
    for (bundle, times, log) in [
        (world.good(), 1, "rekor.example"),
        (world.good_v2(), 1, "log2026-1.rekor.example"),
        (
            {
                let mut bundle = world.good();
                world.sigstore.timestamps.stamp(&mut bundle, SIGNED_AT);
                bundle
            },
            2,
            "rekor.example",
        ),
    ] {
        let claim = world.image(&bundle, &root).unwrap();
        assert_eq!(claim.times, vec![Timestamp(SIGNED_AT); times]);
        assert_eq!(claim.log_entries.iter().map(|entry| &*entry.log).collect::<Vec<_>>(), [log]);
        assert!(matches!(&claim.signer, BundleSigner::Certificate { der, .. } if *der == world.identity.der));
        let Subject::Statement { predicate_type, subjects } = claim.subject else { panic!() };
        assert_eq!(predicate_type, signer::COSIGN_SIGN);
        assert_eq!(subjects.count(), 1);
        assert_eq!(subjects.first().name, None);
    }
}

// Rule T-17.
#[test]
fn a_message_signature_counts_only_where_it_may() {
    let world = World::new();
    let root = world.root();
    let trust = Trust::Certificates { root: &root, lacking: Lacking::Refused };
    for bundle in [
        world.sigstore.sign(&world.message(), world.who()),
        world.sigstore.sign_v2(&world.message(), world.who()),
    ] {
        let text = bundle.to_string();
        let judge = |may| code(verify_manifest(text.as_bytes(), &world.manifest, &world.digest, trust, may));
        assert_eq!(judge(false).unwrap_err(), "not-a-signature");
        assert_eq!(judge(true).unwrap().subject, Subject::Message);
        for artifact in [Artifact::Bytes(&world.manifest), Artifact::Sha256(&world.digest)] {
            assert!(verify_blob(text.as_bytes(), artifact, trust).is_ok());
        }
        // Another hash of the artifact, of which only this one is known.
        let mut bundle = bundle.clone();
        bundle["messageSignature"]["messageDigest"]["algorithm"] = json!("SHA2_512");
        let judged = verify_blob(bundle.to_string().as_bytes(), Artifact::Sha256(&world.digest), trust);
        assert_eq!(code(judged).unwrap_err(), "bundle-unsupported");
        assert_eq!(
            code(verify_blob(text.as_bytes(), Artifact::Bytes(b"x"), trust)).unwrap_err(),
            "bundle-subject"
        );
    }
}

/// A root in which something is changed.
fn root_with(world: &World, change: impl FnOnce(&mut Value)) -> TrustedRoot {
    let mut root = world.sigstore.trusted_root();
    change(&mut root);
    TrustedRoot::parse(root.to_string().as_bytes()).unwrap()
}

// Rule T-16.
#[test]
fn only_statements_that_are_signatures_on_this_image_count() {
    let world = World::new();
    let root = world.root();
    let other = Digest::sha256(b"other").hex().to_owned();
    let same = json!({ "sha256": world.digest.hex() });
    let cases: [(&str, Change, Result<usize, &str>); 22] = [
        ("nothing", Box::new(|_| {}), Ok(1)),
        ("a name", Box::new(|s| s["subject"][0]["name"] = json!("registry.example/a")), Ok(1)),
        ("annotations", Box::new(|s| s["subject"][0]["annotations"] = json!({ "a": "b", "c": 1 })), Ok(1)),
        (
            "another algorithm beside",
            Box::new(|s| s["subject"][0]["digest"]["sha512"] = json!("0".repeat(128))),
            Ok(1),
        ),
        ("an older version", Box::new(|s| s["_type"] = json!("https://in-toto.io/Statement/v0.1")), Ok(1)),
        (
            "two names",
            Box::new({
                let same = same.clone();
                move |s| s["subject"] = json!([{ "name": "a", "digest": same }, { "digest": same }])
            }),
            Ok(2),
        ),
        (
            "another subject, too",
            Box::new({
                let (same, other) = (same.clone(), other.clone());
                move |s| s["subject"] = json!([{ "digest": { "sha256": other } }, { "digest": same }])
            }),
            Ok(1),
        ),
        (
            "another predicate",
            Box::new(|s| s["predicateType"] = json!("https://slsa.dev/provenance/v1")),
            Err("not-a-signature"),
        ),
        (
            "a longer predicate type",
            Box::new(|s| s["predicateType"] = json!(format!("{}/", signer::COSIGN_SIGN))),
            Err("not-a-signature"),
        ),
        ("no predicate type", Box::new(|s| s["predicateType"] = Value::Null), Err("bundle-malformed")),
        ("a predicate that is a list", Box::new(|s| s["predicate"] = json!([])), Err("bundle-malformed")),
        ("no predicate", Box::new(|s| s["predicate"] = Value::Null), Err("bundle-malformed")),
        (
            "another type",
            Box::new(|s| s["_type"] = json!("https://in-toto.io/Statement/v2")),
            Err("not-a-signature"),
        ),
        ("no type", Box::new(|s| s["_type"] = Value::Null), Err("bundle-malformed")),
        (
            "another image",
            Box::new(move |s| s["subject"][0]["digest"]["sha256"] = json!(other)),
            Err("bundle-subject"),
        ),
        (
            "upper case",
            Box::new(|s| {
                s["subject"][0]["digest"]["sha256"] =
                    json!(s["subject"][0]["digest"]["sha256"].as_str().unwrap().to_uppercase())
            }),
            Err("bundle-subject"),
        ),
        (
            "another algorithm only",
            Box::new(|s| s["subject"][0]["digest"] = json!({ "sha512": "0".repeat(128) })),
            Err("bundle-subject"),
        ),
        ("no subject", Box::new(|s| s["subject"] = json!([])), Err("bundle-subject")),
        (
            "a subject without digest",
            Box::new(|s| s["subject"] = json!([{ "name": "a" }])),
            Err("bundle-malformed"),
        ),
        (
            "a name that is a number",
            Box::new(|s| s["subject"][0]["name"] = json!(1)),
            Err("bundle-malformed"),
        ),
        ("a misspelled member", Box::new(|s| s["PredicateType"] = json!("x")), Err("bundle-malformed")),
        (
            "129 annotations",
            Box::new(|s| {
                s["subject"][0]["annotations"] = (0..129).map(|n| (n.to_string(), json!("x"))).collect()
            }),
            Err("bundle-malformed"),
        ),
    ];
    for (name, change, expected) in cases {
        let mut statement = signer::statement(&world.digest);
        change(&mut statement);
        let payload = statement.to_string();
        let content = Content::Dsse { payload_type: IN_TOTO, payload: payload.as_bytes() };
        let judged = world.image(&world.sigstore.sign(&content, world.who()), &root);
        let found = judged.map(|claim| match claim.subject {
            Subject::Statement { subjects, .. } => subjects.count(),
            Subject::Message => 0,
        });
        assert_eq!(found, expected.map_err(str::to_owned), "{name}");
    }
    for (payload_type, payload, expected) in [
        ("application/json", &*world.payload, "not-a-signature"),
        (IN_TOTO, b"not JSON", "bundle-malformed"),
        (IN_TOTO, b"[]", "bundle-malformed"),
    ] {
        let content = Content::Dsse { payload_type, payload };
        let judged = world.image(&world.sigstore.sign(&content, world.who()), &root);
        assert_eq!(judged.unwrap_err(), expected, "{payload_type}");
    }
    let twice = String::from_utf8(world.payload.clone()).unwrap();
    for member in [r#""predicateType":"x","predicateType""#, r#""predicateType":"x","predicate\u0054ype""#] {
        let payload = twice.replacen(r#""predicateType""#, member, 1);
        assert_ne!(payload, twice);
        let content = Content::Dsse { payload_type: IN_TOTO, payload: payload.as_bytes() };
        let judged = world.image(&world.sigstore.sign(&content, world.who()), &root);
        assert_eq!(judged.unwrap_err(), "bundle-malformed");
    }
}

// Rules T-11, T-28.
#[test]
fn shapes_that_do_not_count_are_refused() {
    let world = World::new();
    let root = world.root();
    let good = world.good();
    let text = good.to_string();
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let deep = text.replacen(r#""mediaType""#, &format!(r#""x":{deep},"mediaType""#), 1);
    let large = text.replacen('{', &format!("{{{}", " ".repeat(50 << 20)), 1);
    for (name, text) in
        [("deep", deep), ("50 MB", large), ("empty", String::new()), ("null", "null".to_owned())]
    {
        assert_eq!(world.image_text(text.as_bytes(), &root).unwrap_err(), "bundle-malformed", "{name}");
    }
    let other = Digest::sha256(b"other");
    let trust = Trust::Certificates { root: &root, lacking: Lacking::Refused };
    let judged = code(verify_manifest(text.as_bytes(), &world.manifest, &other, trust, false));
    assert_eq!(judged.unwrap_err(), "digest-mismatch");
    let sha512 = Digest::compute(Algorithm::Sha512, &world.manifest);
    assert!(verify_manifest(text.as_bytes(), &world.manifest, &sha512, trust, false).is_ok());
    assert_eq!(
        code(verify_blob(text.as_bytes(), Artifact::Sha256(&sha512), trust)).unwrap_err(),
        "bundle-unsupported"
    );

    let material = |bundle: &mut Value, key: &str, value: Value| bundle["verificationMaterial"][key] = value;
    let certificate = good["verificationMaterial"]["certificate"].clone();
    let entry = good["verificationMaterial"]["tlogEntries"][0].clone();
    let cases: [(&str, Change, &str); 20] = [
        ("no media type", Box::new(|b| b["mediaType"] = Value::Null), "bundle-malformed"),
        (
            "another media type",
            Box::new(|b| b["mediaType"] = json!("application/vnd.dev.sigstore.bundle.v0.4+json")),
            "bundle-unsupported",
        ),
        ("an unknown member", Box::new(|b| b["x"] = json!(1)), "bundle-malformed"),
        ("another spelling", Box::new(|b| b["media_type"] = json!("x")), "bundle-malformed"),
        (
            "two contents",
            Box::new(|b| b["messageSignature"] = json!({ "signature": "YQ==" })),
            "bundle-malformed",
        ),
        ("no content", Box::new(|b| b["dsseEnvelope"] = Value::Null), "bundle-malformed"),
        ("no signature", Box::new(|b| b["dsseEnvelope"]["signatures"] = json!([])), "bundle-malformed"),
        (
            "two signatures",
            Box::new(|b| {
                let signature = b["dsseEnvelope"]["signatures"][0].clone();
                b["dsseEnvelope"]["signatures"] = json!([signature, signature]);
            }),
            "bundle-malformed",
        ),
        (
            "a chain",
            Box::new({
                let certificate = certificate.clone();
                move |b| {
                    material(b, "certificate", Value::Null);
                    material(b, "x509CertificateChain", json!({ "certificates": [certificate] }));
                }
            }),
            "bundle-malformed",
        ),
        (
            "a key beside the certificate",
            Box::new(move |b| material(b, "publicKey", json!({ "hint": "x" }))),
            "bundle-malformed",
        ),
        (
            "a key instead of the certificate",
            Box::new(move |b| {
                material(b, "certificate", Value::Null);
                material(b, "publicKey", json!({ "hint": "x" }));
            }),
            "bundle-signer",
        ),
        ("no signer", Box::new(move |b| material(b, "certificate", Value::Null)), "bundle-malformed"),
        ("no log entry", Box::new(move |b| material(b, "tlogEntries", json!([]))), "log-entry-missing"),
        (
            "one entry twice",
            Box::new({
                let entry = entry.clone();
                move |b| material(b, "tlogEntries", json!([entry, entry]))
            }),
            "bundle-malformed",
        ),
        (
            "33 entries",
            Box::new({
                let entry = entry.clone();
                move |b| material(b, "tlogEntries", json!(vec![entry.clone(); LOG_ENTRIES + 1]))
            }),
            "bundle-malformed",
        ),
        (
            "the same entry twice, under another index",
            Box::new({
                let (one, mut other) = (entry.clone(), entry.clone());
                other["logIndex"] = json!("7");
                move |b| material(b, "tlogEntries", json!([one, other]))
            }),
            "bundle-malformed",
        ),
        // T-28: reading these takes time by the square of their length.
        (
            "a certificate of more than 16 KiB",
            Box::new(move |b| {
                material(b, "certificate", json!({ "rawBytes": crate::signer::base64(&[0; (16 << 10) + 1]) }))
            }),
            "bundle-malformed",
        ),
        (
            "a timestamp of more than 16 KiB",
            Box::new(move |b| {
                let token = json!({ "signedTimestamp": crate::signer::base64(&[0; (16 << 10) + 1]) });
                material(b, "timestampVerificationData", json!({ "rfc3161Timestamps": [token] }));
            }),
            "bundle-malformed",
        ),
        (
            "33 timestamps",
            Box::new(move |b| {
                let tokens = vec![json!({ "signedTimestamp": "YQ==" }); TIMESTAMPS + 1];
                material(b, "timestampVerificationData", json!({ "rfc3161Timestamps": tokens }));
            }),
            "bundle-malformed",
        ),
        (
            "an entry of an unknown kind",
            Box::new(|b| {
                b["verificationMaterial"]["tlogEntries"][0]["kindVersion"]["kind"] = json!("rekord");
            }),
            "bundle-unsupported",
        ),
    ];
    for (name, change, expected) in cases {
        let mut bundle = good.clone();
        change(&mut bundle);
        assert_eq!(world.image(&bundle, &root).unwrap_err(), expected, "{name}");
    }
}

#[test]
fn old_versions_count_for_blobs_only() {
    let world = World::new();
    let root = world.root();
    let trust = Trust::Certificates { root: &root, lacking: Lacking::Refused };
    let old = |version: &str| {
        let mut bundle = world.good();
        bundle["mediaType"] = json!(format!("application/vnd.dev.sigstore.bundle+json;version={version}"));
        let material = bundle["verificationMaterial"].as_object_mut().unwrap();
        let certificate = material.remove("certificate").unwrap();
        material.insert("x509CertificateChain".to_owned(), json!({ "certificates": [certificate] }));
        bundle
    };
    let blob = |bundle: &Value| {
        code(verify_blob(bundle.to_string().as_bytes(), Artifact::Bytes(&world.manifest), trust))
    };
    for version in ["0.1", "0.2"] {
        let bundle = old(version);
        assert_eq!(world.image(&bundle, &root).unwrap_err(), "bundle-unsupported", "{version}");
        assert!(blob(&bundle).is_ok(), "{version}");
        for (part, expected) in [
            ("inclusionPromise", [Some("log-entry-invalid"), Some("timestamp-missing")]),
            ("inclusionProof", [None, Some("log-entry-invalid")]),
        ] {
            let mut bundle = bundle.clone();
            bundle["verificationMaterial"]["tlogEntries"][0][part] = Value::Null;
            let expected = expected[usize::from(version == "0.2")];
            assert_eq!(blob(&bundle).err().as_deref(), expected, "{version} without {part}");
        }
    }
    let mut bundle = old("0.2");
    let authority =
        world.sigstore.trusted_root()["certificateAuthorities"][0]["certChain"]["certificates"].clone();
    let chain = &mut bundle["verificationMaterial"]["x509CertificateChain"]["certificates"];
    chain.as_array_mut().unwrap().push(authority[0].clone());
    assert!(blob(&bundle).is_ok(), "with an intermediate");
    let mut many = bundle.clone();
    let chain = &mut many["verificationMaterial"]["x509CertificateChain"]["certificates"];
    chain.as_array_mut().unwrap().extend(vec![authority[0].clone(); 6]);
    assert!(blob(&many).is_ok(), "with eight certificates");
    let chain = &mut many["verificationMaterial"]["x509CertificateChain"]["certificates"];
    chain.as_array_mut().unwrap().push(authority[0].clone());
    assert_eq!(blob(&many).unwrap_err(), "bundle-malformed", "with nine");
    let chain = &mut many["verificationMaterial"]["x509CertificateChain"]["certificates"];
    *chain = json!([chain[0], { "rawBytes": "YQ==" }]);
    assert_eq!(blob(&many).unwrap_err(), "bundle-malformed", "with what is no certificate");
    let chain = &mut bundle["verificationMaterial"]["x509CertificateChain"]["certificates"];
    chain.as_array_mut().unwrap().push(authority[1].clone());
    assert_eq!(blob(&bundle).unwrap_err(), "bundle-malformed", "with a root");
    let mut bundle = old("0.1");
    bundle["mediaType"] = json!("application/vnd.dev.sigstore.bundle.v0.1+json");
    assert!(blob(&bundle).is_ok());
}

/// Every path to a value in a document, and whether it is a leaf.
fn paths(value: &Value, prefix: &str, found: &mut Vec<(String, bool)>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            members.iter().map(|(key, value)| (format!("{prefix}/{key}"), value)).collect()
        }
        Value::Array(elements) => {
            elements.iter().enumerate().map(|(index, value)| (format!("{prefix}/{index}"), value)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (path, child) in children {
        found.push((path.clone(), !child.is_object() && !child.is_array()));
        paths(child, &path, found);
    }
}

/// The document with `member` doubled.
fn doubled(value: &Value, path: &str) -> String {
    let (parent, key) = path.rsplit_once('/').unwrap();
    let mut document = value.clone();
    let inner = document.pointer(path).unwrap().clone();
    document.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert("PLACE".to_owned(), inner);
    document.to_string().replacen("\"PLACE\"", &format!("\"{key}\""), 1)
}

#[test]
fn every_field_matters() {
    let world = World::new();
    let root = world.root();
    // Nothing can be proven by these, so that nothing depends on them.
    let unproven = ["/dsseEnvelope/signatures/0/keyid"];
    for (name, good) in [("v1", world.good()), ("v2", world.good_v2())] {
        let mut all = Vec::new();
        paths(&good, "", &mut all);
        assert!(all.len() > 25, "{name}");
        for (path, is_leaf) in &all {
            let judge = |bundle: &Value| world.image(bundle, &root);
            let mut without = good.clone();
            *without.pointer_mut(path).unwrap() = Value::Null;
            // In Rekor v2 these repeat the checkpoint and the entry, and may be left out.
            let repeated = name == "v2"
                && ["inclusionProof/logIndex", "rootHash", "treeSize"].iter().any(|end| path.ends_with(end));
            let optional = unproven.contains(&&**path) || repeated;
            assert_eq!(judge(&without).is_ok(), optional, "{name} without {path}");
            if !path.ends_with("/0") && !path.ends_with("/1") && !path.ends_with("/2") {
                let judged = world.image_text(doubled(&good, path).as_bytes(), &root);
                assert_eq!(judged.unwrap_err(), "bundle-malformed", "{name} with {path} twice");
            }
            if !is_leaf {
                continue;
            }
            let text = good.pointer(path).unwrap().as_str().unwrap().to_owned();
            let flipped = match text.parse::<u64>() {
                Ok(number) => (number + 1).to_string(),
                Err(_) => {
                    // The middle of base64, so that it remains base64.
                    let mut bytes = text.clone().into_bytes();
                    let middle = bytes.len() / 2;
                    if let Some(byte) = bytes.get_mut(middle) {
                        *byte = if *byte == b'A' { b'B' } else { b'A' };
                    } else {
                        bytes.push(b'A');
                    }
                    String::from_utf8_lossy(&bytes).into_owned()
                }
            };
            for changed in [json!(flipped), json!(1), json!([]), json!({}), json!(format!("{text}\u{0}"))] {
                let mut bundle = good.clone();
                *bundle.pointer_mut(path).unwrap() = changed.clone();
                let harmless = unproven.contains(&&**path) && changed.is_string();
                assert_eq!(judge(&bundle).is_ok(), harmless, "{name} with {path} = {changed}");
            }
        }
    }
}

/// With a key there is no second opinion, and every part of a log entry matters all the same.
#[test]
fn every_part_of_an_entry_matters_where_a_key_signs() {
    let world = World::new();
    let root = world.root();
    let key = KeyPair::generate().unwrap();
    let material = KeyMaterial::of_policy(key.public_key_pem().as_bytes());
    let trust = Trust::Keys { keys: &[&material], root: Some(&root) };
    let judge = |bundle: &Value| {
        let text = bundle.to_string();
        code(verify_manifest(text.as_bytes(), &world.manifest, &world.digest, trust, false)).map(drop)
    };
    let content = world.statement();
    let goods =
        [world.sigstore.sign(&content, Who::Key(&key)), world.sigstore.sign_v2(&content, Who::Key(&key))];
    for (good, is_v2) in goods.iter().zip([false, true]) {
        assert_eq!(judge(good), Ok(()));
        let mut all = Vec::new();
        paths(&good["verificationMaterial"]["tlogEntries"][0], "", &mut all);
        assert!(all.len() > 12);
        for (path, is_leaf) in all {
            let path = format!("/verificationMaterial/tlogEntries/0{path}");
            let mut without = good.clone();
            *without.pointer_mut(&path).unwrap() = Value::Null;
            // Who signs with a key needs no time; in Rekor v2 these repeat what is signed.
            let optional = path.ends_with("/inclusionPromise")
                || is_v2
                    && ["inclusionProof/logIndex", "rootHash", "treeSize"]
                        .iter()
                        .any(|end| path.ends_with(end));
            assert_eq!(judge(&without).is_ok(), optional, "v2 {is_v2} without {path}");
            if !is_leaf {
                continue;
            }
            let text = good.pointer(&path).unwrap().as_str().unwrap().to_owned();
            let changed = match text.parse::<u64>() {
                Ok(number) => (number + 1).to_string(),
                Err(_) => {
                    let middle = text.len() / 2;
                    let other = if text.as_bytes()[middle] == b'A' { "B" } else { "A" };
                    format!("{}{other}{}", &text[..middle], &text[middle + 1..])
                }
            };
            let mut bundle = good.clone();
            *bundle.pointer_mut(&path).unwrap() = json!(changed);
            assert!(judge(&bundle).is_err(), "v2 {is_v2} with {path} = {changed}");
        }
    }
}

/// Base64 as it is not written, but as some readers take it: what, how, and whether it means the same here.
fn spellings(text: &str) -> Vec<(&'static str, String, bool)> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (body, padding) = text.split_at(text.trim_end_matches('=').len());
    let mut all = vec![
        ("line ends", format!("{}\r\n{}\n", &text[..4], &text[4..]), true),
        ("more padding", format!("{text}="), false),
        ("a group of padding", format!("{text}===="), false),
        ("a space before", format!(" {text}"), false),
        ("a space after", format!("{text} "), false),
        ("a tab within", format!("{}\t{}", &text[..4], &text[4..]), false),
        ("a NUL after", format!("{text}\0"), false),
        ("a letter more", format!("{text}A"), false),
        ("one of the other alphabet", format!("-{}", &text[1..]), false),
    ];
    if !padding.is_empty() {
        let last = ALPHABET.iter().position(|c| Some(c) == body.as_bytes().last()).unwrap();
        let bits = char::from(ALPHABET[last + 1]);
        all.push(("no padding", body.to_owned(), false));
        all.push(("bits after the end", format!("{}{bits}{padding}", &body[..body.len() - 1]), false));
    }
    all
}

/// Whether a member holds base64.
fn is_base64(path: &str) -> bool {
    let ends = [
        "/canonicalizedBody",
        "/content",
        "/digest",
        "/keyId",
        "/payload",
        "/rawBytes",
        "/rootHash",
        "/sig",
        "/signature",
        "/signedEntryTimestamp",
        "/signedTimestamp",
        "/verifier",
    ];
    ends.iter().any(|end| path.ends_with(end)) || path.contains("/hashes/")
}

#[test]
fn base64_is_canonical_but_for_line_ends_in_every_member() {
    let world = World::new();
    let root = world.root();
    let trust = Trust::Certificates { root: &root, lacking: Lacking::Refused };
    let judge = |bundle: &Value| {
        let text = bundle.to_string();
        code(verify_manifest(text.as_bytes(), &world.manifest, &world.digest, trust, true)).map(drop)
    };
    let message = world.message();
    let goods = [
        (world.good(), 10),
        (world.good_v2(), 10),
        (world.sigstore.sign(&message, world.who()), 10),
        (world.sigstore.sign_v2(&message, world.who()), 10),
    ];
    for (good, members) in goods {
        let mut all = Vec::new();
        paths(&good, "", &mut all);
        all.retain(|(path, is_leaf)| *is_leaf && is_base64(path));
        assert_eq!(all.len(), members, "{all:?}");
        for (path, _) in all {
            let text = good.pointer(&path).unwrap().as_str().unwrap();
            for (what, changed, is_same) in spellings(text) {
                let mut bundle = good.clone();
                *bundle.pointer_mut(&path).unwrap() = json!(changed);
                let wanted = if is_same { Ok(()) } else { Err("bundle-malformed".to_owned()) };
                assert_eq!(judge(&bundle), wanted, "{path}: {what}");
            }
        }
        // What stands in the body of the entry, which its log has proven.
        let entry = &good["verificationMaterial"]["tlogEntries"][0];
        let body =
            base64::engine::general_purpose::STANDARD.decode(entry["canonicalizedBody"].as_str().unwrap());
        let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
        let mut all = Vec::new();
        paths(&body, "", &mut all);
        all.retain(|(path, is_leaf)| *is_leaf && is_base64(path));
        assert!(all.len() >= 2, "{all:?}");
        let is_v2 = entry["kindVersion"]["version"] == "0.0.2";
        let log = if is_v2 { &world.sigstore.rekor_v2 } else { &world.sigstore.rekor };
        let name = |member: &str| entry["kindVersion"][member].as_str().unwrap().to_owned();
        for (path, _) in all {
            let text = body.pointer(&path).unwrap().as_str().unwrap();
            for (what, changed, is_same) in spellings(text) {
                let mut body = body.clone();
                *body.pointer_mut(&path).unwrap() = json!(changed);
                let mut bundle = good.clone();
                bundle["verificationMaterial"]["tlogEntries"][0] =
                    log.prove(&name("kind"), &name("version"), body.to_string().as_bytes());
                // No log writes line ends there, and whether they are taken is the library's affair.
                if !is_same {
                    assert_eq!(judge(&bundle).unwrap_err(), "log-entry-invalid", "body {path}: {what}");
                }
            }
        }
    }
    // A trusted root is the administrator's own, and read by the library.
    let good = world.sigstore.trusted_root();
    let mut all = Vec::new();
    paths(&good, "", &mut all);
    all.retain(|(path, is_leaf)| *is_leaf && is_base64(path));
    assert_eq!(all.len(), 10, "{all:?}");
    for (path, _) in all {
        let text = good.pointer(&path).unwrap().as_str().unwrap();
        // As ProtoJSON allows, it takes both alphabets, padded or not; nothing else.
        for (what, changed, _) in spellings(text) {
            let mut root = good.clone();
            *root.pointer_mut(&path).unwrap() = json!(changed);
            let parsed = TrustedRoot::parse(root.to_string().as_bytes());
            if !["no padding", "one of the other alphabet"].contains(&what) {
                assert!(parsed.is_err(), "{path}: {what}");
            }
        }
    }
}

/// ProtoJSON that other readers take, or take otherwise.
#[test]
fn members_are_spelled_and_written_in_one_way() {
    let world = World::new();
    let root = world.root();
    let trust = Trust::Certificates { root: &root, lacking: Lacking::Refused };
    let judge = |text: &str| {
        code(verify_manifest(text.as_bytes(), &world.manifest, &world.digest, trust, true)).map(drop)
    };
    let malformed = || Err("bundle-malformed".to_owned());
    for good in [
        world.good(),
        world.good_v2(),
        world.sigstore.sign(&world.message(), world.who()),
        world.sigstore.sign_v2(&world.message(), world.who()),
    ] {
        let mut all = vec![(String::new(), false)];
        paths(&good, "", &mut all);
        for (path, _) in &all {
            let value = good.pointer(path).unwrap();
            let with = |new: Value| {
                let mut bundle = good.clone();
                *bundle.pointer_mut(path).unwrap() = new;
                bundle.to_string()
            };
            if let Some(members) = value.as_object() {
                let snake = |key: &str| {
                    key.chars().fold(String::new(), |text, c| {
                        if c.is_ascii_uppercase() {
                            format!("{text}_{}", c.to_ascii_lowercase())
                        } else {
                            text + &c.to_string()
                        }
                    })
                };
                let mut unknown = value.clone();
                unknown["unknown"] = Value::Null;
                assert_eq!(judge(&with(unknown)), malformed(), "{path}: an unknown member that is null");
                for (key, member) in members {
                    for other in [snake(key), key.to_uppercase(), format!("{key}\u{0}")] {
                        if other == *key {
                            continue;
                        }
                        let mut both = value.clone();
                        both[&other] = member.clone();
                        assert_eq!(judge(&with(both.clone())), malformed(), "{path}: {key} and {other}");
                        both.as_object_mut().unwrap().remove(key);
                        assert_eq!(judge(&with(both)), malformed(), "{path}: {other} for {key}");
                    }
                }
            }
            if let Some(elements) = value.as_array() {
                for (what, new) in [
                    ("null more", json!([&elements[..], &[Value::Null]].concat())),
                    ("an object for a list", json!({ "0": elements[0] })),
                    ("the element for a list", elements[0].clone()),
                    ("a list of lists", json!([elements])),
                ] {
                    assert_eq!(judge(&with(new)), malformed(), "{path}: {what}");
                }
            }
            let ends = ["/logIndex", "/treeSize", "/integratedTime"];
            if let Some(number) = value.as_str().filter(|_| ends.iter().any(|end| path.ends_with(end))) {
                for (new, ok) in [
                    (number.to_owned(), true),
                    (format!("{number}.0"), false),
                    (format!("{number}e0"), false),
                    (format!("-{number}"), false),
                    (format!("\"-{number}\""), false),
                    (format!("\"+{number}\""), false),
                    (format!("\" {number}\""), false),
                    (format!("\"{number}.0\""), false),
                    (format!("\"0{number}\""), false),
                    (format!("\"0x{number}\""), false),
                    ("9223372036854775808".to_owned(), false),
                    ("\"18446744073709551618\"".to_owned(), false),
                    (format!("1{}", "0".repeat(400)), false),
                    ("true".to_owned(), false),
                    (format!("[{number}]"), false),
                ] {
                    let text = with(json!("PLACE")).replacen("\"PLACE\"", &new, 1);
                    assert_eq!(judge(&text), if ok { Ok(()) } else { malformed() }, "{path} = {new}");
                }
            }
            if ["/algorithm", "/kind", "/version", "/mediaType"].iter().any(|end| path.ends_with(end)) {
                for new in [json!(1), json!("1"), json!(""), json!(["SHA2_256"]), json!(true)] {
                    let found = judge(&with(new.clone())).unwrap_err();
                    let wanted = ["bundle-malformed", "bundle-unsupported"];
                    assert!(wanted.contains(&&*found), "{path} = {new}: {found}");
                }
            }
        }
    }
}

// Rule T-14.
#[test]
fn every_log_entry_is_proven_by_its_own_log() {
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    // With a key there is no second opinion.
    for who in [world.who(), Who::Key(&key)] {
        check_log_entries(&world, who);
    }
}

fn check_log_entries(world: &World, who: Who<'_>) {
    let material = match who {
        Who::Identity(_) => Vec::new(),
        Who::Key(key) => vec![KeyMaterial::of_policy(key.public_key_pem().as_bytes())],
    };
    let keys: Vec<&KeyMaterial> = material.iter().collect();
    let other = Rekor::new("other.example");
    let stranger = Rekor::new("stranger.example");
    let root = root_with(world, |root| root["tlogs"].as_array_mut().unwrap().push(other.instance()));
    let content = world.statement();
    let judge = |bundle: &Value| {
        let trust = match who {
            Who::Identity(_) => Trust::Certificates { root: &root, lacking: Lacking::Refused },
            Who::Key(_) => Trust::Keys { keys: &keys, root: Some(&root) },
        };
        let text = bundle.to_string();
        code(verify_manifest(text.as_bytes(), &world.manifest, &world.digest, trust, false))
    };
    let good = world.sigstore.sign(&content, who);
    let signature = signer::signature_of(&good);
    let log = &world.sigstore.rekor;
    let entry = |log: &Rekor| log.entry(&content, who, &signature);
    let with = |entries: Vec<Value>| {
        let mut bundle = good.clone();
        bundle["verificationMaterial"]["tlogEntries"] = json!(entries);
        judge(&bundle).map(|claim| claim.log_entries.len())
    };
    let invalid = || Err("log-entry-invalid".to_owned());
    assert_eq!(with(vec![entry(log)]), Ok(1));
    assert_eq!(with(vec![entry(log), entry(&other)]), Ok(2));
    assert_eq!(with(vec![entry(&stranger)]), invalid());
    assert_eq!(with(vec![entry(log), entry(&stranger)]), invalid());

    let mut unproven = entry(&other);
    unproven["inclusionProof"] = Value::Null;
    assert_eq!(with(vec![unproven.clone()]), invalid());
    unproven["inclusionPromise"] = Value::Null;
    assert_eq!(with(vec![entry(log), unproven]), invalid());

    let mut swapped = [entry(log), entry(&other)];
    let ids = [swapped[0]["logId"].clone(), swapped[1]["logId"].clone()];
    (swapped[0]["logId"], swapped[1]["logId"]) = (ids[1].clone(), ids[0].clone());
    assert_eq!(with(swapped.to_vec()), invalid());

    // What the crate would take: a checkpoint by any log of the root.
    let mut foreign = entry(log);
    foreign["inclusionProof"] = entry(&other)["inclusionProof"].clone();
    assert_eq!(with(vec![foreign]), invalid());
    let mut foreign = entry(log);
    foreign["inclusionPromise"] = entry(&other)["inclusionPromise"].clone();
    assert_eq!(with(vec![foreign]), invalid());

    // The key of the log, another name.
    let namesake = |host: &str| Rekor { host: host.to_owned(), ..clone_of(log) };
    for host in ["rekor.example.attacker.example", "rekor.exampl", "other.example"] {
        assert_eq!(with(vec![entry(&namesake(host))]), invalid(), "{host}");
    }
    assert_eq!(with(vec![entry(&namesake("rekor.example"))]), Ok(1));

    // A tree of another size, which the crate would take for v1.
    let mut larger = entry(log);
    let hash = larger["inclusionProof"]["rootHash"].as_str().unwrap();
    let hash = base64::engine::general_purpose::STANDARD.decode(hash).unwrap();
    larger["inclusionProof"]["checkpoint"]["envelope"] = json!(log.checkpoint(6, &hash));
    assert_eq!(with(vec![larger.clone()]), invalid());
    larger["inclusionProof"]["checkpoint"]["envelope"] = json!(log.checkpoint(5, &hash));
    assert_eq!(with(vec![larger]), Ok(1));

    // The name of another log above the signature of this one.
    let envelope = entry(log)["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap().to_owned();
    for origin in ["other.example - 42", "rekor.example.org - 42", "rekor.example - ", "rekor.example - x"] {
        let text = envelope.split("\n\n").next().unwrap().replacen("rekor.example - 42", origin, 1) + "\n";
        let line = [&log.id[..4], &log.key.sign(text.as_bytes()).unwrap()].concat();
        let note = format!("{text}\n\u{2014} rekor.example {}\n", signer::base64(&line));
        let mut renamed = entry(log);
        renamed["inclusionProof"]["checkpoint"]["envelope"] = json!(note);
        assert_eq!(with(vec![renamed]), invalid(), "{origin}");
    }

    // Lines of witnesses beside the log's own count for nothing; a second one of the log's is not tried (T-28).
    for (name, id, expected) in
        [("witness.example", &[1, 2, 3, 4][..], Ok(1)), ("rekor.example", &log.id[..4], invalid())]
    {
        let line = signer::base64(&[id, &[0; 70]].concat());
        let mut signed = entry(log);
        let note = envelope.replacen("\n\n", &format!("\n\n\u{2014} {name} {line}\n"), 1);
        signed["inclusionProof"]["checkpoint"]["envelope"] = json!(note);
        assert_eq!(with(vec![signed]), expected, "{name}");
    }

    // A path that leads elsewhere.
    let mut astray = entry(log);
    astray["inclusionProof"]["hashes"][0] = json!(signer::base64(&[7; 32]));
    assert_eq!(with(vec![astray]), invalid());

    // What no tree has: hashes of another length, and more than any path takes.
    for hashes in [vec![signer::base64(&[7; 31])], vec![signer::base64(&[7; 32]); 65]] {
        let mut endless = entry(log);
        endless["inclusionProof"]["hashes"] = json!(hashes);
        assert_eq!(with(vec![endless]), Err("bundle-malformed".to_owned()));
    }

    // Proven entries with this signature, for another signer or about something else.
    let stranger = KeyPair::generate().unwrap();
    let stranger = match who {
        Who::Identity(_) => Who::Key(&stranger),
        Who::Key(_) => world.who(),
    };
    let second_key = KeyPair::generate().unwrap();
    let mismatch = || Err("log-entry-mismatch".to_owned());
    for other_signer in [stranger, Who::Key(&second_key)] {
        assert_eq!(with(vec![log.entry(&content, other_signer, &signature)]), mismatch());
    }
    let elsewhere = Content::Dsse { payload_type: IN_TOTO, payload: b"{}" };
    assert_eq!(with(vec![log.entry(&elsewhere, who, &signature)]), mismatch());
    assert_eq!(with(vec![log.entry(&world.message(), who, &signature)]), mismatch());

    // Proven bodies that are not what the entry says, or that can be read in two ways.
    let encoded = entry(log)["canonicalizedBody"].as_str().unwrap().to_owned();
    let body = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    let body = String::from_utf8(body).unwrap();
    for (from, to) in [
        (r#""kind":"dsse""#, r#""kind":"intoto""#),
        (r#""apiVersion":"0.0.1""#, r#""apiVersion":"0.0.2""#),
        (r#""kind":"dsse""#, r#""kind":"dsse","kind":"dsse""#),
        (r#""kind":"dsse""#, r#""kind":"dsse","x":{"a":1,"a":1}"#),
        (r#""kind":"dsse""#, r#""kind":"dsse","Kind":"dsse""#),
    ] {
        let changed = body.replacen(from, to, 1);
        assert_ne!(changed, body);
        assert_eq!(with(vec![log.prove("dsse", "0.0.1", changed.as_bytes())]), invalid(), "{to}");
    }

    let mut twice: Value = serde_json::from_str(&body).unwrap();
    let signatures = twice["spec"]["signatures"].as_array_mut().unwrap();
    signatures.push(signatures[0].clone());
    assert_eq!(with(vec![log.prove("dsse", "0.0.1", twice.to_string().as_bytes())]), invalid());

    // Two entries in one place, each of them good.
    let mut other_body: Value = serde_json::from_str(&body).unwrap();
    other_body["spec"]["envelopeHash"]["value"] = json!("0".repeat(64));
    let same_place = log.prove("dsse", "0.0.1", other_body.to_string().as_bytes());
    assert_eq!(with(vec![same_place.clone()]), Ok(1));
    assert_eq!(with(vec![entry(log), same_place]), Err("bundle-malformed".to_owned()));

    // Rekor v2: an entry that claims to be of a log which is not listed, and one with a promise.
    let good_v2 = world.sigstore.sign_v2(&content, who);
    let with_v2 = |change: &dyn Fn(&mut Value)| {
        let mut bundle = good_v2.clone();
        change(&mut bundle["verificationMaterial"]["tlogEntries"][0]);
        judge(&bundle).map(|claim| claim.log_entries.len())
    };
    let unlisted = Rekor::new_v2("log2027-1.rekor.example");
    assert_eq!(with_v2(&|_| {}), Ok(1));
    assert_eq!(with_v2(&|entry| entry["logId"]["keyId"] = json!(signer::base64(&unlisted.id))), invalid());
    assert_eq!(with_v2(&|entry| world.sigstore.rekor_v2.promise(entry, SIGNED_AT)), invalid());
    assert_eq!(with_v2(&|entry| entry["inclusionProof"] = Value::Null), invalid());
    let signature_v2 = signer::signature_of(&good_v2);
    for (other, other_signer) in [(&elsewhere, who), (&content, stranger), (&content, Who::Key(&second_key))]
    {
        let change =
            |entry: &mut Value| *entry = world.sigstore.rekor_v2.entry(other, other_signer, &signature_v2);
        assert_eq!(with_v2(&change), mismatch());
    }

    // An entry for another signature, as good as it is.
    let another = world.sigstore.sign(&content, who)["verificationMaterial"]["tlogEntries"][0].clone();
    assert_eq!(with(vec![another.clone()]), Err("log-entry-mismatch".to_owned()));
    let mut another = another;
    another["logIndex"] = json!("7");
    log.promise(&mut another, SIGNED_AT);
    assert_eq!(with(vec![entry(log), another]), Err("log-entry-mismatch".to_owned()));
}

// Rule T-14: entries as older clients made them for statements, with the signature in base64 twice.
#[test]
fn entries_of_kind_intoto_are_about_this_signature() {
    let world = World::new();
    let root = world.root();
    let good = world.good();
    let text = |bytes: &[u8]| signer::base64(bytes);
    let pem = |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", text(der));
    let body = json!({
        "apiVersion": "0.0.2",
        "kind": "intoto",
        "spec": { "content": {
            "envelope": {
                "payloadType": IN_TOTO,
                "signatures": [{
                    "publicKey": text(pem(&world.identity.der).as_bytes()),
                    "sig": text(text(&signer::signature_of(&good)).as_bytes()),
                }],
            },
            "hash": { "algorithm": "sha256", "value": signer::hex(&signer::sha256(b"as it was sent")) },
            "payloadHash": { "algorithm": "sha256", "value": signer::hex(&signer::sha256(&world.payload)) },
        } },
    });
    let other = world.sigstore.identity(&Names::default());
    let another = signer::signature_of(&world.good());
    let content = "/spec/content";
    for (what, path, value, wanted) in [
        ("as it is", "/kind", json!("intoto"), None),
        ("another kind", "/kind", json!("dsse"), Some("log-entry-invalid")),
        ("another version", "/apiVersion", json!("0.0.1"), Some("log-entry-invalid")),
        ("another type", "/envelope/payloadType", json!("application/json"), Some("log-entry-mismatch")),
        ("no type", "/envelope/payloadType", Value::Null, Some("log-entry-invalid")),
        ("another payload", "/payloadHash/value", json!("0".repeat(64)), Some("log-entry-mismatch")),
        ("another hash", "/payloadHash/algorithm", json!("sha512"), Some("log-entry-invalid")),
        (
            "another signature",
            "/envelope/signatures/0/sig",
            json!(text(text(&another).as_bytes())),
            Some("log-entry-mismatch"),
        ),
        (
            "a signature in base64 once",
            "/envelope/signatures/0/sig",
            json!(text(&another)),
            Some("log-entry-mismatch"),
        ),
        (
            "another certificate",
            "/envelope/signatures/0/publicKey",
            json!(text(pem(&other.der).as_bytes())),
            Some("log-entry-mismatch"),
        ),
        ("no signature", "/envelope/signatures", json!([]), Some("log-entry-invalid")),
        (
            "two signatures",
            "/envelope/signatures",
            json!(vec![body["spec"]["content"]["envelope"]["signatures"][0].clone(); 2]),
            Some("log-entry-invalid"),
        ),
    ] {
        let mut body = body.clone();
        let path = if body.pointer(path).is_some() { path.to_owned() } else { format!("{content}{path}") };
        *body.pointer_mut(&path).unwrap() = value;
        let mut bundle = good.clone();
        bundle["verificationMaterial"]["tlogEntries"][0] =
            world.sigstore.rekor.prove("intoto", "0.0.2", body.to_string().as_bytes());
        assert_eq!(world.image(&bundle, &root).err().as_deref(), wanted, "{what}");
    }
    // About a statement, and not about what only has its bytes.
    let message = world.sigstore.sign(&Content::Message(&world.payload), world.who());
    let mut bundle = message.clone();
    bundle["verificationMaterial"]["tlogEntries"][0] = good["verificationMaterial"]["tlogEntries"][0].clone();
    let trust = Trust::Certificates { root: &root, lacking: Lacking::Refused };
    let judge = |bundle: &Value| {
        code(verify_blob(bundle.to_string().as_bytes(), Artifact::Bytes(&world.payload), trust)).err()
    };
    assert_eq!(judge(&message), None);
    assert_eq!(judge(&bundle).as_deref(), Some("log-entry-mismatch"));
    let mut body = body_of(&good);
    body["spec"]["signatures"][0]["signature"] = json!(text(&signer::signature_of(&message)));
    bundle["verificationMaterial"]["tlogEntries"][0] =
        world.sigstore.rekor.prove("dsse", "0.0.1", body.to_string().as_bytes());
    assert_eq!(judge(&bundle).as_deref(), Some("log-entry-mismatch"));
    let mut body = body_of(&good);
    let signature = body["spec"]["signatures"][0].clone();
    body["spec"]["signatures"].as_array_mut().unwrap().push(signature);
    let mut bundle = good.clone();
    bundle["verificationMaterial"]["tlogEntries"][0] =
        world.sigstore.rekor.prove("dsse", "0.0.1", body.to_string().as_bytes());
    assert_eq!(world.image(&bundle, &root).unwrap_err(), "log-entry-invalid");
}

// Rule T-14: an entry that names another hash of the artifact than the one that is known.
#[test]
fn an_entry_with_a_hash_that_cannot_be_compared_is_refused() {
    let world = World::new();
    let root = world.root();
    let key = KeyPair::generate().unwrap();
    let material = KeyMaterial::of_policy(key.public_key_pem().as_bytes());
    let trust = Trust::Keys { keys: &[&material], root: Some(&root) };
    let good = world.sigstore.sign_v2(&world.message(), Who::Key(&key));
    let right = Digest::compute(Algorithm::Sha512, &world.manifest);
    let wrong = Digest::compute(Algorithm::Sha512, b"other");
    for (digest, with_bytes) in [(right, None), (wrong, Some("log-entry-mismatch"))] {
        let mut body = body_of(&good);
        let data = &mut body["spec"]["hashedRekordV002"]["data"];
        let bytes: Vec<u8> =
            (0..64).map(|n| u8::from_str_radix(&digest.hex()[2 * n..2 * n + 2], 16).unwrap()).collect();
        *data = json!({ "algorithm": "SHA2_512", "digest": signer::base64(&bytes) });
        let mut bundle = good.clone();
        bundle["verificationMaterial"]["tlogEntries"][0] =
            world.sigstore.rekor_v2.prove("hashedrekord", "0.0.2", body.to_string().as_bytes());
        let text = bundle.to_string();
        for (artifact, wanted) in [
            (Artifact::Sha256(&world.digest), Some("bundle-unsupported")),
            (Artifact::Bytes(&world.manifest), with_bytes),
        ] {
            assert_eq!(code(verify_blob(text.as_bytes(), artifact, trust)).err().as_deref(), wanted);
        }
    }
}

/// The body of the first log entry.
fn body_of(bundle: &Value) -> Value {
    let encoded = bundle["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"].as_str().unwrap();
    let body = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// The same log once more.
fn clone_of(log: &Rekor) -> Rekor {
    Rekor { key: signer::copy_of(&log.key), id: log.id.clone(), ..Rekor::new(&log.host) }
}

// Rule T-14.
#[test]
fn keys_and_authorities_count_only_while_in_use() {
    let world = World::new();
    let window = |start: i64, end: Option<i64>| {
        let end = end.map(|end| Timestamp(end).to_string());
        json!({ "start": Timestamp(start).to_string(), "end": end })
    };
    let windows = [
        ("around", window(SIGNED_AT, Some(SIGNED_AT)), true),
        ("before", window(MIDNIGHT - 60, Some(SIGNED_AT - 1)), false),
        ("after", window(SIGNED_AT + 1, None), false),
    ];
    for (path, version, code) in [
        ("/tlogs/0/publicKey/validFor", 1, "log-entry-invalid"),
        ("/tlogs/1/publicKey/validFor", 2, "log-entry-invalid"),
        ("/certificateAuthorities/0/validFor", 1, "bundle-certificate"),
        ("/certificateAuthorities/0/validFor", 2, "bundle-certificate"),
        ("/timestampAuthorities/0/validFor", 2, "timestamp-invalid"),
    ] {
        for (name, window, ok) in &windows {
            let root = root_with(&world, |root| *root.pointer_mut(path).unwrap() = window.clone());
            let bundle = if version == 1 { world.good() } else { world.good_v2() };
            let judged = world.image(&bundle, &root).map(|_| ());
            assert_eq!(judged, if *ok { Ok(()) } else { Err(code.to_owned()) }, "{path} {name}");
        }
    }
    // Of two proven times both count.
    let mut bundle = world.good();
    world.sigstore.timestamps.stamp(&mut bundle, SIGNED_AT + 60);
    for (start, end, ok) in [
        (SIGNED_AT, SIGNED_AT + 60, true),
        (SIGNED_AT, SIGNED_AT + 59, false),
        (SIGNED_AT + 1, SIGNED_AT + 60, false),
    ] {
        let root = root_with(&world, |root| {
            root["certificateAuthorities"][0]["validFor"] = window(start, Some(end));
        });
        let judged = world.image(&bundle, &root).map(|_| ());
        assert_eq!(judged, if ok { Ok(()) } else { Err("bundle-certificate".to_owned()) }, "{start} {end}");
    }
    // A signed certificate timestamp is of midnight.
    let path = "/ctlogs/0/publicKey/validFor";
    for (start, ok) in [(MIDNIGHT, true), (MIDNIGHT + 1, false)] {
        let root = root_with(&world, |root| *root.pointer_mut(path).unwrap() = window(start, None));
        let judged = world.image(&world.good(), &root).map(|_| ());
        assert_eq!(judged, if ok { Ok(()) } else { Err("sct-invalid".to_owned()) });
    }
}

// Rules T-14, T-15.
#[test]
fn a_certificate_needs_entry_time_and_sct_unless_its_own_root_lacks_them() {
    let world = World::new();
    let root = world.root();
    let without_sct = world.sigstore.identity(&Names { sct: false, ..Names::default() });
    let mut plain = signer::bundle(&world.statement(), world.who());
    let mut no_sct = signer::bundle(&world.statement(), Who::Identity(&without_sct));
    world.sigstore.timestamps.stamp(&mut plain, SIGNED_AT);
    world.sigstore.timestamps.stamp(&mut no_sct, SIGNED_AT);
    let logged_no_sct = world.sigstore.sign(&world.statement(), Who::Identity(&without_sct));
    let mut timeless = world.good_v2();
    timeless["verificationMaterial"]["timestampVerificationData"] = Value::Null;
    let bare = |keys: &[&str]| root_with(&world, |root| keys.iter().for_each(|key| root[*key] = json!([])));
    let no_logs = bare(&["tlogs"]);
    let no_ct = bare(&["ctlogs"]);
    let neither = bare(&["tlogs", "ctlogs"]);
    let no_tsa = bare(&["timestampAuthorities"]);
    for (name, bundle, root, refused, waived) in [
        ("all", &world.good(), &root, None, None),
        ("no entry", &plain, &root, Some("log-entry-missing"), Some("log-entry-missing")),
        ("no SCT", &logged_no_sct, &root, Some("sct-invalid"), Some("sct-invalid")),
        ("no time", &timeless, &root, Some("timestamp-missing"), Some("timestamp-missing")),
        ("no logs in the root", &plain, &no_logs, Some("log-entry-missing"), None),
        ("an entry, no logs in the root", &world.good_v2(), &no_logs, Some("log-entry-invalid"), None),
        ("an unproven time", &world.good(), &no_logs, Some("log-entry-invalid"), Some("timestamp-missing")),
        ("no CT logs in the root", &logged_no_sct, &no_ct, Some("sct-invalid"), None),
        ("neither in the root", &no_sct, &neither, Some("log-entry-missing"), None),
        (
            "no TSA in the root",
            &world.good_v2(),
            &no_tsa,
            Some("timestamp-missing"),
            Some("timestamp-missing"),
        ),
        ("a promise, no TSA in the root", &world.good(), &no_tsa, None, None),
    ] {
        for (lacking, expected) in [(Lacking::Refused, refused), (Lacking::Waived, waived)] {
            let trust = Trust::Certificates { root, lacking };
            let text = bundle.to_string();
            let judged = code(verify_manifest(text.as_bytes(), &world.manifest, &world.digest, trust, false));
            assert_eq!(judged.err().as_deref(), expected, "{name}, {lacking:?}");
        }
    }
}

#[test]
fn a_certificate_is_good_at_every_proven_time() {
    let world = World::new();
    let root = world.root();
    let expires = MIDNIGHT + 600;
    for (time, ok) in [(MIDNIGHT, true), (MIDNIGHT - 1, false), (expires, true), (expires + 1, false)] {
        let mut promised = world.good();
        world.sigstore.rekor.promise(&mut promised["verificationMaterial"]["tlogEntries"][0], time);
        let mut stamped = world.good_v2();
        stamped["verificationMaterial"]["timestampVerificationData"] = Value::Null;
        world.sigstore.timestamps.stamp(&mut stamped, time);
        let mut both = world.good();
        world.sigstore.timestamps.stamp(&mut both, time);
        for (name, bundle) in [("promised", promised), ("stamped", stamped), ("both", both)] {
            let judged = world.image(&bundle, &root).map(|_| ());
            assert_eq!(
                judged,
                if ok { Ok(()) } else { Err("bundle-certificate".to_owned()) },
                "{name} {time}"
            );
        }
    }
    let stranger = Sigstore::new();
    let identity = stranger.identity(&Names::default());
    for (name, identity, code) in [
        ("another authority", &identity, "bundle-certificate"),
        (
            "not for code",
            &world.sigstore.identity(&Names { code_signing: false, ..Names::default() }),
            "bundle-certificate",
        ),
    ] {
        let bundle = world.sigstore.sign(&world.statement(), Who::Identity(identity));
        assert_eq!(world.image(&bundle, &root).unwrap_err(), code, "{name}");
    }
    // Only the last certificate of a chain is an anchor: without the root above it the intermediate is nothing.
    let root = root_with(&world, |root| {
        let strange =
            stranger.trusted_root()["certificateAuthorities"][0]["certChain"]["certificates"][1].clone();
        root["certificateAuthorities"][0]["certChain"]["certificates"][1] = strange;
    });
    assert_eq!(world.image(&world.good(), &root).unwrap_err(), "bundle-certificate");
    let root = root_with(&world, |root| {
        root["certificateAuthorities"][0]["certChain"]["certificates"].as_array_mut().unwrap().pop();
    });
    assert!(world.image(&world.good(), &root).is_ok(), "an intermediate may be the anchor");
    // An anchor counts only while it is valid itself, which nobody else looks at.
    let early = 1_717_200_000;
    let identity = world.sigstore.identity(&Names { begins: early, ..Names::default() });
    let mut bundle = world.sigstore.sign(&world.statement(), Who::Identity(&identity));
    world.sigstore.rekor.promise(&mut bundle["verificationMaterial"]["tlogEntries"][0], early);
    let root = root_with(&world, |root| {
        root["certificateAuthorities"][0]["certChain"]["certificates"].as_array_mut().unwrap().pop();
        for path in
            ["/tlogs/0/publicKey", "/tlogs/1/publicKey", "/ctlogs/0/publicKey", "/certificateAuthorities/0"]
        {
            root.pointer_mut(path).unwrap()["validFor"]["start"] = json!("2023-01-01T00:00:00Z");
        }
    });
    assert_eq!(world.image(&bundle, &root).unwrap_err(), "bundle-certificate");
    let uri = Names { san: San::Uri("https://example.com/signer"), ..Names::default() };
    let identity = world.sigstore.identity(&uri);
    let bundle = world.sigstore.sign(&world.statement(), Who::Identity(&identity));
    assert!(world.image(&bundle, &world.root()).is_ok());
}

#[test]
fn each_timestamp_is_by_an_authority_of_its_own() {
    let world = World::new();
    let second = TimestampAuthority::new("second");
    let stranger = TimestampAuthority::new("stranger");
    let root = root_with(&world, |root| {
        root["timestampAuthorities"].as_array_mut().unwrap().push(second.instance())
    });
    let judge = |authorities: &[&TimestampAuthority]| {
        let mut bundle = world.good();
        authorities.iter().for_each(|authority| authority.stamp(&mut bundle, SIGNED_AT));
        world.image(&bundle, &root).map(|claim| claim.times.len())
    };
    let first = &world.sigstore.timestamps;
    assert_eq!(judge(&[first]), Ok(2));
    assert_eq!(judge(&[first, &second]), Ok(3));
    for refused in [&[first, first][..], &[&stranger], &[first, &stranger]] {
        assert_eq!(judge(refused), Err("timestamp-invalid".to_owned()));
    }
    let mut bundle = world.good();
    let other = first.timestamp(b"another signature", SIGNED_AT);
    bundle["verificationMaterial"]["timestampVerificationData"] =
        json!({ "rfc3161Timestamps": [{ "signedTimestamp": signer::base64(&other) }] });
    assert_eq!(world.image(&bundle, &root).unwrap_err(), "timestamp-invalid");
}

#[test]
fn keys_verify_with_their_own_hash() {
    let world = World::new();
    let root = world.root();
    let stranger = KeyMaterial::of_policy(KeyPair::generate().unwrap().public_key_pem().as_bytes());
    for (name, key, digest_only) in [
        ("P-256", KeyPair::generate().unwrap(), true),
        ("P-384", KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(), false),
        ("P-521", KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap(), false),
        ("RSA", KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(), true),
        ("Ed25519", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), false),
    ] {
        let material = KeyMaterial::of_policy(key.public_key_pem().as_bytes());
        let both = [&stranger, &material];
        let image = |bundle: &Value, keys: &[&KeyMaterial], root: Option<&TrustedRoot>| {
            let trust = Trust::Keys { keys, root };
            let text = bundle.to_string();
            code(verify_manifest(text.as_bytes(), &world.manifest, &world.digest, trust, true))
        };
        for content in [world.statement(), world.message()] {
            let plain = signer::bundle(&content, Who::Key(&key));
            let claim = image(&plain, &both, None).unwrap();
            let spki = Digest::sha256(&signer::spki(&key));
            assert_eq!(claim.signer, BundleSigner::PublicKey { spki }, "{name}");
            assert_eq!((claim.times.len(), claim.log_entries.len()), (0, 0), "{name}");
            assert_eq!(image(&plain, &[&stranger], None).unwrap_err(), "bundle-signature", "{name}");
            assert_eq!(image(&plain, &both, Some(&root)).unwrap_err(), "log-entry-missing", "{name}");
            let logged = world.sigstore.sign(&content, Who::Key(&key));
            let claim = image(&logged, &both, Some(&root)).unwrap();
            assert_eq!((claim.times.len(), claim.log_entries.len()), (1, 1), "{name}");
            assert!(image(&logged, &both, None).is_ok(), "{name}");
            assert!(
                image(&world.sigstore.sign_v2(&content, Who::Key(&key)), &both, Some(&root)).is_ok(),
                "{name}"
            );
            assert_eq!(
                world.image(&plain, &root).unwrap_err().as_str(),
                match content {
                    Content::Dsse { .. } => "bundle-signer",
                    Content::Message(_) => "not-a-signature",
                }
            );
            let mut other_hint = plain.clone();
            other_hint["verificationMaterial"]["publicKey"] = json!({ "hint": "any" });
            assert!(image(&other_hint, &both, None).is_ok(), "{name}");
        }
        let bundle = signer::bundle(&world.message(), Who::Key(&key)).to_string();
        let trust = Trust::Keys { keys: &both, root: None };
        let judged = code(verify_blob(bundle.as_bytes(), Artifact::Sha256(&world.digest), trust));
        assert_eq!(judged.err().as_deref(), (!digest_only).then_some("bundle-unsupported"), "{name}");
        let judged = code(verify_manifest(
            world.good().to_string().as_bytes(),
            &world.manifest,
            &world.digest,
            Trust::Keys { keys: &both, root: None },
            false,
        ));
        assert_eq!(judged.unwrap_err(), "bundle-signer");
    }
}

#[test]
fn a_log_key_that_was_given_up_needs_a_proven_time() {
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    let material = KeyMaterial::of_policy(key.public_key_pem().as_bytes());
    let keys = [&material];
    let mut bundle = world.sigstore.sign_v2(&world.statement(), Who::Key(&key));
    bundle["verificationMaterial"]["timestampVerificationData"] = Value::Null;
    for (end, expected) in [(Value::Null, None), (json!("2030-01-01T00:00:00Z"), Some("log-entry-invalid"))] {
        let root = root_with(&world, |root| root["tlogs"][1]["publicKey"]["validFor"]["end"] = end);
        let trust = Trust::Keys { keys: &keys, root: Some(&root) };
        let text = bundle.to_string();
        let judged = code(verify_manifest(text.as_bytes(), &world.manifest, &world.digest, trust, false));
        assert_eq!(judged.err().as_deref(), expected);
    }
    // A promise has a time, at which the key must have been in use; with a key there is no second opinion.
    let promised = world.sigstore.sign(&world.statement(), Who::Key(&key)).to_string();
    for (start, end, expected) in [
        (SIGNED_AT, SIGNED_AT, None),
        (SIGNED_AT - 9, SIGNED_AT - 1, Some("log-entry-invalid")),
        (SIGNED_AT + 1, SIGNED_AT + 9, Some("log-entry-invalid")),
    ] {
        let window = json!({ "start": Timestamp(start).to_string(), "end": Timestamp(end).to_string() });
        let root = root_with(&world, |root| root["tlogs"][0]["publicKey"]["validFor"] = window);
        let trust = Trust::Keys { keys: &keys, root: Some(&root) };
        let judged = code(verify_manifest(promised.as_bytes(), &world.manifest, &world.digest, trust, false));
        assert_eq!(judged.err().as_deref(), expected, "{start}");
    }
}

#[test]
fn a_trusted_root_is_usable_as_a_whole_or_not_at_all() {
    let world = World::new();
    let good = world.sigstore.trusted_root();
    assert!(TrustedRoot::parse(good.to_string().as_bytes()).is_ok());
    let cases: [(&str, Value); 26] = [
        ("/mediaType", json!("application/json")),
        ("/mediaType", Value::Null),
        ("/tlogs/0/baseUrl", json!("")),
        ("/tlogs/0/baseUrl", json!("rekor.example")),
        ("/tlogs/0/hashAlgorithm", json!("SHA1")),
        ("/tlogs/0/publicKey/rawBytes", json!("YQ==")),
        ("/tlogs/0/publicKey/validFor", Value::Null),
        ("/tlogs/0/publicKey/validFor", json!({})),
        ("/tlogs/0/publicKey/validFor/start", json!("yesterday")),
        ("/tlogs/0/publicKey/validFor/end", json!("2024-01-01T00:00:00Z")),
        ("/tlogs/0/logId/keyId", json!("YQ==")),
        ("/tlogs/0/logId/keyId", good["tlogs"][1]["logId"]["keyId"].clone()),
        ("/ctlogs/0/publicKey/validFor", Value::Null),
        ("/ctlogs/0/publicKey/rawBytes", json!("YQ==")),
        ("/certificateAuthorities/0/validFor", Value::Null),
        ("/certificateAuthorities/0/certChain/certificates", json!([])),
        ("/certificateAuthorities/0/certChain/certificates/0/rawBytes", json!("YQ==")),
        ("/timestampAuthorities/0/validFor", Value::Null),
        ("/timestampAuthorities/0/certChain/certificates", json!([])),
        ("/timestampAuthorities/0/certChain/certificates/0/rawBytes", json!("YQ==")),
        ("/tlogs", json!({})),
        ("/tlogs", json!(vec![good["tlogs"][0].clone(); 257])),
        ("", json!([])),
        ("/Tlogs", json!([])),
        ("/tlogs/0/publicKey/validFor/End", json!("2030-01-01T00:00:00Z")),
        ("/tlogs/0/publicKey/valid_for", json!({})),
    ];
    for (path, value) in cases {
        let mut root = good.clone();
        match root.pointer_mut(path) {
            Some(place) => *place = value.clone(),
            None => {
                let (parent, key) = path.rsplit_once('/').unwrap();
                root.pointer_mut(parent).unwrap()[key] = value.clone();
            }
        }
        let error = TrustedRoot::parse(root.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.code().as_str(), "trusted-root-invalid", "{path} = {value}");
    }
    for path in ["/tlogs", "/tlogs/0/publicKey/validFor/start", "/mediaType"] {
        assert!(TrustedRoot::parse(doubled(&good, path).as_bytes()).is_err(), "{path} twice");
    }
    let large = good.to_string().replacen('{', &format!("{{{}", " ".repeat(5 << 20)), 1);
    assert!(TrustedRoot::parse(large.as_bytes()).is_err());
}

/// T-28: what is kept of a refusal has a limit, whatever the bundle makes it quote.
#[test]
fn messages_are_short_whatever_they_quote() {
    let world = World::new();
    let root = world.root();
    let good = world.good_v2();
    let entry = &good["verificationMaterial"]["tlogEntries"][0];
    let body = base64::engine::general_purpose::STANDARD.decode(entry["canonicalizedBody"].as_str().unwrap());
    let body = String::from_utf8(body.unwrap()).unwrap();
    let long = "x".repeat(100_000);
    let trust = Trust::Certificates { root: &root, lacking: Lacking::Refused };
    let length = |bundle: &Value| {
        let text = bundle.to_string();
        let judged = verify_manifest(text.as_bytes(), &world.manifest, &world.digest, trust, false);
        judged.unwrap_err().to_string().len()
    };
    for (from, to) in [
        ("PKIX_ECDSA_P256_SHA_256", long.clone()),
        ("SHA2_256", long.clone()),
        (r#""apiVersion":"0.0.2""#, format!(r#""apiVersion":"{long}""#)),
        (r#""spec""#, format!(r#""{long}":1,"{long}":1,"spec""#)),
        (r#""spec""#, format!(r#""{}spec":1,"spec""#, "_".repeat(100_000))),
    ] {
        let changed = body.replacen(from, &to, 1);
        assert_ne!(changed, body);
        let mut bundle = good.clone();
        bundle["verificationMaterial"]["tlogEntries"][0] =
            world.sigstore.rekor_v2.prove("hashedrekord", "0.0.2", changed.as_bytes());
        assert!(length(&bundle) < 1_000, "{from}: {}", length(&bundle));
    }
    for (path, value) in [
        ("/mediaType", json!(long)),
        ("/dsseEnvelope/payloadType", json!(long)),
        ("/verificationMaterial", json!({ &*long: 1 })),
        ("/verificationMaterial/tlogEntries/0/kindVersion/kind", json!(long)),
        ("/verificationMaterial/certificate", json!({ &*long: 1 })),
    ] {
        let mut bundle = good.clone();
        *bundle.pointer_mut(path).unwrap() = value;
        assert!(length(&bundle) < 1_000, "{path}: {}", length(&bundle));
    }
}

/// Nothing panics, and nothing but the bundle itself is accepted, whichever byte is another one.
#[test]
fn changed_bytes_are_refused_and_harm_nothing() {
    let world = World::new();
    let root = world.root();
    for (name, good) in [("v1", world.good()), ("v2", world.good_v2())] {
        let text = good.to_string().into_bytes();
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1 << (at % 7);
            let _ = world.image_text(&changed, &root);
            let cut = &text[..at];
            assert_eq!(world.image_text(cut, &root).unwrap_err(), "bundle-malformed", "{name} cut at {at}");
        }
    }
    assert!(world.image(&world.good(), &root).is_ok() && world.image(&world.good_v2(), &root).is_ok());
    // Certificates that the log has seen, so that they reach the library.
    for at in 0..world.identity.der.len() {
        let mut der = world.identity.der.clone();
        der[at] ^= 1 << (at % 8);
        let key = KeyPair::from_pem(&world.identity.key.serialize_pem()).unwrap();
        let changed = Identity { key, der };
        let bundle = world.sigstore.sign(&world.statement(), Who::Identity(&changed));
        let judged = world.image(&bundle, &root);
        assert!(judged.is_err(), "certificate changed at {at}");
    }
    // Of a timestamp not everything is signed, but the time is.
    let good = world.good_v2();
    let token = world.sigstore.timestamps.timestamp(&signer::signature_of(&good), SIGNED_AT);
    for at in 0..token.len() {
        let mut changed = token.clone();
        changed[at] ^= 1 << (at % 8);
        let mut bundle = good.clone();
        bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"][0]["signedTimestamp"] =
            json!(signer::base64(&changed));
        if let Ok(claim) = world.image(&bundle, &root) {
            assert_eq!(claim.times, [Timestamp(SIGNED_AT)], "timestamp changed at {at}");
        }
    }
}
