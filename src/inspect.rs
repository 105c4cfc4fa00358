//! What is attached to an image: what each signature proves, and what it only says.
//!
//! No policy is asked, and nothing here is a verdict. What a signature proves is in [`Proven`], what anybody may have
//! written in [`Hearsay`], and no signature has both.

use std::sync::Arc;

use crate::diagnostic::Code;
use crate::digest::Digest;
use crate::evaluate::evidence::LocatedSignature;
use crate::evaluate::identity;
use crate::policy::certificate::Forge;
use crate::policy::{Policy, Requirement, Signer as WantedSigner, SigstoreSigned};
use crate::reference::ImageReference;
use crate::verify::bundle::{self, Artifact, BundleClaim, BundleSigner, Lacking, LogEntry, Subject};
use crate::verify::hearsay::{DSSE, Hearsay};
use crate::verify::identity::{Extension, SigningIdentity};
use crate::verify::payload::SignedName;
use crate::verify::sigstore::{self, SIGNATURE_MIME_TYPE};
use crate::verify::trust::KeyMaterial;
use crate::verify::trusted_root::{self, HostRoot, TrustedRoot};
use crate::verify::{
    Claim, Payload, Rejection, Signer, Timestamp, UntrustedSignature, UntrustedSigstore, Verified, openpgp,
};

/// A place where something may be attached to a manifest, and what is there.
#[derive(Clone, Debug)]
pub struct Store {
    /// What kind of place.
    pub kind: StoreKind,
    /// Path, URL or reference, without credentials. Untrusted: escape before printing.
    pub location: String,
    /// What is there, in the order of the place.
    pub items: Vec<Item>,
    /// Why that may not be all.
    pub failures: Vec<Failure>,
}

/// Where something may be attached; seeds-and-formats, section 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// The tag `sha256-<hex>.sig` of cosign 2.
    Attachments,
    /// The tag `sha256-<hex>.att` of cosign 2.
    Attestations,
    /// The API extension of registries that keep signatures themselves.
    Extension,
    /// The files of a local image.
    Local,
    /// A lookaside store.
    Lookaside,
    /// Manifests that refer to this one.
    Referrers,
    /// The tag `sha256-<hex>.sbom` of cosign 2.
    Sboms,
}

impl StoreKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attachments => "attachments",
            Self::Attestations => "attestations",
            Self::Extension => "extension",
            Self::Local => "local",
            Self::Lookaside => "lookaside",
            Self::Referrers => "referrers",
            Self::Sboms => "sboms",
        }
    }
}

/// Something that is attached.
#[derive(Clone, Debug)]
pub struct Item {
    /// Path or URL, without credentials. Untrusted: escape before printing.
    pub location: String,
    /// What the place says of it.
    pub descriptor: Descriptor,
    /// Whether it was looked into. What its place calls something else than a signature is not.
    pub opened: bool,
    /// The signatures in it.
    pub signatures: Vec<LocatedSignature>,
    /// Why they may not be all.
    pub failure: Option<Failure>,
}

impl Item {
    /// A signature of which its place says nothing.
    pub fn of_signature(located: LocatedSignature) -> Self {
        let (location, descriptor) = (located.location.clone(), Descriptor::default());
        Self { location, descriptor, opened: true, signatures: vec![located], failure: None }
    }
}

/// What a place says of a thing, proven by nobody. Untrusted: escape before printing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// `mediaType`
    pub media_type: Option<String>,
    /// `artifactType`
    pub artifact_type: Option<String>,
    /// The annotation with the type of predicate that cosign 3 writes.
    pub predicate_type: Option<String>,
    /// `digest`
    pub digest: Option<String>,
    /// `size`
    pub size: Option<u64>,
}

/// Why something could not be asked, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The cause.
    pub code: Code,
    /// The same in words.
    pub message: String,
    /// What can be done about it.
    pub help: String,
}

/// What signatures are verified with.
#[derive(Clone, Debug)]
pub struct Trust {
    /// For certificates.
    pub root: Root,
    /// Public keys.
    pub keys: Vec<Arc<KeyMaterial>>,
    /// OpenPGP keys.
    pub gpg_keys: Vec<Arc<KeyMaterial>>,
}

/// A trusted root.
#[derive(Clone, Debug)]
pub enum Root {
    /// That of this host.
    Host(Arc<HostRoot>),
    /// One that the caller names.
    Named {
        /// The file, as a policy could name it, if one could.
        path: Option<String>,
        /// What is in it.
        material: Arc<KeyMaterial>,
    },
}

impl Root {
    /// What to know of it if it is stale. Untrusted: escape before printing.
    pub fn stale_warning(&self, now: Timestamp) -> Option<String> {
        match self {
            Self::Host(host) => trusted_root::stale_warning(&host.source, host.current_until, now),
            Self::Named { material, .. } => {
                trusted_root::stale_warning(material.source(), material.written(), now)
            }
        }
    }
}

impl Trust {
    /// The trusted root, and whether what it lacks is waived, as only in one that was named (T-14).
    fn root(&self) -> Result<(&TrustedRoot, Lacking), Rejection> {
        match &self.root {
            Root::Host(host) => Ok((&host.root, Lacking::Refused)),
            Root::Named { material, .. } => match material.trusted_root() {
                Ok(root) => Ok((root, Lacking::Waived)),
                Err(error) => {
                    let (source, error) = (material.source().to_owned(), error.clone());
                    Err(Rejection::TrustedRootInvalid { source, error })
                }
            },
        }
    }
}

/// A manifest with a digest.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Its bytes.
    pub manifest: &'a [u8],
    /// Their digest.
    pub digest: &'a Digest,
}

/// What was found out about one signature.
#[derive(Clone, Debug)]
pub struct Finding {
    /// `simple-signing`, `attachment`, `attestation` or `bundle`; `other` if it is none of them.
    pub kind: &'static str,
    /// Path or URL, without credentials. Untrusted: escape before printing.
    pub location: String,
    /// The result.
    pub outcome: Outcome,
}

/// Whether a signature is good, which no policy was asked about.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is not, or nobody can tell; what it says proves nothing.
    NotVerified {
        /// Why not.
        reason: Reason,
        /// What it says.
        hearsay: Box<Hearsay>,
        /// Whether it says that it is about this manifest.
        names_manifest: bool,
    },
    /// It is a good signature about this manifest, with everything that belongs to it.
    Verified {
        /// What it proves.
        proven: Box<Proven>,
        /// Why no policy takes it for a signature of the image, or only if it says so.
        uncounted: Option<Rejection>,
    },
}

/// Why a signature is not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is by a key, and none of that kind was given.
    NoKey {
        /// The option that gives one.
        option: &'static str,
    },
    /// It does not verify.
    Rejected(Rejection),
}

impl From<Rejection> for Reason {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl Reason {
    /// The stable name of the cause.
    pub fn code(&self) -> Code {
        match self {
            Self::NoKey { .. } => Code::KeyUnknown,
            Self::Rejected(rejection) => rejection.code(),
        }
    }

    /// The cause in words, escaped.
    pub fn message(&self) -> String {
        match self {
            Self::NoKey { option } => format!("it is by a key, and none was given with {option}"),
            Self::Rejected(Rejection::KeyUnknown { .. }) => {
                "it is by another key than those given".to_owned()
            }
            Self::Rejected(rejection) => rejection.to_string(),
        }
    }

    /// What can be done about it.
    pub fn help(&self) -> String {
        match self {
            Self::NoKey { option } => format!("name the signer's key with {option}"),
            Self::Rejected(Rejection::KeyUnknown { .. }) => {
                format!("if you trust that key, name it with {GPG_KEY}")
            }
            Self::Rejected(rejection) => rejection.help().to_owned(),
        }
    }
}

/// What a good signature proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Who signed.
    pub signer: Signer,
    /// All that the certificate says, if there is one.
    pub holder: Option<SigningIdentity>,
    /// The name that is signed.
    pub name: SignedName,
    /// What kind of statement is signed, if it is one.
    pub predicate_type: Option<String>,
    /// Times that others have signed for; of OpenPGP what the signer says.
    pub times: Vec<Timestamp>,
    /// Proven log entries.
    pub log_entries: Vec<LogEntry>,
}

/// Finds out about one signature.
pub fn examine(located: &LocatedSignature, signed: Signed<'_>, trust: &Trust, now: Timestamp) -> Finding {
    let signature = &located.signature;
    let (kind, result) = match signature {
        UntrustedSignature::Bundle(bytes) => ("bundle", examine_bundle(bytes, signed, trust)),
        UntrustedSignature::SimpleSigning(blob) => {
            let result = examine_message(blob, signed, trust, now);
            ("simple-signing", result.map(|proven| (proven, None)))
        }
        UntrustedSignature::Sigstore(layer) if layer.mime_type == SIGNATURE_MIME_TYPE => {
            let result = examine_attachment(layer, signed, trust, now);
            ("attachment", result.map(|proven| (proven, None)))
        }
        UntrustedSignature::Sigstore(layer) if layer.mime_type == DSSE => {
            let what = "attestations as cosign 2 attaches them";
            ("attestation", Err(Rejection::Unsupported { what }.into()))
        }
        UntrustedSignature::Sigstore(layer) => {
            ("other", Err(Rejection::NotASignature { what: layer.mime_type.clone() }.into()))
        }
    };
    let outcome = match result {
        Ok((proven, uncounted)) => Outcome::Verified { proven: Box::new(proven), uncounted },
        Err(reason) => {
            let hearsay = Box::new(Hearsay::of(signature));
            let names_manifest = hearsay.digests.contains(&signed.digest.to_string());
            Outcome::NotVerified { reason, hearsay, names_manifest }
        }
    };
    Finding { kind, location: located.location.clone(), outcome }
}

/// A bundle about the manifest, whatever it says of it, and why it is no signature then.
fn examine_bundle(
    bytes: &[u8],
    signed: Signed<'_>,
    trust: &Trust,
) -> Result<(Proven, Option<Rejection>), Reason> {
    let keys: Vec<&KeyMaterial> = trust.keys.iter().map(AsRef::as_ref).collect();
    let with = if bundle::has_certificate(bytes)? {
        let (root, lacking) = trust.root()?;
        bundle::Trust::Certificates { root, lacking }
    } else if keys.is_empty() {
        return Err(Reason::NoKey { option: KEY });
    } else {
        bundle::Trust::Keys { keys: &keys, root: None }
    };
    let claim = bundle::verify_blob(bytes, Artifact::Bytes(signed.manifest), with)?;
    let proven = prove(&claim)?;
    let uncounted = match bundle::verify_manifest(bytes, signed.manifest, signed.digest, with, false) {
        Ok(_) => check_one_name(&proven.name).err(),
        Err(rejection) => Some(rejection),
    };
    Ok((proven, uncounted))
}

/// Several names for one digest are none that a policy could match (T-16).
fn check_one_name(name: &SignedName) -> Result<(), Rejection> {
    match name {
        SignedName::Conflicting(name) => {
            let wanted = "one name for everything with this digest".to_owned();
            Err(Rejection::IdentityMismatch { signed: name.clone(), wanted })
        }
        SignedName::Named(_) | SignedName::Unnamed => Ok(()),
    }
}

/// What a verified bundle proves.
fn prove(claim: &Verified<BundleClaim>) -> Result<Proven, Rejection> {
    let BundleClaim { subject, signer, times, log_entries } = claim.get();
    let (signer, holder) = match signer {
        BundleSigner::Certificate { der, spki } => {
            let mut found = None;
            let signer = identity::check_holder(der, spki, |holder| {
                found = Some(holder.clone());
                Ok(())
            })?;
            (signer, found)
        }
        BundleSigner::PublicKey { spki } => (Signer::PublicKey { spki: spki.clone() }, None),
    };
    let (name, predicate_type) = match subject {
        Subject::Message => (SignedName::Unnamed, None),
        Subject::Statement { predicate_type, subjects } => {
            let names = subjects.iter().map(|subject| subject.name.as_deref());
            (SignedName::of_subjects(names), Some(predicate_type.clone()))
        }
    };
    let (times, log_entries) = (times.clone(), log_entries.clone());
    Ok(Proven { signer, holder, name, predicate_type, times, log_entries })
}

/// An attachment of cosign 2, by its certificate if it has one, or else by a key.
fn examine_attachment(
    layer: &UntrustedSigstore,
    signed: Signed<'_>,
    trust: &Trust,
    now: Timestamp,
) -> Result<Proven, Reason> {
    let has_certificate = sigstore::has_certificate(layer);
    if !has_certificate && trust.keys.is_empty() {
        sigstore::check_form(layer)?;
        return Err(Reason::NoKey { option: KEY });
    }
    let by_key = || {
        let keys = trust.keys.clone();
        prove_claim(&sigstore::verify(layer, &sigstore::Trust::Keys { keys }, now)?, signed)
    };
    if !has_certificate {
        return Ok(by_key()?);
    }
    let by_certificate = || {
        let (root, lacking) = trust.root()?;
        let (claim, payload) = bundle::verify_attachment(layer, root, lacking)?;
        check_digest(&payload, signed)?;
        Ok(Proven { name: SignedName::Named(payload.docker_reference), ..prove(&claim)? })
    };
    // A certificate may stand beside a signature that is verified by its key.
    let rejected = |rejection: Rejection| match trust.keys.is_empty() {
        true => Err(rejection),
        false => by_key().map_err(|_| rejection),
    };
    Ok(by_certificate().or_else(rejected)?)
}

/// An OpenPGP message.
fn examine_message(blob: &[u8], signed: Signed<'_>, trust: &Trust, now: Timestamp) -> Result<Proven, Reason> {
    if trust.gpg_keys.is_empty() {
        openpgp::check_form(blob)?;
        return Err(Reason::NoKey { option: GPG_KEY });
    }
    let keys: Vec<&KeyMaterial> = trust.gpg_keys.iter().map(AsRef::as_ref).collect();
    Ok(prove_claim(&openpgp::verify(blob, &keys, now)?, signed)?)
}

fn prove_claim(claim: &Verified<Claim>, signed: Signed<'_>) -> Result<Proven, Rejection> {
    let Claim { payload, signer, time } = claim.get();
    check_digest(payload, signed)?;
    Ok(Proven {
        signer: signer.clone(),
        holder: None,
        name: SignedName::Named(payload.docker_reference.clone()),
        predicate_type: None,
        times: time.iter().copied().collect(),
        log_entries: Vec::new(),
    })
}

/// Rule E-23: what is signed is this manifest.
fn check_digest(payload: &Payload, signed: Signed<'_>) -> Result<(), Rejection> {
    if payload.manifest_digest == *signed.digest {
        return Ok(());
    }
    let (wanted, found) = (payload.manifest_digest.clone(), signed.digest.clone());
    Err(Rejection::DigestMismatch { wanted, found })
}

/// A requirement with `keyless` that a signature would satisfy, as JSON; none where more must be said than who signs.
///
/// It is read as a policy would be, and holds against the certificate and the signed name before it is proposed.
pub fn propose(finding: &Finding, image: &ImageReference, trust: &Trust) -> Option<String> {
    let proven = match &finding.outcome {
        Outcome::Verified { proven, uncounted: None } => proven,
        Outcome::NotVerified { .. } | Outcome::Verified { uncounted: Some(_), .. } => return None,
    };
    let holder = proven.holder.as_ref()?;
    let issuer = holder.issuer()?;
    let subject = match Forge::of_issuer(issuer) {
        Some(_) => holder.extension(Extension::SourceRepositoryUri)?,
        None => holder.subject().email()?,
    };
    let mut requirement =
        serde_json::json!({"type": "sigstoreSigned", "keyless": {"issuer": issuer, "subject": subject}});
    if let (Root::Named { path, .. }, Some(members)) = (&trust.root, requirement.as_object_mut()) {
        members.insert("trustedRootPath".to_owned(), path.as_deref()?.into());
    }
    let policy = serde_json::json!({ "default": [requirement] }).to_string();
    let policy = Policy::parse(policy.as_bytes()).ok()?;
    let accepts = |requirement: &Requirement| match requirement {
        Requirement::SigstoreSigned(SigstoreSigned {
            signer: WantedSigner::Certificate { identity: wanted, .. },
            identity,
            ..
        }) => {
            identity::check_signer(wanted, holder).is_ok()
                && identity::check_name(identity, image.docker_reference(), &proven.name).is_ok()
        }
        Requirement::InsecureAcceptAnything
        | Requirement::Reject
        | Requirement::SignedBaseLayer(_)
        | Requirement::SignedBy(_)
        | Requirement::SigstoreSigned(_) => false,
    };
    policy.lookup(image).requirements.iter().all(accepts).then(|| requirement.to_string())
}

/// The option that gives a public key.
const KEY: &str = "--key";

/// The option that gives an OpenPGP key.
const GPG_KEY: &str = "--gpg-key";
