//! [`Counters`]: what the daemon has answered since it started, and the file that tells Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::warn;

use crate::config::{self, Environment, VouchdToml, replace};
use crate::diagnostic::Code;

/// The least time between two writings of the file: 10 s.
pub const PAUSE: Duration = Duration::from_secs(10);

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The image is allowed, and nothing was verified.
    AcceptedUnsigned,
    /// Whoever asked went away, or took the question back.
    Cancelled,
    /// Nothing could be decided.
    Failed,
    /// The policy refuses the image.
    Rejected,
    /// The image is allowed, and a signature was verified.
    Verified,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] =
        [Self::Verified, Self::AcceptedUnsigned, Self::Rejected, Self::Failed, Self::Cancelled];

    /// Its name in the journal, in the file and on the bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AcceptedUnsigned => "accepted-unsigned",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Verified => "verified",
        }
    }
}

/// Numbers that only grow. No image is named, because everybody may see them (T-34).
#[derive(Debug, Default)]
pub struct Counters {
    verified: AtomicU64,
    accepted_unsigned: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    cache_hits: AtomicU64,
    answers: AtomicU64,
    codes: Mutex<BTreeMap<Code, u64>>,
    changed: Notify,
}

impl Counters {
    /// Counts an answer and, if it was no, its code. Returns the number of answers so far, which names this one.
    pub fn count(&self, outcome: Outcome, code: Option<&str>) -> u64 {
        self.cell(outcome).fetch_add(1, Ordering::Relaxed);
        if let Some(text) = code {
            // What others sent must not become a name.
            let known = Code::ALL.iter().find(|code| code.as_str() == text);
            let code = known.copied().unwrap_or(Code::InternalError);
            let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
            let count = codes.entry(code).or_default();
            *count = count.saturating_add(1);
        }
        self.changed.notify_one();
        self.answers.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Counts an answer for which nobody was asked, because the evidence was at hand or others had it gathered.
    pub fn count_cache_hit(&self) {
        self.cache_hits.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// How often that has been.
    pub fn cache_hits(&self) -> u64 {
        self.cache_hits.load(Ordering::Relaxed)
    }

    /// How often each outcome has been.
    pub fn outcomes(&self) -> [(Outcome, u64); 5] {
        Outcome::ALL.map(|outcome| (outcome, self.cell(outcome).load(Ordering::Relaxed)))
    }

    /// How often each code has been given; only those that have been.
    pub fn codes(&self) -> BTreeMap<Code, u64> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cell(&self, outcome: Outcome) -> &AtomicU64 {
        match outcome {
            Outcome::AcceptedUnsigned => &self.accepted_unsigned,
            Outcome::Cancelled => &self.cancelled,
            Outcome::Failed => &self.failed,
            Outcome::Rejected => &self.rejected,
            Outcome::Verified => &self.verified,
        }
    }

    /// The file; Prometheus, "Text-based exposition format".
    fn to_text(&self) -> String {
        let mut text = String::new();
        let hits = self.cache_hits();
        let mut family = |name: &str, help: &str, samples: Vec<(&'static str, &'static str, u64)>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (label, value, count) in samples {
                let _ = writeln!(text, "{name}{{{label}=\"{value}\"}} {count}");
            }
        };
        let outcomes = self.outcomes().map(|(outcome, count)| ("outcome", outcome.as_str(), count));
        family("vouchd_verifications_total", "Questions whether an image may be used.", outcomes.to_vec());
        let codes = self.codes().into_iter().map(|(code, count)| ("code", code.as_str(), count));
        family("vouchd_refusals_total", "Those not answered with yes, by code.", codes.collect());
        family("vouchd_cache_hits_total", "Those for which nobody was asked.", Vec::new());
        let _ = writeln!(text, "vouchd_cache_hits_total {hits}");
        text
    }

    /// Writes the file at once, if vouchd.toml says where.
    async fn write(self: &Arc<Self>, environment: &Environment) -> Result<(), String> {
        let (counters, environment) = (Arc::clone(self), environment.clone());
        let writing = move || {
            let path = metrics_path(&environment).map_err(|error| error.to_string())?;
            let Some(path) = path else { return Ok(()) };
            replace(&path, counters.to_text().as_bytes(), None).map_err(|error| unwritten(&path, &error))
        };
        tokio::task::spawn_blocking(writing).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Keeps the file up to date: soon after something changed, but not again within `pause`, and not while nothing does.
    pub async fn keep_file(self: Arc<Self>, environment: Environment, pause: Duration) {
        let mut said = None;
        loop {
            let failed = self.write(&environment).await.err();
            if let Some(detail) = failed.as_ref().filter(|_| said != failed) {
                warn!("the counters are not written: {detail}");
            }
            said = failed;
            tokio::time::sleep(pause).await;
            self.changed.notified().await;
        }
    }
}

fn metrics_path(environment: &Environment) -> Result<Option<PathBuf>, config::Error> {
    Ok(VouchdToml::load(environment)?.metrics.path)
}

fn unwritten(path: &Path, error: &std::io::Error) -> String {
    format!("\"{}\": {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rule T-34.
    #[test]
    fn numbers_grow_and_name_no_image() {
        let counters = Counters::default();
        assert_eq!(counters.count(Outcome::Verified, None), 1);
        assert_eq!(counters.count(Outcome::Rejected, Some("unsigned")), 2);
        assert_eq!(counters.count(Outcome::Rejected, Some("docker://h/a\"} 7")), 3);
        counters.count_cache_hit();
        assert_eq!(
            counters.to_text(),
            "# HELP vouchd_verifications_total Questions whether an image may be used.\n\
             # TYPE vouchd_verifications_total counter\n\
             vouchd_verifications_total{outcome=\"verified\"} 1\n\
             vouchd_verifications_total{outcome=\"accepted-unsigned\"} 0\n\
             vouchd_verifications_total{outcome=\"rejected\"} 2\n\
             vouchd_verifications_total{outcome=\"failed\"} 0\n\
             vouchd_verifications_total{outcome=\"cancelled\"} 0\n\
             # HELP vouchd_refusals_total Those not answered with yes, by code.\n\
             # TYPE vouchd_refusals_total counter\n\
             vouchd_refusals_total{code=\"internal-error\"} 1\n\
             vouchd_refusals_total{code=\"unsigned\"} 1\n\
             # HELP vouchd_cache_hits_total Those for which nobody was asked.\n\
             # TYPE vouchd_cache_hits_total counter\n\
             vouchd_cache_hits_total 1\n"
        );
    }

    #[tokio::test]
    async fn the_file_is_written_when_something_changed_and_not_too_often() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment { root: directory.path().to_owned(), uid: 0, user: None };
        let file = directory.path().join("counters.prom");
        let counters = Arc::new(Counters::default());
        // The files of vouchd.toml must be root's.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        std::fs::create_dir_all(directory.path().join("etc/vouchd")).unwrap();
        let text = format!("[metrics]\npath = \"{}\"\n", file.display());
        std::fs::write(directory.path().join("etc/vouchd/vouchd.toml"), text).unwrap();
        let pause = Duration::from_millis(600);
        let keeping = tokio::spawn(Arc::clone(&counters).keep_file(environment, pause));
        let count = || {
            let text = std::fs::read_to_string(&file).ok()?;
            let failed = "vouchd_verifications_total{outcome=\"failed\"} ";
            text.lines().find_map(|line| line.strip_prefix(failed)?.parse().ok())
        };
        let until = async |wanted: u64| {
            for _ in 0..500 {
                if count() == Some(wanted) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{:?}", count());
        };
        until(0).await;
        counters.count(Outcome::Failed, None);
        counters.count(Outcome::Failed, None);
        tokio::time::sleep(pause / 3).await;
        assert_eq!(count(), Some(0));
        until(2).await;
        // Nothing changes, so nothing is written.
        std::fs::remove_file(&file).unwrap();
        tokio::time::sleep(pause * 2).await;
        assert_eq!(count(), None);
        keeping.abort();
    }
}
