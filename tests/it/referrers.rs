//! Signatures that refer to an image: which are found, and when it is said that there may be more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use vouchd::diagnostic::Code;
use vouchd::digest::Digest;
use vouchd::fetch::credentials::Source;
use vouchd::fetch::referrers::{self, Found, PAGES, REFERRERS};
use vouchd::fetch::registry::Errand;
use vouchd::fetch::{Budget, Error};
use vouchd::manifest::OCI_INDEX;
use vouchd::verify::UntrustedSignature;

use crate::server::{OCI, Reply, Rig, Seen, Server, soon};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const COSIGN: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

fn subject() -> Digest {
    Digest::sha256(b"the image")
}

/// A registry: referrers as they are listed, their manifests, and blobs.
#[derive(Clone, Default)]
struct Content {
    blobs: Vec<Vec<u8>>,
    manifests: Vec<Vec<u8>>,
}

impl Content {
    /// Adds a manifest that refers to the image, and returns its descriptor.
    fn add(&mut self, artifact_type: &str, layers: &[(&str, &[u8])]) -> Value {
        self.add_changed(artifact_type, layers, |_| {})
    }

    fn add_changed(
        &mut self,
        artifact_type: &str,
        layers: &[(&str, &[u8])],
        change: impl FnOnce(&mut Value),
    ) -> Value {
        let layer = |(media_type, bytes): &(&str, &[u8])| {
            let digest = Digest::sha256(bytes).to_string();
            json!({"mediaType": media_type, "digest": digest, "size": bytes.len(), "annotations": {"a": "b"}})
        };
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI,
            "artifactType": artifact_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json"},
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
            "subject": {"mediaType": OCI, "digest": subject().to_string(), "size": 9},
        });
        change(&mut manifest);
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::sha256(&bytes).to_string();
        self.blobs.extend(layers.iter().map(|(_, bytes)| bytes.to_vec()));
        let descriptor =
            json!({"mediaType": OCI, "digest": digest, "size": bytes.len(), "artifactType": artifact_type});
        self.manifests.push(bytes);
        descriptor
    }

    fn reply(&self, path: &str) -> Reply {
        let wanted = path.rsplit('/').next().unwrap();
        let find = |all: &[Vec<u8>]| all.iter().find(|b| Digest::sha256(b).to_string() == wanted).cloned();
        if path.contains("/blobs/") {
            find(&self.blobs).map_or(Reply::status(404, ""), |bytes| Reply::ok(&bytes))
        } else {
            let missing = Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown");
            find(&self.manifests).map_or(missing, |bytes| Reply::manifest(&bytes))
        }
    }
}

fn index(descriptors: &[Value]) -> Reply {
    let body = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}).to_string();
    Reply::ok(body.as_bytes()).with("Content-Type", OCI_INDEX)
}

/// What is found at a registry with this API, this tag, and this content.
async fn find(
    rig: &Rig,
    content: &Content,
    api: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    tag: Reply,
) -> (Found, Server) {
    let (content, name) = (content.clone(), format!("/manifests/sha256-{}", subject().hex()));
    let server = rig
        .server(move |_, seen| match seen.path.split('?').next().unwrap() {
            path if path.contains("/referrers/") => api(seen),
            path if path.ends_with(&name) => tag.clone(),
            path => content.reply(path),
        })
        .await;
    let client = rig.client(Source::Anonymous);
    let budget = Budget::new();
    let image = server.image();
    let found = referrers::signatures(&client, &Errand::new(&image, &budget, soon()), &subject()).await;
    (found, server)
}

fn none() -> Reply {
    Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown")
}

fn bundles(found: &Found) -> Vec<&[u8]> {
    found
        .signatures
        .iter()
        .map(|located| match &located.signature {
            UntrustedSignature::Bundle(bytes) => bytes.as_slice(),
            UntrustedSignature::SimpleSigning(_) | UntrustedSignature::Sigstore(_) => panic!("{located:?}"),
        })
        .collect()
}

fn failed(found: &Found) -> Option<Code> {
    found.failure.as_ref().map(Error::code)
}

#[tokio::test]
async fn the_api_and_the_tag_are_united() {
    let rig = Rig::new();
    let mut content = Content::default();
    let one = content.add(BUNDLE, &[(BUNDLE, b"one")]);
    let two = content.add(BUNDLE, &[(BUNDLE, b"two")]);
    let three = content.add(COSIGN, &[(LAYER, b"three"), (LAYER, b"four")]);
    let api = index(&[one.clone(), three.clone()]);
    let (found, server) =
        find(&rig, &content, move |_| api.clone(), index(&[two.clone(), one.clone()])).await;
    assert_eq!(failed(&found), None);
    let kinds: Vec<(&str, &[u8])> = found
        .signatures
        .iter()
        .map(|located| match &located.signature {
            UntrustedSignature::Bundle(bytes) => ("bundle", bytes.as_slice()),
            UntrustedSignature::Sigstore(layer) => {
                assert_eq!((layer.mime_type.as_str(), layer.annotations["a"].as_str()), (LAYER, "b"));
                ("cosign", layer.payload.as_slice())
            }
            UntrustedSignature::SimpleSigning(_) => panic!("{located:?}"),
        })
        .collect();
    assert_eq!(
        kinds,
        [("bundle", &b"two"[..]), ("bundle", b"one"), ("cosign", b"three"), ("cosign", b"four")]
    );
    assert!(found.signatures.iter().all(|located| located.location.contains(&server.host)));
    // What both list is fetched once.
    let digest = one["digest"].as_str().unwrap();
    assert_eq!(server.seen().iter().filter(|seen| seen.path.ends_with(digest)).count(), 1);
}

#[tokio::test]
async fn a_registry_without_the_api_has_the_tag() {
    let rig = Rig::new();
    let mut content = Content::default();
    let one = content.add(BUNDLE, &[(BUNDLE, b"one")]);
    for api in [
        none(),
        Reply::status(404, "404 page not found"),
        Reply::status(400, ""),
        Reply::status(405, ""),
        Reply::status(406, ""),
        Reply::status(501, ""),
        Reply::ok(b"{}").with("Content-Type", "application/json"),
        Reply::ok(b"<html>").with("Content-Type", "text/html"),
    ] {
        let shown = format!("{api:?}");
        let (found, _) = find(&rig, &content, move |_| api.clone(), index(std::slice::from_ref(&one))).await;
        assert_eq!((bundles(&found), failed(&found)), (vec![&b"one"[..]], None), "{shown}");
    }
    // No tag, or one that is no index, is none; no failure either.
    for tag in [none(), Reply::oci_error(404, "NAME_UNKNOWN", ""), Reply::manifest(b"{\"schemaVersion\":2}")]
    {
        let (found, _) = find(&rig, &content, |_| none(), tag).await;
        assert_eq!((bundles(&found).len(), failed(&found)), (0, None));
    }
}

/// Design decision 3.4: what cannot be had is not "none", and does not hide what can.
#[tokio::test]
async fn failures_are_told_beside_what_was_found() {
    let rig = Rig::new();
    let mut content = Content::default();
    let one = content.add(BUNDLE, &[(BUNDLE, b"one")]);
    for (api, code) in [
        (Reply::status(401, ""), Code::RegistryAuth),
        (Reply::oci_error(403, "DENIED", "no"), Code::RegistryAuth),
        (Reply::status(429, "").with("Retry-After", "0"), Code::RegistryUnavailable),
        (Reply::status(503, "").with("Retry-After", "0"), Code::RegistryUnavailable),
        (Reply::Raw(""), Code::RegistryUnavailable),
        (Reply::Endless, Code::RegistryProtocol),
        (Reply::ok(b"").announcing(50 << 20).with("Content-Type", OCI_INDEX), Code::RegistryProtocol),
        (Reply::ok(b"[]").with("Content-Type", OCI_INDEX), Code::RegistryProtocol),
        (Reply::ok(b"{}").with("Content-Type", OCI_INDEX), Code::RegistryProtocol),
        (
            index(&[json!({"mediaType": OCI, "artifactType": BUNDLE, "digest": "sha256:0"})]),
            Code::RegistryProtocol,
        ),
    ] {
        let shown = format!("{api:?}");
        // Its answer to a type that nobody asked for says that there is no such API.
        let endless = matches!(api, Reply::Endless);
        let (found, _) = find(&rig, &content, move |_| api.clone(), index(std::slice::from_ref(&one))).await;
        assert_eq!(bundles(&found), [b"one"], "{shown}");
        assert_eq!(failed(&found), Some(code).filter(|_| !endless), "{shown}");
    }
    for (tag, code) in
        [(Reply::status(401, ""), Code::RegistryAuth), (Reply::status(501, ""), Code::RegistryUnavailable)]
    {
        let api = index(std::slice::from_ref(&one));
        let (found, _) = find(&rig, &content, move |_| api.clone(), tag).await;
        assert_eq!((bundles(&found), failed(&found)), (vec![&b"one"[..]], Some(code)));
    }
    // A referrer or a blob that is listed and is not there.
    let mut lost = content.clone();
    let gone = lost.add(BUNDLE, &[(BUNDLE, b"gone")]);
    for lost in [
        Content { manifests: content.manifests.clone(), ..lost.clone() },
        Content { blobs: content.blobs.clone(), ..lost.clone() },
    ] {
        let api = index(&[gone.clone(), one.clone()]);
        let (found, _) = find(&rig, &lost, move |_| api.clone(), none()).await;
        assert_eq!(bundles(&found), [b"one"]);
        assert!(found.failure.is_some());
    }
}

/// Lists are hints: manifests decide.
#[tokio::test]
async fn what_is_no_signature_of_this_image_is_passed_over() {
    let rig = Rig::new();
    let mut content = Content::default();
    let layers: &[(&str, &[u8])] = &[(BUNDLE, b"x")];
    let other = Digest::sha256(b"another image").to_string();
    let mut listed = vec![
        content.add_changed(BUNDLE, layers, |m| m["subject"]["digest"] = json!(other)),
        content.add_changed(BUNDLE, layers, |m| m["subject"] = Value::Null),
        content.add_changed(BUNDLE, layers, |m| m["Subject"] = json!({"digest": other})),
        content.add_changed(BUNDLE, layers, |m| m["artifactType"] = json!("application/vnd.in-toto+json")),
        content.add_changed(BUNDLE, layers, |m| m["layers"] = json!({})),
        content.add_changed(BUNDLE, layers, |m| m["x"] = (0..65).fold(json!(0), |inner, _| json!([inner]))),
        content.add_changed(BUNDLE, layers, |m| m["layers"][0]["size"] = json!(2)),
        content.add_changed(BUNDLE, layers, |m| m["layers"][0]["size"] = json!("1")),
        content.add_changed(BUNDLE, layers, |m| m["layers"][0]["digest"] = json!("sha256:")),
        content.add(BUNDLE, &[(BUNDLE, b"one"), (BUNDLE, b"two")]),
        content.add(COSIGN, &vec![(LAYER, &b"many"[..]); 65]),
    ];
    // The list says what the manifest does not.
    let mut sbom = content.add("application/spdx+json", &[("application/spdx+json", b"sbom")]);
    sbom["artifactType"] = json!(BUNDLE);
    listed.push(sbom);
    let api = index(&listed);
    let (found, server) = find(&rig, &content, move |_| api.clone(), none()).await;
    assert_eq!((found.signatures.len(), failed(&found)), (0, None), "{found:?}");
    assert!(server.count() > listed.len());

    // What the list calls something else is not even fetched; what it does not call anything is looked at.
    let mut content = Content::default();
    let attestation = content.add("application/vnd.in-toto+json", &[("x", b"attestation")]);
    let mut unnamed =
        content.add_changed("", &[(LAYER, b"signature")], |m| m["config"]["mediaType"] = json!(COSIGN));
    unnamed.as_object_mut().unwrap().remove("artifactType");
    // Old rules: the type of the configuration stands for that of the manifest.
    let mut misnamed = content.add(BUNDLE, &[(BUNDLE, b"bundle")]);
    misnamed["artifactType"] = json!("application/vnd.oci.empty.v1+json");
    let api = index(&[attestation, unnamed, misnamed]);
    let (found, server) = find(&rig, &content, move |_| api.clone(), none()).await;
    assert_eq!((found.signatures.len(), failed(&found)), (2, None));
    assert_eq!(server.count(), 6);
}

#[tokio::test]
async fn pages_are_followed_on_the_same_list_and_to_an_end() {
    let rig = Rig::new();
    let mut content = Content::default();
    let (one, two) = (content.add(BUNDLE, &[(BUNDLE, b"one")]), content.add(BUNDLE, &[(BUNDLE, b"two")]));
    let (first, second) = (index(std::slice::from_ref(&one)), index(&[two]));
    for (link, code) in [
        ("</v2/ns/app/referrers/DIGEST?n=1>; rel=\"next\"", None),
        ("<./DIGEST?n=1>;rel=next", None),
        ("<?n=1>; title=\"x\"; rel=\"next\"", None),
        ("</v2/ns/app/referrers/DIGEST>; rel=\"next\"", Some(Code::RegistryProtocol)),
        ("</v2/ns/other/referrers/DIGEST?n=1>; rel=\"next\"", Some(Code::RegistryProtocol)),
        ("<https://127.0.0.1/v2/ns/app/referrers/DIGEST?n=1>; rel=\"next\"", Some(Code::RegistryProtocol)),
        ("<http://169.254.169.254/?n=1>; rel=\"next\"", Some(Code::RegistryProtocol)),
        ("</v2/ns/app/referrers/DIGEST?n=1", Some(Code::RegistryProtocol)),
        ("next", Some(Code::RegistryProtocol)),
    ] {
        let (first, second) =
            (first.clone().with("Link", &link.replace("DIGEST", &subject().to_string())), second.clone());
        let api = move |seen: &Seen| if seen.path.ends_with("?n=1") { second.clone() } else { first.clone() };
        let (found, _) = find(&rig, &content, api, index(std::slice::from_ref(&one))).await;
        assert_eq!(failed(&found), code, "{link}");
        let wanted: &[&[u8]] = if code.is_none() { &[b"one", b"two"] } else { &[b"one"] };
        assert_eq!(bundles(&found), wanted, "{link}");
    }
    // Other relations are nobody's next page.
    let api = first.clone().with("Link", "<https://example.com/>; rel=\"prev\"");
    let (found, _) = find(&rig, &content, move |_| api.clone(), none()).await;
    assert_eq!((bundles(&found), failed(&found)), (vec![&b"one"[..]], None));
    // A circle, and a list without end.
    let circle = first.clone().with("Link", "<?n=1>; rel=next");
    let (found, server) = find(&rig, &content, move |_| circle.clone(), none()).await;
    assert_eq!(failed(&found), Some(Code::RegistryProtocol));
    assert!(server.count() <= 6, "{}", server.count());
    let page = Arc::new(AtomicUsize::new(0));
    let (counter, empty) = (Arc::clone(&page), index(&[]));
    let endless = move |_: &Seen| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        empty.clone().with("Link", &format!("<?n={number}>; rel=next"))
    };
    let (found, _) = find(&rig, &content, endless, none()).await;
    assert_eq!((failed(&found), page.load(Ordering::SeqCst)), (Some(Code::RegistryProtocol), PAGES));
}

/// T-28: a list of any length costs no more than its limit.
#[tokio::test]
async fn long_lists_are_cut_off() {
    let rig = Rig::new();
    let mut content = Content::default();
    let one = content.add(BUNDLE, &[(BUNDLE, b"one")]);
    let made_up = |n: usize| {
        let digest = Digest::sha256(n.to_string().as_bytes()).to_string();
        json!({"mediaType": OCI, "digest": digest, "size": 1, "artifactType": BUNDLE})
    };
    let many: Vec<Value> = (0..10_000).map(made_up).collect();
    let api = index(&many);
    let (found, server) = find(&rig, &content, move |_| api.clone(), index(std::slice::from_ref(&one))).await;
    assert_eq!((bundles(&found), failed(&found)), (vec![&b"one"[..]], Some(Code::RegistryProtocol)));
    assert!(server.count() <= REFERRERS + 4);
    // Attestations are many, and a signature that is called one is found before them.
    let said = |mut descriptor: Value, predicate: &str| {
        descriptor["annotations"] = json!({"dev.sigstore.bundle.predicateType": predicate});
        descriptor
    };
    let attestation = |n: usize| said(made_up(n), "https://cosign.sigstore.dev/attestation/vuln/v1");
    let signature = said(one.clone(), "https://sigstore.dev/cosign/sign/v1");
    let api = index(&(0..REFERRERS).map(attestation).chain([signature]).collect::<Vec<_>>());
    let (found, _) = find(&rig, &content, move |_| api.clone(), none()).await;
    assert_eq!((bundles(&found), failed(&found)), (vec![&b"one"[..]], Some(Code::RegistryProtocol)));
    let half = index(&(0..REFERRERS).map(made_up).collect::<Vec<_>>());
    let rest = index(&[one]);
    let (found, server) = find(&rig, &content, move |_| half.clone(), rest).await;
    assert!(found.failure.is_some());
    assert!(server.count() <= REFERRERS + 4);
}
