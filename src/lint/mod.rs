//! What is wrong with a policy, or likely not what was meant: its text, what it names and a time in, findings out.
//!
//! As a verification, it takes three steps: [`Draft::of`] reads the text, [`needs`] says what else has to be looked at,
//! and [`Case::findings`] judges. Nothing here decides about an image.

pub mod draft;
mod host;
mod identity;
mod key;
mod requirement;
mod scope;
mod store;
pub mod target;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::{Code, Position, Severity, Span};
use crate::verify::Timestamp;
use crate::verify::trust::KeyMaterial;
use crate::verify::trusted_root::HostRoot;

use draft::Draft;
use key::Key;
use target::Target;

/// One thing to say about a policy and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The cause.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub place: Place,
    /// What is wrong, lower case, no full stop. Escape before printing.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// Another place that has to do with it.
    pub related: Option<Related>,
}

/// Where a finding is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In another file, or the file as a whole.
    File {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: Option<Position>,
    },
    /// In the policy.
    Policy(Span),
}

/// A second place, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// The place.
    pub place: Place,
    /// What is there.
    pub message: String,
}

impl Finding {
    fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    fn see(&mut self, place: Place, message: impl Into<String>) -> &mut Self {
        self.related = Some(Related { place, message: message.into() });
        self
    }

    fn severity(&mut self, severity: Severity) -> &mut Self {
        self.severity = severity;
        self
    }
}

/// One kind of finding, described in vouchd-codes(7).
#[derive(Debug)]
pub struct Rule {
    /// Its code.
    pub code: Code,
    /// How bad it is, where it depends on nothing else.
    pub severity: Severity,
    /// What it is about, in one line.
    pub summary: &'static str,
    check: fn(&Case<'_>, &mut Findings),
}

/// What has to be looked at before a policy can be judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The files that it names, as it names them.
    pub files: BTreeSet<String>,
    /// The docker scopes of which it matters where signatures are looked for.
    pub stores: BTreeSet<String>,
    /// The paths that are scopes.
    pub paths: BTreeSet<String>,
    /// Whether certificates are judged with the trusted root of the host.
    pub host_root: bool,
}

/// What was found there. What is absent was not looked at, and nothing is said about it.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The files, by their names in the policy.
    pub files: HashMap<String, NamedFile>,
    /// Where the signatures of docker scopes are looked for.
    pub stores: HashMap<String, Vec<Store>>,
    /// Where paths that are scopes lead, links resolved, if elsewhere.
    pub links: HashMap<String, PathBuf>,
    /// The trusted root of the host, if it can be used.
    pub host_root: Option<Arc<HostRoot>>,
    /// Configuration beside the policy that cannot be used.
    pub faults: Vec<Fault>,
    /// What is to be known of the policy's own file, if it is one of this host.
    pub host: Option<Host>,
}

/// A file that a policy names.
#[derive(Debug)]
pub struct NamedFile {
    /// What it holds, or why it cannot be read.
    pub material: Result<Arc<KeyMaterial>, String>,
    /// The file, or the directory on the way to it, that everybody can change.
    pub writable: Option<PathBuf>,
    /// The file, or the directory on the way to it, that others may not read, where that matters.
    pub private: Option<PathBuf>,
}

/// A place where the images of a docker scope are fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The scope by the name that it has there.
    pub name: String,
    /// Whether it is a mirror.
    pub is_mirror: bool,
    /// Whether sigstore attachments are looked for, at least of some images (rules D-9, D-10).
    pub attachments: bool,
    /// Where that is set, in words.
    pub attachments_origin: Option<String>,
    /// Whether there is a lookaside store, at least of some images (rules D-8, D-12).
    pub lookaside: bool,
}

/// Configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The cause.
    pub code: Code,
    /// The file or directory.
    pub path: PathBuf,
    /// Where in it.
    pub at: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

/// What is to be known of the policy file of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The file.
    pub path: PathBuf,
    /// The file, or the directory on the way to it, that everybody can change.
    pub writable: Option<PathBuf>,
    /// The user's file, and the system's in place of which it counts.
    pub overridden: Option<(PathBuf, PathBuf)>,
    /// The vendor's file, if it is newer and says something else.
    pub newer: Option<PathBuf>,
    /// The policy that podman and other tools read, if it is another one.
    pub others: Option<(PathBuf, Vec<u8>)>,
}

/// What has to be looked at besides the policy.
pub fn needs(draft: &Draft<'_>) -> Needs {
    Needs {
        files: key::files(draft),
        stores: store::scopes(draft),
        paths: scope::paths(draft),
        host_root: key::needs_host_root(draft),
    }
}

/// Everything that is judged together.
#[derive(Debug)]
pub struct Case<'c> {
    draft: &'c Draft<'c>,
    document: &'c [u8],
    targets: &'c [Target],
    surroundings: &'c Surroundings,
    keys: Vec<Key<'c>>,
    now: Timestamp,
}

impl<'c> Case<'c> {
    /// The policy `draft`, of which `document` is the text, as it is read by `targets` at `now`.
    pub fn new(
        draft: &'c Draft<'c>,
        document: &'c [u8],
        targets: &'c [Target],
        surroundings: &'c Surroundings,
        now: Timestamp,
    ) -> Self {
        Self { draft, document, targets, surroundings, keys: key::collect(draft, surroundings, now), now }
    }

    /// Everything there is to say: about other files first, then in the order of the policy.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Findings::new();
        for problem in &self.draft.problems {
            findings.list.push(Finding {
                code: problem.code,
                severity: problem.severity,
                place: Place::Policy(problem.span),
                message: problem.message.clone(),
                help: problem.help.clone(),
                related: None,
            });
        }
        findings.are_more = self.draft.are_more;
        for rule in RULES {
            (findings.code, findings.severity) = (rule.code, rule.severity);
            (rule.check)(self, &mut findings);
        }
        findings.in_order()
    }
}

/// What the rules have found so far.
#[derive(Debug)]
struct Findings {
    /// The code and severity of the rule that is at work.
    code: Code,
    severity: Severity,
    list: Vec<Finding>,
    /// Takes what is beyond [`FINDINGS`]; before, it says that there is more.
    spare: Finding,
    are_more: bool,
}

impl Findings {
    fn new() -> Self {
        let (code, severity) = (Code::FindingsOmitted, Severity::Error);
        let message = "there is more to say about this policy than is said at once".to_owned();
        let help = Some("correct what is said, and ask again".to_owned());
        let place = Place::Policy(Span::default());
        let spare = Finding { code, severity, place, message, help, related: None };
        Self { code, severity, list: Vec::new(), spare, are_more: false }
    }

    fn add(&mut self, place: Place, message: String) -> &mut Finding {
        let finding =
            Finding { code: self.code, severity: self.severity, place, message, help: None, related: None };
        if self.list.len() >= FINDINGS {
            self.are_more = true;
            self.spare = finding;
            return &mut self.spare;
        }
        self.list.push(finding);
        self.list.last_mut().unwrap_or(&mut self.spare)
    }

    /// At a place in the policy.
    fn at(&mut self, span: Span, message: String) -> &mut Finding {
        self.add(Place::Policy(span), message)
    }

    fn in_order(mut self) -> Vec<Finding> {
        if self.are_more {
            // Among what is left out there may be errors.
            self.list.push(Self::new().spare);
        }
        self.list.sort_by_key(|finding| match &finding.place {
            Place::File { .. } => None,
            Place::Policy(span) => Some(span.start),
        });
        self.list
    }
}

/// What keeps a policy from being used at all; these are the codes of [`crate::policy::parse`], which nothing silences.
pub const FAULTS: [(Code, &str); 13] = [
    (Code::DuplicateKey, "one object has a member twice"),
    (Code::InvalidBase64, "a base64 member is not valid"),
    (Code::InvalidIdentity, "a signedIdentity object is not valid"),
    (Code::InvalidJson, "the document is not JSON"),
    (Code::InvalidPattern, "a regular expression cannot be used"),
    (Code::InvalidPrefix, "a remapIdentity prefix is not valid"),
    (Code::InvalidRequirement, "a requirement object is not valid"),
    (Code::InvalidScope, "a scope is not valid for its transport"),
    (Code::InvalidType, "a value has the wrong JSON type"),
    (Code::InvalidValue, "a member has a value that is not allowed"),
    (Code::MissingKey, "a mandatory member is missing"),
    (Code::UnknownKey, "a member is not known"),
    (Code::UnknownType, "the type of a requirement or identity is not known"),
];

macro_rules! rules {
    ($($severity:ident $code:ident $check:path, $summary:literal;)+) => {
        /// Every rule, by its code.
        pub const RULES: &[Rule] = &[$(Rule {
            code: Code::$code,
            severity: Severity::$severity,
            summary: $summary,
            check: $check,
        },)+];
    };
}

rules! {
    Warning AttachmentsDisabled store::attachments_disabled,
        "sigstore signatures of a scope are not looked for";
    Warning AuthorityExpired key::authority_expired,
        "the authorities of a requirement have expired, or soon will";
    Warning AuthorityTooBroad key::authority_too_broad,
        "a requirement trusts authorities that vouch for anybody";
    Error CertificatesInvalid host::certificates_invalid,
        "certificates for a registry cannot be used";
    Warning CosignSignsNoTag identity::cosign_signs_no_tag,
        "a requirement wants a signed tag, which cosign does not write";
    Warning DefaultAcceptsAnything scope::default_accepts_anything,
        "images that no scope names are accepted unsigned";
    Note ExtensionKey target::extension_key,
        "a member is vouchd's own, and other tools refuse it";
    Warning IdleRequirement requirement::idle_requirement,
        "a requirement adds nothing to those beside it";
    Warning KeyExpired key::key_expired,
        "an OpenPGP key has expired";
    Warning KeyExpiresSoon key::key_expires_soon,
        "an OpenPGP key expires within 30 days";
    Error KeyFileInvalid key::key_file_invalid,
        "a key or certificate is of the wrong kind, or there is none";
    Error KeyFileUnreadable key::key_file_unreadable,
        "a file that the policy names cannot be read";
    Warning KeyRevoked key::key_revoked,
        "an OpenPGP key has been revoked";
    Error KeyTooNew target::key_too_new,
        "a member is newer than a tool that reads the policy";
    Warning KeyUnusable key::key_unusable,
        "an OpenPGP key may not sign";
    Warning LookasideMissing store::lookaside_missing,
        "nothing says where the signatures of a scope are";
    Warning LoosePattern identity::loose_pattern,
        "a regular expression matches more than it seems to";
    Warning NeverSatisfied requirement::never_satisfied,
        "no image can satisfy the requirements of a scope";
    Error PoliciesDiffer host::policies_differ,
        "vouchd and other tools have policies with different meanings";
    Warning PolicyOverridden host::policy_overridden,
        "another policy counts in place of the system's";
    Warning PrivateFile key::private_file,
        "others may not read a file that the policy names";
    Note RedundantScope scope::redundant_scope,
        "a scope says what the wider scope says already";
    Note RefsOpen identity::refs_open,
        "a certificate may be for any branch or pull request";
    Error RegistriesConfInvalid host::registries_conf_invalid,
        "registries.conf cannot be used";
    Error RegistriesDInvalid host::registries_d_invalid,
        "registries.d cannot be used";
    Note RejectUnderSigned scope::reject_under_signed,
        "images are refused although a wider scope accepts signed ones";
    Warning RelativePath key::relative_path,
        "a file depends on the working directory";
    Warning RepeatedRequirement requirement::repeated_requirement,
        "a scope has the same requirement twice";
    Warning RepositoryAsSubject identity::repository_as_subject,
        "a repository stands where only a workflow can be named";
    Warning ScopeHostCase scope::scope_host_case,
        "the host of a scope has upper-case letters";
    Warning ScopeNeverMatches scope::scope_never_matches,
        "a scope can match no image";
    Warning SecretKey key::secret_key,
        "a file of keys holds a secret one";
    Warning SeveralKeys key::several_keys,
        "a key file holds more keys than all tools read";
    Note Sha1BoundKey key::sha1_bound_key,
        "an OpenPGP key depends on a self-signature with SHA-1";
    Warning SharedSigner identity::shared_signer,
        "signatures that name no image count in several scopes";
    Note SourceRepositoryOpen identity::source_repository_open,
        "a workflow is named, and not which repository may call it";
    Note StalePolicyCopy host::stale_policy_copy,
        "the system's policy is older than the vendor's";
    Warning SubjectNotEmail identity::subject_not_email,
        "an e-mail address is none";
    Note TagSubstitution identity::tag_substitution,
        "any signed image of a repository counts for every tag of it";
    Error TrustedRootInvalid key::trusted_root_invalid,
        "a trusted root cannot be used";
    Warning TrustedRootStale key::trusted_root_stale,
        "a trusted root is old";
    Warning UnknownTransport scope::unknown_transport,
        "scopes stand under a transport that does not exist";
    Warning UnreadSetting host::unread_setting,
        "a setting of registries.d or registries.conf is not read";
    Warning UnsignedException scope::unsigned_exception,
        "images are accepted unsigned within a scope that wants signatures";
    Warning Unsupported requirement::unsupported,
        "no tool can check a requirement";
    Error VouchdTomlInvalid host::vouchd_toml_invalid,
        "vouchd.toml cannot be used";
    Warning WeakAlgorithm key::weak_algorithm,
        "an OpenPGP key is too weak to count";
    Error WritableFile host::writable_file,
        "everybody can change a file that decides";
}

/// Most findings of rules: as many as of problems.
const FINDINGS: usize = draft::PROBLEMS;
