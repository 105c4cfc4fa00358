//! The records of the daemon: one for each answer and one for each change of the policy, with fields to search for.
//!
//! Described in vouchd(1), "JOURNAL"; systemd.journal-fields(7). Whatever comes from outside is escaped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::diagnostic::escape;
use crate::metrics::Outcome;
use crate::report::{Report, SignatureReport, SignerReport};

/// `MESSAGE_ID` of an answer; `systemd/vouchd.catalog` has its text.
pub const ANSWER: &str = "d44937d6bb3c465baa9761b73ac071e1";

/// `MESSAGE_ID` of a change of the policy; `systemd/vouchd.catalog` has its text.
pub const POLICY: &str = "59ac2ef99dc846b1ad68fe39b94cd399";

/// Most signers that one record names.
const SIGNERS: usize = 8;

/// A question that was asked, and by whom.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Which answer of this process it is.
    pub id: u64,
    /// The image, as it was asked for.
    pub reference: &'a str,
    /// What the caller says of itself.
    pub initiator: Option<&'a str>,
    /// The user who asked.
    pub caller: u32,
    /// The unit of systemd that asked.
    pub unit: Option<&'a str>,
    /// How long the answer took.
    pub took: Duration,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// A name of vouchd-codes(7).
    pub code: Option<&'a str>,
    /// The same in words.
    pub message: &'a str,
    /// The digest of the policy, if that was read.
    pub policy: Option<&'a str>,
}

/// What an answer counts as; that somebody went away is [`Outcome::Cancelled`], which no report tells.
pub fn outcome(report: &Report) -> Outcome {
    match (report.allowed, report.authenticated) {
        (true, true) => Outcome::Verified,
        (true, false) => Outcome::AcceptedUnsigned,
        (false, _) => Outcome::Rejected,
    }
}

/// Records an answer.
pub fn answer(asked: &Asked<'_>, outcome: Outcome, result: Result<&Report, Failure<'_>>) {
    let verdict = outcome.as_str();
    let report = result.ok();
    let text = |value: Option<&str>| value.map(escape);
    let reference = escape(asked.reference);
    let (initiator, unit) = (text(asked.initiator), text(asked.unit));
    let (code, message) = match result {
        Ok(report) => (text(report.code.as_deref()), text(report.message.as_deref())),
        Err(failure) => (text(failure.code), Some(escape(failure.message))),
    };
    let manifest = report.and_then(|report| text(report.manifest_digest.as_deref()));
    let resolved = report.and_then(|report| text(report.resolved_digest.as_deref()));
    let policy = match result {
        Ok(report) => text(report.policy.as_ref().map(|policy| policy.digest.as_str())),
        Err(failure) => text(failure.policy),
    };
    let scope = report.and_then(|report| report.scope.as_ref()).map(|scope| match &scope.transport {
        Some(transport) => escape(&format!("{transport}:{}", scope.name)),
        None => escape(&scope.name),
    });
    let counted: Vec<&SignatureReport> = report.map(counted).unwrap_or_default();
    let signers: Vec<String> =
        counted.iter().filter_map(|s| s.signer.as_ref()).take(SIGNERS).map(signer).collect();
    let signer = (!signers.is_empty()).then(|| signers.join(", "));
    // Unless a signature counts there is nothing to say.
    let bound = (!counted.is_empty()).then(|| counted.iter().any(|s| s.reference_bound == Some(true)));
    let roots = report.map(|report| report.trusted_roots.as_slice()).unwrap_or_default();
    let stale = (!roots.is_empty()).then(|| roots.iter().any(|root| root.stale));
    let requests = report.map(|report| report.requests);
    let duration = u64::try_from(asked.took.as_micros()).unwrap_or(u64::MAX);
    // A field without a value is left out.
    macro_rules! record {
        ($level:ident, $($text:tt)*) => {
            $level!(
                MESSAGE_ID = ANSWER,
                VOUCHD_VERDICT = verdict,
                VOUCHD_VERDICT_ID = asked.id,
                VOUCHD_REFERENCE = reference.as_str(),
                VOUCHD_CODE = code.as_deref(),
                VOUCHD_MANIFEST_DIGEST = manifest.as_deref(),
                VOUCHD_RESOLVED_DIGEST = resolved.as_deref(),
                VOUCHD_POLICY_DIGEST = policy.as_deref(),
                VOUCHD_SCOPE = scope.as_deref(),
                VOUCHD_SIGNER = signer.as_deref(),
                VOUCHD_REFERENCE_BOUND = bound,
                VOUCHD_TRUSTED_ROOT_STALE = stale,
                VOUCHD_REQUESTS = requests,
                VOUCHD_CALLER_UID = asked.caller,
                VOUCHD_CALLER_UNIT = unit.as_deref(),
                VOUCHD_INITIATOR = initiator.as_deref(),
                VOUCHD_DURATION_USEC = duration,
                $($text)*
            )
        };
    }
    let message = message.unwrap_or_default();
    match outcome {
        Outcome::AcceptedUnsigned | Outcome::Verified => record!(info, "{reference}: {verdict}"),
        Outcome::Rejected => record!(warn, "{reference}: rejected: {message}"),
        Outcome::Cancelled | Outcome::Failed => record!(warn, "{reference}: not decided: {message}"),
    }
}

/// The signatures that count, each once.
fn counted(report: &Report) -> Vec<&SignatureReport> {
    let all = report.requirements.iter().flat_map(|requirement| &requirement.signatures);
    let mut counted: Vec<&SignatureReport> = Vec::new();
    for signature in all.filter(|signature| signature.accepted) {
        if !counted.contains(&signature) {
            counted.push(signature);
        }
    }
    counted
}

fn signer(signer: &SignerReport) -> String {
    match (&signer.subject, &signer.issuer) {
        (Some(subject), Some(issuer)) => escape(&format!("{subject} by way of {issuer}")),
        (None, _) | (_, None) => escape(&format!("{} {}", signer.kind, signer.id)),
    }
}

/// Writes records where it holds nobody up: a journal that hangs, or a pipe that nobody reads, stops no answer.
#[derive(Debug)]
pub struct Recorder {
    queue: SyncSender<Job>,
    lost: Arc<AtomicU64>,
}

/// Something to record.
type Job = Box<dyn FnOnce() + Send>;

/// Most records that wait: 64. More are lost, which is recorded when there is room again.
const WAITING: usize = 64;

impl Recorder {
    /// One with a thread of its own, which ends with it.
    pub fn start() -> Self {
        let (queue, jobs) = mpsc::sync_channel::<Job>(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let missing = Arc::clone(&lost);
        let write = move || {
            for job in jobs {
                job();
                match missing.swap(0, Ordering::Relaxed) {
                    0 => {}
                    count => warn!("{count} records were lost, because the journal took too long"),
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("journal".to_owned()).spawn(write) {
            warn!("nothing can be recorded: {error}");
        }
        Self { queue, lost }
    }

    /// Has something recorded, soon and in order.
    pub fn record(&self, job: impl FnOnce() + Send + 'static) {
        if self.queue.try_send(Box::new(job)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is written that has been recorded, but not longer than `patience`.
    pub async fn flush(&self, patience: Duration) {
        let (done, written) = oneshot::channel();
        self.record(move || {
            let _ = done.send(());
        });
        // That it takes too long is no reason to wait longer.
        let _ = tokio::time::timeout(patience, written).await;
    }
}

/// What the policy was seen to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPolicy {
    /// `loaded`, `missing` or `invalid`.
    pub state: &'static str,
    /// The file; empty if there is none.
    pub path: String,
    /// SHA-256 of its text, if it could be used.
    pub digest: Option<String>,
}

/// What the policy was last seen to be, so that changes are recorded once.
#[derive(Debug, Default)]
pub struct PolicyLog(Mutex<Option<(Instant, SeenPolicy)>>);

impl PolicyLog {
    /// Records what was seen at that time, unless it is what was seen before. Who looked earlier and tells later, such
    /// as a verification that took long, is too late.
    pub fn saw(&self, at: Instant, seen: SeenPolicy) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(time, known)| *time > at || *known == seen) {
            return;
        }
        let before = last.replace((at, seen.clone())).and_then(|(_, before)| before.digest);
        drop(last);
        let (state, digest) = (seen.state, seen.digest.as_deref());
        let path = escape(&seen.path);
        macro_rules! record {
            ($level:ident, $($text:tt)*) => {
                $level!(
                    MESSAGE_ID = POLICY,
                    VOUCHD_POLICY_STATE = state,
                    VOUCHD_POLICY_PATH = path.as_str(),
                    VOUCHD_POLICY_DIGEST = digest,
                    VOUCHD_POLICY_DIGEST_BEFORE = before.as_deref(),
                    $($text)*
                )
            };
        }
        match digest {
            Some(digest) => record!(info, "the policy is \"{path}\", {digest}"),
            None if path.is_empty() => record!(warn, "no policy can be used: every image is refused"),
            None => record!(warn, "the policy \"{path}\" cannot be used: every image is refused"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_journal_that_hangs_holds_nobody_up() {
        let recorder = Recorder::start();
        let (release, held) = mpsc::channel::<()>();
        recorder.record(move || {
            let _ = held.recv();
        });
        let written = Arc::new(AtomicU64::new(0));
        for _ in 0..1_000 {
            let written = Arc::clone(&written);
            recorder.record(move || {
                written.fetch_add(1, Ordering::Relaxed);
            });
        }
        recorder.flush(Duration::from_millis(10)).await;
        assert_eq!(written.load(Ordering::Relaxed), 0);
        assert!(recorder.lost.load(Ordering::Relaxed) > 900);
        drop(release);
        // The mark itself may have been lost while there was no room.
        while written.load(Ordering::Relaxed) == 0 || recorder.lost.load(Ordering::Relaxed) > 0 {
            recorder.flush(Duration::from_secs(5)).await;
        }
    }

    #[test]
    fn only_what_is_new_is_recorded() {
        let log = PolicyLog::default();
        let seen = |digest: &str| SeenPolicy {
            state: "loaded",
            path: "/p".to_owned(),
            digest: Some(digest.to_owned()),
        };
        let last = || log.0.lock().unwrap().as_ref().and_then(|(_, seen)| seen.digest.clone()).unwrap();
        let early = Instant::now();
        let late = early + Duration::from_secs(1);
        log.saw(late, seen("b"));
        log.saw(early, seen("a"));
        assert_eq!(last(), "b");
        log.saw(late + Duration::from_secs(1), seen("c"));
        assert_eq!(last(), "c");
    }
}
