//! [`Facts`]: which signatures a key has been found to have made.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};

/// Good signatures that are remembered with a key: 128, in 32 bytes each.
const KEPT: usize = 128;

/// Public-key operations whose result was yes, remembered as long as the parsed key is (T-18).
///
/// That a key made a signature is true for ever. Whether it counts depends on names, times and policies, and is found out
/// anew each time. What was not good is not remembered: anybody can send that.
#[derive(Debug, Default)]
pub(in crate::verify) struct Facts(Mutex<VecDeque<[u8; 32]>>);

impl Facts {
    /// Whether the key made a signature over a message: as found out before, or as `verify` finds out.
    ///
    /// `operation` is everything that `verify` depends on but the signature: algorithm, key and message.
    pub(in crate::verify) fn established(
        &self,
        operation: [&[u8]; 3],
        signature: &[u8],
        verify: impl FnOnce() -> bool,
    ) -> bool {
        let fact = fact(operation, signature);
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&fact) {
            return true;
        }
        let is_good = verify();
        if is_good {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= KEPT {
                known.pop_front();
            }
            known.push_back(fact);
        }
        is_good
    }
}

/// The SHA-256 of all parts, each after its length, so that none runs into the next.
fn fact(operation: [&[u8]; 3], signature: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in operation.into_iter().chain([signature]) {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    let mut fact = [0; 32];
    fact.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    fact
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rule T-18.
    #[test]
    fn only_what_was_good_is_remembered_and_only_so_much() {
        let facts = Facts::default();
        let established = |message: &[u8], signature: &[u8], result: Option<bool>| {
            let verify = || result.expect("it is known");
            facts.established([b"algorithm", b"key", message], signature, verify)
        };
        assert!(!established(b"m", b"s", Some(false)));
        assert!(established(b"m", b"s", Some(true)));
        assert!(established(b"m", b"s", None));
        // Nothing else is known thereby.
        for (message, signature) in [(&b"ms"[..], &b""[..]), (b"", b"ms"), (b"m", b"S"), (b"n", b"s")] {
            assert!(!established(message, signature, Some(false)));
        }
        for other in [[b"Algorithm", b"key".as_slice()], [b"algorithm", b"Key".as_slice()]] {
            assert!(!facts.established([other[0], other[1], b"m"], b"s", || false));
        }
        for number in 0..KEPT {
            assert!(established(b"m", &number.to_be_bytes(), Some(true)));
        }
        assert_eq!(facts.0.lock().unwrap().len(), KEPT);
        assert!(!established(b"m", b"s", Some(false)), "the oldest was forgotten");
        assert!(established(b"m", &5_usize.to_be_bytes(), None));
    }
}
