//! Rules about whose signatures count, and for which names (rules C-35, I-3 to I-10; T-12, T-13, T-16).

use std::collections::HashMap;

use crate::diagnostic::{Severity, Span};
use crate::policy::certificate::{
    CertificateIdentity, Field, Forge, FulcioIdentity, FulcioSubject, KeylessSubject, Pin, Refs, Wanted,
};
use crate::policy::{Requirement, SignedBy, SignedIdentity, Signer, SigstoreSigned};

use super::draft::{Written, member, text};
use super::{Case, Findings, Place};

/// cosign signs a repository name without a tag, or no name, neither of which these identities accept.
///
/// Rules I-3, I-4 and I-10.
pub(super) fn cosign_signs_no_tag(case: &Case<'_>, out: &mut Findings) {
    for (_, written) in case.draft.requirements() {
        let Some(Requirement::SigstoreSigned(SigstoreSigned { identity, .. })) = &written.meaning else {
            continue;
        };
        let kind = match identity {
            SignedIdentity::MatchExact | SignedIdentity::MatchRepoDigestOrExact => identity.kind(),
            SignedIdentity::ExactReference(_)
            | SignedIdentity::ExactRepository(_)
            | SignedIdentity::MatchRepository
            | SignedIdentity::MatchRepositoryOrUnnamed
            | SignedIdentity::RemapIdentity(_) => continue,
        };
        let default = if member(written.value, "signedIdentity").is_none() { ", the default," } else { "" };
        let message = format!(
            "with \"{kind}\"{default} a signature must name a tag or digest, and cosign by default names none"
        );
        out.at(place_of(written, "signedIdentity"), message).help(
            "for images that cosign signs write \"signedIdentity\": {\"type\": \"matchRepository\"}; podman and skopeo sign tags",
        );
    }
}

/// An identity that looks at the repository only lets any signed image of it stand for any tag.
///
/// Rules I-6, I-8 and I-10.
pub(super) fn tag_substitution(case: &Case<'_>, out: &mut Findings) {
    let kind = |written: &Written<'_>| match written.meaning.as_ref()? {
        Requirement::SigstoreSigned(SigstoreSigned { identity, .. })
        | Requirement::SignedBy(SignedBy { identity, .. }) => match identity {
            SignedIdentity::ExactRepository(_)
            | SignedIdentity::MatchRepository
            | SignedIdentity::MatchRepositoryOrUnnamed => Some(identity.kind()),
            SignedIdentity::ExactReference(_)
            | SignedIdentity::MatchExact
            | SignedIdentity::MatchRepoDigestOrExact
            | SignedIdentity::RemapIdentity(_) => None,
        },
        Requirement::InsecureAcceptAnything | Requirement::Reject | Requirement::SignedBaseLayer(_) => None,
    };
    let mut all = case.draft.requirements().filter_map(|(_, written)| Some((written, kind(written)?)));
    let Some((first, kind)) = all.next() else { return };
    // With cosign it is the rule, so that it need not be said of each.
    let others = match all.count() {
        0 => String::new(),
        1 => "; so does another requirement here".to_owned(),
        count => format!("; so do {count} other requirements here"),
    };
    let message = format!(
        "\"{kind}\" accepts any signed image of the repository for every tag, so that an old one can be served as a new one{others}"
    );
    out.at(place_of(first, "signedIdentity"), message)
        .help("signatures by podman and skopeo name the tag: \"matchRepoDigestOrExact\" demands it; with cosign use images by digest");
}

/// What is compared with the e-mail addresses of a certificate must be one.
///
/// Rules C-35 and C-42.
pub(super) fn subject_not_email(case: &Case<'_>, out: &mut Findings) {
    for (_, written) in case.draft.requirements() {
        for parent in ["fulcio", "pki"] {
            let Some(email) = member(written.value, parent).and_then(|of| member(&of.value, "subjectEmail"))
            else {
                continue;
            };
            let wanted = email.value.text().unwrap_or_default();
            if wanted.is_empty() || wanted.contains('@') && !wanted.contains("://") {
                continue;
            }
            let is_uri = wanted.contains("://");
            let what = if is_uri { "holds a URI" } else { "holds no e-mail address" };
            out.at(email.value.span, format!("\"subjectEmail\" {what}, so that no certificate matches")).help(
                if is_uri && parent == "fulcio" {
                    "vouchd knows \"subjectURI\" and \"buildSignerURI\"; other tools know no identity but an e-mail address"
                } else {
                    "write the address that is in the certificate, as name@domain"
                },
            );
        }
    }
}

/// The certificate of a workflow names the workflow and its ref, never the repository alone.
///
/// Fulcio's oid-info: subject, build signer and build config URIs end in a path and `@REF`.
pub(super) fn repository_as_subject(case: &Case<'_>, out: &mut Findings) {
    for (_, written) in case.draft.requirements() {
        let fulcio = member(written.value, "fulcio").map(|fulcio| &fulcio.value);
        let forge = fulcio.and_then(|fulcio| text(fulcio, "oidcIssuer")).and_then(Forge::of_issuer);
        for field in [Field::SubjectUri, Field::BuildSignerUri, Field::BuildConfigUri] {
            let Some(found) = fulcio.and_then(|fulcio| member(fulcio, field.name())) else { continue };
            if forge.zip(found.value.text()).is_some_and(|(forge, wanted)| forge.is_repository(wanted)) {
                let message = format!(
                    "\"{}\" names a repository, and certificates name a workflow there",
                    field.name()
                );
                out.at(found.value.span, message).help(
                    "write the workflow as \"https://github.com/OWNER/NAME/.github/workflows/FILE@REF\", or \"sourceRepositoryURI\" for any of the repository",
                );
            }
        }
        let Some(subject) = member(written.value, "keyless").and_then(|keyless| {
            let forge = Forge::of_issuer(text(&keyless.value, "issuer")?)?;
            let subject = &member(&keyless.value, "subject")?.value;
            let wanted = subject.text()?;
            let is_lost = wanted.ends_with(".git") || !forge.is_repository(wanted) && !wanted.contains('@');
            is_lost.then_some(subject)
        }) else {
            continue;
        };
        let message =
            "\"subject\" is neither the address of a repository of this issuer nor that of a workflow";
        out.at(subject.span, message.to_owned())
            .help("write \"https://github.com/OWNER/NAME\", without anything behind it");
    }
}

/// A reusable workflow signs for every repository that calls it, so that its name alone says little.
///
/// T-12.
pub(super) fn source_repository_open(case: &Case<'_>, out: &mut Findings) {
    for (_, written) in case.draft.requirements() {
        let Some((forge, pins)) = pins(written) else { continue };
        let names_workflow = |pin: &Pin| matches!(pin.field, Field::BuildSignerUri | Field::SubjectUri);
        let names_source = |pin: &Pin| {
            matches!(
                pin.field,
                Field::SourceRepositoryIdentifier
                    | Field::SourceRepositoryOwnerUri
                    | Field::SourceRepositoryUri
            )
        };
        if forge.is_some()
            && pins.iter().copied().any(names_workflow)
            && !pins.iter().copied().any(names_source)
        {
            let message = "the signing workflow is named, and not the repository that is built: only builds of the workflow's own repository count";
            out.at(place_of(written, "fulcio"), message.to_owned()).help(
                "for a reusable workflow add \"sourceRepositoryURI\" or \"sourceRepositoryIdentifier\"",
            );
        }
    }
}

/// Without a condition on the ref, a build of any branch counts, and with `fulcio` that of a pull request, too.
///
/// T-13.
pub(super) fn refs_open(case: &Case<'_>, out: &mut Findings) {
    for (_, written) in case.draft.requirements() {
        if let Some(Requirement::SigstoreSigned(SigstoreSigned {
            signer: Signer::Certificate { identity, .. },
            ..
        })) = &written.meaning
            && let CertificateIdentity::Keyless(keyless) = identity.as_ref()
            && let KeylessSubject::Repository(repository) = &keyless.subject
            && repository.refs == Refs::NoRequests
        {
            let message = "without \"refs\", a build of any branch or tag of the repository counts";
            out.at(place_of(written, "keyless"), message.to_owned())
                .help("name the branches and tags that publish, as in \"refs\": [\"refs/heads/main\", \"refs/tags/*\"]");
        }
        let Some((Some(_), pins)) = pins(written) else { continue };
        let says_ref = |pin: &Pin| match pin.field {
            Field::SourceRepositoryRef => true,
            Field::BuildConfigUri | Field::BuildSignerUri | Field::SubjectUri => match &pin.wanted {
                Wanted::Exact(_) => true,
                Wanted::Pattern(pattern) => {
                    !pattern.as_str().trim_end_matches('$').ends_with([')', '*', '+'])
                }
            },
            Field::BuildTrigger
            | Field::GithubWorkflowName
            | Field::GithubWorkflowRef
            | Field::GithubWorkflowRepository
            | Field::GithubWorkflowSha
            | Field::GithubWorkflowTrigger
            | Field::RunnerEnvironment
            | Field::SourceRepositoryIdentifier
            | Field::SourceRepositoryOwnerUri
            | Field::SourceRepositoryUri
            | Field::SubjectEmail => false,
        };
        if !pins.iter().copied().any(says_ref) {
            let is_started_by = |pin: &Pin| pin.field == Field::BuildTrigger;
            let open = if pins.iter().copied().any(is_started_by) {
                "branch or tag"
            } else {
                "branch, tag or pull request"
            };
            let message = format!("a certificate for any {open} counts");
            let finding = out.at(place_of(written, "fulcio"), message);
            finding.help("add \"sourceRepositoryRef\": \"refs/heads/main\", or what publishes, or \"keyless\" with \"refs\"");
            if !pins.iter().copied().any(is_started_by) {
                finding.severity(Severity::Warning);
            }
        }
    }
}

/// The issuer's forge and the conditions of a `fulcio` that has some of ours.
fn pins<'w>(written: &'w Written<'_>) -> Option<(Option<Forge>, Vec<&'w Pin>)> {
    let identity: &FulcioIdentity = match &written.meaning {
        Some(Requirement::SigstoreSigned(SigstoreSigned { signer, .. })) => match signer {
            Signer::Certificate { identity, .. } => match identity.as_ref() {
                CertificateIdentity::Fulcio(fulcio) => fulcio,
                CertificateIdentity::Flags(_) | CertificateIdentity::Keyless(_) => return None,
            },
            Signer::Fulcio { fulcio, .. } => &fulcio.identity,
            Signer::Keys { .. } | Signer::Pki(_) => return None,
        },
        Some(
            Requirement::InsecureAcceptAnything
            | Requirement::Reject
            | Requirement::SignedBaseLayer(_)
            | Requirement::SignedBy(_),
        )
        | None => return None,
    };
    match &identity.subject {
        FulcioSubject::Email(_) => None,
        FulcioSubject::Pins(pins) => Some((Forge::of_issuer(&identity.oidc_issuer), pins.iter().collect())),
    }
}

/// A regular expression that is easily taken for less than it matches.
///
/// Design decision 3.3: it must match the whole value.
pub(super) fn loose_pattern(case: &Case<'_>, out: &mut Findings) {
    for (_, written) in case.draft.requirements() {
        let fulcio = member(written.value, "fulcio").map(|fulcio| &fulcio.value);
        for field in Field::OURS {
            let Some(found) =
                fulcio.zip(field.pattern_name()).and_then(|(fulcio, name)| member(fulcio, name))
            else {
                continue;
            };
            let pattern = found.value.text().unwrap_or_default();
            if let Some((reason, help)) = looseness(pattern) {
                out.at(found.value.span, format!("\"{}\" {reason}", found.key)).help(help);
            }
        }
    }
}

fn looseness(pattern: &str) -> Option<(&'static str, &'static str)> {
    let inner = pattern.trim_start_matches('^').trim_end_matches('$');
    if matches!(inner, ".*" | ".+" | "(.*)" | "(.+)") {
        return Some(("matches every value", "remove it, or write what is wanted"));
    }
    if inner.starts_with(".*") || inner.starts_with(".+") {
        return Some((
            "begins with anything, so that who signs can be anybody with that ending",
            "begin with \"https://\" and the host",
        ));
    }
    has_open_dot(inner).then_some((
        "has a \".\" that stands for any character, as in \"github.com\"",
        "write \"\\\\.\" in the policy for a dot, as in \"github\\\\.com\"",
    ))
}

/// Whether a dot that is not escaped, in no class and not repeated stands in the expression.
fn has_open_dot(pattern: &str) -> bool {
    let (mut escaped, mut in_class) = (false, false);
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        let repeated = matches!(rest.peek(), Some('*' | '+' | '?' | '{'));
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '.' if !in_class && !repeated => return true,
            _ => {}
        }
    }
    false
}

/// Signatures that name no image, by one signer, count for the images of several scopes, one for another.
///
/// T-16.
pub(super) fn shared_signer(case: &Case<'_>, out: &mut Findings) {
    let mut first: HashMap<Vec<&[u8]>, (usize, Span)> = HashMap::new();
    for (n, scope) in case.draft.scopes.iter().enumerate() {
        for written in &scope.requirements {
            let Some(Requirement::SigstoreSigned(signed)) = &written.meaning else { continue };
            if !signed.identity.accepts_unnamed() {
                continue;
            }
            // A host, all hosts of a domain, or everything.
            if !scope.name.contains('/') {
                let message = format!(
                    "whoever serves images of {} can serve each of them for every other: signatures without a name count for all",
                    scope.words()
                );
                out.at(scope.span, message).help(TELL_APART);
                continue;
            }
            let signer: Vec<&[u8]> = SIGNER
                .iter()
                .filter_map(|name| member(written.value, name))
                .filter_map(|found| case.document.get(found.value.span.start..found.value.span.end))
                .collect();
            let (known, span) = *first.entry(signer).or_insert((n, scope.span));
            if known != n {
                let message = format!(
                    "whoever serves images of {} can serve those of another scope for them: signatures without a name, by the same signer, count in both",
                    scope.words()
                );
                out.at(scope.span, message).see(Place::Policy(span), "the other scope").help(TELL_APART);
            }
        }
    }
}

/// Where a member is best shown: an object by its type or its name. Without the member, the requirement.
fn place_of(written: &Written<'_>, name: &str) -> Span {
    let Some(found) = member(written.value, name) else { return written.span() };
    match (member(&found.value, "type"), found.value.members()) {
        (Some(kind), _) => kind.value.span,
        (None, Some(_)) => found.key_span,
        (None, None) => found.value.span,
    }
}

/// What to do about signatures without a name.
const TELL_APART: &str = "name each repository in a scope of its own, with another key or workflow, a signed name, or \"manifestAnnotations\" that tell them apart";

/// Members that say who signs.
const SIGNER: [&str; 7] =
    ["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "keyless", "manifestAnnotations"];

#[cfg(test)]
mod tests {
    use super::*;

    // Design decision 3.3.
    #[test]
    fn patterns_are_loose_that_match_more_than_they_seem_to() {
        for (pattern, wanted) in [
            (r"https://github\.com/acme/.*", false),
            (r"https://github\.com/acme/[a-z.]+/x", false),
            (r"https://github.com/acme/os", true),
            (r"https://github\.com/acme/os/.github/x", true),
            (".*", true),
            ("^.*$", true),
            (r".*@refs/heads/main", true),
            (r"push|release", false),
            ("", false),
        ] {
            assert_eq!(looseness(pattern).is_some(), wanted, "{pattern}");
        }
    }
}
