//! `vouchd simulate`: two policies on one list of images, against a registry that answers by a script.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use vouchd::digest::Digest;
use vouchd::manifest::OCI_INDEX;

use crate::live::SigningKey;
use crate::server::{OCI, Reply, Rig, Seen, Server};
use crate::support::{Ran, have, write};

const IMAGE: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
const ATTACHMENTS: &str =
    "default-docker:\n  lookaside: file:///nonexistent\n  use-sigstore-attachments: true\n";

/// A registry, policies, and lists of images.
struct World {
    rig: Rig,
    server: Server,
    key: Arc<SigningKey>,
}

impl World {
    async fn new() -> Self {
        let rig = Rig::new();
        let key = Arc::new(SigningKey::new());
        let (signer, moves) = (Arc::clone(&key), AtomicUsize::new(0));
        let server = rig.server(move |host, seen| answer(host, seen, &signer, &moves)).await;
        let world = Self { rig, server, key };
        world.write("registries.d/all.yaml", ATTACHMENTS);
        world.write("registries.conf", "");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.rig.dir.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.path(name), content).display().to_string()
    }

    /// The image in this repository.
    fn image(&self, repository: &str) -> String {
        format!("docker://{}/{repository}:1", self.server.host)
    }

    /// A policy with this requirement for every image.
    fn policy(&self, requirement: &Value) -> String {
        let policy = json!({"default": [requirement]}).to_string();
        self.write(&format!("{}.json", Digest::sha256(policy.as_bytes()).hex()), policy)
    }

    fn signed(&self) -> Value {
        self.key.requirement(&json!({"type": "matchRepository"}))
    }

    /// A key that is not there, so that nobody can say who signed.
    fn unknowable(&self) -> Value {
        json!({"type": "sigstoreSigned", "keyPath": self.name("no-such-key")})
    }

    /// The command line for these policies, without a list; later options count in place of earlier ones.
    fn command(&self, old: &str, new: &str) -> Vec<String> {
        let (stores, conf) = (self.name("registries.d"), self.name("registries.conf"));
        let certs = self.rig.certs().display().to_string();
        ["simulate", "--against", old, "--policy", new, "--registries-d", &stores]
            .into_iter()
            .chain(["--registries-conf", &conf, "--cert-dir", &certs])
            .map(str::to_owned)
            .collect()
    }

    async fn run(&self, old: &str, new: &str, list: impl AsRef<[u8]>, options: &[&str]) -> Ran {
        let mut arguments = self.command(old, new);
        arguments.extend(["--refs", "-"].map(str::to_owned));
        for option in options {
            let at = arguments.iter().position(|known| known == option && option.starts_with("--"));
            if let Some(at) = at {
                arguments.drain(at..at + 2);
            }
        }
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        let list = list.as_ref().to_vec();
        tokio::task::spawn_blocking(move || run(&arguments, &list)).await.unwrap()
    }

    /// The report on these images.
    async fn report(&self, old: &Value, new: &Value, images: &[String], options: &[&str]) -> (i32, Value) {
        let (old, new) = (self.policy(old), self.policy(new));
        let options: Vec<&str> = options.iter().copied().chain(["--json"]).collect();
        let ran = self.run(&old, &new, images.join("\n"), &options).await;
        (ran.exit, ran.json())
    }
}

/// What the registry has, by the name of the repository.
fn answer(host: &str, seen: &Seen, signer: &SigningKey, moves: &AtomicUsize) -> Reply {
    let missing = || Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    let Some((repository, rest)) = seen.path.trim_start_matches("/v2/").split_once('/') else {
        return Reply::ok(b"{}");
    };
    let digest = Digest::sha256(IMAGE);
    let (payload, signature) = signer.sign(&format!("{host}/{repository}:1"), &digest.to_string());
    let layer = json!({
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": Digest::sha256(&payload).to_string(),
        "size": payload.len(),
        "annotations": {"dev.cosignproject.cosign/signature": signature},
    });
    let attachment = json!({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": [layer]});
    let manifest = |label: usize| {
        let labelled = json!({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": [], "annotations": {"n": label.to_string()}});
        Reply::manifest(labelled.to_string().as_bytes())
    };
    let name = rest.rsplit('/').next().unwrap();
    match (repository, name) {
        ("hangs", _) => Reply::Hang,
        ("gone", _) => missing(),
        ("moves", "1") => manifest(moves.fetch_add(1, Ordering::SeqCst)),
        ("moved", "1") => manifest(moves.fetch_add(1, Ordering::SeqCst).min(2)),
        ("index", "1") => {
            let instance = json!({
                "mediaType": OCI, "digest": digest.to_string(), "size": IMAGE.len(),
                "platform": {"os": "linux", "architecture": "amd64"},
            });
            let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [instance]});
            Reply::ok(index.to_string().as_bytes()).with("Content-Type", OCI_INDEX)
        }
        (_, "1") => Reply::manifest(IMAGE),
        (_, name) if name == digest.to_string() => Reply::manifest(IMAGE),
        (_, name) if name == Digest::sha256(&payload).to_string() => Reply::ok(&payload),
        (_, name) if name == format!("sha256-{}.sig", digest.hex()) => match repository {
            "signed" | "index" => Reply::manifest(attachment.to_string().as_bytes()),
            "half" => Reply::status(400, ""),
            _ => missing(),
        },
        _ => missing(),
    }
}

/// Runs the program with this standard input.
fn run(arguments: &[String], input: &[u8]) -> Ran {
    let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read everything.
    let writing = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let ran = Ran::from(child.wait_with_output().unwrap());
    writing.join().unwrap();
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    ran
}

fn command(arguments: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vouchd"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").stdin(Stdio::piped());
    command
}

fn anything() -> Value {
    json!({"type": "insecureAcceptAnything"})
}

fn reject() -> Value {
    json!({"type": "reject"})
}

/// The changes of a report, in its order.
fn changes(report: &Value) -> Vec<&str> {
    report["images"].as_array().unwrap().iter().map(|image| image["change"].as_str().unwrap()).collect()
}

/// What a verdict of a report comes down to.
fn standing(verdict: &Value) -> &'static str {
    let member = |name: &str| verdict[name].as_bool().unwrap();
    match (member("decided"), member("allowed"), member("authenticated")) {
        (true, true, true) => "verified",
        (true, true, false) => "unverified",
        (true, false, false) => "denied",
        (false, false, false) => "undecided",
        impossible => panic!("{impossible:?}"),
    }
}

// What both policies say, and what that means.

#[tokio::test]
async fn every_pair_of_verdicts_is_reported_for_what_it_is() {
    let world = World::new().await;
    let image = [world.image("signed")];
    let policies = [
        ("verified", world.signed()),
        ("unverified", anything()),
        ("denied", reject()),
        ("undecided", world.unknowable()),
    ];
    let changes_of = [
        ["same", "no-longer-verified", "now-refused", "now-undecided"],
        ["now-verified", "same", "now-refused", "now-undecided"],
        ["now-allowed", "now-allowed", "same", "now-undecided"],
        ["unknown", "unknown", "unknown", "unknown"],
    ];
    for ((was, old), row) in policies.iter().zip(changes_of) {
        for ((is, new), change) in policies.iter().zip(row) {
            let (exit, report) = world.report(old, new, &image, &[]).await;
            let only = &report["images"][0];
            assert_eq!((standing(&only["old"]), standing(&only["new"])), (*was, *is), "{report}");
            assert_eq!(only["change"], change, "{was} {is}");
            assert_eq!(report["counts"][change], 1, "{was} {is}: {report}");
            let wanted = match change {
                "now-undecided" | "unknown" => 4,
                "now-refused" | "no-longer-verified" => 1,
                _ => 0,
            };
            assert_eq!(exit, wanted, "{was} {is}");
        }
    }
}

#[tokio::test]
async fn the_highest_exit_status_counts() {
    let world = World::new().await;
    let image = |name: &str| world.image(name);
    let signed = world.signed();
    for (old, new, images, exit, wanted) in [
        (anything(), signed.clone(), vec!["signed"], 0, vec!["now-verified"]),
        (anything(), signed.clone(), vec!["signed", "plain"], 1, vec!["now-verified", "now-refused"]),
        (signed.clone(), anything(), vec!["plain", "signed"], 1, vec!["now-allowed", "no-longer-verified"]),
        (anything(), signed.clone(), vec!["plain", "gone"], 3, vec!["now-refused", "unknown"]),
        (anything(), signed.clone(), vec!["half"], 3, vec!["now-undecided"]),
        (signed.clone(), anything(), vec!["half"], 3, vec!["unknown"]),
        (signed.clone(), reject(), vec!["half", "plain"], 3, vec!["unknown", "same"]),
        (anything(), world.unknowable(), vec!["gone", "signed"], 4, vec!["unknown", "now-undecided"]),
    ] {
        let images: Vec<String> = images.into_iter().map(image).collect();
        let (found, report) = world.report(&old, &new, &images, &[]).await;
        assert_eq!((found, changes(&report)), (exit, wanted), "{images:?}: {report}");
    }
}

#[tokio::test]
async fn the_text_tells_why_and_what_allows() {
    let world = World::new().await;
    let (open, closed) = (world.policy(&anything()), world.policy(&world.signed()));
    let images = [world.image("signed"), world.image("plain"), world.image("gone")].join("\n");
    let ran = world.run(&open, &closed, &images, &[]).await;
    assert_eq!((ran.exit, ran.stderr.as_str()), (3, ""), "{ran:?}");
    let rows: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(rows[0], format!("old policy  {open}"));
    assert_eq!(rows[1], format!("new policy  {closed}"));
    let row = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row(rows[2]), ["image", "old", "new", "change"]);
    assert_eq!(row(rows[3])[1..], ["allowed, unverified", "allowed, verified", "now verified"]);
    assert_eq!(row(rows[4])[1..], ["allowed, unverified", "denied", "now refused"]);
    assert_eq!(row(rows[5])[1..], ["undecided", "undecided", "unknown"]);
    for part in [
        format!(
            "line 1, {}: now verified: signature verified\n  policy    {closed}:1:",
            world.image("signed")
        ),
        format!(
            "line 2, {}: now refused: a signature is required, and the image has none [unsigned]\n",
            world.image("plain")
        ),
        format!("line 3, {}: unknown: ", world.image("gone")),
        "[image-not-found]\n".to_owned(),
        "  signer    public key sha256:".to_owned(),
        "\n  help: check that the publisher signs this image".to_owned(),
        "\n3 images: 1 now refused, 1 now verified, 1 unknown\n".to_owned(),
    ] {
        assert!(ran.stdout.contains(&part), "{part}: {}", ran.stdout);
    }
    // What is allowed without a signature says so, and what does not change says nothing.
    let ran = world.run(&closed, &open, &images, &[]).await;
    let part = format!(
        "line 1, {}: no longer verified: no signature required\n  policy    {open}:",
        world.image("signed")
    );
    assert!(ran.stdout.contains(&part), "{}", ran.stdout);
    let ran = world.run(&closed, &closed, world.image("plain"), &[]).await;
    assert_eq!((ran.exit, ran.stdout.lines().count()), (0, 5), "{ran:?}");
    assert!(ran.stdout.ends_with("\n1 image: 1 same\n"), "{ran:?}");
}

#[tokio::test]
async fn the_options_count_for_both_policies() {
    let world = World::new().await;
    let (nothing, missing) = (world.write("empty.d/all.yaml", "{}"), world.name("missing.json"));
    let stores = PathBuf::from(nothing).parent().unwrap().display().to_string();
    let no_certs = world.name("no-certs");
    std::fs::create_dir(&no_certs).unwrap();
    let blocking = format!("[[registry]]\nlocation = \"{}\"\nblocked = true\n", world.server.host);
    let blocking = world.write("blocking.conf", blocking);
    for (image, options, exit, change, code) in [
        ("index", vec![], 0, "now-verified", None),
        ("index", vec!["--platform", "linux/amd64", "--subject", "instance"], 0, "now-verified", None),
        (
            "index",
            vec!["--platform", "linux/amd64", "--subject", "top-level"],
            1,
            "now-refused",
            Some("unsigned"),
        ),
        (
            "index",
            vec!["--platform", "linux/s390x", "--subject", "instance"],
            3,
            "unknown",
            Some("no-matching-platform"),
        ),
        ("signed", vec!["--require-signature"], 0, "now-allowed", None),
        ("signed", vec!["--registries-d", &stores], 1, "now-refused", Some("attachments-disabled")),
        ("signed", vec!["--registries-conf", &blocking], 3, "unknown", Some("registry-blocked")),
        ("signed", vec!["--authfile", &missing], 4, "unknown", Some("auth-file-invalid")),
        ("signed", vec!["--cert-dir", &no_certs], 3, "unknown", Some("tls-error")),
        ("hangs", vec!["--timeout", "300ms"], 3, "unknown", Some("timed-out")),
    ] {
        // Whatever this host is, the index has an instance for it.
        let options =
            if image == "index" && options.is_empty() { vec!["--platform", "linux/amd64"] } else { options };
        let (found, report) =
            world.report(&anything(), &world.signed(), &[world.image(image)], &options).await;
        let only = &report["images"][0];
        assert_eq!(only["change"], change, "{options:?}: {report}");
        assert_eq!(only["new"]["code"].as_str(), code, "{options:?}: {report}");
        assert_eq!(found, exit, "{options:?}: {report}");
    }
    // So do the prefixes of ostree, for one image alone.
    let images = [world.image("plain"), format!("ostree-image-signed:{}", world.image("plain"))];
    let (exit, report) = world.report(&anything(), &anything(), &images, &[]).await;
    assert_eq!((exit, changes(&report)), (0, vec!["same", "same"]));
    let standings: Vec<&str> =
        report["images"].as_array().unwrap().iter().map(|i| standing(&i["new"])).collect();
    assert_eq!(standings, ["unverified", "denied"]);
}

#[tokio::test]
async fn without_a_policy_to_compare_with_it_is_that_of_the_host() {
    // It would come before the user's.
    if PathBuf::from("/etc/vouchd/policy.json").exists() {
        return crate::support::skip("this host has a policy of vouchd's own");
    }
    let world = World::new().await;
    let (host, new) = (world.policy(&anything()), world.policy(&reject()));
    let mut arguments = world.command("", &new);
    arguments.drain(1..3);
    arguments.extend(["--json", "--user-config", "--refs", "-"].map(str::to_owned));
    let mut command = command(&arguments);
    command.env("CONTAINERS_POLICY_JSON", &host).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"dir:/nonexistent/image").unwrap();
    let ran =
        tokio::task::spawn_blocking(move || Ran::from(child.wait_with_output().unwrap())).await.unwrap();
    let report = ran.json();
    assert_eq!((&report["against"]["path"], &report["policy"]["path"]), (&json!(host), &json!(new)));
}

// What is asked of registries.

#[tokio::test]
async fn an_image_of_which_both_policies_require_the_same_is_fetched_once() {
    let world = World::new().await;
    let host = world.server.host.clone();
    let (signed, image) = (world.signed(), world.image("signed"));
    let old = world.write("old.json", json!({"default": [signed]}).to_string());
    let new = json!({"default": [reject()], "transports": {"docker": {format!("{host}/signed"): [signed], format!("{host}/gone"): [signed], format!("{host}/plain"): [signed]}}});
    let new = world.write("new.json", format!("\n\n{new}"));
    let ran = world.run(&old, &old, &image, &["--json"]).await;
    assert_eq!((ran.exit, changes(&ran.json())), (0, vec!["same"]));
    let once = world.server.count();
    let manifests =
        |world: &World| world.server.seen().iter().filter(|seen| seen.path.ends_with("/manifests/1")).count();
    assert_eq!(manifests(&world), 1);
    // Each verdict names the place in its own policy.
    let ran = world.run(&old, &new, &image, &["--json"]).await;
    let (report, count) = (ran.json(), world.server.count());
    assert_eq!((ran.exit, count), (0, 2 * once));
    let only = &report["images"][0];
    let place = |verdict: &Value| {
        (verdict["scope"]["file"].clone(), verdict["scope"]["name"].clone(), verdict["scope"]["line"].clone())
    };
    assert_eq!(place(&only["old"]), (json!(old), json!("default"), json!(1)));
    assert_eq!(place(&only["new"]), (json!(new), json!(format!("{host}/signed")), json!(3)));
    assert_eq!((standing(&only["old"]), standing(&only["new"])), ("verified", "verified"));
    // What one of them rejects unseen is fetched once, too; the same where nothing could be had.
    let ran = world.run(&old, &world.policy(&reject()), &image, &["--json"]).await;
    assert_eq!((changes(&ran.json()), world.server.count()), (vec!["now-refused"], 3 * once));
    let ran = world.run(&old, &new, world.image("gone"), &["--json"]).await;
    let report = ran.json();
    let gone = &report["images"][0];
    assert_eq!((ran.exit, changes(&report)), (3, vec!["unknown"]));
    assert_eq!(place(&gone["old"]), (json!(old), json!("default"), json!(1)));
    assert_eq!(place(&gone["new"]), (json!(new), json!(format!("{host}/gone")), json!(3)));
    let ran = world.run(&new, &old, world.image("plain"), &["--json"]).await;
    assert_eq!((ran.exit, ran.json()["images"][0]["new"]["code"].clone()), (0, json!("unsigned")));
}

/// One key by two names, or one name for two keys, is not the same requirement.
#[tokio::test]
async fn policies_that_differ_a_little_are_judged_each_by_itself() {
    let world = World::new().await;
    let image = [world.image("signed")];
    let other = SigningKey::new().requirement(&json!({"type": "matchRepository"}));
    let elsewhere =
        world.key.requirement(&json!({"type": "exactRepository", "dockerRepository": "h.example/other"}));
    for (new, code) in [(other, "bad-signature"), (elsewhere, "identity-mismatch")] {
        let (exit, report) = world.report(&world.signed(), &new, &image, &[]).await;
        assert_eq!((exit, changes(&report)), (1, vec!["now-refused"]));
        assert_eq!(report["images"][0]["new"]["code"], code);
        let (exit, report) = world.report(&new, &world.signed(), &image, &[]).await;
        assert_eq!((exit, changes(&report)), (0, vec!["now-allowed"]));
    }
}

#[tokio::test]
async fn verdicts_on_different_manifests_are_not_compared() {
    for (repository, exit, change, code) in [
        ("moves", 3, "unknown", "image-changed"),
        // Between the first two questions only.
        ("moved", 1, "now-refused", "unsigned"),
    ] {
        let world = World::new().await;
        let (found, report) =
            world.report(&anything(), &world.signed(), &[world.image(repository)], &[]).await;
        let only = &report["images"][0];
        assert_eq!((found, only["change"].as_str()), (exit, Some(change)), "{report}");
        assert_eq!(only["new"]["code"], code);
        assert_eq!(only["old"]["decided"], json!(repository == "moved"));
    }
}

#[tokio::test]
async fn a_registry_that_hangs_holds_up_nobody_else() {
    let world = World::new().await;
    let mut images = vec![world.image("hangs")];
    images.extend((0..20).map(|n| world.image(if n % 2 == 0 { "signed" } else { "plain" })));
    images.push(world.image("hangs"));
    let begun = Instant::now();
    // Every other image takes milliseconds; together they would not, one after the other behind those that hang.
    let (exit, report) = world.report(&anything(), &world.signed(), &images, &["--timeout", "5s"]).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let names: Vec<&str> =
        report["images"].as_array().unwrap().iter().map(|i| i["reference"].as_str().unwrap()).collect();
    assert_eq!((exit, names), (3, images.iter().map(String::as_str).collect()));
    let changes = changes(&report);
    assert_eq!((changes[0], changes[21]), ("unknown", "unknown"));
    for (n, change) in changes[1..21].iter().enumerate() {
        assert_eq!(*change, if n % 2 == 0 { "now-verified" } else { "now-refused" });
    }
    assert_eq!(report["images"][0]["new"]["code"], "timed-out");
}

#[tokio::test]
async fn others_are_asked_while_the_first_of_the_list_hangs() {
    let world = World::new().await;
    let (old, new) = (world.policy(&anything()), world.policy(&world.signed()));
    // One image would be fetched once for all who ask at the same time.
    let plain = (0..20).map(|n| world.image(&format!("plain{n}")));
    let list: Vec<String> = std::iter::once(world.image("hangs")).chain(plain).collect();
    let list = world.write("list", list.join("\n"));
    let mut arguments = world.command(&old, &new);
    arguments.extend(["--refs".to_owned(), list]);
    let mut child = command(&arguments).stdout(Stdio::null()).spawn().unwrap();
    let asked = || {
        world
            .server
            .seen()
            .iter()
            .filter(|seen| seen.path.contains("plain") && seen.path.ends_with("/manifests/1"))
            .count()
    };
    let begun = Instant::now();
    // Once for each policy; by default the first would hang for 90 s.
    while asked() < 40 {
        assert!(begun.elapsed() < Duration::from_secs(45), "{}", asked());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn eight_images_are_judged_at_a_time_and_a_signal_ends_it() {
    let world = World::new().await;
    let policy = world.policy(&world.signed());
    let list: Vec<String> = (0..20).map(|n| format!("docker://{}/hangs:{n}", world.server.host)).collect();
    let list = world.write("list", list.join("\n"));
    let mut arguments = world.command(&policy, &policy);
    arguments.extend(["--refs".to_owned(), list]);
    let mut child = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let asked = || world.server.seen().iter().filter(|seen| seen.path.contains("/manifests/")).count();
    while asked() < 8 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", asked());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(asked(), 8);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let (status, mut text) = (child.wait().unwrap(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        (status.signal(), text)
    });
    let (signal, text) = tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap();
    assert_eq!((signal, text.as_str()), (Some(15), ""), "half an answer is none");
}

// The list.

#[tokio::test]
async fn the_order_is_that_of_the_list_and_lines_that_are_no_names_are_told() {
    let world = World::new().await;
    let (signed, plain) = (world.image("signed"), world.image("plain"));
    let bare = plain.strip_prefix("docker://").unwrap();
    let long = "a".repeat(3000);
    let mut list = format!("# images\r\n\n  {signed}\t\r\n   # {plain}\nnot a name\n{bare}\n").into_bytes();
    list.extend(b"dir:/\xff\n");
    list.extend(format!("{long}\n{signed}").into_bytes());
    let (old, new) = (world.policy(&anything()), world.policy(&world.signed()));
    let file = world.write("list", &list);
    let from_file = world.run(&old, &new, "", &["--json", "--refs", &file]).await;
    let ran = world.run(&old, &new, &list, &["--json"]).await;
    assert_eq!((ran.exit, &ran.stdout), (3, &from_file.stdout), "{ran:?}");
    let report = ran.json();
    let images = report["images"].as_array().unwrap();
    let found: Vec<_> = images
        .iter()
        .map(|i| {
            (i["line"].as_u64().unwrap(), i["reference"].as_str().unwrap(), i["change"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        found,
        [
            (3, signed.as_str(), "now-verified"),
            (5, "not a name", "unknown"),
            (6, bare, "now-refused"),
            (7, "dir:/\u{fffd}", "unknown"),
            (8, &long[..80], "unknown"),
            (9, signed.as_str(), "now-verified"),
        ]
    );
    for n in [1, 3, 4] {
        assert_eq!(images[n]["old"]["code"], "invalid-reference", "{}", images[n]);
        assert!(images[n]["old"]["help"].is_string() && images[n]["old"] == images[n]["new"]);
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_used_is_a_wrong_command_line() {
    let world = World::new().await;
    let policy = world.policy(&reject());
    let (missing, directory) = (world.name("missing"), world.name("registries.d"));
    let blanks = " ".repeat((4 << 20) + 1);
    let large = world.write("large", &blanks);
    for (list, options, message) in [
        ("", vec![], "names none"),
        ("# nothing\n\n", vec![], "names none"),
        (&"a\n".repeat(10_001), vec![], "names 10001; at most 10000"),
        (blanks.as_str(), vec![], "larger than 4194304 bytes"),
        ("", vec!["--refs", &large], "larger than 4194304 bytes"),
        ("", vec!["--refs", &missing], "No such file"),
        ("", vec!["--refs", &directory], "not a regular file"),
    ] {
        let ran = world.run(&policy, &policy, list, &options).await;
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{message}: {ran:?}");
        assert!(ran.stderr.contains(message) && ran.stderr.contains("[usage]\nhelp: "), "{message}: {ran:?}");
        let options: Vec<&str> = options.into_iter().chain(["--json"]).collect();
        let ran = world.run(&policy, &policy, list, &options).await;
        let report = ran.json();
        assert_eq!(
            (ran.exit, &report["failure"]["code"], &report["images"]),
            (2, &json!("usage"), &json!([]))
        );
    }
    // As many as may be are judged.
    let ran = world.run(&policy, &policy, "a\n".repeat(10_000), &[]).await;
    assert!(ran.exit == 3 && ran.stdout.ends_with("\n10000 images: 10000 unknown\n"), "{}", ran.exit);
}

#[tokio::test]
async fn a_policy_or_configuration_that_cannot_be_used_is_told_before_anything_is_asked() {
    let world = World::new().await;
    let good = world.policy(&world.signed());
    let bad = world.policy(&json!({"type": "rejekt"}));
    let missing = world.name("missing");
    let broken = world.write("broken.d/all.yaml", "default-docker: [");
    let broken = PathBuf::from(broken).parent().unwrap().display().to_string();
    for (old, new, options, code) in [
        (&good, &bad, vec![], "policy-invalid"),
        (&bad, &good, vec![], "policy-invalid"),
        (&good, &missing, vec![], "policy-unreadable"),
        (&missing, &good, vec![], "policy-unreadable"),
        (&good, &good, vec!["--registries-d", &broken], "registries-d-invalid"),
    ] {
        let ran = world.run(old, new, world.image("signed"), &options).await;
        assert_eq!((ran.exit, ran.stdout.as_str()), (4, ""), "{code}: {ran:?}");
        assert!(ran.stderr.contains(&format!("[{code}]\nhelp: ")), "{code}: {ran:?}");
        let options: Vec<&str> = options.into_iter().chain(["--json"]).collect();
        let ran = world.run(old, new, world.image("signed"), &options).await;
        assert_eq!((ran.exit, &ran.json()["failure"]["code"]), (4, &json!(code)), "{ran:?}");
    }
    assert_eq!(world.server.count(), 0);
}

// The terminal.

#[tokio::test]
async fn what_a_list_says_cannot_act_on_a_terminal() {
    let world = World::new().await;
    let policy = world.policy(&anything());
    let list = "dir:/a\u{1b}[2Jb\nquay.io/\u{202e}x:1\n\u{7}\u{9b}31m\r\u{b}z\n";
    for options in [&[][..], &["--json"]] {
        let ran = world.run(&policy, &policy, list, options).await;
        assert_eq!(ran.exit, 3, "{ran:?}");
        let bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ran.stdout.contains(bad) && ran.stderr.is_empty(), "{ran:?}");
        assert!(ran.stdout.contains("1b") && ran.stdout.contains("202e"), "{ran:?}");
    }
}

#[tokio::test]
async fn progress_is_shown_on_a_terminal_only_and_taken_away_again() {
    if !have(&["script"]) {
        return;
    }
    let world = World::new().await;
    let policy = world.policy(&anything());
    let list = world.write("list", [world.image("plain"), world.image("signed")].join("\n"));
    let mut arguments = world.command(&policy, &policy);
    arguments.extend(["--refs".to_owned(), list]);
    let out = world.name("out");
    let line = format!("'{}' {} > '{out}'", env!("CARGO_BIN_EXE_vouchd"), arguments.join(" "));
    let seen = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
        Ran::from(command.output().unwrap())
    });
    let seen = seen.await.unwrap();
    let blank = " ".repeat("2 of 2 images judged".len());
    let wanted: String = (0..=2).map(|n| format!("\r{n} of 2 images judged")).collect();
    assert_eq!((seen.exit, seen.stdout), (0, format!("{wanted}\r{blank}\r")));
    assert!(std::fs::read_to_string(world.path("out")).unwrap().ends_with("2 images: 2 same\n"));
}
