//! Authentication files and credential helpers: which count, in which order, and what hostile ones cannot do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::unistd::geteuid;
use serde_json::json;
use tempfile::TempDir;
use vouchd::config::{Environment, User};
use vouchd::diagnostic::Code;
use vouchd::fetch::Error;
use vouchd::fetch::credentials::{
    AUTH_FILE_BYTES, Credentials, FILES, Fault, Found, HELPER_BYTES, HELPER_TIME, NotAcceptable, Programs,
    Source, Stores,
};

use crate::support::{have, skip, write};

const REPOSITORY: &str = "q.io/a/b";

/// What a helper says that works.
const ANSWER: &str = r#"echo '{"ServerURL":"q.io","Username":"u","Secret":"p"}'"#;

// Rules U-4, U-5.
#[test]
fn the_nearest_key_wins_and_urls_are_normalised() {
    let host = Host::new();
    for (key, repository, found) in [
        ("q.io/a/b", "q.io/a/b", true),
        ("q.io/a", "q.io/a/b", true),
        ("q.io", "q.io/a/b", true),
        ("q.io/a/b/c", "q.io/a/b", false),
        ("q.io/aa", "q.io/a/b", false),
        ("https://q.io/v1/", "q.io/a/b", true),
        ("http://q.io", "q.io/a/b", true),
        ("http://https://q.io/v2", "q.io/a/b", true),
        ("https://http://q.io", "q.io/a/b", false),
        ("https://q.io/a/b", "q.io/x", true),
        ("q.io/v1/", "q.io/a/b", false),
        ("q.io", "q.io:443/a/b", false),
        ("Q.IO", "q.io/a/b", false),
        ("evil-q.io", "q.io/a", false),
        ("q.io", "evil-q.io/a", false),
        ("https://index.docker.io/v1/", "docker.io/library/x", true),
        ("index.docker.io", "docker.io/library/x", true),
        ("registry-1.docker.io", "docker.io/library/x", true),
        ("docker.io", "docker.io/library/x", true),
        ("docker.io/library/x", "docker.io/library/x", true),
        ("docker.io/x", "docker.io/library/x", false),
        ("https://docker.io/v1/", "registry-1.docker.io/x/y", true),
        ("index.docker.io/library", "docker.io/library/x", false),
    ] {
        let file = host.auth(&json!({ key: entry("u:p") }));
        assert_eq!(
            user(&host.named(&file), repository),
            found.then(|| "u".to_owned()),
            "{key}, {repository}"
        );
    }
    for (keys, wanted) in [
        (json!({ "q.io": entry("host:p"), "q.io/a": entry("namespace:p") }), "namespace"),
        (json!({ "https://q.io/v1/": entry("url:p"), "q.io": entry("host:p") }), "host"),
    ] {
        assert_eq!(user(&host.named(&host.auth(&keys)), REPOSITORY).as_deref(), Some(wanted), "{keys}");
    }
    // An exact entry without credentials hides those above it.
    for empty in [json!({}), json!(null), entry("nocolon")] {
        let file = host.auth(&json!({ "q.io/a": empty, "q.io": entry("u:p") }));
        assert_eq!(user(&host.named(&file), REPOSITORY), None, "{empty}");
    }
}

// Rules U-2, U-4.
#[test]
fn a_legacy_file_has_hosts_and_urls_but_no_namespaces() {
    let host = Host::new();
    for (key, found) in [
        ("q.io", true),
        ("q.io/v1/", true),
        ("https://q.io/v1/", true),
        ("q.io/a/b", true),
        ("q.io.example/v1/", false),
        ("auths", false),
    ] {
        write(host.path("home/.dockercfg"), json!({ key: entry("u:p") }).to_string());
        assert_eq!(user(&host.default_files(7), "q.io/a/b").is_some(), found, "{key}");
    }
    let both = json!({ "q.io/a": entry("namespace:p"), "q.io": entry("host:p") });
    write(host.path("home/.dockercfg"), both.to_string());
    assert_eq!(user(&host.default_files(7), "q.io/a/b").as_deref(), Some("host"));
    write(host.path("home/.dockercfg"), json!({ "credHelpers": {"q.io": "x"} }).to_string());
    assert_eq!(user(&host.default_files(7), "q.io/a/b"), None);
}

// Rule U-4.
#[test]
fn entries_are_decoded_as_the_reference_does() {
    let host = Host::new();
    let u_p = || Some(("u".to_owned(), "p".to_owned(), None));
    for (content, found) in [
        // u:p:q, then "u:p" and two NUL bytes.
        (r#"{"auths":{"q.io":{"auth":"dTpwOnE="}}}"#, Some(("u".into(), "p:q".into(), None))),
        (r#"{"auths":{"q.io":{"auth":"dTpwAAA="}}}"#, u_p()),
        (r#"{"auths":{"q.io":{"auth":"dT\npw"}}}"#, u_p()),
        (r#"{"auths":{"q.io":{"auth":"dXA="}}}"#, None),
        // No text, and no colon either.
        (r#"{"auths":{"q.io":{"auth":"/w=="}}}"#, None),
        (r#"{"auths":{"q.io":{"auth":"Og=="}}}"#, None),
        (r#"{"auths":{"q.io":{"identitytoken":"t"}}}"#, None),
        (
            r#"{"auths":{"q.io":{"auth":"dTo=","identitytoken":"t"}}}"#,
            Some(("u".into(), "".into(), Some("t".into()))),
        ),
        (r#"{"auths":{"q.io":{"auth":"dTpw","identitytoken":""}}}"#, u_p()),
        (
            r#"{"auths":{"q.io":{"auth":"Og==","identitytoken":"t"}}}"#,
            Some(("".into(), "".into(), Some("t".into()))),
        ),
        (r#"{"auths":{"q.io":{}}}"#, None),
        (r#"{"auths":{"q.io":null}}"#, None),
        // Names in any case, of several the last, and null is nothing.
        (r#"{"AUTHS":{"q.io":{"Auth":"dTpw"}}}"#, u_p()),
        (r#"{"auths":{"q.io":{"auth":"YTpi","auth":"dTpw"}}}"#, u_p()),
        (r#"{"auths":{"q.io":{"auth":"dTpw","auth":null}}}"#, u_p()),
        (r#"{"auths":{"q.io":{"auth":"YTpi"}},"auths":{"q.io":{"auth":"dTpw"}}}"#, u_p()),
        (r#"{"auths":{"q.io":{"auth":"dTpw","email":5,"username":"x"}},"plugins":[]}"#, u_p()),
        ("{}", None),
        ("null", None),
        (r#"{"auths":null,"credHelpers":null}"#, None),
        (r#"{"credsStore":"x"}"#, None),
        (r#"{"credsStore":{},"auths":{"q.io":{"auth":"dTpw"}}}"#, u_p()),
        (r#"{"credHelpers":{"other":"x"}}"#, None),
    ] {
        let found_now = find(&host.named(&host.file(content)), REPOSITORY).unwrap();
        assert_eq!(found_now.credentials.map(parts), found, "{content}");
    }
}

// Rules U-1, U-4.
#[test]
fn a_file_that_cannot_be_used_is_an_error_and_shows_no_secret() {
    let host = Host::new();
    for content in [
        "",
        "{",
        "[]",
        r#"{"auths":["hunter2"]}"#,
        r#"{"auths":{"q.io":"hunter2"}}"#,
        r#"{"auths":{"other":{"auth":{"hunter2":1}}}}"#,
        r#"{"auths":{"q.io":{"auth":"***hunter2"}}}"#,
        r#"{"auths":{"q.io":{"auth":"/zov"}}}"#,
        r#"{"auths":{}} hunter2"#,
        r#"{"credHelpers":{"q.io":["hunter2"]}}"#,
        r#"{"credHelpers":"hunter2"}"#,
        &format!("{{\"auths\":{}0{}}}", "[".repeat(100), "]".repeat(100)),
        &format!("{{\"x\":\"{}\"}}", "x".repeat(AUTH_FILE_BYTES)),
    ] {
        let file = host.file(content);
        let error = find(&host.named(&file), REPOSITORY).unwrap_err();
        assert_eq!(error.code(), Code::AuthFileInvalid);
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    for path in ["/nonexistent/auth.json", "/"] {
        let error = find(&host.named(Path::new(path)), REPOSITORY).unwrap_err();
        assert!(matches!(error, Error::AuthFile { .. }), "{error:?}");
    }
    assert_eq!(find(&Source::Anonymous, REPOSITORY).unwrap(), Found::default());
}

// Rules U-2, T-22.
#[test]
fn files_are_searched_in_order() {
    let of_user = [
        "run/containers/7/auth.json",
        "home/.config/containers/auth.json",
        "home/.docker/config.json",
        "home/.dockercfg",
    ];
    let of_root = [
        "run/containers/0/auth.json",
        "home/.config/containers/auth.json",
        "home/.docker/config.json",
        "home/.dockercfg",
        "run/ostree/auth.json",
        "etc/ostree/auth.json",
        "usr/lib/ostree/auth.json",
    ];
    let of_the_system = [
        "run/containers/0/auth.json",
        "run/user/0/containers/auth.json",
        "run/ostree/auth.json",
        "etc/ostree/auth.json",
        "usr/lib/ostree/auth.json",
    ];
    let all: Vec<&str> = of_user.iter().chain(&of_root).chain(&of_the_system).copied().collect();
    for (uid, is_user, wanted) in
        [(7, true, of_user.as_slice()), (0, true, &of_root), (0, false, &of_the_system)]
    {
        let host = Host::new();
        for path in &all {
            let credentials = json!({ "q.io": entry(&format!("{path}:p")) });
            let legacy = path.ends_with(".dockercfg");
            let content = if legacy { credentials } else { json!({ "auths": credentials }) };
            write(host.path(path), content.to_string());
        }
        let source = if is_user { host.default_files(uid) } else { host.system() };
        for path in wanted {
            assert_eq!(user(&source, REPOSITORY).as_deref(), Some(*path), "{uid} {is_user}");
            fs::remove_file(host.path(path)).unwrap();
        }
        assert_eq!(user(&source, REPOSITORY), None, "{uid} {is_user}");
    }
}

// Rule U-2.
#[test]
fn a_file_without_an_answer_leads_to_the_next_and_a_broken_one_does_not() {
    let host = Host::new();
    let first = host.path("run/containers/7/auth.json");
    write(host.path("home/.docker/config.json"), json!({"auths": {"q.io": entry("u:p")}}).to_string());
    for (content, found) in [
        (r#"{"auths":{"z.io":{"auth":"dTpw"}}}"#, true),
        (r#"{"auths":{"q.io":{}}}"#, true),
        ("{}", true),
        ("broken", false),
        ("", false),
    ] {
        write(&first, content);
        let source = host.default_files(7);
        assert_eq!(find(&source, REPOSITORY).ok().and_then(|f| f.credentials).is_some(), found, "{content}");
    }
    // What comes after an answer is not read.
    write(&first, r#"{"auths":{"q.io":{"auth":"dTpw"}}}"#);
    write(host.path("home/.docker/config.json"), "broken");
    assert_eq!(user(&host.default_files(7), REPOSITORY).as_deref(), Some("u"));
    // A file cannot be below a file.
    fs::remove_file(&first).unwrap();
    fs::remove_file(host.path("home/.docker/config.json")).unwrap();
    fs::remove_dir(host.path("home/.docker")).unwrap();
    write(host.path("home/.docker"), "");
    assert!(find(&host.default_files(7), REPOSITORY).is_err());
}

// Rule U-2.
#[test]
fn the_first_file_of_ostree_that_exists_counts_alone() {
    for first in ["{}", r#"{"auths":{"q.io":{}}}"#] {
        let host = Host::new();
        write(host.path("etc/ostree/auth.json"), first);
        let last = json!({"auths": {"q.io": entry("u:p")}}).to_string();
        write(host.path("usr/lib/ostree/auth.json"), &last);
        assert_eq!(user(&host.system(), REPOSITORY), None, "{first}");
        assert_eq!(user(&host.default_files(7), REPOSITORY), None);
        fs::remove_file(host.path("etc/ostree/auth.json")).unwrap();
        assert_eq!(user(&host.system(), REPOSITORY).as_deref(), Some("u"));
    }
}

// Rules U-1, U-2, T-22.
#[test]
fn variables_of_the_command_line_name_the_only_file() {
    let host = Host::new();
    let credentials = |name: &str| {
        let content = json!({"auths": {"q.io": entry(&format!("{name}:p"))}}).to_string();
        write(host.path(name), content)
    };
    let (named, variable) = (credentials("named.json"), credentials("variable.json"));
    credentials("docker/config.json");
    credentials("runtime/containers/auth.json");
    credentials("config/containers/auth.json");
    credentials("run/containers/0/auth.json");
    credentials("run/containers/7/auth.json");
    let (docker, runtime) = (host.path("docker"), host.path("runtime"));
    let (empty, absent) = (host.path("home"), host.path("absent"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for (authfile, variables, wanted) in [
        (
            Some(&named),
            vec![("REGISTRY_AUTH_FILE", &variable), ("DOCKER_CONFIG", &docker)],
            Some("named.json"),
        ),
        (None, vec![("REGISTRY_AUTH_FILE", &variable), ("DOCKER_CONFIG", &docker)], Some("variable.json")),
        (None, vec![("DOCKER_CONFIG", &docker), ("XDG_RUNTIME_DIR", &runtime)], Some("docker/config.json")),
        (None, vec![("DOCKER_CONFIG", &empty), ("XDG_RUNTIME_DIR", &runtime)], None),
        (None, vec![("DOCKER_CONFIG", &absent)], None),
        (None, vec![("XDG_RUNTIME_DIR", &runtime)], Some("runtime/containers/auth.json")),
        (None, vec![("XDG_RUNTIME_DIR", &absent)], Some("config/containers/auth.json")),
        (None, vec![], Some("run/containers/7/auth.json")),
    ] {
        let mut environment = host.environment(7);
        environment.user.as_mut().unwrap().xdg_config_home = Some(host.path("config"));
        let variable = |name: &str| {
            let set = variables.iter().find(|(variable, _)| *variable == name);
            set.map(|(_, value)| text(value).into())
        };
        let source = Source::of_command_line(authfile.cloned(), &environment, variable);
        assert_eq!(user(&source, REPOSITORY).as_deref(), wanted, "{authfile:?} {variables:?}");
        // Without the files of the user only what was named counts.
        let system = Environment { user: None, uid: 0, ..environment };
        let source = Source::of_command_line(authfile.cloned(), &system, variable);
        let wanted = if authfile.is_some() { "named.json" } else { "run/containers/0/auth.json" };
        assert_eq!(user(&source, REPOSITORY).as_deref(), Some(wanted), "{authfile:?} {variables:?}");
    }
    // What $REGISTRY_AUTH_FILE names must exist, and a variable that is empty is not set.
    let missing = |name: &str| (name == "REGISTRY_AUTH_FILE").then(|| text(&absent).into());
    let source = Source::of_command_line(None, &host.environment(7), missing);
    assert_eq!(find(&source, REPOSITORY).unwrap_err().code(), Code::AuthFileInvalid);
    let source = Source::of_command_line(None, &host.environment(7), |_| Some("".into()));
    assert_eq!(user(&source, REPOSITORY).as_deref(), Some("run/containers/7/auth.json"));
}

// Rule U-2.
#[test]
fn a_runtime_directory_that_does_not_exist_is_only_a_warning() {
    let host = Host::new();
    write(host.path("home/.docker/config.json"), json!({"auths": {"q.io": entry("u:p")}}).to_string());
    restrict(&host.path("home/.docker/config.json"), 0o600);
    let runtime = host.path("runtime");
    let source = Source::of_command_line(None, &host.environment(7), |name| {
        (name == "XDG_RUNTIME_DIR").then(|| runtime.clone().into())
    });
    let found = find(&source, REPOSITORY).unwrap();
    assert!(found.credentials.is_some());
    assert_eq!(found.warnings.len(), 1);
    assert!(found.warnings[0].contains(runtime.to_str().unwrap()), "{found:?}");
    fs::create_dir(&runtime).unwrap();
    assert_eq!(find(&source, REPOSITORY).unwrap().warnings, Vec::<String>::new());
}

// Rule U-4.
#[test]
fn files_with_wide_permissions_count_and_are_warned_of() {
    let host = Host::new();
    let file = host.auth(&json!({ "q.io": entry("u:hunter2") }));
    for (mode, wanted) in [
        (0o600, None),
        (0o400, None),
        (0o640, None),
        (0o644, Some("can be read by everybody")),
        (0o620, Some("can be changed by others than its owner:")),
        (0o602, Some("can be changed by others than its owner:")),
        (0o666, Some("can be changed by others than its owner and read by everybody")),
    ] {
        restrict(&file, mode);
        // Also where it has nothing for the repository.
        for repository in [REPOSITORY, "z.io/a"] {
            let found = find(&host.named(&file), repository).unwrap();
            assert_eq!(found.credentials.is_some(), repository == REPOSITORY);
            assert_eq!(found.warnings.len(), usize::from(wanted.is_some()), "{mode:o} {:?}", found.warnings);
            for warning in &found.warnings {
                assert!(warning.contains(wanted.unwrap()), "{mode:o} {warning}");
                assert!(warning.contains(file.to_str().unwrap()) && warning.contains("chmod"), "{warning}");
                assert!(!warning.contains("hunter2"), "{warning}");
            }
        }
    }
}

// Rules T-24, M-10.
#[test]
fn only_literal_credentials_can_be_handed_over() {
    let helpers = Err(NotAcceptable::CredentialHelpers);
    let store = Err(NotAcceptable::CredentialStore);
    for (content, wanted) in [
        (r#"{"auths":{"q.io":{"auth":"dTpw"}}}"#, Ok(true)),
        (r#"{"auths":{"other.io":{"auth":"dTpw"}}}"#, Ok(false)),
        (r#"{"auths":{"q.io":{"auth":"dTpw"}},"credHelpers":{},"credsStore":""}"#, Ok(true)),
        (r#"{"auths":{"q.io":{"auth":"dTpw"}},"credHelpers":null,"credsStore":null}"#, Ok(true)),
        ("{}", Ok(false)),
        (r#"{"credHelpers":{"q.io":"x"}}"#, helpers.clone()),
        (r#"{"auths":{"q.io":{"auth":"dTpw"}},"credHelpers":{"other.io":""}}"#, helpers.clone()),
        (r#"{"credHelpers":{},"CREDhelpers":{"q.io":"x"}}"#, helpers.clone()),
        (r#"{"credsStore":"x"}"#, store.clone()),
        (r#"{"credsstore":"x","credsStore":""}"#, store.clone()),
        (r#"{"credsStore":[]}"#, store.clone()),
    ] {
        let found = Source::handed_over(content.as_bytes()).map(|source| user(&source, REPOSITORY).is_some());
        assert_eq!(found, wanted, "{content}");
    }
    for (content, reason) in [
        ("", "line 1 column 1"),
        ("{\n  \"auths\": [\"hunter2\"]}", "line 2 column 12: an object"),
        (r#"{"auths":{"q.io":{"auth":true}}}"#, "line 1 column 26: a string"),
    ] {
        let error = Source::handed_over(content.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!error.to_string().contains("hunter2") && error.code() == Code::Usage);
    }
    let padded = |length: usize| {
        let mut text = "{}".to_owned();
        text.push_str(&" ".repeat(length - text.len()));
        Source::handed_over(text.as_bytes()).map(|_| ())
    };
    assert_eq!(padded(AUTH_FILE_BYTES), Ok(()));
    assert_eq!(padded(AUTH_FILE_BYTES + 1), Err(NotAcceptable::TooLarge));
    // Nobody else is asked, whatever registries.conf says; and what is broken is found out when it is needed.
    let host = Host::new();
    host.helper("x", &format!("echo > {}\n{ANSWER}", host.path("ran").display()));
    let (names, conf) = (["x".to_owned()], [host.file("")]);
    let stores = Stores { names: &names, named_in: &conf };
    for source in [Source::handed_over(b"{}").unwrap(), Source::Anonymous] {
        assert_eq!(source.find(REPOSITORY, stores, soon()).unwrap(), Found::default());
    }
    assert!(!host.path("ran").exists());
    let broken = Source::handed_over(br#"{"auths":{"q.io":{"auth":"***hunter2"}}}"#).unwrap();
    assert_eq!(user(&broken, "z.io/a"), None);
    let error = find(&broken, REPOSITORY).unwrap_err();
    assert_eq!(error.code(), Code::AuthFileInvalid);
    assert!(!format!("{error:?} {broken:?}").contains("hunter2"));
}

// Rules U-4, H-3.
#[test]
fn a_helper_that_works_is_asked_for_the_host() {
    let host = Host::new();
    // What it is asked comes back: argument, input, and how many bytes that had.
    let echo = r#"input=$(cat; echo x); printf '{"Username":"%s","Secret":"%s"}' "$*" "${input%x}""#;
    let token = |t: &str| Some((String::new(), String::new(), Some(t.to_owned())));
    let u_p = || Some(("u".to_owned(), "p".to_owned(), None));
    for (script, found) in [
        (ANSWER, u_p()),
        (echo, Some(("get".into(), "q.io".into(), None))),
        (r#"echo '{"ServerURL":"","Username":"<token>","Secret":"t"}'"#, token("t")),
        (r#"echo '{"Username":"<token>","Secret":""}'"#, None),
        (r#"echo '{"Username":"<Token>","Secret":"p"}'"#, Some(("<Token>".into(), "p".into(), None))),
        (r#"echo '{"username":"u","SECRET":"p","more":[1]}'"#, u_p()),
        (r#"echo '{"Username":"","Secret":"p"}'"#, Some(("".into(), "p".into(), None))),
        ("echo '{}'", None),
        ("echo null", None),
        ("echo 'credentials not found in native keychain'; exit 1", None),
        ("printf ' credentials not found in native keychain'; exit 3", None),
        // It need not read, nor keep quiet.
        (&format!("exec <&-; {ANSWER}; head -c 300000 /dev/zero >&2"), u_p()),
        (&format!("sleep 0.2; {ANSWER}; exec >&-; sleep 0.2"), u_p()),
    ] {
        let file = host.names_helper("x");
        host.helper("x", script);
        let found_now = find(&host.named(&file), REPOSITORY).unwrap_or_else(|e| panic!("{script}: {e}"));
        assert_eq!(found_now.credentials.map(parts), found, "{script}");
    }
    // The host as it stands in the name of the image, and no other: not a namespace, not a normalised name.
    for (key, repository, asked) in [
        ("q.io:5000", "q.io:5000/a", Some("q.io:5000")),
        ("docker.io", "docker.io/library/x", Some("docker.io")),
        ("index.docker.io", "docker.io/library/x", None),
        ("https://q.io", "q.io/a", None),
        ("q.io/a", "q.io/a/b", None),
    ] {
        host.helper("x", echo);
        let file = host.file(&json!({ "credHelpers": { key: "x" } }).to_string());
        let found = find(&host.named(&file), repository).unwrap().credentials.map(parts);
        assert_eq!(found.map(|(_, password, _)| password).as_deref(), asked, "{key}");
    }
}

// Rule U-4.
#[test]
fn the_answer_of_a_helper_is_that_of_its_file() {
    let host = Host::new();
    let first = host.path("run/containers/7/auth.json");
    write(&first, r#"{"credHelpers":{"q.io":"x"},"auths":{"q.io":{"auth":"YTpi"},"z.io":{"auth":"YTpi"}}}"#);
    write(host.path("home/.docker/config.json"), json!({"auths": {"q.io": entry("later:p")}}).to_string());
    for (script, wanted) in [
        (ANSWER, Ok("u")),
        ("echo 'credentials not found in native keychain'; exit 1", Ok("later")),
        ("exit 1", Err(Code::CredentialHelperFailed)),
    ] {
        host.helper("x", script);
        let found = find(&host.default_files_of_owner(7), REPOSITORY);
        let found = found.map(|f| f.credentials.unwrap().user).map_err(|e| e.code());
        assert_eq!(found, wanted.map(str::to_owned), "{script}");
    }
    assert_eq!(user(&host.default_files_of_owner(7), "z.io/x").as_deref(), Some("a"));
}

// Rule T-24.
#[test]
fn a_helper_that_misbehaves_is_an_error_that_tells_no_secret() {
    let host = Host::new();
    let failed = |status: &str| Fault::Failed(status.to_owned());
    let answer = |detail: &str| Fault::Answer(detail.to_owned());
    let object = "line 1 column 1: an object is wanted here";
    for (script, wanted) in [
        ("echo hunter2; echo hunter2 >&2; exit 1", failed("exit status: 1")),
        (r#"echo '{"Username":"u","Secret":"hunter2"}'; exit 2"#, failed("exit status: 2")),
        ("echo credentials not found in native keychain hunter2; exit 1", failed("exit status: 1")),
        ("kill -9 $$", failed("signal: 9 (SIGKILL)")),
        ("echo '[\"hunter2\"]'", answer(object)),
        ("echo '\"hunter2\"'", answer(object)),
        (
            r#"echo '{"Username":"u","Secret":["hunter2"]}'"#,
            answer("line 1 column 26: a string is wanted here"),
        ),
        ("head -c 10000000 /dev/zero | tr '\\0' x", Fault::TooLong),
        ("yes hunter2", Fault::TooLong),
    ] {
        let file = host.names_helper("x");
        host.helper("x", script);
        let error = find(&host.named(&file), REPOSITORY).unwrap_err();
        let Error::CredentialHelper { helper, named_in, fault } = &error else { panic!("{error:?}") };
        assert_eq!((helper.as_str(), fault), ("x", &wanted), "{script}");
        assert_eq!(named_in, &[file.to_str().unwrap()], "{script}");
        assert_eq!(error.code(), Code::CredentialHelperFailed);
        let shown = error.to_string();
        assert!(shown.contains("\"x\"") && shown.contains(file.to_str().unwrap()), "{shown}");
        assert!(!format!("{shown} {error:?}").contains("hunter2"), "{error:?}");
    }
    for garbage in ["", "echo hunter2", "echo '{'", r#"echo '{"Username":"u"} hunter2'"#, "printf '\\377'"] {
        let file = host.names_helper("x");
        host.helper("x", garbage);
        let error = find(&host.named(&file), REPOSITORY).unwrap_err();
        assert!(
            matches!(error, Error::CredentialHelper { fault: Fault::Answer(_), .. }),
            "{garbage} {error:?}"
        );
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    // As much as may be, and one byte more.
    for (length, wanted) in [(HELPER_BYTES, true), (HELPER_BYTES + 1, false)] {
        let answer = r#"{"Username":"u"}"#;
        let padding = length - answer.len();
        host.helper("x", &format!("printf '{answer}'; head -c {padding} /dev/zero | tr '\\0' ' '"));
        assert_eq!(find(&host.named(&host.names_helper("x")), REPOSITORY).is_ok(), wanted, "{length}");
    }
}

// Rule T-24.
#[test]
fn a_helper_that_hangs_is_ended_with_its_children() {
    let host = Host::new();
    let pids = host.path("pids");
    let leave = format!("sleep 600 & echo $! >> {}", pids.display());
    for script in [
        "sleep 600".to_owned(),
        format!("{ANSWER}; {leave}; wait"),
        format!("{ANSWER}; exec >&-; sleep 600"),
        format!("trap '' TERM HUP INT; {leave}; while :; do sleep 600; done"),
    ] {
        host.helper("x", &script);
        let source = host.named(&host.names_helper("x"));
        let start = Instant::now();
        let error =
            source.find(REPOSITORY, Stores::default(), start + Duration::from_millis(400)).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5), "{script}");
        assert!(
            matches!(error, Error::CredentialHelper { fault: Fault::TimedOut, .. }),
            "{script} {error:?}"
        );
    }
    // One that has answered and ended is not waited for by way of its children.
    host.helper("x", &format!("{leave}; {ANSWER}"));
    let start = Instant::now();
    assert_eq!(user(&host.named(&host.names_helper("x")), REPOSITORY).as_deref(), Some("u"));
    assert!(start.elapsed() < Duration::from_secs(5));
    let left: Vec<String> = fs::read_to_string(&pids).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(left.len(), 3);
    for pid in left {
        assert!(ends(&pid), "{pid} is still there");
    }
}

// Rule T-24.
#[test]
fn a_child_that_left_the_group_holds_nobody_up() {
    if !have(&["setsid"]) {
        return;
    }
    let host = Host::new();
    for (script, wanted) in [
        (format!("setsid sleep 4 & {ANSWER}"), None),
        ("setsid sleep 4 & sleep 600".to_owned(), Some(Fault::TimedOut)),
    ] {
        host.helper("x", &script);
        let source = host.named(&host.names_helper("x"));
        let start = Instant::now();
        let found = source.find(REPOSITORY, Stores::default(), start + Duration::from_secs(1));
        assert!(start.elapsed() < Duration::from_millis(3500), "{script}");
        match (found, wanted) {
            (Ok(found), None) => assert!(found.credentials.is_some()),
            (Err(Error::CredentialHelper { fault, .. }), Some(wanted)) => assert_eq!(fault, wanted),
            (found, wanted) => panic!("{script}: {found:?} {wanted:?}"),
        }
    }
}

// Rule T-24.
#[test]
fn a_helper_has_its_own_limit_of_time() {
    let host = Host::new();
    host.helper("x", "sleep 600");
    let start = Instant::now();
    let found = host.named(&host.names_helper("x")).find(
        REPOSITORY,
        Stores::default(),
        start + Duration::from_secs(600),
    );
    assert!(matches!(found, Err(Error::CredentialHelper { fault: Fault::TimedOut, .. })), "{found:?}");
    let elapsed = start.elapsed();
    assert!(elapsed >= HELPER_TIME && elapsed < HELPER_TIME * 2, "{elapsed:?}");
}

// Rule T-24.
#[test]
fn the_name_of_a_helper_is_no_path() {
    let host = Host::new();
    host.helper("x", ANSWER);
    host.helper("A-b_9", ANSWER);
    write(host.path("usr/bin/docker-credential-a/b"), "");
    for (name, wanted) in [
        ("A-b_9", None),
        ("", Some(Fault::Name)),
        ("a/b", Some(Fault::Name)),
        ("../bin/docker-credential-x", Some(Fault::Name)),
        ("x/", Some(Fault::Name)),
        (".", Some(Fault::Name)),
        ("x y", Some(Fault::Name)),
        ("x\n", Some(Fault::Name)),
        ("x\0", Some(Fault::Name)),
        ("\u{fc}", Some(Fault::Name)),
        ("absent", Some(Fault::Absent)),
        ("a", Some(Fault::NoProgram(host.path("usr/bin/docker-credential-a")))),
    ] {
        for system in [true, false] {
            let programs = if system { host.programs() } else { host.own_programs() };
            let source = Source::named(host.names_helper(name), programs);
            let wanted = match &wanted {
                // A user's programs are those that can be run.
                Some(Fault::NoProgram(_)) if !system => Some(Fault::Absent),
                wanted => wanted.clone(),
            };
            assert_eq!(fault(&source), wanted, "{name:?} {system}");
        }
    }
}

// Rule T-24.
#[test]
fn helpers_of_the_system_have_a_clean_environment_and_those_of_a_user_their_own() {
    let host = Host::new();
    // Cargo sets this variable for every test.
    let script = r#"printf '{"Username":"%s","Secret":"%s"}' "$PATH $LANG $HOME $(pwd)" "${CARGO_MANIFEST_DIR-unset}""#;
    host.helper("x", script);
    let file = host.names_helper("x");
    let (user, secret, _) =
        parts(find(&Source::named(file.clone(), host.programs()), REPOSITORY).unwrap().credentials.unwrap());
    assert_eq!(user, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin C / /");
    assert_eq!(secret, "unset");
    let (user, secret, _) =
        parts(find(&Source::named(file, host.own_programs()), REPOSITORY).unwrap().credentials.unwrap());
    assert!(user.starts_with(std::env::var("PATH").unwrap().as_str()), "{user}");
    assert_eq!(secret, env!("CARGO_MANIFEST_DIR"));
}

// Rule T-24.
#[test]
fn helpers_of_the_system_are_found_in_its_directories_in_order() {
    let host = Host::new();
    let directories = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];
    for directory in directories {
        let answer = format!("echo '{{\"Username\":\"{directory}\"}}'");
        host.script(&format!("{directory}/docker-credential-x"), &answer);
    }
    let source = host.named(&host.names_helper("x"));
    for directory in directories {
        assert_eq!(user(&source, REPOSITORY).as_deref(), Some(directory));
        fs::remove_file(host.path(directory).join("docker-credential-x")).unwrap();
    }
    assert_eq!(fault(&source), Some(Fault::Absent));
    host.script("opt/docker-credential-x", ANSWER);
    assert_eq!(fault(&source), Some(Fault::Absent));
    // For a user, those of $PATH that are not relative, and what can be run.
    let file = host.names_helper("x");
    fs::create_dir(host.path("first")).unwrap();
    write(host.path("first/docker-credential-x"), "");
    let opt = host.path("opt").display().to_string();
    for (path, found) in [
        (format!("{}:{opt}", host.path("first").display()), true),
        (format!("/nonexistent::.:{opt}"), true),
        (relative(&host.path("opt")), false),
        (String::new(), false),
    ] {
        let programs = Programs::User { uid: geteuid().as_raw(), path: path.clone().into() };
        let source = Source::named(file.clone(), programs);
        assert_eq!(fault(&source), (!found).then_some(Fault::Absent), "{path}");
    }
}

// Rule T-24.
#[test]
fn what_others_could_change_runs_no_helper_of_the_system() {
    let writable = "it can be written by others than its owner";
    for (spoilt, mode) in [
        (None, 0),
        (Some("usr/bin/docker-credential-x"), 0o775),
        (Some("usr/bin/docker-credential-x"), 0o757),
        (Some("usr/bin"), 0o777),
        (Some("usr/bin"), 0o1777),
        (Some("usr"), 0o775),
        (Some(""), 0o777),
        (Some("etc/auth.json"), 0o660),
        (Some("etc/auth.json"), 0o602),
        (Some("etc"), 0o777),
    ] {
        let host = Host::new();
        host.helper("x", ANSWER);
        let file = write(host.path("etc/auth.json"), r#"{"credHelpers":{"q.io":"x"}}"#);
        host.tidy();
        let wanted = spoilt.map(|path| {
            let path = if path.is_empty() { host.root() } else { host.path(path) };
            restrict(&path, mode);
            Fault::Untrusted { path, detail: writable.to_owned() }
        });
        assert_eq!(fault(&host.named(&file)), wanted, "{spoilt:?} {mode:o}");
        restrict(&host.root(), 0o700);
    }
}

// Rule T-24.
#[test]
fn a_symbolic_link_leads_only_by_way_of_what_is_trusted() {
    for (links, spoilt, works) in [
        (vec![("usr/bin/docker-credential-x", "../../opt/a/x")], None, true),
        (vec![("usr/bin/docker-credential-x", "/opt/a/x")], None, true),
        (vec![("usr/bin/docker-credential-x", "../../opt/a/x")], Some("opt/a"), false),
        (vec![("usr/bin/docker-credential-x", "../../opt/b/y"), ("opt/b/y", "../a/x")], None, true),
        (vec![("usr/bin/docker-credential-x", "../../opt/b/y"), ("opt/b/y", "../a/x")], Some("opt/b"), false),
        (
            vec![("usr/bin/docker-credential-x", "../../c/x"), ("c", "opt/b/d"), ("opt/b/d", "../a")],
            None,
            true,
        ),
        (
            vec![("usr/bin/docker-credential-x", "../../c/x"), ("c", "opt/b/d"), ("opt/b/d", "../a")],
            Some("opt/b"),
            false,
        ),
        (vec![("usr/bin/docker-credential-x", "docker-credential-x")], None, false),
        (vec![("usr/bin/docker-credential-x", "nowhere")], None, false),
    ] {
        let host = Host::new();
        host.script("opt/a/x", ANSWER);
        let file = host.names_helper("x");
        for (link, target) in &links {
            fs::create_dir_all(host.path(link).parent().unwrap()).unwrap();
            symlink(target, host.path(link)).unwrap();
        }
        host.tidy();
        if let Some(path) = spoilt {
            restrict(&host.path(path), 0o777);
        }
        let fault = fault(&host.named(&file));
        match (&fault, spoilt) {
            (None, _) => assert!(works, "{links:?}"),
            (Some(Fault::Untrusted { path, .. }), Some(spoilt)) => assert_eq!(path, &host.path(spoilt)),
            (Some(Fault::Untrusted { .. }), None) => assert!(!works, "{links:?} {fault:?}"),
            (Some(_), _) => panic!("{links:?} {spoilt:?} {fault:?}"),
        }
    }
    // The authentication file, too.
    for (spoilt, works) in [(None, true), (Some("shared"), false)] {
        let host = Host::new();
        host.helper("x", ANSWER);
        write(host.path("etc/containers/auth.json"), r#"{"credHelpers":{"q.io":"x"}}"#);
        fs::create_dir(host.path("shared")).unwrap();
        symlink("../etc/containers/auth.json", host.path("shared/link.json")).unwrap();
        fs::create_dir(host.path("etc/ostree")).unwrap();
        symlink("../../shared/link.json", host.path("etc/ostree/auth.json")).unwrap();
        host.tidy();
        if let Some(path) = spoilt {
            restrict(&host.path(path), 0o777);
        }
        let source = host.named(&host.path("etc/ostree/auth.json"));
        assert_eq!(fault(&source).is_none(), works, "{spoilt:?}");
    }
}

// Rule T-24.
#[test]
fn what_belongs_to_somebody_else_runs_no_helper() {
    if !geteuid().is_root() {
        return skip("only root can give files away");
    }
    for path in ["usr/bin/docker-credential-x", "usr/bin", "auth.json", ""] {
        let host = Host::new();
        host.helper("x", ANSWER);
        let file = host.path("auth.json");
        write(&file, r#"{"credHelpers":{"q.io":"x"}}"#);
        host.tidy();
        let path = if path.is_empty() { host.root() } else { host.path(path) };
        chown(&path, Some(12345), None).unwrap();
        let detail = "it is owned by uid 12345".to_owned();
        let wanted = Fault::Untrusted { path: path.clone(), detail };
        assert_eq!(fault(&host.named(&file)), Some(wanted.clone()));
        // A user trusts the owner of the file, and the directories that $PATH names.
        let of = |uid| Source::named(file.clone(), Programs::User { uid, path: host.path("usr/bin").into() });
        let is_file = path == file;
        assert_eq!(fault(&of(0)), is_file.then_some(wanted));
        assert_eq!(fault(&of(12345)), None);
        assert_eq!(fault(&of(54321)).is_some(), is_file);
    }
}

// Rule T-24.
#[test]
fn a_link_of_somebody_else_runs_no_helper() {
    if !geteuid().is_root() {
        return skip("only root can give links away");
    }
    let host = Host::new();
    host.script("opt/x", ANSWER);
    let file = host.names_helper("x");
    let link = host.path("usr/bin/docker-credential-x");
    fs::create_dir_all(host.path("usr/bin")).unwrap();
    symlink("../../opt/x", &link).unwrap();
    host.tidy();
    assert_eq!(fault(&host.named(&file)), None);
    lchown(&link, Some(12345), None).unwrap();
    let wanted = Fault::Untrusted { path: link, detail: "it is owned by uid 12345".to_owned() };
    assert_eq!(fault(&host.named(&file)), Some(wanted));
}

// Rule T-24.
#[test]
fn a_file_of_a_user_that_others_could_change_runs_no_helper() {
    let host = Host::new();
    host.helper("x", ANSWER);
    let file = host.names_helper("x");
    for (mode, works) in [(0o600, true), (0o644, true), (0o620, false), (0o606, false)] {
        restrict(&file, mode);
        let wanted = (!works).then(|| Fault::Untrusted {
            path: file.clone(),
            detail: "it can be written by others than its owner".to_owned(),
        });
        assert_eq!(fault(&Source::named(file.clone(), host.own_programs())), wanted, "{mode:o}");
    }
}

// Rule T-22.
#[test]
fn whose_programs_count_follows_from_whose_files_do() {
    let host = Host::new();
    let path = |name: &str| (name == "PATH").then(|| "/p".into());
    let environment = host.environment(7);
    let own = Programs::User { uid: geteuid().as_raw(), path: "/p".into() };
    assert_eq!(Programs::of(&environment, path), own);
    let system = Programs::System { root: "/".into(), owner: 0 };
    assert_eq!(Programs::of(&Environment::system(), path), system);
}

// Rules U-3, T-24.
#[test]
fn the_stores_of_registries_conf_are_asked_in_order() {
    let host = Host::new();
    host.helper("works", r#"printf '{"Username":"%s","Secret":"p"}' "$(cat)""#);
    host.helper("empty", "echo 'credentials not found in native keychain'; exit 1");
    host.helper("fails", "echo hunter2; exit 1");
    host.helper("hangs", "sleep 600");
    let conf = host.file("");
    let has = host.auth(&json!({ "q.io": entry("file:p") }));
    let (nothing, broken) = (host.file("{}"), host.file("{"));
    let failed = Err(Code::CredentialHelperFailed);
    for (names, file, wanted) in [
        (vec![], &has, Ok(Some("file"))),
        (vec![FILES], &has, Ok(Some("file"))),
        (vec!["works"], &has, Ok(Some("q.io"))),
        (vec![FILES, "works"], &has, Ok(Some("file"))),
        (vec!["works", FILES], &has, Ok(Some("q.io"))),
        (vec!["empty", FILES], &has, Ok(Some("file"))),
        (vec!["fails", FILES], &has, Ok(Some("file"))),
        (vec!["absent", "a/b", "fails", "works"], &has, Ok(Some("q.io"))),
        (vec![FILES, "works"], &nothing, Ok(Some("q.io"))),
        (vec![FILES, "works"], &broken, Ok(Some("q.io"))),
        (vec!["empty", FILES], &nothing, Ok(None)),
        (vec!["fails", "empty"], &has, failed),
        (vec!["empty", "fails", FILES], &nothing, failed),
        (vec!["hangs", "empty"], &has, failed),
        (vec!["absent"], &has, failed),
        (vec![""], &has, failed),
        (vec![FILES, "fails"], &broken, Err(Code::AuthFileInvalid)),
        (vec!["fails", FILES], &broken, failed),
    ] {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let stores = Stores { names: &names, named_in: std::slice::from_ref(&conf) };
        let deadline =
            Instant::now() + Duration::from_secs(if names.contains(&"hangs".into()) { 1 } else { 60 });
        let found = host.named(file).find(REPOSITORY, stores, deadline);
        assert!(!format!("{found:?}").contains("hunter2"));
        let found = found.map(|f| f.credentials.map(|c| c.user)).map_err(|e| e.code());
        assert_eq!(found, wanted.map(|user| user.map(str::to_owned)), "{names:?}");
    }
    // Several faults are all told.
    let names = ["fails".to_owned(), "absent".to_owned()];
    let stores = Stores { names: &names, named_in: std::slice::from_ref(&conf) };
    let error = host.named(&has).find(REPOSITORY, stores, soon()).unwrap_err().to_string();
    assert!(error.contains("\"fails\"") && error.contains("\"absent\""), "{error}");
    assert!(error.contains(conf.to_str().unwrap()), "{error}");
    // Nobody runs what nobody is known to have named, or what others could have.
    let names = ["works".to_owned()];
    for programs in [host.programs(), host.own_programs()] {
        let source = Source::named(has.clone(), programs);
        let ask = |named_in: &[PathBuf]| match source.find(
            REPOSITORY,
            Stores { names: &names, named_in },
            soon(),
        ) {
            Ok(found) => Ok(found.credentials.is_some()),
            Err(Error::CredentialHelper { fault, .. }) => Err(fault),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(ask(&[]), Err(Fault::NamedNowhere));
        assert_eq!(ask(std::slice::from_ref(&conf)), Ok(true));
        assert!(matches!(ask(&[conf.clone(), host.path("absent")]), Err(Fault::Untrusted { .. })));
        let spoilt = host.file("spoilt");
        restrict(&spoilt, 0o666);
        assert!(matches!(ask(&[conf.clone(), spoilt]), Err(Fault::Untrusted { .. })));
    }
}

/// A host of its own: what `/` stands for, and whose everything there is.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(host.path("home")).unwrap();
        host
    }

    fn root(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new file that only its owner can read.
    fn file(&self, content: &str) -> PathBuf {
        let (_, path) =
            tempfile::Builder::new().suffix(".json").tempfile_in(self.dir.path()).unwrap().keep().unwrap();
        write(&path, content)
    }

    fn auth(&self, auths: &serde_json::Value) -> PathBuf {
        self.file(&json!({ "auths": auths }).to_string())
    }

    /// An authentication file that leaves q.io to a helper.
    fn names_helper(&self, name: &str) -> PathBuf {
        self.file(&json!({ "credHelpers": { "q.io": name } }).to_string())
    }

    fn helper(&self, name: &str, script: &str) {
        self.script(&format!("usr/bin/docker-credential-{name}"), script);
        self.tidy();
    }

    /// Writes a program by way of another process: one that is open for writing here could not be run.
    fn script(&self, path: &str, script: &str) {
        let draft = self.file(&format!("#!/bin/sh\n{script}\n"));
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let status = Command::new("install").args(["-m", "755"]).arg(&draft).arg(&path).status().unwrap();
        assert!(status.success());
        fs::remove_file(draft).unwrap();
    }

    /// Takes the rights to write from everybody else, whatever the umask.
    fn tidy(&self) {
        let status = Command::new("chmod").args(["-R", "go-w"]).arg(self.dir.path()).status().unwrap();
        assert!(status.success());
        assert_eq!(fs::metadata(self.dir.path()).unwrap().uid(), geteuid().as_raw());
    }

    fn programs(&self) -> Programs {
        Programs::System { root: self.root(), owner: geteuid().as_raw() }
    }

    fn own_programs(&self) -> Programs {
        let path = format!("{}:{}", std::env::var("PATH").unwrap(), self.path("usr/bin").display());
        Programs::User { uid: geteuid().as_raw(), path: path.into() }
    }

    fn named(&self, path: &Path) -> Source {
        Source::named(path.to_owned(), self.programs())
    }

    fn environment(&self, uid: u32) -> Environment {
        let user = User::at_home(self.path("home"));
        Environment { root: self.root(), uid, user: Some(user) }
    }

    /// The default files of a user, who has no variables.
    fn default_files(&self, uid: u32) -> Source {
        Source::of_command_line(None, &self.environment(uid), |_| None)
    }

    /// The same with helpers.
    fn default_files_of_owner(&self, uid: u32) -> Source {
        let path = self.path("usr/bin");
        Source::of_command_line(None, &self.environment(uid), |name| {
            (name == "PATH").then(|| path.clone().into())
        })
    }

    fn system(&self) -> Source {
        let environment = Environment { root: self.root(), ..Environment::system() };
        Source::of_command_line(None, &environment, |name| panic!("{name} was read"))
    }
}

fn entry(user_password: &str) -> serde_json::Value {
    json!({ "auth": STANDARD.encode(user_password) })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn find(source: &Source, repository: &str) -> Result<Found, Error> {
    source.find(repository, Stores::default(), soon())
}

fn user(source: &Source, repository: &str) -> Option<String> {
    find(source, repository).unwrap().credentials.map(|credentials| credentials.user)
}

/// What is wrong with the helper that is asked, if anything.
fn fault(source: &Source) -> Option<Fault> {
    match find(source, REPOSITORY) {
        Ok(found) => {
            assert!(found.credentials.is_some());
            None
        }
        Err(Error::CredentialHelper { fault, .. }) => Some(fault),
        Err(other) => panic!("{other:?}"),
    }
}

fn parts(credentials: Credentials) -> (String, String, Option<String>) {
    assert!(!format!("{credentials:?}").contains("hunter2"));
    let token = credentials.identity_token.map(|token| token.expose().to_owned());
    (credentials.user, credentials.password.expose().to_owned(), token)
}

fn restrict(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The same place, named from the working directory.
fn relative(path: &Path) -> String {
    let depth = std::env::current_dir().unwrap().components().count() - 1;
    format!("{}{}", "../".repeat(depth), path.strip_prefix("/").unwrap().display())
}

/// Whether the process ends soon; one that nobody has waited for has ended as well.
fn ends(pid: &str) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z') => {}
            Ok(_) | Err(_) => return true,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}
