//! [`Verdict`]: the whole answer, with every reason.

use crate::diagnostic::Span;
use crate::digest::Digest;
use crate::evaluate::identity::Binding;
use crate::nonempty::NonEmpty;
use crate::policy::Scope;
use crate::reference::Transport;
use crate::verify::{Rejection, Signer, Timestamp};

/// Whether an image may be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub decision: Decision,
    /// Whether a requirement that verifies signatures was satisfied by a manifest that was accepted.
    pub authenticated: bool,
    /// The scope that applied.
    pub scope: Scope,
    /// Where that scope stands in the policy.
    pub scope_span: Span,
    /// Each manifest that was judged.
    pub subjects: Vec<SubjectVerdict>,
    /// What the reference resolved to, judged or not.
    pub resolved_digest: Option<Digest>,
    /// What other tools would say under the same policy.
    pub others: Others,
    /// The trusted roots that it was reached with.
    pub trusted_roots: Vec<TrustedRootUse>,
    /// Things to know that do not change the answer.
    pub warnings: Vec<&'static str>,
}

/// A trusted root that was used, and its age (T-31).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedRootUse {
    /// Where it is from.
    pub source: String,
    /// Until when it was known to be current, if that is known.
    pub current_until: Option<Timestamp>,
    /// Whether that is so long ago that it may lack what signers use today.
    pub is_stale: bool,
}

/// Whether other tools would use the image under the same policy; `None` if this version cannot tell, as when what they
/// judge was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Others {
    /// podman, buildah, CRI-O and `skopeo copy`: they judge the instance for the platform alone (rules E-30, E-31).
    pub copy: Option<bool>,
    /// The skopeo image proxy since 2026-04, for bootc and rpm-ostree: index or instance (rule E-33).
    pub image_proxy: Option<bool>,
}

impl Others {
    /// They refuse, whatever they are asked.
    pub const REFUSE: Self = Self { copy: Some(false), image_proxy: Some(false) };
    /// Nothing is known of them.
    pub const UNKNOWN: Self = Self { copy: None, image_proxy: None };
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The image may be used.
    Allow(Grant),
    /// It may not; the headline of the reasons.
    Deny(Rejection),
}

/// What may be used. Only a judgement makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant(Granted);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Granted {
    Pinned(Digest),
    Unpinned(Transport),
}

impl Grant {
    pub(in crate::evaluate) fn pinned(digest: Digest) -> Self {
        Self(Granted::Pinned(digest))
    }

    pub(in crate::evaluate) fn unpinned(transport: Transport) -> Self {
        Self(Granted::Unpinned(transport))
    }

    /// The digest of a manifest that was itself accepted (T-11); `None` where none was read.
    pub fn digest(&self) -> Option<&Digest> {
        match &self.0 {
            Granted::Pinned(digest) => Some(digest),
            Granted::Unpinned(_) => None,
        }
    }
}

/// Which manifest of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An instance of an index.
    Instance,
    /// What the reference names.
    TopLevel,
}

/// The judgement of one manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectVerdict {
    /// Which one.
    pub role: Role,
    /// Its digest; `None` if no manifest was needed.
    pub digest: Option<Digest>,
    /// Each requirement in the order of the policy.
    pub requirements: Vec<RequirementVerdict>,
}

impl SubjectVerdict {
    /// The reason of the first requirement that is not satisfied (rule E-4).
    pub fn rejection(&self) -> Option<&Rejection> {
        self.requirements.iter().find_map(|requirement| match &requirement.outcome {
            Outcome::Accepted => None,
            Outcome::Rejected(reasons) => reasons.iter().max_by_key(|r| r.rank()),
        })
    }

    /// Whether all requirements are satisfied.
    pub fn is_accepted(&self) -> bool {
        self.rejection().is_none()
    }

    /// Whether all requirements are satisfied by what other tools find, too.
    pub fn is_accepted_by_others(&self) -> bool {
        self.is_accepted() && self.requirements.iter().all(|r| r.support == Support::Common)
    }

    /// Whether a requirement that verifies signatures is satisfied.
    pub fn is_authenticated(&self) -> bool {
        self.requirements.iter().any(|r| r.verifies_signatures && r.outcome == Outcome::Accepted)
    }
}

/// The judgement of one requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequirementVerdict {
    /// Its `type`.
    pub kind: &'static str,
    /// Whether satisfying it means that a signature was verified.
    pub verifies_signatures: bool,
    /// The result.
    pub outcome: Outcome,
    /// Whether other tools reach the same result.
    pub support: Support,
    /// The signatures that were looked at, in order; none after the first that was accepted (rule E-13).
    pub signatures: Vec<SignatureVerdict>,
}

/// Whether other tools know what satisfied a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// They do.
    Common,
    /// They find no such signature, and refuse.
    Ours,
}

/// The result of one requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Satisfied.
    Accepted,
    /// Not satisfied, for these reasons.
    Rejected(NonEmpty<Rejection>),
}

/// The judgement of one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureVerdict {
    /// `simple-signing` or `sigstore`.
    pub kind: &'static str,
    /// Where it was found. Untrusted: escape before printing.
    pub location: String,
    /// Who signed and when, or why it does not count.
    pub result: Result<Accepted, Rejection>,
}

/// What is known of a signature that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who signed.
    pub signer: Signer,
    /// When, if the signature proves it or the signer says it.
    pub time: Option<Timestamp>,
    /// How it is bound to the name that was asked for (T-16).
    pub binding: Binding,
}
