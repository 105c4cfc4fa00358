//! What proves a log entry, and that it is about this signature: the checks of T-14, each by the key of its own log.

use std::str;

use crate::digest::{Algorithm, Digest, hex};
use crate::json::{self, Value};
use crate::verify::protojson::{self, Message, check_unique};
use crate::verify::trusted_root::Log;
use crate::verify::{PAYLOAD, Rejection, pem};

use super::wire::{Entry, Kind, Proof};

/// Most signature lines of one checkpoint. Witnesses of Rekor v2 are a handful.
const SIGNATURE_LINES: usize = 32;

/// What the body of an entry must name: this signature, by this signer, over this.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    pub(super) what: What<'a>,
    pub(super) signature: &'a [u8],
    pub(super) verifier: Verifier<'a>,
}

/// What was signed.
#[derive(Debug)]
pub(super) enum What<'a> {
    /// An envelope: its payload type, its payload, and what the signature is over.
    Envelope { payload_type: &'a str, payload: &'a [u8], pae: &'a [u8] },
    /// Any bytes, of which perhaps only the SHA-256 is known.
    Artifact { sha256: Digest, bytes: Option<&'a [u8]> },
}

/// What verifies the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verifier<'a> {
    /// A certificate.
    Certificate(&'a [u8]),
    /// A SubjectPublicKeyInfo.
    PublicKey(&'a [u8]),
}

/// The log's key was in use at all these times, or is still.
pub(super) fn check_key_time(log: &Log, entry: &Entry, times: &[i64]) -> Result<(), Rejection> {
    // Without any proven time nobody can say whether a key was in use that has been given up since.
    let good = if times.is_empty() {
        log.window.is_open_ended()
    } else {
        times.iter().all(|t| log.window.holds(*t))
    };
    if good {
        Ok(())
    } else {
        Err(invalid(entry, "the log's key was not, or is not known to have been, in use then"))
    }
}

/// The signed entry timestamp is by the log's key over this body, index and time.
///
/// Rekor v1, `SignedEntryTimestamp`: over the RFC 8785 form of these four members.
pub(super) fn check_set(log: &Log, entry: &Entry, set: &[u8]) -> Result<i64, Rejection> {
    let time = entry.integrated_time.ok_or_else(|| invalid(entry, "it promises inclusion at no time"))?;
    let body = protojson::encode(&entry.body);
    let id = hex(&entry.log_id);
    let index = entry.log_index;
    let text = format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{id}","logIndex":{index}}}"#);
    if !log.key.verifies(text.as_bytes(), set) {
        return Err(invalid(entry, "its signed entry timestamp is not by its log"));
    }
    Ok(time)
}

/// The entry is in the tree that a checkpoint of its own log commits to.
///
/// RFC 9162, 2.1.3.2; the fields of the proof that repeat the checkpoint or the entry must agree with it.
pub(super) fn check_proof(log: &Log, entry: &Entry, proof: &Proof, note: &str) -> Result<(), Rejection> {
    let checkpoint = Checkpoint::parse(note).ok_or_else(|| invalid(entry, "its checkpoint is malformed"))?;
    checkpoint.check_signed_by(log).map_err(|detail| invalid(entry, detail))?;
    // Rekor v1 counts the leaves of this tree and, in the entry, those of all its trees. In v2 there is one tree, and
    // the repetitions may be left out.
    let repeats = |left_out: bool, equal: bool| equal || (entry.kind == Kind::HashedrekordV002 && left_out);
    if !repeats(proof.tree_size == 0, proof.tree_size == checkpoint.tree_size)
        || !repeats(proof.root_hash.is_empty(), proof.root_hash == checkpoint.root_hash)
    {
        return Err(invalid(entry, "its inclusion proof is for another tree than its checkpoint"));
    }
    let leaf_index = match entry.kind {
        Kind::HashedrekordV002 if proof.log_index == 0 || proof.log_index == entry.log_index => {
            entry.log_index
        }
        Kind::HashedrekordV002 => return Err(invalid(entry, "its inclusion proof is for another entry")),
        Kind::DsseV001 | Kind::HashedrekordV001 | Kind::IntotoV002 => proof.log_index,
    };
    match root(&entry.body, leaf_index, checkpoint.tree_size, &proof.hashes) {
        Some(root) if root == checkpoint.root_hash => Ok(()),
        Some(_) | None => Err(invalid(entry, "its inclusion proof does not lead to the checkpoint")),
    }
}

/// The root of the tree, if the proof has the right length.
fn root(leaf: &[u8], index: u64, size: u64, hashes: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut node = hash(&[&[0], leaf]);
    let mut first = index;
    let mut last = size.checked_sub(1).filter(|last| index <= *last)?;
    for sibling in hashes {
        if last == 0 {
            return None;
        }
        if first % 2 == 1 || first == last {
            node = hash(&[&[1], sibling, &node]);
            while first != 0 && first.is_multiple_of(2) {
                first >>= 1;
                last >>= 1;
            }
        } else {
            node = hash(&[&[1], &node, sibling]);
        }
        first >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(node)
}

fn hash(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

/// A signed note about the size and root of a log; C2SP tlog-checkpoint and signed-note.
#[derive(Debug)]
struct Checkpoint<'a> {
    origin: &'a str,
    tree_size: u64,
    root_hash: Vec<u8>,
    /// What is signed.
    text: &'a str,
    /// Name, and key ID with signature.
    signatures: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> Checkpoint<'a> {
    fn parse(note: &'a str) -> Option<Self> {
        // Readers differ on which of several blank lines ends the text.
        let end = note.find("\n\n")?;
        let text = note.get(..=end)?;
        let lines = note.get(end + 2..)?.strip_suffix('\n')?;
        let mut fields = text.strip_suffix('\n')?.split('\n');
        let origin = fields.next()?;
        let size = fields.next()?;
        let root_hash = protojson::decode(fields.next()?).filter(|hash| hash.len() == 32)?;
        if origin.is_empty()
            || note.contains(|c: char| c.is_control() && c != '\n')
            || !size.bytes().all(|b| b.is_ascii_digit())
            || (size.len() > 1 && size.starts_with('0'))
            || lines.split('\n').count() > SIGNATURE_LINES
        {
            return None;
        }
        let signatures = lines.split('\n').map(signature_line).collect::<Option<_>>()?;
        Some(Self { origin, tree_size: size.parse().ok()?, root_hash, text, signatures })
    }

    /// Exactly one line is by the log, under its name; other names and keys, as of witnesses, are passed over.
    fn check_signed_by(&self, log: &Log) -> Result<(), &'static str> {
        let rest = self.origin.strip_prefix(&*log.origin);
        // Rekor v1 adds the ID of the tree.
        let tree = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
        if !rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix(" - ").is_some_and(tree)) {
            return Err("its checkpoint is of another log");
        }
        let id = log.id.get(..4).unwrap_or_default();
        let named = self.signatures.iter().filter(|(name, _)| *name == log.origin);
        let mut signatures = named.filter_map(|(_, bytes)| bytes.strip_prefix(id));
        // Lines that only look like the log's cost as much as the true one (T-28).
        match (signatures.next(), signatures.next()) {
            (Some(signature), None) if log.key.verifies(self.text.as_bytes(), signature) => Ok(()),
            (Some(_), Some(_)) => Err("its checkpoint has several signatures by its log"),
            (Some(_) | None, None) | (None, Some(_)) => Err("its checkpoint is not signed by its log"),
        }
    }
}

/// `— name base64`, where the bytes begin with a key ID of four.
fn signature_line(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = protojson::decode(encoded).filter(|bytes| bytes.len() > 4)?;
    (!name.is_empty()).then_some((name, bytes))
}

/// The body is about this signature and no other (CVE-2022-36056).
pub(super) fn check_body(entry: &Entry, signed: &Signed<'_>) -> Result<(), Rejection> {
    let value = json::parse(&entry.body, PAYLOAD).map_err(|e| invalid(entry, e.reason))?;
    check_unique(&value).map_err(|detail| invalid(entry, detail))?;
    let body = Body::read(&value, entry.kind).map_err(|detail| invalid(entry, detail))?;
    let mismatch = |what| Rejection::LogEntryMismatch { index: entry.log_index, what };
    if body.signature != signed.signature {
        return Err(mismatch("signature"));
    }
    if !body.is_about(&signed.what).ok_or_else(|| Rejection::BundleUnsupported {
        what: "a log entry that names another hash than SHA-256, where only that is known".to_owned(),
    })? {
        return Err(mismatch("content"));
    }
    let same = match (&body.verifier, signed.verifier) {
        (BodyVerifier::Certificate(logged), Verifier::Certificate(der)) => logged == der,
        (BodyVerifier::PublicKey(logged), Verifier::PublicKey(spki)) => logged == spki,
        (BodyVerifier::Certificate(_), Verifier::PublicKey(_))
        | (BodyVerifier::PublicKey(_), Verifier::Certificate(_)) => false,
    };
    if same { Ok(()) } else { Err(mismatch("certificate or key")) }
}

/// What the body of an entry says.
struct Body {
    subject: BodySubject,
    signature: Vec<u8>,
    verifier: BodyVerifier,
}

enum BodySubject {
    /// What the signature is over.
    Hash(Digest),
    /// The SHA-256 of the payload of an envelope, and perhaps its type.
    Payload(Digest, Option<String>),
}

enum BodyVerifier {
    Certificate(Vec<u8>),
    PublicKey(Vec<u8>),
}

impl Body {
    fn read(value: &Value<'_>, kind: Kind) -> Result<Self, String> {
        let body = Message::open("its body", value, &["apiVersion", "kind", "spec"])?;
        if (body.required_text("kind")?, body.required_text("apiVersion")?) != kind.names() {
            return Err("its body is of another kind".to_owned());
        }
        let spec = body.required("spec")?;
        match kind {
            Kind::DsseV001 => Self::read_dsse(spec),
            Kind::HashedrekordV001 => Self::read_hashedrekord(spec),
            Kind::HashedrekordV002 => Self::read_hashedrekord_v2(spec),
            Kind::IntotoV002 => Self::read_intoto(spec),
        }
    }

    fn read_hashedrekord(spec: &Value<'_>) -> Result<Self, String> {
        let spec = Message::open("its body", spec, &["data", "signature"])?;
        let data = Message::open("its body", spec.required("data")?, &["hash"])?;
        let signature = Message::open("its body", spec.required("signature")?, &["content", "publicKey"])?;
        let key = Message::open("its body", signature.required("publicKey")?, &["content"])?;
        Ok(Self {
            subject: BodySubject::Hash(logged_hash(data.required("hash")?)?),
            signature: signature.required_bytes("content")?,
            verifier: BodyVerifier::from_pem(&key.required_bytes("content")?)?,
        })
    }

    fn read_hashedrekord_v2(spec: &Value<'_>) -> Result<Self, String> {
        let spec = Message::open("its body", spec, &["hashedRekordV002"])?;
        let spec = Message::open("its body", spec.required("hashedRekordV002")?, &["data", "signature"])?;
        let data = Message::open("its body", spec.required("data")?, &["algorithm", "digest"])?;
        let signature = Message::open("its body", spec.required("signature")?, &["content", "verifier"])?;
        let known = ["keyDetails", "publicKey", "x509Certificate"];
        let verifier = Message::open("its body", signature.required("verifier")?, &known)?;
        let raw = |value| Message::open("its body", value, &["rawBytes"])?.required_bytes("rawBytes");
        let algorithm = match data.required_text("algorithm")? {
            "SHA2_256" => "sha256",
            "SHA2_384" => "sha384",
            "SHA2_512" => "sha512",
            _ => return Err("its body names an unknown hash algorithm".to_owned()),
        };
        let value = hex(&data.required_bytes("digest")?);
        let digest = Digest::parse(&format!("{algorithm}:{value}")).ok_or("its body holds no digest")?;
        Ok(Self {
            subject: BodySubject::Hash(digest),
            signature: signature.required_bytes("content")?,
            verifier: match (verifier.get("x509Certificate"), verifier.get("publicKey")) {
                (Some(value), None) => BodyVerifier::Certificate(raw(value)?),
                (None, Some(value)) => BodyVerifier::PublicKey(raw(value)?),
                (Some(_), Some(_)) | (None, None) => {
                    return Err("its body holds not exactly one certificate or key".to_owned());
                }
            },
        })
    }

    /// `envelopeHash` is over JSON as it was sent to the log, and cannot be recomputed.
    fn read_dsse(spec: &Value<'_>) -> Result<Self, String> {
        let spec = Message::open("its body", spec, &["envelopeHash", "payloadHash", "signatures"])?;
        let [signature] = spec.list("signatures")? else {
            return Err("its body does not hold exactly one signature".to_owned());
        };
        let signature = Message::open("its body", signature, &["signature", "verifier"])?;
        Ok(Self {
            subject: BodySubject::Payload(logged_hash(spec.required("payloadHash")?)?, None),
            signature: signature.required_bytes("signature")?,
            verifier: BodyVerifier::from_pem(&signature.required_bytes("verifier")?)?,
        })
    }

    /// The signature is in base64 twice.
    fn read_intoto(spec: &Value<'_>) -> Result<Self, String> {
        let spec = Message::open("its body", spec, &["content"])?;
        let content =
            Message::open("its body", spec.required("content")?, &["envelope", "hash", "payloadHash"])?;
        let envelope = Message::open(
            "its body",
            content.required("envelope")?,
            &["payload", "payloadType", "signatures"],
        )?;
        let [signature] = envelope.list("signatures")? else {
            return Err("its body does not hold exactly one signature".to_owned());
        };
        let signature = Message::open("its body", signature, &["keyid", "publicKey", "sig"])?;
        let inner = signature.required_bytes("sig")?;
        let inner = str::from_utf8(&inner).ok().and_then(protojson::decode);
        Ok(Self {
            subject: BodySubject::Payload(
                logged_hash(content.required("payloadHash")?)?,
                Some(envelope.required_text("payloadType")?.to_owned()),
            ),
            signature: inner.unwrap_or_default(),
            verifier: BodyVerifier::from_pem(&signature.required_bytes("publicKey")?)?,
        })
    }

    /// Unknown if the hash is another than the only known one.
    fn is_about(&self, what: &What<'_>) -> Option<bool> {
        match (&self.subject, what) {
            (BodySubject::Hash(logged), What::Artifact { bytes: Some(bytes), .. }) => {
                Some(logged.matches(bytes))
            }
            (BodySubject::Hash(logged), What::Artifact { sha256, bytes: None }) => {
                (logged.algorithm() == Algorithm::Sha256).then(|| logged == sha256)
            }
            (BodySubject::Hash(logged), What::Envelope { pae, .. }) => Some(logged.matches(pae)),
            (BodySubject::Payload(logged, logged_type), What::Envelope { payload_type, payload, .. }) => {
                Some(
                    logged.matches(payload)
                        && logged_type.as_ref().is_none_or(|logged| logged == payload_type),
                )
            }
            (BodySubject::Payload(..), What::Artifact { .. }) => Some(false),
        }
    }
}

impl BodyVerifier {
    fn from_pem(bytes: &[u8]) -> Result<Self, String> {
        match pem::first_block(bytes) {
            Some(block) if block.label == b"CERTIFICATE" => Ok(Self::Certificate(block.contents)),
            Some(block) if block.label == b"PUBLIC KEY" => Ok(Self::PublicKey(block.contents)),
            Some(_) | None => Err("its body holds no certificate or key in PEM".to_owned()),
        }
    }
}

/// `{"algorithm":"sha256","value":"…"}`
fn logged_hash(value: &Value<'_>) -> Result<Digest, String> {
    let hash = Message::open("its body", value, &["algorithm", "value"])?;
    let text = format!("{}:{}", hash.required_text("algorithm")?, hash.required_text("value")?);
    Digest::parse(&text).ok_or_else(|| "its body holds no digest".to_owned())
}

/// The entry does not prove what it should.
pub(super) fn invalid(entry: &Entry, detail: impl Into<String>) -> Rejection {
    Rejection::LogEntryInvalid { detail: format!("entry {}: {}", entry.log_index, detail.into()) }
}

#[cfg(test)]
mod tests {
    use super::{Checkpoint, hash, root};

    /// All leaves of all trees up to 40, by the definition in RFC 9162, 2.1.1 and 2.1.3.1.
    #[test]
    fn every_leaf_of_every_small_tree_is_proven_and_nothing_else() {
        fn tree(leaves: &[Vec<u8>]) -> Vec<u8> {
            match leaves {
                [leaf] => hash(&[&[0], leaf]),
                _ => {
                    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                    hash(&[&[1], &tree(left), &tree(right)])
                }
            }
        }
        fn path(index: usize, leaves: &[Vec<u8>]) -> Vec<Vec<u8>> {
            if leaves.len() == 1 {
                return Vec::new();
            }
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            let (mut below, sibling) = if index < left.len() {
                (path(index, left), tree(right))
            } else {
                (path(index - left.len(), right), tree(left))
            };
            below.push(sibling);
            below
        }
        for size in 1..=40_u8 {
            let leaves: Vec<Vec<u8>> = (0..size).map(|n| vec![n]).collect();
            let wanted = tree(&leaves);
            for (index, leaf) in (0..).zip(&leaves) {
                let hashes = path(usize::from(index), &leaves);
                let found = |leaf: &[u8], index: u8, size: u8, hashes: &[Vec<u8>]| {
                    root(leaf, index.into(), size.into(), hashes) == Some(wanted.clone())
                };
                assert!(found(leaf, index, size, &hashes), "{index} of {size}");
                assert!(!found(b"x", index, size, &hashes), "{index} of {size}");
                assert!(!found(leaf, size, size, &hashes), "{index} of {size}");
                for other in (0..size).filter(|other| *other != index) {
                    assert!(!found(leaf, other, size, &hashes), "{index} of {size} as {other}");
                }
                let longer = [&hashes[..], &[vec![0; 32]]].concat();
                assert!(!found(leaf, index, size, &longer), "{index} of {size}");
                if let Some((_, shorter)) = hashes.split_last() {
                    assert!(!found(leaf, index, size, shorter), "{index} of {size}");
                }
            }
        }
        assert_eq!(root(b"", 0, 0, &[]), None);
        assert_eq!(root(b"", u64::MAX, u64::MAX, &[]), None);
    }

    #[test]
    fn a_checkpoint_is_read_in_one_way_only() {
        let root = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let good = format!("log\n7\n{root}\n\n\u{2014} log AAAAAAE=\n");
        assert!(Checkpoint::parse(&good).is_some_and(|c| c.tree_size == 7 && c.signatures.len() == 1));
        for (from, to, ok) in [
            ("log\n7", "log\n7", true),
            ("\n\n", "\nmore\n\n", true),
            ("7", "0", true),
            ("7", "07", false),
            ("7", "+7", false),
            ("7", "", false),
            ("7", "18446744073709551616", false),
            ("log\n7", "\n7", false),
            ("7\n", "7\r\n", false),
            ("AAA=\n\n", "AAB=\n\n", false),
            ("AAA=\n\n", "AA==\n\n", false),
            ("\n\n", "\n\n\n", false),
            ("AAE=\n", "AAE=", false),
            ("AAE=\n", "AAE=\n\n", false),
            ("AAE=\n", "AAE=\nx\n", false),
            ("AAE=\n", "AAE=\n\n\u{2014} log AAAAAAE=\n", false),
            ("AAAAAAE=", "AAAAAA==", false),
            ("\u{2014} log", "- log", false),
            ("\u{2014} log", "\u{2014} ", false),
            ("\u{2014} log", "\u{2014}  log", false),
        ] {
            let text = good.replacen(from, to, 1);
            assert_eq!(Checkpoint::parse(&text).is_some(), ok, "{text:?}");
        }
        let many = format!("{good}{}", "\u{2014} log AAAAAAE=\n".repeat(32));
        assert!(Checkpoint::parse(&many).is_none());
    }
}
