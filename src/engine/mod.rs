//! [`Engine`]: one verification from name to verdict.

mod kept;
mod sharing;
mod turns;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::config::{
    self, Endpoint, Environment, Origin, PolicySource, RegistriesConf, ShortNames, is_short_name,
};
use crate::diagnostic::{Code, Diagnostic, Position, Positions, Span, escape};
use crate::digest::Digest;
use crate::evaluate;
use crate::evaluate::evidence::{Evidence, LocatedSignature, ManifestEvidence, Needs, Question};
use crate::evaluate::verdict::{Decision, Others, Role, Verdict};
use crate::fetch::keys::KeyFiles;
use crate::fetch::surroundings::{Gatherer, Subject};
use crate::fetch::{
    self, Asker, Budget, Client, Configuration, Gathered, Locations, Principal, SurveyedManifest, Ways,
    credentials, local, registry,
};
use crate::inspect::{self, Failure, Finding, Signed, Store, Trust};
use crate::lint;
use crate::lint::draft::{Draft, Text};
use crate::lint::target::Target;
use crate::manifest::{self, Platform};
use crate::nonempty::NonEmpty;
use crate::policy::{Match, Policy, Scope};
use crate::reference::{self, ImageName, ImageReference, Named};
use crate::verify::Timestamp;

use kept::{Found, IMAGE_BYTES, Kept, Key};
use sharing::{Follow, Lead, Part, Sharing};

pub use turns::{Limits, NoTurn, Turn, Turns};

/// How long one verification may take by default: 90 s, design decision 6.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90);

/// The longest time that a caller may ask for: 10 min, org.vouchd.Verifier1.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Gatherings at the same time: design decision 6.
pub const GATHERINGS: Limits = Limits { all: 32, users: 16, user: 8 };

/// Where the engine finds its configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which policy.
    pub policy: PolicyChoice,
    /// Which registries.d and registries.conf.
    pub configuration: Configuration,
    /// How registries are reached.
    pub registry: registry::Settings,
    /// What short names may be resolved with.
    pub short_names: ShortNames,
    /// Whose storage.conf says where containers-storage is.
    pub environment: Environment,
}

/// Everything that a verification needs and that outlives it.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    client: Client,
    /// Whether a policy that others than root can change is an error.
    only_ours: bool,
    gatherings: Turns,
    sharing: Sharing,
    /// How often everything has been forgotten.
    generation: AtomicU64,
    /// What was found for root, and for other users, so that nobody crowds out what is root's.
    kept: Kept,
    kept_for_users: Kept,
    /// The policy as last parsed, by the digest of its text.
    parsed: Mutex<Option<Arc<LoadedPolicy>>>,
    /// Turns at reading and at judging. Who gives up waiting leaves the work behind, and the turn with it.
    reading: Arc<Semaphore>,
    judging: Arc<Semaphore>,
    /// What users other than root need beside, so that root does not wait behind all of them (T-26).
    judging_for_users: Arc<Semaphore>,
}

/// Which policy decides.
#[derive(Clone, Debug)]
pub enum PolicyChoice {
    /// A file, as it is when it is needed.
    File(PolicySource),
    /// One made for this run; no file is looked for.
    Made(Arc<LoadedPolicy>),
}

impl From<PolicySource> for PolicyChoice {
    fn from(source: PolicySource) -> Self {
        Self::File(source)
    }
}

impl From<Policy> for PolicyChoice {
    fn from(policy: Policy) -> Self {
        Self::Made(Arc::new(LoadedPolicy { file: None, policy }))
    }
}

/// A policy that is ready for use.
#[derive(Debug)]
pub struct LoadedPolicy {
    /// The file that it was read from; `None` if it never was in one.
    pub file: Option<LoadedFile>,
    /// What it says.
    pub policy: Policy,
}

/// A policy file that was read and parsed.
#[derive(Debug)]
pub struct LoadedFile {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its text.
    pub digest: Digest,
    /// Its text.
    pub text: Vec<u8>,
}

/// A verdict with what it was reached from.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The image.
    pub image: ImageReference,
    /// Where it really came from, if that is a registry: perhaps a mirror (rule M-7).
    pub source: Option<Named>,
    /// The verdict.
    pub verdict: Verdict,
    /// The policy.
    pub policy: Arc<LoadedPolicy>,
    /// The reference that names exactly what was allowed, where the transport can.
    pub pinned: Option<ImageReference>,
    /// Whether the policy also accepts the pinned reference; `None` if that leads to places that were not looked at.
    pub pinned_accepted: Option<bool>,
    /// Things to know that change nothing, from outside the verdict. Untrusted: escape before printing.
    pub warnings: Vec<String>,
    /// The number of requests that were made.
    pub requests: usize,
    /// Whether that is none because the evidence was at hand, or others had it gathered.
    pub reused: bool,
}

impl Answer {
    /// The digest of the instance that was judged.
    pub fn instance_digest(&self) -> Option<&Digest> {
        self.verdict.subjects.iter().find(|s| s.role == Role::Instance).and_then(|s| s.digest.as_ref())
    }
}

/// What is asked about an image.
#[derive(Debug)]
pub struct Request {
    /// How the question is meant.
    pub question: Question,
    /// Which manifest it is about.
    pub content: Content,
    /// For whom.
    pub principal: Principal,
    /// A turn at gathering; one is taken if there is none.
    pub turn: Option<Turn>,
    /// Whether what was found or verified before, or is being found for others, may be used.
    pub reuse: bool,
    /// What the verification may hold and ask.
    pub budget: Budget,
    /// Who is told how far it is.
    pub stage: Option<watch::Sender<Stage>>,
}

impl Request {
    /// About what the name leads to, for whoever runs this process.
    pub fn new(question: Question, budget: Budget) -> Self {
        let (content, principal) = (Content::Named, Principal::OWNER);
        Self { question, content, principal, turn: None, reuse: true, budget, stage: None }
    }

    fn enter(&self, stage: Stage) {
        if let Some(told) = &self.stage {
            told.send_replace(stage);
        }
    }
}

/// Which manifest is judged. The scope, and the names that signatures must have, are those of the image name in any case.
#[derive(Clone, Debug)]
pub enum Content {
    /// What the name leads to.
    Named,
    /// What has this digest in the repository of the name.
    Digest {
        /// The digest.
        digest: Digest,
        /// Whether the name must lead to it at present.
        check_tag: bool,
    },
    /// What the caller has.
    Manifest {
        /// The bytes.
        bytes: Vec<u8>,
        /// The only signatures that count; if `None`, they are looked for.
        signatures: Option<Vec<LocatedSignature>>,
    },
}

impl Content {
    /// The digest that the manifest must have.
    fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Digest { digest, .. } => Some(digest),
            Self::Manifest { .. } | Self::Named => None,
        }
    }

    /// Whether it is not what others would have, and its signatures not where they would look.
    fn is_of_caller(&self) -> bool {
        matches!(self, Self::Manifest { .. })
    }

    /// The name by which it is fetched; nothing if nobody can.
    fn fetched(&self, image: &ImageReference) -> Option<ImageReference> {
        match self {
            Self::Digest { digest, check_tag: false } => image.pinned(digest),
            Self::Digest { check_tag: true, .. } | Self::Manifest { .. } | Self::Named => Some(image.clone()),
        }
    }
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It reads the configuration.
    Resolving,
    /// It asks for the manifest, and the signatures that are stored for it.
    Manifest,
    /// It asks for signatures alone.
    Signatures,
    /// It judges.
    Evaluating,
}

/// No verdict, and how far it got: the image must not be used.
#[derive(Clone, Debug)]
pub struct Undecided {
    /// Why.
    pub error: Error,
    /// The policy, if it could be read.
    pub policy: Option<Arc<LoadedPolicy>>,
    /// The scope that applies and its place in the policy, if it got that far.
    pub scope: Option<(Scope, Span)>,
    /// The number of requests that were made.
    pub requests: usize,
}

impl From<Error> for Undecided {
    fn from(error: Error) -> Self {
        Self { error, policy: None, scope: None, requests: 0 }
    }
}

impl From<Error> for Box<Undecided> {
    fn from(error: Error) -> Self {
        Self::new(error.into())
    }
}

/// A judgement.
struct Judged {
    verdict: Verdict,
    /// The name that pins what was granted, and whether the policy also accepts that name.
    pinned: Option<ImageReference>,
    pinned_accepted: Option<bool>,
    /// The evidence, if more of it could turn a no into a yes.
    refused: Option<Evidence>,
}

/// What is attached to an image. It is no verdict: no policy was read.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Where it really came from, if that is a registry and another place than the name says.
    pub source: Option<Named>,
    /// What the reference names, and if that is an index the instance for the platform.
    pub manifests: Vec<InspectedManifest>,
    /// Why an instance that should be there is not.
    pub failure: Option<Failure>,
    /// Requirements with `keyless` that good signatures would satisfy, as JSON.
    pub proposals: BTreeSet<String>,
    /// Things to know. Untrusted: escape before printing.
    pub warnings: Vec<String>,
    /// The number of requests that were made.
    pub requests: usize,
}

/// A manifest with what is attached to it.
#[derive(Clone, Debug)]
pub struct InspectedManifest {
    /// Which one.
    pub role: Role,
    /// Its digest, unless it can be read in more than one way.
    pub digest: Option<Digest>,
    /// The type that the source claimed. Untrusted: escape before printing.
    pub media_type: String,
    /// Its length in bytes.
    pub size: usize,
    /// Every place that was asked.
    pub stores: Vec<InspectedStore>,
}

/// A place and what was found out about everything in it.
#[derive(Clone, Debug)]
pub struct InspectedStore {
    /// The place, whose signatures are left out.
    pub store: Store,
    /// For each thing there, what was found out about each of its signatures.
    pub findings: Vec<Vec<Finding>>,
}

impl Inspection {
    /// Whether everything could be asked.
    pub fn is_complete(&self) -> bool {
        let stores = || self.manifests.iter().flat_map(|manifest| &manifest.stores);
        self.failure.is_none()
            && self.manifests.iter().all(|manifest| manifest.digest.is_some())
            && stores().all(|s| s.store.failures.is_empty())
            && stores().flat_map(|s| &s.store.items).all(|item| item.failure.is_none())
    }

    /// Every finding.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.manifests.iter().flat_map(|m| &m.stores).flat_map(|s| &s.findings).flatten()
    }
}

/// What would be required of an image, and where its signatures would be looked for.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The image.
    pub image: ImageReference,
    /// The policy.
    pub policy: Arc<LoadedPolicy>,
    /// Where the image and its signatures are looked for, in this order; nowhere for images outside registries.
    pub endpoints: Vec<ExplainedEndpoint>,
    /// What to know about the name. Untrusted: escape before printing.
    pub note: Option<String>,
}

impl Explanation {
    /// The scope that applies, and its requirements.
    pub fn matched(&self) -> Match<'_> {
        self.policy.policy.lookup(&self.image)
    }
}

/// Where an image is looked for, and where its signatures then are (rules M-5, M-7).
#[derive(Clone, Debug)]
pub struct ExplainedEndpoint {
    /// The place.
    pub endpoint: Endpoint,
    /// Its stores.
    pub stores: Stores,
}

/// Where the signatures of an image in a registry are looked for.
#[derive(Clone, Debug)]
pub struct Stores {
    /// The lookaside store, without credentials.
    pub lookaside: String,
    /// Where it is set; `None` for the built-in one.
    pub lookaside_origin: Option<Origin>,
    /// Whether sigstore attachments are looked for.
    pub attachments: bool,
    /// Where that is set; `None` for the built-in no.
    pub attachments_origin: Option<Origin>,
}

/// Why there is no verdict.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The clock of this host says a time that has passed, and the answer depends on the time (T-19).
    ClockImplausible {
        /// What the clock says.
        now: Timestamp,
        /// What has passed.
        floor: Timestamp,
        /// What tells that.
        source: &'static str,
    },
    /// The configuration cannot be used.
    Config(config::Error),
    /// Evidence could not be gathered.
    Fetch(fetch::Error),
    /// A fault of vouchd itself.
    Internal(String),
    /// As much is being verified as may be, for who asks.
    NoTurn(NoTurn),
    /// The policy names no scope of this registry, and who asks is not root (T-29).
    NotNamed {
        /// The registry.
        registry: String,
    },
    /// The policy is not valid.
    PolicyInvalid {
        /// The file.
        path: PathBuf,
        /// Every problem, with its place.
        problems: Box<NonEmpty<(Position, Diagnostic)>>,
    },
    /// The image name is not valid.
    Reference {
        /// The name as given.
        text: String,
        /// What is wrong with it.
        error: reference::Error,
    },
}

impl Error {
    /// The stable name of the cause.
    pub fn code(&self) -> Code {
        match self {
            Self::ClockImplausible { .. } => Code::ClockImplausible,
            Self::Config(error) => error.code(),
            Self::Fetch(error) => error.code(),
            Self::Internal(_) => Code::InternalError,
            Self::NoTurn(_) => Code::TooManyRequests,
            Self::NotNamed { .. } => Code::RegistryNotNamed,
            Self::PolicyInvalid { .. } => Code::PolicyInvalid,
            Self::Reference { .. } => Code::InvalidReference,
        }
    }

    /// What can be done about it.
    pub fn help(&self) -> &str {
        match self {
            Self::ClockImplausible { source: config::LAST_SEEN, .. } => {
                "set the clock of this host; if it is right, it was wrong before: remove /var/lib/vouchd/clock"
            }
            Self::ClockImplausible { .. } => "set the clock of this host, and try again",
            Self::Config(error) => error.help(),
            Self::Fetch(error) => error.help(),
            Self::Internal(_) => "please report this as a bug of vouchd",
            Self::NoTurn(_) => "ask again later",
            Self::NotNamed { .. } => {
                "add a scope of the registry to the policy, or ask as root; \"\" and \"default\" name none"
            }
            Self::PolicyInvalid { problems, .. } => {
                let (_, first) = problems.first();
                first.help.as_deref().unwrap_or("mend the policy; until then every image is refused")
            }
            Self::Reference { error, .. } => error.help(),
        }
    }

    /// What a policy is that could not be had for this reason: `missing` or `invalid`.
    pub fn policy_state(&self) -> &'static str {
        match self {
            Self::Config(config::Error::PolicyMissing { .. }) => "missing",
            Self::ClockImplausible { .. }
            | Self::Config(_)
            | Self::Fetch(_)
            | Self::Internal(_)
            | Self::NoTurn(_)
            | Self::NotNamed { .. }
            | Self::PolicyInvalid { .. }
            | Self::Reference { .. } => "invalid",
        }
    }

    /// The policy file that cannot be used, if that is the reason.
    pub fn policy_path(&self) -> Option<&Path> {
        match self {
            Self::Config(error) => error.policy_path(),
            Self::PolicyInvalid { path, .. } => Some(path),
            Self::ClockImplausible { .. }
            | Self::Fetch(_)
            | Self::Internal(_)
            | Self::NoTurn(_)
            | Self::NotNamed { .. }
            | Self::Reference { .. } => None,
        }
    }

    /// Whether the fault is in what the administrator wrote: the policy, the configuration or a key.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::PolicyInvalid { .. } => true,
            Self::Config(error) => error.is_configuration(),
            Self::Fetch(error) => error.is_configuration(),
            Self::ClockImplausible { .. }
            | Self::Internal(_)
            | Self::NoTurn(_)
            | Self::NotNamed { .. }
            | Self::Reference { .. } => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockImplausible { now, floor, source } => write!(
                f,
                "the clock of this host says {now}, which is before {floor}, as {source} tells; the answer depends on the time"
            ),
            Self::Config(error) => error.fmt(f),
            Self::Fetch(error) => error.fmt(f),
            Self::Internal(detail) => write!(f, "internal error: {}", escape(detail)),
            Self::NoTurn(NoTurn { most }) => {
                write!(f, "{most} verifications are running already, or the service is ending")
            }
            Self::NotNamed { registry } => {
                write!(
                    f,
                    "the policy has no scope of the registry \"{}\"; only root may have it asked",
                    escape(registry)
                )
            }
            Self::PolicyInvalid { path, problems } => {
                let (position, problem) = problems.first();
                write!(
                    f,
                    "{}:{}:{}: {} [{}]",
                    escape(&path.to_string_lossy()),
                    position.line,
                    position.column,
                    problem.message,
                    problem.code
                )?;
                match problems.count() {
                    1 => Ok(()),
                    count => write!(f, " (and {} more)", count.saturating_sub(1)),
                }
            }
            Self::Reference { text, error } => {
                write!(f, "\"{}\" is not an image name: {}", escape(text), escape(&error.to_string()))
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}

impl From<fetch::Error> for Error {
    fn from(error: fetch::Error) -> Self {
        if let fetch::Error::Config(error) = error { Self::Config(error) } else { Self::Fetch(error) }
    }
}

impl Engine {
    /// An engine that has read nothing yet.
    pub fn new(settings: Settings) -> Self {
        let Settings { registry, configuration, environment, .. } = settings.clone();
        let client = Client::new(registry, configuration, environment);
        let turns = |most| Arc::new(Semaphore::new(most));
        Self {
            settings,
            client,
            only_ours: false,
            gatherings: Turns::new(GATHERINGS),
            sharing: Sharing::default(),
            generation: AtomicU64::new(0),
            kept: Kept::default(),
            kept_for_users: Kept::default(),
            parsed: Mutex::new(None),
            reading: turns(READING),
            judging: turns(JUDGING),
            judging_for_users: turns(JUDGING_FOR_USERS),
        }
    }

    /// The same for others than who runs this process: a policy and key files that neither root nor that user alone can
    /// change are errors (T-23).
    pub fn only_ours(self) -> Self {
        Self { client: self.client.only_ours(), only_ours: true, ..self }
    }

    /// The policy as it is on disk now. Its text is read each time, and parsed only when it has changed.
    pub fn policy(&self) -> Result<Arc<LoadedPolicy>, Error> {
        let file = match &self.settings.policy {
            PolicyChoice::File(source) if self.only_ours => source.read_ours()?,
            PolicyChoice::File(source) => source.read()?,
            PolicyChoice::Made(policy) => return Ok(Arc::clone(policy)),
        };
        let digest = Digest::sha256(&file.bytes);
        let is_same = |known: &LoadedFile| known.digest == digest && known.path == file.path;
        let known = self.parsed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| known.file.as_ref().is_some_and(is_same)) {
            return Ok(known);
        }
        let policy = Policy::parse(&file.bytes).map_err(|problems| {
            let positions = Positions::of(&file.bytes, problems.iter().map(|p| p.span.start).collect());
            let place = |problem: &Diagnostic| {
                let position = positions.at(problem.span.start);
                (position.unwrap_or_else(|| problem.span.position(&file.bytes)), problem.clone())
            };
            let first = NonEmpty::one(place(problems.first()));
            let problems = NonEmpty::from_vec(problems.iter().map(place).collect()).unwrap_or(first);
            Error::PolicyInvalid { path: file.path.clone(), problems: Box::new(problems) }
        })?;
        let file = LoadedFile { path: file.path, digest, text: file.bytes };
        let loaded = Arc::new(LoadedPolicy { file: Some(file), policy });
        *self.parsed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Whether registries.d, registries.conf and the proxies could be used now. It blocks.
    pub fn check_configuration(&self) -> Result<(), Error> {
        self.client.locations()?;
        Ok(())
    }

    /// May this image be used? `now` is the time of judgement, `timeout` that of everything.
    ///
    /// `supplied` are the caller's own credentials, in place of those of this host.
    pub async fn verify(
        self: &Arc<Self>,
        name: &str,
        question: &Question,
        supplied: Option<&credentials::Source>,
        timeout: Duration,
        now: Timestamp,
    ) -> Result<Answer, Box<Undecided>> {
        let principal = Principal { asker: Asker::Owner, supplied: supplied.cloned() };
        let budget = self.budget(principal.asker);
        let request = Request { principal, ..Request::new(question.clone(), budget) };
        self.answer(name, request, timeout, now).await
    }

    /// What one verification may hold and ask, to pay for what its caller hands over.
    pub fn budget(&self, asker: Asker) -> Budget {
        self.client.budget(asker)
    }

    /// Turns at gathering, for who hands over what must be held meanwhile, and to wait for the last.
    pub fn gatherings(&self) -> &Turns {
        &self.gatherings
    }

    /// As [`Engine::verify`], for any request.
    pub async fn answer(
        self: &Arc<Self>,
        name: &str,
        mut request: Request,
        timeout: Duration,
        now: Timestamp,
    ) -> Result<Answer, Box<Undecided>> {
        let deadline = Instant::now() + timeout;
        let (question, budget) = (&request.question.clone(), &request.budget.clone());
        let principal = &request.principal.clone();
        request.enter(Stage::Resolving);
        let policy = self.read_policy(deadline).await?;
        let (image, note) = match self.resolve(name.to_owned(), question.platform.clone(), deadline).await {
            Ok(found) => found,
            Err(error) => {
                return Err(Box::new(Undecided { error, policy: Some(policy), scope: None, requests: 0 }));
            }
        };
        let plan = evaluate::plan(&policy.policy, &image, question);
        let needs = plan.needs();
        let scope = (plan.matched().scope.clone(), plan.matched().span);
        let undecided = |error| Undecided {
            error,
            scope: Some(scope.clone()),
            policy: Some(Arc::clone(&policy)),
            requests: budget.requests_made(),
        };
        check_content(&image, &request.content).map_err(undecided)?;
        if needs.time {
            check_clock(&self.settings.environment, now).map_err(undecided)?;
        }
        check_guard(&policy.policy, &image, &needs, principal.asker).map_err(undecided)?;
        let keys = self.client.keys();
        let keys = if request.reuse { Arc::clone(keys) } else { Arc::new(keys.afresh()) };
        let case = Case {
            policy: Arc::clone(&policy),
            image: image.clone(),
            question: question.clone(),
            needs,
            keys,
            ways: None,
            principal: principal.clone(),
            budget: budget.clone(),
            deadline,
            now,
        };
        let decided = self.decide(case, &mut request).await.map_err(undecided)?;
        let Decided { judged, source, mut warnings, reused } = decided;
        let Judged { mut verdict, pinned, mut pinned_accepted, refused: _ } = judged;
        if request.content.is_of_caller() {
            // Mirrors, which others would ask first, were not.
            verdict.others = Others::UNKNOWN;
            pinned_accepted = None;
        }
        if matches!(request.content, Content::Digest { check_tag: false, .. })
            && image.pinned_digest().is_none()
        {
            // Others judge what the name leads to, which was not looked at.
            verdict.others = Others::UNKNOWN;
        }
        // A place that the name itself leads to is no other, whichever digest was asked for there.
        let fetched = request.content.fetched(&image);
        let is_own = |found: &Named| fetched.as_ref().is_some_and(|name| name.in_registry() == Some(found));
        let source =
            source.and_then(|found| if is_own(&found) { image.in_registry().cloned() } else { Some(found) });
        warnings.extend(note);
        let requests = budget.requests_made();
        Ok(Answer { image, source, verdict, policy, pinned, pinned_accepted, warnings, requests, reused })
    }

    /// The judgement by the best evidence there is: what was kept, what others have gathered, what is gathered now.
    async fn decide(self: &Arc<Self>, mut case: Case, request: &mut Request) -> Result<Decided, Error> {
        let deadline = case.deadline;
        let late = |what: &str| fetch::Error::TimedOut { waiting_for: what.to_owned() };
        let reading = async {
            let material = self.client.material(&case.keys, &case.needs).await?;
            let wanted = case.needs.manifest || request.content.is_of_caller();
            let ways = if wanted { self.client.ways(&case.image).await? } else { None };
            Ok::<_, fetch::Error>((material, ways))
        };
        let read = tokio::time::timeout_at(deadline, reading).await;
        let (material, ways) = read.unwrap_or_else(|_| Err(late("the configuration")))?;
        case.ways = ways;
        let case = Arc::new(case);
        let key = case.key(request, self.generation.load(Ordering::SeqCst));
        let kept = self.kept(case.principal.asker);
        let is_pinned = case.fetched(request).is_some_and(|image| image.pinned_digest().is_some());
        // Tags are resolved anew each time.
        if let Some(key) = key.as_ref().filter(|_| is_pinned)
            && let Some(found) = kept.get(key)
        {
            let (decided, _) = self.judge_found(&case, request, &material, &found).await?;
            if matches!(decided.judged.verdict.decision, Decision::Allow(_)) {
                return Ok(decided);
            }
            // It may have been signed since.
            kept.forget(key);
        }
        let mut lead = None;
        // Where mirrors are passed over, each in its share of the time, that of somebody else is no measure.
        if let Some(key) = key.as_ref().filter(|key| key.places.is_one()) {
            for _ in 0..FOLLOWED {
                match self.sharing.enter(key.clone()) {
                    Part::Lead(leading) => lead = Some(leading),
                    Part::Follow(follow) => {
                        let following = self.follow(&case, request, &material, follow);
                        let followed = tokio::time::timeout_at(deadline, following).await;
                        match followed.unwrap_or_else(|_| Err(late("the evidence").into()))? {
                            Some(decided) => return Ok(decided),
                            // It ended before it was enough; one of those who followed leads now.
                            None => continue,
                        }
                    }
                }
                break;
            }
        }
        let (decided, found) = self.gather_and_judge(&case, request, &material, lead).await?;
        if let (Some(key), Some(found), Decision::Allow(_)) =
            (key.filter(|_| is_pinned), found, &decided.judged.verdict.decision)
        {
            kept.keep(key, found);
            // What was forgotten meanwhile must not come back.
            kept.retain_generation(self.generation.load(Ordering::SeqCst));
        }
        Ok(decided)
    }

    /// What is gathered for this request, perhaps for others, too; the evidence, if it is small enough to be kept.
    async fn gather_and_judge(
        self: &Arc<Self>,
        case: &Arc<Case>,
        request: &mut Request,
        material: &Evidence,
        lead: Option<Lead>,
    ) -> Result<(Decided, Option<Arc<Found>>), Error> {
        let asker = case.principal.asker;
        let taken = request.turn.take().map_or_else(|| self.gatherings.take(asker), Ok);
        let _turn = taken.map_err(Error::NoTurn)?;
        let late = |_| Err(fetch::Error::TimedOut { waiting_for: "the evidence".to_owned() });
        let gathering = tokio::time::timeout_at(case.deadline, self.gather(case, request));
        let gathered = gathering.await.unwrap_or_else(late)?;
        let Gathered { evidence, source, warnings, place } = gathered;
        let share = |evidence: &Evidence| {
            let bytes = evidence.image_bytes();
            let is_worth_it = request.reuse && bytes <= IMAGE_BYTES && case.budget.bytes(bytes).is_ok();
            let (source, warnings) = (source.clone(), warnings.clone());
            is_worth_it.then(|| Arc::new(Found { evidence: evidence.clone(), source, warnings }))
        };
        let mut found = share(&evidence);
        if let (Some(lead), Some(found)) = (&lead, &found) {
            lead.first(Arc::clone(found));
        }
        let mut judged = self.judge_evidence(case, request, material, || evidence).await?;
        if let Some(mut evidence) = judged.refused.take()
            && let Some(place) = place
        {
            request.enter(Stage::Signatures);
            let adding = place.add_referrers(&mut evidence, &case.question);
            let late = |_| fetch::Error::TimedOut { waiting_for: "the evidence".to_owned() };
            let failure = tokio::time::timeout_at(case.deadline, adding).await.map_err(late)?;
            found = share(&evidence).filter(|_| failure.is_none());
            if let (Some(lead), Some(found)) = (&lead, &found) {
                lead.second(Arc::clone(found));
            }
            judged = self.judge_evidence(case, request, material, || evidence).await?;
            // What was not to be had might have been the signature.
            if let (Some(_), Some(failure)) = (&judged.refused, failure) {
                return Err(failure.into());
            }
        }
        Ok((Decided { judged, source, warnings, reused: false }, found))
    }

    /// The judgement by what somebody else has gathered; nothing if that ended before it was enough.
    async fn follow(
        self: &Arc<Self>,
        case: &Arc<Case>,
        request: &Request,
        material: &Evidence,
        mut follow: Follow,
    ) -> Result<Option<Decided>, Error> {
        request.enter(Stage::Manifest);
        let Some(first) = follow.first().await else { return Ok(None) };
        let (decided, wants_more) = self.judge_found(case, request, material, &first).await?;
        if !wants_more {
            return Ok(Some(decided));
        }
        drop((decided, first));
        request.enter(Stage::Signatures);
        let Some(second) = follow.second().await else { return Ok(None) };
        let (decided, _) = self.judge_found(case, request, material, &second).await?;
        Ok(Some(decided))
    }

    /// The judgement by evidence that is there, and whether more of it could turn a no into a yes.
    async fn judge_found(
        self: &Arc<Self>,
        case: &Arc<Case>,
        request: &Request,
        material: &Evidence,
        found: &Arc<Found>,
    ) -> Result<(Decided, bool), Error> {
        let copied = Arc::clone(found);
        // Made in its turn, so that there are never more copies than turns (T-28).
        let evidence = move || copied.evidence.clone();
        let mut judged = self.judge_evidence(case, request, material, evidence).await?;
        let wants_more = judged.refused.take().is_some();
        let (source, warnings) = (found.source.clone(), found.warnings.clone());
        Ok((Decided { judged, source, warnings, reused: true }, wants_more))
    }

    /// Judges where it holds nobody up.
    async fn judge_evidence(
        self: &Arc<Self>,
        case: &Arc<Case>,
        request: &Request,
        material: &Evidence,
        evidence: impl FnOnce() -> Evidence + Send + 'static,
    ) -> Result<Judged, Error> {
        request.enter(Stage::Evaluating);
        let (engine, judging, content) = (Arc::clone(self), Arc::clone(case), request.content.clone());
        let material = material.clone();
        // The bytes are given back when nobody holds the case any more.
        let judgement = move || Ok(engine.judge(&judging, &content, evidence().with_keys_of(material)));
        let turns = self.judging(case.principal.asker);
        blocking(turns, judgement, "the judgement", case.deadline).await
    }

    fn kept(&self, asker: Asker) -> &Kept {
        match asker {
            Asker::Owner => &self.kept,
            Asker::User(_) => &self.kept_for_users,
        }
    }

    /// Forgets everything that was read, gathered or verified; what is being judged goes on.
    pub fn forget(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.kept.forget_all();
        self.kept_for_users.forget_all();
        self.client.keys().forget();
        *self.parsed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The evidence about the image. What the caller handed over goes into it.
    async fn gather<'a>(
        &'a self,
        case: &'a Case,
        request: &mut Request,
    ) -> Result<Gathered<'a>, fetch::Error> {
        let Case { image, needs, question, ways, principal, budget, deadline, .. } = case;
        let unsupported = || fetch::Error::UnsupportedTransport(image.transport());
        if let Content::Manifest { bytes, signatures } = &mut request.content {
            let ways = ways.as_ref().ok_or_else(unsupported)?;
            let media_type = manifest::sniff_media_type(bytes).to_owned();
            let manifest = ManifestEvidence::new(std::mem::take(bytes), media_type);
            let (content, limits) =
                ((manifest, signatures.as_mut().map(std::mem::take)), (budget, *deadline));
            request.enter(Stage::Signatures);
            let gathering = self.client.gather_signatures(image, content, ways, needs, principal, limits);
            return gathering.await;
        }
        request.enter(Stage::Manifest);
        let fetched = case.fetched(request).ok_or_else(unsupported)?;
        let limits = (budget, *deadline);
        self.client.gather(&fetched, ways.as_ref(), needs, question, principal, limits).await
    }

    /// The verdict, the name that pins what was granted, and whether the policy also accepts that name, if that is
    /// known. It blocks.
    fn judge(&self, case: &Case, content: &Content, evidence: Evidence) -> Judged {
        let Case { policy, image, question, now, .. } = case;
        let plan = evaluate::plan(&policy.policy, image, question).of_manifest(content.digest());
        let verdict = plan.judge(&evidence, *now);
        if plan.wants_referrers(&verdict) {
            return Judged { verdict, pinned: None, pinned_accepted: Some(false), refused: Some(evidence) };
        }
        let granted = match &verdict.decision {
            Decision::Allow(grant) => grant.digest(),
            Decision::Deny(_) => None,
        };
        let Some(pinned) = granted.and_then(|digest| image.pinned(digest)) else {
            return Judged { verdict, pinned: None, pinned_accepted: Some(false), refused: None };
        };
        // A name that pins already has just been judged.
        let accepted = if pinned.policy_identity() == image.policy_identity() {
            Some(true)
        } else {
            accepts_pinned(case, &pinned, evidence)
        };
        // What is elsewhere, as where mirrors are for digests alone, was not looked at.
        let fetched = content.fetched(image);
        let is_known = |accepted: &bool| {
            !accepted || fetched.as_ref().is_some_and(|fetched| case.has_the_same_stores(fetched, &pinned))
        };
        let accepted = accepted.filter(is_known);
        Judged { verdict, pinned: Some(pinned), pinned_accepted: accepted, refused: None }
    }

    /// Turns at judging, in this order.
    fn judging(&self, asker: Asker) -> impl Iterator<Item = &Arc<Semaphore>> {
        let for_users = match asker {
            Asker::Owner => None,
            Asker::User(_) => Some(&self.judging_for_users),
        };
        for_users.into_iter().chain([&self.judging])
    }

    async fn read_policy(self: &Arc<Self>, deadline: Instant) -> Result<Arc<LoadedPolicy>, Error> {
        let engine = Arc::clone(self);
        blocking([&self.reading], move || engine.policy(), "the policy file", deadline).await
    }

    /// The image, and what to know if the name did not say which one it is.
    async fn resolve(
        self: &Arc<Self>,
        name: String,
        platform: Platform,
        deadline: Instant,
    ) -> Result<(ImageReference, Option<String>), Error> {
        let engine = Arc::clone(self);
        let look_up = move || {
            let (image, note) = engine.look_up(&name)?;
            Ok((local::identify(image, &platform)?, note))
        };
        blocking([&self.reading], look_up, "the path of the image", deadline).await
    }

    /// Reads an image name, of which the configuration may say what it means, and looks its paths up.
    fn look_up(&self, name: &str) -> Result<(ImageReference, Option<String>), Error> {
        let invalid = |error| Error::Reference { text: name.to_owned(), error };
        match ImageName::parse(name) {
            Ok(parsed) => Ok((local::resolve(&self.settings.environment, parsed)?, None)),
            // Rules N-1 to N-3; a name with a registry is not short, and wants "docker://".
            Err(reference::Error::Transport) if is_short_name(name) && Named::parse(name).is_ok() => {
                let conf = RegistriesConf::load(&self.settings.configuration.registries_conf)?;
                let named = conf.resolve_unique(name, self.settings.short_names)?;
                let note = format!("the short name \"{name}\" stands for \"{named}\"");
                let both = || invalid(reference::Error::BothTagAndDigest);
                Ok((ImageReference::docker(named).ok_or_else(both)?, Some(note)))
            }
            Err(error) => Err(invalid(error)),
        }
    }

    /// What is attached to an image and to its instance for the platform, and which of it is good. No policy is read.
    ///
    /// `timeout` is that of everything; what has not come after three quarters of it is left out, and said to be.
    pub async fn inspect(
        self: &Arc<Self>,
        name: &str,
        platform: &Platform,
        trust: &Trust,
        timeout: Duration,
        now: Timestamp,
    ) -> Result<Inspection, Error> {
        let start = Instant::now();
        if !trust.gpg_keys.is_empty() {
            check_clock(&self.settings.environment, now)?;
        }
        let (gathered_by, deadline) = (start + timeout / 4 * 3, start + timeout);
        let (image, note) = self.resolve(name.to_owned(), platform.clone(), gathered_by).await?;
        let budget = self.client.budget(Asker::Owner);
        // Whatever a disk does, this ends.
        let surveying = self.client.survey(&image, platform, &budget, gathered_by);
        let late = |_| Err(fetch::Error::TimedOut { waiting_for: "what is attached".to_owned() });
        let mut surveyed = tokio::time::timeout_at(deadline, surveying).await.unwrap_or_else(late)?;
        let mut warnings = std::mem::take(&mut surveyed.warnings);
        warnings.extend(trust.root.stale_warning(now));
        warnings.extend(note);
        if surveyed.attachments_disabled {
            warnings.push(
                "registries.d does not say \"use-sigstore-attachments: true\" for this image: what is attached counts only for \"keyless\" and \"trustedRoot...\""
                    .to_owned(),
            );
        }
        let (trust, requests) = (trust.clone(), budget.requests_made());
        let source = surveyed.source.take().filter(|source| Some(source) != image.docker_reference());
        let examination = move || {
            let failure = surveyed.failure.take();
            let mut proposals = BTreeSet::new();
            let mut manifests = Vec::new();
            let parts = [(Role::TopLevel, surveyed.top_level), (Role::Instance, surveyed.instance)];
            for (role, manifest) in parts.into_iter().filter_map(|(role, part)| Some((role, part?))) {
                let inspected = examine_all(role, manifest, &trust, now);
                for finding in inspected.stores.iter().flat_map(|store| store.findings.iter().flatten()) {
                    proposals.extend(inspect::propose(finding, &image, &trust));
                }
                manifests.push(inspected);
            }
            drop(budget);
            Ok(Inspection { source, manifests, failure, proposals, warnings, requests })
        };
        blocking([&self.judging], examination, "the examination of what was found", deadline).await
    }

    /// As [`Engine::explain`], where it holds nobody up.
    pub async fn explain_within(
        self: &Arc<Self>,
        name: String,
        timeout: Duration,
    ) -> Result<Explanation, Error> {
        let engine = Arc::clone(self);
        let explain = move || engine.explain(&name);
        blocking([&self.reading], explain, "the configuration", Instant::now() + timeout).await
    }

    /// Reads policy, registries.d, registries.conf and proxies, as each verification does.
    pub async fn check_within(self: &Arc<Self>, timeout: Duration) -> Result<Arc<LoadedPolicy>, Error> {
        let engine = Arc::clone(self);
        let check = move || {
            let policy = engine.policy()?;
            engine.client.check()?;
            Ok(policy)
        };
        blocking([&self.reading], check, "the configuration", Instant::now() + timeout).await
    }

    /// What is wrong with a policy that is not in force, or likely not what was meant, as vouchd reads it. It blocks.
    ///
    /// `with_files` says whether files that it names are opened; of more JSON values than `most` nothing is said.
    pub fn lint(&self, document: &[u8], with_files: bool, most: usize, now: Timestamp) -> Vec<lint::Finding> {
        let text = Text::read_within(document, most);
        let tree = text.tree();
        let draft = Draft::of(&text, tree.as_ref());
        let Settings { environment, configuration, .. } = &self.settings;
        let gatherer = Gatherer::new(environment.clone(), configuration.clone(), with_files, Subject::Policy);
        let around = gatherer.gather(&lint::needs(&draft));
        lint::Case::new(&draft, document, &[Target::Vouchd], &around, now).findings()
    }

    /// Which requirements apply, and where signatures would be looked for. Never touches the network.
    pub fn explain(&self, name: &str) -> Result<Explanation, Error> {
        let policy = self.policy()?;
        let (image, note) = self.look_up(name)?;
        // An image that is not there has no ID.
        let image = local::identify(image.clone(), &Platform::host()).unwrap_or(image);
        let endpoints = match image.in_registry() {
            Some(named) => self.explain_endpoints(named)?,
            None => Vec::new(),
        };
        Ok(Explanation { image, policy, endpoints, note })
    }

    fn explain_endpoints(&self, named: &Named) -> Result<Vec<ExplainedEndpoint>, Error> {
        let Locations { registries_d, registries_conf, .. } = self.client.locations()?;
        let explain = |endpoint: &Endpoint| {
            let image = &endpoint.image;
            let stores = Stores {
                lookaside: registries_d.lookaside_usable(image)?.to_string(),
                lookaside_origin: registries_d.lookaside_read_origin(image),
                attachments: registries_d.use_attachments(image),
                attachments_origin: registries_d.attachments_origin(image),
            };
            Ok(ExplainedEndpoint { endpoint: endpoint.clone(), stores })
        };
        match registries_conf.endpoints(named) {
            Ok(endpoints) => endpoints.iter().map(explain).collect(),
            // What is blocked has requirements all the same.
            Err(config::Error::RegistryBlocked { entry, .. }) => Ok(vec![explain(&Endpoint {
                image: named.clone(),
                insecure: false,
                is_mirror: false,
                origin: Some(entry.clone()),
                blocked: Some(entry),
            })?]),
            Err(error) => Err(error.into()),
        }
    }
}

/// One verification, as far as it is known before anybody is asked.
#[derive(Debug)]
struct Case {
    policy: Arc<LoadedPolicy>,
    image: ImageReference,
    question: Question,
    needs: Needs,
    keys: Arc<KeyFiles>,
    /// The ways to an image in a registry, if its manifest is needed or the caller has it.
    ways: Option<Ways>,
    principal: Principal,
    budget: Budget,
    deadline: Instant,
    now: Timestamp,
}

impl Case {
    /// The name by which the image is fetched; nothing if nobody can.
    fn fetched(&self, request: &Request) -> Option<ImageReference> {
        request.content.fetched(&self.image)
    }

    /// What is gathered, if others would gather the same; not what the caller has, and nothing outside registries.
    fn key(&self, request: &Request, generation: u64) -> Option<Key> {
        let is_common = request.reuse && !request.content.is_of_caller() && self.needs.manifest;
        let fetched = self.fetched(request).filter(|_| is_common)?;
        let named = fetched.in_registry()?;
        let places = self.ways.as_ref()?.locations.places(named)?;
        let name = format!("{}:{named}", fetched.transport());
        let class = self.principal.class();
        Some(Key::new(generation, name, places, class, &self.question, &self.needs))
    }

    /// Whether manifests and signatures of both names are looked for in the same places.
    fn has_the_same_stores(&self, image: &ImageReference, pinned: &ImageReference) -> bool {
        let (Some(image), Some(pinned)) = (image.in_registry(), pinned.in_registry()) else {
            return false;
        };
        let are_the_same = |ways: &Ways| ways.locations.are_the_same(image, pinned);
        image == pinned || self.ways.as_ref().is_some_and(are_the_same)
    }
}

/// A judgement, and what it was reached from.
struct Decided {
    judged: Judged,
    source: Option<Named>,
    warnings: Vec<String>,
    reused: bool,
}

/// Whether the policy accepts the same evidence under the name that pins it; unknown if it wants other evidence.
fn accepts_pinned(case: &Case, pinned: &ImageReference, mut evidence: Evidence) -> Option<bool> {
    let Case { policy, question, needs: gathered, keys, now, .. } = case;
    let plan = evaluate::plan(&policy.policy, pinned, question);
    let needs = plan.needs();
    if needs.signatures && !gathered.signatures || keys.add(&needs, &mut evidence).is_err() {
        return Some(false);
    }
    // A name that pins the instance leads to a manifest that is no index.
    if let Some(instance) = evidence.instance.take() {
        if pinned.pinned_digest() == Some(&instance.digest) {
            evidence.top_level = Some(instance.manifest);
        } else {
            evidence.instance = Some(instance);
        }
    }
    let verdict = plan.judge(&evidence, *now);
    let is_enough = needs.attachments == gathered.attachments && needs.time <= gathered.time;
    is_enough.then_some(matches!(verdict.decision, Decision::Allow(_)))
}

/// A manifest of the caller's choice must be in a registry, and the one that the name pins, if it does.
fn check_content(image: &ImageReference, content: &Content) -> Result<(), Error> {
    let found = match content {
        Content::Named => return Ok(()),
        Content::Digest { digest, .. } => Some(digest.clone()),
        // One without a digest is refused when it is judged.
        Content::Manifest { bytes, .. } => manifest::digest(bytes).ok(),
    };
    if image.in_registry().is_none() {
        return Err(fetch::Error::UnsupportedTransport(image.transport()).into());
    }
    match image.pinned_digest().zip(found) {
        Some((wanted, found)) if *wanted != found => {
            let (location, wanted) = (image.text().to_owned(), wanted.clone());
            Err(fetch::Error::DigestMismatch { location, wanted, found }.into())
        }
        Some(_) | None => Ok(()),
    }
}

/// What a user asks for is sought only at registries that the policy names (T-29).
fn check_guard(policy: &Policy, image: &ImageReference, needs: &Needs, asker: Asker) -> Result<(), Error> {
    match (asker, image.in_registry()) {
        (Asker::User(_), Some(named)) if needs.manifest && !policy.names_registry(image) => {
            Err(Error::NotNamed { registry: named.domain().to_owned() })
        }
        (Asker::Owner | Asker::User(_), _) => Ok(()),
    }
}

/// Keys, certificates and trusted roots that have expired must not come back to life (T-19).
fn check_clock(environment: &Environment, now: Timestamp) -> Result<(), Error> {
    let (floor, source) = config::clock_floor(environment);
    if now < floor { Err(Error::ClockImplausible { now, floor, source }) } else { Ok(()) }
}

/// Examines every signature of a manifest. It takes time.
fn examine_all(role: Role, manifest: SurveyedManifest, trust: &Trust, now: Timestamp) -> InspectedManifest {
    let SurveyedManifest { bytes, media_type, digest, stores } = manifest;
    let examine = |mut store: Store| {
        let mut findings = Vec::new();
        for item in &mut store.items {
            let signatures = std::mem::take(&mut item.signatures);
            let signed = digest.as_ref().map(|digest| Signed { manifest: &bytes, digest });
            let found = |located| Some(inspect::examine(&located, signed?, trust, now));
            findings.push(signatures.into_iter().filter_map(found).collect());
        }
        InspectedStore { store, findings }
    };
    let stores = stores.into_iter().map(examine).collect();
    InspectedManifest { role, size: bytes.len(), digest, media_type, stores }
}

/// Does what takes a thread where it holds nobody else up, in its turns, and not for longer than the deadline.
async fn blocking<'a, T: Send + 'static>(
    turns: impl IntoIterator<Item = &'a Arc<Semaphore>>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    waiting_for: &str,
    deadline: Instant,
) -> Result<T, Error> {
    let timed_out = |_| fetch::Error::TimedOut { waiting_for: waiting_for.to_owned() };
    let mut taken = Vec::new();
    for turns in turns {
        let turn = Arc::clone(turns).acquire_owned();
        taken.push(tokio::time::timeout_at(deadline, turn).await.map_err(timed_out)?);
    }
    let working = tokio::task::spawn_blocking(move || {
        let _taken = taken;
        work()
    });
    let result = tokio::time::timeout_at(deadline, working).await.map_err(timed_out)?;
    result.unwrap_or_else(|panic| Err(Error::Internal(panic.to_string())))
}

/// Most policies and paths read at once: 8, so that a disk that hangs does not take every thread.
const READING: usize = 8;

/// How often a request waits for what others gather before it gathers alone.
const FOLLOWED: usize = 8;

/// Most judgements at once: 2. Each may unpack 4 MiB at a time, beyond what the evidence takes (T-28).
const JUDGING: usize = 2;

/// Most of them for users other than root (T-26).
const JUDGING_FOR_USERS: usize = 1;

/// The present time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
