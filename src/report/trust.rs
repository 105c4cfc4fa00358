//! [`TrustReport`]: the trusted root of this host, as data.

use serde::Serialize;

use crate::verify::Timestamp;
use crate::verify::trusted_root::{HostRoot, Instance, STALE_AFTER};
use crate::verify::tuf::Versions;

use super::SCHEMA;

/// The trusted root of this host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrustReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Where it is from.
    pub source: String,
    /// Until when it was known to be current; absent if that is not known.
    pub current_until: Option<String>,
    /// The whole days since then; absent if it is still to come.
    pub days_since: Option<i64>,
    /// Whether that is so long ago that it may lack what signers use today.
    pub stale: bool,
    /// The TUF metadata that proves it; absent for a file that the administrator put there.
    pub tuf: Option<TufReport>,
    /// What it lists.
    pub instances: Vec<InstanceReport>,
}

/// Versions of TUF metadata.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TufReport {
    /// Of the targets, which list the trusted root.
    pub targets: u64,
    /// Of the timestamp; absent for the one that came with the program.
    pub timestamp: Option<u64>,
    /// Of the root; absent for the one that came with the program.
    pub root: Option<u64>,
}

/// A log or authority.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct InstanceReport {
    /// `log`, `certificate-log`, `certificate-authority` or `timestamp-authority`.
    pub kind: &'static str,
    /// Its URL.
    pub url: String,
    /// Since when it is in use.
    pub since: String,
    /// Until when; absent if it still is.
    pub until: Option<String>,
}

/// Seconds of a day.
const DAY: i64 = 86_400;

/// After how many days a trusted root is stale.
pub const STALE_AFTER_DAYS: i64 = STALE_AFTER / DAY;

impl TrustReport {
    /// The report at a time.
    pub fn of(host: &HostRoot, now: Timestamp) -> Self {
        let instance = |instance: &Instance| InstanceReport {
            kind: instance.kind.name(),
            url: instance.url.clone(),
            since: instance.since.to_string(),
            until: instance.until.map(|time| time.to_string()),
        };
        Self {
            schema: SCHEMA,
            source: host.source.clone(),
            current_until: host.current_until.map(|time| time.to_string()),
            days_since: host
                .current_until
                .and_then(|time| now.0.checked_sub(time.0))
                .filter(|seconds| *seconds >= 0)
                .map(|seconds| seconds / DAY),
            stale: host.is_stale(now),
            tuf: host.versions.map(|versions| TufReport::of(&versions)),
            instances: host.root.instances().iter().map(instance).collect(),
        }
    }
}

impl TufReport {
    fn of(versions: &Versions) -> Self {
        let known = |version: u64| (version > 0).then_some(version);
        Self { targets: versions.targets, timestamp: known(versions.timestamp), root: known(versions.root) }
    }
}
