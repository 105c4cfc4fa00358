//! Whose signatures count: every way to name a signer, every way to store a signature, every kind of wrong signer, from
//! registry to verdict.
//!
//! The mistakes of other verifiers, user-demands section 5.3, each with its tests:
//!
//! | mistake | tests |
//! |---|---|
//! | 1, a statement without a name for `matchRepository` | `no_mode_takes_a_missing_name_for_a_match`, `keyless::mistakes_of_others` |
//! | 2, an attestation as a signature | `no_mode_takes_an_attestation_for_a_signature` |
//! | 3, a time that nobody proves | `no_mode_believes_a_time_that_nobody_proves` |
//! | 4, a referrer that hides the tag | `no_storage_hides_another` |
//! | 5, a list without types | `no_storage_hides_another`, `referrers::what_is_no_signature_of_this_image_is_passed_over` |
//! | 6, names that are missing or contained | `every_mode_names_exactly_one_signer`, rows "no name" to "our address in another" |
//! | 7, an address and a workflow, of which one matches | `both_an_address_and_a_workflow_must_match` |
//! | 8, a reusable workflow called from elsewhere | `every_mode_names_exactly_one_signer`, row "called by another repository" |
//! | 9, half an identity | `keyless::mistakes_of_others` |
//! | 10, an answer that outlives its policy | `an_answer_is_never_older_than_policy_and_trust` |
//! | 11, a policy that enforces nothing | `keyless::mistakes_of_others` |
//! | 12, no `signedIdentity` | `no_mode_takes_a_missing_name_for_a_match`, `keyless::mistakes_of_others` |
//! | 13, trust that cannot be read | `trust_that_cannot_be_read_refuses` |
//! | 14, too much of everything | `hostile` |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::cosign3::{Api, ISSUER, OURS, WORKFLOW, World, build, of_image, verdict};
use crate::signer::{Content, IN_TOTO, Names, SIGNED_AT, San, Who, bundle as unproven};
use crate::support::write;

/// How a policy names the signer.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// `keyless`, by repository.
    Repository,
    /// `keyless`, by the name in the certificate.
    Identity,
    /// `fulcio` with a trusted root, by the workflow that signed.
    Workflow,
    /// `fulcio` with a trusted root, by name, repository, branch and event.
    Pinned,
    /// `fulcio` with an authority of one's own, by name.
    Own,
}

const MODES: [Mode; 5] = [Mode::Repository, Mode::Identity, Mode::Workflow, Mode::Pinned, Mode::Own];

/// Where a signature is; seeds-and-formats, section 1.2.
#[derive(Clone, Copy, Debug)]
enum Storage {
    /// Generation A: cosign 2, at a tag.
    Tag,
    /// Generation B: cosign 2, in a manifest that refers to the image.
    Referring,
    /// Generation C: cosign 3, a bundle.
    Bundle,
}

const STORAGES: [Storage; 3] = [Storage::Tag, Storage::Referring, Storage::Bundle];

/// A host that looks for attachments, and a registry without any signature.
fn world() -> World {
    World { attachments: true, api: Api::Present, ..World::new() }
}

impl Storage {
    /// Puts this signature into the registry, in place of all others.
    fn fill(self, world: &mut World, names: &Names) {
        world.bundles.clear();
        world.layers.clear();
        match self {
            Self::Bundle => drop(world.signed(&of_image(), names)),
            Self::Referring | Self::Tag => world.attach("acme.example/os:1", names, |_, _| {}),
        }
        world.refers = matches!(self, Self::Referring);
    }

    /// What accepts the name that is signed.
    fn signed_identity(self) -> &'static str {
        match self {
            Self::Bundle => r#""signedIdentity":{"type":"matchRepositoryOrUnnamed"}"#,
            Self::Referring | Self::Tag => {
                r#""signedIdentity":{"type":"exactRepository","dockerRepository":"acme.example/os"}"#
            }
        }
    }
}

impl Mode {
    fn members(self, world: &World) -> String {
        match self {
            Self::Repository => OURS.to_owned(),
            Self::Identity => format!(r#""keyless":{{"issuer":"{ISSUER}","subject":"{WORKFLOW}"}}"#),
            Self::Workflow => {
                format!(r#""fulcio":{{"oidcIssuer":"{ISSUER}","buildSignerURI":"{WORKFLOW}"}}"#)
            }
            Self::Pinned => format!(
                r#""fulcio":{{"oidcIssuer":"{ISSUER}","subjectURI":"{WORKFLOW}","sourceRepositoryURI":"https://github.com/acme/os","sourceRepositoryRef":"refs/heads/main","buildTrigger":"push"}}"#
            ),
            Self::Own => {
                let (authority, log) = world.sigstore.authority_and_log();
                let (authority, log) = (STANDARD.encode(authority), STANDARD.encode(log));
                format!(
                    r#""fulcio":{{"caData":"{authority}","oidcIssuer":"{ISSUER}","subjectURI":"{WORKFLOW}"}},"rekorPublicKeyData":"{log}""#
                )
            }
        }
    }

    /// A requirement; `more` are members beside the signer.
    fn requirement(self, world: &World, more: &str) -> String {
        let members = format!("{},{more}", self.members(world));
        match self {
            Self::Own => format!(r#"{{"type":"sigstoreSigned",{members}}}"#),
            Self::Identity | Self::Pinned | Self::Repository | Self::Workflow => world.keyless(&members),
        }
    }

    /// Whether signatures of that storage can satisfy it (T-15: what bundles prove is not what is asked for).
    fn counts(self, storage: Storage) -> bool {
        match self {
            Self::Own => matches!(storage, Storage::Tag),
            Self::Identity | Self::Pinned | Self::Repository | Self::Workflow => true,
        }
    }
}

/// The verdict of each mode on what is signed so, and stored in each way.
async fn verdicts(world: &mut World, what: &str, names: &Names, wanted: [&str; 5]) {
    for storage in STORAGES {
        storage.fill(world, names);
        let server = world.server().await;
        for (mode, wanted) in MODES.into_iter().zip(wanted) {
            let requirement = mode.requirement(world, storage.signed_identity());
            let wanted = if mode.counts(storage) { wanted } else { "unsigned" };
            let found = verdict(world.report(&server, &requirement).await);
            assert_eq!(found, wanted, "{what}: {mode:?}, {storage:?}");
        }
    }
}

/// Sets an extension of every certificate, or removes it.
fn set(names: &mut Names, number: u64, value: Option<&str>) {
    names.extensions.retain(|(known, _)| *known != number);
    names.extensions.extend(value.map(|value| (number, value.to_owned())));
}

/// Names another workflow, as Fulcio does: as the subject and in .9.
fn sign_as(names: &mut Names, workflow: &'static str) {
    names.san = San::Uri(workflow);
    set(names, 9, Some(workflow));
}

/// Seeds-and-formats, section 2.5, conditions 1 to 6; T-12, T-13; mistakes 6 and 8.
#[tokio::test]
async fn every_mode_names_exactly_one_signer() {
    const EVIL: &str = "https://github.com/evil/os/.github/workflows/build.yml@refs/heads/main";
    const REQUEST: &str = "https://github.com/acme/os/.github/workflows/build.yml@refs/pull/7/merge";
    const INSIDE: &str =
        "https://github.com/evil/https://github.com/acme/os/.github/workflows/build.yml@refs/heads/main";
    type Change = fn(&mut Names);
    // By repository, by name, by workflow, by name with pins, by name with an authority of one's own.
    let rows: [(&str, Change, [&str; 5]); 25] = [
        ("the right one", |_| {}, ["allowed", "allowed", "allowed", "allowed", "allowed"]),
        (
            "another issuer",
            |n| set(n, 8, Some("https://issuer.example")),
            [
                "identity-mismatch-issuer",
                "identity-mismatch-issuer",
                "identity-mismatch-issuer",
                "identity-mismatch-issuer",
                "identity-mismatch-issuer",
            ],
        ),
        (
            "an issuer that is longer",
            |n| set(n, 8, Some("https://token.actions.githubusercontent.com/x")),
            [
                "identity-mismatch-issuer",
                "identity-mismatch-issuer",
                "identity-mismatch-issuer",
                "identity-mismatch-issuer",
                "identity-mismatch-issuer",
            ],
        ),
        (
            "no issuer",
            |n| set(n, 8, None),
            [
                "identity-extension-missing",
                "identity-extension-missing",
                "identity-extension-missing",
                "identity-extension-missing",
                "identity-extension-missing",
            ],
        ),
        (
            "called by another repository",
            |n| set(n, 12, Some("https://github.com/evil/os")),
            [
                "identity-foreign-caller",
                "identity-foreign-caller",
                "identity-foreign-caller",
                "identity-mismatch-repository",
                "identity-foreign-caller",
            ],
        ),
        (
            "called by one whose name only begins alike",
            |n| set(n, 12, Some("https://github.com/acme/os2")),
            [
                "identity-foreign-caller",
                "identity-foreign-caller",
                "identity-foreign-caller",
                "identity-mismatch-repository",
                "identity-foreign-caller",
            ],
        ),
        (
            "called by a repository in other case",
            |n| set(n, 12, Some("https://github.com/Acme/os")),
            [
                "identity-foreign-caller",
                "identity-foreign-caller",
                "identity-foreign-caller",
                "identity-mismatch-repository",
                "identity-foreign-caller",
            ],
        ),
        (
            "called by nobody knows whom",
            |n| set(n, 12, None),
            [
                "identity-extension-missing",
                "identity-foreign-caller",
                "identity-foreign-caller",
                "identity-extension-missing",
                "identity-foreign-caller",
            ],
        ),
        (
            "another workflow",
            |n| sign_as(n, EVIL),
            [
                "identity-foreign-workflow",
                "identity-mismatch-subject",
                "identity-mismatch-workflow",
                "identity-mismatch-subject",
                "identity-mismatch-subject",
            ],
        ),
        (
            "another repository",
            |n| {
                sign_as(n, EVIL);
                set(n, 12, Some("https://github.com/evil/os"))
            },
            [
                "identity-mismatch-repository",
                "identity-mismatch-subject",
                "identity-mismatch-workflow",
                "identity-mismatch-repository",
                "identity-mismatch-subject",
            ],
        ),
        (
            "a build signer that is not the name",
            |n| set(n, 9, Some(EVIL)),
            ["identity-inconsistent", "allowed", "identity-mismatch-workflow", "allowed", "allowed"],
        ),
        (
            "no build signer",
            |n| set(n, 9, None),
            ["identity-extension-missing", "allowed", "identity-extension-missing", "allowed", "allowed"],
        ),
        (
            "a pull request",
            |n| {
                sign_as(n, REQUEST);
                set(n, 14, Some("refs/pull/7/merge"))
            },
            [
                "identity-mismatch-ref",
                "identity-mismatch-subject",
                "identity-mismatch-workflow",
                "identity-mismatch-ref",
                "identity-mismatch-subject",
            ],
        ),
        (
            "a pull request under the name of main",
            |n| set(n, 14, Some("refs/pull/7/merge")),
            ["identity-mismatch-ref", "allowed", "allowed", "identity-mismatch-ref", "allowed"],
        ),
        (
            "no branch",
            |n| set(n, 14, None),
            ["identity-extension-missing", "allowed", "allowed", "identity-extension-missing", "allowed"],
        ),
        (
            "the event of a pull request",
            |n| set(n, 20, Some("pull_request_target")),
            ["identity-mismatch-trigger", "allowed", "allowed", "identity-mismatch-trigger", "allowed"],
        ),
        (
            "no event",
            |n| set(n, 20, None),
            ["identity-extension-missing", "allowed", "allowed", "identity-extension-missing", "allowed"],
        ),
        (
            "an old extension that contradicts",
            |n| set(n, 5, Some("evil/os")),
            ["identity-inconsistent", "allowed", "allowed", "allowed", "allowed"],
        ),
        (
            "no name",
            |n| n.san = San::Uris(&[]),
            [
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
            ],
        ),
        (
            "two names",
            |n| n.san = San::Uris(&[WORKFLOW, EVIL]),
            [
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
            ],
        ),
        ("a hundred names", |n| n.san = San::Uris(&[WORKFLOW; 100]), ["identity-malformed"; 5]),
        (
            "our address in another",
            |n| sign_as(n, INSIDE),
            [
                "identity-foreign-workflow",
                "identity-mismatch-subject",
                "identity-mismatch-workflow",
                "identity-mismatch-subject",
                "identity-mismatch-subject",
            ],
        ),
        (
            "a mail address",
            |n| n.san = San::Email("jane@acme.example"),
            [
                "identity-mismatch-subject",
                "identity-mismatch-subject",
                "allowed",
                "identity-mismatch-subject",
                "identity-mismatch-subject",
            ],
        ),
        (
            "two issuers",
            |n| n.extensions.push((1, "https://issuer.example".to_owned())),
            [
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
            ],
        ),
        (
            "a value of 5,000 bytes",
            |n| n.extensions.push((24, "x".repeat(5_000))),
            [
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
                "identity-malformed",
            ],
        ),
    ];
    let mut world = world();
    for (what, change, wanted) in rows {
        let mut names = build(&[], WORKFLOW);
        change(&mut names);
        verdicts(&mut world, what, &names, wanted).await;
    }
}

/// What a certificate says twice, or at too great a length, nobody reads; the storage tells who refuses it.
#[tokio::test]
async fn certificates_that_are_no_certificates_of_fulcio_are_refused() {
    let mut world = world();
    type Change = fn(&mut Names);
    let rows: [(Change, [&str; 3]); 2] = [
        (
            |n| n.extensions.push((12, "https://github.com/acme/os".to_owned())),
            ["signing-certificate-invalid", "signing-certificate-invalid", "identity-malformed"],
        ),
        (
            |n| n.extensions.push((99, "x".repeat(20_000))),
            ["signing-certificate-invalid", "signing-certificate-invalid", "bundle-malformed"],
        ),
    ];
    for (change, wanted) in rows {
        let mut names = build(&[], WORKFLOW);
        change(&mut names);
        for (storage, wanted) in STORAGES.into_iter().zip(wanted) {
            storage.fill(&mut world, &names);
            let server = world.server().await;
            for mode in MODES.into_iter().filter(|mode| mode.counts(storage)) {
                let requirement = mode.requirement(&world, storage.signed_identity());
                assert_eq!(
                    verdict(world.report(&server, &requirement).await),
                    wanted,
                    "{mode:?}, {storage:?}"
                );
            }
        }
    }
}

/// Mistakes 1 and 12; T-16.
#[tokio::test]
async fn no_mode_takes_a_missing_name_for_a_match() {
    let mut world = world();
    Storage::Bundle.fill(&mut world, &build(&[], WORKFLOW));
    let server = world.server().await;
    for mode in [Mode::Repository, Mode::Identity, Mode::Workflow, Mode::Pinned] {
        let is_keyless = matches!(mode, Mode::Repository | Mode::Identity);
        for (identity, wanted) in [
            ("", if is_keyless { "allowed" } else { "identity-not-signed" }),
            (r#""signedIdentity":{"type":"matchRepositoryOrUnnamed"}"#, "allowed"),
            (r#""signedIdentity":{"type":"matchRepository"}"#, "identity-not-signed"),
            (r#""signedIdentity":{"type":"matchExact"}"#, "identity-not-signed"),
            (r#""signedIdentity":{"type":"matchRepoDigestOrExact"}"#, "identity-not-signed"),
            (
                r#""signedIdentity":{"type":"exactRepository","dockerRepository":"acme.example/os"}"#,
                "identity-not-signed",
            ),
        ] {
            let requirement = mode.requirement(&world, identity).replace(",,", ",");
            assert_eq!(verdict(world.report(&server, &requirement).await), wanted, "{mode:?} {identity}");
        }
    }
    // A name that is there must match in every storage, also where none is wanted.
    for storage in STORAGES {
        storage.fill(&mut world, &build(&[], WORKFLOW));
        if matches!(storage, Storage::Bundle) {
            world.bundles.clear();
            let mut named = of_image();
            named["subject"][0]["name"] = json!("acme.example/os");
            world.signed(&named, &build(&[], WORKFLOW));
        }
        let server = world.server().await;
        for mode in MODES.into_iter().filter(|mode| mode.counts(storage)) {
            let requirement =
                mode.requirement(&world, r#""signedIdentity":{"type":"matchRepositoryOrUnnamed"}"#);
            let found = verdict(world.report(&server, &requirement).await);
            assert_eq!(found, "identity-mismatch", "{mode:?}, {storage:?}");
        }
    }
}

/// Mistake 2; design decision 5.
#[tokio::test]
async fn no_mode_takes_an_attestation_for_a_signature() {
    let mut world = world();
    for predicate in [
        "https://slsa.dev/provenance/v1",
        "https://spdx.dev/Document",
        "https://cosign.sigstore.dev/attestation/vuln/v1",
        "https://sigstore.dev/cosign/sign/v2",
    ] {
        let mut attestation = of_image();
        attestation["predicateType"] = json!(predicate);
        world.bundles.clear();
        world.signed(&attestation, &build(&[], WORKFLOW));
        let server = world.server().await;
        for mode in MODES {
            let requirement = mode.requirement(&world, Storage::Bundle.signed_identity());
            let wanted = if mode.counts(Storage::Bundle) { "not-a-signature" } else { "unsigned" };
            assert_eq!(verdict(world.report(&server, &requirement).await), wanted, "{mode:?} {predicate}");
        }
    }
}

/// Mistake 3; design decision 6, T-14: expired certificates with times of the signer's own choice.
#[tokio::test]
async fn no_mode_believes_a_time_that_nobody_proves() {
    let payload = of_image().to_string().into_bytes();
    let content = Content::Dsse { payload_type: IN_TOTO, payload: &payload };
    let mut world = world();
    let identity = world.sigstore.identity(&build(&[], WORKFLOW));
    let who = Who::Identity(&identity);
    let good = world.sigstore.sign(&content, who);
    let without = |part: &str| {
        let mut bundle = good.clone();
        bundle["verificationMaterial"]["tlogEntries"][0][part] = json!(null);
        bundle
    };
    let mut forged = good.clone();
    forged["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = json!((SIGNED_AT + 1).to_string());
    let mut unproven_time = without("inclusionPromise");
    unproven_time["verificationMaterial"]["tlogEntries"][0]["inclusionProof"] = json!(null);
    for (what, bundle, wanted) in [
        ("as it is", good.clone(), "allowed"),
        ("nothing but the certificate", unproven(&content, who), "log-entry-missing"),
        ("another time than is promised", forged, "log-entry-invalid"),
        ("a time, and no promise of it", without("inclusionPromise"), "timestamp-missing"),
        ("a time, and no proof at all", unproven_time, "log-entry-invalid"),
    ] {
        world.bundles = vec![bundle];
        let server = world.server().await;
        for mode in [Mode::Repository, Mode::Identity, Mode::Workflow, Mode::Pinned] {
            let requirement = mode.requirement(&world, Storage::Bundle.signed_identity());
            assert_eq!(verdict(world.report(&server, &requirement).await), wanted, "{what}: {mode:?}");
        }
    }
    world.bundles.clear();
    for refers in [false, true] {
        for (what, from, to, rooted, own) in [
            ("as it is", "", "", "allowed", "allowed"),
            (
                "another time",
                r#""integratedTime":1"#,
                r#""integratedTime":2"#,
                "log-entry-invalid",
                "log-entry-invalid",
            ),
            ("no entry", "{", "", "log-entry-missing", "log-entry-missing"),
        ] {
            world.layers.clear();
            world.refers = refers;
            world.attach("acme.example/os:1", &build(&[], WORKFLOW), |_, annotations| {
                let name = "dev.sigstore.cosign/bundle";
                let changed = annotations[name].as_str().unwrap().replacen(from, to, 1);
                match what {
                    "no entry" => drop(annotations.as_object_mut().unwrap().remove(name)),
                    _ => annotations[name] = json!(changed),
                }
            });
            let server = world.server().await;
            for mode in MODES {
                let requirement = mode.requirement(&world, Storage::Tag.signed_identity());
                let found = verdict(world.report(&server, &requirement).await);
                let wanted = match mode {
                    Mode::Own if refers => "unsigned",
                    Mode::Own => own,
                    Mode::Identity | Mode::Pinned | Mode::Repository | Mode::Workflow => rooted,
                };
                assert_eq!(found, wanted, "{what}: {mode:?}, {refers}");
            }
        }
    }
}

/// Mistakes 4 and 5; design decision 3.4.
#[tokio::test]
async fn no_storage_hides_another() {
    let mut world = world();
    let (right, wrong) = (build(&[], WORKFLOW), build(&[(12, "https://github.com/evil/os")], WORKFLOW));
    let identity = Storage::Tag.signed_identity();
    // Something else refers to the image, and the tag has the signature; for every mode.
    world.signed(&of_image(), &wrong).attach("acme.example/os:1", &right, |_, _| {});
    let server = world.server().await;
    for mode in MODES {
        let requirement = mode.requirement(&world, identity);
        assert_eq!(verdict(world.report(&server, &requirement).await), "allowed", "{mode:?}");
    }
    // The tag has something else, and a bundle refers to the image.
    let unnamed = Storage::Bundle.signed_identity();
    world.bundles.clear();
    world.layers.clear();
    world.signed(&of_image(), &right).attach("acme.example/os:1", &wrong, |_, _| {});
    let server = world.server().await;
    for mode in [Mode::Repository, Mode::Identity, Mode::Workflow, Mode::Pinned] {
        let requirement = mode.requirement(&world, unnamed);
        assert_eq!(verdict(world.report(&server, &requirement).await), "allowed", "{mode:?}");
    }
    // Lists of old registries, which give the type of the configuration or none.
    for kind in [json!("application/vnd.oci.empty.v1+json"), json!(""), json!(null)] {
        world.listed_as = Some(kind.clone());
        let server = world.server().await;
        let requirement = Mode::Repository.requirement(&world, unnamed);
        assert_eq!(verdict(world.report(&server, &requirement).await), "allowed", "{kind}");
    }
}

/// Mistake 7.
#[tokio::test]
async fn both_an_address_and_a_workflow_must_match() {
    let mut world = world();
    let (authority, log) = world.sigstore.authority_and_log();
    let (authority, log) = (STANDARD.encode(authority), STANDARD.encode(log));
    for (address, workflow, wanted) in [
        ("bot@acme.example", WORKFLOW, "allowed"),
        ("bot@evil.example", WORKFLOW, "identity-mismatch-subject"),
        ("bot@acme.example", "https://github.com/evil/os", "identity-mismatch-workflow"),
    ] {
        let members = format!(
            r#""oidcIssuer":"{ISSUER}","subjectEmail":"bot@acme.example","buildSignerURI":"{WORKFLOW}","sourceRepositoryURI":"https://github.com/acme/os""#
        );
        let mut names = build(&[(9, workflow)], WORKFLOW);
        names.san = San::Email(address);
        for storage in STORAGES {
            storage.fill(&mut world, &names);
            let server = world.server().await;
            let identity = storage.signed_identity();
            let rooted = world.keyless(&format!(r#""fulcio":{{{members}}},{identity}"#));
            assert_eq!(
                verdict(world.report(&server, &rooted).await),
                wanted,
                "{address} {workflow} {storage:?}"
            );
            let own = format!(
                r#"{{"type":"sigstoreSigned","fulcio":{{"caData":"{authority}",{members}}},"rekorPublicKeyData":"{log}",{identity}}}"#
            );
            let wanted = if Mode::Own.counts(storage) { wanted } else { "unsigned" };
            assert_eq!(
                verdict(world.report(&server, &own).await),
                wanted,
                "{address} {workflow} {storage:?}"
            );
        }
    }
}

/// Mistake 10; T-18: the same engine, asked again after something has changed.
#[tokio::test]
async fn an_answer_is_never_older_than_policy_and_trust() {
    let mut world = world();
    Storage::Bundle.fill(&mut world, &build(&[], WORKFLOW));
    let server = world.server().await;
    let keyless = world.keyless(OURS);
    let ask = async |requirement: &str| verdict(world.report(&server, requirement).await);
    assert_eq!(ask(&keyless).await, "allowed");
    assert_eq!(ask(r#"{"type":"reject"}"#).await, "rejected-by-policy");
    let narrower = world.keyless(&OURS.replace(r#""subject""#, r#""refs":["refs/tags/*"],"subject""#));
    assert_eq!(ask(&narrower).await, "identity-mismatch-ref");
    assert_eq!(ask(&keyless).await, "allowed");
    // The same file, with the keys of somebody else.
    let stranger = crate::signer::Sigstore::new().trusted_root().to_string();
    write(world.rig.dir.path().join("root.json"), stranger);
    assert_eq!(ask(&keyless).await, "log-entry-invalid");
    world.keyless(OURS);
    assert_eq!(ask(&keyless).await, "allowed");
}

/// Mistake 13, as far as verdicts go.
#[tokio::test]
async fn trust_that_cannot_be_read_refuses() {
    let mut world = world();
    let good = world.sigstore.trusted_root().to_string();
    let deep = format!(r#"{{"x":{}{},{}"#, "[".repeat(65), "]".repeat(65), &good[1..]);
    let (_, key) = world.sigstore.authority_and_log();
    for storage in STORAGES {
        storage.fill(&mut world, &build(&[], WORKFLOW));
        let server = world.server().await;
        for (what, text) in [
            ("nothing", ""),
            ("null", "null"),
            ("another format", &key),
            ("cut off", &good[..good.len() - 1]),
            ("more than one", &format!("{good}{good}")),
            ("deep", &deep),
            ("an unknown version", &good.replacen("version=0.1", "version=0.9", 1)),
        ] {
            for mode in [Mode::Repository, Mode::Identity, Mode::Workflow, Mode::Pinned] {
                let requirement = mode.requirement(&world, storage.signed_identity());
                write(world.rig.dir.path().join("root.json"), text);
                let found = verdict(world.report(&server, &requirement).await);
                assert_eq!(found, "trusted-root-invalid", "{what}: {mode:?}, {storage:?}");
            }
        }
        std::fs::remove_file(world.rig.dir.path().join("root.json")).unwrap();
        let requirement = format!(
            r#"{{"type":"sigstoreSigned",{OURS},"trustedRootPath":"{}"}}"#,
            world.rig.dir.path().join("root.json").display()
        );
        assert_eq!(
            verdict(world.report(&server, &requirement).await),
            "? key-file-unreadable",
            "{storage:?}"
        );
    }
    let mut world = self::world();
    Storage::Tag.fill(&mut world, &build(&[], WORKFLOW));
    let server = world.server().await;
    let right = Mode::Own.requirement(&world, Storage::Tag.signed_identity());
    let (authority, log) = world.sigstore.authority_and_log();
    for (what, of, wanted) in [("authority", authority, "key-file-invalid"), ("log", log, "key-file-invalid")]
    {
        let broken = right.replace(&STANDARD.encode(of), &STANDARD.encode("nothing"));
        assert_ne!(broken, right);
        assert_eq!(verdict(world.report(&server, &broken).await), wanted, "{what}");
    }
}
