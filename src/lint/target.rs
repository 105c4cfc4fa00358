//! [`Target`]: a tool that reads the policy, and the members that it knows (section V of the rules).

use std::fmt;

use crate::diagnostic::Severity;
use crate::json::Member;
use crate::policy::certificate::Field;

use super::draft::{Written, member, text};
use super::{Case, Findings};

/// A tool that is to read a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The library containers/image, and every tool that is built with it.
    ContainersImage(Release),
    /// podman.
    Podman(Release),
    /// vouchd itself.
    Vouchd,
}

/// Which release of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The latest that is known here.
    Latest,
    /// This one.
    Numbered(u32, u32),
}

impl Target {
    /// Reads `vouchd`, `podman`, `podman@4.9`, `containers-image` or `containers-image@5.36`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, release) = match text.split_once('@') {
            None => (text, Release::Latest),
            Some((name, version)) => {
                let wrong = || format!("\"{version}\" is no version such as 5.36");
                let mut parts = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
                let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
                    return Err(wrong());
                };
                if parts.any(|part| part.is_err()) {
                    return Err(wrong());
                }
                (name, Release::Numbered(major, minor))
            }
        };
        match (name, release) {
            ("containers-image", release) => Ok(Self::ContainersImage(release)),
            ("podman", release) => {
                let target = Self::Podman(release);
                match target.library() {
                    Some(_) => Ok(target),
                    None => Err("podman is known from 3.0 on".to_owned()),
                }
            }
            ("vouchd", Release::Latest) => Ok(Self::Vouchd),
            ("vouchd", Release::Numbered(..)) => {
                Err("vouchd is always this one, without a version".to_owned())
            }
            _ => Err("the targets are containers-image[@VERSION], podman[@VERSION] and vouchd".to_owned()),
        }
    }

    /// The release of containers/image that reads the policy for it, if one does.
    fn library(&self) -> Option<Release> {
        match self {
            Self::ContainersImage(release) => Some(*release),
            Self::Podman(Release::Latest) => Some(Release::Latest),
            Self::Podman(Release::Numbered(major, minor)) => {
                let known = PODMAN.iter().rev().find(|(podman, _)| *podman <= (*major, *minor));
                known.map(|(_, (major, minor))| Release::Numbered(*major, *minor))
            }
            Self::Vouchd => None,
        }
    }

    /// Whether it knows what came with that release of containers/image.
    fn knows(&self, since: (u32, u32)) -> bool {
        match self.library() {
            Some(Release::Numbered(major, minor)) => since <= (major, minor),
            Some(Release::Latest) | None => true,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, release) = match self {
            Self::ContainersImage(release) => ("containers-image", *release),
            Self::Podman(release) => ("podman", *release),
            Self::Vouchd => ("vouchd", Release::Latest),
        };
        match release {
            Release::Latest => f.write_str(name),
            Release::Numbered(major, minor) => write!(f, "{name} {major}.{minor}"),
        }
    }
}

/// A member of vouchd's own makes other tools refuse every image.
///
/// Rule P-6; design decision 3.3.
pub(super) fn extension_key(case: &Case<'_>, out: &mut Findings) {
    let other = case.targets.iter().find(|target| **target != Target::Vouchd);
    let all: Vec<Found<'_>> =
        case.draft.requirements().flat_map(|(_, written)| extensions(written)).collect();
    // That a policy is vouchd's own needs to be said once.
    let told = if other.is_some() { all.len() } else { 1 };
    for found in all.iter().take(told) {
        let (span, what) = found.words();
        let finding = match other {
            Some(target) => {
                let message = format!(
                    "{what} is vouchd's own: {target} refuses every image while it reads this policy"
                );
                out.at(span, message).severity(Severity::Error)
            }
            None => {
                let message = format!(
                    "{what} is vouchd's own, as others here may be: other tools refuse every image if they read this policy"
                );
                out.at(span, message)
            }
        };
        finding.help("keep this policy in /etc/vouchd/policy.json, which only vouchd reads");
    }
}

/// A member that a tool is too old for makes it refuse every image.
///
/// Rules P-6 and P-10.
pub(super) fn key_too_new(case: &Case<'_>, out: &mut Findings) {
    for target in case.targets {
        for (_, written) in case.draft.requirements() {
            for (found, since) in dated(written) {
                if !target.knows(since) {
                    let (span, what) = found.words();
                    let (major, minor) = since;
                    let message = format!(
                        "{what} is not known to {target}, which refuses every image: it is there since containers-image {major}.{minor}"
                    );
                    out.at(span, message).help("write the policy without it, or update that tool");
                }
            }
        }
    }
}

/// A part of a requirement that not every tool knows.
enum Found<'v> {
    Member(&'v Member<'v>),
    /// The `type` with this text.
    Type(&'v Member<'v>),
}

impl Found<'_> {
    fn words(&self) -> (crate::diagnostic::Span, String) {
        match self {
            Self::Member(member) => (member.key_span, format!("\"{}\"", member.key)),
            Self::Type(member) => {
                (member.value.span, format!("\"{}\"", member.value.text().unwrap_or_default()))
            }
        }
    }
}

fn extensions<'v>(written: &Written<'v>) -> Vec<Found<'v>> {
    let mut found = Vec::new();
    if written.kind() == "sigstoreSigned" {
        found.extend(OURS.iter().filter_map(|name| member(written.value, name)).map(Found::Member));
        if let Some(fulcio) = member(written.value, "fulcio") {
            for field in Field::OURS {
                let names = [Some(field.name()), field.pattern_name()];
                let members = names.into_iter().flatten().filter_map(|name| member(&fulcio.value, name));
                found.extend(members.map(Found::Member));
            }
        }
    }
    found.extend(identity_type(written, "matchRepositoryOrUnnamed"));
    found
}

fn dated<'v>(written: &Written<'v>) -> Vec<(Found<'v>, (u32, u32))> {
    let value = written.value;
    let mut found = Vec::new();
    let members: &[(&str, (u32, u32))] = match written.kind() {
        "signedBy" => &[("keyPaths", (5, 22))],
        "sigstoreSigned" => {
            found.extend(member(value, "type").map(|kind| (Found::Type(kind), (5, 22))));
            &[
                ("fulcio", (5, 24)),
                ("keyDatas", (5, 33)),
                ("keyPaths", (5, 33)),
                ("pki", (5, 35)),
                ("rekorPublicKeyData", (5, 24)),
                ("rekorPublicKeyDatas", (5, 33)),
                ("rekorPublicKeyPath", (5, 24)),
                ("rekorPublicKeyPaths", (5, 33)),
            ]
        }
        _ => &[],
    };
    found.extend(
        members.iter().filter_map(|(name, since)| Some((Found::Member(member(value, name)?), *since))),
    );
    found.extend(identity_type(written, "remapIdentity").map(|kind| (kind, (5, 9))));
    found
}

fn identity_type<'v>(written: &Written<'v>, kind: &str) -> Option<Found<'v>> {
    let identity = &member(written.value, "signedIdentity")?.value;
    text(identity, "type").filter(|text| *text == kind)?;
    member(identity, "type").map(Found::Type)
}

/// Members of sigstoreSigned that other tools do not have (design decision 3.3).
const OURS: [&str; 6] = [
    "keyless",
    "manifestAnnotations",
    "messageSignature",
    "trustedRootData",
    "trustedRootMaxAge",
    "trustedRootPath",
];

/// Members of sigstoreSigned that give the keys of logs (rule P-34).
pub(super) const REKOR: [&str; 4] =
    ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"];

/// Releases of podman with those of containers/image in their go.mod.
const PODMAN: [((u32, u32), (u32, u32)); 22] = [
    ((3, 0), (5, 10)),
    ((3, 4), (5, 16)),
    ((4, 0), (5, 19)),
    ((4, 1), (5, 21)),
    ((4, 2), (5, 22)),
    ((4, 3), (5, 23)),
    ((4, 4), (5, 24)),
    ((4, 5), (5, 25)),
    ((4, 6), (5, 26)),
    ((4, 7), (5, 28)),
    ((4, 8), (5, 29)),
    ((4, 9), (5, 29)),
    ((5, 0), (5, 30)),
    ((5, 1), (5, 31)),
    ((5, 2), (5, 32)),
    ((5, 3), (5, 33)),
    ((5, 4), (5, 34)),
    ((5, 5), (5, 35)),
    ((5, 6), (5, 36)),
    ((5, 7), (5, 38)),
    ((5, 8), (5, 39)),
    ((6, 0), (5, 40)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names_and_versions() {
        for (text, library) in [
            ("vouchd", Some(None)),
            ("containers-image", Some(Some(Release::Latest))),
            ("containers-image@5.36", Some(Some(Release::Numbered(5, 36)))),
            ("containers-image@v5.36.1", Some(Some(Release::Numbered(5, 36)))),
            ("podman@4.9", Some(Some(Release::Numbered(5, 29)))),
            ("podman@3.2", Some(Some(Release::Numbered(5, 10)))),
            ("podman@6.1", Some(Some(Release::Numbered(5, 40)))),
            ("podman", Some(Some(Release::Latest))),
            ("podman@2.0", None),
            ("podman@", None),
            ("podman@4", None),
            ("podman@4.x", None),
            ("podman@4.9.x", None),
            ("vouchd@1.0", None),
            ("cri-o", None),
            ("", None),
        ] {
            assert_eq!(Target::parse(text).ok().map(|target| target.library()), library, "{text}");
        }
    }
}
