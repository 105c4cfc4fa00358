//! Rules about the files, keys and certificates that a policy names (rules C-3, C-30, C-40, G-5 to G-9, P-14).

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::{Code, Severity, Span};
use crate::json::Value;
use crate::policy::Requirement;
use crate::policy::certificate::RootSource;
use crate::verify::openpgp::{Audit, Certificates};
use crate::verify::trust::{KeyMaterial, Life};
use crate::verify::trusted_root::{ADVICE, is_stale};
use crate::verify::{Rejection, Timestamp};

use super::draft::{Draft, Written, member};
use super::{Case, Findings, Place, Surroundings};

/// A file or datum of the policy, with what it is used for.
#[derive(Debug)]
pub(super) struct Key<'v> {
    purpose: Purpose,
    source: Source<'v>,
    /// Where it stands first.
    span: Span,
    /// How often it is named.
    count: usize,
    material: Option<Arc<KeyMaterial>>,
    failure: Option<String>,
    writable: Option<PathBuf>,
    private: Option<PathBuf>,
    /// Of OpenPGP keys.
    audits: Vec<Audit>,
}

/// What a key is for, which decides what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    FulcioAuthority,
    Log,
    OpenPgp,
    PkiIntermediate,
    PkiRoot,
    PublicKey,
    TrustedRoot,
}

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source<'v> {
    Data(Vec<u8>),
    Path(&'v str),
}

impl Key<'_> {
    /// The name of the file, or what takes its place.
    fn name(&self) -> String {
        match &self.source {
            Source::Data(_) => "the data here".to_owned(),
            Source::Path(path) => format!("\"{path}\""),
        }
    }

    /// How many other places name it.
    fn elsewhere(&self) -> String {
        match self.count.saturating_sub(1) {
            0 => String::new(),
            1 => "; it is named at another place, too".to_owned(),
            others => format!("; it is named at {others} other places, too"),
        }
    }
}

/// The files that a policy names.
pub(super) fn files(draft: &Draft<'_>) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    each_source(draft, |_, source, _| {
        if let Source::Path(path) = source {
            files.insert(path.to_owned());
        }
    });
    files
}

/// Whether certificates are judged with the trusted root of the host.
pub(super) fn needs_host_root(draft: &Draft<'_>) -> bool {
    draft.requirements().any(|(_, written)| uses_host_root(written))
}

fn uses_host_root(written: &Written<'_>) -> bool {
    let root = written.meaning.as_ref().and_then(Requirement::trusted_root);
    root.is_some_and(|root| root.source == RootSource::Host)
}

/// Every key once for each purpose, in the order of the policy.
pub(super) fn collect<'v>(draft: &Draft<'v>, surroundings: &Surroundings, now: Timestamp) -> Vec<Key<'v>> {
    let mut known: HashMap<(Purpose, Source<'v>), usize> = HashMap::new();
    let mut keys: Vec<Key<'v>> = Vec::new();
    each_source(draft, |purpose, source, span| {
        let index = *known.entry((purpose, source.clone())).or_insert(keys.len());
        if let Some(key) = keys.get_mut(index) {
            key.count = key.count.saturating_add(1);
            return;
        }
        let mut key = Key {
            purpose,
            span,
            count: 1,
            material: None,
            failure: None,
            writable: None,
            private: None,
            audits: Vec::new(),
            source,
        };
        match &key.source {
            Source::Data(bytes) => key.material = Some(Arc::new(KeyMaterial::of_policy(bytes))),
            Source::Path(path) => {
                let file = surroundings.files.get(*path);
                match file.map(|file| &file.material) {
                    Some(Ok(material)) => key.material = Some(Arc::clone(material)),
                    Some(Err(failure)) => key.failure = Some(failure.clone()),
                    None => {}
                }
                key.writable = file.and_then(|file| file.writable.clone());
                key.private = file.and_then(|file| file.private.clone());
            }
        }
        if let (Purpose::OpenPgp, Some(material)) = (purpose, &key.material) {
            key.audits = material.certificates().audit(now).unwrap_or_default();
        }
        keys.push(key);
    });
    keys
}

fn each_source<'v>(draft: &Draft<'v>, mut found: impl FnMut(Purpose, Source<'v>, Span)) {
    for (_, written) in draft.requirements() {
        let (key, rekor) = match written.kind() {
            "signedBy" => (Purpose::OpenPgp, None),
            "sigstoreSigned" => (Purpose::PublicKey, Some(Purpose::Log)),
            _ => continue,
        };
        let value = written.value;
        let mut all: Vec<(Purpose, Option<&'v Value<'v>>, &str)> =
            ["keyPath", "keyPaths", "keyData", "keyDatas"].map(|name| (key, Some(value), name)).to_vec();
        if let Some(log) = rekor {
            let names = super::target::REKOR;
            all.extend(names.map(|name| (log, Some(value), name)));
            let of = |name| member(value, name).map(|member| &member.value);
            all.extend(["caPath", "caData"].map(|name| (Purpose::FulcioAuthority, of("fulcio"), name)));
            all.extend(["caRootsPath", "caRootsData"].map(|name| (Purpose::PkiRoot, of("pki"), name)));
            let names = ["caIntermediatesPath", "caIntermediatesData"];
            all.extend(names.map(|name| (Purpose::PkiIntermediate, of("pki"), name)));
            all.extend(
                ["trustedRootPath", "trustedRootData"].map(|name| (Purpose::TrustedRoot, Some(value), name)),
            );
        }
        for (purpose, parent, name) in all {
            let Some(one) = parent.and_then(|parent| member(parent, name)).map(|member| &member.value) else {
                continue;
            };
            let is_data = name.contains("Data");
            let is_list = name.ends_with('s') && !is_data || name.ends_with("Datas");
            let values = if is_list { one.elements().unwrap_or_default() } else { std::slice::from_ref(one) };
            for value in values {
                match (is_data, value.text()) {
                    // Alone, an empty path is none, or a fault by itself.
                    (false, Some("")) if !is_list => {}
                    (false, Some(path)) => found(purpose, Source::Path(path), value.span),
                    (true, Some(_)) => {
                        value
                            .bytes()
                            .into_iter()
                            .for_each(|bytes| found(purpose, Source::Data(bytes), value.span));
                    }
                    (_, None) => {}
                }
            }
        }
    }
}

/// A file that the policy names can be read.
///
/// Rules E-16 and E-17: that it cannot is told by other tools only when there is a signature.
pub(super) fn key_file_unreadable(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        if let Some(failure) = &key.failure {
            let message = format!("cannot read {}: {failure}{}", key.name(), key.elsewhere());
            out.at(key.span, message).help("install the file, or correct its name or permissions");
        }
    }
}

/// A key or certificate is of the kind that its member wants.
///
/// Rules C-3, C-30, C-40 and G-8.
pub(super) fn key_file_invalid(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        let Some(material) = &key.material else { continue };
        let Some(reason) = fault(key.purpose, material) else { continue };
        let message =
            format!("{} cannot be used as {}: {reason}{}", key.name(), wanted(key.purpose), key.elsewhere());
        out.at(key.span, message).help(match key.purpose {
            Purpose::OpenPgp => "export the key with \"gpg --export\"",
            Purpose::PublicKey => "write the public key as PEM, as \"cosign public-key\" prints it",
            Purpose::Log => "write the public key of the Rekor log as PEM",
            Purpose::FulcioAuthority | Purpose::PkiIntermediate | Purpose::PkiRoot => {
                "write the certificates of the authority as PEM"
            }
            Purpose::TrustedRoot => "",
        });
    }
}

fn wanted(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::FulcioAuthority | Purpose::PkiRoot => "an authority",
        Purpose::Log => "the key of a log",
        Purpose::OpenPgp => "an OpenPGP key",
        Purpose::PkiIntermediate => "an intermediate authority",
        Purpose::PublicKey => "a public key",
        Purpose::TrustedRoot => "a trusted root",
    }
}

fn fault(purpose: Purpose, material: &KeyMaterial) -> Option<String> {
    if material.bytes().is_empty() {
        return Some("it is empty".to_owned());
    }
    let authorities = |lives: Result<Vec<Life>, &'static str>| match lives {
        Ok(lives) if lives.iter().any(|life| life.is_authority) => None,
        Ok(_) => Some("none of its certificates may issue others".to_owned()),
        Err(detail) => Some(detail.to_owned()),
    };
    match purpose {
        Purpose::FulcioAuthority | Purpose::PkiRoot => authorities(material.authority_lives()),
        Purpose::Log => material.log_key().err().map(|error| error.detail().to_owned()),
        Purpose::OpenPgp if material.certificates().are_too_many() => {
            Some("it holds more than 1024 OpenPGP keys".to_owned())
        }
        Purpose::OpenPgp => material.certificates().is_empty().then(|| match material.labels().first() {
            Some(label) => format!("it holds a PEM block \"{label}\" and no OpenPGP key"),
            None => "it holds no OpenPGP key that can be read".to_owned(),
        }),
        Purpose::PkiIntermediate => authorities(material.intermediate_lives()),
        Purpose::PublicKey => material.public_key().err().map(|error| error.detail().to_owned()),
        Purpose::TrustedRoot => None,
    }
}

/// A trusted root can be used.
///
/// T-14, T-15.
pub(super) fn trusted_root_invalid(case: &Case<'_>, out: &mut Findings) {
    for key in case.keys.iter().filter(|key| key.purpose == Purpose::TrustedRoot) {
        if let Some(Err(error)) = key.material.as_ref().map(|material| material.trusted_root()) {
            let message = format!("{} is no trusted root: {}{}", key.name(), error.detail, key.elsewhere());
            out.at(key.span, message).help(error.help());
        }
    }
    faults(case, out, Code::TrustedRootInvalid);
}

/// Adds the faults of other configuration that have this code.
pub(super) fn faults(case: &Case<'_>, out: &mut Findings, code: Code) {
    for fault in case.surroundings.faults.iter().filter(|fault| fault.code == code) {
        let place = Place::File { path: fault.path.clone(), at: fault.at };
        out.add(place, fault.message.clone()).help(fault.help.clone());
    }
}

/// A trusted root is recent enough to know the authorities and logs that sign today.
///
/// T-31.
pub(super) fn trusted_root_stale(case: &Case<'_>, out: &mut Findings) {
    for key in case.keys.iter().filter(|key| key.purpose == Purpose::TrustedRoot) {
        let written = key.material.as_ref().and_then(|material| material.written());
        if let Some(written) = written.filter(|written| is_stale(Some(*written), case.now)) {
            let message = format!(
                "{} is of {written}, and may not know who signs today{}",
                key.name(),
                key.elsewhere()
            );
            out.at(key.span, message).help(ADVICE);
        }
    }
    let Some(root) = case.surroundings.host_root.as_ref().filter(|root| root.is_stale(case.now)) else {
        return;
    };
    let user = case.draft.requirements().find(|(_, written)| uses_host_root(written));
    if let Some((_, written)) = user {
        let since = root.current_until.map(|until| format!("of {until}")).unwrap_or_else(|| "old".to_owned());
        let message = format!(
            "the trusted root of this host, {}, is {since}, and may not know who signs today",
            root.source
        );
        out.at(written.span(), message).help(ADVICE);
    }
}

/// Of several public keys in one file only the first counts, and of several armored OpenPGP blocks not for every tool.
///
/// Rules C-3 and G-8.
pub(super) fn several_keys(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        let Some(material) = &key.material else { continue };
        let (message, help) = match key.purpose {
            Purpose::Log | Purpose::PublicKey => {
                let keys = material.labels().iter().filter(|label| label.ends_with("PUBLIC KEY")).count();
                if keys < 2 || material.public_key().is_err() {
                    continue;
                }
                (
                    format!("{} holds {keys} public keys, of which only the first counts", key.name()),
                    "write each to a file of its own, and name all with \"keyPaths\" or \"rekorPublicKeyPaths\"",
                )
            }
            Purpose::OpenPgp => {
                let blocks = Certificates::armored_blocks(material.bytes());
                if blocks < 2 {
                    continue;
                }
                (
                    format!(
                        "{} holds {blocks} armored blocks, of which some tools read only the first",
                        key.name()
                    ),
                    "write each to a file of its own, and name all with \"keyPaths\"; or write one binary keyring",
                )
            }
            Purpose::FulcioAuthority | Purpose::PkiIntermediate | Purpose::PkiRoot | Purpose::TrustedRoot => {
                continue;
            }
        };
        out.at(key.span, message + &key.elsewhere()).help(help);
    }
}

/// Who verifies needs no secret key, and everybody may read the policy.
pub(super) fn secret_key(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        let Some(material) = &key.material else { continue };
        let is_openpgp = key.purpose == Purpose::OpenPgp && material.certificates().have_secrets();
        if is_openpgp || material.labels().iter().any(|label| label.ends_with("PRIVATE KEY")) {
            let message =
                format!("{} holds a secret key: whoever reads it can sign{}", key.name(), key.elsewhere());
            out.at(key.span, message)
                .help("put the public key in its place, and replace the key if others could read it");
        }
    }
}

/// No signature by a key that has expired counts, however old it is.
///
/// Rule G-5.
pub(super) fn key_expired(case: &Case<'_>, out: &mut Findings) {
    by_fault(case, out, Code::KeyExpired);
}

/// No signature by a key that has been revoked counts.
///
/// Rule G-5.
pub(super) fn key_revoked(case: &Case<'_>, out: &mut Findings) {
    by_fault(case, out, Code::KeyRevoked);
}

/// A key must be able to sign.
///
/// Rules G-5, G-7 and G-9.
pub(super) fn key_unusable(case: &Case<'_>, out: &mut Findings) {
    by_fault(case, out, Code::KeyUnusable);
}

/// A key must be out of the reach of attackers.
///
/// Rule G-5.
pub(super) fn weak_algorithm(case: &Case<'_>, out: &mut Findings) {
    by_fault(case, out, Code::WeakAlgorithm);
}

/// The keys that would be refused with this code, whatever they sign.
fn by_fault(case: &Case<'_>, out: &mut Findings, code: Code) {
    for key in &case.keys {
        let bad = key.audits.iter().filter_map(|audit| {
            let fault = audit.fault.as_ref().filter(|fault| fault.code() == code)?;
            Some((audit, fault))
        });
        let is_last = key.audits.iter().all(|audit| audit.fault.is_some());
        let consequence = if is_last { "; no key that counts is left" } else { "" };
        for (audit, fault) in bad.take(TOLD) {
            // Its sentence is about a signature, and there is none.
            let what = if let Rejection::WeakAlgorithm { algorithm } = fault {
                format!(
                    "OpenPGP key {} in {} uses {algorithm}, which is too weak",
                    audit.fingerprint,
                    key.name()
                )
            } else {
                format!("{}: {fault}", key.name())
            };
            let message = format!("{what}{consequence}{}", key.elsewhere());
            let finding = out.at(key.span, message);
            finding.help(fault.help());
            if !is_last {
                finding.severity(Severity::Note);
            }
        }
    }
}

/// A key that ends soon has to be replaced before.
pub(super) fn key_expires_soon(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        // One of several may well go.
        let last = key.audits.iter().filter(|audit| audit.fault.is_none()).map(|audit| audit.expires);
        let last: Option<Vec<Timestamp>> = last.collect();
        if let Some(end) = last.and_then(|ends| ends.into_iter().max()).filter(|end| is_soon(*end, case.now))
        {
            let message =
                format!("the last OpenPGP key in {} expires at {end}{}", key.name(), key.elsewhere());
            out.at(key.span, message).help("ask the publisher for the next key, and add it now");
        }
    }
}

fn is_soon(end: Timestamp, now: Timestamp) -> bool {
    end.0.saturating_sub(now.0) < SOON
}

/// A key whose self-signatures are SHA-1 counts here and is refused by tools with a stricter policy.
///
/// Rule G-4, the column of Sequoia.
pub(super) fn sha1_bound_key(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        for audit in key.audits.iter().filter(|audit| audit.is_bound_by_sha1).take(TOLD) {
            let message = format!(
                "OpenPGP key {} in {} has self-signatures with SHA-1 only, and tools that verify with Sequoia refuse it{}",
                audit.fingerprint,
                key.name(),
                key.elsewhere()
            );
            out.at(key.span, message).help("ask the publisher to sign the key's user ID again, with SHA-256");
        }
    }
}

/// The authorities of `pki` must be valid now; those of `fulcio` were when they signed.
///
/// Rules C-33 and C-41.
pub(super) fn authority_expired(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        let lives = match (key.purpose, &key.material) {
            (Purpose::PkiRoot, Some(material)) => material.authority_lives(),
            (Purpose::PkiIntermediate, Some(material)) => material.intermediate_lives(),
            (
                Purpose::FulcioAuthority
                | Purpose::Log
                | Purpose::OpenPgp
                | Purpose::PkiIntermediate
                | Purpose::PkiRoot
                | Purpose::PublicKey
                | Purpose::TrustedRoot,
                _,
            ) => continue,
        };
        let Some(end) = lives.ok().and_then(|lives| lives.iter().map(|life| life.not_after).max()) else {
            continue;
        };
        let message = if end < case.now {
            format!("the authorities in {} have expired, the last at {end}: no signature counts", key.name())
        } else if is_soon(end, case.now) {
            format!("the last authority in {} expires at {end}", key.name())
        } else {
            continue;
        };
        out.at(key.span, message + &key.elsewhere()).help("add the certificate that comes next");
    }
}

/// Authorities for web servers vouch for anybody who has a domain.
///
/// containers-policy.json(5), `caPath`: a Fulcio authority is for nothing else.
pub(super) fn authority_too_broad(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        let is_bundle = match &key.source {
            Source::Data(_) => false,
            Source::Path(path) => WEB.contains(path),
        };
        let lives = match key.purpose {
            Purpose::FulcioAuthority | Purpose::PkiRoot => {
                key.material.as_ref().map(|material| material.authority_lives())
            }
            Purpose::Log
            | Purpose::OpenPgp
            | Purpose::PkiIntermediate
            | Purpose::PublicKey
            | Purpose::TrustedRoot => {
                continue;
            }
        };
        let count = lives.and_then(Result::ok).map_or(0, |lives| lives.len());
        if is_bundle || count >= BROAD {
            let message = format!(
                "{} looks like the authorities for web servers, which give certificates to anybody{}",
                key.name(),
                key.elsewhere()
            );
            out.at(key.span, message)
                .help("name a file with nothing but the authority that the publisher uses");
        }
    }
}

/// A path that begins in the working directory means another file for every caller.
///
/// Rule P-14.
pub(super) fn relative_path(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        if let Source::Path(path) = key.source
            && !path.starts_with('/')
            && !path.is_empty()
        {
            let message =
                format!("\"{path}\" begins in the working directory of whoever asks{}", key.elsewhere());
            out.at(key.span, message).help("write the whole path");
        }
    }
}

/// A file that everybody can write decides nothing.
///
/// T-23.
pub(super) fn writable_keys(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        if let Some(path) = &key.writable {
            let message = format!(
                "everybody can change \"{}\", and so {}{}",
                path.display(),
                key.name(),
                key.elsewhere()
            );
            out.at(key.span, message).help("take the permission to write from others: chmod o-w");
        }
    }
}

/// The daemon, and users, can read what everybody may read.
///
/// Rule E-16 and systemd unit: the daemon runs as a user of its own, without capabilities.
pub(super) fn private_file(case: &Case<'_>, out: &mut Findings) {
    for key in &case.keys {
        if let Some(path) = &key.private {
            let message = format!(
                "not everybody may read \"{}\", so that the daemon and other users cannot read {}{}",
                path.display(),
                key.name(),
                key.elsewhere()
            );
            out.at(key.span, message)
                .help("give the permission to read to others: chmod o+rX; it is no secret");
        }
    }
}

/// How long before its end something is to be replaced: 30 days.
const SOON: i64 = 30 * 86_400;

/// Most keys of one file that are told of for one fault: 16.
const TOLD: usize = 16;

/// With as many certificates, a file is no longer one of one's own: 20.
const BROAD: usize = 20;

/// Where distributions keep the authorities for web servers.
const WEB: [&str; 6] = [
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-certificates.crt",
];
