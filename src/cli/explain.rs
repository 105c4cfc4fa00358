//! `vouchd explain`

use clap::Args;
use serde::Serialize;

use crate::config::{Environment, Origin};
use crate::engine::{Engine, Explanation};
use crate::policy::{KeySource, Policy, Requirement, Scope, SignedBy, Signer, SigstoreSigned};
use crate::report::{Report, Route};

use super::{ConfigurationArguments, Exit, print};

/// Explain, offline, what the policy requires of an image and where
/// signatures are looked for
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// The image, such as docker://quay.io/acme/app:1.2
    #[arg(value_name = "REF")]
    reference: String,

    #[command(flatten)]
    configuration: ConfigurationArguments,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    /// As root, let the files and variables of the user count too
    #[arg(long)]
    user_config: bool,
}

/// What is printed; the keys are those of `ExplainImage` on the bus.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ExplainReport {
    pub(super) schema: u32,
    pub(super) reference: String,
    /// What is compared with scopes.
    pub(super) normalized_reference: String,
    pub(super) policy_path: String,
    pub(super) policy_digest: String,
    pub(super) transport: Option<String>,
    /// `default`, or a scope of the transport.
    pub(super) scope: String,
    pub(super) line: usize,
    pub(super) column: usize,
    /// The scopes that were tried, up to the one that matched.
    pub(super) scope_chain: Vec<String>,
    /// `accept-anything`, `reject`, `signature-required` or `unsupported`.
    pub(super) outcome: &'static str,
    pub(super) requirements: Vec<RequirementReport>,
    pub(super) stores: Option<StoresReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RequirementReport {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// What it asks for, in words.
    pub(super) description: String,
    pub(super) signed_identity: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct StoresReport {
    pub(super) lookaside: String,
    pub(super) lookaside_origin: Option<String>,
    pub(super) use_sigstore_attachments: bool,
    pub(super) attachments_origin: Option<String>,
}

pub(super) fn run(command: Explain) -> Exit {
    let environment = Environment::from_process(command.user_config);
    let explained = Engine::new(command.configuration.settings(environment))
        .and_then(|engine| engine.explain(&super::verify::complete(&command.reference)));
    match explained {
        Ok(explanation) => {
            let report = report(&command.reference, &explanation);
            if command.json {
                print::json(&report)
            } else {
                print::explanation(&report)
            }
            Exit::Success
        }
        Err(error) => {
            let report = Report::of_error(&command.reference, Route::Direct, &error);
            if command.json {
                print::json(&report)
            } else {
                print::refusal(&report)
            }
            super::verify::exit_of(&error)
        }
    }
}

fn report(reference: &str, explanation: &Explanation) -> ExplainReport {
    let matched = explanation.matched();
    let position = matched.span.position(&explanation.policy.text);
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
    let origin = |origin: &Origin| origin.to_string();
    ExplainReport {
        schema: crate::report::SCHEMA,
        reference: reference.to_owned(),
        normalized_reference: explanation.image.policy_identity().to_owned(),
        policy_path: explanation.policy.path.to_string_lossy().into_owned(),
        policy_digest: explanation.policy.digest.to_string(),
        transport,
        scope,
        line: position.line,
        column: position.column,
        scope_chain,
        outcome: outcome(&requirements),
        requirements: requirements.iter().map(|r| describe(r, explanation)).collect(),
        stores: explanation.stores.as_ref().map(|stores| StoresReport {
            lookaside: stores.lookaside.clone(),
            lookaside_origin: stores.lookaside_origin.as_ref().map(origin),
            use_sigstore_attachments: stores.attachments,
            attachments_origin: stores.attachments_origin.as_ref().map(origin),
        }),
    }
}

fn outcome(requirements: &[&Requirement]) -> &'static str {
    let any = |test: fn(&Requirement) -> bool| requirements.iter().any(|r| test(r));
    if any(|r| matches!(r, Requirement::Reject)) {
        "reject"
    } else if any(|r| crate::evaluate::foregone(r).is_some()) {
        "unsupported"
    } else if any(Requirement::verifies_signatures) {
        "signature-required"
    } else {
        "accept-anything"
    }
}

fn describe(requirement: &Requirement, explanation: &Explanation) -> RequirementReport {
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
        Requirement::SigstoreSigned(SigstoreSigned { signer, identity }) => {
            let description = match signer {
                Signer::Keys { keys, rekor: None } => {
                    format!("a sigstore signature by the public key in {}", source(keys))
                }
                Signer::Keys { keys, rekor: Some(_) } => {
                    format!("a sigstore signature by the public key in {}, and its log entry", source(keys))
                }
                Signer::Fulcio { fulcio, .. } => format!(
                    "a sigstore signature with a certificate for \"{}\" by way of \"{}\", and its log entry",
                    fulcio.subject_email, fulcio.oidc_issuer
                ),
                Signer::Pki(_) => "a sigstore signature with a certificate of the given authority".to_owned(),
            };
            (description, Some(identity))
        }
    };
    let unsupported = crate::evaluate::foregone(requirement)
        .filter(|_| !matches!(requirement, Requirement::Reject))
        .map(|rejection| format!("; {rejection}"));
    RequirementReport {
        kind: requirement.kind(),
        description: description + unsupported.as_deref().unwrap_or_default(),
        signed_identity: identity.map(|i| format!("{}: {}", i.kind(), i.wanted(image))),
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
