//! [`TufState`]: a trusted root together with the TUF metadata that proves it; The Update Framework specification 1.0.
//!
//! Whoever reads a state checks it anew from a root that came another way. So it need not be known who wrote it, and
//! what was proven once stays proven: metadata that has expired since makes a trusted root old, not wrong (T-31).

use jiff::Timestamp as Moment;
use serde_json::json;
use sigstore_tuf::{Metadata, Root, TrustedMetadataSet};
use sigstore_verify::trust_root::SigstoreInstance;

use super::Timestamp;
use super::protojson::{Message, check_unique, decode, encode};
use super::trusted_root::{TrustedRoot, TrustedRootError};
use crate::digest::Digest;
use crate::json::{self, Limits};

/// Largest state: 4 MiB (design, limits). Sigstore's own takes some 80 KiB.
pub const STATE_BYTES: usize = 4 << 20;

/// The file in a TUF repository that is the trusted root.
pub const TARGET: &str = "trusted_root.json";

/// How much a state may say; its metadata stands in it as text.
const LIMITS: Limits = Limits { depth: 4, values: 2_000 };

/// Most versions of the root of TUF between the initial one and the last: 1,024. Sigstore has had sixteen in five years.
const ROOTS: usize = 1 << 10;

/// The targets metadata of Sigstore's public instance that lists the trusted root in this program, and when the
/// timestamp expires that was last seen to vouch for it; github.com/sigstore/root-signing, metadata/targets.json and
/// metadata/timestamp.json at 60cf2ce8. A test holds the file and its digest there together.
pub const BUILT_IN: (u64, Timestamp) = (14, Timestamp(1_787_945_156));

/// When that timestamp was published, github.com/sigstore/root-signing at 60cf2ce8: 2026-08-21T19:25:56Z. It is not
/// earlier now (T-19).
pub const PUBLISHED: Timestamp = Timestamp(1_787_340_356);

/// The root of TUF that came with this program, for Sigstore's public instance.
pub fn built_in_root() -> &'static [u8] {
    SigstoreInstance::PublicGood.tuf_root()
}

/// Where Sigstore's public instance publishes its trusted root.
pub fn built_in_mirror() -> &'static str {
    SigstoreInstance::PublicGood.tuf_url()
}

/// TUF metadata and the trusted root that it lists, as they were fetched. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TufState {
    /// The versions of the root from the initial one on, in order.
    pub roots: Vec<Vec<u8>>,
    /// The timestamp metadata.
    pub timestamp: Vec<u8>,
    /// The snapshot metadata.
    pub snapshot: Vec<u8>,
    /// The top-level targets metadata.
    pub targets: Vec<u8>,
    /// The trusted root.
    pub trusted_root: Vec<u8>,
}

/// What the metadata of a state proves.
#[derive(Debug)]
pub struct Proven {
    /// The trusted root.
    pub root: TrustedRoot,
    /// The metadata that lists it.
    pub versions: Versions,
    /// When the first of its metadata expires, which is mostly the timestamp: until then nobody can hide a newer one.
    pub current_until: Timestamp,
}

/// Versions of TUF metadata, the one that decides first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Versions {
    /// Of the targets.
    pub targets: u64,
    /// Of the timestamp.
    pub timestamp: u64,
    /// Of the root.
    pub root: u64,
}

impl TufState {
    /// Whether a document looks like a state, and not like a trusted root itself.
    pub fn is_one(document: &[u8]) -> bool {
        json::parse(document, LIMITS).is_ok_and(|value| matches!(value.member("timestamp"), Ok(Some(_))))
    }

    /// Reads a state.
    pub fn parse(document: &[u8]) -> Result<Self, TrustedRootError> {
        if document.len() > STATE_BYTES {
            return Err(TrustedRootError::new("its TUF state is larger than 4 MiB"));
        }
        let value = json::parse(document, LIMITS).map_err(|e| TrustedRootError::new(e.reason))?;
        check_unique(&value).map_err(TrustedRootError::new)?;
        let read = || {
            let known = ["schema", "roots", "timestamp", "snapshot", "targets", "trustedRoot"];
            let state = Message::closed("its TUF state", &value, &known)?;
            if state.number("schema")? != SCHEMA {
                return Err("its TUF state is of another version of vouchd".to_owned());
            }
            let roots = state.list("roots")?;
            if roots.len() > ROOTS {
                return Err("its TUF state has too many roots".to_owned());
            }
            let root = |root: &json::Value<'_>| root.text().and_then(decode);
            Ok(Self {
                roots: roots.iter().map(root).collect::<Option<_>>().ok_or("a TUF root is not base64")?,
                timestamp: state.required_bytes("timestamp")?,
                snapshot: state.required_bytes("snapshot")?,
                targets: state.required_bytes("targets")?,
                trusted_root: state.required_bytes("trustedRoot")?,
            })
        };
        read().map_err(TrustedRootError::new)
    }

    /// The state as it is stored.
    pub fn to_json(&self) -> String {
        json!({
            "schema": SCHEMA,
            "roots": self.roots.iter().map(|root| encode(root)).collect::<Vec<_>>(),
            "timestamp": encode(&self.timestamp),
            "snapshot": encode(&self.snapshot),
            "targets": encode(&self.targets),
            "trustedRoot": encode(&self.trusted_root),
        })
        .to_string()
    }

    /// What it proves to whoever trusts the `initial` root of TUF; nothing if it ends before that root, as a newer
    /// program may bring one that is later than all that an older one has stored.
    ///
    /// The chain of roots, thresholds, versions, lengths and digests are checked as by a client that updates; expiry is
    /// not, as it is a matter of age.
    pub fn verify(&self, initial: &[u8]) -> Result<Option<Proven>, TrustedRootError> {
        let invalid =
            |error: sigstore_tuf::Error| TrustedRootError::new(format!("its TUF metadata: {error}"));
        let mut known = TrustedMetadataSet::from_root(initial).map_err(invalid)?;
        let version = |root: &[u8]| Metadata::<Root>::from_slice(root).map(|root| root.signed().version);
        let first = known.root().version;
        let mut last = 0;
        for root in &self.roots {
            last = version(root).map_err(invalid)?;
            if last > first {
                known.update_root(root).map_err(invalid)?;
            }
        }
        if last < first {
            return Ok(None);
        }
        let whenever = Moment::MIN;
        known.update_timestamp(&self.timestamp, whenever).map_err(invalid)?;
        known.update_snapshot(&self.snapshot, whenever).map_err(invalid)?;
        let targets = known.update_targets(&self.targets, whenever).map_err(invalid)?;
        let target = targets.target(TARGET).ok_or_else(|| TrustedRootError::new("TUF does not list it"))?;
        let length = u64::try_from(self.trusted_root.len()).unwrap_or(u64::MAX);
        let digest = Digest::sha256(&self.trusted_root);
        if target.length != length || target.hashes.get("sha256").map(String::as_str) != Some(digest.hex()) {
            return Err(TrustedRootError::new("it is not the one that TUF lists"));
        }
        let (targets, listed_until) = (targets.version, targets.expires);
        let (Some(timestamp), Some(snapshot)) = (known.timestamp(), known.snapshot()) else {
            return Err(TrustedRootError::new("its TUF metadata has no timestamp"));
        };
        let expiries = [known.root().expires, snapshot.expires, listed_until];
        let current_until = expiries.into_iter().fold(timestamp.expires, Ord::min);
        Ok(Some(Proven {
            root: TrustedRoot::parse(&self.trusted_root)?,
            versions: Versions { targets, timestamp: timestamp.version, root: known.root().version },
            current_until: Timestamp(current_until.as_second()),
        }))
    }
}

/// The version of the stored form.
const SCHEMA: u64 = 1;
