//! The interface `org.vouchd.Verifier1.Manager`: one definition for the server, the client and the XML.

mod client;
mod dictionary;
mod error;
mod options;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zbus::Connection;
use zbus::message::{Flags, Header};
use zbus::names::BusName;
use zbus::proxy::CacheProperties;

use crate::config;
use crate::diagnostic::{Code, escape};
use crate::engine::{self, Answer, Engine, LoadedPolicy};
use crate::reference::{ImageName, Transport};
use crate::report::{Report, Route};

pub use client::{ClientError, evaluate};
pub use dictionary::Dictionary;
pub use error::Error;
pub use options::Options;

/// The well-known name; only one that owns it is the daemon.
pub const NAME: &str = "org.vouchd.Verifier1";

/// The only object.
pub const PATH: &str = "/org/vouchd/Verifier1";

/// The system bus. Its address never comes from the environment of a privileged process (T-22).
pub const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// Most gatherings at the same time: 32, design decision 6.
pub const GATHERINGS: usize = 32;

/// The object behind the interface. Clones are the same object.
#[derive(Clone, Debug)]
pub struct Manager {
    engine: Arc<Engine>,
    gatherings: Arc<Semaphore>,
    /// Everybody may read the properties; whoever does, one policy file is read at a time.
    looks: Arc<Mutex<()>>,
}

impl Manager {
    /// Serves what `engine` decides.
    pub fn new(engine: Arc<Engine>) -> Self {
        let gatherings = Arc::new(Semaphore::new(GATHERINGS));
        Self { engine, gatherings, looks: Arc::new(Mutex::new(())) }
    }

    /// Lets what is running come to its end, for as long as `patience`; nothing new begins.
    pub async fn finish(&self, patience: Duration) {
        let all = u32::try_from(GATHERINGS).unwrap_or(u32::MAX);
        let finished = tokio::time::timeout(patience, self.gatherings.acquire_many(all)).await;
        if let Ok(Ok(permits)) = finished {
            permits.forget();
        }
    }

    /// The policy as it is now, read where reading holds nobody up.
    pub async fn policy(&self) -> Result<Arc<LoadedPolicy>, Error> {
        let _only_one = self.looks.lock().await;
        let engine = Arc::clone(&self.engine);
        match tokio::task::spawn_blocking(move || engine.policy()).await {
            Ok(policy) => policy.map_err(|error| Error::of_engine(&error)),
            Err(_) => Err(Error::internal("reading the policy failed")),
        }
    }

    /// Everything from the message to the report. Only an answer that was reached is `Ok`.
    async fn decide(&self, call: Call<'_>, reference: &str, options: Dictionary) -> Result<Report, Error> {
        if call.header.primary().flags().contains(Flags::NO_REPLY_EXPECTED) {
            return Err(Error::invalid_args("a call without a reply decides nothing"));
        }
        let caller = call.uid().await?;
        check_caller(caller)?;
        let options = Options::parse(&options)?;
        check_transport(reference)?;
        let permit = Arc::clone(&self.gatherings)
            .try_acquire_owned()
            .map_err(|_| Error::too_many_requests(GATHERINGS))?;
        let began = Instant::now();
        let answer = self.gather_and_judge(permit, reference, &options).await;
        let result = answer.and_then(|answer| {
            let report = Report::of_answer(reference, Route::Bus, &answer);
            check_expected(&options, &report).map(|()| report)
        });
        record(caller, reference, &options, began.elapsed(), &result);
        result
    }

    /// Runs the engine in a task of its own: a panic ends this request only, and leaving ends the task.
    async fn gather_and_judge(
        &self,
        permit: OwnedSemaphorePermit,
        reference: &str,
        options: &Options,
    ) -> Result<Answer, Error> {
        let (engine, reference) = (Arc::clone(&self.engine), reference.to_owned());
        let (question, timeout) = (options.question.clone(), options.timeout);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _permit = permit;
            engine.verify(&reference, &question, timeout, engine::now()).await
        });
        match tokio::time::timeout(timeout.saturating_add(GRACE), task.join_next()).await {
            Ok(Some(Ok(answer))) => answer.map_err(|error| Error::of_engine(&error)),
            Ok(Some(Err(_)) | None) => Err(Error::internal("the verification failed unexpectedly")),
            Err(_) => Err(Error::timed_out("the verification")),
        }
    }
}

/// org.vouchd.Verifier1: may this container image be used?
#[zbus::interface(
    name = "org.vouchd.Verifier1.Manager",
    proxy(default_service = "org.vouchd.Verifier1", default_path = "/org/vouchd/Verifier1")
)]
impl Manager {
    /// Resolves the reference, gathers manifest and signatures, and judges them by the system's policy.
    ///
    /// It returns normally only if the image may be used. A refusal is the error
    /// org.vouchd.Verifier1.Error.Rejected, so a client that checks nothing but whether the call
    /// succeeded fails closed. Every error means: do not use the image. Clients set an infinite timeout
    /// for the call; the deadline of the service decides.
    ///
    /// The reference is one of containers-transports(5), such as "docker://quay.io/os/img:stable"; images
    /// with a path are refused with .Error.UnsupportedTransport. At most 1 KiB.
    ///
    /// Options, all optional, at most 32; an unknown one or a wrong type is
    /// org.freedesktop.DBus.Error.InvalidArgs:
    ///
    ///  require-signature b  (default true) refuse with .Error.SignatureRequired unless a requirement that
    ///      verifies signatures was satisfied; insecureAcceptAnything is then not enough
    ///  subject s  which manifest of a multi-platform image must satisfy the policy: "either" (default),
    ///      "instance" (what podman asks), "top-level", "both"
    ///  platform (sss)  operating system, architecture, variant; default: those of the host
    ///  expected-digest s  fail with .Error.DigestMismatch unless what the reference resolves to, or its
    ///      instance for the platform, has this digest
    ///  timeout-usec t  deadline in microseconds; 0 means the default of 90 s, the most is 10 minutes
    ///  initiator s  who asks and why, for the journal; at most 256 bytes
    ///
    /// manifest_digest is the digest of a manifest that was itself accepted: the index, or the instance if
    /// only that was. pinned_reference is the reference with that digest in place of its tag; pull exactly
    /// that. Both are empty where a transport has none.
    ///
    /// details has the keys of EvaluateImage.
    #[zbus(out_args("manifest_digest", "pinned_reference", "details"))]
    pub async fn verify_image(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        options: Dictionary,
    ) -> Result<(String, String, Dictionary), Error> {
        let report = self.decide(Call { connection, header: &header }, reference, options).await?;
        if !report.allowed {
            return Err(Error::of_denial(&report));
        }
        let details = Dictionary::of_report(&report)?;
        let manifest_digest = report.manifest_digest.unwrap_or_default();
        Ok((manifest_digest, report.pinned_reference.unwrap_or_default(), details))
    }

    /// The same question and options as VerifyImage, for people and tests: a refusal is no error, but a
    /// report whose "allowed" is false. That nothing could be decided is still an error.
    ///
    /// Never let an image pass because this call succeeded.
    ///
    /// Keys of the report; those without a value are absent, and unknown ones are to be ignored:
    ///
    ///  schema t  the version of the keys: 1
    ///  reference s  as it was asked for
    ///  route s  "bus"
    ///  allowed b  whether the image may be used
    ///  decided b  true
    ///  authenticated b  whether a signature was required and verified
    ///  code s, message s, help s  why the image is refused: a stable name of vouchd-codes(7), a sentence,
    ///      and what can be done
    ///  manifest-digest s  a manifest that was itself accepted
    ///  instance-digest s  the instance for the platform, if it was judged
    ///  resolved-digest s  what the reference names, judged or not
    ///  pinned-reference s, pinned-reference-accepted b  the reference with manifest-digest in place of a
    ///      tag, and whether the policy accepts that too; if not, pull by tag and compare digests
    ///  policy a{sv}  path s, digest s
    ///  scope a{sv}  transport s, name s, file s, line t, column t
    ///  requirements aa{sv}  subject s, digest s, type s, satisfied b, code s, message s, and signatures
    ///      aa{sv}: kind s, location s, accepted b, code s, message s, signer a{sv} (kind s, id s), time s
    ///  warnings as  things to know that do not change the answer
    ///  requests t  how many requests were made
    #[zbus(out_args("report"))]
    pub async fn evaluate_image(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        options: Dictionary,
    ) -> Result<Dictionary, Error> {
        let report = self.decide(Call { connection, header: &header }, reference, options).await?;
        Dictionary::of_report(&report)
    }

    /// The version of the service.
    #[zbus(property(emits_changed_signal = "const"))]
    pub fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// The policy file that applies now, or the one that cannot be used; empty if there is none.
    #[zbus(property(emits_changed_signal = "false"))]
    pub async fn policy_path(&self) -> String {
        let path = match self.policy().await {
            Ok(policy) => policy.path.clone(),
            Err(Error::Policy { path, .. }) => path,
            Err(_) => PathBuf::new(),
        };
        escape(&path.to_string_lossy())
    }

    /// Whether that file can be used: "loaded", "missing" or "invalid". Unless it is "loaded", every image
    /// is refused. The files are read anew for every request; nothing needs to be reloaded.
    #[zbus(property(emits_changed_signal = "false"))]
    pub async fn policy_state(&self) -> String {
        match self.policy().await {
            Ok(_) => "loaded".to_owned(),
            Err(Error::PolicyMissing(_)) => "missing".to_owned(),
            Err(_) => "invalid".to_owned(),
        }
    }
}
