//! The daemon's interface: over a socket pair, and with the real daemon on a private bus.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zbus::fdo::{DBusProxy, IntrospectableProxy};
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::wire::Str;
use zbus::{Connection, DBusError, Guid, OwnedVariant, Variant};

use vouchd::config::{
    Directories, Environment, PolicySource, ProxySettings, RegistriesConfSource, ShortNames,
};
use vouchd::dbus::{self, ClientError, Dictionary, Served, Verifier, VerifierProxy};
use vouchd::digest::Digest;
use vouchd::engine::{Engine, GATHERINGS, Settings};
use vouchd::evaluate::evidence::{Question, Subject};
use vouchd::fetch::credentials::Source;
use vouchd::fetch::{Configuration, ProxySource, registry};
use vouchd::manifest::Platform;
use vouchd::report::Route;

use crate::server;
use crate::support::{is_installed, skip};

const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;
const ACCEPT: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
const IMAGE: &str = "docker://registry.invalid/a/b:1";
const JOURNAL: &str = "/run/systemd/journal/socket";
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

// Over a socket pair.

#[tokio::test]
async fn a_refusal_is_an_error_of_verify_and_a_report_of_evaluate() {
    let rig = Rig::new(REJECT);
    let verifier = rig.verifier().await;
    let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.Rejected");
    assert_eq!(error.code(), Some("rejected-by-policy"));
    assert!(error.description().unwrap().starts_with("[rejected-by-policy] "));

    let report = verifier.evaluate_image(IMAGE, Dictionary::new()).await.unwrap();
    for (key, wanted) in [
        ("allowed", Variant::Bool(false)),
        ("authenticated", Variant::Bool(false)),
        ("code", Variant::from("rejected-by-policy")),
        ("decided", Variant::Bool(true)),
        ("reference", Variant::from(IMAGE)),
        ("route", Variant::from("bus")),
        ("schema", Variant::U64(1)),
    ] {
        assert_eq!(report.value(key), Some(&wanted), "{key}");
    }
    assert_eq!(report.value("manifest-digest"), None);
}

#[tokio::test]
async fn accepting_anything_is_not_enough_unless_the_caller_says_so() {
    let registry = Registry::start().await;
    let rig = Rig::new(ACCEPT).with_registry(&registry);
    let verifier = rig.verifier().await;
    let image = registry.image();
    let error = verifier.verify_image(&image, Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.SignatureRequired");
    let lax = || Dictionary::new().with("require-signature", false);
    let digest = Digest::sha256(MANIFEST).to_string();
    let pinned = format!("docker://{}/ns/app@{digest}", registry.host);
    let (found, reference, details) = verifier.verify_image(&image, lax()).await.unwrap();
    assert_eq!((found.as_str(), reference.as_str()), (digest.as_str(), pinned.as_str()));
    assert_eq!(details.value("allowed"), Some(&Variant::Bool(true)));
    assert_eq!(details.value("authenticated"), Some(&Variant::Bool(false)));
    assert_eq!(details.value("pinned-reference"), Some(&Variant::from(pinned.as_str())));

    let expecting = |digest: &str| lax().with("expected-digest", Str::from(digest.to_owned()));
    assert!(verifier.verify_image(&image, expecting(&digest)).await.is_ok());
    let other = Digest::sha256(b"another").to_string();
    let error = verifier.verify_image(&image, expecting(&other)).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.DigestMismatch");
    let error = verifier.evaluate_image(&image, expecting(&other)).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.DigestMismatch");
}

#[tokio::test]
async fn only_what_was_accepted_is_what_was_expected() {
    let instance = Digest::sha256(MANIFEST).to_string();
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{instance}","size":{},"platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
        MANIFEST.len(),
        Platform::host().architecture,
    );
    let registry = Registry::of_index(Some(index.clone())).await;
    let rig = Rig::new(ACCEPT).with_registry(&registry);
    let verifier = rig.verifier().await;
    let index = Digest::sha256(index.as_bytes()).to_string();
    for (subject, expected, met) in [
        ("instance", &instance, true),
        ("instance", &index, false),
        ("top-level", &instance, false),
        ("top-level", &index, true),
        ("either", &instance, true),
        ("either", &index, true),
        ("both", &instance, true),
        ("both", &index, true),
    ] {
        let options = Dictionary::new()
            .with("require-signature", false)
            .with("subject", Str::from(subject))
            .with("expected-digest", Str::from(expected.clone()));
        let answer = verifier.verify_image(&registry.image(), options).await;
        match answer {
            Ok((_, _, details)) => {
                assert!(met, "{subject} {expected}");
                assert_eq!(details.value("resolved-digest"), Some(&Variant::from(index.as_str())));
            }
            Err(error) => {
                assert!(!met, "{subject} {expected}: {error}");
                assert_eq!(name(&error), "org.vouchd.Verifier1.Error.DigestMismatch", "{error}");
            }
        }
    }
}

#[tokio::test]
async fn an_image_without_a_digest_is_allowed_without_one() {
    let rig = Rig::new(ACCEPT);
    let verifier = rig.verifier().await;
    let lax = || Dictionary::new().with("require-signature", false);
    let (digest, pinned, _) = verifier.verify_image("docker-daemon:a/b:1", lax()).await.unwrap();
    assert_eq!((digest.as_str(), pinned.as_str()), ("", ""));
    let expecting = lax().with("expected-digest", Str::from(Digest::sha256(b"").to_string()));
    let error = verifier.verify_image("docker-daemon:a/b:1", expecting).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.DigestMismatch");
}

#[tokio::test]
async fn the_properties_tell_what_is() {
    let rig = Rig::new(REJECT);
    let verifier = rig.verifier().await;
    assert_eq!(verifier.version().await.unwrap(), env!("CARGO_PKG_VERSION"));
    let path = rig.policy().display().to_string();
    let state = async || (verifier.policy_state().await.unwrap(), verifier.policy_path().await.unwrap());
    assert_eq!(state().await, ("loaded".to_owned(), path.clone()));
    fs::write(rig.policy(), "{").unwrap();
    assert_eq!(state().await, ("loaded".to_owned(), path.clone()), "for a second");
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(state().await, ("invalid".to_owned(), path.clone()));
    fs::remove_file(rig.policy()).unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(state().await, ("invalid".to_owned(), path.clone()), "an explicit policy must exist");
    fs::write(rig.policy(), REJECT).unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(state().await, ("loaded".to_owned(), path));

    let rig = Rig::new(ACCEPT);
    let verifier = rig.verifier().await;
    assert_eq!(verifier.policy_digest().await.unwrap(), Digest::sha256(ACCEPT.as_bytes()).to_string());
    assert!(verifier.policy_accepts_unsigned().await.unwrap());
    assert_eq!(verifier.policy_error().await.unwrap(), "");
    let since = verifier.policy_loaded_usec().await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    assert!(u128::from(since) <= now && now - u128::from(since) < 60_000_000);
    fs::write(rig.policy(), "{\n\"default\":[{\"type\":\"secret-of-the-policy\"}]}").unwrap();
    tokio::time::sleep(A_WHILE).await;
    let error = verifier.policy_error().await.unwrap();
    assert_eq!(error, format!("[unknown-type] {}:2:20", rig.policy().display()));
    assert_eq!(verifier.policy_digest().await.unwrap(), "");
    assert!(!verifier.policy_accepts_unsigned().await.unwrap());
    assert!(verifier.policy_loaded_usec().await.unwrap() > since);
    // One scope is enough, and another requirement beside it changes that.
    let reject = r#"{"type":"reject"}"#;
    let anything = r#"{"type":"insecureAcceptAnything"}"#;
    for (requirements, wanted) in [(anything.to_owned(), true), (format!("{anything},{reject}"), false)] {
        let policy =
            format!(r#"{{"default":[{reject}],"transports":{{"docker":{{"h/a":[{requirements}]}}}}}}"#);
        fs::write(rig.policy(), policy).unwrap();
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(verifier.policy_accepts_unsigned().await.unwrap(), wanted, "{requirements}");
    }
    assert!(verifier.features().await.unwrap().contains(&"sigstoreSigned:keyless".to_owned()));

    let empty = Rig::searching();
    let verifier = empty.verifier().await;
    assert_eq!(verifier.policy_error().await.unwrap(), "[policy-missing]");
    assert_eq!(verifier.policy_state().await.unwrap(), "missing");
    assert_eq!(verifier.policy_path().await.unwrap(), "");
}

#[tokio::test]
async fn errors_have_the_names_of_the_interface() {
    let signed_by =
        |key: &str| format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}"}}]}}"#);
    let base_layer = r#"{"default":[{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}]}"#;
    let unreachable = "docker://127.0.0.1:1/a/b:1";
    let long = format!("docker://h/{}", "a".repeat(1024));
    for (policy, image, error_name, code) in [
        (REJECT, "", "InvalidReference", "invalid-reference"),
        (REJECT, "h.example/a:1", "InvalidReference", "invalid-reference"),
        // Rules N-1, T-22: only an alias says which image a short name is.
        (REJECT, "h/a:1", "InvalidReference", "short-name"),
        (REJECT, "busybox", "InvalidReference", "short-name"),
        (REJECT, "docker://h/A:1", "InvalidReference", "invalid-reference"),
        (REJECT, "\u{202e}", "InvalidReference", "invalid-reference"),
        (REJECT, "containers-storage:h/a:1", "UnsupportedTransport", "unsupported-transport"),
        (REJECT, "dir:/", "UnsupportedTransport", "unsupported-transport"),
        (REJECT, "dir:/no/such", "UnsupportedTransport", "unsupported-transport"),
        (REJECT, "docker-archive:/a.tar", "UnsupportedTransport", "unsupported-transport"),
        (REJECT, "oci:/a", "UnsupportedTransport", "unsupported-transport"),
        (REJECT, "oci-archive:/a.tar", "UnsupportedTransport", "unsupported-transport"),
        (REJECT, "ostree:a", "UnsupportedTransport", "unsupported-transport"),
        (REJECT, "sif:/a.sif", "UnsupportedTransport", "unsupported-transport"),
        (REJECT, "tarball:/a.tar", "UnsupportedTransport", "unsupported-transport"),
        (REJECT, "oci://registry.invalid/a:1", "Rejected", "rejected-by-policy"),
        (ACCEPT, unreachable, "RegistryUnavailable", "registry-unavailable"),
        (&signed_by("/no/such/key"), unreachable, "ConfigurationInvalid", "key-file-unreadable"),
        (base_layer, IMAGE, "UnsupportedRequirement", "unsupported"),
        ("{", IMAGE, "PolicyInvalid", "policy-invalid"),
    ] {
        let rig = Rig::new(policy);
        let verifier = rig.verifier().await;
        let error = verifier.verify_image(image, Dictionary::new()).await.unwrap_err();
        assert_eq!(name(&error), format!("org.vouchd.Verifier1.Error.{error_name}"), "{image}: {error}");
        assert_eq!(error.code(), Some(code), "{image}: {error}");
        assert!(!error.message().contains(char::is_control), "{image}");
    }
    let rig = Rig::new(REJECT);
    let verifier = rig.verifier().await;
    let error = verifier.verify_image(&long, Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.freedesktop.DBus.Error.InvalidArgs");

    let error = Rig::searching().verifier().await.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.PolicyMissing");
}

#[tokio::test]
async fn an_unsigned_image_is_refused_and_broken_configuration_decides_nothing() {
    let registry = Registry::start().await;
    let key = rcgen::KeyPair::generate().unwrap().public_key_pem();
    let key = STANDARD.encode(key);
    let rig = Rig::new(&format!(r#"{{"default":[{{"type":"sigstoreSigned","keyData":"{key}"}}]}}"#))
        .with_registry(&registry);
    let verifier = rig.verifier().await;
    let error = verifier.verify_image(&registry.image(), Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.Rejected", "{error}");
    let report = verifier.evaluate_image(&registry.image(), Dictionary::new()).await.unwrap();
    assert_eq!(report.value("manifest-digest"), None);
    let resolved = Digest::sha256(MANIFEST).to_string();
    assert_eq!(report.value("resolved-digest"), Some(&Variant::from(resolved.as_str())));

    fs::write(rig.registries_d().join("a.yaml"), "[").unwrap();
    let error = verifier.verify_image(&registry.image(), Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.ConfigurationInvalid", "{error}");
    assert_eq!(error.code(), Some("registries-d-invalid"));
}

#[tokio::test]
async fn options_that_are_not_understood_are_errors() {
    let rig = Rig::new(ACCEPT);
    let verifier = rig.verifier().await;
    for options in [
        Dictionary::new().with("require-signatures", false),
        Dictionary::new().with("require-signature", Str::from("false")),
        Dictionary::new().with("require-signature", true).with("require-signature", false),
        Dictionary::new().with("cookie", Str::from("")),
        Dictionary::new().with("no-cache", Str::from("true")),
        Dictionary::new().with("timeout-usec", 601_000_000_u64),
    ] {
        let call = verifier.verify_image("docker-daemon:a/b:1", options).await;
        let error = call.unwrap_err();
        assert_eq!(name(&error), "org.freedesktop.DBus.Error.InvalidArgs");
        assert_eq!(error.code(), Some("usage"));
    }
}

#[tokio::test]
async fn the_deadline_of_the_call_counts() {
    let silent = Silent::start().await;
    let rig = Rig::new(ACCEPT);
    let verifier = rig.verifier().await;
    let began = Instant::now();
    let options = Dictionary::new().with("timeout-usec", 300_000_u64);
    let error = verifier.verify_image(&silent.image(), options).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.TimedOut");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn gatherings_are_limited_and_given_back() {
    let silent = Silent::start().await;
    let rig = Rig::new(ACCEPT);
    let verifier = rig.verifier().await;
    let options = |microseconds: u64| Dictionary::new().with("timeout-usec", microseconds);
    let image = silent.image();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..GATHERINGS.all + 5 {
        let (verifier, image, options) = (verifier.clone(), silent.numbered(number), options(3_000_000));
        running.spawn(async move { verifier.verify_image(&image, options).await.unwrap_err() });
    }
    let errors: Vec<_> = running.join_all().await;
    let count = |wanted: &str| errors.iter().filter(|error| error.code() == Some(wanted)).count();
    assert_eq!((count("timed-out"), count("too-many-requests")), (GATHERINGS.all, 5));
    assert!(errors.iter().any(|error| name(error) == "org.vouchd.Verifier1.Error.TooManyRequests"));
    let error = verifier.verify_image(&image, options(1000)).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.TimedOut");
}

#[tokio::test]
async fn nothing_is_done_for_a_caller_that_expects_no_reply() {
    let silent = Silent::start().await;
    let rig = Rig::new(ACCEPT);
    let verifier = rig.verifier().await;
    let options = Dictionary::new().with("timeout-usec", 300_000_u64);
    let flags = MethodFlags::NO_REPLY_EXPECTED;
    for method in ["VerifyImage", "EvaluateImage", "ExplainImage"] {
        let body = (silent.image(), &options);
        let none: Option<()> = verifier.inner().call_with_flags(method, flags, &body).await.unwrap();
        assert_eq!(none, None);
    }
    let body = (silent.image(), Digest::sha256(MANIFEST).to_string(), &options);
    let none: Option<()> = verifier.inner().call_with_flags("VerifyImageDigest", flags, &body).await.unwrap();
    assert_eq!(none, None);
    let manifest = || zbus::wire::Fd::from(OwnedFd::from(tempfile::tempfile().unwrap()));
    let body = (silent.image(), manifest(), &options);
    let none: Option<()> = verifier.inner().call_with_flags("VerifyManifest", flags, &body).await.unwrap();
    assert_eq!(none, None);
    let body = (manifest(), Dictionary::new());
    let none: Option<()> = verifier.inner().call_with_flags("LintPolicy", flags, &body).await.unwrap();
    assert_eq!(none, None);
    let none: Option<()> = verifier.inner().call_with_flags("Reload", flags, &()).await.unwrap();
    assert_eq!(none, None);
    // The same asked properly reaches the registry, and later than the others would have.
    assert!(verifier.verify_image(&silent.image(), options).await.is_err());
    assert_eq!(silent.connections.load(Ordering::SeqCst), 1);
    assert_eq!(verifier.counters().await.unwrap().values().sum::<u64>(), 1);
}

#[tokio::test]
async fn an_explanation_is_that_of_the_command() {
    let rig = Rig::new(
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"registry.invalid/a":[{"type":"insecureAcceptAnything"}]}}}"#,
    );
    let verifier = rig.verifier().await;
    let found = verifier.explain_image(IMAGE, Dictionary::new()).await.unwrap();
    let ran = crate::support::vouchd(&[
        "explain",
        "--json",
        "--policy",
        rig.policy().to_str().unwrap(),
        "--registries-d",
        rig.registries_d().to_str().unwrap(),
        "--registries-conf",
        "/dev/null",
        IMAGE,
    ]);
    let printed = ran.json();
    let mut keys: Vec<&str> = found.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    let wanted: Vec<&str> = printed
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(keys, wanted);
    for key in ["outcome", "scope", "transport", "policy-path", "policy-digest", "normalized-reference"] {
        assert_eq!(found.value(key), Some(&Variant::from(printed[key].as_str().unwrap())), "{key}");
    }
    for (key, signature) in [
        ("scope-chain", "as"),
        ("warnings", "as"),
        ("requirements", "aa{sv}"),
        ("endpoints", "aa{sv}"),
        ("line", "t"),
    ] {
        assert_eq!(found.value(key).unwrap().value_signature(), signature, "{key}");
    }
    for (image, wanted) in [
        ("", "invalid-reference"),
        ("busybox", "short-name"),
        ("dir:/etc", "unsupported-transport"),
        ("containers-storage:a/b", "unsupported-transport"),
        (&"x".repeat(1 << 20), "usage"),
    ] {
        let error = verifier.explain_image(image, Dictionary::new()).await.unwrap_err();
        assert_eq!(error.code(), Some(wanted), "{error}");
    }
    let option = Dictionary::new().with("timeout-usec", 1_u64);
    let error = verifier.explain_image(IMAGE, option).await.unwrap_err();
    assert_eq!(name(&error), "org.freedesktop.DBus.Error.InvalidArgs");
    fs::write(rig.registries_d().join("a.yaml"), "[").unwrap();
    let error = verifier.explain_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.ConfigurationInvalid");
    assert_eq!(verifier.counters().await.unwrap().values().sum::<u64>(), 0, "nothing was verified");
}

#[tokio::test]
async fn a_policy_of_the_caller_is_looked_through() {
    let rig = Rig::new(REJECT);
    let verifier = rig.verifier().await;
    let lint = async |text: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        verifier.lint_policy(OwnedFd::from(file).into(), Dictionary::new()).await
    };
    assert_eq!(lint(REJECT.as_bytes()).await.unwrap(), (true, Vec::new()));
    let (ok, findings) = lint(ACCEPT.as_bytes()).await.unwrap();
    assert!(ok && findings.len() == 1, "{findings:?}");
    assert_eq!(findings[0].value("severity"), Some(&Variant::from("warning")));
    assert_eq!(findings[0].value("code"), Some(&Variant::from("default-accepts-anything")));
    let (ok, findings) =
        lint(b"{\n \"default\": [{\"type\": \"insecureacceptanything\"}],\n \"x\\u0000\": 1}").await.unwrap();
    assert!(!ok);
    let places: Vec<_> = findings
        .iter()
        .map(|finding| {
            let text = |key: &str| match finding.value(key) {
                Some(Variant::Str(text)) => text.as_str().to_owned(),
                other => panic!("{key}: {other:?}"),
            };
            assert!(!text("message").is_empty() && text("severity") == "error", "{finding:?}");
            assert_eq!(text("file"), "policy");
            let (Some(Variant::U64(line)), Some(Variant::U64(column))) =
                (finding.value("line"), finding.value("column"))
            else {
                panic!("{finding:?}")
            };
            (text("code"), *line, *column)
        })
        .collect();
    let wanted = [("unknown-type", 2, 23), ("unknown-key", 3, 2)];
    assert_eq!(places, wanted.map(|(code, line, column)| (code.to_owned(), line, column)));
    // As the command says, and only with "check-paths" of files that the policy names.
    let key = rig.path().join("no-such-key");
    let policy = format!(
        r#"{{"default":[{{"type":"sigstoreSigned","keyPath":"{}","signedIdentity":{{"type":"matchRepository"}}}}]}}"#,
        key.display()
    );
    let checked = async |options| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(policy.as_bytes()).unwrap();
        let (ok, findings) = verifier.lint_policy(OwnedFd::from(file).into(), options).await.unwrap();
        let codes = findings.iter().map(|finding| match finding.value("code") {
            Some(Variant::Str(code)) => code.as_str().to_owned(),
            other => panic!("{other:?}"),
        });
        (ok, codes.collect::<Vec<_>>())
    };
    let named = rig.path().join("tried.json");
    fs::write(&named, &policy).unwrap();
    for (paths, ok) in [(false, true), (true, false)] {
        let found = checked(Dictionary::new().with("check-paths", paths)).await;
        let mut arguments = vec!["policy-lint", "--format", "json"];
        arguments.extend((!paths).then_some("--no-paths"));
        let (stores, tried) = (rig.registries_d(), named.to_str().unwrap());
        arguments.extend([
            "--registries-d",
            stores.to_str().unwrap(),
            "--registries-conf",
            "/dev/null",
            tried,
        ]);
        let printed = crate::support::vouchd(&arguments).json();
        let said: Vec<String> = printed["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| finding["code"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, (ok, said), "{printed}");
        assert_eq!(found.1.contains(&"key-file-unreadable".to_owned()), paths, "{found:?}");
    }
    for text in [&b""[..], b"[]", b"\xff", b"{\"default\":[]}"] {
        let (ok, findings) = lint(text).await.unwrap();
        assert!(!ok && !findings.is_empty());
    }
    // What it says is told up to a point, and what it costs is limited.
    let many = format!("{{\"default\":[{}{{}}]}}", "{},".repeat(100_000));
    let (ok, findings) = lint(many.as_bytes()).await.unwrap();
    assert!(!ok && findings.len() == 1_000, "{}", findings.len());
    let values = format!("{{\"default\":[{}{{}}]}}", "[],".repeat(600_000));
    let (ok, findings) = lint(values.as_bytes()).await.unwrap();
    assert!(!ok && findings.len() == 1, "{findings:?}");
    let error = lint(&vec![b' '; (4 << 20) + 1]).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.ManifestTooLarge");
    let (pipe, _writer) = std::io::pipe().unwrap();
    let error = verifier.lint_policy(OwnedFd::from(pipe).into(), Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.BadFileDescriptor");
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let error = verifier.lint_policy(file.into(), Dictionary::new().with("check-paths", 1_u32)).await;
    assert_eq!(name(&error.unwrap_err()), "org.freedesktop.DBus.Error.InvalidArgs");
    // The policy of the service is another.
    assert_eq!(verifier.policy_state().await.unwrap(), "loaded");
}

/// Arguments that nobody sends by accident: each is an error with a name.
#[tokio::test]
async fn hostile_arguments_are_errors_with_names() {
    let rig = Rig::new(ACCEPT);
    let verifier = rig.verifier().await;
    let digest = Digest::sha256(MANIFEST).to_string();
    let options = |number: usize| match number % 6 {
        0 => (0..10_000).fold(Dictionary::new(), |all, number| all.with(&format!("o{number}"), true)),
        1 => Dictionary::new().with("cookie", Str::from("x".repeat(1 << 16))),
        2 => Dictionary::new().with("cookie", Str::from("x")).with("cookie", Str::from("x")),
        3 => Dictionary::new().with(&"k".repeat(1 << 16), true),
        4 => {
            let (reader, _) = std::io::pipe().unwrap();
            let pipe = OwnedVariant::try_from(Variant::Fd(OwnedFd::from(reader).into())).unwrap();
            Dictionary::new().with("auth-file", pipe)
        }
        _ => Dictionary::new().with("", Variant::Array(vec![0_u8; 1 << 16].into()).try_to_owned().unwrap()),
    };
    let file = || zbus::wire::Fd::from(OwnedFd::from(tempfile::tempfile().unwrap()));
    for number in 0..60 {
        let errors = [
            verifier.verify_image(IMAGE, options(number)).await.map(|_| ()).unwrap_err(),
            verifier.evaluate_image(IMAGE, options(number)).await.map(|_| ()).unwrap_err(),
            verifier.verify_image_digest(IMAGE, &digest, options(number)).await.map(|_| ()).unwrap_err(),
            verifier.verify_manifest(IMAGE, file(), options(number)).await.map(|_| ()).unwrap_err(),
            verifier.explain_image(IMAGE, options(number)).await.map(|_| ()).unwrap_err(),
            verifier.lint_policy(file(), options(number)).await.map(|_| ()).unwrap_err(),
        ];
        for error in errors {
            let is_pipe = number % 6 == 4 && name(&error) == "org.vouchd.Verifier1.Error.BadFileDescriptor";
            let is_named = name(&error) == "org.freedesktop.DBus.Error.InvalidArgs";
            assert!(is_named || is_pipe, "{number}: {error}");
            assert!(error.to_string().len() < 500_000);
        }
    }
    assert_eq!(verifier.active_verifications().await.unwrap(), 0);
}

/// Rules T-24, T-25, T-27: what a caller hands over is for this call alone, and names no program.
#[tokio::test]
async fn an_authentication_file_can_be_handed_over() {
    let certificates = server::Rig::new();
    certificates.add_client_certificate("client");
    let registry = certificates
        .server_named("127.0.0.1", Some(server::ClientCertificate::Accepted), |_, seen| {
            match seen.header("authorization") {
                Some("Basic dTpwYXNz") => server::Reply::manifest(b"{\"schemaVersion\":2}"),
                Some(_) => server::Reply::status(403, ""),
                None => server::Reply::challenge("Basic realm=\"r\""),
            }
        })
        .await;
    let mut rig = Rig::new(ACCEPT);
    rig.settings.registry.cert_dir = Some(certificates.certs());
    let verifier = rig.verifier().await;
    let image = format!("docker://{}/ns/app:1", registry.host);
    let ask = async |content: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let descriptor = zbus::wire::Fd::from(OwnedFd::from(file));
        let options = Dictionary::new()
            .with("require-signature", false)
            .with("auth-file", OwnedVariant::try_from(Variant::Fd(descriptor)).unwrap());
        verifier.verify_image(&image, options).await.map(|_| ())
    };
    let anonymous = || verifier.verify_image(&image, Dictionary::new().with("require-signature", false));
    assert!(matches!(anonymous().await, Err(dbus::Error::RegistryAuth(_))));
    let auth = |pair: &str| {
        let entry = STANDARD.encode(pair);
        format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{entry}\"}}}}}}", registry.host)
    };
    // The client certificate is a credential of this host, and no others are used (T-25).
    assert!(registry.seen().iter().all(|seen| seen.client_certificate));
    let before = registry.count();
    ask(auth("u:pass").as_bytes()).await.unwrap();
    assert!(registry.seen()[before..].iter().all(|seen| !seen.client_certificate));
    // It is not kept.
    assert!(matches!(anonymous().await, Err(dbus::Error::RegistryAuth(_))));
    assert!(matches!(ask(auth("u:other").as_bytes()).await, Err(dbus::Error::RegistryAuth(_))));
    let count = registry.count();
    let helpers = format!("{{\"credHelpers\":{{\"{}\":\"x\"}}}}", registry.host);
    for content in [&b"{"[..], helpers.as_bytes(), b"{\"credsStore\":\"x\"}"] {
        let error = ask(content).await.unwrap_err();
        assert!(matches!(&error, dbus::Error::InvalidArgs(_)), "{error}");
        assert!(!error.to_string().contains("pass"), "{error}");
    }
    let error = ask(&[b' '; (4 << 20) + 1]).await.unwrap_err();
    assert!(matches!(&error, dbus::Error::ManifestTooLarge(_)), "{error}");
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = Variant::Fd(OwnedFd::from(reader).into());
    let options = Dictionary::new().with("auth-file", OwnedVariant::try_from(pipe).unwrap());
    let error = verifier.verify_image(&image, options).await.unwrap_err();
    assert!(matches!(&error, dbus::Error::BadFileDescriptor(_)), "{error}");
    assert_eq!(registry.count(), count);
}

#[tokio::test]
async fn the_xml_is_what_the_service_says_of_itself() {
    let rig = Rig::new(REJECT);
    let connection = rig.connection().await;
    let proxy = IntrospectableProxy::builder(&connection)
        .destination(dbus::NAME)
        .path(dbus::PATH)
        .build()
        .await
        .unwrap();
    let live = proxy.introspect().await.unwrap();
    let begin = live.find("  <interface name=\"org.vouchd.Verifier1.Manager\">").unwrap();
    let end = begin + live[begin..].find("</interface>").unwrap();
    let lines: String = live[begin..end].lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let text = format!(
        "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
         \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n\
         <!-- Written from the comments in src/dbus/mod.rs by the test the_xml_is_what_the_service_says_of_itself. -->\n\
         <node name=\"{}\">\n{}\n  </interface>\n</node>\n",
        dbus::PATH,
        lines.trim_end(),
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbus/org.vouchd.Verifier1.xml");
    if std::env::var_os("VOUCHD_WRITE_XML").is_some_and(|value| value == "1") {
        fs::write(&path, &text).unwrap();
    }
    let file = fs::read_to_string(&path).unwrap();
    assert_eq!(file, text, "write {} again with VOUCHD_WRITE_XML=1", path.display());
    // What would break a comment.
    assert!(!text.replace("<!--", "").replace("-->", "").contains("--"));
}

// With the real daemon on a private bus.

#[tokio::test]
async fn the_daemon_serves_and_refuses() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let daemon = Daemon::start(&bus, &rig);
    let connection = bus.connect().await;
    let dbus = DBusProxy::new(&connection).await.unwrap();
    assert!(dbus.name_has_owner(dbus::NAME.try_into().unwrap()).await.unwrap());
    let verifier = uncached(&connection).await;
    assert_eq!(verifier.policy_state().await.unwrap(), "loaded");
    assert_eq!(verifier.policy_path().await.unwrap(), rig.policy().display().to_string());

    let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.Rejected");
    let error = verifier.verify_image(IMAGE, Dictionary::new().with("no-such", true)).await.unwrap_err();
    assert_eq!(name(&error), "org.freedesktop.DBus.Error.InvalidArgs");

    fs::write(rig.policy(), "{\"default\":[]}").unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(verifier.policy_state().await.unwrap(), "invalid");
    let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.PolicyInvalid");
    let asked = dbus::evaluate(Some(&bus.address), IMAGE, &question(), SOON).await.unwrap_err();
    assert_eq!((asked.code(), asked.is_configuration()), ("policy-invalid", true));

    fs::write(rig.policy(), REJECT).unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(verifier.policy_state().await.unwrap(), "loaded");
    let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.Rejected");

    let report = dbus::evaluate(Some(&bus.address), IMAGE, &question(), SOON).await.unwrap();
    assert!(!report.allowed && report.decided);
    assert_eq!((report.route, report.code.as_deref()), (Route::Bus, Some("rejected-by-policy")));
    assert_eq!(report.scope.unwrap().file, rig.policy().display().to_string());

    // Every verdict leaves one record.
    let records = daemon.end();
    let about_image = |line: &&str| line.contains(IMAGE) && line.contains("VOUCHD_VERDICT=\"rejected\"");
    if !Path::new(JOURNAL).exists() {
        let records: Vec<_> = records.lines().filter(about_image).collect();
        assert_eq!(records.len(), 3, "{records:?}");
        // Only the last caller says who asks.
        let named: Vec<_> =
            records.iter().map(|line| line.contains("VOUCHD_INITIATOR=\"vouchd verify\"")).collect();
        assert_eq!(named, [false, false, true], "{records:?}");
        assert_eq!(records.iter().filter(|line| line.contains("VOUCHD_INITIATOR")).count(), 1, "{records:?}");
    }
}

/// T-28: as many hostile images as there is room for, and the daemon stays small and answers another.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_images_neither_fill_the_memory_nor_keep_others_out() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let certificates = server::Rig::new();
    let blob = vec![b'x'; 4 << 20];
    let layer = serde_json::json!({
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": Digest::sha256(&blob).to_string(),
        "size": blob.len(),
        "annotations": {"dev.cosignproject.cosign/signature": "AAAA"},
    });
    let attachment = serde_json::json!({"schemaVersion": 2, "layers": vec![layer; 1_000]}).to_string();
    let mut manifest = MANIFEST.to_vec();
    manifest.resize(4 << 20, b' ');
    let registry = certificates
        .server(move |_, seen| match seen.path.as_str() {
            "/v2/" => server::Reply::ok(b"{}"),
            path if path.ends_with(".sig") => server::Reply::manifest(attachment.as_bytes()),
            path if path.contains("/blobs/") => server::Reply::ok(&blob),
            path if path.contains("/good/") => server::Reply::manifest(MANIFEST),
            _ => server::Reply::manifest(&manifest),
        })
        .await;
    let key = "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUNvd0JRWURLMlZ3QXlFQUdiOUVDV21Fek5QLzN6bFkxcDdXVHNWZXJ3aWVVUXhvd21Eb0dqL2lOZzA9Ci0tLS0tRU5EIFBVQkxJQyBLRVktLS0tLQo=";
    let rig = Rig::new(
        &serde_json::json!({
            "default": [{"type": "sigstoreSigned", "keyData": key}],
            "transports": {"docker": {
                format!("{}/good", registry.host): [{"type": "insecureAcceptAnything"}],
            }},
        })
        .to_string(),
    );
    let text = "default-docker:\n  lookaside: file:///nonexistent\n  use-sigstore-attachments: true\n";
    fs::write(rig.registries_d().join("all.yaml"), text).unwrap();
    let mut command = Daemon::command(&bus, &rig);
    command.arg("--cert-dir").arg(certificates.certs()).args(["--registries-conf", "/dev/null"]);
    let daemon = Daemon::ready(command);
    let connection = bus.connect().await;
    let verifier = uncached(&connection).await;
    let hostile = (1..GATHERINGS.all).map(|number| {
        let (verifier, image) = (verifier.clone(), format!("docker://{}/evil/{number}:1", registry.host));
        async move { verifier.verify_image(&image, Dictionary::new()).await.map(|_| ()) }
    });
    let good = async {
        // The hostile ones have begun.
        tokio::time::sleep(A_WHILE).await;
        let image = format!("docker://{}/good/app:1", registry.host);
        verifier.verify_image(&image, Dictionary::new().with("require-signature", false)).await
    };
    let (refused, good) = tokio::join!(futures_util::future::join_all(hostile), good);
    good.unwrap();
    let names: Vec<String> = refused.into_iter().map(|answer| name(&answer.unwrap_err())).collect();
    let wanted = ["ManifestTooLarge", "TooManyRequests"].map(|error| format!("{}.Error.{error}", dbus::NAME));
    assert!(names.iter().all(|name| wanted.contains(name)), "{names:?}");
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kibibytes < 256 << 10, "{peak}");
    daemon.end();
}

#[tokio::test]
async fn there_is_one_daemon_and_nobody_replaces_it() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let daemon = Daemon::start(&bus, &rig);
    let connection = bus.connect().await;
    let dbus = DBusProxy::new(&connection).await.unwrap();
    let owner = dbus.get_name_owner(dbus::NAME.try_into().unwrap()).await.unwrap();

    let mut second = Daemon::spawn(&bus, &rig, &[]);
    let status = wait(&mut second, Duration::from_secs(10));
    assert!(!status.success(), "{status}");
    let mut said = String::new();
    second.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("already has an owner"), "{said}");

    let replacing = zbus::fdo::RequestNameFlags::REPLACE_EXISTING | zbus::fdo::RequestNameFlags::DO_NOT_QUEUE;
    assert!(connection.request_name_with_flags(dbus::NAME, replacing).await.is_err());
    assert_eq!(dbus.get_name_owner(dbus::NAME.try_into().unwrap()).await.unwrap(), owner);
    daemon.end();
}

#[test]
fn the_daemon_ends_with_its_bus() {
    let Some(mut bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let mut daemon = Daemon::start(&bus, &rig);
    bus.child.kill().unwrap();
    let status = wait(&mut daemon.child, Duration::from_secs(2));
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
}

#[test]
fn systemd_hears_of_start_life_reload_and_end() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let socket = rig.directory.path().join("notify");
    let heard = UnixDatagram::bind(&socket).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut child = Daemon::spawn(
        &bus,
        &rig,
        &[("NOTIFY_SOCKET", socket.into_os_string()), ("WATCHDOG_USEC", "200000".into())],
    );
    let until = |wanted: &str| {
        loop {
            let mut buffer = [0; 4096];
            let length = heard.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
        }
    };
    let ready = until("READY=1");
    assert!(ready.contains(&format!("STATUS=Policy {}", rig.policy().display())), "{ready}");
    until("WATCHDOG=1");
    until("WATCHDOG=1");
    fs::write(rig.policy(), "{").unwrap();
    signal(&child, Signal::SIGHUP);
    assert!(until("RELOADING=1").contains("MONOTONIC_USEC="));
    assert!(until("READY=1").contains("cannot be used"));
    signal(&child, Signal::SIGTERM);
    until("STOPPING=1");
    assert!(wait(&mut child, Duration::from_secs(5)).success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let path = rig.policy().display().to_string();
    let wanted =
        format!("looked at the configuration again: Policy {path} cannot be used: every image is refused");
    assert!(Path::new(JOURNAL).exists() || said.contains(&wanted), "{said}");
}

/// sd-daemon(3)
#[tokio::test]
async fn without_a_journal_a_services_lines_begin_with_their_priority() {
    if Path::new(JOURNAL).exists() {
        return;
    }
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let mut command = Daemon::command(&bus, &rig);
    command.env("INVOCATION_ID", "1");
    let daemon = Daemon::ready(command);
    let verifier = uncached(&bus.connect().await).await;
    assert!(verifier.verify_image(IMAGE, Dictionary::new()).await.is_err());
    let said = daemon.end();
    let begin = |line: &&str| line.starts_with("<4>") || line.starts_with("<6>");
    assert!(said.lines().all(|line| begin(&line)), "{said}");
    let about = said.lines().find(|line| line.contains(IMAGE)).unwrap();
    assert!(about.starts_with(&format!("<4>{IMAGE}: rejected: ")), "{about}");
    for field in
        ["MESSAGE_ID=\"d44937d6bb3c465baa9761b73ac071e1\"", "VOUCHD_CALLER_UID=", "VOUCHD_VERDICT_ID=1"]
    {
        assert!(about.contains(field), "{about}");
    }
}

#[tokio::test]
async fn what_runs_is_finished_before_the_end() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let silent = Silent::start().await;
    let rig = Rig::new(ACCEPT);
    let mut daemon = Daemon::start(&bus, &rig);
    let connection = bus.connect().await;
    let verifier = uncached(&connection).await;
    let (asking, image) = (verifier.clone(), silent.image());
    let call = tokio::spawn(async move {
        asking.verify_image(&image, Dictionary::new().with("timeout-usec", 2_000_000_u64)).await
    });
    while silent.connections.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    signal(&daemon.child, Signal::SIGTERM);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.TimedOut");
    let status = tokio::task::spawn_blocking(move || wait(&mut daemon.child, Duration::from_secs(5)));
    assert!(status.await.unwrap().success());
}

#[tokio::test]
async fn a_caller_that_leaves_gives_back_what_it_took() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let silent = Silent::start().await;
    let rig = Rig::new(ACCEPT);
    let daemon = Daemon::start(&bus, &rig);
    let staying = uncached(&bus.connect().await).await;
    // Long enough to come to its turn on a busy machine.
    let ask = async || {
        let options = Dictionary::new().with("timeout-usec", 300_000_u64);
        staying.verify_image(&silent.numbered(1000), options).await.unwrap_err()
    };
    let leaving = bus.connect().await;
    let verifier = uncached(&leaving).await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 1..GATHERINGS.all {
        let (verifier, image) = (verifier.clone(), silent.numbered(number));
        let options = Dictionary::new().with("timeout-usec", 600_000_000_u64);
        asking.spawn(async move { verifier.verify_image(&image, options).await.map(|_| ()) });
    }
    let mut program = mortal(env!("CARGO_BIN_EXE_vouchd"));
    program.args(["verify", "--bus", "--bus-address", &bus.address, "--timeout", "10m", &silent.numbered(0)]);
    let mut program = program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while silent.connections.load(Ordering::SeqCst) < GATHERINGS.all {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ask().await.code(), Some("too-many-requests"));
    // One is killed, which frees one.
    program.kill().unwrap();
    program.wait().unwrap();
    let freed = async || {
        let began = Instant::now();
        while ask().await.code() != Some("timed-out") {
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", ask().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    freed().await;
    // The rest has one connection.
    leaving.close().await.unwrap();
    asking.join_all().await;
    freed().await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..GATHERINGS.all {
        let (staying, image) = (staying.clone(), silent.numbered(2000 + number));
        let options = Dictionary::new().with("timeout-usec", 2_000_000_u64);
        asking.spawn(async move { staying.verify_image(&image, options).await.unwrap_err() });
    }
    assert!(asking.join_all().await.iter().all(|error| error.code() == Some("timed-out")));
    let records = daemon.end();
    if !Path::new(JOURNAL).exists() {
        let left = records.matches("not decided: the caller left the bus");
        assert_eq!(left.count(), GATHERINGS.all, "{records}");
    }
}

#[tokio::test]
async fn a_caller_can_cancel_its_own_verification() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let silent = Silent::start().await;
    let rig = Rig::new(ACCEPT);
    let daemon = Daemon::start(&bus, &rig);
    let (own, other) = (uncached(&bus.connect().await).await, uncached(&bus.connect().await).await);
    let options = |cookie: &str| {
        Dictionary::new().with("timeout-usec", 60_000_000_u64).with("cookie", Str::from(cookie.to_owned()))
    };
    let unknown = async |verifier: &VerifierProxy<'_>, cookie: &str| {
        let error = verifier.cancel_verification(cookie).await.unwrap_err();
        assert_eq!(name(&error), "org.vouchd.Verifier1.Error.UnknownCookie", "{error}");
        assert_eq!(error.code(), Some("unknown-cookie"));
    };
    unknown(&own, "one").await;
    let mut asking = tokio::task::JoinSet::new();
    for (number, (verifier, cookie)) in
        [(&own, "one"), (&own, "two"), (&other, "one")].into_iter().enumerate()
    {
        let (verifier, image, options) = (verifier.clone(), silent.numbered(number), options(cookie));
        asking.spawn(async move { verifier.verify_image(&image, options).await.unwrap_err() });
    }
    let began = Instant::now();
    while silent.connections.load(Ordering::SeqCst) < 3 {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = own.verify_image(&silent.image(), options("two")).await.unwrap_err();
    assert_eq!(name(&error), "org.freedesktop.DBus.Error.InvalidArgs", "{error}");
    for cookie in ["", "One", "three", &"x".repeat(2000)] {
        unknown(&own, cookie).await;
    }
    let error = own.cancel_verification(&"x".repeat(1 << 20)).await.unwrap_err();
    assert_eq!(error.code(), Some("usage"), "{error}");
    unknown(&other, "two").await;
    for verifier in [&own, &own, &other] {
        let cookie = if asking.len() == 2 { "two" } else { "one" };
        verifier.cancel_verification(cookie).await.unwrap();
        let error = asking.join_next().await.unwrap().unwrap();
        assert_eq!(name(&error), "org.vouchd.Verifier1.Error.Cancelled", "{error}");
        assert_eq!(error.code(), Some("cancelled"));
        unknown(verifier, cookie).await;
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // What was cancelled gives its place and its cookie back.
    for _ in 0..GATHERINGS.all + 1 {
        let options = Dictionary::new().with("timeout-usec", 1000_u64).with("cookie", Str::from("one"));
        let error = own.verify_image(&silent.image(), options).await.unwrap_err();
        assert_eq!(name(&error), "org.vouchd.Verifier1.Error.TimedOut", "{error}");
    }
    daemon.end();
}

/// T-34: everybody hears of the policy, only root of an image, and of its progress only who asked.
#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_those_whom_they_concern() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let silent = Silent::start().await;
    let rig = Rig::new(ACCEPT);
    let daemon = Daemon::start(&bus, &rig);
    let (connection, other) = (bus.connect().await, bus.connect().await);
    let (verifier, watching) = (uncached(&connection).await, uncached(&other).await);
    let listener = bus.listener();
    let mut policies = watching.receive_policy_changed().await.unwrap();
    let mut verdicts = watching.receive_verdict().await.unwrap();
    let mut progress = verifier.receive_progress().await.unwrap();
    let mut not_mine = watching.receive_progress().await.unwrap();

    let image = silent.image();
    let options = Dictionary::new().with("timeout-usec", 500_000_u64).with("cookie", Str::from("mine"));
    let error = verifier.verify_image(&image, options).await.unwrap_err();
    assert_eq!(error.code(), Some("timed-out"));
    let report = verifier.evaluate_image("docker-daemon:a/b:1", Dictionary::new()).await.unwrap();
    let Some(Variant::U64(id)) = report.value("verdict-id") else { panic!("{report:?}") };
    fs::write(rig.policy(), REJECT).unwrap();
    assert!(verifier.verify_image(IMAGE, Dictionary::new()).await.is_err());

    let mut heard = Vec::new();
    for _ in 0..3 {
        let signal = tokio::time::timeout(SOON, verdicts.next()).await.unwrap().unwrap();
        let told = signal.args().unwrap();
        let code = format!("{:?}", told.details().value("code"));
        heard.push((*told.verdict_id(), told.verdict().to_string(), told.reference().to_string(), code));
    }
    assert_eq!(heard[0].0 + 1, heard[1].0);
    assert_eq!(heard[1].0, *id);
    let wanted = [
        ("failed", image.as_str(), "timed-out"),
        ("rejected", "docker-daemon:a/b:1", "signature-required"),
        ("rejected", IMAGE, "rejected-by-policy"),
    ];
    for ((_, verdict, reference, code), wanted) in heard.iter().zip(wanted) {
        assert_eq!((verdict.as_str(), reference.as_str()), (wanted.0, wanted.1));
        assert!(code.contains(wanted.2), "{code}");
    }
    let changed = tokio::time::timeout(SOON, policies.next()).await.unwrap().unwrap();
    let told = changed.args().unwrap();
    let digest = Digest::sha256(REJECT.as_bytes()).to_string();
    assert_eq!((*told.policy_digest(), *told.state()), (digest.as_str(), "loaded"));
    let stage = tokio::time::timeout(SOON, progress.next()).await.unwrap().unwrap();
    assert_eq!(*stage.args().unwrap().cookie(), "mine");
    assert!(["resolving", "manifest"].contains(stage.args().unwrap().stage()));
    assert!(tokio::time::timeout(Duration::from_millis(100), not_mine.next()).await.is_err());

    let counters = verifier.counters().await.unwrap();
    let count = |name: &str| counters[name];
    assert_eq!((count("failed"), count("rejected"), count("verified"), count("cancelled")), (1, 2, 0, 0));
    if let Some(mut listener) = listener {
        // What was said is there by now; the last of it is the change of the policy.
        let said = listener.until("member=PolicyChanged");
        assert!(!said.contains("member=Verdict") && !said.contains("member=Progress"), "{said}");
        assert!(!said.contains("registry.invalid") && !said.contains(&silent.host), "{said}");
    }
    daemon.end();
}

/// T-34: what was refused is for root, who sees it in `vouchd status` too.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_refusals_are_told() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let daemon = Daemon::start(&bus, &rig);
    let verifier = uncached(&bus.connect().await).await;
    assert!(verifier.last_refusals().await.unwrap().is_empty());
    let initiator = Dictionary::new().with("initiator", Str::from("a\u{1b}b"));
    verifier.verify_image(IMAGE, initiator).await.unwrap_err();
    fs::write(rig.policy(), "{").unwrap();
    verifier.evaluate_image("docker://h.invalid/other:2", Dictionary::new()).await.unwrap_err();
    let refusals = verifier.last_refusals().await.unwrap();
    let text = |number: usize, key: &str| match refusals[number].value(key) {
        Some(Variant::Str(text)) => Some(text.as_str().to_owned()),
        _ => None,
    };
    for (number, verdict, reference, code, initiator) in [
        (0, "rejected", IMAGE, "rejected-by-policy", Some("a\\u{1b}b")),
        (1, "failed", "docker://h.invalid/other:2", "policy-invalid", None),
    ] {
        assert_eq!(text(number, "verdict").as_deref(), Some(verdict));
        assert_eq!(text(number, "reference").as_deref(), Some(reference));
        assert_eq!(text(number, "code").as_deref(), Some(code));
        assert_eq!(text(number, "initiator").as_deref(), initiator);
        assert_eq!(refusals[number].value("caller-uid"), Some(&Variant::U32(geteuid().as_raw())));
    }
    fs::write(rig.policy(), REJECT).unwrap();
    let status = |more: &[&str]| {
        let policy = rig.policy();
        let fixed = ["status", "--bus-address", &bus.address, "--policy", policy.to_str().unwrap()];
        crate::support::vouchd(&[&fixed[..], more].concat())
    };
    let (json, printed) = (status(&["--json"]).json(), status(&[]).stdout);
    if geteuid().is_root() {
        assert_eq!(json["daemon"]["refusals"][0]["reference"], IMAGE, "{json}");
        assert_eq!(json["daemon"]["refusals"].as_array().unwrap().len(), 2);
        assert!(printed.contains(&format!("{IMAGE} [rejected-by-policy]")), "{printed}");
    } else {
        assert!(json["daemon"]["refusals"].is_null() && !printed.contains(IMAGE), "{json} {printed}");
    }
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_whether_the_configuration_can_be_used() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let daemon = Daemon::start(&bus, &rig);
    let verifier = uncached(&bus.connect().await).await;
    let mut policies = verifier.receive_policy_changed().await.unwrap();
    let run = || crate::support::vouchd(&["reload", "--bus-address", &bus.address]);
    let digest = |text: &str| Digest::sha256(text.as_bytes()).to_string();
    assert_eq!(verifier.reload().await.unwrap(), digest(REJECT));
    let ran = run();
    assert_eq!((ran.exit, ran.stdout), (0, format!("the daemon uses the policy {}\n", digest(REJECT))));

    for (policy, yaml, error_name, code) in [
        ("{", "", "PolicyInvalid", "policy-invalid"),
        (REJECT, "[", "ConfigurationInvalid", "registries-d-invalid"),
    ] {
        fs::write(rig.policy(), policy).unwrap();
        fs::write(rig.registries_d().join("a.yaml"), yaml).unwrap();
        let error = verifier.reload().await.unwrap_err();
        assert_eq!(name(&error), format!("org.vouchd.Verifier1.Error.{error_name}"), "{error}");
        let ran = run();
        assert_eq!((ran.exit, ran.stdout.as_str()), (4, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(code), "{}", ran.stderr);
    }
    // Broken and mended, each said once, whoever noticed: the caller, or the signal.
    let next = async |policies: &mut dbus::PolicyChangedStream| {
        let signal = tokio::time::timeout(SOON, policies.next()).await.unwrap().unwrap();
        let told = signal.args().unwrap();
        (told.state().to_string(), told.policy_digest().to_string())
    };
    assert_eq!(next(&mut policies).await, ("invalid".to_owned(), String::new()));
    assert_eq!(next(&mut policies).await, ("loaded".to_owned(), digest(REJECT)));
    fs::write(rig.policy(), ACCEPT).unwrap();
    signal(&daemon.child, Signal::SIGHUP);
    assert_eq!(next(&mut policies).await, ("loaded".to_owned(), digest(ACCEPT)));
    assert!(tokio::time::timeout(Duration::from_millis(200), policies.next()).await.is_err());
    let records = daemon.end();
    // The signal says of registries.d what the call says.
    assert!(Path::new(JOURNAL).exists() || records.contains("a.yaml"), "{records}");
    let ran = run();
    assert_eq!(ran.exit, 3, "{}", ran.stderr);
}

#[tokio::test]
async fn callers_that_come_and_go_do_not_stop_the_daemon() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let daemon = Daemon::start(&bus, &rig);
    for _ in 0..300 {
        bus.connect().await.close().await.unwrap();
    }
    let verifier = uncached(&bus.connect().await).await;
    let asking = verifier.verify_image(IMAGE, Dictionary::new());
    let error = tokio::time::timeout(Duration::from_secs(2), asking).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some("rejected-by-policy"));
    daemon.end();
}

#[tokio::test]
async fn everybody_may_look_at_the_properties_at_once() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let daemon = Daemon::start(&bus, &rig);
    let verifier = uncached(&bus.connect().await).await;
    assert_eq!(verifier.policy_state().await.unwrap(), "loaded");
    let mut looking = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let verifier = verifier.clone();
        looking.spawn(async move { verifier.policy_state().await.unwrap() });
    }
    assert!(looking.join_all().await.iter().all(|state| state == "loaded"));
    daemon.end();
}

#[test]
fn a_reload_that_takes_long_stops_nothing() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let socket = rig.directory.path().join("notify");
    let heard = UnixDatagram::bind(&socket).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let hear = || {
        let mut buffer = [0; 4096];
        let length = heard.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut daemon = Daemon {
        child: Daemon::spawn(
            &bus,
            &rig,
            &[("NOTIFY_SOCKET", socket.into_os_string()), ("WATCHDOG_USEC", "200000".into())],
        ),
        said: None,
    };
    let child = &mut daemon.child;
    while !hear().starts_with("READY=1\n") {}
    let Some(mut slow) = Slow::start(child, &rig) else { return };
    let trying = Instant::now();
    loop {
        assert!(trying.elapsed() < Duration::from_secs(60), "strace slows nothing down");
        signal(child, Signal::SIGHUP);
        while !hear().starts_with("RELOADING=1\n") {}
        // One that takes a second is slow for no other reason; it ends after five.
        let began = Instant::now();
        let mut is_slow = true;
        while is_slow && began.elapsed() < Duration::from_secs(1) {
            is_slow = hear().trim_end() == "WATCHDOG=1";
        }
        if is_slow {
            break;
        }
        // A thread that began at the same time may have been left out, and reads every time.
        drop(slow);
        let Some(again) = Slow::start(child, &rig) else { return };
        slow = again;
    }
    // Another one waits for its turn.
    signal(child, Signal::SIGHUP);
    for _ in 0..3 {
        assert_eq!(hear().trim_end(), "WATCHDOG=1");
    }
    // Reading takes longer than it may, which ends the reload, and the other begins.
    let after = loop {
        let text = hear();
        if text.trim_end() != "WATCHDOG=1" {
            break text;
        }
    };
    assert!(after.starts_with("READY=1\n") && after.contains("cannot be read in time"), "{after}");
    while !hear().starts_with("RELOADING=1\n") {}
    let began = Instant::now();
    signal(child, Signal::SIGTERM);
    let next = loop {
        let text = hear();
        if text.trim_end() != "WATCHDOG=1" {
            break text;
        }
    };
    assert_eq!(next.trim_end(), "STOPPING=1");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(slow);
    assert!(wait(child, Duration::from_secs(3)).success());
}

#[tokio::test]
async fn a_policy_that_takes_long_holds_only_so_many() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let daemon = Daemon::start(&bus, &rig);
    let verifier = uncached(&bus.connect().await).await;
    tokio::time::sleep(A_WHILE).await;
    let Some(_slow) = Slow::start(&daemon.child, &rig) else { return };
    let began = Instant::now();
    let mut looking = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let verifier = verifier.clone();
        looking.spawn(async move { verifier.policy_state().await.unwrap_err().to_string() });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(verifier.version().await.unwrap(), env!("CARGO_PKG_VERSION"));
    let errors = looking.join_all().await;
    assert!(began.elapsed() < Duration::from_millis(6500), "{:?}", began.elapsed());
    let count = |wanted: &str| errors.iter().filter(|error| error.contains(wanted)).count();
    assert_eq!((count("Error.LimitsExceeded"), count("Error.Timeout")), (8, 32), "{errors:?}");
}

#[tokio::test]
async fn a_daemon_that_dies_or_hangs_is_not_waited_for() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let silent = Silent::start().await;
    let rig = Rig::new(ACCEPT);
    let mut daemon = Daemon::start(&bus, &rig);
    let (address, image) = (bus.address.clone(), silent.image());
    let asking = tokio::spawn(async move { dbus::evaluate(Some(&address), &image, &question(), SOON).await });
    while silent.connections.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.child.kill().unwrap();
    let error = asking.await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Bus(_)), "{error:?}");
    assert!(error.to_string().contains("the daemon went away before it answered"), "{error}");

    let daemon = Daemon::start(&bus, &rig);
    signal(&daemon.child, Signal::SIGSTOP);
    let began = Instant::now();
    let second = Duration::from_secs(1);
    let error = dbus::evaluate(Some(&bus.address), IMAGE, &question(), second).await.unwrap_err();
    assert!(error.to_string().contains("the daemon does not answer"), "{error}");
    assert!(began.elapsed() < Duration::from_millis(6500), "{:?}", began.elapsed());
    signal(&daemon.child, Signal::SIGCONT);
    daemon.end();
}

#[tokio::test]
async fn a_daemon_that_starts_slowly_is_not_waited_for_too_long() {
    let Some(bus) = Bus::start_with(Rules::Shipped, Some("/bin/sleep 30")) else { return };
    let began = Instant::now();
    let second = Duration::from_secs(1);
    let error = dbus::evaluate(Some(&bus.address), IMAGE, &question(), second).await.unwrap_err();
    assert!(matches!(error, ClientError::Bus(_)), "{error:?}");
    assert!(began.elapsed() < Duration::from_millis(6500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_daemon_reads_no_variable() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let other = rig.directory.path().join("other.json");
    fs::write(&other, ACCEPT).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vouchd"));
    child.args(["daemon", "--bus-address", &bus.address]);
    child.env("CONTAINERS_POLICY_JSON", &other).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/no/such");
    let daemon = Daemon::ready(child);
    let verifier = uncached(&bus.connect().await).await;
    assert_ne!(verifier.policy_path().await.unwrap(), other.display().to_string());
    daemon.end();
}

/// Rule T-23: what others can change decides nothing.
#[tokio::test]
async fn the_daemon_uses_no_policy_or_key_that_others_can_change() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(REJECT);
    let daemon = Daemon::start(&bus, &rig);
    let verifier = uncached(&bus.connect().await).await;
    let code = async || {
        let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
        (error.code().unwrap().to_owned(), error.message())
    };
    let keys = rig.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let key = keys.join("key.pub");
    fs::write(&key, rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap();
    let signed = format!(r#"{{"default":[{{"type":"sigstoreSigned","keyPath":"{}"}}]}}"#, key.display());
    for (text, path, wanted) in [
        (REJECT, rig.policy(), "policy-invalid"),
        (&signed, key.clone(), "key-file-unreadable"),
        (&signed, keys.clone(), "key-file-unreadable"),
        (&signed, rig.path().to_owned(), "policy-invalid"),
    ] {
        fs::write(rig.policy(), text).unwrap();
        let good = fs::metadata(&path).unwrap().permissions();
        let before = code().await;
        assert!(matches!(before.0.as_str(), "rejected-by-policy" | "registry-unavailable"), "{before:?}");
        fs::set_permissions(&path, fs::Permissions::from_mode(good.mode() | 0o002)).unwrap();
        let (found, message) = code().await;
        assert_eq!(found, wanted, "{message}");
        assert!(message.contains("can be changed by others than root"), "{message}");
        fs::set_permissions(&path, good).unwrap();
        assert_eq!(code().await.0, before.0);
    }
    daemon.end();
}

#[test]
fn everybody_may_look_and_without_polkit_only_root_may_ask() {
    if !geteuid().is_root() {
        return skip("needs root to be somebody else");
    }
    if !is_installed("busctl") || !is_installed("setpriv") {
        return skip("needs busctl and setpriv");
    }
    let call = ["call", dbus::NAME, dbus::PATH, "org.vouchd.Verifier1.Manager"];
    let digest = Digest::sha256(MANIFEST).to_string();
    let methods: [&[&str]; 6] = [
        &["LastRefusals"],
        &["VerifyImage", "sa{sv}", IMAGE, "0"],
        &["EvaluateImage", "sa{sv}", IMAGE, "0"],
        &["VerifyImageDigest", "ssa{sv}", IMAGE, &digest, "0"],
        &["ExplainImage", "sa{sv}", IMAGE, "0"],
        &["Reload"],
    ];
    for rules in [Rules::Shipped, Rules::Open] {
        let Some(bus) = Bus::start(rules) else { return };
        let rig = Rig::new(REJECT);
        let daemon = Daemon::start(&bus, &rig);
        for method in methods {
            let output = bus.as_nobody(&[&call[..], method].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{said}");
            assert!(said.contains("Access denied"), "{said}");
        }
        let output = bus.as_nobody(&[&call[..], &["CancelVerification", "s", "cookie"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("no verification of this caller"), "{said}");
        for property in
            ["Version", "PolicyState", "PolicyPath", "Counters", "ActiveVerifications", "Features"]
        {
            let get = ["get-property", dbus::NAME, dbus::PATH, "org.vouchd.Verifier1.Manager", property];
            let output = bus.as_nobody(&get);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(bus.as_nobody(&["introspect", dbus::NAME, dbus::PATH]).status.success());
        daemon.end();
    }
}

#[tokio::test]
async fn a_name_that_somebody_else_owns_is_not_asked() {
    if !geteuid().is_root() {
        return skip("needs root to be somebody else");
    }
    let Some(bus) = Bus::start(Rules::Open) else { return };
    let rig = Rig::new(ACCEPT);
    fs::set_permissions(rig.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", env!("CARGO_BIN_EXE_vouchd")]);
    command.args(["daemon", "--bus-address", &bus.address, "--policy"]).arg(rig.policy());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let connection = bus.connect().await;
    let proxy = DBusProxy::new(&connection).await.unwrap();
    let began = Instant::now();
    while !proxy.name_has_owner(dbus::NAME.try_into().unwrap()).await.unwrap() {
        if child.try_wait().unwrap().is_some() {
            return skip("uid 65534 cannot run the program");
        }
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut lax = question();
    lax.require_signature = false;
    let error = dbus::evaluate(Some(&bus.address), "docker-daemon:a/b:1", &lax, SOON).await.unwrap_err();
    assert!(matches!(&error, ClientError::Bus(detail) if detail.contains("65534")), "{error:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn absence_is_told_from_failure() {
    let nowhere = tempfile::tempdir().unwrap();
    let address = format!("unix:path={}", nowhere.path().join("sock").display());
    let error = dbus::evaluate(Some(&address), IMAGE, &question(), SOON).await.unwrap_err();
    assert!(matches!(error, ClientError::NotAvailable(_)), "{error:?}");

    // A socket that nobody listens on.
    let path = nowhere.path().join("dead");
    let dead = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let address = format!("unix:path={}", path.display());
    drop(dead);
    let error = dbus::evaluate(Some(&address), IMAGE, &question(), SOON).await.unwrap_err();
    assert!(matches!(error, ClientError::Bus(_)), "{error:?}");

    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let error = dbus::evaluate(Some(&bus.address), IMAGE, &question(), SOON).await.unwrap_err();
    assert!(matches!(error, ClientError::NotAvailable(_)), "{error:?}");

    // It could be started, but fails.
    let Some(bus) = Bus::start_with(Rules::Shipped, Some("/bin/false")) else { return };
    let error = dbus::evaluate(Some(&bus.address), IMAGE, &question(), SOON).await.unwrap_err();
    assert!(matches!(error, ClientError::Bus(_)), "{error:?}");
}

#[tokio::test]
async fn the_daemon_is_started_when_it_is_needed() {
    let rig = Rig::new(REJECT);
    let command = format!(
        "{} daemon --bus-address ADDRESS --policy {} --registries-d {}",
        env!("CARGO_BIN_EXE_vouchd"),
        rig.policy().display(),
        rig.registries_d().display()
    );
    let Some(bus) = Bus::start_with(Rules::Shipped, Some(&command)) else { return };
    let report = dbus::evaluate(Some(&bus.address), IMAGE, &question(), SOON).await.unwrap();
    assert_eq!(report.code.as_deref(), Some("rejected-by-policy"));
}

// The files that are installed.

#[test]
fn the_units_are_hardened_and_valid() {
    if !is_installed("systemd-analyze") {
        return skip("needs systemd-analyze");
    }
    for name in ["vouchd.service", "vouchd-trust-update.service"] {
        check_unit(name);
    }
    let timer = shipped("systemd/vouchd-trust-update.timer");
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&timer).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_us =
        |line: &&str| line.contains("vouchd") && !line.contains("/usr/bin/vouchd is not executable");
    assert!(!said.lines().any(|line| about_us(&line)), "{said}");
}

fn check_unit(name: &str) {
    let unit = shipped(&format!("systemd/{name}"));
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
        .arg(&unit)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // The program must exist for this one, and the unit have the name of its alias' type.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join(name);
    let text = fs::read_to_string(&unit).unwrap().replace("/usr/bin/vouchd", env!("CARGO_BIN_EXE_vouchd"));
    fs::write(&copy, text).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_us = said.lines().filter(|line| line.contains("vouchd")).collect::<Vec<_>>();
    assert!(about_us.is_empty(), "{said}");
}

#[test]
fn the_files_agree_with_each_other() {
    let unit = fs::read_to_string(shipped("systemd/vouchd.service")).unwrap();
    let activation = fs::read_to_string(shipped("dbus/org.vouchd.Verifier1.service")).unwrap();
    let rules = fs::read_to_string(shipped("dbus/org.vouchd.Verifier1.conf")).unwrap();
    let users = fs::read_to_string(shipped("systemd/vouchd.sysusers.conf")).unwrap();
    let actions = fs::read_to_string(shipped("dbus/org.vouchd.Verifier1.policy")).unwrap();
    let known =
        actions.lines().filter_map(|line| line.trim().strip_prefix("<action id=\"")?.strip_suffix("\">"));
    assert_eq!(known.collect::<Vec<_>>(), dbus::Action::ALL.map(dbus::Action::id));
    let owner = r#"<annotate key="org.freedesktop.policykit.owner">unix-user:vouchd</annotate>"#;
    assert_eq!(actions.lines().filter(|line| line.trim() == owner).count(), dbus::Action::ALL.len());
    let interface = fs::read_to_string(shipped("dbus/org.vouchd.Verifier1.xml")).unwrap();
    let members = |text: &str, before: &str| {
        let names = text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        names.collect::<std::collections::BTreeSet<String>>()
    };
    let mut callable = members(&interface, r#"<method name=""#);
    // Rule T-34: for root alone.
    assert!(callable.remove("LastRefusals"));
    assert_eq!(members(&rules, r#"send_interface="org.vouchd.Verifier1.Manager" send_member=""#), callable);
    for (text, line) in [
        (&unit, "User=vouchd"),
        (&unit, "BusName=org.vouchd.Verifier1"),
        (&unit, "Alias=dbus-org.vouchd.Verifier1.service"),
        (&unit, "Environment=MALLOC_ARENA_MAX=2"),
        (&unit, "UnsetEnvironment=RUST_BACKTRACE RUST_LIB_BACKTRACE"),
        (&activation, "SystemdService=dbus-org.vouchd.Verifier1.service"),
        (&activation, "Name=org.vouchd.Verifier1"),
        (&activation, "User=vouchd"),
        (&rules, "  <policy user=\"vouchd\">"),
    ] {
        assert!(text.lines().any(|known| known == line), "{line}");
    }
    assert!(users.lines().any(|line| line.starts_with("u vouchd ")));
    assert!(users.lines().any(|line| line.starts_with("u vouchd-trust ")));
    let update = fs::read_to_string(shipped("systemd/vouchd-trust-update.service")).unwrap();
    for line in ["User=vouchd-trust", "StateDirectory=vouchd-trust", "ExecStart=/usr/bin/vouchd trust update"]
    {
        assert!(update.lines().any(|known| known == line), "{line}");
    }
}

// What the tests stand on.

/// Enough for anything that does not wait for the network.
const SOON: Duration = Duration::from_secs(20);

/// Longer than the properties may be behind the files.
const A_WHILE: Duration = Duration::from_millis(1100);

pub(crate) fn name(error: &dbus::Error) -> String {
    error.name().to_string()
}

fn question() -> Question {
    Question { require_signature: true, subject: Subject::Either, platform: Platform::host() }
}

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Says why a test does nothing; where everything must be tested, that is a failure.
fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn wait(child: &mut Child, patience: Duration) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(began.elapsed() < patience, "it still runs after {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) async fn uncached(connection: &Connection) -> VerifierProxy<'static> {
    VerifierProxy::builder(connection).cache_properties(CacheProperties::No).build().await.unwrap()
}

/// A configuration, and the interface on one end of a socket pair.
pub(crate) struct Rig {
    directory: TempDir,
    pub(crate) settings: Settings,
}

impl Rig {
    pub(crate) fn new(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.json");
        fs::write(&file, policy).unwrap();
        Self::with_source(directory, PolicySource::Explicit(file))
    }

    /// Nothing is where a policy is looked for.
    fn searching() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment { root: directory.path().to_owned(), uid: 0, user: None };
        Self::with_source(directory, PolicySource::Search(environment))
    }

    fn with_source(directory: TempDir, policy: PolicySource) -> Self {
        let registries_d = directory.path().join("registries.d");
        fs::create_dir(&registries_d).unwrap();
        let settings = Settings {
            policy: policy.into(),
            configuration: Configuration {
                registries_d: Directories::explicit(registries_d, &Environment::system()),
                registries_conf: RegistriesConfSource::Explicit("/dev/null".into()),
                proxies: ProxySource::Variables(ProxySettings::default()),
            },
            short_names: ShortNames::AliasesOnly,
            registry: registry::Settings { auth: Source::Anonymous, ..registry::Settings::default() },
            environment: Environment::system(),
        };
        Self { directory, settings }
    }

    fn with_registry(mut self, registry: &Registry) -> Self {
        let certificates = self.directory.path().join("certs");
        fs::create_dir(&certificates).unwrap();
        fs::write(certificates.join("ca.crt"), &registry.certificate).unwrap();
        self.settings.registry.cert_dir = Some(certificates);
        // The built-in store of this host may be closed to whoever tests.
        let store = self.directory.path().join("store");
        let text = format!("default-docker:\n  lookaside: file://{}\n", store.display());
        fs::write(self.registries_d().join("store.yaml"), text).unwrap();
        self
    }

    pub(crate) fn policy(&self) -> PathBuf {
        self.directory.path().join("policy.json")
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn registries_d(&self) -> PathBuf {
        self.directory.path().join("registries.d")
    }

    async fn connection(&self) -> Connection {
        let verifier = Verifier::new(Arc::new(Engine::new(self.settings.clone())));
        let (server, client) = std::os::unix::net::UnixStream::pair().unwrap();
        let server = zbus::connection::Builder::unix_stream(server)
            .server(Guid::generate())
            .p2p()
            .serve_at(dbus::PATH, Served::new(verifier));
        let client = zbus::connection::Builder::unix_stream(client).p2p();
        let (server, client) = tokio::try_join!(server.build(), client.build()).unwrap();
        // It lives as long as the client does.
        let closed = client.clone();
        tokio::spawn(async move {
            closed.closed().await;
            drop(server);
        });
        client
    }

    pub(crate) async fn verifier(&self) -> VerifierProxy<'static> {
        uncached(&self.connection().await).await
    }
}

/// A registry with one image.
struct Registry {
    host: String,
    certificate: String,
}

impl Registry {
    async fn start() -> Self {
        Self::of_index(None).await
    }

    /// The tag leads to the index, if there is one, and everything else to the manifest.
    async fn of_index(index: Option<String>) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let tagged = request.windows(12).any(|part| part == b"/manifests/1");
                let (kind, body) = match &index {
                    Some(index) if tagged => ("index", index.as_bytes()),
                    Some(_) | None => ("manifest", MANIFEST),
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.{kind}.v1+json\r\n\
                     Content-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { host, certificate: made.cert.pem() }
    }

    fn image(&self) -> String {
        format!("docker://{}/ns/app:1", self.host)
    }
}

/// A registry that takes connections and says nothing.
pub(crate) struct Silent {
    pub(crate) host: String,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Silent {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { host, connections }
    }

    pub(crate) fn image(&self) -> String {
        format!("docker://{}/a/b:1", self.host)
    }

    /// One of several images: all who ask for one have it gathered once.
    pub(crate) fn numbered(&self, number: usize) -> String {
        format!("docker://{}/a/b:n{number}", self.host)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Everybody may own and send everything.
    Open,
    /// Those of `dbus/org.vouchd.Verifier1.conf`, with this user in place of `vouchd`.
    Shipped,
}

/// A private bus; specs/dbus-systemd.md, section 1.1.
pub(crate) struct Bus {
    _directory: TempDir,
    pub(crate) address: String,
    child: Child,
}

impl Bus {
    /// Nothing, if there is no dbus-daemon.
    pub(crate) fn start(rules: Rules) -> Option<Self> {
        Self::start_with(rules, None)
    }

    /// As [`Bus::start`]; the bus starts `command` for the name, without systemd. `ADDRESS` is its own.
    fn start_with(rules: Rules, command: Option<&str>) -> Option<Self> {
        if !is_installed("dbus-daemon") {
            skip("needs dbus-daemon");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(path.join("services")).unwrap();
        fs::create_dir(path.join("rules")).unwrap();
        let shipped = fs::read_to_string(shipped("dbus/org.vouchd.Verifier1.conf")).unwrap();
        let user = nix::unistd::User::from_uid(geteuid()).unwrap().unwrap().name;
        let ours = match rules {
            Rules::Open => {
                r#"<busconfig><policy context="default"><allow own="*"/><allow send_destination="*"/></policy></busconfig>"#
                    .to_owned()
            }
            // Whoever tests must be able to ask, too.
            Rules::Shipped => shipped
                .replace("user=\"vouchd\"", &format!("user=\"{user}\""))
                .replace("user=\"root\"", &format!("user=\"{user}\"")),
        };
        fs::write(path.join("rules/org.vouchd.Verifier1.conf"), ours).unwrap();
        let polkit = format!(
            r#"<busconfig><policy user="{user}"><allow own="org.freedesktop.PolicyKit1"/></policy>
            <policy context="default"><allow send_destination="org.freedesktop.PolicyKit1"/></policy></busconfig>"#
        );
        fs::write(path.join("rules/polkit.conf"), polkit).unwrap();
        let base = path.display();
        let address = format!("unix:path={base}/sock");
        if let Some(command) = command {
            let command = command.replace("ADDRESS", &address);
            let text = format!("[D-BUS Service]\nName={}\nExec={command}\nUser={user}\n", dbus::NAME);
            fs::write(path.join("services/org.vouchd.Verifier1.service"), text).unwrap();
        }
        let configuration = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
            <busconfig><type>system</type><listen>unix:path={base}/sock</listen><auth>EXTERNAL</auth>
              <servicedir>{base}/services</servicedir>
              <policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/>
                <allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
                <allow send_requested_reply="true" send_type="error"/>
                <allow receive_type="method_call"/><allow receive_type="method_return"/>
                <allow receive_type="error"/><allow receive_type="signal"/>
                <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
                <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
                <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
              </policy>
              <includedir>{base}/rules</includedir></busconfig>"#
        );
        fs::write(path.join("bus.conf"), configuration).unwrap();
        let mut command = mortal("dbus-daemon");
        command.arg(format!("--config-file={base}/bus.conf")).args(["--nofork", "--print-address"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with(&address), "dbus-daemon said {line:?}");
        fs::set_permissions(path.join("sock"), fs::Permissions::from_mode(0o777)).unwrap();
        Some(Self { _directory: directory, address, child })
    }

    pub(crate) async fn connect(&self) -> Connection {
        zbus::connection::Builder::address(self.address.as_str()).build().await.unwrap()
    }

    /// What uid 65534 hears; nothing, if it cannot be that.
    fn listener(&self) -> Option<Listener> {
        if !geteuid().is_root() || !is_installed("dbus-monitor") || !is_installed("setpriv") {
            skip("needs root to be somebody else, and dbus-monitor and setpriv");
            return None;
        }
        let mut command = mortal("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "dbus-monitor", "--address"]);
        command.args([&self.address, "interface='org.vouchd.Verifier1.Manager'"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut listener = Listener { child, said };
        // It has its match rules once it has heard its name.
        listener.until("member=NameAcquired");
        std::thread::sleep(Duration::from_millis(200));
        Some(listener)
    }

    /// Runs busctl as uid 65534.
    fn as_nobody(&self, arguments: &[&str]) -> Output {
        Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "busctl"])
            .arg(format!("--address={}", self.address))
            .args(arguments)
            .output()
            .unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that prints what it hears on the bus.
struct Listener {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Listener {
    /// What it prints, up to a line with this text.
    fn until(&mut self, text: &str) -> String {
        let mut said = String::new();
        while !said.contains(text) {
            let before = said.len();
            self.said.read_line(&mut said).unwrap();
            assert!(said.len() > before, "{text}: {said}");
        }
        said
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The real program.
pub(crate) struct Daemon {
    child: Child,
    /// What it writes, which somebody must read.
    said: Option<std::thread::JoinHandle<String>>,
}

impl Daemon {
    fn spawn(bus: &Bus, rig: &Rig, environment: &[(&str, OsString)]) -> Child {
        let mut command = Self::command(bus, rig);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.spawn().unwrap()
    }

    fn command(bus: &Bus, rig: &Rig) -> Command {
        let mut command = mortal(env!("CARGO_BIN_EXE_vouchd"));
        command.args(["daemon", "--bus-address", &bus.address, "--policy"]).arg(rig.policy());
        command.arg("--registries-d").arg(rig.registries_d());
        // As its unit has it.
        command.env("MALLOC_ARENA_MAX", "2");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(bus: &Bus, rig: &Rig) -> Self {
        Self::ready(Self::command(bus, rig))
    }

    /// Starts it and waits for READY=1.
    fn ready(mut command: Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("notify");
        let heard = UnixDatagram::bind(&socket).unwrap();
        heard.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut child = command.env("NOTIFY_SOCKET", &socket).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            let _ = stderr.read_to_string(&mut said);
            said
        });
        let mut buffer = [0; 4096];
        let length = heard.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"READY=1\n"));
        Self { child, said: Some(said) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it properly, and returns what it wrote.
    pub(crate) fn end(mut self) -> String {
        signal(&self.child, Signal::SIGTERM);
        assert!(wait(&mut self.child, Duration::from_secs(5)).success());
        self.said.take().unwrap().join().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reading the policy takes eight seconds.
struct Slow(Child);

impl Slow {
    /// Nothing, if this program may not trace another.
    fn start(child: &Child, rig: &Rig) -> Option<Self> {
        if !is_installed("strace") {
            skip("needs strace");
            return None;
        }
        let mut command = mortal("strace");
        command.args(["-f", "-o", "/dev/null", "-p", &child.id().to_string(), "-e", "trace=openat", "-P"]);
        command.arg(rig.policy()).args(["-e", "inject=openat:delay_enter=8000000"]);
        let mut slow = Self(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut said = String::new();
        BufReader::new(slow.0.stderr.take().unwrap()).read_line(&mut said).unwrap();
        if !said.contains("attached") {
            skip("strace may not trace");
            return None;
        }
        // It says so before each thread has stopped for it once.
        std::thread::sleep(Duration::from_millis(300));
        Some(slow)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that ends when this one does, where setpriv(1) can arrange it.
pub(crate) fn mortal(program: &str) -> Command {
    if is_installed("setpriv") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", program]);
        command
    } else {
        Command::new(program)
    }
}
