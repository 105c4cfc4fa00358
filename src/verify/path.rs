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
    /// Why no path that was tried can be used.
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
                    self.note(TOO_MANY);
                    return false;
                };
                self.checks_left = left;
                if issuer.key.is_none() || path.iter().any(|known| issuer.repeats(known)) {
                    continue;
                }
                if let Err(fault) = self.check_issuer(path, last, issuer, is_end) {
                    self.note(fault);
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

    /// Keeps the fault that says most: authorities may share a name, so that a wrong key alone says little.
    fn note(&mut self, fault: &'static str) {
        if matches!(self.fault, NO_ISSUER | BAD_SIGNATURE) {
            self.fault = fault;
        }
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
            return Err(BAD_SIGNATURE);
        }
        Ok(())
    }

    /// What the certificates of a whole path must have in common: the purpose, and allowed names.
    fn accepts(&mut self, path: &[&Certificate]) -> bool {
        if !path.iter().all(|certificate| certificate.is_for_code_signing()) {
            self.note("it, or a certificate of its chain, is not for code signing");
            return false;
        }
        let is_allowed = |(n, certificate): (usize, &&Certificate)| {
            let Some(names) = &certificate.extensions.names else { return true };
            let above = path.iter().skip(n.saturating_add(1));
            above.filter_map(|issuer| issuer.extensions.constraints.as_ref()).all(|c| c.allow(names))
        };
        if !path.iter().enumerate().all(is_allowed) {
            self.note("an authority of its chain may not issue certificates for its names");
            return false;
        }
        true
    }
}

/// Most issuers that are tried, as in Go's crypto/x509: names can be made to agree, so that there may be many paths.
const CHECKS: u32 = 100;

const BAD_SIGNATURE: &str = "a signature of its chain does not verify, or its algorithm is too weak";
const NO_ISSUER: &str = "no authority of the requirement has issued it";
const POLICIES: &str = "a certificate of its chain restricts policies, which are not evaluated";
const TOO_MANY: &str = "its chain can be built in too many ways";
const UNKNOWN: &str = "it, or a certificate of its chain, has a critical extension that is not known";

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CidrSubnet, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
        KeyPair, KeyUsagePurpose, NameConstraints,
    };

    use super::{BAD_SIGNATURE, NO_ISSUER, POLICIES, TOO_MANY, UNKNOWN, check};
    use crate::verify::certificate::{Certificate, SUBJECT_ALT_NAME};
    use crate::verify::samples::{
        FIRST, Issued, LAST, MIDDLE, authority, dns, email, extension, signer, uri,
    };
    use crate::verify::{Rejection, Timestamp};

    const EXPIRED: &str = "a certificate of its chain has expired, or was not yet valid";
    const MAY_NOT_ISSUE: &str = "a certificate of its chain may not issue certificates";
    const NAME: &str = "an authority of its chain may not issue certificates for its names";
    const PURPOSE: &str = "it, or a certificate of its chain, is not for code signing";
    const TOO_LONG: &str = "its chain is longer than an authority allows";
    const LEAF_EXPIRED: &str = "leaf";

    fn outcome(result: Result<(), Rejection>) -> Option<&'static str> {
        result.err().map(|rejection| {
            if let Rejection::SigningCertificateUntrusted { detail } = rejection {
                return detail;
            }
            assert!(matches!(rejection, Rejection::SigningCertificateExpired { .. }), "{rejection}");
            LEAF_EXPIRED
        })
    }

    fn find(
        leaf: &Issued,
        authorities: &[&Issued],
        others: &[&Issued],
        time: Timestamp,
    ) -> Option<&'static str> {
        let read = |issued: &&Issued| issued.read();
        let authorities: Vec<Certificate> = authorities.iter().map(read).collect();
        let others: Vec<Certificate> = others.iter().map(read).collect();
        outcome(check(&leaf.read(), &authorities, &others.iter().collect::<Vec<_>>(), &[], time))
    }

    /// Root, intermediate and leaf, changed before they are issued.
    fn three(change: impl Fn(&mut [CertificateParams; 3])) -> [Issued; 3] {
        let mut params = [authority("root"), authority("between"), signer(&[email("a@b.example")])];
        change(&mut params);
        let [root, between, leaf] = params;
        let root = Issued::new(root, None);
        let between = Issued::new(between, Some(&root));
        let leaf = Issued::new(leaf, Some(&between));
        [root, between, leaf]
    }

    type Change = fn(&mut [CertificateParams; 3]);

    // Rule C-33: basic constraints, key usage, path length, critical extensions, policies.
    #[test]
    fn every_certificate_of_a_path_must_allow_it() {
        let rows: [(&str, Change, Option<&str>); 21] = [
            ("as made", |_| {}, None),
            ("no basic constraints", |p| p[1].is_ca = IsCa::NoCa, Some(MAY_NOT_ISSUE)),
            ("no authority", |p| p[1].is_ca = IsCa::ExplicitNoCa, Some(MAY_NOT_ISSUE)),
            ("a root that is no authority", |p| p[0].is_ca = IsCa::ExplicitNoCa, Some(MAY_NOT_ISSUE)),
            ("no key usage", |p| p[1].key_usages.clear(), None),
            ("another key usage", |p| p[1].key_usages = vec![KeyUsagePurpose::CrlSign], Some(MAY_NOT_ISSUE)),
            (
                "another key usage of the root",
                |p| p[0].key_usages = vec![KeyUsagePurpose::DigitalSignature],
                Some(MAY_NOT_ISSUE),
            ),
            (
                "the leaf's key usage does not count",
                |p| p[2].key_usages = vec![KeyUsagePurpose::KeyAgreement],
                None,
            ),
            (
                "length 0 of the root",
                |p| p[0].is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
                Some(TOO_LONG),
            ),
            ("length 1 of the root", |p| p[0].is_ca = IsCa::Ca(BasicConstraints::Constrained(1)), None),
            ("length 0 in between", |p| p[1].is_ca = IsCa::Ca(BasicConstraints::Constrained(0)), None),
            (
                "unknown and critical",
                |p| p[2].custom_extensions.push(extension(&[1, 2, 3, 4], true, b"\x05\x00")),
                Some(UNKNOWN),
            ),
            (
                "unknown and critical in between",
                |p| p[1].custom_extensions.push(extension(&[1, 2, 3, 4], true, b"\x05\x00")),
                Some(UNKNOWN),
            ),
            (
                "unknown and critical in the root",
                |p| p[0].custom_extensions.push(extension(&[1, 2, 3, 4], true, b"\x05\x00")),
                Some(UNKNOWN),
            ),
            ("unknown", |p| p[1].custom_extensions.push(extension(&[1, 2, 3, 4], false, b"\x05\x00")), None),
            (
                "policies",
                |p| {
                    p[2].custom_extensions.push(extension(
                        &[2, 5, 29, 32],
                        true,
                        b"\x30\x07\x30\x05\x06\x03\x2a\x03\x04",
                    ))
                },
                None,
            ),
            (
                "policy constraints",
                |p| p[2].custom_extensions.push(extension(&[2, 5, 29, 36], true, b"\x30\x03\x80\x01\x00")),
                Some(POLICIES),
            ),
            (
                "policy constraints in between",
                |p| p[1].custom_extensions.push(extension(&[2, 5, 29, 36], false, b"\x30\x03\x80\x01\x00")),
                Some(POLICIES),
            ),
            (
                "policy mappings",
                |p| p[1].custom_extensions.push(extension(&[2, 5, 29, 33], false, b"\x30\x00")),
                Some(POLICIES),
            ),
            (
                "policy constraints of the root",
                |p| p[0].custom_extensions.push(extension(&[2, 5, 29, 36], true, b"\x30\x03\x80\x01\x00")),
                None,
            ),
            (
                "a critical name of an unknown form",
                |p| {
                    p[2].subject_alt_names.clear();
                    p[2].custom_extensions.push(extension(
                        &[2, 5, 29, 17],
                        true,
                        b"\x30\x05\x88\x03\x2a\x03\x04",
                    ));
                },
                Some(UNKNOWN),
            ),
        ];
        for (what, change, wanted) in rows {
            let [root, between, leaf] = three(change);
            assert_eq!(find(&leaf, &[&root], &[&between], MIDDLE), wanted, "{what}");
        }
    }

    // Rule C-33: that a critical SAN of unknown forms is tolerated in the leaf, and nothing else is.
    #[test]
    fn what_is_tolerated_in_a_leaf_is_named() {
        let judge = |of: usize, oid: &[u64], value: &[u8]| {
            let [root, between, leaf] = three(|p| {
                p[2].subject_alt_names.clear();
                p[of].custom_extensions.push(extension(oid, true, value));
            });
            outcome(check(&leaf.read(), &[root.read()], &[&between.read()], &[SUBJECT_ALT_NAME], MIDDLE))
        };
        let names = b"\x30\x05\x88\x03\x2a\x03\x04";
        assert_eq!(judge(2, &[2, 5, 29, 17], names), None);
        assert_eq!(judge(1, &[2, 5, 29, 17], names), Some(UNKNOWN));
        assert_eq!(judge(2, &[1, 2, 3, 4], b"\x05\x00"), Some(UNKNOWN));
    }

    // Rules C-33, C-41: both ends of the validity count, of every certificate.
    #[test]
    fn every_certificate_is_valid_at_the_time() {
        let day = |y, m, d| rcgen::date_time_ymd(y, m, d);
        let [root, between, leaf] = three(|_| {});
        for (time, wanted) in [
            (FIRST.0 - 1, Some(LEAF_EXPIRED)),
            (FIRST.0, None),
            (LAST.0, None),
            (LAST.0 + 1, Some(LEAF_EXPIRED)),
            (0, Some(LEAF_EXPIRED)),
            (i64::MIN, Some(LEAF_EXPIRED)),
            (i64::MAX, Some(LEAF_EXPIRED)),
        ] {
            assert_eq!(find(&leaf, &[&root], &[&between], Timestamp(time)), wanted, "{time}");
        }
        for of in [0, 1] {
            for (from, to, wanted) in [
                (day(2024, 8, 1), day(2025, 1, 1), Some(EXPIRED)),
                (day(2023, 1, 1), day(2024, 2, 1), Some(EXPIRED)),
                (day(2023, 1, 1), day(2026, 1, 1), None),
            ] {
                let [root, between, leaf] = three(|p| (p[of].not_before, p[of].not_after) = (from, to));
                assert_eq!(find(&leaf, &[&root], &[&between], MIDDLE), wanted, "{of} {from}");
            }
        }
    }

    // Rule C-33: a purpose that one certificate leaves out, nobody below can have.
    #[test]
    fn purposes_are_nested() {
        use ExtendedKeyUsagePurpose::{Any, CodeSigning, Other, ServerAuth};
        let other = || Other(vec![1, 2, 3, 4]);
        let rows: [([&[ExtendedKeyUsagePurpose]; 3], bool); 13] = [
            ([&[], &[], &[]], true),
            ([&[], &[], &[CodeSigning]], true),
            ([&[], &[], &[ServerAuth, CodeSigning]], true),
            ([&[], &[], &[Any]], true),
            ([&[], &[], &[other(), Any]], true),
            ([&[], &[], &[ServerAuth]], false),
            ([&[], &[], &[other()]], false),
            ([&[], &[CodeSigning], &[CodeSigning]], true),
            ([&[], &[ServerAuth], &[CodeSigning]], false),
            ([&[], &[ServerAuth], &[]], false),
            ([&[ServerAuth], &[], &[CodeSigning]], false),
            ([&[Any], &[CodeSigning], &[Any]], true),
            ([&[other()], &[Any], &[Any]], false),
        ];
        for (purposes, allowed) in rows {
            let [root, between, leaf] = three(|p| {
                for (params, purposes) in p.iter_mut().zip(purposes) {
                    params.extended_key_usages = purposes.to_vec();
                }
            });
            let wanted = (!allowed).then_some(PURPOSE);
            assert_eq!(find(&leaf, &[&root], &[&between], MIDDLE), wanted, "{purposes:?}");
        }
    }

    // Rule C-33: names below an authority with constraints, wherever it stands.
    #[test]
    fn names_are_within_the_constraints_of_all_above() {
        let permit = |subtrees: Vec<GeneralSubtree>| {
            Some(NameConstraints { permitted_subtrees: subtrees, excluded_subtrees: Vec::new() })
        };
        let mail = |host: &str| GeneralSubtree::Rfc822Name(host.to_owned());
        for of in [0, 1] {
            for (host, wanted) in [
                ("b.example", None),
                ("a@b.example", None),
                ("c.example", Some(NAME)),
                (".b.example", Some(NAME)),
            ] {
                let [root, between, leaf] = three(|p| p[of].name_constraints = permit(vec![mail(host)]));
                assert_eq!(find(&leaf, &[&root], &[&between], MIDDLE), wanted, "{of} {host}");
            }
        }
        // Constraints do not bind the certificate that has them, and what has no names obeys them.
        let [root, between, leaf] = three(|p| {
            p[1].subject_alt_names = vec![dns("other.example")];
            p[1].name_constraints = permit(vec![GeneralSubtree::DnsName("b.example".to_owned())]);
        });
        assert_eq!(find(&leaf, &[&root], &[&between], MIDDLE), None);
        let [root, between, leaf] = three(|p| {
            p[1].subject_alt_names = vec![dns("other.example")];
            p[0].name_constraints = permit(vec![GeneralSubtree::DnsName("b.example".to_owned())]);
        });
        assert_eq!(find(&leaf, &[&root], &[&between], MIDDLE), Some(NAME), "names of an authority");
        // A name that cannot be compared obeys no constraint, even one about other forms.
        let [root, between, leaf] = three(|p| {
            p[2].subject_alt_names.push(uri("urn:x:y"));
            let network = CidrSubnet::from_v4_prefix([10, 0, 0, 0], 8);
            p[1].name_constraints = permit(vec![GeneralSubtree::IpAddress(network)]);
        });
        assert_eq!(find(&leaf, &[&root], &[&between], MIDDLE), Some(NAME));
    }

    // Rules C-30, C-32: what an authority is, and what a chain contributes.
    #[test]
    fn authorities_are_what_the_policy_says() {
        let [root, between, leaf] = three(|_| {});
        let [stranger, ..] = three(|_| {});
        for (what, authorities, others, wanted) in [
            ("nothing in between", vec![&root], vec![], Some(NO_ISSUER)),
            ("an authority that is not self-signed", vec![&between], vec![], None),
            (
                "an authority with the same name and another key",
                vec![&stranger],
                vec![&between],
                Some(BAD_SIGNATURE),
            ),
            ("both of that name", vec![&stranger, &root], vec![&between], None),
            ("no authority", vec![], vec![&root, &between], Some(NO_ISSUER)),
            ("the leaf itself", vec![&leaf], vec![], None),
            ("the same twice", vec![&root], vec![&between, &between, &root], None),
        ] {
            assert_eq!(find(&leaf, &authorities, &others, MIDDLE), wanted, "{what}");
        }
        let [.., other] = three(|p| p[2].extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        assert_eq!(find(&other, &[&other], &[], MIDDLE), Some(PURPOSE));
        assert_eq!(find(&leaf, &[&leaf], &[], Timestamp(LAST.0 + 1)), Some(LEAF_EXPIRED));
    }

    // Rule C-33: the search ends, although a hundred certificates bear the same name, and two sign each other.
    #[test]
    fn the_search_is_bounded() {
        let [root, between, leaf] = three(|_| {});
        let impostors: Vec<Issued> = (0..150).map(|_| Issued::new(authority("between"), None)).collect();
        let with = |count: usize| {
            let mut others: Vec<&Issued> = impostors.iter().take(count).collect();
            others.push(&between);
            // Key identifiers would put the right one first.
            let mut params = leaf.params.clone();
            params.use_authority_key_identifier_extension = false;
            let leaf = Issued::new(params, Some(&between));
            find(&leaf, &[&root], &others, MIDDLE)
        };
        assert_eq!(with(90), None);
        assert_eq!(with(150), Some(TOO_MANY));
        let (one, two) = (Issued::new(authority("one"), None), Issued::new(authority("two"), None));
        let again = |name: &str, key: &KeyPair, issuer: &Issued| {
            let key = KeyPair::from_pem(&key.serialize_pem()).unwrap();
            Issued::with_key(authority(name), key, Some(issuer))
        };
        let (by_two, by_one) = (again("one", &one.key, &two), again("two", &two.key, &one));
        let leaf = Issued::new(signer(&[]), Some(&one));
        assert_eq!(find(&leaf, &[&root], &[&one, &two, &by_two, &by_one], MIDDLE), Some(NO_ISSUER));
    }

    // Rule C-33: every algorithm that the library has, with the leaf as the signed certificate.
    #[test]
    fn authorities_sign_with_every_good_algorithm() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA256,
            &rcgen::PKCS_ECDSA_P521_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_RSA_SHA384,
            &rcgen::PKCS_RSA_SHA512,
        ] {
            let root = Issued::with_key(authority("root"), KeyPair::generate_for(algorithm).unwrap(), None);
            let mut leaf = Issued::new(signer(&[]), Some(&root));
            assert_eq!(find(&leaf, &[&root], &[], MIDDLE), None, "{algorithm:?}");
            let last = leaf.der.len() - 1;
            leaf.der[last] ^= 1;
            assert_eq!(find(&leaf, &[&root], &[], MIDDLE), Some(BAD_SIGNATURE), "{algorithm:?}");
        }
    }
}
