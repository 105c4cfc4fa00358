//! The interface `org.vouchd.Verifier1.Manager`: one definition for the server, the client and the XML.

mod callers;
mod client;
mod cookies;
mod dictionary;
mod error;
mod options;
mod recent;
mod state;
mod systemd;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;
use zbus::Connection;
use zbus::fdo::{self, ConnectionCredentials, DBusProxy};
use zbus::message::{Flags, Header};
use zbus::names::BusName;
use zbus::proxy::CacheProperties;

use crate::config::is_short_name;
use crate::diagnostic::{Code, escape};
use crate::digest::{Algorithm, Digest};
use crate::engine::{self, Answer, Content, Engine, Request};
use crate::evaluate::evidence::LocatedSignature;
use crate::evaluate::verdict::{Decision, SubjectVerdict};
use crate::fetch::credentials::Source;
use crate::fetch::{self, Budget, MANIFEST_BYTES, SIGNATURE_BYTES, descriptor};
use crate::journal::{self, Failure, PolicyLog, SeenPolicy};
use crate::metrics::{Counters, Outcome};
use crate::reference::{self, ImageName, REFERENCE_BYTES, Transport};
use crate::report::{Report, Route};
use crate::verify::UntrustedSignature;

use callers::Callers;
use cookies::{Cookies, Held};
use recent::Recent;

pub use callers::Departures;
pub use client::{ClientError, evaluate};
pub use dictionary::Dictionary;
pub use error::Error;
pub use options::{Descriptor, Method, Options};
pub use state::{DaemonState, Running};
pub use systemd::UnitState;

/// The well-known name.
pub const NAME: &str = "org.vouchd.Verifier1";

/// The unit of the daemon.
pub const UNIT: &str = "vouchd.service";

/// The only object.
pub const PATH: &str = "/org/vouchd/Verifier1";

/// Where the system bus is; D-Bus Specification, "Well-known Message Bus Instances".
pub const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// Most gatherings at the same time: 32, design decision 6.
pub const GATHERINGS: usize = 32;

/// How long an answer may take beyond its deadline before the work is thrown away; less than clients wait.
const GRACE: Duration = Duration::from_secs(3);

/// Most descriptors read at the same time: 4 (T-27).
pub const DESCRIPTORS: usize = 4;

/// Most callers that wait for the policy to be looked at, which everybody may ask for.
const LOOKING: usize = 32;

/// How much longer than its answer the unit of the caller is waited for.
const LATE: Duration = Duration::from_millis(100);

/// How old what the properties tell may be.
const RECENT: Duration = Duration::from_secs(1);

/// The object behind the interface. Clones are the same object.
#[derive(Clone, Debug)]
pub struct Verifier {
    callers: Callers,
    counters: Arc<Counters>,
    cookies: Cookies,
    descriptors: Arc<Semaphore>,
    engine: Arc<Engine>,
    gatherings: Arc<Semaphore>,
    looking: Arc<Semaphore>,
    policies: Arc<PolicyLog>,
    status: Recent<PolicyStatus>,
}

/// The policy file as it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// `loaded`, `missing` or `invalid`.
    pub state: &'static str,
    /// The file; empty if there is none.
    pub path: PathBuf,
    /// SHA-256 of its text, if it can be used.
    pub digest: Option<String>,
}

impl PolicyStatus {
    fn of(engine: &Engine) -> Self {
        match engine.policy() {
            Ok(policy) => {
                let file = policy.file.as_ref().map(|file| (file.path.clone(), file.digest.to_string()));
                let (path, digest) = file.unzip();
                Self { state: "loaded", path: path.unwrap_or_default(), digest }
            }
            Err(error) => {
                let path = error.policy_path().map(Path::to_path_buf).unwrap_or_default();
                Self { state: error.policy_state(), path, digest: None }
            }
        }
    }
}

impl Verifier {
    /// Serves what `engine` decides.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self {
            callers: Callers::default(),
            counters: Arc::default(),
            cookies: Cookies::default(),
            descriptors: Arc::new(Semaphore::new(DESCRIPTORS)),
            engine,
            gatherings: Arc::new(Semaphore::new(GATHERINGS)),
            looking: Arc::new(Semaphore::new(LOOKING)),
            policies: Arc::default(),
            status: Recent::new(),
        }
    }

    /// What has been answered so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What the bus says about callers that leave; to be followed before anybody can call.
    pub async fn departures(&self, connection: &Connection) -> zbus::Result<Departures> {
        Departures::subscribe(self.callers.clone(), connection).await
    }

    /// Lets what is running come to its end, but not for longer than `patience`. Nothing new begins.
    pub async fn finish(&self, patience: Duration) {
        let all = u32::try_from(GATHERINGS).unwrap_or(u32::MAX);
        if let Ok(Ok(permits)) = tokio::time::timeout(patience, self.gatherings.acquire_many(all)).await {
            permits.forget();
        }
        self.gatherings.close();
    }

    /// Looks at the policy; nothing if that takes too long.
    pub async fn policy_status(&self) -> Option<PolicyStatus> {
        self.policy_status_within(Duration::ZERO).await
    }

    async fn policy_status_within(&self, age: Duration) -> Option<PolicyStatus> {
        let (engine, policies) = (Arc::clone(&self.engine), Arc::clone(&self.policies));
        let look = move || {
            let at = Instant::now();
            let status = PolicyStatus::of(&engine);
            let PolicyStatus { state, path, digest } = status.clone();
            policies.saw(at, SeenPolicy { state, path: path.to_string_lossy().into_owned(), digest });
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

    /// Who asks, if that may be, and waits for an answer.
    async fn admit(&self, connection: &Connection, header: &Header<'_>) -> Result<Caller, Error> {
        if header.primary().flags().contains(Flags::NO_REPLY_EXPECTED) {
            return Err(Error::invalid_args("nothing is done for a caller that expects no reply"));
        }
        caller(connection, header).await
    }

    /// From the call to the report. `Ok` is a verdict, whichever.
    async fn decide(
        &self,
        (connection, header): (&Connection, &Header<'_>),
        reference: &str,
        options: &Dictionary,
        asked: Asked,
    ) -> Result<Report, Error> {
        let caller = self.admit(connection, header).await?;
        let options = Options::parse(options, asked.method())?;
        check_reference(reference)?;
        let permit = Arc::clone(&self.gatherings)
            .try_acquire_owned()
            .map_err(|_| Error::too_many_requests(GATHERINGS))?;
        let held = self.hold(header, &options)?;
        let began = Instant::now();
        // No answer waits for it for long.
        let mut unit = JoinSet::new();
        unit.spawn(unit_of(connection.clone(), caller.pid));
        let answer = tokio::select! {
            () = self.callers.left(connection, header.sender()) => Err(Error::caller_left()),
            () = cancelled(held.as_ref()) => Err(Error::cancelled()),
            answer = self.judge(permit, reference, &options, &asked) => answer,
        };
        let result = answer.and_then(|answer| {
            check_resolved(reference, &asked, &answer)?;
            check_expected(&options, &answer)?;
            Ok(Report::of_answer(reference, Route::Bus, &answer))
        });
        let unit = tokio::time::timeout(LATE, unit.join_next()).await.ok().flatten();
        let unit = unit.and_then(Result::ok).flatten();
        self.record(&caller, unit.as_deref(), reference, &options, began, &result).await;
        result
    }

    /// Counts and records an answer, and what it shows of the policy.
    async fn record(
        &self,
        caller: &Caller,
        unit: Option<&str>,
        reference: &str,
        options: &Options,
        began: Instant,
        result: &Result<Report, Error>,
    ) {
        let (outcome, code) = match result {
            Ok(report) => (journal::outcome(report), report.code.as_deref()),
            Err(Error::ZBus(_)) => (Outcome::Cancelled, None),
            Err(error) => (Outcome::Failed, error.code()),
        };
        let asked = journal::Asked {
            id: self.counters.count(outcome, code),
            reference,
            initiator: options.initiator.as_deref(),
            caller: caller.uid,
            unit,
            took: began.elapsed(),
        };
        match result {
            Ok(report) => {
                journal::answer(&asked, outcome, Ok(report));
                if let Some(policy) = &report.policy {
                    let (path, digest) = (policy.path.clone(), Some(policy.digest.clone()));
                    self.policies.saw(began, SeenPolicy { state: "loaded", path, digest });
                }
            }
            Err(error) => {
                let message = error.message();
                journal::answer(&asked, outcome, Err(Failure { code, message: &message }));
                if error.is_configuration() {
                    self.policy_status().await;
                }
            }
        }
    }

    /// The cookie, if there is one: no other verification of the caller may have it.
    fn hold(&self, header: &Header<'_>, options: &Options) -> Result<Option<Held>, Error> {
        let Some(cookie) = &options.cookie else { return Ok(None) };
        let held = self.cookies.enter(sender(header), cookie);
        held.map(Some)
            .ok_or_else(|| Error::invalid_args("\"cookie\" belongs to another call that still runs"))
    }

    /// Runs the engine in a task of its own, so that a panic ends this request and nothing else.
    async fn judge(
        &self,
        permit: OwnedSemaphorePermit,
        reference: &str,
        options: &Options,
        asked: &Asked,
    ) -> Result<Answer, Error> {
        let timeout = options.timeout;
        let mut request = Request::new(options.question.clone(), self.engine.budget());
        request.supplied = self.supplied(options).await?;
        request.content = self.content(options, asked, &request.budget).await?;
        let (engine, reference) = (Arc::clone(&self.engine), reference.to_owned());
        // A set, because dropping it ends its task.
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _permit = permit;
            engine.answer(&reference, request, timeout, engine::now()).await
        });
        match tokio::time::timeout(timeout.saturating_add(GRACE), task.join_next()).await {
            Ok(Some(Ok(answer))) => answer.map_err(|undecided| Error::of_engine(&undecided.error)),
            Ok(Some(Err(_)) | None) => Err(Error::internal("the verification broke off")),
            Err(_) => Err(Error::timed_out()),
        }
    }
}

/// What a verification is about.
#[derive(Debug)]
enum Asked {
    Digest(Digest),
    Image,
    Manifest(Descriptor),
}

impl Asked {
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
    async fn supplied(&self, options: &Options) -> Result<Option<Source>, Error> {
        if options.anonymous {
            return Ok(Some(Source::Anonymous));
        }
        let Some(descriptor) = &options.auth_file else { return Ok(None) };
        let owned = descriptor.duplicate()?;
        let read = move || {
            let source = Source::of_descriptor(owned);
            source.map(Some).map_err(|error| Error::invalid_args(&error.to_string()))
        };
        self.read(options.timeout, read).await
    }

    /// The manifest that is asked about, with what the caller handed over.
    async fn content(&self, options: &Options, asked: &Asked, budget: &Budget) -> Result<Content, Error> {
        let manifest = match asked {
            Asked::Digest(digest) => {
                return Ok(Content::Digest { digest: digest.clone(), check_tag: options.check_tag });
            }
            Asked::Image => return Ok(Content::Named),
            Asked::Manifest(manifest) => manifest.duplicate()?,
        };
        let signatures: Option<Result<Vec<_>, _>> =
            options.signatures.as_ref().map(|all| all.iter().map(Descriptor::duplicate).collect());
        let (signatures, budget) = (signatures.transpose()?, budget.clone());
        let read = move || {
            let bytes = read_paid(manifest, "the manifest", MANIFEST_BYTES, &budget)?;
            let signatures = signatures.map(|all| {
                let numbered = (1_usize..).zip(all);
                numbered.map(|(number, signature)| read_signature(signature, number, &budget)).collect()
            });
            Ok(Content::Manifest { bytes, signatures: signatures.transpose()? })
        };
        self.read(options.timeout, read).await
    }

    /// Reads descriptors. Only calls that have some wait for one another (T-27).
    async fn read<T: Send + 'static>(
        &self,
        timeout: Duration,
        read: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = Arc::clone(&self.descriptors).try_acquire_owned();
        let turn = turn.map_err(|_| Error::too_many_requests(DESCRIPTORS))?;
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read()
        });
        match tokio::time::timeout(timeout, reading).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::internal("what was handed over could not be read")),
            Err(_) => Err(Error::timed_out()),
        }
    }
}

/// The bytes of a descriptor of at most `limit`, which the budget pays for (T-28).
fn read_paid(descriptor: OwnedFd, what: &str, limit: usize, budget: &Budget) -> Result<Vec<u8>, Error> {
    let bytes = read_all(descriptor, what, limit)?;
    let unpaid = |error: fetch::Error| Error::of_engine(&engine::Error::Fetch(error));
    budget.bytes(bytes.len()).map_err(unpaid)?;
    Ok(bytes)
}

fn read_all(descriptor: OwnedFd, what: &str, limit: usize) -> Result<Vec<u8>, Error> {
    let bytes = descriptor::read(descriptor, limit)
        .map_err(|error| Error::bad_descriptor(what, &error.to_string()))?;
    if bytes.len() > limit { Err(Error::too_large(what, limit)) } else { Ok(bytes) }
}

/// A signature as lookaside stores hold it, or a Sigstore bundle, which begins as no other does.
fn read_signature(descriptor: OwnedFd, number: usize, budget: &Budget) -> Result<LocatedSignature, Error> {
    let what = format!("signature {number}");
    let blob = read_paid(descriptor, &what, SIGNATURE_BYTES, budget)?;
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
    /// away when they leave the bus. Only root may ask: org.freedesktop.DBus.Error.AccessDenied.
    ///
    /// reference is a name of containers-transports(5), such as "docker://quay.io/os/img:stable", of at
    /// most 1 KiB. A name that leads to a local file is refused: .Error.UnsupportedTransport.
    ///
    /// options, at most 32; one that is not known, or of another type, is
    /// org.freedesktop.DBus.Error.InvalidArgs:
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
    ///   anonymous b  use no credentials at all, which are also the client certificates of the host
    ///
    /// manifest_digest is the digest of a manifest that was itself accepted: the index, or the instance
    /// if only that was. pinned_reference has this digest in place of a tag: pull exactly that. Both
    /// are empty where the transport has none. details has the keys of the report of EvaluateImage.
    #[zbus(out_args("manifest_digest", "pinned_reference", "details"))]
    pub async fn verify_image(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        options: Dictionary,
    ) -> Result<(String, String, Dictionary), Error> {
        let report = self.decide((connection, &header), reference, &options, Asked::Image).await?;
        if !report.allowed {
            return Err(Error::of_denial(&report));
        }
        let details = Dictionary::of_report(&report)?;
        let text = |value: Option<String>| value.unwrap_or_default();
        Ok((text(report.manifest_digest), text(report.pinned_reference), details))
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
    #[zbus(out_args("details"))]
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
        let report = self.decide((connection, &header), reference, &options, asked).await?;
        if !report.allowed {
            return Err(Error::of_denial(&report));
        }
        Dictionary::of_report(&report)
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
    /// details has the keys of the report of EvaluateImage; resolved-digest is that of the bytes.
    #[zbus(out_args("manifest_digest", "details"))]
    pub async fn verify_manifest(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        manifest: zbus::wire::Fd<'_>,
        options: Dictionary,
    ) -> Result<(String, Dictionary), Error> {
        let asked = Asked::Manifest(Descriptor::of(&manifest)?);
        let report = self.decide((connection, &header), reference, &options, asked).await?;
        if !report.allowed {
            return Err(Error::of_denial(&report));
        }
        let details = Dictionary::of_report(&report)?;
        Ok((report.manifest_digest.unwrap_or_default(), details))
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
    ///   requests t  the number of requests that were made
    #[zbus(out_args("report"))]
    pub async fn evaluate_image(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        options: Dictionary,
    ) -> Result<Dictionary, Error> {
        let report = self.decide((connection, &header), reference, &options, Asked::Image).await?;
        Dictionary::of_report(&report)
    }

    /// Ends the verification that the caller named with the option cookie: that call fails with
    /// org.vouchd.Verifier1.Error.Cancelled.
    ///
    /// If no verification of the same connection has this cookie, because it never had or has ended, the error
    /// is .Error.UnknownCookie; those of others are not known here. Verifications of a caller that leaves the
    /// bus are cancelled without this.
    pub async fn cancel_verification(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        cookie: &str,
    ) -> Result<(), Error> {
        caller(connection, &header).await?;
        if self.cookies.cancel(sender(&header), cookie) { Ok(()) } else { Err(Error::unknown_cookie()) }
    }

    /// The version of the service.
    #[zbus(property(emits_changed_signal = "const"))]
    pub fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// The policy file; empty if there is none. As PolicyState, at most a second old.
    #[zbus(property(emits_changed_signal = "false"))]
    pub async fn policy_path(&self) -> fdo::Result<String> {
        Ok(escape(&self.recent_policy_status().await?.path.to_string_lossy()))
    }

    /// Whether that file can be used: "loaded", "missing" or "invalid". Unless it is "loaded", every image
    /// is refused. It is read anew for every request, so there is nothing to reload.
    #[zbus(property(emits_changed_signal = "false"))]
    pub async fn policy_state(&self) -> fdo::Result<String> {
        Ok(self.recent_policy_status().await?.state.to_owned())
    }
}

/// Whose call it is.
struct Caller {
    uid: u32,
    /// As the bus knows it; nothing without a bus.
    pid: Option<u32>,
}

/// The unit of systemd that a process belongs to, if it is known.
async fn unit_of(connection: Connection, pid: Option<u32>) -> Option<String> {
    match pid {
        Some(pid) => systemd::unit_of(&connection, pid).await,
        None => None,
    }
}

/// Whose call it is: only root may ask, and on a bus that lets it, whoever runs the daemon.
///
/// dbus/org.vouchd.Verifier1.conf lets nobody but root.
async fn caller(connection: &Connection, header: &Header<'_>) -> Result<Caller, Error> {
    let known = credentials(connection, header).await;
    let pid = known.as_ref().and_then(ConnectionCredentials::process_id).filter(|_| connection.is_bus());
    match known.and_then(|known| known.unix_user_id()) {
        Some(uid) if uid == 0 || uid == nix::unistd::geteuid().as_raw() => Ok(Caller { uid, pid }),
        Some(uid) => {
            let code = Code::AccessDenied.as_str();
            warn!(VOUCHD_CODE = code, VOUCHD_CALLER_UID = uid, "uid {uid} may not ask");
            Err(Error::access_denied("only root may ask for a verdict"))
        }
        None => Err(Error::access_denied("the bus does not say who asks")),
    }
}

/// Whose cookies count: without a bus there is one caller only.
fn sender<'h>(header: &'h Header<'_>) -> &'h str {
    header.sender().map(|name| name.as_str()).unwrap_or_default()
}

async fn cancelled(held: Option<&Held>) {
    match held {
        Some(held) => held.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What the bus knows about the sender; without a bus, what the kernel knows about the peer.
async fn credentials(connection: &Connection, header: &Header<'_>) -> Option<ConnectionCredentials> {
    if connection.is_bus() {
        let bus = DBusProxy::builder(connection).cache_properties(CacheProperties::No).build().await.ok()?;
        let sender = BusName::Unique(header.sender()?.to_owned());
        return bus.get_connection_credentials(sender).await.ok();
    }
    let uid = connection.peer_creds().await.ok()?.unix_user_id()?;
    Some(ConnectionCredentials::default().set_unix_user_id(uid))
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
fn check_resolved(reference: &str, asked: &Asked, answer: &Answer) -> Result<(), Error> {
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
