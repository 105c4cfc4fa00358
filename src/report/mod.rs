//! [`Report`]: a verdict as data, the same in `--json` and over D-Bus.
//!
//! The keys are fixed by `schema`; keys may be added, and readers must ignore those they do not know.

mod explain;
mod inspect;
mod lint;
mod simulate;
mod status;
mod trust;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Position, Span};
use crate::engine::{Answer, Error, LoadedFile, LoadedPolicy, Undecided};
use crate::evaluate::identity::Binding;
use crate::evaluate::verdict::{
    Decision, Outcome, RequirementVerdict, Role, SignatureVerdict, SubjectVerdict, TrustedRootUse,
};
use crate::policy::Scope;
use crate::verify::{Rejection, Signer, trusted_root};

pub use explain::{EndpointReport, ExplainReport, ExplainedRequirement};
pub use inspect::{
    ExtensionReport, FailureReport, FindingReport, HearsayReport, InspectReport, InspectedManifestReport,
    ItemReport, LogEntryReport, PlaceReport, ProvenReport,
};
pub use lint::{LintFailure, LintFinding, LintPlace, LintRelated, LintReport, Linted};
pub use simulate::{Change, Counts, SimulateReport, SimulatedImage, SimulatedVerdict, Standing};
pub use status::{DaemonReport, FaultReport, Health, PolicyStateReport, RefusalReport, StatusReport};
pub use trust::{InstanceReport, STALE_AFTER_DAYS, TrustReport, TufReport};

/// The version of the keys.
pub const SCHEMA: u32 = 1;

/// Which process decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// The daemon, asked over D-Bus.
    Bus,
    /// The process that prints.
    Direct,
}

/// The answer to the question whether one image may be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The image as it was asked for.
    pub reference: String,
    /// Which process decided.
    pub route: Route,
    /// Whether the image may be used. All that a caller needs to look at.
    pub allowed: bool,
    /// Whether there is a verdict at all; if not, `allowed` is false.
    pub decided: bool,
    /// Whether a signature was required and verified.
    pub authenticated: bool,
    /// Why the image is refused or the question undecided; absent if it is allowed.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// What can be done about it.
    pub help: Option<String>,
    /// Digest of a manifest that was itself accepted.
    pub manifest_digest: Option<String>,
    /// Digest of the instance for the platform, if the image is an index and the instance was judged.
    pub instance_digest: Option<String>,
    /// Digest of what the reference names, judged or not.
    pub resolved_digest: Option<String>,
    /// The reference that names exactly what was allowed; absent where the transport cannot.
    pub pinned_reference: Option<String>,
    /// Whether the policy also accepts that reference; if not, pull by tag and compare digests. Absent if it is not
    /// known, because registries.conf leads digests to another place.
    pub pinned_reference_accepted: Option<bool>,
    /// Where the image really came from, if that is not where its name says.
    #[serde(default)]
    pub source: Option<String>,
    /// What other tools would say under the same policy; absent if only this process has it.
    #[serde(default)]
    pub would_accept: Option<WouldAcceptReport>,
    /// The policy file; absent if the options of the command were the policy.
    pub policy: Option<PolicyReport>,
    /// The scope that applied; absent where there is no policy file.
    pub scope: Option<ScopeReport>,
    /// Every requirement of every manifest that was judged.
    pub requirements: Vec<RequirementReport>,
    /// Every fault of a policy that is not valid, causes before their consequences.
    #[serde(default)]
    pub problems: Vec<ProblemReport>,
    /// The trusted roots that certificates were judged with.
    #[serde(default)]
    pub trusted_roots: Vec<TrustedRootReport>,
    /// Things to know that do not change the answer.
    pub warnings: Vec<String>,
    /// The number of requests that were made.
    pub requests: u64,
}

/// A trusted root that was used, and its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrustedRootReport {
    /// Where it is from.
    pub source: String,
    /// Until when it was known to be current; absent if that is not known.
    pub current_until: Option<String>,
    /// Whether that is so long ago that it may lack what signers use today.
    pub stale: bool,
}

/// Whether other tools would use the image; absent where what they judge was not looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WouldAcceptReport {
    /// podman, and buildah and CRI-O likewise.
    pub podman: Option<bool>,
    /// `skopeo copy`.
    pub skopeo_copy: Option<bool>,
    /// The skopeo image proxy since 2026-04, on which bootc and rpm-ostree rely.
    pub skopeo_image_proxy: Option<bool>,
}

/// A policy file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyReport {
    /// Where it is.
    pub path: String,
    /// SHA-256 of its bytes.
    pub digest: String,
}

/// A scope and its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScopeReport {
    /// The transport; absent for `default`.
    pub transport: Option<String>,
    /// The scope; `default` for the policy's default, empty for the transport's.
    pub name: String,
    /// The policy file.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

/// A fault of the policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProblemReport {
    /// The kind of fault.
    pub code: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// The judgement of one requirement for one manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RequirementReport {
    /// `top-level` or `instance`.
    pub subject: String,
    /// Digest of that manifest.
    pub digest: Option<String>,
    /// Type of the requirement.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is satisfied.
    pub satisfied: bool,
    /// If not, why.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// The signatures that were looked at.
    pub signatures: Vec<SignatureReport>,
}

/// The judgement of one signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SignatureReport {
    /// `simple-signing` or `sigstore`.
    pub kind: String,
    /// Where it was found.
    pub location: String,
    /// Whether it counts.
    pub accepted: bool,
    /// If not, why.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// Who signed, if it verified.
    pub signer: Option<SignerReport>,
    /// When: as the signer says, or as the signature proves if it comes with a certificate.
    pub time: Option<String>,
    /// Whether the name of the image is signed, and not its digest alone (T-16).
    #[serde(default)]
    pub reference_bound: Option<bool>,
}

/// A verified signer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SignerReport {
    /// `openpgp`, `public-key` or `certificate`.
    pub kind: String,
    /// OpenPGP fingerprint, or SHA-256 of the SubjectPublicKeyInfo.
    pub id: String,
    /// Of a certificate: who vouches for the name.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Of a certificate: the name that the policy asks for.
    #[serde(default)]
    pub subject: Option<String>,
}

impl SignerReport {
    /// The report of a signer.
    pub fn of(signer: &Signer) -> Self {
        let key = |kind: &str, id: String| Self { kind: kind.to_owned(), id, issuer: None, subject: None };
        match signer {
            Signer::Certificate { spki, issuer, subject } => Self {
                issuer: Some(issuer.clone()),
                subject: Some(subject.clone()),
                ..key("certificate", spki.to_string())
            },
            Signer::OpenPgp { fingerprint } => key("openpgp", fingerprint.clone()),
            Signer::PublicKey { spki } => key("public-key", spki.to_string()),
        }
    }
}

impl Report {
    /// The report of a verdict.
    pub fn of_answer(reference: &str, route: Route, answer: &Answer) -> Self {
        let (verdict, image) = (&answer.verdict, answer.image.docker_reference());
        let file = answer.policy.file.as_ref();
        let (manifest_digest, rejection) = match &verdict.decision {
            Decision::Allow(grant) => (grant.digest(), None),
            Decision::Deny(rejection) => (None, Some(rejection)),
        };
        Self {
            schema: SCHEMA,
            reference: reference.to_owned(),
            route,
            allowed: rejection.is_none(),
            decided: true,
            authenticated: verdict.authenticated,
            code: rejection.map(|r| r.code().to_string()),
            message: rejection.map(ToString::to_string),
            help: rejection.map(|r| r.help().to_owned()),
            manifest_digest: manifest_digest.map(ToString::to_string),
            instance_digest: answer.instance_digest().map(ToString::to_string),
            resolved_digest: verdict.resolved_digest.as_ref().map(ToString::to_string),
            pinned_reference: answer.pinned.as_ref().map(|p| p.text().to_owned()),
            pinned_reference_accepted: answer.pinned_accepted,
            source: answer.source.as_ref().filter(|s| Some(*s) != image).map(|s| format!("docker://{s}")),
            would_accept: file.map(|_| WouldAcceptReport {
                podman: verdict.others.copy,
                skopeo_copy: verdict.others.copy,
                skopeo_image_proxy: verdict.others.image_proxy,
            }),
            policy: file.map(policy_report),
            scope: file.map(|file| scope_report(file, &verdict.scope, verdict.scope_span)),
            requirements: verdict.subjects.iter().flat_map(requirements).collect(),
            problems: Vec::new(),
            trusted_roots: verdict.trusted_roots.iter().map(trusted_root).collect(),
            // They are about other tools, which judge by a policy of their own if this one is in no file.
            warnings: file
                .into_iter()
                .flat_map(|_| &verdict.warnings)
                .map(|w| (*w).to_owned())
                .chain(answer.warnings.iter().cloned())
                .chain(verdict.trusted_roots.iter().filter_map(stale))
                .collect(),
            requests: u64::try_from(answer.requests).unwrap_or(u64::MAX),
        }
    }

    /// The report of a question that could not be decided: the image must not be used.
    pub fn of_error(reference: &str, route: Route, error: &Error) -> Self {
        let mut report =
            Self::undecided(reference, route, error.code().as_str(), error.to_string(), error.help());
        if let Error::PolicyInvalid { problems, .. } = error {
            report.problems = problems.iter().map(problem).collect();
        }
        report
    }

    /// As [`Report::of_error`], with how far it got.
    pub fn of_undecided(reference: &str, route: Route, undecided: &Undecided) -> Self {
        let mut report = Self::of_error(reference, route, &undecided.error);
        if let Some(LoadedPolicy { file: Some(file), .. }) = undecided.policy.as_deref() {
            report.policy = Some(policy_report(file));
            report.scope = undecided.scope.as_ref().map(|(scope, span)| scope_report(file, scope, *span));
        }
        report.requests = u64::try_from(undecided.requests).unwrap_or(u64::MAX);
        report
    }

    /// As [`Report::of_error`], from its parts.
    pub fn undecided(reference: &str, route: Route, code: &str, message: String, help: &str) -> Self {
        Self {
            schema: SCHEMA,
            reference: reference.to_owned(),
            route,
            allowed: false,
            decided: false,
            authenticated: false,
            code: Some(code.to_owned()),
            message: Some(message),
            help: Some(help.to_owned()).filter(|help| !help.is_empty()),
            manifest_digest: None,
            instance_digest: None,
            resolved_digest: None,
            pinned_reference: None,
            pinned_reference_accepted: Some(false),
            source: None,
            would_accept: None,
            policy: None,
            scope: None,
            requirements: Vec::new(),
            problems: Vec::new(),
            trusted_roots: Vec::new(),
            warnings: Vec::new(),
            requests: 0,
        }
    }
}

fn trusted_root(used: &TrustedRootUse) -> TrustedRootReport {
    let TrustedRootUse { source, current_until, is_stale } = used;
    let current_until = current_until.map(|time| time.to_string());
    TrustedRootReport { source: source.clone(), current_until, stale: *is_stale }
}

fn stale(used: &TrustedRootUse) -> Option<String> {
    used.current_until.filter(|_| used.is_stale).map(|time| trusted_root::warning(&used.source, time))
}

fn policy_report(file: &LoadedFile) -> PolicyReport {
    PolicyReport { path: file.path.to_string_lossy().into_owned(), digest: file.digest.to_string() }
}

fn scope_report(file: &LoadedFile, scope: &Scope, span: Span) -> ScopeReport {
    let (line, column) = place(span.position(&file.text));
    let (transport, name) = match scope {
        Scope::Default => (None, "default".to_owned()),
        Scope::Transport { transport, name } => (Some(transport.clone()), name.clone()),
    };
    ScopeReport { transport, name, file: file.path.to_string_lossy().into_owned(), line, column }
}

fn problem((position, problem): &(Position, Diagnostic)) -> ProblemReport {
    let (line, column) = place(*position);
    let (message, help) = (problem.message.clone(), problem.help.clone());
    ProblemReport { code: problem.code.to_string(), line, column, message, help }
}

fn place(position: Position) -> (u64, u64) {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    (number(position.line), number(position.column))
}

fn requirements(subject: &SubjectVerdict) -> Vec<RequirementReport> {
    let role = match subject.role {
        Role::Instance => "instance",
        Role::TopLevel => "top-level",
    };
    let report = |requirement: &RequirementVerdict| {
        let rejection = match &requirement.outcome {
            Outcome::Accepted => None,
            Outcome::Rejected(reasons) => reasons.iter().max_by_key(|r| r.rank()),
        };
        RequirementReport {
            subject: role.to_owned(),
            digest: subject.digest.as_ref().map(ToString::to_string),
            kind: requirement.kind.to_owned(),
            satisfied: rejection.is_none(),
            code: rejection.map(|r| r.code().to_string()),
            message: rejection.map(Rejection::to_string),
            signatures: requirement.signatures.iter().map(signature).collect(),
        }
    };
    subject.requirements.iter().map(report).collect()
}

fn signature(verdict: &SignatureVerdict) -> SignatureReport {
    let rejection = verdict.result.as_ref().err();
    let accepted = verdict.result.as_ref().ok();
    SignatureReport {
        kind: verdict.kind.to_owned(),
        location: verdict.location.clone(),
        accepted: accepted.is_some(),
        code: rejection.map(|r| r.code().to_string()),
        message: rejection.map(ToString::to_string),
        signer: accepted.map(|accepted| SignerReport::of(&accepted.signer)),
        time: accepted.and_then(|accepted| accepted.time.map(|t| t.to_string())),
        reference_bound: accepted.map(|accepted| accepted.binding == Binding::Name),
    }
}
