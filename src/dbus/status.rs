//! [`PolicyStatus`]: the policy file as it is at the moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use crate::diagnostic::escape;
use crate::engine::{self, Engine, LoadedPolicy};

/// The policy file as it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// `loaded`, `missing` or `invalid`.
    pub state: &'static str,
    /// The file; empty if there is none.
    pub path: PathBuf,
    /// SHA-256 of its text, if it can be used.
    pub digest: Option<String>,
    /// The code and the place of what is wrong with it; nothing that it says (T-34).
    pub error: Option<String>,
    /// Whether it accepts images without a signature in some scope.
    pub accepts_unsigned: bool,
}

impl PolicyStatus {
    pub(super) fn of(engine: &Engine) -> Self {
        match engine.policy() {
            Ok(policy) => Self::of_loaded(&policy),
            Err(error) => Self {
                state: error.policy_state(),
                path: error.policy_path().map(Path::to_path_buf).unwrap_or_default(),
                digest: None,
                error: Some(place(&error)),
                accepts_unsigned: false,
            },
        }
    }

    fn of_loaded(policy: &LoadedPolicy) -> Self {
        let file = policy.file.as_ref();
        Self {
            state: "loaded",
            path: file.map(|file| file.path.clone()).unwrap_or_default(),
            digest: file.map(|file| file.digest.to_string()),
            error: None,
            accepts_unsigned: policy.policy.unsigned_scopes().next().is_some(),
        }
    }
}

fn place(error: &engine::Error) -> String {
    match error {
        engine::Error::PolicyInvalid { path, problems } => {
            let (position, problem) = problems.first();
            let path = escape(&path.to_string_lossy());
            format!("[{}] {path}:{}:{}", problem.code, position.line, position.column)
        }
        engine::Error::ClockImplausible { .. }
        | engine::Error::Config(_)
        | engine::Error::Fetch(_)
        | engine::Error::Internal(_)
        | engine::Error::NoTurn(_)
        | engine::Error::NotNamed { .. }
        | engine::Error::Reference { .. } => format!("[{}]", error.code()),
    }
}

/// What was seen of the policy last. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Seen(Arc<watch::Sender<Option<(PolicyStatus, u64)>>>);

impl Seen {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Keeps what was seen at a time, in microseconds since 1970; only another status than the last is news.
    pub(super) fn see(&self, status: &PolicyStatus, now: u64) {
        self.0.send_if_modified(|last| {
            let is_new = last.as_ref().is_none_or(|(known, _)| known != status);
            let is_first = last.is_none();
            if is_new {
                *last = Some((status.clone(), now));
            }
            is_new && !is_first
        });
    }

    /// Since when it has been as it is; 0 if nobody has looked.
    pub(super) fn since(&self) -> u64 {
        self.0.borrow().as_ref().map_or(0, |(_, since)| *since)
    }

    /// Whether it is not as it was last.
    pub(super) fn differs(&self, digest: Option<&str>) -> bool {
        self.0.borrow().as_ref().is_none_or(|(known, _)| known.digest.as_deref() != digest)
    }

    pub(super) fn subscribe(&self) -> News {
        News(self.0.subscribe())
    }
}

/// The changes of the policy.
#[derive(Debug)]
pub(super) struct News(watch::Receiver<Option<(PolicyStatus, u64)>>);

impl News {
    /// The next change, as it is by now; nothing when there will be none.
    pub(super) async fn next(&mut self) -> Option<PolicyStatus> {
        self.0.changed().await.ok()?;
        self.0.borrow_and_update().as_ref().map(|(status, _)| status.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_changes_are_news() {
        let status = |digest: &str| PolicyStatus {
            state: "loaded",
            path: PathBuf::new(),
            digest: Some(digest.to_owned()),
            error: None,
            accepts_unsigned: false,
        };
        let seen = Seen::new();
        let mut news = seen.subscribe();
        assert!(seen.differs(None) && seen.since() == 0);
        seen.see(&status("a"), 1);
        seen.see(&status("a"), 2);
        assert_eq!((seen.since(), news.0.has_changed().unwrap()), (1, false));
        seen.see(&status("b"), 3);
        assert_eq!(seen.since(), 3);
        assert_eq!(news.next().await, Some(status("b")));
        assert!(!seen.differs(Some("b")) && seen.differs(Some("a")) && seen.differs(None));
        assert!(!news.0.has_changed().unwrap());
    }
}
