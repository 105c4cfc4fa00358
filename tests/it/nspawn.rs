//! The daemon under a real systemd: a small Debian 12, booted in a container, with the files installed as the README says.
//!
//! `VOUCHD_TEST_SYSTEMD` names the tree; `.ci/run` makes one. Nothing is written to it: each machine has a layer of its
//! own in memory, and the network of this one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::{Value, json};
use tempfile::TempDir;

use vouchd::dbus::{Dictionary, VerifierProxy};

use crate::dbus::mortal;
use crate::differential::CONTAINER;
use crate::live::{Protection, Registry, SigningKey};
use crate::support::{have, skip};

const IMAGE: &str = "docker://registry.invalid/a/b:1";
const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;

// What happens in the life of a daemon.

#[test]
fn what_the_readme_installs_starts_reloads_and_ends() {
    let Some(machine) = Machine::installed(REJECT) else { return };
    machine.run(&readme("install", 1));
    assert_eq!(machine.show("vouchd", "ActiveState,SubState,NRestarts"), ["active", "running", "0"]);
    let status = |text: &str| machine.show("vouchd", "StatusText") == [text];
    assert!(status("Policy /etc/containers/policy.json is loaded"));
    // sysusers.d and tmpfiles.d
    machine.run("getent passwd vouchd && getent passwd vouchd-trust");
    for (path, mode) in [
        ("/etc/vouchd", "755 root"),
        ("/etc/vouchd/auth.d", "700 root"),
        ("/var/lib/vouchd", "755 vouchd"),
        ("/run/vouchd", "755 vouchd"),
        ("/var/lib/containers", "755 root"),
        ("/var/lib/containers/sigstore", "755 root"),
    ] {
        assert_eq!(machine.run(&format!("stat -c '%a %U' {path}")), mode, "{path}");
    }
    let pid = machine.pid("vouchd");
    assert_eq!(machine.run(&format!("stat -c %U /proc/{pid}")), "vouchd");
    let report = machine.verify("--bus", IMAGE);
    assert_eq!(
        (report["code"].as_str(), report["route"].as_str()),
        (Some("rejected-by-policy"), Some("bus"))
    );

    machine.write("/etc/containers/policy.json", "{");
    machine.run("systemctl reload vouchd");
    machine.until("the reload", || {
        status("Policy /etc/containers/policy.json cannot be used: every image is refused")
    });
    assert_eq!(machine.verify("--bus", IMAGE)["code"], "policy-invalid");
    machine.write("/etc/containers/policy.json", REJECT);
    machine.run("systemctl reload vouchd");
    machine.until("the reload", || status("Policy /etc/containers/policy.json is loaded"));
    assert_eq!(machine.pid("vouchd"), pid);

    let began = Instant::now();
    machine.run("systemctl stop vouchd");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(machine.show("vouchd", "ActiveState,Result,ExecMainStatus"), ["inactive", "success", "0"]);
    // The bus starts it when it is asked.
    assert_eq!(machine.verify("", IMAGE)["route"], "bus");
    assert_eq!(machine.show("vouchd", "ActiveState"), ["active"]);
    assert_ne!(machine.pid("vouchd"), pid);

    machine.run(&readme("remove", 0));
    assert_eq!(machine.show("vouchd", "LoadState"), ["not-found"]);
    let left =
        machine.run("find / -xdev -name '*ouchd*' -not -path '/proc/*' -not -path '/var/log/*' | sort");
    assert_eq!(
        left.lines().filter(|line| !line.starts_with("/run/")).collect::<Vec<_>>(),
        ["/etc/vouchd", "/var/lib/vouchd"]
    );
}

#[test]
fn a_masked_or_disabled_daemon_is_not_asked() {
    let Some(machine) = Machine::installed(REJECT) else { return };
    // Without the last line of the README nothing starts it.
    assert_eq!(machine.verify("", IMAGE)["route"], "direct");
    machine.run("systemctl enable --now vouchd");
    assert_eq!(machine.verify("", IMAGE)["route"], "bus");
    machine.run("systemctl mask --now vouchd");
    let report = machine.verify("", IMAGE);
    assert_eq!(
        (report["code"].as_str(), report["route"].as_str()),
        (Some("rejected-by-policy"), Some("direct"))
    );
    assert_eq!(machine.verify("--bus", IMAGE)["code"], "bus-unavailable");

    // One that is enabled and cannot start is no reason to decide without it.
    machine.run("systemctl unmask vouchd && systemctl enable vouchd");
    machine.drop_in("vouchd", "[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n");
    assert_eq!(machine.verify("", IMAGE)["code"], "bus-unavailable");
}

#[test]
fn a_daemon_that_hangs_or_loses_its_bus_is_started_again() {
    let Some(machine) = Machine::installed(REJECT) else { return };
    machine.drop_in("vouchd", "[Service]\nWatchdogSec=1s\n");
    machine.run("systemctl enable --now vouchd");
    let first = machine.pid("vouchd");
    machine.run(&format!("kill -STOP {first}"));
    machine.until("the watchdog", || machine.show("vouchd", "NRestarts,ActiveState") == ["1", "active"]);
    let said = machine.run("journalctl --quiet --unit vouchd --output cat");
    assert!(said.contains("Watchdog timeout"), "{said}");
    let second = machine.pid("vouchd");
    assert_ne!(first, second);

    machine.run("kill -KILL $(systemctl show --property MainPID --value dbus)");
    machine.until("another daemon", || {
        let restarted = machine.show("vouchd", "NRestarts,ActiveState") == ["2", "active"];
        restarted && machine.pid("vouchd") != second
    });
    let said = machine.run("journalctl --quiet --unit vouchd --output cat");
    assert!(said.contains("the message bus ended the connection"), "{said}");
    assert!(said.contains("status=3"), "{said}");
    assert_eq!(machine.verify("--bus", IMAGE)["code"], "rejected-by-policy");

    // Started before the bus: the socket is there, and whoever answers it comes later.
    machine.run("systemctl stop vouchd dbus.socket dbus.service");
    machine.run("systemctl start vouchd");
    assert_eq!(machine.show("vouchd", "ActiveState"), ["active"]);
    assert_eq!(machine.verify("--bus", IMAGE)["code"], "rejected-by-policy");
}

/// Calls go on while the daemon is replaced, and one of them waits for a registry that says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_gives_no_wrong_answer() {
    let Some(machine) = Machine::installed(REJECT) else { return };
    let silent = crate::dbus::Silent::start().await;
    let host = &silent.host;
    let signed = r#"[{"type":"sigstoreSigned","keyPath":"/no/such.pub"}]"#;
    machine.write(
        "/etc/containers/policy.json",
        &format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{host}":{signed}}}}}}}"#),
    );
    machine.run("systemctl enable --now vouchd");
    let connection = machine.bus().await;
    let verifier = VerifierProxy::new(&connection).await.unwrap();
    let (asking, image) = (verifier.clone(), silent.image());
    let waiting = tokio::spawn(async move { asking.verify_image(&image, Dictionary::new()).await });
    let began = Instant::now();
    while silent.connections.load(Ordering::SeqCst) == 0 && !waiting.is_finished() {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let restarting = machine.start("install -m 755 /program /usr/bin/vouchd.new && mv /usr/bin/vouchd.new /usr/bin/vouchd && systemctl restart vouchd");
    let mut restarting = restarting;
    let (mut answers, mut lost) = (0, 0);
    while restarting.try_wait().unwrap().is_none() {
        let asking = verifier.verify_image(IMAGE, Dictionary::new());
        let error = tokio::time::timeout(Duration::from_secs(30), asking).await.unwrap().unwrap_err();
        match error.code() {
            Some("rejected-by-policy") => answers += 1,
            Some("too-many-requests") | None => lost += 1,
            Some(_) => panic!("{error}"),
        }
    }
    assert!(restarting.wait().unwrap().success());
    assert!(answers > 0, "{lost}");
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.code().is_none_or(|code| code != "rejected-by-policy"), "{error}");
    let error = verifier.verify_image(IMAGE, Dictionary::new()).await.unwrap_err();
    assert_eq!(error.code(), Some("rejected-by-policy"));
}

/// What the units let a program do, tried by another program in their place.
#[test]
fn the_units_let_nothing_out() {
    let Some(machine) = Machine::installed(REJECT) else { return };
    for (unit, user) in [("vouchd", "vouchd"), ("vouchd-trust-update", "vouchd-trust")] {
        // The same unit with another name and program; it serves no bus name and sends no sign of life.
        let text = machine.read(&format!("/usr/lib/systemd/system/{unit}.service"));
        let other = [
            "ExecStart=",
            "ExecReload=",
            "Type=",
            "BusName=",
            "Restart=",
            "WatchdogSec=",
            "Alias=",
            "NotifyAccess=",
        ];
        let text: String = text
            .lines()
            .filter(|line| !other.iter().any(|name| line.starts_with(name)))
            .map(|line| format!("{line}\n"))
            .collect();
        let text = text.replace("[Service]\n", "[Service]\nType=oneshot\nExecStart=/bin/sh /probe\n");
        machine.write("/etc/systemd/system/probe.service", &text);
        machine.write("/probe", PROBE);
        machine
            .run("install -d -o vouchd /var/lib/vouchd && install -d -o vouchd-trust /var/lib/vouchd-trust");
        machine.run("chmod 755 /probe && systemctl daemon-reload && systemctl start probe");
        let found = machine.run("journalctl --quiet --unit probe --output cat | grep ^probe: ; rm -rf /var/log/journal/*/*; journalctl --quiet --rotate --vacuum-time=1s >&2");
        let found: Vec<&str> = found.lines().filter_map(|line| line.strip_prefix("probe: ")).collect();
        let wanted = format!("user {user}");
        let mut expected = vec![wanted.as_str()];
        expected.extend([
            "write /etc/probe no",
            "write /usr/probe no",
            "write /var/probe no",
            "write /boot/probe no",
            "write /proc/sys/kernel/hostname no",
            "write /sys/fs/cgroup/probe no",
            "write /tmp/probe yes",
            if user == "vouchd" {
                "write /var/lib/vouchd/probe yes"
            } else {
                "write /var/lib/vouchd/probe no"
            },
            if user == "vouchd" {
                "write /var/lib/vouchd-trust/probe no"
            } else {
                "write /var/lib/vouchd-trust/probe yes"
            },
            "home no",
            "device no",
            "namespace no",
            "clock no",
            "other processes no",
            "new privileges no",
            "capabilities 0000000000000000 0000000000000000",
            "system calls filtered",
            "family 1 yes",
            "family 2 yes",
            "family 10 yes",
            "family 16 no",
            "family 17 no",
            "writable code no",
        ]);
        assert_eq!(found, expected, "{unit}");
        machine.run("rm /probe /etc/systemd/system/probe.service");
    }
    machine.run("systemctl enable --now vouchd");
    let status = machine.run(&format!("cat /proc/{}/status", machine.pid("vouchd")));
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(
        (line("NoNewPrivs:"), line("Seccomp:"), line("CapBnd:")),
        ("1".into(), "2".into(), "0".repeat(16))
    );
}

/// Rule T-31: the updater has a user and a directory of its own, and the daemon cannot write there.
#[test]
fn updates_of_the_trusted_root_are_somebody_elses() {
    let Some(machine) = Machine::installed(REJECT) else { return };
    machine.run("mkdir -p /etc/vouchd");
    machine.write("/etc/vouchd/vouchd.toml", "[trusted-root]\ntuf-mirror = \"https://127.0.0.1:1/\"\n");
    assert!(machine.attempt("systemctl start vouchd-trust-update").is_err());
    let shown = machine.show("vouchd-trust-update", "Result,ExecMainStatus");
    assert_eq!(shown, ["exit-code", "3"]);
    assert_eq!(machine.run("stat -c '%a %U' /var/lib/vouchd-trust"), "755 vouchd-trust");
    assert_eq!(machine.run("ls -A /var/lib/vouchd-trust"), "sigstore.lock");
    assert_eq!(machine.run("stat -c '%a %U' /var/lib/vouchd-trust/sigstore.lock"), "600 vouchd-trust");
    let said = machine.run("journalctl --quiet --unit vouchd-trust-update --output cat");
    assert!(said.contains("127.0.0.1:1"), "{said}");
}

/// With a real registry, whose password the daemon gets from systemd, and one image that is signed.
#[test]
fn answers_and_policies_are_records_in_the_journal() {
    let Some(registry) = Registry::start(Protection::TlsAndPassword) else { return };
    let key = SigningKey::new();
    let host = registry.address();
    let name = format!("{host}/app/signed:1");
    let digest = registry.push("app/signed", "1", "signed");
    registry.attach("app/signed", &digest, &[key.sign(&name, &digest)]);
    registry.push("app/unsigned", "1", "unsigned");
    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {&host: [key.requirement(&json!({"type": "matchRepository"}))]}},
    });
    let Some(machine) = Machine::installed(&policy.to_string()) else { return };
    machine.run(&format!("mkdir -p /etc/containers/certs.d/{host} /etc/containers/registries.d"));
    let authority = fs::read_to_string(registry.path("certs/ca.crt")).unwrap();
    machine.write(&format!("/etc/containers/certs.d/{host}/ca.crt"), &authority);
    machine.write(
        "/etc/containers/registries.d/all.yaml",
        "default-docker:\n  use-sigstore-attachments: true\n",
    );
    machine.run("systemctl enable --now vouchd");
    let image = format!("docker://{name}");
    assert_eq!(machine.verify("--bus", &image)["code"], "registry-auth");
    // The credentials are those of the time of the start.
    let auth = json!({ "auths": registry.auth("secret") }).to_string();
    machine.write("/etc/vouchd/auth.d/registry.json", &auth);
    machine.run("chmod 600 /etc/vouchd/auth.d/registry.json");
    assert_eq!(machine.verify("--bus", &image)["code"], "registry-auth");
    machine.run("systemctl restart vouchd");
    let report = machine.verify("--bus", &image);
    assert_eq!(report["authenticated"], true, "{report}");
    // Rule T-24: helpers are not run for it.
    machine.write("/etc/vouchd/auth.d/helper.json", r#"{"credHelpers":{"a.example":"x"}}"#);
    machine.run("systemctl restart vouchd");
    assert_eq!(machine.verify("--bus", &image)["code"], "auth-file-invalid");
    machine.run("rm /etc/vouchd/auth.d/helper.json && systemctl restart vouchd");
    let before = machine.records("d44937d6bb3c465baa9761b73ac071e1").len();
    assert_eq!(before, 4);

    let asking = "systemd-run --quiet --wait --unit asker vouchd verify --bus -- ";
    machine.run(&format!("{asking} {image}"));
    assert!(machine.attempt(&format!("{asking} docker://{host}/app/unsigned:1")).is_err());
    // What a caller says is escaped before anybody sees it.
    let manager = "org.vouchd.Verifier1 /org/vouchd/Verifier1 org.vouchd.Verifier1.Manager";
    let initiator = "\"$(printf 'me\\033[2J\\nMESSAGE=b')\"";
    let evil = format!("busctl call {manager} VerifyImage 'sa{{sv}}' {IMAGE} 1 initiator s {initiator}");
    assert!(machine.attempt(&evil).is_err());
    let records = || machine.records("d44937d6bb3c465baa9761b73ac071e1");
    machine.until("three records", || records().len() >= before + 3);
    let records = records();
    let last: Vec<&Value> = records.iter().rev().take(3).collect();
    let text = |record: &Value, name: &str| record[name].as_str().map(str::to_owned);
    let good = last[2];
    let (signer, resolved) =
        (report["requirements"][0]["signatures"][0]["signer"]["id"].as_str(), digest.as_str());
    for (field, wanted) in [
        ("MESSAGE", format!("{image}: verified")),
        ("PRIORITY", "6".to_owned()),
        ("SYSLOG_IDENTIFIER", "vouchd".to_owned()),
        ("_SYSTEMD_UNIT", "vouchd.service".to_owned()),
        ("VOUCHD_VERDICT", "verified".to_owned()),
        ("VOUCHD_VERDICT_ID", "1".to_owned()),
        ("VOUCHD_REFERENCE", image.clone()),
        ("VOUCHD_MANIFEST_DIGEST", resolved.to_owned()),
        ("VOUCHD_RESOLVED_DIGEST", resolved.to_owned()),
        ("VOUCHD_POLICY_DIGEST", report["policy"]["digest"].as_str().unwrap().to_owned()),
        ("VOUCHD_SCOPE", format!("docker:{host}")),
        ("VOUCHD_SIGNER", format!("public-key {}", signer.unwrap())),
        ("VOUCHD_REFERENCE_BOUND", "true".to_owned()),
        ("VOUCHD_REQUESTS", report["requests"].to_string()),
        ("VOUCHD_CALLER_UID", "0".to_owned()),
        ("VOUCHD_CALLER_UNIT", "asker.service".to_owned()),
        ("VOUCHD_INITIATOR", "vouchd verify".to_owned()),
    ] {
        assert_eq!(text(good, field), Some(wanted), "{field}");
    }
    assert!(text(good, "VOUCHD_DURATION_USEC").unwrap().parse::<u64>().unwrap() > 100);
    for field in ["VOUCHD_CODE", "VOUCHD_TRUSTED_ROOT_STALE"] {
        assert_eq!(text(good, field), None);
    }
    let bad = last[1];
    for (field, wanted) in [
        ("VOUCHD_VERDICT", "rejected"),
        ("VOUCHD_CODE", "unsigned"),
        ("PRIORITY", "4"),
        ("VOUCHD_VERDICT_ID", "2"),
    ] {
        assert_eq!(text(bad, field).as_deref(), Some(wanted));
    }
    for field in ["VOUCHD_SIGNER", "VOUCHD_REFERENCE_BOUND", "VOUCHD_MANIFEST_DIGEST"] {
        assert_eq!(text(bad, field), None);
    }
    let hostile = last[0];
    assert_eq!(text(hostile, "VOUCHD_CODE").as_deref(), Some("rejected-by-policy"));
    assert_eq!(text(hostile, "VOUCHD_INITIATOR").as_deref(), Some("me\\u{1b}[2J\\u{a}MESSAGE=b"));
    assert_eq!(text(hostile, "MESSAGE"), Some(format!("{IMAGE}: rejected: the policy rejects this image")));
    let explained = machine.run("journalctl --quiet --catalog MESSAGE_ID=d44937d6bb3c465baa9761b73ac071e1");
    assert!(explained.contains("vouchd was asked about an image: verified"), "{explained}");

    // The policy: as it was at the start, and each time that it was seen to be another.
    machine.write("/etc/containers/policy.json", "{");
    assert_eq!(machine.verify("--bus", &image)["code"], "policy-invalid");
    machine.run("rm /etc/containers/policy.json");
    assert_eq!(machine.verify("--bus", &image)["code"], "policy-missing");
    machine.write("/etc/containers/policy.json", REJECT);
    for _ in 0..3 {
        assert_eq!(machine.verify("--bus", &image)["code"], "rejected-by-policy");
    }
    let policies = || machine.records("59ac2ef99dc846b1ad68fe39b94cd399");
    let recent = || policies().into_iter().rev().take(4).rev().collect::<Vec<_>>();
    // One for each of four starts, and the three changes.
    machine.until("records of policies", || policies().len() == 7);
    let recent = recent();
    let states: Vec<_> = recent.iter().map(|record| text(record, "VOUCHD_POLICY_STATE").unwrap()).collect();
    assert_eq!(states, ["loaded", "invalid", "missing", "loaded"]);
    let before = text(&recent[1], "VOUCHD_POLICY_DIGEST_BEFORE");
    assert!(before.is_some() && before == text(&recent[0], "VOUCHD_POLICY_DIGEST"));
    assert_eq!(text(&recent[1], "VOUCHD_POLICY_PATH").as_deref(), Some("/etc/containers/policy.json"));
    assert!(text(&recent[3], "VOUCHD_POLICY_DIGEST").is_some_and(|digest| Some(digest) != before));
}

/// Rule T-19: a time that was once kept is not undercut, and whoever runs the host can take it back.
#[test]
fn a_clock_that_was_set_back_decides_nothing() {
    let policy = r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/no/such.gpg"}]}"#;
    let Some(machine) = Machine::installed(policy) else { return };
    machine.run("systemctl enable --now vouchd");
    assert_eq!(machine.verify("--bus", "docker://127.0.0.1:1/a:1")["code"], "key-file-unreadable");
    machine.run("setpriv --reuid vouchd --clear-groups touch --date 2099-01-01 /var/lib/vouchd/clock");
    for route in ["--bus", "--direct"] {
        let report = machine.verify(route, "docker://127.0.0.1:1/a:1");
        assert_eq!(report["code"], "clock-implausible", "{report}");
        assert!(report["message"].as_str().unwrap().contains("/var/lib/vouchd/clock"), "{report}");
        assert!(report["help"].as_str().unwrap().contains("remove /var/lib/vouchd/clock"), "{report}");
    }
    machine.run("rm /var/lib/vouchd/clock");
    assert_eq!(machine.verify("--bus", "docker://127.0.0.1:1/a:1")["code"], "key-file-unreadable");
}

/// Rule T-34: what everybody may read are numbers.
#[test]
fn the_daemon_tells_prometheus_what_it_did() {
    let Some(machine) = Machine::installed(REJECT) else { return };
    machine.run("mkdir -p /etc/vouchd");
    machine.write("/etc/vouchd/vouchd.toml", "[metrics]\npath = \"/run/vouchd/vouchd.prom\"\n");
    machine.run("systemctl enable --now vouchd");
    let rejected = |count: u64| {
        let text = machine.attempt("cat /run/vouchd/vouchd.prom").unwrap_or_default();
        text.contains(&format!("vouchd_verifications_total{{outcome=\"rejected\"}} {count}\n"))
    };
    machine.until("the file", || rejected(0));
    assert_eq!(machine.run("stat -c '%a %U' /run/vouchd/vouchd.prom"), "644 vouchd");
    assert_eq!(machine.verify("--bus", IMAGE)["code"], "rejected-by-policy");
    machine.until("the count", || rejected(1));
    let text = machine.run("cat /run/vouchd/vouchd.prom");
    assert!(text.contains("vouchd_refusals_total{code=\"rejected-by-policy\"} 1"), "{text}");
    assert!(!text.contains("registry.invalid"), "{text}");
}

#[test]
fn the_status_of_a_host_is_that_of_policy_and_daemon() {
    let Some(machine) = Machine::installed(REJECT) else { return };
    let status = || {
        let output = machine.enter("vouchd status --json").output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), report)
    };
    let attention = |report: &Value| report["attention"].as_array().unwrap().len();
    // Nobody wants a daemon: that is no fault, and none is started to see.
    let (exit, report) = status();
    assert_eq!((exit, attention(&report)), (0, 0), "{report}");
    assert_eq!(
        (&report["daemon"]["running"], &report["daemon"]["enabled"]),
        (&json!(false), &json!("disabled"))
    );
    machine.run("systemctl enable vouchd");
    let (exit, report) = status();
    assert_eq!((exit, attention(&report)), (3, 1), "{report}");
    assert!(report["attention"][0].as_str().unwrap().contains("its unit is inactive"), "{report}");
    assert_eq!(machine.show("vouchd", "ActiveState"), ["inactive"]);

    machine.run("systemctl start vouchd");
    let (exit, report) = status();
    assert_eq!((exit, attention(&report)), (0, 0), "{report}");
    let daemon = &report["daemon"];
    for (key, wanted) in [
        ("running", json!(true)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("unit", json!("active")),
        ("enabled", json!("enabled")),
        ("policy-state", json!("loaded")),
        ("policy-path", json!("/etc/containers/policy.json")),
        ("error", Value::Null),
    ] {
        assert_eq!(daemon[key], wanted, "{key}");
    }
    assert!(daemon["since"].as_str().unwrap().starts_with("20"), "{daemon}");
    // Anybody may look.
    let nobody = machine.run("HOME=/nonexistent setpriv --reuid nobody --clear-groups vouchd status");
    assert!(nobody.contains("daemon        running, version ") && nobody.ends_with("\nhealthy"), "{nobody}");

    // Root can read the policy, and the daemon cannot.
    machine.run("chmod 600 /etc/containers/policy.json && sleep 1.1");
    let (exit, report) = status();
    assert_eq!((exit, report["policy"]["state"].as_str()), (4, Some("loaded")), "{report}");
    assert_eq!(report["attention"][0], "to the daemon the policy is invalid");
    machine.run("chmod 644 /etc/containers/policy.json && sleep 1.1");
    assert_eq!(status().0, 0);

    // One that hangs.
    machine.run(&format!("kill -STOP {}", machine.pid("vouchd")));
    let (exit, report) = status();
    assert_eq!((exit, report["health"].as_str()), (3, Some("undecided")), "{report}");
    machine.run(&format!("kill -KILL {}; systemctl mask --now vouchd", machine.pid("vouchd")));
    let (exit, report) = status();
    assert_eq!((exit, report["daemon"]["enabled"].as_str()), (0, Some("masked")), "{report}");
    machine.write("/etc/containers/policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    assert_eq!(status().0, 1);
    machine.run("rm /etc/containers/policy.json");
    let (exit, report) = status();
    assert_eq!((exit, report["policy"]["state"].as_str()), (4, Some("missing")), "{report}");
}

/// With the real polkit, its defaults and a rule.
#[test]
fn users_ask_by_leave_of_polkit() {
    let Some(machine) = Machine::installed(REJECT) else { return };
    machine.run("echo 'u tester 4711' >/tester.conf && systemd-sysusers /tester.conf");
    machine.run("systemctl enable --now vouchd");
    let listed = machine.run("pkaction | grep vouchd");
    let known = vouchd::dbus::Action::ALL.map(vouchd::dbus::Action::id);
    assert_eq!(listed.lines().collect::<Vec<_>>(), known);
    let tester = "setpriv --reuid tester --regid tester --clear-groups";
    let call = |flags: &str, call: &str| {
        let manager = "org.vouchd.Verifier1 /org/vouchd/Verifier1 org.vouchd.Verifier1.Manager";
        machine.attempt(&format!("{tester} busctl {flags} call {manager} {call} 2>&1"))
    };
    let evaluate = format!("EvaluateImage 'sa{{sv}}' {IMAGE} 0");
    let insecure = format!("EvaluateImage 'sa{{sv}}' {IMAGE} 1 require-signature b false");
    // It has no session, so that an administrator would have to authenticate; nobody is there to ask one.
    let said = call("", &evaluate).unwrap_err();
    assert!(said.contains("Access denied"), "{said}");
    let said = call("--allow-interactive-authorization=no", &evaluate).unwrap_err();
    assert!(said.contains("nteractive auth"), "{said}");
    let said = call("", &format!("ExplainImage 'sa{{sv}}' {IMAGE} 0")).unwrap();
    assert!(said.contains("\"outcome\" s \"reject\""), "{said}");
    let reload = format!("{tester} vouchd reload 2>&1");
    let said = machine.attempt(&reload).unwrap_err();
    assert!(said.contains("[access-denied]"), "{said}");

    machine.write(
        "/etc/polkit-1/rules.d/50-test.rules",
        r#"polkit.addRule(function(action, subject) {
            if (action.id == "org.vouchd.Verifier1.verify" && subject.user == "tester") return polkit.Result.YES;
        });"#,
    );
    machine.until("the rule", || call("", &evaluate).is_ok());
    let said = call("", &evaluate).unwrap();
    assert!(said.contains("\"code\" s \"rejected-by-policy\""), "{said}");
    assert!(call("", &insecure).is_err());
    assert!(machine.attempt(&reload).is_err());
    let asked = machine.attempt(&format!("{tester} vouchd verify --bus --require-signature -- {IMAGE} 2>&1"));
    assert!(asked.as_ref().is_err_and(|said| said.contains("rejected-by-policy")), "{asked:?}");
    let records = machine.records("d44937d6bb3c465baa9761b73ac071e1");
    assert!(records.iter().all(|record| record["VOUCHD_CALLER_UID"] == "4711"), "{records:?}");
    assert!(records.iter().any(|record| record["VOUCHD_CODE"] == "rejected-by-policy"), "{records:?}");

    // Where polkit is not, only root may ask.
    machine.run("systemctl mask --now polkit");
    assert!(call("", &evaluate).is_err());
    assert!(call("", &format!("ExplainImage 'sa{{sv}}' {IMAGE} 0")).is_err());
    assert_eq!(machine.verify("--bus", IMAGE)["code"], "rejected-by-policy");
}

/// What a program can do in the place of ours. Each line tells one thing.
const PROBE: &str = r#"
say() { echo "probe: $*"; }
can() { what=$1; shift; if "$@" >/dev/null 2>&1; then say "$what yes"; else say "$what no"; fi; }
say "user $(id -un)"
for path in /etc/probe /usr/probe /var/probe /boot/probe /proc/sys/kernel/hostname /sys/fs/cgroup/probe /tmp/probe \
    /var/lib/vouchd/probe /var/lib/vouchd-trust/probe; do
    can "write $path" sh -c "echo x >$path"
done
can home ls /root /home/.
can device dd if=/dev/kmsg of=/dev/null count=0
can namespace unshare --user true
can clock date -s @0
can "other processes" test -d /proc/1
can "new privileges" grep -q 'NoNewPrivs:.*0' /proc/self/status
say "capabilities $(sed -n 's/^CapBnd:\t//p' /proc/self/status) $(sed -n 's/^CapEff:\t//p' /proc/self/status)"
grep -q 'Seccomp:.*2' /proc/self/status && say "system calls filtered"
for family in 1 2 10 16 17; do
    can "family $family" perl -e "socket(my \$s, $family, $family >= 16 ? 3 : 1, 0) or exit 1"
done
can "writable code" perl -e 'syscall(9, 0, 4096, 7, 34, -1, 0) == -1 and exit 1'
"#;

// What the tests stand on.

/// The script of a section of "Installing by hand": its `number`th block, counted from the last sentence before it that
/// begins as the section does.
fn readme(what: &str, number: usize) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = text.split("## Installing by hand").nth(1).unwrap().split("\n## ").next().unwrap();
    let (install, rest) = section.split_once("To upgrade, ").unwrap();
    let part = match what {
        "install" => install,
        "remove" => rest.split_once("To remove it:").unwrap().1,
        _ => panic!("{what}"),
    };
    let blocks: Vec<&str> =
        part.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    blocks[number].replace("target/release/vouchd", "/program")
}

/// A booted container.
struct Machine {
    _directory: TempDir,
    child: Child,
    /// Its first process, as this machine counts.
    leader: Pid,
}

impl Machine {
    /// One on which everything is installed and nothing enabled; says so if there cannot be one.
    fn installed(policy: &str) -> Option<Self> {
        let machine = Self::boot()?;
        machine.run("mkdir -p /etc/containers");
        machine.write("/etc/containers/policy.json", policy);
        machine.run(&readme("install", 0));
        let daemon = readme("install", 1);
        machine.run(daemon.trim_end().strip_suffix("systemctl enable --now vouchd.service").unwrap());
        Some(machine)
    }

    fn boot() -> Option<Self> {
        let Some(tree) = std::env::var_os("VOUCHD_TEST_SYSTEMD").map(PathBuf::from) else {
            skip("VOUCHD_TEST_SYSTEMD names no tree with systemd");
            return None;
        };
        if !geteuid().is_root() {
            skip("only root can boot a container");
            return None;
        }
        if !have(&["nsenter", "systemd-nspawn", "unshare"]) {
            return None;
        }
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("vouchd-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("console");
        let output = fs::File::create(&log).unwrap();
        let here = env!("CARGO_MANIFEST_DIR");
        let mut command = mortal("unshare");
        command
            .args([
                "--mount",
                "sh",
                "-c",
                CONTAINER,
                "sh",
                "--quiet",
                "--register=no",
                "--keep-unit",
                "--boot",
            ])
            .args(["--volatile=overlay", "--console=pipe", "--resolv-conf=off", "--timezone=off"])
            .args(["--link-journal=no", &format!("--machine={name}")])
            .arg(format!("--bind-ro={here}:/source"))
            .arg(format!("--bind-ro={}:/program", env!("CARGO_BIN_EXE_vouchd")))
            .arg("--directory")
            .arg(&tree)
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let child = command.spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let mut machine = Self { _directory: directory, child, leader: Pid::from_raw(0) };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) && machine.child.try_wait().unwrap().is_none() {
            let pid = fs::read_to_string(&children).ok().and_then(|all| all.split(' ').next()?.parse().ok());
            machine.leader = Pid::from_raw(pid.unwrap_or(0));
            let is_up = |said: Result<String, String>| {
                said.map_or_else(|said| said.contains("degraded"), |said| said.contains("running"))
            };
            if pid.is_some() && is_up(machine.attempt("systemctl is-system-running 2>&1")) {
                return Some(machine);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        skip(&format!("systemd cannot be booted here: {}", said.trim()));
        None
    }

    fn enter(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--all",
                "--target",
                &self.leader.to_string(),
                "env",
                "-i",
                "HOME=/root",
                "LC_ALL=C.UTF-8",
            ])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-e", "-c"])
            .arg(format!("cd /source\n{script}"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a script as root; what it wrote, or what it wrote if it failed.
    fn attempt(&self, script: &str) -> Result<String, String> {
        let output = self.enter(script).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn run(&self, script: &str) -> String {
        self.attempt(script).unwrap_or_else(|said| panic!("{script}: {said}"))
    }

    /// Begins a script.
    fn start(&self, script: &str) -> Child {
        self.enter(script).spawn().unwrap()
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Where this machine sees a path of that one.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader))
    }

    fn drop_in(&self, unit: &str, text: &str) {
        self.run(&format!("mkdir -p /etc/systemd/system/{unit}.service.d"));
        self.write(&format!("/etc/systemd/system/{unit}.service.d/test.conf"), text);
        self.run("systemctl daemon-reload");
    }

    /// Properties of a unit, in this order.
    fn show(&self, unit: &str, properties: &str) -> Vec<String> {
        let shown = self.run(&format!("systemctl show {unit} --property {properties}"));
        let value = |name: &str| {
            let value = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("{name}: {shown}")).to_owned()
        };
        properties.split(',').map(value).collect()
    }

    fn pid(&self, unit: &str) -> u32 {
        self.show(unit, "MainPID")[0].parse().unwrap()
    }

    /// The answer of `vouchd verify --json`.
    fn verify(&self, flags: &str, image: &str) -> Value {
        let output = self.enter(&format!("vouchd verify --json {flags} -- {image}")).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&said)
            .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The records with this MESSAGE_ID, oldest first.
    fn records(&self, id: &str) -> Vec<Value> {
        let said = self.run(&format!("journalctl --quiet --output json MESSAGE_ID={id}"));
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The system bus over there.
    async fn bus(&self) -> zbus::Connection {
        let address = format!("unix:path={}", self.path("/run/dbus/system_bus_socket").display());
        zbus::connection::Builder::address(address.as_str()).build().await.unwrap()
    }

    fn until(&self, what: &str, happened: impl Fn() -> bool) {
        let began = Instant::now();
        while !happened() {
            let said = || self.attempt("journalctl --quiet --output cat | tail -n 40");
            assert!(began.elapsed() < Duration::from_secs(15), "no {what}: {:?}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.leader.as_raw() > 0 {
            let _ = kill(self.leader, Signal::SIGKILL);
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
