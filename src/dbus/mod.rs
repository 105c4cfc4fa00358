//! The interface `org.vouchd.Verifier1.Manager`: one definition for the server, the client and the XML.

mod caller;
mod callers;
mod client;
mod cookies;
mod dictionary;
mod error;
mod options;
mod polkit;
mod rate;
mod recent;
mod refusals;
mod served;
mod state;
mod status;
mod systemd;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;
use zbus::fdo;
use zbus::message::Header;
use zbus::names::BusName;
use zbus::object_server::SignalEmitter;
use zbus::wire::Str;
use zbus::{Connection, Variant};

use crate::config::is_short_name;
use crate::diagnostic::{Severity, escape};
use crate::digest::{Algorithm, Digest};
use crate::engine::{
    self, Answer, Content, Engine, Limits, LoadedPolicy, NoTurn, Request, Stage, Turn, Turns,
};
use crate::evaluate::evidence::LocatedSignature;
use crate::evaluate::verdict::{Decision, SubjectVerdict};
use crate::fetch::credentials::{AUTH_FILE_BYTES, Source};
use crate::fetch::{self, Asker, Budget, MANIFEST_BYTES, Principal, SIGNATURE_BYTES, descriptor};
use crate::journal::{self, Failure, PolicyLog, Recorder, SeenPolicy};
use crate::metrics::{Counters, Outcome};
use crate::reference::{self, ImageName, REFERENCE_BYTES, Transport};
use crate::report::{ExplainReport, LintReport, Linted, Report, Route};
use crate::verify::UntrustedSignature;

use caller::Caller;
use callers::Callers;
use cookies::{Cookies, Held};
use rate::Rate;
use recent::Recent;
use refusals::{Refusal, Refusals};
use status::Seen;

pub use callers::Departures;
pub use client::{ClientError, evaluate, reload};
pub use dictionary::Dictionary;
pub use error::Error;
pub use options::{Descriptor, Method, Options};
pub use polkit::Action;
pub use served::Served;
pub use state::{DaemonState, Running};
pub use status::PolicyStatus;
pub use systemd::UnitState;

/// The well-known name.
pub const NAME: &str = "org.vouchd.Verifier1";

/// The unit of the daemon.
pub const UNIT: &str = "vouchd.service";

/// The only object.
pub const PATH: &str = "/org/vouchd/Verifier1";

/// Where the system bus is; D-Bus Specification, "Well-known Message Bus Instances".
pub const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// Calls that run or wait at the same time, for polkit too: design decision 6.
const CALLS: Limits = Limits { all: 1024, users: 512, user: 64 };

/// How long an answer may take beyond its deadline before the work is thrown away; less than clients wait.
const GRACE: Duration = Duration::from_secs(3);

/// Calls that come with descriptors at the same time, at most 16 each, before it is known who makes them. Each
/// descriptor is held three times for a moment, and the unit of the daemon has 8,192 in all.
const CARRYING: usize = 48;

/// Those of them that go on, perhaps to wait for polkit.
const HANDING: Limits = Limits { all: 32, users: 16, user: 4 };

/// Questions to the bus and to systemd at the same time: of one connection the bus takes 128, replies to polkit's
/// included.
const ASKING: usize = 16;

/// Questions to polkit at the same time, which somebody may be answering (T-26).
const ASKING_POLKIT: Limits = Limits { all: 64, users: 64, user: 8 };

/// Calls whose descriptors are read at the same time (T-27).
pub const DESCRIPTORS: Limits = Limits { all: 4, users: 3, user: 2 };

/// Most callers that wait for the policy to be looked at, which everybody may ask for.
const LOOKING: usize = 32;

/// How much longer than its answer the unit of the caller is waited for.
const LATE: Duration = Duration::from_millis(100);

/// Policies of callers that are read at the same time: few, so that they never fill the memory.
const LINTING: Limits = Limits { all: 2, users: 1, user: 1 };

/// Largest policy of a caller: 4 MiB, as other configuration (design decision 6).
const LINT_BYTES: usize = 4 << 20;

/// Most findings that are told of one.
const LINT_FINDINGS: usize = 1_000;

/// Most JSON values in one: 500,000, which is more than 10,000 scopes have.
const LINT_VALUES: usize = 500_000;

/// Calls that read the configuration at the same time.
const READING: Limits = Limits { all: 8, users: 4, user: 2 };

/// How long reading the configuration, or a policy of a caller, may take.
const READING_TIME: Duration = Duration::from_secs(10);

/// What the service can check.
const FEATURES: [&str; 8] = [
    "transport:docker",
    "signedBy:gpg",
    "sigstoreSigned:key",
    "sigstoreSigned:rekor",
    "sigstoreSigned:fulcio",
    "sigstoreSigned:keyless",
    "sigstoreSigned:pki",
    "sigstoreSigned:bundle",
];

/// How old what the properties tell may be.
const RECENT: Duration = Duration::from_secs(1);

/// The object behind the interface. Clones are the same object.
#[derive(Clone, Debug)]
pub struct Verifier {
    asking: Arc<Semaphore>,
    asking_polkit: Arc<Turns>,
    callers: Callers,
    calls: Arc<Turns>,
    carrying: Arc<Semaphore>,
    counters: Arc<Counters>,
    cookies: Cookies,
    descriptors: Arc<Turns>,
    engine: Arc<Engine>,
    handing: Arc<Turns>,
    linting: Arc<Turns>,
    looking: Arc<Semaphore>,
    policies: Arc<PolicyLog>,
    rate: Arc<Rate>,
    reading: Arc<Turns>,
    recorder: Arc<Recorder>,
    refusals: Refusals,
    seen: Seen,
    status: Recent<PolicyStatus>,
}

impl Verifier {
    /// Serves what `engine` decides.
    pub fn new(engine: Arc<Engine>) -> Self {
        let turns = |limits| Arc::new(Turns::new(limits));
        Self {
            asking: Arc::new(Semaphore::new(ASKING)),
            asking_polkit: turns(ASKING_POLKIT),
            callers: Callers::default(),
            calls: turns(CALLS),
            carrying: Arc::new(Semaphore::new(CARRYING)),
            counters: Arc::default(),
            cookies: Cookies::default(),
            descriptors: turns(DESCRIPTORS),
            engine,
            handing: turns(HANDING),
            linting: turns(LINTING),
            looking: Arc::new(Semaphore::new(LOOKING)),
            policies: Arc::default(),
            rate: Arc::default(),
            reading: turns(READING),
            recorder: Arc::new(Recorder::start()),
            refusals: Refusals::default(),
            seen: Seen::new(),
            status: Recent::new(),
        }
    }

    /// What has been answered so far.
    pub fn answers(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What the bus says about callers that leave; to be followed before anybody can call.
    pub async fn departures(&self, connection: &Connection) -> zbus::Result<Departures> {
        Departures::subscribe(self.callers.clone(), self.seen.subscribe(), connection).await
    }

    /// Lets what is running come to its end, but not for longer than `patience`. Nothing new begins.
    pub async fn finish(&self, patience: Duration) {
        self.engine.gatherings().close(patience).await;
        self.recorder.flush(GRACE.min(patience)).await;
    }

    /// Looks at the policy; nothing if that takes too long.
    pub async fn policy_status(&self) -> Option<PolicyStatus> {
        self.policy_status_within(Duration::ZERO).await
    }

    /// Forgets what was read, gathered or verified; what is being judged goes on.
    pub fn forget(&self) {
        self.engine.forget();
    }

    /// Whether the configuration can be used; the digest of the policy.
    pub async fn check(&self) -> Result<String, Error> {
        let checked = self.engine.check_within(READING_TIME).await;
        let policy = checked.map_err(|error| Error::of_engine(&error))?;
        Ok(policy.file.as_ref().map(|file| file.digest.to_string()).unwrap_or_default())
    }

    async fn policy_status_within(&self, age: Duration) -> Option<PolicyStatus> {
        let (engine, policies, seen) =
            (Arc::clone(&self.engine), Arc::clone(&self.policies), self.seen.clone());
        let recorder = Arc::clone(&self.recorder);
        let look = move || {
            let at = Instant::now();
            let status = PolicyStatus::of(&engine);
            let (state, path) = (status.state, status.path.to_string_lossy().into_owned());
            let policy = SeenPolicy { state, path, digest: status.digest.clone() };
            recorder.record(move || policies.saw(at, policy));
            seen.see(&status, now_usec());
            status
        };
        self.status.get(age, look).await
    }

    /// For everybody: however many ask, and however long reading takes, the policy is read once a second.
    async fn recent_policy_status(&self) -> fdo::Result<PolicyStatus> {
        if let Some(known) = self.status.known(RECENT) {
            return Ok(known);
        }
        let limits = |_| fdo::Error::LimitsExceeded("too many wait for the policy to be read".to_owned());
        let _turn = self.looking.try_acquire().map_err(limits)?;
        let late = || fdo::Error::Timeout("the policy cannot be read in time".to_owned());
        self.policy_status_within(RECENT).await.ok_or_else(late)
    }

    /// Who asks, if not too often, and what the call takes as long as it is answered.
    async fn admit<'c>(
        &self,
        connection: &'c Connection,
        header: &'c Header<'c>,
    ) -> Result<(Caller<'c>, Admission), Error> {
        let caller = Caller::of(connection, header, &self.asking).await?;
        if let Asker::User(uid) = caller.asker
            && !self.rate.allows(uid, Instant::now())
        {
            return Err(Error::too_often());
        }
        let call = self.calls.take(caller.asker)?;
        let has_descriptors = header.unix_fds().is_some_and(|count| count > 0);
        let handing = has_descriptors.then(|| self.handing.take(caller.asker)).transpose()?;
        Ok((caller, Admission { _call: call, _handing: handing }))
    }

    /// A turn for a call with descriptors, of which nothing is known yet.
    fn carry(&self) -> Result<OwnedSemaphorePermit, Error> {
        let turn = Arc::clone(&self.carrying).try_acquire_owned();
        turn.map_err(|_| NoTurn { most: CARRYING }.into())
    }

    /// As [`Verifier::admit`], who may have this done. Nobody waits for a caller who has left.
    async fn admit_to<'c>(
        &self,
        action: Action,
        connection: &'c Connection,
        header: &'c Header<'c>,
    ) -> Result<(Caller<'c>, Admission), Error> {
        let admitted = self.admit(connection, header).await?;
        tokio::select! {
            () = self.callers.left(connection, header.sender()) => Err(Error::caller_left()),
            authorized = action.authorize(&admitted.0, &self.asking_polkit) => match authorized {
                Ok(()) => Ok(admitted),
                Err(error) => Err(self.denied(&admitted.0, error)),
            },
        }
    }

    /// What the caller may have done, who is perhaps asked for a password. No turn at gathering is held meanwhile (T-26).
    async fn shown(&self, caller: &Caller<'_>, options: &Options) -> Result<Shown, Error> {
        let turns = &self.asking_polkit;
        Action::Verify.authorize(caller, turns).await?;
        if !options.question.require_signature {
            Action::VerifyInsecure.authorize(caller, turns).await?;
        }
        if options.auth_file.is_some() {
            return Ok(Shown::AsAsked);
        }
        match options.anonymous {
            Some(true) => Ok(Shown::AsAsked),
            Some(false) => Action::UseCredentials.authorize(caller, turns).await.map(|()| Shown::AsAsked),
            None if Action::UseCredentials.is_allowed(caller, turns).await? => Ok(Shown::AsAsked),
            None => Ok(Shown::NothingOfThisHost),
        }
    }

    /// Records that somebody may not have something done.
    fn denied(&self, caller: &Caller<'_>, error: Error) -> Error {
        if let Some(code) = error.code().map(str::to_owned) {
            let (uid, message) = (caller.uid, error.message());
            self.recorder.record(move || {
                warn!(VOUCHD_CODE = code, VOUCHD_CALLER_UID = uid, "uid {uid} was refused: {message}");
            });
        }
        error
    }

    /// From the call to the report. `Ok` is a verdict, whichever.
    async fn decide(
        &self,
        (connection, header): (&Connection, &Header<'_>),
        reference: &str,
        options: Dictionary,
        asked: Asked<'_>,
    ) -> Result<Decided, Error> {
        // What the caller sent is held no longer than it takes to read it.
        let parsed = Options::parse(&options, asked.method());
        drop(options);
        let (caller, _turn) = self.admit(connection, header).await?;
        let options = parsed?;
        check_reference(reference)?;
        let held = self.hold(&caller, &options)?;
        let shown = tokio::select! {
            () = self.callers.left(connection, header.sender()) => Err(Error::caller_left()),
            () = cancelled(held.as_ref()) => Err(Error::cancelled()),
            shown = self.shown(&caller, &options) => shown.map_err(|error| self.denied(&caller, error)),
        }?;
        let stage = held.as_ref().map(|_| watch::Sender::new(Stage::Resolving));
        if let (Some(stage), Some(cookie)) = (&stage, &options.cookie) {
            let emitter = emitter(connection, header).map_err(Error::ZBus)?;
            tokio::spawn(tell_progress(emitter, cookie.clone(), stage.subscribe()));
        }
        let began = Instant::now();
        // No answer waits for it for long.
        let mut unit = JoinSet::new();
        unit.spawn(unit_of(connection.clone(), caller.pid, Arc::clone(&self.asking)));
        let answer = tokio::select! {
            () = self.callers.left(connection, header.sender()) => Err(Error::caller_left().into()),
            () = cancelled(held.as_ref()) => Err(Error::cancelled().into()),
            answer = self.judge(caller.asker, shown, reference, &options, &asked, stage) => answer,
        };
        let answer = match shown {
            Shown::AsAsked => answer,
            Shown::NothingOfThisHost => answer.map_err(Undecided::of_anonymous),
        };
        let result = answer.and_then(|answer| {
            let checked = check_resolved(reference, &asked, &answer);
            let checked = checked.and_then(|()| check_expected(&options, &answer));
            checked.map_err(|error| Undecided { error, policy: digest_of(&answer.policy) })?;
            Ok(Report::of_answer(reference, Route::Bus, &answer))
        });
        let unit = tokio::time::timeout(LATE, unit.join_next()).await.ok().flatten();
        let unit = unit.and_then(Result::ok).flatten();
        let id = self.record(&caller, unit.as_deref(), reference, &options, began, &result);
        self.look_if_changed(&result);
        self.say_verdict(connection, id, reference, &result).await;
        // What was at hand tells what others had verified (T-34).
        let told = |report: Report| match caller.asker {
            Asker::Owner => report,
            Asker::User(_) => Report { requests: 0, ..report },
        };
        result.map(|report| Decided { id, report: told(report) }).map_err(|undecided| undecided.error)
    }

    /// What an answer tells of the policy is looked into; nobody's answer waits for it.
    fn look_if_changed(&self, result: &Result<Report, Undecided>) {
        let may_differ = match result {
            Ok(report) => self.seen.differs(report.policy.as_ref().map(|policy| policy.digest.as_str())),
            Err(undecided) => undecided.error.is_configuration(),
        };
        // Those who look already will see it.
        if let (true, Ok(turn)) = (may_differ, Arc::clone(&self.looking).try_acquire_owned()) {
            let verifier = self.clone();
            tokio::spawn(async move {
                let _turn = turn;
                verifier.policy_status().await
            });
        }
    }

    /// Tells those who may hear it (T-34); that nobody does changes nothing.
    async fn say_verdict(
        &self,
        connection: &Connection,
        id: u64,
        reference: &str,
        result: &Result<Report, Undecided>,
    ) {
        let Ok(emitter) = SignalEmitter::new(connection, PATH) else { return };
        let (digest, code, policy) = match result {
            Ok(report) => (
                report.manifest_digest.as_deref(),
                report.code.as_deref(),
                report.policy.as_ref().map(|policy| policy.digest.as_str()),
            ),
            Err(Undecided { error, policy }) => (None, error.code(), policy.as_deref()),
        };
        let mut details = Dictionary::new();
        for (key, value) in [("code", code), ("policy-digest", policy)] {
            details = match value {
                Some(value) => details.with(key, Str::from(value.to_owned())),
                None => details,
            };
        }
        let verdict = match outcome(result) {
            Outcome::Cancelled => return,
            outcome @ (Outcome::AcceptedUnsigned
            | Outcome::Failed
            | Outcome::Rejected
            | Outcome::Verified) => outcome.as_str(),
        };
        let _ = Self::verdict(&emitter, id, verdict, reference, digest.unwrap_or_default(), details).await;
    }

    pub(in crate::dbus) async fn say_policy_changed(
        emitter: &SignalEmitter<'_>,
        status: &PolicyStatus,
    ) -> zbus::Result<()> {
        let details = Dictionary::new().with("path", Str::from(escape(&status.path.to_string_lossy())));
        Self::policy_changed(emitter, status.digest.as_deref().unwrap_or_default(), status.state, details)
            .await
    }

    /// Counts and records an answer, and what it shows of the policy. Returns its number.
    fn record(
        &self,
        caller: &Caller<'_>,
        unit: Option<&str>,
        reference: &str,
        options: &Options,
        began: Instant,
        result: &Result<Report, Undecided>,
    ) -> u64 {
        let outcome = outcome(result);
        let code = match result {
            Ok(report) => report.code.as_deref(),
            Err(Undecided { error, .. }) if error.is_of_caller() => None,
            Err(Undecided { error, .. }) => error.code(),
        };
        let id = self.counters.count(outcome, code);
        if matches!(outcome, Outcome::Failed | Outcome::Rejected) {
            self.refusals.add(
                caller.asker,
                Refusal {
                    time: now_usec(),
                    id,
                    verdict: outcome.as_str(),
                    reference: reference.to_owned(),
                    code: code.map(str::to_owned),
                    reason: match result {
                        Ok(report) => report.message.clone().unwrap_or_default(),
                        Err(undecided) => undecided.error.message(),
                    },
                    uid: caller.uid,
                    initiator: options.initiator.clone(),
                },
            );
        }
        let (reference, initiator) = (reference.to_owned(), options.initiator.clone());
        let (caller, unit, took) = (caller.uid, unit.map(str::to_owned), began.elapsed());
        let told = match result {
            Ok(report) => Ok(report.clone()),
            Err(Undecided { error, policy }) => {
                Err((code.map(str::to_owned), error.message(), policy.clone()))
            }
        };
        let policies = Arc::clone(&self.policies);
        self.recorder.record(move || {
            let (reference, initiator, unit) = (&*reference, initiator.as_deref(), unit.as_deref());
            let asked = journal::Asked { id, reference, initiator, caller, unit, took };
            match &told {
                Ok(report) => {
                    journal::answer(&asked, outcome, Ok(report));
                    if let Some(policy) = &report.policy {
                        let (path, digest) = (policy.path.clone(), Some(policy.digest.clone()));
                        policies.saw(began, SeenPolicy { state: "loaded", path, digest });
                    }
                }
                Err((code, message, policy)) => {
                    let failure = Failure { code: code.as_deref(), message, policy: policy.as_deref() };
                    journal::answer(&asked, outcome, Err(failure));
                }
            }
        });
        id
    }

    /// The cookie, if there is one: no other verification of the caller may have it.
    fn hold(&self, caller: &Caller<'_>, options: &Options) -> Result<Option<Held>, Error> {
        let Some(cookie) = &options.cookie else { return Ok(None) };
        let held = self.cookies.enter(caller.sender(), cookie);
        held.map(Some)
            .ok_or_else(|| Error::invalid_args("\"cookie\" belongs to another call that still runs"))
    }

    /// Runs the engine in a task of its own, so that a panic ends this request and nothing else.
    async fn judge(
        &self,
        asker: Asker,
        shown: Shown,
        reference: &str,
        options: &Options,
        asked: &Asked<'_>,
        stage: Option<watch::Sender<Stage>>,
    ) -> Result<Answer, Undecided> {
        let deadline = Instant::now() + options.timeout;
        let mut request = Request::new(options.question.clone(), self.engine.budget(asker));
        (request.stage, request.reuse) = (stage, !options.no_cache);
        if asked.has_content() || options.auth_file.is_some() {
            // Nothing is read for a call that could not go on.
            request.turn = Some(self.engine.gatherings().take(asker).map_err(Error::from)?);
        }
        let handing = HandedOver { asker, budget: request.budget.clone(), deadline };
        let supplied = self.supplied(shown, options, &handing).await?;
        request.principal = Principal { asker, supplied };
        request.content = self.content(options, asked, &handing).await?;
        let (engine, reference) = (Arc::clone(&self.engine), reference.to_owned());
        // A set, because dropping it ends its task.
        let mut task = JoinSet::new();
        task.spawn(async move {
            let left = deadline.saturating_duration_since(Instant::now());
            engine.answer(&reference, request, left, engine::now()).await
        });
        match tokio::time::timeout_at(deadline + GRACE, task.join_next()).await {
            Ok(Some(Ok(Ok(answer)))) => {
                if answer.reused {
                    self.counters.count_cache_hit();
                }
                Ok(answer)
            }
            Ok(Some(Ok(Err(undecided)))) => {
                let policy = undecided.policy.as_deref().and_then(digest_of);
                let error = Error::of_engine(&undecided.error);
                Err(Undecided { error: if asker == Asker::Owner { error } else { error.for_user() }, policy })
            }
            Ok(Some(Err(_)) | None) => Err(Error::internal("the verification broke off").into()),
            Err(_) => Err(Error::timed_out().into()),
        }
    }
}

/// Why there is no verdict, and the digest of the policy by which there would have been one, if it is known.
#[derive(Debug)]
struct Undecided {
    error: Error,
    policy: Option<String>,
}

impl From<Error> for Undecided {
    fn from(error: Error) -> Self {
        Self { error, policy: None }
    }
}

impl Undecided {
    fn of_anonymous(self) -> Self {
        Self { error: self.error.of_anonymous(), ..self }
    }
}

fn digest_of(policy: &LoadedPolicy) -> Option<String> {
    policy.file.as_ref().map(|file| file.digest.to_string())
}

/// What a call takes as long as it is answered.
struct Admission {
    _call: Turn,
    _handing: Option<Turn>,
}

/// What registries are shown, beside what the caller hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// What the options say.
    AsAsked,
    /// No credentials of this host, because the caller may not use them.
    NothingOfThisHost,
}

/// Who hands something over, who pays for it, and until when it is read.
struct HandedOver {
    asker: Asker,
    budget: Budget,
    deadline: Instant,
}

/// A verdict, and which of this process it is.
#[derive(Debug)]
struct Decided {
    id: u64,
    report: Report,
}

impl Decided {
    fn details(&self) -> Result<Dictionary, Error> {
        Ok(Dictionary::of(&self.report)?.with("verdict-id", self.id))
    }

    /// The report, if it lets the image be used.
    fn allowed(self) -> Result<Self, Error> {
        if self.report.allowed { Ok(self) } else { Err(Error::of_denial(&self.report)) }
    }
}

/// What a verification is about.
#[derive(Debug)]
enum Asked<'m> {
    Digest(Digest),
    Image,
    Manifest(zbus::wire::Fd<'m>),
}

impl Asked<'_> {
    /// Whether the caller hands over what is judged.
    fn has_content(&self) -> bool {
        match self {
            Self::Digest(_) | Self::Image => false,
            Self::Manifest(_) => true,
        }
    }

    fn method(&self) -> Method {
        match self {
            Self::Digest(_) => Method::ImageDigest,
            Self::Image => Method::Image,
            Self::Manifest(_) => Method::Manifest,
        }
    }
}

impl Verifier {
    /// The credentials that count in place of those of this host.
    async fn supplied(
        &self,
        shown: Shown,
        options: &Options,
        handing: &HandedOver,
    ) -> Result<Option<Source>, Error> {
        if options.anonymous == Some(true) || shown == Shown::NothingOfThisHost {
            return Ok(Some(Source::Anonymous));
        }
        let Some(descriptor) = &options.auth_file else { return Ok(None) };
        let (owned, asker, budget) = (descriptor.duplicate()?, handing.asker, handing.budget.clone());
        let read = move || {
            let bytes = read_paid(owned, "\"auth-file\"", AUTH_FILE_BYTES, asker, &budget)?;
            let source = Source::handed_over(&bytes);
            source.map(Some).map_err(|error| Error::invalid_args(&error.to_string()))
        };
        self.read(handing.asker, handing.deadline, read).await
    }

    /// The manifest that is asked about, with what the caller handed over.
    async fn content(
        &self,
        options: &Options,
        asked: &Asked<'_>,
        handing: &HandedOver,
    ) -> Result<Content, Error> {
        let manifest = match asked {
            Asked::Digest(digest) => {
                return Ok(Content::Digest { digest: digest.clone(), check_tag: options.check_tag });
            }
            Asked::Image => return Ok(Content::Named),
            Asked::Manifest(manifest) => Descriptor::of(manifest)?.duplicate()?,
        };
        let signatures: Option<Result<Vec<_>, _>> =
            options.signatures.as_ref().map(|all| all.iter().map(Descriptor::duplicate).collect());
        let (signatures, asker, budget) = (signatures.transpose()?, handing.asker, handing.budget.clone());
        let read = move || {
            let bytes = read_paid(manifest, "the manifest", MANIFEST_BYTES, asker, &budget)?;
            let signatures = signatures.map(|all| {
                let numbered = (1_usize..).zip(all);
                numbered.map(|(number, owned)| read_signature(owned, number, asker, &budget)).collect()
            });
            Ok(Content::Manifest { bytes, signatures: signatures.transpose()? })
        };
        self.read(handing.asker, handing.deadline, read).await
    }

    /// Reads descriptors. Only calls that have some wait for one another (T-27).
    async fn read<T: Send + 'static>(
        &self,
        asker: Asker,
        deadline: Instant,
        read: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = self.descriptors.take(asker)?;
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read()
        });
        match tokio::time::timeout_at(deadline, reading).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::internal("what was handed over could not be read")),
            Err(_) => Err(Error::timed_out()),
        }
    }
}

/// The bytes of a descriptor of at most `limit`, which the budget pays for (T-28).
fn read_paid(
    descriptor: OwnedFd,
    what: &str,
    limit: usize,
    asker: Asker,
    budget: &Budget,
) -> Result<Vec<u8>, Error> {
    let bytes = read_all(descriptor, what, limit, asker)?;
    let unpaid = |error: fetch::Error| Error::of_engine(&engine::Error::Fetch(error));
    budget.bytes(bytes.len()).map_err(unpaid)?;
    Ok(bytes)
}

fn read_all(descriptor: OwnedFd, what: &str, limit: usize, asker: Asker) -> Result<Vec<u8>, Error> {
    let bytes = descriptor::read(descriptor, limit, asker)
        .map_err(|error| Error::bad_descriptor(what, &error.to_string()))?;
    if bytes.len() > limit { Err(Error::too_large(what, limit)) } else { Ok(bytes) }
}

/// A signature as lookaside stores hold it, or a Sigstore bundle, which begins as no other does.
fn read_signature(
    descriptor: OwnedFd,
    number: usize,
    asker: Asker,
    budget: &Budget,
) -> Result<LocatedSignature, Error> {
    let what = format!("signature {number}");
    let blob = read_paid(descriptor, &what, SIGNATURE_BYTES, asker, budget)?;
    let signature = if blob.starts_with(b"{") {
        UntrustedSignature::Bundle(blob)
    } else {
        UntrustedSignature::from_blob(&blob)
            .map_err(|error| Error::invalid_args(&format!("{what} is none: {error}")))?
    };
    Ok(LocatedSignature { location: format!("{what} of the caller"), signature })
}

/// org.vouchd.Verifier1.Manager, at /org/vouchd/Verifier1 of the bus name org.vouchd.Verifier1.
#[zbus::interface(
    name = "org.vouchd.Verifier1.Manager",
    proxy(default_service = "org.vouchd.Verifier1", default_path = "/org/vouchd/Verifier1")
)]
impl Verifier {
    /// May this image be used? Gathers its manifest and signatures and judges them by the system's policy.
    ///
    /// Returns normally only if the image may be used. That the policy refuses it is the error
    /// org.vouchd.Verifier1.Error.Rejected, so a client that looks at nothing but whether the call
    /// succeeded fails closed. Every error means: do not use the image. The text of each begins with
    /// a stable name in brackets, described in vouchd-codes(7). The deadline of the service decides,
    /// so clients should wait for the reply without a limit of their own; what they asked for is thrown
    /// away when they leave the bus.
    ///
    /// Users other than root ask by leave of polkit, which must allow org.vouchd.Verifier1.verify, and without
    /// require-signature also .verify-insecure, else the error is org.freedesktop.DBus.Error.AccessDenied, or
    /// InteractiveAuthorizationRequired if the call does not allow interaction. For them only registries are asked
    /// that a scope of the policy names, none at a link-local address, and no credentials of this host are used
    /// unless polkit allows .use-credentials. What they hand over must be memfds sealed against writing, growing and
    /// shrinking. Each may make 100 calls at once and 10 a second, and have 8 verifications running.
    ///
    /// reference is a name of containers-transports(5), such as "docker://quay.io/os/img:stable", of at
    /// most 1 KiB. A name that leads to a local file is refused: .Error.UnsupportedTransport.
    ///
    /// options, at most 32; one that is not known, or of another type, is
    /// org.freedesktop.DBus.Error.InvalidArgs, and so is a call of more than 4 KiB:
    ///
    ///   require-signature b  refuse with .Error.SignatureRequired unless a requirement that verifies
    ///     signatures was satisfied, so that insecureAcceptAnything is not enough; default true
    ///   subject s  which manifest of a multi-platform image must satisfy the policy: "either" (default),
    ///     "instance" (what podman asks), "top-level" or "both"
    ///   platform (sss)  operating system, architecture, variant; default: those of the host
    ///   expected-digest s  fail with .Error.DigestMismatch unless this is the digest of a manifest that was
    ///     itself accepted: the index, or the instance; to pull, use pinned_reference all the same
    ///   timeout-usec t  deadline in microseconds; at most 10 minutes; 0 (default) means 90 seconds
    ///   initiator s  who asks, for the journal; at most 256 bytes
    ///   cookie s  a name for this call, for CancelVerification: 1 to 64 bytes, and of no other call of
    ///     the same connection that still runs
    ///   auth-file h  a containers-auth.json(5) of the caller's own, in a regular file or memfd of at most 4 MiB;
    ///     it is read once, and no other credentials are used. "credHelpers" and "credsStore" are not allowed
    ///   no-cache b  use nothing that was fetched or verified before, or is being fetched for others. Without it, what
    ///     an image was allowed with is kept for five minutes by digest, for callers with the same credentials, and
    ///     judged anew each time; tags are always resolved anew
    ///   anonymous b  show the registry no credentials, which are also the client certificates of the host. What
    ///     stands in the URL of a lookaside store in registries.d is used all the same, for root. If false, a user
    ///     who may not use those of the host is refused, and does not ask without any
    ///
    /// manifest_digest is the digest of a manifest that was itself accepted: the index, or the instance
    /// if only that was. pinned_reference has this digest in place of a tag: pull exactly that. Both
    /// are empty where the transport has none. details has the keys of the report of EvaluateImage.
    #[zbus(out_args("manifest_digest", "pinned_reference", "details"), proxy(allow_interactive_auth))]
    pub async fn verify_image(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        options: Dictionary,
    ) -> Result<(String, String, Dictionary), Error> {
        let decided =
            self.decide((connection, &header), reference, options, Asked::Image).await?.allowed()?;
        let details = decided.details()?;
        let text = |value: Option<String>| value.unwrap_or_default();
        Ok((text(decided.report.manifest_digest), text(decided.report.pinned_reference), details))
    }

    /// VerifyImage for the manifest with a certain digest: that is fetched and judged, while the scope, and the
    /// names that signatures must have, are those of REFERENCE, which may have a tag.
    ///
    /// Says nothing about where the tag leads, unless the option check-tag b is true: then the manifest is
    /// fetched by REFERENCE, and if it has another digest the error is .Error.DigestMismatch. Only images in
    /// registries have digests to fetch by; others are .Error.UnsupportedTransport.
    ///
    /// digest is "sha256:" and 64 hexadecimal digits. If it is that of an index, "subject" says whether the
    /// index or the instance must be accepted, as ever: with "either" the index may have been accepted for its
    /// instance alone, so use what details call manifest-digest or pinned-reference, not digest.
    ///
    /// Options and errors are those of VerifyImage, and details has the keys of the report of EvaluateImage.
    #[zbus(out_args("details"), proxy(allow_interactive_auth))]
    pub async fn verify_image_digest(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        digest: &str,
        options: Dictionary,
    ) -> Result<Dictionary, Error> {
        let digest = Digest::parse(digest)
            .filter(|digest| digest.algorithm() == Algorithm::Sha256)
            .ok_or_else(|| Error::invalid_args("the digest must be \"sha256:\" and 64 hexadecimal digits"))?;
        let asked = Asked::Digest(digest);
        self.decide((connection, &header), reference, options, asked).await?.allowed()?.details()
    }

    /// VerifyImage for a manifest that the caller has: only its signatures are looked for.
    ///
    /// manifest is a regular file or memfd of at most 4 MiB, read from its beginning wherever its offset
    /// stands; what cannot be read is .Error.BadFileDescriptor. What follows is about the bytes that were read,
    /// which have the digest manifest_digest: compare it before you use others. Nothing is said about where
    /// REFERENCE leads. If REFERENCE has a digest, it must be that one: .Error.DigestMismatch.
    ///
    /// The scope, and the names that signatures must have, are those of REFERENCE, which must be an image in a
    /// registry. Signatures are looked for where the image belongs, not on mirrors. Of an index only the index
    /// itself is judged; if the option subject is "instance" or "both", it is refused.
    ///
    /// Options are those of VerifyImage, without platform and expected-digest, and with:
    ///
    ///   signatures ah  the only signatures that count, at most 16, each of at most 4 MiB: as they are in lookaside
    ///     stores, or Sigstore bundles. Nobody is asked anything then
    ///
    /// details has the keys of the report of EvaluateImage; resolved-digest is that of the bytes, and what others
    /// would accept is not known, nor whether they would accept the pinned reference.
    #[zbus(out_args("manifest_digest", "details"), proxy(allow_interactive_auth))]
    pub async fn verify_manifest(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        manifest: zbus::wire::Fd<'_>,
        options: Dictionary,
    ) -> Result<(String, Dictionary), Error> {
        let asked = Asked::Manifest(manifest);
        let decided = self.decide((connection, &header), reference, options, asked).await?.allowed()?;
        let details = decided.details()?;
        Ok((decided.report.manifest_digest.unwrap_or_default(), details))
    }

    /// VerifyImage for people and tests: that the policy refuses the image is not an error but a report
    /// in which "allowed" is false. Never let an image pass because this call succeeded.
    ///
    /// Arguments and errors are those of VerifyImage, except Rejected, SignatureRequired and
    /// UnsupportedRequirement. Keys of report; a key without a value is absent, and clients ignore those
    /// that they do not know:
    ///
    ///   schema t  1
    ///   reference s  as it was asked for
    ///   route s  "bus"
    ///   allowed b  whether the image may be used
    ///   decided b  true
    ///   authenticated b  whether a signature was required and verified
    ///   code s, message s, help s  if it is refused: a name of vouchd-codes(7), why, and what can be done
    ///   manifest-digest s  digest of a manifest that was itself accepted
    ///   instance-digest s  digest of the instance for the platform, if that was judged
    ///   resolved-digest s  digest of what the reference names, judged or not
    ///   pinned-reference s  the reference with manifest-digest in place of a tag
    ///   source s  where the image came from, if that is not where its name says: a mirror
    ///   would-accept a{sv}  podman b, skopeo-copy b, skopeo-image-proxy b: what they would say under the
    ///     same policy
    ///   pinned-reference-accepted b  whether the policy accepts that too; if not, or if it is absent because
    ///     registries.conf leads digests to another place, pull by tag and compare the digest
    ///   policy a{sv}  path s, digest s
    ///   scope a{sv}  transport s, name s, file s, line t, column t
    ///   requirements aa{sv}  subject s, digest s, type s, satisfied b, code s, message s, and
    ///     signatures aa{sv}: kind s, location s, accepted b, code s, message s, time s,
    ///     reference-bound b (whether the name is signed, too), and signer a{sv}: kind s, id s,
    ///     issuer s, subject s
    ///   problems aa{sv}  empty, because a policy that is not valid is an error
    ///   trusted-roots aa{sv}  the roots that certificates were judged with: source s, current-until s, stale b
    ///   warnings as  things to know that do not change the answer
    ///   requests t  the number of requests that were made; to users other than root always 0
    ///   verdict-id t  the number of the answer since the service started, as in the signal Verdict
    #[zbus(out_args("report"), proxy(allow_interactive_auth))]
    pub async fn evaluate_image(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        options: Dictionary,
    ) -> Result<Dictionary, Error> {
        self.decide((connection, &header), reference, options, Asked::Image).await?.details()
    }

    /// What the policy requires of an image, and where it and its signatures would be looked for. Asks nobody.
    ///
    /// reference is one of VerifyImage. There are no options yet: each is InvalidArgs. The errors are those of
    /// VerifyImage about names, policy and configuration. Keys of explanation; a key without a value is absent:
    ///
    ///   schema t  1
    ///   reference s, normalized-reference s  as it was asked for, and as it is compared with scopes
    ///   policy-path s, policy-digest s
    ///   transport s, scope s, line t, column t  the scope that applies; transport is absent for "default"
    ///   scope-chain as  the scopes that were tried, most specific first
    ///   outcome s  "accept-anything", "reject", "signature-required" or "unsupported"
    ///   requirements aa{sv}  type s, description s, signed-identity s
    ///   endpoints aa{sv}  in the order of the attempts: reference s, mirror b, insecure b, blocked s, lookaside s,
    ///     lookaside-origin s, use-sigstore-attachments b, attachments-origin s
    ///   warnings as
    #[zbus(out_args("explanation"))]
    pub async fn explain_image(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        options: Dictionary,
    ) -> Result<Dictionary, Error> {
        no_options("ExplainImage", options)?;
        let (caller, _call) = self.admit_to(Action::Explain, connection, &header).await?;
        check_reference(reference)?;
        let _turn = self.reading.take(caller.asker)?;
        let explanation = self.engine.explain_within(reference.to_owned(), READING_TIME).await;
        let explanation = explanation.map_err(|error| Error::of_engine(&error))?;
        Dictionary::of(&ExplainReport::of(reference, &explanation))
    }

    /// What is wrong with a policy.json that the caller has, or likely not what was meant; nothing of it is used.
    ///
    /// policy is a regular file or memfd of at most 4 MiB, read from its beginning; what cannot be read is
    /// .Error.BadFileDescriptor, and what is larger .Error.ManifestTooLarge.
    ///
    /// options:
    ///
    ///   check-paths b  open the files that the policy names, as the user of the service; default false. Users other
    ///     than root need the leave of polkit for org.vouchd.Verifier1.inspect-paths
    ///
    /// ok is whether no finding is an error, so that the policy could be used. findings are those of "vouchd
    /// policy-lint", at most 1,000, errors first if there are more. Keys of each: severity s ("error", "warning" or
    /// "note"), code s (a name of vouchd-codes(7)), message s, file s ("policy", or another file), line t, column t,
    /// end-line t, end-column t (from 1; absent for a file as a whole), help s (absent if there is none), related a{sv}
    /// (another place: file, line, column, end-line, end-column and message; absent if there is none).
    #[zbus(out_args("ok", "findings"), proxy(allow_interactive_auth))]
    pub async fn lint_policy(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        policy: zbus::wire::Fd<'_>,
        options: Dictionary,
    ) -> Result<(bool, Vec<Dictionary>), Error> {
        let with_files = check_paths(&options)?;
        drop(options);
        let action = if with_files { Action::InspectPaths } else { Action::Explain };
        let (caller, _call) = self.admit_to(action, connection, &header).await?;
        let asker = caller.asker;
        let (turn, policy) = (self.linting.take(asker)?, Descriptor::of(&policy)?.duplicate()?);
        let engine = Arc::clone(&self.engine);
        let lint = move || {
            let _turn = turn;
            let bytes = read_all(policy, "the policy", LINT_BYTES, asker)?;
            let mut findings = engine.lint(&bytes, with_files, LINT_VALUES, engine::now());
            if findings.len() > LINT_FINDINGS {
                findings.sort_by_key(|finding| finding.severity != Severity::Error);
                findings.truncate(LINT_FINDINGS);
            }
            let report = LintReport::of(&[Linted { name: "policy".to_owned(), bytes, findings }], Vec::new());
            let findings: Result<_, _> = report.findings.iter().map(Dictionary::of).collect();
            Ok((report.errors == 0, findings?))
        };
        self.read(asker, Instant::now() + READING_TIME, lint).await
    }

    /// Reads policy, registries.d, registries.conf and vouchd.toml now, and says whether they can be used.
    ///
    /// There is no need for it: every request reads them anew. What was gathered or verified before is forgotten. An error says that every image is refused, as
    /// VerifyImage would, until the files are mended. policy_digest is as in the property PolicyDigest. Users other
    /// than root need the leave of polkit for org.vouchd.Verifier1.reload.
    #[zbus(out_args("policy_digest"), proxy(allow_interactive_auth))]
    pub async fn reload(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let (caller, _call) = self.admit_to(Action::Reload, connection, &header).await?;
        let _turn = self.reading.take(caller.asker)?;
        self.forget();
        let checked = self.check().await;
        // Whatever was found, the properties and PolicyChanged tell it.
        self.policy_status().await;
        checked
    }

    /// Ends the verification that the caller named with the option cookie: that call fails with
    /// org.vouchd.Verifier1.Error.Cancelled.
    ///
    /// If no verification of the same connection has this cookie, because it never had or has ended, the error
    /// is .Error.UnknownCookie; those of others are not known here. Verifications of a caller that leaves the
    /// bus are cancelled without this.
    pub async fn cancel_verification(
        &self,
        #[zbus(header)] header: Header<'_>,
        cookie: &str,
    ) -> Result<(), Error> {
        let sender = header.sender().map(|name| name.as_str()).unwrap_or_default();
        if self.cookies.cancel(sender, cookie) { Ok(()) } else { Err(Error::unknown_cookie()) }
    }

    /// The last 16 answers to root that were not yes, and the last 16 to others, the newest last. Only root may ask,
    /// because they name images.
    ///
    /// Keys of each: time-usec t (since 1970), verdict-id t, verdict s ("rejected" or "failed"), reference s, code s (a
    /// name of vouchd-codes(7), absent if there is none), message s, caller-uid u, initiator s (absent if the caller gave
    /// none).
    #[zbus(out_args("refusals"))]
    pub async fn last_refusals(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<Dictionary>, Error> {
        let (caller, _call) = self.admit(connection, &header).await?;
        match caller.asker {
            Asker::Owner => Ok(self.refusals.to_dictionaries()),
            Asker::User(_) => Err(Error::access_denied("only root may see what was refused", "ask as root")),
        }
    }

    /// The version of the service.
    #[zbus(property(emits_changed_signal = "const"))]
    pub fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// What the service can check, such as "transport:docker", "signedBy:gpg" or "sigstoreSigned:keyless".
    #[zbus(property(emits_changed_signal = "const"))]
    pub fn features(&self) -> Vec<String> {
        FEATURES.iter().map(|feature| (*feature).to_owned()).collect()
    }

    /// The policy file; empty if there is none. As PolicyState, at most a second old.
    #[zbus(property(emits_changed_signal = "false"))]
    pub async fn policy_path(&self) -> fdo::Result<String> {
        Ok(escape(&self.recent_policy_status().await?.path.to_string_lossy()))
    }

    /// "sha256:" and the SHA-256 of the policy file, as policy-digest in reports; empty unless it is "loaded".
    #[zbus(property(emits_changed_signal = "false"))]
    pub async fn policy_digest(&self) -> fdo::Result<String> {
        Ok(self.recent_policy_status().await?.digest.unwrap_or_default())
    }

    /// Whether that file can be used: "loaded", "missing" or "invalid". Unless it is "loaded", every image
    /// is refused. It is read anew for every request, so there is nothing to reload.
    #[zbus(property(emits_changed_signal = "false"))]
    pub async fn policy_state(&self) -> fdo::Result<String> {
        Ok(self.recent_policy_status().await?.state.to_owned())
    }

    /// Why it cannot be used: a name of vouchd-codes(7) in brackets and the first place, without what stands
    /// there. Empty if it can. Reload says more.
    #[zbus(property(emits_changed_signal = "false"))]
    pub async fn policy_error(&self) -> fdo::Result<String> {
        Ok(self.recent_policy_status().await?.error.unwrap_or_default())
    }

    /// Whether some scope of the policy, "default" or another, accepts images without any signature.
    #[zbus(property(emits_changed_signal = "false"))]
    pub async fn policy_accepts_unsigned(&self) -> fdo::Result<bool> {
        Ok(self.recent_policy_status().await?.accepts_unsigned)
    }

    /// Since when the policy has been as it is, in microseconds since 1970: when the service first saw it so.
    #[zbus(property(emits_changed_signal = "false"), name = "PolicyLoadedUSec")]
    pub async fn policy_loaded_usec(&self) -> fdo::Result<u64> {
        self.recent_policy_status().await?;
        Ok(self.seen.since())
    }

    /// How many verifications run at the moment; at most 32.
    #[zbus(property(emits_changed_signal = "false"))]
    pub fn active_verifications(&self) -> u32 {
        u32::try_from(self.engine.gatherings().taken()).unwrap_or(u32::MAX)
    }

    /// How many answers there have been since the service started: verified, accepted-unsigned, rejected,
    /// failed (nothing could be decided) and cancelled (by the caller, or because it left); and cache-hits, those for
    /// which nobody was asked.
    #[zbus(property(emits_changed_signal = "false"))]
    pub fn counters(&self) -> HashMap<String, u64> {
        let outcomes = self.counters.outcomes().map(|(outcome, count)| (outcome.as_str(), count));
        let all = outcomes.into_iter().chain([("cache-hits", self.counters.cache_hits())]);
        all.map(|(name, count)| (name.to_owned(), count)).collect()
    }

    /// The policy is not as it was. To everybody; it names no image.
    ///
    /// It is sent when the service notices, which is when somebody asks it anything that depends on the policy, or
    /// to reload. policy_digest and state are as the properties; details has path s.
    #[zbus(signal)]
    async fn policy_changed(
        emitter: &SignalEmitter<'_>,
        policy_digest: &str,
        state: &str,
        details: Dictionary,
    ) -> zbus::Result<()>;

    /// A verification has come to its end. The rules of the bus let only root receive it, because it names an image.
    ///
    /// verdict_id is what details call verdict-id: a number of this process. verdict is "verified",
    /// "accepted-unsigned", "rejected" or "failed"; manifest_digest is empty unless the image may be used. details
    /// has code s, unless it may, and policy-digest s, if there is a verdict.
    #[zbus(signal)]
    async fn verdict(
        emitter: &SignalEmitter<'_>,
        verdict_id: u64,
        verdict: &str,
        reference: &str,
        manifest_digest: &str,
        details: Dictionary,
    ) -> zbus::Result<()>;

    /// How far a verification is; only to the caller, if it gave the option cookie, and perhaps after its end.
    ///
    /// stage is "resolving" (the name and the policy), "manifest" (with the signatures that are stored for it),
    /// "signatures" (no more than those, or more of them) or "evaluating". Stages that are short are left out, and
    /// one may come twice. details is empty.
    #[zbus(signal)]
    async fn progress(
        emitter: &SignalEmitter<'_>,
        cookie: &str,
        stage: &str,
        details: Dictionary,
    ) -> zbus::Result<()>;
}

/// For the caller alone.
fn emitter(connection: &Connection, header: &Header<'_>) -> zbus::Result<SignalEmitter<'static>> {
    let emitter = SignalEmitter::new(connection, PATH)?;
    Ok(match header.sender() {
        Some(sender) => emitter.set_destination(BusName::Unique(sender.to_owned())).into_owned(),
        None => emitter.into_owned(),
    })
}

/// In a task of its own, because a message that is half sent must not be given up.
async fn tell_progress(emitter: SignalEmitter<'static>, cookie: String, mut stages: watch::Receiver<Stage>) {
    while stages.changed().await.is_ok() {
        let stage = match *stages.borrow_and_update() {
            Stage::Evaluating => "evaluating",
            Stage::Manifest => "manifest",
            Stage::Resolving => "resolving",
            Stage::Signatures => "signatures",
        };
        if Verifier::progress(&emitter, &cookie, stage, Dictionary::new()).await.is_err() {
            return;
        }
    }
}

fn outcome(result: &Result<Report, Undecided>) -> Outcome {
    match result {
        Ok(report) => journal::outcome(report),
        Err(Undecided { error, .. }) if error.is_of_caller() => Outcome::Cancelled,
        Err(_) => Outcome::Failed,
    }
}

fn no_options(method: &str, options: Dictionary) -> Result<(), Error> {
    match options.iter().next() {
        Some((key, _)) => Err(Error::invalid_args(&format!("option {key:?} is not one of {method}"))),
        None => Ok(()),
    }
}

/// The only option of LintPolicy.
fn check_paths(options: &Dictionary) -> Result<bool, Error> {
    match options.iter().collect::<Vec<_>>().as_slice() {
        [] => Ok(false),
        [("check-paths", Variant::Bool(check))] => Ok(*check),
        [("check-paths", _)] => Err(Error::invalid_args("option \"check-paths\" must be of type b")),
        [(key, _), ..] => Err(Error::invalid_args(&format!("option {key:?} is not one of LintPolicy"))),
    }
}

/// Microseconds since 1970.
fn now_usec() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The unit of systemd that a process belongs to, if it is known.
async fn unit_of(connection: Connection, pid: Option<u32>, asking: Arc<Semaphore>) -> Option<String> {
    let _turn = asking.acquire().await.ok()?;
    match pid {
        Some(pid) => systemd::unit_of(&connection, pid).await,
        None => None,
    }
}

async fn cancelled(held: Option<&Held>) {
    match held {
        Some(held) => held.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Only images that the daemon sees as the caller does; no path is touched to find out.
///
/// specs/dbus-systemd.md, section 4, "Path transports".
fn check_reference(reference: &str) -> Result<(), Error> {
    if reference.len() > REFERENCE_BYTES {
        return Err(Error::invalid_args("the reference is longer than 1 KiB"));
    }
    let parsed = ImageName::parse(reference);
    // What an alias makes of it, if there is one, is an image in a registry (T-22).
    if matches!(parsed, Err(reference::Error::Transport)) && is_short_name(reference) {
        return Ok(());
    }
    let name = parsed
        .map_err(|error| Error::of_engine(&engine::Error::Reference { text: reference.to_owned(), error }))?;
    match name.transport() {
        Transport::Atomic | Transport::Docker | Transport::DockerDaemon => Ok(()),
        transport @ (Transport::ContainersStorage
        | Transport::Dir
        | Transport::DockerArchive
        | Transport::Oci
        | Transport::OciArchive
        | Transport::Ostree
        | Transport::Sif
        | Transport::Tarball) => Err(Error::local_transport(transport)),
    }
}

/// What was judged must be what the digest names, whether it is allowed or not.
fn check_resolved(reference: &str, asked: &Asked<'_>, answer: &Answer) -> Result<(), Error> {
    let Asked::Digest(wanted) = asked else { return Ok(()) };
    match (&answer.verdict.resolved_digest, &answer.verdict.decision) {
        (Some(found), _) if found != wanted => Err(Error::moved(reference, wanted, found)),
        (None, Decision::Allow(_)) => Err(Error::internal("an image was allowed without its manifest")),
        (None, Decision::Deny(_)) | (Some(_), _) => Ok(()),
    }
}

/// What is allowed must be what the caller expects, if it expects anything: a manifest that was itself accepted.
///
/// org.vouchd.Verifier1.Manager.VerifyImage, `expected-digest`; T-11.
fn check_expected(options: &Options, answer: &Answer) -> Result<(), Error> {
    let Decision::Allow(grant) = &answer.verdict.decision else { return Ok(()) };
    let Some(expected) = &options.expected_digest else { return Ok(()) };
    // Where signatures were verified, what was accepted without any does not count.
    let counts = |subject: &&SubjectVerdict| {
        subject.is_accepted() && (subject.is_authenticated() || !answer.verdict.authenticated)
    };
    if answer.verdict.subjects.iter().filter(counts).any(|subject| subject.digest.as_ref() == Some(expected))
    {
        return Ok(());
    }
    Err(Error::unexpected_digest(expected, grant.digest()))
}
