//! [`Audit`]: whether a key could verify anything, asked before there is a signature.

use std::time::SystemTime;

use sequoia_openpgp::cert::prelude::*;
use sequoia_openpgp::packet::key::PublicParts;
use sequoia_openpgp::types::HashAlgorithm;

use crate::verify::{Rejection, Timestamp};

use super::{
    Certificates, bound_key, check_algorithm, check_capability, check_expiry, check_revocation, moment,
    primary, rules,
};

/// What is to be known of one OpenPGP certificate of a key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Fingerprint of the primary key, upper-case hexadecimal.
    pub fingerprint: String,
    /// Why no signature by it would count now, if so: the reason that [`super::verify`] would give.
    pub fault: Option<Rejection>,
    /// When the last of its keys that can sign expires, if they do.
    pub expires: Option<Timestamp>,
    /// Whether without self-signatures by SHA-1 no signature by it would count.
    pub is_bound_by_sha1: bool,
}

impl Certificates {
    /// Examines every certificate, at `now`, as if each of its keys had signed (rules G-5 to G-9).
    pub fn audit(&self, now: Timestamp) -> Result<Vec<Audit>, Rejection> {
        let moment = moment(now)?;
        Ok(self.certs.iter().map(|cert| audit(cert, moment)).collect())
    }

    /// Whether there are more certificates than are read; then none counts.
    pub fn are_too_many(&self) -> bool {
        self.too_many
    }

    /// Whether one of the keys came with its secret part.
    pub fn have_secrets(&self) -> bool {
        self.have_secrets
    }
}

fn audit(cert: &Cert, now: SystemTime) -> Audit {
    let keys: Vec<_> =
        cert.keys().filter(|key| key.primary() || key.self_signatures().next().is_some()).collect();
    let (mut faults, mut ends, mut is_bound_by_sha1) = (Vec::new(), Vec::new(), true);
    for key in &keys {
        match check(cert, key, now, &rules(now)) {
            Ok(end) => {
                ends.push(end);
                let mut strict = rules(now);
                strict.reject_hash(HashAlgorithm::SHA1);
                is_bound_by_sha1 &= check(cert, key, now, &strict).is_err();
            }
            Err(fault) => faults.push(fault),
        }
    }
    // That a primary key does not sign says less than what is wrong with the subkey that does.
    faults.sort_by_key(|fault| matches!(fault, Rejection::KeyUnusable { .. }));
    let is_usable = !ends.is_empty();
    Audit {
        fingerprint: cert.fingerprint().to_hex(),
        fault: faults.into_iter().next().filter(|_| !is_usable),
        expires: ends.into_iter().collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max()),
        is_bound_by_sha1: is_usable && is_bound_by_sha1,
    }
}

/// What [`super::verify`] asks of the key behind a signature; its end, if it has one.
fn check(
    cert: &Cert,
    key: &ErasedKeyAmalgamation<'_, PublicParts>,
    now: SystemTime,
    rules: &sequoia_openpgp::policy::StandardPolicy<'_>,
) -> Result<Option<Timestamp>, Rejection> {
    check_algorithm(key.key())?;
    check_algorithm(primary(cert))?;
    check_revocation(cert, key, rules)?;
    let key = bound_key(key, rules, now)?;
    check_expiry(&key, now)?;
    check_capability(&key)?;
    let ends = [key.key_expiration_time(), key.valid_cert().primary_key().key_expiration_time()];
    Ok(ends.into_iter().flatten().min().and_then(timestamp))
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let elapsed = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(elapsed.as_secs()).ok().map(Timestamp)
}
