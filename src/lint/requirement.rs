//! Rules about the requirements of one scope: what they come to together (rules E-4 to E-13).

use crate::evaluate;
use crate::policy::{KeySource, Requirement, SignedBy, SignedIdentity};
use crate::reference::Transport;

use super::draft::Scope;
use super::{Case, Findings, Place};

/// The same requirement twice asks for nothing more: one signature satisfies both.
///
/// Rule E-5; who wants two signers names two keys.
pub(super) fn repeated_requirement(case: &Case<'_>, out: &mut Findings) {
    for scope in &case.draft.scopes {
        let written: Vec<_> = scope.requirements.iter().take(COMPARED).collect();
        for (n, one) in written.iter().enumerate() {
            let earlier =
                written.iter().take(n).find(|other| one.meaning.is_some() && other.meaning == one.meaning);
            if let Some(earlier) = earlier {
                out.at(one.span(), format!("this {} requirement is there twice", one.kind()))
                    .see(Place::Policy(earlier.span()), "the first one")
                    .help("remove it; for two signers, two requirements name different keys");
            }
        }
    }
}

/// `insecureAcceptAnything` beside another requirement has no effect: all must be satisfied, and it always is.
///
/// Rule E-4.
pub(super) fn idle_requirement(case: &Case<'_>, out: &mut Findings) {
    for (scope, written) in case.draft.requirements() {
        let is_idle = written.meaning == Some(Requirement::InsecureAcceptAnything)
            && scope
                .requirements
                .iter()
                .any(|one| one.meaning.as_ref().is_some_and(|one| one.verifies_signatures()));
        if is_idle {
            let message = "\"insecureAcceptAnything\" has no effect here: every requirement of the list must be satisfied";
            out.at(written.span(), message.to_owned())
                .help("remove it, or remove the others if no signature is wanted");
        }
    }
}

/// A list can be such that no image has what it wants.
///
/// Rules B-6, E-4, I-2 and P-24.
pub(super) fn never_satisfied(case: &Case<'_>, out: &mut Findings) {
    for scope in &case.draft.scopes {
        if let Some(reject) = scope.requirements.iter().find(|one| one.meaning == Some(Requirement::Reject)) {
            if scope.requirements.len() > 1 {
                let message =
                    "\"reject\" refuses every image, so that the other requirements of the list mean nothing";
                out.at(reject.span(), message.to_owned()).help("keep either \"reject\" or the others");
            }
            continue;
        }
        for written in &scope.requirements {
            let Some((reason, help)) = written.meaning.as_ref().and_then(|meaning| hopeless(scope, meaning))
            else {
                continue;
            };
            let message = format!("no image of {} can satisfy this: {reason}", scope.words());
            out.at(written.span(), message).help(help);
        }
    }
}

fn hopeless(scope: &Scope<'_>, requirement: &Requirement) -> Option<(&'static str, &'static str)> {
    let identity = match requirement {
        Requirement::SignedBy(SignedBy { keys: KeySource::Paths(paths), .. }) if paths.is_empty() => {
            return Some(("it names no key", "name a file in \"keyPaths\""));
        }
        Requirement::SignedBy(SignedBy { keys: KeySource::Data(data), .. }) if data.is_empty() => {
            return Some(("it has no key", "put a key into \"keyData\""));
        }
        Requirement::SignedBy(signed) => &signed.identity,
        Requirement::SigstoreSigned(signed) => &signed.identity,
        Requirement::InsecureAcceptAnything | Requirement::Reject | Requirement::SignedBaseLayer(_) => {
            return None;
        }
    };
    let needs_name = match identity {
        SignedIdentity::ExactReference(_)
        | SignedIdentity::ExactRepository(_)
        | SignedIdentity::MatchRepositoryOrUnnamed => false,
        SignedIdentity::MatchExact
        | SignedIdentity::MatchRepoDigestOrExact
        | SignedIdentity::MatchRepository
        | SignedIdentity::RemapIdentity(_) => true,
    };
    let is_simple = matches!(requirement, Requirement::SignedBy(_));
    match Transport::from_name(scope.transport?)? {
        Transport::Oci | Transport::OciArchive if is_simple => Some((
            "a layout has no place for simple signing",
            "write \"sigstoreSigned\", \"insecureAcceptAnything\" or \"reject\", whichever is meant",
        )),
        Transport::Dir | Transport::Oci | Transport::OciArchive if needs_name => Some((
            "such an image has no name that could be the signed one",
            "say which name must be signed, with an exactReference or exactRepository as \"signedIdentity\"",
        )),
        Transport::DockerArchive | Transport::DockerDaemon | Transport::Sif | Transport::Tarball => Some((
            "images of this transport have no signatures",
            "write \"insecureAcceptAnything\" or \"reject\", whichever is meant",
        )),
        Transport::Atomic
        | Transport::ContainersStorage
        | Transport::Dir
        | Transport::Docker
        | Transport::Oci
        | Transport::OciArchive
        | Transport::Ostree => None,
    }
}

/// What no tool implements refuses every image.
///
/// Rules E-12 and G-2.
pub(super) fn unsupported(case: &Case<'_>, out: &mut Findings) {
    for (_, written) in case.draft.requirements() {
        let Some(requirement) = written.meaning.as_ref().filter(|one| !matches!(one, Requirement::Reject))
        else {
            continue;
        };
        if let Some(rejection) = evaluate::foregone(requirement) {
            out.at(written.span(), format!("every image is refused: {rejection}")).help(rejection.help());
        }
    }
}

/// Most requirements of a list that are compared with each other: 64.
const COMPARED: usize = 64;
