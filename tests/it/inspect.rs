//! `vouchd inspect`: everything that is attached, what is proven and what is only said, against registries that answer
//! by a script.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use serde_json::{Value, json};

use vouchd::digest::Digest;
use vouchd::evaluate::evidence::LocatedSignature;
use vouchd::inspect::{self, Outcome, Root, Signed, Trust};
use vouchd::manifest::OCI_INDEX;
use vouchd::verify::trust::KeyMaterial;
use vouchd::verify::{Timestamp, UntrustedSignature};

use crate::cosign3::{BUNDLE, IMAGE, OTHER, WORKFLOW, build};
use crate::server::{OCI, Reply, Rig, Server};
use crate::signer::{Content, IN_TOTO, Names, San, Sigstore, Who, bundle as unlogged, statement};
use crate::support::{self, Gpg, Ran, cosign, simple_signing, vouchd, write};
use crate::surface::manual;

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// What a registry has for `IMAGE` at the tag 1.
struct World {
    rig: Rig,
    sigstore: Sigstore,
    /// What the tag 1 leads to.
    image: Vec<u8>,
    /// Other tags.
    tags: BTreeMap<String, Vec<u8>>,
    manifests: Vec<Vec<u8>>,
    blobs: Vec<Vec<u8>>,
    /// Descriptors of the referrers of `IMAGE`.
    listed: Vec<Value>,
    /// What is answered in place of what would be there, by the end of the path.
    broken: Vec<(String, Reply)>,
}

impl World {
    fn new() -> Self {
        let world = Self {
            rig: Rig::new(),
            sigstore: Sigstore::new(),
            image: IMAGE.to_vec(),
            tags: BTreeMap::new(),
            manifests: Vec::new(),
            blobs: Vec::new(),
            listed: Vec::new(),
            broken: Vec::new(),
        };
        write(world.path("root.json"), world.sigstore.trusted_root().to_string());
        write(world.path("registries.conf"), "");
        let store = world.path("lookaside").display().to_string();
        write(world.path("registries.d/all.yaml"), format!("default-docker:\n  lookaside: file://{store}\n"));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.rig.dir.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Adds a manifest that refers to `IMAGE`; `change` changes its descriptor.
    fn refer(&mut self, artifact_type: &str, layer: &[u8], change: impl FnOnce(&mut Value)) {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI,
            "artifactType": artifact_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json"},
            "layers": [{"mediaType": artifact_type, "digest": Digest::sha256(layer).to_string(), "size": layer.len()}],
            "subject": {"mediaType": OCI, "digest": Digest::sha256(IMAGE).to_string(), "size": IMAGE.len()},
        });
        let bytes = manifest.to_string().into_bytes();
        let mut descriptor = json!({
            "mediaType": OCI,
            "digest": Digest::sha256(&bytes).to_string(),
            "size": bytes.len(),
            "artifactType": artifact_type,
        });
        change(&mut descriptor);
        self.manifests.push(bytes);
        self.blobs.push(layer.to_vec());
        self.listed.push(descriptor);
    }

    fn refer_bundle(&mut self, bundle: &Value) {
        self.refer(BUNDLE, bundle.to_string().as_bytes(), |_| {});
    }

    /// A bundle with that statement by the holder of such a certificate.
    fn sign(&self, statement: &Value, names: &Names) -> Value {
        let payload = statement.to_string().into_bytes();
        let content = Content::Dsse { payload_type: IN_TOTO, payload: &payload };
        self.sigstore.sign_v2(&content, Who::Identity(&self.sigstore.identity(names)))
    }

    /// Puts layers at the tag of `IMAGE` with this suffix.
    fn attach(&mut self, suffix: &str, layers: &[(&str, Vec<u8>, Value)]) {
        let layer = |(media_type, bytes, annotations): &(&str, Vec<u8>, Value)| {
            json!({
                "mediaType": media_type,
                "digest": Digest::sha256(bytes).to_string(),
                "size": bytes.len(),
                "annotations": annotations,
            })
        };
        let layers_json: Vec<Value> = layers.iter().map(layer).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": layers_json});
        let tag = format!("sha256-{}.{suffix}", Digest::sha256(IMAGE).hex());
        self.tags.insert(tag, manifest.to_string().into_bytes());
        self.blobs.extend(layers.iter().map(|(_, bytes, _)| bytes.clone()));
    }

    /// A layer as cosign 2 signs with a certificate.
    fn layer(&self, digest: &Digest, names: &Names) -> (&'static str, Vec<u8>, Value) {
        let payload = cosign("acme.example/os:1", &digest.to_string());
        let annotations = self.sigstore.attach(&payload, &self.sigstore.identity(names));
        (SIMPLE, payload, json!(annotations))
    }

    async fn server(&self) -> Server {
        let (image, tags) = (self.image.clone(), self.tags.clone());
        let (manifests, blobs, broken) = (self.manifests.clone(), self.blobs.clone(), self.broken.clone());
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.listed}).to_string();
        let subject = Digest::sha256(IMAGE).to_string();
        self.rig
            .server(move |_, seen| {
                let path = seen.path.split('?').next().unwrap();
                let wanted = path.rsplit('/').next().unwrap();
                let find = |all: &[Vec<u8>]| {
                    all.iter().find(|bytes| Digest::sha256(bytes).to_string() == wanted).cloned()
                };
                if let Some((_, reply)) = broken.iter().find(|(end, _)| path.ends_with(end.as_str())) {
                    return reply.clone();
                }
                if path == "/v2/" {
                    return Reply::ok(b"{}");
                }
                if path.contains("/referrers/") {
                    let none = br#"{"schemaVersion":2,"manifests":[]}"#;
                    let body = if wanted == subject { index.as_bytes() } else { &none[..] };
                    return Reply::ok(body).with("Content-Type", OCI_INDEX);
                }
                if path.contains("/blobs/") {
                    return find(&blobs).map_or(Reply::status(404, ""), |bytes| Reply::ok(&bytes));
                }
                let missing = Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown");
                let found = match wanted {
                    "1" => Some(image.clone()),
                    _ => tags.get(wanted).cloned().or_else(|| find(&manifests)),
                };
                let Some(bytes) = found.or_else(|| find(std::slice::from_ref(&image))) else {
                    return missing;
                };
                let is_index = bytes.starts_with(b"{\"manifests\"");
                Reply::ok(&bytes).with("Content-Type", if is_index { OCI_INDEX } else { OCI })
            })
            .await
    }

    /// Runs a command about the tag 1, and says what the registry was asked for.
    async fn run(&self, command: &[&str]) -> (Ran, Vec<String>) {
        let server = self.server().await;
        let ran = self.run_about(format!("docker://{}:1", server.image().name()), command).await;
        (ran, server.seen().into_iter().map(|seen| seen.path).collect())
    }

    /// Runs a command about an image.
    async fn run_about(&self, image: String, command: &[&str]) -> Ran {
        let mut arguments: Vec<String> = command.iter().map(|&text| text.to_owned()).collect();
        let files = [("--registries-d", "registries.d"), ("--registries-conf", "registries.conf")];
        for (option, name) in files {
            arguments.extend([option.to_owned(), self.name(name)]);
        }
        arguments.extend(["--cert-dir".to_owned(), self.rig.certs().display().to_string()]);
        arguments.push(image);
        tokio::task::spawn_blocking(move || vouchd(&arguments)).await.unwrap()
    }

    /// Inspects with the trusted root of this world, for programs.
    async fn inspect(&self, more: &[&str]) -> (i32, Value) {
        let root = self.name("root.json");
        let (ran, _) = self.run(&[&["inspect", "--json", "--trusted-root", &root], more].concat()).await;
        assert_eq!(ran.stderr, "", "{ran:?}");
        (ran.exit, ran.json())
    }

    /// The same for people.
    async fn text(&self, more: &[&str]) -> (i32, String) {
        let root = self.name("root.json");
        let (ran, _) = self.run(&[&["inspect", "--trusted-root", &root], more].concat()).await;
        assert_eq!(ran.stderr, "", "{ran:?}");
        (ran.exit, ran.stdout)
    }

    /// `verified` or the code of each signature, in order.
    async fn outcomes(&self, more: &[&str]) -> Vec<String> {
        let (exit, report) = self.inspect(more).await;
        assert_eq!(exit, 0, "{report}");
        let outcome = |signature: &&Value| {
            let code = signature["code"].as_str().unwrap_or_default();
            match signature["verified"].as_bool().unwrap() {
                true => format!("verified {code}").trim_end().to_owned(),
                false => code.to_owned(),
            }
        };
        signatures(&report).iter().map(outcome).collect()
    }
}

fn of_image() -> Value {
    statement(&Digest::sha256(IMAGE))
}

fn attestation() -> Value {
    let mut attestation = of_image();
    attestation["predicateType"] = json!(PROVENANCE);
    attestation
}

fn workflow() -> Names {
    build(&[], WORKFLOW)
}

fn elements<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().unwrap()
}

fn places(report: &Value) -> Vec<&Value> {
    elements(report, "manifests").iter().flat_map(|manifest| elements(manifest, "places")).collect()
}

/// The first place of a kind.
fn place<'v>(report: &'v Value, kind: &str) -> &'v Value {
    places(report).into_iter().find(|place| place["kind"] == kind).unwrap()
}

fn signatures(report: &Value) -> Vec<&Value> {
    let items = places(report).into_iter().flat_map(|place| elements(place, "items"));
    items.flat_map(|item| elements(item, "signatures")).collect()
}

/// One of everything.
fn everything() -> World {
    let mut world = World::new();
    let layer = world.layer(&Digest::sha256(IMAGE), &workflow());
    world.attach("sig", &[layer]);
    let bundle = world.sign(&of_image(), &workflow());
    world.refer_bundle(&bundle);
    let bundle = world.sign(&attestation(), &workflow());
    world.refer(BUNDLE, bundle.to_string().as_bytes(), |descriptor| {
        descriptor["annotations"] = json!({"dev.sigstore.bundle.predicateType": PROVENANCE});
    });
    world.refer("application/spdx+json", b"{}", |_| {});
    world.refer("application/vnd.acme.unheard-of", b"x", |_| {});
    let envelope = unlogged(
        &Content::Dsse { payload_type: IN_TOTO, payload: attestation().to_string().as_bytes() },
        Who::Key(&KeyPair::generate().unwrap()),
    );
    let envelope = envelope["dsseEnvelope"].to_string().into_bytes();
    let annotations = json!({"predicateType": "of-layer", "dev.cosignproject.cosign/signature": ""});
    world.attach("att", &[(DSSE, envelope, annotations)]);
    world.attach("sbom", &[("text/spdx", b"an sbom".to_vec(), json!({}))]);
    let store = format!("lookaside/ns/app@sha256={}/signature-1", Digest::sha256(IMAGE).hex());
    let demo = std::fs::read("policy-examples/demo/signed/signature-1").unwrap();
    write(world.path(&store), demo);
    world
}

#[tokio::test]
async fn everything_that_is_attached_is_shown() {
    let world = everything();
    let (exit, report) = world.inspect(&[]).await;
    assert_eq!((exit, &report["complete"]), (0, &json!(true)), "{report}");
    let manifest = &elements(&report, "manifests")[0];
    assert_eq!(manifest["digest"], Digest::sha256(IMAGE).to_string());
    assert_eq!((&manifest["media-type"], &manifest["size"]), (&json!(OCI), &json!(IMAGE.len())));
    let kinds: Vec<&str> = places(&report).iter().map(|place| place["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["lookaside", "attachments", "referrers", "attestations", "sboms"]);

    let simple = &elements(&place(&report, "lookaside")["items"][0], "signatures")[0];
    assert_eq!((&simple["kind"], &simple["code"]), (&json!("simple-signing"), &json!("key-unknown")));
    assert_eq!(simple["untrusted"]["keys"], json!(["6CD41893D525CBFA02AD16CDD959584AED24618A"]));
    assert_eq!(simple["untrusted"]["names"], json!(["registry.example/demo/hello:1"]));

    let attached = &elements(&place(&report, "attachments")["items"][0], "signatures")[0];
    assert_eq!((&attached["kind"], &attached["verified"]), (&json!("attachment"), &json!(true)));
    let proven = &attached["proven"];
    assert_eq!(
        (&proven["signer"]["subject"], &proven["signed-name"]),
        (&json!(WORKFLOW), &json!("acme.example/os:1"))
    );
    assert_eq!(proven["signer"]["issuer"], "https://token.actions.githubusercontent.com");
    assert_eq!(proven["times"], json!(["2026-01-01T00:05:00Z"]));
    assert_eq!(proven["log-entries"], json!([{"log": "rekor.example", "index": 1_000_002}]));
    let ours = json!({"name": "Source Repository URI", "value": "https://github.com/acme/os"});
    assert!(elements(proven, "extensions").contains(&ours), "{proven}");

    let items = elements(place(&report, "referrers"), "items");
    let [signed, attested, sbom, unknown] = items else { panic!("{items:?}") };
    let signature = &elements(signed, "signatures")[0];
    assert_eq!(
        (&signature["kind"], &signature["verified"], &signature["code"]),
        (&json!("bundle"), &json!(true), &Value::Null)
    );
    assert_eq!(signature["proven"]["predicate-type"], "https://sigstore.dev/cosign/sign/v1");
    assert_eq!(signature["proven"]["log-entries"], json!([{"log": "log2026-1.rekor.example", "index": 2}]));
    assert_eq!(attested["predicate-type"], PROVENANCE);
    let attestation = &elements(attested, "signatures")[0];
    // T-17: verified, and for no policy a signature.
    assert_eq!((&attestation["verified"], &attestation["code"]), (&json!(true), &json!("not-a-signature")));
    assert_eq!(attestation["proven"]["predicate-type"], PROVENANCE);
    for (item, kind) in [(sbom, "application/spdx+json"), (unknown, "application/vnd.acme.unheard-of")] {
        assert_eq!((&item["artifact-type"], &item["opened"]), (&json!(kind), &json!(false)));
        assert!(item["digest"].as_str().unwrap().starts_with("sha256:") && item["size"].is_u64(), "{item}");
    }
    let attestation = &elements(&place(&report, "attestations")["items"][0], "signatures")[0];
    assert_eq!((&attestation["kind"], &attestation["code"]), (&json!("attestation"), &json!("unsupported")));
    assert_eq!(attestation["untrusted"]["predicate-type"], PROVENANCE);
    assert_eq!(attestation["untrusted"]["digests"], json!([Digest::sha256(IMAGE).to_string()]));
    let sbom = &place(&report, "sboms")["items"][0];
    assert_eq!((&sbom["media-type"], &sbom["opened"]), (&json!("text/spdx"), &json!(false)));

    // Whether it is proven is told of every signature, and nothing is told twice.
    for signature in signatures(&report) {
        let verified = signature["verified"].as_bool().unwrap();
        assert_eq!(
            (signature["proven"].is_object(), signature["untrusted"].is_object()),
            (verified, !verified)
        );
    }
}

#[tokio::test]
async fn people_are_told_what_to_trust() {
    let world = everything();
    let (exit, text) = world.text(&[]).await;
    assert_eq!(exit, 0);
    let first = text.lines().next().unwrap();
    assert!(first.ends_with(":1: 3 of 5 signatures and attestations verified; no verdict"), "{first}");
    for wanted in [
        &format!("        subject \"{WORKFLOW}\"\n"),
        "        Source Repository URI: \"https://github.com/acme/os\"\n",
        "        signed name none\n",
        "        log rekor.example, entry 1000002\n",
        "is no signature for a policy, or only if it says so: this is no signature, but \"https://slsa.dev/provenance/v1\" [not-a-signature]\n",
        "    NOT VERIFIED: simple-signing ",
        "      untrusted: OpenPGP key 6CD41893D525CBFA02AD16CDD959584AED24618A\n",
        "        untrusted: predicate type \"https://slsa.dev/provenance/v1\"\n",
        "    as listed, untrusted: artifact type \"application/vnd.acme.unheard-of\", ",
        "note: \"verified\" says that the signature is good and about this manifest, whoever made it; no policy was asked",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.contains("allowed"), "{text}");
}

/// Text from outside is shown in part, and cannot be pushed to the beginning of a line by spaces.
#[tokio::test]
async fn long_texts_are_cut_off_and_spaces_count_once() {
    let mut world = World::new();
    let mut statement = attestation();
    statement["subject"][0]["name"] = json!(format!("x{}verified: nothing", " \u{2003}".repeat(100)));
    statement["predicateType"] = json!("p".repeat(100_000));
    for (statement, names) in [(statement.clone(), workflow()), (statement, Names::default())] {
        let bundle = world.sign(&statement, &names);
        world.refer(BUNDLE, bundle.to_string().as_bytes(), |_| {});
    }
    let (_, text) = world.text(&[]).await;
    assert!(text.contains("\"x verified: nothing\"\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() < 1_000), "{text}");
    let (_, report) = world.inspect(&[]).await;
    assert!(report.to_string().len() < 20_000);
}

/// Everything that is wrong has its own reason, and what the signature says is no proof of anything.
#[tokio::test]
async fn what_does_not_verify_says_why() {
    type Change = fn(&mut Value);
    let rows: [(&str, Change, &str); 6] = [
        ("as signed", |_| {}, "verified"),
        (
            "another signature",
            |bundle| bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!("AAAA"),
            "bundle-signature",
        ),
        (
            "no log entry",
            |bundle| bundle["verificationMaterial"]["tlogEntries"] = json!([]),
            "log-entry-missing",
        ),
        (
            "another index",
            |bundle| {
                bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["logIndex"] = json!("1")
            },
            "log-entry-invalid",
        ),
        (
            "no time",
            |bundle| bundle["verificationMaterial"]["timestampVerificationData"] = json!({}),
            "timestamp-missing",
        ),
        ("not a bundle", |bundle| *bundle = json!({"mediaType": 1}), "bundle-malformed"),
    ];
    for (what, change, outcome) in rows {
        let mut world = World::new();
        let mut bundle = world.sign(&of_image(), &workflow());
        change(&mut bundle);
        world.refer_bundle(&bundle);
        assert_eq!(world.outcomes(&[]).await, [outcome], "{what}");
    }
    for (names, outcome) in [
        (Names { sct: false, ..workflow() }, "sct-invalid"),
        (Names { begins: crate::signer::MIDNIGHT + 3_600, ..workflow() }, "bundle-certificate"),
    ] {
        let mut world = World::new();
        let bundle = world.sign(&of_image(), &names);
        world.refer_bundle(&bundle);
        assert_eq!(world.outcomes(&[]).await, [outcome]);
    }
    // T-11: about another image; what it is about is shown, marked.
    let mut world = World::new();
    let bundle = world.sign(&statement(&Digest::sha256(OTHER)), &workflow());
    world.refer_bundle(&bundle);
    let layer = world.layer(&Digest::sha256(OTHER), &workflow());
    world.attach("sig", &[layer]);
    assert_eq!(world.outcomes(&[]).await, ["digest-mismatch", "bundle-subject"]);
    let (_, report) = world.inspect(&[]).await;
    for signature in signatures(&report) {
        assert_eq!(signature["untrusted"]["digests"], json!([Digest::sha256(OTHER).to_string()]));
        assert_eq!(signature["untrusted"]["subject"], WORKFLOW);
    }
    assert_eq!(report["proposals"], json!([]));
    // T-14: another Sigstore, and that of this host.
    let mut world = World::new();
    let bundle = world.sign(&of_image(), &workflow());
    world.refer_bundle(&bundle);
    let other = write(world.path("other.json"), Sigstore::new().trusted_root().to_string());
    for more in [vec![], vec!["--trusted-root".to_owned(), other.display().to_string()]] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let (ran, _) = world.run(&[&["inspect", "--json"][..], &more].concat()).await;
        let report = ran.json();
        let signature = signatures(&report)[0];
        assert_eq!((ran.exit, &signature["verified"]), (0, &json!(false)), "{signature}");
        assert_eq!(signature["untrusted"]["subject"], WORKFLOW);
        assert_eq!(signature["untrusted"]["times"], json!([]));
    }
}

#[tokio::test]
async fn keys_are_checked_if_they_are_given() {
    let mut world = World::new();
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let payload = of_image().to_string().into_bytes();
    world
        .refer_bundle(&unlogged(&Content::Dsse { payload_type: IN_TOTO, payload: &payload }, Who::Key(&key)));
    let payload = cosign("acme.example/os:1", &Digest::sha256(IMAGE).to_string());
    let signed = unlogged(&Content::Message(&payload), Who::Key(&key));
    let annotations = json!({"dev.cosignproject.cosign/signature": signed["messageSignature"]["signature"]});
    world.attach("sig", &[(SIMPLE, payload, annotations)]);
    let file =
        |name: &str, key: &KeyPair| write(world.path(name), key.public_key_pem()).display().to_string();
    let (mine, strange) = (file("key.pem", &key), file("other.pem", &other));
    assert_eq!(world.outcomes(&[]).await, ["key-unknown", "key-unknown"]);
    assert_eq!(world.outcomes(&["--key", &mine]).await, ["verified", "verified"]);
    assert_eq!(world.outcomes(&["--key", &strange]).await, ["bad-signature", "bundle-signature"]);
    let (_, report) = world.inspect(&["--key", &mine]).await;
    for signature in signatures(&report) {
        assert_eq!(signature["proven"]["signer"]["kind"], "public-key");
    }
    assert_eq!(report["proposals"], json!([]));
    // A key in place of a certificate's is none.
    let mut world = World::new();
    let bundle = world.sign(&of_image(), &workflow());
    world.refer_bundle(&bundle);
    assert_eq!(world.outcomes(&["--key", &strange]).await, ["verified"]);
}

#[tokio::test]
async fn openpgp_keys_are_checked_if_they_are_given() {
    if !support::have(&["gpg"]) {
        return;
    }
    let world = World::new();
    let gpg = Gpg::new();
    for user in ["one", "two"] {
        gpg.key(user, "never", "20260101T000000");
        write(world.path(user), gpg.export(user));
    }
    let store = format!("lookaside/ns/app@sha256={}/signature-", Digest::sha256(IMAGE).hex());
    for (number, image) in [(1, IMAGE), (2, OTHER)] {
        let payload = simple_signing("acme.example/os:1", &Digest::sha256(image).to_string());
        write(world.path(&format!("{store}{number}")), gpg.sign("one", &[], &payload));
    }
    let (one, two) = (world.name("one"), world.name("two"));
    assert_eq!(world.outcomes(&[]).await, ["key-unknown", "key-unknown"]);
    assert_eq!(world.outcomes(&["--gpg-key", &one]).await, ["verified", "digest-mismatch"]);
    assert_eq!(world.outcomes(&["--gpg-key", &two]).await, ["key-unknown", "key-unknown"]);
    let (_, text) = world.text(&["--gpg-key", &one]).await;
    for wanted in [
        "      OpenPGP key ",
        "      signed name \"acme.example/os:1\"\n",
        "      time, as the signer says, 20",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    // Rule B-5: what is no signature is told beside those before it.
    write(world.path(&format!("{store}3")), "x");
    let (exit, report) = world.inspect(&["--gpg-key", &one]).await;
    assert_eq!((exit, signatures(&report).len()), (3, 2));
    assert_eq!(place(&report, "lookaside")["failures"][0]["code"], "malformed-signature");
}

#[tokio::test]
async fn an_image_without_anything_is_no_failure() {
    let world = World::new();
    let (exit, report) = world.inspect(&[]).await;
    assert_eq!((exit, &report["complete"], signatures(&report).len()), (0, &json!(true), 0), "{report}");
    let (_, text) = world.text(&[]).await;
    assert_eq!(text.matches(": nothing\n").count(), 5, "{text}");
    // One request each for what nobody else asks for, and none for anything else.
    let (_, asked) = world.run(&["inspect"]).await;
    let asked: Vec<&str> = asked.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
    let digest = Digest::sha256(IMAGE);
    let tag = |suffix: &str| format!("sha256-{}{suffix}", digest.hex());
    let mut wanted = vec![String::new(), "1".to_owned(), digest.to_string()];
    wanted.extend(["", ".sig", ".att", ".sbom"].map(tag));
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), asked.len(), "{asked:?}");
    assert_eq!(BTreeSet::from_iter(asked), wanted.iter().map(String::as_str).collect());
}

/// Design decision 3.4: "not to be had" is not "none", and does not hide what can be had.
#[tokio::test]
async fn what_cannot_be_asked_is_said_in_its_place() {
    let digest = Digest::sha256(IMAGE);
    let broken = || Reply::status(403, "");
    for (kind, end) in [
        ("referrers", digest.to_string()),
        ("referrers", format!("sha256-{}", digest.hex())),
        ("attachments", format!("sha256-{}.sig", digest.hex())),
        ("attestations", format!("sha256-{}.att", digest.hex())),
        ("sboms", format!("sha256-{}.sbom", digest.hex())),
    ] {
        let mut world = everything();
        world.broken.push((end.clone(), broken()));
        let (exit, report) = world.inspect(&[]).await;
        assert_eq!((exit, &report["complete"], &report["code"]), (3, &json!(false), &Value::Null), "{end}");
        let failing: Vec<&Value> =
            places(&report).into_iter().filter(|place| !elements(place, "failures").is_empty()).collect();
        assert_eq!(failing.len(), 1, "{end}: {report}");
        assert_eq!(
            (&failing[0]["kind"], &failing[0]["failures"][0]["code"]),
            (&json!(kind), &json!("registry-auth"))
        );
        assert!(!signatures(&report).is_empty(), "{end}");
        let (exit, text) = world.text(&[]).await;
        assert!(
            exit == 3 && text.contains("    NOT ALL ASKED: ") && text.contains("[registry-auth]"),
            "{text}"
        );
        assert!(text.ends_with("note: not everything could be asked; there may be more\n"), "{text}");
    }
    // A bundle that is listed and is not there.
    let mut world = everything();
    let bundle = world.blobs[1].clone();
    world.broken.push((Digest::sha256(&bundle).to_string(), broken()));
    let (exit, report) = world.inspect(&[]).await;
    let items = elements(place(&report, "referrers"), "items");
    assert_eq!(
        (exit, items.len(), &items[0]["failure"]["code"]),
        (3, 4, &json!("registry-auth")),
        "{report}"
    );
    assert_eq!(elements(&items[1], "signatures")[0]["verified"], true);
    // The image itself, and one that never answers: what has come by then is shown.
    let mut world = everything();
    world.broken.push(("/manifests/1".to_owned(), broken()));
    let (ran, _) = world.run(&["inspect", "--json"]).await;
    assert_eq!(ran.code(), (3, "registry-auth".to_owned()));
    let (ran, _) = world.run(&["inspect"]).await;
    assert!(
        ran.exit == 3 && ran.stdout.is_empty() && ran.stderr.contains("[registry-auth]\nhelp: "),
        "{ran:?}"
    );
    let mut world = everything();
    world.broken.push((digest.to_string(), Reply::Hang));
    let (exit, report) = world.inspect(&["--timeout", "4s"]).await;
    assert_eq!(
        (exit, &place(&report, "referrers")["failures"][0]["code"]),
        (3, &json!("timed-out")),
        "{report}"
    );
    assert_eq!(elements(&place(&report, "attachments")["items"][0], "signatures")[0]["verified"], true);
}

/// T-23: whoever made the image, the registry or the certificate, nothing of theirs reaches the terminal.
#[tokio::test]
async fn text_from_outside_is_escaped() {
    let hostile = "\u{1b}]0;x\u{7}\r\n\u{202e}\u{9b}31m";
    let mut world = World::new();
    let mut extensions = workflow().extensions;
    extensions.push((22, hostile.to_owned()));
    let names = Names { san: San::Uri("https://a\u{1b}[31m.example/\u{7f}"), extensions, ..workflow() };
    let mut attestation = attestation();
    attestation["predicateType"] = json!(hostile);
    attestation["subject"][0]["name"] = json!(hostile);
    for statement in [attestation.clone(), statement(&Digest::sha256(OTHER))] {
        let bundle = world.sign(&statement, &names);
        world.refer(BUNDLE, bundle.to_string().as_bytes(), |descriptor| {
            descriptor["annotations"] = json!({"dev.sigstore.bundle.predicateType": hostile});
        });
    }
    world.refer(hostile, b"x", |descriptor| descriptor["mediaType"] = json!(hostile));
    let payload = cosign(
        &hostile.escape_unicode().to_string().replace(['{', '}'], ""),
        &Digest::sha256(IMAGE).to_string(),
    );
    let mut annotations = json!(world.sigstore.attach(&payload, &world.sigstore.identity(&names)));
    annotations[hostile] = json!(hostile);
    world.attach(
        "sig",
        &[
            (SIMPLE, payload, annotations),
            (hostile, b"\xff\xfe\x1b".to_vec(), json!({"predicateType": hostile})),
        ],
    );
    world.attach("att", &[(DSSE, b"\xff\x1b[31m{".to_vec(), json!({hostile: hostile}))]);
    let (exit, text) = world.text(&[]).await;
    assert_eq!(exit, 0, "{text}");
    let is_hazardous = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{9b}');
    assert!(!text.contains(is_hazardous), "{text:?}");
    assert!(text.contains("\\u{1b}]0;x\\u{7}") && text.contains("https://a\\u{1b}[31m.example"), "{text}");
    // No line is the outsider's.
    assert!(text.lines().all(|line| !line.starts_with("\\u") && !line.starts_with('x')), "{text}");
    let (_, report) = world.inspect(&[]).await;
    let root = world.name("root.json");
    let (ran, _) = world.run(&["inspect", "--json", "--trusted-root", &root]).await;
    assert!(!ran.stdout.contains(is_hazardous) && ran.stdout.lines().count() == 1, "{:?}", ran.stdout);
    // Escaped, and the same.
    let verified = signatures(&report).into_iter().find(|s| s["proven"]["predicate-type"] == hostile);
    let extension = json!({"name": "Source Repository Visibility At Signing", "value": hostile});
    assert!(elements(&verified.unwrap()["proven"], "extensions").contains(&extension));
}

/// T-28: whatever a registry has, what is shown is bounded, and what is left out is said.
#[tokio::test]
async fn much_is_cut_off_and_said_to_be() {
    let mut world = World::new();
    let bundle = world.sign(&of_image(), &workflow());
    let long = "x".repeat(3_000);
    for number in 0..1_000 {
        let digest = Digest::sha256(number.to_string().as_bytes()).to_string();
        world.listed.push(json!({"mediaType": OCI, "digest": digest, "size": 1, "artifactType": long}));
    }
    world.refer_bundle(&bundle);
    let (exit, report) = world.inspect(&[]).await;
    let referrers = place(&report, "referrers");
    let items = elements(referrers, "items");
    assert_eq!((exit, items.len()), (3, 256));
    // The signature comes before what is none, wherever it is listed.
    assert_eq!(elements(&items[0], "signatures")[0]["verified"], true);
    assert!(items.iter().all(|item| item["artifact-type"].as_str().unwrap().len() < 300));
    assert_eq!(referrers["failures"][0]["code"], "evidence-too-large");
    assert!(
        referrers["failures"][0]["message"].as_str().unwrap().starts_with("at least 745 more"),
        "{referrers}"
    );

    // Layers cost a request each, of which there are 300.
    let mut world = World::new();
    let layer = |n: usize| (SIMPLE, format!("{n}").into_bytes(), json!({}));
    world.attach("sig", &(0..1_000).map(layer).collect::<Vec<_>>());
    let (exit, report) = world.inspect(&[]).await;
    let attachments = place(&report, "attachments");
    assert_eq!((exit, &attachments["failures"][0]["code"]), (3, &json!("evidence-too-large")));
    assert!(
        (200..300).contains(&elements(attachments, "items").len()),
        "{}",
        elements(attachments, "items").len()
    );

    // A payload beyond its limit, and one of the largest size.
    let mut world = World::new();
    world.attach(
        "sig",
        &[(SIMPLE, vec![b'x'; 4 << 20], json!({})), (SIMPLE, vec![b'y'; (4 << 20) + 1], json!({}))],
    );
    let (exit, report) = world.inspect(&[]).await;
    let attachments = place(&report, "attachments");
    assert_eq!((exit, elements(attachments, "items").len()), (3, 1), "{attachments}");
    assert_eq!(attachments["failures"][0]["code"], "registry-protocol");
}

/// The index, and the instance for the platform.
#[tokio::test]
async fn an_index_is_shown_with_the_instance_of_the_platform() {
    let mut world = World::new();
    let bundle = world.sign(&of_image(), &workflow());
    world.refer_bundle(&bundle);
    world.manifests.push(IMAGE.to_vec());
    let descriptor = json!({
        "mediaType": OCI,
        "digest": Digest::sha256(IMAGE).to_string(),
        "size": IMAGE.len(),
        "platform": {"os": "linux", "architecture": "s390x"},
    });
    world.image = json!({"manifests": [descriptor], "mediaType": OCI_INDEX, "schemaVersion": 2})
        .to_string()
        .into_bytes();
    let (exit, report) = world.inspect(&["--platform", "linux/s390x"]).await;
    let manifests = elements(&report, "manifests");
    assert_eq!((exit, manifests.len()), (0, 2), "{report}");
    assert_eq!(
        (&manifests[0]["subject"], &manifests[0]["media-type"]),
        (&json!("top-level"), &json!(OCI_INDEX))
    );
    assert_eq!(manifests[0]["digest"], Digest::sha256(&world.image).to_string());
    assert_eq!(
        (&manifests[1]["subject"], &manifests[1]["digest"]),
        (&json!("instance"), &json!(Digest::sha256(IMAGE).to_string()))
    );
    assert_eq!(world.outcomes(&["--platform", "linux/s390x"]).await, ["verified"]);
    let (exit, report) = world.inspect(&["--platform", "linux/riscv64"]).await;
    assert_eq!((exit, elements(&report, "manifests").len()), (3, 1));
    assert_eq!(
        (&report["complete"], &report["failure"]["code"]),
        (&json!(false), &json!("no-matching-platform"))
    );
    let (_, text) = world.text(&["--platform", "linux/riscv64"]).await;
    assert!(
        text.contains("  instance\n    NOT ALL ASKED: ") && text.contains("[no-matching-platform]"),
        "{text}"
    );
}

/// Every proposal is what makes `verify` say yes, and there is none where it would say no.
#[tokio::test]
async fn proposals_are_requirements_that_are_satisfied() {
    let person = Names::default();
    let reusable = "https://github.com/acme/shared/.github/workflows/build.yml@refs/heads/main";
    for (names, proposed) in [
        (workflow(), Some(("https://token.actions.githubusercontent.com", "https://github.com/acme/os"))),
        (person, Some(("https://issuer.example", "someone@example.com"))),
        // T-12, T-13: more would have to be said than who it is.
        (build(&[], reusable), None),
        (build(&[(14, "refs/pull/1/merge")], WORKFLOW), None),
        (build(&[(20, "pull_request_target")], WORKFLOW), None),
    ] {
        let mut world = World::new();
        let bundle = world.sign(&of_image(), &names);
        world.refer_bundle(&bundle);
        let bundle =
            world.sign(&attestation(), &Names { san: San::Email("other@example.com"), ..Names::default() });
        world.refer_bundle(&bundle);
        let (exit, report) = world.inspect(&[]).await;
        let proposals = elements(&report, "proposals");
        let wanted = proposed.map(|(issuer, subject)| {
            json!({
                "type": "sigstoreSigned",
                "keyless": {"issuer": issuer, "subject": subject},
                "trustedRootPath": world.name("root.json"),
            })
        });
        let read = |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap();
        assert_eq!((exit, proposals.iter().map(read).collect::<Vec<_>>()), (0, Vec::from_iter(wanted)));
        let Some(proposal) = proposals.first() else { continue };
        let policy = format!(r#"{{"default":[{}]}}"#, proposal.as_str().unwrap());
        let policy = write(world.path("policy.json"), policy).display().to_string();
        let (ran, _) =
            world.run(&["verify", "--direct", "--require-signature", "--json", "--policy", &policy]).await;
        assert_eq!(ran.code(), (0, "allowed".to_owned()), "{ran:?}");
    }
    // One that names another image satisfies no requirement without more.
    let mut world = World::new();
    let layer = world.layer(&Digest::sha256(IMAGE), &workflow());
    world.attach("sig", &[layer]);
    let (_, report) = world.inspect(&[]).await;
    assert_eq!((signatures(&report).len(), &report["proposals"]), (1, &json!([])));
}

#[tokio::test]
async fn it_looks_whatever_registries_d_says() {
    for (yaml, warned) in [("false", true), ("true", false)] {
        let world = everything();
        let text = format!(
            "default-docker:\n  lookaside: file:///nonexistent\n  use-sigstore-attachments: {yaml}\n"
        );
        write(world.path("registries.d/all.yaml"), text);
        let (_, report) = world.inspect(&[]).await;
        assert_eq!(signatures(&report).len(), 4, "{report}");
        let warnings = report["warnings"].to_string();
        assert_eq!(warnings.contains("use-sigstore-attachments"), warned, "{warnings}");
    }
}

#[test]
fn what_is_trusted_must_be_usable() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| write(dir.path().join(name), text).display().to_string();
    let (garbage, absent) = (file("garbage", "{}"), dir.path().join("absent").display().to_string());
    let image = "dir:policy-examples/demo/signed";
    for (option, path, code) in [
        ("--key", &garbage, "key-file-invalid"),
        ("--gpg-key", &garbage, "key-file-invalid"),
        ("--trusted-root", &garbage, "trusted-root-invalid"),
        ("--key", &absent, "key-file-unreadable"),
        ("--gpg-key", &absent, "key-file-unreadable"),
        ("--trusted-root", &absent, "key-file-unreadable"),
    ] {
        assert_eq!(
            vouchd(&["inspect", "--json", option, path, image]).code(),
            (4, code.to_owned()),
            "{option}"
        );
    }
    for (image, exit) in [("nonsense//", 2), ("dir:/nonexistent", 3), ("docker-daemon:a:b", 3)] {
        let ran = vouchd(&["inspect", "--json", image]);
        assert_eq!((ran.exit, &ran.json()["complete"]), (exit, &json!(false)), "{ran:?}");
    }
    // No policy is needed, and none can be named.
    assert_eq!(vouchd(&["inspect", "--policy", &garbage, image]).exit, 2);
}

#[test]
fn local_images_are_looked_over_too() {
    let (gpg_key, key) = ("policy-examples/demo/keys/demo.gpg", "policy-examples/demo/keys/demo.pub");
    for (image, wanted) in [
        ("signed", vec![(true, Value::Null)]),
        ("tampered", vec![(false, json!("digest-mismatch"))]),
        ("unsigned", vec![]),
        ("sigstore", vec![(true, Value::Null)]),
    ] {
        let image = format!("dir:policy-examples/demo/{image}");
        let ran = vouchd(&["inspect", "--json", "--gpg-key", gpg_key, "--key", key, &image]);
        let report = ran.json();
        let found =
            signatures(&report).into_iter().map(|s| (s["verified"].as_bool().unwrap(), s["code"].clone()));
        assert_eq!((ran.exit, found.collect::<Vec<_>>()), (0, wanted), "{image}");
    }
}

#[test]
fn layouts_have_referrers() {
    let world = World::new();
    let layout = world.path("layout");
    let blob = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        write(layout.join("blobs/sha256").join(digest.hex()), bytes);
        json!({"mediaType": OCI, "digest": digest.to_string(), "size": bytes.len()})
    };
    let refer = |artifact_type: &str, layer: &[u8], subject: &[u8]| {
        let mut layer = blob(layer);
        layer["mediaType"] = json!(artifact_type);
        let config = json!({"mediaType": "application/vnd.oci.empty.v1+json"});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI, "artifactType": artifact_type, "config": config,
            "layers": [layer], "subject": blob(subject),
        });
        let mut descriptor = blob(manifest.to_string().as_bytes());
        descriptor["artifactType"] = json!(artifact_type);
        descriptor
    };
    let mut image = blob(IMAGE);
    image["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    let bundle = world.sign(&of_image(), &workflow()).to_string();
    let sbom = refer("application/spdx+json", b"{}", IMAGE);
    let manifests = [
        image,
        blob(OTHER),
        refer(BUNDLE, bundle.as_bytes(), IMAGE),
        refer(BUNDLE, bundle.as_bytes(), OTHER),
        sbom.clone(),
        refer("application/spdx+json", b"other", OTHER),
    ];
    write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = |manifests: &[Value]| {
        write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": manifests}).to_string());
    };
    index(&manifests);
    let archive = world.name("image.tar");
    let tar = std::process::Command::new("tar").args(["-cf", &archive, "-C"]).arg(&layout).arg(".").status();
    assert!(tar.unwrap().success());
    let root = world.name("root.json");
    for reference in [format!("oci:{}:1", layout.display()), format!("oci-archive:{archive}:1")] {
        let ran = vouchd(&["inspect", "--json", "--trusted-root", &root, &reference]);
        let report = ran.json();
        let items = elements(place(&report, "referrers"), "items");
        assert_eq!((ran.exit, items.len()), (0, 2), "{report}");
        assert_eq!(elements(&items[0], "signatures")[0]["verified"], true);
        assert_eq!((&items[1]["digest"], &items[1]["opened"]), (&sbom["digest"], &json!(false)));
    }
    // What is listed and is not there may have been a signature.
    let gone = json!({"mediaType": OCI, "digest": Digest::sha256(b"gone").to_string(), "size": 1});
    index(&[&manifests[..], &[gone]].concat());
    let reference = format!("oci:{}:1", layout.display());
    let ran = vouchd(&["inspect", "--json", "--trusted-root", &root, &reference]);
    assert_eq!((ran.exit, signatures(&ran.json()).len()), (3, 1), "{ran:?}");
}

#[tokio::test]
async fn the_keys_of_json_are_those_of_the_manual() {
    let mut world = everything();
    world.broken.push((format!("sha256-{}.sbom", Digest::sha256(IMAGE).hex()), Reply::status(403, "")));
    let (_, report) = world.inspect(&[]).await;
    let mut keys = BTreeSet::new();
    manual::collect_keys(&report, &mut keys);
    assert_eq!(manual::keys_of("Keys of inspect --json"), keys);
}

/// Signatures as cosign 2 writes them into referrers, and what its place takes for a signature and is none.
#[tokio::test]
async fn referrers_of_every_kind_are_opened() {
    const COSIGN: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
    let mut world = World::new();
    let (_, payload, annotations) = world.layer(&Digest::sha256(IMAGE), &workflow());
    world.refer(COSIGN, &payload, |_| {});
    let bytes = world.manifests.pop().unwrap();
    let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
    manifest["layers"][0]["mediaType"] = json!(SIMPLE);
    manifest["layers"][0]["annotations"] = annotations;
    let mut other = manifest.clone();
    other["subject"]["digest"] = json!(Digest::sha256(OTHER).to_string());
    world.listed.clear();
    for manifest in [manifest, other] {
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::sha256(&bytes).to_string();
        world
            .listed
            .push(json!({"mediaType": OCI, "digest": digest, "size": bytes.len(), "artifactType": COSIGN}));
        world.manifests.push(bytes);
    }
    assert_eq!(world.outcomes(&[]).await, ["verified"]);
    let (exit, text) = world.text(&[]).await;
    assert!(exit == 0 && text.contains("      holds no signature on this manifest\n"), "{text}");
}

/// Rule X-1: the registry's own store in place of the lookaside store.
#[tokio::test]
async fn the_store_of_the_registry_is_looked_into() {
    let mut world = everything();
    let blob = std::fs::read("policy-examples/demo/signed/signature-1").unwrap();
    let entry = json!({"schemaVersion": 2, "type": "atomic", "content": STANDARD.encode(blob)});
    let list = json!({"signatures": [entry]}).to_string();
    let ping = Reply::ok(b"{}").with("X-Registry-Supports-Signatures", "1");
    world.broken.push(("/v2/".to_owned(), ping));
    world.broken.push((format!("/signatures/{}", Digest::sha256(IMAGE)), Reply::ok(list.as_bytes())));
    let (exit, report) = world.inspect(&[]).await;
    let store = place(&report, "extension");
    assert_eq!((exit, places(&report).len()), (0, 5), "{report}");
    assert_eq!(elements(&store["items"][0], "signatures")[0]["code"], "key-unknown");
    // Rule X-2: anything but an answer is a failure.
    world.broken.last_mut().unwrap().1 = Reply::status(404, "");
    let (exit, report) = world.inspect(&[]).await;
    assert_eq!((exit, elements(place(&report, "extension"), "failures").len()), (3, 1), "{report}");
}

/// Rule M-7: what is attached is where the image is, and the name is what was asked for.
#[tokio::test]
async fn other_locations_are_shown() {
    let world = everything();
    let server = world.server().await;
    let place = server.image().name();
    let conf = format!("[[registry]]\nprefix = \"acme.example/os\"\nlocation = \"{place}\"\n");
    write(world.path("registries.conf"), conf);
    let root = world.name("root.json");
    let command = ["inspect", "--json", "--trusted-root", &root];
    let ran = world.run_about("docker://acme.example/os:1".to_owned(), &command).await;
    let report = ran.json();
    assert_eq!((ran.exit, &report["source"]), (0, &json!(format!("docker://{place}:1"))), "{report}");
    // The attachment names this image.
    assert_eq!(elements(&report, "proposals").len(), 1, "{report}");
    let ran = world.run_about("acme.example/os:1".to_owned(), &["inspect"]).await;
    assert!(ran.stdout.contains(&format!("  from      docker://{place}:1\n")), "{ran:?}");
}

/// Whatever is changed in a bundle: it proves the same or nothing, and what it says can be read without harm.
#[test]
fn tampering_never_changes_what_is_proven() {
    let world = World::new();
    let root = world.sigstore.trusted_root().to_string().into_bytes();
    let material = Arc::new(KeyMaterial::new("root".to_owned(), root));
    let root = Root::Named { path: None, material };
    let trust = Trust { root, keys: Vec::new(), gpg_keys: Vec::new() };
    let digest = Digest::sha256(IMAGE);
    let examine = |bytes: Vec<u8>| {
        let signature = UntrustedSignature::Bundle(bytes);
        let located = LocatedSignature { location: String::new(), signature };
        let signed = Signed { manifest: IMAGE, digest: &digest };
        match inspect::examine(&located, signed, &trust, Timestamp(0)).outcome {
            Outcome::Verified { proven, .. } => Some(proven),
            Outcome::NotVerified { .. } => None,
        }
    };
    let bundle = world.sign(&of_image(), &workflow()).to_string().into_bytes();
    let proven = examine(bundle.clone()).unwrap();
    let mut refused = 0;
    for at in (0..bundle.len()).step_by(17) {
        for change in [1, 0x20, 0x80] {
            let mut tampered = bundle.clone();
            tampered[at] ^= change;
            match examine(tampered) {
                Some(found) => assert_eq!(found, proven, "{at} {change}"),
                None => refused += 1,
            }
        }
        assert_eq!(examine(bundle[..at].to_vec()), None);
    }
    assert!(refused > bundle.len() / 17 * 2, "{refused}");
}

/// The deadline is that of everything.
#[tokio::test]
async fn nothing_takes_longer_than_it_may() {
    let mut world = World::new();
    world.broken.push(("/manifests/1".to_owned(), Reply::Hang));
    let start = std::time::Instant::now();
    let (exit, report) = world.inspect(&["--timeout", "1s"]).await;
    assert_eq!((exit, &report["code"]), (3, &json!("timed-out")));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
