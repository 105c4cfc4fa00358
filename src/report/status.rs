//! [`StatusReport`]: whether images can be judged on this host, and what needs attention, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{self, Environment};
use crate::engine::{Engine, Error, LoadedFile, LoadedPolicy};
use crate::fetch::host_root::HostRoots;
use crate::policy::certificate::RootSource;
use crate::policy::{Policy, Requirement};
use crate::verify::Timestamp;
use crate::verify::trusted_root::HostRoot;

use super::{ProblemReport, SCHEMA, ScopeReport, TrustedRootReport, policy_report, problem, scope_report};

/// The state of this host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StatusReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// All in one word.
    pub health: Health,
    /// What needs attention; nothing if the host is healthy.
    pub attention: Vec<String>,
    /// The policy.
    pub policy: PolicyStateReport,
    /// What is wrong with other configuration: registries.d, registries.conf or the trusted root.
    pub configuration: Option<FaultReport>,
    /// The trusted root; absent if it cannot be used.
    pub trusted_root: Option<TrustedRootReport>,
    /// The daemon.
    pub daemon: DaemonReport,
}

/// How this host is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Nothing needs attention.
    Healthy,
    /// Images are judged, and something needs attention.
    Attention,
    /// The daemon should run and does not, or cannot be asked how it is.
    Undecided,
    /// Images in registries are refused, because the policy or another file cannot be used.
    Unusable,
}

/// A policy, usable or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyStateReport {
    /// `loaded`, `missing` or `invalid`.
    pub state: &'static str,
    /// The file; absent if there is none.
    pub path: Option<String>,
    /// SHA-256 of its bytes; absent unless it is loaded.
    pub digest: Option<String>,
    /// Why it cannot be used.
    pub fault: Option<FaultReport>,
    /// Every fault in it, causes before their consequences.
    pub problems: Vec<ProblemReport>,
    /// The scopes in which images need no signature.
    pub accepts_unsigned: Vec<ScopeReport>,
}

/// Why something cannot be used.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FaultReport {
    /// A name of vouchd-codes(7).
    pub code: String,
    /// The same in words.
    pub message: String,
    /// What can be done about it.
    pub help: String,
}

impl FaultReport {
    fn of(error: &Error) -> Self {
        let (code, help) = (error.code().to_string(), error.help().to_owned());
        Self { code, message: error.to_string(), help }
    }
}

/// The daemon and its unit, as far as they can be asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DaemonReport {
    /// Whether it serves on the bus.
    pub running: bool,
    /// Its version.
    pub version: Option<String>,
    /// Since when its unit is active.
    pub since: Option<String>,
    /// What its unit does, in systemd's words; absent if there is no such unit.
    pub unit: Option<String>,
    /// Whether its unit is enabled, in systemd's words.
    pub enabled: Option<String>,
    /// What the policy is to it: `loaded`, `missing` or `invalid`.
    pub policy_state: Option<String>,
    /// The policy file that it sees.
    pub policy_path: Option<String>,
    /// SHA-256 of that file; absent unless it is loaded.
    pub policy_digest: Option<String>,
    /// What it has answered, by outcome; absent if it does not tell.
    pub counters: Option<BTreeMap<String, u64>>,
    /// The last answers that were not yes, the newest last; absent for others than root (T-34).
    pub refusals: Option<Vec<RefusalReport>>,
    /// Why it cannot be asked.
    pub error: Option<String>,
}

/// An answer that was not yes. Nothing in it acts on a terminal, because the daemon escapes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RefusalReport {
    /// When, in microseconds since 1970.
    pub time_usec: u64,
    /// `rejected` or `failed`.
    pub verdict: String,
    /// The image.
    pub reference: String,
    /// A name of vouchd-codes(7).
    pub code: Option<String>,
    /// The same in words.
    pub message: String,
    /// Who asked.
    pub caller_uid: u32,
    /// What for, in the caller's words.
    pub initiator: Option<String>,
}

impl StatusReport {
    /// What the files of this host, and this daemon, are like now. It blocks.
    pub fn of(engine: &Engine, environment: &Environment, daemon: DaemonReport, now: Timestamp) -> Self {
        let policy = engine.policy();
        let roots = HostRoots::new(environment.clone()).load();
        let fault = engine.check_configuration().err();
        let fault = fault.or_else(|| roots.as_ref().err().map(|error| Error::from(error.clone())));
        let mut attention = Vec::new();
        if let Ok(policy) = &policy {
            about_policy(policy, &mut attention);
        }
        if let Ok(root) = &roots
            && root.is_stale(now)
            && policy.as_ref().is_ok_and(|policy| uses_host_root(&policy.policy))
        {
            attention
                .push(format!("the trusted root in {} is stale: run \"vouchd trust update\"", root.source));
        }
        let (floor, source) = config::clock_floor(environment);
        if now < floor {
            attention.push(format!(
                "the clock says {now}, which is before {floor}, as {source} tells: what depends on the time is not decided"
            ));
        }
        let policy = PolicyStateReport::of(&policy);
        about_daemon(&daemon, &policy, &mut attention);
        let is_down =
            daemon.error.is_some() || daemon.enabled.as_deref() == Some("enabled") && !daemon.running;
        let unusable = policy.state != "loaded"
            || fault.is_some()
            || daemon.policy_state.as_deref().is_some_and(|state| state != "loaded");
        let health = if unusable {
            Health::Unusable
        } else if is_down {
            Health::Undecided
        } else if attention.is_empty() {
            Health::Healthy
        } else {
            Health::Attention
        };
        Self {
            schema: SCHEMA,
            health,
            attention,
            policy,
            configuration: fault.as_ref().map(FaultReport::of),
            trusted_root: roots.ok().map(|root| trusted_root(&root, now)),
            daemon,
        }
    }
}

fn about_policy(policy: &LoadedPolicy, attention: &mut Vec<String>) {
    match unsigned(policy).len() {
        0 => {}
        1 => attention.push("images of one scope need no signature".to_owned()),
        count => attention.push(format!("images of {count} scopes need no signature")),
    }
    let own = |file: &LoadedFile| file.path.ends_with("etc/vouchd/policy.json");
    if !policy.policy.is_common() && !policy.file.as_ref().is_some_and(own) {
        attention.push(
            "podman and skopeo cannot read the policy, which has members that only vouchd knows".to_owned(),
        );
    }
}

fn about_daemon(daemon: &DaemonReport, policy: &PolicyStateReport, attention: &mut Vec<String>) {
    let enabled = daemon.enabled.as_deref() == Some("enabled");
    if enabled && !daemon.running {
        let unit = daemon.unit.as_deref().unwrap_or("unknown");
        attention.push(format!("the daemon is enabled and does not run; its unit is {unit}"));
    }
    if let Some(state) = daemon.policy_state.as_deref().filter(|state| *state != "loaded") {
        attention.push(format!("to the daemon the policy is {state}"));
    }
    let is_other = |digest: &String| policy.digest.as_ref().is_some_and(|own| own != digest);
    if daemon.policy_digest.as_ref().is_some_and(is_other) {
        let (path, own) = (daemon.policy_path.as_deref(), policy.path.as_deref());
        let (path, own) = (path.unwrap_or("unknown"), own.unwrap_or("unknown"));
        attention.push(format!("the daemon judges by another policy, {path}; this is about {own}"));
    }
    if let Some(version) = daemon.version.as_deref().filter(|version| *version != env!("CARGO_PKG_VERSION")) {
        attention.push(format!("the daemon is of version {version}: run \"systemctl restart vouchd\""));
    }
    if let Some(error) = &daemon.error {
        attention.push(error.clone());
    }
}

impl PolicyStateReport {
    fn of(policy: &Result<std::sync::Arc<LoadedPolicy>, Error>) -> Self {
        let error = match policy {
            Ok(policy) => {
                let file = policy.file.as_ref().map(policy_report);
                let (path, digest) = file.map(|file| (file.path, file.digest)).unzip();
                let accepts_unsigned = unsigned(policy);
                let problems = Vec::new();
                return Self { state: "loaded", path, digest, fault: None, problems, accepts_unsigned };
            }
            Err(error) => error,
        };
        let problems = match error {
            Error::PolicyInvalid { problems, .. } => problems.iter().map(problem).collect(),
            Error::ClockImplausible { .. }
            | Error::Config(_)
            | Error::Fetch(_)
            | Error::Internal(_)
            | Error::NoTurn(_)
            | Error::NotNamed { .. }
            | Error::Reference { .. } => Vec::new(),
        };
        Self {
            state: error.policy_state(),
            path: error.policy_path().map(|path| path.to_string_lossy().into_owned()),
            digest: None,
            fault: Some(FaultReport::of(error)),
            problems,
            accepts_unsigned: Vec::new(),
        }
    }
}

/// The scopes in which images need no signature.
fn unsigned(policy: &LoadedPolicy) -> Vec<ScopeReport> {
    let Some(file) = &policy.file else { return Vec::new() };
    let open = policy.policy.unsigned_scopes();
    open.map(|scope| scope_report(file, &scope.scope, scope.span)).collect()
}

/// Whether a requirement is judged with the trusted root of the host.
fn uses_host_root(policy: &Policy) -> bool {
    let uses = |requirement: &Requirement| {
        requirement.trusted_root().is_some_and(|root| root.source == RootSource::Host)
    };
    policy.scopes().iter().any(|scope| scope.requirements.iter().any(uses))
}

fn trusted_root(root: &HostRoot, now: Timestamp) -> TrustedRootReport {
    let current_until = root.current_until.map(|time| time.to_string());
    TrustedRootReport { source: root.source.clone(), current_until, stale: root.is_stale(now) }
}
