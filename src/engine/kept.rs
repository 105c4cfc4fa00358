//! [`Kept`]: what was gathered about images by digest, for a few minutes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::evaluate::evidence::{Evidence, Needs, Question, Subject};
use crate::fetch::{Places, PrincipalClass};
use crate::manifest::Platform;
use crate::reference::Named;

/// How long something is kept: 5 min, design decision 5.
const AGE: Duration = Duration::from_secs(300);

/// Most images at a time.
const IMAGES: usize = 256;

/// Most bytes of all of them: 8 MiB.
const BYTES: usize = 8 << 20;

/// Most bytes of one: 512 KiB, which is many times what images have.
pub(super) const IMAGE_BYTES: usize = 512 << 10;

/// Everything on which it depends what is gathered (T-25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// How often everything had been forgotten: what began before that is not used after it.
    pub(super) generation: u64,
    pub(super) image: String,
    pub(super) places: Places,
    pub(super) principal: PrincipalClass,
    pub(super) subject: Subject,
    pub(super) platform: Platform,
    signatures: bool,
    attachments: bool,
}

impl Key {
    pub(super) fn new(
        generation: u64,
        image: String,
        places: Places,
        principal: PrincipalClass,
        question: &Question,
        needs: &Needs,
    ) -> Self {
        let (subject, platform) = (question.subject, question.platform.clone());
        let (signatures, attachments) = (needs.signatures, needs.attachments);
        Self { generation, image, places, principal, subject, platform, signatures, attachments }
    }
}

/// What was gathered about an image; no keys, and no verdict.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) evidence: Evidence,
    pub(super) source: Option<Named>,
    pub(super) warnings: Vec<String>,
}

/// Evidence that an image was allowed with. It is judged anew each time; what was refused is never kept (T-18).
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<VecDeque<Entry>>);

#[derive(Debug)]
struct Entry {
    key: Key,
    found: Arc<Found>,
    bytes: usize,
    since: (Instant, SystemTime),
}

impl Entry {
    /// Time goes on while this host sleeps, and a clock that was set back proves nothing.
    fn is_young(&self, (now, clock): (Instant, SystemTime)) -> bool {
        let (then, clock_then) = self.since;
        let age = now.saturating_duration_since(then);
        age < AGE && clock.duration_since(clock_then).is_ok_and(|age| age < AGE)
    }
}

impl Kept {
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Found>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (Instant::now(), SystemTime::now());
        entries.retain(|entry| entry.is_young(now));
        entries.iter().find(|entry| entry.key == *key).map(|entry| Arc::clone(&entry.found))
    }

    pub(super) fn keep(&self, key: Key, found: Arc<Found>) {
        let bytes = found.evidence.image_bytes();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.key != key);
        entries.push_back(Entry { key, found, bytes, since: (Instant::now(), SystemTime::now()) });
        let held = |entries: &VecDeque<Entry>| entries.iter().map(|entry| entry.bytes).sum::<usize>();
        while entries.len() > IMAGES || held(&entries) > BYTES {
            entries.pop_front();
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|entry| entry.key != *key);
    }

    /// Forgets what is of another generation.
    pub(super) fn retain_generation(&self, generation: u64) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.key.generation == generation);
    }

    pub(super) fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    use crate::evaluate::evidence::ManifestEvidence;

    pub(in crate::engine) fn found(bytes: usize) -> Arc<Found> {
        let top_level = Some(ManifestEvidence::new(vec![0; bytes], String::new()));
        let evidence = Evidence { top_level, ..Evidence::default() };
        Arc::new(Found { evidence, source: None, warnings: Vec::new() })
    }

    pub(in crate::engine) fn key(image: &str) -> Key {
        let question = Question {
            require_signature: true,
            subject: Subject::Either,
            platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() },
        };
        let principal = crate::fetch::Principal::OWNER.class();
        Key::new(0, image.to_owned(), Places::default(), principal, &question, &Needs::default())
    }

    #[test]
    fn so_much_is_kept_and_no_more() {
        let kept = Kept::default();
        for number in 0..300 {
            kept.keep(key(&number.to_string()), found(1));
        }
        assert!(kept.get(&key("43")).is_none() && kept.get(&key("44")).is_some());
        for number in 0..40 {
            kept.keep(key(&number.to_string()), found(IMAGE_BYTES));
        }
        assert_eq!(kept.0.lock().unwrap().len(), BYTES / IMAGE_BYTES);
        kept.forget(&key("39"));
        assert!(kept.get(&key("39")).is_none() && kept.get(&key("38")).is_some());
        kept.forget_all();
        assert!(kept.get(&key("38")).is_none());
    }

    #[test]
    fn nothing_is_kept_for_long() {
        let entry = |since| Entry { key: key("a"), found: found(1), bytes: 1, since };
        let (now, clock) = (Instant::now(), SystemTime::now());
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        for (passed, clock_passed, is_young) in
            [(minute, minute, true), (hour, minute, false), (minute, hour, false), (hour, hour, false)]
        {
            assert_eq!(entry((now, clock)).is_young((now + passed, clock + clock_passed)), is_young);
        }
        assert!(!entry((now, clock)).is_young((now, clock - minute)), "the clock was set back");
    }
}
