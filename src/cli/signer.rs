//! Whose signature counts, said in flags by cosign's names: a policy for this run.

use std::collections::BTreeMap;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::nonempty::NonEmpty;
use crate::policy::certificate::{
    CertificateFlags, CertificateIdentity, Field, Forge, Keyless, KeylessSubject, MaxAge, Pin, Refs,
    Repository, RootSource, TrustedRoot, Wanted,
};
use crate::policy::pattern::{Glob, Pattern};
use crate::policy::{KeySource, Policy, Requirement, SignedIdentity, Signer, SigstoreSigned};

/// Who must have signed, in place of a policy. What may stand together is cosign's rule.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Signer, in place of every policy.json; the names are cosign's")]
#[group(id = "signer", multiple = true, conflicts_with_all = ["policy", "bus"])]
pub(super) struct SignerArguments {
    /// The signer's public key, as PEM. No log entry is required; if an image
    /// is named in what is signed, it must be of the same repository
    #[arg(long, value_name = "FILE", value_parser = parse_key, conflicts_with_all = OF_CERTIFICATES)]
    key: Option<String>,

    /// The name in the signer's certificate, exactly; or a repository on GitHub
    /// or GitLab, for its own builds. As with --key, an image that is named
    /// must be of the same repository
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    #[arg(group = "identity", requires = "issuer")]
    certificate_identity: Option<String>,

    /// The same as a regular expression. Unlike cosign's it must match all of
    /// the name; one that ends with ".*" may match pull requests, too
    #[arg(long, value_name = "RE", value_parser = parse_pattern)]
    #[arg(group = "identity", requires = "issuer")]
    certificate_identity_regexp: Option<Pattern>,

    /// Who vouched for that name, exactly
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    #[arg(group = "issuer", requires = "identity")]
    certificate_oidc_issuer: Option<String>,

    /// The same as a regular expression, which must match all of it, too
    #[arg(long, value_name = "RE", value_parser = parse_pattern)]
    #[arg(group = "issuer", requires = "identity")]
    certificate_oidc_issuer_regexp: Option<Pattern>,

    /// The event on GitHub, such as push
    #[arg(long, value_name = "VALUE", value_parser = NonEmptyStringValueParser::new())]
    #[arg(requires = "identity")]
    certificate_github_workflow_trigger: Option<String>,

    /// The commit on GitHub
    #[arg(long, value_name = "VALUE", value_parser = NonEmptyStringValueParser::new())]
    #[arg(requires = "identity")]
    certificate_github_workflow_sha: Option<String>,

    /// The name of the workflow on GitHub
    #[arg(long, value_name = "VALUE", value_parser = NonEmptyStringValueParser::new())]
    #[arg(requires = "identity")]
    certificate_github_workflow_name: Option<String>,

    /// The repository that started the workflow, as OWNER/NAME
    #[arg(long, value_name = "VALUE", value_parser = NonEmptyStringValueParser::new())]
    #[arg(requires = "identity")]
    certificate_github_workflow_repository: Option<String>,

    /// The branch or tag on GitHub, such as refs/heads/main
    #[arg(long, value_name = "VALUE", value_parser = NonEmptyStringValueParser::new())]
    #[arg(requires = "identity")]
    certificate_github_workflow_ref: Option<String>,

    /// Use this trusted root in place of this host's
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    #[arg(requires = "identity")]
    trusted_root: Option<String>,

    /// What the signature itself must say; may be repeated
    #[arg(short = 'a', long, value_name = "KEY=VALUE", value_parser = parse_annotation)]
    annotations: Vec<(String, String)>,
}

impl SignerArguments {
    /// The policy that the flags make; `None` without any flag.
    pub(super) fn policy(&self) -> Result<Option<Policy>, String> {
        let issuer = wanted(&self.certificate_oidc_issuer, &self.certificate_oidc_issuer_regexp);
        let subject = wanted(&self.certificate_identity, &self.certificate_identity_regexp);
        let pins = self.pins();
        let signer = match (&self.key, subject, issuer) {
            (Some(key), None, None) if pins.is_empty() && self.trusted_root.is_none() => {
                Signer::Keys { keys: KeySource::Path(key.clone()), rekor: None }
            }
            (None, Some(subject), Some(issuer)) => {
                let source = match &self.trusted_root {
                    Some(path) => RootSource::Path(path.clone()),
                    None => RootSource::Host,
                };
                Signer::Certificate {
                    identity: Box::new(self.identity(issuer, subject, pins)),
                    root: TrustedRoot { source, max_age: MaxAge::Unlimited },
                }
            }
            (None, None, None)
                if pins.is_empty() && self.trusted_root.is_none() && self.annotations.is_empty() =>
            {
                return Ok(None);
            }
            (Some(_) | None, Some(_) | None, Some(_) | None) => {
                return Err("who must have signed is not said: give either --key, or \
                            --certificate-identity and --certificate-oidc-issuer"
                    .to_owned());
            }
        };
        let mut signed_annotations = BTreeMap::new();
        for (name, value) in &self.annotations {
            if signed_annotations.insert(name.clone(), value.clone()).is_some() {
                return Err(format!("the annotation \"{name}\" is given twice: give it once"));
            }
        }
        Ok(Some(Policy::of(Requirement::SigstoreSigned(SigstoreSigned {
            signer,
            // cosign compares the digest alone; a name that was signed must be the image's here.
            identity: SignedIdentity::MatchRepositoryOrUnnamed,
            message_signature: false,
            manifest_annotations: BTreeMap::new(),
            signed_annotations,
            has_members_of_ours: true,
            // What registries.d says is said for podman, and nobody wrote a policy for podman here.
            implies_attachments: true,
        }))))
    }

    /// Whose certificate it must be. As in a policy, the address of a repository means whatever is built from it.
    fn identity(&self, issuer: Wanted, subject: Wanted, pins: Vec<Pin>) -> CertificateIdentity {
        let (Wanted::Exact(exact_issuer), Wanted::Exact(uri)) = (&issuer, &subject) else {
            return CertificateIdentity::Flags(CertificateFlags { issuer, subject, pins });
        };
        let Some(forge) = Forge::of_repository(exact_issuer, uri) else {
            return CertificateIdentity::Flags(CertificateFlags { issuer, subject, pins });
        };
        let mut repository = Repository { pins, ..Repository::plain(forge, uri.clone()) };
        // What the flags name may be what else only a policy could ask for.
        if let Some(event) = &self.certificate_github_workflow_trigger {
            repository.triggers = NonEmpty::one(event.clone());
        }
        if let Some(glob) = self.certificate_github_workflow_ref.as_deref().and_then(Glob::parse) {
            repository.refs = Refs::Only(NonEmpty::one(glob));
        }
        let subject = KeylessSubject::Repository(repository);
        CertificateIdentity::Keyless(Keyless { issuer: exact_issuer.clone(), subject })
    }

    /// Those that say something about a build on GitHub.
    fn pins(&self) -> Vec<Pin> {
        let flags = [
            (Field::GithubWorkflowTrigger, &self.certificate_github_workflow_trigger),
            (Field::GithubWorkflowSha, &self.certificate_github_workflow_sha),
            (Field::GithubWorkflowName, &self.certificate_github_workflow_name),
            (Field::GithubWorkflowRepository, &self.certificate_github_workflow_repository),
            (Field::GithubWorkflowRef, &self.certificate_github_workflow_ref),
        ];
        let pin = |(field, value): (Field, &Option<String>)| {
            value.clone().map(|value| Pin { field, wanted: Wanted::Exact(value) })
        };
        flags.into_iter().filter_map(pin).collect()
    }
}

/// The one of the two flags that is given.
fn wanted(exact: &Option<String>, pattern: &Option<Pattern>) -> Option<Wanted> {
    let pattern = pattern.clone().map(Wanted::Pattern);
    exact.clone().map(Wanted::Exact).or(pattern)
}

/// cosign also takes addresses of services that keep keys, which must not be taken for files that are missing.
fn parse_key(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the name of a file is wanted".to_owned()),
        _ if text.contains("://") => {
            Err("keys are read from files only; save the public key in one".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

fn parse_pattern(text: &str) -> Result<Pattern, String> {
    match text {
        "" => Err("an empty expression matches no name".to_owned()),
        _ => Pattern::new(text).map_err(|error| error.to_string()),
    }
}

fn parse_annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("the form is KEY=VALUE".to_owned()),
    }
}

/// What a key says nothing about.
const OF_CERTIFICATES: [&str; 10] = [
    "certificate_identity",
    "certificate_identity_regexp",
    "certificate_oidc_issuer",
    "certificate_oidc_issuer_regexp",
    "certificate_github_workflow_trigger",
    "certificate_github_workflow_sha",
    "certificate_github_workflow_name",
    "certificate_github_workflow_repository",
    "certificate_github_workflow_ref",
    "trusted_root",
];
