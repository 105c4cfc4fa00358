//! vouchd decides, on a Linux host, whether a container image may be used, and says why.
//!
//! # The data path
//!
//! The policy says what evidence is needed, one place gathers it, and the verdict is a pure function
//! of policy, image, evidence and time:
//!
//! ```text
//! policy.json ─▶ policy ──▶ evaluate::plan ──▶ Needs ─┐            ┌─▶ Plan::judge ──▶ Verdict
//! image name  ─▶ reference ─┘                         ▼            │      (calls verify)  │
//!                                              fetch::gather ──▶ Evidence                 ▼
//!                                   registry, lookaside, layouts, key files       cli · dbus
//! ```
//!
//! # The map
//!
//! In reading order. A module imports only modules above it; a test reads the sources and enforces that.
//! `verify` and `policy` never import each other: one knows signatures, the other knows policy.json.
//!
//! | module | holds |
//! |---|---|
//! | [`nonempty`] | a list that cannot be empty |
//! | [`digest`] | algorithm and value |
//! | [`diagnostic`] | codes, severities, places in a document |
//! | [`json`] | strict JSON with byte spans |
//! | [`reference`](mod@reference) | image names, normalised once |
//! | [`manifest`] | the digest of a manifest; the instances of an index |
//! | [`verify`] | signatures, keys, payloads: bytes and a time in, [`verify::Verified`] out |
//! | [`policy`] | policy.json: scopes, requirements, signed identities |
//! | [`evaluate`] | plan and judge: evidence in, verdict out |
//! | [`inspect`] | what is attached to an image, proven or only said; never a verdict |
//! | [`lint`] | what is wrong with a policy, or likely not what was meant |
//! | | *everything above is pure: no file, no network, no clock* |
//! | [`config`] | where things are on this host; registries.conf, registries.d |
//! | [`fetch`] | the only input and output: registries, lookaside stores, local images, key files |
//! | [`engine`] | one verification from name to verdict |
//! | [`report`] | a verdict as data for people and machines |
//! | [`metrics`] | what has been answered, counted |
//! | [`journal`] | what has been answered, and with which policy, recorded |
//! | | *shells below* |
//! | [`dbus`] | the interface: one definition for server, client and XML |
//! | [`daemon`] | process life under systemd |
//! | [`cli`] | arguments, reports, exit codes |

#[cfg(any(
    all(feature = "crypto-rust", feature = "crypto-nettle"),
    all(feature = "crypto-rust", feature = "crypto-openssl"),
    all(feature = "crypto-nettle", feature = "crypto-openssl"),
    not(any(feature = "crypto-rust", feature = "crypto-nettle", feature = "crypto-openssl")),
))]
compile_error!("exactly one of the features crypto-rust, crypto-nettle and crypto-openssl must be on");

pub mod nonempty;

pub mod digest;

pub mod diagnostic;

pub mod json;

pub mod reference;

pub mod manifest;

pub mod verify;

pub mod policy;

pub mod evaluate;

pub mod inspect;

pub mod lint;

pub mod config;

pub mod fetch;

pub mod engine;

pub mod report;

pub mod metrics;

pub mod journal;

pub mod dbus;

pub mod daemon;

pub mod cli;
