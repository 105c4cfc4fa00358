//! The program as an administrator meets it: output, exit codes, bad input.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Ran, have, skip, vouchd, write};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policy-examples/demo");
const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;
const ANYTHING: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

/// A directory for the files of one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.path(name), content).to_str().unwrap().to_owned()
    }
}

fn demo(name: &str) -> String {
    format!("dir:{DEMO}/{name}")
}

fn verify(policy: &str, arguments: &[&str]) -> Ran {
    let mut all = vec!["verify", "--json", "--policy", policy];
    all.extend(arguments);
    vouchd(&all)
}

#[test]
fn the_text_says_what_where_and_how_to_mend_it() {
    let policy = format!("{DEMO}/policy.json");
    let ran = vouchd(&["verify", "--policy", &policy, &demo("signed")]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    for part in [
        "allowed, signature verified",
        "policy.json:5:7, scope dir \"\"",
        "manifest  sha256:",
        "signedBy: satisfied",
        "counts ",
        "signature-1: OpenPGP key ",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    let ran = vouchd(&["verify", "--policy", &policy, &demo("tampered")]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    for part in [
        "denied: digest mismatch",
        "[digest-mismatch]",
        "signedBy: not satisfied [digest-mismatch]",
        "not counted ",
        "\nhelp: ",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(ran.stdout.matches("help:").count(), 1, "{ran:?}");
}

/// A case of the vectors as a directory image, its policy with the files and the signed name in place of the image's.
fn vector(files: &Files, id: &str) -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/signature-verify.json");
    let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = all["cases"].as_array().unwrap().iter().find(|case| case["id"] == id).unwrap();
    let bytes = |value: &serde_json::Value| vouchd::json::decode_base64(value.as_str().unwrap()).unwrap();
    let mut policy: serde_json::Value = serde_json::from_str(case["policy"].as_str().unwrap()).unwrap();
    policy["default"][0]["signedIdentity"] =
        json!({ "type": "exactRepository", "dockerRepository": "registry.example/ns/app" });
    let signature = &case["signatures"][0];
    let stored = json!({
        "mimeType": signature["mime_type"],
        "payload": signature["payload_b64"],
        "annotations": signature["annotations"],
    });
    files.write("image/version", "Directory Transport Version: 1.1\n");
    files.write("image/manifest.json", bytes(&case["manifest_b64"]));
    files.write("image/signature-1", format!("\0sigstore-json\n{stored}"));
    (files.write("policy.json", policy.to_string()), format!("dir:{}", files.path("image").display()))
}

// Rules C-6, C-34, C-35, C-41, C-42: who signed stands in the report, and when only where a log says it.
#[test]
fn the_holder_of_a_certificate_is_named() {
    for (id, issuer, subject, time) in [
        (
            "sigstore/fulcio/issuer/v1-only",
            "https://issuer.pv.example",
            "signer@pv.example",
            json!("2024-03-01T12:01:00Z"),
        ),
        (
            "sigstore/pki/subject/both-match",
            "CN=pv intermediate",
            "signer@pv.example and build.pv.example",
            json!(null),
        ),
    ] {
        let files = Files::new();
        let (policy, image) = vector(&files, id);
        let ran = verify(&policy, &[&image]);
        assert_eq!(ran.exit, 0, "{id}: {ran:?}");
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let signature = &report["requirements"][0]["signatures"][0];
        assert_eq!(signature["time"], time, "{id}");
        let signer = &signature["signer"];
        assert_eq!(
            (&signer["kind"], &signer["issuer"], &signer["subject"]),
            (&json!("certificate"), &json!(issuer), &json!(subject)),
            "{id}"
        );
        assert!(signer["id"].as_str().unwrap().starts_with("sha256:"), "{id}");
        let ran = vouchd(&["verify", "--policy", &policy, &image]);
        assert!(ran.stdout.contains(&format!("signature-1: {subject} by way of {issuer}")), "{ran:?}");
        let ran = vouchd(&["explain", "--policy", &policy, &image]);
        assert!(ran.stdout.contains("outcome   signature-required"), "{ran:?}");
        assert!(ran.stdout.contains("\"signer@pv.example\""), "{ran:?}");
        // Another signer is named in the refusal.
        let text = std::fs::read_to_string(files.path("policy.json")).unwrap();
        let other = files.write("other.json", text.replace("signer@pv.example", "other@pv.example"));
        let ran = verify(&other, &[&image]);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((ran.exit, &report["code"]), (1, &json!("identity-mismatch-subject")), "{id}");
        assert!(report["message"].as_str().unwrap().contains("signer@pv.example"), "{report}");
    }
}

#[test]
fn several_images_give_the_highest_exit_code_and_one_report_each() {
    let policy = format!("{DEMO}/policy.json");
    let ran = verify(&policy, &[&demo("signed"), &demo("unsigned"), &demo("absent")]);
    assert_eq!(ran.exit, 3);
    let reports: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answers: Vec<_> = reports.iter().map(|r| (&r["decided"], &r["allowed"])).collect();
    let (yes, no) = (&json!(true), &json!(false));
    assert_eq!(answers, [(yes, yes), (yes, no), (no, no)]);
}

#[test]
fn quiet_prints_only_refusals_and_only_to_standard_error() {
    let policy = format!("{DEMO}/policy.json");
    let ran = vouchd(&["verify", "--quiet", "--policy", &policy, &demo("signed")]);
    assert_eq!((ran.exit, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    let ran = vouchd(&["verify", "--quiet", "--policy", &policy, &demo("unsigned")]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("[unsigned]"), "{ran:?}");
}

#[test]
fn an_answer_that_is_lost_is_no_success() {
    let policy = format!("{DEMO}/policy.json");
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let image = demo("signed");
    for arguments in [
        &["verify", "--policy", &policy, &image][..],
        &["verify", "--json", "--policy", &policy, &image],
        &["explain", "--policy", &policy, &image],
        &["--help"],
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_vouchd")).args(arguments).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {output:?}");
    }
    // A reader that went away has what it wanted; the exit code still tells.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(env!("CARGO_BIN_EXE_vouchd"))
        .args(["verify", "--policy", &policy, &image])
        .stdout(writer)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn every_fault_of_a_policy_is_shown_causes_first() {
    let files = Files::new();
    let policy = files.write(
        "policy.json",
        "{\"default\": [{\"type\": \"signedBy\", \"keyType\": \"GPGKeys\",\n \"keypath\": \"/k\"}], \"transports\": {\"dir\": {\"a\": []}}}",
    );
    let ran = verify(&policy, &[&demo("signed")]);
    let report = ran.json();
    let problems: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(|p| (&p["code"], &p["line"])).collect();
    let wanted =
        [("unknown-key", 2), ("invalid-scope", 2), ("invalid-requirement", 1), ("invalid-requirement", 2)];
    let wanted: Vec<_> = wanted.iter().map(|(code, line)| (json!(code), json!(line))).collect();
    assert_eq!(problems, wanted.iter().map(|(c, l)| (c, l)).collect::<Vec<_>>());
    assert_eq!(report["help"], "did you mean \"keyPath\"?");
    let text = vouchd(&["verify", "--policy", &policy, &demo("signed")]).stderr;
    assert!(text.contains("unknown member \"keypath\"") && text.matches("  also ").count() == 3, "{text}");
}

#[test]
fn what_could_not_be_decided_still_names_policy_and_scope() {
    let files = Files::new();
    let policy = files.write(
        "policy.json",
        r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/nonexistent/k"}]}"#,
    );
    let report = verify(&policy, &[&demo("signed")]).json();
    assert_eq!((&report["code"], &report["policy"]["path"]), (&json!("key-file-unreadable"), &json!(policy)));
    assert_eq!((&report["scope"]["name"], &report["scope"]["column"]), (&json!("default"), &json!(2)));
}

#[test]
fn what_cannot_be_pinned_is_not_printed_as_pinned() {
    let policy = format!("{DEMO}/policy.json");
    let ran = vouchd(&["verify", "--print-pinned", "--policy", &policy, &demo("signed")]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (3, ""), "{ran:?}");
    let ran = vouchd(&["verify", "--print-pinned", "--policy", &policy, &demo("unsigned")]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""), "{ran:?}");
}

#[test]
fn the_command_line_is_checked() {
    for arguments in [
        &["verify"][..],
        &["verify", "--unknown", "docker://a.example/b"],
        &["verify", "--timeout", "0", "docker://a.example/b"],
        &["verify", "--platform", "linux", "docker://a.example/b"],
        &["verify", "--subject", "any", "docker://a.example/b"],
        &["verify", "--bus", "--direct", "docker://a.example/b"],
        &["verify", "--bus", "--policy", "/x", "docker://a.example/b"],
        &["verify", "--quiet", "--json", "docker://a.example/b"],
        &["verify", "--bus-address", "unix:path=/x", "docker://a.example/b"],
        &["verify", "--bus-address", "unix:path=/x", "--direct", "docker://a.example/b"],
        &["verify", "--bus-address", "unix:path=/x", "--key", "/k", "docker://a.example/b"],
        &["verify", "--bus-address", "unix:path=/x", "--policy", "/p", "docker://a.example/b"],
        &["explain"],
        &["nonsense"],
        &[],
    ] {
        let ran = vouchd(arguments);
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{arguments:?}: {ran:?}");
    }
    assert_eq!(vouchd(&["--help"]).exit, 0);
    assert_eq!(vouchd(&["verify", "--help"]).exit, 0);
    // An image called "--help" is no verdict.
    assert_eq!(vouchd(&["verify", "--quiet", "--help"]).exit, 2);
    assert_eq!(vouchd(&["verify", "-hquay.example/evil"]).exit, 2);
    assert_eq!(vouchd(&["-h", "docker://quay.example/evil"]).exit, 2);
    assert_eq!(vouchd(&["help", "verify"]).exit, 0);
    for asked in [["help", "trust", "show"], ["trust", "show", "--help"], ["trust", "help", "show"]] {
        assert_eq!(vouchd(&asked).exit, 0, "{asked:?}");
    }
    assert_eq!(vouchd(&["verify", "help", "--help"]).exit, 2);
    assert_eq!(vouchd(&["trust"]).exit, 2);
    assert_eq!(vouchd(&["verify", "--", "--help"]).exit, 2);
    assert_eq!(vouchd(&["--version"]).exit, 0);
}

#[test]
fn image_names_are_checked() {
    let files = Files::new();
    let policy = files.write("policy.json", ANYTHING);
    let digest = "a".repeat(64);
    // Rules N-1, N-3: somebody must say which images these are.
    for name in ["busybox", "library/busybox:1", "bogus:thing"] {
        let ran = verify(&policy, &["--registries-conf", "/dev/null", name]);
        assert_eq!(ran.code(), (2, "short-name".to_owned()), "{name}: {ran:?}");
    }
    for name in [
        "docker:busybox",
        "docker://",
        "docker://UPPER.example/Upper",
        &format!("docker://a.example/b:1@sha256:{digest}"),
        &format!("docker://a.example/b@md5:{digest}"),
        "http://a.example/b",
        "",
        &"a.example/".repeat(200),
    ] {
        let ran = verify(&policy, &[name]);
        assert_eq!(ran.code(), (2, "invalid-reference".to_owned()), "{name}: {ran:?}");
    }
    // Rule R-9: it parses, but there is no host to ask.
    let ran = verify(&policy, &["docker://foo_bar.example/x:1"]);
    assert_eq!(ran.exit, 3, "{ran:?}");
    for (name, code) in [
        ("docker-daemon:a.example/b:1", "unsupported-transport"),
        ("ostree:a.example/b:1", "unsupported-transport"),
    ] {
        let signed = files.write("signed.json", r#"{"default":[{"type":"sigstoreSigned","keyData":""}]}"#);
        assert_eq!(verify(&signed, &[name]).code(), (3, code.to_owned()), "{name}");
        // Accepting anything needs no manifest where there is none to pin.
        assert_eq!(verify(&policy, &[name]).exit, 0, "{name}");
        let reject = files.write("reject.json", REJECT);
        assert_eq!(verify(&reject, &[name]).code(), (1, "rejected-by-policy".to_owned()), "{name}");
    }
}

#[test]
fn bad_policies_decide_nothing() {
    let files = Files::new();
    let good = demo("signed");
    let utf16: Vec<u8> = ANYTHING.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let huge = format!("{}{}", ANYTHING, " ".repeat(33 << 20));
    for (name, content, code) in [
        ("empty", &b""[..], "policy-invalid"),
        ("space", b" \n", "policy-invalid"),
        ("truncated", br#"{"default":[{"type":"insecureAcceptAnything"}"#, "policy-invalid"),
        ("comment", b"// c\n{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}", "policy-invalid"),
        ("bom", b"\xef\xbb\xbf{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}", "policy-invalid"),
        ("utf16", &utf16, "policy-invalid"),
        ("two", b"{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}{}", "policy-invalid"),
        ("unknown", br#"{"default":[{"type":"insecureAcceptAnything"}],"x":1}"#, "policy-invalid"),
        ("none", br#"{"default":[]}"#, "policy-invalid"),
        ("deep", "[".repeat(1 << 20).as_bytes(), "policy-invalid"),
        ("huge", huge.as_bytes(), "policy-unreadable"),
    ] {
        let policy = files.write(name, content);
        let ran = verify(&policy, &[&good]);
        assert_eq!(ran.code(), (4, code.to_owned()), "{name}: {ran:?}");
        if code == "policy-invalid" {
            let message = ran.json()["message"].as_str().unwrap().to_owned();
            assert!(message.starts_with(&format!("{policy}:")), "{message}");
        }
    }
    let directory = files.path("directory");
    std::fs::create_dir(&directory).unwrap();
    let fifo = files.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&directory, &fifo, &files.path("missing")] {
        let ran = verify(path.to_str().unwrap(), &[&good]);
        assert_eq!(ran.code(), (4, "policy-unreadable".to_owned()), "{ran:?}");
    }
}

#[test]
fn bad_keys_and_registries_d_never_allow() {
    let files = Files::new();
    let signed_by = |path: &str| {
        json!({ "default": [{ "type": "signedBy", "keyType": "GPGKeys", "keyPath": path,
            "signedIdentity": { "type": "exactReference", "dockerReference": "registry.example/demo/hello:1" } }] })
        .to_string()
    };
    let pem = format!("{DEMO}/keys/demo.pub");
    for (name, path, code) in [
        ("garbage", files.write("garbage.gpg", b"garbage"), (1, "key-file-invalid")),
        ("empty", files.write("empty.gpg", b""), (1, "key-file-invalid")),
        ("pem", pem, (1, "key-file-invalid")),
        ("huge", files.write("huge.gpg", vec![0; 5 << 20]), (4, "key-file-unreadable")),
        ("directory", files.0.path().to_str().unwrap().to_owned(), (4, "key-file-unreadable")),
        ("missing", files.path("missing.gpg").to_str().unwrap().to_owned(), (4, "key-file-unreadable")),
    ] {
        let policy = files.write("policy.json", signed_by(&path));
        let ran = verify(&policy, &[&demo("signed")]);
        assert_eq!(ran.code(), (code.0, code.1.to_owned()), "{name}: {ran:?}");
    }
    let policy = files.write("good.json", signed_by(&format!("{DEMO}/keys/demo.gpg")));
    assert_eq!(verify(&policy, &[&demo("signed")]).exit, 0);
    for (name, content) in [
        ("duplicate", "docker:\n  a: {}\n  a: {}\n"),
        ("tab", "docker:\n\ta: {}\n"),
        ("binary", "\u{1}\u{0}"),
    ] {
        let directory = files.path(name);
        files.write(&format!("{name}/x.yaml"), content);
        let directory = directory.to_str().unwrap();
        let ran = verify(&policy, &["--registries-d", directory, "docker://127.0.0.1:1/a/b"]);
        assert_eq!(ran.code(), (4, "registries-d-invalid".to_owned()), "{name}: {ran:?}");
        // Images outside registries have no use for it (rule D-11).
        assert_eq!(verify(&policy, &["--registries-d", directory, &demo("signed")]).exit, 0);
    }
}

#[test]
fn an_unreadable_policy_is_not_an_absent_one() {
    if nix::unistd::geteuid().is_root() {
        // Root reads everything; the search itself is tested with a root of its own in registries_d.
        return;
    }
    let files = Files::new();
    let policy = files.write("policy.json", ANYTHING);
    std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(verify(&policy, &[&demo("signed")]).code(), (4, "policy-unreadable".to_owned()));
}

#[test]
fn credentials_that_nobody_named_and_this_user_may_not_read_are_passed_over() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can take permissions away from somebody");
    }
    if !have(&["setpriv"]) {
        return;
    }
    let files = Files::new();
    std::fs::set_permissions(files.0.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = files.path("vouchd");
    std::fs::copy(env!("CARGO_BIN_EXE_vouchd"), &program).unwrap();
    let policy = files.write("policy.json", ANYTHING);
    let authfile = files.write("runtime/containers/auth.json", "{}");
    std::fs::set_permissions(files.path("runtime"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["verify", "--json", "--policy", &policy])
            .args(arguments)
            .arg("docker://127.0.0.1:1/a/b")
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("XDG_RUNTIME_DIR", files.path("runtime"))
            .output()
            .unwrap();
        Ran::from(output).code()
    };
    assert_eq!(run(&[]), (3, "registry-unavailable".to_owned()));
    assert_eq!(run(&["--authfile", &authfile]), (4, "auth-file-invalid".to_owned()));
}

/// Serves one connection after another with `answer`, without TLS.
fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    });
    port
}

#[test]
fn a_registry_that_is_none_decides_nothing() {
    let files = Files::new();
    let policy = files.write("policy.json", ANYTHING);
    let empty = files.path("registries.d");
    std::fs::create_dir(&empty).unwrap();
    let html = serve(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>");
    });
    let silent = serve(|stream| {
        std::thread::sleep(Duration::from_secs(5));
        drop(stream);
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (name, port, codes) in [
        ("not TLS", html, &["tls-error"][..]),
        ("silent", silent, &["timed-out"]),
        ("closed", closed, &["registry-unavailable"]),
    ] {
        let begun = Instant::now();
        let reference = format!("docker://127.0.0.1:{port}/a/b:1");
        let ran =
            verify(&policy, &["--registries-d", empty.to_str().unwrap(), "--timeout", "1s", &reference]);
        let (exit, code) = ran.code();
        assert!(exit == 3 && codes.contains(&code.as_str()), "{name}: {ran:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{name} took {:?}", begun.elapsed());
    }
}

#[test]
fn nothing_untrusted_reaches_the_terminal_raw() {
    let files = Files::new();
    let policy = files.write("policy.json", ANYTHING);
    for name in ["docker://a.example/\u{1b}[31m", "dir:/nonexistent/\u{1b}]0;owned\u{7}\u{202e}x"] {
        for arguments in [
            &["verify", "--policy", policy.as_str(), name][..],
            &["explain", "--policy", policy.as_str(), name],
        ] {
            let ran = vouchd(arguments);
            assert_ne!(ran.exit, 0);
            let text = format!("{}{}", ran.stdout, ran.stderr);
            assert!(
                !text.contains('\u{1b}') && !text.contains('\u{202e}') && !text.contains('\u{7}'),
                "{text:?}"
            );
        }
    }
}

#[test]
fn explain_is_offline_and_names_scope_keys_and_stores() {
    let files = Files::new();
    let policy = files.write(
        "policy.json",
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{
  "registry.example/acme": [{"type":"signedBy","keyType":"GPGKeys","keyPath":"/etc/pki/acme.gpg"}]}}}"#,
    );
    let registries_d = files.path("registries.d");
    files.write(
        "registries.d/acme.yaml",
        "docker:\n  registry.example/acme:\n    lookaside: https://user:secret@sigs.example/x\n    use-sigstore-attachments: true\n",
    );
    let arguments = [
        "--policy",
        &policy,
        "--registries-d",
        registries_d.to_str().unwrap(),
        "registry.example/acme/app:1.2",
    ];
    let ran = vouchd(&[&["explain"], &arguments[..]].concat());
    assert_eq!(ran.exit, 0, "{ran:?}");
    for part in [
        "scope docker \"registry.example/acme\"",
        ":2:3",
        "\"registry.example/acme/app:1.2\", \"registry.example/acme/app\", \"registry.example/acme\"",
        "signature-required",
        "\"/etc/pki/acme.gpg\"",
        "matchRepoDigestOrExact: \"registry.example/acme/app:1.2\"",
        "https://sigs.example/x/acme/app",
        "attachments are looked for",
        "acme.yaml",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    assert!(!ran.stdout.contains("secret"), "{ran:?}");
    let json = vouchd(&[&["explain", "--json"], &arguments[..]].concat()).json();
    assert_eq!(json["scope"], "registry.example/acme");
    assert_eq!(json["outcome"], "signature-required");
    assert_eq!(json["endpoints"][0]["use-sigstore-attachments"], true);

    // Rules M-5, M-7, D-10: the policy looks at one name, and the stores are those of others.
    let conf = files.write(
        "registries.conf",
        "[[registry]]\nprefix = \"registry.example\"\nlocation = \"there.example/x\"\n[[registry.mirror]]\nlocation = \"mirror.example/y\"\ninsecure = true\n",
    );
    let arguments = [&["--registries-conf", conf.as_str()], &arguments[..]].concat();
    let ran = vouchd(&[&["explain"], &arguments[..]].concat());
    let places = [
        "scope docker \"registry.example/acme\"",
        "mirror    docker://mirror.example/y/acme/app:1.2  (insecure",
        "/y/acme/app",
        "attachments are not looked for",
        "registry  docker://there.example/x/acme/app:1.2",
        "/x/acme/app",
    ]
    .map(|part| ran.stdout.find(part));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {ran:?}");
    // What is blocked has requirements all the same.
    let blocked =
        files.write("blocked.conf", "[[registry]]\nlocation = \"registry.example\"\nblocked = true\n");
    let ran = vouchd(&[
        "explain",
        "--policy",
        &policy,
        "--registries-conf",
        &blocked,
        "registry.example/acme/app:1.2",
    ]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("signature-required") && ran.stdout.contains("not asked: blocked by"),
        "{ran:?}"
    );

    let json = vouchd(&[&["explain", "--json"], &arguments[..]].concat()).json();
    assert_eq!(json["scope"], "registry.example/acme");
    assert_eq!(json["endpoints"][0]["reference"], "docker://mirror.example/y/acme/app:1.2");
    assert_eq!(
        (&json["endpoints"][0]["mirror"], &json["endpoints"][0]["insecure"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(json["endpoints"][1]["reference"], "docker://there.example/x/acme/app:1.2");
    assert_eq!(
        (&json["endpoints"][1]["mirror"], &json["endpoints"][1]["insecure"]),
        (&json!(false), &json!(false))
    );
}

/// T-22: what the environment calls an authority counts for the user alone; for root, with `--user-config`.
#[test]
fn authorities_of_the_environment_are_the_users() {
    let files = Files::new();
    let policy = files.write("policy.json", ANYTHING);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = files.write("own.pem", made.cert.pem());
    let key = files.write("own.key", made.signing_key.serialize_pem());
    if !have(&["openssl"]) {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "openssl", "s_server", "-quiet", "-www", "-accept", &port.to_string()])
        .args(["-cert", &certificate, "-key", &key])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let image = format!("localhost:{port}/a/b:1");
    let ask = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_vouchd"))
            .args(["verify", "--json", "--direct", "--policy", &policy, "--registries-conf", "/dev/null"])
            .args(arguments)
            .arg(&image)
            .env("SSL_CERT_FILE", &certificate)
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        Ran::from(output).code().1
    };
    let root = nix::unistd::geteuid().is_root();
    let (own, asked_for) = (ask(&[]), ask(&["--user-config"]));
    server.kill().unwrap();
    server.wait().unwrap();
    // It is no registry, so that trust shows in what is wrong with it.
    assert_ne!(asked_for, "tls-error");
    assert_eq!(own == "tls-error", root, "{own}");
}

/// Rules M-1, M-3, M-8, N-3, H-8: what cannot be read or reached is never "allowed".
#[test]
fn bad_registries_conf_and_proxies_never_allow() {
    let files = Files::new();
    let policy = files.write("policy.json", ANYTHING);
    let absent = files.path("absent.conf").to_str().unwrap().to_owned();
    let conf = |text: &str| files.write(&format!("{}.conf", text.len()), text);
    for (path, exit, code, part) in [
        (absent, 4, "registries-conf-invalid", "absent.conf"),
        (conf("[[registry]]\nlocation = 5\n"), 4, "registries-conf-invalid", ".conf:2:12"),
        (conf("[[registry]]\nlocation = \"https://a.example\"\n"), 4, "registries-conf-invalid", ".conf:2"),
        (
            conf("[registries.search]\nregistries = [\"a.example\"]\n"),
            4,
            "registries-conf-invalid",
            ".conf:1",
        ),
        (conf("[[registry]]\nlocation = \"a.example\"\nblocked = true\n"), 3, "registry-blocked", ".conf"),
    ] {
        let ran = verify(&policy, &["--registries-conf", &path, "a.example/b:1"]);
        assert_eq!(ran.code(), (exit, code.to_owned()), "{ran:?}");
        let message = ran.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{part}: {message}");
    }
    for (variable, value) in [("HTTPS_PROXY", "socks5://u:hunter2@h"), ("http_proxy", "http://[u:hunter2@")] {
        let ran = Ran::from(
            std::process::Command::new(env!("CARGO_BIN_EXE_vouchd"))
                .args([
                    "verify",
                    "--json",
                    "--policy",
                    &policy,
                    "--registries-conf",
                    "/dev/null",
                    "a.example/b:1",
                ])
                .env(variable, value)
                .output()
                .unwrap(),
        );
        assert_eq!(ran.code(), (4, "proxy-invalid".to_owned()), "{ran:?}");
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    }
}

#[test]
fn ostree_prefixes_mean_what_they_promise() {
    let files = Files::new();
    let policy = files.write("policy.json", ANYTHING);
    let dir = format!("dir:{DEMO}/unsigned");
    let signed = format!("ostree-image-signed:{dir}");
    let unverified = format!("ostree-unverified-image:{dir}");
    assert_eq!(verify(&policy, &[&signed]).code(), (1, "signature-required".to_owned()));
    let ran = verify(&policy, &[&unverified]);
    assert_eq!((ran.exit, ran.json()["warnings"].as_array().unwrap().len()), (0, 1), "{ran:?}");
}

#[test]
fn a_directory_may_hold_an_index_with_its_instance() {
    let files = Files::new();
    let image = Path::new(DEMO).join("signed");
    let instance = std::fs::read(image.join("manifest.json")).unwrap();
    let digest = vouchd::digest::Digest::sha256(&instance);
    let index = json!({ "schemaVersion": 2, "mediaType": vouchd::manifest::OCI_INDEX, "manifests": [{
        "mediaType": vouchd::manifest::OCI_MANIFEST, "digest": digest.to_string(), "size": instance.len(),
        "platform": { "os": "linux", "architecture": "amd64" } }] });
    files.write("image/manifest.json", index.to_string());
    files.write(&format!("image/{}.manifest.json", digest.hex()), &instance);
    let signature = std::fs::read(image.join("signature-1")).unwrap();
    files.write(&format!("image/{}.signature-1", digest.hex()), signature);
    let policy = format!("{DEMO}/policy.json");
    let name = format!("dir:{}", files.path("image").display());
    for (subject, exit) in [("either", 0), ("instance", 0), ("top-level", 1), ("both", 1)] {
        let ran = verify(&policy, &["--platform", "linux/amd64", "--subject", subject, &name]);
        assert_eq!(ran.exit, exit, "{subject}: {ran:?}");
    }
    // The instance must be the one that the index names.
    files.write(&format!("image/{}.manifest.json", digest.hex()), b"{}");
    let ran = verify(&policy, &["--platform", "linux/amd64", &name]);
    assert_eq!(ran.code(), (1, "digest-mismatch".to_owned()), "{ran:?}");
}

/// Go's decoder takes member names in any case and the last of several; what it would run must be what was judged.
#[test]
fn an_index_that_readers_understand_differently_is_refused() {
    let files = Files::new();
    let image = Path::new(DEMO).join("signed");
    let good = std::fs::read(image.join("manifest.json")).unwrap();
    let evil = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    let signature = std::fs::read(image.join("signature-1")).unwrap();
    let digest = |bytes: &[u8]| vouchd::digest::Digest::sha256(bytes);
    let entry = |bytes: &[u8], more: &str| {
        format!(
            r#"{{"mediaType":"{}","digest":"{}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}{more}}}"#,
            vouchd::manifest::OCI_MANIFEST,
            digest(bytes)
        )
    };
    let (signed, unsigned) = (entry(&good, ""), entry(evil, ""));
    let index = |members: &str| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{}",{members}}}"#, vouchd::manifest::OCI_INDEX)
    };
    let policy = format!("{DEMO}/policy.json");
    let name = format!("dir:{}", files.path("image").display());
    for (members, exit) in [
        (format!(r#""manifests":[{signed}]"#), 0),
        (format!(r#""manifests":[{signed}],"Manifests":[{unsigned}]"#), 1),
        (format!(r#""manifests":[{signed}],"manife\u017fts":[{unsigned}]"#), 1),
        (format!(r#""manifests":[{}]"#, entry(&good, &format!(r#","Digest":"{}""#, digest(evil)))), 1),
        (format!(r#""manifests":[{signed}],"config":{{}},"layers":[]"#), 1),
        (format!(r#""manifests":[{signed}],"annotations":5"#), 1),
    ] {
        files.write("image/manifest.json", index(&members));
        files.write(&format!("image/{}.manifest.json", digest(&good).hex()), &good);
        files.write(&format!("image/{}.signature-1", digest(&good).hex()), &signature);
        files.write(&format!("image/{}.manifest.json", digest(evil).hex()), evil);
        let ran = verify(&policy, &["--platform", "linux/amd64", &name]);
        let code = if exit == 0 { "allowed" } else { "manifest-invalid" };
        assert_eq!(ran.code(), (exit, code.to_owned()), "{members}: {ran:?}");
    }
}

/// T-28: documents that are small on the wire and large in memory.
#[test]
fn hostile_documents_do_not_fill_the_memory() {
    let files = Files::new();
    let policy = files.write("policy.json", ANYTHING);
    let name = format!("dir:{}", files.path("image").display());
    let nested = format!("{}{},", "[".repeat(60), "]".repeat(60));
    for filling in ["[0],", "{\"\":0},", "0,", &nested] {
        let count = (4 << 20) / filling.len() - 8;
        let body = filling.repeat(count);
        files.write("image/manifest.json", format!("{{\"a\":[{}]}}", body.trim_end_matches(',')));
        let output = Command::new("/bin/sh")
            .args(["-c", "ulimit -v 1200000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_vouchd")])
            .args(["verify", "--json", "--policy", &policy, &name])
            .output()
            .unwrap();
        assert_eq!(Ran::from(output).code(), (1, "manifest-invalid".to_owned()), "{}", filling.len());
    }
}
