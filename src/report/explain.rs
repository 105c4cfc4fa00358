//! [`ExplainReport`]: what the policy requires of an image, as data.

use serde::Serialize;

use crate::config::Origin;
use crate::engine::{ExplainedEndpoint, Explanation};
use crate::evaluate;
use crate::policy::certificate::{
    CertificateFlags, CertificateIdentity, FulcioIdentity, FulcioSubject, Keyless, KeylessSubject, MaxAge,
    Pin, Refs, Repository, Reusable, RootSource, TrustedRoot, Workflows,
};
use crate::policy::{
    KeySource, Pki, PkiSubject, Policy, Requirement, Scope, SignedBy, Signer, SigstoreSigned,
};

use super::SCHEMA;

/// What would be required of an image; the keys are those of `ExplainImage` on the bus.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExplainReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The image as it was asked for.
    pub reference: String,
    /// What is compared with scopes.
    pub normalized_reference: String,
    /// The policy file; empty if the policy is in none.
    pub policy_path: String,
    /// SHA-256 of its bytes.
    pub policy_digest: String,
    /// The transport of the scope; absent for `default`.
    pub transport: Option<String>,
    /// `default`, or a scope of the transport.
    pub scope: String,
    /// Line of the scope, from 1.
    pub line: usize,
    /// Column of the scope, from 1.
    pub column: usize,
    /// The scopes that were tried, up to the one that matched.
    pub scope_chain: Vec<String>,
    /// `accept-anything`, `reject`, `signature-required` or `unsupported`.
    pub outcome: &'static str,
    /// Every requirement of the scope.
    pub requirements: Vec<ExplainedRequirement>,
    /// Where the image and its signatures are looked for, in this order; none for images outside registries.
    pub endpoints: Vec<EndpointReport>,
    /// Things to know that change nothing.
    pub warnings: Vec<String>,
}

/// A requirement in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExplainedRequirement {
    /// Type of the requirement.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it asks for.
    pub description: String,
    /// Which signed names it accepts for this image.
    pub signed_identity: Option<String>,
}

/// A place where an image is looked for, and where its signatures then are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointReport {
    /// The image by the name that it has there.
    pub reference: String,
    /// Whether it is a mirror: if it does not have the image, the next one is asked.
    pub mirror: bool,
    /// Whether the registry need not prove who it is, and may speak plain HTTP.
    pub insecure: bool,
    /// Why it is not asked, if registries.conf blocks it.
    pub blocked: Option<String>,
    /// The lookaside store, without credentials.
    pub lookaside: String,
    /// Where it is set; absent if it is the built-in one.
    pub lookaside_origin: Option<String>,
    /// Whether sigstore attachments are looked for.
    pub use_sigstore_attachments: bool,
    /// Where that is set; absent if it is the built-in no.
    pub attachments_origin: Option<String>,
}

impl ExplainReport {
    /// The report of an explanation.
    pub fn of(reference: &str, explanation: &Explanation) -> Self {
        let matched = explanation.matched();
        let file = explanation.policy.file.as_ref();
        let position = matched.span.position(file.map(|file| file.text.as_slice()).unwrap_or_default());
        let (transport, scope) = match &matched.scope {
            Scope::Default => (None, "default".to_owned()),
            Scope::Transport { transport, name } => (Some(transport.clone()), name.clone()),
        };
        let mut scope_chain: Vec<String> = Vec::new();
        for candidate in Policy::candidates(&explanation.image) {
            if !scope_chain.iter().any(|known| known == candidate) {
                scope_chain.push(candidate.to_owned());
            }
            if transport.is_some() && candidate == scope {
                break;
            }
        }
        if transport.is_none() {
            scope_chain.push("default".to_owned());
        }
        let requirements: Vec<&Requirement> = matched.requirements.iter().collect();
        Self {
            schema: SCHEMA,
            reference: reference.to_owned(),
            normalized_reference: explanation.image.policy_identity().to_owned(),
            policy_path: file.map(|file| file.path.to_string_lossy().into_owned()).unwrap_or_default(),
            policy_digest: file.map(|file| file.digest.to_string()).unwrap_or_default(),
            transport,
            scope,
            line: position.line,
            column: position.column,
            scope_chain,
            outcome: outcome(&requirements),
            requirements: requirements.iter().map(|r| describe(r, explanation)).collect(),
            endpoints: {
                let implied = requirements.iter().any(|r| r.implies_attachments());
                explanation.endpoints.iter().map(|e| endpoint(e, implied)).collect()
            },
            warnings: explanation.note.iter().cloned().collect(),
        }
    }
}

fn endpoint(explained: &ExplainedEndpoint, implied: bool) -> EndpointReport {
    let ExplainedEndpoint { endpoint, stores } = explained;
    EndpointReport {
        reference: format!("docker://{}", endpoint.image),
        mirror: endpoint.is_mirror,
        insecure: endpoint.insecure,
        blocked: endpoint.blocked.as_ref().map(ToString::to_string),
        lookaside: stores.lookaside.clone(),
        lookaside_origin: stores.lookaside_origin.as_ref().map(Origin::to_string),
        use_sigstore_attachments: stores.attachments || implied,
        attachments_origin: if implied && !stores.attachments {
            Some("implied by the policy".to_owned())
        } else {
            stores.attachments_origin.as_ref().map(Origin::to_string)
        },
    }
}

fn outcome(requirements: &[&Requirement]) -> &'static str {
    let any = |test: fn(&Requirement) -> bool| requirements.iter().any(|r| test(r));
    if any(|r| matches!(r, Requirement::Reject)) {
        "reject"
    } else if any(|r| evaluate::foregone(r).is_some()) {
        "unsupported"
    } else if any(Requirement::verifies_signatures) {
        "signature-required"
    } else {
        "accept-anything"
    }
}

fn describe(requirement: &Requirement, explanation: &Explanation) -> ExplainedRequirement {
    let image = explanation.image.docker_reference();
    let (description, identity) = match requirement {
        Requirement::InsecureAcceptAnything => ("any image is accepted, signed or not".to_owned(), None),
        Requirement::Reject => ("every image is refused".to_owned(), None),
        Requirement::SignedBaseLayer(_) => {
            ("no tool implements this: every image is refused".to_owned(), None)
        }
        Requirement::SignedBy(SignedBy { keys, identity, .. }) => {
            (format!("a simple-signing signature by an OpenPGP key in {}", source(keys)), Some(identity))
        }
        Requirement::SigstoreSigned(signed) => (sigstore(signed), Some(&signed.identity)),
    };
    let unsupported = evaluate::foregone(requirement)
        .filter(|_| !matches!(requirement, Requirement::Reject))
        .map(|rejection| format!("; {rejection}"));
    ExplainedRequirement {
        kind: requirement.kind(),
        description: description + unsupported.as_deref().unwrap_or_default(),
        signed_identity: identity.map(|i| format!("{}: {}", i.kind(), i.wanted(image))),
    }
}

fn sigstore(signed: &SigstoreSigned) -> String {
    let mut words = match &signed.signer {
        Signer::Certificate { identity, root } => {
            format!("a sigstore signature with a certificate {}, {}", holder(identity), rooted(root))
        }
        Signer::Fulcio { fulcio, .. } => format!(
            "a sigstore signature with a certificate {}, issued by an authority in {}, and its log entry",
            fulcio_holder(&fulcio.identity),
            source(&fulcio.ca)
        ),
        Signer::Keys { keys, rekor: None } => {
            format!("a sigstore signature by the public key in {}", source(keys))
        }
        Signer::Keys { keys, rekor: Some(_) } => {
            format!("a sigstore signature by the public key in {}, and its log entry", source(keys))
        }
        Signer::Pki(Pki { roots, subject, .. }) => {
            let subject = match subject {
                PkiSubject::Email(name) | PkiSubject::Hostname(name) => format!("\"{name}\""),
                PkiSubject::Both { email, hostname } => format!("\"{email}\" and \"{hostname}\""),
            };
            format!(
                "a sigstore signature with a certificate for {subject} that is valid now, issued by an authority in {}",
                source(roots)
            )
        }
    };
    if signed.message_signature {
        words.push_str("; one over the manifest itself counts too");
    }
    for (name, value) in &signed.manifest_annotations {
        words.push_str(&format!(
            "; the manifest must have the annotation \"{name}\" with the value \"{value}\""
        ));
    }
    words
}

fn holder(identity: &CertificateIdentity) -> String {
    match identity {
        CertificateIdentity::Flags(CertificateFlags { issuer, subject, pins }) => {
            format!("for {subject} by way of {issuer}{}", conditions(pins))
        }
        CertificateIdentity::Fulcio(fulcio) => fulcio_holder(fulcio),
        CertificateIdentity::Keyless(Keyless { issuer, subject }) => {
            let subject = match subject {
                KeylessSubject::Identity(subject) => format!("for \"{subject}\""),
                KeylessSubject::Repository(repository) => builds(repository),
            };
            format!("{subject} by way of \"{issuer}\"")
        }
    }
}

fn fulcio_holder(FulcioIdentity { oidc_issuer, subject }: &FulcioIdentity) -> String {
    match subject {
        FulcioSubject::Email(email) => format!("for \"{email}\" by way of \"{oidc_issuer}\""),
        FulcioSubject::Pins(pins) => {
            let pins: Vec<String> =
                pins.iter().map(|pin| format!("{} is {}", pin.field.name(), pin.wanted)).collect();
            format!("in which {}, by way of \"{oidc_issuer}\"", pins.join(" and "))
        }
    }
}

/// What counts as a build of the repository, defaults included.
fn builds(repository: &Repository) -> String {
    let list =
        |items: Vec<String>| items.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(" or ");
    let workflows = match &repository.workflows {
        Workflows::All => "any workflow".to_owned(),
        Workflows::Only(globs) => {
            format!("the workflow {}", list(globs.iter().map(ToString::to_string).collect()))
        }
    };
    let refs = match &repository.refs {
        Refs::NoRequests => "any branch or tag, but no pull or merge request".to_owned(),
        Refs::Only(globs) => list(globs.iter().map(ToString::to_string).collect()),
    };
    let triggers = list(repository.triggers.iter().cloned().collect());
    let mut words =
        format!("for {workflows} of the repository \"{}\", at {refs}, started by {triggers}", repository.uri);
    match repository.reusable {
        Reusable::Foreign => words.push_str(", which may have called a workflow of another repository"),
        Reusable::Own => {}
    }
    words + &conditions(&repository.pins)
}

fn conditions(pins: &[Pin]) -> String {
    pins.iter().map(|pin| format!(", in which {} is {}", pin.field.name(), pin.wanted)).collect()
}

fn rooted(TrustedRoot { source, max_age }: &TrustedRoot) -> String {
    let words = match source {
        RootSource::Data(_) => "judged with the trusted root in the policy itself".to_owned(),
        RootSource::Host => "judged with the trusted root of this host".to_owned(),
        RootSource::Path(path) => format!("judged with the trusted root in \"{path}\""),
    };
    match max_age {
        MaxAge::Seconds(seconds) => format!("{words}, at most {} hours old", seconds / 3_600),
        MaxAge::Unlimited => words,
    }
}

fn source(keys: &KeySource) -> String {
    match keys.paths() {
        [] => "the policy itself".to_owned(),
        paths => {
            let quoted: Vec<String> = paths.iter().map(|path| format!("\"{path}\"")).collect();
            quoted.join(" or ")
        }
    }
}
