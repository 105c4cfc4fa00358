//! The linter: every rule where it fires and where it does not, every fault of the vectors, every format.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use vouchd::diagnostic::{Code, Severity};
use vouchd::lint::draft::{Draft, PROBLEMS, Text};
use vouchd::lint::target::{Release, Target};
use vouchd::lint::{Case, FAULTS, Fault, Finding, Host, NamedFile, Place, RULES, Store, Surroundings, needs};
use vouchd::policy::Policy;
use vouchd::verify::Timestamp;
use vouchd::verify::trust::KeyMaterial;
use vouchd::verify::trusted_root::HostRoot;

use crate::support::{Ran, say, skip, write};

/// 2026-06-01.
const NOW: Timestamp = Timestamp(1_780_272_000);

/// What is found only in a host's surroundings, or at a certain time; the tables below have it.
const WITHOUT_A_CASE: [Code; 12] = [
    Code::CertificatesInvalid,
    Code::KeyExpiresSoon,
    Code::PoliciesDiffer,
    Code::PolicyOverridden,
    Code::PrivateFile,
    Code::RegistriesConfInvalid,
    Code::RegistriesDInvalid,
    Code::StalePolicyCopy,
    Code::TrustedRootStale,
    Code::UnreadSetting,
    Code::VouchdTomlInvalid,
    Code::WritableFile,
];

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint")
}

/// Runs the linter beside the cases, with their registries.d and registries.conf.
fn lint(arguments: &[&str]) -> Ran {
    lint_stdin(arguments, b"")
}

fn lint_stdin(arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vouchd"))
        .args(["policy-lint", "--registries-d", "registries.d", "--registries-conf", "registries.conf"])
        .args(arguments)
        .current_dir(cases())
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever refuses the arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    ran
}

/// Findings at a time of the test's choice, with what is around of the test's choice.
fn findings(
    document: &[u8],
    targets: &[Target],
    surroundings: &Surroundings,
    now: Timestamp,
) -> Vec<Finding> {
    let text = Text::read(document);
    let tree = text.tree();
    let draft = Draft::of(&text, tree.as_ref());
    Case::new(&draft, document, targets, surroundings, now).findings()
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

fn has(findings: &[Finding], code: Code) -> bool {
    findings.iter().any(|finding| finding.code == code)
}

/// What a case needs besides its policy.
fn options(code: &str) -> &'static [&'static str] {
    match code {
        "key-too-new" => &["--target", "podman@4.9"],
        "relative-path" => &[],
        // It depends on the time at which somebody asks.
        _ => &["--allow", "relative-path", "--allow", "trusted-root-stale"],
    }
}

/// With `VOUCHD_UPDATE_SNAPSHOTS` the outputs are written anew, to be looked at before they are committed.
#[test]
fn every_rule_fires_where_it_should_and_not_elsewhere() {
    let mut with_case = BTreeSet::new();
    for entry in fs::read_dir(cases()).unwrap() {
        let directory = entry.unwrap().path();
        let code = directory.file_name().unwrap().to_str().unwrap().to_owned();
        if !directory.join("fires.json").exists() {
            continue;
        }
        let run = |file: &str| lint(&[options(&code), &[&format!("{code}/{file}")]].concat());
        let ran = run("fires.json");
        assert!(ran.stdout.contains(&format!("[{code}]")), "{code} does not fire: {ran:?}");
        let snapshot = directory.join("fires.txt");
        if std::env::var_os("VOUCHD_UPDATE_SNAPSHOTS").is_some() {
            fs::write(&snapshot, &ran.stdout).unwrap();
        }
        let wanted = fs::read_to_string(&snapshot).unwrap_or_default();
        assert_eq!(ran.stdout, wanted, "{code}");
        let ran = run("quiet.json");
        assert!(!ran.stdout.contains(&format!("[{code}]")), "{code} fires: {ran:?}");
        with_case.insert(code);
    }
    let known = FAULTS.iter().map(|(code, _)| *code).chain(RULES.iter().map(|rule| rule.code));
    let wanted: BTreeSet<String> =
        known.filter(|code| !WITHOUT_A_CASE.contains(code)).map(|code| code.to_string()).collect();
    assert_eq!(with_case, wanted);
}

#[test]
fn every_rule_has_a_code_of_its_own() {
    let codes: Vec<Code> =
        FAULTS.iter().map(|(code, _)| *code).chain(RULES.iter().map(|rule| rule.code)).collect();
    let distinct: BTreeSet<&Code> = codes.iter().collect();
    assert_eq!(distinct.len(), codes.len());
    assert!(RULES.is_sorted_by_key(|rule| rule.code.as_str()));
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("man/vouchd-codes.7")).unwrap();
    let (_, section) = page.split_once(".SH \"What policy\\-lint finds").unwrap();
    let (section, _) = section.split_once("\n.SH ").unwrap();
    for rule in RULES {
        let name = rule.code.as_str().replace('-', "\\-");
        assert!(section.contains(&name), "{name} is not in the section of the linter");
    }
    for entry in section.split("\n.TP\n").skip(1) {
        assert!(entry.contains("Example"), "{entry}");
    }
}

// Rules P-1 to P-53: the vectors' own keys are no keys, which is the one divergence.
#[test]
fn errors_are_exactly_what_the_reference_refuses() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/policy-parse.json");
    let vectors: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let targets = [Target::Vouchd, Target::ContainersImage(Release::Latest)];
    let mut failures = Vec::new();
    let all = vectors["cases"].as_array().unwrap();
    assert!(all.len() > 1_700);
    for case in all {
        let document = vouchd::json::decode_base64(case["policy_b64"].as_str().unwrap()).unwrap();
        let found = findings(&document, &targets, &Surroundings::default(), NOW);
        let is_error =
            |finding: &&Finding| finding.severity == Severity::Error && finding.code != Code::KeyFileInvalid;
        let errors: Vec<&Finding> = found.iter().filter(is_error).collect();
        if errors.is_empty() != (case["verdict"] == "ok") {
            failures.push(format!("{}: {}: {errors:?}", case["id"], case["reference_error"]));
        }
        for finding in &found {
            let Place::Policy(span) = &finding.place else { panic!("{}: {finding:?}", case["id"]) };
            assert!(span.start <= span.end && span.end <= document.len(), "{}: {finding:?}", case["id"]);
            assert!(errors.is_empty() || span.start < document.len().max(1), "{}: {finding:?}", case["id"]);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

// Rules S-2 to S-4, S-10 and S-21: what the reference looks up is never called a scope that matches nothing.
#[test]
fn scopes_that_the_reference_looks_up_can_match() {
    let vectors = |name: &str| -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let (matches, names) = (vectors("scope-match.json"), vectors("reference-normalize.json"));
    let mut scopes = BTreeSet::new();
    let mut add = |transport: &Value, identity: &Value, namespaces: &Value| {
        let namespaces = namespaces.as_array().cloned().unwrap_or_default();
        for scope in namespaces.iter().chain([identity]).filter_map(Value::as_str) {
            scopes.insert((transport.as_str().unwrap().to_owned(), scope.to_owned()));
        }
    };
    for case in matches["cases"].as_array().unwrap().iter().filter(|case| case["verdict"] == "ok") {
        add(&case["transport"], &case["identity"], &case["namespaces"]);
    }
    for case in names["cases"].as_array().unwrap() {
        let named = &case["docker_transport"];
        add(&json!("docker"), &named["policy_identity"], &named["policy_namespaces"]);
    }
    // Rule R-9: a name whose host is none, by which nothing can be fetched, and which is refused here.
    assert!(
        ["x_y.com", "x_y.com/z", "x_y.com/z:latest"]
            .iter()
            .all(|scope| scopes.remove(&("docker".to_owned(), (*scope).to_owned())))
    );
    assert!(scopes.len() > 300, "{}", scopes.len());
    for (transport, scope) in scopes {
        let list = json!({ scope.as_str(): [{"type": "reject"}] });
        let policy =
            json!({"default": [{"type": "reject"}], "transports": {transport.as_str(): list}}).to_string();
        let found = findings(policy.as_bytes(), &[Target::Vouchd], &Surroundings::default(), NOW);
        assert!(!has(&found, Code::ScopeNeverMatches), "{transport} {scope}: {found:?}");
    }
}

/// A fault is told exactly if the policy cannot be used, wherever a byte has changed, and in its place.
#[test]
fn a_fault_is_told_exactly_if_the_policy_cannot_be_used() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/policy-parse.json");
    let vectors: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let targets = [Target::Vouchd, Target::Podman(Release::Numbered(4, 9))];
    let faults: BTreeSet<Code> = FAULTS.iter().map(|(code, _)| *code).collect();
    let (mut state, mut usable) = (1_u32, 0);
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(state >> 8).unwrap() % below.max(1)
    };
    for case in vectors["cases"].as_array().unwrap() {
        let document = vouchd::json::decode_base64(case["policy_b64"].as_str().unwrap()).unwrap();
        for round in 0..4 {
            let mut changed = document.clone();
            match (round, random(changed.len())) {
                (0, _) => {}
                (1, at) => changed.truncate(at),
                (2, at) => changed.insert(at, b" ,}{/*\"1"[random(8)]),
                (_, at) => {
                    changed.iter_mut().skip(at).take(1).for_each(|byte| *byte = b" ,:]\"x\\\xff"[random(8)])
                }
            }
            let found = findings(&changed, &targets, &Surroundings::default(), NOW);
            let text = String::from_utf8_lossy(&changed);
            let is_usable = Policy::parse(&changed).is_ok();
            assert_eq!(found.iter().all(|finding| !faults.contains(&finding.code)), is_usable, "{text}");
            usable += usize::from(is_usable);
            for finding in &found {
                let Place::Policy(span) = &finding.place else { panic!("{finding:?}") };
                assert!(span.start <= span.end && span.end <= changed.len(), "{text}: {finding:?}");
            }
        }
    }
    assert!(usable > 500, "{usable}");
}

#[test]
fn the_policy_examples_have_no_errors() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy-examples");
    let mut arguments = vec!["--no-paths".to_owned(), "--format".to_owned(), "json".to_owned()];
    for directory in [examples.clone(), examples.join("demo")] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                arguments.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    assert!(arguments.len() > 10, "{arguments:?}");
    let ran = lint(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let report = ran.json();
    assert_eq!((ran.exit, &report["errors"], &report["failures"]), (0, &json!(0), &json!([])), "{ran:?}");
}

/// What people asked about in threads, and what they needed to be told.
#[test]
fn the_policies_of_the_threads_get_what_their_authors_needed() {
    let sigstore = |members: &str| {
        format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"off.example/acme":[{{"type":"sigstoreSigned",{members}}}]}}}}}}"#
        )
    };
    let key = r#""keyPath":"keys/cosign.pub","signedIdentity":{"type":"matchRepository"}"#;
    let fulcio = |members: &str| {
        sigstore(&format!(
            r#""fulcio":{{"caPath":"keys/root.pem","oidcIssuer":"https://token.actions.githubusercontent.com",{members}}},"rekorPublicKeyPath":"keys/log.pub""#
        ))
    };
    for (thread, document, arguments, code, exit) in [
        ("containers/image#1613", sigstore(key), &[][..], "attachments-disabled", 0),
        (
            "containers/skopeo#1846",
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/k"]}]}"#.to_owned(),
            &["--no-paths", "--target", "containers-image@5.21"],
            "key-too-new",
            1,
        ),
        (
            "ublue-os/config#296",
            sigstore(r#""keyPaths":["keys/cosign.pub"],"signedIdentity":{"type":"matchRepository"}"#),
            &["--target", "podman@5.2"],
            "key-too-new",
            1,
        ),
        ("containers/podman#15683", format!("{{\n// mine\n{}", &sigstore(key)[1..]), &[], "invalid-json", 1),
        (
            "ublue-os/main#277",
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#.to_owned(),
            &[],
            "default-accepts-anything",
            0,
        ),
        (
            "projectbluefin/common#847",
            fulcio(r#""subjectRegExp":"https://github.com/acme/.*""#),
            &[],
            "unknown-key",
            1,
        ),
        (
            "projectbluefin/common#883",
            fulcio(r#""subjectEmail":"https://github.com/acme/os/.github/workflows/b.yml@refs/heads/main""#),
            &[],
            "subject-not-email",
            0,
        ),
        ("containers/image#2027", sigstore(r#""keyPath":"keys/cosign.pub""#), &[], "cosign-signs-no-tag", 0),
        ("virt-s1/rhel-edge#416", sigstore(r#""keyPath":"keys/absent.pub""#), &[], "key-file-unreadable", 1),
        (
            "coreos/fedora-coreos-tracker#2091",
            sigstore(r#""keyPath":"keys/blocks.asc""#),
            &[],
            "key-file-invalid",
            1,
        ),
        ("secureblue/secureblue#1765", sigstore(r#""keyPath":"keys/two.pub""#), &[], "several-keys", 0),
        (
            "containers/image PR#50",
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"fedora":[{"type":"reject"}]}}}"#
                .to_owned(),
            &[],
            "scope-never-matches",
            0,
        ),
        (
            "guest-components#1590",
            sigstore(r#""keyPath":"keys/cosign.pub","signedIdentity":{"type":"matchRepository"}"#),
            &[],
            "tag-substitution",
            0,
        ),
    ] {
        let all = [arguments, &["--format", "json", "-"]].concat();
        let ran = lint_stdin(&all, document.as_bytes());
        let report = ran.json();
        let mut found = report["findings"].as_array().unwrap().iter();
        assert!(found.any(|finding| finding["code"] == code), "{thread}: {ran:?}");
        assert_eq!(ran.exit, exit, "{thread}: {ran:?}");
    }
    for manual in ["strict.json", "permissive.json", "variants.json"] {
        let file = format!("../manual/{manual}");
        let ran = lint(&["--no-paths", &file]);
        assert_eq!(ran.exit, 0, "{manual}: {ran:?}");
        let ran = lint(&["--no-paths", "--target", "containers-image", &file]);
        assert!(ran.exit == 1 && ran.stdout.contains("[extension-key]"), "{manual}: {ran:?}");
    }
}

#[test]
fn the_strictest_option_counts() {
    let signed = r#"{"default":[{"type":"reject"},{"type":"reject"}]}"#;
    for (document, arguments, exit, severity) in [
        (signed, &[][..], 0, Some("warning")),
        (signed, &["--deny", "warnings"], 1, Some("error")),
        (signed, &["--deny", "repeated-requirement"], 1, Some("error")),
        (signed, &["--allow", "repeated-requirement"], 0, None),
        (signed, &["--allow", "repeated-requirement", "--deny", "warnings"], 0, None),
        (signed, &["--allow", "repeated-requirement", "--warn", "repeated-requirement"], 0, Some("warning")),
        (signed, &["--deny", "repeated-requirement", "--allow", "repeated-requirement"], 1, Some("error")),
        (signed, &["--warn", "repeated-requirement", "--deny", "warnings"], 1, Some("error")),
    ] {
        let all = [arguments, &["--allow", "never-satisfied", "--format", "json", "-"]].concat();
        let ran = lint_stdin(&all, document.as_bytes());
        let report = ran.json();
        let found = report["findings"].as_array().unwrap().iter();
        let found: Vec<&Value> = found.filter(|finding| finding["code"] == "repeated-requirement").collect();
        assert_eq!(found.first().and_then(|finding| finding["severity"].as_str()), severity, "{arguments:?}");
        assert_eq!(ran.exit, exit, "{arguments:?}: {ran:?}");
    }
    // What keeps a policy from being used is not to be silenced.
    for arguments in [
        ["--allow", "unknown-key"],
        ["--warn", "invalid-json"],
        ["--deny", "no-such-code"],
        ["--allow", "warnings"],
        ["--target", "podman@x"],
        ["--format", "xml"],
    ] {
        let ran = lint(&[&arguments[..], &["-"]].concat());
        assert_eq!(ran.exit, 2, "{arguments:?}: {ran:?}");
    }
    let ran = lint_stdin(&["--deny", "warnings", "-"], br#"{"default":[{"type":"rejekt"}]}"#);
    assert_eq!(ran.exit, 1, "{ran:?}");
}

#[test]
fn what_cannot_be_read_is_said_and_never_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    nix::unistd::mkfifo(Path::new(&path("fifo")), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::File::create(path("large")).unwrap().set_len(100 << 20).unwrap();
    let good = write(path("good"), r#"{"default":[{"type":"reject"}]}"#).to_str().unwrap().to_owned();
    for name in ["fifo", "large", "", "absent", "a\u{1b}[2J"] {
        let ran = lint(&[&path(name)]);
        assert_eq!(ran.exit, 4, "{name}: {ran:?}");
        assert!(
            ran.stderr.contains("[policy-unreadable]") && !ran.stderr.contains('\u{1b}'),
            "{name}: {ran:?}"
        );
        // The others are looked at all the same.
        let ran = lint(&["--format", "json", &path(name), &good]);
        let report = ran.json();
        assert_eq!((ran.exit, &report["files"]), (4, &json!([good])), "{name}: {ran:?}");
        assert_eq!(report["failures"][0]["code"], "policy-unreadable", "{name}");
        let ran = lint(&["--format", "github", &path(name), &good]);
        assert!(ran.stdout.starts_with("::error file=") && !ran.stdout.contains('\u{1b}'), "{name}: {ran:?}");
    }
    assert_eq!(lint(&["/dev/zero"]).exit, 4);
    assert_eq!(lint_stdin(&["-"], &vec![b' '; (32 << 20) + 1]).exit, 4);
    if nix::unistd::geteuid().is_root() {
        return;
    }
    fs::set_permissions(&good, fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(lint(&[&good]).exit, 4);
}

#[test]
fn what_is_no_text_is_a_fault_and_acts_on_no_terminal() {
    for (document, code) in [
        (&b""[..], "[invalid-json]"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "[invalid-json]"),
        (b"\xff\xfe{\x00}\x00", "[invalid-json]"),
        (b"{\"default\":[{\"type\":\"reject\"}],\"\x1b[2J\":1}", "[invalid-json]"),
        (b"{\"default\":[{\"type\":\"reject\"}],\"\\u001b[2J\\u202e\":1}", "[unknown-key]"),
        ("{\"default\":[{\"type\":\"reject\"}],\"\u{9b}2J\":1}".as_bytes(), "[unknown-key]"),
        (b"{\"default\":[{\"type\":\"reject\"}],\"transports\":{\"docker\":{\"\\u001b[2Ja\":[{\"type\":\"reject\"}]}}}", "[scope-never-matches]"),
        (b"{\"default\":[{\"type\":\"reject\"}],\"transports\":{\"\\u009b\":{}}}", "[unknown-transport]"),
        (b"{\"default\":[{\"type\":\"signedBy\",\"keyType\":\"GPGKeys\",\"keyPath\":\"/\\u001b[2J\\nx\"}]}", "[key-file-unreadable]"),
    ] {
        for format in ["text", "json", "sarif", "github"] {
            let ran = lint_stdin(&["--format", format, "-"], document);
            let hazardous = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!ran.stdout.contains(hazardous), "{format}: {ran:?}");
            if format == "text" {
                assert!(ran.stdout.contains(code), "{ran:?}");
            }
            if format == "json" || format == "sarif" {
                ran.json();
            }
        }
    }
}

#[test]
fn workflow_commands_stay_on_their_lines() {
    let directory = tempfile::tempdir().unwrap();
    let file =
        write(directory.path().join("a,b:c%.json"), r#"{"default":[{"type":"reject"},{"type":"reject"}]}"#);
    let ran = lint(&["--format", "github", file.to_str().unwrap()]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(!lines.is_empty(), "{ran:?}");
    for line in lines {
        assert!(line.starts_with("::warning file=") && line.contains("a%2Cb%3Ac%25.json,line=1,"), "{line}");
        let (properties, _) = line.strip_prefix("::warning ").unwrap().split_once("::").unwrap();
        let names: Vec<&str> =
            properties.split(',').map(|property| property.split('=').next().unwrap()).collect();
        assert_eq!(names, ["file", "line", "endLine", "col", "endColumn", "title"], "{line}");
    }
}

// SARIF 2.1.0, sections 3.13, 3.14, 3.18, 3.19, 3.27 to 3.30 and 3.49: what must be there, and what it may be.
#[test]
fn sarif_is_what_the_standard_demands() {
    let ran =
        lint(&["--format", "sarif", "shared-signer/fires.json", "invalid-json/fires.json", "absent.json"]);
    assert_eq!(ran.exit, 4, "{ran:?}");
    let sarif = ran.json();
    assert_eq!(sarif["version"], "2.1.0");
    let runs = sarif["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    let driver = &runs[0]["tool"]["driver"];
    assert!(driver["name"].is_string());
    let levels = ["none", "note", "warning", "error"];
    let rules = driver["rules"].as_array().unwrap();
    assert_eq!(rules.len(), FAULTS.len() + RULES.len() + 1);
    for rule in rules {
        assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string(), "{rule}");
        assert!(levels.contains(&rule["defaultConfiguration"]["level"].as_str().unwrap()), "{rule}");
    }
    let invocation = &runs[0]["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    assert!(invocation["toolExecutionNotifications"][0]["message"]["text"].is_string());
    let results = runs[0]["results"].as_array().unwrap();
    assert!(results.iter().any(|result| result["relatedLocations"].is_array()), "{ran:?}");
    for result in results {
        assert!(levels.contains(&result["level"].as_str().unwrap()), "{result}");
        assert!(result["message"]["text"].is_string(), "{result}");
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"], "{result}");
        let related = result["relatedLocations"].as_array().cloned().unwrap_or_default();
        for location in related.iter().chain(result["locations"].as_array().unwrap()) {
            let physical = &location["physicalLocation"];
            let uri = physical["artifactLocation"]["uri"].as_str().unwrap();
            assert!(uri.bytes().all(|byte| byte.is_ascii_graphic()), "{uri}");
            let region = &physical["region"];
            let number = |name: &str| region[name].as_u64().unwrap();
            assert!(number("startLine") >= 1 && number("startColumn") >= 1, "{region}");
            let (start, end) =
                ((number("startLine"), number("startColumn")), (number("endLine"), number("endColumn")));
            assert!(start <= end, "{region}");
        }
    }
}

/// A file that a policy names, as it is when it can be read.
fn file(name: &str) -> NamedFile {
    let bytes = fs::read(cases().join("keys").join(name)).unwrap();
    NamedFile {
        material: Ok(Arc::new(KeyMaterial::new(name.to_owned(), bytes))),
        writable: None,
        private: None,
    }
}

// Rule G-5.
#[test]
fn keys_are_told_of_before_they_expire() {
    let document = br#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/a","/b"]}]}"#;
    // 2040-01-01.
    let end = 2_208_988_800;
    let day = 86_400;
    for (one, other, now, soon, expired) in [
        ("soon.gpg", "soon.gpg", end - 31 * day, 0, 0),
        ("soon.gpg", "soon.gpg", end - 29 * day, 2, 0),
        ("soon.gpg", "good.gpg", end - 29 * day, 1, 0),
        ("soon.gpg", "soon.gpg", end + day, 0, 2),
        ("good.gpg", "good.gpg", end + day, 0, 0),
        ("blocks.asc", "good.gpg", end - day, 0, 0),
    ] {
        let files = [("/a".to_owned(), file(one)), ("/b".to_owned(), file(other))].into_iter().collect();
        let surroundings = Surroundings { files, ..Surroundings::default() };
        let found = codes(&findings(document, &[Target::Vouchd], &surroundings, Timestamp(now))).join(" ");
        let count = |code: &str| found.matches(code).count();
        assert_eq!(
            (count("key-expires-soon"), count("key-expired")),
            (soon, expired),
            "{one} {other} {now}: {found}"
        );
    }
}

// T-31.
#[test]
fn an_old_trusted_root_is_told_of_where_it_is_used() {
    let keyless = br#"{"default":[{"type":"sigstoreSigned","keyless":{"issuer":"https://issuer.example","subject":"x@acme.example"}}]}"#;
    let other = br#"{"default":[{"type":"reject"}]}"#;
    let root = HostRoot::built_in().unwrap();
    let until = root.current_until.unwrap();
    let surroundings = Surroundings { host_root: Some(Arc::new(root)), ..Surroundings::default() };
    let day = 86_400;
    for (document, days, wanted) in [(&keyless[..], 179, false), (keyless, 181, true), (other, 181, false)] {
        let found = findings(document, &[Target::Vouchd], &surroundings, Timestamp(until.0 + days * day));
        assert_eq!(has(&found, Code::TrustedRootStale), wanted, "{days}: {found:?}");
    }
    let text = Text::read(keyless);
    let tree = text.tree();
    assert!(needs(&Draft::of(&text, tree.as_ref())).host_root);
}

// Design decision 3.2; rules L-3 and S-20; T-23.
#[test]
fn a_hosts_policies_are_held_against_each_other() {
    let policy = |default: &str, scopes: &str| {
        format!(r#"{{"default":[{default}],"transports":{{"docker":{{{scopes}}}}}}}"#).into_bytes()
    };
    let (reject, accept) = (r#"{"type":"reject"}"#, r#"{"type":"insecureAcceptAnything"}"#);
    let signed = r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#;
    let other_key = r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/other"}"#;
    let keyless = r#"{"type":"sigstoreSigned","keyless":{"issuer":"https://issuer.example","subject":"x@acme.example"}}"#;
    let scope = |requirement: &str| format!(r#""h.example/a":[{requirement}]"#);
    for (what, ours, theirs, differ) in [
        ("the same", policy(reject, &scope(signed)), policy(reject, &scope(signed)), false),
        ("another key", policy(reject, &scope(signed)), policy(reject, &scope(other_key)), true),
        ("another default", policy(reject, ""), policy(accept, ""), true),
        ("only here", policy(accept, &scope(signed)), policy(accept, ""), true),
        ("only there", policy(reject, ""), policy(reject, &scope(accept)), true),
        (
            "the same by a wider scope",
            policy(reject, &format!(r#""h.example":[{signed}]"#)),
            policy(reject, &format!(r#""h.example":[{signed}],{}"#, scope(signed))),
            false,
        ),
        ("ours and reject", policy(reject, &scope(keyless)), policy(reject, &scope(reject)), false),
        ("ours and nothing", policy(reject, &scope(keyless)), policy(reject, ""), false),
        ("ours and anything", policy(reject, &scope(keyless)), policy(reject, &scope(accept)), true),
        ("unusable", policy(reject, &scope(signed)), b"{}".to_vec(), false),
    ] {
        let host = Host { others: Some(("/etc/containers/policy.json".into(), theirs)), ..Host::default() };
        let surroundings = Surroundings { host: Some(host), ..Surroundings::default() };
        let found = findings(&ours, &[Target::Vouchd], &surroundings, NOW);
        assert_eq!(has(&found, Code::PoliciesDiffer), differ, "{what}: {found:?}");
        let is_error = |finding: &Finding| finding.severity == Severity::Error;
        assert_eq!(found.iter().any(is_error), differ, "{what}: {found:?}");
    }
    let path = |text: &str| Some(PathBuf::from(text));
    for (host, wanted) in [
        (Host::default(), vec![]),
        (
            Host { overridden: path("/home/u/p.json").zip(path("/etc/p.json")), ..Host::default() },
            vec!["policy-overridden"],
        ),
        (Host { newer: path("/usr/share/p.json"), ..Host::default() }, vec!["stale-policy-copy"]),
        (Host { writable: path("/etc/containers"), ..Host::default() }, vec!["writable-file"]),
    ] {
        let surroundings = Surroundings { host: Some(host), ..Surroundings::default() };
        let found = findings(&policy(reject, ""), &[Target::Vouchd], &surroundings, NOW);
        assert_eq!(codes(&found), wanted);
    }
    for code in [
        Code::CertificatesInvalid,
        Code::RegistriesConfInvalid,
        Code::RegistriesDInvalid,
        Code::VouchdTomlInvalid,
        Code::TrustedRootInvalid,
    ] {
        let fault =
            Fault { code, path: "/f".into(), at: None, message: "x".to_owned(), help: "y".to_owned() };
        let surroundings = Surroundings { faults: vec![fault], ..Surroundings::default() };
        let found = findings(&policy(reject, ""), &[Target::Vouchd], &surroundings, NOW);
        assert_eq!(codes(&found), [code.as_str()]);
        assert_eq!(found[0].severity, Severity::Error);
    }
}

// T-23.
#[test]
fn files_that_everybody_can_change_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let key = write(directory.path().join("keys/k.gpg"), fs::read(cases().join("keys/good.gpg")).unwrap());
    let policy = json!({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": key}]}).to_string();
    let lint = || lint_stdin(&["-"], policy.as_bytes());
    assert_eq!(lint().exit, 0, "{:?}", lint());
    for (path, mode, exit) in [
        (key.clone(), 0o666, 1),
        (key.clone(), 0o664, 0),
        (key.parent().unwrap().to_owned(), 0o777, 1),
        (key.parent().unwrap().to_owned(), 0o1777, 0),
    ] {
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let ran = lint();
        assert_eq!(
            (ran.exit, ran.stdout.contains("[writable-file]")),
            (exit, exit == 1),
            "{mode:o}: {ran:?}"
        );
        fs::set_permissions(&path, before).unwrap();
    }
}

// Rule S-13.
#[test]
fn paths_that_lead_through_links_match_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    fs::create_dir(root.join("real")).unwrap();
    std::os::unix::fs::symlink("real", root.join("link")).unwrap();
    for (path, is_told) in [
        (root.join("real"), false),
        (root.join("real/absent"), false),
        (root.join("absent/absent"), false),
        (root.join("link"), true),
        (root.join("link/absent"), true),
    ] {
        for transport in ["dir", "oci"] {
            let scopes = json!({path.to_str().unwrap(): [{"type": "reject"}]});
            let policy = json!({"default": [{"type": "reject"}], "transports": {transport: scopes}});
            let ran = lint_stdin(&["-"], policy.to_string().as_bytes());
            assert_eq!(ran.stdout.contains("[scope-never-matches]"), is_told, "{path:?}: {ran:?}");
            let ran = lint_stdin(&["--no-paths", "-"], policy.to_string().as_bytes());
            assert!(!ran.stdout.contains("[scope-never-matches]"), "{path:?}: {ran:?}");
        }
    }
}

#[test]
fn files_that_others_cannot_read_are_told_of() {
    let document = br#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]}"#;
    for private in [None, Some(PathBuf::from("/k"))] {
        let named = NamedFile { private: private.clone(), ..file("good.gpg") };
        let files = [("/k".to_owned(), named)].into_iter().collect();
        let surroundings = Surroundings { files, ..Surroundings::default() };
        let found = findings(document, &[Target::Vouchd], &surroundings, NOW);
        assert_eq!(has(&found, Code::PrivateFile), private.is_some(), "{found:?}");
    }
}

// Rules D-6, D-11 and M-1.
#[test]
fn broken_configuration_beside_the_policy_is_placed() {
    let directory = tempfile::tempdir().unwrap();
    let stores = directory.path().join("d");
    write(stores.join("a.yaml"), "docker:\n  a.example: {lookaside: [}\n");
    let conf = write(directory.path().join("r.conf"), "unqualified-search-registries = 5\n");
    let run = |stores: &Path, conf: &Path| {
        Ran::from(
            Command::new(env!("CARGO_BIN_EXE_vouchd"))
                .args(["policy-lint", "--no-paths", "--registries-d"])
                .args([stores, Path::new("--registries-conf"), conf, Path::new("quiet.json")])
                .current_dir(cases().join("key-expired"))
                .env_clear()
                .output()
                .unwrap(),
        )
    };
    let ran = run(&stores, &conf);
    assert_eq!(ran.exit, 1, "{ran:?}");
    for part in ["a.yaml: error: ", "[registries-d-invalid]", "r.conf:1:", "[registries-conf-invalid]"] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    // Rules D-3, D-4 and M-3: what is passed over in silence.
    write(stores.join("a.yaml"), "docker:\n  a.example: {use-sigstore-attachment: true}\n");
    write(stores.join("b.yml"), "docker: {}\n");
    write(&conf, "[[registry]]\nlocation = \"a.example\"\nblokced = true\n");
    let ran = run(&stores, &conf);
    assert_eq!(ran.exit, 0, "{ran:?}");
    for part in [
        "a.yaml:2:15: warning: \"use-sigstore-attachment\" means nothing here [unread-setting]",
        "did you mean \"use-sigstore-attachments\"?",
        "b.yml: warning: this file is not read",
        "r.conf:3:1: warning: \"blokced\" means nothing here",
        "did you mean \"blocked\"?",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    let cases = cases();
    let ran = run(&cases.join("registries.d"), &cases.join("registries.conf"));
    assert!(ran.exit == 0 && !ran.stdout.contains("[unread-setting]"), "{ran:?}");
}

// Rules A-1 and D-10: what is said of stores is said of those that do not look.
#[test]
fn only_stores_that_do_not_look_are_told_of() {
    let store = |name: &str, is_mirror, attachments| Store {
        name: name.to_owned(),
        is_mirror,
        attachments,
        attachments_origin: None,
        lookaside: true,
    };
    let document = br#"{"default":[{"type":"reject"}],"transports":{"docker":{"h.example":[{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"matchRepository"}}]}}}"#;
    for (stores, wanted) in [
        (vec![], 0),
        (vec![store("h.example", false, true)], 0),
        (vec![store("h.example", false, false)], 1),
        (vec![store("h.example", false, true), store("m.example", true, false)], 1),
        (vec![store("h.example", false, false), store("m.example", true, false)], 2),
    ] {
        let stores = [("h.example".to_owned(), stores)].into_iter().collect();
        let surroundings = Surroundings { stores, ..Surroundings::default() };
        let found = findings(document, &[Target::Vouchd], &surroundings, NOW);
        let count = found.iter().filter(|finding| finding.code == Code::AttachmentsDisabled).count();
        assert_eq!(count, wanted, "{found:?}");
    }
}

/// One line of 1 MiB with 20,000 faults, and more faults than are told.
#[test]
fn faults_beyond_number_are_told_up_to_a_limit() {
    for (count, omitted) in [(PROBLEMS, false), (PROBLEMS + 1, true)] {
        let document = flood(count);
        let found = findings(document.as_bytes(), &[Target::Vouchd], &Surroundings::default(), NOW);
        let faults = found.iter().filter(|finding| finding.code == Code::UnknownKey).count();
        assert_eq!((faults, has(&found, Code::FindingsOmitted)), (count.min(PROBLEMS), omitted));
    }
    // Among what is left out there may be errors, so that this is one.
    let scopes: String = (0..=PROBLEMS).map(|n| format!(r#""short{n}":[{{"type":"reject"}}],"#)).collect();
    let document = format!(
        r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{{scopes}"a.b":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"/absent"}}]}}}}}}"#
    );
    let ran = lint_stdin(&["-"], document.as_bytes());
    assert!(ran.exit == 1 && ran.stdout.contains("error: there is more to say"), "{}", ran.exit);
    let ran = lint_stdin(&["--format", "json", "-"], flood(1_000).as_bytes());
    let report = ran.json();
    let last = report["findings"].as_array().unwrap().last().unwrap();
    assert_eq!((last["line"].as_u64(), last["column"].as_u64() > Some(40_000)), (Some(1), true), "{last}");
}

/// A policy on one line with this number of members that are not known.
fn flood(count: usize) -> String {
    let members: String = (0..count).map(|n| format!(r#","{n:020}":"{}""#, "x".repeat(20))).collect();
    format!(r#"{{"default":[{{"type":"reject"}}]{members}}}"#)
}

/// Not a test but a measurement, of a release build: cargo test --release --test it -- --ignored lint::
#[test]
#[ignore = "a measurement"]
fn how_long_it_takes() {
    let directory = tempfile::tempdir().unwrap();
    let mut scopes = serde_json::Map::new();
    for n in 0..10_000 {
        let (name, key) = if n % 2 == 0 { ("good.gpg", "k") } else { ("cosign.pub", "p") };
        let path = directory.path().join(format!("{key}{}", n % 200));
        if n < 200 {
            fs::copy(cases().join("keys").join(name), &path).unwrap();
        }
        let requirement = if n % 2 == 0 {
            json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": path}])
        } else {
            json!([{"type": "sigstoreSigned", "keyPath": path, "signedIdentity": {"type": "matchRepository"}}])
        };
        scopes.insert(format!("registry.example/acme/image-{n}"), requirement);
    }
    let large = json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}}).to_string();
    let large = write(directory.path().join("large.json"), large);
    let flooded = write(directory.path().join("flood.json"), flood(20_000));
    for (what, path) in [("10,000 scopes, 200 key files", large), ("20,000 faults on one line", flooded)] {
        let started = Instant::now();
        let ran = lint(&["--allow", "tag-substitution", path.to_str().unwrap()]);
        let last = ran.stdout.lines().last().unwrap_or_default().to_owned();
        let size = fs::metadata(&path).unwrap().len();
        say("measured", &format!("{what}, {size} bytes: {:?}; {last}", started.elapsed()));
    }
    if cfg!(debug_assertions) {
        skip("a debug build says nothing about time");
    }
}
