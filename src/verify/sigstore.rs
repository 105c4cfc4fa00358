//! sigstoreSigned: a payload and its annotations → [`Verified`] claim (rules C-1 to C-13).

use std::sync::Arc;

use crate::digest::Digest;
use crate::json;

use super::certificate::{self, Certificate};
use super::fulcio::{self, Identity};
use super::key::{KeyError, PublicKey};
use super::pki;
use super::rekor::Entry;
use super::trust::KeyMaterial;
use super::{Claim, Payload, Rejection, SIGNATURE_BYTES, Signer, Timestamp, UntrustedSigstore, Verified};

pub use super::pki::Subject;

/// The media type of a cosign signature layer (rule C-1).
pub const SIGNATURE_MIME_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Whose signatures count, with what is trusted to tell. Nothing is taken from anywhere else (T-15).
#[derive(Clone, Debug)]
pub enum Trust<'p> {
    /// A certificate by Fulcio, valid when a log took the signature.
    Fulcio {
        /// Certificates of the authority.
        authorities: Arc<KeyMaterial>,
        /// Keys of logs, any of which will do.
        logs: Vec<Arc<KeyMaterial>>,
        /// The OIDC issuer.
        issuer: &'p str,
        /// The e-mail address.
        email: &'p str,
    },
    /// Public keys, any of which will do.
    Keys {
        /// The keys.
        keys: Vec<Arc<KeyMaterial>>,
    },
    /// The same, and a log must have taken the signature.
    LoggedKeys {
        /// The keys.
        keys: Vec<Arc<KeyMaterial>>,
        /// Keys of logs, any of which will do.
        logs: Vec<Arc<KeyMaterial>>,
    },
    /// A certificate by an authority of one's own, valid now.
    Pki {
        /// Certificates of the authority.
        authorities: Arc<KeyMaterial>,
        /// Certificates between, besides those that come with the signature.
        intermediates: Option<Arc<KeyMaterial>>,
        /// Who must have signed.
        subject: Subject<'p>,
    },
}

/// Verifies one signature layer. All that is trusted must be usable, whatever the signature is (rules C-3, C-6, C-10).
pub fn verify(
    signature: &UntrustedSigstore,
    trust: &Trust<'_>,
    now: Timestamp,
) -> Result<Verified<Claim>, Rejection> {
    let certified: PublicKey;
    let (keys, names, time) = match trust {
        Trust::Fulcio { authorities, logs, issuer, email } => {
            let (leaf, time) = fulcio_leaf(signature, authorities, logs, Some(Identity { issuer, email }))?;
            certified = key_of(&leaf)?;
            let names = ((*issuer).to_owned(), (*email).to_owned());
            (vec![&certified], Some(names), Some(time))
        }
        Trust::Keys { keys } => (usable(keys, KeyMaterial::public_key)?, None, None),
        Trust::LoggedKeys { keys, logs } => {
            let keys = usable(keys, KeyMaterial::public_key)?;
            let logs = usable(logs, KeyMaterial::log_key)?;
            let entry = Layer::of(signature)?.entry(&logs)?;
            // The entry names one key, and only that one is tried (rule C-6).
            let key = keys.into_iter().find(|key| entry.get().is_of(key.spki())).ok_or_else(|| {
                let detail = "it is for a key that the policy does not accept".to_owned();
                Rejection::LogEntryInvalid { detail }
            })?;
            (vec![key], None, None)
        }
        Trust::Pki { authorities, intermediates, subject } => {
            let authorities = certificates(authorities, KeyMaterial::authorities)?;
            let between = match intermediates {
                Some(material) => certificates(material, KeyMaterial::intermediates)?,
                None => &[],
            };
            let layer = Layer::of(signature)?;
            let leaf = pki::verify(layer.certificate()?, layer.chain(), authorities, between, *subject, now)?;
            certified = key_of(&leaf)?;
            (vec![&certified], Some((leaf.issuer_name(), subject.words())), None)
        }
    };
    let layer = Layer::of(signature)?;
    let key = keys.into_iter().find(|key| key.verifies(layer.payload, &layer.signature));
    let spki = key.ok_or(Rejection::BadSignature)?.id().clone();
    let signer = match names {
        Some((issuer, subject)) => Signer::Certificate { spki, issuer, subject },
        None => Signer::PublicKey { spki },
    };
    let payload = Payload::parse_cosign(layer.payload)?;
    Ok(Verified::assert(Claim { payload, signer, time }))
}

/// A verified signature by the holder of a certificate by Fulcio.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The signed statement. It may be about another image.
    pub payload: Payload,
    /// The certificate in DER. Its names have been judged by nobody yet.
    pub certificate: Vec<u8>,
    /// SHA-256 of its key's SubjectPublicKeyInfo.
    pub spki: Digest,
    /// When a log took the signature.
    pub time: Timestamp,
}

/// Verifies one signature layer as with [`Trust::Fulcio`], but for whose the certificate is.
pub fn verify_certified(
    signature: &UntrustedSigstore,
    authorities: &KeyMaterial,
    logs: &[Arc<KeyMaterial>],
) -> Result<Verified<Certified>, Rejection> {
    let (leaf, time) = fulcio_leaf(signature, authorities, logs, None)?;
    let (key, layer) = (key_of(&leaf)?, Layer::of(signature)?);
    if !key.verifies(layer.payload, &layer.signature) {
        return Err(Rejection::BadSignature);
    }
    let payload = Payload::parse_cosign(layer.payload)?;
    let (certificate, spki) = (leaf.der().to_vec(), key.id().clone());
    Ok(Verified::assert(Certified { payload, certificate, spki, time }))
}

/// Whether a layer comes with a certificate; an empty one is none, as for cosign.
pub fn has_certificate(signature: &UntrustedSigstore) -> bool {
    signature.annotations.get(CERTIFICATE_ANNOTATION).is_some_and(|text| !text.is_empty())
}

/// The form of a layer is good, whoever signed it.
pub fn check_form(signature: &UntrustedSigstore) -> Result<(), Rejection> {
    Layer::of(signature).map(|_| ())
}

/// The certificate of a layer, and when a log took the signature (rules C-30 to C-35).
fn fulcio_leaf(
    signature: &UntrustedSigstore,
    authorities: &KeyMaterial,
    logs: &[Arc<KeyMaterial>],
    identity: Option<Identity<'_>>,
) -> Result<(Certificate, Timestamp), Rejection> {
    let authorities = certificates(authorities, KeyMaterial::authorities)?;
    let logs = usable(logs, KeyMaterial::log_key)?;
    let layer = Layer::of(signature)?;
    let entry = layer.entry(&logs)?;
    let leaf = fulcio::verify(&entry, layer.certificate()?, layer.chain(), authorities, identity)?;
    Ok((leaf, entry.get().time))
}

/// A signature layer with its signature decoded (rule C-2).
struct Layer<'s> {
    payload: &'s [u8],
    signature: Vec<u8>,
    source: &'s UntrustedSigstore,
}

impl<'s> Layer<'s> {
    fn of(source: &'s UntrustedSigstore) -> Result<Self, Rejection> {
        let malformed = |detail| Rejection::MalformedSignature { detail };
        if source.payload.len() > SIGNATURE_BYTES {
            return Err(malformed("the payload is larger than 4 MiB"));
        }
        let encoded = source
            .annotations
            .get(SIGNATURE_ANNOTATION)
            .ok_or(malformed("the layer has no signature annotation"))?;
        let signature =
            json::decode_base64(encoded).ok_or(malformed("the signature annotation is not base64"))?;
        Ok(Self { payload: &source.payload, signature, source })
    }

    /// What a log has signed for, which must be this signature of this payload (rule C-24).
    fn entry(&self, logs: &[&PublicKey]) -> Result<Verified<Entry>, Rejection> {
        let set = self.source.annotations.get(BUNDLE_ANNOTATION).ok_or(Rejection::LogEntryMissing)?;
        let entry = Verified::of_set(set, logs)?;
        entry.get().check(&self.signature, self.payload)?;
        Ok(entry)
    }

    fn certificate(&self) -> Result<&'s str, Rejection> {
        let found = self.source.annotations.get(CERTIFICATE_ANNOTATION);
        found.map(String::as_str).ok_or(Rejection::SigningCertificateMissing)
    }

    fn chain(&self) -> Option<&'s String> {
        self.source.annotations.get(CHAIN_ANNOTATION)
    }
}

/// Every key, or why one of them cannot be used (rule C-3).
fn usable<'k>(
    materials: &'k [Arc<KeyMaterial>],
    read: impl Fn(&'k KeyMaterial) -> Result<&'k PublicKey, KeyError>,
) -> Result<Vec<&'k PublicKey>, Rejection> {
    let one = |material: &'k Arc<KeyMaterial>| {
        read(material).map_err(|error| Rejection::KeyFileInvalid {
            source: material.source().to_owned(),
            detail: error.detail(),
        })
    };
    materials.iter().map(one).collect()
}

fn certificates<'k>(
    material: &'k KeyMaterial,
    read: impl Fn(&'k KeyMaterial) -> Result<&'k [Certificate], certificate::Error>,
) -> Result<&'k [Certificate], Rejection> {
    read(material).map_err(|error| Rejection::KeyFileInvalid {
        source: material.source().to_owned(),
        detail: error.detail(),
    })
}

fn key_of(certificate: &Certificate) -> Result<PublicKey, Rejection> {
    let detail = "its key is of an algorithm that is not known";
    certificate.key.clone().ok_or(Rejection::SigningCertificateInvalid { detail })
}

/// Rule C-2.
pub(in crate::verify) const BUNDLE_ANNOTATION: &str = "dev.sigstore.cosign/bundle";
/// Rule C-2.
pub(in crate::verify) const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
/// Rule C-2.
const CHAIN_ANNOTATION: &str = "dev.sigstore.cosign/chain";
/// Rule C-2.
pub(in crate::verify) const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SanType, SigningKey};

    use super::{
        BUNDLE_ANNOTATION, CERTIFICATE_ANNOTATION, CHAIN_ANNOTATION, SIGNATURE_ANNOTATION, Subject, Trust,
        verify,
    };
    use crate::diagnostic::Code;
    use crate::verify::samples::{
        FIRST, Issued, LAST, MIDDLE, authority, base64, body, dns, email, extension, logged, pem, set,
        signer, uri,
    };
    use crate::verify::trust::KeyMaterial;
    use crate::verify::{Signer, Timestamp, UntrustedSigstore};

    const ISSUER: &str = "https://issuer.example";
    const PAYLOAD: &[u8] = br#"{"critical":{"type":"cosign container image signature","image":{"docker-manifest-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"identity":{"docker-reference":"a/b"}},"optional":null}"#;

    fn material(text: &str) -> Arc<KeyMaterial> {
        Arc::new(KeyMaterial::of_policy(text.as_bytes()))
    }

    fn public(keys: &[&KeyPair]) -> Vec<Arc<KeyMaterial>> {
        keys.iter().map(|key| material(&key.public_key_pem())).collect()
    }

    fn layer(key: &KeyPair, annotations: &[(&str, &str)]) -> UntrustedSigstore {
        let mut layer = UntrustedSigstore {
            mime_type: super::SIGNATURE_MIME_TYPE.to_owned(),
            payload: PAYLOAD.to_vec(),
            annotations: [(SIGNATURE_ANNOTATION.to_owned(), base64(&key.sign(PAYLOAD).unwrap()))].into(),
        };
        layer.annotations.extend(annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        layer
    }

    /// Adds what `log` says of the layer's signature by `verifier`, a PEM block.
    fn add_entry(layer: &mut UntrustedSigstore, log: &KeyPair, verifier: &str, time: Timestamp) {
        let signature = crate::json::decode_base64(&layer.annotations[SIGNATURE_ANNOTATION]).unwrap();
        let payload = logged(&body(verifier, &signature, PAYLOAD), time);
        layer.annotations.insert(BUNDLE_ANNOTATION.to_owned(), set(log, &payload, &payload));
    }

    fn code(layer: &UntrustedSigstore, trust: &Trust<'_>, now: Timestamp) -> Option<Code> {
        verify(layer, trust, now).err().map(|rejection| rejection.code())
    }

    fn keys() -> [KeyPair; 3] {
        [(); 3].map(|()| KeyPair::generate().unwrap())
    }

    // Rules C-5, C-6, C-25.
    #[test]
    fn a_log_entry_names_the_one_key_that_is_tried() {
        let [one, two, log] = keys();
        let logged = |signer: &KeyPair, named: &KeyPair| {
            let mut layer = layer(signer, &[]);
            add_entry(&mut layer, &log, &named.public_key_pem(), MIDDLE);
            layer
        };
        let trust =
            |keys: &[&KeyPair], log: &KeyPair| Trust::LoggedKeys { keys: public(keys), logs: public(&[log]) };
        let both = trust(&[&one, &two], &log);
        for (what, layer, trust, wanted) in [
            ("the first", logged(&one, &one), &both, None),
            ("the second", logged(&two, &two), &both, None),
            ("signed by another than the entry names", logged(&two, &one), &both, Some(Code::BadSignature)),
            ("a key of nobody", logged(&two, &two), &trust(&[&one], &log), Some(Code::LogEntryInvalid)),
            ("another log", logged(&one, &one), &trust(&[&one], &two), Some(Code::LogEntryInvalid)),
            ("no entry", layer(&one, &[]), &both, Some(Code::LogEntryMissing)),
            (
                "no logs",
                logged(&one, &one),
                &Trust::LoggedKeys { keys: public(&[&one]), logs: Vec::new() },
                Some(Code::LogEntryInvalid),
            ),
            // Without keys of logs nobody looks at the entry.
            (
                "an entry of nobody",
                layer(&one, &[(BUNDLE_ANNOTATION, "x")]),
                &Trust::Keys { keys: public(&[&two, &one]) },
                None,
            ),
        ] {
            assert_eq!(code(&layer, trust, MIDDLE), wanted, "{what}");
        }
        let claim = verify(&logged(&one, &one), &both, MIDDLE).unwrap();
        assert_eq!(claim.get().time, None, "the log's time is not the signer's");
        assert!(matches!(&claim.get().signer, Signer::PublicKey { .. }));
    }

    // Rules C-3, E-17: all that is trusted must be usable, whatever is attached.
    #[test]
    fn everything_trusted_is_loaded_first() {
        let [one, log, _] = keys();
        let root = Issued::new(authority("root"), None);
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let garbage = || material("x");
        let with = |mut list: Vec<Arc<KeyMaterial>>, other| {
            list.push(other);
            list
        };
        let fulcio =
            |authorities, logs| Trust::Fulcio { authorities, logs, issuer: ISSUER, email: "a@b.example" };
        let pki = |authorities, intermediates| Trust::Pki {
            authorities,
            intermediates,
            subject: Subject::Email("a"),
        };
        let mut layer = layer(&one, &[]);
        for (what, trust) in [
            ("a second key", Trust::Keys { keys: with(public(&[&one]), garbage()) }),
            ("a certificate as key", Trust::Keys { keys: with(public(&[&one]), material(&root.pem())) }),
            (
                "a log key",
                Trust::LoggedKeys { keys: public(&[&one]), logs: with(public(&[&log]), garbage()) },
            ),
            (
                "an Ed25519 log key",
                Trust::LoggedKeys { keys: public(&[&one]), logs: public(&[&log, &ed25519]) },
            ),
            ("an RSA log key", fulcio(material(&root.pem()), public(&[&log, &rsa]))),
            ("authorities", fulcio(garbage(), public(&[&log]))),
            ("a key as authority", fulcio(material(&one.public_key_pem()), public(&[&log]))),
            ("authorities of pki", pki(garbage(), None)),
            ("intermediates", pki(material(&root.pem()), Some(garbage()))),
            (
                "a broken intermediate",
                pki(material(&root.pem()), Some(material(&(root.pem() + &pem("CERTIFICATE", b"x"))))),
            ),
        ] {
            assert_eq!(code(&layer, &trust, MIDDLE), Some(Code::KeyFileInvalid), "{what}");
        }
        layer.annotations.clear();
        let trust = Trust::Keys { keys: public(&[&one]) };
        assert_eq!(code(&layer, &trust, MIDDLE), Some(Code::MalformedSignature));
    }

    /// Fulcio's extensions for an issuer, the older and the newer.
    const V1: &[u64] = &[1, 3, 6, 1, 4, 1, 57264, 1, 1];
    const V2: &[u64] = &[1, 3, 6, 1, 4, 1, 57264, 1, 8];

    /// An extension and its value.
    type Value<'a> = (&'static [u64], &'a [u8]);

    fn der_string(tag: u8, text: &str) -> Vec<u8> {
        [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    struct World {
        root: Issued,
        between: Issued,
        log: KeyPair,
    }

    impl World {
        fn new() -> Self {
            let root = Issued::new(authority("root"), None);
            let between = Issued::new(authority("between"), Some(&root));
            Self { root, between, log: KeyPair::generate().unwrap() }
        }

        fn leaf(&self, names: &[SanType], extensions: &[Value<'_>]) -> Issued {
            let mut params = signer(names);
            for (oid, value) in extensions {
                params.custom_extensions.push(extension(oid, false, value));
            }
            Issued::new(params, Some(&self.between))
        }

        fn layer(&self, leaf: &Issued, time: Timestamp) -> UntrustedSigstore {
            let chain = self.between.pem() + &self.root.pem();
            let mut layer =
                layer(&leaf.key, &[(CERTIFICATE_ANNOTATION, &leaf.pem()), (CHAIN_ANNOTATION, &chain)]);
            add_entry(&mut layer, &self.log, &leaf.pem(), time);
            layer
        }

        fn fulcio(&self) -> Trust<'static> {
            let (authorities, logs) = (material(&self.root.pem()), public(&[&self.log]));
            Trust::Fulcio { authorities, logs, issuer: ISSUER, email: "a@b.example" }
        }

        fn pki(&self, subject: Subject<'static>) -> Trust<'static> {
            Trust::Pki { authorities: material(&self.root.pem()), intermediates: None, subject }
        }
    }

    // Rules C-6, C-33: the certificate is judged at the time of the log, whatever the time is now.
    #[test]
    fn fulcio_certificates_are_judged_when_they_were_logged() {
        let world = World::new();
        let leaf = world.leaf(&[email("a@b.example")], &[(V1, ISSUER.as_bytes())]);
        for (logged, wanted) in [
            (FIRST.0 - 1, Some(Code::SigningCertificateExpired)),
            (FIRST.0, None),
            (LAST.0, None),
            (LAST.0 + 1, Some(Code::SigningCertificateExpired)),
            (0, Some(Code::SigningCertificateExpired)),
        ] {
            for now in [Timestamp(0), MIDDLE, Timestamp(i64::MAX)] {
                let layer = world.layer(&leaf, Timestamp(logged));
                assert_eq!(code(&layer, &world.fulcio(), now), wanted, "{logged}");
            }
        }
        let claim = verify(&world.layer(&leaf, MIDDLE), &world.fulcio(), LAST).unwrap();
        assert_eq!(claim.get().time, Some(MIDDLE));
        let Signer::Certificate { issuer, subject, .. } = &claim.get().signer else { panic!() };
        assert_eq!((issuer.as_str(), subject.as_str()), (ISSUER, "a@b.example"));
    }

    // Rules C-6, C-24, C-31, C-32.
    #[test]
    fn every_annotation_of_fulcio_belongs_together() {
        let world = World::new();
        let leaf = world.leaf(&[email("a@b.example")], &[(V1, ISSUER.as_bytes())]);
        let other = world.leaf(&[email("a@b.example")], &[(V1, ISSUER.as_bytes())]);
        let (first, chain) = (leaf.pem(), world.between.pem() + &world.root.pem());
        let rows: [(&str, &str, Option<String>, Option<Code>); 16] = [
            ("as made", CHAIN_ANNOTATION, Some(chain.clone()), None),
            ("no entry", BUNDLE_ANNOTATION, None, Some(Code::LogEntryMissing)),
            ("no certificate", CERTIFICATE_ANNOTATION, None, Some(Code::SigningCertificateMissing)),
            ("no chain", CHAIN_ANNOTATION, None, Some(Code::SigningCertificateUntrusted)),
            (
                "an empty chain",
                CHAIN_ANNOTATION,
                Some(String::new()),
                Some(Code::SigningCertificateUntrusted),
            ),
            (
                "a chain without its end",
                CHAIN_ANNOTATION,
                Some(world.between.pem()),
                Some(Code::SigningCertificateUntrusted),
            ),
            (
                "a chain upside down",
                CHAIN_ANNOTATION,
                Some(world.root.pem() + &world.between.pem()),
                Some(Code::SigningCertificateUntrusted),
            ),
            ("a chain with the leaf", CHAIN_ANNOTATION, Some(first.clone() + &chain), None),
            (
                "a chain that is none",
                CHAIN_ANNOTATION,
                Some("x".to_owned()),
                Some(Code::SigningCertificateInvalid),
            ),
            (
                "a chain with more",
                CHAIN_ANNOTATION,
                Some(chain.clone() + "x"),
                Some(Code::SigningCertificateInvalid),
            ),
            (
                "a chain that is too long",
                CHAIN_ANNOTATION,
                Some(world.between.pem().repeat(65)),
                Some(Code::SigningCertificateInvalid),
            ),
            ("a chain that is long", CHAIN_ANNOTATION, Some(world.between.pem().repeat(64)), None),
            ("another certificate", CERTIFICATE_ANNOTATION, Some(other.pem()), Some(Code::LogEntryInvalid)),
            ("another label", CERTIFICATE_ANNOTATION, Some(first.replace("CERTIFICATE", "X")), None),
            (
                "two certificates",
                CERTIFICATE_ANNOTATION,
                Some(first.clone() + &first),
                Some(Code::LogEntryInvalid),
            ),
            ("a line more", CERTIFICATE_ANNOTATION, Some(first.clone() + "\n"), Some(Code::LogEntryInvalid)),
        ];
        for (what, annotation, value, wanted) in rows {
            let mut layer = world.layer(&leaf, MIDDLE);
            match value {
                Some(value) => layer.annotations.insert(annotation.to_owned(), value),
                None => layer.annotations.remove(annotation),
            };
            assert_eq!(code(&layer, &world.fulcio(), MIDDLE), wanted, "{what}");
        }
        let mut layer = world.layer(&leaf, MIDDLE);
        layer.payload = layer.payload.to_ascii_uppercase();
        assert_eq!(code(&layer, &world.fulcio(), MIDDLE), Some(Code::LogEntryInvalid));
        // Logged, but signed by another key than the certificate's.
        let mut layer =
            super::tests::layer(&other.key, &[(CERTIFICATE_ANNOTATION, &first), (CHAIN_ANNOTATION, &chain)]);
        add_entry(&mut layer, &world.log, &first, MIDDLE);
        assert_eq!(code(&layer, &world.fulcio(), MIDDLE), Some(Code::BadSignature));
    }

    // Rules C-34 and C-35.
    #[test]
    fn fulcio_certificates_name_issuer_and_address() {
        let world = World::new();
        let (old, new) = (ISSUER.as_bytes(), der_string(0x0c, ISSUER));
        let (other_old, other_new) = (&b"https://x"[..], der_string(0x0c, "https://x"));
        let trailing = [&new[..], &[0]].concat();
        let judge = |names: &[SanType], extensions: &[Value<'_>]| {
            let leaf = world.leaf(names, extensions);
            code(&world.layer(&leaf, MIDDLE), &world.fulcio(), MIDDLE)
        };
        let mail = [email("a@b.example")];
        let (mismatch, invalid) =
            (Some(Code::IdentityMismatchSubject), Some(Code::SigningCertificateInvalid));
        let issuer = Some(Code::IdentityMismatchIssuer);
        let rows: [(&str, &[Value<'_>], Option<Code>); 15] = [
            ("the older", &[(V1, old)], None),
            ("the newer", &[(V2, &new)], None),
            ("both", &[(V1, old), (V2, &new)], None),
            ("none", &[], invalid),
            ("both, that differ", &[(V1, other_old), (V2, &new)], invalid),
            ("both, that differ the other way", &[(V1, old), (V2, &other_new)], invalid),
            ("another", &[(V1, other_old)], issuer),
            ("another in the newer", &[(V2, &other_new)], issuer),
            ("a longer one", &[(V1, b"https://issuer.example/")], issuer),
            ("a DER string in the older", &[(V1, &new)], issuer),
            ("plain text in the newer", &[(V2, old)], invalid),
            ("trailing bytes", &[(V2, &trailing)], invalid),
            ("PrintableString", &[(V2, &der_string(0x13, ISSUER))], None),
            ("OctetString", &[(V2, &der_string(0x04, ISSUER))], invalid),
            ("a good older and a broken newer", &[(V1, old), (V2, b"\x0c")], invalid),
        ];
        for (what, extensions, wanted) in rows {
            assert_eq!(judge(&mail, extensions), wanted, "{what}");
        }
        let twice: &[Value<'_>] = &[(V1, old), (V1, old)];
        assert_eq!(judge(&mail, twice), invalid, "an extension twice");
        for (names, wanted) in [
            (vec![email("a@b.example")], None),
            (vec![uri("https://x.example/y"), email("a@b.example"), dns("x")], None),
            (vec![email("A@b.example")], mismatch),
            (vec![uri("mailto:a@b.example")], mismatch),
            (vec![dns("a@b.example")], mismatch),
            (vec![], mismatch),
        ] {
            assert_eq!(judge(&names, &[(V1, old)]), wanted, "{names:?}");
        }
    }

    // Rules C-6, C-40, C-41 and C-42.
    #[test]
    fn pki_certificates_are_judged_now() {
        let world = World::new();
        let leaf = world.leaf(&[email("a@b.example"), dns("*.b.example")], &[]);
        let layer = world.layer(&leaf, MIDDLE);
        let (mail, host) = (Subject::Email("a@b.example"), Subject::Hostname("H.b.example"));
        let both = |email, hostname| Subject::Both { email, hostname };
        let mismatch = Some(Code::IdentityMismatchSubject);
        for (subject, now, wanted) in [
            (mail, MIDDLE, None),
            (host, MIDDLE, None),
            (both("a@b.example", "h.b.example"), MIDDLE, None),
            (both("a@b.example", "b.example"), MIDDLE, mismatch),
            (both("c@b.example", "h.b.example"), MIDDLE, mismatch),
            (Subject::Email("h.b.example"), MIDDLE, mismatch),
            (Subject::Hostname("a@b.example"), MIDDLE, mismatch),
            (mail, FIRST, None),
            (mail, LAST, None),
            (mail, Timestamp(FIRST.0 - 1), Some(Code::SigningCertificateExpired)),
            (mail, Timestamp(LAST.0 + 1), Some(Code::SigningCertificateExpired)),
        ] {
            assert_eq!(code(&layer, &world.pki(subject), now), wanted, "{subject:?} {now}");
        }
        let claim = verify(&layer, &world.pki(mail), MIDDLE).unwrap();
        assert_eq!(claim.get().time, None);
        let Signer::Certificate { issuer, subject, .. } = &claim.get().signer else { panic!() };
        assert_eq!((issuer.as_str(), subject.as_str()), ("CN=between", "a@b.example"));
        // What stands between may come from the policy, and the log does not matter.
        let mut alone = layer.clone();
        alone.annotations.remove(CHAIN_ANNOTATION);
        alone.annotations.remove(BUNDLE_ANNOTATION);
        assert_eq!(code(&alone, &world.pki(mail), MIDDLE), Some(Code::SigningCertificateUntrusted));
        let intermediates = Some(material(&(world.root.pem() + &world.between.pem())));
        let trust = Trust::Pki { authorities: material(&world.root.pem()), intermediates, subject: mail };
        assert_eq!(code(&alone, &trust, MIDDLE), None);
        alone.annotations.remove(CERTIFICATE_ANNOTATION);
        assert_eq!(code(&alone, &trust, MIDDLE), Some(Code::SigningCertificateMissing));
        // A key that is not the certificate's, and a purpose that is not this one.
        let [stranger, ..] = keys();
        let mut forged = layer.clone();
        forged.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), base64(&stranger.sign(PAYLOAD).unwrap()));
        assert_eq!(code(&forged, &world.pki(mail), MIDDLE), Some(Code::BadSignature));
        let mut params = signer(&[email("a@b.example")]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
        let leaf = Issued::new(params, Some(&world.between));
        let layer = world.layer(&leaf, MIDDLE);
        assert_eq!(code(&layer, &world.pki(mail), MIDDLE), Some(Code::SigningCertificateUntrusted));
    }

    // Rules C-33 and C-41: a critical SAN without known names is tolerated for Fulcio only, and names nobody.
    #[test]
    fn names_of_unknown_forms_name_nobody() {
        let world = World::new();
        let mut params = signer(&[]);
        params.custom_extensions.push(extension(&[2, 5, 29, 17], true, b"\x30\x05\x88\x03\x2a\x03\x04"));
        params.custom_extensions.push(extension(V1, false, ISSUER.as_bytes()));
        let layer = world.layer(&Issued::new(params, Some(&world.between)), MIDDLE);
        assert_eq!(code(&layer, &world.fulcio(), MIDDLE), Some(Code::IdentityMismatchSubject));
        let mail = Subject::Email("a@b.example");
        assert_eq!(code(&layer, &world.pki(mail), MIDDLE), Some(Code::SigningCertificateUntrusted));
    }
}
