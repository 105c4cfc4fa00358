//! `vouchd verify` with cosign's flags in place of a policy: the whole program against a registry, for signatures of
//! cosign 2 (attachments) and of cosign 3 (bundles). registries.d keeps attachments off in all of them.

use std::path::PathBuf;
use std::process::Command;

use rcgen::KeyPair;
use serde_json::{Value, json};

use vouchd::digest::Digest;
use vouchd::manifest::OCI_INDEX;

use crate::cosign3::{Api, BUNDLE, IMAGE, ISSUER, WORKFLOW, World, build, of_image};
use crate::server::{OCI, Server};
use crate::signer::{Content, IN_TOTO, Names, San, Sigstore, Who, bundle, signature_of, statement};
use crate::support::{Ran, cosign, vouchd, write};

const NAME: &str = "acme.example/os";

/// Where a signature is, and what it is.
#[derive(Clone, Copy, Debug)]
enum Generation {
    Attachment,
    Bundle,
}

const GENERATIONS: [Generation; 2] = [Generation::Attachment, Generation::Bundle];

/// A registry that runs, and a host on which no policy can be used.
struct Host {
    world: World,
    server: Server,
    key: KeyPair,
}

impl Host {
    async fn new(fill: impl FnOnce(&mut World, &KeyPair)) -> Self {
        let (mut world, key) = (World::new(), KeyPair::generate().unwrap());
        world.api = Api::Present;
        fill(&mut world, &key);
        let server = world.server().await;
        let host = Self { world, server, key };
        write(host.path("key.pem"), host.key.public_key_pem());
        write(host.path("other.pem"), KeyPair::generate().unwrap().public_key_pem());
        write(host.path("root.json"), host.world.sigstore.trusted_root().to_string());
        write(host.path("none.json"), "{}");
        write(
            host.path("registries.d/all.yaml"),
            format!(
                "default-docker:\n  lookaside: file://{}\n  use-sigstore-attachments: false\n",
                host.path("stores").display()
            ),
        );
        // What is signed has a name that was known before the server ran.
        let location = host.server.image().name().to_owned();
        write(
            host.path("registries.conf"),
            format!("[[registry]]\nprefix = \"{NAME}\"\nlocation = \"{location}\"\n"),
        );
        host
    }

    /// A registry with one signature by the holder of such a certificate.
    async fn certified(generation: Generation, names: &Names) -> Self {
        Self::new(|world, _| certify(world, generation, names, &[])).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.rig.dir.path().join(name)
    }

    /// Runs the program; names of files of the host stand for their paths.
    async fn run(&self, arguments: &[&str]) -> Ran {
        let files = ["key.pem", "other.pem", "root.json", "stranger.json", "none.json", "absent"];
        let whole = |text: &&str| {
            if files.contains(text) { self.path(text).display().to_string() } else { (*text).to_owned() }
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_vouchd"));
        command
            .arg("verify")
            .args(arguments.iter().map(whole))
            .args(["--user-config", "--timeout", "30s"])
            .arg("--registries-d")
            .arg(self.path("registries.d"))
            .arg("--registries-conf")
            .arg(self.path("registries.conf"))
            .arg("--cert-dir")
            .arg(self.world.rig.certs())
            .arg(format!("docker://{NAME}:1"))
            .env_clear()
            .env("HOME", "/nonexistent")
            // Without flags it is an error that this file is not there.
            .env("CONTAINERS_POLICY_JSON", self.path("policy.json"));
        let ran = tokio::task::spawn_blocking(move || Ran::from(command.output().unwrap())).await.unwrap();
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
        ran
    }

    /// The code of the answer to these flags.
    async fn code(&self, flags: &[&str]) -> String {
        let ran = self.run(&[flags, &["--json"]].concat()).await;
        let (exit, code) = ran.code();
        assert_eq!(exit == 0, code == "allowed", "{ran:?}");
        code
    }
}

/// Signs with a certificate and, perhaps, annotations.
fn certify(world: &mut World, generation: Generation, names: &Names, annotations: &[(&str, Value)]) {
    match generation {
        Generation::Attachment => {
            let payload = payload(NAME, annotations);
            let identity = world.sigstore.identity(names);
            let layer = json!(world.sigstore.attach(&payload, &identity));
            world.layers.push((payload, layer));
        }
        Generation::Bundle => {
            world.signed(&with_annotations(of_image(), annotations), names);
        }
    }
}

/// Signs with a key and, perhaps, annotations.
fn sign(world: &mut World, generation: Generation, key: &KeyPair, annotations: &[(&str, Value)]) {
    match generation {
        Generation::Attachment => attach(world, key, payload(NAME, annotations)),
        Generation::Bundle => {
            let payload = with_annotations(of_image(), annotations).to_string().into_bytes();
            push(world, key, &payload);
        }
    }
}

fn attach(world: &mut World, key: &KeyPair, payload: Vec<u8>) {
    let signature = signature_of(&bundle(&Content::Message(&payload), Who::Key(key)));
    let signature = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature);
    world.layers.push((payload, json!({"dev.cosignproject.cosign/signature": signature})));
}

fn push(world: &mut World, key: &KeyPair, payload: &[u8]) {
    world.bundles.push(bundle(&Content::Dsse { payload_type: IN_TOTO, payload }, Who::Key(key)));
}

/// As cosign 2 writes annotations.
fn payload(name: &str, annotations: &[(&str, Value)]) -> Vec<u8> {
    let text = cosign(name, &Digest::sha256(IMAGE).to_string());
    let mut payload: Value = serde_json::from_slice(&text).unwrap();
    for (name, value) in annotations {
        payload["optional"][*name] = value.clone();
    }
    payload.to_string().into_bytes()
}

/// As cosign 3 does, from 3.0.3 on.
fn with_annotations(mut statement: Value, annotations: &[(&str, Value)]) -> Value {
    for (name, value) in annotations {
        statement["subject"][0]["annotations"][*name] = value.clone();
    }
    statement
}

/// A build on GitHub that says everything that the flags ask about.
fn github(changes: &[(u64, &str)], san: &'static str) -> Names {
    let mut names = build(changes, san);
    for (number, value) in [
        (2, "push"),
        (3, "0123456789012345678901234567890123456789"),
        (4, "Build"),
        (5, "acme/os"),
        (6, "refs/heads/main"),
    ] {
        let changed = changes.iter().find(|(changed, _)| *changed == number);
        names.extensions.push((number, changed.map_or(value, |(_, value)| value).to_owned()));
    }
    names.extensions.retain(|(_, value)| !value.is_empty());
    names
}

/// The usual flags, with more of them.
fn exact<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["--certificate-identity", WORKFLOW, "--certificate-oidc-issuer", ISSUER];
    [&usual[..], &["--trusted-root", "root.json"], more].concat()
}

fn matching<'a>(identity: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["--certificate-identity-regexp", identity, "--certificate-oidc-issuer", ISSUER];
    [&usual[..], &["--trusted-root", "root.json"], more].concat()
}

#[tokio::test]
async fn a_key_on_the_command_line_is_a_policy() {
    for generation in GENERATIONS {
        let host = Host::new(|world, key| sign(world, generation, key, &[])).await;
        let ran = host.run(&["--key", "key.pem", "--json", "--require-signature"]).await;
        assert_eq!(ran.exit, 0, "{ran:?}");
        let report = ran.json();
        let digest = Digest::sha256(IMAGE).to_string();
        for (key, wanted) in [
            ("route", json!("direct")),
            ("authenticated", json!(true)),
            ("manifest-digest", json!(digest)),
            ("pinned-reference", json!(format!("docker://{NAME}@{digest}"))),
            ("pinned-reference-accepted", json!(true)),
            // There is no file, and no other tool has this policy.
            ("policy", Value::Null),
            ("scope", Value::Null),
            ("would-accept", Value::Null),
            ("warnings", json!([])),
        ] {
            assert_eq!(report[key], wanted, "{key}: {report}");
        }
        let bound = matches!(generation, Generation::Attachment);
        assert_eq!(report["requirements"][0]["signatures"][0]["reference-bound"], bound);
        let ran = host.run(&["--key", "key.pem"]).await;
        assert!(ran.stdout.contains("\n  policy    the options of this command\n"), "{ran:?}");
        let ran = host.run(&["--key", "key.pem", "--print-pinned"]).await;
        assert_eq!(ran.stdout, format!("docker://{NAME}@{digest}\n"));
        let wrong = match generation {
            Generation::Attachment => ("bad-signature", "signing-certificate-missing"),
            Generation::Bundle => ("bundle-signature", "bundle-signer"),
        };
        assert_eq!(host.code(&["--key", "other.pem"]).await, wrong.0);
        assert_eq!(host.code(&exact(&[])).await, wrong.1);
        assert_eq!(host.code(&["--key", "none.json"]).await, "key-file-invalid");
        let ran = host.run(&["--key", "absent", "--json"]).await;
        assert_eq!(ran.code(), (4, "key-file-unreadable".to_owned()));
    }
}

/// cosign compares the digest alone; here a name that was signed must be that of the repository (T-16).
#[tokio::test]
async fn a_signature_for_another_repository_does_not_count() {
    let host = Host::new(|world, key| attach(world, key, payload("acme.example/other", &[]))).await;
    assert_eq!(host.code(&["--key", "key.pem"]).await, "identity-mismatch");
    let host = Host::new(|world, key| attach(world, key, payload("acme.example/os:7", &[]))).await;
    assert_eq!(host.code(&["--key", "key.pem"]).await, "allowed");
    let host = Host::new(|world, key| {
        let mut statement = of_image();
        statement["subject"][0]["name"] = json!("acme.example/other");
        push(world, key, statement.to_string().as_bytes());
    })
    .await;
    assert_eq!(host.code(&["--key", "key.pem"]).await, "identity-mismatch");
}

/// Every flag about certificates, with what it must refuse.
#[tokio::test]
async fn certificates_are_held_against_every_flag() {
    const REGEXP: &str = r"https://github\.com/acme/os/\.github/workflows/build\.yml@refs/heads/.*";
    let sha = "0123456789012345678901234567890123456789";
    let flag = |name: &'static str, value: &'static str| exact(&[name, value]);
    let rows = [
        (exact(&[]), "allowed"),
        (matching(REGEXP, &[]), "allowed"),
        // Anchored, whatever is written; and an alternative does not escape.
        (matching("github.com/acme", &[]), "identity-mismatch-subject"),
        (matching("https://github.com/acme", &[]), "identity-mismatch-subject"),
        (matching("/.github/workflows/build.yml@refs/heads/main$", &[]), "identity-mismatch-subject"),
        (matching("https://github.com/acme/os/|x", &[]), "identity-mismatch-subject"),
        (matching("(?i)HTTPS://GITHUB.COM/ACME/OS/.*", &[]), "allowed"),
        // An expression means names only.
        (matching("https://github.com/acme/os", &[]), "identity-mismatch-subject"),
        (
            vec![
                "--certificate-identity",
                WORKFLOW,
                "--certificate-oidc-issuer",
                "https://gitlab.com",
                "--trusted-root",
                "root.json",
            ],
            "identity-mismatch-issuer",
        ),
        (
            vec![
                "--certificate-identity",
                WORKFLOW,
                "--certificate-oidc-issuer-regexp",
                r"https://(token\.actions\.githubusercontent|gitlab)\.com",
                "--trusted-root",
                "root.json",
            ],
            "allowed",
        ),
        (
            vec![
                "--certificate-identity",
                WORKFLOW,
                "--certificate-oidc-issuer-regexp",
                "https://token",
                "--trusted-root",
                "root.json",
            ],
            "identity-mismatch-issuer",
        ),
        (flag("--certificate-github-workflow-trigger", "push"), "allowed"),
        (flag("--certificate-github-workflow-trigger", "release"), "identity-mismatch-trigger"),
        (flag("--certificate-github-workflow-trigger", "pus"), "identity-mismatch-trigger"),
        (exact(&["--certificate-github-workflow-sha", sha]), "allowed"),
        (flag("--certificate-github-workflow-sha", "0123456"), "identity-mismatch-commit"),
        (flag("--certificate-github-workflow-name", "Build"), "allowed"),
        (flag("--certificate-github-workflow-name", "build"), "identity-mismatch-workflow"),
        (flag("--certificate-github-workflow-repository", "acme/os"), "allowed"),
        (flag("--certificate-github-workflow-repository", "acme/o"), "identity-mismatch-repository"),
        (
            flag("--certificate-github-workflow-repository", "https://github.com/acme/os"),
            "identity-mismatch-repository",
        ),
        (flag("--certificate-github-workflow-ref", "refs/heads/main"), "allowed"),
        (flag("--certificate-github-workflow-ref", "main"), "identity-mismatch-ref"),
    ];
    for generation in GENERATIONS {
        let host = Host::certified(generation, &github(&[], WORKFLOW)).await;
        for (flags, wanted) in &rows {
            assert_eq!(host.code(flags).await, *wanted, "{generation:?} {flags:?}");
        }
        let wanted = match generation {
            Generation::Attachment => "bad-signature",
            Generation::Bundle => "bundle-signer",
        };
        assert_eq!(host.code(&["--key", "key.pem"]).await, wanted);
    }
}

/// T-13: what a certificate does not say never matches, and what it says of a pull request is compared like all else.
#[tokio::test]
async fn certificates_that_say_less_or_otherwise_are_refused() {
    for (number, flag, value) in [
        (2, "--certificate-github-workflow-trigger", "push"),
        (3, "--certificate-github-workflow-sha", "0123456789012345678901234567890123456789"),
        (4, "--certificate-github-workflow-name", "Build"),
        (5, "--certificate-github-workflow-repository", "acme/os"),
        (6, "--certificate-github-workflow-ref", "refs/heads/main"),
    ] {
        let host = Host::certified(Generation::Bundle, &github(&[(number, "")], WORKFLOW)).await;
        assert_eq!(host.code(&exact(&[flag, value])).await, "identity-extension-missing", "{flag}");
        assert_eq!(host.code(&exact(&[])).await, "allowed", "{flag}");
    }
    let request = "https://github.com/acme/os/.github/workflows/build.yml@refs/pull/1/merge";
    let names = github(&[(2, "pull_request"), (6, "refs/pull/1/merge")], request);
    let host = Host::certified(Generation::Bundle, &names).await;
    let any = r"https://github\.com/acme/os/.*";
    for (flags, wanted) in [
        (exact(&[]), "identity-mismatch-subject"),
        (matching(r"https://github\.com/acme/os/.*@refs/(heads|tags)/.*", &[]), "identity-mismatch-subject"),
        (matching(any, &["--certificate-github-workflow-ref", "refs/heads/main"]), "identity-mismatch-ref"),
        (matching(any, &["--certificate-github-workflow-trigger", "push"]), "identity-mismatch-trigger"),
    ] {
        assert_eq!(host.code(&flags).await, wanted, "{flags:?}");
    }
}

/// The address of a repository means what it means in a policy (T-12, T-13).
#[tokio::test]
async fn a_repository_stands_for_its_builds() {
    let of = |repository: &'static str, issuer: &'static str, more: &[&'static str]| {
        let mut flags = vec!["--certificate-identity", repository, "--certificate-oidc-issuer", issuer];
        flags.extend_from_slice(more);
        flags.extend(["--trusted-root", "root.json"]);
        flags
    };
    let ours = |more: &[&'static str]| of("https://github.com/acme/os", ISSUER, more);
    let request = ["--certificate-github-workflow-ref", "refs/pull/1/merge"];
    let event = ["--certificate-github-workflow-trigger", "pull_request"];
    let reusable = "https://github.com/acme/shared/.github/workflows/build.yml@refs/heads/main";
    let pulled =
        [(14, "refs/pull/1/merge"), (6, "refs/pull/1/merge"), (2, "pull_request"), (20, "pull_request")];
    for (changes, san, flags, wanted) in [
        (&[][..], WORKFLOW, ours(&[]), "allowed"),
        (&[], WORKFLOW, of("https://github.com/acme/o", ISSUER, &[]), "identity-mismatch-repository"),
        (&[], WORKFLOW, of("https://github.com/acme", ISSUER, &[]), "identity-mismatch-subject"),
        (&[], WORKFLOW, of("https://github.com/acme/os/", ISSUER, &[]), "identity-mismatch-subject"),
        (
            &[],
            WORKFLOW,
            of("https://github.com/acme/os", "https://gitlab.com", &[]),
            "identity-mismatch-issuer",
        ),
        (&[], WORKFLOW, ours(&["--certificate-github-workflow-ref", "refs/heads/main"]), "allowed"),
        (
            &[],
            WORKFLOW,
            ours(&["--certificate-github-workflow-ref", "refs/heads/*"]),
            "identity-mismatch-ref",
        ),
        (&[], WORKFLOW, ours(&event), "identity-mismatch-trigger"),
        (
            &[(12, "https://github.com/evil/os"), (5, "evil/os")],
            WORKFLOW,
            ours(&[]),
            "identity-foreign-caller",
        ),
        (&[], reusable, ours(&[]), "identity-foreign-workflow"),
        (&pulled, WORKFLOW, ours(&[]), "identity-mismatch-ref"),
        (&pulled, WORKFLOW, ours(&request), "identity-mismatch-trigger"),
        (&pulled, WORKFLOW, ours(&event), "identity-mismatch-ref"),
        (&pulled, WORKFLOW, ours(&[request, event].concat()), "allowed"),
    ] {
        let host = Host::certified(Generation::Bundle, &github(changes, san)).await;
        assert_eq!(host.code(&flags).await, wanted, "{changes:?} {flags:?}");
    }
}

/// T-12: a reusable workflow signs for strangers under its own name, however that name is matched.
#[tokio::test]
async fn a_stranger_who_calls_our_workflow_is_refused() {
    let theirs = [(5, "evil/os"), (12, "https://github.com/evil/os")];
    let repository = |value: &'static str| ["--certificate-github-workflow-repository", value];
    let any = r"https://github\.com/acme/.*";
    let by_issuer = |issuer: &'static str| {
        vec![
            "--certificate-identity",
            WORKFLOW,
            "--certificate-oidc-issuer-regexp",
            issuer,
            "--trusted-root",
            "root.json",
        ]
    };
    for generation in GENERATIONS {
        let host = Host::certified(generation, &github(&theirs, WORKFLOW)).await;
        for (flags, wanted) in [
            (exact(&[]), "identity-foreign-caller"),
            (matching(any, &[]), "identity-foreign-caller"),
            (by_issuer("https://.*"), "identity-foreign-caller"),
            // A branch, an event, a commit and a name are anybody's.
            (exact(&["--certificate-github-workflow-ref", "refs/heads/main"]), "identity-foreign-caller"),
            (exact(&["--certificate-github-workflow-name", "Build"]), "identity-foreign-caller"),
            (exact(&["--certificate-github-workflow-trigger", "push"]), "identity-foreign-caller"),
            (exact(&repository("acme/os")), "identity-mismatch-repository"),
            // Whoever names the caller means it.
            (exact(&repository("evil/os")), "allowed"),
        ] {
            assert_eq!(host.code(&flags).await, wanted, "{generation:?} {flags:?}");
        }
    }
    let enterprise = "https://token.actions.githubusercontent.com/acme";
    let elsewhere = "https://token.github.acme.example";
    for (what, changes, flags, wanted) in [
        (
            "two repositories",
            vec![(5, "acme/os"), (12, "https://github.com/evil/os")],
            exact(&repository("acme/os")),
            "identity-inconsistent",
        ),
        (
            "two hosts",
            vec![(12, "https://github.evil.example/acme/os")],
            exact(&repository("acme/os")),
            "identity-inconsistent",
        ),
        ("nothing but .5", vec![(5, "evil/os"), (12, "")], exact(&[]), "identity-foreign-caller"),
        ("nothing but our .5", vec![(12, "")], exact(&[]), "allowed"),
        ("nothing but .5, named", vec![(5, "evil/os"), (12, "")], exact(&repository("evil/os")), "allowed"),
        ("nothing at all", vec![(5, ""), (12, "")], exact(&[]), "identity-foreign-caller"),
        (
            "an enterprise",
            vec![(1, enterprise), (8, enterprise), (5, "evil/os"), (12, "https://github.com/evil/os")],
            by_issuer("https://token.actions.githubusercontent.com/.*"),
            "identity-foreign-caller",
        ),
        // Of an issuer that nobody knows, .5 is no repository of GitHub, but one on the host of the workflow.
        (
            "another issuer, and nothing but .5",
            vec![(1, elsewhere), (8, elsewhere), (5, "evil/os"), (12, "")],
            by_issuer(elsewhere),
            "identity-foreign-caller",
        ),
        (
            "another issuer, and nothing but our .5",
            vec![(1, elsewhere), (8, elsewhere), (5, "acme/os"), (12, "")],
            by_issuer(elsewhere),
            "allowed",
        ),
        (
            "another issuer",
            vec![(1, elsewhere), (8, elsewhere), (5, "acme/os"), (12, "https://github.evil.example/acme/os")],
            [by_issuer(elsewhere), repository("acme/os").to_vec()].concat(),
            "identity-foreign-caller",
        ),
    ] {
        let host = Host::certified(Generation::Bundle, &github(&changes, WORKFLOW)).await;
        assert_eq!(host.code(&flags).await, wanted, "{what}");
    }
}

/// A regular expression is for addresses of people as for those of workflows.
#[tokio::test]
async fn people_are_matched_too() {
    let names = |san| Names { san, ..Names::default() };
    let issuer = "https://issuer.example";
    let flags = |flag: &'static str, value: &'static str| {
        ["--certificate-oidc-issuer", issuer, "--trusted-root", "root.json", flag, value]
    };
    for generation in GENERATIONS {
        let host = Host::certified(generation, &names(San::Email("jane@acme.example"))).await;
        for (flags, wanted) in [
            (flags("--certificate-identity", "jane@acme.example"), "allowed"),
            (flags("--certificate-identity", "Jane@acme.example"), "identity-mismatch-subject"),
            (flags("--certificate-identity-regexp", r".*@acme\.example"), "allowed"),
            (flags("--certificate-identity-regexp", "acme.example"), "identity-mismatch-subject"),
            (flags("--certificate-identity-regexp", r"jane@acme"), "identity-mismatch-subject"),
        ] {
            assert_eq!(host.code(&flags).await, wanted, "{generation:?} {flags:?}");
        }
    }
    // github.com/o must not stand for https://github.com/o-evil/...
    let evil = "https://github.com/acme-evil/os/.github/workflows/build.yml@refs/heads/main";
    let host = Host::certified(
        Generation::Bundle,
        &github(&[(5, "acme-evil/os"), (12, "https://github.com/acme-evil/os")], evil),
    )
    .await;
    for (identity, wanted) in [
        ("github.com/acme", "identity-mismatch-subject"),
        ("^https://github.com/acme", "identity-mismatch-subject"),
        ("https://github.com/acme/.*", "identity-mismatch-subject"),
        ("https://github.com/acme-evil/.*", "allowed"),
    ] {
        assert_eq!(host.code(&matching(identity, &[])).await, wanted, "{identity}");
    }
}

/// Certificates count by the trusted root that is named, or by Sigstore's own (T-15).
#[tokio::test]
async fn only_the_trusted_root_that_is_named_counts() {
    let host = Host::certified(Generation::Bundle, &github(&[], WORKFLOW)).await;
    write(host.path("stranger.json"), Sigstore::new().trusted_root().to_string());
    let flags = |root: &[&'static str]| {
        [&["--certificate-identity", WORKFLOW, "--certificate-oidc-issuer", ISSUER], root].concat()
    };
    for (root, wanted) in [
        (vec!["--trusted-root", "root.json"], "allowed"),
        (vec!["--trusted-root", "stranger.json"], "log-entry-invalid"),
        (vec![], "log-entry-invalid"),
        (vec!["--trusted-root", "none.json"], "trusted-root-invalid"),
        (vec!["--trusted-root", "absent"], "key-file-unreadable"),
    ] {
        assert_eq!(host.code(&flags(&root)).await, wanted, "{root:?}");
    }
}

/// What cosign signs for `-a`: members of `optional`, or annotations of the subject.
#[tokio::test]
async fn annotations_must_be_in_what_was_signed() {
    let signed = [("env", json!("prod")), ("n", json!(1)), ("empty", json!("")), ("eq", json!("a=b,c"))];
    let rows: [(&[&str], &str); 13] = [
        (&[], "allowed"),
        (&["-a", "env=prod"], "allowed"),
        (&["--annotations", "env=prod", "-a", "empty="], "allowed"),
        (&["-a", "eq=a=b,c"], "allowed"),
        (&["-a", "env=dev"], "signed-annotation-mismatch"),
        (&["-a", "env=prod", "-a", "team=a"], "signed-annotation-mismatch"),
        (&["-a", "env="], "signed-annotation-mismatch"),
        (&["-a", "Env=prod"], "signed-annotation-mismatch"),
        (&["-a", "absent="], "signed-annotation-mismatch"),
        (&["-a", "n=1"], "signed-annotation-mismatch"),
        (&["-a", "env=prod,empty="], "signed-annotation-mismatch"),
        // What anybody can write beside the signature does not count.
        (&["-a", "dev.sigstore.cosign/bundle="], "signed-annotation-mismatch"),
        (&["-a", "org.opencontainers.image.created=x"], "signed-annotation-mismatch"),
    ];
    for generation in GENERATIONS {
        let by_key = Host::new(|world, key| sign(world, generation, key, &signed)).await;
        let certified =
            Host::new(|world, _| certify(world, generation, &github(&[], WORKFLOW), &signed)).await;
        for (flags, wanted) in rows {
            let key = [&["--key", "key.pem"], flags].concat();
            assert_eq!(by_key.code(&key).await, wanted, "{generation:?} {flags:?}");
        }
        for (flags, wanted) in rows.into_iter().filter(|(flags, _)| flags.len() == 4) {
            assert_eq!(certified.code(&exact(flags)).await, wanted, "{generation:?} {flags:?}");
        }
        let ran = by_key.run(&["--key", "key.pem", "-a", "env=dev"]).await;
        let wanted = r#"the signature has the annotation "env" with the value "prod", and "dev" is wanted"#;
        assert!(ran.exit == 1 && ran.stdout.contains(wanted), "{ran:?}");
        let plain = Host::new(|world, key| sign(world, generation, key, &[])).await;
        assert_eq!(
            plain.code(&["--key", "key.pem", "-a", "env=prod"]).await,
            "signed-annotation-mismatch",
            "{generation:?}"
        );
    }
    // Several subjects with the digest: none may say otherwise.
    let two = |second: Value| {
        let mut statement = with_annotations(of_image(), &[("env", json!("prod"))]);
        let mut other = of_image()["subject"][0].clone();
        other["annotations"] = second;
        statement["subject"].as_array_mut().unwrap().push(other);
        statement.to_string().into_bytes()
    };
    for (second, wanted) in [
        (json!({"env": "prod", "x": "y"}), "allowed"),
        (json!({"env": "dev"}), "signed-annotation-mismatch"),
        (json!({}), "signed-annotation-mismatch"),
    ] {
        let host = Host::new(|world, key| push(world, key, &two(second.clone()))).await;
        assert_eq!(host.code(&["--key", "key.pem", "-a", "env=prod"]).await, wanted, "{second}");
    }
    // A signature that does not say it hides no other that does.
    let host = Host::new(|world, key| {
        sign(world, Generation::Attachment, key, &[]);
        sign(world, Generation::Bundle, key, &signed);
    })
    .await;
    assert_eq!(host.code(&["--key", "key.pem", "-a", "env=prod"]).await, "allowed");
}

/// Nothing is said of podman, which would judge an index with one signature by a policy that was not read.
#[test]
fn an_index_in_a_layout_is_judged_too() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let key_file = write(dir.path().join("key.pem"), key.public_key_pem()).display().to_string();
    let layout = dir.path().join("layout");
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        write(layout.join("blobs/sha256").join(digest.hex()), bytes);
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let mut instance = blob(OCI, IMAGE);
    instance["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [instance]}).to_string();
    let payload = statement(&Digest::sha256(index.as_bytes())).to_string();
    let signed = Content::Dsse { payload_type: IN_TOTO, payload: payload.as_bytes() };
    let signature = bundle(&signed, Who::Key(&key)).to_string();
    let mut tagged = blob(OCI_INDEX, index.as_bytes());
    let referrer = json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "artifactType": BUNDLE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json"},
        "layers": [blob(BUNDLE, signature.as_bytes())],
        "subject": tagged,
    });
    let referrer = blob(OCI, referrer.to_string().as_bytes());
    tagged["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    write(
        layout.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [tagged, referrer]}).to_string(),
    );
    let reference = format!("oci:{}:1", layout.display());
    let verify = |more: &[&str]| {
        let usual = ["verify", "--json", "--platform", "linux/amd64", "--key", &key_file];
        vouchd(&[&usual[..], more, &[&reference]].concat())
    };
    let ran = verify(&[]);
    assert_eq!(ran.code(), (0, "allowed".to_owned()), "{ran:?}");
    assert_eq!((&ran.json()["warnings"], &ran.json()["would-accept"]), (&json!([]), &Value::Null));
    for (subject, wanted) in [("top-level", 0), ("instance", 1), ("both", 1)] {
        assert_eq!(verify(&["--subject", subject]).exit, wanted, "{subject}");
    }
}

/// Neither a policy that is missing matters, nor one that cannot be used or says otherwise.
#[tokio::test]
async fn no_policy_file_is_read() {
    let host = Host::new(|world, key| sign(world, Generation::Bundle, key, &[])).await;
    let policy = host.path("policy.json");
    for (text, without) in [
        (None, 4),
        (Some("{"), 4),
        (Some(r#"{"default":[{"type":"reject"}]}"#), 1),
        (Some(r#"{"default":[{"type":"insecureAcceptAnything"}]}"#), 0),
    ] {
        if let Some(text) = text {
            write(&policy, text);
        }
        for (flags, wanted) in [(&[][..], without), (&["--key", "key.pem"], 0), (&["--key", "other.pem"], 1)]
        {
            let ran = host.run(flags).await;
            assert_eq!(ran.exit, wanted, "{text:?} {flags:?}: {ran:?}");
        }
    }
}

/// What cannot stand together, or lacks its other half, is a question about usage and no verdict.
#[test]
fn flags_that_say_too_little_or_too_much_are_refused() {
    const ID: [&str; 2] = ["--certificate-identity", "n"];
    const BY: [&str; 2] = ["--certificate-oidc-issuer", "i"];
    const KEY: [&str; 2] = ["--key", "k"];
    let with = |parts: &[&[&'static str]]| parts.concat();
    for (flags, wanted) in [
        (with(&[&ID]), "--certificate-oidc-issuer"),
        (with(&[&["--certificate-identity-regexp", "n"]]), "--certificate-oidc-issuer"),
        (with(&[&BY]), "--certificate-identity"),
        (with(&[&["--certificate-oidc-issuer-regexp", "i"]]), "--certificate-identity"),
        (with(&[&["-a", "k=v"]]), "--key"),
        (with(&[&["--trusted-root", "r"]]), "--certificate-identity"),
        (with(&[&["--certificate-github-workflow-trigger", "x"]]), "--certificate-identity"),
        (with(&[&["--certificate-github-workflow-sha", "x"]]), "--certificate-identity"),
        (with(&[&["--certificate-github-workflow-name", "x"]]), "--certificate-identity"),
        (with(&[&["--certificate-github-workflow-repository", "x"]]), "--certificate-identity"),
        (with(&[&["--certificate-github-workflow-ref", "x"]]), "--certificate-identity"),
        (with(&[&KEY, &ID, &BY]), "cannot be used with"),
        (with(&[&KEY, &["--certificate-identity-regexp", "n"], &BY]), "cannot be used with"),
        (with(&[&KEY, &["--trusted-root", "r"]]), "cannot be used with"),
        (with(&[&KEY, &["--certificate-github-workflow-ref", "x"]]), "cannot be used with"),
        (with(&[&KEY, &KEY]), "multiple times"),
        (with(&[&ID, &["--certificate-identity-regexp", "n"], &BY]), "cannot be used with"),
        (with(&[&ID, &BY, &["--certificate-oidc-issuer-regexp", "i"]]), "cannot be used with"),
        (with(&[&KEY, &["--policy", "p"]]), "cannot be used with"),
        (with(&[&ID, &BY, &["--policy", "p"]]), "cannot be used with"),
        (with(&[&["-a", "k=v", "--policy", "p"]]), "cannot be used with"),
        (with(&[&KEY, &["--bus"]]), "cannot be used with"),
        (with(&[&ID, &BY, &["--bus"]]), "cannot be used with"),
        (with(&[&["--key", ""]]), "the name of a file is wanted"),
        (with(&[&["--key", "k8s://ns/secret"]]), "keys are read from files only"),
        (with(&[&["--certificate-identity", ""], &BY]), "a value is required"),
        (with(&[&ID, &["--certificate-oidc-issuer", ""]]), "a value is required"),
        (with(&[&["--certificate-identity-regexp", ""], &BY]), "an empty expression"),
        (with(&[&["--certificate-identity-regexp", "a)|(b"], &BY]), "unopened group"),
        (with(&[&["--certificate-identity-regexp", r"\w{1000}"], &BY]), "too large"),
        (with(&[&ID, &["--certificate-oidc-issuer-regexp", "("]]), "unclosed group"),
        (with(&[&ID, &BY, &["--certificate-github-workflow-ref", ""]]), "a value is required"),
        (with(&[&KEY, &["-a", "k"]]), "the form is KEY=VALUE"),
        (with(&[&KEY, &["-a", "=v"]]), "the form is KEY=VALUE"),
        (with(&[&KEY, &["-a", "k=v", "-a", "k=v"]]), "given twice"),
    ] {
        let ran = vouchd(&[&["verify", "--direct"], &flags[..], &["--", "dir:/x"]].concat());
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{flags:?}: {ran:?}");
        assert!(ran.stderr.contains(wanted), "{flags:?}: {ran:?}");
    }
    // They belong to verify alone.
    for command in ["explain", "daemon"] {
        let ran = vouchd(&[command, "--key", "k"]);
        assert_eq!(ran.exit, 2, "{ran:?}");
    }
}
