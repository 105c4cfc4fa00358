//! Which certificates count: what `fulcio` and `keyless` ask of them (rule P-38, design decision 3.3).

use std::fmt;
use std::sync::Arc;

use crate::nonempty::NonEmpty;

use super::KeySource;
use super::pattern::{Glob, Pattern};

/// `fulcio` with an authority of its own (rule P-38).
#[derive(Clone, Debug, PartialEq)]
pub struct Fulcio {
    /// `caPath` or `caData`
    pub ca: KeySource,
    /// The other members.
    pub identity: FulcioIdentity,
}

/// Who must be named by a certificate that is judged with a trusted root.
#[derive(Clone, Debug, PartialEq)]
pub enum CertificateIdentity {
    /// `fulcio`
    Fulcio(FulcioIdentity),
    /// `--certificate-…` of `vouchd verify`
    Flags(CertificateFlags),
    /// `keyless`
    Keyless(Keyless),
}

/// Who must be named by a certificate, as the command line says; the flags are cosign's.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateFlags {
    /// `--certificate-oidc-issuer`, or the same with `-regexp`
    pub issuer: Wanted,
    /// `--certificate-identity`, or the same with `-regexp`: the name in the certificate, of whatever kind.
    pub subject: Wanted,
    /// `--certificate-github-workflow-…`
    pub pins: Vec<Pin>,
}

/// Members of `fulcio` about the holder of the certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct FulcioIdentity {
    /// `oidcIssuer`
    pub oidc_issuer: String,
    /// Who it is.
    pub subject: FulcioSubject,
}

/// Who `fulcio` accepts.
#[derive(Clone, Debug, PartialEq)]
pub enum FulcioSubject {
    /// `subjectEmail` and nothing else: all that the reference knows (rule C-35).
    Email(String),
    /// Members of ours, perhaps with `subjectEmail`; every one must match.
    Pins(Pins),
}

/// Conditions of which at least one names somebody ([`Field::names_somebody`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Pins(NonEmpty<Pin>);

impl Pins {
    /// The conditions, unless none of them names anybody.
    pub fn new(pins: Vec<Pin>) -> Option<Self> {
        let named = pins.iter().any(|pin| pin.field.names_somebody());
        NonEmpty::from_vec(pins).filter(|_| named).map(Self)
    }

    /// In a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = &Pin> {
        self.0.iter()
    }
}

/// One thing that a certificate must say.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    /// About what.
    pub field: Field,
    /// What it must say; a certificate that says nothing never matches.
    pub wanted: Wanted,
}

/// A value that a certificate must have.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// This, byte for byte.
    Exact(String),
    /// One that matches in full.
    Pattern(Pattern),
}

impl Wanted {
    /// Whether `value` is wanted.
    pub fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == value,
            Self::Pattern(pattern) => pattern.matches(value),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(wanted) => write!(f, "\"{wanted}\""),
            Self::Pattern(pattern) => write!(f, "a full match of \"{}\"", pattern.as_str()),
        }
    }
}

/// What a member of `fulcio` is about, or a flag of `vouchd verify`; the names are Fulcio's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The workflow that was started.
    BuildConfigUri,
    /// The workflow that signed, which may be a reusable one of another repository.
    BuildSignerUri,
    /// The event.
    BuildTrigger,
    /// The name of the workflow on GitHub.
    GithubWorkflowName,
    /// The branch or tag on GitHub.
    GithubWorkflowRef,
    /// `owner/name` of the repository on GitHub.
    GithubWorkflowRepository,
    /// The commit on GitHub.
    GithubWorkflowSha,
    /// The event on GitHub.
    GithubWorkflowTrigger,
    /// Whose machine it was.
    RunnerEnvironment,
    /// The number of the repository.
    SourceRepositoryIdentifier,
    /// The owner of the repository.
    SourceRepositoryOwnerUri,
    /// The branch or tag.
    SourceRepositoryRef,
    /// The repository.
    SourceRepositoryUri,
    /// The e-mail address in the certificate's name.
    SubjectEmail,
    /// The URI in the certificate's name.
    SubjectUri,
}

impl Field {
    /// Those that have an exact and a `…RegExp` member of ours.
    pub const OURS: [Self; 9] = [
        Self::BuildConfigUri,
        Self::BuildSignerUri,
        Self::BuildTrigger,
        Self::RunnerEnvironment,
        Self::SourceRepositoryIdentifier,
        Self::SourceRepositoryOwnerUri,
        Self::SourceRepositoryRef,
        Self::SourceRepositoryUri,
        Self::SubjectUri,
    ];

    /// The member for an exact value, or the flag.
    pub fn name(self) -> &'static str {
        match self {
            Self::BuildConfigUri => "buildConfigURI",
            Self::BuildSignerUri => "buildSignerURI",
            Self::BuildTrigger => "buildTrigger",
            Self::GithubWorkflowName => "certificate-github-workflow-name",
            Self::GithubWorkflowRef => "certificate-github-workflow-ref",
            Self::GithubWorkflowRepository => "certificate-github-workflow-repository",
            Self::GithubWorkflowSha => "certificate-github-workflow-sha",
            Self::GithubWorkflowTrigger => "certificate-github-workflow-trigger",
            Self::RunnerEnvironment => "runnerEnvironment",
            Self::SourceRepositoryIdentifier => "sourceRepositoryIdentifier",
            Self::SourceRepositoryOwnerUri => "sourceRepositoryOwnerURI",
            Self::SourceRepositoryRef => "sourceRepositoryRef",
            Self::SourceRepositoryUri => "sourceRepositoryURI",
            Self::SubjectEmail => "subjectEmail",
            Self::SubjectUri => "subjectURI",
        }
    }

    /// The member for a regular expression, if there is one.
    pub fn pattern_name(self) -> Option<&'static str> {
        match self {
            Self::BuildConfigUri => Some("buildConfigURIRegExp"),
            Self::BuildSignerUri => Some("buildSignerURIRegExp"),
            Self::BuildTrigger => Some("buildTriggerRegExp"),
            Self::RunnerEnvironment => Some("runnerEnvironmentRegExp"),
            Self::SourceRepositoryIdentifier => Some("sourceRepositoryIdentifierRegExp"),
            Self::SourceRepositoryOwnerUri => Some("sourceRepositoryOwnerURIRegExp"),
            Self::SourceRepositoryRef => Some("sourceRepositoryRefRegExp"),
            Self::SourceRepositoryUri => Some("sourceRepositoryURIRegExp"),
            Self::GithubWorkflowName
            | Self::GithubWorkflowRef
            | Self::GithubWorkflowRepository
            | Self::GithubWorkflowSha
            | Self::GithubWorkflowTrigger
            | Self::SubjectEmail => None,
            Self::SubjectUri => Some("subjectURIRegExp"),
        }
    }

    /// Whether it says who signed. A branch, an event or a machine is anybody's.
    pub fn names_somebody(self) -> bool {
        match self {
            Self::BuildConfigUri
            | Self::BuildSignerUri
            | Self::GithubWorkflowRepository
            | Self::SourceRepositoryIdentifier
            | Self::SourceRepositoryOwnerUri
            | Self::SourceRepositoryUri
            | Self::SubjectEmail
            | Self::SubjectUri => true,
            Self::BuildTrigger
            | Self::GithubWorkflowName
            | Self::GithubWorkflowRef
            | Self::GithubWorkflowSha
            | Self::GithubWorkflowTrigger
            | Self::RunnerEnvironment
            | Self::SourceRepositoryRef => false,
        }
    }
}

/// `keyless`: an issuer, and an identity or a repository there.
#[derive(Clone, Debug, PartialEq)]
pub struct Keyless {
    /// `issuer`
    pub issuer: String,
    /// `subject`, with the members that narrow it.
    pub subject: KeylessSubject,
}

/// The two meanings of `subject`; which one it is depends on the policy alone, never on a certificate.
#[derive(Clone, Debug, PartialEq)]
pub enum KeylessSubject {
    /// The name in the certificate, byte for byte.
    Identity(String),
    /// A repository of a known forge.
    Repository(Repository),
}

/// What must be true of a build in a repository (T-13).
#[derive(Clone, Debug, PartialEq)]
pub struct Repository {
    /// Which forge it is.
    pub forge: Forge,
    /// `subject`
    pub uri: String,
    /// `refs`
    pub refs: Refs,
    /// `workflows`
    pub workflows: Workflows,
    /// `triggers`, or those that the forge starts on behalf of people who may push.
    pub triggers: NonEmpty<String>,
    /// `allowReusableWorkflow`
    pub reusable: Reusable,
    /// `runnerEnvironment` and `repositoryId`
    pub pins: Vec<Pin>,
}

impl Repository {
    /// A repository of which no member of `keyless` says more.
    pub fn plain(forge: Forge, uri: String) -> Self {
        Self {
            forge,
            uri,
            refs: Refs::NoRequests,
            workflows: Workflows::All,
            triggers: forge.default_triggers(),
            reusable: Reusable::Own,
            pins: Vec::new(),
        }
    }
}

/// `refs` of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refs {
    /// Absent: all but those of pull and merge requests.
    NoRequests,
    /// One of these; those of requests only by an entry that names them.
    Only(NonEmpty<Glob>),
}

/// `workflows` of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workflows {
    /// Absent: every workflow of the repository.
    All,
    /// One of these.
    Only(NonEmpty<Glob>),
}

/// `allowReusableWorkflow` of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reusable {
    /// What signs may be a workflow of another repository that this one called.
    Foreign,
    /// What signs is a workflow of the same repository.
    Own,
}

/// A place for repositories whose workflows get certificates that name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forge {
    /// GitHub, also for enterprises with an issuer of their own there.
    GitHub,
    /// gitlab.com
    GitLab,
}

impl Forge {
    /// The forge whose workflows this issuer vouches for.
    pub fn of_issuer(issuer: &str) -> Option<Self> {
        if issuer == "https://gitlab.com" {
            return Some(Self::GitLab);
        }
        match issuer.strip_prefix("https://token.actions.githubusercontent.com")? {
            "" => Some(Self::GitHub),
            rest => rest.strip_prefix('/').filter(|name| is_segment(name)).map(|_| Self::GitHub),
        }
    }

    /// The forge of a repository that is named by these; whether it is one depends on nothing else.
    pub fn of_repository(issuer: &str, subject: &str) -> Option<Self> {
        Self::of_issuer(issuer).filter(|forge| forge.is_repository(subject))
    }

    /// Whether `text` is the address of a repository: `https://host/owner/name`, on GitLab with groups.
    pub fn is_repository(self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix("https://") else { return false };
        let mut segments = rest.split('/');
        let host = segments.next().unwrap_or_default();
        let host_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
        let path: Vec<&str> = segments.collect();
        let depth = match self {
            Self::GitHub => path.len() == 2,
            Self::GitLab => path.len() >= 2,
        };
        depth && !host.is_empty() && host.bytes().all(host_byte) && path.iter().all(|s| is_segment(s))
    }

    /// What stands between a repository and the path of a workflow in the address of the workflow.
    pub fn separator(self) -> &'static str {
        match self {
            Self::GitHub => "/",
            Self::GitLab => "//",
        }
    }

    /// What stands between a repository and the part of a workflow's address that its owner may choose.
    pub fn workflow_prefix(self) -> &'static str {
        match self {
            Self::GitHub => "/.github/workflows/",
            Self::GitLab => "//",
        }
    }

    /// The events that count where `triggers` is absent (T-13).
    pub fn default_triggers(self) -> NonEmpty<String> {
        let (first, others): (&str, &[&str]) = match self {
            Self::GitHub => ("push", &["release", "schedule", "workflow_dispatch"]),
            Self::GitLab => ("push", &["schedule", "web"]),
        };
        others.iter().fold(NonEmpty::one(first.to_owned()), |list, name| list.followed_by((*name).to_owned()))
    }
}

/// Letters, digits, `.`, `_` and `-`: no escapes, no `.` and `..`.
fn is_segment(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !matches!(text, "" | "." | "..") && text.bytes().all(allowed)
}

/// A Sigstore trusted root, and how old it may be (T-15, T-31).
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedRoot {
    /// `trustedRootPath`, `trustedRootData`, or neither.
    pub source: RootSource,
    /// `trustedRootMaxAge`
    pub max_age: MaxAge,
}

/// Where a trusted root comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum RootSource {
    /// `trustedRootData`, decoded from base64.
    Data(Arc<[u8]>),
    /// The one that this host has for every policy.
    Host,
    /// `trustedRootPath`
    Path(String),
}

impl RootSource {
    /// The file or datum, if the requirement names one.
    pub fn key_source(&self) -> Option<KeySource> {
        match self {
            Self::Data(data) => Some(KeySource::Data(Arc::clone(data))),
            Self::Host => None,
            Self::Path(path) => Some(KeySource::Path(path.clone())),
        }
    }
}

/// `trustedRootMaxAge`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxAge {
    /// Absent: a root of any age is used.
    Unlimited,
    /// An older one refuses.
    Seconds(u64),
}

impl MaxAge {
    /// A whole number, not zero, of hours (`12h`) or days (`30d`), at most a hundred years.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = match (text.strip_suffix('h'), text.strip_suffix('d')) {
            (Some(number), _) => (number, 3_600),
            (None, Some(number)) => (number, 86_400),
            (None, None) => return None,
        };
        let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        let seconds = number.parse::<u64>().ok().filter(|_| plain)?.checked_mul(unit)?;
        (seconds <= 36_525 * 86_400).then_some(Self::Seconds(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// §2.5: which strings are repositories.
    #[test]
    fn repositories_are_known_by_their_form() {
        for (text, github, gitlab) in [
            ("https://github.com/acme/os", true, true),
            ("https://github.com/YOUR_USERNAME/vespera", true, true),
            ("https://gitlab.com/g/sub/p", false, true),
            ("https://github.com/acme", false, false),
            ("https://github.com/acme/os/", false, false),
            ("https://github.com//os", false, false),
            ("https://github.com/acme/os//x", false, false),
            ("https://github.com/acme/..", false, false),
            ("https://github.com/./os", false, false),
            ("https://github.com/acme/o%73", false, false),
            ("https://github.com/acme/os?x", false, false),
            ("https://github.com/acme/os#x", false, false),
            ("https://github.com/acme/os@refs", false, false),
            ("https://me@github.com/acme/os", false, false),
            ("https://github.com:443/acme/os", false, false),
            ("https://GitHub.com/acme/os", false, false),
            ("http://github.com/acme/os", false, false),
            ("https:///acme/os", false, false),
            ("https://github.com/acme/os\n", false, false),
            ("github.com/acme/os", false, false),
            ("acme/os", false, false),
            ("", false, false),
        ] {
            assert_eq!(Forge::GitHub.is_repository(text), github, "{text}");
            assert_eq!(Forge::GitLab.is_repository(text), gitlab, "{text}");
        }
    }

    #[test]
    fn forges_are_known_by_their_issuer() {
        for (issuer, wanted) in [
            ("https://token.actions.githubusercontent.com", Some(Forge::GitHub)),
            ("https://token.actions.githubusercontent.com/acme-corp", Some(Forge::GitHub)),
            ("https://gitlab.com", Some(Forge::GitLab)),
            ("https://token.actions.githubusercontent.com/", None),
            ("https://token.actions.githubusercontent.com/a/b", None),
            ("https://token.actions.githubusercontent.com/..", None),
            ("https://token.actions.githubusercontent.com.evil.example", None),
            ("https://token.actions.githubusercontent.com?x", None),
            ("https://gitlab.com/", None),
            ("https://gitlab.com.evil.example", None),
            ("http://gitlab.com", None),
            ("https://github.com/login/oauth", None),
            ("https://accounts.google.com", None),
            ("", None),
        ] {
            assert_eq!(Forge::of_issuer(issuer), wanted, "{issuer}");
        }
    }

    // T-31.
    #[test]
    fn ages_are_whole_hours_or_days() {
        for (text, seconds) in [("1h", 3_600), ("30d", 2_592_000), ("36525d", 3_155_760_000)] {
            assert_eq!(MaxAge::parse(text), Some(MaxAge::Seconds(seconds)), "{text}");
        }
        for text in
            ["", "h", "0h", "01d", "30", "30D", "30m", "-1d", "+1d", " 1d", "1 d", "1.5d", "36526d", "1hd"]
        {
            assert_eq!(MaxAge::parse(text), None, "{text}");
        }
        let huge = format!("{}d", "9".repeat(30));
        assert_eq!(MaxAge::parse(&huge), None);
    }
}
