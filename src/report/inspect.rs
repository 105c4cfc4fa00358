//! [`InspectReport`]: what is attached to an image, as data.

use serde::Serialize;

use crate::diagnostic::clip;
use crate::engine::{Error, InspectedManifest, InspectedStore, Inspection};
use crate::evaluate::verdict::Role;
use crate::inspect::{Failure, Finding, Item, Outcome, Proven};
use crate::verify::bundle::LogEntry;
use crate::verify::hearsay::{Hearsay, UntrustedLogEntry};
use crate::verify::identity::{Extension, SigningIdentity};
use crate::verify::payload::SignedName;

use super::{SCHEMA, SignerReport};

/// What is attached to an image. It is no verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct InspectReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The image as it was asked for.
    pub reference: String,
    /// Whether everything could be asked, and is here.
    pub complete: bool,
    /// Why nothing could be looked at; absent if something could.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// What can be done about it.
    pub help: Option<String>,
    /// Where the image really came from, if that is not where its name says.
    pub source: Option<String>,
    /// What the reference names, and if that is an index the instance for the platform.
    pub manifests: Vec<InspectedManifestReport>,
    /// Why there is no instance, if there should be one.
    pub failure: Option<FailureReport>,
    /// Requirements for a policy that verified signatures satisfy, each as JSON.
    pub proposals: Vec<String>,
    /// Things to know.
    pub warnings: Vec<String>,
    /// The number of requests that were made.
    pub requests: u64,
}

/// A manifest and the places where something may be attached to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct InspectedManifestReport {
    /// `top-level` or `instance`.
    pub subject: &'static str,
    /// Its digest; absent if it can be read in more than one way.
    pub digest: Option<String>,
    /// The type that the source claims.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// Every place that was asked.
    pub places: Vec<PlaceReport>,
}

/// A place and what is there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlaceReport {
    /// `attachments`, `attestations`, `extension`, `local`, `lookaside`, `referrers` or `sboms`.
    pub kind: &'static str,
    /// Path, URL or reference.
    pub location: String,
    /// What is there.
    pub items: Vec<ItemReport>,
    /// Why that may not be all.
    pub failures: Vec<FailureReport>,
}

/// Something that is attached. What its place says of it is proven by nobody.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ItemReport {
    /// Path or URL.
    pub location: String,
    /// `mediaType`, as its place says.
    pub media_type: Option<String>,
    /// `artifactType`, as its place says.
    pub artifact_type: Option<String>,
    /// The type of predicate in an annotation, as its place says.
    pub predicate_type: Option<String>,
    /// `digest`, as its place says.
    pub digest: Option<String>,
    /// `size`, as its place says.
    pub size: Option<u64>,
    /// Whether it was looked into.
    pub opened: bool,
    /// Why that failed.
    pub failure: Option<FailureReport>,
    /// The signatures in it.
    pub signatures: Vec<FindingReport>,
}

/// Why something could not be asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FailureReport {
    /// The cause.
    pub code: String,
    /// The same in words.
    pub message: String,
    /// What can be done about it.
    pub help: String,
}

/// What was found out about one signature.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FindingReport {
    /// `simple-signing`, `attachment`, `attestation`, `bundle` or `other`.
    pub kind: &'static str,
    /// Path or URL.
    pub location: String,
    /// Whether it is a good signature about this manifest, whoever made it.
    pub verified: bool,
    /// If not, why; if so, why it still is no signature of the image for any policy, or only for one that says so.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// What can be done about it.
    pub help: Option<String>,
    /// What it proves, if it is verified.
    pub proven: Option<ProvenReport>,
    /// What it says, if it is not: anybody may have written that.
    pub untrusted: Option<HearsayReport>,
}

/// What a verified signature proves.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProvenReport {
    /// Who signed.
    pub signer: SignerReport,
    /// What else the certificate says.
    pub extensions: Vec<ExtensionReport>,
    /// The name that is signed; absent if none is.
    pub signed_name: Option<String>,
    /// What kind of statement is signed.
    pub predicate_type: Option<String>,
    /// Proven times; of OpenPGP what the signer says.
    pub times: Vec<String>,
    /// Proven log entries.
    pub log_entries: Vec<LogEntryReport>,
}

/// What a signature says that is not verified.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HearsayReport {
    /// The name in the certificate.
    pub subject: Option<String>,
    /// Who is said to vouch for it.
    pub issuer: Option<String>,
    /// What else the certificate says.
    pub extensions: Vec<ExtensionReport>,
    /// OpenPGP keys.
    pub keys: Vec<String>,
    /// Names of images, or of subjects.
    pub names: Vec<String>,
    /// Digests that it is about.
    pub digests: Vec<String>,
    /// Whether this manifest's is among them.
    pub names_this_manifest: bool,
    /// What kind of statement it is.
    pub predicate_type: Option<String>,
    /// Times.
    pub times: Vec<String>,
    /// Log entries, whose log is given by its ID.
    pub log_entries: Vec<LogEntryReport>,
}

/// What a certificate says in one extension of Fulcio's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExtensionReport {
    /// Fulcio's name of it.
    pub name: &'static str,
    /// What it says.
    pub value: String,
}

/// A log entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogEntryReport {
    /// The name of the log, or its ID.
    pub log: String,
    /// The index in it, unless nobody signed that.
    pub index: Option<u64>,
}

impl InspectReport {
    /// The report of an inspection.
    pub fn of(reference: &str, inspection: &Inspection) -> Self {
        Self {
            complete: inspection.is_complete(),
            source: inspection.source.as_ref().map(|source| format!("docker://{source}")),
            manifests: inspection.manifests.iter().map(manifest).collect(),
            failure: inspection.failure.as_ref().map(FailureReport::of),
            proposals: inspection.proposals.iter().cloned().collect(),
            warnings: inspection.warnings.clone(),
            requests: number(inspection.requests),
            ..Self::empty(reference)
        }
    }

    /// The report where nothing could be looked at.
    pub fn of_error(reference: &str, error: &Error) -> Self {
        Self::failed(reference, error.code().as_str(), error.to_string(), error.help())
    }

    /// The same, with a code, its words and what can be done.
    pub fn failed(reference: &str, code: &str, message: String, help: &str) -> Self {
        let (code, help) = (Some(code.to_owned()), Some(help.to_owned()));
        Self { code, message: Some(message), help, ..Self::empty(reference) }
    }

    fn empty(reference: &str) -> Self {
        Self {
            schema: SCHEMA,
            reference: reference.to_owned(),
            complete: false,
            code: None,
            message: None,
            help: None,
            source: None,
            manifests: Vec::new(),
            failure: None,
            proposals: Vec::new(),
            warnings: Vec::new(),
            requests: 0,
        }
    }

    /// Every signature.
    pub fn signatures(&self) -> impl Iterator<Item = &FindingReport> {
        let places = self.manifests.iter().flat_map(|manifest| &manifest.places);
        places.flat_map(|place| &place.items).flat_map(|item| &item.signatures)
    }
}

impl FailureReport {
    fn of(failure: &Failure) -> Self {
        let Failure { code, message, help } = failure;
        Self { code: code.to_string(), message: message.clone(), help: help.clone() }
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn manifest(manifest: &InspectedManifest) -> InspectedManifestReport {
    InspectedManifestReport {
        subject: match manifest.role {
            Role::Instance => "instance",
            Role::TopLevel => "top-level",
        },
        digest: manifest.digest.as_ref().map(ToString::to_string),
        media_type: clip(&manifest.media_type),
        size: number(manifest.size),
        places: manifest.stores.iter().map(place).collect(),
    }
}

fn place(InspectedStore { store, findings }: &InspectedStore) -> PlaceReport {
    PlaceReport {
        kind: store.kind.name(),
        location: store.location.clone(),
        items: store.items.iter().zip(findings).map(|(one, findings)| item(one, findings)).collect(),
        failures: store.failures.iter().map(FailureReport::of).collect(),
    }
}

fn item(item: &Item, findings: &[Finding]) -> ItemReport {
    let descriptor = &item.descriptor;
    ItemReport {
        location: item.location.clone(),
        media_type: descriptor.media_type.clone(),
        artifact_type: descriptor.artifact_type.clone(),
        predicate_type: descriptor.predicate_type.clone(),
        digest: descriptor.digest.clone(),
        size: descriptor.size,
        opened: item.opened,
        failure: item.failure.as_ref().map(FailureReport::of),
        signatures: findings.iter().map(finding).collect(),
    }
}

fn finding(finding: &Finding) -> FindingReport {
    let (kind, location) = (finding.kind, finding.location.clone());
    match &finding.outcome {
        Outcome::NotVerified { reason, hearsay, names_manifest } => FindingReport {
            kind,
            location,
            verified: false,
            code: Some(reason.code().to_string()),
            message: Some(reason.message()),
            help: Some(reason.help()),
            proven: None,
            untrusted: Some(untrusted(hearsay, *names_manifest)),
        },
        Outcome::Verified { proven: found, uncounted } => FindingReport {
            kind,
            location,
            verified: true,
            code: uncounted.as_ref().map(|rejection| rejection.code().to_string()),
            message: uncounted.as_ref().map(ToString::to_string),
            help: uncounted.as_ref().map(|rejection| rejection.help().to_owned()),
            proven: Some(proven(found)),
            untrusted: None,
        },
    }
}

fn proven(proven: &Proven) -> ProvenReport {
    let entry = |LogEntry { log, index }: &LogEntry| LogEntryReport { log: log.clone(), index: *index };
    ProvenReport {
        signer: SignerReport::of(&proven.signer),
        extensions: proven.holder.as_ref().map(extensions).unwrap_or_default(),
        signed_name: match &proven.name {
            SignedName::Conflicting(name) | SignedName::Named(name) => Some(clip(name)),
            SignedName::Unnamed => None,
        },
        predicate_type: proven.predicate_type.as_deref().map(clip),
        times: proven.times.iter().map(ToString::to_string).collect(),
        log_entries: proven.log_entries.iter().map(entry).collect(),
    }
}

fn untrusted(hearsay: &Hearsay, names_this_manifest: bool) -> HearsayReport {
    let holder = hearsay.holder.as_ref();
    let entry = |UntrustedLogEntry { log_id, index, .. }: &UntrustedLogEntry| LogEntryReport {
        log: log_id.clone(),
        index: Some(*index),
    };
    HearsayReport {
        subject: holder.map(|holder| holder.subject().as_str().to_owned()),
        issuer: holder.and_then(SigningIdentity::issuer).map(str::to_owned),
        extensions: holder.map(extensions).unwrap_or_default(),
        keys: hearsay.keys.clone(),
        names: hearsay.names.clone(),
        digests: hearsay.digests.clone(),
        names_this_manifest,
        predicate_type: hearsay.predicate_type.clone(),
        times: hearsay.times.iter().map(ToString::to_string).collect(),
        log_entries: hearsay.log_entries.iter().map(entry).collect(),
    }
}

/// All but the issuer, which is told by itself.
fn extensions(holder: &SigningIdentity) -> Vec<ExtensionReport> {
    let told = Extension::ALL.into_iter().filter(|e| !matches!(e, Extension::Issuer | Extension::IssuerV2));
    let report = |extension: Extension| {
        let value = holder.extension(extension)?.to_owned();
        Some(ExtensionReport { name: extension.name(), value })
    };
    told.filter_map(report).collect()
}
