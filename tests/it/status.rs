//! `vouchd status` where there is no daemon; `nspawn` has one.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Ran, vouchd};

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
