//! `vouchd status` where there is no daemon; `nspawn` has one.

use std::fs;
use std::path::Path;

use nix::unistd::geteuid;
use serde_json::Value;

use vouchd::config::{Directories, Environment, PolicySource, RegistriesConfSource, ShortNames};
use vouchd::digest::Digest;
use vouchd::engine::{self, Engine, Settings};
use vouchd::fetch::{Configuration, ProxySource, registry};
use vouchd::report::{DaemonReport, Health, StatusReport};
use vouchd::verify::Timestamp;

use crate::support::{Ran, skip, vouchd, write};

/// Runs it with this policy and directory, and without a bus.
fn status(policy: &Path, registries_d: &Path, json: bool) -> Ran {
    let mut arguments = vec!["status", "--bus-address", "unix:path=/no/such/bus"];
    arguments.extend(json.then_some("--json"));
    let (policy, directory) = (policy.to_str().unwrap(), registries_d.to_str().unwrap());
    arguments.extend(["--policy", policy, "--registries-d", directory, "--registries-conf", "/dev/null"]);
    vouchd(&arguments)
}

#[test]
fn the_exit_status_is_the_health() {
    let tmp = tempfile::tempdir().unwrap();
    let stores = tmp.path().join("registries.d");
    fs::create_dir(&stores).unwrap();
    let policy = tmp.path().join("policy.json");
    let reject = r#"{"type":"reject"}"#;
    let open = r#"{"type":"insecureAcceptAnything"}"#;
    let signed = r#"{"type":"sigstoreSigned","keyPath":"/k.pub"}"#;
    let scope = |requirements: &str| {
        format!(r#"{{"default":[{reject}],"transports":{{"docker":{{"a.example/b":[{requirements}]}}}}}}"#)
    };
    let unnamed = r#"{"type":"sigstoreSigned","keyPath":"/k.pub","signedIdentity":{"type":"matchRepositoryOrUnnamed"}}"#;
    for (text, exit, health, state, unsigned, attention) in [
        (format!(r#"{{"default":[{reject}]}}"#), 0, "healthy", "loaded", &[][..], ""),
        (scope(signed), 0, "healthy", "loaded", &[], ""),
        // What else is required with it counts.
        (scope(&format!("{open},{signed}")), 0, "healthy", "loaded", &[], ""),
        (scope(&format!("{open},{reject}")), 0, "healthy", "loaded", &[], ""),
        (scope(open), 1, "attention", "loaded", &["a.example/b"], "images of one scope need no signature"),
        (format!(r#"{{"default":[{open}]}}"#), 1, "attention", "loaded", &["default"], "one scope"),
        (scope(unnamed), 1, "attention", "loaded", &[], "podman and skopeo cannot read the policy"),
        (r#"{"default":[]}"#.to_owned(), 4, "unusable", "invalid", &[], ""),
    ] {
        fs::write(&policy, &text).unwrap();
        let ran = status(&policy, &stores, true);
        let report = ran.json();
        assert_eq!((ran.exit, report["health"].as_str()), (exit, Some(health)), "{text}: {report}");
        assert_eq!(report["policy"]["state"], state, "{text}");
        let scopes = report["policy"]["accepts-unsigned"].as_array().unwrap();
        let names: Vec<_> = scopes.iter().map(|scope| scope["name"].as_str().unwrap()).collect();
        assert_eq!(names, unsigned, "{text}");
        let lines = report["attention"].as_array().unwrap();
        assert_eq!(lines.len(), usize::from(exit == 1), "{report}");
        assert!(lines.iter().all(|line| line.as_str().unwrap().contains(attention)), "{report}");
        assert_eq!(report["daemon"]["running"], false);
        let printed = status(&policy, &stores, false);
        assert_eq!(printed.exit, exit, "{printed:?}");
        assert_eq!(printed.stdout.lines().last() == Some("healthy"), exit == 0, "{printed:?}");
    }
    fs::write(&policy, r#"{"default":[{"type":"a"},{"type":"reject","x":1}]}"#).unwrap();
    let report = status(&policy, &stores, true).json();
    assert_eq!(report["policy"]["fault"]["code"], "policy-invalid");
    let codes: Vec<&Value> = report["policy"]["problems"].as_array().unwrap().iter().collect();
    assert_eq!(codes.len(), 2, "{report}");
    assert!(status(&policy, &stores, false).stdout.contains("[policy-invalid]\nhelp: "));

    // A policy that is good, and nothing to use it with.
    fs::write(&policy, format!(r#"{{"default":[{reject}]}}"#)).unwrap();
    fs::write(stores.join("a.yaml"), "[").unwrap();
    let ran = status(&policy, &stores, true);
    let report = ran.json();
    assert_eq!((ran.exit, report["configuration"]["code"].as_str()), (4, Some("registries-d-invalid")));
    assert_eq!(report["policy"]["state"], "loaded");
}

/// What depends on the time and on the daemon, which cannot be had at will.
#[test]
fn age_clock_and_daemon_need_attention() {
    if !geteuid().is_root() {
        return skip("needs root, whose the files of vouchd must be");
    }
    let keyless = include_str!("../../policy-examples/keyless-github.json");
    let reject = r#"{"default":[{"type":"reject"}]}"#;
    let running = || DaemonReport {
        running: true,
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        enabled: Some("enabled".to_owned()),
        unit: Some("active".to_owned()),
        policy_state: Some("loaded".to_owned()),
        policy_path: Some("/other.json".to_owned()),
        policy_digest: Some(Digest::sha256(reject.as_bytes()).to_string()),
        ..DaemonReport::default()
    };
    let of_keyless =
        || DaemonReport { policy_digest: Some(Digest::sha256(keyless.as_bytes()).to_string()), ..running() };
    let down = DaemonReport {
        running: false,
        unit: Some("failed".to_owned()),
        policy_state: None,
        policy_digest: None,
        ..running()
    };
    let other = DaemonReport { version: Some("0.0.1".to_owned()), ..running() };
    let silent = DaemonReport { error: Some("no answer".to_owned()), ..running() };
    let broken = DaemonReport { policy_state: Some("invalid".to_owned()), ..running() };
    let now = engine::now();
    let year = 365 * 86_400;
    let (late, early) = (Timestamp(now.0 + 2 * year), Timestamp(now.0 - 10 * year));
    for (policy, daemon, now, health, attention) in [
        (reject, running(), now, Health::Healthy, ""),
        // A root that nothing is judged with may be as old as it likes.
        (reject, running(), late, Health::Healthy, ""),
        (keyless, of_keyless(), now, Health::Healthy, ""),
        (reject, of_keyless(), now, Health::Attention, "the daemon judges by another policy, /other.json"),
        (keyless, of_keyless(), late, Health::Attention, "is stale: run \"vouchd trust update\""),
        (reject, running(), early, Health::Attention, "the clock says "),
        (reject, down, now, Health::Undecided, "its unit is failed"),
        (reject, other, now, Health::Attention, "of version 0.0.1"),
        (reject, silent, now, Health::Undecided, "no answer"),
        (reject, broken, now, Health::Unusable, "to the daemon the policy is invalid"),
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let environment = Environment { root: tmp.path().to_owned(), uid: 0, user: None };
        // Where one may be that podman cannot read.
        write(tmp.path().join("etc/vouchd/policy.json"), policy);
        let settings = Settings {
            policy: PolicySource::Search(environment.clone()).into(),
            configuration: Configuration {
                registries_d: Directories::search(&environment),
                registries_conf: RegistriesConfSource::Search(environment.clone()),
                proxies: ProxySource::VouchdToml(environment.clone()),
            },
            short_names: ShortNames::AliasesOnly,
            registry: registry::Settings::default(),
            environment: environment.clone(),
        };
        let report = StatusReport::of(&Engine::new(settings), &environment, daemon, now);
        assert_eq!(report.health, health, "{report:?}");
        let lines: Vec<&str> = report.attention.iter().map(String::as_str).collect();
        match lines.as_slice() {
            [] => assert_eq!(attention, "", "{report:?}"),
            [line] => assert!(!attention.is_empty() && line.contains(attention), "{line}"),
            several => panic!("{several:?}"),
        }
    }
}
