//! The registry client against scripted TLS servers on loopback: what it sends, to whom, and when it gives up.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use vouchd::config::{Environment, User};
use vouchd::diagnostic::Code;
use vouchd::digest::{Algorithm, Digest};
use vouchd::evaluate::evidence::LocatedSignature;
use vouchd::fetch::credentials::Source;
use vouchd::fetch::registry::{Client, Document, Settings};
use vouchd::fetch::{Budget, EVIDENCE_BYTES, EVIDENCE_REQUESTS, Error, MANIFEST_BYTES, attachment};
use vouchd::reference::Named;
use vouchd::verify::UntrustedSignature;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const MANIFEST: &[u8] = b"{\"schemaVersion\":2}";
const TAG_PATH: &str = "/v2/ns/app/manifests/1";

// What is asked.

#[tokio::test]
async fn an_anonymous_request_says_who_and_what_and_nothing_more() {
    let rig = Rig::new();
    let server = rig.server(|_, _| Reply::manifest(MANIFEST)).await;
    let document = rig.tag(&server).await.unwrap();
    assert_eq!(document, Document { bytes: MANIFEST.to_vec(), media_type: OCI.into() });
    let seen = server.only_request();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", TAG_PATH));
    assert_eq!(seen.header("user-agent"), Some(concat!("vouchd/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(seen.header("authorization"), None);
    for media_type in [
        OCI,
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ] {
        assert!(seen.header("accept").unwrap().split(", ").any(|t| t == media_type), "{media_type}");
    }
}

#[tokio::test]
async fn tag_signature_manifest_and_payload_are_three_requests_on_one_connection() {
    let rig = Rig::new();
    let payload = b"payload".to_vec();
    let attachment = attachment_manifest(&[(&Digest::sha256(&payload), "mt")]);
    let server = rig
        .server(move |_, seen| match seen.path.as_str() {
            TAG_PATH => Reply::manifest(MANIFEST),
            path if path.ends_with(".sig") => Reply::manifest(&attachment),
            _ => Reply::ok(&payload),
        })
        .await;
    let client = rig.client(Source::Anonymous);
    for round in 1..=2 {
        let budget = Budget::new();
        let document = client.manifest(&server.image(), "1", &budget, soon()).await.unwrap();
        let found = signatures(&client, &server, &document.bytes, &budget).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(budget.requests_made(), 3);
        assert_eq!(server.count(), 3 * round);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

// Authentication.

#[tokio::test]
async fn basic_credentials_are_sent_when_asked_for_and_then_at_once() {
    let rig = Rig::new();
    let server = rig.server(|_, seen| guarded(seen, "Basic dTpw", "Basic realm=\"r\"")).await;
    let client = rig.client(rig.login(&server, "u:p"));
    for requests in [2, 3] {
        assert!(client.manifest(&server.image(), "1", &Budget::new(), soon()).await.is_ok());
        assert_eq!(server.count(), requests);
    }
    assert_eq!(server.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_bearer_token_is_fetched_once_per_scope_and_reused() {
    let rig = Rig::new();
    let server = rig
        .server(|host, seen| match seen.path.split('?').next().unwrap() {
            "/token" => Reply::ok(b"{\"access_token\":\"secret-token\"}"),
            _ => guarded(seen, "Bearer secret-token", &bearer(host)),
        })
        .await;
    let client = rig.client(rig.login(&server, "us er:p:q"));
    for requests in [3, 4] {
        assert!(client.manifest(&server.image(), "1", &Budget::new(), soon()).await.is_ok());
        assert_eq!(server.count(), requests);
    }
    let token = &server.seen()[1];
    assert_eq!(token.path, "/token?account=us+er&service=svc&scope=repository%3Ans%2Fapp%3Apull");
    assert_eq!(
        token.header("authorization"),
        Some(format!("Basic {}", STANDARD.encode("us er:p:q")).as_str())
    );

    let other = Named::parse(&format!("{}/ns/other", server.host)).unwrap();
    assert!(client.manifest(&other, "1", &Budget::new(), soon()).await.is_ok());
    assert_eq!(server.count(), 6, "another repository needs another token");
}

#[tokio::test]
async fn an_anonymous_token_is_asked_for_without_credentials() {
    let rig = Rig::new();
    let server = rig
        .server(|host, seen| match seen.path.split('?').next().unwrap() {
            "/token" => Reply::ok(b"{\"token\":\"t\",\"access_token\":\"other\"}"),
            _ => guarded(seen, "Bearer t", &bearer(host)),
        })
        .await;
    assert!(rig.tag(&server).await.is_ok());
    let token = &server.seen()[1];
    assert_eq!(token.path, "/token?service=svc&scope=repository%3Ans%2Fapp%3Apull");
    assert_eq!(token.header("authorization"), None);
}

#[tokio::test]
async fn a_token_that_is_no_longer_good_is_replaced() {
    let rig = Rig::new();
    let generation = Arc::new(AtomicUsize::new(1));
    let current = Arc::clone(&generation);
    let server = rig
        .server(move |host, seen| {
            let token = format!("t{}", current.load(Ordering::SeqCst));
            match seen.path.split('?').next().unwrap() {
                "/token" => Reply::ok(format!("{{\"token\":\"{token}\"}}").as_bytes()),
                _ => guarded(seen, &format!("Bearer {token}"), &bearer(host)),
            }
        })
        .await;
    let client = rig.client(Source::Anonymous);
    for requests in [3, 6] {
        assert!(client.manifest(&server.image(), "1", &Budget::new(), soon()).await.is_ok());
        assert_eq!(server.count(), requests);
        generation.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_token_from_before_access_was_granted_is_replaced() {
    let rig = Rig::new();
    let generation = Arc::new(AtomicUsize::new(1));
    let current = Arc::clone(&generation);
    let server = rig
        .server(move |host, seen| {
            let token = format!("t{}", current.load(Ordering::SeqCst));
            match (seen.path.split('?').next().unwrap(), seen.header("authorization")) {
                ("/token", _) => {
                    Reply::ok(format!("{{\"token\":\"{token}\",\"expires_in\":86400}}").as_bytes())
                }
                (_, None) => Reply::challenge(&bearer(host)),
                (_, Some("Bearer t2")) => Reply::manifest(MANIFEST),
                (_, Some(_)) => Reply::oci_error(403, "DENIED", "no"),
            }
        })
        .await;
    let client = rig.client(Source::Anonymous);
    let fetch = async || client.manifest(&server.image(), "1", &Budget::new(), soon()).await;
    assert_code(fetch().await, Code::RegistryAuth);
    generation.fetch_add(1, Ordering::SeqCst);
    assert!(fetch().await.is_ok());
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let rig = Rig::new();
    let server = rig
        .server(|host, seen| match seen.path.as_str() {
            "/token" => Reply::ok(b"{\"access_token\":\"t\"}"),
            _ => guarded(seen, "Bearer t", &bearer(host)),
        })
        .await;
    let entry =
        format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dTo=\",\"identitytoken\":\"id&token\"}}}}}}", server.host);
    assert!(
        rig.client(rig.auth_file(&entry))
            .manifest(&server.image(), "1", &Budget::new(), soon())
            .await
            .is_ok()
    );
    let token = &server.seen()[1];
    assert_eq!((token.method.as_str(), token.header("authorization")), ("POST", None));
    assert_eq!(token.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(
        token.body,
        "service=svc&scope=repository%3Ans%2Fapp%3Apull&grant_type=refresh_token&client_id=vouchd&refresh_token=id%26token"
    );
}

#[tokio::test]
async fn a_redirect_of_an_identity_token_is_refused() {
    let rig = Rig::new();
    let thief = rig.server(|_, _| Reply::ok(b"{\"token\":\"t\"}")).await;
    let target = format!("https://{}/", thief.host);
    let server = rig
        .server(move |host, seen| match seen.path.as_str() {
            "/token" => Reply::redirect(307, &target),
            _ => guarded(seen, "Bearer t", &bearer(host)),
        })
        .await;
    let entry =
        format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dTo=\",\"identitytoken\":\"id\"}}}}}}", server.host);
    let client = rig.client(rig.auth_file(&entry));
    assert_code(client.manifest(&server.image(), "1", &Budget::new(), soon()).await, Code::RegistryProtocol);
    assert_eq!(thief.count(), 0);
}

#[tokio::test]
async fn a_wider_scope_is_asked_for_once() {
    let rig = Rig::new();
    let server = rig
        .server(|host, seen| match seen.path.split('?').next().unwrap() {
            "/token" if seen.path.ends_with("&scope=extra") => Reply::ok(b"{\"token\":\"wide\"}"),
            "/token" => Reply::ok(b"{\"token\":\"narrow\"}"),
            _ if seen.header("authorization") == Some("Bearer narrow") => {
                Reply::challenge(&format!("{},error=\"insufficient_scope\",scope=\"extra\"", bearer(host)))
            }
            _ => guarded(seen, "Bearer wide", &bearer(host)),
        })
        .await;
    let client = rig.client(Source::Anonymous);
    // Later the narrow token is still there; the wide one is never kept, because the registry chose its scope.
    for requests in [5, 8, 11] {
        assert!(client.manifest(&server.image(), "1", &Budget::new(), soon()).await.is_ok());
        assert_eq!(server.count(), requests);
    }
    let tokens: Vec<bool> = server
        .seen()
        .iter()
        .filter(|seen| seen.path.starts_with("/token"))
        .map(|seen| seen.path.ends_with("&scope=extra"))
        .collect();
    assert_eq!(tokens, [false, true, true, true]);

    let greedy = rig
        .server(|host, seen| match seen.path.split('?').next().unwrap() {
            "/token" => Reply::ok(b"{\"token\":\"t\"}"),
            _ => {
                let scope = seen.header("authorization").map_or(0, str::len) + seen.path.len();
                Reply::challenge(&format!("{},error=\"insufficient_scope\",scope=\"s{scope}\"", bearer(host)))
            }
        })
        .await;
    assert_code(rig.tag(&greedy).await, Code::RegistryAuth);
    assert!(greedy.count() <= 5, "{}", greedy.count());
}

#[tokio::test]
async fn refused_credentials_are_not_shown_again_nor_printed() {
    let rig = Rig::new();
    let echo = |text: &str| format!("{{\"errors\":[{{\"code\":\"DENIED\",\"message\":\"no {text}\"}}]}}");
    let (basic_echo, token_echo) = (echo("hunter2"), echo("tok-en-tok"));
    let basic = rig
        .server(move |_, _| Reply::status(401, &basic_echo).with("WWW-Authenticate", "Basic realm=\"r\""))
        .await;
    let token_server = rig
        .server(|host, seen| match seen.path.split('?').next().unwrap() {
            "/token" => {
                Reply::status(401, "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"dTpodW50ZXIy\"}]}")
            }
            _ => Reply::challenge(&bearer(host)),
        })
        .await;
    let denied = rig
        .server(move |host, seen| match seen.path.split('?').next().unwrap() {
            "/token" => Reply::ok(b"{\"token\":\"tok-en-tok\"}"),
            _ if seen.header("authorization").is_some() => Reply::status(403, &token_echo),
            _ => Reply::challenge(&bearer(host)),
        })
        .await;
    for (server, requests) in [(&basic, 2), (&token_server, 2), (&denied, 3)] {
        let client = rig.client(rig.login(server, "u:hunter2"));
        let error = client.manifest(&server.image(), "1", &Budget::new(), soon()).await.unwrap_err();
        assert_eq!(error.code(), Code::RegistryAuth);
        let text = format!("{error} {error:?} {client:?}");
        for secret in ["hunter2", "dTpodW50ZXIy", "tok-en-tok"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(server.count(), requests);
    }
    let remembered = rig.client(rig.login(&basic, "u:hunter2"));
    for requests in [4, 5] {
        assert_code(
            remembered.manifest(&basic.image(), "1", &Budget::new(), soon()).await,
            Code::RegistryAuth,
        );
        assert_eq!(basic.count(), requests, "with a known challenge one attempt is enough");
    }
}

#[tokio::test]
async fn without_usable_credentials_a_401_is_final() {
    let rig = Rig::new();
    for challenge in ["Basic realm=\"r\"", "Negotiate", "Bearer service=\"no realm\"", "Bearer realm=\"x"] {
        let server = rig.server(move |_, _| Reply::challenge(challenge)).await;
        assert_code(rig.tag(&server).await, Code::RegistryAuth);
        assert_eq!(server.count(), 1, "{challenge}");
    }
    let server = rig.server(|_, _| Reply::status(401, "")).await;
    let client = rig.client(rig.login(&server, "u:p"));
    assert_code(client.manifest(&server.image(), "1", &Budget::new(), soon()).await, Code::RegistryAuth);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_token_realm_must_be_https_and_somewhere_the_registry_may_lead() {
    let rig = Rig::new();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_realm = format!("http://{}/token", plain.local_addr().unwrap());
    for realm in [
        plain_realm.as_str(),
        "https://10.0.0.1/token",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00::1]/token",
        "https://[::ffff:10.0.0.1]/token",
        "https://0x0a000001/token",
        "https://user:pass@127.0.0.1/token",
        "ftp://127.0.0.1/",
        "token",
        "",
    ] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"svc\"");
        let server = rig.server(move |_, _| Reply::challenge(&challenge)).await;
        let client = rig.client(rig.login(&server, "u:p"));
        assert_code(
            client.manifest(&server.image(), "1", &Budget::new(), soon()).await,
            Code::RegistryProtocol,
        );
        assert_eq!(server.count(), 1, "{realm}");
    }
    assert!(
        tokio::time::timeout(Duration::from_millis(100), plain.accept()).await.is_err(),
        "no connection was made"
    );
}

#[tokio::test]
async fn a_token_server_that_talks_nonsense_is_an_error() {
    let rig = Rig::new();
    for (reply, code) in [
        (Reply::ok(b"<html>"), Code::RegistryProtocol),
        (Reply::ok(b"{}"), Code::RegistryProtocol),
        (Reply::ok(b"{\"token\":\"a\\nb\"}"), Code::RegistryProtocol),
        (Reply::ok(b"").announcing(2 << 20), Code::RegistryProtocol),
        (Reply::Endless, Code::RegistryProtocol),
        (Reply::status(404, ""), Code::RegistryProtocol),
        (Reply::status(500, ""), Code::RegistryUnavailable),
        (Reply::status(429, ""), Code::RegistryUnavailable),
        (Reply::status(403, ""), Code::RegistryAuth),
    ] {
        let server = rig
            .server(move |host, seen| match seen.path.split('?').next().unwrap() {
                "/token" => reply.clone(),
                _ => Reply::challenge(&bearer(host)),
            })
            .await;
        assert_code(rig.tag(&server).await, code);
        assert_eq!(server.count(), 2);
    }
}

#[tokio::test]
async fn an_unusable_authentication_file_stops_everything() {
    let rig = Rig::new();
    let server = rig.server(|_, _| Reply::manifest(MANIFEST)).await;
    let helper = format!("{{\"credHelpers\":{{\"{}\":\"x\"}}}}", server.host);
    for source in [rig.auth_file("{"), rig.auth_file(&helper), Source::File("/nonexistent".into())] {
        let client = rig.client(source);
        assert_code(
            client.manifest(&server.image(), "1", &Budget::new(), soon()).await,
            Code::AuthFileInvalid,
        );
    }
    let client = rig.client(rig.auth_file(&helper));
    let error = client.manifest(&server.image(), "1", &Budget::new(), soon()).await.unwrap_err().to_string();
    assert!(error.contains(&server.host) && error.contains("--authfile"), "{error}");
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn tokens_and_challenges_are_kept_only_up_to_a_length() {
    let rig = Rig::new();
    for (length, fits) in [(16 << 10, true), ((16 << 10) + 1, false), (1_000_000, false)] {
        let token = "t".repeat(length);
        let server = rig
            .server(move |host, seen| match seen.path.split('?').next().unwrap() {
                "/token" => Reply::ok(format!("{{\"token\":\"{token}\"}}").as_bytes()),
                _ => guarded(seen, &format!("Bearer {token}"), &bearer(host)),
            })
            .await;
        let result = rig.tag(&server).await.map(|_| ()).map_err(|e| e.code());
        assert_eq!(result, if fits { Ok(()) } else { Err(Code::RegistryProtocol) }, "{length}");
    }
    for (length, requests) in [(4 << 10, 3), ((4 << 10) + 1, 1)] {
        for parameter in ["realm", "service", "scope"] {
            let server = rig
                .server(move |host, seen| {
                    let path = if parameter == "realm" { length - format!("https://{host}/token?").len() } else { 0 };
                    let (path, text) = ("x".repeat(path), "s".repeat(length));
                    let (service, scope) = match parameter {
                        "service" => (text.as_str(), "scope"),
                        "scope" => ("service", text.as_str()),
                        _ => ("service", "scope"),
                    };
                    match seen.path.split('?').next().unwrap() {
                        "/token" => Reply::ok(b"{\"token\":\"t\"}"),
                        _ if seen.header("authorization").is_some() => Reply::manifest(MANIFEST),
                        _ => Reply::challenge(&format!(
                            "Bearer realm=\"https://{host}/token?{path}\",service=\"{service}\",error=\"insufficient_scope\",scope=\"{scope}\""
                        )),
                    }
                })
                .await;
            let result = rig.tag(&server).await.map(|_| ()).map_err(|e| e.code());
            let expected = if requests == 3 { Ok(()) } else { Err(Code::RegistryProtocol) };
            assert_eq!((result, server.count()), (expected, requests), "{parameter} {length}");
        }
    }
}

#[tokio::test]
async fn what_a_token_server_did_wrong_once_is_not_remembered() {
    let rig = Rig::new();
    for bad in [
        Reply::ok(b"{\"token\":\"a\\nb\",\"expires_in\":86400}"),
        Reply::ok(format!("{{\"token\":\"{}\",\"expires_in\":86400}}", "t".repeat(1 << 19)).as_bytes()),
        Reply::status(503, ""),
        Reply::status(403, ""),
    ] {
        let shown = format!("{bad:?}").chars().take(100).collect::<String>();
        let asked = AtomicUsize::new(0);
        let server = rig
            .server(move |host, seen| match seen.path.split('?').next().unwrap() {
                "/token" if asked.fetch_add(1, Ordering::SeqCst) == 0 => bad.clone(),
                "/token" => Reply::ok(b"{\"token\":\"t\"}"),
                _ => guarded(seen, "Bearer t", &bearer(host)),
            })
            .await;
        let client = rig.client(Source::Anonymous);
        let fetch = async || client.manifest(&server.image(), "1", &Budget::new(), soon()).await;
        assert!(fetch().await.is_err(), "{shown}");
        assert_eq!(server.count(), 2, "{shown}");
        assert!(fetch().await.is_ok(), "{shown}");
    }
}

#[tokio::test]
async fn a_token_server_that_has_moved_is_found_again() {
    let rig = Rig::new();
    let moved = Arc::new(AtomicUsize::new(0));
    let state = Arc::clone(&moved);
    let server = rig
        .server(move |host, seen| {
            let realm = format!("/token{}", state.load(Ordering::SeqCst));
            match seen.path.split('?').next().unwrap() {
                path if path == realm => Reply::ok(b"{\"token\":\"t\"}"),
                path if path.starts_with("/token") => Reply::status(404, ""),
                _ => guarded(seen, "Bearer t", &format!("Bearer realm=\"https://{host}{realm}\"")),
            }
        })
        .await;
    let client = rig.client(Source::Anonymous);
    let fetch = async |repository: &str| {
        let image = Named::parse(&format!("{}/ns/{repository}", server.host)).unwrap();
        client.manifest(&image, "1", &Budget::new(), soon()).await.is_ok()
    };
    assert!(fetch("one").await);
    moved.store(1, Ordering::SeqCst);
    let _ = fetch("two").await;
    assert!(fetch("two").await);
}

#[tokio::test]
async fn every_repository_may_have_a_realm_of_its_own() {
    let rig = Rig::new();
    let server = rig
        .server(|host, seen| match seen.path.strip_prefix("/token/") {
            Some(rest) => {
                let repository = rest.split('?').next().unwrap();
                Reply::ok(format!("{{\"token\":\"{repository}\"}}").as_bytes())
                    .after(Duration::from_millis(5))
            }
            None => {
                let repository = seen.path.split('/').nth(3).unwrap();
                let challenge = format!("Bearer realm=\"https://{host}/token/{repository}\",service=\"x\"");
                guarded(seen, &format!("Bearer {repository}"), &challenge).after(Duration::from_millis(3))
            }
        })
        .await;
    let client = rig.client(Source::Anonymous);
    let ask = async |n: usize| {
        let image = Named::parse(&format!("{}/ns/r{n}", server.host)).unwrap();
        for _ in 0..6 {
            let found = client.manifest(&image, "1", &Budget::new(), soon()).await;
            assert!(found.is_ok(), "r{n}: {found:?}");
        }
    };
    futures_util::future::join_all((0..8).map(ask)).await;
}

#[tokio::test]
async fn a_token_server_that_was_shown_a_secret_is_not_quoted() {
    let rig = Rig::new();
    let (identity, password) = ("r3fresh/tok+en==", "s3cr/t p+w");
    let echo = |text: &str| format!("{{\"errors\":[{{\"code\":\"DENIED\",\"message\":\"bad: {text}\"}}]}}");
    let unregistered = "{\"errors\":[{\"code\":\"r3fresh\",\"message\":\"s3cr\"}]}".to_owned();
    let forms = ["r3fresh%2Ftok%2Ben%3D%3D", "s3cr%2ft%20p%2bw", "czNjci90", "s3 cr/t", "=3D"];
    let answers =
        forms.iter().map(|f| (*f).to_owned()).chain(forms.iter().map(|f| echo(f))).chain([unregistered]);
    for answer in answers {
        let body = answer.clone();
        let server = rig
            .server(move |host, seen| match seen.path.split('?').next().unwrap() {
                "/token" => Reply::status(400, &body),
                _ => Reply::challenge(&bearer(host)),
            })
            .await;
        let entry = format!(
            "{{\"auths\":{{\"{}\":{{\"auth\":\"dTo=\",\"identitytoken\":\"{identity}\"}}}}}}",
            server.host
        );
        for auth in [rig.auth_file(&entry), rig.login(&server, &format!("u:{password}"))] {
            let client = rig.client(auth);
            let error = client.manifest(&server.image(), "1", &Budget::new(), soon()).await.unwrap_err();
            let Error::RegistryProtocol { detail, .. } = &error else { panic!("{error}") };
            let code = if answer.contains("DENIED") { ", DENIED" } else { "" };
            assert_eq!(detail, &format!("a token from 127.0.0.1: status 400{code}"));
        }
    }
    // Without credentials there is nothing to hide.
    let open = rig
        .server(|host, seen| match seen.path.split('?').next().unwrap() {
            "/token" => Reply::status(400, "come back later"),
            _ => Reply::challenge(&bearer(host)),
        })
        .await;
    assert!(rig.tag(&open).await.unwrap_err().to_string().contains("come back later"));
}

#[tokio::test]
async fn a_registry_that_repeats_a_secret_is_not_quoted() {
    let rig = Rig::new();
    let password = "s3cr/t p+w??>";
    let standard = STANDARD.encode(password);
    let both = STANDARD.encode(format!("u:{password}"));
    for (said, hidden) in [
        ("s3cr/t p+w??>".to_owned(), true),
        ("s3cr%2Ft%20p%2Bw%3F%3F%3E".to_owned(), true),
        ("a=s3cr%2ft+p%2bw??>&b".to_owned(), true),
        ("100% s3cr/%74 p%2Bw??>".to_owned(), true),
        (standard.clone(), true),
        (standard.trim_end_matches('=').replace('/', "_").replace('+', "-"), true),
        (both.clone(), true),
        (both.trim_end_matches('=').replace('/', "_").replace('+', "-"), true),
        (both.replace('=', "%3D").replace('/', "%2f"), true),
        ("100% s3cr%2 p%".to_owned(), false),
    ] {
        let text = said.clone();
        let server = rig
            .server(move |_, seen| match seen.header("authorization") {
                None => Reply::challenge("Basic realm=\"r\""),
                Some(_) => Reply::oci_error(403, "DENIED", &text),
            })
            .await;
        let client = rig.client(rig.login(&server, &format!("u:{password}")));
        let error = client.manifest(&server.image(), "1", &Budget::new(), soon()).await.unwrap_err();
        let Error::RegistryAuth { detail, .. } = &error else { panic!("{error}") };
        assert_eq!(!detail.contains(&said), hidden, "{detail}");
        assert_eq!(detail.contains("repeats a secret"), hidden, "{detail}");
    }
}

#[tokio::test]
async fn an_error_without_words_is_not_introduced() {
    let rig = Rig::new();
    for (code, message, shown) in
        [("UNAUTHORIZED", "", "UNAUTHORIZED"), ("", "go away", "go away"), ("", "", "")]
    {
        let server = rig.server(move |_, _| Reply::oci_error(400, code, message)).await;
        let Err(Error::RegistryProtocol { detail, .. }) = rig.tag(&server).await else { panic!("{code}") };
        let end = if shown.is_empty() { "status 400".to_owned() } else { format!("status 400, {shown}") };
        assert!(detail.ends_with(&end), "{detail}");
    }
}

// Redirects.

#[tokio::test]
async fn a_redirect_to_another_port_loses_the_credentials() {
    let rig = Rig::new();
    let store = rig.server(|_, _| Reply::ok(b"blob")).await;
    let target = format!("https://{}/blob?signed=1", store.host);
    let server = rig
        .server(move |_, seen| match seen.path.as_str() {
            "/moved" => Reply::redirect(307, &target),
            _ if seen.header("authorization").is_none() => Reply::challenge("Basic realm=\"r\""),
            _ => Reply::redirect(302, "/moved"),
        })
        .await;
    let client = rig.client(rig.login(&server, "u:p"));
    let blob = client.blob(&server.image(), &Digest::sha256(b"blob"), 4, &Budget::new(), soon()).await;
    assert_eq!(blob.unwrap(), b"blob");
    assert_eq!(
        server.seen()[2].header("authorization"),
        Some("Basic dTpw"),
        "the same server sees them again"
    );
    let seen = store.only_request();
    assert_eq!((seen.path.as_str(), seen.header("authorization")), ("/blob?signed=1", None));
}

#[tokio::test]
async fn credentials_lost_on_the_way_do_not_come_back() {
    let rig = Rig::new();
    let home = Arc::new(Mutex::new(String::new()));
    let back = Arc::clone(&home);
    let other =
        rig.server(move |_, _| Reply::redirect(302, &format!("https://{}/back", back.lock().unwrap()))).await;
    let target = format!("https://{}/", other.host);
    let server = rig
        .server(move |_, seen| match seen.path.as_str() {
            "/back" => Reply::ok(b"blob"),
            _ if seen.header("authorization").is_none() => Reply::challenge("Basic realm=\"r\""),
            _ => Reply::redirect(302, &target),
        })
        .await;
    home.lock().unwrap().clone_from(&server.host);
    let client = rig.client(rig.login(&server, "u:p"));
    assert!(client.blob(&server.image(), &Digest::sha256(b"blob"), 4, &Budget::new(), soon()).await.is_ok());
    assert_eq!(other.only_request().header("authorization"), None);
    assert_eq!(server.seen().last().unwrap().header("authorization"), None);
}

#[tokio::test]
async fn where_a_redirect_leads_nobody_may_ask_for_credentials() {
    let rig = Rig::new();
    for challenge in ["Basic realm=\"r\"".to_owned(), "Bearer realm=\"https://127.0.0.1:1/\"".to_owned()] {
        let other = rig.server(move |_, _| Reply::challenge(&challenge)).await;
        let target = format!("https://{}/", other.host);
        let server = rig.server(move |_, _| Reply::redirect(302, &target)).await;
        let client = rig.client(rig.login(&server, "u:p"));
        assert_code(client.manifest(&server.image(), "1", &Budget::new(), soon()).await, Code::RegistryAuth);
        assert_eq!((server.count(), other.count()), (1, 1));
        assert_eq!(other.only_request().header("authorization"), None);
    }
}

#[tokio::test]
async fn redirects_that_are_not_followed() {
    let rig = Rig::new();
    for location in [
        "http://127.0.0.1/",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/",
        "https://[fe80::1]/",
        "https://[::ffff:192.168.1.1]/",
        "https://3232235777/",
        "https://u:p@127.0.0.1/",
        "file:///etc/passwd",
        "https://",
    ] {
        let server = rig.server(move |_, _| Reply::redirect(302, location)).await;
        assert_code(rig.tag(&server).await, Code::RegistryProtocol);
        assert_eq!(server.count(), 1, "{location}");
    }
    let nowhere = rig.server(|_, _| Reply::status(302, "")).await;
    assert_code(rig.tag(&nowhere).await, Code::RegistryProtocol);
    for status in [300, 304] {
        let server = rig.server(move |_, _| Reply::redirect(status, "/x")).await;
        assert_code(rig.tag(&server).await, Code::RegistryProtocol);
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn ten_redirects_are_followed_and_no_more() {
    let rig = Rig::new();
    for (hops, allowed) in [(10, true), (11, false)] {
        let server = rig
            .server(move |_, seen| {
                let hop: usize = seen.path.strip_prefix("/hop/").map_or(0, |n| n.parse().unwrap());
                if hop == hops {
                    Reply::manifest(MANIFEST)
                } else {
                    Reply::redirect(302, &format!("/hop/{}", hop + 1))
                }
            })
            .await;
        let budget = Budget::new();
        let result = rig.client(Source::Anonymous).manifest(&server.image(), "1", &budget, soon()).await;
        assert_eq!(result.is_ok(), allowed);
        assert_eq!((server.count(), budget.requests_made()), (11, 11), "every hop is paid for");
        if !allowed {
            assert_code(result, Code::RegistryProtocol);
        }
    }
}

// What comes back.

#[tokio::test]
async fn what_is_fetched_by_digest_has_that_digest() {
    let rig = Rig::new();
    let server = rig
        .server(|_, _| {
            Reply::manifest(MANIFEST).with("Docker-Content-Digest", &Digest::sha256(b"lie").to_string())
        })
        .await;
    let client = rig.client(Source::Anonymous);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
        let (right, wrong) = (Digest::compute(algorithm, MANIFEST), Digest::compute(algorithm, b"lie"));
        let fetch = async |digest: &Digest| {
            client.manifest(&server.image(), &digest.to_string(), &Budget::new(), soon()).await
        };
        assert_eq!(fetch(&right).await.unwrap().bytes, MANIFEST);
        let error = fetch(&wrong).await.unwrap_err();
        assert!(
            matches!(&error, Error::DigestMismatch { wanted, found, .. } if *wanted == wrong && *found == right)
        );
        let blob = client.blob(&server.image(), &wrong, 1 << 20, &Budget::new(), soon()).await;
        assert_code(blob, Code::DigestMismatch);
    }
    for neither in ["sha256:abc", "../x", "a/b", "a?b", "md5:d41d8cd98f00b204e9800998ecf8427e", "a%2fb"] {
        let count = server.count();
        assert_code(
            client.manifest(&server.image(), neither, &Budget::new(), soon()).await,
            Code::RegistryProtocol,
        );
        assert_eq!(server.count(), count, "{neither}");
    }
}

#[tokio::test]
async fn what_is_no_manifest_is_an_error() {
    let rig = Rig::new();
    for (reply, code) in [
        (Reply::ok(b"{}").with("Content-Type", "text/html; charset=utf-8"), Code::RegistryProtocol),
        (Reply::manifest(b"<html>"), Code::RegistryProtocol),
        (Reply::manifest(b""), Code::RegistryProtocol),
        (Reply::manifest(b"[]"), Code::RegistryProtocol),
        (Reply::status(204, ""), Code::RegistryProtocol),
        (Reply::status(206, "{}"), Code::RegistryProtocol),
        (Reply::status(400, ""), Code::RegistryProtocol),
        (Reply::status(401, ""), Code::RegistryAuth),
        (Reply::status(403, ""), Code::RegistryAuth),
        (Reply::status(404, ""), Code::ImageNotFound),
        (Reply::oci_error(404, "NAME_UNKNOWN", "x"), Code::ImageNotFound),
        (Reply::oci_error(400, "MANIFEST_UNKNOWN", "x"), Code::ImageNotFound),
        (Reply::status(410, ""), Code::RegistryProtocol),
        (Reply::status(429, ""), Code::RegistryUnavailable),
        (Reply::status(500, ""), Code::RegistryUnavailable),
        (Reply::status(503, ""), Code::RegistryUnavailable),
        (Reply::Raw("no HTTP at all\r\n\r\n"), Code::RegistryUnavailable),
        (Reply::Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), Code::RegistryUnavailable),
        (Reply::Raw(""), Code::RegistryUnavailable),
    ] {
        let shown = format!("{reply:?}");
        let server = rig.server(move |_, _| reply.clone()).await;
        let result = rig.tag(&server).await;
        assert_eq!(result.map_err(|e| e.code()), Err(code), "{shown}");
    }
}

#[tokio::test]
async fn a_registry_is_quoted_but_not_at_length() {
    let rig = Rig::new();
    let long = "x".repeat(10_000);
    let server = rig.server(move |_, _| Reply::oci_error(500, "OOPS", &long)).await;
    let text = rig.tag(&server).await.unwrap_err().to_string();
    assert!(text.contains("500") && text.contains("OOPS: xxx") && text.len() < 500, "{text}");

    let long = "x".repeat(100_000);
    let challenge = format!("Bearer realm=\"https://{long}.example/\"");
    let realm = rig.server(move |_, _| Reply::challenge(&challenge)).await;
    assert!(rig.tag(&realm).await.unwrap_err().to_string().len() < 1_000);
    let body = format!("{{\"layers\":\"{long}\"}}");
    let typed = rig.server(move |_, _| Reply::manifest(body.as_bytes())).await;
    let untyped = rig.server(move |_, _| Reply::ok(b"{}").with("Content-Type", &long)).await;
    for server in [typed, untyped] {
        let result = signatures(&rig.client(Source::Anonymous), &server, MANIFEST, &Budget::new()).await;
        assert!(result.unwrap_err().to_string().len() < 1_000);
    }
}

#[tokio::test]
async fn bodies_end_at_their_limit() {
    let rig = Rig::new();
    let server = rig
        .server(|_, seen| match seen.path.as_str() {
            "/v2/ns/app/manifests/announced" => Reply::manifest(b"").announcing(MANIFEST_BYTES + 1),
            "/v2/ns/app/manifests/chunked" => Reply::Endless,
            "/v2/ns/app/manifests/failed" => Reply::EndlessFailure,
            path if path.contains("/blobs/") => Reply::ok(b"12345"),
            _ => Reply::manifest(&padded(MANIFEST_BYTES)),
        })
        .await;
    let client = rig.client(Source::Anonymous);
    for (tag, code) in [
        ("announced", Err(Code::RegistryProtocol)),
        ("chunked", Err(Code::RegistryProtocol)),
        ("failed", Err(Code::RegistryProtocol)),
        ("largest", Ok(MANIFEST_BYTES)),
    ] {
        let result = client.manifest(&server.image(), tag, &Budget::new(), soon()).await;
        assert_eq!(result.map(|d| d.bytes.len()).map_err(|e| e.code()), code, "{tag}");
    }
    for (limit, fits) in [(5, true), (4, false), (0, false)] {
        let blob =
            client.blob(&server.image(), &Digest::sha256(b"12345"), limit, &Budget::new(), soon()).await;
        assert_eq!(blob.is_ok(), fits, "{limit}");
    }
}

#[tokio::test]
async fn one_budget_pays_for_everything() {
    let rig = Rig::new();
    let server = rig.server(|_, _| Reply::manifest(MANIFEST)).await;
    let client = rig.client(Source::Anonymous);
    for (left, enough) in [(MANIFEST.len(), true), (MANIFEST.len() - 1, false)] {
        let budget = Budget::new();
        budget.bytes(EVIDENCE_BYTES - left).unwrap();
        let result = client.manifest(&server.image(), "1", &budget, soon()).await;
        assert_eq!(result.err().map(|e| e.code()), (!enough).then_some(Code::EvidenceTooLarge));
    }
    let count = server.count();
    let budget = Budget::new();
    for _ in 0..EVIDENCE_REQUESTS {
        budget.request().unwrap();
    }
    assert_code(client.manifest(&server.image(), "1", &budget, soon()).await, Code::EvidenceTooLarge);
    assert_eq!(server.count(), count);
}

#[tokio::test]
async fn nothing_outlives_the_deadline() {
    let rig = Rig::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut servers = Vec::new();
    for reply in [Reply::Hang, Reply::Drip, Reply::DripHeaders, Reply::DripFailure] {
        servers.push((rig.server(move |_, _| reply.clone()).await, 1));
    }
    let script = |host: &str, seen: &Seen| {
        if seen.path.starts_with("/token") { Reply::Drip } else { Reply::challenge(&bearer(host)) }
    };
    servers.push((rig.server(script).await, 2));
    let client = rig.client(Source::Anonymous);
    let attempt = async |host: String| {
        let image = Named::parse(&format!("{host}/ns/app")).unwrap();
        let start = Instant::now();
        let result = client.manifest(&image, "1", &Budget::new(), start + Duration::from_secs(2)).await;
        assert_code(result, Code::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
    };
    let hosts = servers.iter().map(|(server, _)| server.host.clone());
    let hosts = hosts.chain([silent.local_addr().unwrap().to_string()]);
    futures_util::future::join_all(hosts.map(attempt)).await;
    for (server, requests) in &servers {
        assert_eq!(server.count(), *requests, "the request arrived");
    }
}

// TLS.

#[tokio::test]
async fn a_server_must_prove_its_name() {
    let (rig, stranger) = (Rig::new(), Rig::new());
    let server = stranger.server(|_, _| Reply::manifest(MANIFEST)).await;
    assert_code(rig.tag(&server).await, Code::TlsError);
    let elsewhere = rig.server_named("other.example", None, |_, _| Reply::manifest(MANIFEST)).await;
    assert_code(rig.tag(&elsewhere).await, Code::TlsError);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let image = Named::parse(&format!("{gone}/ns/app")).unwrap();
    let client = rig.client(Source::Anonymous);
    assert_code(client.manifest(&image, "1", &Budget::new(), soon()).await, Code::RegistryUnavailable);
    let too_high = Named::parse("127.0.0.1:99999/ns/app").unwrap();
    assert_code(client.manifest(&too_high, "1", &Budget::new(), soon()).await, Code::RegistryUnavailable);
    assert_eq!(server.count() + elsewhere.count(), 0);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_registry_alone() {
    let rig = Rig::new();
    let store =
        rig.server_named("127.0.0.1", Some(ClientCertificate::Accepted), |_, _| Reply::ok(b"blob")).await;
    let target = format!("https://{}/", store.host);
    let server = rig
        .server_named("127.0.0.1", Some(ClientCertificate::Required), move |_, _| {
            Reply::redirect(302, &target)
        })
        .await;
    let digest = Digest::sha256(b"blob");
    let fetch = async || {
        rig.client(Source::Anonymous).blob(&server.image(), &digest, 4, &Budget::new(), soon()).await
    };
    assert_code(fetch().await, Code::TlsError);
    rig.add_client_certificate("client");
    assert_eq!(fetch().await.unwrap(), b"blob");
    assert!(server.only_request().client_certificate);
    assert!(!store.only_request().client_certificate);
}

#[tokio::test]
async fn a_certificate_directory_is_read_in_full_or_refused() {
    let rig = Rig::new();
    let server = rig.server(|_, _| Reply::manifest(MANIFEST)).await;
    let fetch = async |rig: &Rig| rig.tag(&server).await.map(|_| ()).map_err(|e| e.code());
    rig.write("garbage.crt", b"garbage");
    rig.write("notes.txt", b"garbage");
    // Somebody has just deleted what it led to.
    std::os::unix::fs::symlink("/nonexistent", rig.certs().join("old.crt")).unwrap();
    assert_eq!(fetch(&rig).await, Ok(()));
    for (name, content) in [("a.cert", &b"x"[..]), ("a.key", b"x"), ("huge.crt", &vec![b'x'; (4 << 20) + 1])]
    {
        let rig = Rig::new();
        rig.write(name, content);
        assert_eq!(fetch(&rig).await, Err(Code::CertificatesInvalid), "{name}");
    }
    let looped = Rig::new();
    std::os::unix::fs::symlink("loop.crt", looped.certs().join("loop.crt")).unwrap();
    assert_eq!(fetch(&looped).await, Err(Code::CertificatesInvalid));
    rig.add_client_certificate("one");
    assert_eq!(fetch(&rig).await, Ok(()));
    rig.add_client_certificate("two");
    assert_eq!(fetch(&rig).await, Err(Code::CertificatesInvalid));
    let absent =
        Settings { cert_dir: Some("/nonexistent".into()), auth: Source::Anonymous, ..Settings::default() };
    let client = Client::new(absent);
    assert_code(
        client.manifest(&server.image(), "1", &Budget::new(), soon()).await,
        Code::CertificatesInvalid,
    );
}

#[tokio::test]
async fn half_a_client_certificate_is_named() {
    let rig = Rig::new();
    let server = rig.server(|_, _| Reply::manifest(MANIFEST)).await;
    for (present, complaint) in
        [("x.cert", "the key of \"x.cert\""), ("x.key", "the certificate of \"x.key\"")]
    {
        let rig = Rig::new();
        rig.write(present, b"x");
        let Err(Error::Certificates { path, detail }) = rig.tag(&server).await else { panic!("{present}") };
        assert_eq!(path, rig.certs().display().to_string());
        assert!(detail.starts_with(&format!("{complaint} is missing")), "{detail}");
    }
}

#[tokio::test]
async fn a_withdrawn_authority_ends_connections() {
    let rig = Rig::new();
    let server = rig.server(|_, _| Reply::manifest(MANIFEST)).await;
    let client = rig.client(Source::Anonymous);
    let fetch = async || {
        let found = client.manifest(&server.image(), "1", &Budget::new(), soon()).await;
        found.map(|_| ()).map_err(|e| e.code())
    };
    assert_eq!(fetch().await, Ok(()));
    assert_eq!(fetch().await, Ok(()));
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    std::fs::remove_file(rig.certs().join("ca.crt")).unwrap();
    assert_eq!(fetch().await, Err(Code::TlsError));
    // Other contents of the same length, as soon as they are there.
    let authority = rig.issuer.pem();
    rig.write("ca.crt", authority.to_lowercase().as_bytes());
    assert_eq!(fetch().await, Err(Code::TlsError));
    rig.write("ca.crt", authority.as_bytes());
    assert_eq!(fetch().await, Ok(()));
    assert_eq!(server.count(), 3);
    rig.write("half.cert", b"x");
    assert_eq!(fetch().await, Err(Code::CertificatesInvalid));
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn a_withdrawn_client_certificate_is_not_shown_again() {
    let rig = Rig::new();
    let server = rig
        .server_named("127.0.0.1", Some(ClientCertificate::Accepted), |_, _| Reply::manifest(MANIFEST))
        .await;
    let client = rig.client(Source::Anonymous);
    rig.add_client_certificate("client");
    for shown in [true, false] {
        assert!(client.manifest(&server.image(), "1", &Budget::new(), soon()).await.is_ok());
        assert_eq!(server.seen().last().unwrap().client_certificate, shown);
        for name in ["client.cert", "client.key"] {
            let _ = std::fs::remove_file(rig.certs().join(name));
        }
    }
}

#[tokio::test]
async fn what_a_registry_said_is_forgotten_with_its_certificates() {
    let rig = Rig::new();
    let server = rig
        .server(|host, seen| match seen.path.split('?').next().unwrap() {
            "/token" => Reply::ok(b"{\"token\":\"t\"}"),
            _ => guarded(seen, "Bearer t", &bearer(host)),
        })
        .await;
    let client = rig.client(Source::Anonymous);
    for requests in [3, 4] {
        assert!(client.manifest(&server.image(), "1", &Budget::new(), soon()).await.is_ok());
        assert_eq!(server.count(), requests);
    }
    rig.write("other.crt", Rig::new().issuer.pem().as_bytes());
    assert!(client.manifest(&server.image(), "1", &Budget::new(), soon()).await.is_ok());
    assert_eq!(server.count(), 7);
}

#[tokio::test]
async fn the_first_directory_of_the_registry_counts_alone() {
    let rig = Rig::new();
    let server = rig.server(|_, _| Reply::manifest(MANIFEST)).await;
    let base = |name: &str| rig.dir.path().join(name);
    let settings = Settings { certs_d: ["absent", "a", "b"].map(base).into(), ..Settings::default() };
    let client = Client::new(settings);
    let fetch = async || {
        client.manifest(&server.image(), "1", &Budget::new(), soon()).await.map(|_| ()).map_err(|e| e.code())
    };
    let put = |name: &str, bytes: &[u8]| {
        let directory = base(name).join(&server.host);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("ca.crt"), bytes).unwrap();
    };
    std::fs::create_dir_all(base("a").join("other")).unwrap();
    assert_eq!(fetch().await, Err(Code::TlsError));
    put("b", rig.issuer.pem().as_bytes());
    assert_eq!(fetch().await, Ok(()));
    put("a", b"");
    assert_eq!(fetch().await, Err(Code::TlsError));
    put("a", rig.issuer.pem().as_bytes());
    assert_eq!(fetch().await, Ok(()));
    std::fs::remove_dir_all(base("a")).unwrap();
    std::fs::write(base("a"), "no directory").unwrap();
    assert_eq!(fetch().await, Err(Code::CertificatesInvalid));
}

#[test]
fn certificates_are_looked_for_where_the_reference_does() {
    let shown = |environment: Environment| -> Vec<String> {
        environment.certs_d().iter().map(|path| path.display().to_string()).collect()
    };
    assert_eq!(
        shown(Environment::system()),
        [
            "/etc/containers/certs.rootful.d",
            "/etc/containers/certs.d",
            "/usr/share/containers/certs.rootful.d",
            "/usr/share/containers/certs.d",
            "/etc/docker/certs.d",
        ]
    );
    let user = User { home: "/h".into(), xdg_config_home: None, policy_json: None, storage: Box::default() };
    assert_eq!(
        shown(Environment { root: "/r".into(), uid: 7, user: Some(user) }),
        [
            "/h/.config/containers/certs.d",
            "/r/etc/containers/certs.rootless.d/7",
            "/r/etc/containers/certs.rootless.d",
            "/r/etc/containers/certs.d",
            "/r/usr/share/containers/certs.rootless.d/7",
            "/r/usr/share/containers/certs.rootless.d",
            "/r/usr/share/containers/certs.d",
            "/r/etc/docker/certs.d",
        ]
    );
}

// Attachments.

#[tokio::test]
async fn absence_of_signatures_is_told_from_failure() {
    let rig = Rig::new();
    for (reply, expected) in [
        (Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown"), None),
        (Reply::oci_error(404, "UNKNOWN", "Not Found"), None),
        (Reply::oci_error(404, "NOT_FOUND", "artifact ns/app:x not found"), None),
        (Reply::status(404, "404 page not found"), None),
        (Reply::status(404, ""), None),
        (Reply::status(404, "<html>not found</html>"), None),
        (Reply::oci_error(404, "NAME_UNKNOWN", "repository name not known"), Some(Code::RegistryProtocol)),
        (Reply::oci_error(404, "UNKNOWN", "who knows"), Some(Code::RegistryProtocol)),
        (Reply::oci_error(401, "UNAUTHORIZED", "not found"), Some(Code::RegistryAuth)),
        (Reply::oci_error(401, "MANIFEST_UNKNOWN", ""), Some(Code::RegistryAuth)),
        (Reply::oci_error(403, "DENIED", "not found"), Some(Code::RegistryAuth)),
        (Reply::status(403, "not found"), Some(Code::RegistryAuth)),
        (Reply::status(500, "not found"), Some(Code::RegistryUnavailable)),
        (Reply::oci_error(503, "MANIFEST_UNKNOWN", ""), Some(Code::RegistryUnavailable)),
        (Reply::oci_error(429, "MANIFEST_UNKNOWN", ""), Some(Code::RegistryUnavailable)),
        (Reply::status(410, ""), Some(Code::RegistryProtocol)),
        (Reply::status(204, ""), Some(Code::RegistryProtocol)),
        (Reply::status(404, "").announcing(2 << 20), Some(Code::RegistryProtocol)),
        (Reply::Raw(""), Some(Code::RegistryUnavailable)),
    ] {
        let shown = format!("{reply:?}");
        let server = rig.server(move |_, _| reply.clone()).await;
        let result = signatures(&rig.client(Source::Anonymous), &server, MANIFEST, &Budget::new()).await;
        match expected {
            None => assert_eq!(result, Ok(vec![]), "{shown}"),
            Some(code) => assert_eq!(result.map_err(|e| e.code()), Err(code), "{shown}"),
        }
        let hex = Digest::sha256(MANIFEST);
        assert_eq!(server.seen()[0].path, format!("/v2/ns/app/manifests/sha256-{}.sig", hex.hex()));
    }
}

#[tokio::test]
async fn layers_come_in_order_with_type_and_annotations() {
    let rig = Rig::new();
    let payloads: Vec<Vec<u8>> = (0..9).map(|n| format!("payload {n}").into_bytes()).collect();
    let digests: Vec<Digest> = payloads.iter().map(|p| Digest::sha256(p)).collect();
    let layers: Vec<(&Digest, &str)> = digests.iter().map(|d| (d, "a/b")).collect();
    let manifest = attachment_manifest(&layers);
    let all = payloads.clone();
    let server = rig
        .server(move |_, seen| {
            let payload = all.iter().enumerate().find(|(_, p)| seen.path.ends_with(Digest::sha256(p).hex()));
            match payload {
                // The first ones are the slowest.
                Some((n, payload)) => {
                    Reply::ok(payload).after(Duration::from_millis(20) * (9 - u32::try_from(n).unwrap()))
                }
                None => Reply::manifest(&manifest),
            }
        })
        .await;
    let found = signatures(&rig.client(Source::Anonymous), &server, MANIFEST, &Budget::new()).await.unwrap();
    let tag = format!("sha256-{}.sig", Digest::sha256(MANIFEST).hex());
    for (n, (found, payload)) in found.iter().zip(&payloads).enumerate() {
        assert_eq!(found.location, format!("docker://{}/ns/app:{tag}#{}", server.host, n + 1));
        let UntrustedSignature::Sigstore(signature) = &found.signature else { panic!("{found:?}") };
        assert_eq!((&signature.payload, signature.mime_type.as_str()), (payload, "a/b"));
        assert_eq!(signature.annotations["n"], n.to_string());
    }
    assert_eq!((found.len(), server.count()), (9, 10));
}

#[tokio::test]
async fn an_attachment_manifest_is_used_in_full_or_not_at_all() {
    let rig = Rig::new();
    let good = Digest::sha256(b"payload");
    let manifest = |members: &str| format!("{{\"schemaVersion\":2,{members}}}");
    let layer = format!("{{\"mediaType\":\"a\",\"size\":999,\"digest\":\"{good}\"}}");
    let layers = |n: usize| manifest(&format!("\"layers\":[{}]", vec![layer.as_str(); n].join(",")));
    let annotated = |n: usize| {
        let annotations: Vec<String> = (0..n).map(|n| format!("\"{n}\":\"\"")).collect();
        manifest(&format!(
            "\"layers\":[{{\"digest\":\"{good}\",\"annotations\":{{{}}}}}]",
            annotations.join(",")
        ))
    };
    let cases: Vec<(String, Result<usize, Code>)> = vec![
        (layers(2), Ok(2)),
        (layers(0), Ok(0)),
        (manifest("\"config\":null"), Ok(0)),
        (manifest("\"layers\":null"), Ok(0)),
        (manifest("\"manifests\":null,\"HISTORY\":null"), Ok(0)),
        (annotated(128), Ok(1)),
        (annotated(129), Err(Code::RegistryProtocol)),
        (manifest(&format!("\"layers\":[{layer}],\"manifests\":[]")), Err(Code::RegistryProtocol)),
        (manifest(&format!("\"Manifests\":{{}},\"layers\":[{layer}]")), Err(Code::RegistryProtocol)),
        (manifest("\"fslayers\":0"), Err(Code::RegistryProtocol)),
        (manifest("\"hi\u{17f}tory\":0"), Err(Code::RegistryProtocol)),
        (manifest("\"History\":\"\""), Err(Code::RegistryProtocol)),
        (manifest("\"layers\":[{}]"), Err(Code::RegistryProtocol)),
        (manifest("\"layers\":[null]"), Err(Code::RegistryProtocol)),
        (manifest("\"layers\":{}"), Err(Code::RegistryProtocol)),
        (manifest("\"layers\":[],\"Layers\":[]"), Err(Code::RegistryProtocol)),
        (
            manifest("\"layers\":[{\"digest\":\"md5:d41d8cd98f00b204e9800998ecf8427e\"}]"),
            Err(Code::RegistryProtocol),
        ),
        (
            manifest(&format!("\"layers\":[{}]", layer.replace(good.hex(), "../../x"))),
            Err(Code::RegistryProtocol),
        ),
        (layers(1025), Err(Code::RegistryProtocol)),
        ("{\"layers\":".to_owned(), Err(Code::RegistryProtocol)),
        (format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)), Ok(0)),
        (
            format!("{{\"layers\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
            Err(Code::RegistryProtocol),
        ),
    ];
    for (body, expected) in cases {
        let shown: String = body.chars().take(200).collect();
        let server = rig
            .server(move |_, seen| {
                if seen.path.contains("/blobs/") {
                    Reply::ok(b"payload")
                } else {
                    Reply::manifest(body.as_bytes())
                }
            })
            .await;
        let result = signatures(&rig.client(Source::Anonymous), &server, MANIFEST, &Budget::new()).await;
        assert_eq!(result.map(|found| found.len()).map_err(|e| e.code()), expected, "{shown}");
    }
}

#[tokio::test]
async fn too_many_layers_are_refused_before_any_is_fetched() {
    let rig = Rig::new();
    let good = Digest::sha256(b"payload");
    let server = rig
        .server(move |_, seen| {
            let layers = vec![(&good, "a"); 1025];
            if seen.path.contains("/blobs/") {
                Reply::ok(b"payload")
            } else {
                Reply::manifest(&attachment_manifest(&layers))
            }
        })
        .await;
    let result = signatures(&rig.client(Source::Anonymous), &server, MANIFEST, &Budget::new()).await;
    assert_code(result, Code::RegistryProtocol);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn an_attachment_manifest_says_what_it_is() {
    let rig = Rig::new();
    for (content_type, ok) in [
        (OCI, true),
        ("application/vnd.oci.image.manifest.v1+json; charset=utf-8", true),
        ("application/vnd.oci.image.manifest.v1+json; charset", false),
        ("application/vnd.docker.distribution.manifest.v2+json", false),
        ("application/vnd.oci.image.index.v1+json", false),
        ("application/json", false),
        ("", false),
    ] {
        let server =
            rig.server(move |_, _| Reply::ok(b"{\"layers\":[]}").with("Content-Type", content_type)).await;
        let result = signatures(&rig.client(Source::Anonymous), &server, MANIFEST, &Budget::new()).await;
        assert_eq!(
            result.map_err(|e| e.code()),
            if ok { Ok(vec![]) } else { Err(Code::RegistryProtocol) },
            "{content_type}"
        );
    }
    let untyped = rig.server(|_, _| Reply::ok(b"{\"layers\":[]}")).await;
    let result = signatures(&rig.client(Source::Anonymous), &untyped, MANIFEST, &Budget::new()).await;
    assert_code(result, Code::RegistryProtocol);
}

#[tokio::test]
async fn one_bad_layer_fails_all() {
    let rig = Rig::new();
    let (good, bad) = (Digest::sha256(b"good"), Digest::sha256(b"bad"));
    for (reply, code) in [
        (Reply::ok(b"other"), Code::DigestMismatch),
        (Reply::status(404, ""), Code::RegistryProtocol),
        (Reply::oci_error(404, "MANIFEST_UNKNOWN", ""), Code::RegistryProtocol),
        (Reply::status(403, ""), Code::RegistryAuth),
        (Reply::status(500, ""), Code::RegistryUnavailable),
        (Reply::ok(b"").announcing((4 << 20) + 1), Code::RegistryProtocol),
        (Reply::Endless, Code::RegistryProtocol),
    ] {
        let manifest = attachment_manifest(&[(&good, "a"), (&bad, "b"), (&good, "c")]);
        let bad = bad.hex().to_owned();
        let server = rig
            .server(move |_, seen| match seen.path.as_str() {
                path if path.ends_with(&bad) => reply.clone(),
                path if path.contains("/blobs/") => Reply::ok(b"good"),
                _ => Reply::manifest(&manifest),
            })
            .await;
        assert_code(
            signatures(&rig.client(Source::Anonymous), &server, MANIFEST, &Budget::new()).await,
            code,
        );
    }
}

#[tokio::test]
async fn urls_of_a_descriptor_are_never_asked() {
    let rig = Rig::new();
    let foreign = rig.server(|_, _| Reply::ok(b"payload")).await;
    let digest = Digest::sha256(b"payload");
    let manifest =
        format!("{{\"layers\":[{{\"digest\":\"{digest}\",\"urls\":[\"https://{}/\"]}}]}}", foreign.host);
    let server = rig
        .server(move |_, seen| {
            if seen.path.contains("/blobs/") {
                Reply::ok(b"payload")
            } else {
                Reply::manifest(manifest.as_bytes())
            }
        })
        .await;
    let found = signatures(&rig.client(Source::Anonymous), &server, MANIFEST, &Budget::new()).await.unwrap();
    assert_eq!((found.len(), foreign.count(), server.count()), (1, 0, 2));
}

// Lookaside.

#[tokio::test]
async fn only_404_means_that_a_lookaside_file_is_missing() {
    let rig = Rig::new();
    for (reply, expected) in [
        (Reply::ok(b"sig"), Ok(Some(b"sig".to_vec()))),
        (Reply::status(404, "gone"), Ok(None)),
        (Reply::status(403, ""), Err(Code::LookasideUnavailable)),
        (Reply::status(410, ""), Err(Code::LookasideUnavailable)),
        (Reply::status(500, ""), Err(Code::LookasideUnavailable)),
        (
            Reply::status(401, "").with("WWW-Authenticate", "Basic realm=\"r\""),
            Err(Code::LookasideUnavailable),
        ),
        (Reply::ok(b"12345"), Err(Code::LookasideUnavailable)),
        (Reply::ok(b"").announcing(5), Err(Code::LookasideUnavailable)),
        (Reply::Endless, Err(Code::LookasideUnavailable)),
        (Reply::redirect(302, "http://127.0.0.1/"), Err(Code::LookasideUnavailable)),
        (Reply::redirect(302, "https://10.0.0.1/"), Err(Code::LookasideUnavailable)),
        (Reply::Raw(""), Err(Code::LookasideUnavailable)),
    ] {
        let shown = format!("{reply:?}");
        let server = rig.server(move |_, _| reply.clone()).await;
        let client = rig.client(rig.login(&server, "u:p"));
        let url = format!("https://{}/sigs/ns/app@sha256=00/signature-1", server.host);
        let result = client.get_lookaside(&server.host, &url, 4, &Budget::new(), soon()).await;
        assert_eq!(result.map_err(|e| e.code()), expected, "{shown}");
        let seen = server.only_request();
        assert_eq!(
            (seen.path.as_str(), seen.header("authorization")),
            ("/sigs/ns/app@sha256=00/signature-1", None)
        );
    }
}

#[tokio::test]
async fn a_lookaside_may_be_plain_http_and_hold_credentials_that_stay_there() {
    let rig = Rig::new();
    let store = rig.plain_server(|_, _| Reply::ok(b"sig")).await;
    let target = format!("http://{}/moved", store.host);
    let server = rig
        .plain_server(move |_, seen| match seen.path.as_str() {
            "//moved" => Reply::redirect(302, &target),
            _ => Reply::redirect(302, "//moved".replace("//", "/.//").as_str()),
        })
        .await;
    let url = format!("http://u%40:p@{}/base/signature-1?x=y", server.host);
    let client = rig.client(Source::Anonymous);
    let result = client.get_lookaside("quay.io", &url, 4, &Budget::new(), soon()).await;
    assert_eq!(result.unwrap().unwrap(), b"sig");
    let expected = format!("Basic {}", STANDARD.encode("u@:p"));
    let seen = server.seen();
    assert_eq!(
        seen.iter().map(|s| s.path.as_str()).collect::<Vec<_>>(),
        ["/base/signature-1?x=y", "//moved"]
    );
    assert!(seen.iter().all(|s| s.header("authorization") == Some(&expected)));
    assert_eq!(store.only_request().header("authorization"), None);

    drop(server);
    let gone = "http://user:hunter2@127.0.0.1:1/base?token=hunter2";
    let error = client.get_lookaside("quay.io", gone, 4, &Budget::new(), soon()).await.unwrap_err();
    assert_eq!(error.code(), Code::LookasideUnavailable);
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    for url in ["file:///etc/passwd", "ftp://h/", "h", ""] {
        assert_code(
            client.get_lookaside("quay.io", url, 4, &Budget::new(), soon()).await,
            Code::LookasideUnavailable,
        );
    }
}

// The rig.

/// A certification authority that the clients of one test trust.
struct Rig {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
    files: AtomicUsize,
}

#[derive(Clone, Copy)]
enum ClientCertificate {
    Accepted,
    Required,
}

impl Rig {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("certs")).unwrap();
        let rig = Self { issuer, dir, files: AtomicUsize::new(0) };
        rig.write("ca.crt", rig.issuer.pem().as_bytes());
        rig
    }

    fn certs(&self) -> std::path::PathBuf {
        self.dir.path().join("certs")
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.certs().join(name), content).unwrap();
    }

    fn add_client_certificate(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.cert"), certificate.pem().as_bytes());
        self.write(&format!("{name}.key"), key.serialize_pem().as_bytes());
    }

    fn settings(&self, auth: Source) -> Settings {
        Settings { cert_dir: Some(self.certs()), auth, ..Settings::default() }
    }

    fn client(&self, auth: Source) -> Client {
        Client::new(self.settings(auth))
    }

    fn auth_file(&self, content: &str) -> Source {
        let path = self.dir.path().join(format!("auth{}.json", self.files.fetch_add(1, Ordering::SeqCst)));
        std::fs::write(&path, content).unwrap();
        Source::File(path)
    }

    fn login(&self, server: &Server, user_password: &str) -> Source {
        let auth = STANDARD.encode(user_password);
        self.auth_file(&format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", server.host))
    }

    /// The manifest at tag 1, for an anonymous client.
    async fn tag(&self, server: &Server) -> Result<Document, Error> {
        self.client(Source::Anonymous).manifest(&server.image(), "1", &Budget::new(), soon()).await
    }

    async fn server(&self, script: impl Fn(&str, &Seen) -> Reply + Send + Sync + 'static) -> Server {
        self.server_named("127.0.0.1", None, script).await
    }

    async fn server_named(
        &self,
        name: &str,
        client: Option<ClientCertificate>,
        script: impl Fn(&str, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match client {
            None => builder.with_no_client_auth(),
            Some(wanted) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(self.issuer.der().clone()).unwrap();
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(match wanted {
                    ClientCertificate::Accepted => verifier.allow_unauthenticated().build().unwrap(),
                    ClientCertificate::Required => verifier.build().unwrap(),
                })
            }
        };
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_single_cert(chain, key).unwrap();
        Server::start(Some(TlsAcceptor::from(Arc::new(config))), Box::new(script)).await
    }

    async fn plain_server(&self, script: impl Fn(&str, &Seen) -> Reply + Send + Sync + 'static) -> Server {
        Server::start(None, Box::new(script)).await
    }
}

type Script = Box<dyn Fn(&str, &Seen) -> Reply + Send + Sync>;

/// A server that answers by a script and keeps what it was asked.
struct Server {
    host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (seen, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let state = (Arc::clone(&seen), Arc::clone(&connections), host.clone(), Arc::new(script));
        let task = tokio::spawn(async move {
            let (seen, connections, host, script) = state;
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (seen, host, script, tls) =
                    (Arc::clone(&seen), host.clone(), Arc::clone(&script), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, false, &seen, &host, &script).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            let client_certificate = stream.get_ref().1.peer_certificates().is_some();
                            serve(stream, client_certificate, &seen, &host, &script).await;
                        }
                    }
                });
            }
        });
        Self { host, seen, connections, task }
    }

    fn image(&self) -> Named {
        Named::parse(&format!("{}/ns/app:1", self.host)).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.seen().len()
    }

    fn only_request(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    client_certificate: bool,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }
}

#[derive(Clone, Debug)]
enum Reply {
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        announced: Option<usize>,
        delay: Duration,
    },
    /// One byte of a good answer now and then.
    Drip,
    /// The same after a status that is an error.
    DripFailure,
    DripHeaders,
    /// Chunks without end.
    Endless,
    EndlessFailure,
    /// Nothing, and the connection stays open.
    Hang,
    /// These bytes, and the end of the connection.
    Raw(&'static str),
}

impl Reply {
    fn status(status: u16, body: &str) -> Self {
        let (headers, body) = (Vec::new(), body.as_bytes().to_vec());
        Self::Answer { status, headers, body, announced: None, delay: Duration::ZERO }
    }

    fn ok(bytes: &[u8]) -> Self {
        let (headers, body) = (Vec::new(), bytes.to_vec());
        Self::Answer { status: 200, headers, body, announced: None, delay: Duration::ZERO }
    }

    fn manifest(bytes: &[u8]) -> Self {
        Self::ok(bytes).with("Content-Type", OCI)
    }

    fn oci_error(status: u16, code: &str, message: &str) -> Self {
        Self::status(status, &format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{message}\"}}]}}"))
    }

    fn challenge(challenge: &str) -> Self {
        Self::oci_error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge)
    }

    fn redirect(status: u16, location: &str) -> Self {
        Self::status(status, "").with("Location", location)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Claims this length, whatever the body.
    fn announcing(mut self, length: usize) -> Self {
        if let Self::Answer { announced, .. } = &mut self {
            *announced = Some(length);
        }
        self
    }

    fn after(mut self, wait: Duration) -> Self {
        if let Self::Answer { delay, .. } = &mut self {
            *delay = wait;
        }
        self
    }
}

/// HTTP/1.1 on one connection, until one side has had enough.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client_certificate: bool,
    seen: &Mutex<Vec<Seen>>,
    host: &str,
    script: &Script,
) {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut stream).await {
        request.client_certificate = client_certificate;
        let reply = script(host, &request);
        seen.lock().unwrap().push(request);
        if write_reply(&mut stream, reply).await.is_none() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let mut first = lines[0].split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut seen = Seen { method, path, headers, body: String::new(), client_certificate: false };
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}

/// None if the connection is to end.
async fn write_reply(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> Option<()> {
    let chunked = |status: u16| {
        format!("HTTP/1.1 {status} x\r\nContent-Type: {OCI}\r\nTransfer-Encoding: chunked\r\n\r\n")
    };
    match reply {
        Reply::Answer { status, headers, body, announced, delay } => {
            tokio::time::sleep(delay).await;
            let mut head = format!("HTTP/1.1 {status} x\r\n");
            if !matches!(status, 204 | 304) {
                head += &format!("Content-Length: {}\r\n", announced.unwrap_or(body.len()));
            }
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            head += "\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()?;
            stream.flush().await.ok()
        }
        Reply::Drip => drip(stream, &chunked(200), "1\r\n{\r\n").await,
        Reply::DripFailure => drip(stream, &chunked(500), "1\r\n{\r\n").await,
        Reply::DripHeaders => drip(stream, "HTTP/1.1 200 x\r\n", "A: b\r\n").await,
        Reply::Endless => flood(stream, &chunked(200)).await,
        Reply::EndlessFailure => flood(stream, &chunked(404)).await,
        Reply::Hang => std::future::pending().await,
        Reply::Raw(bytes) => {
            stream.write_all(bytes.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
            None
        }
    }
}

async fn drip(stream: &mut (impl AsyncWrite + Unpin), head: &str, piece: &str) -> Option<()> {
    stream.write_all(head.as_bytes()).await.ok()?;
    loop {
        stream.write_all(piece.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn flood(stream: &mut (impl AsyncWrite + Unpin), head: &str) -> Option<()> {
    stream.write_all(head.as_bytes()).await.ok()?;
    let chunk = [&b"10000\r\n"[..], &[b'{'; 0x10000], b"\r\n"].concat();
    loop {
        stream.write_all(&chunk).await.ok()?;
    }
}

// Small things.

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn bearer(host: &str) -> String {
    format!("Bearer realm=\"https://{host}/token\",service=\"svc\"")
}

/// The manifest for who shows `authorization`, else the challenge.
fn guarded(seen: &Seen, authorization: &str, challenge: &str) -> Reply {
    if seen.header("authorization") == Some(authorization) {
        Reply::manifest(MANIFEST)
    } else {
        Reply::challenge(challenge)
    }
}

#[track_caller]
fn assert_code<T: std::fmt::Debug>(result: Result<T, Error>, code: Code) {
    match result {
        Ok(value) => panic!("{code:?} was expected, and not {value:?}"),
        Err(error) => assert_eq!(error.code(), code, "{error}"),
    }
}

async fn signatures(
    client: &Client,
    server: &Server,
    manifest: &[u8],
    budget: &Budget,
) -> Result<Vec<LocatedSignature>, Error> {
    attachment::signatures(client, &server.image(), &Digest::sha256(manifest), budget, soon()).await
}

fn attachment_manifest(layers: &[(&Digest, &str)]) -> Vec<u8> {
    let layers: Vec<String> = layers
        .iter()
        .enumerate()
        .map(|(n, (digest, media_type))| {
            format!("{{\"mediaType\":\"{media_type}\",\"digest\":\"{digest}\",\"size\":1,\"annotations\":{{\"n\":\"{n}\"}}}}")
        })
        .collect();
    format!("{{\"schemaVersion\":2,\"config\":{{}},\"layers\":[{}]}}", layers.join(",")).into_bytes()
}

fn padded(length: usize) -> Vec<u8> {
    let mut bytes = MANIFEST.to_vec();
    bytes.resize(length, b' ');
    bytes
}

#[test]
fn the_rig_leaves_nothing_behind() {
    let rig = Rig::new();
    let path = rig.dir.path().to_owned();
    drop(rig);
    assert!(!Path::new(&path).exists());
}
