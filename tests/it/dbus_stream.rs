//! The real daemon under a stream of requests: while its policy changes, and for leaks.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use zbus::wire::{Array, Fd, Str};
use zbus::{OwnedVariant, Type, Variant};

use vouchd::dbus::{self, Dictionary, VerifierProxy};
use vouchd::digest::Digest;

use crate::dbus::{Bus, Daemon, Rig, Rules, uncached};
use crate::dbus_users::{NOBODY, User, bus as users_bus, sealed};

/// Allowed or not without anybody being asked.
const IMAGE: &str = "docker-daemon:a/b:1";
const OPEN: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
const CLOSED: &str = r#"{"default":[{"type":"reject"}]}"#;

/// What is right to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Allowed,
    Rejected,
    /// There is no policy that can be used.
    Unusable,
    /// The file is being changed: each of these, and nothing else.
    Changing,
}

/// What the file is, and how often that has changed.
struct Truth {
    now: Mutex<(u64, Right)>,
    over: AtomicBool,
}

impl Truth {
    fn set(&self, right: Right) {
        let mut now = self.now.lock().unwrap();
        *now = (now.0 + 1, right);
    }

    fn now(&self) -> (u64, Right) {
        *self.now.lock().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_are_answered_by_the_old_policy_or_the_new_one() {
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(CLOSED);
    let daemon = Daemon::start(&bus, &rig);
    let truth = Arc::new(Truth { now: Mutex::new((0, Right::Rejected)), over: AtomicBool::new(false) });
    let changing = std::thread::spawn({
        let (truth, policy, beside) = (Arc::clone(&truth), rig.policy(), rig.path().join("beside"));
        move || change(&truth, &policy, &beside)
    });
    let counts = Arc::new([const { AtomicUsize::new(0) }; 3]);
    let (asked, settled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let verifier = uncached(&bus.connect().await).await;
        let (truth, counts) = (Arc::clone(&truth), Arc::clone(&counts));
        let (asked, settled) = (Arc::clone(&asked), Arc::clone(&settled));
        asking.spawn(async move {
            while asked.fetch_add(1, Ordering::SeqCst) < 10_000 {
                let before = truth.now();
                let found = ask(&verifier).await;
                let after = truth.now();
                let place = match found {
                    Right::Allowed => 0,
                    Right::Rejected => 1,
                    Right::Unusable | Right::Changing => 2,
                };
                counts[place].fetch_add(1, Ordering::SeqCst);
                if before == after && before.1 != Right::Changing {
                    assert_eq!(found, before.1, "change {}", before.0);
                    settled.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    asking.join_all().await;
    truth.over.store(true, Ordering::SeqCst);
    let changes = changing.join().unwrap();
    let counts = counts.each_ref().map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counts.iter().sum::<usize>(), 10_000);
    // The test says something only if all of this happened, and often.
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
    assert!(changes > 50 && settled.load(Ordering::SeqCst) > 1000, "{changes} {settled:?}");
    daemon.end();
}

/// One answer, which says by which policy.
async fn ask(verifier: &VerifierProxy<'_>) -> Right {
    let lax = Dictionary::new().with("require-signature", false);
    let asking = tokio::time::timeout(Duration::from_secs(30), verifier.evaluate_image(IMAGE, lax));
    match asking.await.expect("no answer is lost") {
        Ok(report) => {
            let Some(Variant::Dict(policy)) = report.value("policy") else { panic!("{report:?}") };
            let key = Str::from("digest");
            let digest: Option<Str<'_>> = policy.get(&key).unwrap();
            let (right, text) = match report.value("allowed") {
                Some(Variant::Bool(true)) => (Right::Allowed, OPEN),
                _ => (Right::Rejected, CLOSED),
            };
            assert_eq!(digest.unwrap().as_str(), Digest::sha256(text.as_bytes()).to_string());
            right
        }
        Err(error) => {
            let code = error.code().unwrap_or_default();
            assert!(matches!(code, "policy-invalid" | "policy-missing" | "policy-unreadable"), "{error}");
            Right::Unusable
        }
    }
}

/// How a file becomes another one.
enum Way {
    InPlace,
    Link,
    Remove,
    Rename,
}

/// Changes the file in every way, until it is enough; how often.
fn change(truth: &Truth, policy: &Path, beside: &Path) -> u64 {
    let pause = || std::thread::sleep(Duration::from_millis(10));
    let broken = &OPEN[..OPEN.len() - 1];
    let rename = |text: &str| {
        fs::write(beside, text).unwrap();
        fs::rename(beside, policy).unwrap();
    };
    let link = |text: &str| {
        let target = beside.with_extension(Digest::sha256(text.as_bytes()).hex());
        fs::write(&target, text).unwrap();
        let _ = fs::remove_file(beside);
        symlink(&target, beside).unwrap();
        fs::rename(beside, policy).unwrap();
    };
    let in_place = |text: &str| {
        let (head, tail) = text.split_at(text.len() / 2);
        fs::write(policy, head).unwrap();
        pause();
        fs::write(policy, [head, tail].concat()).unwrap();
    };
    let ways = [
        (Way::Rename, OPEN, Right::Allowed),
        (Way::Rename, CLOSED, Right::Rejected),
        (Way::InPlace, OPEN, Right::Allowed),
        (Way::InPlace, CLOSED, Right::Rejected),
        (Way::Rename, broken, Right::Unusable),
        (Way::Rename, CLOSED, Right::Rejected),
        (Way::Remove, "", Right::Unusable),
        (Way::Link, OPEN, Right::Allowed),
        (Way::Link, CLOSED, Right::Rejected),
        (Way::Link, broken, Right::Unusable),
    ];
    for (way, text, right) in ways.iter().cycle() {
        if truth.over.load(Ordering::SeqCst) {
            break;
        }
        truth.set(Right::Changing);
        match way {
            Way::InPlace => in_place(text),
            Way::Link => link(text),
            Way::Remove => fs::remove_file(policy).unwrap(),
            Way::Rename => rename(text),
        }
        truth.set(*right);
        std::thread::sleep(Duration::from_millis(30));
    }
    truth.now().0 / 2
}

/// Good and bad calls of every kind, over and over. `VOUCHD_TEST_CALLS` says how many.
#[tokio::test(flavor = "multi_thread")]
async fn many_calls_leak_neither_memory_nor_descriptors() {
    let calls: u64 = std::env::var("VOUCHD_TEST_CALLS").map_or(6_000, |text| text.parse().unwrap());
    let Some(bus) = Bus::start(Rules::Shipped) else { return };
    let rig = Rig::new(CLOSED);
    let daemon = Daemon::start(&bus, &rig);
    let made = Arc::new(AtomicU64::new(0));
    let run = async |until: u64| {
        let mut calling = JoinSet::new();
        for _ in 0..4 {
            let verifier = uncached(&bus.connect().await).await;
            let made = Arc::clone(&made);
            calling.spawn(async move {
                loop {
                    let number = made.fetch_add(1, Ordering::SeqCst);
                    if number >= until {
                        break;
                    }
                    call(&verifier, number).await;
                }
            });
        }
        calling.join_all().await;
    };
    // What is kept for good is kept after these.
    run(calls / 3).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = daemon.usage();
    run(calls).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = daemon.usage();
    println!("{calls} calls: {before:?} before, {after:?} after (descriptors, KiB)");
    assert!(after.0 <= before.0, "{before:?} {after:?}");
    assert!(after.1 < before.1 + 4096, "{before:?} {after:?}");
    daemon.end();
}

/// Rule T-28: what a user sends costs little before it is refused; the unit of the daemon may have 256 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_not_read() {
    let Some(bus) = users_bus() else { return };
    let rig = Rig::new(CLOSED);
    let daemon = Daemon::start(&bus, &rig);
    let user = User::connect(&bus, NOBODY).await.unwrap();
    for size in [30 << 20, 60 << 10] {
        let mut calling = JoinSet::new();
        for _ in 0..if size > 1 << 20 { 1 } else { 60 } {
            let connection = user.connection.clone();
            calling.spawn(async move {
                let options = std::collections::HashMap::from([("x", Variant::from(vec![7_u8; size]))]);
                let manager = Some("org.vouchd.Verifier1.Manager");
                let body = (IMAGE, options);
                connection.call_method(Some(dbus::NAME), dbus::PATH, manager, "ExplainImage", &body).await
            });
        }
        for answer in calling.join_all().await {
            let error = answer.unwrap_err().to_string();
            assert!(error.contains("larger than 4 KiB"), "{error}");
        }
    }
    let most = daemon.peak();
    assert!(most < 160 << 10, "{most} KiB");
    daemon.end();
}

/// Rules T-26, T-27: nobody takes the descriptors that the daemon needs to go on.
#[tokio::test(flavor = "multi_thread")]
async fn one_user_does_not_take_all_descriptors() {
    let Some(bus) = users_bus() else { return };
    let rig = Rig::new(CLOSED);
    let daemon = Daemon::start(&bus, &rig);
    let (mut users, mut calling) = (Vec::new(), JoinSet::new());
    for _ in 0..4 {
        let user = User::connect(&bus, NOBODY).await.unwrap();
        let verifier = uncached(&user.connection).await;
        for _ in 0..100 {
            let verifier = verifier.clone();
            calling.spawn(async move {
                let mut signatures = Array::new(<Fd<'_> as Type>::SIGNATURE);
                for _ in 0..15 {
                    signatures.append(Variant::Fd(sealed(b"{}"))).unwrap();
                }
                let signatures = OwnedVariant::try_from(Variant::Array(signatures)).unwrap();
                let options = Dictionary::new().with("signatures", signatures);
                verifier.verify_manifest(IMAGE, sealed(b"{}"), options).await.map(drop)
            });
        }
        users.push(user);
    }
    let mut most = 0;
    while !calling.is_empty() {
        let _ = tokio::time::timeout(Duration::from_millis(5), calling.join_next()).await;
        most = most.max(daemon.usage().0);
    }
    assert!(most < 4096, "{most}");
    assert_eq!(ask(&uncached(&bus.connect().await).await).await, Right::Rejected);
    daemon.end();
}

async fn call(verifier: &VerifierProxy<'static>, number: u64) {
    let file = || {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"{\"default\":[{}]}").unwrap();
        zbus::wire::Fd::from(std::os::fd::OwnedFd::from(file))
    };
    let pipe = || zbus::wire::Fd::from(std::os::fd::OwnedFd::from(std::io::pipe().unwrap().0));
    let auth = |fd| Dictionary::new().with("auth-file", OwnedVariant::try_from(Variant::Fd(fd)).unwrap());
    let cookie = || Dictionary::new().with("cookie", Str::from("the same"));
    let _: Result<(), dbus::Error> = match number % 10 {
        0 => verifier.verify_image(IMAGE, Dictionary::new()).await.map(drop),
        1 => verifier.evaluate_image(IMAGE, cookie()).await.map(drop),
        2 => verifier.verify_image("docker://h.invalid/a/b:1", auth(file())).await.map(drop),
        3 => verifier.verify_image("docker://h.invalid/a/b:1", auth(pipe())).await.map(drop),
        4 => verifier.verify_manifest("docker://h.invalid/a/b:1", file(), Dictionary::new()).await.map(drop),
        5 => verifier.verify_manifest("docker://h.invalid/a/b:1", pipe(), cookie()).await.map(drop),
        6 => verifier.lint_policy(file(), Dictionary::new()).await.map(drop),
        7 => verifier.explain_image(IMAGE, Dictionary::new()).await.map(drop),
        8 => verifier.verify_image(&"x".repeat(100_000), Dictionary::new()).await.map(drop),
        _ => verifier.cancel_verification(&number.to_string()).await,
    };
}

impl Daemon {
    /// Open descriptors, and resident KiB; proc_pid_status(5).
    fn usage(&self) -> (usize, u64) {
        let proc = PathBuf::from(format!("/proc/{}", self.id()));
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = resident.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        (fs::read_dir(proc.join("fd")).unwrap().count(), resident)
    }

    /// The most resident KiB that there ever were.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }
}
