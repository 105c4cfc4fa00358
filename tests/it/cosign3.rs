//! Images signed as cosign 3 does, from registry to verdict: bundles in manifests that refer to the image. And those
//! that cosign 2 signed with a certificate, for the same requirements.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use serde_json::{Value, json};

use vouchd::config::{Directories, Environment, PolicySource, RegistriesConfSource, ShortNames};
use vouchd::digest::Digest;
use vouchd::engine::{self, Engine, Settings};
use vouchd::evaluate::evidence::{Question, Subject};
use vouchd::fetch::credentials::Source;
use vouchd::fetch::{Configuration, ProxySource};
use vouchd::manifest::{OCI_INDEX, Platform};
use vouchd::policy::Policy;
use vouchd::report::{Report, Route};
use vouchd::verify::Timestamp;

use crate::server::{OCI, Reply, Rig, Seen, Server};
use crate::signer::{COSIGN_SIGN, Content, IN_TOTO, Names, San, Sigstore, Who, statement};
use crate::support::{self, cosign, write};

pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const COSIGN: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
pub(crate) const IMAGE: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
pub(crate) const OTHER: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[],"annotations":{"a":"b"}}"#;
pub(crate) const ISSUER: &str = "https://token.actions.githubusercontent.com";
pub(crate) const WORKFLOW: &str = "https://github.com/acme/os/.github/workflows/build.yml@refs/heads/main";

/// A build of acme/os on GitHub, with some extensions changed.
pub(crate) fn build(changes: &[(u64, &str)], san: &'static str) -> Names {
    let usual = [
        (8, ISSUER),
        (9, san),
        (11, "github-hosted"),
        (12, "https://github.com/acme/os"),
        (14, "refs/heads/main"),
        (15, "1"),
        (16, "https://github.com/acme"),
        (18, WORKFLOW),
        (20, "push"),
    ];
    let value = |number: u64, usual: &str| {
        let changed = changes.iter().find(|(changed, _)| *changed == number);
        (number, changed.map_or(usual, |(_, value)| value).to_owned())
    };
    let extensions = usual.iter().map(|(number, text)| value(*number, text)).collect();
    Names { san: San::Uri(san), extensions, ..Names::default() }
}

/// What a registry does when it is asked for the referrers of a manifest.
#[derive(Clone, Copy)]
pub(crate) enum Api {
    Absent,
    Broken,
    Present,
}

/// A host that trusts one Sigstore, and what its registry has.
pub(crate) struct World {
    pub(crate) rig: Rig,
    pub(crate) sigstore: Sigstore,
    pub(crate) api: Api,
    /// What the registry gives for the tag.
    pub(crate) image: &'static [u8],
    pub(crate) bundles: Vec<Value>,
    /// Payload and annotations of each layer of the attachment of `IMAGE`.
    pub(crate) layers: Vec<(Vec<u8>, Value)>,
    /// Whether the attachment refers to the image, as cosign 2 can be told, and has no tag.
    pub(crate) refers: bool,
    /// What the list of referrers says that they are, in place of the truth.
    pub(crate) listed_as: Option<Value>,
    pub(crate) attachments: bool,
    pub(crate) engine: OnceLock<Arc<Engine>>,
    /// The host on which images are judged.
    pub(crate) host: Environment,
}

impl World {
    pub(crate) fn new() -> Self {
        let (rig, sigstore) = (Rig::new(), Sigstore::new());
        Self {
            rig,
            sigstore,
            api: Api::Absent,
            image: IMAGE,
            bundles: Vec::new(),
            layers: Vec::new(),
            refers: false,
            listed_as: None,
            attachments: false,
            engine: OnceLock::new(),
            host: Environment::system(),
        }
    }

    pub(crate) fn signed(&mut self, statement: &Value, names: &Names) -> &mut Self {
        let payload = statement.to_string().into_bytes();
        let content = Content::Dsse { payload_type: IN_TOTO, payload: &payload };
        let identity = self.sigstore.identity(names);
        self.bundles.push(self.sigstore.sign_v2(&content, Who::Identity(&identity)));
        self
    }

    /// Signs as cosign 2 does; `change` may change payload and annotations.
    pub(crate) fn attach(
        &mut self,
        name: &str,
        names: &Names,
        change: impl FnOnce(&mut Vec<u8>, &mut Value),
    ) {
        let mut payload = cosign(name, &Digest::sha256(IMAGE).to_string());
        let identity = self.sigstore.identity(names);
        let mut annotations = json!(self.sigstore.attach(&payload, &identity));
        change(&mut payload, &mut annotations);
        self.layers.push((payload, annotations));
    }

    pub(crate) fn keyless(&self, members: &str) -> String {
        format!(r#"{{"type":"sigstoreSigned",{members},{}}}"#, self.root())
    }

    /// The member that names a file with the trusted root.
    pub(crate) fn root(&self) -> String {
        let root = write(self.rig.dir.path().join("root.json"), self.sigstore.trusted_root().to_string());
        format!(r#""trustedRootPath":"{}""#, root.display())
    }

    /// A registry whose referrers are those of `IMAGE`.
    pub(crate) async fn server(&self) -> Server {
        self.server_but(|_| None).await
    }

    /// The same, but for what `other` answers.
    pub(crate) async fn server_but(
        &self,
        other: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Server {
        let (api, image) = (self.api, self.image);
        let subject = Digest::sha256(IMAGE);
        let blobs: Vec<Vec<u8>> = self.bundles.iter().map(|b| b.to_string().into_bytes()).collect();
        let manifest = |blob: &Vec<u8>| {
            let digest = Digest::sha256(blob).to_string();
            json!({
                "schemaVersion": 2,
                "mediaType": OCI,
                "artifactType": BUNDLE,
                "config": {"mediaType": "application/vnd.oci.empty.v1+json"},
                "layers": [{"mediaType": BUNDLE, "digest": digest, "size": blob.len()}],
                "subject": {"mediaType": OCI, "digest": subject.to_string(), "size": IMAGE.len()},
            })
            .to_string()
            .into_bytes()
        };
        let mut manifests: Vec<Vec<u8>> = blobs.iter().map(manifest).collect();
        let layer = |(payload, annotations): &(Vec<u8>, Value)| {
            json!({
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": Digest::sha256(payload).to_string(),
                "size": payload.len(),
                "annotations": annotations,
            })
        };
        let layers: Vec<Value> = self.layers.iter().map(layer).collect();
        let mut attachment = json!({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": layers});
        if self.refers {
            attachment["config"] = json!({"mediaType": COSIGN});
            attachment["subject"] =
                json!({"mediaType": OCI, "digest": subject.to_string(), "size": IMAGE.len()});
            manifests.push(attachment.to_string().into_bytes());
        }
        let attachment = (!layers.is_empty() && !self.refers).then(|| attachment.to_string());
        let descriptor = |bytes: &Vec<u8>| {
            let manifest: Value = serde_json::from_slice(bytes).unwrap();
            let kind = manifest.get("artifactType").unwrap_or(&manifest["config"]["mediaType"]);
            let kind = self.listed_as.as_ref().unwrap_or(kind);
            let digest = Digest::sha256(bytes).to_string();
            json!({"mediaType": OCI, "digest": digest, "size": bytes.len(), "artifactType": kind})
        };
        let descriptors: Vec<Value> = manifests.iter().map(descriptor).collect();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}).to_string();
        let tag = format!("sha256-{}", subject.hex());
        let payloads = self.layers.iter().map(|(payload, _)| payload.clone());
        let blobs: Vec<Vec<u8>> = blobs.into_iter().chain(payloads).collect();
        self.rig
            .server(move |_, seen| {
                if let Some(reply) = other(seen) {
                    return reply;
                }
                let listed = || Reply::ok(index.as_bytes()).with("Content-Type", OCI_INDEX);
                let path = seen.path.split('?').next().unwrap();
                let wanted = path.rsplit('/').next().unwrap();
                let find = |all: &[Vec<u8>]| {
                    all.iter().find(|bytes| Digest::sha256(bytes).to_string() == wanted).cloned()
                };
                if path == "/v2/" {
                    return Reply::ok(b"{}");
                }
                if path.contains("/referrers/") {
                    return match api {
                        Api::Absent => Reply::status(404, "404 page not found"),
                        Api::Broken => Reply::status(500, ""),
                        Api::Present if wanted == subject.to_string() => listed(),
                        Api::Present => Reply::ok(br#"{"schemaVersion":2,"manifests":[]}"#),
                    };
                }
                if path.contains("/blobs/") {
                    return find(&blobs).map_or(Reply::status(404, ""), |bytes| Reply::ok(&bytes));
                }
                if wanted == "1" || wanted == Digest::sha256(image).to_string() {
                    return Reply::manifest(image);
                }
                if wanted == tag && !matches!(api, Api::Present) {
                    return listed();
                }
                if let Some(attachment) = attachment.as_ref().filter(|_| wanted == format!("{tag}.sig")) {
                    return Reply::manifest(attachment.as_bytes());
                }
                let missing = Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown");
                find(&manifests).map_or(missing, |bytes| Reply::manifest(&bytes))
            })
            .await
    }

    /// The report on the image with tag 1, and what the registry was asked for.
    pub(crate) async fn judge(&self, requirement: &str) -> (Report, Vec<String>) {
        let server = self.server().await;
        let report = self.report(&server, requirement).await;
        (report, server.seen().into_iter().map(|seen| seen.path).collect())
    }

    /// The report on the image with tag 1 of that registry.
    pub(crate) async fn report(&self, server: &Server, requirement: &str) -> Report {
        let name = format!("docker://{}:1", server.image().name());
        self.report_on(&name, &format!(r#"{{"default":[{requirement}]}}"#), "").await
    }

    /// The report on any image, with that policy and registries.conf. The engine is always the same.
    pub(crate) async fn report_on(&self, name: &str, policy: &str, registries: &str) -> Report {
        let settings = self.settings(policy, registries, self.host.clone());
        let engine = self.engine.get_or_init(|| Arc::new(Engine::new(settings)));
        report(engine, name, engine::now()).await
    }

    /// The same for the image with tag 1, on another host at another time.
    pub(crate) async fn judge_on(
        &self,
        requirement: &str,
        environment: Environment,
        now: Timestamp,
    ) -> (Report, Vec<String>) {
        let server = self.server().await;
        let settings = self.settings(&format!(r#"{{"default":[{requirement}]}}"#), "", environment);
        let name = format!("docker://{}:1", server.image().name());
        let report = report(&Arc::new(Engine::new(settings)), &name, now).await;
        (report, server.seen().into_iter().map(|seen| seen.path).collect())
    }

    fn settings(&self, policy: &str, registries: &str, environment: Environment) -> Settings {
        let path = |name: &str| self.rig.dir.path().join(name);
        let attachments = self.attachments;
        let lookaside = path("lookaside").display().to_string();
        let text = format!(
            "default-docker:\n  lookaside: file://{lookaside}\n  use-sigstore-attachments: {attachments}\n"
        );
        write(path("registries.d/all.yaml"), text);
        write(path("registries.conf"), registries);
        write(path("policy.json"), policy);
        Settings {
            policy: PolicySource::Explicit(path("policy.json")).into(),
            configuration: Configuration {
                registries_d: Directories::explicit(path("registries.d"), &Environment::system()),
                registries_conf: RegistriesConfSource::Explicit(path("registries.conf")),
                proxies: ProxySource::Variables(Default::default()),
            },
            registry: self.rig.settings(Source::Anonymous),
            short_names: ShortNames::Search,
            environment,
        }
    }

    /// `allowed`, the code of a denial, or `?` and the code of an error.
    pub(crate) async fn verdict(&self, requirement: &str) -> String {
        let (report, _) = self.judge(requirement).await;
        verdict(report)
    }
}

async fn report(engine: &Arc<Engine>, name: &str, now: Timestamp) -> Report {
    let question = Question { require_signature: true, subject: Subject::Either, platform: Platform::host() };
    match engine.verify(name, &question, None, Duration::from_secs(30), now).await {
        Ok(answer) => Report::of_answer(name, Route::Direct, &answer),
        Err(undecided) => Report::of_undecided(name, Route::Direct, &undecided),
    }
}

/// `allowed`, the code of a denial, or `?` and the code of an error.
pub(crate) fn verdict(report: Report) -> String {
    match (report.allowed, report.decided, report.code) {
        (true, true, None) => "allowed".to_owned(),
        (false, true, Some(code)) => code,
        (false, false, Some(code)) => format!("? {code}"),
        other => panic!("{other:?}"),
    }
}

pub(crate) const OURS: &str = r#""keyless":{"issuer":"https://token.actions.githubusercontent.com","subject":"https://github.com/acme/os"}"#;

pub(crate) fn of_image() -> Value {
    statement(&Digest::sha256(IMAGE))
}

/// The heart of it: what other tools cannot see is allowed for exactly whom the policy names.
#[tokio::test]
async fn a_build_of_the_repository_is_allowed() {
    for api in [Api::Absent, Api::Present] {
        let mut world = World { api, ..World::new() };
        world.signed(&of_image(), &build(&[], WORKFLOW));
        let requirement = world.keyless(OURS);
        let (report, _) = world.judge(&requirement).await;
        assert!(report.allowed && report.authenticated, "{report:?}");
        assert_eq!(report.manifest_digest, Some(Digest::sha256(IMAGE).to_string()));
        let signature = &report.requirements[0].signatures[0];
        let signer = signature.signer.as_ref().unwrap();
        assert_eq!(signer.subject.as_deref(), Some(WORKFLOW));
        assert_eq!(signer.issuer.as_deref(), Some(ISSUER));
        assert_eq!(signature.time.as_deref(), Some("2026-01-01T00:05:00Z"));
        // T-16: only the digest is signed.
        assert_eq!(signature.reference_bound, Some(false));
        let others = report.would_accept.unwrap();
        assert_eq!((others.podman, others.skopeo_image_proxy), (Some(false), Some(false)));
    }
}

/// T-12, T-13, T-16, and the manifest that was signed.
#[tokio::test]
async fn every_other_build_is_refused() {
    let reusable = "https://github.com/acme/shared/.github/workflows/build.yml@refs/heads/main";
    for (changes, san, code) in [
        (&[(12, "https://github.com/evil/os")][..], WORKFLOW, "identity-foreign-caller"),
        (&[], reusable, "identity-foreign-workflow"),
        (&[(14, "refs/pull/1/merge")], WORKFLOW, "identity-mismatch-ref"),
        (&[(20, "pull_request_target")], WORKFLOW, "identity-mismatch-trigger"),
        (&[(8, "https://evil.example")], WORKFLOW, "identity-mismatch-issuer"),
        (&[(9, reusable)], WORKFLOW, "identity-inconsistent"),
    ] {
        let mut world = World::new();
        world.signed(&of_image(), &build(changes, san));
        assert_eq!(world.verdict(&world.keyless(OURS)).await, code, "{changes:?}");
    }
    let mut world = World::new();
    world.signed(&of_image(), &build(&[], WORKFLOW));
    let only = OURS.replace(r#""subject""#, r#""workflows":[".github/workflows/other.yml"],"subject""#);
    assert_eq!(world.verdict(&world.keyless(&only)).await, "identity-mismatch-workflow");
    let exact = format!(r#"{OURS},"signedIdentity":{{"type":"matchRepoDigestOrExact"}}"#);
    assert_eq!(world.verdict(&world.keyless(&exact)).await, "identity-not-signed");
    // The same referrers, and another image.
    world.image = OTHER;
    assert_eq!(world.verdict(&world.keyless(OURS)).await, "unsigned");
}

/// T-11, T-17: another digest, an attestation, and a signature over the manifest itself.
#[tokio::test]
async fn what_is_no_signature_of_the_image_is_refused() {
    let workflow = || build(&[], WORKFLOW);
    let mut world = World::new();
    world.signed(&statement(&Digest::sha256(OTHER)), &workflow());
    assert_eq!(world.verdict(&world.keyless(OURS)).await, "bundle-subject");
    let mut world = World::new();
    let mut attestation = of_image();
    assert_eq!(attestation["predicateType"], COSIGN_SIGN);
    attestation["predicateType"] = json!("https://slsa.dev/provenance/v1");
    world.signed(&attestation, &workflow());
    assert_eq!(world.verdict(&world.keyless(OURS)).await, "not-a-signature");
    let mut world = World::new();
    let identity = world.sigstore.identity(&workflow());
    let bundle = world.sigstore.sign_v2(&Content::Message(IMAGE), Who::Identity(&identity));
    world.bundles.push(bundle);
    assert_eq!(world.verdict(&world.keyless(OURS)).await, "not-a-signature");
    let wanted = format!(r#"{OURS},"messageSignature":true"#);
    assert_eq!(world.verdict(&world.keyless(&wanted)).await, "allowed");
}

/// T-14, T-15: another Sigstore than the one that the requirement names, and the one of this host.
#[tokio::test]
async fn only_the_trusted_root_of_the_requirement_counts() {
    let mut world = World::new();
    world.signed(&of_image(), &build(&[], WORKFLOW));
    let stranger = World::new();
    assert_ne!(world.verdict(&stranger.keyless(OURS)).await, "allowed");
    assert_ne!(world.verdict(&format!(r#"{{"type":"sigstoreSigned",{OURS}}}"#)).await, "allowed");
    let broken = write(world.rig.dir.path().join("broken.json"), "{}");
    let requirement =
        format!(r#"{{"type":"sigstoreSigned",{OURS},"trustedRootPath":"{}"}}"#, broken.display());
    assert_eq!(world.verdict(&requirement).await, "trusted-root-invalid");
}

/// Design decision 3.4: "not to be had" is not "none".
#[tokio::test]
async fn a_registry_that_fails_leaves_it_undecided() {
    let mut world = World { api: Api::Broken, ..World::new() };
    assert_eq!(world.verdict(&world.keyless(OURS)).await, "? registry-unavailable");
    // What was found all the same may be enough.
    world.signed(&of_image(), &build(&[], WORKFLOW));
    assert_eq!(world.verdict(&world.keyless(OURS)).await, "allowed");
    world.api = Api::Present;
    world.bundles.clear();
    assert_eq!(world.verdict(&world.keyless(OURS)).await, "unsigned");
}

/// C-2, T-11, T-16: what is attached for `fulcio` counts for `keyless`, too, and never for more than it says.
#[tokio::test]
async fn certificates_that_cosign_2_attached_count() {
    let workflow = || build(&[], WORKFLOW);
    let mut world = World::new();
    // The name of the server is known only when it runs.
    let named = format!(
        r#"{OURS},"signedIdentity":{{"type":"exactRepository","dockerRepository":"acme.example/os"}}"#
    );
    world.attach("acme.example/os:1", &workflow(), |_, _| {});
    assert_eq!(world.verdict(&world.keyless(&named)).await, "allowed");
    let (report, asked) = world.judge(&world.keyless(&named)).await;
    let signature = &report.requirements[0].signatures[0];
    assert_eq!(signature.reference_bound, Some(true));
    assert_eq!(signature.signer.as_ref().unwrap().subject.as_deref(), Some(WORKFLOW));
    // What is enough is not added to.
    assert!(asked.iter().all(|path| !path.contains("referrers")), "{asked:?}");
    // A name that is there must match, even where none is accepted.
    assert_eq!(world.verdict(&world.keyless(OURS)).await, "identity-mismatch");
    world.image = OTHER;
    assert_eq!(world.verdict(&world.keyless(&named)).await, "unsigned");
    type Change = fn(&mut Vec<u8>, &mut Value);
    let rows: [(&str, Change, &str); 7] = [
        ("another payload", |payload, _| payload.push(b'\n'), "bundle-signature"),
        (
            "no certificate",
            |_, annotations| {
                drop(annotations.as_object_mut().unwrap().remove("dev.sigstore.cosign/certificate"))
            },
            "signing-certificate-missing",
        ),
        (
            "no log entry",
            |_, annotations| drop(annotations.as_object_mut().unwrap().remove("dev.sigstore.cosign/bundle")),
            "log-entry-missing",
        ),
        (
            "a log entry with another time",
            |_, annotations| {
                let text = annotations["dev.sigstore.cosign/bundle"].as_str().unwrap();
                let mut set: Value = serde_json::from_str(text).unwrap();
                set["Payload"]["integratedTime"] = json!(crate::signer::SIGNED_AT + 1);
                annotations["dev.sigstore.cosign/bundle"] = json!(set.to_string());
            },
            "log-entry-invalid",
        ),
        (
            "a log entry with a member more",
            |_, annotations| {
                let text = annotations["dev.sigstore.cosign/bundle"].as_str().unwrap();
                annotations["dev.sigstore.cosign/bundle"] = json!(text.replacen('{', r#"{"a":1,"#, 1));
            },
            "malformed-signature",
        ),
        (
            "two certificates",
            |_, annotations| {
                let pem = annotations["dev.sigstore.cosign/certificate"].as_str().unwrap().repeat(2);
                annotations["dev.sigstore.cosign/certificate"] = json!(pem);
            },
            "signing-certificate-invalid",
        ),
        (
            "a broken timestamp",
            |_, annotations| annotations["dev.sigstore.cosign/rfc3161timestamp"] = json!("{}"),
            "malformed-signature",
        ),
    ];
    for (what, change, code) in rows {
        let mut world = World::new();
        world.attach("acme.example/os:1", &workflow(), change);
        assert_eq!(world.verdict(&world.keyless(&named)).await, code, "{what}");
    }
    let mut world = World::new();
    world.attach("acme.example/os:1", &build(&[(14, "refs/pull/1/merge")], WORKFLOW), |_, _| {});
    assert_eq!(world.verdict(&world.keyless(&named)).await, "identity-mismatch-ref");
}

/// Design decision 3.4: layouts list what refers to their images.
#[test]
fn bundles_in_layouts_count() {
    let mut world = World::new();
    world.signed(&of_image(), &build(&[], WORKFLOW));
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    let blob = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        write(layout.join("blobs/sha256").join(digest.hex()), bytes);
        json!({"mediaType": OCI, "digest": digest.to_string(), "size": bytes.len()})
    };
    let name = |mut descriptor: Value, name: &str| {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        descriptor
    };
    let bundle = world.bundles[0].to_string().into_bytes();
    let mut layer = blob(&bundle);
    layer["mediaType"] = json!(BUNDLE);
    let referrer = json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "artifactType": BUNDLE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json"},
        "layers": [layer],
        "subject": blob(IMAGE),
    });
    let referrer = blob(referrer.to_string().as_bytes());
    write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    let policy = format!(r#"{{"default":[{}]}}"#, world.keyless(OURS));
    let policy = write(dir.path().join("policy.json"), policy).display().to_string();
    let index = |manifests: &[Value]| {
        write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": manifests}).to_string());
    };
    let verify = |image: &str| {
        let reference = format!("oci:{}:{image}", layout.display());
        support::vouchd(&["verify", "--json", "--policy", &policy, &reference]).code()
    };
    let allowed = (0, "allowed".to_owned());
    let images = [name(blob(IMAGE), "1"), name(blob(OTHER), "2")];
    index(&images);
    assert_eq!(verify("1"), (1, "unsigned".to_owned()));
    index(&[images.to_vec(), vec![referrer.clone()]].concat());
    assert_eq!(verify("1"), allowed);
    assert_eq!(verify("2"), (1, "unsigned".to_owned()));
    let archive = dir.path().join("image.tar");
    let tar =
        std::process::Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&layout).arg(".").status();
    assert!(tar.unwrap().success());
    let reference = format!("oci-archive:{}:1", archive.display());
    assert_eq!(support::vouchd(&["verify", "--json", "--policy", &policy, &reference]).code(), allowed);
    // As the tag in a registry: an index of its own.
    let tagged = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [referrer]}).to_string();
    let mut tagged = name(blob(tagged.as_bytes()), &Digest::sha256(IMAGE).to_string().replace(':', "-"));
    tagged["mediaType"] = json!(OCI_INDEX);
    index(&[images.to_vec(), vec![tagged]].concat());
    assert_eq!(verify("1"), allowed);
    // What cannot be read might have been the signature.
    std::fs::remove_file(layout.join("blobs/sha256").join(Digest::sha256(&bundle).hex())).unwrap();
    assert_eq!(verify("1").0, 3);
    index(&[images.to_vec(), vec![json!({"mediaType": OCI, "digest": "sha256:0"})]].concat());
    assert_eq!(verify("1").0, 3);
}

/// C-30 to C-34 with members of ours: what containers-policy.json(5) cannot say of a certificate.
#[tokio::test]
async fn workflows_can_be_named_beside_an_authority_of_ones_own() {
    let mut world = World { attachments: true, ..World::new() };
    world.attach("acme.example/os:1", &build(&[], WORKFLOW), |_, _| {});
    let stranger = Sigstore::new();
    let (authority, log) = world.sigstore.authority_and_log();
    let (other_authority, other_log) = stranger.authority_and_log();
    let requirement = |authority: &str, log: &str, members: &str| {
        let (authority, log) = (STANDARD.encode(authority), STANDARD.encode(log));
        format!(
            r#"{{"type":"sigstoreSigned","fulcio":{{"caData":"{authority}","oidcIssuer":"{ISSUER}",{members}}},"rekorPublicKeyData":"{log}","signedIdentity":{{"type":"exactRepository","dockerRepository":"acme.example/os"}}}}"#
        )
    };
    let ours = format!(r#""subjectURI":"{WORKFLOW}","sourceRepositoryURI":"https://github.com/acme/os""#);
    for (authority, log, members, wanted) in [
        (&authority, &log, &*ours, "allowed"),
        (
            &authority,
            &log,
            r#""buildConfigURIRegExp":"https://github.com/acme/os/.*","buildTrigger":"push""#,
            "allowed",
        ),
        (
            &authority,
            &log,
            r#""sourceRepositoryURI":"https://github.com/acme/o""#,
            "identity-mismatch-repository",
        ),
        (&authority, &log, r#""subjectURIRegExp":"https://github.com/acme""#, "identity-mismatch-subject"),
        (
            &authority,
            &log,
            r#""subjectEmail":"a@b.example","subjectURIRegExp":".*""#,
            "identity-mismatch-subject",
        ),
        (&other_authority, &log, &*ours, "signing-certificate-untrusted"),
        (&authority, &other_log, &*ours, "log-entry-invalid"),
    ] {
        assert_eq!(world.verdict(&requirement(authority, log, members)).await, wanted, "{members}");
    }
    // T-12, and a payload that another key signed.
    let mut world = World { attachments: true, sigstore: world.sigstore, ..World::new() };
    world.attach("acme.example/os:1", &build(&[(12, "https://github.com/evil/os")], WORKFLOW), |_, _| {});
    let by_name = format!(r#""subjectURI":"{WORKFLOW}""#);
    assert_eq!(world.verdict(&requirement(&authority, &log, &by_name)).await, "identity-foreign-caller");
    world.layers.clear();
    world.attach("acme.example/os:1", &build(&[], WORKFLOW), |payload, _| payload.push(b'\n'));
    assert_eq!(world.verdict(&requirement(&authority, &log, &ours)).await, "log-entry-invalid");
}

/// Keys are subject to the gate of registries.d, and nobody is asked whose answer cannot matter.
#[tokio::test]
async fn bundles_of_managed_keys_count_behind_the_gate() {
    let mut world = World::new();
    let key = KeyPair::generate().unwrap();
    let payload = of_image().to_string().into_bytes();
    let content = Content::Dsse { payload_type: IN_TOTO, payload: &payload };
    world.bundles.push(crate::signer::bundle(&content, Who::Key(&key)));
    let file = write(world.rig.dir.path().join("key.pem"), key.public_key_pem());
    let requirement =
        |members: &str| format!(r#"{{"type":"sigstoreSigned","keyPath":"{}"{members}}}"#, file.display());
    let unnamed = requirement(r#","signedIdentity":{"type":"matchRepositoryOrUnnamed"}"#);
    let (report, asked) = world.judge(&unnamed).await;
    assert_eq!(report.code.as_deref(), Some("attachments-disabled"));
    assert!(asked.iter().all(|path| !path.contains("referrers")), "{asked:?}");
    world.attachments = true;
    assert_eq!(world.verdict(&unnamed).await, "allowed");
    assert_eq!(world.verdict(&requirement("")).await, "identity-not-signed");
    // T-15: what a bundle proves is not what the keys of logs ask for.
    let logged = format!(r#","rekorPublicKeyPath":"{}""#, file.display());
    let (report, asked) = world.judge(&requirement(&logged)).await;
    assert_eq!(report.code.as_deref(), Some("unsigned"));
    assert!(asked.iter().all(|path| !path.contains("referrers")), "{asked:?}");
    let stranger = KeyPair::generate().unwrap();
    write(&file, stranger.public_key_pem());
    assert_eq!(world.verdict(&unnamed).await, "bundle-signature");
}

/// Design decision 3.4: what `keyless` has looked for is nothing to a key that the gate holds.
#[tokio::test]
async fn a_key_beside_keyless_stays_behind_the_gate() {
    let mut world = World::new();
    let key = KeyPair::generate().unwrap();
    let payload = of_image().to_string().into_bytes();
    let content = Content::Dsse { payload_type: IN_TOTO, payload: &payload };
    world.bundles.push(crate::signer::bundle(&content, Who::Key(&key)));
    world.signed(&of_image(), &build(&[], WORKFLOW));
    let file = write(world.rig.dir.path().join("key.pem"), key.public_key_pem());
    let requirements = format!(
        r#"{},{{"type":"sigstoreSigned","keyPath":"{}","signedIdentity":{{"type":"matchRepositoryOrUnnamed"}}}}"#,
        world.keyless(OURS),
        file.display()
    );
    assert_eq!(world.verdict(&requirements).await, "attachments-disabled");
    world.attachments = true;
    assert_eq!(world.verdict(&requirements).await, "allowed");
}

/// Nobody is asked for signatures that could not help.
#[tokio::test]
async fn what_no_signature_can_mend_is_refused_at_once() {
    let mut world = World { api: Api::Broken, ..World::new() };
    world.signed(&of_image(), &build(&[], WORKFLOW));
    let wanted = format!(r#"{OURS},"manifestAnnotations":{{"a":"b"}}"#);
    let (report, asked) = world.judge(&world.keyless(&wanted)).await;
    assert_eq!(report.code.as_deref(), Some("annotation-mismatch"));
    assert!(asked.iter().all(|path| !path.contains("referrers")), "{asked:?}");
}

/// Rules P-6 and P-31: one member of ours, whatever it says, and other tools refuse every image.
#[test]
fn other_tools_cannot_read_what_is_ours() {
    for (members, is_common) in [
        (r#""keyPath":"/k""#, true),
        (r#""fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyPath":"/r""#, true),
        (r#""fulcio":{"caPath":"/c","oidcIssuer":"i","subjectURI":"u"},"rekorPublicKeyPath":"/r""#, false),
        (r#""fulcio":{"oidcIssuer":"i","subjectEmail":"e"},"trustedRootPath":"/t""#, false),
        (r#""keyless":{"issuer":"i","subject":"s"}"#, false),
        (r#""keyPath":"/k","messageSignature":true"#, false),
        (r#""keyPath":"/k","messageSignature":false"#, false),
        (r#""keyPath":"/k","manifestAnnotations":{"a":"b"}"#, false),
        (r#""keyPath":"/k","signedIdentity":{"type":"matchRepositoryOrUnnamed"}"#, false),
    ] {
        for text in [
            format!(r#"{{"default":[{{"type":"sigstoreSigned",{members}}}]}}"#),
            format!(
                r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"a.example":[{{"type":"sigstoreSigned",{members}}}]}}}}}}"#
            ),
        ] {
            assert_eq!(Policy::parse(text.as_bytes()).unwrap().is_common(), is_common, "{text}");
        }
    }
}

/// Design decision 3.7: no Sigstore server is ever asked, and nobody else, whatever the verdict.
#[tokio::test]
async fn nobody_but_the_registry_is_asked() {
    if !support::have(&["strace"]) {
        return;
    }
    let mut world = World::new();
    world.signed(&of_image(), &build(&[], WORKFLOW));
    world.attach("acme.example/os:1", &build(&[(14, "refs/pull/1/merge")], WORKFLOW), |_, _| {});
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    write(
        path("registries.d/all.yaml"),
        format!("default-docker:\n  lookaside: file://{}\n", path("stores")),
    );
    write(path("registries.conf"), "");
    write(path("bundle.json"), world.bundles[0].to_string());
    write(path("image"), IMAGE);
    let host = format!(r#"{{"type":"sigstoreSigned",{OURS}}}"#);
    for (name, requirement) in [("ours.json", world.keyless(OURS)), ("host.json", host)] {
        write(path(name), format!(r#"{{"default":[{requirement}]}}"#));
    }
    let server = world.server().await;
    let port = server.image().domain().rsplit(':').next().unwrap().to_owned();
    let image = format!("docker://{}:1", server.image().name());
    let certificates = world.rig.certs().display().to_string();
    let verify = |policy: &str| {
        let words =
            ["verify", "--direct", "--policy", &path(policy), "--registries-d", &path("registries.d")];
        let more = ["--registries-conf", &path("registries.conf"), "--cert-dir", &certificates, &image];
        words.iter().chain(&more).map(ToString::to_string).collect::<Vec<_>>()
    };
    let who = ["--certificate-identity", WORKFLOW, "--certificate-oidc-issuer", ISSUER];
    let blob = || {
        let words = ["verify-blob", "--bundle", &path("bundle.json")];
        words.iter().chain(&who).chain([&&*path("image")]).map(ToString::to_string).collect::<Vec<_>>()
    };
    for (arguments, exit, asks) in [
        (verify("ours.json"), 0, true),
        // The root of this host, which knows none of our logs.
        (verify("host.json"), 1, true),
        (blob(), 1, false),
    ] {
        let mut command = std::process::Command::new("strace");
        command
            .args(["-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", &path("trace")])
            .arg(env!("CARGO_BIN_EXE_vouchd"))
            .args(&arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/nonexistent");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        if String::from_utf8_lossy(&output.stderr).contains("ptrace") {
            return support::skip("strace may not trace");
        }
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {output:?}");
        let trace = std::fs::read_to_string(path("trace")).unwrap();
        let is_internet = |line: &&str| line.contains("AF_INET") || line.contains("AF_UNIX");
        let connections: Vec<&str> = trace.lines().filter(is_internet).collect();
        assert_eq!(!connections.is_empty(), asks, "{arguments:?}: {trace}");
        let to_registry = format!("sin_port=htons({port}), sin_addr=inet_addr(\"127.0.0.1\")");
        assert!(connections.iter().all(|line| line.contains(&to_registry)), "{connections:?}");
    }
}
