//! Plan and judge: the policy says what is needed; the verdict follows from what was gathered.

pub mod evidence;
pub mod identity;
pub mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::{Algorithm, Digest};
use crate::manifest::{self, Malformed};
use crate::nonempty::NonEmpty;
use crate::policy::certificate::{
    CertificateIdentity, FulcioIdentity, FulcioSubject, MaxAge, RootSource, TrustedRoot,
};
use crate::policy::{
    KeySource, KeyType, Match, Pki, PkiSubject, Policy, Requirement, SignedBy, SignedIdentity, Signer,
    SigstoreSigned,
};
use crate::reference::{ImageReference, Place, Transport};
use crate::verify::bundle::{Lacking, Subject as BundleSubject};
use crate::verify::payload::SignedName;
use crate::verify::sigstore::{Certified, Subject as CertificateSubject, Trust};
use crate::verify::trust::KeyMaterial;
use crate::verify::trusted_root::is_stale;
use crate::verify::{
    Claim, Payload, Rejection, Timestamp, UntrustedSignature, UntrustedSigstore, Verified, bundle, openpgp,
    sigstore, trusted_root,
};

use evidence::{Evidence, LocatedSignature, ManifestEvidence, Needs, Question, Subject};
use identity::Binding;
use verdict::{
    Accepted, Decision, Grant, Others, Outcome, RequirementVerdict, Role, SignatureVerdict, SubjectVerdict,
    Support, TrustedRootUse, Verdict,
};

/// The requirements that apply to an image, and how the question is meant.
#[derive(Clone, Debug)]
pub struct Plan<'p> {
    image: &'p ImageReference,
    question: &'p Question,
    /// What the manifest must be.
    wanted: Option<&'p Digest>,
    matched: Match<'p>,
    /// Whether other tools can read the policy.
    is_common: bool,
}

/// Chooses the scope (rules S-20 to S-22).
pub fn plan<'p>(policy: &'p Policy, image: &'p ImageReference, question: &'p Question) -> Plan<'p> {
    let wanted = image.pinned_digest();
    Plan { image, question, wanted, matched: policy.lookup(image), is_common: policy.is_common() }
}

impl<'p> Plan<'p> {
    /// The manifest must have this digest, too, whatever the name leads to.
    pub fn of_manifest(mut self, digest: Option<&'p Digest>) -> Self {
        self.wanted = self.wanted.or(digest);
        self
    }

    /// The scope and its requirements.
    pub fn matched(&self) -> &Match<'p> {
        &self.matched
    }

    /// What must be gathered. Nothing, if the answer is no whatever is gathered.
    pub fn needs(&self) -> Needs {
        let checks: Result<Vec<Check<'_>>, Rejection> =
            self.matched.requirements.iter().map(Check::of).collect();
        let Ok(checks) = checks else { return Needs::default() };
        let mut needs = Needs { manifest: self.image.place() != &Place::Elsewhere, ..Needs::default() };
        for check in checks {
            match check {
                Check::Nothing => {}
                Check::SimpleSigning { keys, .. } => {
                    needs.add([keys]);
                    needs.time = true;
                }
                Check::Sigstore(SigstoreSigned { signer, implies_attachments, .. }) => {
                    needs.add(signer.sources());
                    needs.add_root(signer);
                    needs.attachments |= implies_attachments;
                    needs.time |= matches!(signer, Signer::Pki(_));
                }
            }
        }
        needs
    }

    /// Whether the answer is no, and signatures in manifests that refer to those judged could change it.
    pub fn wants_referrers(&self, verdict: &Verdict) -> bool {
        let may_change = |subject: &SubjectVerdict| {
            self.matched.requirements.iter().zip(&subject.requirements).all(|(requirement, judged)| {
                match &judged.outcome {
                    Outcome::Accepted => true,
                    Outcome::Rejected(reasons) => {
                        counts_bundles(requirement) && reasons.iter().all(is_of_signatures)
                    }
                }
            })
        };
        let (subjects, refused) = (&verdict.subjects, |s: &&SubjectVerdict| !s.is_accepted());
        let is_denied = matches!(verdict.decision, Decision::Deny(_));
        is_denied
            && subjects.iter().any(|s| refused(&s))
            && match self.question.subject {
                Subject::Both => subjects.iter().all(may_change),
                Subject::Either | Subject::Instance | Subject::TopLevel => {
                    subjects.iter().filter(refused).any(may_change)
                }
            }
    }

    /// The verdict. It depends on nothing but its arguments, and always exists.
    pub fn judge(&self, evidence: &Evidence, now: Timestamp) -> Verdict {
        let subjects = self.subjects(evidence, now);
        let (decision, authenticated) = self.decide(&subjects);
        let resolved_digest = evidence.top_level.as_ref().and_then(|m| manifest::digest(&m.bytes).ok());
        let warnings = self.warnings(&subjects, &decision);
        let others = if self.image.transport() == Transport::Ostree {
            // Other tools have no images of this transport.
            Others::UNKNOWN
        } else if self.is_common {
            others(&subjects, evidence)
        } else {
            Others::REFUSE
        };
        Verdict {
            decision,
            authenticated,
            scope: self.matched.scope.clone(),
            scope_span: self.matched.span,
            subjects,
            resolved_digest,
            others,
            trusted_roots: self.trusted_roots(evidence, now),
            warnings,
        }
    }

    /// The trusted roots that the requirements name, each once.
    fn trusted_roots(&self, evidence: &Evidence, now: Timestamp) -> Vec<TrustedRootUse> {
        let mut used = Vec::new();
        for root in self.matched.requirements.iter().filter_map(Requirement::trusted_root) {
            used.extend(used_root(root, evidence, now).filter(|root| !used.contains(root)));
        }
        used
    }

    /// Judges each manifest that the question is about.
    fn subjects(&self, evidence: &Evidence, now: Timestamp) -> Vec<SubjectVerdict> {
        let requirements = self.matched.requirements;
        let top_level =
            || self.judge_manifest(Role::TopLevel, evidence.top_level.as_ref(), self.wanted, evidence, now);
        let Some(instance) = &evidence.instance else {
            let lone = evidence.top_level.as_ref().map_or(Ok(()), |manifest| self.check_lone(manifest));
            return vec![match lone {
                Ok(()) => top_level(),
                Err(rejection) => SubjectVerdict {
                    role: Role::TopLevel,
                    digest: None,
                    requirements: requirements.iter().map(|r| refused(r, rejection.clone())).collect(),
                },
            }];
        };
        // Rule E-20: what the reference pins must itself be what the source has, whatever the instance says.
        let pinned = evidence.top_level.as_ref().zip(self.wanted);
        if pinned.is_some_and(|(manifest, wanted)| check_digest(&manifest.bytes, Some(wanted)).is_err()) {
            return vec![top_level()];
        }
        let instance = || {
            let (wanted, manifest) = (Some(&instance.digest), Some(&instance.manifest));
            self.judge_manifest(Role::Instance, manifest, wanted, evidence, now)
        };
        if evidence.top_level.is_none() {
            return vec![instance()];
        }
        match self.question.subject {
            Subject::Instance => vec![instance()],
            Subject::TopLevel => vec![top_level()],
            Subject::Both | Subject::Either => vec![top_level(), instance()],
        }
    }

    /// Why a manifest without an instance beside it is not what the question is about.
    fn check_lone(&self, manifest: &ManifestEvidence) -> Result<(), Rejection> {
        match (manifest::index_type(&manifest.bytes, &manifest.media_type), self.question.subject) {
            (Err(Malformed), _) => Err(Rejection::ManifestInvalid),
            (Ok(Some(_)), Subject::Both | Subject::Instance) => Err(Rejection::Unsupported {
                what: "an image index without the instance that is asked about",
            }),
            (Ok(Some(_)), Subject::Either | Subject::TopLevel) | (Ok(None), _) => Ok(()),
        }
    }

    fn decide(&self, subjects: &[SubjectVerdict]) -> (Decision, bool) {
        // With `either` the first acceptable manifest is granted, one that is authenticated before any other.
        let granted = match self.question.subject {
            Subject::Both => subjects.first().filter(|_| subjects.iter().all(SubjectVerdict::is_accepted)),
            Subject::Either | Subject::Instance | Subject::TopLevel => subjects
                .iter()
                .find(|s| s.is_accepted() && s.is_authenticated())
                .or_else(|| subjects.iter().find(|s| s.is_accepted())),
        };
        let Some(granted) = granted else {
            // Rule E-33: if both fail, the instance's reason is reported.
            let reason = subjects.iter().rev().find_map(SubjectVerdict::rejection);
            return (Decision::Deny(reason.cloned().unwrap_or(Rejection::RejectedByPolicy)), false);
        };
        let authenticated = match self.question.subject {
            Subject::Both => subjects.iter().all(SubjectVerdict::is_authenticated),
            Subject::Either | Subject::Instance | Subject::TopLevel => granted.is_authenticated(),
        };
        if self.question.require_signature && !authenticated {
            return (Decision::Deny(Rejection::SignatureRequired), false);
        }
        let grant = match &granted.digest {
            Some(digest) => Grant::pinned(digest.clone()),
            None => Grant::unpinned(self.image.transport()),
        };
        (Decision::Allow(grant), authenticated)
    }

    fn warnings(&self, subjects: &[SubjectVerdict], decision: &Decision) -> Vec<&'static str> {
        let refused = |role| subjects.iter().any(|s| s.role == role && !s.is_accepted());
        match decision {
            Decision::Deny(_) => Vec::new(),
            Decision::Allow(_) if refused(Role::Instance) => vec![
                "only the index satisfies the policy: podman and \"skopeo copy\" judge the instance and will refuse this image",
            ],
            Decision::Allow(_) if refused(Role::TopLevel) => vec![
                "only the instance for the platform satisfies the policy: skopeo image proxies from 1.13 to 1.22.1 judge the index and will refuse this image",
            ],
            Decision::Allow(_) => Vec::new(),
        }
    }

    fn judge_manifest(
        &self,
        role: Role,
        manifest: Option<&ManifestEvidence>,
        wanted: Option<&Digest>,
        evidence: &Evidence,
        now: Timestamp,
    ) -> SubjectVerdict {
        let found = manifest.map(|m| check_digest(&m.bytes, wanted));
        let requirements = self
            .matched
            .requirements
            .iter()
            .map(|requirement| match (Check::of(requirement), &found) {
                (Err(rejection), _) => refused(requirement, rejection),
                (Ok(_), Some(Err(rejection))) => refused(requirement, rejection.clone()),
                (Ok(check), Some(Ok(_)) | None) => {
                    let digest = found.as_ref().and_then(|found| found.as_ref().ok());
                    let annotations =
                        manifest.map_or(Ok(()), |m| identity::check_annotations(requirement, &m.bytes));
                    if let Err(rejection) = annotations.and_then(|()| check_age(requirement, evidence, now)) {
                        return refused(requirement, rejection);
                    }
                    Context { image: self.image, evidence, now, digest, manifest }.judge(requirement, check)
                }
            })
            .collect();
        SubjectVerdict { role, digest: found.and_then(Result::ok), requirements }
    }
}

/// The digest of the manifest, which must be the one that the reference or the index names.
///
/// Rules E-20 and E-21: only SHA-256 is computed, so a reference by another algorithm is never accepted.
fn check_digest(bytes: &[u8], wanted: Option<&Digest>) -> Result<Digest, Rejection> {
    let found = manifest::digest(bytes).map_err(|_| Rejection::ManifestInvalid)?;
    match wanted {
        Some(wanted) if wanted.algorithm() != Algorithm::Sha256 => Err(Rejection::Unsupported {
            what: "an image named by another digest than SHA-256, as no tool can",
        }),
        Some(wanted) if *wanted != found => Err(Rejection::DigestMismatch { wanted: wanted.clone(), found }),
        Some(_) | None => Ok(found),
    }
}

/// The trusted root must not be older than the requirement allows (T-31).
fn check_age(requirement: &Requirement, evidence: &Evidence, now: Timestamp) -> Result<(), Rejection> {
    let Some(root) = requirement.trusted_root() else { return Ok(()) };
    let most = match root.max_age {
        MaxAge::Seconds(seconds) => i64::try_from(seconds).unwrap_or(i64::MAX),
        MaxAge::Unlimited => return Ok(()),
    };
    match used_root(root, evidence, now) {
        Some(TrustedRootUse { current_until: Some(time), .. }) if now.0.saturating_sub(time.0) <= most => {
            Ok(())
        }
        Some(TrustedRootUse { source, current_until, .. }) => {
            Err(Rejection::TrustedRootStale { source, current_until })
        }
        // One that was not read is refused where it is used.
        None => Ok(()),
    }
}

/// Where a trusted root is from and how old it is; nothing if it was not read.
///
/// A file counts from its last change, unless that is still to come, and what stands in the policy itself has no age.
fn used_root(root: &TrustedRoot, evidence: &Evidence, now: Timestamp) -> Option<TrustedRootUse> {
    let (source, current_until) = match &root.source {
        RootSource::Data(_) => ("the policy".to_owned(), None),
        RootSource::Host => {
            let host = evidence.host_root.as_ref()?;
            let known = |time: &Timestamp| host.versions.is_some() || *time <= now;
            (host.source.clone(), host.current_until.filter(known))
        }
        RootSource::Path(path) => {
            (path.clone(), evidence.key_files.get(path)?.written().filter(|time| *time <= now))
        }
    };
    Some(TrustedRootUse { source, current_until, is_stale: is_stale(current_until, now) })
}

/// Whether another signature could still satisfy the requirement.
fn is_of_signatures(rejection: &Rejection) -> bool {
    !matches!(
        rejection,
        Rejection::AnnotationMismatch { .. }
            | Rejection::KeyFileInvalid { .. }
            | Rejection::ManifestInvalid
            | Rejection::TrustedRootInvalid { .. }
            | Rejection::TrustedRootStale { .. }
            | Rejection::Unsupported { .. }
    )
}

/// What evidence can satisfy a requirement; those that nothing can satisfy have none.
enum Check<'p> {
    Nothing,
    SimpleSigning { keys: &'p KeySource, identity: &'p SignedIdentity },
    Sigstore(&'p SigstoreSigned),
}

impl<'p> Check<'p> {
    /// The check, or why no evidence can satisfy the requirement.
    fn of(requirement: &'p Requirement) -> Result<Self, Rejection> {
        let unsupported = |what| Err(Rejection::Unsupported { what });
        match requirement {
            Requirement::InsecureAcceptAnything => Ok(Self::Nothing),
            Requirement::Reject => Err(Rejection::RejectedByPolicy),
            Requirement::SignedBaseLayer(_) => unsupported("\"signedBaseLayer\", as no tool can"),
            Requirement::SignedBy(SignedBy { key_type, keys, identity }) => match key_type {
                KeyType::GpgKeys => Ok(Self::SimpleSigning { keys, identity }),
                KeyType::SignedByGpgKeys | KeyType::X509Certificates | KeyType::SignedByX509Cas => {
                    unsupported("a \"keyType\" other than \"GPGKeys\", as no tool can")
                }
            },
            // It lets more signatures count, and this version finds none of them.
            Requirement::SigstoreSigned(SigstoreSigned { message_signature: true, .. })
                if !counts_bundles(requirement) =>
            {
                unsupported("\"messageSignature\" with \"fulcio\", \"pki\" or \"rekorPublicKey...\"")
            }
            Requirement::SigstoreSigned(signed) => Ok(Self::Sigstore(signed)),
        }
    }
}

/// Whether Sigstore bundles can satisfy the requirement. What they prove is not what `rekorPublicKey...`, `pki` and
/// authorities in the policy ask for (T-15).
fn counts_bundles(requirement: &Requirement) -> bool {
    let Requirement::SigstoreSigned(SigstoreSigned { signer, .. }) = requirement else { return false };
    match signer {
        Signer::Certificate { .. } | Signer::Keys { rekor: None, .. } => true,
        Signer::Fulcio { .. } | Signer::Keys { rekor: Some(_), .. } | Signer::Pki(_) => false,
    }
}

impl Needs {
    /// Signatures, and the keys and certificates to check them with.
    fn add<'p>(&mut self, sources: impl IntoIterator<Item = &'p KeySource>) {
        self.manifest = true;
        self.signatures = true;
        for source in sources {
            self.key_files.extend(source.paths().iter().cloned());
            self.key_data.extend(source.data().iter().cloned());
        }
    }

    /// The trusted root, if certificates are judged with one.
    fn add_root(&mut self, signer: &Signer) {
        let Signer::Certificate { root, .. } = signer else { return };
        self.add(root.source.key_source().as_ref());
        self.host_root |= root.source == RootSource::Host;
        self.time |= root.max_age != MaxAge::Unlimited;
    }
}

/// What tools say that judge one of the manifests only, or want less of both than was asked.
fn others(subjects: &[SubjectVerdict], evidence: &Evidence) -> Others {
    let accepted = |role| subjects.iter().find(|s| s.role == role).map(SubjectVerdict::is_accepted_by_others);
    let (top_level, instance) = (accepted(Role::TopLevel), accepted(Role::Instance));
    let is_index = |m: &ManifestEvidence| manifest::index_type(&m.bytes, &m.media_type) != Ok(None);
    // An index that is not the one that was asked for has no instances.
    let unjudged_instance = evidence.instance.is_none() && evidence.top_level.as_ref().is_some_and(is_index);
    let unjudged_index = evidence.instance.is_some() && top_level.is_none();
    let copy = instance.or(top_level.filter(|_| !unjudged_instance));
    let either = top_level == Some(true) || instance == Some(true);
    let image_proxy = (either || !unjudged_instance && !unjudged_index).then_some(either);
    // A manifest of another type they take for schema 1, and cannot read as that.
    let manifests = evidence.top_level.iter().chain(evidence.instance.iter().map(|i| &i.manifest));
    let are_readable = manifests.into_iter().all(|m| manifest::is_known(&m.media_type));
    let known = |accepted: &bool| are_readable || !accepted;
    Others { copy: copy.filter(known), image_proxy: image_proxy.filter(known) }
}

/// Why no evidence can satisfy the requirement, if that is so.
pub fn foregone(requirement: &Requirement) -> Option<Rejection> {
    Check::of(requirement).err()
}

fn refused(requirement: &Requirement, rejection: Rejection) -> RequirementVerdict {
    RequirementVerdict {
        kind: requirement.kind(),
        verifies_signatures: requirement.verifies_signatures(),
        outcome: Outcome::Rejected(NonEmpty::one(rejection)),
        support: Support::Common,
        signatures: Vec::new(),
    }
}

/// What may be a sigstore signature.
enum Candidate<'e> {
    Attachment(&'e UntrustedSigstore),
    Bundle(&'e [u8]),
}

/// What an attachment is verified with, and whose it must be where that is judged apart.
enum Proof<'p> {
    /// A certificate by an authority in the policy, for members of `fulcio` that are ours.
    Certified { authorities: Arc<KeyMaterial>, logs: Vec<Arc<KeyMaterial>>, wanted: &'p FulcioIdentity },
    /// What other tools know, too.
    Common(Trust<'p>),
    /// A certificate of a trusted root.
    Rooted { root: &'p RootSource, wanted: &'p CertificateIdentity },
}

/// What one requirement is judged with.
struct Context<'e> {
    image: &'e ImageReference,
    evidence: &'e Evidence,
    now: Timestamp,
    digest: Option<&'e Digest>,
    manifest: Option<&'e ManifestEvidence>,
}

impl<'e> Context<'e> {
    fn judge(&self, requirement: &Requirement, check: Check<'_>) -> RequirementVerdict {
        let mut support = Support::Common;
        let (signatures, rejections) = match check {
            Check::Nothing => (Vec::new(), None),
            Check::SimpleSigning { keys, identity } => self.simple_signing(keys, identity),
            Check::Sigstore(signed) => {
                let (signatures, rejections, found) = self.sigstore(signed);
                support = found;
                (signatures, rejections)
            }
        };
        RequirementVerdict {
            kind: requirement.kind(),
            verifies_signatures: requirement.verifies_signatures(),
            outcome: rejections.map_or(Outcome::Accepted, Outcome::Rejected),
            support,
            signatures,
        }
    }

    /// Rule E-13: the first acceptable simple-signing signature.
    fn simple_signing(
        &self,
        keys: &KeySource,
        identity: &SignedIdentity,
    ) -> (Vec<SignatureVerdict>, Option<NonEmpty<Rejection>>) {
        let mut candidates = Vec::new();
        let mut other_format = 0_usize;
        for (located, _) in self.located() {
            match &located.signature {
                UntrustedSignature::SimpleSigning(blob) => candidates.push((located, blob)),
                UntrustedSignature::Bundle(_) | UntrustedSignature::Sigstore(_) => {
                    other_format = other_format.saturating_add(1)
                }
            }
        }
        let unsigned = Rejection::Unsigned { other_format, other_type: 0 };
        let keys = self.keys(keys);
        first_accepted(&candidates, "simple-signing", unsigned, |blob| {
            let claim = openpgp::verify(blob, &usable(&keys)?, self.now)?;
            self.check_claim(&claim, identity)
        })
    }

    /// Every signature of the manifest, and whether other tools find it.
    fn located(&self) -> impl Iterator<Item = (&'e LocatedSignature, Support)> {
        self.manifest.into_iter().flat_map(|manifest| {
            let common = manifest.signatures.iter().map(|located| (located, Support::Common));
            common.chain(manifest.referrers.iter().map(|located| (located, Support::Ours)))
        })
    }

    /// Rule E-14: the first acceptable signature of cosign, as an attachment or as a bundle.
    fn sigstore(
        &self,
        signed: &SigstoreSigned,
    ) -> (Vec<SignatureVerdict>, Option<NonEmpty<Rejection>>, Support) {
        let mut candidates: Vec<(&LocatedSignature, Candidate<'_>)> = Vec::new();
        let mut supports = Vec::new();
        let (mut other_format, mut other_type) = (0_usize, 0_usize);
        // Design decision 3.4: what a requirement of ours has looked for does not count for the others.
        let is_kept_off = !signed.implies_attachments && self.evidence.attachments_disabled;
        for (located, support) in self.located().filter(|(_, s)| !is_kept_off || *s == Support::Common) {
            let before = candidates.len();
            match &located.signature {
                UntrustedSignature::Sigstore(layer) if layer.mime_type == sigstore::SIGNATURE_MIME_TYPE => {
                    candidates.push((located, Candidate::Attachment(layer)));
                }
                UntrustedSignature::Bundle(bundle) => candidates.push((located, Candidate::Bundle(bundle))),
                UntrustedSignature::Sigstore(_) => other_type = other_type.saturating_add(1),
                UntrustedSignature::SimpleSigning(_) => other_format = other_format.saturating_add(1),
            }
            supports.extend((candidates.len() > before).then_some(support));
        }
        let unsigned = if is_kept_off && other_type == 0 {
            Rejection::AttachmentsDisabled
        } else {
            Rejection::Unsigned { other_format, other_type }
        };
        let proof = self.proof(&signed.signer);
        let (verdicts, rejections) =
            first_accepted(&candidates, "sigstore", unsigned, |candidate| match candidate {
                Candidate::Attachment(layer) => {
                    self.attachment(layer, proof.as_ref().map_err(Clone::clone)?, signed)
                }
                Candidate::Bundle(bundle) => self.bundle(bundle, signed),
            });
        // The last one that was looked at is the one that counts.
        let support = match (&rejections, verdicts.len().checked_sub(1).and_then(|last| supports.get(last))) {
            (None, Some(support)) => *support,
            (None, None) | (Some(_), _) => Support::Common,
        };
        (verdicts, rejections, support)
    }

    /// An attachment of cosign: first what it proves, then whose it is, then digest, name and annotations.
    fn attachment(
        &self,
        layer: &UntrustedSigstore,
        proof: &Proof<'_>,
        signed: &SigstoreSigned,
    ) -> Result<Accepted, Rejection> {
        match proof {
            Proof::Certified { authorities, logs, wanted } => {
                let claim = sigstore::verify_certified(layer, authorities, logs)?;
                let Certified { payload, certificate, spki, time } = claim.get();
                let check = |holder: &_| identity::check_fulcio(wanted, holder);
                let signer = identity::check_holder(certificate, spki, check)?;
                let binding = self.check_attachment(payload, signed)?;
                Ok(Accepted { signer, time: Some(*time), binding })
            }
            Proof::Common(trust) => {
                let claim = sigstore::verify(layer, trust, self.now)?;
                let Claim { payload, signer, time } = claim.get();
                let binding = self.check_attachment(payload, signed)?;
                Ok(Accepted { signer: signer.clone(), time: *time, binding })
            }
            Proof::Rooted { root, wanted } => {
                let verify = |root: &_, lacking| bundle::verify_attachment(layer, root, lacking);
                let (claim, payload) = self.with_root(root, verify)?;
                let signer = identity::check_bundle_signer(&claim, Some(wanted))?;
                let binding = self.check_attachment(&payload, signed)?;
                Ok(Accepted { signer, time: claim.get().times.first().copied(), binding })
            }
        }
    }

    /// A Sigstore bundle: first what it proves, then whose it is, then name and annotations.
    fn bundle(&self, bundle: &[u8], signed: &SigstoreSigned) -> Result<Accepted, Rejection> {
        let (manifest, digest) = self.manifest.zip(self.digest).ok_or(Rejection::ManifestInvalid)?;
        let verify = |trust: bundle::Trust<'_>| {
            bundle::verify_manifest(bundle, &manifest.bytes, digest, trust, signed.message_signature)
        };
        let other = |what: &str| Rejection::BundleUnsupported { what: what.to_owned() };
        let (claim, wanted) = match &signed.signer {
            Signer::Certificate { identity, root } => {
                let claim = self.with_root(&root.source, |root, lacking| {
                    verify(bundle::Trust::Certificates { root, lacking })
                })?;
                (claim, Some(identity.as_ref()))
            }
            Signer::Keys { keys, rekor: None } => {
                let keys = self.keys(keys)?;
                let keys: Vec<&KeyMaterial> = keys.iter().map(AsRef::as_ref).collect();
                (verify(bundle::Trust::Keys { keys: &keys, root: None })?, None)
            }
            Signer::Fulcio { .. } => {
                return Err(other("a bundle for \"fulcio\" with an authority of its own"));
            }
            Signer::Keys { rekor: Some(_), .. } => return Err(other("a bundle for \"rekorPublicKey...\"")),
            Signer::Pki(_) => return Err(other("a bundle for \"pki\"")),
        };
        let signer = identity::check_bundle_signer(&claim, wanted)?;
        let check_annotations =
            |found: &_| identity::check_signed_annotations(&signed.signed_annotations, found);
        let (name, annotations) = match &claim.get().subject {
            // A message has no place for annotations.
            BundleSubject::Message => (SignedName::Unnamed, check_annotations(&BTreeMap::new())),
            // cosign asks the first subject with the digest; here none may contradict it.
            BundleSubject::Statement { subjects, .. } => (
                SignedName::of_subjects(subjects.iter().map(|subject| subject.name.as_deref())),
                subjects.iter().try_for_each(|subject| check_annotations(&subject.annotations)),
            ),
        };
        let binding = identity::check_name(&signed.identity, self.image.docker_reference(), &name)?;
        annotations?;
        Ok(Accepted { signer, time: claim.get().times.first().copied(), binding })
    }

    /// Uses a trusted root. What one lacks is waived only if the requirement names that root itself (T-14).
    fn with_root<T>(
        &self,
        source: &RootSource,
        verify: impl Fn(&trusted_root::TrustedRoot, Lacking) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let Some(source) = source.key_source() else {
            let host = self.evidence.host_root.as_ref().ok_or_else(|| Rejection::KeyFileInvalid {
                source: "the trusted root of this host".to_owned(),
                detail: "it was not read",
            })?;
            return verify(&host.root, Lacking::Refused);
        };
        let material = self.certificates(&source)?;
        let root = material.trusted_root().map_err(|error| Rejection::TrustedRootInvalid {
            source: material.source().to_owned(),
            error: error.clone(),
        })?;
        verify(root, Lacking::Waived)
    }

    /// What a requirement trusts; every file must be in the evidence.
    fn proof<'p>(&self, signer: &'p Signer) -> Result<Proof<'p>, Rejection> {
        Ok(match signer {
            Signer::Certificate { identity, root } => Proof::Rooted { root: &root.source, wanted: identity },
            Signer::Fulcio { fulcio, rekor } => {
                let (authorities, logs) = (self.certificates(&fulcio.ca)?, self.keys(rekor)?);
                let wanted = &fulcio.identity;
                match &wanted.subject {
                    FulcioSubject::Email(email) => {
                        let issuer = &wanted.oidc_issuer;
                        Proof::Common(Trust::Fulcio { authorities, logs, issuer, email })
                    }
                    FulcioSubject::Pins(_) => Proof::Certified { authorities, logs, wanted },
                }
            }
            Signer::Keys { keys, rekor: None } => Proof::Common(Trust::Keys { keys: self.keys(keys)? }),
            Signer::Keys { keys, rekor: Some(rekor) } => {
                Proof::Common(Trust::LoggedKeys { keys: self.keys(keys)?, logs: self.keys(rekor)? })
            }
            Signer::Pki(Pki { roots, intermediates, subject }) => Proof::Common(Trust::Pki {
                authorities: self.certificates(roots)?,
                intermediates: intermediates.as_ref().map(|source| self.certificates(source)).transpose()?,
                subject: match subject {
                    PkiSubject::Email(email) => CertificateSubject::Email(email),
                    PkiSubject::Hostname(hostname) => CertificateSubject::Hostname(hostname),
                    PkiSubject::Both { email, hostname } => CertificateSubject::Both { email, hostname },
                },
            }),
        })
    }

    /// The one file or datum with certificates.
    fn certificates(&self, source: &KeySource) -> Result<Arc<KeyMaterial>, Rejection> {
        match <[Arc<KeyMaterial>; 1]>::try_from(self.keys(source)?) {
            Ok([material]) => Ok(material),
            Err(all) => Err(Rejection::KeyFileInvalid {
                source: format!("a list of {}", all.len()),
                detail: "there must be exactly one source of certificates",
            }),
        }
    }

    /// The keys of a requirement; every file must be in the evidence.
    fn keys(&self, source: &KeySource) -> Result<Vec<Arc<KeyMaterial>>, Rejection> {
        let files = source.paths().iter().map(|path| {
            self.evidence
                .key_files
                .get(path)
                .cloned()
                .ok_or_else(|| Rejection::KeyFileInvalid { source: path.clone(), detail: "it was not read" })
        });
        let data = source.data().iter().map(|data| {
            Ok(match self.evidence.key_data.get(data) {
                Some(known) => Arc::clone(known),
                None => Arc::new(KeyMaterial::of_policy(data)),
            })
        });
        files.chain(data).collect()
    }

    /// Rule E-23: first the digest, then the identity.
    fn check_claim(&self, claim: &Verified<Claim>, identity: &SignedIdentity) -> Result<Accepted, Rejection> {
        let Claim { payload, signer, time } = claim.get();
        let binding = self.check_payload(payload, identity)?;
        Ok(Accepted { signer: signer.clone(), time: *time, binding })
    }

    /// Rule E-23, and what an attachment must say besides.
    fn check_attachment(&self, payload: &Payload, signed: &SigstoreSigned) -> Result<Binding, Rejection> {
        let binding = self.check_payload(payload, &signed.identity)?;
        identity::check_signed_annotations(&signed.signed_annotations, &payload.annotations)?;
        Ok(binding)
    }

    /// Rule E-23, for a payload that was verified.
    fn check_payload(&self, payload: &Payload, identity: &SignedIdentity) -> Result<Binding, Rejection> {
        let found = self.digest.ok_or(Rejection::ManifestInvalid)?;
        if payload.manifest_digest != *found {
            let wanted = payload.manifest_digest.clone();
            return Err(Rejection::DigestMismatch { wanted, found: found.clone() });
        }
        let image = self.image.docker_reference();
        let signed = SignedName::Named(payload.docker_reference.clone());
        identity::check_name(identity, image, &signed)
    }
}

/// The keys, or why there are none, which is found only when there is a signature to check (rule E-16).
fn usable(keys: &Result<Vec<Arc<KeyMaterial>>, Rejection>) -> Result<Vec<&KeyMaterial>, Rejection> {
    match keys {
        Ok(keys) => Ok(keys.iter().map(AsRef::as_ref).collect()),
        Err(rejection) => Err(rejection.clone()),
    }
}

/// Looks at `candidates` in order until one is accepted; `unsigned` is the reason if there is none.
fn first_accepted<T>(
    candidates: &[(&LocatedSignature, T)],
    kind: &'static str,
    unsigned: Rejection,
    verify: impl Fn(&T) -> Result<Accepted, Rejection>,
) -> (Vec<SignatureVerdict>, Option<NonEmpty<Rejection>>) {
    let mut verdicts = Vec::new();
    let mut rejections = Vec::new();
    for (located, candidate) in candidates {
        let result = verify(candidate);
        let accepted = result.is_ok();
        if let Err(rejection) = &result {
            rejections.push(rejection.clone());
        }
        verdicts.push(SignatureVerdict { kind, location: located.location.clone(), result });
        if accepted {
            return (verdicts, None);
        }
    }
    (verdicts, Some(NonEmpty::from_vec(rejections).unwrap_or_else(|| NonEmpty::one(unsigned))))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::evaluate::evidence::InstanceEvidence;
    use crate::manifest::Platform;
    use crate::reference::Named;

    fn manifest(bytes: &[u8]) -> ManifestEvidence {
        ManifestEvidence::new(bytes.to_vec(), String::new())
    }

    fn judge(policy: &str, image: &str, subject: Subject, evidence: &Evidence) -> Decision {
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        let image = ImageReference::docker(Named::parse(image).unwrap()).unwrap();
        let question = Question { require_signature: false, subject, platform: Platform::host() };
        plan(&policy, &image, &question).judge(evidence, Timestamp(0)).decision
    }

    const ANYTHING: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

    /// Rule E-20: whichever manifest is asked for, the index must be the one that the reference pins.
    #[test]
    fn a_pinned_index_that_is_another_refuses_every_subject() {
        let (index, instance) = (manifest(b"index"), manifest(b"instance"));
        let digest = Digest::sha256(b"instance");
        let evidence = Evidence {
            top_level: Some(index),
            instance: Some(InstanceEvidence { digest, manifest: instance }),
            ..Evidence::default()
        };
        for subject in [Subject::Both, Subject::Either, Subject::Instance, Subject::TopLevel] {
            let right = format!("a.example/b@{}", Digest::sha256(b"index"));
            assert!(matches!(judge(ANYTHING, &right, subject, &evidence), Decision::Allow(_)), "{subject:?}");
            let wrong = format!("a.example/b@{}", Digest::sha256(b"other"));
            let decision = judge(ANYTHING, &wrong, subject, &evidence);
            assert!(matches!(decision, Decision::Deny(Rejection::DigestMismatch { .. })), "{subject:?}");
        }
    }

    /// Rules E-30, E-31, E-33.
    #[test]
    fn what_other_tools_say_is_known_from_what_was_judged() {
        let key = r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]}"#;
        let index = || ManifestEvidence { media_type: manifest::OCI_INDEX.to_owned(), ..manifest(b"{}") };
        let typed =
            |bytes| ManifestEvidence { media_type: manifest::OCI_MANIFEST.to_owned(), ..manifest(bytes) };
        let instance = || InstanceEvidence { digest: Digest::sha256(b"i"), manifest: typed(b"i") };
        let image = || Evidence { top_level: Some(typed(b"x")), ..Evidence::default() };
        let untyped = || Evidence { top_level: Some(manifest(b"x")), ..Evidence::default() };
        let whole =
            || Evidence { top_level: Some(index()), instance: Some(instance()), ..Evidence::default() };
        let alone = || Evidence { top_level: Some(index()), ..Evidence::default() };
        let (yes, no) = (Some(true), Some(false));
        for (policy, subject, evidence, copy, image_proxy) in [
            (ANYTHING, Subject::Either, image(), yes, yes),
            (key, Subject::Either, image(), no, no),
            (ANYTHING, Subject::Either, whole(), yes, yes),
            (key, Subject::Both, whole(), no, no),
            (ANYTHING, Subject::Instance, whole(), yes, yes),
            (key, Subject::Instance, whole(), no, None),
            (ANYTHING, Subject::TopLevel, alone(), None, yes),
            (key, Subject::TopLevel, alone(), None, None),
            (ANYTHING, Subject::Either, untyped(), None, None),
            (key, Subject::Either, untyped(), no, no),
        ] {
            let policy = Policy::parse(policy.as_bytes()).unwrap();
            let image = ImageReference::docker(Named::parse("a.example/b:1").unwrap()).unwrap();
            let question = Question { require_signature: false, subject, platform: Platform::host() };
            let verdict = plan(&policy, &image, &question).judge(&evidence, Timestamp(0));
            assert_eq!(verdict.others, Others { copy, image_proxy }, "{subject:?} {evidence:?}");
        }
    }

    #[test]
    fn only_sha_256_pins() {
        let evidence = Evidence { top_level: Some(manifest(b"x")), ..Evidence::default() };
        let pinned = |algorithm| format!("a.example/b@{}", Digest::compute(algorithm, b"x"));
        let decide = |algorithm| judge(ANYTHING, &pinned(algorithm), Subject::Either, &evidence);
        assert!(matches!(decide(Algorithm::Sha256), Decision::Allow(_)));
        assert!(matches!(decide(Algorithm::Sha512), Decision::Deny(Rejection::Unsupported { .. })));
    }

    // Rules P-31 to P-39: all that a requirement names is needed, files and data of every member.
    #[test]
    fn everything_that_a_requirement_trusts_is_needed() {
        type Row = (&'static str, &'static [&'static str], &'static [&'static [u8]]);
        let rows: [Row; 7] = [
            (r#""keyPath":"/k""#, &["/k"], &[]),
            (r#""keyPaths":["/k","/l"],"rekorPublicKeyPath":"/r""#, &["/k", "/l", "/r"], &[]),
            (r#""keyDatas":["YQ==","Yg=="],"rekorPublicKeyDatas":["Yw=="]"#, &[], &[b"a", b"b", b"c"]),
            (
                r#""fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyPaths":["/r","/s"]"#,
                &["/c", "/r", "/s"],
                &[],
            ),
            (
                r#""fulcio":{"caData":"YQ==","oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyData":"Yg==""#,
                &[],
                &[b"a", b"b"],
            ),
            (
                r#""pki":{"caRootsPath":"/c","caIntermediatesPath":"/d","subjectEmail":"e"}"#,
                &["/c", "/d"],
                &[],
            ),
            (
                r#""pki":{"caRootsData":"YQ==","caIntermediatesData":"Yg==","subjectHostname":"h"}"#,
                &[],
                &[b"a", b"b"],
            ),
        ];
        for (members, files, data) in rows {
            let policy = format!(r#"{{"default":[{{"type":"sigstoreSigned",{members}}}]}}"#);
            let policy = Policy::parse(policy.as_bytes()).unwrap();
            let image = ImageReference::docker(Named::parse("a.example/b:1").unwrap()).unwrap();
            let (subject, platform) = (Subject::Either, Platform::host());
            let question = Question { require_signature: false, subject, platform };
            let needs = plan(&policy, &image, &question).needs();
            assert!(needs.manifest && needs.signatures, "{members}");
            assert!(needs.key_files.iter().eq(files.iter().copied()), "{members}");
            assert!(needs.key_data.iter().map(AsRef::as_ref).eq(data.iter().copied()), "{members}");
        }
    }

    // Rules E-16, T-15: files that were not read are found out when there is a signature, and nothing stands in for them.
    #[test]
    fn missing_trust_refuses_every_signature() {
        for members in [
            r#""keyPath":"/k""#,
            r#""keyData":"YQ==","rekorPublicKeyPath":"/r""#,
            r#""fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyData":"YQ==""#,
            r#""fulcio":{"caData":"YQ==","oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyPath":"/r""#,
            r#""pki":{"caRootsPath":"/c","subjectEmail":"e"}"#,
            r#""pki":{"caRootsData":"YQ==","caIntermediatesPath":"/d","subjectEmail":"e"}"#,
        ] {
            let policy = format!(r#"{{"default":[{{"type":"sigstoreSigned",{members}}}]}}"#);
            let mut evidence = Evidence { top_level: Some(manifest(b"x")), ..Evidence::default() };
            let decide = |evidence: &Evidence| judge(&policy, "a.example/b:1", Subject::Either, evidence);
            assert!(
                matches!(decide(&evidence), Decision::Deny(Rejection::Unsigned { .. })),
                "no signature: {members}"
            );
            let layer = UntrustedSigstore {
                mime_type: sigstore::SIGNATURE_MIME_TYPE.to_owned(),
                payload: b"x".to_vec(),
                annotations: [("dev.cosignproject.cosign/signature".to_owned(), "YQ==".to_owned())].into(),
            };
            let signature = UntrustedSignature::Sigstore(layer);
            if let Some(manifest) = &mut evidence.top_level {
                manifest.signatures.push(LocatedSignature { location: String::new(), signature });
            }
            assert!(
                matches!(decide(&evidence), Decision::Deny(Rejection::KeyFileInvalid { .. })),
                "a signature: {members}"
            );
        }
    }

    #[test]
    fn what_can_only_be_refused_needs_nothing() {
        for requirement in [
            r#"{"type":"reject"}"#,
            r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#,
            r#"{"type":"signedBy","keyType":"X509Certificates","keyPath":"/k"}"#,
            r#"{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r","messageSignature":true}"#,
        ] {
            for list in [
                requirement.to_owned(),
                format!(r#"{{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}},{requirement}"#),
            ] {
                let policy = Policy::parse(format!(r#"{{"default":[{list}]}}"#).as_bytes()).unwrap();
                let image = ImageReference::docker(Named::parse("a.example/b:1").unwrap()).unwrap();
                let question = Question {
                    require_signature: false,
                    subject: Subject::Either,
                    platform: Platform::host(),
                };
                let plan = plan(&policy, &image, &question);
                assert_eq!(plan.needs(), Needs::default(), "{list}");
                let verdict = plan.judge(&Evidence::default(), Timestamp(0));
                assert!(matches!(verdict.decision, Decision::Deny(_)), "{list}");
            }
        }
    }
}
