//! A real registry (Debian's docker-registry on loopback), real signatures, the real program.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::live::{NOW, Protection, Registry, SigningKey, signed_by};
use crate::support::{Gpg, have, simple_signing, vouchd, write};

#[test]
fn simple_signing_with_a_real_registry() {
    if !have(&["gpg", "gpgconf"]) {
        return;
    }
    let Some(registry) = Registry::start(Protection::Tls) else { return };
    let (good, other, revoked) = (Gpg::new(), Gpg::new(), Gpg::new());
    good.key("good@example", "never", NOW);
    other.key("other@example", "never", NOW);
    revoked.key("revoked@example", "never", NOW);
    let expired = Gpg::new();
    expired.key("expired@example", "1d", NOW);
    let key = |name: &str, gpg: &Gpg| {
        write(registry.path(&format!("keys/{name}.gpg")), gpg.export(&format!("{name}@example")))
    };
    let good_key = key("good", &good);
    let expired_key = key("expired", &expired);
    let host = registry.host();
    let sign = |gpg: &Gpg, user: &str, options: &[&str], reference: &str, digest: &str| {
        gpg.sign(user, options, &simple_signing(&format!("{host}/{reference}"), digest))
    };
    let faked: &[&str] = &["--faked-system-time", "20260101T010000!"];

    // Each image has its own digest, so that stores cannot be confused.
    let digest = registry.push("gpg/good", "1", "good");
    registry.store("gpg/good", &digest, &[sign(&good, "good@example", &[], "gpg/good:1", &digest)]);
    let unsigned = registry.push("gpg/unsigned", "1", "unsigned");
    let by_other = registry.push("gpg/other", "1", "other");
    registry.store("gpg/other", &by_other, &[sign(&other, "other@example", &[], "gpg/other:1", &by_other)]);
    let elsewhere = registry.push("gpg/elsewhere", "1", "elsewhere");
    registry.store(
        "gpg/elsewhere",
        &elsewhere,
        &[sign(&good, "good@example", &[], "gpg/good:1", &elsewhere)],
    );
    let tampered = registry.push("gpg/tampered", "1", "tampered");
    registry.store("gpg/tampered", &tampered, &[sign(&good, "good@example", &[], "gpg/tampered:1", &digest)]);
    let stale = registry.push("gpg/stale", "1", "stale");
    let lifetime = ["--faked-system-time", "20260101T010000!", "--default-sig-expire", "1d"];
    registry.store("gpg/stale", &stale, &[sign(&good, "good@example", &lifetime, "gpg/stale:1", &stale)]);
    let old = registry.push("gpg/old", "1", "old");
    registry.store("gpg/old", &old, &[sign(&expired, "expired@example", faked, "gpg/old:1", &old)]);
    let withdrawn = registry.push("gpg/withdrawn", "1", "withdrawn");
    let signature = sign(&revoked, "revoked@example", &[], "gpg/withdrawn:1", &withdrawn);
    registry.store("gpg/withdrawn", &withdrawn, &[signature]);
    revoked.revoke();
    let revoked_key = key("revoked", &revoked);
    let second = registry.push("gpg/second", "1", "second");
    let wrong = sign(&other, "other@example", &[], "gpg/second:1", &second);
    let right = sign(&good, "good@example", &[], "gpg/second:1", &second);
    registry.store("gpg/second", &second, &[wrong, right]);
    let damaged = registry.push("gpg/damaged", "1", "damaged");
    registry.store("gpg/damaged", &damaged, &[b"<html>not found</html>".to_vec()]);

    for (image, key, exit, code) in [
        ("gpg/good:1", &good_key, 0, "allowed"),
        (&format!("gpg/good@{digest}"), &good_key, 0, "allowed"),
        ("gpg/second:1", &good_key, 0, "allowed"),
        ("gpg/unsigned:1", &good_key, 1, "unsigned"),
        (&format!("gpg/unsigned@{unsigned}"), &good_key, 1, "unsigned"),
        ("gpg/other:1", &good_key, 1, "key-unknown"),
        ("gpg/elsewhere:1", &good_key, 1, "identity-mismatch"),
        ("gpg/tampered:1", &good_key, 1, "digest-mismatch"),
        ("gpg/stale:1", &good_key, 1, "signature-expired"),
        ("gpg/old:1", &expired_key, 1, "key-expired"),
        ("gpg/withdrawn:1", &revoked_key, 1, "key-revoked"),
        ("gpg/damaged:1", &good_key, 3, "malformed-signature"),
        ("gpg/absent:1", &good_key, 3, "image-not-found"),
        ("gpg/good:2", &good_key, 3, "image-not-found"),
        ("gpg/good:1", &registry.path("keys/none.gpg"), 4, "key-file-unreadable"),
    ] {
        let ran = registry.verify(&signed_by(key), image, &[]);
        assert_eq!(ran.code(), (exit, code.to_owned()), "{image}: {ran:?}");
    }
    let ran = registry.verify(&json!({ "type": "reject" }), "gpg/good:1", &[]);
    assert_eq!(ran.code(), (1, "rejected-by-policy".to_owned()));
    assert_eq!(ran.json()["requests"], 0, "a reject must not touch the network");
    let ran = registry.verify(&json!({ "type": "insecureAcceptAnything" }), "gpg/unsigned:1", &[]);
    assert_eq!((ran.code().1.as_str(), &ran.json()["authenticated"]), ("allowed", &json!(false)));
    assert_eq!(ran.json()["manifest-digest"], unsigned);
    let anything = json!({ "type": "insecureAcceptAnything" });
    let ran = registry.verify(&anything, "gpg/unsigned:1", &["--require-signature"]);
    assert_eq!(ran.code(), (1, "signature-required".to_owned()));

    let ran = registry.verify(&signed_by(&good_key), "gpg/good:1", &[]);
    let report = ran.json();
    assert_eq!(report["manifest-digest"], digest);
    assert_eq!(report["pinned-reference"], format!("docker://{host}/gpg/good@{digest}"));
    assert_eq!(report["pinned-reference-accepted"], true);
    assert_eq!(report["authenticated"], true);
    let exact = json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPath": good_key, "signedIdentity": { "type": "matchExact" } });
    let ran = registry.verify(&exact, "gpg/good:1", &[]);
    assert_eq!((ran.exit, &ran.json()["pinned-reference-accepted"]), (0, &json!(false)));
}

#[test]
fn cosign_attachments_with_a_real_registry() {
    let Some(registry) = Registry::start(Protection::Tls) else { return };
    let (key, other) = (SigningKey::new(), SigningKey::new());
    let host = registry.host();
    let name = |reference: &str| format!("{host}/{reference}");
    let requirement = key.requirement(&json!({ "type": "matchRepoDigestOrExact" }));

    let digest = registry.push("cosign/good", "1", "good");
    registry.attach("cosign/good", &digest, &[key.sign(&name("cosign/good:1"), &digest)]);
    let second = registry.push("cosign/second", "1", "second");
    let layers = [other.sign(&name("cosign/second:1"), &second), key.sign(&name("cosign/second:1"), &second)];
    registry.attach("cosign/second", &second, &layers);
    registry.push("cosign/unsigned", "1", "unsigned");
    registry.push("plain/unsigned", "1", "unsigned");
    let by_other = registry.push("cosign/other", "1", "other");
    registry.attach("cosign/other", &by_other, &[other.sign(&name("cosign/other:1"), &by_other)]);
    let elsewhere = registry.push("cosign/elsewhere", "1", "elsewhere");
    registry.attach("cosign/elsewhere", &elsewhere, &[key.sign(&name("cosign/good:1"), &elsewhere)]);
    let tampered = registry.push("cosign/tampered", "1", "tampered");
    registry.attach("cosign/tampered", &tampered, &[key.sign(&name("cosign/tampered:1"), &digest)]);
    let unnamed = registry.push("cosign/unnamed", "1", "unnamed");
    registry.attach("cosign/unnamed", &unnamed, &[key.sign(&name("cosign/unnamed"), &unnamed)]);

    for (image, code) in [
        ("cosign/good:1", "allowed"),
        (&format!("cosign/good@{digest}"), "allowed"),
        ("cosign/second:1", "allowed"),
        ("cosign/unsigned:1", "unsigned"),
        ("plain/unsigned:1", "attachments-disabled"),
        ("cosign/other:1", "bad-signature"),
        ("cosign/elsewhere:1", "identity-mismatch"),
        ("cosign/tampered:1", "digest-mismatch"),
        // cosign signs the repository only, which the default identity does not accept (rule I-10).
        ("cosign/unnamed:1", "identity-mismatch"),
    ] {
        let ran = registry.verify(&requirement, image, &[]);
        let exit = i32::from(code != "allowed");
        assert_eq!(ran.code(), (exit, code.to_owned()), "{image}: {ran:?}");
    }
    let repository = key.requirement(&json!({ "type": "matchRepository" }));
    assert_eq!(registry.verify(&repository, "cosign/unnamed:1", &[]).exit, 0);
}

/// Rules E-30 to E-33, K-3.
#[test]
fn an_index_is_judged_by_the_subject_that_was_asked_for() {
    let Some(registry) = Registry::start(Protection::Tls) else { return };
    let key = SigningKey::new();
    let host = registry.host();
    let requirement = key.requirement(&json!({ "type": "matchRepository" }));
    let sign = |repository: &str, digest: &str| {
        registry.attach(repository, digest, &[key.sign(&format!("{host}/{repository}"), digest)]);
    };
    let (index, _) = registry.push_index("multi/index", "1", "index");
    sign("multi/index", &index);
    let (hostile, instance) = registry.push_index("multi/instance", "1", "instance");
    sign("multi/instance", &instance);
    let (both, both_instance) = registry.push_index("multi/both", "1", "both");
    sign("multi/both", &both);
    sign("multi/both", &both_instance);
    registry.push_index("multi/none", "1", "none");

    for (repository, either, instance, top_level, together) in [
        ("multi/index", 0, 1, 0, 1),
        ("multi/instance", 0, 0, 1, 1),
        ("multi/both", 0, 0, 0, 0),
        ("multi/none", 1, 1, 1, 1),
    ] {
        for (subject, exit) in
            [("either", either), ("instance", instance), ("top-level", top_level), ("both", together)]
        {
            let ran = registry.verify(
                &requirement,
                &format!("{repository}:1"),
                &["--subject", subject, "--platform", "linux/amd64"],
            );
            assert_eq!(ran.exit, exit, "{repository} {subject}: {ran:?}");
        }
    }
    // T-11: accepted by its instance only, the image is pinned to the instance, never to the unjudged index.
    let report = registry.verify(&requirement, "multi/instance:1", &["--platform", "linux/amd64"]).json();
    assert_eq!(report["manifest-digest"], instance);
    assert_eq!(report["pinned-reference"], format!("docker://{host}/multi/instance@{instance}"));
    assert_eq!(report["resolved-digest"], hostile);
    let report = registry.verify(&requirement, "multi/index:1", &["--platform", "linux/amd64"]).json();
    assert_eq!(report["manifest-digest"], index);
    assert!(report["warnings"][0].as_str().unwrap().contains("podman"), "{report}");
    let ran = registry.verify(&requirement, "multi/both:1", &["--platform", "linux/s390x"]);
    assert_eq!(ran.code(), (3, "no-matching-platform".to_owned()));
}

#[test]
fn a_registry_that_wants_a_password_gets_it_from_the_authfile() {
    let Some(registry) = Registry::start(Protection::TlsAndPassword) else { return };
    let key = SigningKey::new();
    let requirement = key.requirement(&json!({ "type": "matchRepository" }));
    let digest = registry.push("private/app", "1", "private");
    let name = format!("{}/private/app", registry.host());
    registry.attach("private/app", &digest, &[key.sign(&name, &digest)]);
    let authfile = |name: &str, password: &str| {
        write(registry.path(name), json!({ "auths": registry.auth(password) }).to_string())
    };
    let (right, wrong) = (authfile("right.json", "secret"), authfile("wrong.json", "not-the-secret"));
    let empty = write(registry.path("empty.json"), "{}");
    let broken = write(registry.path("broken.json"), "{\"auths\":");
    for (file, exit, code) in [
        (&right, 0, "allowed"),
        (&wrong, 3, "registry-auth"),
        (&empty, 3, "registry-auth"),
        (&broken, 4, "auth-file-invalid"),
        (&registry.path("none.json"), 4, "auth-file-invalid"),
    ] {
        let ran = registry.verify(&requirement, "private/app:1", &["--authfile", file.to_str().unwrap()]);
        assert_eq!(ran.code(), (exit, code.to_owned()), "{ran:?}");
        assert!(!format!("{ran:?}").contains("not-the-secret"), "{ran:?}");
    }
}

/// A process that ends with this test.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_daemon_on_a_private_bus_gives_the_same_verdicts() {
    if !have(&["dbus-daemon"]) {
        return;
    }
    let Some(registry) = Registry::start(Protection::Tls) else { return };
    let key = SigningKey::new();
    let requirement = key.requirement(&json!({ "type": "matchRepository" }));
    let digest = registry.push("bus/good", "1", "good");
    registry.attach("bus/good", &digest, &[key.sign(&format!("{}/bus/good", registry.host()), &digest)]);
    registry.push("bus/unsigned", "1", "unsigned");
    // Decided here first, which also writes the configuration that the daemon is given.
    let directly = registry.verify(&requirement, "bus/good:1", &[]).json();

    let socket = registry.path("bus");
    let address = format!("unix:path={}", socket.display());
    let _bus = Mortal(
        Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--address", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let begun = Instant::now();
    let patience = || assert!(begun.elapsed() < Duration::from_secs(20), "the daemon does not start");
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        patience();
        std::thread::sleep(Duration::from_millis(20));
    }
    let _daemon = Mortal(
        Command::new(env!("CARGO_BIN_EXE_vouchd"))
            .args(["daemon", "--bus-address", &address])
            .arg("--policy")
            .arg(registry.path("policy.json"))
            .arg("--registries-d")
            .arg(registry.path("registries.d"))
            .arg("--cert-dir")
            .arg(registry.path("certs"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let ask = |image: &str| {
        let reference = format!("docker://{}/{image}", registry.host());
        vouchd(&["verify", "--json", "--bus", "--bus-address", &address, "--", &reference])
    };
    let mut answer = ask("bus/good:1");
    while answer.json()["code"] == "bus-unavailable" {
        patience();
        std::thread::sleep(Duration::from_millis(50));
        answer = ask("bus/good:1");
    }
    let (report, pinned) = (answer.json(), format!("docker://{}/bus/good@{digest}", registry.host()));
    assert_eq!((answer.exit, &report["route"]), (0, &json!("bus")), "{answer:?}");
    assert_eq!((&report["manifest-digest"], &report["pinned-reference"]), (&json!(digest), &json!(pinned)));
    for (name, wanted) in directly.as_object().unwrap().iter().filter(|(name, _)| *name != "route") {
        assert_eq!(&report[name], wanted, "{name}");
    }
    assert_eq!(ask("bus/unsigned:1").code(), (1, "unsigned".to_owned()));
    assert_eq!(ask("bus/absent:1").code(), (3, "image-not-found".to_owned()));

    // What a client in another language sees: a reply, or an error by name.
    registry.runtime.block_on(async {
        let connection = zbus::connection::Builder::address(address.as_str()).build().await.unwrap();
        let verifier = vouchd::dbus::VerifierProxy::new(&connection).await.unwrap();
        let options = vouchd::dbus::Dictionary::new;
        let reference = |image: &str| format!("docker://{}/{image}", registry.host());
        let (found, name, _) = verifier.verify_image(&reference("bus/good:1"), options()).await.unwrap();
        assert_eq!((found, name), (digest.clone(), pinned.clone()));
        let refused = verifier.verify_image(&reference("bus/unsigned:1"), options()).await.unwrap_err();
        assert_eq!(zbus::DBusError::name(&refused).as_str(), "org.vouchd.Verifier1.Error.Rejected");
    });
}

#[test]
fn skopeo_reads_the_demo_and_agrees() {
    if !have(&["skopeo"]) {
        return;
    }
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy-examples/demo");
    let policy = demo.join("policy.json");
    for (image, exit) in [("signed", 0), ("tampered", 1), ("unsigned", 1)] {
        let out = tempfile::tempdir().unwrap();
        let source = format!("dir:{}", demo.join(image).display());
        let skopeo = Command::new("skopeo")
            .arg("--policy")
            .arg(&policy)
            .args(["copy", &source, &format!("dir:{}", out.path().join("copy").display())])
            .output()
            .unwrap();
        assert_eq!(skopeo.status.success(), exit == 0, "{image}: {skopeo:?}");
        assert_eq!(vouchd(&["verify", "--policy", policy.to_str().unwrap(), &source]).exit, exit, "{image}");
    }
}
