//! Rules about a host's configuration as a whole (design decision 3.2; T-23).

use std::collections::HashMap;

use crate::diagnostic::Code;
use crate::policy::{Match, Policy, Requirement, Requirements, Scope};

use super::key::{faults, writable_keys};
use super::{Case, Findings, Place};

/// Certificates for registries can be used.
///
/// Rule T-2: half a pair breaks every pull from the registry.
pub(super) fn certificates_invalid(case: &Case<'_>, out: &mut Findings) {
    faults(case, out, Code::CertificatesInvalid);
}

/// registries.conf can be used.
///
/// Rules M-1 to M-3.
pub(super) fn registries_conf_invalid(case: &Case<'_>, out: &mut Findings) {
    faults(case, out, Code::RegistriesConfInvalid);
}

/// registries.d can be used.
///
/// Rules D-4, D-6 and D-11: one broken file breaks every registry.
pub(super) fn registries_d_invalid(case: &Case<'_>, out: &mut Findings) {
    faults(case, out, Code::RegistriesDInvalid);
}

/// A misspelt key, or a file with a wrong ending, is passed over in silence, and what it should say is not so.
///
/// Rules D-3, D-4 and M-1.
pub(super) fn unread_setting(case: &Case<'_>, out: &mut Findings) {
    faults(case, out, Code::UnreadSetting);
}

/// vouchd.toml can be used.
pub(super) fn vouchd_toml_invalid(case: &Case<'_>, out: &mut Findings) {
    faults(case, out, Code::VouchdTomlInvalid);
}

/// Only root writes what decides.
///
/// T-23.
pub(super) fn writable_file(case: &Case<'_>, out: &mut Findings) {
    if let Some(path) = case.surroundings.host.as_ref().and_then(|host| host.writable.as_ref()) {
        let message = "everybody can change this, and so the policy".to_owned();
        out.add(Place::File { path: path.clone(), at: None }, message)
            .help("take the permission to write from others: chmod o-w");
    }
    writable_keys(case, out);
}

/// A user's policy counts in place of the system's.
///
/// Rule L-3.
pub(super) fn policy_overridden(case: &Case<'_>, out: &mut Findings) {
    let Some(host) = &case.surroundings.host else { return };
    if let Some((path, system)) = &host.overridden {
        let message = format!(
            "this counts in place of \"{}\" for podman and skopeo of the same user",
            system.display()
        );
        out.add(Place::File { path: path.clone(), at: None }, message)
            .help("remove it, so that the system's policy counts for everybody");
    }
}

/// A copy in `/etc` does not follow the vendor's file, which may have new keys.
///
/// Rule L-3.
pub(super) fn stale_policy_copy(case: &Case<'_>, out: &mut Findings) {
    let Some(host) = &case.surroundings.host else { return };
    if let Some(newer) = &host.newer {
        let message = "the vendor's policy says something else, and is newer".to_owned();
        out.add(Place::File { path: host.path.clone(), at: None }, message)
            .see(Place::File { path: newer.clone(), at: None }, "the vendor's policy")
            .help("compare them, and take over what the vendor has changed, or remove the copy");
    }
}

/// vouchd's own policy means what that of podman means, wherever podman's can say it.
///
/// Design decision 3.2. What is in words of ours, podman's cannot say; it must not accept unsigned images there.
pub(super) fn policies_differ(case: &Case<'_>, out: &mut Findings) {
    let Some((path, bytes)) = case.surroundings.host.as_ref().and_then(|host| host.others.as_ref()) else {
        return;
    };
    let (Ok(ours), Ok(theirs)) = (Policy::parse(case.document), Policy::parse(bytes)) else { return };
    let (ours, theirs) = (Lists::of(&ours), Lists::of(&theirs));
    let mut names: Vec<&Scope> = ours.all.keys().chain(theirs.all.keys()).collect();
    names.sort_by_key(|scope| scope.to_string());
    names.dedup();
    let differing = names.into_iter().filter_map(|scope| {
        let (own, other) = (ours.effective(scope)?, theirs.effective(scope)?);
        differ(own.requirements, other.requirements).then_some((scope, own, other))
    });
    for (n, (scope, own, other)) in differing.enumerate() {
        if n >= DIFFERENCES {
            out.at(own.span, "more scopes differ from the policy of other tools".to_owned());
            return;
        }
        let at = Some(other.span.position(bytes));
        let message =
            format!("{scope} means something else here than in the policy of podman and other tools");
        out.at(own.span, message)
            .see(Place::File { path: path.clone(), at }, "what applies there")
            .help("write the same in both; where only vouchd can say it, the other one should reject");
    }
}

/// Whether the second, which other tools read, must not stand beside the first.
fn differ(ours: &Requirements, theirs: &Requirements) -> bool {
    if ours == theirs {
        return false;
    }
    let is_safe = theirs.iter().any(|one| match one {
        Requirement::Reject | Requirement::SignedBaseLayer(_) => true,
        Requirement::SignedBy(_) | Requirement::SigstoreSigned(_) => true,
        Requirement::InsecureAcceptAnything => false,
    });
    ours.iter().all(Requirement::is_common) || !is_safe
}

/// The scopes of a policy by their names.
struct Lists<'p> {
    all: HashMap<Scope, Match<'p>>,
}

impl<'p> Lists<'p> {
    fn of(policy: &'p Policy) -> Self {
        Self { all: policy.scopes().into_iter().map(|found| (found.scope.clone(), found)).collect() }
    }

    /// What applies to the images of a scope, whether it is here or not (rule S-20).
    fn effective(&self, scope: &Scope) -> Option<&Match<'p>> {
        let Scope::Transport { transport, name } = scope else { return self.all.get(scope) };
        let named = |name: &str| {
            self.all.get(&Scope::Transport { transport: transport.clone(), name: name.to_owned() })
        };
        named(name)
            .or_else(|| super::draft::wider_names(name).iter().find_map(|name| named(name)))
            .or_else(|| named(""))
            .or_else(|| self.all.get(&Scope::Default))
    }
}

/// Most differences that are told: 100.
const DIFFERENCES: usize = 100;
