//! What is kept of a verification, and what others may use of it: evidence and facts, never a verdict.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sequoia_openpgp as openpgp;
use sequoia_openpgp::cert::prelude::*;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::serialize::stream::{LiteralWriter, Message, Signer};
use serde_json::{Value, json};
use std::io::Write;
use std::time::UNIX_EPOCH;
use tokio::task::JoinSet;
use zbus::wire::Str;

use vouchd::dbus::Dictionary;
use vouchd::digest::Digest;
use vouchd::engine::{self, Answer, Engine, Request, Undecided};
use vouchd::evaluate::evidence::{Question, Subject};
use vouchd::evaluate::verdict::Decision;
use vouchd::fetch::credentials::Source;
use vouchd::fetch::{Asker, Principal};
use vouchd::manifest::Platform;
use vouchd::verify::Timestamp;

use crate::dbus::{Rig, Silent};
use crate::live::SigningKey;
use crate::server::{self, OCI, Reply, Server};
use crate::support::simple_signing;

const IMAGE: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
const MINUTE: Duration = Duration::from_secs(60);

// What was found before.

#[tokio::test]
async fn an_image_that_was_allowed_by_digest_is_judged_again_without_being_fetched() {
    let world = World::new().await;
    let (pinned, tagged) = (world.pinned(), world.tagged());
    let engine = world.engine();
    let first = ask(&engine, &pinned).await.unwrap();
    assert!(is_allowed(&first) && first.verdict.authenticated && !first.reused && first.requests > 0);
    let count = world.server.count();
    let again = ask(&engine, &pinned).await.unwrap();
    assert!(is_allowed(&again) && again.verdict.authenticated && again.reused);
    assert_eq!((world.server.count(), again.requests), (count, 0));

    // Unless the caller does not want that, or it was forgotten.
    let mut request = request(&engine);
    request.reuse = false;
    let anew = engine.answer(&pinned, request, MINUTE, engine::now()).await.unwrap();
    assert!(is_allowed(&anew) && !anew.reused && world.server.count() > count);
    engine.forget();
    let count = world.server.count();
    assert!(!ask(&engine, &pinned).await.unwrap().reused && world.server.count() > count);
    // Tags are resolved anew each time.
    for _ in 0..2 {
        let count = world.server.count();
        assert!(is_allowed(&ask(&engine, &tagged).await.unwrap()) && world.server.count() > count);
    }
}

/// Rule T-18: verdicts are not kept.
#[tokio::test]
async fn what_is_kept_is_judged_by_the_policy_of_the_moment() {
    let world = World::new().await;
    let (pinned, engine) = (world.pinned(), world.engine());
    let good = fs::read(world.rig.policy()).unwrap();
    assert!(is_allowed(&ask(&engine, &pinned).await.unwrap()));
    let other = SigningKey::new().requirement(&json!({"type": "matchRepository"}));
    let identity = json!({"type": "exactRepository", "dockerRepository": "h.example/other"});
    for (policy, code) in [
        (json!({"default": [{"type": "reject"}]}), "rejected-by-policy"),
        (json!({"default": [other]}), "bad-signature"),
        (json!({"default": [world.key.requirement(&identity)]}), "identity-mismatch"),
    ] {
        fs::write(world.rig.policy(), policy.to_string()).unwrap();
        let answer = ask(&engine, &pinned).await.unwrap();
        assert_eq!(code_of(&answer), Some(code));
        fs::write(world.rig.policy(), &good).unwrap();
        assert!(is_allowed(&ask(&engine, &pinned).await.unwrap()), "after {code}");
    }
    // Where signatures are looked for is part of what was found.
    let count = world.server.count();
    fs::write(
        world.rig.registries_d().join("all.yaml"),
        "default-docker:\n  lookaside: file:///nonexistent\n",
    )
    .unwrap();
    let answer = ask(&engine, &pinned).await.unwrap();
    assert_eq!(code_of(&answer), Some("attachments-disabled"));
    assert!(world.server.count() > count);
}

#[tokio::test]
async fn a_refusal_is_never_kept() {
    let world = World::new().await;
    let (pinned, engine) = (world.pinned(), world.engine());
    world.state.signed.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        let count = world.server.count();
        assert_eq!(code_of(&ask(&engine, &pinned).await.unwrap()), Some("unsigned"));
        assert!(world.server.count() > count);
    }
    world.state.signed.store(true, Ordering::SeqCst);
    assert!(is_allowed(&ask(&engine, &pinned).await.unwrap()));
    // What was kept and is not enough any more is fetched again, in case there is more by now.
    let second = SigningKey::new();
    let identity = json!({"type": "matchRepository"});
    let both = json!({"default": [world.key.requirement(&identity), second.requirement(&identity)]});
    fs::write(world.rig.policy(), both.to_string()).unwrap();
    *world.state.more.lock().unwrap() = Some(second);
    assert!(is_allowed(&ask(&engine, &pinned).await.unwrap()));
}

/// Rule T-18: between two requests for one image the key expires.
#[tokio::test]
async fn a_key_that_expires_counts_no_longer_although_its_signature_is_known() {
    let world = World::new().await;
    let (made, day) = (1_830_297_600_u64, 86_400);
    let (cert, _) = CertBuilder::new()
        .add_userid("signer")
        .set_primary_key_flags(openpgp::types::KeyFlags::empty().set_certification().set_signing())
        .set_creation_time(UNIX_EPOCH + Duration::from_secs(made))
        .set_validity_period(Duration::from_secs(day))
        .generate()
        .unwrap();
    let pair = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let mut blob = Vec::new();
    let signer = Signer::new(Message::new(&mut blob), pair).unwrap();
    let signer = signer.creation_time(UNIX_EPOCH + Duration::from_secs(made + 60)).build().unwrap();
    let mut literal = LiteralWriter::new(signer).build().unwrap();
    let digest = Digest::sha256(IMAGE);
    literal
        .write_all(&simple_signing(&format!("{}/ns/app", world.server.host), &digest.to_string()))
        .unwrap();
    literal.finalize().unwrap();
    let store = world.rig.path().join("store");
    let directory = store.join(format!("ns/app@sha256={}", digest.hex()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("signature-1"), blob).unwrap();
    let text = format!("default-docker:\n  lookaside: file://{}\n", store.display());
    fs::write(world.rig.registries_d().join("all.yaml"), text).unwrap();
    let key = world.rig.path().join("key.gpg");
    fs::write(&key, cert.to_vec().unwrap()).unwrap();
    let requirement = json!({
        "type": "signedBy", "keyType": "GPGKeys", "keyPath": key, "signedIdentity": {"type": "matchRepository"}
    });
    fs::write(world.rig.policy(), json!({"default": [requirement]}).to_string()).unwrap();
    let mut settings = world.rig.settings.clone();
    // Without what this host knows of the time.
    settings.environment.root = world.rig.path().to_owned();
    let engine = Arc::new(Engine::new(settings));
    let pinned = world.pinned();
    let at = async |seconds: u64| {
        let now = Timestamp(i64::try_from(made + seconds).unwrap());
        engine.answer(&pinned, request(&engine), MINUTE, now).await
    };
    for reused in [false, true] {
        let answer = at(day / 2).await.unwrap();
        assert!(is_allowed(&answer) && answer.verdict.authenticated, "{answer:?}");
        assert_eq!(answer.reused, reused);
    }
    let late = at(day + 1).await.unwrap();
    assert_eq!(code_of(&late), Some("key-expired"));
    assert!(is_allowed(&at(day / 2).await.unwrap()));
}

// What is being gathered for others.

/// Rule T-25: by one principal, and with the same options.
#[tokio::test]
async fn who_asks_for_the_same_at_the_same_time_has_it_gathered_once() {
    let world = World::new().await;
    *world.state.delay.lock().unwrap() = Duration::from_millis(400);
    let (tagged, engine) = (world.tagged(), world.engine());
    let auth = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dTpw\"}}}}}}", world.server.host);
    let supplied = Some(Source::handed_over(auth.as_bytes()).unwrap());
    let principals = [
        Principal::OWNER,
        Principal { asker: Asker::Owner, supplied: Some(Source::Anonymous) },
        Principal { asker: Asker::Owner, supplied },
        Principal { asker: Asker::User(1), supplied: Some(Source::Anonymous) },
    ];
    let scope = format!("{}/ns", world.server.host);
    let requirement = world.key.requirement(&json!({"type": "matchRepository"}));
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {scope: [requirement]}}});
    fs::write(world.rig.policy(), policy.to_string()).unwrap();
    let mut asking = JoinSet::new();
    for principal in &principals {
        for subject in [Subject::Either, Subject::Instance] {
            for _ in 0..5 {
                let (engine, tagged) = (Arc::clone(&engine), tagged.clone());
                let mut request = request(&engine);
                request.principal = principal.clone();
                request.question.subject = subject;
                asking.spawn(async move { engine.answer(&tagged, request, MINUTE, engine::now()).await });
            }
        }
    }
    let answers: Vec<Answer> = asking.join_all().await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| is_allowed(answer) && answer.verdict.authenticated));
    assert_eq!(world.state.manifests.load(Ordering::SeqCst), 8);
    assert_eq!(answers.iter().filter(|answer| !answer.reused).count(), 8);
    assert_eq!(engine.gatherings().taken(), 0);
}

/// Rule T-25: one member's cancel, deadline or error never ends another's.
#[tokio::test]
async fn who_gives_up_takes_nobody_along() {
    let world = World::new().await;
    let tagged = world.tagged();
    for ending in ["cancelled", "deadline", "error"] {
        let engine = world.engine();
        let seen = world.state.manifests.load(Ordering::SeqCst);
        world.state.first.lock().unwrap().replace(match ending {
            "error" => Reply::status(400, "").after(Duration::from_millis(300)),
            _ => Reply::Hang,
        });
        let short = if ending == "deadline" { Duration::from_millis(500) } else { MINUTE };
        let (leading, image) = (Arc::clone(&engine), tagged.clone());
        let leader =
            tokio::spawn(
                async move { leading.answer(&image, request(&leading), short, engine::now()).await },
            );
        while world.state.manifests.load(Ordering::SeqCst) == seen {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut following = JoinSet::new();
        for _ in 0..3 {
            let (engine, tagged) = (Arc::clone(&engine), tagged.clone());
            following
                .spawn(async move { engine.answer(&tagged, request(&engine), MINUTE, engine::now()).await });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.state.manifests.load(Ordering::SeqCst), seen + 1, "they wait");
        match ending {
            "cancelled" => {
                leader.abort();
                assert!(leader.await.unwrap_err().is_cancelled());
            }
            _ => assert!(leader.await.unwrap().is_err()),
        }
        for answer in following.join_all().await {
            assert!(is_allowed(&answer.unwrap()), "{ending}");
        }
    }
}

/// Rule T-25: of many who follow, one leads next, and the others need no turns.
#[tokio::test]
async fn many_go_on_when_the_first_gives_up() {
    let world = World::new().await;
    let (tagged, engine) = (world.tagged(), world.engine());
    world.state.first.lock().unwrap().replace(Reply::Hang);
    let (leading, image) = (Arc::clone(&engine), tagged.clone());
    let leader =
        tokio::spawn(async move { leading.answer(&image, request(&leading), MINUTE, engine::now()).await });
    while world.state.manifests.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut following = JoinSet::new();
    for _ in 0..engine::GATHERINGS.all + 20 {
        let (engine, tagged) = (Arc::clone(&engine), tagged.clone());
        following.spawn(async move { engine.answer(&tagged, request(&engine), MINUTE, engine::now()).await });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    *world.state.delay.lock().unwrap() = Duration::from_millis(300);
    leader.abort();
    for answer in following.join_all().await {
        assert!(is_allowed(&answer.unwrap()));
    }
    assert_eq!(world.state.manifests.load(Ordering::SeqCst), 2);
}

/// What began before everything was forgotten is neither given to who asks after it, nor kept.
#[tokio::test]
async fn what_is_forgotten_does_not_come_back() {
    for joins in [true, false] {
        let world = World::new().await;
        let (pinned, engine) = (world.pinned(), world.engine());
        *world.state.delay.lock().unwrap() = Duration::from_millis(300);
        let (leading, image) = (Arc::clone(&engine), pinned.clone());
        let leader =
            tokio::spawn(
                async move { leading.answer(&image, request(&leading), MINUTE, engine::now()).await },
            );
        while world.state.manifests.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        engine.forget();
        if joins {
            assert!(!ask(&engine, &pinned).await.unwrap().reused);
        }
        assert!(is_allowed(&leader.await.unwrap().unwrap()));
        if !joins {
            world.state.signed.store(false, Ordering::SeqCst);
            assert_eq!(code_of(&ask(&engine, &pinned).await.unwrap()), Some("unsigned"));
        }
    }
}

#[tokio::test]
async fn a_follower_has_a_deadline_of_its_own() {
    let world = World::new().await;
    world.state.first.lock().unwrap().replace(Reply::Hang);
    let (tagged, engine) = (world.tagged(), world.engine());
    let (leading, image) = (Arc::clone(&engine), tagged.clone());
    let leader =
        tokio::spawn(async move { leading.answer(&image, request(&leading), MINUTE, engine::now()).await });
    while world.state.manifests.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let soon = Duration::from_millis(300);
    let late = engine.answer(&tagged, request(&engine), soon, engine::now()).await.unwrap_err();
    assert_eq!(late.error.code().as_str(), "timed-out");
    assert_eq!(world.state.manifests.load(Ordering::SeqCst), 1);
    leader.abort();
}

// Over D-Bus.

#[tokio::test]
async fn callers_can_do_without_and_reload_forgets() {
    let world = World::new().await;
    let (pinned, verifier) = (world.pinned(), world.rig.verifier().await);
    let hits = async || verifier.counters().await.unwrap()["cache-hits"];
    let verify = |options| verifier.verify_image(&pinned, options);
    verify(Dictionary::new()).await.unwrap();
    assert_eq!(hits().await, 0);
    verify(Dictionary::new()).await.unwrap();
    assert_eq!(hits().await, 1);
    verify(Dictionary::new().with("no-cache", true)).await.unwrap();
    assert_eq!(hits().await, 1);
    verifier.reload().await.unwrap();
    verify(Dictionary::new()).await.unwrap();
    assert_eq!(hits().await, 1);
    let digest = Digest::sha256(IMAGE).to_string();
    verifier.verify_image_digest(&world.tagged(), &digest, Dictionary::new()).await.unwrap();
    assert_eq!(hits().await, 2);
    let checked = Dictionary::new().with("check-tag", true);
    verifier.verify_image_digest(&world.tagged(), &digest, checked).await.unwrap();
    assert_eq!(hits().await, 2, "tags are resolved anew");
}

/// Joining a gathering that runs takes no turn (design decision 6).
#[tokio::test]
async fn more_may_wait_for_one_image_than_gather() {
    let world = World::new().await;
    *world.state.delay.lock().unwrap() = Duration::from_millis(500);
    let (tagged, verifier) = (world.tagged(), world.rig.verifier().await);
    let mut asking = JoinSet::new();
    for number in 0..engine::GATHERINGS.all + 20 {
        let (verifier, tagged) = (verifier.clone(), tagged.clone());
        asking.spawn(async move {
            let options = Dictionary::new().with("cookie", Str::from(number.to_string()));
            verifier.verify_image(&tagged, options).await.map(|_| ())
        });
    }
    for answer in asking.join_all().await {
        answer.unwrap();
    }
    assert_eq!(world.state.manifests.load(Ordering::SeqCst), 1);
}

/// Thirty-two callers at once, half of them for a registry that hangs: the others have their verdicts meanwhile.
#[tokio::test]
async fn a_registry_that_hangs_holds_up_only_those_who_ask_for_it() {
    let (world, silent) = (World::new().await, Silent::start().await);
    let verifier = world.rig.verifier().await;
    let ask = |image: String, seconds: u64| {
        let verifier = verifier.clone();
        async move {
            let options = Dictionary::new().with("timeout-usec", seconds * 1_000_000).with("no-cache", true);
            verifier.verify_image(&image, options).await.map(drop)
        }
    };
    let mut hanging = JoinSet::new();
    for number in 0..engine::GATHERINGS.all / 2 {
        hanging.spawn(ask(silent.numbered(number), 20));
    }
    while silent.connections.load(Ordering::SeqCst) < engine::GATHERINGS.all / 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..3 {
        let mut good = JoinSet::new();
        for _ in 0..engine::GATHERINGS.all / 2 {
            good.spawn(ask(world.tagged(), 20));
        }
        for answer in good.join_all().await {
            answer.unwrap();
        }
    }
    assert!(hanging.try_join_next().is_none(), "all of them still hang");
}

// What the tests stand on.

fn request(engine: &Engine) -> Request {
    let question = Question { require_signature: true, subject: Subject::Either, platform: Platform::host() };
    Request::new(question, engine.budget(Asker::Owner))
}

async fn ask(engine: &Arc<Engine>, image: &str) -> Result<Answer, Box<Undecided>> {
    engine.answer(image, request(engine), MINUTE, engine::now()).await
}

fn is_allowed(answer: &Answer) -> bool {
    matches!(answer.verdict.decision, Decision::Allow(_))
}

fn code_of(answer: &Answer) -> Option<&'static str> {
    match &answer.verdict.decision {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some(denial.code().as_str()),
    }
}

/// A registry with one image, which is signed unless it is said not to be.
struct World {
    rig: Rig,
    server: Server,
    key: Arc<SigningKey>,
    state: Arc<State>,
}

struct State {
    signed: AtomicBool,
    /// Who signs as well.
    more: Mutex<Option<SigningKey>>,
    /// How long each answer takes.
    delay: Mutex<Duration>,
    /// What the next request for the manifest is answered with.
    first: Mutex<Option<Reply>>,
    /// How often the manifest was asked for.
    manifests: AtomicUsize,
}

impl World {
    async fn new() -> Self {
        let certificates = server::Rig::new();
        let key = Arc::new(SigningKey::new());
        let state = Arc::new(State {
            signed: AtomicBool::new(true),
            more: Mutex::default(),
            delay: Mutex::default(),
            first: Mutex::default(),
            manifests: AtomicUsize::new(0),
        });
        let (signer, served) = (Arc::clone(&key), Arc::clone(&state));
        let server = certificates
            .server(move |host, seen| {
                let (delay, reply) =
                    (*served.delay.lock().unwrap(), served.answer(host, &seen.path, &signer));
                if delay.is_zero() { reply } else { reply.after(delay) }
            })
            .await;
        let requirement = key.requirement(&json!({"type": "matchRepository"}));
        let mut rig = Rig::new(&json!({"default": [requirement]}).to_string());
        let certs = rig.path().join("certs");
        fs::create_dir(&certs).unwrap();
        fs::copy(certificates.certs().join("ca.crt"), certs.join("ca.crt")).unwrap();
        rig.settings.registry.cert_dir = Some(certs);
        let text = "default-docker:\n  lookaside: file:///nonexistent\n  use-sigstore-attachments: true\n";
        fs::write(rig.registries_d().join("all.yaml"), text).unwrap();
        Self { rig, server, key, state }
    }

    fn engine(&self) -> Arc<Engine> {
        Arc::new(Engine::new(self.rig.settings.clone()))
    }

    fn tagged(&self) -> String {
        format!("docker://{}/ns/app:1", self.server.host)
    }

    fn pinned(&self) -> String {
        format!("docker://{}/ns/app@{}", self.server.host, Digest::sha256(IMAGE))
    }
}

impl State {
    fn answer(&self, host: &str, path: &str, signer: &SigningKey) -> Reply {
        let digest = Digest::sha256(IMAGE);
        let more = self.more.lock().unwrap();
        let name = path.rsplit('/').next().unwrap();
        let layers: Vec<(Vec<u8>, String)> = [Some(signer), more.as_ref()]
            .into_iter()
            .flatten()
            .map(|key| key.sign(&format!("{host}/ns/app:1"), &digest.to_string()))
            .collect();
        if name == "1" || name == digest.to_string() {
            self.manifests.fetch_add(1, Ordering::SeqCst);
            return self.first.lock().unwrap().take().unwrap_or_else(|| Reply::manifest(IMAGE));
        }
        if let Some((payload, _)) =
            layers.iter().find(|(payload, _)| name == Digest::sha256(payload).to_string())
        {
            return Reply::ok(payload);
        }
        match name {
            "" => Reply::ok(b"{}"),
            _ if name == format!("sha256-{}.sig", digest.hex()) && self.signed.load(Ordering::SeqCst) => {
                Reply::manifest(attachment(&layers).to_string().as_bytes())
            }
            _ => Reply::oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }
}

fn attachment(layers: &[(Vec<u8>, String)]) -> Value {
    let layer = |(payload, signature): &(Vec<u8>, String)| {
        json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": Digest::sha256(payload).to_string(),
            "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        })
    };
    let layers: Vec<Value> = layers.iter().map(layer).collect();
    json!({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": layers})
}
