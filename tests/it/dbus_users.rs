//! The interface for users other than root, on a private bus with a polkit that says what a test wants.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::geteuid;
use tokio::task::JoinSet;
use zbus::proxy::MethodFlags;
use zbus::wire::Str;
use zbus::{Connection, OwnedVariant, Variant};

use vouchd::dbus::{self, Dictionary, Served, Verifier, VerifierProxy};
use vouchd::digest::Digest;
use vouchd::engine::Engine;

use crate::dbus::{Bus, Rig, Rules, Silent, mortal, name, uncached};
use crate::server;
use crate::support::{is_installed, skip};

const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;
const IMAGE: &str = "docker://registry.invalid/a/b:1";
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

const EXPLAIN: &str = "org.vouchd.Verifier1.explain";
const INSPECT_PATHS: &str = "org.vouchd.Verifier1.inspect-paths";
const RELOAD: &str = "org.vouchd.Verifier1.reload";
const USE_CREDENTIALS: &str = "org.vouchd.Verifier1.use-credentials";
const VERIFY: &str = "org.vouchd.Verifier1.verify";
const VERIFY_INSECURE: &str = "org.vouchd.Verifier1.verify-insecure";

// What polkit allows.

#[tokio::test]
async fn each_method_wants_the_leave_of_polkit() {
    let Some(host) = Host::start(Rig::new(REJECT)).await else { return };
    let user = host.user(NOBODY).await;
    let verifier = uncached(&user.connection).await;
    let strict = Dictionary::new;
    let lax = || Dictionary::new().with("require-signature", false);
    let digest = Digest::sha256(MANIFEST).to_string();
    for answer in [Answer::No, Answer::Challenge, Answer::Yes] {
        // With every action before the one that is tried allowed.
        for (method, options, actions) in [
            ("VerifyImage", strict(), &[VERIFY][..]),
            ("VerifyImage", lax(), &[VERIFY, VERIFY_INSECURE]),
            ("VerifyImage", strict().with("anonymous", false), &[VERIFY, USE_CREDENTIALS]),
            ("EvaluateImage", strict(), &[VERIFY]),
            ("EvaluateImage", lax(), &[VERIFY, VERIFY_INSECURE]),
            ("VerifyImageDigest", strict(), &[VERIFY]),
            ("VerifyImageDigest", lax(), &[VERIFY, VERIFY_INSECURE]),
            ("VerifyManifest", strict(), &[VERIFY]),
            ("VerifyManifest", lax(), &[VERIFY, VERIFY_INSECURE]),
            ("ExplainImage", strict(), &[EXPLAIN]),
            ("LintPolicy", strict(), &[EXPLAIN]),
            ("LintPolicy", strict().with("check-paths", true), &[INSPECT_PATHS]),
            ("Reload", strict(), &[RELOAD]),
        ] {
            for flags in [MethodFlags::empty(), MethodFlags::ALLOW_INTERACTIVE_AUTH] {
                let (last, before) = actions.split_last().unwrap();
                host.polkit.set(before.iter().map(|action| (*action, Answer::Yes)).chain([(*last, answer)]));
                let proxy = verifier.inner();
                let result = match method {
                    "VerifyImageDigest" => call(proxy, method, flags, &(IMAGE, &digest, &options)).await,
                    "VerifyManifest" => {
                        call(proxy, method, flags, &(IMAGE, sealed(MANIFEST), &options)).await
                    }
                    "LintPolicy" => call(proxy, method, flags, &(sealed(b"{}"), &options)).await,
                    "Reload" => call(proxy, method, flags, &()).await,
                    _ => call(proxy, method, flags, &(IMAGE, &options)).await,
                };
                let what = format!("{method} {last} {answer:?} {flags:?}");
                let code = result.as_ref().err().and_then(dbus::Error::code);
                let is_interactive = flags.contains(MethodFlags::ALLOW_INTERACTIVE_AUTH);
                match answer {
                    Answer::No => assert_eq!(code, Some("access-denied"), "{what}"),
                    Answer::Challenge if is_interactive => assert_eq!(code, Some("access-denied"), "{what}"),
                    Answer::Challenge => {
                        let error = result.unwrap_err();
                        assert_eq!(error.code(), Some("authorization-required"), "{what}");
                        assert_eq!(
                            name(&error),
                            "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
                        );
                    }
                    Answer::Yes => {
                        assert!(matches!(code, None | Some("rejected-by-policy")), "{what}: {code:?}")
                    }
                    Answer::Never => unreachable!(),
                }
                let asked = host.polkit.asked();
                let wanted = actions.iter().map(|action| (*action, is_interactive));
                // What a caller may be shown silently is asked about silently.
                let quiet = (USE_CREDENTIALS, false);
                let is_shown = answer == Answer::Yes && last.starts_with(VERIFY);
                let wanted: Vec<_> = wanted.chain(is_shown.then_some(quiet)).collect();
                let found: Vec<_> =
                    asked.iter().map(|asked| (asked.action.as_str(), asked.flags == 1)).collect();
                assert_eq!(found, wanted, "{what}");
                let me = user.connection.unique_name().unwrap().as_str();
                assert!(asked.iter().all(|asked| asked.subject == me), "{asked:?} {me}");
            }
        }
    }
    // Its own calls it may always cancel, and root asks nobody.
    host.polkit.set([]);
    let error = verifier.cancel_verification("none").await.unwrap_err();
    assert_eq!(error.code(), Some("unknown-cookie"));
    let root = host.root().await;
    assert_eq!(root.verify_image(IMAGE, lax()).await.unwrap_err().code(), Some("rejected-by-policy"));
    root.reload().await.unwrap();
    assert!(host.polkit.asked().is_empty());
}

/// Rule T-26: who waits for a password keeps nobody else from anything, and is not waited for.
#[tokio::test]
async fn waiting_for_polkit_holds_nothing_and_can_be_ended() {
    let Some(host) = Host::start(Rig::new(REJECT)).await else { return };
    host.polkit.set([(VERIFY, Answer::Never)]);
    let user = host.user(NOBODY).await;
    let verifier = uncached(&user.connection).await;
    let mut waiting = JoinSet::new();
    for cookie in 0..8 {
        let (verifier, cookie) = (verifier.clone(), cookie.to_string());
        waiting.spawn(async move {
            let options = Dictionary::new().with("cookie", Str::from(cookie));
            verifier.verify_image(IMAGE, options).await.unwrap_err()
        });
    }
    until("all wait", || host.polkit.count() == 8).await;
    let root = host.root().await;
    assert_eq!(root.active_verifications().await.unwrap(), 0);
    let error = root.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!(error.code(), Some("rejected-by-policy"));

    verifier.cancel_verification("7").await.unwrap();
    let error = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(error.code(), Some("cancelled"));
    until("polkit to hear of it", || host.polkit.cancelled().len() == 1).await;
    let asked = host.polkit.asked();
    assert!(asked.iter().any(|asked| asked.id == host.polkit.cancelled()[0]));
    drop(user);
    until("polkit to hear that the caller left", || host.polkit.cancelled().len() == 8).await;
    let unique: std::collections::BTreeSet<String> = asked.into_iter().map(|asked| asked.id).collect();
    assert_eq!(unique, host.polkit.cancelled().into_iter().collect());
}

/// Rule T-26: of one connection the bus takes only so many questions.
#[tokio::test]
async fn users_who_have_polkit_wait_keep_no_other_user_out() {
    let Some(host) = Host::start(Rig::new(REJECT)).await else { return };
    host.polkit.set([(VERIFY, Answer::Never), (EXPLAIN, Answer::Yes)]);
    let (mut users, mut waiting) = (Vec::new(), JoinSet::new());
    for uid in [1, 2] {
        let user = host.user(uid).await;
        let verifier = uncached(&user.connection).await;
        for _ in 0..64 {
            let verifier = verifier.clone();
            waiting.spawn(async move { verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err() });
        }
        users.push(user);
    }
    for _ in 0..2 * (64 - 8) {
        let error = waiting.join_next().await.unwrap().unwrap();
        assert_eq!(error.code(), Some("too-many-requests"), "{error}");
    }
    let other = host.user(3).await;
    uncached(&other.connection).await.explain_image(IMAGE, Dictionary::new()).await.unwrap();
}

#[tokio::test]
async fn a_polkit_that_is_not_there_allows_nothing() {
    let Some(bus) = bus() else { return };
    let rig = Rig::new(REJECT);
    let _service = serve(&rig, &bus).await;
    let Some(user) = User::connect(&bus, NOBODY).await else { return };
    let verifier = uncached(&user.connection).await;
    let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!((error.code(), error.message().contains("polkit")), (Some("access-denied"), true), "{error}");
    assert_eq!(verifier.counters().await.unwrap().values().sum::<u64>(), 0);
}

// What may be shown, and to whom.

/// Rule T-25: what is stored on this host is not for everybody.
#[tokio::test]
async fn users_do_not_get_the_credentials_of_the_host() {
    let certificates = server::Rig::new();
    certificates.add_client_certificate("client");
    let registry = certificates
        .server_named("127.0.0.1", Some(server::ClientCertificate::Accepted), |_, seen| {
            match seen.header("authorization") {
                Some("Basic aG9zdDpwYXNz" | "Basic dXNlcjpwYXNz") => server::Reply::manifest(MANIFEST),
                Some(_) => server::Reply::status(403, ""),
                None => server::Reply::challenge("Basic realm=\"r\""),
            }
        })
        .await;
    let mut rig = Rig::new(&accepting(&registry.host));
    rig.settings.registry.cert_dir = Some(certificates.certs());
    rig.settings.registry.auth = certificates.login(&registry, "host:pass");
    let Some(host) = Host::start(rig).await else { return };
    let image = format!("docker://{}/ns/app:1", registry.host);
    let lax = || Dictionary::new().with("require-signature", false);
    let user = host.user(NOBODY).await;
    let verifier = uncached(&user.connection).await;
    let allow = |answer| {
        host.polkit.set([(VERIFY, Answer::Yes), (VERIFY_INSECURE, Answer::Yes), (USE_CREDENTIALS, answer)])
    };

    for answer in [Answer::No, Answer::Challenge] {
        allow(answer);
        let before = registry.count();
        let error = verifier.verify_image(&image, lax()).await.unwrap_err();
        assert!(matches!(&error, dbus::Error::RegistryAuth(_)), "{error}");
        assert!(error.help().contains(USE_CREDENTIALS), "{error}");
        assert!(registry.count() > before);
        for seen in &registry.seen()[before..] {
            assert!(seen.header("authorization").is_none() && !seen.client_certificate);
        }
        let insisting = verifier.verify_image(&image, lax().with("anonymous", false)).await.unwrap_err();
        assert_eq!(insisting.code(), Some("access-denied"));
    }
    // Root's tokens and connections are not lent.
    host.root().await.verify_image(&image, lax()).await.unwrap();
    assert!(registry.seen().last().unwrap().client_certificate);
    let error = verifier.verify_image(&image, lax()).await.unwrap_err();
    assert!(matches!(&error, dbus::Error::RegistryAuth(_)), "{error}");
    assert!(!registry.seen().last().unwrap().client_certificate);

    allow(Answer::Yes);
    verifier.verify_image(&image, lax()).await.unwrap();
    verifier.verify_image(&image, lax().with("anonymous", false)).await.unwrap();
    let error = verifier.verify_image(&image, lax().with("anonymous", true)).await.unwrap_err();
    assert!(matches!(&error, dbus::Error::RegistryAuth(_)), "{error}");

    // Their own they may hand over, sealed (T-27).
    allow(Answer::No);
    let auth = STANDARD.encode("user:pass");
    let auth = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", registry.host);
    let with = |file: zbus::wire::Fd<'static>| {
        lax().with("auth-file", OwnedVariant::try_from(Variant::Fd(file)).unwrap())
    };
    verifier.verify_image(&image, with(sealed(auth.as_bytes()))).await.unwrap();
    assert!(!registry.seen().last().unwrap().client_certificate);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(auth.as_bytes()).unwrap();
    let error = verifier.verify_image(&image, with(OwnedFd::from(file).into())).await.unwrap_err();
    assert!(matches!(&error, dbus::Error::BadFileDescriptor(_)), "{error}");
    let manifest = zbus::wire::Fd::from(OwnedFd::from(tempfile::tempfile().unwrap()));
    let error = verifier.verify_manifest(&image, manifest, Dictionary::new()).await.unwrap_err();
    assert!(matches!(&error, dbus::Error::BadFileDescriptor(_)), "{error}");
    let policy = zbus::wire::Fd::from(OwnedFd::from(tempfile::tempfile().unwrap()));
    host.polkit.set([(EXPLAIN, Answer::Yes)]);
    let error = verifier.lint_policy(policy, Dictionary::new()).await.unwrap_err();
    assert!(matches!(&error, dbus::Error::BadFileDescriptor(_)), "{error}");
}

/// Rule T-25: a token that was given for the client certificate of this host is what that certificate is.
#[tokio::test]
async fn a_token_for_the_client_certificate_is_not_lent() {
    let certificates = server::Rig::new();
    certificates.add_client_certificate("client");
    let registry = certificates
        .server_named("127.0.0.1", Some(server::ClientCertificate::Accepted), |host, seen| {
            match seen.header("authorization") {
                _ if seen.path.starts_with("/token") && seen.client_certificate => {
                    server::Reply::ok(br#"{"token":"private","expires_in":3600}"#)
                }
                _ if seen.path.starts_with("/token") => {
                    server::Reply::ok(br#"{"token":"public","expires_in":3600}"#)
                }
                Some("Bearer private") => server::Reply::manifest(MANIFEST),
                Some(_) => server::Reply::oci_error(403, "DENIED", "no"),
                None => server::Reply::challenge(&server::bearer(host)),
            }
        })
        .await;
    let mut rig = Rig::new(&accepting(&registry.host));
    rig.settings.registry.cert_dir = Some(certificates.certs());
    let Some(host) = Host::start(rig).await else { return };
    host.polkit.set([(VERIFY, Answer::Yes), (VERIFY_INSECURE, Answer::Yes)]);
    let image = format!("docker://{}/ns/app:1", registry.host);
    let lax = || Dictionary::new().with("require-signature", false);
    let user = host.user(NOBODY).await;
    let (verifier, root) = (uncached(&user.connection).await, host.root().await);
    for _ in 0..2 {
        let error = verifier.verify_image(&image, lax()).await.unwrap_err();
        assert!(matches!(&error, dbus::Error::RegistryAuth(_)), "{error}");
        root.verify_image(&image, lax()).await.unwrap();
        let error = root.verify_image(&image, lax().with("anonymous", true)).await.unwrap_err();
        assert!(matches!(&error, dbus::Error::RegistryAuth(_)), "{error}");
    }
}

/// Rule T-34: where client keys are is for root.
#[tokio::test]
async fn users_are_not_told_where_client_keys_are() {
    let certificates = server::Rig::new();
    certificates.add_client_certificate("secret-name");
    std::fs::remove_file(certificates.certs().join("secret-name.key")).unwrap();
    let registry = certificates.server(|_, _| server::Reply::manifest(MANIFEST)).await;
    let mut rig = Rig::new(&accepting(&registry.host));
    rig.settings.registry.cert_dir = Some(certificates.certs());
    let Some(host) = Host::start(rig).await else { return };
    host.polkit.set([(VERIFY, Answer::Yes), (VERIFY_INSECURE, Answer::Yes)]);
    let image = format!("docker://{}/ns/app:1", registry.host);
    let lax = || Dictionary::new().with("require-signature", false);
    let user = host.user(NOBODY).await;
    let told = uncached(&user.connection).await.verify_image(&image, lax()).await.unwrap_err();
    let roots = host.root().await.verify_image(&image, lax()).await.unwrap_err();
    assert_eq!((told.code(), roots.code()), (Some("certificates-invalid"), Some("certificates-invalid")));
    assert!(!told.to_string().contains("secret-name"), "{told}");
    assert!(roots.to_string().contains("secret-name"), "{roots}");
}

/// Rule T-34: nobody is told what another had verified.
#[tokio::test]
async fn users_do_not_see_what_was_at_hand() {
    let certificates = server::Rig::new();
    let registry = certificates.server(|_, _| server::Reply::manifest(MANIFEST)).await;
    let mut rig = Rig::new(&accepting(&registry.host));
    rig.settings.registry.cert_dir = Some(certificates.certs());
    let Some(host) = Host::start(rig).await else { return };
    host.polkit.set([(VERIFY, Answer::Yes), (VERIFY_INSECURE, Answer::Yes)]);
    let image = format!("docker://{}/ns/app@{}", registry.host, Digest::sha256(MANIFEST));
    let requests = async |verifier: VerifierProxy<'static>| {
        let lax = Dictionary::new().with("require-signature", false);
        let (_, _, details) = verifier.verify_image(&image, lax).await.unwrap();
        format!("{:?}", details.value("requests"))
    };
    let (one, other) = (host.user(1).await, host.user(2).await);
    let first = requests(uncached(&one.connection).await).await;
    assert_eq!(registry.count(), 1);
    assert_eq!(requests(uncached(&other.connection).await).await, first);
    assert_eq!(registry.count(), 1, "it was at hand");
    assert_ne!(requests(host.root().await).await, first);
}

/// Rule T-25: user and password of a lookaside store are stored credentials, too.
#[tokio::test]
async fn users_do_not_get_what_a_lookaside_store_is_asked_with() {
    let certificates = server::Rig::new();
    let registry = certificates.server(|_, _| server::Reply::manifest(MANIFEST)).await;
    let store = certificates.server(|_, _| server::Reply::status(404, "")).await;
    let key = STANDARD.encode(rcgen::KeyPair::generate().unwrap().public_key_pem());
    let mut rig =
        Rig::new(&policy_for(&registry.host, &format!(r#"{{"type":"sigstoreSigned","keyData":"{key}"}}"#)));
    rig.settings.registry.cert_dir = Some(certificates.certs());
    let Some(host) = Host::start(rig).await else { return };
    host.polkit.set([(VERIFY, Answer::Yes)]);
    let image = format!("docker://{}/ns/app:1", registry.host);
    let user = host.user(NOBODY).await;
    let verifier = uncached(&user.connection).await;
    for (secret, user_is_refused) in [("", false), ("user:pass@", true)] {
        let lookaside = format!("default-docker:\n  lookaside: https://{secret}{}/s\n", store.host);
        std::fs::write(host.rig.registries_d().join("store.yaml"), lookaside).unwrap();
        let before = store.count();
        let error = verifier.verify_image(&image, Dictionary::new()).await.unwrap_err();
        if user_is_refused {
            assert_eq!(error.code(), Some("lookaside-unavailable"), "{error}");
            assert!(!error.to_string().contains("pass@"), "{error}");
            assert_eq!(store.count(), before);
        } else {
            assert_eq!(name(&error), "org.vouchd.Verifier1.Error.Rejected", "{error}");
            assert!(store.count() > before);
        }
        let error = host.root().await.verify_image(&image, Dictionary::new()).await.unwrap_err();
        assert_eq!(name(&error), "org.vouchd.Verifier1.Error.Rejected", "{error}");
    }
    host.polkit.set([(VERIFY, Answer::Yes), (USE_CREDENTIALS, Answer::Yes)]);
    let error = verifier.verify_image(&image, Dictionary::new()).await.unwrap_err();
    assert_eq!(name(&error), "org.vouchd.Verifier1.Error.Rejected", "{error}");
}

/// Rule T-29: users have no registry asked that the policy does not name.
#[tokio::test]
async fn users_reach_only_registries_that_the_policy_names() {
    let silent = Silent::start().await;
    let anything = r#"[{"type":"insecureAcceptAnything"}]"#;
    let reject = r#"[{"type":"reject"}]"#;
    let host_name = silent.host.clone();
    for (scopes, reached) in [
        (format!(r#"{{"default":{anything}}}"#), false),
        (format!(r#"{{"default":{reject},"transports":{{"docker":{{"":{anything}}}}}}}"#), false),
        (
            format!(r#"{{"default":{anything},"transports":{{"docker":{{"other.example":{reject}}}}}}}"#),
            false,
        ),
        (format!(r#"{{"default":{anything},"transports":{{"atomic":{{"{host_name}":{reject}}}}}}}"#), false),
        // Something on the host is named.
        (
            format!(r#"{{"default":{anything},"transports":{{"docker":{{"{host_name}/x/y":{reject}}}}}}}"#),
            true,
        ),
        (format!(r#"{{"default":{reject},"transports":{{"docker":{{"{host_name}":{anything}}}}}}}"#), true),
    ] {
        let Some(host) = Host::start(Rig::new(&scopes)).await else { return };
        host.polkit.set([(VERIFY, Answer::Yes), (VERIFY_INSECURE, Answer::Yes)]);
        let user = host.user(NOBODY).await;
        let verifier = uncached(&user.connection).await;
        let before = silent.connections.load(Ordering::SeqCst);
        let soon = || Dictionary::new().with("require-signature", false).with("timeout-usec", 300_000_u64);
        let error = verifier.verify_image(&silent.image(), soon()).await.unwrap_err();
        let wanted = if reached { "timed-out" } else { "registry-not-named" };
        assert_eq!(error.code(), Some(wanted), "{scopes}: {error}");
        assert_eq!(silent.connections.load(Ordering::SeqCst) > before, reached, "{scopes}");
        if !reached {
            assert_eq!(name(&error), "org.freedesktop.DBus.Error.AccessDenied");
        }
        let root = host.root().await.verify_image(&silent.image(), soon()).await.unwrap_err();
        assert_eq!(root.code(), Some("timed-out"), "{scopes}");
    }
}

/// Rule T-29: not even where the policy names a registry is everything reached.
#[tokio::test]
async fn users_reach_no_metadata_service() {
    let hosts = ["169.254.169.254", "100.100.100.200", "168.63.129.16"];
    let scopes: Vec<String> =
        hosts.iter().map(|host| format!(r#""{host}":[{{"type":"insecureAcceptAnything"}}]"#)).collect();
    let policy =
        format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{{}}}}}}}"#, scopes.join(","));
    let Some(host) = Host::start(Rig::new(&policy)).await else { return };
    host.polkit.set([(VERIFY, Answer::Yes), (VERIFY_INSECURE, Answer::Yes)]);
    let user = host.user(NOBODY).await;
    let verifier = uncached(&user.connection).await;
    for address in hosts {
        let options = Dictionary::new().with("require-signature", false);
        let began = Instant::now();
        let image = format!("docker://{address}/latest/meta-data:1");
        let error = verifier.verify_image(&image, options).await.unwrap_err();
        assert_eq!(error.code(), Some("registry-protocol"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

// How much, and how often.

/// Rule T-26: however many users there are, root has turns left.
#[tokio::test]
async fn users_leave_turns_for_root() {
    let silent = Silent::start().await;
    let Some(host) = Host::start(Rig::new(&accepting(&silent.host))).await else { return };
    host.polkit.set([(VERIFY, Answer::Yes), (VERIFY_INSECURE, Answer::Yes)]);
    let mut users = Vec::new();
    let mut running = JoinSet::new();
    for uid in 1..=8 {
        let user = host.user(uid).await;
        let verifier = uncached(&user.connection).await;
        for number in 0..10 {
            let (verifier, image) = (verifier.clone(), format!("docker://{}/a/u{uid}:{number}", silent.host));
            running.spawn(async move {
                let options =
                    Dictionary::new().with("require-signature", false).with("timeout-usec", 4_000_000_u64);
                (uid, verifier.verify_image(&image, options).await.unwrap_err())
            });
        }
        users.push(user);
    }
    let root = host.root().await;
    until("the turns of users to be taken", || silent.connections.load(Ordering::SeqCst) >= 16).await;
    assert_eq!(root.active_verifications().await.unwrap(), 16);
    // Sixteen more of root's begin, and no seventeenth.
    let mut roots = JoinSet::new();
    for number in 0..17 {
        let (root, image) = (root.clone(), format!("docker://{}/a/root:{number}", silent.host));
        roots.spawn(async move {
            let options =
                Dictionary::new().with("require-signature", false).with("timeout-usec", 1_000_000_u64);
            root.verify_image(&image, options).await.unwrap_err()
        });
    }
    let began = Instant::now();
    let errors = roots.join_all().await;
    let count = |code: &str| errors.iter().filter(|error| error.code() == Some(code)).count();
    assert_eq!((count("timed-out"), count("too-many-requests")), (16, 1), "{errors:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let mut timed_out = HashMap::new();
    for (uid, error) in running.join_all().await {
        match error.code() {
            Some("timed-out") => *timed_out.entry(uid).or_insert(0) += 1,
            code => assert_eq!(code, Some("too-many-requests"), "{error}"),
        }
    }
    assert_eq!(timed_out.values().sum::<i32>(), 16);
    assert!(timed_out.values().all(|count| *count <= 8), "{timed_out:?}");
    assert_eq!(root.active_verifications().await.unwrap(), 0);
}

#[tokio::test]
async fn a_flood_of_one_user_is_slowed_down() {
    let Some(host) = Host::start(Rig::new(REJECT)).await else { return };
    host.polkit.set([(VERIFY, Answer::Yes)]);
    let user = host.user(NOBODY).await;
    let verifier = uncached(&user.connection).await;
    let (mut decided, mut refused) = (0, 0);
    for _ in 0..400 {
        let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
        match error.code() {
            Some("rejected-by-policy") => decided += 1,
            code => {
                assert_eq!(code, Some("too-many-requests"), "{error}");
                refused += 1;
            }
        }
    }
    assert!((100..300).contains(&decided) && refused > 0, "{decided} {refused}");
    // Nobody else is.
    let root = host.root().await;
    let other = host.user(1).await;
    for verifier in [root, uncached(&other.connection).await] {
        let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
        assert_eq!(error.code(), Some("rejected-by-policy"));
    }
}

/// Rule T-27: descriptors that wait for polkit are few.
#[tokio::test]
async fn a_user_holds_few_descriptors() {
    let Some(host) = Host::start(Rig::new(REJECT)).await else { return };
    host.polkit.set([(VERIFY, Answer::Never)]);
    let user = host.user(NOBODY).await;
    let verifier = uncached(&user.connection).await;
    let mut waiting = JoinSet::new();
    for _ in 0..10 {
        let verifier = verifier.clone();
        waiting.spawn(async move {
            verifier.verify_manifest(IMAGE, sealed(MANIFEST), Dictionary::new()).await.unwrap_err()
        });
    }
    for _ in 0..6 {
        let error = waiting.join_next().await.unwrap().unwrap();
        assert_eq!(error.code(), Some("too-many-requests"), "{error}");
    }
    assert_eq!(host.polkit.count(), 4);
    // Those without any go on, and so do root's.
    host.polkit.set([(VERIFY, Answer::Yes)]);
    let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!(error.code(), Some("rejected-by-policy"));
    let root = host.root().await;
    let error = root.verify_manifest(IMAGE, sealed(MANIFEST), Dictionary::new()).await.unwrap_err();
    assert_eq!(error.code(), Some("rejected-by-policy"));
}

#[tokio::test]
async fn a_call_that_is_too_large_is_not_looked_at() {
    let Some(host) = Host::start(Rig::new(REJECT)).await else { return };
    let user = host.user(NOBODY).await;
    let verifier = uncached(&user.connection).await;
    let error = verifier.verify_image(&"x".repeat(1 << 20), Dictionary::new()).await.unwrap_err();
    assert_eq!((error.code(), host.polkit.count()), (Some("usage"), 0), "{error}");
    assert!(error.message().contains("4 KiB"), "{error}");
}

// What the tests stand on.

pub(crate) const NOBODY: u32 = 65534;

/// Whether a method returns; what, does not matter.
async fn call<B>(
    proxy: &zbus::Proxy<'_>,
    method: &str,
    flags: MethodFlags,
    body: &B,
) -> Result<(), dbus::Error>
where
    B: serde::Serialize + zbus::DynamicType,
{
    match proxy.call_with_flags::<_, _, ()>(method, flags, body).await {
        // What comes back is not of this type.
        Err(zbus::Error::SignatureMismatch(..)) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn accepting(host: &str) -> String {
    policy_for(host, r#"{"type":"insecureAcceptAnything"}"#)
}

fn policy_for(host: &str, requirement: &str) -> String {
    format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{host}":[{requirement}]}}}}}}"#)
}

/// A memfd that nobody can change.
pub(crate) fn sealed(content: &[u8]) -> zbus::wire::Fd<'static> {
    let memfd = memfd_create("test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    File::from(memfd.try_clone().unwrap()).write_all(content).unwrap();
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    memfd.into()
}

async fn until(what: &str, happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_secs(10), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A bus with the shipped rules, the interface and a polkit on it.
struct Host {
    bus: Bus,
    polkit: Polkit,
    rig: Rig,
    _connections: [Connection; 2],
}

impl Host {
    async fn start(rig: Rig) -> Option<Self> {
        let bus = bus()?;
        let polkit = Polkit::default();
        let authority = zbus::connection::Builder::address(bus.address.as_str())
            .serve_at("/org/freedesktop/PolicyKit1/Authority", polkit.clone())
            .name("org.freedesktop.PolicyKit1");
        let authority = authority.build().await.unwrap();
        let service = serve(&rig, &bus).await;
        Some(Self { bus, polkit, rig, _connections: [authority, service] })
    }

    async fn user(&self, uid: u32) -> User {
        User::connect(&self.bus, uid).await.unwrap()
    }

    async fn root(&self) -> VerifierProxy<'static> {
        uncached(&self.bus.connect().await).await
    }
}

/// A bus, if somebody else can be on it.
pub(crate) fn bus() -> Option<Bus> {
    if !geteuid().is_root() || !is_installed("setpriv") || !is_installed("systemd-stdio-bridge") {
        skip("needs root to be somebody else, and setpriv and systemd-stdio-bridge");
        return None;
    }
    Bus::start(Rules::Shipped)
}

/// The interface as the daemon serves it.
async fn serve(rig: &Rig, bus: &Bus) -> Connection {
    let verifier = Verifier::new(Arc::new(Engine::new(rig.settings.clone())));
    let builder = zbus::connection::Builder::address(bus.address.as_str());
    let connection = builder.serve_at(dbus::PATH, Served::new(verifier.clone())).build().await.unwrap();
    tokio::spawn(verifier.departures(&connection).await.unwrap().follow());
    connection.request_name(dbus::NAME).await.unwrap();
    connection
}

/// Another user on the bus, until it is dropped.
pub(crate) struct User {
    pub(crate) connection: Connection,
    bridge: Child,
}

impl User {
    pub(crate) async fn connect(bus: &Bus, uid: u32) -> Option<Self> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = mortal("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups"]);
        command.args(["systemd-stdio-bridge", "--bus-path", &bus.address]);
        command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(OwnedFd::from(theirs));
        let bridge = command.stderr(Stdio::inherit()).spawn().unwrap();
        let connecting = zbus::connection::Builder::unix_stream(ours).build();
        let connection = tokio::time::timeout(Duration::from_secs(10), connecting).await.unwrap().unwrap();
        Some(Self { connection, bridge })
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.bridge.kill();
        let _ = self.bridge.wait();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    Challenge,
    No,
    /// It waits for a password.
    Never,
}

#[derive(Clone, Debug)]
struct Asked {
    action: String,
    subject: String,
    flags: u32,
    id: String,
}

/// A polkit that knows one user's rights.
#[derive(Clone, Debug, Default)]
struct Polkit {
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    cancelled: Arc<Mutex<Vec<String>>>,
}

impl Polkit {
    /// From now on, and with everything forgotten that was asked.
    fn set<'a>(&self, answers: impl IntoIterator<Item = (&'a str, Answer)>) {
        let answers = answers.into_iter().map(|(action, answer)| (action.to_owned(), answer));
        *self.answers.lock().unwrap() = answers.collect();
        self.asked.lock().unwrap().clear();
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn cancelled(&self) -> Vec<String> {
        self.cancelled.lock().unwrap().clone()
    }
}

/// is_authorized, is_challenge, details
type Authorization = (bool, bool, HashMap<String, String>);

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Polkit {
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action_id: String,
        _details: HashMap<String, String>,
        flags: u32,
        cancellation_id: String,
    ) -> (Authorization,) {
        assert_eq!(subject.0, "system-bus-name");
        let Variant::Str(name) = &*subject.1["name"] else { panic!("{subject:?}") };
        let answer = self.answers.lock().unwrap().get(&action_id).copied().unwrap_or(Answer::No);
        let asked = Asked { action: action_id, subject: name.to_string(), flags, id: cancellation_id };
        self.asked.lock().unwrap().push(asked);
        match answer {
            Answer::Yes => ((true, false, HashMap::new()),),
            Answer::Challenge => ((false, true, HashMap::new()),),
            Answer::No => ((false, false, HashMap::new()),),
            Answer::Never => std::future::pending().await,
        }
    }

    fn cancel_check_authorization(&self, cancellation_id: String) {
        self.cancelled.lock().unwrap().push(cancellation_id);
    }
}
