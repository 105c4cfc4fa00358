//! [`Refusals`]: the last answers that were not yes, for root alone (T-34).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use zbus::wire::Str;

use crate::diagnostic::escape;
use crate::fetch::Asker;

use super::Dictionary;

/// How many there are of root's, and of all other users', so that nobody washes away what root was refused.
const KEPT: usize = 16;

/// Most characters of the reason: what matters stands at the beginning.
const REASON_CHARS: usize = 500;

/// An answer that was not yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// When, in microseconds since 1970.
    pub(super) time: u64,
    /// The number of the answer.
    pub(super) id: u64,
    /// `rejected` or `failed`.
    pub(super) verdict: &'static str,
    pub(super) reference: String,
    pub(super) code: Option<String>,
    pub(super) reason: String,
    pub(super) uid: u32,
    pub(super) initiator: Option<String>,
}

/// The last of them. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(Arc<Mutex<Rings>>);

#[derive(Debug, Default)]
struct Rings {
    roots: VecDeque<Refusal>,
    users: VecDeque<Refusal>,
}

impl Refusals {
    pub(super) fn add(&self, asker: Asker, mut refusal: Refusal) {
        refusal.reason = refusal.reason.chars().take(REASON_CHARS).collect();
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = match asker {
            Asker::Owner => &mut rings.roots,
            Asker::User(_) => &mut rings.users,
        };
        if ring.len() >= KEPT {
            ring.pop_front();
        }
        ring.push_back(refusal);
    }

    /// The newest last.
    pub(super) fn to_dictionaries(&self) -> Vec<Dictionary> {
        let rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<&Refusal> = rings.roots.iter().chain(&rings.users).collect();
        all.sort_by_key(|refusal| refusal.id);
        all.into_iter().map(Refusal::to_dictionary).collect()
    }
}

impl Refusal {
    fn to_dictionary(&self) -> Dictionary {
        let text = |text: &str| Str::from(escape(text));
        let mut dictionary = Dictionary::new()
            .with("time-usec", self.time)
            .with("verdict-id", self.id)
            .with("verdict", Str::from(self.verdict))
            .with("reference", text(&self.reference))
            .with("message", text(&self.reason))
            .with("caller-uid", self.uid);
        for (key, value) in [("code", &self.code), ("initiator", &self.initiator)] {
            if let Some(value) = value {
                dictionary = dictionary.with(key, text(value));
            }
        }
        dictionary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use zbus::Variant;

    #[test]
    fn only_the_last_are_there_and_nothing_in_them_acts_on_a_terminal() {
        let refusals = Refusals::default();
        let refusal = |id| Refusal {
            time: 1,
            id,
            verdict: "rejected",
            reference: "docker://h/a\u{1b}[2J".into(),
            code: None,
            reason: "x".repeat(10_000),
            uid: 7,
            initiator: Some("\0".into()),
        };
        refusals.add(Asker::Owner, refusal(0));
        for id in 1..20 {
            refusals.add(Asker::User(7), refusal(id));
        }
        refusals.add(Asker::Owner, refusal(20));
        let all = refusals.to_dictionaries();
        let ids: Vec<_> = all.iter().filter_map(|refusal| refusal.value("verdict-id")).collect();
        let wanted: Vec<Variant<'_>> = [0].into_iter().chain(4..=20).map(Variant::U64).collect();
        assert_eq!(ids, wanted.iter().collect::<Vec<_>>(), "root's stay");
        assert_eq!(all[0].value("reference"), Some(&Variant::from("docker://h/a\\u{1b}[2J")));
        assert_eq!(all[0].value("initiator"), Some(&Variant::from("\\u{0}")));
        assert_eq!(all[0].value("code"), None);
        assert_eq!(all[0].value("message"), Some(&Variant::from("x".repeat(500).as_str())));
    }
}
