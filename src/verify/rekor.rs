//! [`Entry`]: what a transparency log has signed for, its signed entry timestamp (rules C-20 to C-25).

use crate::digest::Digest;
use crate::json::{self, Data, Value};

use super::key::PublicKey;
use super::payload::exact_members;
use super::{PAYLOAD, Rejection, SIGNATURE_BYTES, Timestamp, Verified, canonical, pem};

/// An entry of type hashedrekord: this key or certificate made this signature of this payload by that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::verify) struct Entry {
    /// The SubjectPublicKeyInfo or the certificate, as DER.
    verifier: Vec<u8>,
    signature: Vec<u8>,
    payload: Digest,
    /// When the log took it.
    pub time: Timestamp,
}

impl Verified<Entry> {
    /// Reads a `bundle` annotation that any of the logs has signed (rules C-20 to C-25).
    ///
    /// The signature is over the canonical text, and only that is read further, so that nothing which the log has
    /// not signed can decide.
    pub(in crate::verify) fn of_set(annotation: &str, logs: &[&PublicKey]) -> Result<Self, Rejection> {
        if annotation.len() > SIGNATURE_BYTES {
            return Err(invalid("it is larger than 4 MiB"));
        }
        let set = json::parse(annotation.as_bytes(), PAYLOAD)
            .map_err(|e| invalid(format!("it is not JSON: {e}")))?;
        let [timestamp, payload] =
            exact_members(&set, ["SignedEntryTimestamp", "Payload"], "it").map_err(invalid)?;
        let timestamp = timestamp.bytes().ok_or_else(|| invalid("\"SignedEntryTimestamp\" is not base64"))?;
        let canonical = canonical::text(payload).map_err(|e| invalid(e.to_string()))?;
        if !logs.iter().any(|log| log.is_ecdsa() && log.verifies(canonical.as_bytes(), &timestamp)) {
            return Err(invalid("no log of the requirement has signed it"));
        }
        Entry::parse(&canonical).map(Self::assert).map_err(invalid)
    }
}

impl Entry {
    /// Whether the entry is about the key or certificate with that DER.
    pub(in crate::verify) fn is_of(&self, verifier: &[u8]) -> bool {
        self.verifier == verifier
    }

    /// The logged signature and payload must be these (rule C-24).
    pub(in crate::verify) fn check(&self, signature: &[u8], payload: &[u8]) -> Result<(), Rejection> {
        if self.signature != signature {
            return Err(invalid("it is for another signature"));
        }
        if !self.payload.matches(payload) {
            return Err(invalid("it is for another payload"));
        }
        Ok(())
    }

    /// Rule C-22: exactly these members, each of its type.
    fn parse(payload: &str) -> Result<Self, String> {
        let payload = json::parse(payload.as_bytes(), PAYLOAD).map_err(|e| e.to_string())?;
        let [body, time, index, log] =
            exact_members(&payload, ["body", "integratedTime", "logIndex", "logID"], "\"Payload\"")?;
        let body = body.bytes().ok_or("\"body\" is not base64")?;
        let time = Timestamp(integer(time).ok_or("\"integratedTime\" is not an integer")?);
        integer(index).ok_or("\"logIndex\" is not an integer")?;
        if log.text().is_none() && !log.is_null() {
            return Err("\"logID\" is not a string".to_owned());
        }
        Self::parse_body(&body, time)
    }

    /// Rules C-23 and C-24.
    fn parse_body(body: &[u8], time: Timestamp) -> Result<Self, String> {
        let body = json::parse(body, PAYLOAD).map_err(|e| format!("its body is not JSON: {e}"))?;
        if text(&body, "kind")? != "hashedrekord" || text(&body, "apiVersion")? != "0.0.1" {
            return Err("it is not a hashedrekord of version 0.0.1".to_owned());
        }
        let spec = member(&body, "spec")?;
        let signature = member(spec, "signature")?;
        let key = member(signature, "publicKey")?;
        let hash = member(member(spec, "data")?, "hash")?;
        if text(hash, "algorithm")? != "sha256" {
            return Err("its hash is not SHA-256".to_owned());
        }
        let hex = text(hash, "value")?.to_ascii_lowercase();
        let payload = Digest::parse(&format!("sha256:{hex}")).ok_or("its hash is not one of SHA-256")?;
        let pem = member(key, "content")?.bytes().ok_or("its key is not base64")?;
        let verifier = only_block(&pem).ok_or("its key is not exactly one PEM block")?;
        let signature = member(signature, "content")?.bytes().ok_or("its signature is not base64")?;
        Ok(Self { verifier, signature, payload, time })
    }
}

/// The DER of a PEM block that nothing follows; label and headers do not count (rule C-24).
pub(in crate::verify) fn only_block(bytes: &[u8]) -> Option<Vec<u8>> {
    pem::first_block(bytes).filter(|block| block.rest.is_empty()).map(|block| block.contents)
}

/// A 64-bit integer as the canonical text writes it; null is 0, as Go reads it (rule C-22).
fn integer(value: &Value<'_>) -> Option<i64> {
    match &value.data {
        Data::Null => Some(0),
        Data::Number(written) => written.parse().ok(),
        Data::Bool(_) | Data::String(_) | Data::Array(_) | Data::Object(_) => None,
    }
}

/// A member by its name in any case (rule C-23). One that is there twice is refused: readers would differ.
fn member<'v, 'a>(value: &'v Value<'a>, name: &str) -> Result<&'v Value<'a>, String> {
    let mut found = value.members().unwrap_or_default().iter().filter(|m| json::folds(&m.key, name));
    match (found.next(), found.next()) {
        (Some(member), None) if !member.value.is_null() => Ok(&member.value),
        (Some(_), Some(_)) => Err(format!("its body has \"{name}\" twice")),
        (Some(_), None) | (None, _) => Err(format!("its body has no \"{name}\"")),
    }
}

fn text<'v>(value: &'v Value<'_>, name: &str) -> Result<&'v str, String> {
    member(value, name)?.text().ok_or_else(|| format!("\"{name}\" of its body is not a string"))
}

fn invalid(detail: impl Into<String>) -> Rejection {
    Rejection::LogEntryInvalid { detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::{Entry, only_block};
    use crate::verify::key::PublicKey;
    use crate::verify::samples::{base64, body, logged, pem, set};
    use crate::verify::{Rejection, Timestamp, Verified};

    const PAYLOAD: &[u8] = b"payload";
    const SIGNATURE: &[u8] = b"signature";
    const TIME: Timestamp = Timestamp(1_720_000_000);
    const DER: &[u8] = b"der";

    fn log() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    fn read(annotation: &str, log: &KeyPair) -> Result<Verified<Entry>, Rejection> {
        let key = PublicKey::from_pem(log.public_key_pem().as_bytes()).unwrap();
        Verified::of_set(annotation, &[&key]).map_err(|rejection| {
            assert!(matches!(rejection, Rejection::LogEntryInvalid { .. }), "{rejection}");
            rejection
        })
    }

    fn sample() -> String {
        body(&pem("PUBLIC KEY", DER), SIGNATURE, PAYLOAD)
    }

    /// Whether a log that has signed this payload proves what the sample says.
    fn proves(payload: &str, canonical: &str) -> bool {
        let log = log();
        let Ok(entry) = read(&set(&log, payload, canonical), &log) else { return false };
        entry.get().is_of(DER) && entry.get().check(SIGNATURE, PAYLOAD).is_ok()
    }

    fn body_proves(body: &str) -> bool {
        let payload = logged(body, TIME);
        proves(&payload, &payload)
    }

    // Rules C-20 to C-24.
    #[test]
    fn an_entry_is_for_one_signature_of_one_payload() {
        let (log, payload) = (log(), logged(&sample(), TIME));
        let entry = read(&set(&log, &payload, &payload), &log).unwrap();
        let entry = entry.get();
        assert_eq!(entry.time, TIME);
        assert!(entry.is_of(DER) && !entry.is_of(b"dex") && !entry.is_of(b""));
        assert!(entry.check(SIGNATURE, PAYLOAD).is_ok());
        assert!(entry.check(b"signaturf", PAYLOAD).is_err());
        assert!(entry.check(b"", PAYLOAD).is_err());
        assert!(entry.check(SIGNATURE, b"payloae").is_err());
    }

    // Rule C-21: any of the logs, and no other key; only keys for ECDSA.
    #[test]
    fn a_log_of_the_requirement_has_signed() {
        let (one, two) = (log(), log());
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let payload = logged(&sample(), TIME);
        let key = |log: &KeyPair| PublicKey::from_pem(log.public_key_pem().as_bytes()).unwrap();
        let (first, second, third) = (key(&one), key(&two), key(&ed25519));
        for (what, signer, logs, wanted) in [
            ("the first", &one, vec![&first, &second], true),
            ("the second", &two, vec![&first, &second], true),
            ("another", &two, vec![&first], false),
            ("none", &one, vec![], false),
            ("Ed25519", &ed25519, vec![&third], false),
        ] {
            let set = set(signer, &payload, &payload);
            assert_eq!(Verified::of_set(&set, &logs).is_ok(), wanted, "{what}");
        }
    }

    // Rule C-20.
    #[test]
    fn the_annotation_is_strict() {
        let (log, payload) = (log(), logged(&sample(), TIME));
        let good = set(&log, &payload, &payload);
        assert!(read(&good, &log).is_ok());
        assert!(read(&format!(" {}\n", good.replacen(':', " : ", 1)), &log).is_ok());
        for (from, to) in [
            ("\"SignedEntryTimestamp\"", "\"signedEntryTimestamp\""),
            ("\"SignedEntryTimestamp\":\"", "\"SignedEntryTimestamp\":\"*"),
            ("\"SignedEntryTimestamp\":\"", "\"SignedEntryTimestamp\":null,\"x\":\""),
            ("{\"Signed", "{\"x\":1,\"Signed"),
            ("{\"Signed", "{\"Payload\":{},\"Signed"),
            ("\"Payload\":", "\"payload\":"),
            ("\"Payload\":{", "\"Payload\":[{"),
            ("}", "}x"),
            ("{", "[{"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(read(&bad, &log).is_err(), "{from} {to}");
        }
        for bad in ["", "null", "{}", "[]", "{\"SignedEntryTimestamp\":\"\",\"Payload\":null}"] {
            assert!(read(bad, &log).is_err(), "{bad}");
        }
    }

    // Rules C-21, C-22: what is signed is the canonical text, and that has exactly four members of their types.
    #[test]
    fn the_payload_is_canonical_and_strict() {
        let good = logged(&sample(), TIME);
        assert!(proves(&good, &good));
        // The same in another spelling has the same canonical text.
        for (from, to) in [
            ("{\"body\"", "{ \"\\u0062ody\""),
            ("1720000000", "1.72e9"),
            ("1720000000", "1720000000.0"),
            ("\"logIndex\":7", "\"logIndex\":70e-1"),
            ("\"c0ffee\"", "\"\\u00630ffee\""),
        ] {
            let other = good.replacen(from, to, 1);
            assert_ne!(other, good, "{from}");
            assert!(proves(&other, &good), "{to}");
        }
        // Another value has not been signed.
        for (from, to) in [
            ("1720000000", "1720000001"),
            ("1720000000", "\"1720000000\""),
            ("c0ffee", "c0ffef"),
            ("\"logIndex\":7", "\"logIndex\":7.5"),
            ("\"logIndex\":7", "\"logIndex\":7,\"logIndex\":7"),
            ("\"logIndex\":7", "\"logIndex\":7,\"x\":1"),
        ] {
            assert!(!proves(&good.replacen(from, to, 1), &good), "{to}");
        }
        // Signed, but not what a payload is.
        for (from, to, wanted) in [
            ("\"c0ffee\"", "null", true),
            ("\"c0ffee\"", "\"\"", true),
            ("\"c0ffee\"", "1", false),
            ("\"c0ffee\"", "\"\u{fffd}\"", false),
            ("1720000000", "null", true),
            ("1720000000", "0", true),
            ("1720000000", "-1", true),
            ("1720000000", "1.5", false),
            ("1720000000", "\"1720000000\"", false),
            ("1720000000", "1e+21", false),
            ("1720000000", "100000000000000000000", false),
            ("\"logIndex\":7", "\"logIndex\":null", true),
            ("\"logIndex\":7", "\"logIndex\":7.5", false),
            ("\"logIndex\":7", "\"logIndex\":true", false),
            ("\"logIndex\":7", "\"logIndex\":7,\"x\":1", false),
            (",\"logIndex\":7", "", false),
            (",\"logID\":\"c0ffee\"", "", false),
            ("\"integratedTime\":1720000000,", "", false),
            ("\"body\":", "\"Body\":", false),
        ] {
            let payload = good.replacen(from, to, 1);
            assert_ne!(payload, good, "{from}");
            assert_eq!(proves(&payload, &payload), wanted, "{to}");
        }
    }

    // Rules C-23 and C-24.
    #[test]
    fn the_body_is_a_hashedrekord() {
        let good = sample();
        assert!(body_proves(&good));
        let hash = "239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5";
        for (from, to, wanted) in [
            ("\"hashedrekord\"", "\"Hashedrekord\"", false),
            ("\"hashedrekord\"", "\"rekord\"", false),
            ("\"hashedrekord\"", "\"dsse\"", false),
            ("\"hashedrekord\"", "null", false),
            ("\"hashedrekord\"", "1", false),
            ("\"kind\":\"hashedrekord\",", "", false),
            ("\"kind\"", "\"KIND\"", true),
            ("\"kind\"", "\"\u{212a}ind\"", true),
            ("\"kind\"", "\"kinds\"", false),
            ("\"kind\"", "\"kind\":\"hashedrekord\",\"Kind\"", false),
            ("\"0.0.1\"", "\"0.0.2\"", false),
            ("\"0.0.1\"", "null", false),
            ("\"spec\":{", "\"x\":[1e999],\"spec\":{", true),
            ("\"spec\":{", "\"spec\":null,\"x\":{", false),
            ("\"spec\":{", "\"spec\":{\"data\":{},", false),
            ("\"data\":{", "\"data\":null,\"x\":{", false),
            ("\"sha256\"", "\"SHA256\"", false),
            ("\"sha256\"", "\"sha512\"", false),
            ("\"algorithm\":\"sha256\",", "", false),
            (hash, &hash.to_uppercase(), true),
            (hash, &hash[2..], false),
            (hash, &format!("sha256:{hash}"), false),
            (hash, &format!("{hash}00"), false),
            (hash, &hash.replace('e', "f"), false),
            ("\"content\":\"c2lnbmF0dXJl\"", "\"content\":null", false),
            ("\"content\":\"c2lnbmF0dXJl\"", "\"content\":\"\"", false),
            ("\"content\":\"c2lnbmF0dXJl\"", "\"content\":\"*\"", false),
            ("\"content\":\"c2lnbmF0dXJl\"", "\"content\":\"c2lnbmF0dXJl\\r\\n\"", true),
            ("\"publicKey\"", "\"publickey\"", true),
            ("\"publicKey\":{", "\"publicKey\":null,\"x\":{", false),
            ("}}}}", "}}}}x", false),
            ("}}}}", "}}}}\n", true),
        ] {
            let body = good.replacen(from, to, 1);
            assert_ne!(body, good, "{from}");
            assert_eq!(body_proves(&body), wanted, "{from} {to}");
        }
        for body in ["", "null", "[]", "1", "{}"] {
            assert!(!body_proves(body), "{body}");
        }
    }

    // Rule C-24: one PEM block, and nothing after the end of its last line.
    #[test]
    fn a_key_is_exactly_one_block() {
        let block = pem("PUBLIC KEY", DER);
        let plain = block.trim_end();
        for (what, text, wanted) in [
            ("a line end", block.clone(), true),
            ("none", plain.to_owned(), true),
            ("CRLF", block.replace('\n', "\r\n"), true),
            ("two line ends", format!("{block}\n"), false),
            ("a blank", format!("{block} "), false),
            ("a blank before the line end", format!("{plain} \n"), true),
            ("text after", format!("{block}x"), false),
            ("two blocks", block.repeat(2), false),
            ("text before", format!("x\n{block}"), true),
            ("another label", pem("X", DER), true),
            ("headers", block.replacen("-----\n", "-----\nA: b\n\n", 1), true),
            ("other contents", pem("PUBLIC KEY", b"dex"), false),
            ("none at all", base64(DER), false),
            ("nothing", String::new(), false),
        ] {
            assert_eq!(only_block(text.as_bytes()).as_deref() == Some(DER), wanted, "{what}");
            assert_eq!(body_proves(&body(&text, SIGNATURE, PAYLOAD)), wanted, "{what}");
        }
    }
}
