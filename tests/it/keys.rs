//! Keys of every kind in every place where one may stand, and times at every boundary and one second beyond.

use std::sync::LazyLock;

use rcgen::{CertificateParams, KeyPair, RsaKeySize, SigningKey};
use serde_json::{Value, json};

use vouchd::digest::Digest;
use vouchd::verify::bundle::{Lacking, Trust, verify_attachment, verify_manifest};
use vouchd::verify::trusted_root::TrustedRoot;
use vouchd::verify::{Timestamp, UntrustedSigstore};

use crate::cosign3::{IMAGE, ISSUER, WORKFLOW, World, build, of_image};
use crate::signer::{
    Content, IN_TOTO, MIDNIGHT, Names, Place, SIGNED_AT, Sigstore, Who, base64, bundle, copy_of,
    signature_of, statement,
};
use crate::support::cosign;

const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

/// Every kind of key that a document of Sigstore may hold.
static KEYS: LazyLock<Vec<(&str, KeyPair)>> = LazyLock::new(|| {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
    vec![
        ("P-256", KeyPair::generate().unwrap()),
        ("P-384", KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap()),
        ("P-521", KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap()),
        ("Ed25519", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()),
        ("RSA 2048", rsa(RsaKeySize::_2048)),
        ("RSA 3072", rsa(RsaKeySize::_3072)),
        ("RSA 4096", rsa(RsaKeySize::_4096)),
    ]
});

/// The code of the refusal of a bundle on the manifest, empty if there is none.
fn judge(bundle: &Value, root: &Value) -> String {
    let root = match TrustedRoot::parse(root.to_string().as_bytes()) {
        Ok(root) => root,
        Err(error) => return error.code().to_string(),
    };
    let trust = Trust::Certificates { root: &root, lacking: Lacking::Refused };
    let digest = Digest::sha256(MANIFEST);
    match verify_manifest(bundle.to_string().as_bytes(), MANIFEST, &digest, trust, true) {
        Ok(_) => String::new(),
        Err(rejection) => rejection.code().to_string(),
    }
}

/// Rules C-3, C-4: certificates for every kind of key. What the library has no code for is refused.
#[test]
fn certificates_for_every_kind_of_key() {
    let sigstore = Sigstore::new();
    let root = sigstore.trusted_root();
    let parsed = TrustedRoot::parse(root.to_string().as_bytes()).unwrap();
    let payload = statement(&Digest::sha256(MANIFEST)).to_string().into_bytes();
    let dsse = Content::Dsse { payload_type: IN_TOTO, payload: &payload };
    for (name, key) in KEYS.iter() {
        let identity = sigstore.identity_for(copy_of(key), &Names::default());
        let who = Who::Identity(&identity);
        let refused = if *name == "P-521" { "bundle-certificate" } else { "" };
        for content in [&dsse, &Content::Message(MANIFEST)] {
            let good = sigstore.sign(content, who);
            assert_eq!(judge(&good, &root), refused, "{name}");
            let v2 = match *name {
                "P-256" => "",
                "P-521" => refused,
                // The library reads no other entries of Rekor v2.
                _ => "log-entry-invalid",
            };
            assert_eq!(judge(&sigstore.sign_v2(content, who), &root), v2, "{name}");
            // A signature by another key of the same kind, that of another kind, and none at all.
            for signature in [signature_of(&sigstore.sign(&Content::Message(b"x"), who)), vec![0; 64]] {
                let mut bundle = good.clone();
                let path = ["/dsseEnvelope/signatures/0/sig", "/messageSignature/signature"];
                let path = path.into_iter().find(|path| bundle.pointer(path).is_some()).unwrap();
                *bundle.pointer_mut(path).unwrap() = json!(base64(&signature));
                assert_eq!(judge(&bundle, &root), "bundle-signature", "{name}");
            }
        }
        let payload = cosign("a.example/b", &Digest::sha256(MANIFEST).to_string());
        let annotations = sigstore.attach(&payload, &identity);
        let layer = UntrustedSigstore { mime_type: String::new(), annotations, payload };
        let found = verify_attachment(&layer, &parsed, Lacking::Refused).err();
        assert_eq!(found.map_or("", |rejection| rejection.code().as_str()), refused, "{name}");
    }
}

/// Rule T-14: authorities and logs with every kind of key.
#[test]
fn authorities_and_logs_with_every_kind_of_key() {
    // What is said of a signature with an entry in Rekor v1, and of one with an entry in Rekor v2 and a timestamp.
    type Wanted = fn(&str) -> [&'static str; 2];
    let rows: [(Place, Wanted); 7] = [
        (Place::CtLog, |name| match name {
            "P-521" => ["trusted-root-invalid"; 2],
            "Ed25519" => ["sct-invalid"; 2],
            _ => ["", ""],
        }),
        (Place::Intermediate, |name| if name == "P-521" { ["bundle-certificate"; 2] } else { ["", ""] }),
        (Place::Rekor, |name| if name == "P-521" { ["trusted-root-invalid"; 2] } else { ["", ""] }),
        (Place::RekorV2, |name| if name == "P-521" { ["trusted-root-invalid"; 2] } else { ["", ""] }),
        (Place::Root, |name| if name == "P-521" { ["bundle-certificate"; 2] } else { ["", ""] }),
        (Place::TimestampRoot, |name| if name == "P-521" { ["", "timestamp-invalid"] } else { ["", ""] }),
        (Place::Timestamps, |name| match name {
            "P-256" | "P-384" => ["", ""],
            _ => ["", "timestamp-invalid"],
        }),
    ];
    for (place, wanted) in rows {
        for (name, key) in KEYS.iter() {
            let key_of = |other: Place| if other == place { copy_of(key) } else { other.usual_key() };
            let sigstore = Sigstore::with(key_of, |_, _| {});
            let root = sigstore.trusted_root();
            let identity = sigstore.identity(&Names::default());
            let (who, content) = (Who::Identity(&identity), Content::Message(MANIFEST));
            let [v1, v2] = wanted(name);
            assert_eq!(judge(&sigstore.sign(&content, who), &root), v1, "{place:?} {name}");
            assert_eq!(judge(&sigstore.sign_v2(&content, who), &root), v2, "{place:?} {name}");
        }
    }
}

/// Rule T-14: every validity is a closed interval of seconds, whether it stands in a certificate or in a trusted root.
#[test]
fn every_validity_has_its_first_and_its_last_second() {
    let date = |seconds: i64| {
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(u64::try_from(seconds).unwrap())
    };
    let (content, names) = (Content::Message(MANIFEST), Names::default());
    let bundles = |sigstore: &Sigstore| {
        let identity = sigstore.identity(&names);
        let who = Who::Identity(&identity);
        [sigstore.sign(&content, who), sigstore.sign_v2(&content, who)]
    };
    let both = |code: &'static str| [code, code];
    // In certificates of authorities. What was signed with Rekor v1 has no timestamp.
    for (place, refused) in [
        (Place::Root, both("bundle-certificate")),
        (Place::Intermediate, both("bundle-certificate")),
        (Place::TimestampRoot, ["", "timestamp-invalid"]),
        (Place::Timestamps, ["", "timestamp-invalid"]),
    ] {
        for (from, to, ok) in [
            (SIGNED_AT, SIGNED_AT, true),
            // RFC 5280, 4.1.2.5: no end.
            (SIGNED_AT, 253_402_300_799, true),
            (SIGNED_AT + 1, SIGNED_AT + 9, false),
            (SIGNED_AT - 9, SIGNED_AT - 1, false),
        ] {
            let change = |at: Place, params: &mut CertificateParams| {
                if at == place {
                    (params.not_before, params.not_after) = (date(from), date(to));
                }
            };
            let sigstore = Sigstore::with(Place::usual_key, change);
            let found = bundles(&sigstore).map(|bundle| judge(&bundle, &sigstore.trusted_root()));
            assert_eq!(found, if ok { both("") } else { refused }, "{place:?} {from} {to}");
        }
    }
    // Of two proven times both count, and nobody but us looks at an anchor.
    for (to, refused) in [(SIGNED_AT + 60, ""), (SIGNED_AT + 59, "bundle-certificate")] {
        let change = |at: Place, params: &mut CertificateParams| {
            if at == Place::Root {
                params.not_after = date(to);
            }
        };
        let sigstore = Sigstore::with(Place::usual_key, change);
        let [mut bundle, _] = bundles(&sigstore);
        sigstore.timestamps.stamp(&mut bundle, SIGNED_AT + 60);
        assert_eq!(judge(&bundle, &sigstore.trusted_root()), refused, "{to}");
    }
    // In the trusted root; the time of an SCT is that of the certificate's beginning.
    let sigstore = Sigstore::new();
    let good = bundles(&sigstore);
    for (path, time, refused) in [
        ("/tlogs/0/publicKey/validFor", SIGNED_AT, ["log-entry-invalid", ""]),
        ("/tlogs/1/publicKey/validFor", SIGNED_AT, ["", "log-entry-invalid"]),
        ("/certificateAuthorities/0/validFor", SIGNED_AT, both("bundle-certificate")),
        ("/ctlogs/0/publicKey/validFor", MIDNIGHT, both("sct-invalid")),
        ("/timestampAuthorities/0/validFor", SIGNED_AT, ["", "timestamp-invalid"]),
    ] {
        for (from, to, ok) in [
            (time, Some(time), true),
            (time, None, true),
            (time - 9, Some(time), true),
            (time - 9, Some(time - 1), false),
            (time + 1, Some(time + 9), false),
            (time + 1, None, false),
        ] {
            let mut root = sigstore.trusted_root();
            let to = to.map(|to| Timestamp(to).to_string());
            *root.pointer_mut(path).unwrap() = json!({ "start": Timestamp(from).to_string(), "end": to });
            let found = good.each_ref().map(|bundle| judge(bundle, &root));
            assert_eq!(found, if ok { both("") } else { refused }, "{path} {from} {to:?}");
        }
    }
}

/// Rules C-3, C-4: keys in the policy itself, from registry to verdict.
#[tokio::test]
async fn policies_with_every_kind_of_key() {
    let named = r#""signedIdentity":{"type":"exactRepository","dockerRepository":"acme.example/os"}"#;
    let unnamed = r#""signedIdentity":{"type":"matchRepositoryOrUnnamed"}"#;
    let encode = |pem: String| base64(pem.as_bytes());
    let mut world = World { attachments: true, ..World::new() };
    for (name, key) in KEYS.iter() {
        let data = encode(key.public_key_pem());
        let requirement = |identity| format!(r#"{{"type":"sigstoreSigned","keyData":"{data}",{identity}}}"#);
        let payload = cosign("acme.example/os", &Digest::sha256(IMAGE).to_string());
        let signature = base64(&key.sign(&payload).unwrap());
        world.bundles.clear();
        world.layers = vec![(payload, json!({ "dev.cosignproject.cosign/signature": signature }))];
        // Attachments are hashed with SHA-256, which these keys did not.
        let wanted = if ["P-384", "P-521"].contains(name) { "bad-signature" } else { "allowed" };
        assert_eq!(world.verdict(&requirement(named)).await, wanted, "{name}");
        world.layers.clear();
        let payload = of_image().to_string().into_bytes();
        let content = Content::Dsse { payload_type: IN_TOTO, payload: &payload };
        world.bundles = vec![bundle(&content, Who::Key(key))];
        assert_eq!(world.verdict(&requirement(unnamed)).await, "allowed", "{name}");
    }
    // An authority and a log of one's own. The log must be of ECDSA, and hash with SHA-256.
    for place in [Place::Root, Place::Intermediate, Place::Rekor] {
        for (name, key) in KEYS.iter() {
            let key_of = |other: Place| if other == place { copy_of(key) } else { other.usual_key() };
            let mut world =
                World { attachments: true, sigstore: Sigstore::with(key_of, |_, _| {}), ..World::new() };
            world.attach("acme.example/os", &build(&[], WORKFLOW), |_, _| {});
            let (authority, log) = world.sigstore.authority_and_log();
            let requirement = format!(
                r#"{{"type":"sigstoreSigned","fulcio":{{"caData":"{}","oidcIssuer":"{ISSUER}","subjectURI":"{WORKFLOW}"}},"rekorPublicKeyData":"{}",{named}}}"#,
                encode(authority),
                encode(log)
            );
            let wanted = match (place, *name) {
                (Place::Rekor, "P-384" | "P-521") => "log-entry-invalid",
                (Place::Rekor, "Ed25519" | "RSA 2048" | "RSA 3072" | "RSA 4096") => "key-file-invalid",
                _ => "allowed",
            };
            assert_eq!(world.verdict(&requirement).await, wanted, "{place:?} {name}");
        }
    }
}
