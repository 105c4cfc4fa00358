//! Skopeo and vouchd asked the same questions: policy × image × configuration, in a registry with TLS and a password.
//!
//! Simple signing is judged by the installed skopeo; all rows are judged by the skopeo of a Debian 13 tree, which
//! `VOUCHD_TEST_TRIXIE` names, because Debian 12 builds skopeo without sigstore verification. Rows say which code is
//! expected of us and words of the reason that is expected of skopeo, so that nobody agrees by failing otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use vouchd::manifest::{OCI_INDEX, OCI_MANIFEST};

use crate::live::{NOW, Protection, Registry, SigningKey, signed_by};
use crate::support::{Gpg, Ran, cosign, have, say, simple_signing, skip, vouchd, write};

/// Whether vouchd reads registries.conf; if not, only skopeo answers the rows that have one.
const REGISTRIES_CONF: bool = true;

/// The least number of rows that are compared.
const ROWS: usize = if REGISTRIES_CONF { 215 } else { 180 };

/// Whose verdict a row is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skopeo {
    /// Every version that there is.
    Any,
    /// That of Debian 13: older ones lack what the row is about.
    Debian13,
}

/// One question, and the answer that is expected.
struct Row {
    name: &'static str,
    skopeo: Skopeo,
    policy: Value,
    image: String,
    /// Names and content of the files, if not those that everybody has.
    registries_d: Option<Vec<(&'static str, String)>>,
    registries_conf: Option<String>,
    /// "allowed", or our code.
    code: &'static str,
    /// What skopeo says where it refuses.
    reason: &'static str,
    /// The case in divergences.json, where we refuse what skopeo allows.
    stricter: Option<&'static str>,
    /// Whether `--cert-dir` has the authority of the registry.
    trusted: bool,
}

impl Row {
    fn new(name: &'static str, policy: Value, image: &str, code: &'static str) -> Self {
        Self {
            name,
            skopeo: Skopeo::Any,
            policy,
            image: image.to_owned(),
            registries_d: None,
            registries_conf: None,
            code,
            reason: reason(code),
            stricter: None,
            trusted: true,
        }
    }

    /// Uses these instead of the files that have the signatures of this test.
    fn registries_d(mut self, files: &[(&'static str, Value)]) -> Self {
        // JSON is YAML.
        self.registries_d = Some(files.iter().map(|(name, content)| (*name, content.to_string())).collect());
        self
    }

    fn registries_conf(mut self, text: &str) -> Self {
        self.registries_conf = Some(text.to_owned());
        self
    }

    fn since_debian_13(mut self) -> Self {
        self.skopeo = Skopeo::Debian13;
        self
    }

    /// Skopeo refuses with other words than usual.
    fn reason(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self
    }

    fn stricter(mut self, case: &'static str) -> Self {
        self.stricter = Some(case);
        self
    }

    fn untrusted(mut self) -> Self {
        self.trusted = false;
        self
    }
}

/// Words of skopeo's message where we answer with this code. `Summary` is what gpgme says, in bits.
fn reason(code: &str) -> &'static str {
    match code {
        "allowed" => "",
        "bad-signature" => "cryptographic signature verification failed",
        "digest-mismatch" => "does not match",
        "identity-mismatch" => "is not accepted",
        "image-not-found" => "manifest unknown",
        "invalid-reference" => "references with both a tag and digest",
        "key-expired" => "Summary:32,",
        "key-file-invalid" => "parsing public key",
        "key-file-unreadable" => "no such file or directory",
        "key-revoked" => "Summary:16,",
        "key-unknown" => "Summary:128,",
        "malformed-payload" => "Unrecognized signature type",
        "malformed-signature" => "parsing signature",
        "no-matching-platform" => "no image found in",
        "policy-invalid" => "invalid policy in",
        "registries-conf-invalid" => "loading registries configuration",
        "registries-d-invalid" => "defined both in",
        "registry-blocked" => "is blocked in",
        "registry-protocol" => "unexpected MIME type",
        "registry-unavailable" => "connection refused",
        "rejected-by-policy" => "is rejected by policy",
        "signature-expired" => "Summary:64,",
        "tls-error" => "certificate signed by unknown authority",
        "unsigned" | "attachments-disabled" => "A signature was required, but no signature exists",
        // Each of these has a reason of its own.
        _ => "",
    }
}

/// The registries, their images, and the keys.
struct World {
    registry: Registry,
    mirror: Registry,
    plain: Registry,
    good: Gpg,
    other: Gpg,
    cosign: SigningKey,
    cosign_other: SigningKey,
}

/// One that signs with gpg.
const GOOD: &str = "good@example";
const OTHER: &str = "other@example";

impl World {
    fn new() -> Option<Self> {
        let registry = Registry::start(Protection::TlsAndPassword)?;
        let mirror = Registry::start(Protection::TlsAndPassword)?;
        let plain = Registry::start(Protection::None)?;
        let (good, other) = (Gpg::new(), Gpg::new());
        good.key(GOOD, "never", NOW);
        other.key(OTHER, "never", NOW);
        let (cosign, cosign_other) = (SigningKey::new(), SigningKey::new());
        let world = Self { registry, mirror, plain, good, other, cosign, cosign_other };
        fs::copy(world.mirror.path("certs/ca.crt"), world.path("certs/mirror.crt")).unwrap();
        fs::create_dir(world.path("no-certs")).unwrap();
        let mut auths = world.registry.auth("secret");
        auths.as_object_mut().unwrap().extend(world.mirror.auth("secret").as_object().unwrap().clone());
        write(world.path("auth.json"), json!({ "auths": auths }).to_string());
        write(world.path("keys/good.gpg"), world.good.export(GOOD));
        write(world.path("keys/good.asc"), world.good.run(&["--armor", "--export", GOOD], b""));
        write(world.path("keys/other.gpg"), world.other.export(OTHER));
        write(world.path("keys/all.gpg"), [world.other.export(OTHER), world.good.export(GOOD)].concat());
        write(world.path("keys/garbage.gpg"), "this is no key\n");
        write(world.path("keys/good.pub"), world.cosign.pem());
        write(world.path("keys/other.pub"), world.cosign_other.pem());
        write(world.path("keys/all.pub"), world.cosign_other.pem() + &world.cosign.pem());
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.registry.path(name)
    }

    fn host(&self) -> String {
        self.registry.host()
    }

    fn key(&self, name: &str) -> PathBuf {
        self.path(&format!("keys/{name}"))
    }

    fn good(&self) -> Value {
        signed_by(&self.key("good.gpg"))
    }

    fn other(&self) -> Value {
        signed_by(&self.key("other.gpg"))
    }

    /// `NAME` in the registry of this world.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Pushes an image and stores signatures of it that name `claims`; returns its digest.
    fn signed(&self, repository: &str, claims: &[(&Gpg, &str, &str)]) -> String {
        let digest = self.registry.push(repository, "1", repository);
        self.sign(repository, &digest, claims);
        digest
    }

    fn sign(&self, repository: &str, digest: &str, claims: &[(&Gpg, &str, &str)]) {
        let sign =
            |(gpg, user, claim): &(&Gpg, &str, &str)| gpg.sign(user, &[], &simple_signing(claim, digest));
        let signatures: Vec<Vec<u8>> = claims.iter().map(sign).collect();
        self.registry.store(repository, digest, &signatures);
    }

    /// Pushes an image and attaches signatures of it that name `claims`; returns its digest.
    fn attached(&self, repository: &str, claims: &[(&SigningKey, &str)]) -> String {
        let digest = self.registry.push(repository, "1", repository);
        self.attach(repository, &digest, claims);
        digest
    }

    fn attach(&self, repository: &str, digest: &str, claims: &[(&SigningKey, &str)]) {
        let layers: Vec<_> = claims.iter().map(|(key, claim)| key.sign(claim, digest)).collect();
        self.registry.attach(repository, digest, &layers);
    }

    /// A base URL for lookaside signatures.
    fn store(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }
}

/// A policy for registries: these requirements, and nothing else is allowed.
fn only(requirements: &[Value]) -> Value {
    scopes(&[("", requirements.to_vec().into())])
}

/// A policy with these scopes of registries, and nothing else is allowed.
fn scopes(scopes: &[(&str, Value)]) -> Value {
    let scopes: serde_json::Map<String, Value> =
        scopes.iter().map(|(scope, requirements)| ((*scope).to_owned(), requirements.clone())).collect();
    json!({ "default": [reject()], "transports": { "docker": scopes } })
}

fn anything() -> Value {
    json!({ "type": "insecureAcceptAnything" })
}

fn reject() -> Value {
    json!({ "type": "reject" })
}

/// The requirement with another member.
fn with(mut requirement: Value, name: &str, value: impl Into<Value>) -> Value {
    requirement[name] = value.into();
    requirement
}

/// The requirement with this signedIdentity.
fn identity(requirement: Value, kind: &str, members: Value) -> Value {
    with(requirement, "signedIdentity", with(members, "type", kind))
}

// Rules E-4, E-5, E-10 to E-13, E-15, E-20, G-1 to G-4, I-1 to I-9, B-1, B-3, B-5, P-22 to P-26, P-51, P-53.
#[rustfmt::skip]
fn simple_signing_rows(world: &World) -> Vec<Row> {
    let name = |name: &str| world.name(name);
    let (good, other) = (&world.good, &world.other);
    let trusted = || world.good();
    let exact = |kind: &str| identity(world.good(), kind, json!({}));
    let registry = &world.registry;

    let signed = world.signed("app/good", &[(good, GOOD, &name("app/good:1"))]);
    let by_digest = format!("app/good@{signed}");
    let unsigned = registry.push("app/unsigned", "1", "unsigned");
    world.signed("app/other", &[(other, OTHER, &name("app/other:1"))]);
    world.signed("app/second", &[(other, OTHER, &name("app/second:1")), (good, GOOD, &name("app/second:1"))]);
    world.signed("app/tag", &[(good, GOOD, &name("app/tag:2"))]);
    world.signed("app/elsewhere", &[(good, GOOD, &name("app/good:1"))]);
    world.signed("app/nowhere", &[(good, GOOD, &name("app/nowhere"))]);
    world.signed("app/nameless", &[(good, GOOD, "")]);
    world.signed("app/vendor", &[(good, GOOD, "vendor.example/os/vendor:1")]);
    world.signed("app/late", &[(good, GOOD, &name("app/late:2")), (good, GOOD, &name("app/late:1"))]);
    let pinned = registry.push("app/pinned", "1", "pinned");
    let pinned_name = format!("app/pinned@{pinned}");
    world.sign("app/pinned", &pinned, &[(good, GOOD, &name(&pinned_name))]);
    let tampered = registry.push("app/tampered", "1", "tampered");
    let payload = simple_signing(&name("app/tampered:1"), &signed);
    registry.store("app/tampered", &tampered, &[good.sign(GOOD, &[], &payload)]);
    // Pushes an image with what is made of the payload that would be right.
    let stored = |image: &str, make: &dyn Fn(&[u8]) -> Vec<Vec<u8>>| {
        let repository = format!("app/{image}");
        let digest = registry.push(&repository, "1", image);
        registry.store(
            &repository,
            &digest,
            &make(&simple_signing(&name(&format!("{repository}:1")), &digest)),
        );
    };
    let signing =
        |options: &'static [&'static str]| move |payload: &[u8]| vec![good.sign(GOOD, options, payload)];
    let page = || b"<html>not found</html>".to_vec();
    stored("forged", &|payload| {
        // The last byte belongs to the signature itself.
        let mut forged = good.sign(GOOD, &["--compress-algo", "none"], payload);
        *forged.last_mut().unwrap() ^= 1;
        vec![forged]
    });
    stored("truncated", &|payload| {
        let whole = good.sign(GOOD, &["--compress-algo", "none"], payload);
        vec![whole[..whole.len() / 2].to_vec()]
    });
    stored("page", &|_| vec![page()]);
    stored("empty", &|_| vec![Vec::new()]);
    stored("damaged", &|payload| vec![good.sign(GOOD, &[], payload), page()]);
    stored("armored", &signing(&["--armor"]));
    stored("stale", &signing(&["--faked-system-time", "20260101T010000!", "--default-sig-expire", "1d"]));
    stored("sha1", &signing(&["--digest-algo", "SHA1"]));
    stored("detached", &|payload| vec![good.run(&["--local-user", GOOD, "--detach-sign"], payload)]);
    stored("literal", &|payload| vec![good.run(&["--store"], payload)]);
    let forced = registry.push("app/cosign", "1", "cosign");
    registry.store("app/cosign", &forced, &[good.sign(GOOD, &[], &cosign(&name("app/cosign:1"), &forced))]);
    let expired = Gpg::new();
    expired.key("expired@example", "1d", NOW);
    let old = registry.push("app/old", "1", "old");
    let faked = ["--faked-system-time", "20260101T010000!"];
    let payload = simple_signing(&name("app/old:1"), &old);
    registry.store("app/old", &old, &[expired.sign("expired@example", &faked, &payload)]);
    write(world.path("keys/expired.gpg"), expired.export("expired@example"));
    let revoked = Gpg::new();
    revoked.key("revoked@example", "never", NOW);
    world.signed("app/withdrawn", &[(&revoked, "revoked@example", &name("app/withdrawn:1"))]);
    revoked.revoke();
    write(world.path("keys/revoked.gpg"), revoked.export("revoked@example"));
    // OCI leaves it to the publisher whether a manifest names its type.
    let mut manifest = registry.image("app/untyped", "untyped");
    manifest.as_object_mut().unwrap().remove("mediaType");
    let untyped = registry.push_manifest("app/untyped", "1", OCI_MANIFEST, &manifest);
    world.sign("app/untyped", &untyped, &[(good, GOOD, &name("app/untyped:1"))]);

    let key_data = |bytes: Vec<u8>| json!({ "type": "signedBy", "keyType": "GPGKeys", "keyData": STANDARD.encode(bytes) });
    let key_paths = |names: &[&str]| {
        let paths: Vec<PathBuf> = names.iter().map(|name| world.key(name)).collect();
        json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPaths": paths })
    };
    let by = |key: &str| signed_by(&world.key(key));
    let remap = |prefix: &str, signed: &str| {
        identity(world.good(), "remapIdentity", json!({ "prefix": prefix, "signedPrefix": signed }))
    };
    let reference = |name: &str| identity(world.good(), "exactReference", json!({ "dockerReference": name }));
    let repository =
        |name: &str| identity(world.good(), "exactRepository", json!({ "dockerRepository": name }));
    let row =
        |what, requirements: &[Value], image: &str, code| Row::new(what, only(requirements), image, code);
    vec![
        row("anything is accepted", &[anything()], "app/unsigned:1", "allowed"),
        row("everything is rejected", &[reject()], "app/good:1", "rejected-by-policy"),
        row("accept and reject", &[anything(), reject()], "app/good:1", "rejected-by-policy"),
        row("signed, by tag", &[trusted()], "app/good:1", "allowed"),
        row("signed, by digest", &[trusted()], &by_digest, "allowed"),
        row("signed, another tag is wanted", &[trusted()], "app/good:2", "image-not-found"),
        row("tag and digest at once", &[trusted()], &format!("app/good:1@{signed}"), "invalid-reference"),
        row("unsigned, by tag", &[trusted()], "app/unsigned:1", "unsigned"),
        row("unsigned, by digest", &[trusted()], &format!("app/unsigned@{unsigned}"), "unsigned"),
        row("signed by somebody else", &[trusted()], "app/other:1", "key-unknown"),
        row("another key is wanted", &[world.other()], "app/good:1", "key-unknown"),
        row("several signatures, a bad one first", &[trusted()], "app/second:1", "allowed"),
        row("several signatures, the wrong name first", &[trusted()], "app/late:1", "allowed"),
        row("several signatures, none by this key", &[by("expired.gpg")], "app/second:1", "key-unknown"),
        row("two requirements, two signatures", &[trusted(), world.other()], "app/second:1", "allowed"),
        row("two requirements, one signature", &[trusted(), world.other()], "app/good:1", "key-unknown"),
        row("two requirements, one signature, in the other order", &[world.other(), trusted()], "app/good:1", "key-unknown"),
        row("signed, and anything is accepted too", &[anything(), trusted()], "app/unsigned:1", "unsigned"),
        row("keyData", &[key_data(world.good.export(GOOD))], "app/good:1", "allowed"),
        row("keyData of another key", &[key_data(world.other.export(OTHER))], "app/good:1", "key-unknown"),
        row("keyPaths, the second signed", &[key_paths(&["other.gpg", "good.gpg"])], "app/good:1", "allowed").since_debian_13(),
        row("keyPaths, none signed", &[key_paths(&["other.gpg", "expired.gpg"])], "app/good:1", "key-unknown").since_debian_13(),
        row("keyPaths, one is missing", &[key_paths(&["good.gpg", "none.gpg"])], "app/good:1", "key-file-unreadable").since_debian_13(),
        row("a key file in ASCII armor", &[by("good.asc")], "app/good:1", "allowed"),
        row("a key file with several keys", &[by("all.gpg")], "app/good:1", "allowed"),
        row("a key file that is missing", &[by("none.gpg")], "app/good:1", "key-file-unreadable"),
        row("a key file that is none", &[by("garbage.gpg")], "app/good:1", "key-file-invalid").reason("No public keys imported"),
        row("a key that expired", &[by("expired.gpg")], "app/old:1", "key-expired"),
        row("a key that was revoked", &[by("revoked.gpg")], "app/withdrawn:1", "key-revoked"),
        row("a signature that expired", &[trusted()], "app/stale:1", "signature-expired"),
        row("a signature with SHA-1", &[trusted()], "app/sha1:1", "weak-algorithm").stricter("openpgp: a signature with SHA-1"),
        row("a type of key that is not implemented", &[with(trusted(), "keyType", "X509Certificates")], "app/good:1", "unsupported").reason("Unimplemented"),
        row("a signed base layer", &[json!({ "type": "signedBaseLayer", "baseLayerIdentity": { "type": "matchExact" } })], "app/good:1", "unsupported").reason("signedBaseLayer not implemented"),
        row("a policy with an unknown member", &[with(trusted(), "keyDatas", json!([]))], "app/good:1", "policy-invalid"),
        row("a policy without requirements", &[], "app/good:1", "policy-invalid"),
        row("a signature for another tag", &[trusted()], "app/tag:1", "identity-mismatch"),
        row("a signature for another repository", &[trusted()], "app/elsewhere:1", "identity-mismatch"),
        row("a signature without tag", &[trusted()], "app/nowhere:1", "identity-mismatch"),
        row("a signature without name", &[exact("matchRepository")], "app/nameless:1", "identity-mismatch"),
        row("a signature for another digest", &[trusted()], "app/tampered:1", "digest-mismatch"),
        row("a signature with a byte changed", &[trusted()], "app/forged:1", "bad-signature").reason("Summary:4,"),
        row("half a signature", &[trusted()], "app/truncated:1", "malformed-signature").reason("Source image rejected: "),
        row("a page instead of a signature", &[trusted()], "app/page:1", "malformed-signature"),
        row("nothing instead of a signature", &[trusted()], "app/empty:1", "malformed-signature").reason("empty signature blob"),
        row("a signature in ASCII armor", &[trusted()], "app/armored:1", "malformed-signature"),
        row("a good signature before a page", &[trusted()], "app/damaged:1", "malformed-signature"),
        row("a signature without content", &[trusted()], "app/detached:1", "malformed-signature").reason("Source image rejected: "),
        row("content without signature", &[trusted()], "app/literal:1", "malformed-signature").reason("Source image rejected: "),
        row("a payload of cosign, signed with gpg", &[trusted()], "app/cosign:1", "malformed-payload"),
        row("a manifest without type", &[trusted()], "app/untyped:1", "allowed"),
        row("matchExact, by tag", &[exact("matchExact")], "app/good:1", "allowed"),
        row("matchExact, by digest", &[exact("matchExact")], &by_digest, "identity-mismatch"),
        row("matchExact, signed by digest", &[exact("matchExact")], &pinned_name, "allowed"),
        row("matchExact, signed by digest, by tag", &[exact("matchExact")], "app/pinned:1", "identity-mismatch"),
        row("matchRepoDigestOrExact, by digest", &[exact("matchRepoDigestOrExact")], &by_digest, "allowed"),
        row("matchRepoDigestOrExact, signed by digest, by tag", &[trusted()], "app/pinned:1", "identity-mismatch"),
        row("matchRepository, another tag", &[exact("matchRepository")], "app/tag:1", "allowed"),
        row("matchRepository, without tag", &[exact("matchRepository")], "app/nowhere:1", "allowed"),
        row("matchRepository, another repository", &[exact("matchRepository")], "app/elsewhere:1", "identity-mismatch"),
        row("exactReference", &[reference("vendor.example/os/vendor:1")], "app/vendor:1", "allowed"),
        row("exactReference, another tag", &[reference("vendor.example/os/vendor:2")], "app/vendor:1", "identity-mismatch"),
        row("exactReference, of the image, not of the signature", &[reference(&name("app/vendor:1"))], "app/vendor:1", "identity-mismatch"),
        row("exactReference without tag", &[reference("vendor.example/os/vendor")], "app/vendor:1", "policy-invalid"),
        row("exactRepository", &[repository("vendor.example/os/vendor")], "app/vendor:1", "allowed"),
        row("exactRepository, another", &[repository("vendor.example/os")], "app/vendor:1", "identity-mismatch"),
        row("remapIdentity", &[remap(&name("app"), "vendor.example/os")], "app/vendor:1", "allowed"),
        row("remapIdentity to another name", &[remap(&name("app"), "vendor.example/other")], "app/vendor:1", "identity-mismatch"),
        row("remapIdentity of another name", &[remap(&name("ap"), "vendor.example/os")], "app/good:1", "allowed"),
        row("remapIdentity, not as it was signed", &[remap(&name("app"), "vendor.example/os")], "app/good:1", "identity-mismatch"),
        row("remapIdentity without port", &[remap("localhost", "vendor.example")], "app/vendor:1", "identity-mismatch"),
        row("remapIdentity with a tag", &[remap(&name("app:1"), "vendor.example/os")], "app/vendor:1", "policy-invalid"),
    ]
}

// Rules E-20, E-30 to E-32, E-35, I-4.
#[rustfmt::skip]
fn index_rows(world: &World) -> Vec<Row> {
    let good = &world.good;
    let sign = |repository: &str, digest: &str| {
        world.sign(repository, digest, &[(good, GOOD, &world.name(&format!("{repository}:1")))]);
    };
    let push = |repository: &str| world.registry.push_index(repository, "1", repository);
    let (index, _) = push("multi/index");
    sign("multi/index", &index);
    let (pinned, instance) = push("multi/instance");
    sign("multi/instance", &instance);
    let (both, both_instance) = push("multi/both");
    sign("multi/both", &both);
    sign("multi/both", &both_instance);
    push("multi/none");
    let (_, moved) = push("multi/moved");
    world.sign("multi/moved", &moved, &[(good, GOOD, &world.name("multi/instance:1"))]);
    let foreign = world.registry.push("multi/foreign", "@", "foreign");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{
            "mediaType": OCI_MANIFEST, "digest": foreign, "size": 1,
            "platform": { "os": "linux", "architecture": "s390x" },
        }],
    });
    world.registry.push_manifest("multi/foreign", "1", OCI_INDEX, &manifest);
    sign("multi/foreign", &foreign);

    let row = |what, image: &str, code| Row::new(what, only(&[world.good()]), image, code);
    vec![
        row("an index, itself signed", "multi/index:1", "unsigned"),
        row("an index, its instance signed", "multi/instance:1", "allowed"),
        row("an index by digest, its instance signed", &format!("multi/instance@{pinned}"), "allowed"),
        row("an instance by digest", &format!("multi/instance@{instance}"), "allowed"),
        row("an index, both signed", "multi/both:1", "allowed"),
        row("an index, nothing signed", "multi/none:1", "unsigned"),
        row("an index, its instance signed for another repository", "multi/moved:1", "identity-mismatch"),
        row("an index without this platform", "multi/foreign:1", "no-matching-platform"),
        Row::new("an index that is rejected", only(&[reject()]), "multi/both:1", "rejected-by-policy"),
        Row::new("an index, anything is accepted", only(&[anything()]), "multi/none:1", "allowed"),
    ]
}

// Rules S-2 to S-4, S-20, S-21.
#[rustfmt::skip]
fn scope_rows(world: &World) -> Vec<Row> {
    let (host, address) = (world.host(), world.registry.address());
    let signed = world.signed("scope/ns/app", &[(&world.good, GOOD, &world.name("scope/ns/app:1"))]);
    let by_digest = format!("scope/ns/app@{signed}");
    let (yes, no) = (json!([anything()]), json!([reject()]));
    let at = |scope: &str| world.name(scope);
    // Each wins over what stands below it.
    let order = [
        ("the scope of a tag", at("scope/ns/app:1")),
        ("the scope of a repository", at("scope/ns/app")),
        ("the scope of a namespace", at("scope/ns")),
        ("the scope of a namespace above", at("scope")),
        ("the scope of a registry", host.clone()),
        ("all registries", String::new()),
    ];
    let mut rows = Vec::new();
    for (n, (what, scope)) in order.iter().enumerate() {
        for (first, below, code) in [(&yes, &no, "allowed"), (&no, &yes, "rejected-by-policy")] {
            let below = order[n + 1..].iter().map(|(_, scope)| (scope.as_str(), below.clone()));
            let all: Vec<_> = std::iter::once((scope.as_str(), first.clone())).chain(below).collect();
            rows.push(Row::new(what, scopes(&all), "scope/ns/app:1", code));
        }
    }
    let row = |what, list: &[(&str, Value)], image: &str, code| Row::new(what, scopes(list), image, code);
    let loopback = format!("{address}/scope/ns/app:1");
    rows.extend([
        row("the scope of a digest", &[(&at(&by_digest), yes.clone()), (&host, no.clone())], &by_digest, "allowed"),
        row("the scope of a tag, by digest", &[(&at("scope/ns/app:1"), yes.clone()), (&host, no.clone())], &by_digest, "rejected-by-policy"),
        row("the scope of part of a name", &[(&at("scope/n"), yes.clone())], "scope/ns/app:1", "rejected-by-policy"),
        row("the scope of a registry without port", &[("localhost", yes.clone())], "scope/ns/app:1", "rejected-by-policy"),
        row("a wildcard", &[("*.0.0.1", yes.clone()), ("", no.clone())], &loopback, "allowed"),
        row("a longer wildcard", &[("*.0.0.1", yes.clone()), ("*.0.1", no.clone())], &loopback, "allowed"),
        row("a wildcard and a registry", &[("*.0.0.1", yes.clone()), (&address, no.clone())], &loopback, "rejected-by-policy"),
        row("a wildcard with port", &[(&format!("*.{}", &address[4..]), yes.clone())], &loopback, "rejected-by-policy"),
        row("a wildcard that is the registry", &[("*.127.0.0.1", yes.clone())], &loopback, "rejected-by-policy"),
        row("a signature that names the same registry otherwise", &[(&address, json!([world.good()]))], &loopback, "identity-mismatch"),
        Row::new("the default", json!({ "default": [anything()] }), "scope/ns/app:1", "allowed"),
        Row::new("the scopes of another transport", json!({ "default": [reject()], "transports": { "atomic": { "": [anything()] } } }), "scope/ns/app:1", "rejected-by-policy"),
    ]);
    rows
}

// Rules D-3 to D-9, D-11, K-1, K-2, K-4, K-5, K-7.
#[rustfmt::skip]
fn lookaside_rows(world: &World) -> Vec<Row> {
    let (host, address) = (world.host(), world.registry.address());
    let good = &world.good;
    world.signed("look/good", &[(good, GOOD, &world.name("look/good:1"))]);
    let gap = world.signed("look/gap", &[(good, GOOD, &world.name("look/gap:1"))]);
    let signature = |repository: &str, digest: &str, n: usize| {
        world.path(&format!("sigs/{repository}@{}/signature-{n}", digest.replace(':', "=")))
    };
    fs::rename(signature("look/gap", &gap, 1), signature("look/gap", &gap, 2)).unwrap();
    let folder = world.registry.push("look/folder", "1", "folder");
    fs::create_dir_all(signature("look/folder", &folder, 1)).unwrap();
    let crowd = |repository: &str, count: usize| {
        let digest = world.signed(repository, &[(good, GOOD, &world.name(&format!("{repository}:1")))]);
        for n in 2..=count {
            fs::copy(signature(repository, &digest, 1), signature(repository, &digest, n)).unwrap();
        }
    };
    crowd("look/many", 127);
    crowd("look/crowd", 128);

    let (sigs, none) = (world.store("sigs"), world.store("none"));
    let section = |url: &str| json!({ "lookaside": url });
    let default = |url: &str| json!({ "default-docker": section(url) });
    let row = |what, files: &[(&'static str, Value)], code| {
        Row::new(what, only(&[world.good()]), "look/good:1", code).registries_d(files)
    };
    let usual = |what, image, code| Row::new(what, only(&[world.good()]), image, code);
    let scoped = |scope: &str, inner: Value, outer: Value| {
        [("a.yaml", json!({ "docker": { scope: inner }, "default-docker": outer }))]
    };
    let loopback = format!("{address}/look/good:1");
    let mut by_address =
        row("a store for a wildcard", &scoped("*.0.0.1", section(&sigs), section(&none)), "allowed");
    by_address.image = loopback;
    by_address.policy = only(&[identity(
        world.good(),
        "exactReference",
        json!({ "dockerReference": world.name("look/good:1") }),
    )]);
    vec![
        usual("a gap before the first signature", "look/gap:1", "unsigned"),
        usual("a directory instead of a signature", "look/folder:1", "lookaside-unavailable").reason("is a directory"),
        usual("127 signatures", "look/many:1", "allowed"),
        usual("128 signatures", "look/crowd:1", "lookaside-unavailable").since_debian_13().reason("server provided 128 signatures"),
        row("no store", &[], "unsigned"),
        row("the default store", &[("a.yaml", default(&sigs))], "allowed"),
        row("a store of which the URL ends in a slash", &[("a.yaml", default(&format!("{sigs}/")))], "allowed"),
        row("a store that is not there", &[("a.yaml", default(&none))], "unsigned"),
        row("the name that a store had", &[("a.yaml", json!({ "default-docker": { "sigstore": sigs } }))], "allowed"),
        row("a store for writing", &[("a.yaml", json!({ "default-docker": { "lookaside-staging": sigs } }))], "unsigned"),
        row("a store for the registry", &scoped(&host, section(&sigs), section(&none)), "allowed"),
        row("another store for the repository", &scoped(&format!("{host}/look/good"), section(&none), section(&sigs)), "unsigned"),
        row("another store for another repository", &scoped(&format!("{host}/look/goo"), section(&none), section(&sigs)), "allowed"),
        row("a section without store", &scoped(&format!("{host}/look"), json!({ "use-sigstore-attachments": false }), section(&sigs)), "allowed"),
        by_address,
        row("a file that does not end in .yaml", &[("a.yml", default(&sigs))], "unsigned"),
        row("two files, one of them for the registry", &[("a.yaml", default(&none)), ("b.yaml", json!({ "docker": { &host: section(&sigs) } }))], "allowed"),
        row("two files with a default", &[("a.yaml", default(&sigs)), ("b.yaml", default(&sigs))], "registries-d-invalid"),
        row("a file that is not a mapping", &[("a.yaml", json!(["x"]))], "registries-d-invalid").reason("parsing registries.d/a.yaml"),
        row("a URL of another kind", &[("a.yaml", default("ftp://localhost/"))], "registries-d-invalid").reason("Unsupported scheme"),
        row("a path instead of a URL", &[("a.yaml", default(&world.path("sigs").display().to_string()))], "registries-d-invalid").since_debian_13().reason("Unsupported scheme"),
        Row::new("two files with a default, anything is accepted", only(&[anything()]), "look/good:1", "registries-d-invalid").registries_d(&[("a.yaml", default(&sigs)), ("b.yaml", default(&sigs))]),
    ]
}

// Rules A-1 to A-5, B-2, C-1 to C-6, C-10 to C-13, D-8, D-9, E-14, E-15, I-4 to I-10, K-10, P-31 to P-34, X-1, X-4.
#[rustfmt::skip]
fn sigstore_rows(world: &World) -> Vec<Row> {
    let name = |name: &str| world.name(name);
    let (key, other) = (&world.cosign, &world.cosign_other);
    let registry = &world.registry;
    let digest = world.attached("cos/good", &[(key, &name("cos/good:1"))]);
    registry.push("cos/unsigned", "1", "cos");
    world.attached("cos/other", &[(other, &name("cos/other:1"))]);
    world.attached("cos/second", &[(other, &name("cos/second:1")), (key, &name("cos/second:1"))]);
    world.attached("cos/strange", &[(other, &name("cos/strange:1")), (other, &name("cos/strange:2"))]);
    world.attached("cos/unnamed", &[(key, &name("cos/unnamed"))]);
    world.attached("cos/tag", &[(key, &name("cos/tag:2"))]);
    world.attached("cos/elsewhere", &[(key, &name("cos/good:1"))]);
    world.attached("cos/vendor", &[(key, "vendor.example/os/vendor:1")]);
    let tampered = registry.push("cos/tampered", "1", "tampered");
    registry.attach("cos/tampered", &tampered, &[key.sign(&name("cos/tampered:1"), &digest)]);
    let forged = registry.push("cos/forged", "1", "forged");
    let (_, signature) = key.sign(&name("cos/good:1"), &digest);
    registry.attach("cos/forged", &forged, &[(cosign(&name("cos/forged:1"), &forged), signature)]);
    let garbled = registry.push("cos/garbled", "1", "garbled");
    let (payload, _) = key.sign(&name("cos/garbled:1"), &garbled);
    registry.attach("cos/garbled", &garbled, &[(payload, "not base64".to_owned())]);
    let simple = registry.push("cos/simple", "1", "simple");
    registry.attach(
        "cos/simple",
        &simple,
        &[key.sign_payload(simple_signing(&name("cos/simple:1"), &simple))],
    );
    let (cos_index, _) = registry.push_index("cos/index", "1", "index");
    world.attach("cos/index", &cos_index, &[(key, &name("cos/index:1"))]);
    let (_, instance) = registry.push_index("cos/instance", "1", "instance");
    world.attach("cos/instance", &instance, &[(key, &name("cos/instance:1"))]);
    let both = world.signed("cos/both", &[(&world.good, GOOD, &name("cos/both:1"))]);
    world.attach("cos/both", &both, &[(key, &name("cos/both:1"))]);
    let kept = registry.push("cos/kept", "1", "kept");
    registry.store("cos/kept", &kept, &[stored(&key.sign(&name("cos/kept:1"), &kept))]);
    let mixed = registry.push("cos/mixed", "1", "mixed");
    let simple = world.good.sign(GOOD, &[], &simple_signing(&name("cos/mixed:1"), &mixed));
    registry.store("cos/mixed", &mixed, &[simple, stored(&key.sign(&name("cos/mixed:1"), &mixed))]);
    // What stands under the tag of attachments is of another type.
    let confused = world.signed("cos/confused", &[(&world.good, GOOD, &name("cos/confused:1"))]);
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = with(registry.image("cos/confused", "confusion"), "mediaType", docker);
    registry.push_manifest("cos/confused", &format!("{}.sig", confused.replace(':', "-")), docker, &manifest);
    let hollow = registry.push("cos/hollow", "1", "hollow");
    registry.push("cos/hollow", &format!("{}.sig", hollow.replace(':', "-")), "no layers");

    let attachments = |value: bool| json!({ "use-sigstore-attachments": value });
    let enabled =
        json!({ "default-docker": { "lookaside": world.store("sigs"), "use-sigstore-attachments": true } });
    let signed = |member: &str, value: Value| with(json!({ "type": "sigstoreSigned" }), member, value);
    let path = |key: &str| json!(world.key(key));
    let paths = |names: &[&str]| names.iter().map(|name| path(name)).collect::<Value>();
    let data = |key: &SigningKey| json!(STANDARD.encode(key.pem()));
    let trusted = || signed("keyPath", path("good.pub"));
    let by = |kind: &str, members: Value| identity(trusted(), kind, members);
    let row = |what, requirement: Value, image: &str, code| {
        Row::new(what, only(&[requirement]), image, code)
            .registries_d(&[("a.yaml", enabled.clone())])
            .since_debian_13()
    };
    let configured = |what, files: &[(&'static str, Value)], code| {
        Row::new(what, only(&[trusted()]), "cos/good:1", code).registries_d(files).since_debian_13()
    };
    let host = world.host();
    let mut two = row("signed with gpg and cosign", trusted(), "cos/both:1", "allowed");
    two.policy = only(&[world.good(), trusted()]);
    let mut one = row("signed with cosign, gpg is wanted too", trusted(), "cos/good:1", "unsigned");
    one.policy = only(&[world.good(), trusted()]);
    vec![
        row("cosign, by tag", trusted(), "cos/good:1", "allowed"),
        row("cosign, by digest", trusted(), &format!("cos/good@{digest}"), "allowed"),
        row("cosign, unsigned", trusted(), "cos/unsigned:1", "unsigned"),
        row("cosign, another key signed", trusted(), "cos/other:1", "bad-signature"),
        row("cosign, another key is wanted", signed("keyData", data(other)), "cos/good:1", "bad-signature"),
        row("cosign, a bad signature first", trusted(), "cos/second:1", "allowed"),
        row("cosign, several bad signatures", trusted(), "cos/strange:1", "bad-signature"),
        row("keyData with a public key", signed("keyData", data(key)), "cos/good:1", "allowed"),
        row("keyPaths with public keys, the second signed", signed("keyPaths", paths(&["other.pub", "good.pub"])), "cos/good:1", "allowed"),
        row("keyPaths with public keys, none signed", signed("keyPaths", paths(&["other.pub"])), "cos/good:1", "bad-signature"),
        row("keyPaths with public keys, one is missing", signed("keyPaths", paths(&["good.pub", "none.pub"])), "cos/good:1", "key-file-unreadable"),
        row("keyPaths, one is no public key", signed("keyPaths", paths(&["good.pub", "good.gpg"])), "cos/good:1", "key-file-invalid"),
        row("keyDatas, the second signed", signed("keyDatas", json!([data(other), data(key)])), "cos/good:1", "allowed"),
        row("keyDatas, none signed", signed("keyDatas", json!([data(other)])), "cos/good:1", "bad-signature"),
        row("a file with two public keys, of which the first counts", signed("keyPath", path("all.pub")), "cos/good:1", "bad-signature"),
        row("a file with two public keys, signed by the first", signed("keyPath", path("all.pub")), "cos/other:1", "allowed"),
        row("a certificate instead of a public key", signed("keyPath", json!(world.path("certs/ca.crt"))), "cos/good:1", "key-file-invalid"),
        row("two sources of public keys", with(trusted(), "keyData", data(key)), "cos/good:1", "policy-invalid"),
        row("no public keys", signed("keyDatas", json!([])), "cos/good:1", "policy-invalid"),
        row("cosign, for another tag", trusted(), "cos/tag:1", "identity-mismatch"),
        row("cosign, for another repository", trusted(), "cos/elsewhere:1", "identity-mismatch"),
        row("cosign, without tag", trusted(), "cos/unnamed:1", "identity-mismatch"),
        row("cosign, without tag, matchRepository", by("matchRepository", json!({})), "cos/unnamed:1", "allowed"),
        row("cosign, without tag, exactRepository", by("exactRepository", json!({ "dockerRepository": name("cos/unnamed") })), "cos/unnamed:1", "allowed"),
        row("cosign, matchRepository, another repository", by("matchRepository", json!({})), "cos/elsewhere:1", "identity-mismatch"),
        row("cosign, matchExact", by("matchExact", json!({})), "cos/good:1", "allowed"),
        row("cosign, matchExact, by digest", by("matchExact", json!({})), &format!("cos/good@{digest}"), "identity-mismatch"),
        row("cosign, exactReference", by("exactReference", json!({ "dockerReference": "vendor.example/os/vendor:1" })), "cos/vendor:1", "allowed"),
        row("cosign, exactReference, another tag", by("exactReference", json!({ "dockerReference": "vendor.example/os/vendor:2" })), "cos/vendor:1", "identity-mismatch"),
        row("cosign, remapIdentity", by("remapIdentity", json!({ "prefix": name("cos"), "signedPrefix": "vendor.example/os" })), "cos/vendor:1", "allowed"),
        row("cosign, remapIdentity, not as it was signed", by("remapIdentity", json!({ "prefix": name("cos"), "signedPrefix": "vendor.example/os" })), "cos/good:1", "identity-mismatch"),
        row("cosign, for another digest", trusted(), "cos/tampered:1", "digest-mismatch"),
        row("cosign, the signature of another image", trusted(), "cos/forged:1", "bad-signature"),
        row("cosign, a signature that is not base64", trusted(), "cos/garbled:1", "malformed-signature").reason("base64 decoding"),
        row("cosign, with the payload of simple signing", trusted(), "cos/simple:1", "malformed-payload"),
        row("cosign, an index, itself signed", trusted(), "cos/index:1", "unsigned"),
        row("cosign, an index, its instance signed", trusted(), "cos/instance:1", "allowed"),
        row("cosign, a log entry is wanted", with(trusted(), "rekorPublicKeyPath", path("other.pub")), "cos/good:1", "log-entry-missing").reason("missing dev.sigstore.cosign/bundle annotation"),
        two,
        one,
        row("signed with cosign, gpg is wanted", world.good(), "cos/good:1", "unsigned"),
        row("signed with gpg, cosign is wanted", trusted(), "app/good:1", "unsigned"),
        row("a signature of cosign in a lookaside store", trusted(), "cos/kept:1", "allowed"),
        row("signatures of both kinds in a lookaside store", trusted(), "cos/mixed:1", "allowed"),
        row("signatures of both kinds in a lookaside store, gpg is wanted", world.good(), "cos/mixed:1", "allowed"),
        row("attachments of another type", world.good(), "cos/confused:1", "registry-protocol"),
        row("attachments without layers", trusted(), "cos/hollow:1", "unsigned"),
        configured("attachments are not mentioned", &[], "attachments-disabled"),
        configured("attachments are disabled", &[("a.yaml", json!({ "default-docker": attachments(false) }))], "attachments-disabled"),
        configured("attachments are enabled for the registry", &[("a.yaml", json!({ "default-docker": attachments(false), "docker": { &host: attachments(true) } }))], "allowed"),
        configured("attachments are disabled for the repository", &[("a.yaml", json!({ "default-docker": attachments(true), "docker": { format!("{host}/cos"): attachments(false) } }))], "attachments-disabled"),
        configured("attachments are enabled, and the repository has a store", &[("a.yaml", json!({ "default-docker": attachments(true), "docker": { format!("{host}/cos"): { "lookaside": world.store("none") } } }))], "allowed"),
        configured("attachments are neither enabled nor disabled", &[("a.yaml", json!({ "default-docker": { "use-sigstore-attachments": "yes please" } }))], "registries-d-invalid").reason("parsing registries.d/a.yaml"),
    ]
}

/// A signature of cosign as a lookaside store has it, rules B-2 and B-4.
fn stored((payload, signature): &(Vec<u8>, String)) -> Vec<u8> {
    let body = json!({
        "mimeType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "payload": STANDARD.encode(payload),
        "annotations": { "dev.cosignproject.cosign/signature": signature },
    });
    format!("\0sigstore-json\n{body}").into_bytes()
}

// Rules D-10, M-1, M-3 to M-9, S-22.
#[rustfmt::skip]
fn registries_conf_rows(world: &World) -> Vec<Row> {
    let (host, mirror, plain) = (world.host(), world.mirror.host(), world.plain.host());
    // Nobody listens there, so whoever asks is refused at once.
    let down = "localhost:1";
    let good = &world.good;
    let sign =
        |repository: &str, digest: &str, claim: &str| world.sign(repository, digest, &[(good, GOOD, claim)]);
    let digest = world.mirror.push("conf/app", "1", "conf");
    sign("conf/app", &digest, &format!("{down}/conf/app:1"));
    let names = ["registry.example/conf/vendor:1", "registry.example/os/vendor:1"];
    world.signed("conf/vendor", &names.map(|name| (good, GOOD, name)));
    world.signed("conf/local", &[(good, GOOD, &world.name("conf/local:1"))]);
    // The mirror has something else under this name.
    world.mirror.push("conf/stray", "1", "stray");
    world.signed("conf/stray", &[(good, GOOD, &world.name("conf/stray:1"))]);
    let open = world.plain.push("conf/open", "1", "open");
    sign("conf/open", &open, &format!("{plain}/conf/open:1"));

    let trusted = || only(&[world.good()]);
    let row = |what, image: &str, code, conf: &str| Row::new(what, trusted(), image, code).registries_conf(conf);
    let at = |location: &str, more: &str| format!("[[registry]]\nlocation = \"{location}\"\n{more}\n");
    let moved = |prefix: &str, location: &str| at(location, &format!("prefix = \"{prefix}\""));
    let mirrors = |locations: &[&str]| -> String {
        locations.iter().map(|location| format!("[[registry.mirror]]\nlocation = \"{location}\"\n")).collect()
    };
    let (app, pinned) = (format!("{down}/conf/app:1"), format!("{down}/conf/app@{digest}"));
    let remapped = moved("registry.example", &host);
    let vendor = "registry.example/conf/vendor:1";
    let mirrored = at(down, &mirrors(&[&mirror]));
    let by_digest_only = at(down, &format!("mirror-by-digest-only = true\n{}", mirrors(&[&mirror])));
    let pull = |which: &str| at(down, &format!("{}pull-from-mirror = \"{which}\"", mirrors(&[&mirror])));
    let store = |scope: &str| {
        let none = json!({ "lookaside": world.store("none") });
        [("a.yaml", json!({ "docker": { scope: { "lookaside": world.store("sigs") } }, "default-docker": none }))]
    };
    let scope = |what, scope: &str, image: &str, code| Row::new(what, scopes(&[(scope, json!([anything()]))]), image, code);
    let remap = json!({ "prefix": "registry.example", "signedPrefix": host });
    let remap = only(&[identity(world.good(), "remapIdentity", remap)]);
    let blocked = "registries.conf: an image whose own entry is blocked and leads elsewhere";
    vec![
        row("a registry elsewhere", vendor, "allowed", &remapped),
        row("a registry elsewhere, named as it is there", "conf/vendor:1", "identity-mismatch", &remapped),
        row("a registry elsewhere, signed as it is named there", "registry.example/conf/local:1", "identity-mismatch", &remapped),
        scope("a registry elsewhere, the scope names the place", &host, vendor, "rejected-by-policy").registries_conf(&remapped),
        scope("a registry elsewhere, the scope names the name", "registry.example", vendor, "allowed").registries_conf(&remapped),
        row("a registry elsewhere, its store is that of the place", vendor, "allowed", &remapped).registries_d(&store(&host)),
        row("a registry elsewhere, its store is that of the name", vendor, "unsigned", &remapped).registries_d(&store("registry.example")),
        Row::new("a registry elsewhere, remapIdentity", remap, "registry.example/conf/local:1", "allowed").registries_conf(&remapped),
        row("a namespace elsewhere", "registry.example/os/vendor:1", "allowed", &moved("registry.example/os", &format!("{host}/conf"))),
        row("a wildcard elsewhere", vendor, "allowed", &moved("*.example", &host)),
        row("the longest prefix", vendor, "allowed", &(moved("registry.example", down) + &moved("registry.example/conf", &format!("{host}/conf")))),
        row("a mirror of a registry that is down", &app, "allowed", &mirrored),
        row("a mirror of a registry that is down, by digest", &pinned, "allowed", &mirrored),
        row("a mirror, its store is that of the mirror", &app, "allowed", &mirrored).registries_d(&store(&mirror)),
        row("a mirror, its store is that of the name", &app, "unsigned", &mirrored).registries_d(&store(down)),
        row("a second mirror", &app, "allowed", &at(down, &mirrors(&["localhost:2", &mirror]))),
        row("a mirror without the image", "conf/local:1", "allowed", &at(&host, &mirrors(&[&mirror]))),
        row("a mirror with an unsigned image", "conf/stray:1", "unsigned", &at(&host, &mirrors(&[&mirror]))),
        row("a mirror that is down", "conf/stray:1", "allowed", &at(&host, &mirrors(&["localhost:2"]))),
        row("a mirror for another name", "conf/stray:1", "allowed", &at(&format!("{host}/conf/str"), &mirrors(&[&format!("{mirror}/conf/str")]))),
        row("no mirror of a registry that is down", &app, "registry-unavailable", &at(down, "")),
        row("mirror-by-digest-only, by digest", &pinned, "allowed", &by_digest_only),
        row("mirror-by-digest-only, by tag", &app, "registry-unavailable", &by_digest_only),
        row("pull-from-mirror, by tag as it says", &app, "allowed", &pull("tag-only")).since_debian_13(),
        row("pull-from-mirror, by digest against what it says", &pinned, "registry-unavailable", &pull("tag-only")).since_debian_13(),
        row("pull-from-mirror, by tag against what it says", &app, "registry-unavailable", &pull("digest-only")).since_debian_13(),
        row("blocked", "conf/local:1", "registry-blocked", &at(&host, "blocked = true")),
        row("blocked, another name", "conf/local:1", "allowed", &at(&format!("{host}/conf/loc"), "blocked = true")),
        row("blocked by a longer prefix", "conf/local:1", "registry-blocked", &(at(&host, "") + &at(&format!("{host}/conf"), "blocked = true"))),
        row("blocked, with a mirror", &app, "registry-blocked", &at(down, &format!("blocked = true\n{}", mirrors(&[&mirror])))).stricter(blocked),
        row("blocked, with another location", vendor, "registry-blocked", &at(&host, "prefix = \"registry.example\"\nblocked = true")).stricter(blocked),
        row("insecure, over HTTP", &format!("{plain}/conf/open:1"), "allowed", &at(&plain, "insecure = true")),
        Row::new("over HTTP", trusted(), &format!("{plain}/conf/open:1"), "tls-error").reason("server gave HTTP response to HTTPS client"),
        row("insecure, an unknown authority", "conf/local:1", "allowed", &at(&host, "insecure = true")).untrusted(),
        Row::new("an unknown authority", trusted(), "conf/local:1", "tls-error").untrusted(),
        row("a mirror that cannot be named", "conf/local:1", "registries-conf-invalid", &at(&format!("{host}/conf/local"), &mirrors(&["localhost:2"]))).reason("rewriting reference"),
        row("a location with a scheme", "conf/local:1", "registries-conf-invalid", &at(&format!("https://{host}"), "")),
        row("a mirror without location", "conf/local:1", "registries-conf-invalid", &at(&host, "[[registry.mirror]]")),
        row("not TOML", "conf/local:1", "registries-conf-invalid", "[[registry"),
    ]
}

/// Where skopeo runs.
#[derive(Debug)]
enum Place {
    /// On this machine.
    Here,
    /// In a container of its own, on the tree of another Debian.
    Container(PathBuf),
    /// The same without systemd.
    Chroot(PathBuf),
}

impl Place {
    /// Debian 13, if there is a tree and a way to enter it; says so if not.
    fn debian_13() -> Option<Self> {
        let Some(tree) = std::env::var_os("VOUCHD_TEST_TRIXIE").map(PathBuf::from) else {
            skip("VOUCHD_TEST_TRIXIE names no tree with the skopeo of Debian 13");
            return None;
        };
        let probe = tempfile::tempdir().unwrap();
        let works = |place: &Self| place.shell(probe.path(), "skopeo --version").is_ok();
        let (container, chroot) = (Self::Container(tree.clone()), Self::Chroot(tree));
        if works(&container) {
            Some(container)
        } else if works(&chroot) {
            say("note for", "systemd-nspawn cannot run here, so skopeo runs in a chroot");
            Some(chroot)
        } else {
            skip("only root, with systemd-nspawn or chroot, can enter the tree of VOUCHD_TEST_TRIXIE");
            None
        }
    }

    /// Runs a script that sees `dir` under the same name, and the network of this machine.
    fn shell(&self, dir: &Path, script: &str) -> Result<String, String> {
        let mut command = match self {
            Self::Here => Command::new("sh"),
            Self::Container(tree) => {
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "sh", "-c", CONTAINER, "sh", "--quiet", "--register=no", "--keep-unit"])
                    .args(["--as-pid2", "--read-only", "--resolv-conf=off", "--timezone=off"])
                    .arg(format!("--bind={}", dir.display()))
                    .arg("--machine=vouchd-test")
                    .arg("--directory")
                    .arg(tree)
                    .arg("sh");
                command
            }
            Self::Chroot(tree) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", CHROOT, "sh"]).arg(tree).arg(dir);
                command
            }
        };
        let output = command
            .args(["-c", script])
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        let ran = Ran::from(output);
        if ran.exit == 0 { Ok(ran.stdout) } else { Err(format!("{ran:?}")) }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Here => "installed",
            Self::Container(_) | Self::Chroot(_) => "debian-13",
        }
    }

    fn answers(&self, row: &Row) -> bool {
        match row.skopeo {
            Skopeo::Any => true,
            Skopeo::Debian13 => !matches!(self, Self::Here),
        }
    }

    /// Has skopeo copy the images of all rows that it can judge.
    fn copy_all(&self, world: &World, rows: &[Row]) {
        let numbers: Vec<String> =
            (0..rows.len()).filter(|n| self.answers(&rows[*n])).map(|n| n.to_string()).collect();
        let list = write(world.path(&format!("list-{}", self.name())), numbers.join("\n"));
        let copy = write(world.path("copy.sh"), COPY);
        let rows = world.path("rows");
        let (list, copy, rows) = (list.display(), copy.display(), rows.display());
        let script = format!("xargs -P3 -I@ sh {copy} {rows}/@ {} <{list}", self.name());
        self.shell(&world.path(""), &script).unwrap();
    }
}

/// Starts systemd-nspawn, which wants to find its own directory on a file system without a disk.
pub(crate) const CONTAINER: &str = r#"
mkdir -p /run/systemd/nspawn && mount -t tmpfs tmpfs /run/systemd/nspawn && exec systemd-nspawn "$@"
"#;

/// Runs a shell in the tree `$1`, which sees the directory `$2`.
const CHROOT: &str = r#"
tree=$1 dir=$2
shift 2
mount -t tmpfs tmpfs "$tree/tmp" && mkdir -p "$tree$dir" && mount --bind "$dir" "$tree$dir" &&
    exec chroot "$tree" sh "$@"
"#;

/// Has skopeo copy the image of the row in the directory `$1`; `$2` tells places apart.
const COPY: &str = r#"
cd "$1" || exit
export HOME=/nonexistent TMPDIR=/tmp
skopeo --policy policy.json --registries.d registries.d --registries-conf registries.conf \
    --override-os linux --override-arch amd64 \
    copy --src-cert-dir "$(cat certs)" --src-authfile ../../auth.json \
    "docker://$(cat image)" "dir:copy-$2" >"output-$2" 2>&1
echo $? >"exit-$2"
"#;

/// Writes what the row needs into a directory; returns it.
fn prepare(world: &World, number: usize, row: &Row) -> PathBuf {
    let dir = world.path(&format!("rows/{number}"));
    write(dir.join("policy.json"), row.policy.to_string());
    fs::create_dir(dir.join("registries.d")).unwrap();
    let usual = json!({ "default-docker": { "lookaside": world.store("sigs") } }).to_string();
    for (name, content) in row.registries_d.as_deref().unwrap_or(&[("a.yaml", usual)]) {
        write(dir.join("registries.d").join(name), content);
    }
    write(dir.join("registries.conf"), row.registries_conf.as_deref().unwrap_or(""));
    let certs = world.path(if row.trusted { "certs" } else { "no-certs" });
    write(dir.join("certs"), certs.to_str().unwrap());
    let has_host = row.image.split('/').next().unwrap().contains(['.', ':']);
    let image = if has_host { row.image.clone() } else { world.name(&row.image) };
    write(dir.join("image"), image);
    dir
}

/// Our answer to the row in this directory.
fn ours(world: &World, dir: &Path) -> Ran {
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let mut arguments = vec!["verify".to_owned(), "--json".to_owned()];
    for (flag, value) in [
        ("--subject", "instance".to_owned()),
        ("--platform", "linux/amd64".to_owned()),
        ("--timeout", "60s".to_owned()),
        ("--policy", path("policy.json")),
        ("--registries-d", path("registries.d")),
        ("--cert-dir", text("certs")),
        ("--authfile", world.path("auth.json").to_str().unwrap().to_owned()),
    ] {
        arguments.extend([flag.to_owned(), value]);
    }
    if REGISTRIES_CONF {
        arguments.extend(["--registries-conf".to_owned(), path("registries.conf")]);
    }
    arguments.push(format!("docker://{}", text("image")));
    vouchd(&arguments)
}

// The rules are named above each set of rows; rules E-1 and E-2 for all of them.
#[test]
fn skopeo_and_vouchd_give_the_same_verdicts() {
    if !have(&["gpg", "gpgconf", "skopeo", "xargs"]) {
        return;
    }
    let Some(world) = World::new() else { return };
    let rows: Vec<Row> =
        [simple_signing_rows, index_rows, scope_rows, lookaside_rows, sigstore_rows, registries_conf_rows]
            .iter()
            .flat_map(|rows| rows(&world))
            .collect();
    let dirs: Vec<PathBuf> = rows.iter().enumerate().map(|(n, row)| prepare(&world, n, row)).collect();

    let mut places = vec![Place::Here];
    places.extend(Place::debian_13());
    let answered = |row: &Row| REGISTRIES_CONF || row.registries_conf.is_none();
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| places.iter().for_each(|place| place.copy_all(&world, &rows)));
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(n) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < rows.len()) {
                    let ran = answered(&rows[n]).then(|| ours(&world, &dirs[n]));
                    answers.lock().unwrap().push((n, ran));
                }
            });
        }
    });
    let divergences = divergences();
    let (mut compared, mut failures) = (0, Vec::new());
    for (n, ran) in answers.into_inner().unwrap() {
        let (row, dir) = (&rows[n], &dirs[n]);
        let mut failed = |what: String| failures.push(format!("{n} {}: {what}", row.name));
        if let Some(case) = row.stricter.filter(|_| ran.is_some()) {
            assert_ne!(row.code, "allowed", "{}: a false accept is never deliberate", row.name);
            assert!(divergences.iter().any(|known| known == case), "{case} is not in divergences.json");
        }
        if let Some(ran) = &ran {
            let (exit, code) = ran.code();
            if code != row.code || (exit == 0) != (code == "allowed") {
                failed(format!("{} was expected of vouchd: {ran:?}", row.code));
            }
        }
        let mut judged = false;
        for place in places.iter().filter(|place| place.answers(row)) {
            judged = true;
            let read = |name: &str| fs::read_to_string(dir.join(format!("{name}-{}", place.name()))).unwrap();
            let allowed = read("exit").trim() == "0";
            let wanted = row.code == "allowed" || row.stricter.is_some();
            let output = read("output");
            if allowed != wanted || (!allowed && (row.reason.is_empty() || !output.contains(row.reason))) {
                failed(format!(
                    "allowed: {wanted} {:?} was expected of skopeo ({place:?}): {output}",
                    row.reason
                ));
            }
        }
        compared += usize::from(judged && ran.is_some());
    }
    failures.sort();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    // Without the other Debian, sigstore is not compared, and that was said.
    assert!(places.len() == 1 || compared >= ROWS, "only {compared} rows");
}

/// The cases of divergences.json.
fn divergences() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/divergences.json");
    let all: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    all.iter().map(|entry| entry["case"].as_str().unwrap().to_owned()).collect()
}

// Rules D-8, D-12, E-13, G-6, K-1, M-5 to M-7, T-2, U-4.
#[test]
fn an_image_that_skopeo_pushed_and_signed_is_allowed_through_a_mirror() {
    if !have(&["gpg", "gpgconf", "skopeo"]) {
        return;
    }
    let Some(mut primary) = Registry::start(Protection::TlsAndPassword) else { return };
    let Some(mirror) = Registry::start(Protection::TlsAndPassword) else { return };
    let (gpg, stranger) = (Gpg::new(), Gpg::new());
    gpg.key(GOOD, "never", NOW);
    stranger.key(OTHER, "never", NOW);
    let path = |name: &str| mirror.path(name);
    fs::copy(primary.path("certs/ca.crt"), path("certs/primary.crt")).unwrap();
    let mut auths = mirror.auth("secret");
    auths.as_object_mut().unwrap().extend(primary.auth("secret").as_object().unwrap().clone());
    write(path("auth.json"), json!({ "auths": auths }).to_string());
    // What is signed is written to one place and published at another.
    let (origin, copy) = (primary.host(), format!("{}/cache", mirror.host()));
    let store = |name: &str| format!("file://{}", path(name).display());
    let registries_d = json!({ "docker": {
        &origin: { "lookaside": store("sigs"), "lookaside-staging": store("staging") },
        &copy: { "lookaside": store("mirrored") },
    } });
    write(path("registries.d/a.yaml"), registries_d.to_string());
    write(path("keys/good.gpg"), gpg.export(GOOD));
    write(path("keys/other.gpg"), stranger.export(OTHER));
    let entry =
        format!("[[registry]]\nlocation = \"{origin}\"\n[[registry.mirror]]\nlocation = \"{copy}\"\n");
    write(path("registries.conf"), entry);
    write(path("empty.conf"), "");
    for (name, key) in [("good", "good.gpg"), ("other", "other.gpg")] {
        let requirement = signed_by(&path("keys").join(key));
        write(
            path(&format!("{name}.json")),
            scopes(&[(&format!("{origin}/acme"), json!([requirement]))]).to_string(),
        );
    }
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let skopeo = |conf: &str, policy: &[&str], arguments: &[&str]| {
        let output = Command::new("skopeo")
            .args(["--registries.d", &text("registries.d"), "--registries-conf", &text(conf)])
            .args(policy)
            .args(["copy", "--src-cert-dir", &text("certs"), "--dest-cert-dir", &text("certs")])
            .args(["--authfile", &text("auth.json")])
            .args(arguments)
            .env("GNUPGHOME", gpg.home())
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        Ran::from(output)
    };
    let done = |ran: Ran| assert_eq!(ran.exit, 0, "{ran:?}");
    let unchecked = ["--insecure-policy"];
    let image = format!("docker://{origin}/acme/app:1");
    let digest = primary.push("build/app", "1", "pushed by skopeo");
    done(skopeo(
        "empty.conf",
        &unchecked,
        &["--sign-by", GOOD, &format!("docker://{origin}/build/app:1"), &image],
    ));
    fs::rename(path("staging"), path("sigs")).unwrap();
    done(skopeo(
        "empty.conf",
        &unchecked,
        &["--remove-signatures", &image, &format!("docker://{copy}/acme/app:1")],
    ));

    let ours = |policy: &str, conf: &str| {
        let mut arguments = vec!["verify", "--json", "--subject", "instance", "--timeout", "30s"];
        let (policy, directory) = (text(policy), text("registries.d"));
        let (certs, auth, conf) = (text("certs"), text("auth.json"), text(conf));
        arguments.extend(["--policy", &policy, "--registries-d", &directory]);
        arguments.extend(["--cert-dir", &certs, "--authfile", &auth]);
        if REGISTRIES_CONF {
            arguments.extend(["--registries-conf", &conf]);
        }
        arguments.push(&image);
        vouchd(&arguments)
    };
    let check = |policy: &str, conf: &str, code: &str| {
        if REGISTRIES_CONF || conf == "empty.conf" {
            let ran = ours(policy, conf);
            assert_eq!(ran.code().1, code, "{policy} {conf}: {ran:?}");
            if code == "allowed" {
                let report = ran.json();
                assert_eq!(
                    (&report["manifest-digest"], &report["authenticated"]),
                    (&json!(digest), &json!(true))
                );
                assert_eq!(report["pinned-reference"], format!("docker://{origin}/acme/app@{digest}"));
            }
        }
        let target = tempfile::tempdir().unwrap();
        let target = format!("dir:{}", target.path().join("copy").display());
        let ran = skopeo(conf, &["--policy", &text(policy)], &[&image, &target]);
        assert_eq!(ran.exit == 0, code == "allowed", "{policy} {conf}: {ran:?}");
        assert!(ran.exit == 0 || ran.stderr.contains(reason(code)), "{policy} {conf}: {ran:?}");
    };
    check("good.json", "empty.conf", "allowed");
    check("other.json", "empty.conf", "key-unknown");
    // The mirror has the image, and nobody has published its signature there.
    check("good.json", "registries.conf", "unsigned");
    let published = path("mirrored/cache");
    fs::create_dir_all(&published).unwrap();
    fs::rename(path("sigs/acme"), published.join("acme")).unwrap();
    check("good.json", "empty.conf", "unsigned");
    check("good.json", "registries.conf", "allowed");
    primary.stop();
    check("good.json", "empty.conf", "registry-unavailable");
    check("good.json", "registries.conf", "allowed");
    check("other.json", "registries.conf", "key-unknown");
}

// Rules A-2, C-1 to C-5, D-9, I-4, I-10.
#[test]
fn an_image_that_skopeo_signed_for_sigstore_is_allowed() {
    let Some(place) = Place::debian_13() else { return };
    let Some(registry) = Registry::start(Protection::TlsAndPassword) else { return };
    write(registry.path("auth.json"), json!({ "auths": registry.auth("secret") }).to_string());
    let attachments = json!({ "default-docker": { "use-sigstore-attachments": true } });
    write(registry.path("registries.d/a.yaml"), attachments.to_string());
    write(registry.path("passphrase"), "secret\n");
    let (host, root) = (registry.host(), registry.path(""));
    let digest = registry.push("build/app", "1", "signed by skopeo");
    let script = format!(
        r#"
cd {} && export HOME=/nonexistent TMPDIR=/tmp
skopeo generate-sigstore-key --output-prefix good --passphrase-file passphrase >&2 &&
skopeo generate-sigstore-key --output-prefix other --passphrase-file passphrase >&2 &&
skopeo --insecure-policy --registries.d registries.d copy --src-cert-dir certs --dest-cert-dir certs \
    --authfile auth.json --sign-by-sigstore-private-key good.private --sign-passphrase-file passphrase \
    docker://{host}/build/app:1 docker://{host}/acme/app:1 >&2
"#,
        root.display(),
    );
    place.shell(&root, &script).unwrap();
    let (certs, auth) = (registry.path("certs"), registry.path("auth.json"));
    for (key, image, code) in [
        ("good.pub", "acme/app:1", "allowed"),
        ("good.pub", &format!("acme/app@{digest}"), "allowed"),
        ("other.pub", "acme/app:1", "bad-signature"),
        ("good.pub", "build/app:1", "unsigned"),
    ] {
        // Skopeo names the tag, so the default identity will do.
        let requirement = json!({ "type": "sigstoreSigned", "keyPath": registry.path(key) });
        let policy = write(registry.path("policy.json"), only(&[requirement]).to_string());
        let arguments = ["verify", "--json", "--subject", "instance", "--policy", policy.to_str().unwrap()];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        for (flag, path) in [
            ("--registries-d", &registry.path("registries.d")),
            ("--cert-dir", &certs),
            ("--authfile", &auth),
        ] {
            arguments.extend([flag.to_owned(), path.to_str().unwrap().to_owned()]);
        }
        arguments.push(format!("docker://{host}/{image}"));
        let ran = vouchd(&arguments);
        assert_eq!(ran.code().1, code, "{key} {image}: {ran:?}");
    }
}
