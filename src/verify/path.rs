//! Certification paths: from a certificate to an authority that the policy trusts; RFC 5280, 6, as the verifier of
//! Go's crypto/x509 does it for code signing (rule C-33).

use x509_cert::der::asn1::ObjectIdentifier;

use super::certificate::Certificate;
use super::{Rejection, Timestamp};

/// A certificate has a path to one of `authorities` by way of any of `others`, all of which are valid at `time`.
///
/// The authorities need not be self-signed, and the certificate may itself be one of them. Nothing is revoked.
/// `tolerated` are extensions that the certificate itself may have as critical ones although they are not understood.
pub(in crate::verify) fn check(
    leaf: &Certificate,
    authorities: &[Certificate],
    others: &[&Certificate],
    tolerated: &[ObjectIdentifier],
    time: Timestamp,
) -> Result<(), Rejection> {
    let untrusted = |detail| Err(Rejection::SigningCertificateUntrusted { detail });
    if leaf.extensions.unknown.iter().any(|oid| !tolerated.contains(oid)) {
        return untrusted(UNKNOWN);
    }
    let mut distinct: Vec<&Certificate> = Vec::new();
    for other in others {
        if !distinct.iter().any(|known| known.der() == other.der()) {
            distinct.push(other);
        }
    }
    if !leaf.is_valid_at(time) {
        let (not_before, not_after) = (leaf.not_before, leaf.not_after);
        return Err(Rejection::SigningCertificateExpired { time, not_before, not_after });
    }
    let authorities: Vec<&Certificate> = authorities.iter().collect();
    let mut search =
        Search { authorities: &authorities, others: &distinct, time, checks_left: CHECKS, fault: NO_ISSUER };
    let mut path = vec![leaf];
    let found = if authorities.iter().any(|authority| authority.der() == leaf.der()) {
        search.accepts(&path)
    } else if leaf.extensions.restricts_policies {
        search.fault = POLICIES;
        false
    } else {
        search.extend(&mut path)
    };
    if found { Ok(()) } else { untrusted(search.fault) }
}

/// A search, depth first, that ends at the first path that may be used.
struct Search<'a> {
    authorities: &'a [&'a Certificate],
    others: &'a [&'a Certificate],
    time: Timestamp,
    checks_left: u32,
    /// Why the last path that was tried cannot be used.
    fault: &'static str,
}

impl<'a> Search<'a> {
    /// Tries every issuer of the last certificate, authorities first.
    fn extend(&mut self, path: &mut Vec<&'a Certificate>) -> bool {
        let Some(last) = path.last().copied() else { return false };
        for (certificates, is_end) in [(self.authorities, true), (self.others, false)] {
            let mut issuers: Vec<&Certificate> =
                certificates.iter().copied().filter(|issuer| last.names_as_issuer(issuer)).collect();
            issuers.sort_by_key(|issuer| last.distance(issuer));
            for issuer in issuers {
                let Some(left) = self.checks_left.checked_sub(1) else {
                    self.fault = TOO_MANY;
                    return false;
                };
                self.checks_left = left;
                if issuer.key.is_none() || path.iter().any(|known| issuer.repeats(known)) {
                    continue;
                }
                if let Err(fault) = self.check_issuer(path, last, issuer, is_end) {
                    self.fault = fault;
                    continue;
                }
                path.push(issuer);
                if if is_end { self.accepts(path) } else { self.extend(path) } {
                    return true;
                }
                path.pop();
            }
        }
        false
    }

    /// Whether `issuer` may stand above `last`, the end of `path`.
    fn check_issuer(
        &self,
        path: &[&Certificate],
        last: &Certificate,
        issuer: &Certificate,
        is_end: bool,
    ) -> Result<(), &'static str> {
        if !issuer.may_sign_certificates() || !is_end && !issuer.is_authority() {
            return Err("a certificate of its chain may not issue certificates");
        }
        if !issuer.extensions.unknown.is_empty() {
            return Err(UNKNOWN);
        }
        if !issuer.is_valid_at(self.time) {
            return Err("a certificate of its chain has expired, or was not yet valid");
        }
        if !issuer.allows_below(path.len().saturating_sub(1)) {
            return Err("its chain is longer than an authority allows");
        }
        if !is_end && issuer.extensions.restricts_policies {
            return Err(POLICIES);
        }
        // The costly check comes last; all must pass.
        if !last.is_signed_by(issuer) {
            return Err("a signature of its chain does not verify, or its algorithm is too weak");
        }
        Ok(())
    }

    /// What the certificates of a whole path must have in common: the purpose, and allowed names.
    fn accepts(&mut self, path: &[&Certificate]) -> bool {
        if !path.iter().all(|certificate| certificate.is_for_code_signing()) {
            self.fault = "it, or a certificate of its chain, is not for code signing";
            return false;
        }
        let is_allowed = |(n, certificate): (usize, &&Certificate)| {
            let Some(names) = &certificate.extensions.names else { return true };
            let above = path.iter().skip(n.saturating_add(1));
            above.filter_map(|issuer| issuer.extensions.constraints.as_ref()).all(|c| c.allow(names))
        };
        if !path.iter().enumerate().all(is_allowed) {
            self.fault = "an authority of its chain may not issue certificates for its names";
            return false;
        }
        true
    }
}

/// Most issuers that are tried, as in Go's crypto/x509: names can be made to agree, so that there may be many paths.
const CHECKS: u32 = 100;

const NO_ISSUER: &str = "no authority of the requirement has issued it";
const POLICIES: &str = "a certificate of its chain restricts policies, which are not evaluated";
const TOO_MANY: &str = "its chain can be built in too many ways";
const UNKNOWN: &str = "it, or a certificate of its chain, has a critical extension that is not known";
