//! Rules about scopes: which images they are for (rules S-1 to S-22).

use std::collections::BTreeSet;

use crate::diagnostic::{Severity, closest};
use crate::policy::Requirement;
use crate::reference::{Named, Transport, is_domain, is_path};

use super::draft::{Draft, Scope};
use super::{Case, Findings, Place};

/// Scopes that are in none of the forms in which the images of their transport are looked up never match.
///
/// Rules S-2 to S-4, S-10, S-13 and S-21: comparison is byte by byte, with names in full.
pub(super) fn scope_never_matches(case: &Case<'_>, out: &mut Findings) {
    for scope in &case.draft.scopes {
        let Some(transport) = scope.transport.and_then(Transport::from_name) else { continue };
        let why = match transport {
            Transport::Docker | Transport::Atomic | Transport::DockerDaemon => docker_fault(scope.name),
            Transport::Oci | Transport::OciArchive if scope.name.contains(':') => Some(Why {
                reason: "\":\" ends the path of such an image",
                instead: scope.name.split(':').next().map(str::to_owned),
            }),
            Transport::Dir | Transport::Oci | Transport::OciArchive | Transport::Sif => {
                case.surroundings.links.get(scope.name).map(|real| Why {
                    reason: "it leads through a symbolic link, and images are looked up by where they are",
                    instead: Some(real.to_string_lossy().into_owned()),
                })
            }
            Transport::ContainersStorage
            | Transport::DockerArchive
            | Transport::Ostree
            | Transport::Tarball => None,
        };
        let Some(Why { reason, instead }) = why else { continue };
        let finding = out.at(scope.span, format!("\"{}\" can match no image: {reason}", scope.name));
        match instead {
            Some(instead) => finding.help(format!("write \"{instead}\" if that is meant")),
            None => finding
                .help("write HOST[:PORT][/PATH[:TAG]] or \"*.DOMAIN\", as in containers-policy.json(5)"),
        };
    }
}

struct Why {
    reason: &'static str,
    instead: Option<String>,
}

/// Why no image of a registry is looked up by this name, if so.
fn docker_fault(name: &str) -> Option<Why> {
    let why = |reason, instead| Some(Why { reason, instead });
    if name.is_empty() {
        return None;
    }
    if let Some((_, rest)) = name.split_once("://") {
        return why("it begins with a scheme", Some(rest.trim_end_matches('/').to_owned()));
    }
    if let Some(shorter) = name.strip_suffix('/') {
        return why("it ends with \"/\"", Some(shorter.trim_end_matches('/').to_owned()));
    }
    if let Some(domain) = name.strip_prefix("*.") {
        return match domain.find(['/', ':', '@']) {
            Some(at) => why(
                "a wildcard has neither port nor path",
                name.get(..at.saturating_add(2)).map(str::to_owned),
            ),
            None if is_domain(domain) => None,
            None => why("what follows \"*.\" is no domain", None),
        };
    }
    if name.contains('*') {
        return why("\"*\" has a meaning only at the beginning, as in \"*.example.com\"", None);
    }
    let (host, rest) = match name.split_once('/') {
        Some((host, rest)) => (host, Some(rest)),
        None => (name, None),
    };
    if !(host.contains(['.', ':']) || host == "localhost") || !is_domain(host) {
        let full = Named::parse(name).ok().map(|named| named.to_string());
        return match full {
            Some(full) if !host.contains(['.', ':']) => {
                why("names are compared in full, with the registry", Some(full))
            }
            Some(_) | None => why("it does not begin with the host of a registry", None),
        };
    }
    if host == "index.docker.io" {
        return why("this registry is always called docker.io", Some(name.replacen("index.", "", 1)));
    }
    let rest = rest?;
    if host == "docker.io" && !rest.contains('/') {
        let reason = "an image without a namespace is in \"docker.io/library\"";
        return if is_path(rest) { None } else { why(reason, Some(format!("docker.io/library/{rest}"))) };
    }
    match Named::parse(name) {
        Ok(named) if named.tag().is_some() && named.digest().is_some() => why(
            "an image is looked up by its tag or by its digest, and not by both",
            named.digest().map(|digest| format!("{}@{digest}", named.name())),
        ),
        Ok(named) if named.to_string() == name => None,
        Ok(named) => why("names are compared in full", Some(named.to_string())),
        Err(_)
            if rest.bytes().any(|byte| byte.is_ascii_uppercase())
                && Named::parse(&lower(host, rest)).is_ok() =>
        {
            why("the path of an image has no upper-case letters", Some(lower(host, rest)))
        }
        Err(_) => why("it is no image name", None),
    }
}

/// The name with its path, but not its tag, in lower case.
fn lower(host: &str, rest: &str) -> String {
    let (path, tag) = rest.split_at(rest.find([':', '@']).unwrap_or(rest.len()));
    format!("{host}/{}{tag}", path.to_ascii_lowercase())
}

/// Hosts are compared byte by byte, although DNS knows no case.
///
/// Rules R-3 and S-21.
pub(super) fn scope_host_case(case: &Case<'_>, out: &mut Findings) {
    for scope in &case.draft.scopes {
        if !scope.transport.is_some_and(is_registry) || docker_fault(scope.name).is_some() {
            continue;
        }
        let host = scope.name.split('/').next().unwrap_or_default();
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let message = format!(
                "\"{}\" matches only images whose registry is written with the same upper-case letters",
                scope.name
            );
            let rest = scope.name.get(host.len()..).unwrap_or_default();
            out.at(scope.span, message).help(format!("write \"{}{rest}\"", host.to_ascii_lowercase()));
        }
    }
}

/// A transport that no tool knows has no images, so that its scopes say nothing.
///
/// Rule P-7: any name is accepted.
pub(super) fn unknown_transport(case: &Case<'_>, out: &mut Findings) {
    let known = Transport::ALL.iter().filter(|transport| **transport != Transport::Ostree);
    let known: Vec<&str> = known.map(|transport| transport.name()).collect();
    for (name, span) in &case.draft.transports {
        match Transport::from_name(name) {
            Some(Transport::Ostree) => {
                let message = "the transport \"ostree\" exists no more: its scopes are never looked at";
                out.at(*span, message.to_owned()).help("remove it");
            }
            Some(_) => {}
            None => {
                let message = format!("there is no transport \"{name}\": its scopes are never looked at");
                let near = closest(name, &known).filter(|near| name.len() > 2 && near.len() > 3);
                out.at(*span, message).help(match near {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("the transports are {}", known.join(", ")),
                });
            }
        }
    }
}

/// A default that accepts anything leaves every image unprotected of which nobody thought.
///
/// rpm-ostree refuses such a policy (ostree-ext, container image proxy). Of all registries it may be meant.
pub(super) fn default_accepts_anything(case: &Case<'_>, out: &mut Findings) {
    const HELP: &str =
        "write [{\"type\": \"reject\"}], and name what needs no signature in scopes under \"transports\"";
    for scope in case.draft.scopes.iter().filter(|scope| scope.name.is_empty() && accepts_anything(scope)) {
        match scope.transport {
            None => {
                let message = "images that no scope names are accepted without a signature; rpm-ostree refuses such a policy";
                out.at(scope.span, message.to_owned()).help(HELP);
            }
            Some("docker") => {
                let message = "images of registries that no scope names are accepted without a signature";
                out.at(scope.span, message.to_owned()).help(HELP).severity(Severity::Note);
            }
            Some(_) => {}
        }
    }
}

/// A scope within one that wants signatures lifts that for its images: nothing is inherited.
///
/// Rule S-20: the first hit is used alone. Images of other transports than docker are often on the host already.
pub(super) fn unsigned_exception(case: &Case<'_>, out: &mut Findings) {
    let default = case.draft.scopes.iter().find(|scope| scope.transport.is_none());
    for scope in &case.draft.scopes {
        let default = default.filter(|_| scope.transport == Some("docker"));
        let Some(wider) = case.draft.wider(scope).or(default) else { continue };
        if accepts_anything(scope) && verifies(wider) {
            let images = match scope.name {
                "" => "images of every registry".to_owned(),
                name => format!("images of \"{name}\""),
            };
            let message =
                format!("{images} are accepted unsigned, although {} wants signatures", wider.words());
            out.at(scope.span, message)
                .see(Place::Policy(wider.span), "where they are wanted")
                .help("remove the scope, or repeat the requirements of the wider one in it");
        }
    }
}

/// A scope that refuses everything hides the one around it, in which signed images are accepted.
///
/// Rule S-20.
pub(super) fn reject_under_signed(case: &Case<'_>, out: &mut Findings) {
    for (scope, wider) in within(case) {
        if rejects(scope) && verifies(wider) {
            let message = format!(
                "every image of \"{}\" is refused, even if it is signed as {} wants",
                scope.name,
                wider.words()
            );
            out.at(scope.span, message)
                .see(Place::Policy(wider.span), "the scope that accepts signed images")
                .help("remove the scope, unless this is meant");
        }
    }
}

/// A scope with the requirements of the next wider one changes nothing.
///
/// Rule S-20.
pub(super) fn redundant_scope(case: &Case<'_>, out: &mut Findings) {
    for (scope, wider) in within(case) {
        if scope.meanings().is_some_and(|own| wider.meanings().as_ref() == Some(&own)) {
            let message = format!("\"{}\" says what {} says already", scope.name, wider.words());
            out.at(scope.span, message)
                .see(Place::Policy(wider.span), "the wider scope")
                .help("remove one of them, or keep both equal whenever one is changed");
        }
    }
}

/// Scopes with the next wider one of their transport.
fn within<'c>(case: &'c Case<'c>) -> impl Iterator<Item = (&'c Scope<'c>, &'c Scope<'c>)> {
    case.draft.scopes.iter().filter_map(|scope| Some((scope, case.draft.wider(scope)?)))
}

fn accepts_anything(scope: &Scope<'_>) -> bool {
    let accepts = |requirement: &&Requirement| matches!(requirement, Requirement::InsecureAcceptAnything);
    scope.meanings().is_some_and(|all| all.iter().all(accepts))
}

fn rejects(scope: &Scope<'_>) -> bool {
    scope.meanings().is_some_and(|all| all.iter().any(|one| matches!(one, Requirement::Reject)))
}

/// Whether signed images are accepted, and no others.
fn verifies(scope: &Scope<'_>) -> bool {
    !rejects(scope) && scope.meanings().is_some_and(|all| all.iter().any(|one| one.verifies_signatures()))
}

/// Whether images of the transport are looked up as those of docker are.
fn is_registry(transport: &str) -> bool {
    matches!(
        Transport::from_name(transport),
        Some(Transport::Docker | Transport::Atomic | Transport::DockerDaemon)
    )
}

/// The scopes that are paths.
pub(super) fn paths(draft: &Draft<'_>) -> BTreeSet<String> {
    let is_path = |scope: &&Scope<'_>| {
        matches!(
            scope.transport.and_then(Transport::from_name),
            Some(Transport::Dir | Transport::Oci | Transport::OciArchive | Transport::Sif)
        )
    };
    let all = draft.scopes.iter().filter(is_path).map(|scope| scope.name.to_owned());
    all.filter(|name| name.starts_with('/')).collect()
}

/// A name under which an image of the scope could be asked for, if there can be one.
pub(super) fn can_match(name: &str) -> bool {
    docker_fault(name).is_none()
}
