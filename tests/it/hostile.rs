//! Too much of everything: what a hostile registry, layout or file can give, with the code of the answer and what it
//! may cost. Mistake 14 of user-demands, section 5.3; T-28.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use vouchd::digest::Digest;
use vouchd::fetch::EVIDENCE_REQUESTS;
use vouchd::fetch::attachment::LAYERS;
use vouchd::fetch::referrers::{PAGES, REFERRERS};
use vouchd::manifest::OCI_INDEX;

use crate::cosign3::{Api, BUNDLE, IMAGE, OURS, WORKFLOW, World, build, of_image, verdict};
use crate::server::{OCI, Reply, Seen, Server};
use crate::signer::{Content, IN_TOTO, Names, Who};
use crate::support::{cosign, vouchd, write};

/// What `keyless` accepts of attachments, too.
const NAMED: &str = r#","signedIdentity":{"type":"exactRepository","dockerRepository":"acme.example/os"}"#;

fn world() -> World {
    World { api: Api::Present, ..World::new() }
}

fn right() -> Names {
    build(&[], WORKFLOW)
}

/// The verdict, which must not take more requests than one verification has.
async fn judge(world: &World, server: &Server, more: &str) -> String {
    let found = verdict(world.report(server, &world.keyless(&format!("{OURS}{more}"))).await);
    assert!(server.count() <= EVIDENCE_REQUESTS, "{} requests", server.count());
    found
}

/// Attachments: as many as may be asked for are looked at to the last, and more are no answer.
#[tokio::test]
async fn attached_signatures_by_the_thousand() {
    for (wrong, wanted, requests) in [
        (0, "allowed", 6),
        (EVIDENCE_REQUESTS - 20, "allowed", EVIDENCE_REQUESTS),
        (1_000, "? evidence-too-large", EVIDENCE_REQUESTS),
        (LAYERS, "? registry-protocol", 6),
    ] {
        let mut world = world();
        world.attach("acme.example/os:1", &right(), |_, _| {});
        let (payload, annotations) = world.layers.pop().unwrap();
        // More than a few hundred certificates are a manifest that is too large by itself.
        let signature = json!({ "dev.cosignproject.cosign/signature": "YQ==" });
        for number in 0..wrong {
            let other = [&payload[..], " ".repeat(number + 1).as_bytes()].concat();
            let annotations = if wrong < EVIDENCE_REQUESTS { &annotations } else { &signature };
            world.layers.push((other, annotations.clone()));
        }
        world.layers.push((payload, annotations));
        let server = world.server().await;
        assert_eq!(judge(&world, &server, NAMED).await, wanted, "{wrong}");
        assert!(server.count() <= requests, "{wrong}: {}", server.count());
    }
}

/// Those of one image are mostly over the same bytes, which are asked for once and held within the budget.
#[tokio::test]
async fn a_thousand_signatures_over_the_same_bytes() {
    for (size, wanted) in [(0, "allowed"), (1 << 20, "? evidence-too-large")] {
        let mut world = world();
        let text =
            String::from_utf8(cosign("acme.example/os:1", &Digest::sha256(IMAGE).to_string())).unwrap();
        let payload = text.replacen('{', &format!("{{{}", " ".repeat(size)), 1).into_bytes();
        let identity = world.sigstore.identity(&right());
        let good = json!(world.sigstore.attach(&payload, &identity));
        for number in 0..1_000 {
            let signature = format!("{number:08}");
            let other = json!({ "dev.cosignproject.cosign/signature": signature });
            world.layers.push((payload.clone(), other));
        }
        world.layers.push((payload, good));
        let server = world.server().await;
        assert_eq!(judge(&world, &server, NAMED).await, wanted, "{size}");
        assert!(server.count() <= 6, "{size}: {}", server.count());
    }
}

/// Bundles: the same.
#[tokio::test]
async fn bundles_by_the_thousand() {
    for (wrong, wanted) in [(100, "allowed"), (200, "? evidence-too-large"), (1_000, "? registry-protocol")] {
        let mut world = world();
        world.bundles = (0..wrong).map(|number| json!({ "number": number })).collect();
        world.signed(&of_image(), &right());
        let server = world.server().await;
        assert_eq!(judge(&world, &server, "").await, wanted, "{wrong}");
    }
}

/// A bundle that is longer than may be is no signature, but might have been one.
#[tokio::test]
async fn a_bundle_of_fifty_megabytes_is_not_read() {
    let mut world = world();
    world.signed(&of_image(), &right());
    let digest = Digest::sha256(world.bundles[0].to_string().as_bytes()).to_string();
    for reply in [Reply::ok(b"{").announcing(50 << 20), Reply::Endless] {
        let (shown, name) = (format!("{reply:?}"), digest.clone());
        let large = move |seen: &Seen| seen.path.ends_with(&name).then(|| reply.clone());
        let server = world.server_but(large.clone()).await;
        assert_eq!(judge(&world, &server, "").await, "? registry-protocol", "{shown}");
        assert!(server.count() < 12, "{shown}: {}", server.count());
        // Nor does it hide a good one.
        world.signed(&of_image(), &right());
        let server = world.server_but(large).await;
        assert_eq!(judge(&world, &server, "").await, "allowed", "{shown}");
        world.bundles.truncate(1);
    }
}

/// Files of any length are not read, either.
#[test]
fn files_of_fifty_megabytes_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let large = [vec![b' '; 50 << 20], b"{}".to_vec()].concat();
    write(path("large"), &large);
    write(path("root"), world.sigstore.trusted_root().to_string());
    write(path("file"), "x");
    let who = ["--certificate-identity", "a", "--certificate-oidc-issuer", "b"];
    for (bundle, root, exit) in [("large", "root", 3), ("file", "large", 4)] {
        let arguments = ["verify-blob", "--bundle", &path(bundle), "--trusted-root", &path(root)];
        let ran = vouchd(&[&arguments[..], &who, &[&path("file")]].concat());
        assert!(ran.exit == exit && ran.stderr.contains("is larger than 4194304 bytes"), "{ran:?}");
    }
}

/// Lists that do not end: no more is asked than may be, and what is found counts.
#[tokio::test]
async fn lists_of_referrers_without_end() {
    fn descriptor(number: usize) -> Value {
        let digest = Digest::sha256(number.to_string().as_bytes()).to_string();
        json!({"mediaType": OCI, "digest": digest, "size": 1, "artifactType": BUNDLE})
    }
    fn list(entries: Vec<Value>) -> Reply {
        let body = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string();
        Reply::ok(body.as_bytes()).with("Content-Type", OCI_INDEX)
    }
    type Api = fn(usize, &Seen) -> Reply;
    let rows: [(&str, Api, usize); 7] = [
        ("10,000", |_, _| list((0..10_000).map(descriptor).collect()), REFERRERS + 8),
        ("more than are kept", |_, _| list((0..16_000).map(descriptor).collect()), REFERRERS + 8),
        ("more than can be read", |_, _| list(vec![json!(0); 100_001]), 8),
        ("itself", |_, _| list(Vec::new()).with("Link", "<?n=0>; rel=next"), 10),
        (
            "back and forth",
            |_, seen| {
                let next = if seen.path.ends_with("?n=1") { "<?n=2>; rel=next" } else { "<?n=1>; rel=next" };
                list(Vec::new()).with("Link", next)
            },
            12,
        ),
        (
            "ever new pages",
            |page, _| list(Vec::new()).with("Link", &format!("<?n={page}>; rel=next")),
            PAGES + 8,
        ),
        (
            "ever new pages of new entries",
            |page, _| {
                let entries = (page * 100..page * 100 + 100).map(descriptor).collect();
                list(entries).with("Link", &format!("<?n={page}>; rel=next"))
            },
            EVIDENCE_REQUESTS,
        ),
    ];
    for (what, api, requests) in rows {
        let world = world();
        let answer = |api: Api| {
            let page = Arc::new(AtomicUsize::new(0));
            move |seen: &Seen| {
                let is_list = seen.path.contains("/referrers/");
                is_list.then(|| api(page.fetch_add(1, Ordering::SeqCst), seen))
            }
        };
        let server = world.server_but(answer(api)).await;
        let found = judge(&world, &server, "").await;
        assert!(["? registry-protocol", "? evidence-too-large"].contains(&&*found), "{what}: {found}");
        assert!(server.count() <= requests, "{what}: {}", server.count());
        // The tag that old registries have for the list is asked all the same, and so is that of attachments.
        let mut world = self::world();
        world.signed(&of_image(), &right());
        let tagged = World { api: crate::cosign3::Api::Absent, ..world };
        let server = tagged.server_but(answer(api)).await;
        assert_eq!(judge(&tagged, &server, "").await, "allowed", "{what}");
        let mut world = self::world();
        world.attach("acme.example/os:1", &right(), |_, _| {});
        let server = world.server_but(answer(api)).await;
        assert_eq!(judge(&world, &server, NAMED).await, "allowed", "{what}");
        assert!(server.count() <= 6, "{what}: {}", server.count());
    }
}

/// Documents that nest deeper than any reader goes.
#[tokio::test]
async fn deep_documents() {
    for depth in [65, 100_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let nest = |text: &str| text.replacen('{', &format!(r#"{{"x":{deep},"#), 1);
        // What the registry says. Of attachments only what is needed is read at all.
        let list = Reply::ok(nest(r#"{"manifests":[]}"#).as_bytes()).with("Content-Type", OCI_INDEX);
        let attachment = Reply::manifest(nest(r#"{"layers":[]}"#).as_bytes());
        for (part, reply, wanted) in
            [("/referrers/", list, "? registry-protocol"), (".sig", attachment, "allowed")]
        {
            let mut world = world();
            world.signed(&of_image(), &right());
            let deep = move |seen: &Seen| seen.path.contains(part).then(|| reply.clone());
            let server = world.server_but(deep).await;
            assert_eq!(judge(&world, &server, "").await, wanted, "{part}, {depth}");
        }
        // A statement.
        let payload = nest(&of_image().to_string());
        let content = Content::Dsse { payload_type: IN_TOTO, payload: payload.as_bytes() };
        let mut world = world();
        let identity = world.sigstore.identity(&right());
        world.bundles.push(world.sigstore.sign_v2(&content, Who::Identity(&identity)));
        let server = world.server().await;
        assert_eq!(judge(&world, &server, "").await, "bundle-malformed", "a statement, {depth}");
        // A payload, and the log entry beside it.
        for (what, wanted) in [("a payload", "malformed-payload"), ("an entry", "malformed-signature")] {
            let mut world = self::world();
            let payload = nest(
                &String::from_utf8(cosign("acme.example/os:1", &Digest::sha256(IMAGE).to_string())).unwrap(),
            );
            let identity = world.sigstore.identity(&right());
            let mut annotations = json!(world.sigstore.attach(payload.as_bytes(), &identity));
            if what == "an entry" {
                let entry = &mut annotations["dev.sigstore.cosign/bundle"];
                *entry = json!(nest(entry.as_str().unwrap()));
            }
            world.layers.push((payload.into_bytes(), annotations));
            let server = world.server().await;
            assert_eq!(judge(&world, &server, NAMED).await, wanted, "{what}, {depth}");
        }
    }
}

/// What is signed may be as long as a signature; what is said of it may not.
#[tokio::test]
async fn names_of_a_megabyte() {
    let long = "x".repeat(1 << 20);
    for part in ["name", "predicateType", "_type", "digest"] {
        let mut world = world();
        let mut signed = of_image();
        match part {
            "name" => signed["subject"][0]["name"] = json!(long),
            "digest" => signed["subject"][0]["digest"]["sha256"] = json!(long),
            _ => signed[part] = json!(long),
        }
        world.signed(&signed, &right());
        let server = world.server().await;
        let report = world.report(&server, &world.keyless(OURS)).await;
        let size = format!("{report:?}").len();
        assert!(!report.allowed && size < 20_000, "{part}: {size}");
    }
    for (name, digest) in [(&*long, Digest::sha256(IMAGE).to_string()), ("acme.example/os", long.clone())] {
        let mut world = world();
        let payload = cosign(name, &digest);
        let identity = world.sigstore.identity(&right());
        let annotations = json!(world.sigstore.attach(&payload, &identity));
        world.layers.push((payload, annotations));
        let server = world.server().await;
        let report = world.report(&server, &world.keyless(&format!("{OURS}{NAMED}"))).await;
        let size = format!("{report:?}").len();
        assert!(!report.allowed && size < 20_000, "{}: {size}", name.len());
    }
}
