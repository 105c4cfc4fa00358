//! Where policy and signature meet: whose certificate it is, which image is named, what the manifest says.

use std::collections::BTreeMap;

use crate::diagnostic::clip;
use crate::digest::Digest;
use crate::json::{self, Limits};
use crate::policy::certificate::{
    CertificateFlags, CertificateIdentity, Field, Forge, FulcioIdentity, FulcioSubject, Keyless,
    KeylessSubject, Pin, Pins, Refs, Repository, Reusable, Workflows,
};
use crate::policy::{Requirement, SignedIdentity, SigstoreSigned};
use crate::reference::Named;
use crate::verify::bundle::{BundleClaim, BundleSigner};
use crate::verify::identity::{Extension, Part, SigningIdentity};
use crate::verify::payload::SignedName;
use crate::verify::{Rejection, Signer, Verified};

/// How an accepted signature is bound to the name that was asked for (T-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// By its digest alone: the signer may have meant it for another name.
    Digest,
    /// By a signed name.
    Name,
}

/// The signed name must be one that the policy accepts for the image.
///
/// Rules I-1 to I-9; T-16: no name is accepted only where the policy says so, and what is no name is not "no name".
pub fn check_name(
    identity: &SignedIdentity,
    image: Option<&Named>,
    signed: &SignedName,
) -> Result<Binding, Rejection> {
    let mismatch = |signed: &str| {
        Err(Rejection::IdentityMismatch { signed: clip(signed), wanted: identity.wanted(image) })
    };
    match signed {
        SignedName::Named(name) if identity.accepts(image, name) => Ok(Binding::Name),
        SignedName::Named(name) | SignedName::Conflicting(name) => mismatch(name),
        SignedName::Unnamed if identity.accepts_unnamed() => Ok(Binding::Digest),
        SignedName::Unnamed => Err(Rejection::IdentityNotSigned { wanted: identity.wanted(image) }),
    }
}

/// The manifest must have the annotations that the requirement wants (T-16).
pub fn check_annotations(requirement: &Requirement, manifest: &[u8]) -> Result<(), Rejection> {
    let wanted = match requirement {
        Requirement::SigstoreSigned(SigstoreSigned { manifest_annotations, .. }) => manifest_annotations,
        Requirement::InsecureAcceptAnything
        | Requirement::Reject
        | Requirement::SignedBaseLayer(_)
        | Requirement::SignedBy(_) => return Ok(()),
    };
    if wanted.is_empty() {
        return Ok(());
    }
    let invalid = |_| Rejection::ManifestInvalid;
    let root = json::parse(manifest, MANIFEST).map_err(|_| Rejection::ManifestInvalid)?;
    let annotations = root.member("annotations").map_err(invalid)?;
    for (name, wanted) in wanted {
        // Names that differ in case are different annotations.
        let mut same = annotations
            .and_then(|value| value.members())
            .unwrap_or_default()
            .iter()
            .filter(|member| member.key == name.as_str());
        let found = match (same.next(), same.next()) {
            (Some(member), None) => member.value.text(),
            (None, _) => None,
            (Some(_), Some(_)) => return Err(Rejection::ManifestInvalid),
        };
        if found != Some(wanted) {
            let found = found.map(str::to_owned);
            return Err(Rejection::AnnotationMismatch { name: name.clone(), wanted: wanted.clone(), found });
        }
    }
    Ok(())
}

/// The signature itself must have the annotations that are wanted; those of the manifest are others.
pub fn check_signed_annotations(
    wanted: &BTreeMap<String, String>,
    signed: &BTreeMap<String, String>,
) -> Result<(), Rejection> {
    match wanted.iter().find(|(name, wanted)| signed.get(*name) != Some(*wanted)) {
        Some((name, wanted)) => Err(Rejection::SignedAnnotationMismatch {
            name: name.clone(),
            wanted: wanted.clone(),
            found: signed.get(name).map(|found| clip(found)),
        }),
        None => Ok(()),
    }
}

/// Who signed a bundle: the holder of a certificate where one is wanted, and then the one who is wanted; else of a key.
pub fn check_bundle_signer(
    claim: &Verified<BundleClaim>,
    wanted: Option<&CertificateIdentity>,
) -> Result<Signer, Rejection> {
    match (&claim.get().signer, wanted) {
        (BundleSigner::Certificate { der, spki }, Some(wanted)) => {
            check_holder(der, spki, |holder| check_signer(wanted, holder))
        }
        (BundleSigner::PublicKey { spki }, None) => Ok(Signer::PublicKey { spki: spki.clone() }),
        (BundleSigner::Certificate { .. } | BundleSigner::PublicKey { .. }, _) => {
            Err(Rejection::BundleSigner { wanted_certificate: wanted.is_some() })
        }
    }
}

/// The holder of a certificate, whose key has this SHA-256, if `check` finds that it is the one who is wanted.
pub fn check_holder(
    der: &[u8],
    spki: &Digest,
    check: impl FnOnce(&SigningIdentity) -> Result<(), Rejection>,
) -> Result<Signer, Rejection> {
    let holder = SigningIdentity::from_certificate(der).map_err(Rejection::IdentityMalformed)?;
    check(&holder)?;
    Ok(Signer::Certificate {
        spki: spki.clone(),
        issuer: holder.issuer().unwrap_or_default().to_owned(),
        subject: holder.subject().as_str().to_owned(),
    })
}

/// The certificate must be for the signer whom the policy names.
///
/// That the certificate was valid when it signed is checked elsewhere.
pub fn check_signer(wanted: &CertificateIdentity, signer: &SigningIdentity) -> Result<(), Rejection> {
    match wanted {
        CertificateIdentity::Flags(flags) => check_flags(flags, signer),
        CertificateIdentity::Fulcio(fulcio) => check_fulcio(fulcio, signer),
        CertificateIdentity::Keyless(keyless) => check_keyless(keyless, signer),
    }
}

/// `fulcio`, with an authority of its own or a trusted root: every member must match (design decision 3.3).
pub fn check_fulcio(wanted: &FulcioIdentity, signer: &SigningIdentity) -> Result<(), Rejection> {
    check_exact_issuer(&wanted.oidc_issuer, signer)?;
    match &wanted.subject {
        FulcioSubject::Email(email) => {
            let accepted = signer.subject().email() == Some(email.as_str());
            check_subject(accepted, || format!("the e-mail address \"{email}\""), signer)
        }
        FulcioSubject::Pins(pins) => {
            pins.iter().try_for_each(|pin| check_pin(pin, signer))?;
            check_caller_of_pins(&wanted.oidc_issuer, pins, signer)
        }
    }
}

/// `keyless`, in the mode that the policy's own strings decide.
pub fn check_keyless(wanted: &Keyless, signer: &SigningIdentity) -> Result<(), Rejection> {
    check_exact_issuer(&wanted.issuer, signer)?;
    match &wanted.subject {
        KeylessSubject::Identity(subject) => {
            let accepted = signer.subject().as_str() == subject;
            check_subject(accepted, || format!("\"{subject}\""), signer)?;
            check_caller(&wanted.issuer, subject, signer)
        }
        KeylessSubject::Repository(repository) => check_repository(repository, signer),
    }
}

/// `--certificate-…`: every flag must match.
pub fn check_flags(wanted: &CertificateFlags, signer: &SigningIdentity) -> Result<(), Rejection> {
    let issuer = check_issuer(|found| wanted.issuer.accepts(found), || wanted.issuer.to_string(), signer)?;
    let subject = signer.subject().as_str();
    check_subject(wanted.subject.accepts(subject), || wanted.subject.to_string(), signer)?;
    wanted.pins.iter().try_for_each(|pin| check_pin(pin, signer))?;
    let names_caller = wanted.pins.iter().any(|pin| pin.field == Field::GithubWorkflowRepository);
    // T-12. Only of GitHub is it known that .5 is the caller, by a name that means one repository.
    if names_caller && Forge::of_issuer(issuer) == Some(Forge::GitHub) {
        return check_old_repository(signer);
    }
    check_caller(issuer, subject, signer)
}

/// The issuer, byte for byte (rule C-34).
fn check_exact_issuer(wanted: &str, signer: &SigningIdentity) -> Result<(), Rejection> {
    check_issuer(|found| found == wanted, || format!("\"{wanted}\""), signer).map(|_| ())
}

/// .8, or .1 where there is no .8, must be there and count.
fn check_issuer(
    accepts: impl FnOnce(&str) -> bool,
    wanted: impl Fn() -> String,
    signer: &SigningIdentity,
) -> Result<&str, Rejection> {
    match signer.issuer() {
        Some(found) if accepts(found) => Ok(found),
        Some(found) => {
            Err(Rejection::SignerMismatch { part: Part::Issuer, wanted: wanted(), found: found.to_owned() })
        }
        None => Err(Rejection::IdentityExtensionMissing { extension: Extension::IssuerV2, wanted: wanted() }),
    }
}

/// Turns a comparison of the name in the certificate into its refusal.
fn check_subject(
    accepted: bool,
    wanted: impl Fn() -> String,
    signer: &SigningIdentity,
) -> Result<(), Rejection> {
    if accepted {
        return Ok(());
    }
    let found = signer.subject().as_str().to_owned();
    Err(Rejection::SignerMismatch { part: Part::Subject, wanted: wanted(), found })
}

/// One member; a certificate that says nothing about it never matches.
fn check_pin(pin: &Pin, signer: &SigningIdentity) -> Result<(), Rejection> {
    let (part, extension) = match pin.field {
        Field::BuildConfigUri => (Part::Workflow, Extension::BuildConfigUri),
        Field::BuildSignerUri => (Part::Workflow, Extension::BuildSignerUri),
        Field::BuildTrigger => (Part::Trigger, Extension::BuildTrigger),
        Field::GithubWorkflowName => (Part::Workflow, Extension::GithubWorkflowName),
        Field::GithubWorkflowRef => (Part::Ref, Extension::GithubWorkflowRef),
        Field::GithubWorkflowRepository => (Part::Repository, Extension::GithubWorkflowRepository),
        Field::GithubWorkflowSha => (Part::Commit, Extension::GithubWorkflowSha),
        Field::GithubWorkflowTrigger => (Part::Trigger, Extension::GithubWorkflowTrigger),
        Field::RunnerEnvironment => (Part::Runner, Extension::RunnerEnvironment),
        Field::SourceRepositoryIdentifier => (Part::Repository, Extension::SourceRepositoryIdentifier),
        Field::SourceRepositoryOwnerUri => (Part::Repository, Extension::SourceRepositoryOwnerUri),
        Field::SourceRepositoryRef => (Part::Ref, Extension::SourceRepositoryRef),
        Field::SourceRepositoryUri => (Part::Repository, Extension::SourceRepositoryUri),
        Field::SubjectEmail => {
            let accepted = signer.subject().email().is_some_and(|found| pin.wanted.accepts(found));
            return check_subject(accepted, || format!("the e-mail address {}", pin.wanted), signer);
        }
        Field::SubjectUri => {
            let accepted = signer.subject().uri().is_some_and(|found| pin.wanted.accepts(found));
            return check_subject(accepted, || format!("the URI {}", pin.wanted), signer);
        }
    };
    let found = said(signer, extension, || pin.wanted.to_string())?;
    if pin.wanted.accepts(found) {
        Ok(())
    } else {
        Err(Rejection::SignerMismatch { part, wanted: pin.wanted.to_string(), found: found.to_owned() })
    }
}

/// What the certificate says, which it must.
fn said(
    signer: &SigningIdentity,
    extension: Extension,
    wanted: impl Fn() -> String,
) -> Result<&str, Rejection> {
    let missing = || Rejection::IdentityExtensionMissing { extension, wanted: wanted() };
    signer.extension(extension).ok_or_else(missing)
}

/// T-12, for the members that match a workflow: unless a member says which repository may have called it.
fn check_caller_of_pins(issuer: &str, pins: &Pins, signer: &SigningIdentity) -> Result<(), Rejection> {
    let mut workflows = Vec::new();
    for pin in pins.iter() {
        match pin.field {
            Field::SourceRepositoryIdentifier
            | Field::SourceRepositoryOwnerUri
            | Field::SourceRepositoryUri => return Ok(()),
            Field::BuildSignerUri => workflows.extend(signer.extension(Extension::BuildSignerUri)),
            Field::SubjectUri => workflows.push(signer.subject().as_str()),
            // Neither a branch, an event nor a machine is a repository, and `fulcio` has no member for .5.
            Field::BuildConfigUri
            | Field::BuildTrigger
            | Field::GithubWorkflowName
            | Field::GithubWorkflowRef
            | Field::GithubWorkflowRepository
            | Field::GithubWorkflowSha
            | Field::GithubWorkflowTrigger
            | Field::RunnerEnvironment
            | Field::SourceRepositoryRef
            | Field::SubjectEmail => {}
        }
    }
    workflows.into_iter().try_for_each(|workflow| check_caller(issuer, workflow, signer))
}

/// A workflow that was matched by its own address must have been started by its own repository.
///
/// T-12: a reusable workflow signs under its own address for whoever calls it, so that the address alone is anybody's.
fn check_caller(issuer: &str, workflow: &str, signer: &SigningIdentity) -> Result<(), Rejection> {
    let source = signer.extension(Extension::SourceRepositoryUri).map(str::to_owned);
    let foreign = |caller: Option<String>| {
        Err(Rejection::IdentityForeignCaller { caller, workflow: workflow.to_owned() })
    };
    match (Forge::of_issuer(issuer), source) {
        (Some(forge), source) => {
            let caller = source.or_else(|| match forge {
                Forge::GitHub => old_repository(signer),
                Forge::GitLab => None,
            });
            match caller {
                Some(caller) if belongs(forge, workflow, &caller) => Ok(()),
                caller => foreign(caller),
            }
        }
        // Of other issuers it is known only if the certificate itself shows that the two differ.
        (None, source) => {
            let forges = [Forge::GitHub, Forge::GitLab];
            let Some((host, _)) = workflow
                .strip_prefix("https://")
                .filter(|rest| forges.iter().any(|forge| rest.contains(forge.workflow_prefix())))
                .and_then(|rest| rest.split_once('/'))
            else {
                return Ok(());
            };
            // .5 names no host, so it means that of the workflow.
            let old = signer.extension(Extension::GithubWorkflowRepository);
            let caller = source.or_else(|| old.map(|name| format!("https://{host}/{name}")));
            match caller {
                Some(caller) if forges.iter().any(|forge| belongs(*forge, workflow, &caller)) => Ok(()),
                Some(caller) => foreign(Some(caller)),
                None => Ok(()),
            }
        }
    }
}

/// The address of the repository that .5 names.
fn old_repository(signer: &SigningIdentity) -> Option<String> {
    signer.extension(Extension::GithubWorkflowRepository).map(|name| format!("https://github.com/{name}"))
}

/// .5 and .12 must name the same repository of GitHub, where both are there.
fn check_old_repository(signer: &SigningIdentity) -> Result<(), Rejection> {
    let old = signer.extension(Extension::GithubWorkflowRepository);
    match (old, signer.extension(Extension::SourceRepositoryUri)) {
        (Some(old), Some(source)) if old_repository(signer).as_deref() != Some(source) => {
            Err(Rejection::IdentityInconsistent {
                one: (Extension::GithubWorkflowRepository, old.to_owned()),
                other: format!("the source repository \"{source}\""),
            })
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// Whether the workflow is one of the repository. The address is not split: a repository says where it ends.
fn belongs(forge: Forge, workflow: &str, repository: &str) -> bool {
    forge.is_repository(repository)
        && workflow
            .strip_prefix(repository)
            .and_then(|rest| rest.strip_prefix(forge.workflow_prefix()))
            .is_some_and(|path| !path.is_empty())
}

/// The build must be one of the repository, by its own workflow, for a branch and an event that count.
///
/// `seeds-and-formats.md` §2.5, conditions 1 to 6; T-13.
fn check_repository(wanted: &Repository, signer: &SigningIdentity) -> Result<(), Rejection> {
    let quoted = || format!("\"{}\"", wanted.uri);
    let source = said(signer, Extension::SourceRepositoryUri, quoted)?;
    let Some(workflow) = signer.subject().uri() else {
        return check_subject(false, || format!("a workflow of {}", quoted()), signer);
    };
    if source != wanted.uri {
        // The name is ours and the repository is not: somebody else called our workflow.
        if belongs(wanted.forge, workflow, &wanted.uri) {
            let caller = Some(source.to_owned());
            return Err(Rejection::IdentityForeignCaller { caller, workflow: workflow.to_owned() });
        }
        let found = source.to_owned();
        return Err(Rejection::SignerMismatch { part: Part::Repository, wanted: quoted(), found });
    }
    let build_signer = said(signer, Extension::BuildSignerUri, || format!("\"{workflow}\""))?;
    if build_signer != workflow {
        let one = (Extension::BuildSignerUri, build_signer.to_owned());
        return Err(Rejection::IdentityInconsistent { one, other: format!("the subject \"{workflow}\"") });
    }
    match wanted.reusable {
        Reusable::Own if !belongs(wanted.forge, workflow, &wanted.uri) => {
            let (repository, workflow) = (wanted.uri.clone(), workflow.to_owned());
            return Err(Rejection::IdentityForeignWorkflow { repository, workflow });
        }
        Reusable::Foreign | Reusable::Own => {}
    }
    if wanted.forge == Forge::GitHub {
        check_old_repository(signer)?;
    }
    let reference = check_ref(wanted, signer)?;
    check_trigger(wanted, signer)?;
    check_workflow(wanted, source, reference, signer)?;
    wanted.pins.iter().try_for_each(|pin| check_pin(pin, signer))
}

/// .14 must be there and count; anybody may open a pull or merge request (T-13).
fn check_ref<'s>(wanted: &Repository, signer: &'s SigningIdentity) -> Result<&'s str, Rejection> {
    let words = || match &wanted.refs {
        Refs::NoRequests => "a branch or tag, and no pull or merge request".to_owned(),
        Refs::Only(globs) => one_of(globs),
    };
    let found = said(signer, Extension::SourceRepositoryRef, words)?;
    let request = REQUESTS.iter().find(|directory| found.starts_with(**directory));
    let accepted = match (&wanted.refs, request) {
        (Refs::NoRequests, None) => true,
        (Refs::NoRequests, Some(_)) => false,
        (Refs::Only(globs), None) => globs.iter().any(|glob| glob.matches(found)),
        (Refs::Only(globs), Some(directory)) => {
            globs.iter().any(|glob| glob.starts_with(directory) && glob.matches(found))
        }
    };
    if accepted {
        Ok(found)
    } else {
        Err(Rejection::SignerMismatch { part: Part::Ref, wanted: words(), found: found.to_owned() })
    }
}

/// .20 must be there and be named, or be one that only people with write access can cause (T-13).
fn check_trigger(wanted: &Repository, signer: &SigningIdentity) -> Result<(), Rejection> {
    let words = || one_of(&wanted.triggers);
    let found = said(signer, Extension::BuildTrigger, words)?;
    if wanted.triggers.iter().any(|trigger| trigger == found) {
        Ok(())
    } else {
        Err(Rejection::SignerMismatch { part: Part::Trigger, wanted: words(), found: found.to_owned() })
    }
}

/// .18 must be the address that repository, path and .14 make (T-13).
fn check_workflow(
    wanted: &Repository,
    source: &str,
    reference: &str,
    signer: &SigningIdentity,
) -> Result<(), Rejection> {
    let globs = match &wanted.workflows {
        Workflows::All => return Ok(()),
        Workflows::Only(globs) => globs,
    };
    let (before, after) = (format!("{source}{}", wanted.forge.separator()), format!("@{reference}"));
    let words = || format!("{} of \"{source}\" at \"{reference}\"", one_of(globs));
    let found = said(signer, Extension::BuildConfigUri, words)?;
    if globs.iter().any(|glob| glob.is_between(&before, found, &after)) {
        Ok(())
    } else {
        Err(Rejection::SignerMismatch { part: Part::Workflow, wanted: words(), found: found.to_owned() })
    }
}

/// `"a" or "b"`
fn one_of<'a, T: ToString + 'a>(items: impl IntoIterator<Item = &'a T>) -> String {
    let quoted: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.to_string())).collect();
    quoted.join(" or ")
}

/// Where forges keep what anybody may propose.
const REQUESTS: [&str; 2] = ["refs/pull/", "refs/merge-requests/"];

/// A manifest is at most 4 MiB, and its tree at most some 10 MiB (T-28).
const MANIFEST: Limits = Limits { depth: 64, values: 100_000 };
