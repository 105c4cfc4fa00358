//! Where an image really is: mirrors, other locations, insecure and busy registries, proxies, short names. Whole
//! verifications against scripted servers.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    Certificate, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use vouchd::config::{
    Directories, Environment, PolicySource, ProxySettings, RegistriesConfSource, ShortNames,
};
use vouchd::diagnostic::Code;
use vouchd::digest::Digest;
use vouchd::engine::{self, Answer, Engine, Settings, Undecided};
use vouchd::evaluate::evidence::{Question, Subject};
use vouchd::evaluate::verdict::Decision;
use vouchd::fetch::credentials::Source;
use vouchd::fetch::{Configuration, ProxySource};
use vouchd::manifest::Platform;
use vouchd::report::{Report, Route};

use crate::live::SigningKey;
use crate::server::{OCI, Reply, Rig, Script, Seen, Server, bearer};
use crate::support::{simple_signing, write};

const IMAGE: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
const OTHER: &[u8] =
    br#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[]}"#;
const LOGICAL: &str = "logical.example/ns/app";

/// A host with a policy, a configuration, and a key that counts.
struct Host {
    rig: Rig,
    dir: TempDir,
    key: SigningKey,
    policy: Value,
    proxies: ProxySettings,
    auth: Source,
    short_names: ShortNames,
}

impl Host {
    fn new() -> Self {
        let key = SigningKey::new();
        let requirement = key.requirement(&json!({"type": "matchRepoDigestOrExact"}));
        Self {
            rig: Rig::new(),
            dir: tempfile::tempdir().unwrap(),
            policy: json!({ "default": [requirement] }),
            key,
            proxies: ProxySettings::default(),
            auth: Source::Anonymous,
            short_names: ShortNames::Search,
        }
    }

    fn accepting_anything() -> Self {
        let policy = json!({"default": [{"type": "insecureAcceptAnything"}]});
        Self { policy, ..Self::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn engine(&self, registries_conf: &str) -> Arc<Engine> {
        let policy = write(self.path("policy.json"), self.policy.to_string());
        let conf = write(self.path("registries.conf"), registries_conf);
        let lookaside = format!("file://{}", self.path("lookaside").display());
        if !self.path("registries.d").exists() {
            let text =
                format!("default-docker:\n  lookaside: {lookaside}\n  use-sigstore-attachments: true\n");
            write(self.path("registries.d/all.yaml"), text);
        }
        let registries_d = Directories::explicit(self.path("registries.d"), &Environment::system());
        let settings = Settings {
            policy: PolicySource::Explicit(policy).into(),
            configuration: Configuration {
                registries_d,
                registries_conf: RegistriesConfSource::Explicit(conf),
                proxies: ProxySource::Variables(self.proxies.clone()),
            },
            registry: self.rig.settings(self.auth.clone()),
            short_names: self.short_names,
            environment: Environment::system(),
        };
        Arc::new(Engine::new(settings))
    }

    async fn verify(&self, registries_conf: &str, name: &str) -> Result<Answer, Box<Undecided>> {
        verify(&self.engine(registries_conf), name, Duration::from_secs(30)).await
    }

    /// What a registry has that holds [`IMAGE`] with tag 1, signed under `signed` by the key of the host.
    fn content(&self, signed: &str) -> impl Fn(&Seen) -> Reply + Clone + Send + Sync + 'static {
        let digest = Digest::sha256(IMAGE);
        let (payload, signature) = self.key.sign(signed, &digest.to_string());
        let layer = json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": Digest::sha256(&payload).to_string(),
            "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        });
        let attachment = json!({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": [layer]});
        move |seen| match seen.path.rsplit('/').next().unwrap() {
            _ if seen.path == "/v2/" => Reply::ok(b"{}"),
            "1" => Reply::manifest(IMAGE),
            name if name == digest.to_string() => Reply::manifest(IMAGE),
            name if name == Digest::sha256(&payload).to_string() => Reply::ok(&payload),
            name if name == format!("sha256-{}.sig", digest.hex()) => {
                Reply::manifest(attachment.to_string().as_bytes())
            }
            _ => Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }

    /// A registry with the signed image.
    async fn registry(&self) -> Server {
        let content = self.content(&format!("{LOGICAL}:1"));
        self.rig.server(move |_, seen| content(seen)).await
    }
}

async fn verify(engine: &Arc<Engine>, name: &str, timeout: Duration) -> Result<Answer, Box<Undecided>> {
    engine.verify(name, &question(), None, timeout, engine::now()).await
}

fn question() -> Question {
    Question { require_signature: false, subject: Subject::Either, platform: Platform::host() }
}

fn tagged() -> String {
    format!("docker://{LOGICAL}:1")
}

fn pinned() -> String {
    format!("docker://{LOGICAL}@{}", Digest::sha256(IMAGE))
}

/// The code of the refusal, or "allowed".
fn code(result: &Result<Answer, Box<Undecided>>) -> &'static str {
    match result {
        Err(undecided) => undecided.error.code().as_str(),
        Ok(answer) => match &answer.verdict.decision {
            Decision::Allow(_) => "allowed",
            Decision::Deny(rejection) => rejection.code().as_str(),
        },
    }
}

/// The repository at `location`, with these mirrors before it.
fn conf(location: &str, mirrors: &[&str]) -> String {
    let mirrors: String =
        mirrors.iter().map(|mirror| format!("[[registry.mirror]]\nlocation = \"{mirror}\"\n")).collect();
    format!("[[registry]]\nprefix = \"logical.example\"\nlocation = \"{location}\"\n{mirrors}")
}

// Mirrors.

/// Rules M-5, M-7, S-22, D-10, A-1, A-2, K-9.
#[tokio::test]
async fn everything_comes_from_the_mirror_and_is_judged_under_its_own_name() {
    let host = Host::new();
    let (mirror, primary) = (host.registry().await, host.registry().await);
    let conf = conf(&primary.host, &[&mirror.host]);
    for name in [tagged(), pinned()] {
        let result = host.verify(&conf, &name).await;
        assert_eq!(code(&result), "allowed", "{result:?}");
        let answer = result.unwrap();
        assert!(answer.verdict.authenticated);
        assert_eq!(answer.pinned.as_ref().unwrap().text(), pinned());
        let there = name.strip_prefix("docker://logical.example").unwrap();
        let report = Report::of_answer(&name, Route::Direct, &answer);
        assert_eq!(report.source, Some(format!("docker://{}{there}", mirror.host)));
    }
    assert_eq!(primary.count(), 0);
    assert!(mirror.seen().iter().any(|seen| seen.path.ends_with(".sig")));

    // An image that is where its name says comes from nowhere else.
    let direct = host.verify("", &format!("docker://{}/ns/app:1", mirror.host)).await.unwrap();
    assert_eq!(Report::of_answer("x", Route::Direct, &direct).source, None);
}

/// Rule S-22: a claim for the name of the mirror is one for another image.
#[tokio::test]
async fn a_signature_that_names_the_mirror_does_not_count() {
    let host = Host::new();
    let script: Arc<OnceLock<Script>> = Arc::default();
    let known = Arc::clone(&script);
    let mirror = host.rig.server(move |host, seen| known.get().unwrap()(host, seen)).await;
    let content = host.content(&format!("{}/ns/app:1", mirror.host));
    assert!(script.set(Box::new(move |_, seen| content(seen))).is_ok());
    let result = host.verify(&conf("logical.example", &[&mirror.host]), &tagged()).await;
    assert_eq!(code(&result), "identity-mismatch");
}

/// Rules M-5, M-6, H-4, A-3.
#[tokio::test]
async fn a_mirror_without_the_manifest_is_passed_over() {
    let host = Host::new();
    let stranger = Rig::new();
    let primary = host.registry().await;
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let unknown = stranger.server(|_, _| Reply::manifest(IMAGE)).await;
    let mut mirrors =
        vec![(refused, None), (unknown.host.clone(), None), ("absent.invalid".to_owned(), None)];
    for reply in [
        Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        Reply::oci_error(404, "NAME_UNKNOWN", "no such repository"),
        Reply::status(401, ""),
        Reply::status(403, ""),
        Reply::status(501, ""),
        Reply::status(429, "").with("Retry-After", "0"),
        Reply::redirect(302, "http://127.0.0.1/"),
        Reply::Raw(""),
        Reply::Raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"),
        Reply::Raw("garbage\r\n\r\n"),
        Reply::Endless,
        Reply::ok(b"").announcing(10 << 30),
    ] {
        let server = host
            .rig
            .server(move |_, seen| if seen.path == "/v2/" { Reply::ok(b"") } else { reply.clone() })
            .await;
        mirrors.push((server.host.clone(), Some(server)));
    }
    for (mirror, server) in &mirrors {
        let before = primary.count();
        let result = host.verify(&conf(&primary.host, &[mirror]), &tagged()).await;
        assert_eq!(code(&result), "allowed", "{result:?}");
        assert!(primary.count() > before);
        let warnings = result.unwrap().warnings;
        assert!(warnings.iter().any(|w| w.contains("passed over") && w.contains(mirror)), "{warnings:?}");
        if let Some(server) = server {
            assert!(server.count() > 0);
        }
    }
    let all: Vec<&str> = mirrors.iter().map(|(mirror, _)| mirror.as_str()).collect();
    assert_eq!(code(&host.verify(&conf(&primary.host, &all), &tagged()).await), "allowed");
}

/// Rule M-6: the first manifest decides; what is wrong with it is wrong with the image.
#[tokio::test]
async fn a_mirror_that_lies_is_not_passed_over() {
    let host = Host::new();
    let primary = host.registry().await;
    let signatures = host.content(&format!("{LOGICAL}:1"));
    for (name, manifest, signature, expected) in [
        (tagged(), Reply::manifest(OTHER), None, "unsigned"),
        (pinned(), Reply::manifest(OTHER), None, "digest-mismatch"),
        (tagged(), Reply::ok(b"<html>").with("Content-Type", "text/html"), None, "registry-protocol"),
        (tagged(), Reply::ok(b"[]"), None, "registry-protocol"),
        (tagged(), Reply::manifest(IMAGE), Some(Reply::status(403, "")), "registry-auth"),
        (tagged(), Reply::manifest(IMAGE), Some(Reply::manifest(b"{\"layers\":1}")), "registry-protocol"),
        (tagged(), Reply::manifest(IMAGE), Some(Reply::oci_error(404, "MANIFEST_UNKNOWN", "")), "unsigned"),
    ] {
        let signatures = signatures.clone();
        let mirror = host
            .rig
            .server(move |_, seen| match (&signature, seen.path.rsplit('/').next().unwrap()) {
                (Some(reply), name) if name.ends_with(".sig") => reply.clone(),
                (_, "") => Reply::ok(b"{}"),
                (_, name) if name == "1" || name.starts_with("sha256:") => manifest.clone(),
                (_, _) => signatures(seen),
            })
            .await;
        let result = host.verify(&conf(&primary.host, &[&mirror.host]), &name).await;
        assert_eq!(code(&result), expected, "{result:?}");
    }
    assert_eq!(primary.count(), 0);
}

/// Rule M-6: what counts is why the primary location fails.
#[tokio::test]
async fn if_all_fail_the_last_says_why_and_the_mirrors_are_named() {
    let host = Host::new();
    let nothing = |status: u16, text: &'static str| {
        move |_: &str, seen: &Seen| {
            if seen.path == "/v2/" { Reply::ok(b"") } else { Reply::status(status, text) }
        }
    };
    let one = host.rig.server(nothing(403, "one says no")).await;
    let two = host.rig.server(nothing(501, "two is not able to")).await;
    let primary = host.rig.server(nothing(404, "nothing here")).await;
    let result = host.verify(&conf(&primary.host, &[&one.host, &two.host]), &tagged()).await;
    assert_eq!(code(&result), "image-not-found");
    let text = result.unwrap_err().error.to_string();
    let places =
        ["nothing here", "mirrors failed", "one says no", "two is not able to"].map(|t| text.find(t));
    assert!(places.is_sorted() && places[0].is_some(), "{text}");
    assert!(text.contains(&one.host) && text.contains(&two.host), "{text}");
}

/// Rule M-5.
#[tokio::test]
async fn mirrors_may_be_for_digests_or_for_tags_alone() {
    let host = Host::new();
    let (mirror, primary) = (host.registry().await, host.registry().await);
    for (setting, by_tag, by_digest) in [
        ("", true, true),
        ("pull-from-mirror = \"all\"", true, true),
        ("pull-from-mirror = \"digest-only\"", false, true),
        ("pull-from-mirror = \"tag-only\"", true, false),
        ("mirror-by-digest-only = true", false, true),
    ] {
        let (outer, inner) = if setting.starts_with("mirror") { (setting, "") } else { ("", setting) };
        let conf = format!(
            "[[registry]]\nprefix = \"logical.example\"\nlocation = \"{}\"\n{outer}\n[[registry.mirror]]\nlocation = \"{}\"\n{inner}\n",
            primary.host, mirror.host
        );
        for (name, from_mirror) in [(tagged(), by_tag), (pinned(), by_digest)] {
            let before = (mirror.count(), primary.count());
            let result = host.verify(&conf, &name).await;
            assert_eq!(code(&result), "allowed");
            // Of another place, nothing is claimed.
            let known = name == pinned() || by_tag == by_digest;
            assert_eq!(result.unwrap().pinned_accepted, known.then_some(true), "{setting} {name}");
            let asked = (mirror.count() > before.0, primary.count() > before.1);
            assert_eq!(asked, (from_mirror, !from_mirror), "{setting} {name}");
        }
    }
}

/// A mirror gets its share of the time that is left.
#[tokio::test]
async fn a_mirror_that_says_nothing_leaves_time_for_the_next() {
    let host = Host::new();
    let primary = host.registry().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut mirrors = vec![(silent.local_addr().unwrap().to_string(), None)];
    for reply in [Reply::Hang, Reply::Drip, Reply::DripHeaders] {
        let server = host.rig.server(move |_, _| reply.clone()).await;
        mirrors.push((server.host.clone(), Some(server)));
    }
    for (mirror, _) in &mirrors {
        let engine = host.engine(&conf(&primary.host, &[mirror]));
        let result = verify(&engine, &tagged(), Duration::from_secs(4)).await;
        assert_eq!(code(&result), "allowed", "{result:?}");
    }
}

/// Rules D-7, D-10, K-1, M-7: scopes of registries.d and the path in the store are those of the mirror.
#[tokio::test]
async fn stores_are_those_of_the_physical_name() {
    let mut host = Host::new();
    let gpg_absent = !crate::support::is_installed("gpg");
    if gpg_absent {
        crate::support::skip("gpg is not installed");
        return;
    }
    let gpg = crate::support::Gpg::new();
    gpg.key("Publisher", "never", "20260101T000000!");
    let digest = Digest::sha256(IMAGE);
    let blob = gpg.sign("Publisher", &[], &simple_signing(&format!("{LOGICAL}:1"), &digest.to_string()));
    host.policy = json!({"default": [{
        "type": "signedBy", "keyType": "GPGKeys", "keyData": STANDARD.encode(gpg.export("Publisher")),
    }]});
    let mirror = host.registry().await;
    let signature = format!("elsewhere/app@sha256={}/signature-1", digest.hex());
    write(host.path("store").join(signature), blob);
    let conf = format!(
        "[[registry]]\nprefix = \"logical.example/ns\"\nlocation = \"absent.invalid/ns\"\n[[registry.mirror]]\nlocation = \"{}/elsewhere\"\n",
        mirror.host
    );
    let store = format!("lookaside: file://{}", host.path("store").display());
    for (scope, expected) in [
        (format!("{}/elsewhere", mirror.host), "allowed"),
        (mirror.host.clone(), "allowed"),
        ("logical.example/ns".to_owned(), "unsigned"),
    ] {
        write(host.path("registries.d/all.yaml"), format!("docker:\n  {scope}:\n    {store}\n"));
        let result = host.verify(&conf, &tagged()).await;
        assert_eq!(code(&result), expected, "{scope}: {result:?}");
    }
    assert!(
        mirror.seen().iter().all(|seen| seen.path == "/v2/" || seen.path.starts_with("/v2/elsewhere/app/"))
    );
}

/// Rules D-11, M-1: what cannot be read stops everything, even where anything is accepted.
#[tokio::test]
async fn broken_configuration_stops_every_registry() {
    let host = Host::accepting_anything();
    let primary = host.registry().await;
    let image = format!("docker://{}/ns/app:1", primary.host);
    assert_eq!(code(&host.verify("", &image).await), "allowed");
    let count = primary.count();
    assert_eq!(code(&host.verify("[[registry", &image).await), "registries-conf-invalid");
    write(host.path("registries.d/broken.yaml"), "docker: [");
    assert_eq!(code(&host.verify("", &image).await), "registries-d-invalid");
    assert_eq!(primary.count(), count);
}

/// Rule M-8, and what is stricter here than there.
#[tokio::test]
async fn a_blocked_registry_is_not_asked() {
    let host = Host::new();
    let (mirror, primary) = (host.registry().await, host.registry().await);
    // Entries of one location must agree (rule M-3), so these are narrower.
    let narrow = |host: &str| format!("{host}/ns");
    let blocked =
        |host: &str| format!("[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\nblocked = true\n");
    let conf = conf(&narrow(&primary.host), &[&narrow(&mirror.host)])
        .replace("logical.example", "logical.example/ns");

    // By its own name, wherever it leads.
    let remapped = conf.replacen("[[registry]]\n", "[[registry]]\nblocked = true\n", 1);
    for name in [tagged(), pinned()] {
        let result = host.verify(&remapped, &name).await;
        assert_eq!(code(&result), "registry-blocked");
        assert!(result.unwrap_err().error.to_string().contains("registries.conf"));
    }
    assert_eq!((mirror.count(), primary.count()), (0, 0));

    // A blocked mirror is like one that does not answer.
    assert_eq!(code(&host.verify(&format!("{conf}{}", blocked(&mirror.host)), &tagged()).await), "allowed");
    assert_eq!(mirror.count(), 0);
    let asked = primary.count();

    // A blocked location behind a mirror that answers is not asked, and otherwise the image is not there.
    let conf = format!("{conf}{}", blocked(&primary.host));
    assert_eq!(code(&host.verify(&conf, &tagged()).await), "allowed");
    drop(mirror);
    assert_eq!(code(&host.verify(&conf, &tagged()).await), "registry-blocked");
    assert_eq!(primary.count(), asked);
}

// Insecure registries.

/// Rules M-9, H-1.
#[tokio::test]
async fn an_insecure_registry_need_not_prove_who_it_is() {
    let host = Host::new();
    let content = host.content(&format!("{LOGICAL}:1"));
    let (over_tls, plain) = (content.clone(), content);
    let stranger = Rig::new();
    let unknown = stranger.server(move |_, seen| over_tls(seen)).await;
    let plain = host.rig.plain_server(move |_, seen| plain(seen)).await;
    for (server, refusal) in [(&unknown, "tls-error"), (&plain, "registry-unavailable")] {
        let secure = conf(&server.host, &[]);
        let insecure = secure.replacen("[[registry]]\n", "[[registry]]\ninsecure = true\n", 1);
        assert_eq!(code(&host.verify(&secure, &tagged()).await), refusal);
        assert!(server.seen().iter().all(|seen| !seen.path.starts_with('/')));
        let result = host.verify(&insecure, &tagged()).await;
        assert_eq!(code(&result), "allowed", "{result:?}");
        assert!(result.unwrap().warnings.iter().any(|w| w.contains("insecure") && w.contains(&server.host)));
        // Signatures still count, and nothing else does.
        let other = Host { rig: Rig::new(), ..Host::new() };
        assert_eq!(code(&other.verify(&insecure, &tagged()).await), "bad-signature");
    }
}

/// Rule M-9: each endpoint has a flag of its own.
#[tokio::test]
async fn an_insecure_mirror_makes_nothing_else_insecure() {
    let host = Host::new();
    let content = host.content(&format!("{LOGICAL}:1"));
    let other = content.clone();
    let stranger = Rig::new();
    let mirror = stranger.server(move |_, seen| content(seen)).await;
    let primary = stranger.server(move |_, seen| other(seen)).await;
    let conf = format!("{}insecure = true\n", conf(&primary.host, &[&mirror.host]));
    assert_eq!(code(&host.verify(&conf, &tagged()).await), "allowed");
    drop(mirror);
    assert_eq!(code(&host.verify(&conf, &tagged()).await), "tls-error");
    assert_eq!(primary.count(), 0);
}

/// Rules H-3, M-9: a token server on plain HTTP gets no secret.
#[tokio::test]
async fn credentials_never_go_to_a_plain_token_server() {
    let mut host = Host::accepting_anything();
    let plain = host
        .rig
        .plain_server(|host, seen| match seen.path.split('?').next().unwrap() {
            "/token" => Reply::ok(b"{\"token\":\"t\"}"),
            _ if seen.header("authorization") == Some("Bearer t") => Reply::manifest(IMAGE),
            _ => Reply::challenge(&bearer(host).replace("https", "http")),
        })
        .await;
    let insecure = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", plain.host);
    let image = format!("docker://{}/ns/app:1", plain.host);
    assert_eq!(code(&host.verify(&insecure, &image).await), "allowed");
    assert!(plain.seen().iter().any(|seen| seen.path.starts_with("/token")));

    let before = plain.count();
    host.auth = host.rig.login(&plain, "user:hunter2");
    assert_eq!(code(&host.verify(&insecure, &image).await), "registry-protocol");
    assert!(plain.seen()[before..].iter().all(|seen| !seen.path.starts_with("/token")));

    // A registry that must prove who it is has no such token server at all.
    let realm = format!("Bearer realm=\"http://{}/token\"", plain.host);
    let secure = host.rig.server(move |_, _| Reply::challenge(&realm)).await;
    let (image, before) = (format!("docker://{}/ns/app:1", secure.host), plain.count());
    assert_eq!(code(&host.verify("", &image).await), "registry-protocol");
    assert_eq!(plain.count(), before);
}

/// Rules M-7, M-10, U-5, T-1: each server is shown what is for its own name.
#[tokio::test]
async fn credentials_are_those_of_the_physical_name() {
    let mut host = Host::accepting_anything();
    let guarded = |_: &str, seen: &Seen| match seen.header("authorization") {
        _ if seen.path == "/v2/" => Reply::ok(b""),
        Some(_) => Reply::manifest(IMAGE),
        None => Reply::challenge("Basic realm=\"r\""),
    };
    let mirror = host.rig.server(guarded).await;
    let entry = |name: &str, pair: &str| format!("\"{name}\":{{\"auth\":\"{}\"}}", STANDARD.encode(pair));
    let conf = conf("logical.example", &[&mirror.host]);
    host.auth =
        host.rig.auth_file(&format!("{{\"auths\":{{{}}}}}", entry("logical.example", "logical:secret")));
    assert_ne!(code(&host.verify(&conf, &tagged()).await), "allowed");
    assert!(mirror.seen().iter().all(|seen| seen.header("authorization").is_none()));
    let both = [entry("logical.example", "logical:secret"), entry(&mirror.host, "mirror:word")].join(",");
    host.auth = host.rig.auth_file(&format!("{{\"auths\":{{{both}}}}}"));
    assert_eq!(code(&host.verify(&conf, &tagged()).await), "allowed");
    let shown = format!("Basic {}", STANDARD.encode("mirror:word"));
    assert_eq!(mirror.seen().last().unwrap().header("authorization"), Some(shown.as_str()));
}

// Certificates.

/// A server whose own certificate stands among the roots.
async fn self_signed(host: &Host, change: impl FnOnce(&mut CertificateParams)) -> Server {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.serial_number = Some(SerialNumber::from(7_u64));
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    fs::write(host.rig.certs().join("own.crt"), certificate.pem()).unwrap();
    let config = tls_config(&certificate, &key);
    let script = |_: &str, _: &Seen| Reply::manifest(IMAGE);
    Server::start(Some(TlsAcceptor::from(Arc::new(config))), Box::new(script)).await
}

/// Rule T-2: what `openssl req -x509` makes is trusted where it is named, and only as far as it goes.
#[tokio::test]
async fn a_trusted_certificate_may_be_the_servers_own() {
    type Change = fn(&mut CertificateParams);
    let cases: [(Change, &str); 7] = [
        (|_| {}, "allowed"),
        (|params| params.is_ca = IsCa::NoCa, "allowed"),
        (|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], "allowed"),
        (|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth], "tls-error"),
        (|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1), "tls-error"),
        (|params| params.not_before = rcgen::date_time_ymd(3020, 1, 1), "tls-error"),
        (|params| params.subject_alt_names = vec![], "tls-error"),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let host = Host::accepting_anything();
        let server = self_signed(&host, change).await;
        let image = format!("docker://{}/ns/app:1", server.host);
        let result = host.verify("", &image).await;
        assert_eq!(code(&result), expected, "{number}: {result:?}");
        if number == 4 {
            assert!(result.unwrap_err().error.to_string().contains("has expired"));
        }
        fs::remove_file(host.rig.certs().join("own.crt")).unwrap();
        assert_eq!(code(&host.verify("", &image).await), "tls-error", "{number}");
    }
}

/// Rule T-2: an authority counts while it is valid, and for what it is one.
#[tokio::test]
async fn an_authority_must_be_fit_to_vouch_for_servers() {
    type Change = fn(&mut CertificateParams);
    let ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cases: [(Change, &str); 8] = [
        (|_| {}, "allowed"),
        (|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], "allowed"),
        (|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning], "tls-error"),
        (|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign], "allowed"),
        (|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature], "tls-error"),
        (|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1), "tls-error"),
        (|params| params.not_before = rcgen::date_time_ymd(3020, 1, 1), "tls-error"),
        // Whoever has the key of a server that is trusted could else be every server.
        (|params| params.is_ca = IsCa::ExplicitNoCa, "tls-error"),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut host = Host::accepting_anything();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = ca;
        change(&mut params);
        host.rig.issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        host.rig.write("ca.crt", host.rig.issuer.pem().as_bytes());
        let server = host.rig.server(|_, _| Reply::manifest(IMAGE)).await;
        let result = host.verify("", &format!("docker://{}/ns/app:1", server.host)).await;
        assert_eq!(code(&result), expected, "{number}: {result:?}");
    }
}

/// Rules H-1, R-3: hosts are names and addresses of IPv4, in ASCII.
#[tokio::test]
async fn hosts_are_taken_as_the_reference_takes_them() {
    let host = Host::accepting_anything();
    let server = host.rig.server_named("localhost", None, |_, _| Reply::manifest(IMAGE)).await;
    let port = server.host.rsplit(':').next().unwrap();
    for (name, expected) in [
        (format!("localhost:{port}/ns/app:1"), "allowed"),
        (format!("LOCALHOST:{port}/ns/app:1"), "allowed"),
        (format!("[::1]:{port}/ns/app:1"), "invalid-reference"),
        (format!("bücher.example:{port}/ns/app:1"), "invalid-reference"),
        (format!("xn--bcher-kva.invalid:{port}/ns/app:1"), "registry-unavailable"),
        (format!("user@localhost:{port}/ns/app:1"), "invalid-reference"),
    ] {
        let result = host.verify("", &format!("docker://{name}")).await;
        assert_eq!(code(&result), expected, "{name}: {result:?}");
    }
}

/// HTTP/2 is offered, RFC 9113, section 3.2.
#[tokio::test]
async fn http_2_is_offered() {
    let host = Host::accepting_anything();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(host.rig.certs().join("own.crt"), certificate.pem()).unwrap();
    let mut config = tls_config(&certificate, &key);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let image = format!("docker://{}/ns/app:1", listener.local_addr().unwrap());
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        preface
    };
    let (preface, result) = tokio::join!(server, host.verify("", &image));
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(code(&result), "registry-unavailable");
}

// Busy servers.

/// Rule H-5.
#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let host = Host::new();
    for (status, busy, expected) in
        [(429, 1, "allowed"), (429, 4, "allowed"), (503, 2, "allowed"), (503, 3, "registry-unavailable")]
    {
        let left = AtomicUsize::new(busy);
        let content = host.content(&format!("{LOGICAL}:1"));
        let server = host
            .rig
            .server(move |_, seen| {
                let again = seen.path.ends_with("/1")
                    && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
                if again { Reply::status(status, "").with("Retry-After", "0") } else { content(seen) }
            })
            .await;
        let result = host.verify(&conf(&server.host, &[]), &tagged()).await;
        assert_eq!(code(&result), expected, "{status} {busy}: {result:?}");
        let asked = server.seen().iter().filter(|seen| seen.path.ends_with("/1")).count();
        assert_eq!(asked, if expected == "allowed" { busy + 1 } else { busy });
    }
}

/// Rule H-5: the answer is there long before the deadline.
#[tokio::test]
async fn nobody_waits_for_a_registry_longer_than_there_is_time() {
    let host = Host::new();
    let server = host.rig.server(|_, _| Reply::status(429, "").with("Retry-After", "3600")).await;
    let engine = host.engine(&conf(&server.host, &[]));
    let start = Instant::now();
    let result = verify(&engine, &tagged(), Duration::from_secs(30)).await;
    assert_eq!(code(&result), "registry-unavailable");
    assert!(result.unwrap_err().error.to_string().contains("429"));
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// Rules H-2, H-5: what asks without end gets an end.
#[tokio::test]
async fn authentication_has_an_end() {
    let mut host = Host::accepting_anything();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let server = host
        .rig
        .server(move |host, seen| match seen.path.split('?').next().unwrap() {
            "/token" => {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                Reply::ok(format!("{{\"token\":\"t{number}\"}}").as_bytes())
            }
            _ => Reply::challenge(&bearer(host)),
        })
        .await;
    host.auth = host.rig.login(&server, "u:p");
    let result = host.verify("", &format!("docker://{}/ns/app:1", server.host)).await;
    assert_eq!(code(&result), "registry-auth");
    assert!(server.count() <= 6, "{}", server.count());
}

/// Rules H-3, M-7: a token server may be elsewhere, and is shown what is for the registry; where it leads, nobody is.
#[tokio::test]
async fn a_token_server_on_another_host_gets_the_credentials_and_passes_none_on() {
    let mut host = Host::accepting_anything();
    let elsewhere = host.rig.server(|_, _| Reply::ok(b"{\"token\":\"t\"}")).await;
    let beyond = format!("https://{}/token", elsewhere.host);
    let tokens = host
        .rig
        .server(move |_, seen| match seen.path.split('?').next().unwrap() {
            "/moved" => Reply::redirect(307, &beyond),
            _ => Reply::ok(b"{\"token\":\"t\"}"),
        })
        .await;
    for (path, beyond) in [("token", false), ("moved", true)] {
        let realm = format!("Bearer realm=\"https://{}/{path}\",service=\"s\"", tokens.host);
        let server = host
            .rig
            .server(move |_, seen| match seen.header("authorization") {
                Some("Bearer t") => Reply::manifest(IMAGE),
                _ => Reply::challenge(&realm),
            })
            .await;
        host.auth = host.rig.login(&server, "user:word");
        let result = host.verify("", &format!("docker://{}/ns/app:1", server.host)).await;
        assert_eq!(code(&result), "allowed", "{result:?}");
        let shown = format!("Basic {}", STANDARD.encode("user:word"));
        assert_eq!(tokens.seen().last().unwrap().header("authorization"), Some(shown.as_str()));
        assert!(server.seen().iter().all(|seen| seen.header("authorization") != Some(&shown)));
        assert_eq!(elsewhere.count(), usize::from(beyond));
        assert!(elsewhere.seen().iter().all(|seen| seen.header("authorization").is_none()));
    }
}

/// A connection that ends, at whichever stage, is an answer: soon, and never "allowed" or "unsigned".
#[tokio::test]
async fn connections_that_end_decide_nothing() {
    let host = Host::new();
    // Before and within the handshake.
    for bytes in [0, 1, 100] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut read = vec![0; bytes];
                let _ = stream.read_exact(&mut read).await;
                // What is left unread makes the end a reset.
                drop(stream);
            }
        });
        let result = host.verify(&conf(&address, &[]), &tagged()).await;
        assert!(["registry-unavailable", "tls-error"].contains(&code(&result)), "{bytes}: {result:?}");
    }
    // In the answer to each request.
    const ENDS: [&str; 5] = [
        "",
        "HTTP/1.1 2",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ];
    for end in ENDS {
        for stage in ["/v2/", "/1", ".sig", "/blobs/"] {
            // The status alone is all that is wanted of the first.
            if stage == "/v2/" && end.contains("\r\n\r\n") {
                continue;
            }
            let content = host.content(&format!("{LOGICAL}:1"));
            let server = host
                .rig
                .server(move |_, seen| {
                    let here = if stage == "/blobs/" {
                        seen.path.contains(stage)
                    } else {
                        seen.path.ends_with(stage)
                    };
                    if here { Reply::Raw(end) } else { content(seen) }
                })
                .await;
            let result = host.verify(&conf(&server.host, &[]), &tagged()).await;
            assert_eq!(code(&result), "registry-unavailable", "{stage} {end:?}: {result:?}");
        }
    }
}

// Round trips.

/// Design: a key by tag costs three requests on a warm connection, by digest at most two more than the manifest.
#[tokio::test]
async fn warm_requests_are_few() {
    let host = Host::new();
    let server = host.registry().await;
    let engine = host.engine(&conf(&server.host, &[]));
    let first = verify(&engine, &tagged(), Duration::from_secs(30)).await.unwrap();
    // Rules H-1, X-1: once, a registry is asked what it is.
    assert_eq!(first.requests, 4);
    for name in [tagged(), pinned()] {
        let before = server.count();
        let answer = verify(&engine, &name, Duration::from_secs(30)).await.unwrap();
        assert_eq!((answer.requests, server.count() - before), (3, 3), "{name}");
    }
    let pings = server.seen().iter().filter(|seen| seen.path == "/v2/").count();
    assert_eq!(pings, 1);
}

/// What does not depend on each other is asked for at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_manifest_and_its_signatures_are_asked_for_side_by_side() {
    let host = Host::new();
    let content = host.content(&format!("{LOGICAL}:1"));
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let waiting = Arc::clone(&barrier);
    let server = host
        .rig
        .server(move |_, seen| {
            // Neither is answered before the other is asked for.
            if seen.path.contains("/manifests/") {
                tokio::task::block_in_place(|| waiting.wait());
            }
            content(seen)
        })
        .await;
    let engine = host.engine(&conf(&server.host, &[]));
    let result = verify(&engine, &pinned(), Duration::from_secs(20)).await;
    assert_eq!(code(&result), "allowed", "{result:?}");
}

// Signatures that a registry keeps itself.

/// Rules X-1 to X-4, K-9.
#[tokio::test]
async fn a_registry_that_keeps_signatures_is_asked_instead_of_the_store() {
    if !crate::support::have(&["gpg"]) {
        return;
    }
    let gpg = crate::support::Gpg::new();
    gpg.key("Publisher", "never", "20260101T000000!");
    let digest = Digest::sha256(IMAGE);
    let blob = gpg.sign("Publisher", &[], &simple_signing(&format!("{LOGICAL}:1"), &digest.to_string()));
    let requirement = json!({
        "type": "signedBy", "keyType": "GPGKeys", "keyData": STANDARD.encode(gpg.export("Publisher")),
    });
    let entry = |version: u64, kind: &str, content: &[u8]| json!({"schemaVersion": version, "name": "n", "type": kind, "content": STANDARD.encode(content)});
    let list = |entries: Value| Reply::ok(json!({ "signatures": entries }).to_string().as_bytes());
    let path = format!("/extensions/v2/ns/app/signatures/{digest}");
    for (announced, in_store, reply, expected) in [
        (Some("1"), false, list(json!([entry(2, "atomic", &blob)])), "allowed"),
        (Some("1"), false, list(json!([entry(2, "other", &blob), entry(2, "atomic", &blob)])), "allowed"),
        (Some("1"), false, list(json!([entry(1, "atomic", &blob)])), "unsigned"),
        (Some("1"), false, list(json!([entry(2, "other", &blob)])), "unsigned"),
        (Some("1"), true, list(json!([])), "unsigned"),
        (Some("1"), true, Reply::ok(b"{}"), "unsigned"),
        (Some("1"), true, Reply::status(404, ""), "registry-protocol"),
        (Some("1"), true, Reply::ok(b"{\"signatures\":[{\"content\":\"%\"}]}"), "malformed-signature"),
        (Some("1"), true, Reply::ok(b"<html>"), "malformed-signature"),
        (Some("1"), true, Reply::Endless, "registry-protocol"),
        (Some("2"), true, Reply::status(500, ""), "allowed"),
        (Some(" 1, 1"), true, Reply::status(500, ""), "allowed"),
        (None, true, Reply::status(500, ""), "allowed"),
        (None, false, list(json!([entry(2, "atomic", &blob)])), "unsigned"),
    ] {
        let host = Host { policy: json!({ "default": [requirement] }), ..Host::new() };
        if in_store {
            let place = format!("lookaside/ns/app@sha256={}/signature-1", digest.hex());
            write(host.path(&place), &blob);
        }
        let (content, extension, path) = (host.content("x.example/y:1"), reply.clone(), path.clone());
        let server = host
            .rig
            .server(move |_, seen| match (announced, seen.path.as_str()) {
                (Some(value), "/v2/") => Reply::ok(b"").with("X-Registry-Supports-Signatures", value),
                (_, asked) if asked == path => extension.clone(),
                _ => content(seen),
            })
            .await;
        let result = host.verify(&conf(&server.host, &[]), &tagged()).await;
        assert_eq!(code(&result), expected, "{announced:?} {in_store} {reply:?}: {result:?}");
    }
}

/// Rules H-1, K-9: a registry that does not even say what it is.
#[tokio::test]
async fn a_registry_must_answer_for_itself_where_signatures_are_wanted() {
    for (reply, expected) in [
        (Reply::ok(b""), "allowed"),
        (Reply::challenge("Basic realm=\"r\""), "allowed"),
        (Reply::status(404, ""), "registry-protocol"),
        (Reply::status(403, ""), "registry-auth"),
        (Reply::status(501, ""), "registry-unavailable"),
    ] {
        let host = Host::new();
        let content = host.content(&format!("{LOGICAL}:1"));
        let server = host
            .rig
            .server(move |_, seen| if seen.path == "/v2/" { reply.clone() } else { content(seen) })
            .await;
        assert_eq!(code(&host.verify(&conf(&server.host, &[]), &tagged()).await), expected);
    }
}

/// Rules H-1, K-9, M-6: what the reference does not take from a mirror is not judged either.
#[tokio::test]
async fn a_mirror_must_answer_for_itself_even_where_anything_is_accepted() {
    let host = Host::accepting_anything();
    let answer = |reply: Reply, image: &'static [u8]| {
        move |_: &str, seen: &Seen| if seen.path == "/v2/" { reply.clone() } else { Reply::manifest(image) }
    };
    let mirror = host.rig.server(answer(Reply::status(404, ""), OTHER)).await;
    let primary = host.rig.server(answer(Reply::ok(b""), IMAGE)).await;
    let answer = host.verify(&conf(&primary.host, &[&mirror.host]), &tagged()).await.unwrap();
    assert_eq!(answer.pinned.unwrap().text(), pinned());
    assert_eq!(mirror.only_request().path, "/v2/");
}

// Proxies.

/// A proxy that leads every name to one server, and the names that it was asked for.
async fn proxy(target: &Server) -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, target) = (Arc::new(std::sync::Mutex::new(Vec::new())), target.host.clone());
    let names = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (names, target) = (Arc::clone(&names), target.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.ok()?);
                }
                let head = String::from_utf8(head).ok()?;
                names.lock().unwrap().push(head.lines().next()?.to_owned());
                let mut server = TcpStream::connect(target).await.ok()?;
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
                copy_bidirectional(&mut stream, &mut server).await.ok()
            });
        }
    });
    (address, asked)
}

/// Rules H-8, K-8.
#[tokio::test]
async fn registries_are_reached_by_way_of_the_proxy() {
    let mut host = Host::new();
    let content = host.content(&format!("{LOGICAL}:1"));
    let server = host.rig.server_named("logical.example", None, move |_, seen| content(seen)).await;
    let (address, asked) = proxy(&server).await;
    host.proxies.https = Some(address);
    let result = host.verify("", &tagged()).await;
    assert_eq!(code(&result), "allowed", "{result:?}");
    assert!(!asked.lock().unwrap().is_empty());
    assert!(asked.lock().unwrap().iter().all(|line| line == "CONNECT logical.example:443 HTTP/1.1"));

    // Without it, nobody is there.
    let before = server.count();
    host.proxies.no_proxy = Some("logical.example".to_owned());
    assert_eq!(code(&host.verify("", &tagged()).await), "registry-unavailable");
    host.proxies = ProxySettings::default();
    assert_eq!(code(&host.verify("", &tagged()).await), "registry-unavailable");
    assert_eq!(server.count(), before);

    host.proxies.https = Some("socks5://127.0.0.1:1".to_owned());
    let result = host.verify("", &tagged()).await;
    assert_eq!(code(&result), "proxy-invalid");
}

/// Rules H-8, M-9: that a registry need not prove who it is says nothing about the proxy, which is shown a password.
#[tokio::test]
async fn a_proxy_over_tls_proves_who_it_is_whatever_the_registry_need_not() {
    let mut host = Host::accepting_anything();
    let insecure = "[[registry]]\nlocation = \"logical.example\"\ninsecure = true\n";
    let (stranger, answer) = (Rig::new(), |_: &str, _: &Seen| Reply::status(502, ""));
    for (server, is_asked) in [(host.rig.server(answer).await, true), (stranger.server(answer).await, false)]
    {
        let proxy = format!("https://user:hunter2@{}", server.host);
        host.proxies = ProxySettings { http: Some(proxy.clone()), https: Some(proxy), no_proxy: None };
        for conf in ["", insecure] {
            let before = server.count();
            let error = host.verify(conf, &tagged()).await.unwrap_err();
            assert_eq!(server.count() > before, is_asked, "{conf}: {error:?}");
            assert!(!format!("{error:?} {}", error.error).contains("hunter2"), "{error:?}");
        }
        assert!(server.seen().iter().all(|seen| seen.header("proxy-authorization").is_some()));
    }
}

/// Rule H-8: where no proxy is asked, nobody hears its password.
#[tokio::test]
async fn the_password_of_a_proxy_is_for_the_proxy() {
    let mut host = Host::accepting_anything();
    let server = host.rig.plain_server(|_, _| Reply::manifest(IMAGE)).await;
    let proxy = Some("http://user:hunter2@proxy.invalid:3128".to_owned());
    host.proxies = ProxySettings { http: proxy.clone(), https: proxy, no_proxy: None };
    let conf = format!("{}insecure = true\n", conf(&server.host, &[]));
    assert_eq!(code(&host.verify(&conf, &tagged()).await), "allowed");
    assert!(server.seen().iter().filter(|seen| seen.path.starts_with('/')).count() > 0);
    assert!(server.seen().iter().all(|seen| seen.header("proxy-authorization").is_none()));
    let settings = ProxySource::Variables(host.proxies.clone());
    let configuration = Configuration {
        registries_d: Directories::explicit(host.path("registries.d"), &Environment::system()),
        registries_conf: RegistriesConfSource::Explicit(host.path("registries.conf")),
        proxies: settings,
    };
    let shown = format!("{:?} {configuration:?}", configuration.load().unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// T-29: a proxy does not make the registry's word better, nor does its address tell what the registry is.
#[tokio::test]
async fn by_way_of_a_proxy_a_registry_leads_to_no_address_within() {
    let mut host = Host::accepting_anything();
    let place = Arc::new(std::sync::Mutex::new(String::new()));
    let target = Arc::clone(&place);
    let server = host
        .rig
        .server_named("logical.example", None, move |_, _| Reply::redirect(302, &target.lock().unwrap()))
        .await;
    let (address, asked) = proxy(&server).await;
    host.proxies.https = Some(address.clone());
    for location in ["https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/", "https://[::1]/"]
    {
        location.clone_into(&mut place.lock().unwrap());
        assert_eq!(code(&host.verify("", &tagged()).await), "registry-protocol", "{location}");
    }
    // The proxy itself, by name and without a proxy.
    host.proxies.https = Some(address.replace("127.0.0.1", "localhost"));
    host.proxies.no_proxy = Some("localhost".to_owned());
    "https://localhost/".clone_into(&mut place.lock().unwrap());
    assert_eq!(code(&host.verify("", &tagged()).await), "registry-protocol");
    assert!(asked.lock().unwrap().iter().all(|line| line.contains("logical.example")));
}

// Short names.

/// Rules N-1 to N-4, T-22, L-3.
#[tokio::test]
async fn short_names_count_only_where_they_are_certain() {
    let mut host = Host::new();
    let server = host.registry().await;
    let remapped = conf(&server.host, &[]);
    let search = |registries: &str| format!("unqualified-search-registries = [{registries}]\n{remapped}");
    let alias = format!("{remapped}[aliases]\n\"ns/app\" = \"{LOGICAL}\"\n");
    for (conf, searched, aliased) in [
        (search("\"logical.example\""), "allowed", "short-name"),
        (search("\"logical.example\", \"other.example\""), "short-name", "short-name"),
        (search(""), "short-name", "short-name"),
        (remapped.clone(), "short-name", "short-name"),
        (alias, "allowed", "allowed"),
    ] {
        for (short_names, expected) in [(ShortNames::Search, searched), (ShortNames::AliasesOnly, aliased)] {
            host.short_names = short_names;
            let result = host.verify(&conf, "ns/app:1").await;
            assert_eq!(code(&result), expected, "{conf} {short_names:?}: {result:?}");
            if let Ok(answer) = result {
                assert_eq!(answer.image.text(), tagged());
                assert!(answer.warnings.iter().any(|w| w.contains("ns/app:1") && w.contains(LOGICAL)));
            }
        }
    }
    // The image "registry" of Docker Hub, and not the image "2" as ostree would write it.
    let hub = format!(
        "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"{}/hub\"\n",
        server.host
    );
    host.short_names = ShortNames::Search;
    assert_eq!(code(&host.verify(&hub, "registry:2").await), "image-not-found");
    assert!(server.seen().iter().any(|seen| seen.path == "/v2/hub/registry/manifests/2"));
    // "docker://" says that the name is whole (rule R-2).
    let whole = host.verify(&search("\"logical.example\""), "docker://ns/app:1").await;
    assert!(!matches!(&whole, Ok(answer) if answer.image.text() == tagged()));
    assert_eq!(Code::ShortName.as_str(), "short-name");
}

fn tls_config(certificate: &Certificate, key: &KeyPair) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap()
}

/// Rule T-25: who has more time spends it at a mirror that says nothing; who has less does not wait for that.
#[tokio::test]
async fn where_mirrors_are_passed_over_everybody_does_it_in_its_own_time() {
    let host = Host::new();
    let primary = host.registry().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mirror = silent.local_addr().unwrap().to_string();
    let engine = host.engine(&conf(&primary.host, &[&mirror]));
    let leading = Arc::clone(&engine);
    let leader = tokio::spawn(async move { verify(&leading, &tagged(), Duration::from_secs(600)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let result = verify(&engine, &tagged(), Duration::from_secs(4)).await;
    leader.abort();
    assert_eq!(code(&result), "allowed", "{result:?}");
}
