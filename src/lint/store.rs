//! Rules about where signatures are looked for (rules A-1, D-8 to D-12, M-7).

use std::collections::BTreeSet;

use crate::policy::Requirement;

use super::draft::{Draft, Scope};
use super::scope::can_match;
use super::{Case, Findings};

/// The docker scopes that want signatures.
pub(super) fn scopes(draft: &Draft<'_>) -> BTreeSet<String> {
    let wanting = draft.scopes.iter().filter(|scope| wants_attachments(scope) || wants_lookaside(scope));
    wanting.map(|scope| scope.name.to_owned()).collect()
}

fn wants_attachments(scope: &Scope<'_>) -> bool {
    let wants =
        |one: &Requirement| matches!(one, Requirement::SigstoreSigned(_)) && !one.implies_attachments();
    // Another requirement of the list can turn them on, as for all.
    is_in_registry(scope)
        && meanings(scope).any(wants)
        && !meanings(scope).any(Requirement::implies_attachments)
}

fn wants_lookaside(scope: &Scope<'_>) -> bool {
    is_in_registry(scope) && meanings(scope).any(|one| matches!(one, Requirement::SignedBy(_)))
}

fn meanings<'s>(scope: &'s Scope<'_>) -> impl Iterator<Item = &'s Requirement> {
    scope.requirements.iter().filter_map(|written| written.meaning.as_ref())
}

fn is_in_registry(scope: &Scope<'_>) -> bool {
    scope.transport == Some("docker") && can_match(scope.name)
}

/// Signatures by cosign are looked for only where registries.d says so, by the name of each mirror.
///
/// Rules A-1, D-9 and D-10.
pub(super) fn attachments_disabled(case: &Case<'_>, out: &mut Findings) {
    for scope in case.draft.scopes.iter().filter(|scope| wants_attachments(scope)) {
        for store in
            case.surroundings.stores.get(scope.name).into_iter().flatten().filter(|store| !store.attachments)
        {
            let name = if store.name.is_empty() { "every registry" } else { &store.name };
            let origin = store.attachments_origin.as_ref().map(|origin| format!(", as {origin} says"));
            let origin = origin.unwrap_or_default();
            let message = if store.is_mirror {
                format!(
                    "in the mirror \"{name}\", sigstore signatures of \"{}\" are not looked for{origin}",
                    scope.name
                )
            } else {
                format!("sigstore signatures of \"{name}\" are not looked for{origin}")
            };
            let help = if store.name.is_empty() {
                "set \"use-sigstore-attachments: true\" under \"default-docker\" in a file of /etc/containers/registries.d"
                    .to_owned()
            } else {
                format!(
                    "set \"use-sigstore-attachments: true\" for \"{name}\" under \"docker\" in a file of /etc/containers/registries.d"
                )
            };
            out.at(scope.span, message).help(help);
        }
    }
}

/// Simple signing needs a store, and without one only the directory of this host is looked into.
///
/// Rule D-12.
pub(super) fn lookaside_missing(case: &Case<'_>, out: &mut Findings) {
    for scope in case.draft.scopes.iter().filter(|scope| wants_lookaside(scope)) {
        for store in
            case.surroundings.stores.get(scope.name).into_iter().flatten().filter(|store| !store.lookaside)
        {
            let name = if store.name.is_empty() { "any registry" } else { &store.name };
            let place = if store.is_mirror { "the mirror " } else { "" };
            let message = format!(
                "no lookaside store is set for {place}\"{name}\": signatures can come from the registry's own extension only"
            );
            out.at(scope.span, message)
                .help(format!("set \"lookaside\" for \"{name}\" in a file of /etc/containers/registries.d"));
        }
    }
}
