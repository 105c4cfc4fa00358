//! The daemon's interface, for manifests that the caller chooses: by digest, or as bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::KeyPair;
use serde_json::{Value, json};
use zbus::wire::{Array, Fd, Str};
use zbus::{OwnedVariant, Type, Variant};

use vouchd::config::RegistriesConfSource;
use vouchd::dbus::{self, Dictionary, VerifierProxy};
use vouchd::digest::Digest;
use vouchd::manifest::{OCI_INDEX, Platform};

use crate::dbus::{Rig, name};
use crate::live::SigningKey;
use crate::server::{self, OCI, Reply, Server};
use crate::signer::{Content, IN_TOTO, Who, bundle, statement};

const IMAGE: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
const OTHER: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[],"annotations":{"a":"b"}}"#;

/// A registry where tag 1 leads to `IMAGE`, signed under that name, tag 2 to `OTHER`, and `index` to an index of both.
struct World {
    rig: Rig,
    server: Server,
    index: Vec<u8>,
    key: std::sync::Arc<SigningKey>,
}

impl World {
    async fn new(identity: &str) -> Self {
        let certificates = server::Rig::new();
        let key = std::sync::Arc::new(SigningKey::new());
        let entry = |manifest: &[u8], os: &str| {
            let platform = json!({"os": os, "architecture": Platform::host().architecture});
            let (digest, size) = (Digest::sha256(manifest).to_string(), manifest.len());
            json!({"mediaType": OCI, "digest": digest, "size": size, "platform": platform})
        };
        let entries = [entry(IMAGE, "linux"), entry(OTHER, "plan9")];
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string();
        let (index, signer) = (index.into_bytes(), std::sync::Arc::clone(&key));
        let served = index.clone();
        let server = certificates
            .server(move |host, seen| {
                let digest = Digest::sha256(IMAGE);
                let (payload, signature) = signer.sign(&format!("{host}/ns/app:1"), &digest.to_string());
                let attachment = attachment(&payload, &signature);
                let name = seen.path.rsplit('/').next().unwrap();
                let is = |bytes: &[u8]| name == Digest::sha256(bytes).to_string();
                match name {
                    "" => Reply::ok(b"{}"),
                    "1" => Reply::manifest(IMAGE),
                    "2" => Reply::manifest(OTHER),
                    _ if is(IMAGE) => Reply::manifest(IMAGE),
                    _ if is(OTHER) => Reply::manifest(OTHER),
                    _ if is(b"a lie") => Reply::manifest(IMAGE),
                    _ if name == "index" || is(&served) => Reply::ok(&served).with("Content-Type", OCI_INDEX),
                    _ if is(&payload) => Reply::ok(&payload),
                    _ if name == format!("sha256-{}.sig", digest.hex()) => {
                        Reply::manifest(attachment.to_string().as_bytes())
                    }
                    _ => Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
                }
            })
            .await;
        let requirement = key.requirement(&json!({"type": identity}));
        let mut rig = Rig::new(&json!({"default": [requirement]}).to_string());
        let certs = rig.path().join("certs");
        fs::create_dir(&certs).unwrap();
        fs::copy(certificates.certs().join("ca.crt"), certs.join("ca.crt")).unwrap();
        rig.settings.registry.cert_dir = Some(certs);
        let text = "default-docker:\n  lookaside: file:///nonexistent\n  use-sigstore-attachments: true\n";
        fs::write(rig.registries_d().join("all.yaml"), text).unwrap();
        Self { rig, server, index, key }
    }

    fn name(&self, tag: &str) -> String {
        format!("docker://{}/ns/app{tag}", self.server.host)
    }

    /// The last parts of the paths that were asked for since the first `before`.
    fn asked(&self, before: usize) -> Vec<String> {
        let last = |seen: &server::Seen| seen.path.rsplit('/').next().unwrap().to_owned();
        self.server.seen()[before..].iter().map(last).collect()
    }

    /// A stored signature of `manifest` under the name with tag 1.
    fn blob(&self, manifest: &[u8]) -> Vec<u8> {
        let name = format!("{}/ns/app:1", self.server.host);
        let (payload, signature) = self.key.sign(&name, &Digest::sha256(manifest).to_string());
        let stored = json!({
            "mimeType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "payload": crate::signer::base64(&payload),
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        });
        format!("\0sigstore-json\n{stored}").into_bytes()
    }
}

fn attachment(payload: &[u8], signature: &str) -> Value {
    let layer = json!({
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": Digest::sha256(payload).to_string(),
        "size": payload.len(),
        "annotations": {"dev.cosignproject.cosign/signature": signature},
    });
    json!({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": [layer]})
}

fn file(content: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.into()
}

fn descriptors(all: impl IntoIterator<Item = OwnedFd>) -> OwnedVariant {
    let mut array = Array::new(Fd::SIGNATURE);
    for descriptor in all {
        array.append(Variant::Fd(descriptor.into())).unwrap();
    }
    OwnedVariant::try_from(Variant::Array(array)).unwrap()
}

async fn by_digest(
    verifier: &VerifierProxy<'_>,
    image: &str,
    digest: &str,
    options: Dictionary,
) -> Result<Dictionary, String> {
    let answer = verifier.verify_image_digest(image, digest, options).await;
    answer.map_err(|error| short(&error))
}

async fn by_bytes(
    verifier: &VerifierProxy<'_>,
    image: &str,
    manifest: OwnedFd,
    options: Dictionary,
) -> Result<Dictionary, String> {
    let answer = verifier.verify_manifest(image, manifest.into(), options).await;
    answer.map(|(_, details)| details).map_err(|error| short(&error))
}

/// The last part of the error's name, and its code.
fn short(error: &dbus::Error) -> String {
    let name = name(error);
    format!("{} {}", name.rsplit('.').next().unwrap(), error.code().unwrap_or_default())
}

fn text_of(details: &Dictionary, key: &str) -> Option<String> {
    let Variant::Str(text) = details.value(key)? else { panic!("{key}: {details:?}") };
    Some(text.as_str().to_owned())
}

/// T-11: what is accepted is the manifest with the digest, under the name that was asked for and no other.
#[tokio::test]
async fn a_digest_is_judged_under_the_name_that_was_asked_for() {
    let world = World::new("matchExact").await;
    let verifier = world.rig.verifier().await;
    let (image, other) = (Digest::sha256(IMAGE).to_string(), Digest::sha256(OTHER).to_string());
    let lie = Digest::sha256(b"a lie").to_string();
    let plain = Dictionary::new;
    let checked = || Dictionary::new().with("check-tag", true);

    let details = by_digest(&verifier, &world.name(":1"), &image, plain()).await.unwrap();
    assert_eq!(text_of(&details, "manifest-digest"), Some(image.clone()));
    assert_eq!(text_of(&details, "resolved-digest"), Some(image.clone()));
    assert_eq!(text_of(&details, "reference"), Some(world.name(":1")));
    assert_eq!(text_of(&details, "pinned-reference"), Some(world.name(&format!("@{image}"))));
    assert_eq!(details.value("source"), None, "it is where its name says");
    // The tag was not asked for.
    assert!(!world.asked(0).contains(&"1".to_owned()), "{:?}", world.asked(0));
    assert!(world.asked(0).contains(&image));

    let elsewhere = format!("docker://{}/ns/other:1", world.server.host);
    for (name, digest, options, wanted) in [
        (world.name(":1"), &image, checked(), Ok(())),
        // Signed under another name.
        (world.name(":2"), &image, plain(), Err("Rejected identity-mismatch")),
        (world.name(""), &image, plain(), Err("Rejected identity-mismatch")),
        (elsewhere, &image, plain(), Err("Rejected identity-mismatch")),
        // Not signed, but what the tag of a signed image would be.
        (world.name(":1"), &other, plain(), Err("Rejected unsigned")),
        // The registry has something else than the digest says.
        (world.name(":1"), &lie, plain(), Err("DigestMismatch digest-mismatch")),
        // The tag leads elsewhere, whatever is allowed.
        (world.name(":1"), &other, checked(), Err("DigestMismatch digest-mismatch")),
        (world.name(":2"), &image, checked(), Err("DigestMismatch digest-mismatch")),
        (world.name(&format!("@{other}")), &image, plain(), Err("DigestMismatch digest-mismatch")),
        (world.name(":3"), &image, checked(), Err("NotFound image-not-found")),
    ] {
        let found = by_digest(&verifier, &name, digest, options).await.map(|_| ());
        assert_eq!(found, wanted.map_err(str::to_owned), "{name} {digest}");
    }
    for (name, wanted) in [
        ("docker-daemon:a/b:1", "UnsupportedTransport unsupported-transport"),
        ("dir:/", "UnsupportedTransport unsupported-transport"),
        ("", "InvalidReference invalid-reference"),
        (&"a".repeat(1025), "InvalidArgs usage"),
    ] {
        assert_eq!(by_digest(&verifier, name, &image, plain()).await.unwrap_err(), wanted, "{name}");
    }
    let sha512 = format!("sha512:{}", "0".repeat(128));
    let upper = image.to_uppercase().replace("SHA256", "sha256");
    for digest in ["", "sha256:", "sha256:00", &sha512, &upper, &format!("{image} "), &"0".repeat(1 << 20)] {
        let error = by_digest(&verifier, &world.name(":1"), digest, plain()).await.unwrap_err();
        assert_eq!(error, "InvalidArgs usage", "{digest}");
    }
}

/// T-11: an index is not accepted because its instance is, unless that is what is asked, and then it is not called so.
#[tokio::test]
async fn the_digest_of_an_index_stands_for_what_the_question_is_about() {
    let world = World::new("matchRepository").await;
    let verifier = world.rig.verifier().await;
    let (image, index) = (Digest::sha256(IMAGE).to_string(), Digest::sha256(&world.index).to_string());
    for (subject, wanted) in [
        ("either", Ok(image.clone())),
        ("instance", Ok(image.clone())),
        ("top-level", Err("Rejected unsigned".to_owned())),
        ("both", Err("Rejected unsigned".to_owned())),
    ] {
        for check_tag in [false, true] {
            let options = Dictionary::new().with("subject", Str::from(subject)).with("check-tag", check_tag);
            let found = by_digest(&verifier, &world.name(":index"), &index, options).await;
            if let Ok(details) = &found {
                assert_eq!(text_of(details, "resolved-digest"), Some(index.clone()));
                assert_eq!(text_of(details, "pinned-reference"), Some(world.name(&format!("@{image}"))));
            }
            let found = found.map(|details| text_of(&details, "manifest-digest").unwrap());
            assert_eq!(found, wanted, "{subject} {check_tag}");
        }
    }
    // The digest of the instance is not that of what the tag leads to.
    let checked = Dictionary::new().with("check-tag", true);
    let found = by_digest(&verifier, &world.name(":index"), &image, checked).await.unwrap_err();
    assert_eq!(found, "DigestMismatch digest-mismatch");
    let expecting = Dictionary::new().with("expected-digest", Str::from(index.clone()));
    let found = by_digest(&verifier, &world.name(":index"), &index, expecting).await.unwrap_err();
    assert_eq!(found, "DigestMismatch digest-mismatch");
}

#[tokio::test]
async fn a_manifest_is_judged_as_the_caller_has_it() {
    let world = World::new("matchExact").await;
    let verifier = world.rig.verifier().await;
    let mut manifest = tempfile::tempfile().unwrap();
    manifest.write_all(IMAGE).unwrap();
    manifest.seek(SeekFrom::End(0)).unwrap();
    let name = world.name(":1");
    let answer = verifier.verify_manifest(&name, OwnedFd::from(manifest).into(), Dictionary::new());
    let (digest, details) = answer.await.unwrap();
    assert_eq!(digest, Digest::sha256(IMAGE).to_string());
    assert_eq!(text_of(&details, "manifest-digest"), Some(digest.clone()));
    assert_eq!(details.value("authenticated"), Some(&Variant::Bool(true)));
    // Manifests of the image were not asked for, only what may be its signature.
    let asked = world.asked(0);
    assert!(!asked.contains(&"1".to_owned()) && asked.iter().any(|path| path.ends_with(".sig")), "{asked:?}");
    assert!(!world.server.seen().iter().any(|seen| seen.path.ends_with(&format!("manifests/{digest}"))));

    let large = vec![b'x'; (4 << 20) + 1];
    for (name, manifest, wanted) in [
        (":2", IMAGE, "Rejected identity-mismatch"),
        (":1", OTHER, "Rejected unsigned"),
        (":1", &[IMAGE, b" "].concat(), "Rejected unsigned"),
        (":1", b"", "Rejected unsigned"),
        (":1", &large[1..], "Rejected unsigned"),
        (":1", &large, "ManifestTooLarge evidence-too-large"),
        (&format!("@{}", Digest::sha256(OTHER)), IMAGE, "DigestMismatch digest-mismatch"),
    ] {
        let found = by_bytes(&verifier, &world.name(name), file(manifest), Dictionary::new()).await;
        assert_eq!(found.unwrap_err(), wanted, "{name} {}", manifest.len());
    }
    let found = by_bytes(&verifier, "docker-daemon:a/b:1", file(IMAGE), Dictionary::new()).await;
    assert_eq!(found.unwrap_err(), "UnsupportedTransport unsupported-transport");
}

/// Rules M-5, M-7: what is fetched by digest may come from mirrors for digests, whatever the name has.
#[tokio::test]
async fn mirrors_for_digests_are_asked_for_digests() {
    let mut world = World::new("matchExact").await;
    let host = world.server.host.clone();
    let identity =
        json!({"type": "remapIdentity", "prefix": "logical.example", "signedPrefix": format!("{host}")});
    let policy = json!({"default": [world.key.requirement(&identity)]});
    fs::write(world.rig.path().join("policy.json"), policy.to_string()).unwrap();
    let conf = world.rig.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"logical.example\"\nlocation = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"{host}\"\npull-from-mirror = \"digest-only\"\n"
    );
    fs::write(&conf, text).unwrap();
    world.rig.settings.configuration.registries_conf = RegistriesConfSource::Explicit(conf);
    let verifier = world.rig.verifier().await;
    let (name, digest) = ("docker://logical.example/ns/app:1", Digest::sha256(IMAGE).to_string());
    let details = by_digest(&verifier, name, &digest, Dictionary::new()).await.unwrap();
    assert_eq!(text_of(&details, "source"), Some(format!("docker://{host}/ns/app@{digest}")));
    assert_eq!(details.value("pinned-reference-accepted"), Some(&Variant::Bool(true)));
    assert_eq!(
        text_of(&details, "pinned-reference"),
        Some(format!("docker://logical.example/ns/app@{digest}"))
    );
    // The tag is where the mirror is not asked, and signatures of a manifest are where it belongs.
    let before = world.server.count();
    let checked = Dictionary::new().with("check-tag", true);
    let found = by_digest(&verifier, name, &digest, checked).await;
    assert_eq!(found.unwrap_err(), "RegistryUnavailable registry-unavailable");
    let found = by_bytes(&verifier, name, file(IMAGE), Dictionary::new()).await;
    assert_eq!(found.unwrap_err(), "RegistryUnavailable registry-unavailable");
    assert_eq!(world.server.count(), before);
}

/// T-27: only what can be read without waiting for anybody.
#[tokio::test]
async fn what_is_no_ordinary_file_is_not_read() {
    let world = World::new("matchExact").await;
    let verifier = world.rig.verifier().await;
    let path = world.rig.path().join("manifest");
    fs::write(&path, IMAGE).unwrap();
    let opened = |flags: i32, path: &Path| -> OwnedFd {
        OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap().into()
    };
    let (pipe, _writer) = std::io::pipe().unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let write_only: OwnedFd = OpenOptions::new().write(true).open(&path).unwrap().into();
    let path_only: OwnedFd = opened(nix::fcntl::OFlag::O_PATH.bits(), &path);
    for (what, descriptor) in [
        ("pipe", pipe.into()),
        ("socket", socket.into()),
        ("directory", opened(0, world.rig.path())),
        ("device", opened(0, Path::new("/dev/zero"))),
        ("process", opened(0, Path::new("/proc/self/status"))),
        ("path", path_only),
        ("write", write_only),
    ] {
        let found = by_bytes(&verifier, &world.name(":1"), descriptor, Dictionary::new()).await;
        assert_eq!(found.unwrap_err(), "BadFileDescriptor descriptor-invalid", "{what}");
        let (pipe, _writer) = std::io::pipe().unwrap();
        let options = Dictionary::new().with("signatures", descriptors([pipe.into()]));
        let found = by_bytes(&verifier, &world.name(":1"), file(IMAGE), options).await;
        assert_eq!(found.unwrap_err(), "BadFileDescriptor descriptor-invalid");
    }
    assert_eq!(world.server.count(), 0);
    // A file that shrinks to nothing after it was handed over is what it is when it is read.
    let shrunk = File::options().read(true).write(true).open(&path).unwrap();
    shrunk.set_len(0).unwrap();
    let found = by_bytes(&verifier, &world.name(":1"), shrunk.into(), Dictionary::new()).await;
    assert_eq!(found.unwrap_err(), "Rejected unsigned");
}

#[tokio::test]
async fn signatures_of_the_caller_are_all_that_counts() {
    let world = World::new("matchExact").await;
    let verifier = world.rig.verifier().await;
    let with = |blobs: &[&[u8]]| {
        Dictionary::new().with("signatures", descriptors(blobs.iter().map(|blob| file(blob))))
    };
    let (good, other) = (world.blob(IMAGE), world.blob(OTHER));
    let details = by_bytes(&verifier, &world.name(":1"), file(IMAGE), with(&[&other, &good])).await.unwrap();
    assert_eq!(details.value("authenticated"), Some(&Variant::Bool(true)));
    assert_eq!(details.value("requests"), Some(&Variant::U64(0)));
    // Nobody knows what others would find.
    assert_eq!(details.value("pinned-reference-accepted"), None);
    assert_eq!(format!("{:?}", details.value("would-accept")).matches("Bool").count(), 0, "{details:?}");
    let many: Vec<&[u8]> = vec![&good; 17];
    let large = vec![b'{'; (4 << 20) + 1];
    for (name, manifest, options, wanted) in [
        // The registry has one that would count.
        (":1", IMAGE, with(&[]), "Rejected unsigned"),
        (":1", IMAGE, with(&[&other]), "Rejected digest-mismatch"),
        (":2", IMAGE, with(&[&good]), "Rejected identity-mismatch"),
        (":1", OTHER, with(&[&good]), "Rejected digest-mismatch"),
        (":1", IMAGE, with(&[b""]), "InvalidArgs usage"),
        (":1", IMAGE, with(&[b"<html>"]), "InvalidArgs usage"),
        (":1", IMAGE, with(&[&good, b"\0sigstore-json\n"]), "InvalidArgs usage"),
        (":1", IMAGE, with(&[b"{}"]), "Rejected bundle-malformed"),
        (":1", IMAGE, with(&[&large]), "ManifestTooLarge evidence-too-large"),
        // All together are more than one verification may hold.
        (":1", IMAGE, with(&[&large[1..]; 9]), "ManifestTooLarge evidence-too-large"),
        (":1", IMAGE, with(&many), "InvalidArgs usage"),
    ] {
        let found = by_bytes(&verifier, &world.name(name), file(manifest), options).await;
        assert_eq!(found.map(|_| ()).unwrap_err(), wanted, "{name}");
    }
    assert_eq!(world.server.count(), 0);
}

#[tokio::test]
async fn a_bundle_can_be_handed_over() {
    let key = KeyPair::generate().unwrap();
    let data = crate::signer::base64(key.public_key_pem().as_bytes());
    let requirement = |identity: &str| json!({"type": "sigstoreSigned", "keyData": data, "signedIdentity": {"type": identity}});
    let signed = |digest: &Digest| {
        let payload = statement(digest).to_string().into_bytes();
        let content = Content::Dsse { payload_type: IN_TOTO, payload: &payload };
        bundle(&content, Who::Key(&key)).to_string().into_bytes()
    };
    let right = signed(&Digest::sha256(IMAGE));
    let wrong = signed(&Digest::sha256(OTHER));
    let unnamed = "matchRepositoryOrUnnamed";
    let open = "default-docker: {use-sigstore-attachments: true}";
    // Who hands signatures over gets past nothing that the administrator keeps shut (design decision 3.4, rule M-8).
    let blocked = "[[registry]]\nlocation = \"registry.invalid\"\nblocked = true\n";
    for (identity, blob, yaml, conf, wanted) in [
        (unnamed, &right, open, "", Ok(())),
        (unnamed, &wrong, open, "", Err("Rejected bundle-subject")),
        ("matchRepository", &right, open, "", Err("Rejected identity-not-signed")),
        (
            unnamed,
            &right,
            "default-docker: {use-sigstore-attachments: false}",
            "",
            Err("Rejected attachments-disabled"),
        ),
        (unnamed, &right, "", "", Err("Rejected attachments-disabled")),
        (unnamed, &right, "[", "", Err("ConfigurationInvalid registries-d-invalid")),
        (unnamed, &right, open, "[[", Err("ConfigurationInvalid registries-conf-invalid")),
        (unnamed, &right, open, blocked, Err("BLOCKED")),
    ] {
        let mut rig = Rig::new(&json!({"default": [requirement(identity)]}).to_string());
        fs::write(rig.registries_d().join("all.yaml"), yaml).unwrap();
        let file_of_registries = rig.path().join("registries.conf");
        fs::write(&file_of_registries, conf).unwrap();
        rig.settings.configuration.registries_conf = RegistriesConfSource::Explicit(file_of_registries);
        let verifier = rig.verifier().await;
        let options = Dictionary::new().with("signatures", descriptors([file(blob)]));
        let found = by_bytes(&verifier, "docker://registry.invalid/ns/app:1", file(IMAGE), options).await;
        let found = found.map(|_| ());
        if wanted == Err("BLOCKED") {
            assert!(found.clone().unwrap_err().ends_with(" registry-blocked"), "{found:?}");
        } else {
            assert_eq!(found, wanted.map_err(str::to_owned), "{identity} {yaml} {conf}");
        }
    }
}

/// Of an index that was handed over nobody has the instance.
#[tokio::test]
async fn an_index_of_the_caller_is_judged_by_itself() {
    let world = World::new("matchExact").await;
    let verifier = world.rig.verifier().await;
    let signed = world.blob(&world.index);
    // Without a type of its own it is no image either.
    let untyped = String::from_utf8(world.index.clone())
        .unwrap()
        .replace("\"mediaType\":\"application/vnd.oci.image.index.v1+json\",", "");
    assert_ne!(untyped.len(), world.index.len());
    let unnamed_signed = world.blob(untyped.as_bytes());
    for (manifest, signature) in [(&world.index[..], &signed), (untyped.as_bytes(), &unnamed_signed)] {
        for (subject, wanted) in [
            ("either", Ok(Digest::sha256(manifest).to_string())),
            ("top-level", Ok(Digest::sha256(manifest).to_string())),
            ("instance", Err("UnsupportedRequirement unsupported".to_owned())),
            ("both", Err("UnsupportedRequirement unsupported".to_owned())),
        ] {
            let options = Dictionary::new()
                .with("subject", Str::from(subject))
                .with("signatures", descriptors([file(signature)]));
            let found = by_bytes(&verifier, &world.name(":1"), file(manifest), options).await;
            let found = found.map(|details| text_of(&details, "manifest-digest").unwrap());
            assert_eq!(found, wanted, "{subject}");
        }
    }
    // What is an index and an image at once is neither, and so is an image with instances.
    let index = String::from_utf8(world.index.clone()).unwrap();
    let both = index.replacen('{', r#"{"config":{},"layers":[],"#, 1);
    let disguised = index.replacen(OCI_INDEX, OCI, 1);
    for manifest in [both, disguised] {
        assert_ne!(manifest, index);
        let signature = file(&world.blob(manifest.as_bytes()));
        let options = Dictionary::new().with("signatures", descriptors([signature]));
        let found = by_bytes(&verifier, &world.name(":1"), file(manifest.as_bytes()), options).await;
        assert_eq!(found.unwrap_err(), "Rejected manifest-invalid", "{manifest}");
    }
    assert_eq!(world.server.count(), 0);
}

/// T-25: neither stored credentials nor the client certificate of the host are shown.
#[tokio::test]
async fn nobody_is_anybody_who_asks_so() {
    let certificates = server::Rig::new();
    certificates.add_client_certificate("client");
    let registry = certificates
        .server_named("127.0.0.1", Some(server::ClientCertificate::Accepted), |_, seen| {
            match seen.header("authorization") {
                Some(_) => Reply::manifest(IMAGE),
                None => Reply::challenge("Basic realm=\"r\""),
            }
        })
        .await;
    let mut rig = Rig::new(r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    rig.settings.registry.cert_dir = Some(certificates.certs());
    rig.settings.registry.auth = certificates.login(&registry, "u:pass");
    let verifier = rig.verifier().await;
    let image = format!("docker://{}/ns/app:1", registry.host);
    let lax = || Dictionary::new().with("require-signature", false);
    verifier.verify_image(&image, lax().with("anonymous", false)).await.unwrap();
    assert!(registry.seen().iter().any(|seen| seen.header("authorization").is_some()));
    assert!(registry.seen().iter().all(|seen| seen.client_certificate));
    let before = registry.count();
    let error = verifier.verify_image(&image, lax().with("anonymous", true)).await.unwrap_err();
    assert_eq!(short(&error), "RegistryAuth registry-auth");
    let seen = &registry.seen()[before..];
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none() && !seen.client_certificate));
    let descriptor = OwnedVariant::try_from(Variant::Fd(file(b"{}").into())).unwrap();
    let both = lax().with("anonymous", true).with("auth-file", descriptor);
    assert_eq!(short(&verifier.verify_image(&image, both).await.unwrap_err()), "InvalidArgs usage");
}
