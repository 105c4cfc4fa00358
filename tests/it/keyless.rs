//! Keyless identities: what policies may ask, what certificates say, and which of them match.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, CustomExtension, KeyPair, OtherNameValue, SanType};

use vouchd::diagnostic::Code;
use vouchd::evaluate::evidence::{Evidence, LocatedSignature, ManifestEvidence, Question, Subject};
use vouchd::evaluate::identity::{Binding, check_annotations, check_fulcio, check_name, check_signer};
use vouchd::evaluate::verdict::Decision;
use vouchd::evaluate::{foregone, plan};
use vouchd::manifest::Platform;
use vouchd::policy::certificate::{
    CertificateIdentity, Field, Forge, KeylessSubject, MaxAge, Refs, Reusable, RootSource, Workflows,
};
use vouchd::policy::{Policy, Requirement, Scope, SignedIdentity, Signer, SigstoreSigned};
use vouchd::reference::{ImageReference, Named};
use vouchd::verify::identity::{Extension, Malformed, SigningIdentity, SubjectName};
use vouchd::verify::payload::SignedName;
use vouchd::verify::{Rejection, Timestamp, UntrustedSignature, UntrustedSigstore};

use crate::manual;

const GITHUB: &str = "https://token.actions.githubusercontent.com";
const OURS: &str = "https://github.com/acme/os";
const WORKFLOW: &str = "https://github.com/acme/os/.github/workflows/build.yml@refs/heads/main";

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

/// A DER UTF8String.
fn utf8(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let [high, low] = length.to_be_bytes();
    let mut der = match length {
        0..=0x7f => vec![0x0c, low],
        0x80..=0xff => vec![0x0c, 0x81, low],
        _ => vec![0x0c, 0x82, high, low],
    };
    der.extend_from_slice(text.as_bytes());
    der
}

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

fn email(text: &str) -> SanType {
    SanType::Rfc822Name(Ia5String::try_from(text).unwrap())
}

fn certificate(names: Vec<SanType>, extensions: Vec<(u64, Vec<u8>)>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.custom_extensions = extensions
        .into_iter()
        .map(|(number, content)| {
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, number], content)
        })
        .collect();
    params.self_signed(&*KEY).unwrap().der().to_vec()
}

/// What a certificate says; each test changes one thing about a good one.
#[derive(Clone)]
struct Build {
    name: SanType,
    values: BTreeMap<u64, String>,
}

impl Build {
    fn of(name: &str, values: &[(u64, &str)]) -> Self {
        let values = values.iter().map(|(number, value)| (*number, (*value).to_owned())).collect();
        Self { name: uri(name), values }
    }

    /// A push to main of our repository.
    fn github() -> Self {
        Self::of(
            WORKFLOW,
            &[
                (1, GITHUB),
                (2, "push"),
                (5, "acme/os"),
                (6, "refs/heads/main"),
                (8, GITHUB),
                (9, WORKFLOW),
                (11, "github-hosted"),
                (12, OURS),
                (14, "refs/heads/main"),
                (15, "123"),
                (16, "https://github.com/acme"),
                (18, WORKFLOW),
                (20, "push"),
            ],
        )
    }

    fn gitlab() -> Self {
        let workflow = "https://gitlab.com/g/sub/p//.gitlab-ci.yml@refs/heads/main";
        Self::of(
            workflow,
            &[
                (1, "https://gitlab.com"),
                (8, "https://gitlab.com"),
                (9, workflow),
                (11, "gitlab-hosted"),
                (12, "https://gitlab.com/g/sub/p"),
                (14, "refs/heads/main"),
                (15, "7"),
                (18, workflow),
                (20, "push"),
            ],
        )
    }

    /// Somebody else's push that called our reusable workflow: their repository under our name.
    fn foreign_caller() -> Self {
        let theirs = "https://github.com/evil/os/.github/workflows/x.yml@refs/heads/main";
        Self::github()
            .with(5, "evil/os")
            .with(12, "https://github.com/evil/os")
            .with(15, "666")
            .with(16, "https://github.com/evil")
            .with(18, theirs)
    }

    fn with(mut self, number: u64, value: &str) -> Self {
        self.values.insert(number, value.to_owned());
        self
    }

    fn without(mut self, number: u64) -> Self {
        self.values.remove(&number);
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.name = uri(name);
        self
    }

    /// Another workflow as what signs: name and .9 together.
    fn signed_by(self, workflow: &str) -> Self {
        self.named(workflow).with(9, workflow)
    }

    /// Another branch, tag or request, wherever it is said.
    fn at(self, reference: &str) -> Self {
        let workflow = format!("{OURS}/.github/workflows/build.yml@{reference}");
        self.signed_by(&workflow).with(18, &workflow).with(6, reference).with(14, reference)
    }

    fn identity(&self) -> SigningIdentity {
        let extensions = self.values.iter().map(|(number, value)| {
            (*number, if *number < 8 { value.as_bytes().to_vec() } else { utf8(value) })
        });
        SigningIdentity::from_certificate(&certificate(vec![self.name.clone()], extensions.collect()))
            .unwrap()
    }
}

fn parse(requirement: &str) -> Policy {
    let text = format!(r#"{{"default":[{requirement}]}}"#);
    Policy::parse(text.as_bytes()).unwrap_or_else(|problems| panic!("{requirement}: {problems:?}"))
}

fn signed(requirement: &str) -> SigstoreSigned {
    let policy = parse(requirement);
    let scopes = policy.scopes();
    let requirement = scopes[0].requirements.iter().next().unwrap();
    let Requirement::SigstoreSigned(signed) = requirement else { panic!("{requirement:?}") };
    signed.clone()
}

/// The first problem: its code and the text that it points at.
fn problem(requirement: &str) -> (Code, String) {
    let text = format!(r#"{{"default":[{requirement}]}}"#);
    match Policy::parse(text.as_bytes()) {
        Ok(_) => panic!("accepted: {requirement}"),
        Err(problems) => {
            let first = problems.first();
            (first.code, text[first.span.start..first.span.end].to_owned())
        }
    }
}

fn keyless(members: &str) -> String {
    format!(r#"{{"type":"sigstoreSigned","keyless":{{{members}}}}}"#)
}

/// `keyless` for our repository, narrowed by more members.
fn ours(members: &str) -> String {
    keyless(&format!(r#""issuer":"{GITHUB}","subject":"{OURS}"{members}"#))
}

/// `fulcio` with a trusted root and GitHub's issuer.
fn fulcio(members: &str) -> String {
    format!(
        r#"{{"type":"sigstoreSigned","fulcio":{{"oidcIssuer":"{GITHUB}",{members}}},"trustedRootPath":"/r.json"}}"#
    )
}

fn judge(requirement: &str, build: &Build) -> Result<(), Rejection> {
    let identity = build.identity();
    match signed(requirement).signer {
        Signer::Certificate { identity: wanted, .. } => check_signer(&wanted, &identity),
        Signer::Fulcio { fulcio, .. } => check_fulcio(&fulcio.identity, &identity),
        other @ (Signer::Keys { .. } | Signer::Pki(_)) => panic!("{other:?}"),
    }
}

/// The code of the refusal, empty if there is none.
fn code(requirement: &str, build: &Build) -> &'static str {
    judge(requirement, build).err().map_or("", |rejection| rejection.code().as_str())
}

// T-12, T-13: conditions 1 to 6.
#[test]
fn a_repository_is_matched_on_all_six_conditions() {
    let good = Build::github;
    let foreign = "https://github.com/shared/ci/.github/workflows/sign.yml@refs/tags/v1";
    for (what, members, build, wanted) in [
        ("the right repository", "", good(), ""),
        (
            "another issuer",
            "",
            good().with(1, "https://evil.example").with(8, "https://evil.example"),
            "identity-mismatch-issuer",
        ),
        ("no issuer", "", good().without(1).without(8), "identity-extension-missing"),
        ("an old issuer alone", "", good().without(8), ""),
        (
            "another repository",
            "",
            good()
                .with(12, "https://github.com/evil/os")
                .signed_by("https://github.com/evil/os/.github/workflows/x.yml@refs/heads/main"),
            "identity-mismatch-repository",
        ),
        (
            "a fork of the same name",
            "",
            good()
                .with(12, "https://github.com/acme/os2")
                .signed_by("https://github.com/acme/os2/.github/workflows/x.yml@refs/heads/main"),
            "identity-mismatch-repository",
        ),
        ("another case", "", good().with(12, "https://github.com/Acme/os"), "identity-foreign-caller"),
        ("a slash at the end", "", good().with(12, "https://github.com/acme/os/"), "identity-foreign-caller"),
        ("another repository that calls ours", "", Build::foreign_caller(), "identity-foreign-caller"),
        (
            "the same, allowed to call others",
            r#","allowReusableWorkflow":true"#,
            Build::foreign_caller(),
            "identity-foreign-caller",
        ),
        ("ours that calls another", "", good().signed_by(foreign), "identity-foreign-workflow"),
        ("the same, allowed", r#","allowReusableWorkflow":true"#, good().signed_by(foreign), ""),
        (
            "the same, forbidden in words",
            r#","allowReusableWorkflow":false"#,
            good().signed_by(foreign),
            "identity-foreign-workflow",
        ),
        (
            "a workflow whose address only begins alike",
            "",
            good().signed_by("https://github.com/acme/os-evil/.github/workflows/b.yml@refs/heads/main"),
            "identity-foreign-workflow",
        ),
        (
            "a name that is no workflow",
            "",
            good().signed_by("https://github.com/acme/os/.github/workflows/"),
            "identity-foreign-workflow",
        ),
        ("no source repository", "", good().without(12), "identity-extension-missing"),
        ("no build signer", "", good().without(9), "identity-extension-missing"),
        ("a build signer that is not the name", "", good().with(9, foreign), "identity-inconsistent"),
        (
            "a name that is not the build signer",
            r#","allowReusableWorkflow":true"#,
            good().named(foreign),
            "identity-inconsistent",
        ),
        ("another repository in .5", "", good().with(5, "evil/os"), "identity-inconsistent"),
        ("nothing in .5", "", good().without(5), ""),
        ("no ref", "", good().without(14), "identity-extension-missing"),
        ("no trigger", "", good().without(20), "identity-extension-missing"),
        ("the repository's number", r#","repositoryId":"123""#, good(), ""),
        (
            "the name reused by another",
            r#","repositoryId":"123""#,
            good().with(15, "124"),
            "identity-mismatch-repository",
        ),
        ("no number", r#","repositoryId":"123""#, good().without(15), "identity-extension-missing"),
        ("GitHub's machine", r#","runnerEnvironment":"github-hosted""#, good(), ""),
        (
            "one's own machine",
            r#","runnerEnvironment":"github-hosted""#,
            good().with(11, "self-hosted"),
            "identity-mismatch-runner",
        ),
        (
            "no machine",
            r#","runnerEnvironment":"github-hosted""#,
            good().without(11),
            "identity-extension-missing",
        ),
    ] {
        assert_eq!(code(&ours(members), &build), wanted, "{what}");
    }
    let mut person = good();
    person.name = email("jane@acme.example");
    assert_eq!(code(&ours(""), &person), "identity-mismatch-subject");
}

// T-13.
#[test]
fn pull_requests_count_only_where_they_are_named() {
    let at = |reference: &str| Build::github().at(reference);
    let request = |reference: &str| at(reference).with(20, "pull_request");
    let triggers = r#","triggers":["push","pull_request"]"#;
    let all = |refs: &str| format!(r#"{triggers},"refs":{refs}"#);
    for (members, build, wanted) in [
        // Events.
        (String::new(), at("refs/tags/v1"), ""),
        (String::new(), Build::github().with(20, "release"), ""),
        (String::new(), Build::github().with(20, "schedule"), ""),
        (String::new(), Build::github().with(20, "workflow_dispatch"), ""),
        (String::new(), Build::github().with(20, "pull_request"), "identity-mismatch-trigger"),
        (String::new(), Build::github().with(20, "pull_request_target"), "identity-mismatch-trigger"),
        (String::new(), Build::github().with(20, "workflow_run"), "identity-mismatch-trigger"),
        (String::new(), Build::github().with(20, "issue_comment"), "identity-mismatch-trigger"),
        (String::new(), Build::github().with(20, "Push"), "identity-mismatch-trigger"),
        (r#","triggers":["release"]"#.to_owned(), Build::github(), "identity-mismatch-trigger"),
        (
            r#","triggers":["pull_request_target"]"#.to_owned(),
            Build::github().with(20, "pull_request_target"),
            "",
        ),
        // Refs of requests.
        (String::new(), request("refs/pull/7/merge"), "identity-mismatch-ref"),
        (triggers.to_owned(), request("refs/pull/7/merge"), "identity-mismatch-ref"),
        (all(r#"["refs/*"]"#), request("refs/pull/7/merge"), "identity-mismatch-ref"),
        (all(r#"["refs/pull/*"]"#), request("refs/pull/7/merge"), ""),
        (all(r#"["refs/pull/7/merge"]"#), request("refs/pull/7/merge"), ""),
        (all(r#"["refs/pull/7/merge"]"#), request("refs/pull/8/merge"), "identity-mismatch-ref"),
        (all(r#"["refs/heads/*","refs/pull/9/*"]"#), request("refs/pull/7/merge"), "identity-mismatch-ref"),
        (all(r#"["refs/pull/*"]"#), request("refs/merge-requests/7/head"), "identity-mismatch-ref"),
        (all(r#"["refs/pull/*"]"#), at("refs/heads/main"), "identity-mismatch-ref"),
        (r#","refs":["refs/pull/*"]"#.to_owned(), request("refs/pull/7/merge"), "identity-mismatch-trigger"),
        // Other refs.
        (r#","refs":["refs/heads/main"]"#.to_owned(), at("refs/heads/main"), ""),
        (r#","refs":["refs/heads/main"]"#.to_owned(), at("refs/heads/main2"), "identity-mismatch-ref"),
        (r#","refs":["refs/heads/main"]"#.to_owned(), at("refs/tags/main"), "identity-mismatch-ref"),
        (r#","refs":["refs/heads/main","refs/tags/*"]"#.to_owned(), at("refs/tags/v1"), ""),
        (r#","refs":["refs/tags/*"]"#.to_owned(), at("refs/heads/main"), "identity-mismatch-ref"),
        (r#","refs":["refs/*"]"#.to_owned(), at("refs/heads/x/y"), ""),
    ] {
        assert_eq!(code(&ours(&members), &build), wanted, "{members} {:?}", build.values);
    }
}

// T-13.
#[test]
fn workflows_are_compared_whole_with_the_build_config() {
    let config = |address: &str| Build::github().with(18, address);
    let build = |path: &str, reference: &str| config(&format!("{OURS}/{path}@{reference}"));
    let one = r#","workflows":[".github/workflows/build.yml"]"#;
    let any = r#","workflows":[".github/workflows/*"]"#;
    for (members, build, wanted) in [
        (one, Build::github(), ""),
        (one, Build::github().at("refs/tags/v1"), ""),
        // .14 says something else than .18.
        (one, Build::github().with(14, "refs/tags/v1"), "identity-mismatch-workflow"),
        (one, build(".github/workflows/other.yml", "refs/heads/main"), "identity-mismatch-workflow"),
        (one, build(".github/workflows/build.yml", "refs/heads/evil"), "identity-mismatch-workflow"),
        (
            one,
            build(".github/workflows/build.yml@refs/heads/main", "refs/heads/main"),
            "identity-mismatch-workflow",
        ),
        (one, build("x/.github/workflows/build.yml", "refs/heads/main"), "identity-mismatch-workflow"),
        (
            one,
            config("https://github.com/evil/os/.github/workflows/build.yml@refs/heads/main"),
            "identity-mismatch-workflow",
        ),
        (one, Build::github().without(18), "identity-extension-missing"),
        (any, build(".github/workflows/other.yml", "refs/heads/main"), ""),
        (any, build(".github/workflows/", "refs/heads/main"), "identity-mismatch-workflow"),
        (any, build(".github/evil/other.yml", "refs/heads/main"), "identity-mismatch-workflow"),
        (any, build(".github/workflows/other.yml", "refs/heads/mainx"), "identity-mismatch-workflow"),
    ] {
        assert_eq!(code(&ours(members), &build), wanted, "{members} {:?}", build.values.get(&18));
    }
}

// T-12, T-13: GitLab, and enterprises on GitHub.
#[test]
fn other_forges_have_their_own_forms() {
    let gitlab = |members: &str| {
        keyless(&format!(r#""issuer":"https://gitlab.com","subject":"https://gitlab.com/g/sub/p"{members}"#))
    };
    let good = Build::gitlab;
    for (members, build, wanted) in [
        ("", good(), ""),
        ("", good().with(20, "schedule"), ""),
        ("", good().with(20, "web"), ""),
        ("", good().with(20, "merge_request_event"), "identity-mismatch-trigger"),
        ("", good().with(20, "release"), "identity-mismatch-trigger"),
        ("", good().with(14, "refs/merge-requests/1/head"), "identity-mismatch-ref"),
        ("", good().with(12, "https://gitlab.com/g/sub/q"), "identity-foreign-caller"),
        ("", good().with(12, "https://gitlab.com/g/sub"), "identity-foreign-caller"),
        (
            "",
            good().signed_by("https://gitlab.com/g/ci//sign.yml@refs/heads/main"),
            "identity-foreign-workflow",
        ),
        (
            "",
            good().signed_by("https://gitlab.com/g/sub/p/evil//sign.yml@refs/heads/main"),
            "identity-foreign-workflow",
        ),
        (r#","workflows":[".gitlab-ci.yml"]"#, good(), ""),
        (r#","workflows":["ci/*"]"#, good(), "identity-mismatch-workflow"),
        (r#","repositoryId":"7","runnerEnvironment":"gitlab-hosted""#, good(), ""),
        ("", Build::github(), "identity-mismatch-issuer"),
    ] {
        assert_eq!(code(&gitlab(members), &build), wanted, "{members} {:?}", build.values);
    }
    let issuer = format!("{GITHUB}/acme-corp");
    let enterprise = keyless(&format!(r#""issuer":"{issuer}","subject":"{OURS}""#));
    assert_eq!(code(&enterprise, &Build::github().with(1, &issuer).with(8, &issuer)), "");
    assert_eq!(code(&enterprise, &Build::github()), "identity-mismatch-issuer");
    assert_eq!(
        code(&ours(""), &Build::github().with(1, &issuer).with(8, &issuer)),
        "identity-mismatch-issuer"
    );
}

// T-12.
#[test]
fn a_workflow_by_its_address_alone_must_be_called_by_its_own_repository() {
    let exact = |member: &str| format!(r#""{member}":"{WORKFLOW}""#);
    let expression = |member: &str| format!(r#""{member}":"https://github\\.com/acme/os/.*""#);
    for members in [
        exact("subjectURI"),
        exact("buildSignerURI"),
        expression("subjectURIRegExp"),
        expression("buildSignerURIRegExp"),
        format!("{},{}", exact("subjectURI"), exact("buildSignerURI")),
        // A branch, an event or a machine is no repository.
        format!(r#"{},"sourceRepositoryRef":"refs/heads/main""#, exact("buildSignerURI")),
        format!(r#"{},"buildTrigger":"push","runnerEnvironment":"github-hosted""#, exact("subjectURI")),
        // Nor is the workflow that was started.
        format!(r#"{},"buildConfigURIRegExp":".*""#, exact("subjectURI")),
    ] {
        let requirement = fulcio(&members);
        assert_eq!(code(&requirement, &Build::github()), "", "{members}");
        assert_eq!(code(&requirement, &Build::foreign_caller()), "identity-foreign-caller", "{members}");
        let silent = Build::github().without(12).without(5);
        assert_eq!(code(&requirement, &silent), "identity-foreign-caller", "{members}");
        assert_eq!(code(&requirement, &Build::github().without(12)), "", ".5 says it too: {members}");
        let evil = Build::foreign_caller().without(12);
        assert_eq!(code(&requirement, &evil), "identity-foreign-caller", "{members}");
        for pin in [
            r#""sourceRepositoryURI":"https://github.com/evil/os""#,
            r#""sourceRepositoryIdentifier":"666""#,
            r#""sourceRepositoryOwnerURI":"https://github.com/evil""#,
        ] {
            let requirement = fulcio(&format!("{members},{pin}"));
            assert_eq!(code(&requirement, &Build::foreign_caller()), "", "{requirement}");
            assert_eq!(code(&requirement, &Build::github()), "identity-mismatch-repository", "{requirement}");
        }
    }
    let identity = |issuer: &str| keyless(&format!(r#""issuer":"{issuer}","subject":"{WORKFLOW}""#));
    assert_eq!(code(&identity(GITHUB), &Build::github()), "");
    assert_eq!(code(&identity(GITHUB), &Build::foreign_caller()), "identity-foreign-caller");
    // An issuer that is not known: only what the certificate itself shows.
    let elsewhere = "https://ci.example";
    let moved = |build: Build| build.with(1, elsewhere).with(8, elsewhere);
    assert_eq!(code(&identity(elsewhere), &moved(Build::github())), "");
    assert_eq!(code(&identity(elsewhere), &moved(Build::foreign_caller())), "identity-foreign-caller");
    assert_eq!(code(&identity(elsewhere), &moved(Build::github().without(12))), "");
    let job = "https://ci.example/jobs/7";
    let by_job = keyless(&format!(r#""issuer":"{elsewhere}","subject":"{job}""#));
    assert_eq!(
        code(&by_job, &moved(Build::github().named(job))),
        "",
        "what is no workflow has no repository"
    );
    // What is no repository owns no workflow, however its address begins.
    let (inside, nested) =
        (format!("{OURS}/.github/workflows/x"), "/.github/workflows/build.yml@refs/heads/main");
    let nested = format!("{inside}{nested}");
    let by_name = keyless(&format!(r#""issuer":"{GITHUB}","subject":"{nested}""#));
    let build = Build::github().without(5).signed_by(&nested).with(12, &inside);
    assert_eq!(code(&by_name, &build), "identity-foreign-caller");
    // The same of an authority of one's own.
    let own = format!(
        r#"{{"type":"sigstoreSigned","fulcio":{{"caPath":"/c","oidcIssuer":"{GITHUB}",{}}},"rekorPublicKeyPath":"/k"}}"#,
        exact("buildSignerURI")
    );
    assert_eq!(code(&own, &Build::github()), "");
    assert_eq!(code(&own, &Build::foreign_caller()), "identity-foreign-caller");
}

#[test]
fn identities_are_compared_byte_for_byte() {
    let google = "https://accounts.google.com";
    let person = |name: SanType| Build { name, values: BTreeMap::from([(8, google.to_owned())]) };
    let wanted = |subject: &str| keyless(&format!(r#""issuer":"{google}","subject":"{subject}""#));
    let other = |text: &str| {
        SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 57264, 1, 7], OtherNameValue::Utf8String(text.to_owned())))
    };
    for (subject, name, accepted) in [
        ("jane@acme.example", email("jane@acme.example"), true),
        ("jane@acme.example", email("Jane@acme.example"), false),
        ("jane@acme.example", email("jane@acme.example.evil"), false),
        ("jane!acme.example", other("jane!acme.example"), true),
        ("jane!acme.example", other("jane!evil.example"), false),
        ("spiffe://acme/os", uri("spiffe://acme/os"), true),
        ("spiffe://acme/os", uri("spiffe://acme/os/x"), false),
        // With another issuer the address of a repository is a name like any other.
        (OURS, uri(OURS), true),
        (OURS, uri(WORKFLOW), false),
    ] {
        let expected = if accepted { "" } else { "identity-mismatch-subject" };
        assert_eq!(code(&wanted(subject), &person(name)), expected, "{subject}");
    }
    // With GitHub's issuer the mode depends on the policy, whatever the certificate has for a name.
    assert_eq!(code(&ours(""), &Build::github().named(OURS).with(9, OURS)), "identity-foreign-workflow");
}

#[test]
fn every_member_of_fulcio_is_checked() {
    for (field, number, value) in [
        (Field::BuildConfigUri, 18, WORKFLOW),
        (Field::BuildSignerUri, 9, WORKFLOW),
        (Field::BuildTrigger, 20, "push"),
        (Field::RunnerEnvironment, 11, "github-hosted"),
        (Field::SourceRepositoryIdentifier, 15, "123"),
        (Field::SourceRepositoryOwnerUri, 16, "https://github.com/acme"),
        (Field::SourceRepositoryRef, 14, "refs/heads/main"),
        (Field::SourceRepositoryUri, 12, OURS),
    ] {
        // So that members that name nobody may be there.
        let base = if number == 16 { "" } else { r#""sourceRepositoryOwnerURI":"https://github.com/acme","# };
        for (name, exact) in [(field.name(), true), (field.pattern_name().unwrap(), false)] {
            let requirement = fulcio(&format!(r#"{base}"{name}":"{value}""#));
            assert_eq!(code(&requirement, &Build::github()), "", "{name}");
            let longer = Build::github().with(number, &format!("{value}x"));
            assert!(code(&requirement, &longer).starts_with("identity-mismatch-"), "{name}");
            let before = Build::github().with(number, &format!("x{value}"));
            assert!(code(&requirement, &before).starts_with("identity-mismatch-"), "{name}");
            let dots = Build::github().with(number, &value.replace('.', "-"));
            if exact && value.contains('.') {
                assert!(code(&requirement, &dots).starts_with("identity-mismatch-"), "{name}");
            }
        }
    }
}

/// No certificate that lacks something satisfies a member about it, whatever else it has.
#[test]
fn what_a_certificate_does_not_say_never_matches() {
    let full = Extension::ALL.iter().fold(Build::github(), |build, extension| {
        let number = u64::from(extension.number());
        if build.values.contains_key(&number) { build } else { build.with(number, "x") }
    });
    let numbers = [
        (Field::BuildConfigUri, 18),
        (Field::BuildSignerUri, 9),
        (Field::BuildTrigger, 20),
        (Field::RunnerEnvironment, 11),
        (Field::SourceRepositoryIdentifier, 15),
        (Field::SourceRepositoryOwnerUri, 16),
        (Field::SourceRepositoryRef, 14),
        (Field::SourceRepositoryUri, 12),
    ];
    assert_eq!(
        numbers.len() + 1,
        Field::OURS.len(),
        "all but the name, without which there is no certificate"
    );
    for (field, number) in numbers {
        // The address of the workflow names somebody, and matches.
        let about = fulcio(&format!(
            r#""subjectURI":"{WORKFLOW}","sourceRepositoryURIRegExp":"(?s).*","{}":"(?s).*""#,
            if number == 12 { "sourceRepositoryOwnerURIRegExp" } else { field.pattern_name().unwrap() },
        ));
        assert_eq!(code(&about, &full), "", "{field:?}");
        for build in [full.clone().without(number), full.clone().with(number, "")] {
            assert_eq!(code(&about, &build), "identity-extension-missing", "{field:?}");
            // Nor if other things are missing too.
            for other in [5, 6, 11, 16, 20, 24] {
                let less = build.clone().without(other);
                assert_eq!(code(&about, &less), "identity-extension-missing", "{field:?} {other}");
            }
        }
    }
    let narrow = ours(
        r#","refs":["refs/heads/*"],"workflows":[".github/workflows/*"],"runnerEnvironment":"github-hosted","repositoryId":"123""#,
    );
    assert_eq!(code(&narrow, &full), "");
    for number in [9, 11, 12, 14, 15, 18, 20] {
        assert_eq!(code(&narrow, &full.clone().without(number)), "identity-extension-missing", "{number}");
        assert_eq!(code(&narrow, &full.clone().with(number, "")), "identity-extension-missing", "{number}");
    }
    assert_eq!(code(&narrow, &full.clone().without(1).without(8)), "identity-extension-missing");
}

#[test]
fn a_certificate_that_can_be_read_in_two_ways_is_refused() {
    let read = |names: Vec<SanType>, extensions: Vec<(u64, Vec<u8>)>| {
        SigningIdentity::from_certificate(&certificate(names, extensions))
    };
    let one = || vec![uri(WORKFLOW)];
    let malformed = |extension| Err(Malformed::Extension(extension));
    for (what, names, extensions, wanted) in [
        ("no name", vec![], vec![], Err(Malformed::Names)),
        ("two names", vec![uri(WORKFLOW), uri(WORKFLOW)], vec![], Err(Malformed::Names)),
        ("an address and a URI", vec![email("a@b.example"), uri(WORKFLOW)], vec![], Err(Malformed::Names)),
        (
            "a host",
            vec![SanType::DnsName(Ia5String::try_from("a.example").unwrap())],
            vec![],
            Err(Malformed::Names),
        ),
        ("an empty name", vec![uri("")], vec![], Err(Malformed::Names)),
        (
            "another kind of other name",
            vec![SanType::OtherName((
                vec![1, 3, 6, 1, 4, 1, 57264, 1, 8],
                OtherNameValue::Utf8String("a!b".to_owned()),
            ))],
            vec![],
            Err(Malformed::Names),
        ),
        ("the same twice", one(), vec![(8, utf8("i")), (8, utf8("i"))], Err(Malformed::Repeated)),
        ("two of them", one(), vec![(12, utf8("a")), (12, utf8("b"))], Err(Malformed::Repeated)),
        ("something unknown twice", one(), vec![(99, vec![]), (99, vec![])], Err(Malformed::Repeated)),
        ("two issuers", one(), vec![(1, b"a".to_vec()), (8, utf8("b"))], Err(Malformed::Issuers)),
        ("an empty issuer", one(), vec![(1, b"a".to_vec()), (8, utf8(""))], Err(Malformed::Issuers)),
        (
            "bytes after the text",
            one(),
            vec![(12, [utf8("a"), vec![0]].concat())],
            malformed(Extension::SourceRepositoryUri),
        ),
        (
            "text without DER",
            one(),
            vec![(12, b"https://a".to_vec())],
            malformed(Extension::SourceRepositoryUri),
        ),
        (
            "another kind of string",
            one(),
            vec![(12, vec![0x16, 1, b'a'])],
            malformed(Extension::SourceRepositoryUri),
        ),
        (
            "a length that is too long",
            one(),
            vec![(12, vec![0x0c, 0x81, 1, b'a'])],
            malformed(Extension::SourceRepositoryUri),
        ),
        ("no text", one(), vec![(12, vec![])], malformed(Extension::SourceRepositoryUri)),
        ("bytes that are no text", one(), vec![(1, vec![0xff])], malformed(Extension::Issuer)),
        (
            "bytes in DER that are no text",
            one(),
            vec![(8, vec![0x0c, 1, 0xff])],
            malformed(Extension::IssuerV2),
        ),
        ("a huge value", one(), vec![(12, utf8(&"a".repeat(5_000)))], Err(Malformed::Large)),
        ("a huge name", vec![uri(&"a".repeat(5_000))], vec![], Err(Malformed::Large)),
        ("a huge certificate", one(), vec![(99, vec![0; 70_000])], Err(Malformed::Large)),
        ("equal issuers", one(), vec![(1, b"a".to_vec()), (8, utf8("a"))], Ok(())),
        ("something unknown", one(), vec![(7, vec![1]), (25, vec![2]), (99, vec![3])], Ok(())),
    ] {
        assert_eq!(read(names, extensions).map(drop), wanted, "{what}");
    }
    let good = certificate(one(), vec![]);
    for bytes in [&[][..], &[0x30], &good[1..], &good[..good.len() - 1], &[&good[..], &[0]].concat()] {
        assert_eq!(SigningIdentity::from_certificate(bytes), Err(Malformed::Certificate));
    }
    // The old extensions are bytes: what looks like DER there is text.
    let raw = read(one(), vec![(1, utf8("i"))]).unwrap();
    assert_eq!(raw.issuer(), Some("\u{c}\u{1}i"));
    assert_eq!(raw.subject(), &SubjectName::Uri(WORKFLOW.to_owned()));
}

#[test]
fn refusals_say_what_is_wanted_and_what_is_there() {
    for (requirement, build, wanted) in [
        (
            ours(""),
            Build::github().with(20, "fork"),
            r#"the certificate's trigger is "fork", and the policy wants "push" or "release" or "schedule" or "workflow_dispatch""#,
        ),
        (
            ours(""),
            Build::github().without(12),
            r#"the certificate has no "Source Repository URI" (.12), and the policy wants "https://github.com/acme/os""#,
        ),
        (
            ours(""),
            Build::foreign_caller(),
            r#"the workflow "https://github.com/acme/os/.github/workflows/build.yml@refs/heads/main" was called by "https://github.com/evil/os", to which it does not belong, and the policy does not name that repository"#,
        ),
        (
            ours(r#","refs":["refs/tags/*"]"#),
            Build::github(),
            r#"the certificate's branch or tag is "refs/heads/main", and the policy wants "refs/tags/*""#,
        ),
        (
            fulcio(r#""subjectEmail":"a@b.example""#),
            Build::github(),
            r#"the certificate's subject is "https://github.com/acme/os/.github/workflows/build.yml@refs/heads/main", and the policy wants the e-mail address "a@b.example""#,
        ),
        (
            fulcio(r#""sourceRepositoryURIRegExp":"x.*""#),
            Build::github(),
            r#"the certificate's source repository is "https://github.com/acme/os", and the policy wants a full match of "x.*""#,
        ),
        (
            ours(r#","repositoryId":"9""#),
            Build::github().with(15, "\u{1b}[2J"),
            r#"the certificate's source repository is "\u{1b}[2J", and the policy wants "9""#,
        ),
    ] {
        let rejection = judge(&requirement, &build).unwrap_err();
        assert_eq!(rejection.to_string(), wanted);
        assert!(!rejection.help().is_empty());
    }
}

/// The policies of a publisher's manual, as they stand there.
#[test]
fn the_policies_of_a_real_manual_mean_what_they_say() {
    let user = "https://github.com/acme/vespera";
    let variants = [
        "/vespera",
        "/vespera-nvidia",
        "/vespera-nvidia-open",
        "/vespera-dx",
        "/vespera-dx-nvidia",
        "/vespera-dx-nvidia-open",
    ];
    for (text, default, names) in [
        (manual::STRICT, "reject", &["/vespera-nvidia", "/vespera-dx-nvidia"][..]),
        (manual::PERMISSIVE, "insecureAcceptAnything", &[""]),
        (manual::VARIANTS, "reject", &variants),
    ] {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let all = policy.scopes();
        assert_eq!(all.len(), names.len() + 1);
        assert_eq!(all[0].requirements.iter().next().unwrap().kind(), default);
        for (matched, name) in all.iter().skip(1).zip(names) {
            let scope = Scope::Transport { transport: "docker".into(), name: format!("ghcr.io/acme{name}") };
            assert_eq!(matched.scope, scope);
            let [Requirement::SigstoreSigned(signed)] = matched.requirements.iter().collect::<Vec<_>>()[..]
            else {
                panic!("{matched:?}")
            };
            assert_eq!(signed.identity, SignedIdentity::MatchRepositoryOrUnnamed);
            assert!(!signed.message_signature && signed.manifest_annotations.is_empty());
            let Signer::Certificate { identity, root } = &signed.signer else { panic!("{signed:?}") };
            let CertificateIdentity::Keyless(wanted) = identity.as_ref() else { panic!("{identity:?}") };
            assert_eq!((&root.source, root.max_age), (&RootSource::Host, MaxAge::Unlimited));
            let KeylessSubject::Repository(repository) = &wanted.subject else { panic!("{wanted:?}") };
            assert_eq!((repository.forge, repository.uri.as_str()), (Forge::GitHub, user));
            assert_eq!((&repository.refs, &repository.workflows), (&Refs::NoRequests, &Workflows::All));
            assert_eq!((repository.reusable, repository.pins.len()), (Reusable::Own, 0));
            let workflow = format!("{user}/.github/workflows/build.yml@refs/heads/main");
            let build = Build::github().signed_by(&workflow).with(5, "acme/vespera").with(12, user);
            assert_eq!(
                check_signer(&CertificateIdentity::Keyless(wanted.clone()), &build.identity()),
                Ok(())
            );
            assert!(
                check_signer(&CertificateIdentity::Keyless(wanted.clone()), &Build::github().identity())
                    .is_err()
            );
        }
    }
}

// T-15, T-16, T-17, T-31.
#[test]
fn members_of_ours_are_as_strict_as_the_others() {
    let rest = |rest: &str| format!(r#"{{"type":"sigstoreSigned",{rest}}}"#);
    let key = |more: &str| rest(&format!(r#""keyPath":"/k"{more}"#));
    let email = r#""oidcIssuer":"i","subjectEmail":"e@x.example""#;
    let own = |more: &str| rest(&format!(r#""fulcio":{{"caPath":"/c",{email}}}{more}"#));
    let rooted = |more: &str| rest(&format!(r#""fulcio":{{{email}}}{more}"#));
    let person = |more: &str| rest(&format!(r#""keyless":{{"issuer":"i","subject":"s"}}{more}"#));
    let kinds = [
        ("unknown-key", Code::UnknownKey),
        ("duplicate-key", Code::DuplicateKey),
        ("invalid-type", Code::InvalidType),
        ("invalid-value", Code::InvalidValue),
        ("missing-key", Code::MissingKey),
        ("invalid-requirement", Code::InvalidRequirement),
        ("invalid-pattern", Code::InvalidPattern),
        ("unknown-type", Code::UnknownType),
    ];
    for (requirement, wanted, place) in [
        // Members of keyless.
        (keyless(r#""issuer":"i""#), "missing-key", r#"{"issuer":"i"}"#),
        (keyless(r#""subject":"s""#), "missing-key", r#"{"subject":"s"}"#),
        (keyless(r#""issuer":"","subject":"s""#), "invalid-value", r#""""#),
        (keyless(r#""issuer":"i","subject":null"#), "invalid-value", "null"),
        (keyless(r#""issuer":"i","subject":["s"]"#), "invalid-type", r#"["s"]"#),
        (keyless(r#""issuer":"i","subject":"s","Subject":"s""#), "unknown-key", r#""Subject""#),
        (keyless(r#""issuer":"i","subject":"s","subject":"s""#), "duplicate-key", r#""subject""#),
        (keyless(r#""issuer":"i","subject":"s","subjectRegExp":"s""#), "unknown-key", r#""subjectRegExp""#),
        (rest(r#""keyless":[]"#), "invalid-type", "[]"),
        (rest(r#""keyless":null"#), "invalid-type", "null"),
        (ours(r#","refs":"refs/heads/main""#), "invalid-type", r#""refs/heads/main""#),
        (ours(r#","refs":[]"#), "invalid-value", "[]"),
        (ours(r#","refs":null"#), "invalid-value", "null"),
        (ours(r#","refs":[""]"#), "invalid-value", r#"[""]"#),
        (ours(r#","refs":["main"]"#), "invalid-value", r#""main""#),
        (ours(r#","refs":["*"]"#), "invalid-value", r#""*""#),
        (ours(r#","refs":["refs/heads/v*"]"#), "invalid-value", r#""refs/heads/v*""#),
        (ours(r#","refs":["refs/*/main"]"#), "invalid-value", r#""refs/*/main""#),
        (ours(r#","workflows":["build.yml"]"#), "invalid-value", r#""build.yml""#),
        (
            ours(r#","workflows":["/.github/workflows/build.yml"]"#),
            "invalid-value",
            r#""/.github/workflows/build.yml""#,
        ),
        (ours(r#","triggers":[]"#), "invalid-value", "[]"),
        (ours(r#","triggers":[null]"#), "invalid-value", "[null]"),
        (ours(r#","allowReusableWorkflow":"true""#), "invalid-type", r#""true""#),
        (ours(r#","allowReusableWorkflow":null"#), "invalid-type", "null"),
        (ours(r#","repositoryId":123"#), "invalid-type", "123"),
        (ours(r#","runnerEnvironment":"""#), "invalid-value", r#""""#),
        // A subject that is no repository has nothing to narrow.
        (
            keyless(&format!(r#""issuer":"{GITHUB}","subject":"{OURS}/","refs":["refs/heads/main"]"#)),
            "invalid-requirement",
            r#"["refs/heads/main"]"#,
        ),
        (
            keyless(&format!(r#""issuer":"i","subject":"{OURS}","repositoryId":"1""#)),
            "invalid-requirement",
            r#""1""#,
        ),
        // Members of fulcio.
        (fulcio(r#""URI":"x""#), "unknown-key", r#""URI""#),
        (fulcio(r#""subjectRegExp":"x""#), "unknown-key", r#""subjectRegExp""#),
        (fulcio(r#""buildSignerUri":"x""#), "unknown-key", r#""buildSignerUri""#),
        (fulcio(r#""buildSignerURI":"x","buildSignerURI":"x""#), "duplicate-key", r#""buildSignerURI""#),
        (fulcio(r#""buildSignerURI":"""#), "invalid-value", r#""""#),
        (fulcio(r#""buildSignerURI":null"#), "invalid-value", "null"),
        (fulcio(r#""buildSignerURI":1"#), "invalid-type", "1"),
        (fulcio(r#""subjectEmail":"","buildSignerURI":"x""#), "invalid-value", r#""""#),
        (fulcio(r#""subjectURIRegExp":"(""#), "invalid-pattern", r#""(""#),
        (fulcio(r#""subjectURIRegExp":"a)|(?:b""#), "invalid-pattern", r#""a)|(?:b""#),
        (fulcio(r#""subjectURIRegExp":"\\w{1000}""#), "invalid-pattern", r#""\\w{1000}""#),
        (fulcio(r#""subjectURIRegExp":"""#), "invalid-value", r#""""#),
        // Trust (T-15, T-31).
        (rooted(r#","rekorPublicKeyPath":"/k""#), "invalid-requirement", &format!("{{{email}}}")),
        (own(""), "invalid-requirement", &own("")),
        (own(r#","trustedRootPath":"/r""#), "invalid-requirement", r#""/c""#),
        (own(r#","trustedRootData":"e30=""#), "invalid-requirement", r#""/c""#),
        (own(r#","rekorPublicKeyPath":"/k","trustedRootPath":"/r""#), "invalid-requirement", r#""/c""#),
        (own(r#","rekorPublicKeyPath":"/k","trustedRootMaxAge":"30d""#), "invalid-requirement", r#""30d""#),
        (rooted(r#","trustedRootPath":"/r","rekorPublicKeyPath":"/k""#), "invalid-requirement", r#""/k""#),
        (rooted(r#","trustedRootPath":"/r","rekorPublicKeyPath":"""#), "invalid-requirement", r#""""#),
        (
            rooted(r#","trustedRootPath":"/r","trustedRootData":"e30=""#),
            "invalid-requirement",
            &rooted(r#","trustedRootPath":"/r","trustedRootData":"e30=""#),
        ),
        (rooted(r#","trustedRootMaxAge":"30d""#), "invalid-requirement", &format!("{{{email}}}")),
        (person(r#","rekorPublicKeyPath":"/k""#), "invalid-requirement", r#""/k""#),
        (person(r#","rekorPublicKeyDatas":["eA=="]"#), "invalid-requirement", r#"["eA=="]"#),
        (person(r#","trustedRootPath":"""#), "invalid-value", r#""""#),
        (person(r#","trustedRootPath":null"#), "invalid-value", "null"),
        (person(r#","trustedRootData":"""#), "invalid-value", r#""""#),
        (person(r#","trustedRootMaxAge":"a month""#), "invalid-value", r#""a month""#),
        (person(r#","trustedRootMaxAge":30"#), "invalid-type", "30"),
        (key(r#","trustedRootPath":"/r""#), "invalid-requirement", r#""/r""#),
        (key(r#","trustedRootMaxAge":"30d""#), "invalid-requirement", r#""30d""#),
        (person(r#","trustedRootData":"e30=","trustedRootMaxAge":"30d""#), "invalid-requirement", r#""30d""#),
        // Exactly one kind of signer.
        (
            key(r#","keyless":{"issuer":"i","subject":"s"}"#),
            "invalid-requirement",
            &key(r#","keyless":{"issuer":"i","subject":"s"}"#),
        ),
        (
            person(&format!(r#","fulcio":{{"caPath":"/c",{email}}}"#)),
            "invalid-requirement",
            &person(&format!(r#","fulcio":{{"caPath":"/c",{email}}}"#)),
        ),
        (
            person(r#","pki":{"caRootsPath":"/c","subjectEmail":"e"}"#),
            "invalid-requirement",
            &person(r#","pki":{"caRootsPath":"/c","subjectEmail":"e"}"#),
        ),
        // Members of every sigstoreSigned (T-16, T-17).
        (key(r#","messageSignature":"true""#), "invalid-type", r#""true""#),
        (key(r#","messageSignature":null"#), "invalid-type", "null"),
        (key(r#","messagesignature":true"#), "unknown-key", r#""messagesignature""#),
        (key(r#","manifestAnnotations":[]"#), "invalid-type", "[]"),
        (key(r#","manifestAnnotations":null"#), "invalid-type", "null"),
        (key(r#","manifestAnnotations":{}"#), "invalid-value", "{}"),
        (key(r#","manifestAnnotations":{"a":1}"#), "invalid-type", "1"),
        (key(r#","manifestAnnotations":{"a":"b","a":"b"}"#), "duplicate-key", r#""a""#),
        (
            key(r#","signedIdentity":{"type":"matchRepositoryorUnnamed"}"#),
            "unknown-type",
            r#""matchRepositoryorUnnamed""#,
        ),
        (key(r#","signedIdentity":{"type":"matchRepositoryOrUnnamed","x":1}"#), "unknown-key", r#""x""#),
        (
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","messageSignature":true}"#.to_owned(),
            "unknown-key",
            r#""messageSignature""#,
        ),
        (r#"{"type":"signedBy","keyType":"GPGKeys","keyless":{}}"#.to_owned(), "unknown-key", r#""keyless""#),
    ] {
        let wanted = kinds.iter().find(|(name, _)| *name == wanted).unwrap().1;
        assert_eq!(problem(&requirement), (wanted, place.to_owned()), "{requirement}");
    }
    for requirement in [
        own(r#","rekorPublicKeyPath":"/k""#),
        rooted(r#","trustedRootPath":"/r""#),
        rooted(r#","trustedRootPath":"/r","trustedRootMaxAge":"12h""#),
        person(r#","trustedRootMaxAge":"30d""#),
        person(r#","trustedRootPath":"/r","trustedRootMaxAge":"30d""#),
        key(r#","messageSignature":false"#),
        key(r#","manifestAnnotations":{"a":"","b":"c"}"#),
        key(r#","signedIdentity":{"type":"matchRepositoryOrUnnamed"}"#),
    ] {
        parse(&requirement);
    }
    assert!(signed(&key(r#","messageSignature":true"#)).message_signature);
    for (members, source, age) in [
        (r#","trustedRootData":"e30=""#, RootSource::Data(b"{}"[..].into()), MaxAge::Unlimited),
        (r#","trustedRootMaxAge":"12h""#, RootSource::Host, MaxAge::Seconds(43_200)),
    ] {
        let Signer::Certificate { root, .. } = signed(&person(members)).signer else { panic!() };
        assert_eq!((root.source, root.max_age), (source, age));
    }
}

// T-16: names.
#[test]
fn a_signature_without_a_name_counts_only_where_the_policy_says_so() {
    let image = Named::parse("quay.io/acme/os:1").unwrap();
    let named = |name: &str| SignedName::Named(name.to_owned());
    let of = |names: &[Option<&str>]| SignedName::of_subjects(names.iter().copied());
    assert_eq!(of(&[]), SignedName::Unnamed);
    assert_eq!(of(&[None, None]), SignedName::Unnamed);
    assert_eq!(of(&[Some("a/b"), Some("a/b")]), named("a/b"));
    assert_eq!(of(&[Some("")]), named(""));
    let repository = SignedIdentity::MatchRepositoryOrUnnamed;
    for (signed, wanted) in [
        (SignedName::Unnamed, Ok(Binding::Digest)),
        (named("quay.io/acme/os"), Ok(Binding::Name)),
        (named("quay.io/acme/os:2"), Ok(Binding::Name)),
        (named("quay.io/acme/other"), Err(Code::IdentityMismatch)),
        (named(""), Err(Code::IdentityMismatch)),
        (named(" "), Err(Code::IdentityMismatch)),
        (named("UPPER"), Err(Code::IdentityMismatch)),
        (of(&[Some("quay.io/acme/os"), Some("quay.io/acme/other")]), Err(Code::IdentityMismatch)),
        (of(&[Some("quay.io/acme/os"), None]), Err(Code::IdentityMismatch)),
        (of(&[None, Some("quay.io/acme/os")]), Err(Code::IdentityMismatch)),
        (of(&[None, Some("")]), Err(Code::IdentityMismatch)),
    ] {
        let found = check_name(&repository, Some(&image), &signed).map_err(|rejection| rejection.code());
        assert_eq!(found, wanted, "{signed:?}");
    }
    // An image without a name, such as a directory, can have no other signature than one without a name.
    assert_eq!(check_name(&repository, None, &SignedName::Unnamed), Ok(Binding::Digest));
    assert!(check_name(&repository, None, &named("quay.io/acme/os")).is_err());
}

// T-16: what the manifest itself says.
#[test]
fn annotations_of_the_manifest_are_compared_exactly() {
    let requirement =
        parse(r#"{"type":"sigstoreSigned","keyPath":"/k","manifestAnnotations":{"a":"1","b":""}}"#);
    let scopes = requirement.scopes();
    let wanted = scopes[0].requirements.iter().next().unwrap();
    for (manifest, expected) in [
        (r#"{"annotations":{"a":"1","b":"","c":"x"}}"#, None),
        (r#"{"annotations":{"a":"1"}}"#, Some(Code::AnnotationMismatch)),
        (r#"{"annotations":{"a":"1","b":null}}"#, Some(Code::AnnotationMismatch)),
        (r#"{"annotations":{"a":1,"b":""}}"#, Some(Code::AnnotationMismatch)),
        (r#"{"annotations":{"A":"1","b":""}}"#, Some(Code::AnnotationMismatch)),
        (r#"{"annotations":{"a":"1 ","b":""}}"#, Some(Code::AnnotationMismatch)),
        (r#"{"config":{"annotations":{"a":"1","b":""}}}"#, Some(Code::AnnotationMismatch)),
        (r#"{"annotations":null}"#, Some(Code::AnnotationMismatch)),
        (r#"{"annotations":[]}"#, Some(Code::AnnotationMismatch)),
        ("{}", Some(Code::AnnotationMismatch)),
        (r#"{"annotations":{"a":"1","a":"1","b":""}}"#, Some(Code::ManifestInvalid)),
        (r#"{"annotations":{"a":"1","b":""},"annotations":{}}"#, Some(Code::ManifestInvalid)),
        (r#"{"annotations":{"a":"1","b":""},"Annotations":{}}"#, Some(Code::ManifestInvalid)),
        ("x", Some(Code::ManifestInvalid)),
    ] {
        let found = check_annotations(wanted, manifest.as_bytes()).err().map(|rejection| rejection.code());
        assert_eq!(found, expected, "{manifest}");
    }
    // A verdict depends on them.
    for (manifest, expected) in
        [(r#"{"annotations":{"a":"1","b":""}}"#, Code::Unsigned), ("{}", Code::AnnotationMismatch)]
    {
        assert_eq!(verdict(&requirement, manifest, vec![], false), Err(expected), "{manifest}");
    }
}

/// The code of the refusal, or whether a signature was verified.
fn verdict(
    policy: &Policy,
    manifest: &str,
    signatures: Vec<LocatedSignature>,
    require_signature: bool,
) -> Result<bool, Code> {
    let image = ImageReference::docker(Named::parse("quay.io/acme/os:1").unwrap()).unwrap();
    let question = Question { require_signature, subject: Subject::Either, platform: Platform::host() };
    let manifest =
        ManifestEvidence { signatures, ..ManifestEvidence::new(manifest.as_bytes().to_vec(), String::new()) };
    let evidence = Evidence { top_level: Some(manifest), ..Evidence::default() };
    let verdict = plan(policy, &image, &question).judge(&evidence, Timestamp(0));
    match verdict.decision {
        Decision::Allow(_) => Ok(verdict.authenticated),
        Decision::Deny(rejection) => Err(rejection.code()),
    }
}

/// Nothing is passed over: what cannot be verified yet refuses.
#[test]
fn what_cannot_be_verified_yet_is_refused() {
    let requirement =
        r#"{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r","messageSignature":true}"#;
    let policy = parse(requirement);
    assert_eq!(verdict(&policy, "{}", vec![], false), Err(Code::Unsupported));
    assert!(foregone(policy.scopes()[0].requirements.iter().next().unwrap()).is_some());
}

/// Defaults are told too, because they are part of what is required.
#[test]
fn explain_says_in_words_what_is_required() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.json");
    let explain = |requirement: &str| {
        std::fs::write(&path, format!(r#"{{"default":[{requirement}]}}"#)).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vouchd"))
            .args(["explain", "--json", "--registries-d"])
            .arg(directory.path())
            .arg("--policy")
            .arg(&path)
            .arg("docker://quay.io/acme/os:1")
            .env_clear()
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["outcome"], "signature-required", "{requirement}");
        let endpoint = &report["endpoints"][0];
        let is_implied = requirement.contains("keyless") || requirement.contains("trustedRoot");
        assert_eq!(endpoint["use-sigstore-attachments"], is_implied, "{requirement}");
        assert_eq!(endpoint["attachments-origin"] == "implied by the policy", is_implied, "{requirement}");
        let requirement = &report["requirements"][0];
        let text = |name: &str| requirement[name].as_str().unwrap().to_owned();
        (text("description"), text("signed-identity"))
    };
    let unnamed = r#"matchRepositoryOrUnnamed: any tag or digest of "quay.io/acme/os", or no name"#;
    for (requirement, words, identity) in [
        (
            ours(""),
            r#"a certificate for any workflow of the repository "https://github.com/acme/os", at any branch or tag, but no pull or merge request, started by "push" or "release" or "schedule" or "workflow_dispatch" by way of "https://token.actions.githubusercontent.com", judged with the trusted root of this host"#,
            unnamed,
        ),
        (
            ours(r#","refs":["refs/tags/*"],"workflows":[".github/workflows/b.yml"],"triggers":["push"],"allowReusableWorkflow":true,"repositoryId":"1""#),
            r#"for the workflow ".github/workflows/b.yml" of the repository "https://github.com/acme/os", at "refs/tags/*", started by "push", which may have called a workflow of another repository, in which sourceRepositoryIdentifier is "1" by way of"#,
            unnamed,
        ),
        (
            keyless(r#""issuer":"https://accounts.google.com","subject":"a@b.example""#),
            r#"a certificate for "a@b.example" by way of "https://accounts.google.com""#,
            unnamed,
        ),
        (
            fulcio(r#""buildSignerURIRegExp":"w.*","sourceRepositoryURI":"r""#),
            r#"in which buildSignerURI is a full match of "w.*" and sourceRepositoryURI is "r", by way of "https://token.actions.githubusercontent.com", judged with the trusted root in "/r.json""#,
            r#"matchRepoDigestOrExact: "quay.io/acme/os:1""#,
        ),
        (
            r#"{"type":"sigstoreSigned","keyPath":"/k","messageSignature":true,"manifestAnnotations":{"a":"1"}}"#.to_owned(),
            r#"one over the manifest itself counts too; the manifest must have the annotation "a" with the value "1""#,
            r#"matchRepoDigestOrExact: "quay.io/acme/os:1""#,
        ),
        (
            r#"{"type":"sigstoreSigned","keyless":{"issuer":"i","subject":"s"},"trustedRootMaxAge":"2d"}"#.to_owned(),
            "judged with the trusted root of this host, at most 48 hours old",
            unnamed,
        ),
    ] {
        let (description, signed_identity) = explain(&requirement);
        assert!(description.contains(words), "{description}");
        assert_eq!(signed_identity, identity);
    }
}

/// Mistakes that other verifiers made, and that were proposed for this format.
mod mistakes_of_others {
    use super::*;

    fn identities() -> Vec<SignedIdentity> {
        [
            r#"{"type":"matchExact"}"#,
            r#"{"type":"matchRepoDigestOrExact"}"#,
            r#"{"type":"matchRepository"}"#,
            r#"{"type":"exactReference","dockerReference":"quay.io/acme/os:1"}"#,
            r#"{"type":"exactRepository","dockerRepository":"quay.io/acme/os"}"#,
            r#"{"type":"remapIdentity","prefix":"quay.io","signedPrefix":"quay.io"}"#,
        ]
        .iter()
        .map(|identity| {
            signed(&format!(r#"{{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{identity}}}"#))
                .identity
        })
        .collect()
    }

    // 1; T-16.
    #[test]
    fn a_statement_without_a_name_is_not_a_match() {
        let image = Named::parse("quay.io/acme/os:1").unwrap();
        for identity in identities() {
            let rejection = check_name(&identity, Some(&image), &SignedName::Unnamed).unwrap_err();
            assert_eq!(rejection.code(), Code::IdentityNotSigned, "{identity:?}");
            assert!(rejection.help().contains("matchRepositoryOrUnnamed"));
            assert!(rejection.to_string().contains("quay.io/acme/os"), "{rejection}");
            let empty = SignedName::Named(String::new());
            let rejection = check_name(&identity, Some(&image), &empty).unwrap_err();
            assert_eq!(rejection.code(), Code::IdentityMismatch, "{identity:?}");
        }
    }

    // 2, for attachments of cosign 2; bundles are not read yet.
    #[test]
    fn an_attestation_is_no_signature() {
        let policy = parse(r#"{"type":"sigstoreSigned","keyPath":"/k"}"#);
        let attestation = LocatedSignature {
            location: String::new(),
            signature: UntrustedSignature::Sigstore(UntrustedSigstore {
                mime_type: "application/vnd.dsse.envelope.v1+json".to_owned(),
                payload: b"{}".to_vec(),
                annotations: BTreeMap::new(),
            }),
        };
        assert_eq!(verdict(&policy, "{}", vec![attestation], false), Err(Code::Unsigned));
    }

    // 6.
    #[test]
    fn names_are_never_searched_and_never_missing() {
        let none = SigningIdentity::from_certificate(&certificate(vec![], vec![]));
        assert_eq!(none, Err(Malformed::Names));
        let evil =
            "https://github.com/evil/https://github.com/acme/os/.github/workflows/build.yml@refs/heads/main";
        for requirement in [
            ours(""),
            ours(r#","allowReusableWorkflow":true"#),
            keyless(&format!(r#""issuer":"{GITHUB}","subject":"{WORKFLOW}""#)),
            fulcio(&format!(r#""subjectURI":"{WORKFLOW}""#)),
            fulcio(r#""subjectURIRegExp":"https://github\\.com/acme/os/.*""#),
        ] {
            let build = Build::foreign_caller().signed_by(evil);
            assert!(judge(&requirement, &build).is_err(), "{requirement}");
        }
    }

    // 7.
    #[test]
    fn an_address_and_a_workflow_must_both_match() {
        let both = fulcio(&format!(
            r#""subjectEmail":"bot@acme.example","buildSignerURI":"{WORKFLOW}","sourceRepositoryURI":"{OURS}""#
        ));
        let mut build = Build::github();
        assert_eq!(code(&both, &build), "identity-mismatch-subject");
        build.name = email("bot@acme.example");
        assert_eq!(code(&both, &build), "");
        let other = build.with(9, "https://github.com/acme/os/.github/workflows/other.yml@refs/heads/main");
        assert_eq!(code(&both, &other), "identity-mismatch-workflow");
    }

    // 8; T-12.
    #[test]
    fn a_reusable_workflow_called_from_elsewhere_is_refused_where_the_repository_is_pinned() {
        let pinned = fulcio(&format!(r#""buildSignerURI":"{WORKFLOW}","sourceRepositoryURI":"{OURS}""#));
        assert_eq!(code(&pinned, &Build::github()), "");
        assert_eq!(code(&pinned, &Build::foreign_caller()), "identity-mismatch-repository");
    }

    // 9.
    #[test]
    fn half_an_identity_makes_the_whole_policy_unusable() {
        let whole = ours("");
        for half in [
            keyless(&format!(r#""issuer":"{GITHUB}""#)),
            keyless(&format!(r#""subject":"{OURS}""#)),
            fulcio(r#""buildTrigger":"push""#),
            fulcio(r#""sourceRepositoryRef":"refs/heads/main","runnerEnvironmentRegExp":".*""#),
            r#"{"type":"sigstoreSigned","fulcio":{"subjectURI":"u"},"trustedRootPath":"/r"}"#.to_owned(),
        ] {
            let text = format!(r#"{{"default":[{whole},{half}]}}"#);
            assert!(Policy::parse(text.as_bytes()).is_err(), "{half}");
            assert_eq!(problem(&half).0, Code::MissingKey, "{half}");
        }
    }

    // 11.
    #[test]
    fn a_policy_that_enforces_nothing_does_not_authenticate() {
        let policy = parse(r#"{"type":"insecureAcceptAnything"}"#);
        assert_eq!(verdict(&policy, "{}", vec![], false), Ok(false));
        assert_eq!(verdict(&policy, "{}", vec![], true), Err(Code::SignatureRequired));
    }

    // 12.
    #[test]
    fn without_a_signed_identity_there_is_still_one() {
        for (requirement, wanted) in [
            (ours(""), SignedIdentity::MatchRepositoryOrUnnamed),
            (fulcio(r#""subjectURI":"u""#), SignedIdentity::MatchRepoDigestOrExact),
            (
                r#"{"type":"sigstoreSigned","keyPath":"/k"}"#.to_owned(),
                SignedIdentity::MatchRepoDigestOrExact,
            ),
            (
                r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectEmail":"e"}}"#.to_owned(),
                SignedIdentity::MatchRepoDigestOrExact,
            ),
        ] {
            assert_eq!(signed(&requirement).identity, wanted, "{requirement}");
        }
    }
}
