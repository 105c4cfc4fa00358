//! [`SimulateReport`]: what a policy would say where another one counts, as data.

use serde::Serialize;

use crate::engine::LoadedPolicy;

use super::{FailureReport, PolicyReport, Report, SCHEMA, ScopeReport, SignerReport, policy_report};

/// The verdicts of two policies on the same images.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SimulateReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The policy that is tried; absent if nothing was judged.
    pub policy: Option<PolicyReport>,
    /// The policy that it is compared with; absent if nothing was judged.
    pub against: Option<PolicyReport>,
    /// The images in the order of the list.
    pub images: Vec<SimulatedImage>,
    /// How many there are of each change.
    pub counts: Counts,
    /// Why nothing was judged.
    pub failure: Option<FailureReport>,
}

/// An image under both policies.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SimulatedImage {
    /// The image as the list names it.
    pub reference: String,
    /// Its line in the list, from 1.
    pub line: usize,
    /// What the new policy changes.
    pub change: Change,
    /// What the old policy says.
    pub old: SimulatedVerdict,
    /// What the new policy says.
    pub new: SimulatedVerdict,
}

/// What one policy says about an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SimulatedVerdict {
    /// Whether the image may be used.
    pub allowed: bool,
    /// Whether there is a verdict at all; if not, `allowed` is false.
    pub decided: bool,
    /// Whether a signature was required and verified.
    pub authenticated: bool,
    /// Why the image is refused or the question undecided; absent if it is allowed.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// What can be done about it.
    pub help: Option<String>,
    /// The scope that applied.
    pub scope: Option<ScopeReport>,
    /// Digest of a manifest that was itself accepted.
    pub manifest_digest: Option<String>,
    /// Who signed that manifest, of the signatures that count.
    pub signers: Vec<SignerReport>,
    /// Things to know that do not change the answer.
    pub warnings: Vec<String>,
}

/// What a new policy changes for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It was allowed because a signature was verified, and would be allowed without.
    NoLongerVerified,
    /// It was refused.
    NowAllowed,
    /// It was allowed.
    NowRefused,
    /// It was allowed or refused, and could not be judged.
    NowUndecided,
    /// It was allowed although nothing was verified.
    NowVerified,
    /// Nothing.
    Same,
    /// Nobody knows, because it could not be judged by the old policy.
    Unknown,
}

/// How many images there are of each change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// [`Change::NowRefused`]
    pub now_refused: usize,
    /// [`Change::NoLongerVerified`]
    pub no_longer_verified: usize,
    /// [`Change::NowAllowed`]
    pub now_allowed: usize,
    /// [`Change::NowVerified`]
    pub now_verified: usize,
    /// [`Change::NowUndecided`]
    pub now_undecided: usize,
    /// [`Change::Unknown`]
    pub unknown: usize,
    /// [`Change::Same`]
    pub same: usize,
}

/// What a policy says, as far as changes are told from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The image may be used, although no signature was verified.
    AllowedUnverified,
    /// The image may be used, and its signature was verified.
    AllowedVerified,
    /// The image is refused.
    Denied,
    /// Nothing is known.
    Undecided,
}

impl SimulateReport {
    /// The report on images under the policies `new` and `old`.
    pub fn of(new: &LoadedPolicy, old: &LoadedPolicy, images: Vec<SimulatedImage>) -> Self {
        let policy = |policy: &LoadedPolicy| policy.file.as_ref().map(policy_report);
        let counts = Counts::of(&images);
        Self { schema: SCHEMA, policy: policy(new), against: policy(old), images, counts, failure: None }
    }

    /// The report that nothing was judged, and why.
    pub fn of_failure(failure: FailureReport) -> Self {
        let (policy, against, images) = (None, None, Vec::new());
        let counts = Counts::of(&images);
        Self { schema: SCHEMA, policy, against, images, counts, failure: Some(failure) }
    }
}

impl SimulatedImage {
    /// The image of this line, with the reports under the old and the new policy.
    pub fn of(reference: &str, line: usize, old: &Report, new: &Report) -> Self {
        let (old, new) = (SimulatedVerdict::of(old), SimulatedVerdict::of(new));
        let change = Change::of(old.standing(), new.standing());
        Self { reference: reference.to_owned(), line, change, old, new }
    }
}

impl SimulatedVerdict {
    fn of(report: &Report) -> Self {
        let granted = |digest: &Option<String>| report.allowed && *digest == report.manifest_digest;
        let satisfied = report.requirements.iter().filter(|r| r.satisfied && granted(&r.digest));
        let mut signers = Vec::new();
        for signer in
            satisfied.flat_map(|r| &r.signatures).filter(|s| s.accepted).filter_map(|s| s.signer.as_ref())
        {
            if !signers.contains(signer) {
                signers.push(signer.clone());
            }
        }
        Self {
            allowed: report.allowed,
            decided: report.decided,
            authenticated: report.authenticated,
            code: report.code.clone(),
            message: report.message.clone(),
            help: report.help.clone(),
            scope: report.scope.clone(),
            manifest_digest: report.manifest_digest.clone(),
            signers,
            warnings: report.warnings.clone(),
        }
    }

    /// What it comes down to.
    pub fn standing(&self) -> Standing {
        match (self.decided, self.allowed, self.authenticated) {
            (false, _, _) => Standing::Undecided,
            (true, false, _) => Standing::Denied,
            (true, true, false) => Standing::AllowedUnverified,
            (true, true, true) => Standing::AllowedVerified,
        }
    }
}

impl Standing {
    /// The same in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowedUnverified => "allowed, unverified",
            Self::AllowedVerified => "allowed, verified",
            Self::Denied => "denied",
            Self::Undecided => "undecided",
        }
    }
}

impl Change {
    /// What there is between two verdicts. What is not known of either is never taken for a change of the other.
    fn of(old: Standing, new: Standing) -> Self {
        use Standing::{AllowedUnverified, AllowedVerified, Denied, Undecided};
        match (old, new) {
            (Undecided, AllowedUnverified | AllowedVerified | Denied | Undecided) => Self::Unknown,
            (AllowedUnverified | AllowedVerified | Denied, Undecided) => Self::NowUndecided,
            (AllowedUnverified | AllowedVerified, Denied) => Self::NowRefused,
            (Denied, AllowedUnverified | AllowedVerified) => Self::NowAllowed,
            (AllowedUnverified, AllowedVerified) => Self::NowVerified,
            (AllowedVerified, AllowedUnverified) => Self::NoLongerVerified,
            (AllowedUnverified, AllowedUnverified)
            | (AllowedVerified, AllowedVerified)
            | (Denied, Denied) => Self::Same,
        }
    }

    /// Whether something that worked would not: an image could not be used any more, or would be used unverified.
    pub fn is_loss(self) -> bool {
        match self {
            Self::NoLongerVerified | Self::NowRefused => true,
            Self::NowAllowed | Self::NowUndecided | Self::NowVerified | Self::Same | Self::Unknown => false,
        }
    }

    /// The same in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoLongerVerified => "no longer verified",
            Self::NowAllowed => "now allowed",
            Self::NowRefused => "now refused",
            Self::NowUndecided => "now undecided",
            Self::NowVerified => "now verified",
            Self::Same => "same",
            Self::Unknown => "unknown",
        }
    }
}

impl Counts {
    fn of(images: &[SimulatedImage]) -> Self {
        let count = |change| images.iter().filter(|image| image.change == change).count();
        Self {
            now_refused: count(Change::NowRefused),
            no_longer_verified: count(Change::NoLongerVerified),
            now_allowed: count(Change::NowAllowed),
            now_verified: count(Change::NowVerified),
            now_undecided: count(Change::NowUndecided),
            unknown: count(Change::Unknown),
            same: count(Change::Same),
        }
    }

    /// Each change with its count, the gravest first.
    pub fn all(&self) -> [(Change, usize); 7] {
        [
            (Change::NowRefused, self.now_refused),
            (Change::NoLongerVerified, self.no_longer_verified),
            (Change::NowAllowed, self.now_allowed),
            (Change::NowVerified, self.now_verified),
            (Change::NowUndecided, self.now_undecided),
            (Change::Unknown, self.unknown),
            (Change::Same, self.same),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_verdicts_is_one_change() {
        use Change::{NoLongerVerified, NowAllowed, NowRefused, NowUndecided, NowVerified, Same, Unknown};
        let all =
            [Standing::AllowedVerified, Standing::AllowedUnverified, Standing::Denied, Standing::Undecided];
        for (old, changes) in all.into_iter().zip([
            [Same, NoLongerVerified, NowRefused, NowUndecided],
            [NowVerified, Same, NowRefused, NowUndecided],
            [NowAllowed, NowAllowed, Same, NowUndecided],
            [Unknown; 4],
        ]) {
            for (new, change) in all.into_iter().zip(changes) {
                assert_eq!(Change::of(old, new), change, "{old:?} {new:?}");
            }
        }
    }

    #[test]
    fn what_was_not_decided_is_never_allowed() {
        let report = Report::undecided("a", crate::report::Route::Direct, "timed-out", String::new(), "");
        for (allowed, authenticated) in [(false, false), (true, false), (true, true)] {
            let report = Report { allowed, authenticated, ..report.clone() };
            assert_eq!(SimulatedVerdict::of(&report).standing(), Standing::Undecided);
        }
    }
}
